"""Both load balancers where it gets difficult: streams, overload of every daemon, hosts that do not answer, CDNs."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.ops.edge.conftest import FRONTS, TEXT, Front
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops


@pytest.fixture(scope="module")
def slow(start_daemon: Callable[..., Daemon]) -> Daemon:
    """Takes its time for each token, one sentence after the other, and lets few wait."""
    return start_daemon(runner="fake:step_ms=15", max_num_lanes=4, max_waiting_segments=8)


@pytest.fixture(scope="module", params=FRONTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_stream_comes_sentence_by_sentence(
    kind: str, start_front: Callable[..., Front], client_of: Callable[..., httpx.Client], slow: Daemon
) -> None:
    client = client_of(start_front(kind, [slow]))
    text = " ".join(f"This is sentence number {number}." for number in range(8))
    body = {**TEXT, "text": text, "stream": True}
    with client.stream("POST", "/translate", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-frame-options"] == "DENY"
        lines = ((line, time.monotonic()) for line in answer.iter_lines())
        arrivals = [(line.removeprefix("event: "), when) for line, when in lines if line.startswith("event: ")]
    names = [name for name, _ in arrivals]
    assert names == ["segment"] * 8 + ["done"]
    first, last = arrivals[0][1], arrivals[-1][1]
    assert last - first > 0.3  # eight sentences of some ten tokens at 15 ms: they cannot have come at once
    gaps = [later - sooner for (_, sooner), (_, later) in itertools.pairwise(arrivals[:-1])]
    assert sum(gap > 0.02 for gap in gaps) >= 3


def test_overload_of_every_daemon_is_told_and_over_when_it_is_over(
    kind: str, start_front: Callable[..., Front], client_of: Callable[..., httpx.Client], slow: Daemon
) -> None:
    front = start_front(kind, [slow])
    with Traffic(front.url, clients=40, cafile=front.cafile, echoes=True) as traffic:
        eventually(lambda: traffic.counts["503"] >= 40 and traffic.counts["200"] >= 20, what="overload")
    assert set(traffic.counts) == {"200", "503"}, traffic.report()
    refused = [outcome for outcome in traffic.outcomes if outcome.status == 503]
    assert {json.loads(outcome.body)["error"]["code"] for outcome in refused} == {"overloaded"}
    assert all("Retry-After" in outcome.headers or "retry-after" in outcome.headers for outcome in refused)
    assert client_of(front).post("/translate", json=TEXT).status_code == 200


def test_hosts_that_do_not_answer_are_gone_around(
    kind: str, start_front: Callable[..., Front], client_of: Callable[..., httpx.Client], one: Daemon
) -> None:
    """A port that takes no connection and refuses none: what a host without power looks like."""
    with black_hole() as hole:
        client = client_of(start_front(kind, [hole, one]))
        began = time.monotonic()
        assert [client.post("/translate", json=TEXT).status_code for _ in range(12)] == [200] * 12
        # three requests find out, at 2 s each; the guide's 60 s would have hung the first of them
        assert time.monotonic() - began < 12


def test_nobody_there_is_told_in_the_callers_own_way(
    kind: str, start_front: Callable[..., Front], client_of: Callable[..., httpx.Client]
) -> None:
    client = client_of(start_front(kind, [Nobody("127.0.0.1:9")]))
    native = client.post("/translate", json=TEXT)
    deepl = client.post("/v2/translate", json={"text": ["a"], "target_lang": "FR"})
    google = client.post("/language/translate/v2", json={"q": "a", "target": "fr"})
    page = client.get("/", headers={"Accept": "text/html,*/*"})
    assert [answer.status_code for answer in (native, deepl, google, page)] == [503] * 4
    assert {answer.headers["retry-after"] for answer in (native, deepl, google, page)} == {"2"}
    assert native.json()["error"]["code"] == "not_ready"
    assert native.json()["error"]["request_id"] == native.headers["x-request-id"]
    assert "no translation server" in deepl.json()["message"]
    assert google.json()["error"]["code"] == 503
    assert "cannot be reached" in page.text
    assert {answer.headers["x-frame-options"] for answer in (native, page)} == {"DENY"}


def test_the_caller_is_known_behind_a_cdn_and_cannot_be_forged(
    kind: str, start_front: Callable[..., Front], client_of: Callable[..., httpx.Client], one: Daemon
) -> None:
    front = start_front(kind, [one])
    forged = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Real-IP": "203.0.113.7"}
    assert caller(front, client_of, one, "direct", forged) == "127.0.0.1"
    if kind == "nginx":
        (front.folder / "nllbd/site/cdn.conf").write_text("set_real_ip_from 127.0.0.0/8;\n")
    else:
        (front.folder / "cdn.lst").write_text("127.0.0.0/8\n")
    front.reload()
    # what the caller wrote himself stands to the left of what the CDN saw
    behind = {"X-Forwarded-For": "203.0.113.7, 2001:db8::7"}
    assert caller(front, client_of, one, "behind", behind) == "2001:db8::7"


def caller(
    front: Front, client_of: Callable[..., httpx.Client], daemon: Daemon, mark: str, headers: dict[str, str]
) -> str:
    """Who the daemon and the load balancer say has called."""
    request_id = f"{mark}-{time.monotonic_ns()}"
    answer = client_of(front).post("/translate", json=TEXT, headers={**headers, "X-Request-Id": request_id})
    assert answer.status_code == 200

    def lines() -> list[str]:
        rows = [*front.access_log(), *daemon.log_records()]
        return [str(row["client"]) for row in rows if row.get("request_id") == request_id and "client" in row]

    found = eventually(lambda: len(lines()) == 2 and lines())
    assert found[0] == found[1]
    return found[0]


class Nobody:
    """Stands in for a daemon that is not there."""

    def __init__(self, address: str) -> None:
        self.address = address


@contextlib.contextmanager
def black_hole() -> Iterator[Nobody]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # its queue is full: further connections wait for an answer that does not come
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield Nobody("127.0.0.1:{1}".format(*listener.getsockname()))
