"""What must change nothing, or only what it moves: an earlier start, other weeks, other prices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.property.families import (
    FAMILIES,
    FEWEST_TRADES,
    RULES,
    Settings,
    family,
    random_settings,
)
from tests.property.logs import (
    FIELDS,
    FRAMES,
    TIME,
    Log,
    Tape,
    code,
    differing,
    height,
    run,
    where,
)
from tests.property.markets import five_years, sessions_of

WEEK_NS = 7 * 86_400 * 10**9
PRICES = {
    frame: [f["name"] for f in fields if f["kind"] == "price"] for frame, fields in FIELDS.items()
}
TIMES = {
    frame: [f["name"] for f in fields if f["kind"] == "time"] for frame, fields in FIELDS.items()
}
# Distances and excursions are differences of prices.
DISTANCES = ("stop_distance", "target_distance", "mae", "mfe")

# An account without memory: nothing that earlier trades did reaches a later one.
FLAT: dict[str, Any] = {
    "learning.mode": "off",
    "risk.max_risk_per_trade": None,
    "risk.max_consecutive_losses": None,
    "risk.max_drawdown_pct": None,
    "risk.daily_loss_pct": None,
}
# Stops that are the same at every price level, and no return in the strength.
FIXED: dict[str, Any] = {
    **FLAT,
    "stop.mode": "fixed",
    "stop.distance": "3 points",
    "target.mode": "fixed",
    "target.distance": "5 points",
    "signal.w_momentum": 0.0,
    "learning.context": "none",
}
# Sessions of data by which every baseline and estimator has all that it looks back on: twenty
# sessions for the median and the time of day, some for half days and thin sessions passed over.
WARM_UP = 32
RANDOM_SEEDS = range(4)
CASES = [*FAMILIES, *(f"random {seed}" for seed in RANDOM_SEEDS)]


def settings_of(case: str, changes: dict[str, Any]) -> Settings:
    """Return the settings of a case with the account flat, or distances fixed."""
    if not case.startswith("random "):
        return family(case, changes)
    return random_settings(int(case.split()[1]) + 100, {**changes, "instrument.margin": None})


def enough(case: str, log: Log) -> None:
    """Assert that the comparison was of something."""
    assert height(log["clusters"]) >= FEWEST_TRADES
    if case in RULES:
        assert height(log["trades"]) >= FEWEST_TRADES


@pytest.mark.parametrize("case", CASES)
def test_starting_earlier_changes_no_later_value(case: str, data_dir: Path) -> None:
    settings = settings_of(case, FLAT)
    years = five_years(data_dir, settings)
    compared = 110
    late = sessions_of(years, 700, compared)
    since = int(late.bars["ts_event"][np.searchsorted(late.session_of(), _session(late, WARM_UP))])
    expected = _after(run(settings, late), since)
    enough(case, expected)
    for earlier in (1, 2, 5, 17, 90, 400):
        tape = sessions_of(years, 700 - earlier, compared + earlier)
        found = _after(run(settings, tape), since)
        for frame in FRAMES:
            # Money starts from what was earned before; it is the same but for rounding.
            ignored = ("balance", "equity", "drawdown") if frame == "equity" else ()
            assert height(found[frame]) == height(expected[frame]), (earlier, frame)
            assert not differing(found[frame], expected[frame], ignored), (earlier, frame)
        for name in ("balance", "equity"):
            gained, wanted = (
                log["equity"][name] - log["equity"][name][0] for log in (found, expected)
            )
            np.testing.assert_allclose(gained, wanted, rtol=0, atol=1e-6)


def _session(tape: Tape, place: int) -> int:
    return int(np.unique(tape.session_of())[place])


def _after(log: Log, since: int) -> Log:
    return {frame: where(log[frame], log[frame][TIME[frame]] > since) for frame in FRAMES}


@pytest.mark.parametrize("case", CASES)
def test_other_weeks_change_nothing(case: str, data_dir: Path) -> None:
    settings = settings_of(case, {})
    tape = sessions_of(five_years(data_dir, settings), 500, 120)
    expected = run(settings, tape)
    enough(case, expected)
    for weeks in (-300, 1, 52):
        by = weeks * WEEK_NS
        moved = replace(
            tape,
            bars={**tape.bars, "ts_event": tape.bars["ts_event"] + by},
            sessions={
                name: column + by if name.endswith("_ns") else column
                for name, column in tape.sessions.items()
            },
        )
        found = run(settings, moved)
        for frame in FRAMES:
            # A trade's id is made from its instant.
            for name in TIMES[frame]:
                present = found[frame].get(f"{name}?", np.array(True))
                back = found[frame][name] - by * present.astype(np.int64)
                assert np.array_equal(back, expected[frame][name]), (frame, name)
            assert not differing(found[frame], expected[frame], (*TIMES[frame], "trade_id")), frame


# Left out where prices move: what is a fraction of the price. Sigma then decides nothing.
RELATIVE = ("momentum", "sigma_hold", "sigma_source", "return")


@pytest.mark.parametrize("case", CASES)
def test_prices_moved_by_whole_ticks_move_prices_only(case: str, data_dir: Path) -> None:
    settings = settings_of(case, {**FIXED, "stop.min_pct": 0.0})
    tape = sessions_of(five_years(data_dir, settings), 500, 120)
    expected = run(settings, tape)
    enough(case, expected)
    for ticks in (-1603, 1, 40_000):
        by = ticks * tape.tick_nanos
        found = run(settings, with_prices(tape, lambda prices, by=by: prices + by))
        compare_moved(found, expected, lambda prices, by=by: prices + by / 1e9)


def with_prices(tape: Tape, change: Any) -> Tape:
    """Return a tape with its prices changed; where that turns them round, highs are lows."""
    changed = {name: change(tape.bars[name]) for name in ("open", "high", "low", "close")}
    if changed["high"][0] < changed["low"][0]:
        changed["high"], changed["low"] = changed["low"], changed["high"]
    return replace(tape, bars={**tape.bars, **changed})


def compare_moved(found: Log, expected: Log, change: Any, ignored: tuple[str, ...] = ()) -> None:
    """Assert that two logs agree but for prices, which are moved by `change`."""
    for frame in FRAMES:
        assert height(found[frame]) == height(expected[frame]), frame
        moved = [name for name in PRICES[frame] if name not in DISTANCES]
        floating = [
            f["name"]
            for f in FIELDS[frame]
            if f["kind"] == "float" and f["name"] not in (*moved, *RELATIVE, *ignored)
        ]
        if frame == "trades":
            moved.append("exit_price")
            floating.remove("exit_price")
        for name in moved:
            if name in ignored:
                continue
            np.testing.assert_allclose(
                found[frame][name], change(expected[frame][name]), rtol=0, atol=1e-9, err_msg=name
            )
        for name in floating:
            np.testing.assert_allclose(
                found[frame][name], expected[frame][name], rtol=1e-9, atol=1e-9, err_msg=name
            )
        wrong = differing(found[frame], expected[frame], (*moved, *floating, *RELATIVE, *ignored))
        assert not wrong, (frame, wrong)


# Rules that treat up and down alike. Left out of the settings, because the specification breaks a
# tie to one side there: `profile.tie = "lowest"`; `range_volume`, which places what does not divide
# evenly (and its two tied ticks of one bar: the lower). Left out of the comparison: the value area,
# which grows upward among equals. The modal position is mirrored; contexts made of it are off.
MIRRORED: dict[str, Any] = {
    **FIXED,
    "signal.long_threshold": 0.25,
    "signal.short_threshold": 0.75,
    "signal.shorts": True,
    "signal.min_strength": 0.1003,
    "signal.min_strength_short": None,
    "profile.source": "close_volume",
    "profile.tie": "middle",
    "size.signal_scale": 0.0,
    "stop.min_pct": 0.0,
}


@pytest.mark.parametrize(("source", "tie"), [("close_volume", "middle"), ("close", "earliest")])
@pytest.mark.parametrize("case", CASES)
def test_mirrored_prices_swap_long_and_short(
    case: str, source: str, tie: str, data_dir: Path
) -> None:
    settings = settings_of(case, {**MIRRORED, "profile.source": source, "profile.tie": tie})
    tape = sessions_of(five_years(data_dir, settings), 500, 150)
    enough(case, compare_mirrored(settings, tape))


def compare_mirrored(settings: Settings, tape: Tape) -> Log:
    """Assert that mirrored prices swap the sides, and return the log that was compared."""
    expected = run(settings, tape)
    centre = 2 * 2500 * 10**9
    found = run(settings, with_prices(tape, lambda prices: centre - prices))
    swapped = {frame: dict(columns) for frame, columns in expected.items()}
    for frame in ("clusters", "signals", "orders", "trades"):
        swapped[frame]["direction"] = _other_side(expected[frame]["direction"])
    swapped["clusters"]["high"], swapped["clusters"]["low"] = (
        expected["clusters"]["low"],
        expected["clusters"]["high"],
    )
    for frame in ("clusters", "signals", "trades"):
        swapped[frame]["modal_position"] = 1.0 - expected[frame]["modal_position"]
    compare_moved(
        found, swapped, lambda prices: centre / 1e9 - prices, ("value_area_low", "value_area_high")
    )
    return expected


def _other_side(direction: np.ndarray) -> np.ndarray:
    long, short = code("long"), code("short")
    result = direction.copy()
    result[direction == long] = short
    result[direction == short] = long
    return result


@pytest.mark.parametrize(
    "changes", [{"profile.tie": "lowest"}, {"signal.w_momentum": 1.0}, {"signal.shorts": False}]
)
def test_the_mirror_shows_what_is_not_symmetric(changes: dict[str, Any], data_dir: Path) -> None:
    settings = family("no retest", {**MIRRORED, "profile.source": "close", **changes})
    tape = sessions_of(five_years(data_dir, settings), 500, 150)
    with pytest.raises(AssertionError):
        compare_mirrored(settings, tape)


def test_moved_prices_show_what_depends_on_the_level(data_dir: Path) -> None:
    settings = family("no retest", {"stop.min_pct": 0.2})
    tape = sessions_of(five_years(data_dir, settings), 500, 60)
    moved = with_prices(tape, lambda prices: prices + 1000 * 10**9)
    with pytest.raises(AssertionError):
        compare_moved(run(settings, moved), run(settings, tape), lambda prices: prices + 1000.0)


def test_an_earlier_start_shows_what_remembers(data_dir: Path) -> None:
    """With the record on, trades before the start do change later sizes: the comparison sees it."""
    settings = family("no retest", {"learning.min_trades": 0, "learning.context": "none"})
    years = five_years(data_dir, settings)
    late, early = sessions_of(years, 700, 60), sessions_of(years, 650, 110)
    since = int(late.bars["ts_event"][np.searchsorted(late.session_of(), _session(late, WARM_UP))])
    left, right = (_after(run(settings, tape), since) for tape in (late, early))
    assert differing(left["orders"], right["orders"])
