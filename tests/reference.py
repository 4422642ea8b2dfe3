"""The oracle: the engine once more, slow and plain, from the rules alone, not from the Rust code.

Nothing here is shared with the package. Prices are int nanos (1e-9), times int nanoseconds UTC.
Whatever is needed is computed again from the list of bars. `Reference.step` takes one bar after
the other and holds no future; only the mutants, which leak on purpose, are given all bars by `run`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NANOS = 1_000_000_000
UNDEF_PRICE = (1 << 63) - 1
MUTANTS = (
    "retest_from_window_start",
    "same_day_baseline",
    "target_before_stop",
    "stop_from_fill_bar",
    "rank_whole_day",
    "interval_read_too_short",
)
# Mutants that see bars of the future; `run` hands them all bars.
SEEING = ("retest_from_window_start", "same_day_baseline", "interval_read_too_short")

Row = dict[str, Any]
Frames = dict[str, list[Row]]


class Bar(NamedTuple):
    """A bar; it covers [start, start + interval). Prices in nanos."""

    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    symbol: str = "ESZ5"


class Late(NamedTuple):
    """A bar that reached us too late to act on."""

    bar: Bar


class Context(NamedTuple):
    """A bar of the incoming contract's last complete session."""

    bar: Bar


class Trade(NamedTuple):
    """A print."""

    ts: int
    price: int
    size: int


class Advance(NamedTuple):
    """Says that every interval ending at or before `ts` is closed."""

    ts: int


class Operator(NamedTuple):
    """Something the operator did."""

    what: str


Input = Bar | Late | Context | Trade | Advance | Operator


@dataclass(frozen=True)
class Session:
    """One row of the session table; `trade_date` in days since 1970.

    `hours` are the allowed intervals. None stands for the whole session, as when no hours are
    configured; an empty list allows nothing.
    """

    trade_date: int
    open: int
    close: int
    hours: Sequence[tuple[int, int]] | None = None
    halts: Sequence[tuple[int, int]] = ()
    new_york_offset_s: int = -18_000


@dataclass(frozen=True)
class Instrument:
    """What the engine knows of a contract."""

    tick_nanos: int = 250_000_000
    point_value: float = 50.0
    commission: float = 2.5
    margin: float | None = None
    check_tick: bool = True
    allow_negative: bool = False


class ReferenceRefusal(Exception):  # noqa: N818 - a refusal of input, not an error of the program
    """Input that is refused, with its row (None for settings) and column."""

    def __init__(self, row: int | None, column: str, found: object = None) -> None:
        super().__init__(f"row {row}, column {column}: {found!r}")
        self.row = row
        self.column = column


def floor_int(x: float) -> int:
    """Return x rounded down, forgiving 1e-9."""
    return math.floor(x + 1e-9)


def ceil_int(x: float) -> int:
    """Return x rounded up, forgiving 1e-9."""
    return math.ceil(x - 1e-9)


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up, in integers."""
    return -(-a // b)


def total(values: Iterable[float]) -> float:
    """Return the sum, left to right."""
    result = 0.0
    for value in values:
        result += value
    return result


def parse_distance(text: str) -> tuple[float, str]:
    """Return number and unit of a distance such as `2 ticks`."""
    number, unit = text.split()
    return float(number), unit.rstrip("s")


def distance_ticks(text: str, tick: int) -> float:
    """Return a distance in ticks, not rounded."""
    number, unit = parse_distance(text)
    return number if unit == "tick" else number * 1e9 / tick


def distance_nanos(text: str, tick: int) -> int:
    """Return a distance in nanos, to the nearest, halves up."""
    number, unit = parse_distance(text)
    return math.floor((number * tick if unit == "tick" else number * 1e9) + 0.5)


# Volatility.

# Bars in order, each with the close that its return and true range look back to, or None.
Returns: TypeAlias = "Sequence[tuple[Bar, int | None]]"


def _positive(bars: Returns) -> bool:
    return all(
        min(bar.open, bar.high, bar.low, bar.close) > 0 and (before is None or before > 0)
        for bar, before in bars
    )


def _variance(values: Sequence[float]) -> float | None:
    n = len(values)
    if n < 2:
        return None
    mean = total(values) / n
    return total((value - mean) * (value - mean) for value in values) / (n - 1)


def garman_klass(bars: Returns) -> float | None:
    """Return the mean Garman-Klass variance per bar."""
    if not _positive(bars):
        return None
    return total(
        0.5 * math.log(bar.high / bar.low) ** 2
        - (2.0 * math.log(2.0) - 1.0) * math.log(bar.close / bar.open) ** 2
        for bar, _ in bars
    ) / len(bars)


def parkinson(bars: Returns) -> float | None:
    """Return the mean Parkinson variance per bar."""
    if not _positive(bars):
        return None
    return total(
        math.log(bar.high / bar.low) ** 2 / (4.0 * math.log(2.0)) for bar, _ in bars
    ) / len(bars)


def rogers_satchell(bars: Returns) -> float | None:
    """Return the mean Rogers-Satchell variance per bar."""
    if not _positive(bars):
        return None
    return total(
        math.log(bar.high / bar.close) * math.log(bar.high / bar.open)
        + math.log(bar.low / bar.close) * math.log(bar.low / bar.open)
        for bar, _ in bars
    ) / len(bars)


def close_to_close(bars: Returns) -> float | None:
    """Return the variance of close-to-close returns within sessions."""
    if not _positive(bars):
        return None
    return _variance([math.log(bar.close / before) for bar, before in bars if before is not None])


def yang_zhang(bars: Returns) -> float | None:
    """Return the Yang-Zhang variance per bar; opening returns stay within sessions."""
    satchell = rogers_satchell(bars)
    opening = (
        [math.log(bar.open / before) for bar, before in bars if before]
        if satchell is not None
        else []
    )
    opening_variance = _variance(opening)
    n = len(bars)
    if satchell is None or opening_variance is None or n < 2:
        return None
    body_variance = _variance([math.log(bar.close / bar.open) for bar, _ in bars])
    assert body_variance is not None
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    return opening_variance + k * body_variance + (1.0 - k) * satchell


def true_range(bar: Bar, before: int | None) -> int:
    """Return a bar's true range."""
    if before is None:
        return bar.high - bar.low
    return max(bar.high - bar.low, abs(bar.high - before), abs(bar.low - before))


def average_true_range(bars: Returns) -> float:
    """Return the mean true range, in nanos."""
    return sum(true_range(bar, before) for bar, before in bars) / len(bars)


def atr_sigma(bars: Returns) -> float | None:
    """Return the sigma per bar that explains the mean true range."""
    mean_close = sum(bar.close for bar, _ in bars) / len(bars)
    if mean_close <= 0:
        return None
    return average_true_range(bars) / (1.5958 * mean_close)


ESTIMATORS: dict[str, Callable[[Returns], float | None]] = {
    "garman_klass": garman_klass,
    "parkinson": parkinson,
    "rogers_satchell": rogers_satchell,
    "close_to_close": close_to_close,
    "yang_zhang": yang_zhang,
}


def with_previous(bars: Sequence[Bar]) -> list[tuple[Bar, int | None]]:
    """Return the bars of one session and symbol with the close before each."""
    return [(bar, bars[i - 1].close if i else None) for i, bar in enumerate(bars)]


def rolling_sigma(
    estimator: str, bars: Sequence[Bar], n: int, periods_per_year: float = 1.0
) -> list[float | None]:
    """Return the annualised sigma over the last n bars at every bar of one session."""
    pairs = with_previous(bars)
    result: list[float | None] = []
    for end in range(1, len(bars) + 1):
        variance = ESTIMATORS[estimator](pairs[end - n : end]) if end >= n else None
        result.append(None if variance is None else math.sqrt(variance * periods_per_year))
    return result


def rolling_atr(bars: Sequence[Bar], n: int) -> list[float | None]:
    """Return the mean true range (nanos) over the last n bars at every bar of one session."""
    pairs = with_previous(bars)
    return [
        average_true_range(pairs[end - n : end]) if end >= n else None
        for end in range(1, len(bars) + 1)
    ]


def rolling_baseline(volumes: Sequence[int], n: int, bar_minutes: float) -> list[float | None]:
    """Return the volume per minute of the n bars before each bar."""
    return [
        sum(volumes[i - n : i]) / (n * bar_minutes) if i >= n else None for i in range(len(volumes))
    ]


