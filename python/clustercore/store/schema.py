"""Every table, column and view of the file, declared once; its version and how it got there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clustercore.engine import record_fields
from clustercore.store.errors import StoreError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "DERIVED",
    "MIGRATIONS",
    "TABLES",
    "VIEWS",
    "Column",
    "Table",
    "View",
    "migrate",
    "quoted",
    "version_of",
]

TIME: Final = "TIMESTAMP_NS"
_BIGINT: Final = "BIGINT"
_TEXT: Final = "VARCHAR"
_DOUBLE: Final = "DOUBLE"
_BOOL: Final = "BOOLEAN"
_SPANS: Final = 'STRUCT("start" BIGINT, "end" BIGINT)[]'

# Frames of the engine. Their rows are a fold of the inputs and can be made again at will.
DERIVED: Final = ("clusters", "signals", "orders", "trades", "equity", "risk")

_TYPES: Final = {
    "time": TIME,
    "price": _DOUBLE,
    "int": _BIGINT,
    "float": _DOUBLE,
    "bool": _BOOL,
    "text": _TEXT,
    "symbol": _TEXT,
    "id": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its SQL type and what it means."""

    name: str
    type: str
    sentence: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table, of one of three families: truth, derived, journal."""

    name: str
    family: str
    sentence: str
    columns: tuple[Column, ...]
    key: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class View:
    """A view under a name that users of older systems know."""

    name: str
    sentence: str
    select: str
    columns: tuple[tuple[str, str], ...]


_CAUSE: Final = (
    Column("seq", _BIGINT, "The input that caused the row."),
    Column("root", _TEXT, "Instrument, such as `ES`; one engine and one account each."),
    Column("epoch", _BIGINT, "Number of the epoch, by root."),
)
_UNDER: Final = (
    Column("config_id", _TEXT, "Hash of every setting that decides a result."),
    Column("engine_version", _TEXT, "Changes when any result changes."),
)

_META: Final = Table(
    "meta",
    "truth",
    "What the file says of itself.",
    (
        Column(
            "key",
            _TEXT,
            "`schema_version`; `clustercore`, the version that made the file; `store_id`, which a "
            "store shares with its snapshots alone; `snapshot`, in a snapshot.",
        ),
        Column("value", _TEXT, "The value."),
    ),
    key="key",
)

_INPUTS: Final = Table(
    "inputs",
    "truth",
    "Everything the engines consumed, in the order they did. The rest follows from it.",
    (
        Column("seq", _BIGINT, "Place in the log, over all instruments; without gaps."),
        Column("root", _TEXT, "Instrument, such as `ES`; one engine and one account each."),
        Column("epoch", _BIGINT, "Number of the epoch, by root."),
        Column(
            "kind",
            _TEXT,
            "`bar`, `prints` (trades of the market, before their bar), `closed`, `contract`, "
            "`operator`, `epoch`, `warm_up` or `carry`.",
        ),
        Column(
            "ts",
            TIME,
            "Start of the bar; time of the first of the prints; for `closed`, the instant up to "
            "which every interval is closed.",
            nullable=True,
        ),
        Column("symbol", _TEXT, "Contract.", nullable=True),
        Column("open", _BIGINT, "Open in 1e-9 points.", nullable=True),
        Column("high", _BIGINT, "High in 1e-9 points.", nullable=True),
        Column("low", _BIGINT, "Low in 1e-9 points.", nullable=True),
        Column("close", _BIGINT, "Close in 1e-9 points.", nullable=True),
        Column("volume", _BIGINT, "Contracts of the bar or of all the prints.", nullable=True),
        Column(
            "origin",
            _TEXT,
            "Of a bar: `backfill` (history at the start), `historical` (a hole filled), `replay` "
            "(of the gateway) or `live`.",
            nullable=True,
        ),
        Column("arrival", TIME, "When the bar was received.", nullable=True),
        Column("actionable", _BOOL, "Whether the bar came in time to act on.", nullable=True),
        Column(
            "context",
            _BOOL,
            "Whether the bar only informs the baseline of a new contract.",
            nullable=True,
        ),
        Column(
            "consumed",
            _BOOL,
            "Whether the engine took the bar; no replay uses others.",
            nullable=True,
        ),
        Column(
            "reason",
            _TEXT,
            "Why a bar was not consumed; how a closing is known; why the contract changed; what "
            "the operator said.",
            nullable=True,
        ),
        Column(
            "detail",
            _TEXT,
            "JSON. `epoch`: number, configuration, versions, settings and instrument; `contract`: "
            "previous contract and trade date; `warm_up`: first and last seq; `carry`: the "
            "account's state.",
            nullable=True,
        ),
    ),
    key="seq",
)

_PRINTS: Final = Table(
    "prints",
    "truth",
    "Trades of the market that came before a bar, where the profile is made of trades.",
    (
        Column("seq", _BIGINT, "The input of kind `prints` that they are."),
        Column("ts", TIME, "Time by which bars are formed."),
        Column("price", _BIGINT, "Price in 1e-9 points."),
        Column("size", _BIGINT, "Contracts."),
    ),
)

_SESSIONS: Final = Table(
    "session_tables",
    "truth",
    "Session tables that an epoch ran under, by the hash of their content.",
    (
        Column("hash", _TEXT, "Hash of the whole table."),
        Column("trade_date", "DATE", "The date the exchange books the session's trades to."),
        Column("open", TIME, "First instant of the session."),
        Column("close", TIME, "First instant after it."),
        Column("halts", _SPANS, "Scheduled halts, ns since 1970."),
        Column("hours", _SPANS, "Allowed hours, ns since 1970."),
        Column("new_york_offset_s", "INTEGER", "New York's UTC offset at the close, in seconds."),
        Column("note", _TEXT, "Why the session is not a regular one; else empty."),
    ),
)


def _derived_table(name: str, sentence: str) -> Table:
    columns = (
        Column(row["name"], _TYPES[row["kind"]], row["sentence"], row["nullable"])
        for row in record_fields()[name]
    )
    return Table(name, "derived", sentence, (*_CAUSE, *columns, *_UNDER))


_ENGINE: Final = (
    _derived_table("clusters", "Windows that traded unusually much, each with what became of it."),
    _derived_table("signals", "Signals that ended."),
    _derived_table("orders", "Orders that ended."),
    _derived_table("trades", "Trades that ended."),
    _derived_table("equity", "The account at the end of bars and sessions."),
    _derived_table("risk", "Halts, pauses and their ends."),
)

_CONTEXTS: Final = Table(
    "contexts",
    "derived",
    "Record of the trades of an epoch by context, with the posterior win probability they give.",
    (
        *_CAUSE[1:],
        Column("context", _BIGINT, "Context; null where all trades are alike.", nullable=True),
        Column("trades", _BIGINT, "Trades that ended."),
        Column("wins", _BIGINT, "Those with a net result above zero."),
        Column("losses", _BIGINT, "The others."),
        Column("posterior_mean", _DOUBLE, "Posterior mean of the win probability."),
        Column("posterior_low", _DOUBLE, "5 % quantile of the posterior."),
        Column("posterior_high", _DOUBLE, "95 % quantile of the posterior."),
        Column("multiplier", _DOUBLE, "Size multiplier of the newest of those trades."),
    ),
)

_RECOMMENDATIONS: Final = Table(
    "recommendations",
    "derived",
    "What the trader was told at each confirmed signal.",
    (
        Column("id", _TEXT, "The order's `trade_id`."),
        *_CAUSE,
        Column("timestamp", TIME, "When the signal was confirmed."),
        Column("contract", _TEXT, "Contract."),
        Column("action", _TEXT, "`BUY` or `SELL`."),
        Column("quantity", _BIGINT, "Contracts."),
        Column("order_type", _TEXT, "`MARKET` or `LIMIT`."),
        Column("price", _DOUBLE, "Price of the limit order, or the one the distances rest on."),
        Column("price_is", _TEXT, "`firm` or `indicative`."),
        Column("validity", _TEXT, "How long the order is good for."),
        Column("valid_until", TIME, "First deadline of the order."),
        Column(
            "max_hold_minutes",
            _BIGINT,
            "Longest holding time, minutes from the fill.",
            nullable=True,
        ),
        Column("flat_by", TIME, "When the position is closed at the latest.", nullable=True),
        Column("stop_loss", _DOUBLE, "Price of the stop.", nullable=True),
        Column("profit_target", _DOUBLE, "Price of the target.", nullable=True),
        Column("stop_distance", _DOUBLE, "Points from the fill to the stop.", nullable=True),
        Column("target_distance", _DOUBLE, "Points from the fill to the target.", nullable=True),
        Column("confidence", _DOUBLE, "Posterior mean of the win probability.", nullable=True),
        Column("confidence_low", _DOUBLE, "Its 5 % quantile.", nullable=True),
        Column("confidence_high", _DOUBLE, "Its 95 % quantile.", nullable=True),
        Column("signal_strength", _DOUBLE, "Strength of the signal, 0 to 1."),
        Column("bayesian_multiplier", _DOUBLE, "Size multiplier.", nullable=True),
        Column("modal_price", _DOUBLE, "Price whose retest confirmed."),
        Column("modal_position", _DOUBLE, "Where it lies between low and high, 0 to 1."),
        Column("volume_ratio", _DOUBLE, "Volume of the cluster against the usual volume."),
        Column(
            "risk_usd",
            _DOUBLE,
            "What the stop costs for the quantity, plus the costs of both sides.",
            nullable=True,
        ),
        Column(
            "reward_usd",
            _DOUBLE,
            "What the target earns for the quantity, less those costs.",
            nullable=True,
        ),
        Column("reasoning", _TEXT, "One line."),
        Column("simulated", _BOOL, "Whether the bars are a simulation's."),
    ),
    key="id",
)

_FEED_EVENTS: Final = Table(
    "feed_events",
    "journal",
    "What happened to the feed: connections, gaps, holes, conflicts.",
    (
        Column("id", _BIGINT, "Running number."),
        Column("at", TIME, "When it was seen."),
        Column("root", _TEXT, "Instrument; empty when it concerns all."),
        Column(
            "kind",
            _TEXT,
            "What happened: `state` (a change of state), `connecting`, `lost`, `resumed` (nothing "
            "is missing), `history` (filled from it), `hole`, `conflict`, `late`, `refused`, "
            "`trades_differ` (from their bar), `unmapped`, `mapping_changed`, `no_contract`, "
            "`error` (the gateway's), `risk` (a halt, a pause or its end), `alarm`, `parity`, "
            "`snapshot`, `alert_failed`.",
        ),
        Column("reason", _TEXT, "Why."),
        Column("start", TIME, "Start of the stretch concerned.", nullable=True),
        Column("end", TIME, "End of it.", nullable=True),
        Column("detail", _TEXT, "JSON."),
    ),
    key="id",
)

_OUTBOX: Final = Table(
    "outbox",
    "journal",
    "Alerts to send, at least once each.",
    (
        Column("id", _BIGINT, "Running number."),
        Column("recommendation_id", _TEXT, "What it is about."),
        Column("channel", _TEXT, "Where it goes: the scheme of the address and a mark of it."),
        Column("text", _TEXT, "The message; it holds the id of the recommendation."),
        Column("created", TIME, "When it was written."),
        Column("sent", TIME, "When it was delivered.", nullable=True),
        Column("attempts", _BIGINT, "How often it was tried."),
        Column("error", _TEXT, "Why the last try failed; empty otherwise."),
    ),
    key="id",
)

_COMMITS: Final = Table(
    "commits",
    "journal",
    "The market when a recommendation was committed, beside the model's fill.",
    (
        Column("recommendation_id", _TEXT, "The recommendation."),
        Column("committed_at", TIME, "When."),
        Column("price", _BIGINT, "Last price of the market then, in 1e-9 points."),
    ),
)

_CERTIFICATES: Final = Table(
    "certificates",
    "journal",
    "Stretches of the log that were replayed and compared.",
    (
        *_CAUSE[1:],
        Column("upto_seq", _BIGINT, "Last input compared."),
        Column("inputs_hash", _TEXT, "Hash of what was consumed."),
        Column(
            "outputs_hash",
            _TEXT,
            "Hash of every row that came out; of recommendations without `simulated`.",
        ),
        Column("made_at", TIME, "When."),
        Column("engine_version", _TEXT, "Engine that compared."),
        Column("clustercore_version", _TEXT, "Package that compared."),
        Column("state", _TEXT, "The account's state then, JSON; or empty."),
        Column("ok", _BOOL, "Whether replay and store agreed."),
    ),
)

TABLES: Final = {
    table.name: table
    for table in (
        _META,
        _INPUTS,
        _PRINTS,
        _SESSIONS,
        *_ENGINE,
        _CONTEXTS,
        _RECOMMENDATIONS,
        _FEED_EVENTS,
        _OUTBOX,
        _COMMITS,
        _CERTIFICATES,
    )
}

_PORTFOLIO: Final = View(
    "portfolio",
    "The account at each mark; the newest row of a root is its state.",
    """SELECT equity.seq AS id, equity.root, time AS timestamp, balance AS account_balance, equity,
    open_contracts AS open_positions_count,
    balance - lag(balance, 1, balance)
        OVER (PARTITION BY equity.root ORDER BY equity.seq, equity.rowid) AS realized_pnl,
    equity - balance AS unrealized_pnl, arrival AS created_at
