"""Another configuration, another engine, a changed row: what an epoch carries over and refuses."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import clustercore as cc
from clustercore import parity
from clustercore.engine import ENGINE_VERSION
from clustercore.errors import DataError
from clustercore.gateway import GatewayData, sample_parent_data
from clustercore.inputs import Bar, Carry, Closed, Entry, Epoch, Input, Operator, WarmUp
from clustercore.live.control import ControlError
from clustercore.live.projections import LATEST, LOG
from clustercore.live.runner import LiveRunner
from clustercore.live.settings import LiveSettings
from clustercore.live.startup import days_needed
from clustercore.live.strategy import Calendar
from clustercore.recommendation import Recommendation
from clustercore.sessions import Sessions, load_sessions
from clustercore.store import DERIVED, Certificate, FeedEvent, Store, StoreError
from clustercore.store.schema import TABLES
from tests.live.harness import ACTIVE, HOLD, Run, assert_parity, derived, live, part
from tests.live.killed import CONFIG
from tests.live.test_feed_behaviours import (
    NOON,
    Step,
    Told,
    again,
    completed,
    end,
    mapping,
    moving,
    scripted,
)

__all__ = ["scripted"]

SYMBOL = "ESZ4"
MINUTE_NS = 60 * 10**9
BEFORE = CONFIG.override({"risk.max_consecutive_losses": None, "risk.daily_loss_pct": None})
# Other clusters, other exits and other costs: nothing of it may reach the session under way.
AFTER = BEFORE.override(
    {"cluster.threshold": 1.1, "exit.max_hold_minutes": 6, "costs.slippage_ticks": 2.0}
)
OLD_VERSION = "0"
NET_OF_FIRST_TRADE = "UPDATE trades SET net = net + ? WHERE seq = (SELECT min(seq) FROM trades)"
CALENDAR = Calendar(load_sessions())


def three_sessions(*, thin: bool) -> tuple[GatewayData, list[int]]:
    """Return some hours of three sessions, and the sessions' rows.

    The last hour of the second is there, or, where it is thin, only half of it: a position that
    is open then finds no bar to be closed in before the session is over.
    """
    frame = sample_parent_data(sessions=3).frame.filter(symbol=SYMBOL)
    times = pl.from_epoch(frame["ts_event"], "ns").dt.replace_time_zone("UTC")
    placed = frame.with_columns(session=load_sessions().locate(times))
    rows = placed["session"].unique().sort().to_list()
    first, second, third = rows
    opens, closes = CALENDAR.opens, CALENDAR.closes
    end = closes[second] - (30 * MINUTE_NS if thin else 0)
    ts = pl.col("ts_event")
    kept = placed.filter(
        ((pl.col("session") == first) & (ts >= closes[first] - 120 * MINUTE_NS))
        | ((pl.col("session") == second) & (ts < opens[second] + 120 * MINUTE_NS))
        | ((pl.col("session") == second) & (ts >= closes[second] - 120 * MINUTE_NS) & (ts < end))
        | ((pl.col("session") == third) & (ts < opens[third] + 120 * MINUTE_NS))
    )
    return GatewayData.from_bars(kept.drop("session"), simulated=True), rows


def run_until(
    data: GatewayData, folder: Path, instant: int, config: cc.Config, **given: Any
) -> Run:
    """Live until an instant of the market."""
    return live(data.before(instant), folder, config=config, symbols=[SYMBOL], **given)


def run_on(data: GatewayData, folder: Path, instant: int, config: cc.Config, **given: Any) -> Run:
    """Live on from an instant to the end of the market."""
    return live(data, folder, config=config, symbols=[SYMBOL], start=instant, **given)


def entries_of(database: Path, epoch: int) -> list[Input]:
    with Store.open(database, create=False, read_only=True) as store:
        return [item for _, item in store.entries("ES", epoch)]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[int]]:
    """Return a run whose configuration was changed in the middle of the second session."""
    data, rows = three_sessions(thin=True)
    folder = tmp_path_factory.mktemp("changed")
    middle = CALENDAR.opens[rows[1]] + 60 * MINUTE_NS
    held = BEFORE.override({"exit.max_hold_minutes": 120, "stop.k": 6.0})
    first = run_until(data, folder, middle, held)
    assert first.code == 0
    second = run_on(data, folder, middle, AFTER)
    assert second.code == 0
    return second, rows


def test_the_old_configuration_goes_on_until_its_session_ends(
    changed: tuple[Run, list[int]],
) -> None:
    run, rows = changed
    one, two = entries_of(run.database, 1), entries_of(run.database, 2)
    last = max(item.ts_event for item in one if isinstance(item, Bar))
    assert CALENDAR.session(last) == rows[1]
    assert last > CALENDAR.closes[rows[1]] - 60 * MINUTE_NS
    bars = [item for item in two if isinstance(item, Bar)]
    assert {CALENDAR.session(bar.ts_event) for bar in bars} == {rows[2]}
    epochs = [item for item in (*one, *two) if isinstance(item, Epoch)]
    assert [epoch.number for epoch in epochs] == [1, 2]
    ids = derived(run.database, "clusters").group_by("config_id", maintain_order=True).len()
    assert ids["config_id"].to_list() == [epoch.config_id for epoch in epochs]


def test_an_epoch_warms_up_and_takes_the_account_over_before_its_first_bar(
    changed: tuple[Run, list[int]],
) -> None:
    run, rows = changed
    epoch, warm_up, closed, carry, *rest = entries_of(run.database, 2)
    assert isinstance(epoch, Epoch)
    assert isinstance(warm_up, WarmUp)
    assert closed == Closed(CALENDAR.closes[rows[1]], "session")
    assert isinstance(carry, Carry)
    assert isinstance(rest[0], Bar)
    with Store.open(run.database, create=False, read_only=True) as store:
        first = store.epochs("ES")[0][1]
        left = parity.replay(store, "ES", first).fold.engine.account_state()
        warmed = parity.StoredLog(store).bars("ES", *_span(warm_up))
        known = store.inputs("ES", 1).filter(kind="bar", consumed=True).height
    assert carry.state == left
    assert len(warmed) == known
    state = json.loads(carry.state)
    trades = derived(run.database, "trades").filter(pl.col("config_id") == first.config_id)
    assert len(state["past"]) == trades.height > 0
    # An account that is not yet taken over leaves no mark.
    with Store.open(run.database, create=False, read_only=True) as store:
        caused = [seq for name in DERIVED for seq in store.derived(name, "ES", 2)["seq"].to_list()]
        bars = store.inputs("ES", 2).filter(kind="bar")["seq"].to_list()
    assert min(caused) >= bars[0]
    # The balance rests on those trades, and the open position is closed by the next epoch.
    assert state["account"]["balance"] != 50_000.0
    assert state["positions"]


def _span(warm_up: WarmUp) -> tuple[int, int]:
    return warm_up.first_seq, warm_up.last_seq


def test_a_position_that_was_carried_is_closed_once_and_told_once(
    changed: tuple[Run, list[int]],
) -> None:
    run, rows = changed
    with Store.open(run.database, create=False, read_only=True) as store:
        told = {made.id: made.epoch for made in store.recommendations()}
        one = store.derived("trades", "ES", 1)["trade_id"].to_list()
        two = store.derived("trades", "ES", 2)
    assert not set(one) & set(two["trade_id"].to_list())
    over = two.filter(pl.col("entry_time").to_physical() < CALENDAR.closes[rows[1]])
    assert over.height >= 1
    assert set(over["exit_reason"].to_list()) == {"session_end_late"}
    assert over.height < two.height
    assert {told[trade] for trade in over["trade_id"].to_list()} == {1}
    assert set(told.values()) == {1, 2}


def test_what_is_told_under_the_old_configuration_has_its_costs(
    changed: tuple[Run, list[int]],
) -> None:
    run, _ = changed
    commission = cc.Instrument.builtin("ES").commission
    costs = {1: 2 * (commission + 0.75 * 12.5), 2: 2 * (commission + 2.0 * 12.5)}
    # Those of the process that was started with the new configuration.
    assert {made.epoch for made in run.recommendations} == {1, 2}
    for made in run.recommendations:
        assert made.risk_usd is not None
        assert made.stop_distance is not None
        each = made.risk_usd / made.quantity - made.stop_distance * 50.0
        assert each == pytest.approx(costs[made.epoch])


def test_each_epoch_replays_under_its_own_configuration(changed: tuple[Run, list[int]]) -> None:
    run, _ = changed
    found = assert_parity(run.database)
    assert [one.epoch for one in found] == [1, 2]
    assert found[0].config_id != found[1].config_id
    assert not any(one.note for one in found)


def test_complete_data_change_nothing_where_every_bar_came_in_time(
    changed: tuple[Run, list[int]],
) -> None:
    run, _ = changed
    with Store.open(run.database, create=False, read_only=True) as store:
        for _, epoch in store.epochs("ES"):
            assert store.derived("trades", "ES", epoch.number).height
            assert parity.hindsight(store, "ES", epoch).is_empty()


def test_an_account_that_cannot_be_taken_over_in_hindsight_is_no_answer(
    changed: tuple[Run, list[int]], tmp_path: Path
) -> None:
    run, _ = changed
    database = tmp_path / run.database.name
    shutil.copy(run.database, database)
    change(database, "UPDATE inputs SET detail = '{}' WHERE kind = 'carry'")
    with Store.open(database, create=False, read_only=True) as store:
        _, (_, second) = store.epochs("ES")
        with pytest.raises(DataError):
            parity.hindsight(store, "ES", second)


def test_a_restart_after_the_change_finds_everything_equal(
    changed: tuple[Run, list[int]],
) -> None:
    run, _ = changed
    data, _ = three_sessions(thin=True)
    before = run.status.roots[0]
    again = run_on(data, run.database.parent, data.span[1] - MINUTE_NS, AFTER)
    assert again.code == 0
    assert again.status.counts["differences"] == 0
    # What is shown of the account outlives the process too.
    now = again.status.roots[0]
    assert (now.equity, now.day_pnl, now.blocked) == (before.equity, before.day_pnl, before.blocked)
    (carry,) = [item for item in entries_of(run.database, 2) if isinstance(item, Carry)]
    taken_over = json.loads(carry.state)["account"]["last_mark"]
    assert now.day_pnl == pytest.approx(now.equity - taken_over)
    assert [item.number for item in entries_of(run.database, 2) if isinstance(item, Epoch)] == [2]


def write_as_old_engine(database: Path) -> None:
    """Let a store say that another engine version wrote all of it, and certified it."""
    connection = duckdb.connect(str(database))
    try:
        epochs = connection.execute("SELECT seq, detail FROM inputs WHERE kind = 'epoch'")
        for seq, detail in epochs.fetchall():
            epoch = json.loads(detail) | {"engine_version": OLD_VERSION}
            connection.execute(
                "UPDATE inputs SET detail = ? WHERE seq = ?", [json.dumps(epoch), seq]
            )
        for name in (*DERIVED, "certificates"):
            connection.execute(f"UPDATE {name} SET engine_version = ?", [OLD_VERSION])  # noqa: S608
    finally:
        connection.close()
    with Store.open(database, create=False) as store:
        for root in parity.roots(store):
            for made in store.certificates(root):
                log = store.inputs(root, made.epoch, upto=made.upto_seq)
                found = (parity.hash_log(store, log), parity.hash_stored(store, root, made.epoch))
                store._open().execute(
                    "UPDATE certificates SET inputs_hash = ?, outputs_hash = ? "
                    "WHERE root = ? AND upto_seq = ?",
                    [*found, root, made.upto_seq],
                )


def change(database: Path, statement: str, *values: object) -> None:
    connection = duckdb.connect(str(database))
    try:
        connection.execute(statement, list(values))
    finally:
        connection.close()


def test_another_engine_goes_on_from_what_the_old_one_left(tmp_path: Path) -> None:
    data, rows = three_sessions(thin=False)
    boundary = CALENDAR.closes[rows[1]]
    first = run_until(data, tmp_path, boundary, BEFORE)
    assert first.code == 0
    with Store.open(first.database, create=False, read_only=True) as store:
        left = store.certificates("ES")[-1].state
    write_as_old_engine(first.database)
    second = run_on(data, tmp_path, boundary, BEFORE)
    assert second.code == 0
    epoch, _, _, carry, *_ = entries_of(second.database, 2)
    assert isinstance(epoch, Epoch)
    assert epoch.engine_version == ENGINE_VERSION
    assert carry == Carry(left)
    old, new = assert_parity(second.database)
    assert old.note == f"by the hashes that engine version {OLD_VERSION} stored"
    assert new.note == ""
    assert new.counts["trades"] > 0
    again = run_on(data, tmp_path, data.span[1] - MINUTE_NS, BEFORE)
    assert again.code == 0
    # A row of the old epoch that somebody changed is found by its hash.
    change(second.database, "UPDATE trades SET net = net + 1 WHERE epoch = 1")
    with Store.open(second.database, create=False, read_only=True) as store:
        old, new = parity.check(store)
    assert old.difference is not None
    assert "another hash than when they were certified" in old.difference
    assert new.ok


def beginnings(roots: Sequence[str]) -> tuple[GatewayData, int]:
    """Return the end of one session and the beginning of the next, and when the first is over."""
    symbols = [f"{root}Z4" for root in roots]
    frame = sample_parent_data(sessions=2, instruments=tuple(roots)).frame
    close = next(end for end in CALENDAR.closes if end > frame["ts_event"][0])
    opened = next(begin for begin in CALENDAR.opens if begin >= close)
    ts = pl.col("ts_event")
    near = ts.is_between(close - 60 * MINUTE_NS, opened + 30 * MINUTE_NS)
    kept = frame.filter(pl.col("symbol").is_in(symbols) & near)
    return GatewayData.from_bars(kept, simulated=True), close


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM certificates WHERE root = 'NQ'", "in the middle of a session"),
        ("DELETE FROM inputs WHERE root = 'NQ' AND kind = 'epoch'", "does not begin epoch 1"),
    ],
    ids=["not certified", "unreadable"],
)
def test_a_refused_upgrade_leaves_every_product_as_it_was(
    tmp_path: Path, statement: str, said: str
) -> None:
    data, close = beginnings(("ES", "NQ"))
    symbols = ["ESZ4", "NQZ4"]
    database = live(data.before(close), tmp_path, config=BEFORE, symbols=symbols).database
    write_as_old_engine(database)
    change(database, statement)
    with Store.open(database, create=False) as store:
        before = {name: store.table(name) for name in TABLES if name != "meta"}
    with pytest.raises(DataError, match=said):
        live(data, tmp_path, config=BEFORE, symbols=symbols, start=close)
    with Store.open(database, create=False) as store:
        for name, rows in before.items():
            assert store.table(name).equals(rows), name


def at_end(database: Path, epoch: int) -> Certificate | None:
    with Store.open(database, create=False, read_only=True) as store:
        return parity.certificate_at_end(store, "ES", epoch)


def assert_acts(run: Run) -> None:
    """Assert that a run found the log in order, and acted."""
    assert run.code == 0
    assert not [note.reason for note in run.notes if note.kind == "alarm"]
    assert "LIVE" in {note.detail["state"] for note in run.notes if note.kind == "state"}


def test_an_epoch_that_ended_in_a_replay_is_certified_for_the_engines_to_come(
    tmp_path: Path,
) -> None:
    data, rows = three_sessions(thin=False)
    opens, closes = CALENDAR.opens, CALENDAR.closes
    first = run_until(data, tmp_path, closes[rows[0]] - 60 * MINUTE_NS, BEFORE)
    # Started after the open: the end of the first session lies in the replay.
    late = opens[rows[1]] + 30 * MINUTE_NS
    second = run_on(data.before(closes[rows[1]]), tmp_path, late, AFTER)
    assert (first.code, second.code) == (0, 0)
    for epoch in (1, 2):
        left = at_end(second.database, epoch)
        assert left is not None
        assert left.ok
    write_as_old_engine(second.database)
    assert_acts(run_on(data, tmp_path, closes[rows[1]], AFTER))


def test_a_start_certifies_an_ended_epoch_that_agrees(
    changed: tuple[Run, list[int]], tmp_path: Path
) -> None:
    run, _ = changed
    database = tmp_path / run.database.name
    shutil.copy(run.database, database)
    change(database, "DELETE FROM certificates WHERE epoch = 1")
    data, _ = three_sessions(thin=True)
    assert run_on(data, tmp_path, data.span[1] - MINUTE_NS, AFTER).code == 0
    left = at_end(database, 1)
    assert left is not None
    assert left.ok


@pytest.fixture(scope="module")
def differed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that differed at a session's end, by one changed row."""
    data, rows = three_sessions(thin=False)
    folder = tmp_path_factory.mktemp("differed")
    close = CALENDAR.closes[rows[1]]
    first = run_until(data, folder, close - 30 * MINUTE_NS, BEFORE)
    change(first.database, NET_OF_FIRST_TRADE, 1.0)
    second = run_on(data.before(close), folder, close - 30 * MINUTE_NS, BEFORE)
    assert second.code == 1
    left = at_end(second.database, 1)
    assert left is not None
    assert not left.ok
    return second.database


