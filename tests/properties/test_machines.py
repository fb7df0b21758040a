"""The machines that users subclass pass on what is right, and find what is wrong."""

import random
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from execkit.exchanges.paper import PaperExchange
from execkit.functions.base import (
    ExecutionAction,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
)
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState
from execkit.numbers import ZERO
from execkit.pipeline import ExecutionPipeline
from execkit.testing.machines import AdapterMachine, FunctionMachine, PipelineMachine
from execkit.testing.mock import MockExchange

SOME = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    derandomize=True,
)


def run(machine, examples=SOME):
    run_state_machine_as_test(machine, settings=examples)


# -- adapters ------------------------------------------------------------------------------------------


class MockMachine(AdapterMachine):
    def make_adapter(self):
        return MockExchange(clock=self.time.clock)


class PaperMachine(AdapterMachine):
    def make_adapter(self):
        return PaperExchange(
            balances={"USDT": Decimal(100_000)},
            prices={"BTC/USDT": Decimal(42_000)},
            clock=self.time.clock,
        )


class Forgetful(MockExchange):
    """Reports a filled order as still resting."""

    async def get_order(self, symbol, **ids):
        report = await super().get_order(symbol, **ids)
        if report.status is OrderState.FILLED:
            return msgspec.structs.replace(report, status=OrderState.ACCEPTED)
        return report


class ForgetfulMachine(AdapterMachine):
    def make_adapter(self):
        return Forgetful(clock=self.time.clock)


@pytest.mark.parametrize("machine", [MockMachine, PaperMachine])
def test_right_adapters_agree_with_the_model(machine):
    """Whatever is placed, filled and cancelled, venue and model say the same."""
    run(machine)


def test_an_adapter_that_disagrees_is_found():
    """The shortest way to the difference is a place and a fill."""
    with pytest.raises(AssertionError, match="the model has"):
        run(ForgetfulMachine)


# -- functions -----------------------------------------------------------------------------------------


class Breakout(ExecutionFunctionBase[FunctionParams]):
    """Goes long when the close is above the highs of the two bars before."""

    required_lookback = 3

    async def evaluate(self, context):
        before = [bar.high for bar in context.history[-3:-1]]
        close = context.bar.close
        if close <= max(before):
            return ExecutionSignal.none("no breakout")
        return ExecutionSignal(
            action=ExecutionAction.ENTER_LONG,
            confidence=Decimal("0.8"),
            stop_loss=min(context.bar.low, close / 2) if context.bar.low < close else close / 2,
        )


class LooksAhead(Breakout):
    """Reads the list behind the history, where later bars may stand."""

    async def evaluate(self, context):
        later = context.history._bars[len(context.history) :]
        return ExecutionSignal(
            action=ExecutionAction.NONE, confidence=ZERO, reasoning=f"{len(later)} more"
        )


class RollsDice(Breakout):
    async def evaluate(self, context):
        return ExecutionSignal.none(str(random.SystemRandom().random()))


class Raises(Breakout):
    async def evaluate(self, context):
        return ExecutionSignal.none(str(1 / (context.bar.close - context.bar.open)))


class StopOnTheWrongSide(Breakout):
    async def evaluate(self, context):
        return ExecutionSignal(
            action=ExecutionAction.ENTER_SHORT,
            confidence=1,
            stop_loss=context.bar.close - context.bar.low / 1000,
        )


class Sleeps(Breakout):
    async def evaluate(self, context):
        import asyncio

        await asyncio.sleep(60)
        return ExecutionSignal.none()


class AnswersText(Breakout):
    async def evaluate(self, context):
        return "buy"


def machine_of(kind):
    class Of(FunctionMachine):
        def make_function(self):
            return kind(FunctionParams())

    return Of


def test_a_right_function_passes():
    """It answers in time, with levels on the right sides, and the same again."""
    run(machine_of(Breakout))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LooksAhead, "with later bars in memory"),
        (RollsDice, "with later bars in memory"),
        (Raises, "[dD]ivision"),
        (StopOnTheWrongSide, "on the wrong side"),
        (Sleeps, "the answer took 60"),
        (AnswersText, "no ExecutionSignal"),
    ],
)
def test_a_wrong_function_is_found(kind, message):
    """Each mistake is named."""
    with pytest.raises((AssertionError, ArithmeticError), match=message):
        run(machine_of(kind))


# -- chains --------------------------------------------------------------------------------------------


class Standard(PipelineMachine):
    pass


def chain(*extra, **settings):
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(**settings),
            *extra,
            OrderExecutorHandler(),
            ReconciliationHandler(),
        ]
    )


async def doubles_the_quantity(ticket, call_next):
    """Stamp the larger quantity too: a way around risk that nobody should write."""
    more = ticket.evolve(quantity=ticket.quantity * 2, stamp=None)
    stamp = msgspec.structs.replace(ticket.stamp, max_quantity=more.quantity)
    return await call_next(more.evolve(stamp=stamp))


class Doubling(PipelineMachine):
    """The risk handler allows 2 % of 1,000,000 in one position; what follows doubles it."""

    max_notional = Decimal(25_000)

    def make_pipeline(self):
        return chain(doubles_the_quantity)


class Limited(PipelineMachine):
    max_notional = Decimal(25_000)

    def make_pipeline(self):
        return chain()


@pytest.mark.parametrize("machine", [Standard, Limited])
def test_the_standard_chain_keeps_every_invariant(machine):
    """Under random signals, prices, faults and restarts."""
    run(machine)


def test_a_chain_that_passes_its_limit_is_found():
    """The limit holds over the whole chain, whatever a handler does behind the risk check."""
    with pytest.raises(AssertionError, match=r"exposure .* is above 25000"):
        run(Doubling)


async def closes_at_night(ticket, call_next):
    """Refuse everything, also the way out."""
    if ticket.position is not None:
        return ticket.deny(DenialCode.REFUSED_BY_HANDLER, reason="night")
    return await call_next(ticket)


class Night(PipelineMachine):
    def make_pipeline(self):
        return chain(closes_at_night)


def test_a_chain_that_refuses_an_exit_is_found():
    """The way out of a position is never blocked."""
    with pytest.raises(AssertionError, match="an exit was refused"):
        run(Night)
