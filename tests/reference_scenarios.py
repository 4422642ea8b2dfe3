"""Small markets with the rows that the specification asks for, worked out by hand.

They are data: any engine that takes settings, sessions and inputs and returns frames can be held
against them. Prices are nanos and times nanoseconds, as in the reference engine.

The usual market: sessions of one hour, one-minute bars, tick 0.25, 50 USD a point, 11.875 USD a
contract and side. A window has five minutes; the baseline is fixed at 100 contracts a minute and
a cluster trades 400 or more. `long_at(0)` is a cluster of 500 contracts from 100 to 101 with 300 of
them at 100: modal position 0, strength 1. `retest(5)` closes one tick above 100.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from tests.reference import (
    DAY,
    MINUTE,
    Advance,
    Bar,
    Context,
    Input,
    Instrument,
    Late,
    Operator,
    Session,
    Trade,
)

Settings = dict[str, dict[str, Any]]
Expected = dict[str, Any]
FIRST_DAY = 20_000
SIDE = 11.875

BASE: Settings = {
    "baseline": {"mode": "fixed", "value": 100.0},
    "cluster": {"minutes": 5, "basis": "minute", "threshold": 4.0},
    "rank": {"top_n": 10},
    "profile": {"start_minute": 0, "end_minute": 5},
    "momentum": {"start_minute": -5, "end_minute": 0},
    "signal": {"volume_cap": 5.0},
    "retest": {"test": "close", "tolerance": "2 ticks", "timeout_minutes": 10},
    "stop": {"mode": "fixed", "distance": "4 ticks"},
    "target": {"mode": "fixed", "distance": "8 ticks"},
    "exit": {"max_hold_minutes": 20},
    "learning": {"mode": "off", "context": "none"},
    "size": {"signal_scale": 0.0},
    "risk": {"max_open_contracts": None},
}


def at(minute: float, day: int = 0) -> int:
    """Return the instant so many minutes after the open of a day's session."""
    return (FIRST_DAY + day) * DAY + round(minute * MINUTE)


def px(points: float) -> int:
    """Return a price in nanos."""
    return round(points * 1e9)


def session(day: int = 0, minutes: int = 60, **changes: Any) -> Session:
    """Return the session of a day, open at midnight UTC."""
    values: dict[str, Any] = {
        "trade_date": FIRST_DAY + day,
        "open": at(0, day),
        "close": at(minutes, day),
        "hours": ((at(0, day), at(minutes, day)),),
    }
    return Session(**(values | changes))


def bars(text: str, day: int = 0, symbol: str = "ESZ5") -> list[Bar]:
    """Read lines of `minute open high low close volume`; `;` separates too."""
    rows = [line.split() for line in text.replace(";", "\n").splitlines() if line.strip()]
    return [
        Bar(
            at(int(minute), day),
            px(float(o)),
            px(float(h)),
            px(float(lo)),
            px(float(c)),
            int(v),
            symbol,
        )
        for minute, o, h, lo, c, v in rows
    ]


def flat(
    first: int, last: int, price: float, volume: int = 10, day: int = 0, symbol: str = "ESZ5"
) -> list[Bar]:
    """Return bars that do not move, from minute `first` to before minute `last`."""
    return [
        Bar(at(minute, day), px(price), px(price), px(price), px(price), volume, symbol)
        for minute in range(first, last)
    ]


def moved(rows: list[Bar], minutes: int) -> list[Bar]:
    """Return bars moved in time."""
    return [row._replace(start=row.start + minutes * MINUTE) for row in rows]


def priced(rows: list[Bar], points: float) -> list[Bar]:
    """Return bars moved in price."""
    by = px(points)
    return [
        row._replace(open=row.open + by, high=row.high + by, low=row.low + by, close=row.close + by)
        for row in rows
    ]


def long_at(minute: int, day: int = 0, symbol: str = "ESZ5") -> list[Bar]:
    """Return a cluster with its modal price at the bottom of its range."""
    rows = bars(
        """0 100.25 101.00 100.00 100.00 300
           1 100.00 100.75 100.00 100.50 50
           2 100.50 101.00 100.25 100.75 50
           3 100.75 101.00 100.50 101.00 50
           4 101.00 101.00 100.75 100.75 50""",
        day,
        symbol,
    )
    return moved(rows, minute)


def short_at(minute: int, day: int = 0, symbol: str = "ESZ5") -> list[Bar]:
    """Return a cluster with its modal price at the top of its range."""
    rows = bars(
        """0 100.75 101.00 100.00 101.00 300
           1 101.00 101.00 100.25 100.50 50
           2 100.50 100.75 100.00 100.25 50
           3 100.25 100.50 100.00 100.00 50
           4 100.00 100.25 100.00 100.25 50""",
        day,
        symbol,
    )
    return moved(rows, minute)


def retest(minute: int, day: int = 0, symbol: str = "ESZ5") -> list[Bar]:
    """Return a bar that closes one tick above 100."""
    return bars(f"{minute} 100.75 100.75 100.25 100.25 10", day, symbol)


def retest_high(minute: int, day: int = 0) -> list[Bar]:
    """Return a bar that closes one tick below 101."""
    return bars(f"{minute} 100.25 100.75 100.25 100.75 10", day)


def entered(day: int = 0, symbol: str = "ESZ5") -> list[Bar]:
    """Return a cluster, its retest, and the entry at 100.50: stop 99.50, target 102.50."""
    return [
        *long_at(0, day, symbol),
        *retest(5, day, symbol),
        *bars("6 100.50 100.75 100.25 100.50 10", day, symbol),
    ]


def won(day: int, symbol: str = "ESZ5") -> list[Bar]:
    """Return a day whose only trade reaches its target: net 76.25."""
    return [*entered(day, symbol), *bars("7 100.50 102.75 100.50 102.50 10", day, symbol)]


def lost(day: int, symbol: str = "ESZ5") -> list[Bar]:
    """Return a day whose only trade reaches its stop: net -73.75."""
    return [*entered(day, symbol), *bars("7 100.50 100.50 99.50 99.75 10", day, symbol)]


@dataclass(frozen=True)
class Scenario:
    """Inputs and what must come of them; only the named columns are compared."""

    name: str
    inputs: list[Input]
    expected: Expected
    settings: Settings = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=lambda: [session()])
    instrument: Instrument = field(default_factory=Instrument)
    interval_ns: int = MINUTE
    refused: tuple[int | None, str] | None = None


SCENARIOS: list[Scenario] = []


def add(name: str, inputs: Any, expected: Expected | None = None, **rest: Any) -> None:
    """Add a scenario to the list."""
    SCENARIOS.append(Scenario(name, list(inputs), expected or {}, **rest))


def days(count: int, minutes: int = 60) -> list[Session]:
    """Return sessions of consecutive days."""
    return [session(day, minutes) for day in range(count)]


ORDINARY_TRADE = {"entry_time": at(6), "entry_price": px(100.5)}

# Section 1: bars.

FUNNEL_ONE = {"bars": 7, "windows": 1, "thin": 0, "warming_up": 0, "quiet": 0, "clusters": 1}

add(
    "zero volume is dropped before every check",
    [*entered(), Bar(at(3) + 1, -1, 0, 5, 7, 0, "NQ")],
    {"funnel": FUNNEL_ONE | {"zero_volume": 1, "outside_session": 0}},
)
add(
    "a bar outside every session is left out and moves no time",
    [*bars("70 1 1 1 1 5"), *won(1)],
    {"funnel": {"outside_session": 1, "bars": 8}, "trades": [{"exit_reason": "target"}]},
    sessions=days(2),
)
GOOD = Bar(at(0), px(100), px(101), px(99), px(100), 5)
for problem, row, column in (
    ("time before", GOOD, "ts_event"),
    ("time off the grid", GOOD._replace(start=at(1) + 1), "ts_event"),
    ("high below close", GOOD._replace(start=at(1), high=px(99.75)), "high"),
    ("high below open", GOOD._replace(start=at(1), open=px(101.25)), "high"),
    ("low above open", GOOD._replace(start=at(1), low=px(100.25)), "low"),
    ("price off the tick", GOOD._replace(start=at(1), close=px(100.1)), "close"),
    ("price of zero", GOOD._replace(start=at(1), low=0), "low"),
    ("negative price", GOOD._replace(start=at(1), low=px(-1)), "low"),
    ("undefined price", GOOD._replace(start=at(1), high=(1 << 63) - 1), "high"),
    ("negative volume", GOOD._replace(start=at(1), volume=-1), "volume"),
    ("another symbol in the session", GOOD._replace(start=at(1), symbol="NQZ5"), "symbol"),
):
    add(f"refused: {problem}", [GOOD, row], refused=(1, column))
add(
    "refused: a bar that ends at the last advance",
    [GOOD, Advance(at(2)), GOOD._replace(start=at(1))],
    refused=(1, "ts_event"),
)
add(
    "a bar that ends after the last advance is taken; advance rounds down to the grid",
    [GOOD, Advance(at(2.5)), GOOD._replace(start=at(2))],
    {"funnel": {"bars": 2}},
)
add(
    "an off-tick price passes with check_tick off and counts at the nearest tick, halves up",
    [
        bar._replace(close=bar.close + 125_000_000) if bar.start == at(0) else bar
        for bar in long_at(0)
    ],
    {"clusters": [{"modal_price": px(100.25)}]},
    instrument=Instrument(check_tick=False),
)
add(
    "a negative price passes when allowed, and sigma falls back to the price rule",
    priced(entered(), -200.0),
    # Reference price -99.75: 0.0015 + 99.75e-6. Six bars exist, so the estimator has enough.
    {"orders": [{"sigma_source": "price", "sigma_hold": 0.0015 + 99.75e-6}]},
    settings={"volatility": {"min_minutes": 2, "atr_minutes": 240, "atr_min_minutes": 2}},
    instrument=Instrument(allow_negative=True),
)
add(
    "refused: a window shorter than a bar",
    [GOOD],
    interval_ns=10 * MINUTE,
    refused=(None, "cluster.minutes"),
)
add(
    "refused: a session that opens off the grid",
    [GOOD],
    sessions=[session(open=at(0) - 1)],
    refused=(0, "ts_event"),
)
add(
    "windows and offsets are rounded outward to whole bars",
    # Two-minute bars: W 5 becomes 6, need is 3, the profile [-1, 5) becomes [-2, 6).
    bars(
        "0 100 100 100 100 1; 2 100 101 99 100 9; 4 100 101 100 101 380; 6 101 101 101 101 430;"
        "8 101 102 101 102 400; 10 102 102 102 102 400; 12 100 100 100 100 1"
    ),
    {
        "clusters": [
            {
                "window_start": at(6),
                "decision_time": at(12),
                "minutes": 6.0,
                "volume_ratio": 12.3,
                # 380 + 430 at 101, 800 at 102: the bar at 4 counts; the low of 99 at 2 does not.
                "modal_price": px(101),
                "modal_position": 0.5,
                "low": px(101),
            }
        ]
    },
    settings={"profile": {"start_minute": -1, "end_minute": 5}},
    interval_ns=2 * MINUTE,
)

