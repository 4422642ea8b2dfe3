"""Room on the disk, and the raw bytes of each connection, which are kept only while there is some.

The raw files are for looking at a day again; the store needs none of them. So nothing here may
disturb the feed: a write that fails is noted and ends the capture, and never raises.
"""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import logging
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CaptureFile", "RawCapture", "free_bytes"]

_LOG = logging.getLogger(__name__)
_NANOS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _NANOS
_MB: Final = 1_000_000
_BLOCK: Final = 64 * 1024
# How much may be written before the floor is looked at again.
_LOOK_EVERY: Final = 4 * 1024 * 1024


def free_bytes(path: str | Path) -> int:
    """Return how many bytes this user can still write where a path is, or will be.

    Parameters
    ----------
    path : path
        A file or folder; where it does not exist yet, the folder above counts.

    Raises
    ------
    OSError
        The disk cannot be asked.

    Examples
    --------
    >>> free_bytes("/tmp/not/yet/there") > 0
    True
    """
    place = Path(path).absolute()
    while True:
        try:
            found = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            if place == place.parent:
                raise
            place = place.parent
        else:
            return found.f_bavail * found.f_frsize


class CaptureFile(io.FileIO):
    """A file for the raw bytes of one connection whose writes never raise.

    Each call of ``write`` is one whole record, and the file ends with a whole one whatever happens.

    Parameters
    ----------
    path : Path
        A file that does not exist yet.
    floor_bytes : int
        Free space below which nothing more is written.

    Attributes
    ----------
    failed : str or None
        Why nothing more is written; None while all is well.
    """

    def __init__(self, path: Path, floor_bytes: int) -> None:
        self.path = path
        self.failed: str | None = None
        self._floor_bytes = floor_bytes
        # Appended to by the connection's thread; whoever drains it takes from the other end.
        self._waiting: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._written = 0
        self._look_at = 0
        # The connection's thread writes, the trading thread flushes and closes.
        self._guard = threading.RLock()
        super().__init__(path, "xb", opener=_open_private)

    def write(self, data: Buffer, /) -> int:
        """Take one record; return its length whether or not it was kept."""
        record = bytes(data)
        size = len(record)
        self._waiting.append(record)
        self._size += size
        if self._size >= _BLOCK:
            self._size = 0
            self.flush()
        return size

    def flush(self) -> None:
        """Hand what waits to the operating system."""
        with self._guard:
            if not self.closed:
                self._drain()
            else:
                self._waiting.clear()

    def close(self) -> None:
        """Write what waits and close; a file without a single byte is removed."""
        with self._guard:
            if self.closed:
                return
            self._drain()
            with contextlib.suppress(OSError):
                super().close()
            if self._written == 0:
                with contextlib.suppress(OSError):
                    self.path.unlink()

    def _drain(self) -> None:
        block = b"".join(self._waiting.popleft() for _ in range(len(self._waiting)))
        if not block or self.failed is not None:
            return
        try:
            self._check_floor()
            if self.failed is None:
                self._write_whole(block)
        except OSError as error:
            self._fail(f"{error.strerror or error}")

    def _write_whole(self, block: bytes) -> None:
        done = 0
        with memoryview(block) as view:
            try:
                while done < len(view):
                    done += super().write(view[done:]) or 0
            except OSError:
                # Half a record would make the whole file unreadable.
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fileno(), self._written)
                raise
        self._written += done

    def _check_floor(self) -> None:
        if self._written < self._look_at:
            return
        free = free_bytes(self.path)
        if free < self._floor_bytes:
            self._fail(_below_floor(free, self._floor_bytes))
        self._look_at = self._written + _LOOK_EVERY

    def _fail(self, reason: str) -> None:
        self.failed = reason
        _LOG.warning("raw bytes are no longer kept in %s: %s", self.path, reason)


@dataclass(frozen=True)
class _Kept:
    changed_ns: int
    path: Path
    size: int


class RawCapture:
    """The folder of raw files, one for each connection, with a limit to how much is kept.

    Parameters
    ----------
    folder : path
        Made when it is needed.
    keep_days : int
        Days after its last byte for which a file is kept; 0 for no capture at all.
    floor_bytes : int
        Free space below which nothing is written.
    most_bytes : int
        Size of the folder above which the oldest files go.

    Examples
    --------
    >>> RawCapture("/nowhere", keep_days=0, floor_bytes=0).open(0) is None
    True
    """

    def __init__(
        self,
        folder: str | Path,
        keep_days: int,
        floor_bytes: int,
        most_bytes: int = 20_000 * _MB,
    ) -> None:
        self.folder = Path(folder)
        self._keep_days = keep_days
        self._floor_bytes = floor_bytes
        self._most_bytes = most_bytes
        self._current: CaptureFile | None = None
        self._refused: str | None = None

    @property
    def failed(self) -> str | None:
        """Why nothing is kept at present; None while all is well."""
        return self._current.failed if self._current is not None else self._refused

    def open(self, now: int) -> CaptureFile | None:
        """Close the file of the last connection and return one for the next.

        Parameters
        ----------
        now : int
            Wall time, ns UTC, of which the name and the ages are made.

        Returns
        -------
        CaptureFile or None
            None where nothing is kept; ``failed`` says why, and whether that was asked for.
        """
        self.close()
        self._refused = None
        if not self._keep_days:
            return None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.prune(now)
            free = free_bytes(self.folder)
            if free < self._floor_bytes:
                self._refused = _below_floor(free, self._floor_bytes)
            else:
                self._current = self._new_file(now)
        except OSError as error:
            self._refused = f"{self.folder}: {error.strerror or error}"
        if self._refused is not None:
            _LOG.warning("raw bytes are not kept: %s", self._refused)
        return self._current

    def flush(self) -> None:
        """Hand what waits to the operating system."""
        if self._current is not None:
            self._current.flush()

    def close(self) -> None:
        """Close the file of the present connection."""
        if self._current is not None:
            self._refused = self._current.failed
            self._current.close()
            self._current = None

    def prune(self, now: int) -> list[Path]:
        """Remove files that are too old or too many, and return them; the newest always stays."""
        kept = sorted(self._files(), key=lambda file: (file.changed_ns, file.path.name))
        total = sum(file.size for file in kept)
        removed = []
        for file in kept[:-1]:
            old = now - file.changed_ns > self._keep_days * _DAY_NS
            if not old and total <= self._most_bytes:
                continue
            try:
                file.path.unlink()
            except OSError as error:
                _LOG.warning("%s cannot be removed: %s", file.path, error.strerror)
                continue
            total -= file.size
            removed.append(file.path)
        return removed

    def _files(self) -> list[_Kept]:
        found = []
        for path in self.folder.glob("*.dbn"):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                found.append(_Kept(facts.st_mtime_ns, path, facts.st_size))
        return found

    def _new_file(self, now: int) -> CaptureFile:
        moment = datetime.fromtimestamp(now // _NANOS, UTC).strftime("%Y%m%dT%H%M%SZ")
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                return CaptureFile(self.folder / f"{moment}-{number}.dbn", self._floor_bytes)
        raise AssertionError  # the count has no end


def _below_floor(free: int, floor: int) -> str:
    return f"{free // _MB} MB are free and the floor is {floor // _MB} MB"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
