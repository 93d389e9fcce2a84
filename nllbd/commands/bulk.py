"""Translate a file: each line of a txt file, a field of each line of a jsonl file, a column of a csv or tsv file.

  nllbd bulk lines.txt lignes.txt --from en --to fra_Latn
  nllbd bulk lines.txt lignes.txt --from en --to fra_Latn --engine ray --ray-address auto
  nllbd bulk reviews.csv out.csv --column review --column title --to deu_Latn --url http://127.0.0.1:8000

Translations of jsonl, csv and tsv are added as `<column>_<language>`. A run that was ended by whatever is continued by
the same command, with nothing lost and nothing doubled. A record that cannot be translated stands untranslated; it is
named, and why, on standard error and in OUT.failed (a JSON object a line), and the exit code is then 3.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from nllbd.bulk.formats import Record, format_of
from nllbd.bulk.journal import Journal
from nllbd.bulk.journal import Progress as Done
from nllbd.bulk.run import MAX_GROUPS
from nllbd.bulk.run import run as run_bulk
from nllbd.commands.backends import Ask, Backend, open_backend
from nllbd.commands.options import MODEL_SETTINGS, add_settings, settings_from
from nllbd.commands.output import Progress, print_line
from nllbd.commands.ray_backend import RayBackend
from nllbd.config import Settings
from nllbd.errors import InvalidValue, NllbdError
from nllbd.languages import resolve

SOME_FAILED = 3
_MAX_NAMED = 20
_BAR = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help="the file to translate")
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the file to make; OUT.partial and OUT.progress until then"
    )
    parser.add_argument("--to", dest="target", required=True, metavar="LANG", help="fr, fra_Latn, French")
    parser.add_argument("--from", dest="lang", default="auto", metavar="LANG", help="en, eng_Latn, English; or auto")
    parser.add_argument("--format", choices=("txt", "jsonl", "csv", "tsv"), help="default: as IN is called")
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME", help="field to translate, may be repeated (text)"
    )
    parser.add_argument("--url", help="ask this daemon (http://HOST:PORT or unix:/path) instead of loading a model")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: models on the workers of a Ray cluster"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of the cluster (RAY_ADDRESS; else one is started here)"
    )
    parser.add_argument("--ray-workers", type=int, default=0, metavar="N", help="default: as many as there is room for")
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever an earlier run left")
    parser.add_argument("--num-beams", "--beams", type=int, metavar="N", help="lanes of the beam search; 1 is greedy")
    add_settings(parser, (*MODEL_SETTINGS, "api_key", "detect_threshold", "detect_model"))


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    target = resolve(args.target, "target").code
    source = None if args.lang.lower() == "auto" else resolve(args.lang, "source").code
    ask = Ask(target=target, source=source, num_beams=args.num_beams, priority="bulk")
    backend = _backend(args, settings)
    same = {
        "target": target,
        "source": source,
        "format": args.format,
        "column": args.column,
        "num_beams": args.num_beams,
        "model": args.url or settings.model,
    }
    try:
        return asyncio.run(_run(args, ask, backend, same))
    except OSError as error:
        raise NllbdError(f"{error.filename or args.out}: {error.strerror or error}") from None


def _backend(args: argparse.Namespace, settings: Settings) -> Backend:
    if args.engine != "ray":
        return open_backend(settings, args.url)
    if args.url is not None:
        raise InvalidValue("--url asks a daemon, --engine ray loads models: give one of them")
    return RayBackend(settings, args.ray_address, args.ray_workers)


async def _run(args: argparse.Namespace, ask: Ask, backend: Backend, same: dict[str, object]) -> int:
    if args.out.resolve() == args.source.resolve():
        raise InvalidValue("IN and OUT are the same file")
    shape = format_of(args.format, args.source, args.column, ask.target)

    async def translate(texts: list[str]) -> list[str]:
        return [found.text for found in await backend.translate(texts, ask)]

    with args.source.open("rb") as source, Journal(args.source, args.out, same, restart=args.restart) as journal:
        async with backend:
            with closing(_Shown(args.source.stat().st_size)) as shown:
                num_groups = backend.num_calls if isinstance(backend, RayBackend) else MAX_GROUPS
                done = await run_bulk(source, shape, journal, translate, shown, num_groups)
    print_line(f"ok: {args.out}, {_counted(done.records)}" + _untranslated(args.out, done.failed))
    return SOME_FAILED if done.failed else 0


class _Shown:
    """The run on the terminal: a bar with the time that is left, and what failed."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = max(1, num_bytes)
        self._progress = Progress("translating:")
        self._began: tuple[float, int] | None = None
        self._num_named = 0

    def close(self) -> None:
        self._progress.clear()

    def advanced(self, progress: Done) -> None:
        now = time.monotonic()
        self._began = self._began or (now, progress.offset)
        since, before = self._began
        share = progress.offset / self._num_bytes
        left = ""
        if progress.offset > before:
            left_s = (now - since) * (self._num_bytes - progress.offset) / (progress.offset - before)
            left = f", {_duration(left_s)} left"
        bar = "#" * round(share * _BAR)
        self._progress.update(f"[{bar:.<{_BAR}}] {share:.0%}, {_counted(progress.records)}{left} ")

    def failed(self, record: Record, error: NllbdError) -> None:
        self._progress.clear()
        self._num_named += 1
        if self._num_named <= _MAX_NAMED:
            sys.stderr.write(f"nllbd: record {record.number}: {error.code}: {error.message}\n")
        elif self._num_named == _MAX_NAMED + 1:
            sys.stderr.write("nllbd: more records stand untranslated\n")


def _untranslated(out: Path, failed: int) -> str:
    return f", {failed} untranslated (see {out}.failed)" if failed else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts: Sequence[str] = (f"{hours} h {minutes} min",) if hours else (f"{minutes} min {rest} s",) if minutes else ()
    return parts[0] if parts else f"{rest} s"


def _counted(records: int) -> str:
    return f"{records} record" + ("" if records == 1 else "s")
