"""Two engines on two threads: the interpreter is released while an engine runs."""

from __future__ import annotations

import os
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import clustercore as cc
from benches.board import OURS, Row, Target
from benches.market import Market, copy_of, five_years, sessions

if TYPE_CHECKING:
    import polars as pl

    from benches.board import Board

WORK = "two engines, two threads against one after the other"
ROUNDS = 7


def run(market: Market, found: list[Any]) -> None:
    engine = cc.Engine(cc.Config.preset("default"), market.bars.instrument, sessions())
    found.append(engine.run(market.bars, columns=market.nanos)["trades"])


@pytest.mark.two_cores
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_threads(board: Board) -> None:
    ratios, trades, differing = [], 0, 0
    for number in range(ROUNDS):
        markets = [copy_of(five_years(), 2 * number + one) for one in (1, 2)]
        after: list[pl.DataFrame] = []
        begin = time.perf_counter()
        for market in markets:
            run(market, after)
        alone = time.perf_counter() - begin
        beside: list[pl.DataFrame] = []
        threads = [threading.Thread(target=run, args=(market, beside)) for market in markets]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ratios.append((time.perf_counter() - begin) / alone)
        trades = after[0].height

        def first(frame: pl.DataFrame) -> float:
            return float(frame["entry_price"][0])

        differing += not all(
            left.equals(right)
            for left, right in zip(sorted(after, key=first), sorted(beside, key=first), strict=True)
        )
    board.add(
        Row(
            WORK,
            OURS,
            statistics.median(ratios),
            "x time",
            f"VOID: {differing} rounds" if differing else "equal",
            f"{trades} trades each; best {min(ratios):.2f}; "
            "frames are made under the interpreter's lock",
            Target(0.75, "x time", at_least=False),
            at_least=False,
            rounds=ROUNDS,
        )
    )
    assert not differing
