"""The life of orders at Alpaca: replaced, cancelled, trailing, in lists, in extended hours, and closed by hand."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.alpaca import TradingClock, adapter_of, on_the_wire

from execkit.errors import (
    ExchangeUnavailableError,
    InvalidOrderError,
    OrderNotFoundError,
    OrderStatusUnknownError,
    UnsupportedFeatureError,
)
from execkit.ids import client_order_id
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    StreamGap,
    TimeInForce,
)
from execkit.testing.venues.faults import Mishap

D = Decimal
COUNT = iter(range(1, 100_000))


def new_id():
    return client_order_id("alpaca", str(next(COUNT)), "entry")


def order(**changes):
    values = {
        "client_order_id": new_id(),
        "symbol": "AAPL",
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": D(10),
        "limit_price": D(140),
    }
    return OrderRequest(**(values | changes))


def market(**changes):
    return order(type=OrderType.MARKET, limit_price=None, **changes)


def stop(price, **changes):
    values = {"side": Side.SELL, "type": OrderType.STOP, "limit_price": None}
    return order(**(values | {"stop_price": D(price)} | changes))


def names(request, placed):
    return {
        "client_order_id": request.client_order_id,
        "venue_order_id": placed.venue_order_id,
    }


class Reading:
    """Everything that the order stream says, from the beginning."""

    def __init__(self, adapter):
        self.seen = []
        self.error = None
        self._task = asyncio.create_task(self._read(adapter.order_updates()))

    async def _read(self, updates):
        try:
            async for update in updates:
                self.seen.append(update)
        except Exception as error:
            self.error = error

    def reports(self, client_id):
        return [
            u for u in self.seen if isinstance(u, OrderReport) and u.client_order_id == client_id
        ]

    def fills(self):
        return [u for u in self.seen if isinstance(u, Fill)]

    def gaps(self):
        return [u for u in self.seen if isinstance(u, StreamGap)]

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)


async def buy(venue, adapter, quantity=10):
    await adapter.place_order(market(quantity=D(quantity)))
    await venue.until(lambda: venue.state.position("AAPL") == quantity)


# -- replacing -----------------------------------------------------------------------------------------------


async def test_an_order_keeps_its_name_through_replacements():
    """Each change gives it a new id at Alpaca; here it stays one order, also in the stream and in fills."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        request = order()
        placed = await adapter.place_order(request)
        for price in (141, 142, 143):
            changed = await adapter.amend_order(
                "AAPL", **names(request, placed), limit_price=D(price)
            )
            assert changed.venue_order_id == placed.venue_order_id
            assert (changed.limit_price, changed.quantity) == (D(price), D(10))
        sent = [call.body["client_order_id"] for call in venue.calls("amend")]
        assert sent == [f"{request.client_order_id}-r{n}" for n in (1, 2, 3)]
        [shown] = await adapter.open_orders("AAPL")
        assert (shown.client_order_id, shown.venue_order_id) == tuple(
            names(request, placed).values()
        )
        await venue.fill(request.client_order_id, D(4))
        await reading.until(lambda: len(reading.fills()) == 1)
        [fill] = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1))
        assert fill == reading.fills()[0]
        assert fill.venue_order_id == placed.venue_order_id
        assert {r.venue_order_id for r in reading.reports(request.client_order_id)} == {
            placed.venue_order_id
        }
        await adapter.cancel_order("AAPL", **names(request, placed))
        await venue.until(lambda: not venue.core.open["AAPL"])
        found = await adapter.get_order("AAPL", **names(request, placed))
        assert (found.status, found.filled) == (OrderState.CANCELLED, D(4))
        assert reading.gaps() == []


async def test_another_process_finds_a_replaced_order_by_its_first_id():
    """The chain is followed by what Alpaca says, not by what was remembered."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        for price in (141, 142):
            await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(price))
        await venue.fill(request.client_order_id, D(4))
        for ask in (
            lambda other: other.get_order("AAPL", client_order_id=request.client_order_id),
            lambda other: other.get_order("AAPL", **names(request, placed)),
            lambda other: other.open_orders("AAPL"),
            lambda other: other.fills_since(venue.clock.now() - timedelta(minutes=1)),
            lambda other: other.cancel_order("AAPL", **names(request, placed)),
        ):
            other = adapter_of(venue)
            await other.connect()
            try:
                answer = await ask(other)
            finally:
                await other.close()
            found = answer[0] if isinstance(answer, list) else answer
            assert found.client_order_id == request.client_order_id
            assert found.venue_order_id == placed.venue_order_id
        await venue.until(lambda: not venue.core.open["AAPL"])


async def test_a_change_of_a_part_executed_order_is_refused_before_it_is_sent():
    """Whether a successor counts what was executed is not documented; too much could be bought."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        await venue.fill(request.client_order_id, D(4))
        with pytest.raises(UnsupportedFeatureError, match="cancel it"):
            await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(141))
        assert venue.calls("amend") == []


