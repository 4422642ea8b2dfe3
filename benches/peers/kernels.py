"""Rolling volatility and rolling modal prices with NumPy, Polars, Numba and plain Python."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BODY = 2.0 * math.log(2.0) - 1.0


def garman_klass_numpy(
    open_: Floats, high: Floats, low: Floats, close: Floats, window: int
) -> Floats:
    """Return sigma over windows from a running sum."""
    reach, body = np.log(high / low), np.log(close / open_)
    variance = 0.5 * reach * reach - BODY * body * body
    summed = np.cumsum(variance)
    result = np.full(len(close), np.nan)
    result[window - 1] = summed[window - 1]
    result[window:] = summed[window:] - summed[:-window]
    return np.sqrt(result / window)


def garman_klass_polars(frame: pl.DataFrame, window: int) -> pl.Series:
    """Return sigma over windows from a rolling mean."""
    reach = (pl.col("high") / pl.col("low")).log()
    body = (pl.col("close") / pl.col("open")).log()
    variance = 0.5 * reach * reach - BODY * body * body
    return frame.select(sigma=variance.rolling_mean(window).sqrt())["sigma"]


def garman_klass_loop(
    open_: Any, high: Any, low: Any, close: Any, window: int, result: Any
) -> None:
    """Fill sigma over windows from a running sum; for Numba."""
    ring = np.zeros(window)
    total = 0.0
    for row in range(len(close)):
        reach = math.log(high[row] / low[row])
        body = math.log(close[row] / open_[row])
        variance = 0.5 * reach * reach - BODY * body * body
        place = row % window
        total += variance - ring[place]
        ring[place] = variance
        result[row] = math.sqrt(max(total, 0.0) / window) if row >= window - 1 else math.nan


def modal_close_volume(close: Any, volume: Any, window: int, result: Any) -> None:
    """Fill the heaviest close of each window, of equals the lowest; -1 before the first."""
    for row in range(len(close)):
        result[row] = -1
        if row < window - 1:
            continue
        heaviest = -1
        for one in range(row - window + 1, row + 1):
            weight = 0
            for other in range(row - window + 1, row + 1):
                if close[other] == close[one]:
                    weight += volume[other]
            if weight > heaviest or (weight == heaviest and close[one] < result[row]):
                heaviest = weight
                result[row] = close[one]


def modal_range_volume(
    high: Any, low: Any, volume: Any, window: int, tick: int, result: Any, weights: Any
) -> None:
    """Fill the heaviest tick of each window, volumes spread over ranges, of equals the lowest."""
    for row in range(len(high)):
        result[row] = -1
        if row < window - 1:
            continue
        first = row - window + 1
        lowest = low[first]
        highest = high[first]
        for one in range(first, row + 1):
            lowest = min(lowest, low[one])
            highest = max(highest, high[one])
        ticks = (highest - lowest) // tick + 1
        for place in range(ticks):
            weights[place] = 0
        for one in range(first, row + 1):
            bottom = (low[one] - lowest) // tick
            count = (high[one] - low[one]) // tick + 1
            share = volume[one] // count
            rest = volume[one] - share * count
            for place in range(count):
                weights[bottom + place] += share
            for extra in range(rest):
                weights[bottom + (2 * extra + 1) * count // (2 * rest)] += 1
        heaviest = 0
        for place in range(ticks):
            if weights[place] > weights[heaviest]:
                heaviest = place
        result[row] = lowest + heaviest * tick
