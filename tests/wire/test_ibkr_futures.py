"""Money numbers of futures: multipliers, magnified prices, cash that shows gains only, and what they add up to."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.support.ibkr import Updates, adapter_of, on_the_wire, order

from execkit.engine import ExecutionEngine
from execkit.errors import ExchangeUnavailableError, InvalidOrderError
from execkit.model.order import Fill, OrderType, Side
from execkit.model.signal import TradingSignal
from execkit.testing.venues.tws.listing import Listing, defaults
from execkit.testing.venues.tws.server import WireTws
from execkit.testing.venues.tws.wire import frame

D = Decimal
ES = "ESZ6:CME"
CORN = "ZCZ6:CBOT"
AGO = datetime(2026, 1, 1, tzinfo=UTC)
START = 10_000_000
PRICES = {"AAPL": D(200), ES: D(6000), CORN: D("450.25")}


def listings():
    """Return the default contracts, and corn: 5,000 bushels, quoted in cents."""
    corn = Listing(
        symbol=CORN,
        con_id=612345678,
        ticker="ZC",
        sec_type="FUT",
        exchange="CBOT",
        primary_exchange="",
        local_symbol="ZCZ6",
        expiry="20261214",
        multiplier=D(5000),
        magnifier=100,
        bands=((D(0), D("0.25")),),
    )
    return [*defaults(), corn]


def options(cash=1_000_000):
    return {"listings": listings(), "prices": PRICES, "balances": {"USD": D(cash)}}


def market(name, symbol, quantity, side=Side.BUY):
    return order(name, symbol=symbol, type=OrderType.MARKET, quantity=D(quantity), side=side)


def quick(adapter):
    """Let it make many passes in a short time; the pace has a test of its own."""
    adapter._pace.limit = 1000
    return adapter


def stated_cash(venue):
    """Return what TWS itself calls the cash balance."""
    return venue.answers._values()["CashBalance", "USD"]


async def test_cash_and_futures_add_up_to_the_equity():
    """TWS keeps no notional of futures in its cash; here they are paid for, so that both together are the equity."""
    async with on_the_wire(venue_options=options()) as (venue, adapter):
        await adapter.place_order(market("1", ES, 50))
        await adapter.place_order(market("2", CORN, 100, Side.SELL))
        fees = 1_000_000 - stated_cash(venue)
        assert 0 < fees < 100  # no more than that: futures cost no cash
        for price in (6000, 6010, 5990):
            venue.move_price(ES, D(price))
            total = (await adapter.balances())["USD"].total
            held = sum(p.quantity * PRICES[p.symbol] for p in await adapter.positions())
            assert held == 300_000 - 45_025
            assert total + held == 1_000_000 - fees


async def test_an_engine_counts_a_future_once():
    """Entry, passes of comparison, a restart, gain, exit: the equity moves by the gain and the fees, nothing else."""
    async with WireTws(**options(START)) as venue:

        def engine():
            return ExecutionEngine(
                quick(adapter_of(venue)), journal=None, rng=random.Random(1), store=False
            )

        def equity(running):
            return running.book.equity("USD")

        async with engine() as first:
            result = await first.submit(
                TradingSignal(
                    symbol=ES,
                    side=Side.BUY,
                    quantity=D(50),
                    confluence=4,
                    stop_loss=D(5950),
                    take_profit=D(6200),
                )
            )
            assert result.filled == 50, result
            fees = START - stated_cash(venue)
            for _ in range(3):
                assert await first.desk.reconciler.try_run()
            first.book.marks[ES] = D(6000)
            assert equity(first) == START - fees
            assert [alarm.code for alarm in first.book.alarms] == []
        async with engine() as second:
            second.book.marks[ES] = D(6010)
            venue.move_price(ES, D(6010))
            assert equity(second) == START - fees + 500
            position = second.book.positions.open[ES]
            assert (position.quantity, position.average_price) == (50, 6000)
            await second.flatten()
            while second.positions:
                await second.desk.keeper.idle()
                await second.desk.reconciler.try_run()
            assert venue.held(ES) == 0
            assert equity(second) == venue.core.balances()["USD"].total


async def test_a_price_in_cents_is_worth_what_it_is_worth():
    """Corn at 450.25 cents is 22,512.50 dollars a contract: quantity x price says so, everywhere (N14, N15)."""
    async with on_the_wire(venue_options=options()) as (venue, adapter):
        rules = await adapter.instrument(CORN)
        assert (rules.lot_size, rules.tick_size) == (50, D("0.25"))
        report = await adapter.place_order(market("1", CORN, 100))
        assert venue.received[0].sent.quantity == 2
        [fill] = report.fills
        assert (fill.quantity, fill.price, fill.notional) == (100, D("450.25"), D(45_025))
        held = {p.symbol: (p.quantity, p.average_price) for p in await adapter.positions()}
        assert held == {CORN: (100, D("450.25"))}
        with pytest.raises(InvalidOrderError, match="multiple of 50"):
            await adapter.place_order(market("2", CORN, 75))


async def test_fills_of_before_are_told_in_their_units():
    """What another process has executed is told once its contract was looked up, never in wrong units or names."""
    async with WireTws(**options()) as venue:
        first = adapter_of(venue)
        await first.connect()
        await first.place_order(market("1", CORN, 100))
        await first.place_order(
            order("2", symbol=CORN, quantity=D(150), limit_price=D(400), side=Side.BUY)
        )
        await first.close()
        second = adapter_of(venue)
        updates = Updates(second)
        await second.connect()
        fill = await updates.until(lambda update: isinstance(update, Fill))
        assert (fill.symbol, fill.quantity, fill.notional) == (CORN, 100, D(45_025))
        [report] = await second.open_orders()
        assert (report.quantity, report.filled) == (150, 0)
        shown = [u for u in (*updates.seen, *updates.waiting()) if u.symbol == CORN]
        assert {u.quantity for u in shown} == {100, 150}
        await second.close()


async def test_stocks_quoted_in_pence_are_not_traded():
    """A share whose price is in parts of its currency is refused by name, before anything is sent."""
    pence = Listing(
        symbol="VOD/GBP", con_id=7, ticker="VOD", currency="GBP", magnifier=100, local_symbol="VOD"
    )
    async with on_the_wire(venue_options={"listings": [*defaults(), pence]}) as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="parts of GBP"):
            await adapter.place_order(order("1", symbol="VOD/GBP"))
        assert venue.received == []


async def test_a_position_whose_contract_is_listed_no_more():
    """It counts under the name that the message gives; it does not keep us from seeing everything else (E10)."""
    async with WireTws(**options()) as venue:
        first = adapter_of(venue)
        await first.connect()
        await first.place_order(market("1", CORN, 100))
        await first.place_order(market("2", "AAPL", 10))
        await first.close()
        known = venue.answers._contract_details

        def only_stocks(session, fields):
            rest = list(fields._rest)
            if "612345678" in rest:
                venue.warn(session, int(rest[1]), 200, "No security definition has been found")
            else:
                fields._rest = iter(rest)
                known(session, fields)

        venue.answers._handlers[9] = ("contract", only_stocks)
        second = adapter_of(venue)
        await second.connect()
        assert {p.symbol for p in await second.positions()} == {CORN, "AAPL"}
        assert {f.symbol for f in await second.fills_since(AGO)} == {CORN, "AAPL"}
        await second.close()


async def test_a_cash_balance_that_is_no_number():
    """It is no balance at all, and the error names it."""
    async with on_the_wire(venue_options=options()) as (venue, adapter):
        answer = venue.answers._handlers[6][1]

        def absurd(session, fields):
            session.send(frame(6, 2, "CashBalance", "n/a", "USD", venue.accounts[0]))
            answer(session, fields)

        venue.answers._handlers[6] = ("account", absurd)
        with pytest.raises(ExchangeUnavailableError, match="CashBalance in USD"):
            await adapter.balances()
