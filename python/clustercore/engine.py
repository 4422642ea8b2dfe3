"""The engine from Python: what crosses the border, and nothing that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from clustercore import _core
from clustercore.bars import Bars, parse_interval
from clustercore.errors import ConfigError
from clustercore.instruments import Instrument
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from numpy.typing import NDArray

    from clustercore.config import Config
    from clustercore.events import Event, Order, Signal, Trade

__all__ = ["ENGINE_VERSION", "Engine", "frames_from_events", "record_fields"]

ENGINE_VERSION: Final = _core.ENGINE_VERSION
"""Changes when any result changes."""


def record_fields() -> dict[str, list[dict[str, Any]]]:
    """Return the columns of each result frame: name, kind, nullable, unit, sentence.

    Examples
    --------
    >>> [column["name"] for column in record_fields()["risk"]]
    ['time', 'kind', 'reason']
    """
    return _core.record_fields()


class Engine:
    """One state machine for many bars and for one.

    ``run`` over many bars is a fold of ``step`` over one: any cut of the bars gives the same
    events, bit for bit. The engine never looks at a clock and holds no bar that has not ended.

    Parameters
    ----------
    config : Config
        Every setting.
    instrument : Instrument or str
        What is traded, or a root such as ``"ES"``.
    sessions : Sessions, optional
        The session table; by default the packaged one with the configured hours.
    interval : str, timedelta or int
        Length of a bar; an int is ns.

    Raises
    ------
    ConfigError
        When a window is shorter than a bar.

    Examples
    --------
    >>> from clustercore.config import Config
    >>> engine = Engine(Config.preset(), "ES")
    >>> engine.step(
    ...     1_704_207_600_000_000_000,
    ...     4770 * 10**9,
    ...     4771 * 10**9,
    ...     4770 * 10**9,
    ...     4771 * 10**9,
    ...     1200,
    ...     symbol="ESH4",
    ... )
    []
    """

    def __init__(
        self,
        config: Config,
        instrument: Instrument | str,
        sessions: Sessions | None = None,
        interval: str | timedelta | int = "1m",
    ) -> None:
        if isinstance(instrument, str):
            instrument = Instrument.builtin(instrument)
        if sessions is None:
            sessions = load_sessions(
                instrument.calendar, hours=config.session.hours, day=config.session.day
            )
        traded = config.applied_to(instrument)
        self.config = config
        self.instrument = traded
        self.sessions = sessions
        self.interval_ns = interval if isinstance(interval, int) else parse_interval(interval)
        self.config_id = config.id_for(instrument)
        settings = config.to_dict()
        settings["instrument"] |= {
            "check_tick": traded.check_tick,
            "allow_negative": traded.allow_negative,
        }
        self._core = _core.Engine(
            settings,
            self.config_id,
            {
                "root": traded.root,
                "tick_nanos": traded.tick_nanos,
                "point_value": float(traded.point_value),
                "commission": float(traded.commission),
                "margin": traded.margin,
            },
            sessions.columns(),
            self.interval_ns,
        )
        self.step = self._core.step

    def run(
        self,
        bars: Bars,
        *,
        columns: dict[str, NDArray[np.int64]] | None = None,
        actionable: NDArray[np.bool_] | None = None,
        finish: bool = False,
        only: Collection[str] | None = None,
    ) -> dict[str, pl.DataFrame]:
        """Take many bars.

        Parameters
        ----------
        bars : Bars
            Bars in time order, of the engine's interval and instrument.
        columns : dict of str to ndarray of int64, shape (n_bars,), optional
            ``bars.columns_nanos()``, when it was made before.
        actionable : ndarray of bool, shape (n_bars,), optional
            Whether each bar came in time to act on; all when absent.
        finish : bool
            Close the last interval and write the rows of trades that are still open.
        only : collection of str, optional
            Frames that are wanted; all when left out.

        Returns
        -------
        dict of str to polars.DataFrame
            ``clusters signals orders trades equity risk``; prices in points, times UTC.

        Raises
        ------
        DataError
            When a bar is refused; the engine is then as it was.
        """
        if bars.interval_ns != self.interval_ns:
            raise ConfigError(
                "bars of another interval than the engine's",
                field="interval",
                found=f"{bars.interval_ns} ns",
                expected=f"{self.interval_ns} ns",
            )
        columns = columns or bars.columns_nanos()
        context = bars.frame["context"]
        raw = self._core.run(
            columns["ts_event"],
            columns["open"],
            columns["high"],
            columns["low"],
            columns["close"],
            columns["volume"],
            list(bars.stretches),
            context.to_numpy() if context.any() else None,
            actionable,
            finish,
        )
        wanted = raw if only is None else only
        return {name: self._to_frame(name, raw[name]) for name in wanted}

    def trade(self, ts_ns: int, price_nanos: int, size: int) -> None:
        """Take a trade for the profile; it comes before the bar that holds it.

        Raises
        ------
        DataError
            When the price or size is not usable, or the bar that holds it was already taken.
        """
        self._core.trade(ts_ns, price_nanos, size)

    def trades(
        self, ts_ns: NDArray[np.int64], price_nanos: NDArray[np.int64], size: NDArray[np.int64]
    ) -> None:
        """Take many trades, all or none; they come before the bar that holds them.

        Parameters
        ----------
        ts_ns, price_nanos, size : ndarray of int64, shape (n_trades,)
            Times in ns UTC, prices in 1e-9 points, contracts.

        Raises
        ------
        DataError
            With the row, as for ``trade``.
        """
        self._core.trades(ts_ns, price_nanos, size)

    def replay(
        self,
        kind: NDArray[np.uint8],
        columns: dict[str, NDArray[np.int64]],
        symbols: list[tuple[int, str]],
        context: NDArray[np.bool_],
        actionable: NDArray[np.bool_],
    ) -> list[tuple[int, tuple[Event, ...]]]:
        """Take rows of a log: the same as ``step``, ``trade`` and ``advance`` one after the other.

        Parameters
        ----------
        kind : ndarray of uint8, shape (n_rows,)
            0 a bar, 1 a trade (its price is in ``close``, its size in ``volume``), 2 a closing.
        columns : dict of str to ndarray of int64, shape (n_rows,)
            ``ts open high low close volume``; what a kind does not use is not read.
        symbols : list of (int, str)
            First row and name of each stretch of one contract, the first at row 0.
        context, actionable : ndarray of bool, shape (n_rows,)
            As for ``step``.

        Returns
        -------
        list of (int, tuple of Event)
            The rows that caused something, and what.

        Raises
        ------
        DataError
            When a row is refused; the engine is then as it was.
        """
        return self._core.replay(
            kind,
            columns["ts"],
            columns["open"],
            columns["high"],
            columns["low"],
            columns["close"],
            columns["volume"],
            symbols,
            context,
            actionable,
        )

    def advance(self, ts_ns: int) -> list[Event]:
        """Say that every interval ending at or before ``ts_ns`` is closed."""
        return self._core.advance(ts_ns)

    def extend_sessions(self, sessions: Sessions) -> None:
        """Add sessions to the table.

        Raises
        ------
        DataError
            When they overlap or contradict what is known.
        """
        self._core.extend_sessions(sessions.columns())

    def operator(self, event: str) -> list[Event]:
        """Take the operator's word: ``"reset_halt"`` ends a halt or a pause."""
        if event != "reset_halt":
            raise ConfigError("no such event", field="operator", found=event, expected="reset_halt")
        return self._core.reset_halt()

    def finish(self) -> list[Event]:
        """Close the last bar's interval and return the rows of trades that are still open."""
        return self._core.finish()

    def account_state(self) -> str:
        """Return the account, its open positions and past trades as JSON, for ``take_over``.

        It exists between sessions only: ``advance`` to the session's close first.

        Raises
        ------
        DataError
            When a session is under way.
        """
        return self._core.account_state()

    def take_over(self, state: str) -> None:
        """Go on with the account of another engine, in place of this one's.

        This engine has seen its bars as not actionable, so that it has an opinion but no trade;
        what it knows from them stays. Records of past trades are sorted into the contexts of its
        own ``learning`` settings.

        Parameters
        ----------
        state : str
            ``account_state()`` of an engine of the same instrument.

        Raises
        ------
        DataError
            When the text is not the state of an account, this engine has traded, a session is
            under way, or open positions are of another contract than the last bar; the engine is
            then as it was.
        """
        self._core.take_over(state)

    def open_trades(self) -> list[Trade]:
        """Return the rows of trades that are open, valued at the last close; change nothing."""
        return self._core.open_trades()

    def pending_signals(self) -> list[Signal]:
        """Return the signals that wait for their retest, as they were armed; change nothing."""
        return self._core.pending_signals()

    def working_orders(self) -> list[Order]:
        """Return the orders that work, as they were made; change nothing."""
        return self._core.working_orders()

    def reset(self) -> None:
        """Forget every bar."""
        self._core.reset()

    def counts(self) -> dict[str, int]:
        """Return how many bars and windows went where, and what is still waiting."""
        return self._core.counts()

    def _to_frame(self, name: str, columns: dict[str, Any]) -> pl.DataFrame:
        return to_frame(name, columns, self.config_id)