# --- sections 5 and 7: what a cluster records ----------------------------------------------------

add(
    "everything a cluster, signal, order and open trade record",
    entered(),
    {
        "clusters": [
            {
                "symbol": "ESZ5",
                "window_start": at(0),
                "decision_time": at(5),
                "open": px(100.25),
                "high": px(101),
                "low": px(100),
                "close": px(100.75),
                "volume": 500,
                "minutes": 5.0,
                "baseline": 100.0,
                "baseline_source": "fixed",
                "volume_ratio": 5.0,
                "rank": 1,
                "modal_price": px(100),
                "modal_tied": False,
                # 70 % of 500 is 350: 300 at 100, nothing at 100.25, 50 at 100.50.
                "value_area_low": px(100),
                "value_area_high": px(100.5),
                "modal_position": 0.0,
                "momentum": None,
                "direction": "long",
                "strength": 1.0,
                "reason": "armed",
            }
        ],
        "signals": [
            {
                "symbol": "ESZ5",
                "decision_time": at(5),
                "direction": "long",
                "modal_price": px(100),
                "confirmed_time": at(6),
                "resolved_time": at(6),
                "reason": "ordered",
            }
        ],
        "orders": [
            {
                "confirmed_time": at(6),
                "mode": "next_open",
                "quantity": 1,
                "limit_price": None,
                "reference_price": px(100.25),
                "stop_distance": px(1),
                "target_distance": px(2),
                "sigma_hold": 0.0015 + 100.25e-6,
                "sigma_source": "price",
                "context": None,
                "multiplier": 1.0,
                "posterior_mean": None,
                "valid_until": at(11),
                "entry_time": at(6),
                "entry_price": px(100.5),
                "resolved_time": at(6),
                "reason": "filled",
            }
        ],
        "trades": [
            {
                "direction": "long",
                "quantity": 1,
                "decision_time": at(5),
                "confirmed_time": at(6),
                "entry_time": at(6),
                "entry_price": px(100.5),
                "stop": px(99.5),
                "target": px(102.5),
                "exit_time": at(7),
                "exit_price": 100.5,
                "exit_reason": "open",
                "ambiguous": False,
                "optimistic": False,
                "stale": False,
                "gross": 0.0,
                "costs": 23.75,
                "net": -23.75,
                "return": -23.75 / 5025.0,
                "mae": 0.25,
                "mfe": 0.25,
                "bars_held": 1,
            }
        ],
        # The entry's costs are in the balance; the open trade's exit is not.
        "equity": [
            {
                "time": at(7),
                "balance": 50_000 - SIDE,
                "equity": 50_000 - SIDE,
                "open_contracts": 1,
                "drawdown": SIDE,
            }
        ],
        "funnel": FUNNEL_ONE,
    },
)
add(
    "a short is the mirror of a long",
    [
        *short_at(0),
        *retest_high(5),
        *bars("6 100.50 100.75 100.25 100.50 10; 7 100.5 100.5 98.25 98.5 10"),
    ],
    {
        "clusters": [
            {"modal_price": px(101), "modal_position": 1.0, "direction": "short", "strength": 1.0}
        ],
        "trades": [
            {
                "direction": "short",
                "entry_price": px(100.5),
                "stop": px(101.5),
                "target": px(98.5),
                "exit_price": 98.5,
                "exit_reason": "target",
                "gross": 100.0,
                "net": 76.25,
                "mae": 0.25,
                "mfe": 2.0,
            }
        ],
    },
)
add(
    "with shorts off a high modal position has no direction",
    [*short_at(0), *retest_high(5)],
    {
        "clusters": [{"direction": "none", "strength": None, "rank": 1, "reason": "no_direction"}],
        "signals": [],
    },
    settings={"signal": {"shorts": False}},
)
add(
    "an average window is one on the window basis",
    flat(0, 5, 100.0, 100),
    {"clusters": [{"volume_ratio": 1.0, "modal_position": 0.5}], "funnel": {"clusters": 1}},
    settings={"cluster": {"basis": "window", "threshold": 1.0}},
)
add(
    "just below the threshold is quiet",
    flat(0, 5, 100.0, 79),
    {"clusters": [], "funnel": {"windows": 1, "quiet": 1}},
)
add(
    "a window with four of five bars is judged, with three it is thin",
    [*flat(0, 4, 100.0, 100), *flat(5, 8, 100.0, 200), *flat(10, 11, 100.0, 1)],
    {
        "clusters": [{"window_start": at(0), "minutes": 4.0, "volume_ratio": 4.0}],
        "funnel": {"windows": 2, "thin": 1, "clusters": 1},
    },
)
add(
    "windows before the first bar are thin, windows of a session without a bar do not exist",
    flat(12, 20, 100.0, 1, day=1),
    {"funnel": {"windows": 4, "thin": 3, "quiet": 1}},
    sessions=days(2),
)
add(
    "a window that would pass the close is not made",
    [*flat(0, 58, 100.0, 100), Advance(at(60))],
    {"funnel": {"windows": 11, "clusters": 11}},
    sessions=[session(minutes=58)],
)
add(
    "an interval that closes with no trade decides its window without a bar",
    [*long_at(0)[:4], *retest(6)],
    # The window's bars are 450 contracts without the one at 4.
    {
        "clusters": [{"decision_time": at(5), "volume_ratio": 4.5}],
        "signals": [{"confirmed_time": at(7), "reason": "ordered"}],
    },
)
add(
    "every bar ends a sliding window, and overlapping ones are suppressed",
    [*flat(0, 5, 100.0, 100), *flat(5, 11, 100.0, 100)],
    {
        "clusters": [
            {"window_start": at(0), "reason": "no_direction", "rank": 1},
            *(
                {"window_start": at(start), "reason": "overlap", "rank": None}
                for start in range(1, 5)
            ),
            {"window_start": at(5), "reason": "no_direction", "rank": 2},
            {"window_start": at(6), "reason": "overlap"},
        ],
        "funnel": {"windows": 7},
    },
    settings={"cluster": {"frame": "sliding", "threshold": 5.0}},
)
add(
    "sliding windows without suppression all rank, of equals the earlier better",
    flat(0, 7, 100.0, 100),
    {"clusters": [{"rank": 1}, {"rank": 2}, {"rank": 3}]},
    settings={"cluster": {"frame": "sliding", "suppress_overlap": False}},
)
add(
    "a sliding window with a later decision is decided without a bar",
    # The window [0, 5) is decided at 8, where no bar ends; the bar at 7 is missing.
    [*flat(0, 7, 100.0, 100), *flat(8, 9, 100.0, 100)],
    {
        "clusters": [
            {"window_start": at(0), "decision_time": at(8)},
            {"window_start": at(1), "decision_time": at(9)},
        ]
    },
    settings={
        "cluster": {"frame": "sliding", "suppress_overlap": False},
        "profile": {"end_minute": 8},
    },
)
add(
    "suppression ignores hours",
    flat(0, 7, 100.0, 100),
    {"clusters": [{"reason": "hours"}, {"reason": "overlap"}, {"reason": "overlap"}]},
    settings={"cluster": {"frame": "sliding"}, "session": {"hours": ["x"]}},
    sessions=[session(hours=((at(5), at(60)),))],
)

# Section 2: hours.

add(
    "a cluster is inside when start < decision <= end",
    [*flat(0, 5, 100.0, 100), *flat(5, 10, 100.0, 100), *flat(10, 15, 100.0, 100)],
    {
        "clusters": [
            {"reason": "hours", "rank": None, "strength": None},
            {"reason": "no_direction"},
            {"reason": "hours"},
        ]
    },
    settings={"session": {"hours": ["x"]}},
    sessions=[session(hours=((at(5), at(10)),))],
)
add(
    "hours end a bound retest",
    [*long_at(0), *flat(5, 7, 103.0), *retest(7)],
    {"signals": [{"reason": "hours", "resolved_time": at(7), "confirmed_time": None}]},
    settings={"hours": {"bind_entries": True}, "session": {"hours": ["x"]}},
    sessions=[session(hours=((at(0), at(7)),))],
)
add(
    "a bar that ends with the hours still confirms, and its order dies with them",
    [*long_at(0), *retest(5), *flat(6, 8, 100.5)],
    {
        "signals": [{"reason": "ordered", "confirmed_time": at(6)}],
        "orders": [
            {"reason": "hours", "resolved_time": at(6), "valid_until": at(6), "entry_time": None}
        ],
        "trades": [],
    },
    settings={"hours": {"bind_entries": True}, "session": {"hours": ["x"]}},
    sessions=[session(hours=((at(0), at(6)),))],
)
add(
    "without bind_entries hours end nothing",
    [*long_at(0), *retest(5), *flat(6, 8, 100.5)],
    {"trades": [{"entry_time": at(6)}]},
    settings={"session": {"hours": ["x"]}},
    sessions=[session(hours=((at(0), at(6)),))],
)
add(
    "at equal times a retest expires before its hours end",
    [*long_at(0), *flat(5, 20, 103.0)],
    {"signals": [{"reason": "expired", "resolved_time": at(15)}]},
    settings={"hours": {"bind_entries": True}},
    sessions=[session(hours=((at(0), at(15)),))],
)
add(
    "at equal times hours end before the session",
    [*long_at(0), *flat(5, 12, 103.0), Advance(at(12))],
    {"signals": [{"reason": "hours", "resolved_time": at(12)}]},
    settings={"hours": {"bind_entries": True}},
    sessions=[session(minutes=12)],
)
add(
    "a retest ends with the session",
    [*long_at(0), *flat(5, 12, 103.0), *flat(0, 1, 103.0, day=1)],
    {"signals": [{"reason": "session", "resolved_time": at(12)}]},
    sessions=[session(minutes=12), session(1)],
)

# Section 4: baselines.

PREVIOUS: Settings = {"baseline": {"mode": "previous_session"}}


def judged(day: int, minutes: int = 5) -> list[Bar]:
    """Return one window of 500 contracts."""
    return flat(0, minutes, 100.0, 100, day)


