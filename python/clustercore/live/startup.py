"""How an engine comes back: the log is folded again, compared, and perhaps a new epoch begins."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from clustercore.engine import ENGINE_VERSION
from clustercore.errors import DataError
from clustercore.inputs import Carry, Closed, Entry, Epoch, Input, WarmUp
from clustercore.live.strategy import Calendar
from clustercore.parity import (
    altered,
    certificate_at_end,
    compare,
    frames,
    recommended,
    uncertified,
    verify,
    without_epoch,
)
from clustercore.store import Store

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.events import Event
    from clustercore.live.strategy import Strategy
    from clustercore.parity import Parity

__all__ = ["Restored", "days_needed", "restore", "state_left"]

_LOG = logging.getLogger(__name__)
_DAY_NS = 86_400 * 10**9
# More than the sessions over which duplicates are looked for and months compared.
_REMEMBERED_DAYS = 21
_RECENT = 10_000
# Over a weekend, a holiday, and the session under way.
_SPARE_DAYS = 3
# So many the usual minutes of a session are the median of.
_USUAL_SESSIONS = 20
# Fewer than a session has, so that a short one among them does no harm.
_SESSION_MINUTES = 20 * 60
# Rows of a log that are folded at a time.
_ROWS = 65_536


@dataclass(frozen=True)
class Restored:
    """What a restart found."""

    replayed: int
    difference: str | None
    new_epoch: bool
    days_short: int = 0
    """How many days of history the new epoch lacks, by what its settings look back on."""
    after_upgrade: bool = False
    """Whether that epoch has begun, from what another engine version left."""
    agreeing: tuple[Parity, ...] = ()
    """Ended epochs that agree with the store, and of which no certificate says so yet."""


def restore(
    store: Store,
    strategy: Strategy,
    wanted: Epoch,
    *,
    flush: Callable[[], None],
    see: Callable[[int, Input, tuple[Event, ...]], None],
) -> Restored:
    """Bring an engine to where its log ends.

    Parameters
    ----------
    store : Store
        The store.
    strategy : Strategy
        The engine and what feeds it; its fold is empty.
    wanted : Epoch
        The epoch as configured now (its number is not looked at).
    flush : callable
        Commits what waits. Nothing is committed here: what begins waits until every engine is
        back, so that a start that is refused changes nothing.
    see : callable
        Gets seq, input and events of every entry of the epoch under way that caused something,
        and of the account it took over.

    Returns
    -------
    Restored
        How many entries were replayed, the first difference from what is stored (in an earlier
        epoch, too), and whether another epoch begins.

    Raises
    ------
    DataError
        An engine of another version was stopped in the middle of a session, or the log cannot be
        read; the message names file and input.
    """
    try:
        return _restored(store, strategy, wanted, flush, see)
    except DataError as error:
        raise error.in_file(str(store.path)) from error


def _restored(
    store: Store,
    strategy: Strategy,
    wanted: Epoch,
    flush: Callable[[], None],
    see: Callable[[int, Input, tuple[Event, ...]], None],
) -> Restored:
    root = strategy.root
    epochs = store.epochs(root)
    lost = without_epoch(store, root)
    if not epochs and lost is not None:
        raise DataError(
            f"{lost}; a log that lost its beginning cannot be gone on with: go back to a snapshot, "
            "or begin another database",
            file=str(store.path),
        )
    if not epochs:
        strategy.begin([wanted])
        return Restored(0, None, new_epoch=True)
    last = epochs[-1][1]
    horizon = _horizon(store, root)
    difference = lost
    unsaid = uncertified(store, root)
    agreeing = []
    for _, epoch in epochs[:-1]:
        _note_rows(strategy, store.inputs(root, epoch.number), horizon)
        if difference is None:
            found = verify(store, root, epoch)
            difference = found.difference
            if found.ok and epoch in unsaid:
                agreeing.append(found)
    if last.engine_version != ENGINE_VERSION:
        difference = difference or verify(store, root, last).difference
        _after_upgrade(store, strategy, last, wanted, flush)
        return Restored(0, difference, new_epoch=True, after_upgrade=True, agreeing=tuple(agreeing))
    rows = store.inputs(root, last.number)
    with _without_collection():
        caused = _fold_again(strategy, last, rows, see)
    _note_rows(strategy, rows, horizon)
    difference = difference or _difference(store, root, last, rows, caused)
    if (last.config_id, last.sessions_hash) == (wanted.config_id, wanted.sessions_hash):
        return Restored(rows.height, difference, new_epoch=False, agreeing=tuple(agreeing))
    strategy.pending_epoch = lambda: _successor(store, strategy, wanted, flush)
    return Restored(
        rows.height,
        difference,
        new_epoch=True,
        days_short=_days_short(store, strategy),
        agreeing=tuple(agreeing),
    )


def _days_short(store: Store, strategy: Strategy) -> int:
    """Return how many days the log lacks of what the new settings look back on."""
    first = store.first_bar(strategy.root)
    if first is None or strategy.last_bar is None:
        return 0
    needed = days_needed(strategy.config) - _SPARE_DAYS
    return max(0, needed - (strategy.last_bar.ts_event - first) // _DAY_NS)


def _fold_again(
    strategy: Strategy,
    epoch: Epoch,
    rows: pl.DataFrame,
    see: Callable[[int, Input, tuple[Event, ...]], None],
) -> list[Entry]:
    """Fold an epoch's entries; return those that caused something."""
    caused: list[Entry] = []
    for part in rows.iter_slices(_ROWS):
        for seq, item, events in strategy.fold.apply_rows(part):
            if isinstance(item, Epoch) and strategy.on_epoch is not None:
                strategy.on_epoch(item)
            if events or isinstance(item, Carry):
                see(seq, item, events)
            if events:
                caused.append(Entry(seq, strategy.root, epoch.number, item, events))
    return caused


