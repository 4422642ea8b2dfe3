from __future__ import annotations

import json
from datetime import date, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from clustercore.errors import DataError
from clustercore.instruments import Instrument
from clustercore.quality import QualityReport, check_bars
from clustercore.sessions import load_sessions

if TYPE_CHECKING:
    from pathlib import Path

MINUTE_NS = 60_000_000_000
ES = Instrument.builtin("ES")
ALL = load_sessions()
# Ten sessions with the afternoon pause, a half day and a holiday among them.
WEEKS = ALL.between("2019-11-18", "2019-12-03")
FINDINGS = (
    "gaps", "halted", "outside", "duplicates", "disorder", "off_tick", "incoherent", "mixed",
    "volumes", "thin_sessions", "prices",
)  # fmt: skip


def clean_bars() -> pl.DataFrame:
    """Return one bar for every minute of the schedule, halts excepted."""
    columns = WEEKS.columns()
    ts_ns = np.concatenate(
        [np.arange(o, c, MINUTE_NS) for o, c in zip(WEEKS.open_ns, WEEKS.close_ns, strict=True)]
    )
    halted = np.zeros(len(ts_ns), dtype=bool)
    for start, end in zip(columns["halts_start_ns"], columns["halts_end_ns"], strict=True):
        halted |= (ts_ns >= start) & (ts_ns < end)
    ts_ns = ts_ns[~halted]
    price = 3_100 + 0.25 * (np.arange(len(ts_ns)) % 40)
    return pl.DataFrame(
        {
            "ts_event": pl.Series(ts_ns).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
            "open": price,
            "high": price + 0.5,
            "low": price - 0.5,
            "close": price + 0.25,
            "volume": pl.Series(100 + np.arange(len(ts_ns)) % 7, dtype=pl.Int64),
            "symbol": "ESZ9",
        }
    )


CLEAN = clean_bars()


def check(frame: pl.DataFrame, **options: Any) -> QualityReport:
    return check_bars(frame, WEEKS, ES, MINUTE_NS, **options)


def changed(row: int, **values: object) -> pl.DataFrame:
    at = pl.int_range(pl.len()) == row
    return CLEAN.with_columns(
        pl.when(at).then(pl.lit(value)).otherwise(pl.col(name)).cast(CLEAN.schema[name]).alias(name)
        for name, value in values.items()
    )


def only(report: QualityReport, *expected: str) -> None:
    found = {name for name in FINDINGS if report.counts[name]}
    assert found == set(expected)


def test_clean_bars_have_no_finding() -> None:
    report = check(CLEAN)
    only(report)
    assert report.ok
    assert report.errors == report.warnings == ()
    assert report.bar_count == len(CLEAN)
    assert report.session_count == len(WEEKS) == 12
    assert report.counts["missing_bars"] == 0
    assert report.sessions["coverage"].to_list() == [1.0] * 12
    by_day = dict(report.sessions.select("trade_date", "expected").iter_rows())
    assert by_day[date(2019, 11, 20)] == 23 * 60 - 15
    assert by_day[date(2019, 11, 28)] == 19 * 60
    assert by_day[date(2019, 11, 29)] == 19 * 60 + 15


def test_a_run_without_bars_is_a_gap_and_a_scheduled_halt_is_none() -> None:
    report = check(pl.concat([CLEAN[:100], CLEAN[106:]]))
    only(report, "gaps")
    assert report.gaps.select("trade_date", "minutes", "place").rows() == [
        (date(2019, 11, 18), 6.0, "inside")
    ]
    assert report.gaps["start"][0] == CLEAN["ts_event"][100]
    assert report.gaps["end"][0] == CLEAN["ts_event"][106]
    assert report.counts["missing_bars"] == 6
    only(check(pl.concat([CLEAN[:100], CLEAN[105:]])))  # five minutes are not longer than five
    only(check(pl.concat([CLEAN[:100], CLEAN[106:]]), gap_minutes=6.0))


def test_gaps_at_both_ends_of_a_session_and_a_whole_one() -> None:
    inside = CLEAN.with_columns(session=WEEKS.locate(CLEAN["ts_event"]))
    minute = pl.int_range(pl.len()).over("session")
    late = inside.filter(~((pl.col("session") == 2) & (minute < 30)))
    early = late.filter(~((pl.col("session") == 4) & (minute >= 1_355)))
    without = early.filter(pl.col("session") != 6)
    report = check(without.drop("session"))
    assert report.gaps.select("minutes", "place").rows() == [
        (30.0, "open"),
        (10.0, "close"),
        (1_365.0, "whole"),
    ]
    assert report.counts["empty_sessions"] == 1
    assert any("1 scheduled sessions have no bar" in warning for warning in report.warnings)


