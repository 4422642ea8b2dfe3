"""Two instruments at once, and for long: one account each, and nothing that grows."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

import clustercore as cc
from clustercore.gateway import GatewayData, sample_parent_data, write_dbn
from clustercore.live import strategy
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.status import Status
from clustercore.live.strategy import Calendar
from clustercore.sessions import load_sessions
from clustercore.store import FeedEvent
from tests.live.harness import Run, assert_parity, consumed, derived, live
from tests.live.killed import CONFIG

FULL = bool(os.environ.get("CLUSTERCORE_SOAK"))
ROOTS = ("ES", "NQ")
MINUTE_NS = 60 * 10**9
CALENDAR = Calendar(load_sessions())
# Positions that last, so that there is nearly always something at risk.
ENDLESS = CONFIG.override(
    {
        "risk.max_consecutive_losses": None,
        "risk.daily_loss_pct": None,
        "exit.max_hold_minutes": 60,
        "stop.k": 4.0,
    }
)
# As fast as two engines write down every bar of theirs, with something left.
SPEED = 4000.0
# Bars are remembered for some sessions, to know duplicates and compare months; with fewer of them
# memory is flat sooner.
REMEMBERED = 1
FILLED = REMEMBERED + 2
# What memory may then grow in a session: pages of a larger file, and a longer log to certify.
GROWTH_MB = 12.0


def market(sessions: int, *, hours: float = 24.0) -> GatewayData:
    """Return both products: the last hours of the first session, the first ones of the others."""
    data = sample_parent_data(sessions=sessions, instruments=ROOTS)
    times = pl.from_epoch(data.frame["ts_event"], "ns").dt.replace_time_zone("UTC")
    placed = data.frame.with_columns(session=load_sessions().locate(times))
    first, *_ = rows = placed["session"].unique().sort().to_list()
    ts, span = pl.col("ts_event"), round(hours * 60) * MINUTE_NS
    kept = [(pl.col("session") == first) & (ts >= CALENDAR.closes[first] - span)]
    kept += [
        (pl.col("session") == row) & (ts < CALENDAR.opens[row] + span)
        for row in rows
        if row != first
    ]
    frame = placed.filter(pl.any_horizontal(kept)).drop("session")
    return GatewayData.from_bars(frame, source="two products", simulated=True)


def memory_mb() -> float:
    """Return what this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> Counter[str]:
    """Return what is open and how often, sockets by their number."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        # The listing itself is gone by now.
        with contextlib.suppress(OSError):
            found[str(link.readlink())] += 1
    return found


@dataclass
class Watched:
    """A run, and what was seen of it on the way."""

    run: Run
    data: GatewayData
    memory: list[float] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    threads_left: set[str] = field(default_factory=set)
    open_left: Counter[str] = field(default_factory=Counter)


def watch(data: GatewayData, folder: Path, *, speed: float) -> Watched:
    """Run both products over the market and watch."""
    memory: list[float] = []
    statuses: list[Status] = []
    threads = {thread.name for thread in threading.enumerate()}
    opened = descriptors()

    def see(runner: LiveRunner, event: FeedEvent) -> bool:
        runner.on_status = statuses.append
        if event.kind == "snapshot":
            gc.collect()
            memory.append(memory_mb())
        return False

    run = live(
        data,
        folder,
        config=ENDLESS,
        symbols=ROOTS,
        speed=speed,
        hold=True,
        stop_when=see,
        timeout_s=900.0 if FULL else 60.0,
    )
    return Watched(
        run,
        data,
        memory,
        statuses,
        {thread.name for thread in threading.enumerate()} - threads,
        descriptors() - opened,
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    data = market(7) if FULL else market(3, hours=1.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy, "_SESSIONS_REMEMBERED", REMEMBERED)
        return watch(data, tmp_path_factory.mktemp("soak"), speed=SPEED)


@pytest.mark.timeout(1200 if FULL else 120)
def test_the_queue_stays_below_its_mark(watched: Watched) -> None:
    assert watched.run.code == 0
    assert 0 < watched.run.status.queue_mark < LiveSettings().queue_mark
    assert not [note for note in watched.run.notes if note.kind == "alarm"]
    assert watched.run.status.counts["connections"] <= 2


def test_memory_is_flat_after_the_first_session(watched: Watched) -> None:
    # Taken at each session's end.
    grown = [later - earlier for earlier, later in itertools.pairwise(watched.memory)]
    if FULL:
        later = grown[FILLED:]
        assert len(later) >= 2
        assert sum(later) / len(later) < GROWTH_MB, watched.memory
    else:
        assert watched.memory


def test_nothing_is_left_behind(watched: Watched) -> None:
    assert not watched.threads_left
    assert not watched.open_left
    assert watched.run.sockets_open == 0


@pytest.mark.parametrize("root", ROOTS)
def test_each_product_has_its_own_engine_and_account(
    watched: Watched, tmp_path: Path, root: str
) -> None:
    own = GatewayData.from_bars(
        watched.data.frame.filter(pl.col("symbol").str.starts_with(root)), simulated=True
    )
    bars = cc.read_bars(write_dbn(tmp_path / "own.dbn", own))
    taken = consumed(watched.run.database, root)
    assert taken.equals(bars.frame.select(taken.columns))
    # As if the other were not there.
    alone = cc.backtest(bars, ENDLESS)
    trades = alone.trades.filter(pl.col("exit_reason") != "open")
    assert trades.height > 0
    assert derived(watched.run.database, "trades", root).equals(trades)
    (status,) = [one for one in watched.run.status.roots if one.root == root]
    marks = derived(watched.run.database, "equity", root)
    assert status.equity == pytest.approx(marks["equity"][-1])
    # One account: what both had made together would be more.
    assert abs(status.equity - ENDLESS.account.balance) < 2.0 * ENDLESS.account.balance


def test_the_log_of_both_replays(watched: Watched) -> None:
    assert [one.root for one in assert_parity(watched.run.database)] == list(ROOTS)


def test_the_sum_at_risk_is_shown(watched: Watched) -> None:
    at_risk = [status for status in watched.statuses if status.risk_usd > 0]
    assert at_risk
    for status in at_risk:
        assert [one.root for one in status.roots] == list(ROOTS)
        assert status.risk_usd == pytest.approx(sum(one.risk_usd for one in status.roots))
        assert status.to_dict()["risk_usd"] == status.risk_usd
    assert any(all(one.risk_usd > 0 for one in status.roots) for status in at_risk)
