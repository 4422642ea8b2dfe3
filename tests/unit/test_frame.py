from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from clustercore import kernels
from clustercore.bars import Bars
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.errors import ConfigError, DataError
from clustercore.frame import ClusterFrame
from clustercore.sample import sample

SETTINGS: dict[str, Any] = {"threshold": 1.5, "baseline__mode": "rolling", "baseline__bars": 60}


@pytest.fixture(scope="module")
def bars() -> Bars:
    return sample(sessions=6)


@pytest.fixture(scope="module")
def two(bars: Bars) -> pl.DataFrame:
    """Return bars of two symbols, interleaved in time, the second at other prices and volumes."""
    prices = [pl.col(name) + 100 for name in ("open", "high", "low", "close")]
    other = bars.frame.with_columns(*prices, pl.lit("NQH4").alias("symbol"))
    other = other.with_columns(pl.col("volume") * 3 + pl.int_range(pl.len()) % 50)
    return pl.concat([bars.frame, other]).sort("ts_event", maintain_order=True)


def of_symbol(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    return frame.filter(pl.col("symbol") == symbol)


def expected_clusters(frame: pl.DataFrame, root: str) -> pl.DataFrame:
    config = Config.preset().override(
        {"cluster.threshold": 1.5, "baseline.mode": "rolling", "baseline.bars": 60}
    )
    one = Bars.from_frame(frame, interval="1m", instrument=root)
    return Engine(config, one.instrument).run(one, finish=True)["clusters"]


def test_polars_knows_the_namespace_when_the_package_is_imported() -> None:
    code = "import polars, clustercore; assert polars.DataFrame().cluster"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_detect_is_the_engines_run(bars: Bars) -> None:
    found = ClusterFrame(bars.frame).detect(instrument=bars.instrument, **SETTINGS)
    assert found.height > 20
    assert found.equals(expected_clusters(bars.frame, "ES"))


def test_detect_takes_symbols_one_by_one(bars: Bars, two: pl.DataFrame) -> None:
    found = ClusterFrame(two).detect(instrument="ES", by="symbol", **SETTINGS)
    symbols = two["symbol"].unique(maintain_order=True).to_list()
    parts = [expected_clusters(of_symbol(two, symbol), "ES") for symbol in symbols]
    assert all(part.height > 20 for part in parts)
    assert found.equals(pl.concat(parts))


def test_detect_finds_the_instrument_of_each_symbol(two: pl.DataFrame) -> None:
    found = ClusterFrame(two).detect(by="symbol", **SETTINGS)
    assert of_symbol(found, "NQH4").equals(expected_clusters(of_symbol(two, "NQH4"), "NQ"))


@pytest.mark.parametrize(
    "call",
    [
        lambda cluster: cluster.detect(instrument="ES"),
        lambda cluster: cluster.baseline(),
        lambda cluster: cluster.volatility(window=5),
        lambda cluster: cluster.modal_price(window=5, tick_size=0.25),
        lambda cluster: cluster.profile(tick_size=0.25),
        lambda cluster: cluster.retests(pl.DataFrame(), tolerance=0.5),
    ],
    ids=["detect", "baseline", "volatility", "modal_price", "profile", "retests"],
)
def test_several_symbols_are_never_mixed(two: pl.DataFrame, call: object) -> None:
    assert callable(call)
    with pytest.raises(DataError, match="several symbols") as caught:
        call(ClusterFrame(two))
    assert caught.value.column == "symbol"


def test_columns_are_made_symbol_by_symbol_and_rows_keep_their_order(two: pl.DataFrame) -> None:
    cluster = ClusterFrame(two)
    frames = {
        "baseline": cluster.baseline(bars=20, by="symbol"),
        "volatility": cluster.volatility(window=30, estimator="close_to_close", by="symbol"),
        "modal_price": cluster.modal_price(window=15, tick_size=0.25, by="symbol"),
    }
    for frame in frames.values():
        assert frame.select(two.columns).equals(two)
    for symbol in two["symbol"].unique():
        part = ClusterFrame(of_symbol(two, symbol))
        alone = {
            "baseline": part.baseline(bars=20),
            "volatility": part.volatility(window=30, estimator="close_to_close"),
            "modal_price": part.modal_price(window=15, tick_size=0.25),
        }
        for name, frame in frames.items():
            assert of_symbol(frame, symbol).equals(alone[name])
            assert frame[name].null_count() < frame.height / 2


def test_returns_stay_within_a_session(bars: Bars) -> None:
    found = ClusterFrame(bars.frame).volatility(window=3, estimator="close_to_close")
    market = [bars.frame[name] for name in ("open", "high", "low", "close")]
    across = kernels.rolling_volatility(*market, window=3, estimator="close_to_close")
    differs = found["volatility"].fill_null(-1).to_numpy() != np.nan_to_num(across, nan=-1)
    # Of the first three windows of each of the five later sessions.
    assert 5 <= differs.sum() <= 15


def test_profile_marks_modal_price_and_value_area(two: pl.DataFrame) -> None:
    found = ClusterFrame(two).profile(tick_size=0.25, by="symbol")
    volumes = two.group_by("symbol").agg(pl.col("volume").sum()).sort("symbol")
    sums = found.group_by("symbol").agg(
        pl.col("volume").sum(),
        pl.col("modal").sum(),
        pl.col("volume").filter("value_area").sum().alias("inside"),
    )
    assert sums.sort("symbol").select("symbol", "volume").equals(volumes)
    assert sums["modal"].to_list() == [1, 1]
    assert (sums["inside"] >= 0.7 * sums["volume"]).all()


def test_retests_equal_those_of_the_engine(bars: Bars) -> None:
    config = Config.preset().override(
        {
            "cluster.threshold": 1.2,
            "rank.top_n": 50,
            "signal.min_strength": 0.0,
            "retest.tolerance": "2 ticks",
            "baseline.mode": "rolling",
            "baseline.bars": 60,
        }
    )
    signals = Engine(config, bars.instrument).run(bars, finish=True)["signals"]
    # The session's end, the other deadline of a signal, is not one of these levels.
    signals = signals.filter(pl.col("reason") != "session")
    levels = signals.select(
        "modal_price",
        "decision_time",
        (pl.col("decision_time") + pl.duration(minutes=30)).alias("deadline"),
        pl.col("confirmed_time").alias("expected"),
    )
    found = ClusterFrame(bars.frame).retests(levels, tolerance=0.5, test="touch")
    assert found["expected"].drop_nulls().len() > 10
    assert found["confirmed_time"].equals(found["expected"], check_names=False)


def test_retests_by_symbol(two: pl.DataFrame) -> None:
    times = of_symbol(two, "NQH4")["ts_event"]
    levels = pl.DataFrame(
        {
            "symbol": two["symbol"].unique(maintain_order=True),
            "modal_price": [
                of_symbol(two, s)["close"][10] for s in two["symbol"].unique(maintain_order=True)
            ],
            "decision_time": [times[10]] * 2,
            "deadline": [times[30]] * 2,
        }
    )
    found = ClusterFrame(two).retests(levels, tolerance=0.0, test="close", by="symbol")
    assert found["row"].to_list() == [10, 10]
    with pytest.raises(DataError, match="without bars"):
        ClusterFrame(two).retests(
            levels.with_columns(symbol=pl.lit("CLZ4")), tolerance=0.0, by="symbol"
        )


def test_bad_use_is_refused_by_name(bars: Bars) -> None:
    frame = bars.frame
    with pytest.raises(DataError, match="'month'"):
        ClusterFrame(frame).detect(by="month")
    with pytest.raises(DataError, match="'high'"):
        ClusterFrame(frame.drop("high")).detect(instrument="ES")
    with pytest.raises(ConfigError, match=r"cluster\.treshold"):
        ClusterFrame(frame).detect(instrument="ES", treshold=3.0)
    with pytest.raises(ConfigError, match="instrument"):
        ClusterFrame(frame.drop("symbol")).detect()
    with pytest.raises(DataError, match="'volume'"):
        ClusterFrame(frame.with_columns(pl.col("volume").cast(pl.Float64))).detect()
    with pytest.raises(DataError, match="'ts_event'"):
        ClusterFrame(frame.with_columns(pl.col("ts_event").dt.date())).detect()
    nulls = frame.head(2).with_columns(symbol=pl.Series(["ES", None]))
    with pytest.raises(DataError, match="row 1, column 'symbol'"):
        ClusterFrame(nulls).baseline(by="symbol")


def test_times_without_a_zone_and_in_other_units_are_utc(bars: Bars) -> None:
    expected = ClusterFrame(bars.frame).detect(instrument="ES", **SETTINGS)
    naive = pl.col("ts_event").dt.replace_time_zone(None).dt.cast_time_unit("us")
    for times in (
        naive,
        pl.col("ts_event").to_physical(),
        pl.col("ts_event").dt.convert_time_zone("Asia/Tokyo"),
    ):
        frame = bars.frame.with_columns(times)
        assert ClusterFrame(frame).detect(instrument="ES", **SETTINGS).equals(expected)
