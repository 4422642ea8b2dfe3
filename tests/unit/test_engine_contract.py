"""What the engine promises whoever drives it: refusals, atomic failure, threads, interrupts."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from clustercore import Engine, _core, events
from clustercore.config import Config
from clustercore.errors import ConfigError, DataError, EngineBusy
from tests.parity.engines import run_columns, rust_engine, session_columns
from tests.parity.test_split import assert_same, run_bars
from tests.reference import DAY, MINUTE, Bar, Instrument, Session
from tests.reference_config import merged, preset
from tests.reference_scenarios import BASE, at, days, lost, px, session, won

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

GREATEST, LEAST = 2**63 - 1, -(2**63)
GOOD = Bar(at(8), px(100.5), px(101), px(100), px(100.5), 5)
# What is wrong with a row in the middle: the row, its column, what is found and expected.
BAD: list[tuple[str, Bar, str, str, str]] = [
    ("time before", GOOD._replace(start=at(3)), "ts_event", f"{at(3)} ns", "after"),
    ("time off the grid", GOOD._replace(start=at(8) + 1), "ts_event", "ns", "a multiple of"),
    ("high too low", GOOD._replace(high=px(100.25)), "high", "100.25", "at least 100.5"),
    ("low too high", GOOD._replace(low=px(100.75)), "low", "100.75", "at most 100.5"),
    ("off the tick", GOOD._replace(close=px(100.6)), "close", "100.6", "a multiple of 0.25"),
    ("price of zero", GOOD._replace(low=0), "low", "0", "above 0"),
    ("negative price", GOOD._replace(low=-px(1)), "low", "-1", "above 0"),
    ("undefined price", GOOD._replace(open=GREATEST), "open", "UNDEF_PRICE", "a price"),
    ("huge price", GOOD._replace(high=10**18), "high", "1000000000", "below 1000000000"),
    ("least price", GOOD._replace(low=LEAST), "low", "-9223372036.85477", "above 0"),
    ("negative volume", GOOD._replace(volume=-1), "volume", "-1", "0 or more"),
    ("huge volume", GOOD._replace(volume=2**32), "volume", "4294967296", "below 4294967296"),
    ("greatest volume", GOOD._replace(volume=GREATEST), "volume", str(GREATEST), "below"),
    ("another symbol", GOOD._replace(symbol="NQZ5"), "symbol", "NQZ5", "ESZ5"),
    ("a bar of a mile", GOOD._replace(high=px(900_000)), "high", "899900", "at most"),
]


def engine(sessions: Sequence[Session] | None = None, **settings: Any) -> _core.Engine:
    config = merged(preset("default"), merged(BASE, settings))
    return rust_engine(config, Instrument(), sessions or days(3), MINUTE, "id")


def step(target: _core.Engine, bar: Bar) -> list[events.Event]:
    return target.step(*bar[:6], symbol=bar.symbol)


def step_all(target: _core.Engine, bars: Sequence[Bar]) -> list[events.Event]:
    return [event for bar in bars for event in step(target, bar)]


# Refusals and atomic failure.


@pytest.mark.parametrize(
    ("bar", "column", "found", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_refusals_name_the_place_and_are_the_same_for_step_and_run(
    bar: Bar, column: str, found: str, expected: str
) -> None:
    start = won(0)
    stepped, ran = engine(), engine()
    step_all(stepped, start)
    with pytest.raises(DataError) as alone:
        step(stepped, bar)
    with pytest.raises(DataError) as batch:
        run_bars(ran, [*start, bar])
    assert (alone.value.row, batch.value.row) == (0, len(start))
    for refusal in (alone.value, batch.value):
        assert refusal.column == column
        assert refusal.found is not None
        assert found in refusal.found
        assert refusal.expected is not None
        assert expected in refusal.expected
    assert alone.value.problem == batch.value.problem
    assert (alone.value.found, alone.value.expected) == (batch.value.found, batch.value.expected)


@pytest.mark.parametrize("bar", [b[1] for b in BAD], ids=[b[0] for b in BAD])
def test_a_refused_bar_leaves_no_trace(bar: Bar) -> None:
    first, rest = [*lost(0), *won(1)[:7]], [*won(1)[7:], *lost(2)]
    bar = bar._replace(start=bar.start + DAY)
    plain, stepped, ran = engine(), engine(), engine()
    expected = [*step_all(plain, first), *step_all(plain, rest), *plain.finish()]
    found = step_all(stepped, first)
    counts = stepped.counts()
    with pytest.raises(DataError):
        step(stepped, bar)
    assert stepped.counts() == counts
    # Without a symbol, the engine goes on with that of the last bar it took.
    found += stepped.step(*rest[0][:6])
    assert [*found, *step_all(stepped, rest[1:]), *stepped.finish()] == expected
    step_all(ran, first)
    with pytest.raises(DataError):
        run_bars(ran, [*rest, bar, *rest])
    assert ran.counts() == counts
    after = engine()
    step_all(after, first)
    assert_same(run_bars(ran, rest, finish=True), run_bars(after, rest, finish=True))


def test_a_refusal_after_many_bars_takes_all_of_them_back() -> None:
    count = 70_000
    bars = quiet_columns(count)
    whole = engine(wide_sessions(count))
    bad = {name: column.copy() for name, column in bars.items()}
    bad["high"][-1] = bad["low"][-1] - px(1)
    with pytest.raises(DataError) as refusal:
        run_all(whole, bad)
    assert (refusal.value.row, refusal.value.column) == (count - 1, "high")
    assert not any(whole.counts().values())
    run_all(whole, bars)
    assert whole.counts()["bars"] == count


def test_columns_of_different_length_are_refused() -> None:
    columns = quiet_columns(10)
    columns["low"] = columns["low"][:-1]
    with pytest.raises(DataError) as refusal:
        run_all(engine(wide_sessions(10)), columns)
    assert (refusal.value.column, refusal.value.found) == ("low", "9")
    for stretches in ([], [(1, "ESZ5")], [(0, "ESZ5"), (0, "NQZ5")]):
        with pytest.raises(DataError) as refusal:
            run_columns(engine(wide_sessions(10)), list(quiet_columns(10).values()), stretches)
        assert refusal.value.column == "symbol"


# Huge values.

EDGES = (
    0,
    1,
    -1,
    GREATEST,
    LEAST,
    GREATEST - 1,
    LEAST + 1,
    2**32 - 1,
    2**32,
    -(2**32),
    10**18,
    10**18 - 250_000_000,
    -(10**18),
    GREATEST // MINUTE * MINUTE,
    -(2**63 // MINUTE) * MINUTE,
)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("allow_negative", [False, True])
def test_edges_of_int64_in_a_bar_are_taken_or_refused(place: int, allow_negative: bool) -> None:
    config = merged(preset("default"), BASE)
    instrument = Instrument(check_tick=not allow_negative, allow_negative=allow_negative)
    for value in EDGES:
        target = rust_engine(config, instrument, days(2), MINUTE)
        row: list[Any] = [*GOOD]
        row[place] = value
        try:
            step(target, Bar(*row))
        except DataError as refusal:
            assert refusal.column is not None  # noqa: PT017 - some are taken, and that is right
        target.counts()
        target.finish()


def test_edges_of_int64_as_times() -> None:
    for value in EDGES:
        target = engine(profile={"source": "trades"})
        step_all(target, won(0))
        try:
            target.trade(value, px(100), 1)
        except DataError as refusal:
            assert refusal.column == "ts_event"  # noqa: PT017 - the future may be taken
        target.advance(value)
        target.finish()
        assert target.counts()["bars"] == len(won(0))


@pytest.mark.parametrize(("column", "place"), [("price", 1), ("size", 2)])
def test_edges_of_int64_in_a_trade(column: str, place: int) -> None:
    for value in (0, -1, LEAST, GREATEST):
        row = [at(0), px(100), 1]
        row[place] = value
        with pytest.raises(DataError) as refusal:
            engine(profile={"source": "trades"}).trade(*row)
        assert refusal.value.column in (column, "volume")


def test_dates_far_away() -> None:
    spans = [
        (LEAST, GREATEST),
        (GREATEST - 1, GREATEST),
        (LEAST, LEAST + 1),
        (0, GREATEST),
        (LEAST, 0),
    ]
    for start, end in spans:
        for interval in (MINUTE, 5 * MINUTE, 1):
            far = [Session(0, start, end)]
            config = merged(preset("default"), BASE)
            try:
                target = rust_engine(config, Instrument(), far, interval)
            except DataError:
                continue
            for time in (start, end - 1, end, 0):
                try:
                    step(target, GOOD._replace(start=time // interval * interval))
                except (DataError, OverflowError):
                    continue
            target.finish()


FAR: list[tuple[str, dict[str, Any]]] = [
    (
        "volatility",
        {
            "stop": {"mode": "volatility", "k": 1000.0, "min_pct": 100.0},
            "target": {"mode": "reward", "reward": 1000.0},
            "exit": {"scale_out": [{"fraction": 0.5, "reward": 1000.0}], "max_hold_minutes": 2},
        },
    ),
    (
        "fixed",
        {
            "stop": {"mode": "fixed", "distance": "1000000 ticks"},
            "target": {"mode": "fixed", "distance": "1000000 ticks"},
            "exit": {"scale_out": [{"fraction": 0.5, "distance": "1000000 ticks"}]},
            "retest": {"tolerance": "1000000 ticks"},
        },
    ),
    ("limit", {"entry": {"mode": "limit", "offset_ticks": 100_000, "through_ticks": 1000}}),
    ("trailing", {"exit": {"trailing": "fixed", "trailing_distance": "1000000 ticks"}}),
    (
        "ranges",
        {
            "exit": {
                "trailing": "true_range",
                "trailing_multiple": 1000.0,
                "target_through_ticks": 1000,
            },
            "learning": {"mode": "score", "scale": 1000.0, "max": 1000.0, "min_trades": 0},
        },
    ),
]


@pytest.mark.parametrize("settings", [far[1] for far in FAR], ids=[far[0] for far in FAR])
@pytest.mark.parametrize("tick", [1, 250_000_000, 10**15])
def test_distances_beyond_all_prices_are_no_fault(settings: dict[str, Any], tick: int) -> None:
    """The hand-made market moves a few ticks; here a tick may be a million points."""
    config = merged(preset("default"), merged(BASE, settings))
    sizes: dict[str, dict[str, Any]] = {
        "size": {"base": 4.0, "max_contracts": 10},
        "volatility": {"min_minutes": 2},
    }
    level = 900_000_000 * 10**9 // tick * tick
    names = ("open", "high", "low", "close")
    for scaled in (0, level):
        target = rust_engine(merged(config, sizes), Instrument(tick_nanos=tick), days(2), MINUTE)
        found: list[events.Event] = []
        for bar in [*won(0), *lost(1)]:
            prices = {
                name: (getattr(bar, name) - px(99)) // 250_000_000 * tick + scaled for name in names
            }
            found += step(target, bar._replace(**prices))
        found += target.finish()
        assert any(isinstance(event, events.Order) for event in found)


@pytest.mark.parametrize("interval", [0, -1, LEAST, GREATEST])
def test_intervals_that_cannot_be(interval: int) -> None:
    config = merged(preset("default"), BASE)
    with pytest.raises(ConfigError) as refusal:
        rust_engine(config, Instrument(), days(1), interval)
    assert refusal.value.field == "cluster.minutes"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tick_nanos", (0, -1, LEAST, GREATEST)),
        ("point_value", (0.0, -1.0, float("nan"), float("inf"))),
        ("commission", (-1.0, float("nan"), float("inf"))),
        ("margin", (-1.0, float("nan"), float("inf"))),
    ],
)
def test_instruments_that_cannot_be(name: str, values: tuple[Any, ...]) -> None:
    config = merged(preset("default"), BASE)
    for value in values:
        with pytest.raises(ConfigError) as refusal:
            rust_engine(config, Instrument(**{name: value}), days(1), MINUTE)
        field = "tick_size" if name == "tick_nanos" else name
        assert refusal.value.field == f"instrument.{field}"


# Threads.


def wide_sessions(bars: int) -> list[Session]:
    """Return sessions of a day that hold so many minutes."""
    return [session(day, 1440, hours=None) for day in range(bars // 1440 + 1)]


def quiet_columns(bars: int) -> dict[str, np.ndarray]:
    """Return bars of which none makes a cluster."""
    start = at(0) + np.arange(bars, dtype=np.int64) * MINUTE
    price = px(100) + (np.arange(bars, dtype=np.int64) % 5) * 250_000_000
    volume = np.full(bars, 10, dtype=np.int64)
    return {
        "start": start,
        "open": price,
        "high": price + 250_000_000,
        "low": price,
        "close": price,
        "volume": volume,
    }


def run_all(target: _core.Engine, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    return run_columns(target, list(columns.values()), [(0, "ESZ5")])


LONG = 1_500_000


def test_a_second_thread_is_refused_and_other_engines_go_on() -> None:
    """The busy engine holds no interpreter lock: this thread works while it runs."""
    columns = quiet_columns(LONG)
    busy = engine(wide_sessions(LONG), cluster={"frame": "sliding"})
    other = engine()
    refused = worked = 0
    for _ in range(20):
        busy.reset()
        worker = threading.Thread(target=run_all, args=(busy, columns))
        worker.start()
        while worker.is_alive():
            try:
                busy.counts()
            except EngineBusy:
                refused += 1
                step_all(other, won(0))
                other.reset()
                try:
                    busy.counts()
                except EngineBusy:
                    # It was at work before and after this thread's work: they overlapped.
                    worked += 1
        worker.join()
        assert busy.counts()["bars"] == LONG
        if worked >= 3:
            break
    assert refused >= 3
    assert worked >= 3


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.step(*GOOD[:6]),
        lambda e: e.advance(0),
        lambda e: e.finish(),
        lambda e: e.reset(),
        lambda e: e.reset_halt(),
        lambda e: e.trade(0, px(1), 1),
        lambda e: e.extend_sessions(session_columns([])),
        lambda e: run_all(e, quiet_columns(1)),
        lambda e: e.counts(),
    ],
    ids=["step", "advance", "finish", "reset", "operator", "trade", "sessions", "run", "counts"],
)
def test_every_entry_is_refused_while_the_engine_is_busy(
    call: Callable[[_core.Engine], object],
) -> None:
    columns = quiet_columns(LONG)
    busy = engine(wide_sessions(LONG), cluster={"frame": "sliding"})
    for _ in range(20):
        busy.reset()
        worker = threading.Thread(target=run_all, args=(busy, columns))
        worker.start()
        while worker.is_alive():
            try:
                busy.counts()
            except EngineBusy:
                break
        refused = False
        if worker.is_alive():
            try:
                call(busy)
            except EngineBusy:
                refused = True
            except DataError:
                # It ended in between.
                pass
        worker.join()
        if refused:
            assert busy.counts()["bars"] == LONG
            return
    pytest.fail("never met the engine at work")


INTERRUPTED = """
import os, signal, sys, threading
from clustercore.errors import EngineBusy
from tests.unit.test_engine_contract import LONG, engine, quiet_columns, run_all, wide_sessions
from tests.reference_scenarios import won
signal.signal(signal.SIGINT, signal.default_int_handler)
columns = quiet_columns(LONG)
first = {name: column[:500] for name, column in columns.items()}
rest = {name: column[500:] for name, column in columns.items()}
target = engine(wide_sessions(LONG), cluster={"frame": "sliding"})

