"""A real dockerd inside the sandbox."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.ops.containers.sandbox import Sandbox
from tests.ops.kit.programs import eventually


class Docker:
    """dockerd with data of its own, removed by `stop`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.folder = sandbox.folder / "docker"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.host = f"unix://{self.folder}/docker.sock"
        self._process = sandbox.spawn(
            "dockerd", "--host", self.host, "--data-root", self.folder / "data", "--exec-root", "/run/docker/exec",
            "--pidfile", "/run/docker.pid", "--storage-driver", "overlay2", "--default-ulimit", "nofile=4096:4096",
            log=self.folder / "log",
        )  # fmt: skip
        eventually(lambda: self.run("info", check=False).returncode == 0, 60, "dockerd")

    @property
    def environ(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.folder / "config")}

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`."""
        options["environ"] = {**self.environ, **options.get("environ", {})}
        return self.sandbox.run("docker", *arguments, **options)

    def look(self, name: str, template: str) -> Any:
        """A part of `docker inspect`, as JSON."""
        return json.loads(self.run("inspect", "--format", f"{{{{json {template}}}}}", name).stdout)

    def stop(self) -> None:
        self.sandbox.run("pkill", "-TERM", "-x", "dockerd", check=False)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
