"""The native API's answers to what `shared` hands over: translations, streamed or not, and detections."""

from __future__ import annotations

from aiohttp import web

from nllbd.http import schema, service, stream
from nllbd.http.body import as_object
from nllbd.http.context import CONTEXT, EXCHANGE
from nllbd.http.dialects import native
from nllbd.http.endpoints.sent import Sent, answer
from nllbd.text.detect import Detection


async def translate(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`POST /translate`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    languages = context.tokenizer.languages
    payload = as_object(sent.body)
    parsed = native.parse(payload, languages, context.settings, exchange.principal.id, exchange.request_id)
    if stream.wants_stream(request, parsed.stream):
        return await stream.answer(request, parsed.job)
    result = await service.translate(request, parsed.job)
    return answer(native.render(result, parsed.job, context.checkpoint.name))


async def detect(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`POST /detect`."""
    context = request.app[CONTEXT]
    wanted = schema.parse(as_object(sent.body), schema.DetectRequest)
    texts = native.check_texts(wanted.text, context.settings)
    found = await context.translator.detect_all(texts)
    return answer(schema.DetectResponse(detections=tuple(_detection(item) for item in found)))


def _detection(found: Detection) -> schema.DetectionItem:
    return schema.DetectionItem(
        language=found.language.code if found.language else None,
        confidence=round(found.confidence, 4),
        candidates=tuple(
            schema.Candidate(language=language.code, confidence=round(confidence, 4))
            for language, confidence in found.candidates
        ),
    )
