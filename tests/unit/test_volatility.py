"""Every volatility estimator, rolling and in the engine, against wickra and against the oracle."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wickra
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clustercore import kernels
from clustercore.config import Config
from clustercore.errors import ConfigError
from tests import reference
from tests.property.logs import BAR_COLUMNS, Tape, rows, run
from tests.property.markets import five_years, sessions_of, simulated, small_market

YEAR = 252
ESTIMATORS = tuple(reference.ESTIMATORS)
WICKRA: dict[str, Any] = {
    "garman_klass": wickra.GarmanKlassVolatility,
    "parkinson": wickra.ParkinsonVolatility,
    "rogers_satchell": wickra.RogersSatchellVolatility,
    "yang_zhang": wickra.YangZhangVolatility,
    "close_to_close": wickra.HistoricalVolatility,
}
Prices = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def sample_prices() -> Prices:
    frame = simulated(6, 3).frame
    open_, high, low, close = (frame[name].to_numpy() for name in ("open", "high", "low", "close"))
    return open_, high, low, close


def by_wickra(name: str, prices: Prices, window: int) -> NDArray[np.float64]:
    open_, high, low, close = (np.ascontiguousarray(column) for column in prices)
    indicator = WICKRA[name](window, YEAR)
    if name == "parkinson":
        found = indicator.batch(high, low)
    elif name == "close_to_close":
        found = indicator.batch(close)
    else:
        found = indicator.batch(open_, high, low, close)
    # In percent there, as a fraction here.
    return np.asarray(found, dtype=np.float64) / 100.0


def bars_of(prices: Prices) -> list[reference.Bar]:
    columns = [(column * 1e9).round().astype(np.int64).tolist() for column in prices]
    return [
        reference.Bar(place * reference.MINUTE, row[0], row[1], row[2], row[3], 1)
        for place, row in enumerate(zip(*columns, strict=True))
    ]


@pytest.mark.parametrize("window", [2, 5, 60, 480])
@pytest.mark.parametrize("name", ["garman_klass", "parkinson", "rogers_satchell"])
def test_rolling_equals_wickra(name: str, window: int) -> None:
    prices = sample_prices()
    found = kernels.rolling_volatility(
        *prices, window=window, estimator=name, annualisation=float(YEAR)
    )
    expected = by_wickra(name, prices, window)
    both = ~np.isnan(found) & ~np.isnan(expected)
    assert both.sum() > 7000
    assert np.isnan(found).sum() == window - 1
    # As variances: running sums leave a residue there that the root of a quiet stretch enlarges.
    np.testing.assert_allclose(found[both] ** 2, expected[both] ** 2, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["close_to_close", "yang_zhang"])
def test_rolling_with_returns_equals_wickra(name: str) -> None:
    """A window of n bars there holds n returns, so that it looks one close further back."""
    prices = sample_prices()
    window = 60
    found = kernels.rolling_volatility(
        *prices, window=window, estimator=name, annualisation=float(YEAR)
    )
    expected = by_wickra(name, prices, window)
    both = ~np.isnan(found) & ~np.isnan(expected)
    assert both.sum() > 7000
    np.testing.assert_allclose(found[both], expected[both], rtol=1e-9)


@pytest.mark.parametrize("window", [2, 7, 60])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_rolling_equals_the_oracle(name: str, window: int) -> None:
    prices: Prices = tuple(column[:900] for column in sample_prices())  # type: ignore[assignment]
    found = kernels.rolling_volatility(
        *prices, window=window, estimator=name, annualisation=float(YEAR)
    )
    expected = reference.rolling_sigma(name, bars_of(prices), window, YEAR)
    for place, (left, right) in enumerate(zip(found.tolist(), expected, strict=True)):
        if right is None:
            assert math.isnan(left), place
        else:
            assert left == pytest.approx(right, rel=1e-9, abs=1e-12), place


def test_true_ranges_equal_wickra_and_the_oracle() -> None:
    _, high, low, close = sample_prices()
    found = kernels.true_range(high, low, close)
    indicator: Any = wickra.TrueRange()
    expected = np.asarray(indicator.batch(high, low, close), dtype=np.float64)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=1e-9)
    bars = bars_of((close, high, low, close))[:500]
    means = kernels.mean_true_range(high[:500], low[:500], close[:500], window=14)
    oracle = reference.rolling_atr(bars, 14)
    wanted = np.array([np.nan if value is None else value / 1e9 for value in oracle])
    np.testing.assert_allclose(means, wanted, rtol=1e-9)


def test_returns_stay_within_a_session() -> None:
    """A bar that follows no other gives no return: the jump before it is not volatility."""
    prices = sample_prices()
    jumped: Prices = tuple(  # type: ignore[assignment]
        np.concatenate([column[:300], column[300:600] + 500.0]) for column in prices
    )
    follows = np.ones(600, dtype=bool)
    follows[300] = False
    options: dict[str, Any] = {"window": 60, "estimator": "close_to_close"}
    linked = kernels.rolling_volatility(*jumped, **options)
    apart = kernels.rolling_volatility(*jumped, follows=follows, **options)
    assert np.nanmax(linked) > 10 * np.nanmax(apart)


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_garman_klass_is_never_negative(seed: int, window: int) -> None:
    bars = small_market(seed, 1)
    prices = [
        np.array([getattr(bar, name) / 1e9 for bar in bars])
        for name in ("open", "high", "low", "close")
    ]
    for name in ("garman_klass", "parkinson", "rogers_satchell"):
        found = kernels.rolling_volatility(
            *prices, window=window, estimator=name, output="variance"
        )
        assert np.nanmin(found) >= 0.0


def test_annualisation_multiplies_the_variance() -> None:
    prices = sample_prices()
    options: dict[str, Any] = {"window": 60, "estimator": "garman_klass"}
    plain = kernels.rolling_volatility(*prices, **options)
    year = kernels.rolling_volatility(*prices, annualisation=252 * 1380.0, **options)
    np.testing.assert_allclose(year, plain * math.sqrt(252 * 1380.0), rtol=1e-12, equal_nan=True)
    with pytest.raises(ConfigError):
        kernels.rolling_volatility(*prices, window=60, estimator="garman_klas")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_engines_sigma_is_the_oracles(estimator: str, data_dir: Path) -> None:
    """Each order's sigma is made afresh from the bars before it, by the formula of the oracle."""
    config = Config.preset().override(
        {
            "volatility.estimator": estimator,
            "volatility.minutes": 120,
            "cluster.threshold": 1.2,
            "rank.top_n": 3,
            "risk.max_open_contracts": None,
        }
    )
    tape = sessions_of(five_years(data_dir, config.to_dict()), 940, 30)
    log = run(config.to_dict(), tape)
    inside = _inside(tape)
    pairs, ends = _with_previous(inside), inside.ends
    compared = 0
    for row in rows(log, "orders"):
        if math.isnan(row["sigma_hold"]) or row["sigma_source"] != estimator:
            continue
        place = int(np.searchsorted(ends, row["confirmed_time"], side="right"))
        if place < 120:
            continue
        variance = reference.ESTIMATORS[estimator](pairs[place - 120 : place])
        assert variance is not None
        assert row["sigma_hold"] == pytest.approx(math.sqrt(variance * 60), rel=1e-12)
        compared += 1
    assert compared >= 100


def _inside(tape: Tape) -> Tape:
    """Return the tape without bars outside every session, which no estimator sees."""
    kept = tape.bars["ts_event"] < tape.sessions["close_ns"][tape.session_of()]
    return replace(tape, bars={name: column[kept] for name, column in tape.bars.items()})


def _with_previous(tape: Tape) -> list[tuple[reference.Bar, int | None]]:
    columns = [tape.bars[name].tolist() for name in BAR_COLUMNS]
    bars = [reference.Bar(*row) for row in zip(*columns, strict=True)]
    owner = tape.session_of().tolist()
    return [
        (bar, bars[i - 1].close if i and owner[i] == owner[i - 1] else None)
        for i, bar in enumerate(bars)
    ]
