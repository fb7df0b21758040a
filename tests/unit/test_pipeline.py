"""The chain: checked when built, each ticket travels once, and the result tells what every handler did."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from execkit.errors import ConfigurationError, PipelineError
from execkit.model.account import AccountView
from execkit.model.denial import DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket, RiskStamp
from execkit.orders.outcomes import outcome_of
from execkit.pipeline import ExecutionHandler, ExecutionPipeline, finish, handler
from execkit.virtual_time import run_virtual

D = Decimal
AT = datetime(2024, 1, 1, tzinfo=UTC)


def make_ticket(**changes):
    signal = TradingSignal(symbol="BTC/USDT", side=Side.BUY, signal_id="s1")
    fields = {
        "signal": signal,
        "signal_id": "s1",
        "instrument": Instrument.default("BTC/USDT"),
        "quote": Quote("BTC/USDT", D(99), D(101), AT),
        "account": AccountView("USDT", D(1000), D(1000), D(0)),
        "position": None,
        "role": OrderRole.ENTRY,
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "quantity": D(1),
        "limit_price": None,
        "stop_price": None,
        "time_in_force": TimeInForce.GTC,
        "stop_loss": None,
        "take_profit": None,
        "created_at": AT,
    }
    return OrderTicket(**(fields | changes))


def make_order(state=OrderState.FILLED, filled=1, quantity=1, reason=""):
    return SimpleNamespace(
        client_order_id="xk1",
        state=state,
        quantity=D(quantity),
        filled=D(filled),
        average_price=D(100) if filled else None,
        fills=(),
        reason=reason,
    )


class Pass:
    """Goes on with the ticket as it is, after some time."""

    async def __call__(self, ticket, call_next, /):
        await asyncio.sleep(1)
        result = await call_next(ticket)
        await asyncio.sleep(2)
        return result


class Risk(Pass):
    place = "before"
    stamps_risk = True


class Check(Pass):
    place = "before"


class Executor:
    place = "executor"

    def __init__(self, order=None):
        self.order = order or make_order()
        self.sent = 0

    async def __call__(self, ticket, call_next, /):
        self.sent += 1
        await asyncio.sleep(10)
        return await call_next(ticket.with_order(self.order))


class After(Pass):
    place = "after"


def run(pipeline, ticket=None):
    async def main(_clock):
        return await pipeline(ticket or make_ticket())

    return run_virtual(main)


def chain(*links, **options):
    return ExecutionPipeline([Risk(), *links, Executor()], **options)


# -- building ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "says"),
    [
        ([], "the chain has no executor; add OrderExecutorHandler()"),
        ([Risk()], "the chain has no executor"),
        ([Executor()], "Executor: no risk handler comes before it, so it would send nothing"),
        ([Executor(), Risk()], "Executor: no risk handler comes before it"),
        ([Risk(), Executor(), Executor()], "Executor: a chain has exactly one executor"),
        ([Risk(), Executor(), Check()], "Check must come before the executor"),
        ([Risk(), After(), Executor()], "After must come after the executor"),
        ([Risk, Executor()], "Risk: pass an instance, Risk(), not the class"),
        ([Risk(), 5, Executor()], "5 is not a handler: it cannot be called"),
    ],
)
def test_a_chain_that_cannot_work_is_refused(links, says):
    """When it is built, with what to do about it."""
    with pytest.raises(PipelineError) as caught:
        ExecutionPipeline(links)
    assert says in str(caught.value)


def test_a_chain_without_risk_must_be_meant():
    """`unchecked=True` says that it is."""
    assert len(ExecutionPipeline([Executor()], unchecked=True)) == 1


def test_a_second_risk_handler_after_the_executor_is_out_of_place():
    """A chain that stamps too late would send nothing."""
    with pytest.raises(PipelineError, match="Risk must come before the executor"):
        ExecutionPipeline([Executor(), Risk()], unchecked=True)


def test_the_tree():
    """`repr` shows the order of evaluation."""
    assert repr(ExecutionPipeline([Risk(), Executor(), After()])) == (
        "ExecutionPipeline\n└─ Risk\n  └─ Executor\n    └─ After\n      └─ (result)"
    )


def test_editing_returns_a_new_pipeline():
    """Insert, replace, remove and move; the old one stays as it was."""
    risk, executor, extra = Risk(), Executor(), Pass()
    pipeline = ExecutionPipeline([risk, executor])
    assert list(pipeline.insert(extra, before=Executor)) == [risk, extra, executor]
    assert list(pipeline.insert(extra, after="Executor")) == [risk, executor, extra]
    other = Risk()
    assert list(pipeline.replace(risk, other)) == [other, executor]
    longer = pipeline.insert(extra, before=risk)
    assert list(longer) == [extra, risk, executor]
    assert list(longer.remove("Pass")) == [risk, executor]
    assert list(longer.move(Pass, 1)) == [risk, extra, executor]
    assert list(pipeline) == [risk, executor]
    assert longer.index(Executor) == 2


def test_editing_is_checked_too():
    """A chain cannot be broken by taking something out."""
    pipeline = ExecutionPipeline([Risk(), Executor()])
    with pytest.raises(PipelineError, match="no risk handler"):
        pipeline.remove(Risk)
    with pytest.raises(PipelineError, match="no executor"):
        pipeline.remove(Executor)
    with pytest.raises(PipelineError, match="no risk handler"):
        pipeline.move(Risk, 1)
    with pytest.raises(PipelineError, match="exactly one of before= and after="):
        pipeline.insert(Pass())
    with pytest.raises(PipelineError, match="exactly one of before= and after="):
        pipeline.insert(Pass(), before=Risk, after=Risk)
    with pytest.raises(PipelineError, match="no handler 'Nobody' in: Risk, Executor"):
        pipeline.index("Nobody")
    with pytest.raises(PipelineError, match="no handler 'After' in: Risk, Executor"):
        pipeline.index(After)


def test_editing_keeps_unchecked():
    """What was meant stays meant."""
    pipeline = ExecutionPipeline([Executor()], unchecked=True).insert(Pass(), before=Executor)
    assert pipeline.unchecked


def test_binding():
    """Handlers that ask for the desk get it; functions and others are left alone."""
    seen = []

    class Bound(Pass):
        def bind(self, desk):
            seen.append(desk)

    chain(Bound(), Pass()).bind("desk")
    assert seen == ["desk"]


def test_handler_functions():
    """One decorated async function is a handler, and is shown by its name."""

    @handler
    async def spread_gate(ticket, call_next):
        return await call_next(ticket)

    assert isinstance(spread_gate, ExecutionHandler)
    assert "spread_gate" in repr(chain(spread_gate))
    assert run(chain(spread_gate)).trace[1].handler == "spread_gate"


def test_functions_of_another_shape_are_refused():
    """Where they are decorated."""

    def plain(ticket, call_next):
        return None

    async def short(ticket):
        return None

    with pytest.raises(PipelineError, match="plain: a handler must be an `async def` function"):
        handler(plain)
    with pytest.raises(PipelineError, match=r"short: a handler takes \(ticket, call_next\)"):
        handler(short)


# -- running -------------------------------------------------------------------------------------------


def test_the_result_holds_each_verdict_and_its_own_time():
    """Time spent further in is not counted."""
    result = run(ExecutionPipeline([Risk(), Executor(), After()]))
    assert result.outcome is Outcome.FILLED
    trace = [(t.handler, t.verdict, t.reason, t.seconds) for t in result.trace]
    assert trace == [
        ("Risk", "passed", "", 3.0),
        ("Executor", "passed", "", 10.0),
        ("After", "passed", "", 3.0),
    ]


def test_changes_are_traced():
    """What a handler changed, and what it remarked."""

    @handler
    async def shrink(ticket, call_next):
        changed = ticket.evolve(quantity=D("0.5"), stop_loss=D(98)).note("too much")
        return await call_next(changed)

    @handler
    async def remark(ticket, call_next):
        return await call_next(ticket.note("seen"))

    result = run(chain(shrink, remark))
    assert result.trace[1].verdict == "changed"
    assert result.trace[1].reason == "quantity 1 -> 0.5, stop_loss unset -> 98; too much"
    assert (result.trace[2].verdict, result.trace[2].reason) == ("passed", "seen")


def test_a_handler_may_change_the_result():
    """Wrapping what follows is allowed."""

    @handler
    async def warn(ticket, call_next):
        return (await call_next(ticket)).with_alert("look")

    assert run(chain(warn)).alerts == ("look",)


def test_a_denial_stops_the_chain():
    """Nothing further in is reached, and the trace ends with the reason."""
    executor = Executor()

    @handler
    async def gate(ticket, call_next):
        return ticket.deny(DenialCode.SPREAD_TOO_WIDE, spread_bps=200, limit_bps=50)

    result = run(ExecutionPipeline([Risk(), gate, executor]))
    assert executor.sent == 0
    assert result.outcome is Outcome.DENIED
    assert result.reason == "SPREAD_TOO_WIDE: spread_bps=200, limit_bps=50"
    assert [(t.handler, t.verdict) for t in result.trace] == [
        ("Risk", "passed"),
        ("gate", "denied"),
    ]
    assert result.trace[1].reason == result.reason


def test_another_outcome_is_its_own_verdict():
    """A handler may end the chain with more than a denial."""

    @handler
    async def queue(ticket, call_next):
        return ticket.result(Outcome.QUEUED, reason="closed")

    entry = run(chain(queue)).trace[1]
    assert (entry.verdict, entry.reason) == ("queued", "closed")


def test_a_ticket_travels_once():
    """The second call raises before anything is sent a second time."""
    executor = Executor()
    caught = []

    @handler
    async def twice(ticket, call_next):
        result = await call_next(ticket)
        try:
            await call_next(ticket)
        except PipelineError as error:
            caught.append(str(error))
        return result

    result = run(ExecutionPipeline([Risk(), twice, executor]))
    assert caught == ["twice called call_next twice; a ticket travels once"]
    assert executor.sent == 1
    assert result.outcome is Outcome.FILLED


def test_twice_at_the_same_moment_is_once():
    """Neither waiting for the first helps."""
    executor = Executor()

    @handler
    async def twice(ticket, call_next):
        first, second = await asyncio.gather(
            call_next(ticket), call_next(ticket), return_exceptions=True
        )
        assert isinstance(second, PipelineError)
        return first

    run(ExecutionPipeline([Risk(), twice, executor]))
    assert executor.sent == 1


@handler
async def broken_before(ticket, call_next):
    raise LookupError("no idea")


@handler
async def broken_behind(ticket, call_next):
    await call_next(ticket)
    raise LookupError("no idea")


def test_a_handler_that_raises_before_the_send_denies():
    """Nothing was sent, the error is in the trace, the log and an alert (P1)."""
    executor = Executor()
    with capture_logs() as logs:
        result = run(ExecutionPipeline([Risk(), broken_before, executor]))
    assert executor.sent == 0
    assert result.outcome is Outcome.DENIED
    assert result.denial.code is DenialCode.HANDLER_FAILED
    assert result.denial.context == {
        "handler": "broken_before",
        "error": "LookupError: no idea",
    }
    assert result.alerts == ("broken_before raised LookupError: no idea",)
    assert (result.trace[1].verdict, result.trace[1].reason) == ("raised", "LookupError: no idea")
    assert [(log["event"], log["signal_id"]) for log in logs] == [("handler.failed", "s1")]


def test_a_handler_that_raises_on_the_way_back_hides_no_order():
    """What was done further in is done."""
    with capture_logs():
        result = run(chain(broken_behind))
    assert result.outcome is Outcome.FILLED
    assert result.order.client_order_id == "xk1"
    assert result.alerts == ("broken_behind raised LookupError: no idea",)
    assert result.trace[1].verdict == "raised"


def test_a_handler_that_raises_after_the_send_hides_no_order():
    """It has the sent order on its ticket."""
    with capture_logs():
        result = run(ExecutionPipeline([Risk(), Executor(), broken_before]))
    assert result.outcome is Outcome.FILLED
    assert result.order.client_order_id == "xk1"
    assert result.trace[2].verdict == "raised"


def test_a_cancelled_caller_is_not_caught():
    """Cancelling is no failure of a handler."""

    async def main(_clock):
        task = asyncio.ensure_future(chain()(make_ticket()))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main)


def test_a_handler_that_returns_something_else():
    """Rubbish is no result (P4): it counts as a failure of the handler."""

    @handler
    async def rubbish(ticket, call_next):
        return None

    with capture_logs():
        result = run(ExecutionPipeline([rubbish, Risk(), Executor()]))
    assert result.outcome is Outcome.DENIED
    assert "rubbish returned None, not an ExecutionResult" in result.denial.context["error"]


def test_a_handler_that_forgets_to_return_hides_no_order():
    """The order was sent, whatever the handler made of its result."""

    @handler
    async def forgetful(ticket, call_next):
        await call_next(ticket)

    with capture_logs():
        result = run(chain(forgetful))
    assert result.outcome is Outcome.FILLED
    assert result.order.client_order_id == "xk1"
    assert "forgetful returned None" in result.trace[1].reason


def test_a_handler_that_denies_on_the_way_back_hides_no_order():
    """A denial says that nothing was sent, so it cannot replace the result of a sent order."""

    @handler
    async def denies_late(ticket, call_next):
        await call_next(ticket)
        return ticket.deny(DenialCode.REFUSED_BY_HANDLER)

    with capture_logs():
        result = run(chain(denies_late))
    assert result.order.client_order_id == "xk1"
    assert result.outcome is Outcome.FILLED
    assert "hid a sent order" in result.alerts[0]


def test_a_chain_whose_executor_forgets_the_order():
    """The innermost link has nothing to report."""

    class Forgetful(Executor):
        async def __call__(self, ticket, call_next, /):
            return await call_next(ticket)

    with capture_logs():
        result = run(ExecutionPipeline([Risk(), Forgetful()]))
    assert "without an executor having sent" in result.denial.context["error"]


# -- the innermost link --------------------------------------------------------------------------------


def test_finish_reports_the_order_as_it_stands():
    """Quantity, fills, price and reason are the order's."""
    order = make_order(OrderState.CANCELLED, filled=0, quantity=3, reason="by the venue")
    result = finish(make_ticket().with_order(order))
    assert result.outcome is Outcome.CANCELLED
    assert result.requested == 3
    assert result.filled == 0
    assert result.reason == "by the venue"
    assert result.client_order_ids == ("xk1",)


