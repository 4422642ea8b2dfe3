"""Faults as the command line names them: ``KIND:NAME=VALUE,NAME=VALUE``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from clustercore.errors import ConfigError

if TYPE_CHECKING:
    from clustercore.gateway import Fault
    from clustercore.gateway.historical import HistoricalFault

__all__ = ["known_faults", "read_faults"]

_OPTION = "--fault"


def known_faults() -> dict[str, str]:
    """Return every kind of fault, of the stream and of history, and what it does.

    Examples
    --------
    >>> known_faults()["rst"]
    'the connection is reset'
    """
    from clustercore.gateway.faults import CONNECTION_FAULTS, MARKET_FAULTS, STREAM_FAULTS
    from clustercore.gateway.historical import FAULTS

    return {**CONNECTION_FAULTS, **STREAM_FAULTS, **MARKET_FAULTS, **FAULTS}


def read_faults(
    texts: Iterable[str], instant: Callable[[str], int]
) -> tuple[list[Fault], list[HistoricalFault]]:
    """Return the faults of the stream and those of history.

    Parameters
    ----------
    texts : iterable of str
        As they were typed.
    instant : callable
        Reads a date or a time, ns UTC.

    Examples
    --------
    >>> stream, history = read_faults(["fin:after_bars=300", "refused:times=2"], int)
    >>> stream[0].after_bars, history[0].times
    (300, 2)
    """
    from clustercore.gateway import Fault
    from clustercore.gateway.historical import FAULTS, HistoricalFault

    stream: list[Fault] = []
    history: list[HistoricalFault] = []
    for text in texts:
        kind, _, rest = text.partition(":")
        if kind not in known_faults():
            raise ConfigError(
                "no such fault", field=_OPTION, found=repr(kind), expected=", ".join(known_faults())
            )
        try:
            if kind in FAULTS:
                history.append(HistoricalFault(kind, **_options(HistoricalFault, rest, instant)))
            else:
                stream.append(Fault(kind, **_options(Fault, rest, instant)))
        except ConfigError as error:
            raise ConfigError(
                error.problem,
                field=_OPTION,
                found=f"{error.found} in {text!r}",
                expected=error.expected,
            ) from None
    return stream, history


def _options(kind: type, text: str, instant: Callable[[str], int]) -> dict[str, Any]:
    """Return the options of a fault by name, each as its field wants it."""
    readers: Mapping[str, Callable[[str], Any]] = {
        field.name: instant if field.name == "at" else _READERS[str(field.type).split(" ")[0]]
        for field in dataclasses.fields(kind)
        if field.name != "kind"
    }
    options = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign or name not in readers:
            raise ConfigError(
                "not an option of this fault",
                found=repr(part),
                expected="NAME=VALUE with NAME one of " + ", ".join(readers),
            )
        options[name] = _value(name, value, readers[name])
    return options


def _value(name: str, text: str, reader: Callable[[str], Any]) -> object:
    try:
        return reader(text)
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError(
            "not an allowed value", field=name, found=repr(text), expected="a number"
        ) from None


_READERS: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
