"""Contracts: which month is in front, decided from what was known before the session opened.

A file of a parent symbol holds several months and their spreads side by side. The engine takes one
symbol a session, so such a file is reduced here. Nothing that happens in a session has a part in
the choice for it: cutting the input anywhere after a session's open leaves that choice as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import polars as pl

from clustercore.errors import ConfigError, DataError
from clustercore.instruments import parse_symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clustercore.sessions import Sessions

__all__ = [
    "FrontChoice",
    "FrontSelection",
    "choose_front",
    "expiry_of",
    "is_spread",
    "refuse_mixed",
    "select_front",
    "single_contract",
]

Every = Literal["session", "week"]

_NANOS_AN_HOUR: Final = 3_600_000_000_000
_DAYS_OF_WATCH_BEFORE_EXPIRY: Final = 8
_SHARE_OUTSIDE_REFUSED: Final = 0.05
_FRIDAY: Final = 4
_NAMES_SHOWN: Final = 8

_CRUDE_ROOTS: Final = frozenset({"CL", "MCL", "QM"})
_EQUITY_ROOTS: Final = frozenset(
    {"ES", "MES", "NQ", "MNQ", "YM", "MYM", "RTY", "M2K", "EMD", "SP", "ND"}
)
# Third Fridays of a quarterly month on which the cash market is shut: the contract ends the day
# before. Good Friday in 2008, Juneteenth in 2026 and (observed) 2027.
_SHUT_THIRD_FRIDAYS: Final = frozenset({date(2008, 3, 21), date(2026, 6, 19), date(2027, 6, 18)})

_Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)  # frames have no one answer to ==
class FrontSelection:
    """What `select_front` chose.

    Attributes
    ----------
    frame : polars.DataFrame
        The bars of the chosen contracts, one symbol a session, with ``context``. Where the contract
        changes, the incoming contract's last ended session stands before its first bar with
        ``context = True``; those rows go back in time, on purpose.
    table : polars.DataFrame
        One row a session: ``trade_date`` Date; ``open`` Datetime("ns", "UTC"); ``symbol`` String,
        null when none could be chosen; ``expiry`` Date, its last trading day; ``reason`` String;
        ``bars`` Int64, bars of that symbol in the session; ``context_bars`` Int64; ``volumes``
        List(Struct{symbol, volume}), the volume of each month over the lookback, by expiry.
        Reasons: ``first`` (first choice), ``volume`` (a later month traded more), ``expiry`` (the
        month held reaches its last trading day), ``held`` (no change), ``nothing_known`` (no volume
        of any allowed month before the open: the session is left out).
    dropped : dict of str to int
        Rows that did not go on: ``spread``, ``outside_sessions``, ``other_month``,
        ``nothing_known``.
    """

    frame: pl.DataFrame
    table: pl.DataFrame
    dropped: dict[str, int]

    def notes(self) -> tuple[str, ...]:
        """Return what was removed and where the contract changed, in plain words."""
        words = {
            "spread": "removed {} rows of calendar spreads",
            "outside_sessions": "removed {} rows outside every session",
            "other_month": "removed {} rows of months that were not in front",
            "nothing_known": (
                "removed {} rows of sessions before which no month's volume was known"
            ),
        }
        removed = [
            text.format(self.dropped[key]) for key, text in words.items() if self.dropped[key]
        ]
        rolls = self.table.filter(pl.col("reason").is_in(["volume", "expiry"]))
        changes = [
            f"contract {symbol} from trade date {day} ({reason})"
            for day, symbol, reason in rolls.select("trade_date", "symbol", "reason").iter_rows()
        ]
        return (*removed, *changes)


def select_front(
    frame: pl.DataFrame,
    sessions: Sessions,
    interval_ns: int,
    *,
    lookback_hours: float = 12.0,
    every: Every = "session",
) -> FrontSelection:
    """Reduce the bars of several months to one front contract a session.

    For each session, the month with the most volume over the last `lookback_hours` of session time
    (time inside sessions, scheduled halts included) is chosen, from bars that had ended when the
    session opened. Never a month that expires before the one held, and never one in the session of
    its last trading day or later. Of equals, the earlier expiry.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars of several months of one root: ``ts_event`` Datetime("ns", "UTC"), the start of the
        bar, ``symbol`` String, ``volume`` Int64, and any other columns, which are passed on.
        Rows with ``-`` in the symbol or ``instrument_class`` S are spreads and are dropped.
    sessions : Sessions
        The session table.
    interval_ns : int
        Length of a bar in ns.
    lookback_hours : float
        Session time over which volume is compared.
    every : {"session", "week"}
        How often the choice is made anew. With ``"week"`` that is the first session of each week,
        and every session from eight days before the expiry of the month held.

    Returns
    -------
    FrontSelection
        The bars, the table of choices, and counts of what was dropped.

    Raises
    ------
    ConfigError
        `every` or `lookback_hours` is not usable.
    DataError
        A symbol is no single month, the roots differ, a column is missing, or more than 5 % of the
        rows lie outside every session.

    Examples
    --------
    >>> from clustercore.sessions import load_sessions
    >>> sessions = load_sessions().between("2024-03-05", "2024-03-07")
    >>> an_hour_before_close = sessions.frame["close"].dt.offset_by("-1h")
    >>> bars = pl.DataFrame(
    ...     {
    ...         "ts_event": an_hour_before_close.repeat_by(2).explode(empty_as_null=True),
    ...         "symbol": ["ESH4", "ESM4"] * 3,
    ...         "volume": [9, 5, 4, 8, 1, 9],
    ...     }
    ... )
    >>> selection = select_front(bars, sessions, 60_000_000_000)
    >>> selection.table.select("symbol", "reason").rows()
    [(None, 'nothing_known'), ('ESH4', 'first'), ('ESM4', 'volume')]
    """
    _check_settings(lookback_hours, every)
    _require(frame, ("ts_event", "symbol", "volume"))
    bars = frame.with_row_index("row")
    if "context" in bars.columns:
        bars = bars.drop("context")
    spreads = is_spread(bars)
    outright = bars.filter(~spreads)
    outright = outright.with_columns(session=sessions.locate(outright["ts_event"]))
    inside = outright.filter(pl.col("session").is_not_null())
    dropped = {"spread": len(bars) - len(outright), "outside_sessions": len(outright) - len(inside)}
    if dropped["outside_sessions"] > _SHARE_OUTSIDE_REFUSED * len(outright):
        raise _outside_error(outright)
    inside = _with_expiry(inside, sessions)
    steps = _choose(inside, sessions, interval_ns, lookback_hours, every)
    return _assemble(inside, steps, sessions, dropped)


@dataclass(frozen=True, eq=False)  # frames have no one answer to ==
class FrontChoice:
    """The month in front in one session.

    Attributes
    ----------
    symbol : str or None
        The month; None when none could be chosen.
    expiry : date or None
        Its last trading day.
    reason : str
        As in the table of `FrontSelection`.
    context : polars.DataFrame
        At a roll, the bars of the incoming month's last ended session; empty otherwise.
    """

    symbol: str | None
    expiry: date | None
    reason: str
    context: pl.DataFrame


def choose_front(
    frame: pl.DataFrame,
    sessions: Sessions,
    session: int,
    interval_ns: int,
    *,
    held: tuple[str, date] | None = None,
    lookback_hours: float = 12.0,
    every: Every = "session",
) -> FrontChoice:
    """Choose the front month of one session, as `select_front` does for all of them.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars of the months as in `select_front`; those from the session's open on are not looked at.
    sessions : Sessions
        The session table.
    session : int
        Row of the session in the table.
    interval_ns : int
        Length of a bar in ns.
    held : tuple of str and date, optional
        Symbol and last trading day of the month held before.
    lookback_hours, every
        As for `select_front`.

    Returns
    -------
    FrontChoice
        The month, the reason, and the context of a roll.

    Examples
    --------
    >>> from clustercore.sessions import load_sessions
    >>> sessions = load_sessions().between("2024-03-05", "2024-03-06")
    >>> bars = pl.DataFrame(
    ...     {
    ...         "ts_event": [sessions.frame["close"][0] - timedelta(hours=1)] * 2,
    ...         "symbol": ["ESH4", "ESM4"],
    ...         "volume": [9, 5],
    ...     }
    ... )
    >>> choose_front(bars, sessions, 1, 60_000_000_000).symbol
    'ESH4'
    """
    _check_settings(lookback_hours, every)
    _require(frame, ("ts_event", "symbol", "volume"))
    bars = frame.filter(~is_spread(frame)).with_row_index("row")
    bars = bars.with_columns(session=sessions.locate(bars["ts_event"]))
    inside = _with_expiry(bars.filter(pl.col("session") < session), sessions)
    first = _span(inside)[0] if inside.height else session
    contracts = _contracts(inside, sessions, interval_ns, lookback_hours, (first, session))
    days = sessions.frame["trade_date"]
    day = days[session]
    known = [item for item in contracts if item.volumes[session - first] > 0]
    week_begins = session == 0 or _week(day) != _week(days[session - 1])
    nothing = np.zeros(0, dtype=np.int64)
    before = None if held is None else _Contract(*held, nothing, 0, nothing)
    step = _step(
        session, day, before, known, examined=every == "session" or week_begins, first=first
    )
    chosen = step.contract
    context = _context_rows(inside, [step]).sort("ts_event")
    extra = ("row", "session", "trade_date", "expiry", "leads")
    return FrontChoice(
        None if chosen is None else chosen.symbol,
        None if chosen is None else chosen.expiry,
        step.reason,
        context.drop(extra),
    )


def single_contract(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """Return the rows of one symbol.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars with a ``symbol`` column.
    symbol : str
        The symbol, exactly as it stands in the data.

    Returns
    -------
    polars.DataFrame
        Its rows, in their order.

    Raises
    ------
    DataError
        No row has that symbol.

    Examples
    --------
    >>> single_contract(pl.DataFrame({"symbol": ["ESH4", "ESM4", "ESH4"]}), "ESH4").height
    2
    """
    _require(frame, ("symbol",))
    kept = frame.filter(pl.col("symbol") == symbol)
    if kept.is_empty():
        raise DataError(
            f"no bar of {symbol}",
            column="symbol",
            found=_listed(frame["symbol"].unique().sort().to_list()),
            expected="one of the symbols in the data",
        )
    return kept


def refuse_mixed(frame: pl.DataFrame, sessions: Sessions) -> None:
    """Refuse bars in which one session holds more than one symbol.

    A file that was already reduced to one month a session, or that has one continuous symbol such
    as ``ES.c.0``, passes.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars with ``ts_event`` and ``symbol``; rows with ``context`` are not looked at.
    sessions : Sessions
        The session table.

    Raises
    ------
    DataError
        Naming the first row whose symbol differs from that of its session's first row.

    Examples
    --------
    >>> from clustercore.sessions import load_sessions
    >>> sessions = load_sessions().between("2024-03-05", "2024-03-05")
    >>> bars = pl.DataFrame(
    ...     {"ts_event": [sessions.frame["open"][0]] * 2, "symbol": ["ESH4", "ESM4"]}
    ... )
    >>> refuse_mixed(bars, sessions)
    Traceback (most recent call last):
    clustercore.errors.DataError: row 1, column 'symbol': one session holds two contracts; ...
    """
    _require(frame, ("ts_event", "symbol"))
    if frame["symbol"].n_unique() <= 1:
        return
    other = (
        frame.with_row_index("row")
        .with_columns(session=sessions.locate(frame["ts_event"]))
        .filter(pl.col("session").is_not_null(), ~_context(frame))
        .with_columns(first=pl.col("symbol").first().over("session"))
        .filter(pl.col("symbol") != pl.col("first"))
        .head(1)
    )
    if not other.is_empty():
        found = other.row(0, named=True)
        raise DataError(
            "one session holds two contracts; pass symbol= for one of them, or the parent "
            "symbol for the front month of each session",
            row=found["row"],
            column="symbol",
            found=f"{found['first']} and {found['symbol']}",
            expected="one symbol a session",
        )


def is_spread(frame: pl.DataFrame) -> pl.Series:
    """Return which rows are spreads: ``-`` or ``:`` in the symbol, or instrument class S.

    ``-`` joins the legs of a calendar spread, ``:`` stands in the names of user-defined ones.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows with ``symbol`` and, where the source knows it, ``instrument_class``.

    Returns
    -------
    polars.Series of Boolean
        True for a spread.

    Examples
    --------
    >>> is_spread(pl.DataFrame({"symbol": ["ESH4", "ESH4-ESM4"]})).to_list()
    [False, True]
    """
    spread = frame["symbol"].str.contains("[-:]")
    if "instrument_class" in frame.columns:
        spread |= (frame["instrument_class"].cast(pl.String) == "S").fill_null(value=False)
    return spread


def expiry_of(symbol: str, on: date) -> date:
    """Return the last trading day of a month such as ``ESZ5`` as it reads on a given date.

    The year's digits mean the first such year whose last trading day is not before `on`.

    * Equity indices (ES, NQ, YM, RTY, their micros): the third Friday, or the day before where
      that is a holiday.
    * Crude oil (CL, MCL, QM): three weekdays before the 25th of the month before delivery (before
      the last weekday up to it).
    * Every other root, gold included: the last weekday of the month *before* the contract month,
      when notices begin. Holding on longer would be a choice nobody has checked.

    Holidays other than the third Friday's are not taken into account.

    Parameters
    ----------
    symbol : str
        Root, month code and one or two digits of the year.
    on : date
        A date on which the contract traded.

    Returns
    -------
    date
        The last trading day.

    Raises
    ------
    DataError
        The symbol is no single month.

    Examples
    --------
    >>> expiry_of("ESZ5", date(2025, 9, 24))
    datetime.date(2025, 12, 19)
    >>> expiry_of("ESZ5", date(2015, 9, 24))
    datetime.date(2015, 12, 18)
    >>> expiry_of("M2KM26", date(2026, 1, 5))
    datetime.date(2026, 6, 18)
    """
    root, month, digits = _parts_of(symbol)
    if len(digits) > 1:
        return _last_trading_day(root, 2000 + int(digits), month)
    # An expiry lies at most one month before its contract month, so the year before may count.
    return next(
        expiry
        for year in range(on.year, on.year + 12)
        if year % 10 == int(digits) and (expiry := _last_trading_day(root, year, month)) >= on
    )


def _parts_of(symbol: str) -> tuple[str, int, str]:
    parts = parse_symbol(symbol)
    if parts.month is None or parts.year_digits is None:
        raise DataError(
            "not the symbol of a single contract month",
            column="symbol",
            found=repr(symbol),
            expected="root, month code and year, such as ESZ5 or ESZ25",
        )
    return parts.root, parts.month, parts.year_digits


def _last_trading_day(root: str, year: int, month: int) -> date:
    if root in _EQUITY_ROOTS:
        return _third_friday(year, month)
    before = date(year, month, 1) - timedelta(days=1)
    if root in _CRUDE_ROOTS:
        return _weekdays_before(_weekday_up_to(before.replace(day=25)), 3)
    return _weekday_up_to(before)


def _third_friday(year: int, month: int) -> date:
    first = date(year, month, 1)
    friday = first + timedelta(days=(_FRIDAY - first.weekday()) % 7 + 14)
    return friday - timedelta(days=1) if friday in _SHUT_THIRD_FRIDAYS else friday


def _weekday_up_to(day: date) -> date:
    return day - timedelta(days=max(0, day.weekday() - _FRIDAY))


def _weekdays_before(day: date, count: int) -> date:
    for _ in range(count):
        day = _weekday_up_to(day - timedelta(days=1))
    return day


def _with_expiry(bars: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    """Add ``expiry`` and sort by it; one-digit years repeat, so the date says which one it is."""
    dated = bars.with_columns(trade_date=sessions.frame["trade_date"].gather(bars["session"]))
    seen = dated.group_by("symbol", maintain_order=True).agg(
        pl.col("row").first(), first=pl.col("trade_date").min(), last=pl.col("trade_date").max()
    )
    _refuse_two_roots(seen)
    possible = [
        (symbol, expiry)
        for symbol, first, last in seen.select("symbol", "first", "last").iter_rows()
        for expiry in _expiries_between(symbol, first, last)
    ]
    known = pl.DataFrame(
        possible, schema={"symbol": pl.String, "expiry": pl.Date}, orient="row"
    ).sort("expiry")
    return (
        dated.sort("trade_date")
        .join_asof(
            known,
            left_on="trade_date",
            right_on="expiry",
            by="symbol",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        # A bar after the last trading day of a two-digit year: still that contract.
        .with_columns(pl.col("expiry").fill_null(pl.col("expiry").max().over("symbol")))
        .sort("expiry", "symbol", "ts_event", "row")
    )


def _expiries_between(symbol: str, first: date, last: date) -> list[date]:
    """Return the last trading days that a symbol means on the dates from first to last."""
    expiries = [expiry_of(symbol, first)]
    while expiries[-1] < last:
        following = expiry_of(symbol, expiries[-1] + timedelta(days=1))
        if following <= expiries[-1]:
            break  # two digits name one year only
        expiries.append(following)
    return expiries


def _refuse_two_roots(seen: pl.DataFrame) -> None:
    root_of_first = None
    for symbol, row in seen.select("symbol", "row").iter_rows():
        try:
            root = _parts_of(symbol)[0]
        except DataError as error:
            raise DataError(
                error.problem, row=row, column="symbol", found=error.found, expected=error.expected
            ) from None
        root_of_first = root_of_first or root
        if root != root_of_first:
            raise DataError(
                "contracts of two roots in one selection; pass symbol= for one of them",
                row=row,
                column="symbol",
                found=f"{root_of_first} and {root}",
                expected="months of one root",
            )


@dataclass(frozen=True)
class _Contract:
    """One month of the data.

    ``volumes`` is what it traded within the lookback before each session's open; ``begin`` is the
    row at which its bars begin in the sorted frame, and ``sessions`` the session of each of them.
    """

    symbol: str
    expiry: date
    volumes: _Int64s
    begin: int
    sessions: _Int64s


@dataclass(frozen=True)
class _Step:
    """The choice for one session."""

    session: int
    contract: _Contract | None
    reason: str
    volumes: list[dict[str, object]]


def _choose(
    inside: pl.DataFrame, sessions: Sessions, interval_ns: int, lookback_hours: float, every: Every
) -> list[_Step]:
    if inside.is_empty():
        return []
    first, last = _span(inside)
    contracts = _contracts(inside, sessions, interval_ns, lookback_hours, (first, last))
    trade_dates = sessions.frame["trade_date"].to_list()
    held: _Contract | None = None
    steps = []
    for session in range(first, last + 1):
        day = trade_dates[session]
        week_begins = session == first or _week(day) != _week(trade_dates[session - 1])
        known = [item for item in contracts if item.volumes[session - first] > 0]
        step = _step(
            session, day, held, known, examined=every == "session" or week_begins, first=first
        )
        steps.append(step)
        held = step.contract or held
    return steps


def _step(
    session: int,
    day: date,
    held: _Contract | None,
    known: Sequence[_Contract],
    *,
    examined: bool,
    first: int,
) -> _Step:
    """Choose for one session. ``known`` is in order of expiry, so the first of equals wins."""
    volumes: list[dict[str, object]] = [
        {"symbol": item.symbol, "volume": int(item.volumes[session - first])} for item in known
    ]
    expiring = held is not None and day >= held.expiry
    watched = held is None or day >= held.expiry - timedelta(days=_DAYS_OF_WATCH_BEFORE_EXPIRY)
    if held is not None and not expiring and not (examined or watched):
        return _Step(session, held, "held", volumes)
    allowed = [
        item for item in known if day < item.expiry and (held is None or item.expiry >= held.expiry)
    ]
    best = max(allowed, key=lambda item: item.volumes[session - first], default=None)
    if best is None:
        kept = None if expiring else held
        return _Step(session, kept, "nothing_known" if kept is None else "held", volumes)
    if held is None:
        return _Step(session, best, "first", volumes)
    if best.expiry == held.expiry:
        return _Step(session, held, "held", volumes)
    return _Step(session, best, "expiry" if expiring else "volume", volumes)


def _contracts(
    inside: pl.DataFrame,
    sessions: Sessions,
    interval_ns: int,
    lookback_hours: float,
    span: tuple[int, int],
) -> list[_Contract]:
    """Return the months in order of expiry, each with its volume before every session's open."""
    first, last = span
    opens = sessions.open_ns[first : last + 1]
    closes = sessions.close_ns[first : last + 1]
    # Session time: the clock that stands still between sessions.
    clock_at_open = np.concatenate(([0], np.cumsum(closes - opens)[:-1])).astype(np.int64)
    since = clock_at_open - round(lookback_hours * _NANOS_AN_HOUR)
    contracts: list[_Contract] = []
    begin = 0
    for (expiry, symbol), bars in inside.group_by("expiry", "symbol", maintain_order=True):
        start_ns = bars["ts_event"].dt.cast_time_unit("ns").to_physical().to_numpy()
        session = bars["session"].to_numpy()
        clock = clock_at_open[session - first] + start_ns - opens[session - first]
        total = np.concatenate(([0], np.cumsum(bars["volume"].to_numpy().astype(np.int64))))
        known = np.searchsorted(start_ns + interval_ns, opens, side="right")
        too_old = np.searchsorted(clock, since, side="left")
        volumes = total[known] - total[np.minimum(too_old, known)]
        contracts.append(_Contract(str(symbol), _as_date(expiry), volumes, begin, session))
        begin += len(bars)
    return contracts


