"""A host is lost. An empty one gets nllbd and a backup, and serves the same keys the same translations, with the same
usage and the same glossary; how long that took is printed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ops.kit.host import Host, install_nllbd
from tests.ops.kit.programs import CHECKOUT, eventually, need, need_root

pytestmark = pytest.mark.ops

SETTINGS = 'host = "127.0.0.1"\nport = 8000\nmetrics_port = 9000\nnum_threads = 1\n'
TEXT = "The file {name} was not found."
PASSWORD = "only on paper"
REDIS_SECRET = "redis-secret-6ff3"


@contextmanager
def _host(name: str) -> Iterator[Host]:
    """A host with nllbd and the backup's scripts, and Redis behind a password."""
    with Host(name) as host:
        install_nllbd(host, settings=SETTINGS)
        for script in ("backup", "backup-verify", "restore"):
            host.copy(CHECKOUT / "deploy/backup" / script, f"/usr/local/lib/nllbd/{script}")
        host.write("/etc/nllbd/backup.toml", 'repository = "/srv/backups"\nhost = "web1"\n')
        host.write("/etc/nllbd/credentials/backup_password", PASSWORD, 0o600)
        yield host


def _ask(host: Host, key: str, method: str, path: str, body: Any = None) -> Any:
    data = [] if body is None else ["-d", json.dumps(body), "-H", "Content-Type: application/json"]
    config = f'header = "Authorization: DeepL-Auth-Key {key}"\n'
    url = f"http://127.0.0.1:8000{path}"
    done = host.run("curl", "-sS", "-K", "-", "-X", method, *data, "-w", "\n%{http_code}", url, input=config)
    content, _, status = done.stdout.rpartition("\n")
    assert status.startswith("2"), f"{method} {path}: {status} {content}"
    return json.loads(content)


def _translate(host: Host, key: str, text: str = TEXT) -> str:
    body = {"text": text, "source_lang": "en", "target_lang": "de"}
    return str(_ask(host, key, "POST", "/translate", body)["translated_text"])


def _nllbd(host: Host, *arguments: str) -> str:
    environ = {"STATE_DIRECTORY": "/var/lib/nllbd"}
    return host.run("/opt/nllbd/current/bin/nllbd", *arguments, env=environ).stdout


def _key(host: Host, key_id: str) -> dict[str, Any]:
    keys = json.loads(_nllbd(host, "keys", "list", "--json"))
    return next(it for it in keys if it["id"] == key_id)


def _redis(host: Host, *command: str) -> str:
    script = 'REDISCLI_AUTH=$(cat) redis-cli "$@"'
    return host.run("bash", "-c", script, "bash", *command, input=REDIS_SECRET).stdout.strip()


def _start_redis(host: Host) -> None:
    host.write("/etc/redis/redis.conf", _redis_conf(), 0o640)
    host.run("chgrp", "redis", "/etc/redis/redis.conf")
    host.systemctl("start", "redis-server.service")


def _redis_conf() -> str:
    lines = [
        "bind 127.0.0.1",
        "dir /var/lib/redis",
        f"requirepass {REDIS_SECRET}",
        "supervised systemd",
        "daemonize no",
    ]
    return "\n".join([*lines, "appendonly yes", "logfile ''", "save 3600 1"]).replace("''", '""') + "\n"


def _secrets(host: Host) -> None:
    host.write("/etc/nllbd/credentials/redis_url", f"redis://:{REDIS_SECRET}@127.0.0.1:6379/0", 0o600)
    host.write("/etc/nllbd/credentials/jwt_secret", "a-secret-that-signs-sessions-0123456789", 0o600)


def _use(host: Host) -> dict[str, Any]:
    """A key, a glossary, some usage; what they look like from outside."""
    made = json.loads(_nllbd(host, "keys", "create", "ada", "--json"))
    host.write("/etc/nllbd/credentials/check_key", made["key"], 0o600)
    terms = {
        "name": "house",
        "source_lang": "en",
        "target_lang": "de",
        "entries": "file\tAkte",
        "entries_format": "tsv",
    }
    glossary = _ask(host, made["key"], "POST", "/v2/glossaries", terms)
    found = {
        "id": made["id"],
        "key": made["key"],
        "glossary": glossary["glossary_id"],
        "text": _translate(host, made["key"]),
    }
    eventually(lambda: _key(host, made["id"])["characters_this_month"] >= len(TEXT), what="the booking of usage")
    return found


def test_an_empty_host_comes_back_from_a_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_root()
    need("restic", "redis-server", "curl")
    repository = tmp_path / "repository"
    with _host("web1") as host:
        _secrets(host)
        _start_redis(host)
        host.systemctl("start", "nllbd.service", timeout=120)
        before = _use(host)
        _redis(host, "SET", "witness", "here")
        host.run("/usr/local/lib/nllbd/backup", "--init", timeout=120)
        before["usage"] = _key(host, before["id"])["characters_this_month"]
        host.systemctl("start", "nllbd-backup.service", timeout=120)
        host.systemctl("start", "nllbd-backup-verify.service", timeout=120)
        verified = " ".join(entry["MESSAGE"] for entry in host.journal("nllbd-backup-verify.service"))
        assert "the same translation as on the day of the backup" in verified
        metrics = (host.root / "var/lib/prometheus/node-exporter/nllbd-backup-verify.prom").read_text("utf-8")
        assert "nllbd_backup_last_verified_timestamp_seconds" in metrics
        host.systemctl("start", "nllbd-check.service", timeout=120)
        checks = (host.root / "var/lib/prometheus/node-exporter/nllbd-check.prom").read_text("utf-8")
        for check in ("daily", "health", "translation", "engine", "backup", "usage"):
            assert f'nllbd_check_ok{{check="{check}"}} 1' in checks
        assert not list((host.root / "var/lib/nllbd-backup").glob("scratch-*")), "restored secrets were left behind"
        shutil.copytree(host.root / "srv/backups", repository)

    with _host("web2") as host:  # another machine: nothing of the first is on it
        host.run("rm", "-f", "/etc/nllbd/nllbd.toml")
        host.copy(repository, "/srv/backups")
        host.run("usermod", "-u", "931", "nllbd")  # the same name may have another number there
        host.run("chown", "-R", "nllbd:nllbd", "/var/lib/nllbd")
        began = time.monotonic()
        done = host.run("/usr/local/lib/nllbd/restore", "--no-start", timeout=180)
        _start_redis(host)
        host.systemctl("start", "nllbd.service", timeout=120)
        translation = _translate(host, before["key"])
        took = time.monotonic() - began

        assert translation == before["text"]
        assert _key(host, before["id"])["name"] == "ada"
        assert _key(host, before["id"])["characters_this_month"] >= before["usage"] > 0
        glossary = _ask(host, before["key"], "GET", f"/v2/glossaries/{before['glossary']}")
        assert (glossary["name"], glossary["entry_count"]) == ("house", 1)
        assert _redis(host, "GET", "witness") == "here"
        owner = (host.root / "var/lib/nllbd/nllbd.db").stat()
        assert owner.st_uid == 931
        mode = (host.root / "etc/nllbd/credentials/redis_url").stat()
        assert (mode.st_mode & 0o777, mode.st_uid) == (0o600, 0)
    with capsys.disabled():
        print(  # noqa: T201 - the measured time
            f"\ndisaster recovery: {took:.1f} s from an empty host to a translation; {done.stdout.splitlines()[-1]}"
        )
