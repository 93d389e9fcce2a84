"""The cache in the process: the least recently used goes first, and neither number nor memory passes its bound."""

from __future__ import annotations

import tracemalloc

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nllbd.cache.entry import Entry
from nllbd.cache.memory import MEAN_ITEM_BYTES, MemoryCache

NAMES = st.integers(0, 12).map(lambda number: bytes([number]))
MAX_ITEMS = 5


class AgainstAList(RuleBasedStateMachine):
    """The same as a list that is searched from end to end. Texts are small: memory has a test of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = MemoryCache(MAX_ITEMS)
        self.kept: list[tuple[bytes, Entry, float]] = []  # the oldest first
        self.max_items = MAX_ITEMS
        self.now = 0.0

    @rule(name=NAMES, text=st.text(max_size=3), life=st.floats(0, 5))
    def put(self, name: bytes, text: str, life: float) -> None:
        entry = Entry((text,))
        self.cache.put(name, entry, self.now + life)
        self.kept = [item for item in self.kept if item[0] != name] + [(name, entry, self.now + life)]
        self._shrink()

    @rule(name=NAMES)
    def get(self, name: bytes) -> None:
        found = next((item for item in self.kept if item[0] == name), None)
        if found is not None:
            self.kept.remove(found)
            if found[2] > self.now:
                self.kept.append(found)
            else:
                found = None
        assert self.cache.get(name, self.now) == (found[1] if found else None)

    @rule(max_items=st.integers(0, MAX_ITEMS))
    def resize(self, max_items: int) -> None:
        self.cache.resize(max_items)
        self.max_items = max_items
        self._shrink()

    @rule(step=st.floats(0, 3))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.kept = []

    @invariant()
    def holds_as_many(self) -> None:
        assert len(self.cache) == len(self.kept)
        assert (self.cache.num_bytes == 0) == (not self.kept)

    def _shrink(self) -> None:
        self.kept = self.kept[len(self.kept) - min(self.max_items, len(self.kept)) :]


TestAgainstAList = AgainstAList.TestCase


def test_memory_is_bounded_and_the_count_of_it_is_honest() -> None:
    cache = MemoryCache(1000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            cache.put(number.to_bytes(32, "big"), Entry((f"{number} " + "ж" * 4000,)), 1.0)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 300 < len(cache) < 600, "8 kB each: bytes bind before the number does"
    assert cache.num_bytes <= 1000 * MEAN_ITEM_BYTES
    assert abs(used - cache.num_bytes) < 0.1 * used


def test_small_entries_are_not_undercounted() -> None:
    cache = MemoryCache(5000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            cache.put(number.to_bytes(32, "big"), Entry((f"number {number}",)), float(number))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * used < cache.num_bytes < 1.5 * used


def test_what_could_never_fit_pushes_nothing_out() -> None:
    cache = MemoryCache(2)
    cache.put(b"a", Entry(("a",)), 1.0)
    cache.put(b"b", Entry(("b" * 3 * MEAN_ITEM_BYTES,)), 1.0)
    assert cache.get(b"a", 0.0) == Entry(("a",))
    assert cache.get(b"b", 0.0) is None
