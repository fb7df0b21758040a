"""Telling a person of a position without a stop at its venue: not at each look, and again while it stays so."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

from execkit.model.events import ProtectionFailed
from execkit.model.position import Position
from execkit.numbers import plain
from execkit.orders.recorder import Recorder
from execkit.protection.plan import Plan, Step

REMIND_AFTER: Final = 25.0
"""Seconds after which a position that could not be flattened is told of again."""

_HERE: Final = "is held here and protects only while this process runs"


class Teller:
    """Raises the keeper's alarms, each once for a position and a reason until the position is protected again.

    Only of a position that cannot even be flattened a person is reminded.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: dict[str, tuple[str, str]] = {}
        """Position without a stop at the venue, and what becomes of the stop, by symbol."""
        self._flattening: dict[str, tuple[str, float]] = {}
        """Position that is being flattened because it could not be protected, and when that was told, by symbol."""

    def of_plan(self, plan: Plan, position: Position | None, least: Decimal) -> None:
        """Tell of a plan that leaves no stop at the venue; *least* is the smallest quantity that it takes."""
        if position is None:
            return
        if plan.step in (Step.NOTHING, Step.COVERED):
            self._told.pop(position.symbol, None)
        elif plan.step is Step.HOLD:
            self._not_protecting(position, plan, "the venue takes no stops, so the one at", _HERE)
        elif not self._recorder.book.orders.open_entries(position.symbol):
            # Else more of it may come in a moment.
            why = f"the venue takes no order below {plain(least)}, so the stop at"
            self._not_protecting(position, plan, why, "is placed when there is more")

    def waits_for_open(self, position: Position, plan: Plan) -> None:
        """Tell of a stop that its market does not take now."""
        why = "its market is closed, so the stop at"
        self._not_protecting(position, plan, why, "is placed when it opens")

    def flattening(self, position: Position, reason: str) -> None:
        """Tell that a position could not be protected and is being flattened; not at each of the tries that follow."""
        symbol, now = position.symbol, asyncio.get_running_loop().time()
        known, told_at = self._flattening.get(symbol, ("", 0.0))
        if known == position.position_id and now - told_at < REMIND_AFTER:
            return
        self._flattening[symbol] = position.position_id, now
        self._recorder.alarm(
            "UNPROTECTED",
            f"{symbol} {plain(position.quantity)}: {reason}; flattening",
            symbol=symbol,
        )
        self._recorder.announce(
            ProtectionFailed(
                at=self._recorder.clock.now(),
                signal_id=position.signal_id,
                symbol=symbol,
                reason=reason,
            )
        )

    def forget(self, symbol: str) -> None:
        """Tell of the next flattening anew."""
        self._flattening.pop(symbol, None)

    def _not_protecting(self, position: Position, plan: Plan, why: str, what: str) -> None:
        symbol = position.symbol
        # What is placed later, and when: the figures before it move with the stop.
        if self._told.get(symbol) == (position.position_id, what):
            return
        self._told[symbol] = position.position_id, what
        self._recorder.alarm(
            "NOT_PROTECTING",
            f"{symbol} {plain(position.quantity)}: {why} {plain(plan.stop_price)} {what}",
            symbol=symbol,
        )
