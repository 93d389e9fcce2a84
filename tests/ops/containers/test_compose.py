"""The compose file on a real dockerd: everything comes up healthy, in order, and a client is served through nginx."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ops.containers import images, stand_ins
from tests.ops.containers.docker import Docker
from tests.ops.kit.programs import CHECKOUT, need
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

FOLDER = CHECKOUT / "deploy/containers"
URL = "https://10.77.0.1:9443"


class Compose:
    """`docker compose` with the shipped file in the sandbox."""

    def __init__(self, docker: Docker, secrets: Path) -> None:
        self.docker, self.secrets = docker, secrets
        self.program = need("docker-compose")["docker-compose"]
        self.environ = {
            **docker.environ,
            **stand_ins.ENVIRON,
            "NLLBD_IMAGE": images.LIGHT,
            "NLLBD_SECRETS": str(secrets),
            "NLLBD_HTTP_PORT": "9080",
            "NLLBD_HTTPS_PORT": "9443",
            "NLLBD_HEALTH_INTERVAL": "1s",
            "NLLBD_RATE_LIMIT_PER_MINUTE": "100000",
            "NLLBD_MEMORY": "1g",
        }

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.docker.sandbox.run(
            self.program, "-f", FOLDER / "compose.yaml", *arguments, environ=self.environ, **options
        )

    def curl(self, *arguments: str) -> str:
        return self.docker.sandbox.run(
            "curl", "--silent", "--show-error", "--cacert", self.secrets / "tls_certificate", *arguments
        ).stdout


@pytest.fixture(scope="module")
def compose(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    need("curl")
    secrets = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([FOLDER / "make-secrets", "--self-signed", "10.77.0.1", secrets], check=True, capture_output=True)
    stand_ins.make_nginx(docker)
    stand_ins.make_redis(docker)
    stand_ins.make_postgres(docker)
    made = Compose(docker, secrets)
    try:
        made.run("up", "--detach", "--wait", "--quiet-pull", timeout=180)
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "10", check=False)


def test_everything_is_healthy_and_translates(compose: Compose) -> None:
    lines = compose.run("ps", "--format", "json").stdout.splitlines()
    states = {one["Service"]: one["Health"] for one in map(json.loads, lines)}
    assert states == dict.fromkeys(("nllbd", "nginx", "redis", "redis-limits", "postgres"), "healthy")
    key = (compose.secrets / "api_key").read_text()
    traffic = Traffic(
        URL, rate=10, netns=compose.docker.sandbox.netns, headers={"X-API-Key": key}, echoes=True,
        cafile=compose.secrets / "tls_certificate",
    )  # fmt: skip
    with traffic:
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()


def test_the_daemon_has_its_database_and_both_redis(compose: Compose) -> None:
    # this image has no torch, which is why doctor is not content with all
    said = compose.run("exec", "-T", "nllbd", "nllbd", "doctor", check=False).stdout.splitlines()
    verdicts = {line.split()[1]: line for line in said}
    assert verdicts["redis"].startswith("ok"), said
    assert "allkeys-lru" in verdicts["redis"]
    assert verdicts["rates"].startswith("ok"), said
    assert "noeviction" in verdicts["rates"]
    assert verdicts["database"].startswith("ok"), said
    assert "postgresql" in verdicts["database"], said


def test_strangers_are_turned_away_with_the_headers_that_every_answer_has(compose: Compose) -> None:
    answer = compose.curl("--include", "--json", '{"text": "x", "target_lang": "fr"}', f"{URL}/translate").lower()
    assert answer.startswith("http/2 401")
    for header in ("strict-transport-security", "x-content-type-options: nosniff", "x-frame-options: deny"):
        assert header in answer
    assert "http/2 404" in compose.curl("--include", f"{URL}/.git/config").lower()
    assert "308" in compose.curl("--include", "http://10.77.0.1:9080/x")


def test_no_password_is_in_an_environment_or_a_process_list(compose: Compose) -> None:
    secret_texts = [path.read_text().strip() for path in compose.secrets.iterdir() if path.name != "tls_certificate"]
    containers = compose.run("ps", "--quiet").stdout.split()
    seen = compose.docker.run("inspect", "--format", "{{json .Config}}", *containers).stdout
    seen += compose.docker.sandbox.run("ps", "-eww", "-o", "args").stdout
    assert not [text for text in secret_texts if text in seen]


def test_the_daemon_cannot_write_but_to_its_folders_nor_reach_the_outside(compose: Compose) -> None:
    script = "touch /opt/x /etc/nllbd/x 2>/dev/null; touch /var/lib/nllbd/x /tmp/x && echo written; id -u"
    assert compose.run("exec", "-T", "nllbd", "sh", "-c", script).stdout.split() == ["written", "10001"]
    reach = "import socket; socket.create_connection(('10.77.0.1', 9080), 3)"
    assert compose.run("exec", "-T", "nllbd", "python3", "-c", reach, check=False).returncode != 0


def test_redis_lets_nobody_in_without_a_password(compose: Compose) -> None:
    for service in ("redis", "redis-limits"):
        assert "NOAUTH" in compose.run("exec", "-T", service, "redis-cli", "get", "x").stdout
    policy = {}
    for service in ("redis", "redis-limits"):
        said = compose.run("exec", "-T", service, "cat", "/etc/redis/redis.conf").stdout
        policy[service] = next(line.split()[1] for line in said.splitlines() if line.startswith("maxmemory-policy"))
    assert policy == {"redis": "allkeys-lru", "redis-limits": "noeviction"}