add(
    "no earlier session is warming up",
    judged(0),
    {"clusters": [], "funnel": {"warming_up": 1}},
    settings=PREVIOUS,
)
add(
    "the previous session's volume a minute, over minutes that had a bar",
    [*flat(0, 50, 100.0, 20), *judged(1)],
    {"clusters": [{"baseline": 20.0, "baseline_source": "previous_session", "volume_ratio": 25.0}]},
    settings=PREVIOUS,
    sessions=days(2),
)
add(
    "for the first session half of its minutes is enough",
    [*flat(0, 30, 100.0, 20), *judged(1)],
    {"clusters": [{"baseline": 20.0}]},
    settings=PREVIOUS,
    sessions=days(2),
)
add(
    "for the first session less than half is not enough",
    [*flat(0, 29, 100.0, 20), *judged(1)],
    # Day 0 has five full windows and one of four bars; the other six are thin.
    {"clusters": [], "funnel": {"warming_up": 7, "thin": 6}},
    settings=PREVIOUS,
    sessions=days(2),
)
add(
    "a session with 80 % of the usual minutes counts, a thinner one is passed over",
    # Usual before day 1: 50. 40 bars are 80 %: good.
    # Before day 2: median(50, 40) = 45, 35 bars are thin.
    # Before day 3: median(50, 40, 35) = 40, so 32 bars would do; day 3 has 31.
    [
        *flat(0, 50, 100.0, 20),
        *flat(0, 40, 100.0, 30, day=1),
        *flat(0, 35, 100.0, 40, day=2),
        *flat(0, 31, 100.0, 50, day=3),
        *judged(4),
    ],
    {"clusters": [{"baseline": 30.0}]},
    settings=PREVIOUS | {"cluster": {"threshold": 15.0}},
    sessions=days(5),
)
add(
    "a half day is passed over, and thin sessions are part of what is usual",
    # Usual before day 3: median(60, 30, 30) = 30; so the 30 bars of day 3 are good at last.
    [
        *flat(0, 60, 100.0, 20),
        *flat(0, 30, 100.0, 100, day=1),
        *flat(0, 30, 100.0, 100, day=2),
        *flat(0, 30, 100.0, 200, day=3),
        *judged(4),
    ],
    {"last:clusters": {"baseline": 200.0, "volume_ratio": 2.5}},
    settings=PREVIOUS | {"cluster": {"threshold": 2.5}},
    sessions=[session(0), session(1, 30), session(2, 30), session(3, 30), session(4)],
)
add(
    "a rolling baseline needs n bars before the window, and takes them across sessions",
    # Day 0: six bars of 10. Day 1: the window at 0 has these six, the one at 5 has five
    # bars of 100 and one of 10.
    [*flat(0, 6, 100.0, 10), *flat(0, 10, 100.0, 100, day=1)],
    {
        "clusters": [
            {
                "window_start": at(0, 1),
                "baseline": 10.0,
                "volume_ratio": 50.0,
                "baseline_source": "rolling",
            },
            {"window_start": at(5, 1), "baseline": 85.0, "volume_ratio": 500 / 85},
        ],
        "funnel": {"warming_up": 1},
    },
    settings={"baseline": {"mode": "rolling", "bars": 6}},
    sessions=days(2),
)
add(
    "session to date takes the bars before the window once there are enough",
    [*flat(0, 5, 100.0, 10), *flat(5, 10, 100.0, 20), *flat(10, 15, 100.0, 100)],
    {
        "clusters": [
            {"window_start": at(10), "baseline": 15.0, "baseline_source": "session_to_date"}
        ],
        "funnel": {"warming_up": 2},
    },
    settings={"baseline": {"mode": "session_to_date", "min_bars": 10}},
)
TIME_OF_DAY: Settings = {"baseline": {"mode": "time_of_day", "sessions": 2, "min_sessions": 2}}
add(
    "time of day takes the same slot of the last sessions that have a bar in it",
    # Slot [5, 10): day 0 has 5 bars of 10, day 1 none, day 2 two bars of 60. (50 + 120) / 7.
    [
        *flat(0, 10, 100.0, 10),
        *flat(0, 5, 100.0, 99, day=1),
        *flat(5, 7, 100.0, 60, day=2),
        *flat(5, 10, 100.0, 100, day=3),
    ],
    {
        "clusters": [
            {"window_start": at(5, 3), "baseline": 170 / 7, "volume_ratio": 500 / (170 / 7)}
        ]
    },
    settings=TIME_OF_DAY,
    sessions=days(4),
)
add(
    "time of day needs its sessions",
    [*flat(0, 5, 100.0, 10), *flat(0, 5, 100.0, 500, day=1)],
    {"clusters": [], "funnel": {"warming_up": 2}},
    settings=TIME_OF_DAY,
    sessions=[session(0, 9), session(1, 9)],
)
add(
    "time of day passes over sessions whose schedule does not hold the slot",
    # The slot [5, 10) is not in the half day of 9 minutes, and overlaps the halt of day 2.
    [
        *flat(0, 10, 100.0, 10),
        *flat(5, 9, 100.0, 999, day=1),
        *flat(5, 10, 100.0, 999, day=2),
        *flat(5, 10, 100.0, 30, day=3),
        *flat(5, 10, 100.0, 100, day=4),
    ],
    {"clusters": [{"window_start": at(5, 4), "baseline": 20.0}]},
    settings=TIME_OF_DAY,
    sessions=[
        session(0),
        session(1, 9),
        session(2, halts=((at(9, 2), at(11, 2)),)),
        session(3),
        session(4),
    ],
)

# Section 3: contracts.

add(
    "without context the baseline continues from the old contract and says so",
    [*flat(0, 60, 100.0, 20), *flat(0, 5, 100.0, 100, 1, "ESH6")],
    {
        "clusters": [
            {
                "symbol": "ESH6",
                "baseline": 20.0,
                "baseline_source": "previous_session,other_contract",
            }
        ]
    },
    settings=PREVIOUS,
    sessions=days(2),
)
CONTEXT = [Context(bar) for bar in flat(0, 50, 90.0, 25, 0, "ESH6")]
add(
    "context replaces the old contract's session",
    [*flat(0, 60, 100.0, 20), *CONTEXT, *flat(0, 5, 100.0, 100, 1, "ESH6")],
    {
        "clusters": [{"baseline": 25.0, "baseline_source": "previous_session"}],
        "funnel": {"context_bars": 50, "bars": 65},
    },
    settings=PREVIOUS,
    sessions=days(2),
)
add(
    "a thin context leaves the last good session, which is another contract",
    # Day 0 has 60 bars of 20; day 1 is replaced by 47 bars, less than 80 % of 60.
    [
        *flat(0, 60, 100.0, 20),
        *flat(0, 60, 100.0, 22, day=1),
        *(Context(bar) for bar in flat(0, 47, 90.0, 25, 1, "ESH6")),
        *flat(0, 5, 100.0, 100, 2, "ESH6"),
    ],
    {
        "clusters": [
            {
                "baseline": 20.0,
                "baseline_source": "previous_session,other_contract",
                "volume_ratio": 25.0,
            }
        ]
    },
    settings=PREVIOUS | {"cluster": {"threshold": 10.0}},
    sessions=days(3),
)
add(
    "rolling starts again with the context",
    [*flat(0, 60, 100.0, 20), *CONTEXT[:6], *flat(0, 5, 100.0, 100, 1, "ESH6")],
    {"clusters": [{"baseline": 25.0, "baseline_source": "rolling"}]},
    settings={"baseline": {"mode": "rolling", "bars": 6}, "cluster": {"threshold": 6.0}},
    sessions=days(2),
)
add(
    "rolling without context goes on across contracts and says so",
    [*flat(0, 60, 100.0, 20), *flat(0, 5, 100.0, 100, 1, "ESH6")],
    {"clusters": [{"baseline": 20.0, "baseline_source": "rolling,other_contract"}]},
    settings={"baseline": {"mode": "rolling", "bars": 6}, "cluster": {"threshold": 6.0}},
    sessions=days(2),
)
add(
    "a context bar acts as an advance to the close of its session",
    [*long_at(0), *flat(5, 50, 103.0), *CONTEXT[:1]],
    {
        "signals": [{"reason": "expired"}],
        "equity": [{"time": at(60), "equity": 50_000.0, "drawdown": 0.0}],
        "funnel": {"windows": 12},
    },
    settings={"cluster": {"threshold": 5.0}},
)
add(
    "refused: context bars out of order among themselves",
    [*CONTEXT[:2], CONTEXT[0]],
    refused=(2, "ts_event"),
)
add(
    "volatility counts context bars and forgets the old contract",
    # Flat old bars have no variance. The sixty bars of the new contract: 0.5 ln(2)^2 each, no body.
    [
        *flat(0, 60, 100.0, 1),
        *(Context(bar._replace(high=px(200))) for bar in flat(0, 54, 100.0, 1, 0, "ESH6")),
        *(bar._replace(high=px(200)) for bar in flat(0, 5, 100.0, 100, 1, "ESH6")),
        *(bar._replace(high=px(200)) for bar in flat(5, 6, 100.0, 1, 1, "ESH6")),
        *flat(6, 7, 100.0, 1, 1, "ESH6"),
    ],
    {
        "orders": [
            {
                "sigma_source": "garman_klass",
                "sigma_hold": math.sqrt(0.5 * math.log(2) ** 2 * 20),
            }
        ]
    },
    sessions=days(2),
)
add(
    "without context volatility starts empty at a change of symbol",
    [*flat(0, 60, 100.0, 1), *entered(1, "ESH6")],
    {"orders": [{"sigma_source": "price"}]},
    sessions=days(2),
)
add(
    "a position of the old contract is booked stale at its last close",
    [*entered(), *bars("7 100.5 101 100.25 100.75 10"), *flat(0, 1, 200.0, 10, 1, "ESH6")],
    {
        "trades": [
            {
                "symbol": "ESZ5",
                "exit_price": 100.75,
                "exit_time": at(8),
                "exit_reason": "session_end_late",
                "stale": True,
                "mae": 0.25,
                "mfe": 0.5,
                "bars_held": 2,
                "net": 12.5 - 23.75,
            }
        ],
        # Marks of the bars at 6 and 7 and of the close; none where it is booked.
        "equity": [
            {"time": at(7), "equity": 50_000 - SIDE},
            {"time": at(8), "equity": 50_000 - SIDE + 12.5},
            {"time": at(60), "equity": 50_000 - SIDE + 12.5, "open_contracts": 1},
        ],
    },
    sessions=days(2),
)
add(
    "a stale position is booked at the first context bar",
    [*entered(), *CONTEXT[:1]],
    {"trades": [{"exit_price": 100.5, "exit_time": at(7), "stale": True}]},
)

# Section 6: ranking.


def burst(minute: int, volume: int, price: float = 100.0) -> list[Bar]:
    """Return a window whose bars trade `volume` each."""
    return flat(minute, minute + 5, price, volume)


