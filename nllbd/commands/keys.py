"""API keys of the daemon's database: `create` and `rotate` show a key once, `list` shows all but the keys themselves.

They work on the database directly, whether or not a daemon runs. A running daemon accepts a new key at once, and a
revoked one no longer than 5 s, on every host that shares the database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from nllbd.accounts import store_url
from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import print_line, print_table
from nllbd.config.table import ROWS_BY_NAME
from nllbd.errors import InvalidValue, NotFound, StoreUnavailable
from nllbd.principal import Scope
from nllbd.sched.sequence import Priority
from nllbd.store import key_text
from nllbd.store.records import AuditEvent, KeyLimits, KeyRecord

if TYPE_CHECKING:
    from nllbd.store.store import Store

_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_NAME = 100
_MAX_NUMBER = 2**31 - 1
_MAX_CHARACTERS = 2**53
_DEFAULT_OVERLAP = timedelta(hours=24)
_SETTINGS = ("database_url",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and show it, this once")
    create.add_argument("name", metavar="NAME", type=_name, help="whose key it is: for lists and logs")
    create.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what it is good for; may be given twice (default: translate)",
    )
    _add_expiry(create, "never")
    create.add_argument("--rate-per-minute", type=_count(_MAX_NUMBER), metavar="N", help="default: the server's")
    create.add_argument("--rate-burst", type=_count(_MAX_NUMBER), metavar="N", help="default: the server's")
    create.add_argument(
        "--monthly-characters", type=_count(_MAX_CHARACTERS), metavar="N", help="quota a month, UTC (default: none)"
    )
    create.add_argument("--priority", choices=["interactive", "bulk"], default="interactive", help="highest it may ask")
    shown = actions.add_parser("list", help="active keys, with what they used this month")
    shown.add_argument("--all", action="store_true", help="revoked and expired ones, too")
    revoke = actions.add_parser("revoke", help="end keys and their sessions, within 5 s")
    revoke.add_argument("keys", nargs="+", metavar="KEY", help="ids, or names if only one active key has them")
    rotate = actions.add_parser("rotate", help="make a new key in place of an old one, which goes on for a while")
    rotate.add_argument("key", metavar="KEY", help="id, or name if only one active key has it")
    rotate.add_argument(
        "--overlap", type=_duration, default=_DEFAULT_OVERLAP, metavar="TIME", help="how long both work (default: 24h)"
    )
    _add_expiry(rotate, "as long after now as the old one had")
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true", help="for programs")
        add_settings(action, _SETTINGS)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    url = store_url(settings)
    actions: dict[str, Callable[[Store, argparse.Namespace], Awaitable[None]]] = {
        "create": _create,
        "list": _list,
        "revoke": _revoke,
        "rotate": _rotate,
    }
    where = shown_url(url)
    try:
        asyncio.run(_with_store(url, actions[args.action], args))
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{where}: {error.message}") from None
    if not args.json:
        sys.stderr.write(f"database: {where}\n")
    return 0


def shown_url(url: str) -> str:
    """A path or a URL, without its password."""
    kind, _, path = url.partition(":///")
    return path if kind.startswith("sqlite") else str(ROWS_BY_NAME["database_url"].shown(url))


async def _with_store(
    url: str, act: Callable[[Store, argparse.Namespace], Awaitable[None]], args: argparse.Namespace
) -> None:
    from nllbd.store.store import Store  # SQLAlchemy: not before it is needed

    store = await Store.open(url)
    try:
        await act(store, args)
    finally:
        await store.close()


async def _create(store: Store, args: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    if taken := [key.id for key in await store.list_keys() if key.name == args.name and key.is_active(now)]:
        raise InvalidValue(f"there is an active key of that name ({', '.join(taken)}): rotate it, or choose another")
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    key = KeyRecord(
        id=key_id,
        name=args.name,
        digest=key_text.digest(text),
        scopes=frozenset(map(Scope, args.scopes or [Scope.TRANSLATE])),
        created_at=now,
        limits=KeyLimits(
            rate_per_minute=args.rate_per_minute,
            rate_burst=args.rate_burst,
            monthly_characters=args.monthly_characters,
            top_priority=Priority[args.priority.upper()],
        ),
        expires_at=_expiry(args.expires, now),
    )
    await store.add_key(key, _event("key.created", key, now))
    _show_new(key, text, args.json)


async def _rotate(store: Store, args: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    old = _find(await store.list_keys(), args.key, now)
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    key = KeyRecord(
        id=key_id,
        name=old.name,
        digest=key_text.digest(text),
        scopes=old.scopes,
        created_at=now,
        limits=old.limits,
        expires_at=_expiry_like(old, now) if args.expires is None else _expiry(args.expires, now),
        replaces=old.id,
        family=old.family or old.id,
    )
    ends_at = now + args.overlap
    if old.expires_at is not None:
        ends_at = min(ends_at, old.expires_at)
    event = _event("key.rotated", key, now, replaces=old.id, old_ends=_moment(ends_at))
    await store.replace_key(old.id, ends_at, key, event)
    _show_new(key, text, args.json, old_key_ends=_moment(ends_at))


async def _revoke(store: Store, args: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    known = await store.list_keys()
    keys = [_find(known, wanted, now) for wanted in args.keys]  # all are known before one is revoked
    for key in keys:
        await store.revoke_key(key.id, now, _event("key.revoked", key, now))
    if args.json:
        print_line(json.dumps([{"id": key.id, "name": key.name, "revoked_at": _moment(now)} for key in keys]))
        return
    for key in keys:
        print_line(f"revoked {key.id} ({key.name}); running daemons refuse it within 5 s")


async def _list(store: Store, args: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    keys = [key for key in await store.list_keys() if args.all or key.is_active(now)]
    used = await store.usage_totals(now.date().replace(day=1), now.date(), {key.account for key in keys})
    if args.json:
        print_line(json.dumps([_as_json(key, now, used.get(key.account, 0)) for key in keys], ensure_ascii=False))
        return
    header = ("ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "STATUS", "USED THIS MONTH", "QUOTA", "RATE/MIN")
    print_table(header, (_as_row(key, now, used.get(key.account, 0)) for key in keys))


def _find(keys: Sequence[KeyRecord], wanted: str, now: datetime) -> KeyRecord:
    """The key with this id, or the only active one with this name. Raises NotFound, InvalidValue."""
    wanted_id = wanted.split("_")[1] if key_text.is_key_text(wanted) else wanted
    found = [key for key in keys if key.id == wanted_id]
    found = found or [key for key in keys if key.name == wanted and key.is_active(now)]
    if not found:
        raise NotFound(f"no active key has this id or name: {wanted_id!r}; `nllbd keys list` shows them")
    if len(found) > 1:
        raise InvalidValue(f"{len(found)} active keys have this name; say which: {', '.join(key.id for key in found)}")
    if not found[0].is_active(now):
        raise InvalidValue(f"key {found[0].id} is {_status(found[0], now)} already")
    return found[0]


def _show_new(key: KeyRecord, text: str, as_json: bool, **more: str) -> None:
    if as_json:
        print_line(json.dumps({"key": text, **_as_json(key, key.created_at, 0), **more}, ensure_ascii=False))
        return
    facts = {
        "key": text,
        "id": key.id,
        "name": key.name,
        "scopes": _scopes(key),
        "expires": _moment(key.expires_at) or "never",
        **{name.replace("_", " "): value for name, value in more.items()},
    }
    for name, value in facts.items():
        print_line(f"{name:13} {value}")
    sys.stderr.write("Keep the key now: only a hash of it is stored. Running daemons accept it from now on.\n")


def _as_json(key: KeyRecord, now: datetime, used: int) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "status": _status(key, now),
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at) or None,
        "revoked_at": _moment(key.revoked_at) or None,
        "replaces": key.replaces,
        "account": key.account,
        "characters_this_month": used,
        "monthly_characters": key.limits.monthly_characters,
        "rate_per_minute": key.limits.rate_per_minute,
        "rate_burst": key.limits.rate_burst,
        "top_priority": key.limits.top_priority.name.lower(),
    }


def _as_row(key: KeyRecord, now: datetime, used: int) -> tuple[str, ...]:
    limits = key.limits
    return (
        key.id,
        key.name,
        _scopes(key),
        key.created_at.date().isoformat(),
        key.expires_at.strftime("%Y-%m-%d %H:%M") if key.expires_at else "never",
        _status(key, now),
        str(used),
        "none" if limits.monthly_characters is None else str(limits.monthly_characters),
        "server's" if limits.rate_per_minute is None else str(limits.rate_per_minute),
    )


def _status(key: KeyRecord, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_active(now) else "expired"


def _scopes(key: KeyRecord) -> str:
    return ",".join(sorted(key.scopes))


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="seconds")


def _event(action: str, key: KeyRecord, at: datetime, **details: str) -> AuditEvent:
    return AuditEvent(at, f"cli:{_user()}", action, key.id, {"name": key.name, **details})


def _user() -> str:
    """Who runs this, behind sudo too."""
    if os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


# What arguments look like


def _add_expiry(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--expires",
        type=_time,
        metavar="TIME",
        help=f"90d, 12h, 2w, a date such as 2027-01-31 (UTC), or never (default: {default})",
    )


def _expiry(given: timedelta | datetime | None, now: datetime) -> datetime | None:
    if given is None or given == timedelta.max:
        return None
    return now + given if isinstance(given, timedelta) else given


def _expiry_like(old: KeyRecord, now: datetime) -> datetime | None:
    """As long after now as the old key's expiry was after its making."""
    if old.expires_at is None:
        return None
    try:
        return now + (old.expires_at - old.created_at)
    except OverflowError:
        raise InvalidValue(f"key {old.id} was made to last beyond the year 9999; give --expires, or never") from None


def _time(text: str) -> timedelta | datetime:
    """A moment in the future, or a time from now; `timedelta.max` for never."""
    if text == "never":
        return timedelta.max
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _duration(text)
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} is beyond the calendar, seen from UTC") from None
    if moment <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text} has passed")
    return moment


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give 30m, 12h, 90d or 2w")
    seconds = int(match[1]) * _UNITS_S[match[2]]
    if seconds > (date.max - date.today()).days * 86400 // 2:
        raise argparse.ArgumentTypeError(f"{text} is too long")
    return timedelta(seconds=seconds)


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _MAX_NAME:
        raise argparse.ArgumentTypeError(f"a name is 1 to {_MAX_NAME} printable characters")
    return text


def _count(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 18 and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
        return int(text)

    return parse
