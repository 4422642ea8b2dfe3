"""The control socket answers its own user, and only what may be asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clustercore.live import control
from clustercore.live.control import (
    COMMANDS,
    CommandQueue,
    ControlError,
    ControlServer,
    ask,
    socket_path,
)

STATUS = {"state": "LIVE", "reason": "", "roots": [{"root": "ES"}]}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Addresses of sockets are short, and folders of tests are not.
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path(short) / "run"))
        yield tmp_path / "live.duckdb"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rule in COMMANDS.items():
        monkeypatch.setitem(COMMANDS, name, replace(rule, seconds=0.2))


@contextlib.contextmanager
def trading(commands: CommandQueue) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Answer commands as the trading thread does."""
    seen: list[tuple[str, dict[str, Any]]] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.005):
            for command in commands.take():
                seen.append((command.name, command.arguments))
                if command.arguments.get("root") == "CL":
                    command.fail("there is no engine CL")
                else:
                    command.done(done=command.name)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def serve(database: Path, commands: CommandQueue | None = None) -> ControlServer:
    given = commands or CommandQueue()
    return ControlServer(socket_path(database), lambda: STATUS, given.submit)


def say(database: Path, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(socket_path(database)))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(line)
        with connection.makefile("rb") as answer:
            return dict(json.loads(answer.readline()))


def test_status_is_the_newest_snapshot(database: Path) -> None:
    with serve(database):
        assert ask(database, "status") == STATUS


def test_commands_are_done_by_the_trading_thread(database: Path) -> None:
    commands = CommandQueue()
    with serve(database, commands), trading(commands) as seen:
        assert ask(database, "reset-halt", root="ES") == {"done": "reset-halt"}
        assert ask(database, "reset-halt", root=None) == {"done": "reset-halt"}
        assert ask(database, "snapshot") == {"done": "snapshot"}
        assert ask(database, "stop") == {"done": "stop"}
        with pytest.raises(ControlError, match="there is no engine CL") as caught:
            ask(database, "reset-halt", root="CL")
    assert caught.value.reason == "refused"
    assert seen[:2] == [("reset-halt", {"root": "ES"}), ("reset-halt", {})]


def test_nobody_there_says_how_to_start(database: Path) -> None:
    with pytest.raises(ControlError, match=r"nothing runs on .*clustercore live --db") as caught:
        ask(database, "status")
    assert caught.value.reason == "not_running"


def test_only_the_owner_can_reach_it(database: Path) -> None:
    with serve(database) as server:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(server.path.stat().st_mode)


def test_an_open_folder_is_closed_to_others(database: Path) -> None:
    folder = socket_path(database).parent
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with serve(database):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_is_a_link_is_refused(database: Path, tmp_path: Path) -> None:
    folder = socket_path(database).parent
    folder.parent.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(ControlError, match="not a folder of this user") as caught:
        serve(database)
    assert caught.value.reason == "unsafe"


