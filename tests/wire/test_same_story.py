"""One plan file on paper, Binance, Alpaca and Interactive Brokers: four journals that tell the same story.

Everything is real but the venues themselves: adapters over sockets, live bars, the whole engine. Run it with `-s` to
read the four stories side by side.
"""

import asyncio
import contextlib
import functools
import itertools
import random
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal

from tests.support.stages import OPEN, VENUES, SetClock, let_clock_be_set, paper_stage

from execkit.bars.live import LiveOptions
from execkit.engine import ExecutionEngine
from execkit.functions.builtin import standard_registry
from execkit.model.order import OrderEvent, OrderRole
from execkit.model.records import (
    Alarm,
    BarClosed,
    Filled,
    Intent,
    OrderChanged,
    PlanChanged,
    SignalResult,
)
from execkit.plans import load_plans

D = Decimal
MINUTE = timedelta(minutes=1)
PLAN = """
name: breakout
symbol: BTC/USDT
entry:
  - function: close_above
    timeframe: 1m
    parameters: {threshold_price: 205}
exit:
  - function: close_below
    timeframe: 1m
    parameters: {threshold_price: 204}
risk:
  stop_loss_pct: 1.5
  sizing: {method: fixed_quantity, value: 10}
"""
SCRIPT = ((200, False), (206, True), (207, True), ("203.5", False), (206, True))
"""Closes, and whether a position is held after them: nothing, in, nothing, out, in again."""
CRASH = D(202)
"""Below the stop of the second position, 1.5 percent below the close that opened it."""


def story(engine):
    """Tell a journal without ids and times, and without what hangs on a venue's spread and fees.

    Chapters are kept apart: in which order the news of two of them come is the line's chance. So is whether the
    acceptance of an order is heard of before its execution. A target rests only at venues that link it to the stop
    (and one of them then calls the stop held); elsewhere the engine watches for it. So it is told with the entry.
    """
    told = defaultdict(list)
    numbers, events, fills = {}, defaultdict(set), defaultdict(list)
    for entry in engine.parts.journal.entries:
        match entry.record:
            case BarClosed() as bar:
                said = ", ".join(f"{d.function} says {d.action}" for d in bar.decisions)
                told["closes"].append(f"{bar.close.normalize():f}: {said}")
            case Intent(request=request, role=role) as intent if role is not OrderRole.TARGET:
                numbers[request.client_order_id] = intent, len(numbers) + 1
            case OrderChanged() as change:
                held = change.event is OrderEvent.HOLD
                events[change.client_order_id].add(OrderEvent.ACCEPT if held else change.event)
            case Filled(fill=fill):
                fills[fill.client_order_id].append(fill)
            case SignalResult() as result:
                told["signals"].append(f"{result.side} {result.outcome} {result.denial or ''}")
            case PlanChanged() as change:
                told["plan"].append(change.status)
            case Alarm(code=code):
                told["alarms"].append(code)
    for own, (intent, number) in numbers.items():
        order, request = engine.book.orders[own], intent.request
        words = f"{number} {intent.role} {request.side} {request.quantity:.0f}"
        if request.stop_price is not None:
            words += f" at {request.stop_price.normalize():f}"
        if intent.take_profit is not None:
            words += f", target {intent.take_profit:.0f}"
        told["orders"].append(words)
        if fills[own]:
            events[own].discard(OrderEvent.ACCEPT)
        heard = [event.name for event in OrderEvent if event in events[own]]
        told["orders"].append(f"  {', '.join(heard)}: {order.state}")
        told["orders"] += [f"  filled {f.quantity:.0f} at {f.price:.1f}" for f in fills[own]]
    told["end"].append(f"positions: {sorted(engine.positions)}")
    return [line for part in sorted(told) for line in (f"{part}:", *(f"  {x}" for x in told[part]))]


def side_by_side(stories):
    """Return a table of stories by name."""
    rows = itertools.zip_longest(*stories.values(), fillvalue="")
    table = [tuple(stories), *rows]
    return "\n".join(" | ".join(f"{cell:<46}" for cell in row) for row in table)


async def until(condition, what, seconds=30):
    """Wait for something to be so."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what() if callable(what) else what}") from None


def stands(engine, stage, *, holds):
    """Tell whether all is quiet: with a position its stop rests, without one nothing does."""
    position = engine.positions.get(stage.symbol)
    if not holds:
        return position is None and not stage.resting()
    stop = engine.book.working_stop(stage.symbol)
    return position is not None and stop is not None and bool(stage.resting())


def is_done(engine, stage, close, *, holds):
    """Tell whether a close was dealt with, and what it led to too."""
    fired = engine.book.fired.get((stage.symbol, "1m"))
    return fired == close and stands(engine, stage, holds=holds)


async def play(stage, engine):
    """Lead one stage through the script."""
    close = OPEN
    for price, holds in (*SCRIPT, (CRASH, False)):
        if price is CRASH:
            await stage.move(CRASH)
            await until(lambda: stands(engine, stage, holds=False), f"{stage.name} is stopped out")
        close += MINUTE
        await stage.end_minute(D(price), close)
        done = functools.partial(is_done, engine, stage, close, holds=holds)
        await until(
            done,
            lambda price=price: f"{stage.name} is done with the close at {price}: {story(engine)}",
        )


async def test_four_journals_tell_the_same_story(tmp_path, monkeypatch):
    """Entry, stop, exit, entry, stopped out: the same decisions, orders, events and ends everywhere."""
    let_clock_be_set(monkeypatch)
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    async with contextlib.AsyncExitStack() as stack:
        stages = {"paper": await stack.enter_async_context(paper_stage(SetClock(), "binance"))}
        for name, make in VENUES.items():
            stages[name] = await stack.enter_async_context(make(SetClock()))
        engines = {}
        for name, stage in stages.items():
            [plan] = load_plans(file, functions=standard_registry())
            # As `execkit paper --symbol` does: the file stays as it is.
            plan = plan.model_copy(update={"symbol": stage.symbol})
            engine = ExecutionEngine(
                stage.exchange,
                journal=None,
                plans=[plan],
                pipeline=plan.pipeline(),
                live=LiveOptions(),
                clock=stage.clock,
                rng=random.Random(1),
            )
            engines[name] = await stack.enter_async_context(engine)
        await asyncio.gather(*(play(stages[name], engines[name]) for name in stages))
        stories = {name: story(engine) for name, engine in engines.items()}
        print(side_by_side(stories))
        for name, told in stories.items():
            assert told == stories["paper"], name
            for own, order in engines[name].book.orders.items():
                if order.role in (OrderRole.ENTRY, OrderRole.EXIT):
                    assert stages[name].accepted(own) == (0 if name == "paper" else 1), name
        assert stages["paper"].orders_sent() == 0
        assert "  2 stop sell 10 at 202.91" in stories["paper"]
