"""Bars of the past for the feed, from the vendor's historical service or a local one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from clustercore.errors import ConfigError
from clustercore.live.history import History

if TYPE_CHECKING:
    from clustercore.live.key import Key
    from clustercore.live.settings import LiveSettings

__all__ = ["HistoricalPast", "open_past"]

_SCHEMA = "ohlcv-1m"
_DAY_NS = 86_400 * 10**9
_LOOKED_BACK_DAYS = 5


class HistoricalPast:
    """The past of what a process trades.

    Parameters
    ----------
    history : History
        Where it comes from.
    parents : sequence of str
        Parent symbols such as ``ES.FUT``.
    contracts : sequence of str
        Single contracts such as ``ESZ6``.
    """

    def __init__(self, history: History, parents: Sequence[str], contracts: Sequence[str]) -> None:
        self._history = history
        self._wanted = [(parents, "parent"), (contracts, "raw_symbol")]

    def available_end(self) -> int:
        """Return the end of what there is, ns UTC."""
        return self._history.available_end(_SCHEMA)

    def fronts(self, roots: Sequence[str]) -> dict[str, str]:
        """Return the month of each product that traded most the day before; costs nothing.

        A product of which the last days of history know none has an empty name.
        """
        last = date(1970, 1, 1) + timedelta(days=(self.available_end() - 1) // _DAY_NS)
        found = dict.fromkeys(roots, "")
        # A weekend and a holiday may have no contracts.
        for day in (last - timedelta(days=back) for back in range(_LOOKED_BACK_DAYS)):
            asked = {f"{root}.v.0": root for root in roots if not found[root]}
            if not asked:
                break
            numbers = self._history.symbols_on(list(asked), "continuous", "instrument_id", day)
            # The vendor names numbers only; what they are called is a question of its own.
            names = (
                self._history.symbols_on(list(numbers.values()), "instrument_id", "raw_symbol", day)
                if numbers
                else {}
            )
            found |= {asked[text]: names.get(number, "") for text, number in numbers.items()}
        return found

    def bars(self, start: int, end: int) -> pl.DataFrame:
        """Return the bars of a span, by time, then symbol; none before history begins."""
        start = max(start, self._history.available_span(_SCHEMA)[0])
        frames = [
            self._history.bars(symbols, stype_in, start, end)
            for symbols, stype_in in self._wanted
            if symbols
        ]
        return pl.concat(frames).sort("ts_event", "symbol", maintain_order=True)


def open_past(
    stack: contextlib.ExitStack,
    settings: LiveSettings,
    key: Key | None,
    folder: Path,
    parents: Sequence[str],
    contracts: Sequence[str],
    *,
    attempts: int = 5,
) -> HistoricalPast | None:
    """Return the past as the settings say, or None; it is closed with the stack."""
    address = settings.historical
    if address == "none" or key is None:
        return None
    if address and not settings.is_local:
        # The key goes to the vendor and to nobody that a settings file names.
        raise ConfigError(
            "another historical server goes with a gateway on this machine only",
            field="live.historical",
            found=address,
            expected="none, or nothing",
        )
    if not address and settings.gateway:
        if not settings.is_local:
            return None
        address = f"https://{settings.host}:{settings.port + 1}"
    history = History(
        key=key,
        dataset=settings.dataset,
        gateway=address or None,
        budget_usd=settings.budget_usd,
        folder=folder / "history",
        attempts=attempts,
    )
    stack.callback(history.close)
    return HistoricalPast(history, parents, contracts)
