"""Translate texts: each argument is one, or each line of standard input.

  nllbd translate "Where is the station?" --from en --to fr
  nllbd translate --from en --to fr < lines.txt > lignes.txt
  nllbd translate --url http://127.0.0.1:8000 --to de "Good morning"

Without --url a model is loaded into this process. One translation a line comes out, in order (line breaks of an
argument are kept). Warnings go to standard error; on an error nothing more is translated and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress

from nllbd.commands.backends import Ask, Backend, Translated, open_backend
from nllbd.commands.options import MODEL_SETTINGS, add_settings, settings_from
from nllbd.commands.output import Progress, flush_output, print_line
from nllbd.errors import InvalidValue, NllbdError

_GROUP_SIZE = 32  # lines sent together when they are there
_MAX_GROUPS = 4  # groups under way at once: enough to keep the batch full
_MAX_READ_AHEAD = 4 * _GROUP_SIZE

Group = list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text (default: the lines of standard input)")
    parser.add_argument("--from", dest="source", default="auto", metavar="LANG", help="en, eng_Latn, English; or auto")
    parser.add_argument("--to", dest="target", required=True, metavar="LANG", help="fr, fra_Latn, French")
    parser.add_argument("--url", help="ask this daemon (http://HOST:PORT or unix:/path) instead of loading a model")
    search = parser.add_argument_group("Search")
    search.add_argument("--num-beams", "--beams", type=int, metavar="N", help="lanes of the beam search; 1 is greedy")
    search.add_argument("--length-penalty", type=float, metavar="P")
    search.add_argument("--early-stopping", choices=("true", "false", "never"))
    search.add_argument("--max-length", type=int, metavar="N", help="most tokens of a sentence's translation")
    add_settings(parser, (*MODEL_SETTINGS, "api_key", "detect_threshold", "detect_model"))


def run(args: argparse.Namespace) -> int:
    ask = Ask(
        source=None if args.source.lower() == "auto" else args.source,
        target=args.target,
        num_beams=args.num_beams,
        length_penalty=args.length_penalty,
        early_stopping={"true": True, "false": False, "never": "never", None: None}[args.early_stopping],
        max_length=args.max_length,
    )
    for number, text in enumerate(args.texts, start=1):
        _check_argument(number, text)
    if not args.texts and sys.stdin is None:
        raise NllbdError("there is no text: no argument, and standard input is closed")
    backend = open_backend(settings_from(args), args.url)
    return asyncio.run(_translate_all(backend, ask, args.texts))


def _check_argument(number: int, text: str) -> None:
    """Raise InvalidValue for an argument that was not UTF-8: Python made lone surrogates of its bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"text {number} is not valid UTF-8", field="text") from None


async def _translate_all(backend: Backend, ask: Ask, texts: Sequence[str]) -> int:
    """Translate everything in order, a few groups at once; the first error ends it all."""
    num_done = 0
    total = len(texts) or _num_lines_ahead()
    of_total = "" if total is None else f" of {total}"
    async with backend:
        with Progress("translating:") as progress:
            async for group, task in _in_flight(backend, ask, _groups(texts)):
                while not (await asyncio.wait({task}, timeout=0.2))[0]:
                    progress.update(f"{num_done}{of_total} done ")
                answers = await task
                progress.clear()
                _print(group, answers, num_done)
                num_done += len(group)
    return 0


def _print(group: Group, answers: Sequence[Translated], num_done: int) -> None:
    for index, answer in enumerate(answers[: len(group)], start=num_done + 1):
        print_line(answer.text)
        for warning in answer.warnings:
            sys.stderr.write(f"nllbd: text {index}: warning: {warning}\n")
    flush_output()


async def _in_flight(
    backend: Backend, ask: Ask, groups: AsyncIterator[Group]
) -> AsyncIterator[tuple[Group, asyncio.Task[list[Translated]]]]:
    """Start groups as they come, at most `_MAX_GROUPS` ahead of the one that is handed out."""
    started: asyncio.Queue[tuple[Group, asyncio.Task[list[Translated]]] | None] = asyncio.Queue()
    free = asyncio.Semaphore(_MAX_GROUPS)
    tasks: set[asyncio.Task[list[Translated]]] = set()

    async def start() -> None:
        async for group in groups:
            await free.acquire()
            task = asyncio.create_task(backend.translate(group, ask))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            started.put_nowait((group, task))

    starter = asyncio.create_task(start())
    starter.add_done_callback(lambda _: started.put_nowait(None))
    try:
        while (item := await started.get()) is not None:
            free.release()
            yield item
        await starter
    finally:
        starter.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(starter, *tasks, return_exceptions=True)


async def _groups(texts: Sequence[str]) -> AsyncIterator[Group]:
    """The arguments, or whatever lines of standard input are there by now: a slow typist gets each answer at once."""
    if texts:
        for at in range(0, len(texts), _GROUP_SIZE):
            yield list(texts[at : at + _GROUP_SIZE])
        return
    lines: asyncio.Queue[str | NllbdError | None] = asyncio.Queue(_MAX_READ_AHEAD)
    _read_lines_into(lines)
    ended = False
    while not ended:
        items = [await lines.get()]
        while isinstance(items[-1], str) and len(items) < _GROUP_SIZE and not lines.empty():
            items.append(lines.get_nowait())
        ended = not isinstance(items[-1], str)
        if group := [item for item in items if isinstance(item, str)]:
            yield group
        if isinstance(items[-1], NllbdError):
            raise items[-1]


def _read_lines_into(lines: asyncio.Queue[str | NllbdError | None]) -> None:
    """Read standard input in a daemon thread: it may block there for ever, and must not hold up our end.

    Behind the last line comes None, or the error that ended it.
    """
    loop = asyncio.get_running_loop()

    def put(item: str | NllbdError | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(item), loop).result()

    def read() -> None:
        try:
            for line in _stdin_lines():
                put(line)
            put(None)
        except OSError as error:
            put(NllbdError(f"standard input cannot be read: {error.strerror}"))
        except NllbdError as error:
            put(error)

    def read_while_wanted() -> None:
        with suppress(RuntimeError, CancelledError):  # the loop is gone: nobody waits for lines any more
            read()

    threading.Thread(target=read_while_wanted, name="stdin", daemon=True).start()


def _stdin_lines() -> Iterator[str]:
    """Lines as UTF-8 whatever the locale says; `\\n` alone ends a line. Raises InvalidValue for what is not UTF-8."""
    with os.fdopen(os.dup(0), "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidValue(
                    f"standard input: line {number} is not valid UTF-8 (byte {error.start + 1} of the line, "
                    f"0x{error.object[error.start]:02x}); convert it first, as with iconv",
                    field="text",
                ) from None
            yield text.removesuffix("\n").removesuffix("\r")


def _num_lines_ahead() -> int | None:
    """How many lines are left in standard input if that is a file, which stays as it is; None if it is not."""
    try:
        if not stat.S_ISREG(os.fstat(0).st_mode):
            return None
        at, count, last = os.lseek(0, 0, os.SEEK_CUR), 0, b"\n"
        while chunk := os.pread(0, 1 << 20, at):
            at, count, last = at + len(chunk), count + chunk.count(b"\n"), chunk[-1:]
    except OSError:  # whoever reads the lines will say so
        return None
    return count + (last != b"\n")