async def test_a_change_whose_answer_is_lost_is_unknown_and_then_found():
    """The order is looked up by its own id and shows its new terms; the change was sent once."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        venue.fail_next("amend", Mishap.DROP_ANSWER)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(141))
        found = await adapter.get_order("AAPL", client_order_id=request.client_order_id)
        assert (found.limit_price, found.venue_order_id) == (D(141), placed.venue_order_id)
        assert len(venue.calls("amend")) == 1


async def test_a_cancel_is_pending_first_and_loses_to_a_fill():
    """204 proves nothing but that it was asked; of an order that was executed the cancel says not found or FILLED."""
    async with on_the_wire() as (_venue, adapter):
        reading = Reading(adapter)
        request = order()
        placed = await adapter.place_order(request)
        asked = await adapter.cancel_order("AAPL", **names(request, placed))
        assert asked.status is OrderState.PENDING_CANCEL
        await reading.until(
            lambda: reading.reports(request.client_order_id)[-1].status is OrderState.CANCELLED
        )
        with pytest.raises(OrderNotFoundError):
            await adapter.cancel_order("AAPL", **names(request, placed))


async def test_accepted_and_rejected_later():
    """An acknowledgement is no execution: the rejection comes by the stream and by look-up."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        request = order()
        placed = await adapter.place_order(request)
        assert placed.status is OrderState.ACCEPTED
        now = venue.clock.now()
        key = request.client_order_id
        venue.do(lambda: venue.core.end(key, OrderState.REJECTED, "no", now))
        await reading.until(
            lambda: (
                reading.reports(key)[-1:] != []
                and reading.reports(key)[-1].status is OrderState.REJECTED
            )
        )
        found = await adapter.get_order("AAPL", client_order_id=key)
        assert found.status is OrderState.REJECTED


# -- kinds of orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trail", [{"trail_amount": D(5)}, {"trail_percent": D(2)}])
async def test_a_trailing_stop_follows_the_price(trail):
    """It stands behind the best price there was, and sells when the price has turned by so much."""
    async with on_the_wire() as (venue, adapter):
        await buy(venue, adapter)
        request = order(side=Side.SELL, type=OrderType.TRAILING_STOP, limit_price=None, **trail)
        placed = await adapter.place_order(request)
        assert placed.type is OrderType.TRAILING_STOP
        await venue.move_price("AAPL", D(200))
        shown = await adapter.get_order("AAPL", **names(request, placed))
        expected = D(195) if "trail_amount" in trail else D(196)
        assert (shown.stop_price, shown.status) == (expected, OrderState.ACCEPTED)
        await venue.move_price("AAPL", D(197))
        assert venue.state.position("AAPL") == 10
        await venue.move_price("AAPL", expected)
        await venue.until(lambda: venue.state.position("AAPL") == 0)


async def test_extended_hours():
    """Before the open a limit order that allows it is executed, others wait for the session."""
    clock = TradingClock(datetime(2024, 3, 12, 12, 0, tzinfo=UTC))
    async with on_the_wire(clock=clock) as (venue, adapter):
        early = order(
            limit_price=D(151), time_in_force=TimeInForce.DAY, extended_hours=True, quantity=D(3)
        )
        late = order(limit_price=D(151), quantity=D(4))
        await adapter.place_order(early)
        await adapter.place_order(late)
        await venue.move_price("AAPL", D(150))
        assert venue.state.position("AAPL") == 3
        clock.set(datetime(2024, 3, 12, 14, 0, tzinfo=UTC))
        await venue.move_price("AAPL", D(150))
        assert venue.state.position("AAPL") == 7


