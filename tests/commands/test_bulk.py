"""`nllbd bulk` as its user runs it: killed again and again, beside a daemon that comes and goes."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nllbd.cli import main
from nllbd.commands.bulk import SOME_FAILED

WAIT_S = 60


def start(*arguments: object, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nllbd", "bulk", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | environ, stderr=subprocess.PIPE, text=True)


def records_done(out: Path) -> int:
    try:
        return int(json.loads(out.with_name(out.name + ".progress").read_text())["records"])
    except FileNotFoundError:
        return -1


def test_killed_at_random_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """The echo runner in a process of its own; SIGKILL at some moment after it got on."""
    chance = random.Random(7)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"the file number {number} was not found" for number in range(1500)]
    source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    kills = 0
    while not out.exists():
        before = records_done(out)
        process = start(source, out, "--from", "en", "--to", "fr", NLLBD_RUNNER="fake:step_ms=4")
        end = time.monotonic() + WAIT_S
        further = before + chance.randint(1, 400)
        while kills < 4 and records_done(out) < further and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.001)
        if kills < 4 and process.poll() is None:
            time.sleep(chance.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, shown = process.communicate(timeout=WAIT_S)
        assert process.returncode in (0, -signal.SIGKILL), shown
    assert kills >= 3
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(1500))
    assert [row["text_fra_Latn"] for row in rows] == texts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_table_with_the_demo_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,text\n1,Where is the train station?\n2,zxqj qwrt\n3,"12:30"\n4,\n')
    assert main(["bulk", str(source), str(out), "--to", "French"]) == SOME_FAILED
    rows = list(csv.reader(out.open(newline="")))
    assert rows[0] == ["id", "text", "text_fra_Latn"]
    assert rows[1][2] == "Où est la gare ?"
    assert [row[2] for row in rows[2:]] == ["zxqj qwrt", "12:30", ""]
    shown = capfd.readouterr()
    assert "record 2: language_not_detected" in shown.err
    assert f"ok: {out}, 4 records, 1 untranslated (see {out}.failed)" in shown.out


async def test_a_daemon(service: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("".join(f"Line {number}.\n" for number in range(300)) + "\n" * 40)
    arguments = ["bulk", str(source), str(out), "--from", "en", "--to", "fr", "--url", service.url]
    assert await asyncio.to_thread(main, arguments) == 0
    assert out.read_text() == source.read_text()
    assert 'nllbd_http_requests_total{method="POST",route="/translate",status="200"}' in await service.scrape()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in.txt", "in.txt", "--to", "fr"], "the same file"),
        (["nowhere.txt", "out.txt", "--to", "fr"], "nowhere.txt: No such file"),
        (["in.doc", "out.doc", "--to", "fr"], "say which with --format"),
        (["in.txt", "out.txt", "--to", "klingon"], "unknown language"),
        (["in.txt", "no/such/out.txt", "--to", "fr"], "No such file"),
        (["in.txt", "out.txt", "--to", "fr", "--url", "ftp://x"], "--url"),
    ],
)
def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in.txt", "in.doc"):
        (tmp_path / name).write_text("Hello.\n")
    assert main(["bulk", *arguments]) == 1
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1
