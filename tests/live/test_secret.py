"""The API key reaches the vendor's client and nothing else, whatever goes wrong at debug level."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clustercore.gateway import Fault, Gateway, sample_parent_data
from clustercore.live.history import History, HistoryError
from clustercore.live.key import Key
from clustercore.live.logs import configure_logs
from clustercore.live.messages import Lost
from clustercore.live.settings import LiveSettings
from clustercore.live.stream import Connection, Subscription
from tests.live.harness import part

SECRET = "db-" + "Qz7" * 9 + "Kx"


def assert_nowhere(folder: Path) -> None:
    """Assert that no file below a folder has the key in it, in any case or coding it may take."""
    searched = 0
    for path in folder.rglob("*"):
        if path.is_file():
            searched += 1
            assert SECRET.encode() not in path.read_bytes(), path
            assert SECRET[3:].encode() not in path.read_bytes(), path
    assert searched


def messages(connection: Connection, limit_s: float = 20.0) -> list[object]:
    """Return everything that a connection brings until it is lost."""
    found: list[object] = []
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        found += connection.take(0.05)
        if found and isinstance(found[-1], Lost):
            return found
    raise AssertionError("the connection did not end")


@pytest.mark.parametrize("key_of_gateway", [SECRET, "db-" + "A" * 29], ids=["right", "wrong"])
@pytest.mark.parametrize(
    "kind", ["garbage", "bad_length", "fatal_error", "close_before_auth_reply"]
)
def test_a_connection_that_fails_leaks_nothing(
    key_of_gateway: str, kind: str, tmp_path: Path
) -> None:
    data = part(sample_parent_data(sessions=1), 2.0, 3.0)
    fault = Fault(kind) if kind.startswith("close") else Fault(kind, after_bars=20)
    with (
        configure_logs(tmp_path / "live.log", "DEBUG"),
        Gateway(data, key=key_of_gateway, faults=(fault,), at_end="close") as gateway,
    ):
        settings = LiveSettings(gateway=f"127.0.0.1:{gateway.port}")
        wanted = [Subscription("ohlcv-1m", ("ES.FUT",), "parent", None)]
        with (tmp_path / "raw.dbn").open("wb") as capture:
            connection = Connection(Key(SECRET), settings, wanted, capture)
            connection.open()
            if kind.startswith("close"):
                # The vendor's client would wait half a minute for an answer.
                threading.Event().wait(0.3)
                connection.close()
            said = messages(connection)
            connection.close()
    assert SECRET not in repr(said)
    assert (tmp_path / "live.log").stat().st_size > 0
    assert_nowhere(tmp_path)


def test_history_that_is_refused_leaks_nothing(tmp_path: Path) -> None:
    with configure_logs(tmp_path / "live.log", "DEBUG"):
        history = History(
            key=Key(SECRET),
            folder=tmp_path / "history",
            budget_usd=1.0,
            gateway="https://127.0.0.1:9",
            wait=lambda _: None,
            attempts=2,
        )
        with history, pytest.raises(HistoryError) as caught:
            history.available_end("ohlcv-1m")
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert_nowhere(tmp_path)


def test_the_command_line_has_it_nowhere(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=1), 2.0, 4.0)
    environ = os.environ | {"DATABENTO_API_KEY": SECRET, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "clustercore",
        "live",
        "--debug",
        "--live",
        'historical="none"',
    ]
    faults = (Fault("garbage", after_bars=20), Fault("rst", after_bars=60, outage_s=5))
    with Gateway(data, faults=faults, at_end="hold", hold=True) as gateway:
        process = subprocess.Popen(
            [*command, "--gateway", f"127.0.0.1:{gateway.port}"],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert gateway.wait_finished(40)
            argv = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            process.terminate()
            said, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, said.decode()
    assert SECRET.encode() not in argv
    assert SECRET.encode() not in said
    assert b"LIVE" in said
    assert (tmp_path / "live.log").stat().st_size > 0
    assert_nowhere(tmp_path)


def test_a_missing_key_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k != "DATABENTO_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "clustercore", "live"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "DATABENTO_API_KEY" in done.stderr
    assert not list(tmp_path.iterdir())
