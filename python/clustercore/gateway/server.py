"""The gateway: a listener on loopback, one market for all its sessions, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import math
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import numpy as np

from clustercore.errors import ConfigError, InternalError
from clustercore.gateway.channel import Channel
from clustercore.gateway.faults import BAR_FAULTS, STREAM_FAULTS, Fault, FaultScript
from clustercore.gateway.limits import RateLimit
from clustercore.gateway.market import Closing, MarketTime, Schedule, seconds
from clustercore.gateway.protocol import REHEARSAL_KEY
from clustercore.gateway.records import DATASET, GatewayData
from clustercore.gateway.session import Connection, Session
from clustercore.gateway.symbols import Resolver

__all__ = ["Gateway"]

_START_S = 10.0
_CLOSE_S = 10.0
_BACKLOG = 100
# After the end of the data a market without a pace would send heartbeats without end.
_IDLE_S = 0.5
# A refused connection cannot be seen by the listener: it stays away for at least this long.
_DOWN_S = 0.3
# Errors of one connection, or of a moment: they end nothing but that.
_PASSING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
    }
)
_PASSING_S = 0.1
_FASTEST = 1e9
_LAST_PORT = 65_535


class Gateway:
    """A server on this machine that speaks Databento's live protocol.

    Parameters
    ----------
    data : GatewayData
        What the market does.
    port : int, default 0
        Where to listen; 0 takes a free one.
    host : str, default "127.0.0.1"
        A loopback address; nothing else is allowed.
    speed : float, default inf
        Market seconds a real second; ``inf`` goes as fast as the clients read.
    faults : iterable of Fault
        What goes wrong, and when.
    hold : bool, optional
        Whether market time stands still while nobody is connected; by default only where `speed`
        is ``inf``. Before the first session it stands still in any case.
    wait_for : int, default 1
        How many live sessions a market that holds waits for.
    start : int, optional
        Market instant at which the live part begins, ns UTC; the first bar's start when left out.
        What is before can be replayed.
    bar_delay_s, eoi_delay_s : float, default 0.2
        Market seconds from the end of an interval to its bars, and to END_OF_INTERVAL.
    eoi_for_empty : bool, default True
        Whether a minute of a session in which nothing traded is closed too.
    skip_closed : bool, default True
        Whether time without a session is jumped over, up to 60 s before the next bar begins.
    at_end : {"hold", "close"}
        After the last event: heartbeats for ever, or FIN one heartbeat interval later.
    key : str
        The key that clients must prove to have.
    replay_limit_s : float, default 86400
        How far back a replay may begin.
    max_sessions : int, default 10
        More are refused as at the real gateway.
    auth_timeout_s : float, default 30
        Real seconds that a client has to answer the challenge. Who does not is cut off, as idle
        connections would use up what this process may open.
    connections_per_s : int, optional
        More new connections are closed at once; at the real gateway 5. By default there is no
        limit: where the market waits for its clients, all attempts of a test fall into the same
        instant. A second is one of the market, or of this machine where the market stands still.
    subscriptions_per_s : int, optional
        More subscriptions of a session are answered later; at the real gateway 10. By default there
        is no limit.

    Examples
    --------
    >>> from clustercore.gateway import Gateway, sample_parent_data
    >>> with Gateway(sample_parent_data(sessions=1)) as gateway:
    ...     gateway.host, gateway.sessions_open
    ('127.0.0.1', 0)
    """

    def __init__(
        self,
        data: GatewayData,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        speed: float = math.inf,
        faults: Iterable[Fault] = (),
        hold: bool | None = None,
        wait_for: int = 1,
        start: int | None = None,
        bar_delay_s: float = 0.2,
        eoi_delay_s: float = 0.2,
        eoi_for_empty: bool = True,
        skip_closed: bool = True,
        at_end: str = "hold",
        key: str = REHEARSAL_KEY,
        replay_limit_s: float = 86_400.0,
        max_sessions: int = 10,
        auth_timeout_s: float = 30.0,
        connections_per_s: int | None = None,
        subscriptions_per_s: int | None = None,
    ) -> None:
        _check_host(host)
        _check_settings(
            port=port,
            speed=speed,
            bar_delay_s=bar_delay_s,
            eoi_delay_s=eoi_delay_s,
            at_end=at_end,
        )
        self.data = data
        self.host = host
        self.port = port
        self.speed = speed
        self.key = key
        self.dataset = DATASET
        self.max_sessions = max_sessions
        self.auth_timeout_s = auth_timeout_s
        self.replay_limit_ns = seconds(replay_limit_s)
        self.connections: list[Connection] = []
        self.live_bars = 0
        begin = data.span[0] if start is None else start
        self.market = MarketTime(begin, speed)
        self._connection_limit = RateLimit(connections_per_s, self.market.now, "connections_per_s")
        # One a session; made here so that a number that cannot be is refused here.
        RateLimit(subscriptions_per_s, self.market.now, "subscriptions_per_s")
        self.subscriptions_per_s = subscriptions_per_s
        self.schedule = Schedule(
            data,
            start=begin,
            bar_delay_ns=seconds(bar_delay_s),
            eoi_delay_ns=seconds(eoi_delay_s),
            empty_intervals=eoi_for_empty,
            speed=speed,
        )
        self.resolver = Resolver(data)
        script = list(faults)
        for fault in script:
            _check_fault(fault, data)
        self.script = FaultScript(script)
        self.ids = np.array([data.ids[symbol] for symbol in data.symbols], dtype=np.uint32)
        self._hold = math.isinf(speed) if hold is None else hold
        self._wait_for = wait_for
        self._skip_closed = skip_closed
        self._at_end = at_end
        self._begun = False
        self._outage_until = begin
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- from outside

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Listen, in a thread of its own."""
        listener = _listener(self.host, self.port)
        self.port = int(listener.getsockname()[1])
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(listener, ready), name="clustercore-gateway", daemon=True
        )
        self._thread.start()
        if not ready.wait(_START_S):
            raise InternalError("the gateway's thread did not start")

    def close(self) -> None:
        """Close every socket and end the thread; doing so twice does nothing."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)
        thread.join(_CLOSE_S)
        if thread.is_alive():
            raise InternalError("the gateway's thread did not end")
        self.check()

    def check(self) -> None:
        """Raise what has stopped the gateway, if anything has."""
        if self._failure is not None:
            raise InternalError("the gateway failed") from self._failure

    @property
    def sessions_open(self) -> int:
        """How many sockets of clients are open."""
        return len(self._sessions)

    def market_now(self) -> int:
        """Return the market's time, ns UTC."""
        return self.market.now()

    def wait_finished(self, timeout: float) -> bool:
        """Wait until everything was sent and has reached the clients; return whether it has."""
        return self._finished.wait(timeout)

    def inject(self, fault: Fault) -> None:
        """Add a fault to the script; one without a moment happens at once."""
        if self._loop is None:
            raise ConfigError("the gateway is not open yet", field="fault", found=fault.kind)
        _check_fault(fault, self.data)
        self._loop.call_soon_threadsafe(self._inject, fault)

    def _inject(self, fault: Fault) -> None:
        self.script.add(fault)
        self._spawn(self._let_happen())
        self.change()

    # -- the desk of its sessions

    def change(self) -> None:
        """Look again at who is there and what is due."""
        self._changed.set()

    def begin_outage(self, outage_s: float) -> None:
        """Let market time pass before anybody is answered again."""
        self._outage_until = max(self._outage_until, self.market.now() + seconds(outage_s))
        if self._in_outage():
            self._answering.clear()
        self.change()

    async def until_answering(self) -> None:
        """Wait for the end of an outage."""
        await self._answering.wait()

    def open_sessions(self) -> int:
        """Return how many sessions are authenticated."""
        return sum(session.authenticated for session in self._sessions)

    async def give_another_id(self, place: int) -> None:
        """Give an instrument another id, and tell everybody who asked for it."""
        number = int(self.ids.max()) + 1
        self.ids[place] = number
        for session in tuple(self._sessions):
            await session.give_another_id(place, number)

    # -- the thread

    def _work(self, listener: socket.socket, ready: threading.Event) -> None:
        try:
            with listener:
                asyncio.run(self._serve(listener, ready))
        except BaseException as error:  # noqa: BLE001 -- `close` raises it, where it is noticed
            self._failure = error
        finally:
            self._finished.set()
            ready.set()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._up = asyncio.Event()
        self._up.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._listener = listener
        await self.let_down()
        work = {self._spawn(self._accept()), self._spawn(self._drive())}
        stopping = asyncio.ensure_future(self._stopping.wait())
        ready.set()
        done, _ = await asyncio.wait({stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
        for session in tuple(self._sessions):
            session.abandon()
        for task in (stopping, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in done & work:
            task.result()

    def _stop(self) -> None:
        self._stopping.set()

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._up.wait()
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in _PASSING:
                    await asyncio.sleep(_PASSING_S)
                elif self._up.is_set():
                    raise
                continue
            if self._connection_limit.admits():
                self._spawn(self._attend(client))
            else:
                client.close()

    async def let_down(self) -> None:
        """Cut everybody off and refuse connections for a while, where the script says so."""
        fault = self.script.take(("listener_down",))
        if fault is None:
            return
        for session in tuple(self._sessions):
            await session.channel.flush()
            session.close(fault.kind, reset=True)
        self._up.clear()
        # It stops listening and keeps its port: nobody else can take it meanwhile.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.begin_outage(fault.outage_s)
        self._spawn(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(_DOWN_S)
        await self._answering.wait()
        self._listener.listen(_BACKLOG)
        self._up.set()

    async def _attend(self, client: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=client)
            channel = Channel(reader, writer)
        except OSError:
            # It was gone before it was looked at.
            client.close()
            return
        journal = Connection(len(self.connections) + 1, self.market.now())
        self.connections.append(journal)
        session = Session(self, channel, journal)
        self._sessions.add(session)
        heart = self._spawn(session.keep_alive())
        try:
            await self.until_answering()
            journal.opened = self.market.now()
            await session.run()
        finally:
            heart.cancel()
            session.close("gateway closed")
            await session.channel.gone()
            self._sessions.discard(session)
            self.change()

    # -- the market

    def _streaming(self) -> list[Session]:
        return [session for session in self._sessions if session.live]

    def _in_outage(self) -> bool:
        return self._outage_until > self.market.now()

    def _may_move(self) -> bool:
        streaming = len(self._streaming())
        self._begun = self._begun or streaming >= self._wait_for
        return (
            self._in_outage() or (self._begun and not self._hold) or (self._begun and streaming > 0)
        )

    async def _drive(self) -> None:
        while True:
            self._changed.clear()
            if not self._may_move():
                self.market.hold()
                await self._changed.wait()
                continue
            opening = self._opening()
            instant = self._next_instant(opening)
            if instant is None:
                await self._at_the_end()
            elif await self._pace(instant, jumps=instant == opening):
                await self._advance(instant, jumps=instant == opening)

    def _opening(self) -> int | None:
        return self.schedule.opening(self.market.now()) if self._skip_closed else None

    def _next_instant(self, opening: int | None) -> int | None:
        due = self.schedule.peek()
        if due is None and not self._in_outage():
            return None
        instants = [session.heartbeat_at() for session in self._streaming()]
        if opening is not None:
            instants = [opening]
        elif due is not None:
            instants.append(due)
        if self._in_outage():
            instants.append(self._outage_until)
        fault_at = self.script.next_instant()
        if fault_at is not None:
            instants.append(fault_at)
        return max(min(instants), self.market.now())

    async def _pace(self, instant: int, *, jumps: bool) -> bool:
        """Wait for an instant; return whether it has come with nothing changed before."""
        unpaced = self._hold and not self._streaming()
        left = self.market.head_for(instant)
        if left <= 0 or unpaced or jumps:
            await asyncio.sleep(0)
            return True
        handle = asyncio.get_running_loop().call_later(left, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            handle.cancel()
        return self.market.head_for(instant) <= 0

    async def _advance(self, instant: int, *, jumps: bool) -> None:
        self.market.reach(instant, jumps=jumps)
        if not self._in_outage():
            self._answering.set()
        self.script.arm(now=instant)
        due = self.schedule.take(instant)
        for session in self._streaming():
            await session.deliver(due)
        for end in self._announced(due.ends):
            closing = Closing(end, due.bars.stop, due.trades.stop)
            for session in self._sessions:
                session.note(closing)
        # Whoever has gone live meanwhile is told as well.
        for session in self._streaming():
            await session.announce()
            await session.heartbeat(forced=jumps)
        await self._let_happen()

    def _announced(self, ends: Iterable[int]) -> list[int]:
        """Return the intervals to close now: the script withholds or delays some."""
        announced = []
        for end in ends:
            fault = self.script.take(("no_eoi", "late_eoi"))
            if fault is None:
                announced.append(end)
            elif fault.kind == "late_eoi":
                self.schedule.postpone(end, self.market.now() + seconds(fault.delay_s))
        return announced

    async def _let_happen(self) -> None:
        """Let what is due happen to everybody who streams."""
        await self.let_down()
        while streaming := self._streaming():
            fault = self.script.take(STREAM_FAULTS)
            if fault is None:
                return
            # An instrument gets another id once, and everybody is told.
            sufferers = streaming[:1] if fault.kind == "mapping_change" else streaming
            for session in sufferers:
                if session.live:
                    await session.suffer(fault)

    async def _at_the_end(self) -> None:
        """Say that all was sent, then close or go on with heartbeats."""
        for session in self._streaming():
            await session.channel.flush()
        if self.schedule.peek() is not None:
            return
        self._finished.set()
        streaming = self._streaming()
        fault_at = self.script.next_instant()
        if not streaming and (self._hold or fault_at is None):
            self.market.hold()
            await self._changed.wait()
            return
        beats = [session.heartbeat_at() for session in streaming]
        closes = self._at_end == "close" and fault_at is None
        instant = max(beats) if closes else min([*beats, *([] if fault_at is None else [fault_at])])
        if math.isinf(self.speed) and self._at_end == "hold" and fault_at is None:
            await asyncio.sleep(_IDLE_S)
        if not await self._pace(max(instant, self.market.now()), jumps=False):
            return
        self.market.reach(instant)
        self.script.arm(now=instant)
        for session in streaming:
            if closes:
                await session.channel.flush()
                session.close("end of data")
            else:
                await session.heartbeat()
        await self._let_happen()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        # A port that is asked for by number is kept while the listener is down.
        listener.bind((host, port or _free_port(host, family)))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "the gateway cannot listen there; take another port, or 0 for a free one",
            field="port",
            found=f"{host}:{port}: {error.strerror}",
            expected="a free port",
        ) from None
    return listener


def _free_port(host: str, family: int) -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check_host(host: str) -> None:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            "the gateway serves this machine only: its protocol is not encrypted",
            field="host",
            found=repr(host),
            expected="a loopback address such as 127.0.0.1",
        )


def _check_settings(
    *, port: int, speed: float, bar_delay_s: float, eoi_delay_s: float, at_end: str
) -> None:
    is_speed = 0 < speed <= _FASTEST or speed == math.inf
    checks = (
        (0 <= port <= _LAST_PORT, "port", port, f"0 to {_LAST_PORT}"),
        (is_speed, "speed", speed, f"more than 0, up to {_FASTEST:.0e}, or inf"),
        (bar_delay_s >= 0, "bar_delay_s", bar_delay_s, "0 or more"),
        (eoi_delay_s >= bar_delay_s, "eoi_delay_s", eoi_delay_s, "at least bar_delay_s"),
        (at_end in {"hold", "close"}, "at_end", at_end, '"hold" or "close"'),
    )
    for allowed, name, found, expected in checks:
        if not allowed:
            raise ConfigError(
                "not an allowed value", field=name, found=str(found), expected=expected
            )


def _check_fault(fault: Fault, data: GatewayData) -> None:
    """Refuse a fault that could never happen: without bars there is none to count or to spoil."""
    if len(data.frame) or (fault.after_bars is None and fault.kind not in BAR_FAULTS):
        return
    raise ConfigError(
        "the data has no bars, so this fault would never happen; give it an instant with `at`",
        field="fault",
        found=fault.kind if fault.after_bars is None else f"{fault.kind} after_bars",
        expected=f"data with bars, or a fault other than {', '.join(BAR_FAULTS)}",
    )
