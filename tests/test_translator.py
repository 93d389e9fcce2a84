"""The heart of the request side, against the real scheduler and engine in a thread: the echo runner translates."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nllbd import metrics as m
from nllbd.bridge.protocol import EngineConfig, EngineInfo
from nllbd.bridge.thread import ThreadEngine
from nllbd.checkpoint import DEMO_FOLDER, Checkpoint, read_checkpoint
from nllbd.config import Settings
from nllbd.document import Planner
from nllbd.engine.engine import Engine
from nllbd.engine.fake import FakeRunner, FakeScript
from nllbd.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidValue,
    LanguageNotDetected,
    NllbdError,
    NotReady,
    Overloaded,
    TextTooLong,
    UnknownLanguage,
    UnsupportedPair,
)
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult
from nllbd.languages import resolve
from nllbd.metrics import Metrics
from nllbd.sched.scheduler import Scheduler
from nllbd.sched.sequence import Priority
from nllbd.text.detect import Detector
from nllbd.text.tokenizer import Tokenizer
from nllbd.translator import Translator

MakeTranslator = Callable[..., Awaitable[Translator]]
LINES = ["The first line is here.", "A second one follows.", "And then a third."]


@pytest.fixture
async def make_translator(
    demo_checkpoint: Checkpoint, make_tokenizer: Callable[[], Any], make_detector: Callable[[], Any]
) -> AsyncIterator[MakeTranslator]:
    engines: list[ThreadEngine] = []
    translators: list[Translator] = []

    async def make(
        runner: str = "fake", checkpoint: Checkpoint = demo_checkpoint, factory: Any = None, **options: Any
    ) -> Translator:
        engine = ThreadEngine(EngineConfig(str(checkpoint.path), runner=runner), factory)
        engines.append(engine)
        await engine.start()
        await engine.wait_ready()
        translator = Translator(
            engine=engine,
            tokenizer=make_tokenizer(),
            detector=make_detector(),
            checkpoint=checkpoint,
            settings=Settings(**options),
            metrics=Metrics(engine, "demo"),
        )
        translators.append(translator)
        return translator

    yield make
    for translator in translators:
        translator.close()
    for engine in engines:
        await engine.stop()


@pytest.fixture
async def translator(make_translator: MakeTranslator) -> Translator:
    return await make_translator()


def job(*texts: str, **changes: Any) -> TranslationJob:
    given = {"source_lang": "eng_Latn", "target_lang": "fra_Latn", **changes}
    return TranslationJob(texts=texts, is_list=len(texts) > 1, **given)


def count(translator: Translator, spec: m.MetricSpec, **labels: str) -> float:
    return translator._metrics.value(spec, **labels)


async def test_texts_come_back_in_order(translator: Translator) -> None:
    result = await translator.translate(job(*LINES))
    assert [item.text for item in result.translations] == LINES
    assert result.target_lang == "fra_Latn"
    assert result.usage.segments == 3
    assert result.usage.characters == sum(map(len, LINES))
    assert result.usage.source_tokens == sum(len(line) + 2 for line in LINES)


async def test_any_name_of_a_language_will_do(translator: Translator) -> None:
    result = await translator.translate(job("Hello there.", source_lang="English", target_lang="fr"))
    assert (result.translations[0].source_lang, result.target_lang) == ("eng_Latn", "fra_Latn")


async def test_unknown_languages_name_their_field(translator: Translator) -> None:
    for field in ("source_lang", "target_lang"):
        with pytest.raises(UnknownLanguage) as error:
            await translator.translate(job("Hello", **{field: "klingon"}))
        assert error.value.field == field


SOME_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=120)
PROSE = st.lists(st.sampled_from([*LINES, "\n", "\r\n", " ", "\t", "你好。", "مرحبا!", "🙂", "\u200b", "12:30", "<b>"]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.one_of(SOME_TEXT, PROSE.map("".join)), st.sampled_from(["fra_Latn", "deu_Latn", "arb_Arab"]))
def test_identity(make_tokenizer: Any, make_detector: Any, demo_checkpoint: Checkpoint, text: str, target: str) -> None:
    """With a translator that echoes, whatever comes in goes out, and a stream says the same piece by piece."""

    async def drive() -> tuple[TranslationResult, list[SegmentEvent]]:
        engine = ThreadEngine(EngineConfig(str(demo_checkpoint.path), runner="fake"))
        await engine.start()
        await engine.wait_ready()
        translator = Translator(
            engine=engine,
            tokenizer=make_tokenizer(),
            detector=make_detector(),
            checkpoint=demo_checkpoint,
            settings=Settings(),
            metrics=Metrics(engine, "demo"),
        )
        try:
            result = await translator.translate(job(text, target_lang=target))
            streamed = [item async for item in translator.stream(job(text, target_lang=target))]
        finally:
            await engine.stop()
            translator.close()
        return result, [item for item in streamed if isinstance(item, SegmentEvent)]

    result, events = asyncio.run(drive())
    assert result.translations[0].text == text
    assert "".join(event.text for event in events) == text
    assert [event.segment_index for event in events] == list(range(len(events)))


async def test_a_hundred_thousand_characters_on_one_line(translator: Translator) -> None:
    text = ("Every sentence of this long text is different, number %d of them. " * 1600 % tuple(range(1600)))[:100_000]
    result = await translator.translate(job(text))
    assert result.translations[0].text == text
    assert result.usage.segments > 1000


async def test_blank_items_come_back_unchanged(translator: Translator) -> None:
    texts = ("", "  \n", "Hello there.", "\t")
    result = await translator.translate(job(*texts))
    assert tuple(item.text for item in result.translations) == texts
    assert result.usage.segments == 1


async def test_same_language_is_returned_with_a_warning(translator: Translator) -> None:
    result = await translator.translate(job("Bonjour à tous.", source_lang="fr", num_alternatives=2))
    (item,) = result.translations
    assert (item.text, item.warnings) == ("Bonjour à tous.", ("same_language",))
    assert item.alternatives == ("Bonjour à tous.",) * 2
    assert count(translator, m.SEGMENTS, result="translated") == 0


async def test_what_is_no_language_passes_through(translator: Translator) -> None:
    result = await translator.translate(job("12:30", "https://example.com/a?b=c", "🙂🙂"))
    assert [item.text for item in result.translations] == ["12:30", "https://example.com/a?b=c", "🙂🙂"]
    assert result.usage.segments == 0
    assert count(translator, m.SEGMENTS, result="passed_through") == 3


async def test_detection_is_per_text(translator: Translator) -> None:
    result = await translator.translate(job("Hello there.", "Bonjour à tous.", "", source_lang=None))
    assert [(item.source_lang, item.detected_confidence) for item in result.translations] == [
        ("eng_Latn", 0.9),
        ("fra_Latn", 0.9),
        (None, None),
    ]
    assert result.translations[1].warnings == ("same_language",)


@pytest.mark.parametrize(
    ("text", "form"), [("12:30", "text"), ("A4, 10px; a@b.org 🙂", "text"), ("<p title='Hello'>1 &lt; 2</p>", "html")]
)
async def test_what_is_no_language_needs_no_detection(translator: Translator, text: str, form: Any) -> None:
    result = await translator.translate(job("Hello there.", text, source_lang=None, format=form))
    assert [(item.text, item.source_lang) for item in result.translations] == [
        ("Hello there.", "eng_Latn"),
        (text, None),
    ]
    assert result.usage.segments == 1


def test_a_detected_language_that_the_model_lacks_is_named() -> None:
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    planner = Planner(tokenizer, Detector(tokenizer.languages), 100)
    texts = job("Where is the station, my friend?", "Это предложение на русском языке.", source_lang=None)
    with pytest.raises(UnsupportedPair, match="Russian") as error:
        planner.plan(texts, 1, None, resolve("fr"))
    assert error.value.field == "text[1]"
    with pytest.raises(LanguageNotDetected):
        planner.plan(job("OK", source_lang=None), 0, None, resolve("fr"))


async def test_an_undetected_text_is_named(translator: Translator) -> None:
    with pytest.raises(LanguageNotDetected) as error:
        await translator.translate(job("Hello there.", "Lorem ipsum.", source_lang=None))
    assert error.value.field == "text[1]"


async def test_alternatives_join_the_kth_best_of_every_segment(translator: Translator) -> None:
    result = await translator.translate(job("One sentence. And another.", num_alternatives=3))
    assert result.translations[0].alternatives == ("One sentence. And another.",) * 3


async def test_hitting_max_length_is_said(translator: Translator) -> None:
    (item,) = (await translator.translate(job("This sentence is much too long.", max_length=8))).translations
    assert "truncated" in item.warnings
    assert item.text == "This s"


async def test_a_long_sentence_is_split_not_cut(translator: Translator) -> None:
    text = "word " * 4000
    (item,) = (await translator.translate(job(text))).translations
    assert item.text == text
    assert "truncated" not in item.warnings


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("<p>Hello <b>big</b> world</p>", None),
        ("<p>Tom &amp; Jerry &lt;3</p>", None),
        ("<script>if (a < b) go();</script><p>Hello.</p>", None),
        ("<!-- a comment --><br/>Hello there.", None),
        ("a &copy; b and more", "a © b and more"),
        ("5 < 6 is true", "5 &lt; 6 is true"),
        ("<p title='Hello'>", None),
        ("<b>Hello.</b> <i>Again.</i>", None),
    ],
)
async def test_html(translator: Translator, text: str, translated: str | None) -> None:
    result = await translator.translate(job(text, format="html"))
    assert result.translations[0].text == (translated or text)


# Single flight, cancellation, deadlines


async def test_identical_requests_share_the_work(make_translator: MakeTranslator) -> None:
    translator = await make_translator("fake:step_ms=2")
    results = await asyncio.gather(*(translator.translate(job(LINES[0])) for _ in range(5)))
    assert {result.translations[0].text for result in results} == {LINES[0]}
    assert count(translator, m.SEQUENCES, result="submitted") == 1
    assert count(translator, m.SEQUENCES, result="joined") == 4
    assert len(translator.inflight) == 0


async def test_a_repeated_line_of_one_request_is_translated_once(translator: Translator) -> None:
    result = await translator.translate(job("\n".join([LINES[0]] * 50)))
    assert result.translations[0].text == "\n".join([LINES[0]] * 50)
    assert result.usage.segments == 50
    assert count(translator, m.SEGMENTS, result="translated") == 1
    assert count(translator, m.SEGMENTS, result="repeated") == 49


async def test_one_who_leaves_does_not_disturb_the_other(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    translator = await make_translator("fake:step_ms=5")
    leaver, stayer = (asyncio.create_task(translator.translate(job(LINES[0]))) for _ in range(2))
    await eventually(lambda: translator._engine.stats.num_running > 0)
    leaver.cancel()
    assert (await stayer).translations[0].text == LINES[0]


async def test_cancelling_aborts_everything(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    translator = await make_translator("fake:step_ms=5")
    task = asyncio.create_task(translator.translate(job(*LINES)))
    await eventually(lambda: translator._engine.stats.num_running == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: translator._engine.stats.num_running == 0)
    assert len(translator.inflight) == 0
    assert translator.admission.num_tokens == 0


async def test_the_deadline_ends_a_request(make_translator: MakeTranslator) -> None:
    translator = await make_translator("fake:step_ms=50")
    with pytest.raises(DeadlineExceeded, match=r"0 of 1 segments"):
        await translator.translate(job("A sentence with many letters in it.", timeout_s=0.2))
    assert translator.admission.num_tokens == 0


async def test_the_setting_caps_the_deadline(make_translator: MakeTranslator) -> None:
    translator = await make_translator("fake:step_ms=50", request_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await translator.translate(job("A sentence with many letters in it.", timeout_s=3600))
    assert time.monotonic() - began < 5


async def test_a_failing_segment_fails_its_request_alone(make_translator: MakeTranslator) -> None:
    translator = await make_translator(f"fake:fail_on={ord('#') + 10}")
    good = asyncio.create_task(translator.translate(job(LINES[0])))
    with pytest.raises(InternalError) as error:
        await translator.translate(job("Fine so far.", "This one # fails."))
    assert error.value.field == "text[1]"
    assert "#" not in error.value.message
    assert (await good).translations[0].text == LINES[0]


async def test_a_stopped_engine_is_not_ready(translator: Translator) -> None:
    task = asyncio.create_task(translator.translate(job(LINES[0])))
    await asyncio.sleep(0)
    await translator._engine.stop()
    with pytest.raises((NotReady, InternalError)):
        await task


async def test_after_a_storm_nothing_is_left(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Random arrivals, joins, deadlines and departures over a KV pool that makes the scheduler preempt."""
    built: list[Engine] = []

    def build(config: EngineConfig) -> Engine:
        runner = FakeRunner(FakeScript(step_ms=0.2), num_blocks=30, block_size=4)
        scheduler = Scheduler(
            num_blocks=30,
            block_size=4,
            max_num_lanes=24,
            max_encode_tokens=64,
            max_num_beams=config.max_num_beams,
            max_waiting_segments=config.max_waiting_segments,
            max_waiting_tokens=config.max_waiting_tokens,
        )
        info = EngineInfo("fake", "none", 30, 4, 24, 64, 1, 0.0, 0)
        built.append(Engine(runner, scheduler, info))
        return built[0]

    translator = await make_translator(factory=build)
    chance = random.Random(7)
    sentences = [f"{start} {number} times." for start in ("Short one", "A longer one") for number in range(20)]
    texts = [" ".join(chance.choices(sentences, k=4)) for _ in range(12)]

    async def client(number: int) -> str:
        await asyncio.sleep(chance.random() * 0.3)
        asked = job(
            chance.choice(texts),
            num_beams=chance.choice([1, 2]),
            max_length=chance.choice([30, 40]),
            timeout_s=chance.choice([0.02, 20.0]),
            priority=chance.choice(list(Priority)),
            client=str(number % 3),
            request_id=str(number),
        )
        try:
            result = await asyncio.wait_for(translator.translate(asked), chance.choice([0.05, 30.0]))
        except (NllbdError, TimeoutError) as error:
            return type(error).__name__
        assert result.translations[0].text == asked.texts[0]
        return "ok"

    ends = await asyncio.gather(*(client(number) for number in range(300)))
    assert ends.count("ok") > 30
    assert set(ends) <= {"ok", "DeadlineExceeded", "TimeoutError", "Overloaded"}
    await eventually(lambda: not built[0].has_work)
    built[0].check_integrity()
    assert built[0].stats.used_blocks == 0
    assert built[0].stats.preemptions > 0
    assert len(translator.inflight) == 0
    assert (translator.admission.num_segments, translator.admission.num_tokens) == (0, 0)


