"""DBN as bytes, and the market data that gateway and historical server send.

Records are NumPy structured arrays, a block at a time: a stream of half a million trades a second
leaves no time for one object each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from clustercore._core import points_to_nanos
from clustercore.errors import DataError
from clustercore.instruments import parse_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BARS",
    "DATASET",
    "MINUTE_NS",
    "TRADES",
    "UNDEF_TIMESTAMP",
    "GatewayData",
    "encode_bars",
    "encode_dbn",
    "encode_error",
    "encode_mapping",
    "encode_metadata",
    "encode_system",
    "encode_trades",
    "iso_text",
    "root_of",
    "sample_parent_data",
    "with_ts_out",
    "write_dbn",
]

DATASET: Final = "GLBX.MDP3"
BARS: Final = "ohlcv-1m"
TRADES: Final = "trades"
MINUTE_NS: Final = 60 * 10**9
UNDEF_TIMESTAMP: Final = 2**64 - 1

_DAY_NS = 86_400 * 10**9
_DAY_ONE = date(1970, 1, 1)
_PUBLISHER = 1
_NOTHING_U16 = 2**16 - 1
_NOTHING_U8 = 2**8 - 1
_SYMBOL_LENGTH = 71
_SCHEMAS = {"trades": 4, "ohlcv-1m": 6}
_STYPES = {
    "instrument_id": 0,
    "raw_symbol": 1,
    "continuous": 3,
    "parent": 4,
}
_PRICES = ("open", "high", "low", "close")
_BAR_COLUMNS = ("ts_event", *_PRICES, "volume", "symbol", "instrument_id")
_TRADE_TYPES = {
    "ts_recv": pl.Int64,
    "ts_event": pl.Int64,
    "price": pl.Int64,
    "size": pl.UInt32,
    "side": pl.UInt8,
    "flags": pl.UInt8,
    "ts_in_delta": pl.Int32,
    "sequence": pl.UInt32,
    "symbol": pl.String,
    "instrument_id": pl.UInt32,
}
# Ids of instruments whose file gives them none, or one that stands for several.
_FIRST_FREE_ID = 4001

_HEAD = [
    ("length", "u1"),
    ("rtype", "u1"),
    ("publisher_id", "<u2"),
    ("instrument_id", "<u4"),
    ("ts_event", "<u8"),
]
BAR = np.dtype(
    [
        *_HEAD,
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<u8"),
    ]
)
TRADE = np.dtype(
    [
        *_HEAD,
        ("price", "<i8"),
        ("size", "<u4"),
        ("action", "S1"),
        ("side", "u1"),
        ("flags", "u1"),
        ("depth", "u1"),
        ("ts_recv", "<u8"),
        ("ts_in_delta", "<i4"),
        ("sequence", "<u4"),
    ]
)
MAPPING = np.dtype(
    [
        *_HEAD,
        ("stype_in", "u1"),
        ("stype_in_symbol", "S71"),
        ("stype_out", "u1"),
        ("stype_out_symbol", "S71"),
        ("start_ts", "<u8"),
        ("end_ts", "<u8"),
    ]
)
SYSTEM = np.dtype([*_HEAD, ("msg", "S303"), ("code", "u1")])
ERROR = np.dtype([*_HEAD, ("err", "S302"), ("code", "u1"), ("is_last", "u1")])

_TRADE_FIELDS = tuple(name for name in _TRADE_TYPES if name not in {"symbol", "instrument_id"})
_RTYPES = {BAR: 33, TRADE: 0, MAPPING: 22, SYSTEM: 23, ERROR: 21}
_WITH_TS_OUT = {
    dtype: np.dtype([*((name, dtype[name]) for name in dtype.names or ()), ("ts_out", "<u8")])
    for dtype in _RTYPES
}


def with_ts_out(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a record's type with the instant of its sending appended."""
    return _WITH_TS_OUT[dtype]


