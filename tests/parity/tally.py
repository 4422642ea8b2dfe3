"""What was compared, counted, so that no test passes because nothing happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from clustercore import _core
from tests.parity.markets import NO_SETTINGS_OF_THE_ENGINE
from tests.reference import Advance, Context, Input, Instrument, Late, Operator, Trade

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.reference import Frames, Row
    from tests.reference_config import Config

# Every word that a frame can hold, and how often it must have been compared at least.
WORDS: dict[str, Sequence[str]] = {
    "clusters": [
        "overlap",
        "hours",
        "no_time",
        "no_profile",
        "rank",
        "no_direction",
        "weak",
        "max_per_session",
        "cooldown",
        "armed",
    ],
    "signals": [
        "ordered",
        "expired",
        "hours",
        "session",
        "cooldown",
        "no_bar",
        "blocked",
        "missed",
    ],
    "orders": [
        "filled",
        "no_bar",
        "expired",
        "hours",
        "session",
        "reverse",
        "halted",
        "paused",
        "opposite_open",
        "max_risk",
        "margin",
        "max_trades_per_session",
        "max_open_contracts",
    ],
    "trades": [
        "stop",
        "target",
        "time",
        "session_end",
        "session_end_late",
        "scale_out",
        "reverse",
        "open",
    ],
    "risk": [
        "halted:max_drawdown",
        "paused:daily_loss",
        "paused:consecutive_losses",
        "resumed:next_session",
        "reset:next_session",
        "reset:operator",
    ],
    "sigma": [
        "garman_klass",
        "parkinson",
        "rogers_satchell",
        "close_to_close",
        "yang_zhang",
        "atr",
        "price",
    ],
    "baseline": [
        "fixed",
        "previous_session",
        "previous_session,other_contract",
        "rolling",
        "rolling,other_contract",
        "session_to_date",
        "time_of_day",
        "time_of_day,other_contract",
    ],
    "funnel": [
        "bars",
        "context_bars",
        "zero_volume",
        "outside_session",
        "windows",
        "thin",
        "warming_up",
        "quiet",
        "clusters",
    ],
    "inputs": ["context", "late", "trade", "advance", "operator"],
    "special": [
        "ambiguous",
        "optimistic",
        "stale",
        "modal_tied",
        "partial_exit",
        "trailing_stop",
        "adverse_entry",
        "killed:halted",
        "killed:paused",
        "multiplier",
        "quantity_cut",
        "short",
        "long",
    ],
}

_KINDS: dict[type, str] = {
    Context: "context",
    Late: "late",
    Trade: "trade",
    Advance: "advance",
    Operator: "operator",
}


class Tally:
    """Counts of what was compared."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.families: Counter[str] = Counter()
        self.settings: dict[str, set[str]] = defaultdict(set)

    def add(
        self,
        inputs: Iterable[Input],
        config: Config,
        frames: Frames,
        instrument: Instrument | None = None,
    ) -> None:
        """Count one run that was found equal."""
        for section, values in config.items():
            for name, value in values.items():
                self.settings[f"{section}.{name}"].add(repr(value))
        for item in inputs:
            if kind := _KINDS.get(type(item)):
                self.counts["inputs"][kind] += 1
        for frame in ("clusters", "signals", "orders"):
            self.counts[frame].update(row["reason"] for row in frames[frame])
        self.counts["trades"].update(row["exit_reason"] for row in frames["trades"])
        self.counts["risk"].update(f"{row['kind']}:{row['reason']}" for row in frames["risk"])
        self.counts["sigma"].update(row["sigma_source"] for row in frames["trades"])
        self.counts["baseline"].update(row["baseline_source"] for row in frames["clusters"])
        for row in frames.get("funnel", []):
            self.counts["funnel"][row["stage"]] += row["count"]
        self._add_special(config, frames, (instrument or Instrument()).tick_nanos)
        family = (config["entry"]["mode"], config["retest"]["test"], config["cluster"]["frame"])
        self.families[" ".join(family)] += len(frames["trades"])

    def _add_special(self, config: Config, frames: Frames, tick: int) -> None:
        special = self.counts["special"]
        for trade in frames["trades"]:
            for name in ("ambiguous", "optimistic", "stale", "modal_tied"):
                special[name] += trade[name]
            special[trade["direction"]] += 1
            special["multiplier"] += trade["multiplier"] > 1.0
            nanos = trade["exit_price"] * 1e9
            off = abs(nanos / tick - round(nanos / tick)) > 1e-6
            special["partial_exit"] += bool(
                config["exit"]["scale_out"] and config["instrument"]["check_tick"] and off
            )
            special["trailing_stop"] += config["exit"]["trailing"] != "off" and _trailed(trade)
            special["adverse_entry"] += (
                config["entry"]["adverse"] and config["entry"]["mode"] == "next_open"
            )
        for order in frames["orders"]:
            if order["quantity"] and order["reason"] in ("halted", "paused"):
                special[f"killed:{order['reason']}"] += 1
            if 0 < order["quantity"] < config["size"]["max_contracts"]:
                special["quantity_cut"] += config["risk"]["max_open_contracts"] is not None

    def table(self) -> str:
        """Return the counts as text."""
        lines = []
        for group, words in WORDS.items():
            known = ", ".join(f"{word} {self.counts[group][word]}" for word in words)
            lines.append(f"{group:>9}: {known}")
        families = ", ".join(f"{name} {count}" for name, count in sorted(self.families.items()))
        return "\n".join([*lines, f"{'trades of':>9}: {families}"])

    def unknown(self) -> list[str]:
        """Return words that nobody expected: a new reason needs its place in the table."""
        groups = ("clusters", "signals", "orders", "trades", "risk", "sigma", "baseline")
        return [
            f"{group} {word}"
            for group in groups
            for word in self.counts[group]
            if word not in WORDS[group]
        ]

    def too_few(self, least: Mapping[str, int] | int) -> list[str]:
        """Return what was seen less often than it must be."""
        return [
            f"{group} {word}: {self.counts[group][word]}"
            for group, words in WORDS.items()
            for word in words
            if self.counts[group][word] < (least if isinstance(least, int) else least.get(group, 0))
        ]

    def unused_settings(self) -> list[str]:
        """Return settings that always had the same value, and words never chosen."""
        wrong = []
        for setting in _core.config_fields():
            path = f"{setting['section']}.{setting['name']}"
            if path in NO_SETTINGS_OF_THE_ENGINE:
                continue
            seen = self.settings[path]
            if len(seen) < 2:
                wrong.append(f"{path}: only {seen}")
            wrong += [
                f"{path}: never {word}" for word in setting["choices"] if repr(word) not in seen
            ]
        return wrong


def _trailed(trade: Row) -> bool:
    """Whether a trade left at a stop that had moved."""
    sign = 1 if trade["direction"] == "long" else -1
    return bool(
        trade["exit_reason"] == "stop" and sign * (trade["exit_price"] - trade["stop"] / 1e9) > 1e-6
    )


def merge(first: Tally, second: Tally) -> None:
    """Add the counts of another tally."""
    for group, counts in second.counts.items():
        first.counts[group].update(counts)
    first.families.update(second.families)
    for path, seen in second.settings.items():
        first.settings[path] |= seen


def minimums(**groups: int) -> dict[str, Any]:
    """Return minimum counts by group."""
    return dict(groups)
