"""What an engine said, as plain columns, and the instant by which each row of it was known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustercore import _core
from clustercore.config import Config
from clustercore.instruments import Instrument
from clustercore.sessions import Sessions

MINUTE_NS = 60 * 10**9
BAR_COLUMNS = ("ts_event", "open", "high", "low", "close", "volume")
FRAMES = ("clusters", "signals", "orders", "trades", "equity", "risk")
# The instant a row speaks of, which is when it must be known.
TIME = {
    "clusters": "decision_time",
    "signals": "resolved_time",
    "orders": "resolved_time",
    "trades": "exit_time",
    "equity": "time",
    "risk": "time",
}
# What may happen at the open of a bar, which comes after all that happens at the end of the last.
AT_OPEN = {
    "orders": ("filled",),
    "trades": ("stop", "target", "scale_out", "reverse", "session_end_late"),
    "risk": ("resumed", "reset"),
}
REASON = {"orders": "reason", "trades": "exit_reason", "risk": "kind"}

Columns = dict[str, NDArray[Any]]
Log = dict[str, Columns]
FIELDS = _core.record_fields()
TEXTS = {
    frame: frozenset(f["name"] for f in fields if f["kind"] in ("text", "symbol"))
    for frame, fields in FIELDS.items()
}
# Texts stand in the columns as their place in this list, which makes them quick to compare.
WORDS: list[str] = [""]
_CODES: dict[str, int] = {"": 0}


def code(word: str) -> int:
    """Return the number that stands for a text in the columns."""
    if word not in _CODES:
        _CODES[word] = len(WORDS)
        WORDS.append(word)
    return _CODES[word]


def texts(log: Log, frame: str, name: str) -> list[str]:
    """Return a column of texts."""
    return [WORDS[place] for place in log[frame][name].tolist()]


def is_one_of(column: NDArray[Any], words: Sequence[str]) -> NDArray[np.bool_]:
    """Return where a column of texts has one of some words."""
    return np.isin(column, [code(word) for word in words])


@dataclass(frozen=True, eq=False)
class Tape:
    """Bars of one interval with the sessions they trade in: all that an engine is given."""

    bars: dict[str, NDArray[np.int64]]
    sessions: Mapping[str, NDArray[Any]]
    stretches: tuple[tuple[int, str], ...] = ((0, "ES"),)
    context: NDArray[np.bool_] | None = None
    interval_ns: int = MINUTE_NS
    tick_nanos: int = 250_000_000

    def __len__(self) -> int:
        return len(self.bars["ts_event"])

    def part(self, first: int, end: int) -> Tape:
        """Return the bars from row `first` to before row `end`."""
        inside = [(max(row, first) - first, name) for row, name in self.stretches if row < end]
        starting = [s for i, s in enumerate(inside) if i + 1 == len(inside) or inside[i + 1][0] > 0]
        return replace(
            self,
            bars={name: column[first:end] for name, column in self.bars.items()},
            stretches=tuple(starting),
            context=None if self.context is None else self.context[first:end],
        )

    @property
    def ends(self) -> NDArray[np.int64]:
        """Instants at which the bars are known."""
        return self.bars["ts_event"] + self.interval_ns

    def session_of(self) -> NDArray[np.int64]:
        """Return the row of the session of each bar."""
        return np.searchsorted(self.sessions["open_ns"], self.bars["ts_event"], side="right") - 1


def trimmed(sessions: Sessions, bars: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """Return the columns of the sessions around some bars: a short table is made quickly."""
    columns = sessions.columns()
    first = int(np.searchsorted(columns["close_ns"], bars["ts_event"][0], side="right"))
    last = int(np.searchsorted(columns["open_ns"], bars["ts_event"][-1], side="right")) + 3
    result: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        if name.startswith(("hours_", "halts_")):
            owner = columns[name.split("_", maxsplit=1)[0] + "_session"]
            kept = (owner >= first) & (owner < last)
            result[name] = column[kept] - (first if name.endswith("_session") else 0)
        else:
            result[name] = column[first:last]
    return result


def new_engine(
    config: Mapping[str, Mapping[str, Any]], tape: Tape, config_id: str = "id"
) -> _core.Engine:
    """Return an engine that has seen nothing."""
    instrument = {
        "root": "ES",
        "tick_nanos": tape.tick_nanos,
        "point_value": 50.0,
        "commission": 2.5,
        "margin": None,
    }
    return _core.Engine(
        {name: dict(section) for name, section in config.items()},
        config_id,
        instrument,
        dict(tape.sessions),
        tape.interval_ns,
    )


def feed(engine: _core.Engine, tape: Tape, *, finish: bool = False) -> Log:
    """Give an engine a batch of bars and return what it said."""
    bars = tape.bars
    raw = engine.run(
        bars["ts_event"],
        bars["open"],
        bars["high"],
        bars["low"],
        bars["close"],
        bars["volume"],
        list(tape.stretches),
        tape.context,
        None,
        finish,
    )
    return {name: _plain(name, raw[name]) for name in FRAMES}


def run(config: Mapping[str, Mapping[str, Any]], tape: Tape, *, finish: bool = False) -> Log:
    """Give a new engine all bars at once."""
    return feed(new_engine(config, tape), tape, finish=finish)


def _plain(frame: str, raw: Mapping[str, Any]) -> Columns:
    """Return raw columns as arrays that compare bit by bit; a null is a zero and a flag."""
    if not len(raw[TIME[frame]][0]):
        return EMPTY[frame]
    plain: Columns = {}
    for field in FIELDS[frame]:
        name, kind = field["name"], field["kind"]
        column = raw[name]
        if kind in ("time", "int", "bool"):
            values, valid = column
            plain[name] = values
            if field["nullable"]:
                plain[name] = np.where(valid, values, np.zeros(1, values.dtype))
                plain[f"{name}?"] = valid
        elif kind in ("price", "float"):
            plain[name] = column
        elif kind == "id":
            plain[name] = np.array(column, dtype="U32")
        else:
            codes, words = column
            own = np.array([*(code(word) for word in words), 0], dtype=np.int32)
            plain[name] = own[np.minimum(codes, len(words))]
    return plain


def log_of_rows(frames: Mapping[str, Sequence[Mapping[str, Any]]], *, points: bool = False) -> Log:
    """Return rows as a log; prices in nanos, as the oracle's are, or in points."""
    return {name: _rows_as_columns(name, frames[name], points=points) for name in FRAMES}


