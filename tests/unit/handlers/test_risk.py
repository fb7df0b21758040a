"""RiskManagementHandler: entries are sized, held to every limit, reserved and stamped; reductions pass."""

from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
from msgspec.structs import replace

from execkit.errors import ConfigurationError, PipelineError
from execkit.handlers.risk import RiskManagementHandler
from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Timeframe
from execkit.model.order import OrderReport, OrderRole, OrderState, OrderType, Side
from execkit.model.position import Target
from execkit.model.records import Alarm, TradingState, TradingStateChanged
from execkit.model.ticket import RiskStamp
from execkit.orders.positions import WINDOW
from execkit.protection.policy import HALF_AND_HALF, PartialExit, ProtectionPolicy
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    VolatilityTarget,
)
from execkit.risk.stops import LevelStop
from execkit.virtual_time import run_virtual

D = Decimal
SHORT = RiskLimits(allow_short=True)


def make_instrument(**changes):
    return Instrument.default(changes.pop("symbol", "BTC/USDT"), **changes)


@pytest.fixture
def ask(desk, make_ticket, judge):
    """Return a function that sends a signal through the handler on a desk worth 10,000."""

    def run(limits=None, *, sizing=None, stop=None, handler=None, **signal):
        handler = handler or RiskManagementHandler(limits, sizing=sizing, stop=stop)
        ticket = make_ticket(desk, **signal)
        verdict = judge(handler, desk, ticket)
        claim = desk.ledger._claims.get(ticket.signal_id)
        assert claim is None or not claim.held, "every hold is released"
        return verdict

    return run


# -- an entry that passes ------------------------------------------------------------------------------


def test_the_default_entry(ask):
    """2 % of 10,000 at the mid of 100 is 2 units, stop 2 % below, target 2 R above, stamped at ask + 5 %."""
    passed = ask().passed
    assert passed.quantity == 2
    assert passed.stop_loss == 98
    assert passed.take_profit == 104
    assert passed.stamp == RiskStamp("s1", "BTC/USDT", Side.BUY, D(2), D("105.105"))
    assert passed.is_covered
    assert passed.notes == ()


def test_the_default_short(ask):
    """The mirror image; a sale's notional is bounded by the mid, because it cannot execute better than that."""
    passed = ask(SHORT, side=Side.SELL).passed
    assert (passed.quantity, passed.stop_loss, passed.take_profit) == (2, 102, 96)
    assert passed.stamp.worst_price == 100


def test_the_readme_example(desk, ask):
    """The ten lines of the README: bought at 42,000 with a stop at 41,500 and a target of 43,000."""
    quote = desk.quote(bid="42000", ask="42000")
    levels = {"stop_loss": D(41_500), "take_profit": D(43_000)}
    passed = ask(quote=quote, strength=80, confluence=4, **levels).passed
    assert passed.quantity == D("0.00476")
    assert (passed.stop_loss, passed.take_profit) == (41_500, 43_000)


@pytest.mark.parametrize(
    ("side", "terms", "worst"),
    [
        (Side.BUY, {}, "105.105"),
        (Side.BUY, {"limit_price": D(99)}, "99"),
        (Side.BUY, {"stop_price": D(102)}, "107.1"),
        (Side.BUY, {"stop_price": D(102), "limit_price": D(103)}, "103"),
        (Side.SELL, {}, "100"),
        (Side.SELL, {"limit_price": D(101)}, "101"),
        (Side.SELL, {"limit_price": D(98)}, "100"),
        (Side.SELL, {"stop_price": D(98)}, "102.9"),
    ],
)
def test_worst_price(ask, side, terms, worst):
    """The stamp's price bounds the notional of each kind of order."""
    passed = ask(SHORT, side=side, **terms).passed
    assert passed.stamp.worst_price == D(worst)
    assert passed.is_covered


def test_the_reservation_is_held_while_the_chain_runs(desk, make_ticket):
    """Inside it counts at the mid, its cash at the worst price with fee; afterwards only a live order counts."""
    handler = RiskManagementHandler()
    handler.bind(desk)
    seen = []

    async def call_next(ticket):
        ledger = desk.ledger
        seen.append((ledger.exposure, ledger.reserved_cash, set(ledger.pending_symbols)))
        desk.intend("o1", quantity="2", signal_id="s1", reservation_id="s1")
        desk.fill("o1", "0.5")
        seen.append((ledger.exposure, ledger.reserved_notional_of("BTC/USDT")))
        raise RuntimeError

    ticket = make_ticket(desk, instrument=make_instrument(taker_fee=D("0.001")))
    with pytest.raises(RuntimeError):
        run_virtual(lambda _clock: handler(ticket, call_next))
    cash = 2 * D("105.105") * D("1.001")
    assert seen == [(200, cash, {"BTC/USDT"}), (150, 150)]
    assert desk.ledger.exposure == 150, "the order is live, whatever became of the chain"


