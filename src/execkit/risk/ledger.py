"""What could be spent beside what positions hold: entries that are decided, live, in flight or in doubt.

The risk handler checks and reserves in one step without waiting, so signals that arrive together cannot pass a
limit together. A reservation is held while its signal's chain runs and shrinks with the fills; after that only
what may still be executed counts. All sums are kept, not computed: reading them costs the same with one open order
and with ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from execkit.errors import PipelineError
from execkit.model.order import OrderReport, OrderRole, Side
from execkit.model.records import Filled, Intent, OrderChanged, Record
from execkit.numbers import MONEY, ONE, ZERO
from execkit.orders.manager import ManagedOrder

_ENTRY: Final = OrderRole.ENTRY
_SELL: Final = Side.SELL
_NO_MARKS: Final[Mapping[str, Decimal]] = {}


class _Claim(msgspec.Struct):
    """One reservation. *counted* is the quantity that the sums hold for it."""

    symbol: str
    side: Side
    price: Decimal
    cost: Decimal
    held: bool = False
    reserved: Decimal = ZERO
    filled: Decimal = ZERO
    live: Decimal = ZERO
    orders: dict[str, tuple[Decimal, Decimal]] = {}
    counted: Decimal = ZERO

    def needed(self) -> Decimal:
        """Return the quantity that may still be executed for it."""
        if not self.held:
            return self.live
        # An order larger than what is left of the reservation counts as it is.
        return max(MONEY.subtract(self.reserved, self.filled), self.live)


class RiskLedger:
    """Sums of what entries may still execute. Notionals in quote units at the arrival mid."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._symbols: dict[str, int] = {}
        self._of_symbol: dict[str, Decimal] = {}
        self._notional = ZERO
        self._sells = ZERO
        self._cash = ZERO
        self._foreign = ZERO
        self._foreign_cash = ZERO

    # -- reading ---------------------------------------------------------------------------------------

    @property
    def pending_symbols(self) -> KeysView[str]:
        """Symbols with an entry that is decided, live, in flight or in doubt."""
        return self._symbols.keys()

    @property
    def reserved_cash(self) -> Decimal:
        """What buys may cost at their worst price, fees included; foreign orders too."""
        return MONEY.add(self._cash, self._foreign_cash)

    @property
    def exposure(self) -> Decimal:
        """Notional of all entries of both sides, without netting; foreign orders too."""
        return MONEY.add(self._notional, self._foreign)

    def reserved_notional(self, side: Side) -> Decimal:
        """Return the notional of our entries on one side."""
        return self._sells if side is _SELL else MONEY.subtract(self._notional, self._sells)

    def reserved_notional_of(self, symbol: str) -> Decimal:
        """Return the notional of our entries in one symbol."""
        return self._of_symbol.get(symbol, ZERO)

    def is_pending(self, symbol: str, *, besides: str) -> bool:
        """Tell whether a symbol has an entry under way other than the reservation *besides*."""
        count = self._symbols.get(symbol, 0)
        return count > 1 or (count == 1 and besides not in self._claims)

    def claimed(self, reservation_id: str) -> tuple[Decimal, Decimal]:
        """Return the notional and the cash that count for one reservation."""
        claim = self._claims.get(reservation_id)
        if claim is None:
            return ZERO, ZERO
        cash = MONEY.multiply(claim.counted, claim.cost) if claim.side is not _SELL else ZERO
        return MONEY.multiply(claim.counted, claim.price), cash

    def executed(self, reservation_id: str) -> Decimal:
        """Return what the orders that count for one reservation have executed."""
        claim = self._claims.get(reservation_id)
        return ZERO if claim is None else claim.filled

    def __len__(self) -> int:
        return len(self._claims)

    # -- changing --------------------------------------------------------------------------------------

    def reserve(
        self,
        reservation_id: str,
        symbol: str,
        side: Side,
        quantity: Decimal,
        worst_price: Decimal,
        *,
        price: Decimal,
        fee_rate: Decimal = ZERO,
    ) -> None:
        """Claim *quantity* for a signal until `release`.

        *price* (the arrival mid) values it against exposure limits; *worst_price* and *fee_rate* bound the cash of
        a buy. Orders that the signal has already, found at a restart, draw on it. Whoever calls has checked the
        limits in the same step. Raises `PipelineError` when it is held already.
        """
        claim = self._claims.get(reservation_id)
        if claim is not None and claim.held:
            raise PipelineError(
                f"reservation {reservation_id} is held already; a chain has one risk handler"
            )
        cost = MONEY.multiply(worst_price, ONE + fee_rate)
        if claim is None:
            claim = self._add(reservation_id, _Claim(symbol, side, price, cost))
        claim.held = True
        claim.reserved = quantity
        self._count(claim)

    def reprice(
        self,
        reservation_id: str,
        worst_price: Decimal,
        *,
        price: Decimal,
        fee_rate: Decimal = ZERO,
    ) -> None:
        """Count a claim at *price* and *worst_price* from now on where they are higher than before.

        For a change of an entry: whether it was made is known later, so a claim never becomes cheaper.
        """
        claim = self._claims.get(reservation_id)
        if claim is None:
            return
        counted = claim.counted
        self._weigh(claim, MONEY.minus(counted))
        claim.price = max(claim.price, price)
        claim.cost = max(claim.cost, MONEY.multiply(worst_price, ONE + fee_rate))
        self._weigh(claim, counted)

    def release(self, reservation_id: str) -> None:
        """End the hold: only orders that may be live count from now on. Safe to call for any id."""
        claim = self._claims.get(reservation_id)
        if claim is not None:
            claim.held = False
            self._settle(reservation_id, claim)

    def on_record(self, record: Record, order: ManagedOrder | None) -> None:
        """Take in what a record has changed; a command of ours changes nothing yet."""
        if order is not None and isinstance(record, (Intent, OrderChanged, Filled)):
            self.on_order(order)

    def on_order(self, order: ManagedOrder) -> None:
        """Take in an entry that is new or has changed; other roles are ignored.

        An order without a reservation, e.g. after a restart, counts with what may still be executed of it.
        """
        if order.role is not _ENTRY:
            return
        key = order.reservation_id or order.parent
        live = order.exposure_quantity
        claim = self._claims.get(key)
        if claim is None:
            if live == ZERO:
                return
            price = _price_of(order)
            claim = self._add(
                key, _Claim(order.symbol, order.side, price, order.worst_price or price)
            )
        filled_before, live_before = claim.orders.get(order.client_order_id, (ZERO, ZERO))
        claim.orders[order.client_order_id] = (order.filled, live)
        claim.filled = MONEY.add(claim.filled, MONEY.subtract(order.filled, filled_before))
        claim.live = MONEY.add(claim.live, MONEY.subtract(live, live_before))
        self._settle(key, claim)

    def set_foreign(
        self, reports: Iterable[OrderReport], marks: Mapping[str, Decimal] = _NO_MARKS
    ) -> None:
        """Count open venue orders that are not ours, in the place of those counted before.

        An order without a price of its own is valued at the symbol's mark.
        """
        self._foreign = self._foreign_cash = ZERO
        for report in reports:
            price = report.limit_price or report.stop_price or marks.get(report.symbol, ZERO)
            left = max(report.quantity - report.filled, ZERO)
            notional = MONEY.multiply(left, price)
            self._foreign = MONEY.add(self._foreign, notional)
            if report.side is Side.BUY:
                self._foreign_cash = MONEY.add(self._foreign_cash, notional)

    def _add(self, key: str, claim: _Claim) -> _Claim:
        self._claims[key] = claim
        self._symbols[claim.symbol] = self._symbols.get(claim.symbol, 0) + 1
        return claim

    def _settle(self, key: str, claim: _Claim) -> None:
        self._count(claim)
        if claim.held or claim.counted:
            return
        del self._claims[key]
        left = self._symbols[claim.symbol] - 1
        if left:
            self._symbols[claim.symbol] = left
        else:
            del self._symbols[claim.symbol]
            self._of_symbol.pop(claim.symbol, None)

    def _count(self, claim: _Claim) -> None:
        """Bring the sums up to what the claim needs now."""
        needed = claim.needed()
        change = MONEY.subtract(needed, claim.counted)
        if not change:
            return
        claim.counted = needed
        self._weigh(claim, change)

    def _weigh(self, claim: _Claim, change: Decimal) -> None:
        notional = MONEY.multiply(change, claim.price)
        self._notional = MONEY.add(self._notional, notional)
        of_symbol = self._of_symbol
        of_symbol[claim.symbol] = MONEY.add(of_symbol.get(claim.symbol, ZERO), notional)
        if claim.side is _SELL:
            self._sells = MONEY.add(self._sells, notional)
        else:
            self._cash = MONEY.add(self._cash, MONEY.multiply(change, claim.cost))


def _price_of(order: ManagedOrder) -> Decimal:
    return (
        order.expected_price
        or order.limit_price
        or order.stop_price
        or order.worst_price
        or order.average_price
        or ZERO
    )