def test_rows_that_were_made_again_are_certified(differed: Path, tmp_path: Path) -> None:
    data, rows = three_sessions(thin=False)
    database = tmp_path / differed.name
    shutil.copy(differed, database)
    assert _command("db", "rebuild", str(database)).returncode == 0
    left = at_end(database, 1)
    assert left is not None
    assert (left.ok, left.state != "") == (True, True)
    write_as_old_engine(database)
    assert_acts(run_on(data, tmp_path, CALENDAR.closes[rows[1]], BEFORE))


def test_inputs_that_contradict_a_certificate_get_no_other(differed: Path, tmp_path: Path) -> None:
    database = tmp_path / differed.name
    shutil.copy(differed, database)
    change(database, "UPDATE inputs SET volume = volume + 1 WHERE kind = 'bar'")
    with Store.open(database, create=False) as store:
        before = store.certificates()
        parity.rebuild(store, now=1_800_000_000 * 10**9)
        assert store.certificates() == before


def test_a_start_after_a_mended_difference_certifies_the_session_again(
    differed: Path, tmp_path: Path
) -> None:
    data, rows = three_sessions(thin=False)
    close = CALENDAR.closes[rows[1]]
    database = tmp_path / differed.name
    shutil.copy(differed, database)
    change(database, NET_OF_FIRST_TRADE, -1.0)
    assert run_on(data.before(close), tmp_path, close - MINUTE_NS, BEFORE).code == 0
    left = at_end(database, 1)
    assert left is not None
    assert left.ok


