"""ValidationHandler: what a signal states is legal, fresh and meant for this venue."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from execkit.errors import ConfigurationError, PipelineError
from execkit.handlers.validation import ValidationHandler
from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderEvent, OrderRole, OrderType, Side, TimeInForce
from execkit.model.records import (
    OrderChanged,
    Source,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.virtual_time import run_virtual

D = Decimal


def make_instrument(**changes):
    return Instrument.default("BTC/USDT", **changes)


@pytest.fixture
def denies(desk, make_ticket, judge):
    """Return a function that gives the denial of a signal, None when it passes."""

    def run(handler=None, **signal):
        ticket = make_ticket(desk, **signal)
        verdict = judge(handler or ValidationHandler(), desk, ticket)
        assert (verdict.passed is None) is (verdict.denial is not None)
        return verdict.denial

    return run


def test_an_ordinary_signal_passes_unchanged(desk, make_ticket, judge):
    """With a score that is enough there is nothing to add."""
    ticket = make_ticket(desk, confluence=3)
    assert judge(ValidationHandler(), desk, ticket).passed is ticket


def test_a_missing_confluence_score_is_skipped_and_traced(desk, make_ticket, judge):
    """No score is no failure, but the trace shows that nobody checked."""
    verdict = judge(ValidationHandler(), desk, make_ticket(desk))
    assert verdict.passed.notes == ("no confluence score, check skipped",)


def test_no_remark_where_no_score_is_asked_for(desk, make_ticket, judge):
    """A minimum of zero checks nothing, so nothing is skipped."""
    handler = ValidationHandler(min_confluence_score=0)
    assert judge(handler, desk, make_ticket(desk)).passed.notes == ()


def test_it_must_be_bound(desk, make_ticket):
    """Without the engine's services it cannot judge, and says so."""

    async def main(_clock):
        await ValidationHandler()(make_ticket(desk), None)

    with pytest.raises(PipelineError, match="not bound"):
        run_virtual(main)


# -- what the signal states ----------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "passes"), [(70, True), ("69.9", False)])
def test_strength_is_inclusive(denies, strength, passes):
    """The minimum itself is strong enough."""
    denial = denies(ValidationHandler(min_signal_strength=70), strength=strength)
    expected = None if passes else Denial.of(DenialCode.SIGNAL_TOO_WEAK, strength="69.9", limit=70)
    assert denial == expected


@pytest.mark.parametrize(("confluence", "passes"), [("3.0", True), ("2.9", False)])
def test_confluence_is_inclusive(denies, confluence, passes):
    """The default minimum is 3.0."""
    expected = Denial.of(DenialCode.CONFLUENCE_TOO_LOW, confluence="2.9", limit=3)
    assert denies(confluence=confluence) == (None if passes else expected)


@pytest.mark.parametrize(("age", "passes"), [(10, True), (11, False)])
@pytest.mark.parametrize("stated", [True, False])
def test_signal_age(desk, make_ticket, judge, age, passes, stated):
    """A signal lives as long as its own `max_age`, from its own time or from its arrival."""
    made = desk.clock.now() if stated else None
    ticket = make_ticket(desk, max_age=timedelta(seconds=10), created_at=made)
    desk.clock.advance(timedelta(seconds=age))
    ticket = replace(ticket, quote=desk.quote())
    denial = judge(ValidationHandler(), desk, ticket).denial
    expected = Denial.of(DenialCode.SIGNAL_TOO_OLD, age_seconds=11.0, limit_seconds=10.0)
    assert denial == (None if passes else expected)


def test_exchange_must_be_this_one(denies):
    """A signal for another venue is not for us."""
    assert denies(exchange="paper") is None
    expected = Denial.of(DenialCode.EXCHANGE_NOT_VALID, exchange="kraken", here="paper")
    assert denies(exchange="kraken") == expected


def test_exchange_must_be_on_the_list(denies):
    """`valid_exchanges` names the venues that may be traded."""
    assert denies(ValidationHandler(valid_exchanges=["paper"])) is None
    expected = Denial.of(DenialCode.EXCHANGE_NOT_VALID, exchange="paper", valid="alpaca kraken")
    assert denies(ValidationHandler(valid_exchanges=["kraken", "alpaca"])) == expected


