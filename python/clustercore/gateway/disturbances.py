"""What each fault of the stream does to a session."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clustercore.gateway.faults import Fault
from clustercore.gateway.market import seconds
from clustercore.gateway.records import MINUTE_NS

if TYPE_CHECKING:
    from clustercore.gateway.session import Session

__all__ = ["Sample", "disturb"]

_SLOW_READER = 2
_MBO_RTYPE = 160
_UNKNOWN_RTYPE = 254
# Shorter than every record, and as long as the head alone.
_HEAD_WORDS = 4
_FAR_S = 3600.0


class Sample(NamedTuple):
    """A record of a session's stream, which a fault repeats or spoils.

    Attributes
    ----------
    schema : str
        A bar's or a trade's.
    row : int
        Its row.
    """

    schema: str
    row: int


async def disturb(session: Session, fault: Fault, sample: Sample) -> None:
    """Let a fault happen to a session.

    Parameters
    ----------
    session : Session
        Whose stream it is.
    fault : Fault
        What happens.
    sample : Sample
        What the session was sent last.
    """
    if fault.kind in _BROKEN_BYTES:
        # Before the bytes are out: the client may be gone as soon as it has read them.
        session.outage_at_end = fault.outage_s
        await session.send(_BROKEN_BYTES[fault.kind](session, sample))
        await session.channel.flush()
        session.break_off(fault.outage_s)
    else:
        await _DISTURBANCES[fault.kind](session, fault, sample)


async def _fin(session: Session, fault: Fault, _sample: Sample) -> None:
    await session.channel.flush()
    session.desk.begin_outage(fault.outage_s)
    session.close(fault.kind)


async def _rst(session: Session, fault: Fault, _sample: Sample) -> None:
    await session.channel.flush()
    session.desk.begin_outage(fault.outage_s)
    session.close(fault.kind, reset=True)


async def _freeze(session: Session, fault: Fault, _sample: Sample) -> None:
    session.break_off(fault.outage_s)


async def _fatal_error(session: Session, fault: Fault, _sample: Sample) -> None:
    await session.fatal(fault.code, fault.text, fault.outage_s)


async def _error(session: Session, fault: Fault, _sample: Sample) -> None:
    await session.send(session.error(fault.code, fault.text))


async def _slow_reader_warning(session: Session, _fault: Fault, _sample: Sample) -> None:
    await session.send(session.system(_SLOW_READER, "Slow reader detected"))


async def _duplicate_burst(session: Session, fault: Fault, sample: Sample) -> None:
    sent = session.bars_until(sample.row)[-fault.count :]
    if len(sent):
        await session.send(session.bars(sent).tobytes())


async def _mapping_change(session: Session, _fault: Fault, sample: Sample) -> None:
    await session.desk.give_another_id(session.place_of(sample))


async def _byte_at_a_time(session: Session, fault: Fault, _sample: Sample) -> None:
    session.channel.go_singly(fault.count)


async def _conflict(session: Session, _fault: Fault, sample: Sample) -> None:
    block = session.encoded(sample)
    block["volume"] += np.uint64(1)
    await session.send(block.tobytes())


async def _future_bar(session: Session, fault: Fault, sample: Sample) -> None:
    block = session.encoded(sample)
    block["ts_event"] += np.uint64(_far(fault))
    await session.send(block.tobytes())


async def _past_bar(session: Session, fault: Fault, sample: Sample) -> None:
    block = session.encoded(sample)
    block["ts_event"] -= np.uint64(_far(fault))
    # Not what was sent for that minute: to be told from a repetition.
    block["volume"] += np.uint64(1)
    await session.send(block.tobytes())


async def _wrong_type(session: Session, _fault: Fault, sample: Sample) -> None:
    await session.send(_with_head(session, sample, 1, _MBO_RTYPE))


def _garbage(_session: Session, _sample: Sample) -> bytes:
    # More than the longest record that its first byte could announce.
    return bytes(range(255, 191, -1)) * 64


def _bad_length(session: Session, sample: Sample) -> bytes:
    return _with_head(session, sample, 0, _HEAD_WORDS)


def _zero_length(session: Session, sample: Sample) -> bytes:
    return _with_head(session, sample, 0, 0)


def _unknown_rtype(session: Session, sample: Sample) -> bytes:
    return _with_head(session, sample, 1, _UNKNOWN_RTYPE)


def _unknown_rtype_beside_bar(session: Session, sample: Sample) -> bytes:
    return session.encoded(sample).tobytes() + _unknown_rtype(session, sample)


def _with_head(session: Session, sample: Sample, place: int, value: int) -> bytes:
    content = bytearray(session.encoded(sample).tobytes())
    content[place] = value
    return bytes(content)


def _far(fault: Fault) -> int:
    return seconds(max(fault.delay_s, _FAR_S)) // MINUTE_NS * MINUTE_NS


_DISTURBANCES: dict[str, Callable[[Session, Fault, Sample], Coroutine[Any, Any, None]]] = {
    "byte_at_a_time": _byte_at_a_time,
    "conflict": _conflict,
    "duplicate_burst": _duplicate_burst,
    "error": _error,
    "fatal_error": _fatal_error,
    "fin": _fin,
    "freeze": _freeze,
    "future_bar": _future_bar,
    "mapping_change": _mapping_change,
    "past_bar": _past_bar,
    "rst": _rst,
    "slow_reader_warning": _slow_reader_warning,
    "wrong_type": _wrong_type,
}
_BROKEN_BYTES: dict[str, Callable[[Session, Sample], bytes]] = {
    "bad_length": _bad_length,
    "garbage": _garbage,
    "unknown_rtype": _unknown_rtype,
    "unknown_rtype_beside_bar": _unknown_rtype_beside_bar,
    "zero_length": _zero_length,
}