@pytest.mark.parametrize(
    ("state", "filled", "outcome"),
    [
        (OrderState.NEW, 0, Outcome.IN_DOUBT),
        (OrderState.SUBMITTED, 0, Outcome.IN_DOUBT),
        (OrderState.IN_DOUBT, 0, Outcome.IN_DOUBT),
        (OrderState.IN_DOUBT, 1, Outcome.IN_DOUBT),
        (OrderState.PRESUMED_ABSENT, 0, Outcome.IN_DOUBT),
        (OrderState.HELD, 0, Outcome.WORKING),
        (OrderState.ACCEPTED, 0, Outcome.WORKING),
        (OrderState.PARTIALLY_FILLED, 1, Outcome.PARTIALLY_FILLED),
        (OrderState.PENDING_CANCEL, 0, Outcome.WORKING),
        (OrderState.PENDING_CANCEL, 1, Outcome.PARTIALLY_FILLED),
        (OrderState.PENDING_AMEND, 0, Outcome.WORKING),
        (OrderState.FILLED, 2, Outcome.FILLED),
        (OrderState.CANCELLED, 0, Outcome.CANCELLED),
        (OrderState.CANCELLED, 1, Outcome.PARTIALLY_FILLED),
        (OrderState.CANCELLED, 2, Outcome.FILLED),
        (OrderState.REJECTED, 0, Outcome.REJECTED),
        (OrderState.EXPIRED, 0, Outcome.EXPIRED),
        (OrderState.EXPIRED, 1, Outcome.PARTIALLY_FILLED),
        (OrderState.FAILED, 0, Outcome.REJECTED),
    ],
)
def test_outcomes(state, filled, outcome):
    """A part that was executed always counts; what is unknown is never called anything else."""
    assert outcome_of(make_order(state, filled=filled, quantity=2)) is outcome


