"""What goes wrong with history on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from clustercore.errors import ConfigError
from clustercore.gateway.answers import ENDPOINTS, RANGE, Answers, time_column
from clustercore.gateway.records import DATASET
from clustercore.gateway.replies import Reply, compressed, refusal

__all__ = ["FAULTS", "HistoricalFault", "faulty_reply"]

FAULTS: Final = {
    "rate_limit": "429 with Retry-After",
    "server_error": "500 with a JSON detail",
    "bad_gateway": "502 with a page of HTML",
    "gateway_timeout": "504",
    "unauthorized": "401",
    "no_funds": "402",
    "no_licence": "403",
    "refused": "422",
    "not_json": "200 with a page of HTML",
    "reset": "the connection is closed before the answer",
    "silent": "no answer until the server closes",
    "drop": "the connection is closed inside the body",
    "truncate": "the body ends early, as if it were whole",
    "cut_record": "the data ends inside a record, in a whole zstd stream",
    "plain_cut": "not compressed, and cut between two records",
    "split_metadata": "the first zstd frame ends inside the header",
    "empty": "a body without a byte",
    "metadata_only": "a header and no record",
    "lose_record": "all records but the last",
    "other_span": "records from before the start",
    "other_dataset": "a header of another dataset",
    "warning": "a header X-Warning",
}
# Those of them that are made of records.
_OF_RECORDS: Final = (
    "cut_record",
    "plain_cut",
    "split_metadata",
    "metadata_only",
    "lose_record",
    "other_span",
    "other_dataset",
)
_DAY_NS: Final = 86_400 * 10**9
# Shorter than the shortest header.
_INSIDE_HEADER: Final = 50
_HTML: Final = b"<html><body>Service unavailable</body></html>"
_REFUSALS: Final = {
    "rate_limit": (429, "rate_limit_exceeded", "Too many requests."),
    "server_error": (500, "internal_server_error", "An internal error occurred."),
    "gateway_timeout": (504, "gateway_timeout", "The request timed out."),
    "unauthorized": (401, "auth_authentication_failed", "Authentication failed."),
    "no_funds": (402, "account_insufficient_funds", "The account has insufficient funds."),
    "no_licence": (
        403,
        "license_not_found_unauthorized",
        "A live data license is required to access data within the last 24 hours.",
    ),
    "refused": (422, "dataset_unavailable_range", "Part of the requested range is unavailable."),
}


@dataclass(frozen=True)
class HistoricalFault:
    """One thing that goes wrong.

    Parameters
    ----------
    kind : str
        A key of ``FAULTS``.
    times : int
        How many requests it meets.
    after : int
        Requests to the endpoint that pass before it.
    endpoint : str
        Which endpoint it meets.
    share : float
        Part of the body that is sent, for ``drop``, ``truncate`` and ``plain_cut``.
    retry_after_s : float or None
        For ``rate_limit``.
    """

    kind: str
    times: int = 1
    after: int = 0
    endpoint: str = RANGE
    share: float = 0.5
    retry_after_s: float | None = 0.0

    def __post_init__(self) -> None:
        endpoints = (RANGE,) if self.kind in _OF_RECORDS else tuple(ENDPOINTS)
        wait = self.retry_after_s or 0.0
        checks = (
            (self.kind in FAULTS, "kind", self.kind, ", ".join(FAULTS)),
            (self.endpoint in endpoints, "endpoint", self.endpoint, ", ".join(endpoints)),
            (self.times >= 1, "times", self.times, "1 or more"),
            (self.after >= 0, "after", self.after, "0 or more"),
            (0 <= self.share <= 1, "share", self.share, "0 to 1"),
            (wait >= 0, "retry_after_s", wait, "0 or more"),
        )
        for allowed, name, found, expected in checks:
            if not allowed:
                problem = "no such fault" if name == "kind" else "not an allowed value"
                raise ConfigError(problem, field=name, found=repr(found), expected=expected)


def faulty_reply(
    fault: HistoricalFault, answers: Answers, asked: Mapping[str, str], answer: Callable[[], Reply]
) -> Reply | None:
    """Return what a fault makes of an answer; None is none at all."""
    kind = fault.kind
    if kind in _REFUSALS:
        reply = refusal(*_REFUSALS[kind])
        after = fault.retry_after_s if kind == "rate_limit" else None
        return reply if after is None else replace(reply, headers=(("Retry-After", f"{after:g}"),))
    if kind in {"reset", "silent"}:
        return None
    if kind in {"not_json", "bad_gateway"}:
        return Reply(200 if kind == "not_json" else 502, _HTML, "text/html")
    reply = answer()
    if kind == "warning":
        text = json.dumps(["Warning: this is a rehearsal", "DeprecationWarning: so is this"])
        return replace(reply, headers=(("X-Warning", text),))
    if kind in _OF_RECORDS:
        kind_of_body, body = _other_body(fault, answers, asked)
        return replace(reply, kind=kind_of_body, body=body)
    part = int(len(reply.body) * fault.share)
    if kind == "drop":
        return replace(reply, until=part)
    return replace(reply, body=reply.body[:part] if kind == "truncate" else b"")


def _other_body(
    fault: HistoricalFault, answers: Answers, asked: Mapping[str, str]
) -> tuple[str, bytes]:
    """Return the media type and the bytes of a body made of other records, or otherwise."""
    rows = answers.select(asked)
    if fault.kind == "plain_cut":
        sent = rows.head(int(len(rows) * fault.share))
        return "application/octet-stream", answers.encoded(sent, asked)
    if fault.kind == "split_metadata":
        content = answers.encoded(rows, asked)
        first, rest = content[:_INSIDE_HEADER], content[_INSIDE_HEADER:]
        return "application/zstd", compressed(first) + compressed(rest)
    return "application/zstd", compressed(_other_data(fault.kind, answers, rows, asked))


def _other_data(kind: str, answers: Answers, rows: pl.DataFrame, asked: Mapping[str, str]) -> bytes:
    if kind == "metadata_only":
        return answers.encoded(rows.head(0), asked)
    if kind == "lose_record":
        return answers.encoded(rows.head(-1), asked)
    if kind == "other_span":
        time = time_column(asked["schema"])
        return answers.encoded(rows.with_columns(pl.col(time) - _DAY_NS), asked)
    content = answers.encoded(rows, asked)
    if kind == "cut_record":
        return content[:-1]
    return content.replace(DATASET.encode(), b"XNAS.ITCH", 1)
