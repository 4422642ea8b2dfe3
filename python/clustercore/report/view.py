"""What the page says in words and tables: every number as the text that is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from clustercore.config import Config, config_fields
from clustercore.errors import ClusterCoreError
from clustercore.report.words import REASONS, STAGES

if TYPE_CHECKING:
    from clustercore.quality import QualityReport
    from clustercore.result import BacktestResult

__all__ = ["build_view", "interval", "number", "percent", "quality_view", "whisker"]

MINUS: Final = "\N{MINUS SIGN}"
_ABSENT: Final = "\N{EN DASH}"
_MINUS_SIGN: Final = re.compile(r"(?<!\S)-(?=\d)")
_MANY: Final = 6

_WORDS: Final = {"mae": "MAE", "mfe": "MFE", "r": "in R", "pct": "percent", "p": "p"}
_UNITS_NAMED_LAST: Final = ("usd", "points", "pct")
_WHOLE_UNITS: Final = frozenset(
    {"trades", "bars", "marks", "trade dates", "calendar days", "sessions", "contracts"}
)
# Two columns of about the same height.
_GROUP_TITLES: Final = (
    {
        "direction": "Direction",
        "exit_reason": "Exit reason",
        "weekday": "Weekday of the trade date",
    },
    {"hour": "Hour of the decision, New York"},
)


@dataclass(frozen=True)
class Whisker:
    """An interval as places on a scale, in percent of its width; None where it does not exist."""

    low: float | None = None
    middle: float | None = None
    high: float | None = None
    reference: float | None = None


@dataclass(frozen=True)
class Headline:
    """One of the first numbers."""

    label: str
    value: str
    unit: str
    note: str
    tone: str = ""


@dataclass
class Stage:
    """A stage of the funnel with what was lost there."""

    label: str
    count: str
    width: float
    share: str
    losses: list[tuple[str, str, str]] = field(default_factory=list)


def number(value: float | None, decimals: int = 2, *, sign: bool = False) -> str:
    """Return a number with thousands separated and a true minus; a dash when there is none.

    Examples
    --------
    >>> number(-1612.5) == MINUS + "1,612.50"
    True
    >>> number(39, 0), number(12.5, 1, sign=True)
    ('39', '+12.5')
    """
    if value is None or not math.isfinite(value):
        return _ABSENT
    # What rounds to zero has no sign.
    value = round(value, decimals) or 0.0
    return f"{value:{'+' if sign and value else ''},.{decimals}f}".replace("-", MINUS)


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a share in percent.

    Examples
    --------
    >>> percent(1 / 3)
    '33.3 %'
    """
    return _ABSENT if share is None else f"{number(100 * share, decimals)} %"


def interval(low: float | None, high: float | None, decimals: int = 2, scale: float = 1.0) -> str:
    """Return both ends of an interval.

    Examples
    --------
    >>> interval(0.206, 0.49, 1, 100)
    '20.6 to 49.0'
    """
    if low is None or high is None:
        return _ABSENT
    return f"{number(scale * low, decimals)} to {number(scale * high, decimals)}"


def whisker(
    low: float | None,
    middle: float | None,
    high: float | None,
    *,
    left: float,
    right: float,
    reference: float | None = None,
) -> Whisker:
    """Return where an interval lies between the ends of a scale.

    Examples
    --------
    >>> whisker(0.25, 0.5, 0.75, left=0, right=1, reference=0.5)
    Whisker(low=25.0, middle=50.0, high=75.0, reference=50.0)
    """

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or right <= left:
            return None
        return round(min(max((value - left) / (right - left), 0.0), 1.0) * 100, 2)

    return Whisker(place(low), place(middle), place(high), place(reference))


