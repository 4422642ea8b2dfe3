"""What the feed must do about the vendor's client and wire, one behaviour after the other.

Most are told to the feed by a connection that says what the script says, on a clock that the script
moves; the others run against the local gateway.
"""

from __future__ import annotations

import collections
import gc
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore.gateway import Fault, sample_parent_data
from clustercore.gateway.historical import HistoricalFault, HistoricalServer
from clustercore.live import feed as feed_module
from clustercore.live import messages as msg
from clustercore.live.clock import MarketClock
from clustercore.live.key import Key
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.vendor import import_databento
from clustercore.sessions import load_sessions
from clustercore.store import FeedEvent, Store
from tests.live.harness import (
    ACTIVE,
    assert_parity,
    consumed,
    derived,
    front,
    live,
    months,
    part,
    stored,
)

MINUTE = 60 * 10**9
SECOND = 10**9
# 2024-12-10 15:00 UTC, in the middle of a session.
NOON = 1_733_842_800 * SECOND
OPEN_S = 0.2
NUMBER = 7


class Clock:
    """A clock that the script moves, with no machine behind it."""

    longest_wait_s = 1e9

    def __init__(self, minute: float = 0) -> None:
        self.at = NOON + round(minute * MINUTE)
        self.waits: list[float] = []

    def now(self) -> int:
        return self.at

    def arrival(self, sent: int, received: int) -> int:
        del sent
        return received

    def taken(self, arrival: int) -> int:
        return max(arrival, self.at)

    def stamp(self) -> int:
        return self.at

    def since(self, stamp: int) -> float:
        return (self.at - stamp) / SECOND

    def wait(self, wake: threading.Event, seconds: float) -> bool:
        del wake
        self.waits.append(seconds)
        self.at += round(seconds * SECOND)
        return False


Step = tuple[int, Any]
Session = Sequence[Step]