def to_frame(name: str, columns: dict[str, Any], config_id: str) -> pl.DataFrame:
    """Return one frame of raw columns, with the configuration and version on every row."""
    arrays: dict[str, Any] = {}
    expressions: list[pl.Expr] = []
    for field in _core.record_fields()[name]:
        parts, expression = _column(field, columns[field["name"]])
        arrays |= parts
        expressions.append(expression.alias(field["name"]))
    return pl.DataFrame(arrays).select(
        *expressions,
        pl.lit(config_id).alias("config_id"),
        pl.lit(_core.ENGINE_VERSION).alias("engine_version"),
    )


def _column(field: dict[str, Any], column: Any) -> tuple[dict[str, Any], pl.Expr]:  # noqa: ANN401
    """Return what a raw column is made of, and the expression that makes it."""
    name, kind, nullable = field["name"], field["kind"], field["nullable"]
    whole = pl.col(name)
    if kind in ("time", "int", "bool"):
        values, valid = column
        parts = {name: values}
        if nullable:
            parts[f"{name} is there"] = valid
            whole = pl.when(f"{name} is there").then(whole)
        return parts, whole.cast(_DTYPES[kind])
    if kind in ("price", "float"):
        return {name: column}, whole.fill_nan(None) if nullable else whole
    if kind == "id":
        return {name: pl.Series(column, dtype=pl.String)}, whole
    codes, words = column
    known = whole.replace_strict(
        list(range(len(words))), words, default=None, return_dtype=pl.String
    )
    return {name: codes}, known


