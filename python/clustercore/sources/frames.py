"""Frames and text tables as a ``Table``: names found, times in UTC, numbers checked."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from clustercore.bars import PRICE_COLUMNS, interval_text, refuse_nulls
from clustercore.errors import DataError
from clustercore.instruments import NANOS_PER_POINT
from clustercore.sources.names import find_columns
from clustercore.sources.table import ROW, Table, distinct, name_contracts
from clustercore.sources.times import to_utc

__all__ = ["table_from_frame"]

_RTYPE_INTERVAL_NS = {32: 10**9, 33: 60 * 10**9, 34: 3600 * 10**9, 35: 86_400 * 10**9}
_TRADE_RTYPES = (0, 1, 10, 160, 177, 194)
_UNDEF_PRICE = 2**63 - 1
# A price above this in a table of Databento's is in 1e-9, as its CSV is without pretty_px.
_FIXED_POINT_FROM = 10**7


def table_from_frame(
    raw: pl.DataFrame, columns: Mapping[str, str] | None, tz: str | None, file: str
) -> Table:
    """Turn a frame of any names and types into a table of bars or trades."""
    found = find_columns(raw.columns, columns, file)
    rtypes = _rtypes(raw, found)
    kind = _kind(raw, found, rtypes, file)
    values = (*PRICE_COLUMNS, "volume") if kind == "bars" else ("price", "size")
    time_name = found["ts_recv"] if kind == "trades" and "ts_recv" in found else found["ts_event"]
    frame = raw.with_row_index(ROW).rechunk()
    notes: list[str] = []
    if kind == "trades" and "action" in found:
        frame = frame.filter(pl.col(found["action"]).cast(pl.String).str.strip_chars() == "T")
    volume = "volume" if kind == "bars" else "size"
    frame, note = _without_zero_volume(frame, found[volume], kind, file)
    notes += note
    refuse_nulls(frame, [time_name, *(found[name] for name in values)], file, rows=ROW)
    times = _times(frame, found, time_name, tz, file)
    fixed_point = rtypes is not None and _is_fixed_point(frame, found, kind)
    out = pl.DataFrame(
        {
            "ts_event": times,
            **{
                name: _price(frame, found[name], file, fixed_point=fixed_point)
                for name in values
                if name != volume
            },
            "volume": _volume(frame, found[volume], file),
            "symbol": _symbol(frame, found, file),
            ROW: frame[ROW],
        }
    )
    interval_ns, label = _statement(rtypes, found, kind, file)
    if label == "start" and rtypes is None:
        notes.append("took ts_event as the start of the bar, as Databento names it")
    return Table(out, kind, file, interval_ns=interval_ns, label=label, notes=tuple(notes))


def _rtypes(raw: pl.DataFrame, found: Mapping[str, str]) -> list[int] | None:
    if "rtype" not in found:
        return None
    return raw[found["rtype"]].cast(pl.Int64, strict=False).drop_nulls().unique().sort().to_list()


def _kind(raw: pl.DataFrame, found: Mapping[str, str], rtypes: list[int] | None, file: str) -> str:
    bars_missing = [name for name in ("ts_event", *PRICE_COLUMNS, "volume") if name not in found]
    trades_missing = [name for name in ("price", "size") if name not in found] + (
        [] if "ts_event" in found or "ts_recv" in found else ["ts_event"]
    )
    is_trades = rtypes is None or all(rtype in _TRADE_RTYPES for rtype in rtypes)
    if not bars_missing:
        return "bars"
    if not trades_missing and is_trades:
        return "trades"
    missing = bars_missing if len(bars_missing) < len(PRICE_COLUMNS) else bars_missing[:1]
    raise DataError(
        f"columns are missing; pass columns={{{missing[0]!r}: 'name of the column', ...}} where "
        "they are named otherwise",
        file=file,
        column=", ".join(missing),
        found=", ".join(raw.columns[:20]) or "no columns",
        expected="ts_event open high low close volume, or ts_event price size of trades",
    )


def _statement(
    rtypes: list[int] | None, found: Mapping[str, str], kind: str, file: str
) -> tuple[int | None, str | None]:
    """Return the interval and label that the source states."""
    if kind == "trades":
        return None, "start"
    if rtypes is None:
        return None, "start" if found["ts_event"].lower() == "ts_event" else None
    if len(rtypes) != 1 or rtypes[0] not in _RTYPE_INTERVAL_NS:
        raise DataError(
            "the file holds records of other or several types",
            file=file,
            column=found["rtype"],
            found=", ".join(
                interval_text(_RTYPE_INTERVAL_NS[rtype])
                if rtype in _RTYPE_INTERVAL_NS
                else f"rtype {rtype}"
                for rtype in rtypes
            ),
            expected="one of 32 (1s), 33 (1m), 34 (1h), 35 (1d)",
        )
    return _RTYPE_INTERVAL_NS[rtypes[0]], "start"


def _without_zero_volume(
    frame: pl.DataFrame, column: str, kind: str, file: str
) -> tuple[pl.DataFrame, list[str]]:
    refuse_nulls(frame, [column], file, rows=ROW)
    volume = frame[column]
    if not (volume.dtype.is_numeric() or volume.dtype == pl.String):
        raise _wrong_type(volume, column, file, "a whole number of contracts")
    zero = (
        volume.str.strip_chars().str.contains(r"^0+(?:\.0*)?$")
        if volume.dtype == pl.String
        else volume == 0
    )
    removed = int(zero.sum())
    if removed == 0:
        return frame, []
    noun = "bars" if kind == "bars" else "trades"
    return frame.filter(~zero), [f"removed {removed} {noun} of zero volume"]


def _times(
    frame: pl.DataFrame, found: Mapping[str, str], time_name: str, tz: str | None, file: str
) -> pl.Series:
    times = frame[time_name]
    if "time" in found and time_name == found["ts_event"]:
        refuse_nulls(frame, [found["time"]], file, rows=ROW)
        clock = frame[found["time"]].cast(pl.String)
        times = times.cast(pl.String) + " " + clock.str.strip_chars()
    try:
        return to_utc(times, tz, file, time_name)
    except DataError as error:
        if error.row is not None and error.row < frame.height:
            error.row = int(frame[ROW][error.row])
        raise


def _is_fixed_point(frame: pl.DataFrame, found: Mapping[str, str], kind: str) -> bool:
    prices = frame[found["close" if kind == "bars" else "price"]]
    if prices.dtype == pl.String:
        if not prices.str.contains(r"^-?\d+$").all():
            return False
        prices = prices.cast(pl.Int64, strict=False)
    return prices.dtype.is_integer() and bool((prices.abs() > _FIXED_POINT_FROM).any())


def _price(frame: pl.DataFrame, column: str, file: str, *, fixed_point: bool) -> pl.Series:
    values = frame[column]
    if fixed_point:
        nanos = _cast(frame, column, pl.Int64(), file, "an int in 1e-9")
        if (nanos == _UNDEF_PRICE).any():
            raise DataError(
                "the price is undefined",
                file=file,
                row=int(frame[ROW][int((nanos == _UNDEF_PRICE).arg_max() or 0)]),
                column=column,
                found="UNDEF_PRICE (2^63-1)",
                expected="a price in 1e-9",
            )
        return (nanos / NANOS_PER_POINT).alias(column)
    if not (values.dtype.is_numeric() or values.dtype == pl.String):
        raise _wrong_type(values, column, file, "a number")
    return _cast(frame, column, pl.Float64(), file, "a number")


def _volume(frame: pl.DataFrame, column: str, file: str) -> pl.Series:
    values = frame[column]
    if values.dtype.is_integer():
        return _cast(frame, column, pl.Int64(), file, "a count below 2^63")
    numbers = _cast(frame, column, pl.Float64(), file, "a whole number of contracts")
    whole = numbers.cast(pl.Int64, strict=False)
    fractional = (whole.is_null() | (whole.cast(pl.Float64) != numbers)).fill_null(value=True)
    if fractional.any():
        place = int(fractional.arg_max() or 0)
        raise DataError(
            "the volume is not a whole number",
            file=file,
            row=int(frame[ROW][place]),
            column=column,
            found=str(values[place]),
            expected="a whole number of contracts",
        )
    return whole


def _symbol(frame: pl.DataFrame, found: Mapping[str, str], file: str) -> pl.Series:
    if "symbol" in found:
        refuse_nulls(frame, [found["symbol"]], file, rows=ROW)
        symbols = frame[found["symbol"]].cast(pl.String)
        if any(name != name.strip() for name in distinct(symbols)):
            symbols = symbols.str.strip_chars()
        if "instrument_id" in found:
            return name_contracts(symbols, frame[found["instrument_id"]])
        return symbols
    if "instrument_id" in found and frame[found["instrument_id"]].n_unique() > 1:
        raise DataError(
            "the file holds several instruments and no column says their symbols; write it with "
            "symbols (map_symbols=True in Databento's client) or pass columns={'symbol': ...}",
            file=file,
            column=found["instrument_id"],
            found=f"{frame[found['instrument_id']].n_unique()} instruments",
            expected="a symbol column, or one instrument",
        )
    return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)


def _cast(
    frame: pl.DataFrame, column: str, dtype: pl.DataType, file: str, expected: str
) -> pl.Series:
    values = frame[column]
    source = values.str.strip_chars() if values.dtype == pl.String else values
    result = source.cast(dtype, strict=False)
    if result.null_count():
        place = int(result.is_null().arg_max() or 0)
        raise DataError(
            "the value is no such number",
            file=file,
            row=int(frame[ROW][place]),
            column=column,
            found=repr(values[place]),
            expected=expected,
        )
    return result


def _wrong_type(values: pl.Series, column: str, file: str, expected: str) -> DataError:
    return DataError(
        "the column has another type",
        file=file,
        column=column,
        found=str(values.dtype),
        expected=expected,
    )
