"""The file itself: opening it, its snapshot, and what a connection may do."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from clustercore.store.errors import StoreError, translated
from clustercore.store.places import log_path, set_aside_path, snapshot_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["check_target", "connect", "copy_into", "make", "set_aside", "take_over"]

# Nothing is fetched from the network because a query names it. One thread: the statements of a bar
# are small, and others would only be woken up for nothing.
_SETTINGS: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": 1,
    "memory_limit": "1GB",
}

_MARK: Final = b"DUCK"
_MARK_AT: Final = 8
_NOT_IN_NAMES: Final = ("?", "\\")
_SCHEMA_OF_SCHEMAS: Final = "information_schema"
# Positions and money are in it.
_PRIVATE: Final = 0o600


def connect(
    path: Path,
    *,
    read_only: bool = False,
    settings: Mapping[str, str | int] | None = None,
) -> DuckDBPyConnection:
    """Open a file that is there; say what is in the way."""
    _check_place(path, create=False)
    _check_mark(path)
    with translated(path, opening=True):
        # Absolute: a name such as `md:a` would else be taken for a service.
        return duckdb.connect(
            str(path.absolute()), read_only=read_only, config=_SETTINGS | dict(settings or {})
        )


def make(path: Path, prepare: Callable[[DuckDBPyConnection, Path], None]) -> bool:
    """Make a file that is there whole or not at all; return whether it was not there before.

    Another process may make the same one: the first wins, and both open that.
    """
    _check_place(path, create=True)
    if path.exists():
        return False
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        _forget(part)
        with translated(path):
            connection = duckdb.connect(str(part.absolute()), config=_SETTINGS)
            try:
                part.chmod(_PRIVATE)
                prepare(connection, path)
            finally:
                connection.close()
        _flush(part)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        _flush(path.absolute().parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            _forget(part)
    return True


def _check_place(path: Path, *, create: bool) -> None:
    _check_name(path)
    try:
        if path.is_dir():
            raise StoreError("this is a folder; pass a file name", reason="foreign", file=path)
        if path.exists():
            return
        if not create:
            raise StoreError(
                "there is no such file; pass another path, or let `clustercore live` make it",
                reason="missing",
                file=path,
            )
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the place cannot be used: {error.strerror or error}; pass another path",
            reason="read_only",
            file=path,
        ) from error


def _check_name(path: Path) -> None:
    """Refuse a name that the vendor's library reads in another way than the system does.

    What stands behind a question mark are settings to it, and it puts the log elsewhere; a
    backslash divides folders; the catalogue is named after the file.
    """
    full = str(path.absolute())
    found = next((sign for sign in _NOT_IN_NAMES if sign in full), None)
    problem = None
    if found is not None:
        problem = f"a store's path cannot have a {found} in it"
    elif any("\ud800" <= letter <= "\udfff" for letter in full):
        problem = "a store's path has to be UTF-8"
    elif path.name.lstrip(".").partition(".")[0].lower() == _SCHEMA_OF_SCHEMAS:
        problem = (
            f"a store cannot be named {_SCHEMA_OF_SCHEMAS}, as every database has a part of it"
        )
    if problem is not None:
        raise StoreError(f"{problem}; pass another path", reason="invalid", file=path)


def _check_mark(path: Path) -> None:
    """Refuse another file, which the vendor's library would open as a table (CSV, Parquet)."""
    try:
        head = b""
        # Opening a pipe would wait for somebody to write to it.
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_MARK_AT + len(_MARK))
    except OSError as error:
        raise StoreError(
            f"cannot be read: {error.strerror or error}; give this user the right to",
            reason="read_only",
            file=path,
        ) from error
    if head[_MARK_AT:] != _MARK:
        raise StoreError(
            "this is no store; pass another path, or move the file away to begin a new one",
            reason="foreign",
            file=path,
        )