async def test_a_retry_that_does_not_fit_leaves_the_first_answer(
    make_translator: MakeTranslator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: EngineConfig) -> Engine:
        num_blocks = 140  # 4 beams of 512 positions, and not 8
        info = EngineInfo("fake", "none", num_blocks, 16, 64, 512, 1, 0.0, 0)
        return Engine(FakeRunner(FakeScript(), num_blocks), Scheduler(num_blocks, 16, 64, 512), info)

    monkeypatch.setattr("nllbd.segments.guard.check", lambda *_: ["repetition"])
    translator = await make_translator(factory=build)
    result = await translator.translate(job(LINES[0]))
    assert result.translations[0].text == LINES[0]
    assert result.translations[0].warnings == ("repetition",)
    assert count(translator, m.RETRIES) == 1


# Admission and settings


async def test_more_than_memory_holds_is_refused_whole(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    translator = await make_translator("fake:step_ms=20", max_waiting_tokens=60)
    first = asyncio.create_task(translator.translate(job("A sentence of some forty characters here.")))
    await eventually(lambda: translator.admission.num_tokens > 0)
    with pytest.raises(Overloaded) as refused:
        await translator.translate(job("Another sentence of forty characters."))
    assert refused.value.retry_after_s
    with pytest.raises(TextTooLong):
        await translator.translate(job("This can never fit. Nor this, nor that. Whatever comes between. No."))
    first.cancel()


async def test_a_queue_longer_than_the_deadline_is_refused(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    translator = await make_translator("fake:step_ms=20")
    translator.admission.meter.rate = 10.0  # lane tokens a second, as if measured
    first = asyncio.create_task(translator.translate(job(LINES[0], num_beams=1, timeout_s=50)))
    await eventually(lambda: translator.admission.num_tokens > 0)
    with pytest.raises(Overloaded) as refused:
        await translator.translate(job(LINES[1], num_beams=1, timeout_s=3))
    assert refused.value.retry_after_s == 3
    first.cancel()


async def test_a_low_default_max_length_splits_and_never_cuts(
    make_translator: MakeTranslator, demo_checkpoint: Checkpoint
) -> None:
    modest = replace(demo_checkpoint, generation=replace(demo_checkpoint.generation, max_length=20))
    translator = await make_translator(checkpoint=modest)
    (item,) = (await translator.translate(job("A sentence that is longer than any of these limits."))).translations
    assert item.text == "A sentence that is longer than any of these limits."
    assert item.warnings == ()


async def test_alternatives_beyond_beams_are_refused(translator: Translator) -> None:
    with pytest.raises(InvalidValue) as error:
        await translator.translate(job("Hello.", num_beams=2, num_alternatives=3))
    assert error.value.field == "alternatives"


@pytest.mark.parametrize(("second", "expected"), [([], ()), (["repetition", "unk"], ("repetition",))])
async def test_a_guard_s_advice_is_followed_once_and_only_for_the_better(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, second: list[str], expected: tuple[str, ...]
) -> None:
    findings = [["repetition"], second]
    monkeypatch.setattr("nllbd.segments.guard.check", lambda *_: findings.pop(0))
    (item,) = (await translator.translate(job("Hello there.", num_beams=2))).translations
    assert item.warnings == expected
    assert not findings
    assert count(translator, m.RETRIES) == 1
    assert count(translator, m.GUARD, kind="repetition") == len(expected)


# Streaming


async def test_events_are_in_order_and_end_with_the_result(make_translator: MakeTranslator) -> None:
    translator = await make_translator("fake:step_ms=1")
    text = "A rather long first sentence, to be finished last. Short. \n\n12:30\nThe end."
    items = [item async for item in translator.stream(job(text, "Other."))]
    events = [item for item in items[:-1] if isinstance(item, SegmentEvent)]
    assert isinstance(items[-1], TranslationResult)
    assert len(events) == len(items) - 1
    for index, whole in enumerate((text, "Other.")):
        mine = [event for event in events if event.text_index == index]
        assert "".join(event.text for event in mine) == whole == items[-1].translations[index].text
        assert [event.segment_index for event in mine] == list(range(len(mine)))
        assert all(whole[slice(*event.source_span)].strip() for event in mine)


async def test_errors_of_a_stream_come_before_its_first_event(translator: Translator) -> None:
    with pytest.raises(UnknownLanguage):
        await anext(translator.stream(job("Hello.", target_lang="klingon")))


async def test_closing_a_stream_aborts_the_rest(
    make_translator: MakeTranslator, eventually: Callable[..., Awaitable[None]]
) -> None:
    translator = await make_translator("fake:step_ms=5")
    events = translator.stream(job("Hi you.\n" + LINES[0] * 3))
    assert isinstance(await anext(events), SegmentEvent)
    await events.aclose()
    await eventually(lambda: translator._engine.stats.num_running == 0)
    assert translator.admission.num_segments == 0


async def test_bulk_is_sent_as_bulk(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    submit = translator._engine.submit
    monkeypatch.setattr(translator._engine, "submit", lambda requests: submit(sent.extend(requests) or requests))
    await translator.translate(job("Hello.", priority=Priority.BULK, client="me", request_id="r1"))
    (request,) = sent
    assert (request.priority, request.client, request.request_id) == (Priority.BULK, "me", "r1")
