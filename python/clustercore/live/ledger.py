"""The ledger: inputs and what they caused, gathered until one transaction writes them down.

Nothing is shown to anybody before it is committed: recommendations, files and alerts follow the
commit, and after a crash they are made again from the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from clustercore.events import Order, Trade
from clustercore.inputs import Bar, Carry, Closed, Entry, Input
from clustercore.live.alerts import alerts_of
from clustercore.store import Commit, FeedEvent

if TYPE_CHECKING:
    from clustercore.events import Event
    from clustercore.live.alerts import Channel
    from clustercore.live.clock import Clock
    from clustercore.recommend import Recommender
    from clustercore.recommendation import Recommendation
    from clustercore.store import Store

__all__ = ["Committed", "Ledger"]

_LOG = logging.getLogger(__name__)
_NANOS_PER_POINT = 1e9


@dataclass(frozen=True)
class Committed:
    """What a transaction wrote that somebody is told."""

    recommendations: Sequence[Recommendation]
    ended: Sequence[Order | Trade]
    feed_events: Sequence[FeedEvent]


class Ledger:
    """Entries on their way into the store.

    Parameters
    ----------
    store : Store
        Where they go.
    clock : Clock
        When things were noted and committed.
    channels : sequence of Channel
        To whom recommendations also go.
    """

    def __init__(self, store: Store, clock: Clock, channels: Sequence[Channel] = ()) -> None:
        self.store = store
        self.clock = clock
        self.recommenders: dict[str, Recommender] = {}
        self.on_events: Callable[[str, Input, Sequence[Event]], None] | None = None
        self.on_commit: Callable[[Committed], None] | None = None
        self.is_urgent = False
        """Whether something waits that is to be written now: what an engine took, or caused.

        Bars of other months and closings that caused nothing go with the next that is.
        """
        self.is_alarming = False
        """Whether something waits that the operator is to see soon, in whatever state we are."""
        self._channels = tuple(channels)
        self._next_seq = store.next_seq
        self._last_close: dict[str, int] = {}
        self._entries: list[Entry] = []
        self._recommendations: list[Recommendation] = []
        self._feed_events: list[FeedEvent] = []
        self._ended: list[Order | Trade] = []

    def enter(self, root: str, epoch: int, item: Input, events: tuple[Event, ...]) -> int:
        """Put an input and what it caused into the next transaction; return its seq."""
        seq = self._next_seq
        self._next_seq += 1
        self._entries.append(Entry(seq, root, epoch, item, events))
        if isinstance(item, Bar) and item.consumed:
            self._last_close[root] = item.close
        self.is_urgent = self.is_urgent or bool(events) or _is_consumed(item)
        if events:
            recommender = self.recommenders.get(root)
            if recommender is not None:
                self._recommendations += recommender.take(events, seq=seq)
            self._ended += [event for event in events if _is_end(event)]
        if self.on_events is not None and (events or isinstance(item, Carry)):
            self.on_events(root, item, events)
        return seq

    def journal(
        self,
        kind: str,
        root: str | None,
        reason: str,
        start: int | None,
        end: int | None,
        detail: dict[str, Any],
    ) -> None:
        """Put something about the feed into the next transaction."""
        event = FeedEvent(
            at=self.clock.now(),
            kind=kind,
            root=root or "",
            reason=reason,
            start=start,
            end=end,
            detail=detail,
        )
        self._feed_events.append(event)
        alarming = kind in _ALARMING
        self.is_alarming = self.is_alarming or alarming or kind in _SHOWN
        level = logging.WARNING if alarming else logging.INFO
        _LOG.log(level, "%s %s: %s", kind, root or "feed", reason)

    @property
    def waiting(self) -> int:
        """How many entries wait for the next transaction."""
        return len(self._entries)

    def commit(self) -> None:
        """Write down everything that waits, in one transaction, and then show it."""
        if not (self._entries or self._feed_events):
            return
        now = self.clock.now()
        commits = [
            Commit(
                recommendation_id=made.id,
                committed_at=now,
                price=self._last_close.get(made.root, round(made.price * _NANOS_PER_POINT)),
            )
            for made in self._recommendations
        ]
        alerts = [
            alert
            for made in self._recommendations
            for alert in alerts_of(made, self._channels, now)
        ]
        self.store.commit(
            self._entries,
            recommendations=self._recommendations,
            commits=commits,
            alerts=alerts,
            feed_events=self._feed_events,
        )
        committed = Committed(self._recommendations, self._ended, self._feed_events)
        self._entries, self._recommendations, self._feed_events, self._ended = [], [], [], []
        self.is_urgent = self.is_alarming = False
        if self.on_commit is not None:
            self.on_commit(committed)


def _is_end(event: Event) -> TypeGuard[Order | Trade]:
    """Return whether an event is the fill or the end of something that was recommended."""
    if isinstance(event, Trade):
        return event.exit_reason != "open"
    return isinstance(event, Order) and event.quantity > 0 and event.reason != "working"


def _is_consumed(item: Input) -> bool:
    return item.consumed if isinstance(item, Bar) else not isinstance(item, Closed)


# What the console shows as it comes, without being a warning.
_SHOWN = frozenset({"state", "risk"})
_ALARMING = frozenset(
    {
        "alarm",
        "conflict",
        "error",
        "hole",
        "lost",
        "no_contract",
        "refused",
        "trades_differ",
        "unmapped",
    }
)
