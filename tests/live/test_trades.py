"""Profiles made of the market's trades, live: each bar finds its trades, through outages too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clustercore.gateway import Fault, GatewayData, sample_parent_data
from clustercore.inputs import Bar
from clustercore.live import messages as msg
from clustercore.live.strategy import Strategy
from clustercore.live.stream import _TRADE_LAYOUT
from clustercore.store import Store
from tests.live.harness import ACTIVE, FRAMES, assert_parity, derived, live, part
from tests.live.test_feed_behaviours import (
    MINUTE,
    NOON,
    NUMBER,
    SECOND,
    Scripted,
    Step,
    Told,
    again,
    completed,
    end,
    lost,
    mapping,
    scripted,
)

__all__ = ["scripted"]

TRADES = ACTIVE.override({"profile.source": "trades"})


@pytest.fixture(scope="module")
def market() -> GatewayData:
    """Return two sessions' ends with four trades in each bar."""
    bars = part(sample_parent_data(sessions=2), 21.0, 26.0).frame
    quarter = pl.col("volume") // 4
    parts = [
        bars.select(
            (pl.col("ts_event") + second * 10**9).alias("ts_recv"),
            pl.col(price).alias("price"),
            size.alias("size"),
            "symbol",
        ).filter(pl.col("size") > 0)
        for second, price, size in (
            (1, "open", quarter),
            (20, "high", quarter),
            (40, "low", quarter),
            (59, "close", pl.col("volume") - 3 * quarter),
        )
    ]
    return GatewayData.from_bars(bars, pl.concat(parts).sort("ts_recv"), simulated=True)


def assert_trades_make_bars(database: Path) -> pl.DataFrame:
    """Assert that every contract of a consumed bar was a trade before it; return the bars."""
    with Store.open(database, create=False, read_only=True) as store:
        inputs = store.inputs("ES")
    consumed = inputs.filter((pl.col("kind") == "bar") & pl.col("consumed"))
    prints = inputs.filter(pl.col("kind") == "prints")
    assert prints["volume"].sum() == consumed["volume"].sum()
    return consumed


