"""A live process beside the local gateway, in this process, until the market is over.

The gateway runs as fast as it is read and holds its market time while nobody is connected, so a run
has the same messages at the same market times whatever the machine does meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import clustercore as cc
from clustercore import parity
from clustercore.gateway import Fault, Gateway, GatewayData, write_dbn
from clustercore.gateway.session import Connection
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.recommendation import Recommendation
from clustercore.store import FeedEvent, Store

# Signals at once: the baseline needs no weeks of history.
QUICK = cc.Config.preset("default").override(
    {"baseline.mode": "previous_session", "cluster.threshold": 1.6}
)

# A decision every few minutes, so that whatever goes wrong meets some.
ACTIVE = QUICK.override(
    {
        "baseline.mode": "rolling",
        "baseline.bars": 10,
        "cluster.minutes": 3,
        "cluster.threshold": 0.3,
        "cluster.suppress_overlap": False,
        "profile.end_minute": 3,
        "rank.top_n": 10,
        "retest.enabled": False,
        "signal.min_strength": 0.0,
        "signal.long_threshold": 0.49,
        "signal.short_threshold": 0.51,
        "exit.max_hold_minutes": 5,
        "size.max_contracts": 1,
        "volatility.min_minutes": 10,
        "risk.max_open_contracts": 30,
    }
)
# One position at a time, held for an hour unless something is wrong.
HOLD = ACTIVE.override({"exit.max_hold_minutes": 60, "stop.k": 8.0, "risk.max_open_contracts": 1})
FRAMES = ("clusters", "signals", "orders", "trades", "equity")
HOUR_NS = 3600 * 10**9


@dataclass
class Run:
    """What a run left behind."""

    database: Path
    code: int
    recommendations: list[Recommendation] = field(default_factory=list)
    notes: list[FeedEvent] = field(default_factory=list)
    sockets_open: int = 0
    connections: list[Connection] = field(default_factory=list)
    status: Any = None
    runner: Any = None

    def kinds(self) -> list[str]:
        """Return what was noted, by kind, in order."""
        return [note.kind for note in self.notes]


def live(
    data: GatewayData,
    folder: Path,
    *,
    config: cc.Config = QUICK,
    symbols: Sequence[str] = ("ES",),
    faults: Sequence[Fault] = (),
    settings: dict[str, Any] | None = None,
    history: str = "none",
    stop_when: Callable[[LiveRunner, FeedEvent], bool] | None = None,
    timeout_s: float = 110.0,
    **gateway: Any,
) -> Run:
    """Run live over market data until the gateway has sent all of it, or ``stop_when`` says so."""
    database = folder / "live.duckdb"
    with Gateway(data, at_end="close", faults=faults, **gateway) as served:
        runner = LiveRunner(
            config,
            symbols,
            database=database,
            settings=LiveSettings(
                gateway=f"127.0.0.1:{served.port}", historical=history, **(settings or {})
            ),
        )
        run = Run(database, -1, runner=runner)
        runner.on_recommendation = run.recommendations.append

        def note(event: FeedEvent) -> None:
            run.notes.append(event)
            # Noted before the next attempt, so whatever that connection brought has been taken.
            over = (
                event.reason == "the gateway closed the connection"
                and served.connections[-1].ended == "end of data"
            )
            if over or (stop_when is not None and stop_when(runner, event)):
                runner.stop()

        runner.on_note = note
        limit = threading.Timer(timeout_s, runner.stop)
        limit.start()
        try:
            run.code = runner.run()
        finally:
            limit.cancel()
            limit.join()
        run.status = runner.status
        run.sockets_open = served.sessions_open
        run.connections = served.connections
    return run


def consumed(database: Path, root: str = "ES") -> pl.DataFrame:
    """Return the bars that the engine took, context included, as the frame of ``read_bars``."""
    with Store.open(database, create=False, read_only=True) as store:
        bars = store.inputs(root).filter(pl.col("consumed") & (pl.col("kind") == "bar"))
    nanos = pl.col("open", "high", "low", "close") / 1e9
    return bars.select(pl.col("ts").alias("ts_event"), nanos, "volume", "symbol", "context")


def assert_parity(database: Path) -> list[parity.Parity]:
    """Assert that the log replays to what is stored, and return the certificates."""
    with Store.open(database, create=False, read_only=True) as store:
        found = parity.check(store)
    assert found
    for one in found:
        assert one.ok, one.difference
    return found


def derived(database: Path, name: str, root: str = "ES") -> pl.DataFrame:
    """Return a derived frame without the seq that caused each row."""
    with Store.open(database, create=False, read_only=True) as store:
        return store.derived(name, root).drop("seq")


def part(data: GatewayData, first_hour: float, last_hour: float) -> GatewayData:
    """Return the data between two hours, counted from its first instant."""
    begin = data.span[0] + round(first_hour * HOUR_NS)
    end = data.span[0] + round(last_hour * HOUR_NS)
    inside = pl.col("ts_event").is_between(begin, end, closed="left")
    return GatewayData(data.frame.filter(inside), data.trades, data.source, data.simulated)


def front(data: GatewayData, folder: Path) -> pl.DataFrame:
    """Return what a backtest reads from a file of the same data, as ``consumed`` returns it."""
    path = folder / "market.dbn.zst"
    write_dbn(path, data)
    frame = cc.read_bars(path).frame
    columns = ("ts_event", "open", "high", "low", "close", "volume", "symbol", "context")
    return frame.select(columns)


_KEY = ("ts_event", "symbol")
_BAR = (*_KEY, "open", "high", "low", "close", "volume")


def stored(database: Path, root: str = "ES") -> pl.DataFrame:
    """Return the bars of every month as they were stored, once each, false ones aside."""
    with Store.open(database, create=False, read_only=True) as store:
        rows = store.inputs(root).filter(pl.col("kind") == "bar")
    own = ~pl.col("context") & ~pl.col("reason").is_in(["conflict", "future"])
    bars = rows.filter(own).select(pl.col("ts").to_physical().alias("ts_event"), *_BAR[1:])
    assert not bars.select(_KEY).is_duplicated().any()
    return bars.sort(_KEY)


def months(data: GatewayData, root: str = "ES") -> pl.DataFrame:
    """Return the bars of every month of a root, as ``stored`` returns them."""
    own = pl.col("symbol").str.starts_with(root) & ~pl.col("symbol").str.contains("-")
    return data.frame.filter(own).select(_BAR).sort(_KEY)