def closing_at(row: int, close: int) -> Sessions:
    """Return the session table with one session that closes at another time."""
    table = load_sessions().frame
    moment = pl.from_epoch(pl.Series([close]), "ns").dt.replace_time_zone("UTC")[0]
    closes = table["close"].to_list()
    closes[row] = moment
    parts = [pl.Series("close", closes, dtype=table.schema["close"])]
    for name in ("halts", "hours"):
        spans = table[name].to_list()
        spans[row] = [
            {"start": span["start"], "end": min(span["end"], close)}
            for span in spans[row]
            if span["start"] < close
        ]
        parts.append(pl.Series(name, spans, dtype=table.schema[name]))
    return Sessions(table.with_columns(parts))


def test_an_upgrade_with_a_later_close_takes_the_rest_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = three_sessions(thin=False)
    early = CALENDAR.closes[rows[1]] - 60 * MINUTE_NS
    with monkeypatch.context() as patched:
        table = closing_at(rows[1], early)
        patched.setattr("clustercore.live.runner.load_sessions", lambda *_, **__: table)
        first = run_until(data, tmp_path, early, BEFORE)
    write_as_old_engine(first.database)
    # Stopped and started once more within the hour that the old table did not know.
    middle = early + 30 * MINUTE_NS
    assert_acts(run_until(data, tmp_path, middle, BEFORE, start=early))
    second = run_on(data, tmp_path, middle, BEFORE)
    assert second.code == 0
    bars = {
        epoch: [item for item in entries_of(second.database, epoch) if isinstance(item, Bar)]
        for epoch in (1, 2, 3)
    }
    assert all(bar.consumed for taken in bars.values() for bar in taken)
    assert {CALENDAR.session(bar.ts_event) for bar in bars[2]} == {rows[1]}
    assert len(bars[2]) == 60
    assert {CALENDAR.session(bar.ts_event) for bar in bars[3]} == {rows[2]}
    assert len(assert_parity(second.database)) == 3
    with Store.open(second.database, create=False, read_only=True) as store:
        one, two, three = (epoch for _, epoch in store.epochs("ES"))
    assert one.sessions_hash == two.sessions_hash != three.sessions_hash
    assert OLD_VERSION == one.engine_version != two.engine_version == three.engine_version


