"""One engine live: which bars reach it, in what order, and what is written down about the others.

Nothing here decides about trading; that is the engine's. Here it is decided which month is in
front, what is a duplicate, what came too late, and when an interval is closed. All of it follows
from the messages and their times, so that the log can be folded again to the same state.
"""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from clustercore.contracts import choose_front, expiry_of
from clustercore.errors import DataError
from clustercore.inputs import (
    Bar,
    Closed,
    ContractChange,
    Epoch,
    Input,
    Operator,
    Prints,
)
from clustercore.instruments import parse_symbol
from clustercore.live.messages import MarketTrades

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.events import Event
    from clustercore.fold import Fold
    from clustercore.instruments import Instrument
    from clustercore.sessions import Sessions

__all__ = ["Calendar", "Strategy", "Tally"]

_LOG = logging.getLogger(__name__)
_SESSIONS_REMEMBERED = 4
_HOURS_OF_A_SESSION = 20.0
_DAY_NS = 86_400 * 10**9


class Calendar:
    """The session table as plain numbers, for one question at a time."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.opens: list[int] = sessions.open_ns.tolist()
        self.closes: list[int] = sessions.close_ns.tolist()
        self.days: list[date] = sessions.frame["trade_date"].to_list()
        columns = sessions.columns()
        self._halts = sorted(
            zip(columns["halts_start_ns"].tolist(), columns["halts_end_ns"].tolist(), strict=True)
        )

    def session(self, ts: int) -> int | None:
        """Return the row of the session whose [open, close) holds the time."""
        row = bisect.bisect_right(self.opens, ts) - 1
        return row if row >= 0 and ts < self.closes[row] else None

    def last_close(self, ts: int) -> int | None:
        """Return the newest close at or before the time."""
        row = bisect.bisect_right(self.closes, ts) - 1
        return self.closes[row] if row >= 0 else None

    def halted(self, ts: int) -> bool:
        """Return whether trading is scheduled to pause."""
        row = bisect.bisect_right(self._halts, (ts, 2**63)) - 1
        return row >= 0 and ts < self._halts[row][1]

    def trading_ns(self, start: int, end: int) -> int:
        """Return how much time inside sessions lies between two instants, none when reversed."""
        if end <= start:
            return 0
        row = max(0, bisect.bisect_right(self.closes, start))
        total = 0
        while row < len(self.opens) and self.opens[row] < end:
            total += min(end, self.closes[row]) - max(start, self.opens[row])
            row += 1
        return total


@dataclass
class Tally:
    """How many bars went where, since the start of the process."""

    consumed: int = 0
    other_month: int = 0
    duplicates: int = 0
    conflicts: int = 0
    late: int = 0
    refused: int = 0
    outside: int = 0


_Values = tuple[int, int, int, int, int]


class Strategy:
    """The inputs of one engine, from the messages of the feed.

    Parameters
    ----------
    fold : Fold
        The engine.
    instrument : Instrument
        What is traded.
    config : Config
        Its settings.
    calendar : Calendar
        The session table.
    interval_ns : int
        Length of a bar.
    enter : callable
        Writes an entry down: ``(root, epoch, item, events) -> seq``.
    journal : callable
        Notes something about the feed: ``(kind, root, reason, start, end, detail)``.
    symbol : str, optional
        One contract given explicitly; otherwise the month in front is chosen.
    """

    def __init__(
        self,
        fold: Fold,
        instrument: Instrument,
        config: Config,
        calendar: Calendar,
        interval_ns: int,
        *,
        enter: Callable[[str, int, Input, tuple[Event, ...]], int],
        journal: Callable[..., None],
        symbol: str | None = None,
    ) -> None:
        self.fold = fold
        self.root = fold.root
        self.instrument = instrument
        self.config = config
        self.calendar = calendar
        self.interval_ns = interval_ns
        self.symbol = symbol
        self.tally = Tally()
        self.front: str | None = None
        self.complete_until = 0
        """Up to when nothing of its market is missing, as the feed has settled; 0 at first."""
        self.session: int | None = None
        self.closed_until = 0
        self.last_bar: Bar | None = None
        self.newest: int | None = None
        self.was_live = False
        """Whether it had bars of the present, by the log; a backfill that was cut off had none."""
        self.session_volume = 0
        self.counts_before: dict[str, int] | None = None
        """What the engine had counted when the session began; None when that was not seen."""
        self.pending_epoch: Callable[[], Sequence[Input] | None] | None = None
        self.on_epoch: Callable[[Epoch], None] | None = None
        # Offsets into the session and the volume by then, a pair of lists for each session.
        self._by_session: dict[int, tuple[list[int], list[int]]] = {}
        self._enter = enter
        self._journal = journal
        # The month that was in front last; a session without one does not let an earlier one back.
        self._held: tuple[str, date] | None = None
        self._outside = 0
        self._known: dict[tuple[str, int], _Values] = {}
        self._refuted: set[tuple[str, int, _Values]] = set()
        self._months: dict[int, list[tuple[int, int, int, int, int, int, str]]] = {}
        self._trades: list[MarketTrades] = []

    @property
    def uses_prints(self) -> bool:
        """Whether profiles are made of trades, in the epoch under way or the one to come."""
        epoch = self.fold.epoch
        settings = self.config.to_dict() if epoch is None else epoch.settings
        return "trades" in {settings["profile"]["source"], self.config.profile.source}

    @property
    def contracts(self) -> list[str]:
        """What is asked for by name: nothing where the month in front is chosen.

        A contract that was named is traded from the next session on; until then another may be.
        """
        if self.symbol is None:
            return []
        return [name for name in dict.fromkeys((self.symbol, self.front)) if name]

    def owns(self, symbol: str) -> bool:
        """Return whether bars of a contract are for this engine to look at."""
        if self.symbol is not None:
            return symbol in self.contracts
        return is_outright(symbol) and parse_symbol(symbol).root == self.root

    # What the log says.

    def note(self, item: Input) -> None:
        """Take over what an entry says about months, duplicates and closings; no engine."""
        match item:
            case Bar():
                if not item.context:
                    self._remember(item)
                if item.consumed and not item.context:
                    self._pass(item)
            case Closed(ts):
                self.closed_until = max(self.closed_until, ts)
            case ContractChange(symbol):
                self.front = symbol or None
                if symbol:
                    day = _EPOCH + timedelta(days=item.trade_date)
                    self._held = (symbol, expiry_of(symbol, day))
            case _:
                pass

    def begin(self, items: Iterable[Input]) -> None:
        """Enter the first entries of an epoch."""
        for item in items:
            self._apply(item)

    # What the feed says.

    def take(
        self,
        symbol: str,
        ts_event: int,
        values: _Values,
        *,
        origin: str,
        arrival: int,
        actionable: bool,
    ) -> bool:
        """Take a bar of any month; return whether the engine consumed it.

        ``values`` are open, high, low, close in 1e-9 points and the volume.
        """
        known = self._known.get((symbol, ts_event))
        if known == values:
            self.tally.duplicates += 1
            return False
        bar = Bar(symbol, ts_event, *values, origin, arrival, actionable)
        if known is not None:
            self._conflict(bar, known)
            return False
        session = self.calendar.session(ts_event)
        if session is None:
            self._keep_outside(bar)
            return False
        last_ts = self.last_bar.ts_event if self.last_bar is not None else -1
        if self.session is None or session > self.session:
            self._new_session(session, arrival, origin)
        if symbol != self.front:
            self.tally.other_month += 1
            self._keep(bar, "other_month" if self.front else "no_contract")
            return False
        if ts_event + self.interval_ns <= self.closed_until or ts_event <= last_ts:
            self.tally.late += 1
            self._journal(
                "late", self.root, "the interval was closed", ts_event, arrival, {"symbol": symbol}
            )
            self._keep(bar, "late")
            return False
        return self._consume(bar)

    def take_trades(self, trades: MarketTrades) -> None:
        """Take trades of the month in front; they wait for the bar that holds them."""
        if self.uses_prints and len(trades):
            self._trades.append(trades)

    def forget_trades(self) -> None:
        """Drop the trades that wait: another connection replays them."""
        self._trades.clear()

    def close(self, ts: int, by: str) -> None:
        """Say that every interval that ends at or before ``ts`` is closed."""
        if ts > self.closed_until and self.fold.epoch is not None:
            self._apply(Closed(ts, by))
        self._trades = [t for t in (t.where(t.ts >= ts) for t in self._trades) if len(t)]

    def operator(self, event: str) -> None:
        """Take the operator's word."""
        self._apply(Operator(event))

    def refuse(self, bar: Bar, reason: str) -> None:
        """Keep a bar that no engine shall see."""
        self._keep(bar, reason)

    def usual_volume(self) -> float | None:
        """Return what the sessions before had traded by this time of theirs, on average."""
        if self.session is None or self.last_bar is None:
            return None
        offset = self.last_bar.ts_event - self.calendar.opens[self.session]
        by_then = [
            totals[bisect.bisect_right(offsets, offset) - 1]
            for row, (offsets, totals) in self._by_session.items()
            if row != self.session and offsets[0] <= offset
        ]
        return sum(by_then) / len(by_then) if by_then else None

    # How.

    def _apply(self, item: Input) -> None:
        before = self.fold.epoch
        events = self.fold.apply(item)
        epoch = self.fold.epoch or before
        if isinstance(item, Epoch) and self.on_epoch is not None:
            self.on_epoch(item)
        self._enter(self.root, epoch.number if epoch else 0, item, events)
        self.note(item)

    def _consume(self, bar: Bar) -> bool:
        prints = self._prints_of(bar)
        if prints is not None:
            try:
                self._apply(prints)
            except DataError as error:
                self._refused(error, bar.ts_event, bar)
        try:
            self._apply(bar)
        except DataError as error:
            self.tally.refused += 1
            self._refused(error, bar.ts_event, bar)
            self._keep(bar, "refused")
            return False
        self.tally.consumed += 1
        return True

    def _refused(self, error: DataError, ts: int, bar: Bar) -> None:
        self._journal("refused", self.root, str(error), ts, bar.arrival, {"symbol": bar.symbol})

    def _prints_of(self, bar: Bar) -> Prints | None:
        """Return the trades of which a bar is made, where they are all there."""
        if not self._trades:
            return None
        end = bar.ts_event + self.interval_ns
        due = [trades.where(trades.ts < end) for trades in self._trades if trades.first < end]
        waiting = [
            trades if trades.first >= end else trades.where(trades.ts >= end)
            for trades in self._trades
        ]
        self._trades = [trades for trades in waiting if len(trades)]
        own = [t.where(t.ts >= bar.ts_event) for t in due if t.symbol == bar.symbol]
        if not any(map(len, own)):
            return None
        trades = MarketTrades.joined(own)
        if trades.volume != bar.volume:
            once = trades.once()
            self.tally.duplicates += len(trades) - len(once)
            trades = once
        if trades.volume != bar.volume:
            # A profile of a part of what traded would be another one; without trades it is none.
            self._journal(
                "trades_differ",
                self.root,
                f"trades of {trades.volume} contracts, the bar has {bar.volume}; none are used",
                bar.ts_event,
                end,
                {"symbol": bar.symbol, "trades": len(trades)},
            )
            return None
        return Prints(bar.symbol, trades.ts, trades.price, trades.size)

    def _keep(self, bar: Bar, reason: str) -> None:
        kept = replace(bar, consumed=False, actionable=False, reason=reason)
        epoch = self.fold.epoch
        self._enter(self.root, epoch.number if epoch else 0, kept, ())
        self.note(kept)

    def _keep_outside(self, bar: Bar) -> None:
        """Keep a bar of no session; many of them say that the session table may be wrong."""
        self.tally.outside += 1
        self._outside += 1
        if self._outside == _MANY_OUTSIDE:
            self._journal(
                "alarm",
                self.root,
                f"{_MANY_OUTSIDE} bars since the last session lie in none: compare the session "
                "table with the exchange's hours",
                bar.ts_event,
                bar.arrival,
                {"symbol": bar.symbol},
            )
        self._keep(bar, "outside_session")

    def _conflict(self, bar: Bar, known: _Values) -> None:
        said = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        if (bar.symbol, bar.ts_event, said) in self._refuted:
            self.tally.duplicates += 1
            return
        self.tally.conflicts += 1
        self._journal(
            "conflict",
            self.root,
            f"{bar.symbol} came twice with other numbers; the first stays",
            bar.ts_event,
            bar.ts_event + self.interval_ns,
            {"first": list(known), "second": list(said)},
        )
        self._keep(bar, "conflict")

    def _remember(self, bar: Bar) -> None:
        values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        if bar.reason == "conflict":
            self._refuted.add((bar.symbol, bar.ts_event, values))
        if bar.reason in _NOT_REMEMBERED:
            return
        self.newest = max(self.newest or 0, bar.ts_event)
        self._known[bar.symbol, bar.ts_event] = values
        session = self.calendar.session(bar.ts_event)
        if session is not None and self.symbol is None:
            self._months.setdefault(session, []).append(
                (bar.ts_event, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.symbol)
            )

    def _pass(self, bar: Bar) -> None:
        session = self.calendar.session(bar.ts_event)
        if session != self.session:
            self.session = session
            self.session_volume = 0
        self.session_volume += bar.volume
        if session is not None:
            offsets, totals = self._by_session.setdefault(session, ([], []))
            offsets.append(bar.ts_event - self.calendar.opens[session])
            totals.append((totals[-1] if totals else 0) + bar.volume)
        self.last_bar = bar
        # Also where a contract was given by name, and nothing else says which was traded.
        self.front = bar.symbol
        self.was_live = self.was_live or bar.origin == "live"

    def _new_session(self, session: int, arrival: int, origin: str) -> None:
        """Go over into a session: the old one's end, perhaps an epoch, the month in front."""
        if self.session is not None:
            self.close(self.calendar.closes[self.session], "session")
        self.session = session
        self.session_volume = self._outside = 0
        if self.pending_epoch is not None:
            self._begin_epoch(self.pending_epoch, session)
        # Within a session of another table, no month changes.
        if self.pending_epoch is None:
            self._change_contract(session, arrival, origin)
        if self.fold.epoch is not None:
            self.counts_before = self.fold.engine.counts()
        self._forget(session)

    def _begin_epoch(self, make: Callable[[], Sequence[Input] | None], session: int) -> None:
        """Begin the epoch that waits, unless the engine is in a session of another table."""
        self.close(self.calendar.opens[session], "session")
        items = make()
        if items is not None:
            self.pending_epoch = None
            self.begin(items)

    def _change_contract(self, session: int, arrival: int, origin: str) -> None:
        if self.symbol is None:
            self._choose(session, arrival, origin)
        elif self.symbol != self.front:
            day = (self.calendar.days[session] - _EPOCH).days
            self._apply(ContractChange(self.symbol, self.front, "given", day))

    def _choose(self, session: int, arrival: int, origin: str) -> None:
        roll = self.config.roll
        choice = choose_front(
            self._known_months(),
            self.calendar.sessions,
            session,
            self.interval_ns,
            held=self._held,
            lookback_hours=roll.lookback_hours,
            every=roll.every,
        )
        day = (self.calendar.days[session] - _EPOCH).days
        # The first session of a backfill only says which month is in front in the second.
        if choice.symbol is None and (self.front is not None or origin != "backfill"):
            self._journal(
                "no_contract",
                self.root,
                f"no month can be in front on {self.calendar.days[session]}: of none that is "
                "allowed a volume is known; bars of that session are kept aside",
                self.calendar.opens[session],
                self.calendar.closes[session],
                {"trade_date": day, "reason": choice.reason},
            )
        if choice.symbol == self.front:
            return
        if choice.symbol is None:
            self._apply(ContractChange("", self.front, choice.reason, day))
            return
        self._apply(ContractChange(choice.symbol, self.front, choice.reason, day))
        context = choice.context.with_columns(pl.col("ts_event").to_physical())
        prices = context.select("ts_event", "open", "high", "low", "close", "volume")
        for ts, opened, high, low, close, volume in prices.iter_rows():
            values = (opened, high, low, close, volume)
            bar = Bar(choice.symbol, ts, *values, origin, arrival, actionable=False, context=True)
            try:
                self._apply(bar)
            except DataError as error:
                self.tally.refused += 1
                self._refused(error, bar.ts_event, bar)
                self._keep(bar, "refused")

    def _known_months(self) -> pl.DataFrame:
        rows = [row for session in sorted(self._months) for row in self._months[session]]
        frame = pl.DataFrame(rows, schema=_MONTHS, orient="row")
        return frame.with_columns(pl.col("ts_event").cast(pl.Datetime("ns", "UTC")))

    def _forget(self, session: int) -> None:
        looked_back = math.ceil(self.config.roll.lookback_hours / _HOURS_OF_A_SESSION)
        kept = session - _SESSIONS_REMEMBERED - looked_back
        if kept < 0:
            return
        self._months = {row: bars for row, bars in self._months.items() if row >= kept}
        self._by_session = {row: sum_ for row, sum_ in self._by_session.items() if row >= kept}
        horizon = self.calendar.opens[kept]
        self._known = {key: value for key, value in self._known.items() if key[1] >= horizon}
        self._refuted = {key for key in self._refuted if key[1] >= horizon}


# What such a bar says is not believed, so that the true one is no duplicate or conflict.
_NOT_REMEMBERED = frozenset({"conflict", "future"})
# One in a hundred minutes of a session.
_MANY_OUTSIDE = 14
_EPOCH = date(1970, 1, 1)
_MONTHS: dict[str, Any] = {
    "ts_event": pl.Int64,
    "open": pl.Int64,
    "high": pl.Int64,
    "low": pl.Int64,
    "close": pl.Int64,
    "volume": pl.Int64,
    "symbol": pl.String,
}


def is_outright(symbol: str) -> bool:
    """Return whether a symbol is one contract month: no spread, no product."""
    return parse_symbol(symbol).kind == "outright"
