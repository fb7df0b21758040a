"""Defects, planted one at a time into the running code: each must be found by the simulation.

Each is a small patch as a hurried change might make it. `CAUGHT_BY` names a seed that is known to find it;
`python tests/support/simulation_bugs.py` searches such seeds anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from decimal import Decimal

from execkit.errors import ExchangeError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.model.order import OrderEvent, OrderState
from execkit.model.records import Filled, Source, TradingState, TradingStateChanged
from execkit.orders import positions
from execkit.orders.answers import Answers
from execkit.orders.book import Book
from execkit.orders.changing import OrderChanger
from execkit.orders.gateway import OrderGateway
from execkit.orders.intake import Intake
from execkit.orders.recorder import Recorder
from execkit.orders.recovery import Reconciler
from execkit.orders.resolver import Resolver, Sight
from execkit.orders.waiting import Pace, Throttle, Use
from execkit.protection.closing import Closer
from execkit.protection.keeper import ProtectionKeeper
from execkit.protection.plan import Plan, Step
from execkit.testing.simulate import simulate

BUGS = {}


def bug(function):
    BUGS[function.__name__] = contextlib.contextmanager(function)
    return function


@contextlib.contextmanager
def replaced(owner, name, value):
    before = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@bug
def a_lost_answer_is_a_refusal():
    """A time-out is taken for "rejected"."""

    def lost(self, order, error):
        self._recorder.record(order.record_of(OrderEvent.REJECT, Source.ACK, "timed out"))
        return original(self, order, error)

    original = Answers.lost
    with replaced(Answers, "lost", lost):
        yield


@bug
def sent_again_without_looking():
    """An unknown outcome is tried again as a new order at once."""
    with (
        replaced(
            OrderExecutorHandler, "_may_pass_later", lambda self, sent: sent.error is not None
        ),
        replaced(sys.modules[OrderExecutorHandler.__module__], "_took_effect", lambda order: False),
        replaced(sys.modules[OrderGateway.__module__], "deny_entry", lambda *a, **k: None),
    ):
        yield


@bug
def nothing_is_journalled_before_the_send():
    """The commit comes after the send."""

    async def commit_and_send(self, orders, commands):
        sent = await self._send_once(orders)
        await self.recorder.try_settle()
        return sent

    with replaced(OrderGateway, "_commit_and_send", commit_and_send):
        yield


@bug
def a_failed_commit_is_ignored():
    """An entry leaves although its intent is not durable."""

    async def settle(self):
        with contextlib.suppress(Exception):
            await original(self)

    original = Recorder.settle
    with replaced(Recorder, "settle", settle):
        yield


@bug
def a_fill_counts_twice():
    """The trade id of a fill is not looked up."""

    def knows(self, fill):
        return False

    with replaced(Book, "knows_fill", knows):
        yield


@bug
def fills_of_answers_are_dropped():
    """Executions that come with reports are ignored."""

    def take(self, fill, source):
        return False if source is Source.STREAM else original(self, fill, source)

    original = Intake.take_fill
    with (
        replaced(Intake, "take_fill", take),
        replaced(Reconciler, "_fills", _async(False)),
        replaced(Resolver, "_fetch_missing", _async(False)),
    ):
        yield


@bug
def a_cancel_error_means_cancelled():
    """The venue's "unknown order" is taken for a cancel that worked."""

    async def cancel(self, order, reason):
        await original(self, order, reason)
        if order.state is OrderState.PENDING_CANCEL:
            self.recorder.record(order.record_of(OrderEvent.CANCEL, Source.ACK, "not found"))
        return order

    original = OrderChanger.cancel
    with replaced(OrderChanger, "cancel", cancel):
        yield


@bug
def nobody_asks_about_doubts():
    """Orders in doubt are never looked up."""
    with replaced(Resolver, "follow", lambda self, order: None):
        yield


@bug
def recovery_skips_what_was_in_flight():
    """A restart leaves orders that were being sent as they are."""

    async def start(self):
        await self.run(first=True)

    with replaced(Reconciler, "start", start):
        yield


