"""D10, I29: whatever a function does, no order comes of it, the others go on, and it is left alone when it persists."""

import asyncio
from decimal import Decimal

import attrs
import pytest

from execkit.bars.evaluation import Watchdog
from execkit.functions.base import ExecutionSignal
from execkit.functions.builtin import standard_registry
from execkit.virtual_time import run_virtual

ABOVE = ("close_above", "1m", {"threshold_price": 100})


async def raises(_context):
    raise ValueError("no data\nfor this" + "!" * 300)


async def hangs(_context):
    await asyncio.Event().wait()


async def hangs_and_raises(_context):
    try:
        await asyncio.Event().wait()
    finally:
        raise KeyError("on the way out")


async def swallows_the_cancel(_context):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return ExecutionSignal(action="enter_long", confidence=1)


async def exits_the_process(_context):
    raise SystemExit(3)


async def cancels_itself(_context):
    raise asyncio.CancelledError


async def returns_nothing(_context):
    return None


async def returns_text(_context):
    return "enter_long"


async def says_nan(_context):
    return ExecutionSignal(action="enter_long", confidence=float("nan"))


async def other_symbol(_context):
    return ExecutionSignal(action="enter_long", confidence=1, symbol="ETH/USDT")


async def forged(_context):
    @attrs.frozen(kw_only=True)
    class Forged(ExecutionSignal):
        pass

    return Forged(action="enter_long", confidence=1)


async def unspeakable(_context):
    class Nasty(Exception):
        def __str__(self):
            raise RuntimeError

    raise Nasty


async def changes_the_context(context):
    context.bar.close = Decimal(0)


FAULTS = {
    raises: "raised ValueError: no data",
    hangs: "no answer within 100 ms",
    hangs_and_raises: "no answer within 100 ms",
    swallows_the_cancel: "no answer within 100 ms",
    exits_the_process: "raised SystemExit: 3",
    cancels_itself: "raised CancelledError",
    returns_nothing: "returned NoneType, not an ExecutionSignal",
    returns_text: "returned str, not an ExecutionSignal",
    says_nan: "raised ConfigurationError: confidence: 'nan' is not",
    other_symbol: "answered for ETH/USDT, was asked about BTC/USDT",
    forged: "returned Forged, not an ExecutionSignal",
    unspeakable: "raised Nasty: (no text)",
    changes_the_context: "raised AttributeError: immutable type",
}


def registry_of(function):
    registry = standard_registry()
    registry.register("bad")(function)
    return registry


@pytest.mark.parametrize("function", FAULTS, ids=lambda f: f.__name__)
def test_a_faulty_function_is_none_and_the_next_is_asked(desk, plan, bar, function):
    """P1, P3, P4, P5, P7: the decision says NONE and why, and the next rule gets its turn at the same close."""
    runner = desk.runner(plan([("bad", "1m", {}), ABOVE]), registry=registry_of(function))
    run_virtual(lambda _clock: desk.feed(runner, bar(1, 101)))
    (name, action, reason), (other, entered, _) = desk.decisions
    assert (name, action) == ("bad", "skipped")
    assert reason.startswith(FAULTS[function])
    assert len(reason) < 260
    assert (other, entered) == ("close_above", "enter_long")
    assert len(desk.submitted) == 1
    bad, good = runner.health
    assert (bad.failures, bad.failures_in_a_row, good.failures) == (1, 1, 0)
    assert bad.last_evaluated == bar(1).close_time


def test_a_hang_costs_its_budget_and_no_more(desk, plan, bar):
    """P3, I25: a close with two hanging functions is over after twice 100 ms."""
    rules = [("bad", "1m", {}), ("bad", "1m", {}), ABOVE]
    runner = desk.runner(plan(rules), registry=registry_of(hangs))

    async def main(_clock):
        start = asyncio.get_running_loop().time()
        await desk.feed(runner, bar(1, 101))
        return asyncio.get_running_loop().time() - start

    assert run_virtual(main) == pytest.approx(0.2)
    assert len(desk.submitted) == 1


def test_a_slow_answer_within_the_budget_counts(desk, plan, bar):
    """Each evaluation has the whole budget, however long those before it took."""

    async def slow(_context):
        await asyncio.sleep(0.09)
        return ExecutionSignal.none("thought about it")

    runner = desk.runner(plan([("bad", "1m", {})] * 5), registry=registry_of(slow))
    run_virtual(lambda _clock: desk.feed(runner, bar(1)))
    assert [d[1:] for d in desk.decisions] == [("none", "thought about it")] * 5


