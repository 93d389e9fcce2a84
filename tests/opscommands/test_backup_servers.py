"""The servers that a backup copies, as their URLs name them: what the daemon reaches, the backup reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from nllbd.ops.backup import redis
from nllbd.ops.backup.postgres import Server

HOUSE = "postgresql+asyncpg://nllbd:PW@10.0.1.21,10.0.1.22/nllbd?sslmode=verify-full&sslrootcert=/etc/nllbd/ca.crt"


@pytest.mark.parametrize(
    ("url", "conninfo"),
    [
        (
            HOUSE,
            "host='10.0.1.21,10.0.1.22' port='5432,5432' user='nllbd' dbname='nllbd' sslmode='verify-full' "
            "target_session_attrs='read-write' sslrootcert='/etc/nllbd/ca.crt'",
        ),
        (
            "postgresql+asyncpg://n:p@/d?host=a:5433&host=[::1]&target_session_attrs=any",
            "host='a,::1' port='5433,5432' user='n' dbname='d' target_session_attrs='any'",
        ),
        ("postgresql+asyncpg://n:p@h:5434/d", "host='h' port='5434' user='n' dbname='d'"),
        ("postgresql+asyncpg://n@/d?host=/run/postgresql", "host='/run/postgresql' port='5432' user='n' dbname='d'"),
    ],
)
def test_postgresql_as_the_url_says(url: str, conninfo: str) -> None:
    assert Server.from_url(url).conninfo == conninfo


def test_a_restored_snapshot_has_the_name_that_its_redis_reads(tmp_path: Path) -> None:
    redis.put(iter([b"REDIS0010"]), tmp_path, appendonly=False, dbfilename="dump-cache.rdb")
    assert [path.name for path in tmp_path.iterdir()] == ["dump-cache.rdb"]
    redis.put(iter([b"REDIS0010"]), tmp_path, appendonly=False, dbfilename="../elsewhere.rdb")
    assert (tmp_path / "elsewhere.rdb").exists()
