"""Whether the tables of a store fit together, asked of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clustercore.store.schema import DERIVED, TABLES

if TYPE_CHECKING:
    from clustercore.store.store import Store

__all__ = ["Finding", "audit"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit.

    Attributes
    ----------
    table : str
        Where.
    problem : str
        What.
    count : int
        How many rows.
    """

    table: str
    problem: str
    count: int


_BEFORE_EPOCH: Final = """
SELECT count(*) FROM inputs LEFT JOIN
    (SELECT root, min(seq) AS first FROM inputs WHERE kind = 'epoch' GROUP BY root) AS began
    USING (root)
WHERE kind <> 'contract' AND consumed IS DISTINCT FROM false
    AND (first IS NULL OR seq < first)"""
_WITHOUT_TRADES: Final = """
SELECT count(*) FROM inputs LEFT JOIN
    (SELECT seq, sum(size) AS traded FROM prints GROUP BY seq) AS made USING (seq)
WHERE kind = 'prints' AND traded IS DISTINCT FROM volume"""
_STRAY_TRADES: Final = """
SELECT count(*) FROM prints
WHERE seq NOT IN (SELECT seq FROM inputs WHERE kind = 'prints')"""
_NO_SESSIONS: Final = """
SELECT count(*) FROM inputs WHERE kind = 'epoch'
    AND CASE WHEN json_valid(detail) THEN json_extract_string(detail, '$.sessions_hash') ELSE '' END
        NOT IN (SELECT hash FROM session_tables)"""
_UNCAUSED: Final = 'SELECT count(*) FROM "{name}" ANTI JOIN inputs USING (seq, root, epoch)'
_TWICE: Final = """
SELECT count(*) FROM (SELECT 1 FROM trades GROUP BY root, trade_id HAVING count(*) > 1)"""
_MISCOUNTED: Final = """
SELECT count(*) FROM
    (SELECT root, epoch, context, trades AS ended, wins FROM contexts) AS kept
    FULL JOIN (
        SELECT root, epoch, context, count(*) AS ended, count(*) FILTER (net > 0) AS wins
        FROM trades WHERE exit_reason <> 'open' GROUP BY ALL
    ) AS counted
    ON kept.root = counted.root AND kept.epoch = counted.epoch
    AND kept.context IS NOT DISTINCT FROM counted.context
WHERE kept.ended IS DISTINCT FROM counted.ended OR kept.wins IS DISTINCT FROM counted.wins"""
_UNRECOMMENDED: Final = """
SELECT count(*) FROM {name} WHERE recommendation_id <> ''
    AND recommendation_id NOT IN (SELECT id FROM recommendations)"""

# Table, problem, and a query that counts the rows that have it.
_QUESTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "inputs",
        "numbers are missing in the log",
        "SELECT coalesce(max(seq), 0) - count(*) FROM inputs",
    ),
    ("inputs", "inputs before the first epoch of their instrument", _BEFORE_EPOCH),
    ("inputs", "epochs without their session table", _NO_SESSIONS),
    ("inputs", "prints whose trades do not sum to their volume", _WITHOUT_TRADES),
    ("prints", "trades without their input", _STRAY_TRADES),
    *(
        (name, "rows without the input that caused them", _UNCAUSED.format(name=name))
        for name in (*DERIVED, "recommendations")
    ),
    ("trades", "trades that ended twice", _TWICE),
    ("contexts", "records that disagree with the trades", _MISCOUNTED),
    *(
        (name, "rows without their recommendation", _UNRECOMMENDED.format(name=name))
        for name in ("outbox", "commits")
    ),
)


def audit(store: Store) -> list[Finding]:
    """Read every table whole and return what does not fit together.

    Raises
    ------
    StoreError
        ``damaged``, when a part of the file cannot be read.
    """
    for name in TABLES:
        store.table(name)
    found = [
        Finding(table, problem, int(store.count(query))) for table, problem, query in _QUESTIONS
    ]
    return [finding for finding in found if finding.count]
