"""`nllbd ops` against a real application in process: what each check says of good hosts and of bad ones."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nllbd.cli import main
from nllbd.ops import daily, exposure, figures, keyaudit, logs, monthly, weekly
from nllbd.ops.backup.plan import read_plan
from nllbd.ops.settings import OpsSettings, read_ops_settings
from nllbd.store.records import AuditEvent, KeyRecord, UsageBatch, UsageEntry
from nllbd.store.store import Store
from tests.conftest import StartService

NOW = datetime.now(UTC)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of the commands, and an ops.toml that looks nowhere else."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir(mode=0o700)
    (tmp_path / "textfiles").mkdir()
    (tmp_path / "nllbd.toml").write_text("", encoding="utf-8")
    lines = {"credentials": tmp_path / "credentials", "textfiles": tmp_path / "textfiles"}
    lines |= {"contacts": tmp_path / "contacts.md"}
    text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    (tmp_path / "ops.toml").write_text(text + f'certificates = ["{tmp_path}/*.pem"]\n', encoding="utf-8")
    return folder


async def _store(state: Path, fill: Callable[[Store], Any]) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{state}/nllbd.db")
    await fill(store)
    await store.close()


def _key(key_id: str = "k", days_old: int = 1, **more: Any) -> KeyRecord:
    return KeyRecord(key_id, "ada", key_id.encode().ljust(32), frozenset(), NOW - timedelta(days=days_old), **more)


async def _ops(state: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    folder = state.parent
    common = ["--config", str(folder / "nllbd.toml"), "--ops-config", str(folder / "ops.toml")]
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["ops", *arguments, *common])
    return code, capsys.readouterr()


def _verdicts(output: str) -> dict[str, str]:
    return {item["check"]: item["verdict"] for item in json.loads(output)["items"]}


def _backups(state: Path, age_h: float, verified_d: float | None = 1.0) -> None:
    samples = {'nllbd_backup_last_success_timestamp_seconds{kind="database"}': time.time() - 3600 * age_h}
    # once a week, and maybe elsewhere: no late backup
    samples['nllbd_backup_last_success_timestamp_seconds{kind="pgbackrest-full"}'] = time.time() - 3600 * 100
    if verified_d is not None:
        samples["nllbd_backup_last_verified_timestamp_seconds"] = time.time() - 86400 * verified_d
    text = "".join(f"{name} {value}\n" for name, value in samples.items())
    (state.parent / "textfiles/nllbd-backup.prom").write_text(text, encoding="utf-8")


async def test_a_good_host_passes_the_daily_list(
    state: Path, start_service: StartService, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await start_service()
    await _store(state, lambda store: store.add_key(_key()))
    _backups(state, 3)
    urls = ("--url", service.url, "--metrics-url", f"http://127.0.0.1:{service.metrics_port}")
    textfile = state.parent / "textfiles/check.prom"
    code, output = await _ops(state, capsys, "daily", "--json", "--textfile", str(textfile), *urls)
    assert code == 0, output.out
    found = _verdicts(output.out)
    assert {found[name] for name in ("health", "translation", "engine", "backup", "usage")} == {"ok"}
    assert found["dashboards"] == "todo"
    assert 'nllbd_check_ok{check="daily"} 1' in textfile.read_text("utf-8")
    assert 'nllbd_check_last_success_timestamp_seconds{check="translation"}' in textfile.read_text("utf-8")
    code, output = await _ops(state, capsys, "daily", "--json", *urls)
    assert _verdicts(output.out)["traffic"] == "ok", "compared with the look before"


async def test_a_host_without_daemon_and_backup_fails_the_daily_list(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each check says why; none keeps another from being run."""
    await _store(state, lambda store: store.add_key(_key()))
    textfile = state.parent / "textfiles/check.prom"
    urls = ("--url", "http://127.0.0.1:9", "--metrics-url", "http://127.0.0.1:9")
    code, output = await _ops(state, capsys, "daily", "--json", "--textfile", str(textfile), *urls)
    assert code == 1
    found = _verdicts(output.out)
    assert {found[name] for name in ("health", "translation", "engine", "backup")} == {"fail"}
    assert found["disk"] in ("ok", "warn")
    assert 'nllbd_check_ok{check="translation"} 0' in textfile.read_text("utf-8")


