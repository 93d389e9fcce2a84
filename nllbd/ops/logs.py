"""The journal of the last day: what went wrong, by message. Asks journalctl; knows the daemon's JSON lines."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_BAD = ("error", "critical")
_ERROR_PRIORITY = 3
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class LogReview:
    """How often each message of an error came, the commonest first, and how many warnings there were."""

    errors: tuple[tuple[str, int], ...]
    warnings: int

    @property
    def num_errors(self) -> int:
        return sum(count for _, count in self.errors)


def review(units: str, since: str = "-24h") -> LogReview | None:
    """The journal of all units that `units` (a pattern) names; None where there is no journal to read."""
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return None
    command = [journalctl, f"--unit={units}", f"--since={since}", "--output=json", "--no-pager", "--quiet"]
    done = subprocess.run([*command, "--output-fields=MESSAGE,PRIORITY"], capture_output=True, check=False)
    if done.returncode != 0:
        return None
    return summed(done.stdout.decode("utf-8", "replace").splitlines())


def summed(lines: Iterable[str]) -> LogReview:
    """Lines are the journal's JSON."""
    errors: Counter[str] = Counter()
    warnings = 0
    for line in lines:
        level, event = _level_and_event(line)
        if level in _BAD:
            errors[event[:_SHOWN]] += 1
        warnings += level == "warning"
    return LogReview(tuple(errors.most_common()), warnings)


def _level_and_event(line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
        message = entry["MESSAGE"]
    except (ValueError, LookupError, TypeError):
        return "", ""
    try:
        told = json.loads(message)
        return str(told["level"]), str(told["event"])
    except (ValueError, LookupError, TypeError):  # systemd's own words, or a message that is no text
        is_bad = int(entry.get("PRIORITY", 6)) <= _ERROR_PRIORITY
        return "error" if is_bad else "info", str(message)
