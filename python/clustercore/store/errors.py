"""What can be wrong with the file, and one place that turns the vendor's words into ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import duckdb

from clustercore.errors import ClusterCoreError

__all__ = ["Reason", "StoreError", "translated"]

Reason = Literal[
    "locked",
    "missing",
    "foreign",
    "damaged",
    "newer",
    "read_only",
    "disk_full",
    "closed",
    "duplicate",
    "invalid",
    "refused",
    "timeout",
    "failed",
]

_HOLDER: Final = re.compile(r"Conflicting lock is held in (.+?) \(PID (\d+)\)")
_DAMAGE: Final = ("corrupt", "checksum", "deserializ", "serialization", "wal file", "invalid block")
_FULL: Final = ("no space left", "file too large", "disk quota", "could not write")
_READ_ONLY: Final = ("permission denied", "read-only", "operation not permitted")


class StoreError(ClusterCoreError):
    """The store cannot do what was asked; the file holds whole transactions only.

    Parameters
    ----------
    problem : str
        What is wrong, and what to do next.
    file : Path, optional
        The file.
    reason : str
        One word for programs: ``locked`` (another process owns it), ``missing``, ``foreign`` (not
        a store), ``damaged``, ``newer`` (of a later clustercore), ``read_only``, ``disk_full``,
        ``closed``, ``duplicate``, ``invalid`` (rows that contradict the store), ``refused`` (a
        query that may not run), ``timeout``, ``failed`` (anything else).
    """

    def __init__(self, problem: str, *, reason: Reason, file: Path | None = None) -> None:
        self.problem = problem
        self.reason: Reason = reason
        self.file = file
        super().__init__(f"{file}: {problem}" if file is not None else problem)


@contextmanager
def translated(file: Path | None, *, opening: bool = False) -> Iterator[None]:
    """Raise the vendor's errors as ``StoreError``."""
    try:
        yield
    except duckdb.Error as error:
        raise classified(error, file, opening=opening) from error


def classified(error: duckdb.Error, file: Path | None, *, opening: bool = False) -> StoreError:
    """Return what a vendor's error means."""
    text = " ".join(str(error).split())
    lower = text.lower()
    if "could not set lock" in lower or "conflicting lock" in lower:
        return _locked(text, file)
    if "not a valid duckdb database" in lower:
        return StoreError(
            "this is no store; pass another path, or move the file away to begin a new one",
            reason="foreign",
            file=file,
        )
    if any(word in lower for word in _FULL):
        return StoreError(
            f"nothing more could be written; make room on the disk and start again ({text})",
            reason="disk_full",
            file=file,
        )
    if any(word in lower for word in _READ_ONLY):
        return StoreError(
            f"the file or its folder cannot be written; give this user the right to ({text})",
            reason="read_only",
            file=file,
        )
    if "primary key" in lower or "unique constraint" in lower:
        return StoreError(
            f"a row with this number is there already ({text})", reason="duplicate", file=file
        )
    if opening or any(word in lower for word in _DAMAGE):
        return StoreError(
            "the file is damaged; go back to the newest snapshot beside it, and keep this one "
            f"for a look ({text})",
            reason="damaged",
            file=file,
        )
    return StoreError(text, reason="failed", file=file)


def _locked(text: str, file: Path | None) -> StoreError:
    holder = _HOLDER.search(text)
    who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
    return StoreError(
        f"{who} owns it; stop that first, or read the snapshot beside it with `clustercore db sql`",
        reason="locked",
        file=file,
    )