# -- the stamp -----------------------------------------------------------------------------------------

STAMP = RiskStamp("s1", "BTC/USDT", Side.BUY, D(2), D(100))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"quantity": D(2)}, True),
        ({"quantity": D("0.5")}, True),
        ({"quantity": D("2.1")}, False),
        ({"quantity": None}, False),
        ({"side": Side.SELL}, False),
        ({"instrument": Instrument.default("ETH/USDT")}, False),
        ({"limit_price": D(100)}, True),
        ({"limit_price": D(99)}, True),
        ({"limit_price": D("100.01")}, False),
        ({"stop_price": D(101)}, False),
        ({"stop_price": D(100)}, True),
        ({"quantity": D(9), "stamp": RiskStamp("s1", "BTC/USDT", Side.BUY, D(9), D(100))}, True),
    ],
)
def test_a_change_beyond_the_approval_drops_it(changes, kept):
    """Less is covered, more is not: fail closed."""
    ticket = make_ticket(stamp=STAMP).evolve(**changes)
    assert (ticket.stamp is not None) is kept
    assert ticket.is_covered is kept


# -- deadlines -----------------------------------------------------------------------------------------


class Hangs(Pass):
    """Takes *before* and *after* seconds for itself."""

    def __init__(self, before=0, after=0):
        self.before, self.after = before, after

    async def __call__(self, ticket, call_next, /):
        await asyncio.sleep(self.before)
        result = await call_next(ticket)
        await asyncio.sleep(self.after)
        return result


