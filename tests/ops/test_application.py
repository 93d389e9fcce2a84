"""What the guide's Python would do, shown with the libraries of today; no host is needed."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
import time

import pytest
import transformers
from prometheus_client import Histogram

from nllbd import metrics
from nllbd.cache.key import Recipe
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.languages import Languages
from nllbd.metrics import Metrics
from nllbd.text import segment
from nllbd.text.tokenizer import Tokenizer


def test_lang_code_to_id_is_gone() -> None:
    assert not hasattr(transformers.NllbTokenizer, "lang_code_to_id")
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    assert isinstance(tokenizer.language_id("fra_Latn"), int)


def test_truncation_drops_what_is_too_long() -> None:
    """`truncation=True, max_length=512`: what comes after is not translated, and nobody is told."""
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    text = "The train leaves from here. " * 200
    assert tokenizer.count_tokens(text) > 512
    source = Languages().resolve("eng_Latn")
    pieces = segment.split(text, source, 510, tokenizer.count_tokens)
    assert sum(piece.core.count("train") for piece in pieces) == 200
    assert all(tokenizer.count_tokens(piece.core) <= 510 for piece in pieces)


def test_a_digest_of_keyword_arguments_is_one_of_almost_nothing() -> None:
    """`hashlib.md5(json.dumps(kwargs))`: FastAPI passes the request object, which json cannot write; and what it can
    write says nothing of the model, its precision or the sender."""

    class TranslationRequest:
        text = "Hello"

    with pytest.raises(TypeError):
        hashlib.md5(json.dumps({"request": TranslationRequest()}, sort_keys=True).encode())
    assert {"target", "params", "tenant"} <= {field.name for field in dataclasses.fields(Recipe)}


async def test_a_blocking_client_stops_everybody() -> None:
    """`redis.Redis` in an `async def`: while it waits, nothing else runs."""
    turns: list[float] = []

    async def somebody_else() -> None:
        while True:
            turns.append(time.monotonic())
            await asyncio.sleep(0.001)

    other = asyncio.create_task(somebody_else())
    await asyncio.sleep(0.01)
    began = time.monotonic()
    time.sleep(0.2)  # what a blocking call to a slow server is  # noqa: ASYNC251
    ended = time.monotonic()
    assert not [turn for turn in turns if began < turn < ended]
    other.cancel()


def test_default_buckets_end_before_a_document_does() -> None:
    """`Histogram('translation_duration_seconds')`: above 10 s all is one bucket; the shortest is 5 ms."""
    theirs = [bound for bound in Histogram.DEFAULT_BUCKETS if not math.isinf(bound)]
    assert max(theirs) == 10
    ours = Metrics()
    ours.observe(metrics.TRANSLATION_DURATION, 45.0)
    text = ours.render()[0].decode()
    bounds = [
        float(line.split('le="')[1].split('"')[0])
        for line in text.splitlines()
        if line.startswith("translation_duration_seconds_bucket") and "+Inf" not in line
    ]
    assert max(bounds) >= 60
    assert min(bounds) < 0.005
