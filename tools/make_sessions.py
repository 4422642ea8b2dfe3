"""Generate and check ``sessions.parquet``, the table of CME Globex equity sessions.

The holidays come from ``pandas_market_calendars`` ("CME Globex Equity"); what it does not know, or
has wrong, stands below as dated overrides, each with its reason. The rule for an override is the
documents': a session has the hours that were in force on that date *and published before that
session's open*. A halt nobody had announced is an outage in the data, not a session of another
shape.

    python tools/make_sessions.py            write the table
    python tools/make_sessions.py --check    make it afresh and compare; exit 1 if it differs
    python tools/make_sessions.py --bars FILE [FILE ...]
                                             compare observed bars (Parquet) with the table
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_DAY: Final = date(2008, 1, 1)
LAST_DAY: Final = date(2028, 12, 31)
CHICAGO: Final = ZoneInfo("America/Chicago")
TABLE: Final = Path(__file__).resolve().parents[1] / "python" / "clustercore" / "sessions.parquet"

# Until Friday 2012-11-16 the equity trade date ran from 15:30 of the evening before (Sunday: 17:00)
# to 15:15, with a maintenance halt from 16:30 to 17:00. From trade date 2012-11-19 it runs from
# 17:00, pauses from 15:15 to 15:30 and closes at 16:15, on Fridays too (exchange notice "Equity
# Index Later Close", November 2012).
FIRST_DAY_CLOSE_1615: Final = date(2012, 11, 19)
# From trade date 2015-09-21 the close is 16:00 (exchange notice, September 2015); seen in the bars.
FIRST_DAY_CLOSE_1600: Final = date(2015, 9, 21)
# The pause from 15:15 to 15:30 was given up with trade date 2021-06-28.
FIRST_DAY_WITHOUT_PAUSE: Final = date(2021, 6, 28)

EVENING_OPEN: Final = time(17)
OLD_AFTERNOON_OPEN: Final = time(15, 30)
OLD_MAINTENANCE: Final = (time(16, 30), time(17))
AFTERNOON_PAUSE: Final = (time(15, 15), time(15, 30))

# The calendar's hour for a day that ends as usual.
CALENDAR_REGULAR_CLOSE: Final = time(16)

# Good Friday. The calendar lets every one after 2022 trade until 08:15. The exchange opens that
# morning only when the employment report is published then, which is when Good Friday is the first
# Friday of April (2010, 2012, 2015, 2021, 2023, 2026). No ES bar exists on 2024-03-29 and
# 2025-04-18. 2027 and 2028 follow the same rule; the exchange has not published them yet.
CLOSED: Final[Mapping[date, str]] = {
    date(2024, 3, 29): "Good Friday",
    date(2025, 4, 18): "Good Friday",
    date(2027, 3, 26): "Good Friday",
    date(2028, 4, 14): "Good Friday",
}


@dataclass(frozen=True)
class Override:
    """Hours of one trade date that no rule knows; None keeps what the rules say."""

    note: str
    opened: time | None = None  # on the calendar day before
    closed: time | None = None


OVERRIDES: Final[Mapping[date, Override]] = {
    # Announced on Monday 2012-10-29 for the session that opened that evening. The halt at 08:15 of
    # the 29th itself was announced on Sunday night, after that session had opened, so the 29th
    # keeps its regular hours here.
    date(2012, 10, 30): Override("Hurricane Sandy", opened=time(17), closed=time(8, 15)),
    # A leap second fell into trading hours; announced in May 2015, seen in the bars.
    date(2015, 7, 1): Override("Leap second", opened=time(19, 45)),
    # National days of mourning, announced days before; both seen in the bars.
    date(2018, 12, 5): Override("Day of mourning, President Bush", closed=time(8, 30)),
    date(2025, 1, 9): Override("Day of mourning, President Carter", closed=time(8, 30)),
}

# Deliberately absent, because nobody knew them before the open. They are outages, and the data
# check shows them:
#   2014-08-24  Globex opened at 21:00 instead of 17:00 after a failed software change
#   2015-06-10  22:13 to 22:24 without a trade
#   2015-03-11, 2015-06-10, 2015-09-09  last bar at 16:00, not 16:14: the day before the roll, where
#   the
#               series at hand changes its contract; a trait of that file, not of the market
#   2018-04-29  first bar at 17:30; no notice found
#   2019-02-26  18:41 to 21:45, technical failure on all Globex markets
#   2020-03     price limits and circuit breakers
# A single bar that starts exactly at the close (16:00 or 16:15, about one session in forty) is the
# last print of a closing auction, stamped a moment late. It stays outside: the session ended when
# the schedule says so.

JULY, NOVEMBER, FRIDAY = 7, 11, 5  # FRIDAY as isoweekday counts
DAY_BEFORE_JULY_4: Final = 3

NAME_BY_MONTH: Final[Mapping[int, str]] = {
    1: "Martin Luther King Day",
    2: "Presidents' Day",
    3: "Good Friday",
    4: "Good Friday",
    5: "Memorial Day",
    6: "Juneteenth",
    7: "Independence Day",
    9: "Labor Day",
    11: "Thanksgiving",
    12: "Christmas Eve",
}


@dataclass(frozen=True)
class Day:
    """One session in Chicago wall time."""

    trade_date: date
    opened: datetime
    closed: datetime
    note: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; 1 when the table in the package is not what is made here."""
    parser = argparse.ArgumentParser(description="Make or check the session table.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the table in the package"
    )
    parser.add_argument(
        "--bars", nargs="+", type=Path, help="Parquet files with ts_event to compare"
    )
    options = parser.parse_args(arguments)
    if options.bars:
        for path in options.bars:
            sys.stdout.write(observed_against(make_table(), path))
        return 0
    if options.check:
        difference = difference_to_package()
        if difference:
            sys.stderr.write(difference + "\n")
            return 1
        sys.stdout.write(f"{TABLE.name} is what the calendar and the overrides make\n")
        return 0
    table = make_table()
    table.write_parquet(TABLE, compression="zstd", statistics=False)
    sys.stdout.write(f"{TABLE.name}: {len(table)} sessions, {TABLE.stat().st_size} bytes\n")
    return 0