def _assemble(
    inside: pl.DataFrame, steps: Sequence[_Step], sessions: Sessions, dropped: dict[str, int]
) -> FrontSelection:
    chosen = pl.DataFrame(
        [
            (
                step.session,
                step.contract and step.contract.symbol,
                step.contract and step.contract.expiry,
            )
            for step in steps
        ],
        schema={"session": pl.Int64, "symbol": pl.String, "expiry": pl.Date},
        orient="row",
    )
    front = inside.join(chosen, on=["session", "symbol", "expiry"], how="semi")
    context = _context_rows(inside, steps)
    unknown = chosen.filter(pl.col("symbol").is_null())
    left_out = inside.join(unknown, on="session", how="semi").height
    dropped = {
        **dropped,
        "other_month": inside.height - front.height - left_out,
        "nothing_known": left_out,
    }
    # Context rows carry the session they lead into, so that sorting puts them before its bars.
    passed = pl.concat(
        [
            front.with_columns(context=pl.lit(value=False), leads=pl.col("session")),
            context,
        ]
    ).sort("leads", pl.col("context").not_(), "ts_event", maintain_order=True)
    counts = passed.group_by("leads").agg(
        bars=(~pl.col("context")).sum().cast(pl.Int64),
        context_bars=pl.col("context").sum().cast(pl.Int64),
    )
    table = (
        chosen.with_columns(
            reason=pl.Series([step.reason for step in steps], dtype=pl.String),
            volumes=pl.Series(
                [step.volumes for step in steps],
                dtype=pl.List(pl.Struct({"symbol": pl.String, "volume": pl.Int64})),
            ),
            trade_date=sessions.frame["trade_date"].gather(chosen["session"]),
            open=sessions.frame["open"].gather(chosen["session"]),
        )
        .join(counts, left_on="session", right_on="leads", how="left", maintain_order="left")
        .with_columns(pl.col("bars", "context_bars").fill_null(0))
        .select(
            "trade_date", "open", "symbol", "expiry", "reason", "bars", "context_bars", "volumes"
        )
    )
    extra = ("row", "session", "trade_date", "expiry", "leads")
    return FrontSelection(passed.drop(extra), table, dropped)