FROM equity LEFT JOIN inputs ON inputs.seq = equity.seq""",
    (
        ("id", "The input that caused the mark."),
        ("root", "Instrument."),
        ("timestamp", "Time of the mark."),
        ("account_balance", "Money booked, USD."),
        ("equity", "Balance and open results, USD."),
        ("open_positions_count", "Contracts open."),
        ("realized_pnl", "Booked since the mark before, USD."),
        ("unrealized_pnl", "Open results, USD."),
        ("created_at", "When the bar that caused the mark was received; empty for a closing."),
    ),
)

_BAYESIAN: Final = View(
    "bayesian_data",
    "Record of the trades of an epoch by context. Older systems knew modal bins alone; their "
    "`performance_score` has no counterpart here.",
    """SELECT row_number() OVER (ORDER BY root, epoch, modal_bin) AS id, * FROM (
    SELECT contexts.root, contexts.epoch, contexts.context AS modal_bin,
        contexts.trades AS total_trades, wins AS winning_trades, sum("return") AS total_return,
        avg("return") AS avg_return, wins / contexts.trades AS win_rate,
        posterior_mean AS expected_win_rate, contexts.multiplier AS bayesian_multiplier,
        max(exit_time) AS last_updated
    FROM contexts JOIN trades ON trades.root = contexts.root AND trades.epoch = contexts.epoch
        AND trades.context IS NOT DISTINCT FROM contexts.context
    GROUP BY ALL
)""",
    (
        ("id", "Place in the view."),
        ("root", "Instrument."),
        ("epoch", "Number of the epoch."),
        ("modal_bin", "Context, as `learning.context` says."),
        ("total_trades", "Trades that ended."),
        ("winning_trades", "Those that won."),
        ("total_return", "Sum of their net returns, fractions of notional."),
        ("avg_return", "Mean of their net returns."),
        ("win_rate", "Winning trades over all."),
        ("expected_win_rate", "Posterior mean of the win probability."),
        ("bayesian_multiplier", "Size multiplier of the newest trade."),
        ("last_updated", "Newest exit."),
    ),
)

_OHLC: Final = View(
    "historical_ohlc",
    "The bars that the engines consumed, in points.",
    """SELECT seq AS id, root, ts AS timestamp, symbol, open / 1e9 AS open_price,
    high / 1e9 AS high_price, low / 1e9 AS low_price, close / 1e9 AS close_price, volume,
    arrival AS created_at