def build_view(result: BacktestResult, charted: int, session_count: int) -> dict[str, Any]:
    """Return everything the template shows but for the check of the bars."""
    stats = result.stats
    manifest = result.manifest
    return {
        "simulated": result.simulated,
        "halted": result.halted,
        "root": result.instrument.root,
        "config_name": result.config.name,
        "config_id": manifest["config_id"],
        "versions": manifest["versions"],
        "facts": _facts(result),
        "verdict": _MINUS_SIGN.sub(MINUS, result.verdict),
        "mean_trade": _mean_trade(stats),
        "headlines": _headlines(result),
        "halts": result.risk.filter(pl.col("kind") == "halted").height,
        "months": _months(result),
        "charts": _chart_note(result, charted, session_count),
        "funnel": _funnel(result.funnel),
        "contexts": _contexts(result),
        "context_title": _context_title(result.config),
        "groups": _groups(result.groups),
        "trade_count": result.trades.height,
        "cluster_count": result.clusters.height,
        "trade_options": {
            "directions": sorted(result.trades["direction"].unique().drop_nulls()),
            "exits": sorted(result.trades["exit_reason"].unique().drop_nulls()),
        },
        "statistics": [
            (
                _statistic_label(statistic.name),
                statistic.name,
                _statistic_value(statistic.value, statistic.unit),
                statistic.unit,
                statistic.reason or "",
                statistic.definition,
            )
            for statistic in result.statistics
        ],
        "settings": _settings(result.config),
        "notes": list(manifest["data"]["notes"]),
        "manifest": list(_flat(manifest)),
    }


def _facts(result: BacktestResult) -> list[tuple[str, str]]:
    data, daily = result.manifest["data"], result.daily
    symbols = data["symbols"]
    names = ", ".join(symbols[:_MANY]) + (
        f" and {len(symbols) - _MANY} more" if len(symbols) > _MANY else ""
    )
    span = _ABSENT
    if daily.height:
        span = f"{_day(daily['trade_date'][0])} to {_day(daily['trade_date'][-1])}"
    traded = result.instrument
    value, tick = traded.point_value, traded.tick_size
    slippage = f"{result.config.costs.slippage_ticks:g} ticks slippage"
    costs = f"{number(float(traded.commission))} USD commission and {slippage}"
    return [
        ("Period", f"{span}, {number(daily.height, 0)} trade dates"),
        ("Bars", f"{number(data['rows'], 0)} of {data['interval']}, {names}"),
        ("Source", str(data["source"])),
        ("Contract", f"tick {float(tick):g} points, {float(value):g} USD a point"),
        ("Costs", f"{costs}, a contract and side"),
        ("Account", f"{number(result.config.account.balance, 0)} USD at the start"),
    ]


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _mean_trade(stats: Mapping[str, float | None]) -> dict[str, Any] | None:
    low, high = stats.get("mean_trade_low_usd"), stats.get("mean_trade_high_usd")
    middle = stats.get("expectancy_usd")
    if low is None or high is None or middle is None:
        return None
    reach = max(abs(low), abs(high)) * 1.15 or 1.0
    return {
        "whisker": whisker(low, middle, high, left=-reach, right=reach, reference=0.0),
        "low": number(low, sign=True),
        "middle": number(middle, sign=True),
        "high": number(high, sign=True),
    }


def _headlines(result: BacktestResult) -> list[Headline]:
    stats = result.stats
    reasons = {s.name: s.reason for s in result.statistics if s.value is None and s.reason}

    def get(name: str) -> float | None:
        return stats.get(name)

    def note(name: str, text: str) -> str:
        return text if get(name) is not None else reasons.get(name, "not computed")

    def unit(name: str, text: str) -> str:
        return text if get(name) is not None else ""

    trades = get("trades") or 0
    wilson = interval(get("win_rate_low"), get("win_rate_high"), 1, 100)
    still_open = get("open_trades") or 0
    return [
        Headline(
            "Net result",
            number(get("net_usd")),
            unit("net_usd", "USD"),
            f"gross {number(get('gross_usd'))}, costs {number(get('costs_usd'))}",
            _tone(get("net_usd")),
        ),
        Headline(
            "Net with adverse fills",
            number(get("adverse_net_usd")),
            unit("adverse_net_usd", "USD"),
            note(
                "adverse_net_usd",
                "each entry at the worse of its bar\N{RIGHT SINGLE QUOTATION MARK}s open and close",
            ),
            _tone(get("adverse_net_usd")),
        ),
        Headline(
            "Expectancy",
            number(get("expectancy_usd")),
            unit("expectancy_usd", "USD a trade"),
            note(
                "expectancy_usd",
                f"{number(get('expectancy_points'), 3)} points a contract before costs, "
                f"{number(get('expectancy_r'), 3)} R",
            ),
            _tone(get("expectancy_usd")),
        ),
        Headline(
            "Profit factor",
            number(get("profit_factor")),
            "",
            note("profit_factor", f"payoff {number(get('payoff'))}"),
        ),
        Headline(
            "Trades",
            number(trades, 0),
            "",
            f"{number(get('wins'), 0)} won, {number(get('losses'), 0)} lost, "
            f"{number(get('trades_per_week'), 1)} a week"
            + (f"; {number(still_open, 0)} still open" if still_open else ""),
        ),
        Headline(
            "Win rate",
            number(None if get("win_rate") is None else 100 * (get("win_rate") or 0), 1),
            unit("win_rate", "%"),
            note("win_rate", f"95 % interval {wilson} (Wilson)"),
        ),
        Headline(
            "Largest drawdown",
            number(get("max_drawdown_usd")),
            unit("max_drawdown_usd", "USD"),
            note(
                "max_drawdown_usd",
                f"{number(get('max_drawdown_pct'), 1)} % of the peak; longest "
                f"{number(get('longest_drawdown_days'), 0)} calendar days",
            ),
        ),
        Headline(
            "Sharpe ratio",
            number(get("sharpe")),
            unit("sharpe", "annualised"),
            note("sharpe", f"95 % interval {interval(get('sharpe_low'), get('sharpe_high'))}"),
        ),
    ]


