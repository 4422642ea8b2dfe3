"""The same trades in libraries that take signals: entries, and the bars at which time is up.

They are spared the search for clusters, the retests and the clock, and have only fills, stops,
targets and the account to compute.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.strategy import MINUTE, Answer

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from benches.market import Market
    from benches.strategy import Rules

EASE = 1e-6  # points by which a level as a fraction of price is eased, so that a touch stays one


@dataclass(frozen=True)
class Signals:
    """Entries and exits for libraries, one row a bar.

    Parameters
    ----------
    long_entry, long_exit, short_entry, short_exit : ndarray of bool, shape (n_bars,)
        What to do at the bar's close.
    stop, target : ndarray of float64, shape (n_bars,)
        Distances as fractions of the close.
    """

    long_entry: NDArray[np.bool_]
    long_exit: NDArray[np.bool_]
    short_entry: NDArray[np.bool_]
    short_exit: NDArray[np.bool_]
    stop: NDArray[np.float64]
    target: NDArray[np.float64]


def signals_of(market: Market, rules: Rules, trades: pl.DataFrame) -> Signals:
    """Return the signals that lead to these trades."""
    start = market.nanos["ts_event"]
    entry = np.searchsorted(start, trades["entry_time"].to_physical().to_numpy() - MINUTE)
    leave = np.searchsorted(start, trades["exit_time"].to_physical().to_numpy() - MINUTE)
    by_time = trades["exit_reason"].is_in(["time", "session_end"]).to_numpy()
    if "session_end_late" in trades["exit_reason"]:
        raise ValueError("an exit at an open cannot be given as a signal at a close")
    long = (trades["direction"] == "long").to_numpy()

    def at(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        column = np.zeros(len(start), dtype=np.bool_)
        column[rows] = True
        return column

    close = market.points["close"]
    return Signals(
        at(entry[long]),
        at(leave[long & by_time]),
        at(entry[~long]),
        at(leave[~long & by_time]),
        (rules.stop / 1e9 - EASE) / close,
        (rules.target / 1e9 - EASE) / close,
    )


def index_of(market: Market) -> Any:
    """Return the times for pandas. With a time zone vectorbt takes minutes instead of a second."""
    import pandas as pd

    return pd.DatetimeIndex(market.nanos["ts_event"].view("M8[ns]"))


def run_vectorbt(
    market: Market, rules: Rules, signals: Signals, index: Any, engine: str, *, summary: bool
) -> tuple[Any, Any]:
    """Return the portfolio and, when asked for, trades, value and all it prints."""
    import pandas as pd
    import vectorbt as vbt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        portfolio = vbt.Portfolio.from_signals(
            pd.Series(market.points["close"], index=index),
            entries=signals.long_entry,
            exits=signals.long_exit,
            short_entries=signals.short_entry,
            short_exits=signals.short_exit,
            open=market.points["open"],
            high=market.points["high"],
            low=market.points["low"],
            size=rules.point_value,
            sl_stop=signals.stop,
            tp_stop=signals.target,
            stop_entry_price="price",
            fixed_fees=rules.side_cost,
            init_cash=rules.balance,
            freq="1min",
            engine=engine,
        )
        if not summary:
            return portfolio, None
        return portfolio, (portfolio.trades.records, portfolio.value(), portfolio.stats())


def answer_of_vectorbt(market: Market, result: tuple[Any, Any]) -> Answer:
    """Return vectorbt's answer."""
    start = market.nanos["ts_event"]
    portfolio, summary = result
    records = portfolio.trades.records if summary is None else summary[0]
    value = portfolio.value() if summary is None else summary[1]
    return Answer(
        start[records["entry_idx"].to_numpy()] + MINUTE,
        start[records["exit_idx"].to_numpy()] + MINUTE,
        np.where(records["direction"].to_numpy() == 0, 1, -1),
        records["entry_price"].to_numpy(),
        records["exit_price"].to_numpy(),
        records["pnl"].to_numpy(),
        None,
        value.to_numpy()[-1:],
    )


