"""Answers of the historical server, and refusals in the words of the real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["RefusalError", "Reply", "compressed", "json_reply", "refusal"]

_DOCS: Final = "https://databento.com/docs"


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes
    ----------
    status : int
        Of HTTP.
    body : bytes
        What follows the headers.
    kind : str
        Its media type.
    headers : tuple of (str, str)
        Further headers.
    chunked : bool
        Whether the body comes in chunks, its length not said before.
    until : int or None
        Bytes of the body after which the connection is closed.
    """

    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False
    until: int | None = None


class RefusalError(Exception):
    """A request that the real service would refuse, in its words."""

    def __init__(
        self, status: int, case: str, message: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reply = refusal(status, case, message, payload)


def refusal(
    status: int, case: str, message: str, payload: Mapping[str, Any] | None = None
) -> Reply:
    """Return an answer that refuses.

    Examples
    --------
    >>> refusal(404, "not_found", "There is no endpoint x.").status
    404
    """
    detail = {
        "case": case,
        "message": message,
        "status_code": status,
        "docs": _DOCS,
        "payload": payload,
    }
    return json_reply({"detail": detail}, status)


def json_reply(document: object, status: int = 200) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, json.dumps(document).encode())


def compressed(content: bytes) -> bytes:
    """Return bytes as one frame of zstd, without its size in the head, as of a stream."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return compressor.compress(content) + compressor.flush()
