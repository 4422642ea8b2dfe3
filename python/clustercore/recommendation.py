"""What a trader is told at a confirmed signal: plain data, the same in store, file and alert."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal

__all__ = ["FIRST_FIELDS", "Recommendation", "utc_text"]

# What reads the file of the latest recommendation looks for these, in this order.
FIRST_FIELDS: Final = (
    "timestamp",
    "contract",
    "action",
    "quantity",
    "order_type",
    "price",
    "validity",
    "stop_loss",
    "profit_target",
    "confidence",
    "bayesian_multiplier",
    "signal_strength",
    "modal_price",
    "modal_position",
    "volume_ratio",
    "reasoning",
)
_TIMES: Final = ("timestamp", "valid_until", "flat_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """An order of the engine, said to a person. Prices are points, times ns UTC.

    Attributes
    ----------
    id : str
        The order's ``trade_id``.
    seq, root, epoch : int, str, int
        The input that caused it.
    timestamp : int
        When the signal was confirmed.
    contract : str
        Contract, such as ``ESZ6``.
    action : str
        ``BUY`` or ``SELL``.
    quantity : int
        Contracts.
    order_type : str
        ``MARKET`` or ``LIMIT``.
    price : float
        Price of the limit order, or the price on which the distances rest.
    price_is : {"firm", "indicative"}
        Whether ``price`` is the order's own or what the market last traded at.
    validity : str
        How long the order is good for, in words of the trade.
    valid_until : int
        First deadline of the order.
    max_hold_minutes : int or None
        Longest holding time, minutes from the fill.
    flat_by : int or None
        When the position is closed at the latest: the session's close, less some minutes.
    stop_loss, profit_target : float or None
        Prices, from ``price`` and the distances.
    stop_distance, target_distance : float or None
        Distances from the fill, in points.
    confidence, confidence_low, confidence_high : float or None
        Posterior mean of the win probability, with its 5 % and 95 % quantiles.
    signal_strength : float
        Strength of the signal, 0 to 1.
    bayesian_multiplier : float or None
        Size multiplier from the record of earlier trades.
    modal_price : float
        Price whose retest confirmed.
    modal_position : float
        Where it lies between low and high of the cluster, 0 to 1.
    volume_ratio : float
        Volume of the cluster against the usual volume.
    risk_usd, reward_usd : float or None
        What the stop costs and the target earns for the quantity, with the costs of both sides.
    reasoning : str
        One line.
    simulated : bool
        Whether the bars are a simulation's.
    """

    id: str
    seq: int
    root: str
    epoch: int
    timestamp: int
    contract: str
    action: str
    quantity: int
    order_type: str
    price: float
    price_is: Literal["firm", "indicative"]
    validity: str
    valid_until: int
    max_hold_minutes: int | None
    flat_by: int | None
    stop_loss: float | None
    profit_target: float | None
    stop_distance: float | None
    target_distance: float | None
    confidence: float | None
    confidence_low: float | None
    confidence_high: float | None
    signal_strength: float
    bayesian_multiplier: float | None
    modal_price: float
    modal_position: float
    volume_ratio: float
    risk_usd: float | None
    reward_usd: float | None
    reasoning: str
    simulated: bool

    def to_json(self) -> str:
        """Return one line of JSON; times are ISO 8601 in UTC.

        The fields that a reader looks for come first: timestamp, contract, action, quantity,
        order_type, price, validity, stop_loss, profit_target, confidence, bayesian_multiplier,
        signal_strength, modal_price, modal_position, volume_ratio, reasoning.
        """
        names = (
            *FIRST_FIELDS,
            *(field.name for field in fields(self) if field.name not in FIRST_FIELDS),
        )
        document: dict[str, Any] = {name: getattr(self, name) for name in names}
        times = {name: document[name] for name in _TIMES if document[name] is not None}
        document |= {name: utc_text(at) for name, at in times.items()}
        return json.dumps(document, ensure_ascii=False, allow_nan=False)


def utc_text(ns: int) -> str:
    """Return an instant as ISO text, with a fraction only where there is one.

    Examples
    --------
    >>> utc_text(1_704_207_600_000_000_000)
    '2024-01-02T15:00:00Z'
    >>> utc_text(1_704_207_600_000_000_250)
    '2024-01-02T15:00:00.000000250Z'
    """
    seconds, fraction = divmod(ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}Z" if fraction else f"{text}Z"
