"""Files by what they are, not by what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from clustercore.errors import DataError
from clustercore.sources.dbn import load_dbn
from clustercore.sources.frames import table_from_frame
from clustercore.sources.table import Table

__all__ = ["file_hash", "load_file"]

_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_TAIL = b"\x2a\x4d\x18"
_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 4096
_KINDS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PK\x03\x04", "a ZIP archive (unpack it)"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite database"),
    (b"ARROW1", "an Arrow IPC file (pass polars.read_ipc(path))"),
)


def load_file(
    path: Path, interval: str | None, columns: Mapping[str, str] | None, tz: str | None
) -> Table:
    """Load a file as DBN, Parquet or text."""
    file = str(path)
    head = _head(path)
    text_name = any(suffix.lower() in {".csv", ".txt", ".tsv"} for suffix in path.suffixes)
    compressed = head.startswith((_ZSTD, _GZIP))
    if (
        head.startswith(b"DBN")
        or (head[1:4] == _SKIPPABLE_TAIL)
        or (head.startswith(_ZSTD) and not text_name)
        or path.suffix.lower() in {".dbn", ".dbz", ".frag"}
    ):
        return load_dbn(path, interval)
    if head.startswith(b"PAR1"):
        return table_from_frame(_read_parquet(path, file), columns, tz, file)
    for magic, name in _KINDS:
        if head.startswith(magic):
            raise _wrong_kind(file, name)
    if not compressed and not _is_text(head):
        raise _wrong_kind(file, "binary data")
    return table_from_frame(_read_text(path, file, head), columns, tz, file)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except IsADirectoryError as error:
        raise DataError(
            "this is a directory", file=str(path), found="a directory", expected="a file"
        ) from error
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}",
            file=str(path),
            expected="a file that exists and may be read",
        ) from error
    if not head:
        raise DataError("the file is empty", file=str(path), found="0 bytes", expected="bars")
    return head


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The head may end inside a character.
        return error.start > len(head) - 4
    return True


def _wrong_kind(file: str, found: str) -> DataError:
    return DataError(
        "the file is of another kind", file=file, found=found, expected="DBN, Parquet or CSV text"
    )


def _read_parquet(path: Path, file: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the Parquet file is damaged: {_first_line(error)}",
            file=file,
            expected="a complete Parquet file",
        ) from error


def _read_text(path: Path, file: str, head: bytes) -> pl.DataFrame:
    first = head.split(b"\n", maxsplit=1)[0]
    separator = max((b",", b";", b"\t"), key=first.count).decode()
    try:
        frame = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
    except pl.exceptions.NoDataError as error:
        raise DataError("the file is empty", file=file, found="no rows", expected="bars") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the text is no table: {_first_line(error)}",
            file=file,
            expected="a header line and rows with the same number of fields",
        ) from error
    return frame.rename({name: name.strip() for name in frame.columns})


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
