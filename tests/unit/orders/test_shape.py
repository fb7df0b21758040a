"""What an adapter hands in has the types and the form that the journal can keep."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.orders.shape import malformed_fill, malformed_report

AT = datetime(2024, 1, 1, tzinfo=UTC)
FILL = Fill(
    trade_id="t1",
    client_order_id="c1",
    venue_order_id="v1",
    symbol="BTC/USDT",
    side=Side.BUY,
    quantity=Decimal(1),
    price=Decimal(42_000),
    at=AT,
)
REPORT = OrderReport(
    client_order_id="c1",
    venue_order_id="v1",
    symbol="BTC/USDT",
    side=Side.BUY,
    type=OrderType.LIMIT,
    quantity=Decimal(1),
    status=OrderState.ACCEPTED,
    limit_price=Decimal(42_000),
    fills=(FILL,),
    updated_at=AT,
)


def test_right_values_have_the_form():
    """A report and a fill as adapters should build them, also with nothing optional."""
    assert malformed_report(REPORT) is None
    assert malformed_fill(FILL) is None
    bare = msgspec.structs.replace(REPORT, fills=(), limit_price=None, updated_at=None)
    assert malformed_report(bare) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"venue_order_id": 17}, "venue_order_id 17 of type int"),
        ({"venue_order_id": None}, "venue_order_id None"),
        ({"symbol": ["BTC/USDT"]}, "symbol"),
        ({"side": "buy"}, "of type str"),
        ({"type": "limit"}, "of type str"),
        ({"status": "accepted"}, "of type str"),
        ({"status": OrderState.NEW}, "the status new, which is ours"),
        ({"status": OrderState.PRESUMED_ABSENT}, "which is ours"),
        ({"quantity": 1.0}, "quantity 1.0 of type float"),
        ({"quantity": True}, "of type bool"),
        ({"filled": Decimal("NaN")}, "filled NaN"),
        ({"filled": Decimal("sNaN")}, "filled sNaN"),
        ({"filled": Decimal("1e400")}, "filled 1E+400"),
        ({"limit_price": Decimal("-Infinity")}, "limit_price -Infinity"),
        ({"stop_price": Decimal("1." + "1" * 60)}, "more than 40 digits"),
        ({"stop_price": Decimal("1e-60")}, "more than 40 digits"),
        ({"updated_at": datetime(2024, 1, 1)}, "without a time zone"),
        ({"updated_at": "2024-01-01"}, "of type str"),
        ({"reason": b"x" * 100}, "..."),
        ({"code": 2010}, "code 2010 of type int"),
        ({"fills": [FILL]}, "of type list"),
        ({"fills": (None,)}, "has NoneType in the place of a Fill"),
        ({"fills": (msgspec.structs.replace(FILL, fee=0.1),)}, "fee 0.1 of type float"),
    ],
)
def test_a_report_in_the_wrong_form_is_named(changes, problem):
    """The text says which field and how it is wrong."""
    assert problem in malformed_report(msgspec.structs.replace(REPORT, **changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trade_id": 5}, "trade_id"),
        ({"maker": "yes"}, "maker"),
        ({"replaces": 5}, "replaces"),
        ({"price": 42_000.0}, "price"),
        ({"at": datetime(2024, 1, 1)}, "without a time zone"),
    ],
)
def test_a_fill_in_the_wrong_form_is_named(changes, problem):
    """A fill is checked in the same way."""
    assert problem in malformed_fill(msgspec.structs.replace(FILL, **changes))


@pytest.mark.parametrize("value", [None, "ok", {}, FILL])
def test_something_else_is_no_report(value):
    """What is no report at all is said so."""
    assert "no OrderReport" in malformed_report(value)
