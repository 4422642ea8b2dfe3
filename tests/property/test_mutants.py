"""Every causal property must catch something that leaks.

The oracle has mutants that leak on purpose. Each property is tried on the engine and on the oracle,
where it must find nothing, and on every mutant, where those named in `CAUGHT_BY` must find it.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable

import pytest

from tests import reference
from tests.parity.engines import event_rows, rust_events
from tests.property.causality import (
    Compared,
    kept_promises,
    no_different,
    other_future,
    pessimistic,
    times_in_order,
    truncation,
)
from tests.property.families import FEWEST_TRADES, Settings
from tests.property.logs import Known, Log, config_dict, feed, new_engine, run
from tests.property.markets import (
    SMALL,
    oracle,
    oracle_log,
    rust_log,
    small_market,
    small_sessions,
    small_tape,
)

PROPERTIES = (
    "truncation",
    "other future",
    "times in order",
    "pessimistic exits",
    "kept promises",
    "parity",
)
# What must catch which mutant; more may. A mutant of the order inside one bar is no leak of later
# bars, so truncation cannot see it: the rule on exits does, and `test_luck` sees what it earns.
CAUGHT_BY = {
    "retest_from_window_start": {"truncation", "other future", "times in order", "parity"},
    "same_day_baseline": {"truncation", "other future", "parity"},
    "target_before_stop": {"pessimistic exits", "parity"},
    # The fill bar's range is known when that bar ends, and so is the row: only its open tells.
    "stop_from_fill_bar": {"other future", "kept promises", "parity"},
    "rank_whole_day": {"truncation", "other future", "parity"},
    "interval_read_too_short": {"truncation", "other future", "times in order", "parity"},
}
SUBJECTS = ("engine", "oracle", *reference.MUTANTS)
# Bars so wide, and stops so near, that many bars reach both stop and target.
WILD = {
    **SMALL,
    "rank.top_n": 3,
    "exit.target_through_ticks": 0,
    "cluster.threshold": 3.0,
    "retest.tolerance": "4 ticks",
    "stop.mode": "fixed",
    "stop.distance": "4 ticks",
    "target.mode": "fixed",
    "target.distance": "4 ticks",
}
LONG_SESSIONS = 40


def run_subject(subject: str, bars: list[reference.Bar], settings: Settings) -> Log:
    if subject == "engine":
        return rust_log(bars, settings)
    return oracle_log(bars, settings, None if subject == "oracle" else subject)


def events_of(
    subject: str, bars: list[reference.Bar], settings: Settings
) -> list[tuple[str, reference.Row]]:
    """Return all events with prices in points, but without the rows of open trades."""
    if subject == "engine":
        sessions = small_sessions(LONG_SESSIONS + 1)
        said, _ = rust_events(bars, settings, reference.Instrument(), sessions, 60 * 10**9, "id")
        found = event_rows(said)
    else:
        mutant = None if subject == "oracle" else subject
        found = [(frame, _points(row)) for frame, row in oracle(bars, settings, mutant).events]
    return [item for item in found if item[1].get("exit_reason") != "open"]


def _points(row: reference.Row) -> reference.Row:
    prices = (
        "limit_price",
        "reference_price",
        "stop_distance",
        "target_distance",
        "entry_price",
        "stop",
        "target",
    )
    return {
        name: value / 1e9 if name in prices and value is not None else value
        for name, value in row.items()
    }


@functools.cache
def examined(subject: str) -> dict[str, tuple[list[str], Compared]]:
    """Return what each property finds in a subject, over several small markets."""
    runner = functools.partial(run_subject, subject)
    result: dict[str, tuple[list[str], Compared]] = {
        name: ([], collections.Counter()) for name in PROPERTIES
    }

    def add(name: str, outcome: tuple[list[str], Compared]) -> None:
        result[name][0].extend(outcome[0])
        result[name][1].update(outcome[1])

    settings = config_dict("default", SMALL)
    for seed in (0, 2):
        bars = small_market(seed, 4)
        cuts = range(90 + seed, len(bars), 4)
        add("truncation", truncation(runner, bars, settings, cuts))
        add("other future", other_future(runner, bars, settings, cuts, seed))
    for seed, changes in ((5, SMALL), (6, WILD), (7, WILD)):
        settings = config_dict("default", changes)
        bars = small_market(seed, LONG_SESSIONS, 1 if changes is SMALL else 5)
        log = runner(bars, settings)
        add("times in order", times_in_order(log, settings))
        add("pessimistic exits", pessimistic(log, bars))
        add("kept promises", kept_promises(events_of(subject, bars, settings)))
        clean = oracle_log(bars, settings) if subject == "engine" else rust_log(bars, settings)
        add("parity", no_different(log, clean))
    return result


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_property_catches_what_leaks_and_nothing_else(
    subject: str, record_property: Callable[[str, object], None]
) -> None:
    found = examined(subject)
    cells = "".join(f"{len(found[name][0]) or '-':>19}" for name in PROPERTIES)
    if subject == SUBJECTS[0]:
        heading = "".join(f"{name:>19}" for name in PROPERTIES)
        record_property("heading", f"{'violations found by':<26}{heading}")
    record_property("table", f"{subject:<26}{cells}")
    for name, (problems, compared) in found.items():
        if subject in ("engine", "oracle"):
            assert compared["trades"] >= FEWEST_TRADES, f"{name} compared too little: {compared}"
            assert not problems, (name, problems[:5])
        elif name in CAUGHT_BY[subject]:
            assert problems, f"{name} does not see {subject}"


def test_pessimistic_exits_had_something_to_decide() -> None:
    assert examined("engine")["pessimistic exits"][1]["ambiguous"] >= 30


def test_every_mutant_is_caught_by_a_property_of_its_own_and_not_only_by_parity() -> None:
    assert set(CAUGHT_BY) == set(reference.MUTANTS)
    for mutant, names in CAUGHT_BY.items():
        assert names - {"parity"}, mutant


def test_walking_is_as_sharp_as_truncating() -> None:
    """The walk of `test_prefix` sees another past as soon as it was said to be known."""
    bars, settings = small_market(0, 4), config_dict("default", SMALL)
    tape = small_tape(bars, small_sessions(5))
    known = Known(run(settings, tape))
    engine = new_engine(settings, tape)
    assert not known.problems(feed(engine, tape.part(0, 150)), int(tape.ends[149]))
    louder = [bar._replace(volume=bar.volume * (1 + place % 2)) for place, bar in enumerate(bars)]
    other = small_tape(louder, small_sessions(5))
    assert known.problems(
        feed(new_engine(settings, other), other.part(0, 150)), int(tape.ends[149])
    )
