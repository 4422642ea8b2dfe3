"""The strategy that is compared: one that other libraries can express to the trade.

Aligned windows of 15 minutes, a rolling baseline over one day of bars, rank 1 in two hours, modal
price of the volume at closes, both directions, a retest by a close, 75 minutes between signals, a
stop and a target in points, stop first, an hour at most, out before the session ends. Nothing
learns, sizes are one contract, and no gate can stop trading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

import clustercore as cc
from clustercore import _core
from clustercore.result import _daily, _trade_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benches.market import Market

MINUTE = 60_000_000_000


class Rules(NamedTuple):
    """The numbers of the strategy, in ns, nanos and bars."""

    window: int = 15 * MINUTE
    need: int = 12
    baseline_bars: int = 1380
    threshold: float = 1.5
    rank: int = 120 * MINUTE
    cooldown: int = 75 * MINUTE
    long_threshold: float = 0.25
    short_threshold: float = 0.75
    tick: int = 250_000_000
    tolerance: int = 750_000_000
    timeout: int = 30 * MINUTE
    max_wait: int = 5 * MINUTE
    stop: int = 5_000_000_000
    target: int = 10_000_000_000
    max_hold: int = 60 * MINUTE
    flatten: int = MINUTE
    interval: int = MINUTE
    side_cost: float = 11.875
    point_value: float = 50.0
    balance: float = 1_000_000.0


WHOLE = Rules()
# Entry at the confirming close, and a target that is tested on every bar and never reached: the
# libraries enter at a close, look at stops from the next bar on, and pay the open where a target
# is jumped over, which is not our fill rule.
SIGNALS = Rules(target=1_000_000_000_000)
# raptorbt knows stops in percent only and one direction; here nothing but time ends a trade.
TIMED = Rules(stop=1_000_000_000_000, target=1_000_000_000_000)


def config_of(rules: Rules, *, entry: str = "next_open", shorts: bool = True) -> cc.Config:
    """Return the configuration of the engine that means these rules."""
    return cc.Config.preset().override(
        {
            "baseline.mode": "rolling",
            "baseline.bars": rules.baseline_bars,
            "cluster.threshold": rules.threshold,
            "rank.hours": rules.rank / 60 / MINUTE,
            "rank.cooldown_minutes": rules.cooldown // MINUTE,
            "profile.tie": "lowest",
            "signal.shorts": shorts,
            "signal.min_strength": 0.0,
            "retest.test": "close",
            "retest.tolerance": f"{rules.tolerance / 1e9} points",
            "entry.mode": entry,
            "stop.mode": "fixed",
            "stop.distance": f"{rules.stop / 1e9} points",
            "target.mode": "fixed",
            "target.distance": f"{rules.target / 1e9} points",
            "exit.target_through_ticks": 0,
            "learning.mode": "off",
            "size.signal_scale": 0.0,
            "account.balance": rules.balance,
            "statistics.resamples": 100,
        }
    )


@dataclass(frozen=True)
class Answer:
    """What must be equal: entries, exits, prices and results of every trade, and the equity.

    Parameters
    ----------
    entry_time, exit_time : ndarray of int64, shape (n_trades,)
        ns.
    direction : ndarray of int64, shape (n_trades,)
        1 long, -1 short.
    entry_price, exit_price, net : ndarray of float64, shape (n_trades,)
        Points, points, USD.
    equity_time : ndarray of int64, shape (n_marks,) or None
        Instants of the equity frame, ns; None from who has a value for every bar.
    equity : ndarray of float64, shape (n_marks,) or None
        USD.
    statistics : dict of str to float
        The usual numbers.
    """

    entry_time: NDArray[np.int64]
    exit_time: NDArray[np.int64]
    direction: NDArray[np.int64]
    entry_price: NDArray[np.float64]
    exit_price: NDArray[np.float64]
    net: NDArray[np.float64]
    equity_time: NDArray[np.int64] | None = None
    equity: NDArray[np.float64] | None = None
    statistics: dict[str, float | None] | None = None

    @property
    def trades(self) -> int:
        """Number of trades."""
        return len(self.net)


def run_engine(
    market: Market, config: cc.Config, sessions: cc.Sessions
) -> tuple[dict[str, pl.DataFrame], dict[str, float | None]]:
    """Return frames and statistics of a run: all that is timed."""
    engine = cc.Engine(config, market.bars.instrument, sessions, market.bars.interval_ns)
    frames = engine.run(market.bars, columns=market.nanos, finish=True)
    daily = _daily(market.nanos["ts_event"], frames["equity"], frames["trades"], engine)
    listed, _ = _core.compute_statistics(
        _trade_columns(frames["trades"], engine),
        config.account.balance,
        daily["equity"].to_numpy(),
        frames["equity"]["time"].to_physical().to_numpy(),
        frames["equity"]["equity"].to_numpy(),
        market.nanos["ts_event"],
        market.bars.interval_ns,
        config.statistics.seed,
        config.statistics.resamples,
        config.statistics.block_days,
    )
    return frames, {row["name"]: row["value"] for row in listed}


def answer_of(
    frames: dict[str, pl.DataFrame], statistics: dict[str, float | None] | None = None
) -> Answer:
    """Return what the engine answered."""
    trades, equity = frames["trades"], frames["equity"]
    return Answer(
        trades["entry_time"].to_physical().to_numpy(),
        trades["exit_time"].to_physical().to_numpy(),
        np.where(trades["direction"] == "long", 1, -1),
        trades["entry_price"].to_numpy(),
        trades["exit_price"].to_numpy(),
        trades["net"].to_numpy(),
        equity["time"].to_physical().to_numpy(),
        equity["equity"].to_numpy(),
        statistics,
    )


def at_bar_ends(market: Market, frames: dict[str, pl.DataFrame], answer: Answer) -> Answer:
    """Return an answer as a library tells it that knows bars and no instants inside them.

    We leave at the start of a bar that opens at or beyond the stop; a library names the bar.
    """
    start, trades = market.nanos["ts_event"], frames["trades"]
    row = np.minimum(np.searchsorted(start, answer.exit_time), len(start) - 1)
    before = np.maximum(row - 1, 0)
    stop = np.rint(trades["stop"].to_numpy() * 1e9).astype(np.int64)
    side = answer.direction
    opens_beyond = side * (market.nanos["open"][row] - stop) <= 0
    worst = np.where(side > 0, market.nanos["low"][before], market.nanos["high"][before])
    untouched = (side * (worst - stop) > 0) | (start[before] + MINUTE != answer.exit_time)
    at_open = (
        (trades["exit_reason"] == "stop").to_numpy()
        & (start[row] == answer.exit_time)
        & opens_beyond
        & untouched
    )
    return replace(answer, exit_time=np.where(at_open, answer.exit_time + MINUTE, answer.exit_time))


def difference(ours: Answer, theirs: Answer) -> str | None:
    """Return in a few words how two answers differ, or None."""
    if ours.trades == 0:
        return "no trades"
    if ours.trades != theirs.trades:
        return f"{ours.trades} trades against {theirs.trades}"
    for name in ("entry_time", "exit_time", "direction"):
        places = np.flatnonzero(getattr(ours, name) != getattr(theirs, name))
        if len(places):
            return f"{name} of {len(places)} trades, first trade {places[0]}"
    # Floats of peers carry prices as fractions of a price; a tick is 0.25 points or 12.5 USD.
    for name, tolerance in (("entry_price", 1e-5), ("exit_price", 1e-5), ("net", 1e-3)):
        places = np.flatnonzero(np.abs(getattr(ours, name) - getattr(theirs, name)) > tolerance)
        if len(places):
            return f"{name} of {len(places)} trades, first trade {places[0]}"
    return _equity_difference(ours, theirs)


def _equity_difference(ours: Answer, theirs: Answer) -> str | None:
    if theirs.equity is None or ours.equity is None:
        return None
    if theirs.equity_time is not None and ours.equity_time is not None:
        if not np.array_equal(ours.equity_time, theirs.equity_time):
            return f"{len(ours.equity)} equity rows against {len(theirs.equity)}, or other times"
        if np.abs(ours.equity - theirs.equity).max() > 1e-3:
            return "equity"
    elif abs(ours.equity[-1] - theirs.equity[-1]) > 0.5:  # a thousand eased stops
        return "last equity"
    return None


def usual_statistics(
    net: NDArray[np.float64],
    equity_time: NDArray[np.int64],
    equity: NDArray[np.float64],
    balance: float,
) -> dict[str, float | None]:
    """Return what backtests print, from trades and equity, for peers without their own."""
    wins, losses = net[net > 0], net[net <= 0]
    peak = np.maximum(np.maximum.accumulate(equity), balance)
    last_of_day = np.flatnonzero(np.diff(equity_time // 86_400_000_000_000, append=1))
    daily = np.diff(equity[last_of_day], prepend=balance) / balance
    down = np.sqrt(np.mean(np.minimum(daily, 0.0) ** 2))
    year = np.sqrt(252.0)
    return {
        "trades": float(len(net)),
        "wins": float(len(wins)),
        "net_usd": float(net.sum()),
        "win_rate": len(wins) / len(net),
        "largest_win_usd": float(net.max()),
        "largest_loss_usd": float(net.min()),
        "average_win_usd": float(wins.mean()),
        "average_loss_usd": float(losses.mean()),
        "profit_factor": float(wins.sum() / -losses.sum()),
        "expectancy_usd": float(net.mean()),
        "max_drawdown_usd": float((peak - equity).max()),
        "sharpe of days": float(daily.mean() / daily.std(ddof=1) * year),
        "sortino of days": float(daily.mean() / down * year),
    }