def start_and_stop(database: Path) -> int:
    """Start between two sessions, and stop before anything is heard."""
    settings = LiveSettings(gateway="127.0.0.1:9", historical="none")
    runner = LiveRunner(BEFORE, [SYMBOL], database=database, settings=settings)
    runner.stop()
    return runner.run()


def test_a_halt_that_was_ended_after_the_close_does_not_forbid_an_upgrade(tmp_path: Path) -> None:
    data, rows = three_sessions(thin=False)
    close = CALENDAR.closes[rows[1]]
    sent: list[concurrent.futures.Future[Any]] = []

    def reset(runner: LiveRunner, _: FeedEvent) -> bool:
        if not sent:
            sent.append(runner.commands.submit("reset-halt", {}))
        return False

    run_until(data, tmp_path, close, BEFORE)
    second = run_until(data, tmp_path, close, BEFORE, start=close - MINUTE_NS, stop_when=reset)
    assert sent[0].result(timeout=0) == {"reset": ["ES"]}
    write_as_old_engine(second.database)
    assert_acts(run_on(data, tmp_path, close, BEFORE))
    assert_parity(second.database)


@pytest.mark.parametrize("command", ["reset-halt", "stop"])
def test_a_command_that_cannot_be_written_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    data, rows = three_sessions(thin=False)
    close = CALENDAR.closes[rows[1]]
    database = run_until(data, tmp_path, close, BEFORE).database
    operators = pl.col("kind") == "operator"
    with Store.open(database, create=False, read_only=True) as store:
        before = store.inputs("ES").filter(operators)
    written = Store.commit
    sent: list[concurrent.futures.Future[Any]] = []

    def full(store: Store, entries: Sequence[Entry], **rest: Any) -> None:
        if any(isinstance(entry.item, Operator) for entry in entries):
            raise StoreError("the disk is full", reason="disk_full", file=store.path)
        written(store, entries, **rest)

    def ask(runner: LiveRunner, _: FeedEvent) -> bool:
        if not sent:
            sent.append(runner.commands.submit(command, {}))
        return False

    monkeypatch.setattr(Store, "commit", full)
    with pytest.raises(StoreError, match="the disk is full"):
        run_until(data, tmp_path, close, BEFORE, start=close - MINUTE_NS, stop_when=ask)
    with pytest.raises(ControlError, match="it is not done, and the process ends"):
        sent[0].result(timeout=0)
    with Store.open(database, create=False, read_only=True) as store:
        assert store.inputs("ES").filter(operators).equals(before)


