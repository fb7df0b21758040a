"""Terms that the venue shows and nobody asked for: news, or an old answer."""

from decimal import Decimal

import pytest
from tests.support import orders as make
from tests.support.orders import AT, ask, changed, later, report

from execkit.model.order import OrderState, OrderType
from execkit.orders.altered import Altered, altered

D = Decimal
LONG_AGO = later(-60)


def stop(*events, **details):
    """Return a stop of 1 at 95 that rests, after some events."""
    return make.order("submit", "accept", *events, quantity="1", stop="95", **details)


def found(order, status=OrderState.ACCEPTED, *, settled=LONG_AGO, **told):
    return altered(order, report(order, status, **told), settled=settled)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, Altered()),
        ({"quantity": D("0.5")}, Altered(quantity=D("0.5"))),
        ({"quantity": D(2)}, Altered(quantity=D(2))),
        ({"stop_price": D(50)}, Altered(stop_price=D(50))),
        ({"quantity": D(2), "stop_price": D(50)}, Altered(quantity=D(2), stop_price=D(50))),
        # not stated, stated as nothing, or rounded
        ({"stop_price": None}, Altered()),
        ({"stop_price": D(0)}, Altered()),
        ({"stop_price": D("95.009")}, Altered()),
        ({"stop_price": D("95.01")}, Altered(stop_price=D("95.01"))),
        # a limit that is none of a stop, and a stop that has become a market order
        ({"limit_price": D(94)}, Altered()),
        ({"type": OrderType.MARKET, "stop_price": D(1), "limit_price": D(2)}, Altered()),
        # older by what is executed
        ({"quantity": D(2), "status": OrderState.PENDING_CANCEL}, Altered(quantity=D(2))),
        ({"quantity": D(2), "status": OrderState.HELD}, Altered()),
        ({"quantity": D(2), "status": OrderState.CANCELLED}, Altered()),
    ],
)
def test_what_nobody_asked_for(told, expected):
    """C12: quantity and prices of an order that rests, as far as its type has them and the venue states them."""
    assert found(stop(), **told) == expected


def test_both_prices_of_a_stop_limit_count():
    """Of a limit order its limit; of a trailing stop none, because it moves by itself."""
    both = make.order("submit", "accept", stop="95", limit="94", type=OrderType.STOP_LIMIT)
    assert found(both, stop_price=D(90), limit_price=D(89)) == Altered(
        stop_price=D(90), limit_price=D(89)
    )
    limit = make.order("submit", "accept", limit="94")
    assert found(limit, limit_price=D(89), stop_price=D(1)) == Altered(limit_price=D(89))
    trailing = make.order("submit", "accept", stop="95", type=OrderType.TRAILING_STOP)
    assert not found(trailing, stop_price=D(97))


def test_an_answer_from_before_shows_what_was():
    """I22 B8: by its date, by what it has executed, and by terms that the order had before our change."""
    order = stop(changed("amend", stop_price=D(97), venue_at=later(5)))
    order.change(changed("amend", stop_price=D(98), venue_at=later(6)), later(6))
    for earlier in (95, 97):
        assert not found(order, stop_price=D(earlier))
        assert not found(order, stop_price=D(earlier), updated_at=later(6))
        assert not found(order, stop_price=D(earlier), settled=later(6))
        back = Altered(stop_price=D(earlier))
        assert found(order, stop_price=D(earlier), updated_at=later(7)) == back
        # The venue dates nothing, and no answer can be as old as that.
        assert found(order, stop_price=D(earlier), settled=later(7)) == back
    assert found(order, stop_price=D(96)) == Altered(stop_price=D(96))
    assert not found(order, stop_price=D(96), updated_at=later(4))
    part = stop(make.fill(quantity="0.4"))
    assert not found(part, quantity=D(2), filled=D("0.3"))
    assert found(part, quantity=D(2)) == Altered(quantity=D(2))


def test_while_a_change_is_asked_for_nothing_follows():
    """Old, new, or something else: what came of ours is not known yet."""
    order = stop()
    ask(order, stop_price=96)
    assert not found(order, stop_price=D(94))
    order.change(changed("refuse_amend"), AT)
    assert found(order, stop_price=D(94)) == Altered(stop_price=D(94))


def test_what_was_executed_whole_was_that_large():
    """Whatever was known or asked; prices do not matter any more."""
    order = stop()
    half = {"quantity": D("0.5"), "filled": D("0.5"), "stop_price": D(50)}
    assert found(order, OrderState.FILLED, **half) == Altered(quantity=D("0.5"))
    assert not found(order, OrderState.FILLED, filled=D(1))
    assert not found(order, OrderState.FILLED, quantity=D(2), filled=D(1))
    assert not found(order, OrderState.FILLED, quantity=D(0), filled=D(0))
    ask(order, quantity=2)
    assert found(order, OrderState.FILLED, **half) == Altered(quantity=D("0.5"))


def test_what_is_remembered_of_changes_is_bounded():
    """A stop that follows the price for days keeps the terms of its last fifty changes."""
    order = stop()
    for n in range(60):
        order.change(changed("amend", stop_price=D(100 + n)), AT)
    assert [terms.stop_price for terms in order.former_terms] == [D(100 + n) for n in range(9, 59)]


def test_what_is_told_of_it():
    """Each term with what it was; more than was asked for is larger."""
    order = make.order(
        "submit", "accept", quantity="1", stop="95", limit="94", type=OrderType.STOP_LIMIT
    )
    change = Altered(quantity=D("0.5"), limit_price=D(89), stop_price=D(90))
    assert change.text(order) == (
        "quantity 0.5 instead of 1, limit price 89 instead of 94, stop price 90 instead of 95"
    )
    assert not change.is_larger_than(order)
    assert not Altered(stop_price=D(90)).is_larger_than(order)
    assert Altered(quantity=D("1.1")).is_larger_than(order)
    ask(order, quantity=2)
    assert not Altered(quantity=D(2)).is_larger_than(order)
