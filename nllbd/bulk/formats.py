"""Records of a file and how they are written with their translations: txt, jsonl, csv and tsv.

A record carries where the next one begins in the file, so that a run can go on there. Knows no translator.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from nllbd.errors import InvalidValue

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MAX_FIELD = 1 << 24
_BOM = b"\xef\xbb\xbf"
DEFAULT_COLUMN = "text"


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its texts, its content as the format needs it to write it, its number from 1, where the next begins
    (a byte offset)."""

    number: int
    texts: tuple[str, ...]
    content: Any
    end: int


class Format(Protocol):
    """Reads records from `source` (at the offset of a record's begin) and renders them.

    `read` raises InvalidValue that names the line.
    """

    def begin(self, source: BinaryIO) -> tuple[int, bytes]:
        """Read what stands before the first record; returns its length and what the output begins with."""
        ...

    def read(self, source: BinaryIO, number: int) -> Iterator[Record]:
        """The records from here on; the first has this number."""
        ...

    def write(self, record: Record, translations: Sequence[str]) -> bytes: ...


def format_of(name: str | None, path: Path, columns: Sequence[str], target: str) -> Format:
    """The format called `name`, or that which the file's name ends with. Raises InvalidValue."""
    kind = name or path.suffix.lstrip(".").lower()
    if kind == "txt":
        if columns:
            raise InvalidValue("a txt file has no columns: each line is a text", field="column")
        return Lines()
    if kind in ("jsonl", "ndjson"):
        return JsonLines(tuple(columns) or (DEFAULT_COLUMN,), target)
    if kind in _DELIMITERS:
        return Table(_DELIMITERS[kind], tuple(columns), target)
    raise InvalidValue(f"{path}: not known as txt, jsonl, csv or tsv; say which with --format", field="format")


class Lines:
    """A text a line. Line ends stay as they are."""

    def begin(self, source: BinaryIO) -> tuple[int, bytes]:
        return _skip_bom(source), b""

    def read(self, source: BinaryIO, number: int) -> Iterator[Record]:
        for text, raw, end in _lines(source, number):
            core = text.rstrip("\r\n")
            yield Record(number, (core,), raw[len(core.encode()) :], end)
            number += 1

    def write(self, record: Record, translations: Sequence[str]) -> bytes:
        return " ".join(translations[0].splitlines()).encode() + bytes(record.content)


class JsonLines:
    """An object a line; the translation of `text` to French becomes its field `text_fra_Latn`. Blank lines stay."""

    def __init__(self, columns: tuple[str, ...], target: str) -> None:
        self._columns = columns
        self._target = target

    def begin(self, source: BinaryIO) -> tuple[int, bytes]:
        return _skip_bom(source), b""

    def read(self, source: BinaryIO, number: int) -> Iterator[Record]:
        for line, _, end in _lines(source, number):
            record = self._object(line, number) if line.strip() else None
            texts = () if record is None else tuple(record[column] for column in self._columns)
            yield Record(number, texts, record, end)
            number += 1

    def write(self, record: Record, translations: Sequence[str]) -> bytes:
        if record.content is None:
            return b"\n"
        added = {f"{column}_{self._target}": text for column, text in zip(self._columns, translations, strict=True)}
        return json.dumps(record.content | added, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidValue(f"line {number} is not valid JSON") from None
        if not isinstance(found, dict):
            raise InvalidValue(f"line {number} is not a JSON object")
        for column in self._columns:
            if not isinstance(found.get(column), str):
                raise InvalidValue(f"line {number} has no text {column!r}; name the field with --column")
        return found


class Table:
    """Comma- or tab-separated values with a header; translations are columns at the end (`text_fra_Latn`)."""

    def __init__(self, delimiter: str, columns: tuple[str, ...], target: str) -> None:
        self._delimiter = delimiter
        self._columns = columns
        self._target = target
        self._header: list[str] = []
        self._line_end = "\n"

    def begin(self, source: BinaryIO) -> tuple[int, bytes]:
        csv.field_size_limit(_MAX_FIELD)
        start = _skip_bom(source)
        try:
            header, end = next(self._rows(source, 1, start))
        except StopIteration:
            raise InvalidValue("the file is empty; it needs a header that names its columns") from None
        source.seek(start)
        self._line_end = "\r\n" if source.read(end - start).endswith(b"\r\n") else "\n"
        self._header = header
        self._columns = self._columns or self._only(header)
        missing = [column for column in self._columns if column not in header]
        if missing:
            raise InvalidValue(
                f"there is no column {missing[0]!r}; the header has {', '.join(header)}: name one with --column",
                field="column",
            )
        return end, self._render([*header, *(f"{column}_{self._target}" for column in self._columns)])

    def read(self, source: BinaryIO, number: int) -> Iterator[Record]:
        for row, end in self._rows(source, number, source.tell()):
            if row and len(row) != len(self._header):
                raise InvalidValue(f"record {number} has {len(row)} fields, the header {len(self._header)}")
            texts = tuple(row[self._header.index(column)] for column in self._columns) if row else ()
            yield Record(number, texts, row, end)
            number += 1

    def write(self, record: Record, translations: Sequence[str]) -> bytes:
        return self._render([*record.content, *translations])

    def _only(self, header: list[str]) -> tuple[str, ...]:
        return (header[0],) if len(header) == 1 else (DEFAULT_COLUMN,)

    def _rows(self, source: BinaryIO, number: int, offset: int) -> Iterator[tuple[list[str], int]]:
        """Each row and where it ends: the reader takes only the lines that it needs for one."""
        end = offset

        def lines() -> Iterator[str]:
            nonlocal end
            for text, _, after in _lines(source, number):
                end = after
                yield text

        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        try:
            for row in reader:
                yield row, end
        except csv.Error as error:
            raise InvalidValue(f"near line {number + reader.line_num - 1}: {error}") from None

    def _render(self, row: list[str]) -> bytes:
        if not any(row):
            return self._line_end.encode()
        out = io.StringIO()
        csv.writer(out, delimiter=self._delimiter, lineterminator=self._line_end).writerow(row)
        return out.getvalue().encode()


def _lines(source: BinaryIO, number: int) -> Iterator[tuple[str, bytes, int]]:
    """Text, bytes and end of each line from here on; only line feeds end one. Raises InvalidValue."""
    end = source.tell()
    while raw := source.readline():
        end += len(raw)
        try:
            yield raw.decode(), raw, end
        except UnicodeDecodeError:
            raise InvalidValue(f"line {number} is not valid UTF-8") from None
        number += 1


def _skip_bom(source: BinaryIO) -> int:
    begin = len(_BOM) if source.read(len(_BOM)) == _BOM else 0
    source.seek(begin)
    return begin
