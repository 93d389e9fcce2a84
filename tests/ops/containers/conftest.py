"""One sandbox for all tests of containers, with images built in it once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.containers import images
from tests.ops.containers.docker import Docker
from tests.ops.containers.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """NLLBD_TEST_CACHE names a folder that keeps images from one run to the next."""
    kept = os.environ.get("NLLBD_TEST_CACHE")
    folder = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="nllbd-containers-", dir="/var/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    made = Sandbox(folder)
    try:
        yield made
    finally:
        made.close()
        if not kept:
            made.remove_folder()


@pytest.fixture(scope="session")
def bases(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory(prefix="nllbd-bases-", dir="/dev/shm") as fast:
        images.make_bases(sandbox, Path(fast))


@pytest.fixture(scope="session")
def full_image(sandbox: Sandbox, bases: None) -> str:
    """nllbd as it is shipped, with the demonstration model."""
    images.build(sandbox, images.FULL)
    return images.FULL


@pytest.fixture(scope="session")
def light_image(sandbox: Sandbox, bases: None) -> str:
    """nllbd without torch: `runner=fake`."""
    base = "localhost/light:base"
    images.build(sandbox, base, "torch")
    images.derive(sandbox, images.LIGHT, base, "ENV NLLBD_RUNNER=fake")
    images.derive(sandbox, images.LIGHT_2, images.LIGHT)
    images.derive(sandbox, images.NEVER_READY, images.LIGHT, "ENV NLLBD_DTYPE=nonsense")
    images.derive(sandbox, images.REFUSING, images.LIGHT, "ENV NLLBD_MAX_REQUEST_SIZE=3")
    return images.LIGHT


@pytest.fixture(scope="session")
def docker(sandbox: Sandbox, light_image: str) -> Iterator[Docker]:
    """A dockerd in the sandbox that has the light images."""
    daemon = Docker(sandbox)
    try:
        archive = sandbox.folder / "light.tar"
        archive.unlink(missing_ok=True)
        names = (images.LIGHT, images.LIGHT_2, images.NEVER_READY, images.REFUSING, images.RUNTIME_BASE)
        sandbox.run("podman", "save", "-q", "-m", "-o", archive, *names)
        daemon.run("load", "-q", "-i", archive)
        archive.unlink()
        yield daemon
    finally:
        daemon.stop()
