"""One client's session: its handshake, its subscriptions, its replay and its part of the stream."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clustercore.errors import DataError
from clustercore.gateway import protocol, records
from clustercore.gateway.channel import Channel
from clustercore.gateway.disturbances import Sample, disturb
from clustercore.gateway.faults import (
    BAR_FAULTS,
    CONNECTION_FAULTS,
    HARMLESS_FAULTS,
    STREAM_FAULTS,
    Fault,
    FaultScript,
)
from clustercore.gateway.limits import RateLimit
from clustercore.gateway.market import Closing, Due, MarketTime, Schedule, seconds
from clustercore.gateway.records import BARS, TRADES, GatewayData
from clustercore.gateway.symbols import STYPES, Resolver

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Connection", "Desk", "Session"]

HEARTBEAT, SUBSCRIBED, SLOW_READER, REPLAYED, END_OF_INTERVAL = 0, 1, 2, 3, 4
BAD_SUBSCRIPTION, UNRESOLVED, AGED_OUT = 5, 4, 8
_REPLAY_ROWS = 8192
_TRADE_ROWS = 65_536
# A client that leaves more than this unread is warned, and later cut off.
_UNREAD = 1 << 18
_MOST_UNREAD = 1 << 26
_MID_RECORD = 20
_NOBODY = np.zeros(0, dtype=np.int64)
# How often a session that is not live yet is looked at, real seconds.
_LOOK_S = 0.25
_NEXT_BAR_FAULTS = ("drop_bar", "fin_mid_record", "reorder", "unknown_rtype_beside_bar")
_GREETING = f"lsg_version={protocol.LSG_VERSION}\n".encode()
# What faults send in place of the first line, and then nothing.
_FIRST_LINES = {
    "accept_then_close": b"",
    "garbage_greeting": b"#!garbage\n",
    "greeting_without_equals": _GREETING.replace(b"=", b""),
    "silence": b"",
    "silence_after_greeting": _GREETING,
}
# What they put behind the answer to a key.
_REPLY_ENDS = {"extra_auth_field": "|plan=standard", "trailing_pipe": "|"}


@dataclass
class Connection:
    """What one client did, for the journal.

    Attributes
    ----------
    number : int
        Which connection it was, from 1.
    opened : int
        Market time of its greeting, ns UTC.
    client, dataset : str
        What it said it was, and wanted.
    ts_out, zstd : bool
        The form of stream it asked for.
    heartbeat_interval_s : int
        Its heartbeat interval.
    subscriptions : list of SubscriptionLine
        Its subscriptions, line by line.
    started : int or None
        Market time at which it started its session.
    replayed, live_bars : int
        Rows replayed to it, and bars sent live.
    ended : str
        How it ended: ``client`` where the client went, otherwise what the gateway did.
    faults : list of str
        The faults it met.
    """

    number: int
    opened: int
    client: str = ""
    dataset: str = ""
    ts_out: bool = False
    zstd: bool = False
    heartbeat_interval_s: int = 30
    subscriptions: list[protocol.SubscriptionLine] = field(default_factory=list)
    started: int | None = None
    replayed: int = 0
    live_bars: int = 0
    ended: str = ""
    faults: list[str] = field(default_factory=list)


class Desk(Protocol):
    """What a session needs of its gateway."""

    key: str
    dataset: str
    data: GatewayData
    speed: float
    max_sessions: int
    auth_timeout_s: float
    replay_limit_ns: int
    subscriptions_per_s: int | None
    market: MarketTime
    schedule: Schedule
    resolver: Resolver
    script: FaultScript
    ids: NDArray[np.uint32]
    live_bars: int

    def change(self) -> None:
        """Look again at who is there and what is due."""

    def begin_outage(self, outage_s: float) -> None:
        """Let market time pass before anybody is answered again."""

    async def until_answering(self) -> None:
        """Wait for the end of an outage."""

    def open_sessions(self) -> int:
        """Return how many sessions are authenticated."""

    async def let_down(self) -> None:
        """Cut everybody off and refuse connections for a while, where the script says so."""

    async def give_another_id(self, place: int) -> None:
        """Give an instrument another id, and tell everybody who asked for it."""


@dataclass
class _Subscription:
    schema: str
    start: int | None
    # What each of its symbols means.
    places: dict[str, list[int]]
    mask: NDArray[np.bool_]


class Session:
    """A client's session.

    Parameters
    ----------
    desk : Desk
        The gateway.
    channel : Channel
        The client's socket.
    connection : Connection
        Its line of the journal.
    """

    def __init__(self, desk: Desk, channel: Channel, connection: Connection) -> None:
        self.desk = desk
        self.channel = channel
        self.journal = connection
        self.live = False
        self.authenticated = False
        self._broken = False
        self.outage_at_end = 0.0
        self._subscriptions: list[_Subscription] = []
        self._partial: dict[int, list[str]] = {}
        nothing = np.zeros(len(desk.schedule.symbols), dtype=np.bool_)
        self._masks = {BARS: nothing, TRADES: nothing}
        self._subscription_limit = RateLimit(
            desk.subscriptions_per_s, desk.market.now, "subscriptions_per_s"
        )
        self._heartbeat_ns = seconds(connection.heartbeat_interval_s)
        self._last_sent = connection.opened
        self._last_written = time.monotonic()
        self._begun = False
        self._ids = desk.ids
        self._closings: deque[Closing] = deque()
        self._takes_closings = False
        self._warned = False
        self._expected: list[Fault] = []
        self._withheld: int | None = None

    async def send(self, content: bytes) -> None:
        """Send records; a client that does not keep up is waited for, or warned and cut off.

        A market without a pace waits for its readers, and a replay for its own. A market with a
        pace waits for nobody.
        """
        if self._broken:
            return
        self._last_sent = self.desk.market.now()
        self._last_written = time.monotonic()
        await self.channel.send(content)
        waiting = self.channel.waiting
        if waiting <= _UNREAD:
            self._warned = False
        elif math.isinf(self.desk.speed) or not self.live:
            await self.channel.drain()
        elif waiting > _MOST_UNREAD:
            self.close("slow reader", reset=True)
        elif not self._warned:
            self._warned = True
            self.channel.write(self.system(SLOW_READER, "Slow reader detected"))

    def close(self, reason: str, *, reset: bool = False) -> None:
        """End the session, with FIN or with RST."""
        if self.channel.closed:
            return
        self.journal.ended = reason
        self.live = False
        self.authenticated = False
        self.channel.close(reset=reset)
        self.desk.begin_outage(self.outage_at_end)

    def abandon(self) -> None:
        """End the session without sending what still waits."""
        self.close("gateway closed")
        self.channel.abort()

    def break_off(self, outage_s: float) -> None:
        """Send nothing any more and leave the socket open: the client has to notice."""
        self._broken = True
        self.live = False
        self.outage_at_end = outage_s
        self.desk.change()

    # -- handshake and subscriptions

    async def run(self) -> None:
        """Serve the client until it goes or is sent away."""
        try:
            if await self._handshake():
                await self._listen()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except DataError as error:
            await self._refuse(str(error))
        finally:
            self.close("client")

    async def _refuse(self, text: str) -> None:
        """Say what was wrong in the words of the phase: a line of text, or a record."""
        if not self.authenticated:
            self.channel.write(f"success=0|error={text}\n".encode())
            self.close(text)
            return
        if not self._begun:
            self._begin_records()
        await self.fatal(BAD_SUBSCRIPTION, text)

    async def _handshake(self) -> bool:
        fault = self.desk.script.take(CONNECTION_FAULTS)
        kind = "" if fault is None else fault.kind
        if fault is not None:
            self._meet(fault)
        if not await self._greet(kind):
            return False
        challenge = secrets.token_hex(16)
        self.channel.write(f"cram={challenge}\n".encode())
        asked = protocol.authentication_of(await self._answer())
        if fault is not None and kind == "slow_auth":
            self.desk.begin_outage(fault.delay_s)
            await self.desk.until_answering()
        if kind == "close_before_auth_reply":
            self.close(kind)
            return False
        refusal = self._refusal(asked, challenge, kind)
        if refusal:
            self.channel.write(f"success=0|error={refusal}\n".encode())
            self.close(refusal)
            return False
        self._accept(asked, _REPLY_ENDS.get(kind, ""))
        return await self._until_started(kind)

    def _meet(self, fault: Fault) -> None:
        """Begin the outage of a fault: at once where it ends the session at once."""
        self.journal.faults.append(fault.kind)
        if "close" in fault.kind or "reject" in fault.kind:
            self.desk.begin_outage(fault.outage_s)
        elif fault.kind not in HARMLESS_FAULTS:
            self.outage_at_end = fault.outage_s

    async def _greet(self, kind: str) -> bool:
        """Send the first line, or what a fault makes of it; return whether the session goes on."""
        self.channel.write(_FIRST_LINES.get(kind, _GREETING))
        if "close_after" in kind or kind == "accept_then_close":
            self.close(kind)
            return False
        if kind in _FIRST_LINES:
            # The client goes, at once or when it has waited long enough.
            while await self.channel.reader.read(_UNREAD):
                pass
            return False
        return True

    async def _answer(self) -> bytes:
        """Return the line that answers the challenge; who does not answer is not waited for."""
        try:
            async with asyncio.timeout(self.desk.auth_timeout_s):
                return await self.channel.line()
        except TimeoutError:
            self.close("no answer to the challenge")
            raise ConnectionAbortedError from None

    def _refusal(self, asked: protocol.Authentication, challenge: str, kind: str) -> str:
        if kind == "limit_reject" or self.desk.open_sessions() >= self.desk.max_sessions:
            return protocol.LIMIT_TEXT
        proved = protocol.is_answer(asked.answer, challenge, self.desk.key)
        if kind == "auth_reject" or not proved:
            return protocol.UNAUTHORISED_TEXT
        if asked.dataset != self.desk.dataset:
            return f"Invalid dataset {asked.dataset}, this gateway serves {self.desk.dataset}"
        return ""

    def _accept(self, asked: protocol.Authentication, end: str) -> None:
        self.authenticated = True
        self.journal.client = asked.client
        self.journal.dataset = asked.dataset
        self.journal.ts_out = asked.ts_out
        self.journal.zstd = asked.zstd
        self.journal.heartbeat_interval_s = asked.heartbeat_interval_s
        self._heartbeat_ns = seconds(asked.heartbeat_interval_s)
        self.channel.write(f"success=1|session_id={1000 + self.journal.number}{end}\n".encode())
        if asked.zstd:
            self.channel.compress()

    async def _until_started(self, fault: str) -> bool:
        """Take subscriptions until the session is started, then send what it begins with."""
        waiting: list[protocol.SubscriptionLine] = []
        while True:
            fields = protocol.fields_of(await self.channel.line())
            if "start_session" in fields:
                break
            waiting.append(protocol.subscription_of(fields))
        self.journal.started = self.desk.market.now()
        if fault == "freeze_before_metadata":
            self.break_off(self.outage_at_end)
            return True
        self._begin_records(fault)
        if fault in {"bad_header", "freeze_after_metadata", "future_version"}:
            self.break_off(self.outage_at_end)
            return True
        for line in waiting:
            await self._subscribe(line, replay=True)
        await self._tell_the_market()
        if not self.channel.closed:
            await self._catch_up()
        return not self.channel.closed

    def _begin_records(self, fault: str = "") -> None:
        """Send the header, or what a fault makes of it."""
        self._begun = True
        self._ids = self.desk.ids.copy()
        header = records.encode_metadata(
            start=self.desk.market.now(),
            ts_out=self.journal.ts_out,
            version=9 if fault == "future_version" else 3,
            symbols=["OTHER"] if fault == "other_metadata" else [],
        )
        self.channel.write(header[::-1] if fault == "bad_header" else header)

    async def _tell_the_market(self) -> None:
        """Say what a rehearsal has to know and a real gateway has no need to say."""
        told = f"speed={self.desk.speed:g}{' simulated' if self.desk.data.simulated else ''}"
        if not self.channel.closed:
            await self.send(self.system(HEARTBEAT, told))

    async def _listen(self) -> None:
        """Take the subscriptions that come after the start, until the client goes."""
        while not self.channel.closed:
            line = await self.channel.line()
            if not self._broken:
                subscription = protocol.subscription_of(protocol.fields_of(line))
                await self._subscribe(subscription, replay=False)

    async def _subscribe(self, line: protocol.SubscriptionLine, *, replay: bool) -> None:
        self.journal.subscriptions.append(line)
        symbols = self._partial.setdefault(line.number, [])
        symbols += line.symbols
        if not line.is_last:
            return
        await self._subscription_limit.wait()
        del self._partial[line.number]
        problem = self._problem_of(line, symbols)
        if problem:
            await self.fatal(BAD_SUBSCRIPTION, problem)
            return
        start = line.start if replay else None
        subscription = self._resolved(line, symbols, start)
        self._masks[line.schema] = self._masks[line.schema] | subscription.mask
        await self.send(self._acknowledgement(line, subscription))
        now = self.desk.market.now()
        if start is not None and 0 < start < now - self.desk.replay_limit_ns:
            # Who has to ask history instead has to know how late it is.
            await self._tell_the_market()
            window = timedelta(seconds=self.desk.replay_limit_ns // 10**9)
            await self.fatal(AGED_OUT, f"Replay start is more than {window} ago")
            return
        self._subscriptions.append(subscription)

    def _problem_of(self, line: protocol.SubscriptionLine, symbols: list[str]) -> str:
        if line.schema not in self._masks:
            return f"Invalid schema {line.schema}"
        if line.stype_in not in STYPES:
            return f"Invalid stype_in {line.stype_in}"
        if line.snapshot:
            return f"Snapshot is not available for schema {line.schema}"
        return "" if symbols else f"No symbols in subscription request {line.number}"

    def _resolved(
        self, line: protocol.SubscriptionLine, symbols: list[str], start: int | None
    ) -> _Subscription:
        now = self.desk.market.now()
        places = {
            symbol: self.desk.resolver.resolve(symbol, line.stype_in, now) for symbol in symbols
        }
        mask = np.zeros(len(self.desk.schedule.symbols), dtype=np.bool_)
        mask[[place for found in places.values() for place in found]] = True
        return _Subscription(line.schema, start, places, mask)

    def _acknowledgement(
        self, line: protocol.SubscriptionLine, subscription: _Subscription
    ) -> bytes:
        text = f"Subscription request {line.number} for {line.schema} data succeeded"
        content = [self.system(SUBSCRIBED, text)]
        for symbol, places in subscription.places.items():
            if not places:
                content.append(self.error(UNRESOLVED, f"Failed to resolve symbol: {symbol}"))
            content += [self.mapping(place, symbol) for place in places]
        return b"".join(content)

    # -- messages

    def _stamp(self) -> int | None:
        return self.desk.market.now() if self.journal.ts_out else None

    def system(self, code: int, text: str, at: int | None = None) -> bytes:
        """Return a message of the gateway; `at` is what it is about, the time if left out."""
        now = self.desk.market.now() if at is None else at
        return records.encode_system(code, text, now, self._stamp())

    def error(self, code: int, text: str) -> bytes:
        """Return an error message."""
        return records.encode_error(code, text, self.desk.market.now(), self._stamp())

    def mapping(self, place: int, asked: str) -> bytes:
        """Return the mapping of what was asked for to an instrument, by its place."""
        raw = self.desk.schedule.symbols[place]
        if asked == "ALL_SYMBOLS":
            asked = raw
        now = self.desk.market.now()
        return records.encode_mapping(int(self._ids[place]), asked, raw, now, self._stamp())

    async def give_another_id(self, place: int, number: int) -> None:
        """Tell the client another id of an instrument, once for each time that it asked for it.

        The records after the message have the new id, and none before it.
        """
        if not self._begun:
            return
        before, self._ids = self._ids, self._ids.copy()
        self._ids[place] = number
        content = b"".join(
            self.mapping(place, symbol)
            for subscription in self._subscriptions
            for symbol, places in subscription.places.items()
            if place in places
        )
        after, self._ids = self._ids, before
        if content:
            await self.send(content)
        self._ids = after

    async def fatal(self, code: int, text: str, outage_s: float = 0.0) -> None:
        """Send an error that ends the session, then FIN."""
        await self.send(self.error(code, text))
        await self.channel.flush()
        self.desk.begin_outage(outage_s)
        self.close(f"error {code}")

    def heartbeat_at(self) -> int:
        """Return when a heartbeat is due unless something else is sent before."""
        return self._last_sent + self._heartbeat_ns

    async def heartbeat(self, *, forced: bool = False) -> None:
        """Send a heartbeat if one is due."""
        if forced or self.heartbeat_at() <= self.desk.market.now():
            await self.send(self.system(HEARTBEAT, "Heartbeat"))

    async def keep_alive(self) -> None:
        """Send heartbeats in real time too, as long as somebody runs this.

        A client counts the seconds of this machine until it gives a silent gateway up, and a market
        may be slower than these, or stand still.
        """
        while True:
            left = self._last_written + self.journal.heartbeat_interval_s - time.monotonic()
            if left <= 0 and self.live:
                await self.send(self.system(HEARTBEAT, "Heartbeat"))
            await asyncio.sleep(left if left > 0 and self.live else _LOOK_S)

    # -- replay

    async def _catch_up(self) -> None:
        """Replay, then send what was sent to others meanwhile, and go live with nothing between."""
        begun = self._released()
        self._takes_closings = True
        replayed: set[str] = set()
        for subscription in self._subscriptions:
            if subscription.start is None:
                continue
            schema, until = subscription.schema, begun[subscription.schema]
            oldest = max(subscription.start, self.desk.market.now() - self.desk.replay_limit_ns)
            await self._replay(schema, oldest, until, subscription.mask)
            replayed.add(schema)
        for schema in sorted(replayed):
            await self.send(self.system(REPLAYED, f"Finished {schema} replay"))
        sent = dict(begun)
        while not self.channel.closed:
            while self._closings:
                closing = self._closings[0]
                await self._send_up_to(sent, {BARS: closing.bars, TRADES: closing.trades})
                await self._close_interval()
            released = self._released()
            if released == sent and not self._closings:
                break
            await self._send_up_to(sent, released)
        if self.channel.closed or self._broken:
            return
        self.live = True
        self.desk.script.arm(bars=self.desk.live_bars)
        await self._happenings()
        self.desk.change()

    def _released(self) -> dict[str, int]:
        schedule = self.desk.schedule
        return {BARS: schedule.released_bars, TRADES: schedule.released_trades}

    async def _send_up_to(self, sent: dict[str, int], released: dict[str, int]) -> None:
        """Send the rows between two places of the schedule."""
        for schema, until in released.items():
            if until > sent[schema]:
                rows = self._rows(schema, slice(sent[schema], until), self._masks[schema])
                sent[schema] = until
                await self._replay_rows(schema, rows)

    async def _replay(self, schema: str, oldest: int, until: int, mask: NDArray[np.bool_]) -> None:
        """Send what happened from an instant on, up to a row."""
        columns = self.desk.schedule.bars if schema == BARS else self.desk.schedule.trades
        # Trades are in the order of their receipt, and asked for by the exchange's time: among
        # those received after a time there are some of before.
        asked = np.flatnonzero(columns["ts_event"][:until] >= oldest)
        codes = self._codes(schema)
        await self._replay_rows(schema, asked[mask[codes[asked]]])

    async def _replay_rows(self, schema: str, rows: NDArray[np.int64]) -> None:
        for begin in range(0, len(rows), _REPLAY_ROWS):
            if self.channel.closed:
                return
            part = rows[begin : begin + _REPLAY_ROWS]
            self.journal.replayed += len(part)
            await self.send(self._replayed(schema, part))

    def _replayed(self, schema: str, rows: NDArray[np.int64]) -> bytes:
        if schema == BARS:
            return self.bars(rows).tobytes()
        block = self._trades(rows)
        if self.journal.ts_out:
            block["ts_out"] = self.desk.market.now()
        return block.tobytes()

    def _rows(self, schema: str, rows: slice, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        codes = self._codes(schema)
        found: NDArray[np.int64] = np.flatnonzero(mask[codes[rows]]) + rows.start
        return found

    def _codes(self, schema: str) -> NDArray[np.int32]:
        schedule = self.desk.schedule
        return schedule.bar_codes if schema == BARS else schedule.trade_codes

    def bars(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return bars as records sent now."""
        schedule = self.desk.schedule
        ids = self._ids[schedule.bar_codes[rows]]
        return records.encode_bars(schedule.bars, rows, ids, self._stamp())

    def bars_until(self, row: int) -> NDArray[np.int64]:
        """Return the rows of this session's bars up to and including one."""
        return self._rows(BARS, slice(0, row + 1), self._masks[BARS])

    def _trades(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return trades as records sent when they were received."""
        schedule = self.desk.schedule
        ids = self._ids[schedule.trade_codes[rows]]
        return records.encode_trades(schedule.trades, rows, ids, ts_out=self.journal.ts_out)

    # -- live

    async def deliver(self, due: Due) -> None:
        """Send this session's part of what is due."""
        await self._deliver_trades(due.trades)
        await self._deliver_bars(due.bars)

    def note(self, closing: Closing) -> None:
        """Take note of an interval that was closed, to be announced behind its bars."""
        if self._takes_closings and not self._broken:
            self._closings.append(closing)

    async def announce(self) -> None:
        """Say that the intervals noted so far are closed."""
        while self._closings and self.live:
            await self._close_interval()

    async def _close_interval(self) -> None:
        closing = self._closings.popleft()
        if self._masks[BARS].any():
            await self.send(
                self.system(END_OF_INTERVAL, f"End of interval for {BARS}", closing.end)
            )

    async def _deliver_trades(self, due: slice) -> None:
        if not self._masks[TRADES].any():
            return
        for begin in range(due.start, due.stop, _TRADE_ROWS):
            part = slice(begin, min(begin + _TRADE_ROWS, due.stop))
            rows = self._rows(TRADES, part, self._masks[TRADES])
            if self.live and len(rows):
                await self.send(self._trades(rows).tobytes())

    async def _deliver_bars(self, due: slice) -> None:
        rows = self._rows(BARS, due, self._masks[BARS]) if due.stop > due.start else _NOBODY
        place = 0
        while self.live and place < len(rows):
            if self._expected:
                await self._next_bar(int(rows[place]))
                place += 1
                continue
            limit = self.desk.script.next_bars()
            room = len(rows) - place
            if limit is not None:
                room = min(room, max(limit - self.desk.live_bars, 1))
            await self._send_bars(rows[place : place + room])
            place += room

    async def _send_bars(self, rows: NDArray[np.int64]) -> None:
        await self.send(self.bars(rows).tobytes())
        if self._withheld is not None:
            late, self._withheld = self._withheld, None
            await self.send(self.bars(np.array([late])).tobytes())
        self.journal.live_bars += len(rows)
        self.desk.live_bars += len(rows)
        self.desk.script.arm(bars=self.desk.live_bars)
        await self._happenings(int(rows[-1]))

    # -- faults

    async def _happenings(self, row: int | None = None) -> None:
        """Let every fault of the stream that is due happen to this session."""
        await self.desk.let_down()
        while self.live:
            fault = self.desk.script.take(STREAM_FAULTS)
            if fault is None:
                return
            await self.suffer(fault, row)

    async def suffer(self, fault: Fault, row: int | None = None) -> None:
        """Let a fault happen; `row` is the bar sent last.

        A fault of bars does not happen to a session that takes none.
        """
        if fault.kind in BAR_FAULTS and not self._masks[BARS].any():
            return
        self.journal.faults.append(fault.kind)
        if fault.kind in _NEXT_BAR_FAULTS:
            self._expected.append(fault)
        else:
            await disturb(self, fault, self._sample() if row is None else Sample(BARS, row))

    def _sample(self) -> Sample:
        """Return the newest bar of this session, or trade; the first where there was none yet."""
        for schema, released in self._released().items():
            rows = self._rows(schema, slice(0, len(self._codes(schema))), self._masks[schema])
            if len(rows):
                sent = int(np.searchsorted(rows, released))
                return Sample(schema, int(rows[max(sent - 1, 0)]))
        return Sample(BARS if len(self._codes(BARS)) else TRADES, 0)

    def encoded(self, sample: Sample) -> NDArray[Any]:
        """Return the record of a sample."""
        rows = np.array([sample.row])
        return self.bars(rows) if sample.schema == BARS else self._trades(rows)

    def place_of(self, sample: Sample) -> int:
        """Return which instrument a sample is of."""
        return int(self._codes(sample.schema)[sample.row])

    async def _next_bar(self, row: int) -> None:
        """Handle a bar that a fault waits for; one that is dropped is simply not sent."""
        fault = self._expected.pop(0)
        if fault.kind == "reorder":
            self._withheld = row
        elif fault.kind == "fin_mid_record":
            await self.send(self.bars(np.array([row])).tobytes()[:_MID_RECORD])
            await self.channel.flush()
            self.desk.begin_outage(fault.outage_s)
            self.close(fault.kind)
        elif fault.kind == "unknown_rtype_beside_bar":
            await disturb(self, fault, Sample(BARS, row))
