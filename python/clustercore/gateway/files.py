"""DBN files as the market of a gateway: bars, trades, and recordings of live sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from clustercore._core import decode_dbn
from clustercore.contracts import expiry_of
from clustercore.errors import DataError
from clustercore.gateway.records import DATASET, TRADE, root_of, with_ts_out
from clustercore.instruments import Instrument, parse_symbol
from clustercore.sessions import load_sessions
from clustercore.sources.dbn import symbols_by_date

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FileContents", "read_files"]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TRADE_RTYPE = 0
_SERVED = "bars of one minute or trades; download the schema ohlcv-1m or trades of that time"
# What a gateway of a simulated market says of itself at the start of every session.
_SIMULATED = re.compile(rb"speed=[0-9a-z.+]+ simulated\0")
_BAR_COLUMNS = ("ts_event", "open", "high", "low", "close", "volume", "instrument_id")
_TRADE_COLUMNS = ("ts_recv", "ts_event", "price", "size", "side", "flags", "instrument_id")
_QUARTERS = "HMUZ"
_MONTHS = "FGHJKMNQUVXZ"


@dataclass
class FileContents:
    """What files hold.

    Attributes
    ----------
    bars, trades : list of polars.DataFrame
        Rows as ``GatewayData`` has them, one frame a file; recordings share one.
    simulated : bool
        Whether a recording is one of a simulated market.
    """

    bars: list[pl.DataFrame] = field(default_factory=list)
    trades: list[pl.DataFrame] = field(default_factory=list)
    simulated: bool = False


def read_files(paths: Iterable[Path]) -> FileContents:
    """Read DBN files: by the types of their records, as a recording has no schema.

    Recordings of one day overlap, as every connection replays from before the end of the last; what
    several of them hold alike counts once.
    """
    found = FileContents()
    recorded = FileContents()
    for path in paths:
        decoded = decode_dbn(path)
        _check(decoded, str(path))
        is_recording = decoded["metadata"]["schema"] is None
        has_trades = "trades" in decoded["trades"]
        into = recorded if is_recording else found
        content = _uncompressed(path) if is_recording or has_trades else b""
        found.simulated |= is_recording and _SIMULATED.search(content) is not None
        if "ohlcv-1m" in decoded["bars"]:
            into.bars.append(_bars_of(decoded, str(path)))
        if has_trades:
            into.trades.append(_trades_of(decoded, content, str(path)))
    if recorded.bars:
        found.bars.append(pl.concat(recorded.bars).unique(maintain_order=True))
    if recorded.trades:
        found.trades.append(_joined(recorded.trades))
    return found


def _check(decoded: Mapping[str, Any], file: str) -> None:
    metadata = decoded["metadata"]
    if metadata["dataset"] != DATASET:
        raise DataError(
            "the gateway serves one dataset, and this file is of another",
            file=file,
            found=metadata["dataset"],
            expected=DATASET,
        )
    if "ohlcv-1m" not in decoded["bars"] and "trades" not in decoded["trades"]:
        counts = ", ".join(f"{count} {name}" for name, count in decoded["counts"].items())
        raise DataError(
            "the file holds nothing that the gateway serves",
            file=file,
            found=f"schema {metadata['schema']} with {counts or 'no records'}",
            expected=_SERVED,
        )


def _bars_of(decoded: dict[str, Any], file: str) -> pl.DataFrame:
    columns = decoded["bars"]["ohlcv-1m"]
    bars = pl.DataFrame({name: columns[name] for name in _BAR_COLUMNS})
    return _with_months(bars.with_columns(_symbols(decoded, columns, "ts_event", file)), "ts_event")


def _trades_of(decoded: dict[str, Any], content: bytes, file: str) -> pl.DataFrame:
    columns = decoded["trades"]["trades"]
    trades = pl.DataFrame({name: columns[name] for name in _TRADE_COLUMNS})
    records = _trade_records(content, ts_out=decoded["metadata"]["ts_out"])
    trades = trades.with_columns(
        pl.Series(name, records[name].copy()) for name in ("ts_in_delta", "sequence")
    )
    return _with_months(trades.with_columns(_symbols(decoded, columns, "ts_recv", file)), "ts_recv")


def _symbols(
    decoded: dict[str, Any], columns: Mapping[str, NDArray[Any]], time: str, file: str
) -> pl.Series:
    symbols, _ = symbols_by_date(decoded, columns["instrument_id"], columns[time], file)
    if symbols.null_count():
        raise DataError(
            "the file does not say which symbols its instruments are; the gateway has to",
            file=file,
            column="instrument_id",
            found="no symbol mapping",
            expected="mappings in the metadata, or as records of a live session",
        )
    return symbols


def _joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the trades of recordings; one that several hold counts as often as one holds it."""
    columns = parts[0].columns
    numbered = [part.with_columns(nth=pl.int_range(pl.len()).over(columns)) for part in parts]
    return pl.concat(numbered).unique(maintain_order=True).drop("nth")