def test_a_fee_in_base_reserves_no_cash(desk, make_ticket, judge):
    """A buyer who pays in base needs no quote for the fee."""
    held = []

    class Spy(RiskManagementHandler):
        def _approve(self, ticket, desk):
            approved = super()._approve(ticket, desk)
            held.append(desk.ledger.reserved_cash)
            return approved

    instrument = make_instrument(taker_fee=D("0.001"), fee_in_base=True)
    judge(Spy(), desk, make_ticket(desk, instrument=instrument))
    assert held == [2 * D("105.105")]


def test_it_must_be_bound(desk, make_ticket):
    """Without the engine's services it cannot judge, and says so."""
    with pytest.raises(PipelineError, match="not bound"):
        run_virtual(lambda _clock: RiskManagementHandler()(make_ticket(desk), None))


# -- sizing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizing", "quantity"),
    [
        (PercentOfEquity(D("0.5")), "0.5"),
        (FixedNotional(D("333.333")), "3.33333"),
        (FixedQuantity(D("1.5")), "1.5"),
        # 0.05 % of 10,000 lost over 2 a unit
        (RiskPerTrade(D("0.05")), "2.5"),
        (lambda inputs: inputs.strength / 100, "0.8"),
    ],
)
def test_sizing_methods(ask, sizing, quantity):
    """Each method sizes the order; a plain function does as well as a class."""
    assert ask(sizing=sizing, strength=80).passed.quantity == D(quantity)


def test_sizing_follows_the_limits(ask):
    """`size_pct` is the size of a signal without quantity; a limit price sizes at its own price."""
    assert ask(RiskLimits(size_pct=D(1))).passed.quantity == 1
    assert ask(limit_price=D(98)).passed.quantity == D("2.04081")


@pytest.mark.parametrize("answer", [D("NaN"), D("Infinity"), 2.0, 2, None])
def test_a_sizing_function_that_returns_rubbish_raises(ask, answer):
    """The pipeline turns it into a denial; no order is made of it (I29)."""
    with pytest.raises(ConfigurationError, match="sizing: "):
        ask(sizing=lambda _inputs: answer)


@pytest.mark.parametrize(
    ("prepare", "limits", "quantity", "cause"),
    [
        ("none", {"size_pct": D(6)}, "5", "max_size_pct"),
        ("none", {"size_pct": D(4), "max_position_pct": D(3)}, "3", "max_position_pct"),
        ("other", {"size_pct": D(4), "max_exposure_pct": D(23)}, "3", "max_exposure_pct"),
        ("poor", {}, "1.49850", "buying power"),
    ],
)
def test_a_size_is_cut_to_the_limits_and_traced(desk, ask, prepare, limits, quantity, cause):
    """What we sized ourselves shrinks to what is left, and the trace says why."""
    if prepare == "other":
        desk.hold("ETH/USDT", "20")
    if prepare == "poor":
        desk.fund(150)
    passed = ask(RiskLimits(**limits), equity=10_000).passed
    assert passed.quantity == D(quantity)
    assert passed.notes == (f"size capped by {cause}",)


@pytest.mark.parametrize(
    ("rules", "quantity", "cause"),
    [
        ({"max_quantity": D("1.5")}, "1.5", "the venue's largest quantity"),
        ({"market_max_quantity": D("1.25")}, "1.25", "the venue's largest quantity"),
        ({"max_notional": D("100.1")}, "1", "the venue's largest notional"),
    ],
)
def test_a_size_is_cut_to_the_venues_maxima(ask, rules, quantity, cause):
    """The venue's own limits shrink a size as well."""
    passed = ask(instrument=make_instrument(**rules)).passed
    assert passed.quantity == D(quantity)
    assert passed.notes == (f"size capped by {cause}",)


def test_too_little_left_names_the_limit(desk, ask):
    """A size cut below the venue's minimum is denied by the limit that cut it, at the least quantity."""
    desk.hold("ETH/USDT", "20")
    instrument = make_instrument(min_quantity=D("0.5"))
    denial = ask(RiskLimits(max_exposure_pct=D("20.4")), instrument=instrument).denial
    assert denial == Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure=2050, limit=2040)


def test_nothing_left_names_the_limit(desk, ask):
    """The same when the limit leaves nothing at all."""
    desk.hold("ETH/USDT", "20")
    denial = ask(RiskLimits(max_exposure_pct=D(20))).denial
    assert denial == Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure="2000.001", limit=2000)