FROM inputs WHERE kind = 'bar' AND consumed""",
    (
        ("id", "Place in the log."),
        ("root", "Instrument."),
        ("timestamp", "Start of the bar."),
        ("symbol", "Contract."),
        ("open_price", "Open, points."),
        ("high_price", "High, points."),
        ("low_price", "Low, points."),
        ("close_price", "Close, points."),
        ("volume", "Contracts."),
        ("created_at", "When it was received."),
    ),
)

_PERFORMANCE: Final = View(
    "context_performance",
    "Trades that ended, with the context they were sized by.",
    """SELECT trades.seq AS id, trades.root,
    json_extract_string(inputs.detail, '$.settings.learning.context') AS context_type,
    trades.context AS context_value, exit_time AS trade_timestamp, entry_price, exit_price,
    "return" * 100 AS return_pct, net > 0 AS win, volume_ratio, strength AS signal_strength,
    cause.arrival AS created_at
FROM trades LEFT JOIN inputs ON inputs.kind = 'epoch' AND inputs.root = trades.root
    AND inputs.epoch = trades.epoch
LEFT JOIN inputs AS cause ON cause.seq = trades.seq""",
    (
        ("id", "The input that caused the row."),
        ("root", "Instrument."),
        ("context_type", "`learning.context` of the epoch."),
        ("context_value", "Context."),
        ("trade_timestamp", "When the trade ended."),
        ("entry_price", "Points."),
        ("exit_price", "Points."),
        ("return_pct", "Net return, percent of notional."),
        ("win", "Whether the net result is above zero."),
        ("volume_ratio", "Of the cluster."),
        ("signal_strength", "Of the signal."),
        ("created_at", "When the bar that ended the trade was received; empty for a closing."),
    ),
)

VIEWS: Final = (_PORTFOLIO, _BAYESIAN, _OHLC, _PERFORMANCE)


def quoted(names: Sequence[str]) -> str:
    """Return names as SQL says them; some of them are words of the language."""
    return ", ".join(f'"{name}"' for name in names)


def _create(connection: DuckDBPyConnection) -> None:
    """Make the tables of version 1."""
    for table in TABLES.values():
        columns = [
            f'"{column.name}" {column.type}{"" if column.nullable else " NOT NULL"}'
            for column in table.columns
        ]
        if table.key:
            columns.append(f'PRIMARY KEY ("{table.key}")')
        connection.execute(f'CREATE TABLE "{table.name}" ({", ".join(columns)})')
    for view in VIEWS:
        connection.execute(f'CREATE VIEW "{view.name}" AS {view.select}')
    connection.execute("INSERT INTO meta VALUES ('schema_version', '0')")


# One function a version, the oldest first; each takes the file from the version before to its own.
# A later one must spell out the columns it changes: the declarations above are always the newest.
MIGRATIONS: list[Callable[[DuckDBPyConnection], None]] = [_create]


def version_of(connection: DuckDBPyConnection, file: Path) -> int:
    """Return the schema's version, 0 for an empty file."""
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"
    ).fetchall()
    if not found:
        return 0
    rows: list[tuple[str]] = []
    if {"meta", "inputs"} <= {name for (name,) in found}:
        rows = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()
    if len(rows) != 1 or not rows[0][0].isdigit():
        raise StoreError(
            "a DuckDB file, but not one of clustercore; pass another path",
            reason="foreign",
            file=file,
        )
    return int(rows[0][0])


def check_version(version: int, file: Path) -> None:
    """Refuse a file of a later clustercore."""
    if version > len(MIGRATIONS):
        raise StoreError(
            f"written by a later clustercore (schema {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade clustercore",
            reason="newer",
            file=file,
        )


def migrate(connection: DuckDBPyConnection, file: Path, package_version: str) -> None:
    """Bring the file to the newest schema, in one transaction."""
    version = version_of(connection, file)
    check_version(version, file)
    if version == len(MIGRATIONS):
        return
    # A step that fails ends in the caller's closing the connection, which takes all of it back.
    connection.begin()
    for step in MIGRATIONS[version:]:
        step(connection)
    if version == 0:
        connection.execute(
            "INSERT INTO meta VALUES ('clustercore', ?), ('store_id', ?)",
            [package_version, secrets.token_hex(16)],
        )
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(len(MIGRATIONS))]
    )
    connection.commit()


def text_of(document: object) -> str:
    """Return JSON as it stands in the file: sorted, one line, no number that JSON lacks."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)
