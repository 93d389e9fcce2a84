"""Logs: what daemon and nginx write arrives in Elasticsearch and Loki, nothing is lost while they are away, and the
reference names every field of real lines."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.ops.kit.programs import CHECKOUT, eventually
from tests.ops.monitoring.house import RECEIVED, House

pytestmark = pytest.mark.ops
WITHIN_S = 60.0
REFERENCE = CHECKOUT / "docs/operations/logs.md"


def documents(house: House) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(action, document) of all bulk requests."""
    found = []
    for record in house.received("/_bulk"):
        lines = [json.loads(line) for line in record["body"].splitlines()]
        found += list(zip(lines[::2], lines[1::2], strict=True))
    return found


def streams(house: House) -> list[dict[str, Any]]:
    """All streams that were pushed to Loki."""
    return [stream for record in house.received("/loki") for stream in json.loads(record["body"])["streams"]]


def indexed(house: House, dataset: str, request_id: str) -> list[dict[str, Any]]:
    found = [document for _, document in documents(house) if document["service"]["name"] == dataset]
    return [document for document in found if document[dataset].get("request_id") == request_id]


def test_a_request_is_found_in_elasticsearch_from_both_sides(house: House) -> None:
    house.translate("A request that is looked for.", "ship-1")
    for dataset in ("nllbd", "nginx"):
        found = eventually(
            lambda dataset=dataset: indexed(house, dataset, "ship-1"), WITHIN_S, f"its line of {dataset}"
        )
        assert len(found) == 1
        line = found[0]
        assert line["host"]["name"] == "app-1"
        assert line["service"]["node"]["name"] == ("nllbd.service" if dataset == "nllbd" else "nginx.service")
        assert line[dataset]["status"] == 200  # a number, as it was written
    assert (
        indexed(house, "nllbd", "ship-1")[0]["@timestamp"] == indexed(house, "nllbd", "ship-1")[0]["nllbd"]["timestamp"]
    )
    assert {action["create"]["_index"] for action, _ in documents(house)} >= {
        "logs-nllbd-default",
        "logs-nginx-default",
    }
    assert not any("looked for" in record["body"] for record in house.received("/_bulk")), "a text was shipped"


def test_a_request_is_found_in_loki(house: House) -> None:
    house.translate('Quotes " and back\\slashes.', "ship-2")

    def lines() -> list[dict[str, Any]]:
        all_lines = [json.loads(line) for stream in streams(house) for _, line in stream["values"]]
        return [line for line in all_lines if line.get("request_id") == "ship-2"]

    eventually(lambda: len(lines()) == 2, WITHIN_S, "the lines of daemon and nginx")
    labels = {frozenset(stream["stream"]) for stream in streams(house)}
    assert labels == {frozenset({"job", "host", "unit", "level"})}, "labels are bounded"
    assert all(re.fullmatch(r"\d{19}", time) for stream in streams(house) for time, _ in stream["values"])


def test_what_is_no_json_is_shipped_too(house: House) -> None:
    """systemd's own words about the unit, a traceback at the very end."""
    house.sh("""systemd-run --wait --collect --quiet --unit=nllbd-odd sh -c 'echo "said \\"this\\" \\\\ once"'""")

    def odd() -> list[dict[str, Any]]:
        return [doc for _, doc in documents(house) if doc["service"]["node"]["name"] == "nllbd-odd.service"]

    found = eventually(odd, WITHIN_S, "the odd line")
    assert 'said "this" \\ once' in {doc["nllbd"]["event"] for doc in found}


def test_nothing_is_lost_while_the_destinations_are_away(house: House) -> None:
    """They refuse, syslog-ng restarts meanwhile, they come back: each line arrives once."""
    house.sh(f"touch {RECEIVED}/refuse")
    ids = [f"away-{number}" for number in range(8)]
    for request_id in ids[:4]:
        house.translate(f"While it is away: {request_id}.", request_id)
    eventually(lambda: "} 0" not in _queued(house), WITHIN_S, "lines that wait")
    house.sh("systemctl restart syslog-ng")
    for request_id in ids[4:]:
        house.translate(f"While it is away: {request_id}.", request_id)
    assert not any(indexed(house, "nllbd", request_id) for request_id in ids)
    house.sh(f"rm {RECEIVED}/refuse")
    for request_id in ids:
        eventually(lambda request_id=request_id: indexed(house, "nllbd", request_id), WITHIN_S, request_id)
        assert len(indexed(house, "nllbd", request_id)) == 1


def _queued(house: House) -> str:
    text = house.sh("/usr/local/libexec/nllbd/log-metrics --dry-run")
    return "\n".join(line for line in text.splitlines() if line.startswith("nllbd_log_queued"))


def test_prometheus_knows_what_waits(house: House) -> None:
    house.sh("systemctl start nllbd-log-metrics.service")
    eventually(lambda: len(house.ask_prometheus("nllbd_log_queued_messages")) == 2, WITHIN_S, "the figures")
    assert {found["metric"]["destination"] for found in house.ask_prometheus("nllbd_log_dropped_messages_total")} == {
        "elasticsearch",
        "loki",
    }


def test_the_reference_names_every_field(house: House) -> None:
    """Of lines that were really shipped, and none that do not exist."""
    text = REFERENCE.read_text("utf-8")
    for dataset in ("nllbd", "nginx"):
        section = text.partition(f"\n## {dataset}")[2].partition("\n## ")[0]
        named = set(re.findall(r"(?m)^\| `(\w+)`", section))
        seen = {field for _, doc in documents(house) for field in doc.get(dataset, {})}
        assert seen - named == set(), f"{dataset}: fields that the reference does not name"
