"""The live path beside a gateway in a process of its own: real client, real store, two cores."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import duckdb
import numpy as np
import polars as pl
import pytest

import clustercore as cc
from benches.board import OURS, Row, Target
from benches.market import ONE_YEAR, ROOT
from clustercore.fold import Fold, epoch_of
from clustercore.gateway import Gateway, GatewayData, sample_parent_data
from clustercore.gateway.channel import Channel
from clustercore.gateway.historical import HistoricalServer
from clustercore.gateway.records import MINUTE_NS
from clustercore.inputs import Bar, Prints
from clustercore.live import feed as live_feed
from clustercore.live import messages as msg
from clustercore.live.clock import SystemClock
from clustercore.live.feed import Feed
from clustercore.live.gaps import Gaps
from clustercore.live.ledger import Ledger
from clustercore.live.runner import REHEARSAL_KEY, LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.strategy import Calendar, Strategy
from clustercore.live.stream import Connection
from clustercore.live.vendor import import_databento
from clustercore.parity import StoredLog, recommender_of
from clustercore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benches.board import Board
    from clustercore.inputs import Entry

pytestmark = pytest.mark.two_cores

RECOMMENDED = "live: from a bar's bytes to the recommendation on disk, {}"
COMMITTED = "live: from a bar's bytes to its commit, {}"
CATCH_UP = "live: catch-up of 30 sessions from the historical server"
RESTART = "live: restart with a year in the store, until LIVE, less the connection"
TRADES = "live: trades through the client into the store"

LESS = "less work"
# One market minute takes 80 ms: a bar is done with, and what it left behind, before the next comes.
PACE = 750.0
BAR = 33
RECOMMENDATIONS = int(os.environ.get("CLUSTERCORE_BENCH_RECOMMENDATIONS", "200"))
ROUNDS = 3
TRADE_COUNT = 400_000
DAY_NS = 86_400 * 10**9
SESSION_BARS = 1_380
# Many recommendations in few bars.
EAGER: dict[str, Any] = {
    "baseline.mode": "rolling",
    "cluster.threshold": 1.0,
    "cluster.minutes": 5,
    "profile.end_minute": 5,
    "rank.top_n": 10,
    "retest.tolerance": "4 ticks",
    "retest.timeout_minutes": 20,
    "signal.long_threshold": 0.49,
    "signal.short_threshold": 0.51,
    "signal.min_strength": 0.0,
    "volatility.minutes": 60,
    "volatility.min_minutes": 20,
    "exit.max_hold_minutes": 10,
    "stop.k": 0.5,
    "risk.max_consecutive_losses": 1_000,
    "risk.daily_loss_pct": 100.0,
}


# A process that imports what a live process does and no more, and says when what was reached.
RESTARTED = """
import json, sys, threading, time
from pathlib import Path
import clustercore as cc
from clustercore.live.feed import Feed
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.state import LIVE, State

folder, port, begun = map(json.loads, sys.argv[1:])
stamps = {"imported": time.monotonic_ns()}
runner = LiveRunner(
    cc.Config.preset("default"),
    database=Path(folder) / "live.duckdb",
    settings=LiveSettings(gateway=f"127.0.0.1:{port}", historical="none"),
)
connection, go = Feed._connection, State.go

def connecting(feed):
    stamps.setdefault("connecting", time.monotonic_ns())
    return connection(feed)

def went(state, name, reason):
    go(state, name, reason)
    if name == LIVE:
        stamps.setdefault("live", time.monotonic_ns())
        runner.stop()

Feed._connection, State.go = connecting, went
threading.Timer(60, runner.stop).start()
runner.run()
said = {name: (at - begun) / 1e9 for name, at in stamps.items()}
print(json.dumps(said | {"replayed": runner.status.counts["replayed"]}), flush=True)
sys.stdin.readline()
"""


# The other process.


class Child:
    """A gateway in another process: what it says as it begins, and what it says at the end."""

    def __init__(self, work: str, *arguments: object) -> None:
        if work == RESTARTED:
            code = work
        else:
            code = f"from benches import bench_live; bench_live.{work}(*bench_live.arguments())"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, *map(json.dumps, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.said = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the other process ended before it said anything")
        return json.loads(line)

    def tell(self) -> Any:
        """Let it go on, and return what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()