def frames_from_events(events: list[Event], config_id: str) -> dict[str, pl.DataFrame]:
    """Return the frames of ``run`` rebuilt from the events of ``step``.

    States on the way (a signal that is armed, an order that works) are events but no rows.
    """
    rows: dict[str, list[Event]] = {name: [] for name in _core.record_fields()}
    for event in events:
        if (
            getattr(event, "reason", None) not in ("armed", "working")
            or type(event).__name__ == "Cluster"
        ):
            rows[_FRAMES[type(event).__name__]].append(event)
    return {name: _event_frame(name, of_kind, config_id) for name, of_kind in rows.items()}


_FRAMES = {
    "Cluster": "clusters",
    "Signal": "signals",
    "Order": "orders",
    "Trade": "trades",
    "Equity": "equity",
    "Risk": "risk",
}

_DTYPES = {
    "time": pl.Datetime("ns", "UTC"),
    "price": pl.Float64(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "text": pl.String(),
    "symbol": pl.String(),
    "id": pl.String(),
}


def _event_frame(name: str, events: list[Event], config_id: str) -> pl.DataFrame:
    series = []
    for field in _core.record_fields()[name]:
        attribute = "net_return" if field["name"] == "return" else field["name"]
        values = [getattr(event, attribute) for event in events]
        kind = field["kind"]
        dtype = pl.Int64() if kind == "time" else _DTYPES[kind]
        series.append(pl.Series(field["name"], values, dtype=dtype).cast(_DTYPES[kind]))
    return pl.DataFrame(series).with_columns(
        pl.lit(config_id).alias("config_id"),
        pl.lit(_core.ENGINE_VERSION).alias("engine_version"),
    )
