from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clustercore.cli.gateway import gateway as command
from clustercore.errors import ConfigError
from clustercore.gateway import sample_parent_data, write_dbn
from tests.live.gateway_clients import Client, wait_until


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command on a free port; give it and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clustercore", "gateway", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, "".join(process.stdout.readline() for _ in range(4))
        finally:
            process.kill()


def port_of(said: str) -> int:
    found = re.search(r"live --gateway 127\.0\.0\.1:(\d+) --symbol ES\n", said)
    assert found is not None, said
    return int(found[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_sample_is_served_until_a_signal_comes(number: signal.Signals) -> None:
    with running("--sessions", "5", "--speed", "inf") as (process, said):
        port = port_of(said)
        assert said.startswith("SIMULATED, sample_parent(seed=1): ")
        assert f"Historical on https://127.0.0.1:{port + 1}" in said
        with Client(port) as client:
            client.subscribe(start=0).start()
            wait_until(lambda: len(client.bars) > 3000)
        process.send_signal(number)
        assert process.wait(10.0) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_file_is_served_from_a_date_to_its_end(tmp_path: Path) -> None:
    data = sample_parent_data(3)
    path = write_dbn(tmp_path / "bars.dbn.zst", data)
    arguments = ["--from", "2024-12-11", "--to", "2024-12-12", "--speed", "inf"]
    with running(str(path), *arguments, "--at-end", "close") as (process, said):
        assert "from 2024-12-10T23:00:00Z at speed inf" in said
        with Client(port_of(said)) as client:
            client.subscribe().run()
        assert process.wait(10.0) == 0
    begin = 1_733_871_600 * 10**9
    day = [row for row in data.frame["ts_event"] if begin - 60 * 10**9 <= row]
    assert [bar[0] for bar in client.bars] == [
        row for row in day if row < begin + 24 * 3600 * 10**9
    ]


def test_a_date_without_bars_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot begin there"):
        command(port=0, start="2019-01-03", sessions=2)
    with pytest.raises(ConfigError, match="no date"):
        command(port=0, start="tomorrow", sessions=2)
