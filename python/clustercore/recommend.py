"""From a working order to what a trader is told. Nothing is decided here.

The order has quantity, distances and the record of its context; the signal behind it has modal
price, ratio and strength; the cluster before that says when the window began. They are joined by
symbol and decision time. What is not known is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from clustercore.errors import DataError
from clustercore.events import Cluster, Order, Signal, Trade
from clustercore.instruments import NANOS_PER_POINT, Instrument
from clustercore.recommendation import Recommendation, utc_text

if TYPE_CHECKING:
    from clustercore.events import Event
    from clustercore.sessions import Sessions

__all__ = [
    "Recommender",
    "clock_text",
    "end_of_day",
    "ended_text",
    "exit_text",
    "price_text",
    "recommend",
    "risk_usd",
    "shown_price",
]

_MINUTE_NS: Final = 60 * 10**9
_SIDES: Final = 2
# The 5 and 95 % quantiles of a record without a trade.
_PRIOR_LOW: Final = 0.05
_PRIOR_HIGH: Final = 0.95
_ROUNDING: Final = 1e-9

_ACTIONS: Final = {"long": "BUY", "short": "SELL"}
# Upper end of each stretch of the window's range, and its name.
_PLACES: Final = (
    (0.2, "lowest fifth"),
    (0.4, "lower part"),
    (0.6, "middle"),
    (0.8, "upper part"),
    (1.0, "highest fifth"),
)

_Key = tuple[str, int]


def recommend(
    events: Sequence[Event],
    instrument: Instrument,
    *,
    interval_ns: int,
    seq: int,
    root: str,
    epoch: int,
    simulated: bool,
    slippage_ticks: float = 0.0,
    max_hold_minutes: int | None = None,
    day_end: Callable[[int], int | None] | None = None,
) -> list[Recommendation]:
    """Return the recommendations of what one input caused.

    Parameters
    ----------
    events : sequence of Event
        Everything one input caused, in order.
    instrument : Instrument
        As the engine trades it; its commission enters risk and reward.
    interval_ns : int
        Length of a bar, ns.
    seq, root, epoch : int, str, int
        Place of the input in the log.
    simulated : bool
        Whether the market is simulated.
    slippage_ticks : float
        ``costs.slippage_ticks`` of the configuration, one side.
    max_hold_minutes : int, optional
        ``exit.max_hold_minutes`` of the configuration.
    day_end : callable, optional
        From ``end_of_day``; without it every validity is an instant.

    Returns
    -------
    list of Recommendation
        One for each order that begins to work.
    """
    recommender = Recommender(
        instrument,
        interval_ns=interval_ns,
        root=root,
        epoch=epoch,
        simulated=simulated,
        slippage_ticks=slippage_ticks,
        max_hold_minutes=max_hold_minutes,
        day_end=day_end,
    )
    return recommender.take(events, seq=seq)


class Recommender:
    """Recommendations of one engine in one epoch.

    It remembers clusters and signals from being armed until they are resolved, so that an order
    can be explained by what came many bars before. A replay of the epoch from its first entry
    gives the same recommendations.

    Parameters
    ----------
    instrument : Instrument
        As the engine trades it.
    interval_ns : int
        Length of a bar, ns.
    root : str
        Name of the engine.
    epoch : int
        Number of the epoch.
    simulated : bool
        Whether the market is simulated.
    slippage_ticks : float
        ``costs.slippage_ticks`` of the configuration, one side.
    max_hold_minutes : int, optional
        ``exit.max_hold_minutes`` of the configuration.
    day_end : callable, optional
        From ``end_of_day``.
    """

    def __init__(
        self,
        instrument: Instrument,
        *,
        interval_ns: int,
        root: str,
        epoch: int,
        simulated: bool,
        slippage_ticks: float = 0.0,
        max_hold_minutes: int | None = None,
        day_end: Callable[[int], int | None] | None = None,
    ) -> None:
        self._instrument = instrument
        self._interval_ns = interval_ns
        self._root = root
        self._epoch = epoch
        self.simulated = simulated
        self._slippage_ticks = slippage_ticks
        self._max_hold_minutes = max_hold_minutes
        self._day_end = day_end
        self._clusters: dict[_Key, Cluster] = {}
        self._signals: dict[_Key, Signal] = {}

    def take(self, events: Sequence[Event], *, seq: int) -> list[Recommendation]:
        """Return the recommendations of what one input caused.

        Raises
        ------
        DataError
            When an order works whose signal was never seen.
        """
        made = []
        resolved = []
        for event in events:
            match event:
                case Cluster(reason="armed"):
                    self._clusters[event.symbol, event.decision_time] = event
                case Signal():
                    self._signals[event.symbol, event.decision_time] = event
                    if event.reason != "armed":
                        resolved.append((event.symbol, event.decision_time))
                case Order(reason="working") if event.quantity > 0:
                    made.append(self._recommendation(event, seq))
                case _:
                    pass
        # A confirmed signal is resolved before its order is made, so it is forgotten at the end.
        for key in resolved:
            self._signals.pop(key, None)
            self._clusters.pop(key, None)
        return made

    def _recommendation(self, order: Order, seq: int) -> Recommendation:
        signal = self._signal_of(order)
        price = order.reference_price if order.limit_price is None else order.limit_price
        sign = 1 if order.direction == "long" else -1
        stop, target = order.stop_distance, order.target_distance
        costs = _costs_usd(self._instrument, order.quantity, self._slippage_ticks)
        confidence, low, high = _confidence(order)
        return Recommendation(
            id=order.trade_id,
            seq=seq,
            root=self._root,
            epoch=self._epoch,
            timestamp=order.confirmed_time,
            contract=order.symbol,
            action=_ACTIONS[order.direction],
            quantity=order.quantity,
            order_type="MARKET" if order.limit_price is None else "LIMIT",
            price=price,
            price_is="indicative" if order.limit_price is None else "firm",
            validity=self._validity(order),
            valid_until=order.valid_until,
            max_hold_minutes=self._max_hold_minutes,
            flat_by=self._flat_by(order),
            stop_loss=None if stop is None else _level(price, -sign, stop),
            profit_target=None if target is None else _level(price, sign, target),
            stop_distance=stop,
            target_distance=target,
            confidence=confidence,
            confidence_low=low,
            confidence_high=high,
            signal_strength=signal.strength,
            bayesian_multiplier=order.multiplier,
            modal_price=signal.modal_price,
            modal_position=signal.modal_position,
            volume_ratio=signal.volume_ratio,
            risk_usd=None
            if stop is None
            else risk_usd(self._instrument, stop, order.quantity, self._slippage_ticks),
            reward_usd=None if target is None else self._usd(target, order.quantity) - costs,
            reasoning=self._reasoning(order, signal),
            simulated=self.simulated,
        )

    def _signal_of(self, order: Order) -> Signal:
        signal = self._signals.get((order.symbol, order.decision_time))
        if signal is None:
            raise DataError(
                "an order works whose signal was not among the events; give the events of every "
                "entry of the epoch, in order",
                column="decision_time",
                found=f"{order.symbol} {utc_text(order.decision_time)}",
                expected="a signal of the same symbol and decision time",
            )
        return signal

    def _usd(self, points: float, quantity: int) -> float:
        return points * self._instrument.point_value * quantity

    def _flat_by(self, order: Order) -> int | None:
        return None if self._day_end is None else self._day_end(order.confirmed_time)

    def _validity(self, order: Order) -> str:
        end = self._flat_by(order)
        if order.limit_price is not None and end is not None and order.valid_until >= end:
            return "DAY"
        return f"until {clock_text(order.valid_until)}"

    def _reasoning(self, order: Order, signal: Signal) -> str:
        decided = _clock(order.decision_time)
        cluster = self._clusters.get((order.symbol, order.decision_time))
        usual, window = "usual volume", f"at the decision {decided} UTC"
        if cluster is not None:
            window = f"from {_clock(cluster.window_start)} (decided {decided} UTC)"
            if cluster.baseline_source.endswith("other_contract"):
                usual = "usual volume of another contract"
        retest = "no retest asked for"
        if order.confirmed_time > order.decision_time:
            began = _clock(order.confirmed_time - self._interval_ns)
            retest = f"retest held {began}-{_clock(order.confirmed_time)} UTC"
        return (
            f"{signal.volume_ratio:.1f} times {usual} {window}, "
            f"modal price {price_text(signal.modal_price, self._instrument.tick_size)} "
            f"in the {_place(signal.modal_position)} of its range, {retest}"
        )


def risk_usd(
    instrument: Instrument, stop_distance: float, quantity: int, slippage_ticks: float
) -> float:
    """Return what a stop costs for a quantity, with commission and slippage of both sides.

    Examples
    --------
    >>> risk_usd(Instrument.builtin("ES"), 10.0, 1, 0.0)
    505.0
    """
    costs = _costs_usd(instrument, quantity, slippage_ticks)
    return stop_distance * instrument.point_value * quantity + costs


def _costs_usd(instrument: Instrument, quantity: int, slippage_ticks: float) -> float:
    slippage = slippage_ticks * instrument.tick_value
    return _SIDES * (instrument.commission + slippage) * quantity


def end_of_day(sessions: Sessions, flatten_minutes: int) -> Callable[[int], int | None]:
    """Return a function from an instant to when orders of its session end, ns UTC.

    Parameters
    ----------
    sessions : Sessions
        The session table of the engine.
    flatten_minutes : int
        ``exit.flatten_minutes``: how long before the close orders end.

    Examples
    --------
    >>> from clustercore.sessions import load_sessions
    >>> utc_text(end_of_day(load_sessions(), 1)(1_704_207_600_000_000_000))
    '2024-01-02T21:59:00Z'
    """

    def day_end(ts: int) -> int | None:
        # An order made at the end of a session's last bar belongs to that session.
        session = sessions.session_of(ts - 1)
        if session is None:
            return None
        return int(sessions.close_ns[session.index]) - flatten_minutes * _MINUTE_NS

    return day_end


def price_text(price: float, tick_size: float) -> str:
    """Return a price with as many decimals as its tick has, at least two where it has any.

    Examples
    --------
    >>> price_text(5012.5, 0.25), price_text(41000.0, 1.0), price_text(110.015625, 0.015625)
    ('5012.50', '41000', '110.015625')
    """
    decimals = _decimals(f"{tick_size:.9f}".rstrip("0"))
    return f"{price:.{max(2, decimals) if decimals else 0}f}"


def shown_price(recommendation: Recommendation, price: float | None) -> str:
    """Return a price of a recommendation as its instrument is quoted; a dash for none."""
    if price is None:
        return "-"
    rec = recommendation
    if rec.root in Instrument.roots():
        return price_text(price, Instrument.builtin(rec.root).tick_size)
    # Levels are whole ticks from the price, so that together they show the decimals of the tick.
    shown = [value for value in (rec.price, rec.stop_loss, rec.profit_target, price) if value]
    finest = max((f"{value:.9f}".rstrip("0") for value in shown), key=_decimals, default="0.")
    return price_text(price, 10.0 ** -_decimals(finest))


def clock_text(ns: int) -> str:
    """Return the time of day of an instant.

    Examples
    --------
    >>> clock_text(1_704_207_600_000_000_000)
    '15:00:00 UTC'
    """
    return f"{utc_text(ns)[11:19]} UTC"


def exit_text(recommendation: Recommendation) -> str:
    """Return when a position ends where neither stop nor target is reached; empty if not known."""
    minutes, flat_by = recommendation.max_hold_minutes, recommendation.flat_by
    hold = "" if minutes is None else f"{minutes} minutes after the fill"
    flat = "" if flat_by is None else f"flat by {clock_text(flat_by)}"
    return ", ".join(part for part in (hold, flat) if part)


def ended_text(event: Order | Trade) -> str:
    """Return what became of a recommendation, or of a part of it, as one line."""
    what = f"{_ACTIONS[event.direction]} {event.quantity} {event.symbol}"
    if isinstance(event, Trade):
        net = f"{'-' if event.net < 0 else '+'}${abs(event.net):,.2f}"
        price = _points(event.exit_price)
        return (
            f"{utc_text(event.exit_time)}  closed {what} at {price}: {event.exit_reason}, net {net}"
        )
    if event.entry_time is None or event.entry_price is None:
        return f"{utc_text(event.resolved_time)}  no fill of {what}: {event.reason}"
    return f"{utc_text(event.entry_time)}  filled {what} at {_points(event.entry_price)}"


def _points(price: float) -> str:
    """Return a price with two decimals, or with as many as it has."""
    text = f"{price:,.2f}"
    return text if float(text.replace(",", "")) == price else f"{price:,.10g}"


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _confidence(order: Order) -> tuple[float | None, float | None, float | None]:
    """Return the posterior, or nothing when it is the prior alone: no trade stands behind that."""
    mean, low, high = order.posterior_mean, order.posterior_low, order.posterior_high
    if mean is None or low is None or high is None:
        return None, None, None
    if abs(low - _PRIOR_LOW) < _ROUNDING and abs(high - _PRIOR_HIGH) < _ROUNDING:
        return None, None, None
    return mean, low, high


def _level(price: float, sign: int, distance: float) -> float:
    """Return a level as the engine does: a sum of whole 1e-9, not of floats."""
    nanos = round(price * NANOS_PER_POINT) + sign * round(distance * NANOS_PER_POINT)
    return nanos / NANOS_PER_POINT


def _place(position: float) -> str:
    return next((name for end, name in _PLACES if position <= end), _PLACES[-1][1])


def _clock(ns: int) -> str:
    text = utc_text(ns)[11:19]
    return text.removesuffix(":00") if text.endswith(":00") else text