def _difference(
    store: Store, root: str, epoch: Epoch, rows: pl.DataFrame, caused: list[Entry]
) -> str | None:
    """Return the first thing in which the log or what it caused is not what was stored."""
    _, difference = altered(store, root, epoch, rows)
    if difference is not None:
        return difference
    told = recommended(epoch, store.sessions(epoch.sessions_hash), caused)
    return compare(store, root, epoch, frames(caused, epoch), told)


def _note_rows(strategy: Strategy, rows: pl.DataFrame, horizon: int) -> None:
    """Let a strategy see again what was said lately about months, duplicates and closings."""
    of_market = pl.col("kind").is_in(["bar", "closed"])
    recent = rows.filter(~of_market | (pl.col("ts").to_physical() >= horizon))
    for _, item in strategy.fold.log.inputs(recent.filter(pl.col("kind") != "prints")):
        strategy.note(item)


def _horizon(store: Store, root: str) -> int:
    """Return from when on bars are remembered; older ones matter to the engine only."""
    recent = store.inputs(root, after=store.next_seq - _RECENT)
    # What was kept aside may say any time.
    newest = recent.filter(pl.col("consumed") | (pl.col("kind") == "closed"))["ts"].max()
    return (_nanos(newest) if newest is not None else 0) - _REMEMBERED_DAYS * _DAY_NS


def _nanos(moment: object) -> int:
    return int(pl.Series([moment]).cast(pl.Datetime("ns", "UTC")).to_physical()[0])


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the collector of cycles away while a year of entries is made; there are none in it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _successor(
    store: Store, strategy: Strategy, wanted: Epoch, flush: Callable[[], None]
) -> list[Input] | None:
    """Return the entries that begin an epoch; None while a session of the old table goes on."""
    flush()
    try:
        state = strategy.fold.engine.account_state()
    except DataError:
        return None
    return _begin_with(store, strategy, wanted, state, strategy.calendar)


def _begin_with(
    store: Store, strategy: Strategy, wanted: Epoch, state: str, calendar: Calendar
) -> list[Input]:
    number = store.epochs(strategy.root)[-1][1].number + 1
    items: list[Input] = [
        Epoch(
            number,
            wanted.config_id,
            wanted.engine_version,
            wanted.sessions_hash,
            wanted.interval_ns,
            wanted.settings,
            wanted.instrument,
        )
    ]
    if strategy.last_bar is not None:
        since = strategy.last_bar.ts_event - days_needed(strategy.config) * _DAY_NS
        bars = store.last_bars(strategy.root, since)
        first = bars.filter(~pl.col("context"))["seq"]
        items.append(WarmUp(int(first[0]), int(bars["seq"][-1])))
        close = _close_after(strategy.last_bar.ts_event, calendar)
        if close is not None:
            items.append(Closed(close, "session"))
    items.append(Carry(state))
    return items


def _close_after(ts: int, calendar: Calendar) -> int | None:
    """Return the end of the session that a bar is in, None outside of all."""
    session = calendar.session(ts)
    return None if session is None else calendar.closes[session]


def _after_upgrade(
    store: Store, strategy: Strategy, last: Epoch, wanted: Epoch, flush: Callable[[], None]
) -> None:
    """Begin an epoch after another engine version, from what it left at its session's end.

    Where that session goes on by another table, the epoch runs to the session's end under the table
    that it ended by, and the table waits as another configuration does.
    """
    root = strategy.root
    state = state_left(store, root)
    _note_rows(strategy, store.inputs(root, last.number), _horizon(store, root))
    calendar = strategy.calendar
    bar = strategy.last_bar
    close = None if bar is None else _close_after(bar.ts_event, calendar)
    if close is not None and close > strategy.closed_until:
        calendar = Calendar(store.sessions(last.sessions_hash))
        strategy.pending_epoch = lambda: _successor(store, strategy, wanted, flush)
        wanted_now = replace(wanted, sessions_hash=last.sessions_hash)
    else:
        wanted_now = wanted
    strategy.begin(_begin_with(store, strategy, wanted_now, state, calendar))


def state_left(store: Store, root: str) -> str:
    """Return the account that another engine version left; empty when it was this one, or none.

    Raises
    ------
    DataError
        That version was stopped in the middle of a session.
    """
    epochs = store.epochs(root)
    if not epochs or epochs[-1][1].engine_version == ENGINE_VERSION:
        return ""
    last = epochs[-1][1]
    left = certificate_at_end(store, root, last.number)
    if left is None or not left.state:
        raise DataError(
            f"{root}: engine version {last.engine_version} was stopped in the middle of a session; "
            "run that version until the session's end, then this one",
            file=str(store.path),
            found=f"engine version {last.engine_version}",
            expected=ENGINE_VERSION,
        )
    return left.state


def days_needed(config: Config) -> int:
    """Return how many days of history the configuration looks back on, 5 at least.

    Examples
    --------
    >>> from clustercore.config import Config
    >>> days_needed(Config.preset("default")), days_needed(Config.preset("v6-live"))
    (31, 5)
    """
    baseline = config.baseline
    sessions = {"time_of_day": baseline.sessions, "previous_session": _USUAL_SESSIONS}
    minutes = max(
        config.volatility.minutes,
        config.volatility.atr_minutes,
        baseline.bars if baseline.mode == "rolling" else 0,
        60 * config.roll.lookback_hours,
    )
    needed: int = max(sessions.get(baseline.mode, 1), math.ceil(minutes / _SESSION_MINUTES))
    return math.ceil(needed * 7 / 5) + _SPARE_DAYS
