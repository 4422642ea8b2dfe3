"""Trade on paper beside a local gateway, and print what a trader is told.

Start `clustercore gateway --sessions 25 --from 2025-01-14 --speed 3000`, then this beside it with
`--gateway 127.0.0.1:13000`. After one session it stops and replays what it stored. Without that
option it follows Databento, with the key from DATABENTO_API_KEY or .env.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import clustercore as cc
from clustercore import parity
from clustercore.live import LiveRunner, LiveSettings
from clustercore.live.console import recommendation_text
from clustercore.live.key import read_key
from clustercore.store import FeedEvent, Store

parser = argparse.ArgumentParser(description="Trade one session on paper.")
parser.add_argument("--gateway", default="", help="such as 127.0.0.1:13000")
parser.add_argument("--db", type=Path, default=Path("example.duckdb"))
arguments = parser.parse_args()

settings = LiveSettings(gateway=arguments.gateway)
key = None if settings.is_local else read_key()
config = cc.Config.preset("default")
runner = LiveRunner(config, ["ES"], database=arguments.db, settings=settings, key=key)


live_at: list[int] = []


def stop_after_a_session(event: FeedEvent) -> None:
    """Print how the feed is, and end the run when a session that was seen live is certified."""
    if event.kind == "state":
        print(f"{event.detail['state']}: {event.reason}")
        live_at.extend([event.at] if event.detail["state"] == "LIVE" else [])
    if event.kind == "parity" and live_at and (event.end or 0) > live_at[0]:
        runner.stop()


runner.on_note = stop_after_a_session
runner.on_recommendation = lambda made: print(recommendation_text(made))
runner.run()

with Store.open(arguments.db, create=False, read_only=True) as store:
    print(store.derived("trades", "ES").select("direction", "entry_time", "exit_reason", "net"))
    for found in parity.check(store):
        print(f"parity {found.root}: {'equal' if found.ok else found.difference}")
