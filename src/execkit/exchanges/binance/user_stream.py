"""The account's events: subscribed to through ccxt, read as raw frames, so that none is merged with the next.

ccxt's own `watch_orders` keeps the last state of an order only and would lose events that come close together.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from execkit.exchanges.binance.events import (
    CONDITIONAL_WORDS,
    ENDINGS,
    ORDER_EVENTS,
    became,
    read_event,
)
from execkit.exchanges.ccxt.dialect import UnansweredError
from execkit.exchanges.ccxt.stream import Session
from execkit.exchanges.ccxt.values import BadAnswerError, text
from execkit.model.order import OrderReport, OrderUpdate, StreamGap

log = structlog.get_logger("execkit")

KEEP_ALIVE: Final = timedelta(minutes=20)
"""A futures listen key lasts 60 minutes."""
_LOST: Final = "execkit:lost"
_REMEMBERED: Final = 10_000


class UnknownMarketError(BadAnswerError):
    """A market that is not traded here; news of it are not ours."""


class Conditionals:
    """Which order a conditional one became: futures count both apart, and give each an id of its own."""

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, str] = OrderedDict()
        self._by_order: OrderedDict[str, str] = OrderedDict()

    def learn(self, client_id: str, venue_id: str, order_id: str | None = None) -> bool:
        """Note a conditional order, and what it became; return whether the latter is news."""
        self._keep(self._by_client, client_id, venue_id)
        if not order_id or order_id in self._by_order:
            return False
        self._keep(self._by_order, order_id, venue_id)
        return True

    @staticmethod
    def _keep(where: OrderedDict[str, str], key: str, value: str) -> None:
        where[key] = value
        if len(where) > _REMEMBERED:
            where.popitem(last=False)

    def of_client(self, client_id: str) -> str | None:
        """Return the venue id of a conditional order by our id."""
        return self._by_client.get(client_id)

    def venue_id(self, client_id: str, order_id: str) -> str:
        """Return the id that an order is known by: the conditional one's where it came from one."""
        return self._by_order.get(order_id) or self._by_client.get(client_id) or order_id


class UserStream:
    """Opens the subscription and turns its events into updates."""

    def __init__(
        self,
        client: Any,
        kind: str,
        *,
        symbol_of: Callable[[str], str],
        publish: Callable[[OrderUpdate], None],
        conditionals: Conditionals,
        remember: Callable[[str, str], None],
        limit: float,
        keep_alive: timedelta = KEEP_ALIVE,
    ) -> None:
        self._client = client
        self._kind = kind
        self._symbol_of = symbol_of
        self._publish = publish
        self._conditionals = conditionals
        self._remember = remember
        self._limit = limit
        self._keep_alive = keep_alive.total_seconds()

    # -- subscribing -------------------------------------------------------------------------------------

    async def open(self) -> Session:
        """Subscribe; returns when the venue has confirmed."""
        async with asyncio.timeout(self._limit):
            if self._kind == "spot":
                url = self._client.urls["api"]["ws"]["ws-api"]["spot"]
                await self._client.ensure_user_data_stream_ws_subscribe_signature("spot")
                lost = self._client.clients[url].future(_LOST)
            else:
                answer = await self._client.request("listenKey", ["fapiPrivate"], "POST", {})
                url = self._client.get_private_ws_url("linear", text(answer, "listenKey"))
                lost = self._client.watch(url, _LOST, None, "linear")
                await self._client.clients[url].connected
        task = asyncio.get_running_loop().create_task(self._until_over(lost))
        return Session(task, lambda: self._hang_up(url))

    async def _until_over(self, lost: asyncio.Future[Any]) -> None:
        """Wait until the connection is lost, and renew the listen key meanwhile."""
        while True:
            done, _ = await asyncio.wait([lost], timeout=self._keep_alive)
            if done:
                await lost
                return
            if self._kind != "spot":
                await self._client.request("listenKey", ["fapiPrivate"], "PUT", {})

    async def _hang_up(self, url: str) -> None:
        socket = self._client.clients.pop(url, None)
        if socket is not None:
            await socket.close()

    # -- events ------------------------------------------------------------------------------------------

    def take(self, message: Any) -> bool:
        """Deal with a frame; return False for one that is ccxt's, such as the answer to a subscription."""
        if not isinstance(message, Mapping):
            return False
        inner = message.get("event")
        row = inner if isinstance(inner, Mapping) else message
        event = row.get("e")
        if event is None:
            return False
        if event in ENDINGS:
            raise UnansweredError(str(event))
        if event in ORDER_EVENTS:
            for update in self.read(row):
                self._publish(update)
        return True

    def read(self, row: Mapping[str, Any]) -> list[OrderUpdate]:
        """Return what an event about an order says; what cannot be read is a gap, and will be asked for."""
        found: list[OrderUpdate] = []
        try:
            link = became(row)
            if link is not None:
                self._remember(link[1], link[0])
            if link is not None and self._conditionals.learn(*link):
                # Its executions may have come before we knew whose they are.
                found.append(StreamGap("a conditional order became an order"))
            updates = read_event(row, self._symbol_of, self._venue_id)
        except UnknownMarketError:
            return found
        except BadAnswerError as error:
            log.warning("stream.unreadable", venue=self._client.id, error=str(error))
            return [*found, StreamGap("an event that cannot be read")]
        if updates is None:
            return [*found, StreamGap("a conditional order became an order that is not known")]
        for update in updates:
            if isinstance(update, OrderReport):
                self._remember(update.venue_order_id, update.client_order_id)
        return [*found, *updates]

    def _venue_id(self, client_id: str, order_id: str, word: str) -> str | None:
        if self._kind == "spot":
            return order_id
        found = self._conditionals.venue_id(client_id, order_id)
        if found != order_id:
            self._conditionals.learn(client_id, found, order_id)
            return found
        return None if word in CONDITIONAL_WORDS else order_id
