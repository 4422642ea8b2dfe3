"""One connection to the live gateway, through the vendor's client; the only module that knows it.

The client keeps nothing across sessions that could be relied on, so a connection is used once: its
own client, its own event loop on its own thread, and an explicit end. What it hears is put into a
queue as bytes and decoded by whoever takes it. Every end that we did not ask for is a loss, a
normal return included.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from clustercore.live import messages as msg
from clustercore.live.vendor import import_databento, record_decoder

if TYPE_CHECKING:
    from clustercore.live.key import Key
    from clustercore.live.settings import LiveSettings

__all__ = ["Connection", "Subscription"]

_LOG = logging.getLogger(__name__)
_PERMANENT = re.compile(
    r"authentication failed|deactivated|invalid subscription|no entitlement", re.IGNORECASE
)
_LIMIT = re.compile(r"connection limit", re.IGNORECASE)
_UNDEFINED_TIME = 2**64 - 1


@dataclass(frozen=True)
class Subscription:
    """What is asked for: ``start`` replays from there, inclusive; None begins now."""

    schema: str
    symbols: tuple[str, ...]
    stype_in: str
    start: int | None = None


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that remembers its connections: one cancelled while it logs in would leak."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[Any] = []
        self.is_closing = False

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if self.is_closing:
            raise ConnectionAbortedError("closed by us")
        transport, protocol = await super().create_connection(*args, **kwargs)
        self.transports.append(transport)
        return transport, protocol


class Connection:
    """A session with the gateway.

    Parameters
    ----------
    key : Key
        The API key.
    settings : LiveSettings
        Gateway, heartbeat, queue limit.
    subscriptions : sequence of Subscription
        What is asked for.
    capture : binary file, optional
        Receives the raw bytes.
    """

    def __init__(
        self,
        key: Key,
        settings: LiveSettings,
        subscriptions: Sequence[Subscription],
        capture: IO[bytes] | None = None,
    ) -> None:
        self._key = key
        self._settings = settings
        self._subscriptions = tuple(subscriptions)
        self._capture = capture
        self._limit = settings.queue_limit
        self._mark = min(settings.queue_mark, self._limit)
        # Blocks of trades as bytes alone; any other record with the stamp of its receipt.
        self._records: collections.deque[bytes | tuple[int, bytes]] = collections.deque()
        self._block = bytearray()
        self._is_wanted = False
        self._received_count = self._taken_count = 0
        self._decoder: Any = None
        self._wake = threading.Event()
        self._end: msg.Lost | None = None
        self._overflow = False
        self._closing = False
        self._fault: BaseException | None = None
        self.started = threading.Event()
        self.depth = 0
        self.is_paced = False
        """Whether reading stops while many records wait, as in a replay that nobody hurries."""
        self._is_paused = False
        self._loop = _Loop()
        self._threads = (
            threading.Thread(target=self._run_loop, name="clustercore-loop", daemon=True),
            threading.Thread(target=self._control, name="clustercore-connection", daemon=True),
        )

    def open(self) -> None:
        """Begin to connect; what comes of it is in ``take``."""
        for thread in self._threads:
            thread.start()

    def take(self, timeout: float, most: int = 50_000) -> list[msg.Message]:
        """Return what has come, waiting up to ``timeout`` real seconds for the first of it.

        After the last record comes one ``Lost``, and then nothing.
        """
        self._is_wanted = True
        if not self._records and self._end is None:
            self._wake.wait(timeout)
        self._wake.clear()
        ended = self._end
        records = self._records
        self.depth = max(self.depth, self.waiting)
        if self._is_paused and len(records) <= most:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._resume_reading)
        taken = self._decoded([records.popleft() for _ in range(min(len(records), most))])
        if ended is not None and not records:
            taken.append(ended)
        return taken

    def _decoded(self, records: Sequence[bytes | tuple[int, bytes]]) -> list[msg.Message]:
        decoded: list[msg.Message] = []
        for record in records:
            if isinstance(record, bytes):
                self._taken_count += len(record) // _length_of(record)
                decoded += _trades(record)
            else:
                self._taken_count += 1
                decoded += self._messages(*record)
        return decoded

    def _messages(self, received: int, data: bytes) -> list[msg.Message]:
        if self._decoder is None:
            # The header; the records that follow are laid out as it says.
            self._decoder = record_decoder(data)
            return []
        try:
            self._decoder.write(data)
            found = self._decoder.decode()
        except BaseException as error:  # noqa: BLE001 -- a panic in the decoder is no Exception
            return [msg.Oddity(f"a record that cannot be decoded: {error}", 0, received)]
        return [_message(received, record) for record in found]

    @property
    def waiting(self) -> int:
        """How many records wait to be taken."""
        return self._received_count - self._taken_count

    def close(self, deadline_s: float = 3.0) -> bool:
        """End the session and its threads; return whether they ended in time."""
        self._closing = self._loop.is_closing = True
        self._cancel()
        until = time.monotonic() + deadline_s
        for thread in reversed(self._threads):
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        if not self._threads[0].is_alive() and not self._loop.is_closed():
            self._loop.close()
        return not any(thread.is_alive() for thread in self._threads)

    # On the loop's thread.

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _received(self, data: bytes) -> None:
        """Take a record; whatever goes wrong must not reach the client, which would swallow it."""
        try:
            if self._overflow:
                return
            self._received_count += 1
            if data[_RTYPE_AT] == _TRADE:
                # Nobody needs a trade before the bar of its minute: they go on in blocks.
                self._block += data
                if len(self._block) < _BLOCK_BYTES and not self._is_wanted:
                    return
                self._seal()
            else:
                self._seal()
                self._records.append((time.monotonic_ns(), data))
            waiting = self.waiting
            if waiting > self._mark:
                if self.is_paced:
                    self._pause_reading()
                if waiting > self._limit:
                    self._overflow = True
                    self._cancel()
            if not self._wake.is_set():
                self._wake.set()
        except BaseException as error:  # noqa: BLE001 -- it must not reach the client
            self._fault = error
            self._cancel()

    def _seal(self) -> None:
        """Put the trades that came so far into the queue."""
        if self._block:
            self._records.append(bytes(self._block))
            self._block.clear()
            self._is_wanted = False

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            for transport in self._loop.transports:
                transport.pause_reading()

    def _resume_reading(self) -> None:
        self._is_paused = False
        for transport in self._loop.transports:
            if not transport.is_closing():
                transport.resume_reading()

    def _failed(self, error: Exception) -> None:
        self._fault = error

    # On the control thread.

    def _control(self) -> None:
        client = None
        reason = ""
        try:
            databento = import_databento()
            client = databento.Live(
                key=self._key.reveal(),
                gateway=self._settings.host,
                port=self._settings.port,
                ts_out=True,
                heartbeat_interval_s=self._settings.heartbeat_s,
                reconnect_policy="none",
                compression=databento.Compression(self._settings.compression),
                loop=self._loop,
            )
            client.add_stream(_Intake(self._received, self._capture), self._failed)
            for wanted in self._subscriptions:
                client.subscribe(
                    self._settings.dataset,
                    wanted.schema,
                    list(wanted.symbols),
                    wanted.stype_in,
                    start=wanted.start,
                )
            client.start()
            self.started.set()
            if not self._closing:
                client.block_for_close()
            reason = "the gateway closed the connection"
        except BaseException as error:  # noqa: BLE001 -- a panic in the decoder is no Exception
            reason = _reason(error)
        finally:
            self._end_with(reason, client)

    def _end_with(self, reason: str, client: Any) -> None:  # noqa: ANN401 -- the vendor's client
        if client is not None:
            with contextlib.suppress(BaseException):
                client.terminate()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._abort_and_stop)
        self._threads[0].join(5.0)
        if not self._threads[0].is_alive():
            self._seal()
        if self._overflow:
            reason = f"more than {self._settings.queue_limit} records waited"
        elif self._fault is not None:
            reason = f"the callback failed: {type(self._fault).__name__}: {self._fault}"
        elif self._closing:
            reason = "closed by us"
        self._end = msg.Lost(
            reason,
            permanent=_PERMANENT.search(reason) is not None,
            slow_retry=_LIMIT.search(reason) is not None,
            overflow=self._overflow,
        )
        self._wake.set()

    def _abort_and_stop(self) -> None:
        for transport in self._loop.transports:
            transport.abort()
        # One more turn of the loop, so that the sockets are closed and not only told so.
        self._loop.call_soon(self._loop.call_soon, self._loop.stop)

    def _cancel(self) -> None:
        """Wake whoever waits inside the client, wherever that is."""

        def cancel() -> None:
            for transport in self._loop.transports:
                transport.abort()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(cancel)


class _Intake:
    """What the client takes for a file: it writes the header and then each record, whole."""

    closed = False

    def __init__(self, take: Callable[[bytes], None], capture: IO[bytes] | None) -> None:
        self._take = take
        self._capture = capture

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._take(data)
        if self._capture is not None:
            self._capture.write(data)
        return len(data)

    def flush(self) -> None:
        if self._capture is not None:
            self._capture.flush()

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""


def _reason(error: BaseException) -> str:
    """Return an error in words; the vendor's own say what they are without their class."""
    kind = type(error).__name__
    if not str(error):
        return kind
    return str(error) if kind == "BentoError" else f"{kind}: {error}"


