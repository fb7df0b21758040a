"""The life of orders and executions at TWS: what overtakes, repeats, corrects, comes late, or never comes."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import msgspec
import pytest
from tests.support.ibkr import AAPL, Updates, adapter_of, on_the_wire, order

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InvalidOrderError,
    NotSentError,
    OrderNotFoundError,
    OrderStatusUnknownError,
)
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderState,
    OrderType,
    Side,
    StreamGap,
)
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.control import TwsControl
from execkit.testing.venues.tws.server import WireTws
from execkit.testing.venues.tws.wire import frame

MARKET = {"type": OrderType.MARKET}
AGO = timedelta(hours=1)


def is_fill(update):
    return isinstance(update, Fill)


async def fills_of(adapter, venue):
    return await adapter.fills_since(venue.clock.now() - AGO)


# -- executions ------------------------------------------------------------------------------------------


async def test_correction_replaces():
    """Execution .02 takes the place of .01: on the stream, in reads, and in what the order has filled (B12)."""
    async with on_the_wire() as (venue, adapter):
        request = order(**MARKET)
        await adapter.place_order(request)
        updates = Updates(adapter)
        venue.orders.correct(venue.orders.executions[0], Decimal(6))
        fixed = await updates.until(is_fill)
        assert (fixed.quantity, fixed.replaces) == (6, "0000e0d5.00000001.01")
        assert fixed.trade_id == "0000e0d5.00000001.01.02"
        assert [f.quantity for f in await fills_of(adapter, venue)] == [6]
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert found.filled == 6


async def test_execution_is_counted_once():
    """The same execution twice by stream and again by query is one fill with one id (B3, B4)."""
    async with on_the_wire() as (venue, adapter):
        updates = Updates(adapter)
        venue.fault("stream", Mishap.DUPLICATE, only=lambda call: call[0] == "execDetails")
        await adapter.place_order(order(**MARKET))
        await updates.until(lambda u: getattr(u, "status", None) is OrderState.FILLED)
        told = [u for u in (*updates.seen, *updates.waiting()) if is_fill(u)]
        asked = await fills_of(adapter, venue)
        assert [f.trade_id for f in told] == [f.trade_id for f in asked]
        assert told[0].quantity == 10


@pytest.mark.parametrize("lost", ["openOrder", "orderStatus", "both"])
async def test_executions_alone_are_enough(lost):
    """No openOrder, no status, only an execution: the order is filled, and the answer says so (B1, B11)."""
    names = ("openOrder", "orderStatus") if lost == "both" else (lost,)
    async with on_the_wire() as (venue, adapter):
        venue.fault("stream", Mishap.LOSE, times=9, only=lambda call: call[0] in names)
        report = await adapter.place_order(order(**MARKET))
        assert (report.status, report.filled) == (OrderState.FILLED, 10)
        assert [fill.fee > 0 for fill in report.fills] == [True]


async def test_late_commission_updates_the_fill():
    """A commission that comes after its fill was told replaces it by one with the fee (B15)."""
    async with on_the_wire() as (venue, adapter):
        venue.commission_delay = 0.15
        updates = Updates(adapter)
        await adapter.place_order(order(**MARKET))
        first = await updates.until(is_fill)
        assert first.fee == 0
        second = await updates.until(is_fill)
        assert (second.replaces, second.fee, second.fee_asset) == (
            first.trade_id,
            Decimal("0.2"),
            "USD",
        )
        assert second.quantity == first.quantity


async def test_unknown_time_zone_loses_no_fill():
    """An execution whose zone nobody knows is dated by its arrival instead of being lost."""
    async with on_the_wire() as (venue, adapter):
        updates = Updates(adapter)
        told = venue.orders._on_execution
        venue.orders._on_execution = lambda executed: told(
            attrs.evolve(executed, at="20260102 10:00:00 Nowhere/Land")
        )
        await adapter.place_order(order(**MARKET))
        fill = await updates.until(is_fill)
        assert abs(fill.at - venue.clock.now()) < timedelta(minutes=1)


async def test_status_never_goes_back():
    """A late Submitted after Filled changes nothing (B10)."""
    async with on_the_wire() as (venue, adapter):
        request = order(**MARKET)
        await adapter.place_order(request)
        live = venue.orders.find(request.client_order_id)
        live.status, live.filled = "Submitted", Decimal(0)
        venue._show(live)
        await asyncio.sleep(0.05)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (found.status, found.filled) == (OrderState.FILLED, 10)


async def test_fill_after_cancel():
    """An execution that arrives after the cancel was confirmed still counts (C3)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        await adapter.cancel_order(AAPL, client_order_id=request.client_order_id)
        live = venue.orders.find(request.client_order_id)
        updates = Updates(adapter)
        venue.orders.apply(
            venue.core.execute(live.key, Decimal(4), Decimal(180), venue.clock.now())
        )
        assert (await updates.until(is_fill)).quantity == 4


