"""What a request to the historical server asks for, read strictly or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Final

from clustercore.gateway.replies import RefusalError

__all__ = ["date_of", "instant_of", "iso_nanos", "limit_of", "symbols_of", "word_of"]

_NANOS: Final = 10**9
_LARGEST: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_FRACTION: Final = re.compile(r"\.([0-9]{1,9})(?=$|Z|[+-])")
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)


def instant_of(asked: Mapping[str, str], name: str) -> int:
    """Return an instant, ns UTC: digits, or ISO with a zone of its own or in UTC.

    Examples
    --------
    >>> instant_of({"start": "1970-01-01T01:00:00.5+01:00"}, "start")
    500000000
    """
    text = _given(asked, name)
    found = int(text) if _DIGITS.fullmatch(text) else _iso_instant(text)
    if found is None or not 0 <= found <= _LARGEST:
        raise RefusalError(
            422,
            "data_time_range_invalid",
            f"No instant: {name}={text[:40]}; send nanoseconds or ISO 8601, 1970 to 2262.",
        )
    return found


def _iso_instant(text: str) -> int | None:
    # Python keeps six digits of a fraction, and the vendor nine.
    fraction = _FRACTION.search(text)
    whole = text if fraction is None else text[: fraction.start()] + text[fraction.end() :]
    try:
        moment = datetime.fromisoformat(whole)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (aware - _FIRST).total_seconds()
    except (ValueError, OverflowError):
        return None
    if not seconds.is_integer():
        return None
    return int(seconds) * _NANOS + int(fraction[1].ljust(9, "0") if fraction else 0)


def iso_nanos(ts: int) -> str:
    """Return an instant as text, to the nanosecond.

    Examples
    --------
    >>> iso_nanos(500_000_000)
    '1970-01-01T00:00:00.500000000Z'
    """
    seconds, rest = divmod(ts, _NANOS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def date_of(asked: Mapping[str, str], name: str) -> date:
    """Return a date."""
    text = _given(asked, name)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RefusalError(
            422, "invalid_parameter", f"No date: {name}={text[:40]}; send one as 2024-12-12."
        ) from None


def limit_of(asked: Mapping[str, str]) -> int | None:
    """Return how many records are wanted at most; None is all."""
    text = asked.get("limit")
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or int(text) == 0:
        raise RefusalError(
            422, "invalid_parameter", f"No limit: {text[:40]}; send 1 or more, or leave it out."
        )
    return int(text)


def word_of(asked: Mapping[str, str], name: str, words: Sequence[str]) -> str:
    """Return a word out of some, the first where none is given."""
    word = asked.get(name, words[0])
    if word not in words:
        raise RefusalError(
            422,
            "invalid_parameter",
            f"This server does not know {name}={word[:40]}; send {' or '.join(words)}.",
        )
    return word


def symbols_of(asked: Mapping[str, str]) -> list[str]:
    """Return the symbols that are wanted."""
    return [text.strip() for text in asked.get("symbols", "ALL_SYMBOLS").split(",")]


def _given(asked: Mapping[str, str], name: str) -> str:
    if not asked.get(name):
        raise RefusalError(422, "missing_parameter", f"The request has no {name}.")
    return asked[name]
