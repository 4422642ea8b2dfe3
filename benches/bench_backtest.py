"""A backtest from a Polars frame to a result, and one in a process that has just started."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import clustercore as cc
from benches.board import OURS, Row, Target
from benches.market import ONE_YEAR, copy_of, five_years

if TYPE_CHECKING:
    import polars as pl
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.board import Board

# As a user has it: the second run, with adverse entries, goes beside the first.
pytestmark = pytest.mark.two_cores

FRAME_WORK = "cc.backtest from a Polars frame, preset {}, five years"
START_WORK = "a process that imports and backtests 2019"
PROCESSES = 9


@pytest.mark.parametrize("name", ["default", "new-algo", "v6"])
def test_backtest(benchmark: BenchmarkFixture, board: Board, name: str) -> None:
    given = five_years().bars

    def prepare(number: int) -> pl.DataFrame:
        return copy_of(five_years(), number).bars.frame.drop("context")

    def run(frame: pl.DataFrame) -> cc.BacktestResult:
        return cc.backtest(frame, name)

    def check(frame: pl.DataFrame, result: cc.BacktestResult) -> str | None:
        bars = replace(given, frame=frame.with_columns(five_years().bars.frame["context"]))
        engine = cc.Engine(cc.Config.preset(name), given.instrument)
        alone = engine.run(bars, finish=True)["trades"]
        return None if alone.equals(result.trades) and alone.height else "trades"

    row = board.measure(
        benchmark,
        FRAME_WORK.format(name),
        OURS,
        count=len(given),
        prepare=prepare,
        function=run,
        check=check,
        rounds=5,
        note=lambda result: (
            f"{result.trades.height} trades; checks, hash of the data, "
            "bootstrap, groups, funnel, and a second run with adverse entries"
        ),
        target=15.0,
        other="equal to Engine.run; no peer",
    )
    assert not row.void, row.answers


def seconds_of(script: str) -> tuple[float, str]:
    """Return how long a fresh interpreter takes over a script, and what it printed."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - begin, done.stdout.strip()


def test_start(board: Board) -> None:
    presets = cc.Config.presets()
    backtest = (
        "import clustercore as cc\n"
        f"result = cc.backtest({str(ONE_YEAR)!r}, {{!r}})\n"
        "print(result.trades.height, repr(result.trades['net'].sum()))"
    )
    trades = {name: cc.backtest(ONE_YEAR, name).trades for name in presets}
    expected = {name: f"{one.height} {one['net'].sum()!r}" for name, one in trades.items()}
    ours, polars, bare = [], [], []
    differing = 0
    for number in range(PROCESSES + 1):
        name = presets[number % len(presets)]
        taken, printed = seconds_of(backtest.format(name))
        differing += printed != expected[name]
        if number:
            ours.append(taken)
            polars.append(seconds_of("import polars")[0])
            bare.append(seconds_of("pass")[0])
    counts = ", ".join(f"{name} {one.height}" for name, one in trades.items())
    board.add(
        Row(
            START_WORK,
            OURS,
            statistics.median(ours),
            "s",
            f"VOID: {differing} runs" if differing else "equal to a backtest in this process",
            f"trades: {counts}; DBN file to result, whole process; best {min(ours):.2f}",
            Target(0.5, "s", at_least=False),
            at_least=False,
            rounds=PROCESSES,
        )
    )
    for who, times in (("import polars alone", polars), ("an empty interpreter", bare)):
        board.add(
            Row(
                START_WORK,
                who,
                statistics.median(times),
                "s",
                "less work",
                f"best {min(times):.2f}",
                at_least=False,
                rounds=PROCESSES,
            )
        )
    assert not differing