class Scripted:
    """A connection that brings what the script says, each at its time, and then is silent."""

    clock: ClassVar[Clock]
    sessions: ClassVar[list[Session]]
    opened: ClassVar[list[tuple[int, int | None]]]
    runner: ClassVar[LiveRunner]
    backlog = 0

    def __init__(self, key: Key, settings: LiveSettings, subscriptions: Any, capture: Any) -> None:
        del key, settings, capture
        self.opened.append((self.clock.at, subscriptions[0].start))
        self.steps = list(self.sessions.pop(0)) if self.sessions else []
        self.started = threading.Event()
        self.waiting = self.depth = self.backlog

    def open(self) -> None:
        self.started.set()

    def take(self, timeout: float) -> list[msg.Message]:
        del timeout
        if not self.steps:
            if not self.sessions:
                self.runner.stop()
            self.clock.at += SECOND
            return []
        at, make = self.steps.pop(0)
        self.clock.at = max(self.clock.at, at)
        return [make(at)]

    def close(self) -> bool:
        return True


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Return a function that runs live on what scripted connections say.

    Called again it is the process started again: on the same database, at a later minute.
    """

    def run(
        *sessions: Session,
        symbols: Sequence[str] = ("ESZ4",),
        past: Any = None,
        config: cc.Config = ACTIVE,
        at: float = 0,
        **settings: Any,
    ) -> Told:
        clock = Clock(at)
        runner = LiveRunner(
            config,
            symbols,
            database=tmp_path / "live.duckdb",
            settings=LiveSettings(historical="none", raw_days=0, **settings),
            key=Key("db-" + "AbCdEfGhIjKlMnOpQrStUvWxYz012"),
            past=past,
        )
        runner.clock = clock
        told = Told(runner, clock)
        runner.on_note = told.notes.append
        monkeypatch.setattr(feed_module, "Connection", Scripted)
        Scripted.clock, Scripted.sessions = clock, list(sessions)
        Scripted.opened, Scripted.runner = told.opened, runner
        told.code = runner.run()
        return told

    return run


class Told:
    """What came of a script."""

    def __init__(self, runner: LiveRunner, clock: Clock) -> None:
        self.runner = runner
        self.clock = clock
        self.code = -1
        self.notes: list[FeedEvent] = []
        self.opened: list[tuple[int, int | None]] = []

    def reasons(self, kind: str) -> list[str]:
        return [note.reason for note in self.notes if note.kind == kind]

    def states(self) -> list[str]:
        return [str(note.detail["state"]) for note in self.notes if note.kind == "state"]

    def rows(self, root: str = "ES") -> pl.DataFrame:
        with Store.open(self.runner.database, create=False, read_only=True) as store:
            return store.inputs(root)

    def bars(self, root: str = "ES") -> list[tuple[int, bool, bool, str]]:
        """Return minute, actionable, consumed and reason of every bar."""
        rows = self.rows(root).filter(pl.col("kind") == "bar")
        minutes = ((rows["ts"].to_physical() - NOON) // MINUTE).to_list()
        columns = rows.select("actionable", "consumed", "reason").iter_rows()
        return [(minute, *row) for minute, row in zip(minutes, columns, strict=True)]

    def consumed(self, root: str = "ES") -> list[int]:
        """Return the minutes of the bars that the engine took."""
        return [minute for minute, _, is_consumed, _ in self.bars(root) if is_consumed]

    def closings(self) -> list[tuple[int, str]]:
        rows = self.rows().filter(pl.col("kind") == "closed")
        minutes = ((rows["ts"].to_physical() - NOON) // MINUTE).to_list()
        return list(zip(minutes, rows["reason"].to_list(), strict=True))


def bar(minute: int, delay_s: float = OPEN_S, *, number: int = NUMBER, volume: int = 100) -> Step:
    """Return a bar of a minute after noon, so long after its end."""
    start = NOON + minute * MINUTE
    price = 6_000 * SECOND
    at = start + MINUTE + round(delay_s * SECOND)
    return at, lambda now: msg.MarketBar(
        number, start, price, price, price, price, volume, now, now
    )


# In ticks, far enough to both sides of noon for a few days.
_WALK = [0, *accumulate(random.Random(1).choices(range(-8, 9), k=30_000))]


def moving(
    minute: int,
    delay_s: float = OPEN_S,
    *,
    number: int = NUMBER,
    level: float = 6_000,
    volume: int | None = None,
) -> Step:
    """Return a bar of a market that moves: its numbers follow from the minute, also said again."""
    start = NOON + minute * MINUTE
    tick, base = SECOND // 4, round(level * SECOND)
    opened, close = (base + tick * _WALK[minute + place] for place in (5_000, 5_001))
    high, low = max(opened, close) + 2 * tick, min(opened, close) - 2 * tick
    size = 50 + minute * 7_919 % 350 if volume is None else volume
    at = start + MINUTE + round(delay_s * SECOND)
    return at, lambda now: msg.MarketBar(number, start, opened, high, low, close, size, now, now)


def again(minute: float, steps: Iterable[Step]) -> list[Step]:
    """Return what was said before, said again at a minute after noon: a replay."""
    return [(max(at, NOON + round(minute * MINUTE)), make) for at, make in steps]


def rows_of(steps: Iterable[Step], symbol: str = "ESZ4") -> pl.DataFrame:
    """Return scripted bars as history returns them."""
    bars = [make(at) for at, make in steps]
    return pl.DataFrame(
        [
            (one.ts_event, one.open, one.high, one.low, one.close, one.volume, symbol)
            for one in bars
        ],
        schema=["ts_event", "open", "high", "low", "close", "volume", "symbol"],
        orient="row",
    )


def end(minute: int, delay_s: float = OPEN_S) -> Step:
    """Return the closing of the interval that ends at a minute after noon."""
    until = NOON + minute * MINUTE
    return until + round(delay_s * SECOND), lambda now: msg.EndOfInterval(until, now, now)


def minutes(*numbers: int) -> list[Step]:
    """Return minutes whole: the bar of each, and its end."""
    return [step for number in numbers for step in (bar(number), end(number + 1))]


def says(minute: float, make: Callable[[int], Any]) -> Step:
    """Return anything else, at a minute after noon."""
    return NOON + round(minute * MINUTE), make


def mapping(symbol: str = "ESZ4", *, number: int = NUMBER, minute: float = 0) -> Step:
    """Return a mapping of a number to a symbol."""
    return says(minute, lambda now: msg.Mapping(number, symbol, now, now))


def lost(minute: float, reason: str = "the gateway closed the connection", **kind: bool) -> Step:
    """Return the end of a connection."""
    return says(minute, lambda _: msg.Lost(reason, **kind))


def heartbeat(minute: float) -> Step:
    """Return a sign of life."""
    return says(minute, lambda now: msg.SignOfLife("Heartbeat", now, now))


def completed(minute: float) -> Step:
    """Return the end of a replay."""
    return says(minute, lambda now: msg.ReplayCompleted("Finished", now, now))


def error(code: int, text: str, minute: float = 0) -> Step:
    """Return an error of the gateway."""
    return says(minute, lambda now: msg.GatewayError(code, text, now, now))


# 1 and 2: our own reconnect, after any end.


def test_1_every_connection_is_a_new_one_that_asks_for_its_own_replay(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=2), 21, 25)
    run = live(data, tmp_path, config=ACTIVE, faults=[Fault("fin", after_bars=300, times=2)])
    starts = [connection.subscriptions[0].start for connection in run.connections]
    assert starts[0] is None
    # The client's own reconnect would have dropped the start.
    assert len(starts) >= 3
    assert all(start is not None for start in starts[1:])
    assert all(connection.client.startswith("Databento") for connection in run.connections)
    assert run.sockets_open == 0


@pytest.mark.parametrize(
    "reason", ["the gateway closed the connection", "PanicException: malformed", "anything"]
)
def test_2_every_end_that_was_not_asked_for_is_a_loss(
    scripted: Callable[..., Told], reason: str
) -> None:
    told = scripted([mapping(), bar(0), lost(1.5, reason)], [mapping(), bar(0), bar(1)])
    assert told.reasons("lost") == [reason]
    assert told.bars() == [(0, True, True, ""), (1, True, True, "")]


# 3: waiting.


def test_3_the_first_retry_is_at_once_and_then_ever_later(scripted: Callable[..., Told]) -> None:
    told = scripted(*([lost(0)] for _ in range(12)))
    gaps = [
        (after[0] - before[0]) / SECOND
        for before, after in zip(told.opened, told.opened[1:], strict=False)
    ]
    assert min(gaps) >= 1
    assert gaps[0] == 1
    assert max(gaps) <= 60
    # Each wait is drawn between half of the longest of its turn and all of it.
    longest = [min(60.0, 2.0 ** (place - 1)) for place in range(1, len(gaps))]
    assert all(
        most / 2 <= gap <= max(1.0, most) for most, gap in zip(longest, gaps[1:], strict=True)
    )
    assert min(gaps[-3:]) >= 30
    # Jitter: not everybody comes back in the same second.
    assert len(set(gaps[-3:])) == 3


def test_3_data_ends_the_waiting(scripted: Callable[..., Told]) -> None:
    told = scripted(
        *([lost(0)] for _ in range(8)),
        [mapping(minute=9), bar(9), bar(10), lost(11.5)],
        [],
    )
    assert (told.opened[-1][0] - NOON) / SECOND < 11.5 * 60 + 2


def test_3_many_failures_are_an_alarm(scripted: Callable[..., Told]) -> None:
    told = scripted(*([lost(0)] for _ in range(6)))
    assert told.reasons("alarm") == ["5 attempts to connect failed"]


@pytest.mark.parametrize("code", [1, 2, 5])
def test_3_what_will_be_refused_again_ends_the_run(
    scripted: Callable[..., Told], code: int
) -> None:
    told = scripted([error(code, "no such thing")], [])
    assert told.code == 1
    assert told.states()[-1] == "FATAL"
    assert "no such thing" in told.runner.status.reason
    assert len(told.opened) == 1


def test_3_a_connection_limit_is_asked_again_slowly(scripted: Callable[..., Told]) -> None:
    told = scripted([error(3, "User has reached their open connection limit")], [])
    assert told.code == 0
    assert (told.opened[1][0] - told.opened[0][0]) / SECOND >= 15


# 4: the watchdog.


def test_4_silence_ends_a_connection_from_its_start(scripted: Callable[..., Told]) -> None:
    told = scripted([], [])
    assert told.reasons("lost") == ["silent for more than 17 s"]
    assert 17 < (told.opened[1][0] - told.opened[0][0]) / SECOND < 20


def test_4_silence_ends_a_connection_later_too(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0)], [mapping(), bar(0), bar(1)])
    assert told.reasons("lost") == ["silent for more than 17 s"]


def test_4_heartbeats_without_bars_are_not_enough(scripted: Callable[..., Told]) -> None:
    beats = [heartbeat(1 + place / 6) for place in range(1, 12)]
    told = scripted([mapping(), bar(0), end(1), *beats, bar(2), end(3), bar(3), end(4)])
    assert told.states()[:4] == ["CONNECTING", "CATCHING_UP", "LIVE", "DEGRADED"]
    # Not the first after the silence; the next, when an interval has closed.
    assert told.bars() == [(0, True, True, ""), (2, False, True, ""), (3, True, True, "")]
    assert told.states()[4] == "LIVE"


def test_4_the_daily_break_is_no_alarm(scripted: Callable[..., Told]) -> None:
    # 21:59, the last minute before the break; the next session opens at 23:00.
    last = 6 * 60 + 59
    beats = [heartbeat(last + 1 + place / 6) for place in range(1, 300)]
    told = scripted([mapping(minute=last), bar(last), end(last + 1), *beats, bar(last + 62)])
    assert "DEGRADED" not in told.states()
    assert told.bars()[-1] == (last + 62, True, True, "")


def test_4_clocks_that_differ_forbid_acting(scripted: Callable[..., Told]) -> None:
    def stamped(minute: int, skew_s: float) -> Step:
        at, make = bar(minute)
        return at, lambda now: make(now)._replace(sent=now - round(skew_s * SECOND))

    told = scripted([mapping(), bar(0), stamped(1, -8), stamped(2, 8), bar(3), bar(4), end(5)])
    actionable = [row[1] for row in told.bars()]
    assert actionable == [True, False, False, True, True]
    degraded = [n.reason for n in told.notes if n.detail.get("state") == "DEGRADED"]
    assert "differ by -8.0 s" in degraded[0]


def sent_ahead(step: Step, ahead_s: float) -> Step:
    """Return what the gateway says it sent so long after it came."""
    at, make = step
    return at, lambda now: make(now)._replace(sent=now + round(ahead_s * SECOND))


@pytest.mark.parametrize("wrong", [bar(2), end(3), heartbeat(3.3)], ids=["bar", "end", "heartbeat"])
def test_4_one_record_with_a_wrong_time_of_sending_closes_nothing(
    scripted: Callable[..., Told], wrong: Step
) -> None:
    others = [step for minute in range(3, 70) for step in (bar(minute), end(minute + 1, 0.3))]
    told = scripted([mapping(), bar(0), end(1), bar(1), end(2), sent_ahead(wrong, 3_600), *others])
    assert {reason for _, _, _, reason in told.bars()} == {""}
    assert told.reasons("late") == []
    # Each interval is closed by its own end.
    closed = [closing for closing in told.closings() if closing[0] > 3]
    assert closed == [(minute, "eoi") for minute in range(4, 71)]
    assert [row[1] for row in told.bars()][-60:] == [True] * 60


def test_4_a_clock_of_ours_that_is_always_wrong_gives_way_to_the_gateways(
    scripted: Callable[..., Told],
) -> None:
    # Ours is an hour slow; the gateway says so with every record.
    market = [heartbeat(0.1), heartbeat(0.2), *(bar(minute) for minute in range(5)), heartbeat(5.3)]
    slow = [(at - 60 * MINUTE, sent_ahead((at, make), 3_600)[1]) for at, make in market]
    told = scripted([mapping(minute=-60), *slow], at=-60)
    assert told.bars() == [(minute, False, True, "") for minute in range(5)]
    # By our own clock none of them were over yet.
    assert told.closings()[-1] == (5, "grace")
    degraded = [n.reason for n in told.notes if n.detail.get("state") == "DEGRADED"]
    assert degraded == ["our clock and the gateway's differ by -3600.0 s"]


# 5: gaps.


class Shelf:
    """History with given bars."""

    def __init__(self, minutes: Sequence[int], *ends: int) -> None:
        self.minutes = minutes
        # How far it reaches: first when the process starts, then when it is asked again.
        self.ends = list(ends)
        self.asked: list[tuple[int, int]] = []

    def available_end(self) -> int:
        return NOON + self.ends.pop(0) * MINUTE

    def bars(self, start: int, until: int) -> pl.DataFrame:
        self.asked.append(((start - NOON) // MINUTE, (until - NOON) // MINUTE))
        times = [NOON + minute * MINUTE for minute in self.minutes]
        price = [6_000 * SECOND] * len(times)
        return pl.DataFrame(
            {
                "ts_event": times,
                "open": price,
                "high": price,
                "low": price,
                "close": price,
                "volume": [100] * len(times),
                "symbol": ["ESZ4"] * len(times),
            }
        ).filter(pl.col("ts_event").is_between(start, until, closed="left"))


def test_5_a_replay_begins_at_a_known_bar(scripted: Callable[..., Told]) -> None:
    told = scripted(
        [mapping(), bar(0), end(1), bar(1), lost(2.2)],
        [mapping(minute=2.2), bar(1), bar(2), end(3)],
    )
    # One interval before the last one known to be closed.
    assert [start for _, start in told.opened[:2]] == [None, NOON]
    assert told.reasons("resumed") == ["nothing is missing"]
    assert told.runner.status.counts["duplicates"] == 1


def test_5_what_is_replayed_late_is_not_acted_on(scripted: Callable[..., Told]) -> None:
    late = [(NOON + 10 * MINUTE, bar(minute)[1]) for minute in range(9)]
    told = scripted(
        [mapping(), bar(0), lost(1.5)],
        [mapping(minute=10), *late, bar(9), completed(10.1), bar(10)],
    )
    assert [row[1] for row in told.bars()] == [True, *[False] * 8, True, True]
    assert told.reasons("hole") == []


def test_5_what_the_replay_lacks_comes_from_history(scripted: Callable[..., Told]) -> None:
    shelf = Shelf(range(8), 0, 8)
    told = scripted(
        [mapping(), bar(0), end(1), lost(1.5)],
        # It does not reach back.
        [mapping(minute=9), bar(8)],
        [mapping(minute=9), (NOON + 9 * MINUTE, bar(7)[1]), bar(8), bar(9)],
        past=shelf,
    )
    assert [row[0] for row in told.bars()] == list(range(10))
    assert told.reasons("hole") == []
    assert shelf.asked[-1] == (0, 8)
    origins = told.rows().filter(pl.col("kind") == "bar")["origin"].to_list()
    assert origins[1:8] == ["historical"] * 7


def test_5_a_replay_that_is_refused_is_asked_of_history(scripted: Callable[..., Told]) -> None:
    told = scripted(
        [mapping(), bar(0), end(1), lost(1.5)],
        [error(8, "too old", minute=9)],
        [mapping(minute=9), bar(8), bar(9)],
        past=Shelf(range(8), 0, 8),
    )
    assert [row[0] for row in told.bars()] == list(range(10))


def test_5_what_nobody_has_is_a_hole(scripted: Callable[..., Told]) -> None:
    told = scripted(
        [mapping(), bar(0), end(1), bar(1), end(2), lost(2.5)],
        [mapping(minute=9), bar(8), end(9), bar(9), end(10), bar(10)],
    )
    holes = [(n.start, n.end) for n in told.notes if n.kind == "hole"]
    assert holes == [(NOON + 2 * MINUTE, NOON + 8 * MINUTE)]
    # Not the bar after the hole; the next, when an interval has closed.
    assert told.bars()[2:] == [(8, False, True, ""), (9, True, True, ""), (10, True, True, "")]
    assert (8, "hole") in told.closings()
    assert told.states()[-2:] == ["LIVE", "STOPPED"]
    assert "DEGRADED" in told.states()


def test_5_a_hole_does_not_make_the_rest_of_a_replay_late(scripted: Callable[..., Told]) -> None:
    late = [(NOON + 60 * MINUTE, bar(minute)[1]) for minute in range(20, 59)]
    told = scripted(
        [mapping(), bar(0), lost(1.5)], [mapping(minute=60), *late, bar(59), completed(60.1)]
    )
    assert len(told.reasons("hole")) == 1
    assert told.reasons("late") == []
    assert [row[2] for row in told.bars()] == [True] * 41


def test_5_a_replay_after_the_close_is_not_late(scripted: Callable[..., Told]) -> None:
    # Lost an hour before the close, and back when the market has closed.
    first = 6 * 60
    now = NOON + (first + 90) * MINUTE
    replayed = [(now, bar(minute)[1]) for minute in range(first, first + 60)]
    told = scripted(
        [mapping(minute=first), bar(first), lost(first + 1.5)],
        [
            heartbeat(first + 90),
            mapping(minute=first + 90),
            *replayed,
            completed(first + 90.1),
            heartbeat(first + 90.3),
        ],
    )
    assert told.reasons("late") == []
    assert len(told.bars()) == 60
    assert told.closings()[-1] == (first + 60, "session")


class Moody:
    """History that fails while it is told to, and has every minute up to one."""

    def __init__(self, until: int, *, lacks: tuple[int, int] = (0, 0)) -> None:
        self.until = until
        self.fails = False
        self.asked: list[tuple[int, int]] = []
        self.frame = rows_of(
            moving(minute) for minute in range(-60, 400) if not lacks[0] <= minute < lacks[1]
        )

    def available_end(self) -> int:
        if self.fails:
            raise cc.ClusterCoreError("the historical server fails")
        return NOON + self.until * MINUTE

    def bars(self, start: int, until: int) -> pl.DataFrame:
        self.asked.append(((start - NOON) // MINUTE, (until - NOON) // MINUTE))
        return self.frame.filter(pl.col("ts_event").is_between(start, until, closed="left"))


def doing(minute: float, act: Callable[[], object]) -> Step:
    """Return a sign of life at which something happens on our side."""

    def make(now: int) -> msg.SignOfLife:
        act()
        return msg.SignOfLife("Heartbeat", now, now)

    return says(minute, make)


def test_5_after_a_hole_the_next_gap_asks_history_again(scripted: Callable[..., Told]) -> None:
    past = Moody(0)

    def fails() -> None:
        past.fails = True

    def is_well() -> None:
        past.fails, past.until = False, 200

    replay_that_lacks = [mapping(minute=9), moving(8)]
    told = scripted(
        [mapping(), moving(0), end(1), doing(1.1, fails), lost(1.5)],
        *([replay_that_lacks] * 3),
        [*replay_that_lacks, moving(9), end(10), moving(10), doing(11.5, is_well), lost(11.6)],
        [mapping(minute=200), moving(199)],
        [mapping(minute=200), moving(199), moving(200), end(201)],
        past=past,
    )
    holes = [(note.start, note.end) for note in told.notes if note.kind == "hole"]
    assert holes == [(NOON + MINUTE, NOON + 8 * MINUTE)]
    assert len(told.reasons("alarm")) == 3
    assert past.asked[-1] == (9, 200)
    assert [row[0] for row in told.bars() if row[0] >= 0] == [0, *range(8, 201)]


def test_5_history_is_believed_up_to_its_last_bar_where_it_ends_early(
    scripted: Callable[..., Told],
) -> None:
    scripted([mapping(), moving(0), end(1)], past=Moody(0))
    # It says that it reaches to minute 350, and has nothing of the last two and a half hours.
    told = scripted(
        [
            mapping(minute=360),
            *again(360, (moving(minute) for minute in range(246, 360))),
            completed(360.1),
            moving(360),
        ],
        past=Moody(350, lacks=(200, 350)),
        at=360,
        replay_limit_h=2,
    )
    holes = [(note.start, note.end) for note in told.notes if note.kind == "hole"]
    assert holes == [(NOON + 200 * MINUTE, NOON + 246 * MINUTE)]
    taken = [minute for minute, _, consumed, _ in told.bars() if consumed and minute >= 0]
    assert taken == [*range(200), *range(246, 361)]


def test_5_history_without_trades_in_its_last_minutes_is_whole(
    scripted: Callable[..., Told],
) -> None:
    scripted([mapping(), moving(0), end(1)], past=Moody(0))
    told = scripted(
        [
            mapping(minute=360),
            *again(360, (moving(minute) for minute in range(350, 360))),
            completed(360.1),
        ],
        past=Moody(350, lacks=(300, 350)),
        at=360,
        replay_limit_h=0.25,
    )
    assert told.reasons("hole") == []
    assert told.reasons("resumed") == ["nothing is missing"]


@pytest.mark.parametrize(("limit_h", "asks"), [(0, False), (0.05, True), (1, True)])
def test_5_no_replay_is_asked_for_from_the_future_and_none_where_there_is_none(
    scripted: Callable[..., Told], limit_h: float, asks: bool
) -> None:
    told = scripted(
        [mapping(), bar(0), end(1), bar(1), lost(120)],
        [mapping(minute=120.1), bar(120)],
        replay_limit_h=limit_h,
    )
    (_, first), (opened, second), *_ = told.opened
    assert first is None
    assert (second is not None) == asks
    if second is not None:
        assert opened - limit_h * 60 * MINUTE <= second <= opened


@pytest.mark.parametrize(
    ("trouble", "acts"), [(None, True), ("quiet", True), ("log", False), ("disk", False)]
)
def test_5_late_bars_of_history_are_acted_on_unless_something_forbids_it(
    scripted: Callable[..., Told], trouble: str | None, acts: bool
) -> None:
    past = Moody(0)
    told_of: list[LiveRunner] = []

    def happens() -> None:
        past.until = 90
        if trouble is not None:
            assert Scripted.runner._feed is not None
            Scripted.runner._feed.state.trouble(trouble, "it is so")
        told_of.append(Scripted.runner)

    told = scripted(
        [mapping(), *map(moving, range(20)), end(20), doing(20.2, happens), lost(20.5)],
        [mapping(minute=91), moving(91)],
        [mapping(minute=91), *again(91, map(moving, (89, 90))), moving(91)],
        past=past,
        late="act",
        backfill_days=1,
    )
    assert told_of
    from_history = told.rows().filter(kind="bar", origin="historical")
    assert from_history.height == 70
    assert set(from_history["actionable"].to_list()) == {acts}
    decided = derived(told.runner.database, "orders")["confirmed_time"].to_physical()
    later = [time for time in decided if time > NOON + 21 * MINUTE]
    assert bool(later) == acts


def test_5_a_position_keeps_its_exit_through_a_hole(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=2), 21, 27)
    entry = cc.backtest(cc.read_bars(_file(data, tmp_path)), ACTIVE).trades.row(3, named=True)
    begin = int(entry["entry_time"].timestamp()) * SECOND
    run = live(
        data,
        tmp_path,
        config=ACTIVE,
        faults=[Fault("fin", at=begin + 61 * SECOND, outage_s=1800)],
        # The gateway keeps a quarter of an hour, and nobody asks for more.
        replay_limit_s=900,
        settings={"replay_limit_h": 0.26},
    )
    assert len([note for note in run.notes if note.kind == "hole"]) == 1
    trade = derived(run.database, "trades").row(3, named=True)
    assert trade["entry_time"] == entry["entry_time"]
    held = int((trade["exit_time"] - trade["entry_time"]).total_seconds() // 60)
    assert trade["exit_reason"] != "open"
    assert held >= 1
    assert_parity(run.database)


def _file(data: Any, folder: Path) -> Path:
    front(data, folder)
    return folder / "market.dbn.zst"


# 6: twice, and otherwise.


def test_6_the_same_bar_twice_is_one(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), bar(0, 0.3), bar(1), bar(0, 61)])
    assert [row[0] for row in told.bars()] == [0, 1]
    assert told.runner.status.counts["duplicates"] == 2


def test_6_another_bar_of_the_same_minute_is_kept_beside_the_first(
    scripted: Callable[..., Told],
) -> None:
    told = scripted([mapping(), bar(0), bar(0, 0.3, volume=101), bar(1)])
    assert told.bars() == [
        (0, True, True, ""),
        (0, False, False, "conflict"),
        (1, True, True, ""),
    ]
    (note,) = [note for note in told.notes if note.kind == "conflict"]
    assert (note.detail["first"][-1], note.detail["second"][-1]) == (100, 101)


def test_6_a_corrected_bar_is_kept_and_said_once_however_often_it_comes(
    scripted: Callable[..., Told],
) -> None:
    def corrected(minute: float) -> list[Step]:
        return again(minute, [bar(1), bar(1, volume=101)])

    told = scripted(
        [mapping(), bar(0), bar(1), bar(1, 0.4, volume=101), end(2), lost(2.4)],
        [mapping(minute=2.5), *corrected(2.5), bar(2), end(3), lost(3.4)],
        [mapping(minute=3.5), *corrected(3.5), bar(3), end(4)],
    )
    assert len(told.reasons("conflict")) == 1
    # Neither does another start forget.
    second = scripted([mapping(minute=5), *corrected(5), bar(4), bar(5)], at=5)
    assert second.reasons("conflict") == []
    assert [row for row in second.bars() if row[0] == 1] == [
        (1, True, True, ""),
        (1, False, False, "conflict"),
    ]
    # Another correction is another word.
    third = scripted([mapping(minute=6), *again(6, [bar(1, volume=102)]), bar(6)], at=6)
    assert third.reasons("conflict") == ["ESZ4 came twice with other numbers; the first stays"]


def test_6_an_older_bar_is_stored_and_not_traded_on(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), bar(2), bar(1, 61), bar(3)])
    assert told.bars()[2] == (1, False, False, "late")
    assert told.bars()[3] == (3, True, True, "")


# 7: when an interval ends.


def test_7_a_minute_without_a_bar_is_normal(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), end(1), end(2), end(3), bar(3), end(4)])
    assert told.closings() == [(1, "eoi"), (2, "eoi"), (3, "eoi"), (4, "eoi")]
    assert told.bars() == [(0, True, True, ""), (3, True, True, "")]
    assert "DEGRADED" not in told.states()


def test_7_an_interval_closes_without_its_end_being_said(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), heartbeat(1.2), heartbeat(1.3), bar(1), heartbeat(2.3)])
    assert told.closings() == [(1, "grace"), (2, "grace")]
    # The bar of the minute was there, so nothing is wrong.
    assert told.bars() == [(0, True, True, ""), (1, True, True, "")]
    assert "DEGRADED" not in told.states()


def test_7_a_bar_after_its_interval_was_closed_is_not_consumed(
    scripted: Callable[..., Told],
) -> None:
    told = scripted([mapping(), bar(0), end(1), end(2), bar(1, 0.4), bar(2), end(3)])
    assert told.bars()[1] == (1, False, False, "late")
    assert told.reasons("late") == ["the interval was closed"]


def test_7_the_session_ends_by_itself(scripted: Callable[..., Told]) -> None:
    # Friday's last minute; nothing comes before Sunday, and no end is said.
    friday = 3 * 1440 + 6 * 60 + 59
    told = scripted(
        [mapping(minute=friday), bar(friday), *(heartbeat(friday + 1 + n / 6) for n in range(1, 6))]
    )
    assert told.closings() == [(friday + 1, "grace")]


def test_7_a_session_that_begins_without_a_bar_ends_the_one_before(
    scripted: Callable[..., Told],
) -> None:
    # The end of the last minute is never said, and the first of the next session has no trade.
    last = 6 * 60 + 59
    told = scripted([mapping(minute=last), bar(last), end(last + 62), bar(last + 62)])
    assert told.closings()[0] == (last + 1, "session")
    assert told.reasons("parity") == ["replay and store agree"]
    assert [row[2] for row in told.bars()] == [True, True]


# 8: who a number is.


def test_8_a_bar_without_a_symbol_waits_and_is_not_guessed(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), bar(0, number=8, volume=5), bar(1)])
    assert [row[0] for row in told.bars()] == [0, 1]
    assert told.reasons("unmapped") == ["1 bars of an instrument without a symbol"]


def test_8_a_mapping_that_comes_late_brings_its_bars(scripted: Callable[..., Told]) -> None:
    told = scripted([bar(0), mapping(minute=1.1), bar(1)])
    assert told.bars() == [(0, True, True, ""), (1, True, True, "")]
    assert told.reasons("unmapped") == []


def test_8_a_mapping_repeated_is_nothing_and_a_change_is_noted(
    scripted: Callable[..., Told],
) -> None:
    told = scripted([mapping(), mapping(), bar(0), mapping("ESH5", minute=1.5), bar(1)])
    assert told.reasons("mapping_changed") == ["ESZ4 is now ESH5"]
    # Another contract than the one asked for.
    assert [row[0] for row in told.bars()] == [0]


def test_8_numbers_hold_for_one_connection(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), lost(1.5)], [bar(0), bar(1)])
    assert [row[0] for row in told.bars()] == [0]
    assert told.reasons("unmapped") == ["2 bars of an instrument without a symbol"]


def test_8_an_instrument_that_is_never_mapped_costs_one_connection_and_no_bar(
    scripted: Callable[..., Told],
) -> None:
    def minutes(first: int, until: int) -> list[Step]:
        return [
            step
            for minute in range(first, until)
            for step in (bar(minute), bar(minute, 0.25, number=9), end(minute + 1, 0.5))
        ]

    told = scripted(
        [mapping(), *minutes(0, 5)],
        [mapping(minute=1.1), bar(0), *minutes(1, 240), lost(240.6)],
        [mapping(minute=240.7), bar(239), *minutes(240, 250)],
    )
    assert told.reasons("lost") == [
        "instrument 9 has bars and no symbol",
        "the gateway closed the connection",
    ]
    assert [row[1:] for row in told.bars()[1:]] == [(True, True, "")] * 249
    assert told.states()[-2:] == ["LIVE", "STOPPED"]
    # Whose bars they were may come out later.
    rows = [note.detail for note in told.notes if note.kind == "unmapped"]
    assert {row["instrument_id"] for row in rows} == {9}
    kept = [(one[1] - NOON) // MINUTE for row in rows for one in row["bars"]]
    assert kept == list(range(250))


def test_8_a_mapping_that_comes_late_ends_its_trouble_beside_a_number_that_is_never_mapped(
    scripted: Callable[..., Told],
) -> None:
    def minutes(first: int, until: int) -> list[Step]:
        return [
            step
            for minute in range(first, until)
            for step in (bar(minute), bar(minute, 0.25, number=9), end(minute + 1, 0.5))
        ]

    told = scripted(
        [mapping(), *minutes(0, 2)],
        [
            mapping(minute=1.1),
            bar(0),
            *minutes(1, 6),
            # One more number, a moment before its mapping.
            bar(6, 0.1, number=11),
            mapping("ESZ4-ESH5", number=11, minute=7.002),
            *minutes(6, 20),
        ],
    )
    assert told.states()[-2:] == ["LIVE", "STOPPED"]
    assert [row[1] for row in told.bars() if row[0] > 7] == [True] * 12


def test_8_spreads_are_no_contracts(scripted: Callable[..., Told]) -> None:
    told = scripted(
        [mapping(), mapping("ESZ4-ESH5", number=9), bar(0), bar(0, number=9), bar(1)],
        symbols=("ES",),
    )
    assert told.rows().filter(pl.col("kind") == "bar")["symbol"].unique().to_list() == ["ESZ4"]


# 9: the queue.


def test_9_a_queue_that_overflows_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Store.commit
    nobody = threading.Event()

    def slowly(self: Store, *rows: Any, **more: Any) -> None:
        nobody.wait(0.02)
        commit(self, *rows, **more)

    monkeypatch.setattr(Store, "commit", slowly)
    data = part(sample_parent_data(sessions=2), 12, 28)
    run = live(
        data,
        tmp_path,
        config=ACTIVE,
        settings={"queue_limit": 1_000, "queue_mark": 500, "late": "act"},
    )
    reasons = [note.reason for note in run.notes]
    assert "more than 1000 records waited" in reasons
    assert_frame_equal(stored(run.database), months(data))
    assert_frame_equal(consumed(run.database), front(data, tmp_path))
    assert_parity(run.database)


def test_9_a_queue_above_its_mark_is_an_alarm(
    scripted: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "backlog", 200)
    told = scripted([mapping(), bar(0), bar(1)], queue_mark=100)
    # Once for each connection.
    assert told.reasons("alarm") == ["records wait faster than they are taken"]
    assert told.runner.status.queue_mark == 200


def test_9_whatever_breaks_in_the_callback_is_a_loss_and_not_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clustercore.live.stream import Connection

    taken = Connection._received
    broken = iter([250])

    def fails(self: Connection, record: Any) -> None:
        self.__dict__.setdefault("count", 0)
        self.__dict__["count"] += 1
        if self.__dict__["count"] == 250 and next(broken, None):
            # What the vendor's decoder raises is no Exception.
            self._records = _Broken(self._records)
        taken(self, record)

    monkeypatch.setattr(Connection, "_received", fails)
    data = part(sample_parent_data(sessions=2), 21, 25)
    run = live(data, tmp_path, config=ACTIVE, settings={"late": "act"})
    assert any("the callback failed" in note.reason for note in run.notes)
    assert_frame_equal(stored(run.database), months(data))


class _Panic(BaseException):
    """As the decoder's panic: no Exception."""


