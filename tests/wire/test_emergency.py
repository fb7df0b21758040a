"""Everything out at two venues over sockets: 200 open orders, handlers that hang, one venue that answers nothing.

Makes the page `docs/reference/everything-out.md`.
"""

import asyncio
import contextlib
import re
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from tests.support import alpaca, binance
from tests.support.stages import SetClock
from tests.support.terminal import Terminal

from execkit import emergency
from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.segments import read_entries
from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import OperatorActed
from execkit.model.signal import TradingSignal
from execkit.orders.commands import Entry
from execkit.orders.waiting import Throttle
from execkit.pipeline import ExecutionPipeline
from execkit.signals import make_ticket
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.faults import Mishap

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "everything-out.md"
COMMAND = ".venv/bin/python -m tests.wire.test_emergency"
D = Decimal
EACH = 100
"""Resting entries at each venue."""
WITHIN = 3.0
"""Seconds after which a call tells what is left."""
HUNG = 0.5
"""Seconds after which the client of the venue that answers nothing gives up, as long as it does not answer."""
PATIENCE = 100.0
"""Seconds after which a wait is given up: no measure of speed, only the end of a test that hangs."""
BOUND = 60.0
"""Seconds that nothing may take here, however busy the machine is."""


@attrs.frozen
class Row:
    """What was seen at one venue."""

    command: str
    venue: str
    seconds: float
    """From the command, or from the first answer of a venue that gave none, to the end of what was to end."""
    left: str
    """What the command said is left there when it came back."""
    back: float
    """Seconds until it came back."""


# -- the venues ------------------------------------------------------------------------------------------


class Hangs:
    """A handler that never comes back, once it is told to."""

    place = "before"
    deadline = None

    def __init__(self):
        self.passes = asyncio.Event()
        self.passes.set()
        self.holds = asyncio.Event()

    async def __call__(self, ticket, call_next, /):
        if not self.passes.is_set():
            self.holds.set()
            await self.passes.wait()
        return await call_next(ticket)


@attrs.define
class Place:
    """An engine at a venue, with a position in one symbol and its entries in another one."""

    name: str
    venue: object
    engine: ExecutionEngine
    handler: Hangs
    symbol: str
    other: str
    journal: Path

    def entries(self):
        """Return the orders that the venue has open of ours, but for those that protect."""
        return [o for o in self.open() if o.request.side is Side.BUY]

    def open(self):
        return [order for orders in self.venue.core.open.values() for order in orders.values()]

    def held(self):
        """Return what the venue has of the position; Binance counts dust of fees as held."""
        return [p.quantity for p in self.venue.core.positions() if abs(p.quantity) >= D("0.01")]

    def is_flat(self):
        return not self.open() and not self.held()

    @contextlib.contextmanager
    def silent(self):
        """Have the venue answer nothing, and its client wait for less: else the test would take that time."""
        adapter = self.engine.desk.adapter
        where, name = (
            (adapter._client, "limit") if self.name == "binance" else (adapter._wire, "_limit")
        )
        patient = getattr(where, name)
        setattr(where, name, HUNG)
        self.venue.fail_next("any", Mishap.HANG, times=1_000_000)
        try:
            yield
        finally:
            # On a busy machine answers would else come too late again and again.
            setattr(where, name, patient)
            self.venue.heal()

    async def when(self, condition):
        """Return how many seconds pass until something is so at the venue."""
        began = asyncio.get_running_loop().time()
        await self.venue.until(condition, limit=PATIENCE)
        return asyncio.get_running_loop().time() - began


def signal(symbol, **changes):
    values = {"confluence": 4, "strength": 80, "quantity": D(1)}
    return TradingSignal(symbol=symbol, side=Side.BUY, **(values | changes))


