"""Files that appear whole or not at all.

Everything is written beside its place under a hidden name and renamed when it is complete. A
failure in the middle leaves what was there before, and nothing else.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clustercore.errors import ConfigError, DataError
from clustercore.result import replace_folder

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "check_file",
    "check_folder",
    "check_no_table",
    "check_table",
    "staged_file",
    "staged_folder",
    "write_table",
    "write_text",
]

_TABLES = (".parquet", ".csv")
_RESULT_MARK = "manifest.json"
_LOG = ".wal"
# Behind eight bytes of a checksum.
_DATABASE_BEGINS = b"DUCK"
_PLACE_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


def check_table(path: Path) -> None:
    """Refuse a path that no table can be written to, before any work is done for it."""
    if path.suffix.lower() not in _TABLES:
        raise ConfigError(
            "the ending says the format, and this one says none",
            field="--out",
            found=str(path),
            expected="a name that ends with " + " or ".join(_TABLES),
        )
    check_file(path)


def check_file(path: Path) -> None:
    """Refuse a place that no file may take: a folder's, and that of a database or of its log."""
    if path.is_dir():
        raise _unusable(path, "this is a folder", "a folder", "a file name")
    # The log holds the newest part of its database, and is known by its name alone.
    for file in (path, path.with_suffix("")) if path.suffix == _LOG else (path,):
        if _is_database(file):
            raise _unusable(
                path,
                "a database is not replaced; pass another place, or move it away",
                "a DuckDB file" if file == path else f"the log of the DuckDB file {file.name}",
                "a place that holds no database",
            )


def _is_database(path: Path) -> bool:
    """Say whether a file begins as DuckDB's do.

    Whoever owns one loses his lock by closing it, so it is looked at before a store is opened.
    """
    try:
        # Opening a pipe would wait for somebody to write to it.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_DATABASE_BEGINS) + 8).endswith(_DATABASE_BEGINS)
    except OSError:
        return False


def check_no_table(path: Path) -> None:
    """Refuse what looks like a file of another format where a folder would be made of it."""
    if path.suffix and not path.is_dir():
        raise ConfigError(
            "no such format; a folder gets every table",
            field="--out",
            found=str(path),
            expected=f"a name that ends with {' or '.join(_TABLES)}, or a folder's, without a dot",
        )


def check_folder(path: Path) -> None:
    """Refuse a folder that a result cannot go to, before any work is done for it."""
    try:
        if not path.exists():
            return
        if not path.is_dir():
            raise _unusable(path, "the result needs a folder", "a file", "a folder")
        if any(path.iterdir()) and not (path / _RESULT_MARK).exists():
            raise _unusable(
                path,
                "the folder holds something else than a result; pass another one with --out",
                "other files",
                "an empty or a new folder, or one with an earlier result",
            )
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes its place when the block ends without an error."""
    try:
        with _scratch(path) as scratch:
            staged = scratch / path.name
            yield staged
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
    except OSError as error:
        if _is_about_the_place(error):
            raise _refused(path, error) from error
        raise


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to; it takes its place when the block ends without an error.

    An earlier result there is replaced whole. Other files beside it stay.
    """
    check_folder(path)
    try:
        with _scratch(path) as scratch:
            staged = scratch / "result"
            staged.mkdir()
            yield staged
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(staged, path)
    except OSError as error:
        if _is_about_the_place(error):
            raise _refused(path, error) from error
        raise


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet or CSV, as the path's ending says."""
    check_table(path)
    with staged_file(path) as staged:
        if path.suffix.lower() == ".csv":
            frame.write_csv(staged, datetime_format="%Y-%m-%dT%H:%M:%S%.9fZ")
        else:
            frame.write_parquet(staged)


def write_text(text: str, path: Path) -> None:
    """Write a text file."""
    check_file(path)
    with staged_file(path) as staged:
        staged.write_text(text, "utf-8")


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Give a hidden folder on the same file system, so that renaming is one step."""
    home = path.absolute().parent
    while not home.exists() and home != home.parent:
        home = home.parent
    try:
        # It is private; what is renamed out of it keeps its own, ordinary permissions.
        scratch = Path(tempfile.mkdtemp(dir=home, prefix=f".{path.name}-"))
    except OSError as error:
        raise _refused(path, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_about_the_place(error: OSError) -> bool:
    """Tell a place that cannot be written from any other failure inside the block."""
    return error.errno in _PLACE_ERRORS


def _refused(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot be written: {error.strerror or error}; pass another place with --out",
        file=str(path),
        expected="a place where files can be made",
    )


def _unusable(path: Path, problem: str, found: str, expected: str) -> DataError:
    return DataError(problem, file=str(path), found=found, expected=expected)