def test_a_wish_below_the_venues_minimum(ask):
    """A small account wants less than the venue takes: the venue's rule is the reason."""
    instrument = make_instrument(min_notional=D(10))
    denial = ask(sizing=FixedNotional(D(9)), instrument=instrument).denial
    assert denial == Denial.of(DenialCode.NOTIONAL_TOO_SMALL, notional=D("9.009"), limit=10)


def test_a_wish_below_one_lot(ask):
    """Less than a lot is nothing."""
    denial = ask(sizing=FixedNotional(D("0.0001"))).denial
    assert denial == Denial.of(DenialCode.QUANTITY_TOO_SMALL, quantity=0, limit=D("0.00001"))


def test_without_equity_nothing_is_bought(ask):
    """A wiped-out account trades no more."""
    denial = ask(equity=-5).denial
    assert denial == Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional=D("0.001"), limit=0)


# -- a stated quantity: approved or denied, never changed ----------------------------------------------


@pytest.mark.parametrize(("quantity", "passes"), [("5", True), ("5.00001", False)])
def test_order_size_is_inclusive_at_the_mid(ask, quantity, passes):
    """5 % of 10,000 at the mid of 100 are exactly 5 units."""
    verdict = ask(quantity=D(quantity))
    if passes:
        assert verdict.passed.quantity == D(quantity)
    else:
        expected = Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional=D("500.001"), limit=500)
        assert verdict.denial == expected


@pytest.mark.parametrize(("quantity", "passes"), [("3", True), ("3.00001", False)])
def test_position_size_is_inclusive(ask, quantity, passes):
    """A position takes its share of the account and no more."""
    denial = ask(RiskLimits(max_position_pct=D(3)), quantity=D(quantity)).denial
    expected = Denial.of(DenialCode.POSITION_TOO_LARGE, position=D("300.001"), limit=300)
    assert denial == (None if passes else expected)


@pytest.mark.parametrize(("quantity", "passes"), [("4", True), ("4.00001", False)])
def test_exposure_counts_positions_orders_and_foreign_orders(desk, ask, quantity, passes):
    """10 units held at a mark of 110, 5 in flight at 100, 2 foreign at 50: 1700 of 2100 are taken."""
    desk.hold("ETH/USDT", "10")
    desk.book.marks["ETH/USDT"] = D(110)
    desk.intend("o-sol", "SOL/USDT", quantity="5")
    desk.ledger.set_foreign(
        [
            OrderReport(
                client_order_id="x",
                venue_order_id="1",
                symbol="ADA/USDT",
                side=Side.BUY,
                type=OrderType.LIMIT,
                quantity=D(2),
                status=OrderState.ACCEPTED,
                limit_price=D(50),
            )
        ]
    )
    denial = ask(RiskLimits(max_exposure_pct=D(21)), quantity=D(quantity), equity=10_000).denial
    expected = Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure=D("2100.001"), limit=2100)
    assert denial == (None if passes else expected)


@pytest.mark.parametrize(("quantity", "passes"), [("4", True), ("4.00001", False)])
def test_buying_power_is_inclusive_at_the_touch(desk, ask, quantity, passes):
    """4 units at the ask of 100.1 with 0.1 % fee cost 400.8004, beside 100 that are reserved."""
    desk.fund("500.8004")
    desk.intend("o-eth", "ETH/USDT", quantity="1")
    instrument = make_instrument(taker_fee=D("0.001"))
    denial = ask(quantity=D(quantity), instrument=instrument, equity=10_000).denial
    expected = Denial.of(
        DenialCode.NOT_ENOUGH_BUYING_POWER,
        cost=D("4.00001") * D("100.2001"),
        available=D("400.8004"),
    )
    assert denial == (None if passes else expected)


def test_a_short_needs_no_cash(desk, ask):
    """Shorts are bounded by size, position and exposure."""
    desk.fund(0)
    assert ask(SHORT, side=Side.SELL, quantity=D(5), equity=10_000).passed.quantity == 5


def test_a_stated_quantity_must_be_legal(ask):
    """Without a ValidationHandler the venue's rules are still checked, and no other reason is given."""
    instrument = make_instrument(min_notional=D(10))
    denial = ask(quantity=D("0.05"), instrument=instrument).denial
    assert denial == Denial.of(DenialCode.NOTIONAL_TOO_SMALL, notional=D("5.005"), limit=10)


