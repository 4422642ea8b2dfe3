"""The commands about a store, as a user gives them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore.cli import output
from clustercore.cli.db import db
from clustercore.errors import ConfigError, DataError
from clustercore.store import Store, sql
from clustercore.store.reference import store_page
from clustercore.store.schema import TABLES, VIEWS
from clustercore.store.sql import Deadline
from tests.store.made import entries, filled

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run(*arguments: object) -> int:
    code = db([str(argument) for argument in arguments], result_action="return_value")
    assert isinstance(code, int)
    return code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "a.duckdb", 2, recommended=True)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert not err
    return out


def test_info(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", path) == 0
    text = printed(capsys)
    assert "schema 1" in text
    assert "ES: 2,760 bars (2,760 consumed) of ES.SIMULATED, 2024-10-01 22:00 UTC to" in text
    assert "epoch 1 from input 1" in text
    assert run("info", path, "--json") == 0
    document = json.loads(printed(capsys))
    assert document["tables"]["inputs"] == len(entries(2))
    assert document["inputs"] == {"bar": 2760, "closed": 2760, "epoch": 1}
    assert document["engines"][0]["last_bar"] == "2024-10-03T20:59:00+00:00"


def test_info_of_an_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.open(tmp_path / "a.duckdb").close()
    assert run("info", tmp_path / "a.duckdb") == 0
    assert "made by clustercore" in printed(capsys)


def test_check_passes_and_names_what_does_not_fit(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = path.read_bytes()
    assert run("check", path) == 0
    assert "the replay equals what is stored" in printed(capsys)
    assert path.read_bytes() == before
    with Store.open(path) as store:
        store._open().execute("UPDATE equity SET balance = balance + 0.01 WHERE seq > 100")
        store._open().execute("DELETE FROM inputs WHERE seq = 2000")
        store._open().execute("INSERT INTO trades SELECT * FROM trades LIMIT 1")
        store._open().execute("UPDATE trades SET seq = 1000000")
        store._open().execute("INSERT INTO commits VALUES ('none', make_timestamp_ns(1), 1)")
        store._open().execute("DELETE FROM session_tables")
    assert run("check", path) == 1
    text = printed(capsys)
    assert "inputs: numbers are missing in the log: 1" in text
    assert "commits: rows without their recommendation: 1" in text
    assert "inputs: epochs without their session table: 1" in text
    assert "ES epoch 1" in text
    assert run("check", path, "--json") == 1
    document = json.loads(printed(capsys))
    assert not document["ok"]


def test_check_names_the_first_difference(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(path) as store:
        store._open().execute("UPDATE clusters SET volume = volume + 1 WHERE seq > 1000")
    assert run("check", path) == 1
    text = printed(capsys)
    assert "clusters row" in text
    assert "column 'volume'" in text


def test_rebuild_makes_the_rows_again(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(path) as store:
        before = {name: store.table(name) for name in ("clusters", "equity", "contexts")}
        store._open().execute("DELETE FROM clusters WHERE seq > 1000")
        store._open().execute("UPDATE equity SET balance = 1")
    assert run("rebuild", path) == 0
    assert "other than before: clusters row" in printed(capsys)
    with Store.open(path) as store:
        for name, frame in before.items():
            assert_frame_equal(store.table(name), frame, check_exact=True)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_exported_bars_are_read_by_a_backtest(
    path: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"bars{ending}"
    assert run("export", path, "--out", out) == 0
    assert printed(capsys) == f"2,760 bars: {out}\n"
    bars, sample = cc.read_bars(out), cc.sample(sessions=2, seed=2)
    assert_frame_equal(bars.frame, sample.frame, check_exact=True)


def test_export_asks_whose_bars(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say whose bars"):
        run("export", path, "--root", "NQ", "--out", tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="every table"):
        run("export", path, "--root", "ES", "--out", tmp_path / "folder")
    assert not (tmp_path / "a.parquet").exists()


def test_export_of_every_table(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables"
    for _ in range(2):
        assert run("export", path, "--out", out, "--json") == 0
    assert json.loads(printed(capsys).split("}\n{")[0].strip() + "}")["rows"]["inputs"] == len(
        entries(2)
    )
    with Store.open(path, read_only=True) as store:
        for name in TABLES:
            assert_frame_equal(pl.read_parquet(out / f"{name}.parquet"), store.table(name))
    assert {file.name for file in out.iterdir()} == {
        "manifest.json",
        *(f"{name}.parquet" for name in TABLES),
    }


def test_snapshot(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("snapshot", path) == 0
    assert f"{path}.snapshot.duckdb" in printed(capsys)
    out = tmp_path / "copy.duckdb"
    assert run("snapshot", path, "--out", out) == 0
    assert run("check", out) == 0
    with pytest.raises(DataError, match="own store"):
        run("snapshot", path, "--out", path)


def test_sql(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sql", path, "SELECT seq, kind FROM inputs ORDER BY seq", "--limit", 2) == 0
    text = printed(capsys)
    assert "epoch" in text
    assert "the first 2 rows" in text
    assert run("sql", path, "SELECT sum(volume) AS v, 'a' AS a FROM inputs", "--json") == 0
    document = json.loads(printed(capsys))
    assert document["rows"][0]["v"] > 0
    assert not document["cut"]
    with pytest.raises(DataError, match="begin with SELECT"):
        run("sql", path, "DROP TABLE inputs")
    with pytest.raises(DataError, match="stopped"):
        run("sql", path, "SELECT count(*) FROM range(1000000000000)", "--seconds", "0.2")
    for option in (("--limit", "-1"), ("--seconds", "0"), ("--seconds", "nan")):
        with pytest.raises(ConfigError, match=option[0]):
            run("sql", path, "SELECT 1", *option)


def test_sql_shows_any_cell_and_any_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT chr(27) || '[2J' AS a, 1 AS a, repeat('x', 5000) AS long, NULL AS none"
    assert run("sql", path, query) == 0
    text = printed(capsys)
    assert "\x1b" not in text
    assert "[2J" in text
    assert "x" * 900 in text
    assert "x" * 1100 not in text
    assert run("sql", path, query, "--json") == 0
    (row,) = json.loads(printed(capsys))["rows"]
    assert row == {"a": "\x1b[2J", "a_2": 1, "long": "x" * 5000, "none": None}
    with pytest.raises(ConfigError, match="--memory"):
        run("sql", path, "SELECT 1", "--memory", "foo")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_time_limit_covers_the_showing(
    path: Path, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch_too_late(*_: object) -> list[tuple[int, ...]]:
        monkeypatch.setattr(Deadline, "left_s", 0.0)
        return [(1,), (2,)]

    monkeypatch.setattr(sql, "_fetch", fetch_too_late)
    with pytest.raises(DataError, match="with showing its rows"):
        run("sql", path, "SELECT 1 AS a", *form)


def test_a_table_of_rows_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.emit_rows(("name", "n"), [("y" * 100, 12345), ("z", None)], right=[1])
    lines = printed(capsys).splitlines()
    assert max(map(len, lines)) <= 40
    assert sum(line.count("y") for line in lines) == 100
    assert lines[0].split() == ["name", "n"]
    assert lines[2].endswith("12345")


@pytest.mark.parametrize("command", ["info", "check", "rebuild", "snapshot"])
def test_a_file_that_is_none_is_said(tmp_path: Path, command: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        run(command, tmp_path / "none.duckdb")
    (tmp_path / "a.csv").write_text("a,b\n" * 1000)
    with pytest.raises(DataError, match="no store"):
        run(command, tmp_path / "a.csv")


OWNER = """
import sys
from clustercore.store import Store
with Store.open(sys.argv[1]) as store:
    store.snapshot()
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_while_a_process_owns_the_store_its_snapshot_answers(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    assert run("sql", path, "SELECT count(*) AS n FROM inputs", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == [{"n": len(entries(2))}]
    assert "this is its snapshot" in err
    assert "seconds old" in err
    assert run("info", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["snapshot_age_s"] < 60
    for command in ("check", "rebuild", "snapshot"):
        with pytest.raises(DataError, match=f"process {owner.pid}"):
            run(command, path)
    owner.communicate("\n")


def test_nothing_but_the_result_is_said_at_the_end_of_a_process(path: Path) -> None:
    # DuckDB's library complains of its own objects when something keeps them too long.
    source = "import sys; from clustercore.cli.db import db; db(sys.argv[1:])"
    for arguments, found in (
        (["info", path], ""),
        (["sql", path, "SELECT * FROM trades"], ""),
        (["check", path], ""),
        (["sql", path, "SELECT nonsense"], "DataError"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", source, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "leaked" not in done.stderr
        assert found in done.stderr
        assert found or not done.stderr


def test_the_reference_is_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = (DOCS / "store.md").read_text("utf-8")
    assert stored == store_page(), "write it again: clustercore db reference --out docs/store.md"
    assert run("reference", "--out", tmp_path / "store.md") == 0
    assert (tmp_path / "store.md").read_text("utf-8") == stored
    capsys.readouterr()
    assert run("reference") == 0
    assert printed(capsys) == stored


def test_every_column_has_a_sentence() -> None:
    for table in TABLES.values():
        for column in table.columns:
            assert column.sentence.endswith("."), (table.name, column.name)
    for view in VIEWS:
        for name, sentence in view.columns:
            assert sentence.endswith("."), (view.name, name)


def test_the_store_s_library_is_imported_by_the_store_alone() -> None:
    source = (
        "import sys, clustercore, clustercore.cli.db; "
        "clustercore.backtest(clustercore.sample(1)); assert 'duckdb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_a_query_that_cannot_be_interrupted_is_ended_with_its_process(path: Path) -> None:
    endless = "SELECT levenshtein(repeat('ab', 500000), repeat('ba', 500000))"
    begin = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "clustercore", "db", "sql", path, endless, "--seconds", "0.2"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.monotonic() - begin < 30
    assert ended.returncode == 2
    assert "longer than 0.2 seconds and did not stop" in ended.stderr
    assert ended.stdout == ""


def test_no_command_writes_over_a_database(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    own = tmp_path / "own.parquet"
    other, link = tmp_path / "other.csv", tmp_path / "link.parquet"
    log = tmp_path / "a.duckdb.wal"
    for copy in (own, other):
        copy.write_bytes(before)
    link.symlink_to(path)
    log.write_bytes(b"the newest part")
    for place in (own, other, link):
        with pytest.raises(DataError, match="a database is not replaced"):
            run("export", own, "--out", place)
    for place in (path, link, log):
        with pytest.raises(DataError, match="a database is not replaced"):
            run("reference", "--out", place)
    assert [file.read_bytes() for file in (path, own, other, link)] == [before] * 4
    assert log.read_bytes() == b"the newest part"
    # What was exported before is replaced.
    for _ in range(2):
        assert run("export", own, "--out", tmp_path / "bars.csv") == 0
