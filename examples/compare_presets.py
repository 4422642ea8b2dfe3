"""Run every preset over the same bars and compare them in one table.

Five rows are five trials: the best of five looks better than it is.

python examples/compare_presets.py [FILE]
"""

from __future__ import annotations

import sys

import polars as pl

import clustercore as cc

COLUMNS = ("trades", "win_rate", "gross_usd", "net_usd", "adverse_net_usd", "p_value")

bars = cc.read_bars(sys.argv[1]) if len(sys.argv) > 1 else cc.sample(sessions=60, seed=1)
results = {name: cc.backtest(bars, name) for name in cc.Config.presets()}
table = pl.DataFrame(
    [
        {"preset": name, **{column: result.stats[column] for column in COLUMNS}}
        for name, result in results.items()
    ],
    schema={"preset": pl.String, **dict.fromkeys(COLUMNS, pl.Float64)},
)

print(bars)
print(table)
for name, result in results.items():
    print(f"{name}: {result.verdict}")
