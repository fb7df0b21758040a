"""The life of a trade plan, with restarts at any moment, against a model of it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.errors import SignalConflictError
from execkit.functions.base import ExecutionSignal
from execkit.functions.builtin import standard_registry
from execkit.model.plan import TradePlanStatus
from execkit.orders.book import Book
from execkit.plans import TradePlan
from execkit.virtual_time import run_virtual

from .conftest import BarDesk, make_bar

WAITING, OPEN = TradePlanStatus.AWAITING_ENTRY, TradePlanStatus.POSITION_OPEN
COMPLETED, CANCELLED = TradePlanStatus.COMPLETED, TradePlanStatus.CANCELLED
ERROR = TradePlanStatus.ERROR

RULES = {
    "entry": [{"function": "enter", "timeframe": "1m"}, {"function": "enter", "timeframe": "5m"}],
    "exit": [{"function": "leave", "timeframe": "1m"}],
}


class Model:
    """What the words of `TradePlanStatus` mean."""

    def __init__(self, *, repeat):
        self.repeat = repeat
        self.status = WAITING
        self.holds = False
        self.traded = False
        """Since it began to wait."""

    def close_bar(self):
        """Bring the status up to the position; return which function is asked."""
        if self.status is WAITING and self.holds:
            self.status = OPEN
        elif (self.status is OPEN and not self.holds) or (self.status is WAITING and self.traded):
            self.status = WAITING if self.repeat else COMPLETED
        if self.holds:
            return None if self.status is CANCELLED else "leave"
        return "enter" if self.status is WAITING else None

    def fill(self):
        self.holds = not self.holds
        self.traded |= not self.holds

    def operate(self, status):
        self.status = status
        self.traded = False if status is WAITING else self.traded


class World:
    """A desk, its runner and the model, moved together."""

    def __init__(self, *, repeat):
        self.desk = BarDesk()
        self.plan = TradePlan(name="p", symbol="BTC/USDT", repeat=repeat, **RULES)
        self.model = Model(repeat=repeat)
        self.wants = False
        self.asked = []
        self.minute = 0
        self.start()

    def start(self):
        registry = standard_registry(clock=self.desk.clock)
        for name, action in (("enter", "enter_long"), ("leave", "exit")):
            registry.register(name)(self.function(name, action))
        self.runner = self.desk.runner(self.plan, registry=registry)

    def function(self, name, action):
        async def answer(_context):
            self.asked.append(name)
            return ExecutionSignal(action=action if self.wants else "none", confidence=1)

        return answer

    async def bar(self, wants, outcome):
        """Close a bar at which the function asked, if any, wants to act; *outcome* is what comes of that."""
        desk, model = self.desk, self.model
        self.minute += 1
        self.wants, self.asked = wants, []
        desk.fills = outcome == "fill"
        desk.error = SignalConflictError("other content") if outcome == "conflict" else None
        expected = model.close_bar()
        before = len(desk.submitted)
        await desk.feed(self.runner, make_bar(self.minute))
        assert set(self.asked) <= ({expected} if expected else set())
        # With its first wish the plan acts on this close; a five-minute bar closes with every fifth.
        assert bool(self.asked) is (expected is not None)
        acts = wants and expected is not None
        assert len(desk.submitted) - before == acts
        if acts and outcome == "fill":
            model.fill()
        elif acts and outcome == "conflict":
            model.status = ERROR
        assert self.runner.status("p") is model.status
        assert (desk.book.position("BTC/USDT") is not None) is model.holds

    def stop_out(self):
        """The position's stop is filled between two bars."""
        if self.model.holds:
            self.desk.stop_out()
            self.model.fill()

    def operate(self, status):
        """A person puts the plan into a status."""
        self.runner.set_status("p", status, "by hand")
        self.model.operate(status)

    def restart(self):
        """All that is known is what was journalled."""
        book = Book()
        for record in self.desk.records:
            book.apply(record, self.desk.clock.now())
        self.desk.book = Book.restore(book.snapshot())
        self.start()
        assert self.runner.status("p") is self.model.status


steps = st.one_of(
    st.tuples(st.just("bar"), st.booleans(), st.sampled_from(["fill", "fill", "rest", "conflict"])),
    st.just(("stop_out",)),
    st.just(("restart",)),
    st.tuples(st.just("operate"), st.sampled_from([WAITING, CANCELLED])),
)


@given(repeat=st.booleans(), story=st.lists(steps, min_size=1, max_size=40))
def test_a_plan_lives_as_its_words_say(repeat, story):
    """Whom it asks, what it sends and where it stands, at every bar, also after restarts, errors and commands."""

    async def main(_clock):
        world = World(repeat=repeat)
        for name, *arguments in story:
            done = getattr(world, name)(*arguments)
            if asyncio.iscoroutine(done):
                await done

    run_virtual(main)


def test_a_finished_plan_can_be_armed_again():
    """`repeat: false` is one trade for each time that somebody arms it."""

    async def main(_clock):
        world = World(repeat=False)
        for _ in range(3):
            await world.bar(True, "fill")
            await world.bar(True, "fill")
            await world.bar(True, "fill")
            assert world.model.status is COMPLETED
            world.restart()
            world.operate(WAITING)
            world.restart()
        assert len(world.desk.submitted) == 6

    run_virtual(main)


@pytest.mark.parametrize("status", [CANCELLED, COMPLETED, ERROR])
def test_a_plan_may_start_in_any_status(desk, plan, bar, status):
    """What the file says counts until the journal knows better."""
    runner = desk.runner(plan([("close_above", "1m", {"threshold_price": 1})], status=status))
    run_virtual(lambda _clock: desk.feed(runner, bar(1, 100)))
    assert desk.submitted == []
    assert runner.status("p") is status
