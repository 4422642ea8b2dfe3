from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import databento
import pytest

from clustercore.cli import main
from clustercore.cli.gateway import gateway as command
from clustercore.errors import ConfigError
from clustercore.gateway import REHEARSAL_KEY, sample_parent_data, write_dbn
from tests.live.gateway_clients import Client, RawClient, wait_until


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
            said = [process.stdout.readline()]
            while said[-1] and not said[-1].startswith("Start beside it"):
                said.append(process.stdout.readline())
            yield process, "".join(said)
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


def test_a_client_as_it_is_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said is all that the vendor's clients need."""
    with running("--sessions", "5", "--history-lag", "90m") as (_, said):
        key, certificate = re.findall(r"key (\S+) .*\n.*\n +SSL_CERT_FILE=(\S+)\n", said)[0]
        (address,) = re.findall(r"Historical on (\S+), 90m behind the market\n", said)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        span = databento.Historical(key, gateway=address).metadata.get_dataset_range("GLBX.MDP3")
        (begin,) = re.findall(r"Live on \S+ from (\S+)Z", said)
        assert begin == "2024-12-12T23:00:00"
        assert span["end"] == "2024-12-12T21:30:00.000000000Z"
        with Client(port_of(said), key=key) as client:
            client.subscribe().start()
            wait_until(lambda: bool(client.bars))


def test_faults_are_scripted_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--fault", "fin:after_bars=50", "--fault", "limit_reject:after_bars=50,times=1"]
    history = ["--fault", "server_error:endpoint=metadata.list_datasets"]
    with running("--sessions", "5", "--speed", "inf", *arguments, *history) as (_, said):
        assert "Faults: fin:after_bars=50 limit_reject:after_bars=50,times=1 server_error" in said
        with Client(port_of(said)) as client:
            assert client.subscribe().run() is None
            assert len(client.bars) == 50
        with (
            Client(port_of(said)) as client,
            pytest.raises(databento.BentoError, match="connection limit"),
        ):
            client.subscribe()
        certificate = re.findall(r"SSL_CERT_FILE=(\S+)\n", said)[0]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        asking = databento.Historical(
            REHEARSAL_KEY, gateway=f"https://127.0.0.1:{port_of(said) + 1}"
        )
        with pytest.raises(databento.BentoServerError):
            asking.metadata.list_datasets()
        assert asking.metadata.list_datasets() == ["GLBX.MDP3"]


@pytest.mark.parametrize("limits", [True, False])
def test_connections_are_limited_as_at_the_real_gateway(*, limits: bool) -> None:
    with running("--sessions", "5", *([] if limits else ["--no-limits"])) as (_, said):
        if limits:
            wait_until(lambda: not is_greeted(port_of(said)), 60.0)
        else:
            assert all(is_greeted(port_of(said)) for _ in range(40))


def is_greeted(port: int) -> bool:
    with RawClient(port) as client:
        return client.line() != ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--port 70000", "port: .*found 70000, expected 0 to 65535"),
        ("--port -1", "port: .*found -1"),
        ("--port 65535", "--historical-port: .*no port after"),
        ("--port 0 --historical-port 99999", "--historical-port: .*99999"),
        ("--speed 1e308", r"speed: .*found 1e\+308"),
        ("--fault rsy", "--fault: no such fault .*did you mean rst"),
        ("--fault rst:after=3", "--fault: not an option .*found 'after=3'.* after_bars"),
        ("--fault rst:after_bars", "--fault: not an option .*NAME=VALUE"),
        ("--fault rst:after_bars=x", "--fault: .*found 'x' in 'rst:after_bars=x'"),
        ("--fault rst:after_bars=3,at=2024-12-12", "--fault: .*not both"),
        ("--fault rst:at=tomorrow", "--fault: no date and no time"),
        ("--fault rst:outage_s=-1", "--fault: .*found -1.0 in"),
        ("--fault rst:outage_s=nan", "--fault: .*found nan in"),
        ("--fault lose_record:endpoint=metadata.get_cost", "--fault: .*timeseries.get_range"),
        ("--history-lag 8", "--history-lag: .*found '8', expected such as 8h"),
        ("--history-lag 9999999h", "--history-lag: "),
        ("--to 9999-01-01", "--to: no time that a file can hold"),
    ],
)
def test_what_cannot_be_served_is_bad_input(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert main(["gateway", "--sessions", "1", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert error.count("\n") == 1


def test_help_has_examples_of_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "clustercore gateway --fault fin:after_bars=300" in shown
    assert "clustercore gateway --history-lag 8h" in shown
