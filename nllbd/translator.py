"""The heart of the request side: a job's texts become segments, the segments sequences in the engine, and back.

In order: plan (document.py) → take over what the cache knows → admit the rest whole or refuse it whole (admission.py) →
translate its segments in windows (segments.py), identical ones in flight only once (inflight.py) → assemble. Knows no
HTTP and no tensor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from nllbd import metrics as m
from nllbd.admission import Admission, Ticket
from nllbd.bridge.protocol import EngineClient
from nllbd.cache.cache import SegmentCache
from nllbd.cache.key import Namer, Recipe
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings
from nllbd.document import Key, Planner, TextPlan, Translations, assemble
from nllbd.errors import DeadlineExceeded, NllbdError
from nllbd.inflight import InflightTable, Waiter
from nllbd.job import (
    SegmentEvent,
    TranslationJob,
    TranslationResult,
    Usage,
    check_settings,
    max_beams,
    max_segment_tokens,
    search_params,
    timeout_s,
)
from nllbd.languages import Language
from nllbd.metrics import Metrics
from nllbd.pacing import Pacer
from nllbd.sched.sequence import SearchParams
from nllbd.segments import Order, Segment, SegmentTranslation, SegmentTranslator, from_cache, gather
from nllbd.streaming import EventOrder
from nllbd.text.detect import MAX_CHARACTERS, Detection, Detector
from nllbd.text.segment import MAX_TOKENS, Piece, split
from nllbd.text.tokenizer import Tokenizer
from nllbd.textwork import PATIENCE_S, TextWork
from nllbd.timeouts import TimeLimit
from nllbd.tracing import NO_TRACING, Tracing

_INLINE_CHARACTERS = 1_000  # more text than this is planned in a thread: it is milliseconds of work
_PLANNING_SHARE = 0.5  # of its time a request may wait for others' texts to be planned
_MIN_WINDOW = 32
_NAMES_A_SLICE = 64


@dataclass(slots=True, eq=False)
class _Run:
    """A job under way. `segments` are its distinct ones, each with the index of the text where it first occurs; `names`
    are theirs in the cache.
    """

    job: TranslationJob
    target: Language
    target_id: int
    params: SearchParams
    deadline: float
    plans: list[TextPlan] = field(default_factory=list)
    segments: dict[Key, tuple[int, Segment]] = field(default_factory=dict)
    names: dict[Key, bytes] = field(default_factory=dict)
    num_occurrences: int = 0
    done: Translations = field(default_factory=dict)
    emit: Callable[[SegmentEvent], None] | None = None


class Translator:
    """Translates jobs. One event loop; `close` ends the threads that plan large texts."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        tokenizer: Tokenizer,
        detector: Detector,
        checkpoint: Checkpoint,
        settings: Settings,
        metrics: Metrics,
        cache: SegmentCache | None = None,
        tracing: Tracing = NO_TRACING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_settings(settings, checkpoint)
        self._engine = engine
        self._tokenizer = tokenizer
        self._detector = detector
        self._checkpoint = checkpoint
        self._settings = settings
        self._metrics = metrics
        self._cache = cache
        self._clock = clock
        self._tracing = tracing
        self._planner = Planner(tokenizer, detector, max_segment_tokens(settings, checkpoint))
        self._usual_params: SearchParams | None = None
        self._text_work = TextWork()
        self._pacer = Pacer()
        self.inflight = InflightTable(engine, clock, self._count_asked)
        self._segments = SegmentTranslator(engine, self.inflight, tokenizer, metrics, self._pacer, cache, tracing)
        self.admission = Admission(settings.max_waiting_segments, settings.max_waiting_tokens, clock)

    def close(self) -> None:
        self._text_work.close()

    def apply(self, settings: Settings) -> None:
        """Take over settings that changed live; jobs under way keep theirs."""
        self._settings = settings
        self._usual_params = None
        if self._cache is not None:
            self._cache.apply(settings.cache_ttl_s, settings.cache_max_items)

    async def translate(self, job: TranslationJob) -> TranslationResult:
        """Translate all texts of a job.

        Raises one of nllbd.errors: what is wrong with the job (field named), Overloaded, DeadlineExceeded, NotReady.
        Cancelling the call aborts what nobody else waits for.
        """
        return await self._run(job, None)

    async def stream(self, job: TranslationJob) -> AsyncGenerator[SegmentEvent | TranslationResult, None]:
        """The segments of a job as they become final, in order within each text; the result comes last.

        Errors as in `translate`; those of the job itself and of admission come before the first event. Closing the
        generator aborts the job.
        """
        events: asyncio.Queue[SegmentEvent | None] = asyncio.Queue()
        task = asyncio.create_task(self._run(job, events.put_nowait))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, NllbdError):
                await task

    async def detect(self, text: str) -> Detection:
        """The language of a text. Raises Overloaded."""
        return (await self.detect_all((text,)))[0]

    async def detect_all(self, texts: Sequence[str]) -> list[Detection]:
        """The languages of texts. In a thread: the detector's model takes a while to load and some time to run.

        Raises Overloaded when others' texts would keep these waiting.
        """
        sizes = [min(len(text), MAX_CHARACTERS) for text in texts]
        return await self._text_work.run("detect", sizes, [partial(self._detector.detect, text) for text in texts])

    async def split_all(self, texts: Sequence[str], languages: Sequence[Language]) -> list[list[Piece]]:
        """The sentences of texts, as they would be translated. Raises Overloaded."""
        count = self._tokenizer.count_tokens
        calls = [partial(split, text, it, MAX_TOKENS, count) for text, it in zip(texts, languages, strict=True)]
        return await self._text_work.run("split", list(map(len, texts)), calls)

    async def _run(self, job: TranslationJob, emit: Callable[[SegmentEvent], None] | None) -> TranslationResult:
        started = self._clock()
        timeout = timeout_s(job, self._settings)
        languages = self._tokenizer.languages
        target = languages.resolve(job.target_lang, "target_lang")
        source = None if job.source_lang is None else languages.resolve(job.source_lang, "source_lang")
        params = self._search_params(job)
        run = _Run(job, target, self._tokenizer.language_id(target.code), params, started + timeout, emit=emit)
        try:
            with TimeLimit(timeout):
                with self._tracing.span("plan"):
                    await self._plan(run, source)
                await self._recall(run)
                await self._translate_admitted(run)
        except TimeoutError:
            raise self._too_late(run, timeout) from None
        result = TranslationResult(
            tuple(assemble(plan, run.done, job.num_alternatives) for plan in run.plans),
            target.code,
            _usage(run),
            self._clock() - started,
        )
        self._metrics.observe(m.TRANSLATION_DURATION, result.duration_s)
        return result

    def _search_params(self, job: TranslationJob) -> SearchParams:
        """Of a job; those of jobs without wishes are worked out once."""
        if job.has_search_wishes:
            return search_params(job, self._settings, self._checkpoint)
        if self._usual_params is None:
            self._usual_params = search_params(job, self._settings, self._checkpoint)
        return self._usual_params

    async def _plan(self, run: _Run, source: Language | None) -> None:
        job = run.job
        sizes = list(map(len, job.texts))
        calls = [partial(self._planner.plan, job, index, source, run.target) for index in range(len(sizes))]
        if source is None or sum(sizes) > _INLINE_CHARACTERS:
            patience_s = max(PATIENCE_S, (run.deadline - self._clock()) * _PLANNING_SHARE)
            kind = "plan" if source is not None else "detect and plan"
            run.plans += await self._text_work.run(kind, sizes, calls, patience_s)
        else:
            run.plans += [await self._pacer.run(call) for call in calls]
        self._collect_segments(run)
        self._metrics.add(m.CHARACTERS, sum(sizes))
        self._metrics.observe(m.REQUEST_SEGMENTS, run.num_occurrences)

    def _collect_segments(self, run: _Run) -> None:
        """The distinct segments of all plans, in order of first occurrence."""
        passed = 0
        for index, plan in enumerate(run.plans):
            for segment in plan.segments:
                run.segments.setdefault((segment.source.code, segment.core), (index, segment))
            for part in plan.parts:
                if part.key is not None:
                    run.num_occurrences += 1
                elif not (part.before + part.after).isspace():
                    passed += 1
        self._count_segments("passed_through", passed)
        self._count_segments("repeated", run.num_occurrences - len(run.segments))

    async def _recall(self, run: _Run) -> None:
        """Take over what the cache knows: one look for all segments."""
        cache, info = self._cache, self._engine.info
        if cache is not None and cache.is_on and info is not None:
            recipe = Recipe(run.target.code, run.params, max_beams(self._settings), run.job.tenant)
            name = cache.namer(info.device, info.dtype, recipe)
            keys = list(run.segments)
            for first in range(0, len(keys), _NAMES_A_SLICE):
                run.names |= await self._pacer.run(partial(_name_all, name, keys[first : first + _NAMES_A_SLICE]))
            known = await cache.find(tuple(run.names.values()))
            run.done |= {key: from_cache(known[name]) for key, name in run.names.items() if name in known}
        self._count_segments("cached", len(run.done))

    async def _translate_admitted(self, run: _Run) -> None:
        missing = [segment for key, (_, segment) in run.segments.items() if key not in run.done]
        tokens = sum([segment.num_tokens for segment in missing])
        ticket = Ticket(run.job.priority, len(missing), tokens, run.params.num_beams)
        self.admission.enter(ticket, run.deadline - self._clock())
        self._count_segments("translated", len(missing))
        self._metrics.add(m.TRANSLATION_REQUESTS)
        self._metrics.set(m.ADMITTED_TOKENS, self.admission.num_tokens)
        try:
            events = EventOrder(run.plans, run.done, run.emit) if run.emit else None
            await self._translate_segments(run, ticket, events)
        finally:
            self.admission.leave(ticket)
            self._metrics.set(m.ADMITTED_TOKENS, self.admission.num_tokens)

    async def _translate_segments(self, run: _Run, ticket: Ticket, events: EventOrder | None) -> None:
        """All segments, a window of them at a time: a long document must not fill the engine's inbox by itself."""
        missing = [item for item in run.segments.items() if item[0] not in run.done]
        if events is None:  # who waits for the whole has it soonest when its longest segment is not begun last
            missing.sort(key=lambda item: -item[1][1].num_tokens)
        pending = iter(missing)
        job = run.job
        waiter = Waiter(run.deadline, job.priority, job.client, job.request_id, ticket.num_tokens)

        async def work() -> None:
            for key, (index, segment) in pending:
                order = Order(
                    run.target,
                    run.target_id,
                    run.params,
                    max_beams(self._settings),
                    waiter,
                    job.text_field(index),
                    job.tenant,
                    run.names.get(key),
                )
                run.done[key] = found = await self._segments.translate(segment, order)
                self._suppose_rate(segment, found)
                self.admission.finish_segment(ticket, segment.num_tokens, self._engine.num_waiting > 0)
                if events:
                    events.advance(key)

        await gather(work() for _ in range(min(len(missing), self._window(run.params))))

    def _suppose_rate(self, segment: Segment, found: SegmentTranslation) -> None:
        """Until the engine was seen at work with a full batch: what one would do of segments such as this."""
        info, meter = self._engine.info, self.admission.meter
        busy_s = max((outcome.encode_s + outcome.decode_s for outcome in found.outcomes), default=0.0)
        if meter.rate is None and info is not None and busy_s > 0:
            meter.suppose(segment.num_tokens * info.max_num_lanes / busy_s)

    def _window(self, params: SearchParams) -> int:
        """Twice what the engine can hold, so that it never waits for us."""
        info = self._engine.info
        return max(_MIN_WINDOW, 2 * info.max_num_lanes // params.num_beams if info else 0)

    def _too_late(self, run: _Run, timeout: float) -> DeadlineExceeded:
        done, total = len(run.done), len(run.segments)
        progress = f"{done} of {total} segments were done" if total else "the text was still being split"
        return DeadlineExceeded(f"not finished within {timeout:g} s ({progress}); raise timeout_s or send less at once")

    def _count_asked(self, joined: bool) -> None:
        self._metrics.add(m.SEQUENCES, result="joined" if joined else "submitted")

    def _count_segments(self, result: str, number: int) -> None:
        if number:
            self._metrics.add(m.SEGMENTS, number, result=result)


def _name_all(name: Namer, keys: list[Key]) -> dict[Key, bytes]:
    return {key: name(*key) for key in keys}


def _usage(run: _Run) -> Usage:
    target_tokens = peak_lanes = 0
    queue_s = encode_s = decode_s = 0.0
    cached = set()
    for key, found in run.done.items():
        if found.is_cached:
            cached.add(key)
        for outcome in found.outcomes:
            target_tokens += len(outcome.hypotheses[0].token_ids)
            queue_s = max(queue_s, outcome.queue_s)
            encode_s = max(encode_s, outcome.encode_s)
            decode_s = max(decode_s, outcome.decode_s)
            peak_lanes = max(peak_lanes, outcome.peak_lanes)
    return Usage(
        characters=sum(map(len, run.job.texts)),
        segments=run.num_occurrences,
        cached_segments=sum(part.key in cached for plan in run.plans for part in plan.parts) if cached else 0,
        source_tokens=sum([segment.num_tokens for key, (_, segment) in run.segments.items() if key not in cached]),
        target_tokens=target_tokens,
        queue_s=queue_s,
        encode_s=encode_s,
        decode_s=decode_s,
        beams=run.params.num_beams,
        peak_lanes=peak_lanes,
    )
