"""HTML runs: lossless, forgiving, linear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.text import html

WORDS = ["<", ">", "<p>", "</p>", "<br/>", "<!--", "-->", "<script>", "</script>", "&amp;", "&", '<a href="x">', "text"]
ODDITIES = [
    " ",
    "\n",
    "İ",
    "<SCRIPT>",
    "<pre",
    "'",
    '"',
    "<3",
    "</",
    "<a b=",
    "=",
    "<![CDATA[",
    "]]>",
    "<?",
    "?>",
    "<!",
]
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


NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9:-]{0,5}", fullmatch=True)
SPACES = st.sampled_from(["", " ", "\n\t"])
VALUES = st.text(st.sampled_from("ab<>/=!&-[]' \"\n"), max_size=12)
ATTRIBUTES = st.one_of(
    NAMES,
    st.builds('{}{}={}"{}"'.format, NAMES, SPACES, SPACES, VALUES.map(lambda value: value.replace('"', ""))),
    st.builds("{}{}={}'{}'".format, NAMES, SPACES, SPACES, VALUES.map(lambda value: value.replace("'", ""))),
    st.builds("{}={}".format, NAMES, st.from_regex(r"[a-z0-9][a-z0-9./?&;\"]{0,8}[a-z]", fullmatch=True)),
)
TAGS = st.builds(
    "<{}{}{}>".format,
    NAMES.filter(lambda name: name.lower() not in ("svg", "pre", "kbd", "samp", "code", "math", "style", "script")),
    st.lists(ATTRIBUTES, max_size=3).map(lambda found: "".join(f" {attribute}" for attribute in found)),
    st.sampled_from(["", " ", " /"]),
)
WHOLE = st.one_of(
    TAGS,
    NAMES.map("</{}>".format),
    VALUES.map(lambda value: f"<!--{value.replace('-', '').lstrip('>')}-->"),
    VALUES.map(lambda value: f"<![CDATA[{value.replace(']', '')}]]>"),
    VALUES.map(lambda value: f"<?xml {value}?>"),
    VALUES.map(lambda value: f"<script a='>'>{value}</SCRIPT >"),
    VALUES.map(lambda value: f"<style>{value}</style>"),
    st.sampled_from(
        ["<!DOCTYPE html>", '<!doctype html PUBLIC "-//W3C//DTD XHTML 1.0//EN" "x">', "<![endif]>", "<!-->"]
    ),
)
TEXTS = st.text(st.sampled_from("ab >\"'=&;!-/é"), min_size=1, max_size=8)


@given(st.lists(st.tuples(st.booleans(), WHOLE, TEXTS)))
def test_markup_survives_and_only_markup(parts: list[tuple[bool, str, str]]) -> None:
    pieces = [(markup, tag if markup else text) for markup, tag, text in parts]
    runs = html.parse("".join(raw for _, raw in pieces))
    for is_markup in (True, False):
        wanted = "".join(raw for markup, raw in pieces if markup == is_markup)
        assert "".join(run.raw for run in runs if run.is_markup == is_markup) == wanted


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
        ('<p title="a>b">Hello.</p>', ["Hello."]),
        ('<p title=\'<b>"\' alt = "x>">Hello.</p>', ["Hello."]),
        ('<p title="never closed>Hello.</p>', ["Hello."]),
        ("<p title=it's>Hello.</p>", ["Hello."]),
        ("<p it's>Hello, it's me.</p>", ["Hello, it's me."]),
        ('if a < b and c="d" > e', ['if a < b and c="d" > e']),
        ("<![CDATA[a > b <p>]]>text", ["text"]),
        ("<?php $a->b(); ?>text", ["text"]),
        ("<!-->text<!--->text<!-- - -- > -->", ["text", "text"]),
        ("<script>'</scripts>'</script>text", ["text"]),
        ("<pre-view>text</pre-view>", ["text"]),
        ("İ<script>a</script>b", ["İ", "b"]),
    ],
)
def test_what_is_text(source: str, texts: list[str]) -> None:
    assert [run.text for run in html.parse(source) if not run.is_markup] == texts


def test_visible_text_is_for_detection() -> None:
    assert html.visible_text("<p>Hello</p><script>x</script><p>there</p>") == "Hello there"


QUOTED = [
    "<a b='",
    "<a b='>'",
    "<a b='<a b=\"",
    "<a b=\"x'",
    "<![CDATA[",
    "<?",
    "<!",
    "<!D '",
    "<a b= ",
    "<a =",
    "<svg></svgx",
]


@pytest.mark.parametrize("unit", ["<!--", "<script>", "<a ", "<", "<a '", "</", "<script><style>", "<a>", *QUOTED])
def test_time_grows_linearly(unit: str) -> None:
    began = time.perf_counter()
    html.parse(unit * (400_000 // len(unit)))
    assert time.perf_counter() - began < 10  # quadratic would be minutes
