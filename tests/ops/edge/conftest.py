"""What the tests of the edge share: daemons that echo, and in front of them both load balancers as they are shipped."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ops.edge.haproxy import HAProxy
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.edge import Edge, install
from tests.ops.kit.programs import need

Front = Edge | HAProxy
FRONTS = ("nginx", "haproxy")
TEXT = {"text": "It is raining.", "source_lang": "en", "target_lang": "fr"}


@pytest.fixture(scope="package")
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Daemon]]:
    """Factory of daemons that trust the load balancer and echo; all are ended with the tests of the edge."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Daemon:
            folder = tmp_path_factory.mktemp("daemon")
            return stack.enter_context(Daemon(folder=folder, **({"trusted_proxies": "127.0.0.1"} | settings)))

        yield start


@pytest.fixture(scope="package")
def one(start_daemon: Callable[..., Daemon]) -> Daemon:
    return start_daemon()


@pytest.fixture(scope="package")
def two(start_daemon: Callable[..., Daemon]) -> Daemon:
    return start_daemon()


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, as nginx-install makes it."""
    need("nginx")
    folder = tmp_path_factory.mktemp("certificate")
    install(folder, ["127.0.0.1:9"])
    return folder / "nllbd/site/certificate"


@pytest.fixture(scope="module")
def start_front(
    certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, list[Daemon]], Front]]:
    """Factory: `start_front("nginx", [daemon, …], green=daemon, unlimited=False)`."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, daemons: list[Daemon], *, green: Daemon | None = None, unlimited: bool = True) -> Front:
            folder, blue = tmp_path_factory.mktemp(kind), [daemon.address for daemon in daemons]
            if kind == "nginx":
                need("nginx")
                edge = stack.enter_context(Edge(folder, blue, unlimited=unlimited))
                if green is not None:
                    edge.upstream("add", green.address, "--pool", "green")
                return edge
            need("haproxy")
            more = {"green": green.address} if green else {}
            return stack.enter_context(HAProxy(folder, blue, certificate=certificate, unlimited=unlimited, **more))

        yield start


@pytest.fixture(scope="module")
def client_of() -> Iterator[Callable[..., httpx.Client]]:
    """Factory: an HTTP client for a front, its certificate checked."""
    with contextlib.ExitStack() as stack:

        def make(front: Front, **options: Any) -> httpx.Client:
            tls = ssl.create_default_context(cafile=str(front.cafile))
            client = httpx.Client(base_url=front.url, verify=tls, timeout=30, **options)
            return stack.enter_context(client)

        yield make
