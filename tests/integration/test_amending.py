"""Changing an entry that rests: its new terms are held to the limits of a new order; in virtual time."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    ExecKitError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import MemoryJournal
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import (
    OperatorActed,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.model.signal import TradingSignal
from execkit.model.ticket import RiskStamp
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


class Room:
    """One engine with one entry that rests: 0.1 BTC at 40,000, stop at 39,500, the market at 42,000."""

    def __init__(self, clock, *, limits=None, handlers=None, collar=D(5), **venue):
        self.clock = clock
        self.venue = MockExchange(
            clock=clock,
            instruments=[
                Instrument(
                    symbol=BTC,
                    base="BTC",
                    quote="USDT",
                    min_notional=D(5),
                    taker_fee=venue.get("taker_fee", D(0)),
                )
            ],
            prices={BTC: D(42_000)},
            balances={"USDT": D(100_000)},
            **({"taker_fee": D(0), "maker_fee": D(0)} | venue),
        )
        self.sent = []
        self.failure = None
        self.takes = 0
        send = self.venue.amend_order

        async def amend_order(*args, **values):
            self.sent.append(self.engine.account.reserved)
            await asyncio.sleep(self.takes)
            if self.failure is not None:
                raise self.failure
            return await send(*args, **values)

        self.venue.amend_order = amend_order
        if handlers is None:
            handlers = [
                RiskManagementHandler(
                    limits or RiskLimits.engine(max_stop_distance_pct=D(3)),
                    price_collar_pct=max(collar, D(5)),
                )
            ]
        chain = [ValidationHandler(max_move_pct=D(5), price_collar_pct=collar), *handlers]
        chain += [OrderExecutorHandler(order_timeout=None), ReconciliationHandler()]
        self.journal = MemoryJournal()
        self.pipeline = ExecutionPipeline(chain, unchecked=not handlers)
        self.engine = self.make()

    def make(self):
        return ExecutionEngine(
            self.venue, journal=self.journal, clock=self.clock, pipeline=self.pipeline
        )

    async def rest(self, **changes):
        values = {
            "side": Side.BUY,
            "quantity": D("0.1"),
            "limit_price": D(40_000),
            "stop_loss": D(39_500),
            "take_profit": D(44_000),
        }
        result = await self.engine.submit(
            TradingSignal(symbol=BTC, confluence=4, **(values | changes))
        )
        self.order = self.engine.orders[result.client_order_ids[-1]]
        assert self.order.state is OrderState.ACCEPTED, result
        return self.order

    async def amend(self, **changes):
        return await self.engine.amend(self.order, **changes)

    async def is_refused(self, text, **changes):
        """Expect a refusal, and that neither the venue nor the books have changed."""
        terms = (self.order.limit_price, self.order.quantity, self.order.state)
        sent = len(self.sent)
        with pytest.raises(ExecKitError, match=text):
            await self.amend(**changes)
        assert (self.order.limit_price, self.order.quantity, self.order.state) == terms
        assert len(self.sent) == sent, "nothing was sent"

    def at_venue(self):
        (report,) = [o for o in self.venue.core.open_orders() if o.side is Side.BUY]
        return report.limit_price, report.quantity

    async def move(self, price):
        self.venue.feed_quote(Quote(BTC, D(price), D(price), self.clock.now(), last=D(price)))
        await self.clock.sleep_until(self.clock.now() + timedelta(seconds=2))


def play(body, rest=None, **options):
    async def main(clock):
        room = Room(clock, **options)
        await room.engine.start()
        try:
            await room.rest(**(rest or {}))
            await body(room)
        finally:
            await room.engine.stop()

    run_virtual(main)


def test_a_lower_price_and_a_smaller_size():
    """The venue has the new terms, the engine too, and what was reserved follows the quantity."""

    async def body(room):
        order = await room.amend(limit_price=D("39_900.5"), quantity=D("0.04"))
        assert order is room.order
        assert room.at_venue() == (D("39_900.5"), D("0.04"))
        assert (order.limit_price, order.quantity) == (D("39_900.5"), D("0.04"))
        assert room.engine.account.reserved == D("0.04") * 40_000, "never cheaper than was approved"
        (acted,) = [e.record for e in room.journal.entries if isinstance(e.record, OperatorActed)]
        assert (acted.command, acted.actor) == ("amend", "operator")
        assert acted.arguments == {"order": order.client_order_id}
        await room.move(39_900)
        assert order.state is OrderState.FILLED
        assert room.engine.positions[BTC].quantity == D("0.04")
        assert room.engine.book.working_stop(BTC).quantity == D("0.04")

    play(body)


def test_a_higher_price_is_reserved_before_it_is_sent():
    """Chasing the price: cash is claimed at the new limit, fee included, from before the request leaves."""

    async def body(room):
        assert room.engine.account.reserved == D("4004.000")
        await room.amend(limit_price=D(40_500))
        assert room.sent == [D("4054.0500")]
        assert room.engine.account.reserved == D("4054.0500")
        assert room.at_venue() == (40_500, D("0.1"))
        await room.amend(limit_price=D(40_100))
        assert room.engine.account.reserved == D("4054.0500"), "a claim never becomes cheaper"
        await room.engine.cancel(room.order)
        assert room.engine.account.reserved == 0

    play(body, taker_fee=D("0.001"))


def test_a_changed_price_is_known_after_a_restart():
    """What a changed order may cost is reserved at its new price by the next process."""

    async def body(room):
        await room.amend(limit_price=D(40_500))
        await room.engine.stop()
        old, room.journal = room.journal, MemoryJournal()
        for kept in old.entries:
            room.journal.append(kept.record, kept.at)
        room.engine = room.make()
        await room.engine.start()
        room.order = room.engine.orders[room.order.client_order_id]
        assert (room.order.limit_price, room.order.worst_price) == (40_500, 40_500)
        assert room.engine.account.reserved == 4_050

    play(body)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"limit_price": D(40_000) + D("0.001")}, "PRICE_OFF_TICK"),
        ({"limit_price": D(0)}, "NUMBER_INVALID: limit_price=0"),
        ({"limit_price": D("NaN")}, "NUMBER_INVALID"),
        ({"limit_price": D(39_000)}, "PRICE_OUTSIDE_COLLAR"),
        ({"limit_price": D(45_000)}, "PRICE_OUTSIDE_COLLAR"),
        ({"limit_price": D(40_750)}, "STOP_TOO_FAR: distance=1250, limit=1222.5"),
        ({"limit_price": D(40_720)}, ""),
        ({"quantity": D("0.2")}, "quantity: 0.2 must be above the 0 that are executed and at most"),
        ({"quantity": D(0)}, "NUMBER_INVALID: quantity=0"),
        ({"quantity": D("0.0001")}, "NOTIONAL_TOO_SMALL"),
        ({"quantity": D("0.0500001")}, "QUANTITY_OFF_LOT"),
    ],
)
def test_new_terms_are_held_to_the_rules_of_a_new_order(changes, text):
    """Tick, number, collar, stop distance, notional, lot; one price inside all limits passes."""

    async def body(room):
        if text:
            await room.is_refused(text, **changes)
        else:
            assert (await room.amend(**changes)).limit_price == changes["limit_price"]

    play(body)


def test_the_ratio_and_the_target_count_at_the_new_price():
    """A higher entry has less to gain and more to lose."""

    async def body(room):
        await room.is_refused("RISK_REWARD_TOO_LOW", limit_price=D(41_500))
        room.venue.feed_quote(Quote(BTC, D(44_100), D(44_100), room.clock.now()))
        await room.clock.sleep_until(room.clock.now() + timedelta(seconds=6))
        await room.is_refused("TAKE_PROFIT_WRONG_SIDE", limit_price=D(44_050))

    play(body, limits=RiskLimits.engine(max_stop_distance_pct=D(20)))


def test_a_higher_price_needs_the_cash_for_it():
    """What others have claimed is not there."""

    async def body(room):
        ledger = room.engine.desk.ledger
        ledger.reserve("other", "ETH/USDT", Side.BUY, D(1), D("95_950.01"), price=D(1))
        await room.is_refused(
            r"NOT_ENOUGH_BUYING_POWER: cost=4050\S*, available=4049.99", limit_price=D(40_500)
        )
        ledger.release("other")
        ledger.reserve("another", "ETH/USDT", Side.BUY, D(1), D(95_950), price=D(1))
        await room.amend(limit_price=D(40_500))
        assert room.engine.account.reserved == 100_000

    play(body)


def test_a_higher_price_is_held_to_the_size_limit_at_prices_of_now():
    """An order of 4.2 % of the equity when it was placed is 4.9 % by now."""

    async def body(room):
        await room.move(D(49_000))
        await room.clock.sleep_until(room.clock.now() + timedelta(minutes=2))
        await room.is_refused(
            r"NOTIONAL_TOO_LARGE: notional=4900\S*, limit=4500", limit_price=D(48_000)
        )

    limits = RiskLimits.engine(
        max_stop_distance_pct=D(20), min_risk_reward_ratio=D(1), max_size_pct=D("4.5")
    )
    play(body, rest={"take_profit": D(60_000)}, limits=limits)


@pytest.mark.parametrize("why", ["halted", "reducing", "blocked", "file"])
def test_a_halt_keeps_what_is_executed_sooner(why, tmp_path):
    """I15: under a halt an entry may be made smaller or later, never sooner."""

    async def body(room):
        engine = room.engine
        if why == "halted":
            await engine.halt("the news")
        elif why == "file":
            engine.desk.gateway.halt_file = tmp_path / "halt"
            engine.desk.gateway.halt_file.touch()
        elif why == "reducing":
            state_of(engine, why)
        else:
            block(engine)
        code = {"reducing": "TRADING_REDUCING", "blocked": "SYMBOL_BLOCKED"}.get(
            why, "TRADING_HALTED"
        )
        await room.is_refused(code, limit_price=D(40_100))
        await room.amend(limit_price=D(39_950), quantity=D("0.05"))
        assert room.at_venue() == (39_950, D("0.05"))

    play(body)


def state_of(engine, state):
    engine.desk.recorder.record(
        TradingStateChanged(state=TradingState(state), cause="a test", actor="test")
    )


def block(engine):
    engine.desk.recorder.record(SymbolBlocked(symbol=BTC, blocked=True, cause="a test"))


def test_a_halt_that_comes_while_it_waits_for_its_turn():
    """The change waits for the venue's pause; what was decided meanwhile counts, and nothing leaves."""

    async def body(room):
        room.engine.desk.gateway.pace.note(RateLimitError("slow", retry_after=timedelta(seconds=5)))
        waiting = asyncio.ensure_future(room.amend(limit_price=D(40_100)))
        await room.clock.sleep_until(room.clock.now() + timedelta(seconds=1))
        await room.engine.halt("the news")
        with pytest.raises(ExecKitError, match="TRADING_HALTED"):
            await waiting
        assert room.order.state is OrderState.ACCEPTED
        assert room.at_venue() == (40_000, D("0.1"))
        assert room.sent == []

    play(body)


