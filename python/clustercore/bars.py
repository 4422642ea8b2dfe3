"""Bars: the one frame that every part of clustercore takes, and its crossing to Rust."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from clustercore._core import points_to_nanos
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PRICE_COLUMNS", "SCHEMA", "Bars", "interval_text", "parse_interval"]

PRICE_COLUMNS = ("open", "high", "low", "close")

SCHEMA: dict[str, pl.DataType] = {
    "ts_event": pl.Datetime("ns", "UTC"),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Int64(),
    "symbol": pl.String(),
    "context": pl.Boolean(),
}

_UNIT_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_INTERVAL = re.compile(r"(\d+)\s*(s|sec|m|min|h|d)")


def parse_interval(interval: str | timedelta) -> int:
    """Return an interval in nanoseconds.

    Examples
    --------
    >>> parse_interval("1m")
    60000000000
    >>> parse_interval("5min") == 5 * parse_interval("1m")
    True
    """
    if isinstance(interval, timedelta):
        nanos = interval // timedelta(microseconds=1) * 1000
    else:
        match = _INTERVAL.fullmatch(interval.strip()) if isinstance(interval, str) else None
        nanos = int(match.group(1)) * _UNIT_NS[match.group(2)[0]] if match else 0
    if nanos <= 0 or _UNIT_NS["d"] % nanos:
        raise ConfigError(
            "the interval must be a positive time that divides a day",
            field="interval",
            found=repr(interval),
            expected='text such as "1m", "5m", "30s", "1h", or a timedelta',
        )
    return nanos


def interval_text(interval_ns: int) -> str:
    """Return an interval as text.

    Examples
    --------
    >>> interval_text(300_000_000_000)
    '5m'
    """
    for unit in ("d", "h", "m", "s"):
        if interval_ns % _UNIT_NS[unit] == 0:
            return f"{interval_ns // _UNIT_NS[unit]}{unit}"
    return f"{interval_ns} ns"


@dataclass(frozen=True, eq=False, repr=False)
class Bars:
    """Bars of one instrument, with where they come from.

    Parameters
    ----------
    frame : polars.DataFrame
        ``ts_event`` Datetime(ns, UTC), the START of the bar; ``open high low close`` Float64 in
        points; ``volume`` Int64 in contracts; ``symbol`` String; ``context`` Boolean, true on bars
        that only inform the baseline of a new contract.
    interval_ns : int
        Length of a bar in nanoseconds.
    instrument : Instrument
        What is traded.
    source : str
        Name of the file, or ``"DataFrame"``.
    source_hash : str
        SHA-256 of the file's bytes in hex; empty for frames.
    simulated : bool
        True for bars that no market made.
    notes : tuple of str
        What was removed or assumed, in plain words, with counts.
    source_rows : polars.Series, optional
        Row of the source of each bar, where rows were removed or moved; for error messages.
    """

    frame: pl.DataFrame
    interval_ns: int
    instrument: Instrument
    source: str = "DataFrame"
    source_hash: str = ""
    simulated: bool = False
    notes: tuple[str, ...] = ()
    source_rows: pl.Series | None = None

    def __post_init__(self) -> None:
        for name, dtype in SCHEMA.items():
            if name not in self.frame.columns:
                raise DataError(
                    "the frame lacks a column",
                    column=name,
                    found=", ".join(self.frame.columns),
                    expected=f"{name} of type {dtype}",
                )
            if self.frame.schema[name] != dtype:
                raise DataError(
                    "the column has another type",
                    column=name,
                    found=str(self.frame.schema[name]),
                    expected=str(dtype),
                )

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        interval: str | timedelta,
        instrument: Instrument | str,
        source: str = "DataFrame",
        simulated: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Bars:
        """Wrap a frame that already has the columns of ``Bars.frame``; ``context`` may be missing.

        Use ``read_bars`` for frames with other names, types or labels.

        Examples
        --------
        >>> from datetime import datetime
        >>> frame = pl.DataFrame(
        ...     {
        ...         "ts_event": pl.Series(
        ...             [datetime(2024, 1, 2, 15)], dtype=pl.Datetime("ns", "UTC")
        ...         ),
        ...         "open": [4770.0],
        ...         "high": [4771.25],
        ...         "low": [4769.5],
        ...         "close": [4771.0],
        ...         "volume": [1200],
        ...         "symbol": ["ESH4"],
        ...     }
        ... )
        >>> Bars.from_frame(frame, interval="1m", instrument="ES")
        Bars(1 of 1m, ES, ESH4, 2024-01-02 15:00 to 2024-01-02 15:00 UTC, DataFrame)
        """
        if "context" not in frame.columns:
            frame = frame.with_columns(pl.lit(value=False).alias("context"))
        return cls(
            frame=frame,
            interval_ns=parse_interval(interval),
            instrument=Instrument.builtin(instrument)
            if isinstance(instrument, str)
            else instrument,
            source=source,
            simulated=simulated,
            notes=notes,
        )

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        symbols = self.symbols
        names = " ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" if symbols[4:] else "")
        span = ""
        if self.frame.height:
            times = self.frame["ts_event"].dt.strftime("%Y-%m-%d %H:%M")
            span = f"{times[0]} to {times[-1]} UTC, "
        label = ", SIMULATED" if self.simulated else ""
        return (
            f"Bars({self.frame.height} of {interval_text(self.interval_ns)}, "
            f"{self.instrument.root}, {names}, {span}{self.source}{label})"
        )

    @cached_property
    def stretches(self) -> tuple[tuple[int, str], ...]:
        """First row and symbol of each stretch of bars of one contract, in order."""
        symbols = self.frame["symbol"]
        if symbols.is_empty():
            return ()
        if (symbols == symbols[0]).all():  # by far the common case, and five times as fast
            return ((0, symbols[0]),)
        first = symbols.ne_missing(symbols.shift(1)).arg_true()
        return tuple(zip(first.to_list(), symbols.gather(first).to_list(), strict=True))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in the order of their first bar."""
        return tuple(dict.fromkeys(symbol for _, symbol in self.stretches))

    def with_notes(self, *notes: str) -> Bars:
        """Return the same bars with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def in_source(self, error: DataError) -> DataError:
        """Return an error about a row of ``frame`` as one about the source: its name, its row."""
        rows, row = self.source_rows, error.row
        if rows is not None and row is not None and len(rows) == self.frame.height:
            row = int(rows[row])
        return DataError(
            error.problem,
            file=error.file or self.source,
            row=row,
            column=error.column,
            found=error.found,
            expected=error.expected,
        )

    def columns_nanos(self) -> dict[str, NDArray[np.int64]]:
        """Return what the engine takes: contiguous int64 columns without nulls.

        Returns
        -------
        dict of str to ndarray of int64, shape (n_bars,)
            ``ts_event`` in ns since 1970, ``open high low close`` in 1e-9 points, ``volume`` in
            contracts.
        """
        frame = self.frame.select(list(SCHEMA)).rechunk()
        refuse_nulls(frame, list(SCHEMA), self.source)
        result = {"ts_event": frame["ts_event"].to_physical().to_numpy(allow_copy=False)}
        for name in PRICE_COLUMNS:
            try:
                result[name] = points_to_nanos(frame[name].to_numpy(allow_copy=False), name)
            except DataError as error:
                raise self.in_source(error) from None
        result["volume"] = frame["volume"].to_numpy(allow_copy=False)
        return result


def refuse_nulls(
    frame: pl.DataFrame, names: list[str], file: str | None, *, rows: str | None = None
) -> None:
    """Raise ``DataError`` for the first null; ``rows`` names the column with the input's rows."""
    for name in names:
        if frame[name].null_count():
            place = frame[name].is_null().arg_max() or 0
            raise DataError(
                "the value is missing",
                file=file,
                row=place if rows is None else int(frame[rows][place]),
                column=name,
                found="null",
                expected=str(SCHEMA.get(name, frame.schema[name])),
            )
