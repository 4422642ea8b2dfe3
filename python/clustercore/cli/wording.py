"""Messages of the library and of the parser, in the words of the command line."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cyclopts import CycloptsError

__all__ = ["as_options", "usage"]

_OPTIONS: Final = {
    "symbol": "--symbol",
    "columns": "--column",
    "interval": "--interval",
    "label": "--label",
    "tz": "--tz",
    "roll": "--roll",
    "instrument": "--instrument",
    "start": "--from",
    "end": "--to",
    "port": "--port",
    "historical_port": "--historical-port",
    "speed": "--speed",
    "sessions": "--sessions",
    "at_end": "--at-end",
    "fault": "--fault",
}
_NAMES: Final = "|".join(_OPTIONS)
_ARGUMENT: Final = re.compile(rf"(?<![\w.-])({_NAMES})=")
_FIELD: Final = re.compile(rf"^({_NAMES}): ")
_COLUMNS: Final = re.compile(r"columns=\{'(\w+)': [^}]*\}")
_INSTRUMENT: Final = re.compile(r"instrument=Instrument\([^)]*\)")
_DESCRIBED: Final = (
    "--instrument NAME with --set instrument.tick_size=..., instrument.point_value=... and "
    "instrument.commission=..."
)
# An instant of this century in ns.
_INSTANT: Final = re.compile(r"(?<![\w.])(1[0-9]{18})(?: ns)?(?![\w.])")
_NANOS: Final = 10**9


def as_options(text: str) -> str:
    """Return a message of the library with its arguments as options, its instants as times.

    Examples
    --------
    >>> as_options("say what a time means with label='start' or label='end'")
    "say what a time means with --label 'start' or --label 'end'"
    >>> as_options("speed: not an allowed value")
    '--speed: not an allowed value'
    >>> as_options("found 1734407880000000000 ns")
    'found 2024-12-17T03:58:00Z (1734407880000000000 ns)'
    """
    text = _INSTRUMENT.sub(_DESCRIBED, text)
    text = _COLUMNS.sub(r"--column \1=NAME", text).replace("columns= names", "--column names")
    text = _FIELD.sub(lambda match: f"{_OPTIONS[match[1]]}: ", text)
    text = _ARGUMENT.sub(lambda match: f"{_OPTIONS[match[1]]} ", text).replace(" )", ")")
    return _INSTANT.sub(lambda match: _dated(int(match[1])), text)


def _dated(instant: int) -> str:
    moment = datetime.fromtimestamp(instant // _NANOS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z ({instant} ns)"


def usage(error: CycloptsError) -> str:
    """Return what the parser says, and which help to look at."""
    from cyclopts import UnusedCliTokensError

    command = " ".join(("clustercore", *(error.command_chain or ())))
    said = str(error)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        said = f"this takes no {shlex.join(error.unused_tokens)}{_option_for(error) or '.'}"
    return f"{said} See {command} --help."


def _option_for(error: CycloptsError) -> str:
    """Return ``; did you mean --symbol ES?`` where a product stands without its option."""
    tokens = error.unused_tokens or []
    takes_symbols = (error.command_chain or ("",))[0] in _WITH_SYMBOLS
    if not takes_symbols or not all(token.isalnum() for token in tokens):
        return ""
    return f"; did you mean {' '.join(f'--symbol {token.upper()}' for token in tokens)}?"


_WITH_SYMBOLS: Final = frozenset({"live", "doctor"})
