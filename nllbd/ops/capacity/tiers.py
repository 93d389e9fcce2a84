"""The deployment guide's three tiers, and how many hosts like a measured one each of them takes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tier:
    """`users`: the most that are active at once. `hosts`: application servers as the guide has them."""

    name: str
    users: int
    hosts: int
    hardware: str


#: The guide gives the large tier no upper end; 5,000 is ours.
TIERS = (
    Tier("small", 100, 1, "8 cores, 16 GB; GeForce RTX 4060 8 GB optional"),
    Tier("medium", 1000, 3, "16 cores, 32 GB; GeForce RTX 4080 16 GB"),
    Tier("large", 5000, 5, "32 cores, 64 GB; A100 40 GB"),
)


@dataclass(frozen=True, slots=True)
class Habits:
    """What an active user does. The defaults are assumptions, not measurements: replace them by your own figures."""

    requests_per_minute: float = 2.0
    sentences: int = 3

    def users(self, requests_per_s: float) -> int:
        return math.floor(60.0 * requests_per_s / self.requests_per_minute)


def hosts_for(tier: Tier, users_per_host: int) -> int | None:
    """Hosts that serve the tier's users, and one more where there are several: one may be away. None: none do."""
    if users_per_host <= 0:
        return None
    hosts = math.ceil(tier.users / users_per_host)
    return hosts if hosts == 1 and tier.hosts == 1 else hosts + 1


def largest(users: int) -> Tier | None:
    """The largest tier whose users a host serves by itself."""
    served = [tier for tier in TIERS if tier.users <= users]
    return served[-1] if served else None
