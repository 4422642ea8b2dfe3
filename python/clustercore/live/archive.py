"""Downloaded files: what a complete one looks like, and which spans of time are on disk already.

A file counts only with its *receipt*, a small JSON file beside it that is written last and holds
the number of records and the hash. A file without one, or with another hash, is not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from clustercore.errors import ConfigError, DataError

__all__ = ["Archive", "Content", "Piece", "Request", "verify"]

_LOG = logging.getLogger(__name__)
_NANOS: Final = 10**9
_BLOCK_BYTES: Final = 1 << 20
_HEADER_START: Final = 8
_HEADER_MOST: Final = 1 << 26
_DATASET_BYTES: Final = 16


@dataclass(frozen=True)
class Layout:
    """How records of a schema lie in a file: all of one kind and length."""

    schema_code: int
    rtype: int
    size: int
    time_at: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The fields that tell a good record."""
        return np.dtype(
            {
                "names": ["length", "rtype", "time"],
                "formats": ["u1", "u1", "<u8"],
                "offsets": [0, 1, self.time_at],
                "itemsize": self.size,
            }
        )


# The server filters trades by the time of receipt, which stands at byte 32.
_LAYOUTS: Final = {
    "trades": Layout(4, 0, 48, 32),
    "ohlcv-1s": Layout(5, 32, 56, 8),
    "ohlcv-1m": Layout(6, 33, 56, 8),
    "ohlcv-1h": Layout(7, 34, 56, 8),
    "ohlcv-1d": Layout(8, 35, 56, 8),
}


@dataclass(frozen=True)
class Request:
    """What is asked for, its time apart."""

    dataset: str
    schema: str
    stype_in: str
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.schema not in _LAYOUTS:
            raise ConfigError(
                "history of this schema cannot be verified",
                field="schema",
                found=repr(self.schema),
                expected=", ".join(_LAYOUTS),
            )
        if not self.symbols:
            raise ConfigError("no symbol", field="symbols", expected="at least one, as ES.FUT")

    @property
    def stem(self) -> str:
        """Start of the names of its files."""
        words = (self.dataset, self.schema, self.stype_in, *self.symbols[:3])
        text = "_".join(re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in words)
        mark = hashlib.sha256("|".join((*words[:3], *self.symbols)).encode()).hexdigest()[:8]
        return f"{text}_{mark}"


@dataclass(frozen=True)
class Content:
    """What a verified file holds; times in ns UTC, None in an empty one."""

    records: int
    first: int | None
    last: int | None
    sha256: str


@dataclass(frozen=True)
class Piece:
    """A span of time, ns UTC with `end` exclusive, and the file that has it, if one does.

    The file may reach beyond the span on both sides.
    """

    start: int
    end: int
    path: Path | None = None


