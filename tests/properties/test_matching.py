"""Whatever comes in, the books of the matching core stay true."""

from datetime import timedelta
from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execkit.errors import ExchangeError
from execkit.exchanges.fills import Costs
from execkit.exchanges.inputs import (
    AdvanceTime,
    Amend,
    Cancel,
    FeedBar,
    FeedQuote,
    FeedTrade,
    Input,
    Place,
    replay,
)
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.snapshots import restore, snapshot
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import MONEY, ZERO, is_multiple
from execkit.testing.factories import START

SYMBOLS = ("BTC/USDT", "ETH/USDT", "BTC/EUR")
START_BALANCES = {"USDT": Decimal(20_000), "EUR": Decimal(5_000), "BTC": Decimal(20)}

prices = st.integers(8000, 12_000).map(lambda n: Decimal(n) / 100)
quantities = st.integers(1, 40_000).map(lambda n: Decimal(n) / 1000)
sizes = st.none() | quantities
fees = st.integers(-10, 30).map(lambda n: Decimal(n) / 10_000)


@st.composite
def requests(draw):
    """Orders of every kind, most of them legal; few client order ids, so that some come twice."""
    type_ = draw(st.sampled_from(OrderType))
    time_in_force = draw(st.sampled_from(TimeInForce))
    return OrderRequest(
        client_order_id=f"c{draw(st.integers(0, 60))}",
        symbol=draw(st.sampled_from(SYMBOLS)),
        side=draw(st.sampled_from(Side)),
        type=type_,
        quantity=draw(quantities),
        limit_price=draw(prices) if type_ in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None,
        stop_price=draw(prices) if type_ in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
        time_in_force=time_in_force,
        reduce_only=draw(st.booleans()),
        post_only=type_ is OrderType.LIMIT and draw(st.booleans()),
        expire_at=START + timedelta(minutes=draw(st.integers(1, 90)))
        if time_in_force is TimeInForce.GTD
        else None,
    )


@st.composite
def steps(draw):
    """A minute-by-minute history of one account."""
    history = []
    for minute in range(draw(st.integers(1, 25))):
        at = START + timedelta(minutes=minute, seconds=draw(st.sampled_from((0, 0, 30))))
        symbol = draw(st.sampled_from(SYMBOLS))
        kind = draw(st.integers(0, 9))
        if kind <= 4:
            history.append(Place(draw(requests()), at))
        elif kind == 5:
            history.append(Cancel(symbol, f"c{draw(st.integers(0, 60))}", at))
        elif kind == 6:
            name = f"c{draw(st.integers(0, 60))}"
            values = (
                draw(st.none() | quantities),
                draw(st.none() | prices),
                draw(st.none() | prices),
            )
            history.append(Amend(symbol, name, at, None, *values))
        elif kind == 7:
            bid, ask = sorted((draw(prices), draw(prices)))
            last = draw(st.none() | prices)
            history.append(FeedQuote(Quote(symbol, bid, ask, at, last, draw(sizes), draw(sizes))))
        elif kind == 8:
            history.append(FeedTrade(Trade(symbol, draw(prices), draw(quantities), at)))
        else:
            history.append(AdvanceTime(at))
        low, open_, close, high = sorted(draw(prices) for _ in range(4))
        if draw(st.booleans()):
            open_, close = close, open_
        end = START + timedelta(minutes=minute + 1)
        volume = draw(st.just(Decimal(100_000)) | quantities)
        history.append(FeedBar(BarData(symbol, Timeframe.M1, end, open_, high, low, close, volume)))
    return history


@st.composite
def venues(draw):
    """Spot and margin accounts with all kinds of fees and spreads."""
    rules = [
        Instrument.default(
            symbol,
            lot_size=Decimal("0.001"),
            min_notional=Decimal(1),
            maker_fee=draw(fees),
            taker_fee=draw(fees),
            fee_in_base=draw(st.booleans()),
        )
        for symbol in SYMBOLS
    ]
    core = MatchingCore(
        START_BALANCES,
        instruments=rules,
        spread_bps=Decimal(draw(st.integers(0, 100))),
        allow_short=draw(st.booleans()),
        ids_unique_for_ever=draw(st.booleans()),
    )
    for symbol in SYMBOLS:
        core.set_price(symbol, Decimal(100))
    return core


def run(core, history):
    """Apply a history; yield the updates of each step."""
    for step in history:
        try:
            yield step.apply(core)
        except ExchangeError:
            yield None


def expected_totals(core):
    """Add up what the fills alone say, by a way of its own."""
    totals = dict(START_BALANCES)
    with localcontext(MONEY):
        for fill in core.fills:
            base, quote = fill.symbol.split("/")
            sign = 1 if fill.side is Side.BUY else -1
            for asset, change in (
                (base, sign * fill.quantity),
                (quote, -sign * fill.quantity * fill.price),
                (fill.fee_asset, -fill.fee),
            ):
                totals[asset] = totals.get(asset, ZERO) + change
    return totals


