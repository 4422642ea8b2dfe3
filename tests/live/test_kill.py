"""A live process that dies at any moment: nothing is lost, nothing happens twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clustercore as cc
from clustercore.gateway import Gateway, GatewayData, sample_parent_data, write_dbn
from clustercore.gateway.historical import HistoricalServer
from clustercore.live.projections import LATEST, LOG
from clustercore.store import DERIVED, Store
from clustercore.store.places import snapshot_path
from tests.live.harness import assert_parity, consumed, derived, live
from tests.live.killed import BOUNDARIES, CONFIG, DELIVERED, short_market

FULL = bool(os.environ.get("CLUSTERCORE_SOAK"))
ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL

# Fast, and slow enough that the market does not run ahead into the buffers of a life's socket.
SPEED = 9000.0

SYMBOL = "ESZ4"
MINUTE_NS = 60 * 10**9
_SEARCHED = [path for path in [os.environ.get("PYTHONPATH", "")] if path]

# Boundaries that come once a session's end; the market here has one.
RARE = ("certificate", "snapshot")


class Lives:
    """Live processes, one after the other, forked from one that has imported everything."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *_SEARCHED])},
        )

    def begin(self, **order: Any) -> int:
        """Begin a life and return its process."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{json.dumps(order)}\n")
        self._parent.stdin.flush()
        return self._number()

    def end(self) -> int:
        """Wait for the end of the life under way and return how it ended."""
        return self._number()

    def close(self) -> None:
        self._parent.communicate(timeout=20)

    def _number(self) -> int:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, "the parent of the lives is gone"
        return int(line)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    made = Lives()
    yield made
    made.close()


@pytest.fixture(scope="module")
def market() -> GatewayData:
    return short_market()


@dataclass
class Whole:
    """The market lived through without a break, and as the file that holds it."""

    bars: pl.DataFrame
    frames: dict[str, pl.DataFrame]
    recommendations: list[str]


@pytest.fixture(scope="module")
def whole(market: GatewayData, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    run = live(market, folder, config=CONFIG, symbols=[SYMBOL], settings={"late": "act"})
    assert run.code == 0
    own = GatewayData.from_bars(market.frame.filter(symbol=SYMBOL))
    file = write_dbn(folder / "market.dbn", own)
    bars = cc.read_bars(file).frame
    columns = ["ts_event", "open", "high", "low", "close", "volume", "symbol", "context"]
    found = Whole(
        bars.select(columns),
        {name: derived(run.database, name) for name in DERIVED},
        [made.id for made in run.recommendations],
    )
    assert found.frames["trades"].height > 20
    assert "paused" in found.frames["risk"]["kind"].to_list()
    return found


@dataclass
class Story:
    """One market, lived through by several processes."""

    folder: Path
    codes: list[int] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "live.duckdb"

    @property
    def kills(self) -> int:
        return self.codes.count(KILLED)


def assert_nothing_lost(story: Story, whole: Whole, *, same_trades: bool) -> None:
    """Assert what holds after any number of deaths."""
    assert story.codes[-1] == 0, _error(story.folder)
    assert set(story.codes) <= {0, KILLED}, _error(story.folder)
    assert_parity(story.database)
    assert consumed(story.database).equals(whole.bars)
    trades = derived(story.database, "trades")
    assert trades["trade_id"].is_unique().all()
    if same_trades:
        for name, frame in whole.frames.items():
            found = derived(story.database, name)
            assert found.equals(frame), f"{name} differ from those of a run without a death"
    _assert_told_once(story, whole if same_trades else None)
    _assert_finished(story)


def _assert_finished(story: Story) -> None:
    """Assert that the session that ended was certified and copied."""
    with Store.open(story.database, create=False, read_only=True) as store:
        certificates = store.certificates("ES")
        ended = store.feed_events().filter(kind="snapshot")["end"].unique().to_list()
        closing = store.inputs("ES").filter(pl.col("kind") == "closed", pl.col("ts").is_in(ended))[
            "seq"
        ][0]
    assert all(one.ok for one in certificates)
    assert max(one.upto_seq for one in certificates) >= closing
    with Store.open(snapshot_path(story.database), create=False, read_only=True) as copy:
        assert copy.next_seq > closing


def _error(folder: Path) -> str:
    file = folder / "error.txt"
    return file.read_text(encoding="utf-8") if file.exists() else "no error was raised"


def _assert_told_once(story: Story, whole: Whole | None) -> None:
    with Store.open(story.database, create=False, read_only=True) as store:
        stored = store.recommendations()
        outbox = store.table("outbox")
        commits = store.commits()["recommendation_id"].to_list()
    ids = [made.id for made in stored]
    assert len(set(ids)) == len(ids)
    if whole is not None:
        assert ids == whole.recommendations
    # Every order that worked was told of; no other was.
    orders = derived(story.database, "orders").filter(pl.col("quantity") > 0)
    assert set(orders["trade_id"].to_list()) == set(ids)
    assert sorted(commits) == sorted(ids)
    lines = (story.folder / LOG).read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines]
    assert documents == [json.loads(made.to_json()) for made in stored]
    assert json.loads((story.folder / LATEST).read_text(encoding="utf-8")) == documents[-1]
    # An alert for each, delivered at least once, with its id, and marked.
    assert sorted(outbox["recommendation_id"].to_list()) == sorted(ids)
    delivered = Counter((story.folder / DELIVERED).read_text(encoding="utf-8").splitlines())
    pending = set(outbox.filter(pl.col("sent").is_null())["recommendation_id"].to_list())
    assert {f"id {one}" for one in ids} - set(delivered) <= {f"id {one}" for one in pending}
    assert not pending
    # What came twice fell into the one gap there is, between delivery and mark; most did not.
    assert sum(count > 1 for count in delivered.values()) < len(delivered)


@dataclass(frozen=True)
class End:
    """Where a life ends: at which visit of a boundary."""

    boundary: str
    visit: int


def _schedules() -> list[list[End]]:
    """Return every boundary in turn, each life going on where the last one died."""
    often = [name for name in BOUNDARIES if not name.startswith(("rewrite", *RARE))]
    # The first life has to write something down, or the next one begins with another market.
    first = [End("commit after", 40)]
    starts = [End("rewrite before", 1), End("rewrite after", 1)]
    # A second visit of each would be more recommendations than the market has.
    orders = [often, often[::-1]] if FULL else [often]
    frequent = [
        [*first, *starts, *(End(name, 20 if "commit" in name else 1) for name in order)]
        for order in orders
    ]
    rare = [[*first, End(f"{name} {when}", 1)] for name in RARE for when in ("before", "after")]
    return [*frequent, *(rare if FULL else [[ends for part in rare for ends in part[1:]]])]


@pytest.mark.parametrize("schedule", _schedules(), ids=lambda ends: ends[-1].boundary)
def test_a_death_at_a_write_boundary_loses_and_repeats_nothing(
    lives: Lives, market: GatewayData, whole: Whole, tmp_path: Path, schedule: list[End]
) -> None:
    story = Story(tmp_path)
    with Gateway(market, at_end="close", speed=SPEED, hold=True) as served:
        for end in [*schedule, None]:
            lives.begin(
                folder=str(tmp_path),
                port=served.port,
                symbols=[SYMBOL],
                late="act",
                boundary=end.boundary if end else None,
                visit=end.visit if end else 0,
            )
            story.codes.append(lives.end())
    assert story.kills == len(schedule), "a boundary was never reached"
    assert_nothing_lost(story, whole, same_trades=True)


def _killed_at_random(
    lives: Lives, market: GatewayData, folder: Path, draw: random.Random, late: str
) -> Story:
    story = Story(folder)
    with Gateway(market, at_end="close", speed=SPEED, hold=True) as served:
        order = {"folder": str(folder), "port": served.port, "symbols": [SYMBOL], "late": late}
        lives.begin(**order, boundary="commit after", visit=draw.randint(2, 60))
        story.codes.append(lives.end())
        while story.codes[-1] != 0 and len(story.codes) < 60:
            process = lives.begin(**order)
            killer = threading.Timer(draw.uniform(0.02, 0.8), _kill, [process])
            killer.start()
            story.codes.append(lives.end())
            killer.cancel()
            killer.join()
        if story.codes[-1] != 0:
            # A busy machine does not come to the end in so little time; this one may.
            lives.begin(**order)
            story.codes.append(lives.end())
    return story


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@pytest.mark.timeout(900 if FULL else 120)
def test_deaths_at_random_moments_lose_and_repeat_nothing(
    lives: Lives, market: GatewayData, whole: Whole, tmp_path: Path
) -> None:
    draw = random.Random(20)
    wanted, kills, number = 200 if FULL else 20, 0, 0
    while kills < wanted:
        folder = tmp_path / str(number)
        folder.mkdir()
        late = "miss" if number % 2 else "act"
        story = _killed_at_random(lives, market, folder, draw, late)
        assert_nothing_lost(story, whole, same_trades=late == "act")
        kills += story.kills
        number += 1


def test_a_death_at_the_change_of_an_epoch_leaves_it_whole_or_not_begun(
    lives: Lives, market: GatewayData, whole: Whole, tmp_path: Path
) -> None:
    story = Story(tmp_path)
    other = {"cluster.threshold": 1.1, "exit.max_hold_minutes": 6}
    with Gateway(market, at_end="close", speed=SPEED, hold=True) as served:
        order = {"folder": str(tmp_path), "port": served.port, "symbols": [SYMBOL], "late": "act"}
        lives.begin(**order, boundary="commit after", visit=200)
        story.codes.append(lives.end())
        for when in ("before", "inside", "after"):
            lives.begin(**order, config=other, boundary=f"epoch {when}", visit=1)
            story.codes.append(lives.end())
        lives.begin(**order, config=other)
        story.codes.append(lives.end())
    assert story.kills == 4
    assert_nothing_lost(story, whole, same_trades=False)
    with Store.open(story.database, create=False, read_only=True) as store:
        epochs = store.epochs("ES")
        kinds = store.inputs("ES", 2)["kind"].to_list()
    assert [epoch.number for _, epoch in epochs] == [1, 2]
    assert kinds[:4] == ["epoch", "warm_up", "closed", "carry"]
    # Until then as if nothing had been changed.
    with Store.open(story.database, create=False, read_only=True) as store:
        before = store.derived("trades", "ES", 1).drop("seq")
    assert before.height > 10
    assert before.equals(whole.frames["trades"].head(before.height))


@pytest.mark.parametrize(
    "late",
    [
        "miss",
        "act",
    ],
)
def test_a_death_while_history_is_read_trades_nothing_of_it(
    lives: Lives, tmp_path: Path, late: str
) -> None:
    data = sample_parent_data(sessions=4)
    instant = data.span[1] - 60 * MINUTE_NS
    story = Story(tmp_path)
    with (
        HistoricalServer(data, now=lambda: instant) as history,
        Gateway(data, at_end="close", start=instant) as served,
    ):
        order = {
            "folder": str(tmp_path),
            "port": served.port,
            "symbols": ["ES"],
            "late": late,
            "historical": history.url,
            "backfill_days": 10,
        }
        lives.begin(**order, boundary="commit inside", visit=3)
        story.codes.append(lives.end())
        lives.begin(**order, boundary="commit after", visit=1)
        story.codes.append(lives.end())
        lives.begin(**order)
        story.codes.append(lives.end())
    assert story.codes == [KILLED, KILLED, 0], _error(tmp_path)
    bars = cc.read_bars(write_dbn(tmp_path / "market.dbn", data)).frame
    taken = consumed(story.database)
    assert taken.equals(bars.select(taken.columns))
    assert_parity(story.database)
    orders = derived(story.database, "orders")["confirmed_time"].to_physical().to_list()
    assert all(confirmed > instant for confirmed in orders)
