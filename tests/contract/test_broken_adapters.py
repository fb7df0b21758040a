"""Each way in which an adapter endangers money fails the case that is there for it."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import msgspec
import pytest

from execkit.errors import (
    InvalidOrderError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.base import MarketStatus
from execkit.model.instrument import Instrument
from execkit.model.order import Fill, OrderState
from execkit.testing.contract import AdapterContract, run_contract
from execkit.testing.control import MockControl, VenueControl
from execkit.testing.mock import MockExchange
from execkit.testing.rules import CASES

SECRET = "k3y-0f-the-account"


def evolve(report, **changes):
    return msgspec.structs.replace(report, **changes)


class Plain(MockExchange):
    """Nothing is wrong with it."""


class ReadsTimeoutAsRefusal(MockExchange):
    """The most expensive mistake: the order may live."""

    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except OrderStatusUnknownError as error:
            raise OrderRejectedError(str(error)) from error


class ReadsTimeoutAsUnsent(MockExchange):
    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except OrderStatusUnknownError as error:
            raise RateLimitError(str(error)) from error


class RetriesByItself(MockExchange):
    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except OrderStatusUnknownError:
            return await super().place_order(request)


class BelievesAnyAnswer(MockExchange):
    """Fills in what the venue left out, or takes another order's answer for its own."""

    async def place_order(self, request):
        report = await super().place_order(request)
        return evolve(
            report,
            client_order_id=request.client_order_id,
            venue_order_id=report.venue_order_id or "made-up",
        )


class GuessesUnknownStatus(MockExchange):
    async def get_order(self, symbol, **ids):
        report = await super().get_order(symbol, **ids)
        if report.status is OrderState.IN_DOUBT:
            return evolve(report, status=OrderState.CANCELLED)
        return report


class LooksUpUnknownOrders(MockExchange):
    """Makes up a cancelled order where the venue knows none."""

    async def get_order(self, symbol, **ids):
        try:
            return await super().get_order(symbol, **ids)
        except OrderNotFoundError:
            return evolve(next(iter(self.made)), client_order_id=ids["client_order_id"])

    async def place_order(self, request):
        report = await super().place_order(request)
        self.made = [report]
        return report

    made = ()


class EmptyWhenBlind(MockExchange):
    """Reads a server error as "no open orders"."""

    async def open_orders(self, symbol=None):
        try:
            return await super().open_orders(symbol)
        except Exception:
            return []


class FlatWhenBlind(MockExchange):
    async def positions(self):
        try:
            return await super().positions()
        except Exception:
            return []


class NotFoundWhenBlind(MockExchange):
    async def get_order(self, symbol, **ids):
        try:
            return await super().get_order(symbol, **ids)
        except Exception as error:
            raise OrderNotFoundError("not found") from error


class CancelsFilledOrders(MockExchange):
    """Reports CANCELLED whatever the venue says."""

    async def cancel_order(self, symbol, **ids):
        try:
            return await super().cancel_order(symbol, **ids)
        except OrderNotFoundError:
            report = await self.get_order(symbol, **ids)
            return evolve(report, status=OrderState.CANCELLED)


class PlainRefusalOfDuplicates(MockExchange):
    async def place_order(self, request):
        if request.client_order_id in self.core.by_client:
            raise InvalidOrderError("duplicate")
        return await super().place_order(request)


class AcceptsDuplicates(MockExchange):
    async def place_order(self, request):
        if request.client_order_id in self.core.by_client:
            del self.core.by_client[request.client_order_id]
        return await super().place_order(request)


class SwallowsRetryAfter(MockExchange):
    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except RateLimitError as error:
            raise RateLimitError(str(error)) from error


class CancelsForeignOrders(MockExchange):
    async def cancel_all(self, symbol=None):
        return [
            await self.cancel_order(o.symbol, client_order_id=o.client_order_id)
            for o in await self.open_orders(symbol)
        ]


class OneRefusalForAll(MockExchange):
    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except (InvalidOrderError, RateLimitError):
            raise
        except OrderRejectedError as error:
            raise OrderRejectedError(str(error)) from error


class FloatBalances(MockExchange):
    async def balances(self):
        return {
            asset: evolve(balance, total=float(balance.total), free=float(balance.free))
            for asset, balance in (await super().balances()).items()
        }


class NaiveTimes(MockExchange):
    async def fills_since(self, since, symbol=None):
        return [
            evolve(f, at=f.at.replace(tzinfo=None))
            for f in await super().fills_since(since, symbol)
        ]


class LosesFees(MockExchange):
    async def fills_since(self, since, symbol=None):
        return [evolve(fill, fee_asset="") for fill in await super().fills_since(since, symbol)]


