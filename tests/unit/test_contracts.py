from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore.contracts import (
    expiry_of,
    is_spread,
    refuse_mixed,
    select_front,
    single_contract,
)
from clustercore.errors import ConfigError, DataError
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HOUR_NS = 3_600_000_000_000
ALL = load_sessions()
# From two weeks before the expiry of ESH4 (2024-03-15) to a week after it, a daylight-saving change
# inside.
MARCH = ALL.between("2024-03-01", "2024-03-22")

Bar = tuple[int, str, int]


def frame_of(bars: Iterable[Bar]) -> pl.DataFrame:
    times, symbols, volumes = zip(*sorted(bars), strict=True)
    return pl.DataFrame(
        {
            "ts_event": pl.Series(times, dtype=pl.Int64)
            .cast(pl.Datetime("ns"))
            .dt.replace_time_zone("UTC"),
            "close": [float(index) for index in range(len(times))],
            "volume": pl.Series(volumes, dtype=pl.Int64),
            "symbol": symbols,
        }
    )


def hourly(volumes: dict[str, list[int]], sessions: Sessions = MARCH) -> pl.DataFrame:
    """One bar an hour in each session; volumes[symbol][k] is its volume in session k."""
    return frame_of(
        (start, symbol, each[index])
        for symbol, each in volumes.items()
        for index in range(len(each))
        if each[index] > 0
        for start in range(int(sessions.open_ns[index]), int(sessions.close_ns[index]), HOUR_NS)
    )


def choices(frame: pl.DataFrame, **options: Any) -> list[str | None]:
    return select_front(frame, MARCH, HOUR_NS, **options).table["symbol"].to_list()


def test_the_first_session_has_no_contract_and_is_left_out() -> None:
    selection = select_front(hourly({"ESH4": [9, 9, 9], "ESM4": [1, 1, 1]}), MARCH, HOUR_NS)
    assert selection.table["reason"].to_list() == ["nothing_known", "first", "held"]
    assert selection.table["symbol"].to_list() == [None, "ESH4", "ESH4"]
    assert selection.dropped["nothing_known"] == 2 * 23
    assert selection.dropped["other_month"] == 2 * 23
    assert len(selection.frame) == 2 * 23
    assert not selection.frame["context"].any()
    assert selection.table["bars"].to_list() == [0, 23, 23]


def test_it_rolls_the_session_after_the_volume_moved_and_never_back() -> None:
    frame = hourly({"ESH4": [9, 9, 1, 9, 9], "ESM4": [1, 1, 8, 1, 1]})
    assert choices(frame) == [None, "ESH4", "ESH4", "ESM4", "ESM4"]
    reasons = select_front(frame, MARCH, HOUR_NS).table["reason"].to_list()
    assert reasons == ["nothing_known", "first", "held", "volume", "held"]


def test_a_tie_goes_to_the_earlier_expiry() -> None:
    assert choices(hourly({"ESM4": [5, 5], "ESH4": [5, 5]})) == [None, "ESH4"]


def test_no_contract_is_held_into_its_last_trading_day() -> None:
    days = MARCH.frame["trade_date"].to_list()
    last = days.index(date(2024, 3, 15))
    count = last + 2
    frame = hourly({"ESH4": [9] * (last + 1), "ESM4": [1] * count})
    table = select_front(frame, MARCH, HOUR_NS).table
    held = table.filter(pl.col("symbol") == "ESH4")["trade_date"].to_list()
    assert max(held) == date(2024, 3, 14)
    assert table.row(last, named=True)["reason"] == "expiry"
    assert table.row(last, named=True)["symbol"] == "ESM4"


def test_without_another_month_the_last_trading_day_is_left_out() -> None:
    last = MARCH.frame["trade_date"].to_list().index(date(2024, 3, 15))
    selection = select_front(hourly({"ESH4": [9] * (last + 1)}), MARCH, HOUR_NS)
    assert selection.table["symbol"].to_list()[-1] is None
    assert selection.table["reason"].to_list()[-1] == "nothing_known"


