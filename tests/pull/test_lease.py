from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from nllbd.errors import CheckpointError
from nllbd.pull.lease import Lease, LeaseLostError

quick = partial(Lease, beat_s=0.02, stale_s=0.5, poll_s=0.01)


def write_other(path: Path, beat: int = 0) -> None:
    path.write_text(json.dumps({"holder": "process 7 on elsewhere", "token": "other", "place": "there", "beat": beat}))


def until(condition: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_at_a_time(tmp_path: Path) -> None:
    inside = 0
    most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with quick(tmp_path / "lease"):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_beats_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    write_other(path)
    holders: list[str] = []
    beats = 0

    def beat(holder: str) -> None:
        nonlocal beats
        holders.append(holder)
        beats += 1
        if beats < 100:
            write_other(path, beats)
        else:
            path.unlink(missing_ok=True)

    with quick(path, beat) as lease:
        lease.check()
    assert beats >= 100
    assert set(holders) == {"process 7 on elsewhere"}


def test_a_dead_holder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    write_other(path)
    started = time.monotonic()
    with quick(path):
        assert time.monotonic() - started >= 0.5
        assert json.loads(path.read_text())["token"] != "other"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_a_damaged_lease_is_a_dead_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lease"
    path.write_text(content)
    with quick(path) as lease:
        lease.check()


def test_who_lost_it_stops_and_leaves_the_other_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with quick(path) as lease:
        write_other(path)
        until(lambda: _is_lost(lease))
    assert json.loads(path.read_text())["token"] == "other"


def _is_lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"), quick(tmp_path / "nowhere" / "lease"):
        pass
