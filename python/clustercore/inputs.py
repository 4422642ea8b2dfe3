"""What an engine consumes, in the order it does: the closed set of entries of the input log.

State is a fold of these. A live process writes them down before anything they caused is shown, so
that a restart, a parity check and a rebuilt table are one operation: fold them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clustercore.events import Event

__all__ = [
    "ORIGINS",
    "Bar",
    "Carry",
    "Closed",
    "ContractChange",
    "Entry",
    "Epoch",
    "Input",
    "Operator",
    "Prints",
    "WarmUp",
]

ORIGINS: Final = ("backfill", "historical", "replay", "live")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar as it reached us.

    Attributes
    ----------
    symbol : str
        Contract, such as ``ESZ6``.
    ts_event : int
        Start of the bar, ns UTC.
    open, high, low, close : int
        Prices in 1e-9 points.
    volume : int
        Contracts.
    origin : str
        One of ``ORIGINS``: history at the start, history for a gap, the gateway's replay, live.
    arrival : int
        When it was received, ns UTC (market time beside a local gateway).
    actionable : bool
        Whether it came in time to act on.
    context : bool
        Whether it only informs the baseline of a new contract.
    consumed : bool
        Whether the engine took it. What it did not take is kept, and no replay uses it.
    reason : str
        Why it was not consumed: ``other_month``, ``late``, ``conflict``, ``future``,
        ``outside_session``, ``no_contract``, ``refused``; empty otherwise.
    """

    symbol: str
    ts_event: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    origin: str = "live"
    arrival: int = 0
    actionable: bool = True
    context: bool = False
    consumed: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Prints:
    """Trades of the market, for profiles made of trades; they come before the bar that holds them.

    Attributes
    ----------
    symbol : str
        Contract.
    ts, price, size : ndarray of int64, shape (n_trades,)
        Time by which bars are formed, ns UTC; price in 1e-9 points; contracts.
    """

    symbol: str
    ts: NDArray[np.int64]
    price: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Prints)
            and self.symbol == other.symbol
            and np.array_equal(self.ts, other.ts)
            and np.array_equal(self.price, other.price)
            and np.array_equal(self.size, other.size)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Closed:
    """Every interval that ends at or before ``ts`` is closed; ``by`` says how we know.

    ``eoi`` the gateway said so, ``grace`` it was still silent long after, ``session`` the session
    is over, ``history`` or ``hole`` no more data will come for it.
    """

    ts: int
    by: str


@dataclass(frozen=True, slots=True)
class ContractChange:
    """Another month is in front from a trade date (days since 1970) on.

    ``reason`` is ``first``, ``volume`` or ``expiry`` as for a file of several months, or ``given``:
    the contract was named. ``symbol`` is empty where none could be chosen.
    """

    symbol: str
    previous: str | None
    reason: str
    trade_date: int


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator's word: ``reset_halt`` reaches the engine, ``stop`` only the log."""

    event: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of the log under one configuration, engine version and session table."""

    number: int
    config_id: str
    engine_version: str
    sessions_hash: str
    interval_ns: int
    settings: dict[str, Any]
    instrument: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Bars of the log, from one seq to another, taken again as not actionable by a new epoch."""

    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Carry:
    """Account, open positions, loss counters and learning of the epoch before, as JSON text."""

    state: str


Input = Bar | Prints | Closed | ContractChange | Operator | Epoch | WarmUp | Carry


@dataclass(frozen=True, slots=True)
class Entry:
    """One input in its place, with everything it caused."""

    seq: int
    root: str
    epoch: int
    item: Input
    events: tuple[Event, ...] = ()
