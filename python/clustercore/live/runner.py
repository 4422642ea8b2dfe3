"""The live process: feed, engines, store and everything a trader sees, on one trading thread.

What an input caused is shown only after both were written down in one transaction. A restart folds
the log again and compares it with what was stored; a difference is an alarm, never repaired.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustercore import parity
from clustercore.config import Config
from clustercore.errors import ClusterCoreError, ConfigError, DataError
from clustercore.events import Cluster, Equity, Risk, Trade
from clustercore.fold import Fold, epoch_of
from clustercore.inputs import Carry, Epoch, Operator
from clustercore.instruments import Instrument, parse_symbol
from clustercore.live.alerts import AlertSender, Channel
from clustercore.live.clock import MarketClock, SystemClock
from clustercore.live.control import CommandQueue, ControlServer, socket_path
from clustercore.live.disk import RawCapture, free_bytes
from clustercore.live.feed import Feed
from clustercore.live.key import Key
from clustercore.live.ledger import Committed, Ledger
from clustercore.live.notify import Notifier
from clustercore.live.projections import Projections
from clustercore.live.settings import LiveSettings
from clustercore.live.startup import days_needed, restore, state_left
from clustercore.live.state import CATCHING_UP, DEGRADED, FATAL, LIVE
from clustercore.live.status import RootStatus, Status
from clustercore.live.strategy import Calendar, Strategy
from clustercore.recommend import ended_text, risk_usd
from clustercore.sessions import load_sessions
from clustercore.store import FeedEvent, Store, StoreError

if TYPE_CHECKING:
    from clustercore.events import Event, Order
    from clustercore.inputs import Input
    from clustercore.live.clock import Clock
    from clustercore.live.gaps import Past
    from clustercore.parity import Parity
    from clustercore.recommendation import Recommendation

__all__ = ["REHEARSAL_KEY", "LiveRunner", "SessionSummary"]

# For a gateway on this machine; public, and of no use anywhere else.
REHEARSAL_KEY = Key("db-rehearsal-only-not-a-secret-0", "rehearsal")

_LOG = logging.getLogger(__name__)
_MINUTE_NS = 60 * 10**9
_DAY_NS = 86_400 * 10**9
_MB = 1_000_000
_MOST_WAITING = 5_000
_SLOW_CHECK_S = 5.0
_STATUS_S = 0.2
# Who asked for a stop waits for a certificate so long.
_LAST_WORD_S = 2.0


@dataclass(frozen=True)
class SessionSummary:
    """What a session had, for people: its windows, clusters and the trades that ended in it."""

    root: str
    close: int
    clusters: tuple[Cluster, ...]
    trades: tuple[Trade, ...]
    windows: int
    """Windows with bars enough since its first bar, or since the process began."""
    warming_up: int
    """Those of them for which there was no usual volume to compare with."""


@dataclass
class _Account:
    """What the events say of an account; the engine has the truth."""

    equity: float
    at_session_open: float
    session: int | None = None
    blocked: str | None = None

    def mark(self, event: Equity, session: int | None) -> None:
        """Take an equity mark; the first of a session says what the one before had left."""
        if session != self.session:
            self.session, self.at_session_open = session, self.equity
        self.equity = event.equity

    def take_over(self, carry: Carry) -> None:
        """Take the account of the epoch before."""
        account = json.loads(carry.state)["account"]
        self.equity = self.at_session_open = account["last_mark"]
        held = [name for name in ("halted", "paused") if account[name]]
        self.blocked = f"{held[0]}: before this epoch" if held else None


class LiveRunner:
    """A strategy live on one or more products.

    Parameters
    ----------
    config : Config
        The strategy's settings; ``entry.mode = "close"`` cannot be traded and is refused.
    symbols : sequence of str
        Products such as ``"ES"`` (the month in front is chosen), or single contracts (``"ESZ6"``).
    database : str or Path
        The DuckDB file; everything that happened is in it, and a restart goes on from it.
    settings : LiveSettings, optional
        Gateway and times; Databento's gateway when left out.
    key : Key, optional
        The API key. Beside a gateway on this machine the rehearsal key is used instead.
    folder : str or Path, optional
        Where recommendations and raw bytes go. When left out, the folder of a database named
        ``live``, and for another one a folder of its name beside it, which ends with ``.files``
        when the database's name has no ending.
    past : Past, optional
        Where bars of the past come from; the vendor's historical service when left out.
    channels : sequence of Channel
        To whom recommendations go, from ``read_channels``.

    Attributes
    ----------
    on_recommendation, on_end, on_status, on_note, on_session : callable or None
        Told, on the trading thread, after the commit: a ``Recommendation``, the ``Order`` or
        ``Trade`` that was made of it when that ended, a ``Status`` some five times a second, a
        ``FeedEvent``, a ``SessionSummary``.

    Examples
    --------
    >>> from clustercore.config import Config
    >>> LiveRunner(Config.preset().override({"entry.mode": "close"}), database="x.duckdb")
    Traceback (most recent call last):
    clustercore.errors.ConfigError: entry.mode: a close that has passed cannot be traded; ...
    """

    def __init__(
        self,
        config: Config,
        symbols: Sequence[str] = ("ES",),
        *,
        database: str | Path,
        settings: LiveSettings | None = None,
        key: Key | None = None,
        folder: str | Path | None = None,
        past: Past | None = None,
        channels: Sequence[Channel] = (),
    ) -> None:
        if config.entry.mode == "close":
            raise ConfigError(
                "a close that has passed cannot be traded; this mode is for research only",
                field="entry.mode",
                found="close",
                expected="next_open or limit",
            )
        self.config = config
        # Whoever asks where it is, or where its copy is, may be in another folder.
        self.database = _file_of(Path(database))
        # One folder a database: the files in it are made again from that database.
        self.folder = Path(folder) if folder is not None else _folder_of(self.database)
        self.settings = settings or LiveSettings()
        self.products = _products(symbols, config)
        self.on_recommendation: Callable[[Recommendation], object] | None = None
        self.on_end: Callable[[Order | Trade], object] | None = None
        self.on_status: Callable[[Status], object] | None = None
        self.on_note: Callable[[FeedEvent], object] | None = None
        self.on_session: Callable[[SessionSummary], object] | None = None
        self.parities: dict[str, Parity] = {}
        self.commands = CommandQueue(self._wake)
        self.clock: Clock = MarketClock() if self.settings.is_local else SystemClock()
        self._key = REHEARSAL_KEY if self.settings.is_local else key
        self._past = past
        self._channels = tuple(channels)
        self._projections = Projections(self.folder)
        self._notifier = Notifier()
        self._accounts: dict[str, _Account] = {}
        self._of_session: dict[str, list[Cluster | Trade]] = {}
        self._agreeing: list[Parity] = []
        self._upgraded: list[Strategy] = []
        self._counts = {"replayed": 0, "recommendations": 0, "differences": 0}
        self._status = Status(
            state="IDLE",
            reason="replaying the log",
            since=self.clock.now(),
            updated_at=self.clock.now(),
        )
        self._calendar: Calendar | None = None
        self._feed: Feed | None = None
        self._stop_asked = False
        # For what concerns this machine and not the market: its disk, and what is shown.
        self._wall = SystemClock()
        self._checked = self._shown = self._wall.stamp()
        self._look_for_alerts = True
        if self._key is None:
            raise ConfigError(
                "live data needs an API key: set DATABENTO_API_KEY, or write it to .env; "
                "to rehearse without one, start `clustercore gateway`",
                field="DATABENTO_API_KEY",
            )

    # From any thread.

    def stop(self) -> None:
        """End the run soon: what was received so far is written down. From any thread or signal."""
        # No lock is taken: a signal may come while the trading thread holds one.
        self._stop_asked = True

    @property
    def status(self) -> Status:
        """The newest snapshot of what is going on."""
        return self._status

    def _said(self) -> dict[str, Any]:
        return self._status.to_dict()

    # On the trading thread.

    def run(self) -> int:
        """Trade until stopped; the calling thread is the trading thread.

        Returns
        -------
        int
            0 when stopped on purpose, 1 when the gateway refused for good or the log did not
            replay to what is stored.

        Raises
        ------
        StoreError
            The database is another process's, damaged or not writable.
        ConfigError, DataError
            The configuration and the log do not go together.
        """
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(Store.open(self.database))
            # Before anybody who finds the store owned reads the copy beside it.
            store.set_aside_snapshot()
            control = ControlServer(socket_path(self.database), self._said, self.commands.submit)
            stack.callback(control.close)
            stack.callback(self.commands.close)
            return self._run(stack, store)

    def _run(self, stack: contextlib.ExitStack, store: Store) -> int:
        ledger = Ledger(store, self.clock, self._channels)
        ledger.on_commit = self._committed
        ledger.on_events = lambda root, item, events: self._see_first(ledger, root, item, events)
        sender = AlertSender(
            self._channels, store.pending_alerts, store.mark_sent, store.mark_failed
        ).start()
        stack.callback(lambda: sender.close(self.clock.now()))
        calendar, strategies, agrees = self._restore(store, ledger)
        if agrees:
            self._show_recommendations(store)
        else:
            _LOG.warning("the recommendation files stay as they are: the store is in doubt")
        capture = RawCapture(
            self.folder / "raw",
            keep_days=self.settings.raw_days,
            floor_bytes=self.settings.disk_floor_mb * _MB,
        )
        stack.callback(capture.close)
        stack.callback(self._notifier.close)
        assert self._key is not None  # noqa: S101 -- checked when it was made
        feed = Feed(
            strategies,
            self.settings,
            self.clock,
            self._key,
            calendar,
            journal=ledger.journal,
            committed=lambda: self._commit(ledger),
            idle=lambda: self._idle(store, ledger, sender),
            past=self._past if self._past is not None else self._history(stack, strategies),
            capture=lambda: capture.open(self._wall_now()),
            backfill_ns=self._backfill_days() * _DAY_NS,
        )
        self._feed = feed
        feed.on_simulated = lambda: _mark_simulated(ledger)
        feed.on_session_end = lambda ts: self._session_end(store, ledger, ts)
        if not agrees:
            feed.state.trouble("log", "the log does not replay to what is stored")
        if self._upgraded:
            # The next upgrade may come before a session has gone by.
            self._certify_ends(store, ledger, self._upgraded)
        ended = _unfinished(store, strategies)
        if agrees and ended is not None:
            self._finish_session(store, ledger, strategies, ended)
        if self._stop_asked:
            feed.stop.set()
        self._notifier.ready()
        try:
            feed.run()
            ledger.commit()
            self._certify_ends(store, ledger, strategies)
        except StoreError as error:
            # What was not written is replayed after the next start.
            feed.state.go(FATAL, str(error))
            raise
        finally:
            self._notifier.stopping()
            self._refresh(force=True)
        return 1 if feed.state.name == FATAL or self._counts["differences"] else 0

    # The beginning.

    def _restore(self, store: Store, ledger: Ledger) -> tuple[Calendar, list[Strategy], bool]:
        # Before anything is written: a start that is refused leaves the file to the other version.
        for _, instrument in self.products:
            state_left(store, instrument.root)
        session = self.config.session
        sessions = load_sessions(self.products[0][1].calendar, hours=session.hours, day=session.day)
        sessions_hash = store.save_sessions(sessions)
        calendar = self._calendar = Calendar(sessions)
        strategies = [
            self._restore_one(store, ledger, calendar, sessions_hash, symbol, instrument)
            for symbol, instrument in self.products
        ]
        ledger.commit()
        for found in self._agreeing:
            store.save_certificate(parity.certificate_of(found, self.clock.now(), ""))
        return calendar, strategies, self._counts["differences"] == 0

    def _restore_one(
        self,
        store: Store,
        ledger: Ledger,
        calendar: Calendar,
        sessions_hash: str,
        symbol: str | None,
        instrument: Instrument,
    ) -> Strategy:
        balance = self.config.account.balance
        self._accounts[instrument.root] = _Account(balance, balance)
        strategy = Strategy(
            Fold(instrument.root, parity.StoredLog(store)),
            instrument,
            self.config,
            calendar,
            _MINUTE_NS,
            enter=ledger.enter,
            journal=ledger.journal,
            symbol=symbol,
        )

        def begin(epoch: Epoch) -> None:
            self._begin_epoch(ledger, strategy, epoch)

        def see(seq: int, item: Input, events: tuple[Event, ...]) -> None:
            self._see_again(ledger, strategy.root, seq, item, events)

        strategy.on_epoch = begin
        wanted = epoch_of(1, self.config, instrument, sessions_hash, _MINUTE_NS)
        found = restore(store, strategy, wanted, flush=ledger.commit, see=see)
        self._counts["replayed"] += found.replayed
        self._agreeing += found.agreeing
        if found.after_upgrade:
            self._upgraded.append(strategy)
        if found.difference is not None:
            self._counts["differences"] += 1
            problem = f"the log does not replay to what is stored: {found.difference}"
            ledger.journal("alarm", strategy.root, problem, None, None, {})
        if found.days_short:
            problem = (
                f"the log has {found.days_short} days less than the new settings look back on; "
                "windows without a baseline are counted as warming_up until then"
            )
            ledger.journal("alarm", strategy.root, problem, None, None, {})
        return strategy

    def _begin_epoch(self, ledger: Ledger, strategy: Strategy, epoch: Epoch) -> None:
        # Its own settings and table: an epoch goes on to its session's end under what it had.
        recommender = parity.recommender_of(epoch, strategy.fold.log.sessions(epoch.sessions_hash))
        recommender.simulated = self._feed is not None and self._feed.simulated
        ledger.recommenders[strategy.root] = recommender

    def _see_again(
        self, ledger: Ledger, root: str, seq: int, item: Input, events: tuple[Event, ...]
    ) -> None:
        """Let those who explain orders see what an old entry caused; they tell nobody again."""
        recommender = ledger.recommenders.get(root)
        if recommender is not None:
            recommender.take(events, seq=seq)
        self._see_events(root, item, events)

    def _show_recommendations(self, store: Store) -> None:
        try:
            self._projections.rewrite(store.recommendations())
        except OSError as error:
            _LOG.warning("the recommendation files cannot be written: %s", error)

    def _history(self, stack: contextlib.ExitStack, strategies: Sequence[Strategy]) -> Past | None:
        from clustercore.live.past import open_past

        parents = [f"{s.root}.FUT" for s in strategies if s.symbol is None]
        single = [name for s in strategies for name in s.contracts]
        return open_past(stack, self.settings, self._key, self.folder, parents, single)

    def _backfill_days(self) -> int:
        return self.settings.backfill_days or days_needed(self.config)

    # In between.

    def _commit(self, ledger: Ledger) -> None:
        feed = self._feed
        live = feed is not None and feed.state.name in {LIVE, DEGRADED}
        if ledger.waiting > _MOST_WAITING or (live and ledger.is_urgent) or self._stop_asked:
            ledger.commit()

    def _idle(self, store: Store, ledger: Ledger, sender: AlertSender) -> None:
        if self._stop_asked and self._feed is not None:
            self._feed.stop.set()
        for command in self.commands.take():
            self._obey(store, ledger, command)
        if self._wall.since(self._checked) > _SLOW_CHECK_S:
            self._checked = self.clock.stamp()
            self._check_disk()
            ledger.commit()
        elif ledger.is_alarming or (
            ledger.waiting and self._feed is not None and self._feed.is_quiet
        ):
            # Also what was not urgent: the next bar shall not wait for it.
            ledger.commit()
        sender.pump(self.clock.now(), look=self._look_for_alerts)
        self._look_for_alerts = False
        self._notifier.beat()
        self._refresh()

    def _wall_now(self) -> int:
        return self._wall.now()

    def _obey(self, store: Store, ledger: Ledger, command: Any) -> None:  # noqa: ANN401
        feed = self._feed
        try:
            if command.name == "stop":
                self._enter_operator("stop", None)
                ledger.commit()
                self._stop_asked = True
                if feed is not None:
                    feed.stop.set()
                command.done(stopping=True)
            elif command.name == "reset-halt":
                done = self._enter_operator("reset_halt", command.arguments.get("root"))
                ledger.commit()
                command.done(reset=done)
                if feed is not None:
                    self._certify_ends(store, ledger, list(feed.strategies.values()))
            elif command.name == "snapshot":
                ledger.commit()
                command.done(path=str(store.snapshot()))
            else:
                command.fail(f"no such command: {command.name}")
        except StoreError as error:
            if not ledger.waiting:
                command.fail(str(error))
                return
            # The engine has done it and the store does not know: as after any commit that fails,
            # the process ends, and the next one goes on from what is written.
            command.fail(f"{error}; it is not done, and the process ends")
            raise
        except ClusterCoreError as error:
            command.fail(str(error))

    def _enter_operator(self, event: str, root: str | None) -> list[str]:
        if self._feed is None:
            return []
        wanted = [s for s in self._feed.strategies.values() if root in {None, s.root}]
        if not wanted:
            raise ConfigError(
                "no such engine",
                field="root",
                found=str(root),
                expected=", ".join(self._feed.strategies),
            )
        for strategy in wanted:
            strategy.operator(event)
        return [strategy.root for strategy in wanted]

    def _check_disk(self) -> None:
        if self._feed is None:
            return
        free = free_bytes(self.database.parent)
        floor = self.settings.disk_floor_mb * _MB
        reason = f"only {free // _MB} MB free on the disk" if free < floor else None
        if reason is None:
            self._feed.state.relieve("disk")
        elif "disk" not in self._feed.state.troubles:
            self._feed.state.trouble("disk", reason)

    def _session_end(self, store: Store, ledger: Ledger, ts: int) -> None:
        """At a session's end: certify, and leave a copy for readers."""
        ledger.commit()
        if self._feed is None or self._feed.state.name not in {LIVE, DEGRADED, CATCHING_UP}:
            return
        strategies = list(self._feed.strategies.values())
        self._finish_session(store, ledger, strategies, ts)
        for strategy in strategies:
            self._sum_up(strategy, ts)

    def _sum_up(self, strategy: Strategy, close: int) -> None:
        """Tell what the session that ended had."""
        row = strategy.calendar.session(close - 1)
        seen, self._of_session[strategy.root] = self._of_session.get(strategy.root, []), []
        if row is None or self.on_session is None:
            return
        begin = strategy.calendar.opens[row]
        clusters = [e for e in seen if isinstance(e, Cluster) and e.decision_time > begin]
        trades = [e for e in seen if isinstance(e, Trade) and e.exit_time > begin]
        now = strategy.fold.engine.counts()
        before = strategy.counts_before or now
        since = {name: count - before[name] for name, count in now.items()}
        self.on_session(
            SessionSummary(
                strategy.root,
                close,
                tuple(clusters),
                tuple(trades),
                windows=since["windows"] - since["thin"],
                warming_up=since["warming_up"],
            )
        )

    def _finish_session(
        self, store: Store, ledger: Ledger, strategies: Sequence[Strategy], ts: int
    ) -> None:
        try:
            for strategy in strategies:
                self._certify_earlier(store, ledger, strategy, ts)
                self._certify(store, ledger, strategy, ts)
        except _StopAskedError:
            # The next start finds the certificate missing, and makes it.
            return
        except ClusterCoreError as error:
            ledger.journal("alarm", None, f"no certificate: {error}", None, ts, {})
        try:
            path = store.snapshot()
        except StoreError as error:
            ledger.journal("alarm", None, f"no snapshot: {error}", None, None, {})
        else:
            ledger.journal("snapshot", None, "a copy for readers", None, ts, {"path": str(path)})
        ledger.commit()

    def _certify_ends(self, store: Store, ledger: Ledger, strategies: Sequence[Strategy]) -> None:
        """Certify accounts that stand between two sessions, and whose newest word is in none.

        Only from a certificate does another engine version go on.
        """
        if self._counts["differences"]:
            return
        between = partial(self._between, self._wall.stamp())
        try:
            for strategy in strategies:
                if not _is_certified(store, strategy):
                    self._certify(store, ledger, strategy, strategy.closed_until, between)
        except _StopAskedError:
            return
        except ClusterCoreError as error:
            ledger.journal("alarm", None, f"no certificate: {error}", None, None, {})
        ledger.commit()

    def _between(self, began: int | None = None) -> None:
        """Let a long replay be watched, and ended by whoever wants to stop: soon after it began."""
        self._notifier.beat()
        if self._stop_asked and (began is None or self._wall.since(began) > _LAST_WORD_S):
            raise _StopAskedError

    def _certify(
        self,
        store: Store,
        ledger: Ledger,
        strategy: Strategy,
        ts: int,
        between: Callable[[], None] | None = None,
    ) -> None:
        epoch = strategy.fold.epoch
        if epoch is None:
            return
        try:
            state = strategy.fold.engine.account_state()
        except DataError:
            if strategy.pending_epoch is None:
                raise
            # A session of the table that waits ended in the middle of the engine's own.
            return
        again = parity.replay(store, strategy.root, epoch, between or self._between)
        found = self.parities[strategy.root] = parity.certify(store, again)
        store.save_certificate(parity.certificate_of(found, self.clock.now(), state))
        self._say_of(ledger, found, ts)

    def _certify_earlier(self, store: Store, ledger: Ledger, strategy: Strategy, ts: int) -> None:
        """Certify epochs that ended where no session's end was stood at, such as in a replay."""
        if self._counts["differences"]:
            return
        for epoch in parity.uncertified(store, strategy.root):
            again = parity.replay(store, strategy.root, epoch, self._between)
            found = parity.certify(store, again)
            store.save_certificate(parity.certificate_of(found, self.clock.now(), ""))
            if not found.ok:
                self._say_of(ledger, found, ts)

    def _say_of(self, ledger: Ledger, found: Parity, ts: int) -> None:
        """Note what a comparison found; a difference forbids acting."""
        if found.ok:
            detail = {"upto_seq": found.upto_seq, "outputs_hash": found.outputs_hash}
            ledger.journal("parity", found.root, "replay and store agree", None, ts, detail)
        else:
            self._counts["differences"] += 1
            ledger.journal("alarm", found.root, f"parity: {found.difference}", None, ts, {})
            if self._feed is not None:
                self._feed.state.trouble("log", "the log does not replay to what is stored")

    def _committed(self, committed: Committed) -> None:
        for made in committed.recommendations:
            try:
                self._projections.add(made)
            except OSError as error:
                _LOG.warning("the recommendation files cannot be written: %s", error)
            self._look_for_alerts = True
            self._counts["recommendations"] += 1
            if self.on_recommendation is not None:
                self.on_recommendation(made)
        for event in committed.ended:
            _LOG.info("%s", ended_text(event))
            if self.on_end is not None:
                self.on_end(event)
        if self.on_note is not None:
            for note in committed.feed_events:
                self.on_note(note)

    def _wake(self) -> None:
        if self._feed is not None:
            self._feed.wake.set()

    # What is shown.

    def _see_first(
        self, ledger: Ledger, root: str, item: Input | None, events: Sequence[Event]
    ) -> None:
        """See what a new entry caused; a halt, a pause and their ends are told with the commit."""
        self._see_events(root, item, events)
        for event in events:
            if isinstance(event, Risk):
                reason = f"{event.kind}: {event.reason}" if event.reason else event.kind
                ledger.journal("risk", root, reason, event.time, None, {"kind": event.kind})

    def _see_events(self, root: str, item: Input | None, events: Sequence[Event]) -> None:
        account = self._accounts[root]
        self._of_session.setdefault(root, []).extend(
            event for event in events if isinstance(event, Cluster | Trade)
        )
        if isinstance(item, Carry):
            account.take_over(item)
        for event in events:
            if isinstance(event, Equity):
                account.mark(event, self._session_of(event.time))
            elif isinstance(event, Risk):
                account.blocked = (
                    None if event.kind in _CLEARED else f"{event.kind}: {event.reason}"
                )
        if isinstance(item, Operator):
            account.blocked = None

    def _session_of(self, end: int) -> int | None:
        """Return the session of a bar that ended then."""
        return self._calendar.session(end - 1) if self._calendar is not None else None

    def _refresh(self, *, force: bool = False) -> None:
        feed = self._feed
        if feed is None or not (force or self._wall.since(self._shown) > _STATUS_S):
            return
        self._shown = self.clock.stamp()
        now = self.clock.now()
        tallies = [strategy.tally for strategy in feed.strategies.values()]
        self._status = Status(
            state=feed.state.name,
            reason=feed.state.reason,
            since=feed.state.since,
            updated_at=now,
            roots=tuple(self._root_status(s, now) for s in feed.strategies.values()),
            queue_depth=feed.waiting,
            queue_mark=feed.depth,
            counts=self._counts
            | {
                "bars": sum(t.consumed for t in tallies),
                "late": sum(t.late for t in tallies),
                "duplicates": sum(t.duplicates for t in tallies),
                "conflicts": sum(t.conflicts for t in tallies),
                "connections": feed.connections,
            },
            database=str(self.database),
            gateway=self.settings.gateway or "Databento",
            simulated=feed.simulated,
            version=version("clustercore"),
        )
        self._notifier.status(f"{feed.state.name}: {feed.state.reason}")
        if self.on_status is not None:
            self.on_status(self._status)

    def _root_status(self, strategy: Strategy, now: int) -> RootStatus:
        account = self._accounts[strategy.root]
        last = strategy.last_bar
        if strategy.session != account.session:
            account.session, account.at_session_open = strategy.session, account.equity
        engine = strategy.fold.engine
        trades = engine.open_trades()
        instrument = self.config.applied_to(strategy.instrument)
        ticks = self.config.costs.slippage_ticks
        orders = engine.working_orders()
        at_risk = sum(
            risk_usd(instrument, abs(trade.entry_price - trade.stop), trade.quantity, ticks)
            for trade in trades
        ) + sum(
            risk_usd(instrument, order.stop_distance or 0.0, order.quantity, ticks)
            for order in orders
        )
        return RootStatus(
            root=strategy.root,
            contract=strategy.front,
            last_bar_start=last.ts_event if last is not None else None,
            last_bar_age_s=(now - last.ts_event - _MINUTE_NS) / 1e9 if last is not None else None,
            session_volume=strategy.session_volume,
            baseline_volume=strategy.usual_volume(),
            pending_retests=len(engine.pending_signals()),
            open_position=", ".join(
                f"{trade.direction} {trade.quantity} @ {trade.entry_price:g}" for trade in trades
            )
            or None,
            open_contracts=sum(trade.quantity for trade in trades),
            day_pnl=account.equity - account.at_session_open,
            equity=account.equity,
            blocked=account.blocked,
            risk_usd=at_risk,
        )


