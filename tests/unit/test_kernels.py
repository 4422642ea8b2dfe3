from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore import kernels
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument
from clustercore.sample import sample
from clustercore.sessions import load_sessions

if TYPE_CHECKING:
    from clustercore.bars import Bars

SOURCES = ("close", "close_volume", "range_volume")
TIES = ("middle", "earliest", "lowest")
MINUTE = 60 * 10**9


@pytest.fixture(scope="module")
def bars() -> Bars:
    return sample(sessions=12)


def columns(bars: Bars, *names: str) -> tuple[pl.Series, ...]:
    return tuple(bars.frame[name] for name in names)


def bar_columns(bars: Bars) -> dict[str, Any]:
    names = ("ts_event", "open", "high", "low", "close", "volume")
    return {name: bars.frame[name] for name in names}


@st.composite
def markets(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], ...]:
    rows = draw(st.integers(1, 40))
    price = st.integers(-40, 40) if draw(st.booleans()) else st.integers(-900, 900)
    bars = [sorted(draw(st.tuples(price, price, price))) for _ in range(rows)]
    low, close, high = (np.array(column, dtype=np.int64) for column in zip(*bars, strict=True))
    volume = np.array(draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)))
    return high, low, close, volume.astype(np.int64)


class TestModalPrice:
    @given(
        market=markets(),
        window=st.integers(1, 18),
        source=st.sampled_from(SOURCES),
        tie=st.sampled_from(TIES),
        tick=st.integers(1, 4),
    )
    def test_every_window_is_the_profile_of_its_bars(
        self, market: Any, window: int, source: str, tie: str, tick: int
    ) -> None:
        rules: dict[str, Any] = {"tick_size": tick / 1e9, "source": source, "tie": tie}
        found = kernels.rolling_modal_price(*market, window=window, **rules)
        for row in range(len(market[0])):
            if row + 1 < window:
                assert np.isnan(found.price[row])
                continue
            part = [column[row + 1 - window : row + 1] for column in market]
            expected = kernels.volume_profile(*part, **rules)
            if expected.modal_price is None:
                assert np.isnan(found.price[row])
                assert not found.tied[row]
            else:
                assert found.price[row] == expected.modal_price
                assert found.tied[row] == expected.modal_tied
                assert found.position[row] == expected.modal_position

    @pytest.mark.parametrize("source", SOURCES)
    def test_real_bars_have_both_tied_and_clear_windows(self, bars: Bars, source: str) -> None:
        market = columns(bars, "high", "low", "close", "volume")
        found = kernels.rolling_modal_price(*market, window=15, tick_size=0.25, source=source)
        rows = np.random.default_rng(5).integers(14, len(bars), 300)
        for row in rows:
            part = [column.slice(row - 14, 15) for column in market]
            expected = kernels.volume_profile(*part, tick_size=0.25, source=source)
            assert found.price[row] == expected.modal_price
            assert found.tied[row] == expected.modal_tied
            assert found.position[row] == expected.modal_position
        assert 0 < found.tied.sum() < len(bars)

    def test_points_and_nanos_agree(self, bars: Bars) -> None:
        market = columns(bars, "high", "low", "close", "volume")
        nanos = [(column * 1e9).round().cast(pl.Int64).to_numpy() for column in market[:3]]
        points = kernels.rolling_modal_price(*market, window=15, tick_size=0.25)
        high, low, close = nanos
        again = kernels.rolling_modal_price(high, low, close, market[3], window=15, tick_size=0.25)
        np.testing.assert_array_equal(points.price, again.price)

    def test_a_longer_window_than_there_are_bars_has_no_value(self) -> None:
        one = np.array([5])
        found = kernels.rolling_modal_price(one, one, one, one, window=2, tick_size=1e-9)
        assert np.isnan(found.price).all()


