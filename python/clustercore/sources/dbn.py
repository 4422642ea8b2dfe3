"""DBN files, decoded in Rust into columns, as a table with symbols."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from clustercore._core import decode_dbn
from clustercore.bars import PRICE_COLUMNS, interval_text, parse_interval
from clustercore.errors import DataError
from clustercore.instruments import NANOS_PER_POINT
from clustercore.sources.table import ROW, Table, name_contracts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decode_dbn", "load_dbn", "read_definitions", "symbols_by_date"]

_DAY_NS = 86_400 * 10**9
_EPOCH = date(1970, 1, 1)
# Best first: `trades` tells every trade once; the book schemas tell the same trades again.
_TRADE_SCHEMAS = ("trades", "tcbbo", "mbp-1", "cmbp-1", "mbp-10", "mbo")


def load_dbn(path: Path, interval: str | None) -> Table:
    """Load bars, or trades where there are no bars."""
    decoded = decode_dbn(path)
    file = str(path)
    if decoded["bars"] and not (decoded["trades"] and _wants_trades(decoded)):
        return _bars_table(decoded, file, interval)
    if decoded["trades"]:
        return _trades_table(decoded, file)
    schema = decoded["metadata"]["schema"] or ", ".join(decoded["counts"]) or "no schema"
    raise DataError(
        "the file holds no bars and no trades",
        file=file,
        found=f"{schema}, {decoded['records']} records",
        expected="a file of ohlcv-1s, ohlcv-1m, ohlcv-1h, ohlcv-1d, trades, tbbo, mbp-1 or mbo "
        "with at least one bar or trade",
    )


def read_definitions(path: str | Path) -> pl.DataFrame:
    """Return the instrument definitions of a DBN file, one row a record.

    Parameters
    ----------
    path : str or Path
        A ``.dbn`` or ``.dbn.zst`` file of the schema ``definition``.

    Returns
    -------
    polars.DataFrame
        ``ts_event``, ``instrument_id``, ``raw_symbol``, ``asset``, ``currency``,
        ``instrument_class`` (``F`` future, ``S`` spread), ``min_price_increment``,
        ``unit_of_measure_qty`` (both Float64, points and units), ``contract_multiplier``,
        ``expiration`` (null where there is none).
    """
    columns = decode_dbn(Path(path))["definitions"]
    frame = pl.DataFrame({name: pl.Series(name, values) for name, values in columns.items()})
    undefined = 2**63 - 1
    return frame.select(
        pl.col("ts_event").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
        "instrument_id",
        pl.col("raw_symbol", "asset", "currency", "instrument_class").cast(pl.String),
        *(
            pl.when(pl.col(name) != undefined).then(pl.col(name) / NANOS_PER_POINT).alias(name)
            for name in ("min_price_increment", "min_price_increment_amount", "unit_of_measure_qty")
        ),
        pl.when(pl.col("contract_multiplier") != 2**31 - 1).then("contract_multiplier"),
        pl.when(pl.col("expiration") <= undefined)
        .then(pl.col("expiration").cast(pl.Int64, strict=False))
        .cast(pl.Datetime("ns"))
        .dt.replace_time_zone("UTC")
        .alias("expiration"),
    )


def _wants_trades(decoded: dict[str, Any]) -> bool:
    return str(decoded["metadata"]["schema"]) == "trades"


def _bars_table(decoded: dict[str, Any], file: str, interval: str | None) -> Table:
    groups = decoded["bars"]
    if interval is None and len(groups) > 1:
        raise DataError(
            "the file holds bars of several lengths; pass interval=",
            file=file,
            column="rtype",
            found=", ".join(groups),
            expected='one of them, such as interval="1m"',
        )
    wanted = None if interval is None else parse_interval(interval)
    columns = next(
        (group for group in groups.values() if wanted in {None, group["interval_ns"]}), None
    )
    if columns is None:
        raise DataError(
            "the file holds no bars of this interval",
            file=file,
            column="rtype",
            found=", ".join(groups),
            expected=f"interval={interval!r}; pass the interval of the file or leave it out",
        )
    frame = pl.DataFrame(
        {
            "ts_event": _times(columns["ts_event"]),
            **{name: columns[name] / NANOS_PER_POINT for name in PRICE_COLUMNS},
            "volume": columns["volume"],
        }
    )
    symbols, notes = symbols_by_date(decoded, columns["instrument_id"], columns["ts_event"], file)
    others = [name for name in groups if groups[name] is not columns]
    if others:
        notes.append(
            f"took bars of {interval_text(columns['interval_ns'])} and left {', '.join(others)}"
        )
    return Table(
        frame.with_columns(symbols).with_row_index(ROW),
        "bars",
        file,
        interval_ns=columns["interval_ns"],
        label="start",
        notes=tuple(notes),
    )


def _trades_table(decoded: dict[str, Any], file: str) -> Table:
    groups = decoded["trades"]
    schema = next(name for name in _TRADE_SCHEMAS if name in groups)
    columns = groups[schema]
    frame = pl.DataFrame(
        {
            "ts_event": _times(columns["ts_recv"]),
            "price": columns["price"] / NANOS_PER_POINT,
            "volume": columns["size"].astype(np.int64),
        }
    )
    symbols, notes = symbols_by_date(decoded, columns["instrument_id"], columns["ts_recv"], file)
    if len(groups) > 1:
        left = ", ".join(name for name in groups if name != schema)
        notes.append(f"took the trades of {schema} and left those told again by {left}")
    return Table(
        frame.with_columns(symbols).with_row_index(ROW), "trades", file, notes=tuple(notes)
    )


def _times(nanos: NDArray[np.int64]) -> pl.Series:
    return pl.Series("ts_event", nanos).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")


def symbols_by_date(
    decoded: dict[str, Any], ids: NDArray[np.uint32], times: NDArray[np.int64], file: str
) -> tuple[pl.Series, list[str]]:
    """Return the symbol of every row: by id and date, as ids are used again."""
    intervals = _mapping_intervals(decoded)
    distinct = np.unique(ids)
    names: list[str] = []
    codes = np.full(len(ids), -1, dtype=np.int32)
    for instrument_id in distinct.tolist():
        rows = slice(None) if len(distinct) == 1 else np.flatnonzero(ids == instrument_id)
        for start, end, symbol in intervals.get(instrument_id, []):
            if symbol not in names:
                names.append(symbol)
            inside = (times[rows] >= start) & (times[rows] < end)
            part = codes[rows]
            part[inside] = names.index(symbol)
            codes[rows] = part
    notes: list[str] = []
    unknown = codes < 0
    if unknown.any() and not intervals:
        return pl.Series("symbol", [None], dtype=pl.String).new_from_index(0, len(ids)), notes
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(
            "the file does not say which symbol this instrument is on that day",
            file=file,
            row=row,
            column="instrument_id",
            found=f"{ids[row]} at {np.datetime64(int(times[row]), 'ns')}",
            expected="a symbol mapping in the metadata that covers it",
        )
    symbols = pl.Series("symbol", names, dtype=pl.String).gather(codes)
    return name_contracts(symbols, pl.Series(ids)), notes


def _mapping_intervals(decoded: dict[str, Any]) -> dict[int, list[tuple[int, int, str]]]:
    """Return, by instrument id, from when until when (ns, end exclusive) it had which symbol."""
    result: dict[int, list[tuple[int, int, str]]] = {}
    metadata = decoded["metadata"]
    for name, start, end, target in metadata["mappings"]:
        by_id = metadata["stype_in"] == "instrument_id"
        instrument, symbol = (name, target) if by_id else (target, name)
        if instrument.isdigit():
            span = (_date_ns(start), _date_ns(end), symbol)
            result.setdefault(int(instrument), []).append(span)
    records = decoded["mappings"]
    largest = 2**63 - 1
    for instrument_id, symbol in zip(
        records["instrument_id"].tolist(), records["symbol_out"], strict=True
    ):
        # Live mappings carry no dates and are sent again and again.
        span = (-largest, largest, symbol)
        spans = result.setdefault(instrument_id, [])
        if span not in spans:
            spans.append(span)
    return result


def _date_ns(text: str) -> int:
    return (date.fromisoformat(text) - _EPOCH).days * _DAY_NS
