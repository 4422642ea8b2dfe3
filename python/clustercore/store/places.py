"""What lies beside a store's file, by name."""

from __future__ import annotations

import itertools
from pathlib import Path

__all__ = ["log_path", "set_aside_path", "snapshot_path"]


def snapshot_path(path: Path) -> Path:
    """Return where the snapshot of a store is kept: beside it.

    Examples
    --------
    >>> snapshot_path(Path("live.duckdb")).name
    'live.duckdb.snapshot.duckdb'
    """
    return path.with_name(f"{path.name}.snapshot.duckdb")


def set_aside_path(path: Path) -> Path:
    """Return a free place beside a store for a snapshot that is not its own any more.

    Examples
    --------
    >>> set_aside_path(Path("/nowhere/live.duckdb")).name
    'live.duckdb.snapshot-1.duckdb'
    """
    names = (f"{path.name}.snapshot-{number}.duckdb" for number in itertools.count(1))
    return next(place for place in map(path.with_name, names) if not place.exists())


def log_path(path: Path) -> Path:
    """Return where the database keeps what is not in the file yet; it belongs to the file.

    Examples
    --------
    >>> log_path(Path("live.duckdb")).name
    'live.duckdb.wal'
    """
    return path.with_name(f"{path.name}.wal")
