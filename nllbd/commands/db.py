"""The tables of keys, usage and audit log, when a new version needs them changed.

  nllbd db check       which revision the database is at, and whether this version needs another; exit code 1 if so
  nllbd db upgrade     change what is missing: under a lock, so once, however many hosts call it at a time

A daemon upgrades at its start what nobody has upgraded before; on large databases do it before, with more time. The
version before goes on serving from an upgraded database (migrations only add), and a database that a later version has
upgraded is served as it is: there is nothing to take back when that version is.
"""

from __future__ import annotations

import argparse
import asyncio

from nllbd.accounts import store_url
from nllbd.commands.keys import shown_url
from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import print_line
from nllbd.errors import StoreUnavailable

_WITHIN_S = 600
_OUTDATED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="is the database at what this version needs?")
    upgrade = actions.add_parser("upgrade", help="bring it there")
    upgrade.add_argument(
        "--within",
        type=_seconds,
        default=_WITHIN_S,
        metavar="SECONDS",
        help=f"give up after that (default: {_WITHIN_S})",
    )
    for action in (check, upgrade):
        add_settings(action, ("database_url",))


def run(args: argparse.Namespace) -> int:
    url = store_url(settings_from(args))
    where = shown_url(url)
    try:
        if args.action == "check":
            return asyncio.run(_check(url, where))
        return asyncio.run(_upgrade(url, where, args.within))
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{where}: {error.message}") from None


async def _check(url: str, where: str) -> int:
    from nllbd.store.database import Database  # SQLAlchemy: not before it is needed
    from nllbd.store.migrate import HEAD, is_older

    database = await Database.connect(url)
    try:
        found = await database.revision()
    finally:
        await database.close()
    if is_older(found):
        print_line(f"{where}: at revision {found or 'none'}, this version needs {HEAD}: run `nllbd db upgrade`")
        return _OUTDATED
    later = "" if found == HEAD else f" of a later version; this one knows {HEAD} and serves from it"
    print_line(f"{where}: at revision {found}{later}")
    return 0


async def _upgrade(url: str, where: str, within_s: int) -> int:
    from nllbd.store.database import Database

    database = await Database.connect(url, statement_s=within_s)
    try:
        former = await database.revision()
        is_changed = await database.migrate(within_s, lock_s=within_s)
        found = await database.revision()
    finally:
        await database.close()
    if is_changed:
        print_line(f"{where}: upgraded from revision {former or 'none'} to {found}")
    else:
        print_line(f"{where}: nothing to do, at revision {found}")
    return 0


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return int(text)
