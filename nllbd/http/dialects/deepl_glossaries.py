"""DeepL's glossary calls, version 2: requests become records, records become answers. Knows no HTTP library."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from nllbd.errors import InvalidValue, MissingField
from nllbd.http import schema
from nllbd.http.dialects.common import resolve
from nllbd.http.dialects.deepl import source_code
from nllbd.languages import BY_CODE, Languages
from nllbd.store.records import GlossaryRecord

TSV_TYPE = "text/tab-separated-values"
MAX_NAME = 300  # as the store keeps them
MAX_TERM = 1_024
MAX_TERMS = 20_000


class GlossaryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v2/glossaries`. `entries`: one term a line, its translation after a tab, or as CSV."""

    name: str
    source_lang: str
    target_lang: str
    entries: str
    entries_format: Literal["tsv", "csv"] = "tsv"


class GlossaryItem(msgspec.Struct, frozen=True, kw_only=True):
    """A glossary, without its terms."""

    glossary_id: str
    name: str
    ready: bool
    source_lang: str
    target_lang: str
    creation_time: str
    entry_count: int


class GlossaryList(msgspec.Struct, frozen=True, kw_only=True):
    """An account's glossaries."""

    glossaries: tuple[GlossaryItem, ...]


def parse(
    values: Mapping[str, Any], languages: Languages, *, glossary_id: str, account: str, now: datetime
) -> GlossaryRecord:
    """A new glossary. Raises a typed error that names the field, and for entries the line at fault."""
    for name in ("name", "source_lang", "target_lang", "entries"):
        if not values.get(name):
            raise MissingField(f"Parameter '{name}' not specified.", field=name)
    request = schema.parse(dict(values), GlossaryRequest, strict=False)
    if len(request.name) > MAX_NAME:
        raise InvalidValue(f"name has {len(request.name)} characters; at most {MAX_NAME} are kept", field="name")
    if any(unicodedata.category(character) == "Cc" for character in request.name):
        raise InvalidValue("name has a control character", field="name")
    source = resolve(request.source_lang, {}, languages, "source_lang")
    target = resolve(request.target_lang, {}, languages, "target_lang")
    if source.code == target.code:
        raise InvalidValue("source_lang and target_lang are the same language", field="target_lang")
    rows = _csv_rows(request.entries) if request.entries_format == "csv" else _tsv_rows(request.entries)
    return GlossaryRecord(
        id=glossary_id,
        account=account,
        name=request.name,
        source_lang=source.code,
        target_lang=target.code,
        entries=_entries(rows),
        created_at=now,
    )


def render(record: GlossaryRecord) -> GlossaryItem:
    """What is told of a glossary."""
    return GlossaryItem(
        glossary_id=record.id,
        name=record.name,
        ready=True,
        source_lang=source_code(BY_CODE[record.source_lang]).lower(),
        target_lang=source_code(BY_CODE[record.target_lang]).lower(),
        creation_time=record.created_at.isoformat(timespec="microseconds"),
        entry_count=len(record.entries),
    )


def render_entries(record: GlossaryRecord) -> str:
    """A glossary's terms, a line each, separated by tabs."""
    return "\n".join(f"{source}\t{target}" for source, target in record.entries.items())


def render_pairs(languages: Languages) -> dict[str, Any]:
    """The pairs that a glossary may be of: all."""
    codes = dict.fromkeys(source_code(language).lower() for language in languages)
    pairs = [{"source_lang": one, "target_lang": other} for one in codes for other in codes if one != other]
    return {"supported_languages": pairs}


def check_pair(record: GlossaryRecord, source_lang: str | None, target_lang: str) -> None:
    """Raise InvalidValue unless the glossary is of this pair. Languages are FLORES codes."""
    if source_lang is None:
        raise InvalidValue("glossary_id needs source_lang", field="source_lang")
    if (_base(record.source_lang), _base(record.target_lang)) != (_base(source_lang), _base(target_lang)):
        raise InvalidValue("the glossary is of another pair of languages", field="glossary_id")


def _base(code: str) -> str:
    """DeepL's glossaries know no regions and scripts."""
    return source_code(BY_CODE[code])


def _tsv_rows(text: str) -> Iterable[list[str]]:
    return (line.split("\t") for line in text.splitlines() if line.strip())


def _csv_rows(text: str) -> Iterable[list[str]]:
    """The first two columns: after them DeepL has languages."""
    try:
        return [row[:2] for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error:
        raise InvalidValue("entries is no well-formed CSV", field="entries") from None


def _entries(rows: Iterable[list[str]]) -> dict[str, str]:
    entries: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        terms = [term.strip() for term in row]
        if len(terms) != 2 or not all(terms):
            raise InvalidValue(f"entries, line {number}: expected a term and its translation", field="entries")
        if max(map(len, terms)) > MAX_TERM or any("\n" in term or "\t" in term for term in terms):
            raise InvalidValue(f"entries, line {number}: a term is too long or has a line break", field="entries")
        if terms[0] in entries:
            raise InvalidValue(f"entries, line {number}: this term was there before", field="entries")
        entries[terms[0]] = terms[1]
    if not entries or len(entries) > MAX_TERMS:
        raise InvalidValue(f"entries: from 1 to {MAX_TERMS} terms, not {len(entries)}", field="entries")
    return entries
