"""Both load balancers while traffic flows: reloads, daemons that die, drain and come back, switches between pools."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.ops.edge.conftest import FRONTS, Front
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.edge import Edge
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops


@pytest.fixture(scope="module")
def three(start_daemon: Callable[..., Daemon]) -> Daemon:
    """The daemon of pool green."""
    return start_daemon()


@pytest.fixture(scope="module", params=FRONTS)
def front(
    request: pytest.FixtureRequest, start_front: Callable[..., Front], one: Daemon, two: Daemon, three: Daemon
) -> Front:
    return start_front(request.param, [one, two], green=three)


@contextlib.contextmanager
def steady(front: Front) -> Iterator[Traffic]:
    """Traffic of which nothing may fail. Half of the requests come on connections that are kept."""
    with (
        Traffic(front.url, clients=2, cafile=front.cafile, echoes=True, retry_stale=True) as kept,
        Traffic(front.url, rate=25, cafile=front.cafile, echoes=True, keepalive=False) as traffic,
    ):
        traffic.wait_for(20)
        yield traffic
        traffic.wait_for(20)
    assert not kept.failed, kept.report()
    assert not traffic.failed, traffic.report()


def test_reloads_lose_nothing(front: Front) -> None:
    with steady(front) as traffic:
        for _ in range(4):
            front.reload()
            traffic.wait_for(5)


def test_a_daemon_that_is_killed_costs_nobody_a_request(front: Front, two: Daemon) -> None:
    with steady(front) as traffic:
        two.kill()
        traffic.wait_for(40)
        two.restart()
        traffic.wait_for(20)


def test_a_daemon_that_drains_and_starts_again_costs_nobody_a_request(front: Front, two: Daemon) -> None:
    with steady(front) as traffic:
        assert two.stop() == 0
        traffic.wait_for(20)
        two.restart()


def test_a_drained_daemon_gets_nothing_new_and_finishes_what_it_has(front: Front, one: Daemon, two: Daemon) -> None:
    with steady(front) as traffic:
        front.upstream("drain", two.address, "--wait", "60")
        before = two.metrics()
        traffic.wait_for(40)
        assert num_translations(two.metrics()) == num_translations(before)
        front.upstream("add" if isinstance(front, Edge) else "up", two.address)
        while num_translations(two.metrics()) == num_translations(before):
            traffic.wait_for(5)


def test_pools_are_switched_without_a_request_lost(front: Front, one: Daemon, two: Daemon, three: Daemon) -> None:
    with steady(front) as traffic:
        front.upstream("switch", "green", "--wait", "60")
        before = num_translations(one.metrics()) + num_translations(two.metrics())
        traffic.wait_for(40)
        assert num_translations(one.metrics()) + num_translations(two.metrics()) == before
        assert num_translations(three.metrics()) > 0
        assert json.loads(front.upstream("show", "--json").stdout)["active"] == "green"
        front.upstream("switch", "blue", "--wait", "60")


def test_a_reload_that_nginx_cannot_do_is_told(start_front: Callable[..., Front], one: Daemon) -> None:
    """What nginx -t does not see: another key for a zone that is there. Traffic goes on as before."""
    edge = start_front("nginx", [one])
    assert isinstance(edge, Edge)
    rates = edge.folder / "nllbd/site/rates.conf"
    sane = rates.read_text()
    rates.write_text(sane.replace("$nllbd_nobody zone=nllbd_flood", "$nllbd_caller zone=nllbd_flood"))
    assert Edge.check(edge.folder).returncode == 0
    before = edge.upstream("show").stdout
    for command in (("reload",), ("maintenance", "on")):
        refused = edge.upstream(*command, "--within", "2", check=False)
        assert refused.returncode == 1
        assert "did not take it over" in refused.stderr
    assert edge.upstream("show").stdout == before
    with Traffic(edge.url, clients=1, cafile=edge.cafile, echoes=True) as traffic:
        traffic.wait_for(5)
    assert not traffic.failed
    rates.write_text(sane)
    assert edge.upstream("reload").returncode == 0


def num_translations(metrics: str) -> float:
    """The guide's translation_requests_total."""
    lines = [line for line in metrics.splitlines() if line.startswith("translation_requests_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
