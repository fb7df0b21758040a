"""Waiting for an order, and for a venue that wants to be left alone."""

import asyncio
from datetime import timedelta

import pytest
from tests.support import orders as make
from tests.support.orders import AT, changed

from execkit.errors import RateLimitError
from execkit.orders.waiting import Changes, Pace, Throttle, Use
from execkit.virtual_time import run_virtual


def virtual(test):
    def run():
        run_virtual(lambda _clock: test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def now():
    return asyncio.get_running_loop().time()


def tell(changes, order, event):
    order.change(changed(event), AT)
    changes.on_record(None, order)


def is_closed(order):
    return order.is_closed


# -- changes -------------------------------------------------------------------------------------------


@virtual
async def test_a_condition_that_holds_is_not_waited_for():
    """No turn of the loop passes."""
    changes, order = Changes(), make.order("fail")
    assert await changes.until(order, is_closed, 5)
    await changes.closed(order)
    assert now() == 0


@virtual
async def test_any_news_wakes_and_the_condition_decides():
    """News that do not fulfil it are waited through; without a limit for ever."""
    changes, order = Changes(), make.order()
    waiters = [asyncio.ensure_future(changes.closed(order)) for _ in range(2)]
    await asyncio.sleep(1)
    tell(changes, order, "submit")
    await asyncio.sleep(1)
    assert not any(each.done() for each in waiters)
    tell(changes, order, "reject")
    await asyncio.gather(*waiters)
    assert now() == 2
    assert changes._waiters == {}


@virtual
async def test_the_limit_is_of_the_whole_wait():
    """News on the way do not prolong it."""
    changes, order = Changes(), make.order()

    async def chatter():
        for event in ("submit", "accept", "ask_cancel"):
            await asyncio.sleep(1)
            tell(changes, order, event)

    task = asyncio.ensure_future(chatter())
    assert not await changes.until(order, is_closed, 2.5)
    assert now() == 2.5
    await task


@virtual
async def test_nobody_is_left_waiting_in_memory():
    """I32: whoever stops waiting, by time or by cancellation, leaves nothing behind."""
    changes, order = Changes(), make.order()
    for _ in range(5):
        assert not await changes.until(order, is_closed, 0.1)
    assert changes._waiters == {}
    first, second = (asyncio.ensure_future(changes.closed(order)) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(changes._waiters["o1"]) == 1
    tell(changes, order, "fail")
    await second


@virtual
async def test_news_of_other_orders_wake_nobody():
    """Nor do records without an order, nor news while nobody waits."""
    changes, order, other = Changes(), make.order(), make.order(order_id="o2")
    changes.on_record(None, order)
    task = asyncio.ensure_future(changes.until(order, is_closed, 5))
    await asyncio.sleep(1)
    changes.on_record(None, None)
    changes.on_record(None, other)
    assert not changes._waiters["o1"][0].done()
    changes._waiters["o1"][0].cancel()
    tell(changes, order, "fail")
    assert await task


# -- pace ----------------------------------------------------------------------------------------------


def slow(seconds=None):
    return RateLimitError(
        "slow", retry_after=None if seconds is None else timedelta(seconds=seconds)
    )


@virtual
async def test_the_longest_pause_holds():
    """A later, shorter one does not cut it; one without a length changes nothing."""
    pace = Pace()
    assert pace.left() <= 0
    await pace.turn()
    pace.note(slow(5))
    pace.note(slow(3))
    pace.note(slow())
    assert pace.left() == 5
    task = asyncio.ensure_future(pace.turn())
    await asyncio.sleep(2)
    pace.note(slow(6))
    await task
    assert now() == 8


@virtual
async def test_a_query_waits_its_turn_and_is_bounded():
    """It waits for a short pause, and then has its time limit to itself."""
    pace = Pace()
    pace.note(slow(2))

    async def answer(value, *, other):
        await asyncio.sleep(1)
        return value, other

    assert await pace.ask(answer, 3, "a", other="b") == ("a", "b")
    assert now() == 3
    with pytest.raises(TimeoutError):
        await pace.ask(asyncio.sleep, 3, 10)
    assert now() == 6


@virtual
async def test_a_query_is_not_made_during_a_long_pause():
    """Asking on would prolong it; what the venue says to a query counts for everything."""
    pace = Pace()

    async def refuse():
        raise slow(30)

    with pytest.raises(RateLimitError):
        await pace.ask(refuse, 10)
    assert pace.left() == 30
    with pytest.raises(RateLimitError, match="the venue asked for a pause") as refusal:
        await pace.ask(asyncio.sleep, 10, 1)
    assert refusal.value.retry_after == timedelta(seconds=30)
    assert now() == 0


# -- the venue's rate ------------------------------------------------------------------------------------


async def leave(throttle, kind, use, times):
    await throttle.turn(use)
    times.append((kind, now()))


@virtual
async def test_entries_wait_in_line_and_leave_the_last_fifth():
    """Ten in ten seconds: eight entries leave at once, the others when the window lets them, in their order."""
    throttle, times = Throttle((10, timedelta(seconds=10))), []
    entries = [leave(throttle, number, Use.ENTRY, times) for number in range(10)]
    await asyncio.gather(*entries)
    assert times == [(number, 0.0) for number in range(8)] + [(8, 10.0), (9, 10.0)]


@virtual
async def test_reductions_pass_a_line_of_entries():
    """The reserve is theirs at once; beyond it they wait too, because the venue counts everything."""
    throttle, times = Throttle((10, timedelta(seconds=10))), []
    entries = [leave(throttle, "entry", Use.ENTRY, times) for _ in range(9)]
    cuts = [leave(throttle, "cut", Use.REDUCTION, times) for _ in range(3)]
    await asyncio.gather(*entries, *cuts)
    assert [at for kind, at in times if kind == "cut"] == [0.0, 0.0, 10.0]


@virtual
async def test_many_cancels_leave_room_for_a_stop():
    """They may use what entries may not, but the last tenth is for orders that make a position smaller."""
    throttle, times = Throttle((10, timedelta(seconds=10))), []
    cancels = [leave(throttle, "cancel", Use.CHANGE, times) for _ in range(12)]
    await asyncio.gather(*cancels, leave(throttle, "stop", Use.REDUCTION, times))
    assert [at for kind, at in times if kind == "cancel"] == [0.0] * 9 + [10.0] * 3
    assert ("stop", 0.0) in times


@virtual
async def test_a_turn_that_was_given_back_is_free():
    """Who was refused at the door has used nothing up; without a rate nothing is counted."""
    throttle = Throttle((1, timedelta(seconds=10)))
    await throttle.turn(Use.ENTRY)
    throttle.give_back()
    assert throttle.wait(Use.ENTRY) == 0
    free = Throttle(None)
    for _ in range(100):
        await free.turn(Use.ENTRY)
    free.give_back()
    assert (free.wait(Use.ENTRY), now()) == (0, 0)


@virtual
async def test_what_leaves_together_waits_for_one_turn():
    """I10: a list is two commands when it leaves; the first is not counted at the time at which it began to wait."""
    throttle, times = Throttle((4, timedelta(seconds=10))), []
    for at in (0, 2, 4):
        await asyncio.sleep(at - now())
        await throttle.turn(Use.REDUCTION)
    await throttle.turn(Use.REDUCTION, 2)
    times.append(now())
    await asyncio.gather(*(leave(throttle, "one", Use.REDUCTION, times) for _ in range(3)))
    # Taken at 0, 2, 4; the two leave at 10, when the first is forgotten; the others as the window lets them.
    assert times == [10.0, ("one", 12.0), ("one", 14.0), ("one", 20.0)]
    throttle.give_back(2)
    assert throttle.wait(Use.REDUCTION) == 0
    assert throttle.wait(Use.REDUCTION, 2) == 0
    assert throttle.wait(Use.REDUCTION, 3) == 0


@virtual
async def test_a_list_larger_than_the_window_leaves_when_the_window_is_empty():
    """It cannot be made smaller, and waiting for ever would protect nothing."""
    throttle = Throttle((1, timedelta(seconds=10)))
    await throttle.turn(Use.REDUCTION)
    await throttle.turn(Use.REDUCTION, 2)
    assert now() == 10
    throttle.give_back(2)
    assert throttle.wait(Use.REDUCTION) == 0


@virtual
async def test_nobody_takes_a_turn_past_the_line():
    """When the window opens, whoever came first leaves first, although a turn is free at once."""
    throttle, times = Throttle((1, timedelta(seconds=10))), []
    assert throttle.take_now(Use.ENTRY)
    assert not throttle.take_now(Use.ENTRY)
    waiting = asyncio.ensure_future(leave(throttle, "first", Use.ENTRY, times))
    await asyncio.sleep(1)
    throttle.give_back()
    assert throttle.wait(Use.ENTRY) == 0
    assert not throttle.take_now(Use.ENTRY)
    await waiting
    assert times == [("first", 10.0)]


@virtual
async def test_one_that_gives_up_waiting_takes_no_turn():
    """A cancelled wait leaves its place in line to the next."""
    throttle, times = Throttle((1, timedelta(seconds=10))), []
    await throttle.turn(Use.ENTRY)
    first = asyncio.ensure_future(leave(throttle, "first", Use.ENTRY, times))
    second = asyncio.ensure_future(leave(throttle, "second", Use.ENTRY, times))
    await asyncio.sleep(1)
    first.cancel()
    await second
    assert times == [("second", 10.0)]
