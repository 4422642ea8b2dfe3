"""What can be wrong with the file, and one place that turns the vendor's words into ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import duckdb

from clustercore.errors import ClusterCoreError
from clustercore.store.places import log_path, snapshot_path

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
_DAMAGE: Final = (
    "corrupt",
    "checksum",
    "deserializ",
    "serialization",
    "wal file",
    "invalid block",
    "could not read",
    "input/output error",
)
# What the vendor's library raises when it finds itself where no sound file can lead it.
_BEYOND: Final = (duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException)
_OTHER_LOG: Final = "wal does not match"
_FOREIGN: Final = "this is no store; pass another path, or move the file away to begin a new one"
# Words of the vendor's, what they mean, and its reason.
_MEANT: Final[tuple[tuple[tuple[str, ...], str, Reason], ...]] = (
    (
        ("no space left", "file too large", "disk quota", "could not write"),
        "nothing more could be written; make room on the disk and start again",
        "disk_full",
    ),
    (
        ("permission denied", "read-only", "operation not permitted"),
        "the file or its folder cannot be written; give this user the right to",
        "read_only",
    ),
    (
        ("primary key", "unique constraint"),
        "a row with this number is there already",
        "duplicate",
    ),
    (("not null constraint",), "a value is missing that must be there", "invalid"),
)


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
        return StoreError(_FOREIGN, reason="foreign", file=file)
    for words, problem, reason in _MEANT:
        if any(word in lower for word in words):
            return StoreError(f"{problem} ({text})", reason=reason, file=file)
    return _damaged(error, text, file, opening=opening)


def _damaged(error: duckdb.Error, text: str, file: Path | None, *, opening: bool) -> StoreError:
    lower = text.lower()
    if _OTHER_LOG in lower:
        return StoreError(
            f"the log beside it ({_log(file)}) is of another file, as after putting a snapshot in "
            f"its place; move the log away and start again ({text})",
            reason="damaged",
            file=file,
        )
    if any(word in lower for word in _DAMAGE) or (opening and isinstance(error, _BEYOND)):
        return StoreError(
            f"the file is damaged; keep it for a look, and {_log(file)} with it if there is one: "
            f"move both away, and put the newest snapshot in its place ({text})",
            reason="damaged",
            file=file,
        )
    return StoreError(
        f"it cannot be opened; nothing says that it is damaged ({text})" if opening else text,
        reason="failed",
        file=file,
    )


def _log(file: Path | None) -> str:
    return "its log" if file is None else log_path(file).name


def _locked(text: str, file: Path | None) -> StoreError:
    holder = _HOLDER.search(text)
    who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
    return StoreError(f"{who} owns it; {_beside(file)}", reason="locked", file=file)


def _beside(file: Path | None) -> str:
    """Say what can be done with a store that another process owns."""
    if file is None:
        return "stop that first"
    copy = snapshot_path(file)
    name = shlex.quote(str(file))
    stop = f"stop that first (a live process: clustercore stop --db {name})"
    if copy.exists():
        return f"{stop}, or use the snapshot beside it: {copy}"
    return f"{stop}, or ask it for a copy: clustercore db snapshot {name}"
