"""Seeded mixtures of faults over three sessions: whatever comes together, nothing is lost."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore.gateway import Fault, GatewayData, sample_parent_data, write_dbn
from clustercore.gateway.faults import CONNECTION_FAULTS, STREAM_FAULTS
from tests.live.harness import (
    ACTIVE,
    FRAMES,
    assert_parity,
    consumed,
    derived,
    front,
    live,
    months,
    stored,
)

SOAK = os.environ.get("CLUSTERCORE_SOAK") == "1"
SEEDS = range(50) if SOAK else range(5)
# One session by which the month in front is chosen, and three that are traded.
SESSIONS = 4
# Around the close, where most can go wrong; the rest of the session has no trades.
HOURS = (20, 21, 23, 0)
# One ends the run, and one takes a bar away for good.
KINDS = tuple(
    kind
    for kind in (*CONNECTION_FAULTS, *STREAM_FAULTS, "listener_down")
    if kind not in {"auth_reject", "drop_bar"}
)
ALWAYS = 10**6


@dataclass(frozen=True)
class Mixture:
    """What goes wrong in one run."""

    faults: tuple[Fault, ...]
    settings: dict[str, Any]
    gateway: dict[str, Any]

    @property
    def kinds(self) -> set[str]:
        """The kinds of its faults."""
        return {fault.kind for fault in self.faults}


@cache
def market() -> GatewayData:
    """Return the sessions: whole ones in the long form."""
    data = sample_parent_data(sessions=SESSIONS)
    if SOAK:
        return data
    hour = pl.col("ts_event") // (3600 * 10**9) % 24
    frame = data.frame.filter(hour.is_in(HOURS))
    return GatewayData(frame, data.trades, data.source, data.simulated)


@cache
def backtest() -> cc.BacktestResult:
    """Return what the engine makes of the same bars at leisure."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_dbn(Path(folder) / "market.dbn.zst", market())
        return cc.backtest(cc.read_bars(path), ACTIVE)


def mixture(seed: int) -> Mixture:
    """Return the mixture of a seed; every other one acts on late bars."""
    dice = random.Random(seed)
    bars = market().frame.height
    acts = seed % 2 == 0
    faults = [
        Fault(
            dice.choice(KINDS),
            after_bars=dice.randrange(50, bars - 50),
            outage_s=dice.choice((0, 3, 8, 30, 200, 900)),
            times=dice.choice((1, 1, 2)),
            count=dice.choice((3, 200)),
            code=dice.choice((6, 7)),
            delay_s=dice.choice((20, 7200)),
        )
        for _ in range(dice.randint(2, 6))
    ]
    if not acts:
        faults.append(Fault("fin", at=before_a_signal(dice), outage_s=900))
    ends = dice.choice(("on", "on", "late", "off"))
    if ends == "late":
        faults.append(
            Fault("late_eoi", times=dice.choice((5, ALWAYS)), delay_s=dice.choice((10, 40)))
        )
    elif ends == "off":
        faults.append(Fault("no_eoi", times=ALWAYS))
    delay = dice.choice((0.0, 0.2, 2.0, 5.0))
    return Mixture(
        tuple(faults),
        {
            "late": "act" if acts else "miss",
            "compression": dice.choice(("none", "zstd")),
            "replay_limit_h": 168,
        },
        {
            "bar_delay_s": delay,
            "eoi_delay_s": delay + dice.choice((0.0, 1.0)),
            "eoi_for_empty": ends != "off",
            # Where it does not pace, the market is days ahead before a lost connection is noticed.
            "replay_limit_s": 168 * 3600,
        },
    )


def before_a_signal(dice: random.Random) -> int:
    """Return an instant from which on an outage of some minutes hides a signal."""
    signals = backtest().signals.filter(pl.col("reason") == "ordered")
    return int(dice.choice(signals["decision_time"].to_physical().to_list())) - 5 * 60 * 10**9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mixture_of_faults_loses_nothing(seed: int, tmp_path: Path) -> None:
    mixed = mixture(seed)
    before = set(threading.enumerate())
    run = live(
        market(),
        tmp_path,
        config=ACTIVE,
        faults=mixed.faults,
        settings=mixed.settings,
        **mixed.gateway,
    )
    assert run.code == 0, mixed
    assert set(threading.enumerate()) == before
    assert run.sockets_open == 0
    assert "hole" not in run.kinds()
    assert_parity(run.database)
    _assert_as_sent(run.database, mixed)
    late = [note.start for note in run.notes if note.kind == "late"]
    _assert_consumed(run.database, late, tmp_path)
    signals = derived(run.database, "signals")["reason"].to_list()
    if mixed.settings["late"] == "miss":
        assert "missed" in signals
        return
    assert "missed" not in signals
    if not late:
        _assert_like_backtest(run.database)


def _assert_as_sent(database: Path, mixed: Mixture) -> None:
    found, sent = stored(database), months(market())
    if "past_bar" in mixed.kinds:
        # It may name a minute without a trade; then it is late, and kept as such.
        found = found.join(sent.select("ts_event", "symbol"), on=("ts_event", "symbol"), how="semi")
    assert_frame_equal(found, sent)


def _assert_consumed(database: Path, late: list[int | None], folder: Path) -> None:
    """Assert that the engine took the file's bars, those aside that came after their interval."""
    in_time = ~pl.col("ts_event").to_physical().is_in(late)
    expected = front(market(), folder)
    assert_frame_equal(consumed(database).filter(in_time), expected.filter(in_time))


def _assert_like_backtest(database: Path) -> None:
    for name in FRAMES:
        assert_frame_equal(derived(database, name), getattr(backtest(), name))
