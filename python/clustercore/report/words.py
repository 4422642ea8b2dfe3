"""What the engine's short reasons and stages are called on the page."""

from __future__ import annotations

from typing import Final

__all__ = ["REASONS", "STAGES"]

STAGES: Final = {
    "bars": "Bars in sessions",
    "windows": "Windows judged",
    "clusters": "Volume clusters",
    "inside_hours": "Inside the allowed hours",
    "ranked": "Ranked high enough",
    "with_direction": "With a direction",
    "strong_enough": "Strong enough",
    "armed": "Signals armed",
    "confirmed": "Confirmed by a retest",
    "ordered": "Orders made",
    "entered": "Entered",
    "closed": "Closed",
}

REASONS: Final = {
    "context_bars": "context bars at a roll",
    "zero_volume": "bars without volume",
    "outside_session": "bars outside every session",
    "thin": "too few bars in the window",
    "warming_up": "no usual volume known yet",
    "quiet": "volume below the threshold",
    "overlap": "overlaps the cluster before",
    "hours": "outside the allowed hours",
    "no_time": "session ends before the decision",
    "no_profile": "no volume profile",
    "rank": "a larger cluster was near",
    "no_direction": "no direction from the modal price",
    "weak": "signal too weak",
    "max_per_session": "enough signals in the session",
    "cooldown": "too soon after the last signal",
    "expired": "ran out of time",
    "session": "session ended",
    "pending": "waiting when the data end",
    "no_bar": "no bar to trade on",
    "missed": "bar came too late to act on",
    "blocked": "blocked",
    "opposite_open": "opposite position open",
    "max_open_contracts": "enough contracts open",
    "max_trades_per_session": "enough trades in the session",
    "max_risk": "risk limit left no contract",
    "margin": "margin left no contract",
    "halted": "trading halted",
    "paused": "trading paused",
    "reverse": "reversed",
    "working": "working when the data end",
    "open": "open when the data end",
}
