"""Images without a registry: Debian by mmdebstrap under the names that the Dockerfile has in FROM, and ours on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ops.containers.sandbox import Sandbox
from tests.ops.kit.programs import CHECKOUT, need

RUNTIME_BASE, BUILD_BASE = "docker.io/library/python:3.11-slim-bookworm", "docker.io/library/python:3.11-bookworm"
CONTAINERS = CHECKOUT / "deploy/containers"
#: As it is shipped, with a model.
FULL = "localhost/nllbd:0.1.0"
#: Without torch, for many at once on a small machine: they echo. `2` is another version; the next two are bad ones:
#: the first never gets ready, the second serves and refuses to translate.
LIGHT, LIGHT_2, NEVER_READY, REFUSING = (f"localhost/light:{version}" for version in ("1", "2", "3", "4"))


def make_bases(sandbox: Sandbox, fast: Path) -> None:
    """Import Debian as the two base images, with and without a compiler; `fast` is a folder in memory."""
    if sandbox.run("podman", "image", "exists", BUILD_BASE, check=False).returncode == 0:
        return
    need("mmdebstrap")
    runtime, build = fast / "runtime.tar", fast / "build.tar"
    left_out = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*")
    excludes = " ".join(f"--exclude='{pattern}'" for pattern in left_out)
    snapshot = (
        f'tar -C "$1" {excludes} -cf {runtime} . && chroot "$1" apt-get -qq -y --no-install-recommends install g++'
    )
    paths = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    include = "--include=python3,python3-venv,ca-certificates"
    debian = ["mmdebstrap", "-q", "--variant=minbase", include, "--dpkgopt=force-unsafe-io", *paths]
    # from the machine itself: the sandbox reaches no archive
    subprocess.run(
        [*debian, f"--customize-hook={snapshot}", "bookworm", str(build)],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(fast)},
    )
    for archive, name in ((runtime, RUNTIME_BASE), (build, BUILD_BASE)):
        sandbox.run("podman", "import", "-q", archive, name)
        archive.unlink()


def build(sandbox: Sandbox, tag: str, *without: str) -> None:
    """Ours, by the shipped script; its dependencies are those of the environment that runs the tests."""
    dependencies = sandbox.folder / "dependencies" / ("light" if without else "full")
    python = sandbox.run("podman", "run", "--rm", "--network=none", RUNTIME_BASE, "python3", "-V").stdout.split()[1]
    collect = [sys.executable, str(CONTAINERS / "collect-dependencies"), str(dependencies), "--python", python]
    subprocess.run([*collect, *(("--without", *without) if without else ())], check=True, capture_output=True)
    script = CONTAINERS / "build"
    sandbox.run(script, "--tool", "buildah", "--offline", "--dependencies", dependencies, "--tag", tag, timeout=280)


def derive(sandbox: Sandbox, tag: str, base: str, *lines: str) -> None:
    """An image that differs from `base` in a few lines."""
    text = "\n".join((f"FROM {base}", f'LABEL tag="{tag}"', *lines, ""))
    sandbox.run(
        "buildah",
        "build",
        "--pull-never",
        "--format",
        "docker",
        "-t",
        tag,
        "-f",
        "-",
        sandbox.folder / "cni",
        input=text,
    )
