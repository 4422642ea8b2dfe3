"""Statistics against textbook formulas, and against libraries that compute the same thing."""

from __future__ import annotations

import math
import random
import statistics as standard
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore import _core
from tests import reference, reference_statistics
from tests.property.logs import MINUTE_NS

DAY_NS = 1440 * MINUTE_NS
BALANCE = 50_000.0
Values = dict[str, float | None]

nets = st.lists(st.integers(-4000, 4000).map(lambda cents: cents / 4), min_size=1, max_size=60)


def compute(
    net: Sequence[float],
    daily: Sequence[float] | None = None,
    *,
    dates: Sequence[int] | None = None,
    seed: int = 1,
    resamples: int = 500,
    marks: tuple[Sequence[int], Sequence[float]] | None = None,
    opened: Sequence[bool] | None = None,
) -> tuple[Values, dict[str, str | None], str]:
    """Return values, reasons and the verdict for trades of ten minutes, one a day unless dated."""
    count = len(net)
    date = np.array(range(count) if dates is None else dates, dtype=np.int32)
    entry = date.astype(np.int64) * DAY_NS
    results = np.array(net, dtype=np.float64)
    columns: dict[str, Any] = {
        "net": results,
        "gross": results + 23.75,
        "costs": np.full(count, 23.75),
        "return": results / 250_000.0,
        "risk_usd": np.full(count, 150.0),
        "stop_points": np.full(count, 3.0),
        "points": (results + 23.75) / 50.0,
        "mae": np.full(count, 1.5),
        "mfe": np.full(count, 4.5),
        "entry_time": entry,
        "exit_time": entry + 10 * MINUTE_NS,
        "trade_date": date,
        "open": np.array(opened if opened is not None else [False] * count, dtype=bool),
        "ambiguous": np.zeros(count, dtype=bool),
        "modal_tied": np.zeros(count, dtype=bool),
    }
    closing = np.array(BALANCE + np.cumsum(results) if daily is None else daily, dtype=np.float64)
    times, equity = marks or (range(len(closing)), closing)
    listed, verdict = _core.compute_statistics(
        columns,
        BALANCE,
        closing,
        np.array([day * DAY_NS for day in times], dtype=np.int64),
        np.array(equity, dtype=np.float64),
        np.arange(0, max(count, 1) * DAY_NS, 60 * MINUTE_NS, dtype=np.int64),
        MINUTE_NS,
        seed,
        resamples,
        5,
    )
    values = {row["name"]: row["value"] for row in listed}
    return values, {row["name"]: row["reason"] for row in listed}, verdict


def close(found: float | None, expected: float | None) -> bool:
    """Whether two statistics agree, none being only equal to none."""
    if found is None or expected is None:
        return found is expected
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(nets)
def test_trades_equal_the_hand_formulas(net: list[float]) -> None:
    values, _, _ = compute(net)
    won = [each for each in net if each > 0]
    lost = [each for each in net if each <= 0]
    low, high = reference_statistics.wilson_interval(len(won), len(net))
    expected: Values = {
        "trades": len(net),
        "wins": len(won),
        "losses": len(lost),
        "win_rate": len(won) / len(net),
        "win_rate_low": low,
        "win_rate_high": high,
        "net_usd": math.fsum(net),
        "gross_usd": math.fsum(each + 23.75 for each in net),
        "costs_usd": 23.75 * len(net),
        "expectancy_usd": math.fsum(net) / len(net),
        "expectancy_points": math.fsum((each + 23.75) / 50 for each in net) / len(net),
        "expectancy_r": math.fsum(each / 150 for each in net) / len(net),
        "gross_profit_usd": math.fsum(won),
        "gross_loss_usd": -math.fsum(lost),
        "average_win_usd": math.fsum(won) / len(won) if won else None,
        "average_loss_usd": math.fsum(lost) / len(lost) if lost else None,
        "largest_win_usd": max(won, default=None),
        "largest_loss_usd": min(lost, default=None),
        "profit_factor": reference_statistics.profit_factor(net),
        "payoff": reference_statistics.payoff(net),
        "longest_winning_streak": reference_statistics.longest_streak(net, won=True),
        "longest_losing_streak": reference_statistics.longest_streak(net, won=False),
        "mean_holding_minutes": 10.0,
        "mean_mae_r": 0.5,
        "mean_mfe_r": 1.5,
    }
    for name, wanted in expected.items():
        assert close(values[name], wanted), (name, values[name], wanted)


