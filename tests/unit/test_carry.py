"""An account that changes engines between sessions goes on as if nothing had happened."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore import Config, Engine, sample
from clustercore.errors import DataError
from clustercore.events import Order, Signal, Trade
from clustercore.sessions import load_sessions
from tests.property.families import FAMILIES, family, random_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clustercore.events import Event

MINUTE = 60 * 10**9
SESSIONS = 40
# Sessions that begin a contract.
ROLLS = (9, 20, 31)
TABLE = load_sessions("globex_equity")


class Step(NamedTuple):
    """What `Engine.step` takes."""

    ts_event: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    actionable: bool
    context: bool
    symbol: str


class Day(NamedTuple):
    """A session: its bars, with the roll before them, and its close."""

    bars: tuple[Step, ...]
    close: int


@functools.cache
def days() -> tuple[Day, ...]:
    """Return sessions that end early now and then, miss bars, and roll three times."""
    draw = random.Random("days")
    columns = sample(SESSIONS, seed=3).columns_nanos()
    rows = [columns[name] for name in ("ts_event", "open", "high", "low", "close", "volume")]
    place = np.searchsorted(TABLE.close_ns, columns["ts_event"], side="right")
    found: list[Day] = []
    symbol = "ESZ4"
    for session in np.unique(place).tolist():
        held = place == session
        bars = [
            Step._make((*values, draw.random() > 0.02, False, symbol))
            for values in zip(*(row[held].tolist() for row in rows), strict=True)
        ]
        rolled: list[Step] = []
        if len(found) in ROLLS:
            symbol = f"ES{'HMU'[ROLLS.index(len(found))]}5"
            bars = [bar._replace(symbol=symbol) for bar in bars]
            # The last session of the new contract, or no word of it.
            rolled = [
                bar._replace(symbol=symbol, context=True)
                for bar in found[-1].bars
                if len(found) != ROLLS[1]
            ]
        early = draw.choice((0, 0, 10, 120, 180, 240, 300, 360, 420))
        kept = [bar for bar in bars[: len(bars) - early] if draw.random() > 0.01]
        found.append(Day((*rolled, *kept), int(TABLE.close_ns[session])))
    return tuple(found)


def new_engine(settings: dict[str, dict[str, Any]]) -> Engine:
    return Engine(Config(settings), "ES", TABLE, MINUTE)


def live(engine: Engine, day: Day, reset: int | None) -> list[Event]:
    """Return what a session causes; the operator resets after bar `reset`."""
    said: list[Event] = []
    for place, bar in enumerate(day.bars):
        said += engine.step(*bar)
        if place == reset:
            said += engine.operator("reset_halt")
    return said + engine.advance(day.close)


def warm(settings: dict[str, dict[str, Any]], past: Sequence[Day]) -> Engine:
    """Return an engine that has seen sessions without acting on them."""
    engine = new_engine(settings)
    for day in past:
        for bar in day.bars:
            engine.step(*bar._replace(actionable=False))
        engine.advance(day.close)
    return engine


def resets(case: str) -> list[int | None]:
    draw = random.Random(f"{case} resets")
    return [draw.choice((None, None, None, 0, 300)) for _ in range(SESSIONS)]


def straight(
    settings: dict[str, dict[str, Any]], case: str
) -> tuple[list[list[Event]], list[dict[str, Any]]]:
    """Return the events of each session and the state after it, of one engine."""
    engine = new_engine(settings)
    said, states = [], []
    for day, reset in zip(days(), resets(case), strict=True):
        said.append(live(engine, day, reset))
        states.append(json.loads(engine.account_state()))
    return said, states


def kinds(state: dict[str, Any]) -> Iterator[str]:
    """Yield what is special about a state."""
    account = state["account"]
    yield from (name for name in ("halted", "paused") if account[name])
    if account["losses"]:
        yield "losses"
    if state["positions"]:
        yield "open"
        if len(state["positions"]) > 1:
            yield "several"
        if any(position["legs"] for position in state["positions"]):
            yield "legs"
        if any(position["open"] < position["quantity"] for position in state["positions"]):
            yield "scaled"
    if state["past"]:
        yield "past"


def boundaries(states: list[dict[str, Any]]) -> list[int]:
    """Return places to change engines: two of each kind of state, and the first."""
    found = {0}
    seen: dict[str, int] = {}
    for place, state in enumerate(states[:-1]):
        for kind in kinds(state):
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] <= 2 or (kind == "open" and place + 1 in ROLLS):
                found.add(place)
    return sorted(found)


# More of what lasts beyond a session: limits that are reached, and positions held for hours.
LASTING: dict[str, tuple[str, dict[str, Any]]] = {
    "halt for good": ("hedge", {"risk.max_drawdown_pct": 1.0, "learning.context": "volume_rank"}),
    "halt until the next": (
        "reverse",
        {"risk.max_drawdown_pct": 0.5, "risk.on_halt": "next_session", "learning.context": "none"},
    ),
    "pauses": (
        "no retest",
        {"risk.max_consecutive_losses": 2, "learning.mode": "score", "learning.context": "hour"},
    ),
    "long holds": (
        "hedge",
        {
            "exit.max_hold_minutes": 600,
            "stop.k": 3.0,
            "target.reward": 3.0,
            "learning.lookback_days": 10,
            "learning.min_trades": 0,
        },
    ),
    "long holds in parts": (
        "scale-out",
        {
            "exit.max_hold_minutes": 600,
            "stop.k": 3.0,
            "exit.trailing": "true_range",
            "entry.mode": "close",
            "size.base": 6.0,
        },
    ),
}
CASES = [*FAMILIES, *LASTING, *(f"random {seed}" for seed in range(8))]


def settings_of(case: str) -> dict[str, dict[str, Any]]:
    base: dict[str, Any] = {"baseline.min_sessions": 1}
    if case in LASTING:
        name, more = LASTING[case]
        return family(name, {**base, **more})
    if case in FAMILIES:
        return family(case, base)
    return random_settings(int(case.split()[1]), base)


@pytest.mark.parametrize("case", CASES)
def test_changing_engines_between_sessions_changes_nothing(case: str) -> None:
    settings = settings_of(case)
    expected, states = straight(settings, case)
    engine = new_engine(settings)
    changes = boundaries(states)
    for place, (day, reset) in enumerate(zip(days(), resets(case), strict=True)):
        assert live(engine, day, reset) == expected[place], place
        text = engine.account_state()
        assert json.loads(text) == states[place]
        if place in changes:
            engine = warm(settings, days()[: place + 1])
            engine.take_over(text)
            assert engine.account_state() == text


def test_the_cases_change_engines_in_every_kind_of_state() -> None:
    seen: dict[str, int] = {}
    stale = late = 0
    for case in LASTING:
        said, states = straight(settings_of(case), case)
        for place in boundaries(states):
            for kind in kinds(states[place]):
                seen[kind] = seen.get(kind, 0) + 1
            if states[place]["positions"]:
                first = next(event for event in said[place + 1] if isinstance(event, Trade))
                stale += first.stale
                late += first.exit_reason == "session_end_late"
    assert set(seen) == {"halted", "paused", "losses", "open", "several", "legs", "scaled", "past"}
    assert stale >= 2
    assert late > stale


@functools.cache
def held_open() -> tuple[str, tuple[Day, ...], Day]:
    """Return a state with several open positions, the sessions before it, and the next."""
    _, states = straight(settings_of("long holds"), "")
    place = next(
        place
        for place, state in enumerate(states)
        if len(state["positions"]) > 1 and place > 20 and place + 1 not in ROLLS
    )
    engine = warm(settings_of("long holds"), ())
    for day, reset in zip(days()[: place + 1], resets(""), strict=False):
        live(engine, day, reset)
    return engine.account_state(), days()[: place + 1], days()[place + 1]


@pytest.mark.parametrize("context", ["none", "modal_bin", "volume_rank", "hour"])
def test_records_are_sorted_into_the_contexts_of_the_new_settings(context: str) -> None:
    # No multiplier above 1, so that what is learnt shows in the rows and changes no trade.
    alike = {"learning.max": 1.0, "learning.lookback_days": None, "rank.top_n": 4}
    old = family("default", {**alike, "baseline.min_sessions": 1, "learning.bins": 7})
    new = Config(old).override({"learning.context": context, "learning.bins": 4}).to_dict()
    expected, _ = straight(new, "contexts")
    said, states = straight(old, "contexts")
    place = max(place for place, state in enumerate(states[:-5]) if not state["positions"])
    trades = [event for day in said[: place + 1] for event in day if isinstance(event, Trade)]
    assert len(trades) == len(states[place]["past"]) > 10
    for fact in ("modal_position", "rank", "new_york_hour"):
        assert len({trade[fact] for trade in states[place]["past"]}) > 1
    engine = warm(new, days()[: place + 1])
    state = states[place]
    engine.take_over(json.dumps(state))
    rest = list(zip(days(), resets("contexts"), strict=True))[place + 1 :]
    after = [live(engine, day, reset) for day, reset in rest]
    # What is still open now was confirmed under the new settings, so every row is the same.
    assert after == expected[place + 1 :]
    orders = [event for day in after for event in day if isinstance(event, Order)]
    means = [order.posterior_mean for order in orders if order.posterior_mean is not None]
    assert any(mean != 0.5 for mean in means)


def test_a_state_is_canonical_and_survives_an_engine_without_bars() -> None:
    text, _, next_day = held_open()
    state = json.loads(text)
    for row in (state, state["account"], state["past"][0], state["positions"][0]):
        assert [*row] == sorted(row)
    assert not set(text) & set(" \n")
    engine = new_engine(settings_of("long holds"))
    engine.take_over(text)
    assert engine.account_state() == text
    rows = engine.open_trades()
    assert [row.trade_id for row in rows] == [row["trade_id"] for row in state["positions"]]
    assert {row.exit_price for row in rows if row.quantity == 1} <= {state["last_close"] / 1e9}
    # The position leaves at its own contract's next bar, or at its last price without one.
    said = engine.step(*next_day.bars[0])
    ended = [event for event in said if isinstance(event, Trade)]
    assert {event.exit_reason for event in ended} == {"session_end_late"}
    assert not any(event.stale for event in ended)
    engine = new_engine(settings_of("long holds"))
    engine.take_over(text)
    ended = [
        event
        for event in engine.step(*next_day.bars[0]._replace(symbol="ESU9"))
        if isinstance(event, Trade)
    ]
    assert all(event.stale for event in ended)
    assert len(ended) == len(rows)


def test_what_the_entry_was_stays_with_the_position() -> None:
    settings = settings_of("long holds in parts")
    _, states = straight(settings, "")
    place = next(place for place, state in enumerate(states) if state["positions"])
    other = Config(settings).override({"entry.mode": "next_open"}).to_dict()
    engine = warm(other, days()[: place + 1])
    engine.take_over(json.dumps(states[place]))
    assert all(row.optimistic for row in engine.open_trades())


def test_an_account_changes_hands_between_sessions_only() -> None:
    text, _, day = held_open()
    engine = new_engine(settings_of("default"))
    engine.step(*day.bars[0])
    for call in (engine.account_state, lambda: engine.take_over(text)):
        with pytest.raises(DataError, match="only between sessions") as refused:
            call()
        assert refused.value.expected == "advance() to the session's close before"
    engine.advance(day.close)
    assert json.loads(engine.account_state())["last_close"] == day.bars[0].close


def test_an_engine_that_has_traded_takes_nothing_over() -> None:
    text, past, day = held_open()
    engine = warm(settings_of("long holds"), past)
    engine.take_over(text)
    with pytest.raises(DataError, match="the engine has an account"):
        engine.take_over(text)
    live(engine, day, None)
    before = engine.account_state()
    with pytest.raises(DataError, match="the engine has an account"):
        engine.take_over(text)
    assert engine.account_state() == before


def test_open_positions_of_another_contract_are_refused() -> None:
    text, past, _ = held_open()
    moved = past[-1]._replace(bars=tuple(bar._replace(symbol="ESU9") for bar in past[-1].bars))
    engine = warm(settings_of("long holds"), [*past[:-1], moved])
    before = engine.account_state()
    with pytest.raises(DataError, match="another contract") as refused:
        engine.take_over(text)
    assert refused.value.expected == "ESU9"
    assert engine.account_state() == before


def edited(path: str, value: object) -> str:
    """Return the state with another value at a path such as ``positions.0.open``."""
    state = json.loads(held_open()[0])
    *parents, last = path.split(".")
    place = state
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    place[last] = value
    return json.dumps(state)


REFUSED: list[tuple[str, object, str]] = [
    ("version", 2, "version 2"),
    ("version", "1", "invalid type"),
    ("root", "NQ", "NQ"),
    ("more", 1, "unknown field `more`"),
    ("account.balance", float("nan"), "expected value"),
    ("account.balance", float("inf"), "expected value"),
    ("account.balance", None, "invalid type"),
    ("account.losses", -1, "-1"),
    ("account.losses", 1.5, "invalid type"),
    ("last_end", 2**63 - 1, str(2**63 - 1)),
    ("last_confirmed", -(2**63), str(-(2**63))),
    ("last_close", 10**18, str(10**18)),
    ("past.0.rank", 0, "0"),
    ("past.0.new_york_hour", 24, "24"),
    ("past.0.exit_time", 2**63, "invalid value"),
    ("positions.0.open", 0, "0"),
    ("positions.0.open", 2**40, str(2**40)),
    ("positions.0.direction", "up", "`up` is no direction"),
    ("positions.0.left", str(-(2**127)), str(-(2**127))),
    ("positions.0.left", "+1", "no whole number"),
    ("positions.0.trade_id", "AB", "not 32 digits"),
    ("positions.0.sigma_source", "wind", "no source of volatility"),
    ("positions.0.legs", [{"price": 1, "quantity": 99}], "99"),
    ("positions.0.decision_time", 2**62 + 1, str(2**62 + 1)),
    ("positions.1.symbol", "ESU9", "ESU9"),
]


@pytest.mark.parametrize(("path", "value", "found"), REFUSED)
def test_what_no_account_can_be_is_refused(path: str, value: object, found: str) -> None:
    engine = warm(settings_of("long holds"), held_open()[1][-1:])
    before = engine.account_state()
    with pytest.raises(DataError) as refused:
        engine.take_over(edited(path, value))
    assert found in str(refused.value.found)
    assert engine.account_state() == before


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "1e999", "{}", "\ud800", "[" * 10_000])
def test_text_that_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not the state of an account"):
        new_engine(settings_of("default")).take_over(text)


def test_a_state_lacks_no_field() -> None:
    whole = json.loads(held_open()[0])
    places = [(), ("account",), ("past", 0), ("positions", 0)]
    for path in places:
        names = functools.reduce(lambda place, name: place[name], path, whole)
        for name in names:
            state = json.loads(held_open()[0])
            del functools.reduce(lambda place, name: place[name], path, state)[name]
            with pytest.raises(DataError, match="missing field"):
                new_engine(settings_of("default")).take_over(json.dumps(state))


LEAVES = st.one_of(
    st.integers(-(2**64), 2**64),
    st.sampled_from([0, 1, -1, 2**31, 2**40, 2**61, 2**62, 10**18 - 1, 2 * 10**18, -(10**18) + 1]),
    st.floats(),
    st.text(max_size=5),
    st.none(),
    st.booleans(),
    st.just([]),
    st.just({}),
)


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list) and value:
        # The first and last rows stand for all.
        for place in {0, len(value) - 1}:
            inner = value[place]
            if isinstance(inner, dict):
                for name, leaf in inner.items():
                    yield from leaves(leaf, (*path, str(place), name))
    else:
        yield ".".join(path)


@given(data=st.data())
def test_hostile_values_are_refused_or_lived_with(data: st.DataObject) -> None:
    text, past, day = held_open()
    state = json.loads(text)
    paths = sorted(leaves(state))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths))
        *parents, last = path.split(".")
        place = state
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        place[last] = data.draw(LEAVES)
    engine = warm(settings_of("long holds"), past[-1:])
    before = engine.account_state()
    try:
        engine.take_over(json.dumps(state))
    except DataError:
        assert engine.account_state() == before
        return
    engine.open_trades()
    engine.operator("reset_halt")
    # A panic would be an InternalError.
    for bar in day.bars[:200]:
        engine.step(*bar)
    engine.advance(day.close)


@given(data=st.data())
def test_hostile_text_is_refused_or_lived_with(data: st.DataObject) -> None:
    text, _, day = held_open()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 3))
        more = data.draw(st.text(st.sampled_from('0123456789.-eE{}[]",:nul\\'), max_size=4))
        text = text[:place] + more + text[place + gone :]
    engine = new_engine(settings_of("long holds"))
    try:
        engine.take_over(text)
    except DataError:
        return
    for bar in day.bars[:50]:
        engine.step(*bar)


@pytest.mark.parametrize("case", ["long holds", "limit at the close", "scale-out"])
def test_looking_at_what_is_open_changes_nothing(case: str) -> None:
    settings = settings_of(case)
    plain, watched = new_engine(settings), new_engine(settings)
    armed: dict[tuple[int, float], Signal] = {}
    working: dict[str, Order] = {}
    most = [0, 0, 0]
    for day in days()[20:26]:
        for bar in day.bars:
            said = watched.step(*bar)
            said += watched.advance(bar.ts_event + MINUTE)
            expected = plain.step(*bar)
            assert said == expected + plain.advance(bar.ts_event + MINUTE)
            note(said, armed, working)
            signals, orders, trades = (
                watched.pending_signals(),
                watched.working_orders(),
                watched.open_trades(),
            )
            assert signals == list(armed.values())
            assert orders == list(working.values())
            assert watched.finish() == trades
            assert all(trade.exit_reason == "open" for trade in trades)
            assert all(trade.exit_time == bar.ts_event + MINUTE for trade in trades)
            counts = plain.counts()
            assert watched.counts() == counts
            assert len(trades) == counts["open_positions"]
            lengths = (len(signals), len(orders), len(trades))
            most = [max(pair) for pair in zip(most, lengths, strict=True)]
        note(watched.advance(day.close), armed, working)
        plain.advance(day.close)
    assert min(most) > 0


def note(
    said: Sequence[Event], armed: dict[tuple[int, float], Signal], working: dict[str, Order]
) -> None:
    """Keep the signals that wait and the orders that work, from their events."""
    for event in said:
        if isinstance(event, Signal):
            key = (event.decision_time, event.modal_price)
            if event.reason == "armed":
                armed[key] = event
            else:
                assert replace(
                    event, reason="armed", resolved_time=0, confirmed_time=None
                ) == replace(armed.pop(key), resolved_time=0)
        elif isinstance(event, Order):
            if event.reason == "working":
                working[event.trade_id] = event
            else:
                working.pop(event.trade_id, None)
