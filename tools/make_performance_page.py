"""Write docs/performance.md from the JSON of a benchmark run.

    python tools/make_performance_page.py out/benchmarks.json docs/performance.md
    python tools/make_performance_page.py out/benchmarks.json docs/performance.md out/live.json

The third file is of a run of the live works alone, which takes its time on a quiet machine.
Why a target is missed stands in benches/reasons.toml, by the name of the work; a missed target
without a sentence there is an error, and so is a void row.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benches.board import OURS, Board, Row, figure, ratio_of, read_board, verdict_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REASONS = ROOT / "benches" / "reasons.toml"
LIMIT_WORK = "reading the six columns once"
LIVE = "live: "


def page(
    setting: Mapping[str, Any],
    board: Board,
    texts: Mapping[str, Any],
    live_setting: Mapping[str, Any] | None = None,
) -> str:
    """Return the page; ``live_setting`` is that of another run, which the live rows are of.

    Raises
    ------
    ValueError
        A row is void, or a missed target has no reason.
    """
    void = [f"{row.work}, {row.who}: {row.answers}" for row in board.rows if row.void]
    if void:
        raise ValueError("void rows have no place on the page: " + "; ".join(void))
    lines = [
        "# Performance",
        "",
        texts["introduction"].strip(),
        "",
        *_setting_lines(setting),
        "",
        *_table_lines(board, [work for work in board.works if not work.startswith(LIVE)]),
        "",
        "## The live path",
        "",
        texts["live"].strip(),
        "",
        *([] if live_setting is None else [*_run_lines(live_setting), ""]),
        *_table_lines(board, [work for work in board.works if work.startswith(LIVE)]),
        "",
        "## Targets that are missed",
        "",
        *_missed_lines(board, texts["reasons"]),
        "",
        "## Distance to the physical limit",
        "",
        *_limit_lines(board),
        "",
        "## How it is measured",
        "",
        texts["method"].strip(),
        "",
    ]
    return "\n".join(lines)


def _setting_lines(setting: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(
        f"{name} {version}"
        for name, version in setting["versions"].items()
        if version != "not installed"
    )
    machine = f"{setting['processor']}; {setting['cores']} cores, {setting['memory_gib']} GiB"
    yield f"- Machine: {machine}, {setting['system']}"
    yield f"- Versions: Python {setting['python']}, {setting['rust']}, {versions}"
    yield from _run_lines(setting)


def _run_lines(setting: Mapping[str, Any]) -> Iterator[str]:
    commit = setting["commit"] + (
        " with changes not yet committed" if setting["uncommitted"] else ""
    )
    yield f"- Commit: {commit}"
    yield f"- Command: `{setting['command']}`"


def _table_lines(board: Board, works: Sequence[str]) -> Iterator[str]:
    if not works:
        yield "Not measured in this run."
        return
    yield "| work | who | figure | clustercore is | answers | target | what was counted |"
    yield "|---|---|---:|---:|---|---|---|"
    for work in works:
        rows = board.of(work)
        for place, row in enumerate(rows):
            times = ""
            if rows[0].who == OURS and place and row.unit == rows[0].unit:
                times = f"{figure(ratio_of(rows[0], row))} times"
            cells = (
                work.removeprefix(LIVE) if place == 0 else "",
                f"**{row.who}**" if row.who == OURS else row.who,
                f"{figure(row.value)} {row.unit}",
                times,
                row.answers,
                verdict_of(row),
                row.note,
            )
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _missed_lines(board: Board, reasons: Mapping[str, str]) -> Iterator[str]:
    missed = [row for row in board.rows if row.met is False]
    if not missed:
        yield "None."
    for row in missed:
        reason = next((text for start, text in reasons.items() if row.work.startswith(start)), None)
        if reason is None:
            raise ValueError(f"benches/reasons.toml does not say why {row.work!r} is missed")
        found = f"{figure(row.value)} {row.unit}, {verdict_of(row)}"
        yield f"- **{row.work.removeprefix(LIVE)}**: {found}. {reason.strip()}"


def _limit_lines(board: Board) -> Iterator[str]:
    limits = [row for row in board.rows if row.work == LIMIT_WORK]
    if not limits:
        yield "Not measured in this run."
        return
    limit = limits[0]
    yield (
        "One core of this machine reads the six int64 columns once (a sum) at "
        f"{figure(limit.value)} million bars a second; nothing that looks at every "
        "price can be faster."
    )
    yield ""
    yield "| work | figure | share of the limit |"
    yield "|---|---:|---:|"
    for row in _bar_rows(board):
        yield f"| {row.work} | {figure(row.value)} {row.unit} | {row.value / limit.value:.1%} |"


def _bar_rows(board: Board) -> Iterator[Row]:
    yield from (row for row in board.rows if row.who == OURS and row.unit == "M bars/s")


def main(arguments: list[str]) -> int:
    """Write the page and say where."""
    source = Path(arguments[0]) if arguments else ROOT / "out" / "benchmarks.json"
    target = Path(arguments[1]) if arguments[1:] else ROOT / "docs" / "performance.md"
    texts = tomllib.loads(REASONS.read_text("utf-8"))
    try:
        setting, board = read_board(source)
        live_setting = None
        if arguments[2:]:
            live_setting, live_board = read_board(Path(arguments[2]))
            board.rows += live_board.rows
        text = page(setting, board, texts, live_setting)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    target.write_text(text, "utf-8")
    print(f"wrote {target.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
