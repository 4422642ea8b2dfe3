"""The strategy as one loop over bars: compiled by Numba, or run by the interpreter as it stands.

It looks at no later bar, as the engine does, but checks nothing and writes only trades and equity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benches.strategy import Answer, usual_statistics

if TYPE_CHECKING:
    from benches.market import Market
    from benches.strategy import Rules

MOST_PENDING = 64


def simulate(  # noqa: C901, PLR0912, PLR0915 - one loop is what is measured
    start: Any,
    open_: Any,
    high: Any,
    low: Any,
    close: Any,
    volume: Any,
    session_open: Any,
    session_close: Any,
    rules: Rules,
    trades: Any,
    results: Any,
    marks: Any,
    equity: Any,
    summed: Any,
) -> tuple[int, int]:
    """Fill trades and equity; return how many of each there are."""
    n_trades = n_marks = n_bars = 0
    session = 0
    session_rows = 0  # bars of this session so far
    window_start = session_open[0]
    window_first = 0  # row of the first bar of the window
    pending_decision = [0] * MOST_PENDING
    pending_modal = [0] * MOST_PENDING
    n_pending = 0
    candidate_time = [0] * MOST_PENDING * 2
    candidate_ratio = [0.0] * MOST_PENDING * 2
    candidate_count = 0
    pending_side = [0] * MOST_PENDING
    last_confirmed = -(1 << 62)
    side = 0  # of the position
    order_side = 0
    order_until = 0
    entry_price = stop = target = 0
    entry_time = 0
    balance = rules.balance
    last_close = 0
    last_mark = 0
    for row in range(len(start)):
        begin = start[row]
        end = begin + rules.interval
        late = False
        if begin >= session_close[session]:
            # What is due at the close of the session that is over.
            if session_rows and last_mark != session_close[session]:
                open_profit = side * (last_close - entry_price) / 1e9 * rules.point_value
                marks[n_marks] = session_close[session]
                equity[n_marks] = balance + open_profit
                n_marks += 1
            while session < len(session_close) and begin >= session_close[session]:
                session += 1
            if session == len(session_close):
                break
            session_rows = 0
            n_pending = 0
            candidate_count = 0
            order_side = 0
            late = side != 0
        if begin < session_open[session]:
            continue
        if session_rows == 0:
            window_start = session_open[session]
            window_first = row
        session_end = session_close[session]
        # Windows that ended before this bar.
        while window_start + rules.window <= begin:
            first = window_first
            decision = window_start + rules.window
            last = first
            total = 0
            while last < row and start[last] < decision:
                total += volume[last]
                last += 1
            window_first = last
            window_start = decision
            if last - first < rules.need or n_bars - (row - first) < rules.baseline_bars:
                continue
            # Rows outside sessions are not in `summed`, which counts bars inside.
            before = n_bars - (row - first)
            usual = (summed[before] - summed[before - rules.baseline_bars]) / rules.baseline_bars
            ratio = total / (usual * (rules.window / 60e9))
            if ratio < rules.threshold:
                continue
            beaten = False
            for place in range(candidate_count):
                if (
                    candidate_time[place] >= decision - rules.rank
                    and candidate_ratio[place] >= ratio
                ):
                    beaten = True
            candidate_time[candidate_count] = decision
            candidate_ratio[candidate_count] = ratio
            candidate_count += 1
            if beaten:
                continue
            # The heaviest close, of equals the lowest.
            modal = 0
            heaviest = -1
            highest = high[first]
            lowest = low[first]
            for one in range(first, last):
                highest = max(highest, high[one])
                lowest = min(lowest, low[one])
                weight = 0
                for other in range(first, last):
                    if close[other] == close[one]:
                        weight += volume[other]
                if weight > heaviest or (weight == heaviest and close[one] < modal):
                    heaviest = weight
                    modal = close[one]
            position = (modal - lowest) / (highest - lowest) if highest > lowest else 0.5
            wanted = 0
            if position <= rules.long_threshold:
                wanted = 1
            elif position >= rules.short_threshold:
                wanted = -1
            if wanted and decision - last_confirmed >= rules.cooldown:
                pending_decision[n_pending] = decision
                pending_modal[n_pending] = modal
                pending_side[n_pending] = wanted
                n_pending += 1
        # The open.
        exit_price = 0
        exit_time = 0
        was_open = side != 0
        if side:
            if late or (side > 0 and open_[row] <= stop) or (side < 0 and open_[row] >= stop):
                exit_price = open_[row]
            elif (side > 0 and open_[row] >= target) or (side < 0 and open_[row] <= target):
                exit_price = target
            exit_time = begin
        elif order_side and begin < order_until:
            side = order_side
            was_open = True
            entry_price = open_[row]
            entry_time = begin
            stop = entry_price - side * rules.stop
            target = entry_price + side * rules.target
            balance -= rules.side_cost
        order_side = 0
        # Inside, then the end.
        if side and exit_price == 0:
            exit_time = end
            if (side > 0 and low[row] <= stop) or (side < 0 and high[row] >= stop):
                exit_price = stop
            elif (side > 0 and high[row] >= target) or (side < 0 and low[row] <= target):
                exit_price = target
            elif end >= session_end - rules.flatten or end >= entry_time + rules.max_hold:
                exit_price = close[row]
        if exit_price:
            gross = side * (exit_price - entry_price) / 1e9 * rules.point_value
            trades[n_trades, 0] = entry_time
            trades[n_trades, 1] = exit_time
            trades[n_trades, 2] = side
            trades[n_trades, 3] = entry_price
            trades[n_trades, 4] = exit_price
            results[n_trades] = gross - 2.0 * rules.side_cost
            n_trades += 1
            balance += gross - rules.side_cost
            side = 0
        last_close = close[row]
        if was_open:
            marks[n_marks] = end
            equity[n_marks] = balance + side * (last_close - entry_price) / 1e9 * rules.point_value
            n_marks += 1
            last_mark = end
        # Retests.
        kept = 0
        for place in range(n_pending):
            decision = pending_decision[place]
            if end > decision + rules.timeout:
                continue
            if abs(last_close - pending_modal[place]) > rules.tolerance:
                pending_decision[kept] = decision
                pending_modal[kept] = pending_modal[place]
                pending_side[kept] = pending_side[place]
                kept += 1
                continue
            if end - last_confirmed < rules.cooldown:
                continue
            last_confirmed = end
            if end < session_end - rules.flatten and side == 0 and order_side == 0:
                order_side = pending_side[place]
                order_until = min(end + rules.max_wait, session_end - rules.flatten)
        n_pending = kept
        session_rows += 1
        summed[n_bars + 1] = summed[n_bars] + volume[row]
        n_bars += 1
    if session < len(session_close) and session_rows and side:
        gross = side * (last_close - entry_price) / 1e9 * rules.point_value
        trades[n_trades, 0] = entry_time
        trades[n_trades, 1] = start[len(start) - 1] + rules.interval
        trades[n_trades, 2] = side
        trades[n_trades, 3] = entry_price
        trades[n_trades, 4] = last_close
        results[n_trades] = gross - 2.0 * rules.side_cost
        n_trades += 1
    # The last session's mark, when its close is known to have passed.
    if (
        session < len(session_close)
        and session_rows
        and start[len(start) - 1] + rules.interval >= session_close[session]
        and last_mark != session_close[session]
    ):
        marks[n_marks] = session_close[session]
        equity[n_marks] = balance + side * (last_close - entry_price) / 1e9 * rules.point_value
        n_marks += 1
    return n_trades, n_marks


COLUMNS = ("ts_event", "open", "high", "low", "close", "volume")


def run_loop(
    market: Market, rules: Rules, function: Any = simulate, *, lists: bool = False
) -> Answer:
    """Return the loop's answer, statistics included."""
    columns: list[Any] = [market.nanos[name] for name in COLUMNS]
    bounds: list[Any] = [market.session_open, market.session_close]
    if lists:
        columns = [column.tolist() for column in columns]
        bounds = [column.tolist() for column in bounds]
    most = len(market) // 8 + 64
    trades = np.empty((most, 5), dtype=np.int64)
    results = np.empty(most)
    marks = np.empty(len(market) + 4096, dtype=np.int64)
    equity = np.empty(len(market) + 4096)
    summed: Any = [0] * (len(market) + 1) if lists else np.zeros(len(market) + 1, dtype=np.int64)
    n_trades, n_marks = function(*columns, *bounds, rules, trades, results, marks, equity, summed)
    table, net = trades[:n_trades], results[:n_trades]
    marks, equity = marks[:n_marks], equity[:n_marks]
    return Answer(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        table[:, 3] / 1e9,
        table[:, 4] / 1e9,
        net,
        marks,
        equity,
        usual_statistics(net, marks, equity, rules.balance),
    )