def _tone(value: float | None) -> str:
    if value is None or value == 0:
        return ""
    return "gain" if value > 0 else "loss"


def _months(result: BacktestResult) -> dict[str, Any]:
    """Return the change of equity by year and month, with each cell's share of the largest."""
    table = result.daily.group_by(
        year=pl.col("trade_date").dt.year(), month=pl.col("trade_date").dt.month()
    ).agg(pnl=pl.col("pnl").sum(), trades=pl.col("trades").sum())
    cells = {(year, month): (pnl, trades) for year, month, pnl, trades in table.iter_rows()}
    largest = max((abs(pnl) for pnl, _ in cells.values()), default=0.0) or 1.0
    # One short year needs no empty columns.
    shown = sorted({month for _, month in cells})
    years = []
    for year in sorted({year for year, _ in cells}):
        months = [cells.get((year, month)) for month in shown]
        total = sum(cell[0] for cell in months if cell is not None)
        years.append(
            {
                "year": year,
                "cells": [
                    None
                    if cell is None
                    else {
                        "text": number(cell[0], 0),
                        "tone": _tone(cell[0]),
                        "share": round(abs(cell[0]) / largest, 3),
                        "title": f"{number(cell[1], 0)} trades",
                    }
                    for cell in months
                ],
                "total": number(total, 0),
                "tone": _tone(total),
            }
        )
    return {"names": [date(2000, month, 1).strftime("%b") for month in shown], "years": years}


def _chart_note(result: BacktestResult, charted: int, session_count: int) -> str:
    if result.bars is None:
        return (
            "This result was loaded without its bars: the chart shows levels and trades, but no "
            "prices between them."
        )
    if charted < session_count:
        return (
            f"The page holds the bars of {number(charted, 0)} of {number(session_count, 0)} "
            "sessions, first those with trades, then those with signals and clusters; the others "
            "show levels and trades only."
        )
    return ""


def _funnel(funnel: pl.DataFrame) -> list[Stage]:
    stages: dict[str, Stage] = {}
    counts = [count for count in funnel["count"].to_list() if count]
    most = math.log10(max(counts, default=1) + 1)
    before = None
    for name, count, lost, reason in funnel.select("stage", "count", "lost", "reason").iter_rows():
        if count is not None and name not in stages:
            share = ""
            if before and name not in ("bars", "windows"):
                share = percent(count / before)
            stages[name] = Stage(
                STAGES.get(name, str(name).replace("_", " ").capitalize()),
                number(count, 0),
                round(100 * math.log10(count + 1) / most, 2),
                share,
            )
            before = count
        if lost:
            code = str(reason)
            words = REASONS.get(code, code.replace("_", " "))
            stages[name].losses.append((number(lost, 0), words, code))
    return list(stages.values())


def _context_title(config: Config) -> str:
    kind = config.learning.context
    titles = {
        "modal_bin": f"Context: modal position in {config.learning.bins} bins",
        "volume_rank": "Context: rank of the cluster",
        "hour": "Context: New York hour of the decision",
    }
    return titles.get(kind, "Context")


