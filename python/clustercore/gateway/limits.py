"""How often something may happen in a second, as the real gateway counts it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from clustercore.errors import ConfigError

__all__ = ["RateLimit"]

_SECOND_NS: Final = 10**9
_LOOK_S: Final = 0.01


class RateLimit:
    """So many in a second of the market, or in one of this machine where the market stands still.

    Beside a market that runs faster, a client that waits a second of the market between two
    attempts makes many in one of this machine; it must meet the limit no sooner than at the real
    gateway.

    Parameters
    ----------
    per_s : int or None
        How many; None is no limit.
    market_now : callable
        The market's time, ns UTC.
    name : str
        Of the setting, for errors.

    Examples
    --------
    >>> limit = RateLimit(2, lambda: 0, "per_s")
    >>> limit.admits(), limit.admits(), limit.admits()
    (True, True, False)
    """

    def __init__(self, per_s: int | None, market_now: Callable[[], int], name: str) -> None:
        if per_s is not None and per_s < 1:
            raise ConfigError(
                "not an allowed value",
                field=name,
                found=str(per_s),
                expected="1 or more, or None for no limit",
            )
        self._per_s = per_s
        self._market_now = market_now
        self._admitted: deque[tuple[int, int]] = deque()

    def admits(self) -> bool:
        """Return whether one more may happen now, and count it if so."""
        if self._per_s is None:
            return True
        now = (self._market_now(), time.monotonic_ns())
        while self._admitted and self._is_past(self._admitted[0], now):
            self._admitted.popleft()
        if len(self._admitted) >= self._per_s:
            return False
        self._admitted.append(now)
        return True

    async def wait(self) -> None:
        """Wait until one more may happen, and count it."""
        while not self.admits():  # noqa: ASYNC110 -- nobody says when market time has passed
            await asyncio.sleep(_LOOK_S)

    @staticmethod
    def _is_past(then: tuple[int, int], now: tuple[int, int]) -> bool:
        return max(now[0] - then[0], now[1] - then[1]) >= _SECOND_NS
