"""What systemd is told: that we are ready, that we live, what we do, and that we stop.

One datagram a message, as ``sd_notify`` sends it. Without a service manager nothing happens.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

__all__ = ["Notifier", "watchdog_interval"]

_LOG = logging.getLogger(__name__)
_LONGEST_STATUS: Final = 500


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often a sign of life is due, in seconds: half of what the unit allows.

    Parameters
    ----------
    environ : mapping
        ``WATCHDOG_USEC``, and ``WATCHDOG_PID`` where it is set, as systemd sets them.

    Returns
    -------
    float or None
        None when no watchdog waits for this process.

    Examples
    --------
    >>> watchdog_interval({"WATCHDOG_USEC": "60000000"})
    30.0
    >>> watchdog_interval({}) is None
    True
    """
    allowed = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "") or str(os.getpid())
    if not allowed.isdecimal() or int(allowed) == 0 or meant != str(os.getpid()):
        return None
    return int(allowed) / 2 / 1_000_000


class Notifier:
    """Sends to the service manager, if there is one; a context manager. It never raises or waits.

    Parameters
    ----------
    environ : mapping
        ``NOTIFY_SOCKET`` names the manager's socket; a leading ``@`` means an abstract one.

    Examples
    --------
    >>> with Notifier({}) as notifier:
    ...     notifier.ready("warming up")
    False
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._interval = watchdog_interval(environ)
        self._beaten: float | None = None
        self._said = ""
        self._socket = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close our end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str = "") -> bool:
        """Say that start-up is done; return whether it was said."""
        return self._send("READY=1", *_status(status))

    def beat(self) -> bool:
        """Say that the data loop lives; call it as often as you like.

        It is sent twice in the time that the unit allows, and only by who calls it: a loop that
        hangs sends nothing, and is restarted.
        """
        if self._interval is None:
            return False
        now = time.monotonic()
        if self._beaten is not None and now - self._beaten < self._interval:
            return False
        if not self._send("WATCHDOG=1"):
            return False
        self._beaten = now
        return True

    def status(self, text: str) -> bool:
        """Say in one line what goes on; the same line twice is sent once."""
        if text == self._said or not self._send(*_status(text)):
            return False
        self._said = text
        return True

    def stopping(self, status: str = "") -> bool:
        """Say that we are about to end."""
        return self._send("STOPPING=1", *_status(status))

    def _send(self, *assignments: str) -> bool:
        if self._socket is None or not assignments:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            _LOG.debug("the service manager was not told: %s", error)
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())[:_LONGEST_STATUS]
    return (f"STATUS={line}",) if line else ()


def _address(name: str) -> str:
    # Sockets of virtual machines (`vsock:`) are not for a process like this one.
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""