@given(nets)
def test_drawdown_and_daily_ratios_equal_the_hand_formulas(net: list[float]) -> None:
    equity = (BALANCE + np.cumsum(net)).tolist()
    values, reasons, _ = compute(net)
    money, share, below = reference_statistics.drawdown(equity, BALANCE)
    assert close(values["max_drawdown_usd"], money)
    assert close(values["max_drawdown_pct"], 100 * share)
    assert values["longest_drawdown_marks"] == below
    if len(net) < 2:
        assert values["sharpe"] is None
        assert reasons["sharpe"]
        return
    returns = reference_statistics.daily_returns(equity, BALANCE)
    sharpe = reference_statistics.sharpe(returns)
    if sharpe is not None and abs(sharpe) < 1e6:
        assert close(values["sharpe"], sharpe)
    sortino = reference_statistics.sortino(returns)
    if sortino is not None:
        assert close(values["sortino"], sortino)
    calmar = _calmar(returns)
    assert close(values["calmar"], calmar)


def _calmar(returns: Sequence[float]) -> float | None:
    """Compound growth a year over the deepest fall of daily closes."""
    grown, peak, fall = 1.0, 1.0, 0.0
    for each in returns:
        grown *= 1 + each
        peak = max(peak, grown)
        fall = max(fall, 1 - grown / peak)
    return (grown ** (252 / len(returns)) - 1) / fall if fall > 0 else None


def test_longest_drawdown_is_in_calendar_days() -> None:
    marks = ([0, 1, 2, 9, 10], [50_000.0, 49_000.0, 49_500.0, 50_000.0, 50_100.0])
    values, _, _ = compute([1.0] * 3, marks=marks)
    assert values["longest_drawdown_days"] == 9.0
    assert values["longest_drawdown_marks"] == 2


def test_open_trades_are_counted_and_left_out() -> None:
    values, _, _ = compute([10.0, -5.0, 1e6], opened=[False, False, True])
    assert (values["trades"], values["open_trades"], values["net_usd"]) == (2, 1, 5.0)


def test_without_trades_a_number_is_none_with_its_reason() -> None:
    values, reasons, verdict = compute([], daily=[BALANCE, BALANCE])
    assert values["trades"] == 0
    assert values["win_rate"] is None
    for name, value in values.items():
        assert (value is None) == bool(reasons[name]), name
    assert verdict.startswith("No verdict")


def some_nets(seed: int, count: int, mean: float) -> list[float]:
    draw = random.Random(seed)
    return [mean + draw.gauss(0, 100.0) for _ in range(count)]


def test_wilson_equals_scipy() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for wins, count in ((0, 7), (3, 7), (7, 7), (61, 100), (1, 1000)):
        values, _, _ = compute([10.0] * wins + [-10.0] * (count - wins))
        interval = scipy.binomtest(wins, count).proportion_ci(0.95, method="wilson")
        assert close(values["win_rate_low"], float(interval.low))
        assert close(values["win_rate_high"], float(interval.high))


def test_posteriors_equal_scipy_and_the_oracle() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for wins, losses in ((0, 0), (3, 0), (0, 5), (12, 7), (400, 380)):
        mean, low, high = _core.posterior(wins, losses)
        posterior = scipy.beta(1 + wins, 1 + losses)
        assert mean == pytest.approx(posterior.mean(), rel=1e-12)
        assert low == pytest.approx(posterior.ppf(0.05), rel=1e-9)
        assert high == pytest.approx(posterior.ppf(0.95), rel=1e-9)
        assert low == pytest.approx(reference.beta_quantile(0.05, 1 + wins, 1 + losses), rel=1e-12)


def test_ratios_equal_independent_libraries() -> None:
    ffn = pytest.importorskip("ffn")
    pandas = pytest.importorskip("pandas")
    bench = pytest.importorskip("sharpebench")
    values, _, _ = compute(some_nets(4, 300, 20.0))
    equity = BALANCE + np.cumsum(some_nets(4, 300, 20.0))
    days = pandas.bdate_range("2019-01-01", periods=301)
    prices = pandas.Series([BALANCE, *equity], index=days)
    returns = prices.pct_change().dropna()
    assert values["sharpe"] == pytest.approx(
        float(ffn.calc_sharpe(returns, nperiods=252)), rel=1e-9
    )
    drawdown = float(ffn.calc_max_drawdown(prices))
    assert values["max_drawdown_pct"] == pytest.approx(-100 * drawdown, rel=1e-9)
    each = float(bench.sharpe_ratio(returns.tolist()))
    assert values["sharpe"] == pytest.approx(each * math.sqrt(252), rel=2e-3)


