"""The contracts that the wire-level TWS lists."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import attrs

from execkit.model.instrument import Instrument
from execkit.testing.venues.tws.wire import SentContract

ALWAYS: Final = "always"


@attrs.define(kw_only=True)
class Listing:
    """One contract. *symbol* is execkit's spelling, under which the matching core knows it."""

    symbol: str
    con_id: int
    ticker: str
    sec_type: str = "STK"
    exchange: str = "SMART"
    primary_exchange: str = "NASDAQ"
    currency: str = "USD"
    local_symbol: str = ""
    trading_class: str = ""
    expiry: str = ""
    multiplier: Decimal = Decimal(1)
    magnifier: int = 1
    """What its prices are multiplied by: 100 where they are cents to the dollar."""
    bands: Sequence[tuple[Decimal, Decimal]] = ((Decimal(0), Decimal("0.01")),)
    """(low edge, increment) of the market rule."""
    min_size: Decimal = Decimal(1)
    size_increment: Decimal = Decimal(1)
    time_zone: str = "UTC"
    trading_hours: str = ALWAYS
    liquid_hours: str = ALWAYS
    fee: Decimal = Decimal("0.0001")
    """Commission as a fraction of the notional."""
    order_types: str = "LMT,MKT,STP,STPLMT,TRAIL,GTC,GTD,IOC,FOK,OCA,OUTSIDERTH"

    @property
    def units(self) -> Decimal:
        """Units in one contract, such that quantity times price is money."""
        return self.multiplier / self.magnifier

    @property
    def min_tick(self) -> Decimal:
        """The finest increment of any band."""
        return min(increment for _, increment in self.bands)

    def increment_at(self, price: Decimal) -> Decimal:
        """Return the increment of the band that a price lies in."""
        return next(step for edge, step in reversed(self.bands) if price >= edge)

    @property
    def instrument(self) -> Instrument:
        """The same for the matching core, in units: one contract has *multiplier* of them."""
        return Instrument.default(
            self.symbol,
            tick_size=self.min_tick,
            lot_size=self.size_increment * self.units,
            min_quantity=self.min_size * self.units,
            maker_fee=self.fee,
            taker_fee=self.fee,
        )

    def matches(self, asked: SentContract) -> bool:
        """Tell whether a client may mean this contract; fields that it leaves empty match all."""
        if asked.con_id:
            return asked.con_id == self.con_id
        if asked.sec_type != self.sec_type:
            return False
        if asked.exchange and asked.exchange not in (self.exchange, self.primary_exchange, "SMART"):
            return False
        return all(
            not wanted or wanted == own
            for wanted, own in (
                (asked.ticker, self.ticker),
                (asked.currency, self.currency),
                (asked.local_symbol, self.local_symbol),
                (asked.primary_exchange, self.primary_exchange),
                (asked.expiry, self.expiry),
            )
        )


def defaults() -> list[Listing]:
    """Return one contract of each kind, and two that share a ticker."""
    penny = ((Decimal(0), Decimal("0.0001")), (Decimal(1), Decimal("0.01")))
    return [
        Listing(symbol="AAPL", con_id=265598, ticker="AAPL", local_symbol="AAPL", bands=penny),
        Listing(symbol="MSFT", con_id=272093, ticker="MSFT", local_symbol="MSFT", bands=penny),
        Listing(
            symbol="SAP/EUR:IBIS",
            con_id=14204,
            ticker="SAP",
            local_symbol="SAP",
            primary_exchange="IBIS",
            currency="EUR",
        ),
        Listing(
            symbol="SAP/EUR:FWB",
            con_id=14205,
            ticker="SAP",
            local_symbol="SAP",
            primary_exchange="FWB",
            currency="EUR",
        ),
        Listing(
            symbol="ESZ6:CME",
            con_id=495512563,
            ticker="ES",
            sec_type="FUT",
            exchange="CME",
            primary_exchange="",
            local_symbol="ESZ6",
            expiry="20261218",
            multiplier=Decimal(50),
            bands=((Decimal(0), Decimal("0.25")),),
        ),
        Listing(
            symbol="EUR/USD",
            con_id=12087792,
            ticker="EUR",
            sec_type="CASH",
            exchange="IDEALPRO",
            primary_exchange="",
            local_symbol="EUR.USD",
            bands=((Decimal(0), Decimal("0.00005")),),
            fee=Decimal("0.00002"),
        ),
        Listing(
            symbol="BTC/USD:PAXOS",
            con_id=479624278,
            ticker="BTC",
            sec_type="CRYPTO",
            exchange="PAXOS",
            primary_exchange="",
            local_symbol="BTC.USD",
            bands=((Decimal(0), Decimal("0.25")),),
            min_size=Decimal("0.0001"),
            size_increment=Decimal("0.00000001"),
        ),
    ]