def difference_to_package() -> str:
    """Return how the table in the package differs from a fresh one; empty when it does not."""
    made, stored = make_table(), pl.read_parquet(TABLE)
    if made.schema != stored.schema:
        return f"columns differ: {stored.schema} in the package, {made.schema} made afresh"
    if made.equals(stored):
        return ""
    only = pl.concat(
        [
            made.join(stored, on=made.columns, how="anti").with_columns(side=pl.lit("made")),
            stored.join(made, on=made.columns, how="anti").with_columns(side=pl.lit("package")),
        ]
    ).sort("trade_date", "side")
    return f"{len(only)} rows differ, the first:\n{only.head(6)}"


def make_table() -> pl.DataFrame:
    """Return the session table: trade_date, open, close, halts, note."""
    days = [with_overrides(day) for day in calendar_days() if day.trade_date not in CLOSED]
    halts = [
        [{"start": nanos(start), "end": nanos(end)} for start, end in halts_of(day)] for day in days
    ]
    return pl.DataFrame(
        {
            "trade_date": [day.trade_date for day in days],
            "open": [nanos(day.opened) for day in days],
            "close": [nanos(day.closed) for day in days],
            "halts": halts,
            "note": [day.note for day in days],
        },
        schema={
            "trade_date": pl.Date,
            "open": pl.Int64,
            "close": pl.Int64,
            "halts": pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64})),
            "note": pl.String,
        },
    ).with_columns(
        pl.from_epoch("open", "ns").dt.replace_time_zone("UTC"),
        pl.from_epoch("close", "ns").dt.replace_time_zone("UTC"),
    )


def calendar_days() -> list[Day]:
    """Return the sessions of the calendar with the hours in force on each date."""
    import pandas_market_calendars

    schedule = pandas_market_calendars.get_calendar("CME Globex Equity").schedule(
        FIRST_DAY, LAST_DAY, tz="America/Chicago"
    )
    closes = {
        stamp.date(): close.to_pydatetime().time()
        for stamp, close in schedule["market_close"].items()
    }
    full = {day for day, close in closes.items() if close == CALENDAR_REGULAR_CLOSE}
    return [
        Day(
            trade_date=day,
            opened=chicago(day - timedelta(days=1), opening_time(day, closes, full)),
            closed=chicago(day, regular_close(day) if day in full else close),
            note="" if day in full else holiday_name(day),
        )
        for day, close in closes.items()
    ]