@bug
def halts_are_forgotten():
    """The gateway does not look at the trading state."""
    handlers = sys.modules["execkit.handlers.validation"].ValidationHandler
    with (
        replaced(sys.modules[OrderGateway.__module__], "deny_entry", lambda *a, **k: None),
        replaced(handlers, "_check_state", staticmethod(lambda ticket, book: None)),
    ):
        yield


@bug
def a_halt_ends_with_a_good_comparison():
    """Once the books agree with the venue's again, trading goes on by itself."""

    async def run(self, **options):
        await original(self, **options)
        if self.book.trading_state is TradingState.HALTED:
            text = "the books agree"
            self.recorder.record(
                TradingStateChanged(state=TradingState.ACTIVE, cause=text, actor="operator")
            )

    original = Reconciler.run
    with replaced(Reconciler, "run", run):
        yield


@bug
def pauses_are_ignored():
    """Retry-After is not waited for."""
    with replaced(Pace, "note", lambda self, error: None):
        yield


@bug
def a_replaced_process_goes_on():
    """A process does not notice that another one took over."""
    with replaced(
        sys.modules["execkit.testing.simulation.journal"].CrashJournal,
        "is_current",
        property(lambda self: not self.is_dead),
    ):
        yield


@bug
def positions_are_not_protected():
    """The keeper does nothing."""
    with replaced(ProtectionKeeper, "check", lambda self, symbol: None):
        yield


@bug
def stops_are_six_seconds_late():
    """The keeper looks a while after each news."""

    def check(self, symbol):
        asyncio.get_running_loop().call_later(6, original, self, symbol)

    original = ProtectionKeeper.check
    with replaced(ProtectionKeeper, "check", check):
        yield


@bug
def a_closing_that_fails_is_tried_again_much_later():
    """The pause between two tries grows to half a minute, whatever the venue shows meanwhile."""
    keeper = sys.modules[ProtectionKeeper.__module__]
    with (
        replaced(keeper, "LONGEST_WAIT", 30.0),
        replaced(ProtectionKeeper, "wake", lambda self: None),
    ):
        yield


@bug
def a_stop_waits_for_the_turn_of_its_target():
    """A list goes out when the venue's rate has room for both."""

    def wait(self, use, commands=1):
        return original(self, use)

    original = Throttle.wait
    with replaced(Throttle, "wait", wait):
        yield


@bug
def an_orphaned_stop_stays():
    """The stop of a position that is gone is not cancelled."""
    with replaced(Closer, "cancel_each", _async(True)):
        yield


@bug
def limits_are_off():
    """The risk handler's room is never checked."""
    with (
        replaced(sys.modules["execkit.risk.sizing"].Room, "check", lambda self, quantity: None),
        replaced(
            sys.modules["execkit.handlers.risk"],
            "fit",
            lambda wanted, room, instrument, **k: (instrument.round_quantity(wanted * 6), ""),
        ),
    ):
        yield


@bug
def a_forged_ticket_passes():
    """The gateway does not compare the ticket with its approval."""
    with replaced(
        sys.modules["execkit.model.ticket"].OrderTicket, "is_covered", property(lambda self: True)
    ):
        yield


@bug
def results_are_told_before_they_are_durable():
    """The caller hears of the result first."""
    engine = sys.modules["execkit.engine"].ExecutionEngine

    async def tell(self, result, digest):
        return result

    with replaced(engine, "_tell", tell):
        yield


@bug
def other_content_is_not_noticed():
    """The digest of a signal is not compared."""
    signal = sys.modules["execkit.model.signal"].TradingSignal
    with replaced(signal, "digest", property(lambda self: "same")):
        yield


@bug
def a_foreign_order_is_cancelled():
    """Cancel-all takes everything that is open."""
    operations = sys.modules["execkit.operations"]

    async def cancel_all(desk, symbol, *, actor, halt):
        for report in await desk.adapter.open_orders():
            with contextlib.suppress(ExchangeError, OSError, TimeoutError):
                await desk.adapter.cancel_order(
                    report.symbol, client_order_id=report.client_order_id
                )
        return []

    with replaced(operations, "cancel_all", cancel_all):
        yield


