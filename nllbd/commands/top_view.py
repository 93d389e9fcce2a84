"""`nllbd top` on a terminal: figures as rich renders them, within 80 columns and without colour, too. Asks nobody."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from nllbd.commands.top_figures import Account, Figures

_BAR_WIDTH = 24
_NUM_ACCOUNTS = 10
_SPARKS = "▁▂▃▄▅▆▇█"
_NO_KEY = "give a key with scope admin (--key-file) to see who is busiest"


def render(figures: Figures, where: str, history: Sequence[float] = (), trouble: str = "") -> RenderableType:
    """The whole view. `history`: tokens a second, oldest first. `trouble`: why there is nothing newer."""
    parts: list[RenderableType] = [_title(figures, where), _gauges(figures), Rule(style="dim"), _flow(figures, history)]
    parts += [Rule(style="dim"), _accounts(figures.accounts)]
    if trouble:
        parts.append(Text(trouble, style="bold red"))
    return Group(*parts)


def _title(figures: Figures, where: str) -> RenderableType:
    style = "bold green" if figures.state == "ready" else "bold red"
    line = Text.assemble(("nllbd ", "bold"), figures.version, "  ", (figures.state, style), "  ")
    line.append_text(_plain(f"{figures.model}  {figures.device} {figures.dtype}  "))
    line.append(where, style="dim")
    line.truncate(80, overflow="ellipsis")
    return line


def _gauges(figures: Figures) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=8, style="bold")
    table.add_column(width=_BAR_WIDTH)
    table.add_column(no_wrap=True)
    most = figures.max_lanes
    lanes = f"{figures.lanes} of {most}" if most else f"{figures.lanes}"
    table.add_row("lanes", _bar(figures.lanes, most), f"{lanes} in {_count(figures.running, 'sequence')}")
    table.add_row("KV", _bar(figures.kv_usage, 1.0), f"{figures.kv_usage:.0%}, {figures.preemptions} preemptions")
    waiting = f"{_count(figures.waiting, 'sequence')}, {_count(figures.waiting_tokens, 'token')}"
    table.add_row("queue", "", f"{waiting}, p95 {_ms(figures.queue_p95_ms)}")
    return table


def _flow(figures: Figures, history: Sequence[float]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=8, style="bold")
    table.add_column(width=12, justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row("tokens", f"{figures.tokens_per_s:,.0f} /s", _spark(history))
    steps = f"p50 {_ms(figures.step_p50_ms)}, p95 {_ms(figures.step_p95_ms)}"
    table.add_row("steps", f"{figures.steps_per_s:,.1f} /s", f"{steps}, {_count(figures.restarts, 'restart')}")
    table.add_row("requests", f"{figures.requests_per_s:,.1f} /s", f"{_count(figures.errors_total, 'error')} so far")
    latency = f"p50 {_ms(figures.p50_ms)}, p95 {_ms(figures.p95_ms)}"
    table.add_row("answers", f"{figures.translations_per_s:,.1f} /s", latency)
    refused = ", ".join(f"{reason} {rate:,.1f}" for reason, rate in sorted(figures.rejected_per_s.items()))
    total = f"{figures.rejected_total:,} so far"
    table.add_row("refused", f"{sum(figures.rejected_per_s.values()):,.1f} /s", _plain(refused or total))
    ratio = figures.cache_hit_ratio
    table.add_row(
        "cache", "-" if ratio is None else f"{ratio:.0%}", "of segments were known" if ratio is not None else ""
    )
    return table


def _accounts(accounts: Sequence[Account] | None) -> RenderableType:
    if accounts is None:
        return Text(_NO_KEY, style="dim")
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    table.add_column("busiest", width=32, no_wrap=True, overflow="ellipsis")
    for name in ("req/s", "chars/s", "refused/s", "lanes", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    for account in accounts[:_NUM_ACCOUNTS]:
        table.add_row(
            _plain(account.account),
            f"{account.requests_per_s:.1f}",
            f"{account.characters_per_s:,.0f}",
            f"{account.refused_per_s:.1f}",
            str(account.num_lanes),
            str(account.num_waiting),
        )
    return table


def _plain(text: str) -> Text:
    """What others chose, as it is: no markup of rich's, nothing that a terminal would obey."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))


def _bar(value: float, most: float | None) -> RenderableType:
    if not most:
        return ""
    return ProgressBar(total=most, completed=min(value, most), width=_BAR_WIDTH, complete_style="cyan")


def _spark(history: Sequence[float]) -> str:
    most = max(history, default=0.0)
    if not most:
        return ""
    return "".join(_SPARKS[round(value / most * (len(_SPARKS) - 1))] for value in history)


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
