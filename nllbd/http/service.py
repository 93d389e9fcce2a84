"""The one way from every dialect to the translator: whatever is charged, booked or logged of a translation is here.

A dialect's handler parses its request into a job, calls `translate` or `stream`, and renders what comes back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from nllbd.http.context import CONTEXT, EXCHANGE
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult


async def translate(request: web.Request, job: TranslationJob) -> TranslationResult:
    """The answer to a job. Raises what `Translator.translate` raises."""
    result = await request.app[CONTEXT].translator.translate(job)
    request[EXCHANGE].usage = result.usage
    return result


async def stream(request: web.Request, job: TranslationJob) -> AsyncGenerator[SegmentEvent | TranslationResult, None]:
    """A job's segments as they become final, then its result. Raises what `Translator.stream` raises."""
    async with aclosing(request.app[CONTEXT].translator.stream(job)) as events:
        async for event in events:
            if isinstance(event, TranslationResult):
                request[EXCHANGE].usage = event.usage
            yield event
