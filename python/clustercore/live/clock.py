"""The clock of the live edge: the one place below which time is an input.

Beside a real gateway it is the machine's clock. Beside a gateway on this machine it is *market
time*: the instant at which the newest record was sent, plus speed times the time since it came. So
a timeout of ten seconds means ten seconds of the market at any speed of replay.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

__all__ = ["Clock", "MarketClock", "SystemClock"]

_NANOS: Final = 1_000_000_000
_SLICE_S: Final = 0.25
_SHORTEST_S: Final = 0.02


class Clock(Protocol):
    """What the live process asks for the time."""

    def now(self) -> int:
        """Return the time, ns UTC."""

    def arrival(self, sent: int, received: int) -> int:
        """Return when a record arrived: ``sent`` is its ts_out, ``received`` our ``stamp``."""

    def taken(self, arrival: int) -> int:
        """Return when a record that arrived then is taken from the queue it waited in: now."""

    def stamp(self) -> int:
        """Return a mark of this moment for ``arrival`` and ``since``."""

    def since(self, stamp: int) -> float:
        """Return seconds since a stamp, for timeouts; the wall clock cannot move them."""

    @property
    def longest_wait_s(self) -> float:
        """Seconds that pass in a quarter of a real second: a wait that still hears the operator."""

    def wait(self, wake: threading.Event, seconds: float) -> bool:
        """Wait until ``wake`` is set, at most so many seconds; return whether it is set."""


class SystemClock:
    """The machine's clock; timeouts run on its monotonic one."""

    def now(self) -> int:
        """Return the time, ns UTC."""
        return time.time_ns()  # noqa: TID251 -- the edge

    def arrival(self, sent: int, received: int) -> int:
        """Return the wall time of a stamp."""
        del sent
        return self.now() - (time.monotonic_ns() - received)

    def taken(self, arrival: int) -> int:
        """Return the time; a clock that was set back in between does not make it earlier."""
        return max(arrival, self.now())

    def stamp(self) -> int:
        """Return a mark of this moment."""
        return time.monotonic_ns()

    def since(self, stamp: int) -> float:
        """Return seconds since a stamp."""
        return (time.monotonic_ns() - stamp) / _NANOS

    @property
    def longest_wait_s(self) -> float:
        """Seconds that pass in a quarter of a second."""
        return _SLICE_S

    def wait(self, wake: threading.Event, seconds: float) -> bool:
        """Wait until ``wake`` is set."""
        return wake.wait(max(0.0, seconds))


class MarketClock:
    """Market time beside a gateway on this machine.

    Parameters
    ----------
    speed : float
        Market seconds a second, until the gateway says otherwise; ``inf`` when it does not pace.
    patience : float
        Real seconds below which no timeout counts as passed, so that a busy machine is not taken
        for a silent gateway at high speed.
    """

    def __init__(self, speed: float = 1.0, patience: float = 1.0) -> None:
        self.speed = speed
        self.patience = patience
        self._sent = 0
        self._received = time.monotonic_ns()

    def observe(self, sent: int, received: int) -> None:
        """Take over the instant at which a record was sent; it never goes back."""
        if sent >= self._sent:
            self._sent, self._received = sent, received

    def now(self) -> int:
        """Return market time, ns UTC; before anything is known of it, the machine's."""
        if not self._sent:
            return SystemClock().now()
        if self.speed == float("inf"):
            return self._sent
        return self._sent + int((time.monotonic_ns() - self._received) * self.speed)

    def arrival(self, sent: int, received: int) -> int:
        """Return when a record arrived: the instant at which it was sent."""
        self.observe(sent, received)
        return sent

    def taken(self, arrival: int) -> int:
        """Return when it arrived: at any speed a bar is as old as it was at its receipt."""
        return arrival

    def stamp(self) -> int:
        """Return a mark of this moment."""
        return time.monotonic_ns()

    def since(self, stamp: int) -> float:
        """Return market seconds since a stamp, 0 until ``patience`` has passed."""
        real = (time.monotonic_ns() - stamp) / _NANOS
        return 0.0 if real < self.patience else real * self._pace

    def wait(self, wake: threading.Event, seconds: float) -> bool:
        """Wait until ``wake`` is set, at most so many market seconds."""
        # Never quite at once: a gateway that refuses must not be asked in a closed loop.
        return wake.wait(max(_SHORTEST_S, seconds / self._pace))

    @property
    def longest_wait_s(self) -> float:
        """Market seconds that pass in a quarter of a second."""
        return _SLICE_S * self._pace

    @property
    def _pace(self) -> float:
        # A gateway that does not pace its replay has no speed: one like any fast replay is assumed.
        return 10_000.0 if self.speed == float("inf") else self.speed
