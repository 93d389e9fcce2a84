"""A checklist: items that were run or that a person must do, as Markdown and JSON, signed with a name and a digest."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nllbd.errors import NllbdError


class Verdict(enum.StrEnum):
    """What came of an item; the operator reads these words in the checklist.

    `todo`: only a person can look or act, so no program may tick it. `skip`: what it would check is not set up here.
    """

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    TODO = "todo"
    SKIP = "skip"


_BOXES = {Verdict.OK: "x", Verdict.WARN: "x", Verdict.FAIL: " ", Verdict.TODO: " ", Verdict.SKIP: "-"}


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a checklist. `task`: the guide's words for what it is part of. `advice`: for when it is not ok."""

    check: str
    task: str
    verdict: Verdict
    seen: str
    advice: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_markdown(self) -> str:
        advice = f" — {self.advice}" if self.advice and self.verdict is not Verdict.OK else ""
        return f"- [{_BOXES[self.verdict]}] {self.verdict.value:4} {self.check}: {self.seen}{advice}"


@dataclass(frozen=True, slots=True)
class Checklist:
    """One run. `at`: UTC, to the second."""

    kind: str
    host: str
    at: str
    items: tuple[Item, ...]
    signed_by: str = ""
    previous: str = ""

    @property
    def failed(self) -> bool:
        return any(item.verdict is Verdict.FAIL for item in self.items)

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it; with `previous`, the digest of the one signed before, a chain."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "digest": self.digest, "failed": self.failed}, indent=1, ensure_ascii=False)

    def to_markdown(self) -> str:
        lines = [f"# {self.kind.capitalize()} checklist of {self.host}, {self.at}", ""]
        for task in dict.fromkeys(item.task for item in self.items):
            lines.append(f"**{task}**")
            lines += [item.to_markdown() for item in self.items if item.task == task]
        counts = {verdict: sum(item.verdict is verdict for item in self.items) for verdict in Verdict}
        lines += ["", ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count) + "."]
        if self.signed_by:
            lines += ["", f"Signed by {self.signed_by}, {self.at}, digest `{self.digest}`."]
        return "\n".join(lines)


Check = Callable[[Any], "list[Item]"]


def run_checks(kind: str, host: str, checks: Sequence[tuple[str, str, Check]], context: Any) -> Checklist:
    """Run all (name, task, check). A check that raises has failed; the others run all the same."""
    items: list[Item] = []
    for name, task, check in checks:
        try:
            items += check(context)
        except (NllbdError, OSError) as error:
            reason = error.message if isinstance(error, NllbdError) else str(error)
            items.append(Item(name, task, Verdict.FAIL, reason, "see why it could not be checked"))
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    return Checklist(kind, host, moment, tuple(items))


def sign(checklist: Checklist, name: str, folder: Path) -> tuple[Checklist, Path]:
    """Write it down, signed, into `folder`, and say where (JSON; Markdown lies beside it). Never over another one.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    previous = _last_digest(folder)
    signed = Checklist(checklist.kind, checklist.host, checklist.at, checklist.items, name, previous)
    stem = f"{checklist.kind}-{re.sub(r'[^0-9T]', '', checklist.at[:19])}"
    for suffix, content in ((".json", signed.to_json()), (".md", signed.to_markdown())):
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        with os.fdopen(os.open(folder / f"{stem}{suffix}", flags, 0o600), "w", encoding="utf-8") as file:
            file.write(content + "\n")
    return signed, folder / f"{stem}.json"


def signed_checklists(folder: Path) -> list[dict[str, Any]]:
    """All that were signed, the oldest first. Raises NllbdError for one whose digest or whose chain is broken."""
    found = []
    for path in folder.glob("*-*.json"):
        table = json.loads(path.read_text(encoding="utf-8"))
        items = tuple(Item(**{**item, "verdict": Verdict(item["verdict"])}) for item in table["items"])
        names = ("kind", "host", "at", "signed_by", "previous")
        again = Checklist(items=items, **{name: table[name] for name in names})
        if again.digest != table["digest"]:
            raise NllbdError(f"{path} was changed after it was signed")
        found.append(table)
    found.sort(key=lambda table: table["at"])
    digests = {table["digest"] for table in found}
    for table in found[1:]:
        if table["previous"] not in digests:
            raise NllbdError(f"the checklist that was signed before {table['at']} is missing")
    return found


def _last_digest(folder: Path) -> str:
    found = signed_checklists(folder)
    return str(found[-1]["digest"]) if found else ""
