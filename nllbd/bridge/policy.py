"""When a dead engine is started again, and when its deaths mean that it does not work at all. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What happens after deaths.

    Attributes:
        backoff_s, max_backoff_s: pause before a restart, doubled each time that a death taught us nothing.
        max_start_failures: children in a row that never became ready, after which the engine counts as FAILED.
        failed_retry_s: pause between further attempts once FAILED.
        max_fruitless: deaths in a row without one outcome between them, after which the engine is unhealthy. More
            than it takes to find one killer among the lanes of a full batch by halves.
        stable_s: a child that lived this long has proved itself, idle or not.
    """

    backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    max_start_failures: int = 5
    failed_retry_s: float = 30.0
    max_fruitless: int = 14
    stable_s: float = 30.0

    def pause_s(self, setbacks: Setbacks) -> float:
        """Seconds to wait before the next child."""
        if setbacks.barren == 0:
            return 0.0
        return float(min(self.backoff_s * 2.0 ** min(setbacks.barren - 1, 30), self.max_backoff_s))


@dataclass(slots=True)
class Setbacks:
    """Deaths in a row: without an outcome, of these without a suspect, of these before the child was ready."""

    fruitless: int = 0
    barren: int = 0
    starts: int = 0

    def reset(self) -> None:
        self.fruitless = self.barren = self.starts = 0

    def record(self, *, delivered: bool, blamed: bool, was_ready: bool) -> None:
        """A child died: had it delivered any outcome, did it leave suspects, had it become ready?"""
        if delivered:
            self.reset()
            return
        self.fruitless += 1
        self.barren = 0 if blamed else self.barren + 1
        self.starts = 0 if was_ready else self.starts + 1