async def test_a_day_order_ends_with_the_session():
    """It expires at the close, half days included; an order that is good till cancelled stays."""
    async with on_the_wire() as (venue, adapter):
        day = order(time_in_force=TimeInForce.DAY)
        stays = order()
        await adapter.place_order(day)
        await adapter.place_order(stays)
        venue.clock.set(datetime(2024, 3, 12, 20, 1, tzinfo=UTC))
        found = await adapter.get_order("AAPL", client_order_id=day.client_order_id)
        assert found.status is OrderState.EXPIRED
        found = await adapter.get_order("AAPL", client_order_id=stays.client_order_id)
        assert found.status is OrderState.ACCEPTED


async def test_a_position_is_closed_by_hand():
    """Alpaca's own way to close a position, whole or in part."""
    async with on_the_wire() as (venue, adapter):
        await buy(venue, adapter)
        part = await adapter.close_position("AAPL", D(4))
        assert (part.side, part.quantity) == (Side.SELL, D(4))
        await venue.until(lambda: venue.state.position("AAPL") == 6)
        await adapter.close_position("AAPL")
        await venue.until(lambda: venue.state.position("AAPL") == 0)
        with pytest.raises(OrderNotFoundError):
            await adapter.close_position("AAPL")


@pytest.mark.parametrize(
    ("quantity", "words"),
    [(D("NaN"), "above zero"), (D(-1), "above zero"), (D("1e-10"), "more than nine decimals")],
)
async def test_a_position_is_not_closed_by_nonsense(quantity, words):
    """It is refused with field, value and fix before anything is sent."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=words):
            await adapter.close_position("AAPL", quantity)
        assert venue.calls("close_position") == []


async def test_an_order_for_an_amount_of_money():
    """By hand: one request with the amount as it is; what it bought shows when it is executed, and in executions."""
    async with on_the_wire() as (venue, adapter):
        key = new_id()
        placed = await adapter.place_notional("AAPL", Side.BUY, D("75.50"), client_order_id=key)
        assert (placed.client_order_id, placed.quantity, placed.filled) == (key, 0, 0)
        assert venue.posts()[0].body == {
            "symbol": "AAPL",
            "notional": "75.5",
            "side": "buy",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": key,
        }
        bought = D("0.503299780")  # 75.50 at 150.01, rounded down
        await venue.until(lambda: venue.state.position("AAPL") == bought)
        found = await adapter.get_order("AAPL", client_order_id=key)
        assert (found.status, found.quantity, found.filled) == (OrderState.FILLED, bought, bought)
        [fill] = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1))
        assert (fill.client_order_id, fill.quantity, fill.price) == (key, bought, D("150.01"))


@pytest.mark.parametrize(
    ("symbol", "amount", "words"),
    [
        ("AAPL", D("NaN"), "amount: NaN must be a number above zero"),
        ("AAPL", D("75.505"), "more than two decimals"),
        ("AAPL", D("0.99"), "below the least, 1"),
        ("BTC/USD", D("9.99"), "below the least, 10"),
        ("NOPE", D(75), "not listed"),
    ],
)
async def test_an_amount_that_cannot_work_is_not_sent(symbol, amount, words):
    """It is refused with field, value and fix."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=words):
            await adapter.place_notional(symbol, Side.BUY, amount, client_order_id=new_id())
        assert venue.posts() == []


async def test_an_amount_whose_answer_is_lost_is_unknown_and_then_found():
    """It was sent once, and is looked up by its id."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("place", Mishap.DROP_ANSWER)
        key = new_id()
        with pytest.raises(OrderStatusUnknownError):
            await adapter.place_notional("AAPL", Side.BUY, D(75), client_order_id=key)
        found = await adapter.get_order("AAPL", client_order_id=key)
        assert found.client_order_id == key
        assert len(venue.posts()) == 1


# -- lists ---------------------------------------------------------------------------------------------------


def bracket():
    entry = order()
    target = order(side=Side.SELL, limit_price=D(170))
    return OrderList(list_id=new_id(), kind=ListKind.BRACKET, orders=(entry, stop(130), target))


async def test_a_bracket():
    """One request; the legs wait until the entry is executed whole, and the execution of one ends the other."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        lists = bracket()
        entry, loss, target = lists.orders
        reports = await adapter.place_list(lists)
        assert [r.client_order_id for r in reports] == [o.client_order_id for o in lists.orders]
        assert [r.status for r in reports] == [OrderState.ACCEPTED, *[OrderState.HELD] * 2]
        assert [r.type for r in reports] == [OrderType.LIMIT, OrderType.STOP, OrderType.LIMIT]
        assert len(venue.posts()) == 1
        await venue.fill(entry.client_order_id, D(4))
        found = await adapter.get_order("AAPL", client_order_id=target.client_order_id)
        assert found.status is OrderState.HELD
        await venue.fill(entry.client_order_id, D(6))
        found = await adapter.get_order("AAPL", client_order_id=target.client_order_id)
        assert found.status is OrderState.ACCEPTED
        await venue.move_price("AAPL", D(171))
        await reading.until(
            lambda: (
                reading.reports(loss.client_order_id)
                and reading.reports(loss.client_order_id)[-1].status is OrderState.CANCELLED
            )
        )
        assert sum(f.quantity * f.side.sign for f in reading.fills()) == 0
        last = reading.fills()[-1]
        assert (last.client_order_id, last.price) == (target.client_order_id, D(170))


