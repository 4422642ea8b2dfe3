"""What a trader is told after a recommendation: its fill, its end, and what the session had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

import clustercore as cc
from clustercore.cli.live import _session_lines
from clustercore.events import Order, Trade
from clustercore.gateway import Gateway, sample_parent_data
from clustercore.live.runner import LiveRunner, SessionSummary
from clustercore.live.settings import LiveSettings
from clustercore.recommend import ended_text
from clustercore.store import Store
from tests.live.harness import ACTIVE, derived, part

MINUTE = 60 * 10**9


def run(tmp_path: Path, config: cc.Config) -> tuple[LiveRunner, list[Any], list[SessionSummary]]:
    """Live through the end of one session and the begin of the next."""
    ended: list[Any] = []
    sessions: list[SessionSummary] = []
    with Gateway(part(sample_parent_data(sessions=2), 15.0, 26.0), speed=6_000.0) as gateway:
        runner = LiveRunner(
            config,
            ("ES",) if config is not ACTIVE else ("ESZ4",),
            database=tmp_path / "live.duckdb",
            settings=LiveSettings(gateway=f"127.0.0.1:{gateway.port}", historical="none"),
        )
        runner.on_end = ended.append

        def over(summary: SessionSummary) -> None:
            sessions.append(summary)
            runner.stop()

        runner.on_session = over
        runner.run()
    return runner, ended, sessions


def test_every_fill_and_every_end_is_told_once_after_its_commit(tmp_path: Path) -> None:
    runner, ended, _ = run(tmp_path, ACTIVE)
    orders = derived(runner.database, "orders").filter(pl.col("quantity") > 0)
    trades = derived(runner.database, "trades")
    told_orders = [event for event in ended if isinstance(event, Order)]
    told_trades = [event for event in ended if isinstance(event, Trade)]
    assert len(told_trades) >= 3
    assert [event.trade_id for event in told_orders] == orders["trade_id"].to_list()
    assert [(event.trade_id, event.net) for event in told_trades] == list(
        trades.select("trade_id", "net").iter_rows()
    )
    trade = told_trades[0]
    text = ended_text(trade)
    side = "BUY" if trade.direction == "long" else "SELL"
    assert f"closed {side} {trade.quantity} {trade.symbol} at {trade.exit_price:,.2f}" in text
    assert text.endswith(
        f"{trade.exit_reason}, net {'-' if trade.net < 0 else '+'}${abs(trade.net):,.2f}"
    )
    filled = next(event for event in told_orders if event.reason == "filled")
    assert f"filled {'BUY' if filled.direction == 'long' else 'SELL'}" in ended_text(filled)


def test_every_position_ends_when_it_was_said_to_end(tmp_path: Path) -> None:
    runner, ended, _ = run(tmp_path, ACTIVE)
    with Store.open(runner.database, create=False, read_only=True) as store:
        told = {made.id: made for made in store.recommendations()}
    assert {made.max_hold_minutes for made in told.values()} == {ACTIVE.exit.max_hold_minutes}
    sessions = cc.load_sessions()
    closes = sessions.close_ns
    for made in told.values():
        close = int(closes[closes.searchsorted(made.timestamp)])
        assert made.flat_by == close - ACTIVE.exit.flatten_minutes * MINUTE
    trades = [event for event in ended if isinstance(event, Trade)]
    assert {trade.exit_reason for trade in trades} >= {"time"}
    for trade in trades:
        made = told[trade.trade_id]
        assert made.flat_by is not None
        assert made.max_hold_minutes is not None
        longest = trade.entry_time + made.max_hold_minutes * MINUTE
        assert trade.exit_time <= min(longest, made.flat_by), trade


def test_a_session_without_a_usual_volume_says_that_it_is_warming_up(tmp_path: Path) -> None:
    # The usual volume of a time of day needs twenty sessions before.
    _, _, (summary, *_) = run(tmp_path, cc.Config.preset("default"))
    assert summary.windows == 8
    assert summary.warming_up == summary.windows
    assert f"{summary.windows} of {summary.windows} windows warming up" in "".join(
        _session_lines(summary)
    )
