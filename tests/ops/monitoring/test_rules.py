"""Rules: read by promtool, every alert with cases that fire and cases that do not, with texts that come out whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ops.kit.programs import CHECKOUT, need
from tests.ops.monitoring.artefacts import CASE_FILES, PROMETHEUS, RULE_FILES, alerts, read, recorded, rules

_ALERT = re.compile(r'alertname="(\w+)"')
#: What is left of a text when a label was empty.
_GAP = re.compile(r"  |\b(?:on|of|The)(?: (?:is|has|are|come)\b| ?$)|\(\)")
#: Their windows are hours and days: with the heavy tests.
_LONG = {"slo", "slo-days", "hours"}


def promtool(*arguments: str | Path) -> str:
    command = [str(need("promtool")["promtool"]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expectations() -> list[tuple[str, bool]]:
    """(alert, whether it is expected to fire) of every case."""
    cases = [case for path in CASE_FILES for test in read(path)["tests"] for case in test["promql_expr_test"]]
    return [(found[1], bool(case["exp_samples"])) for case in cases if (found := _ALERT.search(case["expr"]))]


def test_promtool_reads_the_configuration(tmp_path: Path) -> None:
    """With the example hosts in place."""
    for path in (PROMETHEUS / "targets").glob("*.example"):
        (tmp_path / "targets").mkdir(exist_ok=True)
        (tmp_path / "targets" / path.name.removesuffix(".example")).write_text(path.read_text("utf-8"), "utf-8")
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    (tmp_path / "prometheus.yml").write_text((PROMETHEUS / "prometheus.yml").read_text("utf-8"), "utf-8")
    assert "WARNING" not in promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("path", [p for p in CASE_FILES if p.stem not in _LONG], ids=lambda path: path.stem)
def test_cases(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.ops
@pytest.mark.parametrize("path", [p for p in CASE_FILES if p.stem in _LONG], ids=lambda path: path.stem)
def test_cases_of_days(path: Path) -> None:
    promtool("test", "rules", path)


def test_cases_are_looked_at_in_the_order_of_the_rules() -> None:
    """An alert that is looked at before the figure it needs fires one interval late; promtool shuffles groups."""
    for path in CASE_FILES:
        cases = read(path)
        groups = [group["name"] for file in cases["rule_files"] for group in read(path.parent / file)["groups"]]
        assert len(groups) == 1 or cases["group_eval_order"] == groups, path.name


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    for fires in (True, False):
        covered = {alert for alert, expected in expectations() if expected is fires}
        assert set(alerts()) - covered == set(), f"no case in which they {'fire' if fires else 'are silent'}"
    assert {alert for alert, _ in expectations()} <= set(alerts()), "cases of alerts that do not exist"


def test_the_guides_alerts_are_there() -> None:
    guide = {"NLLBServerDown", "HighCPUUsage", "HighMemoryUsage", "HighTranslationLatency", "GPUMemoryHigh"}
    assert guide <= set(alerts())


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    for name, rule in alerts().items():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}, name
        assert rule["labels"]["severity"] in ("critical", "warning", "info", "none"), name
        path, _, anchor = notes["runbook"].partition("#")
        assert anchor == name.lower()
        assert (CHECKOUT / path).is_file(), name


def test_names_are_given_once() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))
    assert recorded()


def test_quantiles_are_of_rates_summed_by_le() -> None:
    for path in RULE_FILES:
        for match in re.finditer(r"histogram_quantile\([^,]*, *(.*)", path.read_text("utf-8")):
            assert re.match(r"sum by \([^)]*\ble\b[^)]*\) \(rate\(\w+_bucket", match[1]), match[0]


@pytest.mark.ops
def test_texts_come_out_whole(tmp_path: Path) -> None:
    """What an alert says names the host it is about, in every case that fires: no label is missing in it."""
    told = 0
    for path in CASE_FILES:
        document = read(path)
        document["rule_files"] = [str((path.parent / file).resolve()) for file in document["rule_files"]]
        for test in document["tests"]:
            test["alert_rule_test"] = _expect_nothing(test.pop("promql_expr_test"))
        changed = tmp_path / path.name
        changed.write_text(yaml.safe_dump(document), "utf-8")
        # it fails and shows what it got instead of nothing
        command = [str(need("promtool")["promtool"]), "test", "rules", str(changed)]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        texts = re.findall(r'(?:summary|description)="((?:[^"\\]|\\.)*)"', shown)
        told += len(texts)
        for text in texts:
            assert "<no value>" not in text, shown
            assert "error expanding template" not in text, text
            assert not _GAP.search(text), f"{path.name}: a label is missing: {text}"
    assert told > 2 * len(alerts())


def _expect_nothing(cases: list[dict[str, object]]) -> list[dict[str, object]]:
    firing = [case for case in cases if case["exp_samples"]]
    found = [(_ALERT.search(str(case["expr"])), case["eval_time"]) for case in firing]
    return [{"alertname": match[1], "eval_time": when, "exp_alerts": []} for match, when in found if match]
