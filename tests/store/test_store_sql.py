"""A user's query reads the store and nothing else."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from clustercore.errors import ConfigError
from clustercore.store import Commit, Store, StoreError, sql
from clustercore.store.errors import classified
from clustercore.store.reference import QUERIES
from clustercore.store.schema import TABLES, VIEWS
from clustercore.store.sql import Deadline, ask, limited, readable
from tests.store.made import entries, filled, recommendation


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = filled(tmp_path_factory.mktemp("sql") / "a.duckdb")
    with Store.open(made) as store:
        row = store.derived("orders", "ES").row(0, named=True)
        store.commit(
            [],
            recommendations=[recommendation(id=row["trade_id"], seq=row["seq"])],
            commits=[Commit(recommendation_id=row["trade_id"], committed_at=1, price=10**12)],
        )
    return made


REFUSED = (
    "COPY trades TO '{folder}/out.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM 'https://example.org/a.parquet'",
    "SELECT * FROM read_parquet('s3://bucket/a.parquet')",
    "ATTACH '{folder}/other.duckdb'",
    "ATTACH ':memory:' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '8GB'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET threads",
    "PRAGMA threads = 8",
    "PRAGMA database_list",
    "EXPORT DATABASE '{folder}/all'",
    "INSERT INTO trades SELECT * FROM trades",
    "DELETE FROM inputs",
    "DROP TABLE inputs",
    "CREATE TEMP TABLE a AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "USE memory",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE inputs",
    "SELECT getenv('HOME')",
    "SELECT nonsense FROM trades",
    "no SQL",
    "",
    ";",
    "-- nothing",
)


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_no_reading_of_the_store_is_refused(path: Path, tmp_path: Path, query: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        ask(path, query.format(folder=tmp_path))
    assert caught.value.reason == "refused"
    assert list(tmp_path.iterdir()) == []
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "query",
    [
        "SET memory_limit = '8GB'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "COPY trades TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE '{folder}/all'",
        "DELETE FROM inputs",
        "SELECT * FROM read_csv('/etc/passwd')",
    ],
)
def test_the_lock_holds_without_the_look_at_the_statement(
    path: Path, tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_check_kind", lambda *_: None)
    with pytest.raises(StoreError):
        ask(path, query.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM range(1000000000000)",
        "SELECT count(*) FROM inputs a, inputs b, inputs c WHERE hash(a.seq, b.seq, c.seq) = 1",
        "SELECT * FROM range(100000000000) WHERE range % 1000000007 = 1000000006",
    ],
)
def test_a_query_is_stopped_when_its_time_is_over(path: Path, query: str) -> None:
    began = time.perf_counter()
    with pytest.raises(StoreError, match="stopped") as caught:
        ask(path, query, seconds=0.3)
    assert caught.value.reason == "timeout"
    assert time.perf_counter() - began < 5


def test_a_query_gets_no_more_memory_than_it_may(path: Path) -> None:
    with pytest.raises(StoreError, match="more memory than 64MB") as caught:
        ask(path, "SELECT list(range) FROM range(500000000)", memory="64MB", seconds=20)
    assert caught.value.reason == "refused"


def test_a_frame_of_this_process_is_no_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "secret", pl.DataFrame({"key": [1]}), raising=False)
    with pytest.raises(StoreError):
        ask(path, "SELECT * FROM secret")


def test_rows_are_cut_where_asked(path: Path) -> None:
    some = ask(path, "SELECT seq FROM inputs ORDER BY seq", limit=3)
    assert (some.rows, some.cut) == ([(1,), (2,), (3,)], True)
    every = ask(path, "SELECT seq FROM inputs", limit=0)
    assert (len(every.rows), every.cut) == (len(entries()), False)
    assert ask(path, "SELECT 1 AS a, 'b' AS b", limit=1).columns == ("a", "b")
    assert not ask(path, "SELECT 1", limit=1).cut


@pytest.mark.parametrize(
    "query", ["DESCRIBE trades", "SUMMARIZE equity", "EXPLAIN SELECT 1", "SHOW TABLES", "FROM risk"]
)
def test_queries_that_read_are_answered(path: Path, query: str) -> None:
    assert ask(path, query).columns


@pytest.mark.parametrize(("heading", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_the_queries_of_the_reference_run(path: Path, heading: str, query: str) -> None:
    answer = ask(path, query)
    empty = {
        "Bars that were kept but not consumed",
        "What happened to the feed in the last sessions",
    }
    assert bool(answer.rows) != (heading in empty)


def test_views_show_what_older_systems_kept(path: Path) -> None:
    for view in VIEWS:
        answer = ask(path, f"FROM {view.name}", limit=0)
        assert answer.columns == tuple(name for name, _ in view.columns)
        assert answer.rows, view.name
    trades = ask(path, "SELECT count(*), sum(net) FROM trades").rows[0]
    assert ask(path, "SELECT sum(total_trades) FROM bayesian_data").rows[0][0] == trades[0]
    assert ask(path, "SELECT count(*) FROM context_performance").rows[0][0] == trades[0]
    assert ask(path, "SELECT DISTINCT context_type FROM context_performance").rows == [
        ("modal_bin",)
    ]
    (realized,) = ask(path, "SELECT sum(realized_pnl) FROM portfolio").rows[0]
    assert realized == pytest.approx(trades[1])
    first = ask(path, "SELECT open_price, volume FROM historical_ohlc ORDER BY id", limit=1)
    bar = entries()[1].item
    assert first.rows == [(bar.open / 1e9, bar.volume)]  # type: ignore[union-attr]


def test_the_file_has_the_declared_tables_and_columns(path: Path) -> None:
    connection = duckdb.connect(str(path), read_only=True)
    rows = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY table_name, column_index"
    ).fetchall()
    connection.close()
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in rows:
        found.setdefault(table, []).append((column, kind))
    views = {view.name for view in VIEWS}
    assert set(found) == set(TABLES) | views
    for name, table in TABLES.items():
        assert [column for column, _ in found[name]] == list(table.names)
        for (_, kind), column in zip(found[name], table.columns, strict=True):
            assert kind.replace('"', "") == column.type.replace('"', ""), column


def test_a_value_that_is_never_missing_cannot_be(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    connection = duckdb.connect(str(path), read_only=True)
    rows = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND is_nullable"
    ).fetchall()
    connection.close()
    views = {view.name for view in VIEWS}
    found = {(table, column) for table, column in rows if table not in views}
    assert found == {
        (table.name, column.name)
        for table in TABLES.values()
        for column in table.columns
        if column.nullable
    }
    with Store.open(path) as store:
        before = store.commits()
        with pytest.raises(StoreError, match="a value is missing") as caught:
            store.commit(
                [],
                commits=[Commit(recommendation_id="a", committed_at=None, price=1)],  # type: ignore[arg-type]
            )
        assert caught.value.reason == "invalid"
        assert store.commits().equals(before)


def test_views_say_when_their_rows_were_received(path: Path) -> None:
    marks = ask(path, "SELECT count(created_at), count(*) FROM portfolio").rows[0]
    assert 0 < marks[0] <= marks[1]
    query = (
        "SELECT bool_and(created_at = arrival) FROM portfolio JOIN inputs ON seq = portfolio.id "
        "WHERE kind = 'bar'"
    )
    assert ask(path, query).rows == [(True,)]
    ended = ask(path, "SELECT created_at, trade_timestamp FROM context_performance").rows
    assert ended
    assert all(created is None or created >= at for created, at in ended)
    ids = [row[0] for row in ask(path, "SELECT id FROM bayesian_data ORDER BY id").rows]
    assert ids == list(range(1, len(ids) + 1))


def test_while_a_process_owns_the_store_its_snapshot_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    assert readable(path) == path
    with Store.open(path) as store:
        copy = store.snapshot()
    monkeypatch.setattr(sql, "connect", _owned_by_another(path))
    assert readable(path) == copy
    copy.unlink()
    with pytest.raises(StoreError) as caught:
        readable(path)
    assert caught.value.reason == "locked"


def _owned_by_another(path: Path) -> Callable[..., None]:
    def connect(_path: Path, **_: object) -> None:
        raise StoreError("owned", reason="locked", file=path)

    return connect


@pytest.mark.parametrize("memory", ["foo", "", "1kb", "512", "-1", "100%", "15MB"])
def test_an_amount_of_memory_is_checked_before_the_file_is_opened(path: Path, memory: str) -> None:
    with pytest.raises(ConfigError, match="--memory: not an amount of memory"):
        ask(path, "SELECT 1", memory=memory)


@pytest.mark.parametrize("memory", ["16MB", "64 mb", "0.5GiB", "1gb"])
def test_amounts_of_memory_are_understood(path: Path, memory: str) -> None:
    assert ask(path, "SELECT count(*) FROM inputs", memory=memory).rows[0][0] > 0


def test_a_fault_of_opening_is_not_called_damage(path: Path) -> None:
    found = classified(duckdb.InvalidInputException("no such option"), path, opening=True)
    assert found.reason == "failed"
    assert "nothing says that it is damaged" in str(found)
    assert classified(duckdb.InternalException("?"), path, opening=True).reason == "damaged"


def test_a_file_that_lost_its_end_says_what_to_do(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def read() -> None:
        with Store.open(path, read_only=True) as store:
            for name in TABLES:
                store.table(name)

    with pytest.raises(StoreError) as caught:
        read()
    assert caught.value.reason == "damaged"
    assert "a.duckdb.wal" in str(caught.value)
    assert "put the newest snapshot in its place" in str(caught.value)


MEGABYTE = "SELECT repeat('x', 1000000) FROM range({rows})"


@pytest.mark.parametrize("query", [MEGABYTE.format(rows=40), "SELECT * FROM range(10000000)"])
def test_rows_are_fetched_as_far_as_memory_allows(path: Path, query: str) -> None:
    with pytest.raises(StoreError, match="the result is larger than 32MB; ask for fewer") as caught:
        ask(path, query, limit=0, memory="32MB", seconds=60)
    assert caught.value.reason == "refused"


def test_large_values_are_counted_wherever_they_are(path: Path) -> None:
    inside = "SELECT [{'a': repeat('x', 1000000)}] FROM range(40)"
    with pytest.raises(StoreError, match="larger than"):
        ask(path, inside, limit=0, memory="32MB", seconds=60)


def test_time_is_looked_at_while_rows_are_fetched(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Deadline(3600.0)
    looked = iter(range(5))

    def left(_: Deadline) -> float:
        return 1.0 if next(looked, None) is not None else 0.0

    monkeypatch.setattr(Deadline, "left_s", property(left))
    with pytest.raises(StoreError, match="with showing its rows") as caught:
        ask(path, "SELECT * FROM range(1000000)", limit=0, seconds=late)
    assert caught.value.reason == "timeout"


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what is in use")
def test_a_process_is_held_to_what_a_query_may_use(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(StoreError, match=r"(memory|larger) than 64MB"), limited("64MB"):
        ask(path, "SELECT repeat('x', 2000000) FROM range(2000)", memory="64MB", seconds=60)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_instants_with_a_zone_need_no_other_package(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytz", None)
    new_york = "make_timestamp(0) AT TIME ZONE 'America/New_York'"
    query = f'SELECT {new_york} AS a, [{new_york}] AS "b""c", \'ä;\' AS a, NULL::TIMESTAMPTZ; -- ;'
    answer = ask(path, query)
    assert answer.columns == ("a", 'b"c', "a", "CAST(NULL AS TIMESTAMPTZ)")
    ((first, listed, *rest),) = answer.rows
    assert first == datetime(1970, 1, 1, 5, tzinfo=UTC)
    assert first.tzinfo is UTC
    assert "1970-01-01" in listed
    assert rest == ["ä;", None]
    ordered = ask(path, "SELECT now() + to_days(range::INT) FROM range(9) ORDER BY 1 DESC", limit=3)
    assert ordered.rows == sorted(ordered.rows, reverse=True)
    assert ordered.cut


def test_a_value_that_has_no_form_here_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match="beyond what can be shown") as caught:
        ask(path, "SELECT INTERVAL 5000000 YEARS")
    assert caught.value.reason == "refused"
    assert ask(path, "SELECT (INTERVAL 5000000 YEARS)::VARCHAR").rows == [("5000000 years",)]