def _unfinished(store: Store, strategies: Sequence[Strategy]) -> int | None:
    """Return the end of a session that is over, and whose certificate and copy are missing."""
    ends = [
        strategy.calendar.closes[strategy.session]
        for strategy in strategies
        if strategy.session is not None and strategy.fold.epoch is not None
    ]
    end = max(ends, default=None)
    if end is None or any(strategy.closed_until < end for strategy in strategies):
        return None
    if not all(_is_certified(store, strategy) for strategy in strategies):
        return end
    made = f"kind = 'snapshot' AND \"end\" = make_timestamp_ns({end})"
    there = store.count(f"SELECT count(*) FROM feed_events WHERE {made}")  # noqa: S608 -- a number
    return None if there else end


def _is_certified(store: Store, strategy: Strategy) -> bool:
    """Return whether an account that could change hands now is in a good certificate."""
    epoch = strategy.fold.epoch
    if epoch is None:
        return True
    try:
        strategy.fold.engine.account_state()
    except DataError:
        return True
    left = parity.certificate_at_end(store, strategy.root, epoch.number)
    return left is not None and left.ok and bool(left.state)


def _file_of(database: Path) -> Path:
    if not database.name or database.is_dir():
        raise ConfigError(
            "not the name of a file",
            field="--db",
            found=repr(str(database)),
            expected="a file, such as live.duckdb",
        )
    return database.absolute()