def test_a_gap_that_reaches_over_a_halt_counts_the_halt_out() -> None:
    pause = CLEAN["ts_event"].dt.offset_by("0m").to_physical().diff().fill_null(0) == 16 * MINUTE_NS
    at = int(pause.arg_max() or 0)
    report = check(pl.concat([CLEAN[: at - 8], CLEAN[at + 4 :]]))
    assert report.gaps["minutes"].to_list() == [8.0]


def test_what_the_file_does_not_cover_is_no_gap() -> None:
    only(check(CLEAN[500:-500]))


def test_bars_inside_a_halt_are_listed() -> None:
    start = WEEKS.columns()["halts_start_ns"][0]
    last_before = int((CLEAN["ts_event"].to_physical() < start).sum()) - 1
    shifted = changed(last_before, ts_event=CLEAN["ts_event"][last_before] + timedelta(minutes=1))
    report = check(shifted)
    only(report, "halted")
    assert report.halted["row"].to_list() == [last_before]
    assert report.ok


def strays(count: int) -> pl.DataFrame:
    closed = WEEKS.frame["close"][0]
    before = int((CLEAN["ts_event"] < closed).sum())
    extra = CLEAN[:count].with_columns(
        ts_event=pl.datetime_range(
            closed, closed + timedelta(minutes=count - 1), "1m", time_unit="ns", eager=True
        )
    )
    return pl.concat([CLEAN[:before], extra, CLEAN[before:]])


def test_bars_outside_sessions_are_listed_above_one_percent_and_an_error_above_five() -> None:
    few, some = check(strays(2)), check(strays(20))
    assert few.outside["row"].to_list() == [1_365, 1_366]
    assert few.sessions["outside"].to_list()[0] == 2
    assert not any("above 1 %" in warning for warning in few.warnings)
    assert any("above 1 % of a session: 2019-11-18" in warning for warning in some.warnings)
    assert some.ok
    weekend = CLEAN.with_columns(ts_event=pl.col("ts_event") + timedelta(days=2, hours=9))
    wrong = check(weekend)
    assert not wrong.ok
    assert "outside every session" in wrong.errors[0]


def test_bars_of_another_century_are_an_error_and_no_crash() -> None:
    report = check(CLEAN.with_columns(ts_event=pl.col("ts_event") - timedelta(days=36_500)))
    assert report.counts["outside"] == len(CLEAN)
    assert report.session_count == 0
    assert not report.ok
    json.dumps(report.to_dict(), allow_nan=False)


def test_duplicates_and_disorder_name_their_rows() -> None:
    twice = check(pl.concat([CLEAN[:11], CLEAN[10:]]))
    only(twice, "duplicates")
    assert twice.duplicates["row"].to_list() == [11]
    swapped = check(pl.concat([CLEAN[:10], CLEAN[11:12], CLEAN[10:11], CLEAN[12:]]))
    only(swapped, "disorder")
    assert swapped.disorder["row"].to_list() == [11]
    assert not twice.ok
    assert not swapped.ok


def test_off_tick_prices_name_row_and_column() -> None:
    report = check(changed(7, low=3_100.10))
    only(report, "off_tick")
    assert report.off_tick.select("row", "column", "price").rows() == [(7, "low", 3_100.10)]
    free = SimpleNamespace(tick_nanos=ES.tick_nanos, check_tick=False)
    assert check_bars(changed(7, low=3_100.10), WEEKS, free, MINUTE_NS).ok


@pytest.mark.parametrize(
    "values",
    [
        {"high": 3_000.0},
        {"low": 3_200.0},
        {"close": None},
        {"open": float("nan")},
        {"high": float("inf")},
    ],
)
def test_incoherent_prices_are_an_error(values: dict[str, object]) -> None:
    report = check(changed(7, **values))
    assert report.incoherent["row"].to_list() == [7]
    assert not report.ok
    json.dumps(report.to_dict(), allow_nan=False)


def test_two_symbols_in_one_session() -> None:
    report = check(changed(7, symbol="ESH0"))
    only(report, "mixed")
    assert report.mixed.rows() == [(date(2019, 11, 18), ["ESZ9", "ESH0"])]
    rolled = CLEAN.with_columns(
        symbol=pl.when(pl.col("ts_event") < WEEKS.frame["open"][5])
        .then(pl.lit("ESZ9"))
        .otherwise(pl.lit("ESH0"))
    )
    only(check(rolled))


def test_suspicious_volumes() -> None:
    zero, spike = check(changed(7, volume=0)), check(changed(7, volume=100_000))
    only(zero, "volumes")
    assert zero.volumes.select("row", "why").rows() == [(7, "not_positive")]
    assert spike.volumes.select("row", "why").rows() == [(7, "spike")]
    assert any("50 times" in warning for warning in spike.warnings)
    assert zero.ok


