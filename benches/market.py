"""The real market that every benchmark runs over, and changed copies of it.

A copy differs from the data by a whole number of ticks in every price: nothing that was computed
for one copy serves another, while rules that are stated in points make the same trades.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

import clustercore as cc
from clustercore.bars import PRICE_COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CLUSTERCORE_DATA") or ROOT.parent / "shared" / "data")
FIVE_YEARS = DATA_DIR / "bars" / "es_1m_2015_2019.parquet"
ONE_YEAR = DATA_DIR / "dbn" / "es_1m_2019.dbn.zst"
TICK_NANOS = 250_000_000
COPY_TICKS = 16


@dataclass(frozen=True)
class Market:
    """Bars with what the engine and its peers take of them.

    Parameters
    ----------
    bars : Bars
        The frame, with its stretches of symbols already known.
    nanos : dict of str to ndarray of int64, shape (n_bars,)
        The engine's columns.
    points : dict of str to ndarray of float64, shape (n_bars,)
        The same prices and volumes as floats, for peers that compute with them.
    session_open, session_close : ndarray of int64, shape (n_sessions,)
        The session table, ns.
    """

    bars: cc.Bars
    nanos: dict[str, NDArray[np.int64]]
    points: dict[str, NDArray[np.float64]]
    session_open: NDArray[np.int64]
    session_close: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bars)


def market_of(bars: cc.Bars) -> Market:
    """Return what is measured of some bars."""
    nanos = bars.columns_nanos()
    points = {
        name: bars.frame[name].cast(pl.Float64).to_numpy() for name in (*PRICE_COLUMNS, "volume")
    }
    table = sessions().overlapping(int(nanos["ts_event"][0]), int(nanos["ts_event"][-1]) + 1)
    _ = bars.stretches
    return Market(bars, nanos, points, table.open_ns, table.close_ns)


@cache
def sessions() -> cc.Sessions:
    """Return the packaged session table."""
    return cc.load_sessions()


@cache
def five_years() -> Market:
    """Return 1.74 million bars of ES."""
    return market_of(cc.read_bars(FIVE_YEARS))


@cache
def one_year() -> Market:
    """Return the bars of 2019."""
    return market_of(cc.read_bars(ONE_YEAR))


def copy_of(market: Market, number: int) -> Market:
    """Return the market with every price ``number`` times 16 ticks higher."""
    shift = number * COPY_TICKS * TICK_NANOS
    if not shift:
        return market
    lifted = [(pl.col(name) + shift / 1e9).alias(name) for name in PRICE_COLUMNS]
    bars = replace(market.bars, frame=market.bars.frame.with_columns(lifted))
    _ = bars.stretches
    nanos = {
        name: column + shift if name in PRICE_COLUMNS else column
        for name, column in market.nanos.items()
    }
    points = {
        name: column + shift / 1e9 if name in PRICE_COLUMNS else column
        for name, column in market.points.items()
    }
    return replace(market, bars=bars, nanos=nanos, points=points)


def head_of(market: Market, rows: int) -> Market:
    """Return the market's first bars."""
    return replace(
        market,
        bars=replace(market.bars, frame=market.bars.frame.head(rows)),
        nanos={name: column[:rows] for name, column in market.nanos.items()},
        points={name: column[:rows] for name, column in market.points.items()},
    )
