"""The order of events, whatever order the segments finish in."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from nllbd.document import Part, TextPlan, Translations, assemble
from nllbd.job import SegmentEvent
from nllbd.languages import BY_CODE
from nllbd.segments import SegmentTranslation
from nllbd.streaming import EventOrder

ENGLISH, FRENCH = BY_CODE["eng_Latn"], BY_CODE["fra_Latn"]
CORES = st.sampled_from(["a", "b", "c", "d", None])
AROUND = st.sampled_from(["", " ", "\n", "<b>"])
PARTS = st.lists(st.tuples(AROUND, CORES, AROUND), max_size=8)


def plan_of(parts: list[tuple[str, str | None, str]]) -> TextPlan:
    made = tuple(
        Part(before, after, None if core is None else ("eng_Latn", core), (i, i + 1))
        for i, (before, core, after) in enumerate(parts)
    )
    return TextPlan("".join(f"{a}{b or ''}{c}" for a, b, c in parts), "text", ENGLISH, FRENCH, parts=made)


@given(st.lists(PARTS, min_size=1, max_size=4), st.randoms())
def test_events_concatenate_to_the_answer(
    texts: list[list[tuple[str, str | None, str]]], chance: random.Random
) -> None:
    plans = [plan_of(parts) for parts in texts]
    keys = list(dict.fromkeys(part.key for plan in plans for part in plan.parts if part.key))
    chance.shuffle(keys)
    done: Translations = {}
    events: list[SegmentEvent] = []
    order = EventOrder(plans, done, events.append)
    for key in keys:
        done[key] = SegmentTranslation((key[1].upper(),), (f"warning_{key[1]}",))
        order.advance(key)
    for index, plan in enumerate(plans):
        mine = [event for event in events if event.text_index == index]
        assert mine
        assert [event.segment_index for event in mine] == list(range(len(mine)))
        assert "".join(event.text for event in mine) == assemble(plan, done, 0).text
        assert len(mine) == max(1, sum(part.key is not None for part in plan.parts))
        assert [event.source_span for event in mine] == sorted(event.source_span for event in mine)


def test_an_event_waits_for_all_before_it_and_for_nothing_else() -> None:
    plan = plan_of([("", "a", " "), ("", "b", " "), ("", "c", "!")])
    done: Translations = {}
    events: list[SegmentEvent] = []
    order = EventOrder([plan], done, events.append)
    seen = []
    for core in ("b", "a", "c"):
        done["eng_Latn", core] = SegmentTranslation((core,))
        order.advance(("eng_Latn", core))
        seen.append([event.text for event in events])
    assert seen == [[], ["a ", "b "], ["a ", "b ", "c!"]]