def _blank(dtype: np.dtype[Any], count: int, ts_out: NDArray[Any] | int | None) -> NDArray[Any]:
    """Return so many empty records with their heads filled in."""
    stored = dtype if ts_out is None else _WITH_TS_OUT[dtype]
    records = np.zeros(count, dtype=stored)
    records["length"] = stored.itemsize // 4
    records["rtype"] = _RTYPES[dtype]
    if ts_out is not None:
        records["ts_out"] = ts_out
    return records


def encode_bars(
    columns: Mapping[str, NDArray[Any]],
    rows: slice | NDArray[np.int64],
    ids: NDArray[np.uint32],
    ts_out: int | None = None,
) -> NDArray[Any]:
    """Return these rows of the bar columns as records.

    Parameters
    ----------
    columns : mapping of str to ndarray
        ``ts_event open high low close volume`` (int64, prices in 1e-9).
    rows : slice or ndarray of int64
        Which of them.
    ids : ndarray of uint32
        Instrument id of every row that is sent.
    ts_out : int, optional
        The instant of sending, ns UTC.
    """
    records = _blank(BAR, len(ids), ts_out)
    records["publisher_id"] = _PUBLISHER
    records["instrument_id"] = ids
    for name in ("ts_event", *_PRICES, "volume"):
        records[name] = columns[name][rows]
    return records


def encode_trades(
    columns: Mapping[str, NDArray[Any]],
    rows: slice | NDArray[np.int64],
    ids: NDArray[np.uint32],
    *,
    ts_out: bool = False,
) -> NDArray[Any]:
    """Return these rows of the trade columns as records, each sent when it was received."""
    records = _blank(TRADE, len(ids), columns["ts_recv"][rows] if ts_out else None)
    records["publisher_id"] = _PUBLISHER
    records["instrument_id"] = ids
    records["action"] = b"T"
    for name in _TRADE_FIELDS:
        records[name] = columns[name][rows]
    return records


def encode_mapping(
    instrument_id: int, asked: str, raw: str, now: int, ts_out: int | None = None
) -> bytes:
    """Return a mapping of a subscribed symbol to an instrument, as a live session sends it."""
    record = _blank(MAPPING, 1, ts_out)
    record["instrument_id"] = instrument_id
    record["ts_event"] = now
    record["stype_in"] = record["stype_out"] = _NOTHING_U8
    record["stype_in_symbol"] = asked.encode()
    record["stype_out_symbol"] = raw.encode()
    record["start_ts"] = record["end_ts"] = UNDEF_TIMESTAMP
    return record.tobytes()


def encode_system(code: int, text: str, now: int, ts_out: int | None = None) -> bytes:
    """Return a message of the gateway, such as a heartbeat."""
    record = _blank(SYSTEM, 1, ts_out)
    record["ts_event"] = now
    record["msg"] = _text_bytes(text, SYSTEM["msg"])
    record["code"] = code
    return record.tobytes()


def encode_error(code: int, text: str, now: int, ts_out: int | None = None) -> bytes:
    """Return an error message of the gateway."""
    record = _blank(ERROR, 1, ts_out)
    record["ts_event"] = now
    record["err"] = _text_bytes(text, ERROR["err"])
    record["code"] = code
    record["is_last"] = 1
    return record.tobytes()


def _text_bytes(text: str, kind: np.dtype[Any]) -> bytes:
    """Return what fits of a text, its last character whole and a zero behind it."""
    return text.encode()[: kind.itemsize - 1].decode(errors="ignore").encode()


