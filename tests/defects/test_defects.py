"""The defects of the systems that came before, each as a test that they would fail.

The number in a test's name is the defect's. `docs/defects.md` is made from these names and
sentences by `python -m tests.defects.table`.
"""

from __future__ import annotations

import ast
import math
import re
import sys
import tomllib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clustercore as cc
from clustercore import _core
from clustercore.config import Config
from clustercore.contracts import expiry_of
from clustercore.errors import ClusterCoreError, ConfigError, DataError
from clustercore.sessions import load_sessions
from tests import reference_config, reference_scenarios
from tests.parity.engines import event_rows, rust_events
from tests.reference import MINUTE, Context, Input, Instrument, Late, Session
from tests.reference_scenarios import (
    SIDE,
    at,
    bars,
    entered,
    flat,
    long_at,
    lost,
    retest,
    session,
    short_at,
    won,
)

ROOT = Path(__file__).resolve().parents[2]
Rows = dict[str, list[dict[str, Any]]]
# Many clusters and trades on a short sample.
MANY = Config.preset().override(
    {
        "cluster.threshold": 1.0,
        "rank.top_n": 3,
        "signal.long_threshold": 0.4,
        "signal.short_threshold": 0.6,
        "signal.min_strength": 0.0,
    }
)


def play(
    inputs: Sequence[Input],
    settings: dict[str, dict[str, Any]] | None = None,
    sessions: Sequence[Session] | None = None,
    instrument: Instrument | None = None,
) -> Rows:
    """Return what the engine says of a small market, by frame, states on the way left out."""
    config = reference_config.preset("default", reference_scenarios.BASE)
    config = reference_config.merged(config, settings or {})
    said, counts = rust_events(
        inputs, config, instrument or Instrument(), sessions or [session()], MINUTE, "id"
    )
    found: Rows = {
        name: [] for name in ("clusters", "signals", "orders", "trades", "equity", "risk")
    }
    for frame, row in event_rows(said):
        if frame == "clusters" or row.get("reason") not in ("armed", "working"):
            found[frame].append(row)
    found["counts"] = [counts]
    return found


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one row."""
    assert len(rows) == 1, rows
    return rows[0]


def days(count: int, minutes: int = 60) -> list[Session]:
    return [session(day, minutes) for day in range(count)]


# 3.1 Look-ahead and selection.


def test_d01_retest_begins_at_the_decision() -> None:
    """A bar of the cluster's own window never confirms its retest, which begins at the decision."""
    # The window's first bar closes at its modal price, 100; afterwards the price stays away.
    found = play([*long_at(0), *flat(5, 20, 101.0)])
    assert only(found["clusters"])["reason"] == "armed"
    assert only(found["signals"])["reason"] == "expired"
    assert not found["orders"]
    confirmed = play([*long_at(0), *retest(5), *flat(6, 8, 100.5)])
    assert only(confirmed["signals"])["confirmed_time"] == at(6)
    assert only(confirmed["signals"])["decision_time"] == at(5)


def test_d02_a_window_is_decided_when_it_ends() -> None:
    """A label is the start of a bar: a window is decided at its end, from its own bars."""
    row = only(play(flat(0, 5, 100.0, 50) + long_at(5))["clusters"])
    assert (row["window_start"], row["decision_time"]) == (at(5), at(10))
    assert row["modal_price"] == 100.0
    # The five minutes before are the momentum's, and nothing of the window is.
    assert row["momentum"] == 0.0


def test_d03_baseline_knows_nothing_of_the_rest_of_the_day() -> None:
    """What trades after a window changes neither its baseline nor its ratio."""
    for mode in ("previous_session", "session_to_date", "rolling", "time_of_day"):
        settings = {
            "baseline": {"mode": mode, "bars": 5, "min_bars": 5, "min_sessions": 1, "sessions": 3}
        }
        before = flat(0, 60, 100.0, 100) + flat(0, 5, 100.0, 100, day=1)
        window = [b._replace(start=b.start + 1440 * MINUTE) for b in long_at(5)]
        quiet = flat(10, 60, 100.0, 1, day=1)
        busy = flat(10, 60, 100.0, 5000, day=1)
        left, right = (
            next(row for row in found["clusters"] if row["window_start"] == at(5, 1))
            for found in (
                play([*before, *window, *rest], settings, days(2)) for rest in (quiet, busy)
            )
        )
        assert left == right, mode
        assert left["baseline"] == 100.0


