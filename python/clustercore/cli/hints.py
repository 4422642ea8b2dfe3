"""What a mistyped name was probably meant to be."""

from __future__ import annotations

import difflib

from clustercore.errors import ConfigError, DataError

__all__ = ["hint"]


def hint(error: ConfigError | DataError) -> str:
    """Return ``; did you mean ...?`` for a name that is nearly right, else nothing.

    Examples
    --------
    >>> hint(ConfigError("unknown setting", field="cluster.treshold", found="cluster.treshold"))
    '; did you mean cluster.threshold?'
    """
    if not isinstance(error, ConfigError) or error.field is None:
        return ""
    near = difflib.get_close_matches(*_typed_and_known(error), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _typed_and_known(error: ConfigError) -> tuple[str, list[str]]:
    from clustercore.config import Config, config_fields

    field, found = error.field or "", (error.found or "").strip("'\"")
    if field == "preset":
        return found, list(Config.presets())
    if field.startswith("instrument") and "built-in" in error.problem:
        from clustercore.instruments import Instrument

        return found, list(Instrument.roots())
    names = [f"{row['section']}.{row['name']}" for row in config_fields()]
    if field in names:
        return "", []
    if "." in field:
        return field, names
    sections = list(dict.fromkeys(str(row["section"]) for row in config_fields()))
    # A setting without its section: `threshold=3`.
    bare = [name for name in names if name.split(".")[1] == field]
    return (bare[0], bare) if bare else (field, sections)
