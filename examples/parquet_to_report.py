"""From a Parquet file to a report, a saved result, and back."""

from __future__ import annotations

from pathlib import Path

import clustercore as cc

# Stands for your own file: times are UTC and the start of the bar, prices in points.
if not Path("bars.parquet").exists():
    made = cc.sample(sessions=40, seed=2)
    made.frame.drop("context").write_parquet("bars.parquet")

bars = cc.read_bars("bars.parquet")
for note in bars.notes:
    print("note:", note)  # what was assumed or removed, with counts

result = cc.backtest(bars, "new-algo")
print("report:", result.report("report.html"))
print("result:", result.save("result"))

again = cc.load_result("result")
print("trades equal:", again.trades.equals(result.trades))
print("statistics equal:", again.stats == result.stats)
print("data:", again.manifest["data"]["source_hash"][:12], "config:", again.config.name)
