"""Bad input of every kind: a typed error that says where, what was found, and what was expected.

Every case runs through the library, and again through the command line, which must end with 2, say
it in one line on standard error, and leave no file behind.
"""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import polars as pl
import pytest

import clustercore as cc
from clustercore._core import decode_dbn
from clustercore.cli import main

ROW = 700
"""The row that most cases damage: in the middle of the session, after enough good ones."""
MINUTE_NS = 60 * 10**9
UNDEF_PRICE = 2**63 - 1
SAMPLE = cc.sample(sessions=1, seed=11).frame.drop("context")
START_NS = int(SAMPLE["ts_event"].to_physical()[0])
"""The open of the sample's session: 2024-10-01 22:00 UTC."""

Change = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Case:
    """One kind of bad input and what the error must say of it."""

    name: str
    make: Callable[[Path], Path]
    problem: str
    row: int | None = None
    column: str | None = None
    found: str | None = None
    expected: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: type[Exception] = cc.DataError
    names_file: bool = True


def check(error: BaseException, case: Case, path: Path) -> None:
    """Compare an error with what the case wants of it; a text needs to contain what is wanted."""
    assert type(error) is case.error
    text = str(error)
    assert case.problem in text
    if case.names_file:
        assert Path(str(vars(error)["file"])).name == path.name
        assert path.name in text
    if case.row is not None:
        assert vars(error)["row"] == case.row
        assert f"row {case.row}" in text
    place = vars(error).get("column", vars(error).get("field"))
    if case.column is not None:
        assert place == case.column
        assert case.column in text
    for name in ("found", "expected"):
        wanted, value = getattr(case, name), vars(error)[name]
        if wanted is not None:
            assert value is not None
            assert wanted in value, f"{name}: {value}"
            assert value in text


# Rows ------------------------------------------------------------------------------------------


def parquet(change: Change) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "bars.parquet"
        change(SAMPLE).write_parquet(path)
        return path

    return make


def csv(change: Change) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "bars.csv"
        change(SAMPLE).write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.fZ")
        return path

    return make


def put(column: str, value: object, row: int = ROW) -> Change:
    """Return a change of one value, to another or by a function."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_list()
        values[row] = value(values[row]) if callable(value) else value
        dtype = frame.schema[column]
        return frame.with_columns(pl.Series(column, values, dtype=dtype))

    return change


def typed(column: str, dtype: pl.DataType, value: object) -> Change:
    """Return a change of a column's type, with one value put into it."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame.with_columns(pl.col(column).cast(dtype))[column].to_list()
        values[ROW] = value
        return frame.with_columns(pl.Series(column, values, dtype=dtype))

    return change


def moved(nanos: int) -> Change:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        shift = pl.when(pl.int_range(pl.len()) == ROW).then(nanos).otherwise(0)
        return frame.with_columns(ts_event=pl.col("ts_event") + pl.duration(nanoseconds=shift))

    return change


AROUND = pl.int_range(pl.len()) != ROW + 1
"""Leaves the row after the damaged one out, so that no spacing is shorter than a minute."""
HIGHEST = float(SAMPLE["high"][ROW])
LOWEST = float(SAMPLE["low"][ROW])
PRICES = ("open", "high", "low", "close")

