"""What one look-ahead is worth: the retest searched from the window's start.

A cluster is known when its window ends. Searched from the window's start, the "retest" is found
among the bars that made the modal price: an entry at a price that the future had already proved.
The bars are SIMULATED and without drift, so an honest rule earns nothing here before costs.
"""

from __future__ import annotations

import math

import numpy as np

import clustercore as cc

HOLD_BARS, SEARCH_BARS, TOLERANCE, TWO_HOURS_NS = 60, 30, 0.75, 7_200_000_000_000

bars = cc.sample(sessions=250, seed=7)
every = {"cluster.threshold": 1.5, "rank.top_n": 1000, "signal.min_strength": 0.0}
clusters = cc.backtest(bars, cc.Config.preset().override(every)).clusters
starts = bars.frame["ts_event"].to_physical().to_numpy()
opens, closes = bars.frame["open"].to_numpy(), bars.frame["close"].to_numpy()


def gross_returns(search_from: str) -> list[float]:
    """Return the gross return, in percent, of every cluster whose retest is found."""
    found = []
    directed = clusters.filter(clusters["direction"].is_in(["long", "short"]))
    for row in directed.to_dicts():
        first = int(np.searchsorted(starts, row[search_from].timestamp() * 1e9))
        near = np.abs(closes[first : first + SEARCH_BARS] - row["modal_price"]) <= TOLERANCE
        entry = first + int(near.argmax()) + 1
        leave = entry + HOLD_BARS
        if not near.any() or leave >= len(starts):
            continue
        if starts[leave] - starts[entry] < TWO_HOURS_NS:  # not across the night's pause
            sign = 1 if row["direction"] == "long" else -1
            found.append(sign * (closes[leave] / opens[entry] - 1) * 100)
    return found


for label, column in (("window's start", "window_start"), ("decision time", "decision_time")):
    gross = np.array(gross_returns(column))
    error = gross.std(ddof=1) / math.sqrt(len(gross))
    print(f"from the {label:<14} {len(gross):5} trades {gross.mean():+.4f} % +- {error:.4f} %")
