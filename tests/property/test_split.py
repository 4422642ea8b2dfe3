"""How bars arrive changes nothing: one by one or in batches, with `advance` anywhere between.

That any cut into batches gives the same is also what the walks of `test_prefix` show, a thousand
pieces at a time. Here the pieces are of every size, empty ones included, and `step` is one of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from clustercore import events
from tests.property.families import FEWEST_TRADES, RULES
from tests.property.logs import (
    BAR_COLUMNS,
    FRAMES,
    WORDS,
    Log,
    Tape,
    differing,
    feed,
    height,
    joined,
    log_of_rows,
    new_engine,
    run,
)
from tests.property.markets import five_years, sessions_of
from tests.property.test_prefix import CASES, settings_of

FRAME_OF = {
    events.Cluster: "clusters",
    events.Signal: "signals",
    events.Order: "orders",
    events.Trade: "trades",
    events.Equity: "equity",
    events.Risk: "risk",
}


def assert_same(left: Log, right: Log) -> None:
    for frame in FRAMES:
        assert height(left[frame]) == height(right[frame]), frame
        assert not differing(left[frame], right[frame]), frame


def log_of_events(said: Sequence[events.Event]) -> Log:
    """Return the rows of events; states on the way are no rows."""
    found: dict[str, list[dict[str, Any]]] = {frame: [] for frame in FRAMES}
    for event in said:
        frame = FRAME_OF[type(event)]
        row = {f.name: getattr(event, f.name) for f in fields(event)}
        if frame in ("signals", "orders") and row["reason"] in ("armed", "working"):
            continue
        if frame == "trades":
            row["return"] = row.pop("net_return")
        found[frame].append(row)
    return log_of_rows(found, points=True)


def stepped(
    settings: dict[str, dict[str, Any]], tape: Tape, draw: random.Random | None
) -> list[events.Event]:
    """Step through a tape; with a generator, also advance at instants that it draws."""
    engine = new_engine(settings, tape)
    said: list[events.Event] = []
    bars = list(zip(*(tape.bars[name].tolist() for name in BAR_COLUMNS), strict=True))
    for place, bar in enumerate(bars):
        said += engine.step(*bar)
        if draw is None or place + 1 == len(bars):
            continue
        # Any instant before the next bar ends, and the past.
        latest = bars[place + 1][0] + tape.interval_ns - 1
        for _ in range(draw.choice((0, 0, 1, 2))):
            said += engine.advance(draw.randrange(bar[0], latest + 1))
        if draw.random() < 0.05:
            said += engine.advance(bar[0] - draw.randrange(10**15))
    return said


@pytest.mark.parametrize("case", CASES)
def test_steps_and_advances_give_what_a_batch_gives(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = sessions_of(five_years(data_dir, settings), 940, 60)
    whole = run(settings, tape)
    plain = stepped(settings, tape, None)
    assert_same(log_of_events(plain), whole)
    advanced = stepped(settings, tape, random.Random(case))
    assert advanced == plain
    assert height(whole["clusters"]) >= FEWEST_TRADES
    # The one family with limits on the number of trades makes fewer.
    if case in RULES and case != "every gate":
        assert height(whole["trades"]) >= FEWEST_TRADES


@pytest.mark.parametrize("case", CASES)
def test_pieces_of_every_size(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = five_years(data_dir, settings)
    tape = tape.part(0, len(tape) // 3)
    draw = random.Random(f"{case} pieces")
    engine = new_engine(settings, tape)
    parts = []
    place = 0
    while place < len(tape):
        size = draw.choice((0, 1, 1, 2, 7, 60, 1379, 1380, 1381, 20_000))
        parts.append(feed(engine, tape.part(place, place + size)))
        place += size
    whole = run(settings, tape)
    assert_same(joined(parts), whole)
    assert height(whole["clusters"]) >= FEWEST_TRADES
    if case in RULES:
        assert height(whole["trades"]) >= FEWEST_TRADES


def test_every_family_is_compared_to_the_last_kind_of_event(data_dir: Path) -> None:
    """The families together show every reason for which a cluster, signal, order or trade ends."""
    seen: dict[str, set[int]] = {
        "clusters": set(),
        "signals": set(),
        "orders": set(),
        "trades": set(),
    }
    for case in (
        "sliding",
        "sliding, overlap ranked",
        "delayed profile",
        "no retest",
        "limit at the close",
        "reverse",
        "every gate",
    ):
        log = run(settings_of(case), five_years(data_dir, settings_of(case)))
        for frame, column in (
            ("clusters", "reason"),
            ("signals", "reason"),
            ("orders", "reason"),
            ("trades", "exit_reason"),
        ):
            seen[frame] |= set(log[frame][column].tolist())
    named = {frame: {WORDS[place] for place in places} for frame, places in seen.items()}
    assert named["clusters"] >= {
        "armed",
        "overlap",
        "no_time",
        "rank",
        "no_direction",
        "weak",
        "cooldown",
        "max_per_session",
    }
    assert named["signals"] >= {"ordered", "expired", "session", "blocked", "cooldown", "no_bar"}
    assert named["orders"] >= {
        "filled",
        "no_bar",
        "expired",
        "opposite_open",
        "reverse",
        "paused",
        "max_open_contracts",
        "max_trades_per_session",
    }
    assert named["trades"] >= {
        "stop",
        "target",
        "time",
        "session_end",
        "session_end_late",
        "reverse",
    }
