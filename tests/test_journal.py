"""Entries for systemd's journal, over a real datagram socket in the journal's place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nllbd.journal import journal_stream


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(20)
        yield listening, str(tmp_path / "journal")


def read_entry(entry: bytes) -> dict[str, str]:
    """As journald reads it: NAME=value, or NAME, a length, that many bytes."""
    fields = {}
    while entry:
        name, _, entry = entry.partition(b"\n")
        if b"=" in name:
            name, _, value = name.partition(b"=")
        else:
            length = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + length], entry[9 + length :]
        fields[name.decode()] = value.decode()
    return fields


def stream_id(file: int) -> str:
    status = os.fstat(file)
    return f"{status.st_dev}:{status.st_ino}"


def test_each_value_becomes_a_field(journal: tuple[socket.socket, str], tmp_path: Path) -> None:
    listening, address = journal
    with (tmp_path / "stderr").open("w") as file:
        stream = journal_stream({"JOURNAL_STREAM": stream_id(file.fileno())}, file.fileno(), address)
    assert stream is not None
    line = '{"event":"request","level":"warning","status":503,"request-id":"a1","frames":["x"],"code":null}'
    stream.write(f'{line}\nnot JSON\n{{"event":"two\\nlines","level":"error"}}\n')
    first, second, third = (read_entry(listening.recv(1 << 16)) for _ in range(3))
    assert first == {
        "MESSAGE": line,
        "SYSLOG_IDENTIFIER": "nllbd",
        "PRIORITY": "4",
        "NLLBD_EVENT": "request",
        "NLLBD_LEVEL": "warning",
        "NLLBD_STATUS": "503",
        "NLLBD_REQUEST_ID": "a1",
    }
    assert second == {"MESSAGE": "not JSON", "SYSLOG_IDENTIFIER": "nllbd"}
    assert (third["NLLBD_EVENT"], third["PRIORITY"]) == ("two\nlines", "3")
    stream.close()


def test_a_line_that_is_too_long_is_cut_not_lost(journal: tuple[socket.socket, str], tmp_path: Path) -> None:
    listening, address = journal
    with (tmp_path / "stderr").open("w") as file:
        stream = journal_stream({"JOURNAL_STREAM": stream_id(file.fileno())}, file.fileno(), address)
    assert stream is not None
    stream.write("x" * (1 << 20) + "\n")
    assert read_entry(listening.recv(1 << 20))["MESSAGE"].startswith("MESSAGE=xxx")
    stream.close()


def test_only_where_standard_error_is_the_journal(journal: tuple[socket.socket, str], tmp_path: Path) -> None:
    _, address = journal
    with (tmp_path / "stderr").open("w") as file:
        for environ in ({}, {"JOURNAL_STREAM": "1:1"}, {"JOURNAL_STREAM": "nonsense"}):
            assert journal_stream(environ, file.fileno(), address) is None
        here = {"JOURNAL_STREAM": stream_id(file.fileno())}
        assert journal_stream(here, file.fileno(), str(tmp_path / "nobody")) is None
        assert journal_stream(here, 987, address) is None


def test_the_log_goes_there_by_itself(journal: tuple[socket.socket, str], tmp_path: Path) -> None:
    listening, address = journal
    script = (
        "import sys; from nllbd import journal, log; journal.journal_stream.__defaults__ = (sys.argv[1],); "
        "output = log.configure(); log.get_logger('nllbd.x').warning('hello', text='secret', n=1); output.close()"
    )
    with (tmp_path / "stderr").open("w+") as file:
        environ = {**os.environ, "JOURNAL_STREAM": stream_id(file.fileno())}
        subprocess.run([sys.executable, "-c", script, address], stderr=file, env=environ, check=True, timeout=60)
        file.seek(0)
        assert file.read() == ""
    entry = read_entry(listening.recv(1 << 16))
    assert (entry["NLLBD_EVENT"], entry["NLLBD_N"], entry["PRIORITY"]) == ("hello", "1", "4")
    assert "secret" not in str(entry)
