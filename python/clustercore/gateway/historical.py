"""The vendor's historical service, on this machine: the same questions, answers and failures.

It serves what the gateway serves, up to the market time that the gateway has reached. It speaks
TLS, as the vendor's client knows nothing else, and only to this machine.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from clustercore.errors import ConfigError
from clustercore.gateway.answers import Answers
from clustercore.gateway.certificate import Certificate
from clustercore.gateway.historical_faults import FAULTS, HistoricalFault, faulty_reply
from clustercore.gateway.protocol import REHEARSAL_KEY
from clustercore.gateway.records import GatewayData
from clustercore.gateway.replies import RefusalError, Reply, refusal

__all__ = ["FAULTS", "AskedFor", "HistoricalFault", "HistoricalServer"]

_LOG = logging.getLogger(__name__)
_NANOS: Final = 10**9
_CHUNK_BYTES: Final = 1 << 16
_BODY_MOST: Final = 1 << 20
_DISCARDED_MOST: Final = 1 << 24
_DIGITS_MOST: Final = 18
_LAST_PORT: Final = 65_535
_LONGEST_LAG_S: Final = 366 * 86_400.0
_PREFIX: Final = "/v0/"


class AskedFor(NamedTuple):
    """A request that was answered: the journal of the server."""

    endpoint: str
    parameters: dict[str, str]
    status: int


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
        _check_settings(port, lag_s)
        self._answers = Answers(
            data=data,
            now=now or (lambda: data.span[1]),
            lag_ns=int(lag_s * _NANOS),
            conditions=dict(conditions or {}),
            usd_per_gb=usd_per_gb,
        )
        self._key = key
        self._lock = threading.Lock()
        self._faults = [(fault, fault.times) for fault in faults]
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
        return self._answers.available_end()

    def inject(self, fault: HistoricalFault) -> None:
        """Let something go wrong from now on."""
        with self._lock:
            later = replace(fault, after=fault.after + self._seen.get(fault.endpoint, 0))
            self._faults.append((later, later.times))

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

    def answer(
        self, verb: str, endpoint: str, parameters: dict[str, str], login: str
    ) -> Reply | None:
        """Return the answer to a request, None for none."""
        fault = self._next_fault(endpoint)
        try:
            self._check_login(login)
            reply = self._reply(fault, verb, endpoint, parameters)
        except RefusalError as error:
            reply = error.reply
        except Exception:  # noqa: BLE001 -- an answer all the same, and the log has the reason
            _LOG.exception("no answer to %s", endpoint)
            reply = refusal(500, "internal_server_error", "An internal error occurred.")
        with self._lock:
            self.requests.append(AskedFor(endpoint, parameters, reply.status if reply else 0))
        if fault is not None and fault.kind == "silent":
            self.closing.wait()
        return reply

    def _reply(
        self, fault: HistoricalFault | None, verb: str, endpoint: str, parameters: dict[str, str]
    ) -> Reply | None:
        def answer() -> Reply:
            return self._answers.answer(verb, endpoint, parameters)

        if fault is None:
            return answer()
        return faulty_reply(fault, self._answers, parameters, answer)

    def context(self) -> Any:  # noqa: ANN401 -- ssl.SSLContext
        """Return what connections are encrypted with."""
        return self._certificate.context

    def _check_login(self, login: str) -> None:
        wanted = "Basic " + base64.b64encode(f"{self._key}:".encode()).decode("ascii")
        if not hmac.compare_digest(login.encode(), wanted.encode()):
            raise RefusalError(401, "auth_authentication_failed", "Authentication failed.")

    def _next_fault(self, endpoint: str) -> HistoricalFault | None:
        with self._lock:
            seen = self._seen.get(endpoint, 0)
            self._seen[endpoint] = seen + 1
            for place, (fault, left) in enumerate(self._faults):
                if fault.endpoint == endpoint and left > 0 and seen >= fault.after:
                    self._faults[place] = (fault, left - 1)
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
        self._serve("GET", urlsplit(self.path).query)

    def do_POST(self) -> None:
        stated = self.headers.get("Content-Length", "0")
        if not stated.isascii() or not stated.isdigit():
            # Where the next request begins cannot be known.
            self.close_connection = True
            self._send(refusal(400, "bad_request", "Content-Length is no number of bytes."))
            return
        length = int(stated[:_DIGITS_MOST])
        if length > _BODY_MOST:
            self._refuse_large(length)
            return
        self._serve("POST", self.rfile.read(length).decode("utf-8", "replace"))

    def _refuse_large(self, length: int) -> None:
        """Refuse a body, read all the same: a client that still sends would not read the answer."""
        self.close_connection = True
        for _ in range(min(length, _DISCARDED_MOST) // _CHUNK_BYTES):
            self.rfile.read(_CHUNK_BYTES)
        self.rfile.read(min(length, _DISCARDED_MOST) % _CHUNK_BYTES)
        self._send(refusal(413, "request_too_large", f"At most {_BODY_MOST} bytes."))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, such as an unknown verb, in JSON and not in HTML."""
        del explain
        status = 405 if code == 501 else code  # noqa: PLR2004 -- the library's for unknown verbs
        self.close_connection = True
        self._send(refusal(status, "bad_request", message or "This is no request."))

    def _serve(self, verb: str, query: str) -> None:
        path = urlsplit(self.path).path
        endpoint = path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else path
        parameters = dict(parse_qsl(query))
        login = self.headers.get("Authorization", "")
        reply = self.server.owner.answer(verb, endpoint, parameters, login)
        if reply is None:
            self.close_connection = True
            return
        self._send(reply)

    def _send(self, reply: Reply) -> None:
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


def _check_settings(port: int, lag_s: float) -> None:
    checks = (
        (0 <= port <= _LAST_PORT, "historical_port", port, f"0 to {_LAST_PORT}"),
        (0 <= lag_s < _LONGEST_LAG_S, "lag_s", lag_s, f"0 to {_LONGEST_LAG_S:g}"),
    )
    for allowed, name, found, expected in checks:
        if not allowed:
            raise ConfigError(
                "not an allowed value", field=name, found=str(found), expected=expected
            )
