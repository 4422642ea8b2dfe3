"""Which instruments a subscription means: months, parents, continuous symbols."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import polars as pl

from clustercore.contracts import expiry_of
from clustercore.gateway.records import GatewayData
from clustercore.instruments import parse_symbol

__all__ = ["STYPES", "Resolver"]

STYPES: Final = ("raw_symbol", "parent", "continuous", "instrument_id")

_DAY_NS = 86_400 * 10**9
# Of the futures of a root; its options are another parent.
_PARENT = re.compile(r"([A-Z0-9]+)\.FUT")
# By the calendar, by open interest, by volume.
_CONTINUOUS = re.compile(r"([A-Z0-9]+)\.([cnv])\.([0-9]{1,3})")


class Resolver:
    """Resolves what clients ask for.

    Parameters
    ----------
    data : GatewayData
        What is served.
    """

    def __init__(self, data: GatewayData) -> None:
        self._data = data
        self._places = {symbol: place for place, symbol in enumerate(data.symbols)}
        self._spans = _spans(data)

    def resolve(self, symbol: str, stype_in: str, now: int) -> list[int]:
        """Return the places of the instruments a symbol means at a time; none if unknown.

        Parameters
        ----------
        symbol : str
            As the client sent it.
        stype_in : str
            One of ``STYPES``.
        now : int
            The time, ns UTC.
        """
        if symbol == "ALL_SYMBOLS":
            return list(self._places.values())
        if stype_in == "parent":
            parent = _PARENT.fullmatch(symbol)
            root = parent[1] if parent else None
            return [place for name, place in self._places.items() if self._data.roots[name] == root]
        if stype_in == "continuous":
            raw = self._continuous(symbol, now)
            return [] if raw is None else [self._places[raw]]
        if stype_in == "instrument_id":
            return [
                self._places[name]
                for name, number in self._data.ids.items()
                if str(number) == symbol
            ]
        return [self._places[symbol]] if stype_in == "raw_symbol" and symbol in self._places else []

    def _continuous(self, symbol: str, now: int) -> str | None:
        parts = _CONTINUOUS.fullmatch(symbol)
        if parts is None:
            return None
        root, rule, rank = parts[1], parts[2], int(parts[3])
        months = self._listed(root, now)
        if rule == "c":
            day = datetime.fromtimestamp(now // 10**9, UTC).date()
            months.sort(key=lambda name: expiry_of(name, day))
        else:
            # The gateway knows no open interest; volume ranks for it too.
            volumes = self._volumes(now)
            months.sort(key=lambda name: (-volumes.get(name, 0), name))
        return months[rank] if rank < len(months) else None

    def _listed(self, root: str, now: int) -> list[str]:
        """Return the months of a root that still trade."""
        return [
            name
            for name, (_, last) in self._spans.items()
            if self._data.roots[name] == root
            and parse_symbol(name).kind == "outright"
            and last >= now - _DAY_NS
        ]

    def _volumes(self, now: int) -> dict[str, int]:
        """Return the volumes of the day before; of the first day where there is none before."""
        frame = self._data.frame
        if frame.is_empty():
            frame = self._data.trades.select(
                "symbol", pl.col("ts_recv").alias("ts_event"), pl.col("size").alias("volume")
            )
        before = frame.filter(pl.col("ts_event").is_between(now - _DAY_NS, now - 1))
        if before.is_empty():
            first = frame["ts_event"].filter(frame["ts_event"] >= now).min()
            start = first if isinstance(first, int) else now
            before = frame.filter(pl.col("ts_event").is_between(start, start + _DAY_NS))
        sums = before.group_by("symbol").agg(pl.col("volume").sum())
        return dict(sums.iter_rows())


def _spans(data: GatewayData) -> dict[str, tuple[int, int]]:
    """Return first and last instant of every symbol."""
    times = [
        data.frame.select("symbol", at=pl.col("ts_event")),
        data.trades.select("symbol", at=pl.col("ts_recv")),
    ]
    spans = (
        pl.concat(times)
        .group_by("symbol")
        .agg(first=pl.col("at").min(), last=pl.col("at").max())
        .sort("symbol")
    )
    return {symbol: (first, last) for symbol, first, last in spans.iter_rows()}
