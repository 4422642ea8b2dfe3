from __future__ import annotations

from dataclasses import replace

import pytest

import clustercore as cc
from clustercore._core import posterior
from clustercore.errors import DataError
from clustercore.events import Cluster, Event, Order, Signal, Trade
from clustercore.instruments import Instrument
from clustercore.live.status import RootStatus, Status, from_utc_text, utc_text
from clustercore.recommend import (
    Recommender,
    end_of_day,
    price_text,
    recommend,
    shown_price,
)
from clustercore.recommendation import Recommendation
from clustercore.sessions import load_sessions

MINUTE = 60 * 10**9
DECIDED = from_utc_text("2026-03-03T14:30:00Z")
ES = Instrument.builtin("ES")

CLUSTER = Cluster(
    symbol="ESH6",
    window_start=DECIDED - 15 * MINUTE,
    decision_time=DECIDED,
    open=5012.0,
    high=5016.0,
    low=5011.5,
    close=5012.5,
    volume=90_000,
    minutes=15.0,
    baseline=1428.6,
    baseline_source="time_of_day",
    volume_ratio=4.2,
    rank=1,
    modal_price=5012.25,
    modal_tied=False,
    value_area_low=5011.75,
    value_area_high=5014.0,
    modal_position=0.17,
    momentum=0.0001,
    direction="long",
    strength=0.62,
    reason="armed",
)
ARMED = Signal(
    symbol="ESH6",
    decision_time=DECIDED,
    direction="long",
    modal_price=5012.25,
    modal_position=0.17,
    volume_ratio=4.2,
    rank=1,
    momentum=0.0001,
    strength=0.62,
    confirmed_time=None,
    resolved_time=DECIDED,
    reason="armed",
)
CONFIRMED = replace(ARMED, confirmed_time=DECIDED + 11 * MINUTE, reason="ordered")
ORDER = Order(
    trade_id="0123456789abcdef0123456789abcdef",
    symbol="ESH6",
    decision_time=DECIDED,
    confirmed_time=DECIDED + 11 * MINUTE,
    direction="long",
    mode="next_open",
    quantity=2,
    limit_price=None,
    reference_price=5012.5,
    stop_distance=3.75,
    target_distance=7.5,
    sigma_hold=0.0007,
    sigma_source="garman_klass",
    context=3,
    multiplier=1.5,
    posterior_mean=0.6,
    posterior_low=0.35,
    posterior_high=0.82,
    valid_until=DECIDED + 16 * MINUTE,
    entry_time=None,
    entry_price=None,
    resolved_time=DECIDED + 11 * MINUTE,
    reason="working",
)
CAUSED: list[Event] = [CLUSTER, ARMED, CONFIRMED, ORDER]


def made(events: list[Event], instrument: Instrument = ES, **options: object) -> Recommendation:
    (only,) = recommend(
        events,
        instrument,
        interval_ns=MINUTE,
        seq=41,
        root="ES",
        epoch=2,
        simulated=False,
        **options,  # type: ignore[arg-type]
    )
    return only


def recommender(**options: object) -> Recommender:
    return Recommender(
        ES,
        interval_ns=MINUTE,
        root="ES",
        epoch=2,
        simulated=False,
        **options,  # type: ignore[arg-type]
    )


def test_a_market_order_is_indicative() -> None:
    rec = made(CAUSED)
    assert (rec.id, rec.seq, rec.root, rec.epoch) == (ORDER.trade_id, 41, "ES", 2)
    assert rec.timestamp == ORDER.confirmed_time
    assert (rec.action, rec.quantity, rec.order_type) == ("BUY", 2, "MARKET")
    assert (rec.price, rec.price_is) == (5012.5, "indicative")
    assert (rec.validity, rec.valid_until) == ("until 14:46:00 UTC", ORDER.valid_until)
    assert (rec.stop_loss, rec.profit_target) == (5008.75, 5020.0)
    assert (rec.confidence, rec.confidence_low, rec.confidence_high) == (0.6, 0.35, 0.82)
    assert (rec.signal_strength, rec.bayesian_multiplier) == (0.62, 1.5)
    assert (rec.modal_price, rec.modal_position, rec.volume_ratio) == (5012.25, 0.17, 4.2)


