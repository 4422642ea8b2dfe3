"""Two weeks with a roll: history, then live across it, and nothing crosses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import clustercore as cc
from clustercore.gateway import GatewayData, sample_parent_data, write_dbn
from clustercore.gateway.historical import HistoricalServer
from clustercore.inputs import ContractChange
from clustercore.live.strategy import Calendar
from clustercore.sessions import load_sessions
from clustercore.store import DERIVED, Store
from tests.live.harness import Run, assert_parity, consumed, derived, live
from tests.live.killed import CONFIG

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
