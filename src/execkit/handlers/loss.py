"""The day's loss limit of one chain: what it is measured against, and what happens when it is reached."""

from __future__ import annotations

from decimal import Decimal

from execkit.handlers.desk import Desk
from execkit.model.denial import Denial, DenialCode
from execkit.model.records import TradingState, TradingStateChanged
from execkit.numbers import HUNDRED, MONEY, plain
from execkit.risk.daily import DayWatch
from execkit.risk.limits import RiskLimits


class LossLimit:
    """Sets trading to reducing, and tells a person, when the day has lost what *limits* allow."""

    def __init__(self, limits: RiskLimits) -> None:
        self._limits = limits
        self._day = DayWatch()

    def check(self, desk: Desk, equity: Decimal) -> Denial | None:
        """Return why no entry may leave at this *equity*, in the account's currency, or None."""
        baseline = self._day.baseline(desk.clock.now(), desk.book.equity_marks)
        if baseline is None:
            return None
        loss = baseline.loss(equity)
        limit = self._limits.daily_loss_amount
        if limit is None:
            limit = MONEY.multiply(baseline.opening, self._limits.daily_loss_pct) / HUNDRED
        if loss < limit:
            return None
        if desk.book.trading_state is TradingState.ACTIVE:
            cause = f"daily loss {plain(loss)} reached the limit {plain(limit)}"
            desk.recorder.record(
                TradingStateChanged(state=TradingState.REDUCING, cause=cause, actor="risk")
            )
            desk.recorder.alarm(
                "DAILY_LOSS", f"{cause}: only reductions leave until it is released"
            )
        return Denial.of(DenialCode.DAILY_LOSS_REACHED, loss=loss, limit=limit)
