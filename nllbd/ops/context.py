"""What checks look at: the daemon's settings and addresses, the operator's settings and records, the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nllbd.accounts import store_url
from nllbd.config import Settings, state_folder
from nllbd.errors import StoreUnavailable
from nllbd.ops.asking import Server
from nllbd.ops.settings import OpsSettings, State
from nllbd.ops.textfile import read_samples
from nllbd.store.records import AuditEvent, KeyRecord, UsageEntry

if TYPE_CHECKING:
    from nllbd.store.reports import Reports

_T = TypeVar("_T")
#: How far back usage is read: what is usual is told from it.
USUAL_DAYS = 15


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database says, read in one go."""

    keys: list[KeyRecord]
    last_used: dict[str, date]
    usage: list[UsageEntry]
    failed: list[AuditEvent]
    counts: dict[str, int]


@dataclass(frozen=True)
class Context:
    """One run's. `api` and `metrics`: the daemon, with the key for checks."""

    settings: Settings
    ops: OpsSettings
    api: Server
    metrics: Server
    now: datetime

    @property
    def state(self) -> State:
        return State(state_folder() / "ops")

    @cached_property
    def stored(self) -> Stored:
        """Raises StoreUnavailable."""
        return self.ask_store(lambda reports: _stored(reports, self.now))

    def ask_store(self, ask: Callable[[Reports], Awaitable[_T]]) -> _T:
        """Raises StoreUnavailable."""
        from nllbd.store.reports import Reports  # SQLAlchemy: not before it is needed

        url = store_url(self.settings)
        if url.startswith("sqlite") and not Path(url.partition(":///")[2]).exists():
            raise StoreUnavailable(f"{url.partition(':///')[2]}: there is no database yet")

        async def work() -> _T:
            reports = await Reports.open(url)
            try:
                return await ask(reports)
            finally:
                await reports.close()

        return asyncio.run(work())

    @cached_property
    def samples(self) -> dict[str, float]:
        """What scripts left for node_exporter, of nllbd's."""
        found: dict[str, float] = {}
        for file in sorted(Path(self.ops.textfiles).glob("*.prom")):
            found |= {name: value for name, value in read_samples(file).items() if name.startswith("nllbd_")}
        return found


async def _stored(reports: Reports, now: datetime) -> Stored:
    today = now.astimezone(UTC).date()
    return Stored(
        keys=await reports.keys(),
        last_used=await reports.last_used(),
        usage=await reports.usage_between(today - timedelta(days=USUAL_DAYS), today),
        failed=await reports.audit_since(now - timedelta(days=1), action="authentication.failed"),
        counts=await reports.counts(now),
    )
