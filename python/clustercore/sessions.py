"""Sessions: when the market trades, as a plain table made before anything reaches the engine.

The table that ships with the package, ``sessions.parquet``, holds the CME Globex equity index
sessions from 2008 to two years ahead. ``tools/make_sessions.py`` makes it, and a test makes it
afresh and compares. Time zones end here: every boundary below is in nanoseconds since the epoch,
UTC.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from clustercore.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CALENDARS", "Session", "Sessions", "load_sessions"]

Day = Literal["globex", "utc"]

CALENDARS: Final = ("globex_equity",)

_TABLE: Final = Path(__file__).with_name("sessions.parquet")
_NEW_YORK: Final = "America/New_York"
_TIME: Final = pl.Datetime("ns", "UTC")
_SPANS: Final = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64}))
_HOURS_PATTERN: Final = re.compile(r"(\d{2}):(\d{2})-(\d{2}):(\d{2}) (\S+)")
_HOURS_EXPECTED: Final = '"HH:MM-HH:MM Zone/City", such as "09:30-16:00 America/New_York"'
_MINUTES_AN_HOUR: Final = 60
_MINUTES_A_DAY: Final = 24 * _MINUTES_AN_HOUR
_NANOS_A_MINUTE: Final = 60_000_000_000

_Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]
_Int32s = np.ndarray[tuple[int], np.dtype[np.int32]]


@dataclass(frozen=True)
class Session:
    """One row of the table.

    Attributes
    ----------
    index : int
        Row in the table it came from.
    trade_date : date
        The date the exchange books the session's trades to; for a holiday session, the holiday.
    open, close : datetime
        First instant of the session and first instant after it, UTC.
    """

    index: int
    trade_date: date
    open: datetime
    close: datetime


@dataclass(frozen=True, eq=False)  # frames have no one answer to ==
class Sessions:
    """A table of sessions, ascending and without overlap.

    Use `load_sessions` for the table in the package and `Sessions.from_frame` for one of your own.

    Attributes
    ----------
    frame : polars.DataFrame
        One row a session: ``trade_date`` Date; ``open``, ``close`` Datetime("ns", "UTC");
        ``halts``, ``hours`` List(Struct{start, end: Int64, ns since the epoch});
        ``new_york_offset_s`` Int32, New York's UTC offset in seconds at ``close``; ``note`` String,
        why a session is not a regular one, else empty. ``hours`` are the allowed intervals,
        ascending and disjoint. Without ``session.hours`` it is the whole session; an empty list
        means that no allowed hour falls into that session.

    Examples
    --------
    >>> sessions = load_sessions().between("2019-07-03", "2019-07-05")
    >>> sessions.frame.select("trade_date", "close", "note").rows()[0][2]
    'Day before Independence Day'
    >>> len(sessions)
    3
    """

    frame: pl.DataFrame

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, hours: Sequence[str] = ()) -> Sessions:
        """Make a table from a frame of your own.

        Parameters
        ----------
        frame : polars.DataFrame
            ``open`` and ``close``, Datetime with a time zone or Int64 ns since the epoch.
            ``trade_date`` Date (the UTC date of the close when absent), ``halts`` (none when
            absent) and ``note`` are optional.
        hours : sequence of str
            Allowed hours, as for `load_sessions`.

        Returns
        -------
        Sessions
            The checked table.

        Raises
        ------
        DataError
            A column is missing, a value is null, a session closes before it opens, or two overlap.

        Examples
        --------
        >>> open_ns = 1_700_000_000_000_000_000
        >>> table = pl.DataFrame({"open": [open_ns], "close": [open_ns + 3_600_000_000_000]})
        >>> Sessions.from_frame(table).session_of(open_ns).trade_date
        datetime.date(2023, 11, 14)
        """
        bounds = frame.with_columns(_time_column(frame, "open"), _time_column(frame, "close"))
        if "trade_date" not in bounds.columns:
            bounds = bounds.with_columns(trade_date=pl.col("close").dt.date())
        if "halts" not in bounds.columns:
            bounds = bounds.with_columns(halts=pl.lit([], dtype=_SPANS))
        if "note" not in bounds.columns:
            bounds = bounds.with_columns(note=pl.lit(""))
        _check_column(bounds, "trade_date", pl.Date)
        _check_column(bounds, "halts", _SPANS)
        _check_order(bounds)
        return cls(_complete(bounds, hours))

    def __len__(self) -> int:
        return len(self.frame)

    @functools.cached_property
    def open_ns(self) -> _Int64s:
        """The opens: ndarray of int64, shape (n_sessions,), ns since the epoch."""
        return _int64s(self.frame["open"])

    @functools.cached_property
    def close_ns(self) -> _Int64s:
        """The closes: ndarray of int64, shape (n_sessions,), ns since the epoch."""
        return _int64s(self.frame["close"])

    def columns(self) -> dict[str, _Int64s | _Int32s]:
        """Return the table as the flat columns that the engine takes.

        Returns
        -------
        dict of str to ndarray
            ``open_ns, close_ns`` int64; ``trade_date`` int32, days since the epoch;
            ``new_york_offset_s`` int32; all of shape (n_sessions,). ``hours_session,
            halts_session`` int64, the row of the session that each interval belongs to;
            ``hours_start_ns, hours_end_ns, halts_start_ns, halts_end_ns`` int64, ascending.

        Examples
        --------
        >>> columns = load_sessions().between("2016-01-04", "2016-01-05").columns()
        >>> columns["halts_session"].tolist(), columns["hours_session"].tolist()
        ([0, 1], [0, 1])
        """
        return {
            "open_ns": self.open_ns,
            "close_ns": self.close_ns,
            "trade_date": _int32s(self.frame["trade_date"]),
            "new_york_offset_s": _int32s(self.frame["new_york_offset_s"]),
            **_flat_spans(self.frame, "hours"),
            **_flat_spans(self.frame, "halts"),
        }

    def locate(self, ts_event: pl.Series) -> pl.Series:
        """Return the row of the session that holds each time; null outside every session.

        Parameters
        ----------
        ts_event : polars.Series of Datetime or Int64
            Times, or ns since the epoch, in any order.

        Returns
        -------
        polars.Series of Int64
            Row numbers in `frame`.

        Examples
        --------
        >>> day = load_sessions().between("2019-01-02", "2019-01-02")
        >>> times = pl.Series([datetime(2019, 1, 2, hour, tzinfo=UTC) for hour in (21, 22)])
        >>> day.locate(times).to_list()
        [0, None]
        """
        ts_ns = _int64s(_as_nanos(ts_event))
        row = np.searchsorted(self.open_ns, ts_ns, side="right") - 1
        inside = row >= 0
        inside[inside] = ts_ns[inside] < self.close_ns[row[inside]]
        rows = pl.Series("session", row, dtype=pl.Int64)
        return rows.set(pl.Series(~inside), None)

    def session_of(self, ts: datetime | int) -> Session | None:
        """Return the session whose ``[open, close)`` holds the time, or None.

        Parameters
        ----------
        ts : datetime or int
            A time with a zone, or ns since the epoch.

        Returns
        -------
        Session or None
            The session.

        Examples
        --------
        >>> load_sessions().session_of(datetime(2019, 1, 1, 23, tzinfo=UTC)).trade_date
        datetime.date(2019, 1, 2)
        >>> load_sessions().session_of(datetime(2019, 1, 1, 20, tzinfo=UTC)) is None
        True
        """
        ts_ns = _moment_nanos(ts) if isinstance(ts, datetime) else ts
        row = int(np.searchsorted(self.open_ns, ts_ns, side="right")) - 1
        if row < 0 or ts_ns >= self.close_ns[row]:
            return None
        trade_date, opened, closed = self.frame.row(row)[:3]
        return Session(row, trade_date, opened, closed)

    def between(
        self, from_date: date | str | None = None, to_date: date | str | None = None
    ) -> Sessions:
        """Return the sessions with ``from_date <= trade_date <= to_date``.

        Parameters
        ----------
        from_date, to_date : date or str, optional
            Trade dates, or their ISO text. None leaves that end open.

        Returns
        -------
        Sessions
            The part of the table.

        Examples
        --------
        >>> len(load_sessions().between("2019-01-01", "2019-12-31"))
        258
        """
        kept = self.frame
        if from_date is not None:
            kept = kept.filter(pl.col("trade_date") >= _as_date(from_date, "from"))
        if to_date is not None:
            kept = kept.filter(pl.col("trade_date") <= _as_date(to_date, "to"))
        return Sessions(kept)

    def overlapping(self, start_ns: int, end_ns: int) -> Sessions:
        """Return the sessions that share an instant with ``[start_ns, end_ns)``.

        Parameters
        ----------
        start_ns, end_ns : int
            Ns since the epoch.

        Returns
        -------
        Sessions
            The part of the table.

        Examples
        --------
        >>> sessions = load_sessions()
        >>> len(sessions.overlapping(int(sessions.open_ns[10]), int(sessions.close_ns[12])))
        3
        """
        first = int(np.searchsorted(self.close_ns, start_ns, side="right"))
        last = int(np.searchsorted(self.open_ns, end_ns, side="left"))
        return Sessions(self.frame[first : max(first, last)])


def load_sessions(
    calendar: str = "globex_equity", hours: Sequence[str] = (), day: Day = "globex"
) -> Sessions:
    """Return the session table of a calendar.

    Parameters
    ----------
    calendar : str
        ``"globex_equity"``, the only one there is. CL and GC use it too: their regular hours are
        the same since 2015-09-21 (17:00 to 16:00 Chicago), but on holidays energy and metals stop
        at other times than equity indices, they never had the afternoon pause of 15:15 to 15:30,
        and before 2015 they closed at 16:15 with no pause. On those days the data check shows bars
        outside sessions or inside halts.
    hours : sequence of str
        Allowed hours such as ``"09:30-16:00 America/New_York"``, worked out for each local date the
        session touches and clipped to the session. An interval whose end is not after its start
        runs into the next day; an end of ``24:00`` is midnight. A wall time that a clock change
        leaves out counts as if the clock had not been changed; one that occurs twice opens an
        interval at its first and ends one at its second occurrence.
    day : {"globex", "utc"}
        ``"utc"`` makes plain UTC days, ``[00:00, 24:00)`` of every calendar day, for comparison
        with older systems.

    Returns
    -------
    Sessions
        One row a session, 2008 to 2028.

    Raises
    ------
    ConfigError
        The calendar, the day or an hours text is not one there is.

    Examples
    --------
    >>> regular = load_sessions(hours=["09:30-16:00 America/New_York"]).between(
    ...     "2019-01-02", "2019-01-02"
    ... )
    >>> span = regular.frame["hours"][0][0]
    >>> (span["end"] - span["start"]) / 3_600_000_000_000
    6.5
    """
    if calendar not in CALENDARS:
        raise ConfigError(
            "no such calendar",
            field="instrument.calendar",
            found=repr(calendar),
            expected=" or ".join(CALENDARS),
        )
    if day not in get_args(Day):
        raise ConfigError(
            "no such kind of day", field="session.day", found=repr(day), expected="globex or utc"
        )
    table = _packaged_table() if day == "globex" else _utc_days()
    return Sessions(table if not hours else _with_hours(table, hours))


@functools.cache
def _packaged_table() -> pl.DataFrame:
    return _complete(pl.read_parquet(_TABLE), ())


@functools.cache
def _utc_days() -> pl.DataFrame:
    globex = _packaged_table()
    first, last = globex["trade_date"][0], globex["trade_date"][-1]
    days = pl.date_range(first, last, interval="1d", eager=True)
    opened = days.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    return _complete(
        pl.DataFrame({"trade_date": days, "open": opened}).with_columns(
            close=pl.col("open") + timedelta(days=1),
            halts=pl.lit([], dtype=_SPANS),
            note=pl.lit(""),
        ),
        (),
    )


def _complete(table: pl.DataFrame, hours: Sequence[str]) -> pl.DataFrame:
    """Add what follows from open and close, and put the columns in order."""
    local_close = pl.col("close").dt.convert_time_zone(_NEW_YORK)
    offset = local_close.dt.base_utc_offset() + local_close.dt.dst_offset()
    frame = table.with_columns(pl.col("open", "close").dt.cast_time_unit("ns")).select(
        "trade_date",
        "open",
        "close",
        "halts",
        pl.concat_list(
            pl.struct(start=pl.col("open").to_physical(), end=pl.col("close").to_physical())
        ).alias("hours"),
        offset.dt.total_seconds().cast(pl.Int32).alias("new_york_offset_s"),
        "note",
    )
    return frame if not hours else _with_hours(frame, hours)


@dataclass(frozen=True)
class _Hours:
    """One hours text, in minutes of the local day; the end comes after the start."""

    start_minute: int
    end_minute: int
    zone: str


def _with_hours(frame: pl.DataFrame, texts: Sequence[str]) -> pl.DataFrame:
    if isinstance(texts, str):
        raise ConfigError(
            "takes a list of texts, not one text", field="session.hours", found=repr(texts)
        )
    open_ns, close_ns = _int64s(frame["open"]), _int64s(frame["close"])
    parts = [_spans_of(open_ns, close_ns, _parse_hours(text)) for text in texts]
    session, start, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((end, start, session))
    session, start, end = session[order], start[order], end[order]
    # Intervals that overlap or touch become one. Sessions do not overlap, so a running maximum over
    # all rows never carries an end into a session that it could reach.
    reach = np.maximum.accumulate(end) if len(end) else end
    apart = np.ones(len(start), dtype=np.bool_)
    apart[1:] = (start[1:] > reach[:-1]) | (session[1:] != session[:-1])
    first = np.flatnonzero(apart)
    spans = pl.DataFrame(
        {
            "session": session[first],
            "start": start[first],
            "end": np.maximum.reduceat(end, first) if len(end) else end,
        }
    )
    lists = spans.group_by("session", maintain_order=True).agg(hours=pl.struct("start", "end"))
    return (
        frame.with_columns(session=pl.int_range(pl.len(), dtype=pl.Int64))
        .drop("hours")
        .join(lists, on="session", how="left", maintain_order="left")
        .with_columns(pl.col("hours").fill_null(pl.lit([], dtype=_SPANS)))
        .select(frame.columns)
    )


def _spans_of(open_ns: _Int64s, close_ns: _Int64s, hours: _Hours) -> tuple[_Int64s, ...]:
    """Return one text's intervals clipped to the sessions: session row, start and end (ns)."""
    if len(open_ns) == 0:
        return open_ns, open_ns, open_ns
    # No zone is more than a day from UTC, and an interval of the day before may run past midnight.
    first = datetime.fromtimestamp(int(open_ns[0]) // 10**9, UTC).date() - timedelta(days=2)
    last = datetime.fromtimestamp(int(close_ns[-1]) // 10**9, UTC).date() + timedelta(days=1)
    local = pl.date_range(first, last, interval="1d", eager=True).cast(pl.Datetime("ns"))
    starts = _instants(local, hours.start_minute, hours.zone, "earliest")
    ends = _instants(local, hours.end_minute, hours.zone, "latest")
    begin = np.searchsorted(ends, open_ns, side="right")
    counts = np.maximum(np.searchsorted(starts, close_ns, side="left") - begin, 0)
    session = np.repeat(np.arange(len(open_ns), dtype=np.int64), counts)
    nth = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts)
    day = np.repeat(begin, counts) + nth
    return (
        session,
        np.maximum(starts[day], open_ns[session]),
        np.minimum(ends[day], close_ns[session]),
    )


def _instants(
    local: pl.Series, minute: int, zone: str, ambiguous: Literal["earliest", "latest"]
) -> _Int64s:
    """Return the instant of a minute of each local day, ns since the epoch."""

    def instant(wall: pl.Series) -> pl.Series:
        there = wall.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
        return there.dt.convert_time_zone("UTC").to_physical()

    nanos_a_day = _MINUTES_A_DAY * _NANOS_A_MINUTE
    wall_ns = local.to_physical() + minute * _NANOS_A_MINUTE
    at = instant(wall_ns.cast(pl.Datetime("ns")))
    if at.null_count():
        # A wall time that the clock change leaves out: a day after the same time of the day before.
        at = at.fill_null(instant((wall_ns - nanos_a_day).cast(pl.Datetime("ns"))) + nanos_a_day)
    return _int64s(at)


def _parse_hours(text: str) -> _Hours:
    match = _HOURS_PATTERN.fullmatch(text)
    if match is None:
        raise ConfigError(
            "not an interval of hours",
            field="session.hours",
            found=repr(text),
            expected=_HOURS_EXPECTED,
        )
    start_hour, start_minute, end_hour, end_minute = (int(part) for part in match.groups()[:4])
    start = start_hour * _MINUTES_AN_HOUR + start_minute
    end = end_hour * _MINUTES_AN_HOUR + end_minute
    minutes_fit = start_minute < _MINUTES_AN_HOUR and end_minute < _MINUTES_AN_HOUR
    if not minutes_fit or start >= _MINUTES_A_DAY or end > _MINUTES_A_DAY:
        raise ConfigError(
            "not a time of day", field="session.hours", found=repr(text), expected=_HOURS_EXPECTED
        )
    if start == end:
        raise ConfigError(
            "starts where it ends; leave session.hours empty to allow the whole session",
            field="session.hours",
            found=repr(text),
            expected=_HOURS_EXPECTED,
        )
    zone = match.group(5)
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # an unknown, malformed or unreadable name
        raise ConfigError(
            "no such time zone",
            field="session.hours",
            found=repr(zone),
            expected="a name such as America/New_York, America/Chicago or UTC",
        ) from None
    return _Hours(start, end if end > start else end + _MINUTES_A_DAY, zone)


def _time_column(frame: pl.DataFrame, column: str) -> pl.Expr:
    if column not in frame.columns:
        raise DataError(
            "the session table lacks a column",
            column=column,
            found=", ".join(frame.columns),
            expected="open and close",
        )
    dtype = frame.schema[column]
    if dtype == pl.Int64:
        return pl.from_epoch(column, "ns").dt.replace_time_zone("UTC")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return pl.col(column).dt.convert_time_zone("UTC").dt.cast_time_unit("ns")
    raise DataError(
        "session times need a time zone",
        column=column,
        found=str(dtype),
        expected="Datetime with a time zone, or Int64 ns since the epoch",
    )


def _check_column(frame: pl.DataFrame, column: str, dtype: pl.DataType | type[pl.DataType]) -> None:
    if frame.schema[column] != dtype:
        raise DataError(
            "wrong type in the session table",
            column=column,
            found=str(frame.schema[column]),
            expected=str(dtype),
        )


def _check_order(frame: pl.DataFrame) -> None:
    for column in ("trade_date", "open", "close", "halts"):
        empty = frame[column].is_null()
        if empty.any():
            raise DataError(
                "a session needs this value",
                row=int(empty.arg_max() or 0),
                column=column,
                found="null",
            )
    _refuse_first(
        frame,
        pl.col("close") <= pl.col("open"),
        column="close",
        problem="a session must close after it opens",
        expected=pl.format("a time after {}", "open"),
    )
    _refuse_first(
        frame,
        pl.col("open") < pl.col("close").shift(),
        column="open",
        problem="sessions must be ascending and must not overlap",
        expected=pl.format("{} or later", pl.col("close").shift()),
    )
    _refuse_first(
        frame,
        pl.col("trade_date") < pl.col("trade_date").shift(),
        column="trade_date",
        problem="trade dates must not go back",
        expected=pl.format("{} or later", pl.col("trade_date").shift()),
    )


def _refuse_first(
    frame: pl.DataFrame, bad: pl.Expr, *, column: str, problem: str, expected: pl.Expr
) -> None:
    first = (
        frame.with_row_index("row")
        .select(
            "row",
            bad=bad.fill_null(value=False),
            found=pl.col(column).cast(pl.String),
            expected=expected,
        )
        .filter("bad")
        .head(1)
    )
    if not first.is_empty():
        row, _, found, wanted = first.row(0)
        raise DataError(problem, row=row, column=column, found=found, expected=wanted)


def _flat_spans(frame: pl.DataFrame, name: str) -> dict[str, _Int64s | _Int32s]:
    spans = frame[name]
    counts = spans.list.len().to_numpy()
    flat = spans.filter(spans.list.len() > 0).explode(empty_as_null=True)
    return {
        f"{name}_session": np.repeat(np.arange(len(frame), dtype=np.int64), counts),
        f"{name}_start_ns": _int64s(flat.struct.field("start")),
        f"{name}_end_ns": _int64s(flat.struct.field("end")),
    }


def _int64s(series: pl.Series) -> _Int64s:
    return np.ascontiguousarray(series.to_physical().to_numpy(), dtype=np.int64)


def _int32s(series: pl.Series) -> _Int32s:
    return np.ascontiguousarray(series.to_physical().to_numpy(), dtype=np.int32)


def _as_nanos(times: pl.Series) -> pl.Series:
    return times.dt.cast_time_unit("ns") if isinstance(times.dtype, pl.Datetime) else times


def _moment_nanos(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise DataError(
            "a time without a zone could be any zone's",
            found=moment.isoformat(),
            expected="a datetime with tzinfo, or ns since the epoch",
        )
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def _as_date(value: date | str, field: str) -> date:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ConfigError(
            "not a date", field=field, found=repr(value), expected="a date such as 2019-01-31"
        ) from None