def interrupt():
    while True:
        try:
            target.counts()
        except EngineBusy:
            os.kill(os.getpid(), signal.SIGINT)
            return

for attempt in range(30):
    target.reset()
    run_all(target, first)
    before = target.counts()
    worker = threading.Thread(target=interrupt, daemon=True)
    worker.start()
    try:
        run_all(target, rest)
        worker.join()
    except KeyboardInterrupt:
        worker.join()
        if target.counts() != before:
            # The run had ended when the interrupt came.
            assert target.counts()["bars"] == LONG, target.counts()
            continue
        run_all(target, rest)
        assert target.counts()["bars"] == LONG
        print("as at entry")
        sys.exit(0)
sys.exit("never interrupted")
"""


def test_an_interrupt_leaves_the_engine_as_it_was(pytestconfig: pytest.Config) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=pytestconfig.rootpath,
    )
    assert (done.returncode, done.stdout) == (0, "as at entry\n"), done.stderr


# Sessions, operator, symbols.


def test_sessions_can_be_added_while_it_runs() -> None:
    known, whole = engine([session(0)]), engine(days(3))
    market = [*won(0), *lost(1), *won(2)]
    found = step_all(known, won(0))
    known.extend_sessions(session_columns(days(3)))
    found += [*step_all(known, [*lost(1), *won(2)]), *known.finish()]
    assert found == [*step_all(whole, market), *whole.finish()]
    # Without them, the bars are outside.
    without = engine([session(0)])
    step_all(without, market)
    assert without.counts()["outside_session"] == len(market) - len(won(0))


@pytest.mark.parametrize(
    "wrong",
    [
        session(1, open=at(30)),
        session(0, minutes=59),
        session(0, new_york_offset_s=0),
        session(2, open=at(10, 2), close=at(10, 2)),
        session(2, open=at(11, 2), close=at(10, 2)),
    ],
    ids=["overlap", "another close", "another offset", "empty", "backwards"],
)
def test_sessions_that_contradict_are_refused_whole(wrong: Session) -> None:
    target = engine([session(0)])
    step_all(target, won(0)[:6])
    with pytest.raises(DataError) as refusal:
        target.extend_sessions(
            session_columns([session(1), wrong] if wrong.open > at(0, 1) else [wrong])
        )
    assert refusal.value.column in ("open", "close")
    # Nothing of it was taken.
    step_all(target, [*won(0)[6:], *lost(1)])
    assert target.counts()["outside_session"] == len(lost(1))


def test_the_operator_says_one_thing() -> None:
    target = Engine(Config.preset(), "ES")
    with pytest.raises(ConfigError) as refusal:
        target.operator("stop")
    assert (refusal.value.field, refusal.value.found) == ("operator", "stop")
    (event,) = target.operator("reset_halt")
    assert isinstance(event, events.Risk)
    assert (event.kind, event.reason) == ("reset", "operator")


def test_the_operator_ends_a_halt() -> None:
    limits: dict[str, Any] = {"risk": {"max_drawdown_pct": 0.1, "on_halt": "stop"}}
    halted, reset = engine(**limits), engine(**limits)
    kinds = [e.kind for e in step_all(halted, lost(0)) if isinstance(e, events.Risk)]
    assert kinds == ["halted"]
    step_all(reset, lost(0))
    reset.reset_halt()
    later = [e.reason for e in step_all(halted, won(1)) if isinstance(e, events.Order)]
    assert later == ["halted"]
    later = [e.reason for e in step_all(reset, won(1)) if isinstance(e, events.Order)]
    assert later == ["working", "filled"]


def test_symbols_are_what_the_feed_calls_them() -> None:
    target = engine()
    # Before the first symbol is named, it is the instrument's root.
    assert {
        e.symbol
        for e in [event for bar in won(0) for event in target.step(*bar[:6])]
        if hasattr(e, "symbol")
    } == {"ES"}
    for number, name in enumerate(["", "</script>", "ES\u00e9\U0001f600", "E" * 10_000], start=1):
        other = engine(days(6))
        bars = [bar._replace(symbol=name) for bar in won(number)]
        seen = {e.symbol for e in step_all(other, bars) if hasattr(e, "symbol")}
        assert seen == {name}


# What comes out.


def test_event_classes_have_the_fields_of_the_frames() -> None:
    classes = [
        events.Cluster,
        events.Signal,
        events.Order,
        events.Trade,
        events.Equity,
        events.Risk,
    ]
    frames = _core.record_fields()
    assert len(frames) == len(classes)
    types = {
        "time": "int",
        "price": "float",
        "int": "int",
        "float": "float",
        "bool": "bool",
        "text": "str",
        "symbol": "str",
        "id": "str",
    }
    for kind, (name, columns) in zip(classes, frames.items(), strict=True):
        assert kind.__name__.lower() == (name if name in ("equity", "risk") else name[:-1])
        declared = {("return" if f.name == "net_return" else f.name): f.type for f in fields(kind)}
        expected = {
            column["name"]: types[column["kind"]] + (" | None" if column["nullable"] else "")
            for column in columns
        }
        assert declared == expected
        assert list(declared) == list(expected)


def test_events_are_frozen_and_only_null_where_declared() -> None:
    target = engine()
    found = [*step_all(target, [*won(0), *lost(1)]), *target.finish()]
    assert {type(event).__name__ for event in found} == {
        "Cluster",
        "Signal",
        "Order",
        "Trade",
        "Equity",
    }
    for event in found:
        for field in fields(event):
            value = getattr(event, field.name)
            assert value is not None or "None" in str(field.type), field.name
        with pytest.raises(FrozenInstanceError):
            setattr(event, fields(event)[0].name, "x")


def test_settings_of_the_instrument_replace_what_is_built_in() -> None:
    own = {"tick_size": 0.5, "point_value": 20.0, "commission": 1.0, "margin": 10.0}
    config = merged(preset("default"), merged(BASE, {"instrument": own}))
    changed = Instrument(tick_nanos=500_000_000, point_value=20.0, commission=1.0, margin=10.0)
    bars = [
        bar._replace(**{name: 2 * getattr(bar, name) for name in ("open", "high", "low", "close")})
        for bar in [*won(0), *lost(1)]
    ]
    plain = merged(preset("default"), BASE)
    by_setting = rust_engine(config, Instrument(), days(2), MINUTE, "id")
    by_instrument = rust_engine(plain, changed, days(2), MINUTE, "id")
    found = [*step_all(by_setting, bars), *by_setting.finish()]
    assert found == [*step_all(by_instrument, bars), *by_instrument.finish()]
    assert sum(isinstance(event, events.Trade) for event in found) == 2


def test_a_run_of_nothing(tmp_path: Path) -> None:
    target = engine()
    frames = run_columns(target, list(quiet_columns(0).values()), [], finish=True)
    assert all(len(frame) == len(_core.record_fields()[name]) for name, frame in frames.items())
    assert target.finish() == []
    assert not any(target.counts().values())


def test_run_refuses_a_second_contract_behind_an_empty_bar_as_step_does() -> None:
    """The first bar of the other contract has no volume and is removed; the next is refused."""
    start = 1_704_207_600_000_000_000
    minute = 60_000_000_000
    price = 4770 * 10**9
    rows = [
        (start + k * minute, price, price, price, price, 0 if k == 3 else 100) for k in range(9)
    ]
    names = ["ESM4" if 3 <= k < 7 else "ESH4" for k in range(9)]

    def engine() -> _core.Engine:
        return Engine(Config.preset(), "ES")._core

    stepped = engine()
    for row, name in zip(rows[:4], names, strict=False):
        stepped.step(*row, symbol=name)
    with pytest.raises(DataError) as by_step:
        stepped.step(*rows[4], symbol=names[4])
    ts, opens, highs, lows, closes, volumes = (
        np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)
    )
    stretches = [(0, "ESH4"), (3, "ESM4"), (7, "ESH4")]
    with pytest.raises(DataError) as by_run:
        engine().run(ts, opens, highs, lows, closes, volumes, stretches)
    assert by_run.value.row == 4
    assert (by_run.value.column, by_run.value.found) == (by_step.value.column, by_step.value.found)
