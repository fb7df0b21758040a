"""Sends messages through Apprise, which knows Discord, Slack, Telegram, mail and a hundred more.

Nothing here is on the money path: the bus hands events over, sending happens in tasks, and a service that hangs or
fails costs only its own messages. What an event is worth is judged when it comes, so that a storm of little things
takes no place from great ones, and critical messages wait for no others.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from execkit.errors import ConfigurationError
from execkit.events import EventBus, Subscription
from execkit.model.events import Event
from execkit.notify.messages import Message, Severity, message_of
from execkit.redaction import keep_secret

log = structlog.get_logger("execkit")

VARIABLE: Final = "EXECKIT_NOTIFY_URLS"
"""Environment variable with the addresses, separated by spaces: they hold tokens and belong in no file."""

_LINE: Final = 100
"""Messages that wait while one is being sent."""

_CRITICAL_LINE: Final = 10_000
"""Critical messages that wait."""

_CRITICAL_AT_ONCE: Final = 20
"""Critical messages that are being sent at the same time."""

_PARTS: Final = re.compile(r"[:/@?&=#]+")
_TOKEN: Final = 16
"""Characters from which on a part of an address is taken for a token; a host is shorter."""

_KINDS: Final = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "failure",
    Severity.CRITICAL: "failure",
}


class Notifier:
    """Tells a person of events; use it as an async context manager around the engine.

        async with Notifier(engine.events, least=Severity.WARNING), engine:
            ...

    Args:
        events: The engine's bus.
        urls: Apprise addresses, e.g. `discord://…`; by default those in the variable EXECKIT_NOTIFY_URLS.
        least: Events of less urgency are not told.
        most: Messages in any window of *per*; what is more is counted, and the next message says how many. Critical
            ones always pass, and wait for no others.
        per: The window.
        send_within: Time that a service may take for one message.
        words: Makes the message of an event, None for none.

    Raises `ConfigurationError` for an address that Apprise does not know, without repeating it.
    """

    def __init__(
        self,
        events: EventBus,
        urls: Iterable[str | SecretStr] | None = None,
        *,
        least: Severity = Severity.WARNING,
        most: int = 20,
        per: timedelta = timedelta(minutes=1),
        send_within: timedelta = timedelta(seconds=10),
        words: Callable[[Event], Message | None] = message_of,
    ) -> None:
        if most < 1:
            raise ConfigurationError(f"most: {most} must be 1 or more")
        self._events = events
        self._service = _service(urls)
        self._least = least
        self._most = most
        self._per = per.total_seconds()
        self._send_within = send_within.total_seconds()
        self._words = words
        self._sent_at: deque[float] = deque(maxlen=most)
        self._critical = _Lane(self._send, at_once=_CRITICAL_AT_ONCE, limit=_CRITICAL_LINE)
        self._others = _Lane(self._send, at_once=1, limit=_LINE)
        self._subscription: Subscription | None = None
        self.held_back = 0
        """Messages that the pace has kept from being sent since the last one."""
        self.failures = 0
        """Messages that no service took."""

    async def __aenter__(self) -> Self:
        # Taking an event waits for nothing, so the bus's own line is empty again after each step of the loop.
        self._subscription = self._events.subscribe(Event, self.take, limit=sys.maxsize)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._subscription is None:
            return
        lanes = (self._critical, self._others)
        try:
            async with asyncio.timeout(self._send_within):
                await self._subscription.idle()
                await asyncio.gather(*(lane.idle() for lane in lanes))
        except TimeoutError:
            left = sum([await lane.cut() for lane in lanes])
            log.warning("notify.cut_off", messages=left)
        finally:  # also when nobody waits for it any more: entered again it would tell everything twice
            self._subscription.cancel()

    def take(self, event: Event) -> None:
        """Have a message sent of one event, if it is urgent enough and the pace allows."""
        message = self._words(event)
        if message is None or message.severity < self._least:
            return
        if message.severity >= Severity.CRITICAL:
            self.held_back += self._critical.put(message)
            return
        now = asyncio.get_running_loop().time()
        if len(self._sent_at) == self._most and now - self._sent_at[0] < self._per:
            self.held_back += 1
            return
        self._sent_at.append(now)
        self.held_back += self._others.put(message)

    async def _send(self, message: Message) -> None:
        held, self.held_back = self.held_back, 0
        text = f"{message.text} (and {held} more messages)" if held else message.text
        try:
            async with asyncio.timeout(self._send_within):
                taken = await self._service.async_notify(
                    title=f"execkit: {message.title}",
                    body=text,
                    notify_type=_KINDS[message.severity],
                )
        except Exception as error:  # noqa: BLE001 - the address in it is a secret, so only its type is told
            taken = False
            log.warning("notify.failed", title=message.title, error=type(error).__name__)
        if not taken:
            self.failures += 1
            log.warning("notify.not_taken", title=message.title)


class _Lane:
    """Messages in line, of which *at_once* are being sent at the same time."""

    def __init__(
        self, send: Callable[[Message], Awaitable[None]], *, at_once: int, limit: int
    ) -> None:
        self._send = send
        self._at_once = at_once
        self._limit = limit
        self._waiting: deque[Message] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, message: Message) -> bool:
        """Take a message in line; return whether the oldest was dropped for it."""
        is_full = len(self._waiting) >= self._limit
        if is_full:
            self._waiting.popleft()
        self._waiting.append(message)
        if len(self._tasks) < self._at_once:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return is_full

    async def _work(self) -> None:
        while self._waiting:
            await self._send(self._waiting.popleft())
        # In this step, so that what comes next finds the place free.
        self._tasks.discard(asyncio.current_task())

    async def idle(self) -> None:
        """Wait until everything in line was sent, or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cut(self) -> int:
        """Give up what was not sent; return how many messages that are."""
        left = len(self._waiting) + len(self._tasks)
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await self.idle()
        return left


def _service(urls: Iterable[str | SecretStr] | None) -> Any:
    try:
        import apprise  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Notifier needs the package {error.name}; install it with: pip install 'execkit[notify]'"
        ) from error
    given = os.environ.get(VARIABLE, "").split() if urls is None else list(urls)
    if not given:
        raise ConfigurationError(f"urls: there are none; give some, or set {VARIABLE}")
    service = apprise.Apprise()
    for place, url in enumerate(given, start=1):
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        # The whole address, and what may be quoted of it alone: ids, tokens, a password.
        keep_secret(text, *(part for part in _PARTS.split(text) if len(part) >= _TOKEN))
        keep_secret(urlsplit(text).password)
        if not service.add(text):
            raise ConfigurationError(
                f"urls: number {place} is no address that Apprise knows; see its list of services"
            )
    return service
