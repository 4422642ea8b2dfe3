"""Stores that the tests look at: a few sessions of the sample, with every kind of input."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import clustercore as cc
from clustercore.engine import Engine
from clustercore.fold import epoch_of
from clustercore.inputs import Bar, Closed, Entry, Epoch, Input
from clustercore.parity import recommender_of
from clustercore.recommendation import Recommendation
from clustercore.sessions import load_sessions
from clustercore.store import Store, sessions_hash

PRESET = "new-algo"


@functools.cache
def inputs(sessions: int = 4) -> tuple[Input, ...]:
    bars = cc.sample(sessions=sessions, seed=2)
    columns = {name: values.tolist() for name, values in bars.columns_nanos().items()}
    rows = zip(*columns.values(), strict=True)
    made: list[Input] = [epoch(1)]
    for symbol, (ts, opened, high, low, close, volume) in zip(
        bars.frame["symbol"].to_list(), rows, strict=True
    ):
        end = ts + bars.interval_ns
        made += [
            Bar(symbol, ts, opened, high, low, close, volume, "live", end + 1),
            Closed(end, "eoi"),
        ]
    return tuple(made)


@functools.cache
def epoch(number: int) -> Epoch:
    bars = cc.sample(sessions=1, seed=2)
    return epoch_of(
        number,
        cc.Config.preset(PRESET),
        bars.instrument,
        sessions_hash(load_sessions()),
        bars.interval_ns,
    )


@functools.cache
def entries(sessions: int = 4) -> tuple[Entry, ...]:
    engine = Engine(cc.Config.preset(PRESET), "ES")
    made = []
    for seq, item in enumerate(inputs(sessions), 1):
        events: list[Any] = []
        if isinstance(item, Bar):
            events = engine.step(
                item.ts_event,
                item.open,
                item.high,
                item.low,
                item.close,
                item.volume,
                symbol=item.symbol,
            )
        elif isinstance(item, Closed):
            events = engine.advance(item.ts)
        made.append(Entry(seq, "ES", 1, item, tuple(events)))
    return tuple(made)


def filled(path: Path, sessions: int = 4, *, recommended: bool = False) -> Path:
    """Write a store of the sample in one commit and give it up."""
    with Store.open(path) as store:
        store.save_sessions(load_sessions())
        store.commit(entries(sessions), recommendations=told(sessions) if recommended else ())
    return path


def told(sessions: int) -> list[Recommendation]:
    """Return what a trader was to be told of the entries."""
    recommender = recommender_of(epoch(1), load_sessions())
    return [
        made
        for entry in entries(sessions)
        if entry.events
        for made in recommender.take(entry.events, seq=entry.seq)
    ]


def recommendation(**changes: Any) -> Recommendation:
    fields: dict[str, Any] = {
        "id": "abc",
        "seq": 1,
        "root": "ES",
        "epoch": 1,
        "timestamp": 1_700_000_000_000_000_001,
        "contract": "ESZ6",
        "action": "BUY",
        "quantity": 2,
        "order_type": "MARKET",
        "price": 5000.25,
        "price_is": "indicative",
        "validity": "next open",
        "valid_until": 1_700_000_300_000_000_000,
        "max_hold_minutes": 60,
        "flat_by": 1_700_003_600_000_000_000,
        "stop_loss": 4990.0,
        "profit_target": None,
        "stop_distance": 10.25,
        "target_distance": None,
        "confidence": 0.1 + 0.2,
        "confidence_low": None,
        "confidence_high": 0.9,
        "signal_strength": 0.5,
        "bayesian_multiplier": 1.5,
        "modal_price": 4999.75,
        "modal_position": 0.2,
        "volume_ratio": 4.5,
        "risk_usd": 1025.0,
        "reward_usd": None,
        "reasoning": "15 minutes of 4.5 times the usual volume, \u2265 4",
        "simulated": True,
    }
    return Recommendation(**fields | changes)
