"""The families of rules that every property is tried on, and random configurations.

A family opens the gates of its rules and lowers the thresholds, so that five years hold at least
the trades that a property must have compared.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from clustercore import _core
from clustercore.config import Config
from clustercore.errors import ConfigError

Settings = dict[str, dict[str, Any]]

# Every gate off.
OPEN: dict[str, Any] = {
    "risk.max_open_contracts": None,
    "risk.max_trades_per_session": None,
    "risk.max_consecutive_losses": None,
    "risk.max_drawdown_pct": None,
    "risk.max_risk_per_trade": None,
    "rank.cooldown_minutes": 0,
}
# Many clusters, of which many trade, both ways.
BUSY: dict[str, Any] = {
    **OPEN,
    "cluster.threshold": 1.2,
    "rank.top_n": 2,
    "signal.long_threshold": 0.35,
    "signal.short_threshold": 0.65,
    "signal.shorts": True,
    "signal.min_strength": 0.1,
}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("default", OPEN),
    "new-algo": ("new-algo", OPEN),
    "new-algo-patient": ("new-algo-patient", OPEN),
    "v6": (
        "v6",
        {
            **OPEN,
            "cluster.threshold": 1.5,
            "signal.min_strength": 0.2,
            "signal.long_threshold": 0.3,
        },
    ),
    "v6-live": ("v6-live", OPEN),
}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding": ("default", {**BUSY, "cluster.frame": "sliding"}),
    "sliding, overlap ranked": (
        "default",
        {
            **BUSY,
            "cluster.frame": "sliding",
            "cluster.suppress_overlap": False,
            "cluster.minutes": 5,
            "rank.cooldown_minutes": 20,
        },
    ),
    "session to date": ("default", {**BUSY, "baseline.mode": "session_to_date"}),
    "rolling baseline": ("default", {**BUSY, "baseline.mode": "rolling", "baseline.bars": 45}),
    "fixed baseline": ("default", {**BUSY, "baseline.mode": "fixed", "baseline.value": 800.0}),
    "delayed profile": (
        "default",
        {
            **BUSY,
            "profile.end_minute": 22,
            "profile.start_minute": -4,
            "momentum.end_minute": 19,
            "signal.w_momentum": 0.2,
            "profile.source": "range_volume",
        },
    ),
    "no retest": ("default", {**BUSY, "retest.enabled": False}),
    "limit at the close": (
        "default",
        {**BUSY, "entry.mode": "limit", "entry.validity_minutes": 20},
    ),
    "limit at the mode": (
        "default",
        {
            **BUSY,
            "entry.mode": "limit",
            "entry.limit_at": "modal_price",
            "entry.offset_ticks": 1,
            "profile.source": "close",
            "profile.tie": "lowest",
        },
    ),
    "adverse entry": ("default", {**BUSY, "entry.adverse": True}),
    "entry at the close": ("default", {**BUSY, "entry.mode": "close"}),
    "tight fixed stops": (
        "default",
        {
            **BUSY,
            "stop.mode": "fixed",
            "stop.distance": "4 ticks",
            "target.mode": "fixed",
            "target.distance": "6 ticks",
        },
    ),
    "targets first": (
        "default",
        {
            **BUSY,
            "exit.same_bar": "target_first",
            "stop.k": 0.2,
            "target.reward": 1.0,
            "exit.target_through_ticks": 0,
        },
    ),
    "trailing, fixed": (
        "default",
        {**BUSY, "exit.trailing": "fixed", "exit.trailing_distance": "8 ticks"},
    ),
    "trailing, true range": (
        "default",
        {
            **BUSY,
            "exit.trailing": "true_range",
            "volatility.estimator": "yang_zhang",
            "exit.max_hold_minutes": 180,
        },
    ),
    "scale-out": (
        "default",
        {
            **BUSY,
            "size.base": 4.0,
            "size.max_contracts": 8,
            "exit.scale_out": [
                {"fraction": 0.25, "reward": 0.5},
                {"fraction": 0.5, "distance": "9 ticks"},
            ],
        },
    ),
    "reverse": (
        "default",
        {**BUSY, "risk.opposite": "reverse", "volatility.estimator": "parkinson"},
    ),
    "hedge": (
        "default",
        {**BUSY, "risk.opposite": "hedge", "volatility.estimator": "rogers_satchell"},
    ),
    "every gate": (
        "default",
        {
            **BUSY,
            "risk.max_open_contracts": 2,
            "risk.max_trades_per_session": 6,
            "risk.max_consecutive_losses": 3,
            "risk.daily_loss_pct": 1.0,
            "risk.max_drawdown_pct": 3.0,
            "risk.on_halt": "next_session",
            "risk.max_risk_per_trade": 0.02,
            "risk.strict": True,
            "rank.max_per_session": 8,
            "learning.mode": "score",
            "learning.context": "hour",
            "learning.lookback_days": 30,
            "volatility.estimator": "close_to_close",
        },
    ),
}
FAMILIES = {**PRESETS, **RULES}
FEWEST_TRADES = 200


def family(name: str, more: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a family, with changes."""
    preset, overrides = FAMILIES[name]
    return Config.preset(preset).override({**overrides, **(more or {})}).to_dict()


