"""A query of the user's, on a file that nobody writes to: it reads the store and nothing else."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from clustercore.errors import ConfigError
from clustercore.store import schema
from clustercore.store.errors import StoreError, classified, translated
from clustercore.store.files import connect
from clustercore.store.places import snapshot_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Answer", "Deadline", "ask", "limited", "memory_bytes", "readable"]

# The configuration is locked after these: no file, no network, no variable of this process.
_LOCKED: Final[dict[str, str | int]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "allow_community_extensions": "false",
    # What does not fit into the memory limit is refused, not spilled beside the store.
    "max_temp_directory_size": "0KB",
    "lock_configuration": "true",
}
_ALLOWED: Final = frozenset({"SELECT", "EXPLAIN"})
_THREADS: Final = 2

_AMOUNT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])(i?)b\s*", re.IGNORECASE)
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}
# With less the library cannot open the file.
_LEAST_BYTES: Final = 16_000_000
# What the process may grow by, in amounts that the query may use: the query's own, its rows, and
# the text that is made of them; and what the library's threads take in any case.
_SHARES: Final = 4
_SPARE_BYTES: Final = 128_000_000
# Rows of one fetch: so few that time and size are looked at often, so many that it is quick.
_MOST_ROWS: Final = 2048
_CHUNK_BYTES: Final = 1_000_000
_ZONED: Final = "WITH TIME ZONE"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave.

    Attributes
    ----------
    columns : tuple of str
        Names.
    rows : list of tuple
        Values; times to the microsecond (``epoch_ns(...)`` gives all of it), those with a time
        zone in UTC.
    cut : bool
        Whether there are more rows than were asked for.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: bool


def readable(path: Path) -> Path:
    """Return the file to read: the store's own, or its snapshot while a process owns it.

    Raises
    ------
    StoreError
        When neither can be opened.
    """
    try:
        connect(path, read_only=True).close()
    except StoreError as error:
        beside = snapshot_path(path)
        if error.reason != "locked" or not beside.exists():
            raise
        return beside
    return path


class Deadline:
    """An instant by which something is to be done, by the clock that nobody sets.

    Parameters
    ----------
    seconds : float
        From now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raise ``StoreError`` (``timeout``) when it has passed."""
        if self.left_s <= 0:
            raise self.missed()

    def missed(self) -> StoreError:
        """Return what is said when it has passed."""
        return StoreError(
            f"the query took longer than {self.seconds:g} seconds, with showing its rows, and was "
            "stopped; ask for less, or give it more time",
            reason="timeout",
        )


def memory_bytes(text: str) -> int:
    """Return an amount of memory in bytes.

    Raises
    ------
    ConfigError
        It is no amount, or too little.

    Examples
    --------
    >>> memory_bytes("512MB"), memory_bytes("1 GiB")
    (512000000, 1073741824)
    """
    found = _AMOUNT.fullmatch(text)
    amount = 0
    if found:
        base = 1024 if found[3] else 1000
        amount = int(float(found[1]) * base ** _POWERS[found[2].lower()])
    if amount < _LEAST_BYTES:
        raise ConfigError(
            "not an amount of memory that a query can work with",
            field="--memory",
            found=repr(text),
            expected=f"a number and a unit, such as 512MB; {_LEAST_BYTES // 1_000_000}MB at least",
        )
    return amount


@contextlib.contextmanager
def limited(memory: str) -> Iterator[None]:
    """Hold this whole process to what a query, its rows and their text may use.

    The library counts what it keeps between two steps, not the values of one: two thousand texts
    of two megabytes are made at once. Only where the system says how much there is already.
    """
    grown = _data_bytes()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if grown is None or before[0] != resource.RLIM_INFINITY:
        yield
        return
    most = grown + _SHARES * memory_bytes(memory) + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    except MemoryError:
        raise _too_large(memory) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return None


def _too_large(memory: str) -> StoreError:
    return StoreError(
        f"the result is larger than {memory}; ask for fewer rows (--limit, LIMIT), for shorter "
        "ones (left(...), sum(...)), or allow more with --memory",
        reason="refused",
    )


def ask(
    path: Path | str,
    query: str,
    *,
    limit: int = 1000,
    seconds: float | Deadline = 30.0,
    memory: str = "512MB",
) -> Answer:
    """Run one query that reads, and return its rows.

    Parameters
    ----------
    path : Path or str
        A snapshot, or a store that no process owns.
    query : str
        One ``SELECT`` (or ``EXPLAIN``, ``DESCRIBE``, ``SUMMARIZE``) in DuckDB's SQL.
    limit : int
        Give the first so many rows; 0 gives all.
    seconds : float or Deadline
        Stop after this time; a deadline can go on to hold for what is done with the rows.
    memory : str
        What the query may use, and its rows once more, such as ``"512MB"``.

    Returns
    -------
    Answer
        Names and rows.

    Raises
    ------
    ConfigError
        ``memory`` is no amount.
    StoreError
        ``refused`` for what may not run, is no SQL or gives too much, ``timeout``, and what opening
        raises.
    """
    path = Path(path)
    deadline = seconds if isinstance(seconds, Deadline) else Deadline(seconds)
    settings = _LOCKED | {"memory_limit": f"{memory_bytes(memory) // 1000}KB", "threads": _THREADS}
    connection = connect(path, read_only=True, settings=settings)
    try:
        with translated(path):
            schema.check_version(schema.version_of(connection, path), path)
        return _answer(connection, path, query, limit, deadline, memory)
    finally:
        connection.close()


def _answer(
    connection: DuckDBPyConnection,
    path: Path,
    query: str,
    limit: int,
    deadline: Deadline,
    memory: str,
) -> Answer:
    timer = threading.Timer(deadline.left_s, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        _check_kind(connection, query)
        zoned = _execute(connection, query)
        columns = tuple(str(column[0]) for column in connection.description or ())
        rows = _fetch(connection, limit + 1 if limit else sys.maxsize, deadline, memory)
    except duckdb.Error as error:
        if deadline.left_s <= 0:
            raise deadline.missed() from error
        raise _refused(error, path, memory) from error
    finally:
        timer.cancel()
        timer.join()
    cut = bool(limit) and len(rows) > limit
    rows = rows[:limit] if cut else rows
    return Answer(columns, [_in_utc(row, zoned) for row in rows] if zoned else rows, cut)


def _execute(connection: DuckDBPyConnection, query: str) -> list[int]:
    """Begin a query; return the columns that are instants, which come without their zone.

    To give them with it the library needs a package that is not among ours.
    """
    connection.execute(query)
    found = [(str(name), str(kind)) for name, kind, *_ in connection.description or ()]
    if not any(_ZONED in kind for _, kind in found):
        return []
    columns = [
        f"{_plain(place, kind)} AS {schema.quoted([name.replace(chr(34), 2 * chr(34))])}"
        for place, (name, kind) in enumerate(found, 1)
    ]
    connection.execute(f"SELECT {', '.join(columns)} FROM (\n{_bare(query)}\n)")  # noqa: S608 -- the user's own
    return [place for place, (_, kind) in enumerate(found) if kind == f"TIMESTAMP {_ZONED}"]


def _bare(query: str) -> str:
    """Return a query without its semicolon and what may stand behind that."""
    # A character of more than one byte moves the places that the tokenizer tells.
    text = query.encode()
    ends = [place for place, _ in duckdb.tokenize(query) if text[place : place + 1] == b";"]
    return text[: ends[0]].decode() if ends else query


def _plain(place: int, kind: str) -> str:
    if kind == f"TIMESTAMP {_ZONED}":
        return f"make_timestamp(epoch_us(#{place}))"
    return f"#{place}::VARCHAR" if _ZONED in kind else f"#{place}"


def _in_utc(row: tuple[Any, ...], places: list[int]) -> tuple[Any, ...]:
    return tuple(
        value.replace(tzinfo=UTC) if place in places and hasattr(value, "tzinfo") else value
        for place, value in enumerate(row)
    )


def _fetch(
    connection: DuckDBPyConnection, most: int, deadline: Deadline, memory: str
) -> list[tuple[Any, ...]]:
    """Return the rows of a query, as long as there is time and room for them."""
    left = memory_bytes(memory)
    rows: list[tuple[Any, ...]] = []
    due = 1
    while len(rows) < most:
        deadline.check()
        part = _fetch_part(connection, min(due, most - len(rows)))
        if not part:
            break
        size = sum(map(_size, part))
        left -= size
        if left < 0:
            raise _too_large(memory)
        rows += part
        due = max(1, min(_MOST_ROWS, 2 * due, _CHUNK_BYTES * len(part) // (size or 1)))
    return rows


def _fetch_part(connection: DuckDBPyConnection, most: int) -> list[tuple[Any, ...]]:
    try:
        return connection.fetchmany(most)
    except (OverflowError, ValueError) as error:
        raise StoreError(
            f"a value of the result is beyond what can be shown ({error}); make text of it: "
            "(...)::VARCHAR",
            reason="refused",
        ) from error


def _size(value: object) -> int:
    """Return the bytes of a value with all that is in it."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        inside = value
    return sys.getsizeof(value) + sum(map(_size, inside))


def _check_kind(connection: DuckDBPyConnection, query: str) -> None:
    kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if len(kinds) != 1 or kinds[0] not in _ALLOWED:
        found = ", ".join(kinds) or "nothing"
        raise StoreError(
            f"one query that reads is allowed, and this is {found}; begin with SELECT",
            reason="refused",
        )


def _refused(error: duckdb.Error, path: Path, memory: str) -> StoreError:
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreError(
            f"the query needs more memory than {memory}; ask for less, or allow more with --memory",
            reason="refused",
        )
    made = classified(error, path)
    if made.reason == "damaged":
        return made
    return StoreError(" ".join(str(error).split()), reason="refused")
