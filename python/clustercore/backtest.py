"""Bars and a configuration in, an honest result out.

The backtest drives the same ``Engine`` that takes one bar at a time; nothing here decides anything.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from clustercore.bars import Bars
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.errors import DataError
from clustercore.result import BacktestResult, assemble
from clustercore.sessions import load_sessions
from clustercore.sources import read_bars

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clustercore.instruments import Instrument
    from clustercore.sessions import Sessions

__all__ = ["backtest"]

_MOST_OUTSIDE = 0.05


def backtest(
    bars: Bars | pl.DataFrame | str | Path,
    config: Config | str = "default",
    *,
    instrument: Instrument | None = None,
    sessions: Sessions | None = None,
) -> BacktestResult:
    """Run a strategy over bars.

    Parameters
    ----------
    bars : Bars, polars.DataFrame, str or Path
        Bars, or what ``read_bars`` can read without further words.
    config : Config or str
        A configuration, or the name of a preset.
    instrument : Instrument, optional
        What is traded; by default what the symbol says.
    sessions : Sessions, optional
        The session table; by default the packaged one with the configured hours.

    Returns
    -------
    BacktestResult
        Trades, clusters, signals, orders, equity, funnel and statistics.

    Raises
    ------
    DataError
        When a bar is refused, or more than 5 % of the bars lie outside every session.
    ConfigError
        When the configuration does not fit the bars.

    Examples
    --------
    >>> import clustercore as cc
    >>> result = cc.backtest(cc.sample(sessions=30, seed=1), "default")
    >>> result.bars.simulated
    True
    >>> result.trades.height == result.stats["trades"] + result.stats["open_trades"]
    True
    """
    if isinstance(config, str):
        config = Config.preset(config)
    if not isinstance(bars, Bars):
        roll = config.roll
        bars = read_bars(bars, roll=roll.every, lookback_hours=roll.lookback_hours)
    instrument = instrument or bars.instrument
    if sessions is None:
        sessions = load_sessions(
            instrument.calendar, hours=config.session.hours, day=config.session.day
        )
    columns = bars.columns_nanos()
    engine = Engine(config, instrument, sessions, bars.interval_ns)
    # Two engines that know nothing of each other; both leave the interpreter while they work.
    with ThreadPoolExecutor(max_workers=1) as aside:
        adverse = aside.submit(_adverse_net, bars, columns, config, instrument, sessions)
        try:
            frames = engine.run(bars, columns=columns, finish=True)
        except DataError as error:
            raise bars.in_source(error) from None
        counts = engine.counts()
        _refuse_outside(bars, counts)
        return assemble(bars, columns, engine, frames, counts, adverse.result)


def _refuse_outside(bars: Bars, counts: dict[str, int]) -> None:
    outside, inside = counts["outside_session"], counts["bars"]
    if outside > _MOST_OUTSIDE * (outside + inside):
        raise DataError(
            "too many bars lie outside every session; is the time zone right, or the calendar? "
            'For plain UTC days set session.day = "utc"',
            file=bars.source,
            column="ts_event",
            found=f"{outside} of {outside + inside} bars outside",
            expected="at most 5 %",
        )


def _adverse_net(
    bars: Bars,
    columns: dict[str, NDArray[np.int64]],
    config: Config,
    instrument: Instrument,
    sessions: Sessions,
) -> tuple[float, int] | None:
    """Return net result and trades when every entry pays the worse of its bar's open and close.

    Only an entry at the next open can be filled worse in this way; others have no such figure.
    """
    if config.entry.mode != "next_open" or config.entry.adverse:
        return None
    worse = Engine(config.override({"entry.adverse": True}), instrument, sessions, bars.interval_ns)
    closed = worse.run(bars, columns=columns, only=("trades",))["trades"]["net"]
    return float(closed.sum()), closed.len()