def test_each_bar_finds_its_trades_and_an_outage_changes_nothing(
    market: GatewayData, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    settings = {"late": "act"}
    whole = live(market, tmp_path / "whole", config=TRADES, settings=settings)
    clusters = derived(whole.database, "clusters")
    assert clusters.height > 10
    assert clusters["reason"].is_in(["no_profile"]).sum() == 0
    assert clusters["modal_price"].null_count() < clusters.height
    consumed = assert_trades_make_bars(whole.database)
    assert_parity(whole.database)

    # The second in the middle of a minute: half of its trades are here already, and come again.
    middle = int(consumed["ts"].to_physical()[consumed.height // 2]) + 45 * 10**9
    faults = (Fault("fin", after_bars=100, outage_s=4), Fault("rst", at=middle, outage_s=400))
    cut = live(market, tmp_path / "cut", config=TRADES, settings=settings, faults=faults)
    assert cut.kinds().count("resumed") >= 2
    assert_trades_make_bars(cut.database)
    assert_parity(cut.database)
    for name in FRAMES:
        assert derived(cut.database, name).equals(derived(whole.database, name)), name


# Told by a script: trades that are there twice, or not at all.

# Second, price, size and sequence of the trades of a minute: most of it at the low.
Fill = tuple[float, float, int, int]
FILLS: tuple[Fill, ...] = ((5, 6_000.0, 60, 1), (30, 6_002.0, 40, 2))


def columns(minute: int, fills: Iterable[Fill]) -> msg.MarketTrades:
    rows = [
        (NUMBER, ts, round(price * SECOND), size, ord("B"), 0, ts, sequence)
        for second, price, size, sequence in fills
        for ts in [NOON + minute * MINUTE + round(second * SECOND)]
    ]
    fields = zip(_TRADE_LAYOUT["names"], _TRADE_LAYOUT["formats"], strict=True)
    return msg.MarketTrades(np.array(rows, list(fields)))


def trades(minute: int, fills: Iterable[Fill] = FILLS) -> Step:
    return NOON + minute * MINUTE + 59 * SECOND, lambda _: columns(minute, fills)


def bar_of_trades(minute: int) -> Step:
    """Return a bar of a hundred contracts between the two prices."""
    start = NOON + minute * MINUTE
    low, middle, high = (round(price * SECOND) for price in (6_000, 6_001, 6_002))
    return start + MINUTE + SECOND // 5, lambda now: msg.MarketBar(
        NUMBER, start, middle, high, low, middle, 100, now, now
    )


def minutes_with(fills: Iterable[Fill], minutes: Iterable[int] = range(12, 18)) -> list[Step]:
    """Return some minutes with other trades than the rest."""
    return [
        step
        for minute in range(18)
        for step in (
            trades(minute, fills if minute in minutes else FILLS),
            bar_of_trades(minute),
            end(minute + 1, 0.3),
        )
    ]


def prints_of(told: Told) -> dict[int, int]:
    """Return the contracts of the trades that were used, by minute."""
    rows = told.rows().filter(pl.col("kind") == "prints")
    minute = (rows["ts"].to_physical() - NOON) // MINUTE
    by_minute = rows.select("volume").with_columns(minute=minute).group_by("minute").sum()
    return dict(sorted(by_minute.select("minute", "volume").iter_rows()))


def test_a_trade_that_is_there_twice_counts_once_where_the_bar_says_so(
    scripted: Callable[..., Told],
) -> None:
    told = scripted([mapping(), *minutes_with((*FILLS, FILLS[1]))], config=TRADES)
    assert prints_of(told) == dict.fromkeys(range(18), 100)
    assert told.reasons("trades_differ") == []
    clusters = derived(told.runner.database, "clusters")
    # Twice the forty at the high would be more than the sixty at the low.
    assert set(clusters["modal_price"].drop_nulls().to_list()) == {6_000.0}
    assert told.runner.status.counts["duplicates"] == 6
    assert_parity(told.runner.database)


def test_two_trades_alike_are_two_where_the_bar_counts_both(scripted: Callable[..., Told]) -> None:
    twins: tuple[Fill, ...] = ((5, 6_000.0, 30, 1), (5, 6_000.0, 30, 1), FILLS[1])
    told = scripted([mapping(), *minutes_with(twins)], config=TRADES)
    assert prints_of(told) == dict.fromkeys(range(18), 100)
    assert told.runner.status.counts["duplicates"] == 0
    assert told.reasons("trades_differ") == []


@pytest.mark.parametrize(
    "fills",
    [FILLS[1:], ((5, 6_000.0, 61, 1), FILLS[1]), (*FILLS, FILLS[1], (31, 6_002.0, 1, 3))],
    ids=["one is missing", "one more contract", "more than twice the same"],
)
def test_trades_that_do_not_make_their_bar_are_not_used(
    scripted: Callable[..., Told], fills: tuple[Fill, ...]
) -> None:
    told = scripted([mapping(), *minutes_with(fills)], config=TRADES)
    assert prints_of(told) == dict.fromkeys(range(12), 100)
    notes = [note for note in told.notes if note.kind == "trades_differ"]
    assert [(note.start - NOON) // MINUTE for note in notes if note.start] == [*range(12, 18)]
    assert all("the bar has 100; none are used" in note.reason for note in notes)
    clusters = derived(told.runner.database, "clusters")
    without = clusters.filter(pl.col("window_start").to_physical() >= NOON + 12 * MINUTE)
    assert without["reason"].to_list() == ["no_profile"] * 2
    assert without["modal_price"].null_count() == 2
    # The bars themselves are taken as ever.
    assert [row[1:] for row in told.bars()] == [(True, True, "")] * 18
    assert_parity(told.runner.database)


def test_trades_of_half_a_minute_that_come_again_count_once(
    scripted: Callable[..., Told],
) -> None:
    # Two alike among them: what came before and what comes again cannot be told apart by looking.
    twins: tuple[Fill, ...] = ((5, 6_000.0, 30, 1), (5, 6_000.0, 30, 1))
    told = scripted(
        [mapping(), trades(0), bar_of_trades(0), end(1), trades(1, twins), lost(1.9)],
        [
            mapping(minute=2.5),
            *again(2.5, [trades(0), trades(1, (*twins, FILLS[1])), trades(2, FILLS[:1])]),
            completed(2.6),
            *again(2.6, [bar_of_trades(0), bar_of_trades(1)]),
            completed(2.7),
            trades(2, FILLS[1:]),
            bar_of_trades(2),
            end(3, 0.3),
        ],
        config=TRADES,
    )
    assert prints_of(told) == dict.fromkeys(range(3), 100)
    assert told.reasons("trades_differ") == []


def test_the_operator_is_heard_while_the_bars_of_a_replay_go_on(
    scripted: Callable[..., Told],
) -> None:
    scripted([mapping(), trades(0), bar_of_trades(0), end(1)], config=TRADES)

    def stops(now: int) -> msg.ReplayCompleted:
        Scripted.runner.stop()
        return msg.ReplayCompleted("Finished", now, now)

    replay = [
        mapping(minute=300),
        *again(300, map(trades, range(300))),
        *again(300, map(bar_of_trades, range(300))),
    ]
    told = scripted(
        [*replay, completed(300.1), (NOON + 301 * MINUTE, stops)], config=TRADES, at=300
    )
    # The first of the three hundred was known, and not all others were taken before it stopped.
    assert told.code == 0
    assert len(told.bars()) == 64
    # What was not taken comes with the next start.
    more = scripted([*replay, completed(300.1), completed(300.2)], config=TRADES, at=300)
    assert [minute for minute, _, taken, _ in more.bars() if taken] == list(range(300))
    assert {reason for _, _, _, reason in more.bars()} == {""}
    assert more.reasons("hole") == []
    assert prints_of(more) == dict.fromkeys(range(300), 100)
    assert_parity(more.runner.database)


def test_waiting_trades_are_looked_at_with_their_own_bars_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = 0
    where = msg.MarketTrades.where

    def counted(
        self: msg.MarketTrades, flags: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> msg.MarketTrades:
        nonlocal looked_at
        looked_at += len(self)
        return where(self, flags)

    monkeypatch.setattr(msg.MarketTrades, "where", counted)
    minutes, size = 400, 5
    strategy = Strategy.__new__(Strategy)
    strategy.interval_ns = MINUTE
    # As they come: five minutes of trades at a time.
    strategy._trades = [
        msg.MarketTrades(
            np.concatenate([columns(minute, FILLS).rows for minute in range(first, first + size)]),
            "ESZ4",
        )
        for first in range(0, minutes, size)
    ]
    for minute in range(minutes):
        start = NOON + minute * MINUTE
        found = strategy._prints_of(Bar("ESZ4", start, 1, 1, 1, 1, 100))
        assert found is not None
        assert len(found) == 2
    assert strategy._trades == []
    # Each bar looks at the handful that came together with its own, whatever else waits.
    assert looked_at <= minutes * 3 * size * len(FILLS)


def test_a_stop_while_the_bars_of_a_replay_go_on_takes_nothing_that_came_after_them(
    scripted: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Scripted.take

    def at_once(self: Scripted, timeout: float) -> list[msg.Message]:
        """Return what comes in one batch, as a queue that filled meanwhile gives it."""
        found: list[Any] = take(self, timeout)
        return found[0] if found and isinstance(found[0], list) else found

    monkeypatch.setattr(Scripted, "take", at_once)
    scripted([mapping(), trades(0), bar_of_trades(0), end(1)], config=TRADES)

    def batch(now: int) -> list[msg.Message]:
        Scripted.runner.stop()
        return [
            msg.ReplayCompleted("Finished", now, now),
            columns(200, FILLS),
            bar_of_trades(200)[1](now),
            msg.EndOfInterval(NOON + 201 * MINUTE, now, now),
        ]

    replay = [
        mapping(minute=201),
        *again(201, map(trades, range(200))),
        *again(201, map(bar_of_trades, range(200))),
        completed(201.1),
    ]
    scripted([*replay, (NOON + 201 * MINUTE + 30 * SECOND, batch)], config=TRADES, at=201)
    more = scripted(
        [
            *replay,
            *again(202, [trades(200), bar_of_trades(200), trades(201), bar_of_trades(201)]),
            completed(202.1),
        ],
        config=TRADES,
        at=202,
    )
    assert [minute for minute, _, taken, _ in more.bars() if taken] == list(range(202))
    assert more.reasons("late") == []