def _message(received: int, record: Any) -> msg.Message:  # noqa: ANN401 -- one of the vendor's classes
    make = _MESSAGES.get(type(record).__name__)
    sent = getattr(record, "ts_out", None) or 0
    if sent == _UNDEFINED_TIME:
        sent = 0
    if make is None:
        return msg.Oddity(f"a record of type {type(record).__name__}", sent, received)
    try:
        return make(record, sent, received)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        return msg.Oddity(f"{type(record).__name__} is not readable: {error}", sent, received)


def _length_of(record: bytes) -> int:
    """Return the length of the record that begins a block, by its own word."""
    return 4 * record[0] or len(record)


def _trades(block: bytes) -> list[msg.Message]:
    """Return records of trades as columns; those whose times cannot be are said one by one."""
    length = _length_of(block)
    if length < _TRADE_BYTES or len(block) % length:
        return [msg.Oddity(f"{len(block)} bytes of trades of {length} each", 0, 0)]
    layout: np.dtype[Any] = np.dtype({**_TRADE_LAYOUT, "itemsize": length})  # type: ignore[call-overload]
    rows = np.frombuffer(block, layout)
    possible = ((rows["ts_event"] | rows["ts"]) >> _REAL_BITS) == 0
    said: list[msg.Message] = [
        msg.Unreadable(f"a trade of {event % 2**64}, received {received % 2**64}", 0, 0)
        for event, received in rows[~possible][["ts_event", "ts"]].tolist()
    ]
    if (rows["flags"] & _UNCERTAIN_TIME).any():
        said.append(msg.Doubt("trades whose time of receipt the vendor doubts", 0, 0))
    return [*said, msg.MarketTrades(rows if possible.all() else rows[possible])]


