"""Simulated bars: the shape of a market with nothing in it to earn.

The price is a random walk on the tick grid whose steps are symmetric whatever came before, so the
expected change over any time, up to any stop or target, is zero. Open, high, low and close come
from one path of single ticks inside the minute. Only *when* the market is busy has structure: a
quiet night, a burst at the cash open and close, days and half hours that are busier than others,
and short bursts that make volume clusters. Steps are more frequent in busy minutes, which gives the
volatility its time of day; their direction knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from clustercore.bars import Bars, interval_text, parse_interval
from clustercore.contracts import expiry_of
from clustercore.errors import ConfigError
from clustercore.instruments import NANOS_PER_POINT, Instrument
from clustercore.sessions import load_sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["sample", "sample_parent"]

_MINUTE_NS = 60 * 10**9
_DAY_MINUTES = 1380
_START = "2024-10-02"

# Minutes since 17:00 Chicago, and how busy such a minute is beside an average one: round figures
# for an equity index future (Asia, Europe's open at 480, cash open at 930, cash close at 1320).
_BUSY = (
    (0, 0.5),
    (15, 0.2),
    (60, 0.12),
    (150, 0.22),
    (300, 0.1),
    (460, 0.12),
    (480, 0.35),
    (600, 0.3),
    (840, 0.5),
    (929, 0.8),
    (930, 5.5),
    (960, 3.6),
    (1080, 1.8),
    (1200, 1.5),
    (1290, 2.0),
    (1310, 3.2),
    (1319, 5.0),
    (1320, 3.0),
    (1335, 1.2),
    (1336, 0.35),
    (1379, 0.25),
)

# Log activity: standard deviations of the parts and their persistence from minute to minute.
_DAY_SD = 0.25
_SLOW_SD, _SLOW_KEEP = 0.35, 0.98
_FAST_SD, _FAST_KEEP = 0.45, 0.6
_BURSTS_A_SESSION = 3.0
_BURST_LOG_SIZE, _BURST_LOG_SIZE_SD = 1.2, 0.35
_BURST_MINUTES = (4.0, 12.0)
_BURST_REACH = 60
# Variance grows more slowly than volume: 50 times the volume comes with 10 times the variance.
_VARIANCE_POWER = 0.6
# Above this many steps a minute, steps become larger than a tick to keep the simulation short.
_MOST_STEPS_A_MINUTE = 40.0
_GAP_SHARE_OF_DAY = 0.15


@dataclass(frozen=True)
class _Market:
    """Level, daily volatility and contracts a minute of a simulated market, in round figures."""

    price: float
    daily_volatility: float
    volume_a_minute: float


_MARKETS = {
    "ES": _Market(5000.0, 0.008, 1000.0),
    "MES": _Market(5000.0, 0.008, 700.0),
    "NQ": _Market(18000.0, 0.011, 400.0),
    "MNQ": _Market(18000.0, 0.011, 800.0),
    "YM": _Market(40000.0, 0.008, 100.0),
    "MYM": _Market(40000.0, 0.008, 120.0),
    "RTY": _Market(2100.0, 0.012, 140.0),
    "M2K": _Market(2100.0, 0.012, 120.0),
    "CL": _Market(75.0, 0.018, 200.0),
    "GC": _Market(2400.0, 0.010, 130.0),
}


def sample(
    sessions: int = 60,
    seed: int = 1,
    instrument: Instrument | str = "ES",
    interval: str = "1m",
    *,
    start: str | date = _START,
) -> Bars:
    """Return simulated bars without drift, marked as simulated.

    Parameters
    ----------
    sessions : int, default 60
        How many sessions of the instrument's calendar, half days included.
    seed : int, default 1
        The same seed gives the same bars.
    instrument : Instrument or str, default "ES"
        What is simulated; level and volatility of an unknown root are those of ES.
    interval : str, default "1m"
        Whole minutes that divide an hour, or hours that divide a day.
    start : str or date, default "2024-10-02"
        Trade date to begin at; the default covers a clock change and three half days.

    Returns
    -------
    Bars
        ``simulated`` is true and the symbol ends with ``.SIMULATED``. A minute in which nothing
        traded has no bar.

    Examples
    --------
    >>> bars = sample(sessions=2, seed=7)
    >>> bars.simulated, bars.symbols
    (True, ('ES.SIMULATED',))
    """
    resolved = Instrument.builtin(instrument) if isinstance(instrument, str) else instrument
    interval_ns = _whole_minutes(interval)
    frame = _minute_bars(sessions, seed, resolved, start)
    if interval_ns > _MINUTE_NS:
        frame = _longer(frame, interval_ns)
    symbol = f"{resolved.root}.SIMULATED"
    return Bars(
        frame=frame.with_columns(symbol=pl.lit(symbol), context=pl.lit(value=False)).rechunk(),
        interval_ns=interval_ns,
        instrument=resolved,
        source=f"sample(seed={seed})",
        simulated=True,
        notes=(f"SIMULATED: {sessions} sessions without drift, seed {seed}; no market made them",),
    )


def sample_parent(
    sessions: int = 60,
    seed: int = 1,
    instrument: Instrument | str = "ES",
    *,
    start: str | date = "2024-11-01",
    basis: float = 50.0,
) -> pl.DataFrame:
    """Return simulated bars of a parent symbol: months side by side, their spreads, a roll.

    The quarterly months trade at once. The near one has almost all the volume until a week before
    its last trading day, half of it six days before, and none after that day.

    Parameters
    ----------
    sessions, seed, instrument, start
        As for `sample`.
    basis : float, default 50.0
        Points by which each month trades above the one before it.

    Returns
    -------
    polars.DataFrame
        ``ts_event`` Datetime(ns, UTC) (start of the bar), ``open high low close`` Float64,
        ``volume`` Int64, ``symbol`` String; in order of time, then symbol.

    Examples
    --------
    >>> frame = sample_parent(sessions=3)
    >>> frame["symbol"].unique().sort().to_list()
    ['ESH5', 'ESZ4', 'ESZ4-ESH5']
    """
    resolved = Instrument.builtin(instrument) if isinstance(instrument, str) else instrument
    minutes = _minute_bars(sessions, seed, resolved, start, keep_session=True)
    table = load_sessions(resolved.calendar).frame
    trade_dates = table["trade_date"].gather(minutes["session"])
    minutes = minutes.with_columns(trade_date=trade_dates)
    months = _quarters(resolved.root, trade_dates.min(), trade_dates.max())
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    parts = []
    for place, (symbol, expiry) in enumerate(months):
        begin = months[place - 2][1] if place >= 2 else date.min  # noqa: PLR2004
        near_until = expiry
        listed = minutes.filter(pl.col("trade_date") > begin, pl.col("trade_date") <= near_until)
        if listed.is_empty():
            continue
        before = months[place - 1][1] if place else None
        share = _share(listed["trade_date"], before) * (1.0 - _share(listed["trade_date"], expiry))
        volume = rng.binomial(listed["volume"].to_numpy(), share.to_numpy())
        shift = round(basis * place / resolved.tick_size) * resolved.tick_size
        parts.append(
            listed.with_columns(
                (pl.col("open", "high", "low", "close") + shift).round(9),
                volume=pl.Series(volume, dtype=pl.Int64),
                symbol=pl.lit(symbol),
            )
        )
        if place + 1 < len(months):
            parts.append(_spread_rows(listed, symbol, months[place + 1][0], basis, rng))
    columns = ["ts_event", "open", "high", "low", "close", "volume", "symbol"]
    return (
        pl.concat([part.select(columns) for part in parts])
        .filter(pl.col("volume") > 0)
        .sort("ts_event", "symbol")
        .rechunk()
    )


def _whole_minutes(interval: str) -> int:
    interval_ns = parse_interval(interval)
    if interval_ns % _MINUTE_NS:
        raise ConfigError(
            "simulated bars are whole minutes long",
            field="interval",
            found=interval_text(interval_ns),
            expected='"1m" or a multiple of it',
        )
    return interval_ns


def _minute_bars(
    sessions: int,
    seed: int,
    instrument: Instrument,
    start: str | date,
    *,
    keep_session: bool = False,
) -> pl.DataFrame:
    calendar = load_sessions(instrument.calendar)
    available = calendar.between(start)
    if not 1 <= sessions <= len(available):
        raise ConfigError(
            "that many sessions cannot be simulated",
            field="sessions",
            found=str(sessions),
            expected=f"1 to {len(available)} from {start} on",
        )
    market = _MARKETS.get(instrument.root, _MARKETS["ES"])
    rng = np.random.Generator(np.random.PCG64(seed))
    opens = available.open_ns[:sessions]
    lengths = (available.close_ns[:sessions] - opens) // _MINUTE_NS
    activity = _activity(rng, sessions, int(lengths.max()))
    inside = np.arange(activity.shape[1]) < lengths[:, None]
    minute = np.arange(activity.shape[1]) * _MINUTE_NS
    starts = (opens[:, None] + minute)[inside]
    activity = activity[inside]
    first = np.zeros(inside.shape, dtype=bool)
    first[:, 0] = True
    ticks_a_day = market.price * market.daily_volatility / instrument.tick_size
    path = _paths(rng, activity, first[inside], ticks_a_day)
    volume = rng.poisson(rng.gamma(8.0, activity * (market.volume_a_minute / 8.0)))
    # More steps than contracts cannot be: every step is at least one trade.
    volume = np.where(volume > 0, np.maximum(volume, path["steps"]), 0)
    level = round(market.price / instrument.tick_size)
    lowest = level + int(path["low"].min())
    if lowest <= 0:
        raise ConfigError(
            "the simulated price fell to zero; simulate fewer sessions or another seed",
            field="sessions",
            found=str(sessions),
            expected="fewer",
        )
    session = calendar.locate(pl.Series(starts))
    frame = pl.DataFrame(
        {
            "ts_event": pl.Series(starts).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
            **{
                name: (path[name] + level) * instrument.tick_nanos / NANOS_PER_POINT
                for name in ("open", "high", "low", "close")
            },
            "volume": volume.astype(np.int64),
            "session": session,
        }
    ).filter(pl.col("volume") > 0)
    frame = _without_halts(frame, calendar.columns())
    return frame if keep_session else frame.drop("session")


def _activity(rng: np.random.Generator, sessions: int, minutes: int) -> NDArray[np.float64]:
    """Return how busy each minute is: mean near 1, shape (sessions, minutes)."""
    curve = _curve(minutes)
    log = np.log(curve) + rng.normal(0.0, _DAY_SD, (sessions, 1))
    for sd, keep in ((_SLOW_SD, _SLOW_KEEP), (_FAST_SD, _FAST_KEEP)):
        shocks = rng.standard_normal((minutes, sessions))
        shocks[1:] *= np.sqrt(1.0 - keep * keep)
        for minute in range(1, minutes):
            shocks[minute] += keep * shocks[minute - 1]
        log += sd * shocks.T
    for session in range(sessions):
        count = int(rng.poisson(_BURSTS_A_SESSION))
        begins = rng.integers(0, minutes, count)
        sizes = rng.normal(_BURST_LOG_SIZE, _BURST_LOG_SIZE_SD, count)
        decays = rng.uniform(*_BURST_MINUTES, count)
        for begin, size, decay in zip(begins, sizes, decays, strict=True):
            reach = min(_BURST_REACH, minutes - int(begin))
            log[session, begin : begin + reach] += size * np.exp(-np.arange(reach) / decay)
    spread = _DAY_SD**2 + _SLOW_SD**2 + _FAST_SD**2
    activity: NDArray[np.float64] = np.exp(log - spread / 2) / _curve(_DAY_MINUTES).mean()
    return activity


def _curve(minutes: int) -> NDArray[np.float64]:
    at, busy = zip(*_BUSY, strict=True)
    curve: NDArray[np.float64] = np.interp(np.arange(minutes), at, busy)
    return curve


def _paths(
    rng: np.random.Generator,
    activity: NDArray[np.float64],
    first: NDArray[np.bool_],
    ticks_a_day: float,
) -> dict[str, NDArray[np.int64]]:
    """Walk through every minute, and return its prices in ticks from the start.

    Every step is symmetric and its size does not depend on the steps before, so the walk is a
    martingale, stopped wherever one likes.
    """
    busy = activity**_VARIANCE_POWER
    steps_a_minute = ticks_a_day**2 / _DAY_MINUTES
    largest = max(1, round(np.sqrt(steps_a_minute / _MOST_STEPS_A_MINUTE)))
    # The mean square of 1..largest, every size as likely as another.
    square = (largest + 1) * (2 * largest + 1) / 6.0
    expected = busy * (steps_a_minute / square / busy.mean())
    counts = 1 + rng.poisson(expected)
    begins = np.concatenate(([0], np.cumsum(counts)[:-1]))
    total = int(counts.sum())
    moves = rng.integers(0, 2, total, dtype=np.int8).astype(np.int64) * 2 - 1
    if largest > 1:
        moves *= rng.integers(1, largest + 1, total, dtype=np.int64)
    # From one minute to the next the price mostly stays; between sessions it has moved on.
    moves[begins] *= rng.integers(0, 4, len(begins)) == 0
    gaps = begins[first]
    moves[gaps] = np.rint(rng.normal(0.0, ticks_a_day * _GAP_SHARE_OF_DAY, len(gaps)))
    moves[0] = 0
    walk = np.cumsum(moves)
    ends = begins + counts - 1
    return {
        "open": walk[begins],
        "high": np.maximum.reduceat(walk, begins),
        "low": np.minimum.reduceat(walk, begins),
        "close": walk[ends],
        "steps": counts,
    }


def _without_halts(frame: pl.DataFrame, columns: Mapping[str, NDArray[Any]]) -> pl.DataFrame:
    """Drop minutes that start inside a scheduled halt."""
    starts, ends = columns["halts_start_ns"], columns["halts_end_ns"]
    if not len(starts):
        return frame
    time = frame["ts_event"].to_physical().to_numpy()
    place = np.searchsorted(starts, time, side="right") - 1
    halted = (place >= 0) & (time < ends[np.maximum(place, 0)])
    return frame.filter(pl.Series(~halted))


def _longer(frame: pl.DataFrame, interval_ns: int) -> pl.DataFrame:
    time = pl.col("ts_event").to_physical()
    begin = (time - time % interval_ns).cast(frame.schema["ts_event"])
    return (
        frame.with_columns(ts_event=begin)
        .group_by("ts_event", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )


def _quarters(root: str, first: object, last: object) -> list[tuple[str, date]]:
    """Return the quarterly months from the one in front on ``first`` to two after ``last``."""
    if not isinstance(first, date) or not isinstance(last, date):
        raise TypeError("trade dates were expected")
    months: list[tuple[str, date]] = []
    for year in range(first.year, last.year + 2):
        for code in "HMUZ":
            symbol = f"{root}{code}{year % 10}"
            expiry = expiry_of(symbol, date(year, 1, 1))
            if expiry >= first:
                months.append((symbol, expiry))
            if expiry > last and len(months) > 1 and months[-2][1] > last:
                return months
    return months


def _share(trade_dates: pl.Series, expiry: date | None) -> pl.Series:
    """Return how much of the volume has left a month: little long before its expiry, all at it."""
    if expiry is None:
        return pl.Series([1.0]).new_from_index(0, len(trade_dates))
    days = (trade_dates - expiry).dt.total_days().cast(pl.Float64) + 6.0
    # Never quite nothing: the month behind trades a little all the time.
    return 0.003 + 0.994 / (1.0 + (-days * 1.6).exp())


def _spread_rows(
    listed: pl.DataFrame, near: str, far: str, basis: float, rng: np.random.Generator
) -> pl.DataFrame:
    """Return bars of the calendar spread: a differential, on a finer grid than the outrights."""
    some = listed.filter(pl.Series(rng.random(listed.height) < 0.05))  # noqa: PLR2004
    price = basis + 0.05 * rng.integers(-4, 5, some.height)
    prices = {name: pl.Series(name, price).round(9) for name in ("open", "high", "low", "close")}
    return some.with_columns(
        **prices,
        volume=pl.Series(rng.integers(1, 20, some.height), dtype=pl.Int64),
        symbol=pl.lit(f"{near}-{far}"),
    )
