"""What causality means, as functions of a runner: the engine, the oracle, or a mutant that leaks.

Each takes a way to run bars and returns what was wrong, with a count of what it compared. A
property that has compared nothing has shown nothing, so its caller asserts those counts.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tests import reference
from tests.property.families import Settings
from tests.property.logs import (
    FRAMES,
    MINUTE_NS,
    TIME,
    Known,
    Log,
    code,
    differing,
    height,
    rows,
    where,
)
from tests.property.markets import TICK

Runner = Callable[[list[reference.Bar], Settings], Log]
Compared = collections.Counter[str]


def truncation(
    runner: Runner, bars: list[reference.Bar], settings: Settings, cuts: Iterable[int]
) -> tuple[list[str], Compared]:
    """Cut the bars after some rows: nothing that was said by then may change."""
    known = Known(runner(bars, settings))
    found: list[str] = []
    compared: Compared = collections.Counter()
    for cut in cuts:
        said = runner(bars[:cut], settings)
        found += known.problems(said, bars[cut - 1].start + MINUTE_NS)
        compared.update({frame: height(said[frame]) for frame in FRAMES})
    return found, compared


def other_future(
    runner: Runner, bars: list[reference.Bar], settings: Settings, cuts: Iterable[int], seed: int
) -> tuple[list[str], Compared]:
    """Keep the open of one bar and replace the rest of it and all later bars.

    At its open a bar has no high, low, close or volume yet: what happens by then, fills at that
    open included, and what those fills were made with, may not change.
    """
    whole = runner(bars, settings)
    found: list[str] = []
    compared: Compared = collections.Counter()
    for cut in cuts:
        opened = bars[cut].start
        said = runner(_replaced(bars, cut, seed + cut), settings)
        for frame in FRAMES:
            left = _by_open(whole, frame, opened)
            right = _by_open(said, frame, opened)
            if height(left) != height(right):
                found.append(f"{frame}: {height(left)} or {height(right)} rows by {opened}")
                continue
            wrong = differing(left, right)
            if wrong:
                found.append(f"{frame}: {', '.join(wrong)} by {opened}")
            compared[frame] += height(left)
    return found, compared


def _by_open(log: Log, frame: str, opened: int) -> dict[str, Any]:
    """Return the rows that are known at the open of a bar, that open included."""
    columns = log[frame]
    kept = columns[TIME[frame]] < opened
    if frame == "orders":
        kept |= (columns["reason"] == code("filled")) & (columns["entry_time"] == opened)
    elif frame in ("clusters", "signals"):
        kept |= columns[TIME[frame]] == opened
    return where(columns, kept)


def _replaced(bars: Sequence[reference.Bar], cut: int, seed: int) -> list[reference.Bar]:
    draw = random.Random(seed)
    result = list(bars[:cut])
    for bar in bars[cut:]:
        away = [draw.randrange(0, 9) * TICK for _ in range(3)]
        first = bar.open if bar is bars[cut] else bar.open + draw.randrange(-6, 7) * TICK
        close = first + draw.choice((-1, 1)) * away[0]
        high, low = max(first, close) + away[1], min(first, close) - away[2]
        result.append(
            bar._replace(open=first, high=high, low=low, close=close, volume=bar.volume * 3)
        )
    return result


def times_in_order(log: Log, settings: Settings) -> tuple[list[str], Compared]:
    """Check that a decision follows its last input, a retest the decision, an entry the retest."""
    minutes = max(
        settings["cluster"]["minutes"],
        settings["profile"]["end_minute"],
        settings["momentum"]["end_minute"],
    )
    found: list[str] = []
    compared: Compared = collections.Counter()
    for row in rows(log, "clusters"):
        compared["clusters"] += 1
        if row["reason"] in ("overlap", "hours", "no_time"):
            continue
        if row["decision_time"] < row["window_start"] + minutes * MINUTE_NS:
            found.append(f"clusters: decided at {row['decision_time']}, before its inputs end")
    retest = MINUTE_NS if settings["retest"]["enabled"] else 0
    for row in rows(log, "orders"):
        compared["orders"] += 1
        if row["confirmed_time"] < row["decision_time"] + retest:
            found.append(
                f"orders: confirmed at {row['confirmed_time']}, before any later bar ended"
            )
    for row in rows(log, "trades"):
        compared["trades"] += 1
        if (
            not row["decision_time"]
            <= row["confirmed_time"]
            <= row["entry_time"]
            <= row["exit_time"]
        ):
            found.append(f"trades: times out of order at {row['entry_time']}")
    return found, compared


def pessimistic(log: Log, bars: Sequence[reference.Bar]) -> tuple[list[str], Compared]:
    """No target fills in a bar that reached the stop, unless the bar opened beyond the target."""
    by_start = {bar.start: bar for bar in bars}
    found: list[str] = []
    compared: Compared = collections.Counter()
    for row in rows(log, "trades"):
        compared["trades"] += 1
        compared["ambiguous"] += bool(row["ambiguous"])
        if row["exit_reason"] != "target":
            continue
        sign = 1 if row["direction"] == "long" else -1
        bar = by_start.get(row["exit_time"] - MINUTE_NS)
        opened = by_start.get(row["exit_time"])
        target, stop = round(row["target"] * 1e9), round(row["stop"] * 1e9)
        if opened is not None and sign * (opened.open - target) > 0:
            continue
        assert bar is not None
        worst = bar.low if sign > 0 else bar.high
        if sign * (worst - stop) <= 0:
            found.append(f"trades: target at {row['exit_time']} in a bar that reached the stop")
    return found, compared


def kept_promises(
    events: Sequence[tuple[str, reference.Row]],
) -> tuple[list[str], Compared]:
    """Check that an order is filled, and its trade run, with what it said when it was made."""
    fixed = (
        "quantity",
        "limit_price",
        "reference_price",
        "stop_distance",
        "target_distance",
        "sigma_hold",
        "sigma_source",
        "context",
        "multiplier",
        "valid_until",
    )
    made: dict[str, reference.Row] = {}
    found: list[str] = []
    compared: Compared = collections.Counter()
    for frame, row in events:
        if frame == "orders" and row["reason"] == "working":
            made[row["trade_id"]] = row
        elif frame == "orders" and row["trade_id"] in made:
            compared["orders"] += 1
            before = made[row["trade_id"]]
            wrong = [name for name in fixed if row[name] != before[name]]
            if wrong:
                found.append(f"orders: {', '.join(wrong)} changed after the order was made")
        elif frame == "trades":
            compared["trades"] += 1
            before = made[row["trade_id"]]
            sign = 1 if row["direction"] == "long" else -1
            for level, distance, side in (
                ("stop", "stop_distance", -1),
                ("target", "target_distance", 1),
            ):
                promised = row["entry_price"] + side * sign * before[distance]
                if abs(row[level] - promised) > 1e-9 * abs(promised):
                    found.append(f"trades: {level} is not where the order put it")
    return found, compared


def no_different(left: Log, right: Log) -> tuple[list[str], Compared]:
    """Two logs are the same, floats to 1e-12 of their size."""
    found: list[str] = []
    compared: Compared = collections.Counter()
    for frame in FRAMES:
        if height(left[frame]) != height(right[frame]):
            found.append(f"{frame}: {height(left[frame])} and {height(right[frame])} rows")
            continue
        compared[frame] += height(left[frame])
        for name, column in left[frame].items():
            other = right[frame][name]
            if column.dtype == np.float64:
                close = np.isclose(column, other, rtol=1e-12, atol=1e-12, equal_nan=True)
                same = bool(close.all())
            else:
                same = np.array_equal(column, other)
            if not same:
                found.append(f"{frame}: {name}")
    return found, compared
