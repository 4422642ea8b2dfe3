"""``step`` from Python, timed call by call over a year of real minutes."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import numpy as np

import clustercore as cc
from benches.board import OURS, Row, Target
from benches.market import copy_of, one_year, sessions
from clustercore.events import Trade

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benches.board import Board

WORK = "Engine.step, one call, {}"
ROUNDS = 3
COLUMNS = ("ts_event", "open", "high", "low", "close", "volume")
TARGETS = {"median": 0.4, "P99": 2.0, "P99.9": 20.0}
SHARES = {"median": 50.0, "P99": 99.0, "P99.9": 99.9}


def clock_overhead() -> float:
    """Return the median of two readings of the clock with nothing between, ns."""
    clock = time.perf_counter_ns
    taken = np.empty(100_000, dtype=np.int64)
    for place in range(len(taken)):
        begin = clock()
        end = clock()
        taken[place] = end - begin
    return float(np.median(taken))


def one_pass(number: int) -> tuple[NDArray[np.int64], int, list[float], bool]:
    """Return the time of each call in ns, the events, each trade's result, and if `run` agrees."""
    market = copy_of(one_year(), number)
    rows = list(zip(*(market.nanos[name].tolist() for name in COLUMNS), strict=True))
    taken = [0] * len(rows)
    engine = cc.Engine(cc.Config.preset("default"), market.bars.instrument, sessions())
    step, clock = engine.step, time.perf_counter_ns
    start, open_, high, low, close, volume = rows[0]
    step(start, open_, high, low, close, volume, symbol="ES.c.0")
    events = 0
    trades: list[float] = []
    gc.collect()
    gc.disable()
    for place in range(1, len(rows)):
        start, open_, high, low, close, volume = rows[place]
        begin = clock()
        found = step(start, open_, high, low, close, volume)
        end = clock()
        taken[place] = end - begin
        if found:
            events += len(found)
            trades += [event.net for event in found if isinstance(event, Trade)]
    gc.enable()
    whole = cc.Engine(cc.Config.preset("default"), market.bars.instrument, sessions())
    frames = whole.run(market.bars, columns=market.nanos)
    same = bool(trades) and trades == frames["trades"]["net"].to_list()
    return np.array(taken[1:], dtype=np.int64), events, trades, same


def test_step(board: Board) -> None:
    overhead = clock_overhead()
    passes = [one_pass(number) for number in range(ROUNDS)]
    taken = np.concatenate([found[0] for found in passes])
    shares = (1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100)
    spread = "  ".join(
        f"P{share:g} {value / 1e3:.2f}"
        for share, value in zip(shares, np.percentile(taken, shares), strict=True)
    )
    equal = all(found[3] for found in passes)
    answers = "equal to Engine.run" if equal else "VOID: results of trades"
    print(f"\nstep, microseconds: {spread}")
    for name, share in SHARES.items():
        board.add(
            Row(
                WORK.format(name),
                OURS,
                float(np.percentile(taken, share)) / 1e3,
                "us",
                answers,
                f"{len(taken)} calls, {passes[0][1]} events, {len(passes[0][2])} trades a pass; "
                f"the clock's own {overhead / 1e3:.3f} us are in it; {spread}"
                if name == "median"
                else "",
                Target(TARGETS[name], "us", at_least=False),
                at_least=False,
                rounds=ROUNDS,
            )
        )
    assert equal
