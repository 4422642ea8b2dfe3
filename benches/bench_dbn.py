"""A DBN file to columns, beside the decompression alone and Databento's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import databento
import numpy as np
import zstandard

from benches.board import OURS, Row, Target
from benches.market import ONE_YEAR, one_year
from clustercore._core import decode_dbn

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.board import Board

WORK = "DBN zstd ohlcv-1m to columns, 2019"
SHARE_WORK = "the same, as a share of decompression alone"
TIMES_WORK = "the same, times to_ndarray and column copies"
COLUMNS = ("ts_event", "open", "high", "low", "close", "volume")
RATE = "M records/s"


def test_dbn(
    benchmark: BenchmarkFixture, board: Board, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = Copies(tmp_path_factory.mktemp("dbn"))

    def check(_: Path, answer: Any) -> str | None:
        found = answer["bars"]["ohlcv-1m"]
        for name in COLUMNS:
            if not np.array_equal(found[name], one_year().nanos[name]):
                return name
        return None

    row = board.measure(
        benchmark,
        WORK,
        OURS,
        count=len(one_year()),
        prepare=copies.path,
        function=decode_dbn,
        check=check,
        rounds=15,
        unit=RATE,
        note=f"{len(one_year())} records, one file, a fresh copy of it for each round",
    )
    assert not row.void, row.answers


class Copies:
    """The file under names of its own, so that nothing is remembered by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = ONE_YEAR.read_bytes()

    def path(self, number: int) -> Path:
        path = self.folder / f"{number}.dbn.zst"
        path.write_bytes(self.content)
        return path


def decompress(path: Path) -> int:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        buffer = bytearray(1 << 20)
        total = 0
        while count := stream.readinto(buffer):
            total += count
        return total


def to_columns(path: Path) -> dict[str, Any]:
    records = databento.DBNStore.from_file(path).to_ndarray()
    return {name: np.ascontiguousarray(records[name]) for name in COLUMNS}


def to_frame(path: Path) -> Any:
    return databento.DBNStore.from_file(path).to_df()


def test_peers(
    benchmark: BenchmarkFixture, board: Board, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = Copies(tmp_path_factory.mktemp("dbn"))
    row = board.measure(
        benchmark,
        WORK,
        "zstd decompression alone",
        count=len(one_year()),
        prepare=copies.path,
        function=decompress,
        check=None,
        rounds=15,
        unit=RATE,
        note=lambda count: f"{count / 1e6:.1f} MB out of {len(copies.content) / 1e6:.1f} MB",
        other="less work",
    )
    ours = next(one for one in board.rows if one.work == WORK and one.who == OURS)
    board.add(
        Row(
            SHARE_WORK,
            OURS,
            ours.value / row.value,
            "x",
            note="zstandard's decoder, same file",
            target=Target(0.75, "x"),
        )
    )


def test_databento_columns(
    benchmark: BenchmarkFixture, board: Board, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = Copies(tmp_path_factory.mktemp("dbn"))

    def check(_: Path, answer: dict[str, Any]) -> str | None:
        for name in COLUMNS:
            if not np.array_equal(answer[name].astype(np.int64), one_year().nanos[name]):
                return name
        return None

    row = board.measure(
        benchmark,
        WORK,
        "databento to_ndarray, column copies",
        count=len(one_year()),
        prepare=copies.path,
        function=to_columns,
        check=check,
        rounds=9,
        unit=RATE,
    )
    assert not row.void, row.answers
    ours = next(one for one in board.rows if one.work == WORK and one.who == OURS)
    board.add(
        Row(
            TIMES_WORK, OURS, ours.value / row.value, "x", note="same file", target=Target(1.2, "x")
        )
    )


def test_databento_frame(
    benchmark: BenchmarkFixture, board: Board, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = Copies(tmp_path_factory.mktemp("dbn"))

    def check(_: Path, frame: Any) -> str | None:
        market = one_year()
        same = np.array_equal(frame["close"].to_numpy(), market.points["close"])
        return None if same and len(frame) == len(market) else "close"

    row = board.measure(
        benchmark,
        WORK,
        "databento to_df",
        count=len(one_year()),
        prepare=copies.path,
        function=to_frame,
        check=check,
        rounds=3,
        unit=RATE,
        note="pandas, prices as floats, symbols mapped",
    )
    assert not row.void, row.answers