def test_symbol_must_be_the_instruments(denies):
    """An instrument of another market never judges a signal (N14)."""
    expected = Denial.of(DenialCode.SYMBOL_UNKNOWN, symbol="BTC/USDT", instrument="ETH/USDT")
    other = Instrument.default("ETH/USDT")
    quote = Quote("ETH/USDT", D(100), D(100), datetime(2024, 1, 1, tzinfo=UTC))
    assert denies(instrument=other, quote=quote) == expected


def test_quote_must_be_of_the_symbol(desk, denies):
    """A quote of another market never judges a signal (N14)."""
    expected = Denial.of(DenialCode.SYMBOL_UNKNOWN, symbol="BTC/USDT", quote="ETH/USDT")
    assert denies(quote=desk.quote("ETH/USDT")) == expected


def test_symbol_must_be_tradeable(denies):
    """A listed symbol may be closed for trading."""
    expected = Denial.of(DenialCode.SYMBOL_NOT_TRADEABLE, symbol="BTC/USDT")
    assert denies(instrument=make_instrument(tradeable=False)) == expected


@pytest.mark.parametrize(("age", "passes"), [(5, True), (6, False), (-5, True), (-6, False)])
def test_quote_age(desk, denies, age, passes):
    """Five seconds are young enough; a quote from the future has no known age."""
    quote = desk.quote()
    desk.clock.advance(timedelta(seconds=age))
    expected = Denial.of(DenialCode.QUOTE_STALE, age_seconds=float(age), limit_seconds=5.0)
    assert denies(quote=quote) == (None if passes else expected)


@pytest.mark.parametrize("price", ["NaN", "0", "-1", "Infinity", "1e15"])
def test_quote_must_hold_prices(desk, denies, price):
    """A quote with rubbish in it judges nothing (N1, N2)."""
    limit = "above 0, below 1e15"
    value = str(D(price))
    bad_bid = Denial.of(DenialCode.NUMBER_INVALID, bid=value, limit=limit)
    assert denies(quote=replace(desk.quote(), bid=D(price))) == bad_bid
    bad_ask = Denial.of(DenialCode.NUMBER_INVALID, ask=value, limit=limit)
    assert denies(quote=replace(desk.quote(), ask=D(price))) == bad_ask


# -- the order's own numbers ---------------------------------------------------------------------------


def test_order_rules_apply(desk, denies):
    """`check_order` is asked with the venue's capabilities."""
    desk.adapter.capabilities = Capabilities(order_types=frozenset({OrderType.LIMIT}))
    expected = Denial.of(DenialCode.ORDER_TYPE_UNSUPPORTED, type="market", supported="limit")
    assert denies() == expected


def test_time_in_force_must_be_supported(denies):
    """A time in force that the venue lacks is refused before it is sent."""
    denial = denies(time_in_force=TimeInForce.GTD)
    assert denial.code is DenialCode.ORDER_TYPE_UNSUPPORTED
    assert denial.context["time_in_force"] == "gtd"


@pytest.mark.parametrize(
    ("limit_price", "passes"), [("105", True), ("105.01", False), ("95", True), ("94.99", False)]
)
def test_collar(denies, limit_price, passes):
    """A price 5 % from the mid is allowed, farther on either side is not."""
    expected = Denial.of(
        DenialCode.PRICE_OUTSIDE_COLLAR, limit_price=D(limit_price), mid=100, limit_pct=5
    )
    denial = denies(limit_price=D(limit_price))
    assert denial == (None if passes else expected)


def test_collar_is_an_option(denies):
    """A narrower collar refuses sooner."""
    handler = ValidationHandler(price_collar_pct=D("0.5"))
    denial = denies(handler, stop_price=D(101))
    expected = Denial.of(
        DenialCode.PRICE_OUTSIDE_COLLAR, stop_price=101, mid=100, limit_pct=D("0.5")
    )
    assert denial == expected


