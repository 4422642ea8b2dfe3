from __future__ import annotations

import importlib.util
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore.errors import ConfigError, DataError
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
CHICAGO = ZoneInfo("America/Chicago")
MINUTE_NS = 60_000_000_000
HOUR_NS = 60 * MINUTE_NS
ALL = load_sessions()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sessions", ROOT / "tools/make_sessions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its own module up by name.
    import sys

    sys.modules["make_sessions"] = module
    spec.loader.exec_module(module)
    return module


def row_of(trade_date: str) -> dict[str, Any]:
    day = ALL.between(trade_date, trade_date)
    assert len(day) == 1, trade_date
    return day.frame.row(0, named=True)


def chicago_clock(moment: datetime) -> str:
    return moment.astimezone(CHICAGO).strftime("%a %H:%M")


def nanos(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000


def spans_in(zone: str, spans: list[dict[str, int]]) -> list[str]:
    def clock(ns: int) -> str:
        return datetime.fromtimestamp(ns / 1e9, ZoneInfo(zone)).strftime("%H:%M")

    return [f"{clock(span['start'])}-{clock(span['end'])}" for span in spans]


def test_the_packaged_table_is_what_the_calendar_and_the_overrides_make(tool: ModuleType) -> None:
    assert tool.difference_to_package() == ""


def test_the_check_notices_a_changed_row(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = pl.read_parquet(tool.TABLE).with_columns(
        close=pl.when(pl.col("trade_date") == date(2019, 7, 3))
        .then(pl.col("close") + timedelta(minutes=1))
        .otherwise("close")
        .cast(pl.Datetime("ns", "UTC"))
    )
    changed.write_parquet(tmp_path / "sessions.parquet")
    monkeypatch.setattr(tool, "TABLE", tmp_path / "sessions.parquet")
    assert "2019-07-03" in tool.difference_to_package()
    assert tool.main(["--check"]) == 1


def test_the_table_spans_2008_to_two_years_ahead() -> None:
    days = ALL.frame["trade_date"]
    assert days[0] == date(2008, 1, 2)
    assert days[-1] == date(2028, 12, 29)
    assert days.is_unique().all()
    assert (days.dt.weekday() <= 5).all()
    assert (ALL.close_ns > ALL.open_ns).all()
    assert (ALL.open_ns[1:] >= ALL.close_ns[:-1]).all()


@pytest.mark.parametrize(
    ("trade_date", "opened", "closed", "halts"),
    [
        ("2010-06-09", "Tue 15:30", "Wed 15:15", ["16:30-17:00"]),  # a Wednesday of the old hours
        ("2012-11-16", "Thu 15:30", "Fri 15:15", ["16:30-17:00"]),  # their last day
        ("2012-11-19", "Sun 17:00", "Mon 16:15", ["15:15-15:30"]),
        ("2015-09-18", "Thu 17:00", "Fri 16:15", ["15:15-15:30"]),
        ("2015-09-21", "Sun 17:00", "Mon 16:00", ["15:15-15:30"]),
        ("2021-06-25", "Thu 17:00", "Fri 16:00", ["15:15-15:30"]),
        ("2021-06-28", "Sun 17:00", "Mon 16:00", []),
        ("2025-09-24", "Tue 17:00", "Wed 16:00", []),
        ("2013-07-04", "Wed 17:00", "Thu 10:30", []),
        ("2019-11-28", "Wed 17:00", "Thu 12:00", []),
        ("2019-11-29", "Thu 17:00", "Fri 12:15", []),
        ("2019-12-24", "Mon 17:00", "Tue 12:15", []),
        ("2015-04-03", "Thu 17:00", "Fri 08:15", []),
        ("2012-10-29", "Sun 17:00", "Mon 15:15", []),  # its early end was announced after its open
        ("2012-10-30", "Mon 17:00", "Tue 08:15", []),
        ("2012-10-31", "Tue 17:00", "Wed 15:15", []),
        ("2018-12-05", "Tue 17:00", "Wed 08:30", []),
        ("2025-01-09", "Wed 17:00", "Thu 08:30", []),
        ("2015-07-01", "Tue 19:45", "Wed 16:15", ["15:15-15:30"]),  # leap second
        ("2026-04-03", "Thu 17:00", "Fri 08:15", []),
    ],
)
def test_known_days(trade_date: str, opened: str, closed: str, halts: list[str]) -> None:
    row = row_of(trade_date)
    assert (chicago_clock(row["open"]), chicago_clock(row["close"])) == (opened, closed)
    assert spans_in("America/Chicago", row["halts"]) == halts


@pytest.mark.parametrize(
    "closed",
    ["2008-03-21", "2015-12-25", "2016-03-25", "2019-01-01", "2024-03-29", "2025-04-18",
     "2021-12-24", "2022-12-26", "2023-01-02", "2027-03-26"],
)  # fmt: skip
def test_full_closures_have_no_session(closed: str) -> None:
    assert len(ALL.between(closed, closed)) == 0


def test_halts_lie_inside_their_session() -> None:
    columns = ALL.columns()
    rows = columns["halts_session"]
    assert len(rows) > 3_000
    assert (columns["halts_start_ns"] > columns["open_ns"][rows]).all()
    assert (columns["halts_end_ns"] < columns["close_ns"][rows]).all()


def test_new_york_offset_at_close() -> None:
    assert row_of("2019-03-08")["new_york_offset_s"] == -5 * 3600
    assert row_of("2019-03-11")["new_york_offset_s"] == -4 * 3600


def test_real_bars_lie_inside_the_sessions(data_dir: Path) -> None:
    bars = pl.read_parquet(data_dir / "bars/es_1m_2015_2019.parquet", columns=["ts_event"])
    session = ALL.locate(bars["ts_event"])
    stray = bars.filter(session.is_null())["ts_event"]
    # The only bars outside start exactly at a close: the last prints of the day.
    assert len(stray) == 26
    assert set(stray.to_physical().to_list()) <= set(ALL.close_ns.tolist())
    seen = ALL.overlapping(
        int(bars["ts_event"].to_physical()[0]), int(bars["ts_event"].to_physical()[-1])
    )
    assert session.n_unique() - 1 == len(seen) == 1290


def test_real_sessions_begin_and_end_on_schedule(data_dir: Path) -> None:
    bars = pl.read_parquet(data_dir / "bars/es_1m_2015_2019.parquet", columns=["ts_event"])
    edges = (
        bars.with_columns(session=ALL.locate(bars["ts_event"]))
        .drop_nulls()
        .group_by("session")
        .agg(first=pl.col("ts_event").min(), last=pl.col("ts_event").max())
    )
    table = ALL.frame.select("trade_date", "open", "close").with_row_index("session")
    late = edges.join(table.cast({"session": pl.Int64}), on="session").filter(
        (pl.col("first") - pl.col("open") > timedelta(minutes=1))
        | (pl.col("close") - pl.col("last") > timedelta(minutes=2))
    )
    # A late opening on 2018-04-29, and the days on which this file changes its contract early.
    assert sorted(late["trade_date"]) == [
        date(2015, 3, 11),
        date(2015, 6, 10),
        date(2015, 9, 9),
        date(2018, 4, 30),
    ]


def test_real_days_of_other_years(data_dir: Path) -> None:
    bars = pl.read_parquet(data_dir / "bars/es_5m_by_contract_2024-02_2025-06.parquet")
    assert ALL.locate(bars["ts_event"]).null_count() == 0
    eastern = pl.read_csv(data_dir / "bars/nq_1m_2023-11-19_2023-12-04_eastern.csv")
    times = (
        eastern["timestamp"]
        .str.to_datetime(time_unit="ns")
        .dt.replace_time_zone("America/New_York")
        .dt.convert_time_zone("UTC")
    )
    assert ALL.locate(times).null_count() == 0


def test_hours_follow_new_york_through_daylight_saving_and_half_days() -> None:
    regular = load_sessions(hours=["09:30-16:00 America/New_York"])
    for trade_date, expected in {
        "2019-03-08": "09:30-16:00",
        "2019-03-11": "09:30-16:00",
        "2019-11-29": "09:30-13:15",
        "2019-11-28": "09:30-13:00",
    }.items():
        row = regular.between(trade_date, trade_date).frame.row(0, named=True)
        assert spans_in("America/New_York", row["hours"]) == [expected]
    before = nanos(datetime(2019, 3, 8, 14, 30, tzinfo=UTC))
    after = nanos(datetime(2019, 3, 11, 13, 30, tzinfo=UTC))
    assert {before, after} <= set(regular.columns()["hours_start_ns"].tolist())


def test_a_session_without_an_allowed_hour_has_an_empty_list() -> None:
    short = load_sessions(hours=["09:30-16:00 America/New_York"]).between(
        "2015-04-03", "2015-04-03"
    )
    assert short.frame["hours"].to_list() == [[]]
    assert short.columns()["hours_session"].tolist() == []


def test_without_hours_the_whole_session_is_allowed() -> None:
    columns = ALL.columns()
    assert columns["hours_start_ns"].tolist() == columns["open_ns"].tolist()
    assert columns["hours_end_ns"].tolist() == columns["close_ns"].tolist()


def test_hours_that_overlap_or_touch_become_one() -> None:
    day = load_sessions(
        hours=[
            "10:00-12:00 America/New_York",
            "09:30-10:00 America/New_York",
            "11:00-11:30 America/New_York",
            "14:00-15:00 America/New_York",
        ]
    ).between("2024-03-05", "2024-03-05")
    assert spans_in("America/New_York", day.frame["hours"][0].to_list()) == [
        "09:30-12:00",
        "14:00-15:00",
    ]


def test_hours_across_midnight_are_clipped_to_the_session() -> None:
    day = load_sessions(hours=["16:30-02:00 America/New_York"]).between("2024-03-05", "2024-03-05")
    assert spans_in("America/New_York", day.frame["hours"][0].to_list()) == [
        "18:00-02:00",
        "16:30-17:00",
    ]


def test_midnight_as_the_end() -> None:
    day = load_sessions(hours=["00:00-24:00 UTC"], day="utc").between("2024-03-05", "2024-03-05")
    span = day.frame["hours"][0].to_list()
    assert span == [{"start": int(day.open_ns[0]), "end": int(day.close_ns[0])}]


def test_a_wall_time_that_the_clock_change_skips() -> None:
    # 02:30 does not exist in New York on 2024-03-10: half an hour after what would have been 02:00.
    day = load_sessions(hours=["02:30-09:00 America/New_York"], day="utc").between(
        "2024-03-10", "2024-03-10"
    )
    span = day.frame["hours"][0][0]
    assert span["start"] == nanos(datetime(2024, 3, 10, 7, 30, tzinfo=UTC))
    assert span["end"] == nanos(datetime(2024, 3, 10, 13, 0, tzinfo=UTC))


def test_a_wall_time_that_occurs_twice() -> None:
    day = load_sessions(hours=["01:30-01:45 America/New_York"], day="utc").between(
        "2024-11-03", "2024-11-03"
    )
    span = day.frame["hours"][0][0]
    assert span["start"] == nanos(datetime(2024, 11, 3, 5, 30, tzinfo=UTC))
    assert span["end"] == nanos(datetime(2024, 11, 3, 6, 45, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    ["", "09:30-16:00", "9:30-16:00 America/New_York", "09:30-16:00 New_York_City",
     "24:00-25:00 UTC", "09:60-10:00 UTC", "10:00-10:00 UTC", "09:30 - 16:00 UTC",
     "00:00-24:01 UTC", "09:30-16:00 ../etc/passwd", "09:30-16:00 America/New_York "],
)  # fmt: skip
def test_bad_hours_are_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sessions(hours=[text])
    assert caught.value.field == "session.hours"
    assert caught.value.found is not None


def test_one_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="list"):
        load_sessions(hours="09:30-16:00 UTC")


def test_unknown_calendar_and_day_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        load_sessions("globex_butter")
    assert caught.value.field == "instrument.calendar"
    with pytest.raises(ConfigError) as caught:
        load_sessions(day="eastern")  # type: ignore[arg-type]
    assert caught.value.field == "session.day"


def test_utc_days_are_every_calendar_day() -> None:
    days = load_sessions(day="utc")
    assert (days.close_ns - days.open_ns == 24 * HOUR_NS).all()
    assert (days.open_ns[1:] == days.close_ns[:-1]).all()
    assert len(days.between("2024-01-01", "2024-12-31")) == 366
    assert days.columns()["halts_session"].tolist() == []


def test_columns_are_flat_contiguous_and_typed() -> None:
    columns = ALL.columns()
    assert set(columns) == {
        "open_ns", "close_ns", "trade_date", "new_york_offset_s", "hours_session",
        "hours_start_ns", "hours_end_ns", "halts_session", "halts_start_ns", "halts_end_ns",
    }  # fmt: skip
    for name, column in columns.items():
        narrow = name in {"trade_date", "new_york_offset_s"}
        assert column.dtype == (np.int32 if narrow else np.int64), name
        assert column.flags.c_contiguous
    assert columns["trade_date"][0] == (date(2008, 1, 2) - date(1970, 1, 1)).days


@given(st.integers(min_value=1_198_000_000, max_value=1_862_000_000))
def test_session_of_agrees_with_locate_and_with_a_plain_search(second: int) -> None:
    ts = datetime.fromtimestamp(second, UTC)
    found = ALL.session_of(ts)
    plain = ALL.frame.filter(pl.col("open") <= ts, pl.col("close") > ts)
    located = ALL.locate(pl.Series([second * 1_000_000_000])).to_list()
    if found is None:
        assert plain.is_empty()
        assert located == [None]
    else:
        assert plain["trade_date"].to_list() == [found.trade_date]
        assert located == [found.index]
        assert (plain["open"][0], plain["close"][0]) == (found.open, found.close)


def test_session_of_takes_the_open_and_not_the_close() -> None:
    opened, closed = int(ALL.open_ns[100]), int(ALL.close_ns[100])
    at_open, before_close = ALL.session_of(opened), ALL.session_of(closed - 1)
    assert at_open is not None
    assert before_close is not None
    assert at_open.index == before_close.index == 100
    assert ALL.session_of(closed) is None
    assert ALL.session_of(int(ALL.open_ns[0]) - 1) is None


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(DataError, match="zone"):
        ALL.session_of(datetime(2024, 3, 5, 12))  # noqa: DTZ001 (the point)


def test_between_refuses_what_is_no_date() -> None:
    with pytest.raises(ConfigError) as caught:
        ALL.between("March")
    assert caught.value.field == "from"


def test_overlapping_takes_sessions_that_share_an_instant() -> None:
    part = ALL.overlapping(int(ALL.close_ns[5]), int(ALL.open_ns[7]))
    assert part.frame["trade_date"].to_list() == [ALL.frame["trade_date"][6]]
    assert len(ALL.overlapping(0, 1)) == 0


def own(opens: Sequence[int | None], closes: Sequence[int], **columns: object) -> pl.DataFrame:
    return pl.DataFrame({"open": opens, "close": closes, **columns}, strict=False)


def test_a_table_of_ones_own() -> None:
    table = Sessions.from_frame(
        own([0, 10 * HOUR_NS], [6 * HOUR_NS, 16 * HOUR_NS]), hours=["01:00-12:00 UTC"]
    )
    assert table.frame.schema == ALL.frame.schema
    assert [len(spans) for spans in table.frame["hours"]] == [1, 1]
    assert table.columns()["hours_end_ns"].tolist() == [6 * HOUR_NS, 12 * HOUR_NS]


def test_a_table_of_ones_own_may_be_the_packaged_one() -> None:
    again = Sessions.from_frame(ALL.frame)
    assert again.frame.equals(ALL.frame)


@pytest.mark.parametrize(
    ("frame", "row", "column"),
    [
        (own([0, 5], [6, 9]), 1, "open"),
        (own([10, 0], [12, 2]), 1, "open"),
        (own([0, 9], [6, 9]), 1, "close"),
        (own([0, None], [6, 9]), 1, "open"),
        (own([0, 6], [6, 9], trade_date=[date(2020, 1, 2), date(2020, 1, 1)]), 1, "trade_date"),
        (own([0], [6], trade_date=["2020-01-02"]), None, "trade_date"),
        (own([0], [6], halts=[1]), None, "halts"),
        (pl.DataFrame({"open": [0]}), None, "close"),
        (pl.DataFrame({"open": [datetime(2020, 1, 1)], "close": [1]}), None, "open"),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_bad_tables_name_row_and_column(frame: pl.DataFrame, row: int | None, column: str) -> None:
    with pytest.raises(DataError) as caught:
        Sessions.from_frame(frame)
    assert (caught.value.row, caught.value.column) == (row, column)
    assert caught.value.found is not None


def test_an_empty_table_has_no_session() -> None:
    nothing = ALL.between("1999-01-01", "1999-12-31")
    assert len(nothing) == 0
    assert nothing.session_of(0) is None
    assert nothing.locate(pl.Series([0, 1])).null_count() == 2
    assert nothing.columns()["hours_session"].tolist() == []


def test_loading_and_hours_take_milliseconds() -> None:
    def once() -> float:
        start = time.perf_counter()
        load_sessions(hours=["09:30-16:00 America/New_York"]).columns()
        return time.perf_counter() - start

    # About 6 ms; a loop over days takes a second. The best of five, since others share the cores.
    assert min(once() for _ in range(5)) < 0.05