def test_a_short_limit_order_is_firm_with_its_levels_mirrored() -> None:
    order = replace(ORDER, direction="short", mode="limit", limit_price=5013.0)
    rec = made([CLUSTER, ARMED, CONFIRMED, order])
    assert (rec.action, rec.order_type, rec.price, rec.price_is) == (
        "SELL",
        "LIMIT",
        5013.0,
        "firm",
    )
    assert (rec.stop_loss, rec.profit_target) == (5016.75, 5005.5)


def test_risk_and_reward_count_the_costs_of_both_sides() -> None:
    rec = made(CAUSED, slippage_ticks=0.75)
    costs = 2 * 2 * (2.50 + 0.75 * 12.50)
    assert rec.risk_usd == 3.75 * 50 * 2 + costs
    assert rec.reward_usd == 7.5 * 50 * 2 - costs


def test_levels_are_sums_of_whole_nanos() -> None:
    gold = Instrument.builtin("GC")
    order = replace(ORDER, reference_price=2000.3, stop_distance=0.1, target_distance=0.2)
    rec = made([CLUSTER, ARMED, CONFIRMED, order], gold)
    assert (rec.stop_loss, rec.profit_target) == (2000.2, 2000.5)


@pytest.mark.parametrize("until", ["end", "hours"])
def test_a_limit_order_is_good_for_the_day_only_to_the_sessions_end(until: str) -> None:
    day_end = end_of_day(load_sessions(), 1)
    end = day_end(ORDER.confirmed_time)
    assert end is not None
    valid_until = end if until == "end" else end - 3 * 60 * MINUTE
    order = replace(ORDER, mode="limit", limit_price=5012.5, valid_until=valid_until)
    rec = made([CLUSTER, ARMED, CONFIRMED, order], day_end=day_end)
    assert rec.validity == (
        "DAY" if until == "end" else f"until {utc_text(valid_until)[11:19]} UTC"
    )


def test_the_end_of_a_day_at_a_sessions_last_instant_is_that_sessions() -> None:
    sessions = load_sessions()
    session = sessions.session_of(DECIDED)
    assert session is not None
    close = int(sessions.close_ns[session.index])
    assert end_of_day(sessions, 1)(close) == close - MINUTE
    assert end_of_day(sessions, 1)(close + 1 + MINUTE) is None


@pytest.mark.parametrize("known", [None, posterior(0, 0)])
def test_without_a_trade_in_the_record_there_is_no_confidence(
    known: tuple[float, float, float] | None,
) -> None:
    mean, low, high = known or (None, None, None)
    order = replace(ORDER, posterior_mean=mean, posterior_low=low, posterior_high=high)
    rec = made([CLUSTER, ARMED, CONFIRMED, order])
    assert (rec.confidence, rec.confidence_low, rec.confidence_high) == (None, None, None)


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (0, 1), (1, 1), (40, 40)])
def test_with_any_trade_in_the_record_there_is(wins: int, losses: int) -> None:
    mean, low, high = posterior(wins, losses)
    order = replace(ORDER, posterior_mean=mean, posterior_low=low, posterior_high=high)
    assert made([CLUSTER, ARMED, CONFIRMED, order]).confidence == mean


def test_the_reasoning_is_one_line_of_facts() -> None:
    assert made(CAUSED).reasoning == (
        "4.2 times usual volume from 14:15 (decided 14:30 UTC), modal price 5012.25 in the lowest "
        "fifth of its range, retest held 14:40-14:41 UTC"
    )


