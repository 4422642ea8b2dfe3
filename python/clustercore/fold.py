"""The fold: an engine's state is what its inputs, taken in order, make of it.

The live process, a restart, the parity check and a rebuilt table all come through here, so that
none of them can do with an input what another does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

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
    Print,
    WarmUp,
)
from clustercore.instruments import Instrument

if TYPE_CHECKING:
    from clustercore.events import Event
    from clustercore.sessions import Sessions

__all__ = ["Fold", "Log", "epoch_of"]

_NONE: tuple[Event, ...] = ()


class Log(Protocol):
    """What a fold looks up: session tables, and the bars of the log for a warm-up."""

    def sessions(self, sessions_hash: str) -> Sessions:
        """Return a session table by its hash."""

    def bars(self, root: str, first_seq: int, last_seq: int) -> Iterable[Bar]:
        """Return the bars that were consumed from one seq to another, in order."""


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
        self._log = log
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
            case Print(_, ts, price, size):
                self.engine.trade(ts, price, size)
                return _NONE
            case Operator(event):
                return tuple(self.engine.operator(event)) if event == "reset_halt" else _NONE
            case Epoch():
                self._begin(item)
                return _NONE
            case WarmUp(first_seq, last_seq):
                self._warming_up = True
                for bar in self._log.bars(self.root, first_seq, last_seq):
                    self._warm_up(bar)
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

    def _warm_up(self, bar: Bar) -> None:
        self.engine.step(
            bar.ts_event,
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            False,
            bar.context,
            bar.symbol,
        )

    def _begin(self, epoch: Epoch) -> None:
        config = Config(epoch.settings)
        instrument = Instrument(**epoch.instrument)
        engine = Engine(
            config, instrument, self._log.sessions(epoch.sessions_hash), epoch.interval_ns
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
