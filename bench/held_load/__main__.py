"""Ten minutes of load and breakage against a real daemon, then the account of every request. Exit code 1 on a problem.

    python -m bench.held_load [--seconds 600] [--users 12] [--json result.json] [--model]

Prints what broke when, what became of the requests, memory, deadlines, how fast refusals came, and the integrity of
the engine's books. Redis and PostgreSQL take part where they are installed, locust must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.common import hardware, revision, versions
from bench.held_load.account import Account, settle
from bench.held_load.faults import Breakage
from bench.held_load.memory import Fit, Watch, fit
from bench.held_load.outcomes import Recorder, read_outcomes
from bench.held_load.rude import Crowd
from bench.held_load.world import World, open_world, start_locust
from bench.servers import stop_on_sigterm

SAMPLE_EVERY_S = 0.5
SETTLE_S = 60.0
LOCUST_WITHIN_S = 120.0


@dataclass(frozen=True)
class Plan:
    """How long, how many, how often. The last requests are given time to end after `seconds`."""

    seconds: float = 600.0
    users: int = 12
    every_s: float = 6.0
    overload_s: float = 8.0
    away_s: float = 4.0
    rude_every_s: float = 0.5
    use_model: bool = False
    seed: int = 0

    @property
    def warm_up_s(self) -> float:
        return min(60.0, self.seconds / 4)


@dataclass
class Result:
    """What the run has shown."""

    plan: Plan
    account: Account
    fits: list[Fit]
    breakage: list[tuple[float, str]]
    engine: dict[str, Any]
    services: list[str]
    booked: int | None
    served: int
    notes: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What must not be; empty if all is well."""
        found = self.account.problems()
        found += [f"memory grows: {it}" for it in self.fits if not it.is_flat]
        if self.engine.get("integrity") != "ok":
            found.append(f"the engine's books at the end: {self.engine.get('integrity', 'not to be had')}")
        left = {name: self.engine.get("scheduler", {}).get(name) for name in ("num_running", "num_waiting")}
        left["used_blocks"] = self.engine.get("kv", {}).get("used_blocks")
        found += [f"{value} {name} are left over" for name, value in left.items() if value]
        if self.booked is not None and self.booked != self.served:
            found.append(f"{self.booked} characters are booked, {self.served} were served")
        return found + self.notes


async def break_things(world: World, plan: Plan) -> tuple[list[tuple[float, str]], list[Watch]]:
    """Locust, rude clients and faults together; returns when the last polite user is done."""
    recorder = Recorder(world.outcomes_path, "chaos")
    crowd = Crowd(world.server.port, world.translate_key, recorder, world.poison, world.echoes)
    breakage = Breakage(world, crowd)
    locust = start_locust(world, plan.users, plan.seconds, world.folder / "locust.log")
    watches: dict[int, Watch] = {}
    background = [
        asyncio.create_task(crowd.behave_badly(plan.rude_every_s)),
        asyncio.create_task(_watch_memory(world, watches)),
    ]
    try:
        await breakage.go_on(plan.every_s, plan.seconds - plan.overload_s, plan.overload_s, plan.away_s)
        await asyncio.to_thread(locust.wait, plan.seconds + LOCUST_WITHIN_S)
    finally:
        await _end(locust, background)
        recorder.close()
    return breakage.log, list(watches.values())


