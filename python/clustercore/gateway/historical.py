"""The vendor's historical service, on this machine: the same questions, answers and failures.

It serves what the gateway serves, up to the market time that the gateway has reached. It speaks
TLS, as the vendor's client knows nothing else, and only to this machine.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

import polars as pl

from clustercore.errors import ConfigError
from clustercore.gateway.certificate import Certificate
from clustercore.gateway.protocol import REHEARSAL_KEY
from clustercore.gateway.records import (
    DATASET,
    MINUTE_NS,
    GatewayData,
    encode_bars,
    encode_dbn,
    encode_metadata,
    encode_trades,
)
from clustercore.gateway.symbols import Resolver

__all__ = ["FAULTS", "AskedFor", "HistoricalFault", "HistoricalServer"]

_LOG = logging.getLogger(__name__)
_NANOS: Final = 10**9
_DAY_NS: Final = 86_400 * _NANOS
_CHUNK_BYTES: Final = 1 << 16
_BODY_MOST: Final = 1 << 20
_RECORD_BYTES: Final = {"ohlcv-1m": 56, "trades": 48}
_RANGE: Final = "timeseries.get_range"
_DOCS: Final = "https://databento.com/docs"

FAULTS: Final = {
    "rate_limit": "429 with Retry-After",
    "server_error": "500 with a JSON detail",
    "bad_gateway": "502 with a page of HTML",
    "gateway_timeout": "504",
    "unauthorized": "401",
    "no_funds": "402",
    "no_licence": "403",
    "refused": "422",
    "not_json": "200 with a page of HTML",
    "reset": "the connection is closed before the answer",
    "silent": "no answer until the server closes",
    "drop": "the connection is closed inside the body",
    "truncate": "the body ends early, as if it were whole",
    "cut_record": "the data ends inside a record, in a whole zstd stream",
    "empty": "a body without a byte",
    "metadata_only": "a header and no record",
    "lose_record": "all records but the last",
    "other_span": "records from before the start",
    "other_dataset": "a header of another dataset",
    "warning": "a header X-Warning",
}


@dataclass(frozen=True)
class HistoricalFault:
    """One thing that goes wrong.

    Parameters
    ----------
    kind : str
        A key of ``FAULTS``.
    times : int
        How many requests it meets.
    after : int
        Requests to the endpoint that pass before it.
    endpoint : str
        Which endpoint it meets.
    share : float
        Part of the body that is sent, for ``drop`` and ``truncate``.
    retry_after_s : float or None
        For ``rate_limit``.
    """

    kind: str
    times: int = 1
    after: int = 0
    endpoint: str = _RANGE
    share: float = 0.5
    retry_after_s: float | None = 0.0

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ConfigError(
                "no such fault", field="fault", found=self.kind, expected=", ".join(FAULTS)
            )


class AskedFor(NamedTuple):
    """A request that was answered: the journal of the server."""

    endpoint: str
    parameters: dict[str, str]
    status: int


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False
    # Bytes after which the connection is closed.
    until: int | None = None


class _RefusalError(Exception):
    """A request that the real service would refuse, in its words."""

    def __init__(
        self, status: int, case: str, message: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reply = _refusal(status, case, message, payload)


class HistoricalServer:
    """A loopback server of history.

    Parameters
    ----------
    data : GatewayData
        What there is.
    port : int
        0 for any that is free.
    now : callable, optional
        Market time, ns UTC; by default the end of the data.
    lag_s : float
        How far the end of what is available stays behind market time.
    faults : sequence of HistoricalFault
        What goes wrong.
    key : str
        The API key that is let in.
    conditions : mapping of str to str
        Condition of days, as ``{"2024-12-11": "degraded"}``; every other is available.
    usd_per_gb : float
        Price of 2**30 bytes of records.

    Attributes
    ----------
    port : int
        The port.
    url : str
        Its address for a client.
    certificate : Path
        What a client must trust, PEM.
    requests : list of AskedFor
        What was asked so far.

    Examples
    --------
    >>> from clustercore.gateway.records import sample_parent_data
    >>> with HistoricalServer(sample_parent_data(sessions=1)) as server:
    ...     server.url.startswith("https://127.0.0.1:")
    True
    """

    def __init__(
        self,
        data: GatewayData,
        *,
        port: int = 0,
        now: Callable[[], int] | None = None,
        lag_s: float = 0.0,
        faults: Sequence[HistoricalFault] = (),
        key: str = REHEARSAL_KEY,
        conditions: Mapping[str, str] | None = None,
        usd_per_gb: float = 28.0,
    ) -> None:
        self.requests: list[AskedFor] = []
        self._service = _Service(
            data=data,
            now=now or (lambda: data.span[1]),
            lag_ns=int(lag_s * _NANOS),
            conditions=dict(conditions or {}),
            usd_per_byte=usd_per_gb / 2**30,
        )
        self._key = key
        self._lock = threading.Lock()
        self._faults = list(faults)
        self._seen: dict[str, int] = {}
        self.closing = threading.Event()
        self._certificate = Certificate()
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except OSError as error:
            self._certificate.close()
            raise ConfigError(
                "the historical server cannot listen; choose another port",
                field="historical_port",
                found=f"{port}: {error.strerror}",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="clustercore-historical",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address for a client."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        """What a client must trust, PEM."""
        return self._certificate.path

    def available_end(self) -> int:
        """Return until when history is served, ns UTC, exclusive."""
        return self._service.available_end()

    def inject(self, fault: HistoricalFault) -> None:
        """Let something go wrong from now on."""
        with self._lock:
            self._faults.append(
                replace(fault, after=fault.after + self._seen.get(fault.endpoint, 0))
            )

    def close(self) -> None:
        """Stop, and leave no connection, thread or file."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        self._certificate.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def answer(self, endpoint: str, parameters: dict[str, str], login: str) -> _Reply | None:
        """Return the answer to a request, None for none."""
        fault = self._next_fault(endpoint)
        reply: _Reply | None
        try:
            self._check_login(login)
            reply = _faulty(fault, self._service, endpoint, parameters)
        except _RefusalError as refusal:
            reply = refusal.reply
        with self._lock:
            self.requests.append(AskedFor(endpoint, parameters, reply.status if reply else 0))
        if fault is not None and fault.kind == "silent":
            self.closing.wait()
        return reply

    def context(self) -> Any:  # noqa: ANN401 -- ssl.SSLContext
        """Return what connections are encrypted with."""
        return self._certificate.context

    def _check_login(self, login: str) -> None:
        wanted = "Basic " + base64.b64encode(f"{self._key}:".encode()).decode("ascii")
        if not hmac.compare_digest(login.encode(), wanted.encode()):
            raise _RefusalError(401, "auth_authentication_failed", "Authentication failed.")

    def _next_fault(self, endpoint: str) -> HistoricalFault | None:
        with self._lock:
            seen = self._seen.get(endpoint, 0)
            self._seen[endpoint] = seen + 1
            for place, fault in enumerate(self._faults):
                if fault.endpoint == endpoint and fault.times > 0 and seen >= fault.after:
                    self._faults[place] = replace(fault, times=fault.times - 1)
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    # Threads are waited for when it closes.
    daemon_threads = False

    def __init__(self, address: tuple[str, int], owner: HistoricalServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the handshake is left to the connection's thread, so that nobody waits for it."""
        plain, address = super().get_request()
        plain.settimeout(_Handler.timeout)
        context = self.owner.context()
        connection = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 -- of the library
        """Forget a connection that has ended."""
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End connections that wait for another request."""
        with self._guard:
            waiting = list(self._open)
        for connection in waiting:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *connection: object) -> None:
        """Note that a client went away; it is no fault of ours, and nothing for the console."""
        del connection
        _LOG.debug("a connection to the historical server ended", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0
    # An answer leaves in one piece: a second small one would wait 40 ms for the first's receipt.
    disable_nagle_algorithm = True
    wbufsize = _CHUNK_BYTES
    server: _Server

    def setup(self) -> None:
        self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        self._serve(urlsplit(self.path).query)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > _BODY_MOST:
            self.close_connection = True
            return
        self._serve(self.rfile.read(length).decode("utf-8", "replace"))

    def _serve(self, query: str) -> None:
        endpoint = urlsplit(self.path).path.removeprefix("/v0/")
        parameters = dict(parse_qsl(query))
        login = self.headers.get("Authorization", "")
        reply = self.server.owner.answer(endpoint, parameters, login)
        if reply is None:
            self.close_connection = True
            return
        self._send(reply)

    def _send(self, reply: _Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("request-id", "rehearsal")
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        body = reply.body if reply.until is None else reply.body[: reply.until]
        if reply.chunked:
            for at in range(0, len(body), _CHUNK_BYTES):
                block = body[at : at + _CHUNK_BYTES]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        else:
            self.wfile.write(body)
        if reply.until is not None:
            self.close_connection = True
        elif reply.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        _LOG.debug(format, *args)


@dataclass(frozen=True)
class _Service:
    """The answers, without the network."""

    data: GatewayData
    now: Callable[[], int]
    lag_ns: int
    conditions: Mapping[str, str]
    usd_per_byte: float

    @cached_property
    def resolver(self) -> Resolver:
        return Resolver(self.data)

    def available_start(self) -> int:
        return self.data.span[0] // _DAY_NS * _DAY_NS

    def available_end(self) -> int:
        end = (self.now() - self.lag_ns) // MINUTE_NS * MINUTE_NS
        return max(end, self.available_start())

    def answer(self, endpoint: str, parameters: dict[str, str]) -> _Reply:
        known: dict[str, Callable[[dict[str, str]], Any]] = {
            "metadata.list_datasets": lambda _: [DATASET],
            "metadata.list_schemas": lambda _: self.schemas(),
            "metadata.get_dataset_range": lambda _: self.dataset_range(),
            "metadata.get_dataset_condition": self.condition,
            "metadata.get_record_count": lambda asked: len(self.select(asked)),
            "metadata.get_billable_size": self.billable_size,
            "metadata.get_cost": lambda asked: self.billable_size(asked) * self.usd_per_byte,
            "symbology.resolve": self.resolve,
        }
        if endpoint == _RANGE:
            return _Reply(200, _compressed(self.dbn(parameters)), "application/zstd", chunked=True)
        if endpoint not in known:
            raise _RefusalError(404, "not_found", f"There is no endpoint {endpoint}.")
        if endpoint != "metadata.list_datasets":
            _check_dataset(parameters)
        return _Reply(200, json.dumps(known[endpoint](parameters)).encode())

    def schemas(self) -> list[str]:
        frames = {"ohlcv-1m": self.data.frame, "trades": self.data.trades}
        return [schema for schema, frame in frames.items() if len(frame)]

    def dataset_range(self) -> dict[str, Any]:
        span = {"start": _iso(self.available_start()), "end": _iso(self.available_end())}
        return {**span, "schema": dict.fromkeys(self.schemas(), span)}

    def condition(self, asked: dict[str, str]) -> list[dict[str, str | None]]:
        first = asked.get("start_date") or _date_of(self.available_start()).isoformat()
        last = asked.get("end_date") or _date_of(self.available_end()).isoformat()
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days
        dates = [
            (date.fromisoformat(first) + timedelta(days=day)).isoformat() for day in range(days + 1)
        ]
        return [
            {
                "date": day,
                "condition": self.conditions.get(day, "available"),
                "last_modified_date": day,
            }
            for day in dates
        ]

    def billable_size(self, asked: dict[str, str]) -> int:
        return len(self.select(asked)) * _RECORD_BYTES[asked["schema"]]

    def dbn(self, asked: dict[str, str]) -> bytes:
        start, end = self.span(asked)
        return self.encoded(self.select(asked), asked, start, end)

    def encoded(self, frame: pl.DataFrame, asked: dict[str, str], start: int, end: int) -> bytes:
        texts = _texts(asked)
        if asked.get("stype_in") != "continuous":
            return encode_dbn(
                frame,
                schema=asked["schema"],
                start=start,
                end=end,
                symbols=texts,
                stype_in=asked.get("stype_in", "raw_symbol"),
            )
        ids = self.data.ids
        mappings = [
            (
                text,
                [
                    (first, until, str(ids[raw]))
                    for first, until, raw in self.held(text, start, end)
                ],
            )
            for text in texts
        ]
        header = encode_metadata(
            start=start,
            end=end,
            schema=asked["schema"],
            stype_in="continuous",
            symbols=texts,
            mappings=mappings,
        )
        columns = {name: frame[name].to_numpy() for name in frame.columns if name != "symbol"}
        encode = encode_bars if asked["schema"] == "ohlcv-1m" else encode_trades
        return header + encode(columns, slice(None), columns["instrument_id"]).tobytes()

    def held(self, text: str, start: int, end: int) -> list[tuple[date, date, str]]:
        """Return which month a continuous symbol was on which days, `until` exclusive."""
        spans: list[tuple[date, date, str]] = []
        for at in range(start // _DAY_NS * _DAY_NS, end, _DAY_NS):
            day = _date_of(at)
            following = day + timedelta(days=1)
            for place in self.resolver.resolve(text, "continuous", at):
                raw = self.data.symbols[place]
                if spans and spans[-1][1:] == (day, raw):
                    day = spans.pop()[0]
                spans.append((day, following, raw))
        return spans

    def span(self, asked: dict[str, str]) -> tuple[int, int]:
        _check_dataset(asked)
        if asked.get("schema") not in self.schemas():
            raise _RefusalError(
                422, "data_schema_not_fully_available", f"No data of schema {asked.get('schema')}."
            )
        start = _nanos(asked["start"])
        end = _nanos(asked["end"]) if asked.get("end") else self.available_end()
        if start >= end:
            raise self.out_of_range(
                "data_time_range_start_on_or_after_end",
                f"Invalid time range query, `start` {_iso(start)} must be before "
                f"`end` {_iso(end)}.",
            )
        if end > self.available_end():
            raise self.out_of_range(
                "data_end_after_available_end",
                f"The dataset {DATASET} has data available up to '{_iso(self.available_end())}'. "
                f"The `end` in the query ('{_iso(end)}') is after the available range. "
                "Try requesting with an earlier `end`.",
            )
        if start < self.available_start():
            raise self.out_of_range(
                "data_start_before_available_start",
                f"The dataset {DATASET} has data available from '{_iso(self.available_start())}'. "
                f"The `start` in the query ('{_iso(start)}') is before the available range.",
            )
        return start, end

    def out_of_range(self, case: str, message: str) -> _RefusalError:
        payload = {
            "dataset": DATASET,
            "available_start": _iso(self.available_start()),
            "available_end": _iso(self.available_end()),
        }
        return _RefusalError(422, case, message, payload)

    def select(self, asked: dict[str, str]) -> pl.DataFrame:
        start, end = self.span(asked)
        bars = asked["schema"] == "ohlcv-1m"
        frame = self.data.frame if bars else self.data.trades
        time = "ts_event" if bars else "ts_recv"
        times = frame[time]
        first, until = (times.search_sorted(ts, side="left") for ts in (start, end))
        rows = frame.slice(first, until - first).filter(self.wanted(asked, time, start, end))
        return rows.head(int(asked["limit"])) if asked.get("limit") else rows

    def wanted(self, asked: dict[str, str], time: str, start: int, end: int) -> pl.Expr:
        """Return which rows are those of the symbols that were asked for."""
        tests = []
        if asked.get("stype_in") == "continuous":
            day = pl.col(time).cast(pl.Datetime("ns")).dt.date()
            tests = [
                (pl.col("symbol") == raw) & (day >= first) & (day < until)
                for text in _texts(asked)
                for first, until, raw in self.held(text, start, end)
            ]
        else:
            names = {raw for raws in self.resolved(asked, start).values() for raw in raws}
            tests = [pl.col("symbol").is_in(sorted(names))] if names else []
        if not tests:
            raise _RefusalError(
                422, "symbology_invalid_request", "None of the symbols could be resolved."
            )
        return pl.any_horizontal(tests)

    def resolved(self, asked: dict[str, str], at: int) -> dict[str, list[str]]:
        """Return the raw symbols behind each symbol that was asked for."""
        kind = asked.get("stype_in", "raw_symbol")
        return {
            text: [self.data.symbols[place] for place in self.resolver.resolve(text, kind, at)]
            for text in _texts(asked)
        }

    def resolve(self, asked: dict[str, str]) -> dict[str, Any]:
        first = date.fromisoformat(asked["start_date"])
        until = first + timedelta(days=1)
        if asked.get("end_date"):
            until = date.fromisoformat(asked["end_date"])
        by_id = asked.get("stype_out", "instrument_id") == "instrument_id"
        found: dict[str, list[dict[str, str]]] = {}
        for text, spans in self.resolved_spans(asked, first, until):
            found[text] = [
                {
                    "d0": start.isoformat(),
                    "d1": end.isoformat(),
                    "s": str(self.data.ids[raw]) if by_id else raw,
                }
                for start, end, raw in spans
            ]
        missing = [text for text, spans in found.items() if not spans]
        return {
            "result": {text: spans for text, spans in found.items() if spans},
            "symbols": _texts(asked),
            "stype_in": asked.get("stype_in", "raw_symbol"),
            "stype_out": asked.get("stype_out", "instrument_id"),
            "start_date": first.isoformat(),
            "end_date": until.isoformat(),
            "partial": [],
            "not_found": missing,
            "message": "Not found" if missing else "OK",
            "status": 2 if missing else 0,
        }

    def resolved_spans(
        self, asked: dict[str, str], first: date, until: date
    ) -> list[tuple[str, list[tuple[date, date, str]]]]:
        """Return, by symbol asked for, from when until when it was which raw symbol."""
        start, end = _ts_of(first), _ts_of(until)
        if asked.get("stype_in") == "continuous":
            return [(text, self.held(text, start, end)) for text in _texts(asked)]
        return [
            (text, [(first, until, raw) for raw in raws])
            for text, raws in self.resolved(asked, start).items()
        ]


_HTML: Final = b"<html><body>Service unavailable</body></html>"
_REFUSALS: Final = {
    "rate_limit": (429, "rate_limit_exceeded", "Too many requests."),
    "server_error": (500, "internal_server_error", "An internal error occurred."),
    "gateway_timeout": (504, "gateway_timeout", "The request timed out."),
    "unauthorized": (401, "auth_authentication_failed", "Authentication failed."),
    "no_funds": (402, "account_insufficient_funds", "The account has insufficient funds."),
    "no_licence": (
        403,
        "license_not_found_unauthorized",
        "A live data license is required to access data within the last 24 hours.",
    ),
    "refused": (422, "dataset_unavailable_range", "Part of the requested range is unavailable."),
}


def _faulty(
    fault: HistoricalFault | None, service: _Service, endpoint: str, asked: dict[str, str]
) -> _Reply | None:
    """Return the answer that a fault makes of a good one."""
    kind = "" if fault is None else fault.kind
    if kind in _REFUSALS:
        reply = _refusal(*_REFUSALS[kind])
        after = fault.retry_after_s if fault and kind == "rate_limit" else None
        return reply if after is None else replace(reply, headers=(("Retry-After", f"{after:g}"),))
    if kind in {"reset", "silent"}:
        return None
    if kind in {"not_json", "bad_gateway"}:
        return _Reply(200 if kind == "not_json" else 502, _HTML, "text/html")
    reply = service.answer(endpoint, asked)
    if fault is None:
        return reply
    if kind == "warning":
        text = json.dumps(["Warning: this is a rehearsal", "DeprecationWarning: so is this"])
        return replace(reply, headers=(("X-Warning", text),))
    part = int(len(reply.body) * fault.share)
    bodies: dict[str, Callable[[], _Reply]] = {
        "drop": lambda: replace(reply, until=part),
        "truncate": lambda: replace(reply, body=reply.body[:part]),
        "empty": lambda: replace(reply, body=b""),
    }
    if kind in bodies:
        return bodies[kind]()
    return replace(reply, body=_compressed(_other_data(kind, service, asked)))


def _other_data(kind: str, service: _Service, asked: dict[str, str]) -> bytes:
    start, end = service.span(asked)
    rows = service.select(asked)
    if kind == "metadata_only":
        return service.encoded(rows.head(0), asked, start, end)
    if kind == "lose_record":
        return service.encoded(rows.head(-1), asked, start, end)
    if kind == "cut_record":
        return service.encoded(rows, asked, start, end)[:-1]
    if kind == "other_dataset":
        return service.encoded(rows, asked, start, end).replace(b"GLBX.MDP3", b"XNAS.ITCH", 1)
    time = "ts_event" if asked["schema"] == "ohlcv-1m" else "ts_recv"
    return service.encoded(rows.with_columns(pl.col(time) - _DAY_NS), asked, start, end)


def _compressed(content: bytes) -> bytes:
    import zstandard

    # Without the size in the frame's head, as of a stream.
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return compressor.compress(content) + compressor.flush()


def _refusal(
    status: int, case: str, message: str, payload: Mapping[str, Any] | None = None
) -> _Reply:
    detail = {
        "case": case,
        "message": message,
        "status_code": status,
        "docs": _DOCS,
        "payload": payload,
    }
    return _Reply(status, json.dumps({"detail": detail}).encode())


def _check_dataset(asked: dict[str, str]) -> None:
    if asked.get("dataset") != DATASET:
        raise _RefusalError(
            422, "data_dataset_not_found", f"There is no dataset {asked.get('dataset')}."
        )


def _nanos(text: str) -> int:
    """Return an instant that the client sent: ns in digits, or ISO."""
    if text.isdigit():
        return int(text)
    whole, _, rest = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    try:
        seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _RefusalError(422, "data_time_range_invalid", f"No instant: {text}.") from None
    return int(seconds) * _NANOS + int(rest[:9].ljust(9, "0"))


def _iso(ts: int) -> str:
    seconds, rest = divmod(ts, _NANOS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _texts(asked: Mapping[str, str]) -> list[str]:
    return asked.get("symbols", "ALL_SYMBOLS").split(",")


def _ts_of(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY_NS


def _date_of(ts: int) -> date:
    return date(1970, 1, 1) + timedelta(days=ts // _DAY_NS)