def encode_metadata(
    *,
    start: int,
    end: int | None = None,
    schema: str | None = None,
    stype_in: str | None = None,
    ts_out: bool = False,
    symbols: Sequence[str] = (),
    not_found: Sequence[str] = (),
    limit: int | None = None,
    mappings: Sequence[tuple[str, Sequence[tuple[date, date, str]]]] = (),
    version: int = 3,
) -> bytes:
    """Return the header of a DBN stream or file.

    Parameters
    ----------
    start, end : int
        Span of the data, ns UTC; a live session has no end.
    schema, stype_in : str, optional
        None in a live session.
    ts_out : bool, default False
        Whether records carry the instant of their sending.
    symbols, not_found : sequence of str
        What was asked for, and what of it there is not.
    limit : int, optional
        How many records were asked for at most.
    mappings : sequence of (str, sequence of (date, date, str))
        By symbol: from a date until a date (exclusive) it was this one.
    version : int, default 3
        Version to claim.
    """
    body = struct.pack(
        "<16sHQQQBBBH53x",
        DATASET.encode(),
        _NOTHING_U16 if schema is None else _SCHEMAS[schema],
        start,
        UNDEF_TIMESTAMP if end is None else end,
        limit or 0,
        _NOTHING_U8 if stype_in is None else _STYPES[stype_in],
        _STYPES["instrument_id"],
        ts_out,
        _SYMBOL_LENGTH,
    )
    parts = [body, struct.pack("<I", 0)]
    parts += _symbol_list(symbols) + _symbol_list(()) + _symbol_list(not_found)
    parts.append(struct.pack("<I", len(mappings)))
    for symbol, intervals in mappings:
        parts += [_symbol_bytes(symbol), struct.pack("<I", len(intervals))]
        parts += [
            struct.pack("<II", _yyyymmdd(first), _yyyymmdd(until)) + _symbol_bytes(target)
            for first, until, target in intervals
        ]
    joined = b"".join(parts)
    # Records begin at a multiple of eight bytes.
    joined += bytes(-len(joined) % 8)
    return b"DBN" + struct.pack("<BI", version, len(joined)) + joined


def _symbol_list(symbols: Sequence[str]) -> list[bytes]:
    return [struct.pack("<I", len(symbols)), *map(_symbol_bytes, symbols)]


def _symbol_bytes(symbol: str) -> bytes:
    # One that is too long cannot be said; what there is is never so long.
    return symbol.encode()[: _SYMBOL_LENGTH - 1].ljust(_SYMBOL_LENGTH, b"\0")