def check_books(core):
    balances = core.balances()
    for asset, balance in balances.items():
        assert balance.free >= ZERO
        assert balance.locked >= ZERO or core.account.allow_short
        if not core.account.allow_short:
            assert ZERO <= balance.free <= balance.total, asset
            assert core.account._spare(asset) >= ZERO, asset
    positions = {}
    for position in core.positions():
        base = position.symbol.split("/")[0]
        positions[base] = positions.get(base, ZERO) + position.quantity
    for base in ("BTC", "ETH"):
        total = balances[base].total if base in balances else ZERO
        assert positions.get(base, ZERO) == total


def check_orders(core):
    for order in core.orders.values():
        own = core.fills_of[order.venue_order_id]
        assert order.filled == sum((f.quantity for f in own), ZERO)
        assert ZERO <= order.filled <= order.request.quantity
        assert (order.status is OrderState.FILLED) == (order.filled == order.request.quantity)
        assert order.is_open == (order.venue_order_id in core.open.get(order.request.symbol, {}))
        assert order.locked >= ZERO
        assert order.is_open or order.locked == ZERO
        for fill in own:
            assert is_multiple(fill.quantity, Decimal("0.001"))
            assert is_multiple(fill.price, Decimal("0.01"))
            if order.request.limit_price is not None and len(own) == 1:
                limit = order.request.limit_price
                assert fill.price <= limit if fill.side is Side.BUY else fill.price >= limit


@given(venues(), steps())
@settings(max_examples=150, deadline=None)
def test_books_stay_true(core, history):
    """Balances are the sum of the fills and their fees; nothing is overfilled, off lot, or negative."""
    closed = set()
    for updates in run(core, history):
        check_books(core)
        for update in updates or ():
            if isinstance(update, OrderReport) and update.status.is_closed:
                assert update.venue_order_id not in closed, "a closed order stays closed"
                closed.add(update.venue_order_id)
            elif isinstance(update, Fill):
                assert update.venue_order_id not in closed
    check_orders(core)
    totals = {asset: balance.total for asset, balance in core.balances().items()}
    expected = expected_totals(core)
    assert {a: t for a, t in totals.items() if t} == {a: t for a, t in expected.items() if t}
    assert len({f.trade_id for f in core.fills}) == len(core.fills)
    assert core.known_at == sorted(core.known_at)


@given(venues(), steps(), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_snapshot_is_the_whole_state(core, history, cut):
    """A core restored at any point goes on exactly as the one that never stopped."""
    for _ in run(core, history[:cut]):
        pass
    other = restore(snapshot(core))
    assert snapshot(other) == snapshot(core)
    for ours, theirs in zip(run(core, history[cut:]), run(other, history[cut:]), strict=True):
        assert ours == theirs
    assert snapshot(other) == snapshot(core)
    assert other.balances() == core.balances()


@given(venues(), steps())
@settings(max_examples=100, deadline=None)
def test_log_of_inputs_replays_to_the_same_state(core, history):
    """The inputs, written down and read again, lead another core to the same bytes."""
    other = restore(snapshot(core))
    for _ in run(core, history):
        pass
    for line in [msgspec.json.encode(step) for step in history]:
        replay(other, msgspec.json.decode(line, type=Input))
    assert snapshot(other) == snapshot(core)


@given(venues(), steps())
@settings(max_examples=100, deadline=None)
def test_refused_input_changes_nothing(core, history):
    """An input that raises leaves the state as it was, to the byte."""
    for step in history:
        before = snapshot(core)
        try:
            step.apply(core)
        except ExchangeError:
            assert snapshot(core) == before


@given(st.data(), steps())
@settings(max_examples=100, deadline=None)
def test_reduce_only_never_flips(data, history):
    """No fill of a reduce-only order takes a position across zero."""
    core = data.draw(venues())
    before = {}
    for step in history:
        before = {s: h.quantity for s, h in core.account.holdings.items()}
        try:
            updates = step.apply(core)
        except ExchangeError:
            continue
        for update in updates:
            if isinstance(update, Fill):
                sign = 1 if update.side is Side.BUY else -1
                was = before[update.symbol]
                after = was + sign * update.quantity
                if core.orders[update.venue_order_id].request.reduce_only:
                    assert was * sign < 0
                    assert after * was >= 0
                fee = update.fee if update.fee_asset == update.symbol.split("/")[0] else ZERO
                before[update.symbol] = after - fee


@pytest.mark.parametrize("spread", [0, 7, 100])
@given(price=prices, tick=st.sampled_from(("0.01", "0.05", "1")))
def test_spread_is_never_in_our_favour(price, tick, spread):
    """Half the spread, rounded to a tick, always to the disadvantage of the order."""
    costs = Costs(Decimal(spread), Decimal(tick))
    half = price * spread / 20_000
    assert costs.worse(price, is_buy=True) >= price + half
    assert costs.worse(price, is_buy=False) <= price - half
    if spread:
        assert costs.worse(price, is_buy=True) < price + half + Decimal(tick)
