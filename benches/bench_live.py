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

import duckdb
import numpy as np
import polars as pl
import pytest

import clustercore as cc
from benches.board import OURS, Row, Target
from benches.market import ONE_YEAR, ROOT
from clustercore.gateway import Gateway, GatewayData, sample_parent_data
from clustercore.gateway.channel import Channel
from clustercore.gateway.historical import HistoricalServer
from clustercore.gateway.records import MINUTE_NS
from clustercore.inputs import Bar
from clustercore.live import feed as live_feed
from clustercore.live import messages as msg
from clustercore.live.clock import SystemClock
from clustercore.live.ledger import Ledger
from clustercore.live.runner import REHEARSAL_KEY, LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.strategy import Calendar, Strategy
from clustercore.live.vendor import import_databento
from clustercore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benches.board import Board
    from clustercore.inputs import Entry

pytestmark = pytest.mark.two_cores

RECOMMENDED = "from a bar's bytes to the recommendation on disk, {}"
COMMITTED = "from a bar's bytes to its commit, {}"
CATCH_UP = "catch-up of 30 sessions from the historical server"
RESTART = "restart with a year in the store, until LIVE, less the connection"
TRADES = "trades through the client into the store, nothing waiting longer and longer"

LESS = "less work"
# One market minute takes 20 ms: a bar is done with long before the next one comes.
PACE = 3_000.0
BAR = 33
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


# The other process.


class Child:
    """A gateway in another process: what it says as it begins, and what it says at the end."""

    def __init__(self, work: str, *arguments: object) -> None:
        code = f"from benches import bench_live; bench_live.{work}({', '.join(map(repr, arguments))})"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
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

    Channel.write = stamped  # type: ignore[method-assign]
    serve(sample_parent_data(sessions=sessions), stamps, speed=speed)


# From the bytes to the disk.


@dataclass
class Stamps:
    """When things were on disk, by the start of the bar that caused them."""

    bars: dict[int, int] = field(default_factory=dict)
    told: list[tuple[int, int]] = field(default_factory=list)


def live_with_stamps(port: int, folder: Path, wanted: int, limit_s: float) -> Stamps:
    stamps = Stamps()
    runner = LiveRunner(
        cc.Config.preset("default").override(EAGER),
        database=folder / "live.duckdb",
        settings=LiveSettings(gateway=f"127.0.0.1:{port}", historical="none"),
    )
    newest = 0
    commit = Store.commit

    def committed(store: Store, entries: Sequence[Entry], **rest: Any) -> None:
        nonlocal newest
        commit(store, entries, **rest)
        now = time.monotonic_ns()
        for entry in entries:
            if isinstance(entry.item, Bar) and entry.item.consumed and entry.item.actionable:
                stamps.bars[entry.item.ts_event] = now
                newest = entry.item.ts_event

    def recommended(_: object) -> None:
        stamps.told.append((newest, time.monotonic_ns()))
        if len(stamps.told) >= wanted:
            runner.stop()

    runner.on_recommendation = recommended
    timer = threading.Timer(limit_s, runner.stop)
    timer.start()
    Store.commit = committed  # type: ignore[method-assign, assignment]
    try:
        runner.run()
    finally:
        Store.commit = commit  # type: ignore[method-assign]
        timer.cancel()
    return stamps


