from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import databento
import databento_dbn as dbn
import polars as pl
import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import (
    REHEARSAL_KEY,
    Fault,
    Gateway,
    GatewayData,
    sample_parent_data,
)
from clustercore.gateway.faults import (
    BAR_FAULTS,
    CONNECTION_FAULTS,
    MARKET_FAULTS,
    STREAM_FAULTS,
    FaultScript,
)
from tests.live.gateway_clients import Client, RawClient, wait_until

MINUTE = 60 * 10**9
SECOND = 10**9
ENDINGS = {"fin": "fin", "rst": "rst", "fatal_error": "fin", "fin_mid_record": "fin"}
BROKEN = {"garbage", "bad_length", "zero_length", "unknown_rtype"}


@pytest.fixture(scope="module")
def data() -> GatewayData:
    """Two hours of ES, its next month and their spread."""
    whole = sample_parent_data(1)
    return whole.before(whole.span[0] + 120 * MINUTE)


def rows_of(data: GatewayData) -> list[tuple[int, ...]]:
    columns = ["ts_event", "instrument_id", "open", "high", "low", "close", "volume"]
    return list(data.frame.select(columns).iter_rows())


def bars_in(client: RawClient) -> list[bytes]:
    return [record for record in client.records()[0] if record[1] == 33]


def resumed(data: GatewayData, *faults: Fault) -> tuple[Gateway, list[Client]]:
    """Run a client that comes back after every end and resumes at its last bar."""
    clients: list[Client] = []
    with Gateway(data, faults=faults, at_end="close") as gateway:
        while not any(connection.ended == "end of data" for connection in gateway.connections):
            assert len(clients) < 10, "the client never reached the end"
            last = max((bar[0] for client in clients for bar in client.bars), default=None)
            with Client(gateway.port) as client:
                clients.append(client)
                client.subscribe(start=last).run()
    return gateway, clients


@pytest.mark.parametrize("kind", sorted(ENDINGS))
def test_a_session_ends_after_exactly_so_many_bars(data: GatewayData, kind: str) -> None:
    with (
        Gateway(data, faults=[Fault(kind, after_bars=31)]) as gateway,
        RawClient(gateway.port) as client,
    ):
        client.begin().read()
        assert client.ended == ENDINGS[kind]
        assert len(bars_in(client)) == 31
        rest = client.records()[1]
        assert len(rest) == (20 if kind == "fin_mid_record" else 0)
        wait_until(lambda: gateway.sessions_open == 0)
        assert gateway.connections[0].faults == [kind]


@pytest.mark.parametrize("kind", ["fin", "rst", "fin_mid_record"])
@pytest.mark.parametrize("outage_s", [0.0, 600.0])
def test_who_comes_back_misses_nothing(data: GatewayData, kind: str, outage_s: float) -> None:
    faults = [Fault(kind, after_bars=after, outage_s=outage_s) for after in (20, 21, 77)]
    _, clients = resumed(data, *faults)
    assert len(clients) == 4
    found = {bar for client in clients for bar in client.bars}
    assert sorted(found) == sorted(rows_of(data))


def test_an_outage_lasts_exactly_as_long_as_it_should(data: GatewayData) -> None:
    gateway, _ = resumed(data, Fault("rst", after_bars=30, outage_s=437.0))
    cut = data.frame["ts_event"][29] + MINUTE + SECOND // 5
    assert gateway.connections[1].opened == cut + 437 * SECOND


def test_without_an_outage_the_market_stands_still(data: GatewayData) -> None:
    gateway, _ = resumed(data, Fault("fin", after_bars=30))
    assert gateway.connections[1].opened == data.frame["ts_event"][29] + MINUTE + SECOND // 5