def test_another_user_is_refused(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_peer", lambda _: (4711, os.getuid() + 1))
    with serve(database):
        answer = say(database, b'{"command": "status"}\n')
        with pytest.raises(ControlError, match="belongs to another user"):
            ask(database, "status")
    assert answer == {"ok": False, "error": "this process answers only the user it runs as"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_kernel_says_who_asks(database: Path) -> None:
    asker = """
import contextlib, os, socket, sys
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[2])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(b'{"command": "stop"}\\n')
    os.write(1, connection.recv(4096))
"""
    commands = CommandQueue()
    with serve(database, commands) as server:
        command = [sys.executable, "-c", asker, str(server.path.parent), server.path.name]
        kept_out = subprocess.run(command, capture_output=True, check=False)
        assert b"PermissionError" in kept_out.stderr
        # The first barrier is taken away, to see the second.
        server.path.parent.chmod(0o711)
        server.path.chmod(0o666)
        run = subprocess.run(command, capture_output=True, check=True)
    assert b"answers only the user it runs as" in run.stdout
    assert commands.take() == []


def test_a_live_one_is_not_replaced(database: Path) -> None:
    with serve(database):
        with pytest.raises(
            ControlError, match=rf"another process \({os.getpid()}\) runs"
        ) as caught:
            serve(database)
        assert caught.value.reason == "running"
        assert ask(database, "status") == STATUS
    with serve(database):
        assert ask(database, "status") == STATUS


def test_what_a_dead_process_left_is_replaced(database: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from clustercore.live.control import *;"
        "s = ControlServer(socket_path(Path(sys.argv[1])), dict, CommandQueue().submit);"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(database)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        with pytest.raises(ControlError, match=rf"another process \({child.pid}\)"):
            serve(database)
        child.send_signal(signal.SIGKILL)
    assert socket_path(database).exists()
    with pytest.raises(ControlError, match="nothing runs on"):
        ask(database, "status")
    with serve(database):
        assert ask(database, "status") == STATUS


def test_two_databases_are_two_sockets(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.duckdb"
    database.touch()
    link.symlink_to(database)
    assert socket_path(link) == socket_path(database)
    assert socket_path(tmp_path / "other.duckdb") != socket_path(database)


def test_without_a_runtime_folder_the_state_folder_is_used(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_path(database).parent == tmp_path / "home/.local/state/clustercore"
    with serve(database):
        # A session that has a runtime folder finds a process that had none.
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        assert ask(database, "status") == STATUS


def test_a_long_path_is_reached(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * 40)))
    with serve(database) as server:
        assert len(str(server.path)) > 200
        assert ask(database, "status") == STATUS
    with pytest.raises(ControlError, match="nothing runs on"):
        ask(database, "status")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello\n", "not JSON"),
        (b"[" * 4000 + b"\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[]\n", "no command"),
        (b"{}\n", "no command"),
        (b'{"command": 5}\n', "no command"),
        (b'{"command": "rm"}\n', "there is no command 'rm'; there are status, stop"),
        (b'{"command": "status", "root": "ES"}\n', "takes no argument 'root'"),
        (b'{"command": "reset-halt", "root": 5}\n', "must be text"),
        (b'{"command": "status"' + b" " * 5000 + b"}\n", "longer than 4096 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused(database: Path, line: bytes, said: str) -> None:
    with serve(database):
        answer = say(database, line)
        assert not answer["ok"]
        assert said in answer["error"]
        assert ask(database, "status") == STATUS


def test_a_line_that_is_never_whole_is_refused(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_REQUEST_S", 0.2)
    with serve(database):
        answer = say(database, b'{"command": "status"')
    assert answer == {"ok": False, "error": "no whole line came within 0.2 s"}


def test_an_unknown_command_is_refused_before_it_is_sent(database: Path) -> None:
    with pytest.raises(ControlError, match="there is no command 'halt'"):
        ask(database, "halt")


def test_an_asker_that_goes_away_harms_nobody(database: Path) -> None:
    with serve(database):
        for sent in (b"", b'{"command"', b'{"command": "status"}\n'):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(socket_path(database)))
                connection.sendall(sent)
        assert ask(database, "status") == STATUS


def test_many_askers_wait_for_each_other(database: Path) -> None:
    before = threading.active_count()
    with serve(database), contextlib.ExitStack() as held:
        for _ in range(8):
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(socket_path(database)))
        answers: list[object] = []
        askers = [
            threading.Thread(target=lambda: answers.append(ask(database, "status")))
            for _ in range(4)
        ]
        for asker in askers:
            asker.start()
        assert threading.active_count() <= before + 1 + 8 + len(askers)
        held.close()
        for asker in askers:
            asker.join()
    assert answers == [STATUS] * 4


@pytest.mark.usefixtures("impatient")
def test_a_command_that_was_given_up_is_not_done_later(database: Path) -> None:
    commands = CommandQueue()
    with serve(database, commands):
        with pytest.raises(ControlError, match=r"did not answer reset-halt .* given up; try again"):
            ask(database, "reset-halt")
        assert commands.take() == []
        with pytest.raises(ControlError, match="still waiting to be done"):
            ask(database, "stop")
        (stop,) = commands.take()
        stop.done()


def test_a_status_that_fails_is_an_answer(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    def status() -> dict[str, Any]:
        raise ZeroDivisionError

    def submit(name: str, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        raise AssertionError

    with (
        ControlServer(socket_path(database), status, submit),
        pytest.raises(ControlError, match="it failed: ZeroDivisionError; see the log"),
    ):
        ask(database, "status")
    assert "a request at the control socket failed" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b'{"ok": true}\n', b"5\n"])
def test_a_strange_answer_is_said_to_be_one(database: Path, answer: bytes) -> None:
    path = socket_path(database)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def reply() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(ControlError, match="live process") as caught:
            ask(database, "status")
        thread.join()
    assert caught.value.reason == "broken"


def test_closing_leaves_nothing_and_answers_what_is_due(database: Path) -> None:
    before = threading.active_count()
    commands = CommandQueue()
    server = serve(database, commands)
    answers: list[object] = []
    asker = threading.Thread(target=lambda: answers.append(ask(database, "stop")))
    asker.start()
    while not (taken := commands.take()):
        time.sleep(0.001)  # noqa: TID251 -- a test may wait
    taken[0].done(stopping=True)
    server.close()
    server.close()
    asker.join()
    assert answers == [{"stopping": True}]
    assert not server.path.exists()
    assert threading.active_count() == before


def test_closing_waits_for_an_answer_on_its_way(database: Path) -> None:
    before = threading.active_count()
    asked = threading.Event()

    def status() -> dict[str, Any]:
        asked.set()
        threading.Event().wait(0.2)
        return STATUS

    with socket.socket(socket.AF_UNIX) as connection:
        with ControlServer(socket_path(database), status, CommandQueue().submit):
            connection.connect(str(socket_path(database)))
            connection.sendall(b'{"command": "status"}\n')
            assert asked.wait(5)
        assert threading.active_count() == before
        assert json.loads(connection.recv(4096))["answer"] == STATUS


def test_a_closed_queue_refuses_what_waits_and_what_comes() -> None:
    commands = CommandQueue()
    waiting = commands.submit("snapshot", {})
    commands.close()
    for future in (waiting, commands.submit("snapshot", {})):
        with pytest.raises(ControlError, match="the process is stopping"):
            future.result(timeout=1)


def test_the_trading_thread_is_woken() -> None:
    woken = threading.Event()
    CommandQueue(woken.set).submit("stop", {})
    assert woken.is_set()
