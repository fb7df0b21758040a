"""What came from outside: changes of positions that no order of ours explains are taken over, and a person is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import structlog

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.events import ReconcileMismatch
from execkit.model.records import ExternalChange
from execkit.numbers import ZERO, plain
from execkit.orders.executions import is_undone_by
from execkit.orders.recorder import Recorder
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_RESTORED_WITHIN: Final = timedelta(hours=1)
"""How long after a position was gone its whole quantity counts as the same position, when nothing came between."""

Terms = tuple[Decimal, Decimal | None]
"""Price of a change, zero when nobody knows one; and the lot of its market, None when that cannot be read."""


class Outside:
    """Takes over what the venue has and our fills do not explain. *ask* asks the venue under a time limit."""

    def __init__(
        self,
        recorder: Recorder,
        adapter: ExchangeAdapter,
        ask: Callable[..., Awaitable[Any]],
    ) -> None:
        self._recorder = recorder
        self._book = recorder.book
        self._adapter = adapter
        self._ask = ask

    async def terms(self, symbol: str, stated: Decimal) -> Terms:
        """Return the best price there is for a change, *stated* by the venue if not zero, and the lot."""
        return await self._price_of(symbol, stated), await self._lot_of(symbol)

    async def _price_of(self, symbol: str, stated: Decimal) -> Decimal:
        entered = self._book.positions.average_price(symbol)
        known = stated or self._book.mark(symbol) or entered
        if known:
            return known
        try:
            mid: Decimal = (await self._ask(self._adapter.ticker, symbol)).mid
        except Exception as error:  # noqa: BLE001 - it counts without a price too
            log.warning("reconcile.no_price", symbol=symbol, error=shown(error))
            return ZERO
        return mid

    async def _lot_of(self, symbol: str) -> Decimal | None:
        try:
            lot: Decimal = (await self._ask(self._adapter.instrument, symbol)).lot_size
        except Exception as error:  # noqa: BLE001 - it counts without a lot too
            log.warning("reconcile.no_lot", symbol=symbol, error=shown(error))
            return None
        return lot

    def take(
        self,
        symbol: str,
        difference: Decimal,
        terms: Terms,
        seen_at: datetime | None,
        *,
        is_new: bool,
    ) -> None:
        """Record a change; *is_new*: it was there before this journal began, so nobody is alarmed."""
        ours = self._book.positions.quantity(symbol)
        reason = "held before execkit began" if is_new else "not explained by our fills"
        restores = self._restores(symbol, difference)
        if restores:
            reason = "the change before was none: the position is back"
        self._record(symbol, difference, terms, reason, seen_at, restores=restores)
        if not is_new:
            self.mismatch(symbol, plain(ours), plain(ours + difference))

    def _restores(self, symbol: str, difference: Decimal) -> bool:
        """Tell whether a change brings back just what the last one took away, a while ago and with nothing between.

        That one was an old answer of the venue, so the position has its entry, its stop and its targets again.
        """
        positions = self._book.positions
        last = positions.last_execution(symbol)
        if last is None or symbol in positions.open or not is_undone_by(last, difference):
            return False
        return self._recorder.clock.now() - last.fill.at < _RESTORED_WITHIN

    def _record(
        self,
        symbol: str,
        difference: Decimal,
        terms: Terms,
        reason: str,
        seen_at: datetime | None,
        *,
        restores: bool = False,
    ) -> None:
        price, lot_size = terms
        self._recorder.record(
            ExternalChange(
                symbol=symbol,
                quantity=difference,
                price=price,
                reason=reason,
                seen_at=seen_at,
                lot_size=lot_size,
                restores=restores,
            )
        )

    async def end_dust(self) -> None:
        """End what a journal without lots, of an older version, has as a position and is less than a lot."""
        positions = self._book.positions
        for symbol in positions.without_lot():
            lot = await self._lot_of(symbol)
            held = positions.open.get(symbol)
            if lot is not None and held is not None and abs(held.quantity) < lot:
                terms = positions.average_price(symbol) or ZERO, lot
                self._record(symbol, ZERO, terms, "less than a lot", None)

    def mismatch(self, what: str, ours: str, venue: str) -> None:
        """Tell a person that the two sides differed; *what* is a symbol or an asset."""
        log.warning("reconcile.mismatch", what=what, ours=ours, venue=venue)
        self._recorder.alarm("MISMATCH", f"{what}: ours {ours}, the venue's {venue}", symbol=what)
        self._recorder.announce(
            ReconcileMismatch(at=self._recorder.clock.now(), symbol=what, ours=ours, venue=venue)
        )