class TestProfile:
    @given(market=markets(), source=st.sampled_from(SOURCES))
    def test_the_histogram_sums_to_what_went_in(self, market: Any, source: str) -> None:
        profile = kernels.volume_profile(*market, tick_size=1e-9, source=source)
        total = len(market[3]) if source == "close" else market[3].sum()
        assert profile.volume.sum() == total
        if profile.modal_price is not None:
            low, high = profile.value_area_low, profile.value_area_high
            assert low is not None
            assert high is not None
            assert low <= profile.modal_price <= high
            inside = (profile.price >= low) & (profile.price <= high)
            assert 10 * profile.volume[inside].sum() >= 7 * total

    def test_no_bars_have_no_profile(self) -> None:
        empty = np.array([], dtype=np.int64)
        profile = kernels.volume_profile(empty, empty, empty, empty, tick_size=0.25)
        assert profile.modal_price is None
        assert len(profile.price) == 0


class TestBaseline:
    @given(
        volume=st.lists(st.integers(0, 10**6), max_size=60),
        bars=st.integers(1, 12),
        interval=st.sampled_from(["1m", "5m"]),
    )
    def test_rolling_is_the_mean_of_the_bars_before(
        self, volume: list[int], bars: int, interval: str
    ) -> None:
        minutes = int(interval[0])
        values = np.array(volume, dtype=np.int64)
        found = kernels.volume_baseline(values, bars=bars, interval=interval)
        for row in range(len(volume)):
            if row < bars:
                assert np.isnan(found[row])
            else:
                assert found[row] == sum(volume[row - bars : row]) / (bars * minutes)

    def test_to_date_starts_again_with_each_session(self) -> None:
        found = kernels.volume_baseline(
            np.array([4, 6, 8, 10, 20]),
            mode="session_to_date",
            session=np.array([0, 0, 0, 1, 1]),
            min_bars=2,
        )
        np.testing.assert_array_equal(found, [np.nan, np.nan, 5.0, np.nan, np.nan])

    @pytest.mark.parametrize(
        ("mode", "counts"),
        [
            ("rolling", {"bars": 20}),
            ("session_to_date", {"min_bars": 30}),
            ("previous_session", {}),
            ("time_of_day", {"minutes": 15, "sessions": 5, "min_sessions": 2}),
        ],
    )
    def test_equals_the_baseline_of_the_engine(
        self, bars: Bars, mode: str, counts: dict[str, int]
    ) -> None:
        config = Config.preset().override(
            {
                "cluster.frame": "sliding",
                "cluster.threshold": 0.05,
                "baseline.mode": mode,
                **{f"baseline.{name}": n for name, n in counts.items() if name != "minutes"},
            }
        )
        clusters = Engine(config, bars.instrument).run(bars, finish=True)["clusters"]
        times, volume = columns(bars, "ts_event", "volume")
        found = kernels.volume_baseline(volume, mode=mode, ts_event=times, **counts)  # type: ignore[arg-type]
        mine = pl.DataFrame({"window_start": times, "mine": found})
        both = clusters.join(mine, on="window_start")
        assert both.height > 3_000
        assert (both["mine"] == both["baseline"]).all()

    def test_a_mode_without_its_column_is_refused(self) -> None:
        with pytest.raises(DataError, match="ts_event"):
            kernels.volume_baseline(np.array([1]), mode="previous_session")
        with pytest.raises(ConfigError, match=r"baseline\.mode"):
            kernels.volume_baseline(np.array([1]), mode="yesterday")
        with pytest.raises(ConfigError, match="not a column"):
            kernels.volume_baseline(np.array([1]), mode="fixed")