# -- placing and finding ---------------------------------------------------------------------------------


async def test_order_on_its_way_is_no_success():
    """PendingSubmit says that TWS has it, not that anybody takes it: the outcome stays unknown (A20)."""
    async with on_the_wire() as (venue, adapter):
        show = venue.orders._on_change

        def pending(shown):
            before, shown.status = shown.status, "PendingSubmit"
            show(shown)
            shown.status = before

        venue.orders._on_change = pending
        with pytest.raises(OrderStatusUnknownError):
            await adapter.place_order(order())
        found = await adapter.get_order(AAPL, client_order_id=order().client_order_id)
        assert found.status is OrderState.ACCEPTED


@pytest.mark.parametrize("query", ["open_orders", "executions", "completed_orders"])
async def test_query_without_answer_is_never_empty(query):
    """Whichever of the three look-ups hangs: nothing is said of the order, least of all that it does not exist."""
    async with on_the_wire() as (venue, adapter):
        venue.fault(query, Mishap.HANG)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.get_order(AAPL, client_order_id=order().client_order_id)


async def test_executions_are_no_absence():
    """An order of which only a part of its executions shows was there: it is not said not to exist."""
    async with WireTws() as venue:
        first = adapter_of(venue)
        await first.connect()
        await first.place_order(order())
        live = venue.orders.find(order().client_order_id)
        venue.orders.apply(
            venue.core.execute(live.key, Decimal(4), Decimal(180), venue.clock.now())
        )
        await first.close()
        del venue.orders.by_perm[live.key]  # neither open nor completed
        second = adapter_of(venue)
        await second.connect()
        with pytest.raises(ExchangeUnavailableError):
            await second.get_order(AAPL, client_order_id=order().client_order_id)
        assert [fill.quantity for fill in await fills_of(second, venue)] == [4]
        await second.close()


async def test_late_answer_is_not_taken_for_the_next():
    """An answer that comes after its question gave up does not answer the next one."""
    async with on_the_wire() as (venue, adapter):
        venue.fault("open_orders", Mishap.DELAY, after=0.7)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.open_orders()
        before = venue.messages[16]
        reading = asyncio.ensure_future(adapter.open_orders())
        await asyncio.sleep(0.05)
        assert venue.messages[16] == before  # it waits for the answer that is still due
        assert await reading == []
        assert venue.messages[16] == before + 1


async def test_resend_has_the_same_order_id():
    """The same request again, after a lost one, also in another process, has its order id: no second order."""
    async with WireTws() as venue:
        first, request = adapter_of(venue), order()
        reserved = first.reserve(request)
        await first.connect()
        venue.fault("place", Mishap.HANG, reached=True)
        with pytest.raises(OrderStatusUnknownError):
            await first.place_order(request)
        await first.close()
        second = adapter_of(venue)
        assert second.reserve(request, reserved) == reserved
        await second.connect()
        with pytest.raises(DuplicateClientOrderIdError):  # connecting has shown it
            await second.place_order(request)
        await second.close()
        third = adapter_of(venue)
        third.reserve(request, reserved)
        venue.fault("open_orders", Mishap.CHANGE, changes={"status": "PendingSubmit"})
        await third.connect()
        report = await third.place_order(request)
        assert report.status is OrderState.ACCEPTED
        await third.close()
        assert {each.sent.order_id for each in venue.received} == {int(reserved)}
        assert (venue.sends(request.client_order_id), venue.taken(request.client_order_id)) == (
            2,
            1,
        )


async def test_id_that_is_used_up_is_given_up():
    """TWS refuses an id of an earlier process that is below others (103): the order gets a new one at its next send."""
    async with on_the_wire() as (venue, adapter):
        old, new = order("old"), order("new")
        adapter.reserve(old, "1000")
        await adapter.place_order(new)
        with pytest.raises(DuplicateClientOrderIdError) as caught:
            await adapter.place_order(old)
        assert not caught.value.outcome_known
        with pytest.raises(OrderNotFoundError):
            await adapter.get_order(AAPL, client_order_id=old.client_order_id)
        assert (await adapter.place_order(old)).status is OrderState.ACCEPTED
        assert venue.taken(old.client_order_id) == 1


