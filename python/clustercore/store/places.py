"""What lies beside a store's file, by name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["log_path", "snapshot_path"]


def snapshot_path(path: Path) -> Path:
    """Return where the snapshot of a store is kept: beside it.

    Examples
    --------
    >>> snapshot_path(Path("live.duckdb")).name
    'live.duckdb.snapshot.duckdb'
    """
    return path.with_name(f"{path.name}.snapshot.duckdb")


def log_path(path: Path) -> Path:
    """Return where the database keeps what is not in the file yet; it belongs to the file.

    Examples
    --------
    >>> log_path(Path("live.duckdb")).name
    'live.duckdb.wal'
    """
    return path.with_name(f"{path.name}.wal")
