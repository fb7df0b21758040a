"""What happens in a simulated run, step by step: signals, prices, people, and the faults that are not of one call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.errors import ConfigurationError, ExecKitError, SignalConflictError
from execkit.model.market import BarData, Timeframe
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import TradingState
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO
from execkit.orders.manager import ManagedOrder
from execkit.testing.simulation.chaos import Kind
from execkit.testing.simulation.rules import SYMBOLS
from execkit.testing.simulation.troubles import Troubles
from execkit.testing.simulation.world import World, fingerprint

_MOST_CALLERS: Final = 40


class Actions:
    """Takes one step of a run after the other; each step draws its chance from its own number alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.signals: list[TradingSignal] = []
        self.told: dict[str, str] = {}
        """What the caller of each signal was told, durably."""
        self.denied = 0
        self.callers: set[asyncio.Task[Any]] = set()
        self._troubles = Troubles(world)
        self._deeds: list[tuple[int, Callable[[random.Random], Awaitable[None] | None]]] = [
            (26, self._entry),
            (10, self._exit),
            (8, self._repeat),
            (3, self._conflict),
            (4, self._bad),
            (40, self._price),
            (4, self._bar),
            (5, self._person),
            (6, self._troubles.strike),
        ]
        self._total = sum(weight for weight, _ in self._deeds)

    async def step(self, number: int) -> None:
        """Do what belongs to this step, and let some time pass."""
        world = self.world
        rng = random.Random(f"{world.seed}/{number}")
        world.extras.step(number)
        await self._lifecycle(number, rng)
        drawn = rng.randrange(self._total)
        for weight, deed in self._deeds:
            drawn -= weight
            if drawn < 0:
                found = deed(rng)
                if found is not None:
                    await found
                break
        pause = rng.random()
        await world.pass_time(
            pause * 0.2 if pause < 0.4 else pause * 6 if pause < 0.97 else pause * 90
        )
        self.callers = {task for task in self.callers if not task.done()}
        if world.process is not None:
            world.process.prune()

    # -- the process and what surrounds it -------------------------------------------------------------

    async def _lifecycle(self, number: int, rng: random.Random) -> None:
        world, chaos = self.world, self.world.chaos
        if (
            chaos.sustained is not None
            and chaos.is_on
            and world.sustained_until is None
            and number >= chaos.sustained_at * world.steps
        ):
            self._begin_sustained()
        if (world.sustained_until or 0) <= world.loop.time():
            world.venue.thaw()
        if chaos.hit(Kind.CRASH):
            await world.kill()
        if world.old is not None and rng.random() < 0.2:
            world.old.die()
            await world.old.bury()
            world.old = None
        if world.process is not None and world.old is None and chaos.hit(Kind.TAKEOVER):
            world.old, world.process = world.process, None
            world.tell("takeover")
        if world.process is None:
            await world.live()
        elif not world.process.journal.is_healthy and rng.random() < 0.1:
            await world.kill()
        if chaos.hit(Kind.CLOCK_BACK):
            world.clock.step(timedelta(seconds=-rng.choice((1, 30, 3600))))
        if chaos.hit(Kind.CLOCK_AHEAD):
            world.clock.step(timedelta(seconds=rng.choice((1, 30, 3600))))
        if rng.random() < 0.1:
            world.clock.step(world.true_now() - world.clock.now())  # a time server repairs it
        process = world.process
        if (
            process is not None
            and process.is_running
            and rng.random() < (0.1 if world.extras.restricts else 0.05)
            and (process.book.trading_state is not TradingState.ACTIVE or process.book.blocked)
        ):
            self._release()

    def _begin_sustained(self) -> None:
        world, chaos = self.world, self.world.chaos
        world.sustained_until = world.loop.time() + chaos.sustained_for
        chaos.counts[str(chaos.sustained)] += 1
        world.tell(f"{chaos.sustained} begins")
        if chaos.sustained is Kind.FROZEN:
            world.venue.snapshot = world.venue.freeze()

    # -- signals ---------------------------------------------------------------------------------------

    def _submit(self, signal: TradingSignal) -> None:
        process = self.world.process
        if process is None or not process.is_running or len(self.callers) >= _MOST_CALLERS:
            return
        self.world.tell(
            f"signal {signal.signal_id} {signal.side} {signal.symbol} {signal.quantity} {signal.limit_price}"
        )
        task = process.spawn(self._call(signal))
        self.callers.add(task)

    async def _call(self, signal: TradingSignal) -> None:
        process = self.world.process
        assert process is not None, "spawned in a running process"
        assert process.engine is not None, "it runs"
        journal, key = process.journal, signal.signal_id or ""
        give_up = self.world.chaos.hit(Kind.CALLER_GIVES_UP)
        try:
            async with asyncio.timeout(self.world.chaos.rng.uniform(0.01, 2) if give_up else 3600):
                result = await process.engine.submit(signal)
        except TimeoutError:
            if not give_up:
                self.world.watch.fail("I19", f"signal {key} got no answer within an hour")
            return
        except SignalConflictError:
            return
        except ExecKitError as error:
            self.world.tell(f"submit {key} raised {error!r}")
            return
        if journal.is_dead or not journal.is_current:
            return
        self._heard(key, result, durable=journal.is_healthy)

    def _heard(self, key: str, result: object, *, durable: bool) -> None:
        watch = self.world.watch
        if not isinstance(result, ExecutionResult):
            watch.fail("I29", f"submit {key} returned {result!r}")
            return
        if result.outcome is Outcome.DENIED:
            self.denied += 1
            alive = [
                i
                for i, (_, intent) in watch.intents.items()
                if intent.signal_id == key
                and intent.role is OrderRole.ENTRY
                and watch.states.get(i)
                not in (None, OrderState.FAILED, OrderState.REJECTED, OrderState.PRESUMED_ABSENT)
            ]
            watch.need(
                "I18",
                not alive or key in self.told,
                f"{key} was said to be denied, and {alive} may be live: {result.denial}",
            )
        if not durable:
            return
        text = fingerprint(result)
        before = self.told.setdefault(key, text)
        self.world.tell(f"told {key}: {text}")
        later = before.startswith("queued")  # told then: it waits for the open
        watch.need("I18", later or before == text, f"{key} was told {before!r}, later {text!r}")

    def _id(self, rng: random.Random) -> str:
        return f"s{len(self.signals)}-{rng.randrange(1000)}"

    def _entry(self, rng: random.Random) -> None:
        symbol = rng.choice(SYMBOLS)
        side = Side.BUY if rng.random() < 0.75 else Side.SELL
        price = self.world.prices[symbol]
        instrument = self.world.venue.core.instruments[symbol]
        terms: dict[str, Any] = {}
        kind = rng.random()
        if kind < 0.4:
            away = Decimal(rng.randint(-40, 20)) / 10_000 * side.sign
            terms["limit_price"] = instrument.round_price(price * (1 + away))
            if rng.random() < 0.2:
                terms["time_in_force"] = rng.choice(("ioc", "fok", "day"))
        elif kind < 0.47:
            terms["stop_price"] = instrument.round_price(price * (1 + Decimal(side.sign) / 500))
        if rng.random() < 0.3:
            notional = Decimal(rng.choice((30, 500, 3_000)))
            quantity = instrument.round_quantity(notional / price)
            if quantity > ZERO:
                terms["quantity"] = quantity
        if rng.random() < 0.4:
            distance = Decimal(rng.randint(30, 190)) / 10_000 * side.sign
            terms["stop_loss"] = instrument.round_price(price * (1 - distance))
        terms = self.world.extras.terms(terms, len(self.signals), instrument, price, side)
        signal = TradingSignal(symbol=symbol, side=side, signal_id=self._id(rng), **terms)
        self.signals.append(signal)
        self._submit(signal)

    def _exit(self, rng: random.Random) -> None:
        process = self.world.process
        if process is None or not process.is_running:
            return
        listed = self.world.venue.core.instruments
        held = {
            symbol: position
            for symbol, position in process.book.positions.open.items()
            if abs(position.quantity) >= max(listed[symbol].lot_size, listed[symbol].min_quantity)
        }
        if not held:
            self._entry(rng)
            return
        symbol = rng.choice(sorted(held))
        side = Side.SELL if held[symbol].is_long else Side.BUY
        part = None
        if rng.random() < 0.4:
            instrument = self.world.venue.core.instruments[symbol]
            part = instrument.round_quantity(abs(held[symbol].quantity) / 2) or None
        signal = TradingSignal(
            symbol=symbol,
            side=side,
            quantity=part,
            reduce_only=rng.random() < 0.5,
            signal_id=self._id(rng),
            slicing=self.world.extras.slicing(len(self.signals)),
        )
        self.signals.append(signal)
        self._submit(signal)

    def _repeat(self, rng: random.Random) -> None:
        if self.signals:
            self._submit(rng.choice(self.signals[-30:]))

    def _conflict(self, rng: random.Random) -> None:
        if self.signals:
            old = rng.choice(self.signals[-30:])
            other = Side.SELL if old.side is Side.BUY else Side.BUY
            signal = TradingSignal(symbol=old.symbol, side=other, signal_id=old.signal_id)
            process = self.world.process
            known = (
                process is not None and process.is_running and old.signal_id in process.book.signals
            )
            if known:
                self._submit_conflict(signal)

    def _submit_conflict(self, signal: TradingSignal) -> None:
        process = self.world.process
        assert process is not None, "it runs"

        async def call() -> None:
            assert process.engine is not None, "it runs"
            try:
                await process.engine.submit(signal)
            except SignalConflictError:
                return
            except ExecKitError as error:
                self.world.tell(f"conflict raised {error!r}")
                return
            self.world.watch.fail("I20", f"{signal.signal_id} passed with other content")

        self.callers.add(process.spawn(call()))

    def _bad(self, rng: random.Random) -> None:
        symbol = rng.choice(SYMBOLS)
        price = self.world.prices[symbol]
        terms: dict[str, Any] = rng.choice(
            (
                {"symbol": "NONE/USDT"},
                {"limit_price": price + Decimal("0.00001")},
                {"quantity": Decimal("0.0000001")},
                {"quantity": Decimal(1_000_000)},
                {"stop_loss": price * 2},
                {"take_profit": price / 2},
                {"limit_price": price * 3},
                {"exchange": "elsewhere"},
                {"max_age": timedelta(0), "created_at": self.world.true_now() - timedelta(hours=9)},
            )
        )
        try:
            signal = TradingSignal(
                **{"symbol": symbol, "side": Side.BUY, "signal_id": self._id(rng), **terms}
            )
        except ConfigurationError:
            return
        self.signals.append(signal)
        self._submit(signal)

    # -- prices ----------------------------------------------------------------------------------------

    def _price(self, rng: random.Random) -> None:
        for symbol in SYMBOLS if rng.random() < 0.3 else (rng.choice(SYMBOLS),):
            size = 0.004 if rng.random() < 0.93 else 0.04
            self.world.move_price(symbol, rng.gauss(0, 1) * size)

    async def _bar(self, rng: random.Random) -> None:
        process, world = self.world.process, self.world
        if process is None or not process.is_running:
            return
        symbol = rng.choice(SYMBOLS)
        price, tick = world.prices[symbol], world.venue.core.instruments[symbol].tick_size
        close = world.clock.now().replace(second=0, microsecond=0)
        bar = BarData(
            symbol,
            Timeframe.M1,
            close,
            price,
            price + tick * 9,
            price - tick * 9,
            price,
            Decimal(5),
        )
        engine = process.engine
        assert engine is not None, "it runs"
        self._person_does(engine.on_bar(bar))

    # -- people ----------------------------------------------------------------------------------------

    def _person_does(self, work: Any) -> None:
        async def tolerant() -> None:
            try:
                await work
            except (ExecKitError, TimeoutError, OSError, TypeError, AttributeError) as error:
                self.world.tell(f"a person's wish failed: {type(error).__name__}")
            except Exception as error:  # noqa: BLE001 - whatever else is raised is a defect
                self.world.watch.fail("I29", f"a person's wish raised {error!r}")

        process = self.world.process
        assert process is not None, "it runs"
        self.callers.add(process.spawn(tolerant()))

    def _release(self) -> None:
        process = self.world.process
        assert process is not None, "it runs"
        assert process.engine is not None, "it runs"
        self.world.tell("a person resumes")
        self.world.extras.state.asked_at = self.world.loop.time()
        self._person_does(process.engine.resume())

    def _person(self, rng: random.Random) -> None:
        process = self.world.process
        if process is None or not process.is_running:
            return
        engine = process.engine
        assert engine is not None, "it runs"
        entries = [o for o in process.book.orders.active.values() if o.role is OrderRole.ENTRY]
        drawn = rng.random()
        if process.book.trading_state is not TradingState.ACTIVE or process.book.blocked:
            if drawn < 0.7:
                self._release()
        elif drawn < 0.5 and entries:
            order = rng.choice(entries)
            self.world.tell(f"a person cancels {order.client_order_id}")
            self._person_does(engine.cancel(order))
        elif drawn < 0.6:
            self.world.tell("a person cancels all")
            halt = rng.random() < 0.3
            self._person_does(self.world.extras.hands.cancel_all(process, engine, halt=halt))
        elif drawn < 0.7:
            self.world.tell("a person flattens")
            symbol, halt = rng.choice((None, *SYMBOLS)), rng.random() < 0.3
            self._person_does(self.world.extras.hands.flatten(process, engine, symbol, halt=halt))
        elif drawn < 0.8:
            self.world.tell("a person halts")
            self._person_does(engine.halt("drill"))
        elif entries:
            self._amend(rng.choice(entries), int(drawn * 1_000_000))

    def _amend(self, order: ManagedOrder, chance: int) -> None:
        """Change an entry to a price at which it is executed sooner or later, and sometimes to half of its size."""
        process = self.world.process
        assert process is not None, "it runs"
        assert process.engine is not None, "it runs"
        if order.limit_price is None:
            return
        instrument = self.world.venue.core.instruments[order.symbol]
        factor = Decimal("0.999") if chance % 2 else Decimal("1.001")
        price = instrument.round_price(order.limit_price * factor)
        quantity = instrument.round_quantity(order.quantity / 2) if chance % 3 == 0 else None
        self.world.tell(f"a person changes {order.client_order_id} to {quantity} at {price}")
        self._person_does(process.engine.amend(order, limit_price=price, quantity=quantity))
