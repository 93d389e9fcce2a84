"""The cache where it is used: requests against the real scheduler and an engine in a thread that echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nllbd import metrics as m
from nllbd.bridge.protocol import EngineConfig
from nllbd.bridge.thread import ThreadEngine
from nllbd.cache.cache import SegmentCache
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult
from nllbd.metrics import Metrics
from nllbd.sched.sequence import FinishReason
from nllbd.segments import TRUNCATED
from nllbd.text import guard
from nllbd.translator import Translator

MakeTranslator = Callable[..., Awaitable[Translator]]
LINES = "The first line is here.\nA second one follows.\nAnd then a third."


@pytest.fixture
async def make_translator(
    demo_checkpoint: Checkpoint,
    make_tokenizer: Callable[[], Any],
    make_detector: Callable[[], Any],
    make_cache: Callable[..., SegmentCache],
) -> AsyncIterator[MakeTranslator]:
    engines: list[ThreadEngine] = []

    async def make(runner: str = "fake", cache: SegmentCache | None = None, **options: Any) -> Translator:
        engine = ThreadEngine(EngineConfig(str(demo_checkpoint.path), runner=runner))
        engines.append(engine)
        await engine.start()
        await engine.wait_ready()
        metrics = Metrics(engine, "demo")
        return Translator(
            engine=engine,
            tokenizer=make_tokenizer(),
            detector=make_detector(),
            checkpoint=demo_checkpoint,
            settings=Settings(**options),
            metrics=metrics,
            cache=cache or make_cache(metrics=metrics),
        )

    yield make
    for engine in engines:
        await engine.stop()


@pytest.fixture
async def translator(make_translator: MakeTranslator) -> Translator:
    return await make_translator()


def job(*texts: str, **changes: Any) -> TranslationJob:
    given = {"source_lang": "eng_Latn", "target_lang": "fra_Latn", **changes}
    return TranslationJob(texts=texts, is_list=len(texts) > 1, **given)


def sequences(translator: Translator, result: str = "submitted") -> float:
    return translator._metrics.value(m.SEQUENCES, result=result)


async def test_what_was_translated_is_not_translated_again(translator: Translator) -> None:
    first = await translator.translate(job(LINES))
    assert (first.usage.segments, first.usage.cached_segments) == (3, 0)
    again = await translator.translate(job(LINES))
    assert again.translations == first.translations
    assert (again.usage.segments, again.usage.cached_segments) == (3, 3)
    assert (again.usage.source_tokens, again.usage.target_tokens) == (0, 0), "it took nothing"
    assert again.usage.characters == first.usage.characters, "but it is charged"
    assert sequences(translator) == 3
    assert translator._metrics.value(m.SEGMENTS, result="cached") == 3
    assert translator._metrics.value(m.SEGMENTS, result="translated") == 3


async def test_only_what_is_new_is_translated(translator: Translator) -> None:
    await translator.translate(job(LINES))
    result = await translator.translate(job("A second one follows. A new one. A second one follows."))
    assert result.translations[0].text == "A second one follows. A new one. A second one follows."
    assert (result.usage.segments, result.usage.cached_segments) == (3, 2)
    assert sequences(translator) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"target_lang": "deu_Latn"},
        {"source_lang": "por_Latn"},
        {"num_beams": 2},
        {"length_penalty": 0.5},
        {"early_stopping": "never"},
        {"max_length": 100},
        {"num_alternatives": 3},
        {"tenant": "key:somebody"},
    ],
)
async def test_another_question_is_another_entry(translator: Translator, changes: dict[str, Any]) -> None:
    await translator.translate(job("A line."))
    result = await translator.translate(job("A line.", **changes))
    assert result.usage.cached_segments == 0
    assert (await translator.translate(job("A line.", **changes))).usage.cached_segments == 1


async def test_a_language_that_was_detected_is_the_same_as_one_that_was_named(translator: Translator) -> None:
    await translator.translate(job("Hello there."))
    result = await translator.translate(job("Hello there.", source_lang=None))
    assert result.usage.cached_segments == 1
    assert result.translations[0].detected_confidence == 0.9


async def test_html_and_text_share_their_segments(translator: Translator) -> None:
    await translator.translate(job("Fish & chips."))
    result = await translator.translate(job("<p>Fish &amp; chips.</p>", format="html"))
    assert result.translations[0].text == "<p>Fish &amp; chips.</p>"
    assert result.usage.cached_segments == 1


async def test_a_stream_of_known_segments(translator: Translator) -> None:
    whole = await translator.translate(job(LINES))
    items = [item async for item in translator.stream(job(LINES + " More."))]
    events = [item for item in items if isinstance(item, SegmentEvent)]
    assert "".join(event.text for event in events) == whole.translations[0].text + " More."
    assert [event.segment_index for event in events] == [0, 1, 2, 3]
    assert isinstance(items[-1], TranslationResult)
    assert items[-1].usage.cached_segments == 3


async def test_warnings_are_kept_and_truncated_answers_too(translator: Translator) -> None:
    """Cut at `max_length`, which is part of the name: the same would come of it again."""
    first = await translator.translate(job("A line that is too long for that.", max_length=10))
    again = await translator.translate(job("A line that is too long for that.", max_length=10))
    assert TRUNCATED in first.translations[0].warnings
    assert again.translations == first.translations
    assert again.usage.cached_segments == 1
    assert translator._metrics.value(m.GUARD, kind=TRUNCATED) == 1, "a guard's find is counted where it is made"


async def test_an_answer_whose_retry_failed_is_not_kept(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt may do better: this one was stopped by circumstances."""
    monkeypatch.setattr(guard, "check", lambda *_: [guard.REPETITION])
    original = translator._segments._run
    asked = []

    async def fail_second(ids: Any, order: Any, params: Any) -> Any:
        asked.append(params)
        outcome = await original(ids, order, params)
        if len(asked) == 2:
            translator._segments._check(type(outcome)(outcome.seq_id, FinishReason.OVERLOADED), order.field)
        return outcome

    monkeypatch.setattr(translator._segments, "_run", fail_second)
    assert (await translator.translate(job("A line."))).translations[0].warnings == (guard.REPETITION,)
    assert (await translator.translate(job("A line."))).usage.cached_segments == 0
    assert (await translator.translate(job("A line."))).usage.cached_segments == 1


