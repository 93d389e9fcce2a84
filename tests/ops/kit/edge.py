"""The shipped edge in a folder of its own: nginx as `nginx-install` puts it there, in front of given daemons."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.ops.kit.daemons import free_port
from tests.ops.kit.nginx import Nginx

DEPLOY = Path(__file__).parents[3] / "deploy"
INSTALL = DEPLOY / "nginx/bin/nginx-install"
NAMES = ("localhost", "api.example.test")

#: For tests of something other than limits: site/rates.conf of a host that counts nothing (nginx counts no empty key).
UNLIMITED = """\
map "" $nllbd_nobody {
    default "";
}
limit_req_zone $nllbd_nobody zone=nllbd_strangers:1m rate=1r/s;
limit_req_zone $nllbd_nobody zone=nllbd_keys:1m rate=1r/s;
limit_req_zone $nllbd_nobody zone=nllbd_flood:1m rate=1r/s;
limit_conn_zone $nllbd_nobody zone=nllbd_connections:1m;
map $nllbd_key $nllbd_retry_after_429 {
    ""      6;
    default 1;
}
"""


def install(
    folder: Path, servers: list[str], *options: str, unlimited: bool = True, netns: str | None = None, **ports: int
) -> None:
    """`nginx-install` into `folder` for ports of 127.0.0.1. `options` are its own."""
    ports = {name: ports.get(name) or free_port() for name in ("http_port", "https_port", "status_port")}
    command = ["ip", "netns", "exec", netns] if netns else []
    command += [str(INSTALL), "--folder", str(folder), "--run-folder", str(folder / "run"), *options]
    if "--address" not in options:
        command += ["--address", "127.0.0.1"]
    for name, port in ports.items():
        command += [f"--{name.replace('_', '-')}", str(port)]
    if "--user" not in options:  # workers must read pages in a folder that is nobody else's
        command += ["--user", getpass.getuser()]
    command += [word for name in NAMES for word in ("--server-name", name)]
    command += [word for server in servers for word in ("--server", server)]
    if unlimited:
        (folder / "nllbd/site").mkdir(parents=True, exist_ok=True)
        (folder / "nllbd/site/rates.conf").write_text(UNLIMITED)
    if "--waf" in options:
        (folder / "modules-enabled").mkdir(parents=True, exist_ok=True)
        for module in Path("/etc/nginx/modules-enabled").glob("*modsecurity*"):
            shutil.copy(module, folder / "modules-enabled")
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


class Edge(Nginx):
    """The shipped nginx in front of `servers` (HOST:PORT), listening on free ports of 127.0.0.1.

        with Edge(tmp_path, [one.address, two.address]) as edge, Traffic(edge.url, clients=2, cafile=edge.cafile):
            edge.upstream("drain", two.address, "--wait", "30")

    `ports`: https_port, http_port, status_port, where they must be certain ones.

    Attributes:
        url, http_url, status_url: where it serves TLS, plain HTTP, and its own state.
        cafile: what its self-signed certificate is checked against (name: localhost).
    """

    def __init__(
        self,
        folder: Path,
        servers: list[str],
        *options: str,
        unlimited: bool = True,
        netns: str | None = None,
        **ports: int,
    ) -> None:
        ports = {name: ports.get(name) or free_port() for name in ("https_port", "http_port", "status_port")}
        self.https_port, self.http_port, self.status_port = ports.values()
        install(folder, servers, *options, unlimited=unlimited, netns=netns, **ports)
        self.cafile = folder / "nllbd/site/certificate/fullchain.pem"
        super().__init__(folder, list(ports.values()), netns=netns, prefix=None)

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
        """`nginx-upstream`, as it was installed."""
        command = ["ip", "netns", "exec", self.netns] if self.netns else []
        command += [str(self.folder / "nllbd/bin/nginx-upstream"), "--folder", str(self.folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"nginx-upstream {arguments}: {done.returncode}\n{done.stderr}"
        return done

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of its access log."""
        path = self.folder / "run/access.log"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def error_log(self) -> str:
        return (self.folder / "run/error.log").read_text("utf-8", errors="replace")
