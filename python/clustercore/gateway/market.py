"""Market time, and what is due when: the one schedule that all sessions of a gateway share."""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from clustercore.gateway.records import MINUTE_NS, GatewayData
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Closing", "Due", "MarketTime", "Schedule", "seconds"]

_SECOND_NS = 10**9
# Time without a session is jumped over down to this long before the next bar begins.
_APPROACH_NS = 60 * _SECOND_NS
_SHORTEST_JUMP_NS = 120 * _SECOND_NS
# A delay below this is the coarseness of a timer, and is caught up with.
_COARSENESS_S = 0.005
# So long a piece of real time goes into one block of trades.
_TRADES_STEP_S = 0.01
_TRADES_STEP_NS = MINUTE_NS


def seconds(value: float) -> int:
    """Return seconds as ns.

    Examples
    --------
    >>> seconds(0.2)
    200000000
    """
    return round(value * _SECOND_NS)


class MarketTime:
    """Time that moves from one scheduled instant to the next and never skips one.

    Whoever drives it says which instant comes next and moves it there. Where that is late in real
    time, the market becomes late; the instants stay what they are.

    Parameters
    ----------
    start : int
        Where it begins, ns UTC.
    speed : float
        Market seconds a real second; ``inf`` does not wait at all.
    """

    def __init__(self, start: int, speed: float) -> None:
        self.speed = speed
        self._reached = start
        self._ceiling = start
        self._since = time.monotonic()
        self._running = False

    def now(self) -> int:
        """Return the market's time: what was reached and the real time since, up to what is due."""
        if not self._running or math.isinf(self.speed):
            return self._reached
        passed = seconds((time.monotonic() - self._since) * self.speed)
        return max(self._reached, min(self._reached + passed, self._ceiling))

    def head_for(self, instant: int) -> float:
        """Let time run towards an instant; return the real seconds until then."""
        if not self._running:
            self._since = time.monotonic()
            self._running = True
        self._ceiling = max(instant, self._reached)
        if math.isinf(self.speed):
            return 0.0
        due = (instant - self._reached) / _SECOND_NS / self.speed
        return due - (time.monotonic() - self._since)

    def hold(self) -> None:
        """Stop where it is."""
        self._reached = self.now()
        self._running = False

    def reach(self, instant: int, *, jumps: bool = False) -> None:
        """Move to an instant; early or on time, the pace is kept, and late, the market is late.

        A jump takes no real time, so the pace begins anew after it.
        """
        real = time.monotonic()
        on_time = real
        if self._running and not math.isinf(self.speed) and not jumps:
            on_time = self._since + (instant - self._reached) / _SECOND_NS / self.speed
        self._since = on_time if real - on_time < _COARSENESS_S else real
        self._reached = max(instant, self._reached)
        self._ceiling = max(self._ceiling, self._reached)


@dataclass(frozen=True)
class Due:
    """What is sent at one instant.

    Attributes
    ----------
    at : int
        The instant.
    trades, bars : slice
        Rows that are sent.
    ends : tuple of int
        Ends of the intervals that are closed.
    """

    at: int
    trades: slice
    bars: slice
    ends: tuple[int, ...]


class Closing(NamedTuple):
    """An interval that was closed.

    Attributes
    ----------
    end : int
        Its end.
    bars, trades : int
        How many rows had been sent by then.
    """

    end: int
    bars: int
    trades: int


