"""The engine over five years of real minutes, beside the same strategy elsewhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest

import clustercore as cc
from benches.board import OURS
from benches.market import Market, copy_of, five_years, head_of, one_year, sessions
from benches.peers import libraries
from benches.peers.columns import run_columns
from benches.peers.frames import run_frames
from benches.peers.loop import COLUMNS, run_loop, simulate
from benches.strategy import (
    MINUTE,
    SIGNALS,
    TIMED,
    WHOLE,
    Answer,
    Rules,
    answer_of,
    at_bar_ends,
    config_of,
    difference,
    run_engine,
)

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.board import Board

WHOLE_WORK = "Engine.run, whole strategy, five years"
SIGNAL_WORK = "the same trades, peers given the signals"
TIMED_WORK = "the same trades, long, ended by time alone"
PRESET_WORK = "Engine.run, preset {}, gates off"
LIMIT_WORK = "reading the six columns once"
FASTEST = 60.0
GATES_OFF = {
    "risk.max_risk_per_trade": None,
    "risk.max_open_contracts": None,
    "risk.max_trades_per_session": None,
    "risk.max_consecutive_losses": None,
    "risk.daily_loss_pct": None,
    "risk.max_drawdown_pct": None,
    "statistics.resamples": 100,
}
ENTRIES: dict[Rules, dict[str, Any]] = {
    WHOLE: {},
    SIGNALS: {"entry": "close"},
    TIMED: {"entry": "close", "shorts": False},
}


def five(number: int) -> Market:
    return copy_of(five_years(), number)


def one(number: int) -> Market:
    return copy_of(one_year(), number)


@cache
def config(rules: Rules) -> cc.Config:
    return config_of(rules, **ENTRIES[rules])


def expected(market: Market, rules: Rules) -> Answer:
    frames, statistics = run_engine(market, config(rules), sessions())
    answer = answer_of(frames, statistics)
    return answer if rules is WHOLE else at_bar_ends(market, frames, answer)


def against(rules: Rules) -> Any:
    return lambda market, answer: difference(expected(market, rules), answer)


def told(answer: Answer) -> str:
    marks = "" if answer.equity is None else f", {len(answer.equity)} equity rows"
    return f"{answer.trades} trades{marks}"


def run_ours(market: Market, settings: cc.Config) -> tuple[Any, Any]:
    return run_engine(market, settings, sessions())


def told_of_ours(result: tuple[Any, Any]) -> str:
    frames, statistics = result
    return (
        f"{frames['trades'].height} trades, {frames['equity'].height} equity rows, "
        f"{frames['clusters'].height} clusters, net {statistics['net_usd']:.0f} USD"
    )


def sum_columns(market: Market) -> int:
    return sum(int(column.sum()) for column in market.nanos.values())


def test_limit(benchmark: BenchmarkFixture, board: Board) -> None:
    board.measure(
        benchmark,
        LIMIT_WORK,
        "NumPy sum",
        count=len(five_years()),
        prepare=five,
        function=sum_columns,
        check=None,
        rounds=9,
        note="the physical limit: every byte of the six int64 columns read once by one core",
        other="a limit",
    )


def test_whole_strategy(benchmark: BenchmarkFixture, board: Board) -> None:
    row = board.measure(
        benchmark,
        WHOLE_WORK,
        OURS,
        count=len(five_years()),
        prepare=five,
        function=lambda market: run_ours(market, config(WHOLE)),
        check=lambda market, result: difference(
            run_loop(market, WHOLE, compiled()), answer_of(*result)
        ),
        rounds=9,
        note=told_of_ours,
        target=FASTEST,
    )
    assert not row.void, row.answers


@cache
def compiled() -> Any:
    return numba.njit(simulate)


@pytest.mark.parametrize(
    ("who", "function", "rounds"),
    [
        ("Numba, one loop", lambda market: run_loop(market, WHOLE, compiled()), 7),
        ("NumPy", lambda market: run_columns(market, WHOLE), 5),
        ("Polars", lambda market: run_frames(market, WHOLE), 5),
    ],
)
def test_whole_strategy_of_peers(
    benchmark: BenchmarkFixture, board: Board, who: str, function: Any, rounds: int
) -> None:
    row = board.measure(
        benchmark,
        WHOLE_WORK,
        who,
        count=len(five_years()),
        prepare=five,
        function=function,
        check=against(WHOLE),
        rounds=rounds,
        note=lambda answer: told(answer) + "; checks no bar, keeps no cluster, signal or order",
    )
    assert not row.void, row.answers


def test_whole_strategy_in_plain_python(benchmark: BenchmarkFixture, board: Board) -> None:
    row = board.measure(
        benchmark,
        WHOLE_WORK,
        "plain Python, the same loop",
        count=len(one_year()),
        prepare=one,
        function=lambda market: run_loop(market, WHOLE, lists=True),
        check=against(WHOLE),
        rounds=3,
        note=lambda answer: told(answer) + "; over 2019 alone",
    )
    assert not row.void, row.answers


def test_reference(benchmark: BenchmarkFixture, board: Board) -> None:
    """The oracle of the tests, which computes everything again from the list of bars."""
    rows = 20_000
    row = board.measure(
        benchmark,
        WHOLE_WORK,
        "tests/reference.py",
        count=rows,
        prepare=lambda number: head_of(one(number), rows),
        function=lambda given: run_reference(given, config(WHOLE)),
        check=lambda given, frames: difference(
            expected_of_columns(given, config(WHOLE)), answer_of_reference(frames)
        ),
        rounds=1,
        note=lambda frames: f"{len(frames['trades'])} trades; over the first {rows} bars of 2019",
    )
    assert not row.void, row.answers


def run_reference(market: Market, settings: cc.Config) -> Any:
    from tests import reference

    table = sessions().overlapping(
        int(market.nanos["ts_event"][0]), int(market.nanos["ts_event"][-1]) + 1
    )
    columns = table.columns()
    bounds = zip(
        columns["trade_date"].tolist(),
        columns["open_ns"].tolist(),
        columns["close_ns"].tolist(),
        strict=True,
    )
    rows = zip(*(market.nanos[name].tolist() for name in COLUMNS), strict=True)
    return reference.run(
        [reference.Bar(*row) for row in rows],
        settings.to_dict(),
        reference.Instrument(),
        [reference.Session(*bound) for bound in bounds],
        MINUTE,
    )


def expected_of_columns(market: Market, settings: cc.Config) -> Answer:
    return answer_of(*run_ours(market, settings))


def answer_of_reference(frames: Any) -> Answer:
    trades, equity = frames["trades"], frames["equity"]

    def column(rows: Any, name: str, kind: Any) -> Any:
        return np.array([row[name] for row in rows], dtype=kind)

    return Answer(
        column(trades, "entry_time", np.int64),
        column(trades, "exit_time", np.int64),
        np.array([1 if row["direction"] == "long" else -1 for row in trades]),
        column(trades, "entry_price", float) / 1e9,
        column(trades, "exit_price", float),
        column(trades, "net", float),
        column(equity, "time", np.int64),
        column(equity, "equity", float),
    )


@pytest.mark.parametrize("name", cc.Config.presets())
def test_presets(benchmark: BenchmarkFixture, board: Board, name: str) -> None:
    settings = cc.Config.preset(name).override(GATES_OFF)
    board.measure(
        benchmark,
        PRESET_WORK.format(name),
        OURS,
        count=len(five_years()),
        prepare=five,
        function=lambda market: run_ours(market, settings),
        check=lambda _, result: None if result[0]["trades"].height else "no trades",
        rounds=7,
        note=told_of_ours,
        target=FASTEST,
        other="no peer; the parity tests check them",
    )


def test_given_signals(benchmark: BenchmarkFixture, board: Board) -> None:
    board.measure(
        benchmark,
        SIGNAL_WORK,
        OURS,
        count=len(five_years()),
        prepare=five,
        function=lambda market: run_ours(market, config(SIGNALS)),
        check=None,
        rounds=9,
        note=lambda result: told_of_ours(result) + "; finds its signals itself",
        target=FASTEST,
        other="what the peers are held to",
    )


def with_signals(rules: Rules, market: Market) -> tuple[Market, Any]:
    frames, _ = run_engine(market, config(rules), sessions())
    return market, libraries.signals_of(market, rules, frames["trades"])


@pytest.mark.parametrize("engine", ["rust", "numba"])
def test_vectorbt(benchmark: BenchmarkFixture, board: Board, engine: str) -> None:
    pytest.importorskip("vectorbt")

    def prepare(number: int) -> Any:
        market, signals = with_signals(SIGNALS, five(number))
        return market, signals, libraries.index_of(market)

    row = board.measure(
        benchmark,
        SIGNAL_WORK,
        f"vectorbt ({engine}) with summary",
        count=len(five_years()),
        prepare=prepare,
        function=lambda given: libraries.run_vectorbt(
            given[0], SIGNALS, given[1], given[2], engine, summary=True
        ),
        check=lambda given, result: difference(
            expected(given[0], SIGNALS), libraries.answer_of_vectorbt(given[0], result)
        ),
        rounds=4,
        note=lambda result: (
            f"{len(result[1][0])} trades; entries and exits by time are given to it"
        ),
    )
    assert not row.void, row.answers


def test_vectorbt_kernel(benchmark: BenchmarkFixture, board: Board) -> None:
    pytest.importorskip("vectorbt")
    pytest.importorskip("vectorbt_rust")

    def prepare(number: int) -> Any:
        market, signals = with_signals(SIGNALS, five(number))
        return market, libraries.kernel_of_vectorbt(market, SIGNALS, signals)

    row = board.measure(
        benchmark,
        SIGNAL_WORK,
        "vectorbt (rust) kernel alone",
        count=len(five_years()),
        prepare=prepare,
        function=lambda given: given[1](),
        check=lambda given, found: difference(
            expected(given[0], SIGNALS), libraries.answer_of_orders(given[0], found[0])
        ),
        rounds=5,
        note=lambda found: (
            f"{len(found[0])} orders; prepared arrays, no trades, equity, statistics"
        ),
    )
    assert not row.void, row.answers


def test_backtesting(benchmark: BenchmarkFixture, board: Board) -> None:
    pytest.importorskip("backtesting")

    def prepare(number: int) -> Any:
        market, signals = with_signals(SIGNALS, one(number))
        return market, libraries.prepare_backtesting(market, SIGNALS, signals)

    row = board.measure(
        benchmark,
        SIGNAL_WORK,
        "backtesting.py",
        count=len(one_year()),
        prepare=prepare,
        function=lambda given: libraries.run_backtesting(given[1]),
        check=lambda given, report: difference(
            expected(given[0], SIGNALS), libraries.answer_of_backtesting(given[0], report)
        ),
        rounds=2,
        note=lambda report: (
            f"{len(report['_trades'])} trades; over 2019 alone, signals given to it"
        ),
    )
    assert not row.void, row.answers


def test_timed(benchmark: BenchmarkFixture, board: Board) -> None:
    board.measure(
        benchmark,
        TIMED_WORK,
        OURS,
        count=len(five_years()),
        prepare=five,
        function=lambda market: run_ours(market, config(TIMED)),
        check=None,
        rounds=7,
        note=lambda result: told_of_ours(result) + "; finds its signals itself",
        target=FASTEST,
        other="what the peer is held to",
    )


def test_raptorbt(benchmark: BenchmarkFixture, board: Board) -> None:
    pytest.importorskip("raptorbt")
    row = board.measure(
        benchmark,
        TIMED_WORK,
        "raptorbt",
        count=len(five_years()),
        prepare=lambda number: with_signals(TIMED, five(number)),
        function=lambda given: libraries.run_raptorbt(*given),
        check=lambda given, result: difference(
            expected(given[0], TIMED), libraries.answer_of_raptorbt(TIMED, result)
        ),
        rounds=4,
        note=lambda result: (
            f"{len(result[1])} trades; knows stops in percent only, one direction, "
            "no cost per contract; entries and exits given to it"
        ),
    )
    assert not row.void, row.answers