def test_a_function_that_blocks_is_noticed_afterwards(desk, plan, bar):
    """P2: what never lets the loop cut it off is NONE all the same, whatever it answers, and counts as a failure."""

    async def blocks(_context):
        asyncio.get_running_loop()._virtual_now += 0.25
        return ExecutionSignal(action="enter_long", confidence=1)

    runner = desk.runner(plan([("bad", "1m", {}), ABOVE]), registry=registry_of(blocks))
    run_virtual(lambda _clock: desk.feed(runner, *(bar(n, 99) for n in range(1, 7))))
    assert desk.submitted == []
    reasons = [reason for name, _, reason in desk.decisions if name == "bad"]
    assert reasons[:5] == ["blocked the loop for 250 ms"] * 5
    assert reasons[5].startswith("left alone after 5 failures: blocked the loop")
    assert [d.duration_us for c in desk.closes[:5] for d in c.decisions] == [250_000, 0] * 5


def test_the_breaker_opens_after_five_failures_for_thirty_seconds(desk, plan, bar):
    """F breaker: then one trial; a failed one closes the door again, a good one forgets everything."""
    answers = [ValueError("x")] * 6 + [ExecutionSignal.none("back")] * 2

    async def moody(_context):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    runner = desk.runner(plan([("bad", "1m", {}), ABOVE]), registry=registry_of(moody))
    (bad, _) = runner.health

    async def main(_clock):
        minute = iter(range(1, 100))
        for _ in range(7):
            await desk.feed(runner, bar(next(minute)))
        assert (bad.evaluations, bad.failures) == (5, 5)
        await asyncio.sleep(29.9)
        await desk.feed(runner, bar(next(minute)))
        assert bad.evaluations == 5
        await asyncio.sleep(0.1)
        await desk.feed(runner, bar(next(minute)))
        await desk.feed(runner, bar(next(minute)))
        assert (bad.evaluations, bad.failures_in_a_row) == (6, 6)
        await asyncio.sleep(30)
        await desk.feed(runner, bar(next(minute)))
        await desk.feed(runner, bar(next(minute)))
        assert (bad.evaluations, bad.failures_in_a_row, answers) == (8, 0, [])

    run_virtual(main)
    reasons = [reason for name, _, reason in desk.decisions if name == "bad"]
    assert reasons[5] == "left alone after 5 failures: raised ValueError: x"
    assert reasons[-1] == "back"
    others = [action for name, action, _ in desk.decisions if name == "close_above"]
    assert others == ["none"] * 12, "the other function was asked every time"


def test_a_stop_of_the_runner_is_obeyed(desk, plan, bar):
    """A cancel from outside ends an evaluation at once and is no failure of the function."""
    runner = desk.runner(plan([("bad", "1m", {})]), registry=registry_of(hangs))

    async def main(_clock):
        task = asyncio.create_task(desk.feed(runner, bar(1)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main)
    assert desk.records == []
    assert runner.health[0].failures == 0


def test_a_stop_at_the_very_moment_of_the_time_out_is_obeyed(desk, plan, bar):
    """When budget and cancel coincide, the cancel wins: it is never swallowed."""
    runner = desk.runner(plan([("bad", "1m", {})]), registry=registry_of(hangs))

    async def main(_clock):
        task = asyncio.create_task(desk.feed(runner, bar(1)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(0.1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_ctrl_c_is_for_the_program(error):
    """An interrupt passes through; it is not a function's failure."""
    from execkit.bars.evaluation import FunctionUse
    from execkit.functions.builtin import CloseAbove, CloseParams
    from execkit.model.market import Timeframe

    class Interrupted(CloseAbove):
        async def evaluate(self, context):
            raise error

    function = Interrupted(CloseParams(threshold_price=Decimal(1)))
    use = FunctionUse("p", "f", Timeframe.M1, function)

    async def main():
        with Watchdog(0.1) as watchdog, pytest.raises(error):
            await use.ask(type("Context", (), {"timestamp": None})(), watchdog)

    asyncio.run(main())
    assert use.failures == 0


def test_one_timer_serves_a_batch():
    """A batch of quick evaluations sets one timer, and leaves none behind."""

    async def quick():
        return 1

    async def main(_clock):
        loop = asyncio.get_running_loop()
        timers = []
        call_at, loop.call_at = loop.call_at, lambda *a: timers.append(call_at(*a)) or timers[-1]
        with Watchdog(0.1) as watchdog:
            for _ in range(1000):
                assert await watchdog.run(quick()) == 1
        assert len(timers) == 1
        assert timers[0].cancelled()

    run_virtual(main)
