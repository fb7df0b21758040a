"""The way to a scripted venue and back: latency, lost requests, spoiled answers, and a stream that misbehaves."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from execkit.errors import (
    ExchangeError,
    ExchangeUnavailableError,
    NotSentError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.streams import Stream
from execkit.model.order import OrderReport, OrderRequest, OrderUpdate, StreamGap
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation

T = TypeVar("T")

_SENDS = frozenset({Operation.PLACE, Operation.CANCEL, Operation.AMEND})
_UNANSWERED: dict[FaultKind, type[OSError]] = {
    FaultKind.TIMEOUT: TimeoutError,
    FaultKind.LOST: ConnectionResetError,
    FaultKind.HANG: TimeoutError,
    FaultKind.SERVER_ERROR: ConnectionAbortedError,
}


class Connection:
    """Carries calls to the venue and updates back, as the script allows."""

    def __init__(
        self,
        script: FaultScript,
        rng: random.Random,
        latency: timedelta,
        stream: Stream[OrderUpdate],
    ) -> None:
        self.script = script
        self.rng = rng
        self.latency = latency
        self._stream = stream
        self._started: float | None = None
        self._under_way: deque[OrderUpdate] = deque()
        self._held_back: list[OrderUpdate] = []

    def fault(self, operation: Operation, request: OrderRequest | None = None) -> Fault | None:
        """Return what strikes the next call or update, if anything."""
        if not self.script.faults:
            return None
        now = asyncio.get_running_loop().time()
        if self._started is None:
            self._started = now
        elapsed = timedelta(seconds=now - self._started)
        return self.script.next(operation, elapsed=elapsed, rng=self.rng, request=request)

    def later(self, delay: timedelta, work: Callable[[], object]) -> None:
        """Do something at the venue after a while; should it be refused then, nobody hears of it."""

        def run() -> None:
            try:
                work()
            except ExchangeError:
                return

        if delay:
            asyncio.get_running_loop().call_later(delay.total_seconds(), run)
        else:
            run()

    async def call(
        self,
        operation: Operation,
        fault: Fault | None,
        work: Callable[[], T],
        refused: Callable[[], object] = lambda: None,
    ) -> T:
        """Let *work* be done at the venue and bring its answer back.

        *refused* is done instead where the venue turns the request away before looking at it.
        """
        await self._travel()
        if fault is not None:
            await self._strike(operation, fault, work, refused)
        try:
            answer = work()
        finally:
            await self._travel()
        if fault is not None and fault.kind is FaultKind.MALFORMED:
            assert isinstance(answer, OrderReport), (
                "only calls that answer with one can be malformed"
            )
            return fault.spoiled(answer)  # type: ignore[return-value]
        return answer

    async def _travel(self) -> None:
        if self.latency:
            await asyncio.sleep(self.latency.total_seconds())

    async def _strike(
        self,
        operation: Operation,
        fault: Fault,
        work: Callable[[], object],
        refused: Callable[[], object],
    ) -> None:
        """Raise what the caller gets to see; return where the venue does the work after all."""
        kind = fault.kind
        if kind is FaultKind.NOT_SENT:
            raise NotSentError("scripted: nothing was sent")
        if kind is FaultKind.DELAY:
            await asyncio.sleep(fault.after.total_seconds())
        elif kind in (FaultKind.RATE_LIMIT, FaultKind.ERROR):
            refused()
            await self._travel()
            if kind is FaultKind.ERROR:
                raise fault.refusal()
            raise RateLimitError("scripted: too many requests", retry_after=fault.retry_after)
        elif kind in _UNANSWERED:
            if fault.reached:
                self.later(fault.arrives_after, work)
            if kind is FaultKind.HANG:
                await asyncio.Event().wait()
            await asyncio.sleep(fault.takes.total_seconds())
            text = f"scripted: {kind} on {operation}"
            if fault.raw:
                raise _UNANSWERED[kind](text)
            raise (OrderStatusUnknownError if operation in _SENDS else ExchangeUnavailableError)(
                text
            )

    # --- the stream -------------------------------------------------------------------------------

    def send(self, update: OrderUpdate) -> None:
        """Bring one update to the readers of the stream, as the script allows."""
        if self.latency:
            # A queue, because the loop does not promise the order of timers that are due together.
            self._under_way.append(update)
            asyncio.get_running_loop().call_later(self.latency.total_seconds(), self._bring_next)
        else:
            self._bring(update)

    def _bring_next(self) -> None:
        self._bring(self._under_way.popleft())

    def _bring(self, update: OrderUpdate) -> None:
        fault = self.fault(Operation.STREAM)
        kind = None if fault is None else fault.kind
        if kind is FaultKind.REORDER:
            self._held_back.append(update)
            if fault is not None and fault.after:
                self.later(fault.after, self._release)
            return
        if fault is not None and kind is FaultKind.LATE:
            self.later(fault.after, lambda: self._stream.publish(update))
        elif kind is FaultKind.GAP:
            self._stream.publish(StreamGap("scripted"))
        elif kind is FaultKind.BREAK:
            self._stream.end(ConnectionResetError("scripted: the stream broke"))
        elif kind is not FaultKind.LOSE:
            self._stream.publish(update)
            if kind is FaultKind.DUPLICATE:
                self._stream.publish(update)
        self._release()

    def _release(self) -> None:
        """Bring what was held back for its successor."""
        held, self._held_back = self._held_back, []
        for update in held:
            self._stream.publish(update)
