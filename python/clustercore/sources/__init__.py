"""Bars from anywhere: DBN, Parquet, CSV, Polars, pandas, Arrow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clustercore.bars import SCHEMA, Bars, interval_text, parse_interval
from clustercore.contracts import FrontSelection, is_spread, refuse_mixed, select_front
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument, parse_symbol
from clustercore.sessions import Sessions, load_sessions
from clustercore.sources.dbn import read_definitions
from clustercore.sources.files import file_hash, load_file
from clustercore.sources.frames import table_from_frame
from clustercore.sources.table import ROW, Table, distinct
from clustercore.sources.trades import bars_from_trades

__all__ = ["read_bars", "read_definitions", "read_months"]

# From this many bars on, the smallest spacing is taken as the interval.
_BARS_TO_INFER = 100
_NAMES_SHOWN = 8
_MINUTE = "1m"
_FRAME = "DataFrame"

Moment = str | date | datetime


def read_bars(
    source: object,
    symbol: str | None = None,
    interval: str | timedelta | None = None,
    label: Literal["start", "end"] | None = None,
    tz: str | None = None,
    *,
    instrument: Instrument | str | None = None,
    columns: Mapping[str, str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    roll: Literal["session", "week"] | None = "session",
    lookback_hours: float = 12.0,
    simulated: bool = False,
) -> Bars:
    """Read bars of one instrument.

    Parameters
    ----------
    source : path or frame
        ``.dbn``, ``.dbn.zst`` (bars or trades), Parquet, CSV (also ``.csv.zst`` and ``.csv.gz``), a
        Polars ``DataFrame`` or ``LazyFrame``, or anything that speaks ``__arrow_c_stream__`` or
        ``__dataframe__``, such as pandas and Arrow.
    symbol : str, optional
        One contract (``"ESZ5"``), or a root (``"NQ"``) to take its months only. Names the bars
        where the source has no symbol column.
    interval : str or timedelta, optional
        Length of a bar, such as ``"1m"``. Needed for fewer than 100 bars of a source that does not
        state it; otherwise it must equal the smallest spacing found. For trades, the length of the
        bars to make (default ``"1m"``).
    label : {"start", "end"}, optional
        What a timestamp means. Needed unless the source states it: DBN, Databento's CSV, or a
        column named ``ts_event``.
    tz : str, optional
        Zone of times without one, such as ``"UTC"`` or ``"America/New_York"``.
    instrument : Instrument or str, optional
        Needed where no built-in instrument fits the symbol.
    columns : mapping, optional
        Our name to the source's, where a column is named unusually:
        ``{"volume": "contracts", "ts_event": "bar_time"}``.
    start, end : str, date or datetime, optional
        Keep bars that start at or after ``start`` and before ``end``; naive means UTC.
    roll : {"session", "week"}, optional
        How often the front month is chosen anew in a file of several months. None refuses them.
    lookback_hours : float, default 12
        Session time over which the months' volume is compared.
    simulated : bool, default False
        Say that no market made these bars.

    Returns
    -------
    Bars
        With notes on all that was removed or assumed.

    Raises
    ------
    DataError
        The data cannot be used as it is; the message says where and what to pass.
    ConfigError
        An argument is out of its range.

    Examples
    --------
    >>> from datetime import datetime, timedelta
    >>> frame = pl.DataFrame(
    ...     {
    ...         "timestamp": [datetime(2024, 1, 2, 15) + timedelta(minutes=i) for i in range(3)],
    ...         "Open": [4770.0, 4771.0, 4770.5],
    ...         "High": [4771.25, 4771.5, 4771.0],
    ...         "Low": [4769.5, 4770.0, 4770.0],
    ...         "Close": [4771.0, 4770.5, 4770.25],
    ...         "Volume": [1200, 900, 0],
    ...     }
    ... )
    >>> bars = read_bars(frame, symbol="ESH4", interval="1m", label="start", tz="UTC")
    >>> len(bars), bars.notes
    (2, ('removed 1 bars of zero volume',))
    """
    _refuse_empty_span(start, end)
    table, name, digest, resolved = _one_product(
        source, symbol, interval, label, tz, instrument, columns, roll
    )
    frame = table.frame.with_columns(context=pl.lit(value=False)).select(*SCHEMA, ROW)
    frame, notes = _front(replace(table, frame=frame), resolved, roll, lookback_hours)
    frame, cut = _between(frame, start, end)
    if frame.is_empty():
        raise table.error("no bar is left", found="; ".join((*table.notes, *notes, *cut)) or "none")
    rows = frame[ROW]
    moved = not rows.is_empty() and bool((rows != pl.int_range(len(rows), eager=True)).any())
    return Bars(
        frame=frame.select(*SCHEMA).rechunk(),
        interval_ns=_known_interval(table),
        instrument=resolved,
        source=name,
        source_hash=digest,
        # A sample that was stored keeps saying so.
        simulated=simulated or any("SIMULATED" in name for name in distinct(frame["symbol"])),
        notes=(*table.notes, *notes, *cut),
        source_rows=rows if moved else None,
    )


def read_months(
    source: object,
    symbol: str | None = None,
    interval: str | timedelta | None = None,
    label: Literal["start", "end"] | None = None,
    tz: str | None = None,
    *,
    instrument: Instrument | str | None = None,
    columns: Mapping[str, str] | None = None,
    roll: Literal["session", "week"] | None = "session",
    lookback_hours: float = 12.0,
) -> FrontSelection:
    """Return which contract month each session of a file would take, and why.

    Parameters
    ----------
    source, symbol, interval, label, tz, instrument, columns, roll, lookback_hours
        As for ``read_bars``.

    Returns
    -------
    FrontSelection
        The choice of each session with the volumes it was made from, and the bars it leaves.

    Raises
    ------
    DataError
        The data cannot be used as it is, or its symbols are no single contract months.

    Examples
    --------
    >>> from clustercore.sample import sample_parent
    >>> months = read_months(sample_parent(sessions=3), interval="1m", label="start")
    >>> months.table["reason"].to_list()
    ['nothing_known', 'first', 'held']
    """
    table, _, _, resolved = _one_product(
        source, symbol, interval, label, tz, instrument, columns, roll
    )
    try:
        return select_front(
            table.frame.drop(ROW),
            load_sessions(resolved.calendar),
            _known_interval(table),
            lookback_hours=lookback_hours,
            every="week" if roll == "week" else "session",
        )
    except DataError as error:
        raise error.in_file(table.file) from error


def _one_product(
    source: object,
    symbol: str | None,
    interval: str | timedelta | None,
    label: Literal["start", "end"] | None,
    tz: str | None,
    instrument: Instrument | str | None,
    columns: Mapping[str, str] | None,
    roll: str | None,
) -> tuple[Table, str, str, Instrument]:
    """Return the bars of one product, of one or several months, with the file's name and hash."""
    if label not in {None, "start", "end"}:
        raise ConfigError(
            "no such label", field="label", found=repr(label), expected="start or end"
        )
    interval_given = None if interval is None else interval_text(parse_interval(interval))
    table, name, digest = _load(source, interval_given, columns, tz)
    if table.frame.is_empty():
        raise table.error("there is no bar", found="; ".join(table.notes) or "no rows")
    table = _with_symbol(table, symbol, instrument)
    table = _pick(table, symbol, roll)
    # Trades are bars of a length that we choose, so there is nothing to check them against.
    if table.kind == "trades":
        table = _aggregate(table, interval_given or _MINUTE)
    else:
        table = _checked(table, interval_given, label)
    return table, name, digest, _instrument(table, instrument)


