from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.cli import main
from nllbd.errors import CheckpointError, InvalidValue, NotFound, NotReady
from nllbd.pull import fetch
from nllbd.pull.hub import HuggingFaceHub
from nllbd.pull.lease import Lease
from nllbd.pull.pull import Report, folder_of, pull, read_origin
from nllbd.weight_files import known_checksums, sha256, weight_files
from tests.pull.fake_hub import COMMIT, FakeHub, files_of

pytest.importorskip("huggingface_hub", reason="huggingface-hub is not installed")

FILES = files_of(DEMO_FOLDER)
WEIGHTS = "model.safetensors"
ID = "someone/tiny-nllb"
quick_lease = partial(Lease, beat_s=0.05, stale_s=1.0, poll_s=0.02)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of this machine, no pauses between attempts."""
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "_FIRST_PAUSE_S", 0.001)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(dict(FILES)) as fake:
        yield fake


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def run_pull(hub: FakeHub, model_dir: Path, **options: Any) -> bool:
    client = HuggingFaceHub(hub.url)
    return pull(client, client.find(ID, None), model_dir, lease=quick_lease, **options)


def leftovers(model_dir: Path) -> list[str]:
    return sorted(path.name for path in model_dir.iterdir() if path.name.startswith("."))


def test_a_model_arrives_whole(hub: FakeHub, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pull(hub, model_dir)
    folder = folder_of(ID, model_dir)
    assert read_checkpoint(folder).name == ID
    assert {path.name for path in folder.iterdir()} == FILES.keys() - {
        "README.md",
        "flax_model.msgpack",
        "../evil.json",
    } | {"SHA256SUMS", "ORIGIN"}
    assert known_checksums(folder)[WEIGHTS] == sha256(DEMO_FOLDER / WEIGHTS)
    origin = read_origin(folder)
    assert origin is not None
    assert (origin.model_id, origin.commit, origin.licence) == (ID, COMMIT, "cc-by-nc-4.0")
    assert leftovers(model_dir) == []
    assert main(["model", "verify", ID, "--model-dir", str(model_dir)]) == 0
    assert main(["model", "info", ID, "--model-dir", str(model_dir)]) == 0
    assert f"commit {COMMIT}" in capsys.readouterr().out
    assert not run_pull(hub, model_dir)  # it is there


def test_shards(hub: FakeHub, model_dir: Path) -> None:
    from safetensors.numpy import load, save

    tensors = sorted(load(hub.files.pop(WEIGHTS)).items())
    names = [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    weight_map = {}
    for part, name in enumerate(names):
        hub.files[name] = save(dict(tensors[part::3]))
        weight_map |= dict.fromkeys(dict(tensors[part::3]), name)
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    hub.files["pytorch_model.bin"] = b"not wanted"
    assert run_pull(hub, model_dir)
    assert [path.name for path in weight_files(folder_of(ID, model_dir))] == names


def test_cut_connections_are_continued(hub: FakeHub, model_dir: Path) -> None:
    hub.cut_after = [5_000_000, 1, 2_000_000]
    assert run_pull(hub, model_dir)
    ranges = [asked for path, asked in hub.requests if path.endswith(WEIGHTS)]
    assert ranges == [None, "bytes=5000000-", "bytes=5000001-", "bytes=7000001-"]
    assert hub.served == len(FILES[WEIGHTS])


def test_a_hub_that_knows_no_ranges(hub: FakeHub, model_dir: Path) -> None:
    hub.ranges = False
    hub.cut_after = [5_000_000]
    assert run_pull(hub, model_dir)


def test_a_pull_that_failed_is_continued_by_the_next(hub: FakeHub, model_dir: Path) -> None:
    hub.cut_after = [3_000_000] + [0] * fetch.MAX_FRUITLESS
    with pytest.raises(NotReady, match="the next pull continues"):
        run_pull(hub, model_dir)
    assert not folder_of(ID, model_dir).exists()
    hub.requests.clear()
    assert run_pull(hub, model_dir)
    assert [asked for path, asked in hub.requests if "resolve" in path] == ["bytes=3000000-"]
    assert leftovers(model_dir) == []


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_checksum_is_refused(hub: FakeHub, model_dir: Path, name: str) -> None:
    hub.corrupt = {name}
    with pytest.raises(CheckpointError, match=rf"{name}: the checksum"):
        run_pull(hub, model_dir)
    assert not folder_of(ID, model_dir).exists()
    hub.corrupt = set()
    assert run_pull(hub, model_dir)


def test_what_is_no_model_is_not_put_in_place(hub: FakeHub, model_dir: Path) -> None:
    hub.files["config.json"] = b'{"model_type": "bert"}'
    with pytest.raises(CheckpointError, match="model_type"):
        run_pull(hub, model_dir)
    assert not folder_of(ID, model_dir).exists()
    del hub.files["sentencepiece.bpe.model"]
    with pytest.raises(CheckpointError, match="no NLLB-200 checkpoint"):
        run_pull(hub, model_dir)
    hub.files["sentencepiece.bpe.model"] = FILES["sentencepiece.bpe.model"]
    del hub.files[WEIGHTS]
    with pytest.raises(CheckpointError, match="no weights"):
        run_pull(hub, model_dir)


def test_errors_of_the_hub(hub: FakeHub, model_dir: Path) -> None:
    client = HuggingFaceHub(hub.url)
    with pytest.raises(NotFound, match="no model 'some/other'"):
        client.find("some/other", None)
    for wrong in ("demo", "../x/y", "a/b/c", "/etc/passwd", "a/..", ""):
        with pytest.raises(InvalidValue):
            client.find(wrong, None)
    with pytest.raises(NotReady, match="cannot ask the hub"):
        HuggingFaceHub("http://127.0.0.1:1").find(ID, None)
    hub.fail_status = 503
    with pytest.raises(NotReady, match="503"):
        run_pull(hub, model_dir)
    hub.fail_status = 404
    with pytest.raises(NotFound, match=r"has no .*\(404\)"):
        run_pull(hub, model_dir)


def test_the_token_stays_with_the_hub(hub: FakeHub, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with FakeHub(dict(FILES)) as cdn:
        hub.elsewhere = cdn
        assert run_pull(hub, model_dir)
        assert set(hub.credentials) == {"Bearer hf_secret"}
        assert set(cdn.credentials) == {None}
        assert cdn.served == len(FILES[WEIGHTS])


def test_another_commit(hub: FakeHub, model_dir: Path) -> None:
    run_pull(hub, model_dir)
    hub.commit = "f" * 40
    with pytest.raises(CheckpointError, match="--update replaces it"):
        run_pull(hub, model_dir)
    assert run_pull(hub, model_dir, update=True)
    origin = read_origin(folder_of(ID, model_dir))
    assert origin is not None
    assert origin.commit == "f" * 40
    assert leftovers(model_dir) == []


def test_a_full_disk(hub: FakeHub, model_dir: Path) -> None:
    """Found while it is written; a report is the only thing that a pull calls back."""

    class Full(Report):
        def receiving(self, num_done: int, num_total: int) -> None:
            if num_done > 4_000_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match="no room for someone/tiny-nllb"):
        run_pull(hub, model_dir, report=Full())
    assert leftovers(model_dir) == []
    assert list(model_dir.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_is_really_full(hub: FakeHub, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with pytest.raises(CheckpointError, match="no room"):
            run_pull(hub, disk)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_two_at_once_make_one_download(hub: FakeHub, model_dir: Path) -> None:
    hub.gate = threading.Event()
    waiting = threading.Event()

    class Waits(Report):
        def waiting(self, holder: str) -> None:
            assert f"process {os.getpid()}" in holder
            waiting.set()
            assert hub.gate is not None
            hub.gate.set()

    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(run_pull(hub, model_dir, report=Waits()))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert waiting.is_set()
    assert sorted(found) == [False, True]
    assert hub.served == len(FILES[WEIGHTS])


def command(hub: FakeHub, model_dir: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "nllbd",
        "model",
        "pull",
        ID,
        "--endpoint",
        hub.url,
        "--model-dir",
        str(model_dir),
        *more,
    ]


def test_killed_and_pulled_again(hub: FakeHub, model_dir: Path) -> None:
    hub.gate = threading.Event()
    first = subprocess.Popen(command(hub, model_dir, "--accept-licence", "cc-by-nc-4.0"), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not any(path.stat().st_size for path in model_dir.glob(f".*/{WEIGHTS}.part")):
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    hub.gate.set()
    here = next(model_dir.glob(f".*/{WEIGHTS}.part")).stat().st_size
    assert leftovers(model_dir)  # its lease, too
    hub.requests.clear()
    second = subprocess.run(
        command(hub, model_dir, "--accept-licence", "cc-by-nc-4.0"), capture_output=True, text=True, timeout=100
    )
    assert second.returncode == 0, second.stderr
    assert (f"/{ID}/resolve/{COMMIT}/{WEIGHTS}", f"bytes={here}-") in hub.requests
    assert leftovers(model_dir) == []


def test_the_licence_is_shown_and_must_be_accepted(
    hub: FakeHub, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = command(hub, model_dir)[3:]
    assert main(base) == 1
    shown = capsys.readouterr()
    assert "licence: cc-by-nc-4.0" in shown.out
    assert "does not allow commercial use" in shown.out
    assert "--accept-licence cc-by-nc-4.0" in shown.err
    assert not model_dir.exists()
    assert main([*base, "--accept-licence", "mit"]) == 1
    assert main([*base, "--accept-licence", "CC-BY-NC-4.0"]) == 0
    capsys.readouterr()
    hub.licence = "apache-2.0"
    assert main([*base]) == 0
    assert "was there already" in capsys.readouterr().out


def test_the_licence_is_asked_for_on_a_terminal(hub: FakeHub, model_dir: Path) -> None:
    import pty

    for answer, code in ((b"no\n", 1), (b"y\n", 0)):
        main_end, child_end = pty.openpty()
        process = subprocess.Popen(
            command(hub, model_dir), stdin=child_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.write(main_end, answer)
        out, _ = process.communicate(timeout=60)
        os.close(main_end)
        os.close(child_end)
        assert process.returncode == code
        assert b"[y/N]" in out


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["model", "pull", ID]) == 1
    assert "pip install 'nllbd[hub]'" in capsys.readouterr().err