ALL_NONE = {"reason": "no_direction"}
add(
    "rank is by volume ratio among earlier clusters of the session, of equals the earlier better",
    [*burst(0, 100), *burst(5, 120), *burst(10, 100), *burst(15, 110)],
    {"clusters": [{"rank": 1}, {"rank": 1}, {"rank": 3}, {"rank": 2}]},
)
add(
    "only top_n goes on",
    [*burst(0, 100), *burst(5, 90)],
    {
        "clusters": [
            ALL_NONE,
            {"rank": 2, "reason": "rank", "direction": "none", "volume_ratio": 4.5},
        ]
    },
    settings={"rank": {"top_n": 1}},
)
add(
    "clusters older than rank.hours do not compete, those exactly as old do",
    # Decisions at 5, 15 and 20; fifteen minutes back from 20 is 5.
    [*burst(0, 200), *burst(10, 150), *burst(15, 100), *burst(20, 100)],
    # At 25 the cluster of 5 is out: 150 and the equal, earlier 100 are better.
    {"clusters": [{"rank": 1}, {"rank": 2}, {"rank": 3}, {"rank": 3}]},
    settings={"rank": {"hours": 0.25}},
)
add(
    "rank.hours of zero compares the whole session",
    [*burst(0, 200), *burst(50, 100)],
    {"clusters": [{"rank": 1}, {"rank": 2}]},
    settings={"rank": {"hours": 0.0}},
)
add(
    "ranking starts again with the session",
    [*burst(0, 200), *flat(0, 5, 100.0, 100, day=1)],
    {"clusters": [{"rank": 1}, {"rank": 1}]},
    sessions=days(2),
)
add(
    "clusters outside the hours are no candidates",
    [*burst(0, 200), *burst(5, 100)],
    {"clusters": [{"reason": "hours"}, {"rank": 1}]},
    settings={"session": {"hours": ["x"]}},
    sessions=[session(hours=((at(5), at(60)),))],
)
add(
    "max_per_session counts armed signals",
    [*long_at(0), *long_at(5), *flat(0, 1, 103.0, day=1)],
    {
        "clusters": [
            {"reason": "armed"},
            {"reason": "max_per_session", "direction": "long", "strength": 1.0},
        ],
    },
    settings={"rank": {"max_per_session": 1}},
    sessions=days(2),
)
add(
    "the cooldown runs from the last confirmation, and is passed when it has elapsed",
    # Confirmed at 6; decisions at 15, nine minutes later, and at 20, fourteen.
    [*long_at(0), *retest(5), *flat(6, 10, 100.75), *long_at(10), *long_at(15)],
    {"clusters": [{"reason": "armed"}, {"reason": "cooldown"}, {"reason": "armed"}]},
    settings={"rank": {"cooldown_minutes": 14}},
)
add(
    "a cooldown reaches across sessions",
    [*long_at(50), *retest(55), *flat(56, 60, 100.75), *long_at(0, day=1)],
    {"clusters": [{"reason": "armed"}, {"reason": "cooldown"}]},
    settings={"rank": {"cooldown_minutes": 1440}},
    sessions=days(2),
)

# Section 7: profile and modal price.

TIED = bars(
    """0 100.00 101.00 100.00 101.00 100
       1 101.00 101.00 100.75 100.75 100
       2 100.75 100.75 100.25 100.25 100
       3 100.25 100.25 100.00 100.00 100"""
)
for tie, modal in (("middle", 100.75), ("earliest", 101.0), ("lowest", 100.0)):
    add(
        f"four equal ticks: {tie}",
        [*TIED, *flat(5, 6, 103.0)],
        # The middle of 100 to 101 is 100.50; 100.25 and 100.75 are equally near, 100.75 is earlier.
        {
            "clusters": [
                {"modal_tied": True, "modal_price": px(modal), "modal_position": modal - 100}
            ]
        },
        settings={"profile": {"tie": tie}},
    )
add(
    "the tied tick nearest to the middle, though it came later",
    [
        *bars(
            "0 100 100 100 100 150; 1 100 101 100 100.5 150;"
            "2 101 101 101 101 50; 3 101 101 101 101 50"
        ),
        *flat(5, 6, 103.0),
    ],
    {"clusters": [{"modal_tied": True, "modal_price": px(100.5), "modal_position": 0.5}]},
)
add(
    "close counts each bar's close once",
    [*long_at(0), *flat(5, 6, 103.0)],
    # Closes 100, 100.5, 100.75, 101, 100.75.
    {"clusters": [{"modal_price": px(100.75), "modal_tied": False, "modal_position": 0.75}]},
    settings={"profile": {"source": "close"}},
)
add(
    "range_volume spreads a bar's volume over its range",
    # 402 over 5 ticks: 80 each, the two left go to ticks floor(5/4) = 1 and floor(15/4) = 3.
    # Then 40 at the tick 2: 100.50 has 120 of 442, of which 70 % are 309.4.
    # 81 up (of equals), 81 down: 282,
    # then 80 up: 362.
    [
        *bars("0 100 101 100 101 402; 1 100.5 100.5 100.5 100.5 10; 2 100.5 100.5 100.5 100.5 10"),
        *bars("3 100.5 100.5 100.5 100.5 10; 4 100.5 100.5 100.5 100.5 10"),
    ],
    {
        "clusters": [
            {
                "modal_price": px(100.5),
                "modal_position": 0.5,
                "value_area_low": px(100.25),
                "value_area_high": px(101),
            }
        ]
    },
    settings={"profile": {"source": "range_volume"}},
)
add(
    "a bar without trades leaves no profile",
    [Trade(at(0), px(100), 60), *burst(0, 100)],
    {
        "clusters": [
            {"reason": "no_profile", "modal_price": None, "modal_position": None, "rank": None}
        ]
    },
    settings={"profile": {"source": "trades"}},
)
add(
    "trades fill the profile of the bar that holds them, before it",
    [
        item
        for minute, bar in enumerate(long_at(0))
        for item in (
            Trade(at(minute) + 1, px(100.5), 60),
            Trade(at(minute) + 2, px(101), 61 if minute == 3 else 59),
            bar,
        )
    ],
    # 300 at 100.50, 297 at 101.
    {"clusters": [{"modal_price": px(100.5), "modal_position": 0.5, "value_area_high": px(101)}]},
    settings={"profile": {"source": "trades"}},
)
add(
    "a profile beyond the window moves the decision to its end",
    [*long_at(0), *flat(5, 6, 100.5, 900), *flat(6, 8, 103.0)],
    {
        "clusters": [
            {"decision_time": at(6), "volume": 500, "modal_price": px(100.5), "modal_position": 0.5}
        ]
    },
    settings={"profile": {"end_minute": 6}},
)
add(
    "a momentum beyond the window moves the decision too",
    [*long_at(0), *flat(5, 7, 103.0)],
    # First close in [0, 7): 100, last 103.
    {"clusters": [{"decision_time": at(7), "momentum": 0.03}]},
    settings={"momentum": {"start_minute": 0, "end_minute": 7}},
)
add(
    "a decision past the close has no time and is judged at the close",
    [*flat(0, 5, 103.0, 1), *moved(long_at(0), 5), Advance(at(10))],
    {
        "clusters": [
            {"reason": "no_time", "decision_time": at(10), "rank": None, "modal_price": px(100)}
        ]
    },
    settings={"profile": {"end_minute": 6}},
    sessions=[session(minutes=10)],
)
add(
    "no bars in the profile's interval",
    burst(0, 100),
    {"clusters": [{"reason": "no_profile", "rank": None, "direction": None}]},
    settings={"profile": {"start_minute": -5, "end_minute": 0}},
)
add(
    "the profile may reach back before the window, but not before the session",
    [*flat(0, 5, 102.0, 60), *burst(5, 100, 101.0)],
    # From minute 0: 300 at 102, 500 at 101 in the window [5, 10).
    {"clusters": [{"modal_price": px(101), "modal_position": 0.0}]},
    settings={"profile": {"start_minute": -10, "end_minute": 5}},
)

# Section 8: momentum, direction, strength.

add(
    "momentum is the last close over the first before the window",
    [*bars("0 98 100 98 98 1; 4 98 100 98 100 1"), *long_at(5)],
    {
        "clusters": [
            {
                "momentum": px(100) / px(98) - 1.0,
                # A half, a quarter, and a quarter of the momentum strength of 16 times 0.0204.
                "strength": 0.5 + 0.25 + 0.25 * ((px(100) / px(98) - 1.0) * 16.0),
            }
        ]
    },
    settings={"signal": {"w_position": 0.5, "w_volume": 0.25, "w_momentum": 0.25}},
)
add(
    "a falling market gives a long no momentum strength",
    [*bars("0 98 100 98 100 1; 4 98 100 98 98 1"), *long_at(5)],
    {"clusters": [{"strength": 0.75}]},
    settings={"signal": {"w_position": 0.5, "w_volume": 0.25, "w_momentum": 0.25}},
)
add(
    "a falling market helps a short, up to one",
    [*bars("0 90 100 90 100 1; 4 90 100 90 90 1"), *short_at(5)],
    {"clusters": [{"momentum": 90 / 100 - 1.0, "strength": 1.0}]},
    settings={"signal": {"w_position": 0.5, "w_volume": 0.25, "w_momentum": 0.25}},
)
QUARTER = bars(
    """0 100.25 101.00 100.00 100.25 300
       1 100.00 100.75 100.00 100.50 50
       2 100.50 101.00 100.25 100.75 50
       3 100.75 101.00 100.50 101.00 50
       4 101.00 101.00 100.75 100.75 50"""
)
add(
    "at the long threshold the position has no strength but a direction",
    QUARTER,
    # Nothing of the position, 0.3 of half the volume cap.
    {
        "clusters": [
            {"modal_position": 0.25, "direction": "long", "strength": 0.15, "reason": "weak"}
        ]
    },
    settings={"signal": {"volume_cap": 10.0}},
)
add(
    "strength at the minimum goes on",
    QUARTER,
    {"clusters": [{"strength": 0.3, "reason": "armed"}]},
    settings={"signal": {"min_strength": 0.3}},
)
add(
    "shorts may have their own minimum",
    [*short_at(0), *long_at(5)],
    {"clusters": [{"direction": "short", "strength": 0.85, "reason": "weak"}, {"reason": "armed"}]},
    settings={"signal": {"min_strength": 0.8, "min_strength_short": 0.9, "volume_cap": 10.0}},
)

# Section 9: retest.