def test_bootstrap_interval_is_near_that_of_arch() -> None:
    """Two generators cannot agree exactly; the intervals agree to a tenth of their width."""
    bootstrap = pytest.importorskip("arch.bootstrap")
    net = some_nets(8, 300, 15.0)
    values, _, _ = compute(net, resamples=20_000)
    returns = np.array(
        reference_statistics.daily_returns((BALANCE + np.cumsum(net)).tolist(), BALANCE)
    )

    def sharpe(sample: np.ndarray) -> float:
        return float(sample.mean() / sample.std(ddof=1) * math.sqrt(252))

    drawn = bootstrap.StationaryBootstrap(5, returns, seed=np.random.default_rng(3)).apply(
        sharpe, 4000
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert values["sharpe_low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert values["sharpe_high"] == pytest.approx(high, abs=0.1 * (high - low))
    mean = standard.fmean(net)
    error = standard.stdev(net) / math.sqrt(len(net))
    # One trade a date: the dates' bootstrap is the ordinary one.
    assert values["mean_trade_low_usd"] == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert values["mean_trade_high_usd"] == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_p_value_is_near_that_of_the_t_test_and_is_honest() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for seed in range(5):
        net = some_nets(seed, 200, 8.0)
        values, _, _ = compute(net, resamples=20_000)
        expected = float(scipy.ttest_1samp(net, 0.0).pvalue)
        assert values["p_value"] == pytest.approx(expected, abs=0.02)
    # Without an edge one in twenty is called an edge, and not many more.
    below = sum(
        (compute(some_nets(1000 + s, 120, 0.0))[0]["p_value"] or 1) <= 0.05 for s in range(200)
    )
    assert 2 <= below <= 22


def test_bootstrap_depends_on_the_seed_and_on_nothing_else() -> None:
    net = some_nets(2, 80, 5.0)
    first, again, other = compute(net, seed=7), compute(net, seed=7), compute(net, seed=8)
    assert first == again
    drawn = ("sharpe_low", "sharpe_high", "calmar_low", "mean_trade_low_usd", "p_value")
    for name in first[0]:
        if not name.endswith(("_low", "_high", "_usd")) and name != "p_value":
            assert first[0][name] == other[0][name], name
    assert any(first[0][name] != other[0][name] for name in drawn)


def test_trades_of_one_date_are_drawn_together() -> None:
    """Ten copies of each trade on its date are no ten times the evidence."""
    net = some_nets(5, 40, 20.0)
    alone, _, _ = compute(net, resamples=4000)
    copied = [each for each in net for _ in range(10)]
    dates = [date for date in range(40) for _ in range(10)]
    together, _, _ = compute(copied, dates=dates, resamples=4000)
    assert together["p_value"] == pytest.approx(alone["p_value"], abs=0.02)
    spread_out, _, _ = compute(copied, resamples=4000)
    assert (spread_out["p_value"] or 0) < (alone["p_value"] or 0) / 2


def test_verdict_can_say_yes_no_a_loss_and_nothing() -> None:
    around_zero = some_nets(3, 200, 0.0)
    around_zero = [each - standard.fmean(around_zero) + 2.0 for each in around_zero]
    yes, loss = (compute(some_nets(3, 200, mean))[2] for mean in (60.0, -60.0))
    no = compute(around_zero)[2]
    assert " can be told from luck" in yes
    assert "cannot be told from luck" in no
    assert "is a loss that luck does not explain" in loss
    assert compute(some_nets(3, 29, 60.0))[2].startswith("No verdict: fewer than 30 trades")
    few_dates = compute(some_nets(3, 60, 60.0), dates=[place % 9 for place in range(60)])[2]
    assert few_dates.startswith("No verdict")
    assert "9" in few_dates
    for verdict in (yes, no, loss, few_dates):
        assert verdict.endswith(".")


def test_every_statistic_has_a_unit_and_a_definition() -> None:
    names = [name for name, _, _ in _core.statistic_definitions()]
    assert len(names) == len(set(names)) > 50
    for name, unit, definition in _core.statistic_definitions():
        assert unit, name
        assert definition.endswith("."), name