class _Broken(collections.deque):  # type: ignore[type-arg]
    """A queue that takes nothing more; what is in it can be taken."""

    def append(self, item: object) -> None:
        raise _Panic(str(type(item)))


# 10 to 15.


def test_10_the_client_is_never_called_from_the_trading_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = import_databento().Live
    # Clients of other tests terminate where the collector finds them, on any thread.
    gc.collect()
    callers: dict[str, set[str]] = {}

    def watch(name: str) -> None:
        original = getattr(client, name)

        def called(self: Any, *args: Any, **named: Any) -> Any:
            callers.setdefault(name, set()).add(threading.current_thread().name)
            return original(self, *args, **named)

        monkeypatch.setattr(client, name, called)

    for name in ("subscribe", "start", "terminate", "block_for_close"):
        watch(name)
    live(part(sample_parent_data(sessions=2), 21, 23), tmp_path, config=ACTIVE)
    assert set(callers) == {"subscribe", "start", "terminate", "block_for_close"}
    assert {thread for threads in callers.values() for thread in threads} == {
        "clustercore-connection"
    }


def test_11_a_symbol_that_nobody_knows_ends_the_run(scripted: Callable[..., Told]) -> None:
    told = scripted([error(4, "Failed to resolve symbol: ESZ4")], [])
    assert told.code == 1
    assert told.runner.status.state == "FATAL"
    assert "no such symbol" in told.runner.status.reason


