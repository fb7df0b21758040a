"""What protects or closes a position is compared with the price that it should have brought. Figures by hand."""

import asyncio
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import AT, BTC
from tests.support.venue import ScriptedVenue

from execkit.errors import OrderRejectedError
from execkit.model.capabilities import ListKind
from execkit.model.events import SlippageAlert
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderType, Side
from execkit.model.position import Target
from execkit.model.records import Alarm, StopMoved
from execkit.protection.policy import ProtectionPolicy
from execkit.protection.slippage import slippage_pct

D = Decimal
NO_STOPS = frozenset({OrderType.MARKET, OrderType.LIMIT})


def texts(bench):
    return [each.text for each in bench.journal.records(Alarm) if each.code == "SLIPPAGE"]


async def opened(make, side=Side.BUY, *, policy=None, **capabilities):
    """Return a bench with 1 at 100, stopped at 95 or 105, that is to be closed at 110 or 90."""
    venue = ScriptedVenue(short_selling=True, **capabilities)
    bench = make(venue, keeper=True, policy=policy)
    stop, target = (D(95), D(110)) if side is Side.BUY else (D(105), D(90))
    await bench.open("1", side=side, stop_loss=stop, take_profit=target)
    await bench.quiet()
    return bench


async def execute(bench, order, price, quantity=None):
    """Execute a part of an order at a price, and tell of it."""
    key = order.client_order_id
    bench.take(bench.venue.fill(key, quantity, D(price), at=bench.clock.now()))
    await bench.quiet()


async def see(bench, price):
    """Show a price at which the venue executes too."""
    bench.venue.price = D(price)
    quote = Quote(BTC, D(price), D(price), AT)
    bench.book.see_quote(quote)
    bench.keeper.on_quote(quote)
    await bench.keeper.idle()
    await bench.quiet()


@pytest.mark.parametrize(
    ("side", "expected", "average", "worse"),
    [
        (Side.SELL, "95", "93.1", "2"),
        (Side.SELL, "95", "95.95", "-1"),
        (Side.BUY, "105", "107.1", "2"),
        (Side.BUY, "105", "103.95", "-1"),
    ],
)
def test_worse_is_positive_on_either_side(side, expected, average, worse):
    """A seller gets less, a buyer pays more."""
    assert slippage_pct(side, D(expected), D(average)) == D(worse)


@pytest.mark.parametrize(
    ("side", "price", "words"),
    [
        (Side.BUY, "94.525", None),  # 0.5 %: not above the limit
        (Side.BUY, "94.43", "sold 1 of 1 at 94.43, 0.6 % worse than 95"),
        (Side.BUY, "96", None),
        (Side.SELL, "105.525", None),
        (Side.SELL, "105.63", "bought 1 of 1 at 105.63, 0.6 % worse than 105"),
        (Side.SELL, "104", None),
    ],
)
@virtual
async def test_a_stop_is_compared_with_its_level(make, side, price, words):
    """Above half a percent a person is told, with figures; an event says the same to whoever listens."""
    bench = await opened(make, side)
    (stop,) = bench.stops
    assert stop.expected_price == stop.stop_price
    await execute(bench, stop, price)
    assert texts(bench) == ([] if words is None else [f"{BTC}: the stop {words}"])
    alerts = bench.told(SlippageAlert)
    assert len(alerts) == (words is not None)
    for alert in alerts:
        assert (alert.client_order_id, alert.signal_id) == (stop.client_order_id, "s1")
        assert (alert.role, alert.side, alert.quantity) == (OrderRole.STOP, side.opposite, 1)
        assert alert.slippage_pct == D("0.6")
        assert (alert.expected_price, alert.average_price) == (stop.stop_price, D(price))


@virtual
async def test_a_stop_that_was_moved_is_compared_with_where_it_rests(make):
    """Amended from 95 to 98: 96.04 is 2 % below that."""
    bench = await opened(make, amend=True)
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(98), take_profit=D(110))
    )
    await bench.quiet()
    (stop,) = bench.stops
    assert (stop.stop_price, stop.expected_price) == (98, 95)
    await execute(bench, stop, "96.04")
    assert texts(bench) == [f"{BTC}: the stop sold 1 of 1 at 96.04, 2 % worse than 98"]


@virtual
async def test_parts_count_on_average_and_are_told_once(make):
    """0.5 at 95 and 0.25 at 93.1 are 94.3667, 0.6667 % below 95; the last quarter makes it worse and is no news."""
    bench = await opened(make)
    (stop,) = bench.stops
    await execute(bench, stop, "95", "0.5")
    assert texts(bench) == []
    await execute(bench, stop, "93.1", "0.25")
    told = [
        f"{BTC}: the stop sold 0.75 of 1 at 94.36666667, 0.6667 % worse than 95",
    ]
    assert texts(bench) == told
    await execute(bench, stop, "90", "0.25")
    assert texts(bench) == told
    assert [alert.quantity for alert in bench.told(SlippageAlert)] == [D("0.75")]


@virtual
async def test_after_a_restart_an_order_is_not_told_of_again(make):
    """The alarm is in the journal; another order's is its own."""
    bench = await opened(make)
    await execute(bench, bench.stops[0], "90", "0.5")
    assert len(texts(bench)) == 1
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet()
    (stop,) = again.stops
    await execute(again, stop, "80", "0.25")
    assert len(texts(again)) == 1
    await again.keeper.flatten(BTC, "by hand")
    await again.quiet()
    assert len(texts(again)) == 1, "sold at 100, where the price is"


