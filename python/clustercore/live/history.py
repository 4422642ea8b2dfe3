"""History from the vendor: priced before it is bought, verified before it counts, kept once bought.

The only module that uses the vendor's historical client. The client retries nothing, leaves partial
files behind and takes a body that was cut off for a whole one, so all of that is done here.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FunctionType, MethodType, SimpleNamespace, TracebackType
from typing import IO, Any, Final, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import polars as pl

from clustercore.bars import PRICE_COLUMNS
from clustercore.contracts import is_spread
from clustercore.errors import ClusterCoreError, ConfigError, DataError
from clustercore.live.archive import Archive, Content, Piece, Request, verify
from clustercore.live.vendor import import_databento
from clustercore.sources.dbn import decode_dbn, symbols_by_date

__all__ = [
    "AccessRefused",
    "BudgetExceeded",
    "DayCondition",
    "DownloadDamaged",
    "History",
    "HistoryClosed",
    "HistoryError",
    "HistoryUnavailable",
    "RequestRefused",
]

_LOG = logging.getLogger(__name__)
_NANOS: Final = 10**9
_VENDOR: Final = "hist.databento.com"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LONGEST_TEXT: Final = 400
_LONGEST_WAIT_S: Final = 600.0
_SATURDAY: Final = 5
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERRORS: Final = 500
_ACCESS: Final = {
    401: "the API key was refused; check DATABENTO_API_KEY",
    402: "the account cannot pay for this; see the billing page of the vendor's portal",
    403: "the account has no licence for this data; see the vendor's portal",
}

_UNWRITABLE: Final = "a download cannot be written; free space, or choose another folder"

Answer = TypeVar("Answer")
Progress = Callable[[int, int], None]


class HistoryError(ClusterCoreError):
    """History could not be had.

    Attributes
    ----------
    permanent : bool
        Whether asking again is of no use until somebody changes something.
    """

    permanent = True


class AccessRefused(HistoryError):  # noqa: N818 -- the name says it
    """The key, the licence or the funds do not suffice."""


class RequestRefused(HistoryError):  # noqa: N818 -- the name says it
    """The server does not answer this question.

    Attributes
    ----------
    case : str
        The server's name for the reason, such as ``data_end_after_available_end``.
    """

    def __init__(self, text: str, case: str = "") -> None:
        super().__init__(text)
        self.case = case


class BudgetExceeded(HistoryError):  # noqa: N818 -- the name says it
    """The data would cost more than is left of the budget, USD; nothing was bought."""

    def __init__(self, cost: float, budget: float, spent: float) -> None:
        super().__init__(
            f"this history costs {cost:.4f} USD, and of the budget of {budget:.2f} USD "
            f"{max(0.0, budget - spent):.4f} is left; raise live.budget_usd, or ask for less with "
            "live.backfill_days"
        )
        self.cost = cost
        self.budget = budget
        self.spent = spent


class HistoryUnavailable(HistoryError):  # noqa: N818 -- the name says it
    """The server or the way to it fails at the moment.

    Attributes
    ----------
    retry_after : float or None
        Seconds after which the server wants to be asked again.
    """

    permanent = False

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class DownloadDamaged(HistoryUnavailable):
    """What came is not what was asked for, or not all of it."""


class HistoryClosed(HistoryError):  # noqa: N818 -- the name says it
    """The client was closed while it worked."""


class Secret(Protocol):
    """What guards the API key."""

    def reveal(self) -> str:
        """Return the key."""


@dataclass(frozen=True)
class DayCondition:
    """What the vendor calls its data of a day: ``available``, ``degraded``, ``missing``..."""

    day: date
    condition: str

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it; a Saturday has no data to miss."""
        saturday = self.day.weekday() == _SATURDAY
        return self.condition == "available" or (self.condition == "missing" and saturday)

    def __str__(self) -> str:
        return f"the vendor calls its data of {self.day} {self.condition}"


