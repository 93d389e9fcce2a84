"""The shipped HAProxy in a folder of its own, with the interface of `kit.edge.Edge` as far as these tests use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.ops.kit.daemons import free_port
from tests.ops.kit.edge import DEPLOY
from tests.ops.kit.nginx import kill_family
from tests.ops.kit.programs import need

SOURCE = DEPLOY / "haproxy"
UNLIMITED = dict.fromkeys(("NLLBD_FLOOD", "NLLBD_AT_ONCE", "NLLBD_STRANGER", "NLLBD_KEY"), "1000000")
LIMITED = {"NLLBD_FLOOD": "250", "NLLBD_AT_ONCE": "100", "NLLBD_STRANGER": "20", "NLLBD_KEY": "100"}
NOBODY = "127.0.0.1:9"
WITHIN_S = 20.0


class HAProxy:
    """HAProxy with deploy/haproxy, in front of two daemons at most in pool blue and one in pool green."""

    def __init__(
        self, folder: Path, blue: list[str], green: str = NOBODY, *, certificate: Path, unlimited: bool = True
    ) -> None:
        self.folder = folder
        shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
        (folder / "certificates").mkdir()
        pem = certificate.joinpath("fullchain.pem").read_text() + certificate.joinpath("privkey.pem").read_text()
        (folder / "certificates/all.pem").write_text(pem)
        self.cafile = certificate / "fullchain.pem"
        self.https_port, self.http_port, self.status_port = free_port(), free_port(), free_port()
        environ = {"NLLBD_FOLDER": str(folder), "NLLBD_RUN": str(folder), "NLLBD_ADDRESS": "127.0.0.1"}
        environ |= {"NLLBD_HTTPS_PORT": str(self.https_port), "NLLBD_HTTP_PORT": str(self.http_port)}
        environ |= {"NLLBD_STATUS_PORT": str(self.status_port), "NLLBD_CERTIFICATES": str(folder / "certificates")}
        environ |= {"NLLBD_BLUE_1": blue[0], "NLLBD_BLUE_2": blue[1] if len(blue) > 1 else NOBODY}
        environ |= {"NLLBD_GREEN_1": green, **(UNLIMITED if unlimited else LIMITED)}
        self.environ = {"PATH": os.environ["PATH"], **environ}
        self.log_path = folder / "haproxy.log"
        command = [str(need("haproxy")["haproxy"]), "-W", "-f", str(folder)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environ)
        try:
            self._wait_started(sum(address != NOBODY for address in blue))
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def http_url(self) -> str:
        return f"http://localhost:{self.http_port}"

    @property
    def status_url(self) -> str:
        return f"http://127.0.0.1:{self.status_port}"

    def upstream(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`haproxy-upstream`."""
        command = [str(SOURCE / "bin/haproxy-upstream"), "--folder", str(self.folder), "--run", str(self.folder)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"haproxy-upstream {arguments}: {done.returncode}\n{done.stderr}"
        return done

    def reload(self) -> None:
        """USR2 to the master: new workers take over, the former finish."""
        former = self._children()
        self.process.send_signal(signal.SIGUSR2)
        end = time.monotonic() + WITHIN_S
        while not self._children() - former:
            assert time.monotonic() < end, f"no new worker:\n{self.log_path.read_text()}"
            time.sleep(0.05)

    def access_log(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def error_log(self) -> str:
        return "\n".join(line for line in self.log_path.read_text("utf-8").splitlines() if not line.startswith("{"))

    def kill(self) -> None:
        kill_family(self.process)

    def __enter__(self) -> HAProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _wait_started(self, num_daemons: int) -> None:
        """Until it listens and its checks have found the daemons."""
        end = time.monotonic() + WITHIN_S
        while True:
            assert self.process.poll() is None, self.log_path.read_text()
            assert time.monotonic() < end, self.log_path.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.https_port), timeout=2).close()
                shown = json.loads(self.upstream("show", "--json").stdout)
            except (OSError, AssertionError):
                time.sleep(0.05)
                continue
            states = [row["state"] for row in shown["pools"]["blue"] if row["address"] != NOBODY]
            if [state.split()[0] for state in states].count("UP") >= num_daemons:
                return
            time.sleep(0.05)

    def _children(self) -> set[int]:
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return set()
        return {int(pid) for pid in text.split()}
