"""Each scripted fault of the gateway alone: nothing missing, nothing extra, nothing changed."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clustercore.gateway import Fault, GatewayData, sample_parent_data
from clustercore.gateway.faults import CONNECTION_FAULTS, MARKET_FAULTS, STREAM_FAULTS
from tests.live.harness import (
    ACTIVE,
    FRAMES,
    Run,
    assert_parity,
    consumed,
    derived,
    front,
    live,
    months,
    part,
    stored,
)

# Two hours of a session by which the month in front is chosen, and three of the next.
DATA = part(sample_parent_data(sessions=2), 21, 27)
SOAK = os.environ.get("CLUSTERCORE_SOAK") == "1"
SYMBOLS = DATA.frame["symbol"].to_list()
# In the middle of what is traded: the bar sent last is of the month in front, the next is not.
PLACE = next(
    place
    for place in range(400, len(SYMBOLS))
    if SYMBOLS[place - 1 : place + 1] == ["ESZ4", "ESH5"]
)
FATAL = ("auth_reject",)
# What happens to a connection needs one to happen to.
BREAK = Fault("fin", after_bars=PLACE)


@dataclass(frozen=True)
class Uninterrupted:
    """What a run without faults leaves behind."""

    bars: pl.DataFrame
    frames: dict[str, pl.DataFrame]
    actionable: pl.DataFrame


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """Return what a run without faults leaves behind."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = live(DATA, folder, config=ACTIVE)
    bars = consumed(run.database)
    assert_frame_equal(bars, front(DATA, folder))
    frames = {name: derived(run.database, name) for name in FRAMES}
    assert frames["orders"].height > 20
    return Uninterrupted(bars, frames, actionable(run.database))


def actionable(database: Path) -> pl.DataFrame:
    """Return which of the consumed bars might be acted on."""
    from clustercore.store import Store

    with Store.open(database, create=False, read_only=True) as store:
        bars = store.inputs("ES").filter(pl.col("consumed") & (pl.col("kind") == "bar"))
    return bars.select("ts", "actionable")


def script(kind: str, outage_s: float) -> list[Fault]:
    """Return a script in which a fault of this kind happens in the middle of the trading."""
    fault = Fault(kind, after_bars=PLACE, outage_s=outage_s)
    return [fault, BREAK] if kind in CONNECTION_FAULTS else [fault]


def suffer(
    kind: str, folder: Path, outage_s: float = 0.0, data: GatewayData = DATA, **settings: object
) -> Run:
    """Run with one fault, and check what holds after every one."""
    before = set(threading.enumerate())
    run = live(data, folder, config=ACTIVE, faults=script(kind, outage_s), settings=dict(settings))
    assert set(threading.enumerate()) == before
    assert run.sockets_open == 0
    assert_parity(run.database)
    return run


def assert_same_as(run: Run, expected: Uninterrupted) -> None:
    """Assert that a run decided what one without faults decides."""
    assert_frame_equal(actionable(run.database), expected.actionable)
    for name in FRAMES:
        assert_frame_equal(derived(run.database, name), expected.frames[name])


# A connection given up with records under way: the gateway, which does not pace here, is by then
# further than any age that is acted on, so what is replayed comes late.
UNDER_WAY = (
    "bad_length",
    "error",
    "fatal_error",
    "garbage",
    "unknown_rtype",
    "unknown_rtype_beside_bar",
    "wrong_type",
    "zero_length",
)
# Two in the whole script that take a bar away are looked at on their own.
KINDS = tuple(
    kind
    for kind in (*CONNECTION_FAULTS, *STREAM_FAULTS, *MARKET_FAULTS)
    if kind not in {"auth_reject", "drop_bar"}
)
PROMPT = tuple(kind for kind in KINDS if kind not in UNDER_WAY)
# Those after which there is another connection.
BREAKING: tuple[str, ...] = ("close_before_auth_reply", "fin_mid_record", "listener_down", "rst")
if SOAK:
    BREAKING += ("fatal_error", "fin", "freeze")