class RepeatsTradeIds(MockExchange):
    async def fills_since(self, since, symbol=None):
        return [evolve(fill, trade_id="1") for fill in await super().fills_since(since, symbol)]


class IgnoresSince(MockExchange):
    async def fills_since(self, since, symbol=None):
        return await super().fills_since(since - timedelta(days=3), symbol)


class StreamStartsTooLate(MockExchange):
    """Subscribes when the first item is asked for, so the first news is lost."""

    async def order_updates(self):
        async for update in super().order_updates():
            yield update


class SilentStream(MockExchange):
    async def order_updates(self):
        await asyncio.Event().wait()
        yield Fill


class HidesStreamLoss(MockExchange):
    """Stops delivering without a word, as some client libraries do."""

    async def _endlessly(self, updates):
        try:
            async for update in updates:
                yield update
        except ConnectionError:
            await asyncio.Event().wait()

    def order_updates(self):
        return self._endlessly(super().order_updates())


class TellsSecret(MockExchange):
    def __repr__(self):
        return f"TellsSecret(key={SECRET!r})"


class RaisesOnSecondClose(MockExchange):
    async def close(self):
        if self._is_closed:
            raise RuntimeError("closed already")
        await super().close()


class ChangesAccount(MockExchange):
    looks = 0

    @property
    def account(self):
        self.looks += 1
        return f"session-{self.looks}"


class EverythingIsListed(MockExchange):
    async def instrument(self, symbol):
        return self.core.instrument("BTC/USDT")


class UntradeableMarket(MockExchange):
    async def instrument(self, symbol):
        return attrs.evolve(await super().instrument(symbol), tradeable=False)


class NoRoomForOurIds(MockExchange):
    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, client_id_length=20)


class AlwaysClosed(MockExchange):
    async def market_status(self, symbol):
        return MarketStatus(is_open=False)


class CrossedQuotes(MockExchange):
    """Bid and ask in each other's place."""

    async def ticker(self, symbol):
        return evolve(await super().ticker(symbol), bid=Decimal(43_000))

    async def watch_quotes(self, symbols):
        async for quote in super().watch_quotes(symbols):
            yield evolve(quote, bid=Decimal(43_000))


class IgnoresReduceOnly(MockExchange):
    async def place_order(self, request):
        return await super().place_order(evolve(request, reduce_only=False))


class SendsWrongQuantity(MockExchange):
    async def place_order(self, request):
        return await super().place_order(evolve(request, quantity=request.quantity * 2))


class RestsImmediateOrders(MockExchange):
    async def place_order(self, request):
        return await super().place_order(evolve(request, time_in_force="gtc"))


class TakesAnyPrice(MockExchange):
    async def place_order(self, request):
        if request.limit_price is not None:
            price = self.core.instrument(request.symbol).round_price(request.limit_price)
            request = evolve(request, limit_price=price)
        return await super().place_order(request)


class AlwaysSaysOpen(MockExchange):
    async def market_status(self, symbol):
        return MarketStatus(is_open=True)


class CountsFillsTwice(MockExchange):
    async def get_order(self, symbol, **ids):
        report = await super().get_order(symbol, **ids)
        return evolve(report, filled=report.filled * 2)


class ForgetsClosedOrders(MockExchange):
    async def get_order(self, symbol, **ids):
        report = await super().get_order(symbol, **ids)
        if report.status is OrderState.CANCELLED and ids.get("venue_order_id") is None:
            raise OrderNotFoundError("only open orders are kept")
        return report


