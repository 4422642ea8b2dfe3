"""Measure what a commit of one bar costs in a folder: ``python -m clustercore.store.commit_cost``.

The bars are of no market. The file is made in a hidden folder and removed again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from clustercore.inputs import Bar, Closed, Entry
from clustercore.store.store import Store

__all__ = ["measure"]

_MINUTE_NS: Final = 60 * 10**9
_PRICE: Final = 5_000 * 10**9
_USAGE: Final = 2


def measure(folder: Path, commits: int = 500) -> dict[str, float]:
    """Return the cost of a commit of one bar and its closing, and of an ``fsync``, in ms."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".commit-cost-") as scratch:
        with Store.open(Path(scratch) / "cost.duckdb") as store:
            took = sorted(_commit(store, place) for place in range(commits))
        flushed = sorted(_flush(Path(scratch) / "flush") for _ in range(commits))
    return {
        "commit_median_ms": took[len(took) // 2],
        "commit_p99_ms": took[int(len(took) * 0.99)],
        "fsync_median_ms": flushed[len(flushed) // 2],
    }


def _commit(store: Store, place: int) -> float:
    start = place * _MINUTE_NS
    end = start + _MINUTE_NS
    bar = Bar("ESZ6", start, _PRICE, _PRICE, _PRICE, _PRICE, 1, arrival=end)
    seq = store.next_seq
    began = time.perf_counter()
    store.commit([Entry(seq, "ES", 1, bar), Entry(seq + 1, "ES", 1, Closed(end, "eoi"))])
    return (time.perf_counter() - began) * 1e3


def _flush(path: Path) -> float:
    with path.open("ab") as file:
        file.write(bytes(500))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) == _USAGE else Path.cwd()
    sys.stdout.writelines(f"{name} {value:.2f}\n" for name, value in measure(place).items())
