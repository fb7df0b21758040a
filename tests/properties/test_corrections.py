"""Corrections of corrections: in whatever order and with whatever gaps they come, what stands counts, and once."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.bench import Bench
from tests.support.orders import BTC, fill, later
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue

from execkit.model.order import OrderState
from execkit.model.records import ExternalChange
from execkit.numbers import ZERO
from execkit.testing.simulate import quiet
from execkit.virtual_time import run_virtual

ORDERED = Decimal(10)


@st.composite
def chains(draw, name, *, may_bust=True):
    """Return an execution and its corrections, each of the one before: another price, a part of it, or nothing."""
    quantity = draw(st.integers(1, 4))
    found = [fill(f"{name}0", quantity=str(quantity), at=later(draw(st.integers(0, 3))))]
    for number in range(1, draw(st.integers(1, 4))):
        busts = may_bust and draw(st.integers(0, 5)) == 0
        found.append(
            replace(
                found[-1],
                trade_id=f"{name}{number}",
                replaces=found[-1].trade_id,
                price=Decimal(100 + number),
                quantity=ZERO if busts else Decimal(draw(st.integers(1, quantity))),
            )
        )
        if busts:
            break
    return found


@st.composite
def stories(draw):
    """Return chains, what the stream tells of them and when the process ends, and whether a list shows the past."""
    lists_all = draw(st.booleans())
    found = [
        draw(chains(name, may_bust=lists_all)) for name in ("a", "b")[: draw(st.integers(1, 2))]
    ]
    news = [each for chain in found for each in chain]
    told = draw(st.lists(st.sampled_from(news), max_size=2 * len(news)))
    ends = draw(st.none() | st.integers(0, len(told)))
    return found, told, ends, lists_all


async def take(bench, news, at_most):
    """Tell of executions; at no moment may more of the order be counted than any version of them amounts to."""
    order = bench.order()
    for each in news:
        bench.take(replace(each, client_order_id=order.client_order_id))
        assert order.filled <= at_most
        if len(news) % 2:
            await bench.quiet()
            assert order.filled <= at_most


@given(stories())
@settings(max_examples=100, deadline=None)
def test_what_stands_counts_once(story):
    """B12 I5: after drops, repetitions, any order and a restart, order, position and cash are the venue's."""
    found, told, ends, lists_all = story
    ends_with = [chain[-1] for chain in found]
    standing = [each for each in ends_with if each.quantity]
    at_most = sum((max(each.quantity for each in chain) for chain in found), ZERO)

    async def main(clock):
        venue = ScriptedVenue()
        bench = Bench(clock, venue)
        bench.siblings = benches = [bench]
        venue.script("place_order", venue.accept)
        sent = await bench.gateway.send(entry(quantity=str(ORDERED), limit="100"))
        assert sent.denial is None, sent.denial
        key = sent.order.client_order_id

        def of_order(fills):
            return [replace(each, client_order_id=key) for each in fills]

        listed = of_order([each for chain in found for each in chain] if lists_all else standing)
        venue.fills = of_order(standing)
        venue.always("fills_since", lambda _since: listed)
        venue.orders[key] = replace(
            venue.orders[key],
            filled=sum((each.quantity for each in standing), ZERO),
            status=OrderState.PARTIALLY_FILLED if standing else OrderState.ACCEPTED,
        )
        if ends is None:
            await take(bench, told, at_most)
        else:
            await take(bench, told[:ends], at_most)
            bench = await bench.restart()
            await bench.reconciler.start()
            await take(bench, told[ends:], at_most)
        await bench.quiet(90)
        await bench.reconciler.run()
        await bench.quiet(90)
        order = bench.order()
        assert order.filled == sum((each.quantity for each in standing), ZERO)
        assert order.filled_notional == sum((each.notional for each in standing), ZERO)
        assert bench.book.positions.quantity(BTC) == order.filled
        assert bench.book.cash.get("USDT", ZERO) == -order.filled_notional
        assert "OVERFILL" not in bench.alarms
        assert not bench.book.blocked
        assert not bench.journal.records(ExternalChange), "no difference was left to explain"
        assert not bench.gateway.intake.corrections.orders
        for each in benches:
            await each.stop()

    with quiet():
        run_virtual(main)
