"""The cache in Redis: reads together and soon, or not at all; writes later, in the background, dropped when too many.

Nothing here raises because of Redis, and nothing waits longer than `LOOKUP_S`, twice a call's time.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from nllbd import log
from nllbd import metrics as m
from nllbd.cache.entry import Entry, Sealer
from nllbd.metrics import Metrics
from nllbd.pacing import Pacer
from nllbd.redis_client import CALL_TIMEOUT_S, Command, RedisAway, RedisLink, RedisProblem, RedisRefused

LOOKUP_S = 2 * CALL_TIMEOUT_S
PREFIX = b"nllbd:segment:"
_NAMES_A_CALL = 128
_SLICE = 32  # values opened or sealed in one go
_MAX_QUEUED, _MAX_QUEUED_BYTES = 4096, 16 << 20
_BYTES_A_CHARACTER = 4
_MAX_TOLD = 16  # a strange server may have no end of error codes

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry and its Unix time of expiry."""

    entry: Entry
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Write:
    name: bytes
    entry: Entry
    expires_at: float
    num_bytes: int


class RemoteCache:
    """Entries in Redis under MACs, encrypted. One event loop. The link belongs to whoever made it."""

    def __init__(
        self,
        link: RedisLink,
        sealer: Sealer,
        metrics: Metrics,
        pacer: Pacer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._sealer = sealer
        self._metrics = metrics
        self._pacer = pacer or Pacer()
        self._clock = clock
        self._asked: dict[bytes, asyncio.Future[Found | None]] = {}
        self._writes: deque[_Write] = deque()
        self._queued_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    @property
    def is_away(self) -> bool:
        return self._link.is_open

    async def find(self, names: Sequence[bytes]) -> dict[bytes, Found]:
        """What Redis has of `names`. What another request asks for at this moment is not asked for twice."""
        loop = asyncio.get_running_loop()
        theirs = {name: self._asked[name] for name in names if name in self._asked}
        ours = {name: loop.create_future() for name in names if name not in theirs}
        self._asked |= ours
        try:
            await self._ask(ours)
        finally:
            for name, answer in ours.items():
                del self._asked[name]
                if not answer.done():
                    answer.set_result(None)
        answers = {name: answer.result() for name, answer in ours.items()}
        answers |= {name: await asyncio.shield(answer) for name, answer in theirs.items()}
        return {name: found for name, found in answers.items() if found is not None}

    def keep(self, name: bytes, entry: Entry, expires_at: float) -> None:
        """Write it when there is time. Returns at once."""
        num_bytes = _BYTES_A_CHARACTER * sum(map(len, entry.texts))
        is_full = len(self._writes) >= _MAX_QUEUED or self._queued_bytes + num_bytes > _MAX_QUEUED_BYTES
        if self._link.is_open or is_full:
            self._count_writes("dropped", 1)
            return
        self._writes.append(_Write(name, entry, expires_at, num_bytes))
        self._queued_bytes += num_bytes
        if self._writer is None or self._writer.done():
            # A context of its own: it writes for many requests.
            self._writer = asyncio.create_task(self._write_all(), context=contextvars.Context())

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until what is queued was written or dropped."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout_s)

    async def close(self) -> None:
        """Write what can be written in the time of a few calls."""
        await self.flush(4 * CALL_TIMEOUT_S)
        if self._writer is not None:
            self._writer.cancel()

    async def _ask(self, answers: dict[bytes, asyncio.Future[Found | None]]) -> None:
        """Fill in the answers, as many as can be had in time."""
        names = list(answers)
        latest_start = time.monotonic() + LOOKUP_S - CALL_TIMEOUT_S
        for first in range(0, len(names), _NAMES_A_CALL):
            chunk = names[first : first + _NAMES_A_CALL]
            if time.monotonic() > latest_start:
                return
            try:
                values = await self._link.call("MGET", *map(redis_key, chunk))
            except RedisProblem as problem:
                self._tell(problem)
                return
            for pairs in _slices(list(zip(chunk, _checked(values, len(chunk)), strict=True))):
                await self._pacer.run(partial(self._open_all, pairs, answers))

    def _open_all(
        self, pairs: Sequence[tuple[bytes, object]], answers: dict[bytes, asyncio.Future[Found | None]]
    ) -> None:
        now = self._clock()
        for name, value in pairs:
            found = self._open(name, value, now)
            if not answers[name].done():
                answers[name].set_result(found)

    def _open(self, name: bytes, value: object, now: float) -> Found | None:
        if value is None:
            return None
        try:
            entry, expires_at = self._sealer.open(name, value if isinstance(value, bytes) else b"")
        except ValueError:
            self._metrics.add(m.CACHE_DAMAGED)
            return None
        return Found(entry, expires_at) if expires_at > now else None

    async def _write_all(self) -> None:
        while self._writes:
            batch = [self._writes.popleft() for _ in range(min(_SLICE, len(self._writes)))]
            self._queued_bytes -= sum(write.num_bytes for write in batch)
            commands = await self._pacer.run(partial(self._seal_all, batch))
            try:
                replies = await self._link.call_many(commands)
            except RedisAway:
                self._count_writes("dropped", len(batch))
                continue
            refusals = [reply for reply in replies if isinstance(reply, RedisRefused)]
            for refusal in refusals:
                self._tell(refusal)
            self._count_writes("refused", len(refusals))
            self._count_writes("written", len(replies) - len(refusals))

    def _seal_all(self, batch: Sequence[_Write]) -> list[Command]:
        now = self._clock()
        commands: list[Command] = []
        for write in batch:
            left_ms = int((write.expires_at - now) * 1000)
            if left_ms <= 0:
                continue
            try:
                sealed = self._sealer.seal(write.name, write.entry, write.expires_at)
            except UnicodeEncodeError:  # half a surrogate pair, out of a source that had it
                self._count_writes("dropped", 1)
            else:
                commands.append(("SET", redis_key(write.name), sealed, "PX", left_ms))
        return commands

    def _tell(self, problem: RedisProblem) -> None:
        """A line for each kind of refusal: OOM, NOPERM, READONLY, CROSSSLOT, … That it is away its link tells."""
        if isinstance(problem, RedisRefused) and problem.code not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(problem.code)
            logger.warning("Redis refuses what the cache asks of it; doing without", code=problem.code[:40])

    def _count_writes(self, result: str, number: int) -> None:
        if number:
            self._metrics.add(m.CACHE_WRITES, number, result=result)


def redis_key(name: bytes) -> bytes:
    """Where an entry lies in Redis. Readable, so that an operator can tell whose it is."""
    return PREFIX + base64.urlsafe_b64encode(name).rstrip(b"=")


def _checked(values: object, number: int) -> list[object]:
    """A reply to MGET; anything else counts as nothing found."""
    return values if isinstance(values, list) and len(values) == number else [None] * number


def _slices(pairs: Sequence[tuple[bytes, object]]) -> Iterator[Sequence[tuple[bytes, object]]]:
    return (pairs[first : first + _SLICE] for first in range(0, len(pairs), _SLICE))