# Profile.


@dataclass(frozen=True)
class Profile:
    """Volume at price and what is read from it; prices in nanos."""

    histogram: dict[int, int]
    modal: int
    tied: bool
    value_low: int
    value_high: int
    position: float


def to_tick(price: int, tick: int) -> int:
    """Return the tick nearest to a price, halves up."""
    return (price + tick // 2) // tick


def spread(volume: int, low_tick: int, high_tick: int) -> dict[int, int]:
    """Return a bar's volume spread over the ticks of its range."""
    n = high_tick - low_tick + 1
    each, rest = divmod(volume, n)
    shares = [each] * n
    for j in range(rest):
        shares[(2 * j + 1) * n // (2 * rest)] += 1
    return {low_tick + i: share for i, share in enumerate(shares) if share}


def bar_histogram(
    bar: Bar, source: str, tick: int, trades: Sequence[tuple[int, int]] = ()
) -> dict[int, int]:
    """Return what one bar adds to the profile, by tick."""
    if source == "close":
        return {to_tick(bar.close, tick): 1}
    if source == "close_volume":
        return {to_tick(bar.close, tick): bar.volume}
    if source == "range_volume":
        return spread(bar.volume, to_tick(bar.low, tick), to_tick(bar.high, tick))
    histogram: Counter[int] = Counter()
    for price, size in trades:
        histogram[to_tick(price, tick)] += size
    return dict(histogram)


def profile(
    bars: Sequence[Bar],
    source: str,
    tie: str,
    tick: int,
    trades: dict[int, list[tuple[int, int]]] | None = None,
) -> Profile | None:
    """Return the profile of a list of bars, or None without bars or with trades missing."""
    histogram: Counter[int] = Counter()
    first_bar: dict[int, int] = {}
    for index, bar in enumerate(bars):
        added = bar_histogram(bar, source, tick, (trades or {}).get(bar.start, ()))
        if not added:
            return None
        histogram.update(added)
        for price in added:
            first_bar.setdefault(price, index)
    if not histogram:
        return None
    low = min(bar.low for bar in bars)
    high = max(bar.high for bar in bars)
    heaviest = max(histogram.values())
    tied = [price for price, volume in histogram.items() if volume == heaviest]
    keys: dict[str, Callable[[int], tuple[int, ...]]] = {
        "middle": lambda t: (abs(2 * t * tick - (low + high)), first_bar[t], t),
        "earliest": lambda t: (first_bar[t], t),
        "lowest": lambda t: (t,),
    }
    modal = min(tied, key=keys[tie])
    bottom, top = value_area(histogram, modal)
    position = 0.5 if high == low else (modal * tick - low) / (high - low)
    return Profile(
        dict(histogram), modal * tick, len(tied) > 1, bottom * tick, top * tick, position
    )


def value_area(histogram: dict[int, int], modal: int) -> tuple[int, int]:
    """Return lowest and highest tick of the 70 % around the modal tick."""
    lowest, highest = min(histogram), max(histogram)
    whole = sum(histogram.values())
    low = high = modal
    inside = histogram[modal]
    while 10 * inside < 7 * whole:
        above = histogram.get(high + 1, 0) if high < highest else -1
        below = histogram.get(low - 1, 0) if low > lowest else -1
        if above >= below:
            high += 1
            inside += above
        else:
            low -= 1
            inside += below
    return low, high


# Learning.


def beta_cdf(x: float, a: int, b: int) -> float:
    """Return P(Beta(a, b) <= x) for whole a and b: the binomial tail P(Bin(a + b - 1, x) >= a)."""
    n = a + b - 1
    if n <= 60:
        return math.fsum(math.comb(n, k) * x**k * (1.0 - x) ** (n - k) for k in range(a, n + 1))
    # The largest term by logarithms, the others from it, one after the other.
    largest = min(max(math.floor((n + 1) * x), a), n)
    log = math.log(math.comb(n, largest))
    log += largest * math.log(x) + (n - largest) * math.log1p(-x)
    terms = [math.exp(log)]
    odds = x / (1.0 - x)
    term = terms[0]
    for k in range(largest, n):
        term *= (n - k) / (k + 1) * odds
        terms.append(term)
    term = terms[0]
    for k in range(largest, a, -1):
        term *= k / (n - k + 1) / odds
        terms.append(term)
    return math.fsum(terms)


@lru_cache(maxsize=100_000)
def beta_quantile(q: float, a: int, b: int) -> float:
    """Return the q quantile of Beta(a, b) for whole a and b, by bisection."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return middle
        if beta_cdf(middle, a, b) < q:
            low = middle
        else:
            high = middle


def fnv1a_128(text: str) -> str:
    """Return the 128-bit FNV-1a hash as 32 hex digits."""
    value = 0x6C62272E07BB014262B821756295C58D
    for byte in text.encode():
        value = ((value ^ byte) * 0x0000000001000000000000000000013B) % (1 << 128)
    return f"{value:032x}"


# State.


@dataclass(eq=False)
class SessionState:
    """The session in progress: what ends with it."""

    index: int
    row: Session
    end: int
    symbol: str
    bars: list[Bar] = field(default_factory=list)
    by_start: dict[int, Bar] = field(default_factory=dict)
    next_aligned: int = 0
    sliding: list[int] = field(default_factory=list)
    last_unsuppressed: int | None = None
    candidates: list[tuple[int, float]] = field(default_factory=list)
    armed: int = 0
    entered: int = 0


@dataclass
class Past:
    """An ended session, as the baselines see it."""

    index: int
    row: Session
    symbol: str
    bars: dict[int, Bar]
    volume: int
    good: bool


@dataclass(eq=False)
class Signal:
    """An armed signal."""

    row: Row
    cluster: Row
    session: SessionState
    sign: int
    expiry: int
    hours_end: int | None


@dataclass(eq=False)
class Order:
    """A working order."""

    row: Row
    signal: Signal
    sign: int
    own_deadline: int | None
    own_reason: str
    hours_end: int | None
    flatten: int
    stop_ticks: int
    target_ticks: int
    fresh: bool = True

    @property
    def quantity(self) -> int:
        """Contracts."""
        return int(self.row["quantity"])


@dataclass(eq=False)
class Leg:
    """One leg of a scale-out."""

    quantity: int
    price: int


@dataclass(eq=False)
class Position:
    """An open trade."""

    order: Order
    sign: int
    quantity: int
    open_quantity: int
    entry_time: int
    entry_price: int
    stop: int
    first_stop: int
    target: int
    legs: list[Leg]
    session_index: int
    symbol: str
    # The bar that gets no look at its extremes: an inside fill's own bar.
    blind: bool = False
    skip_open_checks: bool = False
    bars_held: int = 1
    best: int | None = None
    mae: int = 0
    mfe: int = 0
    fills: list[tuple[int, int]] = field(default_factory=list)
    exit_costs: float = 0.0
    gross: float = 0.0
    ambiguous: bool = False
    optimistic: bool = False


class Reference:
    """One engine, one account, one instrument."""

    def __init__(
        self,
        config: dict[str, dict[str, Any]],
        instrument: Instrument,
        sessions: Sequence[Session],
        interval_ns: int,
        config_id: str = "",
        mutant: str | None = None,
    ) -> None:
        if mutant is not None and mutant not in MUTANTS:
            raise ValueError(mutant)
        self.config = config
        self.instrument = instrument
        self.sessions = list(sessions)
        self.session_opens = [session.open for session in sessions]
        self.interval = interval_ns
        self.config_id = config_id
        self.mutant = mutant
        self._read_settings()
        # Input.
        self.row = -1
        self.last_start: int | None = None
        self.advanced: int | None = None
        self.trades_by_bar: dict[int, list[tuple[int, int]]] = {}
        self.context_part: list[Bar] = []
        self.context_session = -1
        self.last_context: int | None = None
        # Market.
        self.last_bar: Bar | None = None
        self.session: SessionState | None = None
        self.past: list[Past] = []
        self.usual_counts: list[tuple[int, int]] = []
        self.rolling: list[Bar] = []
        self.volatility: list[tuple[Bar, int | None]] = []
        self.volatility_place: tuple[int, str] | None = None
        # Trading.
        self.signals: list[Signal] = []
        self.orders: list[Order] = []
        self.positions: list[Position] = []
        self.last_confirmed: int | None = None
        self.in_bar_position = False
        # Account.
        self.balance = float(config["account"]["balance"])
        self.bookings: list[tuple[float, Row | None]] = []
        self.closed: list[Row] = []
        self.peak = self.balance
        self.session_open_equity = self.balance
        self.losses = 0
        self.halted = False
        self.paused = False
        # Output.
        self.frames: Frames = {
            name: []
            for name in ("clusters", "signals", "orders", "trades", "equity", "risk", "funnel")
        }
        self.events: list[tuple[str, Row]] = []
        self.counts: Counter[str] = Counter()
        # Only for mutants.
        self.future: dict[int, dict[int, Bar]] = {}
        self.future_ranks: dict[int, list[tuple[int, float]]] = {}

    # Settings.

    def _bars(self, minutes: float) -> int:
        return ceil_div(int(minutes) * MINUTE, self.interval)

    def _read_settings(self) -> None:
        config, m = self.config, self.interval
        wanted = config["cluster"]["minutes"] * MINUTE
        if wanted < m:
            raise ReferenceRefusal(None, "cluster.minutes", config["cluster"]["minutes"])
        self.window = ceil_div(wanted, m) * m
        self.window_minutes = self.window / MINUTE
        self.profile_start = config["profile"]["start_minute"] * MINUTE // m * m
        self.profile_end = ceil_div(config["profile"]["end_minute"] * MINUTE, m) * m
        self.momentum_start = config["momentum"]["start_minute"] * MINUTE // m * m
        self.momentum_end = ceil_div(config["momentum"]["end_minute"] * MINUTE, m) * m
        self.delay = max(self.window, self.profile_end, self.momentum_end)
        self.need = max(1, ceil_int(0.8 * self.window / m))
        self.hold = config["exit"]["max_hold_minutes"] * MINUTE
        self.hold_bars = self._bars(config["exit"]["max_hold_minutes"])
        self.flatten = config["exit"]["flatten_minutes"] * MINUTE
        self.cooldown = config["rank"]["cooldown_minutes"] * MINUTE
        self.tick = self.instrument.tick_nanos
        self.tolerance = distance_nanos(config["retest"]["tolerance"], self.tick)
        self.sliding = config["cluster"]["frame"] == "sliding"
        self.same_bar = config["exit"]["same_bar"]
        if self.mutant == "target_before_stop":
            self.same_bar = "target_first"
        # How much earlier than known a mutant looks at its windows.
        self.early = {"retest_from_window_start": self.delay, "interval_read_too_short": m}.get(
            self.mutant or "", 0
        )
        self.side_cost = (
            self.instrument.commission
            + config["costs"]["slippage_ticks"] * self.tick / 1e9 * self.instrument.point_value
        )

    # Input.

    def step(self, bar: Bar, actionable: bool = True) -> None:
        """Consume one bar."""
        self.row += 1
        if bar.volume == 0:
            self.counts["zero_volume"] += 1
            return
        self._check(bar)
        if self.last_start is not None and bar.start <= self.last_start:
            raise ReferenceRefusal(self.row, "ts_event", bar.start)
        if self.advanced is not None and bar.start + self.interval <= self.advanced:
            raise ReferenceRefusal(self.row, "ts_event", bar.start)
        index = self._session_of(bar.start)
        if index is None:
            self.last_start = bar.start
            self.counts["outside_session"] += 1
            return
        same_session = self.session is not None and self.session.index == index
        if same_session and self.session is not None and bar.symbol != self.session.symbol:
            raise ReferenceRefusal(self.row, "symbol", bar.symbol)
        self.last_start = bar.start
        self.counts["bars"] += 1
        end = bar.start + self.interval
        self._end_context()
        self.last_context = None
        self._due(bar.start)
        self._leave_stale(bar)
        if not same_session:
            self._open_session(index, bar)
            self._due(bar.start)
        self._at_open(bar)
        self._due(end - 1)
        self._inside(bar)
        self._at_end(bar, actionable)
        self._due(end)

    def context(self, bar: Bar) -> None:
        """Take one bar of the incoming contract's last session."""
        self.row += 1
        if bar.volume == 0:
            self.counts["zero_volume"] += 1
            return
        self._check(bar)
        if self.last_context is not None and bar.start <= self.last_context:
            raise ReferenceRefusal(self.row, "ts_event", bar.start)
        index = self._session_of(bar.start)
        if index is None:
            self.counts["outside_session"] += 1
            return
        self.counts["context_bars"] += 1
        if self.last_context is None:
            # Nothing of the old contract is left open, whichever session the context is of.
            until = self._session_end(index)
            self.advance(until if self.session is None else max(until, self.session.end))
            self._leave_stale(bar)
            self.rolling = []
            self.volatility = []
        elif index != self.context_session:
            self._end_context()
        self.context_session = index
        self.last_context = bar.start
        self.context_part.append(bar)
        self.rolling.append(bar)
        self._add_volatility(bar, index)

    def trade(self, ts: int, price: int, size: int) -> None:
        """Take a print, for the profile of the bar that will hold it."""
        known = self._now()
        if known is not None and ts < known:
            raise ReferenceRefusal(self.row, "ts_event", ts)
        if size <= 0:
            raise ReferenceRefusal(self.row, "size", size)
        self._check_price("price", price)
        start = ts // self.interval * self.interval
        self.trades_by_bar.setdefault(start, []).append((price, size))

    def advance(self, ts: int) -> None:
        """Close every interval ending at or before `ts`."""
        ts = ts // self.interval * self.interval
        self._due(ts)
        if self.advanced is None or ts > self.advanced:
            self.advanced = ts

    def operator(self, what: str) -> None:
        """Take an act of the operator."""
        if what != "reset_halt":
            raise ValueError(what)
        self.halted = self.paused = False
        self.losses = 0
        self.peak = self._equity()
        # Before any bar there is no time yet.
        self._emit("risk", {"time": self._now() or 0, "kind": "reset", "reason": "operator"})

    def finish(self) -> None:
        """Close the last interval and write the open trades."""
        if self.last_bar is None:
            return
        end = self.last_bar.start + self.interval
        self.advance(end)
        for position in self._sorted(self.positions):
            self._leave(position, position.open_quantity, self.last_bar.close, booked=False)
            self._emit("trades", self._trade_row(position, end, "open", stale=False))

    def _now(self) -> int | None:
        known = [] if self.last_bar is None else [self.last_bar.start + self.interval]
        if self.advanced is not None:
            known.append(self.advanced)
        return max(known, default=None)

    def _check_price(self, column: str, price: int) -> None:
        if isinstance(price, bool) or not isinstance(price, int) or price == UNDEF_PRICE:
            raise ReferenceRefusal(self.row, column, price)
        if price <= 0 and not self.instrument.allow_negative:
            raise ReferenceRefusal(self.row, column, price)
        if self.instrument.check_tick and price % self.tick:
            raise ReferenceRefusal(self.row, column, price)

    def _check(self, bar: Bar) -> None:
        if bar.start % self.interval:
            raise ReferenceRefusal(self.row, "ts_event", bar.start)
        for column in ("open", "high", "low", "close"):
            self._check_price(column, getattr(bar, column))
        if bar.high < max(bar.open, bar.close):
            raise ReferenceRefusal(self.row, "high", bar.high)
        if bar.low > min(bar.open, bar.close):
            raise ReferenceRefusal(self.row, "low", bar.low)
        if not isinstance(bar.volume, int) or bar.volume < 0:
            raise ReferenceRefusal(self.row, "volume", bar.volume)
        index = self._session_of(bar.start)
        if index is not None and self.sessions[index].open % self.interval:
            raise ReferenceRefusal(self.row, "ts_event", bar.start)

    def _session_of(self, start: int) -> int | None:
        index = bisect_right(self.session_opens, start) - 1
        if index < 0 or start >= self.sessions[index].close:
            return None
        return index

    # Context and history.

    def _end_context(self) -> None:
        """Put the context bars of one session in the old contract's place."""
        part = self.context_part
        if part:
            self._remember(self.context_session, part[-1].symbol, part, counted=False)
        self.context_part = []

    def _remember(self, index: int, symbol: str, bars: Sequence[Bar], *, counted: bool) -> None:
        if counted:
            self.usual_counts.append((index, len(bars)))
        entry = Past(
            index=index,
            row=self.sessions[index],
            symbol=symbol,
            bars={bar.start: bar for bar in bars},
            volume=sum(bar.volume for bar in bars),
            good=self._is_good(index, len(bars)),
        )
        self.past = [past for past in self.past if past.index != index]
        self.past.append(entry)
        self.past.sort(key=lambda past: past.index)

    def _is_good(self, index: int, bars: int) -> bool:
        """Whether a session has at least 80 % of the bars that sessions before it had."""
        counts = sorted([count for other, count in self.usual_counts if other < index][-20:])
        if not counts:
            row = self.sessions[index]
            return 2 * bars >= ceil_div(row.close - row.open, self.interval)
        half = len(counts) // 2
        # Twice the median, so that it is whole.
        twice = 2 * counts[half] if len(counts) % 2 else counts[half - 1] + counts[half]
        return 10 * bars * 2 >= 8 * twice

    def _add_volatility(self, bar: Bar, session_index: int) -> None:
        if self.volatility and self.volatility[-1][0].symbol != bar.symbol:
            self.volatility = []
        same = bool(self.volatility) and self.volatility_place == (session_index, bar.symbol)
        self.volatility.append((bar, self.volatility[-1][0].close if same else None))
        self.volatility_place = (session_index, bar.symbol)

    # Session.

    def _session_end(self, index: int) -> int:
        """Return when the last interval that can hold a bar of a session is over."""
        row = self.sessions[index]
        return row.open + ceil_div(row.close - row.open, self.interval) * self.interval

    def _open_session(self, index: int, bar: Bar) -> None:
        row = self.sessions[index]
        self.session = SessionState(index, row, self._session_end(index), bar.symbol)
        if self.paused:
            self.paused = False
            self.losses = 0
            self._emit("risk", {"time": bar.start, "kind": "resumed", "reason": "next_session"})
        if self.halted and self.config["risk"]["on_halt"] == "next_session":
            self.halted = False
            self.peak = self._equity()
            # It counts as a reset.
            self._emit("risk", {"time": bar.start, "kind": "reset", "reason": "next_session"})
        self.session_open_equity = self._equity()

    def _close_session(self) -> None:
        session = self.session
        assert session is not None
        marked = self.frames["equity"]
        if not marked or marked[-1]["time"] != session.end:
            self._mark(session.end)
        self._remember(session.index, session.symbol, session.bars, counted=True)
        self.session = None

    # What falls due.

    def _window_due(self, session: SessionState, start: int) -> int:
        # Past the close it is judged at the close, from the bars that have ended by then.
        if start + self.delay - self.early > session.row.close:
            return session.row.close
        return start + self.delay - self.early

    def _next_window(self, session: SessionState) -> int | None:
        if self.sliding:
            return session.sliding[0] if session.sliding else None
        start = session.row.open + session.next_aligned * self.window
        return start if start + self.window <= session.row.close else None

    def _next_due(self) -> int | None:
        times: list[int] = []
        if self.session is not None:
            times.append(self.session.end)
            start = self._next_window(self.session)
            if start is not None:
                times.append(self._window_due(self.session, start))
        for signal in self.signals:
            times += [signal.expiry, signal.session.row.close]
            if signal.hours_end is not None:
                times.append(signal.hours_end)
        for order in self.orders:
            times.append(order.flatten)
            if order.own_deadline is not None:
                times.append(order.own_deadline)
            if order.hours_end is not None:
                times.append(order.hours_end)
        return min(times, default=None)

    def _due(self, limit: int) -> None:
        while True:
            time = self._next_due()
            if time is None or time > limit:
                return
            self._due_at(time)

    def _due_at(self, time: int) -> None:
        self._judge_windows(time, None)
        self._end_signals(time, "expired", lambda signal: signal.expiry)
        self._end_orders(time, None, lambda order: order.own_deadline)
        self._end_signals(time, "hours", lambda signal: signal.hours_end)
        self._end_orders(time, "hours", lambda order: order.hours_end)
        self._end_orders(time, "session", lambda order: order.flatten)
        self._end_signals(time, "session", lambda signal: signal.session.row.close)
        if self.session is not None and self.session.end <= time:
            self._close_session()

    def _end_signals(
        self, time: int, reason: str, deadline: Callable[[Signal], int | None]
    ) -> None:
        for signal in self._sorted(self.signals):
            due = deadline(signal)
            if due is not None and due <= time:
                self._resolve_signal(signal, time, reason)

    def _end_orders(
        self, time: int, reason: str | None, deadline: Callable[[Order], int | None]
    ) -> None:
        for order in self._sorted(self.orders):
            due = deadline(order)
            if due is not None and due <= time:
                self._kill(order, time, reason or order.own_reason)

    def _sorted(self, items: Iterable[Any]) -> list[Any]:
        def decision(item: Any) -> int:
            row = item.order.row if isinstance(item, Position) else item.row
            return int(row["decision_time"])

        return sorted(items, key=decision)

    def _kill(self, order: Order, time: int, reason: str) -> None:
        self.orders.remove(order)
        order.row.update(resolved_time=time, reason=reason)
        self._emit("orders", order.row)

    def _resolve_signal(self, signal: Signal, time: int, reason: str) -> None:
        if signal in self.signals:
            self.signals.remove(signal)
        signal.row.update(resolved_time=time, reason=reason)
        self._emit("signals", signal.row)

    def _emit(self, frame: str, row: Row) -> None:
        self.frames[frame].append(dict(row))
        self.events.append((frame, dict(row)))

    # Windows.

    def _judge_windows(self, time: int, bar: Bar | None, *, actionable: bool = True) -> None:
        session = self.session
        if session is None:
            return
        while True:
            start = self._next_window(session)
            if start is None or self._window_due(session, start) > time:
                return
            if self.sliding:
                session.sliding.pop(0)
            else:
                session.next_aligned += 1
            self._judge(session, start, bar, actionable=actionable)

    def _between(self, session: SessionState, low: int, high: int) -> list[Bar]:
        """Return this session's bars that start in [low, high)."""
        bars = session.by_start
        if self.early and session.index in self.future:
            bars = self.future[session.index]
        low = max(low, session.row.open)
        high = min(high, session.end)
        return [bars[start] for start in range(low, high, self.interval) if start in bars]

    def _minutes(self, bars: int) -> float:
        return bars * self.interval / MINUTE

    def _baseline(  # noqa: PLR0911 - one a mode
        self, session: SessionState, start: int
    ) -> tuple[float, str] | None:
        settings = self.config["baseline"]
        mode = settings["mode"]
        if self.mutant == "same_day_baseline":
            day = list(self.future.get(session.index, session.by_start).values())
            if not day:
                return None
            return sum(bar.volume for bar in day) / self._minutes(len(day)), mode
        if mode == "fixed":
            return float(settings["value"]), mode
        if mode == "session_to_date":
            bars = self._between(session, session.row.open, start)
            if not bars or len(bars) < self._bars(settings["min_bars"]):
                return None
            return sum(bar.volume for bar in bars) / self._minutes(len(bars)), mode
        if mode == "rolling":
            return self._rolling_baseline(session, start)
        if mode == "previous_session":
            for past in reversed(self.past):
                if past.good:
                    source = self._source(mode, past.symbol != session.symbol)
                    return past.volume / self._minutes(len(past.bars)), source
            return None
        return self._time_of_day_baseline(session, start)

    @staticmethod
    def _source(mode: str, other: bool) -> str:
        return mode + ",other_contract" if other else mode

    def _rolling_baseline(self, session: SessionState, start: int) -> tuple[float, str] | None:
        n = self._bars(self.config["baseline"]["bars"])
        end = len(self.rolling)
        while end > 0 and self.rolling[end - 1].start >= start:
            end -= 1
        if end < n:
            return None
        bars = self.rolling[end - n : end]
        other = any(bar.symbol != session.symbol for bar in bars)
        return sum(bar.volume for bar in bars) / self._minutes(n), self._source("rolling", other)

    def _time_of_day_baseline(self, session: SessionState, start: int) -> tuple[float, str] | None:
        settings = self.config["baseline"]
        x = start - session.row.open
        used = volume = count = 0
        latest: str | None = None
        for past in reversed(self.past):
            low = past.row.open + x
            high = low + self.window
            if high > past.row.close:
                continue
            if any(begin < high and low < end for begin, end in past.row.halts):
                continue
            bars = [past.bars[t] for t in range(low, high, self.interval) if t in past.bars]
            if not bars:
                continue
            latest = latest or past.symbol
            used += 1
            volume += sum(bar.volume for bar in bars)
            count += len(bars)
            if used == settings["sessions"]:
                break
        if used < settings["min_sessions"]:
            return None
        source = self._source("time_of_day", latest != session.symbol)
        return volume / self._minutes(count), source

    def _judge(
        self, session: SessionState, start: int, bar: Bar | None, *, actionable: bool
    ) -> None:
        self.counts["windows"] += 1
        bars = self._between(session, start, start + self.window)
        if len(bars) < self.need:
            self.counts["thin"] += 1
            return
        found = self._baseline(session, start)
        if found is None:
            self.counts["warming_up"] += 1
            return
        baseline, source = found
        volume = sum(b.volume for b in bars)
        if self.config["cluster"]["basis"] == "minute":
            ratio = volume / baseline
        else:
            ratio = volume / (baseline * self.window_minutes)
        if not ratio >= self.config["cluster"]["threshold"]:
            self.counts["quiet"] += 1
            return
        self.counts["clusters"] += 1
        shift = self.early if self.mutant == "interval_read_too_short" else 0
        natural = start + self.delay - shift
        no_time = natural > session.row.close
        decision = session.row.close if no_time else natural
        cluster: Row = {
            "symbol": session.symbol,
            "window_start": start,
            "decision_time": decision,
            "open": bars[0].open,
            "high": max(b.high for b in bars),
            "low": min(b.low for b in bars),
            "close": bars[-1].close,
            "volume": volume,
            "minutes": self._minutes(len(bars)),
            "baseline": baseline,
            "baseline_source": source,
            "volume_ratio": ratio,
            "rank": None,
            "modal_price": None,
            "modal_tied": None,
            "value_area_low": None,
            "value_area_high": None,
            "modal_position": None,
            "momentum": self._momentum(session, start),
            "direction": None,
            "strength": None,
            "reason": "",
        }
        found_profile = profile(
            self._between(session, start + self.profile_start, start + self.profile_end),
            self.config["profile"]["source"],
            self.config["profile"]["tie"],
            self.tick,
            self.trades_by_bar,
        )
        if found_profile is not None:
            cluster.update(
                modal_price=found_profile.modal,
                modal_tied=found_profile.tied,
                value_area_low=found_profile.value_low,
                value_area_high=found_profile.value_high,
                modal_position=found_profile.position,
            )
        cluster["reason"] = self._rank(session, cluster, no_time=no_time)
        self._emit("clusters", cluster)
        if cluster["reason"] == "armed":
            self._arm(session, cluster, bar, actionable=actionable)

    def _momentum(self, session: SessionState, start: int) -> float | None:
        bars = self._between(session, start + self.momentum_start, start + self.momentum_end)
        if len(bars) < 2 or bars[0].close == 0:
            return None
        return bars[-1].close / bars[0].close - 1.0

    def _hours_interval(self, session: SessionState, decision: int) -> tuple[bool, int | None]:
        """Return whether the decision is inside the hours, and when those end."""
        whole = [(session.row.open, session.row.close)]
        for begin, end in whole if session.row.hours is None else session.row.hours:
            if begin < decision <= end:
                return True, end
        return False, None

    def _rank(self, session: SessionState, cluster: Row, *, no_time: bool) -> str:
        """Fill rank, direction and strength, and return how far the cluster came."""
        reason = self._before_ranking(session, cluster, no_time=no_time)
        if reason is not None:
            return reason
        cluster["rank"] = 1 + self._better(session, cluster)
        session.candidates.append((cluster["decision_time"], cluster["volume_ratio"]))
        self._direction(cluster)
        return self._after_ranking(session, cluster) or "armed"

    def _before_ranking(self, session: SessionState, cluster: Row, *, no_time: bool) -> str | None:
        start = cluster["window_start"]
        if self.sliding and self.config["cluster"]["suppress_overlap"]:
            last = session.last_unsuppressed
            if last is not None and start < last + self.window:
                return "overlap"
            session.last_unsuppressed = start
        if not self._hours_interval(session, cluster["decision_time"])[0]:
            return "hours"
        if no_time:
            return "no_time"
        if cluster["modal_price"] is None:
            return "no_profile"
        return None

    def _better(self, session: SessionState, cluster: Row) -> int:
        """Count the candidates that rank before a cluster."""
        hours = self.config["rank"]["hours"]
        decision, ratio = cluster["decision_time"], cluster["volume_ratio"]
        if self.mutant == "rank_whole_day" and session.index in self.future_ranks:
            return sum(
                other > ratio or (other == ratio and time < decision)
                for time, other in self.future_ranks[session.index]
            )
        return sum(
            other >= ratio and (hours == 0 or time >= decision - round(hours * HOUR))
            for time, other in session.candidates
        )

    def _after_ranking(self, session: SessionState, cluster: Row) -> str | None:
        rank, settings = self.config["rank"], self.config["signal"]
        least = settings["min_strength"]
        if cluster["direction"] == "short" and settings["min_strength_short"] is not None:
            least = settings["min_strength_short"]
        if cluster["rank"] > rank["top_n"]:
            return "rank"
        if cluster["direction"] == "none":
            return "no_direction"
        if not cluster["strength"] >= least:
            return "weak"
        if rank["max_per_session"] is not None and session.armed >= rank["max_per_session"]:
            return "max_per_session"
        if not self._cool(cluster["decision_time"]):
            return "cooldown"
        return None

    def _cool(self, time: int) -> bool:
        return self.last_confirmed is None or time - self.last_confirmed >= self.cooldown

    def _direction(self, cluster: Row) -> None:
        settings = self.config["signal"]
        p = cluster["modal_position"]
        if p <= settings["long_threshold"]:
            direction, sign = "long", 1.0
            position_strength = 1.0 - p / settings["long_threshold"]
        elif settings["shorts"] and p >= settings["short_threshold"]:
            direction, sign = "short", -1.0
            position_strength = (p - settings["short_threshold"]) / (
                1.0 - settings["short_threshold"]
            )
        else:
            cluster["direction"] = "none"
            return
        position_strength = min(max(position_strength, 0.0), 1.0)
        volume_strength = min(cluster["volume_ratio"] / settings["volume_cap"], 1.0)
        momentum_strength = 0.0
        if cluster["momentum"] is not None:
            momentum_strength = min(
                max(0.0, sign * cluster["momentum"] * settings["momentum_scale"]), 1.0
            )
        cluster["direction"] = direction
        cluster["strength"] = (
            settings["w_position"] * position_strength
            + settings["w_volume"] * volume_strength
            + settings["w_momentum"] * momentum_strength
        )

    def _arm(
        self, session: SessionState, cluster: Row, bar: Bar | None, *, actionable: bool
    ) -> None:
        session.armed += 1
        decision = cluster["decision_time"]
        hours_end = None
        if self.config["hours"]["bind_entries"]:
            hours_end = self._hours_interval(session, decision)[1]
        row = {
            "symbol": cluster["symbol"],
            "decision_time": decision,
            "direction": cluster["direction"],
            "modal_price": cluster["modal_price"],
            "modal_position": cluster["modal_position"],
            "volume_ratio": cluster["volume_ratio"],
            "rank": cluster["rank"],
            "momentum": cluster["momentum"],
            "strength": cluster["strength"],
            "confirmed_time": None,
            # The column is never null: of a state on the way it is the state's own instant.
            "resolved_time": decision,
            "reason": "armed",
        }
        expiry = decision + self.config["retest"]["timeout_minutes"] * MINUTE
        sign = 1 if cluster["direction"] == "long" else -1
        signal = Signal(row, cluster, session, sign, expiry, hours_end)
        self.events.append(("signals", dict(row)))
        self.signals.append(signal)
        if not self.config["retest"]["enabled"]:
            self._confirm(signal, decision, bar, actionable=actionable)

    # Retest, order.

    def _retested(self, signal: Signal, bar: Bar) -> bool:
        modal = signal.row["modal_price"]
        if self.config["retest"]["test"] == "close":
            return bool(abs(bar.close - modal) <= self.tolerance)
        return bool(bar.low - self.tolerance <= modal <= bar.high + self.tolerance)

    def _confirm(self, signal: Signal, time: int, bar: Bar | None, *, actionable: bool) -> None:
        if not self._cool(time):
            self._resolve_signal(signal, time, "cooldown")
            return
        signal.row["confirmed_time"] = time
        self.last_confirmed = time
        if time >= signal.session.row.close - self.flatten:
            self._resolve_signal(signal, time, "session")
            return
        if bar is None:
            self._resolve_signal(signal, time, "no_bar")
            return
        order = self._new_order(signal, time, bar)
        reason = self._gate(signal) or self._size(order, time)
        if reason is not None:
            order.row.update(quantity=0, resolved_time=time, reason=reason)
            self._resolve_signal(signal, time, "blocked")
            self._emit("orders", order.row)
            return
        if not actionable:
            self._resolve_signal(signal, time, "missed")
            return
        self._resolve_signal(signal, time, "ordered")
        if self.config["risk"]["opposite"] == "reverse":
            for other in self._sorted(self.orders):
                if other.sign != order.sign:
                    self._kill(other, time, "reverse")
        self.events.append(("orders", dict(order.row)))
        self.orders.append(order)
        if self.config["entry"]["mode"] == "close":
            self._fill(order, time, bar.close, bar, kind="close")

    def _new_order(self, signal: Signal, time: int, bar: Bar) -> Order:
        settings = self.config["entry"]
        mode = settings["mode"]
        limit: int | None = None
        own: int | None = None
        own_reason = ""
        if mode == "limit":
            at_close = settings["limit_at"] == "confirming_close"
            anchor = bar.close if at_close else signal.row["modal_price"]
            limit = anchor - signal.sign * settings["offset_ticks"] * self.tick
            own_reason = "expired"
            if settings["validity_minutes"] is not None:
                own = time + settings["validity_minutes"] * MINUTE
        elif mode == "next_open":
            own_reason = "no_bar"
            own = time + settings["max_wait_minutes"] * MINUTE
        flatten = signal.session.row.close - self.flatten
        deadlines = [flatten, own, signal.hours_end]
        text = f"{signal.row['symbol']}|{signal.row['decision_time']}|{self.config_id}"
        row: Row = {
            "trade_id": fnv1a_128(text),
            "symbol": signal.row["symbol"],
            "decision_time": signal.row["decision_time"],
            "confirmed_time": time,
            "direction": signal.row["direction"],
            "mode": mode,
            "quantity": 0,
            "limit_price": limit,
            "reference_price": bar.close if limit is None else limit,
            "stop_distance": None,
            "target_distance": None,
            "sigma_hold": None,
            "sigma_source": None,
            "context": None,
            "multiplier": None,
            "posterior_mean": None,
            "posterior_low": None,
            "posterior_high": None,
            "valid_until": min(deadline for deadline in deadlines if deadline is not None),
            "entry_time": None,
            "entry_price": None,
            "resolved_time": time,
            "reason": "working",
        }
        return Order(row, signal, signal.sign, own, own_reason, signal.hours_end, flatten, 0, 0)

    def _gate(self, signal: Signal) -> str | None:
        risk = self.config["risk"]
        if self.halted:
            return "halted"
        if self.paused:
            return "paused"
        limit = risk["max_trades_per_session"]
        if limit is not None and signal.session.entered + len(self.orders) >= limit:
            return "max_trades_per_session"
        holders: list[Position | Order] = [*self.positions, *self.orders]
        if risk["opposite"] == "block" and any(h.sign != signal.sign for h in holders):
            return "opposite_open"
        return None

    def _size(self, order: Order, time: int) -> str | None:
        """Fix quantity and distances, or return the limit that leaves nothing."""
        risk, size = self.config["risk"], self.config["size"]
        self._distances(order, self.volatility)
        multiplier = self._learn(order, time)
        wanted = size["base"] * (1.0 + size["signal_scale"] * order.signal.row["strength"])
        wanted *= multiplier
        whole = floor_int(wanted + 0.5) if size["rounding"] == "half_up" else floor_int(wanted)
        quantity = min(max(whole, 1), size["max_contracts"])
        equity = self._last_mark()
        least = 0 if risk["strict"] else 1
        if risk["max_risk_per_trade"] is not None:
            loss = order.stop_ticks * self.tick / 1e9 * self.instrument.point_value
            cap = floor_int(risk["max_risk_per_trade"] * equity / loss)
            quantity = min(quantity, max(cap, least))
            if quantity == 0:
                return "max_risk"
        if self.instrument.margin:
            cap = floor_int(equity / self.instrument.margin)
            quantity = min(quantity, max(cap, least))
            if quantity == 0:
                return "margin"
        if risk["max_open_contracts"] is not None:
            reverse = risk["opposite"] == "reverse"
            held = sum(
                p.open_quantity for p in self.positions if not (reverse and p.sign != order.sign)
            )
            held += sum(o.quantity for o in self.orders if not (reverse and o.sign != order.sign))
            left = risk["max_open_contracts"] - held
            if left <= 0:
                return "max_open_contracts"
            quantity = min(quantity, left)
        order.row["quantity"] = quantity
        return None

    def _distances(self, order: Order, volatility: Sequence[tuple[Bar, int | None]]) -> None:
        stop, target = self.config["stop"], self.config["target"]
        price = abs(float(order.row["reference_price"]))
        sigma, source = self._sigma(volatility, price)
        if stop["mode"] == "fixed":
            stop_ticks = ceil_int(distance_ticks(stop["distance"], self.tick))
        else:
            distance = max(stop["k"] * sigma * price, stop["min_pct"] / 100.0 * price)
            stop_ticks = ceil_int(distance / self.tick)
        order.stop_ticks = max(stop_ticks, 1)
        if target["mode"] == "fixed":
            ticks = distance_ticks(target["distance"], self.tick)
        else:
            ticks = target["reward"] * order.stop_ticks
        order.target_ticks = max(floor_int(ticks + 0.5), 1)
        order.row.update(
            stop_distance=order.stop_ticks * self.tick,
            target_distance=order.target_ticks * self.tick,
            sigma_hold=sigma,
            sigma_source=source,
        )

    def _sigma(
        self, volatility: Sequence[tuple[Bar, int | None]], price: float
    ) -> tuple[float, str]:
        settings = self.config["volatility"]
        available = len(volatility)
        if available >= self._bars(settings["min_minutes"]):
            n = min(self._bars(settings["minutes"]), available)
            variance = ESTIMATORS[settings["estimator"]](volatility[available - n :])
            if variance is not None:
                return math.sqrt(variance * self.hold_bars), settings["estimator"]
        if available >= self._bars(settings["atr_min_minutes"]):
            n = min(self._bars(settings["atr_minutes"]), available)
            sigma = atr_sigma(volatility[available - n :])
            if sigma is not None:
                return sigma * math.sqrt(self.hold_bars), "atr"
        return 0.0015 + price / 1e9 / 1e6, "price"

    def _context_value(self, signal: Signal) -> int | None:
        settings = self.config["learning"]
        kind = settings["context"]
        if kind == "modal_bin":
            n = int(settings["bins"])
            # Off the grid, a modal tick may lie a little outside the range.
            return max(min(floor_int(signal.row["modal_position"] * n), n - 1), 0)
        if kind == "volume_rank":
            return int(signal.row["rank"])
        if kind == "hour":
            local = signal.row["decision_time"] + signal.session.row.new_york_offset_s * NANOS
            return int(local // HOUR % 24)
        return None

    def _learn(self, order: Order, time: int) -> float:
        settings = self.config["learning"]
        context = self._context_value(order.signal)
        record = [trade for trade in self.closed if trade["context"] == context]
        if settings["lookback_days"] is not None:
            oldest = time - settings["lookback_days"] * DAY
            record = [trade for trade in record if trade["exit_time"] >= oldest]
        wins = sum(1 for trade in record if trade["net"] > 0)
        count = len(record)
        multiplier = 1.0
        if settings["mode"] == "beta":
            a, b = 1 + wins, 1 + count - wins
            mean = a / (a + b)
            order.row.update(
                posterior_mean=mean,
                posterior_low=beta_quantile(0.05, a, b),
                posterior_high=beta_quantile(0.95, a, b),
            )
            if count >= settings["min_trades"] and mean > 0.5:
                multiplier = min(1.0 + settings["scale"] * (mean - 0.5), settings["max"])
        elif settings["mode"] == "score" and count > 0 and count >= settings["min_trades"]:
            # A trade entered at a price of zero has no return.
            average = total((trade["return"] or 0.0) * 100.0 for trade in record) / count
            score = 1.0 + settings["scale"] * (wins / count) * average
            multiplier = min(max(score, 1.0), settings["max"])
        order.row.update(context=context, multiplier=multiplier)
        return multiplier

    # Fills.

    def _fill(self, order: Order, time: int, price: int, bar: Bar, *, kind: str) -> None:
        """Open a position; `kind` is open, inside or close."""
        if self.mutant == "stop_from_fill_bar":
            self._distances(order, [*self.volatility, (bar, None)])
        if self.config["risk"]["opposite"] == "reverse":
            for position in self._sorted(self.positions):
                if position.sign != order.sign:
                    self._leave(position, position.open_quantity, price)
                    self._close(position, time, "reverse")
            if kind == "close":
                self._book()
        self.orders.remove(order)
        order.row.update(entry_time=time, entry_price=price, resolved_time=time, reason="filled")
        self._emit("orders", order.row)
        order.signal.session.entered += 1
        self.balance -= order.quantity * self.side_cost
        sign = order.sign
        position = Position(
            order=order,
            sign=sign,
            quantity=order.quantity,
            open_quantity=order.quantity,
            entry_time=time,
            entry_price=price,
            stop=price - sign * order.stop_ticks * self.tick,
            first_stop=price - sign * order.stop_ticks * self.tick,
            target=price + sign * order.target_ticks * self.tick,
            legs=self._legs(order, price),
            session_index=order.signal.session.index,
            symbol=order.row["symbol"],
            blind=kind != "open",
            optimistic=kind == "close",
        )
        self.positions.append(position)
        if kind != "close":
            self.in_bar_position = True

    def _legs(self, order: Order, price: int) -> list[Leg]:
        legs = []
        for leg in self.config["exit"]["scale_out"] or []:
            quantity = floor_int(leg["fraction"] * order.quantity)
            if leg.get("reward") is not None:
                ticks = leg["reward"] * order.stop_ticks
            else:
                ticks = distance_ticks(leg["distance"], self.tick)
            whole = max(floor_int(ticks + 0.5), 1)
            # A leg no nearer than the target leaves with it, as the price passes the target first.
            if quantity > 0 and whole < order.target_ticks:
                legs.append(Leg(quantity, price + order.sign * whole * self.tick))
        return legs

    def _leave(self, position: Position, quantity: int, price: int, *, booked: bool = True) -> None:
        """Let contracts leave at a price; the account hears of it at the bar's end."""
        points = position.sign * (price - position.entry_price)
        gross = points / 1e9 * self.instrument.point_value * quantity
        costs = quantity * self.side_cost
        position.fills.append((quantity, price))
        position.gross += gross
        position.exit_costs += costs
        position.open_quantity -= quantity
        position.mfe = max(position.mfe, points)
        position.mae = max(position.mae, -points)
        if booked:
            self.bookings.append((gross - costs, None))

    def _close(self, position: Position, time: int, reason: str, *, stale: bool = False) -> None:
        self.positions.remove(position)
        row = self._trade_row(position, time, reason, stale=stale)
        self._emit("trades", row)
        self.bookings.append((0.0, row))

    def _trade_row(self, position: Position, time: int, reason: str, *, stale: bool) -> Row:
        order, cluster = position.order.row, position.order.signal.cluster
        exit_price = sum(q * price for q, price in position.fills) / position.quantity / 1e9
        # In whole nanos: the difference of two prices as floats would lose the last digits.
        left = sum(q * (price - position.entry_price) for q, price in position.fills)
        points = position.sign * left / position.quantity / 1e9
        gross = points * self.instrument.point_value * position.quantity
        costs = 2 * position.quantity * self.side_cost
        notional = abs(position.entry_price) / 1e9 * self.instrument.point_value * position.quantity
        net = gross - costs
        return {
            "trade_id": order["trade_id"],
            "symbol": position.symbol,
            "direction": order["direction"],
            "quantity": position.quantity,
            "decision_time": order["decision_time"],
            "confirmed_time": order["confirmed_time"],
            "entry_time": position.entry_time,
            "entry_price": position.entry_price,
            "stop": position.first_stop,
            "target": position.target,
            "exit_time": time,
            "exit_price": exit_price,
            "exit_reason": reason,
            "ambiguous": position.ambiguous,
            "optimistic": position.optimistic,
            "stale": stale,
            "sigma_hold": order["sigma_hold"],
            "sigma_source": order["sigma_source"],
            "volume_ratio": cluster["volume_ratio"],
            "rank": cluster["rank"],
            "modal_price": cluster["modal_price"],
            "modal_tied": cluster["modal_tied"],
            "modal_position": cluster["modal_position"],
            "momentum": cluster["momentum"],
            "strength": cluster["strength"],
            "context": order["context"],
            "multiplier": order["multiplier"],
            "gross": gross,
            "costs": costs,
            "net": net,
            "return": net / notional if notional else None,
            "mae": position.mae / 1e9,
            "mfe": position.mfe / 1e9,
            "bars_held": position.bars_held,
        }

    def _leave_stale(self, bar: Bar) -> None:
        """Book positions of another contract at their last close."""
        stale = [p for p in self._sorted(self.positions) if p.symbol != bar.symbol]
        if not stale:
            return
        assert self.last_bar is not None
        for position in stale:
            self._leave(position, position.open_quantity, self.last_bar.close)
            end = self.last_bar.start + self.interval
            self._close(position, end, "session_end_late", stale=True)
        self._book()
        # A loss of the old session: what it pauses is served when the next one opens.
        self._check_risk(self.last_bar.start + self.interval)

    # The order of work in a bar.

    def _beyond(self, sign: int, price: int, level: int) -> bool:
        """Whether a price is far enough past a target to fill it."""
        through: int = self.config["exit"]["target_through_ticks"] * self.tick
        return sign * (price - level) >= through

    def _at_open(self, bar: Bar) -> None:
        assert self.session is not None
        self.in_bar_position = bool(self.positions)
        for position in self._sorted(self.positions):
            position.bars_held += 1
            position.blind = False
            if position.session_index != self.session.index:
                self._leave(position, position.open_quantity, bar.open)
                self._close(position, bar.start, "session_end_late")
            elif position.sign * (bar.open - position.stop) <= 0:
                self._leave(position, position.open_quantity, bar.open)
                self._close(position, bar.start, "stop")
            else:
                self._targets(position, bar.open, bar.start)
        for order in self._sorted(self.orders):
            if order.row["mode"] == "next_open":
                price = bar.open
                if self.config["entry"]["adverse"]:
                    price = order.sign * max(order.sign * bar.open, order.sign * bar.close)
                self._fill(order, bar.start, price, bar, kind="open")
            elif order.fresh and self._through_limit(order, bar.open):
                self._fill(order, bar.start, bar.open, bar, kind="open")
            order.fresh = False

    def _through_limit(self, order: Order, price: int) -> bool:
        through = self.config["entry"]["through_ticks"] * self.tick
        return bool(order.sign * (order.row["limit_price"] - price) >= through)

    def _targets(self, position: Position, price: int, time: int) -> None:
        """Fill the legs and the target that a price has passed."""
        for leg in list(position.legs):
            if self._beyond(position.sign, price, leg.price) and position.open_quantity:
                position.legs.remove(leg)
                self._leave(position, min(leg.quantity, position.open_quantity), leg.price)
        if not position.open_quantity:
            self._close(position, time, "scale_out")
        elif self._beyond(position.sign, price, position.target):
            self._leave(position, position.open_quantity, position.target)
            self._close(position, time, "target")

    def _inside(self, bar: Bar) -> None:
        end = bar.start + self.interval
        for position in self._sorted(self.positions):
            sign = position.sign
            worst, best = (bar.low, bar.high) if sign > 0 else (bar.high, bar.low)
            stopped = sign * (worst - position.stop) <= 0
            levels = [leg.price for leg in position.legs] + [position.target]
            reached = any(self._beyond(sign, best, level) for level in levels)
            if stopped and reached:
                position.ambiguous = True
            if reached and not (stopped and self.same_bar == "stop_first"):
                self._targets(position, best, end)
            if stopped and position.open_quantity:
                self._leave(position, position.open_quantity, position.stop)
                self._close(position, end, "stop")
        for order in self._sorted(self.orders):
            worst = bar.low if order.sign > 0 else bar.high
            if order.row["mode"] == "limit" and self._through_limit(order, worst):
                self._fill(order, end, order.row["limit_price"], bar, kind="inside")
                position = self.positions[-1]
                if order.sign * (worst - position.stop) <= 0:
                    price = order.sign * min(order.sign * position.stop, order.sign * bar.open)
                    self._leave(position, position.open_quantity, price)
                    self._close(position, end, "stop")

    def _at_end(self, bar: Bar, actionable: bool) -> None:
        session = self.session
        assert session is not None
        end = bar.start + self.interval
        self.last_bar = bar
        session.bars.append(bar)
        session.by_start[bar.start] = bar
        self.rolling.append(bar)
        self._add_volatility(bar, session.index)
        for position in self._sorted(self.positions):
            if not position.blind:
                sign = position.sign
                high, low = (bar.high, bar.low) if sign > 0 else (bar.low, bar.high)
                position.mfe = max(position.mfe, sign * (high - position.entry_price))
                position.mae = max(position.mae, sign * (position.entry_price - low))
            if end >= session.row.close - self.flatten:
                self._leave(position, position.open_quantity, bar.close)
                self._close(position, end, "session_end")
            elif end >= position.entry_time + self.hold:
                self._leave(position, position.open_quantity, bar.close)
                self._close(position, end, "time")
        self._book()
        if self.in_bar_position:
            self._mark(end)
            self._check_risk(end)
        self._trail(bar)
        for signal in self._sorted(self.signals):
            if self._retested(signal, bar):
                self._confirm(signal, end, bar, actionable=actionable)
        self._add_sliding(session, end)
        self._judge_windows(end, bar, actionable=actionable)

    def _add_sliding(self, session: SessionState, end: int) -> None:
        if not self.sliding:
            return
        start = end - self.window + min(self.early, self.window)
        if start < session.row.open or end > session.row.close:
            return
        if self.early and start + self.window - self.interval not in self.future.get(
            session.index, {}
        ):
            return
        session.sliding.append(start)

    def _trail(self, bar: Bar) -> None:
        settings = self.config["exit"]
        if settings["trailing"] == "off":
            return
        for position in self._sorted(self.positions):
            if position.blind:
                continue
            sign = position.sign
            extreme = bar.high if sign > 0 else bar.low
            if position.best is None or sign * (extreme - position.best) > 0:
                position.best = extreme
            if settings["trailing"] == "fixed":
                distance: float = distance_nanos(settings["trailing_distance"], self.tick)
            else:
                last = self.volatility[-settings["trailing_bars"] :]
                distance = settings["trailing_multiple"] * average_true_range(last)
            ticks = (position.best - sign * distance) / self.tick
            level = (floor_int(ticks) if sign > 0 else ceil_int(ticks)) * self.tick
            if sign * (level - position.stop) > 0:
                position.stop = level

    # Account.

    def _book(self) -> None:
        """Put exits into the account, the record and the count of losses, in exit order."""
        for money, trade in self.bookings:
            self.balance += money
            if trade is not None:
                self.closed.append(trade)
                self.losses = 0 if trade["net"] > 0 else self.losses + 1
        self.bookings = []

    def _equity(self) -> float:
        """Return the balance and, summed first, what is open."""
        results = []
        for position in self.positions:
            assert self.last_bar is not None
            points = position.sign * (self.last_bar.close - position.entry_price) / 1e9
            results.append(points * self.instrument.point_value * position.open_quantity)
        return self.balance + total(results)

    def _last_mark(self) -> float:
        if self.frames["equity"]:
            return float(self.frames["equity"][-1]["equity"])
        return float(self.config["account"]["balance"])

    def _mark(self, time: int) -> None:
        equity = self._equity()
        self.peak = max(self.peak, equity)
        self._emit(
            "equity",
            {
                "time": time,
                "balance": self.balance,
                "equity": equity,
                "open_contracts": sum(p.open_quantity for p in self.positions),
                "drawdown": self.peak - equity,
            },
        )

    def _check_risk(self, time: int) -> None:
        """Look at every limit; then the orders die, of the first that was reached."""
        risk = self.config["risk"]
        equity = self._last_mark()
        opened = self.session_open_equity
        reached: list[str] = []
        limit = risk["max_drawdown_pct"]
        drawdown = (self.peak - equity) * 100.0
        if limit is not None and not self.halted and drawdown >= limit * self.peak:
            self.halted = True
            reached.append("halted")
            self._emit("risk", {"time": time, "kind": "halted", "reason": "max_drawdown"})
        paused = None
        limit = risk["max_consecutive_losses"]
        if limit is not None and self.losses >= limit:
            paused = "consecutive_losses"
        limit = risk["daily_loss_pct"]
        lost = (opened - equity) * 100.0
        if limit is not None and lost >= limit * opened:
            paused = "daily_loss"
        if paused is not None and not self.paused:
            self.paused = True
            reached.append("paused")
            self._emit("risk", {"time": time, "kind": "paused", "reason": paused})
        if reached:
            for order in self._sorted(self.orders):
                self._kill(order, time, reached[0])


# Whole runs.


def feed(engine: Reference, item: Input) -> None:
    """Give the engine one input."""
    match item:
        case Bar():
            engine.step(item)
        case Late(bar):
            engine.step(bar, actionable=False)
        case Context(bar):
            engine.context(bar)
        case Trade(ts, price, size):
            engine.trade(ts, price, size)
        case Advance(ts):
            engine.advance(ts)
        case Operator(what):
            engine.operator(what)


def prepare(
    inputs: Sequence[Input],
    config: dict[str, dict[str, Any]],
    instrument: Instrument,
    sessions: Sequence[Session],
    interval_ns: int,
    config_id: str = "",
    mutant: str | None = None,
) -> Reference:
    """Return an engine that has consumed nothing; a mutant gets to see the future."""
    engine = Reference(config, instrument, sessions, interval_ns, config_id, mutant)
    if mutant in SEEING:
        for item in inputs:
            bar = item.bar if isinstance(item, Late) else item
            if isinstance(bar, Bar) and bar.volume:
                index = engine._session_of(bar.start)
                if index is not None:
                    engine.future.setdefault(index, {})[bar.start] = bar
    if mutant == "rank_whole_day":
        clean = run_engine(inputs, config, instrument, sessions, interval_ns, config_id)
        for row in clean.frames["clusters"]:
            if row["rank"] is not None:
                index = engine._session_of(row["window_start"])
                assert index is not None
                found = engine.future_ranks.setdefault(index, [])
                found.append((row["decision_time"], row["volume_ratio"]))
    return engine


def run_engine(
    inputs: Sequence[Input],
    config: dict[str, dict[str, Any]],
    instrument: Instrument,
    sessions: Sequence[Session],
    interval_ns: int,
    config_id: str = "",
    mutant: str | None = None,
) -> Reference:
    """Feed all inputs, finish, and return the engine."""
    engine = prepare(inputs, config, instrument, sessions, interval_ns, config_id, mutant)
    for item in inputs:
        feed(engine, item)
    engine.finish()
    stages = (
        "bars",
        "context_bars",
        "zero_volume",
        "outside_session",
        "windows",
        "thin",
        "warming_up",
        "quiet",
        "clusters",
    )
    engine.frames["funnel"] = [
        {"stage": stage, "reason": None, "count": engine.counts[stage]} for stage in stages
    ]
    return engine


def run(
    inputs: Sequence[Input],
    config: dict[str, dict[str, Any]],
    instrument: Instrument,
    sessions: Sequence[Session],
    interval_ns: int,
    config_id: str = "",
    mutant: str | None = None,
) -> Frames:
    """Return the frames of a whole run."""
    return run_engine(inputs, config, instrument, sessions, interval_ns, config_id, mutant).frames