async def test_a_bracket_that_is_cancelled_takes_its_legs_along():
    """Nothing of it is left."""
    async with on_the_wire() as (venue, adapter):
        lists = bracket()
        reports = await adapter.place_list(lists)
        await adapter.cancel_order("AAPL", **names(lists.orders[0], reports[0]))
        await venue.until(lambda: not venue.core.open["AAPL"])
        for each in lists.orders:
            found = await adapter.get_order("AAPL", client_order_id=each.client_order_id)
            assert found.status is OrderState.CANCELLED


async def test_a_list_whose_answer_is_lost_is_found_leg_by_leg():
    """The legs have ids of Alpaca's making; they are found through the order that has ours."""
    async with on_the_wire() as (venue, adapter):
        lists = bracket()
        venue.fail_next("place", Mishap.DROP_ANSWER)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.place_list(lists)
        for each in lists.orders:
            found = await adapter.get_order("AAPL", client_order_id=each.client_order_id)
            assert found.client_order_id == each.client_order_id
            assert found.type is each.type
        assert len(venue.posts()) == 1


@pytest.mark.parametrize("by_venue_id", [True, False])
async def test_legs_are_known_again_after_a_restart(by_venue_id):
    """Alpaca gives legs ids of its own; the name of the list holds ours, so another process finds every one of them."""
    async with on_the_wire() as (venue, adapter):
        lists = bracket()
        reports = await adapter.place_list(lists)
        for ask in ("get", "open"):
            other = adapter_of(venue)
            await other.connect()
            try:
                for request, placed in zip(lists.orders, reports, strict=True):
                    ids = names(request, placed)
                    if not by_venue_id:
                        del ids["venue_order_id"]
                    if ask == "get":
                        found = await other.get_order("AAPL", **ids)
                        assert found.client_order_id == request.client_order_id
                        assert found.venue_order_id == placed.venue_order_id
                listed = {report.client_order_id for report in await other.open_orders()}
                assert listed == {request.client_order_id for request in lists.orders}
                with pytest.raises(OrderNotFoundError):
                    await other.get_order("AAPL", client_order_id=new_id())
            finally:
                await other.close()


async def test_an_oco_holds_the_position_once():
    """Stop and target of one position live side by side; the stop ends the target."""
    async with on_the_wire() as (venue, adapter):
        await buy(venue, adapter)
        target = order(side=Side.SELL, limit_price=D(170))
        lists = OrderList(list_id=new_id(), kind=ListKind.OCO, orders=(stop(130), target))
        loss, profit = await adapter.place_list(lists)
        assert (loss.status, profit.status) == (OrderState.HELD, OrderState.ACCEPTED)
        assert (await adapter.balances())["AAPL"].free == 0
        await venue.move_price("AAPL", D(129))
        await venue.until(lambda: venue.state.position("AAPL") == 0)
        found = await adapter.get_order("AAPL", client_order_id=target.client_order_id)
        assert found.status is OrderState.CANCELLED


