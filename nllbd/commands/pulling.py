"""`nllbd model pull`: shows the licence, asks for consent where it restricts use, and shows how far it is."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from nllbd.commands.options import add_settings
from nllbd.commands.output import Progress, human_bytes, print_line
from nllbd.config import Settings
from nllbd.errors import NllbdError
from nllbd.pull.hub import HubModel, HuggingFaceHub
from nllbd.pull.pull import Report, folder_of, pull

_LEAST_SAMPLE_S = 1.0


def add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_id", metavar="ID", help="such as facebook/nllb-200-distilled-600M")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main)")
    parser.add_argument("--endpoint", metavar="URL", help="another hub (default: HF_ENDPOINT, else huggingface.co)")
    parser.add_argument(
        "--accept-licence",
        metavar="NAME",
        help="consent to a licence that restricts use, by its name, such as cc-by-nc-4.0 (else it is asked for)",
    )
    parser.add_argument("--update", action="store_true", help="replace the model if the hub has another commit")
    add_settings(parser, ["model_dir"])


def run_pull(args: argparse.Namespace, settings: Settings) -> int:
    model_dir = settings.model_dir or Path()
    hub = HuggingFaceHub(args.endpoint)
    model = hub.find(args.model_id, args.revision)
    print_line(f"{model.model_id}, commit {model.commit[:12]}: {human_bytes(model.num_bytes)}")
    print_line(f"licence: {model.licence or 'the hub names none; see the page of the model'}")
    _consent(model, args.accept_licence)
    with _Shown(f"pulling {model.model_id}:") as shown:
        is_new = pull(hub, model, model_dir, update=args.update, report=shown)
    folder = folder_of(model.model_id, model_dir)
    print_line(f"ok: {folder}" + ("" if is_new else " was there already"))
    return 0


def _consent(model: HubModel, accepted: str | None) -> None:
    """Return when the licence lets anyone use the model, or the caller consents to what it asks.

    Raises NllbdError when nobody does.
    """
    licence = (model.licence or "").lower()
    if "-nc" not in licence and "noncommercial" not in licence:
        return
    print_line(f"{model.licence} does not allow commercial use.")
    if accepted is not None and accepted.lower() == licence:
        return
    if accepted is None and sys.stdin is not None and sys.stdin.isatty():
        sys.stdout.write("Use it within these terms? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise NllbdError(f"nothing was pulled: the licence was not accepted; say --accept-licence {model.licence}")


class _Shown(Report):
    """A pull's progress on the terminal."""

    def __init__(self, what: str) -> None:
        self._progress = Progress(what)
        self._began: tuple[float, int] | None = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.clear()

    def waiting(self, holder: str) -> None:
        self._progress.update(f"waiting for {holder}, which pulls it ")

    def receiving(self, num_done: int, num_total: int) -> None:
        now = time.monotonic()
        self._began = self._began or (now, num_done)
        since, before = self._began
        left = ""
        if now - since >= _LEAST_SAMPLE_S and num_done > before:
            rate = (num_done - before) / (now - since)
            left = f", {human_bytes(rate)}/s, {(num_total - num_done) / rate:.0f} s left"
        self._progress.update(f"{human_bytes(num_done)} of {human_bytes(num_total)}{left} ")

    def checking(self) -> None:
        self._progress.update("checking ")