def _known_interval(table: Table) -> int:
    if table.interval_ns is None:
        raise table.error("the interval is not known; pass interval=", expected='such as "1m"')
    return table.interval_ns


def _refuse_empty_span(start: Moment | None, end: Moment | None) -> None:
    if start is not None and end is not None and _moment(start, "start") >= _moment(end, "end"):
        raise ConfigError(
            "the span is empty",
            field="start",
            found=f"start={start!s} end={end!s}",
            expected="start before end",
        )


def _load(
    source: object, interval: str | None, columns: Mapping[str, str] | None, tz: str | None
) -> tuple[Table, str, str]:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        table = load_file(path, interval, columns, tz)
        return table, path.name, file_hash(path)
    frame = _as_polars(source)
    return table_from_frame(frame, columns, tz, _FRAME), _FRAME, ""


class _ArrowStream:
    """An object reduced to its Arrow stream, in which a pandas index is a column."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 -- any frame library's object
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)


def _as_polars(source: Any) -> pl.DataFrame:  # noqa: ANN401 -- any frame library's object
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    try:
        if hasattr(source, "__arrow_c_stream__"):
            return pl.DataFrame(_ArrowStream(source))
        if hasattr(source, "__dataframe__"):
            return _interchanged(source)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise DataError(
            f"the frame cannot be taken over: {error}", found=type(source).__name__
        ) from error
    raise DataError(
        "bars cannot be read from this",
        found=type(source).__name__,
        expected="a path, a Polars frame, or an object with __arrow_c_stream__ or __dataframe__",
    )


def _interchanged(source: Any) -> pl.DataFrame:  # noqa: ANN401 -- any frame library's object
    """Take a frame over by the older protocol, which pyarrow still speaks and Polars no more."""
    try:
        from pyarrow.interchange import from_dataframe
    except ImportError as error:
        raise DataError(
            "frames that only have __dataframe__ need pyarrow; pass a Polars or Arrow frame",
            found=type(source).__name__,
            expected="an object with __arrow_c_stream__",
        ) from error
    return pl.DataFrame(_ArrowStream(from_dataframe(source)))


def _with_symbol(table: Table, symbol: str | None, instrument: Instrument | str | None) -> Table:
    """Name the rows where the source has no symbol."""
    if not table.frame["symbol"].null_count():
        return table
    given = symbol or (instrument.root if isinstance(instrument, Instrument) else instrument)
    if given is None:
        raise table.error(
            "the source names no symbol; pass symbol=",
            column="symbol",
            found="no symbol column",
            expected='symbol="ESZ5", or the root such as symbol="ES"',
        )
    return replace(table, frame=table.frame.with_columns(symbol=pl.lit(given)))


def _pick(table: Table, symbol: str | None, roll: str | None) -> Table:
    """Keep the rows that were asked for: one symbol, or the outright months of one root."""
    names = distinct(table.frame["symbol"])
    if symbol is not None and symbol in names:
        return _only(table, [symbol], names)
    if symbol is not None and any(_base(name) == symbol for name in names):
        chosen = [name for name in names if _base(name) == symbol]
        table, names, symbol = _only(table, chosen, names), chosen, None
    outrights = [name for name in names if parse_symbol(name).kind != "spread"]
    roots = sorted({parse_symbol(name).root for name in outrights})
    if symbol is not None:
        wanted = parse_symbol(symbol)
        if wanted.kind not in {"root", "parent"} or wanted.root not in roots:
            raise table.error(
                "the source holds nothing of this symbol",
                column="symbol",
                found=_listed(names),
                expected=symbol,
            )
        roots = [wanted.root]
        outrights = [name for name in outrights if parse_symbol(name).root == wanted.root]
    if len(roots) > 1:
        raise table.error(
            "the source holds several products; pass symbol= with one of their roots",
            column="symbol",
            found=_listed(roots),
            expected=f'such as symbol="{roots[0]}"',
        )
    if not outrights:
        raise table.error(
            "the source holds calendar spreads only; pass symbol= to read one of them",
            column="symbol",
            found=_listed(names),
            expected="an outright contract such as ESZ5",
        )
    if len(outrights) > 1 and roll is None:
        raise table.error(
            "the source holds several contract months; pass symbol= for one of them, or "
            'roll="session" for the front month of each session',
            column="symbol",
            found=_listed(outrights),
            expected="one symbol",
        )
    return _only(table, outrights, names)


def _only(table: Table, wanted: list[str], names: list[str]) -> Table:
    """Keep the symbols that are wanted, and count the rest."""
    if len(wanted) == len(names):
        return table
    frame = table.frame.filter(pl.col("symbol").is_in(wanted))
    left = table.frame.filter(~pl.col("symbol").is_in(wanted))
    spreads = int(is_spread(left).sum())
    others = left.height - spreads
    noun = table.kind
    notes = [f"removed {spreads} {noun} of calendar spreads"] if spreads else []
    notes += [f"removed {others} {noun} of other symbols"] if others else []
    return replace(table, frame=frame, notes=(*table.notes, *notes))


def _aggregate(table: Table, interval: str) -> Table:
    interval_ns = parse_interval(interval)
    note = (
        f"made {interval} bars of {table.frame.height} trades by time of receipt; the first and "
        "the last may be cut by the ends of the file"
    )
    return replace(
        table,
        frame=bars_from_trades(table.frame, interval_ns),
        kind="bars",
        interval_ns=interval_ns,
        notes=(*table.notes, note),
    )


def _checked(table: Table, interval: str | None, label: str | None) -> Table:
    """Settle interval and label, and refuse timestamps that do not fit them."""
    table = _without_zero_volume(table)
    interval_ns, notes = _interval(table, interval)
    table = replace(table, interval_ns=interval_ns, notes=(*table.notes, *notes))
    _refuse_off_grid(table, interval_ns)
    if table.label is not None and label is not None and label != table.label:
        raise table.error(
            "the source states that times are the start of a bar",
            column="ts_event",
            found=f'label="{label}"',
            expected=f'label="{table.label}", or none',
        )
    settled = label or table.label
    if settled is None:
        raise table.error(
            "the source does not say whether a time is the start or the end of its bar, and a "
            'wrong guess is look-ahead; pass label="start" or label="end"',
            column="ts_event",
            found="no label",
            expected="label=",
        )
    if settled == "end":
        shifted = pl.col("ts_event") - pl.duration(nanoseconds=interval_ns)
        table = replace(table, frame=table.frame.with_columns(ts_event=shifted))
    return table


def _without_zero_volume(table: Table) -> Table:
    kept = table.frame.filter(pl.col("volume") != 0)
    removed = table.frame.height - kept.height
    if not removed:
        return table
    note = f"removed {removed} bars of zero volume"
    return replace(table, frame=kept, notes=(*table.notes, note))


def _interval(table: Table, interval: str | None) -> tuple[int, list[str]]:
    given = None if interval is None else parse_interval(interval)
    if table.interval_ns is not None:
        if given is not None and given != table.interval_ns:
            raise table.error(
                "the source states another interval",
                column="rtype",
                found=interval_text(table.interval_ns),
                expected=f'interval="{interval}"',
            )
        return table.interval_ns, []
    spacing = _smallest_spacing(table.frame)
    if table.frame.height < _BARS_TO_INFER or spacing is None:
        if given is None:
            raise table.error(
                f"{table.frame.height} bars are too few to tell their interval; pass interval=",
                column="ts_event",
                found=f"{table.frame.height} bars",
                expected=f'interval="1m" or another, or at least {_BARS_TO_INFER} bars',
            )
        return given, []
    if given is None:
        try:
            parse_interval(timedelta(microseconds=spacing / 1000))
        except ConfigError as error:
            raise table.error(
                "the smallest spacing is no interval; pass interval=",
                column="ts_event",
                found=interval_text(spacing),
                expected="a time that divides a day",
            ) from error
        usual = _usual_spacing(table.frame, spacing)
        if usual != spacing:
            raise table.error(
                "the smallest spacing is not the usual one, so that it may be no interval but a "
                "wrong time; correct it, or pass interval=",
                row=_row_of_spacing(table.frame, spacing),
                column="ts_event",
                found=f"bars {interval_text(spacing)} apart, most are {interval_text(usual)} apart",
                expected=f'no shorter step, or interval="{interval_text(spacing)}"',
            )
        return spacing, [f"took {interval_text(spacing)}, the smallest spacing, as the interval"]
    if given != spacing:
        raise table.error(
            "the smallest spacing of the bars is not the interval; a wrong interval is look-ahead",
            row=_row_of_spacing(table.frame, spacing),
            column="ts_event",
            found=f"bars {interval_text(spacing)} apart",
            expected=f'interval="{interval}"',
        )
    return given, []


def _smallest_spacing(frame: pl.DataFrame) -> int | None:
    return min((int(steps.min()) for steps in _steps(frame)), default=None)


def _usual_spacing(frame: pl.DataFrame, smallest: int) -> int:
    """Return the most frequent spacing; the smallest one where it makes up half of them."""
    steps = np.concatenate(list(_steps(frame)))
    if 2 * np.count_nonzero(steps == smallest) >= len(steps):
        return smallest
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def _row_of_spacing(frame: pl.DataFrame, spacing: int) -> int:
    """Return the input's row of the first bar that follows the one before by this time."""
    steps = frame.select(ROW, step=pl.col("ts_event").to_physical().diff().over("symbol"))
    return int(steps.filter(pl.col("step") == spacing)[ROW][0])