def test_d04_ranking_knows_no_later_cluster() -> None:
    """A larger cluster later in the session leaves an earlier one's rank as it was."""
    later = [bar._replace(volume=bar.volume * 9) for bar in long_at(20)]
    alone = play([*long_at(0), *flat(5, 20, 101.0)], {"rank": {"top_n": 1}})
    followed = play([*long_at(0), *flat(5, 20, 101.0), *later], {"rank": {"top_n": 1}})
    assert [row["rank"] for row in followed["clusters"]] == [1, 1]
    assert alone["clusters"][0] == followed["clusters"][0]


def test_d05_a_limit_for_the_session_exists_beside_the_rank() -> None:
    """`rank.top_n` ranks the last hours; `rank.max_per_session` limits a session's signals."""
    inputs = [*long_at(0), *flat(5, 20, 101.0), *long_at(20), *flat(25, 30, 101.0)]
    assert [r["reason"] for r in play(inputs)["clusters"]] == ["armed", "armed"]
    limited = play(inputs, {"rank": {"max_per_session": 1}})
    assert [r["reason"] for r in limited["clusters"]] == ["armed", "max_per_session"]


def test_d06_overlapping_windows_are_one_event() -> None:
    """A surge that many sliding windows hold is ranked once; the others are recorded as overlap."""
    inputs = [*long_at(0), *flat(5, 30, 101.0, 10)]
    settings = {"cluster": {"frame": "sliding", "threshold": 1.0}}
    reasons = [row["reason"] for row in play(inputs, settings)["clusters"]]
    assert reasons[0] == "armed"
    assert reasons.count("overlap") >= 3
    assert set(reasons[1:]) == {"overlap"}


def test_d07_profile_is_of_the_windows_own_bars() -> None:
    """Neither a bar before the window nor one after it counts in its modal price."""
    before = flat(0, 5, 90.0, 90)
    found = play([*before, *long_at(5), *flat(10, 12, 110.0, 10_000)])
    row = next(row for row in found["clusters"] if row["window_start"] == at(5))
    assert row["modal_price"] == 100.0
    assert (row["low"], row["high"]) == (100.0, 101.0)


def test_d08_the_record_counts_trades() -> None:
    """The multiplier moves once `learning.min_trades` trades of one context are known."""
    settings = {"learning": {"mode": "beta", "context": "modal_bin", "min_trades": 3}}
    inputs = [bar for day in range(5) for bar in won(day)]
    orders = play(inputs, settings, days(5))["orders"]
    assert [order["context"] for order in orders] == [0] * 5
    assert [order["multiplier"] for order in orders[:3]] == [1.0, 1.0, 1.0]
    # Three wins: the mean of Beta(4, 1) is 0.8.
    assert orders[3]["multiplier"] == pytest.approx(1 + 6 * (0.8 - 0.5))


def test_d09_months_never_mix() -> None:
    """Two months in one session, or two bars of one minute, are refused."""
    mixed = [*long_at(0), *flat(5, 6, 150.0, symbol="ESH6")]
    with pytest.raises(DataError) as refused:
        play(mixed)
    assert refused.value.column == "symbol"
    with pytest.raises(DataError) as again:
        play([*long_at(0), long_at(0)[-1]])
    assert again.value.column == "ts_event"
    parent = _parent()
    with pytest.raises(DataError):
        cc.read_bars(parent, label="start", roll=None)
    chosen = cc.read_bars(parent, label="start")
    per_session = chosen.frame.with_columns(s=load_sessions().locate(chosen.frame["ts_event"]))
    # The first session has no volume before it to choose by, and is left out.
    real = per_session.filter(~pl.col("context"))
    assert real.group_by("s").agg(pl.col("symbol").n_unique())["symbol"].to_list() == [1, 1]


def _parent() -> pl.DataFrame:
    from clustercore.sample import sample_parent

    return sample_parent(sessions=3)


def test_d09b_a_contract_asked_for_is_the_one_read() -> None:
    """A symbol given explicitly selects exactly that contract, by name and not by price."""
    parent = _parent()
    for symbol in ("ESZ4", "ESH5"):
        read = cc.read_bars(parent, symbol=symbol, label="start")
        assert read.symbols == (symbol,)
        assert len(read) == parent.filter(pl.col("symbol") == symbol).height


# 3.2 Blocking faults.


