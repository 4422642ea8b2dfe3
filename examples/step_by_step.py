"""Feed the engine bar by bar, as a live program does, and print what it says.

It is the engine that `backtest` runs: the rows at the end are equal, bit for bit.
"""

from __future__ import annotations

from datetime import UTC, datetime

import clustercore as cc
from clustercore.engine import frames_from_events
from clustercore.events import Event, Order, Signal, Trade

bars = cc.sample(sessions=12, seed=3)
config = cc.Config.preset("default")
engine = cc.Engine(config, bars.instrument)

events: list[Event] = []
columns = bars.columns_nanos()  # prices in 1e-9 points, times in ns, all int64
for row in zip(*(column.tolist() for column in columns.values()), strict=True):
    start, opened, high, low, close, volume = row
    for event in engine.step(start, opened, high, low, close, volume, symbol=bars.symbols[0]):
        events.append(event)
        time = datetime.fromtimestamp(start / 1e9, UTC).strftime("%m-%d %H:%M")
        match event:
            case Signal(direction=direction, reason=reason, modal_price=modal):
                print(f"bar {time}  signal {direction} at {modal:.2f}: {reason}")
            case Order(quantity=quantity, reason=reason, entry_price=price):
                print(f"bar {time}  order of {quantity}: {reason} {price or ''}")
            case Trade(exit_reason=reason, exit_price=price, net=net):
                print(f"bar {time}  trade out at {price:.2f} ({reason}), net {net:+.2f} USD")
events += engine.finish()

stepped = frames_from_events(events, engine.config_id)
run = cc.Engine(config, bars.instrument).run(bars, finish=True)
print("step and run equal:", all(stepped[name].equals(run[name]) for name in run))