async def rest(engine, symbol, price, number):
    """Place an entry that rests, past the chain: it lets only one through."""
    desk = engine.desk
    one = signal(symbol, limit_price=price, signal_id=f"r{number}")
    ticket = make_ticket(
        one,
        one.signal_id,
        instrument=await engine.instrument(symbol),
        quote=desk.quotes.last(symbol),
        account=engine.account,
        position=None,
        now=desk.clock.now(),
    )
    sent = await desk.gateway.send(Entry(ticket, unchecked=True))
    assert sent.denial is None, sent.denial
    assert sent.order.state is OrderState.ACCEPTED, sent


async def load(place):
    """Open a position with its stop, and the entries below the market in the other symbol."""
    engine = place.engine
    await engine.instrument(place.other)
    await engine.desk.quotes.get(place.other)
    # What was placed over hours is placed at once here.
    engine.desk.gateway.throttle = Throttle(None)
    assert (await engine.submit(signal(place.symbol))).filled == 1
    await engine.desk.keeper.idle()
    for first in range(0, EACH, 20):
        numbers = range(first, first + 20)
        await asyncio.gather(*(rest(engine, place.other, D(192), number) for number in numbers))
    assert len(place.entries()) == EACH
    assert len([o for o in engine.orders.active.values() if o.role is OrderRole.ENTRY]) == EACH


@contextlib.asynccontextmanager
async def two_places(folder, *, hung=True):
    """Yield Binance and Alpaca, each with a position, 100 open entries, and a signal that hangs in a handler."""
    clock = SetClock()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        prices = ({"BTC/USDT": D(200), "ETH/USDT": D(200)}, {"AAPL": D(200), "MSFT": D(200)})
        first = await enter(
            binance.BinanceVenue(prices=prices[0], rules=Rules(orders_per_10s=1_000), clock=clock)
        )
        second = await enter(alpaca.venue_on_the_wire(prices=prices[1], clock=clock))
        exchanges = (binance.adapter_of(first, clock=clock), alpaca.adapter_of(second))
        places = []
        for venue, exchange, listed in zip((first, second), exchanges, prices, strict=True):
            handler = Hangs()
            chain = ExecutionPipeline(
                [
                    handler,
                    ValidationHandler(),
                    RiskManagementHandler(),
                    OrderExecutorHandler(),
                    ReconciliationHandler(),
                ]
            )
            journal = folder / f"{exchange.name}.db"
            engine = ExecutionEngine(
                exchange,
                journal=journal,
                durability="process",
                clock=clock,
                pipeline=chain,
                store=False,
            )
            await enter(engine)
            places.append(Place(exchange.name, venue, engine, handler, *listed, journal))
        await asyncio.gather(*map(load, places))
        waiting = []
        for place in places if hung else ():
            place.handler.passes.clear()
            stack.callback(place.handler.passes.set)
            waiting.append(asyncio.ensure_future(place.engine.submit(signal(place.symbol))))
            await place.handler.holds.wait()
        yield places
        for place in places:
            place.handler.passes.set()
        for result in await asyncio.gather(*waiting):
            assert result.denial.code is DenialCode.TRADING_HALTED, result


async def until_out(command, places, good):
    """Return what a command says is left, and after how long; on a busy machine asked again until one venue is out."""
    engines, taken = [place.engine for place in places], None
    async with asyncio.timeout(PATIENCE):
        while True:
            left, back = await timed(command(engines, within=timedelta(seconds=WITHIN)))
            taken = taken or back
            if not left[places.index(good)].error:
                return left, taken


def told(left):
    """Return what a call said is left, in words."""
    entries, positions = len(left.orders), len(left.positions)
    return f"{count(entries, 'order')}, {count(positions, 'position')}" + (
        f": {left.error}" if left.error else ""
    )


def count(number, what):
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


# -- what is asked of them -------------------------------------------------------------------------------