def test_two_changes_at_once_are_one_and_a_refusal():
    """The second is told that the first is under way, and reserves nothing."""

    async def body(room):
        room.takes = 1
        await room.clock.sleep_until(
            room.clock.now() + timedelta(seconds=6)
        )  # both ask for a price
        both = await asyncio.gather(
            room.amend(limit_price=D(40_100)),
            room.amend(limit_price=D(40_400)),
            return_exceptions=True,
        )
        assert both[0] is room.order
        assert isinstance(both[1], ExecKitError)
        assert "is pending_amend; only an order that rests is changed" in str(both[1])
        assert room.at_venue() == (40_100, D("0.1"))
        assert room.engine.account.reserved == 4_010

    play(body)


def test_what_cannot_be_changed_says_why():
    """Stops are the keeper's, closed orders are over, and nothing to change is no change."""

    async def body(room):
        engine, order = room.engine, room.order
        with pytest.raises(ConfigurationError, match="state limit_price, quantity or both"):
            await engine.amend(order)
        with pytest.raises(ConfigurationError, match=r"limit_price: 40100\.0 is not a Decimal"):
            await engine.amend(order, limit_price=40100.0)
        with pytest.raises(ExecKitError, match="'nobody' is not among the orders"):
            await engine.amend("nobody", limit_price=D(1))
        await room.move(39_900)
        stop = engine.book.working_stop(BTC)
        assert stop.role is OrderRole.STOP
        with pytest.raises(ExecKitError, match="is a stop; only entries"):
            await engine.amend(stop, limit_price=D(1))
        with pytest.raises(ExecKitError, match="is filled; only an order that rests"):
            await engine.amend(order.client_order_id, limit_price=D(39_000))

    play(body)