def test_d11_naive_times_are_refused() -> None:
    """A time without a zone is refused unless its zone is said; every result is UTC."""
    frame = (
        cc.sample(sessions=1)
        .frame.with_columns(pl.col("ts_event").dt.replace_time_zone(None))
        .drop("context")
    )
    with pytest.raises((DataError, ConfigError)):
        cc.read_bars(frame, label="start")
    read = cc.read_bars(frame, label="start", tz="UTC")
    assert read.frame.schema["ts_event"] == pl.Datetime("ns", "UTC")
    result = cc.backtest(cc.sample(sessions=12))
    for name in ("clusters", "signals", "orders", "trades", "equity"):
        for column, dtype in getattr(result, name).schema.items():
            if column.endswith("time") or column == "window_start":
                assert dtype == pl.Datetime("ns", "UTC"), (name, column)


def test_d12_a_signal_carries_its_whole_record() -> None:
    """Modal position, ratio, rank and strength travel from cluster to trade and are never empty."""
    found = play(won(0))
    cluster, signal, trade = (only(found[name]) for name in ("clusters", "signals", "trades"))
    for name in ("modal_position", "volume_ratio", "rank", "strength", "modal_price"):
        assert cluster[name] == signal[name] == trade[name]
        assert trade[name] is not None


def test_d13_margin_is_the_instruments() -> None:
    """The margin that limits a quantity comes from instrument or settings, and blocks by name."""
    found = play(entered(), {"risk": {"strict": True}}, instrument=Instrument(margin=60_000.0))
    assert only(found["orders"])["reason"] == "margin"
    assert only(play(entered(), instrument=Instrument(margin=10_000.0))["orders"])["quantity"] == 1


def test_d16b_every_trade_has_its_own_id() -> None:
    """Ids come from symbol, decision and configuration: none twice, and the same every run."""
    bars_ = cc.sample(sessions=30)
    config = Config.preset("default").override(
        {"cluster.threshold": 1.0, "rank.top_n": 5, "risk.max_open_contracts": None}
    )
    first, second = (cc.backtest(bars_, config).trades["trade_id"] for _ in range(2))
    assert first.len() > 100
    assert first.n_unique() == first.len()
    assert first.equals(second)
    assert re.fullmatch("[0-9a-f]{32}", first[0])


# 3.3 Wall clock, time zones, sessions.


def _sources() -> list[Path]:
    return sorted((ROOT / "python" / "clustercore").rglob("*.py"))


def test_d17_nothing_asks_a_clock() -> None:
    """Only the clock of the live edge reads one, so that an old day runs as it did on the day."""
    asked = re.compile(
        r"datetime\.(now|utcnow|today)\(|date\.today\(|time\.(time|time_ns|localtime)\("
    )
    for path in _sources():
        if path.parts[-2:] == ("live", "clock.py"):
            continue
        assert not asked.search(path.read_text("utf-8")), path.name
    for path in (ROOT / "rust" / "core" / "src").rglob("*.rs"):
        assert not re.search(r"SystemTime::now|Instant::now|chrono::", path.read_text("utf-8")), (
            path.name
        )
    old = [bar._replace(start=bar.start - 7000 * 1440 * MINUTE) for bar in won(0)]
    moved = session()
    past = Session(
        trade_date=moved.trade_date - 7000,
        open=moved.open - 7000 * 1440 * MINUTE,
        close=moved.close - 7000 * 1440 * MINUTE,
        hours=[(moved.open - 7000 * 1440 * MINUTE, moved.close - 7000 * 1440 * MINUTE)],
    )
    assert only(play(old, sessions=[past])["trades"])["net"] == only(play(won(0))["trades"])["net"]


def test_d18_times_cross_the_border_as_utc() -> None:
    """Times in another zone are the same instants: New York's and UTC's give the same bars."""
    frame = cc.sample(sessions=1).frame.drop("context")
    local = frame.with_columns(pl.col("ts_event").dt.convert_time_zone("America/New_York"))
    left, right = (cc.read_bars(each, label="start").frame for each in (frame, local))
    assert left["ts_event"].to_list() == right["ts_event"].to_list()
    assert right.schema["ts_event"] == pl.Datetime("ns", "UTC")


def test_d19_hours_follow_the_named_zone() -> None:
    """The cash open is 13:30 UTC in summer and 14:30 UTC in winter, and hours move with it."""
    table = load_sessions(hours=("09:30-16:00 America/New_York",)).frame
    opened = {}
    for day in (date(2019, 7, 10), date(2019, 1, 9)):
        spans = table.filter(pl.col("trade_date") == day)["hours"][0].to_list()
        opened[day.month] = spans[0]["start"] // 10**9 % 86_400 / 3600
    assert opened == {7: 13.5, 1: 14.5}