ROWS = [
    *(
        Case(f"null {name}", parquet(put(name, None)), "missing", ROW, name, "null", dtype)
        for name, dtype in (
            ("ts_event", "Datetime"),
            *((price, "Float64") for price in PRICES),
            ("volume", "Int64"),
            ("symbol", "String"),
        )
    ),
    *(
        Case(f"NaN {name}", parquet(put(name, float("nan"))), "", ROW, name, "NaN", "a ")
        for name in PRICES
    ),
    Case("infinite high", parquet(put("high", float("inf"))), "", ROW, "high", "inf", "a "),
    Case("infinite low", parquet(put("low", float("-inf"))), "", ROW, "low", "-inf", "a "),
    Case("zero price", parquet(put("low", 0.0)), "price not allowed", ROW, "low", "0", "above 0"),
    Case("negative price", parquet(put("open", -5.0)), "not allowed", ROW, "open", "-5", "above 0"),
    Case("huge price", parquet(put("high", 4e9)), "too large", ROW, "high", "4000000000", "below"),
    Case("price beyond int64", parquet(put("high", 1e12)), "", ROW, "high", "1000000000000", "a "),
    Case(
        "high below open",
        parquet(put("high", LOWEST - 1.0)),
        "high below",
        ROW,
        "high",
        f"{LOWEST - 1.0:g}",
        "at least",
    ),
    Case(
        "low above close",
        parquet(put("low", HIGHEST + 1.0)),
        "low above",
        ROW,
        "low",
        f"{HIGHEST + 1.0:g}",
        "at most",
    ),
    Case(
        "close above high",
        parquet(put("close", HIGHEST + 2.0)),
        "high below",
        ROW,
        "high",
        f"{HIGHEST:g}",
        f"at least {HIGHEST + 2.0:g}",
    ),
    Case(
        "open below low",
        parquet(put("open", LOWEST - 2.0)),
        "low above",
        ROW,
        "low",
        f"{LOWEST:g}",
        f"at most {LOWEST - 2.0:g}",
    ),
    Case(
        "high off the tick grid",
        parquet(put("high", HIGHEST + 0.1)),
        "off the tick grid",
        ROW,
        "high",
        f"{HIGHEST + 0.1:g}",
        "multiple of 0.25, or instrument.check_tick",
    ),
    Case(
        "low off the tick grid",
        parquet(put("low", LOWEST - 0.1)),
        "off the tick grid",
        ROW,
        "low",
        f"{LOWEST - 0.1:g}",
        "multiple of 0.25, or instrument.check_tick",
    ),
    Case(
        "negative volume",
        parquet(put("volume", -3)),
        "negative volume",
        ROW,
        "volume",
        "-3",
        "0 or more",
    ),
    Case(
        "fractional volume",
        parquet(typed("volume", pl.Float64(), 10.5)),
        "whole number",
        ROW,
        "volume",
        "10.5",
        "contracts",
    ),
    Case(
        "NaN volume",
        parquet(typed("volume", pl.Float64(), float("nan"))),
        "",
        ROW,
        "volume",
        "nan",
        "contracts",
    ),
    Case(
        "huge volume",
        parquet(put("volume", 2**62)),
        "too large",
        ROW,
        "volume",
        str(2**62),
        "below",
    ),
    Case("same time twice", parquet(moved(-MINUTE_NS)), "", ROW, "ts_event", "", "after"),
    Case("time goes back", parquet(moved(-10 * MINUTE_NS)), "", ROW, "ts_event", "", "after"),
    Case(
        "between two bars",
        parquet(moved(-30 * 10**9)),
        "not the usual",
        ROW,
        "ts_event",
        "bars 30s apart, most are 1m apart",
        "no shorter step",
    ),
    Case(
        "off the grid",
        parquet(lambda frame: moved(30 * 10**9)(frame).filter(AROUND)),
        "not on the grid",
        ROW,
        "ts_event",
        ":30",
        "multiple of 1m",
    ),
    Case(
        "text as a price",
        csv(typed("close", pl.String(), "n/a")),
        "no such number",
        ROW,
        "close",
        "'n/a'",
        "a number",
    ),
    Case(
        "text as a volume",
        csv(typed("volume", pl.String(), "many")),
        "no such number",
        ROW,
        "volume",
        "'many'",
        "whole number",
    ),
    Case(
        "text as a time",
        csv(typed("ts_event", pl.String(), "noon")),
        "",
        ROW,
        "ts_event",
        "'noon'",
        "ISO 8601",
    ),
    Case("empty field", csv(put("close", None)), "missing", ROW, "close", "null", "Float64"),
    Case(
        "prices of another type",
        parquet(lambda frame: frame.with_columns(open=pl.lit(value=True))),
        "another type",
        None,
        "open",
        "Boolean",
        "a number",
    ),
    Case(
        "lists as volumes",
        parquet(lambda frame: frame.with_columns(volume=pl.lit([1, 2]))),
        "another type",
        None,
        "volume",
        "List",
        "contracts",
    ),
    Case(
        "times of another type",
        parquet(lambda frame: frame.with_columns(ts_event=pl.lit(value=True))),
        "no time",
        None,
        "ts_event",
        "Boolean",
        "datetime",
    ),
    Case(
        "a column is missing",
        parquet(lambda frame: frame.drop("volume")),
        "missing",
        None,
        "volume",
        "ts_event, open",
        "volume",
    ),
]


# Whole files -----------------------------------------------------------------------------------


