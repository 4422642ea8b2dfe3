"""What is missing of each market, and where it comes from.

A replay begins at a bar that is known already, so that its first bar proves that nothing is
missing. Where it does not, history is asked, and where that has nothing, the hole is written down.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from clustercore.errors import ClusterCoreError
from clustercore.live.clock import MarketClock
from clustercore.live.history import HistoryUnavailable
from clustercore.live.state import CATCHING_UP

if TYPE_CHECKING:
    import polars as pl

    from clustercore.live.clock import Clock
    from clustercore.live.settings import LiveSettings
    from clustercore.live.state import State
    from clustercore.live.strategy import Calendar, Strategy

__all__ = ["Gaps", "Past"]

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_NANOS: Final = 10**9
_POLL_S: Final = 0.05
# The gateway's limit moves on while we connect.
_REACH_MARGIN_NS: Final = 300 * _NANOS
# Questions to history that may fail, each after tries of its own, before a gap is called a hole.
_MOST_FAILURES: Final = 3
# History that ends so much trading time before it says so has a gap of its own.
_SHORT_NS: Final = 3600 * _NANOS
_NEVER: Final = 2**63 - 1
# Bars of history between two looks at whether to stop.
_HEARD_EVERY: Final = 2_000


class Past(Protocol):
    """Where bars of the past come from."""

    def available_end(self) -> int:
        """Return the end of what history has, ns."""

    def bars(self, start: int, end: int) -> pl.DataFrame:
        """Return bars of every month in order of time: Int64 ns and 1e-9 points."""


class _StoppedError(ClusterCoreError):
    """The process was asked to stop while history was read."""


class Gaps:
    """Up to when each engine's market is whole, and how it becomes whole again.

    Parameters
    ----------
    strategies : mapping of str to Strategy
        The engines by root; up to when each is whole is their ``complete_until``.
    settings : LiveSettings
        How far a replay reaches, and whether late bars are acted on.
    calendar : Calendar
        The session table.
    clock : Clock
        The time.
    state : State
        What is shown meanwhile.
    past : Past, optional
        History.
    backfill_ns : int
        How much history a new engine begins with.
    journal, committed, idle : callable
        As for the feed.
    stop : threading.Event
        Set when the process is to end.
    """

    def __init__(
        self,
        strategies: Mapping[str, Strategy],
        settings: LiveSettings,
        calendar: Calendar,
        clock: Clock,
        state: State,
        *,
        past: Past | None,
        backfill_ns: int,
        journal: Callable[..., None],
        committed: Callable[[], None],
        idle: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._strategies = strategies
        self._settings = settings
        self._calendar = calendar
        self._clock = clock
        self._state = state
        self._past = past
        self._backfill_ns = backfill_ns
        self._journal = journal
        self._committed = committed
        self._idle = idle
        self._stop = stop
        self._interval_ns = next(iter(strategies.values())).interval_ns
        # Up to when each engine was whole when history was asked for it last.
        self._asked: dict[str, int] = {}
        self._failures = 0
        self._hole_until = 0
        self._replay_all = False
        self.reads_history = False
        """Whether bars of history are taken at present."""

    # What is known.

    @property
    def complete_until(self) -> int:
        """Up to when nothing is missing of the market that is known best, ns UTC; 0 at first."""
        return max(strategy.complete_until for strategy in self._strategies.values())

    @property
    def known(self) -> list[Strategy]:
        """The engines that have had a bar."""
        return [s for s in self._strategies.values() if s.newest is not None]

    def resume(self) -> None:
        """Take over from the log how far it reaches."""
        for strategy in self._strategies.values():
            strategy.complete_until = max(strategy.closed_until, strategy.newest or 0)

    def resume_point(self) -> int | None:
        """Return where a replay begins: at a bar that is known, one interval back at least.

        Not before what the gateway can replay: over a weekend nothing is missing all the same.
        """
        reach = round(self._settings.replay_limit_h * 3600 * _NANOS)
        if self._replay_all:
            return 0
        if not self.known or not reach:
            return None
        start = min(min(s.complete_until - self._interval_ns, s.newest or 0) for s in self.known)
        return max(start, self._clock.now() - max(0, reach - _REACH_MARGIN_NS))

    def is_complete(self, until: int, strategies: Iterable[Strategy]) -> None:
        """Say that nothing is missing of some markets until an instant."""
        for strategy in strategies:
            strategy.complete_until = max(strategy.complete_until, until)
        # The first bar after a hole is known, and its interval not closed yet.
        self._state.relieve(*(("quiet", "hole") if until > self._hole_until else ("quiet",)))

    def missing(self, ts: int, strategies: Iterable[Strategy]) -> dict[str, int]:
        """Return how much trading time of each engine lies between what it knows and an instant."""
        found = {
            strategy.root: self._calendar.trading_ns(strategy.complete_until, ts)
            for strategy in strategies
            if strategy.complete_until
        }
        return {root: ns for root, ns in found.items() if ns}

    # Where the rest comes from.

    def may_ask_history(self, roots: Iterable[str]) -> bool:
        """Return whether history may know more of some engines than it was asked for last."""
        if self._past is None or self._failures >= _MOST_FAILURES:
            return False
        return any(self._asked.get(root) != self._strategies[root].complete_until for root in roots)

    def replay_all_next(self) -> None:
        """Let the next replay begin with all that the gateway has."""
        self._replay_all = True

    def settled(self) -> None:
        """Say that a connection has shown where it begins."""
        self._replay_all = False

    def hole(self, strategy: Strategy, end: int) -> None:
        """Write down that nobody has what lies between an engine's bars and an instant."""
        start = strategy.complete_until
        problem = "neither replay nor history has it"
        self._journal("hole", strategy.root, problem, start, end, {})
        self._hole_until = max(self._hole_until, end)
        # The next gap is another question.
        self._failures = 0
        self._state.trouble("hole", "bars are missing that nobody has")
        strategy.close(end - end % self._interval_ns, "hole")

    def backfill(self) -> bool:
        """Take what engines without bars begin with; return whether to ask for it again.

        Where history has none, they begin with what the gateway replays.
        """
        new = [root for root, s in self._strategies.items() if s.newest is None]
        if self._past is None or not new:
            return False
        failures = self._failures
        error = self.fill(new)
        if error is None or self._stop.is_set():
            return False
        if isinstance(error, HistoryUnavailable) and failures < _MOST_FAILURES - 1:
            return True
        self._failures = 0
        self._replay_all = bool(self._settings.replay_limit_h)
        problem = (
            f"{', '.join(new)} without the history that the settings look back on: windows count "
            "as warming_up until it has traded so long; or stop, and begin with a new database "
            "when history answers"
        )
        self._journal("alarm", None, problem, None, None, {})
        return False

    def fill_before_replay(self) -> None:
        """Ask history for what the gateway can no longer replay and the calendar says there is."""
        start = self.resume_point()
        missing = self.missing(self._clock.now() if start is None else start, self.known)
        if self.may_ask_history(missing):
            self.fill(missing)

    def fill(self, roots: Iterable[str]) -> ClusterCoreError | None:
        """Take from history what it has, and return why it could not be asked, if so.

        That is what a new engine begins with, and what another missed.
        """
        wanted = {root: self._strategies[root] for root in roots}
        if self._past is None or not wanted:
            return None
        self._state.go(CATCHING_UP, "reading history")
        try:
            end = self._meanwhile(self._past.available_end)
            # Of a bar under way it has a part.
            end -= end % self._interval_ns
            starts = {root: self._start_of(s, end) for root, s in wanted.items()}
            since = min(starts.values())
            if end <= since + self._interval_ns:
                self._journal("history", None, "history has nothing newer", since, end, {})
                self._note_asked(wanted)
                return None
            frame = self._meanwhile(functools.partial(self._past.bars, since, end))
        except ClusterCoreError as error:
            _LOG.warning("history: %s", error)
            self._journal("alarm", None, f"history: {error}", self.complete_until, None, {})
            self._failures += 1
            return error
        self._failures = 0
        self._journal("history", None, "filled from history", since, end, {"bars": frame.height})
        if isinstance(self._clock, MarketClock):
            self._clock.observe(end, self._clock.stamp())
        self.reads_history = True
        lasts = self._take(frame, starts)
        self.reads_history = False
        if not self._stop.is_set():
            for root, strategy in wanted.items():
                last = lasts.get(root, strategy.complete_until)
                if last:
                    strategy.complete_until = max(strategy.complete_until, self._end_of(last, end))
        self._note_asked(wanted)
        self._committed()
        return None

    def _note_asked(self, roots: Iterable[str]) -> None:
        self._asked |= {root: self._strategies[root].complete_until for root in roots}

    def _start_of(self, strategy: Strategy, end: int) -> int:
        if strategy.newest is None:
            return end - self._backfill_ns
        return strategy.complete_until - self._interval_ns

    def _end_of(self, last: int, end: int) -> int:
        """Return up to when history is whole: by its bars, not by what it says of them."""
        is_short = self._calendar.trading_ns(last, end) > _SHORT_NS
        return last if is_short else end

    def _take(self, frame: pl.DataFrame, starts: Mapping[str, int]) -> dict[str, int]:
        """Take bars of history, each engine from its own start; return where each one's end."""
        lasts: dict[str, int] = {}
        arrival = self._clock.now()
        fresh = {root for root, s in self._strategies.items() if s.newest is None}
        acts = self._settings.late == "act" and not self._state.is_forbidden
        owners: dict[str, Strategy | None] = {}
        columns = frame.select("ts_event", "open", "high", "low", "close", "volume", "symbol")
        for row, (ts, opened, high, low, close, volume, symbol) in enumerate(columns.iter_rows()):
            if symbol not in owners:
                owning = (s for s in self._strategies.values() if s.owns(symbol))
                owners[symbol] = next(owning, None)
            strategy = owners[symbol]
            if strategy is None or ts < starts.get(strategy.root, _NEVER):
                continue
            lasts[strategy.root] = ts + self._interval_ns
            is_backfill = strategy.root in fresh
            strategy.take(
                symbol,
                ts,
                (opened, high, low, close, volume),
                origin="backfill" if is_backfill else "historical",
                arrival=max(arrival, ts + self._interval_ns),
                actionable=acts and not is_backfill and (self._state.was_live or strategy.was_live),
            )
            if row % _HEARD_EVERY == 0:
                self._committed()
                self._idle()
                if self._stop.is_set():
                    break
        return lasts

    def _meanwhile(self, ask: Callable[[], _Answer]) -> _Answer:
        """Return an answer that takes its time; the operator is heard meanwhile."""
        answer: concurrent.futures.Future[_Answer] = concurrent.futures.Future()

        def work() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:  # noqa: BLE001 -- it is raised where it was asked
                answer.set_exception(error)

        # A daemon: a server that does not answer must not keep the process alive.
        threading.Thread(target=work, name="clustercore-history", daemon=True).start()
        while not concurrent.futures.wait([answer], _POLL_S).done:
            self._idle()
            if self._stop.is_set():
                raise _StoppedError("stopped while history was read")
        return answer.result()
