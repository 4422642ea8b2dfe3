"""Write a strategy of your own, from a settings file and from changes in Python."""

from __future__ import annotations

from pathlib import Path

import clustercore as cc

Path("mine.toml").write_text(
    """preset = "v6"

[cluster]
threshold = 2.5

[exit]
scale_out = [{ fraction = 0.5, reward = 1.0 }]
""",
    "utf-8",
)
mine = cc.Config.load("mine.toml")
wider = mine.override({"stop.k": 2.0, "risk.max_drawdown_pct": None})

# A name that does not exist and a value out of its range are errors, never ignored.
for wrong in ({"stop.kk": 2.0}, {"stop.k": -1.0}):
    try:
        mine.override(wrong)
    except cc.ConfigError as error:
        print("refused:", error)

bars = cc.sample(sessions=60, seed=1)
for config in (mine, wider):
    result = cc.backtest(bars, config)
    # The hash stands on every row of the result: two configurations are never mixed up.
    print(result.manifest["config_id"][:12], config.stop.k, "->", result.verdict)
