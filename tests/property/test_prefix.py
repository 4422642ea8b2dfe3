"""Truncating the input after any bar never changes what was said by then.

Two ways to truncate. *Directly*: a new engine is given the bars up to the cut in one batch.
*By walking*: one engine is given the years piece by piece, and after each piece it has never been
handed a later bar, so what it has said is what a truncated input says; that makes a thousand cuts
cost one pass. The first goes through the batch code as users do, the second to every place.
"""

from __future__ import annotations

import collections
import random
from pathlib import Path

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
    FRAMES,
    Known,
    Tape,
    feed,
    height,
    new_engine,
    run,
    without_open,
)
from tests.property.markets import five_years, sessions_of

RANDOM_SEEDS = range(8)
CASES = [*FAMILIES, *(f"random {seed}" for seed in RANDOM_SEEDS)]
PLACES = 1000
# Ordinary sessions of October 2018, in a falling market; the ones before let every baseline begin.
FIRST_SESSION, WARM_UP, SESSIONS = 975, 9, 3


def settings_of(case: str) -> Settings:
    """Return the settings of a family or of a random configuration."""
    if case.startswith("random "):
        return random_settings(int(case.split()[1]))
    return family(case)


def walk(settings: Settings, tape: Tape, cuts: list[int]) -> collections.Counter[str]:
    """Feed a tape in pieces that end at the cuts and check after each what is known by then."""
    known = Known(run(settings, tape))
    engine = new_engine(settings, tape)
    said: collections.Counter[str] = collections.Counter(dict.fromkeys(FRAMES, 0))
    ends = tape.ends
    before = 0
    for cut in [*cuts, len(tape)]:
        piece = feed(engine, tape.part(before, cut))
        problems = known.problems(piece, int(ends[cut - 1]), said)
        assert not problems, f"cut after bar {cut - 1}: {problems}"
        said.update({frame: height(piece[frame]) for frame in FRAMES})
        before = cut
    assert said == {frame: height(known.log[frame]) for frame in FRAMES}
    return said


@pytest.mark.parametrize("case", CASES)
def test_a_thousand_cuts_over_five_years(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = five_years(data_dir, settings)
    cuts = sorted(random.Random(f"{case} places").sample(range(1, len(tape)), PLACES))
    said = walk(settings, tape, cuts)
    assert said["clusters"] >= FEWEST_TRADES
    assert said["equity"] >= FEWEST_TRADES
    if not case.startswith("random "):
        assert said["trades"] >= FEWEST_TRADES
        assert said["signals"] >= said["orders"] >= said["trades"]


def test_random_configurations_trade() -> None:
    """The random configurations are of use: together they trade by every rule that can be drawn."""
    drawn = [random_settings(seed) for seed in RANDOM_SEEDS]
    for path in ("baseline.mode", "cluster.frame", "entry.mode", "retest.test", "exit.trailing"):
        section, name = path.split(".")
        assert len({str(settings[section][name]) for settings in drawn}) >= 2, path


def test_random_configurations_make_enough_trades(data_dir: Path) -> None:
    trades = 0
    for seed in RANDOM_SEEDS:
        settings = random_settings(seed)
        trades += height(run(settings, five_years(data_dir, settings))["trades"])
    assert trades >= len(RANDOM_SEEDS) * FEWEST_TRADES


@pytest.mark.parametrize("case", CASES)
def test_walk_bar_by_bar_through_three_sessions(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = sessions_of(five_years(data_dir, settings), FIRST_SESSION - WARM_UP, WARM_UP + SESSIONS)
    said = walk(settings, tape, list(range(_first_of_three(tape), len(tape))))
    assert said["clusters"] >= 20


@pytest.mark.parametrize("case", CASES)
def test_cut_directly_after_bars_of_three_sessions(case: str, data_dir: Path) -> None:
    """Together the cases cut after every bar of the three sessions, each bar by two of them."""
    settings = settings_of(case)
    tape = sessions_of(five_years(data_dir, settings), FIRST_SESSION - WARM_UP, WARM_UP + SESSIONS)
    step = len(CASES) // 2
    cuts = range(_first_of_three(tape) + CASES.index(case) % step, len(tape) + 1, step)
    compared = _cut_directly(settings, tape, cuts)
    assert compared["cuts"] >= 3 * 1300 // step
    for frame in ("clusters", "equity"):
        assert compared[frame] >= FEWEST_TRADES, frame
    if case in RULES:
        assert compared["trades"] >= FEWEST_TRADES


@pytest.mark.parametrize("case", CASES)
def test_cut_directly_at_some_of_the_places(case: str, data_dir: Path) -> None:
    settings = settings_of(case)
    tape = five_years(data_dir, settings)
    places = random.Random(f"{case} direct").sample(range(len(tape) // 3, len(tape) // 2), 3)
    compared = _cut_directly(settings, tape.part(0, len(tape) // 2), places)
    assert compared["clusters"] >= FEWEST_TRADES
    if not case.startswith("random "):
        assert compared["trades"] >= FEWEST_TRADES


def _first_of_three(tape: Tape) -> int:
    owner = tape.session_of()
    return int(np.searchsorted(owner, np.unique(owner)[-SESSIONS])) + 1


def _cut_directly(
    settings: Settings, tape: Tape, cuts: range | list[int]
) -> collections.Counter[str]:
    known = Known(run(settings, tape))
    compared: collections.Counter[str] = collections.Counter()
    ends = tape.ends
    for cut in cuts:
        # Every other time the run is also finished, which may add rows of open trades and no more.
        finish = bool(cut % 2)
        said = run(settings, tape.part(0, cut), finish=finish)
        opened = height(said["trades"])
        if finish:
            said = without_open(said)
        compared["open trades"] += opened - height(said["trades"])
        problems = known.problems(said, int(ends[cut - 1]))
        assert not problems, f"cut after bar {cut - 1}: {problems}"
        compared["cuts"] += 1
        compared.update({frame: height(said[frame]) for frame in FRAMES})
    return compared
