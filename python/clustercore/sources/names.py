"""Which column of a table is which, by the names that people and vendors use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clustercore.errors import ConfigError, DataError

__all__ = ["TIME_NAMES", "find_columns"]

TIME_NAMES = (
    "ts_event",
    "timestamp",
    "datetime",
    "date_time",
    "caldt",
    "ts",
    "time_utc",
    "__index_level_0__",
    "index",
    "date",
    "time",
)

_NAMES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "last"),
    "volume": ("volume", "vol", "v"),
    "symbol": ("symbol", "ticker", "contract", "raw_symbol"),
    "price": ("price",),
    "size": ("size", "qty", "quantity"),
    "ts_recv": ("ts_recv",),
    "action": ("action",),
    "rtype": ("rtype",),
    "instrument_id": ("instrument_id",),
}


def find_columns(
    present: Iterable[str], given: Mapping[str, str] | None, file: str
) -> dict[str, str]:
    """Return the source's column for each of ours that is there.

    ``given`` (ours to theirs) goes before any guess.
    """
    present = list(present)
    found: dict[str, str] = {}
    known = {*_NAMES, "ts_event", "time"}
    for ours, theirs in (given or {}).items():
        if ours not in known:
            raise ConfigError(
                "columns= names a column that bars do not have",
                field="columns",
                found=repr(ours),
                expected=", ".join(sorted(known)),
            )
        if theirs not in present:
            raise DataError(
                "columns= names a column that is not there",
                file=file,
                column=theirs,
                found=", ".join(present),
                expected=f"{theirs!r} for {ours}",
            )
        found[ours] = theirs
    lowered: dict[str, list[str]] = {}
    for name in present:
        lowered.setdefault(name.strip().lower(), []).append(name)
    if "ts_event" not in found:
        names = [name for name in TIME_NAMES if name in lowered]
        if names:
            found["ts_event"] = _only(lowered[names[0]], "ts_event", file)
        if names[:2] == ["date", "time"]:
            found["time"] = _only(lowered["time"], "time", file)
    for ours, names_tuple in _NAMES.items():
        for name in names_tuple:
            if ours not in found and name in lowered:
                found[ours] = _only(lowered[name], ours, file)
    return found


def _only(candidates: list[str], ours: str, file: str) -> str:
    if len(candidates) > 1:
        raise DataError(
            f"two columns could be {ours}; pass columns={{{ours!r}: ...}}",
            file=file,
            column=candidates[1],
            found=", ".join(candidates),
            expected="one column of this name",
        )
    return candidates[0]
