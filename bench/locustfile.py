"""Users of a translation server, for locust: people who chat, web pages, documents, and pollers.

    python -m locust -f bench/locustfile.py --headless --users 20 --spawn-rate 5 --run-time 60s --host http://127.0.0.1:8000

Set NLLBD_API_KEY where the server wants a key. What a user sends is made of held-out sentences and differs from request
to request. An answer without a translation counts as a failure, and so does one that is only late: locust reports the
percentiles, `bench/online.py` the SLO.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from locust import HttpUser, between, constant_pacing, task

from bench.corpus import COLUMNS, KINDS, LANGUAGES, rows

ROWS = rows()
PAIRS = list(permutations(LANGUAGES, 2))
NUM_STRINGS = 20  # of a web page


def sentences(language: str, count: int) -> list[str]:
    """Random held-out sentences of a language."""
    return [row[COLUMNS.index(language)] for row in random.sample(ROWS, count)]


class TranslationUser(HttpUser):
    """What all have in common: the key, and the check of an answer."""

    abstract = True

    def on_start(self) -> None:
        if key := os.environ.get("NLLBD_API_KEY"):
            self.client.headers["X-API-Key"] = key

    def translate(self, name: str, text: str | Sequence[str], source: str, target: str, **more: Any) -> None:
        """Send a request; `name` is what the statistics call it."""
        body = {"text": text, "source_lang": source, "target_lang": target, **more}
        with self.client.post("/translate", json=body, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text[:200]}")
                return
            expected = 1 if isinstance(text, str) else len(text)
            if sum(bool(item["text"]) for item in response.json()["translations"]) != expected:
                response.failure("a translation is missing or empty")
            else:
                response.success()


class ChatUser(TranslationUser):
    """Sends a short sentence, reads the answer, writes the next one; stays with a language pair."""

    weight = 10
    wait_time = between(1, 6)

    def on_start(self) -> None:
        super().on_start()
        self.pair = random.choice(PAIRS)

    @task
    def message(self) -> None:
        source, target = self.pair
        self.translate("chat message", min(sentences(source, 3), key=len), source, target)


class WebPageUser(TranslationUser):
    """A browser extension: a page's strings in one request, then its reader reads."""

    weight = 4
    wait_time = between(5, 20)

    @task
    def page(self) -> None:
        source, target = random.choice(PAIRS)
        self.translate("web page", sentences(source, NUM_STRINGS), source, target)


class DocumentUser(TranslationUser):
    """Somebody who has a whole text translated, and can wait."""

    weight = 1
    wait_time = between(20, 60)

    @task
    def document(self) -> None:
        source, target = random.choice(PAIRS)
        text = " ".join(sentences(source, random.randint(*KINDS["document"])))[:4500]
        self.translate("document", text, source, target, priority="bulk")


class Poller(TranslationUser):
    """Programs that ask for the state, the languages, and what language something is in."""

    weight = 2
    wait_time = constant_pacing(5)

    @task(3)
    def health(self) -> None:
        self.client.get("/health")

    @task(2)
    def languages(self) -> None:
        self.client.get("/languages")

    @task(5)
    def detect(self) -> None:
        language = random.choice(LANGUAGES)
        self.client.post("/detect", json={"text": " ".join(sentences(language, 2))})