add(
    "the window's own bars are no retest",
    [*long_at(0), *flat(5, 16, 103.0)],
    {
        "signals": [{"reason": "expired", "resolved_time": at(15), "confirmed_time": None}],
        "orders": [],
    },
)
add(
    "touch looks at the range, with the tolerance",
    [*long_at(0), *bars("5 103 103 100.75 103 10; 6 103 103 100.5 103 10"), *flat(7, 8, 103.0)],
    {"signals": [{"confirmed_time": at(7)}]},
    settings={"retest": {"test": "touch"}},
)
add(
    "touch from below",
    [*long_at(0), *bars("5 99 99.25 98 98 10; 6 99 99.5 98 98 10"), *flat(7, 8, 98.0)],
    {"signals": [{"confirmed_time": at(7)}]},
    settings={"retest": {"test": "touch"}},
)
add(
    "a bar that ends at the deadline still confirms",
    [*long_at(0), *retest(14), *flat(15, 16, 103.0)],
    {"signals": [{"confirmed_time": at(15), "reason": "ordered"}]},
)
add(
    "a deadline inside a bar falls before its inside",
    # Two-minute bars; W is 6. The deadline, 6 + 3, lies inside the bar at 8, which would confirm.
    bars("0 100 101 100 100 900; 2 100 101 100 101 50; 4 101 101 101 101 50; 8 101 101 100 100 1"),
    {"signals": [{"reason": "expired", "resolved_time": at(9)}]},
    settings={"retest": {"timeout_minutes": 3}, "profile": {"end_minute": 6}},
    interval_ns=2 * MINUTE,
)
add(
    "without a retest the decision confirms",
    [*long_at(0), *flat(5, 6, 100.75)],
    {
        "signals": [{"confirmed_time": at(5), "reason": "ordered"}],
        "orders": [{"reference_price": px(100.75), "entry_time": at(5), "valid_until": at(10)}],
    },
    settings={"retest": {"enabled": False}},
)
add(
    "without a retest and without a bar that ends there, no order",
    [*long_at(0)[:4], *flat(6, 7, 100.75)],
    {
        "signals": [{"confirmed_time": at(5), "reason": "no_bar", "resolved_time": at(5)}],
        "orders": [],
    },
    settings={"retest": {"enabled": False}},
)
# A second cluster from 98.50 to 99.50 that does not touch 100; then a bar that touches both.
TWO_PENDING = [
    *long_at(0),
    *priced(long_at(5), -1.5),
    *bars("10 99 100 98.5 99 10; 11 99 99 99 99 10"),
]
TOUCH_EXACTLY: Settings = {"retest": {"test": "touch", "tolerance": "0 ticks"}}
add(
    "two pending signals confirm with one bar, oldest first, each making its order",
    TWO_PENDING,
    {
        "signals": [
            {"decision_time": at(5), "modal_price": px(100), "confirmed_time": at(11)},
            {"decision_time": at(10), "modal_price": px(98.5), "confirmed_time": at(11)},
        ],
        "orders": [
            {"decision_time": at(10), "quantity": 0, "reason": "max_open_contracts"},
            {"decision_time": at(5), "entry_time": at(11), "quantity": 1},
        ],
    },
    settings=TOUCH_EXACTLY | {"risk": {"max_open_contracts": 1}},
)
add(
    "the cooldown is checked again at the confirmation",
    TWO_PENDING,
    {
        "signals": [
            {"decision_time": at(5), "reason": "ordered", "confirmed_time": at(11)},
            {
                "decision_time": at(10),
                "reason": "cooldown",
                "confirmed_time": None,
                "resolved_time": at(11),
            },
        ]
    },
    settings=TOUCH_EXACTLY | {"rank": {"cooldown_minutes": 5}},
)
add(
    "no order is created from the flatten time on",
    [*moved(long_at(0), 50), *flat(55, 58, 103.0), *retest(58), *flat(59, 60, 103.0)],
    {
        "signals": [{"reason": "session", "confirmed_time": at(59), "resolved_time": at(59)}],
        "orders": [],
    },
)

# Section 10: orders and entries.

add(
    "an order waits for the next bar, and not longer than max_wait",
    [*long_at(0), *retest(5), *flat(10, 11, 100.5)],
    {"orders": [{"reason": "filled", "entry_time": at(10)}]},
)
add(
    "a bar that starts at the end of the wait is too late",
    [*long_at(0), *retest(5), *flat(11, 12, 100.5)],
    {
        "orders": [
            {"reason": "no_bar", "resolved_time": at(11), "entry_price": None, "quantity": 1}
        ],
        "trades": [],
    },
)
add(
    "an adverse entry pays the worse of open and close",
    [*long_at(0), *retest(5), *bars("6 100.5 101.25 100.25 101 10; 7 101 101 100 100.5 10")],
    {
        "trades": [
            {
                "entry_time": at(6),
                "entry_price": px(101),
                "stop": px(100),
                "target": px(103),
                "exit_reason": "stop",
                "exit_price": 100.0,
                "exit_time": at(8),
                "mae": 1.0,
                "mfe": 0.25,
            }
        ]
    },
    settings={"entry": {"adverse": True}},
)
add(
    "an adverse entry is managed inside its bar, without the checks at the open",
    # Paid 102, stop at 101; the bar opened at 100.5 below it: out at the stop.
    [*long_at(0), *retest(5), *bars("6 100.5 102.25 100.25 102 10")],
    {
        "trades": [
            {
                "entry_price": px(102),
                "exit_price": 101.0,
                "exit_time": at(7),
                "exit_reason": "stop",
                "bars_held": 1,
            }
        ]
    },
    settings={"entry": {"adverse": True}},
)
LIMIT: Settings = {"entry": {"mode": "limit"}}
add(
    "a limit at the confirming close fills when a later bar trades a tick beyond",
    # Limit 100.25. Bar 6 touches it, bar 7 trades 100.00.
    [
        *long_at(0),
        *retest(5),
        *bars(
            "6 100.5 100.75 100.25 100.5 10; 7 100.5 102.75 100 102.5 10;"
            "8 102.5 102.5 102.5 102.5 10"
        ),
    ],
    {
        "orders": [
            {
                "mode": "limit",
                "limit_price": px(100.25),
                "reference_price": px(100.25),
                "valid_until": at(59),
                "entry_time": at(8),
                "entry_price": px(100.25),
            }
        ],
        # Not checked for the target at 102.25 in the fill's bar; bar 8 opens a tick beyond it.
        "trades": [
            {
                "entry_time": at(8),
                "target": px(102.25),
                "exit_time": at(8),
                "exit_price": 102.25,
                "exit_reason": "target",
                "mae": 0.0,
                "mfe": 2.0,
                "bars_held": 2,
            }
        ],
    },
    settings=LIMIT,
)
add(
    "with through_ticks of zero a touch fills",
    [*long_at(0), *retest(5), *bars("6 100.5 100.75 100.25 100.5 10")],
    {"orders": [{"entry_time": at(7), "entry_price": px(100.25)}]},
    settings={"entry": {"mode": "limit", "through_ticks": 0}},
)
add(
    "the first bar may fill a limit at its better open",
    [*long_at(0), *retest(5), *bars("6 100 100.25 99.75 100 10")],
    {
        "trades": [
            {
                "entry_time": at(6),
                "entry_price": px(100),
                "stop": px(99),
                "target": px(102),
                "mae": 0.25,
                "mfe": 0.25,
                "exit_reason": "open",
            }
        ]
    },
    settings=LIMIT,
)
add(
    "a later bar that opens beyond the limit fills at the limit",
    [*long_at(0), *retest(5), *flat(6, 7, 100.5), *bars("7 100 100.25 99.75 100 10")],
    {"orders": [{"entry_time": at(8), "entry_price": px(100.25)}]},
    settings=LIMIT,
)
add(
    "a limit fill inside a bar is stopped in it",
    [*long_at(0), *retest(5), *bars("6 100.5 100.5 99.25 100.5 10")],
    {
        "trades": [
            {
                "entry_time": at(7),
                "exit_time": at(7),
                "exit_price": 99.25,
                "exit_reason": "stop",
                "ambiguous": False,
                "mae": 1.0,
                "mfe": 0.0,
                "bars_held": 1,
            }
        ],
        "equity": [{"time": at(7), "balance": 50_000 - 73.75, "open_contracts": 0}],
    },
    settings=LIMIT,
)
add(
    "a limit fill in a bar that opened beyond the stop leaves at that open",
    [*long_at(0), *retest(5), *flat(6, 7, 100.5), *bars("7 98 98.5 97 98 10")],
    {
        "trades": [
            {
                "entry_price": px(100.25),
                "exit_price": 98.0,
                "exit_reason": "stop",
                "exit_time": at(8),
                "mae": 2.25,
            }
        ]
    },
    settings=LIMIT,
)
add(
    "a limit at the modal price, better by an offset",
    [*long_at(0), *retest(5), *bars("6 100.5 100.5 99.25 99.75 10")],
    # 100 less two ticks; a tick through is 99.25.
    {
        "orders": [
            {
                "limit_price": px(99.5),
                "reference_price": px(99.5),
                "entry_price": px(99.5),
                "entry_time": at(7),
            }
        ]
    },
    settings={"entry": {"mode": "limit", "limit_at": "modal_price", "offset_ticks": 2}},
)
add(
    "a short's limit stands above",
    [*short_at(0), *retest_high(5), *bars("6 100.5 101.25 100.5 101 10")],
    {"orders": [{"limit_price": px(101), "entry_price": px(101)}]},
    settings={"entry": {"mode": "limit", "offset_ticks": 1}},
)
add(
    "a limit lives for its validity, and a bar that ends with it still fills",
    [*long_at(0), *retest(5), *flat(6, 8, 100.5), *bars("8 100.5 100.5 100 100.25 10")],
    {"orders": [{"valid_until": at(9), "reason": "filled", "entry_time": at(9)}]},
    settings={"entry": {"mode": "limit", "validity_minutes": 3}},
)
add(
    "a limit expires",
    [*long_at(0), *retest(5), *flat(6, 9, 100.5), *bars("9 100.5 100.5 100 100.25 10")],
    {"orders": [{"reason": "expired", "resolved_time": at(9)}]},
    settings={"entry": {"mode": "limit", "validity_minutes": 3}},
)
add(
    "a limit that is not filled dies with the session, before its last minute",
    [*long_at(0), *retest(5), *flat(6, 60, 100.5)],
    {"orders": [{"reason": "session", "resolved_time": at(59)}]},
    settings=LIMIT,
)
add(
    "at equal times validity ends an order before hours and session",
    [*long_at(0), *retest(5), *flat(6, 12, 100.5)],
    {"orders": [{"reason": "expired", "resolved_time": at(11)}]},
    settings={"entry": {"mode": "limit", "validity_minutes": 5}, "hours": {"bind_entries": True}},
    sessions=[session(minutes=12, hours=((at(0), at(11)),))],
)
add(
    "at equal times hours end an order before the session",
    [*long_at(0), *retest(5), *flat(6, 12, 100.5)],
    {"orders": [{"reason": "hours", "resolved_time": at(11)}]},
    settings={"entry": {"mode": "limit"}, "hours": {"bind_entries": True}},
    sessions=[session(minutes=12, hours=((at(0), at(11)),))],
)
add(
    "an entry at the close is optimistic and managed from the next bar",
    [*long_at(0), *retest(5), *bars("6 100.5 100.75 99.25 100 10")],
    {
        "orders": [
            {"mode": "close", "entry_time": at(6), "entry_price": px(100.25), "reason": "filled"}
        ],
        "trades": [
            {
                "optimistic": True,
                "entry_time": at(6),
                "entry_price": px(100.25),
                "exit_price": 99.25,
                "exit_reason": "stop",
                "exit_time": at(7),
                "bars_held": 2,
            }
        ],
        # No mark at 6: the account's work at that bar's end was done.
        "equity": [{"time": at(7)}],
    },
    settings={"entry": {"mode": "close"}},
)

