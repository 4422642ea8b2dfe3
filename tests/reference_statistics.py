"""Statistics of a list of trades and of an equity curve, by their textbook formulas.

Trades are taken in exit order. Money is net of costs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DAYS_PER_YEAR = 252
# The 97.5 % point of the normal distribution.
Z_95 = 1.959963984540054


def wilson_interval(wins: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, not continuity-corrected."""
    p = wins / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def profit_factor(nets: Sequence[float]) -> float | None:
    """Return money won over money lost; none without a loss."""
    lost = -math.fsum(net for net in nets if net <= 0)
    return math.fsum(net for net in nets if net > 0) / lost if lost > 0 else None


def payoff(nets: Sequence[float]) -> float | None:
    """Return the mean win over the mean loss; none without both."""
    wins = [net for net in nets if net > 0]
    losses = [net for net in nets if net <= 0]
    if not wins or not math.fsum(losses):
        return None
    return (math.fsum(wins) / len(wins)) / (-math.fsum(losses) / len(losses))


def longest_streak(nets: Sequence[float], *, won: bool) -> int:
    """Return the most wins (net > 0), or else losses, in a row."""
    longest = current = 0
    for net in nets:
        current = current + 1 if (net > 0) == won else 0
        longest = max(longest, current)
    return longest


def drawdown(equity: Sequence[float], start: float) -> tuple[float, float, int]:
    """Return the deepest fall from a peak, in money and of the peak, and most marks below it."""
    peak = start
    money = share = 0.0
    below = longest = 0
    for value in equity:
        peak = max(peak, value)
        below = below + 1 if value < peak else 0
        longest = max(longest, below)
        money = max(money, peak - value)
        share = max(share, (peak - value) / peak)
    return money, share, longest


def daily_returns(closing_equity: Sequence[float], start: float) -> list[float]:
    """Return each day's return on the equity of the day before."""
    before = [start, *closing_equity]
    return [after / old - 1 for old, after in zip(before, closing_equity, strict=False)]


def sharpe(returns: Sequence[float]) -> float | None:
    """Return mean over standard deviation (ddof 1) of daily returns, annualised."""
    n = len(returns)
    if n < 2:
        return None
    mean = math.fsum(returns) / n
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / (n - 1))
    return mean / deviation * math.sqrt(DAYS_PER_YEAR) if deviation > 0 else None


def sortino(returns: Sequence[float]) -> float | None:
    """Return mean over the root mean square of losses, all days counted, annualised."""
    n = len(returns)
    if n == 0:
        return None
    downside = math.sqrt(math.fsum(min(r, 0.0) ** 2 for r in returns) / n)
    mean = math.fsum(returns) / n
    return mean / downside * math.sqrt(DAYS_PER_YEAR) if downside > 0 else None


def calmar(closing_equity: Sequence[float], start: float) -> float | None:
    """Return the annualised mean daily return over the deepest drawdown of daily closes."""
    returns = daily_returns(closing_equity, start)
    share = drawdown(closing_equity, start)[1]
    if not returns or share == 0:
        return None
    return math.fsum(returns) / len(returns) * DAYS_PER_YEAR / share