def test_d20_mondays_baseline_is_fridays_session() -> None:
    """A session is the trade date's, and one with few bars is passed over for the last good one."""
    settings = {"baseline": {"mode": "previous_session"}}
    thin = flat(0, 7, 100.0, 9000, day=1)
    window = [b._replace(start=b.start + 2 * 1440 * MINUTE) for b in long_at(0)]
    row = play([*flat(0, 60, 100.0, 80), *thin, *window], settings, days(3))["clusters"][-1]
    assert row["window_start"] == at(0, 2)
    assert row["baseline"] == 80.0
    table = load_sessions().frame
    monday = table.filter(pl.col("trade_date") == date(2019, 7, 15))["open"][0]
    # Sunday evening belongs to Monday.
    assert monday.date() == date(2019, 7, 14)


def test_d21_a_window_is_minutes_not_bars() -> None:
    """A window with fewer than 80 % of its minutes is thin, and none spans a break."""
    gap = [bar for bar in long_at(0) if bar.start not in (at(2), at(3))]
    found = play([*gap, *flat(5, 7, 100.0, 900)])
    assert found["counts"][0]["thin"] == 1
    assert all(row["window_start"] != at(0) for row in found["clusters"])
    # Three bars before a close and two after the next open make no window of five.
    split = flat(57, 60, 100.0, 900) + flat(0, 2, 100.0, 900, day=1)
    assert not play(split, {"cluster": {"frame": "sliding"}}, days(2))["clusters"]


def test_d22_bars_too_late_to_act_on_make_no_order() -> None:
    """During a catch-up the state moves on, and a signal that would have ordered becomes missed."""
    found = play([Late(bar) for bar in entered()])
    assert only(found["signals"])["reason"] == "missed"
    assert not found["orders"]
    resumed = play([*(Late(bar) for bar in long_at(0)), *retest(5), *flat(6, 8, 100.5)])
    assert only(resumed["orders"])["reason"] == "filled"


# 3.4 Units and arithmetic.


def test_d23_sigma_is_of_the_holding_time() -> None:
    """Garman-Klass has its half, and its variance a minute is scaled to the minutes held."""
    inputs = entered()
    settings = {"volatility": {"min_minutes": 2, "minutes": 480}, "exit": {"max_hold_minutes": 60}}
    row = only(play(inputs, settings)["orders"])
    variances = [
        0.5 * math.log(b.high / b.low) ** 2
        - (2 * math.log(2) - 1) * math.log(b.close / b.open) ** 2
        for b in inputs[:6]
    ]
    assert row["sigma_source"] == "garman_klass"
    assert row["sigma_hold"] == pytest.approx(math.sqrt(sum(variances) / 6 * 60), rel=1e-12)


def test_d24_the_stop_grows_with_the_root_of_the_holding_time() -> None:
    """Four times the holding time gives twice the sigma, and the stop is k times it."""
    rows = {}
    for minutes in (60, 240):
        settings: dict[str, dict[str, Any]] = {
            "volatility": {"min_minutes": 2},
            "stop": {"mode": "volatility", "k": 1.0, "min_pct": 0.0},
            "exit": {"max_hold_minutes": minutes},
        }
        rows[minutes] = only(play(entered(), settings)["orders"])
    assert rows[240]["sigma_hold"] == pytest.approx(2 * rows[60]["sigma_hold"])
    for row in rows.values():
        wanted = math.ceil(row["sigma_hold"] * row["reference_price"] / 0.25 - 1e-9) * 0.25
        assert row["stop_distance"] == wanted


def test_d25_costs_are_dollars_a_side() -> None:
    """A round turn of one ES contract costs 23.75 dollars, 0.0079 % of the notional at 6000."""
    trade = only(play(won(0))["trades"])
    assert trade["costs"] == 23.75 == 2 * SIDE
    assert trade["net"] == trade["gross"] - 23.75
    assert 100 * trade["costs"] / (6000 * 50) == pytest.approx(0.0079, abs=5e-5)


