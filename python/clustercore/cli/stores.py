"""How commands come to a store: its own file, or a copy while a live process owns that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustercore.cli import output
from clustercore.errors import DataError

if TYPE_CHECKING:
    from clustercore.store import Store, StoreError

__all__ = ["owned", "private", "readable", "reading", "silent", "store_errors"]

_NANOS = 10**9


@contextmanager
def store_errors() -> Iterator[None]:
    """Say what is wrong with a store as any bad input is said."""
    from clustercore.store import StoreError

    try:
        yield
    except StoreError as error:
        file = None if error.file is None else str(error.file)
        raise DataError(error.problem, file=file) from error


@contextmanager
def private() -> Iterator[None]:
    """Make files that only their owner reads: orders, positions and money are in them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def owned(file: Path, *, read_only: bool = False) -> Iterator[Store]:
    """Give a store that no other process owns."""
    from clustercore.store import Store

    with store_errors(), Store.open(file, create=False, read_only=read_only) as store:
        yield store


@contextmanager
def reading(file: Path) -> Iterator[tuple[Store, dict[str, Any]]]:
    """Give the store, or its snapshot while a process owns it, and what to say of that."""
    found, note = readable(file)
    with owned(found, read_only=True) as store:
        yield store, note


def readable(file: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file to read, and what to say of it.

    That is the store's own; while a process owns it, the snapshot beside it; and where there is
    none yet, one that the live process is asked for.
    """
    from clustercore.store import StoreError, sql

    with store_errors():
        try:
            found = sql.readable(file)
        except StoreError as error:
            if error.reason != "locked":
                raise
            found = _asked_for(file, error)
    return found, _note(file, found)


def _asked_for(file: Path, locked: StoreError) -> Path:
    """Return a new snapshot from the live process that owns a store."""
    from clustercore.live.control import ControlError, ask

    try:
        return Path(ask(file, "snapshot")["path"])
    except ControlError as error:
        if error.reason == "not_running":
            raise silent(locked) from locked
        raise


def silent(locked: StoreError) -> StoreError:
    """Return what is said of a store whose owner cannot be asked for a copy."""
    from clustercore.store import StoreError

    return StoreError(
        f"{locked.problem.partition(';')[0]}, and is no live process that could be asked for a "
        "copy; wait until it ends",
        reason="locked",
        file=locked.file,
    )


def _note(file: Path, found: Path) -> dict[str, Any]:
    from clustercore.live.clock import SystemClock

    if found == file:
        return {}
    age = max(0, SystemClock().now() - found.stat().st_mtime_ns) // _NANOS
    output.note(f"another process owns {file}; this is its snapshot {found}, {_age(age)} old")
    return {"snapshot_age_s": age}


def _age(seconds: int) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return output.counted(seconds, "second")
