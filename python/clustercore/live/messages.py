"""What the gateway says, as plain tuples in the order received.

``sent`` is the gateway's time of sending (ns UTC), ``received`` a stamp of the clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple

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
    "EndOfInterval",
    "GatewayError",
    "Lost",
    "Mapping",
    "MarketBar",
    "MarketTrade",
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


class MarketTrade(NamedTuple):
    """A trade; ``ts`` is the time by which bars are formed."""

    instrument_id: int
    ts: int
    ts_event: int
    sequence: int
    side: str
    price: int
    size: int
    sent: int
    received: int


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


class Lost(NamedTuple):
    """The end of a connection: always the last message."""

    reason: str
    permanent: bool = False
    slow_retry: bool = False
    overflow: bool = False


Message = (
    MarketBar
    | MarketTrade
    | Mapping
    | EndOfInterval
    | SignOfLife
    | Acknowledged
    | ReplayCompleted
    | SlowReader
    | GatewayError
    | Oddity
    | Unreadable
    | Lost
)