class TestDetection:
    @pytest.mark.parametrize("frame", ["aligned", "sliding"])
    @pytest.mark.parametrize("basis", ["window", "minute"])
    def test_with_the_engines_baseline_it_finds_the_engines_clusters(
        self, bars: Bars, frame: str, basis: str
    ) -> None:
        config = Config.preset().override(
            {
                "cluster.frame": frame,
                "cluster.basis": basis,
                "cluster.threshold": 1.5 if basis == "window" else 22.5,
                "baseline.mode": "rolling",
                "baseline.bars": 60,
            }
        )
        expected = Engine(config, bars.instrument).run(bars, finish=True)["clusters"]
        market = bar_columns(bars)
        baseline = kernels.volume_baseline(market["volume"], bars=60)
        found = kernels.detect_clusters(
            **market, baseline=baseline, instrument=bars.instrument, config=config
        )
        same = [name for name in found.columns if name not in {"symbol", "baseline_source"}]
        assert found.height > 40
        # The engine also judges a window that only the end of its input closes.
        assert expected.select(same).head(found.height).equals(found.select(same))
        assert expected.height - found.height <= 1
        assert found["baseline_source"].unique().to_list() == ["given"]

    def test_no_baseline_makes_no_cluster(self, bars: Bars) -> None:
        market, nothing = bar_columns(bars), np.full(len(bars), np.nan)
        found = kernels.detect_clusters(**market, baseline=nothing, instrument="ES")
        assert found.is_empty()
        with pytest.raises(DataError, match="baseline"):
            kernels.detect_clusters(**market, baseline=np.zeros(len(bars)), instrument="ES")


class TestRetests:
    @given(
        market=markets(),
        test=st.sampled_from(["close", "touch"]),
        tolerance=st.integers(0, 6),
        levels=st.lists(
            st.tuples(st.integers(-40, 40), st.integers(0, 40), st.integers(0, 45)), max_size=8
        ),
    )
    def test_finds_the_first_bar_that_comes_back(
        self, market: Any, test: str, tolerance: int, levels: list[tuple[int, int, int]]
    ) -> None:
        high, low, close, _ = market
        ts = np.arange(len(close)) * MINUTE
        price = np.array([level[0] for level in levels], dtype=np.int64)
        found = kernels.match_retests(
            ts,
            high,
            low,
            close,
            price=price,
            decision_time=np.array([level[1] for level in levels], dtype=np.int64) * MINUTE,
            deadline=np.array([level[2] for level in levels], dtype=np.int64) * MINUTE,
            tolerance=tolerance / 1e9,
            test=test,
        )
        for level, row, confirmed in zip(
            levels, found["row"], found["confirmed_time"], strict=True
        ):
            expected = None
            for i in range(level[1], min(level[2], len(close))):
                near = (
                    abs(close[i] - level[0]) <= tolerance
                    if test == "close"
                    else low[i] - tolerance <= level[0] <= high[i] + tolerance
                )
                if near:
                    expected = i
                    break
            assert row == expected
            assert (confirmed is None) == (expected is None)
            if expected is not None:
                assert confirmed.timestamp() == (expected + 1) * 60

    def test_a_negative_tolerance_is_refused(self) -> None:
        one = np.array([1])
        with pytest.raises(ConfigError, match="tolerance"):
            kernels.match_retests(
                one, one, one, one, price=one, decision_time=one, deadline=one, tolerance=-1.0
            )


class TestVolatility:
    @pytest.mark.parametrize(
        "estimator",
        ["garman_klass", "parkinson", "rogers_satchell", "close_to_close", "yang_zhang", "atr"],
    )
    def test_annualisation_scales_the_variance(self, bars: Bars, estimator: str) -> None:
        market = columns(bars, "open", "high", "low", "close")
        variance = kernels.rolling_volatility(
            *market, window=30, estimator=estimator, output="variance"
        )
        yearly = kernels.rolling_volatility(
            *market, window=30, estimator=estimator, annualisation=252 * 1380.0
        )
        assert np.isnan(variance[:29]).all()
        assert (variance[30:] > 0).all()
        np.testing.assert_allclose(yearly, np.sqrt(variance * 252 * 1380), rtol=1e-12)

    def test_garman_klass_by_numpy(self, bars: Bars) -> None:
        o, h, low, c = (
            column.to_numpy() for column in columns(bars, "open", "high", "low", "close")
        )
        terms = 0.5 * np.log(h / low) ** 2 - (2 * np.log(2) - 1) * np.log(c / o) ** 2
        expected = np.lib.stride_tricks.sliding_window_view(terms, 60).mean(axis=1)
        found = kernels.rolling_volatility(o, h, low, c, window=60, output="variance")
        np.testing.assert_allclose(found[59:], expected, rtol=1e-9)

    def test_a_range_looks_back_only_where_it_follows(self) -> None:
        high, low, close = np.array([2.0, 9.0]), np.array([1.0, 8.0]), np.array([2.0, 8.5])
        assert kernels.true_range(high, low, close).tolist() == [1.0, 7.0]
        alone = np.array([True, False])
        assert kernels.true_range(high, low, close, follows=alone).tolist() == [1.0, 1.0]


