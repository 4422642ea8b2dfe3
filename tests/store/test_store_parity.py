"""A log that lost something, or was changed, is found: by parity, by check, and at a start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clustercore as cc
from clustercore import parity
from clustercore.cli import main
from clustercore.errors import DataError
from clustercore.fold import Fold
from clustercore.inputs import Bar, Carry, Entry, Epoch, WarmUp
from clustercore.live.startup import Restored, restore
from clustercore.live.strategy import Calendar, Strategy
from clustercore.sessions import load_sessions
from clustercore.store import DERIVED, Store, StoreError
from tests.store.made import PRESET, epoch, filled

NOW = 1_700_000_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "live.duckdb", 2, recommended=True)


def certify(path: Path) -> None:
    """Leave a certificate, as a live process does at a session's end."""
    with Store.open(path) as store:
        (found,) = parity.check(store)
        assert found.ok, found.difference
        store.save_certificate(parity.certificate_of(found, NOW, "{}"))


def change(path: Path, *statements: str) -> None:
    with Store.open(path) as store:
        for statement in statements:
            store._open().execute(statement)


def start(path: Path) -> Restored:
    """Bring an engine back as the live process does."""
    with Store.open(path) as store:
        sessions = load_sessions()
        store.save_sessions(sessions)
        strategy = Strategy(
            Fold("ES", parity.StoredLog(store)),
            cc.Instrument.builtin("ES"),
            cc.Config.preset(PRESET),
            Calendar(sessions),
            60 * 10**9,
            enter=lambda *_: 0,
            journal=lambda *_: None,
        )
        return restore(store, strategy, epoch(1), flush=lambda: None, see=lambda *_: None)


