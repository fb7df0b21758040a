"""Orders move along the edges of the table only, and reductions never turn a position."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import AT, BTC, ask, changed, fill, filled, intent, order

from execkit.errors import InvalidTransitionError
from execkit.model.instrument import Instrument
from execkit.model.order import OrderEvent, OrderRole, OrderState, Side
from execkit.model.records import CommandSent, Filled
from execkit.orders.book import Book
from execkit.orders.commands import Reduction
from execkit.orders.proofs import fit_reduction, reducible, reduction_intent
from execkit.orders.states import TRANSITIONS

events = st.sampled_from(
    [e for e in OrderEvent if e not in (OrderEvent.FILL, OrderEvent.FILL_PART)]
)
parts = st.integers(1, 30).map(lambda n: fill(f"t{n}", quantity=Decimal(n) / 10))
amounts = st.integers(1, 60).map(lambda n: Decimal(n) / 10)
changes = amounts.map(lambda size: changed(OrderEvent.AMEND, quantity=size)) | amounts.map(
    lambda size: CommandSent(client_order_id="o1", command="amend", quantity=size)
)


@given(st.lists(events.map(changed) | changes | parts, max_size=30))
def test_only_edges_of_the_table_are_taken(steps):
    """I6 I7 I8: whatever happens in whatever order; a refused event changes nothing, a closed order stays closed."""
    subject = order(quantity="3")
    for step in steps:
        before, state = msgspec.to_builtins(subject), subject.state
        if isinstance(step, type(fill())):
            if step.trade_id in subject.trades:
                continue
            subject.execute(step, AT)
            assert subject.state in set(TRANSITIONS[state].values())
        elif isinstance(step, CommandSent):
            subject.change(step, AT)
            assert subject.state is state
        elif step.event in TRANSITIONS[state]:
            subject.change(step, AT)
            reached = {
                TRANSITIONS[state][step.event],
                OrderState.PARTIALLY_FILLED,
                OrderState.FILLED,
            }
            assert subject.state in reached
        else:
            try:
                subject.change(step, AT)
            except InvalidTransitionError:
                assert msgspec.to_builtins(subject) == before
            else:
                raise AssertionError(f"{state} took {step.event}")
        if state.is_closed:
            assert subject.state is state
        assert subject.filled == sum(each.quantity for each in subject.fills)
        assert 0 <= subject.remaining <= subject.remaining_at_most
        if subject.state is OrderState.PARTIALLY_FILLED:
            assert subject.filled > 0
        if subject.state is OrderState.ACCEPTED:
            assert subject.filled == 0


INSTRUMENT = Instrument.default(BTC, lot_size=Decimal("0.1"), min_quantity=Decimal("0.2"))
roles = st.sampled_from([OrderRole.EXIT, OrderRole.STOP, OrderRole.FLATTEN, OrderRole.TARGET])


@given(
    st.sampled_from(Side),
    amounts,
    st.lists(
        st.tuples(
            roles,
            st.integers(1, 80).map(lambda n: Decimal(n) / 10),
            st.sampled_from(["submit", "accept", "lose", "fill", "cancel", "replace", "grow"]),
            st.integers(1, 10).map(lambda n: Decimal(n) / 10),
        ),
        max_size=12,
    ),
)
def test_reductions_never_turn_a_position(side, held, tries):
    """I13: whatever live reductions there are, all of them executed whole leave the position flat at most."""
    book = Book()
    book.apply(intent("e", parent="e", side=side, quantity=held), AT)
    book.apply(filled("e", "e", held, side=side), AT)
    for number, (role, asked, fate, share) in enumerate(tries):
        command = Reduction(
            instrument=INSTRUMENT,
            side=side.opposite,
            quantity=asked,
            role=role,
            parent=f"p{number % 3}",
            position_id=f"{BTC}#1",
        )
        fitted = fit_reduction(command, book)
        if not isinstance(fitted, Reduction):
            assert min(reducible(book, BTC, side.opposite), asked) < Decimal("0.2")
            continue
        assert Decimal("0.2") <= fitted.quantity <= asked
        assert INSTRUMENT.on_lot(fitted.quantity)
        made = reduction_intent(fitted, "a", book)
        key = made.request.client_order_id
        book.apply(made, AT)
        _let_happen(book, key, fate, share)
        live = [o for o in book.orders.open_reductions(BTC) if o.side is side.opposite]
        worst = sum((o.remaining_at_most for o in live), Decimal(0))
        assert worst <= abs(book.positions.quantity(BTC))


def _let_happen(book, key, fate, share):
    subject = book.orders[key]
    if fate == "fill":
        part = (subject.quantity * share).quantize(Decimal("0.1"))
        if part:
            done = fill(f"t-{key}", key, part, side=subject.side)
            book.apply(Filled(fill=done, source="stream"), AT)
        return
    book.apply(changed("submit", key), AT)
    if fate == "grow":
        room = reducible(book, BTC, subject.side, replaces=(key,))
        book.apply(changed("accept", key), AT)
        ask(subject, quantity=room)
    elif fate not in ("submit", "replace"):
        book.apply(changed(fate, key), AT)
