"""Records that come or are taken late, clocks that jump: no bar is lost, none is acted on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.test_feed_behaviours import (
    MINUTE,
    NOON,
    SECOND,
    Step,
    Told,
    again,
    bar,
    completed,
    end,
    heartbeat,
    mapping,
    minutes,
    moving,
    scripted,
)
from tests.live.test_trades import TRADES, bar_of_trades, trades

__all__ = ["scripted"]


def received(step: Step, minute: float) -> Step:
    """Return what was sent in time and came at a later minute: something stood still."""
    at, make = step
    late = NOON + round(minute * MINUTE)
    return late, lambda now: make(at)._replace(sent=at, received=now)


def waited(step: Step, minute: float) -> Step:
    """Return what came in time and is taken from the queue at a later minute."""
    at, make = step
    return NOON + round(minute * MINUTE), lambda _: make(at)


def clock_ahead(step: Step, by_s: float) -> Step:
    """Return what is sent in time and received by a clock that is ahead."""
    at, make = step
    ours = at + round(by_s * SECOND)
    return ours, lambda _: make(at)._replace(sent=at, received=ours)


def test_what_was_sent_while_the_machine_stood_still_is_consumed_and_not_acted_on(
    scripted: Callable[..., Told],
) -> None:
    missed = [
        received(step, 8)
        for minute in range(3, 7)
        for step in (heartbeat(minute + 0.5), bar(minute), end(minute + 1))
    ]
    told = scripted([mapping(), *minutes(0, 1, 2), *missed, bar(7, 5), end(8, 6), *minutes(8, 9)])
    assert told.consumed() == list(range(10))
    assert [row[1] for row in told.bars()] == [True] * 3 + [False] * 4 + [True] * 3
    assert told.reasons("late") == []


def test_a_line_that_stands_still_for_longer_than_the_grace_loses_no_bar(
    scripted: Callable[..., Told],
) -> None:
    late = [received(step, 4 + 16 / 60) for step in (bar(3), end(4))]
    told = scripted([mapping(), *minutes(0, 1, 2), heartbeat(3.9), *late, *minutes(4)])
    assert told.consumed() == list(range(5))
    assert told.bars()[3][1] is False


def test_a_replay_that_is_complete_late_misses_nothing_after_it(
    scripted: Callable[..., Told],
) -> None:
    first = [mapping(), *minutes(0), (NOON + 2 * MINUTE, bar(1)[1])]
    told = scripted(first, at=0)
    behind = [received(step, 9) for step in (completed(3.1), *minutes(3, 4))]
    again_from = [mapping(minute=3), *again(3, [bar(1), bar(2)]), *behind, *minutes(9)]
    told = scripted(again_from, at=3)
    assert told.reasons("hole") == []
    assert told.consumed() == [0, 1, 2, 3, 4, 9]


def test_a_clock_of_ours_that_jumps_ahead_loses_no_bar(scripted: Callable[..., Told]) -> None:
    jumped = [clock_ahead(step, 60) for step in (heartbeat(3.5), *minutes(3, 4, 5))]
    told = scripted([mapping(), *minutes(0, 1, 2), *jumped])
    assert told.consumed() == list(range(6))


def test_a_clock_of_ours_that_jumps_back_costs_a_connection_and_no_bar(
    scripted: Callable[..., Told],
) -> None:
    def back(*steps: Step) -> list[Step]:
        return [clock_ahead(step, -8) for step in steps]

    told = scripted(
        [mapping(), *minutes(0, 1, 2), *back(*minutes(3, 4))],
        back(mapping(minute=4.1), *again(4.1, [bar(2), bar(3)]), completed(4.1), *minutes(4, 5)),
    )
    assert told.reasons("lost") == ["our clock says of a bar that it is not over"]
    assert told.consumed() == list(range(6))


def test_bars_that_waited_in_the_queue_are_not_acted_on(scripted: Callable[..., Told]) -> None:
    steps = [mapping(), *[s for m in range(40) for s in (moving(m), end(m + 1))]]
    steps += [waited(s, 45) for m in range(40, 44) for s in (moving(m), end(m + 1))]
    told = scripted([*steps, moving(45), end(46)])
    acted = {minute: actionable for minute, actionable, _, _ in told.bars()}
    assert not any(acted[minute] for minute in range(40, 44))
    assert acted[39]
    assert acted[45]


@pytest.mark.parametrize("late", ["miss", "act"])
def test_bars_that_waited_for_their_trades_are_as_old_as_they_then_are(
    scripted: Callable[..., Told], late: str
) -> None:
    first = [mapping(), trades(0), bar_of_trades(0), end(1)]
    scripted(first, config=TRADES, late=late)
    # The bars' replay is through at once; that of the trades takes five minutes more.
    replayed = again(30, [mapping(), *map(bar_of_trades, range(30)), completed(30.1)])
    present = [s for m in range(30, 35) for s in (bar_of_trades(m), end(m + 1, 0.3))]
    behind = again(35.5, [*map(trades, range(35)), completed(35.5)])
    after = [trades(35), bar_of_trades(35), end(36, 0.3)]
    told = scripted([*replayed, *present, *behind, *after], config=TRADES, late=late, at=30)
    acted = [minute for minute, actionable, _, _ in told.bars() if actionable]
    assert acted == ([0, 35] if late == "miss" else [0, *range(1, 36)])
    assert told.consumed() == list(range(36))
    assert told.reasons("trades_differ") == []


def test_a_replay_of_nothing_may_end_without_a_word(scripted: Callable[..., Told]) -> None:
    scripted([mapping(), trades(0), bar_of_trades(0), end(1)], config=TRADES)
    present = [s for m in range(1, 20) for s in (trades(m), bar_of_trades(m), end(m + 1, 0.3))]
    told = scripted([mapping(minute=1), bar_of_trades(0), *present], config=TRADES, at=1)
    # The newest waits for the trade that shows that its own have come.
    assert told.consumed()[:18] == list(range(18))
    assert told.states()[-2:] == ["LIVE", "STOPPED"]


def test_bars_that_wait_long_for_their_trades_are_an_alarm(scripted: Callable[..., Told]) -> None:
    scripted([mapping(), trades(0), bar_of_trades(0), end(1)], config=TRADES)
    present = [s for m in range(1, 20) for s in (bar_of_trades(m), end(m + 1, 0.3))]
    told = scripted([mapping(minute=1), bar_of_trades(0), *present], config=TRADES, at=1)
    assert told.consumed() == [0]
    assert [text for text in told.reasons("alarm") if "waited for their trades" in text] == [
        "bars have waited for their trades for minutes: their replay does not end"
    ]