def content(name: str, data: bytes | str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return make


def dbn_header(schema: int = 6, version: int = 3) -> bytes:
    """Return a header of version 3 without symbol mappings; 6 is ohlcv-1m."""
    body = b"GLBX.MDP3".ljust(16, b"\0") + struct.pack("<HQQQ", schema, 0, 2**64 - 1, 0)
    body += bytes([2, 0, 0]) + struct.pack("<H", 71)
    body = body.ljust(100, b"\0") + bytes(4) + bytes(16)
    return b"DBN" + bytes([version]) + struct.pack("<I", len(body)) + body


def dbn_bar(
    minute: int,
    prices: tuple[int, int, int, int] = (5000, 5001, 4999, 5000),
    volume: int = 10,
    rtype: int = 33,
) -> bytes:
    """Return an ohlcv-1m record; prices of up to 1,000,000 are points."""
    nanos = [price * 10**9 if abs(price) < 10**6 else price for price in prices]
    start = START_NS + minute * MINUTE_NS
    return struct.pack("<BBHIQqqqqQ", 14, rtype, 1, 7, start, *nanos, volume)


def dbn(*records: bytes, schema: int = 6) -> bytes:
    return dbn_header(schema) + b"".join(records)


def zstd(data: bytes) -> bytes:
    """Return a zstd frame of stored blocks: no compressor is needed to make one."""
    blocks = [data[place : place + 1000] for place in range(0, len(data), 1000)]
    last = len(blocks) - 1
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    for number, block in enumerate(blocks):
        frame += struct.pack("<I", (number == last) | len(block) << 3)[:3] + block
    return frame


BARS = [dbn_bar(minute) for minute in range(200)]
GOOD = dbn(*BARS)
PACKED = zstd(GOOD)
ES = {"symbol": "ESZ4"}
HEADER = "ts_event,open,high,low,close,volume\n"
LINE = "2024-10-02T14:{minute:02d}:00Z,5000,5001,4999,5000,10\n"
LINES = HEADER + "".join(LINE.format(minute=minute) for minute in range(60))


def flipped(data: bytes, place: int, value: int = 0xFF) -> bytes:
    return data[:place] + bytes([data[place] ^ value]) + data[place + 1 :]


def damaged_parquet(folder: Path) -> Path:
    path = parquet(lambda frame: frame)(folder)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def folder_as_file(folder: Path) -> Path:
    path = folder / "folder.csv"
    path.mkdir()
    return path


FILES = [
    Case(
        "missing path",
        lambda folder: folder / "nowhere.dbn.zst",
        "cannot be read",
        expected="exists and may be read",
    ),
    Case(
        "path through a file",
        lambda folder: content("file", "x")(folder) / "bars.csv",
        "cannot be read",
        expected="exists",
    ),
    Case("directory", folder_as_file, "directory", found="a directory", expected="a file"),
    Case("empty file", content("bars.parquet", b""), "empty", found="0 bytes", expected="bars"),
    Case("empty DBN file", content("bars.dbn", b""), "empty", found="0 bytes"),
    Case(
        "PNG",
        content("chart.png", b"\x89PNG\r\n\x1a\n" * 20),
        "another kind",
        found="PNG",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "JPEG",
        content("chart.jpg", b"\xff\xd8\xff\xe0" * 20),
        "another kind",
        found="JPEG",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "PDF",
        content("paper.pdf", b"%PDF-1.7\n" * 20),
        "another kind",
        found="PDF",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "ZIP",
        content("bars.zip", b"PK\x03\x04" * 20),
        "another kind",
        found="ZIP",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "database",
        content("bars.db", b"SQLite format 3\0" * 20),
        "another kind",
        found="SQLite",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "program",
        content("bars", b"\x7fELF\x02\x01\x01\0" * 20),
        "another kind",
        found="binary data",
        expected="DBN, Parquet or CSV",
    ),
    Case(
        "HTML",
        content("bars.csv", "<!DOCTYPE html>\n<html><body>404, gone</body></html>\n"),
        "",
        expected="",
    ),
    Case(
        "a note",
        content("bars.csv", "no bars today\n"),
        "columns are missing",
        found="no bars today",
        expected="ts_event open high low close volume",
    ),
    Case(
        "PNG called DBN",
        content("bars.dbn", b"\x89PNG\r\n\x1a\n" * 20),
        "not a DBN file",
        found="PNG",
        expected='starts with "DBN"',
    ),
    Case("header line only", content("bars.csv", HEADER), "", found="", options=ES),
    Case(
        "ragged lines",
        content("bars.csv", LINES + "1,2,3,4,5,6,7,8,9\n"),
        "no table",
        expected="same number of fields",
        options=ES,
    ),
    Case(
        "damaged Parquet", damaged_parquet, "Parquet file is damaged", expected="complete Parquet"
    ),
    Case(
        "damaged gzip", content("bars.csv.gz", gzip.compress(LINES.encode())[:40]), "", options=ES
    ),
    Case(
        "zstd of text that is cut",
        content("bars.csv.zst", zstd(LINES.encode())[:300]),
        "",
        options=ES,
    ),
    Case(
        "no symbol",
        content("bars.csv", LINES),
        "names no symbol",
        column="symbol",
        found="no symbol column",
        expected="ESZ5",
        options={"interval": "1m"},
    ),
    Case(
        "unknown symbol",
        content("bars.csv", LINES),
        "no built-in instrument",
        column="symbol",
        found="FDAXZ4",
        expected="a symbol of",
        options={"symbol": "FDAXZ4", "interval": "1m"},
    ),
    Case(
        "symbol that is not there",
        parquet(lambda frame: frame),
        "nothing of this symbol",
        column="symbol",
        found="ES.SIMULATED",
        expected="NQZ4",
        options={"symbol": "NQZ4"},
    ),
    Case(
        "several months refused",
        parquet(
            lambda frame: pl.concat(
                [frame.with_columns(symbol=pl.lit(name)) for name in ("ESZ4", "ESH5")]
            )
        ),
        "several contract months",
        column="symbol",
        found="ESZ4, ESH5",
        expected="one symbol",
        options={"roll": None},
    ),
    Case(
        "several products",
        parquet(
            lambda frame: pl.concat(
                [frame.with_columns(symbol=pl.lit(name)) for name in ("ESZ4", "NQZ4")]
            )
        ),
        "several products",
        column="symbol",
        found="ES, NQ",
        expected='symbol="ES"',
    ),
    Case(
        "spreads only",
        parquet(lambda frame: frame.with_columns(symbol=pl.lit("ESZ4-ESH5"))),
        "spreads only",
        column="symbol",
        found="ESZ4-ESH5",
        expected="outright",
    ),
    Case(
        "too few bars",
        content("bars.csv", LINES),
        "too few",
        column="ts_event",
        found="60 bars",
        expected="interval=",
        options=ES,
    ),
    Case(
        "no zone",
        csv(
            lambda frame: frame.with_columns(
                ts_event=pl.col("ts_event").dt.replace_time_zone(None).dt.strftime("%Y-%m-%d %H:%M")
            )
        ),
        "no time zone",
        0,
        "ts_event",
        "2024-10-01 22:00",
        "tz=",
    ),
    Case(
        "no label",
        parquet(lambda frame: frame.rename({"ts_event": "time"})),
        "look-ahead",
        column="ts_event",
        found="no label",
        expected="label=",
    ),
    Case(
        "wrong interval",
        parquet(lambda frame: frame),
        "look-ahead",
        1,
        "ts_event",
        "bars 1m apart",
        'interval="5m"',
        options={"interval": "5m"},
    ),
    Case(
        "nothing in the span",
        parquet(lambda frame: frame),
        "no bar is left",
        found="left",
        options={"start": "2030-01-01"},
    ),
    Case(
        "outside every session",
        parquet(lambda frame: frame.with_columns(ts_event=pl.col("ts_event").dt.offset_by("4d"))),
        "outside every session",
        column="ts_event",
        found="of 1380",
        expected="5 %",
    ),
    Case(
        "DBN cut in its header",
        content("bars.dbn", GOOD[:60]),
        "header",
        found="bytes",
        expected="bytes",
    ),
    Case(
        "DBN cut in a record",
        content("bars.dbn", GOOD[:-10]),
        "cut off inside a record",
        199,
        None,
        "46 bytes",
        "56 bytes",
    ),
    Case(
        "DBN of a later version",
        content("bars.dbn", flipped(GOOD, 3, 0x0A)),
        "version",
        found="version 9",
        expected="1, 2 or 3",
    ),
    Case(
        "DBN with a damaged header",
        content("bars.dbn", flipped(GOOD, 5)),
        "",
        found="",
        expected="",
    ),
    Case(
        "DBN record of another length",
        content("bars.dbn", dbn(*BARS[:5], b"\0" + BARS[5][1:])),
        "length",
        5,
        "length",
        "0 bytes",
        "bytes",
    ),
    Case(
        "DBN record of no type",
        content("bars.dbn", dbn(*BARS[:5], dbn_bar(5, rtype=0x99))),
        "unknown record type",
        5,
        "rtype",
        "0x99",
        "DBN 1 to 3",
    ),
    Case(
        "DBN with an undefined price",
        content("bars.dbn", dbn(*BARS[:5], dbn_bar(5, (UNDEF_PRICE, 5001, 4999, 5000)))),
        "undefined",
        5,
        "open",
        "UNDEF_PRICE",
        "",
        options=ES,
    ),
    Case(
        "DBN with an incoherent bar",
        content("bars.dbn", dbn(*BARS[:5], dbn_bar(5, (5000, 4990, 4999, 5000)))),
        "high below",
        5,
        "high",
        "4990",
        "at least 5000",
        options=ES,
    ),
    Case(
        "DBN whose bars repeat",
        content("bars.dbn", dbn(*BARS[:5], BARS[4])),
        "not after",
        5,
        "ts_event",
        "",
        "after",
        options=ES,
    ),
    Case(
        "DBN without records",
        content("bars.dbn", dbn()),
        "no bars and no trades",
        found="0 records",
        expected="ohlcv-1m",
        options=ES,
    ),
    Case(
        "DBN of another schema",
        content("bars.dbn", dbn(schema=9)),
        "no bars and no trades",
        found="definition",
        expected="ohlcv-1m",
        options=ES,
    ),
    Case("DBN without its header", content("bars.dbn", b"".join(BARS)), "fragment", options=ES),
    Case("DBZ", content("bars.dbz", b"\x51\x2a\x4d\x18\x08\0\0\0DBZ\x01" + bytes(60)), "DBZ"),
    Case(
        "zstd cut in a block",
        content("bars.dbn.zst", PACKED[:-100]),
        "cut off",
        found="whole records",
        expected="complete zstd",
        options=ES,
    ),
    Case("zstd cut in its header", content("bars.dbn.zst", PACKED[:5]), ""),
    Case(
        "zstd with a damaged block",
        content("bars.dbn.zst", flipped(PACKED, 9 + 1003, 0x06)),
        "damaged",
        found="whole records",
        expected="complete zstd",
        options=ES,
    ),
    Case(
        "zstd of something else",
        content("bars.dbn.zst", zstd(b"hello " * 100)),
        "not a DBN file",
        found="hello",
        expected='starts with "DBN"',
        options=ES,
    ),
    Case(
        "DBN told another interval",
        content("bars.dbn", GOOD),
        "no bars of this interval",
        column="rtype",
        found="ohlcv-1m",
        expected="5m",
        options={**ES, "interval": "5m"},
    ),
    Case(
        "DBN told another label",
        content("bars.dbn", GOOD),
        "start of a bar",
        column="ts_event",
        found='label="end"',
        expected='label="start"',
        options={**ES, "label": "end"},
    ),
]

# Arguments and settings ------------------------------------------------------------------------

good = parquet(lambda frame: frame)

ARGUMENTS = [
    Case(
        f"{name} {value!r}",
        good,
        problem,
        column=name,
        found=str(value),
        expected=expected,
        options={name: value},
        error=cc.ConfigError,
        names_file=False,
    )
    for name, value, problem, expected in (
        ("interval", "fortnight", "divides a day", "1m"),
        ("interval", "0m", "divides a day", "1m"),
        ("interval", "7m", "divides a day", "1m"),
        ("interval", "-1m", "divides a day", "1m"),
        ("label", "middle", "no such label", "start or end"),
        ("tz", "Mars/Olympus", "no such time zone", "America/New_York"),
        ("start", "yesterday", "no time", "ISO 8601"),
        ("end", "2024-13-01", "no time", "ISO 8601"),
        ("instrument", "DAX", "no built-in instrument", "one of"),
    )
]

SETTINGS = [
    Case(
        f"{name} {value!r}",
        good,
        problem,
        column=name,
        found=found,
        expected=expected,
        settings={name: value},
        error=cc.ConfigError,
        names_file=False,
    )
    for name, value, problem, found, expected in (
        ("cluster.treshold", 3.0, "unknown setting", "cluster.treshold", "threshold"),
        ("cluster.threshold", -1.0, "not an allowed value", "-1", "0 to"),
        ("cluster.threshold", float("nan"), "not an allowed value", "NaN", "0 to"),
        ("cluster.threshold", float("inf"), "not an allowed value", "inf", "0 to"),
        ("cluster.threshold", "much", "not an allowed value", "much", "a number"),
        ("cluster.minutes", 0, "not an allowed value", "0", "1 to"),
        ("cluster.minutes", 15.5, "not an allowed value", "15.5", "whole number"),
        ("cluster.frame", "tumbling", "not an allowed value", "tumbling", "aligned, sliding"),
        ("signal.shorts", 1, "not an allowed value", "1", "true or false"),
        ("signal.long_threshold", 1.5, "not an allowed value", "1.5", "to 1"),
        ("retest.tolerance", "3 pints", "not an allowed value", "3 pints", "2 ticks"),
        ("retest.tolerance", "-1 ticks", "not an allowed value", "-1 ticks", "2 ticks"),
        (
            "exit.scale_out",
            [{"fraction": 2.0, "reward": 1.0}],
            "not an allowed value",
            "list",
            "at most 1",
        ),
        (
            "exit.scale_out",
            [{"fraction": 0.7, "reward": 1.0}, {"fraction": 0.7, "reward": 2.0}],
            "not an allowed value",
            "list",
            "at most 1 together",
        ),
        ("risk.max_drawdown_pct", 250.0, "not an allowed value", "250", "100"),
        ("session.day", "lunar", "not an allowed value", "lunar", "globex, utc"),
        ("profile.end_minute", -5, "contradicts", "-5", "more than 0"),
        ("momentum.end_minute", -40, "contradicts", "-40", "more than -30"),
        ("session.hours", ["9-"], "not an interval", "9-", "09:30-16:00 America/New_York"),
        ("session.hours", ["09:30-16:00"], "not an interval", "09:30-16:00", "Zone"),
        ("session.hours", ["25:00-26:00 UTC"], "", "25:00-26:00 UTC", ""),
        (
            "session.hours",
            ["09:30-16:00 Mars/Olympus"],
            "no such time zone",
            "Mars/Olympus",
            "America/New_York",
        ),
    )
]
CASES = [*ROWS, *FILES, *ARGUMENTS, *SETTINGS]


def test_there_are_enough_cases() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_library_refuses(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    with pytest.raises((cc.DataError, cc.ConfigError)) as caught:
        cc.backtest(cc.read_bars(path, **case.options), cc.Config.preset().override(case.settings))
    check(caught.value, case, path)


def nothing_but(folder: Path, before: set[Path]) -> bool:
    return set(folder.rglob("*")) == before


def flags_of(case: Case) -> list[str]:
    names = {"start": "from", "end": "to"}
    flags = [
        f"--{names.get(name, name)}={'none' if value is None else value}"
        for name, value in case.options.items()
    ]
    for name, value in case.settings.items():
        flags += ["--set", f"{name}={as_toml(value)}"]
    return flags


def as_toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(as_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {as_toml(item)}' for name, item in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_command_line_refuses(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = case.make(tmp_path)
    before = set(tmp_path.rglob("*"))
    code = main(["backtest", str(path), "--out", str(tmp_path / "results"), *flags_of(case)])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert nothing_but(tmp_path, before)
    said = [] if case.row is None else [f"row {case.row}"]
    if case.names_file:
        said.append(path.name)
    for text in (case.column, case.found):
        # The message speaks of options where the library speaks of arguments.
        said += [text] if text and "=" not in text else []
    for text in said:
        shown = {"start": "--from", "end": "--to"}.get(text, text)
        assert shown in captured.err


# The engine ------------------------------------------------------------------------------------

Step = tuple[int, int, int, int, int, int]
STEPS: list[Step] = [
    (int(row[0]), *(round(price * 1e9) for price in row[1:5]), int(row[5]))
    for row in SAMPLE.with_columns(pl.col("ts_event").to_physical())
    .select("ts_event", *PRICES, "volume")
    .head(ROW + 2)
    .iter_rows()
]
TIME, OPEN, HIGH, LOW, CLOSE, VOLUME = range(6)


def stepped(place: int, change: Callable[[int], int]) -> Step:
    bar = list(STEPS[ROW])
    bar[place] = change(bar[place])
    return tuple(bar)  # type: ignore[return-value]


BAD_STEPS = [
    ("undefined open", stepped(OPEN, lambda _: UNDEF_PRICE), "open", "UNDEF_PRICE", "a price"),
    ("zero low", stepped(LOW, lambda _: 0), "low", "0", "above 0"),
    ("negative close", stepped(CLOSE, lambda _: -5 * 10**9), "close", "-5", "above 0"),
    ("lowest close", stepped(CLOSE, lambda _: -(2**63)), "close", "-9223372036.85", "above 0"),
    ("huge high", stepped(HIGH, lambda _: 2**63 - 2), "high", "9223372036.85", "below"),
    ("high too low", stepped(HIGH, lambda _: STEPS[ROW][LOW] - 10**9), "high", ".", "at least"),
    ("low too high", stepped(LOW, lambda _: STEPS[ROW][HIGH] + 10**9), "low", "50", "at most"),
    ("off tick", stepped(HIGH, lambda price: price + 1), "high", ".", "multiple of 0.25"),
    ("too wide", stepped(HIGH, lambda price: price + 10**6 * 10**9), "high", "", ""),
    ("negative volume", stepped(VOLUME, lambda _: -1), "volume", "-1", "0 or more"),
    ("huge volume", stepped(VOLUME, lambda _: 2**62), "volume", str(2**62), "below"),
    (
        "off the grid",
        stepped(TIME, lambda ns: ns + 1),
        "ts_event",
        " ns",
        "multiple of 60000000000",
    ),
    ("same time", stepped(TIME, lambda ns: ns - MINUTE_NS), "ts_event", " ns", "after"),
    ("time goes back", stepped(TIME, lambda ns: ns - 60 * MINUTE_NS), "ts_event", " ns", "after"),
]


@pytest.mark.parametrize(
    ("bar", "column", "found", "expected"),
    [case[1:] for case in BAD_STEPS],
    ids=[case[0] for case in BAD_STEPS],
)
def test_step_refuses_a_bar_and_is_as_it_was(
    bar: Step, column: str, found: str, expected: str
) -> None:
    engine = cc.Engine(cc.Config.preset("new-algo"), "ES")
    twin = cc.Engine(cc.Config.preset("new-algo"), "ES")
    for good_bar in STEPS[:ROW]:
        engine.step(*good_bar, symbol="ESZ4")
        twin.step(*good_bar, symbol="ESZ4")
    with pytest.raises(cc.DataError) as caught:
        engine.step(*bar)
    assert caught.value.column == column
    assert caught.value.row == 0
    assert found in str(caught.value.found)
    assert expected in str(caught.value.expected)
    assert engine.counts() == twin.counts()
    for good_bar in STEPS[ROW:]:
        assert engine.step(*good_bar) == twin.step(*good_bar)


def bars_of(frame: pl.DataFrame) -> cc.Bars:
    return cc.Bars.from_frame(frame, interval="1m", instrument="ES")


def test_two_symbols_in_one_session_are_refused_and_the_engine_is_as_it_was() -> None:
    mixed = SAMPLE.with_columns(
        symbol=pl.when(pl.int_range(pl.len()) < ROW).then(pl.lit("ESZ4")).otherwise(pl.lit("ESH5"))
    )
    engine = cc.Engine(cc.Config.preset(), "ES")
    with pytest.raises(cc.DataError) as caught:
        engine.run(bars_of(mixed))
    assert caught.value.row == ROW
    assert caught.value.column == "symbol"
    assert "ESH5" in str(caught.value.found)
    assert "ESZ4" in str(caught.value.expected)
    assert engine.counts()["bars"] == 0
    with pytest.raises(cc.DataError, match="DataFrame, row 700"):
        cc.backtest(bars_of(mixed))


def test_rows_are_those_of_the_file_after_rows_were_removed(tmp_path: Path) -> None:
    frame = put("high", 1.0)(SAMPLE)
    frame = frame.with_columns(
        volume=pl.when(pl.int_range(pl.len()) < 5).then(0).otherwise("volume")
    )
    path = tmp_path / "bars.parquet"
    frame.write_parquet(path)
    for start in (None, "2024-10-02"):
        bars = cc.read_bars(path, start=start)
        assert len(bars) < frame.height
        with pytest.raises(cc.DataError) as caught:
            cc.backtest(bars)
        assert caught.value.row == ROW


def test_rows_of_a_file_of_several_months_are_those_of_the_file(tmp_path: Path) -> None:
    from clustercore.sample import sample_parent

    frame = sample_parent(sessions=8, start="2024-12-10")
    row = frame.with_row_index().filter(pl.col("symbol") == "ESZ4")["index"][4000]
    path = tmp_path / "bars.parquet"
    put("high", 1.0, row)(frame).write_parquet(path)
    with pytest.raises(cc.DataError) as caught:
        cc.backtest(cc.read_bars(path, label="start"))
    assert caught.value.row == row


def test_a_window_shorter_than_a_bar_is_refused() -> None:
    config = cc.Config.preset().override({"cluster.minutes": 4})
    with pytest.raises(cc.ConfigError) as caught:
        cc.Engine(config, "ES", interval="5m")
    assert caught.value.field == "cluster.minutes"
    assert "4" in str(caught.value.found)
    assert "300000000000 ns" in str(caught.value.found)
    assert caught.value.expected == "at least one bar"
    cc.Engine(config, "ES", interval="2m")


def test_bars_of_another_interval_are_refused() -> None:
    with pytest.raises(cc.ConfigError) as caught:
        cc.Engine(cc.Config.preset(), "ES", interval="5m").run(bars_of(SAMPLE))
    assert caught.value.field == "interval"
    assert caught.value.found == f"{MINUTE_NS} ns"


@pytest.mark.parametrize(
    ("change", "column", "found"),
    [
        (lambda frame: frame.with_columns(pl.col("volume").cast(pl.Float64)), "volume", "Float64"),
        (lambda frame: frame.with_columns(pl.col("open").cast(pl.Int64)), "open", "Int64"),
        (
            lambda frame: frame.with_columns(pl.col("ts_event").dt.cast_time_unit("us")),
            "ts_event",
            "us",
        ),
        (
            lambda frame: frame.with_columns(pl.col("ts_event").dt.replace_time_zone(None)),
            "ts_event",
            "None",
        ),
        (
            lambda frame: frame.with_columns(pl.col("symbol").cast(pl.Categorical)),
            "symbol",
            "Categorical",
        ),
        (lambda frame: frame.drop("low"), "low", "open"),
    ],
)
def test_bars_of_other_types_are_refused(change: Change, column: str, found: str) -> None:
    with pytest.raises(cc.DataError) as caught:
        bars_of(change(SAMPLE))
    assert caught.value.column == column
    assert found in str(caught.value.found)
    assert column in str(caught.value.expected) or str(caught.value.expected)


# Session tables --------------------------------------------------------------------------------

DAY_NS = 86_400 * 10**9
TABLE = pl.DataFrame(
    {
        "open": [START_NS + day * DAY_NS for day in range(5)],
        "close": [START_NS + day * DAY_NS + 23 * 60 * MINUTE_NS for day in range(5)],
    }
)


@pytest.mark.parametrize(
    ("change", "row", "column", "problem"),
    [
        (lambda table: table.drop("close"), None, "close", ""),
        (put("open", None, 2), 2, "open", "needs this value"),
        (put("close", START_NS, 2), 2, "close", "close after it opens"),
        (put("close", START_NS + 4 * DAY_NS, 2), 3, "open", "must not overlap"),
        (lambda table: table.reverse(), 1, "open", "ascending"),
        (
            lambda table: table.with_columns(
                trade_date=pl.Series([date(2024, 10, day) for day in (2, 3, 1, 5, 6)])
            ),
            2,
            "trade_date",
            "must not go back",
        ),
        (lambda table: table.with_columns(open=pl.lit("noon")), None, "open", ""),
        (lambda table: table.with_columns(trade_date=pl.lit("today")), None, "trade_date", ""),
        (lambda table: table.with_columns(halts=pl.lit(3)), None, "halts", ""),
    ],
)
def test_bad_session_tables(change: Change, row: int | None, column: str, problem: str) -> None:
    cc.Sessions.from_frame(TABLE)
    with pytest.raises(cc.DataError) as caught:
        cc.Sessions.from_frame(change(TABLE))
    assert problem in caught.value.problem
    assert caught.value.row == row
    assert caught.value.column == column


@pytest.mark.parametrize(
    "hours",
    [
        "",
        "9-",
        "09:30 16:00 UTC",
        "09:30-09:30 UTC",
        "24:30-25:00 UTC",
        "09:30-16:00",
        "09:30-16:00 Nowhere/Town",
        "a-b UTC",
    ],
)
def test_bad_hours(hours: str) -> None:
    with pytest.raises(cc.ConfigError) as caught:
        cc.load_sessions(hours=[hours])
    assert caught.value.field == "session.hours"
    assert str(caught.value.found).strip("'") in hours
    assert caught.value.expected


@pytest.mark.parametrize(
    ("open_ns", "close_ns", "column"),
    [
        (0, 2**63 - 1, "close"),
        (-(2**63), 0, "open"),
        (-(2**63), 2**63 - 1, "open"),
        (2**63 - 10, 2**63 - 2, "open"),
        (0, 8 * DAY_NS, "close"),
    ],
)
def test_sessions_beyond_every_calendar(open_ns: int, close_ns: int, column: str) -> None:
    sessions = cc.Sessions.from_frame(pl.DataFrame({"open": [open_ns], "close": [close_ns]}))
    with pytest.raises(cc.DataError, match="out of range") as caught:
        cc.Engine(cc.Config.preset(), "ES", sessions)
    assert caught.value.column == column
    assert caught.value.row == 0


def test_bad_calendar_and_day() -> None:
    with pytest.raises(cc.ConfigError, match="no such calendar"):
        cc.load_sessions("lunar")
    with pytest.raises(cc.ConfigError, match="lunar"):
        cc.load_sessions(day="lunar")  # type: ignore[arg-type]


def test_sessions_that_overlap_what_is_known_are_refused() -> None:
    sessions = cc.Sessions.from_frame(TABLE)
    engine = cc.Engine(cc.Config.preset(), "ES", sessions)
    shifted = TABLE.with_columns(pl.all() + 4 * DAY_NS + 60 * MINUTE_NS)
    with pytest.raises(cc.DataError):
        engine.extend_sessions(cc.Sessions.from_frame(shifted))
    engine.extend_sessions(cc.Sessions.from_frame(TABLE.with_columns(pl.all() + 5 * DAY_NS)))


# Settings files and the command line -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field_name", "words"),
    [
        ("[cluster\nthreshold = 3", None, "not a TOML file"),
        ("[cluster]\nthreshold = 3\nthreshold = 4", None, "not a TOML file"),
        ("[cluster]\ntreshold = 3", "cluster.treshold", "did you mean cluster.threshold?"),
        ("[klaster]\nthreshold = 3", "klaster", "unknown section"),
        ("threshold = 3", "threshold", "did you mean cluster.threshold?"),
        ("[cluster]\nthreshold = -3", "cluster.threshold", "expected 0 to"),
        ('preset = "v66"', "preset", "did you mean v6?"),
        ("preset = 7", "preset", "expected a text"),
        ("[[cluster]]\nthreshold = 3", "cluster", "a section"),
        ("[session]\nhours = '09:30-16:00 UTC'", "session.hours", "list of texts"),
        ("[session]\nhours = ['9-']", "session.hours", "09:30-16:00 America/New_York"),
        ("[profile]\nstart_minute = 5\nend_minute = 5", "profile.end_minute", "more than 5"),
        ("[cluster]\nthreshold = 2024-01-01", "cluster.threshold", ""),
        ("\ufeff\x00", None, "not a TOML file"),
    ],
)
def test_bad_settings_files(
    text: str,
    field_name: str | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    for command in (["config", "validate", str(path)], ["backtest", "--config", str(path)]):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert words in captured.err
        assert field_name is None or field_name in captured.err


@pytest.mark.parametrize("name", ["nowhere.toml", "folder", "latin.toml"])
def test_settings_files_that_cannot_be_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    assert main(["config", "validate", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


USAGE = [
    ([], "backtst", "Did you mean"),
    (["backtest", "--prset", "v6"], "--prset", "Did you mean --preset"),
    (["backtest", "--preset"], "--preset", "requires an argument"),
    (["backtest", "--preset", "v66"], "v66", "did you mean v6?"),
    (["backtest", "--set", "cluster.threshold"], "cluster.threshold", "section.setting=value"),
    (["backtest", "--set", "cluster.treshold=3"], "treshold", "did you mean cluster.threshold?"),
    (["backtest", "--set", "threshold=3"], "threshold", "did you mean cluster.threshold?"),
    (["backtest", "--set", "cluster.threshold=-3"], "-3", "0 to"),
    (["backtest", "--preset", "v6", "--config", "mine.toml"], "--preset", "pass one"),
    (
        ["backtest", "bars.csv", "--from", "2024-02-01", "--to", "2024-01-01"],
        "2024-02-01",
        "before",
    ),
    (["backtest", "bars.csv", "--from", "soon"], "'soon'", "ISO 8601"),
    (["backtest", "--symbol", "ESZ5"], "--symbol", "a FILE"),
    (["backtest", "--label", "end"], "--label", "a FILE"),
    (["backtest", "--instrument", "MMES"], "MMES", "did you mean MES?"),
    (["backtest", "bars.csv", "--roll", "monthly"], "'monthly'", "session, week or none"),
    (["backtest", "bars.csv", "--column", "volume"], "'volume'", "volume=contracts"),
    (["backtest", "one.csv", "two.csv"], "two.csv", ""),
    (["backtest", "--json=perhaps"], "perhaps", ""),
    (["clusters", "--out", "clusters.xlsx"], "clusters.xlsx", ".parquet or .csv"),
    (["clusters", "--limit", "-1"], "-1", "0 or more"),
    (["clusters", "--limit", "few"], "few", "int"),
    (["data", "check"], "check", "requires"),
    (["data", "check", "bars.csv", "--gap-minutes", "nan"], "nan", "0 or more"),
    (["data", "convert", "bars.csv"], "--out", "requires"),
    (["data", "sessions", "--from", "2090-01-01"], "2090-01-01", "trading day"),
    (["data", "sessions", "--calendar", "lunar"], "lunar", "globex_equity"),
    (["data", "contracts", "nowhere.parquet"], "nowhere.parquet", "exists"),
    (["config", "sho"], "sho", "show"),
    (["sample"], "--out", "requires"),
    (["sample", "--out", "sample.json"], "sample.json", ".parquet or .csv"),
    (["sample", "--out", "sample.csv", "--sessions", "0"], "0", "1 to"),
    (["sample", "--out", "sample.csv", "--interval", "7m"], "7m", "1m"),
    (["sample", "--out", "sample.csv", "--from", "2090-01-01"], "sessions", "2090-01-01"),
]


@pytest.mark.parametrize(("arguments", "named", "words"), USAGE, ids=lambda value: str(value)[:60])
def test_bad_usage(
    arguments: list[str],
    named: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments or ["backtst"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert named in captured.err
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = good(tmp_path)

    def refuse(self: Path, *_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    # The superuser may read everything, so that taking the permission away proves nothing there.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(cc.DataError, match="Permission denied"):
        cc.read_bars(path)
    assert main(["backtest", str(path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "folder with other files"])
def test_places_that_hold_something_else(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if place == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = set(tmp_path.rglob("*"))
    assert main(["backtest", "--out", str(out)]) == 2
    assert "out" in capsys.readouterr().err
    assert nothing_but(tmp_path, before)


# Random input ----------------------------------------------------------------------------------

MANY = hypothesis.settings(max_examples=400)


def typed_errors_only(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        decode_dbn(path)
    except cc.DataError as error:
        return "refused" if error.file == str(path) else "without a name"
    return "read"


def test_random_damage_to_dbn_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.dbn"
    seen = {"read": 0, "refused": 0}

    @MANY
    @hypothesis.given(
        st.sampled_from([GOOD, GOOD[:600], PACKED, PACKED[:600]]),
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "insert", "repeat"]),
                st.floats(0, 1),
                st.binary(min_size=1, max_size=9),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def run(data: bytes, damages: list[tuple[str, float, bytes]]) -> None:
        for kind, share, extra in damages:
            place = min(int(share * len(data)), max(len(data) - 1, 0))
            if kind == "flip" and data:
                data = flipped(data, place, extra[0])
            elif kind == "cut":
                data = data[:place]
            elif kind == "insert":
                data = data[:place] + extra + data[place:]
            else:
                data = data[:place] + data[place : place + 56] * 2 + data[place + 56 :]
        seen[typed_errors_only(path, data)] += 1

    run()
    assert min(seen.values()) >= 10, seen


def test_random_headers_are_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "bars.dbn"

    @MANY
    @hypothesis.given(
        st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300), st.booleans()
    )
    def run(version: int, length: int, body: bytes, honest: bool) -> None:
        stated = len(body) if honest else length
        data = b"DBN" + bytes([version]) + struct.pack("<I", stated) + body + BARS[0]
        typed_errors_only(path, data)

    run()


LIMITS = st.sampled_from([0, 1, -1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, -(2**63), 10**9])
ANY_INT = st.one_of(LIMITS, st.integers(-(2**63), 2**63 - 1))
NEAR_INT = st.one_of(
    st.integers(-8, 8).map(lambda ticks: 5000 * 10**9 + ticks * 250_000_000), ANY_INT
)
VOLUMES = st.one_of(st.integers(0, 10**6), ANY_INT)
MINUTES = st.one_of(st.integers(1, 30), st.integers(30, 5000))
PLAUSIBLE = st.tuples(
    st.just("plausible"), MINUTES, st.integers(-40, 40), st.integers(0, 9), st.integers(0, 10**5)
)
RANDOM = st.tuples(st.just("random"), ANY_INT, NEAR_INT, NEAR_INT, NEAR_INT, NEAR_INT, VOLUMES)
ADVANCE = st.tuples(st.just("advance"), ANY_INT)
TRADE = st.tuples(st.just("trade"), ANY_INT, NEAR_INT, VOLUMES)
OTHER = st.tuples(st.sampled_from(["reset_halt", "finish", "counts"]))


@pytest.mark.parametrize("preset", ["default", "v6-live"])
def test_random_input_to_the_engine_is_taken_or_refused(preset: str) -> None:
    config = cc.Config.preset(preset).override(
        {"baseline.mode": "session_to_date", "cluster.threshold": 0.1, "profile.source": "trades"}
        if preset == "default"
        else {"cluster.threshold": 0.1, "session.hours": [], "signal.min_strength": 0.0}
    )
    sessions = cc.Sessions.from_frame(TABLE)
    seen = {"taken": 0, "refused": 0}

    @hypothesis.settings(max_examples=150)
    @hypothesis.given(
        st.lists(
            st.one_of(PLAUSIBLE, PLAUSIBLE, PLAUSIBLE, RANDOM, ADVANCE, TRADE, OTHER), max_size=60
        )
    )
    def run(actions: list[tuple[Any, ...]]) -> None:
        engine = cc.Engine(config, "ES", sessions)
        time = START_NS
        for kind, *values in actions:
            try:
                if kind == "plausible":
                    skip, move, reach, volume = values
                    tick = 250_000_000
                    price = 5000 * 10**9 + move * tick
                    high, low = price + reach * tick, price - reach * tick
                    engine.step(time, price, high, low, price, volume, symbol="ESZ4")
                    time += (skip if skip < 30 else 1) * MINUTE_NS
                elif kind == "random":
                    engine.step(*values)
                elif kind == "advance":
                    engine.advance(*values)
                elif kind == "trade":
                    engine.trade(*values)
                elif kind == "reset_halt":
                    engine.operator(kind)
                elif kind == "finish":
                    engine.finish()
                else:
                    engine.counts()
            except cc.DataError:
                seen["refused"] += 1
            else:
                seen["taken"] += 1
        engine.finish()

    run()
    assert min(seen.values()) >= 300, seen


def test_an_integer_that_is_no_int64_is_refused() -> None:
    engine = cc.Engine(cc.Config.preset(), "ES")
    for place, value in itertools.product(range(6), (2**63, -(2**63) - 1)):
        bar: list[Any] = [*STEPS[0]]
        bar[place] = value
        with pytest.raises(OverflowError):
            engine.step(*bar)
    engine.step(*STEPS[0])
