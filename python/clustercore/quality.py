"""The data check: what is odd about a set of bars, before anybody trades on it.

Nothing is repaired here. Each finding names its session or its row, so that a reader can look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from clustercore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clustercore.sessions import Sessions

__all__ = ["QualityReport", "check_bars"]

_NANOS_A_MINUTE: Final = 60_000_000_000
_NANOS_A_POINT: Final = 1e9
_SHARE_OUTSIDE_LISTED: Final = 0.01
_SHARE_OUTSIDE_REFUSED: Final = 0.05
_VOLUME_SPIKE: Final = 50.0
_THIN_SESSION: Final = 0.20
_PRICE_JUMP: Final = 5.0
_WRONG_SCALE: Final = 100
_MIN_SLOT_SESSIONS: Final = 5
_MIN_BARS_FOR_SCALE: Final = 20
_NEIGHBOURS: Final = 41
_FULL_SESSION: Final = 0.9
_DATES_SHOWN: Final = 8
_PRICES: Final = ("open", "high", "low", "close")
_NEEDED: Final = ("ts_event", *_PRICES, "volume", "symbol")


class HasFrame(Protocol):
    """Anything that carries its bars in ``frame``, such as ``Bars``."""

    @property
    def frame(self) -> pl.DataFrame:
        """The bars."""


class HasTick(Protocol):
    """What the check needs to know of an instrument."""

    @property
    def tick_nanos(self) -> int:
        """Smallest price step in 1e-9."""

    @property
    def check_tick(self) -> bool:
        """Whether prices must lie on the tick grid."""


@dataclass(frozen=True, eq=False)  # frames have no one answer to ==
class QualityReport:
    """What `check_bars` found. Row numbers are zero-based rows of the frame that was checked.

    Attributes
    ----------
    errors, warnings : tuple of str
        Findings in plain words. With an error, the bars should not be used as they are.
    bar_count, session_count : int
        Bars checked (context rows are not) and sessions that hold at least one.
    counts : dict of str to int
        Number of rows in each of the frames below, and ``missing_bars``.
    sessions : polars.DataFrame
        One row a session of the schedule between the first bar and the last: ``trade_date, open,
        close, note, symbol, expected, bars, coverage, outside, first_bar, last_bar, volume,
        usual_volume``. ``expected`` is the schedule's bars without scheduled halts; a minute
        without a trade has no bar, so a coverage below 1 is normal at night. ``outside`` counts the
        bars after this session's close and before the next open.
    gaps : polars.DataFrame
        Runs without a bar longer than the threshold, scheduled halts taken out: ``trade_date,
        start, end, minutes, place`` (``open``, ``inside``, ``close`` or ``whole``).
    halted : polars.DataFrame
        Bars that start inside a scheduled halt: ``row, ts_event, trade_date, volume``.
    outside : polars.DataFrame
        Bars outside every session: ``row, ts_event, volume``.
    duplicates : polars.DataFrame
        Rows whose time and symbol stood before: ``row, ts_event, symbol``.
    disorder : polars.DataFrame
        Rows earlier than the one before: ``row, ts_event, previous``.
    off_tick : polars.DataFrame
        Prices off the tick grid: ``row, ts_event, column, price``.
    incoherent : polars.DataFrame
        Rows with a null, NaN or infinite price, or a high or low that does not hold the others:
        ``row, ts_event, open, high, low, close``.
    mixed : polars.DataFrame
        Sessions with more than one symbol: ``trade_date, symbols``.
    volumes : polars.DataFrame
        Suspicious volumes: ``row, ts_event, volume, usual, why`` (``not_positive``, or ``spike``:
        more than 50 times the median of the same minute of the session).
    thin_sessions : polars.DataFrame
        Full sessions with less than 20 % of the median volume of the sessions around them:
        ``trade_date, volume, usual_volume``.
    prices : polars.DataFrame
        Prices more than 5 times or less than a fifth of what stands around them: ``row, ts_event,
        price, usual``.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    bar_count: int
    session_count: int
    counts: dict[str, int]
    sessions: pl.DataFrame
    gaps: pl.DataFrame
    halted: pl.DataFrame
    outside: pl.DataFrame
    duplicates: pl.DataFrame
    disorder: pl.DataFrame
    off_tick: pl.DataFrame
    incoherent: pl.DataFrame
    mixed: pl.DataFrame
    volumes: pl.DataFrame
    thin_sessions: pl.DataFrame
    prices: pl.DataFrame

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may remain."""
        return not self.errors

    def to_dict(self, rows: int = 100) -> dict[str, object]:
        """Return the report as plain values that JSON can hold.

        Parameters
        ----------
        rows : int
            Most rows of each frame; ``counts`` says how many there are. Times become ISO text.

        Returns
        -------
        dict of str to object
            One key an attribute.
        """
        values: dict[str, object] = {"ok": self.ok}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, pl.DataFrame):
                value = [
                    {name: _plain(item) for name, item in row.items()}
                    for row in value.head(rows).iter_rows(named=True)
                ]
            values[field.name] = list(value) if isinstance(value, tuple) else value
        return values


def check_bars(
    bars: pl.DataFrame | HasFrame,
    sessions: Sessions,
    instrument: HasTick,
    interval_ns: int,
    *,
    gap_minutes: float = 5.0,
) -> QualityReport:
    """Compare bars with the schedule and with each other.

    Parameters
    ----------
    bars : polars.DataFrame or Bars
        ``ts_event`` Datetime("ns", "UTC"), ``open high low close`` Float64 in points, ``volume``,
        ``symbol`` and optionally ``context`` (rows marked so are not checked).
    sessions : Sessions
        The session table.
    instrument : Instrument
        Its ``tick_nanos`` and ``check_tick`` are used.
    interval_ns : int
        Length of a bar in ns.
    gap_minutes : float
        Runs without a bar that are longer than this are listed.

    Returns
    -------
    QualityReport
        The findings.

    Raises
    ------
    DataError
        A column is missing, or there is no bar.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from clustercore.sessions import load_sessions
    >>> sessions = load_sessions().between("2024-03-05", "2024-03-05")
    >>> start = sessions.frame["open"][0]
    >>> bars = pl.DataFrame(
    ...     {
    ...         "ts_event": pl.datetime_range(
    ...             start, start.replace(minute=9), "1m", time_unit="ns", eager=True
    ...         ),
    ...         "open": 5100.0,
    ...         "high": 5100.5,
    ...         "low": 5099.9,
    ...         "close": 5100.25,
    ...         "volume": 10,
    ...         "symbol": "ESH4",
    ...     }
    ... )
    >>> es = SimpleNamespace(tick_nanos=250_000_000, check_tick=True)
    >>> check_bars(bars, sessions, es, 60_000_000_000).counts["off_tick"]
    10
    """
    frame = bars if isinstance(bars, pl.DataFrame) else bars.frame
    rows = _rows(frame, sessions)
    inside = rows.filter(pl.col("session").is_not_null())
    outside = rows.filter(pl.col("session").is_null()).select("row", "ts_event", "volume")
    schedule = _schedule(rows, sessions, interval_ns)
    found = {
        "gaps": _gaps(inside, schedule, interval_ns, gap_minutes),
        "halted": _halted(inside, schedule),
        "outside": outside,
        "duplicates": _duplicates(rows),
        "disorder": _disorder(rows),
        "off_tick": _off_tick(rows, instrument),
        "incoherent": _incoherent(rows),
        "mixed": _mixed(inside, sessions),
        "volumes": _volumes(rows, sessions),
        "thin_sessions": _thin_sessions(schedule),
        "prices": _prices(inside),
    }
    table = schedule.drop("session", "halts", "expected_ns")
    counts = {name: len(part) for name, part in found.items()}
    counts["missing_bars"] = int((schedule["expected"] - schedule["bars"]).clip(0).sum())
    counts["empty_sessions"] = int((schedule["bars"] == 0).sum())
    return QualityReport(
        errors=_errors(rows, counts, instrument),
        warnings=_warnings(table, found, counts, gap_minutes),
        bar_count=len(rows),
        session_count=int((schedule["bars"] > 0).sum()),
        counts=counts,
        sessions=table,
        **found,
    )


def _rows(frame: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    for column in _NEEDED:
        if column not in frame.columns:
            raise DataError(
                "a column is missing",
                column=column,
                found=", ".join(frame.columns),
                expected=", ".join(_NEEDED),
            )
    rows = frame.with_row_index("row").with_columns(pl.col("ts_event").dt.cast_time_unit("ns"))
    if "context" in frame.columns:
        rows = rows.filter(~pl.col("context"))
    if rows.is_empty():
        raise DataError("there is no bar to check", found="0 rows", expected="at least one")
    return rows.select("row", *_NEEDED).with_columns(session=sessions.locate(rows["ts_event"]))


def _schedule(rows: pl.DataFrame, sessions: Sessions, interval_ns: int) -> pl.DataFrame:
    """Return the sessions from the first bar's to the last's, with what was seen in each."""
    first, last = rows["ts_event"].min(), rows["ts_event"].max()
    seen = rows.group_by("session").agg(
        symbol=pl.col("symbol").first(),
        bars=pl.col("ts_event").n_unique().cast(pl.Int64),
        first_bar=pl.col("ts_event").min(),
        last_bar=pl.col("ts_event").max(),
        volume=pl.col("volume").cast(pl.Int64).sum(),
    )
    halted = (
        pl.col("halts")
        .list.eval(pl.element().struct.field("end") - pl.element().struct.field("start"))
        .list.sum()
    )
    stray = (
        rows.filter(pl.col("session").is_null())
        .select("ts_event")
        .sort("ts_event")
        .join_asof(
            sessions.frame.select("trade_date", close="close"),
            left_on="ts_event",
            right_on="close",
        )
        .group_by("trade_date")
        .agg(outside=pl.len().cast(pl.Int64))
    )
    length = pl.col("close").to_physical() - pl.col("open").to_physical()
    return (
        sessions.frame.select("trade_date", "open", "close", "note", "halts")
        .with_columns(session=pl.int_range(pl.len(), dtype=pl.Int64))
        .filter(pl.col("close") > first, pl.col("open") <= last)
        .join(seen, on="session", how="left", maintain_order="left")
        .join(stray, on="trade_date", how="left", maintain_order="left")
        .with_columns(pl.col("bars", "volume", "outside").fill_null(0))
        .with_columns(expected_ns=length - halted)
        .with_columns(expected=pl.col("expected_ns") // interval_ns)
        .with_columns(coverage=pl.col("bars") / pl.col("expected"), usual_volume=_usual_volume())
        .select(
            "trade_date", "open", "close", "note", "symbol", "expected", "bars", "coverage",
            "outside", "first_bar", "last_bar", "volume", "usual_volume",
            "session", "halts", "expected_ns",
        )
    )  # fmt: skip


def _usual_volume() -> pl.Expr:
    """Return the median volume of the full sessions around each; null for shorter ones."""
    full = _is_full() & (pl.col("bars") > 0)
    volume = pl.when(full).then(pl.col("volume")).cast(pl.Float64)
    return volume.rolling_median(_NEIGHBOURS, min_samples=_MIN_SLOT_SESSIONS, center=True)


def _is_full() -> pl.Expr:
    return pl.col("expected_ns") >= _FULL_SESSION * pl.col("expected_ns").max()


def _gaps(
    inside: pl.DataFrame, schedule: pl.DataFrame, interval_ns: int, gap_minutes: float
) -> pl.DataFrame:
    """Return runs without a bar. What lies before the first bar or after the last is no gap."""
    marks = schedule.filter(pl.col("bars") > 0).select(
        "session",
        "trade_date",
        opened=pl.col("open").to_physical(),
        closed=pl.col("close").to_physical(),
    )
    empty = schedule.filter(pl.col("bars") == 0).select(
        "trade_date",
        start="open",
        end="close",
        minutes=pl.col("expected_ns") / _NANOS_A_MINUTE,
        place=pl.lit("whole"),
    )
    starts = (
        inside.select("session", start=pl.col("ts_event").to_physical())
        .unique()
        .join(marks, on="session")
    )
    covered = starts.select(
        "session", "trade_date", begin="start", until=pl.col("start") + interval_ns
    )
    # The open is covered up to itself and the close from itself on, so that the runs at both ends
    # of a session are runs between neighbours like any other.
    edges = pl.concat(
        [
            marks.select("session", "trade_date", begin="opened", until="opened"),
            marks.select("session", "trade_date", begin="closed", until="closed"),
        ]
    )
    halts = (
        schedule.filter(pl.col("bars") > 0)
        .select("session", "trade_date", "halts")
        .explode("halts", empty_as_null=True, keep_nulls=True)
        .filter(pl.col("halts").is_not_null())
        .select(
            "session",
            "trade_date",
            begin=pl.col("halts").struct.field("start"),
            until=pl.col("halts").struct.field("end"),
        )
    )
    times = inside["ts_event"].to_physical()
    first, last = pl.lit(times.min(), dtype=pl.Int64), pl.lit(times.max(), dtype=pl.Int64)
    runs = (
        pl.concat([covered, edges, halts])
        .sort("session", "begin", "until")
        .with_columns(start=pl.col("until").cum_max().shift().over("session"))
        .filter(
            pl.col("begin") - pl.col("start") > gap_minutes * _NANOS_A_MINUTE,
            pl.col("start") >= first,
            pl.col("begin") <= last,
        )
        .join(marks.select("session", "opened", "closed"), on="session", maintain_order="left")
        .select(
            "trade_date",
            start=_time("start"),
            end=_time("begin"),
            minutes=(pl.col("begin") - pl.col("start")) / _NANOS_A_MINUTE,
            place=pl.when(pl.col("start") == pl.col("opened"))
            .then(pl.lit("open"))
            .when(pl.col("begin") == pl.col("closed"))
            .then(pl.lit("close"))
            .otherwise(pl.lit("inside")),
        )
    )
    return pl.concat([runs, empty]).sort("start")


def _halted(inside: pl.DataFrame, schedule: pl.DataFrame) -> pl.DataFrame:
    halts = (
        schedule.select("session", "trade_date", "halts")
        .explode("halts", empty_as_null=True, keep_nulls=True)
        .filter(pl.col("halts").is_not_null())
        .unnest("halts")
    )
    ts_ns = pl.col("ts_event").to_physical()
    return (
        inside.join(halts, on="session", maintain_order="left")
        .filter(ts_ns >= pl.col("start"), ts_ns < pl.col("end"))
        .select("row", "ts_event", "trade_date", "volume")
    )


def _duplicates(rows: pl.DataFrame) -> pl.DataFrame:
    ascending = (rows["ts_event"].diff().to_physical() > 0).all()
    again = (
        pl.lit(value=False)  # nothing repeats in rows that ascend
        if ascending
        else pl.int_range(pl.len()).over("ts_event", "symbol") > 0
    )
    return rows.filter(again).select("row", "ts_event", "symbol")


def _disorder(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.with_columns(previous=pl.col("ts_event").shift())
        .filter(pl.col("ts_event") < pl.col("previous"))
        .select("row", "ts_event", "previous")
    )


def _off_tick(rows: pl.DataFrame, instrument: HasTick) -> pl.DataFrame:
    if not instrument.check_tick:
        rows = rows.clear()
    parts = [
        rows.filter(
            pl.col(column).is_finite(),
            _nanos(column) % instrument.tick_nanos != 0,
        ).select("row", "ts_event", column=pl.lit(column), price=pl.col(column))
        for column in _PRICES
    ]
    return pl.concat(parts).sort("row", maintain_order=True)


def _incoherent(rows: pl.DataFrame) -> pl.DataFrame:
    unusable = pl.any_horizontal(
        pl.col(column).is_finite().not_().fill_null(value=True) for column in _PRICES
    )
    wrong = (pl.col("high") < pl.max_horizontal("open", "close", "low")) | (
        pl.col("low") > pl.min_horizontal("open", "close")
    )
    return rows.filter(unusable | wrong).select("row", "ts_event", *_PRICES)


def _mixed(inside: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    mixed = (
        inside.group_by("session", maintain_order=True)
        .agg(symbols=pl.col("symbol").unique(maintain_order=True))
        .filter(pl.col("symbols").list.len() > 1)
    )
    trade_date = sessions.frame["trade_date"].gather(mixed["session"])
    return mixed.select(trade_date=trade_date, symbols="symbols")


def _volumes(rows: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    # The slot is the time of day in New York, so that summer and winter compare alike.
    offset_s = sessions.frame["new_york_offset_s"].gather(rows["session"]).cast(pl.Int64)
    local_ns = rows["ts_event"].to_physical() + offset_s.fill_null(0) * 1_000_000_000
    judged = rows.select("row", "ts_event", "volume", slot=local_ns % (24 * 60 * _NANOS_A_MINUTE))
    usual = (
        judged.group_by("slot")
        .agg(usual=pl.col("volume").cast(pl.Float64).median(), seen=pl.len())
        .filter(pl.col("seen") >= _MIN_SLOT_SESSIONS)
    )
    return (
        judged.join(usual, on="slot", how="left", maintain_order="left")
        .with_columns(
            why=pl.when((pl.col("volume").cast(pl.Float64) <= 0).fill_null(value=True))
            .then(pl.lit("not_positive"))
            .when(pl.col("volume") > _VOLUME_SPIKE * pl.col("usual"))
            .then(pl.lit("spike"))
        )
        .filter(pl.col("why").is_not_null())
        .select("row", "ts_event", "volume", "usual", "why")
    )


def _thin_sessions(schedule: pl.DataFrame) -> pl.DataFrame:
    inner = schedule[1:-1]  # the first and the last session may be cut by the file
    return inner.filter(
        _is_full(),
        pl.col("bars") > 0,
        pl.col("volume") < _THIN_SESSION * pl.col("usual_volume"),
    ).select("trade_date", "volume", "usual_volume")


def _prices(inside: pl.DataFrame) -> pl.DataFrame:
    """Return prices far from the median around them; one bar cannot move that median."""
    usual = pl.col("close").rolling_median(_NEIGHBOURS, min_samples=1, center=True).over("symbol")
    extreme = (
        pl.when(pl.col("high") > _PRICE_JUMP * pl.col("usual"))
        .then(pl.col("high"))
        .when(pl.col("low") < pl.col("usual") / _PRICE_JUMP)
        .then(pl.col("low"))
    )
    return (
        inside.with_columns(usual=usual)
        .filter(pl.col("usual") > 0)
        .with_columns(price=extreme)
        .filter(pl.col("price").is_not_null())
        .select("row", "ts_event", "price", "usual")
    )


def _errors(rows: pl.DataFrame, counts: dict[str, int], instrument: HasTick) -> tuple[str, ...]:
    share_outside = counts["outside"] / len(rows)
    findings = {
        f"{share_outside:.1%} of the bars lie outside every session: another calendar, time zone "
        "or label": share_outside > _SHARE_OUTSIDE_REFUSED,
        f"{counts['duplicates']} rows repeat a time and symbol": counts["duplicates"],
        f"{counts['disorder']} rows are earlier than the one before": counts["disorder"],
        f"{counts['incoherent']} rows have prices that cannot belong together": counts[
            "incoherent"
        ],
        f"{counts['off_tick']} prices are off the tick grid": counts["off_tick"],
        f"{counts['mixed']} sessions hold more than one symbol": counts["mixed"],
        "every price is a whole multiple of 100 ticks: prices look 100 times too large": (
            _looks_scaled(rows, instrument)
        ),
    }
    return tuple(text for text, holds in findings.items() if holds)


def _looks_scaled(rows: pl.DataFrame, instrument: HasTick) -> bool:
    if len(rows) < _MIN_BARS_FOR_SCALE or rows["close"].n_unique() == 1:
        return False
    step = _WRONG_SCALE * instrument.tick_nanos
    finite = rows.filter(pl.all_horizontal(pl.col(column).is_finite() for column in _PRICES))
    return bool(
        finite.select(
            pl.all_horizontal(_nanos(column) % step == 0 for column in _PRICES).all()
        ).item()
    )


def _warnings(
    table: pl.DataFrame, found: dict[str, pl.DataFrame], counts: dict[str, int], gap_minutes: float
) -> tuple[str, ...]:
    spill = table.filter(pl.col("outside") > _SHARE_OUTSIDE_LISTED * pl.col("bars"))
    volumes = found["volumes"]["why"]
    findings = {
        f"{counts['empty_sessions']} scheduled sessions have no bar": counts["empty_sessions"],
        f"{counts['gaps']} runs of more than {gap_minutes:g} minutes without a bar": counts["gaps"],
        f"{counts['outside']} bars lie outside every session": counts["outside"],
        f"bars outside above 1 % of a session: {_dates(spill['trade_date'].to_list())}": len(spill),
        f"{counts['halted']} bars start inside a scheduled halt": counts["halted"],
        f"{(volumes == 'not_positive').sum()} bars have no positive volume": (
            volumes == "not_positive"
        ).any(),
        f"{(volumes == 'spike').sum()} bars trade more than 50 times the usual volume of their "
        "minute": (volumes == "spike").any(),
        "sessions at under 20 % of the usual volume: "
        f"{_dates(found['thin_sessions']['trade_date'].to_list())}": counts["thin_sessions"],
        f"{counts['prices']} bars have prices far from those around them": counts["prices"],
    }
    return tuple(text for text, holds in findings.items() if holds)


def _dates(days: Sequence[date]) -> str:
    shown = ", ".join(day.isoformat() for day in days[:_DATES_SHOWN])
    rest = len(days) - _DATES_SHOWN
    return shown if rest <= 0 else f"{shown} and {rest} more"


def _nanos(column: str) -> pl.Expr:
    return (pl.col(column) * _NANOS_A_POINT).round().cast(pl.Int64, strict=False)


def _time(column: str) -> pl.Expr:
    return pl.from_epoch(column, "ns").dt.replace_time_zone("UTC")


def _plain(value: object) -> object:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
