"""`nllbd ops capacity`: the measurement, what the model makes of it, and which tier of the guide it serves."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from nllbd.commands.options import MODEL_SETTINGS, add_settings, settings_from
from nllbd.commands.output import flush_output, print_line
from nllbd.config import state_folder
from nllbd.errors import InvalidValue, NotReady
from nllbd.ops import asking
from nllbd.ops.capacity import tables
from nllbd.ops.capacity.measure import Mix, Trial, arrive, measure, own_daemon
from nllbd.ops.capacity.model import Load, ServiceCurve, load_at, most_arrivals
from nllbd.ops.capacity.tiers import TIERS, Habits, hosts_for, largest
from nllbd.ops.settings import State

_LESS = 0.8  # what did not hold is tried again with so much of it
_TRIES = 6
_REQUESTS = 40  # fewer say nothing of the slowest twentieth
_LONGEST_S = 60.0
_BUSY_PERCENT = 15.0

Say = Callable[[str], None]


def add_actions(actions: Any) -> None:
    parser = actions.add_parser(
        "capacity", help="measure this host, and say how many users it serves", description=__doc__
    )
    parser.add_argument("--requests-per-minute", type=float, default=2.0, metavar="N", help="of an active user (2)")
    parser.add_argument("--sentences", type=int, default=3, metavar="N", help="of a request (3)")
    parser.add_argument("--p95", type=float, default=3.0, metavar="S", help="95 %% are to be served within S s (3)")
    parser.add_argument(
        "--utilisation", type=float, default=0.7, metavar="SHARE", help="of the rate at saturation (0.7)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of each step of the measurement (4)")
    parser.add_argument("--beams", type=int, metavar="N", help="default: the model's")
    parser.add_argument("--from", dest="source", default="eng_Latn", metavar="LANG")
    parser.add_argument("--to", dest="target", default="fra_Latn", metavar="LANG")
    parser.add_argument("--tables", action="store_true", help="print the sizing tables of the guide's tiers instead")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_settings(parser, (*MODEL_SETTINGS, "runner"))
    parser.set_defaults(act=_capacity)


def _capacity(args: argparse.Namespace) -> int:
    if args.tables:
        print_line(tables.markdown().rstrip())
        return 0
    if min(args.requests_per_minute, args.sentences, args.p95, args.seconds) <= 0 or not 0 < args.utilisation < 1:
        raise InvalidValue("requests, sentences, seconds and p95 are above 0, utilisation is between 0 and 1")
    settings = settings_from(args)
    habits = Habits(args.requests_per_minute, args.sentences)
    mix = Mix(args.sentences, args.source, args.target, args.beams)
    say: Say = (lambda _line: None) if args.json else _say
    _say_before(asking.Server(asking.api_url(settings), timeout_s=2.0), say)
    with own_daemon(settings) as server:
        about = server.get("/version").json()
        say(f"{about['model']} on {about['device']} in {about['dtype']}, {os.cpu_count()} cores")
        say(f"{'n':>5}  {'requests/s':>10}  {'sentences/s':>11}  {'95 % (s)':>8}  {'failures':>8}")
        curve = measure(server, mix, args.seconds, say)
        say("")
        held = _tried(args, server, mix, curve, say)
    result = _result(curve, held, habits, about)
    _remember(result)
    if args.json:
        print_line(json.dumps(result))
    else:
        _print(result, habits, args)
    return 0


def _tried(
    args: argparse.Namespace, server: asking.Server, mix: Mix, curve: ServiceCurve, say: Say
) -> tuple[Load, Trial] | None:
    """The rate that the model promises, or the highest below it that a stream of that rate confirms."""
    promised = most_arrivals(curve, args.p95, args.utilisation)
    for number in range(_TRIES if promised else 0):
        assert promised is not None
        load = load_at(curve, promised.arrivals * _LESS**number)
        if load is None:
            return None
        seconds = min(max(3 * args.seconds, _REQUESTS / load.arrivals), _LONGEST_S)
        trial = arrive(server, mix, load.arrivals, seconds, number)
        holds = not trial.failures and trial.p95_s <= args.p95
        say(
            f"tried: {load.arrivals:.2f} requests/s for {seconds:.0f} s: mean {trial.mean_s:.2f} s, 95 % "
            f"{trial.p95_s:.2f} s (predicted {load.mean_s:.2f} and {load.p95_s:.2f} s), {trial.failures} failures: "
            + ("holds" if holds else "too much")
        )
        if holds:
            return load, trial
    return None


def _say(line: str) -> None:
    print_line(line)
    flush_output()


def _say_before(running: asking.Server, say: Say) -> None:
    """Whoever shares the machine takes a part of it: what is measured is then what is left."""
    busy = psutil.cpu_percent(interval=1.0)
    if busy > _BUSY_PERCENT:
        say(f"note: others use {busy:.0f} % of this host's processors; measured is what they leave: try a quiet hour")
    try:
        running.get("/livez")
    except NotReady:
        return
    say(f"note: a daemon runs at {running.url}; measured is what it leaves of this host")


def _result(
    curve: ServiceCurve, held: tuple[Load, Trial] | None, habits: Habits, about: dict[str, Any]
) -> dict[str, Any]:
    arrivals = held[0].arrivals if held else 0.0
    users = habits.users(arrivals)
    tier = largest(users)
    return {
        "at": time.time(),
        "model": about["model"],
        "device": about["device"],
        "dtype": about["dtype"],
        "cores": os.cpu_count(),
        "points": {str(n): round(rate, 3) for n, rate in curve.points.items()},
        "requests_per_minute": round(60 * arrivals, 1),
        "users": users,
        "tier": tier.name if tier else None,
        "hosts": {tier.name: hosts_for(tier, users) for tier in TIERS},
        "predicted": _shown(held[0]) if held else None,
        "measured": {"mean_s": round(held[1].mean_s, 4), "p95_s": round(held[1].p95_s, 4)} if held else None,
    }


def _shown(load: Load) -> dict[str, float]:
    names = ("arrivals", "utilisation", "mean_s", "p95_s", "mean_number")
    return {name: round(getattr(load, name), 4) for name in names}


def _remember(result: dict[str, Any]) -> None:
    """For the monthly review."""
    path = State(state_folder() / "ops").capacity
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft: Path = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(result), encoding="utf-8")
    draft.replace(path)


def _print(result: dict[str, Any], habits: Habits, args: argparse.Namespace) -> None:
    _say("model: one server shared by all requests, whose rate X(n) depends on how many there are (M/G/1-PS); Poisson")
    _say("       arrivals, sizes however distributed: docs/operations/capacity.md")
    _say(
        f"assumed: an active user sends {habits.requests_per_minute:g} requests a minute, {habits.sentences} sentences "
        f"each; 95 % within {args.p95:g} s; at most {args.utilisation:.0%} of the rate at saturation"
    )
    if measured := result["measured"]:
        rate = result["requests_per_minute"] / 60
        _say(f"serves: {rate:.2f} requests/s (95 % within {measured['p95_s']:.2f} s): {result['users']} users")
    else:
        _say(f"serves: nobody: no rate that was tried kept 95 % within {args.p95:g} s")
    _say(f"tier:   {result['tier'] or 'none of the guide'} by itself")
    for tier in TIERS:
        hosts = result["hosts"][tier.name]
        needed = "no number of such hosts" if hosts is None else f"{hosts} such host{'s' * (hosts != 1)}"
        _say(f"        {tier.name}, {tier.users} users: {needed}")