# What a random configuration draws from, where the allowed range itself says nothing sensible.
_DRAWS: dict[str, tuple[Any, ...]] = {
    "instrument.check_tick": (True,),
    "instrument.allow_negative": (False,),
    "instrument.tick_size": (None,),
    "instrument.point_value": (None, 5.0),
    "instrument.commission": (None, 0.5),
    "instrument.margin": (None, None, 500.0),
    "session.hours": ([],),
    "session.day": ("globex",),
    "roll.lookback_hours": (12.0,),
    "baseline.bars": (20, 60, 300),
    "baseline.min_bars": (10, 30),
    "baseline.sessions": (5, 10, 20),
    "baseline.min_sessions": (1, 3, 5),
    "baseline.value": (500.0, 1000.0),
    "cluster.minutes": (1, 3, 5, 10, 15, 30),
    "cluster.threshold": (0.7, 1.0, 1.5, 2.0),
    "cluster.basis": ("window",),
    "rank.hours": (0.0, 0.5, 1.0, 2.0),
    "rank.top_n": (1, 2, 5),
    "rank.max_per_session": (None, None, 4, 12),
    "rank.cooldown_minutes": (0, 0, 10, 30),
    "profile.source": ("close", "close_volume", "range_volume"),
    "profile.start_minute": (-14, -5, 0, 1),
    "profile.end_minute": (2, 5, 15, 20),
    "momentum.start_minute": (-30, -10, -5),
    "momentum.end_minute": (-1, 0, 1, 17),
    "signal.long_threshold": (0.2, 0.3, 0.45),
    "signal.short_threshold": (0.55, 0.7, 0.8),
    "signal.w_position": (0.5, 0.7),
    "signal.w_volume": (0.2, 0.3),
    "signal.w_momentum": (0.0, 0.2),
    "signal.volume_cap": (2.0, 4.0, 10.0),
    "signal.momentum_scale": (8.0, 16.0, 200.0),
    "signal.min_strength": (0.0, 0.1, 0.25),
    "signal.min_strength_short": (None, 0.2),
    "retest.tolerance": ("0 ticks", "1 tick", "2 ticks", "0.75 points"),
    "retest.timeout_minutes": (5, 15, 30, 60),
    "retest.enabled": (True, True, True, False),
    "entry.max_wait_minutes": (1, 5),
    "entry.offset_ticks": (0, 1, 2),
    "entry.validity_minutes": (None, 5, 30),
    "entry.through_ticks": (0, 1),
    "volatility.minutes": (60, 120, 480),
    "volatility.min_minutes": (2, 30, 60),
    "volatility.atr_minutes": (30, 240),
    "volatility.atr_min_minutes": (1, 30),
    "stop.k": (0.2, 0.5, 1.0, 1.5),
    "stop.min_pct": (0.0, 0.0, 0.1),
    "stop.distance": ("3 ticks", "2 points", "3 points"),
    "target.reward": (0.7, 1.0, 2.0),
    "target.distance": ("4 ticks", "2.6 points", "6 points"),
    "exit.max_hold_minutes": (5, 30, 60, 240),
    "exit.target_through_ticks": (0, 1, 2),
    "exit.flatten_minutes": (0, 1, 10),
    "exit.trailing_distance": ("5 ticks", "3 points"),
    "exit.trailing_multiple": (1.5, 3.0),
    "exit.trailing_bars": (5, 14),
    "exit.scale_out": (
        [],
        [],
        [{"fraction": 0.5, "reward": 0.5}],
        [{"fraction": 0.34, "distance": "3 ticks"}, {"fraction": 0.66, "reward": 1.0}],
    ),
    "costs.slippage_ticks": (0.0, 0.75),
    "account.balance": (15_000.0, 50_000.0),
    "learning.bins": (4, 10, 20),
    "learning.lookback_days": (None, 20),
    "learning.min_trades": (0, 3),
    "learning.scale": (6.0,),
    "learning.max": (3.0,),
    "size.base": (1.0, 2.0, 3.0),
    "size.signal_scale": (0.0, 0.3),
    "size.max_contracts": (3, 6),
    "risk.max_risk_per_trade": (None, 0.02, 0.05),
    "risk.max_open_contracts": (None, 3, 8),
    "risk.max_trades_per_session": (None, None, 5),
    "risk.max_consecutive_losses": (None, None, 4),
    "risk.daily_loss_pct": (None, None, 2.0),
    "risk.max_drawdown_pct": (None, None, 5.0),
    "risk.on_halt": ("next_session",),
    "statistics.seed": (1,),
    "statistics.resamples": (2000,),
    "statistics.block_days": (5,),
}


def random_settings(seed: int, fixed: Mapping[str, Any] | None = None) -> Settings:
    """Return a configuration drawn from a seed; combinations that contradict are drawn again."""
    draw = random.Random(seed)
    while True:
        settings: Settings = {}
        for field in _core.config_fields():
            path = f"{field['section']}.{field['name']}"
            if path in _DRAWS:
                value = draw.choice(_DRAWS[path])
            elif field["kind"] == "bool":
                value = draw.random() < 0.5
            elif field["kind"] == "choice":
                value = draw.choice(field["choices"])
            else:
                raise LookupError(f"say what {path} is drawn from")
            settings.setdefault(field["section"], {})[field["name"]] = value
        for path, value in (fixed or {}).items():
            section, name = path.split(".")
            settings[section][name] = value
        try:
            return Config(settings).to_dict()
        except ConfigError:
            continue
