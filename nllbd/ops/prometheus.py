"""Questions to a Prometheus and an Alertmanager, where there are some."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from nllbd.errors import NotReady
from nllbd.ops.asking import Server


def ask(url: str, query: str) -> float | None:
    """The one value that a query has; None if it has none (or none that is a number). Raises NotReady."""
    answer = Server(url).get(f"/api/v1/query?{urlencode({'query': query})}")
    body: dict[str, Any] = answer.json()
    if answer.status != 200 or body.get("status") != "success":
        raise NotReady(f"{url}: {body.get('error', answer.status)}")
    result = body["data"]["result"]
    value = float(result[0]["value"][1]) if result else None
    return value if value == value else None  # NaN: nothing happened in that time


def firing_alerts(prometheus: str, alertmanager: str) -> list[str]:
    """Names of the alerts that fire now and are not silenced (Alertmanager), or that fire at all. Raises NotReady."""
    if alertmanager:
        answer = Server(alertmanager).get("/api/v2/alerts?active=true&silenced=false&inhibited=false")
        if answer.status != 200:
            raise NotReady(f"{alertmanager} answered {answer.status}")
        return sorted({str(alert["labels"].get("alertname")) for alert in answer.json()})
    body = Server(prometheus).get("/api/v1/alerts").json()
    alerts = body["data"]["alerts"]
    return sorted({str(alert["labels"].get("alertname")) for alert in alerts if alert["state"] == "firing"})


def rules(prometheus: str) -> list[dict[str, Any]]:
    """The alerting rules: name, query, state. Raises NotReady."""
    body = Server(prometheus).get("/api/v1/rules?type=alert").json()
    return [rule for group in body["data"]["groups"] for rule in group["rules"]]
