"""What a mistyped name was probably meant to be."""

from __future__ import annotations

import difflib

from clustercore.errors import ConfigError, DataError

__all__ = ["hint"]

# What errors about a name that does not exist say.
_ABOUT_NAMES = (
    "unknown s",
    "not a dotted name",
    "no such preset",
    "no such fault",
    "no built-in instrument",
    "no product of this name",
    "a live stream of such a symbol",
)


def hint(error: ConfigError | DataError) -> str:
    """Return ``; did you mean ...?`` for a name that is nearly right, else nothing.

    Examples
    --------
    >>> hint(ConfigError("unknown setting", field="cluster.treshold", found="cluster.treshold"))
    '; did you mean cluster.threshold?'
    """
    if not isinstance(error, ConfigError) or error.field is None:
        return ""
    if not any(words in error.problem for words in _ABOUT_NAMES):
        return ""
    if error.field in {"--symbol", "symbol"}:
        return _near_symbol((error.found or "").strip("'\""))
    typed, known = _typed_and_known(error)
    near = known if typed is None else difflib.get_close_matches(typed, known, n=1)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _near_symbol(typed: str) -> str:
    """Return the product or the contract that a symbol nearly is."""
    from clustercore.instruments import Instrument, parse_symbol

    symbol = typed.strip().upper()
    parts = parse_symbol(symbol)
    if parts.root not in Instrument.roots() or symbol == typed == parts.root:
        return ""
    return f"; did you mean {symbol if parts.kind == 'outright' else parts.root}?"


def _typed_and_known(error: ConfigError) -> tuple[str | None, list[str]]:
    """Return what was typed and what it may be near to; nothing typed: all of the names fit."""
    from clustercore.config import Config, config_fields

    field, found = error.field or "", (error.found or "").strip("'\"")
    if field == "preset":
        return found, list(Config.presets())
    if field == "--fault":
        from clustercore.cli.faults import known_faults

        return found, list(known_faults())
    if field in {"instrument", "--instrument"}:
        from clustercore.instruments import Instrument

        return found.upper(), list(Instrument.roots())
    names = [f"{row['section']}.{row['name']}" for row in config_fields()]
    if "." in field:
        return field, names
    # A setting without its section: `threshold=3`.
    bare = [name for name in names if name.split(".")[1] == field]
    return (None, bare) if bare else (field, list(dict.fromkeys(n.split(".")[0] for n in names)))