# Section 11: sigma.


def sigma_case(name: str, sigma: float, source: str, settings: Settings) -> None:
    """Add a scenario whose order is created after eleven bars that go from 99 to 101."""
    rows = [
        bar._replace(high=px(101), low=px(99), volume=volume)
        for bar, volume in zip(flat(0, 12, 100.0, 1), [1] * 5 + [100] * 5 + [1, 1], strict=True)
    ]
    add(
        name,
        rows,
        {"orders": [{"sigma_source": source, "sigma_hold": sigma}]},
        settings={"signal": {"long_threshold": 0.5, "min_strength": 0.0}} | settings,
    )


LN = math.log(101 / 99)
for estimator, variance in (
    ("garman_klass", 0.5 * LN**2),
    ("parkinson", LN**2 / (4 * math.log(2))),
    ("rogers_satchell", math.log(101 / 100) ** 2 + math.log(99 / 100) ** 2),
    ("close_to_close", 0.0),
    # No opening move, no body: only the Rogers-Satchell part, with n = 11.
    (
        "yang_zhang",
        (1 - 0.34 / (1.34 + 12 / 10)) * (math.log(101 / 100) ** 2 + math.log(99 / 100) ** 2),
    ),
):
    sigma_case(
        f"sigma of the holding time: {estimator}",
        math.sqrt(variance * 20),
        estimator,
        {
            "volatility": {"estimator": estimator, "minutes": 480, "min_minutes": 11},
        },
    )
sigma_case(
    "with too few bars for the estimator, the average true range",
    2.0 / (1.5958 * 100.0) * math.sqrt(20),
    "atr",
    {
        "volatility": {"min_minutes": 12, "atr_minutes": 240, "atr_min_minutes": 11},
    },
)
sigma_case(
    "with too few bars for both, the price rule",
    0.0015 + 100e-6,
    "price",
    {
        "volatility": {"min_minutes": 12, "atr_minutes": 240, "atr_min_minutes": 12},
    },
)
add(
    "a return does not cross a session",
    # Day 0 stands at 200: nine zeros. Day 1 closes at 100, 100.5, 100.75, 101, 100.75, 100.25.
    [*flat(0, 10, 200.0, 1), *entered(1)],
    {
        "orders": [
            {
                "sigma_source": "close_to_close",
                "sigma_hold": math.sqrt(
                    20
                    * statistics.variance(
                        [0.0] * 9
                        + [
                            math.log(100.5 / 100),
                            math.log(100.75 / 100.5),
                            math.log(101 / 100.75),
                            math.log(100.75 / 101),
                            math.log(100.25 / 100.75),
                        ]
                    )
                ),
            }
        ]
    },
    settings={"volatility": {"estimator": "close_to_close", "min_minutes": 10}},
    sessions=days(2),
)

# Section 12: stops, targets, exits.

add(
    "a stop from sigma is rounded up to a tick, the target is a multiple of it, halves up",
    # Price rule: 1 * (0.0015 + 0.00010025) * 100.25 = 0.1604: one tick. Target 2.5 ticks: three.
    [*long_at(0), *retest(5), *flat(11, 12, 100.5)],
    {"orders": [{"stop_distance": px(0.25), "target_distance": px(0.75)}]},
    settings={
        "stop": {"mode": "volatility", "k": 1.0},
        "target": {"mode": "reward", "reward": 2.5},
    },
)
add(
    "the stop is at least min_pct of the price",
    # 0.5 % of 100.25 is 0.50125: three ticks.
    [*long_at(0), *retest(5), *flat(11, 12, 100.5)],
    {"orders": [{"stop_distance": px(0.75), "target_distance": px(1.5)}]},
    settings={
        "stop": {"mode": "volatility", "k": 1.0, "min_pct": 0.5},
        "target": {"mode": "reward"},
    },
)
add(
    "both distances are at least one tick",
    [*long_at(0), *retest(5), *flat(11, 12, 100.5)],
    {"orders": [{"stop_distance": px(0.25), "target_distance": px(0.25)}]},
    settings={"stop": {"distance": "0 ticks"}, "target": {"distance": "0.1 points"}},
)


def exit_case(
    name: str, text: str, trade: dict[str, Any], settings: Settings | None = None
) -> None:
    """Add a scenario of the usual entry at 100.50, stop 99.50, target 102.50."""
    add(
        name,
        [*entered(), *bars(text)],
        {"trades": [ORDINARY_TRADE | trade]},
        settings=settings or {},
    )