async def test_orders_that_overtake_each_other():
    """An order that was reserved first and is sent last is no duplicate: it gets an id above, and is taken once."""
    async with on_the_wire() as (venue, adapter):
        for name in "abc":
            adapter.reserve(order(name))
        for name in "cba":
            assert (await adapter.place_order(order(name))).status is OrderState.ACCEPTED
        assert [venue.taken(order(name).client_order_id) for name in "abc"] == [1, 1, 1]


async def test_family_is_numbered_in_its_order():
    """Legs whose ids were overtaken are numbered anew, and the children name the parent's new id."""
    async with on_the_wire() as (venue, adapter):
        bracket = legs("b", ListKind.BRACKET)
        for leg in reversed(bracket.orders):
            adapter.reserve(leg)
        await adapter.place_order(order("other"))
        await adapter.place_list(bracket)
        sent = [each.sent for each in venue.received][1:]
        numbers = [each.order_id for each in sent]
        assert numbers == sorted(set(numbers))
        assert [each.parent_id for each in sent] == [0, numbers[0], numbers[0]]


async def test_ids_do_not_begin_again_with_the_gateway():
    """nextValidId rolls back while an order is live: a new order is a new order, not a change of the live one."""
    async with WireTws() as venue:
        first = adapter_of(venue)
        await first.connect()
        await first.place_order(order("1"))
        await first.close()
        venue.roll_back_ids()
        second = adapter_of(venue)
        await second.connect()
        await second.place_order(order("2"))
        await second.close()
        assert len(venue.orders.by_perm) == 2
        assert all(o.status == "Submitted" for o in venue.orders.by_perm.values())


async def test_order_of_another_client_cannot_be_cancelled():
    """What another API client has placed is shown, and its cancel says with which id it can be done."""
    async with on_the_wire() as (venue, adapter):
        foreign = order("x", client_order_id="manual-1")
        await TwsControl(venue, adapter).foreign_order(foreign)
        (shown,) = await adapter.open_orders()
        with pytest.raises(OrderStatusUnknownError, match="client_id=77"):
            await adapter.cancel_order(
                AAPL, client_order_id="manual-1", venue_order_id=shown.venue_order_id
            )
        assert venue.messages[4] == 0


async def test_cancel_all_cancels_ours_alone():
    """Our orders of this client id are cancelled one by one, also when one fails; all others stay."""
    async with on_the_wire() as (venue, adapter):
        for name in "abc":
            await adapter.place_order(order(name))
        elsewhere = order("d")
        control = TwsControl(venue, adapter)
        await control.foreign_order(elsewhere)
        await control.foreign_order(order("e", client_order_id="manual-1"))
        venue.fault("cancel", Mishap.ERROR, code=161, text="not cancellable")
        with pytest.raises(OrderStatusUnknownError):
            await adapter.cancel_all()
        left = {report.client_order_id for report in await adapter.open_orders()}
        assert left == {order("a").client_order_id, elsewhere.client_order_id, "manual-1"}
        assert venue.messages[58] == 0


async def test_two_orders_under_one_id_both_show():
    """A change while TWS was cut off can make two live orders of one: both are listed, by their own ids (C7)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        one = venue.orders.find(request.client_order_id)
        twin = attrs.evolve(one, perm_id=one.perm_id + 500)
        venue.orders.by_perm[twin.key] = twin
        shown = await adapter.open_orders()
        assert len({report.venue_order_id for report in shown}) == 2
        assert {report.client_order_id for report in shown} == {request.client_order_id}


# -- connection ------------------------------------------------------------------------------------------


async def test_dead_link_is_noticed_and_made_anew():
    """A half-open link shows no error by itself: the heartbeat finds it, and a gap is told at both ends (B7)."""
    async with on_the_wire() as (venue, adapter):
        updates = Updates(adapter)
        venue.go_mute()
        await updates.until(lambda u: isinstance(u, StreamGap) and "lost" in u.reason)
        with pytest.raises(NotSentError):
            await adapter.place_order(order())
        await updates.until(lambda u: isinstance(u, StreamGap) and "again" in u.reason)
        assert (await adapter.place_order(order())).status is OrderState.ACCEPTED


async def test_fills_of_a_gap_are_told():
    """What was executed while the connection was down is on the stream once it is back (B6)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        updates = Updates(adapter)
        venue.is_down = True
        venue.cut()
        await updates.until(lambda u: isinstance(u, StreamGap))
        venue.move_price(AAPL, request.limit_price)
        venue.is_down = False
        fill = await updates.until(is_fill)
        assert (fill.client_order_id, fill.quantity) == (request.client_order_id, 10)


