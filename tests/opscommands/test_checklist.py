"""Checklists: what they look like, what signing them proves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nllbd.errors import NllbdError, StoreUnavailable
from nllbd.ops.checklist import Checklist, Item, Verdict, run_checks, sign, signed_checklists
from nllbd.ops.textfile import Sample, read_samples, write_samples

ITEMS = (
    Item("disk", "Monitor", Verdict.OK, "half full", "make room"),
    Item("errors", "Review", Verdict.WARN, "3 errors", "read them"),
    Item("memory", "Monitor", Verdict.FAIL, "none left", "buy some"),
    Item("dashboards", "Check", Verdict.TODO, "look at them"),
)
CHECKLIST = Checklist("daily", "web1", "2026-12-01T06:41:00+00:00", ITEMS)


def test_markdown_groups_by_task_and_gives_advice_where_it_is_needed() -> None:
    assert CHECKLIST.to_markdown().splitlines()[2:] == [
        "**Monitor**",
        "- [x] ok   disk: half full",
        "- [ ] fail memory: none left — buy some",
        "**Review**",
        "- [x] warn errors: 3 errors — read them",
        "**Check**",
        "- [ ] todo dashboards: look at them",
        "",
        "1 ok, 1 warn, 1 fail, 1 todo.",
    ]


def test_a_check_that_raises_has_failed_and_the_others_run() -> None:
    def broken(_: object) -> list[Item]:
        raise StoreUnavailable("the database is away")

    def missing(_: object) -> list[Item]:
        raise FileNotFoundError(2, "No such file", "/etc/x")

    found = run_checks("daily", "h", [("a", "A", broken), ("b", "B", missing), ("c", "C", lambda _: [ITEMS[0]])], None)
    assert [item.verdict for item in found.items] == [Verdict.FAIL, Verdict.FAIL, Verdict.OK]
    assert found.items[0].seen == "the database is away"
    assert found.failed


def test_a_signed_checklist_that_was_changed_is_noticed(tmp_path: Path) -> None:
    signed, path = sign(CHECKLIST, "Ada", tmp_path)
    assert [it["signed_by"] for it in signed_checklists(tmp_path)] == ["Ada"]
    assert signed.digest in path.with_suffix(".md").read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    table = json.loads(path.read_text("utf-8"))
    table["items"][2]["verdict"] = "ok"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(NllbdError, match="was changed"):
        signed_checklists(tmp_path)


def test_a_signed_checklist_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """Each names the digest of the one before."""
    paths = []
    for minute in range(3):
        checklist = Checklist("daily", "web1", f"2026-12-01T06:4{minute}:00+00:00", ITEMS)
        paths.append(sign(checklist, "Ada", tmp_path)[1])
    paths[1].unlink()
    with pytest.raises(NllbdError, match="is missing"):
        signed_checklists(tmp_path)


def test_nothing_signed_is_overwritten(tmp_path: Path) -> None:
    sign(CHECKLIST, "Ada", tmp_path)
    with pytest.raises(FileExistsError):
        sign(CHECKLIST, "Eve", tmp_path)


HELPS = {"nllbd_a": "A.", "nllbd_b": "B."}


def test_text_files_are_what_prometheus_reads_and_keep_what_they_should(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    file = tmp_path / "x.prom"
    write_samples(file, [Sample("nllbd_a", 1.5, {"kind": 'a "b"\\'}), Sample("nllbd_b", 2)], HELPS)
    (family, _) = text_string_to_metric_families(file.read_text("utf-8"))
    assert [(it.labels, it.value) for it in family.samples] == [({"kind": 'a "b"\\'}, 1.5)]
    write_samples(file, [Sample("nllbd_a", 3, {"kind": "c"})], HELPS, keep="nllbd_b")
    assert read_samples(file) == {'nllbd_a{kind="c"}': 3.0, "nllbd_b": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]
    assert file.stat().st_mode & 0o777 == 0o644
