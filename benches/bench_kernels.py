"""The public kernels beside NumPy, Polars, Numba, wickra and plain Python."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest
import wickra

from benches.board import OURS
from benches.market import TICK_NANOS, Market, copy_of, five_years, head_of, one_year
from benches.peers import kernels as peers
from clustercore import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.board import Board

VOLATILITY_WORK = "rolling Garman-Klass, 480 bars"
MODAL_WORK = "rolling modal price, 15 bars, {}"
BARS = 480
WINDOW = 15
PRICES = ("open", "high", "low", "close")
TARGETS = {"close_volume": 40.0, "range_volume": 15.0}
YEAR = 252


def five(number: int) -> Market:
    return copy_of(five_years(), number)


def one(number: int) -> Market:
    return copy_of(one_year(), number)


def prices(market: Market) -> list[Any]:
    return [market.points[name] for name in PRICES]


def ours_volatility(market: Market) -> NDArray[np.float64]:
    return kernels.rolling_volatility(*prices(market), window=BARS, estimator="garman_klass")


@cache
def compiled(function: Any) -> Any:
    return numba.njit(function)


def numpy_volatility(market: Market) -> NDArray[np.float64]:
    open_, high, low, close = prices(market)
    return peers.garman_klass_numpy(open_, high, low, close, BARS)


def numba_volatility(market: Market) -> NDArray[np.float64]:
    result = np.empty(len(market))
    compiled(peers.garman_klass_loop)(*prices(market), BARS, result)
    return result


def wickra_volatility(market: Market) -> NDArray[np.float64]:
    found = wickra.GarmanKlassVolatility(BARS, YEAR).batch(*prices(market))
    return np.frombuffer(found, dtype=np.float64)


def unlike(ours: Any, theirs: Any) -> str | None:
    """Return how two columns of sigma differ; running sums of five years cost some digits."""
    theirs = np.asarray(theirs, dtype=np.float64)
    if np.isnan(theirs[BARS - 1 :]).any():
        return "values are missing"
    worst = np.abs(theirs[BARS - 1 :] / ours[BARS - 1 :] - 1).max()
    return None if worst < 1e-6 else f"relative {worst:.1e}"


def test_volatility(benchmark: BenchmarkFixture, board: Board) -> None:
    row = board.measure(
        benchmark,
        VOLATILITY_WORK,
        OURS,
        count=len(five_years()),
        prepare=five,
        function=ours_volatility,
        check=lambda market, found: unlike(fresh_sums(market), found[: 50 * BARS]),
        rounds=9,
        note="logarithms that are the same bits on every platform; every bar checked",
        target=80.0,
    )
    assert not row.void, row.answers


def fresh_sums(market: Market) -> NDArray[np.float64]:
    """Return sigma of the first windows, each summed on its own."""
    open_, high, low, close = (column[: 50 * BARS] for column in prices(market))
    reach, body = np.log(high / low), np.log(close / open_)
    variance = 0.5 * reach**2 - peers.BODY * body**2
    windows = np.lib.stride_tricks.sliding_window_view(variance, BARS)
    return np.concatenate([np.full(BARS - 1, np.nan), np.sqrt(windows.mean(axis=1))])


@pytest.mark.parametrize(
    ("who", "function", "scale"),
    [
        ("wickra", wickra_volatility, 100.0 * YEAR**0.5),
        ("NumPy", numpy_volatility, 1.0),
        (
            "Polars",
            lambda market: peers.garman_klass_polars(market.bars.frame, BARS),
            1.0,
        ),
        ("Numba", numba_volatility, 1.0),
    ],
)
def test_volatility_of_peers(
    benchmark: BenchmarkFixture, board: Board, who: str, function: Any, scale: float
) -> None:
    def check(market: Market, found: Any) -> str | None:
        return unlike(ours_volatility(market), np.asarray(found, dtype=np.float64) / scale)

    row = board.measure(
        benchmark,
        VOLATILITY_WORK,
        who,
        count=len(five_years()),
        prepare=five,
        function=function,
        check=check,
        rounds=5,
    )
    assert not row.void, row.answers


def ours_modal(market: Market, source: str) -> NDArray[np.float64]:
    nanos = market.nanos
    found = kernels.rolling_modal_price(
        nanos["high"],
        nanos["low"],
        nanos["close"],
        nanos["volume"],
        window=WINDOW,
        tick_size=TICK_NANOS / 1e9,
        source=source,
        tie="lowest",
    )
    return found.price


def loop_modal(market: Market, source: str, *, numba_too: bool) -> NDArray[np.float64]:
    nanos = market.nanos
    columns: dict[str, Any] = (
        dict(nanos) if numba_too else {n: c.tolist() for n, c in nanos.items()}
    )
    result: Any = np.empty(len(market), dtype=np.int64) if numba_too else [0] * len(market)
    if source == "close_volume":
        function: Any = peers.modal_close_volume
        given: tuple[Any, ...] = (columns["close"], columns["volume"], WINDOW, result)
    else:
        function = peers.modal_range_volume
        weights = np.zeros(100_000, dtype=np.int64)
        given = (
            columns["high"],
            columns["low"],
            columns["volume"],
            WINDOW,
            TICK_NANOS,
            result,
            weights if numba_too else weights.tolist(),
        )
    (compiled(function) if numba_too else function)(*given)
    return np.where(np.asarray(result) < 0, np.nan, np.asarray(result) / 1e9)


def same_prices(ours: Any, theirs: Any) -> str | None:
    differing = int((~np.isclose(ours, theirs, rtol=0, atol=1e-9, equal_nan=True)).sum())
    return f"{differing} prices" if differing else None


@pytest.mark.parametrize("source", ["close_volume", "range_volume"])
def test_modal(benchmark: BenchmarkFixture, board: Board, source: str) -> None:
    row = board.measure(
        benchmark,
        MODAL_WORK.format(source),
        OURS,
        count=len(five_years()),
        prepare=five,
        function=lambda market: ours_modal(market, source),
        check=lambda market, found: same_prices(loop_modal(market, source, numba_too=True), found),
        rounds=7,
        note="on the tick grid, with ties, every bar checked",
        target=TARGETS[source],
    )
    assert not row.void, row.answers


@pytest.mark.parametrize("source", ["close_volume", "range_volume"])
def test_modal_numba(benchmark: BenchmarkFixture, board: Board, source: str) -> None:
    row = board.measure(
        benchmark,
        MODAL_WORK.format(source),
        "Numba",
        count=len(five_years()),
        prepare=five,
        function=lambda market: loop_modal(market, source, numba_too=True),
        check=lambda market, found: same_prices(ours_modal(market, source), found),
        rounds=4,
        note="prices alone",
    )
    assert not row.void, row.answers


@pytest.mark.parametrize("source", ["close_volume", "range_volume"])
def test_modal_plain(benchmark: BenchmarkFixture, board: Board, source: str) -> None:
    row = board.measure(
        benchmark,
        MODAL_WORK.format(source),
        "plain Python, the same loop",
        count=20_000,
        prepare=lambda number: head_of(one(number), 20_000),
        function=lambda market: loop_modal(market, source, numba_too=False),
        check=lambda market, found: same_prices(ours_modal(market, source), found),
        rounds=2,
        note="over 20000 bars",
    )
    assert not row.void, row.answers


def test_modal_wickra(benchmark: BenchmarkFixture, board: Board) -> None:
    def run(market: Market) -> Any:
        points: dict[str, Any] = market.points
        return wickra.ValueArea(WINDOW, 50).batch(points["high"], points["low"], points["volume"])

    board.measure(
        benchmark,
        MODAL_WORK.format("range_volume"),
        "wickra ValueArea",
        count=len(one_year()),
        prepare=one,
        function=run,
        check=None,
        rounds=3,
        note="50 bins of each window's range instead of ticks, value area included; over 2019",
        other="another definition",
    )
