"""Backtest a file, or the SIMULATED sample, and write the report.

python examples/backtest.py [FILE] [PRESET]
"""

from __future__ import annotations

import sys

import clustercore as cc

arguments = iter(sys.argv[1:])
source, preset = next(arguments, None), next(arguments, "default")

bars = cc.read_bars(source) if source else cc.sample(sessions=60, seed=1)
result = cc.backtest(bars, preset)

print(result.summary())
print()
print(result.trades.select("entry_time", "direction", "entry_price", "exit_reason", "net").tail(5))
print("report:", result.report("report.html"))
