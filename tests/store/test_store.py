"""What goes into the store comes out of it: whole, in order, and unchanged."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore import _core
from clustercore.engine import Engine
from clustercore.errors import DataError
from clustercore.events import Order, Signal, Trade
from clustercore.inputs import (
    Bar,
    Carry,
    Closed,
    ContractChange,
    Entry,
    Epoch,
    Input,
    Operator,
    Prints,
    WarmUp,
)
from clustercore.sessions import Sessions, load_sessions
from clustercore.store import DERIVED, Alert, Certificate, Commit, FeedEvent, Store, StoreError
from tests.store.made import PRESET, entries, epoch, filled, inputs, recommendation

NOW = 1_700_000_000_123_456_789
EVERY_KIND: tuple[Input, ...] = (
    epoch(1),
    Bar("ESZ6", NOW, 2**62, -5, 0, 3, 7, "backfill", NOW + 1, False, True, True, ""),
    Bar("ESZ6", NOW, 4, 5, 3, 4, 0, "replay", 0, True, False, False, "late"),
    Prints("ESZ6", np.array([NOW]), np.array([5_000_250_000_000]), np.array([3])),
    Closed(NOW, "grace"),
    ContractChange("ESZ6", None, "volume", 20_000),
    ContractChange("ESH7", "ESZ6", "volume", 20_001),
    Operator("reset_halt"),
    WarmUp(1, 2**40),
    Carry('{"balance": 50000.10000000001, "note": "\u00e9 \' \\" \\n"}'),
)


def entries_of(items: tuple[Input, ...], first: int = 1) -> list[Entry]:
    return [Entry(seq, "ES", 1, item) for seq, item in enumerate(items, first)]


@pytest.mark.parametrize("at_once", [1, len(EVERY_KIND)])
def test_every_input_comes_back_as_it_was(tmp_path: Path, at_once: int) -> None:
    with Store.open(tmp_path / "a.duckdb") as store:
        made = entries_of(EVERY_KIND)
        for start in range(0, len(made), at_once):
            store.commit(made[start : start + at_once])
        found = list(store.entries("ES", 1))
    assert found == list(enumerate(EVERY_KIND, 1))
    assert [type(item) for _, item in found] == [type(item) for item in EVERY_KIND]
    hashed = [
        place for place, item in enumerate(EVERY_KIND) if not isinstance(item, Epoch | Prints)
    ]
    assert [hash(found[place][1]) for place in hashed] == [
        hash(EVERY_KIND[place]) for place in hashed
    ]


def test_a_bar_that_was_read_is_frozen(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb", 1), create=False) as store:
        _, bar = next(pair for pair in store.entries("ES") if isinstance(pair[1], Bar))
    with pytest.raises(AttributeError):
        bar.volume = 1  # type: ignore[misc, union-attr]


def test_a_kind_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.duckdb") as store:
        store.commit(entries_of(EVERY_KIND))
        store._open().execute("UPDATE inputs SET kind = 'quote' WHERE kind = 'prints'")
        with pytest.raises(DataError, match="upgrade clustercore"):
            list(store.entries("ES"))


def test_derived_rows_are_those_of_a_run(tmp_path: Path) -> None:
    bars = cc.sample(sessions=4, seed=2)
    engine = Engine(cc.Config.preset(PRESET), "ES")
    run = engine.run(bars)
    last = engine.advance(int(bars.columns_nanos()["ts_event"][-1]) + bars.interval_ns)
    with Store.open(filled(tmp_path / "a.duckdb"), create=False) as store:
        stored = {name: store.derived(name, "ES", 1) for name in DERIVED}
    counts = [type(event).__name__ for event in last]
    assert stored["clusters"].height == run["clusters"].height + counts.count("Cluster")
    assert stored["trades"].height >= 3
    for name in DERIVED:
        common = run[name].height
        assert_frame_equal(stored[name].head(common).drop("seq"), run[name], check_exact=True)


def test_a_state_on_the_way_is_no_row(tmp_path: Path) -> None:
    events = [event for entry in entries() for event in entry.events]
    on_the_way = [
        event
        for event in events
        if isinstance(event, Signal | Order) and event.reason in {"armed", "working"}
    ]
    with Store.open(filled(tmp_path / "a.duckdb"), create=False) as store:
        rows = sum(store.derived(name, "ES").height for name in DERIVED)
    assert on_the_way
    assert rows == len(events) - len(on_the_way)


def test_small_commits_and_large_ones_write_the_same(tmp_path: Path) -> None:
    filled(tmp_path / "large.duckdb", 1)
    with (
        Store.open(tmp_path / "small.duckdb") as small,
        Store.open(tmp_path / "large.duckdb") as large,
    ):
        made = entries(1)
        for start in range(0, len(made), 5):
            small.commit(made[start : start + 5])
        for name in ("inputs", *DERIVED, "contexts"):
            assert_frame_equal(small.table(name), large.table(name), check_exact=True)


def test_contexts_are_the_record_of_the_trades(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb"), create=False) as store:
        trades = store.derived("trades", "ES", 1)
        found = store.contexts("ES", 1)
        again = Store.open(tmp_path / "b.duckdb")
        with again:
            for entry in entries():
                if entry.events or entry.seq == 1:
                    again.commit([replace(entry, seq=again.next_seq)])
            one_by_one = again.contexts("ES", 1)
    counted = (
        trades.group_by("context")
        .agg(trades=pl.len(), wins=(pl.col("net") > 0).sum(), multiplier=pl.last("multiplier"))
        .sort("context")
    )
    assert found["context"].to_list() == counted["context"].to_list()
    assert found["trades"].to_list() == counted["trades"].to_list()
    assert found["wins"].to_list() == counted["wins"].to_list()
    assert found["multiplier"].to_list() == counted["multiplier"].to_list()
    for wins, losses, *posterior in found.select(
        "wins", "losses", "posterior_mean", "posterior_low", "posterior_high"
    ).iter_rows():
        assert tuple(posterior) == _core.posterior(wins, losses)
    assert_frame_equal(found, one_by_one, check_exact=True)


def test_a_refused_commit_changes_nothing(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb", 1), create=False) as store:
        before = {name: store.table(name) for name in ("inputs", "feed_events", "recommendations")}
        following = store.next_seq
        store.commit([], recommendations=[recommendation()])
        before["recommendations"] = store.table("recommendations")
        event = FeedEvent(at=NOW, kind="gap")
        bar = Entry(following, "ES", 1, Closed(NOW, "eoi"))
        with pytest.raises(StoreError) as caught:
            store.commit([bar], recommendations=[recommendation()], feed_events=[event])
        assert caught.value.reason == "duplicate"
        for name, frame in before.items():
            assert_frame_equal(store.table(name), frame)
        assert store.next_seq == following
        store.commit([bar], feed_events=[event])
        assert store.table("feed_events").height == 1


@pytest.mark.parametrize(("seq", "reason"), [(-1, "duplicate"), (1, "invalid")])
def test_a_number_out_of_order_is_refused(tmp_path: Path, seq: int, reason: str) -> None:
    with Store.open(filled(tmp_path / "a.duckdb", 1), create=False) as store:
        with pytest.raises(StoreError) as caught:
            store.commit([Entry(store.next_seq + seq, "ES", 1, Operator("stop"))])
        assert caught.value.reason == reason


def test_the_key_of_the_table_refuses_a_number_twice(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb", 1), create=False) as store:
        store.next_seq = 1
        with pytest.raises(StoreError) as caught:
            store.commit([Entry(1, "ES", 1, Operator("stop"))])
        assert caught.value.reason == "duplicate"


def test_rows_of_an_unknown_epoch_are_refused(tmp_path: Path) -> None:
    caused = next(entry for entry in entries() if entry.events)
    with Store.open(tmp_path / "a.duckdb") as store:
        with pytest.raises(StoreError, match="before its own entry"):
            store.commit([replace(caused, seq=1, epoch=7)])
        assert store.table("inputs").is_empty()


def test_the_numbers_go_on_after_opening_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.duckdb", 1)
    with Store.open(path) as store:
        assert store.next_seq == len(entries(1)) + 1
        store.add_feed_event(FeedEvent(at=NOW, kind="connected"))
    with Store.open(path) as store:
        store.add_feed_event(FeedEvent(at=NOW, kind="gap", start=1, end=2, detail={"a": 1}))
        found = store.feed_events()
        # The epoch is known again: rows of it are taken.
        caused = next(entry for entry in entries() if entry.events)
        store.commit([replace(caused, seq=store.next_seq)])
    assert found["id"].to_list() == [1, 2]
    assert json.loads(found["detail"][1]) == {"a": 1}
    assert found["start"].to_physical().to_list() == [None, 1]


def test_epochs_and_engines_are_told_apart(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.duckdb") as store:
        made = [(1, "ES", 1), (2, "NQ", 1), (3, "ES", 2), (4, "NQ", 2)]
        store.commit([Entry(seq, root, number, epoch(number)) for seq, root, number in made])
        store.commit([Entry(5, "NQ", 2, Closed(NOW, "eoi")), Entry(6, "ES", 2, EVERY_KIND[2])])
        assert store.epochs("ES") == [(1, epoch(1)), (3, epoch(2))]
        assert [seq for seq, _ in store.entries("NQ")] == [2, 4, 5]
        assert [seq for seq, _ in store.entries("NQ", 2)] == [4, 5]
        assert [seq for seq, _ in store.entries("NQ", after=2, upto=4)] == [4]
        assert store.inputs(after=5)["seq"].to_list() == [6]
        assert store.inputs()["root"].unique(maintain_order=True).to_list() == ["ES", "NQ"]


def test_last_bars_are_the_consumed_ones_since(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.duckdb") as store:
        store.commit(entries_of(EVERY_KIND))
        assert store.last_bars("ES", NOW)["seq"].to_list() == [2]
        assert store.last_bars("ES", NOW + 1).is_empty()
        assert store.last_bars("NQ", 0).is_empty()
        assert store.last_bars("ES", 0)["ts"].to_physical().to_list() == [NOW]


@pytest.mark.parametrize("hours", [[], ["09:30-16:00 America/New_York"]])
def test_a_session_table_comes_back_exactly(tmp_path: Path, hours: list[str]) -> None:
    sessions = load_sessions(hours=hours)
    with Store.open(tmp_path / "a.duckdb") as store:
        found = store.save_sessions(sessions)
        assert store.save_sessions(sessions) == found
        later = Sessions(sessions.frame.with_columns(pl.col("close") + pl.duration(seconds=1)))
        noted = Sessions(sessions.frame.with_columns(note=pl.lit("other")))
        others = [later, noted, sessions.between("2019-01-01", "2019-12-31")]
        assert len({found, *map(store.save_sessions, others)}) == 4
        again = store.sessions(found)
        with pytest.raises(StoreError, match="no session table"):
            store.sessions("none")
    assert_frame_equal(again.frame, sessions.frame, check_exact=True)


def test_recommendations_alerts_and_commits_come_back(tmp_path: Path) -> None:
    made = [recommendation(), recommendation(id="def", seq=9, root="NQ", simulated=False)]
    alert = Alert(recommendation_id="abc", channel="desktop", text="buy [abc]", created=NOW)
    with Store.open(tmp_path / "a.duckdb") as store:
        store.commit(
            [],
            recommendations=made,
            commits=[Commit(recommendation_id="abc", committed_at=NOW, price=5_000_500_000_000)],
            alerts=[alert, replace(alert, channel="mail")],
        )
        assert store.recommendations() == made
        assert store.recommendations("NQ") == made[1:]
        assert store.commits()["price"].to_list() == [5_000_500_000_000]
        first, second = store.pending_alerts()
        assert (first, second.id) == (replace(alert, id=1), 2)
        store.mark_failed(first.id, NOW, "no route")
        store.mark_sent(second.id, NOW + 5)
        assert store.pending_alerts() == [replace(alert, id=1, attempts=1, error="no route")]
        assert store.feed_events()["kind"].to_list() == ["alert_failed"]
        store.mark_sent(first.id, NOW)
        assert store.pending_alerts() == []
        outbox = store.table("outbox")
    assert outbox["attempts"].to_list() == [2, 1]
    assert outbox["sent"].to_physical().to_list() == [NOW, NOW + 5]


def test_a_recommendation_says_what_readers_look_for() -> None:
    line = recommendation().to_json()
    document = json.loads(line)
    assert "\n" not in line
    assert list(document)[:16] == [
        "timestamp",
        "contract",
        "action",
        "quantity",
        "order_type",
        "price",
        "validity",
        "stop_loss",
        "profit_target",
        "confidence",
        "bayesian_multiplier",
        "signal_strength",
        "modal_price",
        "modal_position",
        "volume_ratio",
        "reasoning",
    ]
    assert document["timestamp"] == "2023-11-14T22:13:20.000000001Z"
    assert document["valid_until"] == "2023-11-14T22:18:20Z"
    assert document["confidence"] == 0.1 + 0.2
    assert len(document) == len(recommendation().__dataclass_fields__)


def test_certificates_come_back(tmp_path: Path) -> None:
    made = Certificate(
        root="ES",
        epoch=1,
        upto_seq=7,
        inputs_hash="a",
        outputs_hash="b",
        made_at=NOW,
        engine_version="1",
        clustercore_version="0",
        state='{"balance": 1}',
        ok=True,
    )
    with Store.open(tmp_path / "a.duckdb") as store:
        store.save_certificate(made)
        store.save_certificate(replace(made, root="NQ", ok=False))
        assert store.certificates("ES") == [made]
        assert [row.ok for row in store.certificates()] == [True, False]


def test_derived_rows_can_be_put_back(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb"), create=False) as store:
        second = [Entry(store.next_seq, "ES", 2, epoch(2))]
        caused = next(e for e in entries() if any(isinstance(event, Trade) for event in e.events))
        second.append(replace(caused, seq=store.next_seq + 1, epoch=2))
        store.commit(second)
        names = (*DERIVED, "contexts")
        before = {name: store.table(name) for name in names}
        kept = {name: store.derived(name, "ES", 1) for name in DERIVED}
        store.commit([], recommendations=[recommendation()])
        store.replace_derived("ES", 1, {})
        assert store.derived("trades", "ES", 1).is_empty()
        assert store.derived("trades", "ES", 2).height == 1
        store.replace_derived("ES", 1, kept)
        for name in names:
            key = ["epoch", "context"] if name == "contexts" else "seq"
            assert_frame_equal(
                store.table(name).sort(key, maintain_order=True),
                before[name].sort(key, maintain_order=True),
                check_exact=True,
            )
        assert store.recommendations() == [recommendation()]
        store.replace_derived("ES", 1, kept, recommendations=[])
        assert store.recommendations() == []
        # What comes after counts on from what was put back.
        store.commit([replace(caused, seq=store.next_seq)])
        trade = next(event for event in caused.events if isinstance(event, Trade))
        row = store.contexts("ES", 1).filter(pl.col("context") == trade.context)
        assert row["trades"][0] == kept["trades"].filter(context=trade.context).height + 1


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "a.duckdb", 1), create=False) as store:
        for call in (
            lambda: store.derived("inputs; DROP TABLE inputs", "ES"),
            lambda: store.table("nothing"),
            lambda: store.replace_derived("ES", 1, {"inputs": pl.DataFrame()}),
            lambda: store.replace_derived("ES", 7, {}),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.reason == "invalid"


def test_a_snapshot_is_the_store_of_that_moment(tmp_path: Path) -> None:
    path = filled(tmp_path / "it's.duckdb", 1)
    with Store.open(path) as store:
        store.snapshot()
        store.add_feed_event(FeedEvent(at=NOW, kind="later"))
        second = store.snapshot(tmp_path / "second.duckdb")
        with pytest.raises(StoreError, match="place of its own store"):
            store.snapshot(path)
        with Store.open(tmp_path / "it's.duckdb.snapshot.duckdb", read_only=True) as copy:
            assert_frame_equal(copy.table("inputs"), store.table("inputs"))
            assert_frame_equal(copy.table("equity"), store.table("equity"))
            assert copy.feed_events().is_empty()
    with Store.open(second) as copy:
        assert copy.feed_events().height == 1
        # A copy is a store like any other: it keeps its keys and can be gone on with.
        copy.commit([Entry(copy.next_seq, "ES", 1, Operator("stop"))])
        copy.next_seq = 1
        with pytest.raises(StoreError):
            copy.commit([Entry(1, "ES", 1, Operator("stop"))])
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"it's.duckdb", "it's.duckdb.snapshot.duckdb", "second.duckdb"}


def test_a_year_is_read_in_the_time_a_restart_has(tmp_path: Path) -> None:
    bars = 50_000
    with Store.open(tmp_path / "a.duckdb") as store:
        one = inputs(1)[1]
        assert isinstance(one, Bar)
        fields = astuple(one)
        made: list[Entry] = []
        for place in range(bars):
            ts = one.ts_event + place * 60 * 10**9
            made += [
                Entry(2 * place + 1, "ES", 1, Bar(fields[0], ts, *fields[2:])),
                Entry(2 * place + 2, "ES", 1, Closed(ts, "eoi")),
            ]
        began = time.perf_counter()
        store.commit(made)
        written = time.perf_counter() - began
        began = time.perf_counter()
        count = sum(1 for _ in store.entries("ES", 1))
        read = time.perf_counter() - began
    assert count == 2 * bars
    # 40,000 bars a second, and a year of 350,000 in a second; five times that on a busy machine.
    assert written < 5 * bars / 40_000
    assert read < 5 * bars / 350_000
