"""`GET /debug/engine`, for whoever operates the daemon (scope `admin`): what the engine does now, and for whom.

Names accounts and client addresses, never a text or a token of one. `?integrity=0` leaves out the check of the
engine's books, which takes the longer the more is waiting: for who looks every second.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from nllbd.bridge.protocol import EngineSnapshot
from nllbd.busiest import BusyAccount
from nllbd.errors import Forbidden, Unauthorized
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.principal import Scope
from nllbd.sched.sequence import ClientShare

ROUTE = "/debug/engine"
_NUM_ACCOUNTS = 20


class ClientItem(msgspec.Struct, frozen=True, kw_only=True):
    """What one client has in the engine, in one class."""

    client: str
    priority: str
    num_waiting: int
    waiting_tokens: int
    num_running: int
    num_lanes: int


class StepItem(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last steps."""

    step: int
    num_sequences: int
    num_lanes: int
    encode_tokens: int
    step_ms: float
    encode_ms: float
    decode_ms: float


class SchedulerItem(msgspec.Struct, frozen=True, kw_only=True):
    """Counters are totals since the daemon started; `lane_limit` and `num_parked` are null when nobody answers."""

    num_running: int
    num_waiting: int
    waiting_tokens: int
    num_lanes: int
    max_num_lanes: int
    lane_limit: int | None
    num_parked: int | None
    num_preemptions: int
    num_steps: int
    source_tokens: int
    target_tokens: int
    tokens_per_s: float


class KvItem(msgspec.Struct, frozen=True, kw_only=True):
    """The KV pool, in blocks of `block_size` token positions."""

    num_blocks: int
    used_blocks: int
    block_size: int


class AdmissionItem(msgspec.Struct, frozen=True, kw_only=True):
    """What was let in and is not done; `rate` in source tokens times beams a second, null before the first overload."""

    num_segments: int
    num_tokens: int
    num_inflight: int
    rate: float | None


class EngineItem(msgspec.Struct, frozen=True, kw_only=True):
    """`answered`: whether the engine itself was asked with success; without it, what the daemon knows is all there is.

    `integrity`: "ok", what is wrong with the engine's books, or null if that was not asked for, or nobody answered.
    """

    state: str
    answered: bool
    num_restarts: int
    device: str | None
    dtype: str | None
    pid: int | None
    integrity: str | None
    scheduler: SchedulerItem
    kv: KvItem
    admission: AdmissionItem
    clients: tuple[ClientItem, ...]
    num_clients: int
    last_steps: tuple[StepItem, ...]
    accounts: tuple[BusyAccount, ...]


async def show_engine(request: web.Request) -> web.StreamResponse:
    """The answer. Raises Unauthorized and Forbidden: whoever let the request in, only an admin sees this."""
    principal = request[EXCHANGE].principal
    if Scope.ADMIN not in principal.scopes:
        needed = f"{ROUTE} needs a stored key with scope admin (nllbd keys create)"
        raise Unauthorized(needed) if principal.is_anonymous else Forbidden(needed)
    context = request.app[CONTEXT]
    check = request.query.get("integrity", "1") not in ("0", "false", "no")
    body = describe(context, await context.engine.inspect(check))
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def describe(context: AppContext, seen: EngineSnapshot | None) -> EngineItem:
    """What is known, with and without the engine's own word."""
    engine = context.engine
    info = engine.info
    return EngineItem(
        state=engine.state.value,
        answered=seen is not None,
        num_restarts=engine.num_restarts,
        device=info.device if info else None,
        dtype=info.dtype if info else None,
        pid=info.pid if info else None,
        integrity=None if seen is None or seen.integrity is None else seen.integrity or "ok",
        scheduler=_scheduler(context, seen),
        kv=KvItem(
            num_blocks=engine.stats.num_blocks,
            used_blocks=engine.stats.used_blocks,
            block_size=info.block_size if info else 0,
        ),
        admission=_admission(context),
        clients=tuple(map(_client, seen.clients)) if seen else (),
        num_clients=seen.num_clients if seen else 0,
        last_steps=_steps(seen) if seen else (),
        accounts=tuple(context.busiest.top(_NUM_ACCOUNTS)),
    )


def _scheduler(context: AppContext, seen: EngineSnapshot | None) -> SchedulerItem:
    stats, info = context.engine.stats, context.engine.info
    return SchedulerItem(
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        waiting_tokens=stats.waiting_tokens,
        num_lanes=stats.num_lanes,
        max_num_lanes=info.max_num_lanes if info else 0,
        lane_limit=seen.lane_limit if seen else None,
        num_parked=seen.num_parked if seen else None,
        num_preemptions=stats.preemptions,
        num_steps=stats.steps,
        source_tokens=stats.source_tokens,
        target_tokens=stats.target_tokens,
        tokens_per_s=round(stats.tokens_per_s, 2),
    )


def _admission(context: AppContext) -> AdmissionItem:
    admission = context.translator.admission
    return AdmissionItem(
        num_segments=admission.num_segments,
        num_tokens=admission.num_tokens,
        num_inflight=len(context.translator.inflight),
        rate=admission.meter.rate,
    )


def _client(share: ClientShare) -> ClientItem:
    return ClientItem(
        client=share.client,
        priority=share.priority.name.lower(),
        num_waiting=share.num_waiting,
        waiting_tokens=share.waiting_tokens,
        num_running=share.num_running,
        num_lanes=share.num_lanes,
    )


def _steps(seen: EngineSnapshot) -> tuple[StepItem, ...]:
    return tuple(
        StepItem(
            step=step.step,
            num_sequences=step.num_sequences,
            num_lanes=step.num_lanes,
            encode_tokens=step.encode_tokens,
            step_ms=round(step.step_s * 1000, 3),
            encode_ms=round(step.encode_s * 1000, 3),
            decode_ms=round(step.decode_s * 1000, 3),
        )
        for step in seen.last_steps
    )