def test_the_usual_volume_of_a_minute_follows_daylight_saving() -> None:
    weeks = ALL.between("2019-10-21", "2019-11-27")  # ten summer days, then eighteen winter ones
    ts_ns = np.concatenate(
        [np.arange(o, c, MINUTE_NS) for o, c in zip(weeks.open_ns, weeks.close_ns, strict=True)]
    )
    frame = pl.DataFrame(
        {"ts_event": pl.Series(ts_ns).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")}
    ).with_columns(
        open=3_000.0, high=3_000.25, low=3_000.0, close=3_000.0, symbol=pl.lit("ES"),
        volume=pl.when(
            pl.col("ts_event").dt.convert_time_zone("America/New_York").dt.hour() == 15
        ).then(10_000).otherwise(10),
    )  # fmt: skip
    report = check_bars(frame, weeks, ES, MINUTE_NS)
    assert report.counts["volumes"] == 0


def test_a_session_at_a_tenth_of_the_usual_volume() -> None:
    inside = CLEAN.with_columns(session=WEEKS.locate(CLEAN["ts_event"]))
    thin = inside.with_columns(
        volume=pl.when(pl.col("session") == 3).then(pl.col("volume") // 10).otherwise("volume")
    ).drop("session")
    report = check(thin)
    assert report.thin_sessions["trade_date"].to_list() == [date(2019, 11, 21)]
    assert any("2019-11-21" in warning for warning in report.warnings)


def test_one_price_a_hundred_times_off() -> None:
    report = check(changed(7, high=310_000.0))
    only(report, "prices")
    assert report.prices["row"].to_list() == [7]
    low = check(changed(7, low=31.0))
    assert low.prices["price"].to_list() == [31.0]


def test_a_file_whose_prices_are_all_a_hundred_times_too_large() -> None:
    prices = ["open", "high", "low", "close"]
    report = check(CLEAN.with_columns(pl.col(prices) * 100))
    assert report.errors == (
        "every price is a whole multiple of 100 ticks: prices look 100 times too large",
    )


def test_context_rows_are_not_checked() -> None:
    context = CLEAN[:50].with_columns(symbol=pl.lit("ESH0"), context=pl.lit(value=True))
    frame = pl.concat(
        [CLEAN[:2_000].with_columns(context=pl.lit(value=False)), context,
         CLEAN[2_000:].with_columns(context=pl.lit(value=False))]
    )  # fmt: skip
    only(check(frame))


def test_no_bar_and_missing_columns_are_refused() -> None:
    with pytest.raises(DataError):
        check(CLEAN.clear())
    with pytest.raises(DataError) as caught:
        check(CLEAN.drop("volume"))
    assert caught.value.column == "volume"


def test_anything_with_a_frame_is_checked() -> None:
    assert check_bars(SimpleNamespace(frame=CLEAN), WEEKS, ES, MINUTE_NS).ok


def test_the_report_as_plain_values() -> None:
    values = check(pl.concat([CLEAN[:11], CLEAN[10:]])).to_dict()
    text = json.loads(json.dumps(values, allow_nan=False))
    assert text["ok"] is False
    assert text["duplicates"][0]["row"] == 11
    assert text["sessions"][0]["trade_date"] == "2019-11-18"
    assert len(check(CLEAN).to_dict(rows=3)["sessions"]) == 3  # type: ignore[arg-type]


def test_five_real_years(data_dir: Path) -> None:
    bars = pl.read_parquet(data_dir / "bars/es_1m_2015_2019.parquet")
    report = check_bars(bars, ALL, ES, MINUTE_NS)
    assert report.ok
    assert (report.bar_count, report.session_count) == (1_740_009, 1_290)
    assert report.counts["empty_sessions"] == 0
    assert report.counts["outside"] == 26
    assert report.counts["halted"] == 12
    longest = report.gaps.sort("minutes", descending=True)
    assert longest.select("trade_date", "minutes", "place").row(0) == (
        date(2019, 2, 27),
        184.0,
        "inside",
    )
    assert report.counts["gaps"] == 32


def test_real_months_side_by_side(data_dir: Path) -> None:
    bars = pl.read_parquet(data_dir / "bars/es_5m_by_contract_2024-02_2025-06.parquet")
    report = check_bars(bars, ALL, ES, 5 * MINUTE_NS)
    assert report.ok
    assert report.gaps["place"].to_list() == ["whole"]
    assert report.gaps["trade_date"].to_list() == [date(2025, 6, 30)]
