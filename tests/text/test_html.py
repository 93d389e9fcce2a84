"""HTML runs: lossless, forgiving, linear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.text import html

WORDS = ["<", ">", "<p>", "</p>", "<br/>", "<!--", "-->", "<script>", "</script>", "&amp;", "&", '<a href="x">', "text"]
ODDITIES = [" ", "\n", "İ", "<SCRIPT>", "<pre", "'", '"', "<3", "</"]
MARKUP = st.lists(st.sampled_from([*WORDS, *ODDITIES]), max_size=30).map("".join)


@given(st.one_of(st.text(), MARKUP))
def test_runs_concatenate_to_the_source(source: str) -> None:
    runs = html.parse(source)
    assert "".join(run.raw for run in runs) == source
    position = 0
    for run in runs:
        assert run.start == position
        assert run.raw
        position += len(run.raw)


@given(st.text())
def test_escaped_text_is_one_run_that_reads_the_same(text: str) -> None:
    runs = html.parse(html.escape(text))
    assert not any(run.is_markup for run in runs)
    assert "".join(run.text for run in runs) == text


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("<p>Hello <b>big</b> world</p>", ["Hello ", "big", " world"]),
        ("Tom &amp; Jerry", ["Tom & Jerry"]),
        ("<script>var a = '<b>';</script>after", ["after"]),
        ("<SCRIPT>x</Script>after", ["after"]),
        ("<script>never closed", ["never closed"]),
        ("<style>p {}</style><pre>code</pre><code>x</code>", []),
        ("<!-- <p>not</p> -->yes", ["yes"]),
        ("<!-- never closed", ["<!-- never closed"]),
        ("1 < 2 > 0", ["1 < 2 > 0"]),
        ("I <3 you", ["I <3 you"]),
        ("<!DOCTYPE html><br/>x", ["x"]),
        ("İ<script>a</script>b", ["İ", "b"]),
    ],
)
def test_what_is_text(source: str, texts: list[str]) -> None:
    assert [run.text for run in html.parse(source) if not run.is_markup] == texts


def test_visible_text_is_for_detection() -> None:
    assert html.visible_text("<p>Hello</p><script>x</script><p>there</p>") == "Hello there"


@pytest.mark.parametrize("unit", ["<!--", "<script>", "<a ", "<", "<a '", "</", "<script><style>", "<a>"])
def test_time_grows_linearly(unit: str) -> None:
    began = time.perf_counter()
    html.parse(unit * (400_000 // len(unit)))
    assert time.perf_counter() - began < 10  # quadratic would be minutes
