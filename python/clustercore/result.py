"""What a backtest came to: frames, statistics, a summary, and the way to disk and back."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from clustercore import _core
from clustercore.bars import Bars, interval_text
from clustercore.config import Config
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clustercore.engine import Engine
    from clustercore.quality import QualityReport
    from clustercore.sessions import Sessions

__all__ = ["BacktestResult", "Statistic", "assemble", "load_result"]

_FRAMES = (
    "trades",
    "clusters",
    "signals",
    "orders",
    "equity",
    "risk",
    "funnel",
    "daily",
    "contexts",
    "groups",
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FORMAT = 1


@dataclass(frozen=True)
class Statistic:
    """One number of the result.

    Parameters
    ----------
    name : str
        Name, as in ``BacktestResult.stats``.
    value : float or None
        The value, where it exists.
    reason : str or None
        Why there is no value.
    unit, definition : str
        Unit, and the formula in one sentence.
    """

    name: str
    value: float | None
    reason: str | None
    unit: str
    definition: str


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """A backtest's frames and what they add up to.

    Parameters
    ----------
    trades, clusters, signals, orders, equity, risk : polars.DataFrame
        One row each; columns as in the reference of columns. Times UTC, prices in points.
    funnel : polars.DataFrame
        ``stage count lost reason``: how far things got, and why they stopped.
    daily : polars.DataFrame
        ``trade_date equity pnl trades``: one row a session with a bar.
    contexts, groups : polars.DataFrame
        Closed trades by context with the posterior win probability, and by direction, hour,
        weekday, exit reason and context.
    statistics : tuple of Statistic
        Every number with its definition.
    verdict : str
        Whether the mean trade can be told from luck, in one sentence.
    config : Config
        The configuration.
    instrument : Instrument
        What was traded.
    manifest : dict
        What is needed to make the result again: data and its hash, configuration, versions.
    bars : Bars or None
        The bars; None for a result that was loaded.
    sessions : Sessions or None
        The session table; None for a result that was loaded.
    """

    trades: pl.DataFrame
    clusters: pl.DataFrame
    signals: pl.DataFrame
    orders: pl.DataFrame
    equity: pl.DataFrame
    risk: pl.DataFrame
    funnel: pl.DataFrame
    daily: pl.DataFrame
    contexts: pl.DataFrame
    groups: pl.DataFrame
    statistics: tuple[Statistic, ...]
    verdict: str
    config: Config
    instrument: Instrument
    manifest: dict[str, Any]
    bars: Bars | None = field(default=None, repr=False)
    sessions: Sessions | None = field(default=None, repr=False)

    @property
    def stats(self) -> dict[str, float | None]:
        """Every statistic by its name."""
        return {statistic.name: statistic.value for statistic in self.statistics}

    @property
    def simulated(self) -> bool:
        """Whether the bars were simulated."""
        return bool(self.manifest["data"]["simulated"])

    @property
    def halted(self) -> str | None:
        """What to say first when trading was halted and never resumed."""
        if self.risk.is_empty():
            return None
        standing = self.risk.filter(pl.col("kind").is_in(["halted", "reset"]))
        if standing.is_empty() or standing["kind"][-1] != "halted":
            return None
        time = standing["time"][-1].strftime("%Y-%m-%d %H:%M")
        return (
            f"HALTED since {time} UTC ({standing['reason'][-1]}): everything after it is "
            "missing from this result. See risk.on_halt."
        )

    def quality(self) -> QualityReport:
        """Return the check of the bars against the session table.

        Raises
        ------
        DataError
            For a result that was loaded, which has no bars.
        """
        from clustercore.quality import check_bars

        if self.bars is None or self.sessions is None:
            raise DataError("a loaded result has no bars to check")
        return check_bars(self.bars, self.sessions, self.instrument, self.bars.interval_ns)

    def summary(self) -> str:
        """Return the result as a page of text."""
        from clustercore.summary import summary_text

        return summary_text(self)

    def report(self, path: str | Path) -> Path:
        """Write the result as one HTML file that needs no network, and return its path."""
        from clustercore.report import write_report

        return write_report(self, Path(path))

    def save(self, folder: str | Path) -> Path:
        """Write the result as Parquet and JSON, whole or not at all, and return the folder.

        Raises
        ------
        DataError
            When the folder holds something that is no result.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").exists():
            raise DataError("the folder is in use by something else", file=str(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as scratch:
            staged = Path(scratch) / "result"
            staged.mkdir()
            for name in _FRAMES:
                getattr(self, name).write_parquet(staged / f"{name}.parquet")
            content = {
                "format": _FORMAT,
                "manifest": self.manifest,
                "config": {"name": self.config.name, "settings": self.config.to_dict()},
                "statistics": [vars(statistic) for statistic in self.statistics],
                "verdict": self.verdict,
            }
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (staged / "manifest.json").write_text(text, "utf-8")
            replace_folder(staged, folder)
        return folder


def replace_folder(staged: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, which stays as it was when that fails.

    Files that only the old folder has are kept. ``staged`` must lie in a scratch folder on the
    same file system; the old folder ends up beside it, to be removed with the scratch folder.
    """
    if not folder.exists():
        staged.rename(folder)
        return
    for old in folder.iterdir():
        if not (staged / old.name).exists():
            copy = shutil.copytree if old.is_dir() else shutil.copy2
            copy(old, staged / old.name)
    aside = staged.with_name("replaced")
    folder.rename(aside)
    try:
        staged.rename(folder)
    except OSError:
        aside.rename(folder)
        raise


def load_result(folder: str | Path) -> BacktestResult:
    """Return a result that was saved.

    Raises
    ------
    DataError
        When the folder is no result, or one of another format.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "manifest.json").read_text("utf-8"))
        frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _FRAMES}
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"not a saved result: {error}", file=str(folder)) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError(
            "a result of another format",
            file=str(folder),
            found=str(found),
            expected=str(_FORMAT),
        )
    try:
        return BacktestResult(
            **{name: frames[name] for name in _FRAMES},  # type: ignore[arg-type]
            statistics=tuple(Statistic(**statistic) for statistic in content["statistics"]),
            verdict=content["verdict"],
            config=Config(content["config"]["settings"], content["config"]["name"]),
            instrument=Instrument(**content["manifest"]["instrument"]),
            manifest=content["manifest"],
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise DataError(f"not a saved result: {error}", file=str(folder)) from error


def assemble(
    bars: Bars,
    columns: dict[str, NDArray[np.int64]],
    engine: Engine,
    frames: dict[str, pl.DataFrame],
    counts: dict[str, int],
    adverse: Callable[[], tuple[float, int] | None],
) -> BacktestResult:
    """Return the result of a run: statistics, groups, funnel and manifest around its frames.

    ``adverse`` returns what another run gave, and is asked last.
    """
    config, sessions = engine.config, engine.sessions
    trades = frames["trades"]
    trade_columns = _trade_columns(trades, engine)
    taken = (columns["volume"] > 0) & ~bars.frame["context"].to_numpy()
    start = _inside(columns["ts_event"][taken], sessions)
    daily = _daily(start, frames["equity"], trades, engine)
    mark_time = frames["equity"]["time"].to_physical().to_numpy()
    listed, verdict = _core.compute_statistics(
        trade_columns,
        config.account.balance,
        daily["equity"].to_numpy(),
        mark_time,
        frames["equity"]["equity"].to_numpy(),
        start,
        bars.interval_ns,
        config.statistics.seed,
        config.statistics.resamples,
        config.statistics.block_days,
    )
    return BacktestResult(
        **frames,
        funnel=_funnel(frames, counts),
        daily=daily,
        contexts=_contexts(trades),
        groups=_groups(trades, trade_columns, sessions),
        verdict=verdict,
        config=config,
        instrument=engine.instrument,
        manifest=_manifest(bars, columns, engine),
        bars=bars,
        sessions=sessions,
        statistics=tuple(Statistic(**row) for row in listed) + _adverse_statistics(adverse()),
    )


def _inside(start: NDArray[np.int64], sessions: Sessions) -> NDArray[np.int64]:
    """Return those of some ascending times that lie in a session."""
    change = np.zeros(len(start) + 1, np.int8)
    # Sessions without a bar begin and end at one place.
    np.add.at(change, np.searchsorted(start, sessions.open_ns), 1)
    np.add.at(change, np.searchsorted(start, sessions.close_ns), -1)
    return start[np.cumsum(change[:-1], dtype=np.int8) > 0]


def _trade_columns(trades: pl.DataFrame, engine: Engine) -> dict[str, NDArray[Any]]:
    frame = trades.select(
        "net",
        "gross",
        "costs",
        "return",
        "mae",
        "mfe",
        "ambiguous",
        "modal_tied",
        stop_points=(pl.col("entry_price") - pl.col("stop")).abs(),
        points=pl.col("exit_price") - pl.col("entry_price"),
        sign=pl.when(pl.col("direction") == "long").then(1.0).otherwise(-1.0),
        quantity=pl.col("quantity").cast(pl.Float64),
        open=pl.col("exit_reason") == "open",
        entry_time=pl.col("entry_time").to_physical(),
        exit_time=pl.col("exit_time").to_physical(),
        decision_time=pl.col("decision_time").to_physical(),
    )
    frame = frame.with_columns(
        points=pl.col("points") * pl.col("sign"),
        risk_usd=pl.col("stop_points") * pl.col("quantity") * float(engine.instrument.point_value),
    )
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    session = _session_of_end(columns["decision_time"], engine.sessions)
    columns["trade_date"] = engine.sessions.columns()["trade_date"][session]
    return columns


def _session_of_end(times: NDArray[np.int64], sessions: Sessions) -> NDArray[np.int64]:
    """Return the session of instants that are ends of bars, so that a close belongs to its own."""
    return np.searchsorted(sessions.open_ns, times - 1, side="right") - 1


def _daily(
    start: NDArray[np.int64], equity: pl.DataFrame, trades: pl.DataFrame, engine: Engine
) -> pl.DataFrame:
    """Return the equity at the end of each session that had a bar."""
    sessions = engine.sessions
    open_ns, close_ns = sessions.open_ns, sessions.close_ns
    first = np.searchsorted(start, open_ns, side="left")
    held = np.flatnonzero(np.searchsorted(start, close_ns, side="left") > first)
    ends = np.append(open_ns[1:], np.iinfo(np.int64).max)[held]
    marks = equity["time"].to_physical().to_numpy()
    last = np.searchsorted(marks, ends, side="right") - 1
    balance = engine.config.account.balance
    values = np.where(
        last >= 0, equity["equity"].to_numpy()[last] if len(marks) else balance, balance
    )
    decided = _session_of_end(trades["decision_time"].to_physical().to_numpy(), sessions)
    counts = np.bincount(decided, minlength=len(open_ns))[held] if len(decided) else 0 * held
    return pl.DataFrame(
        {
            "trade_date": sessions.frame["trade_date"].gather(held),
            "equity": values,
            "pnl": np.diff(values, prepend=balance),
            "trades": counts.astype(np.int64),
        }
    )


def _adverse_statistics(adverse: tuple[float, int] | None) -> tuple[Statistic, ...]:
    net, trades = (None, None) if adverse is None else (adverse[0], float(adverse[1]))
    reason = None if adverse else "only an entry at the next open can be filled worse"
    return (
        Statistic(
            "adverse_net_usd",
            net,
            reason,
            "USD",
            "Net result of the same configuration when every entry pays the worse of its bar's "
            "open and close.",
        ),
        Statistic("adverse_trades", trades, reason, "trades", "Closed trades of that run."),
    )


def _tally(reasons: pl.Series) -> dict[str, int]:
    """Return how often each reason occurs, in the order of their names."""
    return dict(sorted(reasons.value_counts().iter_rows()))


def _funnel(frames: dict[str, pl.DataFrame], counts: dict[str, int]) -> pl.DataFrame:
    clusters = _tally(frames["clusters"]["reason"])
    signals = _tally(frames["signals"]["reason"])
    confirmed_signals = frames["signals"].filter(pl.col("confirmed_time").is_not_null())
    confirmed = _tally(confirmed_signals["reason"])
    orders = _tally(frames["orders"]["reason"])
    blocked = _tally(frames["orders"].filter(pl.col("quantity") == 0)["reason"])
    exits = _tally(frames["trades"]["exit_reason"])
    lost_signals = {k: v - confirmed.get(k, 0) for k, v in signals.items()}
    unordered = {k: v for k, v in confirmed.items() if k not in ("ordered", "blocked")}
    worked = {k: v for k, v in orders.items() if k != "filled"}
    for reason, count in blocked.items():
        worked[reason] = worked.get(reason, 0) - count
    losses: list[tuple[str, dict[str, int]]] = [
        ("bars", {}),
        ("windows", {k: counts[k] for k in ("thin", "warming_up", "quiet")}),
        ("clusters", {k: clusters.get(k, 0) for k in ("overlap", "hours")}),
        ("inside_hours", {k: clusters.get(k, 0) for k in ("no_time", "no_profile", "rank")}),
        ("ranked", {"no_direction": clusters.get("no_direction", 0)}),
        ("with_direction", {"weak": clusters.get("weak", 0)}),
        ("strong_enough", {k: clusters.get(k, 0) for k in ("max_per_session", "cooldown")}),
        ("armed", {**lost_signals, "pending": counts["pending_signals"]}),
        ("confirmed", {**unordered, **blocked}),
        ("ordered", {**worked, "working": counts["working_orders"]}),
        ("entered", {"open": exits.get("open", 0)}),
        ("closed", {}),
    ]
    rows: list[tuple[str, int | None, int | None, str | None]] = []
    count = counts["windows"]
    for stage, lost in losses:
        if stage == "bars":
            rows.append((stage, counts["bars"], None, None))
            left_out = ("context_bars", "zero_volume", "outside_session")
            rows += [(stage, None, counts[name], name) for name in left_out if counts[name]]
            continue
        rows.append((stage, count, None, None))
        for reason, number in lost.items():
            if number:
                rows.append((stage, None, number, reason))
                count -= number
    schema = {"stage": pl.String, "count": pl.Int64, "lost": pl.Int64, "reason": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _contexts(trades: pl.DataFrame) -> pl.DataFrame:
    closed = trades.filter(pl.col("exit_reason") != "open")
    table = (
        closed.group_by("context")
        .agg(
            trades=pl.len().cast(pl.Int64),
            wins=(pl.col("net") > 0).sum().cast(pl.Int64),
            net=pl.col("net").sum(),
            mean_net=pl.col("net").mean(),
        )
        .with_columns(losses=pl.col("trades") - pl.col("wins"))
        .sort("context", nulls_last=False)
    )
    posteriors = [
        _core.posterior(wins, losses) for wins, losses in table.select("wins", "losses").iter_rows()
    ]
    names = ("posterior_mean", "posterior_low", "posterior_high")
    return table.with_columns(
        pl.Series(name, [row[place] for row in posteriors], dtype=pl.Float64)
        for place, name in enumerate(names)
    )


def _groups(trades: pl.DataFrame, columns: dict[str, Any], sessions: Sessions) -> pl.DataFrame:
    offset = sessions.columns()["new_york_offset_s"].astype(np.int64)
    session = _session_of_end(columns["decision_time"], sessions)
    local = columns["decision_time"] // 10**9 + (offset[session] if len(session) else 0)
    reasons = trades["exit_reason"].unique().sort().to_list()
    keys: dict[str, tuple[NDArray[np.int64], dict[int, str]]] = {
        "direction": ((columns["sign"] < 0).astype(np.int64), {0: "long", 1: "short"}),
        "hour": (local % 86_400 // 3_600, {hour: f"{hour:02d}:00 New York" for hour in range(24)}),
        "weekday": (
            (columns["trade_date"].astype(np.int64) + 3) % 7,
            dict(enumerate(_WEEKDAYS)),
        ),
        "exit_reason": (
            np.array([reasons.index(r) for r in trades["exit_reason"]], dtype=np.int64),
            dict(enumerate(reasons)),
        ),
        "context": (trades["context"].fill_null(-1).to_numpy(), {-1: "none"}),
    }
    rows = [
        {"by": by, "label": labels.get(group["key"], str(group["key"])), **group}
        for by, (numbers, labels) in keys.items()
        for group in _core.group_trades(columns, np.ascontiguousarray(numbers))
    ]
    schema = {
        "by": pl.String,
        "label": pl.String,
        "key": pl.Int64,
        "trades": pl.Int64,
        "wins": pl.Int64,
        "win_rate": pl.Float64,
        "win_rate_low": pl.Float64,
        "win_rate_high": pl.Float64,
        "net_usd": pl.Float64,
        "expectancy_usd": pl.Float64,
        "expectancy_r": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def _manifest(bars: Bars, columns: dict[str, NDArray[np.int64]], engine: Engine) -> dict[str, Any]:
    times = bars.frame["ts_event"]
    instrument = engine.instrument
    return {
        "data": {
            "source": bars.source,
            "source_hash": bars.source_hash,
            "data_hash": _core.hash_columns(list(columns.values())),
            "rows": len(bars),
            "first": str(times[0]) if len(bars) else None,
            "last": str(times[-1]) if len(bars) else None,
            "interval": interval_text(bars.interval_ns),
            "symbols": list(bars.symbols),
            "simulated": bars.simulated,
            "notes": list(bars.notes),
        },
        "config_id": engine.config_id,
        "config_name": engine.config.name,
        "instrument": {
            "root": instrument.root,
            "tick_size": instrument.tick_size,
            "point_value": instrument.point_value,
            "commission": instrument.commission,
            "margin": instrument.margin,
            "calendar": instrument.calendar,
            "check_tick": instrument.check_tick,
            "allow_negative": instrument.allow_negative,
        },
        "seed": engine.config.statistics.seed,
        "versions": {
            "clustercore": _core.VERSION,
            "engine": _core.ENGINE_VERSION,
            "python": platform.python_version(),
            "polars": pl.__version__,
            "numpy": np.__version__,
        },
    }
