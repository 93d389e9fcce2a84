"""The Swarm stacks on a real swarm of one node: deployed by the shipped script, rolled and undone under traffic."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.containers import images, stand_ins
from tests.ops.containers.docker import Docker
from tests.ops.containers.swarm import Swarm
from tests.ops.kit.programs import CHECKOUT, eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

URL = "https://10.77.0.1:8443"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As make-secrets writes them, for a certificate of the sandbox's address and a swarm without PostgreSQL."""
    folder = tmp_path_factory.mktemp("secrets")
    script = CHECKOUT / "deploy/containers/make-secrets"
    subprocess.run([script, "--self-signed", "10.77.0.1", folder], check=True, capture_output=True)
    (folder / "database_url").unlink()
    (folder / "database_url").write_text("sqlite+aiosqlite:////var/lib/nllbd/nllbd.db\n")
    return folder


@pytest.fixture(scope="module")
def swarm(docker: Docker, secrets: Path) -> Iterator[Swarm]:
    stand_ins.make_nginx(docker)
    stand_ins.make_redis(docker)
    try:
        made = Swarm(docker, secrets)
        made.deploy("--image", images.LIGHT)
        yield made
    finally:
        docker.run("swarm", "leave", "--force", check=False)


@pytest.fixture
def traffic(swarm: Swarm) -> Iterator[Traffic]:
    """Requests through nginx, below its limit, for as long as the test runs; none of them may fail."""
    key = (swarm.secrets / "api_key").read_text().strip()
    certificate = swarm.secrets / "tls_certificate"
    netns = swarm.docker.sandbox.netns
    with Traffic(URL, rate=12, netns=netns, headers={"X-API-Key": key}, cafile=certificate, echoes=True) as running:
        running.wait_for(5)
        yield running
        running.wait_for(5)
    assert not running.failed, running.report()


def test_an_update_and_a_rollback_under_traffic_lose_nothing(swarm: Swarm, traffic: Traffic) -> None:
    assert swarm.versions("nllbd-blue_daemon") == {images.LIGHT}
    said = swarm.deploy("--image", images.LIGHT_2).stderr
    assert swarm.versions("nllbd-blue_daemon") == {images.LIGHT_2}
    assert "smoke translation through nllbd: Where is the train station?" in said
    swarm.deploy("--rollback")
    assert swarm.versions("nllbd-blue_daemon") == {images.LIGHT}


def test_an_image_that_never_gets_ready_is_rolled_back_by_swarm(swarm: Swarm, traffic: Traffic) -> None:
    before = swarm.versions("nllbd-blue_daemon")
    done = swarm.deploy("--image", images.NEVER_READY, check=False)
    assert done.returncode == 1
    assert "was not deployed" in done.stderr
    eventually(lambda: swarm.versions("nllbd-blue_daemon") == before, 30, "the version before")


def test_an_image_that_serves_nonsense_is_rolled_back_by_the_smoke_translation(swarm: Swarm, traffic: Traffic) -> None:
    """Swarm is content with it. The clients are refused their texts meanwhile: blue-green is for those who mind."""
    before = swarm.versions("nllbd-blue_daemon")
    done = swarm.deploy("--image", images.REFUSING, "--strategy", "blue-green", check=False)
    assert done.returncode == 1
    assert "nllbd-blue was not touched" in done.stderr
    assert swarm.versions("nllbd-blue_daemon") == before
    assert "nllbd-green_daemon" not in swarm.services()


def test_blue_green_under_traffic_loses_nothing(swarm: Swarm, traffic: Traffic) -> None:
    swarm.wait_gone("nllbd-green_daemon")
    swarm.deploy("--image", images.LIGHT_2, "--strategy", "blue-green")
    assert swarm.versions("nllbd-green_daemon") == {images.LIGHT_2}
    assert "nllbd-blue_daemon" not in swarm.services()
    assert "live: green" in swarm.deploy("--status").stdout
