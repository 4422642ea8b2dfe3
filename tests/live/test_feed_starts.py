"""Starts that are not plain: of a product, a contract, a history, a week; and odd ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from clustercore.live import messages as msg
from clustercore.live.history import HistoryUnavailable
from tests.live.harness import derived
from tests.live.test_feed_behaviours import (
    MINUTE,
    NOON,
    Scripted,
    Shelf,
    Step,
    Told,
    again,
    bar,
    completed,
    end,
    error,
    heartbeat,
    lost,
    mapping,
    minutes,
    moving,
    rows_of,
    says,
    scripted,
)
from tests.live.test_trades import TRADES, bar_of_trades, trades

__all__ = ["scripted"]

OTHER = 8
# Minutes after noon: the last of this session and of Friday's, the first of Sunday's.
LAST = 6 * 60 + 59
FRIDAY = 3 * 1440 + LAST
SUNDAY = 5 * 1440 + 480


def both(minute: float) -> list[Step]:
    return [mapping(minute=minute), mapping("NQZ4", number=OTHER, minute=minute)]


def test_a_contract_that_takes_the_place_of_an_expired_one_is_followed(
    scripted: Callable[..., Told],
) -> None:
    scripted([mapping(), *minutes(0)], symbols=("ESZ4",))
    later = 20 * 1440
    gone = error(4, "Failed to resolve symbol: ESZ4", later)
    told = scripted([gone, mapping("ESH5", minute=later)], symbols=("ESH5",), at=later)
    assert told.code == 0
    assert "FATAL" not in told.states()
    assert len(told.reasons("error")) == 1


def test_the_end_of_an_interval_says_nothing_of_another_streams_replay(
    scripted: Callable[..., Told],
) -> None:
    def pair(minute: int) -> list[Step]:
        return [bar(minute), bar(minute, 0.3, number=OTHER)]

    first = [step for minute in range(3) for step in (*pair(minute), end(minute + 1, 0.5))]
    scripted([*both(0), *first], symbols=("ESZ4", "NQZ4"))
    # The parent's subscription is in the present while the contract's is still replayed.
    told = scripted(
        [
            *both(10),
            *again(10, [bar(minute) for minute in range(2, 10)]),
            *again(10.05, [end(10)]),
            *again(10.1, [bar(minute, number=OTHER) for minute in range(2, 10)]),
            completed(10.2),
            *pair(10),
            end(11, 0.5),
        ],
        symbols=("ESZ4", "NQ"),
        at=10,
    )
    assert told.reasons("hole") == []
    assert told.consumed("NQ") == list(range(11))


class OfNasdaq:
    """History of NQ up to a minute."""

    def __init__(self, until: int) -> None:
        self.until = until

    def available_end(self) -> int:
        return NOON + self.until * MINUTE

    def bars(self, start: int, until: int) -> pl.DataFrame:
        steps = [moving(minute, number=OTHER, level=21_000) for minute in range(-600, self.until)]
        rows = rows_of(steps, "NQZ4")
        return rows.filter(pl.col("ts_event").is_between(start, until, closed="left"))


def test_a_product_that_is_added_does_not_act_on_what_it_catches_up_with(
    scripted: Callable[..., Told],
) -> None:
    scripted([mapping(), moving(0), end(1)], symbols=("ESZ4",), late="act")
    replay = [
        step
        for minute in range(1, 200)
        for step in (moving(minute), moving(minute, 0.3, number=OTHER, level=21_000))
    ]
    told = scripted(
        [*both(200), *again(200.1, replay), completed(200.2), *moves(200)],
        symbols=("ESZ4", "NQZ4"),
        late="act",
        at=200,
        past=OfNasdaq(100),
        backfill_days=1,
    )
    # The last of the replay is seconds old, which is no replay's age.
    assert [minute for minute, acted, _, _ in told.bars("NQ") if acted] == [199, 200]
    # Its neighbour was live before, and acts on all that it missed.
    assert [minute for minute, acted, _, _ in told.bars("ES") if acted] == list(range(201))
    early = derived(told.runner.database, "orders", "NQ")["decision_time"].to_physical()
    assert not (early < NOON + 199 * MINUTE).any()


def moves(minute: int) -> list[Step]:
    return [moving(minute), moving(minute, 0.3, number=OTHER, level=21_000)]


def of_other(step: Step) -> Step:
    """Return what is said of ES, said of NQ."""
    at, make = step

    def other(now: int) -> msg.Message:
        made: msg.Message = make(now)
        if isinstance(made, msg.MarketBar):
            return made._replace(instrument_id=OTHER)
        assert isinstance(made, msg.MarketTrades)
        rows = np.array(made.rows)
        rows["instrument_id"] = OTHER
        return msg.MarketTrades(rows)

    return at, other


def test_a_stop_while_the_bars_of_a_replay_go_on_finds_no_hole(
    scripted: Callable[..., Told],
) -> None:
    def replay(at: float) -> list[Step]:
        # One product after the other, so that the stop comes before the first bar of the second.
        parts = [list(map(make, range(200))) for make in (trades, bar_of_trades)]
        said = [step for part in parts for step in (*part, *map(of_other, part))]
        return [*both(at), *again(at, said), completed(at + 0.1)]

    def stopping(now: int) -> msg.Message:
        Scripted.runner.stop()
        return msg.ReplayCompleted("Finished", now, now)

    begun = [trades(0), of_other(trades(0)), bar_of_trades(0), of_other(bar_of_trades(0)), end(1)]
    scripted([*both(0), *begun], config=TRADES, symbols=("ESZ4", "NQZ4"))
    cut = [*replay(201), says(201.1, stopping)]
    told = scripted(cut, config=TRADES, symbols=("ESZ4", "NQ"), at=201)
    assert told.reasons("hole") == []
    whole = [*replay(203), completed(203.1), bar_of_trades(203)]
    told = scripted(whole, config=TRADES, symbols=("ESZ4", "NQ"), at=203)
    assert told.consumed("NQ") == list(range(200))


def test_without_replay_history_is_asked_before_the_break_closes_the_session(
    scripted: Callable[..., Told],
) -> None:
    lives = [bar_and_end for minute in range(405, 410) for bar_and_end in minutes(minute)]
    told = scripted(
        [mapping(minute=405), *lives, lost(410.3)],
        [mapping(minute=425), *(heartbeat(425 + n / 6) for n in range(1, 330)), *minutes(480)],
        at=405,
        replay_limit_h=0,
        past=Shelf(range(300, 420), 400, 425, 480),
    )
    assert [minute for minute in told.consumed() if 405 <= minute < 420] == list(range(405, 420))
    assert told.reasons("late") == []


class Down(Shelf):
    """History that does not answer, so many times."""

    def __init__(self, times: int, *ends: int) -> None:
        super().__init__(range(-2_000, 0), *ends)
        self.times = times
        self.calls = 0

    def available_end(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise HistoryUnavailable("down")
        return super().available_end()


@pytest.mark.parametrize("times", [1, 2])
def test_history_that_does_not_answer_at_first_is_asked_again(
    scripted: Callable[..., Told], times: int
) -> None:
    past = Down(times, 0)
    told = scripted([mapping(), *minutes(0)], past=past, backfill_days=1)
    assert past.calls == times + 1
    assert told.consumed()[-2:] == [-1, 0]
    assert told.bars()[-1][1] is True
    assert [text for text in told.reasons("alarm") if "history" in text] == [
        "history: down"
    ] * times


def test_without_history_the_gateways_replay_is_what_there_is_to_begin_with(
    scripted: Callable[..., Told],
) -> None:
    past = Down(3)
    replayed = again(0, [bar(minute) for minute in range(-60, 0)])
    told = scripted([mapping(), *replayed, completed(0.1), *minutes(0)], past=past, backfill_days=1)
    assert past.calls == 3
    assert told.opened[0][1] == 0
    assert [row[1] for row in told.bars()] == [False] * 59 + [True, True]
    assert "without the history" in told.reasons("alarm")[-1]


def test_connections_that_last_are_no_failed_attempts(scripted: Callable[..., Told]) -> None:
    first = [mapping(minute=FRIDAY), *minutes(FRIDAY), lost(FRIDAY + 10)]
    quiet = [
        [mapping(minute=at), completed(at + 0.1), *(heartbeat(at + n / 6) for n in range(1, 120))]
        for at in range(FRIDAY + 60, FRIDAY + 600, 60)
    ]
    told = scripted(first, *([*one, lost(one[-1][0] / MINUTE - NOON / MINUTE)] for one in quiet))
    assert told.reasons("alarm") == []


def test_a_close_of_which_only_the_end_was_not_said_is_no_hole(
    scripted: Callable[..., Told],
) -> None:
    last = [bar(minute) for minute in range(FRIDAY - 5, FRIDAY + 1)]
    beats = [heartbeat(FRIDAY + 1 + n / 6) for n in range(1, 30)]
    again_on_sunday = [
        mapping(minute=SUNDAY - 60),
        completed(SUNDAY - 59.9),
        *(heartbeat(SUNDAY - 60 + n / 6) for n in range(1, 360)),
        *minutes(SUNDAY, SUNDAY + 1),
    ]
    told = scripted(
        [mapping(minute=FRIDAY - 5), *last, *beats, lost(FRIDAY + 10)],
        [lost(FRIDAY + 1_000)],
        again_on_sunday,
        at=FRIDAY - 5,
    )
    assert told.reasons("hole") == []
    assert [row[1] for row in told.bars()][-2:] == [True, True]


def test_a_first_session_without_a_contract_says_so(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), *minutes(0, 1)], symbols=("ES",))
    assert [row[3] for row in told.bars()] == ["no_contract"] * 2
    assert len(told.reasons("no_contract")) == 1
    assert "bars of that session are kept aside" in told.reasons("no_contract")[0]


def test_a_contract_without_a_bar_in_a_session_is_told(scripted: Callable[..., Told]) -> None:
    # The month that was named is gone, or never was: its product goes on beside it.
    bars = [
        step for minute in range(LAST - 10, LAST + 1) for step in (bar(minute), end(minute + 1))
    ]
    told = scripted(
        [*both(LAST - 10), *bars, *minutes(LAST + 61)],
        symbols=("ESZ4", "NQZ4"),
        at=LAST - 10,
    )
    assert told.reasons("no_contract") == ["no bar of NQZ4 came in this session: check --symbol"]