@pytest.mark.parametrize("field", ["quantity", "limit_price", "stop_price"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "0", "-1", "1e400"])
def test_a_number_spoiled_on_the_way_is_refused(desk, make_ticket, judge, field, value):
    """A handler of the application may put rubbish into a ticket (N1, N2, N17)."""
    ticket = replace(make_ticket(desk), **{field: D(value)})
    denial = judge(RiskManagementHandler(), desk, ticket).denial
    text = str(D(value))
    assert denial == Denial.of(
        DenialCode.NUMBER_INVALID, **{field: text}, limit="above 0, below 1e15"
    )


def test_a_spoiled_quote_is_refused(desk, ask):
    """NaN passes no limit (N1)."""
    denial = ask(quote=replace(desk.quote(), ask=D("NaN"))).denial
    assert denial.code is DenialCode.NUMBER_INVALID


def test_another_currency_cannot_be_compared(ask):
    """A limit in USDT says nothing of a price in EUR (N15)."""
    instrument = Instrument.default("BTC/EUR")
    denial = ask(symbol="BTC/EUR", instrument=instrument).denial
    assert denial == Denial.of(DenialCode.CURRENCY_MISMATCH, quote="EUR", account="USDT")


# -- stop-loss, target, risk/reward --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "stop_loss", "limit"),
    [
        (Side.BUY, "98", None),
        (Side.BUY, "97.99", 2),
        (Side.SELL, "102", None),
        (Side.SELL, "102.01", 2),
    ],
)
def test_the_callers_stop_is_denied_beyond_two_percent(ask, side, stop_loss, limit):
    """2 % of the entry price are allowed, a tick more is not."""
    denial = ask(SHORT, side=side, stop_loss=D(stop_loss)).denial
    expected = Denial.of(DenialCode.STOP_TOO_FAR, distance="2.01", limit="2", limit_pct=2)
    assert denial == (None if limit is None else expected)


def test_a_stop_on_the_wrong_side_is_denied(ask):
    """Also without a ValidationHandler before it."""
    denial = ask(stop_loss=D(100)).denial
    assert denial == Denial.of(DenialCode.STOP_LOSS_WRONG_SIDE, stop_loss=100, price=100)
    denial = ask(take_profit=D(99)).denial
    assert denial == Denial.of(DenialCode.TAKE_PROFIT_WRONG_SIDE, take_profit=99, price=100)


@pytest.mark.parametrize(("take_profit", "passes"), [("101.5", True), ("101.49", False)])
def test_risk_reward_is_inclusive(ask, take_profit, passes):
    """1.5 for a stop of 1 is enough; the ratio shown is rounded down, never up to the limit."""
    denial = ask(stop_loss=D(99), take_profit=D(take_profit)).denial
    expected = Denial.of(DenialCode.RISK_REWARD_TOO_LOW, ratio="1.49", limit="1.5")
    assert denial == (None if passes else expected)


def test_the_default_stop_is_clamped_and_traced(ask):
    """A stop that we computed never fails our own rule."""
    limits = RiskLimits(default_stop_pct=D(5), max_stop_distance_pct=D(3))
    passed = ask(limits, sizing=FixedQuantity(D(9))).passed
    assert passed.stop_loss == 97
    assert passed.notes == (
        "FixedStop clamped to 3 %",
        "size capped by max_size_pct",
    )


def test_a_stop_rule_looks_at_its_own_bars(ask, desk):
    """The lowest low of two hours with a buffer; with fewer bars the farthest stop that is allowed."""
    rule = LevelStop(lookback=2, buffer_pct=D(0))
    passed = ask(stop=rule).passed
    assert (passed.stop_loss, passed.notes) == (
        98,
        ("LevelStop has too few bars (0); 2 % instead",),
    )
    for hour, low in enumerate((D(99), D("98.5"))):
        close = desk.clock.now() + timedelta(hours=hour)
        bar = BarData("BTC/USDT", Timeframe.H1, close, D(100), D(101), low, D(100), D(1))
        desk.bars.append(bar)
    passed = ask(stop=rule, signal_id="s2").passed
    assert (passed.stop_loss, passed.take_profit, passed.notes) == (D("98.5"), D(103), ())


def test_a_sizing_method_looks_at_its_own_bars(ask, desk):
    """1 % of 10,000 over a mean daily range of 50 is 2 units."""
    bar = BarData("BTC/USDT", Timeframe.D1, desk.clock.now(), D(100), D(120), D(70), D(100), D(1))
    desk.bars.append(bar)
    assert ask(sizing=VolatilityTarget(period=1)).passed.quantity == 2


