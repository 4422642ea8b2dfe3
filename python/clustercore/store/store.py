"""The store: every input in its place with everything it caused, whole transactions only."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
import polars as pl

from clustercore import _core
from clustercore.errors import ClusterCoreError, DataError
from clustercore.inputs import Entry, Epoch, Input
from clustercore.recommendation import Recommendation
from clustercore.sessions import Sessions
from clustercore.store import schema
from clustercore.store.arrow import ArrowStream
from clustercore.store.errors import StoreError, classified, translated
from clustercore.store.files import connect, copy_into, make, set_aside, take_over
from clustercore.store.journal import Alert, Certificate, Commit, FeedEvent
from clustercore.store.places import snapshot_path
from clustercore.store.rows import (
    Row,
    check_inputs,
    event_rows,
    frame_of,
    input_row,
    inputs_of,
    print_frame,
)
from clustercore.store.schema import DERIVED, TABLES, TIME, quoted, text_of
from clustercore.store.tables import session_rows, sessions_from, sessions_hash

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Store", "contexts_of"]

_LOG = logging.getLogger(__name__)

# Rows of one statement up to which parameters are quicker than a frame.
_FEW: Final = 8
# Rows that become objects at a time: what a replay needs does not grow with the log.
_CHUNK: Final = 8_192
_RECOMMENDATION: Final = attrgetter(*TABLES["recommendations"].names)


class Store:
    """The owner of a store's file. For one thread; the file is locked against other processes.

    Open it with `Store.open`, close it with `close` or a ``with`` block. Times are ns UTC as int
    and ``Datetime("ns", "UTC")`` in frames.

    Examples
    --------
    >>> import tempfile
    >>> from clustercore.inputs import Entry, Operator
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Store.open(Path(folder) / "live.duckdb") as store:
    ...         store.commit([Entry(store.next_seq, "ES", 1, Operator("stop"))])
    ...         print(store.inputs("ES").select("seq", "kind", "reason").rows())
    [(1, 'operator', 'stop')]
    """

    def __init__(self, connection: DuckDBPyConnection, path: Path, *, read_only: bool) -> None:
        self._connection: DuckDBPyConnection | None = connection
        self.path = path
        self.read_only = read_only
        self.next_seq = self._next("inputs", "seq")
        """Number of the next input, 1 in a new file."""
        self._next_event = self._next("feed_events", "id")
        self._next_alert = self._next("outbox", "id")
        self._known_under: dict[tuple[str, int], tuple[str, str]] | None = None
        self._contexts: dict[tuple[str, int, int | None], tuple[int, int]] = {
            (root, epoch, context): (trades, wins)
            for root, epoch, context, trades, wins in self._rows(
                "SELECT root, epoch, context, trades, wins FROM contexts"
            )
        }
        # Transactions have their own connection. There is nothing to optimise in an insert of a
        # few rows, and that is a fifth of its time; reading keeps the optimiser.
        self._writer = connection.cursor()
        self._writer.execute("PRAGMA disable_optimizer")
        self._inserts: dict[tuple[str, int], duckdb.Statement] = {}

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True, read_only: bool = False) -> Self:
        """Open a file and own it until it is closed.

        Parameters
        ----------
        path : Path or str
            The file. An older schema is brought up to date in one transaction.
        create : bool
            Whether to make the file, and its folder, when there is none.
        read_only : bool
            Only look: several processes may, while none owns the file.

        Raises
        ------
        StoreError
            With ``reason``: ``locked``, ``missing``, ``foreign``, ``damaged``, ``newer``,
            ``read_only`` or ``disk_full``.
        """
        path = Path(path)
        made = create and not read_only and make(path, _migrate)
        connection = connect(path, read_only=read_only)
        try:
            with translated(path, opening=True):
                _prepare(connection, path, read_only=read_only)
                store = cls(connection, path, read_only=read_only)
                if made:
                    store.set_aside_snapshot()
                return store
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Give the file up. Closing twice does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._inserts.clear()
            with translated(self.path):
                self._writer.close()
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing.

    def commit(
        self,
        entries: Sequence[Entry],
        *,
        recommendations: Sequence[Recommendation] = (),
        commits: Sequence[Commit] = (),
        alerts: Sequence[Alert] = (),
        feed_events: Sequence[FeedEvent] = (),
    ) -> None:
        """Write inputs and everything they caused, all or nothing; on disk when it returns.

        Parameters
        ----------
        entries : sequence of Entry
            The next inputs, from `next_seq` on without a gap.
        recommendations, commits, alerts, feed_events : sequence
            What goes with them. An alert's id is given here.

        Raises
        ------
        StoreError
            ``duplicate`` or ``invalid`` for rows that contradict the store, ``disk_full``,
            ``damaged``. The file is then as it was before the call; after the last two the store is
            closed, and opening it again finds every transaction that was committed.
        """
        self._check_order(entries)
        under = self._under() | {
            (entry.root, entry.item.number): (entry.item.config_id, entry.item.engine_version)
            for entry in entries
            if isinstance(entry.item, Epoch)
        }
        events = event_rows(entries, _lookup(under, self.path))
        contexts = self._counted(events.get("trades", []))
        with self._transaction():
            self._insert("inputs", [input_row(entry) for entry in entries])
            prints = print_frame(entries)
            if prints is not None:
                self._insert_frame("prints", prints)
            for name, rows in events.items():
                self._insert(name, rows)
            self._replace_contexts(contexts)
            self._insert("recommendations", [_RECOMMENDATION(row) for row in recommendations])
            self._insert("commits", [astuple(row) for row in commits])
            self._insert("outbox", _alert_rows(alerts, self._next_alert))
            self._insert("feed_events", _feed_rows(feed_events, self._next_event))
        self.next_seq += len(entries)
        self._next_alert += len(alerts)
        self._next_event += len(feed_events)
        self._known_under = under
        self._contexts |= {key: (trades, wins) for key, (trades, wins, _) in contexts.items()}

    def save_sessions(self, sessions: Sessions) -> str:
        """Keep a session table and return its hash; what is there already stays."""
        found = sessions_hash(sessions)
        if not self._rows("SELECT 1 FROM session_tables WHERE hash = ? LIMIT 1", [found]):
            with self._transaction():
                self._insert_frame("session_tables", session_rows(sessions))
        return found

    def add_feed_event(self, event: FeedEvent) -> None:
        """Write one event of the feed, on its own."""
        self.commit([], feed_events=[event])

    def mark_sent(self, alert_id: int, at: int) -> None:
        """Remember that an alert was delivered."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE outbox SET sent = make_timestamp_ns(?), attempts = attempts + 1, "
                "error = '' WHERE id = ?",
                [at, alert_id],
            )

    def mark_failed(self, alert_id: int, at: int, error: str) -> None:
        """Remember that an alert could not be delivered; it stays pending."""
        event = FeedEvent(at=at, kind="alert_failed", reason=error, detail={"alert": alert_id})
        with self._transaction() as connection:
            connection.execute(
                "UPDATE outbox SET attempts = attempts + 1, error = ? WHERE id = ?",
                [error, alert_id],
            )
            self._insert("feed_events", _feed_rows([event], self._next_event))
        self._next_event += 1

    def save_certificate(self, certificate: Certificate) -> None:
        """Keep a certificate."""
        with self._transaction():
            self._insert("certificates", [astuple(certificate)])

    def replace_derived(
        self,
        root: str,
        epoch: int,
        frames: Mapping[str, pl.DataFrame],
        recommendations: Sequence[Recommendation] | None = None,
    ) -> None:
        """Put other derived rows in the place of an epoch's, in one transaction.

        Parameters
        ----------
        root, epoch : str, int
            Which rows go.
        frames : mapping of str to DataFrame
            By table, with the columns of `derived`: ``seq`` and those of the result frame. A table
            that is not named becomes empty.
        recommendations : sequence of Recommendation, optional
            In the place of the epoch's; those stay when left out.
        """
        config_id, engine_version = _lookup(self._under(), self.path)(root, epoch)
        unknown = set(frames) - set(DERIVED)
        if unknown:
            raise self._invalid(f"no derived tables: {', '.join(sorted(unknown))}")
        with self._transaction() as connection:
            for name in (*DERIVED, "contexts"):
                connection.execute(
                    f'DELETE FROM "{name}" WHERE root = ? AND epoch = ?',  # noqa: S608 -- our names
                    [root, epoch],
                )
            for name, frame in frames.items():
                rows = frame.with_columns(
                    root=pl.lit(root),
                    epoch=pl.lit(epoch, dtype=pl.Int64),
                    config_id=pl.lit(config_id),
                    engine_version=pl.lit(engine_version),
                )
                self._insert_frame(name, rows.select(TABLES[name].names))
            counted = _count({}, _trade_facts(root, epoch, frames.get("trades")))
            self._insert("contexts", _context_rows(counted))
            if recommendations is not None:
                connection.execute(
                    "DELETE FROM recommendations WHERE root = ? AND epoch = ?", [root, epoch]
                )
                self._insert("recommendations", [_RECOMMENDATION(row) for row in recommendations])
        kept = {key: row for key, row in self._contexts.items() if key[:2] != (root, epoch)}
        self._contexts = kept | {key: row[:2] for key, row in counted.items()}

    def delete_strays(self) -> int:
        """Delete derived rows of epochs that the log does not begin; return how many there were."""
        deleted = 0
        with self._transaction() as connection:
            for name in (*DERIVED, "contexts", "recommendations"):
                query = f'DELETE FROM "{name}" WHERE {_NO_EPOCH}'  # noqa: S608 -- our names
                ((count,),) = connection.execute(query).fetchall()
                deleted += count
        known = self._under()
        self._contexts = {key: row for key, row in self._contexts.items() if key[:2] in known}
        return deleted

    def snapshot(self, path: Path | str | None = None) -> Path:
        """Write a consistent copy, whole or not at all, and return its path.

        Parameters
        ----------
        path : Path or str, optional
            Where to; beside the file when left out. A file that is there is replaced when it is a
            snapshot of this store; the place beside the file is for nothing else.

        Raises
        ------
        StoreError
            ``invalid`` for a place that holds something else, or a store in use.
        """
        target = snapshot_path(self.path) if path is None else Path(path)
        take_over(self.path, target, None if path is None else self.store_id)
        copy_into(self._open(), self.path, target, owner=not self.read_only)
        return target

    def set_aside_snapshot(self) -> Path | None:
        """Move away what lies in the place of this store's snapshot and is not one.

        Such is the snapshot of another store that lay here, or one of this store with inputs that
        it has not any more. Readers would take it for this store's.

        Returns
        -------
        Path or None
            Where it is now; None when there was nothing to move.
        """
        aside = set_aside(self.path, self.store_id, self.next_seq - 1)
        if aside is not None:
            _LOG.warning(
                "the snapshot beside %s was of another store, or of more than this one holds; "
                "readers shall not take it for this one's, so it is now %s",
                self.path,
                aside,
            )
        return aside

    # Reading.

    @property
    def store_id(self) -> str:
        """What tells this store, and its snapshots, from any other."""
        found = self._rows("SELECT value FROM meta WHERE key = 'store_id'")
        return str(found[0][0]) if found else ""

    def inputs(
        self,
        root: str | None = None,
        epoch: int | None = None,
        after: int | None = None,
        upto: int | None = None,
    ) -> pl.DataFrame:
        """Return rows of ``inputs`` in order: of a root, of an epoch, after a seq, up to one.

        Raises
        ------
        DataError
            A row lacks what its kind has; the message names it.
        """
        rows = self._select("inputs", "seq", root=root, epoch=epoch, after=after, upto=upto)
        with self._naming_file():
            check_inputs(rows)
        return rows

    def entries(
        self,
        root: str,
        epoch: int | None = None,
        after: int | None = None,
        upto: int | None = None,
    ) -> Iterator[tuple[int, Input]]:
        """Yield the seq and the input of everything a root was given, in order."""
        with self._naming_file():
            for part in self.inputs(root, epoch, after, upto).iter_slices(_CHUNK):
                yield from inputs_of(part, self.prints(part))

    def prints(self, inputs: pl.DataFrame) -> pl.DataFrame:
        """Return the trades of the market of rows of ``inputs``, in order."""
        of_prints = inputs.filter(kind="prints")["seq"]
        first, last = (of_prints[0], of_prints[-1]) if len(of_prints) else (0, -1)
        return self._frame(
            "SELECT * FROM prints WHERE seq BETWEEN ? AND ? ORDER BY seq, rowid", [first, last]
        )

    def derived(self, name: str, root: str, epoch: int | None = None) -> pl.DataFrame:
        """Return the rows of a derived frame in order: ``seq``, then the result frame's columns."""
        if name not in DERIVED:
            raise self._invalid(f"no derived table {name!r}; one of {', '.join(DERIVED)}")
        frame = self._select(name, "seq, rowid", root=root, epoch=epoch)
        return frame.drop("root", "epoch")

    def epochs(self, root: str) -> list[tuple[int, Epoch]]:
        """Return the epochs of a root, each with the seq it began at."""
        return [(seq, item) for of, seq, item in self._epochs() if of == root]

    def bars(self, root: str, first_seq: int, last_seq: int) -> pl.DataFrame:
        """Return the consumed bars of a root from one seq to another, in order."""
        return self._frame(
            "SELECT * FROM inputs WHERE kind = 'bar' AND consumed AND root = ? "
            "AND seq BETWEEN ? AND ? ORDER BY seq",
            [root, first_seq, last_seq],
        )

    def first_bar(self, root: str) -> int | None:
        """Return the start of a root's first consumed bar, ns UTC; None without one."""
        found: int | None
        ((found,),) = self._rows(
            "SELECT epoch_ns(min(ts)) FROM inputs "
            "WHERE kind = 'bar' AND consumed AND NOT context AND root = ?",
            [root],
        )
        return found

    def last_bars(self, root: str, since_ns: int) -> pl.DataFrame:
        """Return the consumed bars of a root that start at or after an instant, in order."""
        return self._frame(
            "SELECT * FROM inputs WHERE kind = 'bar' AND consumed AND root = ? "
            "AND ts >= make_timestamp_ns(?) ORDER BY seq",
            [root, since_ns],
        )

    def sessions(self, found: str) -> Sessions:
        """Return the session table with a hash.

        Raises
        ------
        StoreError
            ``invalid``: there is none, or it is not what was stored under that hash.
        """
        rows = self._frame(
            "SELECT * FROM session_tables WHERE hash = ? ORDER BY open, rowid", [found]
        )
        if rows.is_empty():
            raise self._invalid(f"no session table {found} in the store")
        naive = rows.with_columns(pl.col("open", "close").dt.replace_time_zone(None))
        try:
            made = sessions_from(naive)
        except ClusterCoreError as error:
            raise self._invalid(f"session_tables: table {found} cannot be used: {error}") from error
        if sessions_hash(made) != found:
            raise self._invalid(
                f"session_tables: table {found} was changed; its content has the hash "
                f"{sessions_hash(made)}. Go back to a snapshot"
            )
        return made

    def contexts(self, root: str, epoch: int | None = None) -> pl.DataFrame:
        """Return the record of trades by context."""
        return self._select("contexts", "epoch, context", root=root, epoch=epoch)

    def recommendations(self, root: str | None = None) -> list[Recommendation]:
        """Return every recommendation, the oldest first."""
        frame = self._select("recommendations", "seq, rowid", root=root)
        plain = frame.with_columns(pl.col("timestamp", "valid_until", "flat_by").to_physical())
        return [Recommendation(**row) for row in plain.iter_rows(named=True)]

    def commits(self) -> pl.DataFrame:
        """Return the market's price at each recommendation's commit (1e-9 points)."""
        return self._select("commits", "rowid")

    def pending_alerts(self) -> list[Alert]:
        """Return the alerts that were not delivered yet, the oldest first."""
        frame = self._frame("SELECT * FROM outbox WHERE sent IS NULL ORDER BY id", [])
        plain = frame.drop("sent").with_columns(pl.col("created").to_physical())
        return [Alert(**row) for row in plain.iter_rows(named=True)]

    def feed_events(self, root: str | None = None) -> pl.DataFrame:
        """Return the journal of the feed."""
        return self._select("feed_events", "id", root=root)

    def certificates(self, root: str | None = None) -> list[Certificate]:
        """Return the certificates, the oldest first."""
        frame = self._select("certificates", "rowid", root=root)
        plain = frame.with_columns(pl.col("made_at").to_physical())
        return [Certificate(**row) for row in plain.iter_rows(named=True)]

    def strays(self) -> pl.DataFrame:
        """Return how many rows there are of epochs that the log does not begin.

        Returns
        -------
        polars.DataFrame
            root, epoch, table, rows.
        """
        return self._frame(f"{_STRAYS} ORDER BY root, epoch", [])

    def count(self, query: str) -> int:
        """Return the one number that a query of ours gives."""
        ((found,),) = self._rows(query)
        return int(found)

    def table(self, name: str) -> pl.DataFrame:
        """Return a whole table of the file."""
        if name not in TABLES:
            raise self._invalid(f"no table {name!r}; one of {', '.join(TABLES)}")
        return self._select(name, "rowid")

    # What the rest rests on.

    def _open(self) -> DuckDBPyConnection:
        if self._connection is None:
            raise StoreError("the store is closed; open it again", reason="closed", file=self.path)
        return self._connection

    def _write(self) -> DuckDBPyConnection:
        self._open()
        return self._writer

    def _invalid(self, problem: str) -> StoreError:
        return StoreError(problem, reason="invalid", file=self.path)

    def _check_order(self, entries: Sequence[Entry]) -> None:
        for place, entry in enumerate(entries):
            due = self.next_seq + place
            if entry.seq < due:
                raise StoreError(
                    f"input {entry.seq} is there already; the next is {due}",
                    reason="duplicate",
                    file=self.path,
                )
            if entry.seq > due:
                raise self._invalid(f"input {entry.seq} leaves a gap; the next is {due}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[DuckDBPyConnection]:
        connection = self._write()
        try:
            connection.begin()
            yield connection
            connection.commit()
        except duckdb.Error as error:
            self._undo(connection)
            raise classified(error, self.path) from error
        except BaseException:
            self._undo(connection)
            raise

    def _undo(self, connection: DuckDBPyConnection) -> None:
        """Roll back; where that is refused the file is given up, and opening it rolls back."""
        try:
            connection.rollback()
            connection.execute("SELECT 1").fetchall()
        except duckdb.Error:
            self._inserts.clear()
            for each in (connection, self._connection):
                with contextlib.suppress(duckdb.Error):
                    if each is not None:
                        each.close()
            self._connection = None

    def _insert(self, name: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if len(rows) > _FEW:
            self._insert_frame(name, frame_of(name, rows))
            return
        values = [value for row in rows for value in row]
        self._write().execute(self._insert_of(name, len(rows)), values)

    def _insert_of(self, name: str, count: int) -> duckdb.Statement:
        """Return the statement that inserts so many rows, parsed once."""
        statement = self._inserts.get((name, count))
        if statement is None:
            places = ", ".join([_PLACES[name]] * count)
            query = f'INSERT INTO "{name}" VALUES {places}'  # noqa: S608 -- our names
            (statement,) = self._write().extract_statements(query)
            self._inserts[name, count] = statement
        return statement

    def _insert_frame(self, name: str, frame: pl.DataFrame) -> None:
        naive = frame.with_columns(
            pl.col(column).dt.replace_time_zone(None)
            for column, dtype in frame.schema.items()
            if isinstance(dtype, pl.Datetime)
        )
        connection = self._write()
        connection.register("given", ArrowStream(naive))
        try:
            columns = quoted(naive.columns)
            connection.execute(
                f'INSERT INTO "{name}" ({columns}) '  # noqa: S608 -- our names
                f"SELECT {columns} FROM given"
            )
        finally:
            connection.unregister("given")

    def _counted(self, trades: Sequence[Row]) -> _Contexts:
        if not trades:
            return {}
        columns = TABLES["trades"].names
        places = [columns.index(name) for name in ("root", "epoch", "context", *_FACTS)]
        facts = [tuple(row[place] for place in places) for row in trades]
        return _count(self._contexts, facts)

    def _replace_contexts(self, counted: _Contexts) -> None:
        for key in counted:
            self._write().execute(
                "DELETE FROM contexts WHERE root = ? AND epoch = ? "
                "AND context IS NOT DISTINCT FROM ?",
                list(key),
            )
        self._insert("contexts", _context_rows(counted))

    def _under(self) -> dict[tuple[str, int], tuple[str, str]]:
        """Return configuration and engine version of every epoch, by root and number.

        Read when it is needed: a log that cannot be read can still be looked at.
        """
        if self._known_under is None:
            self._known_under = {
                (root, item.number): (item.config_id, item.engine_version)
                for root, _, item in self._epochs()
            }
        return self._known_under

    def _next(self, table: str, column: str) -> int:
        ((newest,),) = self._rows(f"SELECT max({column}) FROM {table}")  # noqa: S608 -- our names
        return (newest or 0) + 1

    def _epochs(self) -> list[tuple[str, int, Epoch]]:
        frame = self._frame("SELECT * FROM inputs WHERE kind = 'epoch' ORDER BY seq", [])
        with self._naming_file():
            return [
                (root, seq, item)
                for root, (seq, item) in zip(
                    frame["root"].to_list(), inputs_of(frame, _NO_PRINTS), strict=True
                )
                if isinstance(item, Epoch)
            ]

    @contextlib.contextmanager
    def _naming_file(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise error.in_file(str(self.path)) from error

    def _select(
        self,
        name: str,
        order: str,
        *,
        root: str | None = None,
        epoch: int | None = None,
        after: int | None = None,
        upto: int | None = None,
    ) -> pl.DataFrame:
        given = {"root = ?": root, "epoch = ?": epoch, "seq > ?": after, "seq <= ?": upto}
        wanted = {text: value for text, value in given.items() if value is not None}
        where = f"WHERE {' AND '.join(wanted)} " if wanted else ""
        query = f'SELECT * FROM "{name}" {where}ORDER BY {order}'  # noqa: S608 -- our names
        return self._frame(query, list(wanted.values()))

    def _frame(self, query: str, values: Sequence[object]) -> pl.DataFrame:
        with translated(self.path):
            frame = pl.DataFrame(ArrowStream(self._open().sql(query, params=list(values))))
        return frame.with_columns(
            pl.col(column).dt.replace_time_zone("UTC")
            for column, dtype in frame.schema.items()
            if isinstance(dtype, pl.Datetime)
        )

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._open().execute(query, list(values)).fetchall()


# Epochs have none.
_NO_PRINTS: Final = frame_of("prints", [])
_FACTS: Final = ("net", "multiplier", "exit_reason")
# Trades, wins and the newest multiplier by root, epoch and context.
_Contexts = dict[tuple[str, int, int | None], tuple[int, int, float]]

_NO_EPOCH: Final = "(root, epoch) NOT IN (SELECT (root, epoch) FROM inputs WHERE kind = 'epoch')"
# Contracts are chosen, and bars kept aside, whether an epoch has begun or not.
_CONSUMED: Final = "kind <> 'contract' AND consumed IS DISTINCT FROM false"
_STRAYS: Final = " UNION ALL ".join(
    [
        f'SELECT root, epoch, \'{name}\' AS "table", count(*) AS rows FROM "{name}" '  # noqa: S608
        f"WHERE {_NO_EPOCH}{f' AND {_CONSUMED}' if name == 'inputs' else ''} GROUP BY root, epoch"
        for name in ("inputs", *DERIVED, "contexts", "recommendations", "certificates")
    ]
)

_PLACES: Final = {
    table.name: "("
    + ", ".join("make_timestamp_ns(?)" if row.type == TIME else "?" for row in table.columns)
    + ")"
    for table in TABLES.values()
}


def _migrate(connection: DuckDBPyConnection, path: Path) -> None:
    schema.migrate(connection, path, version("clustercore"))


def _prepare(connection: DuckDBPyConnection, path: Path, *, read_only: bool) -> None:
    if not read_only:
        _migrate(connection, path)
        # Who writes to a snapshot makes a store of its own of it.
        if connection.execute("SELECT 1 FROM meta WHERE key = 'snapshot'").fetchall():
            connection.execute("DELETE FROM meta WHERE key = 'snapshot'")
        return
    found = schema.version_of(connection, path)
    schema.check_version(found, path)
    if found < len(schema.MIGRATIONS):
        raise StoreError(
            "written by an earlier clustercore; `clustercore db rebuild` brings it up to date",
            reason="invalid",
            file=path,
        )


def _lookup(
    under: Mapping[tuple[str, int], tuple[str, str]], path: Path
) -> Callable[[str, int], tuple[str, str]]:
    def find(root: str, epoch: int) -> tuple[str, str]:
        found = under.get((root, epoch))
        if found is None:
            raise StoreError(
                f"epoch {epoch} of {root} has rows before its own entry; commit that first",
                reason="invalid",
                file=path,
            )
        return found

    return find


def _trade_facts(root: str, epoch: int, trades: pl.DataFrame | None) -> list[tuple[Any, ...]]:
    if trades is None:
        return []
    return [(root, epoch, *row) for row in trades.select("context", *_FACTS).iter_rows()]


def _count(
    before: Mapping[tuple[str, int, int | None], tuple[int, int]],
    trades: Sequence[tuple[Any, ...]],
) -> _Contexts:
    """Return the records that trades change, counted on from what was there."""
    counted: _Contexts = {}
    for root, epoch, context, net, multiplier, exit_reason in trades:
        if exit_reason == "open":
            continue
        key = (root, epoch, context)
        count, wins = counted[key][:2] if key in counted else before.get(key, (0, 0))
        counted[key] = (count + 1, wins + (net > 0), multiplier)
    return counted


def contexts_of(root: str, epoch: int, trades: pl.DataFrame) -> pl.DataFrame:
    """Return the record by context that the trades of an epoch make, as the store returns it."""
    rows = _context_rows(_count({}, _trade_facts(root, epoch, trades)))
    return frame_of("contexts", rows).sort("context", nulls_last=True)


def _context_rows(counted: _Contexts) -> list[Row]:
    return [
        (
            *key,
            trades,
            wins,
            trades - wins,
            *_core.posterior(wins, trades - wins),
            multiplier,
        )
        for key, (trades, wins, multiplier) in counted.items()
    ]


def _alert_rows(alerts: Sequence[Alert], first: int) -> list[Row]:
    return [
        (
            first + place,
            alert.recommendation_id,
            alert.channel,
            alert.text,
            alert.created,
            None,
            alert.attempts,
            alert.error,
        )
        for place, alert in enumerate(alerts)
    ]


def _feed_rows(events: Sequence[FeedEvent], first: int) -> list[Row]:
    return [
        (
            first + place,
            event.at,
            event.root,
            event.kind,
            event.reason,
            event.start,
            event.end,
            text_of(event.detail),
        )
        for place, event in enumerate(events)
    ]
