"""What can happen to a file: the store says what it is, and holds whole transactions only."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import duckdb
import polars as pl
import pytest

from clustercore.inputs import Entry, Operator
from clustercore.store import FeedEvent, Store, StoreError, schema
from clustercore.store.errors import classified
from tests.store.made import filled

ROOT = Path(__file__).resolve().parents[2]


def reason_of(path: Path, *, create: bool = True, read_only: bool = False) -> str:
    with pytest.raises(StoreError) as caught:
        Store.open(path, create=create, read_only=read_only)
    assert str(path) in str(caught.value)
    return caught.value.reason


def child(source: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


OWNER = """
import sys
from clustercore.store import Store
with Store.open(sys.argv[1]) as store:
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_told_who_owns_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=f"process {owner.pid}") as caught:
        Store.open(path)
    assert caught.value.reason == "locked"
    assert reason_of(path, read_only=True) == "locked"
    owner.communicate("\n")
    Store.open(path).close()


@pytest.mark.parametrize("content", [b"symbol,price\n" * 500, b"x", b""])
def test_another_file_is_no_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    assert reason_of(path) == "foreign"
    assert reason_of(path, read_only=True) == "foreign"
    assert path.read_bytes() == content


def test_a_database_of_someone_else_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    connection = duckdb.connect(str(path))
    connection.execute("CREATE TABLE meta (key VARCHAR, value VARCHAR)")
    connection.close()
    assert reason_of(path) == "foreign"
    assert reason_of(path, read_only=True) == "foreign"


def test_a_place_that_cannot_be_is_said(tmp_path: Path) -> None:
    assert reason_of(tmp_path) == "foreign"
    assert reason_of(tmp_path / "none.duckdb", create=False) == "missing"
    assert reason_of(tmp_path / "none.duckdb", read_only=True) == "missing"
    (tmp_path / "file").write_text("")
    assert reason_of(tmp_path / "file" / "a.duckdb") == "read_only"
    Store.open(tmp_path / "new" / "folder" / "a.duckdb").close()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_damage_is_said_when_opening_or_reading(tmp_path: Path, share: float) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    content = bytearray(path.read_bytes())
    # Every page from there on: what is found depends on what is read first, that it is does not.
    for place in range(int(len(content) * share), len(content), 512):
        content[place] ^= 0xFF
    path.write_bytes(content)

    def read() -> None:
        with Store.open(path, create=False) as store:
            for name in schema.TABLES:
                store.table(name)

    with pytest.raises(StoreError) as caught:
        read()
    assert caught.value.reason == "damaged", caught.value


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 13_000])
def test_a_file_that_is_cut_short_is_said(tmp_path: Path, length: int) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    path.write_bytes(path.read_bytes()[:length])
    assert reason_of(path) == ("foreign" if length < 12 else "damaged")


def test_the_vendor_s_words_are_told_apart() -> None:
    words = {
        'IO Error: Cannot open file "/a": Permission denied': "read_only",
        'IO Error: Cannot open file "/a": Read-only file system': "read_only",
        'IO Error: Could not write file "/a": No space left on device': "disk_full",
        "IO Error: Corrupt database file: computed checksum 1 does not match": "damaged",
        "Binder Error: no such column": "failed",
        "Constraint Error: PRIMARY KEY or UNIQUE constraint violation: duplicate key": "duplicate",
    }
    for text, reason in words.items():
        assert classified(duckdb.Error(text), None).reason == reason, text


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a.duckdb")
    store.close()
    store.close()
    for call in (
        store.inputs,
        store.snapshot,
        lambda: store.commit([Entry(1, "ES", 1, Operator("stop"))]),
        lambda: store.add_feed_event(FeedEvent(at=1, kind="gap")),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.reason == "closed"


def test_a_store_that_is_only_read_refuses_to_write(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    with Store.open(path, read_only=True) as one, Store.open(path, read_only=True) as other:
        assert one.inputs().height == other.inputs().height
        with pytest.raises(StoreError):
            one.add_feed_event(FeedEvent(at=1, kind="gap"))
        assert one.feed_events().is_empty()


def test_a_newer_schema_is_refused_and_an_older_one_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    steps = [*schema.MIGRATIONS, lambda c: c.execute("CREATE TABLE added (a BIGINT)")]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", steps)
        assert reason_of(path, read_only=True) == "invalid"
        with Store.open(path) as store:
            assert dict(store.table("meta").iter_rows())["schema_version"] == "2"
            assert store.count("SELECT count(*) FROM added") == 0
            assert store.inputs().height > 1000
    assert reason_of(path) == "newer"
    assert reason_of(path, read_only=True) == "newer"


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "a.duckdb", 1)

    def failing(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("DROP TABLE outbox")
        connection.execute("SELECT nonsense")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, failing])
        with pytest.raises(StoreError):
            Store.open(path)
    with Store.open(path) as store:
        assert store.table("outbox").is_empty()
        assert dict(store.table("meta").iter_rows())["schema_version"] == "1"


