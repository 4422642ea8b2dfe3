"""What the live process is doing, as one frozen snapshot for the console, the socket and programs.

The trading thread makes a new one; every reader gets a whole one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from clustercore.recommendation import utc_text

__all__ = ["STATES", "RootStatus", "Status", "from_utc_text", "utc_text"]

STATES: Final = (
    "IDLE",
    "CONNECTING",
    "CATCHING_UP",
    "LIVE",
    "DEGRADED",
    "BACKOFF",
    "STOPPED",
    "FATAL",
)

_NANOS: Final = 1_000_000_000


def from_utc_text(text: str) -> int:
    """Return the instant that ``utc_text`` wrote, ns UTC.

    Examples
    --------
    >>> from_utc_text("2024-01-02T15:00:00.000000250Z")
    1704207600000000250
    """
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NANOS + int(fraction.ljust(9, "0") or "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RootStatus:
    """One engine and its account.

    Attributes
    ----------
    root : str
        Name of the engine, such as ``ES``.
    contract : str or None
        The month in front; None before it is known.
    last_bar_start : int or None
        Start of the newest bar that was taken, ns UTC.
    last_bar_age_s : float or None
        Seconds since that bar's end, by the clock of the live process.
    session_volume : int
        Contracts traded in the session so far.
    baseline_volume : float or None
        What is usual up to the same time of the session; None where no baseline says.
    pending_retests : int
        Signals that wait for their retest.
    open_position : str or None
        Such as ``long 2 @ 5012.25``.
    open_contracts : int
        Contracts in open positions.
    day_pnl : float
        Result of the session so far, open positions at the last close, USD after costs.
    equity : float
        The account at the last mark, USD.
    blocked : str or None
        Why no order is made, such as ``halted: max_drawdown_pct``; None when orders are made.
    risk_usd : float
        What open positions and working orders lose when every stop is hit, with the costs of both
        sides, as recommendations say it, USD.
    """

    root: str
    contract: str | None = None
    last_bar_start: int | None = None
    last_bar_age_s: float | None = None
    session_volume: int = 0
    baseline_volume: float | None = None
    pending_retests: int = 0
    open_position: str | None = None
    open_contracts: int = 0
    day_pnl: float = 0.0
    equity: float = 0.0
    blocked: str | None = None
    risk_usd: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, times as text."""
        plain = dataclasses.asdict(self)
        if self.last_bar_start is not None:
            plain["last_bar_start"] = utc_text(self.last_bar_start)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RootStatus:
        """Return what ``to_dict`` wrote."""
        known = dict(plain)
        if known.get("last_bar_start") is not None:
            known["last_bar_start"] = from_utc_text(known["last_bar_start"])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The live process at one instant.

    Attributes
    ----------
    state : str
        One of ``STATES``.
    reason : str
        Why it is in that state, in words for the operator.
    since : int
        When the state began, ns UTC.
    updated_at : int
        When this snapshot was made, ns UTC.
    roots : tuple of RootStatus
        One for each engine, in the order asked for.
    queue_depth, queue_mark : int
        Records that wait, and the most that waited so far.
    counts : dict of str to int
        Counters of this run, such as ``bars``, ``late``, ``recommendations``.
    database, gateway : str
        Path of the store; host and port of the gateway.
    simulated : bool
        Whether the market is simulated.
    version : str
        Version of clustercore.

    Examples
    --------
    >>> status = Status(state="LIVE", since=0, updated_at=0, roots=(RootStatus(root="ES"),))
    >>> Status.from_dict(status.to_dict()) == status
    True
    """

    state: str
    since: int
    updated_at: int
    reason: str = ""
    roots: tuple[RootStatus, ...] = ()
    queue_depth: int = 0
    queue_mark: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    database: str = ""
    gateway: str = ""
    simulated: bool = False
    version: str = ""

    @property
    def risk_usd(self) -> float:
        """What all engines together lose when every stop is hit, USD."""
        return sum(root.risk_usd for root in self.roots)

    @property
    def day_pnl(self) -> float:
        """Result of the session over all engines, USD."""
        return sum(root.day_pnl for root in self.roots)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: times as text, and the sums over all engines."""
        own = (row.name for row in dataclasses.fields(self) if row.name not in {"roots", "counts"})
        return {name: getattr(self, name) for name in own} | {
            "since": utc_text(self.since),
            "updated_at": utc_text(self.updated_at),
            "day_pnl": self.day_pnl,
            "risk_usd": self.risk_usd,
            "counts": dict(self.counts),
            "roots": [root.to_dict() for root in self.roots],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Status:
        """Return what ``to_dict`` wrote."""
        known = {
            name: value for name, value in plain.items() if name not in {"day_pnl", "risk_usd"}
        }
        return cls(
            **known
            | {
                "since": from_utc_text(plain["since"]),
                "updated_at": from_utc_text(plain["updated_at"]),
                "roots": tuple(RootStatus.from_dict(root) for root in plain["roots"]),
            }
        )
