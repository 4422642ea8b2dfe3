"""The Rust engine says the same as the oracle, event for event."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import hypothesis
import polars as pl
import pytest
from hypothesis import strategies as st

import clustercore as cc
from clustercore.contracts import select_front
from clustercore.errors import ConfigError, DataError
from tests.parity.engines import assert_parity, feed, rust_engine
from tests.parity.markets import (
    FAMILIES,
    Drawn,
    Market,
    Seeded,
    configuration,
    markets,
    seeded,
)
from tests.parity.tally import Tally
from tests.reference import MINUTE, Bar, Context, Input, Instrument, Late, Session
from tests.reference_config import Config, merged, preset
from tests.reference_scenarios import BASE, SCENARIOS, Scenario, flat, long_at
from tests.reference_scenarios import days as sessions_of_days

if TYPE_CHECKING:
    from pathlib import Path

PRESETS = ("default", "new-algo", "new-algo-patient", "v6", "v6-live")


def compare(market: Market, tally: Tally | None = None) -> None:
    frames = assert_parity(
        market.inputs, market.config, market.instrument, market.sessions, market.interval_ns
    )
    if tally is not None:
        tally.add(market.inputs, market.config, frames, market.instrument)


# The scenarios that were worked out by hand.


def scenario_config(scenario: Scenario) -> Config:
    return merged(preset("default"), merged(BASE, scenario.settings))


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s.refused is None], ids=lambda scenario: scenario.name
)
def test_scenario(scenario: Scenario) -> None:
    assert_parity(
        scenario.inputs,
        scenario_config(scenario),
        scenario.instrument,
        scenario.sessions,
        scenario.interval_ns,
    )


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s.refused is not None], ids=lambda scenario: scenario.name
)
def test_refused_scenario(scenario: Scenario) -> None:
    assert scenario.refused is not None
    place, column = scenario.refused
    arguments = (scenario_config(scenario), scenario.instrument, scenario.sessions)
    if place is None:
        with pytest.raises(ConfigError) as wrong:
            rust_engine(*arguments, scenario.interval_ns)
        assert wrong.value.field == column
        return
    engine = rust_engine(*arguments, scenario.interval_ns)
    rows = -1
    with pytest.raises(DataError) as refusal:  # noqa: PT012 - which bar is refused is the point
        for item in scenario.inputs:
            rows += isinstance(item, Bar | Late | Context)
            feed(engine, item)
    assert (rows, refusal.value.column) == (place, column)
    assert refusal.value.found is not None
    assert refusal.value.expected is not None


@pytest.mark.parametrize("mode", ["previous_session", "time_of_day"])
def test_context_of_a_session_before_the_last(mode: str) -> None:
    """The incoming contract had no bar in the last session, but in the one before."""
    config = merged(
        scenario_config(SCENARIOS[0]),
        {"baseline": {"mode": mode, "sessions": 1, "min_sessions": 1}},
    )
    context: list[Input] = [
        Context(bar._replace(volume=30)) for bar in flat(0, 60, 101.0, symbol="ESH6")
    ]
    inputs: list[Input] = [
        *flat(0, 60, 100.0),
        *flat(0, 60, 100.0, volume=20, day=1),
        *context,
        *long_at(0, 2, "ESH6"),
        *flat(5, 60, 100.0, day=2, symbol="ESH6"),
    ]
    assert_parity(inputs, config, Instrument(), sessions_of_days(3), MINUTE)


# Made-up markets.


@hypothesis.given(market=markets())
def test_small_markets(market: Market) -> None:
    compare(market)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_markets_reach_every_rule(request: pytest.FixtureRequest) -> None:
    thorough = hypothesis.settings().max_examples > 500
    tally = Tally()
    for seed in range(24_000 if thorough else 2_400):
        try:
            compare(seeded(seed), tally)
        except AssertionError as difference:
            raise AssertionError(f"seed {seed}: {difference}") from None
    sys.stdout.write(tally.table() + "\n")
    assert not tally.unknown()
    assert not tally.too_few(5)
    assert not tally.unused_settings()
    assert sorted(tally.families) == sorted(" ".join(family) for family in FAMILIES)
    assert min(tally.families.values()) >= 200, tally.families


# Real days.


@dataclass(frozen=True)
class Days:
    """Real bars of some weeks, and what happened in them."""

    name: str
    file: str
    start: str
    end: str


REAL = [
    Days("daylight saving ends in spring", "dbn/es_1m_2019.dbn.zst", "2019-03-05", "2019-03-20"),
    Days("a half day in July", "dbn/es_1m_2019.dbn.zst", "2019-06-26", "2019-07-10"),
    Days("autumn and Thanksgiving", "dbn/es_1m_2019.dbn.zst", "2019-11-20", "2019-12-04"),
    Days("Christmas", "dbn/es_1m_2019.dbn.zst", "2019-12-16", "2019-12-31"),
    Days("the close moves in 2015", "bars/es_1m_2015_2019.parquet", "2015-09-10", "2015-09-26"),
    Days("August 2015", "bars/es_1m_2015_2019.parquet", "2015-08-17", "2015-09-02"),
    Days("November 2016", "bars/es_1m_2015_2019.parquet", "2016-11-01", "2016-11-16"),
]
FIVE_MINUTES = "bars/es_5m_by_contract_2024-02_2025-06.parquet"


@cache
def real_sessions(hours: tuple[str, ...]) -> tuple[Session, ...]:
    columns = cc.load_sessions(hours=hours).columns()
    spans: dict[str, dict[int, list[tuple[int, int]]]] = {"hours": {}, "halts": {}}
    for what, by_session in spans.items():
        parts = (columns[f"{what}_{part}"].tolist() for part in ("session", "start_ns", "end_ns"))
        for index, start, end in zip(*parts, strict=True):
            by_session.setdefault(index, []).append((start, end))
    rows = zip(
        *(
            columns[name].tolist()
            for name in ("trade_date", "open_ns", "close_ns", "new_york_offset_s")
        ),
        strict=True,
    )
    return tuple(
        Session(date, start, end, spans["hours"].get(i, []), spans["halts"].get(i, []), offset)
        for i, (date, start, end, offset) in enumerate(rows)
    )


def inputs_of(bars: cc.Bars) -> list[Input]:
    columns = bars.columns_nanos()
    names = ("ts_event", "open", "high", "low", "close", "volume")
    rows = zip(
        *(columns[name].tolist() for name in names),
        bars.frame["symbol"].to_list(),
        bars.frame["context"].to_list(),
        strict=True,
    )
    return [Context(Bar(*row)) if context else Bar(*row) for *row, context in rows]


def real_config(name: str, changes: dict[str, Any] | None = None) -> Config:
    return merged(preset(name), changes or {})


def sessions_around(bars: cc.Bars, config: Config) -> list[Session]:
    table = real_sessions(tuple(config["session"]["hours"]))
    first, last = bars.columns_nanos()["ts_event"][[0, -1]].tolist()
    day = 86_400 * 10**9
    return [s for s in table if first - 10 * day <= s.close and s.open <= last + 10 * day]


def compare_real(bars: cc.Bars, config: Config, tally: Tally) -> None:
    inputs = inputs_of(bars)
    frames = assert_parity(
        inputs, config, Instrument(), sessions_around(bars, config), bars.interval_ns
    )
    tally.add(inputs, config, frames)


@pytest.mark.parametrize("days", REAL, ids=lambda days: days.name)
def test_real_days(days: Days, data_dir: Path) -> None:
    bars = cc.read_bars(data_dir / days.file, start=days.start, end=days.end, instrument="ES")
    strict, lowered = Tally(), Tally()
    for name in PRESETS:
        compare_real(bars, real_config(name), strict)
        lower = {"rank": {"top_n": 5}, "signal": {"min_strength": 0.0}}
        threshold = preset(name)["cluster"]["threshold"] * 0.6
        baseline = {"min_sessions": 1}
        changes = {**lower, "cluster": {"threshold": threshold}, "baseline": baseline}
        compare_real(bars, real_config(name, changes), lowered)
    assert sum(strict.counts["clusters"].values()) >= 50, strict.table()
    assert sum(lowered.counts["trades"].values()) >= 50, lowered.table()


@pytest.mark.parametrize("seed", range(8))
def test_real_days_with_random_configurations(seed: int, data_dir: Path) -> None:
    bars = cc.read_bars(
        data_dir / "dbn/es_1m_2019.dbn.zst", start="2019-10-28", end="2019-11-06", instrument="ES"
    )
    tally = Tally()
    for number in range(3):
        source = Seeded(1_000 + 3 * seed + number)
        config = configuration(source, FAMILIES[(3 * seed + number) % 12], MINUTE)
        # Prices, hours and trades are the real ones.
        config["instrument"].update(check_tick=True, allow_negative=False)
        if config["profile"]["source"] == "trades":
            config["profile"]["source"] = "range_volume"
        config["baseline"]["value"] *= 40
        config["account"]["balance"] = 50_000.0
        compare_real(bars, config, tally)
    assert tally.counts["funnel"]["bars"] > 10_000
    assert sum(tally.counts["clusters"].values()) > 100, tally.table()


def months_that_overlap(bars: cc.Bars) -> pl.DataFrame:
    """Return bars in which each month also traded before it came to the front, at other prices."""
    frame = bars.frame.select(pl.exclude("context"))
    symbols = frame["symbol"].unique(maintain_order=True).to_list()
    parts = [frame]
    prices = [pl.col(name) + 40.25 for name in ("open", "high", "low", "close")]
    for held, incoming in itertools.pairwise(symbols):
        before = frame.filter(pl.col("symbol") == held).tail(4 * 276)
        grows = pl.int_range(pl.len()) / pl.len()
        parts.append(
            before.with_columns(
                *prices,
                (pl.col("volume") * (0.2 + 1.2 * grows)).round().cast(pl.Int64) + 1,
                symbol=pl.lit(incoming),
            ).filter(pl.int_range(pl.len()) % 17 != 3)
        )
    return pl.concat(parts).sort("ts_event", "symbol")


@pytest.mark.parametrize("name", PRESETS)
def test_rolls_with_context(name: str, data_dir: Path) -> None:
    bars = cc.read_bars(data_dir / FIVE_MINUTES, start="2024-03-01", end="2024-06-28")
    selection = select_front(months_that_overlap(bars), cc.load_sessions(), bars.interval_ns)
    with_context = cc.Bars.from_frame(selection.frame, interval="5m", instrument="ES")
    tally = Tally()
    changes: dict[str, Any] = {
        "rank": {"top_n": 5},
        "signal": {"min_strength": 0.0},
        "risk": {"max_drawdown_pct": None, "max_consecutive_losses": None},
        "cluster": {"minutes": 15, "threshold": preset(name)["cluster"]["threshold"] * 0.5},
    }
    compare_real(with_context, real_config(name, changes), tally)
    compare_real(bars, real_config(name, changes), tally)
    other = sum(
        count for word, count in tally.counts["baseline"].items() if "other_contract" in word
    )
    assert tally.counts["inputs"]["context"] > 400
    assert other > 0, tally.table()
    assert sum(tally.counts["trades"].values()) >= 100, tally.table()


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=25)
def test_small_markets_of_each_family(data: st.DataObject) -> None:
    """Hypothesis chooses the settings; the market is seeded, long enough for trades."""
    family = data.draw(st.sampled_from(FAMILIES))
    config = configuration(Drawn(data.draw), family, MINUTE)
    market = seeded(12 * data.draw(st.integers(0, 400)) + FAMILIES.index(family))
    if market.interval_ns != MINUTE:
        return
    kept = {"instrument": market.config["instrument"], "session": market.config["session"]}
    if config["profile"]["source"] == "trades":
        kept["profile"] = {"source": market.config["profile"]["source"]}
    compare(
        Market(
            market.inputs,
            merged(config, kept),
            market.instrument,
            market.sessions,
            market.interval_ns,
        )
    )