def test_a_snapshot_that_cannot_be_made_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = three_sessions(thin=False)
    sent: list[concurrent.futures.Future[Any]] = []

    def full(store: Store) -> Path:
        raise StoreError("the disk is full", reason="disk_full", file=store.path)

    def ask(runner: LiveRunner, event: FeedEvent) -> bool:
        if event.kind == "connecting" and not sent:
            sent.append(runner.commands.submit("snapshot", {}))
        return False

    monkeypatch.setattr(Store, "snapshot", full)
    run = run_until(data, tmp_path, CALENDAR.closes[rows[0]], BEFORE, stop_when=ask)
    assert run.code == 0
    with pytest.raises(ControlError, match="the disk is full"):
        sent[0].result(timeout=0)


def test_an_engine_is_upgraded_twice_between_two_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = three_sessions(thin=False)
    close = CALENDAR.closes[rows[1]]
    database = run_until(data, tmp_path, close, BEFORE).database
    write_as_old_engine(database)
    assert start_and_stop(database) == 0
    for module in ("fold", "live.startup", "parity"):
        monkeypatch.setattr(f"clustercore.{module}.ENGINE_VERSION", "later")
    assert_acts(run_on(data, tmp_path, close, BEFORE))
    assert [one.engine_version for one in assert_parity(database)] == [
        OLD_VERSION,
        ENGINE_VERSION,
        "later",
    ]


