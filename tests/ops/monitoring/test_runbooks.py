"""Runbooks: every alert has its section, every section its five parts, and its commands are real."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from nllbd.metrics import TABLE, Kind
from tests.ops.kit.programs import CHECKOUT
from tests.ops.monitoring.artefacts import alerts, recorded, selectors

PARTS = ("**Symptoms.**", "**Impact.**", "**Diagnosis.**", "**Remedies.**", "**Escalation.**")
_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_UNIT = re.compile(r"\b(nllbd[\w@-]*\.(?:service|socket|timer|target))")
_SCRIPT = re.compile(r"(?<![\w/])(deploy/[\w./-]+)")
_LINK = re.compile(r"\]\(([\w.-]*)#([\w-]+)\)")


def sections() -> dict[str, tuple[str, str]]:
    """Heading → (file's name, text) of every section of the runbooks that alerts lead to."""
    found = {}
    for name in sorted({rule["annotations"]["runbook"].partition("#")[0] for rule in alerts().values()}):
        path = CHECKOUT / name
        for part in re.split(r"(?m)^## ", path.read_text("utf-8"))[1:]:
            heading, _, text = part.partition("\n")
            assert heading not in found, f"{heading} has two sections"
            found[heading] = (path.name, text)
    return found


SECTIONS = sections()


def test_every_alert_has_its_section_where_it_says() -> None:
    for name, rule in alerts().items():
        file = rule["annotations"]["runbook"].partition("#")[0].rpartition("/")[2]
        assert name in SECTIONS, f"no section for {name}"
        assert SECTIONS[name][0] == file, name
    assert set(SECTIONS) == set(alerts()), "sections of alerts that do not exist"


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_all_its_parts(name: str) -> None:
    text = SECTIONS[name][1]
    places = [text.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)
    for part, after in zip(PARTS, (*PARTS[1:], None), strict=True):
        body = text.partition(part)[2].partition(after)[0] if after else text.partition(part)[2]
        assert len(body.strip()) > 5, f"{part} says nothing"


@pytest.mark.parametrize("name", SECTIONS)
def test_its_commands_are_bash(name: str) -> None:
    for block in _BLOCK.findall(SECTIONS[name][1]):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for name, (file, text) in SECTIONS.items():
        for target, anchor in _LINK.findall(text):
            found = {heading.lower() for heading, (where, _) in SECTIONS.items() if where == (target or file)}
            assert anchor in found, f"{name}: {target}#{anchor}"


def test_units_and_scripts_exist() -> None:
    for name, (_, text) in SECTIONS.items():
        for unit in _UNIT.findall(text):
            template = re.sub(r"@\w+\.", "@.", unit)
            folders = (CHECKOUT / "systemd", CHECKOUT / "deploy/postgres/systemd")
            assert any((folder / template).exists() for folder in folders), f"{name}: {unit}"
        for script in _SCRIPT.findall(text):
            assert (CHECKOUT / script.rstrip("./")).exists(), f"{name}: {script}"


def test_metrics_in_them_are_those_of_rules() -> None:
    """A query in a runbook reads what a rule reads, or what the daemon shows."""
    known = {s.metric for rule in alerts().values() for s in selectors(rule["expr"])} | recorded()
    known |= {spec.name + ("_info" if spec.kind is Kind.INFO else "") for spec in TABLE}
    for name, (_, text) in SECTIONS.items():
        for block in _BLOCK.findall(text):
            for query in re.findall(r"promtool query \w+ .*?http://localhost:9090 '([^']+)'", block):
                unknown = {s.metric for s in selectors(query)} - known
                assert not unknown, f"{name}: {unknown}"


#: systemd's own words about a unit.
_OF_SYSTEMD = {"Main process exited", "Watchdog"}
_SEARCH = re.compile(r"journalctl -u nllbd[\w.@-]*service [^\n]*?-g (?:'([^']+)'|(\S+))")
_COMMAND = re.compile(r"(?m)(?:^|/)nllbd ((?:[a-z]+(?: |$))+)")


def blocks() -> list[tuple[str, str]]:
    return [(name, block) for name, (_, text) in SECTIONS.items() for block in _BLOCK.findall(text)]


def test_words_that_logs_are_searched_for_are_logged() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "nllbd").rglob("*.py"))
    searches = [(name, match) for name, block in blocks() for match in _SEARCH.findall(block)]
    assert len(searches) > 8
    for name, (quoted, bare) in searches:
        for words in (quoted or bare).split("|"):
            assert words in source or words in _OF_SYSTEMD, f"{name}: {words}"


def test_fields_that_logs_are_asked_for_are_logged() -> None:
    known = set(re.findall(r"(?m)^\| `(\w+)`", (CHECKOUT / "docs/operations/logs.md").read_text("utf-8")))
    asked = {(name, field) for name, block in blocks() for field in re.findall(r"(?<=[\[,( ])\.([a-z_]+)\b", block)}
    assert {(name, field) for name, field in asked if field not in known} == set()
    assert len(asked) > 10


@pytest.mark.ops
def test_nllbds_commands_exist() -> None:
    commands = {command.strip() for _, block in blocks() for command in _COMMAND.findall(block)}
    assert {"doctor", "config check", "ops daily"} <= commands
    for command in sorted(commands):
        words = command.split()
        words = words[:2] if words[0] in ("model", "ops", "config", "keys") else words[:1]
        done = subprocess.run(
            [sys.executable, "-m", "nllbd", *words, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"nllbd {command}: {done.stderr}"