# -- what the decoder leaves out, as no engine reads it


def _uncompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_ZSTD_MAGIC):
        return content
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
    return bytes(reader.read())


def _trade_records(content: bytes, *, ts_out: bool) -> NDArray[Any]:
    """Return the records of trades, those apart that only tell the other side of one."""
    body = content[8 + int.from_bytes(content[4:8], "little") :]
    dtype = with_ts_out(TRADE) if ts_out else TRADE
    if _is_uniform(body, dtype.itemsize):
        records: NDArray[Any] = np.frombuffer(body, dtype)
    else:
        places = np.array(_trade_places(body))
        rows = np.frombuffer(body, np.uint8)[places[:, None] + np.arange(dtype.itemsize)]
        records = rows.view(dtype)[:, 0]
    told: NDArray[Any] = records[records["action"] == b"T"]
    return told


def _is_uniform(body: bytes, size: int) -> bool:
    if len(body) % size:
        return False
    heads = np.frombuffer(body, np.uint8).reshape(-1, size)[:, :2]
    return bool((heads == (size // 4, _TRADE_RTYPE)).all())


def _trade_places(body: bytes) -> list[int]:
    """Return where trades begin; the decoder has seen to it that every record is whole."""
    places = []
    place = 0
    while place < len(body):
        if body[place + 1] == _TRADE_RTYPE:
            places.append(place)
        place += body[place] * 4
    return places


# -- continuous symbols, of which a live stream only ever carries the months


def _with_months(frame: pl.DataFrame, time: str) -> pl.DataFrame:
    """Name the rows of continuous symbols after the month in front, by the calendar."""
    names = frame["symbol"].unique().drop_nulls().to_list()
    continuous = [
        name for name in names if parse_symbol(name.partition("@")[0]).kind == "continuous"
    ]
    if not continuous:
        return frame
    parts = [frame.filter(~pl.col("symbol").is_in(continuous))]
    for name in continuous:
        rows = frame.filter(pl.col("symbol") == name)
        parts.append(rows.with_columns(symbol=_front_months(rows[time], root_of(name))))
    # One id stood for all of the months; each gets its own.
    return pl.concat(parts).with_columns(instrument_id=pl.lit(0, dtype=pl.UInt32))


def _front_months(times: pl.Series, root: str) -> pl.Series:
    known = root in Instrument.roots()
    sessions = load_sessions(Instrument.builtin(root).calendar) if known else load_sessions()
    place = sessions.locate(times.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"))
    days = times.cast(pl.Datetime("ns")).dt.date()
    trade_dates = sessions.frame["trade_date"].gather(place.clip(lower_bound=0))
    dated = pl.select(pl.when(place >= 0).then(trade_dates).otherwise(days).alias("day"))["day"]
    names = {day: _front_month(root, day) for day in dated.unique().to_list()}
    return dated.replace_strict(names, return_dtype=pl.String).alias("symbol")


def _front_month(root: str, day: date) -> str:
    quarterly = root in {"ES", "MES", "NQ", "MNQ", "YM", "MYM", "RTY", "M2K"}
    months = _QUARTERS if quarterly else _MONTHS
    symbols = [f"{root}{code}{year % 10}" for year in (day.year, day.year + 1) for code in months]
    return min(symbols, key=lambda symbol: expiry_of(symbol, day))