def test_symbols_that_move_together_count_together(ask, desk):
    """20 % of 10,000 for the group: what is left of it cuts the size, and a stated quantity is denied."""
    limits = RiskLimits(
        groups={"majors": ["BTC/USDT", "ETH/USDT"]},
        max_size_pct=D(10),
        max_position_pct=D(20),
    )
    desk.hold("ETH/USDT", "18", 100)
    passed = ask(limits, sizing=FixedQuantity(D(5))).passed
    assert passed.quantity == 2
    assert passed.notes == ("size capped by max_group_pct of majors",)
    denial = ask(limits, quantity=D("2.1"), signal_id="s2").denial
    assert denial == Denial.of(
        DenialCode.GROUP_TOO_LARGE, group="majors", notional=D("2010.0"), limit=D(2000)
    )
    assert ask(limits, quantity=D("2.1"), symbol="XRP/USDT", signal_id="s3").passed


def test_a_symbol_of_several_groups_is_held_to_the_fullest(ask, desk):
    """The first has room for 20, the second for 2: sized, stated and named by the second."""
    limits = RiskLimits(
        groups={"roomy": ["BTC/USDT", "XRP/USDT"], "full": ["BTC/USDT", "ETH/USDT"]},
        max_size_pct=D(10),
        max_position_pct=D(20),
    )
    desk.hold("ETH/USDT", "18", 100)
    passed = ask(limits, sizing=FixedQuantity(D(5))).passed
    assert passed.quantity == 2
    assert passed.notes == ("size capped by max_group_pct of full",)
    denial = ask(limits, quantity=D("2.1"), signal_id="s2").denial
    assert denial.context == {"group": "full", "notional": "2010", "limit": "2000"}


def test_day_trades_are_counted_before_an_entry(ask, desk):
    """One round trip and an exit in part today, and no third one is begun; an entry that is under way is one too."""
    for n, sold in enumerate(("1", "0.5")):
        desk.hold(symbol=f"S{n}/USDT", quantity="1", price=100)
        desk.intend(f"x{n}", f"S{n}/USDT", Side.SELL, sold)
        desk.fill(f"x{n}", sold, 100)
    denial = ask(RiskLimits(max_day_trades=2)).denial
    assert denial.code is DenialCode.DAY_TRADES_REACHED
    assert (denial.context["day_trades"], denial.context["to_come"]) == ("2", "1")
    assert ask(RiskLimits(max_day_trades=3), signal_id="s2").passed
    desk.intend("e", "ETH/USDT", quantity="0.1")
    denial = ask(RiskLimits(max_day_trades=3), signal_id="s3").denial
    assert (denial.context["day_trades"], denial.context["to_come"]) == ("2", "2")


def test_the_default_target_meets_the_least_ratio(ask):
    """A target of ours never fails our own rule."""
    assert ask(RiskLimits(min_risk_reward_ratio=D(3))).passed.take_profit == 106


def test_default_levels_are_put_on_ticks_on_the_safe_side(desk, ask):
    """For a long the stop of 98.0686 becomes 98.07 (less loss) and the target 103.07 + a tick (no less gain)."""
    quote = desk.quote(bid="100.07", ask="100.07")
    passed = ask(quote=quote).passed
    assert passed.stop_loss == D("98.07")
    assert passed.take_profit == D("104.07")
    passed = ask(SHORT, side=Side.SELL, quote=quote).passed
    # 102.0714 down to 102.07, then 100.07 - 2 x 2.00
    assert (passed.stop_loss, passed.take_profit) == (D("102.07"), D("96.07"))


def test_the_callers_levels_are_put_on_ticks(ask):
    """A stop from an indicator is moved to the next tick towards the entry, a target away from it."""
    passed = ask(stop_loss=D("98.123"), take_profit=D("104.001")).passed
    assert (passed.stop_loss, passed.take_profit) == (D("98.13"), D("104.01"))


def test_levels_of_a_limit_order_start_at_its_price(ask):
    """A resting buy at 98 is entered at 98; a marketable one at 103 is entered at the mid."""
    passed = ask(limit_price=D(98)).passed
    assert (passed.stop_loss, passed.take_profit) == (D("96.04"), D("101.92"))
    assert ask(limit_price=D(103)).passed.stop_loss == 98


def test_levels_of_a_stop_order_start_at_its_price(ask):
    """A breakout buy at 102 is entered at 102, its limit of 101 would bind first."""
    assert ask(stop_price=D(102)).passed.stop_loss == D("99.96")
    assert ask(stop_price=D(102), limit_price=D(101)).passed.stop_loss == D("98.98")


# -- positions -----------------------------------------------------------------------------------------


def test_a_position_takes_no_second_entry(desk, ask):
    """Scaling in is off by default."""
    desk.hold(quantity="1")
    denial = ask().denial
    assert denial == Denial.of(
        DenialCode.POSITION_EXISTS, symbol="BTC/USDT", position=1, scale_in=False
    )


