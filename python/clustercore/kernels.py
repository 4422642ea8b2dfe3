"""The engine's formulas over whole columns: baseline, profile, modal price, retest, volatility.

Columns are NumPy arrays or Polars series, seen without a copy where their type already fits. Prices
are float64 in points, or int64 in 1e-9 points; volumes are whole numbers of contracts; times are
int64 ns since 1970, datetime64 or Polars datetimes. What a kernel decides is what the engine
decides; the words for modes, sources, ties, tests and estimators are those of the configuration,
and what is not given comes from the preset ``default``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from clustercore import _core
from clustercore.bars import parse_interval
from clustercore.config import Config
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument
from clustercore.sessions import Sessions, load_sessions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "ModalPrices",
    "VolumeProfile",
    "detect_clusters",
    "match_retests",
    "mean_true_range",
    "rolling_modal_price",
    "rolling_volatility",
    "true_range",
    "volume_baseline",
    "volume_profile",
]

Column: TypeAlias = "NDArray[Any] | pl.Series"
Interval: TypeAlias = "str | timedelta"
_UTC_NS = pl.Datetime("ns", "UTC")


class ModalPrices(NamedTuple):
    """The modal price of every window of n bars; a row belongs to the window that ends with it.

    Attributes
    ----------
    price : ndarray of float64, shape (n_bars,)
        Price that traded most, in points; NaN where there is none.
    tied : ndarray of bool, shape (n_bars,)
        Whether several prices traded equally much.
    position : ndarray of float64, shape (n_bars,)
        ``(price - low) / (high - low)`` over the same bars, 0.5 when high = low; NaN where there is
        no price.
    """

    price: NDArray[np.float64]
    tied: NDArray[np.bool_]
    position: NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class VolumeProfile:
    """Volume at price of some bars.

    Attributes
    ----------
    price : ndarray of float64, shape (n_ticks,)
        Every tick from the lowest to the highest, in points.
    volume : ndarray of int64, shape (n_ticks,)
        Contracts at each tick, or bars when the source is ``close``.
    modal_price : float or None
        The heaviest tick in points; None when nothing traded.
    modal_tied : bool or None
        Whether other ticks weigh as much.
    value_area_low, value_area_high : float or None
        Ends in points of the ticks around the modal price that hold 70 % of the volume.
    modal_position : float or None
        ``(modal_price - low) / (high - low)`` over the same bars; 0.5 when high = low.
    """

    price: NDArray[np.float64]
    volume: NDArray[np.int64]
    modal_price: float | None = None
    modal_tied: bool | None = None
    value_area_low: float | None = None
    value_area_high: float | None = None
    modal_position: float | None = None


def volume_baseline(
    volume: Column,
    *,
    mode: str = "rolling",
    interval: Interval = "1m",
    bars: int | None = None,
    min_bars: int | None = None,
    ts_event: Column | None = None,
    session: Column | None = None,
    table: Sessions | None = None,
    minutes: int | None = None,
    sessions: int | None = None,
    min_sessions: int | None = None,
) -> NDArray[np.float64]:
    """Return the usual volume of a minute at every bar, from the bars before it alone.

    Parameters
    ----------
    volume : column of int64, shape (n_bars,)
        Contracts.
    mode : {"rolling", "session_to_date", "previous_session", "time_of_day"}
        Which bars count, as ``baseline.mode`` of the configuration.
    interval : str or timedelta
        Length of a bar.
    bars : int, optional
        ``rolling``: how many bars before this one.
    min_bars : int, optional
        ``session_to_date``: fewest bars of the session before this one.
    ts_event : column of times, shape (n_bars,), optional
        Starts of the bars, ascending; needed where sessions are looked up.
    session : column of int64, shape (n_bars,), optional
        ``session_to_date``: a number for each session instead of ``ts_event``; negative for none.
    table : Sessions, optional
        The sessions; ``load_sessions()`` when absent.
    minutes : int, optional
        ``time_of_day``: length of the slot that begins at each bar, whole bars.
    sessions, min_sessions : int, optional
        ``time_of_day``: how many earlier sessions count, and the fewest that give a value.

    Returns
    -------
    ndarray of float64, shape (n_bars,)
        Contracts per minute covered by bars; NaN where there is no baseline.

    Raises
    ------
    DataError
        A column has the wrong type or length, a volume is negative, or times are out of order.
    ConfigError
        The mode is unknown, a count is out of range, or a session does not close on the grid of
        the interval.

    Notes
    -----
    The engine's rules (docs/strategy.md). A window is measured by the value at its first
    bar; ``time_of_day`` looks at the slot that begins with that bar, the engine at the one that
    begins with the window.

    Examples
    --------
    >>> volume_baseline(np.array([10, 20, 60, 5]), bars=2)
    array([nan, nan, 15., 40.])
    >>> sessions = np.array([0, 0, 0, 1])
    >>> volume_baseline(
    ...     np.array([10, 20, 60, 5]), mode="session_to_date", session=sessions, min_bars=1
    ... )
    array([nan, 10., 15., nan])
    """
    own = _preset().baseline
    _settings(("baseline.mode", mode))
    volumes, interval_ns = _volumes(volume, "volume"), parse_interval(interval)
    if mode == "rolling":
        return _core.rolling_baseline(volumes, _count("bars", bars, own.bars), interval_ns)
    if mode == "session_to_date":
        if session is None:
            times = _times(_needed(ts_event, "ts_event", mode), "ts_event")
            session = _table(table).locate(pl.Series(times)).fill_null(-1)
        fewest = _count("min_bars", min_bars, own.min_bars)
        numbers = _whole(session, "session")
        return _core.session_to_date_baseline(volumes, numbers, fewest, interval_ns)
    if mode in {"previous_session", "time_of_day"}:
        times = _times(_needed(ts_event, "ts_event", mode), "ts_event")
        columns = _table(table).columns()
        if mode == "previous_session":
            return _core.previous_session_baseline(times, volumes, columns, interval_ns)
        width = _count("minutes", minutes, _preset().cluster.minutes) * 60_000_000_000
        counted = _count("sessions", sessions, own.sessions)
        fewest = _count("min_sessions", min_sessions, own.min_sessions)
        return _core.time_of_day_baseline(
            times, volumes, columns, interval_ns, width, counted, fewest
        )
    raise ConfigError(
        "this baseline is a number, not a column",
        field="mode",
        found=mode,
        expected="rolling, session_to_date, previous_session or time_of_day",
    )


def detect_clusters(
    ts_event: Column,
    open: Column,  # noqa: A002  (the column's name)
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    baseline: Column,
    *,
    instrument: Instrument | str,
    config: Config | str = "default",
    interval: Interval = "1m",
    table: Sessions | None = None,
    symbol: str | None = None,
) -> pl.DataFrame:
    """Return the clusters that a baseline of your own gives, found by the engine's detector.

    Use ``Engine.run`` or ``df.cluster.detect`` for the clusters of a configured baseline.

    Parameters
    ----------
    ts_event : column of times, shape (n_bars,)
        Starts of the bars, ascending.
    open, high, low, close : column of prices, shape (n_bars,)
        Points, or int64 in 1e-9.
    volume : column of int64, shape (n_bars,)
        Contracts.
    baseline : column of float64, shape (n_bars,)
        Usual volume of a minute at each bar, such as ``volume_baseline`` gives. A window is
        measured by the value at its first bar; NaN makes no cluster.
    instrument : Instrument or str
        What is traded, or its root.
    config : Config or str
        Frame, minutes, basis, threshold, ranking, profile, momentum and signal; its baseline is not
        used.
    interval : str or timedelta
        Length of a bar.
    table : Sessions, optional
        The sessions; those of the configuration when absent.
    symbol : str, optional
        What stands in the column ``symbol``; the instrument's root when absent.

    Returns
    -------
    polars.DataFrame
        One row a cluster, columns as in ``Engine.run``'s frame ``clusters``, without ``config_id``
        and ``engine_version``; ``baseline_source`` is ``"given"``. No signal is confirmed here, so
        no cooldown runs.

    Raises
    ------
    DataError
        A bar is refused, or a baseline is zero or negative.
    ConfigError
        A setting is not allowed, or a session does not close on the grid of the interval.

    Examples
    --------
    >>> ts = np.arange(1_704_207_600, 1_704_207_600 + 60 * 60, 60) * 10**9
    >>> price, volume = np.full(60, 4770.0), np.where(np.arange(60) // 15 == 2, 500, 100)
    >>> baseline = volume_baseline(volume, bars=15)
    >>> found = detect_clusters(ts, price, price, price, price, volume, baseline, instrument="ES")
    >>> found.select("window_start", "volume", "volume_ratio").rows()
    [(datetime.datetime(2024, 1, 2, 15, 30, tzinfo=zoneinfo.ZoneInfo(key='UTC')), 7500, 5.0)]
    """
    instrument = Instrument.builtin(instrument) if isinstance(instrument, str) else instrument
    config = Config.preset(config) if isinstance(config, str) else config
    if table is None:
        own = config.session
        table = load_sessions(instrument.calendar, hours=own.hours, day=own.day)
    columns = _core.detect_clusters(
        _times(ts_event, "ts_event"),
        _nanos(open, "open"),
        _nanos(high, "high"),
        _nanos(low, "low"),
        _nanos(close, "close"),
        _volumes(volume, "volume"),
        _floats(baseline, "baseline"),
        symbol or instrument.root,
        table.columns(),
        parse_interval(interval),
        config.applied_to(instrument).tick_nanos,
        config.to_dict(),
    )
    fields = _core.record_fields()["clusters"]
    return pl.DataFrame([_series(field, columns[field["name"]]) for field in fields])


def _series(field: Mapping[str, Any], column: Any) -> pl.Series:  # noqa: ANN401  (by kind)
    name, kind = field["name"], field["kind"]
    if kind in {"time", "int", "bool"}:
        values, valid = column
        series = pl.Series(name, values)
        if valid is not None:
            series = series.zip_with(pl.Series(valid), pl.Series([None], dtype=series.dtype))
        return series.cast(_UTC_NS) if kind == "time" else series
    if kind in {"price", "float"}:
        return pl.Series(name, column).fill_nan(None)
    codes, words = column
    names = [*words, *[None] * (not words)]
    places = pl.Series(codes.astype(np.int64)).replace(np.iinfo(np.uint32).max, None)
    return pl.Series(name, names, dtype=pl.String).gather(places)


def volume_profile(
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    *,
    tick_size: float | Instrument,
    source: str | None = None,
    tie: str | None = None,
) -> VolumeProfile:
    """Return volume at price of some bars, on the tick grid, in whole contracts.

    Parameters
    ----------
    high, low, close : column of prices, shape (n_bars,)
        Points, or int64 in 1e-9.
    volume : column of int64, shape (n_bars,)
        Contracts.
    tick_size : float or Instrument
        Price step in points, or what has one.
    source : {"close", "close_volume", "range_volume"}, optional
        Each bar once at its close, its volume at its close, or spread over its range.
    tie : {"middle", "earliest", "lowest"}, optional
        Which of several equally heavy ticks is modal.

    Returns
    -------
    VolumeProfile
        Ticks, volumes, modal price and value area. The volumes sum to what went in.

    Raises
    ------
    DataError
        A column has the wrong type or length, or a bar is incoherent or of negative volume.
    ConfigError
        The tick, the source or the tie is not one there is.

    Notes
    -----
    Specification, section 7: ``range_volume`` gives each of n ticks ``v div n`` and the remainder r
    one each to the ticks ``floor((2j + 1) n / (2r))``.

    Examples
    --------
    >>> profile = volume_profile(
    ...     np.array([13.0]),
    ...     np.array([10.0]),
    ...     np.array([12.0]),
    ...     np.array([10]),
    ...     tick_size=1.0,
    ...     source="range_volume",
    ...     tie="lowest",
    ... )
    >>> profile.volume, profile.modal_price, profile.modal_tied
    (array([2, 3, 2, 3]), 11.0, True)
    """
    found = _core.volume_profile(
        _nanos(high, "high"),
        _nanos(low, "low"),
        _nanos(close, "close"),
        _volumes(volume, "volume"),
        _tick_nanos(tick_size),
        _settings(("profile.source", _of_bars(source)), ("profile.tie", tie)),
    )
    return VolumeProfile(**found)


def rolling_modal_price(
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    *,
    window: int,
    tick_size: float | Instrument,
    source: str | None = None,
    tie: str | None = None,
) -> ModalPrices:
    """Return the modal price of the last ``window`` bars at every bar.

    Parameters
    ----------
    high, low, close : column of prices, shape (n_bars,)
        Points, or int64 in 1e-9, which saves the conversion.
    volume : column of int64, shape (n_bars,)
        Contracts.
    window : int
        Bars in a window.
    tick_size : float or Instrument
        Price step in points, or what has one.
    source, tie : str, optional
        As for ``volume_profile``.

    Returns
    -------
    ModalPrices
        For every window exactly what ``volume_profile`` says of its bars; nothing for the first
        ``window - 1`` rows.

    Raises
    ------
    DataError
        A column has the wrong type or length, or a bar is incoherent or of negative volume.
    ConfigError
        The window, the tick, the source or the tie is not one there is.

    Examples
    --------
    >>> close = np.array([10.0, 11.0, 11.0, 12.0])
    >>> found = rolling_modal_price(
    ...     close + 1, close - 1, close, np.array([5, 3, 3, 4]), window=3, tick_size=0.5
    ... )
    >>> found.price
    array([nan, nan, 11., 11.])
    """
    return ModalPrices(
        *_core.rolling_modal_price(
            _nanos(high, "high"),
            _nanos(low, "low"),
            _nanos(close, "close"),
            _volumes(volume, "volume"),
            _count("window", window),
            _tick_nanos(tick_size),
            _settings(("profile.source", _of_bars(source)), ("profile.tie", tie)),
        )
    )


def match_retests(
    ts_event: Column,
    high: Column,
    low: Column,
    close: Column,
    *,
    price: Column,
    decision_time: Column,
    deadline: Column,
    tolerance: float,
    test: str | None = None,
    interval: Interval = "1m",
) -> pl.DataFrame:
    """Return for each level the first bar that comes back to it.

    Parameters
    ----------
    ts_event : column of times, shape (n_bars,)
        Starts of the bars, ascending.
    high, low, close : column of prices, shape (n_bars,)
        Points, or int64 in 1e-9.
    price : column of prices, shape (n_levels,)
        The levels.
    decision_time : column of times, shape (n_levels,)
        The first bar looked at starts then or later.
    deadline : column of times, shape (n_levels,)
        The last bar looked at ends then or earlier.
    tolerance : float
        Distance in points that still counts.
    test : {"close", "touch"}, optional
        Whether the close or any price of the bar must come that near.
    interval : str or timedelta
        Length of a bar.

    Returns
    -------
    polars.DataFrame
        One row a level, in their order: ``row`` Int64, the bar, and ``confirmed_time``
        Datetime(ns, UTC), its end; both null where no bar comes back.

    Raises
    ------
    DataError
        A column has the wrong type or length, or the times are out of order.
    ConfigError
        The test or the tolerance is not allowed.

    Notes
    -----
    Specification, sections 9 and 13. A session's end is a deadline like any other.

    Examples
    --------
    >>> ts = np.arange(4) * 60 * 10**9
    >>> close = np.array([10.0, 12.0, 11.0, 10.0])
    >>> match_retests(
    ...     ts,
    ...     close,
    ...     close,
    ...     close,
    ...     price=np.array([10.0]),
    ...     decision_time=ts[1:2],
    ...     deadline=ts[3:] + 60 * 10**9,
    ...     tolerance=0.25,
    ...     test="close",
    ... )["row"].to_list()
    [3]
    """
    times, interval_ns = _times(ts_event, "ts_event"), parse_interval(interval)
    if not 0 <= tolerance < 1e9:  # noqa: PLR2004  (nanos must stay within 64 bits)
        raise ConfigError(
            "not a distance", field="tolerance", found=repr(tolerance), expected="points, 0 or more"
        )
    rows = _core.match_retests(
        times,
        _nanos(high, "high"),
        _nanos(low, "low"),
        _nanos(close, "close"),
        _nanos(price, "price"),
        _times(decision_time, "decision_time"),
        _times(deadline, "deadline"),
        round(tolerance * 1e9),
        interval_ns,
        _settings(("retest.test", test)),
    )
    found = pl.Series("row", rows).replace(-1, None)
    ends = pl.Series("confirmed_time", times).gather(found) + interval_ns
    return pl.DataFrame([found, ends.cast(_UTC_NS)])


def rolling_volatility(
    open: Column,  # noqa: A002  (the column's name)
    high: Column,
    low: Column,
    close: Column,
    *,
    window: int,
    estimator: str | None = None,
    annualisation: float | None = None,
    output: str = "sigma",
    min_periods: int | None = None,
    follows: Column | None = None,
) -> NDArray[np.float64]:
    """Return the volatility of the last ``window`` bars at every bar.

    Parameters
    ----------
    open, high, low, close : column of float64, shape (n_bars,)
        Prices in any unit.
    window : int
        Bars in a window.
    estimator : str, optional
        ``garman_klass``, ``parkinson``, ``rogers_satchell``, ``close_to_close``, ``yang_zhang`` or
        ``atr``.
    annualisation : float, optional
        Bars in a year, by which the variance is multiplied; per bar when absent.
    output : {"sigma", "variance"}
        Standard deviation as a fraction of price, or its square.
    min_periods : int, optional
        Fewest bars that give a value at the beginning; ``window`` when absent.
    follows : column of bool, shape (n_bars,), optional
        Whether the bar before is of the same session and symbol, so that a return or a true range
        may look back to it; always when absent.

    Returns
    -------
    ndarray of float64, shape (n_bars,)
        NaN where there is no value: too few bars, a bar in the window that is incoherent or has no
        positive finite prices, or fewer than two returns for the estimators that need them.

    Raises
    ------
    DataError
        A column has the wrong type or length.
    ConfigError
        The estimator, the window or the annualisation is not allowed.

    Notes
    -----
    Specification, section 11. Garman and Klass 1980, Parkinson 1980, Rogers and Satchell 1991, Yang
    and Zhang 2000; ``atr`` is mean true range / (1.5958 * mean close), Feller's expected range of a
    driftless walk. These agree with what the engine sums afresh to 1e-9 relative.

    Examples
    --------
    >>> sigma = rolling_volatility(
    ...     np.array([100.0, 105.0]),
    ...     np.array([110.0, 106.0]),
    ...     np.array([95.0, 101.0]),
    ...     np.array([105.0, 102.0]),
    ...     window=2,
    ...     estimator="parkinson",
    ... )
    >>> sigma.round(4)
    array([   nan, 0.0656])
    """
    tops, bottoms, closes = _floats(high, "high"), _floats(low, "low"), _floats(close, "close")
    opens = _floats(open, "open")
    _same_length(close=closes, open=opens, high=tops, low=bottoms)
    linked = _follows(follows, closes)
    bars = _count("window", window)
    fewest = _count("min_periods", min_periods, window)
    if estimator == "atr":
        return _core.rolling_atr_sigma(
            tops, bottoms, closes, linked, bars, fewest, annualisation, output
        )
    settings = _settings(("volatility.estimator", estimator))
    return _core.rolling_volatility(
        opens, tops, bottoms, closes, linked, bars, fewest, annualisation, output, settings
    )


def true_range(
    high: Column, low: Column, close: Column, *, follows: Column | None = None
) -> NDArray[np.float64]:
    """Return the true range of every bar: its range, extended to the close before it.

    Parameters
    ----------
    high, low, close : column of float64, shape (n_bars,)
        Prices in points.
    follows : column of bool, shape (n_bars,), optional
        Whether the close before counts; always when absent, but never for the first bar.

    Returns
    -------
    ndarray of float64, shape (n_bars,)
        Points; NaN where a price is not a number.

    Raises
    ------
    DataError
        A column has the wrong type or length.

    Notes
    -----
    J. W. Wilder, "New Concepts in Technical Trading Systems", 1978.

    Examples
    --------
    >>> true_range(np.array([2.0, 9.0]), np.array([1.0, 8.0]), np.array([2.0, 8.5]))
    array([1., 7.])
    """
    tops, bottoms, closes = _floats(high, "high"), _floats(low, "low"), _floats(close, "close")
    _same_length(close=closes, high=tops, low=bottoms)
    return _core.true_range(tops, bottoms, closes, _follows(follows, closes))


def mean_true_range(
    high: Column,
    low: Column,
    close: Column,
    *,
    window: int,
    min_periods: int | None = None,
    follows: Column | None = None,
) -> NDArray[np.float64]:
    """Return the mean true range of the last ``window`` bars at every bar.

    Parameters
    ----------
    high, low, close : column of float64, shape (n_bars,)
        Prices in points.
    window : int
        Bars in a window.
    min_periods : int, optional
        Fewest bars that give a value at the beginning; ``window`` when absent.
    follows : column of bool, shape (n_bars,), optional
        As for ``true_range``.

    Returns
    -------
    ndarray of float64, shape (n_bars,)
        Points; NaN where there are too few bars. A plain mean, not Wilder's smoothing.

    Raises
    ------
    DataError
        A column has the wrong type or length.
    ConfigError
        The window is not allowed.

    Examples
    --------
    >>> prices = np.array([2.0, 9.0]), np.array([1.0, 8.0]), np.array([2.0, 8.5])
    >>> mean_true_range(*prices, window=2)
    array([nan,  4.])
    """
    tops, bottoms, closes = _floats(high, "high"), _floats(low, "low"), _floats(close, "close")
    _same_length(close=closes, high=tops, low=bottoms)
    bars, fewest = _count("window", window), _count("min_periods", min_periods, window)
    linked = _follows(follows, closes)
    return _core.rolling_true_range(tops, bottoms, closes, linked, bars, fewest)


@functools.cache
def _preset() -> Config:
    return Config.preset()


@functools.lru_cache(maxsize=64)
def _settings(*changes: tuple[str, str | None]) -> dict[str, dict[str, Any]]:
    """Return the default configuration with what was given, for the core to read words from."""
    given = {name: value for name, value in changes if value is not None}
    return _preset().override(given).to_dict()


def _of_bars(source: str | None) -> str | None:
    if source == "trades":
        raise ConfigError(
            "bars hold no trades",
            field="profile.source",
            found=source,
            expected="close, close_volume or range_volume",
        )
    return source


def _needed(column: Column | None, name: str, mode: str) -> Column:
    if column is None:
        raise DataError(f"the mode {mode!r} needs this column", column=name, found="nothing")
    return column


def _table(table: Sessions | None) -> Sessions:
    return load_sessions() if table is None else table


def _count(name: str, value: int | None, default: int = 0) -> int:
    number = default if value is None else value
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise ConfigError("not a count", field=name, found=repr(value), expected="1 or more")
    return int(number)


def _tick_nanos(tick_size: float | Instrument) -> int:
    if isinstance(tick_size, Instrument):
        return tick_size.tick_nanos
    return Instrument("tick", tick_size=tick_size, point_value=1.0, commission=0.0).tick_nanos


def _array(values: Column, name: str) -> NDArray[Any]:
    """Return a column as a contiguous array of one dimension, without a copy where it is one."""
    if isinstance(values, pl.Series):
        nulls = values.is_null()
        if nulls.any():
            raise DataError("the value is missing", row=nulls.arg_max(), column=name, found="null")
        if isinstance(values.dtype, pl.Datetime):
            values = values.dt.cast_time_unit("ns").to_physical()
        return values.rechunk().to_numpy()
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise DataError(
            "not a column",
            column=name,
            found=type(values).__name__,
            expected="a NumPy array of one dimension or a Polars series",
        )
    return np.ascontiguousarray(values)


def _wrong_type(name: str, array: NDArray[Any], expected: str) -> DataError:
    return DataError(
        "the column has another type", column=name, found=str(array.dtype), expected=expected
    )


def _floats(values: Column, name: str) -> NDArray[np.float64]:
    array = _array(values, name)
    if array.dtype != np.float64:
        raise _wrong_type(name, array, "float64")
    return array


def _whole(values: Column, name: str) -> NDArray[np.int64]:
    array = _array(values, name)
    if array.dtype == np.int64:
        return array
    if array.dtype.kind not in "iu":
        raise _wrong_type(name, array, "int64")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(
            "the number is too large",
            row=int(array.argmax()),
            column=name,
            found=str(array.max()),
            expected="int64",
        )
    return array.astype(np.int64)


_volumes = _whole


def _nanos(values: Column, name: str) -> NDArray[np.int64]:
    array = _array(values, name)
    if array.dtype == np.int64:
        return array
    if array.dtype != np.float64:
        raise _wrong_type(name, array, "float64 in points, or int64 in 1e-9")
    return _core.points_to_nanos(array, name)


def _times(values: Column, name: str) -> NDArray[np.int64]:
    array = _array(values, name)
    if array.dtype.kind == "M":
        if np.isnat(array).any():
            row = int(np.isnat(array).argmax())
            raise DataError("the value is missing", row=row, column=name, found="NaT")
        return array.astype("datetime64[ns]").view(np.int64)
    if array.dtype != np.int64:
        raise _wrong_type(name, array, "int64 in ns, or a datetime")
    return array


def _follows(values: Column | None, closes: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    if values is None:
        return None
    array = _array(values, "follows")
    if array.dtype != np.bool_:
        raise _wrong_type("follows", array, "bool")
    _same_length(close=closes, follows=array)
    return array


def _same_length(**columns: NDArray[Any]) -> None:
    (first, rows), *others = ((name, len(array)) for name, array in columns.items())
    for name, found in others:
        if found != rows:
            raise DataError(
                f"another length than {first}", column=name, found=str(found), expected=str(rows)
            )
