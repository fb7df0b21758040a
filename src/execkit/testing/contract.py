"""The contract that every adapter has to keep, as a class to subclass and as a table to print.

The cases are in `contract_orders`, `contract_money` and `contract_outcomes`; their numbers have gaps for more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from execkit.clock import Clock, SystemClock
from execkit.exchanges.base import ExchangeAdapter
from execkit.exchanges.simulated import SimulatedExchange
from execkit.model.order import OrderType
from execkit.testing import contract_money, contract_orders, contract_outcomes
from execkit.testing.bench import Bench
from execkit.testing.control import MockControl, SimulatedControl, VenueControl
from execkit.testing.mock import MockExchange
from execkit.testing.rules import CASES, Case
from execkit.testing.verdict import CaseSkipped
from execkit.virtual_time import VirtualClock, run_virtual

MODULES = (contract_orders, contract_money, contract_outcomes)
"""Where the cases are; importing them fills `CASES`."""

CASES.sort(key=lambda case: case.name)


class AdapterContract:
    """Conformance tests of one adapter.

    Subclass it in a test module and say how the adapter is made:

        class TestMyAdapter(AdapterContract):
            symbol = "BTC/USDT"

            async def make_adapter(self) -> MyAdapter:
                return MyAdapter(rest_url="http://127.0.0.1:8080")

    pytest then runs one test per case. A case that the adapter's capabilities or the control rule out is skipped
    with the reason. Every case gets an adapter of its own, which must not be connected yet. The account needs
    money for small orders in `symbol`, and a case may leave behind what it has bought.
    """

    symbol = "BTC/USDT"
    """A liquid market of the venue, or of its sandbox."""
    patience = 5.0
    """Seconds within which the venue shows its news."""
    virtual_time = False
    """True for adapters without sockets and threads: waiting costs nothing then."""
    clock: Clock = SystemClock()
    """Wall clock of the adapter; the virtual one while a case runs under virtual time."""
    secrets: Mapping[str, str] = MappingProxyType({})
    """Made-up credentials to make the adapter with, by the names of `canary.NAMES`; empty unless a canary runs it."""
    seed: int | None = None
    """Seed of the client order ids; None takes fresh ones, as a real venue needs."""

    async def make_adapter(self) -> ExchangeAdapter:
        """Return a new adapter, not yet connected."""
        raise NotImplementedError(f"{type(self).__name__} needs make_adapter()")

    def make_control(self, adapter: ExchangeAdapter) -> VenueControl:
        """Return what the test can make the venue do."""
        return default_control(adapter)

    def run(self, case: Case) -> None:
        """Run one case; raise `CaseFailed`, `CaseSkipped`, or what the adapter raised."""
        if not self.virtual_time:
            asyncio.run(self._run(case))
            return

        async def main(clock: VirtualClock) -> None:
            self.clock = clock
            await self._run(case)

        run_virtual(main)

    async def _run(self, case: Case) -> None:
        adapter = await self.make_adapter()
        control = self.make_control(adapter)
        bench = Bench(
            adapter,
            control,
            self.symbol,
            rng=random.Random(self.seed),
            clock=self.clock,
            patience=self.patience,
        )
        try:
            await bench.open()
            obstacle = case.obstacle(adapter.capabilities, control)
            if OrderType.STOP in case.types and bench.instrument.stop_limit_only:
                obstacle = f"of stops, {self.symbol} takes stop-limit orders only"
            if obstacle is not None:
                raise CaseSkipped(obstacle)
            await case.body(bench)
        finally:
            await bench.clean_up()


def default_control(adapter: ExchangeAdapter) -> VenueControl:
    """Return all that can be done with a venue inside this process; for others nothing."""
    if isinstance(adapter, MockExchange):
        return MockControl(adapter)
    if isinstance(adapter, SimulatedExchange):
        return SimulatedControl(adapter)
    return VenueControl()


def _test_of(case: Case) -> Callable[[AdapterContract], None]:
    def test(self: AdapterContract) -> None:
        try:
            self.run(case)
        except CaseSkipped as reason:
            import pytest  # noqa: PLC0415 - the contract also runs without it

            pytest.skip(str(reason))

    test.__name__ = f"test_{case.name}"
    test.__qualname__ = f"AdapterContract.{test.__name__}"
    test.__doc__ = case.rule
    return test


for _case in CASES:
    setattr(AdapterContract, f"test_{_case.name}", _test_of(_case))


@attrs.frozen
class CaseResult:
    """How one case ended."""

    case: Case
    verdict: Literal["pass", "skip", "fail"]
    detail: str = ""


def run_contract(
    contract: AdapterContract, *, only: Callable[[Case], bool] = lambda _case: True
) -> list[CaseResult]:
    """Run the cases outside of pytest and return how each ended."""
    results = []
    for case in CASES:
        if not only(case):
            continue
        try:
            contract.run(case)
        except CaseSkipped as reason:
            results.append(CaseResult(case, "skip", str(reason)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the case failed
            text = str(error) if isinstance(error, AssertionError) else repr(error)
            results.append(CaseResult(case, "fail", text))
        else:
            results.append(CaseResult(case, "pass"))
    return results


def contract_of(
    make: Callable[[], ExchangeAdapter | Coroutine[Any, Any, ExchangeAdapter]],
    *,
    symbol: str = "BTC/USDT",
    patience: float = 5.0,
    control: Callable[[ExchangeAdapter], VenueControl] = default_control,
) -> AdapterContract:
    """Return the contract for what a plain or async function without arguments makes."""

    class Contract(AdapterContract):
        async def make_adapter(self) -> ExchangeAdapter:
            made = make()
            return await made if asyncio.iscoroutine(made) else made

        def make_control(self, adapter: ExchangeAdapter) -> VenueControl:
            return control(adapter)

    contract = Contract()
    contract.symbol, contract.patience = symbol, patience
    return contract
