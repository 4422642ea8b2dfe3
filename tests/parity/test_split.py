"""Bar by bar, all at once, or in any pieces: the same events and frames, bit for bit."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore import _core
from clustercore.engine import frames_from_events, to_frame
from clustercore.events import Event
from clustercore.events import Trade as TradeEvent
from tests.parity.engines import feed, run_columns, rust_engine
from tests.parity.markets import Market, seeded
from tests.reference import Advance, Bar, Context, Input, Late, Operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Frames = dict[str, pl.DataFrame]
BarInput = Bar | Late | Context
PRESETS = ("default", "new-algo", "new-algo-patient", "v6", "v6-live")


def engine_of(market: Market) -> _core.Engine:
    return rust_engine(market.config, market.instrument, market.sessions, market.interval_ns, "id")


def bare(item: BarInput) -> Bar:
    return item if isinstance(item, Bar) else item.bar


def run_bars(
    engine: _core.Engine, items: Sequence[BarInput], *, finish: bool = False, masks: bool = False
) -> Frames:
    """Give the engine some bars at once; without masks where none is needed, unless asked for."""
    bars = [bare(item) for item in items]
    columns = [np.array([bar[place] for bar in bars], dtype=np.int64) for place in range(6)]
    stretches = [
        (row, bar.symbol)
        for row, bar in enumerate(bars)
        if row == 0 or bars[row - 1].symbol != bar.symbol
    ]
    context = np.array([isinstance(item, Context) for item in items], dtype=np.bool_)
    actionable = np.array([not isinstance(item, Late) for item in items], dtype=np.bool_)
    raw = run_columns(
        engine,
        columns,
        stretches,
        context if masks or context.any() else None,
        actionable if masks or not actionable.all() else None,
        finish=finish,
    )
    return {name: to_frame(name, frame, "id") for name, frame in raw.items()}


def step_all(engine: _core.Engine, inputs: Iterable[Input]) -> list[Event]:
    return list(itertools.chain.from_iterable(feed(engine, item) for item in inputs))


def assert_same(left: Frames, right: Frames) -> None:
    assert left.keys() == right.keys()
    for name, frame in left.items():
        assert_frame_equal(frame, right[name], check_exact=True)


def only_bars(inputs: Iterable[Input]) -> list[BarInput]:
    return [item for item in inputs if isinstance(item, Bar | Late | Context)]


class Pieces:
    """Frames of pieces that were run, and events of those that were stepped, in order."""

    def __init__(self) -> None:
        self._parts: list[Frames] = []
        self._events: list[Event] = []

    def stepped(self, events: Iterable[Event]) -> None:
        self._events += events

    def ran(self, frames: Frames) -> None:
        self._close()
        self._parts.append(frames)

    def frames(self) -> Frames:
        self._close()
        return {name: pl.concat([part[name] for part in self._parts]) for name in self._parts[0]}

    def _close(self) -> None:
        if self._events or not self._parts:
            self._parts.append(frames_from_events(self._events, "id"))
        self._events = []


def in_pieces(engine: _core.Engine, inputs: Sequence[Input], seed: int) -> Frames:
    """Feed in random pieces, some stepped and some run; what is no bar ends a piece."""
    rng = random.Random(seed)
    pieces = Pieces()
    place = 0
    while place < len(inputs):
        longest = rng.choice([1, 3, 40, 400])
        piece: list[BarInput] = []
        while place < len(inputs) and len(piece) < longest:
            following = inputs[place]
            if not isinstance(following, Bar | Late | Context):
                break
            piece.append(following)
            place += 1
        if not piece:
            pieces.stepped(feed(engine, inputs[place]))
            place += 1
        elif rng.random() < (0.5 if len(piece) > 3 else 0.9):
            pieces.stepped(step_all(engine, piece))
        else:
            pieces.ran(run_bars(engine, piece, masks=rng.random() < 0.3))
    pieces.stepped(engine.finish())
    return pieces.frames()


def in_session(market: Market, item: Input) -> bool:
    """Whether an input is a bar that the engine works through."""
    if not isinstance(item, Bar | Late) or not bare(item).volume:
        return False
    m = market.interval_ns
    start = bare(item).start
    return any(row.open <= start < -(-row.close // m) * m for row in market.sessions)


def with_advances(market: Market, inputs: Sequence[Input], seed: int) -> list[Input]:
    """Return the inputs with `advance` calls put in wherever the next bar allows them."""
    interval_ns = market.interval_ns
    rng = random.Random(seed)
    result: list[Input] = []
    started = False
    for item in inputs:
        if isinstance(item, Context):
            # It acts as an advance itself, and goes back in time.
            result.append(item)
            continue
        # A bar outside every session moves no time; an advance up to it would.
        if in_session(market, item) and isinstance(item, Bar | Late):
            start = bare(item).start
            for _ in range(rng.choice([0, 0, 1, 3]) if started else 0):
                back = rng.choice([0, 1, interval_ns, 20 * interval_ns, 10**14])
                result.append(Advance(start + interval_ns - 1 - back))
            started = True
        result.append(item)
    return result


def compared(seen: Counter[str], frames: Frames) -> None:
    for name, frame in frames.items():
        seen[name] += len(frame)


@pytest.fixture(scope="module")
def years(data_dir: Path) -> cc.Bars:
    return cc.read_bars(
        data_dir / "dbn/es_1m_2019.dbn.zst", start="2019-02-20", end="2019-05-01", instrument="ES"
    )


def test_any_cut_gives_the_same_frames() -> None:
    seen: Counter[str] = Counter()
    pieces = 0
    for seed in range(240):
        market = seeded(50_000 + seed)
        items = only_bars(market.inputs)
        engine = engine_of(market)
        whole = run_bars(engine, items, finish=True)
        stepped = engine_of(market)
        events = [*step_all(stepped, items), *stepped.finish()]
        assert_same(frames_from_events(events, "id"), whole)
        assert stepped.counts() == engine.counts()
        for cut in range(2):
            other = engine_of(market)
            assert_same(in_pieces(other, items, 2 * seed + cut), whole)
            assert other.counts() == engine.counts()
            pieces += 1
        compared(seen, whole)
    assert pieces == 480
    least = {"clusters": 5_000, "signals": 700, "orders": 400, "trades": 250, "risk": 50}
    assert all(seen[name] >= count for name, count in least.items()), seen


def test_any_cut_around_trades_advances_and_operators() -> None:
    seen: Counter[str] = Counter()
    for seed in range(80):
        market = seeded(60_000 + seed)
        stepped = engine_of(market)
        whole = frames_from_events([*step_all(stepped, market.inputs), *stepped.finish()], "id")
        assert_same(in_pieces(engine_of(market), market.inputs, seed), whole)
        compared(seen, whole)
        seen["operator"] += sum(isinstance(item, Operator) for item in market.inputs)
    assert seen["trades"] >= 80, seen
    assert seen["operator"] >= 50, seen


def test_advance_changes_nothing() -> None:
    seen: Counter[str] = Counter()
    for seed in range(360):
        market = seeded(70_000 + seed)
        # An operator's word carries the time it came, and trades must not lie before an advance.
        inputs: list[Input] = list(only_bars(market.inputs))
        plain, advanced = engine_of(market), engine_of(market)
        expected = [*step_all(plain, inputs), *plain.finish()]
        more = with_advances(market, inputs, seed)
        found = [*step_all(advanced, more), *advanced.finish()]
        assert found == expected, f"seed {seed}"
        assert advanced.counts() == plain.counts()
        seen["advances"] += len(more) - len(inputs)
        seen.update(type(event).__name__ for event in expected)
    assert seen["advances"] > 50_000, seen
    assert seen["Trade"] >= 500, seen


@pytest.mark.parametrize("name", PRESETS)
def test_real_bars_in_pieces(name: str, years: cc.Bars) -> None:
    config = cc.Config.preset(name).override(
        {"rank.top_n": 3, "signal.min_strength": 0.1, "baseline.min_sessions": 1}
    )
    whole = cc.Engine(config, "ES").run(years, finish=True)
    engine = cc.Engine(config, "ES")
    rng = random.Random(name)
    columns = years.columns_nanos()
    rows: list[Any] = list(
        zip(
            *(columns[n].tolist() for n in ("ts_event", "open", "high", "low", "close", "volume")),
            strict=True,
        )
    )
    (symbol,) = years.symbols
    parts: list[Frames] = []
    start = 0
    while start < len(years):
        length = rng.choice([1, 10, 1_000, 9_000])
        if length <= 10:
            events = [
                event
                for row in rows[start : start + length]
                for event in feed(engine._core, Bar._make((*row, symbol)))
            ]
            parts.append(frames_from_events(events, engine.config_id))
        else:
            parts.append(engine.run(replace(years, frame=years.frame.slice(start, length))))
        start += length
    parts.append(frames_from_events(engine.finish(), engine.config_id))
    assert_same({key: pl.concat([part[key] for part in parts]) for key in whole}, whole)
    assert len(whole["trades"]) >= 10
    assert len(whole["clusters"]) >= 40


def test_reset_forgets_everything() -> None:
    for seed in range(60):
        market = seeded(80_000 + seed)
        fresh, used = engine_of(market), engine_of(market)
        # Half of it leaves something pending now and then.
        step_all(used, market.inputs[: len(market.inputs) // 2])
        used.reset()
        assert not any(used.counts().values())
        expected = [*step_all(fresh, market.inputs), *fresh.finish()]
        assert [*step_all(used, market.inputs), *used.finish()] == expected
        assert used.counts() == fresh.counts()


def test_finish_leaves_the_engine_usable() -> None:
    open_rows = 0
    for seed in range(480):
        market = seeded(90_000 + seed)
        inputs: list[Input] = list(only_bars(market.inputs))
        half = len(inputs) // 2
        plain, finished = engine_of(market), engine_of(market)
        first = step_all(plain, inputs[:half])
        assert step_all(finished, inputs[:half]) == first
        ended = [
            bare(item).start + market.interval_ns
            for item in only_bars(inputs[:half])
            if in_session(market, item)
        ]
        closing = finished.finish()
        rows = [e for e in closing if isinstance(e, TradeEvent) and e.exit_reason == "open"]
        open_rows += len(rows)
        # But for those rows, it is an advance to the end of the last bar of a session.
        advanced = plain.advance(max(ended)) if ended else []
        assert [event for event in closing if event not in rows] == advanced
        # Twice says the same.
        assert finished.finish() == rows
        rest = [*step_all(plain, inputs[half:]), *plain.finish()]
        assert [*step_all(finished, inputs[half:]), *finished.finish()] == rest
    assert open_rows >= 10


def test_masks_of_all_true_are_no_masks() -> None:
    market = seeded(12)
    items: list[BarInput] = [item for item in market.inputs if isinstance(item, Bar)]
    kept: list[BarInput] = []
    last = -1
    for item in items:
        if bare(item).start > last:
            kept.append(item)
            last = bare(item).start
    one, other = engine_of(market), engine_of(market)
    assert_same(run_bars(one, kept, masks=True), run_bars(other, kept))


def test_late_bars_make_missed_signals_in_both_ways() -> None:
    missed = 0
    for seed in range(120):
        market = seeded(95_000 + seed)
        items: list[BarInput] = [
            Late(item) if isinstance(item, Bar) else item for item in only_bars(market.inputs)
        ]
        one, other = engine_of(market), engine_of(market)
        frames = run_bars(one, items, finish=True)
        events = [*step_all(other, items), *other.finish()]
        assert_same(frames_from_events(events, "id"), frames)
        missed += int((frames["signals"]["reason"] == "missed").sum())
        assert not (frames["signals"]["reason"] == "ordered").any()
        assert frames["trades"].is_empty()
    assert missed >= 50


def test_frames_say_whose_they_are() -> None:
    market = seeded(3)
    frames: dict[str, Any] = run_bars(engine_of(market), only_bars(market.inputs), finish=True)
    assert set(frames["clusters"]["config_id"]) == {"id"}
    assert set(frames["clusters"]["engine_version"]) == {_core.ENGINE_VERSION}
