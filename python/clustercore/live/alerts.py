"""Alerts: a recommendation told by mail, chat, desktop or sound, at least once.

The store's outbox is the truth: a row is written in the transaction of its recommendation, and is
marked when it was delivered. Between delivery and mark a crash can fall, so an alert may come
twice; its text holds the id. All store access stays on the trading thread, which calls ``pump``;
the sending thread sees only two queues. None is configured by default.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from clustercore.errors import ConfigError
from clustercore.live.key import read_variable
from clustercore.live.logs import register_secret
from clustercore.live.status import utc_text
from clustercore.recommend import exit_text, shown_price
from clustercore.store.journal import Alert

if TYPE_CHECKING:
    from clustercore.recommendation import Recommendation

__all__ = ["VARIABLE", "AlertSender", "Channel", "alert_text", "alerts_of", "read_channels"]

_LOG = logging.getLogger(__name__)

VARIABLE: Final = "CLUSTERCORE_ALERTS"
SOUND: Final = "sound"

_FIRST_DELAY_S: Final = 5.0
_LONGEST_DELAY_S: Final = 300.0
_URGENT_CONFIDENCE: Final = 0.80
# A sound says that something is so now.
_SOUND_MEANS_NOW_NS: Final = 600 * 10**9
# Another one would rename every channel, and leave the alerts that wait behind.
_SALT: Final = b"clustercore alerts"
_SHORTEST_TOKEN: Final = 8
_SIGNS: Final = re.compile(r"[/:@?&=#\[\]]")
_HARMLESS: Final = frozenset({"localhost", "127.0.0.1"})
_SOUND_S: Final = 10

# What a player needs of the environment; nothing else is handed to it.
_PLAYER_ENVIRON: Final = ("HOME", "PATH", "PULSE_SERVER", "XDG_RUNTIME_DIR")
_SOUNDS: Final = {
    "urgent": (
        ("paplay", "/usr/share/sounds/freedesktop/stereo/alarm-clock-elapsed.oga"),
        ("afplay", "/System/Library/Sounds/Sosumi.aiff"),
    ),
    "signal": (
        ("paplay", "/usr/share/sounds/freedesktop/stereo/message-new-instant.oga"),
        ("afplay", "/System/Library/Sounds/Glass.aiff"),
    ),
}


@dataclass(frozen=True, slots=True, repr=False)
class Channel:
    """A way to the trader; its address holds secrets and is not shown.

    Attributes
    ----------
    name : str
        Scheme and a mark of the address, such as ``mailtos-3f09c2``; what the store keeps.
    address : str
        URL for apprise, or ``sound``.
    """

    name: str
    address: str

    def __repr__(self) -> str:
        return f"Channel({self.name})"


class Deliver(Protocol):
    """Delivers a text; returns why it was not taken, or an empty text."""

    def __call__(self, channel: Channel, text: str, /) -> str:
        """Deliver."""


def read_channels(
    environ: MutableMapping[str, str] = os.environ, folder: str | Path | None = None
) -> tuple[Channel, ...]:
    """Return the channels of ``CLUSTERCORE_ALERTS``, from the environment or else from ``.env``.

    The variable holds apprise URLs, and the word ``sound``, with spaces between them. It is taken
    out of the environment, and every part of a URL that may be a secret is registered, so that no
    log shows it. An address that cannot be read is refused by its number.

    Parameters
    ----------
    environ : mutable mapping
        Looked at first.
    folder : path, optional
        Folder of ``.env``; the working directory when absent.

    Raises
    ------
    ConfigError
        An address cannot be read; nothing of it is in the message.

    Examples
    --------
    >>> read_channels({"CLUSTERCORE_ALERTS": "sound json://localhost"})
    (Channel(sound), Channel(json-439888))
    """
    text, _ = read_variable(VARIABLE, environ, folder)
    counts: dict[str, int] = {}
    channels = []
    for number, address in enumerate(dict.fromkeys((text or "").split()), 1):
        if address in {SOUND, f"{SOUND}://"}:
            channels.append(Channel(SOUND, SOUND))
            continue
        _register(address, number)
        name = _name(address)
        counts[name] = counts.get(name, 0) + 1
        # Two addresses of one name are next to impossible, and neither may get the other's alerts.
        again = f"-{counts[name]}" if counts[name] > 1 else ""
        channels.append(Channel(f"{name}{again}", address))
    return tuple(channels)


def _name(address: str) -> str:
    """Return what the store and the log call an address: its scheme and a mark made of all of it.

    The mark is the same wherever the address stands in the list, so that an alert that waits finds
    it after a restart. It needs no key that could be lost with every alert that waits. Whoever has
    the store could try guesses at a password against it: each costs a twentieth of a second and
    16 MB, and one in sixteen million wrong ones fits as well.
    """
    mark = hashlib.scrypt(
        address.encode("utf-8", "surrogateescape"), salt=_SALT, n=2**14, r=8, p=1, dklen=3
    )
    return f"{_scheme(address)}-{mark.hex()}"


def _scheme(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    # What is no URL may be a bare secret: nothing of it is shown.
    return scheme.lower() if separator and scheme.isalnum() else "unknown"


def _register(address: str, number: int) -> None:
    register_secret(address)
    try:
        parts = urlsplit(address)
        secrets = [parts.password or "", *(value for _, value in parse_qsl(parts.query))]
    except ValueError:
        for part in _SIGNS.split(address.partition("://")[2] or address):
            _hide(part)
        # The words of the error hold the host and the password.
        raise ConfigError(
            f"address {number} cannot be read; inside a name or a password a sign such as [ ] # / "
            "? @ is written in percent form",
            field=VARIABLE,
            expected="addresses as apprise writes them, with spaces between",
        ) from None
    # With many services the host and the path are the token.
    secrets += [part for part in re.split(r"[/:@]", parts.netloc + parts.path) if _is_long(part)]
    for secret in secrets:
        _hide(secret)


def _hide(secret: str) -> None:
    register_secret(secret)
    register_secret(unquote(secret))


def _is_long(part: str) -> bool:
    return len(part) >= _SHORTEST_TOKEN and part not in _HARMLESS


def alerts_of(
    recommendation: Recommendation, channels: Iterable[Channel], created: int
) -> list[Alert]:
    """Return the rows of the outbox for a recommendation, one for each channel.

    Parameters
    ----------
    recommendation : Recommendation
        What is told.
    channels : iterable of Channel
        Where to.
    created : int
        Now, ns UTC.
    """
    return [
        Alert(
            recommendation_id=recommendation.id,
            channel=channel.name,
            text=_sound_text(recommendation)
            if channel.name == SOUND
            else alert_text(recommendation),
            created=created,
        )
        for channel in channels
    ]


def alert_text(recommendation: Recommendation) -> str:
    """Return the text of an alert; its first line is the title."""
    rec = recommendation
    about = "at" if rec.price_is == "firm" else "near"
    title = (
        f"{'SIMULATED ' if rec.simulated else ''}{rec.action} {rec.quantity} {rec.contract} "
        f"{rec.order_type} {about} {shown_price(rec, rec.price)}"
    )
    record = "no record yet" if rec.confidence is None else f"{rec.confidence:.0%}"
    return "\n".join(
        [
            title,
            # An alert may come late, after a failure or a restart: it says when it was meant.
            f"Made {utc_text(rec.timestamp)}, valid until {utc_text(rec.valid_until)}",
            f"Price {rec.price_is}",
            f"Stop {shown_price(rec, rec.stop_loss)}, target {shown_price(rec, rec.profit_target)}",
            *([f"Exit {exit_text(rec)}"] if exit_text(rec) else []),
            f"Confidence {record}",
            rec.reasoning,
            f"id {rec.id}",
        ]
    )


def _sound_text(recommendation: Recommendation) -> str:
    confidence = recommendation.confidence
    urgent = confidence is not None and confidence >= _URGENT_CONFIDENCE
    return f"{'urgent' if urgent else 'signal'} {recommendation.id}"


@dataclass(frozen=True, slots=True)
class _Result:
    alert_id: int
    error: str


class AlertSender:
    """Sends what stands in the outbox, on its own thread.

    Parameters
    ----------
    channels : sequence of Channel
        From ``read_channels``; rows for other channels stay in the outbox.
    pending : callable
        Returns the rows that were not sent; called by ``pump`` only.
    mark_sent, mark_failed : callable
        Take the row's id and the time, ns UTC, and ``mark_failed`` the reason; called by ``pump``
        only.
    deliver : callable, optional
        How a text reaches a channel; by default apprise, and a player for ``sound``.
    first_delay_s, longest_delay_s : float
        Wait after the first failure; it doubles up to the longest.

    Notes
    -----
    A failure never reaches the trading thread but as a row with its reason. The delay between two
    tries is of this machine's time: a rehearsal at high speed must not flood a mail server.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        pending: Callable[[], Iterable[Alert]],
        mark_sent: Callable[[int, int], object],
        mark_failed: Callable[[int, int, str], object],
        *,
        deliver: Deliver | None = None,
        first_delay_s: float = _FIRST_DELAY_S,
        longest_delay_s: float = _LONGEST_DELAY_S,
    ) -> None:
        self._channels = {channel.name: channel for channel in channels}
        self._pending = pending
        self._mark_sent = mark_sent
        self._mark_failed = mark_failed
        self._due: queue.SimpleQueue[Alert | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        # Rows that the sending thread has; it keeps one until it is delivered.
        self._handed: set[int] = set()
        self._unknown: set[str] = set()
        self._stopping = threading.Event()
        self._work = _Work(
            self._channels,
            self._due,
            self._results,
            deliver or _deliver,
            self._stopping,
            first_delay_s,
            longest_delay_s,
        )
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"AlertSender({', '.join(self._channels) or 'no channel'})"

    def start(self) -> Self:
        """Begin to send; without a channel nothing starts."""
        if self._channels and self._thread is None:
            # A daemon: a server that does not answer must not keep the process alive.
            self._thread = threading.Thread(target=self._work.run, name="alerts", daemon=True)
            self._thread.start()
        return self

    def pump(self, now: int, *, look: bool = True) -> None:
        """Mark what was tried and hand over what is new; on the trading thread, never blocking.

        Parameters
        ----------
        now : int
            ns UTC, for the marks.
        look : bool
            Whether the outbox may have new rows; at start-up, and after a commit with alerts.
        """
        self._take_results(now)
        if not look or not self._channels:
            return
        for alert in self._pending():
            if alert.channel == SOUND and now - alert.created > _SOUND_MEANS_NOW_NS:
                _LOG.info("alert %d is too old to sound", alert.id)
                self._mark_sent(alert.id, now)
            elif alert.channel not in self._channels:
                self._miss(alert.channel)
            elif alert.id not in self._handed:
                self._handed.add(alert.id)
                self._due.put(alert)

    def _miss(self, channel: str) -> None:
        if channel not in self._unknown:
            self._unknown.add(channel)
            _LOG.warning("alerts wait for channel %s, which is not configured", channel)

    def _take_results(self, now: int) -> None:
        while True:
            try:
                result = self._results.get_nowait()
            except queue.Empty:
                return
            if result.error:
                self._mark_failed(result.alert_id, now, result.error)
            else:
                self._mark_sent(result.alert_id, now)
                self._handed.discard(result.alert_id)

    def close(self, now: int, timeout_s: float = 2.0) -> None:
        """Stop after the alert under way, and mark what was tried; the rest waits in the outbox."""
        self._stopping.set()
        self._due.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None
        self._take_results(now)


class _Work:
    """What the sending thread does: deliver, report, and try again later."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        due: queue.SimpleQueue[Alert | None],
        results: queue.SimpleQueue[_Result],
        deliver: Deliver,
        stopping: threading.Event,
        first_delay_s: float,
        longest_delay_s: float,
    ) -> None:
        self._channels = channels
        self._due = due
        self._results = results
        self._deliver = deliver
        self._stopping = stopping
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        # When to try again, a number that keeps the order, failures so far, the alert.
        self._later: list[tuple[float, int, int, Alert]] = []
        self._count = itertools.count()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                alert = self._due.get(timeout=self._patience_s())
            except queue.Empty:
                _, _, failures, alert = heapq.heappop(self._later)
                self._try(alert, failures)
                continue
            if alert is None:
                return
            self._try(alert, 0)

    def _patience_s(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _try(self, alert: Alert, failures: int) -> None:
        channel = self._channels[alert.channel]
        try:
            error = self._deliver(channel, alert.text)
        except Exception as problem:  # noqa: BLE001 -- any plugin's failure is one to try again
            # Its words may hold the address.
            error = f"{type(problem).__name__} in channel {channel.name}"
        self._results.put(_Result(alert.id, error))
        if not error:
            return
        # Said once; every further try is counted in the outbox.
        level = logging.DEBUG if failures else logging.WARNING
        _LOG.log(level, "alert %s was not delivered: %s", alert.recommendation_id, error)
        delay = min(self._first_delay_s * 2.0**failures, self._longest_delay_s)
        later = (time.monotonic() + delay, next(self._count), failures + 1, alert)
        heapq.heappush(self._later, later)


def _deliver(channel: Channel, text: str) -> str:
    if channel.name == SOUND:
        return _play(text.partition(" ")[0])
    return _notify(channel, text)


def _notify(channel: Channel, text: str) -> str:
    try:
        import apprise
    except ImportError:
        return "apprise is not installed; install clustercore[live]"
    sender = apprise.Apprise()
    if not sender.add(channel.address):
        return f"the address of channel {channel.name} is not one that apprise knows"
    title, _, body = text.partition("\n")
    return "" if sender.notify(body=body, title=title) else f"channel {channel.name} refused it"


def _play(word: str) -> str:
    """Play a sound, or ring the terminal's bell where there is none; return why neither went."""
    for player, sound in _SOUNDS.get(word, _SOUNDS["signal"]):
        command = shutil.which(player)
        if command is None or not Path(sound).exists():
            continue
        environ = {name: os.environ[name] for name in _PLAYER_ENVIRON if name in os.environ}
        played = subprocess.run(  # noqa: S603 -- a fixed command and file
            [command, sound],
            check=False,
            timeout=_SOUND_S,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if played.returncode == 0:
            return ""
    if not sys.stderr.isatty():
        return "there is neither a player of sounds nor a terminal with a bell"
    sys.stderr.write("\a")
    sys.stderr.flush()
    return ""
