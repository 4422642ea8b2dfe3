"""Run the command line in this process, and a small file to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clustercore as cc
from clustercore.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and gives its code, output and errors."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of twelve simulated sessions, read-only by custom."""
    path = tmp_path_factory.mktemp("bars") / "sample.parquet"
    cc.sample(sessions=12, seed=3).frame.drop("context").write_parquet(path)
    return path


@pytest.fixture(scope="session")
def months_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of several simulated contract months and their spreads."""
    from clustercore.sample import sample_parent

    path = tmp_path_factory.mktemp("bars") / "months.parquet"
    sample_parent(sessions=8, start="2024-12-10").write_parquet(path)
    return path