def test_an_order_that_waits_for_its_trigger_is_not_changed():
    """Only limit orders are; a stop entry is cancelled and sent anew."""

    async def body(room):
        with pytest.raises(ExecKitError, match="is a stop order; only limit orders are changed"):
            await room.amend(quantity=D("0.05"))

    entry = {"limit_price": None, "stop_price": D(43_000), "stop_loss": D(42_000)}
    play(body, rest=entry | {"take_profit": D(46_000)})


def test_nothing_is_executed_sooner_while_the_price_runs():
    """The collar over time holds for a change as for a new order."""

    async def body(room):
        for price in (D(42_300), D(40_150)):
            await room.clock.sleep_until(room.clock.now() + timedelta(seconds=3))
            room.engine.desk.quotes.see(Quote(BTC, price, price, room.clock.now(), last=price))
        await room.is_refused(r"PRICE_MOVED: moved_pct=5\.", limit_price=D(40_100))
        await room.amend(limit_price=D(39_950))

    play(body)


def test_without_a_price_nothing_is_executed_sooner():
    """Nobody can say what it would be held to; smaller is always possible."""

    async def body(room):
        async def blind(symbol):
            raise ExchangeUnavailableError("blind")

        room.venue.ticker = blind
        await room.clock.sleep_until(room.clock.now() + timedelta(minutes=1))
        await room.is_refused("QUOTE_STALE", limit_price=D(40_100))
        await room.amend(quantity=D("0.05"))
        assert room.at_venue() == (40_000, D("0.05"))

    play(body)