async def test_failures_are_not_kept(make_translator: MakeTranslator) -> None:
    translator = await make_translator(runner="fake:step_ms=20", request_timeout_s=0.05)
    for _ in range(2):
        with pytest.raises(Exception, match="not finished"):
            await translator.translate(job("A line that takes far too long to be done in time."))
    assert translator._metrics.value(m.CACHE_ITEMS) == 0


async def test_a_known_text_is_served_by_a_server_that_takes_no_more(
    make_translator: MakeTranslator, eventually: Any
) -> None:
    translator = await make_translator(runner="fake:step_ms=20", max_waiting_segments=3)
    await translator.translate(job("Known."))
    busy = asyncio.create_task(translator.translate(job("One of three. Two of three. Three of three.")))
    await eventually(lambda: translator.admission.num_segments == 3)
    with pytest.raises(Exception, match="waiting already"):
        await translator.translate(job("New."))
    assert (await translator.translate(job("Known."))).usage.cached_segments == 1
    assert (await busy).usage.segments == 3


async def test_tenants_do_not_join_each_others_sequences(make_translator: MakeTranslator) -> None:
    """Joining would be faster than translating, and that would tell what another has translated at this moment."""
    translator = await make_translator(runner="fake:step_ms=5")
    results = await asyncio.gather(*(translator.translate(job("A line.", tenant=it)) for it in ("a", "a", "b", "")))
    assert {result.translations[0].text for result in results} == {"A line."}
    assert (sequences(translator), sequences(translator, "joined")) == (3, 1)


async def test_the_same_at_the_same_time_is_done_once(make_translator: MakeTranslator) -> None:
    translator = await make_translator(runner="fake:step_ms=5")
    results = await asyncio.gather(*(translator.translate(job(LINES)) for _ in range(20)))
    assert len({result.translations for result in results}) == 1
    assert sequences(translator) == 3


async def test_what_somebody_else_finished_meanwhile_is_taken(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the miss and the engine another request may finish the same segment."""
    cache = translator._cache
    assert cache is not None
    find = cache.find

    async def slow_find(names: Any) -> Any:
        found = await find(names)
        monkeypatch.setattr(cache, "find", find)
        await translator.translate(job("A line."))
        return found

    monkeypatch.setattr(cache, "find", slow_find)
    result = await translator.translate(job("A line."))
    assert result.usage.cached_segments == 1
    assert sequences(translator) == 1


async def test_settings_that_change_live(translator: Translator) -> None:
    await translator.translate(job("A line."))
    translator.apply(Settings(cache_ttl_s=0))
    assert (await translator.translate(job("A line."))).usage.cached_segments == 0
    translator.apply(Settings(cache_ttl_s=100))
    assert (await translator.translate(job("A line."))).usage.cached_segments == 0
    assert (await translator.translate(job("A line."))).usage.cached_segments == 1
    translator.apply(Settings(cache_max_items=0))
    assert (await translator.translate(job("A line."))).usage.cached_segments == 0


async def test_another_cap_on_beams_is_another_question(translator: Translator) -> None:
    """A guard's retry takes as many beams as it may: what it finds depends on the cap."""
    await translator.translate(job("A line."))
    translator.apply(Settings(max_num_beams=4))
    assert (await translator.translate(job("A line."))).usage.cached_segments == 0


async def test_two_daemons_share_redis(
    make_translator: MakeTranslator,
    make_cache: Callable[..., SegmentCache],
    start_redis: Any,
    link_to: Any,
    eventually: Any,
) -> None:
    server, metrics = start_redis(), Metrics()
    one = await make_translator(cache=make_cache(await link_to(server.url), metrics=metrics))
    other = await make_translator(cache=make_cache(await link_to(server.url)))
    first = await one.translate(job(LINES, num_alternatives=2))
    await eventually(lambda: metrics.value(m.CACHE_WRITES, result="written") == 3)
    second = await other.translate(job(LINES, num_alternatives=2))
    assert second.translations == first.translations
    assert second.usage.cached_segments == 3
    assert sequences(other) == 0
