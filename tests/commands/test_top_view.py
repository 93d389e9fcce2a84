"""The view fits a terminal of 80 columns, with much and with nothing to show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from nllbd.commands.top_figures import Account, Figures
from nllbd.commands.top_view import render

IDLE = Figures(
    "0.1.0", "demo", "cpu", "int8", "ready", 0, None, 0, 0, 0, 0.0, 0.0, 0.0, None, None, 0.0, 0.0, None, None, None
)
BUSY = replace(
    IDLE,
    model="facebook/nllb-200-distilled-1.3B-with-a-long-name",
    lanes=96,
    max_lanes=128,
    running=24,
    waiting=20_000,
    waiting_tokens=2_000_000,
    kv_usage=0.875,
    tokens_per_s=123_456.7,
    step_p50_ms=3.21,
    step_p95_ms=45.6,
    p50_ms=740.0,
    p95_ms=59_000.0,
    queue_p95_ms=12.0,
    rejected_per_s={"overloaded": 98.1, "rate_limited": 3.0},
    cache_hit_ratio=0.5,
    accounts=tuple(Account(f"jwt:https://id.example.com:user-{n}", 100.0 / n, 1e6, 0.0, 4, 10) for n in range(1, 30)),
)


def shown(figures: Figures, **more: object) -> list[str]:
    console = Console(width=80, record=True, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    console.print(render(figures, "http://127.0.0.1:9000", **more))  # type: ignore[arg-type]
    return console.export_text().splitlines()


@pytest.mark.parametrize("figures", [IDLE, BUSY])
def test_it_fits(figures: Figures) -> None:
    lines = shown(figures, history=(0.0, 5.0, 10.0), trouble="cannot reach it")
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert lines[-1] == "cannot reach it"


def test_what_it_says() -> None:
    text = "\n".join(shown(BUSY, history=(0.0, 5.0, 10.0)))
    for expected in (
        "96 of 128 in 24 sequences",
        "88%",
        "20,000 sequences",
        "123,457 /s  ▁▅█",
        "p95 59.0 s",
        "p50 3.2 ms",
    ):
        assert expected in text
    assert "overloaded 98.1, rate_limited 3.0" in text
    assert "jwt:https://id.example.com:user" in text
    assert "--key-file" in "\n".join(shown(IDLE))


@pytest.mark.parametrize(
    "account",
    ["jwt:acme:[/b]", "jwt:acme:[bold]x", "jwt:acme:[link=http://evil]y[/link]", "jwt:acme:\\[", ":smile: x"],
)
def test_names_are_shown_as_they_are(account: str) -> None:
    lines = shown(replace(IDLE, accounts=(Account(account, 1.0, 1.0, 0.0, 0, 0),), rejected_per_s={account: 1.0}))
    assert any(line.startswith(account[:32].rstrip()[:31]) for line in lines)
    assert sum(account[:31] in line for line in lines) == 2


def test_a_name_cannot_command_the_terminal() -> None:
    name = "jwt:acme:\x1b]0;owned\x07\r\n\u202e\x9bJ"
    lines = shown(replace(IDLE, accounts=(Account(name, 1.0, 1.0, 0.0, 0, 0),)))
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= 80