def _rows_as_columns(
    frame: str, rows: Sequence[Mapping[str, Any]], *, points: bool = False
) -> Columns:
    plain: Columns = {}
    for field in FIELDS[frame]:
        name, kind = field["name"], field["kind"]
        values = [row[name] for row in rows]
        if kind in ("time", "int", "bool"):
            filled = [0 if value is None else value for value in values]
            plain[name] = np.array(filled, dtype=bool if kind == "bool" else np.int64)
            if field["nullable"]:
                plain[f"{name}?"] = np.array([value is not None for value in values], dtype=bool)
        elif kind in ("price", "float"):
            scale = 1e9 if kind == "price" and not points else 1.0
            plain[name] = np.array(
                [np.nan if value is None else value / scale for value in values], dtype=np.float64
            )
        elif kind == "id":
            plain[name] = np.array(values, dtype="U32")
        else:
            plain[name] = np.array([code(v or "") for v in values], dtype=np.int32)
    return plain


EMPTY: Log = {frame: _rows_as_columns(frame, []) for frame in FRAMES}


def height(columns: Columns) -> int:
    """Return the number of rows."""
    return len(next(iter(columns.values())))


def rows(log: Log, frame: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a frame as dictionaries of plain values."""
    names = list(log[frame])
    columns = [
        texts(log, frame, name) if name in TEXTS[frame] else log[frame][name].tolist()
        for name in names
    ]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def where(columns: Columns, kept: NDArray[np.bool_] | slice) -> Columns:
    """Return some rows."""
    return {name: column[kept] for name, column in columns.items()}


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two columns are the same, floats to the last bit and NaN equal to itself."""
    if left.dtype == np.float64 and right.dtype == np.float64:
        left, right = left.view(np.int64), right.view(np.int64)
    return np.array_equal(left, right)


def differing(left: Columns, right: Columns, ignored: Sequence[str] = ()) -> list[str]:
    """Return the names of columns that differ."""
    assert left.keys() == right.keys()
    return [n for n in left if n not in ignored and not same_bits(left[n], right[n])]


def without_open(log: Log) -> Log:
    """Return a log without the rows that `finish` writes for open trades."""
    return {**log, "trades": where(log["trades"], log["trades"]["exit_reason"] != code("open"))}


def joined(parts: Sequence[Log]) -> Log:
    """Return logs one after the other."""
    return {
        frame: {
            name: np.concatenate([part[frame][name] for part in parts]) for name in parts[0][frame]
        }
        for frame in FRAMES
    }


class Known:
    """A whole log, and from which instant on each of its rows must have been said."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._earliest: dict[str, NDArray[np.int64]] = {}
        for frame in FRAMES:
            columns = log[frame]
            # Twice the time, one more for what happens at the open of a bar: it comes last.
            key = 2 * columns[TIME[frame]].astype(np.int64)
            if frame in AT_OPEN:
                key += is_one_of(columns[REASON[frame]], AT_OPEN[frame])
            self._earliest[frame] = np.minimum.accumulate(key[::-1])[::-1]

    def problems(self, said: Log, cut: int, done: Mapping[str, int] | None = None) -> list[str]:
        """Return what was said wrongly, too early or not at all.

        Parameters
        ----------
        said : Log
            What an engine said that was given the bars that end by `cut`, and no others.
        cut : int
            End of the last bar.
        done : mapping of str to int, optional
            Rows of each frame that were said before and are not in `said`.
        """
        found = []
        for frame in FRAMES:
            columns = said[frame]
            first = done[frame] if done else 0
            end = first + height(columns)
            whole = self.log[frame]
            if end > height(whole):
                found.append(f"{frame}: {end - height(whole)} rows that were taken back")
                continue
            if end > first:
                wrong = differing(columns, where(whole, slice(first, end)))
                if wrong:
                    found.append(f"{frame}: {', '.join(wrong)} changed")
                if columns[TIME[frame]].max() > cut:
                    found.append(f"{frame}: said before its time")
            later = self._earliest[frame]
            if end < len(later) and later[end] <= 2 * cut:
                found.append(f"{frame}: a row of {later[end] // 2} is missing at {cut}")
        return found


def config_dict(preset: str, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a preset with changes, as the plain settings that engine and oracle take."""
    return Config.preset(preset).override(overrides).to_dict()


def instrument() -> Instrument:
    """Return the instrument of the tapes."""
    return Instrument.builtin("ES")