def test_what_stands_between_two_sessions_is_certified_at_a_stop(tmp_path: Path) -> None:
    database = tmp_path / "live.duckdb"
    assert start_and_stop(database) == 0
    write_as_old_engine(database)
    data, _ = three_sessions(thin=False)
    assert start_and_stop(database) == 0
    assert_acts(run_on(data, tmp_path, data.span[0], BEFORE))


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose first epoch is another engine's."""
    data, rows = three_sessions(thin=False)
    close = CALENDAR.closes[rows[1]]
    folder = tmp_path_factory.mktemp("upgraded")
    first = run_until(data, folder, close, BEFORE)
    write_as_old_engine(first.database)
    second = run_on(data, folder, close, BEFORE)
    assert (first.code, second.code) == (0, 0)
    assert_parity(second.database)
    assert first.recommendations
    return second.database


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE recommendations SET stop_loss = 1.0 WHERE epoch = 1", "another hash"),
        ("DELETE FROM recommendations WHERE epoch = 1", "another hash"),
        ("UPDATE contexts SET wins = wins + 1 WHERE epoch = 1", "another hash"),
        (
            "INSERT INTO trades SELECT * REPLACE (9999 AS seq) FROM trades WHERE epoch = 1 LIMIT 1",
            "trades has rows of inputs after",
        ),
        (
            "UPDATE recommendations SET seq = 9999 WHERE epoch = 1",
            "recommendations has rows of inputs after",
        ),
    ],
    ids=["changed", "deleted", "context", "trade added", "moved"],
)
def test_every_row_that_another_engine_left_is_certified(
    upgraded: Path, tmp_path: Path, statement: str, said: str
) -> None:
    database = tmp_path / upgraded.name
    shutil.copy(upgraded, database)
    change(database, statement)
    with Store.open(database, create=False, read_only=True) as store:
        old, new = parity.check(store)
    assert new.ok
    assert old.difference is not None
    assert said in old.difference


def test_whether_the_market_was_simulated_is_not_certified(upgraded: Path, tmp_path: Path) -> None:
    database = tmp_path / upgraded.name
    shutil.copy(upgraded, database)
    change(database, "UPDATE recommendations SET simulated = NOT simulated")
    assert_parity(database)


def assert_forbidden_by_the_log(run: Run, said: str) -> None:
    """Assert that a start found the log in disorder, said so and acted on nothing."""
    assert run.code == 1
    assert run.status.counts["differences"] >= 1
    alarms = [note.reason for note in run.notes if note.kind == "alarm"]
    assert any("does not replay to what is stored" in one and said in one for one in alarms), alarms
    assert "log" in run.runner._feed.state.troubles
    states = {note.detail["state"] for note in run.notes if note.kind == "state"}
    assert "DEGRADED" in states
    assert "LIVE" not in states
    assert not run.recommendations


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE certificates SET ok = false", "replay and store differed"),
        ("UPDATE trades SET net = net + 1000", "another hash than when they were certified"),
    ],
    ids=["differed already", "changed since"],
)
def test_what_another_engine_left_in_disorder_forbids_acting(
    tmp_path: Path, statement: str, said: str
) -> None:
    data, rows = three_sessions(thin=False)
    boundary = CALENDAR.closes[rows[1]]
    first = run_until(data, tmp_path, boundary, BEFORE)
    write_as_old_engine(first.database)
    change(first.database, statement)
    until = data.before(CALENDAR.opens[rows[2]] + 20 * MINUTE_NS)
    assert_forbidden_by_the_log(run_on(until, tmp_path, boundary, BEFORE), said)
    # The engine at hand began its epoch meanwhile; the disorder is still there.
    assert_forbidden_by_the_log(run_on(until, tmp_path, until.span[1] - MINUTE_NS, BEFORE), said)


def test_a_changed_row_of_an_earlier_epoch_forbids_acting(
    changed: tuple[Run, list[int]], tmp_path: Path
) -> None:
    run, _ = changed
    data, _ = three_sessions(thin=True)
    shutil.copy(run.database, tmp_path / run.database.name)
    change(tmp_path / run.database.name, "UPDATE trades SET net = net + 1 WHERE epoch = 1")
    second = run_on(data, tmp_path, data.span[1] - MINUTE_NS, AFTER)
    assert_forbidden_by_the_log(second, "trades row 0, column 'net'")


def test_another_engine_in_the_middle_of_a_session_is_refused(tmp_path: Path) -> None:
    data, rows = three_sessions(thin=False)
    first = run_until(data, tmp_path, CALENDAR.opens[rows[1]] + 60 * MINUTE_NS, BEFORE)
    assert first.code == 0
    write_as_old_engine(first.database)
    refused = _command("live", "--db", str(first.database), "--gateway", "127.0.0.1:9")
    assert refused.returncode == 2
    assert "in the middle of a session" in refused.stderr
    assert f"found engine version {OLD_VERSION}" in refused.stderr
    assert len(refused.stderr.splitlines()) < 10


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clustercore", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_changed_row_is_an_alarm_and_is_mended_only_when_asked(tmp_path: Path) -> None:
    data, rows = three_sessions(thin=False)
    middle = CALENDAR.opens[rows[1]] + 60 * MINUTE_NS
    first = run_until(data, tmp_path, middle, BEFORE)
    assert derived(first.database, "trades").height > 0
    change(
        first.database, "UPDATE trades SET net = net + 1 WHERE seq = (SELECT min(seq) FROM trades)"
    )
    changed = derived(first.database, "trades")
    second = run_on(data, tmp_path, middle, BEFORE)
    assert second.code == 1
    assert second.status.counts["differences"] >= 1
    alarms = [note.reason for note in second.notes if note.kind == "alarm"]
    assert any("trades row 0, column 'net'" in reason for reason in alarms)
    states = [note for note in second.notes if note.kind == "state"]
    assert any(note.detail["state"] == "DEGRADED" for note in states)
    assert not any(note.detail["state"] == "LIVE" for note in states)
    assert not second.recommendations
    assert derived(second.database, "trades").head(changed.height).equals(changed)
    mended = _command("db", "rebuild", str(first.database))
    assert mended.returncode in {0, 1}, mended.stderr
    assert_parity(first.database)
    third = run_on(data, tmp_path, data.span[1] - MINUTE_NS, BEFORE)
    assert third.code == 0
    assert third.status.counts["differences"] == 0


