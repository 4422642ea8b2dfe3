"""How the doctor's questions are asked here: of the vendor, of the store, of the machine."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from clustercore.contracts import choose_front
from clustercore.errors import ClusterCoreError
from clustercore.instruments import parse_symbol
from clustercore.live.clock import SystemClock
from clustercore.live.doctor import Probes, server_time
from clustercore.live.key import file_mode, read_key
from clustercore.live.past import HistoricalPast, open_past
from clustercore.parity import roots as roots_of
from clustercore.sessions import Sessions, load_sessions
from clustercore.store import Store

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.live.key import Key
    from clustercore.live.settings import LiveSettings

__all__ = ["probes_of"]

_MINUTE_NS = 60 * 10**9
_DAY_NS = 86_400 * 10**9
_VENDOR = "hist.databento.com"
_TIMEOUT_S = 10.0


def probes_of(
    stack: contextlib.ExitStack,
    config: Config,
    symbols: Sequence[str],
    database: Path,
    settings: LiveSettings,
) -> Probes:
    """Return the questions for what would be traded."""
    from clustercore.live.runner import REHEARSAL_KEY

    clock = SystemClock()
    sessions = load_sessions(hours=config.session.hours, day=config.session.day)
    key: Key | None = None
    with contextlib.suppress(Exception):
        key = REHEARSAL_KEY if settings.is_local else read_key()

    def the_key() -> Key:
        return key if key is not None else read_key()

    past = None
    roots: list[str] = []
    if key is not None:
        products = [parse_symbol(symbol) for symbol in symbols]
        parents = [f"{parts.root}.FUT" for parts in products if parts.kind in {"root", "parent"}]
        single = [s for s, parts in zip(symbols, products, strict=True) if parts.kind == "outright"]
        roots = [parts.root for parts in products]
        past = open_past(stack, settings, key, database.parent, parents, single)
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
        leads=_ask_leads(past, sessions, roots, settings, database),
        server_time=None if settings.is_local or key is None else _vendor_time(stack),
        database=database,
        opened=lambda: _open(database),
        history=(lambda: _history(database)) if there else None,
        bar_starts=(lambda: _bar_starts(database)) if there else None,
        sessions_needed=config.baseline.sessions if _needs_sessions(config) else 1,
        sessions=sessions,
        floor_bytes=settings.disk_floor_mb * 1_000_000,
    )


def _needs_sessions(config: Config) -> bool:
    return bool(config.baseline.mode == "time_of_day")


def _ask_leads(
    past: HistoricalPast | None,
    sessions: Sessions,
    products: Sequence[str],
    settings: LiveSettings,
    database: Path,
) -> Callable[[], Mapping[str, str]] | None:
    """Return who says which month is in front: the store, or a local server; nothing is bought."""
    if database.exists():
        return lambda: _followed(database, products)
    if past is not None and settings.is_local:
        return lambda: _leads(past, sessions, products)
    return None


def _followed(database: Path, products: Sequence[str]) -> Mapping[str, str]:
    """Return the month that the engine of each product follows."""
    found = dict.fromkeys(products, "")
    with Store.open(database, create=False, read_only=True) as store:
        changes = store.table("inputs").filter(kind="contract")
    for root, symbol in changes.select("root", "symbol").iter_rows():
        if root in found:
            found[root] = symbol
    return found


def _leads(past: HistoricalPast, sessions: Sessions, products: Sequence[str]) -> Mapping[str, str]:
    """Return the month that traded most over the last days of history, by product."""
    end = past.available_end()
    frame = past.bars(end - 3 * _DAY_NS, end)
    frame = frame.with_columns(pl.from_epoch("ts_event", "ns").dt.replace_time_zone("UTC"))
    roots = frame["symbol"].map_elements(lambda symbol: parse_symbol(symbol).root, pl.String)
    leads = dict.fromkeys(products, "")
    for (root,), months in frame.with_columns(root=roots).group_by("root", maintain_order=True):
        bars = months.select("ts_event", "symbol", "volume")
        located: list[int] = sessions.locate(bars["ts_event"]).drop_nulls().to_list()
        if not located:
            continue
        choice = choose_front(bars, sessions, max(located) + 1, _MINUTE_NS)
        leads[str(root)] = choice.symbol or ""
    return leads


def _vendor_time(stack: contextlib.ExitStack) -> Callable[[], int]:
    connection = http.client.HTTPSConnection(_VENDOR, timeout=_TIMEOUT_S)
    stack.callback(connection.close)
    return lambda: server_time(connection)


def _open(database: Path) -> None:
    Store.open(database, create=False).close()


def _history(database: Path) -> Mapping[str, int]:
    with Store.open(database, create=False, read_only=True) as store:
        sessions = load_sessions()
        return {
            root: sessions.locate(store.last_bars(root, 0)["ts"]).n_unique()
            for root in roots_of(store)
        }


def _bar_starts(database: Path) -> pl.Series:
    with Store.open(database, create=False, read_only=True) as store:
        parts = [store.last_bars(root, 0)["ts"].to_physical() for root in roots_of(store)]
    return pl.concat(parts) if parts else pl.Series(dtype=pl.Int64)
