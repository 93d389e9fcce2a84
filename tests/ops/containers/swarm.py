"""A Swarm of one node, with what the shipped stacks want of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.ops.containers import stand_ins
from tests.ops.containers.docker import Docker
from tests.ops.kit.programs import CHECKOUT, eventually

DEPLOY = CHECKOUT / "deploy/bin/deploy-swarm"
SMALL = {
    "NLLBD_REPLICAS": "2",
    "NLLBD_CPUS": "1",
    "NLLBD_MEMORY": "512M",
    "NLLBD_CPUS_RESERVED": "0.05",
    "NLLBD_MEMORY_RESERVED": "64M",
    "NLLBD_HEALTH_INTERVAL": "1s",
    "NLLBD_UPDATE_DELAY": "0s",
    "NLLBD_UPDATE_MONITOR": "2s",
    "NLLBD_RATE_LIMIT_PER_MINUTE": "100000",
    "NLLBD_TRUSTED_PROXIES": "10.0.0.0/8",
    "NLLBD_RESOLVE_IMAGE": "never",  # no registry
    "NLLBD_ENCRYPTED": "false",  # this kernel has no IPsec for it
    "NLLBD_HTTP_PORT": "8080",
    "NLLBD_HTTPS_PORT": "8443",
}


class Swarm:
    """`docker swarm init`, labels, secrets, the volume of models; services leave with `docker`."""

    def __init__(self, docker: Docker, secrets: Path) -> None:
        self.docker = docker
        self.secrets = secrets
        docker.run("swarm", "init", "--advertise-addr", "10.77.0.1")
        docker.run("node", "update", "--label-add", "nllbd=true", "--label-add", "nllbd-edge=true", self._node())
        docker.run("volume", "create", "nllbd-models")
        for file in sorted(secrets.iterdir()):
            docker.run("secret", "create", f"nllbd_{file.name}", file)

    def _node(self) -> str:
        return self.docker.run("node", "ls", "--quiet").stdout.strip()

    def deploy(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The shipped script."""
        environ = {**self.docker.environ, **stand_ins.ENVIRON, **SMALL}
        return self.docker.sandbox.run(
            DEPLOY, *arguments, "--timeout", "120", check=check, timeout=240, environ=environ
        )

    def tasks(self, service: str) -> list[dict[str, str]]:
        """Of a service, those that should run: image and state."""
        lines = self.docker.run(
            "service", "ps", service, "--filter", "desired-state=running", "--format", "{{.Image}}|{{.CurrentState}}"
        ).stdout.splitlines()
        return [dict(zip(("image", "state"), line.split("|"), strict=True)) for line in lines]

    def versions(self, service: str) -> set[str]:
        return {task["image"] for task in self.tasks(service) if task["state"].startswith("Running")}

    def services(self) -> set[str]:
        return set(self.docker.run("service", "ls", "--format", "{{.Name}}").stdout.split())

    def wait_gone(self, service: str) -> None:
        """Until no container of it is left: a stack that was removed still drains."""
        command = ("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.name={service}")
        eventually(lambda: not self.docker.run(*command).stdout, 60, f"the end of {service}")
