"""The memory of a live process: one DuckDB file, of which one process at a time is the owner."""

from __future__ import annotations

from clustercore.store.errors import StoreError
from clustercore.store.journal import Alert, Certificate, Commit, FeedEvent
from clustercore.store.places import snapshot_path
from clustercore.store.schema import DERIVED
from clustercore.store.store import Store, contexts_of
from clustercore.store.tables import sessions_hash

__all__ = [
    "DERIVED",
    "Alert",
    "Certificate",
    "Commit",
    "FeedEvent",
    "Store",
    "StoreError",
    "contexts_of",
    "sessions_hash",
    "snapshot_path",
]
