"""Where the stop-loss and the target of an entry go when its signal does not say."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol, runtime_checkable

import attrs

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError
from execkit.functions.measures import average_true_range
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import Side
from execkit.numbers import HUNDRED, MONEY, non_negative, percent, plain, positive


def _timeframe(value: Timeframe | str) -> Timeframe:
    return Timeframe.parse(value)


@runtime_checkable
class StopRule(Protocol):
    """Says where a stop-loss goes. A rule with a *timeframe* is given that timeframe's bars."""

    @property
    def timeframe(self) -> Timeframe | None:
        """Bars the rule looks at; None: none."""
        ...

    def stop(self, side: Side, entry: Decimal, bars: BarHistory) -> Decimal | None:
        """Return the stop price for an entry on *side* at *entry*, or None while the bars do not suffice."""
        ...


@attrs.frozen
class FixedStop:
    """A stop *pct* percent of the entry price away."""

    pct: Decimal = Decimal(2)
    timeframe: Timeframe | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "pct", percent("pct", self.pct))

    def stop(self, side: Side, entry: Decimal, bars: BarHistory) -> Decimal | None:
        """Return entry -/+ entry x pct / 100."""
        return entry - side.sign * MONEY.multiply(entry, self.pct).scaleb(-2, MONEY)


@attrs.frozen
class AtrStop:
    """A stop *multiple* average true ranges (Wilder 1978, plain mean of *period* bars) away."""

    multiple: Decimal = Decimal("1.5")
    period: int = 14
    timeframe: Timeframe | None = attrs.field(default=Timeframe.H1, converter=_timeframe)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "multiple", positive("multiple", self.multiple))
        _bars("period", self.period)

    def stop(self, side: Side, entry: Decimal, bars: BarHistory) -> Decimal | None:
        """Return entry -/+ multiple x ATR; None with fewer bars than *period*."""
        if len(bars) < self.period:
            return None
        return entry - side.sign * MONEY.multiply(
            self.multiple, average_true_range(bars, self.period)
        )


@attrs.frozen
class LevelStop:
    """A stop beyond the lowest low (for a short the highest high) of *lookback* bars, by *buffer_pct* percent of it."""

    lookback: int = 20
    buffer_pct: Decimal = Decimal("0.1")
    timeframe: Timeframe | None = attrs.field(default=Timeframe.H1, converter=_timeframe)

    def __attrs_post_init__(self) -> None:
        _bars("lookback", self.lookback)
        buffer = non_negative("buffer_pct", self.buffer_pct)
        if buffer > HUNDRED:
            raise ConfigurationError(f"buffer_pct: {plain(buffer)} is above 100")
        object.__setattr__(self, "buffer_pct", buffer)

    def stop(self, side: Side, entry: Decimal, bars: BarHistory) -> Decimal | None:
        """Return low x (1 - buffer / 100), for a short high x (1 + buffer / 100); None with fewer bars."""
        if len(bars) < self.lookback:
            return None
        window = bars[-self.lookback :]
        level = (
            min(bar.low for bar in window) if side is Side.BUY else max(bar.high for bar in window)
        )
        return level - side.sign * MONEY.multiply(level, self.buffer_pct).scaleb(-2, MONEY)


def _bars(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{name}: {value!r} must be a whole number of bars from 1")


def computed_stop(
    rule: StopRule, fallback: FixedStop, side: Side, entry: Decimal, bars: BarHistory
) -> tuple[Decimal, str]:
    """Return the stop that *rule* computes, never farther than *fallback*'s, and a remark where it is not its own.

    *fallback* is the farthest stop that is allowed; it also takes the place of a rule that has too few bars, or whose
    level is on the wrong side of the entry.
    """
    farthest = fallback.stop(side, entry, bars)
    assert farthest is not None, "a fixed distance needs no bars"
    wanted = rule.stop(side, entry, bars)
    name = type(rule).__name__
    if wanted is None:
        return farthest, f"{name} has too few bars ({len(bars)}); {plain(fallback.pct)} % instead"
    if (entry - wanted) * side.sign <= 0:
        return (
            farthest,
            f"{name} put the stop beyond the entry; {plain(fallback.pct)} % instead",
        )
    if (farthest - wanted) * side.sign > 0:
        return farthest, f"{name} clamped to {plain(fallback.pct)} %"
    return wanted, ""


def on_ticks(
    side: Side, instrument: Instrument, stop_loss: Decimal, take_profit: Decimal
) -> tuple[Decimal, Decimal]:
    """Return both on ticks: a stop towards the entry and a target away from it, so no more loss and no less gain."""
    # For a long both lie above what was asked, for a short both below.
    rounded = instrument.round_price_up if side is Side.BUY else instrument.round_price_down
    if not instrument.on_tick(stop_loss):
        stop_loss = rounded(stop_loss)
    if not instrument.on_tick(take_profit):
        take_profit = rounded(take_profit)
    return stop_loss, take_profit
