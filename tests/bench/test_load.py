"""Arrivals, the SLO's arithmetic on known numbers, and a client against a server that is late on purpose."""

import asyncio
import itertools
import random
import statistics

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench import load
from bench.corpus import Text
from bench.load import Sample, summarize

POOL = [Text("sentence", "One.", "eng_Latn", "fra_Latn"), Text("document", "Many.", "eng_Latn", "fra_Latn")]


@pytest.mark.parametrize("make", [load.poisson, load.bursty])
def test_arrivals_come_in_order_at_the_rate(make: object) -> None:
    arrivals = make(5.0, 20_000, random.Random(1))  # type: ignore[operator]
    assert len(arrivals) == 20_000
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(4000, rel=0.1)


def test_bursts_come_all_at_once() -> None:
    def gaps(arrivals: list[float]) -> float:
        return statistics.median(b - a for a, b in itertools.pairwise(arrivals))

    assert gaps(load.bursty(5.0, 5000, random.Random(1))) == 0
    assert gaps(load.poisson(5.0, 5000, random.Random(1))) > 0


def test_goodput_counts_what_is_answered_in_time() -> None:
    allowed = load.allowed_s({0: 0.5, 1: 2.0})
    assert allowed == {0: 4.0, 1: 10.0}
    samples = [
        Sample(0, "sentence", 0, 4.0, 200),
        Sample(0, "sentence", 0, 4.1, 200),  # late
        Sample(0, "sentence", 0, 0.1, 503),  # refused: no credit for being quick
        Sample(1, "document", 0, 9.0, 200),
    ]
    summary = summarize(samples, allowed, offered_s=2.0)
    assert summary["all"] == {
        "requests": 4,
        "failed": 1,
        "in_time": 0.5,
        "goodput_per_s": 1.0,
        "p50_s": 4.1,
        "p95_s": 9.0,
        "p99_s": 9.0,
    }
    assert summary["sentence"]["goodput_per_s"] == 0.5
    assert summary["document"]["in_time"] == 1.0
    assert "paragraph" not in summary


def test_a_sustained_rate_leaves_out_start_and_end() -> None:
    ends = [10, 11, 12, 13, 14, 15, 16, 40]
    assert load.sustained([Sample(0, "sentence", 0, end, 200) for end in ends]) == 1.0
    with pytest.raises(ValueError, match="too few"):
        load.sustained([Sample(0, "sentence", 0, 1, 200)] * 3)


def test_orders_use_the_whole_pool_before_repeating() -> None:
    order = load.orders(POOL * 5, 25, random.Random(0))
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert len(order) == 25


class Recorder:
    """A server that remembers what it was asked, and holds every answer until `num` requests are there."""

    def __init__(self, num: int, status: int = 200) -> None:
        self.asked: list[dict[str, object]] = []
        self._num, self._status = num, status
        self._all_there = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        if len(self.asked) >= self._num:
            self._all_there.set()
        await self._all_there.wait()
        return web.json_response({}, status=self._status)


async def _serve(recorder: Recorder) -> TestServer:
    app = web.Application()
    app.add_routes([web.post("/translate", recorder.answer)])
    server = TestServer(app)
    await server.start_server()
    return server


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    recorder = Recorder(num=6)
    server = await _serve(recorder)
    async with load.session() as session:
        client = load.Client(session, str(server.make_url("")).rstrip("/"), POOL, beams=2)
        samples = await asyncio.wait_for(client.open_loop([0.0] * 6, [0, 1] * 3), 30)
    await server.close()
    assert [sample.status for sample in samples] == [200] * 6
    assert {sample.kind for sample in samples} == {"sentence", "document"}
    assert len({asked["length_penalty"] for asked in recorder.asked}) == 6  # no two are the same request
    assert {asked["num_beams"] for asked in recorder.asked} == {2}


async def test_a_closed_loop_keeps_so_many_clients_busy_and_reports_refusals() -> None:
    recorder = Recorder(num=3, status=503)
    server = await _serve(recorder)
    async with load.session() as session:
        client = load.Client(session, str(server.make_url("")).rstrip("/"), POOL, beams=1)
        samples = await asyncio.wait_for(client.closed_loop(3, [0] * 7), 30)
    await server.close()
    assert [sample.status for sample in samples] == [503] * 7


async def test_a_server_that_is_not_there_is_a_failure_not_an_exception() -> None:
    async with load.session() as session:
        client = load.Client(session, "http://127.0.0.1:1", POOL, beams=1)
        (sample,) = await client.closed_loop(1, [0])
    assert sample.status == 0