def test_d26_one_function_bins_with_room_for_rounding() -> None:
    """A position of 29 of 100 is in bin 29 of 100, though 0.29 * 100 is 28.999999999999996."""
    assert math.floor(0.29 * 100) == 28
    high = 100.0 + 100 * 0.25
    rows = bars(
        f"""0 107.25 {high} 100.00 107.25 400
            1 107.25 107.25 107.25 107.25 50
            2 107.25 107.25 107.25 107.25 50
            3 107.25 107.25 107.25 107.25 50
            4 107.25 107.25 107.25 107.25 50
            5 107.25 107.25 107.25 107.25 10
            6 107.25 107.25 107.25 107.25 10"""
    )
    settings: dict[str, dict[str, Any]] = {
        "signal": {"long_threshold": 0.5},
        "learning": {"mode": "beta", "context": "modal_bin", "bins": 100},
    }
    order = only(play(rows, settings)["orders"])
    assert order["context"] == 29


def test_d27_the_score_counts_returns_and_never_falls_below_one() -> None:
    """A record of small wins does not saturate the multiplier, and one of losses leaves it at 1."""
    settings = {"learning": {"mode": "score", "context": "none", "min_trades": 1}}
    wins = play([bar for day in range(4) for bar in won(day)], settings, days(4))
    average = 100 * wins["trades"][0]["return"]
    assert wins["orders"][1]["multiplier"] == pytest.approx(min(1 + 6 * average, 3.0))
    at_level = [bar for day in range(4) for bar in reference_scenarios.priced(won(day), 5900.0)]
    high = play(at_level, settings, days(4))
    assert 1.0 < high["orders"][3]["multiplier"] < 1.3
    losses = play([bar for day in range(4) for bar in lost(day)], settings, days(4))
    assert [order["multiplier"] for order in losses["orders"]] == [1.0] * 4


def test_d28_a_win_is_net_of_costs() -> None:
    """A trade that gains less than it costs is a loss for record, learning and statistics."""
    # Out by time at 100.75 after entering at 100.50: 12.50 gross, 11.25 below its costs.
    day = [*entered(), *flat(7, 30, 100.75)]
    again = [bar._replace(start=bar.start + 1440 * MINUTE) for bar in day]
    settings = {"learning": {"mode": "beta", "context": "none", "min_trades": 1}}
    found = play([*day, *again], settings, days(2))
    first = found["trades"][0]
    assert first["gross"] > 0 > first["net"]
    assert found["orders"][1]["posterior_mean"] == pytest.approx(1 / 3)


def test_d29_a_window_without_range_points_nowhere() -> None:
    """When high is low the modal position is one half, which is no direction."""
    row = only(play(flat(0, 5, 100.0, 500))["clusters"])
    assert row["modal_position"] == 0.5
    assert (row["direction"], row["reason"]) == ("none", "no_direction")


def test_d30_shorts_have_their_own_strength() -> None:
    """A modal price at the top is as strong for a short as one at the bottom for a long."""
    short = only(play(short_at(0))["clusters"])
    long = only(play(long_at(0))["clusters"])
    assert (short["direction"], long["direction"]) == ("short", "long")
    assert short["strength"] == pytest.approx(long["strength"])
    assert short["reason"] == "armed"


def test_d31_a_trailing_stop_acts_from_the_next_bar() -> None:
    """A bar's own high raises the stop of the bars after it, not the one its low is held to."""
    settings = {"exit": {"trailing": "fixed", "trailing_distance": "5 ticks"}}
    # High 102, low 100: a stop raised to 100.75 by the same bar would be hit in it.
    rows = [*entered(), *bars("7 100.50 102.00 100.00 101.75 10; 8 101.75 102.00 100.50 101.25 10")]
    trade = only(play(rows, settings)["trades"])
    assert (trade["exit_time"], trade["exit_price"]) == (at(9), 100.75)
    assert trade["stop"] == 99.5


def test_d32_the_stop_comes_first_in_an_ambiguous_bar() -> None:
    """A bar that reached both leaves at the stop and is marked as ambiguous."""
    rows = [*entered(), *bars("7 100.50 103.00 99.00 102.00 10")]
    trade = only(play(rows)["trades"])
    assert (trade["exit_reason"], trade["exit_price"], trade["ambiguous"]) == ("stop", 99.5, True)
    hopeful = only(play(rows, {"exit": {"same_bar": "target_first"}})["trades"])
    assert (hopeful["exit_reason"], hopeful["ambiguous"]) == ("target", True)


