"""What the page's script is given: numbers in columns, times in milliseconds since 1970 UTC."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from clustercore.bars import PRICE_COLUMNS
from clustercore.errors import DataError
from clustercore.report.encode import BarColumns, encode_bars, price_unit
from clustercore.report.words import REASONS
from clustercore.sessions import load_sessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clustercore.bars import Bars
    from clustercore.result import BacktestResult
    from clustercore.sessions import Sessions

__all__ = ["Payload", "build_payload", "histogram", "new_york_offsets"]

NANOS_A_POINT: Final = 1_000_000_000
_NANOS_A_MS: Final = 1_000_000
_NEW_YORK: Final = ZoneInfo("America/New_York")
# About eight years of one-minute bars; the page stays under 15 MB.
_MOST_BAR_BYTES: Final = 8_000_000
_POSITION_BINS: Final = 40
_RATIO_BINS: Final = 40

_TRADE_COLUMNS: Final = (
    "symbol", "direction", "quantity", "decision_time", "confirmed_time", "entry_time",
    "entry_price", "stop", "target", "exit_time", "exit_price", "exit_reason", "gross", "costs",
    "net", "mae", "mfe", "bars_held", "volume_ratio", "rank", "modal_price", "modal_position",
    "strength", "context", "multiplier", "ambiguous", "optimistic", "stale", "modal_tied",
)  # fmt: skip
_CLUSTER_COLUMNS: Final = (
    "window_start", "decision_time", "low", "high", "volume", "volume_ratio", "rank",
    "modal_price", "value_area_low", "value_area_high", "modal_position", "direction", "strength",
    "reason",
)  # fmt: skip
_SIGNAL_COLUMNS: Final = (
    "decision_time", "direction", "modal_price", "confirmed_time", "resolved_time", "reason",
)  # fmt: skip
_ORDER_COLUMNS: Final = (
    "decision_time", "confirmed_time", "direction", "quantity", "mode", "limit_price",
    "resolved_time", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Payload:
    """What goes into the page's data elements.

    Attributes
    ----------
    data : dict
        Sessions, trades, equity, distributions.
    levels : dict
        Clusters, signals and orders, for the session chart alone.
    bars : str
        Base64 of the bar blocks, one after the other.
    charted, session_count : int
        Sessions with bars in the page, and sessions in all.
    """

    data: dict[str, Any]
    levels: dict[str, Any]
    bars: str
    charted: int
    session_count: int


def build_payload(result: BacktestResult) -> Payload:
    """Return what the page's script needs of a result."""
    sessions = result.sessions or load_sessions(
        result.instrument.calendar, day=result.config.session.day
    )
    open_ns, close_ns = sessions.open_ns, sessions.close_ns
    trade_dates = sessions.frame["trade_date"]
    columns = None if result.bars is None else _used_columns(result.bars)
    rows = _rows_of_dates(trade_dates, result.daily["trade_date"])
    if columns is not None:
        held = np.searchsorted(columns["ts_event"], close_ns) > np.searchsorted(
            columns["ts_event"], open_ns
        )
        rows = np.flatnonzero(held)
    # A row of the page's session list for each row of the session table that has bars.
    place = np.full(len(open_ns) + 1, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))

    def session_of(frame: pl.DataFrame, column: str) -> NDArray[np.int64]:
        """Return the place of instants that are ends of bars: a close belongs to its session."""
        times = frame[column].to_physical().to_numpy()
        found: NDArray[np.int64] = place[np.searchsorted(open_ns, times - 1, side="right") - 1]
        return found

    trades = result.trades.sort("entry_time")
    trade_session = session_of(trades, "decision_time")
    cluster_session = session_of(result.clusters, "decision_time")
    armed = (result.clusters["reason"] == "armed").to_numpy()
    counts = {
        "trades": _count(trade_session, len(rows)),
        "clusters": _count(cluster_session, len(rows)),
        "armed": _count(cluster_session[armed], len(rows)),
    }
    blocks, bar_columns, unit_nanos = _bar_blocks(result, columns, sessions, rows, counts)
    offset_span = (int(open_ns[rows[0]]), int(close_ns[rows[-1]])) if len(rows) else (0, 0)
    symbols = sorted({*trades["symbol"].unique(), *bar_columns.pop("symbols")})
    data: dict[str, Any] = {
        "root": result.instrument.root,
        "decimals": _decimals(unit_nanos),
        "unit": unit_nanos / NANOS_A_POINT,
        "interval": _interval_ms(result),
        "window": _window_ms(result),
        "offsets": new_york_offsets(*offset_span),
        "symbols": symbols,
        "reasons": REASONS,
        "sessions": {
            "date": [str(day) for day in trade_dates.gather(rows)],
            "open": (open_ns[rows] // _NANOS_A_MS).tolist(),
            "close": (close_ns[rows] // _NANOS_A_MS).tolist(),
            **{name: values.tolist() for name, values in counts.items()},
            **bar_columns,
        },
        "equity": _equity(result, sessions, place, len(rows)),
        "trades": {
            **_columns(trades, _TRADE_COLUMNS),
            "r": _in_risk(trades, result),
            "session": trade_session.tolist(),
        },
        "position": _position_histogram(result),
        "ratio": _ratio_histogram(result),
    }
    levels = {
        "clusters": {
            **_columns(result.clusters, _CLUSTER_COLUMNS),
            "session": cluster_session.tolist(),
        },
        "signals": _columns(result.signals, _SIGNAL_COLUMNS),
        "orders": _columns(result.orders, _ORDER_COLUMNS),
    }
    charted = sum(length > 0 for length in bar_columns["length"])
    return Payload(data, levels, base64.b64encode(blocks).decode("ascii"), charted, len(rows))


def _rows_of_dates(table: pl.Series, dates: pl.Series) -> NDArray[np.int64]:
    """Return the rows of a result that was loaded; its own session table is not saved with it."""
    found = dates.to_frame("date").join(
        pl.DataFrame({"date": table}).with_row_index("row").unique("date", keep="first"),
        on="date",
        how="left",
        maintain_order="left",
    )
    if found["row"].null_count():
        raise DataError(
            "a trade date that the session table does not hold",
            column="trade_date",
            found=str(found.filter(pl.col("row").is_null())["date"][0]),
            expected="write the report before saving when the session table is your own",
        )
    return found["row"].to_numpy().astype(np.int64)


def _count(session: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.bincount(session[session >= 0], minlength=length)


def _bar_blocks(
    result: BacktestResult,
    columns: dict[str, NDArray[np.int64]] | None,
    sessions: Sessions,
    rows: NDArray[np.int64],
    counts: dict[str, NDArray[np.int64]],
) -> tuple[bytes, dict[str, Any], int]:
    """Return the bar blocks, where each session's stands, and the unit of their prices.

    When the bars of all sessions are too many, those with trades come first, then those with armed
    signals, then those with clusters; of equals the later.
    """
    length, first = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    start, bar_count = length.copy(), length.copy()
    symbol: list[str | None] = [None] * len(rows)
    unit = result.instrument.tick_nanos
    streams: list[bytes] = []
    if result.bars is not None and columns is not None:
        prices = [columns[name] for name in PRICE_COLUMNS]
        unit = min(price_unit(values, unit) for values in prices)
        begin = np.searchsorted(columns["ts_event"], sessions.open_ns[rows])
        end = np.searchsorted(columns["ts_event"], sessions.close_ns[rows])
        importance = (
            4 * (counts["trades"] > 0) + 2 * (counts["armed"] > 0) + (counts["clusters"] > 0)
        )
        used = 0
        for place in np.lexsort((-np.arange(len(rows)), -importance)).tolist():
            part = slice(int(begin[place]), int(end[place]))
            if part.stop <= part.start or used >= _MOST_BAR_BYTES:
                continue
            times = columns["ts_event"][part]
            block = encode_bars(
                BarColumns(
                    (times - times[0]) // result.bars.interval_ns,
                    columns["open"][part] // unit,
                    columns["high"][part] // unit,
                    columns["low"][part] // unit,
                    columns["close"][part] // unit,
                    columns["volume"][part],
                )
            )
            streams.append(block)
            start[place], length[place] = used, len(block)
            bar_count[place], first[place] = len(times), times[0] // _NANOS_A_MS
            used += len(block)
        symbol = _symbols(result.bars, columns["row"], begin, end)
    return (
        b"".join(streams),
        {
            "symbol": symbol,
            "start": start.tolist(),
            "length": length.tolist(),
            "bars": bar_count.tolist(),
            "first": first.tolist(),
            "symbols": {name for name in symbol if name is not None},
        },
        unit,
    )


def _used_columns(bars: Bars) -> dict[str, NDArray[np.int64]]:
    """Return the bars that the engine traded on: no context, none without volume."""
    columns = bars.columns_nanos()
    used = ~bars.frame["context"].to_numpy() & (columns["volume"] > 0)
    columns = columns if used.all() else {name: values[used] for name, values in columns.items()}
    return {**columns, "row": np.flatnonzero(used)}


def _symbols(
    bars: Bars, row: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> list[str | None]:
    held = end > begin
    names = bars.frame["symbol"].gather(row[begin[held]]).to_list()
    found = iter(names)
    return [next(found) if holds else None for holds in held.tolist()]


def _interval_ms(result: BacktestResult) -> float:
    from clustercore.bars import parse_interval

    return parse_interval(result.manifest["data"]["interval"]) / _NANOS_A_MS


def _window_ms(result: BacktestResult) -> float:
    interval = _interval_ms(result)
    return float(-(-result.config.cluster.minutes * 60_000 // interval) * interval)


def _decimals(unit_nanos: int) -> int:
    exponent = (Decimal(unit_nanos) / NANOS_A_POINT).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def new_york_offsets(first_ns: int, last_ns: int) -> list[list[int]]:
    """Return New York's offsets from UTC over a span, each with the instant it begins; all ms.

    Examples
    --------
    >>> new_york_offsets(1_704_067_200_000_000_000, 1_712_000_000_000_000_000)
    [[1704067200000, -18000000], [1710054000000, -14400000]]
    """
    hour = timedelta(hours=1)
    instant = datetime.fromtimestamp(first_ns // NANOS_A_POINT, UTC)
    last = datetime.fromtimestamp(last_ns // NANOS_A_POINT, UTC)
    found = [[first_ns // _NANOS_A_MS, _offset_ms(instant)]]
    instant = instant.replace(minute=0, second=0)
    while instant < last:
        following = instant + 24 * hour
        if _offset_ms(following) != found[-1][1]:
            # Offsets change at a full hour of UTC.
            while _offset_ms(instant) == found[-1][1]:
                instant += hour
            found.append([int(instant.timestamp()) * 1000, _offset_ms(instant)])
        instant = following
    return found


def _offset_ms(instant: datetime) -> int:
    offset = instant.astimezone(_NEW_YORK).utcoffset() or timedelta()
    return offset // timedelta(milliseconds=1)


def _columns(frame: pl.DataFrame, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return columns as plain lists: times in ms, everything else as it is."""
    return {name: _plain(frame[name]).to_list() for name in names}


def _plain(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        return column.to_physical() // _NANOS_A_MS
    if column.dtype == pl.Float64:
        # Prices and ratios as they are meant, without the last bit's noise.
        return column.fill_nan(None).round(9)
    return column


def _in_risk(trades: pl.DataFrame, result: BacktestResult) -> list[float | None]:
    """Return each trade's net result in multiples of what it stood to lose at the stop."""
    value = float(result.instrument.point_value)
    risk = (pl.col("entry_price") - pl.col("stop")).abs() * value * pl.col("quantity")
    return trades.select(r=pl.col("net") / risk)["r"].to_list()


def _equity(
    result: BacktestResult, sessions: Sessions, place: NDArray[np.int64], length: int
) -> dict[str, Any]:
    """Return equity at the session ends and the deepest drawdown inside each session."""
    times = result.equity["time"].to_physical().to_numpy()
    session = place[np.searchsorted(sessions.open_ns, times - 1, side="right") - 1]
    # Not the frame's own drawdown, whose peak a halt can reset: the one that the statistics tell.
    marks = result.equity["equity"].to_numpy()
    peaks = np.maximum(np.maximum.accumulate(marks), result.config.account.balance)
    deepest = np.zeros(length)
    inside = session >= 0
    np.maximum.at(deepest, session[inside], (peaks - marks)[inside])
    return {
        "balance": result.config.account.balance,
        "close": result.daily["equity"].to_list(),
        "pnl": result.daily["pnl"].to_list(),
        "drawdown": deepest.tolist(),
        "risk": _columns(result.risk, ("time", "kind", "reason")),
    }


def histogram(values: pl.Series, edges: NDArray[np.float64]) -> list[int]:
    """Return counts between edges; the last bin holds its upper edge.

    Examples
    --------
    >>> histogram(pl.Series([0.1, 0.5, 1.0, None]), np.linspace(0, 1, 3))
    [1, 2]
    """
    counts: list[int] = np.histogram(values.drop_nulls().to_numpy(), bins=edges)[0].tolist()
    return counts


def _position_histogram(result: BacktestResult) -> dict[str, Any]:
    edges = np.linspace(0.0, 1.0, _POSITION_BINS + 1)
    armed = result.clusters.filter(pl.col("reason") == "armed")
    signal = result.config.signal
    return {
        "edges": edges.tolist(),
        "all": histogram(result.clusters["modal_position"], edges),
        "armed": histogram(armed["modal_position"], edges),
        "long": signal.long_threshold,
        "short": signal.short_threshold if signal.shorts else None,
    }


def _ratio_histogram(result: BacktestResult) -> dict[str, Any]:
    ratios = result.clusters["volume_ratio"].drop_nulls()
    ratios = ratios.filter(ratios.is_finite() & (ratios > 0))
    armed = result.clusters.filter(pl.col("reason") == "armed")["volume_ratio"]
    threshold = float(result.config.cluster.threshold)
    if ratios.is_empty():
        return {"edges": [], "all": [], "armed": [], "threshold": threshold}
    low, high = float(ratios.min()), float(ratios.max())  # type: ignore[arg-type]
    high = max(high, low * 1.01)
    edges = np.geomspace(low, high, _RATIO_BINS + 1)
    # Powers are not exact at the ends, and no cluster may fall out.
    edges[0], edges[-1] = low, high
    return {
        "edges": edges.tolist(),
        "all": histogram(ratios, edges),
        "armed": histogram(armed, edges),
        "threshold": threshold,
    }