def _steps(frame: pl.DataFrame) -> Iterator[NDArray[np.int64]]:
    """Yield the times from bar to bar that go forward, of each symbol that has any."""
    for times in _times_by_symbol(frame):
        steps = np.diff(times.to_physical().to_numpy())
        forward = steps[steps > 0]
        if len(forward):
            yield forward


def _times_by_symbol(frame: pl.DataFrame) -> Iterator[pl.Series]:
    names = distinct(frame["symbol"])
    if len(names) == 1:
        yield frame["ts_event"]
        return
    for name in names:
        yield frame.filter(pl.col("symbol") == name)["ts_event"]


def _refuse_off_grid(table: Table, interval_ns: int) -> None:
    off = table.frame["ts_event"].to_physical() % interval_ns != 0
    if off.any():
        place = int(off.arg_max() or 0)
        raise table.error(
            "the time is not on the grid of the interval",
            row=int(table.frame[ROW][place]),
            column="ts_event",
            found=str(table.frame["ts_event"][place]),
            expected=f"a whole multiple of {interval_text(interval_ns)}",
        )


def _instrument(table: Table, instrument: Instrument | str | None) -> Instrument:
    if isinstance(instrument, Instrument):
        return instrument
    if instrument is not None:
        return Instrument.builtin(instrument)
    name = str(table.frame["symbol"][0]) if table.frame.height else ""
    try:
        return Instrument.for_symbol(name)
    except ConfigError as error:
        raise table.error(
            error.args[0]
            if not name
            else "no built-in instrument fits this symbol; pass "
            "instrument=Instrument(root, tick_size, point_value, commission)",
            column="symbol",
            found=name or "no rows",
            expected="a symbol of " + " ".join(Instrument.roots()),
        ) from error


