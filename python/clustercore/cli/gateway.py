"""The command that serves market data on this machine as Databento does, for a rehearsal."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from clustercore.cli import output
from clustercore.cli.faults import read_faults
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    from clustercore.gateway import Gateway, GatewayData
    from clustercore.gateway.historical import HistoricalFault, HistoricalServer

__all__ = ["gateway"]

# Sessions of the sample before the one that is live: enough to fill a baseline.
_SAMPLE_HISTORY = 3
_LOOK_S = 0.2
_LAST_PORT = 65_535
# Those of the real gateway.
_CONNECTIONS_PER_S = 5
_SUBSCRIPTIONS_PER_S = 10
# Nanoseconds fit into 64 bits until then.
_FIRST_YEAR, _LAST_YEAR = 1971, 2262
_LONGEST_LAG_S = 365 * 86_400
_LENGTH = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(h|m)")


def gateway(
    *files: Path,
    port: int = 13000,
    historical_port: int | None = None,
    speed: float = 600.0,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    end: Annotated[str | None, Parameter(name="--to")] = None,
    at_end: Literal["hold", "close"] = "hold",
    hold: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    instrument: Annotated[tuple[str, ...], Parameter(negative="", show_default=" ".join)] = ("ES",),
    sessions: int = 8,
    fault: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    history_lag: Annotated[str, Parameter(allow_leading_hyphen=True)] = "0h",
    limits: Annotated[bool, Parameter(show_default=False)] = True,
) -> int:
    """Replay files over Databento's live protocol, on this machine only, to rehearse a day.

    Parameters
    ----------
    files
        DBN files of one-minute bars or trades; a SIMULATED sample of several months, calendar
        spreads and a roll when left out.
    port
        Where live clients connect; 0 takes a free port.
    historical_port
        Where historical clients connect; the next port when left out.
    speed
        Market seconds a second; inf goes as fast as the clients read.
    start
        Trade date, or ISO time (UTC if naive), at which the live part begins. What is before it can
        be replayed, and asked for as history. The first bar when left out; in the sample, the
        fourth session.
    end
        Trade date, or ISO time, before which the data ends.
    at_end
        After the last bar: hold goes on with heartbeats, close ends.
    hold
        Let market time stand still while nobody is connected.
    instrument
        Root that the sample simulates; may be repeated.
    sessions
        Sessions of the sample.
    fault
        Something that goes wrong, as KIND or KIND:NAME=VALUE,NAME=VALUE; may be repeated. Of the
        stream, such as fin:after_bars=300 or rst:at=2024-12-13T14:30,outage_s=90; of history, such
        as rate_limit:times=2. docs/live.md lists the kinds, and so does the answer to a wrong one.
    history_lag
        How far the end of history stays behind the market, such as 8h or 90m.
    limits
        At most 5 new connections a second of the market, and 10 subscriptions of a session.
    """
    from clustercore.gateway import Gateway

    _check_ports(port, historical_port)
    _check_instruments(instrument)
    stream_faults, history_faults = read_faults(fault, lambda text: _instant(text, "--fault"))
    lag_s = _seconds(history_lag)
    with output.progress("reading market data") as step:
        data = _read(files, instrument, sessions)
        if end is not None:
            data = data.before(_instant(end, "--to"))
        begin = _begin(data, start, simulated=not files)
        step("opening the gateway")
    served = Gateway(
        data,
        port=port,
        speed=speed,
        start=begin,
        at_end=at_end,
        hold=hold or math.isinf(speed),
        faults=stream_faults,
        connections_per_s=_CONNECTIONS_PER_S if limits else None,
        subscriptions_per_s=_SUBSCRIPTIONS_PER_S if limits else None,
    )
    beside = _historical(served, historical_port, lag_s, history_faults)
    with _stop_signals() as stop, served, beside as history:
        _say(served, history, fault, history_lag if lag_s else "")
        _serve(served, stop, ends=at_end == "close")
    return 0


def _read(files: tuple[Path, ...], instruments: tuple[str, ...], sessions: int) -> GatewayData:
    from clustercore.gateway import GatewayData, sample_parent_data

    if files:
        return GatewayData.from_files(files)
    return sample_parent_data(sessions, instruments=instruments)


def _begin(data: GatewayData, start: str | None, *, simulated: bool) -> int | None:
    """Return the instant at which the live part begins."""
    if start is not None:
        begin = _instant(start, "--from")
        first, last = data.span
        if not first <= begin < last:
            raise ConfigError(
                "the live part cannot begin there",
                field="--from",
                found=start,
                expected=f"{_text(first)} to {_text(last)}",
            )
        return begin
    if not simulated:
        return None
    from clustercore.sessions import load_sessions

    opens = load_sessions().overlapping(*data.span).open_ns
    return int(opens[min(_SAMPLE_HISTORY, len(opens) - 1)])


def _instant(text: str, option: str) -> int:
    """Return the open of a trade date, or an instant, in ns UTC."""
    from clustercore.sessions import load_sessions

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "no date and no time",
            field=option,
            found=repr(text),
            expected="2024-12-12 or 2024-12-12T14:30",
        ) from None
    if "T" not in text and " " not in text:
        opens = load_sessions().between(text).open_ns
        if len(opens):
            return int(opens[0])
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= aware.year < _LAST_YEAR:
        raise ConfigError(
            "no time that a file can hold",
            field=option,
            found=repr(text),
            expected=f"a year from {_FIRST_YEAR} to {_LAST_YEAR - 1}",
        )
    return int(aware.timestamp()) * 10**9


def _text(instant: int) -> str:
    from clustercore.gateway.records import iso_text

    return iso_text(instant)


def _check_ports(port: int, historical_port: int | None) -> None:
    if port == _LAST_PORT and historical_port is None:
        raise ConfigError(
            "there is no port after this one for the historical server; choose one for it",
            field="--historical-port",
            found=f"nothing beside --port {port}",
            expected=f"0 to {_LAST_PORT}",
        )


def _check_instruments(roots: tuple[str, ...]) -> None:
    """Refuse what the sample cannot simulate."""
    from clustercore.instruments import Instrument

    for root in roots:
        if root not in Instrument.roots():
            raise ConfigError(
                "there is no built-in instrument of this name, and the sample has no other",
                field="--instrument",
                found=repr(root),
                expected="one of " + " ".join(sorted(Instrument.roots())),
            )
        if roots.count(root) > 1:
            raise ConfigError("asked for twice", field="--instrument", found=root)


def _seconds(text: str) -> float:
    """Return a length of time."""
    found = _LENGTH.fullmatch(text)
    seconds = float(found[1]) * (3600 if found[2] == "h" else 60) if found else math.inf
    if seconds > _LONGEST_LAG_S:
        raise ConfigError(
            "not a length of time",
            field="--history-lag",
            found=repr(text),
            expected="such as 8h or 90m, a year at most",
        )
    return seconds


@contextlib.contextmanager
def _historical(
    served: Gateway, port: int | None, lag_s: float, faults: list[HistoricalFault]
) -> Iterator[HistoricalServer]:
    """Serve history beside the gateway; live clients look for it one port on."""
    from clustercore.gateway.historical import HistoricalServer

    beside = served.port + 1 if port is None else port
    with HistoricalServer(
        served.data, port=beside, now=served.market_now, lag_s=lag_s, faults=faults
    ) as history:
        yield history


def _say(served: Gateway, history: HistoricalServer, faults: tuple[str, ...], lag: str) -> None:
    """Say what is served, to whom, and which command to start beside it."""
    data = served.data
    label = "SIMULATED, " if data.simulated else ""
    counts = f"{output.counted(len(data.frame), 'bar')} and "
    counts += output.counted(len(data.trades), "trade")
    span = " to ".join(map(_text, data.span))
    symbols = " ".join(f"--symbol {root}" for root in sorted(set(data.roots.values())))
    address = f"{served.host}:{served.port}"
    begin = _text(served.market_now())
    counts += f" of {output.counted(len(data.symbols), 'instrument')}"
    output.emit_wrapped(f"{label}{data.source}: {counts}, {span}")
    output.emit_text(f"Live on {address} from {begin} at speed {served.speed:g}")
    output.emit_text(f"Historical on {history.url}{f', {lag} behind the market' if lag else ''}")
    if faults:
        output.emit_text(f"Faults: {' '.join(faults)}")
    output.emit_text(f"For other clients: key {served.key} (public) and")
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        output.emit_text(f"  {name}={history.certificate}")
    output.emit_text(f"Start beside it: clustercore live --gateway {address} {symbols}")
    sys.stdout.flush()


def _serve(served: Gateway, stop: threading.Event, *, ends: bool) -> None:
    """Wait for a signal, or for the end of the data and of the last session."""
    while not stop.wait(_LOOK_S):
        served.check()
        if ends and served.wait_finished(0.0) and not served.sessions_open:
            return


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event while the gateway runs."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