def _bar(record: Any, sent: int, received: int) -> msg.Message:  # noqa: ANN401
    if int(record.rtype) != _OHLCV_1M:
        return msg.Oddity(f"bars of another length (rtype {int(record.rtype)})", sent, received)
    if (record.ts_event | record.volume) >> _REAL_BITS:
        text = f"a bar of {record.ts_event} with volume {record.volume}"
        return msg.Unreadable(text, sent, received)
    return msg.MarketBar(
        record.instrument_id,
        record.ts_event,
        record.open,
        record.high,
        record.low,
        record.close,
        record.volume,
        sent,
        received,
    )


def _mapping(record: Any, sent: int, received: int) -> msg.Message:  # noqa: ANN401
    return msg.Mapping(record.instrument_id, str(record.stype_out_symbol), sent, received)


def _error(record: Any, sent: int, received: int) -> msg.Message:  # noqa: ANN401
    return msg.GatewayError(int(record.code), str(record.err), sent, received)


def _system(record: Any, sent: int, received: int) -> msg.Message:  # noqa: ANN401
    code = int(record.code)
    text = str(record.msg)
    if code == _END_OF_INTERVAL and record.ts_event >> _REAL_BITS:
        return msg.Unreadable(f"an interval's end at {record.ts_event}", sent, received)
    if code == _END_OF_INTERVAL:
        return msg.EndOfInterval(record.ts_event, sent, received)
    make = _SYSTEM.get(code)
    return msg.SignOfLife(text, sent, received) if make is None else make(text, sent, received)


_RTYPE_AT: Final = 1
_TRADE: Final = 0
_TRADE_BYTES: Final = 48
# A record of a trade (version 3 of the encoding); whatever follows it is not read.
_TRADE_LAYOUT: Final[dict[str, Any]] = {
    "names": ["instrument_id", "ts_event", "price", "size", "side", "flags", "ts", "sequence"],
    "formats": ["<u4", "<i8", "<i8", "<u4", "u1", "u1", "<i8", "<u4"],
    "offsets": [4, 8, 16, 24, 29, 30, 32, 44],
}
# A block of trades that nobody asked for goes on when it has grown to this.
_BLOCK_BYTES: Final = 1 << 16
_UNCERTAIN_TIME: Final = 8
_OHLCV_1M = 33
# The wire has unsigned times and volumes of 64 bits; nothing before the year 2116 needs the last.
_REAL_BITS = 62
_END_OF_INTERVAL = 4
_SYSTEM: dict[int, Callable[[str, int, int], msg.Message]] = {
    1: msg.Acknowledged,
    2: msg.SlowReader,
    3: msg.ReplayCompleted,
}
_MESSAGES: dict[str, Callable[[Any, int, int], msg.Message]] = {
    "OHLCVMsg": _bar,
    "SymbolMappingMsg": _mapping,
    "ErrorMsg": _error,
    "SystemMsg": _system,
}