def _yyyymmdd(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def encode_dbn(
    frame: pl.DataFrame,
    *,
    schema: str,
    start: int,
    end: int,
    symbols: Sequence[str] = (),
    stype_in: str = "raw_symbol",
    not_found: Sequence[str] = (),
    limit: int | None = None,
) -> bytes:
    """Return a frame of bars or trades as an uncompressed DBN file.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows of ``GatewayData.frame`` (``ohlcv-1m``) or ``GatewayData.trades`` (``trades``).
    schema : {"ohlcv-1m", "trades"}
        Which of them.
    start, end : int
        Span that was asked for, ns UTC, `end` exclusive.
    symbols : sequence of str
        What was asked for; the symbols of the rows when left out.
    stype_in : str, default "raw_symbol"
        What kind of symbols these are.
    not_found : sequence of str
        Those of them that mean nothing.
    limit : int, optional
        How many rows were asked for at most.

    Notes
    -----
    The mappings tell the raw symbol of every id, whatever was asked for: a file of a parent symbol
    cannot be read otherwise.
    """
    until = _day_of(max(end - 1, start)) + timedelta(days=1)
    pairs = frame.select("symbol", "instrument_id").unique(maintain_order=True).sort("symbol")
    header = encode_metadata(
        start=start,
        end=end,
        schema=schema,
        stype_in=stype_in,
        symbols=list(symbols) or pairs["symbol"].to_list(),
        not_found=not_found,
        limit=limit,
        mappings=[
            (symbol, [(_day_of(start), until, str(number))]) for symbol, number in pairs.iter_rows()
        ],
    )
    ids = frame["instrument_id"].to_numpy()
    columns = {name: frame[name].to_numpy() for name in frame.columns if name != "symbol"}
    encode = encode_bars if schema == "ohlcv-1m" else encode_trades
    return header + encode(columns, slice(None), ids).tobytes()


def write_dbn(path: str | Path, data: GatewayData, *, schema: str = "ohlcv-1m") -> Path:
    """Write the data as a file that every reader of DBN takes; ``.zst`` compresses it.

    Parameters
    ----------
    path : str or Path
        Where to.
    data : GatewayData
        What to write.
    schema : {"ohlcv-1m", "trades"}
        Which part of it.
    """
    path = Path(path)
    frame = data.frame if schema == "ohlcv-1m" else data.trades
    if frame.is_empty():
        raise DataError("there is nothing to write", file=str(path), found=f"no {schema}")
    time = frame["ts_event" if schema == "ohlcv-1m" else "ts_recv"]
    first, last = int(time[0]), int(time[-1])
    content = encode_dbn(frame, schema=schema, start=first, end=last + MINUTE_NS)
    if path.suffix == ".zst":
        import zstandard

        content = zstandard.ZstdCompressor().compress(content)
    path.write_bytes(content)
    return path


@dataclass(frozen=True)
class GatewayData:
    """Bars, and trades where there are any, of every instrument that is served.

    Attributes
    ----------
    frame : polars.DataFrame
        ``ts_event`` Int64 (ns UTC, start of the bar), ``open high low close`` Int64 (1e-9),
        ``volume`` Int64, ``symbol`` String, ``instrument_id`` UInt32; by time, then symbol.
    trades : polars.DataFrame
        ``ts_recv ts_event`` Int64 (ns UTC), ``price`` Int64 (1e-9), ``size`` UInt32, ``side flags``
        UInt8, ``ts_in_delta`` Int32, ``sequence`` UInt32, ``symbol``, ``instrument_id``; in order
        of ``ts_recv``.
    source : str
        Where it comes from.
    simulated : bool
        Whether no market made it.
    """

    frame: pl.DataFrame
    trades: pl.DataFrame
    source: str
    simulated: bool = False

    @classmethod
    def from_files(cls, paths: Iterable[str | Path]) -> GatewayData:
        """Read DBN files of one-minute bars, of trades, and recordings of live sessions.

        Parameters
        ----------
        paths : iterable of str or Path
            ``.dbn`` and ``.dbn.zst`` files; of several roots if need be.

        Raises
        ------
        DataError
            A file is of another dataset, or holds neither bars of one minute nor trades.

        Notes
        -----
        A file of a continuous symbol such as ``ES.c.0`` is served under the months in front by the
        calendar, as a live stream only ever carries months.
        """
        from clustercore.gateway.files import read_files

        files = [Path(path) for path in paths]
        read = read_files(files)
        source = ", ".join(file.name for file in files)
        return _assembled(read.bars, read.trades, source, simulated=read.simulated)

    @classmethod
    def from_bars(
        cls,
        frame: pl.DataFrame,
        trades: pl.DataFrame | None = None,
        *,
        source: str = "frame",
        simulated: bool = False,
    ) -> GatewayData:
        """Take bars, and trades if there are any, as they are.

        Parameters
        ----------
        frame : polars.DataFrame
            ``ts_event`` (Datetime UTC or Int64 ns), ``open high low close`` (Float64 points or
            Int64 1e-9), ``volume``, ``symbol``; ``instrument_id`` where it is known.
        trades : polars.DataFrame, optional
            ``ts_recv``, ``price``, ``size``, ``symbol``; ``ts_event``, ``side``, ``flags``,
            ``ts_in_delta``, ``sequence``, ``instrument_id`` where they are known. A trade without
            a sequence gets its place in the data as one.
        source : str
            What to call it.
        simulated : bool, default False
            Whether no market made it.
        """
        parts = [] if trades is None else [_plain(trades, ("price",))]
        bars = [] if frame.is_empty() else [_plain(frame, _PRICES)]
        return _assembled(bars, parts, source, simulated=simulated)

    def before(self, instant: int) -> GatewayData:
        """Return what began before an instant (ns UTC), with the ids that it has here."""
        frame = self.frame.filter(pl.col("ts_event") < instant)
        trades = self.trades.filter(pl.col("ts_recv") < instant)
        if frame.is_empty() and trades.is_empty():
            raise DataError(
                "nothing is left to serve",
                file=self.source,
                found=f"the first bar at {iso_text(self.span[0])}",
                expected=f"one before {iso_text(instant)}",
            )
        return GatewayData(frame, trades, self.source, self.simulated)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The instrument id of every symbol."""
        pairs = pl.concat(
            [part.select("symbol", "instrument_id") for part in (self.frame, self.trades)]
        ).unique()
        return dict(sorted(pairs.iter_rows()))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, in order."""
        return tuple(self.ids)

    @cached_property
    def roots(self) -> dict[str, str]:
        """The root of every symbol, such as ``ES``; of a spread that of its first leg."""
        return {symbol: root_of(symbol) for symbol in self.symbols}

    @cached_property
    def span(self) -> tuple[int, int]:
        """First instant and end of the last interval, ns UTC."""
        starts, ends = [], []
        if len(self.frame):
            starts.append(int(self.frame["ts_event"][0]))
            ends.append(int(self.frame["ts_event"][-1]) + MINUTE_NS)
        if len(self.trades):
            starts.append(int(self.trades["ts_recv"][0]))
            ends.append(int(self.trades["ts_recv"][-1]) + 1)
        return min(starts), max(ends)


def root_of(symbol: str) -> str:
    """Return the root of a month, a spread or a continuous symbol.

    Examples
    --------
    >>> root_of("ESZ4-ESH5"), root_of("NQM5"), root_of("ES.c.0")
    ('ES', 'NQ', 'ES')
    """
    first = symbol.partition("-")[0].partition(".")[0].partition(":")[0]
    parts = parse_symbol(first)
    return parts.root or first


def sample_parent_data(
    sessions: int = 5,
    seed: int = 1,
    instruments: Sequence[str] = ("ES",),
    *,
    start: str | date = "2024-12-10",
) -> GatewayData:
    """Return simulated months of parent symbols, their calendar spreads and a roll.

    Parameters
    ----------
    sessions, seed : int
        How many sessions, and what to draw from.
    instruments : sequence of str, default ("ES",)
        Roots of built-in instruments.
    start : str or date, default "2024-12-10"
        Trade date to begin at; the December month stops trading on the 20th.

    Examples
    --------
    >>> sample_parent_data(sessions=1).symbols
    ('ESH5', 'ESZ4', 'ESZ4-ESH5')
    """
    from clustercore.sample import sample_parent

    frames = [
        sample_parent(sessions, seed + place, root, start=start)
        for place, root in enumerate(instruments)
    ]
    source = f"sample_parent(seed={seed})"
    return GatewayData.from_bars(pl.concat(frames), source=source, simulated=True)


def _plain(frame: pl.DataFrame, prices: Sequence[str]) -> pl.DataFrame:
    """Return times as Int64 ns and prices as Int64 1e-9."""
    columns = [
        pl.Series(name, points_to_nanos(frame[name].to_numpy(), name))
        for name in prices
        if frame.schema[name].is_float()
    ]
    times = [
        pl.col(name).dt.cast_time_unit("ns").cast(pl.Int64)
        for name in ("ts_event", "ts_recv")
        if name in frame.columns and frame.schema[name].is_temporal()
    ]
    return frame.with_columns(*columns, *times)


def _assembled(
    bars: Sequence[pl.DataFrame],
    trades: Sequence[pl.DataFrame],
    source: str,
    *,
    simulated: bool = False,
) -> GatewayData:
    if not bars and not trades:
        raise DataError(
            "there is nothing to serve",
            file=source,
            expected="a DBN file of ohlcv-1m or trades",
        )
    bar_rows = pl.concat([_bar_columns(part) for part in bars] or [_bar_columns(None)])
    trade_rows = pl.concat([_trade_columns(part) for part in trades] or [_trade_columns(None)])
    ids = _ids_of([bar_rows, trade_rows])
    bar_rows, trade_rows = (
        part.with_columns(
            instrument_id=pl.col("symbol").replace_strict(ids, return_dtype=pl.UInt32)
        )
        for part in (bar_rows, trade_rows)
    )
    bar_rows = bar_rows.sort("ts_event", "symbol").rechunk()
    _refuse_twice(bar_rows, source)
    trade_rows = trade_rows.sort("ts_recv", maintain_order=True)
    place = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32)
    trade_rows = trade_rows.with_columns(pl.col("sequence").fill_null(place)).rechunk()
    return GatewayData(bar_rows, trade_rows, source, simulated)


