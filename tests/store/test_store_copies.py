"""Copies of a store: what they may replace, who makes them, and who can read them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clustercore as cc
from clustercore.cli import main
from clustercore.cli.db import db
from clustercore.errors import DataError
from clustercore.inputs import Entry, Operator
from clustercore.live.control import ControlServer, socket_path
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.store import FeedEvent, Store, StoreError, snapshot_path, sql
from tests.store.made import filled

OWNER = """
import sys
from clustercore.store import Store
with Store.open(sys.argv[1]) as store:
    print("open", flush=True)
    for line in sys.stdin:
        print(store.snapshot(), flush=True)
"""


def run(*arguments: object) -> int:
    code = db([str(argument) for argument in arguments], result_action="return_value")
    assert isinstance(code, int)
    return code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "m" / "live.duckdb", 1, recommended=True)


@contextlib.contextmanager
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process own a store; each line it is sent makes a snapshot."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process
    finally:
        process.communicate()


@contextlib.contextmanager
def live(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """Let a process own a store that makes a snapshot when it is asked by the control socket."""
    (tmp_path / "run").mkdir(exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    with owner(path) as process:

        def submit(name: str, _: dict[str, Any]) -> concurrent.futures.Future[dict[str, Any]]:
            assert name == "snapshot"
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            done: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
            done.set_result({"path": process.stdout.readline().rstrip("\n")})
            return done

        with ControlServer(socket_path(path), dict, submit):
            yield process


def other_names(path: Path) -> list[Path]:
    """Return a store's file by other paths, and by other names."""
    link, hard = path.with_name("link.duckdb"), path.with_name("hard.duckdb")
    link.symlink_to(path)
    hard.hardlink_to(path)
    return [path, path.parent / ".." / path.parent.name / path.name, link, hard]


def test_a_copy_never_takes_the_place_of_its_own_store(path: Path) -> None:
    before = path.read_bytes()
    for place in other_names(path):
        with pytest.raises(DataError, match="own store"):
            run("snapshot", path, "--out", place)
        with Store.open(path) as store, pytest.raises(StoreError, match="own store"):
            store.snapshot(place)
    assert path.read_bytes() == before


def test_nor_while_a_live_process_owns_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(path, monkeypatch, tmp_path):
        inode = path.stat().st_ino
        for place in other_names(path):
            with pytest.raises(DataError, match="own store"):
                run("snapshot", path, "--out", place)
        assert path.stat().st_ino == inode
        out = tmp_path / "copy.duckdb"
        assert run("snapshot", path, "--out", out) == 0
        assert run("snapshot", path, "--out", out) == 0
        other = filled(tmp_path / "other.duckdb", 1)
        (tmp_path / "notes.txt").write_text("mine")
        for place in (other, tmp_path / "notes.txt"):
            before = place.read_bytes()
            with pytest.raises(DataError, match="no snapshot of that store"):
                run("snapshot", path, "--out", place)
            assert place.read_bytes() == before
    assert run("check", out) == 0


def test_a_copy_replaces_a_snapshot_of_the_same_store_only(path: Path, tmp_path: Path) -> None:
    other = filled(tmp_path / "other.duckdb", 1)
    with Store.open(other) as store:
        of_other = store.snapshot()
    (tmp_path / "notes.txt").write_text("mine")
    for place in (other, of_other, tmp_path / "notes.txt"):
        before = place.read_bytes()
        with pytest.raises(DataError, match="no snapshot of that store"):
            run("snapshot", path, "--out", place)
        assert place.read_bytes() == before
    with pytest.raises(DataError, match="a folder"):
        run("snapshot", path, "--out", tmp_path)
    own = tmp_path / "own.duckdb"
    for _ in range(2):
        assert run("snapshot", path, "--out", own) == 0
    # Who goes on with a copy has a store of his own, whose place is not taken any more.
    Store.open(own).close()
    with pytest.raises(DataError, match="no snapshot of that store"):
        run("snapshot", path, "--out", own)


def test_the_place_beside_a_store_is_for_its_snapshots(path: Path) -> None:
    beside = snapshot_path(path)
    shutil.copy(filled(path.with_name("old.duckdb"), 1), beside)
    with Store.open(path) as store:
        with pytest.raises(StoreError, match="no snapshot of that store"):
            store.snapshot()
        beside.unlink()
        store.snapshot()
    # A store of the same name that was begun anew takes the place over.
    path.unlink()
    with Store.open(path) as again:
        again.snapshot()


