"""The generated pages are what the core says now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import clustercore as cc
from clustercore.cli import reference
from clustercore.config import config_fields
from clustercore.engine import record_fields

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "command", "make"),
    [
        ("configuration.md", "reference", reference.settings_page),
        ("columns.md", "columns", reference.columns_page),
        ("statistics.md", "statistics", reference.statistics_page),
    ],
)
def test_page_is_current(page: str, command: str, make: Callable[[], str]) -> None:
    made = make()
    stored = (DOCS / page).read_text("utf-8")
    assert stored == made, f"write it again: clustercore config {command} --out docs/{page}"


def test_every_setting_has_one_row_with_its_sentence() -> None:
    rows = [line for line in reference.settings_page().splitlines() if line.startswith("| `")]
    for field in config_fields():
        named = [
            row for row in rows if row.startswith(f"| `{field['name']}` | {field['sentence']}")
        ]
        assert named, f"{field['section']}.{field['name']}"
        assert str(field["sentence"]).endswith(".")


def test_values_of_the_presets_stand_in_the_row() -> None:
    page = reference.settings_page()
    row = next(line for line in page.splitlines() if line.startswith("| `tolerance`"))
    assert "| `2 ticks` |" in row
    assert "`0.75 points` in `new-algo`, `new-algo-patient`, `v6`, `v6-live`" in row


def test_every_column_of_every_frame_stands_in_the_page() -> None:
    result = cc.backtest(cc.sample(sessions=8, seed=2), "new-algo")
    sections = {
        part.split("`", maxsplit=2)[1]: part for part in reference.columns_page().split("\n## ")[1:]
    }
    for name in (*record_fields(), *reference.DERIVED):
        frame = getattr(result, name)
        listed = [
            line.split("`")[1] for line in sections[name].splitlines() if line.startswith("| `")
        ]
        assert listed == frame.columns, name


def test_types_in_the_page_are_those_of_the_frames() -> None:
    result = cc.backtest(cc.sample(sessions=8, seed=2), "new-algo")
    for name, columns in reference.DERIVED.items():
        frame = getattr(result, name)
        assert [str(frame.schema[column]) for column, *_ in columns] == [
            kind for _, kind, *_ in columns
        ], name
