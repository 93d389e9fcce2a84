"""Where containers are built and run: namespaces of their own, so that no bridge, rule, mount or process is ever among
the machine's. See sandbox.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.ops.kit.programs import need, need_root

SCRIPT = Path(__file__).with_name("sandbox.sh")
#: This process may not raise limits, so that containers must not ask for more than it has.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_config_dir = "{folder}/cni"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "/run/containers/storage"
"""


class Sandbox:
    """One set of namespaces; images and files of its programs lie in `folder`. `close` ends and removes all but that.

    Attributes:
        netns: the name of its network (`ip netns`), for those who send requests into it.
    """

    def __init__(self, folder: Path) -> None:
        need_root()
        need("unshare", "nsenter", "ip", "pgrep", "podman", "buildah", "runc", "dockerd")
        self.folder = folder
        self.netns = f"nllbd-containers-{os.getpid()}"
        for name, text in (("containers.conf", CONTAINERS_CONF), ("storage.conf", STORAGE_CONF)):
            (folder / name).write_text(text.format(folder=folder))
        for name in ("cni", "tmp", "home"):
            (folder / name).mkdir(exist_ok=True)
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        command = ["unshare", "--mount", "--propagation", "private", "bash", str(SCRIPT), self.netns]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        answer = self._holder.stdout.readline().strip()
        if not answer.isdecimal():
            self.close()
            raise RuntimeError(f"the sandbox did not come up: {answer}")
        self._pid = int(answer)

    @property
    def environment(self) -> dict[str, str]:
        """Of every program inside."""
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LC_ALL": "C.UTF-8",
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "BUILDAH_RUNTIME": "runc",
        }

    def inside(self, *command: str | Path) -> list[str]:
        """The command line that runs `command` inside."""
        return ["nsenter", "--target", str(self._pid), "--all", "--", *map(str, command)]

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        timeout: float = 120.0,
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside; standard output and error are text."""
        done = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **(environ or {})},
            check=False,
            **options,
        )
        assert not check or done.returncode == 0, (
            f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        return done

    def spawn(self, *command: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a program inside that stays; it ends with the sandbox at the latest."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.inside(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment
            )

    def close(self) -> None:
        if self._holder.stdin is not None:
            self._holder.stdin.close()
        self._holder.wait(60)
        subprocess.run(["ip", "netns", "delete", self.netns], check=False)

    def remove_folder(self) -> None:
        """What containers left on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
