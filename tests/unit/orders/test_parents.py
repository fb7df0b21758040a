"""What is kept of orders in slices, and for how long."""

from datetime import UTC, datetime
from decimal import Decimal

import attrs
import pytest
from msgspec.structs import replace
from tests.support.orders import AT, BTC, filled, intent
from tests.support.tickets import ticket

from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, Side
from execkit.model.position import Position
from execkit.model.records import ParentEnded, ParentOrder
from execkit.orders.book import Book
from execkit.orders.parents import KEEP_ENDED, ParentBook
from execkit.orders.proofs import deny_slice

D = Decimal


def parent_order(name, side=Side.BUY, **changes):
    return ParentOrder(
        parent_id=name,
        symbol=BTC,
        side=side,
        quantity=D(4),
        slices=(),
        signal="{}",
        **changes,
    )


def test_ended_ones_are_remembered_for_a_while():
    """The last hundred; one at work is never forgotten."""
    parents = ParentBook()
    parents.apply(parent_order("works"), {})
    for number in range(KEEP_ENDED + 1):
        parents.apply(parent_order(f"p{number}"), {})
        parents.apply(ParentEnded(parent_id=f"p{number}", reason="over"), {})
    assert parents.get("p0") is None
    assert parents.get("p1").ended == "over"
    assert [each.record.parent_id for each in parents.live] == ["works"]


def test_one_that_has_begun_is_not_begun_again():
    """The first terms stay while it works; after an end without a single part the new ones count."""
    parents = ParentBook()
    parents.apply(parent_order("p", price=D(1)), {})
    parents.apply(parent_order("p", price=D(2)), {})
    assert parents.get("p").record.price == 1
    parents.apply(ParentEnded(parent_id="p", reason="over"), {})
    parents.apply(ParentEnded(parent_id="p", reason="twice"), {})
    assert parents.get("p").ended == "over"
    parents.apply(parent_order("p", price=D(3)), {})
    assert (parents.get("p").record.price, parents.get("p").ended) == (3, None)


def test_which_ones_a_command_ends():
    """Of one symbol or of any, and where entries are meant no exits."""
    parents = ParentBook()
    parents.apply(parent_order("in"), {})
    parents.apply(parent_order("out", Side.SELL, is_reduction=True), {})

    def ended(*arguments, **options):
        return [each.parent_id for each in parents.endings(*arguments, **options)]

    assert ended(None, "why") == ended(BTC, "why") == ["in", "out"]
    assert ended(BTC, "why", entries=True) == ["in"]
    assert ended("ETH/USDT", "why") == []
    (ending,) = parents.endings(BTC, "why", entries=True)
    assert ending.reason == "why; 4 not executed"


@pytest.mark.parametrize(
    ("side", "is_reduction", "begun_on", "open_now", "outlived"),
    [
        (Side.BUY, False, "", None, False),
        (Side.BUY, False, "", (1, "#1"), False),
        (Side.BUY, False, "", (-1, "#1"), True),
        (Side.SELL, False, "", (1, "#1"), True),
        (Side.SELL, False, "", (-1, "#1"), False),
        (Side.BUY, False, "#1", (1, "#1"), False),
        (Side.BUY, False, "#1", (1, "#2"), True),
        (Side.BUY, False, "#1", None, True),
        (Side.SELL, True, "#1", (1, "#1"), False),
        (Side.SELL, True, "#1", (1, "#2"), True),
        (Side.SELL, True, "#1", None, True),
        (Side.SELL, True, "", (1, "#1"), False),
    ],
)
def test_when_an_order_has_outlived_its_position(side, is_reduction, begun_on, open_now, outlived):
    """It is another one, or none; before the first execution only one the other way counts."""
    parents = ParentBook()
    record = parent_order("p", side, is_reduction=is_reduction, position_id=begun_on)
    parents.apply(record, {})
    position = None
    if open_now is not None:
        quantity, name = open_now
        position = Position(
            position_id=name,
            symbol=BTC,
            quantity=D(quantity),
            average_price=D(100),
            opened_at=datetime(2024, 1, 1, tzinfo=UTC),
        )
    assert parents.get("p").is_outlived(position) is outlived


def sold(order_id, quantity):
    """Return the records of an exit that is executed."""
    return (
        intent(order_id, parent=order_id, role=OrderRole.EXIT, side=Side.SELL, quantity=quantity),
        filled(order_id, order_id, quantity=quantity, side=Side.SELL),
    )


def test_no_part_leaves_for_a_position_that_is_closed():
    """The gateway sees it in the book itself, whether or not anybody has ended the order yet."""
    book = Book()
    part = ticket("p/1")
    part = replace(part, signal=attrs.evolve(part.signal, slice_of="p"))
    for record in (
        parent_order("p"),
        intent("c", parent="p/0", quantity="1", slice_of="p"),
        filled("c", "c", quantity="1"),
    ):
        book.apply(record, AT)
    assert book.parents.get("p").position_id == f"{BTC}#1"
    assert deny_slice(part, book, "") is None
    for record in sold("x", "1"):
        book.apply(record, AT)
    assert book.parents.get("p").ended is None
    denied = deny_slice(part, book, "")
    assert denied.code is DenialCode.PARENT_EXCEEDED
    assert denied.context == {"parent": "p", "ended": "its position is not the open one"}
    for record in (intent("z", parent="z", quantity="1"), filled("z", "z", quantity="1")):
        book.apply(record, AT)
    assert deny_slice(part, book, "") == denied


def test_a_child_of_a_forgotten_parent_is_an_order_like_others():
    """Its parent has ended a hundred parents ago."""
    book = Book()
    for record in (
        intent("c", parent="p/0", quantity="1", slice_of="p"),
        filled("c", "c", quantity="1"),
    ):
        book.apply(record, AT)
    assert book.positions.quantity(BTC) == 1
    assert book.parents.get("p") is None
