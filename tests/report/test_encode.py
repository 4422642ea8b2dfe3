from __future__ import annotations

import json
import math

import hypothesis
import numpy as np
import polars as pl
import pytest
from hypothesis import strategies as st

from clustercore.bars import PRICE_COLUMNS
from clustercore.report.encode import (
    BarColumns,
    decode_bars,
    encode_bars,
    pack,
    price_unit,
    script_json,
    unpack,
)
from clustercore.report.payload import histogram, new_york_offsets
from clustercore.report.view import MINUS, interval, number, percent, whisker
from clustercore.sample import sample

DASH = "\N{EN DASH}"


@st.composite
def markets(draw: st.DrawFn) -> BarColumns:
    """Make bars of any size: negative prices, gaps, and numbers beyond 32 bits."""
    count = draw(st.integers(1, 40))
    size = draw(st.sampled_from([1, 300, 70_000, 2**40]))
    whole = st.integers(0, size)

    def column(values: st.SearchStrategy[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        drawn = draw(st.lists(values, min_size=count, max_size=count))
        return np.array(drawn, dtype=np.int64)

    steps = column(st.integers(1, 500))
    open_, close = column(st.integers(-size, size)), column(st.integers(-size, size))
    return BarColumns(
        np.cumsum(steps) - steps[0],
        open_,
        np.maximum(open_, close) + column(whole),
        np.minimum(open_, close) - column(whole),
        close,
        column(whole),
    )


@hypothesis.given(markets())
def test_bars_come_back_as_they_went_in(bars: BarColumns) -> None:
    for found, expected in zip(decode_bars(encode_bars(bars)), bars, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_simulated_minute_takes_few_bytes() -> None:
    bars = sample(sessions=1, seed=3)
    prices = bars.columns_nanos()
    open_, high, low, close = (prices[name] // bars.instrument.tick_nanos for name in PRICE_COLUMNS)
    session = BarColumns(np.arange(len(bars)), open_, high, low, close, prices["volume"])
    assert len(encode_bars(session)) < 5 * len(bars)


def test_bytes_come_back_as_they_went_in() -> None:
    data = bytes(range(256)) * 9
    assert unpack(pack(data)) == data


@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_json_cannot_leave_its_element(value: object) -> None:
    text = script_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.isascii()
    assert json.loads(text) == finite(value)


def finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    ("prices", "tick", "unit"),
    [
        ([100_000_000_000, 100_250_000_000], 250_000_000, 250_000_000),
        ([100_000_000_000, 100_100_000_000], 250_000_000, 50_000_000),
        ([-37_630_000_000], 10_000_000, 10_000_000),
        ([7], 250_000_000, 1),
        ([], 250_000_000, 250_000_000),
    ],
)
def test_every_price_is_a_multiple_of_the_unit(prices: list[int], tick: int, unit: int) -> None:
    assert price_unit(np.array(prices, dtype=np.int64), tick) == unit


def test_new_york_offsets_change_with_daylight_saving() -> None:
    year = pl.datetime_range(
        pl.datetime(2019, 1, 1, time_zone="UTC"),
        pl.datetime(2020, 1, 1, time_zone="UTC"),
        "1h",
        eager=True,
    ).cast(pl.Datetime("ms", "UTC"))
    local = year.dt.convert_time_zone("America/New_York")
    expected = (local.dt.base_utc_offset() + local.dt.dst_offset()).dt.total_milliseconds()
    times = year.to_physical().to_numpy()
    offsets = new_york_offsets(int(times[0]) * 10**6, int(times[-1]) * 10**6)
    assert len(offsets) == 3
    rows = np.searchsorted([start for start, _ in offsets], times, side="right") - 1
    assert np.array([offset for _, offset in offsets])[rows].tolist() == expected.to_list()


def test_a_histogram_holds_every_value() -> None:
    values = pl.Series([0.0, 0.5, 1.0, None, 0.49])
    assert histogram(values, np.linspace(0.0, 1.0, 3)) == [2, 2]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (-1612.5, 2, MINUS + "1,612.50"),
        (0.0004, 2, "0.00"),
        (-0.0004, 2, "0.00"),
        (None, 2, DASH),
        (float("nan"), 2, DASH),
        (float("inf"), 2, DASH),
        (1e9, 0, "1,000,000,000"),
    ],
)
def test_numbers_as_text(value: float | None, decimals: int, text: str) -> None:
    assert number(value, decimals) == text


def test_shares_and_intervals_as_text() -> None:
    assert percent(None) == DASH
    assert percent(-0.05) == f"{MINUS}5.0 %"
    assert interval(None, 1.0) == DASH
    assert interval(-0.5, 0.25) == f"{MINUS}0.50 to 0.25"


def test_a_whisker_stays_on_its_scale() -> None:
    found = whisker(-5.0, 0.5, 9.0, left=0.0, right=1.0)
    assert (found.low, found.middle, found.high, found.reference) == (0.0, 50.0, 100.0, None)
    assert whisker(None, None, None, left=0.0, right=1.0).middle is None
    assert whisker(0.0, 0.0, 0.0, left=0.0, right=0.0).middle is None