@virtual
async def test_a_correction_can_make_an_execution_worse(make):
    """Executed at 95 as far as anybody knew; the venue corrects that to 90."""
    bench = await opened(make)
    (stop,) = bench.stops
    fill = bench.venue.fill(stop.client_order_id, "0.5", D(95), at=bench.clock.now())
    bench.take(fill)
    assert texts(bench) == []
    bench.take(
        type(fill)(**{**as_dict(fill), "trade_id": "c1", "price": D(90), "replaces": fill.trade_id})
    )
    assert texts(bench) == [f"{BTC}: the stop sold 0.5 of 1 at 90, 5.2632 % worse than 95"]
    bench.take(
        type(fill)(**{**as_dict(fill), "trade_id": "c2", "quantity": D(0), "replaces": "c1"})
    )
    assert len(texts(bench)) == 1


def as_dict(fill):
    return {name: getattr(fill, name) for name in fill.__struct_fields__}


@pytest.mark.parametrize(
    ("side", "price", "sold", "words"),
    [
        (Side.BUY, "110", "108.9", "target sold 1 of 1 at 108.9, 1 % worse than 110"),
        (Side.BUY, "112", "109.5", None),
        (Side.SELL, "90", "90.9", "target bought 1 of 1 at 90.9, 1 % worse than 90"),
        (Side.SELL, "89", "90.4", None),
    ],
)
@virtual
async def test_a_target_is_compared_with_its_level(make, side, price, sold, words):
    """Not with the price that touched it: at 112 a sale at 109.5 is 0.4545 % below the 110 that were asked for."""
    bench = await opened(make, side)

    def place(request):
        bench.venue.price = D(sold)
        return bench.venue._place(request)

    bench.venue.always("place_order", place)
    await see(bench, price)
    assert bench.book.positions.quantity(BTC) == 0
    assert texts(bench) == ([] if words is None else [f"{BTC}: the {words}"])


@virtual
async def test_several_targets_at_once_are_compared_with_their_mean(make):
    """Half for 105 and half for 110 should bring 107.5; 106.425 is 1 % less."""
    bench = make(keeper=True)
    parts = (Target(D(105), D("0.5")), Target(D(110), D("0.5")))
    await bench.open("1", take_profit=D(110), targets=parts)
    await bench.quiet()

    def place(request):
        bench.venue.price = D("106.425")
        return bench.venue._place(request)

    bench.venue.always("place_order", place)
    await see(bench, "110")
    assert texts(bench) == [f"{BTC}: the target sold 1 of 1 at 106.425, 1 % worse than 107.5"]


@virtual
async def test_the_target_of_a_list_is_bounded_by_its_price(make):
    """Only a venue that breaks its word executes a limit worse."""
    bench = await opened(make, lists=frozenset({ListKind.OCO}))
    target = bench.orders(OrderRole.TARGET)[-1]
    assert target.expected_price == target.limit_price == 110
    await execute(bench, target, "110")
    assert texts(bench) == []


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (Side.BUY, "flatten sold 1 of 1 at 98, 2 % worse than 100"),
        (Side.SELL, "flatten bought 1 of 1 at 102, 2 % worse than 100"),
    ],
)
@virtual
async def test_a_flatten_is_compared_with_the_quote_at_its_send(make, side, words):
    """By hand, or because no stop could be placed: the middle of the market when it left."""
    bench = await opened(make, side)
    bench.book.see_quote(Quote(BTC, D(99), D(101), AT))

    def place(request):
        bench.venue.price = D(98) if request.side is Side.SELL else D(102)
        return bench.venue._place(request)

    bench.venue.always("place_order", place)
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet()
    assert texts(bench) == [f"{BTC}: the {words}"]


@virtual
async def test_without_a_price_there_is_nothing_to_compare_with(make):
    """The position is closed all the same."""
    bench = await opened(make)
    assert bench.book.mark(BTC) is None
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet()
    assert (bench.book.positions.quantity(BTC), texts(bench)) == (0, [])


@pytest.mark.parametrize("kind", ["held", "held and refused", "left behind", "too late"])
@virtual
async def test_what_takes_the_place_of_a_stop_is_compared_with_its_level(make, kind):
    """At 93.1 the quote is no excuse: the stop was at 95, 2 % higher. So too for what could not be placed in time."""
    types = NO_STOPS | ({OrderType.STOP_LIMIT} if kind == "left behind" else set())
    if kind == "too late":
        bench = make(keeper=True)
        bench.venue.price = D("93.1")
        bench.book.see_quote(Quote(BTC, D("93.1"), D("93.1"), AT))
        await bench.open("1")
        await bench.quiet()
    else:
        bench = await opened(make, order_types=types)
        if kind == "held and refused":
            bench.venue.script("place_order", OrderRejectedError("not now"))
        await see(bench, "93.1")
        await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 0
    assert texts(bench) == [f"{BTC}: the flatten sold 1 of 1 at 93.1, 2 % worse than 95"]


@virtual
async def test_the_limit_is_the_policys(make):
    """At 3 % a stop that is executed 2 % lower is nothing to tell; at zero any is."""
    bench = await opened(make, policy=ProtectionPolicy(alert_slippage_pct=D(3)))
    await execute(bench, bench.stops[0], "93.1")
    assert texts(bench) == []
    strict = await opened(make, policy=ProtectionPolicy(alert_slippage_pct=D(0)))
    (stop,) = strict.stops
    await execute(strict, stop, "95", "0.5")
    assert texts(strict) == []
    await execute(strict, stop, "94.9", "0.5")
    assert texts(strict) == [f"{BTC}: the stop sold 1 of 1 at 94.95, 0.0526 % worse than 95"]


@virtual
async def test_entries_are_not_its_business(make):
    """They are compared where their result is made."""
    bench = make(keeper=True)
    order = await bench.open("1", price="100")
    await asyncio.sleep(0)
    assert order.role is OrderRole.ENTRY
    assert texts(bench) == []