def check_target(source: Path, target: Path) -> None:
    """Refuse a place that a copy of a store would ruin: its own, or that of a store in use.

    Nothing is opened: whoever owns a file gives it up by closing it a second time.
    """
    _check_name(target)
    try:
        if target.exists() and target.samefile(source):
            raise StoreError(
                "a snapshot cannot take the place of its own store; pass another path",
                reason="invalid",
                file=target,
            )
        if target.is_dir():
            raise StoreError("this is a folder; pass a file name", reason="invalid", file=target)
        if log_path(target).exists():
            raise StoreError(
                f"a store that is in use, or was when its process died: {log_path(target).name} "
                "belongs to it; pass another path",
                reason="invalid",
                file=target,
            )
    except OSError as error:
        raise _unwritable(target, error) from error


def take_over(source: Path, target: Path, store_id: str | None) -> None:
    """Refuse a file that a copy may not replace.

    Parameters
    ----------
    source : Path
        The store.
    target : Path
        Where its copy shall be.
    store_id : str or None
        A snapshot of this store alone is replaced. Without it the place is kept for snapshots, and
        only a store that somebody made of one stays.
    """
    check_target(source, target)
    if not target.exists():
        return
    known = _meta(target)
    own = "snapshot" in known and known.get("store_id") == store_id
    kept_for_it = store_id is None and ("snapshot" in known or not known)
    if not own and not kept_for_it:
        raise StoreError(
            "this is no snapshot of that store, so it is not replaced; pass another path, or move "
            "the file away",
            reason="invalid",
            file=target,
        )


def set_aside(path: Path, store_id: str, last_seq: int) -> Path | None:
    """Move a snapshot out of the place that is for a store's own; return where it is now.

    Readers would take it for the store's: it was left by another store that lay here, or shows
    what this one had before it went back to an older copy. It is kept, as it may be the last copy.

    Parameters
    ----------
    path : Path
        The store.
    store_id : str
        Whose snapshot may stay.
    last_seq : int
        The store's newest input; a snapshot of later ones may not stay.
    """
    beside = snapshot_path(path)
    try:
        check_target(path, beside)
        known = _meta(beside) if beside.exists() else {}
    except StoreError:
        # Somebody works on it as on a store of his own.
        return None
    own = known.get("store_id") == store_id and _last_seq(beside) <= last_seq
    if own or "snapshot" not in known:
        return None
    aside = set_aside_path(path)
    try:
        beside.rename(aside)
        _flush(path.absolute().parent)
    except OSError as error:
        raise _unwritable(beside, error) from error
    return aside


def _meta(path: Path) -> dict[str, str]:
    """Return what a file says of itself; nothing when it is no store that can be read."""
    return dict(_rows(path, "SELECT key, value FROM meta"))


def _last_seq(path: Path) -> int:
    return sum(seq for (seq,) in _rows(path, "SELECT coalesce(max(seq), 0) FROM inputs"))


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        connection = connect(path, read_only=True)
        try:
            with translated(path):
                return connection.execute(query).fetchall()
        finally:
            connection.close()
    except StoreError as error:
        if error.reason == "locked":
            raise
        return []


def copy_into(connection: DuckDBPyConnection, source: Path, target: Path, *, owner: bool) -> None:
    """Write a consistent copy of an open store, whole or not at all."""
    # The owner of a file is one, and clears away what it left when it was killed. Readers may be
    # several, and must not meet.
    name = f".{target.name}.part" if owner else f".{target.name}.{os.getpid()}.part"
    part = target.with_name(name)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        _forget(part)
        with translated(source):
            catalogue = connection.execute("SELECT current_database()").fetchall()[0][0]
        # A store may have any name, so that of the copy is one that nobody gives.
        copied = f"copy_{secrets.token_hex(8)}"
        with translated(target):
            connection.execute(f"ATTACH {_text(str(part.absolute()))} AS {copied} (READ_WRITE)")
        try:
            part.chmod(_PRIVATE)
            with translated(source):
                connection.execute(f"COPY FROM DATABASE {_identifier(catalogue)} TO {copied}")
                connection.execute(
                    f"INSERT OR REPLACE INTO {copied}.meta VALUES ('snapshot', 'yes')"  # noqa: S608 -- our own name
                )
        finally:
            with translated(target):
                connection.execute(f"DETACH {copied}")
        _flush(part)
        part.replace(target)
        _flush(target.absolute().parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            _forget(part)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot be written: {error.strerror or error}; pass another place",
        reason="disk_full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "read_only",
        file=path,
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    log_path(part).unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
