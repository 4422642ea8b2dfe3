"""Faults that a gateway makes on purpose, when it makes them, and how often."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from clustercore.errors import ConfigError

__all__ = [
    "BAR_FAULTS",
    "CONNECTION_FAULTS",
    "HARMLESS_FAULTS",
    "MARKET_FAULTS",
    "STREAM_FAULTS",
    "Fault",
    "FaultScript",
]

# Meet the next connection, before it has received a record.
CONNECTION_FAULTS: Final = {
    "accept_then_close": "accepted, and closed at once",
    "auth_reject": "the key is refused",
    "bad_header": "the stream does not begin with a header",
    "close_after_greeting": "closed after the first line",
    "close_before_auth_reply": "closed when the key has been sent",
    "extra_auth_field": "the key is accepted in a line with an unknown field",
    "freeze_after_metadata": "nothing after the header, and the socket stays open",
    "freeze_before_metadata": "nothing after the start, and the socket stays open",
    "future_version": "a header of a version that nobody knows",
    "garbage_greeting": "a first line that is none of the protocol",
    "greeting_without_equals": "a first line without its equals sign",
    "limit_reject": "too many sessions are open",
    "other_metadata": "a header with other symbols than every other session's",
    "silence": "accepted, and nothing is ever said",
    "silence_after_greeting": "nothing after the first line",
    "slow_auth": "the key is accepted after `delay_s`",
    "trailing_pipe": "the key is accepted in a line with one separator too many",
}
# Those of them that end nothing.
HARMLESS_FAULTS: Final = ("other_metadata", "slow_auth")
# Meet a session in the middle of its stream.
STREAM_FAULTS: Final = {
    "bad_length": "a record shorter than its type, then nothing",
    "byte_at_a_time": "the next `count` bytes come one by one",
    "conflict": "the last bar again, with another volume",
    "drop_bar": "the next bar is not sent, and is in a later replay",
    "duplicate_burst": "the last `count` bars again",
    "error": "an error message with `code` and `text`",
    "fatal_error": "the same, then the end",
    "fin": "an orderly end",
    "fin_mid_record": "an orderly end in the middle of the next bar",
    "freeze": "nothing more, and the socket stays open",
    "future_bar": "the last bar again, an hour or `delay_s` later",
    "garbage": "bytes that are no record, then nothing",
    "mapping_change": "the instrument of the last bar gets another id",
    "past_bar": "the last bar again, an hour or `delay_s` earlier and changed",
    "reorder": "the next bar comes behind the one after it",
    "rst": "the connection is reset",
    "slow_reader_warning": "the client is said to read too slowly",
    "unknown_rtype": "a record of an unknown type, then nothing",
    "unknown_rtype_beside_bar": "the same, in one piece with the next bar",
    "wrong_type": "a bar that says it is of another type",
    "zero_length": "a record that says it is empty, then nothing",
}
# Those of them that need a bar.
BAR_FAULTS: Final = (
    "conflict",
    "drop_bar",
    "duplicate_burst",
    "fin_mid_record",
    "future_bar",
    "past_bar",
    "reorder",
    "unknown_rtype_beside_bar",
)
# Meet everybody.
MARKET_FAULTS: Final = {
    "late_eoi": "the next end of an interval is said `delay_s` late",
    "listener_down": "everybody is cut off, and nobody can connect",
    "no_eoi": "the next end of an interval is never said",
}

_LARGEST_TIME = 2**63 - 1
_LONGEST_S = 366 * 86_400


@dataclass(frozen=True)
class Fault:
    """One scripted fault.

    A fault of a connection meets the next `times` connections, from the start or from the moment
    named by `after_bars` or `at`. Every other fault happens at that moment, and again after as many
    more bars until it has happened `times` times.

    Attributes
    ----------
    kind : str
        A key of ``CONNECTION_FAULTS``, ``STREAM_FAULTS`` or ``MARKET_FAULTS``, which say what each
        of them does.
    after_bars : int, optional
        After so many bars were sent live, over all sessions of the gateway.
    at : int, optional
        At this market instant, ns UTC.
    outage_s : float
        Market seconds that pass after the end of the connection before one is answered again. Of no
        meaning where nothing ends.
    times : int
        How often.
    count : int
        How many records a ``duplicate_burst`` repeats, how many bytes a ``byte_at_a_time`` sends
        singly.
    code : int
        Code of an ``error`` or ``fatal_error``.
    text : str
        Its text.
    delay_s : float
        Market seconds by which an END_OF_INTERVAL is late, a bar's time is off, or the answer to a
        key takes; nobody else is answered meanwhile.
    """

    kind: str
    after_bars: int | None = None
    at: int | None = None
    outage_s: float = 0.0
    times: int = 1
    count: int = 3
    code: int = 6
    text: str = "internal"
    delay_s: float = 20.0

    def __post_init__(self) -> None:
        kinds = (*CONNECTION_FAULTS, *STREAM_FAULTS, *MARKET_FAULTS)
        if self.kind not in kinds:
            raise ConfigError(
                "no such fault", field="kind", found=repr(self.kind), expected=", ".join(kinds)
            )
        if self.after_bars is not None and self.at is not None:
            raise ConfigError(
                "a fault happens after so many bars or at an instant, not both",
                field="after_bars",
                found=f"after_bars={self.after_bars}, at={self.at}",
                expected="one of them",
            )
        limits = (
            ("after_bars", 0, math.inf),
            ("at", 0, _LARGEST_TIME),
            ("outage_s", 0, _LONGEST_S),
            ("delay_s", 0, _LONGEST_S),
            ("times", 1, math.inf),
            ("count", 1, math.inf),
            ("code", 0, 255),
        )
        for name, least, most in limits:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(
                    "not an allowed value",
                    field=name,
                    found=str(value),
                    expected=f"{least} or more" if most == math.inf else f"{least} to {most}",
                )


@dataclass
class _Planned:
    fault: Fault
    left: int
    bars: int | None


class FaultScript:
    """What is still to happen.

    Parameters
    ----------
    faults : iterable of Fault
        The script; `add` puts more in.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting: list[_Planned] = []
        self._armed: list[_Planned] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Put a fault in."""
        planned = _Planned(fault, fault.times, fault.after_bars)
        at_once = fault.after_bars is None and fault.at is None
        (self._armed if at_once else self._waiting).append(planned)

    def next_bars(self) -> int | None:
        """Return the count of live bars at which something happens next."""
        counts = [planned.bars for planned in self._waiting if planned.bars is not None]
        return min(counts, default=None)

    def next_instant(self) -> int | None:
        """Return the market instant at which something happens next."""
        instants = [planned.fault.at for planned in self._waiting if planned.fault.at is not None]
        return min(instants, default=None)

    def arm(self, *, bars: int | None = None, now: int | None = None) -> None:
        """Arm what is due by this count of live bars, or by this instant."""
        for planned in tuple(self._waiting):
            by_bars = bars is not None and planned.bars is not None and planned.bars <= bars
            at = planned.fault.at
            if by_bars or (now is not None and at is not None and at <= now):
                self._waiting.remove(planned)
                self._armed.append(planned)

    def take(self, kinds: Container[str]) -> Fault | None:
        """Return the first armed fault of these kinds, counted as happened."""
        for planned in self._armed:
            if planned.fault.kind in kinds:
                self._happened(planned)
                return planned.fault
        return None

    def _happened(self, planned: _Planned) -> None:
        planned.left -= 1
        if planned.left == 0:
            self._armed.remove(planned)
        elif planned.bars is not None and planned.fault.kind not in CONNECTION_FAULTS:
            self._armed.remove(planned)
            planned.bars += max(planned.fault.after_bars or 0, 1)
            self._waiting.append(planned)
