"""Rows of the journal: what happened around the inputs, written once and never rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Alert", "Certificate", "Commit", "FeedEvent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent:
    """Something about the feed: a connection, a gap, a hole, a conflict. Times are ns UTC."""

    at: int
    kind: str
    root: str = ""
    reason: str = ""
    start: int | None = None
    end: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A message to send; ``id`` is the outbox's and 0 until it is stored."""

    recommendation_id: str
    channel: str
    text: str
    created: int
    id: int = 0
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The price (1e-9 points) in the market when a recommendation was committed."""

    recommendation_id: str
    committed_at: int
    price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A stretch of the log, replayed and compared.

    Attributes
    ----------
    root, epoch : str, int
        What was compared.
    upto_seq : int
        Last input that was.
    inputs_hash, outputs_hash : str
        Hashes of what was consumed and of every row that came out.
    made_at : int
        ns UTC.
    engine_version, clustercore_version : str
        What compared.
    state : str
        ``Engine.account_state()`` at that point, or empty.
    ok : bool
        Whether replay and store agreed.
    """

    root: str
    epoch: int
    upto_seq: int
    inputs_hash: str
    outputs_hash: str
    made_at: int
    engine_version: str
    clustercore_version: str
    state: str
    ok: bool
