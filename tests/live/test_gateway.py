from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import databento
import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import Gateway, GatewayData, sample_parent_data
from clustercore.gateway.market import MarketTime, Schedule
from tests.live.gateway_clients import Client, RawClient, wait_until

MINUTE = 60 * 10**9
SECOND = 10**9


@pytest.fixture(scope="module")
def sample() -> GatewayData:
    """Two sessions of ES, cut to what a test can look at."""
    return sample_parent_data(2)


@pytest.fixture(scope="module")
def short(sample: GatewayData) -> GatewayData:
    """Return the first two hours."""
    return sample.before(sample.span[0] + 120 * MINUTE)


def rows_of(data: GatewayData) -> list[tuple[int, ...]]:
    columns = ["ts_event", "instrument_id", "open", "high", "low", "close", "volume"]
    return list(data.frame.select(columns).iter_rows())


def test_a_whole_stream_reaches_the_real_client(sample: GatewayData) -> None:
    with Gateway(sample, at_end="close") as gateway, Client(gateway.port) as client:
        assert client.subscribe().run() is None
        assert gateway.wait_finished(5.0)
    assert client.bars == rows_of(sample)
    # What a rehearsal has to know comes behind what every session begins with.
    told = client.records[1 + len(sample.ids)]
    assert told.msg == "speed=inf simulated"
    assert told.code == dbn.SystemCode.HEARTBEAT
    acks = client.system(dbn.SystemCode.SUBSCRIPTION_ACK)
    assert [ack.msg for ack in acks] == ["Subscription request 0 for ohlcv-1m data succeeded"]
    assert client.mappings == [("ES.FUT", name, number) for name, number in sample.ids.items()]
    sent = [record.ts_out for record in client.records]
    assert sent == sorted(sent)
    assert not client.errors


