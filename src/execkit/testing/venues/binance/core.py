"""The matching core as Binance settles: fees to eight places, and in BNB where the account pays so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from execkit.exchanges.matcher import exactly
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.order import OrderUpdate
from execkit.numbers import MONEY, ZERO

_PLACES: Final = Decimal("1e-8")
_BNB_DISCOUNT: Final = Decimal("0.75")


class BinanceCore(MatchingCore):
    """One account at Binance. *bnb_price* is what a BNB costs in quote units; None: fees are not paid in BNB."""

    def __init__(self, *args: Any, bnb_price: Decimal | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.bnb_price = bnb_price

    @exactly
    def let_in(self, orders: Iterable[VenueOrder], at: datetime) -> list[OrderUpdate]:
        """Let the price act on orders that were placed without."""
        out: list[OrderUpdate] = []
        for order in orders:
            self.match_live(order, at, out)
        return out

    def fee_of(
        self,
        order: VenueOrder,
        instrument: Instrument,
        quantity: Decimal,
        notional: Decimal,
        rate: Decimal,
    ) -> tuple[Decimal, str]:
        """Return a fee and its asset: BNB at a discount while there is enough of it."""
        if self.bnb_price is not None:
            fee = MONEY.divide(notional * rate * _BNB_DISCOUNT, self.bnb_price)
            fee = fee.quantize(_PLACES, ROUND_HALF_UP, MONEY)
            if self.account.totals.get("BNB", ZERO) >= fee:
                return fee, "BNB"
        fee, asset = super().fee_of(order, instrument, quantity, notional, rate)
        return fee.quantize(_PLACES, ROUND_HALF_UP, MONEY), asset