def _context_rows(inside: pl.DataFrame, steps: Sequence[_Step]) -> pl.DataFrame:
    """Return, for each roll, the incoming month's last ended session, marked as context."""
    parts = []
    for step in steps:
        if step.contract is None or step.reason not in {"volume", "expiry"}:
            continue
        held = step.contract.sessions
        end = int(np.searchsorted(held, step.session, side="left"))
        begin = int(np.searchsorted(held, held[end - 1], side="left"))
        rows = inside.slice(step.contract.begin + begin, end - begin)
        parts.append(
            rows.with_columns(
                context=pl.lit(value=True), leads=pl.lit(step.session, dtype=pl.Int64)
            )
        )
    empty = inside.clear().with_columns(context=pl.lit(value=True), leads=pl.lit(0, dtype=pl.Int64))
    return pl.concat([empty, *parts])


def _span(inside: pl.DataFrame) -> tuple[int, int]:
    rows = inside["session"].to_numpy()
    return int(rows.min()), int(rows.max())


def _check_settings(lookback_hours: float, every: str) -> None:
    if every not in get_args(Every):
        raise ConfigError(
            "no such rhythm", field="roll.every", found=repr(every), expected="session or week"
        )
    if not lookback_hours > 0:
        raise ConfigError(
            "no time to look back over",
            field="roll.lookback_hours",
            found=repr(lookback_hours),
            expected="more than 0",
        )


def _require(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in frame.columns:
            raise DataError(
                "a column is missing", column=column, found=_listed(frame.columns), expected=column
            )


def _outside_error(outright: pl.DataFrame) -> DataError:
    outside = outright.filter(pl.col("session").is_null())
    return DataError(
        "more than 5 % of the bars lie outside every session: another calendar, time zone or label",
        row=outside["row"][0],
        column="ts_event",
        found=f"{len(outside)} of {len(outright)} rows, the first at {outside['ts_event'][0]}",
        expected="times inside the session table",
    )


def _context(frame: pl.DataFrame) -> pl.Expr:
    return pl.col("context") if "context" in frame.columns else pl.lit(value=False)


def _week(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _as_date(value: object) -> date:
    if not isinstance(value, date):
        raise TypeError(f"a date was expected, not {value!r}")
    return value


def _listed(names: Sequence[str]) -> str:
    shown, rest = ", ".join(names[:_NAMES_SHOWN]), len(names) - _NAMES_SHOWN
    return shown if rest <= 0 else f"{shown} and {rest} more"
