"""Clients for tests of the gateway: the vendor's own, and one that reads raw bytes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import databento
import databento_dbn as dbn

from clustercore.gateway import REHEARSAL_KEY
from clustercore.gateway.protocol import cram_answer

LENGTHS = {33: 56, 0: 48, 22: 176, 23: 320, 21: 320, 160: 56}


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait until a condition holds; fail otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)  # noqa: TID251 -- a test waits for a thread


class Client:
    """The vendor's client, with all records it received."""

    def __init__(
        self,
        port: int,
        *,
        key: str = REHEARSAL_KEY,
        heartbeat_interval_s: int = 30,
        ts_out: bool = True,
        **options: Any,
    ) -> None:
        self.live = databento.Live(
            key=key,
            gateway="127.0.0.1",
            port=port,
            ts_out=ts_out,
            heartbeat_interval_s=heartbeat_interval_s,
            **options,
        )
        self.records: list[Any] = []
        self.live.add_callback(self.records.append)

    def subscribe(
        self,
        symbols: str | list[str] = "ES.FUT",
        *,
        schema: str = "ohlcv-1m",
        stype_in: str = "parent",
        start: int | None = None,
        dataset: str = "GLBX.MDP3",
    ) -> Self:
        self.live.subscribe(
            dataset=dataset, schema=schema, stype_in=stype_in, symbols=symbols, start=start
        )
        return self

    def start(self) -> Self:
        self.live.start()
        return self

    def run(self, timeout: float = 20.0) -> BaseException | None:
        """Take records until the session ends; return what it ended with."""
        self.live.start()
        return self.wait(timeout)

    def wait(self, timeout: float = 20.0) -> BaseException | None:
        try:
            self.live.block_for_close(timeout=timeout)
        except databento.BentoError as error:
            return error
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ValueError):
            self.live.terminate()
        # What the session ended with is taken, or the loop's thread complains that nobody did.
        with suppress(ValueError):
            self.wait(5.0)

    @property
    def bars(self) -> list[tuple[int, int, int, int, int, int, int]]:
        """(ts_event, instrument_id, open, high, low, close, volume) of every bar."""
        return [
            (r.ts_event, r.instrument_id, r.open, r.high, r.low, r.close, r.volume)
            for r in self.records
            if isinstance(r, dbn.OHLCVMsg)
        ]

    @property
    def trades(self) -> list[dbn.TradeMsg]:
        return [r for r in self.records if isinstance(r, dbn.TradeMsg)]

    @property
    def mappings(self) -> list[tuple[str, str, int]]:
        return [
            (r.stype_in_symbol, r.stype_out_symbol, r.instrument_id)
            for r in self.records
            if isinstance(r, dbn.SymbolMappingMsg)
        ]

    @property
    def errors(self) -> list[tuple[int, str]]:
        return [(int(r.code), r.err) for r in self.records if isinstance(r, dbn.ErrorMsg)]

    def system(self, code: object) -> list[dbn.SystemMsg]:
        return [r for r in self.records if isinstance(r, dbn.SystemMsg) and r.code == code]

    @property
    def closings(self) -> list[int]:
        return [message.ts_event for message in self.system(dbn.SystemCode.END_OF_INTERVAL)]


class RawClient:
    """A client that speaks the text phase and keeps every byte that follows."""

    def __init__(self, port: int, *, key: str = REHEARSAL_KEY) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        self.content = b""
        self.key = key
        self.ended = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def line(self) -> str:
        found = b""
        while not found.endswith(b"\n"):
            byte = self.socket.recv(1)
            if not byte:
                break
            found += byte
        return found.decode()

    def greet(self, more: str = "") -> str:
        """Answer the challenge, with more fields if need be; return the gateway's reply."""
        assert self.line() == "lsg_version=0.4.2\n"
        challenge = self.line().strip().removeprefix("cram=")
        answer = cram_answer(challenge, self.key)
        text = f"auth={answer}|dataset=GLBX.MDP3|encoding=dbn|ts_out=0|compression=none|client=raw"
        self.say(text + more)
        return self.line()

    def begin(
        self,
        symbols: str = "ES.FUT",
        *,
        schema: str = "ohlcv-1m",
        start: int | None = None,
        and_then: str = "",
    ) -> Self:
        """Greet, subscribe to a parent in one schema or two, and start the session."""
        assert self.greet().startswith("success=1|session_id=")
        since = "" if start is None else f"start={start}|"
        for place, wanted in enumerate(filter(None, (schema, and_then)), 7):
            self.say(
                f"schema={wanted}|stype_in=parent|symbols={symbols}|{since}snapshot=0|"
                f"id={place}|is_last=1"
            )
        return self.say("start_session=0")

    def say(self, line: str) -> Self:
        self.socket.sendall(f"{line}\n".encode())
        return self

    def read(self, timeout: float = 10.0) -> Self:
        """Read until the gateway ends the stream, or is silent for so long."""
        self.socket.settimeout(timeout)
        try:
            while chunk := self.socket.recv(1 << 16):
                self.content += chunk
            self.ended = "fin"
        except TimeoutError:
            self.ended = "silence"
        except ConnectionResetError:
            self.ended = "rst"
        return self

    def records(self) -> tuple[list[bytes], bytes]:
        """Return whole records that are what they say, and what follows the last of them."""
        rest = self.content[8 + int.from_bytes(self.content[4:8], "little") :]
        found = []
        place = 0
        while place + 1 < len(rest):
            length = rest[place] * 4
            if LENGTHS.get(rest[place + 1]) != length or place + length > len(rest):
                break
            found.append(rest[place : place + length])
            place += length
        return found, rest[place:]