def arguments() -> list[Any]:
    return [json.loads(text) for text in sys.argv[1:]]


def say(content: object) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def serve(data: GatewayData, stamps: dict[int, int] | None = None, **given: Any) -> None:
    """Serve until the parent says a word, and answer with the stamps."""
    with Gateway(data, **given) as gateway:
        say(gateway.port)
        sys.stdin.readline()
        say(stamps or {})
        sys.stdin.readline()


def serve_sample(sessions: int, speed: float) -> None:
    """Serve the sample, and remember when the bytes of each minute's bars were handed over."""
    stamps: dict[int, int] = {}
    write = Channel.write

    def stamped(channel: Channel, content: bytes) -> None:
        if len(content) > 1 and content[1] == BAR:
            stamps.setdefault(int.from_bytes(content[8:16], "little"), time.monotonic_ns())
        write(channel, content)

    with mock.patch.object(Channel, "write", stamped):
        serve(sample_parent_data(sessions=sessions), stamps, speed=speed)


# From the bytes to the disk.


@dataclass
class Stamps:
    """When things were on disk, by the start of the bar that caused them."""

    bars: dict[int, int] = field(default_factory=dict)
    told: list[tuple[int, int]] = field(default_factory=list)


@contextlib.contextmanager
def after_commit(see: Callable[[Sequence[Entry], int], None]) -> Iterator[None]:
    """Show what each transaction wrote, and when it had."""
    commit = Store.commit

    def committed(store: Store, entries: Sequence[Entry], **rest: Any) -> None:
        commit(store, entries, **rest)
        see(entries, time.monotonic_ns())

    with mock.patch.object(Store, "commit", committed):
        yield


def run_quietly(runner: LiveRunner, limit_s: float) -> None:
    timer = threading.Timer(limit_s, runner.stop)
    timer.start()
    logging.disable(logging.CRITICAL)
    try:
        runner.run()
    finally:
        logging.disable(logging.NOTSET)
        timer.cancel()


def live_with_stamps(port: int, folder: Path, wanted: int, limit_s: float) -> Stamps:
    """Run live until so many recommendations were made."""
    stamps = Stamps()
    newest = 0
    runner = LiveRunner(
        cc.Config.preset("default").override(EAGER),
        database=folder / "live.duckdb",
        settings=LiveSettings(gateway=f"127.0.0.1:{port}", historical="none"),
    )

    def see(entries: Sequence[Entry], now: int) -> None:
        nonlocal newest
        for entry in entries:
            if isinstance(entry.item, Bar) and entry.item.actionable:
                newest = entry.item.ts_event
                stamps.bars[newest] = now

    def recommended(_: object) -> None:
        stamps.told.append((newest, time.monotonic_ns()))
        if len(stamps.told) >= wanted:
            runner.stop()

    runner.on_recommendation = recommended
    with after_commit(see):
        run_quietly(runner, limit_s)
    return stamps


def client_alone(port: int, wanted: int) -> dict[int, int]:
    """Return when the vendor's client handed over each minute's first bar."""
    stamps: dict[int, int] = {}
    enough = threading.Event()

    def take(record: Any) -> None:
        if record.rtype == BAR:
            stamps.setdefault(record.ts_event, time.monotonic_ns())
            if len(stamps) >= wanted:
                enough.set()

    with bare_client(port, take, "ohlcv-1m", "ES.FUT", "parent"):
        enough.wait(60)
    return stamps