class Archive:
    """A folder of verified downloads.

    Parameters
    ----------
    folder : Path
        Where they are; made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, request: Request, start: int, end: int) -> list[Piece]:
        """Return the span in order, cut at months, into what is on disk and what is not."""
        known = self._known(request, start, end)
        return [piece for month in months(start, end) for piece in _fill(*month, known)]

    def target(self, request: Request, piece: Piece) -> Path:
        """Return the name under which a missing piece is kept."""
        span = f"{_file_time(piece.start)}-{_file_time(piece.end)}"
        return self.folder / f"{request.stem}_{span}.dbn.zst"

    def keep(self, part: Path, request: Request, piece: Piece, content: Content) -> Piece:
        """Give a verified download its name, then its receipt."""
        target = self.target(request, piece)
        part.replace(target)
        receipt = asdict(request) | {"start": piece.start, "end": piece.end} | asdict(content)
        written = target.with_name(target.name + ".json.part")
        written.write_text(json.dumps(receipt, indent=1) + "\n", encoding="utf-8")
        written.replace(_receipt_of(target))
        return replace(piece, path=target)

    def _known(self, request: Request, start: int, end: int) -> list[Piece]:
        found = []
        for receipt in sorted(self.folder.glob(f"{request.stem}_*.dbn.zst.json")):
            piece = _read_receipt(receipt, request)
            if piece is not None and piece.start < end and piece.end > start:
                found.append(piece)
        return sorted(found, key=lambda piece: (piece.start, -piece.end))


def _read_receipt(receipt: Path, request: Request) -> Piece | None:
    path = receipt.with_name(receipt.name.removesuffix(".json"))
    try:
        said = json.loads(receipt.read_text(encoding="utf-8"))
        asked = Request(said["dataset"], said["schema"], said["stype_in"], tuple(said["symbols"]))
        if asked != request:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != said["sha256"]:
            _LOG.warning("%s is not what was downloaded; it is downloaded again", path)
            return None
        return Piece(int(said["start"]), int(said["end"]), path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s does not vouch for a download (%s); it is ignored", receipt, error)
        return None


def _receipt_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _fill(start: int, end: int, known: Sequence[Piece]) -> Iterator[Piece]:
    """Cover a span with known pieces, none of it twice, and say what is missing between them."""
    at = start
    for piece in known:
        until = min(piece.end, end)
        if until <= at or piece.start >= end:
            continue
        if piece.start > at:
            yield Piece(at, piece.start)
        at = max(at, piece.start)
        yield Piece(at, until, piece.path)
        at = until
    if at < end:
        yield Piece(at, end)


def months(start: int, end: int) -> list[tuple[int, int]]:
    """Return the span cut at the first of each month, UTC.

    Examples
    --------
    >>> day = 86_400 * 10**9
    >>> [(a // day, b // day) for a, b in months(15 * day, 60 * day)]
    [(15, 31), (31, 59), (59, 60)]
    """
    spans = []
    at = start
    while at < end:
        moment = datetime.fromtimestamp(at // _NANOS, UTC)
        following = (moment.year + moment.month // 12, moment.month % 12 + 1)
        until = min(end, int(datetime(*following, 1, tzinfo=UTC).timestamp()) * _NANOS)
        spans.append((at, until))
        at = until
    return spans


def _file_time(ts: int) -> str:
    seconds, rest = divmod(ts, _NANOS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{text}.{rest:09d}" if rest else text


def verify(path: Path, request: Request, start: int, end: int) -> Content:
    """Read a download to its end and return what it holds.

    Parameters
    ----------
    path : Path
        A zstd file of DBN.
    request : Request
        What was asked for.
    start, end : int
        The span that was asked for, ns UTC, `end` exclusive.

    Raises
    ------
    DataError
        The stream is cut off or no zstd, the header or a record is of another kind, or a record
        lies outside of the span.
    """
    layout = _LAYOUTS[request.schema]
    digest = hashlib.sha256()
    blocks = _decompressed(path, digest)
    rest = _after_header(blocks, path, request, layout)
    records, first, last = 0, None, None
    for block in _and_more(rest, blocks):
        rest += block
        whole = len(rest) // layout.size
        rows = np.frombuffer(rest, dtype=layout.dtype, count=whole)
        rest = rest[whole * layout.size :]
        if not whole:
            continue
        _check_records(rows, layout, path, records)
        low, high = int(rows["time"].min()), int(rows["time"].max())
        first = low if first is None else min(first, low)
        last = high if last is None else max(last, high)
        records += whole
    if rest:
        raise DataError(
            "the download ends inside a record",
            file=path.name,
            row=records,
            found=f"{len(rest)} bytes",
            expected=f"{layout.size}",
        )
    if first is not None and last is not None and not start <= first <= last < end:
        raise DataError(
            "the download holds records outside of the span asked for",
            file=path.name,
            column="ts_event",
            found=f"{first} to {last}",
            expected=f"{start} until {end}",
        )
    return Content(records, first, last, digest.hexdigest())


def _and_more(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    # What came with the header is in the remainder already; an empty block has it counted.
    if first:
        yield b""
    yield from blocks


def _decompressed(path: Path, digest: Any) -> Iterator[bytes]:  # noqa: ANN401 -- of hashlib
    import zstandard

    decoder = None
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            # A stream may consist of several frames, one after the other.
            while block:
                decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield decoder.decompress(block)
                except zstandard.ZstdError as error:
                    raise DataError(
                        "the download is no zstd stream", file=path.name, found=str(error)
                    ) from None
                block = decoder.unused_data if decoder.eof else b""
                decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise DataError("the download is cut off: its zstd stream does not end", file=path.name)


def _after_header(blocks: Iterator[bytes], path: Path, request: Request, layout: Layout) -> bytes:
    """Check the header, and return what follows it in the blocks that were needed for it."""
    head = b""
    length = _HEADER_START
    for block in blocks:
        head += block
        if len(head) >= _HEADER_START:
            length = _HEADER_START + int.from_bytes(head[4:8], "little")
        if len(head) >= min(max(length, 2 * _DATASET_BYTES), _HEADER_MOST):
            break
    dataset = head[8 : 8 + _DATASET_BYTES].rstrip(b"\0").decode("ascii", "replace")
    schema = int.from_bytes(head[24:26], "little")
    if head[:3] != b"DBN" or len(head) < length:
        raise DataError(
            "the download does not begin with a DBN header",
            file=path.name,
            found=repr(head[:8]) if head else "no bytes",
            expected="DBN and its metadata",
        )
    if (dataset, schema) != (request.dataset, layout.schema_code):
        raise DataError(
            "the download holds other data",
            file=path.name,
            found=f"{dataset}, schema {schema}",
            expected=f"{request.dataset}, schema {layout.schema_code} ({request.schema})",
        )
    return head[length:]


def _check_records(rows: Any, layout: Layout, path: Path, before: int) -> None:  # noqa: ANN401
    good = (rows["length"] == layout.size // 4) & (rows["rtype"] == layout.rtype)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            "the download holds a record of another kind",
            file=path.name,
            row=before + row,
            column="rtype",
            found=str(int(rows["rtype"][row])),
            expected=str(layout.rtype),
        )
