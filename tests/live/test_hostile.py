"""Bytes, times, disks and neighbours that mean no good: a clear state each time, nothing lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clustercore.gateway import Gateway, sample_parent_data
from clustercore.live import messages as msg
from clustercore.live import runner as runner_module
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.stream import _message
from clustercore.store import Store, StoreError
from tests.live.harness import ACTIVE, assert_parity, consumed, front, live, months, part, stored
from tests.live.test_feed_behaviours import (
    MINUTE,
    NOON,
    Step,
    Told,
    bar,
    completed,
    end,
    mapping,
    says,
    scripted,
)

__all__ = ["scripted"]

DATA = part(sample_parent_data(sessions=2), 21, 25)
HUGE = 2**64 - 1
UNDEFINED_PRICE = 2**63 - 1


def changed(minute: int, **values: int) -> Step:
    """Return a bar with some of its numbers replaced."""
    at, make = bar(minute)
    return at, lambda now: make(now)._replace(**values)


# What the decoder hands over.


@pytest.mark.parametrize(
    "record",
    [
        SimpleNamespace(),
        type("OHLCVMsg", (), {"rtype": 32})(),
        type("OHLCVMsg", (), {"rtype": "x"})(),
        type("TradeMsg", (), {})(),
        type("SystemMsg", (), {"code": None, "msg": 5})(),
        type("SymbolMappingMsg", (), {})(),
        type("MBOMsg", (), {"ts_out": HUGE})(),
    ],
)
def test_a_record_that_was_not_asked_for_is_an_oddity(record: object) -> None:
    assert isinstance(_message(0, record), msg.Oddity)


def test_an_oddity_ends_the_connection_and_loses_nothing(scripted: Callable[..., Told]) -> None:
    oddity = says(1.5, lambda now: msg.Oddity("a record of type MBOMsg", now, now))
    told = scripted([mapping(), bar(0), oddity], [mapping(minute=1.6), bar(0), bar(1)])
    assert told.reasons("lost") == ["unexpected: a record of type MBOMsg"]
    assert [row[0] for row in told.bars()] == [0, 1]


# Times and numbers.


def test_a_bar_from_the_future_is_no_bar_yet(scripted: Callable[..., Told]) -> None:
    early = (NOON + 90 * 10**9, bar(3, volume=9)[1])
    told = scripted([mapping(), bar(0), early, bar(1), bar(2), bar(3)])
    assert told.reasons("alarm") == ["a bar of ESZ4 from the future"]
    assert told.bars()[1] == (3, False, False, "future")
    # The true one is neither a repetition nor a conflict.
    assert told.bars()[-1] == (3, True, True, "")


def test_a_bar_from_the_far_future_makes_no_restart_forget(scripted: Callable[..., Told]) -> None:
    far = changed(1, ts_event=2**61)
    scripted([mapping(), bar(0), bar(1), (far[0] + 1, far[1]), bar(2), end(3)])
    late = [(NOON + 18 * MINUTE, bar(minute)[1]) for minute in range(18)]
    # A corrected bar is one only to somebody who remembers the first.
    other = (NOON + 18 * MINUTE, bar(1, volume=101)[1])
    told = scripted(
        [mapping(minute=18), *late, other, completed(18.1), bar(18), end(19)],
        symbols=("ESZ4",),
        at=18,
    )
    # One interval before what was known to be closed.
    assert told.opened[0][1] == NOON + 2 * MINUTE
    assert told.reasons("resumed") == ["nothing is missing"]
    assert told.reasons("late") == []
    assert told.runner.status.counts["duplicates"] == 3
    assert told.reasons("conflict") == ["ESZ4 came twice with other numbers; the first stays"]
    assert [minute for minute, _, taken, _ in told.bars() if taken] == list(range(19))
    assert_parity(told.runner.database)


def test_a_bar_from_the_past_is_stored_and_changes_nothing(scripted: Callable[..., Told]) -> None:
    told = scripted([mapping(), bar(0), (NOON + 61 * 10**9, bar(-90)[1]), bar(1)])
    assert told.bars() == [(0, True, True, ""), (-90, False, False, "late"), (1, True, True, "")]


@pytest.mark.parametrize(
    "values",
    [
        {"open": UNDEFINED_PRICE},
        {"high": UNDEFINED_PRICE, "low": UNDEFINED_PRICE},
        {"low": 7_000 * 10**9},
        {"close": -(2**63)},
        {"open": 0, "high": 0, "low": 0, "close": 0},
        {"close": 6_000 * 10**9 + 1},
        {"ts_event": 2**61},
        {"ts_event": 0},
        {"ts_event": NOON + 7},
    ],
)
def test_numbers_that_make_no_bar_reach_no_engine(
    scripted: Callable[..., Told], values: dict[str, int]
) -> None:
    told = scripted([mapping(), bar(0), changed(1, **values), bar(2), end(3), bar(3)])
    assert told.code == 0
    consumed_minutes = [minute for minute, _, taken, _ in told.bars() if taken]
    assert consumed_minutes == [0, 2, 3]
    assert [note.kind for note in told.notes if note.kind in {"refused", "alarm"}] or told.bars()[
        1
    ][3] in {"outside_session", "late"}
    assert_parity(told.runner.database)


@pytest.mark.parametrize("until", [NOON + 60 * MINUTE, NOON + MINUTE + 1, 0])
def test_an_interval_that_cannot_have_ended_stays_open(
    scripted: Callable[..., Told], until: int
) -> None:
    wrong = says(1.1, lambda now: msg.EndOfInterval(until, now, now))
    told = scripted([mapping(), bar(0), wrong, bar(1), end(2), bar(2)])
    assert [row[2] for row in told.bars()] == [True, True, True]
    assert told.closings() == [(2, "eoi")]


class Bar:
    """A record as the decoder makes it."""

    rtype = 33
    instrument_id = 7
    ts_event = NOON
    open = high = low = close = 6_000 * 10**9
    volume = 100


@pytest.mark.parametrize("values", [{"ts_event": HUGE}, {"ts_event": 2**63 - 1}, {"volume": HUGE}])
def test_a_number_that_no_bar_has_is_not_taken_for_one(values: dict[str, int]) -> None:
    record = type("OHLCVMsg", (Bar,), values)()
    assert isinstance(_message(0, record), msg.Unreadable)
    assert isinstance(_message(0, type("OHLCVMsg", (Bar,), {})()), msg.MarketBar)


def test_an_undefined_end_of_an_interval_is_none() -> None:
    record = type("SystemMsg", (), {"code": 4, "msg": "", "ts_event": HUGE})()
    assert isinstance(_message(0, record), msg.Unreadable)


def test_what_cannot_be_read_is_noted_and_passed_over(scripted: Callable[..., Told]) -> None:
    wrong = says(1.1, lambda now: msg.Unreadable("a bar with volume 2**64", now, now))
    told = scripted([mapping(), bar(0), wrong, bar(1)])
    assert "a bar with volume 2**64" in told.reasons("refused")[0]
    assert [row[2] for row in told.bars()] == [True, True]
    assert told.reasons("lost") == []


def test_a_heartbeat_from_the_future_closes_nothing(scripted: Callable[..., Told]) -> None:
    wrong = says(1.1, lambda now: msg.SignOfLife("Heartbeat", now + 10**17, now))
    told = scripted([mapping(), bar(0), wrong, bar(1), bar(2)])
    assert told.closings() == []
    assert [row[2] for row in told.bars()] == [True, True, True]


@pytest.mark.parametrize("symbol", ["", "\x00", "ES", "no such thing", "ESZ4 ", "\N{SNOWMAN}"])
def test_a_symbol_that_is_none_is_traded_by_nobody(
    scripted: Callable[..., Told], symbol: str
) -> None:
    told = scripted(
        [mapping(), mapping(symbol, number=9), bar(0), bar(0, number=9), bar(1)],
        symbols=("ES",),
    )
    assert told.code == 0
    rows = told.rows().filter(pl.col("kind") == "bar")
    assert rows["symbol"].to_list() == ["ESZ4", "ESZ4"]


# Disks and files.


def beside(served: Gateway, database: Path, **settings: Any) -> LiveRunner:
    """Return a live process beside a gateway, which stops when the market is over."""
    runner = LiveRunner(
        ACTIVE,
        database=database,
        settings=LiveSettings(
            gateway=f"127.0.0.1:{served.port}", historical="none", raw_days=0, **settings
        ),
    )

    def note(event: Any) -> None:
        if event.kind == "lost" and served.connections[-1].ended == "end of data":
            runner.stop()

    runner.on_note = note
    return runner


def test_a_full_disk_stops_the_run_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Store.commit
    left = iter(range(40))

    def fails(self: Store, *rows: Any, **more: Any) -> None:
        if next(left, None) is None:
            raise StoreError("no space left on the disk", reason="disk_full", file=self.path)
        commit(self, *rows, **more)

    database = tmp_path / "live.duckdb"
    with Gateway(DATA, at_end="close", replay_limit_s=10**6) as served:
        monkeypatch.setattr(Store, "commit", fails)
        with pytest.raises(StoreError, match="no space left"):
            beside(served, database).run()
        assert 0 < consumed(database).height < front(DATA, tmp_path).height
        assert_parity(database)
        monkeypatch.setattr(Store, "commit", commit)
        assert beside(served, database).run() == 0
    assert_frame_equal(stored(database), months(DATA))
    assert_frame_equal(consumed(database), front(DATA, tmp_path))
    assert_parity(database)


def test_too_little_space_forbids_acting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_SLOW_CHECK_S", -1.0)
    run = live(DATA, tmp_path, config=ACTIVE, settings={"disk_floor_mb": 10_000_000})
    assert any("MB free on the disk" in note.reason for note in run.notes)
    assert_frame_equal(consumed(run.database), front(DATA, tmp_path))
    with Store.open(run.database, create=False, read_only=True) as store:
        bars = store.inputs("ES").filter(pl.col("kind") == "bar")
    assert not bars["actionable"].any()


def test_a_database_that_cannot_be_written_is_said() -> None:
    # The kernel's own folder takes files from nobody, root included.
    database = Path("/sys/x.duckdb")
    settings = LiveSettings(gateway="127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        LiveRunner(ACTIVE, database=database, settings=settings).run()
    assert caught.value.reason == "read_only"
    assert "cannot be written" in str(caught.value)


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "live.duckdb"
    program = (
        "import sys; import clustercore as cc\n"
        "from clustercore.live.runner import LiveRunner\n"
        "from clustercore.live.settings import LiveSettings\n"
        "LiveRunner(cc.Config.preset(), database=sys.argv[1],"
        " settings=LiveSettings(gateway='127.0.0.1:9')).run()\n"
    )
    with Store.open(database):
        second = subprocess.run(
            [sys.executable, "-c", program, str(database)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert second.returncode == 1
    message = second.stderr.strip().splitlines()[-1]
    assert "StoreError" in message
    assert str(os.getpid()) in message


# Neighbours.


def test_a_port_with_something_else_behind_it_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        answering = threading.Thread(target=_answer, args=(other,), daemon=True)
        answering.start()
        runner = LiveRunner(
            ACTIVE,
            database=tmp_path / "live.duckdb",
            settings=LiveSettings(
                gateway=f"127.0.0.1:{other.getsockname()[1]}", historical="none", connect_s=1
            ),
        )
        lost: list[str] = []

        def note(event: Any) -> None:
            if event.kind == "lost":
                lost.append(event.reason)
                runner.stop()

        runner.on_note = note
        assert runner.run() == 0
        other.shutdown(socket.SHUT_RDWR)
        answering.join(5)
    assert lost == ["no session within 1 s"]
    assert runner.status.state == "STOPPED"


def _answer(other: socket.socket) -> None:
    while True:
        try:
            client, _ = other.accept()
        except OSError:
            return
        with client:
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.recv(1)


def test_nothing_listens_on_a_port(tmp_path: Path) -> None:
    found: list[set[int]] = []
    with Gateway(DATA, at_end="close") as served:
        runner = beside(served, tmp_path / "live.duckdb")
        runner.on_status = lambda _: found.append(_listening())
        runner.run()
        assert found
        assert set.union(*found) == {served.port}


def _listening() -> set[int]:
    """Return the TCP ports on which this process listens."""
    own = set()
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = str(handle.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            own.add(target[8:-1])
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
