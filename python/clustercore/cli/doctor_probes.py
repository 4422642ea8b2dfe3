"""How the doctor's questions are asked here: of the vendor, of the store, of the machine."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from clustercore.errors import ClusterCoreError
from clustercore.instruments import parse_symbol
from clustercore.live.clock import SystemClock
from clustercore.live.doctor import Probes, server_time
from clustercore.live.key import file_mode, read_key
from clustercore.live.past import HistoricalPast, open_past
from clustercore.parity import roots as roots_of
from clustercore.sessions import load_sessions
from clustercore.store import Store
from clustercore.store.sql import readable

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.live.key import Key
    from clustercore.live.settings import LiveSettings

__all__ = ["probes_of"]

_VENDOR = "hist.databento.com"
_TIMEOUT_S = 10.0
_ATTEMPTS = 1


def probes_of(
    stack: contextlib.ExitStack,
    config: Config,
    symbols: Sequence[str],
    database: Path,
    settings: LiveSettings,
) -> Probes:
    """Return the questions for what would be traded."""
    clock = SystemClock()
    sessions = load_sessions(hours=config.session.hours, day=config.session.day)
    key, refusal = _key(settings)

    def the_key() -> Key:
        if key is None:
            raise refusal or AssertionError("neither a key nor a reason")
        return key

    past = None
    roots: list[str] = []
    if key is not None:
        products = [parse_symbol(symbol) for symbol in symbols]
        parents = [f"{parts.root}.FUT" for parts in products if parts.kind in {"root", "parent"}]
        single = [s for s, parts in zip(symbols, products, strict=True) if parts.kind == "outright"]
        roots = [parts.root for parts in products]
        # A person waits for the answer: what fails is said at once.
        past = open_past(stack, settings, key, database.parent, parents, single, attempts=_ATTEMPTS)
    market_end = 0
    if past is not None and settings.is_local:
        with contextlib.suppress(ClusterCoreError):
            market_end = past.available_end()
    there = database.exists()
    return Probes(
        key=the_key,
        env_mode=file_mode,
        # Beside a gateway on this machine it is as late as its market.
        now=lambda: market_end or clock.now(),
        available_end=None if past is None else past.available_end,
        leads=_ask_leads(past, roots, database),
        server_time=None if settings.is_local or key is None else _vendor_time(stack),
        database=database,
        opened=lambda: _open(database),
        history=(lambda: _history(database)) if there else None,
        bar_starts=(lambda: _bar_starts(database)) if there else None,
        sessions_needed=config.baseline.sessions if _needs_sessions(config) else 1,
        is_local=settings.is_local,
        sessions=sessions,
        floor_bytes=settings.disk_floor_mb * 1_000_000,
    )


def _key(settings: LiveSettings) -> tuple[Key | None, Exception | None]:
    """Return the key, or why there is none; it is read once, as what it warns of is said once."""
    from clustercore.live.runner import REHEARSAL_KEY

    if settings.is_local:
        return REHEARSAL_KEY, None
    try:
        return read_key(), None
    except Exception as error:  # noqa: BLE001 -- said on the line of the key
        return None, error


def _needs_sessions(config: Config) -> bool:
    return bool(config.baseline.mode == "time_of_day")


def _ask_leads(
    past: HistoricalPast | None, products: Sequence[str], database: Path
) -> Callable[[], Mapping[str, str]] | None:
    """Return who says which month is in front: the store, else history; nothing is bought."""
    if past is None and not database.exists():
        return None

    def leads() -> Mapping[str, str]:
        found = dict.fromkeys(products, "")
        if database.exists():
            found = _followed(database, products)
        unknown = [root for root, symbol in found.items() if not symbol]
        return found | (past.fronts(unknown) if past is not None and unknown else {})

    return leads


def _followed(database: Path, products: Sequence[str]) -> dict[str, str]:
    """Return the month that the engine of each product follows."""
    found = dict.fromkeys(products, "")
    with _looked_into(database) as store:
        changes = store.table("inputs").filter(kind="contract")
    for root, symbol in changes.select("root", "symbol").iter_rows():
        if root in found:
            found[root] = symbol
    return found


def _looked_into(database: Path) -> Store:
    """Return the store, or its snapshot while a live process owns it."""
    return Store.open(readable(database), create=False, read_only=True)


def _vendor_time(stack: contextlib.ExitStack) -> Callable[[], int]:
    connection = http.client.HTTPSConnection(_VENDOR, timeout=_TIMEOUT_S)
    stack.callback(connection.close)
    return lambda: server_time(connection)


def _open(database: Path) -> None:
    Store.open(database, create=False).close()


def _history(database: Path) -> Mapping[str, int]:
    with _looked_into(database) as store:
        sessions = load_sessions()
        return {
            root: sessions.locate(store.last_bars(root, 0)["ts"]).n_unique()
            for root in roots_of(store)
        }


def _bar_starts(database: Path) -> pl.Series:
    with _looked_into(database) as store:
        parts = [store.last_bars(root, 0)["ts"].to_physical() for root in roots_of(store)]
    return pl.concat(parts) if parts else pl.Series(dtype=pl.Int64)