@pytest.mark.parametrize("code", [1101, 1102])
async def test_uplink_back_is_a_gap(code):
    """After 1101 and 1102 a gap is told; prices are subscribed to anew only after 1101."""
    async with on_the_wire() as (venue, adapter):
        quotes = adapter.watch_quotes([AAPL])
        await anext(quotes)
        before = venue.messages[1]
        updates = Updates(adapter)
        venue.announce(1100)
        venue.announce(code)
        await updates.until(lambda u: isinstance(u, StreamGap))
        venue.move_price(AAPL, Decimal(201))
        while (await anext(quotes)).bid != 201:
            pass
        await asyncio.sleep(0.05)
        assert venue.messages[1] - before == (1 if code == 1101 else 0)


async def test_unreadable_message_is_a_gap():
    """A message that cannot be read is told as a gap, and the connection goes on."""
    async with on_the_wire() as (venue, adapter):
        updates = Updates(adapter)
        venue.sessions[0].send(frame(3, "x", "y"), frame(11, -1, 5))
        assert isinstance(await updates.until(lambda _u: True), StreamGap)
        assert await adapter.open_orders() == []


# -- lists, trailing stops, hours, changes -----------------------------------------------------------------


def legs(name, kind, symbol=AAPL):
    common = {"symbol": symbol}
    entry = order(f"{name}-entry", limit_price=Decimal(200), **common)
    stop = order(
        f"{name}-stop",
        side=Side.SELL,
        type=OrderType.STOP,
        stop_price=Decimal(190),
        **common,
    )
    target = order(f"{name}-target", side=Side.SELL, limit_price=Decimal(220), **common)
    chosen = {
        ListKind.BRACKET: (entry, stop, target),
        ListKind.OTO: (entry, stop),
        ListKind.OCO: (stop, target),
    }[kind]
    return OrderList(list_id=f"xklist{name}", kind=kind, orders=chosen)


async def test_bracket():
    """Entry, stop and target go out as a family: the last message transmits all; all state tif, account, orderRef."""
    async with on_the_wire() as (venue, adapter):
        bracket = legs("b", ListKind.BRACKET)
        orders = msgspec.structs.replace(
            bracket,
            orders=(
                msgspec.structs.replace(bracket.orders[0], limit_price=Decimal(195)),
                *bracket.orders[1:],
            ),
        )
        reports = await adapter.place_list(orders)
        assert [r.status for r in reports] == [
            OrderState.ACCEPTED,
            OrderState.HELD,
            OrderState.HELD,
        ]
        sent = [each.sent for each in venue.received]
        assert [each.transmit for each in sent] == [False, False, True]
        assert {each.parent_id for each in sent[1:]} == {sent[0].order_id}
        assert all(each.tif and each.account and each.ref for each in sent)
        assert {each.oca_type for each in sent[1:]} == {2}
        venue.move_price(AAPL, Decimal(195))
        stop, target = [
            await adapter.get_order(AAPL, client_order_id=leg.client_order_id)
            for leg in orders.orders[1:]
        ]
        assert (stop.status, target.status) == (OrderState.ACCEPTED, OrderState.ACCEPTED)
        venue.move_price(AAPL, Decimal(221))
        stop, target = [
            await adapter.get_order(AAPL, client_order_id=leg.client_order_id)
            for leg in orders.orders[1:]
        ]
        assert (stop.status, target.status) == (OrderState.CANCELLED, OrderState.FILLED)
        assert venue.held(AAPL) == 0


