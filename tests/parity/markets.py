"""Made-up markets and configurations that reach every rule of the engine.

One builder draws from a source of choices. A seeded source makes many markets fast, to count what
was compared; hypothesis as the source makes fewer, and shrinks those that fail.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hypothesis import strategies as st

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
from tests.reference_config import Config, merged, preset

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

T = TypeVar("T")
FIRST_DAY = 18_262
SYMBOLS = ("ESH0", "ESM0", "ESU0", "ESZ0", "ESH1", "ESM1")
# A rule family: entry mode, retest test, frame.
Family = tuple[str, str, str]
FAMILIES: list[Family] = [
    (entry, test, frame)
    for entry in ("next_open", "limit", "close")
    for test in ("close", "touch")
    for frame in ("aligned", "sliding")
]


class Source(Protocol):
    """Where choices come from."""

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""

    def pick(self, options: Sequence[T]) -> T:
        """Return one of some options; the first is the simplest."""

    def chance(self, percent: int) -> bool:
        """Return True in so many of a hundred cases."""


class Seeded:
    """Choices of a seeded generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def whole(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def chance(self, percent: int) -> bool:
        return self._random.random() * 100 < percent


class Draw(Protocol):
    """How hypothesis hands out a choice."""

    def __call__(self, strategy: st.SearchStrategy[int], /) -> int:
        """Return one choice of a strategy."""


class Drawn:
    """Choices of hypothesis, which shrink towards the low, the first and False."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def chance(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 - percent


@dataclass(frozen=True)
class Market:
    """What an engine is made of, and what it is fed."""

    inputs: list[Input]
    config: Config
    instrument: Instrument
    sessions: list[Session]
    interval_ns: int

    @property
    def family(self) -> Family:
        """Entry mode, retest test and frame."""
        config = self.config
        return (config["entry"]["mode"], config["retest"]["test"], config["cluster"]["frame"])


# Settings that do not reach the engine, and those drawn together below.
NO_SETTINGS_OF_THE_ENGINE = {
    "instrument.tick_size",
    "instrument.point_value",
    "instrument.commission",
    "instrument.margin",
    "session.day",
    "roll.lookback_hours",
    "roll.every",
    "statistics.seed",
    "statistics.resamples",
    "statistics.block_days",
}

SCALE_OUTS: list[list[dict[str, Any]]] = [
    [],
    [],
    [{"fraction": 0.5, "reward": 1.0}],
    [{"fraction": 0.4, "distance": "2 ticks"}, {"fraction": 0.6, "distance": "3 ticks"}],
    [{"fraction": 0.34, "reward": 0.5}, {"fraction": 0.33, "distance": "0.6 points"}],
    [{"fraction": 1.0, "distance": "3 ticks"}],
]

OPTIONS: dict[str, Sequence[Any]] = {
    "instrument.check_tick": [True, True, True, False],
    "instrument.allow_negative": [False, False, False, True],
    "session.hours": [[], [], ["09:30-16:00 America/New_York"]],
    "hours.bind_entries": [False, True],
    "baseline.mode": [
        "fixed",
        "fixed",
        "previous_session",
        "rolling",
        "session_to_date",
        "time_of_day",
    ],
    "baseline.bars": [20, 1, 5, 60],
    "baseline.min_bars": [30, 1, 5],
    "baseline.sessions": [20, 2, 1],
    "baseline.min_sessions": [1, 1, 2],
    "baseline.value": [20.0, 8.0, 45.0],
    "cluster.suppress_overlap": [True, True, False],
    "cluster.basis": ["window", "window", "minute"],
    "cluster.threshold": [0.0, 0.7, 1.0, 1.5, 2.5],
    "rank.hours": [2.0, 0.0, 0.1, 0.5],
    "rank.top_n": [10, 1, 2],
    "rank.max_per_session": [None, None, None, 2, 5],
    "rank.cooldown_minutes": [0, 0, 0, 3, 30],
    "profile.source": ["close_volume", "close", "range_volume", "trades"],
    "profile.tie": ["middle", "earliest", "lowest"],
    "signal.long_threshold": [0.3, 0.15, 0.5, 0.9],
    "signal.short_threshold": [0.7, 0.55, 0.95],
    "signal.shorts": [True, True, True, False],
    "signal.w_position": [0.7, 0.5, 0.0],
    "signal.w_volume": [0.3, 0.0, 1.0],
    "signal.w_momentum": [0.0, 0.2, 1.0],
    "signal.volume_cap": [4.0, 1.0, 10.0],
    "signal.momentum_scale": [16.0, 400.0],
    "signal.min_strength": [0.0, 0.1, 0.3],
    "signal.min_strength_short": [None, None, 0.0, 0.25],
    "retest.enabled": [True] * 5 + [False],
    "retest.tolerance": ["2 ticks", "0 ticks", "1 ticks", "0.75 points", "0.3 points", "6 ticks"],
    "retest.timeout_minutes": [30, 1, 5, 12, 100],
    "entry.max_wait_minutes": [5, 1, 2, 10],
    "entry.adverse": [False, False, True],
    "entry.limit_at": ["confirming_close", "modal_price"],
    "entry.offset_ticks": [0, 0, 1, 3],
    "entry.validity_minutes": [None, None, 1, 5, 20],
    "entry.through_ticks": [1, 0, 2],
    "volatility.estimator": [
        "garman_klass",
        "parkinson",
        "rogers_satchell",
        "close_to_close",
        "yang_zhang",
    ],
    "volatility.minutes": [480, 30, 120],
    "volatility.min_minutes": [20, 2, 60, 100],
    "volatility.atr_minutes": [240, 60, 40],
    "volatility.atr_min_minutes": [10, 30, 60],
    "stop.mode": ["volatility", "fixed"],
    "stop.k": [1.0, 0.3, 3.0, 0.0],
    "stop.min_pct": [0.0, 0.0, 0.1],
    "stop.distance": ["4 ticks", "2 ticks", "1.1 points", "9 ticks"],
    "target.mode": ["reward", "fixed"],
    "target.reward": [2.0, 1.0, 0.5, 1.5],
    "target.distance": ["6 ticks", "3 ticks", "1.6 points"],
    "exit.max_hold_minutes": [60, 1, 5, 12, 300],
    "exit.target_through_ticks": [1, 0, 2],
    "exit.same_bar": ["stop_first", "target_first"],
    "exit.flatten_minutes": [1, 0, 3, 11],
    "exit.trailing": ["off", "off", "fixed", "true_range"],
    "exit.trailing_distance": ["3 ticks", "1 ticks", "0.8 points", "6 ticks"],
    "exit.trailing_multiple": [1.0, 0.5, 2.5],
    "exit.trailing_bars": [14, 1, 5],
    "exit.scale_out": SCALE_OUTS,
    "costs.slippage_ticks": [0.75, 0.0, 0.1],
    "account.balance": [50_000.0, 15_000.0, 3_000.0],
    "learning.mode": ["beta", "score", "off"],
    "learning.context": ["none", "modal_bin", "volume_rank", "hour"],
    "learning.bins": [2, 1, 10],
    "learning.lookback_days": [None, None, 1, 3],
    "learning.min_trades": [3, 0, 1],
    "learning.scale": [6.0, 0.0, 50.0],
    "learning.max": [3.0, 1.5],
    "size.base": [1.0, 3.0, 2.0, 0.4],
    "size.signal_scale": [0.3, 0.0, 2.0],
    "size.max_contracts": [3, 1, 10],
    "size.rounding": ["half_up", "floor"],
    "risk.max_risk_per_trade": [None, None, None, 0.01, 0.0005],
    "risk.strict": [False, False, True],
    "risk.max_open_contracts": [None, 3, 3, 1, 6],
    "risk.max_trades_per_session": [None, None, None, 1, 3],
    "risk.max_consecutive_losses": [None, None, None, 2, 1],
    "risk.daily_loss_pct": [None, None, None, 0.5, 0.05],
    "risk.max_drawdown_pct": [None, None, None, 0.6, 0.1],
    "risk.opposite": ["block", "reverse", "hedge"],
    "risk.on_halt": ["next_session", "stop"],
}


# Many orders beside open positions, and limits that end both.
CROWDED: Config = {
    "cluster": {"suppress_overlap": False, "threshold": 0.5},
    "rank": {"top_n": 10, "max_per_session": None, "cooldown_minutes": 0},
    "signal": {"min_strength": 0.0, "long_threshold": 0.5, "short_threshold": 0.55},
    "retest": {"tolerance": "6 ticks"},
    "entry": {"offset_ticks": 3, "validity_minutes": None, "max_wait_minutes": 10},
    "risk": {
        "max_open_contracts": None,
        "max_trades_per_session": None,
        "max_risk_per_trade": None,
        "opposite": "hedge",
    },
}


def configuration(source: Source, family: Family, interval_ns: int) -> Config:
    """Return a configuration of a family with every other setting drawn."""
    changes: Config = {"momentum": {}}
    # A source that shrinks should come down to few settings, so that a failure is read at once.
    for path, options in OPTIONS.items():
        section, name = path.split(".")
        changes.setdefault(section, {})[name] = source.pick(options)
    entry, test, frame = family
    changes["entry"]["mode"] = entry
    changes["retest"]["test"] = test
    if source.chance(10):
        changes = merged(changes, CROWDED)
    bar = interval_ns // MINUTE
    width = source.pick([5 * bar, 3 * bar, bar, 8 * bar, 5 * bar + 1])
    changes["cluster"].update(frame=frame, minutes=width)
    start = source.pick([0, 0, 0, -3 * bar, 2 * bar, 1])
    end = source.pick([width, width, width + 3 * bar, width - 1, bar])
    changes["profile"].update(start_minute=start, end_minute=max(end, start + 1))
    start = source.pick([-30, -5 * bar, -2 * bar, 0, 1])
    end = source.pick([0, 1, bar, width + 2 * bar, -1])
    changes["momentum"].update(start_minute=start, end_minute=max(end, start + 1))
    if changes["cluster"]["basis"] == "minute":
        changes["cluster"]["threshold"] *= width
    if changes["signal"]["shorts"]:
        low, high = changes["signal"]["long_threshold"], changes["signal"]["short_threshold"]
        changes["signal"]["short_threshold"] = max(high, low + 0.05)
    baseline, volatility = changes["baseline"], changes["volatility"]
    baseline["min_sessions"] = min(baseline["min_sessions"], baseline["sessions"])
    volatility["min_minutes"] = min(volatility["min_minutes"], volatility["minutes"])
    volatility["atr_min_minutes"] = min(volatility["atr_min_minutes"], volatility["atr_minutes"])
    for name in ("minutes", "min_minutes", "atr_minutes", "atr_min_minutes"):
        volatility[name] *= 1 if bar == 1 else bar // 2
    for section, name in (
        ("retest", "timeout_minutes"),
        ("entry", "max_wait_minutes"),
        ("exit", "max_hold_minutes"),
    ):
        changes[section][name] *= source.pick([1, bar])
    if changes["entry"]["validity_minutes"] is not None:
        changes["entry"]["validity_minutes"] *= source.pick([1, bar])
    return merged(preset("default"), changes)


def schedule(source: Source, interval_ns: int, count: int, most_bars: int) -> list[Session]:
    """Return sessions with half days, halts, hours and closes off the grid of the bars."""
    sessions = []
    usual = source.whole(most_bars // 2, most_bars)
    offset = source.pick([0, -2 * 60 * MINUTE])
    for day in range(count):
        start = (FIRST_DAY + day) * DAY + offset
        bars = usual // 2 if source.chance(15) else usual
        close = start + bars * interval_ns
        if interval_ns > MINUTE and source.chance(30):
            close -= source.whole(1, interval_ns // MINUTE - 1) * MINUTE
        begin = start + source.whole(0, bars // 2) * interval_ns
        end = min(begin + source.whole(1, bars) * interval_ns, close)
        hours = [(begin, end)] if begin < end else []
        halts = []
        if source.chance(20):
            halt = start + source.whole(1, bars - 2) * interval_ns
            halts = [(halt, min(halt + 3 * interval_ns, close))]
        sessions.append(
            Session(FIRST_DAY + day, start, close, hours, halts, source.pick([-18_000, -14_400]))
        )
    return sessions


@dataclass
class Tape:
    """A price that wanders on the tick grid around a level, and how busy the market is."""

    source: Source
    instrument: Instrument
    level: int
    price: int
    burst: int = 0
    pull: int = 0
    heavy: bool = False
    bars: list[Bar] = field(default_factory=list)

    def bar(self, start: int, symbol: str) -> Bar:
        """Return the next bar."""
        source, tick = self.source, self.instrument.tick_nanos
        if self.burst == 0 and source.chance(6):
            # Volume first at one price, then the price leaves it: a modal price at an end.
            self.burst, self.pull, self.heavy = source.whole(3, 9), source.pick([1, -1]), True
        jump = 0
        if source.chance(3):
            jump = source.pick([1, -1]) * source.whole(4, 14)
        self.price += jump
        opened = self.price
        step = source.whole(-3, 3)
        if self.burst:
            step = 0 if self.heavy else self.pull * source.whole(0, 2)
        elif abs(self.price - self.level) > 12:
            step = -source.whole(0, 4) if self.price > self.level else source.whole(0, 4)
        closed = opened + step
        up, down = source.whole(0, 2), source.whole(0, 2)
        if self.burst and self.heavy:
            up, down = (1, 0) if self.pull > 0 else (0, 1)
        if source.chance(2):
            up, down = up + source.whole(0, 16), down + source.whole(0, 16)
        volume = source.pick([10, 10, 20, 7, 13])
        if self.burst:
            volume *= 30 if self.heavy else 6
            self.heavy = self.heavy and source.chance(25)
            self.burst -= 1
        self.price = closed
        ticks = [opened, max(opened, closed) + up, min(opened, closed) - down, closed]
        prices = [number * tick for number in ticks]
        if not self.instrument.check_tick and source.chance(30):
            # Off the grid, and still coherent: the whole bar moves.
            by = source.pick([tick // 5, tick // 2, tick - 1])
            prices = [price + by for price in prices]
        bar = Bar(start, prices[0], prices[1], prices[2], prices[3], volume, symbol)
        self.bars.append(bar)
        return bar


def trades_of(source: Source, bar: Bar, interval_ns: int, tick: int) -> list[Trade]:
    """Return prints inside a bar, on the grid."""
    if source.chance(2):
        return []
    low, high = bar.low // tick, bar.high // tick
    return [
        Trade(
            bar.start + source.whole(0, interval_ns - 1),
            max(source.whole(low, high), low) * tick,
            source.pick([1, 5, bar.volume]),
        )
        for _ in range(source.whole(1, 3))
    ]


def market(
    source: Source,
    family: Family | None = None,
    sessions: tuple[int, int] = (2, 6),
    bars: tuple[int, int] = (30, 150),
) -> Market:
    """Return a market: sessions, a configuration, and what the engine is fed."""
    family = family or source.pick(FAMILIES)
    interval_ns = source.pick([1, 1, 1, 1, 5, 5, 30]) * MINUTE
    config = configuration(source, family, interval_ns)
    settings = config["instrument"]
    instrument = Instrument(
        tick_nanos=source.pick([250_000_000, 100_000_000]),
        point_value=source.pick([50.0, 5.0]),
        commission=source.pick([2.5, 0.0]),
        margin=source.pick([None, None, None, 1_000.0, 20_000.0]),
        check_tick=settings["check_tick"],
        allow_negative=settings["allow_negative"],
    )
    most = source.whole(*bars)
    # No more than fit into a day.
    most = min(most, DAY // interval_ns - 2, 20 * 60 * MINUTE // interval_ns)
    table = schedule(source, interval_ns, source.whole(*sessions), max(most, 12))
    level = source.whole(800, 20_000)
    if instrument.allow_negative:
        level = source.pick([0, -400, 2_000])
    tape = Tape(source, instrument, level, level)
    if not config["session"]["hours"]:
        table = [replace(session, hours=None) for session in table]
    inputs = _inputs(source, tape, table, interval_ns, config)
    return Market(inputs, config, instrument, table, interval_ns)


def _inputs(
    source: Source, tape: Tape, table: Sequence[Session], interval_ns: int, config: Config
) -> list[Input]:
    inputs: list[Input] = []
    symbol = 0
    late = advances = 0
    gated = any(
        config["risk"][name] is not None
        for name in ("max_consecutive_losses", "daily_loss_pct", "max_drawdown_pct")
    )
    seen: list[int] = []
    last: int | None = None
    for index, session in enumerate(table):
        if source.chance(6):
            # A session without a bar.
            continue
        if seen and source.chance(30):
            # To the next month; now and then back, which the engine is not asked about.
            symbol = (symbol + source.pick([1, 1, 1, 1, 5])) % len(SYMBOLS)
            if source.chance(60):
                place = context_session(source, seen, index)
                inputs += context_bars(source, tape, table[place], interval_ns, SYMBOLS[symbol])
        elif not seen and source.chance(10) and index:
            # A start that is warmed up with context.
            inputs += context_bars(source, tape, table[0], interval_ns, SYMBOLS[symbol])
            seen.append(0)
        seen.append(index)
        late = source.pick([0, 0, 0, 30])
        advances = source.pick([0, 10, 40])
        missing = source.pick([2, 0, 10, 40])
        # Some sessions begin late or end early.
        first = source.whole(0, 12) * interval_ns if source.chance(20) else 0
        end = session.close - (source.whole(0, 12) * interval_ns if source.chance(40) else 0)
        for start in range(session.open + first, end, interval_ns):
            halted = any(low <= start < high for low, high in session.halts)
            if halted or source.chance(missing):
                continue
            if last is not None:
                inputs += _before(source, last, start, interval_ns, advances, gated=gated)
            bar = tape.bar(start, SYMBOLS[symbol])
            if source.chance(1):
                # Zero volume is dropped before every check.
                inputs.append(bar._replace(start=bar.start - 7, volume=0, low=bar.high + 3))
            if config["profile"]["source"] == "trades":
                inputs += trades_of(source, bar, interval_ns, tape.instrument.tick_nanos)
            inputs.append(Late(bar) if source.chance(late) else bar)
            last = start
        following = table[index + 1].open if index + 1 < len(table) else None
        outside = _outside(source, session, interval_ns, following)
        if outside is not None and (last is None or last < outside):
            inputs.append(tape.bar(outside, SYMBOLS[symbol]))
            last = outside
    return inputs


def _before(
    source: Source, last: int, start: int, interval_ns: int, advances: int, *, gated: bool
) -> list[Input]:
    """Return what may come between two bars: an advance, the operator."""
    inputs: list[Input] = []
    if source.chance(advances):
        latest = start + interval_ns - 1
        earliest = max(last - interval_ns, latest - 4 * interval_ns)
        inputs.append(Advance(source.whole(earliest, latest)))
    if source.chance(2 if gated else 0):
        inputs.append(Operator("reset_halt"))
    return inputs


def _outside(
    source: Source, session: Session, interval_ns: int, following: int | None
) -> int | None:
    """Return now and then the start of a bar between two sessions."""
    start = -(-session.close // interval_ns) * interval_ns + source.whole(0, 3) * interval_ns
    if source.chance(10) and (following is None or start < following):
        return start
    return None


def context_session(source: Source, seen: Sequence[int], now: int) -> int:
    """Return which session the incoming contract brings along: the last that ended.

    That is the old contract's last one, or a later one in which only the new contract traded.
    """
    return seen[-1] if source.chance(80) else source.whole(seen[-1], now - 1)


def context_bars(
    source: Source, tape: Tape, session: Session, interval_ns: int, symbol: str
) -> list[Input]:
    """Return another contract's bars of a session."""
    share = source.pick([100, 60, 95])
    shift = source.whole(-20, 20)
    tape.level += shift
    tape.price += shift
    return [
        Context(tape.bar(start, symbol))
        for start in range(session.open, session.close, interval_ns)
        if source.chance(share)
    ]


@st.composite
def markets(draw: DrawFn) -> Market:
    """Return small markets for hypothesis."""
    return market(Drawn(draw), sessions=(2, 4), bars=(12, 30))


def seeded(seed: int) -> Market:
    """Return the market of a seed; twelve seeds in a row cover every family."""
    return market(Seeded(seed), FAMILIES[seed % len(FAMILIES)])
