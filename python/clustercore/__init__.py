"""Volume-cluster futures trading: one causal Rust engine, for years of bars or one at a time.

The names below are the interface; ``clustercore.kernels`` has the parts of the engine on their
own, and importing the package gives Polars frames the namespace ``df.cluster``.
"""

from __future__ import annotations

from clustercore import _core, kernels
from clustercore.backtest import backtest
from clustercore.bars import Bars
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.errors import ClusterCoreError, ConfigError, DataError, EngineBusy, InternalError
from clustercore.frame import ClusterFrame
from clustercore.instruments import Instrument
from clustercore.quality import QualityReport, check_bars
from clustercore.result import BacktestResult, load_result
from clustercore.sample import sample
from clustercore.sessions import Sessions, load_sessions
from clustercore.sources import read_bars
from clustercore.versions import show_versions

__version__ = _core.VERSION

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
    "QualityReport",
    "Sessions",
    "__version__",
    "backtest",
    "check_bars",
    "kernels",
    "load_result",
    "load_sessions",
    "read_bars",
    "sample",
    "show_versions",
]
