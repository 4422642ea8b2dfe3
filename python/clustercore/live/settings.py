"""Settings of the live process. None of them is part of the strategy or its configuration's id."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clustercore.errors import ConfigError

__all__ = ["LiveSettings", "live_fields", "read_live_table"]

_TYPES: Final[dict[str, tuple[type, ...]]] = {"str": (str,), "int": (int,), "float": (int, float)}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _setting(
    default: Any,  # noqa: ANN401 -- the type of the field
    sentence: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    words: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 -- dataclasses.field is typed as the default
    return field(
        default=default,
        metadata={"sentence": sentence, "unit": unit, "low": low, "high": high, "words": words},
    )


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """How the live process connects, waits and keeps.

    Examples
    --------
    >>> LiveSettings(max_bar_age_s=5).max_bar_age_s
    5
    >>> LiveSettings(max_bar_age_s=-1)
    Traceback (most recent call last):
    clustercore.errors.ConfigError: live.max_bar_age_s: out of range (found -1, ...)
    """

    dataset: str = _setting("GLBX.MDP3", "Databento dataset.")
    gateway: str = _setting(
        "",
        "Host and port of another gateway, such as 127.0.0.1:13000; empty for Databento's. A "
        "settings file may name one on this machine only.",
    )
    historical: str = _setting(
        "",
        "Address of another historical server; empty for Databento's, or beside a local gateway "
        "its port plus one; none for no history at all.",
    )
    max_bar_age_s: float = _setting(
        10.0,
        "A bar that arrives later than this after its end is not acted on.",
        unit="s",
        low=0,
        high=3600,
    )
    late: str = _setting(
        "miss",
        "What becomes of a signal whose bar came too late: missed, or acted on all the same.",
        words=("miss", "act"),
    )
    interval_grace_s: float = _setting(
        15.0,
        "An interval counts as closed this long after its end when the gateway does not say so.",
        unit="s",
        low=1,
        high=600,
    )
    heartbeat_s: int = _setting(
        10, "How often the gateway shall send a sign of life.", unit="s", low=5, high=60
    )
    stale_s: float = _setting(
        17.0,
        "Silence after which the connection counts as dead; between heartbeat_s + 5 and + 10.",
        unit="s",
        low=10,
        high=70,
    )
    connect_s: float = _setting(
        35.0, "Time for connecting and authentication.", unit="s", low=1, high=300
    )
    backoff_max_s: float = _setting(
        60.0, "Longest wait between two attempts to connect.", unit="s", low=1, high=3600
    )
    replay_limit_h: float = _setting(
        24.0,
        "How far back the gateway can replay; older gaps are filled from history.",
        unit="h",
        low=0,
        high=168,
    )
    backfill_days: int = _setting(
        0,
        "Days of history to start with; 0 for as many as the configuration needs.",
        unit="days",
        low=0,
        high=366,
    )
    budget_usd: float = _setting(
        5.0, "Most that one run may spend on history.", unit="USD", low=0, high=100_000
    )
    queue_limit: int = _setting(
        200_000,
        "Records that may wait; beyond it the connection is closed and replayed.",
        unit="records",
        low=1_000,
        high=100_000_000,
    )
    queue_mark: int = _setting(
        20_000,
        "Waiting records at which an alarm is given.",
        unit="records",
        low=100,
        high=100_000_000,
    )
    raw_days: int = _setting(
        14,
        "Days to keep the raw bytes of each connection; 0 for none.",
        unit="days",
        low=0,
        high=3650,
    )
    disk_floor_mb: int = _setting(
        500, "Free space below which nothing is acted on.", unit="MB", low=1, high=10_000_000
    )
    compression: str = _setting("none", "Compression of the live stream.", words=("none", "zstd"))

    def __post_init__(self) -> None:
        for name, row in _rows().items():
            _check(name, row, getattr(self, name))
        if not self.heartbeat_s + 5 < self.stale_s < self.heartbeat_s + 10:
            raise ConfigError(
                "must fire after a late heartbeat and before the client's own alarm",
                field="live.stale_s",
                found=str(self.stale_s),
                expected=f"between {self.heartbeat_s + 5} and {self.heartbeat_s + 10}",
            )

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> LiveSettings:
        """Return settings from the ``[live]`` table of a file; an unknown key is an error."""
        for name in table:
            if name not in _rows():
                raise ConfigError(
                    "no such setting", field=f"live.{name}", expected=", ".join(_rows())
                )
        return cls(**table)

    def replaced(self, changes: dict[str, Any]) -> LiveSettings:
        """Return settings with some changed."""
        return LiveSettings.from_table(dataclasses.asdict(self) | changes)

    @property
    def host(self) -> str | None:
        """Host of the other gateway, if there is one."""
        return self._address()[0] if self.gateway else None

    @property
    def port(self) -> int:
        """Port of the gateway."""
        return self._address()[1] if self.gateway else 13000

    @property
    def is_local(self) -> bool:
        """Whether the gateway runs on this machine, so that its time is market time."""
        return self.host in _LOOPBACK

    def _address(self) -> tuple[str, int]:
        host, colon, port = self.gateway.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004
            raise ConfigError(
                "not the address of a gateway",
                field="live.gateway",
                found=repr(self.gateway),
                expected="host:port, such as 127.0.0.1:13000",
            )
        return host, int(port)


def read_live_table(file: Path) -> dict[str, Any]:
    """Return the table ``[live]`` of a settings file.

    Raises
    ------
    ConfigError
        A setting is unknown or out of range, or the gateway is on another machine: whoever wrote
        the file would get an answer that is made with the key.
    """
    table: dict[str, Any] = tomllib.loads(file.read_text("utf-8")).get("live", {})
    settings = LiveSettings.from_table(table)
    if settings.gateway and not settings.is_local:
        raise ConfigError(
            "a settings file may name a gateway on this machine only; pass another one with "
            "--gateway",
            field="live.gateway",
            found=repr(settings.gateway),
            expected="127.0.0.1:PORT, or nothing",
        )
    return table


def live_fields() -> list[dict[str, Any]]:
    """Return name, default, unit, range and sentence of every setting, for the reference.

    Examples
    --------
    >>> [row["name"] for row in live_fields()][:2]
    ['dataset', 'gateway']
    """
    return [{"name": name, **row} for name, row in _rows().items()]


def _rows() -> dict[str, dict[str, Any]]:
    return {
        row.name: {"default": row.default, "type": str(row.type), **row.metadata}
        for row in dataclasses.fields(LiveSettings)
    }


def _check(name: str, row: dict[str, Any], value: object) -> None:
    wanted = _TYPES[row["type"]]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ConfigError(
            "of another type", field=f"live.{name}", found=repr(value), expected=row["type"]
        )
    if row["words"] and value not in row["words"]:
        raise ConfigError(
            "no such word",
            field=f"live.{name}",
            found=repr(value),
            expected=" or ".join(row["words"]),
        )
    if row["low"] is None or not isinstance(value, int | float):
        return
    if not math.isfinite(value) or not row["low"] <= value <= row["high"]:
        raise ConfigError(
            "out of range",
            field=f"live.{name}",
            found=str(value),
            expected=f"{row['low']} to {row['high']} {row['unit']}".rstrip(),
        )
