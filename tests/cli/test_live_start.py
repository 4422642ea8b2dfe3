"""How `live`, `doctor` and `service install` begin: what they refuse, where, and what they log."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import Gateway, sample_parent_data
from clustercore.gateway.historical import HistoricalServer
from clustercore.live.key import read_key
from clustercore.live.runner import REHEARSAL_KEY, LiveRunner
from clustercore.live.settings import LiveSettings, read_live_table
from clustercore.store import Store
from tests.cli.conftest import Run
from tests.live.harness import QUICK

# Nobody listens there, and nothing gets that far.
NOWHERE = ("--gateway", "127.0.0.1:9", "--live", "historical=none")
KEY = "db-" + "q7Rt" * 7 + "x"

OWNER = """
import sys
from clustercore.store import Store
with Store.open(sys.argv[1]) as store:
    print("open", flush=True)
    sys.stdin.readline()
"""


def begun(runner: LiveRunner) -> int:
    """Do nothing where the live process would begin."""
    Store.open(runner.database).close()
    raise ConfigError("nothing is run here", field="test", found=str(runner.settings.host))


@pytest.fixture(autouse=True)
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own, and give the process its umask back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("DATABENTO_API_KEY", raising=False)
    (tmp_path / "run").mkdir()
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--db", ""), "--db: not the name of a file"),
        (("--db", "."), "--db: not the name of a file"),
        (("--log", "/"), "--log: the log cannot be written"),
        (("--db", "file/live.duckdb"), "cannot be written"),
        (("--db", "new.duckdb", "--log", "file/live.log"), "--log: the log cannot be written"),
        (("--symbol", "XX"), "--symbol: no product of this name is built in; describe it with"),
    ],
)
def test_a_place_that_cannot_be_used_is_bad_input(
    cli: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "file").write_text("")
    ran = cli("live", *NOWHERE, *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "fault" not in ran.err
    assert "--instrument" not in ran.err


def test_a_second_process_leaves_the_log_of_the_first_alone(cli: Run, tmp_path: Path) -> None:
    Store.open(tmp_path / "live.duckdb").close()
    (tmp_path / "live.log").write_text("mine\n")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, "live.duckdb"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    ran = cli("live", *NOWHERE)
    owner.communicate("\n")
    assert ran.code == 2
    assert f"process {owner.pid}" in ran.err
    assert (tmp_path / "live.log").read_text() == "mine\n"


def test_an_address_of_alerts_that_cannot_be_read_is_shown_nowhere(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERCORE_ALERTS", "mailtos://me:" + "open[sesame42@mail.example.com")
    ran = cli("live", *NOWHERE, "--debug")
    assert ran.code == 2
    assert "CLUSTERCORE_ALERTS: address 1 cannot be read" in ran.err
    shown = ran.out + ran.err + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert "sesame42" not in shown


def test_what_says_itself_what_to_do_needs_no_traceback(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LiveRunner) -> int:
        raise ConfigError("unusable", field="a.b")

    def fail(_: LiveRunner) -> int:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(LiveRunner, "run", refuse)
    assert cli("live", *NOWHERE).code == 2
    log = (tmp_path / "live.log").read_text()
    assert "the live process failed: a.b: unusable" in log
    assert "Traceback" not in log
    monkeypatch.setattr(LiveRunner, "run", fail)
    assert cli("live", *NOWHERE).code == 3
    assert "Traceback" in (tmp_path / "live.log").read_text()


def test_a_warning_before_the_log_is_in_it_and_debug_stays_there(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"DATABENTO_API_KEY={KEY}\n")
    (tmp_path / ".env").chmod(0o644)
    monkeypatch.setattr(LiveRunner, "run", begun)
    ran = cli("live", "--debug")
    assert ran.code == 2
    assert ran.err.splitlines() == ["clustercore: test: nothing is run here (found None)"]
    assert "has mode 0644" in (tmp_path / "live.log").read_text()
    assert "has mode 0644" in ran.out
    assert KEY not in ran.out + (tmp_path / "live.log").read_text()


def test_a_pipe_holds_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ConfigError, match=r"\.env is no file"):
        read_key({}, tmp_path)


@pytest.mark.parametrize(
    ("database", "folder"),
    [
        ("live.duckdb", "."),
        ("live", "."),
        ("es.duckdb", "es"),
        ("mydb", "mydb.files"),
        ("a/mydb", "a/mydb.files"),
    ],
)
def test_the_files_of_a_database_are_never_the_database(
    tmp_path: Path, database: str, folder: str
) -> None:
    runner = LiveRunner(
        QUICK,
        database=database,
        key=REHEARSAL_KEY,
        settings=LiveSettings(gateway="127.0.0.1:9"),
    )
    assert runner.database == tmp_path / database
    assert runner.folder.resolve() == (tmp_path / folder).resolve()


def test_the_log_is_never_the_database(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveRunner, "run", begun)
    assert "nothing is run here" in cli("live", *NOWHERE, "--db", "x.log").err
    assert (tmp_path / "x.log.log").exists()


# A gateway of somebody else's.


@pytest.mark.parametrize("command", [("live",), ("doctor",), ("config", "validate")])
def test_a_file_cannot_send_the_key_elsewhere(
    cli: Run, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)
    path = tmp_path / "es.toml"
    path.write_text('[live]\ngateway = "192.0.2.2:14700"\n')
    arguments = ["--config", path] if command != ("config", "validate") else [path]
    ran = cli(*command, *arguments)
    assert ran.code == 2
    assert "a settings file may name a gateway on this machine only" in ran.err
    assert "192.0.2.2" in ran.err


def test_the_command_line_can(tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveRunner, "run", begun)
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)
    ran = cli("live", "--gateway", "192.0.2.2:14700")
    assert "nothing is run here (found 192.0.2.2)" in ran.err
    path = tmp_path / "es.toml"
    path.write_text('[live]\ngateway = "127.0.0.1:13000"\n')
    assert read_live_table(path) == {"gateway": "127.0.0.1:13000"}


# A service.


@pytest.fixture
def lasting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the folder of this test be one that lasts."""
    monkeypatch.setattr("clustercore.live.service._TEMPORARY", ("/var/tmp",))  # noqa: S108
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--symbol", "ES.c.0"), "such a symbol is not followed"),
        (("--symbol", ""), "symbol"),
        (("--symbol", "ES", "--symbol", "ESZ6"), "asked for twice"),
        (("--set", "entry.mode=close"), "a close that has passed cannot be traded"),
        (("--config", "es.toml"), "live.bogus: no such setting"),
        (("--live", "max_bar_age_s=-1"), "live.max_bar_age_s: out of range"),
        (("--live", "bogus=1"), "live.bogus: no such setting"),
        (("--late", "never"), "live.late: no such word"),
        (("--db", ""), "not the name of a file"),
        (("--db", "missing/live.duckdb"), "there is no such folder"),
        (("--db", "/var/tmp/live.duckdb"), "a /var/tmp of its own"),  # noqa: S108
    ],
)
def test_a_service_that_could_not_run_is_refused(
    cli: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "es.toml").write_text("[live]\nbogus = 1\n")
    for how in ("--dry-run", "--user"):
        ran = cli("service", "install", how, *arguments)
        assert ran.code == 2, ran.out
        assert said in ran.err
    assert not (tmp_path / "config").exists()


