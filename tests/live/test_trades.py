"""Profiles made of the market's trades, live: each bar finds its trades, through outages too."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from clustercore.gateway import Fault, GatewayData, sample_parent_data
from clustercore.store import Store
from tests.live.harness import ACTIVE, FRAMES, assert_parity, derived, live, part

TRADES = ACTIVE.override({"profile.source": "trades"})


@pytest.fixture(scope="module")
def market() -> GatewayData:
    """Return two sessions' ends with four trades in each bar."""
    bars = part(sample_parent_data(sessions=2), 21.0, 26.0).frame
    quarter = pl.col("volume") // 4
    parts = [
        bars.select(
            (pl.col("ts_event") + second * 10**9).alias("ts_recv"),
            pl.col(price).alias("price"),
            size.alias("size"),
            "symbol",
        ).filter(pl.col("size") > 0)
        for second, price, size in (
            (1, "open", quarter),
            (20, "high", quarter),
            (40, "low", quarter),
            (59, "close", pl.col("volume") - 3 * quarter),
        )
    ]
    return GatewayData.from_bars(bars, pl.concat(parts).sort("ts_recv"), simulated=True)


def assert_trades_make_bars(database: Path) -> pl.DataFrame:
    """Assert that every contract of a consumed bar was a trade before it; return the bars."""
    with Store.open(database, create=False, read_only=True) as store:
        inputs = store.inputs("ES")
    consumed = inputs.filter((pl.col("kind") == "bar") & pl.col("consumed"))
    prints = inputs.filter(pl.col("kind") == "prints")
    assert prints["volume"].sum() == consumed["volume"].sum()
    return consumed


def test_each_bar_finds_its_trades_and_an_outage_changes_nothing(
    market: GatewayData, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    settings = {"late": "act"}
    whole = live(market, tmp_path / "whole", config=TRADES, settings=settings)
    clusters = derived(whole.database, "clusters")
    assert clusters.height > 10
    assert clusters["reason"].is_in(["no_profile"]).sum() == 0
    assert clusters["modal_price"].null_count() < clusters.height
    consumed = assert_trades_make_bars(whole.database)
    assert_parity(whole.database)

    # The second in the middle of a minute: half of its trades are here already, and come again.
    middle = int(consumed["ts"].to_physical()[consumed.height // 2]) + 45 * 10**9
    faults = (Fault("fin", after_bars=100, outage_s=4), Fault("rst", at=middle, outage_s=400))
    cut = live(market, tmp_path / "cut", config=TRADES, settings=settings, faults=faults)
    assert cut.kinds().count("resumed") >= 2
    assert_trades_make_bars(cut.database)
    assert_parity(cut.database)
    for name in FRAMES:
        assert derived(cut.database, name).equals(derived(whole.database, name)), name
