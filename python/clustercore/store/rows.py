"""Inputs and events as rows and back, without loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final, cast

import numpy as np
import polars as pl

from clustercore.engine import record_fields
from clustercore.errors import DataError
from clustercore.events import Event
from clustercore.inputs import (
    Bar,
    Carry,
    Closed,
    ContractChange,
    Entry,
    Epoch,
    Input,
    Operator,
    Prints,
    WarmUp,
)
from clustercore.store.schema import DERIVED, TABLES, TIME, text_of

__all__ = [
    "Row",
    "check_inputs",
    "event_rows",
    "frame_of",
    "input_row",
    "inputs_of",
    "is_final",
    "polars_type",
    "print_frame",
]

Row = tuple[Any, ...]

_NOTHING: Final = (None,) * 5
_NO_BAR: Final = (None,) * 5  # origin, arrival, actionable, context, consumed

FRAME_OF: Final = {
    "Cluster": "clusters",
    "Signal": "signals",
    "Order": "orders",
    "Trade": "trades",
    "Equity": "equity",
    "Risk": "risk",
}
_ON_THE_WAY: Final = ("armed", "working")
_READ: Final = {
    name: attrgetter(
        *("net_return" if row["name"] == "return" else row["name"] for row in record_fields()[name])
    )
    for name in DERIVED
}


def polars_type(sql_type: str) -> pl.DataType:
    """Return the frame's type of a column; times are without a zone in the file, and UTC."""
    simple: dict[str, pl.DataType] = {
        TIME: pl.Datetime("ns"),
        "BIGINT": pl.Int64(),
        "INTEGER": pl.Int32(),
        "VARCHAR": pl.String(),
        "DOUBLE": pl.Float64(),
        "BOOLEAN": pl.Boolean(),
        "DATE": pl.Date(),
    }
    return simple.get(sql_type) or pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64}))


