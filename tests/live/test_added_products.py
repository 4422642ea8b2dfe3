"""Products that are added and dropped between two starts: each engine misses its own bars only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl
import pytest

from clustercore.live.strategy import Calendar
from clustercore.sessions import load_sessions
from tests.live.harness import HOLD, assert_parity, derived
from tests.live.test_feed_behaviours import (
    MINUTE,
    NOON,
    Step,
    Told,
    again,
    completed,
    end,
    mapping,
    moving,
    rows_of,
    scripted,
)

__all__ = ["scripted"]

CALENDAR = Calendar(load_sessions())
DAY = 1440
# Number, level and place within the minute of each contract.
CONTRACTS = {"ESZ4": (7, 6_000.0, 0.2), "NQZ4": (8, 21_000.0, 0.3)}
BOTH = tuple(CONTRACTS)


def open_minutes(first: int, until: int, step: int = 1) -> list[int]:
    """Return the minutes in which the market is open, every so many of them."""
    return [
        minute
        for minute in range(first, until, step)
        if CALENDAR.session(NOON + minute * MINUTE) is not None
    ]


def said(symbol: str, minutes: Iterable[int]) -> list[Step]:
    number, level, delay_s = CONTRACTS[symbol]
    return [moving(minute, delay_s, number=number, level=level) for minute in minutes]


def of_all(symbols: Iterable[str], minutes: Iterable[int]) -> list[Step]:
    """Return the bars of several contracts, minute by minute."""
    return [step for minute in minutes for symbol in symbols for step in said(symbol, [minute])]


def maps(symbols: Iterable[str], minute: float = 0) -> list[Step]:
    return [mapping(symbol, number=CONTRACTS[symbol][0], minute=minute) for symbol in symbols]


class Shelf:
    """History of both contracts up to a minute."""

    def __init__(self, first: int, until: int, step: int = 1) -> None:
        self.until = until
        minutes = open_minutes(first, until, step)
        self.frame = pl.concat(rows_of(said(symbol, minutes), symbol) for symbol in BOTH)
        self.asked: list[tuple[int, int]] = []

    def available_end(self) -> int:
        return NOON + self.until * MINUTE

    def bars(self, start: int, until: int) -> pl.DataFrame:
        self.asked.append(((start - NOON) // MINUTE, (until - NOON) // MINUTE))
        inside = pl.col("ts_event").is_between(start, until, closed="left")
        return self.frame.filter(inside).sort("ts_event", "symbol")


def minutes_taken(told: Told, root: str) -> list[int]:
    return [minute for minute, _, taken, _ in told.bars(root) if taken]


@pytest.mark.parametrize(("now", "step"), [(1_140, 1), (3 * DAY, 10)], ids=["hours", "days"])
def test_an_added_product_takes_no_bar_away_from_the_running_one(
    scripted: Callable[..., Told], now: int, step: int
) -> None:
    first = open_minutes(0, 30)
    scripted([*maps(["ESZ4"]), *said("ESZ4", first), end(30)], config=HOLD)
    away = open_minutes(30, now, step)
    replayed = [minute for minute in [29, *away] if minute >= now - DAY]
    present = list(range(now, now + 3))
    past = Shelf(-600, now - 60, step)
    told = scripted(
        [
            *maps(BOTH, now),
            *again(now, of_all(BOTH, replayed)),
            completed(now + 0.1),
            *of_all(BOTH, present),
        ],
        symbols=BOTH,
        past=past,
        config=HOLD,
        at=now,
        backfill_days=1,
    )
    assert minutes_taken(told, "ES") == [*first, *away, *present]
    assert {reason for _, _, _, reason in told.bars("ES")} == {""}
    assert told.reasons("hole") == []
    # The position of the first start leaves after its hour, as it would have without the other.
    trade = derived(told.runner.database, "trades").row(0, named=True)
    assert trade["exit_reason"] == "time"
    held_s = (trade["exit_time"] - trade["entry_time"]).total_seconds()
    assert 3600 <= held_s < 3600 + 60 * step
    # The new one begins with as much history as was asked for, and goes on into the present.
    new = minutes_taken(told, "NQ")
    assert new[0] <= now - 60 - DAY + step
    assert new[-1] == present[-1]
    assert_parity(told.runner.database)


def test_a_product_that_was_dropped_for_days_comes_back_whole(
    scripted: Callable[..., Told],
) -> None:
    step = 10
    first, away = open_minutes(0, 30), open_minutes(30, 3 * DAY, step)
    scripted([*maps(BOTH), *of_all(BOTH, first), end(30)], symbols=BOTH, config=HOLD)
    alone = [minute for minute in away if minute < 2 * DAY]
    # For two days nobody asks for it.
    scripted(
        [*maps(["ESZ4"], 30), *again(30, said("ESZ4", [29])), *said("ESZ4", alone), end(2 * DAY)],
        symbols=("ESZ4",),
        config=HOLD,
        at=30,
    )
    now = 3 * DAY
    replayed = [minute for minute in away if minute >= now - DAY + 10]
    past = Shelf(0, now - 60, step)
    told = scripted(
        [*maps(BOTH, now), *again(now, of_all(BOTH, replayed)), completed(now + 0.1)],
        symbols=BOTH,
        past=past,
        config=HOLD,
        at=now,
    )
    for root in ("ES", "NQ"):
        assert minutes_taken(told, root) == [*first, *away], root
        assert {reason for _, _, _, reason in told.bars(root)} == {""}
    assert told.reasons("hole") == []
    # One question, from where the one that was away stands.
    assert past.asked == [(29, now - 60)]
    assert_parity(told.runner.database)


def test_a_hole_is_of_the_product_that_lacks_bars_and_of_no_other(
    scripted: Callable[..., Told],
) -> None:
    first = open_minutes(0, 30)
    scripted([*maps(BOTH), *of_all(BOTH, first), end(30)], symbols=BOTH)
    scripted(
        [
            *maps(["ESZ4"], 30),
            *again(30, said("ESZ4", [29])),
            *said("ESZ4", range(30, 200)),
            end(200),
        ],
        symbols=("ESZ4",),
        at=30,
    )
    # The gateway reaches back for one hour, and there is no history.
    told = scripted(
        [
            *maps(BOTH, 210),
            *again(210, of_all(BOTH, range(155, 210))),
            completed(210.1),
            *of_all(BOTH, range(210, 213)),
        ],
        symbols=BOTH,
        at=210,
        replay_limit_h=1,
    )
    holes = [(note.root, note.start, note.end) for note in told.notes if note.kind == "hole"]
    assert holes == [("NQ", NOON + 30 * MINUTE, NOON + 155 * MINUTE)]
    assert minutes_taken(told, "ES") == list(range(213))
    assert minutes_taken(told, "NQ") == [*range(30), *range(155, 213)]
    closed = {
        root: told.rows(root).filter(kind="closed", reason="hole").height for root in ("ES", "NQ")
    }
    assert closed == {"ES": 0, "NQ": 1}
    assert_parity(told.runner.database)
