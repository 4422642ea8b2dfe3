"""Every example runs as a program, and shows what it promises."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40


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


def code_lines(path: Path) -> int:
    """Return how many lines of a file are neither blank, comment nor docstring."""
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source), clean=False) or ""
    body = source.replace(docstring, "", 1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in body.split("\n"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    assert run_example(path.name, tmp_path).strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_what_it_does(path: Path) -> None:
    assert code_lines(path) <= MOST_LINES
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["backtest.py", "compare_presets.py", "grid_of_thresholds.py"])
def test_example_says_that_the_sample_is_simulated(name: str, tmp_path: Path) -> None:
    said = run_example(name, tmp_path)
    assert "SIMULATED" in said or name == "grid_of_thresholds.py"
    if name == "grid_of_thresholds.py":
        assert "trials. By luck alone" in said


def test_backtest_takes_a_file_and_a_preset(tmp_path: Path) -> None:
    run_example("parquet_to_report.py", tmp_path)
    said = run_example("backtest.py", tmp_path, "bars.parquet", "new-algo")
    assert said.count("new-algo on ES") == 1
    assert (tmp_path / "report.html").stat().st_size > 0


def test_a_saved_result_comes_back_equal(tmp_path: Path) -> None:
    said = run_example("parquet_to_report.py", tmp_path)
    assert "trades equal: True" in said
    assert "statistics equal: True" in said


def test_step_and_run_are_equal_and_something_happened(tmp_path: Path) -> None:
    said = run_example("step_by_step.py", tmp_path)
    assert "step and run equal: True" in said
    assert said.count("trade out at") >= 3


def test_refused_settings_are_shown(tmp_path: Path) -> None:
    said = run_example("custom_config.py", tmp_path)
    assert said.count("refused:") == 2


def test_the_leak_is_seen_and_the_honest_rule_earns_nothing(tmp_path: Path) -> None:
    said = run_example("look_ahead.py", tmp_path)
    rows = re.findall(r"(\d+) trades ([+-][\d.]+) % \+- ([\d.]+) %", said)
    (leak_trades, leak, leak_error), (trades, honest, error) = (map(float, row) for row in rows)
    assert min(leak_trades, trades) >= 200
    assert leak > 5 * leak_error
    assert abs(honest) < 3 * error