def test_a_handler_that_hangs_before_the_executor_denies():
    """P3: nothing is sent, and the caller is told by whose fault."""
    pipeline = chain(hung := Hangs(before=1000), deadline=timedelta(seconds=20))
    result = run(pipeline)
    assert result.denial.code is DenialCode.HANDLER_FAILED
    assert result.denial.context["handler"] == "Hangs"
    assert "took too long" in result.denial.context["error"]
    assert pipeline.handlers[-1].sent == 0
    assert [entry.verdict for entry in result.trace] == ["passed", "raised"]
    assert result.trace[1].seconds == 20
    assert run(chain(hung, deadline=timedelta(seconds=1001))).outcome is Outcome.FILLED


def test_what_comes_further_in_does_not_count():
    """An order that is being sent is never cut off, however long that takes."""
    pipeline = chain(Hangs(before=4), deadline=timedelta(seconds=5))
    assert run(pipeline).outcome is Outcome.FILLED
    assert pipeline.handlers[-1].sent == 1


def test_a_handler_that_hangs_on_the_way_back_does_not_hide_the_order():
    """Its time before and after is counted together; the result of the send is told all the same."""
    result = run(chain(Hangs(before=4, after=2), deadline=timedelta(seconds=5)))
    assert result.outcome is Outcome.FILLED
    assert "took too long" in result.alerts[0]