@pytest.mark.parametrize(
    ("side", "stop_loss", "take_profit", "code"),
    [
        (Side.BUY, "99.99", "100.01", None),
        (Side.BUY, "100", None, DenialCode.STOP_LOSS_WRONG_SIDE),
        (Side.BUY, None, "100", DenialCode.TAKE_PROFIT_WRONG_SIDE),
        (Side.SELL, "100.01", "99.99", None),
        (Side.SELL, "100", None, DenialCode.STOP_LOSS_WRONG_SIDE),
        (Side.SELL, "101", "100", DenialCode.TAKE_PROFIT_WRONG_SIDE),
    ],
)
def test_levels_must_be_on_their_side(denies, side, stop_loss, take_profit, code):
    """Stop-loss and take-profit are strictly beyond the arrival mid, each on its side."""
    denial = denies(
        side=side,
        stop_loss=stop_loss and D(stop_loss),
        take_profit=take_profit and D(take_profit),
    )
    if code is None:
        assert denial is None
        return
    name = "stop_loss" if code is DenialCode.STOP_LOSS_WRONG_SIDE else "take_profit"
    assert denial == Denial.of(code, **{name: 100}, price=100)


def test_levels_are_judged_by_the_orders_own_price(denies):
    """A resting limit is entered at its own price: 98 is no stop for a buy at 97."""
    denial = denies(limit_price=D(97), stop_loss=D(98))
    assert denial == Denial.of(DenialCode.STOP_LOSS_WRONG_SIDE, stop_loss=98, price=97)


# -- the state of things -------------------------------------------------------------------------------


def test_pending_entry_of_another_signal(desk, denies):
    """One entry per symbol is under way at a time; the signal's own orders do not count."""
    desk.intend("order-1", signal_id="other")
    expected = Denial.of(
        DenialCode.PENDING_ORDER_EXISTS, symbol="BTC/USDT", order="order-1", state="new"
    )
    assert denies() == expected
    assert denies(signal_id="other") is None
    assert denies(symbol="ETH/USDT") is None


def test_a_closed_entry_is_not_pending(desk, denies):
    """Once it has ended, the next may come."""
    desk.intend("order-1", signal_id="other")
    desk.record(OrderChanged(client_order_id="order-1", event=OrderEvent.FAIL, source=Source.CHAIN))
    assert denies() is None


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TradingState.HALTED, DenialCode.TRADING_HALTED),
        (TradingState.REDUCING, DenialCode.TRADING_REDUCING),
    ],
)
def test_restricted_trading_takes_no_entries(desk, denies, state, code):
    """Halted and reducing both refuse, and give the cause."""
    desk.record(TradingStateChanged(state=state, cause="why", actor="test"))
    assert denies() == Denial.of(code, state=state, cause="why")
    desk.record(TradingStateChanged(state=TradingState.ACTIVE, cause="", actor="test"))
    assert denies() is None


def test_blocked_symbol(desk, denies):
    """A blocked symbol takes no entries; others do."""
    desk.record(SymbolBlocked(symbol="BTC/USDT", blocked=True, cause="in doubt"))
    expected = Denial.of(DenialCode.SYMBOL_BLOCKED, symbol="BTC/USDT", cause="in doubt")
    assert denies() == expected
    assert denies(symbol="ETH/USDT") is None


@pytest.mark.parametrize(("quantity", "passes"), [("10", True), ("10.00001", False)])
def test_buying_power_is_inclusive_and_counts_the_fee(desk, denies, quantity, passes):
    """10 units at the ask of 100.1 with 0.1 % fee cost 1002.001, to the cent what is there."""
    desk.fund("1002.001")
    instrument = make_instrument(taker_fee=D("0.001"))
    denial = denies(quantity=D(quantity), instrument=instrument)
    expected = Denial.of(
        DenialCode.NOT_ENOUGH_BUYING_POWER,
        cost=D(quantity) * D("100.1") * D("1.001"),
        available=D("1002.001"),
    )
    assert denial == (None if passes else expected)


def test_buying_power_less_what_others_reserved(desk, denies):
    """Cash that another entry has claimed is not there; the signal's own claim is."""
    desk.fund(1000)
    desk.ledger.reserve("other", "ETH/USDT", Side.BUY, D(6), D(100), price=D(100))
    expected = Denial.of(DenialCode.NOT_ENOUGH_BUYING_POWER, cost=D("500.5"), available=D(400))
    assert denies(quantity=D(5)) == expected
    assert denies(quantity=D(5), signal_id="other") is None


