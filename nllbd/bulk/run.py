"""One run over a file: groups of records, a few under way at once, written in order, committed one by one.

What may pass (overload, a daemon that restarts, limits on rate) is tried again for `PATIENCE_S`; a record that cannot
be translated (its language is not told, it is too long) stands untranslated and is reported. So is one on which the
engine fails while it goes on translating others; if it fails on record after record, the run ends, to be continued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from nllbd.bulk.formats import Format, Record
from nllbd.bulk.journal import Journal, Progress
from nllbd.errors import NllbdError

GROUP_RECORDS = 32
GROUP_CHARACTERS = 20_000
MAX_GROUPS = 8
PATIENCE_S = 600.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
_PASSING = frozenset({"overloaded", "not_ready", "draining", "rate_limited", "deadline_exceeded", "internal"})
#: Failures that one record of a group may be to blame for, or not: tried again in halves.
_DOUBTFUL = frozenset({"deadline_exceeded", "internal", "invalid_json", "invalid_value"})
#: How often the engine may fail on a record alone, and on how many in a row before it is not for the records' sake.
_MAX_TRIES = 3
_MAX_IN_A_ROW = 8
_OF_A_RECORD = frozenset(
    {"language_not_detected", "unsupported_pair", "text_too_long", "empty_text", "too_many_texts", "body_too_large"}
)

Group = list[Record]
Failure = tuple[Record, NllbdError]
Translate = Callable[[list[str]], Awaitable[list[str]]]


class Listener(Protocol):
    """Told of the run."""

    def advanced(self, progress: Progress) -> None: ...

    def failed(self, record: Record, error: NllbdError) -> None: ...


@dataclass(frozen=True, slots=True)
class _Done:
    output: list[tuple[Record, list[str]]]
    failures: list[Failure]


async def run(
    source: BinaryIO,
    shape: Format,
    journal: Journal,
    translate: Translate,
    listener: Listener,
    max_groups: int = MAX_GROUPS,
) -> Progress:
    """Translate what an earlier run left, to the end, `max_groups` groups of records at once.

    Raises NllbdError; what is done until then is kept.
    """
    offset, head = shape.begin(source)
    progress = journal.resume()
    if progress is None:
        progress = Progress(offset, journal.write(head))
        journal.commit(progress)
    source.seek(progress.offset)
    groups = _groups(shape.read(source, progress.records + 1))
    async for done in _in_order(groups, _Translator(translate), max_groups):
        for record, error in done.failures:
            listener.failed(record, error)
        failed_length = journal.write_failures({record.number: error for record, error in done.failures})
        length = journal.write(b"".join(shape.write(record, texts) for record, texts in done.output))
        last = done.output[-1][0]
        progress = Progress(last.end, length, last.number, progress.failed + len(done.failures), failed_length)
        await asyncio.to_thread(journal.commit, progress)
        listener.advanced(progress)
    journal.finish()
    return progress


def _groups(records: Iterator[Record]) -> Iterator[Group]:
    group: Group = []
    characters = 0
    for record in records:
        size = sum(map(len, record.texts))
        if group and (len(group) == GROUP_RECORDS or characters + size > GROUP_CHARACTERS):
            yield group
            group, characters = [], 0
        group.append(record)
        characters += size
    if group:
        yield group


async def _in_order(groups: Iterator[Group], translator: _Translator, max_groups: int) -> AsyncIterator[_Done]:
    """The groups' translations as they stand in the file. What precedes a record that cannot be read is done first."""
    tasks: deque[asyncio.Task[_Done]] = deque()
    broken: NllbdError | None = None
    ended = False
    try:
        while tasks or not ended:
            while not ended and len(tasks) < max_groups:
                try:
                    group = next(groups, None)
                except NllbdError as error:
                    group, broken = None, error
                ended = group is None
                if group is not None:
                    tasks.append(asyncio.create_task(translator.translate(group)))
            if tasks:
                yield await tasks[0]
                tasks.popleft()
        if broken is not None:
            raise broken
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Translator:
    """Translates groups, and knows a record that cannot be translated from an engine that translates nothing."""

    def __init__(self, translate: Translate) -> None:
        self._ask = translate
        self._failed_in_a_row = 0

    async def translate(self, group: Group) -> _Done:
        """A group; where one of its records spoils it, or all are too much at once, its halves."""
        texts = [text for record in group for text in record.texts]
        try:
            found = iter(await self._patiently(texts, is_alone=len(group) == 1) if texts else [])
            return _Done([(record, [next(found) for _ in record.texts]) for record in group], [])
        except NllbdError as error:
            if error.code not in _OF_A_RECORD | _DOUBTFUL:
                raise
            if len(group) == 1:
                self._blame(error)
                return _Done([(group[0], list(group[0].texts))], [(group[0], error)])
        middle = len(group) // 2
        parts = [await self.translate(half) for half in (group[:middle], group[middle:])]
        return _Done([it for part in parts for it in part.output], [it for part in parts for it in part.failures])

    async def _patiently(self, texts: list[str], *, is_alone: bool) -> list[str]:
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        num_tries = 0
        while True:
            try:
                found = await self._ask(texts)
            except NllbdError as error:
                wait_s = max(pause_s, error.retry_after_s or 0.0)
                num_tries += error.code == "internal"
                is_divisible = error.code in _DOUBTFUL and not is_alone
                is_over = num_tries >= _MAX_TRIES or loop.time() + wait_s > gives_up
                if error.code not in _PASSING or is_divisible or is_over:
                    raise
            else:
                self._failed_in_a_row = 0
                return found
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _blame(self, error: NllbdError) -> None:
        """Raises the error if it is the engine's: nothing has worked since some other records failed."""
        if error.code in _DOUBTFUL:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= _MAX_IN_A_ROW:
                raise error