@bug
def the_book_runs_ahead_of_the_journal():
    """A fill is applied and not journalled."""

    def record(self, record):
        if isinstance(record, Filled) and record.source is Source.LOOKUP:
            self.book.apply(record, self.clock.now())
            return True
        return original(self, record)

    original = Recorder.record
    with replaced(Recorder, "record", record):
        yield


@bug
def garbage_is_an_acknowledgement():
    """An answer is believed without a look at it."""
    gateway = sys.modules[OrderGateway.__module__]

    async def send_once(self, orders):
        sent = await original(self, orders)
        for order in orders:
            if order.state is OrderState.IN_DOUBT:
                text = "no good answer"
                self.recorder.record(order.record_of(OrderEvent.REJECT, Source.ACK, text))
        return sent

    original = gateway.OrderGateway._send_once
    with replaced(gateway.OrderGateway, "_send_once", send_once):
        yield


@bug
def outside_changes_are_not_taken_over():
    """Positions are not compared with the venue's."""

    async def positions(self, **_):
        return {}

    with replaced(Reconciler, "_positions", positions):
        yield


@bug
def commands_are_not_journalled():
    """A cancel leaves without a record."""
    with replaced(OrderChanger, "_announce", _async(True)):
        yield


@bug
def queries_do_not_wait():
    """Only orders respect Retry-After."""

    async def ask(self, query, timeout, *args, **kwargs):
        return await query(*args, **kwargs)

    with replaced(Pace, "ask", ask):
        yield


@bug
def fees_in_base_are_forgotten():
    """A position is what was executed, not what the fee left of it."""

    def net(fill):
        return fill.quantity * fill.side.sign, Decimal(0)

    with replaced(positions, "net_effect", net):
        yield


@bug
def emergencies_are_not_written():
    """What could not be committed is not kept apart either."""
    with replaced(Recorder, "keep_apart", lambda self, record: True):
        yield


@bug
def a_late_fill_is_dropped():
    """An execution after the end of its order is ignored."""

    def take(self, fill, source):
        order = self.book.orders.find(fill.client_order_id, fill.venue_order_id)
        return not (order is not None and order.is_closed) and original_late(self, fill, source)

    original_late = Intake.take_fill
    with replaced(Intake, "take_fill", take), replaced(Reconciler, "_positions", _async({})):
        yield


@bug
def limits_ignore_what_is_in_flight():
    """Only positions count towards the limits, not the orders that may become positions."""
    ledger = sys.modules["execkit.risk.ledger"].RiskLedger
    validation = sys.modules["execkit.handlers.validation"].ValidationHandler
    with (
        replaced(validation, "_check_pending", staticmethod(lambda ticket, book: None)),
        replaced(ledger, "exposure", property(lambda self: Decimal(0))),
        replaced(ledger, "reserved_notional", lambda self, side: Decimal(0)),
        replaced(ledger, "reserved_notional_of", lambda self, symbol: Decimal(0)),
        replaced(ledger, "is_pending", lambda self, symbol, *, besides: False),
    ):
        yield


@bug
def stops_have_the_size_of_what_was_bought():
    """The fee that was taken in the base asset is not taken off."""

    def gross(position, exits, instrument):
        held = original(position, exits, instrument)
        if not instrument.fee_in_base:
            return held
        return instrument.round_quantity(held / (1 - instrument.taker_fee))

    plan = sys.modules["execkit.protection.plan"]
    original = plan.protective_quantity
    with replaced(plan, "protective_quantity", gross):
        yield


@bug
def a_target_alone_protects():
    """What is left of a list is not looked at any more, although its stop has ended."""
    keeper = sys.modules[ProtectionKeeper.__module__]

    def plan(position, reductions, instrument, **options):
        if position is not None and any(o.intent.list_id is not None for o in reductions):
            return Plan(Step.NOTHING)
        return original(position, reductions, instrument, **options)

    original = keeper.plan_protection
    with replaced(keeper, "plan_protection", plan):
        yield