@contextlib.contextmanager
def bare_client(
    port: int, take: Callable[[Any], None], schema: str, symbol: str, stype_in: str
) -> Iterator[None]:
    databento = import_databento()
    client = databento.Live(key=REHEARSAL_KEY.reveal(), gateway="127.0.0.1", port=port, ts_out=True)
    client.add_callback(take)
    client.subscribe("GLBX.MDP3", schema, [symbol], stype_in)
    client.start()
    try:
        yield
    finally:
        client.terminate()


def store_alone(folder: Path, rounds: int) -> list[float]:
    """Return how long DuckDB takes to commit one row of one number, ms."""
    taken = []
    with duckdb.connect(str(folder / "bare.duckdb"), config={"threads": 1}) as connection:
        connection.execute("CREATE TABLE numbers(number BIGINT)")
        for number in range(rounds):
            begin = time.monotonic_ns()
            connection.execute("INSERT INTO numbers VALUES (?)", [number])
            taken.append((time.monotonic_ns() - begin) / 1e6)
    return taken


def spread_of(taken: Sequence[float]) -> str:
    shares = (1, 10, 50, 90, 99, 100)
    return "  ".join(
        f"P{share} {value:.2f}"
        for share, value in zip(shares, np.percentile(taken, shares), strict=True)
    )


def test_latency(board: Board) -> None:
    with Child("serve_sample", 5, PACE) as gateway, folder_of_its_own() as folder:
        stamps = live_with_stamps(gateway.said, folder, RECOMMENDATIONS, 400)
        sent = {int(start): at for start, at in gateway.tell().items()}
        alone = store_alone(folder, 300)
    with Child("serve_sample", 1, PACE) as gateway:
        heard = client_alone(gateway.said, 300)
        sent_alone = {int(start): at for start, at in gateway.tell().items()}
    told = [(at - sent[start]) / 1e6 for start, at in stamps.told if start in sent]
    caused = {start for start, _ in stamps.told}
    bars = [
        (at - sent[start]) / 1e6
        for start, at in stamps.bars.items()
        if start in sent and start not in caused
    ]
    client = [(at - sent_alone[start]) / 1e6 for start, at in heard.items() if start in sent_alone]
    enough = "equal" if len(told) >= RECOMMENDATIONS else f"VOID: {len(told)} recommendations"
    peers = {"databento's client alone, to its callback": client, "DuckDB alone, one number": alone}
    for name, share, target in (("median", 50, 5.0), ("P99", 99, 25.0)):
        for work, taken, limit in ((RECOMMENDED, told, target), (COMMITTED, bars, None)):
            board.add(
                Row(
                    work.format(name),
                    OURS,
                    float(np.percentile(taken, share)),
                    "ms",
                    enough,
                    f"{len(taken)} of them; ms: {spread_of(taken)}; {under_load()}",
                    Target(limit, "ms", at_least=False) if limit else None,
                    at_least=False,
                )
            )
        for who, taken in peers.items():
            note = f"{len(taken)} of them; ms: {spread_of(taken)}"
            value = float(np.percentile(taken, share))
            work = RECOMMENDED.format(name)
            board.add(Row(work, who, value, "ms", LESS, note, at_least=False))
    assert len(told) >= RECOMMENDATIONS


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def under_load() -> str:
    return f"load of the machine {os.getloadavg()[0]:.1f}"


# History.


def serve_history(sessions: int) -> None:
    """Serve the history of so many sessions, and say where, its certificate and its span."""
    whole = GatewayData.from_files([ONE_YEAR])
    begin = int(calendar().opens[calendar().session(whole.span[0]) + 5])  # type: ignore[operator]
    end = int(calendar().closes[calendar().session(begin) + sessions - 1])  # type: ignore[operator]
    part = GatewayData(
        whole.frame.filter(pl.col("ts_event").is_between(begin, end, closed="left")),
        whole.trades,
        "30 sessions",
    )
    with HistoricalServer(part) as server:
        said = [server.url, str(server.certificate), len(part.frame), part.span]
        say(said)
        sys.stdin.readline()


