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
from clustercore.gateway import Fault, Gateway, GatewayData
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.recommendation import Recommendation
from clustercore.store import FeedEvent, Store

# Signals at once: the baseline needs no weeks of history.
QUICK = cc.Config.preset("default").override(
    {"baseline.mode": "previous_session", "cluster.threshold": 1.6}
)


@dataclass
class Run:
    """What a run left behind."""

    database: Path
    code: int
    recommendations: list[Recommendation] = field(default_factory=list)
    notes: list[FeedEvent] = field(default_factory=list)
    sockets_open: int = 0
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
            over = event.kind == "lost" and any(
                connection.ended == "end of data" for connection in served.connections
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
        run.status = runner.status
        run.sockets_open = served.sessions_open
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
