"""Bad input for Interactive Brokers: each a clear error that says what to do, and nothing is half sent."""

import asyncio
import socket
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.ibkr import AAPL, adapter_of, on_the_wire, order

from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
)
from execkit.exchanges.ibkr.adapter import IBKRAdapter
from execkit.model.order import OrderType, TimeInForce
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.server import WireTws


async def test_gateway_not_running():
    """Nobody listens: the error names the address, and what has to be started and enabled."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ExchangeUnavailableError, match=rf"127.0.0.1:{port}.*start TWS"):
        await IBKRAdapter(port=port, read_timeout=timedelta(seconds=0.2)).connect()


async def test_gateway_does_not_answer():
    """A connection that is taken and not answered ends with the time limit, and says where to look."""
    async with WireTws() as venue:
        venue.fault("start", Mishap.HANG)
        with pytest.raises(ExchangeUnavailableError, match="dialog"):
            await adapter_of(venue).connect()


async def test_gateway_hangs_up():
    """A connection that is closed at once is told at once."""
    async with WireTws() as venue:
        venue.is_down = True
        with pytest.raises(ExchangeUnavailableError, match="closed the connection"):
            await adapter_of(venue, read_timeout=timedelta(seconds=30)).connect()


async def test_client_id_in_use():
    """326 is told at once, not after the time limit, with the id and what to do; the other session is undisturbed."""
    async with on_the_wire(client_id=7) as (venue, other):
        second = adapter_of(venue, client_id=7, read_timeout=timedelta(seconds=30))
        with pytest.raises(ExchangeUnavailableError, match="client_id=7") as caught:
            await asyncio.wait_for(second.connect(), 2)
        assert caught.value.code == "326"
        assert await other.open_orders() == []


async def test_read_only_api():
    """An API set to read-only refuses orders with the setting's name; none was made."""
    async with on_the_wire(venue_options={"read_only": True}) as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="Read-Only API"):
            await adapter.place_order(order())
        assert venue.orders.by_perm == {}


async def test_several_accounts_need_a_name():
    """A login with several accounts lists them and asks for one; a wrong one is refused."""
    async with WireTws(accounts=("DU1", "DU2")) as venue:
        with pytest.raises(ConfigurationError, match="DU1, DU2"):
            await adapter_of(venue).connect()
        with pytest.raises(ConfigurationError, match="DU9"):
            await adapter_of(venue, account="DU9").connect()
        adapter = adapter_of(venue, account="DU2")
        await adapter.connect()
        assert adapter.account == "ibkr:DU2"
        await adapter.close()


async def test_one_of_several_accounts_is_traded_and_seen():
    """Orders name the account; orders, executions, positions and cash of the other one are not ours."""
    async with WireTws(accounts=("DU1", "DU2")) as venue:
        other, ours = (
            adapter_of(venue, account="DU1", client_id=2),
            adapter_of(venue, account="DU2"),
        )
        await other.connect()
        await other.place_order(order("theirs", type=OrderType.MARKET))
        await other.place_order(order("open"))
        await ours.connect()
        await ours.place_order(order("mine"))
        assert [each.sent.account for each in venue.received] == ["DU1", "DU1", "DU2"]
        assert [o.client_order_id for o in await ours.open_orders()] == [
            order("mine").client_order_id
        ]
        ago = venue.clock.now() - timedelta(hours=1)
        assert await ours.fills_since(ago) == []
        assert len(await other.fills_since(ago)) == 1
        assert [p.symbol for p in await other.positions()] == [AAPL]
        assert await ours.positions() == []
        with pytest.raises(ExchangeUnavailableError, match="no cash balance"):
            await ours.balances()  # this TWS keeps all of it in the first account
        await ours.cancel_all()
        assert len(await other.open_orders()) == 1
        await ours.close()
        await other.close()


async def test_real_money_is_spelled_out():
    """An account with real money is refused without `live=True`, whatever the port; paper prices are free to read."""
    async with WireTws(accounts=("U1234567",)) as venue:
        with pytest.raises(ConfigurationError, match="live=True"):
            await adapter_of(venue).connect()
        live = adapter_of(venue, live=True)
        await live.connect()
        await live.close()
        data = adapter_of(venue)
        await data.connect_data()
        assert (await data.ticker(AAPL)).bid == 200
        with pytest.raises(NotSentError, match="prices only"):
            await data.place_order(order())
        assert venue.received == []
        await data.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": 7496}, "port"),
        ({"port": 4001}, "port"),
        ({"port": 0}, "port"),
        ({"client_id": -1}, "client_id"),
        ({"messages_per_second": 51}, "messages_per_second"),
        ({"time_zone": "Nowhere/Land"}, "time_zone"),
    ],
)
async def test_impossible_options(options, named):
    """Options that cannot be meant are refused by name, before anything is connected."""
    with pytest.raises(ConfigurationError, match=named):
        await IBKRAdapter(**options).connect()


