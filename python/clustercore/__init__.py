"""Volume-cluster futures trading: one causal Rust engine for research and live."""

from clustercore.bars import Bars
from clustercore.config import Config
from clustercore.engine import Engine
from clustercore.instruments import Instrument
from clustercore.sample import sample
from clustercore.sessions import Sessions, load_sessions
from clustercore.sources import read_bars

__all__ = [
    "Bars",
    "Config",
    "Engine",
    "Instrument",
    "Sessions",
    "load_sessions",
    "read_bars",
    "sample",
]
