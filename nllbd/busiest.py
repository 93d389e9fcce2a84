"""Who is busiest: the accounts with the most requests lately, in bounded memory whoever and however many call.

Rates forget exponentially. When there is no room for another account, the least busy one gives way, and the newcomer
starts with its rate, as an allowance: who is truly busy is never pushed out by many who call once (A. Metwally and
others, "Efficient computation of frequent and top-k elements in data streams", 2005). What is shown leaves the
allowance out. These are names of accounts, and so no metric: a metric's labels have a bound that is known beforehand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

CAPACITY = 256
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class BusyAccount:
    """An account's recent load, as rates over about the last minute."""

    account: str
    requests_per_s: float
    characters_per_s: float
    refused_per_s: float


@dataclass(slots=True, eq=False)
class _Rates:
    """Decayed counts as of `at`; `allowance` was inherited."""

    at: float
    requests: float = 0.0
    allowance: float = 0.0
    characters: float = 0.0
    refused: float = 0.0

    def decay(self, now: float) -> None:
        kept = math.exp(-(now - self.at) / WINDOW_S)
        self.at = now
        self.requests *= kept
        self.allowance *= kept
        self.characters *= kept
        self.refused *= kept


class BusyAccounts:
    """One event loop."""

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._accounts: dict[str, _Rates] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def record(self, account: str, characters: int, refused: bool) -> None:
        """One request of `account` was answered, or refused before any work."""
        now = self._clock()
        rates = self._accounts.get(account) or self._enter(account, now)
        rates.decay(now)
        rates.requests += 1
        rates.characters += characters
        rates.refused += refused

    def top(self, count: int) -> list[BusyAccount]:
        """The busiest, most requests first."""
        now = self._clock()
        for rates in self._accounts.values():
            rates.decay(now)
        shown = [
            BusyAccount(
                account,
                (rates.requests - rates.allowance) / WINDOW_S,
                rates.characters / WINDOW_S,
                rates.refused / WINDOW_S,
            )
            for account, rates in self._accounts.items()
        ]
        return sorted(shown, key=lambda busy: -busy.requests_per_s)[:count]

    def _enter(self, account: str, now: float) -> _Rates:
        allowance = 0.0
        if len(self._accounts) >= self._capacity:
            for rates in self._accounts.values():
                rates.decay(now)
            least = min(self._accounts, key=lambda name: self._accounts[name].requests)
            allowance = self._accounts.pop(least).requests
        rates = self._accounts[account] = _Rates(now, requests=allowance, allowance=allowance)
        return rates
