"""The result as a page of text, for the console and for log files."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from clustercore.result import BacktestResult

__all__ = ["summary_text"]

_WIDTH = 78

# What a page has room for: label, statistic, how it is shown, and the interval that belongs to it.
_LINES: tuple[tuple[str, str, str, tuple[str, str] | None], ...] = (
    ("Trades", "trades", "{:,.0f}", None),
    ("Win rate", "win_rate", "{:.1%}", ("win_rate_low", "win_rate_high")),
    ("Net result", "net_usd", "{:,.2f} USD", None),
    ("  with adverse fills", "adverse_net_usd", "{:,.2f} USD", None),
    ("Gross result", "gross_usd", "{:,.2f} USD", None),
    ("Costs", "costs_usd", "{:,.2f} USD", None),
    ("Mean trade", "expectancy_usd", "{:,.2f} USD", ("mean_trade_low_usd", "mean_trade_high_usd")),
    ("  in points", "expectancy_points", "{:.3f}", None),
    ("  in R", "expectancy_r", "{:.3f}", None),
    ("Profit factor", "profit_factor", "{:.2f}", None),
    ("Payoff", "payoff", "{:.2f}", None),
    ("Largest drawdown", "max_drawdown_usd", "{:,.2f} USD", None),
    ("  of the peak", "max_drawdown_pct", "{:.1f} %", None),
    ("  length", "longest_drawdown_days", "{:,.0f} calendar days", None),
    ("Sharpe, daily", "sharpe", "{:.2f}", ("sharpe_low", "sharpe_high")),
    ("Sortino", "sortino", "{:.2f}", ("sortino_low", "sortino_high")),
    ("Calmar", "calmar", "{:.2f}", ("calmar_low", "calmar_high")),
    ("Longest losing streak", "longest_losing_streak", "{:,.0f} trades", None),
    ("Trades a week", "trades_per_week", "{:.1f}", None),
    ("Time in the market", "exposure", "{:.1%}", None),
    ("Ambiguous exits", "ambiguous_exits", "{:,.0f}", None),
    ("Tied modal prices", "modal_tied", "{:,.0f}", None),
)


def summary_text(result: BacktestResult) -> str:
    """Return the summary of a result."""
    lines = [] if result.halted is None else [*textwrap.wrap(result.halted, _WIDTH), ""]
    lines += [*_heading(result), "", *_numbers(result), "", *_funnel(result), ""]
    lines += textwrap.wrap(result.verdict, _WIDTH)
    return "\n".join(lines)


def _heading(result: BacktestResult) -> list[str]:
    data = result.manifest["data"]
    bars = f"{data['rows']:,} bars of {data['interval']}"
    name = f"{result.config.name} on {result.instrument.root}, {bars}"
    period = f"{str(data['first'])[:16]} to {str(data['last'])[:16]} UTC, from {data['source']}"
    lines = [name, period, f"configuration {result.manifest['config_id'][:12]}"]
    if result.simulated:
        lines.insert(0, "SIMULATED DATA: no market made these prices")
    return lines + _cautions(result) + [f"note: {note}" for note in data["notes"]]


def _cautions(result: BacktestResult) -> list[str]:
    optimistic, stale = (int(result.trades[name].sum()) for name in ("optimistic", "stale"))
    lines = []
    if optimistic:
        lines.append(f"OPTIMISTIC: {optimistic:,} entries at a price that nobody can have")
    if stale:
        lines.append(f"{stale:,} exits at the last price of a contract that was left")
    return lines


def _numbers(result: BacktestResult) -> list[str]:
    stats = result.stats
    reasons = {statistic.name: statistic.reason for statistic in result.statistics}
    lines = []
    for label, name, form, bounds in _LINES:
        value = stats.get(name)
        shown = f"none: {reasons.get(name)}" if value is None else form.format(value)
        if bounds and value is not None:
            low, high = (stats.get(bound) for bound in bounds)
            if low is not None and high is not None:
                number = form.split(" ")[0]
                shown += f"  (95 %: {number.format(low)} to {number.format(high)})"
        lines.append(f"{label:<24}{shown}")
    if stats["open_trades"]:
        lines.insert(1, f"{'Still open':<24}{stats['open_trades']:,.0f}")
    return lines


def _funnel(result: BacktestResult) -> list[str]:
    lines = ["How far things got"]
    for (stage,), rows in result.funnel.group_by("stage", maintain_order=True):
        count = rows["count"].drop_nulls()
        losses = rows.filter(pl.col("lost").is_not_null())
        lost = ", ".join(
            f"{reason} {number:,}" for number, reason in losses.select("lost", "reason").iter_rows()
        )
        label = str(stage).replace("_", " ")
        lines.append(
            f"  {label:<18}{count[0] if len(count) else 0:>10,}"
            + (f"   lost: {lost}" if lost else "")
        )
    return lines
