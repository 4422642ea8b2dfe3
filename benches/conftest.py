"""One core, one board, one table at the end."""

from __future__ import annotations

import os

# ruff: noqa: E402 - the settings stand before the imports that read them
# Before NumPy, Polars or Numba are imported: they read these once.
for _name in (
    "POLARS_MAX_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
):
    os.environ[_name] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["RAPTORBT_DISABLE_UPDATE_CHECK"] = "1"

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benches.board import Board, table_of
from benches.market import FIVE_YEARS, ONE_YEAR, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

BOARD = Board()
RESULT = Path(os.environ.get("CLUSTERCORE_BENCH_JSON") or ROOT / "out" / "benchmarks.json")


@pytest.fixture(scope="session")
def board() -> Board:
    """Return the board of this run, or skip where there is no market data."""
    for path in (FIVE_YEARS, ONE_YEAR):
        if not path.exists():
            pytest.skip(f"no market data at {os.path.relpath(path, ROOT)}: set CLUSTERCORE_DATA")
    return BOARD


@pytest.fixture(autouse=True)
def one_core(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep a benchmark on one core, unless it is about two."""
    if not hasattr(os, "sched_setaffinity") or request.node.get_closest_marker("two_cores"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "two_cores: may use every core")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table and write the JSON."""
    if not BOARD.rows:
        return
    from rich.console import Console

    terminalreporter.ensure_newline()
    Console(width=220 if not os.isatty(1) else None, soft_wrap=False).print(table_of(BOARD))
    BOARD.write(RESULT)
    terminalreporter.write_line(f"written to {os.path.relpath(RESULT, ROOT)}")