def calendar() -> Calendar:
    return Calendar(cc.load_sessions())


def catch_up(url: str, span: Sequence[int], folder: Path) -> tuple[float, int]:
    """Return the seconds from the first question until all is on disk, and the bars consumed."""
    runner = LiveRunner(
        cc.Config.preset("default"),
        database=folder / "live.duckdb",
        settings=LiveSettings(
            gateway="127.0.0.1:9", historical=url, backfill_days=(span[1] - span[0]) // DAY_NS + 1
        ),
    )
    begun = 0
    written = 0
    fill: Any = vars(Gaps)["fill"]

    def filled(gaps: Gaps, roots: Sequence[str]) -> None:
        nonlocal begun
        begun = begun or time.monotonic_ns()
        fill(gaps, roots)

    def stopped(feed: Feed) -> Any:
        feed.stop.set()
        return vars(live_feed)["_Ended"](msg.Lost("the history is there"))

    def see(_: Sequence[Entry], now: int) -> None:
        nonlocal written
        written = now

    with (
        mock.patch.object(Gaps, "fill", filled),
        mock.patch.object(Feed, "_connection", stopped),
        after_commit(see),
    ):
        run_quietly(runner, 120)
    return (written - begun) / 1e9, runner.status.counts["bars"]


def vendor_alone(url: str, certificate: str, span: Sequence[int]) -> float:
    """Return the seconds that the vendor's client takes to fetch and frame the same bars."""
    before = os.environ.get("REQUESTS_CA_BUNDLE")
    os.environ["REQUESTS_CA_BUNDLE"] = certificate
    try:
        client = import_databento().Historical(key=REHEARSAL_KEY.reveal(), gateway=url)
        begin = time.monotonic_ns()
        client.timeseries.get_range(
            dataset="GLBX.MDP3",
            symbols="ES.FUT",
            stype_in="parent",
            schema="ohlcv-1m",
            start=span[0],
            end=span[1],
        ).to_df()
        return (time.monotonic_ns() - begin) / 1e9
    finally:
        if before is None:
            del os.environ["REQUESTS_CA_BUNDLE"]
        else:
            os.environ["REQUESTS_CA_BUNDLE"] = before


def test_catch_up(board: Board) -> None:
    taken, peers, consumed = [], [], 0
    with Child("serve_history", 30) as server:
        url, certificate, bars, span = server.said
        for _ in range(ROUNDS):
            with folder_of_its_own() as folder:
                seconds, consumed = catch_up(url, span, folder)
            taken.append(seconds)
            peers.append(vendor_alone(url, certificate, span))
    # The first session only says which month is in front.
    whole = consumed >= bars - 2 * SESSION_BARS
    board.add(
        Row(
            CATCH_UP,
            OURS,
            statistics.median(taken),
            "s",
            "equal" if whole else f"VOID: {consumed} of {bars} bars",
            f"{bars} bars, {consumed} taken by the engine; price, request, check, contract of "
            f"each session, engine and store; best {min(taken):.2f}; {under_load()}",
            Target(3.0, "s", at_least=False),
            at_least=False,
            rounds=ROUNDS,
        )
    )
    note = "get_range and to_df; nothing checked, nothing decided, nothing stored"
    who = "databento's client alone"
    board.add(Row(CATCH_UP, who, statistics.median(peers), "s", LESS, note, at_least=False))
    assert whole


# A restart.