def test_the_week_rhythm_chooses_on_mondays_until_eight_days_before_expiry() -> None:
    # 2024-03-01 is a Friday. The volume moves on Monday the 4th; the 7th is 8 days before expiry.
    frame = hourly({"ESH4": [9, 9] + [1] * 8, "ESM4": [1, 1] + [8] * 8})
    by_session = choices(frame)
    by_week = choices(frame, every="week")
    days = MARCH.frame["trade_date"].to_list()
    assert days[by_session.index("ESM4")] == date(2024, 3, 6)
    assert days[by_week.index("ESM4")] == date(2024, 3, 7)
    # Two months from expiry only Mondays count.
    january = ALL.between("2024-01-05", "2024-01-19")
    far = frame_of(
        (start, symbol, volume)
        for index in range(len(january))
        for symbol, volume in (("ESH4", 9 if index < 2 else 1), ("ESM4", 1 if index < 2 else 9))
        for start in range(int(january.open_ns[index]), int(january.close_ns[index]), HOUR_NS)
    )
    weekly = select_front(far, january, HOUR_NS, every="week").table
    assert weekly.filter(pl.col("symbol") == "ESM4")["trade_date"][0] == date(2024, 1, 15)
    daily = select_front(far, january, HOUR_NS).table
    assert daily.filter(pl.col("symbol") == "ESM4")["trade_date"][0] == date(2024, 1, 10)


def test_lookback_counts_session_time_and_skips_the_weekend() -> None:
    # Friday's last bars are an hour of session time before Monday's open, two days of wall time.
    friday, monday = int(MARCH.close_ns[0]), int(MARCH.open_ns[1])
    assert monday - friday > 48 * HOUR_NS
    bars = [
        (friday - 12 * HOUR_NS, "ESH4", 5),
        (friday - 13 * HOUR_NS, "ESM4", 500),  # older than 12 hours of session time
        (monday, "ESH4", 1),
    ]
    table = select_front(frame_of(bars), MARCH, HOUR_NS).table
    assert table["symbol"].to_list() == [None, "ESH4"]
    assert table["volumes"].to_list()[1] == [{"symbol": "ESH4", "volume": 5}]
    wider = select_front(frame_of(bars), MARCH, HOUR_NS, lookback_hours=13.0).table
    assert wider["symbol"].to_list() == [None, "ESM4"]


