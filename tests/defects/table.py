"""Which defect is shown by which test, and why the others need none: makes `docs/defects.md`.

Run ``python -m tests.defects.table`` after a change of a test's name or sentence.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = Path(__file__).with_name("test_defects.py")
PAGE = ROOT / "docs" / "defects.md"
DEFECTS = tuple(
    f"D{number}{letter}"
    for number in range(1, 57)
    for letter in ("", "b")
    if not letter or number in (9, 16)
)
# What belongs to parts that do not exist here, or cannot be written down as one test.
ABSENT = {
    "D10": "A live bar has a number and no symbol: our own map, made of the stream's "
    "mappings, names it, and a bar without a name is set aside and said "
    "(`tests/live/test_feed_behaviours.py`, 8).",
    "D14": "A time that a database does not take. The store has types for times, and every kind of "
    "input comes back as it went in (`tests/store/test_store.py`).",
    "D15": "As D14, on closing a trade.",
    "D16": "A lock between two connections to a database. One connection writes a bar and all it "
    "caused in one transaction (`tests/live/test_kill.py`).",
    "D35": "A menu for manual feedback. There is none yet; the context it must use stands on the "
    "order and on the trade (D8, D26).",
    "D43": "Two threads that consume one queue. Live, one thread takes, trades and writes; an "
    "engine that a second thread calls answers `EngineBusy`.",
    "D44": "A stream that is reconnected twice or not at all. One supervisor, a fresh connection "
    "each time, every end a loss that is repaired (`tests/live/test_feed_faults.py`).",
    "D45": "Positions lost at a restart. The log is folded again; deaths at every write boundary "
    "and at random moments lose and repeat nothing (`tests/live/test_kill.py`).",
    "D53": "Cost that grows with history. State is incremental, which the benchmarks measure; "
    "a time limit in a test would fail for reasons of its own.",
    "D54": "Servers, keys and process control open to others. A live process opens no port, is "
    "controlled through a socket of its user, and shows its key to nobody "
    "(`tests/live/test_control.py`, `tests/live/test_secret.py`).",
    "D55": "Commands that were named and did not exist. Every code block and command of the "
    "documents runs in the tests.",
}
HEADING = """# Defects of earlier systems

The public volume-cluster systems had defects that decided their results. Each stands here once:
with the test that they would fail, or with the reason why none is needed. Tests are in
`tests/defects/test_defects.py`. This page is made by `python -m tests.defects.table`.

| defect | here | shown by |
|---|---|---|
"""
FACTS = """
## Facts

| fact | shown by |
|---|---|
"""


def sentences() -> dict[str, str]:
    """Return each test's name with the first line of its docstring."""
    tree = ast.parse(TESTS.read_text("utf-8"))
    return {
        node.name: (ast.get_docstring(node) or "").split("\n", maxsplit=1)[0]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def defect_of(name: str) -> str | None:
    """Return the defect that a test is named after.

    >>> defect_of("test_d09b_a_contract_asked_for_is_the_one_read")
    'D9b'
    """
    match = re.match(r"test_d(\d\d)(b?)_", name)
    return f"D{int(match[1])}{match[2]}" if match else None


def page() -> str:
    """Return the page."""
    tests = sentences()
    by_defect = {defect_of(name): name for name in tests if defect_of(name)}
    lines = []
    for defect in DEFECTS:
        if defect in by_defect:
            name = by_defect[defect]
            lines.append(f"| {defect} | {tests[name]} | `{name}` |")
        else:
            lines.append(f"| {defect} | {ABSENT[defect]} | |")
    facts = [
        f"| {text} | `{name}` |" for name, text in tests.items() if name.startswith("test_fact_")
    ]
    return HEADING + "\n".join(lines) + "\n" + FACTS + "\n".join(facts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
