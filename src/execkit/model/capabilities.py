"""What a venue can do. The chain reads these, never the venue's name."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from string import ascii_letters, digits

import attrs

from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument
from execkit.model.order import ListKind, OrderRequest, OrderType, TimeInForce
from execkit.numbers import is_multiple


@attrs.frozen(kw_only=True)
class Capabilities:
    """Abilities of one adapter instance."""

    order_types: frozenset[OrderType] = frozenset(OrderType) - {OrderType.TRAILING_STOP}
    times_in_force: frozenset[TimeInForce] = frozenset(
        {TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.DAY}
    )
    short_selling: bool = False
    reduce_only: bool = False
    """The venue itself refuses to let such an order flip or grow a position."""
    amend: bool = False
    opposite_orders: bool = True
    """Whether a buy and a sell of ours may be open in one symbol. Where not, a stop steps aside while an entry executes
    that adds to its position, and no such entry can rest."""
    positions_are_holdings: bool = False
    """`positions` shows what is held of each asset, in whichever of its markets: a spot account. Compared by asset."""
    lists: frozenset[ListKind] = frozenset()
    """Lists of orders that the venue itself keeps together; `place_list` sends them."""
    extended_hours: bool = False
    """Orders may be let into the time before and after the regular session."""
    lookup_by_client_id: bool = True
    lookup_lasts: timedelta | None = None
    """How long after its end an order can still be looked up, so that not finding it means anything; None: for ever."""
    order_stream: bool = True
    quote_stream: bool = False
    trade_stream: bool = False
    bar_stream: bool = False
    bar_history: bool = False
    always_open: bool = True
    """No sessions: the market never closes."""
    absence_window: timedelta | None = timedelta(seconds=60)
    """How long after the last possible send the venue may still not show an order that it has; absence
    counts as proven only by queries after it. Zero: its answer is final at once. None: never provable."""
    client_id_length: int = 36
    client_id_alphabet: str = ascii_letters + digits + "-_"
    """Characters that a client order id may have."""
    fractional: bool = True
    max_open_orders: int | None = None
    order_rate: tuple[int, timedelta] | None = None
    """How many commands the venue takes in any window of so long; the gateway keeps below it. None: no limit."""
    rate_counts_cancels: bool = True
    """Whether that limit counts cancels, or new and changed orders only."""
    dead_man: bool = False
    """The venue itself cancels orders when it is not told to wait in time; see `ExchangeAdapter.dead_man`."""

    @property
    def native_oco(self) -> bool:
        """Tell whether the venue itself keeps a stop and a target together."""
        return ListKind.OCO in self.lists

    def takes_list(self, kind: ListKind, instrument: Instrument, quantity: Decimal) -> bool:
        """Tell whether a list over a quantity of a market is taken; some markets, and parts of a share, have none."""
        if kind not in self.lists or not instrument.lists:
            return False
        step = instrument.list_lot_size
        return step is None or is_multiple(quantity, step)

    @property
    def never_flips(self) -> bool:
        """Tell whether the venue itself keeps a reduction from turning a position around."""
        return self.reduce_only or not self.short_selling

    def may_resend(self, request: OrderRequest) -> bool:
        """Tell whether an order that is proven absent may go out again by itself.

        A marketable one may only where that proof cannot be overtaken.
        """
        return self.absence_window == timedelta(0) or not request.is_marketable

    def unsupported(self, request: OrderRequest) -> str | None:
        """Return what the venue cannot do of this request, or None."""
        if request.type not in self.order_types:
            return f"order type {request.type} (it has {', '.join(sorted(self.order_types))})"
        if request.time_in_force not in self.times_in_force:
            return f"time in force {request.time_in_force} (it has {', '.join(sorted(self.times_in_force))})"
        if request.extended_hours and not self.extended_hours:
            return "orders outside the regular session"
        return None

    def __attrs_post_init__(self) -> None:
        if self.absence_window is not None and self.absence_window < timedelta(0):
            raise ConfigurationError(f"absence_window: {self.absence_window} must not be negative")
        if self.order_rate is not None and (
            self.order_rate[0] < 1 or self.order_rate[1] <= timedelta(0)
        ):
            raise ConfigurationError(
                f"order_rate: {self.order_rate} must be a count from 1 and a duration above zero"
            )