# -- the stream ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b"not json",
        b'{"stream":"trade_updates"}',
        b'{"stream":"trade_updates","data":{"event":"fill","order":{"id":"x"}}}',
        b'{"stream":"trade_updates","data":{"event":"new","order":{}}}',
        b"[]",
        b"\xff\xfe",
        b'{"T":"error","code":500,"msg":"internal error"}',
    ],
)
async def test_a_frame_that_nobody_can_read_does_not_silence_the_stream(frame):
    """It is told as a gap, and what comes after it arrives."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        venue.push_private(frame)
        await reading.until(lambda: len(reading.gaps()) == 1)
        request = order()
        await adapter.place_order(request)
        await reading.until(lambda: bool(reading.reports(request.client_order_id)))


async def test_an_unknown_word_in_the_stream_is_in_doubt():
    """An order status that nobody knows is reported as such, and does not end anything."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        request = order()
        await adapter.place_order(request)
        row = venue._answers.get_by_client_id(_Asked(client_order_id=request.client_order_id))
        venue.tell("new", row | {"status": "levitating"}, venue.clock.now(), {})
        await reading.until(
            lambda: (
                reading.reports(request.client_order_id)[-1:]
                and reading.reports(request.client_order_id)[-1].status is OrderState.IN_DOUBT
            )
        )
        assert reading.gaps() == []


class _Asked:
    def __init__(self, **params):
        self.params = params


async def test_every_reconnect_is_a_gap():
    """The stream has no snapshot: what happened while it was down must be asked for."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        venue.cut_streams()
        await reading.until(lambda: len(reading.gaps()) == 1)
        request = order()
        await adapter.place_order(request)
        await reading.until(lambda: bool(reading.reports(request.client_order_id)))
        assert len(venue.listeners()) == 1


@pytest.mark.parametrize(
    "frame",
    [
        b'{"stream":"authorization","data":{"status":"unauthorized","action":"authenticate"}}',
        b'{"stream":"listening","data":{"streams":[]}}',
    ],
)
async def test_a_subscription_that_the_venue_ends_is_opened_anew(frame):
    """B19: the line stays up and would say nothing any more; a new one is opened, and the gap is told."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        [before] = venue.listeners()
        venue.push_private(frame)
        await reading.until(lambda: len(reading.gaps()) == 1)
        [after] = venue.listeners()
        assert after is not before
        request = order()
        await adapter.place_order(request)
        await reading.until(lambda: bool(reading.reports(request.client_order_id)))


async def test_a_line_that_died_without_a_word_is_noticed():
    """Pings that nobody answers end the session, and a new one is opened."""
    heartbeat = {"heartbeat": timedelta(seconds=0.1)}
    async with on_the_wire(adapter=heartbeat) as (venue, adapter):
        reading = Reading(adapter)
        [socket] = venue.listeners()
        socket.transport.pause_reading()
        await reading.until(lambda: len(reading.gaps()) >= 1)


async def test_while_the_stream_is_down_readers_are_told():
    """A stream that cannot be opened again ends its readers with an error."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        venue.go_dark()
        await reading.until(lambda: reading.error is not None)
        assert isinstance(reading.error, ExchangeUnavailableError)
        venue.heal()


async def test_an_execution_that_is_taken_back_is_a_gap():
    """A bust or a correction is not guessed at: positions are asked for."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        request = market()
        await adapter.place_order(request)
        await reading.until(lambda: len(reading.fills()) == 1)
        row = venue._answers.get_by_client_id(_Asked(client_order_id=request.client_order_id))
        venue.tell("trade_bust", row, venue.clock.now(), {})
        await reading.until(lambda: len(reading.gaps()) == 1)


async def test_a_fill_has_one_id_in_stream_and_history():
    """Executions of both sources are the same values, so each counts once."""
    async with on_the_wire() as (venue, adapter):
        reading = Reading(adapter)
        request = order()
        await adapter.place_order(request)
        for part in (1, 2, 7):
            await venue.fill(request.client_order_id, D(part))
        await reading.until(lambda: len(reading.fills()) == 3)
        listed = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1), "AAPL")
        assert listed == reading.fills()
        assert [f.quantity for f in listed] == [D(1), D(2), D(7)]


async def test_the_list_of_executions_is_read_page_by_page():
    """More than one page of executions, each once and in order."""
    async with on_the_wire() as (venue, adapter):
        request = order(quantity=D(130))
        await adapter.place_order(request)
        for _ in range(130):
            await venue.fill(request.client_order_id, D(1))
        found = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1))
        assert len({fill.trade_id for fill in found}) == 130
        assert len(venue.calls("fills")) == 2
