"""A small grid, and why its best cell is not a finding.

Every cell is a trial. On bars without drift, where nothing can be earned, the best of twelve still
looks better than the rest: that is what choosing does.

python examples/grid_of_thresholds.py [FILE]
"""

from __future__ import annotations

import itertools
import sys

import polars as pl

import clustercore as cc

bars = cc.read_bars(sys.argv[1]) if len(sys.argv) > 1 else cc.sample(sessions=60, seed=1)
base = cc.Config.preset("default")
rows = []
for threshold, k in itertools.product((1.25, 1.5, 2.0, 3.0), (0.5, 1.0, 2.0)):
    result = cc.backtest(bars, base.override({"cluster.threshold": threshold, "stop.k": k}))
    kept = ("trades", "expectancy_usd", "net_usd", "p_value")
    rows.append({"threshold": threshold, "k": k, **{name: result.stats[name] for name in kept}})
grid = pl.DataFrame(rows, infer_schema_length=None).sort("net_usd", descending=True)

print(grid)
trials = grid.height
smallest = grid["p_value"].min()
print(f"{trials} trials. By luck alone, one of them has p < 0.05 with a chance of", end=" ")
print(f"{1 - 0.95**trials:.0%} if they were independent.")
if isinstance(smallest, float):
    print(f"Smallest p {smallest:.3f}; times {trials} trials: {min(1.0, trials * smallest):.3f}.")
