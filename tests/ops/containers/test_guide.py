"""The deployment guide's own forms, where they fail: each test is named by a row of deploy/DEVIATIONS.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.ops.containers import images
from tests.ops.containers.docker import Docker
from tests.ops.containers.sandbox import Sandbox
from tests.ops.containers.test_artefacts import CHART, KUBERNETES, by_kind, container_of, kustomized
from tests.ops.containers.test_image import inside
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import CHECKOUT, eventually

#: Annotations of ingress-nginx that limit, time out or retry, as its user guide lists them.
INGRESS_NGINX = {
    *("limit-connections", "limit-rps", "limit-rpm", "limit-burst-multiplier", "limit-rate", "limit-rate-after"),
    *("limit-allowlist", "global-rate-limit", "global-rate-limit-window", "global-rate-limit-key"),
    *("proxy-body-size", "proxy-buffering", "proxy-connect-timeout", "proxy-read-timeout", "proxy-send-timeout"),
    *("proxy-next-upstream", "proxy-next-upstream-timeout", "proxy-next-upstream-tries", "ssl-redirect"),
}
PREFIX = "nginx.ingress.kubernetes.io/"


def test_ingress_annotations_exist() -> None:
    """The guide's rate-limit and rate-limit-window do not: the controller passes over them, and nothing is limited."""
    ours = by_kind(kustomized("production"))["Ingress"]["metadata"]["annotations"]
    chart = yaml.safe_load((CHART / "values.yaml").read_text())["ingress"]["annotations"]
    for given in (ours, chart):
        used = {name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX)}
        assert used <= INGRESS_NGINX
        assert "limit-rps" in used
    assert not {"rate-limit", "rate-limit-window"} & INGRESS_NGINX


def test_a_template_is_no_manifest() -> None:
    """`{{ .Values.image.tag }}` is Helm's: in a manifest it is not even the YAML that it looks like."""
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(
            "containers:\n- name: nllb-server\n  image: {{ .Values.image.repository }}:{{ .Values.image.tag }}\n"
        )
    for path in KUBERNETES.rglob("*.yaml"):
        assert "{{" not in path.read_text(), path


def test_secrets_in_variables_are_seen_by_whoever_asks() -> None:
    """The guide's secretKeyRef puts the key into the environment; here no container has one from a Secret."""
    for overlay in ("dev", "production", "gpu"):
        for entry in container_of(by_kind(kustomized(overlay))).get("env", []):
            assert "valueFrom" not in entry


def test_the_guides_ingress_has_no_class() -> None:
    """Without one, clusters with several controllers or no default one serve it by none."""
    assert by_kind(kustomized("production"))["Ingress"]["spec"]["ingressClassName"] == "nginx"


def test_one_endpoint_for_liveness_and_readiness_kills_what_only_loads() -> None:
    """/health of a daemon that loads says 503, as it must for a load balancer; as liveness that is a reason to kill."""
    with Daemon(runner="model", wait=False) as daemon:
        status = eventually(lambda: statuses(daemon.url), 30, "the socket")
        assert status == {"/health": 503, "/readyz": 503, "/livez": 200}
    pod = container_of(by_kind(kustomized("production")))
    assert pod["livenessProbe"]["httpGet"]["path"] == "/livez"
    # the guide's liveness: 120 s of grace and three failures of 30 s; a 3.3B model takes longer from cold storage
    assert pod["startupProbe"]["periodSeconds"] * pod["startupProbe"]["failureThreshold"] >= 900


def statuses(url: str) -> dict[str, int] | None:
    import http.client
    from urllib.parse import urlsplit

    found = {}
    for path in ("/health", "/readyz", "/livez"):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        try:
            connection.request("GET", path)
            found[path] = connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()
    return found