async def test_an_old_backup_fails(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await _store(state, lambda store: store.add_key(_key()))
    _backups(state, 30)
    urls = ("--url", "http://127.0.0.1:9", "--metrics-url", "http://127.0.0.1:9")
    _, output = await _ops(state, capsys, "daily", "--json", *urls)
    assert _verdicts(output.out)["backup"] == "fail"


async def test_guessing_and_unusual_use_are_seen(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = NOW.date()

    async def fill(store: Store) -> None:
        events = [
            AuditEvent(NOW, "192.0.2.7", "authentication.failed", details={"reason": "unknown_key"}),
            AuditEvent(NOW, "192.0.2.7", "authentication.failed", details={"more": "899"}),
        ]
        await store.add_audit(events)
        usual = [UsageEntry("key:a", today - timedelta(days=age), 1000) for age in range(1, 15)]
        await store.book_usage(UsageBatch("b", (*usual, UsageEntry("key:a", today, 5_000_000))))

    await _store(state, fill)
    urls = ("--url", "http://127.0.0.1:9", "--metrics-url", "http://127.0.0.1:9")
    _, output = await _ops(state, capsys, "daily", "--json", *urls)
    items = {item["check"]: item for item in json.loads(output.out)["items"]}
    assert items["failed authentications"]["verdict"] == "warn"
    assert "192.0.2.7 900" in items["failed authentications"]["seen"]
    assert items["usage"]["verdict"] == "warn"
    assert "key:a 5000000" in items["usage"]["seen"]


APT = """#!/bin/sh
echo 'Inst libssl3 [3.0.11] (3.0.15 Debian-Security:12/stable-security [amd64])'
"""


async def test_a_backup_that_was_never_verified_fails_the_weekly_list(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt is one that answers at once."""
    (state / "apt-get").write_text(APT, encoding="utf-8")
    (state / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{state}:{os.environ['PATH']}")
    await _store(state, lambda store: store.add_key(_key()))
    _backups(state, 3, verified_d=None)
    code, output = await _ops(state, capsys, "weekly", "--json")
    assert code == 1
    assert _verdicts(output.out)["restore test"] == "fail"
    assert _verdicts(output.out)["packages"] == "warn"
    _backups(state, 3, verified_d=2.0)
    _, output = await _ops(state, capsys, "weekly", "--json")
    assert _verdicts(output.out)["restore test"] == "ok"


async def test_the_weekly_list_cleans_up_as_the_settings_say(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = NOW - timedelta(days=400)

    async def fill(store: Store) -> None:
        await store.add_audit([AuditEvent(old, "a", "key.created", "x"), AuditEvent(NOW, "a", "key.created", "y")])
        await store.book_usage(
            UsageBatch("b", (UsageEntry("key:a", old.date(), 1), UsageEntry("key:a", NOW.date(), 1)))
        )

    await _store(state, fill)
    settings = "audit_retention_days = 365\nusage_retention_days = 365\n"
    (state.parent / "nllbd.toml").write_text(settings, encoding="utf-8")
    code, output = await _ops(state, capsys, "prune")
    assert code == 0
    assert output.out.strip() == "0 sessions, 0 batches, 1 audit, 1 usage went"
    _, output = await _ops(state, capsys, "audit", "--since", "500d", "--json")
    assert [json.loads(line)["subject"] for line in output.out.splitlines()] == ["y"]


async def test_the_monthly_list_sees_secrets_that_others_can_read(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await _store(state, lambda store: store.add_key(_key(days_old=500)))
    secret = state.parent / "credentials/api_key"
    secret.write_text("x", encoding="utf-8")
    secret.chmod(0o640)
    long_ago = time.time() - 500 * 86400
    os.utime(secret, (long_ago, long_ago))
    (state.parent / "contacts.md").write_text("Ada, +44 …\n", encoding="utf-8")
    code, output = await _ops(state, capsys, "monthly", "--json")
    found = _verdicts(output.out)
    assert code == 1
    assert (found["secrets' modes"], found["keys"], found["secrets"], found["contacts"]) == (
        "fail",
        "warn",
        "warn",
        "ok",
    )
    assert found["capacity"] == "todo"
    secret.chmod(0o600)
    code, output = await _ops(state, capsys, "monthly", "--sign", "Ada Operator")
    assert code == 0
    assert "Signed by Ada Operator" in output.out
    code, output = await _ops(state, capsys, "signed")
    assert "Ada Operator" in output.out


async def test_certificates_that_end_are_seen(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = state.parent
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=x", "-days", "5", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    urls = ("--url", "http://127.0.0.1:9", "--metrics-url", "http://127.0.0.1:9")
    _, output = await _ops(state, capsys, "daily", "--json", *urls)
    assert _verdicts(output.out)["certificates"] == "fail"
    _, output = await _ops(state, capsys, "monthly", "--json")
    assert _verdicts(output.out)["certificates"] == "warn"


def test_logs_are_summed_by_message() -> None:
    def entry(message: Any, priority: int = 6) -> str:
        return json.dumps({"MESSAGE": message, "PRIORITY": str(priority)})

    lines = [entry(json.dumps({"level": "error", "event": "usage journal"}))] * 2
    lines += [entry(json.dumps({"level": "warning", "event": "x"})), entry(json.dumps({"level": "info", "event": "y"}))]
    lines += [entry("nllbd.service: Failed with result 'oom-kill'.", 3), entry([1, 2]), "no JSON"]
    found = logs.summed(lines)
    assert found.errors == (("usage journal", 2), ("nllbd.service: Failed with result 'oom-kill'.", 1))
    assert (found.num_errors, found.warnings) == (3, 1)


def test_security_updates_are_told_apart() -> None:
    output = """Reading package lists...
Inst libssl3 [3.0.11] (3.0.15 Debian-Security:12/stable-security [amd64])
Inst tzdata [2024a] (2024b Debian:12.8/stable [all])
Conf libssl3 (3.0.15 Debian-Security:12/stable-security [amd64])
"""
    assert weekly.pending_updates(output) == (["libssl3", "tzdata"], ["libssl3"])


def test_keys_are_audited_by_their_account() -> None:
    """A key that was rotated has the use of the one before; what was never used counts from its making."""
    keys = [_key("old", 100), _key("new", 2, family="old"), _key("idle", 200), _key("gone", 9, revoked_at=NOW)]
    found = keyaudit.audit(keys, {"key:old": NOW.date() - timedelta(days=1)}, NOW)
    assert [(it.key.id, it.unused_days) for it in found] == [("idle", 200), ("new", 1), ("old", 1)]
    assert found[0].last_used is None


def test_figures_know_restarts() -> None:
    def look(at: float, started: float, translations: float, errors: float = 0.0) -> figures.Figures:
        buckets = {"0.1": translations / 2, "1.0": translations, "+Inf": translations}
        return figures.Figures(at, started, 1e8, translations, errors, 0.0, 0.0, 0.0, buckets)

    same = figures.between(look(60, 0, 100), look(120, 0, 300, 2))
    assert (same.translations, same.per_minute) == (200, 200)
    assert same.error_ratio == pytest.approx(2 / 202)
    assert same.p95_s == pytest.approx(0.91)
    anew = figures.between(look(60, 0, 100), look(120, 90, 30))
    assert (anew.translations, anew.per_minute) == (30, 60)
    assert figures.quantile(0.5, {}) is None


def test_failures_are_counted_with_their_sums() -> None:
    events = [AuditEvent(NOW, "a", "f", details={"reason": "x"}), AuditEvent(NOW, "a", "f", details={"more": "7"})]
    assert daily.failures_by_address(events) == {"a": 8}


def test_modes_of_secrets(tmp_path: Path) -> None:
    (tmp_path / "good").touch(mode=0o600)
    (tmp_path / "bad").touch(mode=0o600)
    (tmp_path / "bad").chmod(0o604)
    assert exposure.loose_files(tmp_path) == [f"{tmp_path}/bad is -rw----r--"]


def test_every_line_of_the_guides_lists_has_a_check() -> None:
    guide = {
        daily: """Check system health dashboards, Review error logs and alerts, Verify backup completion,
            Monitor resource usage trends, Check SSL certificate expiration, Review security logs""",
        weekly: """Update system packages, Review performance metrics, Test disaster recovery procedures,
            Audit user access logs, Check storage usage and cleanup, Review and update documentation""",
        monthly: """Rotate API keys and certificates, Review and update monitoring thresholds,
            Conduct security assessment, Update disaster recovery runbooks, Review capacity planning,
            Update emergency contact lists""",
    }
    for module, tasks in guide.items():
        assert {task for _, task, _ in module.CHECKS} == {task.strip() for task in tasks.split(",")}


def test_the_sample_of_the_settings_has_every_one_with_its_default(tmp_path: Path) -> None:
    sample = (Path(__file__).parents[2] / "deploy/backup/ops.toml").read_text("utf-8")
    (tmp_path / "ops.toml").write_text(sample.replace("\n# ", "\n"), encoding="utf-8")
    assert read_ops_settings(tmp_path / "ops.toml") == OpsSettings()
    assert sample.count("\n# ") == len(fields(OpsSettings))


def test_the_sample_of_the_backups_plan_has_the_defaults(tmp_path: Path) -> None:
    sample = (Path(__file__).parents[2] / "deploy/backup/backup.toml").read_text("utf-8")
    (tmp_path / "sample.toml").write_text(sample, encoding="utf-8")
    shown = re.sub(r"(?m)^# (?=[a-z_0-9]+ = |         \")", "", sample)
    (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
    plan, full = read_plan(tmp_path / "sample.toml", {}), read_plan(tmp_path / "shown.toml", {})
    assert plan.paths == full.paths
    assert plan.keep == full.keep
    assert (plan.folder, plan.state, plan.check_percent) == (full.folder, full.state, full.check_percent)