@bug
def a_failed_query_shows_absence():
    """A look-up that failed counts like one that found nothing."""

    async def look(self, order):
        sight = await original(self, order)
        return Sight.NOTHING if sight is Sight.BLIND else sight

    original = Resolver.look
    with replaced(Resolver, "look", look):
        yield


@bug
def not_found_is_absence():
    """The first "not found" is believed, whatever window the venue states."""

    async def step(self, order):
        if order.state is OrderState.IN_DOUBT and await self.look(order) is Sight.NOTHING:
            self.recorder.record(order.record_of(OrderEvent.ABSENT, Source.LOOKUP, "not found"))
        else:
            await original(self, order)

    original = Resolver._step
    with replaced(Resolver, "_step", step):
        yield


@bug
def a_restart_forgets_what_slices_have_sent():
    """The children of a parent are not counted any more after a restart."""
    slicer = sys.modules["execkit.slicing.slicer"].Slicer

    def resume(self):
        for parent in self._book.parents.live:
            forgotten[parent.record.parent_id] = parent_committed(parent)
        original(self)

    def committed(self, besides=""):
        known = forgotten.get(self.record.parent_id, Decimal(0))
        return max(parent_committed(self, besides) - known, Decimal(0))

    forgotten = {}
    parent_type = sys.modules["execkit.orders.parents"].Parent
    parent_committed = parent_type.committed
    original = slicer.resume
    with (
        replaced(slicer, "resume", resume),
        replaced(parent_type, "committed", committed),
    ):
        yield


@bug
def slices_go_on_after_the_end():
    """Neither who sends slices nor the gateway looks whether their parent has ended, nor how much of it is left."""
    slicer = sys.modules["execkit.slicing.slicer"].Slicer
    with (
        replaced(sys.modules["execkit.orders.proofs"], "_deny_part", lambda *a: None),
        replaced(slicer, "_ended", lambda *a: None),
    ):
        yield


@contextlib.contextmanager
def outliving(is_reduction):
    """Orders in slices, exits or entries, go on whatever becomes of their position."""
    parent = sys.modules["execkit.orders.parents"].Parent
    slicer = sys.modules["execkit.slicing.slicer"].Slicer
    original = parent.is_outlived

    def is_outlived(self, position):
        return self.record.is_reduction is not is_reduction and original(self, position)

    def follow(self, symbol, *, out):
        followed(self, symbol, out=out and is_reduction)

    followed = slicer._follow_position

    end_slicing = Closer.end_slicing if is_reduction else lambda *a: None
    with (
        replaced(parent, "is_outlived", is_outlived),
        replaced(slicer, "_follow_position", follow),
        replaced(Closer, "end_slicing", end_slicing),
    ):
        yield


@bug
def slices_enter_again_what_was_closed():
    """An entry in slices goes on after its position was closed."""
    with outliving(is_reduction=False):
        yield


@bug
def slices_leave_the_next_position():
    """An exit in slices goes on with the next position of its symbol."""
    with outliving(is_reduction=True):
        yield


@bug
def a_halt_ends_with_its_process():
    """A new process trades, whatever the last one was told."""
    assembly = sys.modules["execkit.assembly"]

    def forgetful(*arguments):
        book = original(*arguments)
        book.state_record = None
        return book

    original = assembly.fold
    with replaced(assembly, "fold", forgetful):
        yield


@bug
def the_kill_file_is_ignored():
    """Nobody looks whether the file that halts is there."""
    with replaced(OrderGateway, "is_switched_off", property(lambda self: False)):
        yield


@bug
def the_throttle_counts_orders_only():
    """Cancels and amendments leave past the venue's rate."""

    async def turn(self, symbol, command):
        await self._turn(symbol)

    with replaced(OrderGateway, "_turn_to_change", turn):
        yield


@bug
def the_throttle_keeps_reductions_waiting():
    """A stop stands in line behind everything else, for minutes."""

    async def turn(self, use, count=1):
        if self.rate is not None and use is Use.REDUCTION:
            await asyncio.sleep(120)
        await original(self, use, count)

    original = Throttle.turn
    with replaced(Throttle, "turn", turn):
        yield