def test_nor_is_one_in_a_folder_of_temporary_files(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustercore.live.service._TEMPORARY", (str(tmp_path),))
    ran = cli("service", "install", "--dry-run")
    assert ran.code == 2
    assert "of its own" in ran.err


@pytest.mark.usefixtures("lasting")
def test_a_service_passes_on_what_it_was_given(cli: Run) -> None:
    ran = cli("service", "install", "--dry-run", "--late", "act", "--live", "max_bar_age_s=5")
    assert ran.code == 0, ran.err
    command = next(line for line in ran.out.splitlines() if line.startswith("ExecStart="))
    assert command.endswith(" --late act --live max_bar_age_s=5")


# The doctor.


def checks_of(ran: Any) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(ran.out)["checks"]}


def test_history_says_which_contract_leads_before_there_is_a_database(cli: Run) -> None:
    data = sample_parent_data(sessions=3)
    with HistoricalServer(data) as server, Gateway(data) as gateway:
        address = ("--gateway", f"127.0.0.1:{gateway.port}")
        # The rehearsal's own server is where the settings say.
        ran = cli("doctor", *address, "--config", _historical(server.url), "--json")
        asked = [request.endpoint for request in server.requests]
    checks = checks_of(ran)
    assert checks["contract"]["ok"] is True
    assert checks["contract"]["found"].startswith("ES: ES")
    assert "only a connection proves" in checks["data set"]["found"]
    assert not [endpoint for endpoint in asked if endpoint.startswith("timeseries")]


def _historical(url: str) -> Path:
    path = Path.cwd() / "es.toml"
    path.write_text(f'[live]\nhistorical = "{url}"\n')
    return path


