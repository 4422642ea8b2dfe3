"""A query of the user's, on a file that nobody writes to: it reads the store and nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from clustercore.store import schema
from clustercore.store.errors import StoreError, classified, translated
from clustercore.store.files import connect, snapshot_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Answer", "ask", "readable"]

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave.

    Attributes
    ----------
    columns : tuple of str
        Names.
    rows : list of tuple
        Values; times to the microsecond (``epoch_ns(...)`` gives all of it).
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


def ask(
    path: Path | str,
    query: str,
    *,
    limit: int = 1000,
    seconds: float = 30.0,
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
    seconds : float
        Stop the query after this time.
    memory : str
        What it may use, such as ``"512MB"``.

    Returns
    -------
    Answer
        Names and rows.

    Raises
    ------
    StoreError
        ``refused`` for what may not run or is no SQL, ``timeout``, and what opening raises.
    """
    path = Path(path)
    connection = connect(
        path, read_only=True, settings=_LOCKED | {"memory_limit": memory, "threads": _THREADS}
    )
    try:
        with translated(path):
            schema.check_version(schema.version_of(connection, path), path)
        return _answer(connection, path, query, limit, seconds)
    finally:
        connection.close()


def _answer(
    connection: DuckDBPyConnection, path: Path, query: str, limit: int, seconds: float
) -> Answer:
    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        _check_kind(connection, query)
        connection.execute(query)
        rows = connection.fetchmany(limit + 1) if limit else connection.fetchall()
        columns = tuple(str(column[0]) for column in connection.description or ())
    except duckdb.Error as error:
        if late.is_set():
            raise StoreError(
                f"the query took longer than {seconds:g} seconds and was stopped; ask for less, or "
                "give it more time",
                reason="timeout",
            ) from error
        raise _refused(error, path) from error
    finally:
        timer.cancel()
        timer.join()
    cut = bool(limit) and len(rows) > limit
    return Answer(columns, rows[:limit] if cut else rows, cut)


def _check_kind(connection: DuckDBPyConnection, query: str) -> None:
    kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if len(kinds) != 1 or kinds[0] not in _ALLOWED:
        found = ", ".join(kinds) or "nothing"
        raise StoreError(
            f"one query that reads is allowed, and this is {found}; begin with SELECT",
            reason="refused",
        )


def _refused(error: duckdb.Error, path: Path) -> StoreError:
    made = classified(error, path)
    if made.reason == "damaged":
        return made
    return StoreError(" ".join(str(error).split()), reason="refused")
