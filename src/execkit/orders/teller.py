"""Sees to it that what a person has to know now waits for nobody else's commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from execkit.model.records import Alarm, Record, SymbolBlocked, TradingStateChanged
from execkit.orders.manager import ManagedOrder
from execkit.orders.recorder import Recorder

_URGENT: Final = (Alarm, TradingStateChanged, SymbolBlocked)


class Teller:
    """Settles as soon as an alarm, a change of the trading state or a blocked symbol was recorded.

    One task serves all that came before it runs. Where somebody settles in the same step it finds nothing to do.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._is_owed = asyncio.Event()
        recorder.listen(self._on_record)

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Tell from now on, until the tasks of *spawn* end; who ends them settles what came last."""
        spawn(self._tell(), "teller")

    def _on_record(self, record: Record, _order: ManagedOrder | None) -> None:
        if isinstance(record, _URGENT):
            self._is_owed.set()

    async def _tell(self) -> None:
        while True:
            await self._is_owed.wait()
            self._is_owed.clear()
            await self._recorder.try_settle()
