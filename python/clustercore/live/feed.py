"""The feed: connections one after the other, and what each message of theirs means.

Everything here runs on the trading thread and is driven by what arrives. A connection is used once.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from clustercore.inputs import Bar
from clustercore.live import messages as msg
from clustercore.live.clock import MarketClock, SystemClock
from clustercore.live.gaps import Gaps, Past
from clustercore.live.state import (
    BACKOFF,
    CATCHING_UP,
    CONNECTING,
    DEGRADED,
    FATAL,
    LIVE,
    STOPPED,
    State,
)
from clustercore.live.stream import Connection, Subscription
from clustercore.recommendation import utc_text

if TYPE_CHECKING:
    from clustercore.live.clock import Clock
    from clustercore.live.key import Key
    from clustercore.live.settings import LiveSettings
    from clustercore.live.strategy import Calendar, Strategy

__all__ = ["Feed"]

_NANOS = 10**9
_POLL_S = 0.05
# So long bars wait for the replay of their trades, and a session for bars, until somebody is told.
_LONG_NS = 300 * _NANOS
# Messages after which the operator is heard in the middle of many; each may cost a commit.
_HEARD_EVERY = 64
_FUTURE_NS = 5 * _NANOS
# A bar that the gateway sent so soon after its end has ended, whatever our clock says.
_ENDED_NS = 3600 * _NANOS
_SKEW_NS = 5 * _NANOS
_ATTEMPTS_UNTIL_ALARM = 5
# Real seconds after which a gateway on this machine that refuses is not coming back, and between
# two questions whether it is: market time may be quick.
_GONE_S = 5.0
# Seconds after which a connection was one, whatever ended it.
_STEADY_S = 60.0
_ASK_AGAIN_S = 0.5
# Bars of an instrument without a symbol that make one row of the journal.
_UNMAPPED_ROW = 100
_SPEED = re.compile(r"speed=([0-9.]+|inf)")
_SYMBOL = re.compile(r"[A-Z0-9]+(?:\.[A-Z0-9]+)*")


class _Ended(Exception):  # noqa: N818 -- it is how a connection ends, not an error
    """The connection is of no more use."""

    def __init__(self, lost: msg.Lost, *, needs_history: Iterable[str] = ()) -> None:
        super().__init__(lost.reason)
        self.lost = lost
        self.needs_history = tuple(needs_history)


@dataclass
class _Session:
    """What is known of the connection under way."""

    asked_from: int | None
    symbols: dict[int, str] = field(default_factory=dict)
    unmapped: dict[int, list[msg.MarketBar]] = field(default_factory=dict)
    # Engines of which it is settled what lies between what they know and this connection.
    proved: set[str] = field(default_factory=set)
    has_holes: bool = False
    doubted: bool = False
    unresolved: set[str] = field(default_factory=set)
    # Whether the bars of all engines come in one stream, in order among each other.
    is_single: bool = True
    heard: bool = False
    alarmed: bool = False
    # Schemas are replayed side by side: bars wait until the trades they are made of are there too.
    replays_due: int = 0
    held: list[msg.MarketBar | msg.EndOfInterval] = field(default_factory=list)
    held_until: int = 0
    # When the first came that was as new as can be, so that the replay of bars is over; 0 before.
    current_since: int = 0
    # When they went on, 0 before.
    released: int = 0
    waited_long: bool = False


class Feed:
    """Connections one after the other, until stopped.

    Parameters
    ----------
    strategies : sequence of Strategy
        Who gets the bars, by root.
    settings : LiveSettings
        Gateway and times.
    clock : Clock
        The time.
    key : Key
        The API key.
    calendar : Calendar
        The session table.
    past : Past, optional
        Where gaps that the gateway cannot replay are filled from.
    journal : callable
        ``(kind, root, reason, start, end, detail)``.
    committed : callable
        Writes down what was entered; called after each message that changed something.
    idle : callable
        Called some twenty times a second, and between batches.
    capture : callable, optional
        Returns a file for the raw bytes of a connection.
    backfill_ns : int
        How much history to begin with.
    seed : int, optional
        Of the jitter between attempts.
    """

    def __init__(
        self,
        strategies: Sequence[Strategy],
        settings: LiveSettings,
        clock: Clock,
        key: Key,
        calendar: Calendar,
        *,
        journal: Callable[..., None],
        committed: Callable[[], None],
        idle: Callable[[], None],
        past: Past | None = None,
        capture: Callable[[], IO[bytes] | None] | None = None,
        backfill_ns: int = 0,
        seed: int | None = None,
    ) -> None:
        self.strategies = {strategy.root: strategy for strategy in strategies}
        self.settings = settings
        self.clock = clock
        self.key = key
        self.calendar = calendar
        self.stop = threading.Event()
        self.wake = threading.Event()
        self.state = State(clock, journal)
        self.connections = 0
        self.depth = 0
        self.waiting = 0
        self.is_quiet = False
        """Whether nothing came for a while: time for what can wait."""
        self.speed: float | None = None
        self.simulated = False
        self.on_session_end: Callable[[int], None] | None = None
        self.on_simulated: Callable[[], None] | None = None
        self._journal = journal
        self._committed = committed
        self._idle = idle
        self._capture = capture
        self._random = random.Random(seed)  # noqa: S311 -- jitter, no secret
        self._interval_ns = strategies[0].interval_ns
        self._gaps = Gaps(
            self.strategies,
            settings,
            calendar,
            clock,
            self.state,
            past=past,
            backfill_ns=backfill_ns,
            journal=journal,
            committed=committed,
            idle=idle,
            stop=self.stop,
        )
        self._attempts = 0
        self._last_attempt: int | None = None
        self._last_loss = ""
        self._stopped_because = "stopped"
        self._connected_once = False
        self._refused_at: int | None = None
        self._handlers: dict[type, Callable[[_Session, Any], None]] = {
            msg.MarketBar: self._bar,
            msg.MarketTrades: self._trades,
            msg.EndOfInterval: self._end_of_interval,
            msg.Mapping: self._map,
            msg.SignOfLife: self._sign_of_life,
            msg.ReplayCompleted: self._replay_completed,
            msg.GatewayError: self._error,
            msg.SlowReader: self._slow_reader,
            msg.Oddity: self._oddity,
            msg.Unreadable: self._unreadable,
            msg.Doubt: self._doubt,
        }
        self._alive = 0
        self._heard_from = 0
        self._bars_until = 0
        self._over = 0
        self._unmapped: set[int] = set()
        self._traded_by: dict[str, Strategy | None] = {}
        # How far the gateway's clock is ahead of ours, as believed and as last said.
        self._ahead_ns = self._said_ahead_ns = 0

    # The life of the feed.

    def run(self) -> None:
        """Connect, and connect again, until stopped or refused for good."""
        self._resume()
        self._begin()
        while not self.stop.is_set():
            if not self._pause():
                break
            self._gaps.fill_before_replay()
            end = self._connection()
            if self.stop.is_set():
                break
            if self._last_attempt is not None and self.clock.since(self._last_attempt) > _STEADY_S:
                self._attempts = 0
            self._note_loss(end.lost.reason)
            if self._local_gateway_is_gone(end.lost.reason):
                self._stopped_because = "the gateway on this machine is gone"
                break
            if end.lost.permanent:
                self.state.go(FATAL, end.lost.reason)
                break
            self._gaps.fill(end.needs_history)
            if end.lost.slow_retry:
                self._attempts = max(self._attempts, 7)
        if self.state.name != FATAL:
            self.state.go(STOPPED, self._stopped_because)
        self._committed()

    def _begin(self) -> None:
        """Take what new engines begin with; history that does not answer is asked again."""
        while self._gaps.backfill() and not self.stop.is_set():
            self._last_attempt = self.clock.stamp()
            self._attempts += 1
            self._pause()
        self._attempts, self._last_attempt = 0, None

    def _note_loss(self, reason: str) -> None:
        """Note a lost connection; the same failure over and over again now and then only."""
        # Market time beside a gateway of this machine may be quick: once is enough there.
        again = self._attempts & (self._attempts - 1) == 0 and not self.settings.is_local
        if reason != self._last_loss or self._attempts <= 1 or again:
            self._journal("lost", None, reason, None, None, {"attempts": self._attempts})
        self._last_loss = reason

    def _local_gateway_is_gone(self, reason: str) -> bool:
        """Return whether a rehearsal is over: its gateway was there, and its port is shut."""
        if not (
            self.settings.is_local and self._connected_once and "Connect call failed" in reason
        ):
            self._refused_at = None
            return False
        real = SystemClock()
        if self._refused_at is None:
            self._refused_at = real.stamp()
        return real.since(self._refused_at) > _GONE_S

    def _pause(self) -> bool:
        """Wait before the next attempt; the first retry comes at once, but no two in a second."""
        if self._last_attempt is None:
            return True
        wait_s = max(0.0, 1.0 - self.clock.since(self._last_attempt))
        if self._attempts > 1:
            longest = min(self.settings.backoff_max_s, 2.0 ** min(self._attempts - 2, 16))
            wait_s = max(wait_s, self._random.uniform(longest / 2, longest))
        if self._refused_at is not None:
            self.wake.wait(_ASK_AGAIN_S)
        if wait_s > 0:
            self.state.go(BACKOFF, f"attempt {self._attempts + 1} in {wait_s:.1f} s")
            self._committed()
        # In slices, so that the operator is heard meanwhile.
        slices = max(1, round(wait_s / self.clock.longest_wait_s))
        for _ in range(slices):
            if self.stop.is_set():
                break
            self.clock.wait(self.wake, wait_s / slices)
            self.wake.clear()
            self._idle()
        return not self.stop.is_set()

    def _connection(self) -> _Ended:
        self._last_attempt = self.clock.stamp()
        self._attempts += 1
        if self._attempts == _ATTEMPTS_UNTIL_ALARM:
            self._journal(
                "alarm", None, f"{self._attempts} attempts to connect failed", None, None, {}
            )
        start = self._gaps.resume_point()
        since = "" if start is None else f", replay from {utc_text(start)}" if start else ", replay"
        self.state.go(CONNECTING, f"connecting{since}")
        subscriptions = self._subscriptions(start)
        connection = Connection(
            self.key,
            self.settings,
            subscriptions,
            self._capture() if self._capture is not None else None,
        )
        of_bars = [wanted for wanted in subscriptions if wanted.schema != "trades"]
        session = _Session(asked_from=start, is_single=len(of_bars) == 1)
        if start is not None and any(wanted.schema == "trades" for wanted in subscriptions):
            session.replays_due = len({wanted.schema for wanted in subscriptions})
        self.state.at_present = start is None
        for strategy in self.strategies.values():
            strategy.forget_trades()
        self.state.troubles.pop("unmapped", None)
        self.connections += 1
        self._journal(
            "connecting", None, self.state.reason, start, None, {"number": self.connections}
        )
        connection.open()
        try:
            self._consume(connection, session)
        except _Ended as end:
            return end
        finally:
            ended = connection.close()
            self.depth = max(self.depth, connection.depth)
            if not ended:
                self._journal("alarm", None, "a connection's threads did not end", None, None, {})
            self._quarantine(session)
        return _Ended(msg.Lost("closed by us"))

    def _consume(self, connection: Connection, session: _Session) -> None:
        opened = heard = self.clock.stamp()
        started = False
        while not self.stop.is_set():
            # A replay waits for us: nothing in it is urgent. The present must not.
            connection.is_paced = not self.state.at_present
            batch = connection.take(_POLL_S)
            self._watch_queue(connection, session)
            self._take_batch(session, batch)
            self.is_quiet = not batch
            if batch:
                heard = self.clock.stamp()
                self._committed()
            self._idle()
            if not started and (session.heard or connection.started.is_set()):
                started, heard = True, self.clock.stamp()
            if not started:
                if self.clock.since(opened) > self.settings.connect_s:
                    raise _Ended(msg.Lost(f"no session within {self.settings.connect_s:g} s"))
            elif not batch and self.clock.since(heard) > self.settings.stale_s:
                raise _Ended(msg.Lost(f"silent for more than {self.settings.stale_s:g} s"))

    def _take_batch(self, session: _Session, batch: Sequence[msg.Message]) -> None:
        for place, message in enumerate(batch, 1):
            if isinstance(message, msg.Lost):
                raise _Ended(message)
            if not session.heard:
                session.heard = self._connected_once = True
                self._heard_from = 0
                self.state.go(CATCHING_UP, "connected")
            self._message(session, message)
            if place % _HEARD_EVERY == 0:
                self._idle()
            if self.stop.is_set():
                # What was not taken is replayed at the next start.
                return

    def _watch_queue(self, connection: Connection, session: _Session) -> None:
        self.waiting = connection.waiting
        self.depth = max(self.depth, connection.depth)
        if self.waiting > self.settings.queue_mark and not session.alarmed:
            session.alarmed = True
            problem = "records wait faster than they are taken"
            self._journal("alarm", None, problem, None, None, {"waiting": self.waiting})

    # Messages.

    def _message(self, session: _Session, message: msg.Message) -> None:
        if session.replays_due and isinstance(message, msg.MarketBar | msg.EndOfInterval):
            self._hold(session, message)
            return
        handle: Callable[[_Session, Any], None] | None = self._handlers.get(type(message))
        if handle is not None:
            handle(session, message)

    def _arrival(self, message: msg.EndOfInterval | msg.SignOfLife | msg.ReplayCompleted) -> int:
        if not message.sent and isinstance(self.clock, MarketClock):
            return 0
        return self.clock.arrival(message.sent, message.received)

    def _present(self, sent: int, arrival: int) -> int:
        """Return the gateway's time, from when it sent a record and when that came.

        Our own clock may be wrong, and then every record says the same of it. One that disagrees
        with those before it is not believed: it would close what is still to come.
        """
        if not sent:
            return arrival
        ahead, self._said_ahead_ns, before = sent - arrival, sent - arrival, self._said_ahead_ns
        if min(abs(ahead - self._ahead_ns), abs(ahead - before)) <= _SKEW_NS:
            self._ahead_ns = ahead
        return arrival + self._ahead_ns

    def _bar(self, session: _Session, bar: msg.MarketBar) -> None:
        symbol = session.symbols.get(bar.instrument_id)
        if symbol is None:
            self._set_aside(session, bar)
            return
        arrival = self.clock.arrival(bar.sent, bar.received)
        self._check_skew(bar.sent, arrival)
        strategy = self._strategy_of(symbol)
        if strategy is None:
            return
        end = bar.ts_event + self._interval_ns
        values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        present = self._present(bar.sent, arrival)
        if end > max(arrival, present) + _FUTURE_NS:
            if 0 <= bar.sent - end <= _ENDED_NS:
                raise _Ended(msg.Lost("our clock says of a bar that it is not over"))
            self._journal(
                "alarm",
                strategy.root,
                f"a bar of {symbol} from the future",
                bar.ts_event,
                arrival,
                {},
            )
            strategy.refuse(Bar(symbol, bar.ts_event, *values, "live", arrival), "future")
            return
        # In one stream the bars of all engines are in order; of another stream nothing is said.
        said_of = list(self.strategies.values()) if session.is_single else [strategy]
        self._prove(session, bar.ts_event, said_of)
        self._check_calendar(bar.ts_event)
        # A bar may have waited: in the queue, or for the trades that it is made of.
        taken = max(self.clock.taken(arrival), session.released)
        fresh = taken - end <= self.settings.max_bar_age_s * _NANOS
        if session.is_single and present - end <= self.settings.max_bar_age_s * _NANOS:
            self.state.at_present = True
        if fresh:
            self.state.caught_up("caught up")
        acts_late = self.settings.late == "act" and (self.state.was_live or strategy.was_live)
        actionable = (self.state.name == LIVE and fresh) or (
            acts_late and not self.state.is_forbidden
        )
        if any(one.complete_until < bar.ts_event for one in said_of):
            self._completed(bar.ts_event, said_of)
        self._bars_until = max(self._bars_until, end)
        self._grace(session, bar.sent, present)
        if self.state.at_present:
            self._end_session_before(bar.ts_event)
        origin = "live" if self.state.name in {LIVE, DEGRADED} else "replay"
        strategy.take(
            symbol, bar.ts_event, values, origin=origin, arrival=arrival, actionable=actionable
        )
        if self.state.name == LIVE:
            self._committed()

    def _set_aside(self, session: _Session, bar: msg.MarketBar) -> None:
        """Keep a bar of an instrument without a symbol until one comes; it may be ours.

        An instrument for which another connection had no symbol either forbids nothing any more.
        """
        number = bar.instrument_id
        waiting = session.unmapped.setdefault(number, [])
        waiting.append(bar)
        if number not in self._unmapped:
            if len(waiting) == 1:
                self.state.trouble("unmapped", f"bars of instrument {number} have no symbol")
        elif len(waiting) == _UNMAPPED_ROW:
            self._write_unmapped(number, session.unmapped.pop(number))

    def _trades(self, session: _Session, trades: msg.MarketTrades) -> None:
        for number in trades.instruments():
            symbol = session.symbols.get(number)
            strategy = self._strategy_of(symbol) if symbol is not None else None
            if strategy is not None and symbol is not None:
                strategy.take_trades(trades.of(number, symbol))
        # Of a replay with nothing in it the gateway may not say that it is complete.
        if (
            session.replays_due
            and session.current_since
            and int(trades.ts[-1]) >= session.held_until
        ):
            session.replays_due = 1
            self._release(session, self.clock.now())

    def _hold(self, session: _Session, message: msg.MarketBar | msg.EndOfInterval) -> None:
        """Let a word about bars wait for the trades that they are made of."""
        session.held.append(message)
        if not isinstance(message, msg.MarketBar):
            return
        arrival = self.clock.arrival(message.sent, message.received)
        end = message.ts_event + self._interval_ns
        session.held_until = max(session.held_until, end)
        if arrival - end > self.settings.max_bar_age_s * _NANOS:
            return
        session.current_since = session.current_since or arrival
        if arrival - session.current_since > _LONG_NS and not session.waited_long:
            session.waited_long = True
            problem = "bars have waited for their trades for minutes: their replay does not end"
            self._journal("alarm", None, problem, session.current_since, arrival, {})

    def _release(self, session: _Session, at: int) -> None:
        """Count a replay that is complete; with the last of them, the bars that waited go on."""
        session.replays_due = max(0, session.replays_due - 1)
        if session.replays_due:
            return
        session.released = session.released or at
        held, session.held = session.held, []
        for place, message in enumerate(held, 1):
            self._message(session, message)
            if place % _HEARD_EVERY == 0:
                self._idle()
                if self.stop.is_set():
                    # What was not taken is replayed at the next start.
                    return

    def _end_of_interval(self, session: _Session, message: msg.EndOfInterval) -> None:
        end, arrival = message.ts_end, self._arrival(message)
        present = self._present(message.sent, arrival)
        if end > max(arrival, present) + _FUTURE_NS or end % self._interval_ns:
            self._journal("alarm", None, "an interval's end from the future", end, arrival, {})
            return
        if self.calendar.session(end - self._interval_ns) is None:
            self._grace(session, message.sent, present)
            return
        if not session.is_single and not self.state.at_present:
            # Another stream's replay is under way, and this word is not about it.
            return
        for number in session.unmapped.keys() - self._unmapped:
            # Another connection may map it, and replays the minute; once for each number.
            self._unmapped.add(number)
            raise _Ended(msg.Lost(f"instrument {number} has bars and no symbol"))
        everybody = list(self.strategies.values())
        self._prove(session, end, everybody)
        if end > self._gaps.complete_until:
            self._completed(end, everybody)
        fresh = present - end <= (self.settings.max_bar_age_s + 60) * _NANOS
        self.state.at_present = self.state.at_present or fresh
        if fresh:
            self.state.caught_up("an interval closed with nothing missing")
        self._end_session_before(end - self._interval_ns)
        self._close(end, "eoi")

    def _replay_completed(self, session: _Session, message: msg.ReplayCompleted) -> None:
        arrival = self._arrival(message)
        self._release(session, arrival)
        if session.replays_due or self.stop.is_set():
            return
        self.state.at_present = True
        instant = _at_most(message.sent, self._present(message.sent, arrival))
        # The minute under way has no bar yet, so that nothing of it is missing.
        self._prove(session, instant - instant % self._interval_ns, self.strategies.values())
        if self._gaps.known:
            self.state.caught_up("the replay is complete")

    def _slow_reader(self, _session: _Session, message: msg.SlowReader) -> None:
        self._journal("alarm", None, f"the gateway finds us slow: {message.text}", None, None, {})

    def _oddity(self, _session: _Session, message: msg.Oddity) -> None:
        raise _Ended(msg.Lost(f"unexpected: {message.text}"))

    def _unreadable(self, _session: _Session, message: msg.Unreadable) -> None:
        self._journal("refused", None, f"not a number that can be: {message.text}", None, None, {})

    def _doubt(self, session: _Session, message: msg.Doubt) -> None:
        if not session.doubted:
            session.doubted = True
            self._journal("alarm", None, message.text, None, None, {})

    def _map(self, session: _Session, message: msg.Mapping) -> None:
        known = session.symbols.get(message.instrument_id)
        if known == message.symbol:
            return
        if known is not None:
            self._journal(
                "mapping_changed",
                None,
                f"{known} is now {message.symbol}",
                None,
                None,
                {"instrument_id": message.instrument_id},
            )
        session.symbols[message.instrument_id] = message.symbol
        waiting = session.unmapped.pop(message.instrument_id, [])
        if not session.unmapped.keys() - self._unmapped:
            self.state.relieve("unmapped")
        for bar in waiting:
            self._bar(session, bar)

    def _sign_of_life(self, session: _Session, message: msg.SignOfLife) -> None:
        arrival = self._arrival(message)
        self._grace(session, message.sent, self._present(message.sent, arrival))
        said = _SPEED.search(message.text)
        if said is None or not isinstance(self.clock, MarketClock):
            return
        self.speed = self.clock.speed = float(said[1])
        if "simulated" in message.text and not self.simulated:
            self.simulated = True
            if self.on_simulated is not None:
                self.on_simulated()

    def _error(self, session: _Session, error: msg.GatewayError) -> None:
        self._journal("error", None, f"gateway error {error.code}: {error.text}", None, None, {})
        if error.code in {msg.AUTHENTICATION, msg.DEACTIVATED, msg.INVALID_SUBSCRIPTION}:
            raise _Ended(msg.Lost(f"refused: {error.text}", permanent=True))
        if error.code == msg.CONNECTION_LIMIT:
            raise _Ended(msg.Lost(error.text, slow_retry=True))
        if error.code == msg.UNRESOLVED:
            session.unresolved |= self._named_in(error.text)
            if len(session.unresolved) >= len(self.strategies):
                raise _Ended(msg.Lost(f"no such symbol: {error.text}", permanent=True))
        if error.code == msg.REPLAY_TOO_OLD:
            # Where history has nothing either, all that the gateway has, and a hole before it.
            wanted = tuple(self.strategies) if self._gaps.may_ask_history(self.strategies) else ()
            if not wanted:
                self._gaps.replay_all_next()
            raise _Ended(
                msg.Lost(f"the gateway does not reach back so far: {error.text}"),
                needs_history=wanted,
            )
        if error.code in {msg.INTERNAL, msg.SKIPPED}:
            raise _Ended(msg.Lost(f"gateway error {error.code}: {error.text}"))

    def _named_in(self, text: str) -> set[str]:
        """Return the engines whose symbol an error names; the text itself where it names none.

        The month that another one takes the place of may be gone already.
        """
        said = set(_SYMBOL.findall(text.upper()))
        named = {
            s.root
            for s in self.strategies.values()
            if (s.symbol or f"{s.root}.FUT").upper() in said
        }
        leaving = {
            name.upper()
            for s in self.strategies.values()
            for name in s.contracts
            if name != s.symbol
        }
        return named or (set() if said & leaving else {text})

    # What is missing.

    def _prove(self, session: _Session, ts: int, said_of: Iterable[Strategy]) -> None:
        """Settle, at the first word about bars, whether something lies between then and before."""
        asked = [strategy for strategy in said_of if strategy.root not in session.proved]
        if not asked:
            return
        missing = self._gaps.missing(ts, asked)
        if self._gaps.may_ask_history(missing):
            late_s = max(missing.values()) // _NANOS
            raise _Ended(
                msg.Lost(f"the replay begins {late_s} s of trading too late"),
                needs_history=missing,
            )
        self._gaps.settled()
        for strategy in asked:
            session.proved.add(strategy.root)
            if strategy.root in missing:
                session.has_holes = True
                self._gaps.hole(strategy, ts)
        proved = len(session.proved) == len(self.strategies)
        if proved and not session.has_holes and session.asked_from is not None:
            self._journal("resumed", None, "nothing is missing", session.asked_from, ts, {})

    def _completed(self, until: int, strategies: Iterable[Strategy]) -> None:
        self._gaps.is_complete(until, strategies)
        self._attempts = 0

    # What is over.

    def _grace(self, session: _Session, sent: int, present: int) -> None:
        """Close what the gateway should have closed long ago; this record proves that it lives.

        Records come in order, so whatever was sent before this one has been taken.
        """
        instant = _at_most(sent, present)
        if not instant or not self._gaps.complete_until or not self.state.at_present:
            return
        self._heard_from = self._heard_from or instant
        until = instant - round(self.settings.interval_grace_s * _NANOS)
        until -= until % self._interval_ns
        if until <= self._gaps.complete_until and until <= self._alive:
            return
        self._alive = max(self._alive, until)
        row = self.calendar.session(until - self._interval_ns)
        if row is None:
            close = self.calendar.last_close(until)
            if close is not None:
                self._close(close, "session")
                self._complete_session(session, close)
            return
        if self.state.name not in {LIVE, DEGRADED} or until <= self._gaps.complete_until:
            return
        # An interval that ended before this connection: its end was said to nobody.
        known = max(self._heard_from, self._bars_until)
        if not self.calendar.halted(until - 1) and until > known:
            self.state.trouble("quiet", "neither bars nor an interval's end past the minute")
        self._end_session_before(until - self._interval_ns)
        self._close(until, "grace")

    def _close(self, ts: int, by: str) -> None:
        for strategy in self.strategies.values():
            if strategy.last_bar is not None or strategy.closed_until:
                strategy.close(ts, by)
        row = self.calendar.session(ts - 1)
        if row is not None and self.calendar.closes[row] == ts and ts > self._over:
            self._over = ts
            self._tell_silent(self.calendar.opens[row], ts)
            self._committed()
            if (
                self.on_session_end is not None
                and self._stand_at(ts)
                and not self._gaps.reads_history
            ):
                self.on_session_end(ts)

    def _tell_silent(self, begin: int, end: int) -> None:
        """Say of which engine a session had no bar at all: its symbol may be wrong, or gone."""
        was_there = self._heard_from and self._heard_from < end - _LONG_NS
        if not (self.state.at_present and was_there) or self._gaps.reads_history:
            return
        for strategy in self.strategies.values():
            if (strategy.newest or 0) < begin:
                name = strategy.symbol or strategy.root
                problem = f"no bar of {name} came in this session: check --symbol"
                self._journal("no_contract", strategy.root, problem, begin, end, {})

    def _complete_session(self, session: _Session, close: int) -> None:
        """Take a session for whole of whose end alone the gateway said nothing."""
        whole = [
            strategy
            for strategy in map(self.strategies.__getitem__, session.proved)
            if 0 < close - strategy.complete_until <= self._interval_ns
        ]
        if whole:
            self._completed(close, whole)

    def _stand_at(self, ts: int) -> bool:
        """Return whether somebody has traded, and nobody has gone on beyond an instant.

        A replay may have crossed the end of a session; then there is nothing left to sum up there.
        """
        bars = [s.last_bar for s in self.strategies.values() if s.last_bar is not None]
        reached = [bar.ts_event + self._interval_ns for bar in bars]
        reached += [s.closed_until for s in self.strategies.values()]
        return bool(bars) and max(reached) <= ts

    def _end_session_before(self, ts: int) -> None:
        """End the session that is over when the first word of a later one comes."""
        close = self.calendar.last_close(ts)
        if close is not None and close > self._over and self._over:
            self._close(close, "session")
        elif not self._over and close is not None:
            self._over = close

    # Where we stand.

    def _check_skew(self, sent: int, arrival: int) -> None:
        if isinstance(self.clock, MarketClock) or not sent:
            return
        skew = arrival - sent
        if abs(skew) > _SKEW_NS:
            # What stood still on its way looks like a clock of ours that is ahead.
            else_late = ", or records are so long on their way" if skew > 0 else ""
            reason = f"our clock and the gateway's differ by {skew / _NANOS:.1f} s{else_late}"
            self.state.trouble("skew", reason)
        elif abs(skew) < _SKEW_NS // 2:
            self.state.relieve("skew")

    def _check_calendar(self, ts: int) -> None:
        last = self.calendar.closes[-1]
        if ts >= last and "calendar" not in self.state.troubles:
            day = self.calendar.days[-1]
            reason = f"the session table ends with {day}: upgrade clustercore"
            self.state.trouble("calendar", reason)

    # What is known.

    def _resume(self) -> None:
        """Take over from the log how far it reaches."""
        self._gaps.resume()
        self._over = self._gaps.complete_until
        if isinstance(self.clock, MarketClock) and self._over:
            self.clock.observe(self._over, self.clock.stamp())

    def _subscriptions(self, start: int | None) -> list[Subscription]:
        parents = tuple(f"{s.root}.FUT" for s in self.strategies.values() if s.symbol is None)
        single = tuple(name for s in self.strategies.values() for name in s.contracts)
        wanted = []
        uses_trades = any(s.uses_prints for s in self.strategies.values())
        for schema in ("trades", "ohlcv-1m") if uses_trades else ("ohlcv-1m",):
            if parents:
                wanted.append(Subscription(schema, parents, "parent", start))
            if single:
                wanted.append(Subscription(schema, single, "raw_symbol", start))
        return wanted

    def _strategy_of(self, symbol: str) -> Strategy | None:
        if symbol not in self._traded_by:
            owners = (one for one in self.strategies.values() if one.owns(symbol))
            self._traded_by[symbol] = next(owners, None)
        return self._traded_by[symbol]

    def _quarantine(self, session: _Session) -> None:
        for number, bars in session.unmapped.items():
            if bars:
                self._write_unmapped(number, bars)

    def _write_unmapped(self, number: int, bars: Sequence[msg.MarketBar]) -> None:
        detail: dict[str, Any] = {"instrument_id": number, "bars": [list(bar) for bar in bars]}
        problem = f"{len(bars)} bars of an instrument without a symbol"
        first, last = bars[0].ts_event, bars[-1].ts_event
        self._journal("unmapped", None, problem, first, last, detail)


def _at_most(sent: int, present: int) -> int:
    """Return up to when the gateway has spoken: what is said late was not said later.

    Behind a record that waited, here or on its way, wait those that were sent since.
    """
    return min(present, sent) if sent else present
