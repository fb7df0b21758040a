"""The connection that stays: heartbeat, reconnection, and what has to be done again afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from execkit.errors import ExchangeError, ExchangeUnavailableError, NotSentError
from execkit.exchanges.ibkr.link import Link
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_PATIENCE: Final = 4
"""Read limits for which an answer may be owed before the connection is given up."""


class Line:
    """Keeps one `Link` alive.

    *make* returns a new one, *prepare* synchronises it before anybody may use it, *on_gap* is told when news may
    have been missed. A link that does not answer a heartbeat is given up: a half-open socket looks connected for ever.
    """

    def __init__(
        self,
        make: Callable[[], Link],
        prepare: Callable[[Link, list[str], int], Awaitable[None]],
        on_gap: Callable[[str], None],
        *,
        address: tuple[str, int],
        heartbeat: float,
        read_timeout: float,
        rng: random.Random,
    ) -> None:
        self._make = make
        self._prepare = prepare
        self._on_gap = on_gap
        self._address = address
        self._heartbeat = heartbeat
        self._read_timeout = read_timeout
        self._rng = rng
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._last_problem = "it is not connected; call connect() first"

    @property
    def link(self) -> Link:
        """The connection, for a question; raise `ExchangeUnavailableError` when there is none."""
        if self._link is None or not self._link.is_open:
            text = f"there is no connection to TWS: {self._last_problem}"
            raise ExchangeUnavailableError(text, venue="ibkr")
        return self._link

    @property
    def sending(self) -> Link:
        """The connection, for an order; raise `NotSentError` when there is none."""
        try:
            return self.link
        except ExchangeUnavailableError as error:
            raise NotSentError(f"not sent: {error}", venue="ibkr") from None

    @property
    def is_open(self) -> bool:
        """Tell whether there is a connection that was synchronised."""
        return self._link is not None and self._link.is_open

    async def open(self) -> None:
        """Connect; raise what keeps it from working. From then on a lost connection is made anew.

        One that is there, or is being made again, is not made a second time: TWS takes a client id once.
        """
        async with self._opening:
            if self._keeper is None:
                await self._connect()
                self._keeper = asyncio.get_running_loop().create_task(self._keep())
            elif not self.is_open:
                text = f"there is no connection to TWS: {self._last_problem}"
                raise ExchangeUnavailableError(text, venue="ibkr")

    async def close(self) -> None:
        """End the connection and stay disconnected."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connect(self) -> None:
        link = self._make()
        try:
            accounts, next_id = await link.open(*self._address)
            await self._prepare(link, accounts, next_id)
        except BaseException:
            await link.close()
            raise
        self._link = link
        self._last_problem = "it was lost and is being made again"

    async def _keep(self) -> None:
        while True:
            assert self._link is not None
            try:
                await self._watch(self._link)
            except Exception as error:  # noqa: BLE001 - whatever it is, a new connection is the remedy
                log.warning("ibkr.watch_failed", reason=shown(error))
                self._link.drop()
            self._link = None
            self._on_gap("the connection to TWS was lost")
            await self._reconnect()
            self._on_gap("the connection to TWS was made again")

    async def _watch(self, link: Link) -> None:
        """Return when the link is over, or has to be."""
        while link.is_open:
            try:
                async with asyncio.timeout(self._heartbeat):
                    await link.over()
            except TimeoutError:
                pass
            else:
                return
            try:
                await link.beat()
            except ExchangeError as error:
                log.warning("ibkr.no_heartbeat", reason=str(error))
                break
            owed_for = link.owed_for(asyncio.get_running_loop().time())
            if owed_for > _PATIENCE * self._read_timeout:
                log.warning("ibkr.answer_owed", seconds=round(owed_for, 1))
                break
        await link.close()

    async def _reconnect(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause * (0.5 + self._rng.random() / 2))
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                self._last_problem = str(error)
                log.warning("ibkr.reconnect_failed", reason=str(error))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return