async def flatten_from_code(folder):
    """`emergency.flatten`; Alpaca answers nothing."""
    command = "`emergency.flatten`"
    async with two_places(folder) as (good, bad):
        with bad.silent():
            first = asyncio.ensure_future(good.when(good.is_flat))
            left, back = await until_out(emergency.flatten, (good, bad), good)
            flat_after = await first
            assert left[0].is_flat, left[0]
            assert left[0].error == ""
            assert len(bad.entries()) == EACH
            assert bad.held() == [1]
            assert len(left[1].orders) >= EACH
            assert left[1].positions == {bad.symbol: D(1)}
            assert "goes on" in left[1].error
        rows = [
            Row(command, "Binance", flat_after, told(left[0]), back),
            Row(
                command, "Alpaca, silent at first", await bad.when(bad.is_flat), told(left[1]), back
            ),
        ]
        assert max(bad.venue.accepted(key) for key in bad.engine.orders) == 1
        return rows


async def cancel_from_code(folder):
    """`emergency.cancel_all`; Binance answers nothing."""
    command = "`emergency.cancel_all`"
    async with two_places(folder) as (bad, good):
        with bad.silent():
            first = asyncio.ensure_future(good.when(lambda: not good.entries()))
            left, back = await until_out(emergency.cancel_all, (bad, good), good)
            gone_after = await first
            assert left[1].error == ""
            # The position keeps its stop, and nothing else is left.
            assert left[1].positions == {good.symbol: D(1)}
            stays = set(left[1].orders)
            assert good.engine.book.working_stop(good.symbol).client_order_id in stays
            assert {order.request.client_order_id for order in good.open()} == stays
            assert len(bad.entries()) == EACH
            assert len(left[0].orders) == EACH + len(bad.open()) - len(bad.entries())
            assert "goes on" in left[0].error
        rows = [
            Row(command, "Alpaca", gone_after, told(left[1]), back),
            Row(
                command,
                "Binance, silent at first",
                await bad.when(lambda: not bad.entries()),
                told(left[0]),
                back,
            ),
        ]
        stop = bad.engine.book.working_stop(bad.symbol)
        assert stop.client_order_id in [order.request.client_order_id for order in bad.open()]
        return rows


async def both_from_a_terminal(folder):
    """`execkit cancel-all`, then `execkit flatten`, in another process for each venue; Alpaca answers nothing."""
    async with contextlib.AsyncExitStack() as stack:
        good, bad = await stack.enter_async_context(two_places(folder))
        offset = good.engine.desk.clock.offset.total_seconds()
        persons = [
            await stack.enter_async_context(Terminal(place.journal, offset))
            for place in (good, bad)
        ]
        await asyncio.gather(*(person.run("status") for person in persons))  # it has started
        with bad.silent():
            first = asyncio.ensure_future(good.when(lambda: not good.entries()))
            said, said_after = await both(timed(person.run("cancel-all")) for person in persons)
            gone_after = await first
            assert "not proven gone: none" in said[0]
            assert "trading state: halted" in said[0]
            assert f"error: {EACH} orders are not proven gone" in said[1]
            assert good.open()
            assert good.held()
            second = asyncio.ensure_future(good.when(good.is_flat))
            out, out_after = await both(timed(person.run("flatten")) for person in persons)
            flat_after = await second
            assert f"flat: {good.symbol}\nleft: -" in out[0]
            assert "flat: none" in out[1]
            assert len(bad.entries()) == EACH
            assert bad.held() == [1]
        back = await asyncio.gather(bad.when(lambda: not bad.entries()), bad.when(bad.is_flat))
        for place in (good, bad):
            acts = [e.record for e in read_entries(place.journal)]
            acts = [each.command for each in acts if isinstance(each, OperatorActed)]
            assert acts == ["cancel-all", "flatten"]
    first, second = (f"`execkit {each}`, another process" for each in ("cancel-all", "flatten"))
    silent = "Alpaca, silent at first"
    return [
        Row(first, "Binance", gone_after, left_in(said[0]), said_after[0]),
        Row(first, silent, back[0], left_in(said[1]), said_after[1]),
        Row(second, "Binance", flat_after, left_in(out[0]), out_after[0]),
        Row(second, silent, back[1], left_in(out[1]), out_after[1]),
    ]