def opening_time(day: date, closes: Mapping[date, time], full: set[date]) -> time:
    """Return the wall time of the open on the calendar day before ``day``.

    Before 2012-11-19 the new trade date began at 15:30 after a full day. Where the day before was a
    holiday or cut short, or where ``day`` itself is a holiday, trading began at 17:00.
    """
    if day >= FIRST_DAY_CLOSE_1615:
        return EVENING_OPEN
    eve = day - timedelta(days=1)
    after_full_day = eve in full and eve not in OVERRIDES
    is_holiday = closes[day] <= time(12)
    return OLD_AFTERNOON_OPEN if after_full_day and not is_holiday else EVENING_OPEN


def regular_close(day: date) -> time:
    """Return the wall time at which a full session of that trade date closed."""
    if day < FIRST_DAY_CLOSE_1615:
        return time(15, 15)
    return time(16, 15) if day < FIRST_DAY_CLOSE_1600 else time(16)


def with_overrides(day: Day) -> Day:
    """Return the day with its override, if it has one."""
    override = OVERRIDES.get(day.trade_date)
    if override is None:
        return day
    eve = day.trade_date - timedelta(days=1)
    return replace(
        day,
        note=override.note,
        opened=chicago(eve, override.opened) if override.opened else day.opened,
        closed=chicago(day.trade_date, override.closed) if override.closed else day.closed,
    )


def halts_of(day: Day) -> list[tuple[datetime, datetime]]:
    """Return the scheduled halts that lie inside the session."""
    halts = []
    if day.trade_date < FIRST_DAY_CLOSE_1615:
        eve = day.trade_date - timedelta(days=1)
        halts.append(tuple(chicago(eve, clock) for clock in OLD_MAINTENANCE))
    elif day.trade_date < FIRST_DAY_WITHOUT_PAUSE:
        halts.append(tuple(chicago(day.trade_date, clock) for clock in AFTERNOON_PAUSE))
    return [(start, end) for start, end in halts if day.opened < start and end < day.closed]


def holiday_name(day: date) -> str:
    """Return what the short session is called."""
    if day.month == JULY and day.day == DAY_BEFORE_JULY_4 and day.isoweekday() < FRIDAY:
        return "Day before Independence Day"
    if day.month == NOVEMBER and day.isoweekday() == FRIDAY:
        return "Day after Thanksgiving"
    return NAME_BY_MONTH[day.month]


def chicago(day: date, clock: time) -> datetime:
    """Return that wall time in Chicago."""
    return datetime.combine(day, clock, CHICAGO)


def nanos(moment: datetime) -> int:
    """Return whole seconds since the epoch as nanoseconds."""
    return int(moment.timestamp()) * 1_000_000_000


def observed_against(table: pl.DataFrame, path: Path) -> str:
    """Return, as text, sessions that begin or end elsewhere than in the table, and stray bars."""
    bars = (
        pl.read_parquet(path)
        .select(pl.col("ts_event").cast(pl.Datetime("ns", "UTC")))
        .unique()
        .sort("ts_event")
    )
    step = bars["ts_event"].diff().min()
    placed = bars.join_asof(
        table.select("trade_date", "open", "close", "note"),
        left_on="ts_event",
        right_on="open",
        coalesce=False,
    ).with_columns(inside=(pl.col("ts_event") < pl.col("close")).fill_null(value=False))
    stray = placed.filter(~pl.col("inside"))
    seen = (
        placed.filter("inside")
        .group_by("trade_date")
        .agg(first=pl.col("ts_event").min(), last=pl.col("ts_event").max())
    )
    first, last = bars["ts_event"].min(), bars["ts_event"].max()
    edges = (
        table.filter((pl.col("close") > first) & (pl.col("open") < last))
        .join(seen, on="trade_date", how="left", maintain_order="left")
        .with_columns(
            late=pl.col("first") - pl.col("open"), early=pl.col("close") - pl.col("last") - step
        )
        .filter(
            pl.col("first").is_null()
            | (pl.col("late") > pl.duration(minutes=2))
            | (pl.col("early") > pl.duration(minutes=2))
        )
    )
    at_close = stray.filter(pl.col("ts_event") == pl.col("close"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, tbl_hide_dataframe_shape=True):
        return (
            f"{path.name}: {len(bars)} bars, {len(seen)} sessions, {len(stray)} bars outside "
            f"every session, {len(at_close)} of them at the close itself\n{edges.drop('halts')}\n"
            f"{stray.filter(pl.col('ts_event') != pl.col('close')).head(40)}\n"
        )


if __name__ == "__main__":
    sys.exit(main())
