"""Session tables by the hash of their content."""

from __future__ import annotations

import hashlib
from typing import Final

import polars as pl

from clustercore.sessions import Sessions

__all__ = ["session_rows", "sessions_from", "sessions_hash"]

_COLUMNS: Final = ("trade_date", "open", "close", "halts", "hours", "new_york_offset_s", "note")
_DIGITS: Final = 16


def sessions_hash(sessions: Sessions) -> str:
    """Return the hash of a session table's content.

    Examples
    --------
    >>> from clustercore.sessions import load_sessions
    >>> year = load_sessions().between("2019-01-01", "2019-12-31")
    >>> sessions_hash(year) == sessions_hash(load_sessions().between("2019-01-01", "2019-12-31"))
    True
    >>> sessions_hash(year) == sessions_hash(load_sessions())
    False
    """
    digest = hashlib.sha256()
    for name, values in sorted(sessions.columns().items()):
        digest.update(f"{name} {values.dtype} {len(values)};".encode())
        digest.update(values.tobytes())
    for note in sessions.frame["note"].to_list():
        text = (note or "").encode()
        digest.update(f"{len(text)};".encode() + text)
    return digest.hexdigest()[:_DIGITS]


def session_rows(sessions: Sessions) -> pl.DataFrame:
    """Return a session table as rows of ``session_tables``."""
    return sessions.frame.select(
        pl.lit(sessions_hash(sessions)).alias("hash"),
        pl.col(*_COLUMNS),
    ).with_columns(pl.col("open", "close").dt.replace_time_zone(None))


def sessions_from(rows: pl.DataFrame) -> Sessions:
    """Return the session table that rows of ``session_tables`` hold."""
    return Sessions(
        rows.select(_COLUMNS).with_columns(pl.col("open", "close").dt.replace_time_zone("UTC"))
    )