class Schedule:
    """Bars, trades and interval ends in the order of their sending, and how far that has come.

    Parameters
    ----------
    data : GatewayData
        What is sent.
    start : int
        What was due before is there to be replayed, and not sent live.
    bar_delay_ns, eoi_delay_ns : int
        From the end of an interval to its bars, and to the message that closes it.
    empty_intervals : bool
        Whether minutes of a session without a bar are closed too.
    speed : float
        Of the market: it decides how many trades go into one block.
    """

    def __init__(
        self,
        data: GatewayData,
        *,
        start: int,
        bar_delay_ns: int,
        eoi_delay_ns: int,
        empty_intervals: bool,
        speed: float,
    ) -> None:
        self.bars = _columns(data.frame)
        self.trades = _columns(data.trades)
        self.symbols = data.symbols
        self.bar_codes = _codes(data.frame, data.symbols)
        self.trade_codes = _codes(data.trades, data.symbols)
        self._bar_delay = bar_delay_ns
        self._eoi_delay = eoi_delay_ns
        sessions = load_sessions()
        self._ends = _interval_ends(data, sessions, empty=empty_intervals)
        self._rows = np.searchsorted(self.bars["ts_event"], self._ends)
        self._closed_before = _closed_before(self._ends, sessions)
        step = seconds(_TRADES_STEP_S * speed) if math.isfinite(speed) else _TRADES_STEP_NS
        self._trades_step = min(step, _TRADES_STEP_NS)
        self._late: list[tuple[int, int]] = []
        self._next_bars = int(np.searchsorted(self._ends, start - bar_delay_ns, side="right"))
        self._next_end = int(np.searchsorted(self._ends, start - eoi_delay_ns, side="right"))
        self.released_bars = int(self._rows[self._next_bars - 1]) if self._next_bars else 0
        received = self.trades["ts_recv"]
        # A trade at the very start is still to come: without this the first one never would.
        self.released_trades = int(np.searchsorted(received, start, side="left"))

    def peek(self) -> int | None:
        """Return the next instant at which something is sent; None at the end of the data."""
        instants = [at for at, _ in self._late[:1]]
        if self._next_bars < len(self._ends):
            instants.append(int(self._ends[self._next_bars]) + self._bar_delay)
        if self._next_end < len(self._ends):
            instants.append(int(self._ends[self._next_end]) + self._eoi_delay)
        received = self.trades["ts_recv"]
        if self.released_trades < len(received):
            # A block of trades reaches to what else is due, or as far as a block may.
            limit = min([*instants, int(received[self.released_trades]) + self._trades_step])
            last = int(np.searchsorted(received, limit, side="right")) - 1
            if last >= self.released_trades:
                instants.append(int(received[last]))
        return min(instants, default=None)

    def opening(self, now: int) -> int | None:
        """Return where to jump to over time without a session; None where nothing is skipped."""
        if self._next_end < self._next_bars or self._next_bars >= len(self._ends) or self._late:
            return None
        target = int(self._ends[self._next_bars]) - MINUTE_NS - _APPROACH_NS
        received = self.trades["ts_recv"]
        if self.released_trades < len(received):
            first_trade = int(received[self.released_trades]) - _APPROACH_NS
            target = min(target, first_trade)
        closed = bool(self._closed_before[self._next_bars])
        return target if closed and target - now >= _SHORTEST_JUMP_NS - _APPROACH_NS else None

    def take(self, at: int) -> Due:
        """Return all that is due by an instant, counted as sent."""
        received = self.trades["ts_recv"]
        trades = int(np.searchsorted(received, at, side="right"))
        trades = max(trades, self.released_trades)
        due_bars = int(np.searchsorted(self._ends, at - self._bar_delay, side="right"))
        self._next_bars = max(due_bars, self._next_bars)
        bars = int(self._rows[self._next_bars - 1]) if self._next_bars else 0
        due_ends = int(np.searchsorted(self._ends, at - self._eoi_delay, side="right"))
        due_ends = max(due_ends, self._next_end)
        ends = self._ends[self._next_end : due_ends].tolist()
        self._next_end = due_ends
        while self._late and self._late[0][0] <= at:
            ends.append(heapq.heappop(self._late)[1])
        due = Due(
            at,
            slice(self.released_trades, trades),
            slice(self.released_bars, bars),
            tuple(ends),
        )
        self.released_trades = trades
        self.released_bars = bars
        return due

    def postpone(self, end: int, at: int) -> None:
        """Close an interval later than usual."""
        heapq.heappush(self._late, (at, end))


def _columns(frame: pl.DataFrame) -> dict[str, NDArray[Any]]:
    names = [name for name in frame.columns if name not in {"symbol", "instrument_id"}]
    return {name: frame[name].to_numpy() for name in names}


def _codes(frame: pl.DataFrame, symbols: tuple[str, ...]) -> NDArray[np.int32]:
    """Return the place of every row's symbol in the list of symbols."""
    places = {symbol: place for place, symbol in enumerate(symbols)}
    codes: NDArray[np.int32] = (
        frame["symbol"].replace_strict(places, return_dtype=pl.Int32).to_numpy()
    )
    return codes


def _interval_ends(data: GatewayData, sessions: Sessions, *, empty: bool) -> NDArray[np.int64]:
    held = np.unique(data.frame["ts_event"].to_numpy()) + MINUTE_NS
    if not empty:
        return held
    first, last = data.span
    inside = sessions.overlapping(first, last)
    parts = [
        np.arange(max(opened, first - first % MINUTE_NS), min(closed, last), MINUTE_NS) + MINUTE_NS
        for opened, closed in zip(inside.open_ns.tolist(), inside.close_ns.tolist(), strict=True)
    ]
    return np.unique(np.concatenate([held, *parts]))


def _closed_before(ends: NDArray[np.int64], sessions: Sessions) -> NDArray[np.bool_]:
    """Return before which intervals there is no session for a while."""
    closed = np.zeros(len(ends), dtype=np.bool_)
    if not len(ends):
        return closed
    closed[0] = True
    for place in np.flatnonzero(np.diff(ends) > MINUTE_NS + _SHORTEST_JUMP_NS) + 1:
        since, until = int(ends[place - 1]), int(ends[place]) - MINUTE_NS
        closed[place] = len(sessions.overlapping(since, until)) == 0
    return closed
