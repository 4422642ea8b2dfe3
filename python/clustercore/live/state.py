"""In which state the feed is, why, and what forbids acting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clustercore.live.clock import Clock

__all__ = [
    "BACKOFF",
    "CATCHING_UP",
    "CONNECTING",
    "DEGRADED",
    "FATAL",
    "IDLE",
    "LIVE",
    "STOPPED",
    "State",
]

IDLE = "IDLE"
CONNECTING = "CONNECTING"
CATCHING_UP = "CATCHING_UP"
LIVE = "LIVE"
DEGRADED = "DEGRADED"
BACKOFF = "BACKOFF"
STOPPED = "STOPPED"
FATAL = "FATAL"

_LOG = logging.getLogger(__name__)


class State:
    """The state, its reason, and the troubles that stand between CATCHING_UP and LIVE.

    Parameters
    ----------
    clock : Clock
        The time.
    journal : callable
        ``(kind, root, reason, start, end, detail)``; told of each change.

    Attributes
    ----------
    name, reason : str
        The state, and why.
    since : int
        When it began, ns UTC.
    troubles : dict of str to str
        What forbids acting at present, by a short name.
    at_present : bool
        Whether this connection has come to the present; before, no interval ends by the clock.
    was_live : bool
        Whether it was ever LIVE in this process.
    """

    def __init__(self, clock: Clock, journal: Callable[..., None]) -> None:
        self.name = IDLE
        self.reason = "not started"
        self.since = 0
        self.troubles: dict[str, str] = {}
        self.at_present = False
        self.was_live = False
        self._clock = clock
        self._journal = journal

    @property
    def is_forbidden(self) -> bool:
        """Whether something forbids acting; a minute without the gateway's word does not."""
        return bool(self.troubles.keys() - {"quiet"})

    def go(self, name: str, reason: str) -> None:
        """Go over into a state, or stay in it for another reason."""
        if (name, reason) == (self.name, self.reason):
            return
        if name != self.name:
            _LOG.info("%s: %s", name, reason)
            self._journal("state", None, reason, None, None, {"state": name, "before": self.name})
            self.since = self._clock.now()
        self.name, self.reason = name, reason
        self.was_live = self.was_live or name == LIVE

    def trouble(self, name: str, reason: str) -> None:
        """Say that something forbids acting."""
        self.troubles[name] = reason
        if self.name in {LIVE, CATCHING_UP, DEGRADED}:
            self.go(DEGRADED, reason)

    def relieve(self, *names: str) -> None:
        """Say that something forbids acting no longer."""
        for name in names:
            if self.troubles.pop(name, None) is not None and self.name == DEGRADED:
                self._recover()

    def caught_up(self, reason: str) -> None:
        """Go live after catching up, unless something forbids acting."""
        if self.name != CATCHING_UP:
            return
        if self.troubles:
            self.go(DEGRADED, next(iter(self.troubles.values())))
        else:
            self.go(LIVE, reason)

    def _recover(self) -> None:
        if self.troubles:
            self.go(DEGRADED, next(iter(self.troubles.values())))
        else:
            name = LIVE if self.at_present else CATCHING_UP
            self.go(name, "an interval closed with nothing missing")
