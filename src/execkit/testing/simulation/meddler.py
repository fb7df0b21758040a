"""A handler of the application that misbehaves: it raises, hangs, lies about its result or forges the ticket."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

from execkit.assembly import standard_pipeline
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO
from execkit.pipeline import ExecutionPipeline, Next
from execkit.testing.simulation.chaos import Chaos, Kind


class Meddler:
    """One misbehaving link; *forged* collects (signal, quantity) where it raised that after the approval."""

    def __init__(self, chaos: Chaos, forged: set[tuple[str, Decimal]]) -> None:
        self._chaos = chaos
        self._rng = random.Random(chaos.rng.random())
        self._forged = forged

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass the ticket on, or not."""
        fault = self._chaos.pick("plugin")
        if fault is None:
            return await call_next(ticket)
        result: Any = None
        after = self._rng.random() < 0.5
        if after:
            result = await call_next(ticket)
        if fault is Kind.PLUGIN_RAISES:
            raise RuntimeError("a defect of the application")
        if fault is Kind.PLUGIN_HANGS:
            await asyncio.sleep(self._rng.uniform(5, 60))
            return result if after else await call_next(ticket)
        if after:
            return self._rng.choice((None, True, {"ok": True}))  # type: ignore[return-value]
        if self._rng.random() < 0.5 and ticket.stamp is not None and not ticket.is_reduction:
            quantity = (ticket.quantity or ZERO) * 10
            self._forged.add((ticket.signal_id, quantity))
            return await call_next(ticket.evolve(quantity=quantity))
        await call_next(ticket)
        return await call_next(ticket)


def meddled(
    pipeline: ExecutionPipeline | None, chaos: Chaos, forged: set[tuple[str, Decimal]]
) -> ExecutionPipeline:
    """Return the pipeline with a meddler at its beginning, before its executor and at its end."""
    chain = pipeline or standard_pipeline()
    (executor,) = (link for link in chain if getattr(link, "place", None) == "executor")
    for place in (
        {"before": chain.handlers[0]},
        {"before": executor},
        {"after": chain.handlers[-1]},
    ):
        chain = chain.insert(Meddler(chaos, forged), **place)
    return chain
