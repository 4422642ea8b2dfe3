"""The strategy over whole NumPy columns; only the choice among signals is a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benches.strategy import Answer, usual_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benches.market import Market
    from benches.strategy import Rules

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


class Inside(NamedTuple):
    """The bars that lie in a session."""

    start: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    session: Ints
    session_open: Ints
    session_close: Ints


class Confirmed(NamedTuple):
    """Signals that were retested, and the trade each would make alone."""

    decision: Ints
    row: Ints
    side: Ints
    entry_row: Ints  # -1 where no bar takes the order
    exit_row: Ints
    exit_time: Ints
    exit_price: Ints


def inside_of(market: Market) -> Inside:
    """Return the bars in sessions, with the session of each."""
    start = market.nanos["ts_event"]
    session = np.searchsorted(market.session_open, start, side="right") - 1
    kept = (session >= 0) & (start < market.session_close[session])
    names = ("ts_event", "open", "high", "low", "close", "volume")
    columns: list[Any] = [market.nanos[name] for name in names] + [session]
    if not kept.all():
        columns = [column[kept] for column in columns]
    columns += [market.session_open, market.session_close]
    return Inside._make(columns)


def signals_of(bars: Inside, rules: Rules) -> tuple[Ints, Ints, Ints, Ints]:
    """Return decision, modal price, side and session of the signals, before any cooldown."""
    opened = bars.session_open[bars.session]
    window = (bars.start - opened) // rules.window
    first: Any = np.flatnonzero(
        (np.diff(window, prepend=-1) != 0) | (np.diff(bars.session, prepend=-1) != 0)
    )
    count: Any = np.diff(first, append=len(bars.start))
    total = np.add.reduceat(bars.volume, first)
    summed = np.concatenate([[0], np.cumsum(bars.volume)])
    known = first >= rules.baseline_bars
    before = summed[first] - summed[np.where(known, first - rules.baseline_bars, 0)]
    usual = np.where(known, before, 1) / rules.baseline_bars
    ratio: Any = total / (usual * (rules.window / 60e9))
    decision: Any = opened[first] + (window[first] + 1) * rules.window
    session: Any = bars.session[first]
    found = (
        known
        & (count >= rules.need)
        & (ratio >= rules.threshold)
        & (decision <= bars.session_close[session])
    )
    first, count, ratio, decision, session = (
        column[found] for column in (first, count, ratio, decision, session)
    )
    beaten = np.zeros(len(first), dtype=np.bool_)
    for lag in range(1, rules.rank // rules.window + 1):
        beaten[lag:] |= (
            (session[:-lag] == session[lag:])
            & (decision[:-lag] >= decision[lag:] - rules.rank)
            & (ratio[:-lag] >= ratio[lag:])
        )
    first, count, decision, session = (
        column[~beaten] for column in (first, count, decision, session)
    )
    modal, position = _profiles(bars, first, count)
    side = np.where(
        position <= rules.long_threshold, 1, np.where(position >= rules.short_threshold, -1, 0)
    )
    wanted = side != 0
    return decision[wanted], modal[wanted], side[wanted], session[wanted]


def _profiles(bars: Inside, first: Ints, count: Ints) -> tuple[Ints, Floats]:
    width = int(count.max())
    rows = first[:, None] + np.arange(width)
    there = np.arange(width) < count[:, None]
    rows = np.minimum(rows, len(bars.start) - 1)
    close = bars.close[rows]
    volume = np.where(there, bars.volume[rows], 0)
    weight = ((close[:, :, None] == close[:, None, :]) * volume[:, None, :]).sum(axis=2)
    weight = np.where(there, weight, -1)
    heaviest = weight == weight.max(axis=1, keepdims=True)
    modal = np.where(heaviest, close, np.iinfo(np.int64).max).min(axis=1)
    highest = np.where(there, bars.high[rows], np.iinfo(np.int64).min).max(axis=1)
    lowest = np.where(there, bars.low[rows], np.iinfo(np.int64).max).min(axis=1)
    reach = highest - lowest
    return modal, np.where(reach > 0, (modal - lowest) / np.where(reach > 0, reach, 1), 0.5)


def retests_of(
    bars: Inside, rules: Rules, signals: tuple[Ints, Ints, Ints, Ints]
) -> tuple[Ints, Ints, Ints]:
    """Return decision, row of the confirming bar and side of the signals that were retested."""
    decision, modal, side, session = signals
    begin = np.searchsorted(bars.start, decision)
    rows = begin[:, None] + np.arange(rules.timeout // rules.interval)
    exists = rows < len(bars.start)
    rows = np.minimum(rows, len(bars.start) - 1)
    hit = (
        exists
        & (bars.session[rows] == session[:, None])
        & (bars.start[rows] + rules.interval <= (decision + rules.timeout)[:, None])
        & (np.abs(bars.close[rows] - modal[:, None]) <= rules.tolerance)
    )
    place = hit.argmax(axis=1)
    found = hit[np.arange(len(hit)), place]
    return decision[found], (begin + place)[found], side[found]


def trades_alone(bars: Inside, rules: Rules, retested: tuple[Ints, Ints, Ints]) -> Confirmed:
    """Return for each retested signal the trade that it makes when nothing stands in its way."""
    decision, row, side = retested
    n_bars = len(bars.start)
    confirmed = bars.start[row] + rules.interval
    curfew = bars.session_close[bars.session[row]] - rules.flatten
    entry = np.minimum(row + 1, n_bars - 1)
    entered = (
        (row + 1 < n_bars)
        & (confirmed < curfew)
        & (bars.start[entry] < np.minimum(confirmed + rules.max_wait, curfew))
    )
    up = (side > 0)[:, None]
    sign = side[:, None]
    entry_price = bars.open[entry]
    stop = (entry_price - side * rules.stop)[:, None]
    target = (entry_price + side * rules.target)[:, None]
    rows = entry[:, None] + np.arange(rules.max_hold // rules.interval + 2)
    over = rows >= n_bars
    rows = np.minimum(rows, n_bars - 1)
    later = np.arange(rows.shape[1]) > 0
    open_, high, low = bars.open[rows], bars.high[rows], bars.low[rows]
    end = bars.start[rows] + rules.interval
    late = (bars.session[rows] != bars.session[entry][:, None]) & ~over
    gapped = later & ((open_ - stop) * sign <= 0)
    jumped = later & ((open_ - target) * sign >= 0)
    stopped = np.where(up, low <= stop, high >= stop)
    reached = np.where(up, high >= target, low <= target)
    ended = (end >= curfew[:, None]) | (end >= (bars.start[entry] + rules.max_hold)[:, None])
    place = (late | gapped | jumped | stopped | reached | ended | over).argmax(axis=1)
    at = (np.arange(len(rows)), place)
    at_open = late[at] | gapped[at] | jumped[at]
    price = np.select(
        [over[at], late[at] | gapped[at], jumped[at], stopped[at], reached[at]],
        [bars.close[-1], open_[at], target[:, 0], stop[:, 0], target[:, 0]],
        bars.close[rows[at]],
    )
    return Confirmed(
        decision,
        row,
        side,
        np.where(entered, entry, -1),
        rows[at],
        np.where(at_open & ~over[at], bars.start[rows[at]], end[at]),
        price,
    )


def choose(bars: Inside, rules: Rules, alone: Confirmed) -> Ints:
    """Return which signals become trades: cooldown, and one position at a time."""
    order = np.lexsort((alone.decision, alone.row))
    ends = (bars.start[alone.row] + rules.interval).tolist()
    curfew = (bars.session_close[bars.session[alone.row]] - rules.flatten).tolist()
    decision, row = alone.decision.tolist(), alone.row.tolist()
    entry, leave = alone.entry_row.tolist(), alone.exit_row.tolist()
    chosen = []
    last, free = -(1 << 62), 0
    for place in order.tolist():
        if decision[place] - last < rules.cooldown:
            continue
        last = ends[place]
        if last >= curfew[place] or row[place] < free:
            continue
        free = row[place] + 1
        if entry[place] >= 0:
            free = leave[place]
            chosen.append(place)
    return np.array(chosen, dtype=np.int64)


def answer(bars: Inside, rules: Rules, alone: Confirmed, chosen: Ints) -> Answer:
    """Return trades, equity and statistics."""
    entry, leave = alone.entry_row[chosen], alone.exit_row[chosen]
    side, exit_time = alone.side[chosen], alone.exit_time[chosen]
    entry_price, exit_price = bars.open[entry], alone.exit_price[chosen]
    entry_time = bars.start[entry]
    worth = rules.point_value
    gross = side * (exit_price - entry_price) / 1e9 * worth
    net = gross - 2.0 * rules.side_cost
    after = rules.balance + np.cumsum(net)
    paid = np.concatenate([[rules.balance], after[:-1]]) - rules.side_cost
    # A row at the end of every bar of a trade.
    count = leave - entry + 1
    trade = np.repeat(np.arange(len(chosen)), count)
    rows = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + entry[trade]
    mark = bars.start[rows] + rules.interval
    floating = paid[trade] + side[trade] * (bars.close[rows] - entry_price[trade]) / 1e9 * worth
    value = np.where(rows == leave[trade], after[trade], floating)
    # And one at every close of a session that had a bar.
    last = np.flatnonzero(np.diff(bars.session, append=-1))
    closed = bars.session_close[bars.session[last]]
    known = closed <= bars.start[-1] + rules.interval
    last, closed = last[known], closed[known]
    alone_at_close = ~np.isin(closed, mark)
    last, closed = last[alone_at_close], closed[alone_at_close]
    done = np.searchsorted(exit_time, closed, side="right")
    standing = np.concatenate([[rules.balance], after])[done]
    held = np.minimum(done, len(chosen) - 1)
    carried = (done < len(chosen)) & (entry_time[held] < closed)
    floating = paid[held] + side[held] * (bars.close[last] - entry_price[held]) / 1e9 * worth
    standing = np.where(carried, floating, standing)
    times = np.concatenate([mark, closed])
    order = np.argsort(times, kind="stable")
    times, equity = times[order], np.concatenate([value, standing])[order]
    return Answer(
        entry_time,
        exit_time,
        side,
        entry_price / 1e9,
        exit_price / 1e9,
        net,
        times,
        equity,
        usual_statistics(net, times, equity, rules.balance),
    )


def run_columns(market: Market, rules: Rules) -> Answer:
    """Return the answer of the NumPy version."""
    bars = inside_of(market)
    alone = trades_alone(bars, rules, retests_of(bars, rules, signals_of(bars, rules)))
    return answer(bars, rules, alone, choose(bars, rules, alone))
