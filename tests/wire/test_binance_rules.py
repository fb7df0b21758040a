"""Rules that change while an adapter runs: a market that opens, one that closes, and a filter that becomes coarser."""

from decimal import Decimal

import attrs
import pytest
from tests.support.binance import adapter_of, on_the_wire, order

from execkit.engine import ExecutionEngine
from execkit.errors import InvalidOrderError, MarketClosedError
from execkit.model.order import OrderType, Side
from execkit.signals import TradingSignal
from execkit.testing.venues.binance import BinanceVenue

D = Decimal
BTC, ETH = "BTC/USDT", "ETH/USDT"
SWAP = "BTC/USDT:USDT"
SPOT = ({"prices": {BTC: D(42_000), ETH: D(2_000)}}, BTC, "spot")
USDM = ({"market": "usdm", "prices": {SWAP: D(42_000)}}, SWAP, "usdm")


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch):
    """Let a market's state be old at once, instead of after ten seconds."""
    monkeypatch.setattr("execkit.exchanges.binance.adapter._STATUS_LASTS", -1.0)


def coarser(venue, symbol, **changes):
    venue.core.add_instrument(attrs.evolve(venue.core.instrument(symbol), **changes))


@pytest.mark.parametrize(("options", "symbol", "market"), [SPOT, USDM], ids=["spot", "usdm"])
async def test_a_market_that_was_closed_at_the_start_opens(options, symbol, market):
    """An entry is refused while it is closed and taken once it is open; a reduction is the venue's to refuse."""
    async with BinanceVenue(**options) as venue:
        venue.core.set_halted(symbol, halted=True)
        adapter = adapter_of(venue, market=market)
        await adapter.connect()
        try:
            entry = order(symbol=symbol)
            with pytest.raises(MarketClosedError, match="not open for trading"):
                await adapter.place_order(entry)
            assert venue.calls("place") == []
            with pytest.raises(MarketClosedError, match="code"):
                await adapter.place_order(
                    order(
                        2,
                        symbol=symbol,
                        side=Side.SELL,
                        limit_price=D(44_000),
                        reduce_only=market == "usdm",
                    )
                )
            assert len(venue.calls("place")) == 1
            before = adapter.rules_version
            venue.core.set_halted(symbol, halted=False)
            assert (await adapter.place_order(entry)).client_order_id == entry.client_order_id
            assert adapter.rules_version > before
            assert (await adapter.instrument(symbol)).tradeable
        finally:
            await adapter.close()


@pytest.mark.parametrize(("options", "symbol", "market"), [SPOT, USDM], ids=["spot", "usdm"])
async def test_a_refusal_by_a_filter_brings_the_new_rules(options, symbol, market):
    """The next try is rounded by them, and the account's own fees stay."""
    async with on_the_wire(venue_options=options, market=market) as (venue, adapter):
        before = await adapter.instrument(symbol)
        coarser(venue, symbol, lot_size=D("0.1"), min_quantity=D("0.1"))
        with pytest.raises(InvalidOrderError, match="code -"):
            await adapter.place_order(order(symbol=symbol, quantity=D("0.05")))
        rules = await adapter.instrument(symbol)
        assert rules.lot_size == D("0.1")
        assert (rules.maker_fee, rules.taker_fee) == (before.maker_fee, before.taker_fee)
        assert adapter.rules_version == 1
        with pytest.raises(InvalidOrderError, match=r"no multiple of the lot size 0\.1"):
            await adapter.place_order(order(2, symbol=symbol, quantity=D("0.05")))
        assert len(venue.calls("place")) == 1


async def test_the_state_of_each_market_is_asked_for():
    """What is known of one says nothing of the other, and each is asked for no more than needed."""
    async with on_the_wire(venue_options=SPOT[0]) as (venue, adapter):
        asked = len(venue.calls("rules"))
        venue.core.set_halted(ETH, halted=True)
        assert (await adapter.market_status(BTC)).is_open
        assert not (await adapter.market_status(ETH)).is_open
        assert len(venue.calls("rules")) == asked + 2


async def test_a_known_state_is_not_asked_for_again(monkeypatch):
    """Two symbols in turn make no request each time."""
    monkeypatch.setattr("execkit.exchanges.binance.adapter._STATUS_LASTS", 60.0)
    async with on_the_wire(venue_options=SPOT[0]) as (venue, adapter):
        asked = len(venue.calls("rules"))
        for _ in range(5):
            await adapter.market_status(BTC)
            await adapter.market_status(ETH)
        assert len(venue.calls("rules")) == asked + 2


async def test_an_engine_learns_that_a_market_has_opened(tmp_path):
    """What it was told at the start is not for ever."""
    async with BinanceVenue() as venue:
        venue.core.set_halted(BTC, halted=True)
        async with ExecutionEngine(adapter_of(venue), journal=tmp_path / "j.db") as engine:
            signal = {"symbol": BTC, "side": Side.BUY, "strength": 80, "confluence": 4}
            assert not (await engine.submit(TradingSignal(**signal))).filled
            venue.core.set_halted(BTC, halted=False)
            assert (await engine.submit(TradingSignal(**signal))).filled
            await engine.desk.keeper.idle()
            assert engine.book.orders.open_reductions(BTC)


async def test_an_engine_rounds_by_the_new_rules(tmp_path):
    """After the venue has refused by a filter, the next order of the engine is rounded as the venue wants it now."""
    async with BinanceVenue() as venue:
        adapter = adapter_of(venue)
        async with ExecutionEngine(adapter, journal=tmp_path / "j.db") as engine:
            assert (await engine.instrument(BTC)).lot_size < D("0.001")
            coarser(venue, BTC, lot_size=D("0.001"), min_quantity=D("0.001"))
            with pytest.raises(InvalidOrderError, match="code"):
                await adapter.place_order(
                    order(type=OrderType.MARKET, limit_price=None, quantity=D("0.00123"))
                )
            assert (await engine.instrument(BTC)).lot_size == D("0.001")
