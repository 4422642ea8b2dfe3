"""Trades into bars, bucketed on the time of receipt, as Databento forms its own."""

from __future__ import annotations

import polars as pl

from clustercore.sources.table import ROW

__all__ = ["bars_from_trades"]


def bars_from_trades(trades: pl.DataFrame, interval_ns: int) -> pl.DataFrame:
    """Return one bar for each symbol and interval in which it traded.

    ``trades`` has ``ts_event`` (the time that bars are formed on), ``price``, ``volume``,
    ``symbol`` and the row of the input, in the order in which they happened.
    """
    time = pl.col("ts_event").to_physical()
    return (
        trades.sort("ts_event", maintain_order=True)
        .with_columns((time - time % interval_ns).cast(trades.schema["ts_event"]).alias("ts_event"))
        .group_by("symbol", "ts_event", maintain_order=True)
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.col("volume").sum(),
            pl.col(ROW).first(),
        )
    )