def _refuse_twice(bars: pl.DataFrame, source: str) -> None:
    twice = bars.select("ts_event", "symbol").is_duplicated()
    if twice.any():
        row = bars.row(int(twice.arg_max() or 0), named=True)
        raise DataError(
            "two files, or two rows, hold the same bar; serve each bar once",
            file=source,
            column="ts_event",
            found=f"{row['symbol']} at {row['ts_event']} twice",
            expected="one row an instrument and minute",
        )


def _bar_columns(frame: pl.DataFrame | None) -> pl.DataFrame:
    if frame is None:
        frame = pl.DataFrame(schema=dict.fromkeys(_BAR_COLUMNS, pl.Int64))
    if "instrument_id" not in frame.columns:
        frame = frame.with_columns(instrument_id=pl.lit(0))
    whole = pl.col("ts_event", *_PRICES, "volume").cast(pl.Int64)
    return frame.select(_BAR_COLUMNS).with_columns(
        whole, pl.col("symbol").cast(pl.String), pl.col("instrument_id").cast(pl.UInt32)
    )


def _trade_columns(frame: pl.DataFrame | None) -> pl.DataFrame:
    if frame is None:
        return pl.DataFrame(schema=_TRADE_TYPES)
    known = {
        "ts_event": pl.col("ts_recv"),
        "side": pl.lit(ord("N")),
        "flags": pl.lit(0),
        "ts_in_delta": pl.lit(0),
        "sequence": pl.lit(None),
        "instrument_id": pl.lit(0),
    }
    missing = {name: value for name, value in known.items() if name not in frame.columns}
    columns = [pl.col(name).cast(kind) for name, kind in _TRADE_TYPES.items()]
    return frame.with_columns(**missing).select(columns)


def _ids_of(parts: Sequence[pl.DataFrame]) -> dict[str, int]:
    """Return one id a symbol: the file's own unless it stands for several, or for none."""
    pairs = pl.concat([part.select("symbol", "instrument_id") for part in parts]).unique()
    own = pairs.group_by("symbol").agg(pl.col("instrument_id").min()).sort("symbol")
    ids: dict[str, int] = {}
    taken = {0}
    for symbol, number in own.iter_rows():
        if number not in taken:
            ids[symbol] = number
            taken.add(number)
    free = _FIRST_FREE_ID
    for symbol in own["symbol"].to_list():
        if symbol in ids:
            continue
        while free in taken:
            free += 1
        ids[symbol] = free
        taken.add(free)
    return ids


def _day_of(ts: int) -> date:
    return _DAY_ONE + timedelta(days=ts // _DAY_NS)


def iso_text(ts: int) -> str:
    """Return an instant as text, to the second.

    Examples
    --------
    >>> iso_text(1_733_900_000 * 10**9)
    '2024-12-11T06:53:20Z'
    """
    return datetime.fromtimestamp(ts // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
