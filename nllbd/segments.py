"""One segment on its way through the engine: the ways to write it, its hypotheses, the guards, one retry.

What comes of it fills the cache, once the guards have had their say. Knows no documents and no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import msgspec

from nllbd import metrics as m
from nllbd.bridge.protocol import EngineClient, EngineState
from nllbd.cache.cache import SegmentCache
from nllbd.cache.entry import Entry
from nllbd.errors import DeadlineExceeded, InternalError, NllbdError, NotReady, Overloaded, TextTooLong
from nllbd.inflight import InflightTable, SegmentKey, Waiter
from nllbd.languages import Language
from nllbd.metrics import Metrics
from nllbd.pacing import Pacer
from nllbd.sched.sequence import FinishReason, SearchParams, SequenceOutcome
from nllbd.text import guard
from nllbd.text.protect import Restored, Way, ways
from nllbd.text.tokenizer import Tokenizer
from nllbd.tracing import NO_TRACING, Tracing

TRUNCATED = "truncated"
_STARTS_A_TURN = 16
T = TypeVar("T")

_Ids = tuple[int, ...]


class Segment(msgspec.Struct, frozen=True):
    """A sentence to translate. `way` is the first way to try, `source_ids` what it gives the engine."""

    core: str
    source: Language
    way: Way
    source_ids: tuple[_Ids, ...]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.source_ids))


class Order(msgspec.Struct, frozen=True):
    """How a segment is wanted, and by whom. `field` names the text in errors; without `cache_name` nothing is kept."""

    target: Language
    target_id: int
    params: SearchParams
    max_num_beams: int
    waiter: Waiter
    field: str
    tenant: str = ""
    cache_name: bytes | None = None


class SegmentTranslation(msgspec.Struct, frozen=True):
    """What came of a segment: translations best first, what is to be said about the best, and what it took.

    `is_cached`: it took nothing. `is_lasting`: the same would come of it at any other time.
    """

    texts: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    outcomes: tuple[SequenceOutcome, ...] = ()
    is_cached: bool = False
    is_lasting: bool = True


def prepare(core: str, source: Language, tokenizer: Tokenizer) -> Segment:
    """A segment ready for its first way. Pure; safe in any thread."""
    way = next(ways(core, tokenizer))
    return Segment(core, source, way, _encode(way, source, tokenizer))


class SegmentTranslator:
    """Translates segments, identical ones in flight only once. One event loop."""

    def __init__(
        self,
        engine: EngineClient,
        inflight: InflightTable,
        tokenizer: Tokenizer,
        metrics: Metrics,
        pacer: Pacer,
        cache: SegmentCache | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._engine = engine
        self._inflight = inflight
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._pacer = pacer
        self._cache = cache
        self._tracing = tracing

    async def translate(self, segment: Segment, order: Order) -> SegmentTranslation:
        """A segment's translation, tried once more where the guards say that it is worth it. Raises NllbdError.

        The cache was asked for all of a request's segments at once (`Translator`); here it is looked into once more,
        for a moment ago somebody else may have finished the same.
        """
        if self._cache is None or order.cache_name is None:
            return await self._translate(segment, order)
        if known := self._cache.peek(order.cache_name):
            return from_cache(known)
        found = await self._translate(segment, order)
        if found.is_lasting:
            self._cache.keep(order.cache_name, Entry(found.texts, found.warnings))
        return found

    async def _translate(self, segment: Segment, order: Order) -> SegmentTranslation:
        found = await self._try_ways(segment, order, order.params)
        advised = guard.retry_params(found.warnings, order.params, order.max_num_beams)
        if advised is not None:
            found = await self._try_again(segment, order, advised, found)
        for warning in found.warnings:
            self._metrics.add(m.GUARD, kind=warning)
        return found

    async def _try_again(
        self, segment: Segment, order: Order, params: SearchParams, first: SegmentTranslation
    ) -> SegmentTranslation:
        """The better of the first answer and a second one. A retry that fails costs nothing but the retry."""
        self._metrics.add(m.RETRIES)
        try:
            again = await self._try_ways(segment, order, params)
        except NllbdError:
            return msgspec.structs.replace(first, is_lasting=False)
        better = again if len(again.warnings) < len(first.warnings) else first
        return SegmentTranslation(better.texts, better.warnings, first.outcomes + again.outcomes)

    async def _try_ways(self, segment: Segment, order: Order, params: SearchParams) -> SegmentTranslation:
        """The first way after which everything is there that must survive; the last one always is such."""
        outcomes: tuple[SequenceOutcome, ...] = ()
        for way, source_ids in self._ways(segment):
            found = await gather([self._run(ids, order, params) for ids in source_ids])
            outcomes += tuple(found)
            make = partial(self._judge, way, found, segment, order, params.num_hypotheses)
            is_complete, texts, warnings = await self._pacer.run(make)
            if is_complete:
                break
        return SegmentTranslation(texts, warnings, outcomes)

    def _judge(
        self, way: Way, found: list[SequenceOutcome], segment: Segment, order: Order, num_hypotheses: int
    ) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
        """Whether all is there that must survive; the translations, best first; what is to be said of the best."""
        restored = self._restore(way, found, num_hypotheses)
        best = restored[0]
        warnings = [TRUNCATED] if any(outcome.reason is FinishReason.LENGTH for outcome in found) else []
        warnings += best.warnings
        warnings += guard.check(segment.core, best.text, segment.source, order.target)
        texts = tuple([version.text for version in restored])
        return best.is_complete, texts, tuple(dict.fromkeys(warnings)) if warnings else ()

    def _ways(self, segment: Segment) -> Iterator[tuple[Way, tuple[_Ids, ...]]]:
        yield segment.way, segment.source_ids
        for way in islice(ways(segment.core, self._tokenizer), 1, None):
            yield way, _encode(way, segment.source, self._tokenizer)

    def _restore(self, way: Way, outcomes: list[SequenceOutcome], num_hypotheses: int) -> list[Restored]:
        """The translations, best first: the k-th is made of the k-th hypothesis of each of the way's texts."""
        decoded = [[self._tokenizer.decode(found.token_ids) for found in outcome.hypotheses] for outcome in outcomes]
        return [way.restore([texts[min(rank, len(texts) - 1)] for texts in decoded]) for rank in range(num_hypotheses)]

    async def _run(self, source_ids: _Ids, order: Order, params: SearchParams) -> SequenceOutcome:
        key = SegmentKey(source_ids, order.target_id, params, order.tenant)
        began_s = time.time()
        outcome = await self._inflight.get(key, order.waiter)
        self._tracing.sequence(began_s, outcome.queue_s, outcome.encode_s, outcome.decode_s)
        self._check(outcome, order.field)
        self._metrics.observe(m.QUEUE_TIME, outcome.queue_s)
        self._metrics.observe(m.ENCODE_TIME, outcome.encode_s)
        self._metrics.observe(m.DECODE_TIME, outcome.decode_s)
        return outcome

    def _check(self, outcome: SequenceOutcome, field: str) -> None:
        """Raise what an outcome without a translation means to the client."""
        is_engine_gone = self._engine.state in (EngineState.FAILED, EngineState.STOPPED)
        error: NllbdError
        match outcome.reason:
            case FinishReason.STOP | FinishReason.LENGTH:
                return
            case FinishReason.TOO_LARGE:
                error = TextTooLong(f"a sentence does not fit into the engine: {outcome.message}", field=field)
            case FinishReason.OVERLOADED:
                error = Overloaded("too much text is waiting already; try again later", retry_after_s=1.0)
            case FinishReason.DEADLINE:
                error = DeadlineExceeded("the deadline passed before the translation was done")
            case FinishReason.ABORTED | FinishReason.FAILED if is_engine_gone:
                error = NotReady("the translation engine is not running", retry_after_s=1.0)
            case _:
                error = InternalError("the engine fails on a sentence of this text", field=field)
        raise error


def from_cache(entry: Entry) -> SegmentTranslation:
    """A translation that was kept."""
    return SegmentTranslation(entry.texts, entry.warnings, is_cached=True)


async def gather(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all to their end, or cancel the rest at the first that raises, and raise just that.

    They are started a few a turn of the loop, so that a long document's window does not stop everybody else.
    """
    jobs = list(work)
    if len(jobs) == 1:
        return [await jobs[0]]
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for number, job in enumerate(jobs, start=1):
                tasks.append(group.create_task(job))
                if number % _STARTS_A_TURN == 0:
                    await asyncio.sleep(0)
    except* Exception as errors:
        raise errors.exceptions[0] from None
    finally:
        for job in jobs[len(tasks) :]:
            job.close()
    return [task.result() for task in tasks]


def _encode(way: Way, source: Language, tokenizer: Tokenizer) -> tuple[_Ids, ...]:
    return tuple(tokenizer.encode(text, source.code) for text in way.texts)
