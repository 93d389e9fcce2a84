"""A daemon of our own for a while: on a free port of the loopback, with a configuration and a state folder apart from
the host's, as the service's user if we are root. For verifying backups and for measuring.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nllbd.errors import NllbdError, NotReady
from nllbd.ops.asking import Server

USER = "nllbd"
_READY_S = 300.0
_STOP_S = 60.0
_POLL_S = 0.05
#: What belongs to the host's daemon alone: addresses, shared services, who is told of what.
FOREIGN = (
    "host",
    "port",
    "metrics_host",
    "metrics_port",
    "database_url",
    "redis_url",
    "rate_limit_redis_url",
    "sentry_dsn",
    "otlp_endpoint",
    "log_format",
    "log_level",
    "trusted_proxies",
)


def own_settings(table: Mapping[str, Any], **more: Any) -> str:
    """A configuration file's text: `table` without what is the host's alone, and with `more`."""
    foreign = {spelled for name in FOREIGN for spelled in (name, f"{name}_file")}
    own = {name: value for name, value in table.items() if name not in foreign}
    own |= {"host": "127.0.0.1", "port": 0, "metrics_host": "127.0.0.1", "metrics_port": 0, "log_format": "json"}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in (own | more).items())


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # of a setting's kinds (text, number, flag, list) TOML's are JSON's


def service_user(*others: str) -> dict[str, Any]:
    """For `subprocess`: run as the service's user, or as the first of `others` that there is; {} if we are not root."""
    for name in (USER, *others) if os.geteuid() == 0 else ():
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return {}


def give_to_service(paths: Iterable[Path], *others: str) -> None:
    """Make files and folders those of the user that `service_user` names, if we are root."""
    user = service_user(*others)
    for path in paths if user else ():
        os.chown(path, user["user"], user["group"], follow_symlinks=False)


class TrialDaemon:
    """`with TrialDaemon(config, state) as daemon:` → ready, at `daemon.server`. Raises NotReady with the log's end."""

    def __init__(self, config: Path, state: Path, credentials: Path | None = None) -> None:
        self._config = config
        self._log = state / "trial.log"
        base = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        self._environ = base | {"HOME": str(state), "STATE_DIRECTORY": str(state), "PYTHONDONTWRITEBYTECODE": "1"}
        if credentials is not None:
            self._environ["CREDENTIALS_DIRECTORY"] = str(credentials)
        self.server = Server("")

    def run(self, *arguments: str) -> str:
        """Another command with the same settings; its output. Raises NllbdError."""
        command = [sys.executable, "-m", "nllbd", *arguments, "--config", str(self._config)]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=False, **self._as_service()
        )
        if done.returncode != 0:
            raise NllbdError(f"nllbd {arguments[0]}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "nllbd", "serve", "--config", str(self._config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_service()
            )
        try:
            self.server = Server(self._wait_for_address())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _as_service(self) -> dict[str, Any]:
        return {"cwd": self._log.parent, **service_user()}

    def _wait_for_address(self) -> str:
        """The ready line's."""
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
                if '"start_s"' in line and '"url"' in line:
                    return str(json.loads(line)["url"])
            if self._process.poll() is not None:
                raise NotReady(f"the daemon ended with {self._process.returncode}: {self._last_words()}")
            time.sleep(_POLL_S)
        raise NotReady(f"the daemon was not ready within {_READY_S:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        return " / ".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])[-600:]

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