def test_dust_is_no_position(desk, ask):
    """What is less than a lot cannot be sold, so it must not close the symbol, nor take a place, for ever."""
    desk.hold(quantity="0.000004", lot_size=D("0.00001"))
    limits = RiskLimits(max_concurrent_positions=1)
    handler = RiskManagementHandler(limits)
    assert ask(handler=handler).passed is not None
    assert ask(handler=handler, symbol="ETH/USDT").passed is not None


def test_a_short_needs_permission(ask):
    """A sell when flat opens a short only where that is allowed."""
    denial = ask(side=Side.SELL).denial
    expected = Denial.of(DenialCode.SHORT_NOT_ALLOWED, symbol="BTC/USDT", allow_short=False)
    assert denial == expected


def test_a_short_needs_a_venue_that_can(desk, ask):
    """The chain reads capabilities."""
    desk.adapter.capabilities = Capabilities(short_selling=False)
    denial = ask(SHORT, side=Side.SELL).denial
    expected = Denial.of(DenialCode.SHORT_NOT_ALLOWED, symbol="BTC/USDT", venue="paper cannot")
    assert denial == expected


def test_positions_are_counted_with_pending_ones(desk, ask):
    """Two held and one on its way are three; a fourth symbol is refused."""
    desk.hold("ETH/USDT", "1")
    desk.hold("SOL/USDT", "1")
    assert ask().passed is not None
    desk.intend("o-ada", "ADA/USDT", quantity="1")
    assert ask().denial == Denial.of(DenialCode.TOO_MANY_POSITIONS, positions=4, limit=3)


def test_a_position_with_a_pending_entry_counts_once(desk, ask):
    """A partly filled entry is one position."""
    desk.intend("o-eth", "ETH/USDT", quantity="2")
    desk.fill("o-eth", 1)
    desk.hold("SOL/USDT", "1")
    assert ask().passed is not None


def test_an_entry_under_way_denies_a_second(desk, ask):
    """Two signals of one symbol that pass validation together do not both go out."""
    desk.ledger.reserve("other", "BTC/USDT", Side.BUY, D(1), D(100), price=D(100))
    expected = Denial.of(DenialCode.PENDING_ORDER_EXISTS, symbol="BTC/USDT", reserved=100)
    assert ask().denial == expected


def test_the_signals_own_order_is_not_counted_twice(desk, ask):
    """After a restart a signal finds its own live order: that is no other entry, and no second exposure."""
    desk.intend("o1", quantity="5", signal_id="s1", reservation_id="s1")
    desk.fund("900")
    limits = RiskLimits(max_position_pct=D(5), max_exposure_pct=D(5))
    passed = ask(limits, quantity=D(5), equity=10_000).passed
    assert passed.quantity == 5
    assert desk.ledger.exposure == 500
    assert ask(limits, quantity=D(5), signal_id="s2", equity=10_000).denial.code is (
        DenialCode.PENDING_ORDER_EXISTS
    )


def test_two_risk_handlers_in_one_chain_are_refused(desk, make_ticket):
    """The second would reserve the same once more."""
    first, second = RiskManagementHandler(), RiskManagementHandler()
    first.bind(desk)
    second.bind(desk)

    async def inner(ticket):
        return await second(ticket, None)

    with pytest.raises(PipelineError, match="one risk handler"):
        run_virtual(lambda _clock: first(make_ticket(desk), inner))
    assert len(desk.ledger) == 0


# -- scaling in ----------------------------------------------------------------------------------------

SCALE = RiskLimits(scale_in=True)


def test_scaling_in_takes_winners_only(desk, ask):
    """1 R is the distance to the first stop: with 98 a position at 100 must stand at 102."""
    desk.hold(quantity="1", stop_loss=D(98))
    low = ask(SCALE, quote=desk.quote(bid="101.99", ask="101.99")).denial
    assert low == Denial.of(DenialCode.POSITION_EXISTS, symbol="BTC/USDT", gain="1.99", limit=2)
    passed = ask(SCALE, quote=desk.quote(bid="102", ask="102")).passed
    assert passed.quantity > 0


def test_scaling_in_without_a_known_stop(desk, ask):
    """R is then the farthest stop there may be."""
    desk.hold(quantity="1")
    assert ask(SCALE, quote=desk.quote(bid="101.99", ask="101.99")).denial is not None
    assert ask(SCALE, quote=desk.quote(bid="102", ask="102")).denial is None