def test_d33_exits_happen_at_their_level_and_minute() -> None:
    """A stop inside a bar fills at the stop, a gap at the open, a time exit at its minute."""
    inside = only(play([*entered(), *bars("7 100.50 100.50 98.00 98.25 10")])["trades"])
    assert inside["exit_price"] == 99.5
    gap = only(play([*entered(), *bars("7 98.00 98.50 97.00 98.25 10")])["trades"])
    assert (gap["exit_price"], gap["exit_time"]) == (98.0, at(7))
    timed = only(play([*entered(), *flat(7, 60, 100.5)])["trades"])
    assert timed["exit_reason"] == "time"
    assert timed["exit_time"] - timed["entry_time"] == 20 * MINUTE


def test_d34_the_account_adds_up() -> None:
    """Both sides' costs are booked, drawdown is a fall from the peak, a short's gain a gain."""
    found = play([*lost(0), *won(1)], sessions=days(2))
    assert [t["net"] for t in found["trades"]] == [-50.0 - 23.75, 100.0 - 23.75]
    last = found["equity"][-1]
    assert last["equity"] == 50_000 - 73.75 + 76.25
    # The start is the peak until the second trade wins; its entry costs come on top of the loss.
    assert max(row["drawdown"] for row in found["equity"]) == 73.75 + SIDE
    assert last["drawdown"] == 0
    fall = [*short_at(0), *reference_scenarios.retest_high(5), *flat(6, 7, 100.5)]
    short = only(play([*fall, *bars("7 100.50 100.50 98.00 98.25 10")])["trades"])
    assert short["direction"] == "short"
    assert short["net"] > 0


def test_d36_modal_price_is_a_tick_that_traded() -> None:
    """The modal price lies on the grid and the two highest prices are not one bin."""
    rows = bars(
        "0 100 101 100 101 90; 1 101 101 100.75 100.75 200; 2 100.75 101 100 100 90; "
        "3 100 100.25 100 100.25 90; 4 100.25 100.5 100 100.5 90"
    )
    row = only(play(rows)["clusters"])
    assert row["modal_price"] == 100.75
    found = cc.backtest(cc.sample(sessions=15), MANY).clusters["modal_price"].drop_nulls()
    assert found.len() > 100
    assert ((found * 4) == (found * 4).round()).all()


def test_d37_another_size_is_another_run() -> None:
    """A changed size goes through the engine: twice the contracts give twice gross and costs."""
    one = only(play(won(0), {"size": {"base": 1.0}})["trades"])
    two = only(play(won(0), {"size": {"base": 2.0}})["trades"])
    assert two["quantity"] == 2 * one["quantity"]
    assert two["net"] == 2 * one["net"]
    assert two["return"] == pytest.approx(one["return"])


def test_d38_ratios_are_of_days_and_say_how() -> None:
    """Sharpe is of daily returns, annualised as stated; profit factor is money won over lost."""
    definitions = {name: text for name, _, text in _core.statistic_definitions()}
    assert "sqrt(252)" in definitions["sharpe"]
    assert "trade date" in definitions["sharpe"]
    result = cc.backtest(cc.sample(sessions=40))
    nets = result.trades["net"].to_list()
    won_, lost_ = sum(n for n in nets if n > 0), -sum(n for n in nets if n <= 0)
    assert result.stats["profit_factor"] == pytest.approx(won_ / lost_)
    assert result.stats["payoff"] != pytest.approx(result.stats["profit_factor"])


def test_d39_points_are_of_one_contract() -> None:
    """Expectancy in points is the move, whatever the quantity was, and is not divided again."""
    bars_ = cc.sample(sessions=40)
    fixed = {"learning.mode": "off", "size.signal_scale": 0.0, "risk.max_open_contracts": None}
    one, three = (
        cc.backtest(bars_, MANY.override({**fixed, "size.base": base})) for base in (1, 3)
    )
    assert three.trades["quantity"].max() == 3
    assert one.trades.height == three.trades.height > 20
    assert one.stats["expectancy_points"] == pytest.approx(three.stats["expectancy_points"])


def test_d40_a_contract_code_is_parsed() -> None:
    """ESM6 is June 2026, and its last day is the third Friday but for a holiday."""
    assert expiry_of("ESM6", date(2025, 9, 24)) == date(2026, 6, 18)
    assert expiry_of("ESM5", date(2025, 1, 2)) == date(2025, 6, 20)


# 3.5 State, errors, invented data.


