"""Asks a person before an entry is sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import ClassVar, Final, TextIO

import structlog

from execkit.errors import ConfigurationError, VirtualTimeError
from execkit.handlers.desk import Desk
from execkit.handlers.waited import after_wait
from execkit.model.denial import Denial, DenialCode
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.numbers import plain
from execkit.pipeline import Next
from execkit.virtual_time import VirtualTimeLoop

Ask = Callable[[OrderTicket], Awaitable[bool]]

_YES: Final = re.compile(r"y(?:es)?\s*(\d+)?", re.IGNORECASE)

log = structlog.get_logger("execkit")


class ConfirmationHandler:
    """Send an entry only after a person has said yes within *timeout*; silence is no.

    *ask* gets the sized ticket and returns the answer; by default it asks at the terminal. Which entries are asked
    about: those whose signal says `confirmation_required`; of those that leave it open, all unless *always* is False.
    Put it right before the executor, where quantity and prices are final. Reductions are never held up.

    An *ask* with a true `one_at_a_time` shows one question after the other, as the terminal does: the *timeout* of each
    begins when it is shown. What was confirmed is judged once more, at the price of then.
    """

    place: ClassVar = "before"
    deadline: ClassVar = None

    def __init__(
        self,
        ask: Ask | None = None,
        *,
        timeout: timedelta = timedelta(seconds=10),
        always: bool = True,
    ) -> None:
        if timeout <= timedelta(0):
            raise ConfigurationError(f"timeout: {timeout!r} must be above zero")
        self.ask: Ask = ask or TerminalPrompt()
        self.timeout = timeout.total_seconds()
        self.always = always
        self._desk: Desk | None = None
        self._line = asyncio.Lock()

    def bind(self, desk: Desk) -> None:
        """Take the engine's services, for a new quote after the answer."""
        self._desk = desk
        self._line = asyncio.Lock()

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Ask, and pass the ticket on or deny it."""
        required = ticket.signal.confirmation_required
        if ticket.is_reduction or not (self.always if required is None else required):
            return await call_next(ticket)
        async with self._turn() as had_to_wait:
            asked: OrderTicket | Denial = ticket
            if had_to_wait:
                asked = await after_wait(ticket, self._desk)
            denial = asked if isinstance(asked, Denial) else await self._answer(asked)
        judged = denial or await after_wait(ticket, self._desk)
        if isinstance(judged, Denial):
            return ticket.deny_with(judged)
        return await call_next(judged.note("confirmed"))

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[bool]:
        """Wait until the question can be shown; tell whether that took a while."""
        if not getattr(self.ask, "one_at_a_time", False):
            yield False
            return
        had_to_wait = self._line.locked()
        async with self._line:
            yield had_to_wait

    async def _answer(self, ticket: OrderTicket) -> Denial | None:
        """Ask; return why a ticket is not confirmed, or None."""
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.ask(ticket)
        except TimeoutError:
            return Denial.of(DenialCode.NOT_CONFIRMED, no_answer_within_seconds=self.timeout)
        return None if answer is True else Denial.of(DenialCode.NOT_CONFIRMED, answer="no")


class TerminalPrompt:
    """Asks at the terminal, one question at a time: `y` with the question's number is yes, everything else is no.

    The number keeps an answer with its question: a `y` without it, or with that of a question that is over, sends
    nothing. What was typed before a question was asked answers nothing. The terminal is read in a thread, so a question
    nobody answers blocks nothing.
    """

    one_at_a_time: ClassVar = True

    def __init__(self, source: TextIO | None = None, target: TextIO | None = None) -> None:
        self._source = source
        self._target = target
        self._turn = asyncio.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0

    async def __call__(self, ticket: OrderTicket) -> bool:
        """Ask about one ticket."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualTimeLoop):
            raise VirtualTimeError(
                "a person answers in real time; give ConfirmationHandler(ask=...)"
            )
        async with self._turn:
            self._number += 1
            self._waiting = loop.create_future()
            self._drop_half_a_line()
            if self._thread is None or not self._thread.is_alive():
                self._loop = loop
                self._thread = threading.Thread(
                    target=self._read, name="execkit-confirmation", daemon=True
                )
                self._thread.start()
            self._say(f"{question(ticket)} [y{self._number}/N] ")
            try:
                return await self._waiting
            except asyncio.CancelledError:
                self._say(f"\n{self._number} is over: not sent\n")
                raise
            finally:
                self._waiting = None

    def _drop_half_a_line(self) -> None:
        """Forget what was typed without Enter for the question before; only a terminal keeps such."""
        source = self._source or sys.stdin
        with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
            if source.isatty():
                import termios  # noqa: PLC0415 - Unix has it

                termios.tcflush(source.fileno(), termios.TCIFLUSH)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            print(text, end="", flush=True, file=self._target or sys.stderr)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._source or sys.stdin:
                self._tell(line)
        self._tell("")  # the terminal is gone: that is a no

    def _tell(self, line: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._answer, line)

    def _answer(self, line: str) -> None:
        if self._waiting is None or self._waiting.done():
            return
        yes = _YES.fullmatch(line.strip())
        if yes is None:
            self._waiting.set_result(False)
        elif yes[1] == str(self._number):
            self._waiting.set_result(True)
        else:  # perhaps for the question before
            self._say(f"y{self._number} sends this order, n does not: ")


def question(ticket: OrderTicket) -> str:
    """Return what a person has to know to say yes or no."""
    parts = [
        f"{ticket.side} {'' if ticket.quantity is None else plain(ticket.quantity)} {ticket.symbol}"
    ]
    parts.append(f"{ticket.type} at about {plain(ticket.reference_price)}")
    if ticket.stop_loss is not None:
        parts.append(f"stop {plain(ticket.stop_loss)}")
    if ticket.take_profit is not None:
        parts.append(f"target {plain(ticket.take_profit)}")
    return ", ".join(parts) + "?"