def test_11_one_of_two_symbols_that_nobody_knows_does_not(scripted: Callable[..., Told]) -> None:
    told = scripted(
        [mapping(), error(4, "Failed to resolve symbol: NQZ4"), bar(0), bar(1)],
        symbols=("ESZ4", "NQZ4"),
    )
    assert told.code == 0
    assert [row[0] for row in told.bars()] == [0, 1]
    assert "gateway error 4" in told.reasons("error")[0]


def test_11_a_symbol_is_not_mistaken_for_one_that_contains_it(
    scripted: Callable[..., Told],
) -> None:
    told = scripted(
        [mapping(), error(4, "Failed to resolve symbol: MES.FUT"), bar(0), bar(1)],
        symbols=("ES", "MES"),
    )
    assert told.code == 0
    assert told.states()[-2:] == ["LIVE", "STOPPED"]
    assert [row[0] for row in told.bars()] == [0, 1]


def test_11_a_run_ends_when_nobody_knows_any_of_its_symbols(scripted: Callable[..., Told]) -> None:
    told = scripted([error(4, "Failed to resolve symbols: ES.FUT, MES.FUT")], symbols=("ES", "MES"))
    assert told.code == 1
    assert told.runner.status.state == "FATAL"


def test_12_a_download_that_was_cut_short_fills_no_gap_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = part(sample_parent_data(sessions=2), 21, 27)
    place = data.span[0] + 4 * 3600 * SECOND
    clocks: list[MarketClock] = []

    def market() -> int:
        return max([data.span[0], *(clock.now() for clock in clocks)])

    def follow(runner: LiveRunner, _: FeedEvent) -> bool:
        assert isinstance(runner.clock, MarketClock)
        clocks[:] = [runner.clock]
        return False

    faults = [HistoricalFault("truncate", times=1)]
    with HistoricalServer(data, now=market, faults=faults) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        run = live(
            data,
            tmp_path,
            config=ACTIVE,
            faults=[Fault("fin", at=place, outage_s=1800)],
            replay_limit_s=900,
            history=server.url,
            stop_when=follow,
            settings={"replay_limit_h": 0.26, "late": "act"},
        )
    assert "hole" not in run.kinds()
    assert "history" in run.kinds()
    assert_frame_equal(stored(run.database), months(data))
    assert_frame_equal(consumed(run.database), front(data, tmp_path))
    assert_parity(run.database)