def _context_label(config: Config, context: int | None) -> str:
    if context is None:
        return "none"
    if config.learning.context == "modal_bin":
        bins = config.learning.bins
        return f"{context / bins:.2f} to {(context + 1) / bins:.2f}"
    if config.learning.context == "hour":
        return f"{context:02d}:00"
    return str(context)


def _contexts(result: BacktestResult) -> list[dict[str, Any]]:
    return [
        {
            "label": _context_label(result.config, row["context"]),
            "trades": number(row["trades"], 0),
            "wins": number(row["wins"], 0),
            "net": number(row["net"]),
            "tone": _tone(row["net"]),
            "mean": number(row["mean_net"]),
            "posterior": percent(row["posterior_mean"]),
            "interval": interval(row["posterior_low"], row["posterior_high"], 1, 100),
            "whisker": whisker(
                row["posterior_low"],
                row["posterior_mean"],
                row["posterior_high"],
                left=0.0,
                right=1.0,
                reference=0.5,
            ),
        }
        for row in result.contexts.iter_rows(named=True)
    ]


def _groups(groups: pl.DataFrame) -> list[list[tuple[str, list[dict[str, Any]]]]]:
    return [
        [(title, _group_rows(groups.filter(pl.col("by") == by))) for by, title in column.items()]
        for column in _GROUP_TITLES
    ]


def _group_rows(groups: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "label": str(row["label"]).removesuffix(" New York").replace("_", " "),
            "trades": number(row["trades"], 0),
            "rate": percent(row["win_rate"]),
            "interval": interval(row["win_rate_low"], row["win_rate_high"], 1, 100),
            "whisker": whisker(
                row["win_rate_low"],
                row["win_rate"],
                row["win_rate_high"],
                left=0.0,
                right=1.0,
                reference=0.5,
            ),
            "net": number(row["net_usd"]),
            "tone": _tone(row["net_usd"]),
            "mean": number(row["expectancy_usd"]),
            "r": number(row["expectancy_r"], 3),
        }
        for row in groups.iter_rows(named=True)
    ]


def _statistic_label(name: str) -> str:
    words = name.split("_")
    end = ""
    for word, text in (("low", ", lower end"), ("high", ", upper end")):
        if word in words:
            words.remove(word)
            end = text
    if words[-1] in _UNITS_NAMED_LAST and len(words) > 1:
        words = words[:-1]  # the unit has a column of its own
    text = " ".join(_WORDS.get(word, word) for word in words)
    return text[0].upper() + text[1:] + end


def _statistic_value(value: float | None, unit: str) -> str:
    if unit in _WHOLE_UNITS:
        return number(value, 0)
    if unit == "share":
        return percent(value)
    if unit in ("R", "probability", "points per contract"):
        return number(value, 3)
    return number(value)


def _settings(config: Config) -> list[tuple[str, list[dict[str, str | bool]]]]:
    usual = Config.preset("default").to_dict()
    known = {(f["section"], f["name"]): f for f in config_fields()}
    return [
        (
            section,
            [
                {
                    "name": name,
                    "value": _setting_text(value),
                    "unit": str(known[section, name]["unit"] or "") if value is not None else "",
                    "sentence": str(known[section, name]["sentence"]),
                    "changed": value != usual[section][name],
                }
                for name, value in settings.items()
            ],
        )
        for section, settings in config.to_dict().items()
    ]


def _setting_text(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}".replace("-", MINUS)
    if isinstance(value, int):
        return str(value).replace("-", MINUS)
    if isinstance(value, list | tuple):
        return ", ".join(_setting_text(item) for item in value) or "none"
    return str(value)


def quality_view(result: BacktestResult) -> dict[str, Any]:
    """Return what the check of the bars found, or why there was none."""
    try:
        report: QualityReport = result.quality()
    except ClusterCoreError as error:
        return {"checked": False, "reason": str(error)}
    counts = [
        (name.replace("_", " ").capitalize(), number(count, 0))
        for name, count in report.counts.items()
    ]
    return {
        "checked": True,
        "ok": report.ok,
        "errors": list(report.errors),
        "warnings": list(report.warnings),
        "bars": number(report.bar_count, 0),
        "sessions": number(report.session_count, 0),
        "counts": counts,
    }


def _flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, ", ".join(str(item) for item in value) or "none"
    else:
        yield path, "none" if value is None or value == "" else str(value)
