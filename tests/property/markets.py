"""Tapes: the real years, simulated sessions, and small markets that also the oracle can walk."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustercore.bars import Bars
from clustercore.sample import sample
from clustercore.sessions import load_sessions
from clustercore.sources import read_bars
from tests import reference
from tests.property.families import Settings
from tests.property.logs import BAR_COLUMNS, MINUTE_NS, Log, Tape, log_of_rows, run, trimmed

YEARS = Path("bars") / "es_1m_2015_2019.parquet"
TICK = 250_000_000
DAY_NS = 1440 * MINUTE_NS
FIRST_DAY = 20_000
# Short sessions, so that the oracle can be asked again after every bar.
SMALL_MINUTES = 75


@functools.lru_cache(maxsize=2)
def _years(path: Path) -> Bars:
    return read_bars(path)


def tape_of(bars: Bars, settings: Settings) -> Tape:
    """Return bars as a tape, with the sessions that the settings ask for."""
    columns = bars.columns_nanos()
    sessions = load_sessions(
        bars.instrument.calendar, hours=settings["session"]["hours"], day=settings["session"]["day"]
    )
    return Tape(
        columns,
        trimmed(sessions, columns),
        interval_ns=bars.interval_ns,
        tick_nanos=bars.instrument.tick_nanos,
    )


def five_years(data_dir: Path, settings: Settings) -> Tape:
    """Return the real bars of 2015 to 2019."""
    return tape_of(_years(data_dir / YEARS), settings)


def sessions_of(tape: Tape, first: int, count: int) -> Tape:
    """Return the bars of some sessions, `first` counted among those that have a bar."""
    owner = tape.session_of()
    held = np.unique(owner)
    low = int(np.searchsorted(owner, held[first], side="left"))
    high = int(np.searchsorted(owner, held[first + count - 1], side="right"))
    return tape.part(low, high)


@functools.lru_cache(maxsize=16)
def simulated(sessions: int, seed: int) -> Bars:
    """Return the package's driftless sample."""
    return sample(sessions, seed)


# Settings for windows of five minutes in sessions of 75.
SMALL: dict[str, object] = {
    "cluster.minutes": 5,
    "cluster.basis": "minute",
    "cluster.threshold": 4.0,
    "baseline.mode": "previous_session",
    "rank.hours": 0.5,
    "rank.top_n": 1,
    "profile.start_minute": 0,
    "profile.end_minute": 5,
    "momentum.start_minute": -5,
    "momentum.end_minute": 0,
    "signal.long_threshold": 0.4,
    "signal.short_threshold": 0.6,
    "signal.min_strength": 0.1,
    "retest.timeout_minutes": 15,
    "retest.test": "close",
    "retest.tolerance": "2 ticks",
    "exit.max_hold_minutes": 12,
    "volatility.minutes": 20,
    "volatility.min_minutes": 5,
    "volatility.atr_minutes": 10,
    "volatility.atr_min_minutes": 5,
    "stop.k": 0.5,
    "target.reward": 1.0,
    "risk.max_open_contracts": None,
    "risk.opposite": "hedge",
    "learning.mode": "off",
    "learning.context": "none",
}


def small_market(seed: int, sessions: int = 3, steps_factor: int = 1) -> list[reference.Bar]:
    """Return a random walk in ticks whose volume comes in bursts; some minutes are absent."""
    draw = random.Random(seed)
    bars: list[reference.Bar] = []
    price = 16_000
    for day in range(sessions):
        burst = 0.0
        for minute in range(SMALL_MINUTES):
            if minute % 11 == 3:
                burst = draw.choice((0.0, 4.0, 9.0))
            burst *= 0.75
            if draw.random() < 0.03:
                continue
            price += draw.choice((-1, 0, 0, 0, 1))
            steps = steps_factor * (3 + int(3 * burst**0.5) + draw.randrange(4))
            path = [price]
            for _ in range(steps):
                path.append(path[-1] + draw.choice((-1, 1)))
            price = path[-1]
            volume = int(100 * (1 + 4 * burst) * draw.uniform(0.6, 1.4)) + 1
            bars.append(
                reference.Bar(
                    (FIRST_DAY + day) * DAY_NS + minute * MINUTE_NS,
                    path[0] * TICK,
                    max(path) * TICK,
                    min(path) * TICK,
                    price * TICK,
                    volume,
                )
            )
    return bars


def small_sessions(sessions: int = 3) -> list[reference.Session]:
    """Return the sessions of small markets, from midnight UTC."""
    spans = [
        (opened, opened + SMALL_MINUTES * MINUTE_NS)
        for opened in ((FIRST_DAY + day) * DAY_NS for day in range(sessions))
    ]
    return [
        reference.Session(
            trade_date=opened // DAY_NS, open=opened, close=close, hours=[(opened, close)]
        )
        for opened, close in spans
    ]


def columns_of(bars: list[reference.Bar]) -> dict[str, np.ndarray]:
    """Return bars as the columns of a tape."""
    return {
        name: np.array([bar[place] for bar in bars], dtype=np.int64)
        for place, name in enumerate(BAR_COLUMNS)
    }


def small_tape(bars: list[reference.Bar], sessions: list[reference.Session]) -> Tape:
    """Return a small market as a tape."""
    count = len(sessions)
    whole: dict[str, NDArray[Any]] = {
        "open_ns": np.array([s.open for s in sessions], dtype=np.int64),
        "close_ns": np.array([s.close for s in sessions], dtype=np.int64),
        "trade_date": np.array([s.trade_date for s in sessions], dtype=np.int32),
        "new_york_offset_s": np.full(count, -18_000, dtype=np.int32),
    }
    nothing = np.zeros(0, dtype=np.int64)
    spans: dict[str, NDArray[Any]] = {
        "hours_session": np.arange(count, dtype=np.int64),
        "hours_start_ns": whole["open_ns"],
        "hours_end_ns": whole["close_ns"],
        "halts_session": nothing,
        "halts_start_ns": nothing,
        "halts_end_ns": nothing,
    }
    return Tape(columns_of(bars), {**whole, **spans}, stretches=((0, "ESZ5"),))


def rust_log(bars: list[reference.Bar], settings: Settings) -> Log:
    """Return what the engine says of a small market, without closing anything."""
    return run(settings, small_tape(bars, small_sessions(_days(bars))))


def oracle_log(bars: list[reference.Bar], settings: Settings, mutant: str | None = None) -> Log:
    """Return what the oracle, or a mutant, says of a small market, without closing anything."""
    return log_of_rows(oracle(bars, settings, mutant).frames)


def oracle(
    bars: list[reference.Bar], settings: Settings, mutant: str | None = None
) -> reference.Reference:
    """Return the oracle, or a mutant of it, after a small market."""
    engine = reference.prepare(
        bars, settings, reference.Instrument(), small_sessions(_days(bars)), MINUTE_NS, "id", mutant
    )
    for bar in bars:
        engine.step(bar)
    return engine


def _days(bars: list[reference.Bar]) -> int:
    return bars[-1].start // DAY_NS - FIRST_DAY + 2 if bars else 1
