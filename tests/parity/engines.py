"""The Rust engine behind the interface of the oracle, and the comparison of the two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustercore import _core, events
from tests import reference
from tests.reference import Advance, Bar, Context, Frames, Input, Late, Operator, Row, Trade

FRAMES = ("clusters", "signals", "orders", "trades", "equity", "risk")
_FRAME_OF = {
    events.Cluster: "clusters",
    events.Signal: "signals",
    events.Order: "orders",
    events.Trade: "trades",
    events.Equity: "equity",
    events.Risk: "risk",
}
COLUMNS = {name: {c["name"]: c for c in columns} for name, columns in _core.record_fields().items()}


def session_columns(sessions: Sequence[reference.Session]) -> dict[str, np.ndarray]:
    """Return sessions as the columns that the engine takes; hours of None mean all of it."""
    columns: dict[str, list[int]] = {
        name: []
        for name in (
            "open_ns",
            "close_ns",
            "trade_date",
            "new_york_offset_s",
            *tuple(
                f"{what}_{part}"
                for what in ("hours", "halts")
                for part in ("session", "start_ns", "end_ns")
            ),
        )
    }
    for index, session in enumerate(sessions):
        columns["open_ns"].append(session.open)
        columns["close_ns"].append(session.close)
        columns["trade_date"].append(session.trade_date)
        columns["new_york_offset_s"].append(session.new_york_offset_s)
        whole = [(session.open, session.close)]
        hours = whole if session.hours is None else session.hours
        for what, spans in (("hours", hours), ("halts", session.halts)):
            for start, end in spans:
                columns[f"{what}_session"].append(index)
                columns[f"{what}_start_ns"].append(start)
                columns[f"{what}_end_ns"].append(end)
    return {
        name: np.array(
            values, dtype=np.int32 if name in ("trade_date", "new_york_offset_s") else np.int64
        )
        for name, values in columns.items()
    }


def rust_engine(
    config: dict[str, dict[str, Any]],
    instrument: reference.Instrument,
    sessions: Sequence[reference.Session],
    interval_ns: int,
    config_id: str = "",
) -> _core.Engine:
    """Return a Rust engine for the oracle's instrument and sessions."""
    own = {"check_tick": instrument.check_tick, "allow_negative": instrument.allow_negative}
    settings = {**config, "instrument": {**config["instrument"], **own}}
    return _core.Engine(
        settings,
        config_id,
        {
            "root": "ES",
            "tick_nanos": instrument.tick_nanos,
            "point_value": instrument.point_value,
            "commission": instrument.commission,
            "margin": instrument.margin,
        },
        session_columns(sessions),
        interval_ns,
    )


def run_columns(
    engine: _core.Engine,
    columns: Sequence[NDArray[np.int64]],
    stretches: list[tuple[int, str]],
    context: NDArray[np.bool_] | None = None,
    actionable: NDArray[np.bool_] | None = None,
    *,
    finish: bool = False,
) -> dict[str, Any]:
    """Give the engine columns: start, open, high, low, close, volume."""
    start, opened, high, low, close, volume = columns
    return engine.run(
        start, opened, high, low, close, volume, stretches, context, actionable, finish
    )


def feed(engine: _core.Engine, item: Input) -> list[events.Event]:
    """Give the engine one input and return its events."""
    match item:
        case Bar():
            return engine.step(*item[:6], symbol=item.symbol)
        case Late(bar):
            return engine.step(*bar[:6], actionable=False, symbol=bar.symbol)
        case Context(bar):
            return engine.step(*bar[:6], context=True, symbol=bar.symbol)
        case Trade(ts, price, size):
            engine.trade(ts, price, size)
            return []
        case Advance(ts):
            return engine.advance(ts)
        case Operator():
            return engine.reset_halt()


def rust_events(
    inputs: Sequence[Input],
    config: dict[str, dict[str, Any]],
    instrument: reference.Instrument,
    sessions: Sequence[reference.Session],
    interval_ns: int,
    config_id: str = "",
) -> tuple[list[events.Event], dict[str, int]]:
    """Step through all inputs, finish, and return the events and counts."""
    engine = rust_engine(config, instrument, sessions, interval_ns, config_id)
    seen: list[events.Event] = []
    for item in inputs:
        seen += feed(engine, item)
    seen += engine.finish()
    return seen, engine.counts()


def event_rows(seen: Sequence[events.Event]) -> list[tuple[str, Row]]:
    """Return events as the oracle's log: frame and row, prices in points."""
    return [
        (
            _FRAME_OF[type(event)],
            {
                "return" if f.name == "net_return" else f.name: getattr(event, f.name)
                for f in fields(event)
            },
        )
        for event in seen
    ]


def in_points(frame: str, row: Row) -> Row:
    """Return a row of the oracle with its prices in points."""
    return {
        name: value / 1e9
        if COLUMNS[frame][name]["kind"] == "price" and value is not None
        else value
        for name, value in row.items()
        if name in COLUMNS[frame]
    }


def differences(frame: str, found: Row, expected: Row, relative: float = 1e-12) -> list[str]:
    """Return what differs between a row of Rust and one of the oracle, both in points."""
    wrong = []
    for name, column in COLUMNS[frame].items():
        left, right = found[name], expected[name]
        if column["kind"] == "float" and left is not None and right is not None:
            same = math.isclose(left, right, rel_tol=relative, abs_tol=1e-12)
        else:
            same = left == right
        if not same:
            wrong.append(f"{frame}.{name}: rust {left!r}, oracle {right!r}")
    return wrong


def compare_logs(found: Sequence[tuple[str, Row]], expected: Sequence[tuple[str, Row]]) -> None:
    """Assert that two logs of events are the same, in the same order."""
    for place, ((frame, left), (other, right)) in enumerate(zip(found, expected, strict=False)):
        shown = in_points(other, right)
        assert frame == other, f"event {place}: rust {frame} {left}\noracle {other} {shown}"
        wrong = differences(frame, left, shown)
        assert not wrong, f"event {place}: {wrong}\nrust {left}\noracle {shown}"
    longer = found[len(expected) :] or expected[len(found) :]
    assert len(found) == len(expected), f"{len(found)} and {len(expected)} events; next {longer[0]}"


def assert_parity(
    inputs: Sequence[Input],
    config: dict[str, dict[str, Any]],
    instrument: reference.Instrument,
    sessions: Sequence[reference.Session],
    interval_ns: int,
) -> Frames:
    """Assert that Rust and the oracle say the same of some inputs; return the oracle's frames."""
    oracle = reference.run_engine(inputs, config, instrument, sessions, interval_ns, "id")
    seen, counts = rust_events(inputs, config, instrument, sessions, interval_ns, "id")
    compare_logs(event_rows(seen), oracle.events)
    for row in oracle.frames["funnel"]:
        assert counts[row["stage"]] == row["count"], row
    return oracle.frames