# Files may not grow beyond a size there: what a full disk does, without one.
FULL = """
import resource, signal, sys
from clustercore.inputs import Closed, Entry
from clustercore.store import Store, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    while True:
        first = store.next_seq
        store.commit([Entry(first + n, "ES" * 50, 1, Closed(n, "eoi")) for n in range(500)])
        print(store.next_seq - 1, flush=True)
except StoreError as error:
    print(error.reason, flush=True)
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    Store.open(path).close()
    done = child(FULL, path, path.stat().st_size + 100_000)
    out, err = done.communicate(timeout=60)
    *committed, reason = out.split()
    assert reason == "disk_full", err
    assert committed
    with Store.open(path) as store:
        log = store.inputs()["seq"]
    assert log.len() == int(committed[-1])


# One bar after the other, each with a row that says how many there are, and with its closing.
COMMITTING = """
import sys
from clustercore.events import Equity
from clustercore.inputs import Bar, Closed, Entry
from clustercore.store import FeedEvent, Store
from tests.store.made import epoch
with Store.open(sys.argv[1]) as store:
    if store.next_seq == 1:
        store.commit([Entry(1, "ES", 1, epoch(1))])
    while True:
        seq = store.next_seq
        equity = (Equity(seq, 1.0, 2.0, 0, 0.0),)
        many = 40 if seq % 50 == 2 else 1
        bars = [Bar("ESZ6", seq + n, 1, 1, 1, 1, n) for n in range(many)]
        store.commit(
            [Entry(seq + n, "ES", 1, bar, equity) for n, bar in enumerate(bars)]
            + [Entry(seq + many, "ES", 1, Closed(seq, "eoi"))],
            feed_events=[FeedEvent(at=seq, kind="committed", start=seq, end=seq + many)],
        )
        print(seq + many, flush=True)
"""


def test_a_kill_at_any_time_leaves_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    moments = random.Random(3)
    for _ in range(10):
        running = child(COMMITTING, path)
        assert running.stdout is not None
        said = [running.stdout.readline()]
        threading.Event().wait(moments.uniform(0, 0.15))
        os.kill(running.pid, signal.SIGKILL)
        out, err = running.communicate()
        said += [line for line in out.splitlines(keepends=True) if line.endswith("\n")]
        assert said[0], err
        with Store.open(path) as store:
            log = store.inputs()
            equity = store.derived("equity", "ES")
            journal = store.feed_events()
        # What was said to be committed is there, without a gap, with what it caused.
        assert log["seq"].to_list() == list(range(1, log.height + 1))
        assert log.height >= int(said[-1])
        bars = log.filter(pl.col("kind") == "bar")["seq"]
        assert equity["seq"].to_list() == bars.to_list()
        assert log["kind"].to_list()[-1] == "closed"
        assert journal["end"].to_physical().to_list() == (
            log.filter(pl.col("kind") == "closed")["seq"].to_list()
        )


def test_a_log_that_is_cut_anywhere_opens_with_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    running = child(COMMITTING, path)
    assert running.stdout is not None
    for _ in range(60):
        running.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    file, log = path.read_bytes(), path.with_name("a.duckdb.wal").read_bytes()
    places = random.Random(4)
    for place in sorted(places.randrange(len(log)) for _ in range(12)):
        cut = tmp_path / f"cut{place}.duckdb"
        cut.write_bytes(file)
        cut.with_name(f"{cut.name}.wal").write_bytes(log[:place])
        with Store.open(cut) as store:
            kinds = store.inputs()["kind"].to_list()
            marks = store.derived("equity", "ES").height
        assert kinds.count("bar") == marks
        assert not kinds or kinds[-1] in {"closed", "epoch"}


def test_a_kill_while_the_file_is_made_leaves_none_or_all(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    source = "import sys; from clustercore.store import Store; Store.open(sys.argv[1])"
    stop = "import os, signal; from clustercore.store import schema, files\n"
    killed = "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    for place in ("schema.MIGRATIONS.append(kill)", "files._flush = kill", "os.link = kill"):
        running = child(f"{stop}{killed}{place}\n{source}", path)
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        assert not path.exists(), place
    Store.open(path).close()
