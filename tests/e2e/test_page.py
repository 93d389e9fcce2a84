"""The web page in a real browser, where there is one: it introduces the model and translates what a link asks for."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any
from urllib.parse import urlencode

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


def open_page(url: str, **query: str) -> str:
    """The document as it stands when the page has nothing more to do."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [str(BROWSER), *flags, f"{url}/?{urlencode(query)}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def test_a_link_opens_with_its_text_translated(daemon: Any) -> None:
    page = open_page(daemon.url, source="en", target="fr", text="Where is the train station?")
    assert ">Où est la gare ?</output>" in page
    assert ">27 characters<" in page


def test_the_demonstration_is_called_one_and_the_limit_is_named(daemon: Any) -> None:
    page = open_page(daemon.url)
    assert "demonstration model · cpu" in page
    assert '<p id="demo">' in page
    assert "up to 5,000 characters" in page


def test_a_link_that_asks_for_what_is_not_there(daemon: Any) -> None:
    page = open_page(daemon.url, source="tlh", target="<b>", text="<script>alert(1)</script> Good morning.")
    assert '<p id="problem" class="problem" role="alert" hidden=""></p>' in page
    assert "<b>" not in page
    assert "<script>alert" not in page
