"""How an engine comes back: the log is folded again, compared, and perhaps a new epoch begins."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from clustercore.engine import ENGINE_VERSION
from clustercore.errors import DataError
from clustercore.inputs import Bar, Carry, Closed, Entry, Epoch, Input, Operator, WarmUp
from clustercore.parity import compare
from clustercore.store import Store

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.events import Event
    from clustercore.live.strategy import Strategy

__all__ = ["Restored", "days_needed", "restore"]

_LOG = logging.getLogger(__name__)
_DAY_NS = 86_400 * 10**9
# More than the sessions over which duplicates are looked for and months compared.
_REMEMBERED_DAYS = 21
_RECENT = 10_000


@dataclass(frozen=True)
class Restored:
    """What a restart found."""

    replayed: int
    difference: str | None
    new_epoch: bool


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
        Commits what waits.
    see : callable
        Gets seq, input and events of every entry of the epoch under way that caused something,
        and of the account it took over.

    Returns
    -------
    Restored
        How many entries were replayed, the first difference from what is stored, and whether
        another epoch begins.

    Raises
    ------
    DataError
        An engine of another version was stopped in the middle of a session.
    """
    root = strategy.root
    epochs = store.epochs(root)
    if not epochs:
        strategy.begin([wanted])
        flush()
        return Restored(0, None, new_epoch=True)
    last = epochs[-1][1]
    horizon = _horizon(store, root)
    for _, epoch in epochs[:-1]:
        for _, item in store.entries(root, epoch.number):
            if not isinstance(item, Bar | Closed) or _ts(item) >= horizon:
                strategy.note(item)
    if last.engine_version != ENGINE_VERSION:
        return _after_upgrade(store, strategy, last, wanted, flush)
    with _without_collection():
        replayed, caused = _fold_again(store, strategy, last, horizon, see)
    difference = compare(store, root, last, caused)
    same = (last.config_id, last.sessions_hash) == (wanted.config_id, wanted.sessions_hash)
    if not same:
        strategy.pending_epoch = lambda: _successor(store, strategy, wanted, flush)
    return Restored(replayed, difference, new_epoch=not same)


def _fold_again(
    store: Store,
    strategy: Strategy,
    epoch: Epoch,
    horizon: int,
    see: Callable[[int, Input, tuple[Event, ...]], None],
) -> tuple[int, list[Entry]]:
    """Fold an epoch's entries; return how many, and those that caused something."""
    replayed = 0
    caused: list[Entry] = []
    apply, note = strategy.fold.apply, strategy.note
    for seq, item in store.entries(strategy.root, epoch.number):
        events = apply(item)
        if not isinstance(item, Bar | Closed) or _ts(item) >= horizon:
            note(item)
        if isinstance(item, Epoch) and strategy.on_epoch is not None:
            strategy.on_epoch(item)
        replayed += 1
        if events or isinstance(item, Carry):
            see(seq, item, events)
        if events:
            caused.append(Entry(seq, strategy.root, epoch.number, item, events))
    return replayed, caused


def _ts(item: Bar | Closed) -> int:
    return item.ts_event if isinstance(item, Bar) else item.ts


def _horizon(store: Store, root: str) -> int:
    """Return from when on bars are remembered; older ones matter to the engine only."""
    newest = store.inputs(root, after=store.next_seq - _RECENT)["ts"].max()
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
) -> list[Input]:
    """Return the entries that begin an epoch at a session's boundary."""
    flush()
    state = strategy.fold.engine.account_state()
    return _begin_with(store, strategy, wanted, state)


def _begin_with(store: Store, strategy: Strategy, wanted: Epoch, state: str) -> list[Input]:
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
        session = strategy.calendar.session(strategy.last_bar.ts_event)
        if session is not None:
            items.append(Closed(strategy.calendar.closes[session], "session"))
    items.append(Carry(state))
    return items


def _after_upgrade(
    store: Store, strategy: Strategy, last: Epoch, wanted: Epoch, flush: Callable[[], None]
) -> Restored:
    """Begin an epoch after another engine version, from what it left at its session's end."""
    root = strategy.root
    end = -1
    for seq, item in store.entries(root, last.number):
        strategy.note(item)
        if (isinstance(item, Bar) and not item.consumed) or item == Operator("stop"):
            continue
        end = seq
    left = [c for c in store.certificates(root) if c.epoch == last.number and c.state]
    if not left or left[-1].upto_seq < end:
        raise DataError(
            f"{root}: engine version {last.engine_version} was stopped in the middle of a session; "
            "run that version until the session's end, then this one",
            file=str(store.path),
            found=f"engine version {last.engine_version}",
            expected=ENGINE_VERSION,
        )
    strategy.begin(_begin_with(store, strategy, wanted, left[-1].state))
    flush()
    return Restored(0, None, new_epoch=True)


def days_needed(config: Config) -> int:
    """Return how many days of history the configuration needs before it can decide.

    Examples
    --------
    >>> from clustercore.config import Config
    >>> days_needed(Config.preset("default")), days_needed(Config.preset("v6"))
    (31, 5)
    """
    # Weekends, a holiday, and the session under way.
    if config.baseline.mode == "time_of_day":
        return int(config.baseline.sessions * 7 / 5) + 3
    return 5