def differs(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what parity says of a store that it must not pass."""
    capsys.readouterr()
    assert main(["parity", "--db", str(path)]) == 1
    assert main(["db", "check", str(path)]) == 1
    capsys.readouterr()
    assert main(["parity", "--db", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    return next(str(one["difference"]) for one in document["certificates"] if not one["ok"])


def test_a_whole_store_passes_and_an_empty_one_has_nothing_to_compare(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certify(path)
    assert main(["parity", "--db", str(path)]) == 0
    assert "EQUAL" in capsys.readouterr().out
    assert start(path).difference is None
    Store.open(tmp_path / "empty.duckdb").close()
    assert main(["parity", "--db", str(tmp_path / "empty.duckdb")]) == 0
    assert "nothing to compare" in capsys.readouterr().out
    assert main(["db", "check", str(tmp_path / "empty.duckdb")]) == 0
    assert "nothing to replay" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["DELETE FROM inputs", "DELETE FROM inputs WHERE kind = 'epoch'"])
def test_a_log_without_its_beginning_is_a_difference(
    path: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(path, lost)
    said = differs(path, capsys)
    assert "the log of ES does not begin epoch 1" in said
    assert "clusters" in said
    with pytest.raises(DataError, match=r"live\.duckdb: the log of ES .*go back to a snapshot"):
        start(path)


def test_certificates_alone_are_enough_to_miss_a_log(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certify(path)
    tables = ("inputs", *DERIVED, "contexts", "recommendations")
    change(path, *(f"DELETE FROM {name}" for name in tables))  # noqa: S608 -- our names
    assert "1 certificates" in differs(path, capsys)


def test_rows_of_another_epoch_are_found_at_a_start(path: Path) -> None:
    change(path, "INSERT INTO risk SELECT 5, 'ES', 7, make_timestamp_ns(1), 'reset', '', 'a', 'b'")
    assert "does not begin epoch 7" in (start(path).difference or "")


def test_recommendations_are_compared_at_a_start(path: Path) -> None:
    with Store.open(path) as store:
        assert store.recommendations("ES")
    change(path, "UPDATE recommendations SET stop_loss = 1.0")
    assert "recommendations row 0, column 'stop_loss'" in (start(path).difference or "")
    change(path, "DELETE FROM recommendations")
    assert "0 stored" in (start(path).difference or "")


# The middle of the log is well before the certificate.
CHANGES = {
    "volume": "UPDATE inputs SET volume = volume + 1 WHERE seq = 1000",
    "arrival": "UPDATE inputs SET arrival = arrival + INTERVAL 1 SECOND WHERE seq = 1000",
    "origin": "UPDATE inputs SET origin = 'replay' WHERE seq = 1000",
    "reason": "UPDATE inputs SET reason = 'grace' WHERE seq = 1001",
    "kept": "UPDATE inputs SET close = close + 1 WHERE kind = 'bar' AND NOT consumed",
    "not kept": "DELETE FROM inputs WHERE kind = 'bar' AND NOT consumed",
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_an_input_under_a_certificate_cannot_be_changed(
    path: Path, statement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(path) as store:
        kept = Bar("ESZ6", NOW, 4, 5, 3, 4, 0, "live", NOW, consumed=False, reason="late")
        store.commit([Entry(store.next_seq, "ES", 1, kept)])
    certify(path)
    with Store.open(path) as store:
        store.commit([Entry(store.next_seq, "ES", 1, replace(kept, ts_event=NOW + 1))])
    certify(path)
    change(path, statement)
    said = differs(path, capsys)
    assert said.startswith("inputs: ")
    assert (start(path).difference or "").startswith("inputs: ")


def test_the_last_inputs_cannot_be_deleted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certify(path)
    change(path, "DELETE FROM inputs WHERE seq > 5515")
    said = differs(path, capsys)
    assert "certified up to input 5521" in said
    assert "the last one is 5515" in said


def test_an_input_after_the_last_certificate_changes_no_hash(path: Path) -> None:
    certify(path)
    with Store.open(path) as store:
        bar = Bar("ESZ6", NOW, 4, 5, 3, 4, 0, "live", NOW, consumed=False, reason="late")
        store.commit([Entry(store.next_seq, "ES", 1, bar)])
        assert parity.check(store)[0].ok


def test_a_part_of_a_frame_has_the_hash_that_it_had_alone() -> None:
    words = ["a", None, "b", "a", "", None, "c"]
    frame = pl.DataFrame(
        {"text": words, "number": [None, 1, 2, None, 4, 5, 6], "flag": [True, None] * 3 + [False]}
    )
    alone = [parity.hash_rows(frame.head(rows), [rows])[0] for rows in range(8)]
    assert parity.hash_rows(frame, list(range(8))) == alone
    assert parity.hash_rows(frame, [3, 3, 7]) == [alone[3], alone[3], alone[7]]
    assert len(set(alone)) == 8
    others = (["a,", "b"], ["a", ",b"], ["b", "a"], ["a", None], [None, "a"], ["a", "a"])
    alone += [parity.hash_rows(pl.DataFrame({"text": other}), [2])[0] for other in others]
    assert len(set(alone)) == 14


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE session_tables SET note = 'changed' WHERE trade_date = '2024-10-02'",
        "UPDATE session_tables SET close = close + INTERVAL 1 HOUR WHERE trade_date = '2024-10-02'",
        "DELETE FROM session_tables WHERE trade_date = '2024-10-02'",
        "UPDATE session_tables SET close = open",
    ],
)
def test_a_session_table_is_what_its_hash_says(
    path: Path, statement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(path, statement)
    assert "session_tables: table" in differs(path, capsys)
    with pytest.raises(StoreError, match="session_tables"):
        start(path)


def test_the_record_by_context_is_compared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(path) as store:
        before = store.contexts("ES")
    assert before.height
    change(path, "UPDATE contexts SET multiplier = multiplier + 1, posterior_low = 0")
    assert "contexts row 0, column 'posterior_low'" in differs(path, capsys)
    assert "contexts row 0" in (start(path).difference or "")
    assert main(["db", "rebuild", str(path)]) == 0
    assert "other than before: contexts row 0" in capsys.readouterr().out
    with Store.open(path) as store:
        assert store.contexts("ES").equals(before)


MERGED = "detail = json_merge_patch(detail, '{}')"
# What is set in which input, and what is said of it.
BAD = {
    "impossible": ("high = low - 1", 1000, "input 1000 (bar): "),
    "negative": ("volume = -1", 1000, "input 1000 (bar): "),
    "no price": ("open = NULL", 1000, "input 1000 (bar) lacks a value"),
    "no flag": ("consumed = NULL", 1000, "input 1000 (bar) lacks a value"),
    "no time": ("ts = NULL", 1001, "input 1001 (closed) lacks a value"),
    "no JSON": ("detail = '{'", 1, "input 1 (epoch) cannot be read"),
    "a list": ("detail = '[1]'", 1, "input 1 (epoch) cannot be read"),
    "other type": (MERGED.replace("{}", '{"number": "x"}'), 1, "cannot be read: number is 'x'"),
    "no instrument": (MERGED.replace("{}", '{"instrument": {"a": 1}}'), 1, "epoch 1 has settings"),
    "no setting": (MERGED.replace("{}", '{"settings": {"exit": null}}'), 1, "epoch 1 has settings"),
    "other kind": ("kind = 'quote'", 1000, "upgrade clustercore"),
}


@pytest.mark.parametrize(("setting", "seq", "said"), BAD.values(), ids=BAD)
def test_a_bad_input_is_named_with_its_file(
    path: Path, setting: str, seq: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(path, f"UPDATE inputs SET {setting} WHERE seq = {seq}")  # noqa: S608 -- our own words
    assert said in differs(path, capsys)
    capsys.readouterr()
    assert main(["db", "rebuild", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    with pytest.raises(DataError) as caught:
        start(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("item", "statement"),
    [
        (Carry("{}"), "UPDATE inputs SET detail = '{' WHERE kind = 'carry'"),
        (WarmUp(1, 2), "UPDATE inputs SET detail = '{\"first_seq\": 1}' WHERE kind = 'warm_up'"),
    ],
)
def test_so_is_a_bad_beginning_of_an_epoch(path: Path, item: Any, statement: str) -> None:
    with Store.open(path) as store:
        made: Epoch = epoch(2)
        seq = store.next_seq
        store.commit([Entry(seq, "ES", 2, made), Entry(seq + 1, "ES", 2, item)])
    change(path, statement)
    with Store.open(path) as store:
        found = parity.check(store)[-1]
        assert "live.duckdb" in str(found.difference)
        assert f"input {seq + 1}" in str(found.difference)


def test_rebuild_deletes_rows_of_no_epoch_and_says_how_many(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(
        path,
        "INSERT INTO equity SELECT * REPLACE ('XX' AS root) FROM equity LIMIT 3",
        "INSERT INTO risk SELECT 5, 'ES', 7, make_timestamp_ns(1), 'reset', '', 'a', 'b'",
        "INSERT INTO contexts SELECT * REPLACE (9 AS epoch) FROM contexts LIMIT 1",
    )
    differs(path, capsys)
    assert main(["db", "rebuild", str(path)]) == 0
    assert "5 rows of no epoch of the log deleted" in capsys.readouterr().out
    assert main(["db", "check", str(path)]) == 0
    assert main(["db", "rebuild", str(path), "--json"]) == 0


def test_rebuild_makes_nothing_of_a_log_that_lost_its_beginning(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certify(path)
    change(path, "DELETE FROM inputs")
    with Store.open(path) as store:
        before = store.table("equity")
    assert main(["db", "rebuild", str(path)]) == 2
    assert "go back to a snapshot" in capsys.readouterr().err
    with Store.open(path) as store:
        assert store.table("equity").equals(before)