async def _end(locust: subprocess.Popen[bytes], background: list[asyncio.Task[None]]) -> None:
    if locust.poll() is None:
        locust.kill()
        locust.wait()
    for task in background:
        task.cancel()
    for result in await asyncio.gather(*background, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _watch_memory(world: World, watches: dict[int, Watch]) -> None:
    """The daemon, and each engine process that there is in turn."""
    watches[world.server.pid] = Watch("daemon", world.server.pid)
    while True:
        seen = await asyncio.to_thread(world.engine)
        if pid := seen.get("pid"):
            watches.setdefault(pid, Watch(f"engine {pid}", pid))
        for watch in watches.values():
            watch.sample()
        await asyncio.sleep(SAMPLE_EVERY_S)


def run(plan: Plan) -> Result:
    """All of it."""
    random.seed(plan.seed)
    with open_world(plan.use_model) as world:
        breakage, watches = asyncio.run(break_things(world, plan))
        engine = world.wait_idle(SETTLE_S)
        time.sleep(0.5)  # the log's writer gathers lines
        names = [service.name for service in world.services]
        database_is_there = all(_is_up(service) for service in world.services)
        world.server.close()
        lines = world.access_lines()
        outcomes = read_outcomes(world.outcomes_path)
        served = sum(line.get("characters", 0) for line in lines)
        booked = asyncio.run(_booked(world)) if database_is_there else None
        account = settle(outcomes.values(), lines)
        notes = [] if any(it.manner == "polite" for it in outcomes.values()) else [_tail(world.folder / "locust.log")]
    warm_up_s = {"daemon": plan.warm_up_s}
    fits = [found for watch in watches if (found := fit(watch, warm_up_s.get(watch.name, 5.0)))]
    return Result(plan, account, fits, breakage, engine, names, booked, served, notes)


def _is_up(service: Any) -> bool:
    service.thaw()
    with suppress(Exception):
        service.start()
        return True
    return False


async def _booked(world: World) -> int:
    """Characters that the store has booked, all accounts together."""
    from datetime import UTC, datetime, timedelta

    from nllbd.store.store import Store

    store = await Store.open(world.database_url)
    today = datetime.now(UTC).date()
    accounts = [key.account for key in await store.list_keys()] + ["anonymous"]
    entries = [entry for account in accounts for entry in await store.usage_of(account, today - timedelta(1), today)]
    await store.close()
    return sum(entry.characters for entry in entries)


def _tail(path: Path) -> str:
    return "locust did nothing; its last words: " + path.read_text(errors="replace")[-500:]


def report(result: Result) -> str:
    """For people."""
    account = result.account
    median = account.refusal_median_s
    lines = [f"services: daemon, {', '.join(result.services) or 'none besides'}", "broken, in seconds from the start:"]
    lines += [f"  {at:7.1f}  {what}" for at, what in result.breakage]
    lines.append(f"requests: {account.num_requests}; by manner and status:")
    lines += [f"  {count:7d}  {what}" for what, count in sorted(account.statuses.items())]
    lines.append(f"lost {len(account.lost)}, doubled {len(account.doubled)}, wrong {len(account.wrong)}")
    lines.append(f"accepted {account.num_accepted}, in time {account.in_time:.3%} (at least 99 % are due)")
    shown = "none" if median is None else f"median {median * 1000:.1f} ms of {len(account.refusals_s)}"
    lines.append(f"refusals: {shown} (at most 50 ms is allowed)")
    lines += [f"memory: {it}" for it in result.fits]
    lines.append(f"engine: integrity {result.engine.get('integrity')}, restarts {result.engine.get('num_restarts')}")
    if result.booked is not None:
        lines.append(f"usage: {result.served} characters served, {result.booked} booked")
    return "\n".join([*lines, "", *(result.problems() or ["no problem found"])])


def as_json(result: Result) -> dict[str, Any]:
    """For machines; ids only of what is wrong."""
    account = asdict(result.account)
    account |= {"statuses": dict(result.account.statuses), "refusals_s": len(result.account.refusals_s)}
    account |= {"refusal_median_s": result.account.refusal_median_s, "in_time": result.account.in_time}
    return {
        "hardware": hardware(),
        "versions": versions(),
        "revision": revision(),
        "plan": asdict(result.plan),
        "services": result.services,
        "breakage": result.breakage,
        "account": account,
        "memory": [asdict(it) | {"is_flat": it.is_flat} for it in result.fits],
        "engine": result.engine,
        "characters": {"served": result.served, "booked": result.booked},
        "problems": result.problems(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--users", type=int, default=Plan.users)
    parser.add_argument("--every", type=float, default=Plan.every_s, help="seconds between two faults")
    parser.add_argument("--model", action="store_true", help="the demo model instead of the scripted engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    stop_on_sigterm()
    plan = Plan(options.seconds, options.users, options.every, use_model=options.model, seed=options.seed)
    result = run(plan)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(as_json(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return bool(result.problems())


if __name__ == "__main__":
    sys.exit(main())