def test_a_changed_recommendation_is_named_and_made_again(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=2), 21.0, 28.0)
    run = live(data, tmp_path, config=ACTIVE)
    assert len(run.recommendations) > 3
    assert_parity(run.database)
    with duckdb.connect(str(run.database)) as changed:
        told = run.recommendations[1].id
        changed.execute("UPDATE recommendations SET stop_loss = 1.0 WHERE id = $1", [told])
    with Store.open(run.database, create=False) as store:
        (found,) = parity.check(store)
        assert found.difference is not None
        assert "recommendations row 1, column 'stop_loss': stored 1.0" in found.difference
        parity.rebuild(store, now=1_800_000_000 * 10**9)
        assert parity.check(store)[0].ok
        assert store.recommendations("ES") == run.recommendations


def test_recommendations_in_doubt_are_not_published(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=2), 21.0, 29.0)
    middle = data.span[0] + 7 * 3600 * 10**9
    first = live(data.before(middle), tmp_path, config=ACTIVE)
    assert first.recommendations
    files = [tmp_path / LATEST, tmp_path / LOG]
    before = [file.read_text("utf-8") for file in files]
    change(first.database, "UPDATE recommendations SET stop_loss = 1.0")
    second = live(data, tmp_path, config=ACTIVE, start=middle)
    assert second.code == 1
    alarms = [note.reason for note in second.notes if note.kind == "alarm"]
    assert any("recommendations row 0, column 'stop_loss'" in reason for reason in alarms)
    assert not any(note.detail["state"] == "LIVE" for note in second.notes if note.kind == "state")
    assert [file.read_text("utf-8") for file in files] == before


def test_halts_are_told_and_what_is_at_risk_agrees_with_the_recommendation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A path that is relative to another folder than the asker's.
    monkeypatch.chdir(tmp_path)
    config = ACTIVE.override(
        {"risk.max_consecutive_losses": 1, "size.max_contracts": 1, "risk.max_open_contracts": 1}
    )
    said: list[tuple[float | None, float]] = []
    copies: list[concurrent.futures.Future[Any]] = []

    def watch(runner: LiveRunner, event: FeedEvent) -> bool:
        def compare(made: Recommendation) -> None:
            # The order works now, and nothing else does.
            runner._refresh(force=True)
            said.append((made.risk_usd, runner.status.risk_usd))

        runner.on_recommendation = compare
        if event.kind == "state" and event.detail["state"] == "LIVE" and not copies:
            copies.append(runner.commands.submit("snapshot", {}))
        return False

    data = part(sample_parent_data(sessions=2), 21.0, 28.0)
    run = live(data, Path(), config=config, stop_when=watch)
    assert run.code == 0
    assert copies[0].result(timeout=0)["path"] == str(tmp_path / "live.duckdb.snapshot.duckdb")
    assert run.status.database == str(tmp_path / "live.duckdb")
    risk = derived(run.database, "risk")
    assert risk.height
    told = [note for note in run.notes if note.kind == "risk"]
    assert [note.detail["kind"] for note in told] == risk["kind"].to_list()
    assert all(note.reason.startswith(note.detail["kind"]) for note in told)
    assert said
    for recommended, shown in said:
        assert shown == pytest.approx(recommended)


# Told by a script: other session days, and settings that look back further than the log.

DAY = 1440
LITTLE = {"baseline.mode": "rolling", "baseline.bars": 10, "volatility.minutes": 60}