def test_d41_a_result_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way leaves the folder without a result, never with half of one."""
    result = cc.backtest(cc.sample(sessions=8))
    folder = result.save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk is full"):
        result.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(OSError, match="disk is full"):
        result.save(tmp_path / "other")
    with pytest.raises(DataError):
        cc.load_result(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_d42_no_bar_is_invented() -> None:
    """A minute without a trade stays absent, no input gives no output, a simulation says so."""
    inputs = [bar for bar in [*long_at(0), *flat(5, 40, 101.0)] if bar.start != at(12)]
    assert play(inputs)["counts"][0]["bars"] == len(inputs)
    assert not any(play([])[name] for name in ("clusters", "trades", "equity"))
    result = cc.backtest(cc.sample(sessions=6))
    assert result.simulated
    assert result.summary().startswith("SIMULATED")
    assert set(result.bars.symbols if result.bars else ()) == {"ES.SIMULATED"}


def test_d46_two_exits_at_one_instant_are_both_booked() -> None:
    """Trades that leave in one bar all count: the balance is the sum of the trades."""
    settings = {"retest": {"timeout_minutes": 30}, "exit": {"max_hold_minutes": 40}}
    second = [bar._replace(start=bar.start) for bar in long_at(10)]
    rows = [*entered(), *flat(7, 10, 100.5), *second, *retest(15), *flat(16, 20, 100.5)]
    found = play(
        [*rows, *bars("20 100.50 103.00 100.50 103.00 10"), *flat(21, 60, 103.0)], settings
    )
    assert len(found["trades"]) == 2
    assert len({trade["exit_time"] for trade in found["trades"]}) == 1
    total = 50_000 + sum(trade["net"] for trade in found["trades"])
    assert found["equity"][-1]["balance"] == pytest.approx(total)


def test_d47_no_error_is_swallowed() -> None:
    """What is caught whatever it is, is reported, and what goes wrong is of one typed family."""
    silent = set()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                reports = raises or node.name in names or "_LOG" in names
                if caught in ("", "Exception", "BaseException") and not reports:
                    silent.add(path.name)
    # A log line that cannot be written has nowhere else to be reported.
    assert silent == {"logs.py"}
    assert issubclass(DataError, ClusterCoreError)
    assert issubclass(ConfigError, ClusterCoreError)


def test_d48_a_window_is_judged_once_and_after_it_ended() -> None:
    """No window appears twice, none before its end, and the rank list has no duplicates."""
    inputs = [*long_at(0), *flat(5, 10, 101.0), *long_at(10), *flat(15, 30, 101.0)]
    starts = [row["window_start"] for row in play(inputs)["clusters"]]
    assert starts == [at(0), at(10)]
    # Nothing is said while the window is still open, loud as it is.
    assert not play(long_at(0)[:4])["clusters"]
    clusters = cc.backtest(cc.sample(sessions=15), MANY).clusters
    assert clusters["window_start"].n_unique() == clusters.height > 100
    assert ((clusters["decision_time"] - clusters["window_start"]) >= timedelta(minutes=15)).all()


def test_d49_a_roll_carries_no_price_over() -> None:
    """The step from one contract to the next is in no return, true range or window of either."""
    settings = {
        "volatility": {"estimator": "close_to_close", "min_minutes": 3, "atr_min_minutes": 3},
    }
    old = flat(0, 60, 100.0, 10)
    context = [Context(bar) for bar in flat(0, 60, 150.0, 10, symbol="ESH6")]
    new = reference_scenarios.priced(
        [b._replace(start=b.start + 1440 * MINUTE, symbol="ESH6") for b in entered()], 50.0
    )
    rolled = only(play([*old, *context, *new], settings, days(2))["orders"])
    alone = only(play([*flat(0, 60, 150.0, 10, symbol="ESH6"), *new], settings, days(2))["orders"])
    assert rolled["sigma_hold"] == alone["sigma_hold"]
    assert rolled["symbol"] == "ESH6"


def test_d50_a_configuration_is_passed_and_never_changed() -> None:
    """An override is a new object, the old one stays, and neither can be assigned to."""
    config = Config.preset("v6")
    other = config.override({"cluster.threshold": 3.0})
    assert (config.cluster.threshold, other.cluster.threshold) == (4.0, 3.0)
    with pytest.raises(AttributeError):
        config.cluster.threshold = 5.0
    with pytest.raises(AttributeError):
        config.cluster = other.cluster
    with pytest.raises(ConfigError):
        config.override({"risk.max_daily_trades": 10})


def test_d51_equity_is_marked_with_every_bar() -> None:
    """While a position is open each bar makes a mark that holds its open result."""
    found = play([*entered(), *flat(7, 10, 101.5), *flat(10, 12, 100.75)])
    marks = {row["time"]: row["equity"] - row["balance"] for row in found["equity"]}
    assert [marks[at(minute)] for minute in (7, 8, 9, 10, 11, 12)] == [0, 50, 50, 50, 12.5, 12.5]


def test_d52_every_trade_has_its_exit_reason() -> None:
    """Columns are read by name: the reason stands on every closed trade."""
    trades = cc.backtest(cc.sample(sessions=30)).trades
    assert trades.height > 10
    assert trades["exit_reason"].null_count() == 0
    allowed = {
        "stop",
        "target",
        "time",
        "session_end",
        "session_end_late",
        "scale_out",
        "reverse",
        "open",
    }
    assert set(trades["exit_reason"]) <= allowed


def test_d56_requirements_can_be_installed() -> None:
    """No requirement is a module of the standard library, in the project or in its lock files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = list(project["project"]["dependencies"])
    for file in ROOT.glob("requirements*.txt"):
        lines = file.read_text("utf-8").splitlines()
        listed += [line for line in lines if re.match(r"[A-Za-z]", line)]
    names = {re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0].lower() for line in listed}
    assert len(names) > 10
    assert not names & {name.lower() for name in sys.stdlib_module_names}