def test_a_store_in_use_is_not_replaced(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.duckdb"
    assert run("snapshot", path, "--out", own) == 0
    with owner(own), pytest.raises(DataError, match=r"in use|owns it"):
        run("snapshot", path, "--out", own)
    assert run("snapshot", path, "--out", tmp_path / "second.duckdb") == 0
    (tmp_path / "second.duckdb.wal").write_bytes(b"x")
    with pytest.raises(DataError, match=r"second\.duckdb\.wal belongs to it"):
        run("snapshot", path, "--out", tmp_path / "second.duckdb")


def test_a_copy_makes_its_folder_or_names_the_place(path: Path, tmp_path: Path) -> None:
    assert run("snapshot", path, "--out", tmp_path / "new" / "folder" / "y.duckdb") == 0
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "y.duckdb"
    with pytest.raises(DataError, match="cannot be written") as caught:
        run("snapshot", path, "--out", below)
    assert caught.value.file == str(below)


def modes(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(folder).as_posix(): stat.S_IMODE(file.stat().st_mode)
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_copies_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = filled(tmp_path / "live.duckdb", 1, recommended=True)
        assert run("snapshot", path) == 0
        assert run("snapshot", path, "--out", tmp_path / "copy.duckdb") == 0
        assert run("export", path, "--out", tmp_path / "bars.parquet") == 0
        assert run("export", path, "--out", tmp_path / "bars.csv") == 0
        assert run("export", path, "--out", tmp_path / "tables") == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert len(found) > 10
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}


def test_copies_of_a_live_process_are_too(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o022)
    try:
        with live(path, monkeypatch, tmp_path):
            assert run("snapshot", path, "--out", tmp_path / "copy.duckdb") == 0
    finally:
        os.umask(before)
    assert modes(tmp_path)["copy.duckdb"] == 0o600


def test_a_process_that_owns_a_store_is_asked_for_the_first_copy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = snapshot_path(path)
    with live(path, monkeypatch, tmp_path):
        for arguments in (
            ["db", "sql", path, "SELECT count(*) FROM inputs"],
            ["db", "info", path],
            ["db", "export", path, "--out", tmp_path / "bars.csv"],
            ["parity", "--db", path],
        ):
            copy.unlink(missing_ok=True)
            assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
            assert f"its snapshot {copy}" in capsys.readouterr().err
        # What cannot be done to an owned store says what can: with a copy, and without one.
        assert main(["db", "check", str(path)]) == 2
        assert f"use the snapshot beside it: {copy}" in capsys.readouterr().err
        copy.unlink()
        assert main(["db", "rebuild", str(path)]) == 2
        assert f"clustercore db snapshot {path}" in capsys.readouterr().err


def test_an_owner_that_answers_nothing_is_waited_for(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with owner(path):
        for arguments in (["sql", path, "SELECT 1"], ["info", path], ["snapshot", path]):
            assert main(["db", *map(str, arguments)]) == 2
            said = capsys.readouterr().err
            assert "wait until it ends" in said
            assert "db snapshot" not in said


KILLED = """
import os, sys
from clustercore.store import FeedEvent, Store
store = Store.open(sys.argv[1])
for n in range(50):
    store.add_feed_event(FeedEvent(at=n, kind="state"))
os.kill(os.getpid(), 9)
"""


def test_a_log_of_another_file_is_to_be_moved_away(path: Path) -> None:
    with Store.open(path) as store:
        copy = store.snapshot()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    shutil.copy(copy, path)
    for read_only in (True, False):
        with pytest.raises(StoreError, match=r"live\.duckdb\.wal.*move the log away") as caught:
            Store.open(path, read_only=read_only)
        assert caught.value.reason == "damaged"
    path.with_name("live.duckdb.wal").unlink()
    with Store.open(path) as store:
        store.add_feed_event(FeedEvent(at=1, kind="state"))


def test_a_pipe_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "live.duckdb"
    os.mkfifo(pipe)
    for arguments in (["db", "info", str(pipe)], ["parity", "--db", str(pipe)]):
        assert main(arguments) == 2
        assert "this is no store" in capsys.readouterr().err
    for create in (True, False):
        with pytest.raises(StoreError, match="no store"):
            Store.open(pipe, create=create)


def test_the_size_counts_the_log_and_the_maker_may_be_unknown(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    log = path.with_name("live.duckdb.wal")
    whole = path.stat().st_size + log.stat().st_size
    assert log.stat().st_size > 0
    assert run("info", path) == 0
    assert f"{whole:,} bytes" in capsys.readouterr().out
    with Store.open(path) as store:
        store._open().execute("DELETE FROM meta WHERE key = 'clustercore'")
    assert run("info", path) == 0
    assert "made by clustercore an unknown version" in capsys.readouterr().out


def test_a_store_begun_anew_is_not_read_from_the_copy_of_the_one_before(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(path) as store:
        beside = store.snapshot()
    before = beside.read_bytes()
    path.unlink()
    with live(path, monkeypatch, tmp_path):
        assert main(["db", "sql", str(path), "SELECT count(*) AS n FROM inputs", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == [{"n": 0}]
    # It may be the last copy of what was there.
    assert path.with_name("live.duckdb.snapshot-1.duckdb").read_bytes() == before


def test_a_copy_of_what_a_store_has_not_any_more_is_set_aside(path: Path) -> None:
    with Store.open(path) as store:
        older = store.snapshot(path.with_name("older.duckdb"))
        store.commit([Entry(store.next_seq, "ES", 1, Operator("stop"))])
        beside = store.snapshot()
        assert store.set_aside_snapshot() is None
    shutil.copy(older, path)
    with Store.open(path) as store:
        # Going on with a copy, or another file that was put here: opening it is no new beginning.
        assert beside.exists()
        assert store.set_aside_snapshot() == path.with_name("live.duckdb.snapshot-1.duckdb")
        assert not beside.exists()
        shutil.copy(path.with_name("live.duckdb.snapshot-1.duckdb"), beside)
        assert store.set_aside_snapshot() == path.with_name("live.duckdb.snapshot-2.duckdb")


def test_what_is_no_snapshot_is_not_moved(path: Path) -> None:
    beside = snapshot_path(path)
    for make in (lambda: beside.write_text("mine"), lambda: filled(beside, 1)):
        make()
        with Store.open(path) as store:
            assert store.set_aside_snapshot() is None
        assert beside.exists()
        beside.unlink()
    beside.hardlink_to(path)
    with Store.open(path) as store:
        assert store.set_aside_snapshot() is None
        # The store is still locked against others: its file was not closed a second time.
        code = "import sys; from clustercore.store import Store; Store.open(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True
        )
        assert "owns it" in done.stderr


def test_a_live_process_sets_such_a_copy_aside_when_it_starts(path: Path) -> None:
    Store.open(path.with_name("new.duckdb")).close()
    with Store.open(path) as store:
        beside = store.snapshot()
    # Both files were moved by hand.
    path.with_name("new.duckdb").rename(path)
    runner = LiveRunner(
        cc.Config.preset(),
        database=path,
        settings=LiveSettings(gateway="127.0.0.1:9", historical="none"),
    )
    runner.stop()
    assert runner.run() == 0
    assert not beside.exists()
    assert path.with_name("live.duckdb.snapshot-1.duckdb").exists()


@pytest.mark.parametrize(
    "name",
    ["copied.duckdb", "COPIED.db", 'a"b.duckdb', "a'b.duckdb", "main.duckdb", "pg_catalog.duckdb"],
)
def test_a_store_of_any_name_can_be_copied(tmp_path: Path, name: str) -> None:
    with Store.open(tmp_path / name) as store:
        store.commit([Entry(store.next_seq, "ES", 1, Operator("stop"))])
        store.snapshot()
        copy = store.snapshot()
    with Store.open(copy, create=False, read_only=True) as read:
        assert read.inputs().height == 1
    assert sql.ask(copy, "SELECT value FROM meta WHERE key = 'snapshot'").rows == [("yes",)]


@pytest.mark.parametrize(
    "name",
    [
        "a?access_mode=read_only",
        "a?b/live.duckdb",
        "a\\b.duckdb",
        os.fsdecode(b"\xff.duckdb"),
        "information_schema.duckdb",
        "Information_Schema",
    ],
)
def test_a_name_that_means_something_else_is_refused(
    path: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError, match=r"a store.* pass another path") as caught:
        Store.open(tmp_path / name)
    assert caught.value.reason == "invalid"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    assert main(["db", "snapshot", str(path), "--out", str(tmp_path / name)]) == 2
    assert main(["db", "sql", str(tmp_path / name), "SELECT 1"]) == 2
    assert capsys.readouterr().err.count("pass another path") == 2
    assert not (tmp_path / name).exists()
