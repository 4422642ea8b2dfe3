"""What commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

__all__ = ["emit_json", "emit_table", "emit_text", "note", "progress"]

# Wide enough that nothing is cut where the reader is a file or another program.
_WIDTH_OF_A_PIPE = 1000


def emit_text(text: str) -> None:
    """Write text to standard output."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def note(text: str) -> None:
    """Write a remark to standard error."""
    sys.stderr.write(f"{text}\n")


def emit_json(document: object) -> None:
    """Write one JSON document to standard output; what is no finite number is null."""
    emit_text(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def emit_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """Write a table; the columns named in ``right`` are numbers. Nothing in a cell is markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title is not None:
        emit_text(title)
    table = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(
            Text(header), justify="right" if header in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    Console(file=sys.stdout, width=width, highlight=False).print(table)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], object]]:
    """Show what is being done while it takes its time, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(text)) as status:
        yield lambda text: status.update(escape(text))


def _plain(value: object) -> Any:  # noqa: ANN401 -- whatever JSON can say
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "iter_rows"):
        return _rows(value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def _rows(frame: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- a frame, without importing its library
    polars_frame: pl.DataFrame = frame
    return [_plain(row) for row in polars_frame.iter_rows(named=True)]
