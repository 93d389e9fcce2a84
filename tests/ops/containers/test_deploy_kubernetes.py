"""deploy-kubernetes with the real kubectl against a small API: what clients would see while it deploys and undoes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.ops.containers.cluster import Cluster, image_of
from tests.ops.containers.test_artefacts import kustomized
from tests.ops.kit.programs import CHECKOUT, need

pytestmark = pytest.mark.ops

OLD, NEW, NEVER, REFUSING = (f"registry.example.com/nllbd:{tag}" for tag in ("0.1.0", "0.2.0", "3-never", "4-refusing"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """With what the production overlay makes."""
    made = Cluster()
    for document in yaml.safe_load_all(kustomized("production")):
        if document["kind"] in ("Deployment", "Service"):
            made.put(f"{document['kind'].lower()}s", document)
    try:
        yield made
    finally:
        made.close()


def deploy(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kubectl = need("kubectl")["kubectl"]
    environ = {
        "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(cluster.kubeconfig(folder / "config")),
    }
    return subprocess.run(
        [CHECKOUT / "deploy/bin/deploy-kubernetes", "--timeout", "20", *arguments],
        capture_output=True, text=True, env=environ, timeout=100, check=False,
    )  # fmt: skip


def live(cluster: Cluster) -> str:
    deployment = cluster.get("deployments", "nllbd")
    assert deployment is not None
    return image_of(deployment)


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_a_good_version_is_deployed(cluster: Cluster, tmp_path: Path, strategy: str) -> None:
    done = deploy(cluster, tmp_path, "--image", NEW, "--strategy", strategy)
    assert done.returncode == 0, done.stderr
    assert cluster.behind("nllbd") == [NEW]
    assert live(cluster) == NEW
    assert cluster.served == [OLD, NEW]
    assert "smoke translation through nllbd: Where is the train station?" in done.stderr
    assert cluster.get("deployments", "nllbd-candidate") is None
    assert cluster.get("services", "nllbd-candidate") is None
    assert cluster.get("jobs", "nllbd-smoke") is None


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_a_version_that_never_gets_ready_is_undone(cluster: Cluster, tmp_path: Path, strategy: str) -> None:
    done = deploy(cluster, tmp_path, "--image", NEVER, "--strategy", strategy)
    assert done.returncode == 1
    assert "was not deployed" in done.stderr
    assert live(cluster) == OLD
    assert cluster.get("deployments", "nllbd-candidate") is None


def test_a_version_that_refuses_to_translate_is_undone(cluster: Cluster, tmp_path: Path) -> None:
    done = deploy(cluster, tmp_path, "--image", REFUSING)
    assert done.returncode == 1
    assert cluster.served == [OLD, REFUSING, OLD]  # rolling: seen by clients until the translation failed


def test_blue_green_never_shows_clients_a_version_that_refuses(cluster: Cluster, tmp_path: Path) -> None:
    done = deploy(cluster, tmp_path, "--image", REFUSING, "--strategy", "blue-green")
    assert done.returncode == 1
    assert "smoke translation through nllbd-candidate failed" in done.stderr
    assert cluster.served == [OLD]
    assert live(cluster) == OLD


def test_rollback_goes_to_the_version_before(cluster: Cluster, tmp_path: Path) -> None:
    assert deploy(cluster, tmp_path, "--image", NEW).returncode == 0
    assert deploy(cluster, tmp_path, "--rollback").returncode == 0
    assert cluster.behind("nllbd") == [OLD]


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_dry_run_changes_nothing(cluster: Cluster, tmp_path: Path, strategy: str) -> None:
    before = dict(cluster.objects)
    done = deploy(cluster, tmp_path, "--image", NEW, "--strategy", strategy, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"set image deployment/nllbd nllbd={NEW}" in done.stdout
    assert cluster.objects == before


def test_a_deployment_that_is_not_there_is_said(cluster: Cluster, tmp_path: Path) -> None:
    done = deploy(cluster, tmp_path, "--image", NEW, "--deployment", "other")
    assert done.returncode == 1
    assert "there is no deployment other" in done.stderr