async def test_partly_filled_target_leaves_a_smaller_stop():
    """In an OCA group a partial execution makes the other smaller, so what is left stays protected (D6, I14)."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order("first", **MARKET))
        orders = legs("o", ListKind.OCO)
        await adapter.place_list(orders)
        stop, target = orders.orders
        await TwsControl(venue, adapter).fill(target.client_order_id, Decimal(4))
        assert venue.orders.find(stop.client_order_id).sent.quantity == 6
        venue.move_price(AAPL, Decimal(189))
        found = await adapter.get_order(AAPL, client_order_id=stop.client_order_id)
        assert (found.quantity, found.filled, found.status) == (10, 6, OrderState.CANCELLED)
        assert venue.held(AAPL) == 0


async def test_list_is_refused_whole_before_it_is_sent():
    """One leg that cannot be sent keeps all of them here."""
    async with on_the_wire() as (venue, adapter):
        orders = legs("b", ListKind.BRACKET)
        bad = msgspec.structs.replace(orders.orders[2], limit_price=Decimal("220.001"))
        with pytest.raises(InvalidOrderError):
            await adapter.place_list(
                msgspec.structs.replace(orders, orders=(*orders.orders[:2], bad))
            )
        assert venue.received == []


async def test_each_leg_of_a_list_has_its_own_outcome():
    """Of a list whose second leg the venue refuses, each report says what became of its leg (A21)."""
    async with on_the_wire() as (venue, adapter):
        venue.fault("place", Mishap.ERROR, skip=1, code=201, text="Order rejected - reason:no")
        reports = await adapter.place_list(legs("o", ListKind.OCO))
        assert [r.status for r in reports] == [OrderState.ACCEPTED, OrderState.REJECTED]


@pytest.mark.parametrize("trail", [{"trail_amount": Decimal(5)}, {"trail_percent": Decimal("2.5")}])
async def test_trailing_stop(trail):
    """A trailing stop follows the best price by an amount or a percentage, and sells when it turns."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order("first", **MARKET))
        request = order("t", side=Side.SELL, type=OrderType.TRAILING_STOP, **trail)
        report = await adapter.place_order(request)
        assert (report.type, report.status) == (OrderType.TRAILING_STOP, OrderState.ACCEPTED)
        venue.move_price(AAPL, Decimal(240))
        venue.move_price(AAPL, Decimal("234.5"))
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        filled = "trail_amount" in trail
        assert found.status is (OrderState.FILLED if filled else OrderState.ACCEPTED)
        if not filled:
            venue.move_price(AAPL, Decimal(234))
            found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
            assert found.status is OrderState.FILLED


async def test_extended_hours_are_asked_for():
    """`extended_hours` sends outsideRth; where it does not apply the warning changes nothing."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order(extended_hours=True))
        report = await adapter.place_order(order("m", extended_hours=True, **MARKET))
        assert [each.sent.outside_rth for each in venue.received] == [True, True]
        assert report.status is OrderState.FILLED


async def test_stop_is_sent_when_the_market_is_closed():
    """A stop rests at the venue for the open; everything else is kept here while the market is closed (D13)."""
    async with on_the_wire() as (venue, adapter):
        venue.core.set_halted(AAPL, halted=True)
        stop = order("s", side=Side.SELL, type=OrderType.STOP, stop_price=Decimal(190))
        report = await adapter.place_order(stop)
        assert report.status in (OrderState.HELD, OrderState.ACCEPTED)
        assert len(venue.received) == 1


async def test_change_sends_a_copy():
    """A change keeps order id, orderRef and all other terms; only what was asked for is different."""
    async with on_the_wire() as (venue, adapter):
        request = order(extended_hours=True)
        await adapter.place_order(request)
        report = await adapter.amend_order(
            AAPL, client_order_id=request.client_order_id, quantity=Decimal(7)
        )
        assert (report.quantity, report.limit_price) == (7, request.limit_price)
        first, second = [each.sent for each in venue.received]
        assert attrs.evolve(second, quantity=first.quantity) == first
        assert venue.taken(request.client_order_id) == 1


async def test_change_of_an_order_from_before_a_restart():
    """An order that another process has placed under our client id can be changed and cancelled."""
    async with WireTws() as venue:
        first = adapter_of(venue)
        await first.connect()
        request = order()
        await first.place_order(request)
        await first.close()
        second = adapter_of(venue)
        await second.connect()
        report = await second.amend_order(
            AAPL, client_order_id=request.client_order_id, limit_price=Decimal(181)
        )
        assert report.limit_price == 181
        ended = await second.cancel_order(AAPL, client_order_id=request.client_order_id)
        assert ended.status is OrderState.CANCELLED
        await second.close()
        assert venue.taken(request.client_order_id) == 1


async def test_closed_orders_are_found_after_a_restart():
    """A cancelled, a filled and a refused order are found by another process, with how they ended."""
    async with WireTws() as venue:
        first = adapter_of(venue)
        await first.connect()
        await first.place_order(order("c"))
        await first.cancel_order(AAPL, client_order_id=order("c").client_order_id)
        await first.place_order(order("f", **MARKET))
        await first.place_order(order("r"))
        venue.orders.end(venue.orders.find(order("r").client_order_id), "Inactive", "margin")
        await first.close()
        second = adapter_of(venue)
        await second.connect()
        found = {
            name: await second.get_order(AAPL, client_order_id=order(name).client_order_id)
            for name in "cfr"
        }
        await second.close()
        assert [found[name].status for name in "cfr"] == [
            OrderState.CANCELLED,
            OrderState.FILLED,
            OrderState.REJECTED,
        ]
        assert all(isinstance(report, OrderReport) for report in found.values())
        assert sum(fill.quantity for fill in found["f"].fills) == 10
