"""Builds Grafana dashboards (schema 38, Grafana 9.5 and later) as plain dictionaries. Knows no metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

#: The dashboard's own variable: whoever imports it chooses the Prometheus.
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 38
WIDTH = 24  # of Grafana's grid


@dataclass(frozen=True)
class Query:
    """One expression, and how its lines are named."""

    expr: str
    legend: str = ""
    as_table: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture.

    `steps` colour it: (from this value on, colour) ascending; the first begins at the lowest value. `about` is what a
    reader needs to know to act on it.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    about: str = ""
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    minimum: float | None = 0
    maximum: float | None = None
    stacked: bool = False
    links: Sequence[Json] = field(default_factory=tuple)


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def dashboard(uid: str, title: str, about: str, rows: Sequence[Row], variables: Sequence[Json] = ()) -> Json:
    """The whole dashboard, panels laid out row by row from left to right."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["nllbd"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "annotations": {"list": [_alert_annotations(), _deploy_annotations()]},
        "links": [{"type": "dashboards", "tags": ["nllbd"], "title": "nllbd", "asDropdown": False, "keepTime": True}],
        "templating": {"list": [_datasource_variable(), *variables]},
        "panels": _laid_out(rows),
    }


def host_variable(metric: str) -> Json:
    """A choice of hosts: those that `metric` comes from."""
    query = f"label_values({metric}, host)"
    return {
        "name": "host",
        "label": "Host",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "host"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    made: list[Json] = []
    top = 0
    for row in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []})
        made[-1]["gridPos"] = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        top += 1
        left, line_height = 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + line_height
                line_height = 0
            made.append(_panel(panel, len(made) + 1) | {"gridPos": _place(panel, left, top)})
            left, line_height = left + panel.width, max(line_height, panel.height)
        top += line_height
    return made


def _place(panel: Panel, left: int, top: int) -> Json:
    return {"x": left, "y": top, "w": panel.width, "h": panel.height}


def _panel(panel: Panel, number: int) -> Json:
    made: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": [_target(query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "links": list(panel.links),
    }
    if panel.kind == "table":
        hidden = {"Time": True, "__name__": True, "job": True, "Value": True}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _target(query: Query, index: int) -> Json:
    made: Json = {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
        "range": not query.as_table,
        "instant": query.as_table,
    }
    return made | ({"format": "table"} if query.as_table else {})


def _defaults(panel: Panel) -> Json:
    steps = [{"value": value, "color": color} for value, color in panel.steps]
    made: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind in ("stat", "gauge") else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": {},
    }
    if panel.minimum is not None:
        made["min"] = panel.minimum
    if panel.maximum is not None:
        made["max"] = panel.maximum
    if panel.kind == "timeseries":
        lines = {"lineWidth": 1, "fillOpacity": 25 if panel.stacked else 8, "showPoints": "never", "spanNulls": False}
        stacking = {"stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"}}
        made["custom"] = lines | stacking | {"thresholdsStyle": {"mode": "line" if len(steps) > 1 else "off"}}
    return made


def _options(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "background", "graphMode": "area", "textMode": "auto"}
    if panel.kind == "heatmap":
        return {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}}
    return {}


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
    }


def _alert_annotations() -> Json:
    return {
        "name": "Critical alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing",severity="critical"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{host}} {{instance}}",
    }


def _deploy_annotations() -> Json:
    return {
        "name": "Starts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": 'changes(process_start_time_seconds{job="nllbd"}[1m]) > 0',
        "titleFormat": "nllbd started",
        "textFormat": "{{host}} {{instance}}",
    }