# Section 0: the facts that decide the design.


def test_fact_1_interleaved_months_are_refused() -> None:
    """A price that alternates between months cannot enter: one bar of another month is refused."""
    near, far = flat(0, 6, 5630.0), flat(0, 6, 5690.0, symbol="ESH6")
    mixed = sorted([*near[::2], *far[1::2]], key=lambda bar: bar.start)
    with pytest.raises(DataError) as refused:
        play(mixed)
    assert refused.value.column == "symbol"
    assert "ESH6" in str(refused.value)


@pytest.mark.parametrize("preset", Config.presets())
def test_fact_2_no_entry_precedes_its_signal(preset: str) -> None:
    """An entry follows its confirmation, which follows a decision at the end of all it rests on."""
    config = Config.preset(preset).override(
        {"cluster.threshold": 1.5, "signal.min_strength": 0.0, "risk.max_drawdown_pct": None}
    )
    trades = pl.concat([cc.backtest(cc.sample(40, seed), config).trades for seed in (1, 2)])
    assert trades.height >= 20
    assert (trades["confirmed_time"] > trades["decision_time"]).all()
    assert (trades["entry_time"] >= trades["confirmed_time"]).all()


def test_fact_3_the_two_scales_of_a_ratio_are_a_window_apart() -> None:
    """The same window is fifteen times as high on the scale of a minute as on that of a window."""
    bars_ = cc.sample(sessions=12)
    ratios = {}
    for basis, threshold in (("minute", 15.0), ("window", 1.0)):
        config = Config.preset().override({"cluster.basis": basis, "cluster.threshold": threshold})
        ratios[basis] = cc.backtest(bars_, config).clusters["volume_ratio"]
    assert ratios["minute"].len() == ratios["window"].len() > 50
    assert ((ratios["minute"] - 15.0 * ratios["window"]).abs() < 1e-9).all()


def test_fact_5_size_does_not_improve_a_trade() -> None:
    """Learning changes quantities and no price: a contract makes the same points without it."""
    bars_ = cc.sample(sessions=60)
    changes = {
        "cluster.threshold": 1.2,
        "rank.top_n": 3,
        "risk.max_open_contracts": None,
        "learning.min_trades": 1,
    }
    learned = cc.backtest(bars_, Config.preset().override(changes))
    plain = cc.backtest(bars_, Config.preset().override({**changes, "learning.mode": "off"}))
    assert learned.trades["quantity"].to_list() != plain.trades["quantity"].to_list()
    assert learned.trades["entry_price"].equals(plain.trades["entry_price"])
    assert learned.stats["expectancy_points"] == plain.stats["expectancy_points"]
    # And with v6's thresholds its context is one bin or two, so it learns one win rate.
    strict = Config.preset("v6").override({"cluster.threshold": 1.0, "risk.max_drawdown_pct": None})
    contexts = pl.concat([cc.backtest(cc.sample(60, s), strict).orders["context"] for s in (1, 2)])
    assert contexts.drop_nulls().len() >= 10
    assert set(contexts.drop_nulls()) <= {0, 1}
