"""Volume-cluster futures trading: one causal Rust engine for research and live."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clustercore.backtest import backtest
    from clustercore.bars import Bars
    from clustercore.config import Config
    from clustercore.engine import Engine
    from clustercore.errors import (
        ClusterCoreError,
        ConfigError,
        DataError,
        EngineBusy,
        InternalError,
    )
    from clustercore.frame import ClusterFrame
    from clustercore.instruments import Instrument
    from clustercore.result import BacktestResult, load_result
    from clustercore.sample import sample
    from clustercore.sessions import Sessions, load_sessions
    from clustercore.sources import read_bars
    from clustercore.versions import show_versions

    __version__: str

__all__ = [
    "BacktestResult",
    "Bars",
    "ClusterCoreError",
    "ClusterFrame",
    "Config",
    "ConfigError",
    "DataError",
    "Engine",
    "EngineBusy",
    "Instrument",
    "InternalError",
    "Sessions",
    "__version__",
    "backtest",
    "load_result",
    "load_sessions",
    "read_bars",
    "sample",
    "show_versions",
]

# Where each name lives. It is imported at first use: `clustercore --help` needs no data frames.
_HOMES = {
    "BacktestResult": "clustercore.result",
    "Bars": "clustercore.bars",
    "ClusterCoreError": "clustercore.errors",
    "ClusterFrame": "clustercore.frame",
    "Config": "clustercore.config",
    "ConfigError": "clustercore.errors",
    "DataError": "clustercore.errors",
    "Engine": "clustercore.engine",
    "EngineBusy": "clustercore.errors",
    "Instrument": "clustercore.instruments",
    "InternalError": "clustercore.errors",
    "Sessions": "clustercore.sessions",
    "backtest": "clustercore.backtest",
    "load_result": "clustercore.result",
    "load_sessions": "clustercore.sessions",
    "read_bars": "clustercore.sources",
    "sample": "clustercore.sample",
    "show_versions": "clustercore.versions",
}


class _Package(ModuleType):
    """The package, whose functions `sample` and `backtest` are not hidden by their modules.

    The import system stores a submodule in its package under the submodule's name; where a public
    function has that name, the function is stored instead.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:  # a type checker takes a module with `__getattr__` to have every name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("clustercore")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        _register_frame()
        return value

    def _register_frame() -> None:
        # `df.cluster` exists once Polars is there, without a word of the user.
        if "polars" in sys.modules:
            importlib.import_module("clustercore.frame")

    _register_frame()
