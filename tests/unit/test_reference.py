"""The reference engine against rows worked out by hand, and its kernels against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest

from tests import reference
from tests.reference import MINUTE, Bar, Frames, Input, Instrument, ReferenceRefusal, Session
from tests.reference_config import merged, preset
from tests.reference_scenarios import BASE, SCENARIOS, Scenario, bars, flat, px

RunEngine = Callable[
    [dict[str, dict[str, Any]], Instrument, Sequence[Session], int, Sequence[Input]], Frames
]


def run_reference(
    config: dict[str, dict[str, Any]],
    instrument: Instrument,
    sessions: Sequence[Session],
    interval_ns: int,
    inputs: Sequence[Input],
) -> Frames:
    return reference.run(inputs, config, instrument, sessions, interval_ns)


# An engine joins by a callable of this form that raises ReferenceRefusal for refused input.
ENGINES: dict[str, RunEngine] = {"reference": run_reference}


def agrees(found: object, expected: object) -> bool:
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    return found == expected and isinstance(found, bool) == isinstance(expected, bool)


def assert_row(name: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    wrong = {
        key: (found[key], value) for key, value in expected.items() if not agrees(found[key], value)
    }
    assert not wrong, f"{name}: {wrong}"


def assert_frames(frames: Frames, expected: dict[str, Any]) -> None:
    for name, rows in expected.items():
        if name == "funnel":
            counts = {row["stage"]: row["count"] for row in frames["funnel"]}
            assert_row("funnel", counts, rows)
        elif name.startswith("last:"):
            assert_row(name, frames[name[5:]][-1], rows)
        else:
            assert len(frames[name]) == len(rows), frames[name]
            for number, (found, row) in enumerate(zip(frames[name], rows, strict=True)):
                assert_row(f"{name}[{number}]", found, row)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_gives_the_rows_worked_out_by_hand(scenario: Scenario, engine: str) -> None:
    config = preset("default", merged(BASE, scenario.settings))
    arguments = (config, scenario.instrument, scenario.sessions, scenario.interval_ns)
    if scenario.refused is not None:
        with pytest.raises(ReferenceRefusal) as refusal:
            ENGINES[engine](*arguments, scenario.inputs)
        assert (refusal.value.row, refusal.value.column) == scenario.refused
        return
    assert_frames(ENGINES[engine](*arguments, scenario.inputs), scenario.expected)


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert len(names) >= 60


def test_spread_conserves_volume_and_is_even() -> None:
    for volume in range(1, 40):
        for ticks in range(1, 12):
            shares = reference.spread(volume, 0, ticks - 1)
            assert sum(shares.values()) == volume
            assert max(shares.values()) - min(shares.get(i, 0) for i in range(ticks)) <= 1


def test_spread_puts_the_remainder_in_the_middle_of_equal_parts() -> None:
    # Three over seven ticks: floor(7/6), floor(21/6), floor(35/6).
    assert reference.spread(3, 0, 6) == {1: 1, 3: 1, 5: 1}


def test_value_area_goes_up_when_both_sides_are_equal() -> None:
    # 70 % of 100 is 70: 40, then 20 up, then 20 down (10 against 20).
    assert reference.value_area({-1: 20, 0: 40, 1: 20, 2: 10, 3: 10}, 0) == (-1, 1)
    # The lower side has run out.
    assert reference.value_area({0: 40, 1: 0, 2: 60}, 0) == (0, 2)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 1), (1, 5), (3, 4), (12, 7), (60, 41), (300, 20)])
@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_beta_quantile_inverts_the_exact_binomial_tail(a: int, b: int, q: float) -> None:
    x = Fraction(reference.beta_quantile(q, a, b))
    n = a + b - 1
    tail = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert float(tail) == pytest.approx(q, rel=1e-13)


def test_beta_quantile_of_many_trades_is_near_the_normal_one() -> None:
    a, b = 1100, 900
    mean = a / (a + b)
    deviation = math.sqrt(mean * (1 - mean) / (a + b + 1))
    assert reference.beta_quantile(0.95, a, b) == pytest.approx(mean + 1.6449 * deviation, abs=1e-4)


def test_fnv1a_128_gives_the_published_hash() -> None:
    assert reference.fnv1a_128("") == "6c62272e07bb014262b821756295c58d"
    assert reference.fnv1a_128("a") == "d228cb696f1a8caf78912b704e4a8964"


def test_rolling_kernels_of_a_small_walk() -> None:
    rows = bars("0 100 102 99 101 1; 1 101 103 101 102 1; 2 104 104 100 100 1")
    assert reference.rolling_atr(rows, 2) == [None, px(2.5), px(3.0)]
    parkinson = reference.rolling_sigma("parkinson", rows, 1, 4.0)
    assert parkinson[0] == pytest.approx(2 * math.log(102 / 99) / math.sqrt(4 * math.log(2)))
    close = reference.rolling_sigma("close_to_close", rows, 3)
    returns = [math.log(102 / 101), math.log(100 / 102)]
    assert close[:2] == [None, None]
    assert close[2] == pytest.approx(abs(returns[0] - returns[1]) / math.sqrt(2))
    assert reference.rolling_baseline([1, 2, 3, 4], 2, 5.0) == [None, None, 0.3, 0.5]


def test_garman_klass_is_never_negative_on_coherent_bars() -> None:
    for close in range(-4, 5):
        for high in range(max(0, close), 6):
            for low in range(min(0, close), -6, -1):
                bar = Bar(0, px(100), px(100 + high), px(100 + low), px(100 + close), 1)
                value = reference.garman_klass([(bar, None)])
                assert value is not None
                assert value >= 0.0


def busy_market(count: int) -> tuple[list[Bar], list[Session]]:
    """Return a repeating market of three sessions with many clusters and trades."""
    rows: list[Bar] = []
    sessions = []
    state = 12345
    price = 4000
    for day in range(3):
        start = (20_000 + day) * reference.DAY
        sessions.append(Session(20_000 + day, start, start + count * MINUTE))
        for minute in range(count):
            draws = []
            for _ in range(5):
                state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
                draws.append(state >> 33)
            opened = price + draws[0] % 3 - 1
            closed = opened + draws[1] % 9 - 4
            high = max(opened, closed) + draws[2] % 3
            low = min(opened, closed) - draws[3] % 3
            volume = 1 + draws[4] % 100 * (8 if minute // 5 % 4 == 0 else 1)
            prices = [ticks * 250_000_000 for ticks in (opened, high, low, closed)]
            rows.append(
                Bar(start + minute * MINUTE, prices[0], prices[1], prices[2], prices[3], volume)
            )
            price = closed
    return rows, sessions


MUTANT_SETTINGS = merged(
    BASE,
    {
        "cluster": {"threshold": 3.0},
        "retest": {"test": "touch"},
        "exit": {"max_hold_minutes": 10},
        "risk": {"opposite": "hedge"},
        "stop": {"mode": "volatility", "k": 0.2},
        "target": {"mode": "reward", "reward": 1.0},
        "volatility": {"min_minutes": 5},
        "signal": {"min_strength": 0.0, "long_threshold": 0.45, "short_threshold": 0.55},
        "rank": {"hours": 0.25, "top_n": 2},
    },
)


@pytest.mark.parametrize("mutant", reference.MUTANTS)
@pytest.mark.parametrize("frame", ["aligned", "sliding"])
def test_every_mutant_trades_differently(mutant: str, frame: str) -> None:
    rows, sessions = busy_market(240)
    config = preset("default", merged(MUTANT_SETTINGS, {"cluster": {"frame": frame}}))
    clean = reference.run(rows, config, Instrument(), sessions, MINUTE)
    leaking = reference.run(rows, config, Instrument(), sessions, MINUTE, mutant=mutant)
    assert len(clean["trades"]) > 20
    assert leaking["trades"] != clean["trades"]


def broken_cuts(config: dict[str, dict[str, Any]], mutant: str | None) -> int:
    """Return how many cuts, one every third bar, change what had happened by then."""
    rows, sessions = busy_market(90)
    arguments = (config, Instrument(), sessions, MINUTE, "", mutant)
    whole = reference.prepare(rows, *arguments)
    broken = 0
    for number, row in enumerate(rows, 1):
        whole.step(row)
        if number % 3:
            continue
        part = reference.run_engine(rows[:number], *arguments).events
        while part and part[-1][1].get("exit_reason") == "open":
            part.pop()
        broken += part != whole.events
    assert len(whole.frames["trades"]) >= (10 if mutant is None else 3)
    return broken


@pytest.mark.parametrize("frame", ["aligned", "sliding"])
def test_cutting_the_bars_changes_nothing_that_was_known(frame: str) -> None:
    config = preset("default", merged(MUTANT_SETTINGS, {"cluster": {"frame": frame}}))
    assert broken_cuts(config, None) == 0


# The other two leak inside a bar, where no cut between bars can see it; parity does.
@pytest.mark.parametrize(
    "mutant",
    ["retest_from_window_start", "same_day_baseline", "rank_whole_day", "interval_read_too_short"],
)
@pytest.mark.parametrize("frame", ["aligned", "sliding"])
def test_cutting_the_bars_betrays_a_mutant(mutant: str, frame: str) -> None:
    config = preset("default", merged(MUTANT_SETTINGS, {"cluster": {"frame": frame}}))
    assert broken_cuts(config, mutant) > 3


def test_events_are_the_frames_and_what_is_armed_or_working() -> None:
    rows, sessions = busy_market(240)
    config = preset("default", MUTANT_SETTINGS)
    engine = reference.run_engine(rows, config, Instrument(), sessions, MINUTE)
    for name in ("clusters", "signals", "orders", "trades", "equity", "risk"):
        resolved = [
            row
            for kind, row in engine.events
            if kind == name
            and not (kind in {"signals", "orders"} and row["reason"] in {"armed", "working"})
        ]
        assert resolved == engine.frames[name]
    assert any(row["reason"] == "working" for kind, row in engine.events if kind == "orders")


def test_advancing_after_every_bar_changes_nothing() -> None:
    rows, sessions = busy_market(240)
    config = preset("default", MUTANT_SETTINGS)
    kept = [row for number, row in enumerate(rows) if number % 7]
    advanced: list[Input] = []
    for row in kept:
        advanced += [reference.Advance(row.start), row, reference.Advance(row.start + MINUTE)]
    plain = reference.run_engine(kept, config, Instrument(), sessions, MINUTE)
    other = reference.run_engine(advanced, config, Instrument(), sessions, MINUTE)
    assert plain.events == other.events
    assert len(plain.frames["trades"]) > 20


def test_a_flat_market_makes_no_signal() -> None:
    rows = flat(0, 60, 100.0, 500)
    frames = reference.run(
        rows,
        preset("default", BASE),
        Instrument(),
        [Session(20_000, rows[0].start, rows[0].start + 60 * MINUTE)],
        MINUTE,
    )
    assert {row["direction"] for row in frames["clusters"]} == {"none"}
    assert frames["signals"] == []
