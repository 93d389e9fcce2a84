"""Dashboards: current, of Grafana's own schema, and readable. What they ask is asked in test_queries.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.ops.kit.programs import need
from tests.ops.monitoring.artefacts import DASHBOARDS, MONITORING, dashboard_queries, selectors

#: What the Prometheus data source adds to annotations and variables; the schema leaves that open.
OF_PROMETHEUS = {"titleFormat", "textFormat", "definition"}
GENERATOR = MONITORING / "grafana/generate.py"


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def test_they_are_what_the_generator_writes() -> None:
    done = subprocess.run([sys.executable, str(GENERATOR), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in DASHBOARDS} == {"overview.json", "engine.json", "hosts.json"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_grafanas_schema_knows_every_field(path: Path) -> None:
    """What it does not know is lost on the way through its classes."""
    board = load(path)
    back = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    unknown = [path for path in lost("dashboard", board, back) if path.rpartition(".")[2] not in OF_PROMETHEUS]
    assert unknown == []


def lost(where: str, ours: Any, theirs: Any) -> Iterator[str]:
    if isinstance(ours, dict):
        for name, value in ours.items():
            if name not in theirs:
                yield f"{where}.{name}"
            else:
                yield from lost(f"{where}.{name}", value, theirs[name])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for index, value in enumerate(ours):
            yield from lost(f"{where}[{index}]", value, theirs[index])
    elif ours != theirs:
        yield f"{where}: {ours!r} became {theirs!r}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_beside_each_other(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in load(path)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_ids_are_given_once_and_panels_say_where_data_come_from(path: Path) -> None:
    board = load(path)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] == "row" or panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert "datasource" in {variable["name"] for variable in board["templating"]["list"]}


def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    promtool = need("promtool")["promtool"]
    queries = [{"record": f"q:{index}", "expr": expr} for index, (_, expr) in enumerate(dashboard_queries())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": queries}]}), "utf-8")
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guides_panels_are_in_the_overview() -> None:
    titles = {panel["title"].lower() for board in DASHBOARDS for panel in load(board)["panels"]}
    assert {"translation requests/sec", "translation latency", "system resources"} <= titles
    metrics = {selector.metric for _, expr in dashboard_queries() for selector in selectors(expr)}
    assert {"translation_requests_total", "system_cpu_usage_percent", "system_memory_usage_bytes"} <= metrics
