"""Parity: the log folded again must give exactly the rows that were stored while it was written.

Live trading and a backtest of the inputs it consumed are one computation here, so a certificate
says that every cluster, signal, order, trade and equity mark is equal, to the last bit. What the
complete data would have changed (bars that came too late to act on) is listed apart.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from clustercore.engine import ENGINE_VERSION
from clustercore.errors import ClusterCoreError, DataError
from clustercore.fold import Fold, settings_of
from clustercore.inputs import (
    Bar,
    Carry,
    ContractChange,
    Entry,
    Epoch,
    Input,
    Operator,
    Prints,
    WarmUp,
)
from clustercore.recommend import Recommender, end_of_day
from clustercore.recommendation import Recommendation
from clustercore.store import DERIVED, Certificate, Store, contexts_of
from clustercore.store.rows import event_rows, frame_of, inputs_of
from clustercore.store.schema import TABLES

if TYPE_CHECKING:
    from clustercore.events import Event
    from clustercore.sessions import Sessions


__all__ = [
    "Parity",
    "Rebuilt",
    "Replay",
    "StoredLog",
    "altered",
    "certificate_at_end",
    "certificate_of",
    "check",
    "compare",
    "hash_log",
    "hash_rows",
    "hash_stored",
    "hindsight",
    "rebuild",
    "recommended",
    "recommender_of",
    "replay",
    "slippage",
    "uncertified",
    "verify",
    "without_epoch",
]

_LOG = logging.getLogger(__name__)


class StoredLog:
    """What a fold looks up, from a store.

    Parameters
    ----------
    store : Store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def sessions(self, sessions_hash: str) -> Sessions:
        """Return a session table by its hash."""
        return self._store.sessions(sessions_hash)

    def bars(self, root: str, first_seq: int, last_seq: int) -> pl.DataFrame:
        """Return the rows of the bars that were consumed from one seq to another, in order."""
        return self._store.bars(root, first_seq, last_seq)

    def inputs(self, rows: pl.DataFrame) -> Iterator[tuple[int, Input]]:
        """Yield the seq and the input of rows of the log."""
        return inputs_of(rows, self.prints(rows))

    def prints(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the trades of the market of rows of the log, in order."""
        return self._store.prints(rows)


@dataclass
class Replay:
    """An epoch, folded again.

    Attributes
    ----------
    root : str
        Name of the engine.
    epoch : Epoch
        What it ran under.
    fold : Fold
        The engine at the end of the log.
    entries : list of Entry
        The entries that caused something, with what they caused.
    recommendations : list of Recommendation
        What the trader was to be told.
    counts : dict of str to int
        Inputs by kind.
    upto_seq : int
        The last entry.
    inputs_hash : str
        Hash of every input, in order; those that were kept and not consumed are among them.
    altered : str or None
        The first certificate whose inputs are not what they were, in words.
    """

    root: str
    epoch: Epoch
    fold: Fold
    entries: list[Entry] = field(default_factory=list)
    recommendations: list[Recommendation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    upto_seq: int = 0
    inputs_hash: str = ""
    altered: str | None = None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What a comparison found.

    Attributes
    ----------
    root : str
        Name of the engine.
    epoch : int
        Number of the epoch.
    config_id, engine_version, clustercore_version : str
        What it ran under, and what compared.
    upto_seq : int
        The last entry that was compared.
    inputs_hash, outputs_hash : str
        Hashes of the inputs, and of every row that came out.
    counts : dict of str to int
        Inputs by kind, rows by table.
    difference : str or None
        The first difference, by table, row and column; None when there is none.
    note : str
        How it was verified when not by a replay.
    """

    root: str
    epoch: int
    config_id: str
    engine_version: str
    clustercore_version: str
    upto_seq: int
    inputs_hash: str
    outputs_hash: str
    counts: dict[str, int]
    difference: str | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether replay and store agree."""
        return self.difference is None


def replay(
    store: Store, root: str, epoch: Epoch, between: Callable[[], object] | None = None
) -> Replay:
    """Fold an epoch's entries again.

    Parameters
    ----------
    store : Store
        The store.
    root : str
        Name of the engine.
    epoch : Epoch
        The epoch.
    between : callable, optional
        Called every few thousand entries; what it raises ends the replay.

    Returns
    -------
    Replay
        The engine and everything that was caused.

    Raises
    ------
    DataError
        An input cannot be read, or the engine refuses it; the message names file and input.
    """
    try:
        return _replayed(store, root, epoch, between)
    except DataError as error:
        raise error.in_file(str(store.path)) from error


def _replayed(
    store: Store, root: str, epoch: Epoch, between: Callable[[], object] | None
) -> Replay:
    made = Replay(root, epoch, Fold(root, StoredLog(store)))
    recommender = recommender_of(epoch, store.sessions(epoch.sessions_hash))
    rows = store.inputs(root, epoch.number)
    for part in rows.iter_slices(_ROWS):
        for seq, item, events in made.fold.apply_rows(part):
            if events:
                made.entries.append(Entry(seq, root, epoch.number, item, events))
                made.recommendations += recommender.take(events, seq=seq)
        if between is not None:
            between()
    kept = (pl.col("kind") == "bar") & ~pl.col("consumed")
    kinds = rows.select(pl.when(kept).then(pl.lit("bar kept")).otherwise("kind").alias("kind"))
    made.counts = dict(sorted(kinds["kind"].value_counts().iter_rows()))
    made.upto_seq = rows["seq"].to_list()[-1] if rows.height else 0
    made.inputs_hash, made.altered = altered(store, root, epoch, rows)
    return made


def recommended(epoch: Epoch, sessions: Sessions, entries: Sequence[Entry]) -> list[Recommendation]:
    """Return what the trader was to be told of an epoch's entries."""
    recommender = recommender_of(epoch, sessions)
    return [made for entry in entries for made in recommender.take(entry.events, seq=entry.seq)]


def altered(store: Store, root: str, epoch: Epoch, rows: pl.DataFrame) -> tuple[str, str | None]:
    """Return the hash of an epoch's inputs, and the first certificate that they contradict.

    Parameters
    ----------
    store : Store
        The store.
    root : str
        Name of the engine.
    epoch : Epoch
        The epoch.
    rows : polars.DataFrame
        All of its inputs, in order.

    Returns
    -------
    tuple of str and (str or None)
        The hash, and the contradiction in words.
    """
    made = [one for one in store.certificates(root) if one.epoch == epoch.number]
    made.sort(key=lambda one: one.upto_seq)
    seqs = rows["seq"]
    ends = [int(seqs.search_sorted(one.upto_seq, side="right")) for one in made]
    *found, whole = _hashes_of_log(store, rows, [*(one.upto_seq for one in made), None])
    for one, end, now in zip(made, ends, found, strict=True):
        last = seqs[end - 1] if end else 0
        if last != one.upto_seq:
            return whole, (
                f"inputs: certified up to input {one.upto_seq}, and up to there the last one is "
                f"{last}: inputs were deleted"
            )
        if now != one.inputs_hash:
            since = max((other.upto_seq for other in made if other.upto_seq < last), default=0)
            return whole, (
                f"inputs: one of those from {since + 1} to {last} was changed since they were "
                "certified"
            )
    return whole, None


def hash_log(store: Store, rows: pl.DataFrame) -> str:
    """Return the hash of rows of the log, the trades of the market that belong to them included."""
    (whole,) = _hashes_of_log(store, rows, [None])
    return whole


def _hashes_of_log(store: Store, rows: pl.DataFrame, upto: Sequence[int | None]) -> list[str]:
    """Return the hashes up to each of some inputs in order; None is the end."""
    of_tables = []
    for table in (rows, store.prints(rows)):
        ends = [
            table.height if seq is None else int(table["seq"].search_sorted(seq, side="right"))
            for seq in upto
        ]
        of_tables.append(hash_rows(table, ends))
    return [
        hashlib.sha256(" ".join(parts).encode()).hexdigest()
        for parts in zip(*of_tables, strict=True)
    ]


def hash_rows(rows: pl.DataFrame, ends: Sequence[int]) -> list[str]:
    """Return the hashes of a frame's first rows, for each of some numbers of rows in order.

    Parameters
    ----------
    rows : polars.DataFrame
        Rows of a table.
    ends : sequence of int
        How many rows; never fewer than the one before.
    """
    columns = [_Hashed.of(column) for column in rows.get_columns()]
    found, done = [], 0
    for end in ends:
        whole = hashlib.sha256(f"{end};".encode())
        for column in columns:
            column.take(done, end)
            column.put(whole)
        done = end
        found.append(whole.hexdigest())
    return found


@dataclass
class _Hashed:
    """A column on its way into a hash: the first rows have the same whatever comes after them."""

    name: str
    values: np.ndarray[tuple[int], Any]
    missing: np.ndarray[tuple[int], Any]
    words: list[str]
    """What the numbers from 1 on stand for, in the order in which the words come first."""
    used: int = 0
    of_values: Any = field(default_factory=hashlib.sha256)
    of_missing: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def of(cls, column: pl.Series) -> _Hashed:
        """Return a column by its values, whatever library wrote them."""
        words: list[str] = []
        missing = column.is_null().to_numpy()
        if column.dtype == pl.String:
            found = column.drop_nulls().unique(maintain_order=True)
            words = found.to_list()
            column = column.cast(pl.Enum(found)).to_physical().cast(pl.UInt32) + 1
        physical = column.to_physical()
        zero = False if physical.dtype == pl.Boolean else 0
        return cls(column.name, physical.fill_null(zero).to_numpy(), missing, words)

    def take(self, start: int, end: int) -> None:
        """Go on from one row to another."""
        values = self.values[start:end]
        self.of_values.update(np.ascontiguousarray(values).tobytes())
        self.of_missing.update(np.ascontiguousarray(self.missing[start:end]).tobytes())
        if self.words and len(values):
            self.used = max(self.used, int(values.max()))

    def put(self, whole: Any) -> None:  # noqa: ANN401 -- hashlib has no public type
        """Put what was taken so far into a hash of all columns."""
        whole.update(f"{self.name};".encode())
        whole.update(self.of_values.digest() + self.of_missing.digest())
        for word in self.words[: self.used]:
            # With its length, so that no two lists of words look the same.
            encoded = word.encode()
            whole.update(f"{len(encoded)};".encode() + encoded)


def frames(entries: Sequence[Entry], epoch: Epoch) -> dict[str, pl.DataFrame]:
    """Return what entries caused as the store returns it: seq and the columns of each frame."""
    under = (epoch.config_id, epoch.engine_version)
    rows = event_rows(entries, lambda _root, _epoch: under)
    return {name: _as_stored(frame_of(name, rows.get(name, []))) for name in DERIVED}


def compare(
    store: Store,
    root: str,
    epoch: Epoch,
    replayed: Mapping[str, pl.DataFrame],
    told: Sequence[Recommendation],
) -> str | None:
    """Return the first difference between what is stored and what was replayed, or None.

    Parameters
    ----------
    store : Store
        The store.
    root : str
        Name of the engine.
    epoch : Epoch
        The epoch.
    replayed : mapping of str to DataFrame
        From ``frames``.
    told : sequence of Recommendation
        From ``recommended``.
    """
    for name in DERIVED:
        stored = store.derived(name, root, epoch.number)
        found = first_difference(name, stored, replayed[name])
        if found is not None:
            return found
    contexts = contexts_of(root, epoch.number, replayed["trades"])
    found = first_difference("contexts", store.contexts(root, epoch.number), contexts)
    return found or _told_otherwise(store, root, epoch, told)


def first_difference(name: str, stored: pl.DataFrame, replayed: pl.DataFrame) -> str | None:
    """Return where two frames differ first, in words, or None.

    Examples
    --------
    >>> first_difference("trades", pl.DataFrame({"net": [1.0]}), pl.DataFrame({"net": [2.0]}))
    "trades row 0, column 'net': stored 1.0, replayed 2.0"
    """
    replayed = replayed.select(stored.columns)
    rows = min(stored.height, replayed.height)
    for row in range(0, rows, _CHUNK):
        one, other = stored.slice(row, _CHUNK), replayed.slice(row, min(_CHUNK, rows - row))
        one = one.head(other.height)
        if not one.equals(other):
            return _differing_row(name, row, one, other)
    if stored.height != replayed.height:
        longer, what = (
            (stored, "stored only") if stored.height > rows else (replayed, "replayed only")
        )
        return f"{name} row {rows}: {what}: {longer.row(rows, named=True)}"
    return None


def _differing_row(name: str, first: int, one: pl.DataFrame, other: pl.DataFrame) -> str | None:
    for place, (mine, theirs) in enumerate(zip(one.iter_rows(), other.iter_rows(), strict=True)):
        for column, a, b in zip(one.columns, mine, theirs, strict=True):
            if a != b and not (a is None and b is None):
                return (
                    f"{name} row {first + place}, column {column!r}: stored {a!r}, replayed {b!r}"
                )
    return f"{name} from row {first}: the types differ"


def check(store: Store) -> list[Parity]:
    """Replay every epoch of every engine and compare it with what is stored.

    Parameters
    ----------
    store : Store
        The store; it is only read.

    Returns
    -------
    list of Parity
        One for each epoch, and one for each that has rows and no entry in the log. An epoch of
        another engine version is verified by its stored hashes. Nothing in an empty store.
    """
    found = []
    for root in roots(store):
        try:
            epochs = store.epochs(root)
        except DataError as error:
            return [_nothing_known(root, 0, f"the log cannot be read: {error}")]
        found += [verify(store, root, epoch) for _, epoch in epochs]
    lost = {(row["root"], row["epoch"]) for row in store.strays().iter_rows(named=True)}
    return found + [
        _nothing_known(root, number, without_epoch(store, root, number) or "")
        for root, number in sorted(lost)
    ]


def without_epoch(store: Store, root: str, number: int | None = None) -> str | None:
    """Return, in words, which rows of an engine are of an epoch that its log does not begin."""
    rows = store.strays().filter(root=root)
    if number is not None:
        rows = rows.filter(epoch=number)
    if rows.is_empty():
        return None
    said = ", ".join(f"{count} {table}" for table, count in rows.select("table", "rows").rows())
    lost = rows["epoch"][0]
    return f"the log of {root} does not begin epoch {lost}, and there are rows of it: {said}"


def verify(store: Store, root: str, epoch: Epoch) -> Parity:
    """Compare an epoch's replay with what is stored; one of another engine by its hashes."""
    if epoch.engine_version != ENGINE_VERSION:
        return _by_hash(store, root, epoch)
    try:
        made = replay(store, root, epoch)
    except ClusterCoreError as error:
        return _unreplayable(root, epoch, str(error))
    return certify(store, made)


def certify(store: Store, made: Replay) -> Parity:
    """Return the comparison of a replay with the store."""
    replayed = frames(made.entries, made.epoch)
    difference = made.altered or compare(
        store, made.root, made.epoch, replayed, made.recommendations
    )
    return Parity(
        root=made.root,
        epoch=made.epoch.number,
        config_id=made.epoch.config_id,
        engine_version=made.epoch.engine_version,
        clustercore_version=version("clustercore"),
        upto_seq=made.upto_seq,
        inputs_hash=made.inputs_hash,
        outputs_hash=_hash_outputs(
            replayed,
            contexts_of(made.root, made.epoch.number, replayed["trades"]),
            made.recommendations,
        ),
        counts=made.counts | {name: frame.height for name, frame in replayed.items()},
        difference=difference,
    )


def _told_otherwise(
    store: Store, root: str, epoch: Epoch, made: Sequence[Recommendation]
) -> str | None:
    """Return the first recommendation that differs from what is stored, in words, or None.

    Whether the market was simulated is no input of the engine, so that it is not compared.
    """
    stored = [one for one in store.recommendations(root) if one.epoch == epoch.number]
    for place, (told, again) in enumerate(zip(stored, made, strict=False)):
        if replace(told, simulated=False) != again:
            for name in Recommendation.__dataclass_fields__:
                mine, theirs = getattr(told, name), getattr(again, name)
                if name != "simulated" and mine != theirs:
                    where = f"recommendations row {place}, column {name!r}"
                    return f"{where}: stored {mine!r}, replayed {theirs!r}"
    if len(stored) != len(made):
        return f"recommendations: {len(stored)} stored, {len(made)} replayed"
    return None


def recommender_of(epoch: Epoch, sessions: Sessions) -> Recommender:
    """Return who explains the orders of an epoch, under that epoch's own configuration."""
    config, instrument = settings_of(epoch)
    return Recommender(
        config.applied_to(instrument),
        interval_ns=epoch.interval_ns,
        root=instrument.root,
        epoch=epoch.number,
        simulated=False,
        slippage_ticks=config.costs.slippage_ticks,
        max_hold_minutes=config.exit.max_hold_minutes,
        day_end=end_of_day(sessions, config.exit.flatten_minutes),
    )


def certificate_of(parity: Parity, made_at: int, state: str) -> Certificate:
    """Return a comparison as the row that is stored."""
    return Certificate(
        root=parity.root,
        epoch=parity.epoch,
        upto_seq=parity.upto_seq,
        inputs_hash=parity.inputs_hash,
        outputs_hash=parity.outputs_hash,
        made_at=made_at,
        engine_version=parity.engine_version,
        clustercore_version=parity.clustercore_version,
        state=state,
        ok=parity.ok,
    )


def certificate_at_end(store: Store, root: str, number: int) -> Certificate | None:
    """Return the newest certificate of an epoch when its engine took nothing since, or None."""
    made = [one for one in store.certificates(root) if one.epoch == number]
    if not made:
        return None
    since = store.inputs(root, number, after=made[-1].upto_seq)
    stopped = (pl.col("kind") == "operator") & (pl.col("reason") == "stop")
    taken = since.filter(~stopped & pl.col("consumed").fill_null(value=True))
    return made[-1] if taken.is_empty() else None


def uncertified(store: Store, root: str) -> list[Epoch]:
    """Return the ended epochs of this engine version whose end no good certificate covers.

    A later version cannot replay them, and can trust them by a certificate only.
    """
    found = []
    for _, epoch in store.epochs(root)[:-1]:
        left = certificate_at_end(store, root, epoch.number)
        if epoch.engine_version == ENGINE_VERSION and (left is None or not left.ok):
            found.append(epoch)
    return found


@dataclass(frozen=True)
class Rebuilt:
    """What making the derived tables again did.

    Attributes
    ----------
    epochs : list of Parity
        One for each epoch that was made again; ``difference`` is what the old rows had.
    deleted : int
        Rows of instruments and epochs that the log does not know, which are gone.
    """

    epochs: list[Parity]
    deleted: int


def rebuild(store: Store, now: int) -> Rebuilt:
    """Make the derived tables again from the inputs, one epoch a transaction, and certify them.

    An epoch whose inputs contradict a certificate gets no other.

    Parameters
    ----------
    store : Store
        The store. Epochs of another engine version stay as they are.
    now : int
        When that is, ns UTC.

    Raises
    ------
    DataError
        The log has lost the beginning of an epoch, so that nothing can be made of the rest.
    """
    lost = store.strays().filter(pl.col("table").is_in(["inputs", "certificates"]))
    if lost.height:
        raise DataError(
            f"{without_epoch(store, lost['root'][0], lost['epoch'][0])}; nothing can be made again "
            "of a log that lost a part, so go back to a snapshot",
            file=str(store.path),
        )
    deleted = store.delete_strays()
    found = []
    for root in roots(store):
        for _, epoch in store.epochs(root):
            if epoch.engine_version != ENGINE_VERSION:
                continue
            made = replay(store, root, epoch)
            parity = certify(store, made)
            simulated = {one.id for one in store.recommendations(root) if one.simulated}
            told = [replace(one, simulated=one.id in simulated) for one in made.recommendations]
            store.replace_derived(root, epoch.number, frames(made.entries, epoch), told)
            if made.altered is None:
                agreeing = replace(parity, difference=None)
                store.save_certificate(certificate_of(agreeing, now, _state_of(made)))
            found.append(parity)
    return Rebuilt(found, deleted)


def _state_of(made: Replay) -> str:
    """Return the account at the end of a replay; empty within a session."""
    try:
        return made.fold.engine.account_state()
    except DataError:
        return ""


def roots(store: Store) -> list[str]:
    """Return the engines of a store, in the order they began."""
    return list(dict.fromkeys(store.table("inputs").filter(kind="epoch")["root"].to_list()))


def hindsight(store: Store, root: str, epoch: Epoch) -> pl.DataFrame:
    """Return the trades that differ when every bar had come in time.

    Late bars take their place and every bar may be acted on. Bars in conflict stay out: the first
    that came stays the truth.

    Returns
    -------
    polars.DataFrame
        ``side`` (``live only`` or ``complete only``), symbol, direction, entry_time, net.
    """
    complete: list[Bar] = []
    others: dict[int, list[Any]] = {}
    prints: dict[tuple[str, int], list[Prints]] = {}
    for _, item in store.entries(root, epoch.number):
        if isinstance(item, Bar):
            if item.consumed or item.reason == "late":
                complete.append(item)
        elif isinstance(item, Prints):
            # What came before a bar is of its minute.
            minute = int(item.ts[0] - item.ts[0] % epoch.interval_ns)
            prints.setdefault((item.symbol, minute), []).append(item)
        elif isinstance(item, Epoch | WarmUp | Carry | Operator | ContractChange) or not complete:
            # A closing before the first bar ends the session of the warm-up; the others follow
            # from the bars.
            others.setdefault(len(complete), []).append(item)
    fold = Fold(root, StoredLog(store))
    trades: list[Event] = []
    for item in _in_order(complete, others):
        if isinstance(item, Bar):
            for one in prints.get((item.symbol, item.ts_event), ()):
                fold.apply(one)
        try:
            caused = fold.apply(item)
        except DataError as error:
            if not isinstance(item, Bar):
                raise
            _LOG.info("with complete data, a bar is refused: %s", error)
            continue
        trades += [event for event in caused if type(event).__name__ == "Trade"]
    known = store.derived("trades", root, epoch.number)
    made = pl.DataFrame(
        [
            (t.trade_id, t.symbol, t.direction, t.entry_time, t.net)  # type: ignore[union-attr]
            for t in trades
        ],
        schema={
            "trade_id": pl.String,
            "symbol": pl.String,
            "direction": pl.String,
            "entry_time": pl.Int64,
            "net": pl.Float64,
        },
        orient="row",
    ).with_columns(pl.col("entry_time").cast(pl.Datetime("ns", "UTC")))
    stored = known.select(made.columns)
    return pl.concat(
        [
            stored.join(made, on="trade_id", how="anti").with_columns(side=pl.lit("live only")),
            made.join(stored, on="trade_id", how="anti").with_columns(side=pl.lit("complete only")),
        ]
    ).select("side", "symbol", "direction", "entry_time", "net")


def _in_order(bars: list[Bar], others: Mapping[int, list[Any]]) -> Iterator[Any]:
    """Yield bars in their places in time, each as if it had come at once, and what lay between."""
    start = 0
    for place in sorted({*others, len(bars)}):
        stretch = bars[start:place]
        # Context bars stand where they are; a late bar goes back to its minute.
        ordered = sorted(enumerate(stretch), key=lambda pair: _key(pair[0], pair[1], stretch))
        for _, bar in ordered:
            yield replace(bar, consumed=True, actionable=bar.origin != "backfill", reason="")
        yield from others.get(place, [])
        start = place


def _key(place: int, bar: Bar, stretch: Sequence[Bar]) -> tuple[int, int]:
    if bar.context:
        following = next((b for b in stretch[place:] if not b.context), bar)
        return (following.ts_event, place - len(stretch))
    return (bar.ts_event, place)


def slippage(store: Store) -> pl.DataFrame:
    """Return, for each recommendation that was filled, the model's fill against the market then.

    Returns
    -------
    polars.DataFrame
        root, contract, action, committed_at, price_committed, entry_price, slippage_points (what
        the market at the commit would have cost more than the model's fill; null when not filled).
    """
    commits = store.commits().with_columns((pl.col("price") / 1e9).alias("price_committed"))
    recommended = store.table("recommendations").select(
        pl.col("id").alias("recommendation_id"), "root", "contract", "action"
    )
    orders = pl.concat([store.derived("orders", root) for root in roots(store)] or [_NO_ORDERS])
    fills = orders.select(pl.col("trade_id").alias("recommendation_id"), "entry_price").unique(
        "recommendation_id", keep="last"
    )
    sign = pl.when(pl.col("action") == "BUY").then(1.0).otherwise(-1.0)
    return (
        recommended.join(commits, on="recommendation_id", how="left")
        .join(fills, on="recommendation_id", how="left")
        .with_columns(slippage_points=sign * (pl.col("price_committed") - pl.col("entry_price")))
        .select(
            "root",
            "contract",
            "action",
            "committed_at",
            "price_committed",
            "entry_price",
            "slippage_points",
        )
    )


def hash_stored(store: Store, root: str, number: int) -> str:
    """Return the hash of everything that is stored of what an epoch caused."""
    told = [one for one in store.recommendations(root) if one.epoch == number]
    derived = {name: store.derived(name, root, number) for name in DERIVED}
    return _hash_outputs(derived, store.contexts(root, number), told)


def _hash_outputs(
    derived: Mapping[str, pl.DataFrame], contexts: pl.DataFrame, told: Sequence[Recommendation]
) -> str:
    """Return the hash of what an epoch caused, by its values, whatever library wrote them.

    Whether the market was simulated is no input of the engine, so that it is left out.
    """
    rows = [_AS_ROW(replace(one, simulated=False)) for one in told]
    made = {name: derived[name] for name in DERIVED} | {
        "contexts": contexts,
        "recommendations": frame_of("recommendations", rows),
    }
    digest = hashlib.sha256()
    for name, frame in made.items():
        digest.update(f"{name} {hash_rows(frame, [frame.height])[0]};".encode())
    return digest.hexdigest()


def _by_hash(store: Store, root: str, epoch: Epoch) -> Parity:
    """Verify an epoch that this engine cannot replay by the hashes its own engine stored."""
    left = [c for c in store.certificates(root) if c.epoch == epoch.number]
    upto = left[-1].upto_seq if left else 0
    found = hash_stored(store, root, epoch.number)
    rows = store.inputs(root, epoch.number)
    inputs_hash, difference = altered(store, root, epoch, rows)
    if difference is not None:
        pass
    elif not left:
        difference = f"engine version {epoch.engine_version} left no certificate to compare with"
    elif not left[-1].ok:
        difference = f"already at its last certificate (input {upto}) replay and store differed"
    elif (behind := _first_behind(store, root, epoch.number, upto)) is not None:
        difference = f"{behind} has rows of inputs after {upto}, the last that was certified"
    elif found != left[-1].outputs_hash:
        difference = f"the rows up to input {upto} have another hash than when they were certified"
    return Parity(
        root=root,
        epoch=epoch.number,
        config_id=epoch.config_id,
        engine_version=epoch.engine_version,
        clustercore_version=version("clustercore"),
        upto_seq=upto,
        inputs_hash=inputs_hash,
        outputs_hash=found,
        counts={name: store.derived(name, root, epoch.number).height for name in DERIVED},
        difference=difference,
        note=f"by the hashes that engine version {epoch.engine_version} stored",
    )


def _first_behind(store: Store, root: str, number: int, upto: int) -> str | None:
    """Return the first table with rows of an epoch that came after an input, or None."""
    for name in DERIVED:
        if store.derived(name, root, number).filter(pl.col("seq") > upto).height:
            return name
    told = store.recommendations(root)
    behind = any(one.epoch == number and one.seq > upto for one in told)
    return "recommendations" if behind else None


def _nothing_known(root: str, number: int, difference: str) -> Parity:
    return Parity(
        root=root,
        epoch=number,
        config_id="",
        engine_version="",
        clustercore_version=version("clustercore"),
        upto_seq=0,
        inputs_hash="",
        outputs_hash="",
        counts={},
        difference=difference,
    )


def _unreplayable(root: str, epoch: Epoch, problem: str) -> Parity:
    return Parity(
        root=root,
        epoch=epoch.number,
        config_id=epoch.config_id,
        engine_version=epoch.engine_version,
        clustercore_version=version("clustercore"),
        upto_seq=0,
        inputs_hash="",
        outputs_hash="",
        counts={},
        difference=f"the log cannot be replayed: {problem}",
    )


def _as_stored(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("root", "epoch").with_columns(
        pl.col(column).dt.replace_time_zone("UTC")
        for column, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime)
    )


_CHUNK = 4096
_AS_ROW = attrgetter(*TABLES["recommendations"].names)
# Rows of a log between two looks at whether to go on.
_ROWS = 65_536
_NO_ORDERS = pl.DataFrame(schema={"trade_id": pl.String, "entry_price": pl.Float64})
