"""The image as it is shipped: built without a registry, run read-only without any right, stopped without losing one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ops.containers import images
from tests.ops.containers.sandbox import Sandbox
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--no-healthcheck", "--network=host")
#: Seconds from SIGTERM that Docker, Swarm and Kubernetes are told to leave the daemon.
GRACE_S = 60


def podman(sandbox: Sandbox, *arguments: str, **options: Any) -> str:
    return sandbox.run("podman", *arguments, **options).stdout


def inside(sandbox: Sandbox, image: str, script: str) -> str:
    """What a shell script prints in a container of the image."""
    return podman(sandbox, "run", "--rm", *HARDENED, "--entrypoint", "sh", image, "-c", script)


@pytest.fixture
def daemon(sandbox: Sandbox, full_image: str) -> Iterator[str]:
    """A container named `daemon` with two thirds of a core, on ports 8000 and 9000 of the sandbox."""
    limits = ("--cpus=0.7", "--memory=1g", "--volume=state:/var/lib/nllbd", "--env=NLLBD_ALLOW_ANONYMOUS=true")
    podman(sandbox, "run", "--detach", "--name=daemon", *HARDENED, *limits, full_image)
    try:
        yield "daemon"
    finally:
        podman(sandbox, "rm", "--force", "--volumes", "--time=0", "daemon")
        podman(sandbox, "volume", "rm", "--force", "state")


def test_translates_read_only_as_a_user_without_rights(sandbox: Sandbox, full_image: str) -> None:
    text = podman(
        sandbox, "run", "--rm", *HARDENED, full_image, "translate", "--from", "en", "--to", "fr", "It is raining."
    )
    assert text == "Il pleut.\n"


def test_who_it_runs_as_and_what_it_may_write(sandbox: Sandbox, full_image: str) -> None:
    seen = inside(
        sandbox,
        full_image,
        "id -u; id -g; grep CapEff /proc/self/status; "
        'for f in / /opt/nllbd /etc/nllbd /usr; do [ -w $f ] && echo "$f"; done; '
        "for p in gcc g++ cc c++ ld as make pip pip3 curl wget git; do command -v $p; done; "
        "python3 -c 'import pip' 2>&1 | tail -1",
    )
    assert seen.split() == [
        *("10001", "10001", "CapEff:", "0000000000000000"),
        *("ModuleNotFoundError:", "No", "module", "named", "'pip'"),
    ]


def test_native_kernels_are_there_and_choose_their_level_when_they_run(sandbox: Sandbox, full_image: str) -> None:
    """Compiled for any CPU: each level up to this CPU's best can be chosen in the same file."""
    script = (
        "from nllbd.kernels.native import LEVELS, load_native; native = load_native(); best = native.level; seen = []\n"
        "for level in LEVELS[:LEVELS.index(best) + 1]:\n"
        "    native.set_level(level); seen.append(native.level)\n"
        "print(seen == list(LEVELS[:len(seen)]), best)"
    )
    seen = inside(sandbox, full_image, f"python3 -c '{script}'").split()
    assert seen[0] == "True", seen


def test_the_image_says_what_it_is(sandbox: Sandbox, full_image: str) -> None:
    def look(template: str) -> Any:
        return json.loads(podman(sandbox, "image", "inspect", "--format", f"{{{{json {template}}}}}", full_image))

    assert look(".User") == "10001:10001"
    assert look(".HealthCheck.Test") == ["CMD", "nllbd", "health"]
    assert look(".Labels")["org.opencontainers.image.version"] == "0.1.0"
    assert not any("SECRET" in entry or "KEY" in entry for entry in look(".Config.Env"))


def test_the_sbom_lists_what_is_inside(sandbox: Sandbox, full_image: str) -> None:
    text = inside(sandbox, full_image, "cat /usr/share/doc/nllbd/sbom.cdx.json")
    document = json.loads(text)
    versions = {component["name"]: component.get("version") for component in document["components"]}
    installed = inside(
        sandbox,
        full_image,
        "python3 -c 'from importlib.metadata import distributions as d; [print(p.name, p.version) for p in d()]'",
    )
    assert {name: versions.get(name) for name, _ in map(str.split, installed.splitlines())} == dict(
        map(str.split, installed.splitlines())  # type: ignore[arg-type]
    )
    assert {"nllbd", "torch", "aiohttp", "libc6", "python"} <= set(versions)
    assert_valid_cyclonedx(text)


def assert_valid_cyclonedx(text: str) -> None:
    from pathlib import Path

    import cyclonedx.schema
    import jsonschema
    from referencing import Registry, Resource

    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    schemas = {
        path.name.replace(".SNAPSHOT", ""): json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")
    }
    registry: Any = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values() if "$id" in schema
    )
    jsonschema.Draft7Validator(schemas["bom-1.6.schema.json"], registry=registry).validate(json.loads(text))


def test_limits_of_the_container_are_the_daemons(sandbox: Sandbox, daemon: str) -> None:
    """One thread for two thirds of a core, and caches for the container's memory, whatever the machine has."""
    seen = podman(
        sandbox, "exec", daemon, "python3", "-c",
        "from nllbd import cgroup; print(cgroup.usable_cores(), cgroup.available_memory() < 1 << 30)",
    )  # fmt: skip
    assert seen == "1 True\n"


def test_a_stop_loses_no_request(sandbox: Sandbox, daemon: str) -> None:
    """From loading to SIGTERM under load: every request that was accepted is answered, and the exit is clean."""
    eventually(lambda: sandbox.run("podman", "exec", daemon, "nllbd", "health", check=False).returncode == 0, 90)
    assert sandbox.run("podman", "exec", daemon, "nllbd", "health", "--live").stdout.endswith("is alive\n")
    with Traffic("http://127.0.0.1:8000", clients=4, netns=sandbox.netns) as traffic:
        traffic.wait_for(40)
        podman(sandbox, "stop", f"--time={GRACE_S}", daemon)
    assert len(traffic.latencies) >= 40
    # a connection refused is a request that was never taken: the next host gets it
    lost = [outcome for outcome in traffic.failed if not (outcome.error and "Cannot connect" in outcome.error)]
    refused = [outcome for outcome in lost if outcome.status == 503]
    assert lost == refused, traffic.report()
    state = json.loads(podman(sandbox, "inspect", "--format", "{{json .State}}", daemon))
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_strangers_are_not_let_in_unknown(sandbox: Sandbox, full_image: str) -> None:
    """The image listens on every address; without credentials it does not start."""
    done = sandbox.run(
        "podman", "run", "--rm", *HARDENED, "--volume=/var/lib/nllbd", full_image, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "no credentials are set" in done.stderr


def test_a_secret_is_read_from_a_file_of_its_name(sandbox: Sandbox, full_image: str) -> None:
    secret = sandbox.folder / "api_key"
    secret.write_text("a-key-that-nobody-guesses")
    seen = podman(
        sandbox, "run", "--rm", *HARDENED, f"--volume={secret}:/run/secrets/api_key:ro", full_image, "config", "show"
    )
    assert "credential api_key" in seen
    assert "a-key-that-nobody-guesses" not in seen


def test_base_images_can_be_given_by_digest(sandbox: Sandbox, bases: None) -> None:
    digest = podman(sandbox, "image", "inspect", "--format", "{{.Digest}}", images.RUNTIME_BASE).strip()
    name = f"{images.RUNTIME_BASE.partition(':')[0]}@{digest}"
    done = sandbox.run("buildah", "from", "--pull-never", name)
    sandbox.run("buildah", "rm", done.stdout.strip())