def _folder_of(database: Path) -> Path:
    """Return the folder of a database's files, which is never the database itself."""
    if database.stem == "live":
        return database.parent
    return (
        database.with_suffix("")
        if database.suffix
        else database.with_name(f"{database.name}.files")
    )


class _StopAskedError(Exception):
    """The process was asked to stop in the middle of something long."""


_CLEARED = frozenset({"reset", "resumed"})


def _mark_simulated(ledger: Ledger) -> None:
    for recommender in ledger.recommenders.values():
        recommender.simulated = True


def _products(symbols: Sequence[str], config: Config) -> list[tuple[str | None, Instrument]]:
    """Return symbol (None where the front month is chosen) and instrument of what was asked for."""
    found: list[tuple[str | None, Instrument]] = []
    for symbol in symbols:
        parts = parse_symbol(symbol)
        if parts.kind in {"root", "parent"}:
            own, root = None, parts.root
        elif parts.kind == "outright":
            own, root = symbol, parts.root
        else:
            raise ConfigError(
                "a live stream of such a symbol is not followed from one contract to the next; "
                "ask for the product, and the month in front is chosen",
                field="symbol",
                found=symbol,
                expected="a product such as ES, or one contract such as ESZ6",
            )
        if any(instrument.root == root for _, instrument in found):
            raise ConfigError(
                "asked for twice; each product has one engine and one account",
                field="symbol",
                found=symbol,
            )
        found.append((own, _instrument(root, config)))
    if not found:
        raise ConfigError("nothing to trade", field="symbol", expected="a product such as ES")
    return found


def _instrument(root: str, config: Config) -> Instrument:
    own = config.instrument
    if root in Instrument.roots():
        return Instrument.builtin(root)
    if None in {own.tick_size, own.point_value, own.commission}:
        raise ConfigError(
            "no product of this name is built in; describe it with the settings "
            "instrument.tick_size, instrument.point_value and instrument.commission",
            field="--symbol",
            found=repr(root),
            expected=", ".join(Instrument.roots()),
        )
    return Instrument(root, own.tick_size, own.point_value, own.commission, margin=own.margin)