def test_scaling_in_at_most_twice(desk, ask):
    """The third addition is refused."""
    for signal_id in ("first", "second", "third"):
        desk.hold(quantity="1", stop_loss=D(98), signal_id=signal_id)
    denial = ask(SCALE, quote=desk.quote(bid="105", ask="105")).denial
    expected = Denial.of(DenialCode.POSITION_EXISTS, symbol="BTC/USDT", scale_ins=2, limit=2)
    assert denial == expected


def test_an_order_in_slices_is_one_addition(desk, ask):
    """Opened in three parts and added to in two: one addition, whatever the parts are called."""
    for n in range(3):
        desk.hold(quantity="1", stop_loss=D(98), signal_id=f"first/{n}", slice_of="first")
    for n in range(2):
        desk.hold(quantity="1", stop_loss=D(101), signal_id=f"second/{n}", slice_of="second")
    quote = desk.quote(bid="105", ask="105")
    assert ask(SCALE, quote=quote).denial is None
    denial = ask(attrs.evolve(SCALE, max_scale_ins=1), quote=quote).denial
    assert denial.context["scale_ins"] == "1"


def test_one_r_is_that_of_the_first_entry_however_many_executions_followed(desk, ask):
    """Of a position in very many parts too: the first stop stands, not that of the oldest part that is remembered."""
    desk.hold(quantity="0.01", stop_loss=D(98), signal_id="first")
    desk.intend("many", signal_id="second", stop_loss=D("99.9"))
    for n in range(WINDOW):
        desk.fill("many", "0.005", trade=f"part{n}")
    low = ask(SCALE, quote=desk.quote(bid="101.99", ask="101.99")).denial
    assert low.context == {"symbol": "BTC/USDT", "gain": "1.99", "limit": "2"}


def test_scaling_in_stays_within_the_position_limit(desk, ask):
    """Total within the limits: 9 held at 110 leave 10 of 1000."""
    desk.hold(quantity="9", stop_loss=D(98))
    quote = desk.quote(bid="110", ask="110")
    assert ask(SCALE, quote=quote, equity=10_000).passed.quantity == D("0.09090")
    denial = ask(SCALE, quote=quote, equity=10_000, quantity=D("0.1")).denial
    assert denial == Denial.of(DenialCode.POSITION_TOO_LARGE, position=1001, limit=1000)


def test_scaling_in_never_turns_a_position(desk, ask):
    """An entry against the position (it was opened meanwhile) is refused."""
    desk.hold(quantity="1")
    limits = RiskLimits(scale_in=True, allow_short=True)
    denial = ask(limits, side=Side.SELL, role=OrderRole.ENTRY).denial
    assert denial == Denial.of(
        DenialCode.POSITION_EXISTS, symbol="BTC/USDT", position=1, scale_in=True
    )


# -- the daily loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equity", "trips"), [("9700.01", False), ("9700", True)])
def test_daily_loss_trips_when_reached(desk, ask, equity, trips):
    """3 % of the session's opening 10,000: the entry is denied and trading is set to reducing, once."""
    desk.mark_equity(10_000, opens_session=True)
    before = len(desk.records)
    denial = ask(equity=equity).denial
    if not trips:
        assert denial is None
        assert len(desk.records) == before
        return
    assert denial == Denial.of(DenialCode.DAILY_LOSS_REACHED, loss=300, limit=300)
    assert desk.records[before:] == [
        TradingStateChanged(
            state=TradingState.REDUCING,
            cause="daily loss 300 reached the limit 300",
            actor="risk",
        ),
        Alarm(
            code="DAILY_LOSS",
            text="daily loss 300 reached the limit 300: only reductions leave until it is released",
        ),
    ]
    assert ask(equity=equity).denial == denial
    assert len(desk.records) == before + 2


def test_daily_loss_as_an_amount(desk, ask):
    """The amount takes the place of the percentage."""
    desk.mark_equity(10_000, opens_session=True)
    limits = RiskLimits(daily_loss_amount=D(50))
    assert ask(limits, equity="9950.01").denial is None
    denial = ask(limits, equity=9950).denial
    assert denial == Denial.of(DenialCode.DAILY_LOSS_REACHED, loss=50, limit=50)


def test_daily_loss_of_the_last_24_hours(desk, ask):
    """A new session does not forget what was lost within 24 hours; the limit is of its own opening."""
    handler = RiskManagementHandler()
    desk.mark_equity(10_000, opens_session=True)
    desk.clock.advance(timedelta(hours=20))
    desk.mark_equity(9_800, opens_session=True)
    assert ask(handler=handler, equity=9_710).denial is None
    denial = ask(handler=handler, equity=9_700).denial
    assert denial == Denial.of(DenialCode.DAILY_LOSS_REACHED, loss=300, limit=294)
    desk.record(TradingStateChanged(state=TradingState.ACTIVE, cause="", actor="test"))
    desk.clock.advance(timedelta(hours=4))
    assert ask(handler=handler, equity=9_700).denial is not None
    desk.clock.advance(timedelta(hours=20))
    assert ask(handler=handler, equity=9_700).denial is None, "24 hours ago it was 9,800"


