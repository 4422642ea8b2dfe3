"""The simulated sample: labelled, seeded, on the grid, and with nothing in it to earn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clustercore.errors import ConfigError
from clustercore.instruments import Instrument
from clustercore.sample import sample, sample_parent
from clustercore.sessions import load_sessions
from clustercore.sources import read_bars

PRICES = ("open", "high", "low", "close")


def ticks(frame: pl.DataFrame, name: str, tick: float) -> np.ndarray:
    return np.rint(frame[name].to_numpy() / tick).astype(np.int64)


def test_it_says_simulated_wherever_it_is_shown() -> None:
    bars = sample(2)
    assert bars.simulated
    assert bars.symbols == ("ES.SIMULATED",)
    assert "SIMULATED" in repr(bars)
    assert bars.notes[0].startswith("SIMULATED")
    assert Instrument.for_symbol(bars.symbols[0]).root == "ES"


def test_the_seed_decides_everything() -> None:
    assert_frame_equal(sample(3, seed=5).frame, sample(3, seed=5).frame)
    assert not sample(3, seed=5).frame.equals(sample(3, seed=6).frame)


@pytest.mark.parametrize("root", Instrument.roots())
def test_bars_are_coherent_and_on_the_grid(root: str) -> None:
    bars = sample(4, instrument=root)
    frame, instrument = bars.frame, bars.instrument
    for name in PRICES:
        nanos = np.rint(frame[name].to_numpy() * 1e9).astype(np.int64)
        assert not (nanos % instrument.tick_nanos).any()
    assert (frame["high"] >= frame.select(pl.max_horizontal("open", "close")).to_series()).all()
    assert (frame["low"] <= frame.select(pl.min_horizontal("open", "close")).to_series()).all()
    assert (frame["volume"] > 0).all()
    assert frame["ts_event"].is_sorted()
    assert frame["ts_event"].n_unique() == frame.height
    assert set(bars.columns_nanos()) == {"ts_event", *PRICES, "volume"}


def test_sessions_are_those_of_the_calendar() -> None:
    frame = sample(60).frame
    sessions = load_sessions()
    located = sessions.locate(frame["ts_event"])
    assert located.null_count() == 0
    lengths = frame.with_columns(session=located).group_by("session").len()["len"].sort()
    assert len(lengths) == 60
    # Thanksgiving, the day after it and Christmas Eve.
    assert (lengths < 1200).sum() == 3
    assert lengths[-1] > 1300


def test_volume_has_the_shape_of_a_day_and_bursts() -> None:
    frame = sample(60).frame.with_columns(
        minute=pl.col("ts_event").dt.convert_time_zone("America/Chicago").dt.strftime("%H:%M")
    )
    mean = dict(frame.group_by("minute").agg(pl.col("volume").mean()).iter_rows())
    assert mean["08:35"] > 15 * mean["20:00"]
    assert mean["14:58"] > 2 * mean["12:00"]
    assert mean["08:35"] > 2 * mean["12:00"]
    quarters = frame.group_by_dynamic("ts_event", every="15m").agg(
        pl.col("volume").sum(), pl.col("minute").first()
    )
    ratio = quarters["volume"] / quarters.select(pl.col("volume").mean().over("minute")).to_series()
    # A few clusters of twice the usual volume a session, and not every second window.
    assert 1 < (ratio > 2).sum() / 60 < 20


def test_volatility_is_that_of_a_market() -> None:
    frame = sample(60).frame
    log_range = np.log(frame["high"].to_numpy() / frame["low"].to_numpy())
    log_change = np.log(frame["close"].to_numpy() / frame["open"].to_numpy())
    variance = 0.5 * log_range**2 - (2 * np.log(2) - 1) * log_change**2
    assert variance.min() >= 0
    assert 0.004 < np.sqrt(variance.mean() * 1380) < 0.012
    spans = ticks(frame, "high", 0.25) - ticks(frame, "low", 0.25)
    assert 3 <= np.median(spans) <= 10


def test_no_drift_from_any_bar_to_any_stop_or_target() -> None:
    """Fill at the open of every tenth bar, and leave at a stop or target 8 ticks away or at a time.

    Where both lie in one bar the path is not known, so the stop first and the target first bracket
    the truth: the mean of the first may not be above zero, nor that of the second below it.
    """
    for stop_first, sign in ((True, -1), (False, 1)):
        means = np.array([bracket_trades(seed, stop_first=stop_first) for seed in range(12)])
        error = means.std(ddof=1) / np.sqrt(len(means))
        assert error < 0.12
        assert sign * means.mean() > -3 * error
        assert abs(means.mean()) < 0.5


def bracket_trades(seed: int, *, stop_first: bool) -> float:
    """Return the mean result in ticks of long trades with stop and target 8 ticks away."""
    frame = sample(20, seed=seed).frame
    opens, highs, lows, closes = (ticks(frame, name, 0.25) for name in PRICES)
    starts = np.arange(0, len(opens) - 31, 10)
    fill = opens[starts]
    result = np.zeros(len(starts))
    open_ = np.ones(len(starts), dtype=bool)

    def leave(hit: np.ndarray, prices: np.ndarray) -> None:
        result[hit & open_] = (prices - fill)[hit & open_]
        open_[hit] = False

    for bar in range(30):
        at = starts + bar
        leave(opens[at] <= fill - 8, opens[at])
        leave(opens[at] >= fill + 8, opens[at])
        exits = [(lows[at] <= fill - 8, fill - 8), (highs[at] >= fill + 8, fill + 8)]
        for hit, prices in exits if stop_first else exits[::-1]:
            leave(hit, prices)
    leave(open_.copy(), closes[starts + 29])
    return float(result.mean())


def test_the_change_of_the_close_has_mean_zero() -> None:
    changes = np.concatenate(
        [np.diff(ticks(sample(20, seed=seed).frame, "close", 0.25)) for seed in range(12)]
    )
    error = changes.std() / np.sqrt(len(changes))
    assert abs(changes.mean()) < 3 * error
    # Busy minutes have no direction either.
    busy = np.abs(changes) >= np.quantile(np.abs(changes), 0.9)
    assert abs(np.sign(changes[busy]).mean()) < 4 / np.sqrt(busy.sum())


def test_longer_intervals_are_the_same_market() -> None:
    minute, five = sample(2), sample(2, interval="5m")
    assert five.interval_ns == 300 * 10**9
    assert minute.frame["volume"].sum() == five.frame["volume"].sum()
    assert minute.frame["high"].max() == five.frame["high"].max()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"sessions": 0}, "sessions"),
        ({"sessions": 10**6}, "sessions"),
        ({"interval": "30s"}, "interval"),
        ({"interval": "7m"}, "interval"),
        ({"instrument": "ZZ"}, "instrument"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sample(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_parent_frame_rolls_once_and_drops_its_spreads() -> None:
    frame = sample_parent()
    names = set(frame["symbol"].unique())
    assert {"ESZ4", "ESH5", "ESM5"} == {name for name in names if "-" not in name}
    assert {"ESZ4-ESH5", "ESH5-ESM5"} <= names
    bars = read_bars(frame, interval="1m")
    assert bars.symbols == ("ESZ4", "ESH5")
    assert any("spread" in note for note in bars.notes)
    front = bars.frame.filter(~pl.col("context"))
    sessions = load_sessions().locate(front["ts_event"])
    each = front.with_columns(session=sessions).group_by("session").agg(pl.col("symbol").n_unique())
    assert each["symbol"].max() == 1
    context = bars.frame.filter(pl.col("context"))
    assert context["symbol"].unique().to_list() == ["ESH5"]