def test_selling_needs_no_buying_power(desk, denies):
    """A short is backed by limits, not by cash."""
    desk.fund(0)
    assert denies(side=Side.SELL, quantity=D(1)) is None


# -- reductions ----------------------------------------------------------------------------------------


def test_reductions_pass_everything_but_illegal_numbers(desk, denies):
    """Halts, blocks, strength, stale quotes and the collar never keep anybody in a position."""
    desk.hold(quantity="1")
    desk.intend("order-2", signal_id="other")
    desk.record(TradingStateChanged(state=TradingState.HALTED, cause="why", actor="test"))
    desk.record(SymbolBlocked(symbol="BTC/USDT", blocked=True, cause="in doubt"))
    quote = replace(desk.quote(), bid=D("NaN"))
    desk.clock.advance(timedelta(hours=1))
    handler = ValidationHandler(min_signal_strength=90)
    exit_signal = {"side": Side.SELL, "strength": 1, "quote": quote}
    assert denies(handler, **exit_signal) is None
    assert denies(handler, limit_price=D(1000), **exit_signal) is None
    assert denies(handler, instrument=make_instrument(tradeable=False), **exit_signal) is None
    off_tick = denies(handler, limit_price=D("100.001"), **exit_signal)
    assert off_tick == Denial.of(
        DenialCode.PRICE_OFF_TICK, limit_price="100.001", tick_size=D("0.01")
    )
    off_lot = denies(handler, quantity=D("0.000001"), **exit_signal)
    assert off_lot.code is DenialCode.QUANTITY_OFF_LOT


def test_a_reduction_is_still_for_this_venue(desk, denies):
    """An exit that names another venue, or has outlived itself, is not ours to send."""
    desk.hold(quantity="1")
    denial = denies(side=Side.SELL, exchange="kraken", role=OrderRole.EXIT)
    assert denial.code is DenialCode.EXCHANGE_NOT_VALID


def test_a_reduction_adds_no_remark(desk, make_ticket, judge):
    """Confluence is no question for an exit."""
    desk.hold(quantity="1")
    ticket = make_ticket(desk, side=Side.SELL)
    assert judge(ValidationHandler(), desk, ticket).passed is ticket


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_signal_strength", D("NaN")),
        ("min_signal_strength", -1),
        ("min_signal_strength", 101),
        ("min_signal_strength", 0.5),
        ("min_confluence_score", -1),
        ("min_confluence_score", True),
        ("valid_exchanges", "paper"),
        ("max_quote_age", timedelta(0)),
        ("max_quote_age", 5),
        ("price_collar_pct", 0),
        ("price_collar_pct", D("100.1")),
        ("price_collar_pct", 5.0),
    ],
)
def test_bad_options_are_refused_by_name(option, value):
    """A limit that cannot work is refused when it is set."""
    with pytest.raises(ConfigurationError, match=f"^{option}: "):
        ValidationHandler(**{option: value})


# -- the price lately ------------------------------------------------------------------------------------


def test_nothing_is_entered_after_a_jump(denies, desk):
    """The limit itself is allowed; exits pass; without the option nobody looks."""
    handler = ValidationHandler(max_move_pct=D(3))
    desk.moved = D("3.00001")
    expected = Denial.of(
        DenialCode.PRICE_MOVED, moved_pct=D("3.0000"), limit_pct=D(3), within_seconds=60.0
    )
    assert denies(handler) == expected
    assert denies() is None
    desk.moved = D(3)
    assert denies(handler) is None
    desk.moved = D(50)
    desk.hold()
    assert denies(handler, side=Side.SELL, signal_id="out") is None


@pytest.mark.parametrize("window", [timedelta(0), timedelta(minutes=10, seconds=1)])
def test_the_window_of_a_move_is_bounded(window):
    """No longer than quotes are remembered."""
    with pytest.raises(ConfigurationError, match="move_window"):
        ValidationHandler(max_move_pct=D(3), move_window=window)
