"""The strategy's search for signals in Polars expressions; what follows them is NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benches.peers.columns import Inside, answer, choose, retests_of, trades_alone

if TYPE_CHECKING:
    from benches.market import Market
    from benches.strategy import Answer, Rules

PRICES = ("open", "high", "low", "close")


def run_frames(market: Market, rules: Rules) -> Answer:
    """Return the answer of the Polars version."""
    sessions = pl.DataFrame(
        {
            "session_open": market.session_open,
            "session_close": market.session_close,
            "session": np.arange(len(market.session_open)),
        }
    )
    bars = (
        pl.DataFrame(market.nanos)
        .set_sorted("ts_event")
        .join_asof(
            sessions.set_sorted("session_open"),
            left_on="ts_event",
            right_on="session_open",
            coalesce=False,
        )
        .filter(pl.col("ts_event") < pl.col("session_close"))
        .with_columns(
            window=(pl.col("ts_event") - pl.col("session_open")) // rules.window,
            before=pl.col("volume").rolling_sum(rules.baseline_bars).shift(1),
        )
    )
    clusters = (
        bars.group_by("session", "window", maintain_order=True)
        .agg(
            pl.col("session_open", "session_close", "before").first(),
            count=pl.len(),
            total=pl.col("volume").sum(),
            highest=pl.col("high").max(),
            lowest=pl.col("low").min(),
        )
        .with_columns(
            decision=pl.col("session_open") + (pl.col("window") + 1) * rules.window,
            ratio=pl.col("total")
            / (pl.col("before") / rules.baseline_bars * (rules.window / 60e9)),
        )
        .filter(
            (pl.col("count") >= rules.need)
            & (pl.col("ratio") >= rules.threshold)
            & (pl.col("decision") <= pl.col("session_close"))
        )
    )
    earlier = [
        (
            (pl.col("session").shift(lag) == pl.col("session"))
            & (pl.col("decision").shift(lag) >= pl.col("decision") - rules.rank)
            & (pl.col("ratio").shift(lag) >= pl.col("ratio"))
        ).fill_null(value=False)
        for lag in range(1, rules.rank // rules.window + 1)
    ]
    ranked = clusters.filter(~pl.any_horizontal(earlier))
    modal = (
        bars.lazy()
        .select("session", "window", "close", "volume")
        .join(ranked.lazy().select("session", "window"), on=["session", "window"], how="semi")
        .group_by("session", "window", "close")
        .agg(pl.col("volume").sum())
        .sort("volume", "close", descending=[True, False])
        .group_by("session", "window", maintain_order=True)
        .agg(modal=pl.col("close").first())
        .collect()
    )
    signals = (
        ranked.join(modal, on=["session", "window"], maintain_order="left")
        .with_columns(
            position=pl.when(pl.col("highest") > pl.col("lowest"))
            .then((pl.col("modal") - pl.col("lowest")) / (pl.col("highest") - pl.col("lowest")))
            .otherwise(0.5)
        )
        .with_columns(
            side=pl.when(pl.col("position") <= rules.long_threshold)
            .then(1)
            .when(pl.col("position") >= rules.short_threshold)
            .then(-1)
            .otherwise(0)
            .cast(pl.Int64)
        )
        .filter(pl.col("side") != 0)
    )
    columns = [bars[name].to_numpy() for name in ("ts_event", *PRICES, "volume", "session")]
    inside = Inside._make([*columns, market.session_open, market.session_close])
    found = tuple(signals[name].to_numpy() for name in ("decision", "modal", "side", "session"))
    alone = trades_alone(
        inside, rules, retests_of(inside, rules, (found[0], found[1], found[2], found[3]))
    )
    return answer(inside, rules, alone, choose(inside, rules, alone))
