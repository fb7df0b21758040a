"""What the functions that come with the package measure on bars; exact numbers in, exact numbers out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final

from execkit.bars.cache import BarHistory
from execkit.model.market import BarData
from execkit.model.position import Position
from execkit.numbers import MONEY, ONE, ZERO

VOLUME_BARS: Final = 20
ATR_BARS: Final = 14

_HALF: Final = Decimal("0.5")
_QUARTER: Final = Decimal("0.25")
_FOUR_PLACES: Final = Decimal("0.0001")


def mean_volume(history: BarHistory, bars: int = VOLUME_BARS) -> Decimal:
    """Return the mean volume of up to *bars* bars before the last one; zero without any."""
    before = history[-bars - 1 : -1]
    if not before:
        return ZERO
    return MONEY.divide(sum((bar.volume for bar in before), ZERO), Decimal(len(before)))


def mean_close(history: BarHistory, bars: int, *, before: int = 0) -> Decimal:
    """Return the plain mean of the closes of *bars* bars, the last of them *before* bars ago."""
    window = history[len(history) - before - bars : len(history) - before]
    return MONEY.divide(sum((bar.close for bar in window), ZERO), Decimal(bars))


def average_true_range(history: BarHistory, bars: int = ATR_BARS) -> Decimal:
    """Return the plain mean of the true ranges of up to *bars* last bars; zero without any.

    True range = max(high, previous close) - min(low, previous close) (Wilder 1978); the first bar of all has no
    previous close and counts with its range.
    """
    window = history[-bars - 1 :]
    ranges = [
        max(bar.high, before.close) - min(bar.low, before.close) for before, bar in pairwise(window)
    ]
    if len(ranges) < bars and window:
        ranges.append(window[0].range)
    return MONEY.divide(sum(ranges, ZERO), Decimal(len(ranges))) if ranges else ZERO


def atr_growth(history: BarHistory, since: datetime, bars: int = ATR_BARS) -> Decimal | None:
    """Return the ATR of the last *bars* bars as a multiple of that of the last ones before *since*.

    None where the history does not reach back so far, and where nothing moved then.
    """
    before = len(history)
    while before and history[before - 1].close_time > since:
        before -= 1
    if before < bars:
        return None
    then = average_true_range(history[:before], bars)
    return MONEY.divide(average_true_range(history, bars), then) if then else None


def breakout_confidence(history: BarHistory, distance: Decimal) -> Decimal:
    """Return how much a close *distance* beyond a threshold is worth, 0.5 to 1, rounded to four places.

    0.5 + 0.25 * clamp(V / M - 1) + 0.25 * clamp(distance / A), where clamp limits to 0..1, V is the last bar's volume,
    M the mean volume of the 20 bars before it and A the ATR(14) up to it. While the history is shorter, M and A are
    of what there is. A part whose divisor is zero counts nothing.
    """
    confidence = _HALF
    mean = mean_volume(history)
    if mean:
        confidence += _QUARTER * _clamp(MONEY.divide(history[-1].volume, mean) - ONE)
    atr = average_true_range(history)
    if atr:
        confidence += _QUARTER * _clamp(MONEY.divide(distance, atr))
    return confidence.quantize(_FOUR_PLACES)


def _clamp(value: Decimal) -> Decimal:
    return min(ONE, max(ZERO, value))


def since(history: BarHistory, moment: datetime) -> Iterator[BarData]:
    """Yield the bars that began at *moment* or later, the newest first.

    The last bar of a session may be shorter than its timeframe; no bar began before the close of the one before it.
    """
    for place in range(len(history) - 1, -1, -1):
        bar = history[place]
        if bar.open_time < moment and not (place and history[place - 1].close_time >= moment):
            return
        yield bar


def best_price(position: Position, history: BarHistory) -> Decimal:
    """Return the most favourable price since entry, as far as position and bars tell."""
    prices = [position.average_price]
    if position.best_price is not None:
        prices.append(position.best_price)
    for bar in since(history, position.opened_at):
        prices.append(bar.high if position.is_long else bar.low)
        if position.best_price is not None:
            break  # the bars before this one are in the position's own best price
    return max(prices) if position.is_long else min(prices)
