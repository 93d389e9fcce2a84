"""What keys and usage cost a request, and what the database behind them takes: microseconds and milliseconds.

    python -m bench.micro_store [--bookings 20000] [--keys 1000] [--folder DIR]

A request costs one look-up of its key and one booking (memory, and one record handed to the kernel for the journal);
neither waits for the database, which here is SQLite in a folder of the disk that `--folder` names. Printed are median,
99th percentile and the longest.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from bench import common
from nllbd.principal import Scope
from nllbd.store import key_text
from nllbd.store.journal import Journal
from nllbd.store.keys import KeyCache
from nllbd.store.records import KeyRecord, UsageEntry
from nllbd.store.store import Store
from nllbd.store.usage import UsageMeter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    args = parser.parse_args()
    print(common.headline(vars(args)))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        asyncio.run(measure(Path(folder), args.bookings, args.keys))
    seconds = [run_python("import nllbd.store.store") - run_python("pass") for _ in range(5)]
    show("import of the store (in a thread)", seconds, 1e3, "ms")


async def measure(folder: Path, num_bookings: int, num_keys: int) -> None:
    url = f"sqlite+aiosqlite:///{folder / 'store.db'}"
    began = time.perf_counter()
    store = await Store.open(url)
    show("first start: tables made", [time.perf_counter() - began], 1e3, "ms")
    await store.close()
    began = time.perf_counter()
    store = await Store.open(url)
    show("later start: tables looked at", [time.perf_counter() - began], 1e3, "ms")
    texts = [await add_key(store, number) for number in range(num_keys)]
    began = time.perf_counter()
    cache = KeyCache()
    cache.attach(store)
    await cache.refresh()
    show(f"{num_keys} keys read", [time.perf_counter() - began], 1e3, "ms")
    show("look-up of a key", [await find(cache, texts[turn % num_keys]) for turn in range(num_bookings)], 1e6, "µs")
    journal, _ = Journal.open(folder / "usage")
    meter = UsageMeter(journal)
    entries = [UsageEntry(f"key:{number}", date.today(), 120, 1, 3, 40, 42) for number in range(num_keys)]
    show("booking", [book(meter, entries[turn % num_keys]) for turn in range(num_bookings)], 1e6, "µs")
    began = time.perf_counter()
    await meter.flush(store)
    show(f"flush of {num_keys} accounts", [time.perf_counter() - began], 1e3, "ms")
    await meter.close(store)
    await store.close()


async def add_key(store: Store, number: int) -> str:
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    scopes = frozenset({Scope.TRANSLATE})
    await store.add_key(KeyRecord(key_id, f"key {number}", key_text.digest(text), scopes, datetime.now(UTC)))
    return text


async def find(cache: KeyCache, text: str) -> float:
    began = time.perf_counter()
    found = await cache.find(text)
    spent = time.perf_counter() - began
    assert found is not None
    return spent


def book(meter: UsageMeter, entry: UsageEntry) -> float:
    began = time.perf_counter()
    meter.book(entry)
    return time.perf_counter() - began


def run_python(script: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True)
    return time.perf_counter() - began


def show(what: str, samples: Iterable[float], scale: float, unit: str) -> None:
    known = [sample * scale for sample in samples]
    median, high = common.percentile(known, 50), common.percentile(known, 99)
    spread = f"   p99 {high:8.1f}   longest {max(known):8.1f}" if len(known) > 1 else ""
    print(f"{what:36} {median:8.1f} {unit}{spread}")


if __name__ == "__main__":
    main()
