"""What a run adds to the memory of its process: less than 1.5 times the size of its columns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benches.board import OURS, Row, Target
from benches.market import ROOT

if TYPE_CHECKING:
    from benches.board import Board

WORK = "memory that Engine.run adds, preset {}"
MOST = 1.5
# The kernel keeps the highest resident size of a process; writing 5 starts it again from now.
SCRIPT = """
import gc, json, sys
from pathlib import Path
import clustercore as cc
from benches.market import five_years, sessions

def resident(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024

market = five_years()
size = sum(column.nbytes for column in market.nanos.values())
engine = cc.Engine(cc.Config.preset(sys.argv[1]), market.bars.instrument, sessions())
touched = sum(int(column.sum()) for column in market.nanos.values())
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
frames = engine.run(market.bars, columns=market.nanos, finish=True)
added = resident("VmHWM") - before
print(json.dumps({"size": size, "added": added, "trades": frames["trades"].height}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["default", "new-algo", "v6-live"])
def test_memory(board: Board, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads(done.stdout)
    row = board.add(
        Row(
            WORK.format(name),
            OURS,
            found["added"] / found["size"],
            "x columns",
            "not a comparison",
            f"{found['added'] / 1e6:.0f} MB over columns of {found['size'] / 1e6:.0f} MB; "
            f"{found['trades']} trades",
            Target(MOST, "x columns", at_least=False),
            at_least=False,
        )
    )
    assert row.met, f"added {row.value:.2f} times the size of the columns"