exit_case(
    "a target must be passed by a tick",
    "7 100.5 102.5 100.5 102 10; 8 102 102.75 102 102.25 10",
    {
        "exit_price": 102.5,
        "exit_time": at(9),
        "exit_reason": "target",
        "mae": 0.25,
        "mfe": 2.0,
        "bars_held": 3,
        "gross": 100.0,
        "net": 76.25,
        "return": 76.25 / 5025,
    },
)
exit_case(
    "with target_through_ticks of zero a touch fills",
    "7 100.5 102.5 100.5 102 10",
    {"exit_price": 102.5, "exit_time": at(8), "exit_reason": "target"},
    {"exit": {"target_through_ticks": 0}},
)
exit_case(
    "a gap beyond the target fills at the target, at the bar's start",
    "7 103 103 102 103 10",
    {"exit_price": 102.5, "exit_time": at(7), "exit_reason": "target", "mfe": 2.0, "bars_held": 2},
)
exit_case(
    "a gap to the target alone does not fill at the open",
    "7 102.5 102.5 102 102 10",
    {"exit_reason": "open", "exit_price": 102.0, "mfe": 2.0},
)
exit_case(
    "a gap beyond the stop leaves at the open",
    "7 99 99.25 98 99 10",
    {
        "exit_price": 99.0,
        "exit_time": at(7),
        "exit_reason": "stop",
        "mae": 1.5,
        "mfe": 0.25,
        "gross": -75.0,
    },
)
exit_case(
    "an open at the stop leaves there",
    "7 99.5 103 99.5 103 10",
    {"exit_price": 99.5, "exit_time": at(7), "exit_reason": "stop", "ambiguous": False},
)
exit_case(
    "a touched stop leaves at the stop, without the exit bar's other extreme",
    "7 100.5 102 99.5 100 10",
    {
        "exit_price": 99.5,
        "exit_time": at(8),
        "exit_reason": "stop",
        "mae": 1.0,
        "mfe": 0.25,
        "ambiguous": False,
    },
)
exit_case(
    "both in one bar is the stop, and ambiguous",
    "7 100.5 103 99 100 10",
    {"exit_price": 99.5, "exit_reason": "stop", "ambiguous": True, "mae": 1.0, "mfe": 0.25},
)
exit_case(
    "both in one bar may be measured as the target",
    "7 100.5 103 99 100 10",
    {"exit_price": 102.5, "exit_reason": "target", "ambiguous": True, "mae": 0.25, "mfe": 2.0},
    {"exit": {"same_bar": "target_first"}},
)
add(
    "an entry at the open is managed in its own bar",
    [*long_at(0), *retest(5), *bars("6 100.5 100.75 99.25 100.5 10")],
    {
        "trades": [
            {
                "entry_time": at(6),
                "exit_time": at(7),
                "exit_price": 99.5,
                "exit_reason": "stop",
                "bars_held": 1,
                "mfe": 0.0,
            }
        ]
    },
)
exit_case(
    "time is the close of the first bar that ends at or after it",
    "7 100.5 101 100.25 100.75 10; 8 100.75 101.5 100 101 10",
    {
        "exit_price": 101.0,
        "exit_time": at(9),
        "exit_reason": "time",
        "mae": 0.5,
        "mfe": 1.0,
        "bars_held": 3,
    },
    {"exit": {"max_hold_minutes": 3}},
)
exit_case(
    "time waits for a bar",
    "7 100.5 101 100.25 100.75 10; 20 100.75 101.5 100 101 10",
    {"exit_price": 101.0, "exit_time": at(21), "exit_reason": "time", "bars_held": 3},
    {"exit": {"max_hold_minutes": 3}},
)
add(
    "the session's end is the close of the bar that ends flatten_minutes before the close",
    [*entered(), *flat(7, 12, 100.75)],
    {"trades": [{"exit_price": 100.75, "exit_time": at(11), "exit_reason": "session_end"}]},
    sessions=[session(minutes=12)],
)
add(
    "the session's end goes before time",
    [*entered(), *flat(7, 12, 100.75)],
    {"trades": [{"exit_time": at(11), "exit_reason": "session_end"}]},
    settings={"exit": {"max_hold_minutes": 5}},
    sessions=[session(minutes=12)],
)
add(
    "a position entered in the last bar leaves at its end",
    [*long_at(0), *retest(5), *flat(6, 7, 100.5), *bars("10 100.5 100.5 100 100.25 10")],
    {
        "trades": [
            {
                "entry_time": at(11),
                "entry_price": px(100.25),
                "exit_time": at(11),
                "exit_price": 100.25,
                "exit_reason": "session_end",
                "mae": 0.0,
                "bars_held": 1,
            }
        ]
    },
    settings=LIMIT,
    sessions=[session(minutes=12)],
)
add(
    "without such a bar it is late: the next bar's open",
    [*entered(), *bars("0 98 99 97 98.5 10", day=1)],
    {
        "trades": [
            {
                "exit_price": 98.0,
                "exit_time": at(0, 1),
                "exit_reason": "session_end_late",
                "stale": False,
                "mae": 2.5,
                "mfe": 0.25,
                "bars_held": 2,
            }
        ],
        "equity": [
            {"time": at(7)},
            {"time": at(60), "open_contracts": 1, "equity": 50_000 - SIDE},
            {"time": at(1, 1), "open_contracts": 0, "equity": 50_000 - 23.75 - 125.0},
        ],
    },
    sessions=days(2),
)
exit_case(
    "a fixed trailing stop follows finished bars and acts from the next",
    # After bar 6: 100.75 - 1. Bar 7 (100.25 to 102): no exit, then 101, which bar 8 touches.
    "7 100.5 102 100.25 101.75 10; 8 101.75 102 101 101.5 10",
    {"exit_price": 101.0, "exit_time": at(9), "exit_reason": "stop", "stop": px(99.5)},
    {"exit": {"trailing": "fixed", "trailing_distance": "1 points"}},
)
exit_case(
    "a trailing stop is never loosened",
    # Bar 6: 100.75 - 2 * 0.5 = 99.75. Bar 7: 101 - 2 * 0.75 = 99.5, which would be looser.
    "7 100.5 101 100.25 100.5 10; 8 100.5 100.5 99.75 100 10",
    {"exit_price": 99.75, "exit_reason": "stop", "exit_time": at(9)},
    {"exit": {"trailing": "true_range", "trailing_multiple": 2.0, "trailing_bars": 1}},
)
exit_case(
    "a true-range trailing stop is rounded away from the price",
    # True ranges of bars 4, 5, 6: 0.25, 0.5, 0.5; mean 0.4167; 100.75 less it is 100.33: 100.25.
    "7 100.5 100.5 100.25 100.5 10",
    {"exit_price": 100.25, "exit_reason": "stop", "exit_time": at(8)},
    {"exit": {"trailing": "true_range", "trailing_multiple": 1.0, "trailing_bars": 3}},
)
exit_case(
    "a trailing stop with fewer bars takes those there are",
    # All of bars 0 to 6: 1, 0.75, 0.75, 0.5, 0.25, 0.5, 0.5: mean 4.25/7 = 0.607: 100.143: 100.00.
    "7 100.5 100.5 100 100.5 10",
    {"exit_price": 100.0, "exit_reason": "stop", "exit_time": at(8)},
    {"exit": {"trailing": "true_range", "trailing_multiple": 1.0, "trailing_bars": 14}},
)
add(
    "after an inside fill trailing starts with the next bar",
    # Filled inside bar 6, whose high of 101 does not count: bar 7 trails to 99.5 from 100.5.
    [
        *long_at(0),
        *retest(5),
        *bars("6 100.5 101 100 100.25 10; 7 100.25 100.5 99.5 100 10; 8 100 100 99.5 99.75 10"),
    ],
    {
        "trades": [
            {"exit_time": at(9), "exit_price": 99.5, "stop": px(99.25), "exit_reason": "stop"}
        ]
    },
    settings={
        "entry": {"mode": "limit"},
        "exit": {"trailing": "fixed", "trailing_distance": "1 points"},
    },
)
SCALE: Settings = {"size": {"base": 2.0}, "exit": {"scale_out": [{"fraction": 0.5, "reward": 1.0}]}}
exit_case(
    "a scale-out leaves in part, one row a trade",
    "7 100.5 101.75 100 101 10; 8 101 102.75 101 102 10",
    {
        "quantity": 2,
        "exit_price": 102.0,
        "exit_time": at(9),
        "exit_reason": "target",
        "gross": 150.0,
        "costs": 47.5,
        "net": 102.5,
        "mae": 0.5,
        "mfe": 2.0,
    },
    SCALE,
)
exit_case(
    "legs fill as targets do: a tick beyond",
    "7 100.5 101.5 100 101 10; 8 101 101 99.5 100 10",
    {"exit_price": 99.5, "exit_reason": "stop", "gross": -100.0},
    SCALE,
)
exit_case(
    "a leg at a distance",
    "7 100.5 101.25 100 101 10; 8 101 101 99.5 100 10",
    {"exit_price": (101.0 + 99.5) / 2, "exit_reason": "stop", "ambiguous": False, "gross": -25.0},
    {"size": {"base": 2.0}, "exit": {"scale_out": [{"fraction": 0.5, "distance": "2 ticks"}]}},
)
exit_case(
    "a leg of no contract is skipped",
    "7 100.5 101.75 100 101 10; 8 101 102.75 101 102 10",
    {"quantity": 1, "exit_price": 102.5, "exit_reason": "target"},
    {"exit": {"scale_out": [{"fraction": 0.9, "reward": 1.0}]}},
)
exit_case(
    "legs alone may end a trade",
    "7 100.5 101.75 100 101 10; 8 101 102.25 101 102 10",
    {"exit_price": (101.5 + 102.0) / 2, "exit_reason": "scale_out", "exit_time": at(9)},
    {
        "size": {"base": 2.0},
        "exit": {"scale_out": [{"fraction": 0.5, "reward": 1.0}, {"fraction": 0.5, "reward": 1.5}]},
    },
)
exit_case(
    "a leg and the stop in one bar: all at the stop",
    "7 100.5 101.75 99.5 101 10",
    {"exit_price": 99.5, "exit_reason": "stop", "ambiguous": True},
    SCALE,
)
exit_case(
    "a leg and the stop in one bar, target first: the rest leaves at the stop",
    "7 100.5 101.75 99.5 101 10",
    {"exit_price": 100.5, "exit_reason": "stop", "ambiguous": True, "gross": 0.0},
    {
        "size": {"base": 2.0},
        "exit": {"scale_out": [{"fraction": 0.5, "reward": 1.0}], "same_bar": "target_first"},
    },
)
exit_case(
    "a gap fills a leg at its price, the rest stays",
    "7 101.75 101.75 101.5 101.5 10",
    {"exit_price": 101.5, "exit_reason": "open", "bars_held": 2},
    SCALE,
)

# Section 13: order of work.

add(
    "exits inside a bar are known to a confirmation at its end",
    # One open contract: the first trade stops in bar 15, whose close confirms the second signal.
    [
        *entered(),
        *flat(7, 10, 100.75),
        *long_at(10),
        *bars("15 100.5 100.5 99.5 100.25 10; 16 100.5 100.5 100.5 100.5 10"),
    ],
    {
        "trades": [
            {"exit_reason": "stop", "exit_time": at(16)},
            {"entry_time": at(16), "exit_reason": "open"},
        ],
        "orders": [{"quantity": 1}, {"quantity": 1}],
    },
    settings={"risk": {"max_open_contracts": 1}},
)
add(
    "advance changes nothing else",
    [
        *long_at(0),
        Advance(at(5)),
        *retest(5),
        Advance(at(6)),
        *bars("6 100.50 100.75 100.25 100.50 10"),
        Advance(at(7)),
        *bars("7 100.5 102.75 100.5 102.5 10"),
    ],
    {"trades": [ORDINARY_TRADE | {"exit_reason": "target"}], "signals": [{"reason": "ordered"}]},
)
add(
    "advance emits what is due",
    [*long_at(0), Advance(at(15))],
    {
        "signals": [{"reason": "expired", "resolved_time": at(15)}],
        "funnel": {"windows": 3, "thin": 2},
    },
)

# Section 14: money, learning, size.

add(
    "the equity of a won and a lost trade",
    [*won(0), *lost(1)],
    {
        "equity": [
            {
                "time": at(7),
                "balance": 50_000 - SIDE,
                "equity": 50_000 - SIDE,
                "open_contracts": 1,
                "drawdown": SIDE,
            },
            {
                "time": at(8),
                "balance": 50_076.25,
                "equity": 50_076.25,
                "open_contracts": 0,
                "drawdown": 0.0,
            },
            {"time": at(60), "equity": 50_076.25},
            {"time": at(7, 1), "equity": 50_076.25 - SIDE},
            {"time": at(8, 1), "equity": 50_002.5, "drawdown": 73.75},
        ],
        "trades": [{"net": 76.25}, {"net": -73.75}],
    },
    sessions=days(2),
)
BETA: Settings = {"learning": {"mode": "beta", "context": "modal_bin", "bins": 20}}
add(
    "three wins in a context raise the size",
    [*won(0), *won(1), *won(2), *entered(3)],
    {
        "orders": [
            {
                "multiplier": 1.0,
                "posterior_mean": 0.5,
                "posterior_low": 0.05,
                "posterior_high": 0.95,
                "quantity": 1,
            },
            # Beta(2, 1): the quantile is the square root.
            {
                "multiplier": 1.0,
                "posterior_mean": 2 / 3,
                "posterior_low": 0.05**0.5,
                "posterior_high": 0.95**0.5,
            },
            {"multiplier": 1.0, "posterior_mean": 3 / 4, "quantity": 1},
            {
                "multiplier": 2.8,
                "posterior_mean": 0.8,
                "posterior_low": 0.05**0.25,
                "posterior_high": 0.95**0.25,
                "quantity": 3,
                "context": 0,
            },
        ]
    },
    settings=BETA,
    sessions=days(4),
)
add(
    "size rounded down",
    [*won(0), *won(1), *won(2), *entered(3)],
    {"orders": [{}, {}, {}, {"multiplier": 2.8, "quantity": 2}]},
    settings=BETA | {"size": {"rounding": "floor"}},
    sessions=days(4),
)
add(
    "losses leave the multiplier at one",
    [*lost(0), *lost(1), *lost(2), *entered(3)],
    # Beta(1, 4): the mean is 1/5; the q quantile is 1 - (1 - q)^(1/4).
    {
        "orders": [
            {},
            {},
            {},
            {"multiplier": 1.0, "posterior_mean": 0.2, "posterior_low": 1 - 0.95**0.25},
        ]
    },
    settings=BETA,
    sessions=days(4),
)
add(
    "the multiplier is capped",
    [*won(0), *won(1), *won(2), *entered(3)],
    {"orders": [{}, {}, {}, {"multiplier": 1.5, "quantity": 2}]},
    settings={"learning": BETA["learning"] | {"max": 1.5}},
    sessions=days(4),
)
add(
    "trades older than the lookback do not count",
    # Exits at minute 8; confirmations at 6: two days back from day 3 leaves days 1 and 2.
    [*won(0), *won(1), *won(2), *entered(3)],
    {"orders": [{}, {}, {}, {"multiplier": 1.0, "posterior_mean": 0.75}]},
    settings={"learning": BETA["learning"] | {"lookback_days": 2}},
    sessions=days(4),
)
add(
    "score multiplies win rate and mean return in percent",
    [*won(0), *won(1), *lost(2), *entered(3)],
    # Returns 76.25 / 5025 twice and -73.75 / 5025, in percent; 2 of 3 won.
    {
        "orders": [
            {"posterior_mean": None},
            {},
            {},
            {
                "multiplier": 1 + 2.0 * (2 / 3) * ((76.25 * 2 - 73.75) / 5025 * 100 / 3),
                "quantity": 2,
            },
        ]
    },
    settings={"learning": {"mode": "score", "context": "modal_bin", "scale": 2.0}},
    sessions=days(4),
)
add(
    "the hour of New York is a context",
    entered(),
    {"orders": [{"context": 20}]},
    settings={"learning": {"mode": "beta", "context": "hour"}},
    sessions=[session(new_york_offset_s=-14_400)],
)
add(
    "the rank is a context",
    [*burst(0, 200), *moved(long_at(0), 5), *retest(10), *flat(11, 12, 100.5)],
    {"orders": [{"context": 2}]},
    settings={"learning": {"mode": "beta", "context": "volume_rank"}},
)
add(
    "strength raises the size",
    # 2 * (1 + 0.25 * 1) = 2.5: three, halves up.
    entered(),
    {"orders": [{"quantity": 3}]},
    settings={"size": {"base": 2.0, "signal_scale": 0.25}},
)
add(
    "size is at least one and at most max_contracts",
    entered(),
    {"orders": [{"quantity": 1}]},
    settings={"size": {"base": 0.2}},
)
add(
    "risk per trade caps the size",
    # 0.2 % of 50,000 is 100; a contract risks 50.
    entered(),
    {"orders": [{"quantity": 2}]},
    settings={"size": {"base": 3.0}, "risk": {"max_risk_per_trade": 0.002}},
)
add(
    "risk per trade leaves one contract at least",
    entered(),
    {"orders": [{"quantity": 1}]},
    settings={"risk": {"max_risk_per_trade": 0.0005}},
)
add(
    "strict risk leaves none",
    entered(),
    {
        "orders": [
            {
                "quantity": 0,
                "reason": "max_risk",
                "stop_distance": px(1),
                "multiplier": 1.0,
                "resolved_time": at(6),
            }
        ],
        "signals": [{"reason": "blocked"}],
        "trades": [],
    },
    settings={"risk": {"max_risk_per_trade": 0.0005, "strict": True}},
)
add(
    "margin caps the size",
    entered(),
    {"orders": [{"quantity": 2}]},
    settings={"size": {"base": 3.0}},
    instrument=Instrument(margin=20_000.0),
)
add(
    "strict margin leaves none",
    entered(),
    {"orders": [{"quantity": 0, "reason": "margin"}]},
    settings={"risk": {"strict": True}},
    instrument=Instrument(margin=60_000.0),
)

