"""An event loop whose time jumps: a run of hours takes milliseconds and is repeatable.

When every task waits, the loop puts its time to the next timer instead of sleeping. It opens no socket
and starts no thread, because neither knows virtual time; trying to raises `VirtualTimeError`. So do calls past the
loop in its thread: a blocking `socket` that connects, binds, sends or resolves a name, and `time.sleep`. What only
reads the machine's clock (`datetime.now()`, `time.time()`) cannot be refused from here: take the time from a clock.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from execkit.clock import require_utc
from execkit.errors import VirtualTimeError

T = TypeVar("T")

DEFAULT_START = datetime(2024, 1, 1, tzinfo=UTC)

_REAL: Final = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "subprocess.Popen",
    }
)
"""Audit events (see "Audit events table" of Python) of calls that need the real world."""


_real_sleep = time.sleep


def _refuse(what: str) -> None:
    """Raise when the caller's thread is inside a virtual loop."""
    if isinstance(asyncio._get_running_loop(), VirtualTimeLoop):  # noqa: SLF001 - the public one raises
        raise VirtualTimeError(
            f"{what} under virtual time: a socket and a real pause know no virtual time; "
            "use the exchange, the clock and asyncio.sleep that the run was given"
        )


def _on_audit(event: str, _args: tuple[object, ...]) -> None:
    if event in _REAL:
        _refuse(event)


def _sleep(seconds: float) -> None:
    _refuse("time.sleep")
    _real_sleep(seconds)


class _Guard:
    """An audit hook, which cannot be removed: installed with the first loop, idle while no virtual loop runs."""

    is_set = False

    @classmethod
    def install(cls) -> None:
        if not cls.is_set:
            cls.is_set = True
            sys.addaudithook(_on_audit)


class _JumpingSelector(selectors.DefaultSelector):
    """Poll without blocking, and move the loop's time where the real one would sleep."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self.loop.jump()
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop with virtual time, starting at zero seconds."""

    is_virtual = True
    """How code that must not run under virtual time knows."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._virtual_now = 0.0
        self._holds = 0
        self._idle: asyncio.Future[None] | None = None
        super().__init__(selector)
        _Guard.install()

    def run_forever(self) -> None:
        """Run until stopped; meanwhile `time.sleep`, which tells no audit hook, is refused in this thread."""
        before, time.sleep = time.sleep, _sleep  # type: ignore[assignment]
        try:
            super().run_forever()
        finally:
            time.sleep = before

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._virtual_now

    def jump(self) -> None:
        """Move to the next timer; called when nothing else can run."""
        if self._holds:
            raise VirtualTimeError("time may not jump while a commit is outstanding")
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)
            return
        timers = self._scheduled  # type: ignore[attr-defined]
        if not timers:
            raise VirtualTimeError(
                "deadlock: every task waits and no timer is set; something awaits an event that nobody will send"
            )
        self._virtual_now = max(self._virtual_now, timers[0].when())

    async def idle(self) -> None:
        """Wait until every other task waits for something too, without letting time pass.

        One task at a time may wait so: it is the one that drives the others.
        """
        if self._idle is not None and not self._idle.done():
            raise VirtualTimeError("another task waits for the others already")
        self._idle = self.create_future()
        await self._idle

    def hold(self) -> None:
        """Forbid jumps until `release`: something real is outstanding."""
        self._holds += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]
        """Refuse: a thread knows no virtual time."""
        raise VirtualTimeError(f"a thread ({func!r}) cannot run under virtual time")

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a socket knows no virtual time."""
        raise VirtualTimeError("a socket cannot be opened under virtual time")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a socket knows no virtual time."""
        raise VirtualTimeError("a server cannot be started under virtual time")

    async def sock_connect(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a socket knows no virtual time."""
        raise VirtualTimeError("a socket cannot be connected under virtual time")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a process knows no virtual time."""
        raise VirtualTimeError("a process cannot be started under virtual time")

    create_datagram_endpoint = create_connection
    create_unix_connection = create_connection
    create_unix_server = create_server
    subprocess_shell = subprocess_exec


class VirtualClock:
    """Wall clock tied to a virtual loop: *start* plus the loop's time, plus any step made by hand."""

    def __init__(self, loop: VirtualTimeLoop, start: datetime = DEFAULT_START) -> None:
        self._loop = loop
        self._start = require_utc("start", start)

    def now(self) -> datetime:
        """Return the current virtual time, to the microsecond."""
        return self._start + timedelta(microseconds=round(self._loop.time() * 1_000_000))

    def step(self, by: timedelta) -> None:
        """Step the wall clock, as a time server does; durations are not affected."""
        self._start += by

    async def sleep_until(self, when: datetime) -> None:
        """Wait until the clock shows *when*; return at once when it has passed."""
        delay = (require_utc("when", when) - self.now()).total_seconds()
        if delay > 0:
            await asyncio.sleep(delay)

    def __repr__(self) -> str:
        return f"VirtualClock({self.now().isoformat()})"


def run_virtual(
    main: Callable[[VirtualClock], Coroutine[Any, Any, T]], *, start: datetime = DEFAULT_START
) -> T:
    """Run `main(clock)` under virtual time and return its result.

    Raises `VirtualTimeError` when everything waits for ever, or when a socket or thread is used.
    """
    loop = VirtualTimeLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main(VirtualClock(loop, start)))
    finally:
        if not loop.is_closed():
            loop.close()
