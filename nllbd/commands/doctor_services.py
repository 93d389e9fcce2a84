"""What `nllbd doctor` finds out about the services behind the daemon: Redis, and the database."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nllbd.commands.output import human_bytes
from nllbd.config import Settings, state_folder
from nllbd.config.kinds import mask_url
from nllbd.redis_wire import RedisProblem, look_at

TIMEOUT_S = 3.0
#: Policies of a full Redis that throw no bucket out before its time.
_KEEPS_BUCKETS = frozenset({"noeviction", "volatile-ttl"})

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `advice` says what to do unless the verdict is ok."""

    verdict: Verdict
    subject: str
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:4}  {self.subject:9} {self.seen}"
        return f"{line}: {self.advice}" if self.advice else line


def check_redis(settings: Settings) -> Finding:
    """Redis lets us in, and when it is full it forgets rather than refuses."""
    if settings.redis_url is None:
        return Finding("ok", "redis", "none is set: nothing is shared between hosts")
    return _redis("redis", "redis_url", settings.redis_url, evicts=True)


def check_rates(settings: Settings) -> Finding:
    """The Redis of rate limits lets us in, and forgets no bucket: a forgotten one is a full one."""
    if settings.rate_limit_redis_url is None:
        where = "each host counts for itself" if settings.redis_url is None else "shared through redis_url"
        return Finding("ok", "rates", f"rate_limit_redis_url is not set: {where}")
    return _redis("rates", "rate_limit_redis_url", settings.rate_limit_redis_url, evicts=False)


def _redis(subject: str, setting: str, url: str, *, evicts: bool) -> Finding:
    where = mask_url(url)
    try:
        facts = asyncio.run(look_at(url, TIMEOUT_S))
    except (RedisProblem, ValueError, KeyError) as error:
        seen = f"{where} does not serve us ({error})"
        return Finding("warn", subject, seen, f"nllbd does without: start it, or check {setting}")
    seen = f"{where} answers, version {facts.version}"
    if facts.max_memory_bytes == 0:
        return Finding("warn", subject, f"{seen}, without a bound on its memory", "set maxmemory")
    seen += f", {human_bytes(facts.max_memory_bytes)}, {facts.policy}"
    if evicts and facts.policy == "noeviction":
        advice = "for the cache set maxmemory-policy allkeys-lru: a full one refuses what is new"
        return Finding("warn", subject, seen, advice)
    if not evicts and facts.policy not in _KEEPS_BUCKETS:
        advice = "for rate limits set maxmemory-policy noeviction: a bucket that is thrown out lets everybody through"
        return Finding("warn", subject, seen, advice)
    return Finding("ok", subject, seen)


def check_database(settings: Settings) -> Finding:
    """The database's server accepts a connection; a file can be read, and its folder written."""
    if settings.database_url is None:
        return _file(state_folder() / "nllbd.db")
    url = urlsplit(settings.database_url)
    if url.scheme.startswith("sqlite"):
        return _file(Path(url.path.removeprefix("/")))
    where = mask_url(settings.database_url)
    try:
        socket.create_connection((url.hostname or "localhost", url.port or 5432), timeout=TIMEOUT_S).close()
    except OSError as error:
        return Finding("fail", "database", f"{where} cannot be reached ({error})", "start it, or check database_url")
    return Finding("ok", "database", f"{where} accepts connections")


def _file(path: Path) -> Finding:
    """A database that cannot be read may hold keys, so that the daemon lets nobody in by them until it can."""
    finding = _writable("database", path.parent)
    if finding.verdict == "fail" or not path.exists() or not path.stat().st_size:
        return finding
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as database:
            (num_keys,) = database.execute("SELECT count(*) FROM keys").fetchone()
    except sqlite3.Error as error:
        advice = "unlock it, or restore it from a backup; until then stored keys are answered 503"
        return Finding("fail", "database", f"{path} cannot be read ({error})", advice)
    return Finding("ok", "database", f"{path} can be read, {num_keys} keys in it")


def _writable(subject: str, folder: Path) -> Finding:
    found = existing(folder)
    if os.access(found, os.W_OK | os.X_OK):
        return Finding("ok", subject, f"{folder} is writable" if found == folder else f"{folder} can be made")
    return Finding("fail", subject, f"{found} is not writable", "give it to the user that runs nllbd")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(it for it in (folder.absolute(), *folder.absolute().parents) if it.exists())