def kernel_of_vectorbt(market: Market, rules: Rules, signals: Signals) -> Any:
    """Return vectorbt's compiled simulation over arrays that are prepared."""
    from vectorbt.portfolio import dispatch
    from vectorbt.portfolio.enums import StopEntryPrice

    def column(values: Any) -> Any:
        return np.ascontiguousarray(np.asarray(values)[:, None])

    points, n_bars = market.points, len(market)
    return lambda: dispatch.simulate_from_signals(
        target_shape=(n_bars, 1),
        group_lens=np.array([1]),
        init_cash=np.array([rules.balance]),
        call_seq=np.zeros((n_bars, 1), dtype=np.int64),
        long_entries=column(signals.long_entry),
        long_exits=column(signals.long_exit),
        short_entries=column(signals.short_entry),
        short_exits=column(signals.short_exit),
        size=np.asarray(rules.point_value),
        price=np.asarray(np.inf),
        fixed_fees=np.asarray(rules.side_cost),
        open=column(points["open"]),
        high=column(points["high"]),
        low=column(points["low"]),
        close=column(points["close"]),
        sl_stop=column(signals.stop),
        tp_stop=column(signals.target),
        stop_entry_price=np.asarray(StopEntryPrice.Price),
        use_stops=True,
        engine="rust",
    )


def answer_of_orders(market: Market, orders: Any) -> Answer:
    """Return the trades that a list of orders makes, an entry and an exit in turn."""
    start = market.nanos["ts_event"]
    entry, leave = orders[0::2], orders[1::2]
    direction = np.where(entry["side"] == 0, 1, -1)
    gross = direction * (leave["price"] - entry["price"]) * entry["size"]
    return Answer(
        start[entry["idx"]] + MINUTE,
        start[leave["idx"]] + MINUTE,
        direction,
        entry["price"],
        leave["price"],
        gross - entry["fees"] - leave["fees"],
    )


def run_raptorbt(market: Market, signals: Signals) -> Any:
    """Return raptorbt's result: long only, all the capital, no cost, exits by signal."""
    import raptorbt

    points = market.points
    result = raptorbt.run_single_backtest(
        market.nanos["ts_event"],
        points["open"],
        points["high"],
        points["low"],
        points["close"],
        points["volume"],
        signals.long_entry,
        signals.long_exit,
        1,
        1.0,
        "ES",
        raptorbt.BacktestConfig(
            initial_capital=1e6, fees=0.0, slippage=0.0, fill_timing="same_bar_close"
        ),
    )
    return result, result.trades(), result.metrics.to_dict(), result.equity_curve()


def answer_of_raptorbt(rules: Rules, result: Any) -> Answer:
    """Return raptorbt's trades; results for one contract, our costs taken off."""
    _, trades, _, _ = result
    entry = np.array([trade.entry_price for trade in trades])
    leave = np.array([trade.exit_price for trade in trades])
    return Answer(
        np.array([trade.entry_time for trade in trades]) + MINUTE,
        np.array([trade.exit_time for trade in trades]) + MINUTE,
        np.array([trade.direction for trade in trades]),
        entry,
        leave,
        (leave - entry) * rules.point_value - 2 * rules.side_cost,
    )


def prepare_backtesting(market: Market, rules: Rules, signals: Signals) -> Any:
    """Return a prepared backtest of backtesting.py."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backtesting import Backtest, Strategy

        frame = pd.DataFrame(
            {
                name.title(): market.points[name]
                for name in ("open", "high", "low", "close", "volume")
            },
            index=index_of(market),
        )
        entry = np.where(signals.long_entry, 1, np.where(signals.short_entry, -1, 0)).tolist()
        leave = (signals.long_exit | signals.short_exit).tolist()
        close = market.points["close"].tolist()
        stop, target = rules.stop / 1e9, rules.target / 1e9

        class Given(Strategy):  # type: ignore[misc]  # a library without types
            def init(self) -> None:
                self.size = int(rules.point_value)

            def next(self) -> None:
                row = len(self.data) - 1
                if leave[row]:
                    self.position.close()
                side = entry[row]
                if side > 0:
                    self.buy(size=self.size, sl=close[row] - stop, tp=close[row] + target)
                elif side < 0:
                    self.sell(size=self.size, sl=close[row] + stop, tp=close[row] - target)

        return Backtest(
            frame,
            Given,
            cash=rules.balance,
            commission=(rules.side_cost, 0.0),
            trade_on_close=True,
        )


def run_backtesting(backtest: Any) -> Any:
    """Return what backtesting.py reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return backtest.run()


def answer_of_backtesting(market: Market, report: Any) -> Answer:
    """Return backtesting.py's answer."""
    start = market.nanos["ts_event"]
    trades = report["_trades"].sort_values("EntryBar")
    return Answer(
        start[trades["EntryBar"].to_numpy()] + MINUTE,
        start[trades["ExitBar"].to_numpy()] + MINUTE,
        np.sign(trades["Size"].to_numpy()),
        trades["EntryPrice"].to_numpy(),
        trades["ExitPrice"].to_numpy(),
        trades["PnL"].to_numpy(),
        None,
        report["_equity_curve"]["Equity"].to_numpy()[-1:],
    )
