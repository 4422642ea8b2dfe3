"""What the gateway says, as plain tuples in the order received.

``sent`` is the gateway's time of sending (ns UTC), ``received`` a stamp of the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUTHENTICATION",
    "CONNECTION_LIMIT",
    "DEACTIVATED",
    "INTERNAL",
    "INVALID_SUBSCRIPTION",
    "REPLAY_TOO_OLD",
    "SKIPPED",
    "UNRESOLVED",
    "Acknowledged",
    "Doubt",
    "EndOfInterval",
    "GatewayError",
    "Lost",
    "Mapping",
    "MarketBar",
    "MarketTrades",
    "Message",
    "Oddity",
    "ReplayCompleted",
    "SignOfLife",
    "SlowReader",
    "Unreadable",
]

# Codes of the gateway's error records.
AUTHENTICATION: Final = 1
DEACTIVATED: Final = 2
CONNECTION_LIMIT: Final = 3
UNRESOLVED: Final = 4
INVALID_SUBSCRIPTION: Final = 5
INTERNAL: Final = 6
SKIPPED: Final = 7
REPLAY_TOO_OLD: Final = 8


class MarketBar(NamedTuple):
    """A bar; prices in 1e-9 points, ``ts_event`` its start."""

    instrument_id: int
    ts_event: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    sent: int
    received: int


@dataclass(frozen=True, slots=True, eq=False)
class MarketTrades:
    """Trades that came one after the other, as columns: a busy market has thousands a second.

    Attributes
    ----------
    rows : ndarray of records, shape (n_trades,)
        Fields ``instrument_id ts_event price size side flags ts sequence``; ``ts`` is the time by
        which bars are formed.
    symbol : str
        The contract, once it is known; all rows are then of it.
    """

    rows: NDArray[Any]
    symbol: str = ""
    first: int = field(init=False)
    """The earliest time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", int(self.rows["ts"].min()) if len(self.rows) else 0)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ts(self) -> NDArray[np.int64]:
        """Times by which bars are formed, ns UTC."""
        return self._column("ts")

    @property
    def price(self) -> NDArray[np.int64]:
        """Prices in 1e-9 points."""
        return self._column("price")

    @property
    def size(self) -> NDArray[np.int64]:
        """Contracts."""
        return self._column("size")

    @property
    def volume(self) -> int:
        """Contracts of all of them."""
        return int(self.size.sum())

    def instruments(self) -> list[int]:
        """Return the numbers of the instruments that traded."""
        numbers = self.rows["instrument_id"]
        if len(numbers) and (numbers == numbers[0]).all():
            return [int(numbers[0])]
        found: list[int] = np.unique(numbers).tolist()
        return found

    def of(self, instrument_id: int, symbol: str) -> MarketTrades:
        """Return those of one instrument, under its name."""
        return replace(self, symbol=symbol).where(self.rows["instrument_id"] == instrument_id)

    def where(self, flags: NDArray[np.bool_]) -> MarketTrades:
        """Return some of them."""
        return self if flags.all() else MarketTrades(self.rows[flags], self.symbol)

    def once(self) -> MarketTrades:
        """Return them without those that are there again, every field the same."""
        _, firsts = np.unique(self.rows, return_index=True)
        return MarketTrades(self.rows[np.sort(firsts)], self.symbol)

    @classmethod
    def joined(cls, parts: Sequence[MarketTrades]) -> MarketTrades:
        """Return the trades of several, which are of one contract."""
        return cls(np.concatenate([part.rows for part in parts]), parts[0].symbol)

    def _column(self, name: str) -> NDArray[np.int64]:
        return self.rows[name].astype(np.int64)


class Mapping(NamedTuple):
    """A number stands for a symbol from now on."""

    instrument_id: int
    symbol: str
    sent: int
    received: int


class EndOfInterval(NamedTuple):
    """All bars that end at ``ts_end`` have been sent."""

    ts_end: int
    sent: int
    received: int


class SignOfLife(NamedTuple):
    """A heartbeat; ``text`` is what a local gateway says about itself."""

    text: str
    sent: int
    received: int


class Acknowledged(NamedTuple):
    """A subscription was accepted."""

    text: str
    sent: int
    received: int


class ReplayCompleted(NamedTuple):
    """What follows is live."""

    text: str
    sent: int
    received: int


class SlowReader(NamedTuple):
    """The gateway finds us slow; nothing was skipped."""

    text: str
    sent: int
    received: int


class GatewayError(NamedTuple):
    """An error record; some close the session, some do not."""

    code: int
    text: str
    sent: int
    received: int


class Oddity(NamedTuple):
    """A record of a kind that was not asked for; a bar may be lost inside it."""

    text: str
    sent: int
    received: int


class Unreadable(NamedTuple):
    """A record of the right kind whose numbers cannot be; sent again it would be the same."""

    text: str
    sent: int
    received: int


class Doubt(NamedTuple):
    """What the vendor itself is not sure of."""

    text: str
    sent: int
    received: int


class Lost(NamedTuple):
    """The end of a connection: always the last message."""

    reason: str
    permanent: bool = False
    slow_retry: bool = False
    overflow: bool = False


Message = (
    MarketBar
    | MarketTrades
    | Mapping
    | EndOfInterval
    | SignOfLife
    | Acknowledged
    | ReplayCompleted
    | SlowReader
    | GatewayError
    | Oddity
    | Unreadable
    | Doubt
    | Lost
)
