"""Tickets and commands as the gateway gets them."""

from datetime import timedelta
from decimal import Decimal

from tests.support.orders import AT, BTC

from execkit.model.account import AccountView
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderType, Side, TimeInForce
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket, RiskStamp
from execkit.orders.commands import Entry, Reduction

INSTRUMENT = Instrument.default(
    BTC, tick_size=Decimal("0.1"), lot_size=Decimal("0.01"), min_quantity=Decimal("0.02")
)


def ticket(signal_id="s1", *, side=Side.BUY, quantity="1", limit="100", stamped=True, **details):
    """Return a stamped ticket for an entry; by default a limit buy of 1 BTC at 100."""
    price = None if limit is None else Decimal(limit)
    size = None if quantity is None else Decimal(quantity)
    signal = TradingSignal(
        symbol=BTC,
        side=side,
        quantity=size,
        limit_price=price,
        signal_id=signal_id,
        post_only=details.pop("post_only", False),
    )
    stamp = RiskStamp(f"r-{signal_id}", BTC, side, Decimal(1000), Decimal(200))
    return OrderTicket(
        signal=signal,
        signal_id=signal_id,
        instrument=INSTRUMENT,
        quote=Quote(BTC, Decimal(99), Decimal(101), AT),
        account=AccountView("USDT", Decimal(1000), Decimal(1000), Decimal(0)),
        position=None,
        role=OrderRole.ENTRY,
        side=side,
        type=OrderType.MARKET if limit is None else OrderType.LIMIT,
        quantity=size,
        limit_price=price,
        stop_price=None,
        time_in_force=details.pop("time_in_force", TimeInForce.GTC),
        stop_loss=details.pop("stop_loss", Decimal(95)),
        take_profit=details.pop("take_profit", None),
        created_at=AT,
        stamp=stamp if stamped else None,
        **details,
    )


def entry(signal_id="s1", *, unchecked=False, timeout=None, **details):
    """Return an entry command."""
    at = None if timeout is None else AT + timedelta(seconds=timeout)
    return Entry(ticket(signal_id, **details), at, unchecked)


def reduction(quantity="1", *, side=Side.SELL, role=OrderRole.EXIT, parent="x1", **details):
    """Return a command that closes a part of the BTC position."""
    stop = details.pop("stop", None)
    return Reduction(
        instrument=details.pop("instrument", INSTRUMENT),
        side=side,
        quantity=Decimal(quantity),
        role=role,
        parent=parent,
        position_id=f"{BTC}#1",
        type=OrderType.MARKET if stop is None else OrderType.STOP,
        stop_price=None if stop is None else Decimal(stop),
        **details,
    )