def _front(
    table: Table, instrument: Instrument, roll: str | None, lookback_hours: float
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Reduce several months to one a session. Months mixed inside a session never leave here."""
    frame = table.frame
    names = distinct(frame["symbol"])
    if len(names) <= 1:
        return frame, ()
    sessions = load_sessions(instrument.calendar)
    ordered = frame.sort("ts_event", maintain_order=True)
    bases = {_base(name) for name in names}
    if len(bases) == 1:
        return _one_a_session(ordered, sessions, bases.pop())
    try:
        refuse_mixed(ordered, sessions)
    except DataError:
        pass
    else:
        note = f"{len(names)} contracts, one a session already, taken as they follow each other"
        return ordered, (note,)
    every: Literal["session", "week"] = "week" if roll == "week" else "session"
    try:
        selection = select_front(
            frame,
            sessions,
            _known_interval(table),
            lookback_hours=lookback_hours,
            every=every,
        )
    except DataError as error:
        raise error.in_file(table.file) from error
    if selection.frame.is_empty():
        raise table.error(
            "the front month cannot be told: no session of the file has an earlier one to judge "
            "by; pass symbol= for one contract",
            column="symbol",
            found=_listed(names),
            expected=f'such as symbol="{frame["symbol"].mode()[0]}"',
        )
    return selection.frame, (f"chose the front month of each {every}", *selection.notes())


def _one_a_session(
    frame: pl.DataFrame, sessions: Sessions, symbol: str
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Keep one contract a session of a continuous symbol, which changes at midnight UTC.

    The feed settles its mapping for a date before that date begins, so that the incoming contract
    has the session is known when the session opens.
    """
    last = frame.with_columns(session=sessions.locate(frame["ts_event"])).with_columns(
        last=pl.col("symbol").last().over("session")
    )
    kept = last.filter((pl.col("symbol") == pl.col("last")) | pl.col("session").is_null())
    count = frame["symbol"].n_unique()
    removed = frame.height - kept.height
    return kept.drop("session", "last"), (
        f"{symbol} stands for {count} contracts, named {symbol}@number here",
        f"removed {removed} bars of outgoing contracts: the feed changes them inside a session",
    )


def _base(name: str) -> str:
    """Return the continuous symbol that a contract was taken from."""
    return name.split("@", maxsplit=1)[0]


def _between(
    frame: pl.DataFrame, start: Moment | None, end: Moment | None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    kept = frame
    if start is not None:
        kept = kept.filter(pl.col("ts_event") >= _moment(start, "start"))
    if end is not None:
        kept = kept.filter(pl.col("ts_event") < _moment(end, "end"))
    left = frame.height - kept.height
    return kept, (f"left {left} bars outside start and end",) if left else ()


def _moment(value: Moment, field: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ConfigError(
            "this is no time",
            field=field,
            found=repr(value),
            expected="ISO 8601 such as 2024-01-31 or 2024-01-31T14:30Z",
        ) from error
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown
