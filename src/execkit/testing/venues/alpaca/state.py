"""What an Alpaca account holds beyond the matching core: versions of orders, groups of legs, assets, day trades."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Final

import attrs

from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.numbers import ZERO, round_up
from execkit.testing.venues.ledger import VenueState

_CENT: Final = Decimal("0.01")
_HUNDRED: Final = Decimal(100)
_COIN_STEP: Final = Decimal("1e-9")


@attrs.define(kw_only=True)
class Asset:
    """One asset; `Asset.stock` and `Asset.coin` make them."""

    symbol: str
    asset_class: str
    tradable: bool = True
    fractionable: bool = True
    shortable: bool = True
    price_increment: Decimal | None = None
    trade_increment: Decimal | None = None
    min_size: Decimal | None = None

    @property
    def id(self) -> str:
        """Its id, the same in every process."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, self.symbol))

    @property
    def is_crypto(self) -> bool:
        """Tell whether it is a pair of crypto currencies."""
        return self.asset_class == "crypto"

    @classmethod
    def stock(cls, symbol: str, **changes: object) -> Asset:
        """Return a stock."""
        return cls(symbol=symbol, asset_class="us_equity", **changes)  # type: ignore[arg-type]

    @classmethod
    def coin(cls, symbol: str, **changes: object) -> Asset:
        """Return a pair of crypto currencies."""
        values = {
            "shortable": False,
            "price_increment": Decimal("0.01"),
            "trade_increment": Decimal("0.000000001"),
            "min_size": Decimal("0.0001"),
        }
        return cls(symbol=symbol, asset_class="crypto", **(values | changes))  # type: ignore[arg-type]


@attrs.define(kw_only=True, eq=False)
class WireOrder:
    """One version of an order, as clients see it."""

    id: str
    client_order_id: str
    request: OrderRequest
    """As it was asked for; its type may be a trailing stop."""
    order_class: str
    created_at: datetime
    updated_at: datetime
    notional: Decimal | None = None
    core_id: str | None = None
    """The core's order; None for a leg that waits for its parent."""
    status: str | None = None
    """Its status where the core does not tell it."""
    is_queued: bool = False
    """It waits for the market to open."""
    by_hand: bool = False
    """It is executed by the next price or by a test, not at once."""
    shows_held: bool = False
    replaces: str | None = None
    replaced_by: str | None = None
    parent: str | None = None
    legs: list[str] = attrs.field(factory=list)
    group: list[str] = attrs.field(factory=list)
    """The other orders of an OCO."""
    high_water: Decimal | None = None
    filled_before: Decimal = ZERO
    """What was executed of it when it was replaced."""
    average_before: Decimal | None = None

    @property
    def is_trailing(self) -> bool:
        """Tell whether its stop follows the price."""
        return self.request.type is OrderType.TRAILING_STOP

    def trailing_stop(self) -> Decimal:
        """Return where a trailing stop stands: behind the best price there was, rounded towards it."""
        best, request = self.high_water, self.request
        assert best is not None, "a trailing stop begins at the last price"
        away = request.trail_amount
        if away is None:
            away = best * (request.trail_percent or ZERO) / _HUNDRED
        sells = request.side is Side.SELL
        stop = best - away if sells else best + away
        return max(stop.quantize(_CENT, ROUND_UP if sells else ROUND_DOWN), _CENT)


@attrs.frozen
class Execution:
    """Whose a fill of the core is."""

    order_id: str
    executed: Decimal
    """Of the order altogether, by then."""
    execution_id: str


class Core(MatchingCore):
    """The matching core, with the fees of crypto: taken from what is bought, rounded up, and one step more."""

    def fee_of(
        self,
        order: VenueOrder,
        instrument: Instrument,
        quantity: Decimal,
        notional: Decimal,
        rate: Decimal,
    ) -> tuple[Decimal, str]:
        """Return the fee of an execution and the asset it is paid in."""
        fee, asset = super().fee_of(order, instrument, quantity, notional, rate)
        if asset != instrument.base or not fee:
            return fee, asset
        return min(round_up(fee, _COIN_STEP) + _COIN_STEP, quantity), asset


class AlpacaState(VenueState):
    """Orders and account."""

    def __init__(self, core: MatchingCore, assets: dict[str, Asset]) -> None:
        super().__init__(core)
        self.assets = assets
        self.orders: dict[str, WireOrder] = {}
        self.by_client: dict[str, WireOrder] = {}
        self.live: dict[str, WireOrder] = {}
        """The newest version, by the core's id."""
        self.executions: dict[str, Execution] = {}
        """By the core's trade id."""
        self.opened_on: dict[str, date] = {}
        """The day on which a position was opened last."""
        self.day_trades: list[date] = []
        self.status = "ACTIVE"
        self.trading_blocked = False
        self.account_blocked = False
        self.suspended_by_user = False
        self.shorting = True

    def core_order(self, order: WireOrder) -> VenueOrder | None:
        """Return the core's order."""
        return None if order.core_id is None else self.core.orders[order.core_id]

    def is_open(self, order: WireOrder) -> bool:
        """Tell whether it may still be executed."""
        if order.replaced_by is not None:
            return False
        core = self.core_order(order)
        return order.status in ("held", "pending_cancel") if core is None else core.is_open

    def held_for(self, symbol: str, side: Side) -> Decimal:
        """Return the quantity of a position that open orders hold; an OCO holds it once."""
        total, seen = ZERO, set[str]()
        for each in self.core.open.get(symbol, {}).values():
            order = self.live[each.venue_order_id]
            if each.request.side is side and order.id not in seen:
                seen.update(order.group)
                total += each.remaining
        return total

    def position(self, symbol: str) -> Decimal:
        """Return the net quantity of a symbol."""
        return self.core.account.holdings[symbol].quantity

    def equity(self) -> Decimal:
        """Return the account's worth at the last prices."""
        worth = self.core.account.totals.get("USD", ZERO)
        for symbol, holding in self.core.account.holdings.items():
            if holding.quantity and symbol in self.core.books:
                quote = self.core.quote(symbol)
                worth += holding.quantity * (quote.last or quote.bid)
        return worth