def test_a_halt_is_not_weakened(desk, ask):
    """Halted stays halted when the daily loss is reached."""
    desk.mark_equity(10_000, opens_session=True)
    desk.record(TradingStateChanged(state=TradingState.HALTED, cause="why", actor="test"))
    assert ask(equity=9_000).denial.code is DenialCode.DAILY_LOSS_REACHED
    assert desk.book.trading_state is TradingState.HALTED


# -- reductions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "asked", "passed"),
    [
        ("2", None, "2"),
        ("2", "1.5", "1.5"),
        ("2", "3", "2"),
        ("-2", None, "2"),
        ("-2", "5", "2"),
        ("1.999999", None, "1.99999"),
    ],
)
def test_a_reduction_is_cut_to_the_position(desk, ask, held, asked, passed):
    """It may close the position, never flip it; it carries no stamp and reserves nothing."""
    desk.hold(quantity=held, price=100)
    side = Side.SELL if D(held) > 0 else Side.BUY
    ticket = ask(side=side, quantity=asked and D(asked)).passed
    assert ticket.quantity == D(passed)
    assert ticket.stamp is None
    assert len(desk.ledger) == 0


def test_a_reduction_passes_every_limit(desk, ask):
    """Loss, size and a spoiled quote do not keep anybody in a position."""
    desk.hold(quantity="90")
    desk.mark_equity(10_000, opens_session=True)
    quote = replace(desk.quote(), bid=D("NaN"))
    assert ask(side=Side.SELL, equity=1, quote=quote).passed.quantity == 90


@pytest.mark.parametrize(("held", "position"), [(None, "0"), ("-1", "-1")])
def test_nothing_to_reduce(desk, ask, held, position):
    """A reduction without a position on the other side is refused."""
    if held:
        desk.hold(quantity=held)
    denial = ask(side=Side.SELL, role=OrderRole.EXIT).denial
    assert denial == Denial.of(
        DenialCode.NO_POSITION_TO_REDUCE, symbol="BTC/USDT", side="sell", position=position
    )


def test_dust_cannot_be_reduced(desk, ask):
    """Less than a lot cannot be sold."""
    desk.hold(quantity="0.000004", lot_size=D("0.00001"))
    denial = ask(side=Side.SELL, role=OrderRole.EXIT).denial
    assert denial == Denial.of(DenialCode.QUANTITY_TOO_SMALL, quantity="0.000004", limit="0.00001")


def test_a_reduction_must_be_legal(desk, ask):
    """The venue's minimum holds for what is left of a position too."""
    desk.hold(quantity="0.5")
    denial = ask(side=Side.SELL, instrument=make_instrument(min_quantity=D(1))).denial
    assert denial == Denial.of(DenialCode.QUANTITY_TOO_SMALL, quantity="0.5", limit=1)


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limits": 5}, "limits"),
        ({"sizing": D(5)}, "sizing"),
        ({"sizing": PercentOfEquity}, "sizing"),
        ({"price_collar_pct": -1}, "price_collar_pct"),
        ({"price_collar_pct": 0.5}, "price_collar_pct"),
    ],
)
def test_bad_options_are_refused_by_name(options, field):
    """What cannot work is refused when it is set."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        RiskManagementHandler(**options)


# -- exits in parts ---------------------------------------------------------------------------------------


def test_a_policy_splits_the_exit(ask, desk):
    """Half at 1 R and half at 2 R is a ratio of 1.5, which passes; a stated take-profit stays the only one."""
    desk.policy = ProtectionPolicy(targets=HALF_AND_HALF)
    passed = ask(stop_loss=D(98)).passed
    assert passed.targets == (Target(D(102), D("0.5")), Target(D(104), D("0.5")))
    assert passed.take_profit == 104
    stated = ask(stop_loss=D(98), take_profit=D(105), signal_id="s2").passed
    assert (stated.targets, stated.take_profit) == ((), 105)


def test_the_ratio_is_that_of_all_parts(ask, desk):
    """Half at 0.9 R and half at 2 R is 1.45: too little."""
    early = (PartialExit(D("0.9"), D("0.5")), PartialExit(D(2), D("0.5")))
    desk.policy = ProtectionPolicy(targets=early)
    denial = ask(stop_loss=D(98)).denial
    assert denial == Denial.of(DenialCode.RISK_REWARD_TOO_LOW, ratio="1.45", limit="1.5")