def bad(**changes: Any) -> dict[str, Any]:
    one = np.array([1.0, 2.0])
    given = {"high": one, "low": one, "close": one, "volume": np.array([1, 2])}
    return {**given, **changes}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"high": np.array([1.0])}, "high"),
        ({"high": np.array([1.0, 2.0], dtype=np.float32)}, "float32"),
        ({"high": np.array([[1.0, 2.0]])}, "one dimension"),
        ({"high": [1.0, 2.0]}, "list"),
        ({"high": np.array([1.0, 1.5])}, "high below close"),
        ({"low": np.array([1.0, 2.5])}, "low above close"),
        ({"close": np.array([1.0, np.nan])}, "row 1, column 'close'"),
        ({"close": pl.Series([1.0, None])}, "row 1, column 'close'"),
        ({"volume": np.array([1, -2])}, "row 1, column 'volume'"),
        ({"volume": np.array([1.0, 2.0])}, "volume"),
    ],
)
@pytest.mark.parametrize("rolling", [True, False])
def test_bad_columns_are_refused_by_name(changes: dict[str, Any], word: str, rolling: bool) -> None:
    call = kernels.rolling_modal_price if rolling else kernels.volume_profile
    rules: dict[str, Any] = {"window": 1} if rolling else {}
    with pytest.raises(DataError, match=word):
        call(**bad(**changes), tick_size=0.5, **rules)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"window": 0}, "window"),
        ({"window": 2.0}, "window"),
        ({"tick_size": 0.0}, "tick"),
        ({"source": "trades"}, "trades"),
        ({"source": "open"}, r"profile\.source"),
        ({"tie": "highest"}, r"profile\.tie"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], word: str) -> None:
    given_settings: dict[str, Any] = {"window": 1, "tick_size": 0.5, **settings}
    with pytest.raises(ConfigError, match=word):
        kernels.rolling_modal_price(**bad(), **given_settings)


def test_columns_are_seen_without_a_copy() -> None:
    series = pl.Series([1.0, 2.0, 3.0])
    assert np.shares_memory(kernels._floats(series, "close"), series.to_numpy(allow_copy=False))
    array = np.arange(3)
    assert kernels._nanos(array, "close") is not None
    assert np.shares_memory(kernels._nanos(array, "close"), array)


def test_real_data_agrees_with_the_profile_at_random_rows(data_dir: Any) -> None:
    frame = pl.read_parquet(data_dir / "bars" / "es_1m_2015_2019.parquet")
    market = [frame[name] for name in ("high", "low", "close", "volume")]
    rows = np.random.default_rng(1).integers(14, frame.height, 400)
    es = Instrument.builtin("ES")
    for source in SOURCES:
        found = kernels.rolling_modal_price(*market, window=15, tick_size=es, source=source)
        for row in rows:
            part = [column.slice(row - 14, 15) for column in market]
            expected = kernels.volume_profile(*part, tick_size=es, source=source)
            assert found.price[row] == expected.modal_price
            assert found.tied[row] == expected.modal_tied
            assert found.position[row] == expected.modal_position


def test_sessions_that_end_off_the_grid_are_refused(bars: Bars) -> None:
    table = load_sessions().between("2015-01-05", "2015-01-09")
    start = table.open_ns[0]
    with pytest.raises(ConfigError, match="interval"):
        kernels.volume_baseline(
            np.array([1]),
            mode="previous_session",
            ts_event=np.array([start]),
            table=table,
            interval="1h",
        )