BROKEN = {
    ReadsTimeoutAsRefusal: {"ac500_answer_lost"},
    ReadsTimeoutAsUnsent: {"ac500_answer_lost"},
    RetriesByItself: {"ac560_no_hidden_retry"},
    BelievesAnyAnswer: {"ac520_malformed_answer", "ac530_answer_of_another_order"},
    GuessesUnknownStatus: {"ac540_unknown_status"},
    LooksUpUnknownOrders: {"ac240_unknown_order"},
    EmptyWhenBlind: {"ac570_failed_read_is_no_answer"},
    FlatWhenBlind: {"ac570_failed_read_is_no_answer"},
    NotFoundWhenBlind: {"ac570_failed_read_is_no_answer"},
    CancelsFilledOrders: {"ac230_cancel_of_filled_order"},
    PlainRefusalOfDuplicates: {"ac250_duplicate_client_id"},
    AcceptsDuplicates: {"ac250_duplicate_client_id"},
    SwallowsRetryAfter: {"ac450_rate_limit"},
    CancelsForeignOrders: {"ac270_foreign_orders"},
    OneRefusalForAll: {"ac430_insufficient_balance", "ac440_market_closed"},
    FloatBalances: {"ac700_exact_values"},
    NaiveTimes: {"ac700_exact_values"},
    LosesFees: {"ac320_fees"},
    RepeatsTradeIds: {"ac310_fills_since"},
    IgnoresSince: {"ac310_fills_since"},
    StreamStartsTooLate: {"ac600_stream_tells_acknowledgement"},
    SilentStream: {"ac600_stream_tells_acknowledgement", "ac610_stream_tells_fills"},
    HidesStreamLoss: {"ac630_stream_loss_shows"},
    TellsSecret: {"ac730_no_secret_shows"},
    RaisesOnSecondClose: {"ac740_close_twice"},
    ChangesAccount: {"ac720_account_is_stable"},
    EverythingIsListed: {"ac020_unknown_symbol"},
    UntradeableMarket: {"ac010_instrument_rules"},
    NoRoomForOurIds: {"ac030_capabilities"},
    AlwaysClosed: {"ac040_market_status"},
    CrossedQuotes: {"ac640_quote_stream", "ac710_quote_is_sane"},
    IgnoresReduceOnly: {"ac670_reduce_only_never_opens"},
    SendsWrongQuantity: {"ac110_limit_order_rests", "ac100_market_order"},
    RestsImmediateOrders: {"ac140_ioc_never_rests", "ac150_fok_never_rests"},
    TakesAnyPrice: {"ac400_price_off_tick"},
    AlwaysSaysOpen: {"ac440_market_closed"},
    CountsFillsTwice: {"ac300_partial_fill"},
    ForgetsClosedOrders: {"ac210_lookup_closed_by_client_id"},
}


class SecretControl(MockControl):
    secrets = (SECRET,)


def contract_for(kind):
    class Contract(AdapterContract):
        virtual_time = True
        seed = 1

        async def make_adapter(self):
            return kind(clock=self.clock)

        def make_control(self, adapter):
            return SecretControl(adapter)

    return Contract()


def verdicts(kind):
    return {result.case.name: result for result in run_contract(contract_for(kind))}


def test_a_right_adapter_passes_every_case():
    """With a control that can do everything, nothing is skipped and nothing fails."""
    found = verdicts(Plain)
    assert {name: result for name, result in found.items() if result.verdict != "pass"} == {}
    assert len(found) == len(CASES) >= 45


@pytest.mark.parametrize(("kind", "expected"), BROKEN.items(), ids=[k.__name__ for k in BROKEN])
def test_a_broken_adapter_fails_the_case_that_is_there_for_it(kind, expected):
    """The case names the rule that is broken, and the text says how it shows."""
    found = verdicts(kind)
    failed = {name for name, result in found.items() if result.verdict == "fail"}
    assert expected <= failed, {name: found[name] for name in expected - failed}
    assert all(found[name].detail for name in failed)


def test_cases_are_numbered_with_gaps_and_state_a_rule():
    """Numbers ascend, none is used twice, and each case has a sentence."""
    numbers = [int(case.name[2:5]) for case in CASES]
    assert numbers == sorted(set(numbers))
    assert all(case.name.startswith("ac") and case.rule.endswith(".") for case in CASES)


def test_a_venue_without_control_skips_and_says_why():
    """What cannot be tried is not called passed."""

    class Contract(AdapterContract):
        virtual_time = True

        async def make_adapter(self):
            return Plain(clock=self.clock)

        def make_control(self, adapter):
            return VenueControl()

    results = {result.case.name: result for result in run_contract(Contract())}
    assert results["ac500_answer_lost"].verdict == "skip"
    assert results["ac500_answer_lost"].detail == "the control cannot do drop_answer"
    assert results["ac110_limit_order_rests"].verdict == "pass"


def test_every_case_can_fail():
    """No case is decoration: for each there is an adapter that fails it."""
    failed = {
        name
        for kind in BROKEN
        for name, result in verdicts(kind).items()
        if result.verdict == "fail"
    }
    assert {case.name for case in CASES} - failed == set()


def test_an_account_that_can_pay_for_everything_skips_the_case():
    """With a largest quantity that the account can pay, nothing is unaffordable."""

    class Contract(AdapterContract):
        virtual_time = True

        async def make_adapter(self):
            rules = Instrument.default("BTC/USDT", max_quantity=Decimal(1))
            return MockExchange(instruments=[rules], clock=self.clock)

    (result,) = run_contract(Contract(), only=lambda case: case.name.startswith("ac430"))
    assert result.verdict == "skip"
    assert "largest order" in result.detail