def test_every_interval_is_closed_once_after_its_bars(sample: GatewayData) -> None:
    with Gateway(sample, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe().run()
    held = {row[0] + MINUTE for row in rows_of(sample)}
    assert client.closings == sorted(set(client.closings))
    assert held <= set(client.closings)
    open_until = 0
    for record in client.records:
        if isinstance(record, dbn.OHLCVMsg):
            assert record.ts_event >= open_until
            assert record.ts_out == record.ts_event + MINUTE + SECOND // 5
        elif isinstance(record, dbn.SystemMsg) and record.code == dbn.SystemCode.END_OF_INTERVAL:
            open_until = record.ts_event


def test_minutes_without_a_bar_are_closed_too_unless_told_otherwise(short: GatewayData) -> None:
    thin = GatewayData.from_bars(short.frame.filter(pl.col("ts_event") % (5 * MINUTE) == 0))
    closings = {}
    for empty in (True, False):
        with (
            Gateway(thin, at_end="close", eoi_for_empty=empty) as gateway,
            Client(gateway.port) as client,
        ):
            client.subscribe().run()
        closings[empty] = client.closings
    steps = {later - earlier for earlier, later in pairwise(closings[True])}
    assert steps == {MINUTE}
    assert closings[False] == sorted({row[0] + MINUTE for row in rows_of(thin)})


def test_bars_and_closings_can_be_late(short: GatewayData) -> None:
    with (
        Gateway(short, at_end="close", bar_delay_s=1.5, eoi_delay_s=4.0) as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe().run()
    bars = [record for record in client.records if isinstance(record, dbn.OHLCVMsg)]
    assert {bar.ts_out - bar.ts_event for bar in bars} == {MINUTE + 3 * SECOND // 2}
    closings = client.system(dbn.SystemCode.END_OF_INTERVAL)
    assert {record.ts_out - record.ts_event for record in closings} == {4 * SECOND}


def test_heartbeats_come_only_when_nothing_else_does(short: GatewayData) -> None:
    for interval, expected in ((25, 2), (90, 0)):
        with (
            Gateway(short, at_end="close") as gateway,
            Client(gateway.port, heartbeat_interval_s=interval) as client,
        ):
            client.subscribe().run()
        times = [record.ts_out for record in client.records]
        assert max(later - earlier for earlier, later in pairwise(times)) <= interval * SECOND
        minutes = len(client.closings)
        beats = client.system(dbn.SystemCode.HEARTBEAT)
        assert len(beats) - expected * minutes in range(1, 7)


def test_replay_is_inclusive_and_joins_the_stream_without_a_seam(short: GatewayData) -> None:
    begin = short.span[0]
    start = begin + 60 * MINUTE
    since = begin + 20 * MINUTE
    with (
        Gateway(short, at_end="close", start=start) as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe(start=since).run()
    assert client.bars == [row for row in rows_of(short) if row[0] >= since]
    replayed = client.system(dbn.SystemCode.REPLAY_COMPLETED)
    assert [message.msg for message in replayed] == ["Finished ohlcv-1m replay"]
    place = client.records.index(replayed[0])
    before = [record for record in client.records[:place] if isinstance(record, dbn.OHLCVMsg)]
    # A bar is out 0.2 s after its end: the one that ends at the start is not there yet.
    assert max(bar.ts_event for bar in before) == start - 2 * MINUTE
    assert {bar.ts_out for bar in before} == {start}
    assert len(before) == gateway.connections[0].replayed


def test_replay_from_zero_is_everything(short: GatewayData) -> None:
    start = short.span[0] + 60 * MINUTE
    with Gateway(short, at_end="close", start=start) as gateway, Client(gateway.port) as client:
        client.subscribe(start=0).run()
    assert client.bars == rows_of(short)


def test_without_start_nothing_is_replayed(short: GatewayData) -> None:
    start = short.span[0] + 60 * MINUTE
    with Gateway(short, at_end="close", start=start) as gateway, Client(gateway.port) as client:
        client.subscribe().run()
    assert client.bars == [row for row in rows_of(short) if row[0] >= start - MINUTE]
    assert not client.system(dbn.SystemCode.REPLAY_COMPLETED)


def test_a_replay_that_is_too_old_is_refused_for_good(sample: GatewayData) -> None:
    begin = sample.span[0]
    with (
        Gateway(sample, start=begin + 25 * 60 * MINUTE) as gateway,
        Client(gateway.port) as client,
    ):
        error = client.subscribe(start=begin).run()
        assert gateway.connections[0].ended == "error 8"
    assert [code for code, _ in client.errors] == [8]
    assert isinstance(error, databento.BentoError)
    # Who has to ask history instead has to know how late it is.
    assert client.system(dbn.SystemCode.HEARTBEAT)[0].ts_out == begin + 25 * 60 * MINUTE


def test_a_replay_from_zero_goes_back_to_the_limit(sample: GatewayData) -> None:
    start = sample.span[0] + 25 * 60 * MINUTE
    with (
        Gateway(sample, start=start, at_end="close", replay_limit_s=3600.0) as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe(start=0).run()
    assert client.bars[0][0] == min(
        row[0] for row in rows_of(sample) if row[0] >= start - 60 * MINUTE
    )


@pytest.mark.parametrize(
    "key", ["db-this-one-is-not-the-key-0000-", "db-rehearsal-only-not-a-secret-1", "xyz"]
)
def test_a_wrong_key_is_refused(short: GatewayData, key: str) -> None:
    with (
        Gateway(short) as gateway,
        Client(gateway.port, key=key) as client,
        pytest.raises(databento.BentoError, match=r"Authentication failed\."),
    ):
        client.subscribe()


def test_another_dataset_is_refused(short: GatewayData) -> None:
    with (
        Gateway(short) as gateway,
        Client(gateway.port) as client,
        pytest.raises(databento.BentoError, match=r"XNAS\.ITCH"),
    ):
        client.subscribe(dataset="XNAS.ITCH")


def test_the_connection_after_the_last_allowed_one_is_refused(short: GatewayData) -> None:
    with Gateway(short, max_sessions=1) as gateway:
        with Client(gateway.port) as first:
            first.subscribe()
            with (
                Client(gateway.port) as second,
                pytest.raises(databento.BentoError, match="open connection limit"),
            ):
                second.subscribe()
        wait_until(lambda: gateway.sessions_open == 0)
        with Client(gateway.port) as third:
            third.subscribe()


def wait_for_mappings(client: Client, count: int) -> None:
    wait_until(lambda: len(client.mappings) == count)


def test_symbols_of_every_kind(sample: GatewayData) -> None:
    with Gateway(sample, wait_for=9) as gateway:
        for symbols, stype_in, expected in (
            (["ESZ4", "ESH5"], "raw_symbol", {("ESZ4", "ESZ4"), ("ESH5", "ESH5")}),
            ("ES.c.0", "continuous", {("ES.c.0", "ESZ4")}),
            ("ES.v.1", "continuous", {("ES.v.1", "ESH5")}),
            ("4003", "instrument_id", {("4003", "ESZ4-ESH5")}),
        ):
            with Client(gateway.port) as client:
                client.subscribe(symbols, stype_in=stype_in).start()
                wait_for_mappings(client, len(expected))
                assert {mapping[:2] for mapping in client.mappings} == expected


@pytest.mark.parametrize(
    ("symbol", "stype_in"),
    [
        ("ES.OPT", "parent"),
        ("ES.FOO", "parent"),
        ("ES", "parent"),
        ("NQ.FUT", "parent"),
        ("ES.q.0", "continuous"),
        ("ES.c.9", "continuous"),
        ("ES.FUT", "raw_symbol"),
        ("4004", "instrument_id"),
    ],
)
def test_a_symbol_that_means_nothing_is_not_resolved(
    short: GatewayData, symbol: str, stype_in: str
) -> None:
    tiny = short.before(short.span[0] + MINUTE)
    with Gateway(tiny, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe(symbol, stype_in=stype_in).run()
    assert client.errors == [(4, f"Failed to resolve symbol: {symbol}")]
    assert not client.mappings
    assert not client.bars


def test_an_unknown_symbol_is_an_error_that_ends_nothing(short: GatewayData) -> None:
    with Gateway(short, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe(["ESZ4", "FOOZ4"], stype_in="raw_symbol").run()
    assert client.errors == [(4, "Failed to resolve symbol: FOOZ4")]
    assert len(client.bars) == short.frame.filter(pl.col("symbol") == "ESZ4").height


def test_a_schema_that_is_not_served_ends_the_session(short: GatewayData) -> None:
    with Gateway(short) as gateway, Client(gateway.port) as client:
        client.subscribe(schema="mbp-1").run()
    assert [code for code, _ in client.errors] == [5]


def test_a_subscription_in_several_lines_is_one(short: GatewayData) -> None:
    many = [f"X{number}Z4" for number in range(1200)] + ["ESZ4"]
    with Gateway(short, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe(many, stype_in="raw_symbol").run()
        lines = gateway.connections[0].subscriptions
    assert [len(line.symbols) for line in lines] == [500, 500, 201]
    assert [line.is_last for line in lines] == [False, False, True]
    assert len(client.system(dbn.SystemCode.SUBSCRIPTION_ACK)) == 1
    assert len(client.errors) == 1200
    assert {row[1] for row in client.bars} == {short.ids["ESZ4"]}


def test_a_subscription_after_the_start_is_not_replayed(sample: GatewayData) -> None:
    with (
        Gateway(sample, at_end="close", hold=True, wait_for=2) as gateway,
        Client(gateway.port) as client,
        Client(gateway.port) as other,
    ):
        client.subscribe("ESZ4", stype_in="raw_symbol").start()
        wait_until(lambda: len(client.mappings) == 1)
        client.subscribe("ESH5", stype_in="raw_symbol", start=0)
        wait_until(lambda: len(client.mappings) == 2)
        other.subscribe().run()
        client.wait()
    assert client.bars == [row for row in rows_of(sample) if row[1] != sample.ids["ESZ4-ESH5"]]
    assert not client.system(dbn.SystemCode.REPLAY_COMPLETED)


def test_a_compressed_session_is_the_same(short: GatewayData) -> None:
    with (
        Gateway(short, at_end="close") as gateway,
        Client(gateway.port, compression=dbn.Compression.ZSTD) as client,
    ):
        client.subscribe().run()
        assert gateway.connections[0].zstd
    assert client.bars == rows_of(short)


def test_records_are_not_stamped_unless_asked(short: GatewayData) -> None:
    with Gateway(short, at_end="close") as gateway, Client(gateway.port, ts_out=False) as client:
        client.subscribe().run()
    assert client.bars == rows_of(short)
    assert {record.ts_out for record in client.records} == {dbn.UNDEF_TIMESTAMP}


def trades_beside(short: GatewayData, count: int) -> GatewayData:
    begin = short.span[0]
    received = np.sort(np.random.default_rng(5).integers(begin, begin + 5 * MINUTE, count))
    trades = pl.DataFrame(
        {
            "ts_recv": received,
            "ts_event": received - 1000,
            "price": 5000.0 + np.arange(count) % 9 * 0.25,
            "size": np.arange(count) % 7 + 1,
            "symbol": np.where(np.arange(count) % 3 == 0, "ESH5", "ESZ4"),
        }
    )
    return GatewayData.from_bars(short.before(begin + 5 * MINUTE).frame, trades)


def test_trades_come_between_the_bars_that_they_make(short: GatewayData) -> None:
    data = trades_beside(short, 20_000)
    with Gateway(data, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe().subscribe(schema="trades").run()
    assert [(t.ts_event, t.price, t.size) for t in client.trades] == list(
        data.trades.select("ts_event", "price", "size").iter_rows()
    )
    assert {t.ts_out - t.ts_recv for t in client.trades} == {0}
    sent = [record.ts_out for record in client.records]
    assert sent == sorted(sent)
    assert client.bars == rows_of(data)


def only_trades(received: list[int], happened: list[int] | None = None) -> GatewayData:
    trades = pl.DataFrame({"ts_recv": received, "ts_event": happened or received})
    return GatewayData.from_bars(
        pl.DataFrame(),
        trades.with_columns(price=pl.lit(5000.0), size=pl.lit(1), symbol=pl.lit("ESZ4")),
    )


def test_the_first_of_the_trades_is_sent_too(short: GatewayData) -> None:
    received = [short.span[0] + place * SECOND for place in range(5)]
    with Gateway(only_trades(received), at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe(schema="trades").run()
    assert [trade.ts_recv for trade in client.trades] == received


def test_a_replay_has_no_trade_of_before_its_start(short: GatewayData) -> None:
    """One that was received late is among those of after the start, in order of receipt."""
    begin = short.span[0]
    received = [begin + place * SECOND for place in range(10)]
    happened = [ts - (5 * SECOND if place == 7 else 100) for place, ts in enumerate(received)]
    data = only_trades(received, happened)
    with (
        Gateway(data, start=data.span[1], at_end="close") as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe(schema="trades", start=begin + 4 * SECOND).run()
    assert [trade.sequence for trade in client.trades] == [6, 7, 9, 10]


def test_trades_are_replayed_by_the_time_of_the_exchange(short: GatewayData) -> None:
    data = trades_beside(short, 2000)
    start = data.span[0] + 2 * MINUTE
    since = int(data.trades["ts_event"][700])
    with (
        Gateway(data, at_end="close", start=start) as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe(schema="trades", start=since).run()
    assert [t.sequence for t in client.trades] == list(range(701, 2001))


def test_two_clients_see_one_market(sample: GatewayData) -> None:
    with (
        Gateway(sample, at_end="close", wait_for=2) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        first.subscribe().start()
        second.subscribe("ESZ4", stype_in="raw_symbol").start()
        first.wait()
        second.wait()
    assert first.bars == rows_of(sample)
    assert second.bars == [row for row in rows_of(sample) if row[1] == sample.ids["ESZ4"]]
    assert first.closings == second.closings


def test_a_second_client_catches_up_with_a_market_that_runs(sample: GatewayData) -> None:
    """It is served from the same market while that goes on: nothing is lost between."""
    with (
        Gateway(sample, at_end="close", speed=200_000.0, replay_limit_s=1e6) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        first.subscribe().start()
        wait_until(lambda: len(first.bars) > 500)
        second.subscribe(start=0).start()
        first.wait()
        second.wait()
    assert first.bars == rows_of(sample)
    assert second.bars == rows_of(sample)
    assert gateway.connections[1].live_bars < len(second.bars)


@pytest.mark.parametrize("speed", [float("inf"), 1000.0])
def test_what_happens_during_a_replay_comes_after_it(short: GatewayData, speed: float) -> None:
    """The replay of a client that reads late is still under way when the market ends."""
    data = trades_beside(short, 300_000)
    with (
        Gateway(data, start=data.span[0] + 4 * MINUTE, speed=speed, at_end="close") as gateway,
        RawClient(gateway.port) as late,
        Client(gateway.port) as client,
    ):
        late.begin(schema="trades", start=0)
        wait_until(lambda: gateway.connections[0].replayed > 0)
        client.subscribe().run()
        assert gateway.connections[0].replayed < 200_000
        late.read()
    trades = [record for record in late.records()[0] if record[1] == 0]
    sequence = [int.from_bytes(record[44:48], "little") for record in trades]
    assert sequence == list(range(1, 300_001))


def test_intervals_that_end_during_a_replay_are_closed_behind_it(short: GatewayData) -> None:
    data = GatewayData.from_bars(short.frame, trades_beside(short, 300_000).trades)
    begin = data.span[0]
    with (
        Gateway(data, start=begin + 5 * MINUTE, speed=1000.0, at_end="close") as gateway,
        RawClient(gateway.port) as late,
        Client(gateway.port) as client,
    ):
        # The replay of a client that does not read is under way for as long as it wants.
        late.begin(schema="trades", start=0, and_then="ohlcv-1m")
        wait_until(lambda: gateway.connections[0].replayed > 0)
        client.subscribe().start()
        wait_until(lambda: len(client.closings) > 20)
        late.read()
    records = late.records()[0]
    completed = max(place for place, record in enumerate(records) if is_system(record, 3))
    closed: list[int] = []
    open_until = 0
    for record in records[completed:]:
        ts_event = int.from_bytes(record[8:16], "little")
        if is_system(record, 4):
            closed.append(ts_event)
            open_until = ts_event
        elif record[1] == 33:
            assert ts_event >= open_until
    assert closed == sorted(set(closed))
    assert set(closed) == set(range(closed[0], closed[-1] + 1, MINUTE))
    # The one that ends at the start is out 0.2 s later: it belongs to what is still to come.
    assert closed[0] == begin + 5 * MINUTE
    assert closed[-1] == data.span[1]


def is_system(record: bytes, code: int) -> bool:
    return record[1] == 23 and record[319] == code


def test_a_slow_market_keeps_its_clients(
    short: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty seconds of this machine are one of the market: the client does not wait so long."""
    monkeypatch.setattr("databento.live.session.CLIENT_TIMEOUT_MARGIN_SECONDS", 4)
    with (
        Gateway(short, speed=0.05) as gateway,
        Client(gateway.port, heartbeat_interval_s=1) as client,
    ):
        client.subscribe().start()
        wait_until(lambda: len(client.system(dbn.SystemCode.HEARTBEAT)) > 4, 60.0)
        assert client.live.is_connected()


def test_a_market_that_holds_keeps_its_clients(short: GatewayData) -> None:
    with (
        Gateway(short, wait_for=2) as gateway,
        Client(gateway.port, heartbeat_interval_s=1) as client,
    ):
        client.subscribe().start()
        wait_until(lambda: len(client.system(dbn.SystemCode.HEARTBEAT)) > 1, 60.0)


def test_time_without_a_session_is_jumped_over(sample: GatewayData) -> None:
    with Gateway(sample, at_end="close") as gateway, Client(gateway.port) as client:
        client.subscribe().run()
    times = [record.ts_out for record in client.records]
    jumps = [(a, b) for a, b in pairwise(times) if b - a > 40 * SECOND]
    assert len(jumps) == 1
    opening = 24 * 60 * MINUTE + sample.span[0]
    # The daily pause of an hour, up to 60 s before the session opens.
    assert jumps[0][1] == opening - MINUTE


def test_time_without_a_session_can_be_waited_for(sample: GatewayData) -> None:
    with (
        Gateway(sample, at_end="close", skip_closed=False) as gateway,
        Client(gateway.port) as client,
    ):
        client.subscribe().run()
    times = [record.ts_out for record in client.records]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 30 * SECOND


def test_the_market_holds_while_nobody_is_there(short: GatewayData) -> None:
    with Gateway(short, speed=6000.0, hold=True) as gateway:
        begin = gateway.market_now()
        assert begin == short.span[0]
        with Client(gateway.port) as client:
            client.subscribe().start()
            wait_until(lambda: len(client.bars) >= 5)
        wait_until(lambda: gateway.sessions_open == 0)
        held = gateway.market_now()
        time.sleep(0.05)  # noqa: TID251 -- five market minutes
        assert gateway.market_now() == held > begin


def test_a_market_that_does_not_hold_runs_on_once_it_has_begun(short: GatewayData) -> None:
    with Gateway(short, speed=6000.0) as gateway:
        time.sleep(0.03)  # noqa: TID251 -- nobody has come yet
        assert gateway.market_now() == short.span[0]
        with Client(gateway.port) as client:
            client.subscribe().start()
            wait_until(lambda: len(client.bars) >= 3)
        left = gateway.market_now()
        wait_until(lambda: gateway.market_now() > left + 5 * MINUTE)


def test_speed_is_kept(short: GatewayData) -> None:
    with Gateway(short, speed=3000.0) as gateway, Client(gateway.port) as client:
        client.subscribe().start()
        wait_until(lambda: bool(client.bars))
        begun, market = time.monotonic(), gateway.market_now()
        wait_until(lambda: gateway.market_now() > market + 30 * MINUTE)
        passed = time.monotonic() - begun
    assert client.system(dbn.SystemCode.HEARTBEAT)[0].msg == "speed=3000 simulated"
    # Never faster; slower where the machine is busy.
    assert passed > 0.57


def test_a_late_market_loses_no_instant() -> None:
    clock = MarketTime(1000 * SECOND, speed=1000.0)
    assert clock.head_for(1010 * SECOND) == pytest.approx(0.01, abs=0.005)
    time.sleep(0.05)  # noqa: TID251 -- the scheduler comes late
    assert clock.now() == 1010 * SECOND
    clock.reach(1010 * SECOND)
    assert clock.head_for(1020 * SECOND) == pytest.approx(0.01, abs=0.005)


def test_a_punctual_market_keeps_its_pace() -> None:
    clock = MarketTime(0, speed=1000.0)
    begun = time.monotonic()
    for step in range(1, 11):
        left = clock.head_for(step * 5 * SECOND)
        time.sleep(max(left, 0.0))  # noqa: TID251 -- as the driver does
        clock.reach(step * 5 * SECOND)
    assert time.monotonic() - begun >= 0.0499


def test_a_schedule_releases_every_row_once(sample: GatewayData) -> None:
    schedule = Schedule(
        sample,
        start=sample.span[0],
        bar_delay_ns=0,
        eoi_delay_ns=SECOND,
        empty_intervals=True,
        speed=float("inf"),
    )
    rows = 0
    while (at := schedule.peek()) is not None:
        due = schedule.take(at)
        assert due.bars.start == rows
        rows = due.bars.stop
    assert rows == len(sample.frame)


def test_at_the_end_a_gateway_goes_on_with_heartbeats(short: GatewayData) -> None:
    data = short.before(short.span[0] + 3 * MINUTE)
    with Gateway(data) as gateway, Client(gateway.port) as client:
        client.subscribe().start()
        assert gateway.wait_finished(5.0)
        wait_until(lambda: client.bars == rows_of(data))
        count = len(client.system(dbn.SystemCode.HEARTBEAT))
        wait_until(lambda: len(client.system(dbn.SystemCode.HEARTBEAT)) > count)
        assert client.live.is_connected()


def test_nothing_is_left_after_closing(short: GatewayData) -> None:
    def open_sockets() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(p.is_symlink() and str(p.readlink()).startswith("socket:") for p in links)

    with Client(1) as client:
        client.live.is_connected()
    sockets = open_sockets()
    with Gateway(short, speed=10.0) as gateway, RawClient(gateway.port) as raw:
        raw.begin()
        wait_until(lambda: gateway.sessions_open == 1)
    gateway.close()
    assert gateway.sessions_open == 0
    assert "clustercore-gateway" not in {thread.name for thread in threading.enumerate()}
    assert open_sockets() == sockets
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))


def test_a_client_that_does_not_read_stops_nobody_from_closing(sample: GatewayData) -> None:
    with Gateway(sample) as gateway, RawClient(gateway.port) as raw:
        raw.begin()
        wait_until(lambda: gateway.connections[0].live_bars > 100)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "localhost", ""])  # noqa: S104
def test_only_this_machine_is_served(short: GatewayData, host: str) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        Gateway(short, host=host)


def test_a_moment_without_free_files_passes(
    short: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = asyncio.selector_events.BaseSelectorEventLoop.sock_accept
    codes = [errno.EMFILE, errno.ENFILE, errno.ECONNABORTED]

    async def refuse(loop: Any, listener: socket.socket) -> Any:
        if codes:
            raise OSError(codes.pop(), "not now")
        return await accept(loop, listener)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_accept", refuse)
    with Gateway(short) as gateway, Client(gateway.port) as client:
        client.subscribe()
        gateway.check()
    assert not codes


def test_who_does_not_answer_the_challenge_is_cut_off(short: GatewayData) -> None:
    with Gateway(short, auth_timeout_s=0.2) as gateway:
        with RawClient(gateway.port) as silent:
            assert silent.read().ended == "fin"
        assert gateway.connections[0].ended == "no answer to the challenge"
        # Only the answer has a time: a session may be started whenever its client likes.
        with Client(gateway.port) as client:
            client.subscribe()
            time.sleep(0.5)  # noqa: TID251 -- longer than an answer may take
            client.start()
            wait_until(lambda: bool(client.bars))


def test_a_port_in_use_is_said_to_be(short: GatewayData) -> None:
    with (
        Gateway(short) as gateway,
        pytest.raises(ConfigError, match="take another port"),
        Gateway(short, port=gateway.port),
    ):
        pass


@pytest.mark.parametrize(
    "options",
    [
        {"speed": 0.0},
        {"speed": 1e308},
        {"speed": float("nan")},
        {"port": 70_000},
        {"port": -1},
        {"eoi_delay_s": 0.1},
        {"bar_delay_s": -1.0},
        {"at_end": "never"},
    ],
)
def test_settings_that_make_no_market_are_refused(
    short: GatewayData, options: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Gateway(short, **options)  # type: ignore[arg-type]
