"""What ships in deploy/monitoring, read for the tests: rules, expressions, and the metrics that these name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.ops.kit.programs import CHECKOUT

MONITORING = CHECKOUT / "deploy/monitoring"
PROMETHEUS = MONITORING / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASE_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w.])([a-zA-Z_:][a-zA-Z0-9_:]*+)(?!\s*\()\s*(\{[^}]*\})?")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass(frozen=True)
class Selector:
    """A metric that an expression reads, and the labels that it picks series by."""

    metric: str
    labels: frozenset[str]


def read(path: Path) -> Any:
    """A YAML file; by libyaml, where Python's own reader takes seconds."""
    return yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """All rules of all groups, as they are written."""
    return tuple(rule for path in RULE_FILES for group in read(path)["groups"] for rule in group["rules"])


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard_queries() -> list[tuple[str, str]]:
    """(panel's title, expression) of every query and annotation, variables filled in."""
    found = []
    for path in DASHBOARDS:
        board = json.loads(path.read_text("utf-8"))
        for panel in board["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())]
        found += [(f"{path.stem}: {note['name']}", note["expr"]) for note in board["annotations"]["list"]]
    return [(title, expr.replace("$host", ".*").replace("$__rate_interval", "1m")) for title, expr in found]


def selectors(expr: str) -> set[Selector]:
    """The metrics that a PromQL expression reads."""
    text = re.sub(r"#[^\n]*", "", expr)
    text = _STRING.sub('""', text)
    text = _GROUPING.sub(" ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    found = set()
    for name, matchers in _SELECTOR.findall(text):
        if name.lower() not in _WORDS | {"inf", "nan"} and not re.fullmatch(r"\d.*|[smhdwy]", name):
            found.add(Selector(name, frozenset(_MATCHER.findall(matchers))))
    return found
