"""What must add up: equity and its parts, volumes, variances."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from clustercore import events, kernels
from tests import reference
from tests.property.families import FEWEST_TRADES, RULES
from tests.property.logs import BAR_COLUMNS, new_engine, run
from tests.property.markets import five_years, sessions_of
from tests.property.test_prefix import settings_of

POINT_VALUE = 50.0
CASES = [*RULES, "default", "v6"]


def open_result(order: events.Order, price: float) -> float:
    """Return what a filled order has gained at a price, before costs."""
    assert order.entry_price is not None
    sign = 1.0 if order.direction == "long" else -1.0
    return sign * (price - order.entry_price) * POINT_VALUE * order.quantity


@pytest.mark.parametrize("case", CASES)
def test_equity_is_the_sum_of_its_parts(case: str, data_dir: Path) -> None:
    """Balance is the start with all fills' costs and exits' money; equity adds open results."""
    settings = settings_of(case)
    tape = sessions_of(five_years(data_dir, settings), 940, 60)
    engine = new_engine(settings, tape)
    side = 2.5 + settings["costs"]["slippage_ticks"] * 12.5
    in_legs = bool(settings["exit"]["scale_out"])
    start = settings["account"]["balance"]
    open_orders: dict[str, events.Order] = {}
    closed_net = peak_drawdown = 0.0
    marks = marked_open = closed = 0
    peak = start
    before = 0
    for bar in zip(*(tape.bars[name].tolist() for name in BAR_COLUMNS), strict=True):
        for event in engine.step(*bar):
            if isinstance(event, events.Order) and event.reason == "filled":
                open_orders[event.trade_id] = event
            elif isinstance(event, events.Trade):
                del open_orders[event.trade_id]
                closed_net += event.net
                closed += 1
                assert event.net == pytest.approx(event.gross - event.costs, abs=1e-9)
                assert event.costs == pytest.approx(2 * side * event.quantity, abs=1e-9)
            elif isinstance(event, events.Equity):
                marks += 1
                # A mark at a session's close that falls due later uses the close before this bar.
                last_close = before if event.time <= bar[0] else bar[4]
                held = open_orders.values()
                if in_legs and open_orders:
                    assert event.open_contracts <= sum(order.quantity for order in held)
                    continue
                booked = start + closed_net - sum(side * order.quantity for order in held)
                result = sum(open_result(order, last_close / 1e9) for order in held)
                marked_open += bool(open_orders)
                assert event.open_contracts == sum(order.quantity for order in held)
                assert event.balance == pytest.approx(booked, abs=1e-6)
                assert event.equity == pytest.approx(booked + result, abs=1e-6)
                peak = max(peak, event.equity)
                peak_drawdown = max(peak_drawdown, event.drawdown)
                if settings["risk"]["max_drawdown_pct"] is None and not in_legs:
                    assert event.drawdown == pytest.approx(peak - event.equity, abs=1e-6)
        before = bar[4]
    assert marks >= 60
    if case in RULES and case != "every gate":
        assert closed >= FEWEST_TRADES * 3 // 4
        assert marked_open >= FEWEST_TRADES or in_legs
        assert peak_drawdown > 0


@pytest.mark.parametrize("case", list(RULES))
def test_the_last_equity_is_the_start_and_all_trades(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = five_years(data_dir, settings)
    log = run(settings, tape, finish=True)
    trades, equity = log["trades"], log["equity"]
    assert len(trades["net"]) >= FEWEST_TRADES
    # All sessions are over, so no trade is open, and the last mark is that of the last close.
    assert equity["open_contracts"][-1] == 0
    expected = settings["account"]["balance"] + math.fsum(trades["net"].tolist())
    assert equity["equity"][-1] == pytest.approx(expected, abs=1e-6)
    assert equity["balance"][-1] == equity["equity"][-1]
    steps = np.abs(equity["equity"] - equity["balance"])[equity["open_contracts"] == 0]
    assert len(steps) >= FEWEST_TRADES
    assert steps.max() == 0.0


def test_garman_klass_is_never_negative_on_coherent_bars(data_dir: Path) -> None:
    """0.5 a^2 - 0.386 b^2 with |b| <= a cannot fall below zero; nor can other range estimators."""
    settings = settings_of("default")
    bars = five_years(data_dir, settings).bars
    high, low = np.log(bars["high"]), np.log(bars["low"])
    open_, close = np.log(bars["open"]), np.log(bars["close"])
    variance = 0.5 * (high - low) ** 2 - (2 * math.log(2) - 1) * (close - open_) ** 2
    assert len(variance) > 1_000_000
    assert variance.min() >= 0.0
    for name in ("garman_klass", "parkinson", "rogers_satchell", "close_to_close", "yang_zhang"):
        chosen = {**settings, "volatility": {**settings["volatility"], "estimator": name}}
        orders = run(chosen, five_years(data_dir, settings))["orders"]
        made = orders["sigma_hold"][~np.isnan(orders["sigma_hold"])]
        assert len(made) >= FEWEST_TRADES
        assert made.min() > 0.0


@pytest.mark.parametrize("volume", [0, 1, 2, 3, 7, 99, 100, 101, 12_345])
@pytest.mark.parametrize("ticks", [1, 2, 3, 10, 97])
def test_a_spread_volume_is_all_there_and_even(volume: int, ticks: int) -> None:
    shares = reference.spread(volume, 5, 5 + ticks - 1)
    assert sum(shares.values()) == volume
    if shares:
        filled = [shares.get(tick, 0) for tick in range(5, 5 + ticks)]
        assert max(filled) - min(filled) <= 1


@pytest.mark.parametrize("source", ["close", "close_volume", "range_volume"])
def test_a_profile_holds_what_went_in(source: str, data_dir: Path) -> None:
    """Two thousand windows of real bars: the histogram's sum is their volume, or their number."""
    bars = five_years(data_dir, settings_of("default")).bars
    draw = np.random.default_rng(5)
    for first in draw.integers(0, len(bars["volume"]) - 60, 2000):
        last = first + draw.integers(1, 60)
        high, low, close, volume = (
            bars[name][first:last] for name in ("high", "low", "close", "volume")
        )
        found = kernels.volume_profile(high, low, close, volume, tick_size=0.25, source=source)
        expected = len(volume) if source == "close" else int(volume.sum())
        assert int(found.volume.sum()) == expected
        assert (found.volume >= 0).all()
