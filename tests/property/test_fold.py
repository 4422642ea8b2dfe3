"""A log that is read again, a slice at a time, is the log that was taken entry by entry.

The live process takes one input after the other, a restart takes its rows thousands at a time.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clustercore.errors import DataError
from clustercore.events import Event
from clustercore.fold import Fold, epoch_of
from clustercore.inputs import (
    Bar,
    Carry,
    Closed,
    ContractChange,
    Entry,
    Epoch,
    Input,
    Operator,
    Prints,
    WarmUp,
)
from clustercore.instruments import Instrument
from clustercore.sessions import Sessions, load_sessions
from clustercore.store import sessions_hash
from clustercore.store.rows import frame_of, input_row, inputs_of, print_frame
from tests.live.harness import ACTIVE

MINUTE = 60 * 10**9
TICK = 250_000_000
MONTHS = ("ESZ4", "ESH5", "ESM5")
# Held long enough that a session may end with a position.
BASE = ACTIVE.override({"exit.max_hold_minutes": 30, "stop.k": 8.0})
# What an epoch may change: profiles of trades, costs, how long a position is held.
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"profile.source": "trades"},
    {"costs.slippage_ticks": 2.0, "exit.max_hold_minutes": 40, "cluster.minutes": 5},
)

SEEDS = 12

Caused = tuple[int, Input, tuple[Event, ...]]


@cache
def table() -> Sessions:
    """Return a week of sessions: a short table is made quickly."""
    return load_sessions().between("2024-12-09", "2024-12-13")


class Log:
    """The log as it grows, and as a fold looks it up."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.next_seq = 1

    def sessions(self, sessions_hash: str) -> Sessions:
        del sessions_hash
        return table()

    def bars(self, root: str, first_seq: int, last_seq: int) -> pl.DataFrame:
        del root
        inside = pl.col("seq").is_between(first_seq, last_seq)
        return self.rows().filter(inside, pl.col("consumed"), kind="bar")

    def inputs(self, rows: pl.DataFrame) -> Iterator[tuple[int, Input]]:
        return inputs_of(rows, self.prints(rows))

    def prints(self, rows: pl.DataFrame) -> pl.DataFrame:
        of_prints = set(rows.filter(kind="prints")["seq"])
        found = print_frame(entry for entry in self.entries if entry.seq in of_prints)
        return found if found is not None else frame_of("prints", [])

    def rows(self) -> pl.DataFrame:
        """Return all rows as a store returns them."""
        return frame_of("inputs", [input_row(entry) for entry in self.entries])


