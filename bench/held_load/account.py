"""What became of every request: the clients' words held against the daemon's access log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.common import percentile
from bench.held_load.outcomes import Outcome

#: Statuses of a request that was let in, whatever came of it.
ACCEPTED = frozenset({200, 500, 504})
REFUSED = frozenset({429, 503})
CLIENT_GONE = 499
MAX_REFUSAL_MEDIAN_S = 0.050
MIN_IN_TIME = 0.99
_SHOWN = 5


@dataclass
class Account:
    """The result. Each list holds ids, and all but `poisoned` must be empty."""

    num_requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    rudely_refused: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    poisoned: list[str] = field(default_factory=list)
    num_accepted: int = 0
    refusals_s: list[float] = field(default_factory=list)

    @property
    def in_time(self) -> float:
        """The share of accepted requests that were answered inside their deadline."""
        return 1.0 - len(self.late) / self.num_accepted if self.num_accepted else 1.0

    @property
    def refusal_median_s(self) -> float | None:
        return percentile(self.refusals_s, 50) if self.refusals_s else None

    def problems(self) -> list[str]:
        """What must not be; empty if all is well."""
        rules = {
            "lost: sent, but in no access line": self.lost,
            "doubled: in several access lines": self.doubled,
            "unanswered": self.unanswered,
            "answered otherwise than the access log says": self.contradicted,
            "answered with somebody else's translation": self.wrong,
            "failed without a fault of their own": self.failed,
            "refused without Retry-After": self.rudely_refused,
        }
        found = [f"{len(ids)} requests {what}: {', '.join(ids[:_SHOWN])}" for what, ids in rules.items() if ids]
        if self.in_time < MIN_IN_TIME:
            found.append(
                f"{self.in_time:.2%} of {self.num_accepted} accepted requests were in time: {self.late[:_SHOWN]}"
            )
        median = self.refusal_median_s
        if median is not None and median > MAX_REFUSAL_MEDIAN_S:
            found.append(f"the median refusal took {median * 1000:.0f} ms")
        return found


def settle(outcomes: Iterable[Outcome], lines: Iterable[Mapping[str, Any]]) -> Account:
    """Hold each outcome against the access lines with its id."""
    told: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        told.setdefault(str(line["request_id"]), []).append(line)
    account = Account()
    for outcome in outcomes:
        account.num_requests += 1
        account.statuses[f"{outcome.manner} {outcome.status or 'no answer'}"] += 1
        _check_log(account, outcome, told.get(outcome.id, []))
        if outcome.manner in ("polite", "overload"):
            _check_answer(account, outcome)
        elif outcome.manner == "poison":
            account.poisoned.append(outcome.id)
    return account


def _check_log(account: Account, outcome: Outcome, lines: list[Mapping[str, Any]]) -> None:
    """One line a request, and the same status in it."""
    if len(lines) > 1:
        account.doubled.append(outcome.id)
    elif not lines:
        account.lost.append(outcome.id)
    elif outcome.status and outcome.status != lines[0]["status"]:
        account.contradicted.append(outcome.id)


def _check_answer(account: Account, outcome: Outcome) -> None:
    if not outcome.ended or not outcome.status:
        account.unanswered.append(outcome.id)
    elif outcome.status in REFUSED:
        account.refusals_s.append(outcome.latency_s)
        if not outcome.has_retry_after:
            account.rudely_refused.append(outcome.id)
    elif outcome.status in ACCEPTED:
        _check_accepted(account, outcome)
    else:
        account.failed.append(outcome.id)


def _check_accepted(account: Account, outcome: Outcome) -> None:
    account.num_accepted += 1
    if outcome.status == 500:
        account.failed.append(outcome.id)
    elif not outcome.is_right:
        account.wrong.append(outcome.id)
    if outcome.status != 200 or (outcome.timeout_s is not None and outcome.latency_s > outcome.timeout_s):
        account.late.append(outcome.id)