class History:
    """History of one dataset, for one thread at a time.

    Parameters
    ----------
    key : str or Secret
        The API key; it goes to the vendor's client and nowhere else.
    folder : Path
        Where downloads are kept.
    budget_usd : float
        The most that this object may spend.
    dataset : str
        The vendor's name of the dataset.
    gateway : str, optional
        Address of another server, such as ``https://127.0.0.1:13001``. The certificate of one on
        this machine is trusted as it is found.
    wait : callable, optional
        Waits so many seconds before a retry; by default for real, until ``close``.
    timeout_s : float
        How long one read from the server may take.
    attempts : int
        How often a question is put before its failure is final.

    Attributes
    ----------
    spent_usd : float
        Cost of every download that began, those that failed included.
    """

    def __init__(
        self,
        *,
        key: str | Secret,
        folder: Path,
        budget_usd: float,
        dataset: str = "GLBX.MDP3",
        gateway: str | None = None,
        wait: Callable[[float], object] | None = None,
        timeout_s: float = 30.0,
        attempts: int = 5,
    ) -> None:
        self._key = key
        self._archive = Archive(folder)
        self._dataset = dataset
        self._gateway = gateway
        self._address = _address(gateway)
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._client: Any = None
        self._session: Any = None
        self._certificate: Path | None = None
        self._writer: _Writer | None = None
        self._last_failure = ""
        self._price = 0.0
        self.budget_usd = budget_usd
        self.spent_usd = 0.0

    def __repr__(self) -> str:
        return f"History(dataset={self._dataset!r}, gateway={self._gateway!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and end any wait; another thread may call it."""
        self._closed.set()
        self._disconnect()

    # Questions.

    def available_end(self, schema: str) -> int:
        """Return until when there is history of a schema, ns UTC, exclusive."""
        return self.available_span(schema)[1]

    def available_span(self, schema: str) -> tuple[int, int]:
        """Return from when until when there is history of a schema, ns UTC, end exclusive."""
        spans = self._ask(lambda client: client.metadata.get_dataset_range(dataset=self._dataset))
        try:
            span = spans["schema"][schema]
            return _nanos(span["start"]), _nanos(span["end"])
        except (KeyError, TypeError, ValueError):
            raise RequestRefused(
                f"the account has no history of {schema} in {self._dataset}"
            ) from None

    def cost(
        self, symbols: str | Sequence[str], stype_in: str, schema: str, start: int, end: int
    ) -> float:
        """Return what a span would cost, USD."""
        return self._cost(self._request(symbols, stype_in, schema), Piece(start, end))

    def symbols_on(
        self, symbols: Sequence[str], stype_in: str, stype_out: str, day: date
    ) -> dict[str, str]:
        """Return what symbols of one kind were called in another on a day; costs nothing.

        Parameters
        ----------
        symbols : sequence of str
            Such as ``ES.v.0``, the contract that traded most the day before.
        stype_in, stype_out : str
            Their kind, such as ``continuous``, and the other.
        day : date
            UTC.

        Returns
        -------
        dict of str to str
            By symbol; those that are not known that day are left out.
        """
        answer = self._ask(
            lambda client: client.symbology.resolve(
                dataset=self._dataset,
                symbols=list(symbols),
                stype_in=stype_in,
                stype_out=stype_out,
                start_date=day.isoformat(),
                end_date=(day + timedelta(days=1)).isoformat(),
            )
        )
        try:
            found = answer["result"]
            return {symbol: str(spans[-1]["s"]) for symbol, spans in found.items() if spans}
        except (KeyError, TypeError, AttributeError, IndexError):
            raise RequestRefused(
                "the historical server does not say which symbols are which"
            ) from None

    def conditions(self, start: int, end: int) -> list[DayCondition]:
        """Return the days whose data is not whole; Saturdays, which have none, apart."""

        def ask(client: Any) -> list[DayCondition]:  # noqa: ANN401 -- the vendor's client
            rows = client.metadata.get_dataset_condition(
                dataset=self._dataset,
                start_date=_day(start).isoformat(),
                end_date=_day(end - 1).isoformat(),
            )
            return [DayCondition(date.fromisoformat(row["date"]), row["condition"]) for row in rows]

        return [day for day in self._ask(ask) if not day.is_whole]

    # Data.

    def fetch(
        self,
        symbols: str | Sequence[str],
        stype_in: str,
        schema: str,
        start: int,
        end: int,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Return verified files that hold a span, downloading what is not there.

        Parameters
        ----------
        symbols : str or sequence of str
            What to ask for, such as ``ES.FUT``.
        stype_in : str
            Its kind, such as ``parent``.
        schema : str
            ``ohlcv-1m`` or ``trades``.
        start, end : int
            The span, ns UTC, `end` exclusive. What is not available yet is left out.
        progress : callable, optional
            Told the files done and the files in all.

        Returns
        -------
        list of Path
            In order of time. A file from an earlier download may hold more than the span.

        Raises
        ------
        BudgetExceeded
            Before anything is bought.
        HistoryError
            For any other reason; ``permanent`` says whether to try again.
        """
        request = self._request(symbols, stype_in, schema)
        return [path for _, path in self._fetch(request, start, end, progress)]

    def bars(
        self,
        symbols: str | Sequence[str],
        stype_in: str,
        start: int,
        end: int,
        *,
        schema: str = "ohlcv-1m",
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Return the bars of a span, spreads apart.

        Returns
        -------
        polars.DataFrame
            ``ts_event`` Int64 (ns UTC, start of the bar), ``open high low close`` Int64 (1e-9),
            ``volume`` Int64, ``symbol`` String, ``instrument_id`` UInt32; by time, then symbol.
        """
        request = self._request(symbols, stype_in, schema)
        pieces = self._fetch(request, start, end, progress)
        frames = [_bars_of(path, schema, piece) for piece, path in pieces]
        frame = pl.concat([_NO_BARS, *frames])
        return frame.filter(~is_spread(frame)).sort("ts_event", "symbol", maintain_order=True)

    def _request(self, symbols: str | Sequence[str], stype_in: str, schema: str) -> Request:
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        return Request(self._dataset, schema, stype_in, names)

    def _fetch(
        self, request: Request, start: int, end: int, progress: Progress | None
    ) -> list[tuple[Piece, Path]]:
        plan = self._archive.plan(request, start, end)
        if any(piece.path is None for piece in plan):
            end = min(end, self.available_end(request.schema))
            plan = self._archive.plan(request, start, end)
        if any(piece.path is None for piece in plan):
            self._say_conditions(start, end)
        costs = self._priced(request, plan)
        done: list[tuple[Piece, Path]] = []
        for piece, cost in zip(plan, costs, strict=True):
            path = piece.path or self._download(request, piece, cost)
            done.append((piece, path))
            if progress is not None:
                progress(len(done), len(plan))
        return done

    def _say_conditions(self, start: int, end: int) -> None:
        try:
            for condition in self.conditions(start, end):
                _LOG.warning("%s", condition)
        except (HistoryUnavailable, RequestRefused) as error:
            _LOG.warning("the condition of the data is not known: %s", error)

    def _priced(self, request: Request, plan: Sequence[Piece]) -> list[float]:
        costs = [0.0 if piece.path else self._cost(request, piece) for piece in plan]
        if self.spent_usd + sum(costs) > self.budget_usd:
            raise BudgetExceeded(sum(costs), self.budget_usd, self.spent_usd)
        return costs

    def _cost(self, request: Request, piece: Piece) -> float:
        asked = _asked(request, piece)
        return self._ask(lambda client: float(client.metadata.get_cost(**asked)))

    def _download(self, request: Request, piece: Piece, cost: float) -> Path:
        asked = _asked(request, piece)
        records = self._ask(lambda client: int(client.metadata.get_record_count(**asked)))
        target = self._archive.target(request, piece)
        part = target.with_name(target.name + ".part")
        self._price = cost

        def download(client: Any) -> Content:  # noqa: ANN401 -- the vendor's client
            # The client refuses a file that is there, such as one that a stopped process left.
            part.unlink(missing_ok=True)
            client.timeseries.get_range(**asked, path=part)
            content = verify(part, request, piece.start, piece.end)
            if content.records != records:
                raise DataError(
                    "the download is not complete",
                    file=part.name,
                    found=f"{content.records} records",
                    expected=f"{records}",
                )
            return content

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            content = self._ask(download)
            self._archive.keep(part, request, piece, content)
        except OSError as error:
            raise HistoryError(f"{_UNWRITABLE}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        _LOG.info("%s: %d records for %.4f USD", target.name, records, cost)
        return target

    # Asking, and asking again.

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        for attempt in range(1, self._attempts + 1):
            outcome = self._try(question)
            if not isinstance(outcome, HistoryError):
                return outcome
            if outcome.permanent or attempt == self._attempts:
                raise outcome
            self._pause(outcome, attempt)
        raise AssertionError  # unreachable: the last attempt returns or raises

    def _try(self, question: Callable[[Any], Answer]) -> Answer | HistoryError:
        """Ask once. A failure is returned and raised elsewhere: the vendor's hangs on no other."""
        try:
            return question(self._connected())
        except HistoryError as error:
            return error
        except Exception as error:  # noqa: BLE001 -- the vendor's, its libraries', the network's
            return self._explain(error)
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def _explain(self, error: Exception) -> HistoryError:
        status = getattr(error, "http_status", None)
        if status is not None:
            return self._explain_status(error, int(status))
        if self._closed.is_set():
            return HistoryClosed("closed while history was being fetched")
        if self._writer is not None and self._writer.fault is not None:
            return HistoryError(f"{_UNWRITABLE}: {self._writer.fault}")
        if isinstance(error, DataError):
            return DownloadDamaged(f"{error}; it is not kept")
        if self._address is not None:
            # A server on this machine that was started anew has a new certificate.
            self._disconnect()
        return HistoryUnavailable(self._unreachable(error))

    def _unreachable(self, error: Exception) -> str:
        """Return why the server does not answer, in the fewest words that say what to do."""
        causes = {type(cause) for cause in _causes(error)}
        if self._address is not None and ConnectionRefusedError in causes:
            host, port = self._address
            return (
                f"no gateway listens on {host}:{port} (its history); start it: clustercore gateway"
            )
        if socket.gaierror in causes:
            return f"{_VENDOR} cannot be resolved; check the network and the name server"
        return f"the historical server cannot be read: {type(error).__name__}: {self._text(error)}"

    def _explain_status(self, error: Exception, status: int) -> HistoryError:
        text = f"status {status}: {self._text(error)}"
        if status in _ACCESS:
            return AccessRefused(f"{_ACCESS[status]} ({text})")
        if status == _TOO_MANY_REQUESTS:
            after = _seconds(getattr(error, "headers", {}).get("Retry-After"))
            return HistoryUnavailable(f"the historical server asks for a pause ({text})", after)
        if status >= _SERVER_ERRORS:
            return HistoryUnavailable(f"the historical server fails ({text})")
        body = getattr(error, "json_body", None)
        detail = body.get("detail") if isinstance(body, dict) else None
        case = str(detail.get("case", "")) if isinstance(detail, dict) else ""
        return RequestRefused(f"the historical server refuses the request ({text})", case)

    def _text(self, error: Exception) -> str:
        secret = self._reveal()
        text = str(error).replace(secret, "***") if secret else str(error)
        return " ".join(text.split())[:_LONGEST_TEXT]

    def _pause(self, failure: HistoryError, attempt: int) -> None:
        after = failure.retry_after if isinstance(failure, HistoryUnavailable) else None
        seconds = min(30.0, 2.0 ** (attempt - 1)) if after is None else after
        if seconds > _LONGEST_WAIT_S:
            raise failure
        again = f"in {seconds:g} s" if seconds else "at once"
        # Once for a failure that lasts; how often it was asked is in the log.
        level = logging.INFO if str(failure) == self._last_failure else logging.WARNING
        self._last_failure = str(failure)
        _LOG.log(level, "%s; asking again %s", failure, again)
        self._wait(seconds)
        if self._closed.is_set():
            raise HistoryClosed("closed while history was being fetched")

    # The vendor's client.

    def _reveal(self) -> str:
        return self._key if isinstance(self._key, str) else self._key.reveal()

    def _connected(self) -> Any:  # noqa: ANN401 -- the vendor's client
        if self._closed.is_set():
            raise HistoryClosed("closed; make another History")
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> Any:  # noqa: ANN401 -- the vendor's client
        databento = import_databento()
        import requests

        options = {} if self._gateway is None else {"gateway": self._gateway}
        client = databento.Historical(key=self._reveal(), **options)
        # One session instead of one a request: connections are used again, and can be closed.
        self._session = requests.Session()
        if self._address is not None:
            self._certificate = _fetch_certificate(self._address, self._timeout_s)
            self._session.verify = str(self._certificate)
            # No proxy stands between us and this machine.
            self._session.trust_env = False
        names = {
            "requests": self._session,
            "open": self._open,
            "check_backend_warnings": self._log_warnings,
            # The file is read by `verify`, which sees more and cannot panic.
            "DBNStore": SimpleNamespace(from_file=lambda path: path),
        }
        for api in (client.metadata, client.timeseries, client.symbology):
            api.TIMEOUT = self._timeout_s
            _rebind(api, names)
        return client

    def _open(self, path: Path, mode: str) -> _Writer:
        """Open a download. The server answered with data, so this is where it begins to cost."""
        if self.spent_usd + self._price > self.budget_usd:
            raise BudgetExceeded(self._price, self.budget_usd, self.spent_usd)
        del mode
        try:
            self._writer = _Writer(path)
        except OSError as error:
            raise HistoryError(f"{_UNWRITABLE}: {error}") from error
        self.spent_usd += self._price
        return self._writer

    def _log_warnings(self, response: Any) -> None:  # noqa: ANN401 -- of requests
        text = response.headers.get("X-Warning")
        if text:
            _LOG.warning("the historical server warns: %s", self._text(Exception(text)))

    def _disconnect(self) -> None:
        session, self._session, self._client = self._session, None, None
        if session is not None:
            session.close()
        certificate, self._certificate = self._certificate, None
        if certificate is not None:
            certificate.unlink(missing_ok=True)


class _Writer:
    """The file of a download, which remembers why it could not be written."""

    def __init__(self, path: Path) -> None:
        self.fault: OSError | None = None
        self._file: IO[bytes] = path.open("wb")

    def write(self, block: bytes) -> int:
        try:
            return self._file.write(block)
        except OSError as error:
            self.fault = error
            raise

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.fault = error


def _rebind(api: Any, names: dict[str, Any]) -> None:  # noqa: ANN401 -- the vendor's
    """Give one object of the vendor's copies of its requests that see other globals.

    The client has no parameter for a session, a certificate or a place for its warnings, and what
    it does use (environment variables, filters of warnings) belongs to the whole process.
    """
    for name in ("_get", "_post", "_stream"):
        function: FunctionType = getattr(type(api), name)
        seen = {**function.__globals__, **names}
        bound = FunctionType(
            function.__code__, seen, name, function.__defaults__, function.__closure__
        )
        bound.__kwdefaults__ = function.__kwdefaults__
        setattr(api, name, MethodType(bound, api))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _address(gateway: str | None) -> tuple[str, int] | None:
    """Return host and port of a server on this machine, None for any other."""
    if gateway is None:
        return None
    with contextlib.suppress(ValueError):
        parts = urlsplit(gateway)
        host, port = parts.hostname, parts.port or 443
        if parts.scheme == "https" and host:
            return (host, port) if host in _LOOPBACK else None
    raise ConfigError(
        "not the address of a historical server",
        field="live.historical",
        found=repr(gateway),
        expected="https://host:port, such as https://127.0.0.1:13001",
    )


def _fetch_certificate(address: tuple[str, int], timeout_s: float) -> Path:
    text = ssl.get_server_certificate(address, timeout=timeout_s)
    with tempfile.NamedTemporaryFile(
        "w", prefix="clustercore-", suffix=".pem", delete=False, encoding="ascii"
    ) as file:
        file.write(text)
    return Path(file.name)


def _asked(request: Request, piece: Piece) -> dict[str, Any]:
    return {
        "dataset": request.dataset,
        "symbols": list(request.symbols),
        "schema": request.schema,
        "stype_in": request.stype_in,
        "start": piece.start,
        "end": piece.end,
    }


_NO_BARS: Final = pl.DataFrame(
    schema={
        "ts_event": pl.Int64,
        **dict.fromkeys(PRICE_COLUMNS, pl.Int64),
        "volume": pl.Int64,
        "symbol": pl.String,
        "instrument_id": pl.UInt32,
    }
)


def _bars_of(path: Path, schema: str, piece: Piece) -> pl.DataFrame:
    decoded = decode_dbn(path)
    columns = decoded["bars"].get(schema)
    if columns is None:
        return _NO_BARS
    times, ids = columns["ts_event"], columns["instrument_id"]
    symbols, _ = symbols_by_date(decoded, ids, times, str(path))
    if symbols.has_nulls():
        raise DataError(
            "the file does not say which symbols its instruments are",
            file=str(path),
            column="instrument_id",
            expected="symbol mappings in the metadata",
        )
    frame = pl.DataFrame(
        {
            "ts_event": times,
            **{name: columns[name] for name in PRICE_COLUMNS},
            "volume": columns["volume"],
            "symbol": symbols,
            "instrument_id": ids,
        }
    )
    return frame.filter(pl.col("ts_event") >= piece.start, pl.col("ts_event") < piece.end)


def _nanos(text: str) -> int:
    """Return ns UTC of ISO text with up to nine digits of a second."""
    whole, _, rest = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return int(seconds) * _NANOS + int(rest[:9].ljust(9, "0"))


def _day(ts: int) -> date:
    return date(1970, 1, 1) + timedelta(days=ts // (86_400 * _NANOS))


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text or ""))
    except ValueError:
        return None
