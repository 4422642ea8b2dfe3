"""Prints come in thousands, between bars, and are read as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clustercore.inputs import Bar, Closed, Entry, Input, Prints
from clustercore.store import Store

NOW = 1_700_000_000_123_456_789


def test_many_prints_between_other_inputs_keep_order_and_values(tmp_path: Path) -> None:
    many = np.arange(20)
    items: list[Input] = [
        Prints("ESZ6", NOW + many, many - 5, 2**40 + many),
        Bar("ESZ6", NOW, 4, 5, 3, 4, 9, "live", NOW + 1, False, True, True, "late"),
        Prints("NQZ6", NOW + many, 0 * many + 7, 0 * many + 1),
        Prints("NQH7", NOW + many[:1], many[:1], many[:1] + 1),
        Closed(NOW, "eoi"),
    ]
    entries = [Entry(seq, "ES", 1, item) for seq, item in enumerate(items, 1)]
    with Store.open(tmp_path / "live.duckdb") as store:
        store.commit(entries)
        assert list(store.entries("ES")) == [(entry.seq, entry.item) for entry in entries]
        empty = (
            store.inputs("ES")
            .filter(kind="prints")
            .drop("seq", "root", "epoch", "kind", "ts", "symbol", "volume")
        )
        assert all(column.null_count() == 3 for column in empty)
        assert store.inputs("ES")["volume"].to_list()[2] == 20


def test_values_that_hardly_change_are_read_row_by_row(tmp_path: Path) -> None:
    changes = [100, 101, 399]
    items = [
        Bar("ESZ6" if place < 250 else "ESH7", NOW + place, 4, 5, 3, 4, 9, "live", 0)
        if place not in changes
        else Bar("ESZ6", NOW + place, 4, 5, 3, 4, 9, "replay", 1, False, False, False, "late")
        for place in range(400)
    ]
    entries = [Entry(seq, "ES", 1, item, ()) for seq, item in enumerate(items, 1)]
    with Store.open(tmp_path / "live.duckdb") as store:
        store.commit(entries)
        assert [item for _, item in store.entries("ES")] == items