def write_year(path: Path) -> tuple[int, int]:
    """Write all of 2019 but its last session into a store; return its end and the entries."""
    frame = GatewayData.from_files([ONE_YEAR]).frame
    table = calendar()
    row = table.session(int(frame["ts_event"][-1]))
    assert row is not None
    end = table.closes[row - 1]
    config, instrument = cc.Config.preset("default"), cc.Instrument.builtin("ES")
    with Store.open(path) as store:
        sessions_hash = store.save_sessions(table.sessions)
        ledger = Ledger(store, SystemClock())
        strategy = Strategy(
            Fold("ES", StoredLog(store)),
            instrument,
            config,
            table,
            MINUTE_NS,
            enter=ledger.enter,
            journal=ledger.journal,
        )
        epoch = epoch_of(1, config, instrument, sessions_hash, MINUTE_NS)
        ledger.recommenders["ES"] = recommender_of(epoch, table.sessions)
        strategy.begin([epoch])
        columns = frame.filter(pl.col("ts_event") < end).select(
            "symbol", "ts_event", "open", "high", "low", "close", "volume"
        )
        for symbol, start, *values in columns.iter_rows():
            late = start + MINUTE_NS + 10**8
            strategy.take(
                symbol, start, tuple(values), origin="live", arrival=late, actionable=True
            )
            strategy.close(start + MINUTE_NS, "eoi")
            if ledger.waiting > 5_000:
                ledger.commit()
        ledger.commit()
        return end, store.next_seq - 1


def serve_after(start: int) -> None:
    """Serve what comes after an instant, at 60 times the market's speed."""
    serve(GatewayData.from_files([ONE_YEAR]), speed=60.0, start=start)


def reading_alone(path: Path) -> float:
    """Return the seconds that DuckDB takes to hand over every input as a frame."""
    begin = time.monotonic_ns()
    with Store.open(path, read_only=True) as store:
        store.inputs("ES")
    return (time.monotonic_ns() - begin) / 1e9


def test_restart(board: Board) -> None:
    found, reading = [], []
    with folder_of_its_own() as folder:
        end, entries = write_year(folder / "live.duckdb")
        with Child("serve_after", end + MINUTE_NS) as gateway:
            for _ in range(ROUNDS):
                begun = time.monotonic_ns()
                with Child(RESTARTED, str(folder), gateway.said, begun) as process:
                    found.append(process.said)
                reading.append(reading_alone(folder / "live.duckdb"))
    ready = [one["connecting"] for one in found]
    middle = {name: statistics.median(one[name] for one in found) for name in ("imported", "live")}
    complete = all(one["replayed"] >= entries for one in found)
    board.add(
        Row(
            RESTART,
            OURS,
            statistics.median(ready),
            "s",
            "equal" if complete else "VOID: not all entries were replayed",
            f"{entries} inputs taken again and compared with what is stored; a process of its own, "
            f"{middle['imported']:.2f} s of it to start and import; LIVE after "
            f"{middle['live']:.2f} s, connection and replay included; best {min(ready):.2f}; "
            f"{under_load()}",
            Target(2.0, "s", at_least=False),
            at_least=False,
            rounds=ROUNDS,
        )
    )
    note = "reads the inputs as a frame; no engine, no comparison"
    who = "DuckDB alone"
    board.add(Row(RESTART, who, statistics.median(reading), "s", LESS, note, at_least=False))
    assert complete


# Trades.


