"""The one way from every dialect to the translator: whatever is charged, booked or logged of a translation is here.

A dialect's handler parses its request into a job, calls `translate` or `stream`, and renders what comes back.

What counts against a quota, in code points of source text: all texts of a request that was answered, cached or not. Of
a stream that ended early (its client left, its deadline passed) the segments that were handed out. Nothing of a request
that failed, was refused, or whose client left before its answer. While a request is under way its characters are held,
so that requests at the same time cannot pass the quota together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext

import msgspec
from aiohttp import web

from nllbd.http.auth import require_authenticated
from nllbd.http.context import CONTEXT, EXCHANGE
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult, Usage, sum_usage
from nllbd.principal import Principal, cache_tenant
from nllbd.store.records import UsageEntry
from nllbd.store.usage import utc_today

#: All anonymous senders together: their addresses have no bound, and no quota.
ANONYMOUS_ACCOUNT = "anonymous"


async def translate(request: web.Request, job: TranslationJob) -> TranslationResult:
    """The answer to a job. Raises QuotaExceeded, and what `Translator.translate` raises."""
    (result,) = await translate_all(request, [job])
    return result


async def translate_all(request: web.Request, jobs: Sequence[TranslationJob]) -> list[TranslationResult]:
    """The answers to a request's jobs, at once: all of them are answered and booked, or none. Raises as `translate`."""
    translator = request.app[CONTEXT].translator
    with _quota(request, jobs):
        if len(jobs) == 1:
            result = await translator.translate(_scoped(request, jobs[0]))
            _book(request, result.usage)
            return [result]
        tasks = [asyncio.ensure_future(translator.translate(_scoped(request, job))) for job in jobs[1:]]
        try:
            first = await translator.translate(_scoped(request, jobs[0]))
            results = [first, *await asyncio.gather(*tasks)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        _book(request, sum_usage(result.usage for result in results))
    return results


async def stream(request: web.Request, job: TranslationJob) -> AsyncGenerator[SegmentEvent | TranslationResult, None]:
    """A job's segments as they become final, then its result. Raises as `translate` does."""
    characters = segments = 0
    is_booked = False
    with _quota(request, [job]):
        try:
            async with aclosing(request.app[CONTEXT].translator.stream(_scoped(request, job))) as events:
                async for event in events:
                    if isinstance(event, TranslationResult):
                        is_booked = True
                        _book(request, event.usage)
                    else:
                        start, end = event.source_span
                        characters, segments = characters + end - start, segments + 1
                    yield event
        finally:
            if segments and not is_booked:
                _book(request, Usage(characters=characters, segments=segments))


def account_of(principal: Principal) -> str:
    """What a sender's usage is booked on."""
    return ANONYMOUS_ACCOUNT if principal.is_anonymous else principal.id


def _quota(request: web.Request, jobs: Sequence[TranslationJob]) -> AbstractContextManager[None]:
    require_authenticated(request)
    principal = request[EXCHANGE].principal
    if principal.monthly_characters is None:
        return nullcontext()
    characters = sum(len(text) for job in jobs for text in job.texts)
    return request.app[CONTEXT].accounts.usage.hold(account_of(principal), characters, principal.monthly_characters)


def _book(request: web.Request, usage: Usage) -> None:
    exchange = request[EXCHANGE]
    exchange.usage = usage
    entry = UsageEntry(
        account=account_of(exchange.principal),
        day=utc_today(),
        characters=usage.characters,
        requests=1,
        segments=usage.segments,
        source_tokens=usage.source_tokens,
        target_tokens=usage.target_tokens,
    )
    request.app[CONTEXT].accounts.usage.book(entry)


def _scoped(request: web.Request, job: TranslationJob) -> TranslationJob:
    """The job, within what its sender may see of the cache, and in no higher class than they may ask for."""
    principal = request[EXCHANGE].principal
    tenant = cache_tenant(principal, request.app[CONTEXT].settings.cache_scope)
    priority = max(job.priority, principal.top_priority)
    if tenant == job.tenant and priority == job.priority:
        return job
    return msgspec.structs.replace(job, tenant=tenant, priority=priority)
