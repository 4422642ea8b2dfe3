"""On prices without drift nothing can be earned: whoever earns has seen the future.

The sample's price is a random walk on the tick grid, so the mean gross trade of an honest rule is
zero, whatever its stops and targets. Returns are in percent of the entry price. Trades of one
session share its path, so the standard error takes sessions as the unit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from clustercore.config import Config
from clustercore.sessions import load_sessions
from tests import reference
from tests.property.families import FAMILIES, FEWEST_TRADES, PRESETS, Settings, family
from tests.property.logs import BAR_COLUMNS, MINUTE_NS, Log, log_of_rows, run, texts
from tests.property.markets import simulated, tape_of

SEEDS = range(1, 13)
SESSIONS = 60
# What the known leak, a retest that begins at the window's start, earned on such data, in percent.
LEAK_PCT = 0.07
ERRORS = 3.0
# A mean this many standard errors from zero is seen four times in five at a threshold of three.
SEEN = ERRORS + 0.8416


@dataclass(frozen=True)
class Luck:
    """The mean gross trade of many samples, in percent, and its standard error."""

    trades: int
    mean: float
    error: float

    @property
    def smallest(self) -> float:
        """The smallest mean that would have been seen four times in five."""
        return SEEN * self.error

    @property
    def has_power(self) -> bool:
        """Whether the known leak would have been seen."""
        return self.smallest <= LEAK_PCT

    @property
    def is_zero(self) -> bool:
        """Whether the mean lies within three standard errors of zero."""
        return abs(self.mean) <= ERRORS * self.error

    def line(self, name: str) -> str:
        """Return a row of the table."""
        power = "" if self.has_power else "   no power"
        return (
            f"{name:<26}{self.trades:>8}{self.mean:>+10.4f} {self.error:>8.4f}"
            f"{self.mean / self.error:>+8.2f}{self.smallest:>10.4f}{power}"
        )


HEADING = f"{'gross, % a trade':<26}{'trades':>8}{'mean':>10}{'error':>9}{'z':>8}{'seen from':>10}"


def measured(logs: list[Log]) -> Luck:
    """Return the mean gross trade over logs."""
    sums: dict[tuple[int, int], list[float]] = {}
    opens = load_sessions().open_ns
    for seed, log in enumerate(logs):
        trades = log["trades"]
        signs = np.where(np.array(texts(log, "trades", "direction")) == "long", 1.0, -1.0)
        moves = signs * (trades["exit_price"] / trades["entry_price"] - 1.0) * 100.0
        session = np.searchsorted(opens, trades["decision_time"] - 1, side="right")
        for place, move in zip(session.tolist(), moves.tolist(), strict=True):
            sums.setdefault((seed, place), []).append(move)
    count = sum(len(moves) for moves in sums.values())
    mean = math.fsum(move for moves in sums.values() for move in moves) / count
    spread = math.fsum((math.fsum(moves) - mean * len(moves)) ** 2 for moves in sums.values())
    return Luck(count, mean, math.sqrt(spread) / count)


def engine_luck(settings: Settings) -> Luck:
    """Return the luck of the engine over all seeds."""
    return measured([run(settings, tape_of(simulated(SESSIONS, s), settings)) for s in SEEDS])


def settings_without_bias(name: str) -> Settings:
    """Return a family whose fills give nothing away: targets and limits fill at a touch."""
    return family(name, {"exit.target_through_ticks": 0, "entry.through_ticks": 0})


@functools.cache
def oracle_luck(mutant: str | None) -> Luck:
    """Return the luck of the oracle over a few seeds; it is slow."""
    logs = []
    settings = settings_without_bias("new-algo")
    for seed in (1, 2, 3, 4):
        tape = tape_of(simulated(SESSIONS, seed), settings)
        spans = zip(
            tape.sessions["trade_date"].tolist(),
            tape.sessions["open_ns"].tolist(),
            tape.sessions["close_ns"].tolist(),
            strict=True,
        )
        sessions = [
            reference.Session(date, opened, close, hours=[(opened, close)])
            for date, opened, close in spans
        ]
        inputs = [
            reference.Bar(*row)
            for row in zip(*(tape.bars[name].tolist() for name in BAR_COLUMNS), strict=True)
        ]
        frames = reference.run(
            inputs, settings, reference.Instrument(), sessions, MINUTE_NS, "id", mutant
        )
        logs.append(log_of_rows(frames))
    return measured(logs)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_driftless_market_pays_no_family(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Fills at a touch are fair, so the mean is zero; the stricter ones of the preset only cost."""
    if name == next(iter(FAMILIES)):
        record_property("heading", HEADING)
    fair = engine_luck(settings_without_bias(name))
    record_property("table", fair.line(name))
    if name == "v6-live":
        # Its one-minute clusters are rare on the sample; its trades are counted and stated.
        assert fair.trades >= FEWEST_TRADES // 2
    else:
        assert fair.trades >= FEWEST_TRADES
    if name == "adverse entry":
        assert fair.mean < -ERRORS * fair.error, "paying the worse price must be seen to cost"
    else:
        assert fair.is_zero
    own = engine_luck(family(name))
    assert own.mean <= ERRORS * own.error
    if name in PRESETS:
        record_property("table", own.line(f"  {name}, own fills"))
        assert own.is_zero


@pytest.mark.parametrize("preset", Config.presets())
def test_a_preset_as_it_stands_says_when_it_has_no_power(
    preset: str, record_property: Callable[[str, object], None]
) -> None:
    """With gates on a preset may trade so rarely that the leak could hide; the table says it."""
    luck = engine_luck(Config.preset(preset).to_dict())
    line = luck.line(f"  {preset}, gates on")
    record_property("table", line)
    assert luck.is_zero
    assert ("no power" in line) == (luck.smallest > LEAK_PCT)


def test_the_known_leak_is_seen(record_property: Callable[[str, object], None]) -> None:
    """A retest that begins at the window's start earns what it is known for, and is caught."""
    clean, leaking = oracle_luck(None), oracle_luck("retest_from_window_start")
    record_property("table", clean.line("  oracle, four seeds"))
    record_property("table", leaking.line("  retest from the start"))
    assert clean.is_zero
    assert leaking.trades >= FEWEST_TRADES
    assert leaking.mean > ERRORS * leaking.error
    assert leaking.mean >= LEAK_PCT - ERRORS * leaking.error


def test_the_order_inside_a_bar_is_seen(record_property: Callable[[str, object], None]) -> None:
    """Where bars reach both stop and target, the target first pays and the stop first costs."""
    near = {
        "stop.mode": "fixed",
        "stop.distance": "2 ticks",
        "target.mode": "fixed",
        "target.distance": "2 ticks",
        "exit.target_through_ticks": 0,
    }
    lucky = engine_luck(family("no retest", {**near, "exit.same_bar": "target_first"}))
    honest = engine_luck(family("no retest", {**near, "exit.same_bar": "stop_first"}))
    record_property("table", lucky.line("  target before stop"))
    record_property("table", honest.line("  stop before target"))
    assert lucky.mean > ERRORS * lucky.error
    assert honest.mean < 0