def test_13_the_clients_warnings_stay_its_own() -> None:
    before = list(warnings.filters)
    import_databento()
    assert warnings.filters == before


def test_14_the_raw_bytes_of_each_connection_are_kept(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=2), 21, 24)
    run = live(data, tmp_path, config=ACTIVE, faults=[Fault("fin", after_bars=250)])
    files = sorted((tmp_path / "raw").glob("*"))
    assert len(files) == len(run.connections)
    store = import_databento().DBNStore
    bars = [
        record.ts_event
        for file in files
        for record in store.from_bytes(file.read_bytes())
        if type(record).__name__ == "OHLCVMsg"
    ]
    assert set(bars) == set(data.frame["ts_event"].to_list())


def test_15_a_key_is_checked_before_it_is_used() -> None:
    with pytest.raises(cc.ConfigError, match="32 characters"):
        Key("db-too-short-but-no-word")
    assert "AbCd" not in repr(Key("db-" + "AbCdEfGhIjKlMnOpQrStUvWxYz012"))


# 16: the session table.


def test_16_bars_beyond_the_session_table_forbid_acting(scripted: Callable[..., Told]) -> None:
    sessions = load_sessions()
    last = (int(sessions.close_ns[-1]) - NOON) // MINUTE
    # The table ends before a weekend or a holiday; the market goes on after it.
    monday = last + 3 * 1440
    told = scripted(
        [
            mapping("ESH9", minute=last - 5),
            *(bar(minute) for minute in range(last - 5, last)),
            end(last),
            *(bar(minute) for minute in range(monday, monday + 5)),
            heartbeat(monday + 5.3),
        ],
        symbols=("ESH9",),
        at=last - 5,
    )
    day = sessions.frame["trade_date"][-1]
    wrong = f"the session table ends with {day}: upgrade clustercore"
    assert told.runner._feed is not None
    assert told.runner._feed.state.troubles == {"calendar": wrong}
    degraded = [note.reason for note in told.notes if note.detail.get("state") == "DEGRADED"]
    assert degraded == [wrong]
    assert told.states()[-2:] == ["DEGRADED", "STOPPED"]
    assert [row[1:] for row in told.bars()] == [
        *[(True, True, "")] * 5,
        *[(False, False, "outside_session")] * 5,
    ]


@pytest.mark.parametrize(("in_break", "alarms"), [(13, 0), (14, 1), (40, 1)])
def test_16_many_bars_outside_every_session_are_one_alarm(
    scripted: Callable[..., Told], in_break: int, alarms: int
) -> None:
    # 21:59 is the last minute of a session, the next one opens at 23:00.
    last = 6 * 60 + 59
    told = scripted(
        [
            mapping(minute=last),
            bar(last),
            *(bar(last + minute) for minute in range(1, in_break + 1)),
            bar(last + 61),
            # The count begins again with each session.
            *(bar(last + 1440 + minute) for minute in range(1, 14)),
        ]
    )
    said = [reason for reason in told.reasons("alarm") if "compare the session table" in reason]
    assert len(said) == alarms
    assert [row[3] for row in told.bars()].count("outside_session") == in_break + 13
