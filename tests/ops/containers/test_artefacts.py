"""What can be told of the shipped files without running them: they are valid, say what they should, and agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from nllbd.config import load_settings
from tests.ops.kit.programs import CHECKOUT, need

DEPLOY = CHECKOUT / "deploy"
KUBERNETES, CHART = DEPLOY / "kubernetes", DEPLOY / "helm/nllbd"
OVERLAYS = ("dev", "production", "gpu")
#: Kinds that clusters learn from others; no schema of Kubernetes knows them.
CUSTOM = {"PodMonitor", "HTTPRoute"}
EVERYTHING = {
    "ingress": {"enabled": True},
    "gateway": {"enabled": True},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "gpu": {"enabled": True},
    "models": {"create": True, "pull": "facebook/nllb-200-distilled-600M", "acceptLicence": "cc-by-nc-4.0"},
    "settings": {"model": "facebook/nllb-200-distilled-600M", "detect_threshold": 0.4, "max_waiting_tokens": 2000000},
}

Manifest = dict[str, Any]


@cache
def kustomized(overlay: str) -> str:
    kubectl = need("kubectl")["kubectl"]
    return subprocess.run(
        [kubectl, "kustomize", KUBERNETES / "overlays" / overlay], check=True, capture_output=True, text=True
    ).stdout


def templated(values: dict[str, Any], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    helm = need("helm")["helm"]
    return subprocess.run(
        [helm, "template", "nllbd", CHART, "--namespace", "nllbd", "--values", "-"],
        input=json.dumps(values), check=check, capture_output=True, text=True,
    )  # fmt: skip


def by_kind(text: str) -> dict[str, Manifest]:
    return {document["kind"]: document for document in yaml.safe_load_all(text) if document}


def pod_of(manifests: dict[str, Manifest]) -> Manifest:
    spec: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container_of(manifests: dict[str, Manifest]) -> Manifest:
    (container,) = pod_of(manifests)["containers"]
    return dict(container)


def validate(text: str) -> list[str]:
    """What kubernetes-validate has to say against it, strictly: unknown fields are errors."""
    need("kubernetes-validate")
    documents = (document for document in yaml.safe_load_all(text) if document and document["kind"] not in CUSTOM)
    return [fault for document in documents if (fault := fault_of(json.dumps(document, sort_keys=True)))]


@cache
def fault_of(document: str) -> str | None:
    """Most documents are in several overlays; each is looked at once."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(json.loads(document), "1.32", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{json.loads(document)['kind']}: {error}"
    return None


# Kubernetes


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(overlay: str) -> None:
    assert validate(kustomized(overlay)) == []


def test_what_production_has() -> None:
    kinds = {document["kind"] for document in yaml.safe_load_all(kustomized("production"))}
    assert kinds == {
        *("Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment", "HorizontalPodAutoscaler", "Ingress"),
        *("PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim", "PodMonitor", "Job"),
    }


@pytest.mark.parametrize("source", [*OVERLAYS, "chart"])
def test_a_pod_is_as_it_should_be(source: str) -> None:
    """The same for kustomize and for the chart."""
    manifests = by_kind(templated({}).stdout if source == "chart" else kustomized(source))
    pod, container = pod_of(manifests), container_of(manifests)
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert len(pod["topologySpreadConstraints"]) == 2
    # what is to end within its grace: preStop, the drain, and some seconds to write usage down
    (pre_stop,) = (int(word) for word in container["lifecycle"]["preStop"]["exec"]["command"] if word.isdecimal())
    assert pod["terminationGracePeriodSeconds"] >= pre_stop + 30 + 15
    selector, labels = manifests["Service"]["spec"]["selector"], manifests["Deployment"]["spec"]["template"]
    assert selector.items() <= labels["metadata"]["labels"].items()


def test_a_gpu_is_asked_for_once_a_pod() -> None:
    for manifests in (by_kind(kustomized("gpu")), by_kind(templated({"gpu": {"enabled": True}}).stdout)):
        container = container_of(manifests)
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert {"name": "NLLBD_DEVICE", "value": "cuda"} in container["env"]
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod_of(manifests)[
            "tolerations"
        ]


