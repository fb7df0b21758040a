"""The switches that stop an engine without speaking to it: a file that appears beside its journal, and a signal.

The file works while the engine's loop is busy or hangs: the gateway looks for it before each entry. What is here turns
it into a halt that is journalled, told and still there when the file is gone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from execkit.errors import ConfigurationError
from execkit.model.records import TradingState
from execkit.operations import resting_entries
from execkit.orders.gateway import OrderGateway

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks for the file."""


class KillSwitch:
    """Halts when `gateway.halt_file` exists, and with *on_signal* when the process gets SIGUSR1.

    With *polls* the file is looked for all the time; else only by the gateway, before each entry.
    """

    _armed: ClassVar[list[KillSwitch]] = []
    """Those that the signal is for: a process has one handler and may have several engines."""

    def __init__(self, gateway: OrderGateway, *, on_signal: bool, polls: bool = True) -> None:
        self._gateway = gateway
        self._on_signal = on_signal
        self._polls = polls

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Look at once and from then on; raise `ConfigurationError` where signals cannot be taken."""
        self.look()
        if self._on_signal:
            self._arm()
        if self._polls and self._gateway.halt_file is not None:
            spawn(self._watch(), "kill switch")

    async def stop(self) -> None:
        """Take no more signals."""
        if self in self._armed:
            self._armed.remove(self)
            if not self._armed:
                asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    def look(self) -> None:
        """Halt if the file is there."""
        if self._gateway.is_switched_off:
            self.halt("HALTED_BY_FILE", f"the file {self._gateway.halt_file} exists", "file")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.look()

    def _arm(self) -> None:
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._all_halt)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"halt_on_signal: True works in a process's main thread on Unix only ({error}); use the file or "
                "`execkit halt` instead"
            ) from error
        self._armed.append(self)

    @classmethod
    def _all_halt(cls) -> None:
        for each in cls._armed:
            each.halt("HALTED_BY_SIGNAL", "the process got SIGUSR1", "signal")

    def halt(self, code: str, cause: str, actor: str) -> None:
        """Halt and tell a person, once."""
        if self._gateway.book.trading_state is not TradingState.HALTED:
            self._gateway.halt(cause, actor=actor)
            text = f"trading is halted: {cause}"
            rest = resting_entries(self._gateway.book)
            if rest:
                text += f"; {rest} of our entries may still be executed, cancel-all ends them"
            self._gateway.recorder.alarm(code, text)
