"""The benchmarks' answers, small and without a clock: the peers agree, and a void is seen."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import clustercore as cc
from benches.board import OURS, Board, Row, Target, read_board, verdict_of
from benches.market import TICK_NANOS, copy_of, head_of, market_of, sessions
from benches.peers import kernels as peers
from benches.peers import libraries
from benches.peers.columns import run_columns
from benches.peers.frames import run_frames
from benches.peers.loop import run_loop
from benches.strategy import (
    SIGNALS,
    WHOLE,
    answer_of,
    at_bar_ends,
    config_of,
    difference,
    run_engine,
)
from clustercore import kernels
from tools.make_performance_page import REASONS, page

if TYPE_CHECKING:
    from benches.market import Market
    from benches.strategy import Answer

RULES = WHOLE._replace(threshold=1.0)
SETTING = {
    "processor": "a processor",
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "rust": "rustc 1.88.0",
    "versions": {"numpy": "2.4.6", "numba": "not installed"},
    "commit": "0123456789ab",
    "uncommitted": False,
    "command": "make bench",
}


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(cc.sample(sessions=60, seed=7))


@pytest.fixture(scope="module")
def ours(market: Market) -> Answer:
    answer = answer_of(*run_engine(market, config_of(RULES), sessions()))
    assert answer.trades >= 50
    return answer


def test_loop_agrees_with_the_engine(market: Market, ours: Answer) -> None:
    assert difference(ours, run_loop(market, RULES, lists=True)) is None


def test_columns_agree_with_the_engine(market: Market, ours: Answer) -> None:
    assert difference(ours, run_columns(market, RULES)) is None


def test_frames_agree_with_the_engine(market: Market, ours: Answer) -> None:
    assert difference(ours, run_frames(market, RULES)) is None


def test_statistics_agree(market: Market, ours: Answer) -> None:
    theirs = run_columns(market, RULES).statistics
    assert theirs is not None
    assert ours.statistics is not None
    shared = [name for name in theirs if name in ours.statistics]
    assert len(shared) >= 10
    for name in shared:
        assert theirs[name] == pytest.approx(ours.statistics[name], rel=1e-9)


def test_copies_make_the_same_trades_at_other_prices(market: Market, ours: Answer) -> None:
    moved = answer_of(*run_engine(copy_of(market, 3), config_of(RULES), sessions()))
    np.testing.assert_array_equal(moved.entry_time, ours.entry_time)
    np.testing.assert_allclose(moved.entry_price, ours.entry_price + 12.0)
    assert difference(ours, moved) is not None


@pytest.mark.parametrize(
    "name", ["entry_time", "exit_time", "direction", "entry_price", "exit_price", "net", "equity"]
)
def test_every_difference_is_seen(ours: Answer, name: str) -> None:
    column = getattr(ours, name).copy()
    column[-1] += 1
    other = replace(ours, **{name: column})
    found = difference(ours, other)
    assert found is not None
    assert name in found
    assert difference(ours, ours) is None


def test_a_missing_trade_is_seen(ours: Answer) -> None:
    fewer = {
        name: getattr(ours, name)[1:]
        for name in ("entry_time", "exit_time", "direction", "entry_price", "exit_price", "net")
    }
    assert difference(ours, replace(ours, **fewer)) is not None


def test_no_trades_prove_nothing(ours: Answer) -> None:
    empty = replace(
        ours,
        **{
            name: getattr(ours, name)[:0]
            for name in ("entry_time", "exit_time", "direction", "entry_price", "exit_price", "net")
        },
    )
    assert difference(empty, empty) == "no trades"


def test_signals_name_the_bars_of_the_trades(market: Market) -> None:
    rules = SIGNALS._replace(threshold=1.0)
    frames, _ = run_engine(market, config_of(rules, entry="close"), sessions())
    answer = at_bar_ends(market, frames, answer_of(frames))
    signals = libraries.signals_of(market, rules, frames["trades"])
    entries = signals.long_entry | signals.short_entry
    assert entries.sum() == answer.trades >= 50
    ends = market.nanos["ts_event"] + 60_000_000_000
    assert set(answer.entry_time) == set(ends[entries])
    assert set(ends[signals.long_exit | signals.short_exit]) <= set(answer.exit_time)


def test_volatility_of_the_peers(market: Market) -> None:
    open_, high, low, close = (market.points[name] for name in ("open", "high", "low", "close"))
    found = kernels.rolling_volatility(
        open_, high, low, close, window=480, estimator="garman_klass"
    )
    loop = np.empty(len(market))
    peers.garman_klass_loop(open_, high, low, close, 480, loop)
    for theirs in (
        peers.garman_klass_numpy(open_, high, low, close, 480),
        peers.garman_klass_polars(market.bars.frame, 480).to_numpy(),
        loop,
    ):
        np.testing.assert_allclose(theirs[479:], found[479:], rtol=1e-7)


@pytest.mark.parametrize("source", ["close_volume", "range_volume"])
def test_modal_prices_of_the_peers(market: Market, source: str) -> None:
    nanos = head_of(market, 2_000).nanos
    high, low, close, volume = (nanos[name] for name in ("high", "low", "close", "volume"))
    found = kernels.rolling_modal_price(
        high, low, close, volume, window=15, tick_size=TICK_NANOS / 1e9, source=source, tie="lowest"
    ).price
    result = [0] * 2_000
    if source == "close_volume":
        peers.modal_close_volume(close.tolist(), volume.tolist(), 15, result)
    else:
        columns = (high.tolist(), low.tolist(), volume.tolist())
        peers.modal_range_volume(*columns, 15, TICK_NANOS, result, [0] * 10_000)
    np.testing.assert_allclose(np.array(result[14:]) / 1e9, found[14:], rtol=0, atol=1e-9)


def test_the_board_survives_the_disk(tmp_path: Path) -> None:
    board = Board()
    board.add(Row("w", OURS, 59.0, "M bars/s", target=Target(60.0, "M bars/s")))
    board.write(tmp_path / "b.json")
    _, again = read_board(tmp_path / "b.json")
    assert [asdict(row) for row in again.rows] == [asdict(row) for row in board.rows]


@pytest.mark.parametrize(
    ("value", "at_least", "told"),
    [
        (60.0, True, "at least 50.0: met"),
        (45.0, True, "at least 50.0: missed by 10 %"),
        (40.0, False, "at most 50.0: met"),
        (60.0, False, "at most 50.0: missed by 20 %"),
    ],
)
def test_verdicts(value: float, at_least: bool, told: str) -> None:
    row = Row("w", OURS, value, "s", target=Target(50.0, "s", at_least), at_least=at_least)
    assert verdict_of(row) == told


def texts() -> dict[str, object]:
    return tomllib.loads(REASONS.read_text("utf-8"))


def test_the_page_tells_misses_with_a_reason() -> None:
    row = Row(
        "Engine.run, preset v6, gates off", OURS, 30.0, "M bars/s", target=Target(60.0, "M bars/s")
    )
    limit = Row("reading the six columns once", "NumPy sum", 300.0, "M bars/s", "a limit")
    text = page(SETTING, Board([row, limit]), texts())
    assert "missed by 50 %" in text
    assert "| 10.0% |" in text
    assert "numba" not in text.split("## Targets")[0].split("Commit")[0].split("Versions")[1]


def test_the_page_refuses_a_void_row() -> None:
    row = Row("w", "a peer", 1.0, "M bars/s", "VOID: 3 trades against 4")
    with pytest.raises(ValueError, match="3 trades against 4"):
        page(SETTING, Board([row]), texts())


def test_the_page_refuses_a_miss_without_a_reason() -> None:
    row = Row("something new", OURS, 1.0, "M bars/s", target=Target(2.0, "M bars/s"))
    with pytest.raises(ValueError, match="something new"):
        page(SETTING, Board([row]), texts())