class Taker:
    """A live process in small: it takes inputs one by one and writes them down."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = Log()
        self.fold = Fold("ES", self.log)
        self.caused: list[Caused] = []
        self.price = 24_000

    def take(self, item: Input) -> None:
        events = self.fold.apply(item)
        seq, epoch = self.log.next_seq, self.fold.epoch
        assert epoch is not None
        entry = Entry(seq, "ES", epoch.number, item, events)
        self.log.entries.append(entry)
        self.log.next_seq += 1
        if events or not isinstance(item, Bar | Prints | Closed):
            self.caused.append((seq, item, events))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def epoch(self, number: int, settings: dict[str, object]) -> Epoch:
        config = BASE.override(settings)
        instrument = Instrument.builtin("ES")
        return epoch_of(number, config, instrument, sessions_hash(table()), MINUTE)

    def begin_epoch(self, number: int, settings: dict[str, object], close: int) -> None:
        """Begin another epoch, as a live process does between two sessions."""
        state = self.fold.engine.account_state()
        consumed = [e.seq for e in self.log.entries if isinstance(e.item, Bar) and e.item.consumed]
        self.take(self.epoch(number, settings))
        # Some of what came before, or all of it.
        first = consumed[0] if self.chance(0.5) else self.random.choice(consumed)
        self.take(WarmUp(self._own_first(first), consumed[-1]))
        self.take(Closed(close, "session"))
        self.take(Carry(state))

    def _own_first(self, seq: int) -> int:
        """Return the first bar from a seq on that is no context, as a warm-up begins with one."""
        return next(
            entry.seq
            for entry in self.log.entries
            if entry.seq >= seq
            and isinstance(entry.item, Bar)
            and entry.item.consumed
            and not entry.item.context
        )

    def bar(self, symbol: str, ts: int, **kept: object) -> Bar:
        draw = self.random
        opened = self.price
        self.price += draw.randint(-8, 8)
        high = max(opened, self.price) + draw.randint(0, 3)
        low = min(opened, self.price) - draw.randint(0, 3)
        # One without volume moves no time.
        volume = draw.randint(1, 400) if self.chance(0.95) else 0
        made = Bar(
            symbol,
            ts,
            opened * TICK,
            high * TICK,
            low * TICK,
            self.price * TICK,
            volume,
            arrival=ts + MINUTE,
            actionable=self.chance(0.8),
        )
        return replace(made, **kept)  # type: ignore[arg-type]

    def trades_of(self, bar: Bar) -> Prints:
        count = self.random.randint(1, 5)
        ts = sorted(bar.ts_event + self.random.randrange(MINUTE) for _ in range(count))
        low, high = bar.low // TICK, bar.high // TICK
        prices = [self.random.randint(low, high) * TICK for _ in range(count)]
        sizes = [self.random.randint(1, 90) for _ in range(count)]
        return Prints(bar.symbol, np.array(ts), np.array(prices), np.array(sizes))

    def keep(self, symbol: str, ts: int) -> None:
        """Write down a bar that the engine never sees, with numbers that it would refuse."""
        reason = self.random.choice(["other_month", "late", "conflict", "future", "refused"])
        other = self.random.choice([symbol, "ESM5"])
        kept = self.bar(other, ts, consumed=False, actionable=False, reason=reason)
        self.take(replace(kept, close=kept.close + 1, context=reason == "refused"))

    def minute(self, symbol: str, ts: int) -> None:
        if self.chance(0.15):
            self.keep(symbol, ts)
        if self.chance(0.9):
            bar = self.bar(symbol, ts)
            if self.chance(0.9):
                self.take(self.trades_of(bar))
            self.take(bar)
        if self.chance(0.5):
            self.take(Closed(ts + MINUTE, self.random.choice(["eoi", "grace", "hole"])))
        if self.chance(0.03):
            self.take(Operator(self.random.choice(["reset_halt", "stop"])))

    def roll(self, symbol: str, previous: str | None, before: int) -> None:
        """Go over to another month, with bars of it that only inform."""
        # Logs from before contracts given by name were noted change the month without a word.
        if self.chance(0.6):
            self.take(ContractChange(symbol, previous, "volume", 20_000))
        for place in range(self.random.randint(0, 30)):
            self.take(self.bar(symbol, before + place * MINUTE, context=True, actionable=False))

    def session(self, symbol: str, opened: int, close: int, minutes: int) -> None:
        """Take the first minutes of a session, perhaps its last, perhaps a word that it is over.

        A position that finds no last minute is carried over.
        """
        for place in range(minutes):
            self.minute(symbol, opened + place * MINUTE)
        for place in range(minutes // 4 if self.chance(0.5) else 0, 0, -1):
            self.minute(symbol, close - place * MINUTE)
        if self.chance(0.7):
            self.take(Closed(close, "session"))

    def go_on(self, symbol: str, opened: int) -> None:
        """Take some minutes more without a row of the log."""
        self.next: list[Input] = [self.bar(symbol, opened + k * MINUTE) for k in range(40)]
        self.caused_next = [repr(self.fold.apply(item)) for item in self.next]


@cache
def random_log(seed: int) -> Taker:
    """Return three sessions of a process, with rolls, restarts and changes of settings."""
    taker = Taker(seed)
    rows = table()
    taker.take(taker.epoch(1, taker.random.choice(SETTINGS)))
    symbol, number = MONTHS[0], 1
    for place, (opened, close) in enumerate(
        zip(rows.open_ns[:3].tolist(), rows.close_ns[:3].tolist(), strict=True)
    ):
        last_close = int(rows.close_ns[place - 1]) if place else opened
        if place and taker.chance(0.5):
            taker.take(Closed(last_close, "session"))
            number += 1
            taker.begin_epoch(number, taker.random.choice(SETTINGS), last_close)
        if place and taker.chance(0.4):
            previous, symbol = symbol, MONTHS[MONTHS.index(symbol) + 1]
            taker.roll(symbol, previous, last_close - 30 * MINUTE)
        taker.session(symbol, opened, close, taker.random.randint(30, 80))
    taker.go_on(symbol, int(rows.open_ns[3]))
    return taker


def sliced(rows: pl.DataFrame, cuts: Iterable[int]) -> Iterator[pl.DataFrame]:
    places = sorted({0, rows.height, *(cut % (rows.height + 1) for cut in cuts)})
    for first, end in pairwise(places):
        yield rows[first:end]


def folded(log: Log, parts: Iterable[pl.DataFrame]) -> tuple[Fold, list[Caused]]:
    fold = Fold("ES", log)
    return fold, [caused for part in parts for caused in fold.apply_rows(part)]


def in_words(caused: Iterable[Caused]) -> list[tuple[int, Input, str]]:
    """Return what can be compared: an event may hold a number that is none."""
    return [(seq, item, repr(events)) for seq, item, events in caused]


# A seed has no smaller one, so that looking for it would only delay the word of a failure.
@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, SEEDS - 1),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
)
def test_a_log_in_any_slices_causes_what_its_entries_caused(seed: int, cuts: list[int]) -> None:
    taker = random_log(seed)
    rows = taker.log.rows()
    fold, caused = folded(taker.log, sliced(rows, cuts))
    assert in_words(caused) == in_words(taker.caused)
    # Whatever comes next finds the same engine.
    assert [repr(fold.apply(item)) for item in taker.next] == taker.caused_next


def test_a_log_causes_the_same_row_by_row_and_all_at_once() -> None:
    taker = random_log(0)
    rows = taker.log.rows().head(600)
    _, one_by_one = folded(taker.log, rows.iter_slices(1))
    _, at_once = folded(taker.log, [rows])
    known = [caused for caused in taker.caused if caused[0] <= rows["seq"][-1]]
    assert in_words(one_by_one) == in_words(at_once) == in_words(known)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_row_that_the_engine_refuses_is_named_and_its_slice_was_not_taken(seed: int) -> None:
    taker = random_log(seed)
    rows = taker.log.rows()
    bars = rows.filter(pl.col("consumed"), ~pl.col("context"), kind="bar")
    bad = int(bars["seq"][bars.height // 2])
    first = next(place for place, seq in enumerate(rows["seq"].to_list()) if seq == bad)
    plain = rows["kind"].is_in(["bar", "prints", "closed"]).to_list()
    begin = first
    while plain[begin - 1] and first - begin < 10:
        begin -= 1
    end = first + 1
    while plain[end] and end - first < 10:
        end += 1
    fold, before = folded(taker.log, [rows[:begin]])
    off = pl.when(pl.col("seq") == bad).then(pl.col("open") + 1).otherwise("open")
    with pytest.raises(DataError, match=f"input {bad} .bar.: "):
        list(fold.apply_rows(rows[begin:end].with_columns(open=off)))
    after = [caused for part in (rows[begin:end], rows[end:]) for caused in fold.apply_rows(part)]
    assert in_words([*before, *after]) == in_words(taker.caused)


def test_the_random_logs_have_in_them_what_a_fold_may_stumble_over() -> None:
    takers = [random_log(seed) for seed in range(SEEDS)]
    items = [entry.item for taker in takers for entry in taker.log.entries]
    kinds = {type(item) for item in items}
    assert kinds == {Bar, Closed, ContractChange, Operator, Epoch, Prints, WarmUp, Carry}
    bars = [item for item in items if isinstance(item, Bar)]
    assert {bar.consumed for bar in bars} == {bar.actionable for bar in bars} == {True, False}
    assert sum(bar.context and bar.consumed for bar in bars) > 50
    events = [event for taker in takers for _, _, found in taker.caused for event in found]
    counts = Counter(type(event).__name__ for event in events)
    assert counts["Trade"] > 50, counts
    assert counts["Cluster"] > 300, counts
    carried = [json.loads(item.state) for item in items if isinstance(item, Carry)]
    assert sum(bool(state["positions"]) for state in carried) > 0
    assert max(entry.epoch for taker in takers for entry in taker.log.entries) == 3
