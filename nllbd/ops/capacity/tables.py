"""The sizing tables of docs/operations/capacity.md, written from the code; a test holds the document against them."""

from __future__ import annotations

from collections.abc import Sequence

from nllbd.ops.capacity.roofline import DEVICES, scaled, sentences_per_s
from nllbd.ops.capacity.tiers import TIERS, Habits, hosts_for

#: bench/results/offline-600M-20261124-010019.json: int8, beams 4, two cores of a Xeon with AMX; median of five rounds.
MEASURED_SENTENCES_PER_S = 32.7
MEASURED_CORES = 2
UTILISATION = 0.7
#: Bytes a second of two channels of DDR5, of four, of eight.
_PROCESSORS = ((8, 70e9, 0), (16, 140e9, 1), (32, 280e9, 2))


def rows(habits: Habits | None = None) -> list[tuple[str, ...]]:
    """Tier, hardware, how its figure came about, sentences/s of a host, users of a host, hosts for the tier."""
    habits = habits or Habits()
    found: list[tuple[str, ...]] = []
    for index, tier in enumerate(TIERS):
        cores, bandwidth, _ = _PROCESSORS[index]
        processor = scaled(MEASURED_SENTENCES_PER_S, MEASURED_CORES, cores, bandwidth)
        found.append(
            _row(tier.name, f"{cores} cores, int8", "computed from 2 measured cores", processor, index, habits)
        )
        device = DEVICES[index]
        rate = sentences_per_s(device)
        found.append(_row(tier.name, f"{device.name}, float16", "computed, roofline", rate, index, habits))
    measured = MEASURED_SENTENCES_PER_S
    return [_row("(measured)", f"{MEASURED_CORES} cores, int8", "**measured**", measured, 0, habits), *found]


def _row(tier: str, hardware: str, how: str, rate: float, index: int, habits: Habits) -> tuple[str, ...]:
    users = habits.users(UTILISATION * rate / habits.sentences)
    hosts = hosts_for(TIERS[index], users)
    return tier, hardware, how, f"{rate:,.0f}", f"{users:,}", "—" if hosts is None else str(hosts)


HEADER = ("tier", "host", "figure", "sentences/s", f"users at {UTILISATION:.0%}", "hosts for the tier")


def markdown(header: Sequence[str] = HEADER) -> str:
    lines = [header, ["---"] * len(header), *rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
