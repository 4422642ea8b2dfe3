"""Every example runs as a program, and shows what it promises."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40
# Needs a gateway beside it: tests/live/test_example.py.
LIVE = frozenset({"live_runner"})


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in a folder of its own and return what it printed."""
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    return run.stdout


def shows_a_backtest(said: str, folder: Path) -> None:
    assert said.startswith("SIMULATED DATA")
    assert "How far things got" in said
    assert (folder / "report.html").stat().st_size > 0


def shows_every_preset(said: str, _: Path) -> None:
    assert "SIMULATED" in said
    for preset in ("default", "new-algo", "new-algo-patient", "v6", "v6-live"):
        assert said.count(f"\n{preset}: ") == 1


def shows_what_is_refused(said: str, _: Path) -> None:
    assert said.count("refused: stop.k") == 2
    first, second = re.findall(r"^([0-9a-f]{12}) ", said, re.MULTILINE)
    assert first != second


def warns_of_trials(said: str, _: Path) -> None:
    assert "12 trials. By luck alone" in said


def sees_the_leak_and_no_gain_without_it(said: str, _: Path) -> None:
    rows = re.findall(r"(\d+) trades ([+-][\d.]+) % \+- ([\d.]+) %", said)
    (leak_trades, leak, leak_error), (trades, honest, error) = (map(float, row) for row in rows)
    assert min(leak_trades, trades) >= 200
    assert leak > 5 * leak_error
    assert abs(honest) < 3 * error


def brings_the_result_back(said: str, folder: Path) -> None:
    assert "trades equal: True" in said
    assert "statistics equal: True" in said
    assert run_example("backtest.py", folder, "bars.parquet", "v6").count("v6 on ES") == 1


def is_one_engine(said: str, _: Path) -> None:
    assert "step and run equal: True" in said
    assert said.count("trade out at") >= 3


# What each example must show; one without an entry here fails.
SHOWS: dict[str, Callable[[str, Path], None]] = {
    "backtest": shows_a_backtest,
    "compare_presets": shows_every_preset,
    "custom_config": shows_what_is_refused,
    "grid_of_thresholds": warns_of_trials,
    "look_ahead": sees_the_leak_and_no_gain_without_it,
    "parquet_to_report": brings_the_result_back,
    "step_by_step": is_one_engine,
}


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.stem not in LIVE], ids=lambda path: path.stem
)
def test_example_runs_and_shows_what_it_promises(path: Path, tmp_path: Path) -> None:
    SHOWS[path.stem](run_example(path.name, tmp_path), tmp_path)


def code_lines(path: Path) -> int:
    """Return how many lines of a file are neither blank, comment nor docstring."""
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source), clean=False) or ""
    body = source.replace(docstring, "", 1)
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") for line in body.split("\n")
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert code_lines(path) <= MOST_LINES
