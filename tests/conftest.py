"""What every test shares: real data, a browser, hypothesis profiles, and a summary by group."""

from __future__ import annotations

import collections
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CLUSTERCORE_DATA") or ROOT.parent / "shared" / "data")
REQUIRED = frozenset(filter(None, os.environ.get("CLUSTERCORE_REQUIRE", "").split(",")))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

hypothesis.settings.register_profile(
    "fast",
    max_examples=50,
    # Two workers share two cores with whatever else runs there, so a slow example says nothing.
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # The same examples on every run: a change either breaks a test or does not.
    derandomize=True,
    print_blob=True,
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("fast"), max_examples=2_000, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def missing(requirement: str, reason: str) -> None:
    """Skip the test, or fail it when ``CLUSTERCORE_REQUIRE`` names what is missing.

    Parameters
    ----------
    requirement : str
        ``data`` or ``browser``.
    reason : str
        What was looked for, and how to provide it.
    """
    if requirement in REQUIRED:
        pytest.fail(f"{reason} (CLUSTERCORE_REQUIRE asks for {requirement!r})", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real market data."""
    if not DATA_DIR.is_dir():
        missing(
            "data", f"no market data at {os.path.relpath(DATA_DIR, ROOT)}: set CLUSTERCORE_DATA"
        )
    return DATA_DIR


@pytest.fixture(scope="session")
def browser() -> str:
    """Return the path of a headless-capable Chromium."""
    for name in (os.environ.get("CLUSTERCORE_BROWSER"), *BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    missing("browser", f"no browser on PATH: install one of {', '.join(BROWSERS)}")
    raise AssertionError  # `missing` never returns


def group_of(node_id: str) -> str:
    """Return the group a test belongs to: its folder under ``tests``, or what it documents.

    >>> group_of("tests/unit/test_bars.py::test_order[1]")
    'unit'
    >>> group_of("python/clustercore/bars.py::clustercore.bars.Bars")
    'docstrings'
    """
    parts = node_id.split("::", maxsplit=1)[0].split("/")
    if parts[0] == "python":
        return "docstrings"
    if parts[0] == "tests" and len(parts) > 2:
        return parts[1]
    return parts[0]


def count_by_group(terminal: pytest.TerminalReporter) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each group with its number of tests by outcome."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for outcome in ("passed", "skipped", "failed", "error", "xfailed", "xpassed"):
        for report in terminal.stats.get(outcome, []):
            counts[group_of(report.nodeid)][outcome] += 1
    yield from sorted(counts.items())


def recorded_tables(terminal: pytest.TerminalReporter) -> Iterator[str]:
    """Yield the lines that tests recorded as ``heading`` and ``table``, by file."""
    reports = [*terminal.stats.get("passed", []), *terminal.stats.get("failed", [])]
    # By place in the files: tests that ran side by side end in any order.
    reports.sort(key=lambda report: (report.location[0], report.location[1] or 0))
    for file in dict.fromkeys(report.location[0] for report in reports):
        for wanted in ("heading", "table"):
            for report in reports:
                if report.location[0] == file:
                    yield from (line for name, line in report.user_properties if name == wanted)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, and passed and skipped by group."""
    if tables := list(recorded_tables(terminalreporter)):
        terminalreporter.section("measured")
        for line in tables:
            terminalreporter.write_line(line)
    terminalreporter.section("passed and skipped by group")
    for group, counts in count_by_group(terminalreporter):
        failed = counts["failed"] + counts["error"]
        terminalreporter.write_line(
            f"{group:<12} {counts['passed']:>6} passed {counts['skipped']:>5} skipped"
            + (f" {failed:>5} failed" if failed else "")
            + (f" {counts['xfailed']:>5} xfailed" if counts["xfailed"] else "")
        )