@bug
def the_loss_is_counted_from_the_last_mark():
    """What was lost before the last mark of the equity is forgotten, and with it what was lost before midnight."""
    watch = sys.modules["execkit.risk.daily"].DayWatch

    def baseline(self, now, marks):
        return original(self, now, list(marks)[-1:])

    original = watch.baseline
    with replaced(watch, "baseline", baseline):
        yield


@bug
def the_breaker_never_opens():
    """Failures in a row are not counted."""
    breaker = sys.modules["execkit.risk.breaker"].CircuitBreaker
    with replaced(breaker, "fail", lambda self, now: False):
        yield


@bug
def a_breaker_holds_reductions_up():
    """After a failure a breaker lets nothing through, exits neither."""
    handler = sys.modules["execkit.handlers.breaker"].CircuitBreakerHandler

    async def call(self, ticket, call_next):
        if ticket.is_reduction and self.breaker.in_a_row:
            return ticket.deny(sys.modules["execkit.model.denial"].DenialCode.CIRCUIT_OPEN)
        return await original(self, ticket, call_next)

    original = handler.__call__
    with replaced(handler, "__call__", call):
        yield


@bug
def the_rate_limit_counts_nothing():
    """Entries pass as fast as they come."""
    handler = sys.modules["execkit.handlers.throttle"].RateLimitHandler

    async def call(self, ticket, call_next):
        return await call_next(ticket)

    with replaced(handler, "__call__", call):
        yield


@bug
def a_closed_market_is_open():
    """An entry goes out whatever the venue says of its market."""
    handler = sys.modules["execkit.handlers.market_hours"].MarketHoursHandler

    async def call(self, ticket, call_next):
        return await call_next(ticket)

    with replaced(handler, "__call__", call):
        yield


@bug
def silence_is_a_yes():
    """An entry that nobody answers about is sent."""
    handler = sys.modules["execkit.handlers.confirmation"].ConfirmationHandler

    async def call(self, ticket, call_next):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                await self.ask(ticket)
        return await call_next(ticket)

    with replaced(handler, "__call__", call):
        yield


@bug
def stops_are_invented():
    """A position whose owner has chosen no stop gets one at two percent."""
    plan = sys.modules["execkit.protection.plan"]

    def trigger(position, instrument):
        if position.stop_loss is None and position.average_price:
            sign = 1 if position.is_long else -1
            return instrument.round_price(position.average_price * (1 - Decimal(sign) / 50))
        return original(position, instrument)

    original = plan.stop_trigger
    with replaced(plan, "stop_trigger", trigger):
        yield


@bug
def cancel_all_leaves_one_behind():
    """The first order of all is passed over."""
    operations = sys.modules["execkit.operations"]

    async def cancel_all(desk, symbol, **options):
        spared = next(iter(desk.book.orders.active.values()), None)
        if spared is None or spared.role in operations.PROTECTIVE:
            return await original(desk, symbol, **options)
        cancel = desk.gateway.cancel

        async def but_one(order, reason):
            return order if order is spared else await cancel(order, reason)

        desk.gateway.cancel = but_one
        try:
            return await original(desk, symbol, **options)
        finally:
            desk.gateway.cancel = cancel

    original = operations.cancel_all
    with replaced(operations, "cancel_all", cancel_all):
        yield


@bug
def flatten_says_done_too_soon():
    """Whether the position is gone is not looked at."""
    operations = sys.modules["execkit.operations"]

    async def flatten(desk, symbol, **options):
        held = tuple(s for s in desk.book.positions.open if symbol in (None, s))
        await original(desk, symbol, **options)
        return operations.Flattened(flat=held)

    original = operations.flatten
    with replaced(operations, "flatten", flatten):
        yield


@bug
def groups_count_one_symbol_only():
    """What the other symbols of a group hold is left out."""
    room = sys.modules["execkit.handlers.room"]

    def group_room(symbol, limits, equity, notional_of):
        def alone(each):
            return notional_of(each) if each == symbol else Decimal(0)

        return original(symbol, limits, equity, alone)

    original = room.group_room
    with replaced(room, "group_room", group_room):
        yield