# Section 15: risk gates.

TWO_LONGS = [*entered(), *flat(7, 10, 100.75), *long_at(10), *retest(15), *flat(16, 17, 100.75)]
LONG_THEN_SHORT = [
    *entered(),
    *flat(7, 10, 100.75),
    *short_at(10),
    *retest_high(15),
    *bars("16 100.75 101 100.5 100.75 10"),
]
add(
    "an entry is cut to what is left of the open contracts",
    TWO_LONGS,
    {"orders": [{"quantity": 2}, {"quantity": 1, "reason": "filled"}]},
    settings={"size": {"base": 2.0}, "risk": {"max_open_contracts": 3}},
)
add(
    "an entry with nothing left is blocked",
    TWO_LONGS,
    {
        "orders": [
            {},
            {
                "quantity": 0,
                "reason": "max_open_contracts",
                "stop_distance": px(1),
                "entry_time": None,
            },
        ]
    },
    settings={"risk": {"max_open_contracts": 1}},
)
add(
    "trades of a session are limited",
    TWO_LONGS,
    {
        "orders": [
            {},
            {
                "quantity": 0,
                "reason": "max_trades_per_session",
                "stop_distance": None,
                "multiplier": None,
            },
        ],
        "signals": [
            {"reason": "ordered"},
            {"reason": "blocked", "confirmed_time": at(16), "resolved_time": at(16)},
        ],
    },
    settings={"risk": {"max_trades_per_session": 1}},
)
add(
    "a working order counts as a trade of the session",
    [
        *long_at(0),
        *retest(5),
        *flat(6, 10, 100.75),
        *long_at(10),
        *retest(15),
        *flat(16, 17, 100.75),
    ],
    # The first order waits at 98.25 and never resolves.
    {"orders": [{"decision_time": at(15), "reason": "max_trades_per_session"}]},
    settings={"entry": {"mode": "limit", "offset_ticks": 8}, "risk": {"max_trades_per_session": 1}},
)
add(
    "an opposite signal is blocked",
    LONG_THEN_SHORT,
    {"orders": [{}, {"direction": "short", "quantity": 0, "reason": "opposite_open"}]},
)
add(
    "an opposite signal may reverse",
    LONG_THEN_SHORT,
    {
        "trades": [
            {
                "direction": "long",
                "exit_price": 100.75,
                "exit_time": at(16),
                "exit_reason": "reverse",
            },
            {
                "direction": "short",
                "entry_time": at(16),
                "entry_price": px(100.75),
                "exit_reason": "open",
            },
        ]
    },
    settings={"risk": {"opposite": "reverse", "max_open_contracts": 1}},
)
add(
    "hedging holds both",
    LONG_THEN_SHORT,
    {
        "trades": [
            {"direction": "long", "exit_reason": "open"},
            {"direction": "short", "exit_reason": "open"},
        ]
    },
    settings={"risk": {"opposite": "hedge"}},
)
add(
    "under reverse an opposite working order is cancelled when the new one is made",
    [*long_at(0), *retest(5), *flat(6, 10, 100.75), *short_at(10), *retest_high(15)],
    {"orders": [{"direction": "long", "reason": "reverse", "resolved_time": at(16)}]},
    settings={"entry": {"mode": "limit", "offset_ticks": 8}, "risk": {"opposite": "reverse"}},
)
LOSE_THEN_AGAIN = [*lost(0), *flat(8, 10, 103.0), *long_at(10), *retest(15), *flat(16, 17, 100.75)]
add(
    "losses in a row pause until the next session",
    [*LOSE_THEN_AGAIN, *won(1)],
    {
        "risk": [
            {"time": at(8), "kind": "paused", "reason": "consecutive_losses"},
            {"time": at(0, 1), "kind": "resumed", "reason": "next_session"},
        ],
        "orders": [{"reason": "filled"}, {"reason": "paused", "quantity": 0}, {"reason": "filled"}],
    },
    settings={"risk": {"max_consecutive_losses": 1}},
    sessions=days(2),
)
add(
    "a win clears the count of losses, and it runs across sessions",
    [*lost(0), *won(1), *lost(2), *lost(3)],
    {"risk": [{"time": at(8, 3), "kind": "paused"}]},
    settings={"risk": {"max_consecutive_losses": 2}},
    sessions=days(4),
)
add(
    "a day's loss pauses",
    LOSE_THEN_AGAIN,
    {
        "risk": [{"time": at(8), "kind": "paused", "reason": "daily_loss"}],
        "orders": [{}, {"reason": "paused"}],
    },
    settings={"risk": {"daily_loss_pct": 0.147}},
)
add(
    "a day's loss just below the limit does not pause",
    LOSE_THEN_AGAIN,
    # 73.75 of 50,000 are 0.1475 %; the second entry's costs bring it beyond.
    {"risk": [{"time": at(17), "kind": "paused"}], "orders": [{}, {"reason": "filled"}]},
    settings={"risk": {"daily_loss_pct": 0.148}},
)
DRAWDOWN: Settings = {"account": {"balance": 1000.0}, "risk": {"max_drawdown_pct": 5.0}}
add(
    "a drawdown halts until the operator resets",
    [*lost(0), *entered(1), Operator("reset_halt"), *entered(2)],
    {
        "risk": [
            {"time": at(8), "kind": "halted", "reason": "max_drawdown"},
            {"time": at(7, 1), "kind": "reset", "reason": "operator"},
        ],
        "orders": [{"reason": "filled"}, {"reason": "halted", "quantity": 0}, {"reason": "filled"}],
    },
    settings=DRAWDOWN,
    sessions=days(3),
)
add(
    "a halt may end with the next session, with the peak at its open",
    [*lost(0), *lost(1)],
    {
        "risk": [
            {"time": at(8), "kind": "halted"},
            {"time": at(0, 1), "kind": "reset", "reason": "next_session"},
            {"time": at(8, 1), "kind": "halted"},
        ],
        "equity": [
            {},
            {"equity": 926.25, "drawdown": 73.75},
            {},
            {"time": at(7, 1), "drawdown": SIDE},
            {"equity": 852.5, "drawdown": 73.75},
        ],
    },
    settings={
        "account": {"balance": 1000.0},
        "risk": {"max_drawdown_pct": 5.0, "on_halt": "next_session"},
    },
    sessions=days(2),
)
add(
    "a halt cancels working orders and lets positions go on",
    # Long at 100.25; the best mark is 101 at bar 10: 1025.625. At 99.50 it is 950.625, 75 lower.
    # The short waits at 100.75.
    [
        *long_at(0),
        *retest(5),
        *bars("6 100.5 100.5 100 100.5 10"),
        *flat(7, 10, 100.75),
        *short_at(10),
        *retest_high(15),
        *bars("16 100.5 100.5 99.5 99.5 10; 17 99.75 99.75 99.75 99.75 10"),
    ],
    {
        "risk": [{"time": at(17), "kind": "halted"}],
        "trades": [{"entry_price": px(100.25), "exit_reason": "open", "exit_time": at(18)}],
        "orders": [
            {"reason": "filled"},
            {"reason": "halted", "resolved_time": at(17), "entry_time": None, "quantity": 1},
        ],
    },
    settings={
        "account": {"balance": 1000.0},
        "entry": {"mode": "limit"},
        "risk": {"max_drawdown_pct": 5.0, "opposite": "hedge"},
    },
)

# Section 16: late bars.

add(
    "a retest at the end of a late bar is missed",
    [*long_at(0), Late(retest(5)[0]), *flat(6, 7, 100.5)],
    {
        "signals": [{"reason": "missed", "confirmed_time": at(6), "resolved_time": at(6)}],
        "orders": [],
        "trades": [],
    },
)
add(
    "a late bar fills and closes as any other",
    [
        *long_at(0),
        *retest(5),
        *(
            Late(bar)
            for bar in bars("6 100.50 100.75 100.25 100.50 10; 7 100.5 102.75 100.5 102.5 10")
        ),
    ],
    {"trades": [ORDINARY_TRADE | {"exit_reason": "target", "exit_time": at(8)}]},
)
add(
    "a missed signal was confirmed: the cooldown runs from it",
    [*long_at(0), Late(retest(5)[0]), *flat(6, 10, 103.0), *long_at(10)],
    {"clusters": [{"reason": "armed"}, {"reason": "cooldown"}]},
    settings={"rank": {"cooldown_minutes": 30}},
)