def test_a_handler_may_bound_itself():
    """`deadline = None` or another one is its own; the executor and what follows it have none."""

    class Patient(Hangs):
        deadline = None

    class Hasty(Hangs):
        deadline = timedelta(seconds=1)

    class Late(Hangs):
        place = "after"

    assert run(chain(Patient(before=1000))).outcome is Outcome.FILLED
    assert run(chain(Hasty(before=2))).outcome is Outcome.DENIED
    pipeline = ExecutionPipeline([Risk(), Executor(), Late(before=1000)])
    assert run(pipeline).outcome is Outcome.FILLED
    assert run(pipeline.insert(Hasty(before=2), before="Executor")).outcome is Outcome.DENIED
    shorter = ExecutionPipeline([Risk(), Executor()], deadline=timedelta(seconds=7))
    assert shorter.insert(Check(), before="Executor").deadline == timedelta(seconds=7)


def test_a_time_out_of_its_own_is_told_as_such():
    """Only the deadline is called one."""

    @handler
    async def reads(_ticket, _call_next):
        raise TimeoutError("the news service is slow")

    result = run(chain(reads))
    assert result.denial.context["error"] == "TimeoutError: the news service is slow"


def test_a_ticket_does_not_travel_on_after_its_handler_has_ended():
    """A task that the handler left behind cannot send what was denied."""
    left = []

    @handler
    async def leaves(ticket, call_next):
        async def later():
            await asyncio.sleep(5)
            await call_next(ticket)

        left.append(asyncio.get_running_loop().create_task(later()))
        return ticket.deny(DenialCode.CANCELLED)

    pipeline = chain(leaves)

    async def main(_clock):
        result = await pipeline(make_ticket())
        with pytest.raises(PipelineError, match="leaves called call_next after its end"):
            await left[0]
        return result

    assert run_virtual(main).outcome is Outcome.DENIED
    assert pipeline.handlers[-1].sent == 0


def test_a_handler_that_outlives_its_deadline_cannot_send():
    """One that swallows the cancellation is refused when it goes on."""

    @handler
    async def stubborn(ticket, call_next):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return await call_next(ticket)

    pipeline = chain(stubborn)
    assert run(pipeline).outcome is Outcome.DENIED
    assert pipeline.handlers[-1].sent == 0


def test_what_a_handler_does_not_wait_for_is_waited_for():
    """Nobody is told that a ticket was denied while its order is being sent."""

    @handler
    async def hasty(ticket, call_next):
        hasty.task = asyncio.get_running_loop().create_task(call_next(ticket))
        await asyncio.sleep(1)
        return ticket.deny(DenialCode.CANCELLED)

    result = run(chain(hasty))
    assert result.outcome is Outcome.FILLED
    assert "hasty did not wait for call_next" in result.alerts[0]


def test_a_deadline_must_be_above_zero():
    """None would deny every ticket."""
    with pytest.raises(ConfigurationError, match="must be above zero"):
        chain(deadline=timedelta(0))