def test_another_session_day_waits_for_a_moment_between_the_sessions_of_both(
    scripted: Callable[..., Told],
) -> None:
    by_utc = HOLD.override({"session.day": "utc"})
    scripted([mapping(), *map(moving, range(30)), end(30)], config=HOLD)
    friday, sunday = 3 * DAY + 420, 5 * DAY + 480
    # Midnight UTC, 540 minutes after noon, lies within the exchange's session: each evening until
    # the weekend.
    evenings = [day * DAY + minute for day in range(3) for minute in range(480, 600, 5)]
    week = [*range(30, 60), *evenings, *range(friday - 60, friday)]
    told = scripted(
        [
            mapping(minute=30),
            *again(30, [moving(29)]),
            *map(moving, week),
            end(friday),
            *map(moving, range(sunday, sunday + 30)),
            end(sunday + 30),
        ],
        config=by_utc,
        at=30,
    )
    assert told.code == 0
    assert [row[2:] for row in told.bars()] == [(True, "")] * (30 + len(week) + 30)
    rows = told.rows().filter(kind="bar").with_columns(minute=pl.col("ts").to_physical() - NOON)
    minutes = {
        epoch: (rows.filter(epoch=epoch)["minute"] // MINUTE_NS).to_list() for epoch in (1, 2)
    }
    assert minutes[1][-1] == friday - 1
    assert minutes[2] == list(range(sunday, sunday + 30))
    one, two = assert_parity(told.runner.database)
    assert one.config_id != two.config_id
    # The next start is in the middle of the new epoch, and finds nothing to wait for.
    later = scripted(
        [mapping(minute=sunday + 30), *again(sunday + 30, [moving(sunday + 29)])],
        config=by_utc,
        at=sunday + 30,
    )
    assert later.code == 0
    assert len(assert_parity(later.runner.database)) == 2


@pytest.mark.parametrize(
    ("settings", "days"),
    [
        ({}, 31),
        ({"baseline.sessions": 40}, 59),
        ({"baseline.mode": "previous_session"}, 31),
        ({"baseline.mode": "rolling", "baseline.bars": 20_000}, 27),
        ({"volatility.minutes": 60_000}, 73),
        ({"volatility.atr_minutes": 60_000}, 73),
        ({**LITTLE, "roll.lookback_hours": 240.0}, 20),
        (LITTLE, 5),
    ],
)
def test_as_many_days_are_needed_as_any_setting_looks_back_on(
    settings: dict[str, Any], days: int
) -> None:
    # Sessions or minutes, at twenty hours a session, five sessions a week and three days to spare.
    assert days_needed(cc.Config.preset("default").override(settings)) == days


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        (ACTIVE, None),
        (cc.Config.preset("default"), 28),
        (ACTIVE.override({"volatility.minutes": 12_000}), 14),
    ],
    ids=["the same", "sessions", "minutes"],
)
def test_settings_that_look_back_further_than_the_log_say_so(
    scripted: Callable[..., Told], config: cc.Config, lacks: int | None
) -> None:
    scripted([mapping(), *map(moving, range(3)), end(3)])
    told = scripted(
        [mapping(minute=3), *again(3, [moving(2)]), moving(3), completed(4.1)], config=config, at=3
    )
    alarms = [reason for reason in told.reasons("alarm") if "look back on" in reason]
    assert [reason.split(" less", maxsplit=1)[0] for reason in alarms] == (
        [f"the log has {lacks} days"] if lacks else []
    )
    assert told.code == 0
    # It is a word to the operator; nothing is forbidden by it.
    assert [row[1] for row in told.bars()] == [True] * 4


@pytest.mark.parametrize("symbol", ["ES", "ESH5"], ids=["chosen", "given"])
def test_no_month_changes_within_the_session_of_an_epoch_that_another_day_waits_for(
    scripted: Callable[..., Told], symbol: str
) -> None:
    by_utc = HOLD.override({"session.day": "utc"})

    def both(minutes: Iterable[int], new_volume: int = 50) -> list[Step]:
        return [
            step
            for minute in minutes
            for step in (
                moving(minute, volume=100),
                moving(minute, 0.25, number=8, level=6_050, volume=new_volume),
            )
        ]

    def maps(minute: float) -> list[Step]:
        return [mapping(minute=minute), mapping("ESH5", number=8, minute=minute)]

    # The session before, so that a month is in front; the new one has the volume afterwards.
    before = [*range(-1_080, -1_020, 5), *range(-30, 10)]
    scripted([*maps(-1_080), *both(before), end(10)], symbols=("ES",), config=HOLD, at=-1_080)
    # The exchange's session of Wednesday opens at 480; midnight UTC, 540, lies within it.
    after = [*range(10, 420, 5), *range(480, 600, 5)]
    told = scripted(
        [*maps(10), *again(10, both([9])), *both(after, 1_000), end(600)],
        symbols=(symbol,),
        config=by_utc,
        at=10,
    )
    assert told.reasons("refused") == []
    taken = [minute for minute, _, consumed, _ in told.bars() if consumed and minute >= 480]
    assert sorted(set(taken)) == list(range(480, 600, 5))


def test_midnight_is_no_alarm_while_another_session_day_waits(
    scripted: Callable[..., Told],
) -> None:
    by_utc = HOLD.override({"session.day": "utc"})
    scripted([mapping(), *map(moving, range(30)), end(30)], config=HOLD)
    minutes = [*range(30, 60), *range(480, 600, 5)]
    told = scripted(
        [mapping(minute=30), *again(30, [moving(29)]), *map(moving, minutes), end(600)],
        config=by_utc,
        at=30,
    )
    assert [reason for reason in told.reasons("alarm") if "certificate" in reason] == []


def test_history_is_asked_for_the_contract_that_is_still_traded_too(
    scripted: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def open_past(*_: object) -> None:
        asked.append(sorted(_[-1]))  # type: ignore[call-overload]

    monkeypatch.setattr("clustercore.live.past.open_past", open_past)
    scripted([mapping(), *map(moving, range(30)), end(30)])
    scripted([mapping(minute=30), *again(30, [moving(29)])], symbols=("ESH5",), at=30)
    assert asked == [["ESZ4"], ["ESH5", "ESZ4"]]