@pytest.mark.parametrize("kind", PROMPT)
def test_a_short_fault_changes_nothing(
    kind: str, tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = suffer(kind, tmp_path, outage_s=5)
    assert run.code == 0
    assert_frame_equal(stored(run.database), months(DATA))
    assert_frame_equal(consumed(run.database), uninterrupted.bars)
    assert_same_as(run, uninterrupted)


@pytest.mark.parametrize("kind", UNDER_WAY)
def test_records_under_way_come_again(
    kind: str, tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = suffer(kind, tmp_path, late="act")
    assert run.code == 0
    assert "lost" in run.kinds()
    assert "hole" not in run.kinds()
    assert_frame_equal(stored(run.database), months(DATA))
    assert_frame_equal(consumed(run.database), uninterrupted.bars)
    assert_same_as(run, uninterrupted)


@pytest.mark.parametrize("kind", BREAKING)
def test_after_a_long_outage_late_bars_may_be_acted_on(
    kind: str, tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = suffer(kind, tmp_path, outage_s=900, late="act")
    assert_frame_equal(stored(run.database), months(DATA))
    assert_frame_equal(consumed(run.database), uninterrupted.bars)
    assert_same_as(run, uninterrupted)


@pytest.mark.parametrize("kind", BREAKING)
def test_after_a_long_outage_what_is_late_is_missed(
    kind: str, tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = suffer(kind, tmp_path, outage_s=900)
    assert_frame_equal(stored(run.database), months(DATA))
    assert_frame_equal(consumed(run.database), uninterrupted.bars)
    # What was seen is the same; what was done about it is not.
    assert_frame_equal(derived(run.database, "clusters"), uninterrupted.frames["clusters"])
    late = actionable(run.database).filter(~pl.col("actionable")).height
    assert 14 <= late < uninterrupted.bars.height
    assert "missed" in derived(run.database, "signals")["reason"].to_list()


def test_a_refused_key_ends_the_run(tmp_path: Path, uninterrupted: Uninterrupted) -> None:
    run = suffer("auth_reject", tmp_path)
    assert run.code == 1
    assert run.status.state == "FATAL"
    assert "Authentication failed" in run.status.reason
    # What came before the refusal is there.
    bars = consumed(run.database)
    assert 0 < bars.height < uninterrupted.bars.height
    assert_frame_equal(bars, uninterrupted.bars.head(bars.height))


def test_a_connection_limit_is_asked_again_slowly(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = suffer("limit_reject", tmp_path)
    assert run.code == 0
    notes = [note.reason for note in run.notes]
    refused = next(place for place, text in enumerate(notes) if "connection limit" in text)
    waits = next(text for text in notes[refused:] if text.startswith("attempt"))
    assert float(waits.split()[-2]) >= 15
    assert_frame_equal(consumed(run.database), uninterrupted.bars)


def test_a_bar_that_is_never_sent_is_a_bar_without_a_trade(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    # One place earlier: the next bar is then of the month in front.
    run = live(DATA, tmp_path, config=ACTIVE, faults=[Fault("drop_bar", after_bars=PLACE - 1)])
    lost = DATA.frame.row(PLACE - 1, named=True)
    assert lost["symbol"] == "ESZ4"
    gone = pl.col("ts_event").to_physical() == lost["ts_event"]
    assert_frame_equal(consumed(run.database), uninterrupted.bars.filter(~gone))
    assert_parity(run.database)


def test_a_bar_after_its_interval_is_stored_and_not_consumed(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    run = live(DATA, tmp_path, config=ACTIVE, faults=[Fault("reorder", after_bars=PLACE - 1)])
    assert_frame_equal(stored(run.database), months(DATA))
    late = DATA.frame.row(PLACE - 1, named=True)
    gone = pl.col("ts_event").to_physical() == late["ts_event"]
    assert_frame_equal(consumed(run.database), uninterrupted.bars.filter(~gone))
    assert [note.start for note in run.notes if note.kind == "late"] == [late["ts_event"]]
    assert_parity(run.database)