def test_a_gateway_that_is_gone_is_said_at_once(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("clustercore.live.history.History._pause", never)
    checks = checks_of(cli("doctor", "--gateway", "127.0.0.1:9", "--json"))
    assert checks["data set"]["ok"] is False
    assert "no gateway listens on 127.0.0.1:10" in checks["data set"]["found"]
    assert "key" not in checks["data set"]["advice"]
    assert checks["contract"]["ok"] is None
    assert "AssertionError" not in str(checks)


@pytest.mark.parametrize("command", ["live", "doctor"])
@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        (["es"], "(found 'es', expected a product such as ES, or one contract such as ESZ6); did "),
        (["nqz6"], "did you mean NQZ6?"),
        (["ES.FUT"], "did you mean ES?"),
        ([""], "found ''"),
        ([" ES"], "found ' ES'"),
        (["NQ", "NQ"], "asked for twice"),
        (["XX"], "no product of this name"),
    ],
    ids=str,
)
def test_the_doctor_refuses_the_symbols_that_live_refuses(
    cli: Run, command: str, symbols: list[str], said: str
) -> None:
    options = [part for symbol in symbols for part in ("--symbol", symbol)]
    ran = cli(command, *NOWHERE[:2], *options)
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["live", "--db", "no where/live.duckdb"], "mkdir -p '"),
        (["live", "es"], ": this takes no es; did you mean --symbol ES? See clustercore live -"),
        (["stop", "--db", "a b.duckdb"], "clustercore live --db 'a b.duckdb'"),
        (["db", "export", "x.duckdb", "--out", "x.xlsx"], "--out: no such format"),
        (["gateway", "--instrument", "ES", "--instrument", "ES"], "--instrument: asked for twice"),
        (["gateway", "--instrument", "es"], "did you mean"),
        (["gateway", "--history-lag", "-8h"], "--history-lag: not a length of time (found '-8h'"),
        (["gateway", "--port", "70000"], "--port: not an allowed value"),
        (["backtest", "bars.csv", "--interval", "1m"], "pass --column high=NAME where"),
    ],
    ids=str,
)
def test_what_is_said_can_be_typed(
    cli: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "bars.csv").write_text("ts_event,open,hoch,low,close,volume\n0,1,1,1,1,1\n")
    ran = cli(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.csv", "run"]


def test_an_env_file_that_is_none_is_said_of_the_key(cli: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    ran = cli("live")
    assert ran.code == 2
    assert ran.err.startswith("clustercore: DATABENTO_API_KEY: ")
    assert "is no file; write one" in ran.err
    (tmp_path / ".env").rmdir()
    (tmp_path / ".env").write_text("DATABENTO_API_KEY=db-", "utf-16")
    assert "is not UTF-8 text" in cli("live").err


def test_what_is_refused_for_good_is_said_with_what_to_do() -> None:
    from clustercore.cli.live import _say_note, _Tries
    from clustercore.store import FeedEvent

    said: list[str] = []
    event = FeedEvent(
        at=0, kind="state", reason="Authentication failed.", detail={"state": "FATAL"}
    )
    _say_note(said.append, event, _Tries())
    assert said[0].endswith("FATAL: Authentication failed.; see: clustercore doctor")


def test_what_ended_it_is_said_once(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: LiveRunner) -> int:
        raise ConfigError("unusable", field="a.b")

    monkeypatch.setattr(LiveRunner, "run", refuse)
    ran = cli("live", *NOWHERE)
    assert "unusable" not in ran.out
    assert ran.err == "clustercore: a.b: unusable\n"


def test_what_nobody_can_say_comes_with_advice(cli: Run) -> None:
    checks = checks_of(cli("doctor", *NOWHERE[:2], "--config", _historical("none"), "--json"))
    assert checks["contract"]["ok"] is None
    assert "clustercore status" in checks["contract"]["advice"]


def test_the_doctor_reads_the_snapshot_of_a_process_that_runs(cli: Run, tmp_path: Path) -> None:
    from tests.store.made import filled

    path = filled(tmp_path / "live.duckdb", 1)
    with Store.open(path) as store:
        store.snapshot()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    ran = cli("doctor", *NOWHERE[:2], "--config", _historical("none"), "--json")
    owner.communicate("\n")
    checks = checks_of(ran)
    assert checks["history"]["found"].startswith("ES: 1 session;")
    assert checks["bars in sessions"]["ok"] is True


def test_files_of_the_live_process_are_private(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveRunner, "run", begun)
    assert cli("live", *NOWHERE).code == 2
    for name in ("live.duckdb", "live.log"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