SYMBOLS = [
    ("NOSUCH", "NOSUCH is not listed"),
    ("SAP/EUR", "SAP/EUR:FWB, SAP/EUR:IBIS"),
    ("AAPL/USD", "written AAPL"),
    ("AAPL:NASDAQ", "written AAPL"),
    ("ESZ6/USD:CME", "written ESZ6:CME"),
    ("BRK B", "characters"),
    ("ESH9:CME", "not listed"),
    ("AAPL:CME", "not listed"),
]


@pytest.mark.parametrize(("symbol", "said"), SYMBOLS)
async def test_symbols_that_mean_no_one_contract(symbol, said):
    """Unknown, ambiguous and misspelt symbols are refused with the right spelling; an order for one never leaves."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=said):
            await adapter.instrument(symbol)
        with pytest.raises(InvalidOrderError, match=said):
            await adapter.place_order(order(symbol=symbol))
        assert venue.received == []


async def test_each_kind_of_contract():
    """Stocks, futures, forex and crypto have the rules that TWS states; a future's quantity counts its multiplier."""
    async with on_the_wire() as (_venue, adapter):
        seen = {
            symbol: await adapter.instrument(symbol)
            for symbol in ("AAPL", "SAP/EUR:IBIS", "ESZ6:CME", "EUR/USD", "BTC/USD:PAXOS")
        }
        rules = {s: (i.base, i.quote, i.tick_size, i.lot_size) for s, i in seen.items()}
        assert rules == {
            "AAPL": ("AAPL", "USD", Decimal("0.01"), Decimal(1)),
            "SAP/EUR:IBIS": ("SAP", "EUR", Decimal("0.01"), Decimal(1)),
            "ESZ6:CME": ("ESZ6:CME", "USD", Decimal("0.25"), Decimal(50)),
            "EUR/USD": ("EUR", "USD", Decimal("0.00005"), Decimal(1)),
            "BTC/USD:PAXOS": ("BTC", "USD", Decimal("0.25"), Decimal("1e-8")),
        }


REFUSED_HERE = [
    ({"limit_price": Decimal("180.001")}, "tick"),
    ({"quantity": Decimal("1.5")}, "fractions"),
    ({"quantity": Decimal(0)}, "quantity"),
    ({"limit_price": None}, "limit_price"),
    ({"post_only": True}, "post-only"),
    ({"time_in_force": TimeInForce.GTD}, "expire_at"),
    ({"type": OrderType.STOP}, "stop_price"),
    ({"type": OrderType.TRAILING_STOP}, "trail_amount"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED_HERE)
async def test_orders_that_never_leave(changes, said):
    """What TWS would refuse in any case is refused here, with the rule in the message, and nothing is sent."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=said):
            await adapter.place_order(order(**changes))
        assert venue.messages[3] == 0


async def test_sub_penny_is_fine_below_a_dollar():
    """The tick is that of the order's own price band: a tenth of a cent is legal at 0.80, and not at 180."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order(limit_price=Decimal("0.8001")))
        assert venue.received[0].sent.limit == Decimal("0.8001")


async def test_market_order_outside_hours():
    """An order that could not work now is refused with the time of the open, and nothing is sent."""
    async with on_the_wire() as (venue, adapter):
        now = venue.clock.now()
        opens = now + timedelta(hours=2)
        closes = opens + timedelta(hours=6)
        venue.listings[AAPL].liquid_hours = f"{opens:%Y%m%d:%H%M}-{closes:%Y%m%d:%H%M}"
        with pytest.raises(MarketClosedError, match=f"opens at {opens:%Y-%m-%d %H:%M}"):
            await adapter.place_order(order(type=OrderType.MARKET))
        assert venue.received == []
        report = await adapter.place_order(order(extended_hours=True))
        assert report.venue_order_id


async def test_orders_before_connecting():
    """An order without a connection provably stays here; a question says what to do."""
    async with WireTws() as venue:
        adapter = adapter_of(venue)
        with pytest.raises(NotSentError, match="connect"):
            await adapter.place_order(order())
        with pytest.raises(ExchangeUnavailableError, match="connect"):
            await adapter.positions()
