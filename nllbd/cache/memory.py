"""The cache in the process: least recently used goes first, bounded by number and by memory. One thread; no clock of
its own: times are seconds of any clock.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass

from nllbd.cache.entry import Entry

#: What an item may take on average: `max_items` of that are the bound on memory.
MEAN_ITEM_BYTES = 4096
_OVERHEAD_BYTES = 400  # name, tuples, slot and links, measured with tracemalloc


@dataclass(frozen=True, slots=True)
class _Item:
    entry: Entry
    expires_at: float
    num_bytes: int


class MemoryCache:
    """At most `max_items` entries, and `max_items * MEAN_ITEM_BYTES` bytes of them; 0 keeps nothing."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items: OrderedDict[bytes, _Item] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, name: bytes, now: float) -> Entry | None:
        item = self._items.get(name)
        if item is None:
            return None
        if item.expires_at <= now:
            self._drop(name)
            return None
        self._items.move_to_end(name)
        return item.entry

    def put(self, name: bytes, entry: Entry, expires_at: float) -> None:
        self._drop(name)
        item = _Item(entry, expires_at, _OVERHEAD_BYTES + sum(map(sys.getsizeof, entry.texts)))
        if item.num_bytes > self._max_items * MEAN_ITEM_BYTES:
            return  # it would push out all others, and itself
        self._items[name] = item
        self.num_bytes += item.num_bytes
        self._shrink()

    def resize(self, max_items: int) -> None:
        self._max_items = max_items
        self._shrink()

    def clear(self) -> None:
        self._items.clear()
        self.num_bytes = 0

    def _shrink(self) -> None:
        max_bytes = self._max_items * MEAN_ITEM_BYTES
        while len(self._items) > self._max_items or self.num_bytes > max_bytes:
            _, item = self._items.popitem(last=False)
            self.num_bytes -= item.num_bytes

    def _drop(self, name: bytes) -> None:
        item = self._items.pop(name, None)
        if item is not None:
            self.num_bytes -= item.num_bytes
