"""The fold: an engine's state is what its inputs, taken in order, make of it.

The live process, a restart, the parity check and a rebuilt table all come through here, so that
none of them can do with an input what another does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import polars as pl

from clustercore.config import Config
from clustercore.engine import ENGINE_VERSION, Engine
from clustercore.errors import ConfigError, DataError
from clustercore.inputs import (
    Bar,
    Carry,
    Closed,
    ContractChange,
    Epoch,
    Input,
    Operator,
    Prints,
    WarmUp,
)
from clustercore.instruments import Instrument

if TYPE_CHECKING:
    from clustercore.events import Event
    from clustercore.sessions import Sessions

__all__ = ["Fold", "Log", "epoch_of", "settings_of"]

_NONE: tuple[Event, ...] = ()
# Kinds of rows that the engine takes many at a time, by its numbers for them.
_PLAIN: Final = {"bar": 0, "prints": 1, "closed": 2}
_PRICES: Final = ("open", "high", "low", "close", "volume")


class Log(Protocol):
    """What a fold looks up: session tables, rows as inputs, and the bars for a warm-up."""

    def sessions(self, sessions_hash: str) -> Sessions:
        """Return a session table by its hash."""

    def bars(self, root: str, first_seq: int, last_seq: int) -> pl.DataFrame:
        """Return the rows of the bars that were consumed from one seq to another, in order."""

    def inputs(self, rows: pl.DataFrame) -> Iterator[tuple[int, Input]]:
        """Yield the seq and the input of rows of the log."""

    def prints(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the trades of the market of rows of the log, in order."""


def epoch_of(
    number: int,
    config: Config,
    instrument: Instrument,
    sessions_hash: str,
    interval_ns: int,
) -> Epoch:
    """Return the entry that begins an epoch of the engine at hand."""
    return Epoch(
        number=number,
        config_id=config.id_for(instrument),
        engine_version=ENGINE_VERSION,
        sessions_hash=sessions_hash,
        interval_ns=interval_ns,
        settings=config.to_dict(),
        instrument={
            "root": instrument.root,
            "tick_size": instrument.tick_size,
            "point_value": instrument.point_value,
            "commission": instrument.commission,
            "margin": instrument.margin,
            "calendar": instrument.calendar,
            "check_tick": instrument.check_tick,
            "allow_negative": instrument.allow_negative,
        },
    )


def settings_of(epoch: Epoch) -> tuple[Config, Instrument]:
    """Return configuration and instrument of an epoch.

    Raises
    ------
    DataError
        The entry does not describe them.
    """
    try:
        return Config(epoch.settings), Instrument(**epoch.instrument)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"epoch {epoch.number} has settings that cannot be used: {error}",
            column="detail",
            expected="what was written there; go back to a snapshot",
        ) from error


