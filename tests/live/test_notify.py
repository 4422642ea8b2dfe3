"""What the service manager hears, byte for byte."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustercore.live.notify import Notifier, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    # Addresses of sockets are short, and folders of tests are not.
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        name = f"{folder}/notify" if request.param == "path" else f"@{folder}/notify"
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(5)
        yield listening, name


def test_each_message_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listening, name = manager
    with Notifier({"NOTIFY_SOCKET": name}) as notifier:
        assert notifier.ready("LIVE: ES\nand NQ")
        assert notifier.status("LIVE")
        assert not notifier.status("LIVE")
        assert not notifier.status("")
        assert notifier.stopping()
    assert listening.recv(4096) == b"READY=1\nSTATUS=LIVE: ES and NQ"
    assert listening.recv(4096) == b"STATUS=LIVE"
    assert listening.recv(4096) == b"STOPPING=1"


def test_the_watchdog_is_fed_twice_in_its_time(
    manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, name = manager
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"}) as notifier:
        sent = []
        for _ in range(12):
            sent.append(notifier.beat())
            now += 1.0
    assert [number for number, was in enumerate(sent) if was] == [0, 5, 10]
    assert listening.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative"])
def test_without_a_manager_nothing_happens(name: str) -> None:
    with Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"}) as notifier:
        assert not notifier.ready()
        assert not notifier.beat()
        assert not notifier.stopping("bye")


def test_a_manager_that_is_gone_or_deaf_stops_nobody() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Notifier({"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "2"}) as notifier,
    ):
        assert not notifier.ready()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(f"{folder}/notify")
            heard = [notifier.status(f"{number}") for number in range(2_000)]
            assert heard[0]
            assert not heard[-1]
        assert not notifier.beat()


def test_after_closing_nothing_is_said(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.close()
    notifier.close()
    assert not notifier.ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_of_another_process_is_not_ours(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_interval(environ) == seconds
