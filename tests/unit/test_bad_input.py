"""Bad input of every kind: a typed error that says where, what stood there and what may stand there.

Every case runs through the library, and again through the command line, which must end with 2, say
it in one line on standard error, and leave no file behind.
"""

from __future__ import annotations

import gzip
import itertools
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import hypothesis
import hypothesis.strategies as st
import polars as pl
import pytest
from clustercore._core import decode_dbn

import clustercore as cc
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
    """Compare an error with what the case wants of it; text needs only to contain what is wanted."""
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
    """Return a change of one value; a number is added to what stands there when it is a function."""

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
    Case("huge price", parquet(put("high", 1e10)), "", ROW, "high", "10000000000", "below"),
    Case("high below open", parquet(put("high", LOWEST - 1.0)), "high below", ROW, "high",
         f"{LOWEST - 1.0:g}", "at least"),
    Case("low above close", parquet(put("low", HIGHEST + 1.0)), "low above", ROW, "low",
         f"{HIGHEST + 1.0:g}", "at most"),
    Case("close above high", parquet(put("close", HIGHEST + 2.0)), "high below", ROW, "high",
         f"{HIGHEST:g}", f"at least {HIGHEST + 2.0:g}"),
    Case("open below low", parquet(put("open", LOWEST - 2.0)), "low above", ROW, "low",
         f"{LOWEST:g}", f"at most {LOWEST - 2.0:g}"),
    *(
        Case(f"off tick {name}", parquet(put(name, sign(0.1))), "off the tick grid", ROW, name,
             ".", "multiple of 0.25, or instrument.check_tick")
        for name, sign in (
            ("high", lambda step: lambda value: value + step),
            ("low", lambda step: lambda value: value - step),
        )
    ),
    Case("negative volume", parquet(put("volume", -3)), "negative volume", ROW, "volume", "-3",
         "0 or more"),
    Case("fractional volume", parquet(typed("volume", pl.Float64(), 10.5)), "whole number", ROW,
         "volume", "10.5", "contracts"),
    Case("NaN volume", parquet(typed("volume", pl.Float64(), float("nan"))), "", ROW, "volume",
         "NaN", "contracts"),
    Case("huge volume", parquet(put("volume", 2**62)), "too large", ROW, "volume", str(2**62),
         "below"),
    Case("same time twice", parquet(moved(-MINUTE_NS)), "", ROW, "ts_event", "", "after"),
    Case("time goes back", parquet(moved(-10 * MINUTE_NS)), "", ROW, "ts_event", "", "after"),
    Case("off the grid", parquet(moved(30 * 10**9)), "", None, "ts_event", "", ""),
    Case("text as a price", csv(typed("close", pl.String(), "n/a")), "no such number", ROW,
         "close", "'n/a'", "a number"),
    Case("text as a volume", csv(typed("volume", pl.String(), "many")), "no such number", ROW,
         "volume", "'many'", "whole number"),
    Case("text as a time", csv(typed("ts_event", pl.String(), "noon")), "", ROW, "ts_event",
         "'noon'", "ISO 8601"),
    Case("empty field", csv(put("close", None)), "missing", ROW, "close", "null", "String"),
    Case("prices of another type", parquet(lambda frame: frame.with_columns(open=pl.lit(value=True))),
         "another type", None, "open", "Boolean", "a number"),
    Case("lists as volumes", parquet(lambda frame: frame.with_columns(volume=pl.lit([1, 2]))),
         "another type", None, "volume", "List", "contracts"),
    Case("times of another type",
         parquet(lambda frame: frame.with_columns(ts_event=pl.lit(value=True))),
         "no time", None, "ts_event", "Boolean", "datetime"),
    Case("a column is missing", parquet(lambda frame: frame.drop("volume")), "missing", None,
         "volume", "ts_event, open", "volume"),
]