def test_a_bar_that_has_not_ended_at_the_open_is_not_known() -> None:
    days = load_sessions(day="utc").between("2024-03-05", "2024-03-06")
    midnight = int(days.open_ns[1])
    bars = [
        (midnight - HOUR_NS, "ESH4", 5),
        (midnight - HOUR_NS // 2, "ESM4", 50),
        (midnight, "ESH4", 1),
    ]
    known = select_front(frame_of(bars), days, HOUR_NS // 2).table
    assert known["symbol"].to_list() == [None, "ESM4"]
    unknown = select_front(frame_of(bars), days, HOUR_NS).table
    assert unknown["symbol"].to_list() == [None, "ESH4"]


def test_context_is_the_incoming_contracts_last_session_before_its_first_bar() -> None:
    frame = hourly({"ESH4": [9, 9, 1, 1], "ESM4": [1, 1, 8, 8]})
    selection = select_front(frame, MARCH, HOUR_NS)
    context = selection.frame.filter("context")
    assert context["symbol"].unique().to_list() == ["ESM4"]
    assert MARCH.locate(context["ts_event"]).unique().to_list() == [2]
    assert len(context) == 23
    runs = selection.frame.select(pl.struct("symbol", "context").rle().struct.field("value"))
    assert [(run["symbol"], run["context"]) for run in runs.to_series().to_list()] == [
        ("ESH4", False),
        ("ESM4", True),
        ("ESM4", False),
    ]
    assert selection.table["context_bars"].to_list() == [0, 0, 0, 23]
    for _, part in selection.frame.group_by("symbol", "context"):
        assert part["ts_event"].is_sorted()
    assert any("ESM4 from trade date 2024-03-06" in note for note in selection.notes())


def test_other_columns_are_kept_and_helpers_are_not() -> None:
    selection = select_front(hourly({"ESH4": [9, 9], "ESM4": [1, 1]}), MARCH, HOUR_NS)
    assert selection.frame.columns == ["ts_event", "close", "volume", "symbol", "context"]
    with_context = hourly({"ESH4": [9, 9]}).with_columns(context=pl.lit(value=False))
    again = select_front(with_context, MARCH, HOUR_NS)
    assert again.frame.columns == ["ts_event", "close", "volume", "symbol", "context"]


def test_spreads_are_dropped_and_counted() -> None:
    frame = hourly({"ESH4": [9, 9], "ESH4-ESM4": [99, 99], "ESM4": [1, 1]})
    selection = select_front(frame, MARCH, HOUR_NS)
    assert selection.dropped["spread"] == 46
    assert "ESH4-ESM4" not in selection.frame["symbol"].to_list()
    classed = pl.DataFrame(
        {"symbol": ["ESH4", "ESM4", "UD:1V: GN"], "instrument_class": ["F", "S", None]}
    )
    assert is_spread(classed).to_list() == [False, True, True]


def test_one_digit_years_are_read_against_the_date() -> None:
    old, new = ALL.between("2014-03-03", "2014-03-05"), ALL.between("2024-03-04", "2024-03-06")
    bars = [
        (start, symbol, volume)
        for part in (old, new)
        for index in range(len(part))
        for symbol, volume in (("ESH4", 9), ("ESM4", 1))
        for start in range(int(part.open_ns[index]), int(part.close_ns[index]), HOUR_NS)
    ]
    table = select_front(frame_of(bars), ALL, HOUR_NS).table
    with_bars = table.filter(pl.col("bars") > 0)
    assert with_bars.group_by("expiry").len().sort("expiry").rows() == [
        (date(2014, 3, 21), 2),
        (date(2024, 3, 15), 2),
    ]


def test_bars_outside_every_session_are_counted_and_too_many_refused() -> None:
    frame = hourly({"ESH4": [9] * 5, "ESM4": [1] * 5})
    stray = frame.head(1).with_columns(
        ts_event=pl.lit(MARCH.frame["close"][0]).cast(pl.Datetime("ns", "UTC"))
    )
    few = pl.concat([frame, stray])
    assert select_front(few, MARCH, HOUR_NS).dropped["outside_sessions"] == 1
    with pytest.raises(DataError) as caught:
        select_front(pl.concat([frame, *[stray] * 20]), MARCH, HOUR_NS)
    assert (caught.value.column, caught.value.row) == ("ts_event", len(frame))


@pytest.mark.parametrize(
    ("symbols", "column", "row"),
    [
        (["ESH4", "NQH4"], "symbol", 1),
        (["ESH4", "ES.c.0"], "symbol", 1),
        (["ES", "ESH4"], "symbol", 0),
    ],
)
def test_what_is_no_month_of_one_root_is_refused(symbols: list[str], column: str, row: int) -> None:
    start = int(MARCH.open_ns[0])
    frame = frame_of([(start, symbols[0], 1), (start + HOUR_NS, symbols[1], 1)])
    with pytest.raises(DataError) as caught:
        select_front(frame, MARCH, HOUR_NS)
    assert (caught.value.column, caught.value.row) == (column, row)
    assert caught.value.found is not None


def test_bad_settings_and_missing_columns_are_refused() -> None:
    frame = hourly({"ESH4": [9]})
    with pytest.raises(ConfigError) as caught:
        select_front(frame, MARCH, HOUR_NS, every="month")  # type: ignore[arg-type]
    assert caught.value.field == "roll.every"
    with pytest.raises(ConfigError) as caught:
        select_front(frame, MARCH, HOUR_NS, lookback_hours=0)
    assert caught.value.field == "roll.lookback_hours"
    with pytest.raises(DataError) as data:
        select_front(frame.drop("volume"), MARCH, HOUR_NS)
    assert data.value.column == "volume"


def test_single_contract() -> None:
    frame = hourly({"ESH4": [9, 9], "ESM4": [1, 1]})
    assert single_contract(frame, "ESM4")["symbol"].unique().to_list() == ["ESM4"]
    with pytest.raises(DataError) as caught:
        single_contract(frame, "ESU4")
    assert caught.value.found == "ESH4, ESM4"


def test_mixed_months_are_refused_by_row_and_symbols() -> None:
    frame = hourly({"ESH4": [9, 9], "ESM4": [0, 1]})
    with pytest.raises(DataError) as caught:
        refuse_mixed(frame, MARCH)
    assert caught.value.column == "symbol"
    assert caught.value.found == "ESH4 and ESM4"
    assert caught.value.row is not None
    assert frame["symbol"][caught.value.row] == "ESM4"
    refuse_mixed(hourly({"ESH4": [9, 0], "ESM4": [0, 1]}), MARCH)
    refuse_mixed(hourly({"ES.c.0": [9, 9]}), MARCH)


def test_a_selection_is_never_mixed() -> None:
    frame = hourly({"ESH4": [9, 9, 1, 9, 9], "ESM4": [1, 1, 8, 1, 1]})
    refuse_mixed(select_front(frame, MARCH, HOUR_NS).frame, MARCH)


@pytest.mark.parametrize(
    ("symbol", "on", "expected"),
    [
        ("ESH8", date(2008, 1, 2), date(2008, 3, 20)),  # the third Friday is Good Friday
        ("ESM6", date(2026, 1, 2), date(2026, 6, 18)),  # the third Friday is Juneteenth
        ("ESM7", date(2027, 1, 4), date(2027, 6, 17)),
        ("ESZ5", date(2025, 12, 19), date(2025, 12, 19)),
        ("ESZ5", date(2025, 12, 20), date(2035, 12, 21)),
        ("ESZ25", date(2030, 1, 1), date(2025, 12, 19)),
        ("M2KU4", date(2024, 7, 1), date(2024, 9, 20)),
        ("CLF5", date(2024, 12, 2), date(2024, 12, 20)),
        ("CLH5", date(2025, 1, 6), date(2025, 2, 20)),
        ("GCG5", date(2024, 12, 2), date(2025, 1, 31)),
        ("GCF5", date(2024, 12, 2), date(2024, 12, 31)),
    ],
)
def test_last_trading_days(symbol: str, on: date, expected: date) -> None:
    assert expiry_of(symbol, on) == expected


def test_third_fridays_that_are_holidays_are_all_known() -> None:
    import pandas_market_calendars

    open_days = {
        stamp.date()
        for stamp in pandas_market_calendars.get_calendar("NYSE").valid_days(
            "2008-01-01", "2028-12-31"
        )
    }
    for year in range(2008, 2029):
        for code, month in zip("HMUZ", (3, 6, 9, 12), strict=True):
            expiry = expiry_of(f"ES{code}{year % 100:02}", date(year, 1, 1))
            assert expiry in open_days, (year, month)
            assert expiry.weekday() == 4 or expiry + timedelta(days=1) not in open_days


# Against a plain oracle.

SYMBOLS = ("ESH4", "ESM4", "ESU4")


def plain_selection(
    bars: list[Bar], interval_ns: int, lookback_ns: int, every: str
) -> list[tuple[date, str | None]]:
    """Apply the rule as the specification states it, one bar at a time."""
    sessions = list(zip(MARCH.frame["trade_date"], MARCH.open_ns, MARCH.close_ns, strict=True))

    def index_of(ts: int) -> int | None:
        return next((i for i, (_, o, c) in enumerate(sessions) if o <= ts < c), None)

    def session_time_between(start: int, end: int) -> int:
        return sum(max(0, min(end, int(c)) - max(start, int(o))) for _, o, c in sessions)

    inside = [(ts, symbol, volume) for ts, symbol, volume in bars if index_of(ts) is not None]
    indices = [index for ts, _, _ in inside if (index := index_of(ts)) is not None]
    if not indices:
        return []
    held: str | None = None
    chosen: list[tuple[date, str | None]] = []
    previous: date | None = None
    for index in range(min(indices), max(indices) + 1):
        day, opened, _ = sessions[index]
        volumes: dict[str, int] = {}
        for ts, symbol, volume in inside:
            known = ts + interval_ns <= opened
            if known and session_time_between(ts, int(opened)) <= lookback_ns:
                volumes[symbol] = volumes.get(symbol, 0) + volume
        new_week = previous is None or day.isocalendar()[:2] != previous.isocalendar()[:2]
        previous = day
        expiry = expiry_of(held, date(2024, 3, 1)) if held else None
        examine = every == "session" or new_week or expiry is None or (expiry - day).days <= 8
        best = held if expiry and day < expiry else None
        if examine:
            allowed = [
                (-volume, expiry_of(symbol, date(2024, 3, 1)), symbol)
                for symbol, volume in volumes.items()
                if volume > 0
                and day < expiry_of(symbol, date(2024, 3, 1))
                and (expiry is None or expiry_of(symbol, date(2024, 3, 1)) >= expiry)
            ]
            if allowed:
                best = min(allowed)[2]
        held = best or held
        chosen.append((day, best))
    return chosen


@st.composite
def markets(draw: st.DrawFn) -> list[Bar]:
    bars = []
    for index in range(draw(st.integers(2, len(MARCH)))):
        opened, closed = int(MARCH.open_ns[index]), int(MARCH.close_ns[index])
        for symbol in SYMBOLS:
            if symbol == "ESH4" and MARCH.frame["trade_date"][index] > date(2024, 3, 15):
                continue
            hours = draw(
                st.lists(st.integers(0, (closed - opened) // HOUR_NS - 1), max_size=4, unique=True)
            )
            bars += [(opened + hour * HOUR_NS, symbol, draw(st.integers(1, 20))) for hour in hours]
    return bars or [(int(MARCH.open_ns[0]), "ESH4", 1)]


@given(
    bars=markets(),
    lookback=st.sampled_from([1.0, 12.0, 23.0, 50.0]),
    every=st.sampled_from(["session", "week"]),
)
def test_it_equals_the_plain_rule(
    bars: list[Bar], lookback: float, every: Literal["session", "week"]
) -> None:
    table = select_front(frame_of(bars), MARCH, HOUR_NS, lookback_hours=lookback, every=every).table
    expected = plain_selection(bars, HOUR_NS, int(lookback * HOUR_NS), every)
    assert table.select("trade_date", "symbol").rows() == expected


@given(bars=markets(), data=st.data(), every=st.sampled_from(["session", "week"]))
def test_cutting_the_input_after_an_open_leaves_the_choice_for_that_session(
    bars: list[Bar], data: st.DataObject, every: Literal["session", "week"]
) -> None:
    whole = select_front(frame_of(bars), MARCH, HOUR_NS, every=every).table
    cut = data.draw(st.sampled_from(sorted({ts for ts, _, _ in bars}))) + 1
    part = select_front(frame_of(bar for bar in bars if bar[0] < cut), MARCH, HOUR_NS, every=every)
    shared = len(part.table)
    columns = ["trade_date", "symbol", "expiry", "reason", "volumes"]
    assert part.table.select(columns).equals(whole.head(shared).select(columns))


@given(bars=markets(), data=st.data())
def test_what_happens_in_a_session_has_no_part_in_its_choice(
    bars: list[Bar], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(MARCH) - 1))
    opened, closed = int(MARCH.open_ns[index]), int(MARCH.close_ns[index])
    upset = [
        (ts, symbol, volume * 1_000 if symbol == "ESU4" and opened <= ts < closed else volume)
        for ts, symbol, volume in bars
    ]
    before = select_front(frame_of(bars), MARCH, HOUR_NS).table
    after = select_front(frame_of(upset), MARCH, HOUR_NS).table
    until = pl.col("open") <= datetime.fromtimestamp(opened / 1e9, UTC)
    assert before.filter(until)["symbol"].to_list() == after.filter(until)["symbol"].to_list()


def test_real_bars_of_seven_contracts(data_dir: Path) -> None:
    """The file already rolls at the Sunday open of expiry week; make it a parent file again."""
    bars = pl.read_parquet(data_dir / "bars/es_5m_by_contract_2024-02_2025-06.parquet").drop("vwap")
    refuse_mixed(bars, ALL)
    quarter = bars.filter(pl.col("symbol") == "ESM4")
    # The next month beside it, thin until a week before the third Friday and then the larger one.
    moved = pl.col("ts_event") >= datetime(2024, 6, 12, 22, tzinfo=UTC)
    beside = quarter.with_columns(
        symbol=pl.lit("ESU4"),
        volume=pl.when(moved).then(pl.col("volume") * 3).otherwise(pl.col("volume") // 50),
    )
    both = pl.concat([quarter, beside]).sort("ts_event", "symbol")
    with pytest.raises(DataError):
        refuse_mixed(both, ALL)
    selection = select_front(both, ALL, 300_000_000_000)
    rolls = selection.table.filter(pl.col("reason") == "volume")
    assert rolls.select("trade_date", "symbol").rows() == [(date(2024, 6, 14), "ESU4")]
    assert rolls["context_bars"].to_list() == [276]
    refuse_mixed(selection.frame, ALL)
    assert selection.table["symbol"].null_count() == 1
    kept = selection.frame.filter(~pl.col("context"))
    assert len(kept) + selection.dropped["other_month"] + selection.dropped["nothing_known"] == len(
        both
    )
