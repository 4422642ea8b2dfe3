"""The documented pair of commands and the example, as a reader starts them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.rehearsal import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
FAST = "6000"
APART = re.compile(
    r"^(clustercore gateway .+)\n```[\s\S]+?^(clustercore live --gateway .+)\n```", re.MULTILINE
)
TOGETHER = re.compile(r"^(clustercore gateway .+)\n(clustercore live --gateway .+)$", re.MULTILINE)


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    # A socket's path is short; one of pytest's folders is not.
    with tempfile.TemporaryDirectory(prefix="cc-") as runtime:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield {**os.environ, "PATH": path, "COLUMNS": "120", "XDG_RUNTIME_DIR": runtime}


def documented_pair() -> tuple[str, str]:
    """Return the two commands of the operations guide."""
    found = APART.search((ROOT / "docs" / "live.md").read_text("utf-8"))
    assert found
    return found[1], found[2]


def test_readme_and_guide_name_the_same_pair() -> None:
    found = TOGETHER.search((ROOT / "README.md").read_text("utf-8"))
    assert found
    assert found.groups() == documented_pair()


@pytest.mark.slow
def test_documented_pair_shows_a_session_within_a_minute(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    gateway, live = documented_pair()
    begun = time.monotonic()
    with Rehearsal(tmp_path, environ, speed=None) as rehearsal:
        rehearsal.takes(shlex.split(gateway))
        rehearsal.takes(shlex.split(live))
        took_s = time.monotonic() - begun
    said = (tmp_path / "live.said").read_text("utf-8")
    assert took_s < 60
    assert re.search(r"^SIMULATED +(BUY|SELL) \d+ ES\w\d ", said, re.MULTILINE)
    certified = said.rindex("parity ES: replay and store agree")
    # After that the gateway ends, and the live process says that it is gone.
    assert "warning" not in said[:certified]
    assert "DEGRADED" not in said
    assert "parity ES, epoch 1: EQUAL" in said
    assert rows(tmp_path, environ, "SELECT * FROM clusters WHERE decision_time > '2025-01-13'")
    assert rows(tmp_path, environ, "SELECT * FROM trades")
    checked = subprocess.run(["clustercore", "parity"], cwd=tmp_path, env=environ, check=False)
    assert checked.returncode == 0


def rows(folder: Path, environ: dict[str, str], query: str) -> list[object]:
    asked = subprocess.run(
        ["clustercore", "db", "sql", "live.duckdb", query, "--json"],
        cwd=folder,
        env=environ,
        capture_output=True,
        check=True,
    )
    found: list[object] = json.loads(asked.stdout)["rows"]
    return found


def test_example_shows_recommendations_and_parity(tmp_path: Path, environ: dict[str, str]) -> None:
    with Rehearsal(tmp_path, environ, speed=FAST) as rehearsal:
        rehearsal.takes(
            shlex.split("clustercore gateway --sessions 25 --from 2025-01-14 --speed 3000")
        )
        run = subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                str(ROOT / "examples" / "live_runner.py"),
                *rehearsal.adapted("--gateway 127.0.0.1:13000").split(),
            ],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    assert "LIVE: " in run.stdout
    assert len(re.findall(r"^SIMULATED +SELL 1 ESH5 ", run.stdout, re.MULTILINE)) == 2
    assert run.stdout.count("short") == 2
    assert run.stdout.endswith("parity ES: equal\n")