class Fold:
    """One engine, fed by the entries of its log.

    Parameters
    ----------
    root : str
        Name of the engine, such as ``ES``.
    log : Log
        Where session tables and bars for a warm-up are looked up.
    """

    def __init__(self, root: str, log: Log) -> None:
        self.root = root
        self.epoch: Epoch | None = None
        self.log = log
        self._engine: Engine | None = None
        self._warming_up = False

    @property
    def engine(self) -> Engine:
        """The engine of the epoch under way.

        Raises
        ------
        DataError
            Before the first epoch began.
        """
        if self._engine is None:
            raise DataError(
                "the log does not begin with an epoch",
                column="kind",
                found=f"another entry of {self.root}",
                expected="epoch",
            )
        return self._engine

    def apply(self, item: Input) -> tuple[Event, ...]:
        """Give the engine one entry and return what it caused.

        Raises
        ------
        DataError
            When the engine refuses it; the engine is then as it was.
        """
        match item:
            case Bar():
                return self._step(item) if item.consumed else _NONE
            case Closed(ts):
                events = tuple(self.engine.advance(ts))
                # Until the account is taken over, the engine has one that is nobody's.
                return _NONE if self._warming_up else events
            case Prints(_, ts, price, size):
                self.engine.trades(ts, price, size)
                return _NONE
            case Operator(event):
                return tuple(self.engine.operator(event)) if event == "reset_halt" else _NONE
            case Epoch():
                self._begin(item)
                return _NONE
            case WarmUp(first_seq, last_seq):
                self._warming_up = True
                bars = self.log.bars(self.root, first_seq, last_seq)
                self._replay(bars.with_columns(actionable=False))
                return _NONE
            case Carry(state):
                self.engine.take_over(state)
                self._warming_up = False
                return _NONE
            case ContractChange():
                return _NONE

    def _step(self, bar: Bar) -> tuple[Event, ...]:
        # The engine takes no flag with a context bar: it decides nothing.
        return tuple(
            self.engine.step(
                bar.ts_event,
                bar.open,
                bar.high,
                bar.low,
                bar.close,
                bar.volume,
                bar.actionable,
                bar.context,
                bar.symbol,
            )
        )

    def apply_rows(self, rows: pl.DataFrame) -> Iterator[tuple[int, Input, tuple[Event, ...]]]:
        """Give the engine rows of the log in order: the same as ``apply`` for each of them.

        Parameters
        ----------
        rows : polars.DataFrame
            Rows of ``inputs`` of this engine.

        Yields
        ------
        tuple of int, Input, tuple of Event
            Seq, input and events of each row that caused something, and of each that is neither
            bar, trade nor closing.

        Raises
        ------
        DataError
            When the engine refuses a row.
        """
        taken = rows.filter(pl.col("consumed").fill_null(value=True))
        plain = taken["kind"].is_in(list(_PLAIN))
        for first, last in _stretches(plain):
            part = taken.slice(first, last - first)
            if plain[first] and not self._warming_up:
                yield from self._caused(part)
            else:
                for seq, item in self.log.inputs(part):
                    try:
                        events = self.apply(item)
                    except DataError as error:
                        raise _at(error, f"input {seq}") from error
                    if events or not isinstance(item, Bar | Prints | Closed):
                        yield seq, item, events

    def _caused(self, rows: pl.DataFrame) -> Iterator[tuple[int, Input, tuple[Event, ...]]]:
        # The engine takes trades one by one, where the log has them together.
        if rows["kind"].eq("prints").any():
            rows = _with_trades(rows, self.log.prints(rows))
        found = self._replay(rows)
        causes = rows[[row for row, _ in found]]
        for (seq, item), (_, events) in zip(self.log.inputs(causes), found, strict=True):
            yield seq, item, events

    def _replay(self, rows: pl.DataFrame) -> list[tuple[int, tuple[Event, ...]]]:
        """Give the engine bars, trades and closings; return the rows that caused something."""
        named = rows["symbol"].forward_fill().backward_fill().fill_null(self.root)
        symbols = [(first, named[first]) for first, _ in _stretches(named)]
        flags = rows.select(pl.col("context", "actionable").fill_null(value=False))
        try:
            return self.engine.replay(
                rows["kind"].replace_strict(_PLAIN, return_dtype=pl.UInt8).to_numpy(),
                {"ts": _whole(rows["ts"].to_physical())}
                | {name: _whole(rows[name]) for name in _PRICES},
                symbols,
                flags["context"].to_numpy(),
                flags["actionable"].to_numpy(),
            )
        except DataError as error:
            if error.row is None:
                raise
            seq, kind = rows["seq"][error.row], rows["kind"][error.row]
            raise _at(error, f"input {seq} ({kind})") from error

    def _begin(self, epoch: Epoch) -> None:
        config, instrument = settings_of(epoch)
        engine = Engine(
            config, instrument, self.log.sessions(epoch.sessions_hash), epoch.interval_ns
        )
        if engine.config_id != epoch.config_id:
            raise ConfigError(
                "the stored configuration has another id than it was stored under",
                field="config_id",
                found=engine.config_id,
                expected=epoch.config_id,
            )
        self._engine, self.epoch = engine, epoch
        self._warming_up = False


def _with_trades(rows: pl.DataFrame, prints: pl.DataFrame) -> pl.DataFrame:
    """Return rows with one for each trade in the place of those that hold many."""
    trades = prints.select(
        "seq", "ts", pl.col("price").alias("close"), pl.col("size").alias("volume")
    ).join(rows.select("seq", "kind", "symbol"), on="seq", maintain_order="left")
    others = rows.filter(pl.col("kind") != "prints")
    return pl.concat([others, trades], how="diagonal").sort("seq", maintain_order=True)


def _whole(column: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.ascontiguousarray(column.fill_null(0).to_numpy())


def _stretches(column: pl.Series) -> Iterator[tuple[int, int]]:
    """Yield first row and end of each run of one value."""
    end = 0
    for length in column.rle().struct.field("len").to_list():
        yield end, end + length
        end += length


def _at(error: DataError, place: str) -> DataError:
    """Return a refusal with the place in the log in place of the row."""
    if error.problem.startswith("input "):
        return error
    return DataError(
        f"{place}: {error.problem}",
        file=error.file,
        column=error.column,
        found=error.found,
        expected=error.expected,
    )
