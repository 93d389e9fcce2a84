from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.bulk.formats import Format, Record, format_of
from nllbd.errors import InvalidValue

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)


def read(shape: Format, content: bytes) -> tuple[bytes, list[Record]]:
    """All records; each is also read alone, from where the one before says that it begins."""
    source = io.BytesIO(content)
    offset, head = shape.begin(source)
    source.seek(offset)
    records = list(shape.read(source, 1))
    for record in records:
        source.seek(offset)
        again = next(shape.read(source, record.number))
        assert again == record
        offset = record.end
    assert offset == len(content)
    return head, records


def shape_of(kind: str, *columns: str) -> Format:
    return format_of(kind, Path("x"), columns, "fra_Latn")


@given(st.lists(st.tuples(TEXT, st.sampled_from(["\n", "\r\n"]))), TEXT)
def test_lines_echo(lines: list[tuple[str, str]], last: str) -> None:
    content = ("".join(text + end for text, end in lines) + last).encode()
    shape = shape_of("txt")
    head, records = read(shape, content)
    begin = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    plain = [record for record in records if "".join(record.texts[0].splitlines()) == record.texts[0]]
    if len(plain) == len(records):
        assert head + b"".join(shape.write(record, record.texts) for record in records) == content[begin:]


def test_a_line_stays_a_line() -> None:
    shape = shape_of("txt")
    _, records = read(shape, b"a b\n")
    assert shape.write(records[0], ["x\ny\u2028z"]) == b"x y z\n"


@given(st.lists(st.dictionaries(TEXT, st.integers() | TEXT, max_size=3), max_size=5))
def test_json_keeps_its_fields(rows: list[dict[str, object]]) -> None:
    rows = [{**row, "text": "t"} for row in rows]
    shape = shape_of("jsonl")
    _, records = read(shape, "".join(json.dumps(row) + "\n" for row in rows).encode() + b"\n")
    out = [shape.write(record, ["T"] * len(record.texts)) for record in records]
    assert [json.loads(line) for line in out[:-1]] == [{**row, "text_fra_Latn": "T"} for row in rows]
    assert out[-1] == b"\n"


@given(st.lists(st.tuples(CELL, CELL), max_size=6), st.sampled_from([("csv", ","), ("tsv", "\t")]))
def test_tables(rows: list[tuple[str, str]], kind: tuple[str, str]) -> None:
    rows = [row for row in rows if any(row)]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=kind[1], lineterminator="\n")
    writer.writerows([("id", "text"), *rows])
    shape = shape_of(kind[0])
    head, records = read(shape, text.getvalue().encode())
    assert [record.texts for record in records] == [(row[1],) for row in rows]
    out = head + b"".join(shape.write(record, [record.texts[0].upper()]) for record in records)
    again = list(csv.reader(io.StringIO(out.decode(), newline=""), delimiter=kind[1]))
    assert again == [["id", "text", "text_fra_Latn"], *([*row, row[1].upper()] for row in rows)]


def test_columns_and_line_ends() -> None:
    shape = shape_of("csv", "b", "a")
    head, records = read(shape, b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert head + shape.write(records[0], ["two", "one"]) == b"a,b,b_fra_Latn,a_fra_Latn\r\n1,2,two,one\r\n"
    _, records = read(shape_of("csv"), b"only\nx\n")
    assert records[0].texts == ("x",)


@pytest.mark.parametrize(
    ("kind", "columns", "content", "says"),
    [
        ("txt", (), b"a\n\xff\n", "line 2 is not valid UTF-8"),
        ("jsonl", (), b'{"text": "a"}\n{"text"\n', "line 2 is not valid JSON"),
        ("jsonl", (), b"[1]\n", "line 1 is not a JSON object"),
        ("jsonl", ("q",), b'{"text": "a"}\n', "line 1 has no text 'q'"),
        ("jsonl", (), b'{"text": 1}\n', "line 1 has no text 'text'"),
        ("csv", (), b"", "the file is empty"),
        ("csv", ("q",), b"a,b\n", "no column 'q'; the header has a, b"),
        ("csv", (), b"a,text\n1\n", "record 1 has 1 fields, the header 2"),
        ("csv", (), b'a,text\n1,"x\n', "near line"),
    ],
)
def test_refusals(kind: str, columns: tuple[str, ...], content: bytes, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        read(shape_of(kind, *columns), content)


def test_unknown_formats() -> None:
    for path, columns in (("x.doc", ()), ("x", ()), ("x.txt", ("a",))):
        with pytest.raises(InvalidValue):
            format_of(None, Path(path), columns, "fra_Latn")