def test_an_image_named_latest_cannot_be_rolled_back_to() -> None:
    """Before and after an update the spec is the same: Swarm and Kubernetes see nothing to roll."""
    pattern = re.compile(r"(?:image|IMAGE|newTag|tag)\b.*\blatest\b")
    for folder in ("containers", "swarm", "kubernetes", "helm"):
        for path in (CHECKOUT / "deploy" / folder).rglob("*"):
            if path.is_file() and path.suffix in (".yaml", ".lock", "") and path.name != "values.schema.json":
                faults = [line for line in path.read_text().splitlines() if pattern.search(line.split("#")[0])]
                assert not faults, f"{path}: {faults}"


def test_upgrades_in_a_dockerfile_make_each_build_another_one() -> None:
    """The guide's `apt-get upgrade`: what is inside depends on the day, and a cached layer never upgrades again."""
    text = (CHECKOUT / "deploy/containers/Dockerfile").read_text()
    assert "upgrade" not in re.sub("#.*", "", text)
    assert "PYTHON_IMAGE" in (CHECKOUT / "deploy/containers/images.lock").read_text()


# On a real swarm and with the real image


@pytest.mark.ops
def test_curl_is_not_in_slim_images(sandbox: Sandbox, full_image: str) -> None:
    """The guide's image installs it for its HEALTHCHECK alone: one more program for an intruder."""
    assert inside(sandbox, full_image, "command -v curl || echo none") == "none\n"


@pytest.fixture
def node(docker: Docker) -> Iterator[Docker]:
    """A swarm of one node, without labels."""
    docker.run("swarm", "init", "--advertise-addr", "10.77.0.1")
    try:
        yield docker
    finally:
        docker.run("swarm", "leave", "--force")


@pytest.mark.ops
def test_the_guides_constraints_fit_no_node(node: Docker, tmp_path: Path) -> None:
    """`node.role == worker` on a swarm of managers, `max_attempts: 3`: nothing starts, or nothing starts again."""
    stack = tmp_path / "stack.yaml"
    stack.write_text(
        f"""
version: "3.8"
services:
  placed:
    image: {images.LIGHT}
    deploy: {{endpoint_mode: dnsrr, placement: {{constraints: [node.role == worker, node.labels.gpu == true]}}}}
  restarted:
    image: {images.LIGHT}
    entrypoint: [sh, -c, exit 1]
    deploy: {{endpoint_mode: dnsrr, restart_policy: {{condition: on-failure, delay: 100ms, max_attempts: 3}}}}
"""
    )
    node.run("stack", "deploy", "--resolve-image", "never", "-c", stack, "guide")
    eventually(lambda: "no suitable node" in tasks(node, "guide_placed"), 30, "a task without a node")
    # three failures of whatever it depends on, and the service is gone for good: no task of it is wanted any more
    eventually(lambda: tasks(node, "guide_restarted").count("Failed") >= 4, 60, "the last attempt")
    assert "Running" not in tasks(node, "guide_restarted")
    node.run("stack", "rm", "guide")


def tasks(docker: Docker, service: str) -> str:
    return docker.run("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", service).stdout


@pytest.mark.ops
def test_blue_and_green_cannot_have_one_port(node: Docker, tmp_path: Path) -> None:
    """The guide's second stack publishes what the first one has: it stays pending, and the health check on
    localhost:8000 that is to judge green is answered by blue."""
    stack = tmp_path / "stack.yaml"
    stack.write_text(
        f"""
version: "3.8"
services:
  nginx:
    image: {images.LIGHT}
    entrypoint: [sleep, "600"]
    healthcheck: {{disable: true}}
    ports: [{{target: 80, published: 18000, mode: host}}]
    deploy: {{endpoint_mode: dnsrr}}
"""
    )
    for colour in ("blue", "green"):
        node.run("stack", "deploy", "--resolve-image", "never", "-c", stack, f"nllb-{colour}")
    eventually(lambda: "Running" in tasks(node, "nllb-blue_nginx"), 30, "blue")
    eventually(lambda: "already in use" in tasks(node, "nllb-green_nginx"), 30, "green's refusal")
    for colour in ("blue", "green"):
        node.run("stack", "rm", f"nllb-{colour}")
