"""The secret: the configured one, else one that is made once and kept."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nllbd.cache.secret import load_secret


def test_the_configured_one_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert load_secret("pässword", tmp_path) == "pässword".encode()
    assert not list(tmp_path.iterdir())


def test_without_one_it_is_made_once_for_our_eyes_only(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "nllbd"
    made = load_secret(None, folder)
    assert len(made) >= 32
    assert load_secret(None, folder) == made
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_many_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        made = set(threads.map(lambda _: load_secret(None, tmp_path), range(64)))
    assert len(made) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_where_nothing_can_be_written_it_lasts_as_long_as_the_process(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Path(f"/proc/{os.getpid()}/nllbd")
    made = load_secret(None, nowhere)
    assert len(made) == 32
    assert load_secret(None, nowhere) != made
    assert made.hex() not in caplog.text


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "cache_secret").write_bytes(b"\n")
    assert len(load_secret(None, tmp_path)) == 32
