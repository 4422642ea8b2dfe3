"""What the engine says: a closed set of frozen classes, one a kind of row.

Prices are points, times int nanoseconds UTC, `None` where the value does not exist. The fields are
those of the frames; their meaning and unit stand in the reference of columns.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cluster", "Equity", "Event", "Order", "Risk", "Signal", "Trade"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A window that traded unusually much, as it was decided."""

    symbol: str
    window_start: int
    decision_time: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    minutes: float
    baseline: float
    baseline_source: str
    volume_ratio: float
    rank: int | None
    modal_price: float | None
    modal_tied: bool | None
    value_area_low: float | None
    value_area_high: float | None
    modal_position: float | None
    momentum: float | None
    direction: str | None
    strength: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal: `reason` is `armed` when it begins to wait, and why it ended when it ends."""

    symbol: str
    decision_time: int
    direction: str
    modal_price: float
    modal_position: float
    volume_ratio: float
    rank: int
    momentum: float | None
    strength: float
    confirmed_time: int | None
    resolved_time: int
    reason: str


@dataclass(frozen=True, slots=True)
class Order:
    """An order: `reason` is `working` when it is made, and `filled` or why not when it ends."""

    trade_id: str
    symbol: str
    decision_time: int
    confirmed_time: int
    direction: str
    mode: str
    quantity: int
    limit_price: float | None
    reference_price: float
    stop_distance: float | None
    target_distance: float | None
    sigma_hold: float | None
    sigma_source: str | None
    context: int | None
    multiplier: float | None
    posterior_mean: float | None
    posterior_low: float | None
    posterior_high: float | None
    valid_until: int
    entry_time: int | None
    entry_price: float | None
    resolved_time: int
    reason: str


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade that ended, or at `finish` one that is still open (`exit_reason` is `open`)."""

    trade_id: str
    symbol: str
    direction: str
    quantity: int
    decision_time: int
    confirmed_time: int
    entry_time: int
    entry_price: float
    stop: float
    target: float
    exit_time: int
    exit_price: float
    exit_reason: str
    ambiguous: bool
    optimistic: bool
    stale: bool
    sigma_hold: float
    sigma_source: str
    volume_ratio: float
    rank: int
    modal_price: float
    modal_tied: bool
    modal_position: float
    momentum: float | None
    strength: float
    context: int | None
    multiplier: float
    gross: float
    costs: float
    net: float
    net_return: float | None
    mae: float
    mfe: float
    bars_held: int


@dataclass(frozen=True, slots=True)
class Equity:
    """The account at the end of a bar or at a session's close."""

    time: int
    balance: float
    equity: float
    open_contracts: int
    drawdown: float


@dataclass(frozen=True, slots=True)
class Risk:
    """A halt, a pause or its end."""

    time: int
    kind: str
    reason: str


Event = Cluster | Signal | Order | Trade | Equity | Risk
