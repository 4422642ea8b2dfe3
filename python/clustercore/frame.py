"""The Polars namespace ``df.cluster``: the engine and its kernels over a frame of bars.

A frame has ``ts_event`` (the start of a bar), ``open high low close`` in points, ``volume`` and,
where there is more than one contract, ``symbol``. Several symbols are never mixed: either ``by``
names the column that tells them apart, or they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from clustercore import kernels
from clustercore.bars import PRICE_COLUMNS, Bars
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClusterFrame"]

_BARS = ("ts_event", *PRICE_COLUMNS, "volume")
_ROW = "__clustercore_row__"


@pl.api.register_dataframe_namespace("cluster")
class ClusterFrame:
    """What ``df.cluster`` offers; made by Polars, not by you.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars in time order: ``ts_event`` Datetime or Int64 ns, ``open high low close`` Float64 in
        points, ``volume`` whole numbers of contracts; ``symbol`` String where there is one.

    Examples
    --------
    >>> bars = pl.DataFrame(
    ...     {
    ...         "ts_event": np.arange(1_704_207_600, 1_704_211_200, 60) * 10**9,
    ...         **{name: np.full(60, 4770.0) for name in ("open", "high", "low", "close")},
    ...         "volume": np.where(np.arange(60) // 15 == 2, 500, 100),
    ...     }
    ... )
    >>> found = bars.cluster.detect(instrument="ES", baseline__mode="rolling", baseline__bars=15)
    >>> found.select("symbol", "volume", "volume_ratio").rows()
    [('ES', 7500, 5.0)]
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def detect(
        self,
        config: Config | str = "default",
        *,
        instrument: Instrument | str | None = None,
        interval: str | timedelta = "1m",
        by: str | None = None,
        table: Sessions | None = None,
        **settings: object,
    ) -> pl.DataFrame:
        """Return the clusters, found by ``Engine.run``, so that they are those of a backtest.

        Parameters
        ----------
        config : Config or str
            The configuration, or the name of a preset.
        instrument : Instrument or str, optional
            What is traded, or its root; that of the symbol when absent.
        interval : str or timedelta
            Length of a bar.
        by : str, optional
            Column that tells symbols apart; each is then searched alone.
        table : Sessions, optional
            The sessions; those of the configuration when absent.
        **settings
            Changes of the configuration: ``threshold=3.0`` for ``cluster.threshold``,
            ``baseline__mode="rolling"`` for any other section.

        Returns
        -------
        polars.DataFrame
            One row a cluster, columns as in ``Engine.run``'s frame ``clusters``; symbol after
            symbol in the order of their first bar.

        Raises
        ------
        DataError
            Several symbols without ``by``, a column that is missing, or a bar that is refused.
        ConfigError
            A setting that is unknown or not allowed.
        """
        chosen = Config.preset(config) if isinstance(config, str) else config
        chosen = chosen.override({_path(name): value for name, value in settings.items()})
        found = []
        for symbol, part in self._parts(by):
            traded = _instrument(instrument, symbol)
            bars = Bars.from_frame(
                _as_bars(part, symbol or traded.root), interval=interval, instrument=traded
            )
            engine = Engine(chosen, traded, table, interval)
            found.append(engine.run(bars, finish=True)["clusters"])
        return pl.concat(found)

    def baseline(
        self,
        mode: str = "rolling",
        *,
        interval: str | timedelta = "1m",
        by: str | None = None,
        table: Sessions | None = None,
        bars: int | None = None,
        min_bars: int | None = None,
        minutes: int | None = None,
        sessions: int | None = None,
        min_sessions: int | None = None,
    ) -> pl.DataFrame:
        """Return the frame with ``baseline``, the usual volume of a minute before each bar.

        Parameters
        ----------
        mode : str
            As for ``clustercore.kernels.volume_baseline``.
        interval : str or timedelta
            Length of a bar.
        by : str, optional
            Column that tells symbols apart.
        table : Sessions, optional
            The sessions.
        bars, min_bars, minutes, sessions, min_sessions : int, optional
            As for ``volume_baseline``.

        Returns
        -------
        polars.DataFrame
            The rows as they were; ``baseline`` Float64 in contracts per minute, null where there is
            none.

        Raises
        ------
        DataError, ConfigError
            As for ``volume_baseline``; several symbols without ``by``.

        Examples
        --------
        >>> bars = pl.DataFrame({"ts_event": [0, 1, 2], "volume": [10, 20, 60]})
        >>> bars.cluster.baseline(bars=2)["baseline"].to_list()
        [None, None, 15.0]
        """

        def add(part: pl.DataFrame) -> list[pl.Series]:
            timed = None if mode == "rolling" else _column(part, "ts_event")
            values = kernels.volume_baseline(
                _column(part, "volume"),
                mode=mode,
                interval=interval,
                ts_event=timed,
                table=table,
                bars=bars,
                min_bars=min_bars,
                minutes=minutes,
                sessions=sessions,
                min_sessions=min_sessions,
            )
            return [_numbers("baseline", values)]

        return self._with(by, add)

    def volatility(
        self,
        estimator: str | None = None,
        *,
        window: int,
        annualisation: float | None = None,
        output: str = "sigma",
        min_periods: int | None = None,
        by: str | None = None,
        table: Sessions | None = None,
    ) -> pl.DataFrame:
        """Return the frame with ``volatility`` of the last ``window`` bars.

        A return, or a true range, looks back to the bar before only within a session.

        Parameters
        ----------
        estimator, window, annualisation, output, min_periods
            As for ``clustercore.kernels.rolling_volatility``.
        by : str, optional
            Column that tells symbols apart.
        table : Sessions, optional
            The sessions.

        Returns
        -------
        polars.DataFrame
            The rows as they were; ``volatility`` Float64, null where there is none.

        Raises
        ------
        DataError, ConfigError
            As for ``rolling_volatility``; several symbols without ``by``.
        """
        sessions = load_sessions() if table is None else table

        def add(part: pl.DataFrame) -> list[pl.Series]:
            values = kernels.rolling_volatility(
                *(_column(part, name) for name in PRICE_COLUMNS),
                window=window,
                estimator=estimator,
                annualisation=annualisation,
                output=output,
                min_periods=min_periods,
                follows=_same_session(_column(part, "ts_event"), sessions),
            )
            return [_numbers("volatility", values)]

        return self._with(by, add)

    def modal_price(
        self,
        *,
        window: int,
        tick_size: float | Instrument,
        source: str | None = None,
        tie: str | None = None,
        by: str | None = None,
    ) -> pl.DataFrame:
        """Return the frame with the modal price of the last ``window`` bars.

        Parameters
        ----------
        window, tick_size, source, tie
            As for ``clustercore.kernels.rolling_modal_price``.
        by : str, optional
            Column that tells symbols apart.

        Returns
        -------
        polars.DataFrame
            The rows as they were; ``modal_price`` Float64 in points, ``modal_tied`` Boolean and
            ``modal_position`` Float64, null where there is none.

        Raises
        ------
        DataError, ConfigError
            As for ``rolling_modal_price``; several symbols without ``by``.
        """

        def add(part: pl.DataFrame) -> list[pl.Series]:
            found = kernels.rolling_modal_price(
                *(_column(part, name) for name in ("high", "low", "close", "volume")),
                window=window,
                tick_size=tick_size,
                source=source,
                tie=tie,
            )
            price = _numbers("modal_price", found.price)
            tied = pl.Series("modal_tied", found.tied)
            tied = tied.set(price.is_null(), None)
            return [price, tied, _numbers("modal_position", found.position)]

        return self._with(by, add)

    def profile(
        self,
        *,
        tick_size: float | Instrument,
        source: str | None = None,
        tie: str | None = None,
        by: str | None = None,
    ) -> pl.DataFrame:
        """Return volume at price of all bars.

        Parameters
        ----------
        tick_size, source, tie
            As for ``clustercore.kernels.volume_profile``.
        by : str, optional
            Column that tells symbols apart; it is then the first column of the result.

        Returns
        -------
        polars.DataFrame
            One row a tick from the lowest up: ``price`` Float64 in points, ``volume`` Int64,
            ``modal`` Boolean on the modal price, ``value_area`` Boolean inside the value area.

        Raises
        ------
        DataError, ConfigError
            As for ``volume_profile``; several symbols without ``by``.
        """
        found = []
        for symbol, part in self._parts(by):
            profile = kernels.volume_profile(
                *(_column(part, name) for name in ("high", "low", "close", "volume")),
                tick_size=tick_size,
                source=source,
                tie=tie,
            )
            price = pl.col("price")
            frame = pl.DataFrame({"price": profile.price, "volume": profile.volume}).with_columns(
                modal=(price == profile.modal_price).fill_null(value=False),
                value_area=price.is_between(
                    pl.lit(profile.value_area_low, pl.Float64),
                    pl.lit(profile.value_area_high, pl.Float64),
                ).fill_null(value=False),
            )
            found.append(frame if by is None else frame.select(pl.lit(symbol).alias(by), pl.all()))
        return pl.concat(found)

    def retests(
        self,
        levels: pl.DataFrame,
        *,
        tolerance: float,
        test: str | None = None,
        interval: str | timedelta = "1m",
        by: str | None = None,
    ) -> pl.DataFrame:
        """Return levels with the first bar that comes back to each.

        Parameters
        ----------
        levels : polars.DataFrame
            ``modal_price`` in points, ``decision_time`` and ``deadline``; with ``by`` that column
            too. The frame of clusters with a deadline added is one.
        tolerance, test, interval
            As for ``clustercore.kernels.match_retests``.
        by : str, optional
            Column of both frames that tells symbols apart.

        Returns
        -------
        polars.DataFrame
            The levels as they were, with ``row`` Int64, the place of the bar in the frame (among
            those of its symbol with ``by``), and ``confirmed_time``, its end; null where there is
            none.

        Raises
        ------
        DataError, ConfigError
            As for ``match_retests``; several symbols without ``by``, or levels of a symbol that
            has no bars.
        """
        parts = dict(self._parts(by))
        sought = list(ClusterFrame(levels)._parts(by))  # noqa: SLF001  (the same class)
        if by is None:
            parts = {symbol: next(iter(parts.values())) for symbol, _ in sought}
        found = []
        for symbol, wanted in sought:
            if symbol not in parts:
                raise DataError("levels of a symbol without bars", column=by, found=repr(symbol))
            part = parts[symbol]
            rows = kernels.match_retests(
                *(_column(part, name) for name in ("ts_event", "high", "low", "close")),
                price=_column(wanted, "modal_price"),
                decision_time=_column(wanted, "decision_time"),
                deadline=_column(wanted, "deadline"),
                tolerance=tolerance,
                test=test,
                interval=interval,
            )
            found.append(wanted.with_columns(rows))
        return pl.concat(found)

    def _parts(self, by: str | None) -> Iterator[tuple[str | None, pl.DataFrame]]:
        """Yield the bars of each symbol with its name."""
        frame = self._frame
        if by is not None:
            names = _column(frame, by)
            if names.null_count():
                row = names.is_null().arg_max()
                raise DataError("the value is missing", row=row, column=by, found="null")
            parts = frame.partition_by(by, maintain_order=True) if frame.height else [frame]
            for part in parts:
                yield (str(part[by][0]) if part.height else None), part
            return
        symbols = frame["symbol"].unique(maintain_order=True).to_list() if _has(frame) else [None]
        if len(symbols) > 1:
            raise DataError(
                'several symbols in one frame; pass by="symbol" to take each alone',
                column="symbol",
                found=", ".join(map(str, symbols[:5])) + (", ..." if symbols[5:] else ""),
                expected="one symbol",
            )
        yield (symbols[0] if symbols else None), frame

    def _with(self, by: str | None, add: Callable[[pl.DataFrame], list[pl.Series]]) -> pl.DataFrame:
        """Return the frame with columns that are made symbol by symbol, rows in their order."""
        if by is None:
            return next(part.with_columns(add(part)) for _, part in self._parts(by))
        numbered = ClusterFrame(self._frame.with_row_index(_ROW))
        parts = [part.with_columns(add(part)) for _, part in numbered._parts(by)]
        return pl.concat(parts).sort(_ROW).drop(_ROW)


def _has(frame: pl.DataFrame) -> bool:
    return "symbol" in frame.columns


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise DataError(
            "the frame lacks a column",
            column=name,
            found=", ".join(column for column in frame.columns if column != _ROW),
            expected=name,
        )
    return frame[name]


def _numbers(name: str, values: NDArray[np.float64]) -> pl.Series:
    return pl.Series(name, values).fill_nan(None)


def _path(name: str) -> str:
    section, _, setting = name.rpartition("__")
    return f"{section or 'cluster'}.{setting}"


def _instrument(instrument: Instrument | str | None, symbol: str | None) -> Instrument:
    if isinstance(instrument, Instrument):
        return instrument
    if instrument is not None:
        return Instrument.builtin(instrument)
    if symbol is None:
        raise ConfigError(
            "the frame names no symbol",
            field="instrument",
            found="nothing",
            expected='a root such as "ES", or an Instrument',
        )
    return Instrument.for_symbol(symbol)


def _as_bars(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """Return the frame with the columns and types of ``Bars``."""
    columns = {name: _column(frame, name) for name in _BARS}
    times, volume = columns["ts_event"], columns["volume"]
    if times.dtype == pl.Int64:
        times = times.cast(pl.Datetime("ns"))
    if not isinstance(times.dtype, pl.Datetime):
        raise DataError(
            "the column has another type",
            column="ts_event",
            found=str(times.dtype),
            expected="Datetime, or Int64 in ns",
        )
    if not volume.dtype.is_integer():
        raise DataError(
            "the column has another type",
            column="volume",
            found=str(volume.dtype),
            expected="Int64",
        )
    zone = times.dtype.time_zone if isinstance(times.dtype, pl.Datetime) else None
    times = times.dt.cast_time_unit("ns")
    times = times.dt.convert_time_zone("UTC") if zone else times.dt.replace_time_zone("UTC")
    context = frame["context"] if "context" in frame.columns else pl.lit(value=False)
    return frame.select(PRICE_COLUMNS).with_columns(
        times.alias("ts_event"),
        volume.cast(pl.Int64),
        pl.lit(symbol).alias("symbol"),
        context.alias("context"),
    )


def _same_session(times: pl.Series, sessions: Sessions) -> NDArray[np.bool_]:
    """Return for each row whether the row before lies in the same session."""
    number = sessions.locate(times).fill_null(-1).to_numpy()
    follows = np.zeros(len(number), dtype=np.bool_)
    follows[1:] = (number[1:] == number[:-1]) & (number[1:] >= 0)
    return follows
