"""What can be traded, and the venue's rules for prices and quantities."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import attrs

from execkit.errors import ConfigurationError
from execkit.numbers import (
    ZERO,
    is_multiple,
    non_negative,
    plain,
    positive,
    round_down,
    round_nearest,
    round_up,
)

_POSITIVE: Final = ("tick_size", "lot_size")
_NON_NEGATIVE: Final = ("min_quantity", "min_notional")
_OPTIONAL: Final = ("max_quantity", "market_max_quantity", "max_notional", "list_lot_size")


@attrs.frozen(kw_only=True)
class Instrument:
    """One market of a venue.

    Prices are in *quote* per unit of *base*, quantities in *base*, notionals in *quote*. A limit of
    None means that the venue states none.
    """

    symbol: str = attrs.field()
    base: str
    quote: str
    tick_size: Decimal = Decimal("0.01")
    lot_size: Decimal = Decimal("0.00001")
    min_quantity: Decimal = ZERO
    max_quantity: Decimal | None = None
    market_max_quantity: Decimal | None = None
    min_notional: Decimal = ZERO
    max_notional: Decimal | None = None
    maker_fee: Decimal = attrs.field(default=ZERO)
    """Fraction of the notional, 0.001 = 0.1 %; a rebate is negative."""
    taker_fee: Decimal = attrs.field(default=ZERO)
    """Fraction of the notional, 0.001 = 0.1 %."""
    fee_in_base: bool = False
    """True: a buyer pays the fee in *base*, so receives less than the filled quantity."""
    stop_limit_only: bool = False
    """True: of stops, this market takes stop-limit orders only, whatever the venue takes elsewhere."""
    lists: bool = True
    """False: this market takes no lists of orders, whatever the venue takes elsewhere."""
    list_lot_size: Decimal | None = None
    """The quantity of a list is a multiple of it, where that is coarser than the lot; None: the lot."""
    tradeable: bool = True
    venue_symbol: str = ""
    """The venue's own spelling; empty means the same as *symbol*."""

    @symbol.validator
    def _check_symbol(self, _attribute: attrs.Attribute[str], value: object) -> None:
        check_symbol("symbol", value)

    @maker_fee.validator
    @taker_fee.validator
    def _check_fee(self, attribute: attrs.Attribute[Decimal], value: Decimal) -> None:
        if not isinstance(value, Decimal) or not value.is_finite() or abs(value) >= 1:
            raise ConfigurationError(
                f"{attribute.name}: {value!r} is not a Decimal fraction below 1; 0.1 % is Decimal('0.001')"
            )

    def __attrs_post_init__(self) -> None:
        for name in _POSITIVE:
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        for name in _NON_NEGATIVE:
            object.__setattr__(self, name, non_negative(name, getattr(self, name)))
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, positive(name, value))

    @classmethod
    def default(cls, symbol: str, **changes: object) -> Instrument:
        """Return an instrument for a `BASE/QUOTE` symbol with plain rules (tick 0.01, lot 0.00001)."""
        check_symbol("symbol", symbol)
        base, _, quote = symbol.partition("/")
        quote = quote.partition(":")[0]
        return cls(symbol=symbol, base=base, quote=quote or "USD", **changes)  # type: ignore[arg-type]

    @property
    def fee_in_quote(self) -> Decimal:
        """Fraction of the notional that a buyer may have to pay in *quote* besides it."""
        return ZERO if self.fee_in_base else max(self.taker_fee, ZERO)

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """Round down to the lot size: never more than asked."""
        return round_down(quantity, self.lot_size)

    def round_price(self, price: Decimal) -> Decimal:
        """Round to the nearest tick."""
        return round_nearest(price, self.tick_size)

    def round_price_down(self, price: Decimal) -> Decimal:
        """Round down to a tick: a buyer's limit never worse than asked."""
        return round_down(price, self.tick_size)

    def round_price_up(self, price: Decimal) -> Decimal:
        """Round up to a tick: a seller's limit never worse than asked."""
        return round_up(price, self.tick_size)

    def on_tick(self, price: Decimal) -> bool:
        """Tell whether the price is a whole number of ticks."""
        return is_multiple(price, self.tick_size)

    def on_lot(self, quantity: Decimal) -> bool:
        """Tell whether the quantity is a whole number of lots."""
        return is_multiple(quantity, self.lot_size)

    def smallest_quantity(self, price: Decimal | None) -> Decimal:
        """Return the least quantity the venue takes at *price*, by lot, minimum and notional; None: of any value."""
        least = max(self.min_quantity, self.lot_size)
        if price is not None and self.min_notional > ZERO:
            least = max(least, round_up(self.min_notional / price, self.lot_size))
        return round_up(least, self.lot_size)

    def __str__(self) -> str:
        return f"{self.symbol} (tick {plain(self.tick_size)}, lot {plain(self.lot_size)})"


_SYMBOL_CHARACTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/:._-"
)


def check_symbol(field: str, value: object) -> str:
    """Return *value* when it is a plausible symbol, else raise `ConfigurationError`.

    Only ASCII letters, digits and `/:._-` pass, because a symbol travels into URLs, SQL and file names.
    """
    if not isinstance(value, str) or not value or len(value) > 40:
        raise ConfigurationError(f"{field}: {value!r} is not a symbol such as 'BTC/USDT' or 'AAPL'")
    if not _SYMBOL_CHARACTERS.issuperset(value):
        raise ConfigurationError(
            f"{field}: {value!r} has characters outside A-Z a-z 0-9 / : . _ -; use the venue's plain symbol"
        )
    return value
