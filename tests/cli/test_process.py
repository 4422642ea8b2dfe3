"""How a command starts, is interrupted, fails and ends."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import clustercore as cc
from clustercore.cli import run as running
from clustercore.cli import writing
from clustercore.errors import DataError, InternalError
from clustercore.live.logs import register_secret
from tests.cli.conftest import Run

PROGRAM = [sys.executable, "-m", "clustercore"]
HEAVY = {"databento", "databento_dbn", "duckdb", "jinja2", "pandas", "plotly", "pyarrow"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["backtest", "--help"],
        ["data", "check", "--help"],
        ["backtst"],
        ["backtest", "--prset", "v6"],
        ["versions"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_to_answer(arguments: list[str]) -> None:
    script = (
        "import json, sys\n"
        "from clustercore.cli import main\n"
        "main(json.loads(sys.argv[1]))\n"
        "sys.stderr.write('\\n' + json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(ran.stderr.splitlines()[-1]))
    assert "cyclopts" in loaded
    assert not loaded & HEAVY


def test_a_backtest_needs_no_vendor_and_no_charts(sample_file: Path) -> None:
    script = (
        "import json, sys\n"
        "from clustercore.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.stderr.write(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))\n"
        "sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, "backtest", str(sample_file), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout)["simulated"]
    assert not set(json.loads(ran.stderr)) & HEAVY


def test_the_console_script_and_the_module_are_one_program() -> None:
    script = Path(sys.executable).with_name("clustercore")
    answers = [
        subprocess.run([*program, "--version"], capture_output=True, text=True, check=True).stdout
        for program in ([str(script)], PROGRAM)
    ]
    assert answers[0] == answers[1]


def test_progress_shows_on_a_terminal_and_never_in_the_document(sample_file: Path) -> None:
    terminal, child_end = pty.openpty()
    ran = subprocess.run(
        [*PROGRAM, "backtest", str(sample_file), "--json"],
        stdout=subprocess.PIPE,
        stderr=child_end,
        text=True,
        check=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(child_end)
    shown = read_all(terminal)
    assert "running the strategy" in shown
    assert json.loads(ran.stdout)["simulated"]


def read_all(terminal: int) -> str:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # what a terminal says when its other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_without_a_terminal_there_is_no_progress(sample_file: Path) -> None:
    ran = subprocess.run(
        [*PROGRAM, "clusters", str(sample_file), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    assert json.loads(ran.stdout)["simulated"]


def test_ctrl_c_ends_quietly_and_writes_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "bars.csv"
    os.mkfifo(pipe)
    out = tmp_path / "results"
    # Whoever starts the tests in the background makes them, and what they start, deaf to Ctrl-C.
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from clustercore.cli import main\n"
        "sys.exit(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, "backtest", str(pipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Opening a pipe for writing waits until the program has opened it for reading; closing it lets
    # the program go on, which is when it sees the signal.
    with pipe.open("wb"):
        child.send_signal(signal.SIGINT)
    shown, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert shown == ""
    assert errors == "clustercore: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]


def test_a_reader_that_goes_away_is_no_fault() -> None:
    child = subprocess.Popen(
        [*PROGRAM, "data", "sessions", "--limit", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    errors = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=60) == 141
    assert errors == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["data", "sessions", "--limit", "0"], ["versions"]], ids=" ".join
)
def test_a_reader_that_goes_away_is_nothing_that_a_check_found(arguments: list[str]) -> None:
    ran = subprocess.run(
        ["bash", "-c", '"$@" | true; echo "${PIPESTATUS[0]}"', "bash", *PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("141\n", "")


def test_letters_that_the_output_does_not_have_are_replaced(tmp_path: Path) -> None:
    from clustercore.store import Store

    Store.open(tmp_path / "live.duckdb").close()
    ran = subprocess.run(
        [*PROGRAM, "db", "sql", str(tmp_path / "live.duckdb"), "SELECT 'caf\u00e9 \u20ac' a"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=True,
    )
    assert ran.stdout.decode("latin-1").split() == ["a", "------", "caf\u00e9", "?"]


def test_ctrl_c_during_a_query_is_no_fault(
    cli: Run, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The database library makes this of the signal.
    monkeypatch.setattr(cc.Engine, "run", raising(RuntimeError("Query interrupted")))
    ran = cli("clusters", sample_file)
    assert (ran.code, ran.err) == (130, "clustercore: interrupted\n")


def raising(error: BaseException) -> object:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [InternalError("lost count"), RuntimeError("boom"), OSError(errno.ENOENT, "no template")],
    ids=repr,
)
def test_a_fault_is_short_and_shows_its_traceback_on_demand(
    cli: Run, sample_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cc.Engine, "run", raising(error))
    ran = cli("clusters", sample_file)
    assert ran.code == 3
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert type(error).__name__ in ran.err
    assert "report it" in ran.err
    assert "--debug" in ran.err
    ran = cli("clusters", sample_file, "--debug")
    assert ran.code == 3
    assert "Traceback" in ran.err


def test_a_fault_shows_no_secret(
    cli: Run, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_secret("opensesame42")
    monkeypatch.setattr(cc.Engine, "run", raising(RuntimeError("no host me:opensesame42@here")))
    for arguments in ((), ("--debug",)):
        ran = cli("clusters", sample_file, *arguments)
        assert ran.code == 3
        assert "me:[hidden]@here" in ran.err
        assert "opensesame42" not in ran.err


def test_a_panic_of_a_compiled_library_is_a_fault_too(
    cli: Run, sample_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """What a compiled extension raises; no Exception."""

    monkeypatch.setattr(cc.Engine, "run", raising(PanicException("index out of bounds")))
    ran = cli("clusters", sample_file)
    assert ran.code == 3
    assert "PanicException" in ran.err


def test_a_message_cannot_steer_the_terminal(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "bars\x1b[31m\nred.csv"
    ran = cli("backtest", path)
    assert ran.code == 2
    assert "\x1b" not in ran.err
    assert ran.err.count("\n") == 1


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def earlier(cli: Run, sample_file: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a folder with a result in it, and check that nothing was left beside it."""
    out = tmp_path / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cc.BacktestResult, "report", lambda _result, path: path.write_text("page"))
        assert cli("backtest", sample_file, "--out", out).code == 0
    yield out
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.ENOSPC, "No space left on device"), 2), (RuntimeError("boom"), 3)],
)
def test_a_failure_in_the_middle_leaves_an_earlier_result_as_it_was(
    cli: Run,
    sample_file: Path,
    earlier: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    before = files_of(earlier)

    def half(_result: object, path: Path) -> None:
        assert (path.parent / "manifest.json").exists(), "the result is written before the report"
        path.write_text("<html>")
        raise error

    monkeypatch.setattr(cc.BacktestResult, "report", half)
    ran = cli("backtest", sample_file, "--preset", "new-algo", "--out", earlier)
    assert ran.code == code
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert files_of(earlier) == before


@pytest.mark.parametrize("name", ["clusters.csv", "clusters.parquet"])
def test_a_failure_in_the_middle_of_a_file_leaves_none(
    cli: Run, sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def half(_frame: object, path: Path, **_options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", half)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", half)
    ran = cli("clusters", sample_file, "--out", tmp_path / "new" / name)
    assert ran.code == 2
    assert "No space left on device" in ran.err
    assert name in ran.err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_writing_leaves_nothing(
    cli: Run, sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cc.BacktestResult, "report", raising(KeyboardInterrupt()))
    ran = cli("backtest", sample_file, "--out", tmp_path / "results")
    assert ran.code == running.INTERRUPTED
    assert list(tmp_path.iterdir()) == []


def test_files_have_ordinary_permissions(cli: Run, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    path = tmp_path / "sample.csv"
    assert cli("sample", "--sessions", "1", "--out", path).code == 0
    assert path.stat().st_mode == plain.stat().st_mode
    with writing.staged_folder(tmp_path / "made") as staged:
        (staged / "manifest.json").write_text("{}")
    folder = tmp_path / "ordinary"
    folder.mkdir()
    assert (tmp_path / "made").stat().st_mode == folder.stat().st_mode


def test_a_folder_with_other_files_is_refused_before_any_work(
    cli: Run, sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(cc.Engine, "run", raising(AssertionError("it ran")))
    ran = cli("backtest", sample_file, "--out", tmp_path)
    assert ran.code == 2
    assert "something else" in ran.err
    assert files_of(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("parent", ["/proc", "file"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / parent / "new" / "settings.md"
    with pytest.raises(DataError, match="cannot be written") as caught:
        writing.write_text("text", path)
    assert caught.value.file == str(path)
