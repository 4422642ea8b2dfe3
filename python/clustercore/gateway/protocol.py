"""The text that comes before the records: greeting, challenge, answers and subscriptions."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from clustercore.errors import DataError

__all__ = [
    "LIMIT_TEXT",
    "LSG_VERSION",
    "REHEARSAL_KEY",
    "UNAUTHORISED_TEXT",
    "Authentication",
    "SubscriptionLine",
    "authentication_of",
    "cram_answer",
    "fields_of",
    "is_answer",
    "subscription_of",
]

LSG_VERSION: Final = "0.4.2"
# No secret: it only has the shape that clients and `doctor` expect of a key.
REHEARSAL_KEY: Final = "db-rehearsal-only-not-a-secret-0"
UNAUTHORISED_TEXT: Final = "Authentication failed."
LIMIT_TEXT: Final = "User has reached their open connection limit"

_BUCKET_LENGTH = 5
_DEFAULT_HEARTBEAT_S = 30
_LONGEST_HEARTBEAT_S = 1800
_LARGEST_TIME = 2**63 - 1
_LARGEST_NUMBER = 2**32 - 1
_DIGITS = re.compile(r"[0-9]{1,20}")
# Longer texts of a client are not repeated to it whole.
_SHOWN = 40


@dataclass(frozen=True)
class Authentication:
    """What a client says about itself.

    Attributes
    ----------
    answer : str
        Its answer to the challenge.
    dataset : str
        The dataset it wants.
    ts_out : bool
        Whether every record carries the instant of its sending.
    zstd : bool
        Whether the records are one zstd stream.
    heartbeat_interval_s : int
        Quiet seconds after which a heartbeat is sent.
    client : str
        Name and version of the client.
    """

    answer: str
    dataset: str
    ts_out: bool
    zstd: bool
    heartbeat_interval_s: int
    client: str


@dataclass(frozen=True)
class SubscriptionLine:
    """One line of a subscription; several lines with one id are one subscription.

    Attributes
    ----------
    schema, stype_in : str
        What is wanted, and what kind of symbol names it.
    symbols : tuple of str
        The symbols of this line.
    start : int or None
        Replay from this instant on (ns UTC); 0 is everything there is.
    number : int
        The client's number of the subscription.
    is_last : bool
        Whether the subscription ends with this line.
    snapshot : bool
        Whether the book is wanted first.
    """

    schema: str
    stype_in: str
    symbols: tuple[str, ...]
    start: int | None
    number: int
    is_last: bool
    snapshot: bool = False


def fields_of(line: bytes) -> dict[str, str]:
    """Return the fields of a line of ``key=value`` joined by ``|``.

    Examples
    --------
    >>> fields_of(b"schema=trades|is_last=1")
    {'schema': 'trades', 'is_last': '1'}
    """
    text = line.decode("utf-8", errors="replace").strip()
    pairs = (token.partition("=") for token in text.split("|") if token)
    return {key: value for key, _, value in pairs}


def cram_answer(challenge: str, key: str) -> str:
    """Return what a client with this key answers to a challenge.

    Examples
    --------
    >>> cram_answer("c", REHEARSAL_KEY)[-6:]
    '-ret-0'
    """
    digest = hashlib.sha256(f"{challenge}|{key}".encode()).hexdigest()
    return f"{digest}-{key[-_BUCKET_LENGTH:]}"


def is_answer(answer: str, challenge: str, key: str) -> bool:
    """Return whether this answer proves the key."""
    return hmac.compare_digest(answer.encode(), cram_answer(challenge, key).encode())


def authentication_of(line: bytes) -> Authentication:
    """Read the line that answers the challenge."""
    fields = fields_of(line)
    _check_word(fields, "encoding", ("dbn",))
    _check_word(fields, "compression", ("none", "zstd"))
    return Authentication(
        answer=fields.get("auth", ""),
        dataset=fields.get("dataset", ""),
        ts_out=fields.get("ts_out", "0") == "1",
        zstd=fields.get("compression", "none") == "zstd",
        heartbeat_interval_s=_number(
            fields, "heartbeat_interval_s", _DEFAULT_HEARTBEAT_S, least=1, most=_LONGEST_HEARTBEAT_S
        ),
        client=fields.get("client", ""),
    )


def subscription_of(fields: dict[str, str]) -> SubscriptionLine:
    """Read a line that subscribes."""
    start = fields.get("start")
    return SubscriptionLine(
        schema=fields.get("schema", ""),
        stype_in=fields.get("stype_in", "raw_symbol"),
        symbols=tuple(symbol for symbol in fields.get("symbols", "").split(",") if symbol),
        start=None if start is None else _number(fields, "start", 0, most=_LARGEST_TIME),
        number=_number(fields, "id", 0, most=_LARGEST_NUMBER),
        is_last=fields.get("is_last", "1") == "1",
        snapshot=fields.get("snapshot", "0") == "1",
    )


def _number(fields: dict[str, str], name: str, default: int, *, least: int = 0, most: int) -> int:
    text = fields.get(name)
    if text is None:
        return default
    # Not `int` of whatever it is: that takes digits of every script, and any number of them.
    number = int(text) if _DIGITS.fullmatch(text) else -1
    if not least <= number <= most:
        raise DataError(
            "not an allowed value",
            column=name,
            found=_shown(text),
            expected=f"a whole number from {least} to {most}",
        )
    return number


def _check_word(fields: dict[str, str], name: str, words: tuple[str, ...]) -> None:
    text = fields.get(name, words[0])
    if text not in words:
        raise DataError(
            "not an allowed value", column=name, found=_shown(text), expected=" or ".join(words)
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
