"""What kustomize makes of the dev overlay, run by podman: Deployment, ConfigMap, volumes and limits as shipped."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.ops.containers.sandbox import Sandbox
from tests.ops.containers.test_artefacts import kustomized
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops


@pytest.fixture
def pod(sandbox: Sandbox, full_image: str) -> Iterator[str]:
    """The name of the daemon's container."""
    manifest = sandbox.folder / "dev.yaml"
    documents = [document for document in yaml.safe_load_all(kustomized("dev")) if document]
    manifest.write_text(yaml.safe_dump_all(documents))
    sandbox.run("podman", "tag", full_image, "localhost/nllbd:dev")
    try:
        sandbox.run("podman", "play", "kube", "--log-driver=k8s-file", manifest)
        yield "nllbd-pod-0-nllbd"
    finally:
        sandbox.run("podman", "play", "kube", "--down", manifest, check=False)


def test_the_dev_overlay_runs(sandbox: Sandbox, pod: str) -> None:
    eventually(lambda: sandbox.run("podman", "exec", pod, "nllbd", "health", check=False).returncode == 0, 90)
    state = json.loads(sandbox.run("podman", "inspect", pod).stdout)[0]
    assert state["HostConfig"]["ReadonlyRootfs"] is True
    assert state["Config"]["User"].startswith("10001")
    assert state["HostConfig"]["Memory"] == 2 << 30
    address = sandbox.run("podman", "exec", pod, "hostname", "-i").stdout.split()[0]
    with Traffic(f"http://{address}:8000", clients=1, netns=sandbox.netns) as traffic:
        traffic.wait_for(3)
    assert not traffic.failed, traffic.report()
    assert "Il pleut" in traffic.outcomes[0].body
    # the settings are the ConfigMap's
    shown = sandbox.run("podman", "exec", pod, "nllbd", "config", "show").stdout
    assert "allow_anonymous true /etc/nllbd/nllbd.toml" in " ".join(shown.split())