def test_the_reasoning_says_where_its_facts_end() -> None:
    other = replace(CLUSTER, baseline_source="time_of_day,other_contract")
    assert "usual volume of another contract from" in made([other, *CAUSED[1:]]).reasoning
    assert "volume at the decision 14:30 UTC" in made(CAUSED[1:]).reasoning
    at_once = replace(ORDER, confirmed_time=DECIDED)
    assert made([CLUSTER, ARMED, CONFIRMED, at_once]).reasoning.endswith("no retest asked for")


def test_a_signal_is_remembered_until_it_is_resolved() -> None:
    memory = recommender()
    assert memory.take([CLUSTER, ARMED], seq=1) == []
    assert memory.take([], seq=2) == []
    (rec,) = memory.take([CONFIRMED, ORDER], seq=3)
    assert rec.seq == 3
    assert "from 14:15" in rec.reasoning
    with pytest.raises(DataError, match="ESH6 2026-03-03T14:30:00Z"):
        memory.take([ORDER], seq=4)


def test_an_order_that_was_armed_only_is_explained_too() -> None:
    memory = recommender()
    memory.take([CLUSTER, ARMED], seq=1)
    assert memory.take([ORDER], seq=2)[0].modal_price == 5012.25


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, quantity=0, reason="max_risk"),
        replace(ORDER, reason="filled"),
        replace(ORDER, reason="expired"),
    ],
)
def test_only_a_working_order_is_recommended(order: Order) -> None:
    assert recommender().take([CLUSTER, ARMED, CONFIRMED, order], seq=1) == []


def test_every_order_of_the_engine_is_recommended_once_with_its_own_levels() -> None:
    bars = cc.sample(sessions=30, seed=3)
    engine = cc.Engine(cc.Config.preset("default"), bars.instrument)
    memory = recommender()
    recommended: dict[str, Recommendation] = {}
    trades: list[Trade] = []
    orders = 0
    rows = zip(*(column.tolist() for column in bars.columns_nanos().values()), strict=True)
    for seq, (start, opened, high, low, close, volume) in enumerate(rows):
        events = engine.step(start, opened, high, low, close, volume, symbol=bars.symbols[0])
        for rec in memory.take(events, seq=seq):
            assert rec.id not in recommended
            recommended[rec.id] = rec
        trades += [event for event in events if isinstance(event, Trade)]
        orders += sum(isinstance(event, Order) and event.reason == "working" for event in events)
    assert orders == len(recommended) > 3
    same = [trade for trade in trades if recommended[trade.trade_id].price == trade.entry_price]
    assert same, "no fill at the indicative price"
    for trade in same:
        rec = recommended[trade.trade_id]
        assert (rec.stop_loss, rec.profit_target) == (trade.stop, trade.target)
        assert rec.quantity == trade.quantity


@pytest.mark.parametrize(
    ("price", "tick", "shown"),
    [(5000.0, 0.25, "5000.00"), (2000.1, 0.1, "2000.10"), (41000.0, 1.0, "41000")],
)
def test_a_price_has_the_decimals_of_its_tick(price: float, tick: float, shown: str) -> None:
    assert price_text(price, tick) == shown


def test_a_price_of_an_unknown_instrument_has_the_decimals_of_its_levels() -> None:
    rec = replace(made(CAUSED), root="ZN", price=110.0, stop_loss=109.984375, profit_target=110.5)
    assert shown_price(rec, rec.price) == "110.000000"
    assert shown_price(rec, None) == "-"


def test_a_status_survives_json() -> None:
    root = RootStatus(root="ES", contract="ESH6", last_bar_start=DECIDED + 1, risk_usd=375.0)
    status = Status(
        state="LIVE",
        since=DECIDED,
        updated_at=DECIDED + MINUTE,
        roots=(root, replace(root, root="NQ", day_pnl=-20.0, last_bar_start=None)),
        counts={"bars": 3},
    )
    plain = status.to_dict()
    assert plain["since"] == "2026-03-03T14:30:00Z"
    assert plain["roots"][0]["last_bar_start"] == "2026-03-03T14:30:00.000000001Z"
    assert (plain["risk_usd"], plain["day_pnl"]) == (750.0, -20.0)
    assert Status.from_dict(plain) == status
