from __future__ import annotations

import re
from pathlib import Path

import pytest

from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument, parse_symbol
from clustercore.sources import read_definitions


@pytest.mark.parametrize(
    ("root", "tick_nanos", "point_value", "commission"),
    [
        ("ES", 250_000_000, 50.0, 2.5),
        ("MES", 250_000_000, 5.0, 0.5),
        ("NQ", 250_000_000, 20.0, 2.5),
        ("MNQ", 250_000_000, 2.0, 0.5),
        ("YM", 1_000_000_000, 5.0, 2.5),
        ("MYM", 1_000_000_000, 0.5, 0.5),
        ("RTY", 100_000_000, 50.0, 2.5),
        ("M2K", 100_000_000, 5.0, 0.5),
        ("CL", 10_000_000, 1000.0, 2.5),
        ("GC", 100_000_000, 100.0, 2.5),
    ],
)
def test_builtin_table(root: str, tick_nanos: int, point_value: float, commission: float) -> None:
    instrument = Instrument.builtin(root)
    assert (instrument.tick_nanos, instrument.point_value) == (tick_nanos, point_value)
    assert instrument.commission == commission


@pytest.mark.parametrize(
    ("symbol", "root"),
    [
        ("ES", "ES"),
        ("ESZ5", "ES"),
        ("ESZ25", "ES"),
        ("MESH6", "MES"),
        ("M2KZ5", "M2K"),
        ("ES.c.0", "ES"),
        ("MNQ.v.1", "MNQ"),
        ("NQ.FUT", "NQ"),
        ("ES.SIMULATED", "ES"),
        ("ES.c.0@5602", "ES"),
    ],
)
def test_symbols_find_their_instrument(symbol: str, root: str) -> None:
    assert Instrument.for_symbol(symbol).root == root


@pytest.mark.parametrize(
    "symbol", ["", "ESX", "ESTX50", "ESZ5-ESH6", "EW2F6 C7000", "6EZ5", "AAPL", "esz5"]
)
def test_other_symbols_are_refused(symbol: str) -> None:
    with pytest.raises(ConfigError, match="pass instrument="):
        Instrument.for_symbol(symbol)


def test_parts_of_a_symbol() -> None:
    assert parse_symbol("CLF26").month == 1
    assert parse_symbol("CLF26").year_digits == "26"
    assert parse_symbol("ESZ5-ESH6").kind == "spread"
    assert parse_symbol("ES.v.0").kind == "continuous"
    assert parse_symbol("ES.FUT").kind == "parent"
    assert parse_symbol("ES").kind == "root"
    assert parse_symbol("AAPL  250221C00250000").kind == "other"


@pytest.mark.parametrize("tick", [0, -0.25, float("nan"), float("inf"), "x", 1e-10, 0.1 + 0.2])
def test_a_tick_must_be_whole_nanos(tick: float | str) -> None:
    with pytest.raises(ConfigError, match=re.escape("instrument.tick_size")):
        Instrument("XX", tick, 1.0, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("tick", ["0.015625", 0.015625, "1e-9", 2, "0.005"])
def test_a_tick_may_be_text_or_number(tick: float | str) -> None:
    instrument = Instrument("XX", tick, 1.0, 0.0)  # type: ignore[arg-type]
    assert instrument.tick_nanos == round(float(tick) * 1e9)


@pytest.mark.parametrize(
    ("field", "value"),
    [("point_value", 0.0), ("commission", -1.0), ("margin", 0.0), ("point_value", float("nan"))],
)
def test_values_out_of_range(field: str, value: float) -> None:
    settings = {"root": "XX", "tick_size": 0.25, "point_value": 1.0, "commission": 0.0}
    with pytest.raises(ConfigError, match=f"instrument.{field}"):
        Instrument(**{**settings, field: value})  # type: ignore[arg-type]


def test_a_definition_makes_and_checks_an_instrument(data_dir: Path) -> None:
    folder = data_dir / "dbn" / "glbx"
    row = read_definitions(folder / "definition-glbx-es-fut.dbn.zst").row(0, named=True)
    instrument = Instrument.from_definition(row)
    assert instrument == Instrument.builtin("ES")
    instrument.check_definition(row)
    with pytest.raises(DataError, match="contradicts") as caught:
        Instrument.builtin("NQ").check_definition(row)
    assert (caught.value.column, caught.value.found) == ("unit_of_measure_qty", "50")


def test_a_definition_of_an_unknown_root_needs_a_commission() -> None:
    row = {"asset": "6E", "min_price_increment": 50_000, "unit_of_measure_qty": 125_000 * 10**9}
    with pytest.raises(ConfigError, match="commission"):
        Instrument.from_definition(row)
    instrument = Instrument.from_definition(row, commission=2.0)
    assert (instrument.root, instrument.tick_size) == ("6E", 0.00005)
    with pytest.raises(DataError, match="lacks a value"):
        Instrument.from_definition({"asset": "ES"})
