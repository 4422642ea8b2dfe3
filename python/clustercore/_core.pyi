# The native part of clustercore.
#
# Columns are contiguous NumPy arrays of one dimension. Prices are int64 in 1e-9 points, times int64
# nanoseconds since 1970, volumes int64 contracts, unless a name or sentence says otherwise. Public
# functions with checks and units stand in the modules that call these.

import os
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from clustercore.events import Event, Order, Signal, Trade

VERSION: Final[str]
ENGINE_VERSION: Final[str]

@final
class Engine:
    def __new__(
        cls,
        config: dict[str, dict[str, Any]],
        config_id: str,
        instrument: dict[str, Any],
        sessions: dict[str, Any],
        interval_ns: int,
    ) -> Engine: ...
    def step(
        self,
        ts_event: int,
        open: int,  # noqa: A002
        high: int,
        low: int,
        close: int,
        volume: int,
        actionable: bool = True,
        context: bool = False,
        symbol: str | None = None,
    ) -> list[Event]: ...
    def run(
        self,
        ts_event: NDArray[np.int64],
        open: NDArray[np.int64],  # noqa: A002
        high: NDArray[np.int64],
        low: NDArray[np.int64],
        close: NDArray[np.int64],
        volume: NDArray[np.int64],
        symbols: list[tuple[int, str]],
        context: NDArray[np.bool_] | None = None,
        actionable: NDArray[np.bool_] | None = None,
        finish: bool = False,
    ) -> dict[str, dict[str, Any]]: ...
    def replay(
        self,
        kind: NDArray[np.uint8],
        ts: NDArray[np.int64],
        open: NDArray[np.int64],  # noqa: A002
        high: NDArray[np.int64],
        low: NDArray[np.int64],
        close: NDArray[np.int64],
        volume: NDArray[np.int64],
        symbols: list[tuple[int, str]],
        context: NDArray[np.bool_],
        actionable: NDArray[np.bool_],
    ) -> list[tuple[int, tuple[Event, ...]]]: ...
    def trades(
        self, ts: NDArray[np.int64], price: NDArray[np.int64], size: NDArray[np.int64]
    ) -> None: ...
    def trade(self, ts: int, price: int, size: int) -> None: ...
    def advance(self, ts: int) -> list[Event]: ...
    def extend_sessions(self, sessions: dict[str, Any]) -> None: ...
    def reset_halt(self) -> list[Event]: ...
    def finish(self) -> list[Event]: ...
    def account_state(self) -> str: ...
    def take_over(self, state: str) -> None: ...
    def open_trades(self) -> list[Trade]: ...
    def pending_signals(self) -> list[Signal]: ...
    def working_orders(self) -> list[Order]: ...
    def reset(self) -> None: ...
    def counts(self) -> dict[str, int]: ...

def config_fields() -> list[dict[str, Any]]: ...
def check_config(sections: dict[str, dict[str, Any]]) -> None: ...
def record_fields() -> dict[str, list[dict[str, Any]]]: ...
def points_to_nanos(points: NDArray[np.float64], column: str) -> NDArray[np.int64]: ...
def decode_dbn(path: str | os.PathLike[str]) -> dict[str, Any]: ...
def compute_statistics(
    trades: dict[str, NDArray[Any]],
    balance: float,
    daily_equity: NDArray[np.float64],
    mark_time: NDArray[np.int64],
    mark_equity: NDArray[np.float64],
    bar_start: NDArray[np.int64],
    interval_ns: int,
    seed: int,
    resamples: int,
    block_days: int,
) -> tuple[list[dict[str, Any]], str]: ...
def statistic_definitions() -> list[tuple[str, str, str]]: ...
def group_trades(
    trades: dict[str, NDArray[Any]], keys: NDArray[np.int64]
) -> list[dict[str, Any]]: ...
def posterior(wins: int, losses: int) -> tuple[float, float, float]: ...
def hash_columns(columns: list[NDArray[np.int64]]) -> str: ...
def rolling_baseline(
    volume: NDArray[np.int64], bars: int, interval_ns: int
) -> NDArray[np.float64]: ...
def session_to_date_baseline(
    volume: NDArray[np.int64], session: NDArray[np.int64], min_bars: int, interval_ns: int
) -> NDArray[np.float64]: ...
def previous_session_baseline(
    ts_event: NDArray[np.int64],
    volume: NDArray[np.int64],
    sessions: dict[str, Any],
    interval_ns: int,
) -> NDArray[np.float64]: ...
def time_of_day_baseline(
    ts_event: NDArray[np.int64],
    volume: NDArray[np.int64],
    sessions: dict[str, Any],
    interval_ns: int,
    width_ns: int,
    counted: int,
    fewest: int,
) -> NDArray[np.float64]: ...
def rolling_modal_price(
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    close: NDArray[np.int64],
    volume: NDArray[np.int64],
    window: int,
    tick_nanos: int,
    config: dict[str, dict[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]: ...
def volume_profile(
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    close: NDArray[np.int64],
    volume: NDArray[np.int64],
    tick_nanos: int,
    config: dict[str, dict[str, Any]],
) -> dict[str, Any]: ...
def match_retests(
    ts_event: NDArray[np.int64],
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    close: NDArray[np.int64],
    price: NDArray[np.int64],
    decision_time: NDArray[np.int64],
    deadline: NDArray[np.int64],
    tolerance_nanos: int,
    interval_ns: int,
    config: dict[str, dict[str, Any]],
) -> NDArray[np.int64]: ...
def detect_clusters(
    ts_event: NDArray[np.int64],
    open: NDArray[np.int64],  # noqa: A002
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    close: NDArray[np.int64],
    volume: NDArray[np.int64],
    baseline: NDArray[np.float64],
    symbol: str,
    sessions: dict[str, Any],
    interval_ns: int,
    tick_nanos: int,
    config: dict[str, dict[str, Any]],
) -> dict[str, Any]: ...
def rolling_volatility(
    open: NDArray[np.float64],  # noqa: A002
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    follows: NDArray[np.bool_] | None,
    window: int,
    min_periods: int,
    annualisation: float | None,
    output: str,
    config: dict[str, dict[str, Any]],
) -> NDArray[np.float64]: ...
def rolling_atr_sigma(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    follows: NDArray[np.bool_] | None,
    window: int,
    min_periods: int,
    annualisation: float | None,
    output: str,
) -> NDArray[np.float64]: ...
def rolling_true_range(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    follows: NDArray[np.bool_] | None,
    window: int,
    min_periods: int,
) -> NDArray[np.float64]: ...
def true_range(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    follows: NDArray[np.bool_] | None,
) -> NDArray[np.float64]: ...
