"""The polite users of `python -m bench.held_load`: they wait for their answers and write down what they got.

locust runs it in a process of its own; see world.py for the environment. Every request names its deadline.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task

from bench.held_load import texts
from bench.held_load.outcomes import Recorder, Sending

RECORDER = Recorder(Path(os.environ["HELD_LOAD_OUTCOMES"]), "polite")
HEADERS = {"X-API-Key": os.environ["HELD_LOAD_KEY"]}
ECHOES = os.environ["HELD_LOAD_ECHOES"] == "1"  # a model does not give every number back as it was
SLACK_S = 30.0  # beyond its deadline a request is given up


@events.quitting.add_listener
def close(**_: Any) -> None:
    RECORDER.close()


class Polite(HttpUser):
    """What all have in common."""

    abstract = True

    def ask(self, kind: str, body: dict[str, Any], own: str, **more: Any) -> None:
        """Send a native request; every text of its answer must hold `own`."""
        sending = RECORDER.begin("polite", kind, body["timeout_s"])
        headers = HEADERS | {"X-Request-Id": sending.id}
        with self.client.post(
            "/translate",
            json={"source_lang": "en", "target_lang": "fr", **body},
            name=kind,
            headers=headers,
            timeout=body["timeout_s"] + SLACK_S,
            catch_response=True,
            **more,
        ) as response:
            write_down(sending, response, lambda: is_own(kind, response.text, own))
            response.success()


def write_down(sending: Sending, response: Any, is_right: Any) -> None:
    """What came of it, for the account."""
    status = response.status_code
    try:
        right = is_right() or not ECHOES if status == 200 else True
    except (ValueError, LookupError):
        right = False
    sending.end(status, is_right=right, has_retry_after="Retry-After" in (response.headers or {}))


def is_own(kind: str, body: str, own: str) -> bool:
    """Whether an answer is that to the question. Raises ValueError or LookupError for what is no answer at all."""
    if kind == "stream":
        return own in body and "event: done" in body
    return all(own in item["text"] for item in json.loads(body)["translations"])


class ChatUser(Polite):
    """Short texts, one after the other; now and then through another door."""

    weight = 6
    wait_time = between(0.5, 2)

    @task(6)
    def message(self) -> None:
        own = texts.number()
        self.ask("message", {"text": texts.text(1, own), "timeout_s": 20}, own)

    @task(2)
    def stream(self) -> None:
        own = texts.number()
        self.ask("stream", {"text": texts.text(3, own), "timeout_s": 30, "stream": True}, own)

    @task(1)
    def libretranslate(self) -> None:
        own = texts.number()
        sending = RECORDER.begin("polite", "libretranslate", 60)
        body = {"q": texts.text(2, own), "source": "en", "target": "fr", "api_key": HEADERS["X-API-Key"]}
        headers = {"X-Request-Id": sending.id}
        with self.client.post("/translate", data=body, headers=headers, timeout=90, catch_response=True) as response:
            write_down(sending, response, lambda: own in response.json()["translatedText"])
            response.success()


class PageUser(Polite):
    """A page's strings in one request."""

    weight = 2
    wait_time = between(3, 8)

    @task
    def page(self) -> None:
        own = texts.number()
        strings = [texts.text(1, f"{own}") + f" Line {index}." for index in range(random.randint(3, 8))]
        self.ask("page", {"text": strings, "timeout_s": 45}, own)


class DocumentUser(Polite):
    """Somebody who can wait."""

    weight = 1
    wait_time = between(8, 20)

    @task
    def document(self) -> None:
        own = texts.number()
        self.ask("document", {"text": texts.text(20, own), "timeout_s": 60, "priority": "bulk"}, own)