def test_a_lower_price_does_not_pass_the_stop():
    """An entry below its own stop-loss would be taken out as soon as it is executed."""

    async def body(room):
        await room.amend(limit_price=D(39_950))
        await room.is_refused("STOP_LOSS_WRONG_SIDE", limit_price=D(39_500))
        await room.is_refused("STOP_LOSS_WRONG_SIDE", limit_price=D(39_400), quantity=D("0.05"))

    # Within the collar of the mid, so that it is the stop that refuses.
    play(body, handlers=None, collar=D(10))


def test_nothing_is_executed_sooner_while_the_venue_cannot_be_read():
    """The books may be wrong: as for a new order."""

    async def body(room):
        room.engine.desk.reconciler.is_blind = True
        await room.is_refused("NOT_RECONCILED", limit_price=D(40_100))
        await room.amend(limit_price=D(39_950))
        room.engine.desk.reconciler.is_blind = False

    play(body)


def test_nothing_is_executed_sooner_after_the_days_loss():
    """The limit of the risk handler; noticed here, it trips."""

    async def body(room):
        room.engine.book.cash["USDT"] = D(96_999)
        await room.is_refused("DAILY_LOSS_REACHED: loss=3001, limit=3000", limit_price=D(40_100))
        assert room.engine.trading_state is TradingState.REDUCING

    play(body)


def test_the_tighter_collar_of_the_chain_counts():
    """Validation may be stricter than the risk handler."""

    async def body(room):
        await room.is_refused("PRICE_OUTSIDE_COLLAR.*limit_pct=2", limit_price=D(41_100))

    play(body, collar=D(2), rest={"limit_price": D(41_500), "stop_loss": D(41_000)})


def test_a_venue_that_changes_nothing():
    """It is said what to do instead."""

    async def body(room):
        await room.is_refused("changes no resting orders; cancel it", limit_price=D(39_990))

    play(body, capabilities=Capabilities(amend=False))


def test_a_refusal_of_the_venue_is_told():
    """The order rests as it was."""

    async def body(room):
        room.failure = OrderRejectedError("not this one")
        with pytest.raises(ExecKitError, match="stays as it is: not this one"):
            await room.amend(limit_price=D(39_990))
        assert room.at_venue() == (40_000, D("0.1"))
        assert room.order.state is OrderState.ACCEPTED

    play(body)


def test_a_chain_without_our_risk_handler():
    """It can make an entry later or smaller; sooner only where the chain is unchecked on purpose."""

    class OwnRisk:
        stamps_risk = True
        place = "before"

        async def __call__(self, ticket, call_next):
            stamp = RiskStamp(
                ticket.signal_id, ticket.symbol, ticket.side, ticket.quantity, D(50_000)
            )
            return await call_next(ticket.evolve(stamp=stamp))

    async def body(room):
        await room.is_refused("NOT_STAMPED", limit_price=D(40_001))
        await room.amend(limit_price=D(39_999))
        assert room.at_venue() == (39_999, D("0.1"))

    play(body, handlers=[OwnRisk()])

    async def unchecked(room):
        await room.amend(limit_price=D(40_001))
        assert room.at_venue() == (40_001, D("0.1"))

    play(unchecked, handlers=[])


def test_a_short_entry_is_sooner_at_a_lower_price():
    """The sides mirror each other."""

    async def body(room):
        await room.engine.cancel(room.order)
        await room.rest(
            side=Side.SELL, limit_price=D(43_000), stop_loss=D(43_500), take_profit=D(40_000)
        )
        await room.engine.halt("the news")
        with pytest.raises(ExecKitError, match="TRADING_HALTED"):
            await room.amend(limit_price=D(42_900))
        await room.amend(limit_price=D(43_100))
        assert room.order.limit_price == 43_100

    play(body, limits=RiskLimits.engine(allow_short=True), allow_short=True)