@bug
def day_trades_are_not_counted():
    """However many there were, another position is opened."""
    with replaced(sys.modules["execkit.handlers.risk"], "check_day_trades", lambda *a: None):
        yield


@bug
def losers_are_added_to():
    """An entry adds to a position without a look at its gain, and as often as one likes."""
    with replaced(sys.modules["execkit.handlers.risk"], "check_scale_in", lambda *a: None):
        yield


@bug
def the_canary():
    """Always fails: shows that the harness can."""
    watch = sys.modules["execkit.testing.simulation.watch"].Watch

    def accepted(self, request):
        self.fail("I1", "the canary")

    with replaced(watch, "accepted", accepted):
        yield


CAUGHT_BY = {
    "a_lost_answer_is_a_refusal": 1,
    "sent_again_without_looking": 3,
    "nothing_is_journalled_before_the_send": 0,
    "a_failed_commit_is_ignored": 3,
    "a_fill_counts_twice": 0,
    "fills_of_answers_are_dropped": 0,
    "a_cancel_error_means_cancelled": 4,
    "nobody_asks_about_doubts": 1,
    "recovery_skips_what_was_in_flight": 1,
    "halts_are_forgotten": 0,
    "pauses_are_ignored": 3,
    "queries_do_not_wait": 3,
    "a_replaced_process_goes_on": 4,
    "positions_are_not_protected": 0,
    "an_orphaned_stop_stays": 3,
    "limits_are_off": 1,
    "a_forged_ticket_passes": 3,
    "results_are_told_before_they_are_durable": 0,
    "other_content_is_not_noticed": 0,
    "a_foreign_order_is_cancelled": 0,
    "commands_are_not_journalled": 0,
    "emergencies_are_not_written": 3,
    "the_book_runs_ahead_of_the_journal": 0,
    "garbage_is_an_acknowledgement": 1,
    "a_late_fill_is_dropped": 4,
    "outside_changes_are_not_taken_over": 39,
    "fees_in_base_are_forgotten": 0,
    "limits_ignore_what_is_in_flight": 87,
    "stops_have_the_size_of_what_was_bought": 65,
    "a_target_alone_protects": 26,
    "a_failed_query_shows_absence": 93,
    "not_found_is_absence": 0,
    "a_restart_forgets_what_slices_have_sent": 161,
    "a_halt_ends_with_its_process": 4,
    "the_loss_is_counted_from_the_last_mark": 204,
    "the_breaker_never_opens": 218,
    "the_rate_limit_counts_nothing": 18,
    "a_breaker_holds_reductions_up": 81,
    "slices_go_on_after_the_end": 326,
    "slices_enter_again_what_was_closed": 466,
    "slices_leave_the_next_position": 464,
    "the_kill_file_is_ignored": 172,
    "the_throttle_counts_orders_only": 15,
    "the_throttle_keeps_reductions_waiting": 15,
    "a_closed_market_is_open": 18,
    "silence_is_a_yes": 15,
    "stops_are_invented": 16,
    "a_halt_ends_with_a_good_comparison": 0,
    "stops_are_six_seconds_late": 0,
    "a_closing_that_fails_is_tried_again_much_later": 45,
    "a_stop_waits_for_the_turn_of_its_target": 15,
    "cancel_all_leaves_one_behind": 11,
    "flatten_says_done_too_soon": 7,
    "groups_count_one_symbol_only": 92,
    "day_trades_are_not_counted": 56,
    "losers_are_added_to": 1,
    "the_canary": 0,
}
"""A seed that finds each of them."""


def _async(value):
    async def answer(*_args, **_kwargs):
        return value

    return answer


def search(name, seeds=range(500)):
    """Return the first seed that finds a defect, and what it breaks."""
    for seed in seeds:
        try:
            with BUGS[name]():
                report = simulate(seed)
        except Exception as error:
            return seed, f"raised {error!r}"
        if not report.ok:
            return seed, report.violation
    return None, "not found"


if __name__ == "__main__":
    for name in sys.argv[1:] or BUGS:
        print(name, *search(name), flush=True)
