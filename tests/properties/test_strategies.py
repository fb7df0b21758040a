"""The strategies generate what they promise: valid values, and all kinds of them."""

from datetime import UTC
from decimal import Decimal
from itertools import pairwise

from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from execkit.exchanges.matching import MatchingCore
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO
from execkit.orders.shape import malformed_fill, malformed_report
from execkit.testing import strategies as xk
from execkit.testing.mock import MockExchange
from execkit.virtual_time import run_virtual

FEW = settings(max_examples=60)


@FEW
@given(st.data())
def test_a_venue_with_the_instrument_takes_every_request(data):
    """A generated order passes every filter of the venue whose rules it was made for."""
    instrument = data.draw(xk.instruments())
    price = data.draw(xk.prices(instrument))
    request = data.draw(xk.requests(instrument, price=price))
    rich = Decimal(10) ** 30
    core = MatchingCore({instrument.base: rich, instrument.quote: rich}, instruments=[instrument])
    core.set_price(instrument.symbol, price)
    core.place(request, xk.START)
    assert core.order(request.client_order_id).quantity == request.quantity


@FEW
@given(st.data())
def test_prices_and_quantities_are_on_the_steps(data):
    """Rounding changes neither."""
    instrument = data.draw(xk.instruments())
    price = data.draw(xk.prices(instrument))
    quantity = data.draw(xk.quantities(instrument, price))
    assert instrument.round_price(price) == price > ZERO
    assert instrument.round_quantity(quantity) == quantity >= instrument.smallest_quantity(price)


@FEW
@given(xk.signals(), xk.quotes(), xk.times())
def test_signals_quotes_and_times_are_valid(signal, quote, time):
    """They pass their own checks, and protection stands on the right sides."""
    assert isinstance(signal, TradingSignal)
    assert quote.checked() is quote
    assert time.tzinfo is UTC
    if signal.stop_loss is not None:
        assert (signal.take_profit - signal.stop_loss) * signal.side.sign > ZERO


@FEW
@given(xk.bar_series(min_size=1, max_size=20, gaps=True))
def test_series_are_in_order_and_join(series):
    """Each bar is valid and newer than the one before, and opens where that closed."""
    for bar in series:
        assert bar.checked() is bar
    for before, after in pairwise(series):
        assert after.close_time > before.close_time
        assert after.open == before.close


@FEW
@given(xk.order_histories())
def test_histories_end_as_they_add_up(history):
    """The fills add up to what the last report says, and all news have the right form."""
    reports = [each for each in history.news if isinstance(each, OrderReport)]
    assert reports[-1].filled == history.filled <= history.request.quantity
    assert all(malformed_report(each) is None for each in reports)
    assert all(malformed_fill(each) is None for each in history.news if isinstance(each, Fill))
    assert (history.end is OrderState.FILLED) is (history.filled == history.request.quantity)


@FEW
@given(xk.fault_scripts(), xk.requests(price=Decimal(42_000), types=[OrderType.LIMIT]))
def test_a_mock_takes_every_script(script, request):
    """A call under any script ends, well or with an error."""

    async def main(clock):
        exchange = MockExchange(script=script, clock=clock)
        try:
            await exchange.place_order(request)
        except Exception as error:
            return type(error)

    run_virtual(main)


def some(strategy, condition):
    """Find a value; the smallest one is not asked for."""
    find(strategy, condition, settings=settings(phases=[Phase.generate], database=None))


def test_all_kinds_come():
    """Nothing interesting is out of reach: a gap, a partial fill, every order type, an empty bar, base fees."""
    some(xk.bar_series(min_size=2, gaps=True), lambda s: s[1].open_time > s[0].close_time)
    some(xk.bars(), lambda bar: bar.is_empty)
    some(xk.order_histories(), lambda h: ZERO < h.filled < h.request.quantity)
    some(xk.instruments(), lambda i: i.fee_in_base and i.maker_fee < ZERO)
    some(xk.fault_scripts(), lambda s: len(s.faults) == 4)
    for kind in OrderType:
        some(xk.requests(price=Decimal(42_000)), lambda r, kind=kind: r.type is kind)
        if kind is not OrderType.TRAILING_STOP:
            some(xk.signals(price=Decimal(42_000)), lambda s, kind=kind: s.order_type is kind)
    for side in Side:
        some(xk.signals(sides=[side]), lambda s, side=side: s.side is side)