@pytest.mark.parametrize("source", [*OVERLAYS, "chart"])
def test_settings_are_known_and_valid(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = by_kind(templated(EVERYTHING).stdout if source == "chart" else kustomized(source))
    for name in [name for name in os.environ if name.startswith("NLLBD_")]:
        monkeypatch.delenv(name)
    (tmp_path / "nllbd.toml").write_text(manifests["ConfigMap"]["data"]["nllbd.toml"])
    settings = load_settings({}, config_file=tmp_path / "nllbd.toml")
    if source == "chart":
        assert (settings.detect_threshold, settings.max_waiting_tokens) == (0.4, 2000000)


def test_the_autoscalers_metric_is_made_of_one_that_the_daemon_exports() -> None:
    values = yaml.safe_load((KUBERNETES / "prometheus-adapter/values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    series = re.match(r"\w+", rule["seriesQuery"])
    assert series is not None
    assert f'"{series[0]}"' in (CHECKOUT / "nllbd/metrics.py").read_text()
    for manifests in (by_kind(kustomized("production")), by_kind(templated({}).stdout)):
        (metric,) = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
        assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_the_autoscalers_question_is_one_that_prometheus_understands(tmp_path: Path) -> None:
    """As prometheus-adapter asks it, with its placeholders filled in."""
    promtool = need("promtool")["promtool"]
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter/values.yaml").read_text())["rules"]["custom"]
    query = rule["metricsQuery"]
    for placeholder, text in {
        "<<.GroupBy>>": "pod",
        "<<.Series>>": "nllbd_num_sequences_waiting",
        "<<.LabelMatchers>>": 'namespace="nllbd",pod=~"nllbd-1|nllbd-2"',
    }.items():
        query = query.replace(placeholder, text)
    case = {
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": [
                    {"series": 'nllbd_num_sequences_waiting{namespace="nllbd",pod="nllbd-1"}', "values": "0 0 60 0"},
                    {"series": 'nllbd_num_sequences_waiting{namespace="nllbd",pod="nllbd-2"}', "values": "40 40 40 40"},
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "25s",
                        "exp_samples": [
                            {"labels": '{pod="nllbd-1"}', "value": 20},
                            {"labels": '{pod="nllbd-2"}', "value": 40},
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    done = subprocess.run([promtool, "test", "rules", "case.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("component", ["gateway", "ingress"])
def test_ways_in_lead_to_the_service(component: str) -> None:
    values = {"gateway": {"gateway": {"enabled": True}}, "ingress": {"ingress": {"enabled": True}}}[component]
    manifests = by_kind(templated(values).stdout)
    backend = json.dumps(manifests["HTTPRoute" if component == "gateway" else "Ingress"]["spec"])
    assert f'"name": "{manifests["Service"]["metadata"]["name"]}"' in backend


def test_the_components_that_no_overlay_has_are_valid(tmp_path: Path) -> None:
    """The Gateway's, on top of the base, lets its namespace in."""
    kubectl = need("kubectl")["kubectl"]
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath(KUBERNETES / "base", tmp_path)],
                "components": [os.path.relpath(KUBERNETES / "components/gateway", tmp_path)],
            }
        )
    )
    text = subprocess.run([kubectl, "kustomize", tmp_path], check=True, capture_output=True, text=True).stdout
    assert validate(text) == []
    (source, _) = by_kind(text)["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "gateway-system"}


# The chart


def test_the_chart_passes_its_linter() -> None:
    helm = need("helm")["helm"]
    subprocess.run([helm, "lint", "--strict", "--quiet", CHART], check=True)


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"autoscaling": {"enabled": False}, "existingSecret": ""}])
def test_what_the_chart_makes_is_valid(values: dict[str, Any]) -> None:
    assert validate(templated(values).stdout) == []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"image": {"tag": "latest"}}, "image"),
        ({"imgae": {}}, "imgae"),
        ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
        ({"settings": {"api_key": "in clear"}}, "settings"),
        ({"models": {"pull": "facebook/nllb-200-distilled-600M"}}, "there is no volume to pull into"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], complaint: str) -> None:
    done = templated(values, check=False)
    assert done.returncode != 0
    assert complaint in done.stderr


# Images, compose, Swarm


