"""Frames from and to DuckDB by the Arrow stream alone, without pyarrow.

Polars keeps a reference to the class of everything it ever read. This module therefore does not
import DuckDB, whose library would else be kept past the interpreter's end and complain of it.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["ArrowStream"]


class _HasStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class ArrowStream:
    """Anything that gives an Arrow stream, and nothing else of it."""

    def __init__(self, source: _HasStream) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)