def frame_of(table: str, rows: Sequence[Row]) -> pl.DataFrame:
    """Return rows of a table, times as ns, as a frame of the table's types."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(TABLES[table].columns)
    series = []
    for column, values in zip(TABLES[table].columns, columns, strict=True):
        dtype = polars_type(column.type)
        given = pl.Int64() if column.type == TIME else dtype
        series.append(pl.Series(column.name, values, dtype=given).cast(dtype))
    return pl.DataFrame(series)


def input_row(entry: Entry) -> Row:
    """Return an entry as a row of ``inputs``."""
    item = entry.item
    return (entry.seq, entry.root, entry.epoch, *_WRITE[type(item)](item))


def print_frame(entries: Iterable[Entry]) -> pl.DataFrame | None:
    """Return the rows of ``prints`` that entries make, None without any."""
    parts = [
        pl.DataFrame({"seq": entry.seq, "ts": item.ts, "price": item.price, "size": item.size})
        for entry in entries
        if isinstance(item := entry.item, Prints)
    ]
    if not parts:
        return None
    return pl.concat(parts).with_columns(
        pl.col("seq").cast(pl.Int64), pl.col("ts").cast(pl.Datetime("ns"))
    )


def _bar(item: Bar) -> Row:
    return (
        "bar",
        item.ts_event,
        item.symbol,
        item.open,
        item.high,
        item.low,
        item.close,
        item.volume,
        item.origin,
        item.arrival,
        item.actionable,
        item.context,
        item.consumed,
        item.reason,
        None,
    )


def _prints(item: Prints) -> Row:
    first, volume = int(item.ts[0]), int(item.size.sum())
    return ("prints", first, item.symbol, None, None, None, None, volume, *_NO_BAR, None, None)


def _closed(item: Closed) -> Row:
    return ("closed", item.ts, None, *_NOTHING, *_NO_BAR, item.by, None)


def _contract(item: ContractChange) -> Row:
    detail = text_of({"previous": item.previous, "trade_date": item.trade_date})
    return ("contract", None, item.symbol, *_NOTHING, *_NO_BAR, item.reason, detail)


def _operator(item: Operator) -> Row:
    return ("operator", None, None, *_NOTHING, *_NO_BAR, item.event, None)


def _epoch(item: Epoch) -> Row:
    detail = text_of({name: getattr(item, name) for name in Epoch.__dataclass_fields__})
    return ("epoch", None, None, *_NOTHING, *_NO_BAR, None, detail)


def _warm_up(item: WarmUp) -> Row:
    detail = text_of({"first_seq": item.first_seq, "last_seq": item.last_seq})
    return ("warm_up", None, None, *_NOTHING, *_NO_BAR, None, detail)


def _carry(item: Carry) -> Row:
    return ("carry", None, None, *_NOTHING, *_NO_BAR, None, item.state)


_WRITE: Final[dict[type, Callable[[Any], Row]]] = {
    Bar: _bar,
    Prints: _prints,
    Closed: _closed,
    ContractChange: _contract,
    Operator: _operator,
    Epoch: _epoch,
    WarmUp: _warm_up,
    Carry: _carry,
}


class _Bar:
    """A bar that is being read, and becomes a ``Bar`` of the same layout when its fields stand.

    A frozen class sets each field by a call, which takes four times as long.
    """

    __slots__ = Bar.__slots__

    def __init__(
        self,
        symbol: str,
        ts_event: int,
        open: int,  # noqa: A002 -- the names of a bar's prices
        high: int,
        low: int,
        close: int,
        volume: int,
        origin: str,
        arrival: int,
        actionable: bool,  # noqa: FBT001
        context: bool,  # noqa: FBT001
        consumed: bool,  # noqa: FBT001
        reason: str,
    ) -> None:
        self.symbol = symbol
        self.ts_event = ts_event
        self.open = open
        self.high = high
        self.low = low
        self.close = close
        self.volume = volume
        self.origin = origin
        self.arrival = arrival
        self.actionable = actionable
        self.context = context
        self.consumed = consumed
        self.reason = reason
        self.__class__ = Bar  # type: ignore[assignment]


# What the JSON of a row holds.
_Fields = dict[str, type | tuple[type, ...]]
_CONTRACT: Final[_Fields] = {"previous": (str, type(None)), "trade_date": int}
_WARM_UP: Final[_Fields] = {"first_seq": int, "last_seq": int}
_EPOCH: Final[_Fields] = {
    "number": int,
    "config_id": str,
    "engine_version": str,
    "sessions_hash": str,
    "interval_ns": int,
    "settings": dict,
    "instrument": dict,
}


def _document(text: str, fields: _Fields) -> dict[str, Any]:
    """Return the JSON of a row; ``ValueError`` when it is not what the kind holds."""
    document = json.loads(text)
    if not isinstance(document, dict) or set(document) != set(fields):
        raise ValueError(f"not an object with {', '.join(fields)}")
    for name, kind in fields.items():
        if not isinstance(document[name], kind):
            raise ValueError(f"{name} is {document[name]!r}")  # noqa: TRY004 -- one error for all
    return document


# What each kind is made of, and how. Made column by column: a year has 700,000 of them.
_ITEM: Final[dict[str, tuple[tuple[str, ...], Callable[..., Input]]]] = {
    "bar": (
        (
            "symbol",
            "ts",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "origin",
            "arrival",
            "actionable",
            "context",
            "consumed",
            "reason",
        ),
        cast("Callable[..., Bar]", _Bar),
    ),
    "closed": (("ts", "reason"), Closed),
    "contract": (
        ("symbol", "reason", "detail"),
        lambda symbol, reason, detail: ContractChange(
            symbol=symbol, reason=reason, **_document(detail, _CONTRACT)
        ),
    ),
    "operator": (("reason",), Operator),
    "epoch": (("detail",), lambda detail: Epoch(**_document(detail, _EPOCH))),
    "warm_up": (("detail",), lambda detail: WarmUp(**_document(detail, _WARM_UP))),
    "carry": (("detail",), Carry),
}


_KINDS: Final = pl.Enum(["prints", *_ITEM])
# What a row of each kind must have; every row that was written has.
_NEEDED: Final = {"prints": ("ts", "symbol", "volume")} | {
    kind: names for kind, (names, _) in _ITEM.items()
}
# Runs of one value are read once where they are so much fewer than rows.
_FEW_RUNS: Final = 8


def check_inputs(frame: pl.DataFrame) -> None:
    """Refuse rows of ``inputs`` that no version wrote so.

    Raises
    ------
    DataError
        A kind is unknown, or a value is missing that rows of its kind have.
    """
    unknown = set(frame["kind"].unique()) - set(_KINDS.categories)
    if unknown:
        raise DataError(
            "an input of a kind that this version does not know; upgrade clustercore",
            column="kind",
            found=repr(unknown.pop()),
            expected=", ".join(_KINDS.categories),
        )
    empty = {name for name in frame.columns if frame[name].null_count()}
    for kind, names in _NEEDED.items():
        wanted = [pl.col(name).is_null() for name in names if name in empty]
        if not wanted:
            continue
        missing = frame.filter((pl.col("kind") == kind) & pl.any_horizontal(wanted))
        if missing.height:
            row = missing.row(0, named=True)
            raise DataError(
                f"input {row['seq']} ({kind}) lacks a value",
                column=next(name for name in names if row[name] is None),
                found="nothing",
                expected="what every row of its kind has; go back to a snapshot",
            )


def inputs_of(frame: pl.DataFrame, prints: pl.DataFrame) -> Iterator[tuple[int, Input]]:
    """Yield the seq and the input of each row of ``inputs``, in the frame's order.

    ``prints`` are the rows of that table which belong to them.

    Raises
    ------
    DataError
        A row cannot be read; the message has its seq and kind.
    """
    check_inputs(frame)
    plain = frame.with_columns(
        pl.col("ts", "arrival").to_physical(), pl.col("kind").cast(_KINDS).to_physical()
    )
    made: list[Iterator[Input]] = [_prints_of(plain.filter(plain["kind"] == 0), prints)]
    made += [
        map(make, *map(_values, plain.select(names).filter(plain["kind"] == place)))
        for place, (names, make) in enumerate(_ITEM.values(), 1)
    ]
    # Each kind keeps its order within a group, so that the next of its kind is the row's own.
    for seq, kind in zip(plain["seq"].to_list(), plain["kind"].to_list(), strict=True):
        try:
            item = next(made[kind])
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"input {seq} ({_KINDS.categories[kind]}) cannot be read: {error}",
                column="detail",
                expected="what was written there; go back to a snapshot",
            ) from error
        yield seq, item


def _prints_of(rows: pl.DataFrame, prints: pl.DataFrame) -> Iterator[Prints]:
    if rows.is_empty():
        return
    seqs = prints["seq"].to_numpy()
    columns = [prints[name].to_physical().to_numpy() for name in ("ts", "price", "size")]
    for seq, symbol in rows.select("seq", "symbol").iter_rows():
        first, end = np.searchsorted(seqs, [seq, seq + 1])
        yield Prints(symbol, *(column[first:end] for column in columns))


def _values(column: pl.Series) -> Iterable[Any]:
    """Return a column's values; origins, symbols and flags hardly change from row to row."""
    runs = column.rle()
    if len(column) < _FEW_RUNS * len(runs):
        return column.to_list()
    lengths, values = (runs.struct.field(name).to_list() for name in ("len", "value"))
    return chain.from_iterable(map(repeat, values, lengths))


def is_final(event: Event) -> bool:
    """Return whether an event is a row; a state on the way (armed, working) is none."""
    return getattr(event, "reason", None) not in _ON_THE_WAY or type(event).__name__ == "Cluster"


def event_rows(
    entries: Iterable[Entry], under: Callable[[str, int], tuple[str, str]]
) -> dict[str, list[Row]]:
    """Return the rows that the events of entries make, by table.

    ``under`` gives the configuration and the engine's version of a root's epoch.
    """
    rows: dict[str, list[Row]] = {}
    for entry in entries:
        if not entry.events:
            continue
        cause, version = (entry.seq, entry.root, entry.epoch), under(entry.root, entry.epoch)
        for event in entry.events:
            if is_final(event):
                name = FRAME_OF[type(event).__name__]
                rows.setdefault(name, []).append((*cause, *_READ[name](event), *version))
    return rows
