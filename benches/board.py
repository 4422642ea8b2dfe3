"""The board: every measurement of a run, printed as one table and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.market import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture
    from rich.table import Table

OURS = "clustercore"
EQUAL = "equal"
ORDER = (
    "reading the six columns",
    "Engine.run, whole strategy",
    "the same trades, peers given the signals",
    "the same trades, long",
    "Engine.run, preset",
    "cc.backtest",
    "rolling",
    "DBN",
    "the same,",
    "Engine.step",
    "a process",
    "memory",
    "two engines",
)
LIBRARIES = (
    "clustercore",
    "numpy",
    "polars",
    "pandas",
    "numba",
    "vectorbt",
    "vectorbt-rust",
    "raptorbt",
    "backtesting",
    "wickra",
    "databento",
    "databento-dbn",
    "duckdb",
    "zstandard",
)


@dataclass(frozen=True)
class Target:
    """What a row is held to.

    Parameters
    ----------
    value : float
        The number.
    unit : str
        Its unit, as in ``Row.unit``.
    at_least : bool
        Whether more is better.
    """

    value: float
    unit: str
    at_least: bool = True


@dataclass(frozen=True)
class Row:
    """One measurement.

    Parameters
    ----------
    work : str
        What was done.
    who : str
        ``clustercore`` or a peer.
    value : float
        The figure, in ``unit``.
    unit : str
        ``M bars/s``, ``us``, ``s`` and so on.
    answers : str
        ``equal``, ``VOID: how they differ``, or why they cannot be compared.
    note : str
        Counts, and what a peer is spared or cannot do.
    target : Target or None
        What clustercore is held to.
    at_least : bool
        Whether more is better.
    seconds, best : float or None
        Median and best time of a round.
    rounds : int
        How many.
    """

    work: str
    who: str
    value: float
    unit: str
    answers: str = EQUAL
    note: str = ""
    target: Target | None = None
    at_least: bool = True
    seconds: float | None = None
    best: float | None = None
    rounds: int = 1

    @property
    def void(self) -> bool:
        """Whether the answers differ, so that the figure means nothing."""
        return self.answers.startswith("VOID")

    @property
    def met(self) -> bool | None:
        """Whether the target is met, where there is one."""
        if self.target is None:
            return None
        reached = self.value >= self.target.value
        return reached if self.target.at_least else self.value <= self.target.value


@dataclass
class Board:
    """The rows of a run."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> Row:
        """Keep a row."""
        self.rows.append(row)
        return row

    def measure(
        self,
        benchmark: BenchmarkFixture,
        work: str,
        who: str,
        *,
        count: int,
        prepare: Callable[[int], Any],
        function: Callable[[Any], Any],
        check: Callable[[Any, Any], str | None] | None,
        rounds: int = 5,
        unit: str = "M bars/s",
        note: str | Callable[[Any], str] = "",
        target: float | None = None,
        other: str = "",
    ) -> Row:
        """Time a function over inputs that differ from round to round, and check its last answer.

        ``prepare`` makes the input of a round and ``check`` says how an answer differs; neither is
        timed. ``other`` says why there is nothing to compare.
        """
        kept: dict[str, Any] = {}

        def setup() -> tuple[tuple[Any], dict[str, Any]]:
            kept["number"] = kept.get("number", -1) + 1
            kept["answer"] = None
            kept["input"] = prepare(kept["number"])
            return (kept["input"],), {}

        def timed(given: Any) -> Any:
            kept["answer"] = function(given)
            return kept["answer"]

        benchmark.group = work
        benchmark.name = who
        run: Any = benchmark.pedantic
        run(timed, setup=setup, rounds=rounds, warmup_rounds=1, iterations=1)
        measured: Any = benchmark.stats
        times = list(measured.stats.data)
        difference = check(kept["input"], kept["answer"]) if check else None
        answers = other or EQUAL
        if difference:
            answers = f"VOID: {difference}"
        middle = statistics.median(times)
        return self.add(
            Row(
                work,
                who,
                count / middle / 1e6,
                unit,
                answers,
                note(kept["answer"]) if callable(note) else note,
                Target(target, unit) if target else None,
                seconds=middle,
                best=min(times),
                rounds=rounds,
            )
        )

    def of(self, work: str) -> list[Row]:
        """Return the rows of a piece of work, ours first."""
        rows = [row for row in self.rows if row.work == work]
        return sorted(rows, key=lambda row: row.who != OURS)

    @property
    def works(self) -> list[str]:
        """Every piece of work, the main job first."""

        def place(work: str) -> int:
            starts = (number for number, start in enumerate(ORDER) if work.startswith(start))
            return next(starts, len(ORDER))

        return sorted(dict.fromkeys(row.work for row in self.rows), key=place)

    def write(self, path: Path) -> None:
        """Write the rows and where they come from."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"setting": setting(), "rows": [asdict(row) for row in self.rows]}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_board(path: Path) -> tuple[dict[str, Any], Board]:
    """Return setting and rows of a run."""
    content = json.loads(path.read_text("utf-8"))
    rows = [
        Row(**{**row, "target": Target(**row["target"]) if row["target"] else None})
        for row in content["rows"]
    ]
    return content["setting"], Board(rows)


def figure(value: float) -> str:
    """Return a number with three digits that count.

    >>> figure(0.04567), figure(4.567), figure(456.7)
    ('0.0457', '4.57', '457')
    """
    digits = 3
    for limit in (1, 10, 100):
        if abs(value) < limit:
            break
        digits -= 1
    return f"{value:.{4 if abs(value) < 0.1 else digits if abs(value) >= 1 else 3}f}"


def ratio_of(ours: Row, row: Row) -> float:
    """Return how many times better ours is."""
    return ours.value / row.value if row.at_least else row.value / ours.value


def verdict_of(row: Row) -> str:
    """Return whether the target is met and by how much, in a few words."""
    if row.target is None:
        return ""
    sign = "at least" if row.target.at_least else "at most"
    told = f"{sign} {figure(row.target.value)}: "
    if row.met:
        return told + "met"
    share = row.value / row.target.value
    short = 1 - share if row.target.at_least else share - 1
    return told + f"missed by {short * 100:.0f} %"


def setting() -> dict[str, Any]:
    """Return machine, versions and commit; nothing that names the host."""
    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "rust", "python", "Cargo.toml"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "rust": _first_line("rustc", "--version"),
        "versions": {name: _version(name) for name in LIBRARIES},
        "commit": git.stdout.strip() or "unknown",
        "uncommitted": bool(changed.stdout.strip()),
        "command": "make bench",
    }


def _first_line(*command: str) -> str:
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    if sys.platform == "linux":
        facts: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
        name = facts.get("model name", "unknown")
        model = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
        return f"{name}, {model}, {float(facts.get('cpu MHz', 0)) / 1000:.1f} GHz"
    return platform.processor()


def table_of(board: Board) -> Table:
    """Return the run as one table."""
    from rich.table import Table

    table = Table(title="clustercore beside its peers, same run, same answers", pad_edge=False)
    table.add_column("work", max_width=34)
    table.add_column("who", max_width=26)
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("clustercore is", justify="right", no_wrap=True)
    table.add_column("answers", max_width=24)
    table.add_column("target", max_width=24)
    table.add_column("what was counted", max_width=60)
    for work in board.works:
        rows = board.of(work)
        ours = rows[0] if rows[0].who == OURS else None
        for place, row in enumerate(rows):
            peer = ours is not None and row is not ours and not row.void
            times = (
                f"{figure(ratio_of(ours, row))} x"
                if ours and peer and row.unit == ours.unit
                else ""
            )
            table.add_row(
                work if place == 0 else "",
                row.who,
                f"{'VOID ' if row.void else ''}{figure(row.value)} {row.unit}",
                times,
                row.answers,
                verdict_of(row),
                row.note,
                end_section=place == len(rows) - 1,
            )
    return table