async def timed(work):
    """Return what it comes to, and the seconds that it took."""
    began = asyncio.get_running_loop().time()
    return await work, asyncio.get_running_loop().time() - began


async def both(works):
    """Return what each comes to, and the seconds of each."""
    return zip(*await asyncio.gather(*works), strict=True)


def left_in(said):
    """Return the lines of an answer that say what is left, without the ids of orders."""
    block = re.search(r"^left:(.*?)^trading state", said, re.DOTALL | re.MULTILINE)
    if block is None:
        wrong = re.search(r"^error: (.*)$", said, re.MULTILINE)
        return wrong[1] if wrong else "nothing"
    lines = [line.strip() for line in block[1].splitlines() if line.strip() not in ("", "-")]
    return "; ".join(re.sub(r"xk[a-z2-7]+", "xk…", line) for line in lines) or "nothing"


# -- the page --------------------------------------------------------------------------------------------


async def rows(*, at_once):
    """Return what was seen, at once or, for the times, one after the other."""
    plays = (flatten_from_code, cancel_from_code, both_from_a_terminal)
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, play.__name__) for play in plays]
        for each in folders:
            each.mkdir(mode=0o700)
        if at_once:
            found = await asyncio.gather(*(p(f) for p, f in zip(plays, folders, strict=True)))
        else:
            found = [await play(each) for play, each in zip(plays, folders, strict=True)]
    return [row for each in found for row in each]


def page(seen):
    """Return the page as text."""
    lines = [
        "# Everything out: how long it takes",
        "",
        f"<!-- generated by {COMMAND} -->",
        "",
        f"Binance and Alpaca on the wire, with {2 * EACH} open orders over both and a position with stop and target at",
        "each, while a handler of each engine hangs with a signal. One of the two venues answers nothing at first.",
        "*Left then* is what the command said when it came back, and a test holds it against what the venue has;",
        "cancel-all leaves the position with its stop and target. *Out after* is how long it took until the venue had",
        "nothing left of what was to end: from the command, or, where it was silent, from when it answered again.",
        "The times are those of the run that wrote this page. When the handlers go on, what hung there is denied.",
        "",
        f"`emergency` comes back after `within`, here {WITHIN:g} s, the client gives up after {HUNG:g} s without",
        "an answer, and the venues' own rates are lifted. With them Alpaca takes 200 commands a minute, so",
        "that many orders take their time there: `python benchmarks/emergency.py` prints it.",
        "",
        "| command | venue | came back after | left then | out after |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.command} | {r.venue} | {r.back:.1f} s | {r.left} | {r.seconds:.1f} s |" for r in seen
    ]
    return "\n".join([*lines, ""])


def without_times(text):
    """Return the page without the measured durations, which differ from run to run."""
    return re.sub(r"\| [\d.]+ s (?=\|)", "| ", text)


async def test_the_page_says_what_is_left_and_for_how_long():
    """The venue that answers is out in time; the silent one is named with what is left, and is out once it answers."""
    seen = await rows(at_once=True)
    made = page(seen)
    print(made)
    if without_times(made) != without_times(PAGE.read_text(encoding="utf-8")):
        pytest.fail(f"{PAGE.name} is stale; run {COMMAND}\n\n{made}")
    assert max(row.seconds for row in seen) < BOUND


async def test_an_engine_that_never_started_does_not_stop_the_others(tmp_path):
    """It is reported with what is wrong."""
    async with two_places(tmp_path, hung=False) as (good, bad):
        idle = ExecutionEngine(alpaca.adapter_of(bad.venue), journal=None)
        failed, done = await emergency.flatten(
            (idle, good.engine), within=timedelta(seconds=PATIENCE)
        )
        assert "never started" in failed.error
        assert done.is_flat
        assert good.open() == []


if __name__ == "__main__":
    made = page(asyncio.run(rows(at_once=False)))
    PAGE.write_text(made, encoding="utf-8")
    print(made)
