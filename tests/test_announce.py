"""The ready line: a command that a shell takes as it is, and fields that a log takes."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from nllbd.announce import Announcement

DEMO = Announcement("http://127.0.0.1:8000", "demo", "cpu", "int8", ("eng_Latn", "fra_Latn", "deu_Latn"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/translate"),
        ("http://0.0.0.0:80", "http://127.0.0.1:80/translate"),
        ("http://[::]:80", "http://[::1]:80/translate"),
    ],
)
def test_curl_goes_where_the_daemon_is(url: str, expected: str) -> None:
    words = shlex.split(replace(DEMO, url=url).curl)
    assert words[:3] == ["curl", "-s", expected]
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"text": "Good morning.", "source_lang": "eng_Latn", "target_lang": "fra_Latn"}


def test_curl_through_a_unix_socket_and_with_a_key() -> None:
    words = shlex.split(replace(DEMO, url="unix:/run/my nllbd/s", needs_key=True).curl)
    assert words[2:5] == ["--unix-socket", "/run/my nllbd/s", "http://localhost/translate"]
    assert "Authorization: Bearer $API_KEY" in words


def test_a_pair_that_the_model_knows() -> None:
    curl = replace(DEMO, languages=("zho_Hans", "jpn_Jpan")).curl
    assert '"source_lang": "zho_Hans", "target_lang": "jpn_Jpan"' in curl


def test_names_languages_only_if_they_are_few() -> None:
    assert "3 languages: eng_Latn, fra_Latn, deu_Latn" in DEMO.for_people()
    many = replace(DEMO, languages=tuple(f"x{n:02}_Latn" for n in range(202)))
    assert "202 languages\n" in many.for_people()


def test_the_log_line_is_plain_data() -> None:
    assert json.loads(json.dumps(DEMO.for_machines()))["languages"] == 3
