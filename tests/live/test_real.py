"""Real bars live: what was consumed is the file, and its backtest is what was stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

import clustercore as cc
from clustercore.gateway import Gateway, GatewayData
from clustercore.gateway.historical import HistoricalServer
from tests.live.harness import assert_parity, consumed, derived, live


def nanos(year: int, month: int, day: int) -> int:
    """Return the start of a day, ns UTC."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 10**9


def test_days_of_real_bars_equal_the_backtest_of_what_was_stored(
    data_dir: Path, tmp_path: Path
) -> None:
    file = data_dir / "dbn" / "es_1m_2019.dbn.zst"
    data = GatewayData.from_files([file]).before(nanos(2019, 3, 9))
    config = cc.Config.preset("new-algo")
    with HistoricalServer(data, now=lambda: nanos(2019, 3, 7)) as server:
        run = live(
            data,
            tmp_path,
            config=config,
            start=nanos(2019, 3, 7),
            history=f"https://127.0.0.1:{server.port}",
            replay_limit_s=86_400.0,
        )
    assert run.code == 0
    certificate, *_ = assert_parity(run.database)
    taken = consumed(run.database)
    assert taken.height > 4_000

    # The file has one continuous symbol, which the gateway serves as its months.
    told = cc.read_bars(file, start="2019-02-01", end="2019-03-09").frame
    columns = ["ts_event", "open", "high", "low", "close", "volume"]
    first = taken["ts_event"][0]
    plain = taken.filter(~pl.col("context")).select(columns)
    assert plain.equals(told.filter(pl.col("ts_event") >= first).select(columns))

    # Live acts on nothing of its history, so the backtest of the rest is compared by what it saw.
    bars = cc.Bars.from_frame(taken, interval="1m", instrument="ES")
    backtest = cc.backtest(bars, config)
    assert derived(run.database, "clusters").equals(backtest.clusters)
    assert certificate.counts["clusters"] == backtest.clusters.height
    live_from = run.recommendations[0].timestamp if run.recommendations else None
    if live_from is not None:
        stored = derived(run.database, "trades")
        later = backtest.trades.filter(
            pl.col("confirmed_time").to_physical() >= live_from, pl.col("exit_reason") != "open"
        )
        assert stored.select("trade_id", "entry_price", "exit_price").equals(
            later.select("trade_id", "entry_price", "exit_price")
        )


def test_a_gateway_serves_real_bars_as_months(data_dir: Path) -> None:
    data = GatewayData.from_files([data_dir / "dbn" / "es_1m_2019.dbn.zst"])
    assert set(data.roots.values()) == {"ES"}
    assert not data.simulated
    with Gateway(data.before(nanos(2019, 1, 4))) as gateway:
        assert gateway.port
