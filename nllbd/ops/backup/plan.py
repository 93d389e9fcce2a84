"""What is backed up, where to, and how long it is kept: `backup.toml`. Reads that file and nothing else."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nllbd.errors import ConfigError

DEFAULT_FILE = Path("/etc/nllbd/backup.toml")
PASSWORD = "backup_password"  # a file's name
#: What belongs to a host besides the state folder, where it exists.
DEFAULT_PATHS = (
    "/etc/nllbd",
    "/etc/nginx",
    "/etc/haproxy",
    "/etc/keepalived",
    "/etc/letsencrypt",
    "/etc/redis",
    "/etc/postgresql",
    "/etc/pgbackrest*",
    "/etc/prometheus",
    "/etc/default/prometheus*",
    "/etc/syslog-ng",
    "/etc/nftables.conf",
    "/etc/systemd/system/nllbd*",
)
_PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, slots=True)
class Keep:
    """How many backups stay: the newest `last`, and the last one of so many hours, days, weeks, months, years."""

    last: int = 3
    hourly: int = 0
    daily: int = 14
    weekly: int = 8
    monthly: int = 12
    yearly: int = 0

    @property
    def arguments(self) -> list[str]:
        """For `restic forget`."""
        counts = {name: getattr(self, name) for name in _PERIODS}
        return [word for name, count in counts.items() if count for word in (f"--keep-{name}", str(count))]


@dataclass(frozen=True, slots=True)
class Plan:
    """One host's backup. `paths` may be patterns. `folder`: what a run needs on disk; root's alone. `host`: its name
    in the repository.
    """

    repository: str
    password_file: Path
    s3_credentials_file: Path | None = None
    cacert: Path | None = None
    paths: tuple[str, ...] = DEFAULT_PATHS
    exclude: tuple[str, ...] = ()
    weights: bool = False
    redis: bool = True
    config: Path = Path("/etc/nllbd/nllbd.toml")
    credentials: Path = Path("/etc/nllbd/credentials")
    state: Path = Path("/var/lib/nllbd")
    folder: Path = Path("/var/lib/nllbd-backup")
    textfiles: Path = Path("/var/lib/prometheus/node-exporter")
    host: str = field(default_factory=lambda: os.uname().nodename)
    check_percent: int = 5
    keep: Keep = field(default_factory=Keep)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which the daemon's settings are read as its unit reads them."""
        return {**os.environ, "CREDENTIALS_DIRECTORY": str(self.credentials), "STATE_DIRECTORY": str(self.state)}


def read_plan(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Plan:
    """The plan in `file` (default: /etc/nllbd/backup.toml). A systemd credential `backup_password` beats
    `password_file`. Raises ConfigError.
    """
    file = file or DEFAULT_FILE
    environ = os.environ if environ is None else environ
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    keep = _checked(table.pop("keep", {}), _keep_kinds(), f"{file}: [keep]")
    values = _checked(table, _KINDS, str(file))
    credential = Path(environ.get("CREDENTIALS_DIRECTORY") or "/nonexistent") / PASSWORD
    if credential.is_file():
        values["password_file"] = credential
    values.setdefault("password_file", Path(f"/etc/nllbd/credentials/{PASSWORD}"))
    if not values.get("repository"):
        raise ConfigError(f"{file}: repository is missing: where backups go, any restic URL")
    if not 0 <= values.get("check_percent", 0) <= 100:
        raise ConfigError(f"{file}: check_percent: expected 0 to 100")
    plan = Plan(**values, keep=Keep(**keep))
    if not plan.keep.arguments:
        raise ConfigError(f"{file}: [keep]: all counts are 0, so nothing would be kept")
    return plan


_KINDS: dict[str, type] = {
    "repository": str,
    "password_file": Path,
    "s3_credentials_file": Path,
    "cacert": Path,
    "paths": list,
    "exclude": list,
    "weights": bool,
    "redis": bool,
    "config": Path,
    "credentials": Path,
    "state": Path,
    "folder": Path,
    "textfiles": Path,
    "host": str,
    "check_percent": int,
}


def _keep_kinds() -> dict[str, type]:
    return {item.name: int for item in fields(Keep)}


def _checked(table: Any, kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """The table's values as their kinds. Raises ConfigError for what is unknown or of another kind."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table")
    values: dict[str, Any] = {}
    raw: Any
    for name, raw in table.items():
        kind = kinds.get(name)
        if kind is None:
            raise ConfigError(f"{where}: unknown key {name!r}; known are {', '.join(sorted(kinds))}")
        written: type = str if kind is Path else kind
        fits: bool = isinstance(raw, written) and (kind is not int or _is_count(raw))
        if not fits:
            raise ConfigError(f"{where}: {name}: expected {'a path' if kind is Path else kind.__name__}, got {raw!r}")
        if kind is list and not all(isinstance(it, str) for it in raw):
            raise ConfigError(f"{where}: {name}: expected a list of texts")
        values[name] = Path(raw) if kind is Path else raw
    if "paths" in values:
        values["paths"] = tuple(values["paths"])
    if "exclude" in values:
        values["exclude"] = tuple(values["exclude"])
    return values


def _is_count(raw: Any) -> bool:
    return not isinstance(raw, bool) and raw >= 0
