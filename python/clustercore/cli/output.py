"""What commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "counted",
    "emit_fields",
    "emit_json",
    "emit_rows",
    "emit_table",
    "emit_text",
    "emit_wrapped",
    "note",
    "progress",
]

# Wide enough that nothing is cut where the reader is a file or another program.
_WIDTH_OF_A_PIPE = 1000
# Letters of a cell that are shown; a page of text in a table helps nobody.
_MOST_LETTERS = 1000
_BETWEEN_COLUMNS = "   "
# Narrower than this, a column breaks times and amounts in two.
_LEAST_WIDTH = 24
# Pieces of a document between two looks at the time.
_PIECES = 1000


def emit_text(text: str) -> None:
    """Write text to standard output."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def emit_wrapped(text: str, *, indent: int = 2) -> None:
    """Write text; on a terminal its lines break between words, and go on indented."""
    for line in text.splitlines():
        emit_text("\n".join(_wrapped(line, indent)))


def _wrapped(line: str, indent: int) -> list[str]:
    width = _terminal_width()
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _terminal_width() -> int | None:
    """Return the columns of the terminal, None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _fits(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> bool:
    """Return whether a table fits the terminal without a line that is broken in two."""
    terminal = _terminal_width()
    columns = zip(headers, *rows, strict=True)
    width = sum(max(len(_shown(cell)) for cell in column) for column in columns)
    return terminal is None or width + len(_BETWEEN_COLUMNS) * len(headers) <= terminal


def emit_fields(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write each row as a block of lines, one for each cell, as ``header: cell``."""
    for place, row in enumerate(rows):
        if place:
            emit_text("")
        for header, cell in zip(headers, row, strict=True):
            line = f"  {_cut(_shown(header))}: {_cut(_shown(cell))}".rstrip()
            emit_wrapped(line, indent=4)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count and what is counted, in the singular where it is one.

    Examples
    --------
    >>> counted(1, "bar"), counted(1200, "bar"), counted(2, "change of month", "changes of month")
    ('1 bar', '1,200 bars', '2 changes of month')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def note(text: str) -> None:
    """Write a remark to standard error."""
    sys.stderr.write(f"{text}\n")


def emit_json(document: object, between: Callable[[], object] | None = None) -> None:
    """Write one JSON document to standard output; what is no finite number is null.

    ``between`` is called every now and then while it is made; what it raises ends that, and then
    nothing is written.
    """
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False)
    pieces = []
    for count, piece in enumerate(encoder.iterencode(_plain(document))):
        pieces.append(piece)
        if between is not None and not count % _PIECES:
            between()
    emit_text("".join(pieces))


def emit_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
    or_fields: bool = False,
) -> None:
    """Write a table; the columns named in ``right`` are numbers. Nothing in a cell is markup.

    With ``or_fields`` one that does not fit the terminal is written as a line for each cell.
    """
    from rich.box import SIMPLE_HEAD, Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title is not None:
        emit_text(title)
    rows = list(rows)
    if or_fields and not _fits(headers, rows):
        emit_text("")
        emit_fields(headers, rows)
        emit_text("")
        return
    table = Table(box=Box(str(SIMPLE_HEAD).replace("\u2500", _line()), ascii=True))
    for header in headers:
        table.add_column(
            Text(header), justify="right" if header in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    console = Console(file=sys.stdout, width=_terminal_width() or _WIDTH_OF_A_PIPE, highlight=False)
    with console.capture() as drawn:
        console.print(table)
    # What fills a line up to its end is for terminals.
    for line in drawn.get().splitlines():
        emit_text(line.rstrip())


def emit_rows(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[int] = (),
    between: Callable[[], object] = lambda: None,
) -> None:
    """Write rows of which there may be many, and whose cells may hold anything.

    Parameters
    ----------
    headers : sequence of str
        Names of the columns; one may come twice.
    rows : iterable of sequences
        Cells. Long ones are cut, and what a terminal would obey is taken out.
    right : collection of int
        Columns that hold numbers.
    between : callable
        Called before each row; what it raises ends the writing.
    """
    from rich.cells import cell_len, chop_cells, set_cell_size

    shown = [[_cut(_shown(header)) for header in headers]]
    for row in rows:
        between()
        shown.append([_cut(_shown(cell)) for cell in row])
    widths = _fitted([max(map(cell_len, column)) for column in zip(*shown, strict=True)])
    if widths is None:
        emit_fields(shown[0], shown[1:])
        return
    shown.insert(1, [_line() * width for width in widths])
    for row in shown:
        between()
        folded = [
            chop_cells(cell, width) if cell_len(cell) > width else [cell]
            for cell, width in zip(row, widths, strict=True)
        ]
        for line in range(max(map(len, folded), default=0)):
            cells = [parts[line] if line < len(parts) else "" for parts in folded]
            text = _BETWEEN_COLUMNS.join(
                " " * (width - cell_len(cell)) + cell
                if place in right
                else set_cell_size(cell, width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            emit_text(f"  {text.rstrip()}")


def _line() -> str:
    """Return the sign of a horizontal line, one that the encoding of the output has."""
    try:
        "\u2500".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "-"
    return "\u2500"


def _shown(cell: object) -> str:
    """Return a cell as text, without what a terminal would obey."""
    text = "" if cell is None else str(cell)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def _cut(text: str) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}\u2026"


def _fitted(widths: list[int]) -> list[int] | None:
    """Return widths that fit the terminal: the widest columns give way, together.

    None where columns that can be read do not fit.
    """
    terminal = _terminal_width()
    if terminal is None:
        return widths
    room = terminal - 2 - len(_BETWEEN_COLUMNS) * (len(widths) - 1)
    most = max(widths, default=1)
    while most > _LEAST_WIDTH and sum(min(width, most) for width in widths) > room:
        most -= 1
    if sum(min(width, most) for width in widths) > room:
        return None
    return [max(1, min(width, most)) for width in widths]


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