def market_of_trades(count: int, minutes: int) -> GatewayData:
    """Return so many trades of one contract, evenly in time, and the bars that they make."""
    draw = np.random.default_rng(7)
    begin = 1_733_900_400 * 10**9
    step = minutes * MINUTE_NS // count
    # What happens at the very first instant counts as sent before anybody came.
    times = begin + step // 2 + np.arange(count, dtype=np.int64) * step
    ticks = np.clip(np.cumsum(draw.integers(-1, 2, count)), -4_000, 4_000)
    trades = pl.DataFrame(
        {
            "ts_recv": times,
            "price": 5_000_000_000_000 + ticks * 250_000_000,
            "size": draw.integers(1, 9, count),
            "symbol": pl.repeat("ESZ4", count, eager=True),
        }
    )
    minute = (pl.col("ts_recv") // MINUTE_NS * MINUTE_NS).alias("ts_event")
    bars = trades.group_by(minute, maintain_order=True).agg(
        pl.col("price").first().alias("open"),
        pl.col("price").max().alias("high"),
        pl.col("price").min().alias("low"),
        pl.col("price").last().alias("close"),
        pl.col("size").sum().alias("volume"),
        pl.col("symbol").first(),
    )
    return GatewayData.from_bars(bars, trades, source="evenly spread trades", simulated=True)


def serve_trades(count: int, minutes: int, rate: float) -> None:
    """Serve trades at so many a second of this machine's time, or as fast as they are read (0)."""
    speed = rate * minutes * 60 / count if rate else math.inf
    serve(market_of_trades(count, minutes), speed=speed)


@dataclass
class Taken:
    """How a stream of trades was taken."""

    seconds: float
    stored: int
    highest: int
    left: int


def take_trades(port: int, count: int, folder: Path) -> Taken:
    """Run live on trades until all of them are in the store."""
    runner = LiveRunner(
        cc.Config.preset("default").override({"profile.source": "trades"}),
        ["ESZ4"],
        database=folder / "live.duckdb",
        settings=LiveSettings(
            gateway=f"127.0.0.1:{port}",
            historical="none",
            queue_mark=100_000_000,
            queue_limit=100_000_000,
        ),
    )
    first = last = stored = left = 0
    take = Connection.take

    def taking(connection: Connection, timeout: float, most: int = 50_000) -> Any:
        nonlocal first, left
        found = take(connection, timeout, most)
        left = connection.waiting
        if not first and any(isinstance(message, msg.MarketTrades) for message in found):
            first = time.monotonic_ns()
        return found

    def see(entries: Sequence[Entry], now: int) -> None:
        nonlocal stored, last
        stored += sum(len(entry.item) for entry in entries if isinstance(entry.item, Prints))
        last = now
        if stored >= count:
            runner.stop()

    with mock.patch.object(Connection, "take", taking), after_commit(see):
        run_quietly(runner, 120)
    return Taken((last - first) / 1e9, stored, runner.status.queue_mark, left)


def trades_alone(port: int, count: int) -> float:
    """Return the seconds in which the vendor's client counts the trades in its callback."""
    stamps = [0, 0]
    counted = 0
    done = threading.Event()

    def take(record: Any) -> None:
        nonlocal counted
        if record.rtype != 0:
            return
        counted += 1
        if counted == 1:
            stamps[0] = time.monotonic_ns()
        elif counted == count:
            stamps[1] = time.monotonic_ns()
            done.set()

    with bare_client(port, take, "trades", "ESZ4", "raw_symbol"):
        assert done.wait(60)
    return (stamps[1] - stamps[0]) / 1e9


def test_trades(board: Board) -> None:
    with Child("serve_trades", TRADE_COUNT, 20, 0) as gateway, folder_of_its_own() as folder:
        offered = take_trades(gateway.said, TRADE_COUNT, folder)
    with Child("serve_trades", TRADE_COUNT, 20, 0) as gateway:
        alone = TRADE_COUNT / trades_alone(gateway.said, TRADE_COUNT)
    rate = offered.stored / offered.seconds
    held = 0.75 * rate
    with Child("serve_trades", TRADE_COUNT, 20, held) as gateway, folder_of_its_own() as folder:
        paced = take_trades(gateway.said, TRADE_COUNT, folder)
    whole = offered.stored == paced.stored == TRADE_COUNT
    board.add(
        Row(
            TRADES,
            OURS,
            rate / 1e6,
            "M records/s",
            "equal" if whole else f"VOID: {offered.stored} and {paced.stored} of {TRADE_COUNT}",
            f"{TRADE_COUNT} trades as fast as they are read, each an input in the store; at "
            f"{held / 1e6:.3f} M/s never more than {paced.highest} wait, at the end "
            f"{paced.left}; {under_load()}",
            Target(0.5, "M records/s"),
        )
    )
    note = "counts in its callback; nothing decoded, kept or stored"
    who = "databento's client alone"
    board.add(Row(TRADES, who, alone / 1e6, "M records/s", LESS, note))
    assert whole
