"""Sizing never exceeds a limit, is never off the lot, and follows its inputs."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from execkit.model.instrument import Instrument
from execkit.model.order import OrderType, Side
from execkit.numbers import is_multiple
from execkit.risk.checks import largest_quantity
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    Room,
    SizingInputs,
    fit,
)


def exact(low, high, places=8):
    """Decimals of up to 17 digits."""
    return st.decimals(low, high, places=places, allow_nan=False, allow_infinity=False)


PRICES = st.one_of(exact("0.00000001", 1), exact("0.01", 100_000, 2), exact(1, 1000, 8))
MONEYS = exact(-1000, 10_000_000, 6)
STEPS = st.sampled_from(["1", "0.05", "0.1", "0.001", "0.00025", "0.00000001", "5", "100"])


@st.composite
def rooms(draw):
    price = draw(PRICES)
    cost = draw(st.none() | st.builds(lambda more: price * (1 + more / 100), exact(0, 10, 3)))
    return Room(
        price=price,
        size_limit=draw(MONEYS),
        position=draw(MONEYS),
        position_limit=draw(MONEYS),
        exposure=draw(MONEYS),
        exposure_limit=draw(MONEYS),
        cost=cost,
        cash=draw(MONEYS),
    )


@st.composite
def instruments(draw):
    return Instrument.default(
        "A/B",
        lot_size=Decimal(draw(STEPS)),
        max_quantity=draw(st.none() | exact("0.0001", 10_000, 4)),
        market_max_quantity=draw(st.none() | exact("0.0001", 10_000, 4)),
        max_notional=draw(st.none() | exact(1, 1_000_000, 2)),
    )


WISHES = exact("-1", 100_000, 8)
TYPES = st.sampled_from(OrderType)


@given(WISHES, rooms(), instruments(), TYPES, PRICES)
def test_no_limit_is_exceeded(wanted, room, instrument, order_type, reference):
    """Computed with exact fractions: order, position, exposure, cash, the venue's maxima and the wish itself."""
    quantity, cause = fit(
        wanted, room, instrument, order_type=order_type, reference_price=reference
    )
    assert quantity >= 0
    assert is_multiple(quantity, instrument.lot_size)
    if quantity == 0:
        return
    notional = Fraction(quantity) * Fraction(room.price)
    assert quantity <= wanted
    assert cause or wanted - quantity < instrument.lot_size
    assert notional <= room.size_limit
    assert Fraction(room.position) + notional <= room.position_limit
    assert Fraction(room.exposure) + notional <= room.exposure_limit
    if room.cost is not None:
        assert Fraction(quantity) * Fraction(room.cost) <= room.cash
    largest = largest_quantity(instrument, order_type)
    assert largest is None or quantity <= largest
    if instrument.max_notional is not None:
        assert Fraction(quantity) * Fraction(reference) <= instrument.max_notional
    assert room.check(quantity) is None, "what fits is what the check of a stated quantity accepts"


@given(WISHES, rooms(), instruments(), TYPES, PRICES)
def test_nothing_is_given_away(wanted, room, instrument, order_type, reference):
    """One lot more would pass the wish, a limit or a maximum of the venue."""
    quantity, _ = fit(wanted, room, instrument, order_type=order_type, reference_price=reference)
    more = quantity + instrument.lot_size
    largest = largest_quantity(instrument, order_type)
    assert (
        more > wanted
        or room.check(more) is not None
        or (largest is not None and more > largest)
        or (
            instrument.max_notional is not None
            and Fraction(more) * Fraction(reference) > instrument.max_notional
        )
    )


@given(WISHES, WISHES, rooms(), instruments(), TYPES, PRICES)
def test_fit_is_monotone(first, second, room, instrument, order_type, reference):
    """A larger wish never gets less."""
    low, high = sorted([first, second])
    terms = {"order_type": order_type, "reference_price": reference}
    assert fit(low, room, instrument, **terms)[0] <= fit(high, room, instrument, **terms)[0]


@given(exact(0, 10_000_000, 2), exact(0, 10_000_000, 2), PRICES, PRICES, exact("0.01", 100, 2))
def test_methods_are_monotone_and_never_round_up(equity, more, price, distance, pct):
    """More equity never wants less, a dearer or riskier unit never wants more; percent means percent."""

    def make(equity, price, distance):
        return SizingInputs(
            symbol="A/B",
            side=Side.BUY,
            equity=equity,
            price=price,
            stop_distance=distance,
            strength=Decimal(100),
        )

    now = make(equity, price, distance)
    share, risk = PercentOfEquity(pct).quantity(now), RiskPerTrade(pct).quantity(now)
    part = Fraction(equity) * Fraction(pct) / 100
    assert 0 <= Fraction(share) * Fraction(price) <= part
    assert 0 <= Fraction(risk) * Fraction(distance) <= part
    richer = make(equity + more, price, distance)
    assert PercentOfEquity(pct).quantity(richer) >= share
    assert RiskPerTrade(pct).quantity(richer) >= risk
    dearer = make(equity, price * 2, distance * 2)
    assert PercentOfEquity(pct).quantity(dearer) <= share
    assert RiskPerTrade(pct).quantity(dearer) <= risk
    assert FixedQuantity(pct).quantity(dearer) == FixedQuantity(pct).quantity(now) == pct
    assert FixedNotional(pct).quantity(dearer) <= FixedNotional(pct).quantity(now)
