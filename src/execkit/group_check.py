"""Tells a person of symbols in a correlation group that the venue does not have: they would cap nothing, silently."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import structlog

from execkit.errors import OrderRejectedError
from execkit.handlers.desk import Desk
from execkit.handlers.risk import RiskManagementHandler
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_QUERY_SECONDS: Final = 10.0


class GroupCheck:
    """Asks the venue once, after the start, for the rules of each symbol in a group of the chain's risk handler.

    It is no reason not to start: what is held has to be protected first, and a paper exchange learns of symbols later.
    """

    def __init__(self, desk: Desk, chain: Iterable[object]) -> None:
        self._desk = desk
        self._groups: dict[str, list[str]] = {}
        """Groups by symbol."""
        for link in chain:
            if isinstance(link, RiskManagementHandler):
                for name, members in (link.limits.groups or {}).items():
                    for symbol in members:
                        self._groups.setdefault(symbol, []).append(name)

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Ask, without keeping the start waiting."""
        if self._groups:
            spawn(self._check(), "correlation groups")

    async def stop(self) -> None:
        """Nothing is left: the task ends with the others."""

    async def _check(self) -> None:
        desk = self._desk
        for symbol, names in self._groups.items():
            try:
                await desk.gateway.pace.ask(desk.adapter.instrument, _QUERY_SECONDS, symbol)
            except OrderRejectedError as error:
                where = ", ".join(f"risk.groups.{name}" for name in names)
                desk.recorder.alarm(
                    "GROUP_SYMBOL_UNKNOWN",
                    f"{where}: {desk.adapter.name} has no {symbol!r} ({error}), so it caps nothing; write it as the "
                    "signals do, e.g. 'BTC/USDT', or take it out",
                    symbol=symbol,
                )
            except Exception as error:  # noqa: BLE001 - it says nothing of the symbol
                log.warning("groups.unchecked", symbol=symbol, error=shown(error))
        await desk.recorder.try_settle()
