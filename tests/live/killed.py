"""Lives of a live process that kills itself, or is killed, and what it trades.

Run as a script it is a parent of such lives: it imports everything once, then forks for each line
of its input, so that a life costs no more than its own work. Each line is a JSON object: where,
which gateway, how late bars count, and the boundary at which the life ends (none: it goes on until
the market is over).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import polars as pl

import clustercore as cc
from clustercore.gateway import GatewayData, sample_parent_data
from clustercore.inputs import Epoch
from clustercore.live import alerts, projections
from clustercore.live.alerts import Channel
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.sessions import load_sessions
from clustercore.store import FeedEvent, Store

# Where a life can end. `told` is a transaction with a recommendation in it; `epoch`, which comes
# where the configuration was changed only, one that begins another epoch.
BOUNDARIES = (
    "commit before",
    "commit inside",
    "commit after",
    "told before",
    "told inside",
    "told after",
    "line before",
    "line half",
    "line after",
    "latest before",
    "latest after",
    "deliver before",
    "deliver after",
    "mark before",
    "mark after",
    "certificate before",
    "certificate after",
    "snapshot before",
    "snapshot after",
    "rewrite before",
    "rewrite after",
)

# Many trades in few bars, and limits that a counter set back to nothing would not reach.
CONFIG = cc.Config.preset("default").override(
    {
        "baseline.mode": "rolling",
        "cluster.threshold": 1.0,
        "cluster.minutes": 5,
        "profile.end_minute": 5,
        "rank.top_n": 10,
        "retest.tolerance": "4 ticks",
        "retest.timeout_minutes": 20,
        "signal.long_threshold": 0.49,
        "signal.short_threshold": 0.51,
        "signal.min_strength": 0.0,
        "volatility.minutes": 60,
        "volatility.min_minutes": 20,
        "exit.max_hold_minutes": 10,
        "stop.k": 0.5,
        "risk.max_consecutive_losses": 4,
        "risk.daily_loss_pct": 0.8,
    }
)

CHANNELS = (Channel("json-1", "json://localhost"),)
DELIVERED = "delivered.txt"


def short_market(before: int = 300, after: int = 180) -> GatewayData:
    """Return the last minutes of one session and the first of the next."""
    frame = sample_parent_data(sessions=3).frame
    times = pl.from_epoch(frame["ts_event"], "ns").dt.replace_time_zone("UTC")
    placed = frame.with_columns(session=load_sessions().locate(times))
    minute = pl.col("ts_event").rank("dense").over("session")
    left = pl.col("ts_event").n_unique().over("session") - minute
    _, first, second = placed["session"].unique().sort().to_list()
    kept = placed.filter(
        ((pl.col("session") == first) & (left < before))
        | ((pl.col("session") == second) & (minute <= after))
    ).drop("session")
    return GatewayData.from_bars(kept, source="a few hours of two sessions", simulated=True)


class Death:
    """Counts visits of boundaries and ends the process at one of them.

    Parameters
    ----------
    name : str or None
        The boundary.
    visit : int
        At which of its visits, the first is 1.
    """

    def __init__(self, name: str | None, visit: int) -> None:
        self._name = name
        self._left = visit

    def at(self, name: str) -> None:
        """Visit a boundary."""
        if name != self._name:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            # The other threads may run on for an instant; this one must not.
            threading.Event().wait()


def around(death: Death, owner: Any, method: str, name: str) -> None:
    """Visit a boundary before and after every call of a method."""
    inner = getattr(owner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        death.at(f"{name} before")
        result = inner(*args, **kwargs)
        death.at(f"{name} after")
        return result

    setattr(owner, method, call)


def prepare(death: Death, folder: Path) -> None:
    """Put the boundaries where something is written or sent."""
    _watch_commits(death)
    around(death, Store, "mark_sent", "mark")
    around(death, Store, "save_certificate", "certificate")
    around(death, projections.Projections, "rewrite", "rewrite")
    _watch_lines(death)
    _watch_renames(death)

    def deliver(channel: Channel, text: str) -> str:
        del channel
        death.at("deliver before")
        with (folder / DELIVERED).open("a", encoding="utf-8") as file:
            file.write(f"{text.splitlines()[-1]}\n")
        death.at("deliver after")
        return ""

    alerts._deliver = deliver


def _watch_commits(death: Death) -> None:
    commit, insert = Store.commit, Store._insert
    tells = begins = False

    def committed(store: Store, entries: Any, **rest: Any) -> None:
        nonlocal tells, begins
        tells = bool(rest.get("recommendations"))
        begins = any(isinstance(e.item, Epoch) and e.item.number > 1 for e in entries)
        if not entries:
            commit(store, entries, **rest)
            return
        kinds = {"told": tells, "epoch": begins, "commit": True}
        names = [name for name, holds in kinds.items() if holds]
        for name in names:
            death.at(f"{name} before")
        commit(store, entries, **rest)
        for name in names:
            death.at(f"{name} after")

    def inserted(store: Store, name: str, rows: Any) -> None:
        insert(store, name, rows)
        if name == "inputs" and rows:
            death.at("commit inside")
            if begins:
                death.at("epoch inside")
        elif name == "outbox" and tells:
            death.at("told inside")

    Store.commit = committed  # type: ignore[method-assign, assignment]
    Store._insert = inserted  # type: ignore[method-assign, assignment]


def _watch_lines(death: Death) -> None:
    append, write = projections._append, projections._write_all

    def appended(path: Path, text: str) -> None:
        death.at("line before")
        append(path, text)
        death.at("line after")

    def written(descriptor: int, data: bytes) -> None:
        half = len(data) // 2
        write(descriptor, data[:half])
        death.at("line half")
        write(descriptor, data[half:])

    projections._append = appended
    projections._write_all = written


def _watch_renames(death: Death) -> None:
    replace = Path.replace

    def replaced(path: Path, target: Path) -> Path:
        name = "latest" if "latest" in path.name else "snapshot" if "snapshot" in path.name else ""
        death.at(f"{name} before")
        made = replace(path, target)
        death.at(f"{name} after")
        return made

    Path.replace = replaced  # type: ignore[method-assign, assignment]


def live_once(order: dict[str, Any]) -> int:
    """Live until the market is over, or until the boundary of the order."""
    folder = Path(order["folder"])
    prepare(Death(order.get("boundary"), order.get("visit", 0)), folder)
    runner = LiveRunner(
        CONFIG.override(order.get("config", {})),
        order["symbols"],
        database=folder / "live.duckdb",
        settings=LiveSettings(
            gateway=f"127.0.0.1:{order['port']}",
            historical=order.get("historical", "none"),
            late=order["late"],
            backfill_days=order.get("backfill_days", 0),
        ),
        channels=CHANNELS,
    )

    def note(event: FeedEvent) -> None:
        # Nothing but the end of the data closes a connection like this here.
        if event.kind == "lost" and event.reason == "the gateway closed the connection":
            runner.stop()

    runner.on_note = note
    return runner.run()


def serve() -> None:
    """Live once for each line of the input; say the process, and how it ended."""
    logging.disable(logging.CRITICAL)
    importlib.import_module("databento.live")
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            _live_and_leave(order)
        _say(process)
        _, status = os.waitpid(process, 0)
        _say(os.waitstatus_to_exitcode(status))


def _live_and_leave(order: dict[str, Any]) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        code = live_once(order)
    except BaseException:  # noqa: BLE001 -- it is written down where the test looks
        with (Path(order["folder"]) / "error.txt").open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve()
