"""One run over a file: groups of records, a few under way at once, written in order, committed one by one.

What may pass (overload, a daemon that restarts, limits on rate) is tried again for `PATIENCE_S`; a record that cannot
be translated (its language is not told, it is too long) stands untranslated and is reported.
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
_TOO_MUCH = "deadline_exceeded"
_OF_A_RECORD = frozenset(
    {"language_not_detected", "unsupported_pair", "text_too_long", "empty_text", "too_many_texts", "body_too_large"}
)

Group = list[Record]
Translate = Callable[[list[str]], Awaitable[list[str]]]


class Listener(Protocol):
    """Told of the run."""

    def advanced(self, progress: Progress) -> None: ...

    def failed(self, record: Record, error: NllbdError) -> None: ...


@dataclass(frozen=True, slots=True)
class _Done:
    output: list[tuple[Record, list[str]]]
    failures: list[tuple[Record, NllbdError]]


async def run(source: BinaryIO, shape: Format, journal: Journal, translate: Translate, listener: Listener) -> Progress:
    """Translate what an earlier run left, to the end. Raises NllbdError; what is done until then is kept."""
    offset, head = shape.begin(source)
    progress = journal.resume()
    if progress is None:
        progress = Progress(offset, journal.write(head))
        journal.commit(progress)
    source.seek(progress.offset)
    groups = _groups(shape.read(source, progress.records + 1))
    async for done in _in_order(groups, translate):
        for record, error in done.failures:
            listener.failed(record, error)
        length = journal.write(b"".join(shape.write(record, texts) for record, texts in done.output))
        last = done.output[-1][0]
        progress = Progress(last.end, length, last.number, progress.failed + len(done.failures))
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


async def _in_order(groups: Iterator[Group], translate: Translate) -> AsyncIterator[_Done]:
    """The groups' translations as they stand in the file. What precedes a record that cannot be read is done first."""
    tasks: deque[asyncio.Task[_Done]] = deque()
    broken: NllbdError | None = None
    ended = False
    try:
        while tasks or not ended:
            while not ended and len(tasks) < MAX_GROUPS:
                try:
                    group = next(groups, None)
                except NllbdError as error:
                    group, broken = None, error
                ended = group is None
                if group is not None:
                    tasks.append(asyncio.create_task(_translate(group, translate)))
            if tasks:
                yield await tasks[0]
                tasks.popleft()
        if broken is not None:
            raise broken
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _translate(group: Group, translate: Translate) -> _Done:
    """A group; where one of its records spoils it, or all are too much at once, its halves."""
    texts = [text for record in group for text in record.texts]
    try:
        found = iter(await _patiently(texts, translate) if texts else [])
        return _Done([(record, [next(found) for _ in record.texts]) for record in group], [])
    except NllbdError as error:
        if error.code not in _OF_A_RECORD and (error.code != _TOO_MUCH or len(group) == 1):
            raise
        if len(group) == 1:
            return _Done([(group[0], list(group[0].texts))], [(group[0], error)])
    middle = len(group) // 2
    parts = [await _translate(half, translate) for half in (group[:middle], group[middle:])]
    return _Done([it for part in parts for it in part.output], [it for part in parts for it in part.failures])


async def _patiently(texts: list[str], translate: Translate) -> list[str]:
    loop = asyncio.get_running_loop()
    gives_up = loop.time() + PATIENCE_S
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await translate(texts)
        except NllbdError as error:
            wait_s = max(pause_s, error.retry_after_s or 0.0)
            is_divisible = error.code == _TOO_MUCH and len(texts) > 1
            if error.code not in _PASSING or is_divisible or loop.time() + wait_s > gives_up:
                raise
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)
