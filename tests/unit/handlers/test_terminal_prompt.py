"""Questions at a real terminal: an answer belongs to the question that it names."""

import asyncio
import contextlib
import io
import os
import pty
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.handlers.confirmation import ConfirmationHandler, TerminalPrompt
from execkit.model.denial import DenialCode

SOON = timedelta(milliseconds=20)
LATER = timedelta(seconds=60)


class Person:
    """Sits at the other end of a terminal."""

    def __init__(self):
        self._end, terminal = pty.openpty()
        self.source = os.fdopen(terminal, "r")
        self.screen = os.fdopen(os.dup(terminal), "w")
        self.seen = ""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._end, self._look)
        self.prompt = TerminalPrompt(self.source, self.screen)

    def _look(self):
        with contextlib.suppress(OSError):
            self.seen += os.read(self._end, 4096).decode()
        self._news.set()

    async def sees(self, text):
        async with asyncio.timeout(10):
            while text not in self.seen:
                self._news.clear()
                await self._news.wait()

    def types(self, text):
        os.write(self._end, text.encode())

    def hang_up(self):
        asyncio.get_running_loop().remove_reader(self._end)
        os.close(self._end)


@pytest.fixture
async def person():
    someone = Person()
    yield someone
    with contextlib.suppress(OSError):
        someone.hang_up()
    await asyncio.to_thread(someone.prompt._thread.join, 5)
    someone.source.close()
    someone.screen.close()


class Sent(Exception):
    """The chain went on to the executor."""


async def sent(_ticket):
    raise Sent


def ask(prompt, ticket, timeout=LATER):
    return asyncio.ensure_future(ConfirmationHandler(prompt, timeout=timeout)(ticket, sent))


async def test_a_late_answer_does_not_approve_the_next_question(person, make_ticket, desk):
    """The first question runs out; what was typed for it, with or without its number, sends nothing else."""
    prompt = person.prompt
    ticket = make_ticket(desk, quantity=Decimal("0.1"))
    refused = await ask(prompt, ticket, SOON)
    assert refused.denial.code is DenialCode.NOT_CONFIRMED
    await person.sees("1 is over: not sent")
    second = ask(prompt, make_ticket(desk, quantity=Decimal("0.2")))
    await person.sees("buy 0.2 BTC/USDT")
    for late in ("y\n", "yes\n", "y1\n"):
        person.seen = ""
        person.types(late)
        await person.sees("y2 sends this order")
        assert not second.done()
    person.types("y2\n")
    with pytest.raises(Sent):
        await second


async def test_half_an_answer_is_not_the_beginning_of_the_next(person, make_ticket, desk):
    """A `y` without Enter when the question ran out is gone with it."""
    prompt = person.prompt
    first = ask(prompt, make_ticket(desk), timedelta(seconds=0.2))
    await person.sees("y1")
    person.types("y")
    assert (await first).denial.code is DenialCode.NOT_CONFIRMED
    second = ask(prompt, make_ticket(desk))
    await person.sees("y2")
    person.types(" Y 2 \n")
    with pytest.raises(Sent):
        await second


@pytest.mark.parametrize("answer", ["n\n", "\n", "y2 no\n", "later\n"])
async def test_everything_else_is_a_no(person, make_ticket, desk, answer):
    """At once."""
    asked = ask(person.prompt, make_ticket(desk))
    await person.sees("y1")
    person.types(answer)
    assert (await asked).denial.context == {"answer": "no"}


async def test_a_terminal_that_hangs_up_says_no(person, make_ticket, desk):
    """The line of a session breaks."""
    asked = ask(person.prompt, make_ticket(desk))
    await person.sees("y1")
    person.hang_up()
    assert (await asked).denial.context == {"answer": "no"}


async def test_a_pipe_answers_as_a_terminal_does(make_ticket, desk):
    """A program that is fed its answers."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as source, io.StringIO() as screen:
        prompt = TerminalPrompt(source, screen)
        asked = ask(prompt, make_ticket(desk))
        await asyncio.sleep(0)
        os.write(writing, b"y1\n")
        os.close(writing)
        with pytest.raises(Sent):
            await asked
        await asyncio.to_thread(prompt._thread.join, 5)