def test_an_outage_passes_beside_a_market_that_goes_on(data: GatewayData) -> None:
    with (
        Gateway(data, faults=[Fault("rst", after_bars=40, outage_s=600.0)], wait_for=2) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        first.subscribe().start()
        second.subscribe().start()
        wait_until(lambda: any(connection.ended for connection in gateway.connections))
        with Client(gateway.port) as third:
            third.subscribe().start()
            wait_until(lambda: bool(third.records))
            assert gateway.connections[2].opened >= data.span[0] + 600 * SECOND
        # Either of them was cut off.
        first.wait(0.1)
        second.wait(0.1)


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_bytes_are_followed_by_silence(data: GatewayData, kind: str) -> None:
    with (
        Gateway(data, faults=[Fault(kind, after_bars=12, outage_s=60.0)]) as gateway,
        RawClient(gateway.port) as client,
    ):
        client.begin().read(timeout=0.3)
        assert client.ended == "silence"
        records, rest = client.records()
        assert sum(record[1] == 33 for record in records) == 12
        held = gateway.market_now()
        expected = {"garbage": (255, 254), "bad_length": (4, 33), "zero_length": (0, 33)}
        assert tuple(rest[:2]) == expected.get(kind, (14, 254))
        client.socket.close()
        wait_until(lambda: gateway.market_now() == held + 60 * SECOND)


@pytest.mark.parametrize(
    "kind", ["garbage", "zero_length", "unknown_rtype", "future_version", "bad_header"]
)
def test_the_real_client_ends_silently_on_broken_bytes(data: GatewayData, kind: str) -> None:
    after = None if kind in CONNECTION_FAULTS else 12
    with (
        Gateway(data, faults=[Fault(kind, after_bars=after)]) as gateway,
        Client(gateway.port) as client,
    ):
        assert client.subscribe().run() is None
        wait_until(lambda: gateway.sessions_open == 0)


def test_a_good_bar_is_lost_with_the_bad_record_beside_it(data: GatewayData) -> None:
    script = [Fault("unknown_rtype_beside_bar", after_bars=12)]
    with Gateway(data, faults=script) as gateway, RawClient(gateway.port) as raw:
        raw.begin().read(timeout=0.3)
        assert raw.ended == "silence"
        assert len(bars_in(raw)) == 13
        assert tuple(raw.records()[1][:2]) == (14, 254)
    with Gateway(data, faults=script) as gateway, Client(gateway.port) as client:
        assert client.subscribe().run() is None
    # And whatever else came in the same read.
    assert len(client.bars) <= 12
    assert client.bars == rows_of(data)[: len(client.bars)]


@pytest.mark.parametrize("kind", ["freeze", "freeze_after_metadata", "freeze_before_metadata"])
def test_a_frozen_session_stays_open_and_silent(data: GatewayData, kind: str) -> None:
    after = 12 if kind == "freeze" else None
    with Gateway(data, faults=[Fault(kind, after_bars=after, outage_s=300.0)]) as gateway:
        with RawClient(gateway.port) as client:
            client.begin().read(timeout=0.3)
            assert client.ended == "silence"
            assert len(bars_in(client)) == (12 if kind == "freeze" else 0)
            assert bool(client.content) == (kind != "freeze_before_metadata")
            assert bool(client.records()[0]) == (kind == "freeze")
            assert gateway.sessions_open == 1
            held = gateway.market_now()
        wait_until(lambda: gateway.market_now() == held + 300 * SECOND)
        with Client(gateway.port) as again:
            again.subscribe().start()
            wait_until(lambda: bool(again.bars))


@pytest.mark.parametrize("kind", ["freeze", "freeze_after_metadata"])
def test_the_real_client_waits_for_its_first_record_for_ever(
    data: GatewayData, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watchdog begins with a record: a session frozen before that has to be noticed by us."""
    monkeypatch.setattr("databento.live.session.CLIENT_TIMEOUT_MARGIN_SECONDS", 0)
    after = 12 if kind == "freeze" else None
    with (
        Gateway(data, faults=[Fault(kind, after_bars=after)]) as gateway,
        Client(gateway.port, heartbeat_interval_s=1) as client,
    ):
        client.subscribe().start()
        if kind == "freeze":
            assert "Gateway timeout" in str(client.wait(30.0))
        else:
            time.sleep(4.0)  # noqa: TID251 -- four times its patience
            assert client.live.is_connected()
            assert not client.records


def test_others_go_on_while_one_is_frozen(data: GatewayData) -> None:
    with (
        Gateway(
            data, faults=[Fault("freeze", after_bars=10)], wait_for=2, at_end="close"
        ) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        first.subscribe().start()
        second.subscribe().start()
        assert gateway.wait_finished(10.0)
        counts = sorted(connection.live_bars for connection in gateway.connections)
    assert counts[1] == len(data.frame)
    assert counts[0] < 11


@pytest.mark.parametrize(
    ("kind", "message"),
    [("auth_reject", r"Authentication failed\."), ("limit_reject", "open connection limit")],
)
def test_a_connection_is_rejected_as_often_as_told(
    data: GatewayData, kind: str, message: str
) -> None:
    with Gateway(data, faults=[Fault(kind, times=2)]) as gateway:
        for _ in range(2):
            with Client(gateway.port) as client, pytest.raises(databento.BentoError, match=message):
                client.subscribe()
        with Client(gateway.port) as client:
            client.subscribe()


@pytest.mark.parametrize("kind", ["accept_then_close", "close_before_auth_reply", "silence"])
def test_a_connection_gets_no_answer(data: GatewayData, kind: str) -> None:
    with Gateway(data, faults=[Fault(kind, outage_s=5.0)]) as gateway:
        with RawClient(gateway.port) as client:
            if kind == "close_before_auth_reply":
                assert client.greet() == ""
            elif kind == "accept_then_close":
                assert client.read(0.3).ended == "fin"
            else:
                assert client.read(0.2).ended == "silence"
                assert not client.content
        with Client(gateway.port) as client:
            client.subscribe()
            wait_until(lambda: len(gateway.connections) == 2)
            assert gateway.connections[1].opened == data.span[0] + 5 * SECOND


FIRST_LINES = {
    "accept_then_close": "",
    "close_after_greeting": "lsg_version=0.4.2\n",
    "garbage_greeting": "#!garbage\n",
    "greeting_without_equals": "lsg_version0.4.2\n",
    "silence": "",
    "silence_after_greeting": "lsg_version=0.4.2\n",
}
REPLIES = {
    "close_before_auth_reply": "",
    "extra_auth_field": "success=1|session_id=1001|plan=standard\n",
    "trailing_pipe": "success=1|session_id=1001|\n",
}


@pytest.mark.parametrize("kind", [*FIRST_LINES, *REPLIES])
def test_the_real_client_waits_for_an_answer_that_it_can_read(
    data: GatewayData, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("databento.live.session.AUTH_TIMEOUT_SECONDS", 0.5)
    with Gateway(data, faults=[Fault(kind)]) as gateway:
        with (
            Client(gateway.port) as client,
            pytest.raises(databento.BentoError, match=r"Authentication .* timed out"),
        ):
            client.subscribe()
        monkeypatch.undo()
        with Client(gateway.port) as client:
            client.subscribe()


@pytest.mark.parametrize("kind", FIRST_LINES)
def test_a_first_line_is_spoilt(data: GatewayData, kind: str) -> None:
    with Gateway(data, faults=[Fault(kind)]) as gateway, RawClient(gateway.port) as client:
        client.read(0.3)
        assert client.content.decode() == FIRST_LINES[kind]
        assert client.ended == ("fin" if "close" in kind else "silence")


@pytest.mark.parametrize("kind", REPLIES)
def test_an_answer_to_a_key_is_spoilt(data: GatewayData, kind: str) -> None:
    with Gateway(data, faults=[Fault(kind)]) as gateway, RawClient(gateway.port) as client:
        assert client.greet() == REPLIES[kind]


def test_an_answer_to_a_key_takes_its_time(
    data: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gateway(data, faults=[Fault("slow_auth", delay_s=40.0)], at_end="close") as gateway:
        with Client(gateway.port) as client:
            client.subscribe().run()
        (connection,) = gateway.connections
        assert connection.started == connection.opened + 40 * SECOND
        assert client.bars == rows_of(data)
    # Of the market: at its own speed the real client sees it, and gives up.
    monkeypatch.setattr("databento.live.session.AUTH_TIMEOUT_SECONDS", 0.5)
    with (
        Gateway(data, speed=1.0, faults=[Fault("slow_auth", delay_s=40.0)]) as gateway,
        Client(gateway.port) as client,
        pytest.raises(databento.BentoError, match=r"Authentication .* timed out"),
    ):
        client.subscribe()


# In a process of its own, as what is blocked then stays so.
ASKS_WHETHER_CONNECTED = """
import os, sys, threading
import databento
client = databento.Live(
    key=sys.argv[2], gateway="127.0.0.1", port=int(sys.argv[1]), reconnect_policy="reconnect"
)
client.add_callback(lambda record: None)
client.subscribe("GLBX.MDP3", "ohlcv-1m", "ES.FUT", "parent")
client.start()
sys.stdin.readline()
asking = threading.Thread(target=client.is_connected, daemon=True)
asking.start()
asking.join(float(sys.stdin.readline()))
print("blocked" if asking.is_alive() else "answered", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("kind", "patience_s", "expected"),
    [
        (None, 60, "answered"),
        ("other_metadata", 3, "blocked"),
        ("freeze_before_metadata", 3, "blocked"),
    ],
)
def test_the_real_client_that_reconnects_is_stuck_behind_an_odd_header(
    data: GatewayData, kind: str | None, patience_s: float, expected: str
) -> None:
    """Why a client is used for one connection only."""
    script = [Fault("rst", after_bars=5), *([Fault(kind, after_bars=5)] if kind else [])]
    with Gateway(data, faults=script) as gateway:
        arguments = [sys.executable, "-c", ASKS_WHETHER_CONNECTED]
        with subprocess.Popen(
            [*arguments, str(gateway.port), REHEARSAL_KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                wait_until(
                    lambda: [c.started is not None for c in gateway.connections] == [True, True],
                    60.0,
                )
                said, _ = process.communicate(f"\n{patience_s}\n", timeout=90.0)
            finally:
                process.kill()
        assert gateway.connections[1].faults == ([kind] if kind else [])
    assert said == f"{expected}\n"


def test_a_header_can_be_another_one(data: GatewayData) -> None:
    faults = [Fault("other_metadata", outage_s=600.0)]
    headers = []
    with Gateway(data, faults=faults) as gateway:
        for _ in range(2):
            with RawClient(gateway.port) as client:
                client.begin().read(0.3)
                headers.append(dbn.Metadata.decode(client.content))
        # The stream is as good as any, and no outage follows it.
        assert gateway.connections[0].live_bars == len(data.frame)
        assert gateway.market_now() < data.span[1] + 600 * SECOND
    assert [header.symbols for header in headers] == [["OTHER"], []]


def test_a_fault_of_the_connection_can_wait_for_a_bar(data: GatewayData) -> None:
    script = [Fault("rst", after_bars=20), Fault("auth_reject", after_bars=20)]
    with Gateway(data, faults=script) as gateway:
        with Client(gateway.port) as client:
            client.subscribe().run()
        with Client(gateway.port) as client, pytest.raises(databento.BentoError):
            client.subscribe()


def test_a_listener_that_is_down_refuses_and_comes_back(data: GatewayData) -> None:
    with Gateway(data, faults=[Fault("listener_down", after_bars=25, outage_s=90.0)]) as gateway:
        with Client(gateway.port) as client:
            client.subscribe().run()
            assert len(client.bars) == 25
        cut = data.frame["ts_event"][24] + MINUTE + SECOND // 5
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.port))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", gateway.port))
        wait_until(lambda: connects(gateway.port))
        with Client(gateway.port) as client:
            client.subscribe().start()
            wait_until(lambda: bool(client.records))
        assert gateway.connections[-1].opened == cut + 90 * SECOND


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_fatal_error_ends_with_its_code(data: GatewayData) -> None:
    fault = Fault("fatal_error", after_bars=9, code=7, text="skipped")
    with Gateway(data, faults=[fault]) as gateway, Client(gateway.port) as client:
        error = client.subscribe().run()
    assert client.errors == [(7, "skipped")]
    assert "skipped" in str(error)


def streamed(data: GatewayData, fault: Fault) -> Client:
    """Return a client that took the whole stream with one fault in it."""
    with Gateway(data, faults=[fault], at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe().run()
        assert gateway.wait_finished(5.0)
    return client


def test_an_error_that_is_not_fatal_ends_nothing(data: GatewayData) -> None:
    client = streamed(data, Fault("error", after_bars=9, code=4, text="odd"))
    assert client.errors == [(4, "odd")]
    assert client.bars == rows_of(data)


def test_a_warning_to_slow_readers(data: GatewayData) -> None:
    client = streamed(data, Fault("slow_reader_warning", after_bars=9))
    assert len(client.system(dbn.SystemCode.SLOW_READER_WARNING)) == 1
    assert client.bars == rows_of(data)


def test_a_burst_repeats_the_last_bars(data: GatewayData) -> None:
    client = streamed(data, Fault("duplicate_burst", after_bars=30, count=5))
    rows = rows_of(data)
    assert client.bars == rows[:30] + rows[25:30] + rows[30:]


def test_a_conflict_is_the_same_bar_with_other_numbers(data: GatewayData) -> None:
    client = streamed(data, Fault("conflict", after_bars=30))
    rows = rows_of(data)
    changed = (*rows[29][:6], rows[29][6] + 1)
    assert client.bars == [*rows[:30], changed, *rows[30:]]


@pytest.mark.parametrize(("kind", "sign"), [("future_bar", 1), ("past_bar", -1)])
def test_a_bar_of_another_time(data: GatewayData, kind: str, sign: int) -> None:
    client = streamed(data, Fault(kind, after_bars=30, delay_s=7200.0))
    rows = rows_of(data)
    assert client.bars[:30] + client.bars[31:] == rows
    assert client.bars[30][:2] == (rows[29][0] + sign * 7200 * SECOND, rows[29][1])


def test_a_bar_of_another_type(data: GatewayData) -> None:
    client = streamed(data, Fault("wrong_type", after_bars=30))
    assert client.bars == rows_of(data)
    assert sum(isinstance(record, dbn.MBOMsg) for record in client.records) == 1


def test_a_dropped_bar_is_in_the_replay(data: GatewayData) -> None:
    rows = rows_of(data)
    with (
        Gateway(data, faults=[Fault("drop_bar", after_bars=30)], at_end="close") as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe().run()
        with Client(gateway.port) as again:
            again.subscribe(start=0).run()
    assert client.bars == rows[:30] + rows[31:]
    assert again.bars == rows


def test_two_bars_in_the_wrong_order(data: GatewayData) -> None:
    client = streamed(data, Fault("reorder", after_bars=30))
    rows = rows_of(data)
    assert client.bars == [*rows[:30], rows[31], rows[30], *rows[32:]]


def test_an_instrument_gets_another_id(data: GatewayData) -> None:
    client = streamed(data, Fault("mapping_change", after_bars=30))
    rows = rows_of(data)
    old, new = rows[29][1], 4004
    name = next(symbol for symbol, number in data.ids.items() if number == old)
    assert client.mappings[-1] == ("ES.FUT", name, new)
    expected = [(row[0], new if row[1] == old else row[1], *row[2:]) for row in rows[30:]]
    assert client.bars == rows[:30] + expected


@pytest.mark.parametrize("at", [None, 30 * MINUTE + 7])
def test_everybody_is_told_of_another_id_once(data: GatewayData, at: int | None) -> None:
    after = 30 if at is None else None
    fault = Fault("mapping_change", after_bars=after, at=at and data.span[0] + at)
    with (
        Gateway(data, faults=[fault], at_end="close", wait_for=2) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        first.subscribe().subscribe("ESZ4", stype_in="raw_symbol").start()
        second.subscribe().start()
        first.wait()
        second.wait()
    assert [number for *_, number in second.mappings] == [*data.ids.values(), 4004]
    changed = second.mappings[-1][1]
    told = [asked for asked, name, number in first.mappings if number == 4004]
    assert told == (["ES.FUT", "ESZ4"] if changed == "ESZ4" else ["ES.FUT"])
    for client in (first, second):
        assert {bar[1] for bar in client.bars} == {*data.ids.values(), 4004}
        assert_mapped_before_their_bars(client)


def assert_mapped_before_their_bars(client: Client) -> None:
    known: set[int] = set()
    for record in client.records:
        if isinstance(record, dbn.SymbolMappingMsg):
            known.add(record.instrument_id)
        elif isinstance(record, dbn.OHLCVMsg):
            assert record.instrument_id in known


def trades_of(data: GatewayData) -> GatewayData:
    """Return trades at the prices and times of the bars, and no bar."""
    told = data.frame.select(
        "symbol", ts_recv="ts_event", price="close", size=pl.col("volume").clip(1)
    )
    return GatewayData.from_bars(pl.DataFrame(), told)


@pytest.mark.parametrize("kind", sorted(set(STREAM_FAULTS) - set(BAR_FAULTS)))
def test_a_fault_without_bars_happens_to_trades(data: GatewayData, kind: str) -> None:
    trades = trades_of(data)
    fault = Fault(kind, at=trades.span[0] + 5 * MINUTE + 7)
    with Gateway(trades, faults=[fault]) as gateway, RawClient(gateway.port) as client:
        client.begin(schema="trades")
        wait_until(lambda: gateway.connections[0].faults == [kind])
        client.read(0.3)
        gateway.check()
    rest = client.records()[1]
    if kind in {"bad_length", "unknown_rtype", "zero_length"}:
        assert tuple(rest[:2]) == {"bad_length": (4, 0), "zero_length": (0, 0)}.get(kind, (12, 254))


@pytest.mark.parametrize(
    "fault", [*(Fault(kind, at=7) for kind in BAR_FAULTS), Fault("rst", after_bars=3)]
)
def test_a_fault_that_needs_bars_is_refused_without_them(data: GatewayData, fault: Fault) -> None:
    trades = trades_of(data)
    with pytest.raises(ConfigError, match="no bars, so this fault would never happen"):
        Gateway(trades, faults=[fault])
    with Gateway(trades) as gateway, pytest.raises(ConfigError, match="never happen"):
        gateway.inject(fault)


def test_a_fault_of_bars_does_not_meet_a_session_of_trades(data: GatewayData) -> None:
    both = GatewayData.from_bars(data.frame, trades_of(data).trades)
    faults = [Fault(kind, at=data.span[0] + 5 * MINUTE + 7) for kind in ("conflict", "rst")]
    with Gateway(both, faults=faults) as gateway, RawClient(gateway.port) as client:
        client.begin(schema="trades").read()
        assert gateway.connections[0].faults == ["rst"]
    assert client.ended == "rst"


@pytest.mark.parametrize("at_end", ["hold", "close"])
def test_a_fault_after_the_end_of_the_data(data: GatewayData, at_end: str) -> None:
    tiny = data.before(data.span[0] + 3 * MINUTE)
    at = tiny.span[1] + 5 * MINUTE
    with (
        Gateway(tiny, faults=[Fault("rst", at=at)], at_end=at_end) as gateway,
        RawClient(gateway.port) as client,
    ):
        client.begin().read()
        assert client.ended == "rst"
        assert gateway.connections[0].faults == ["rst"]
        assert gateway.market_now() >= at


def test_byte_after_byte(data: GatewayData) -> None:
    client = streamed(data, Fault("byte_at_a_time", after_bars=30, count=1000))
    assert client.bars == rows_of(data)


def test_an_interval_that_is_closed_late(data: GatewayData) -> None:
    client = streamed(data, Fault("late_eoi", after_bars=30, delay_s=150.0))
    end = data.frame["ts_event"][29] + MINUTE
    late = [m for m in client.system(dbn.SystemCode.END_OF_INTERVAL) if m.ts_event == end]
    assert [m.ts_out for m in late] == [end + SECOND // 5 + 150 * SECOND]
    assert client.bars == rows_of(data)


def test_intervals_that_are_never_closed(data: GatewayData) -> None:
    client = streamed(data, Fault("no_eoi", after_bars=30, times=2))
    first = data.frame["ts_event"][29] + MINUTE
    missing = {later - earlier for earlier, later in pairwise(client.closings)} - {MINUTE}
    assert missing
    assert first not in client.closings


def test_a_fault_at_an_instant(data: GatewayData) -> None:
    at = data.span[0] + 10 * MINUTE + 7 * SECOND
    gateway, clients = resumed(data, Fault("rst", at=at, outage_s=60.0))
    assert len(clients) == 2
    assert gateway.connections[1].opened == at + 60 * SECOND
    assert clients[0].bars == [row for row in rows_of(data) if row[0] + MINUTE < at]


def test_a_fault_happens_as_often_as_told(data: GatewayData) -> None:
    gateway, clients = resumed(data, Fault("rst", after_bars=20, times=3))
    assert len(clients) == 4
    assert [connection.live_bars for connection in gateway.connections][:3] == [20, 20, 20]


def test_a_fault_can_be_injected(data: GatewayData) -> None:
    with Gateway(data, speed=600.0) as gateway, Client(gateway.port) as client:
        client.subscribe().start()
        wait_until(lambda: bool(client.bars))
        gateway.inject(Fault("fin"))
        assert client.wait() is None
        assert gateway.connections[0].ended == "fin"


def test_a_mixture_is_survived(data: GatewayData) -> None:
    script = [
        Fault("duplicate_burst", after_bars=10),
        Fault("rst", after_bars=20, outage_s=30.0),
        Fault("fin_mid_record", after_bars=33, outage_s=200.0),
        Fault("garbage", after_bars=50, outage_s=90.0),
        Fault("reorder", after_bars=60),
        Fault("fatal_error", after_bars=70),
        Fault("fin", after_bars=90),
    ]
    _, clients = resumed(data, *script)
    found = {bar for client in clients for bar in client.bars}
    assert sorted(found) == sorted(rows_of(data))


def test_every_fault_of_the_list_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for kind in (*CONNECTION_FAULTS, *STREAM_FAULTS, *MARKET_FAULTS):
        assert f'"{kind}"' in source, kind


def test_a_script_counts() -> None:
    script = FaultScript([Fault("rst", after_bars=5, times=2), Fault("auth_reject", at=100)])
    assert (script.next_bars(), script.next_instant()) == (5, 100)
    assert script.take(STREAM_FAULTS) is None
    script.arm(bars=5, now=99)
    taken = Counter(fault.kind for _ in range(3) if (fault := script.take(STREAM_FAULTS)))
    assert taken == {"rst": 1}
    assert script.next_bars() == 10
    script.arm(now=100)
    assert script.take(CONNECTION_FAULTS) == Fault("auth_reject", at=100)
    assert script.next_instant() is None


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "earthquake"},
        {"kind": "rst", "times": 0},
        {"kind": "rst", "outage_s": -1.0},
        {"kind": "rst", "after_bars": 3, "at": 4},
        {"kind": "rst", "after_bars": -1},
        {"kind": "rst", "at": 2**64},
        {"kind": "rst", "outage_s": float("nan")},
        {"kind": "late_eoi", "delay_s": 1e12},
        {"kind": "error", "code": 256},
    ],
)
def test_a_fault_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Fault(**options)  # type: ignore[arg-type]


def test_time_passes_while_a_paced_listener_is_down(data: GatewayData) -> None:
    fault = Fault("listener_down", after_bars=10, outage_s=1200.0)
    with Gateway(data, speed=2400.0, faults=[fault]) as gateway:
        with Client(gateway.port) as client:
            client.subscribe().run()
        begun = time.monotonic()
        wait_until(lambda: connects(gateway.port))
        assert time.monotonic() - begun > 0.3
        assert gateway.market_now() >= data.frame["ts_event"][9] + MINUTE + 1200 * SECOND
