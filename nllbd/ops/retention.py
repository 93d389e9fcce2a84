"""What is older than the settings keep goes: ended sessions, batch ids, audit events, usage. The daemon does the same
once a day; this is for hosts whose daemon does not run, and to see how much went.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from nllbd.accounts import Retention, store_url
from nllbd.config import Settings

_KEEP_SESSIONS = timedelta(days=30)
_KEEP_BATCHES = timedelta(days=30)


def prune(settings: Settings, now: datetime) -> dict[str, int]:
    """Rows that went, by table. Raises StoreUnavailable."""
    retention = Retention(settings.audit_retention_days, settings.usage_retention_days)

    async def work() -> dict[str, int]:
        from nllbd.store.reports import Reports
        from nllbd.store.store import Store

        reports, store = await Reports.open(store_url(settings)), await Store.open(store_url(settings))
        try:
            before = await reports.counts(now)
            await store.tidy(
                batches_before=now - _KEEP_BATCHES,
                sessions_before=now - _KEEP_SESSIONS,
                audit_before=retention.audit_before(now),
                usage_before=retention.usage_before(now),
            )
            after = await reports.counts(now)
        finally:
            await store.close()
            await reports.close()
        return {name: before[name] - after[name] for name in ("sessions", "batches", "audit", "usage")}

    return asyncio.run(work())
