"""Two weeks with a roll: history, then live across it, and nothing crosses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clustercore as cc
from clustercore.contracts import select_front
from clustercore.gateway import GatewayData, sample_parent_data, write_dbn
from clustercore.gateway.historical import HistoricalServer
from clustercore.inputs import ContractChange
from clustercore.live.strategy import Calendar
from clustercore.sessions import load_sessions
from clustercore.store import DERIVED, Store
from tests.live.harness import HOLD, Run, assert_parity, consumed, derived, live
from tests.live.killed import CONFIG
from tests.live.test_feed_behaviours import Step, Told, again, end, mapping, moving, scripted

__all__ = ["scripted"]

MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
CALENDAR = Calendar(load_sessions())
OLD, NEW = "ESZ4", "ESH5"
# Volume goes over to the new month in the session of the 16th, so the 17th is traded in it.
CHANGE = next(row for row, day in enumerate(CALENDAR.days) if day.isoformat() == "2024-12-17")
CLOSE, OPEN = CALENDAR.closes[CHANGE - 1], CALENDAR.opens[CHANGE]
MORNING = CALENDAR.opens[CHANGE - 1] + 8 * HOUR_NS
ROLLING = CONFIG.override(
    {
        "baseline.mode": "previous_session",
        "cluster.threshold": 0.1,
        "exit.max_hold_minutes": 120,
        "stop.k": 4.0,
        "risk.max_consecutive_losses": None,
        "risk.daily_loss_pct": None,
    }
)
COLUMNS = ["ts_event", "open", "high", "low", "close", "volume", "symbol", "context"]
# Of a cluster, what does not depend on whether it came in time to act on.
FACTS = ["symbol", "window_start", "decision_time", "volume", "baseline", "baseline_source"]


@dataclass
class Crossed:
    """A run over the roll, and what the file of the same market gives."""

    run: Run
    bars: pl.DataFrame
    clusters: pl.DataFrame


def two_weeks() -> GatewayData:
    """Return two weeks to shortly after the roll.

    The old month trades no more in its last half hour, so that a position in it finds nobody to be
    closed with. The new month has too few bars in that session for a usual volume of its own.
    """
    frame = sample_parent_data(sessions=11, start="2024-12-03").frame
    ts = pl.col("ts_event")
    gone = (pl.col("symbol") == OLD) & (ts >= CLOSE - 30 * MINUTE_NS)
    absent = (pl.col("symbol") == NEW) & ts.is_between(CALENDAR.opens[CHANGE - 1], MORNING)
    return GatewayData.from_bars(
        frame.filter(~gone, ~absent, ts < OPEN + 3 * HOUR_NS), source="two weeks", simulated=True
    )


@pytest.fixture(scope="module")
def market() -> GatewayData:
    return two_weeks()


def cross(market: GatewayData, folder: Path, instant: int) -> Crossed:
    """Take history until an instant, and the rest live."""
    with HistoricalServer(market, now=lambda: instant) as history:
        run = live(
            market,
            folder,
            config=ROLLING,
            history=history.url,
            settings={"backfill_days": 30},
            start=instant,
        )
    assert run.code == 0
    bars = cc.read_bars(write_dbn(folder / "market.dbn", market))
    return Crossed(run, bars.frame.select(COLUMNS), cc.backtest(bars, ROLLING).clusters)


@pytest.fixture(scope="module")
def crossed(market: GatewayData, tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    return cross(market, tmp_path_factory.mktemp("roll"), CLOSE - 3 * HOUR_NS)


def test_the_bars_are_those_of_the_file_context_included(crossed: Crossed) -> None:
    taken = consumed(crossed.run.database)
    assert taken.equals(crossed.bars)
    context = taken.filter("context")
    assert context.height > 500
    assert context["symbol"].unique().to_list() == [NEW]
    assert_parity(crossed.run.database)


def test_the_month_changes_once_at_the_session_that_trades_the_other(crossed: Crossed) -> None:
    with Store.open(crossed.run.database, create=False, read_only=True) as store:
        entries = [item for _, item in store.entries("ES")]
    changes = [item for item in entries if isinstance(item, ContractChange)]
    assert [(item.previous, item.symbol) for item in changes] == [(None, OLD), (OLD, NEW)]
    taken = consumed(crossed.run.database).filter(~pl.col("context"))
    first = taken.filter(pl.col("symbol") == NEW)["ts_event"].to_physical().min()
    last = taken.filter(pl.col("symbol") == OLD)["ts_event"].to_physical().max()
    assert first == OPEN
    assert last == CLOSE - 31 * MINUTE_NS


def test_nothing_crosses_the_roll(crossed: Crossed) -> None:
    def instants(name: str, symbol: str, column: str) -> list[int]:
        frame = derived(crossed.run.database, name).filter(pl.col("symbol") == symbol)
        found: list[int] = frame[column].drop_nulls().to_physical().to_list()
        assert found, f"no {name} of {symbol}"
        return found

    assert max(instants("clusters", OLD, "decision_time")) <= CLOSE
    assert min(instants("clusters", NEW, "window_start")) >= OPEN
    assert max(instants("signals", OLD, "resolved_time")) <= CLOSE
    assert max(instants("orders", OLD, "resolved_time")) <= CLOSE
    assert min(instants("orders", NEW, "confirmed_time")) >= OPEN
    assert min(instants("trades", NEW, "entry_time")) >= OPEN


def test_a_position_over_the_roll_leaves_at_the_last_close_and_is_marked(crossed: Crossed) -> None:
    trades = derived(crossed.run.database, "trades").filter(pl.col("symbol") == OLD)
    over = trades.filter("stale")
    assert over.height >= 1
    last = crossed.bars.filter(pl.col("symbol") == OLD)["close"][-1]
    slipped = ROLLING.costs.slippage_ticks * 0.25
    assert (over["exit_price"] - last).abs().max() <= slipped
    assert max(over["exit_time"].to_physical()) <= OPEN
    # Whatever was not open then has left in time.
    in_time = trades.filter(~pl.col("stale"))["exit_time"].to_physical().to_list()
    assert all(exit_time < CLOSE for exit_time in in_time)


def test_the_baseline_says_where_it_came_from(crossed: Crossed) -> None:
    clusters = derived(crossed.run.database, "clusters")
    assert clusters.select(FACTS).equals(crossed.clusters.select(FACTS))
    sources = {
        symbol: set(clusters.filter(pl.col("symbol") == symbol)["baseline_source"].to_list())
        for symbol in (OLD, NEW)
    }
    assert sources == {
        OLD: {"previous_session"},
        NEW: {"previous_session,other_contract"},
    }
    told = [made for made in crossed.run.recommendations if made.contract == NEW]
    assert told
    assert all("usual volume of another contract" in made.reasoning for made in told)


def test_a_restart_between_the_two_months_changes_nothing(
    market: GatewayData, crossed: Crossed, tmp_path: Path
) -> None:
    instant = CLOSE - 3 * HOUR_NS
    with HistoricalServer(market, now=lambda: instant) as history:
        first = live(
            market.before(CLOSE),
            tmp_path,
            config=ROLLING,
            history=history.url,
            settings={"backfill_days": 30},
            start=instant,
        )
    assert first.code == 0
    second = live(market, tmp_path, config=ROLLING, start=CLOSE)
    assert second.code == 0
    assert consumed(second.database).equals(crossed.bars)
    for name in DERIVED:
        assert derived(second.database, name).equals(derived(crossed.run.database, name)), name
    assert_parity(second.database)


def test_a_roll_that_lies_in_history_gives_the_same_bars(
    market: GatewayData, crossed: Crossed, tmp_path: Path
) -> None:
    late = cross(market, tmp_path, OPEN + 2 * HOUR_NS)
    assert consumed(late.run.database).equals(crossed.bars)
    assert_parity(late.run.database)
    with Store.open(late.run.database, create=False, read_only=True) as store:
        origins = store.inputs("ES").filter("context")["origin"].unique().to_list()
    assert origins == ["backfill"]
    # Nothing is traded in what was read from history.
    times = derived(late.run.database, "orders")["confirmed_time"].to_physical()
    assert times.min() is None or min(times) >= OPEN + 2 * HOUR_NS


# Told by a script: what a market of the sample does not do by itself. Tuesday's session opens 960
# minutes before noon and closes 420 after it; the next one opens at 480.

DAY = 1440
NUMBERS = {OLD: 7, NEW: 8}


def maps(minute: float = 0) -> list[Step]:
    return [mapping(symbol, number=number, minute=minute) for symbol, number in NUMBERS.items()]


def both(minutes: Iterable[int], *, new_volume: int = 50) -> list[Step]:
    """Return the bars of two months; the old one trades a hundred contracts a minute."""
    return [
        step
        for minute in minutes
        for step in (
            moving(minute, volume=100),
            moving(minute, 0.25, number=NUMBERS[NEW], level=6_050, volume=new_volume),
        )
    ]


def changes(told: Told) -> list[tuple[str, str]]:
    """Return symbol and reason of every change of the month in front."""
    rows = told.rows().filter(kind="contract").select("symbol", "reason")
    return [(str(symbol), str(reason)) for symbol, reason in rows.iter_rows()]


def taken_of(told: Told, symbol: str) -> list[int]:
    """Return the minutes of a contract that the engine took in their turn."""
    own = (pl.col("symbol") == symbol) & pl.col("consumed") & ~pl.col("context")
    rows = told.rows().filter(pl.col("kind") == "bar", own)
    noon = 1_733_842_800 * 10**9
    return ((rows["ts"].to_physical() - noon) // MINUTE_NS).to_list()


def test_a_bad_bar_of_the_new_month_is_refused_at_the_roll_and_ends_nothing(
    scripted: Callable[..., Told],
) -> None:
    def with_bad(minutes: Iterable[int]) -> list[Step]:
        """Return bars of two months, one of the new month off the grid of ticks."""

        def spoilt(step: Step) -> Step:
            at, make = step

            def bad(now: int) -> Any:
                bar = make(now)
                off = bar.instrument_id == NUMBERS[NEW] and bar.ts_event == spoilt_ts
                return bar._replace(close=bar.close + 10**8) if off else bar

            return at, bad

        return [spoilt(step) for step in both(minutes, new_volume=1_000)]

    spoilt_ts = 1_733_842_800 * 10**9 + 1_852 * MINUTE_NS
    evening, after = range(1_850, 1_855), range(1_920, 1_925)
    script = [*maps(), *both(range(5)), end(5), *with_bad(evening), end(1_855), *both(after)]
    told = scripted(script, symbols=("ES",))
    assert told.code == 0
    assert "price off the tick grid" in told.reasons("refused")[0]
    assert len(told.reasons("refused")) == 1
    assert changes(told)[-1] == (NEW, "volume")
    assert taken_of(told, NEW) == list(after)
    kept = told.rows().filter(kind="bar", reason="refused")
    assert kept["ts"].to_physical().to_list() == [spoilt_ts]
    assert kept.select("context", "consumed", "actionable").rows() == [(True, False, False)]
    # Another start reads the same log, and another roll is none.
    later = scripted(
        [*maps(1_925), *again(1_925, both([1_924])), *both(range(1_925, 1_930)), end(1_930)],
        symbols=("ES",),
        at=1_925,
    )
    assert later.code == 0
    assert later.reasons("alarm") == []
    assert taken_of(later, NEW) == [*after, *range(1_925, 1_930)]
    assert_parity(later.runner.database)


def test_a_product_asked_for_in_place_of_its_contract_keeps_the_contract_until_the_session_ends(
    scripted: Callable[..., Told],
) -> None:
    scripted([*maps(), *both(range(30)), end(30)], symbols=(OLD,), config=HOLD)
    rest = range(30, 420, 3)
    minutes = [*rest, *range(480, 490)]
    told = scripted(
        [*maps(30), *again(30, both([29])), *both(minutes, new_volume=1_000), end(490)],
        symbols=("ES",),
        config=HOLD,
        at=30,
    )
    assert taken_of(told, OLD) == [*range(30), *rest]
    assert told.rows().filter(kind="bar", reason="no_contract").is_empty()
    first, *_ = derived(told.runner.database, "trades").rows(named=True)
    assert (first["symbol"], first["exit_reason"]) == (OLD, "time")
    # The next session is traded in the month that is in front then.
    assert changes(told) == [(OLD, "given"), (NEW, "volume")]
    assert taken_of(told, NEW) == list(range(480, 490))
    assert_parity(told.runner.database)


def test_a_contract_that_is_given_takes_effect_with_the_next_session(
    scripted: Callable[..., Told],
) -> None:
    before = [*range(-1_080, -1_020), *range(-30, 30)]
    first = scripted(
        [*maps(-1_080), *both(before), end(30)], symbols=("ES",), config=HOLD, at=-1_080
    )
    assert changes(first) == [(OLD, "first")]
    assert first.runner.status.roots[0].open_position is not None
    rest = range(30, 420, 3)
    script = [
        *maps(30),
        *again(30, both([29])),
        *both(rest),
        end(420),
        *both(range(480, 490)),
        end(490),
    ]
    told = scripted(script, symbols=(NEW,), config=HOLD, at=30)
    assert taken_of(told, OLD) == [*range(-30, 30), *rest]
    trades = derived(told.runner.database, "trades").filter(pl.col("symbol") == OLD)
    assert trades["exit_reason"].to_list()[0] == "time"
    (change,) = [item for item in _items(told) if isinstance(item, ContractChange)][1:]
    assert (change.symbol, change.previous, change.reason) == (NEW, OLD, "given")
    assert date(1970, 1, 1) + timedelta(days=change.trade_date) == date(2024, 12, 11)
    assert taken_of(told, NEW) == list(range(480, 490))
    # Started again within that session, it goes on in the same contract.
    again_told = scripted(
        [*maps(490), *again(490, both([489])), *both(range(490, 495)), end(495)],
        symbols=(NEW,),
        config=HOLD,
        at=490,
    )
    assert taken_of(again_told, NEW) == list(range(480, 495))
    assert len(changes(again_told)) == 2
    assert_parity(again_told.runner.database)


def test_a_session_of_which_nothing_is_known_lets_no_earlier_month_back(
    scripted: Callable[..., Told],
) -> None:
    def on(day: int, first: int, until: int) -> list[int]:
        return [(day - 10) * DAY + minute for minute in range(first, until, 5)]

    # The last hours of the 17th's session and the first of the 18th's; so again the day after.
    old = [step for day in (17, 18) for step in both([*on(day, 300, 420), *on(day, 480, 540)])]
    # Nobody has anything of the 19th's rest, and so the 20th has no month. It is the last day of
    # the old one, which trades no more.
    new = [
        moving(minute, number=NUMBERS[NEW], level=6_050, volume=500)
        for minute in [*on(19, 480, 1_860), *on(22, 480, 540)]
    ]
    first = on(17, 300, 420)[0]
    told = scripted([*maps(first), *old, *new], symbols=("ES",), at=first)
    assert changes(told) == [(OLD, "first"), ("", "nothing_known"), (NEW, "expiry")]
    # As the same bars give from a file.
    own = told.rows().filter(pl.col("kind") == "bar", ~pl.col("context"))
    columns = ["ts_event", "open", "high", "low", "close", "volume", "symbol"]
    bars = own.rename({"ts": "ts_event"}).select(columns).sort("ts_event", "symbol")
    table = select_front(bars, CALENDAR.sessions, MINUTE_NS).table
    assert table["symbol"].to_list()[-1] == NEW
    assert table["reason"].to_list()[-1] == "expiry"
    context = told.rows().filter(pl.col("context"))
    assert context.height == table["context_bars"].to_list()[-1] > 100


def _items(told: Told) -> list[Any]:
    with Store.open(told.runner.database, create=False, read_only=True) as store:
        return [item for _, item in store.entries("ES")]