def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run(
        [need("hadolint")["hadolint"], DEPLOY / "containers/Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_context_of_a_build_leaves_secrets_and_history_out() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert not any(line.startswith("!") and (".git" in line or "secrets" in line or "tests" in line) for line in lines)


def compose(*files: Path, **environ: str) -> Manifest:
    """The files as Compose understands them together."""
    program = need("docker-compose")["docker-compose"]
    named = [word for file in files for word in ("-f", str(file))]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ}
    text = subprocess.run(
        [program, *named, "config", "--format", "json"], check=True, capture_output=True, text=True, env=environment
    ).stdout
    merged: Manifest = json.loads(text)
    return merged


def test_compose_hardens_and_limits_every_service() -> None:
    services = compose(DEPLOY / "containers/compose.yaml", NLLBD_IMAGE="localhost/nllbd:1")["services"]
    assert set(services) == {"nllbd", "nginx", "postgres", "redis", "redis-limits"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert service["pids_limit"], name
        assert service["healthcheck"]["test"], name
        assert "curl" not in str(service["healthcheck"]), name
        assert not service["image"].endswith(":latest"), name
        assert all(wanted["condition"] == "service_healthy" for wanted in service.get("depends_on", {}).values())


def test_no_secret_is_in_an_environment() -> None:
    """Passwords are files: `docker inspect` and /proc/PID/environ show environments to whoever asks."""
    services = compose(DEPLOY / "containers/compose.yaml", NLLBD_IMAGE="localhost/nllbd:1")["services"]
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            assert not re.search("PASSWORD|SECRET|_KEY|_URL", name) or value.startswith("/run/secrets/"), name


def test_compose_wants_an_image_with_a_name() -> None:
    program = need("docker-compose")["docker-compose"]
    done = subprocess.run(
        [program, "-f", DEPLOY / "containers/compose.yaml", "config", "-q"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode != 0
    assert "NLLBD_IMAGE" in done.stderr


@pytest.mark.parametrize("extra", [(), ("gpu.yaml",)])
def test_the_swarm_stack_of_the_daemons(extra: tuple[str, ...]) -> None:
    files = [DEPLOY / "swarm" / name for name in ("nllbd.yaml", *extra)]
    daemon = compose(*files, NLLBD_IMAGE="localhost/nllbd:1", NLLBD_ALIAS="nllbd")["services"]["daemon"]
    assert daemon["deploy"]["update_config"]["order"] == "start-first"
    assert daemon["deploy"]["update_config"]["failure_action"] == "rollback"
    assert "max_attempts" not in daemon["deploy"]["restart_policy"]
    assert "ports" not in daemon
    reserved = daemon["deploy"]["resources"]["reservations"]
    assert ("generic_resources" in reserved) == bool(extra)


def test_the_swarm_stack_of_the_edge() -> None:
    sums = {f"NLLBD_{name}_SUM": "0" for name in ("NGINX", "REDIS_CACHE", "REDIS_LIMITS")}
    services = compose(DEPLOY / "swarm/edge.yaml", **sums)["services"]
    assert {port["mode"] for port in services["nginx"]["ports"]} == {"host"}
    assert all(service["read_only"] for service in services.values())


@pytest.mark.parametrize("name", ["deploy-swarm", "deploy-kubernetes"])
def test_a_version_has_to_be_named(name: str, tmp_path: Path) -> None:
    for program in ("docker", "kubectl"):  # that nothing is asked of a real one
        (tmp_path / program).write_text("#!/bin/sh\necho true\n")
        (tmp_path / program).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for image in ("registry.example/nllbd:latest", "registry.example:5000/nllbd"):
        done = subprocess.run([DEPLOY / "bin" / name, "--image", image], capture_output=True, text=True, env=environ)
        assert done.returncode == 2, done.stderr
    assert subprocess.run([DEPLOY / "bin" / name, "--help"], capture_output=True, env=environ).returncode == 0


def test_a_release_wants_digests(tmp_path: Path) -> None:
    lock = tmp_path / "images.lock"
    lock.write_text("PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm\n")
    done = subprocess.run(
        [DEPLOY / "containers/build", "--release", "--dry-run", "--tool", "docker"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "NLLBD_IMAGES_LOCK": str(lock)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "PYTHON_IMAGE has no digest" in done.stderr


def test_scripts_pass_their_linter() -> None:
    names = ("bin/deploy-swarm", "bin/deploy-kubernetes", "containers/build", "containers/make-secrets", "ci-tools")
    scripts = [*(DEPLOY / name for name in names), Path(__file__).with_name("sandbox.sh")]
    done = subprocess.run([need("shellcheck")["shellcheck"], *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_make_secrets_makes_what_compose_wants_and_never_again(tmp_path: Path) -> None:
    script = [DEPLOY / "containers/make-secrets", "--self-signed", "api.example.com", tmp_path / "secrets"]
    subprocess.run(script, check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    wanted = compose(DEPLOY / "containers/compose.yaml", NLLBD_IMAGE="localhost/nllbd:1")["secrets"]
    assert set(made) == set(wanted)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert len(set(made.values())) == len(made)
    subprocess.run(script, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
