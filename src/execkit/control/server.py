"""The engine's end of the control socket, in a thread of its own.

The thread answers although the engine's loop is busy or blocked: then it says so, and the person can take over with
`--force`. Commands themselves run on the engine's loop, past every handler.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from execkit.clock import Clock
from execkit.control.protocol import (
    COMMANDS,
    LIFE,
    LONGEST_LINE,
    Answer,
    Request,
    encode,
    is_ours,
    short_name,
    socket_path,
)
from execkit.errors import ExecKitError, JournalError
from execkit.redaction import redacted, words_of

log = structlog.get_logger("execkit")

Run = Callable[[Request], Awaitable[Any]]

_REMEMBERED: Final = 1000
"""Nonces kept; more requests than that do not come within one request's life."""


class ControlServer:
    """Listens beside *journal* and hands each command to *run* on the loop that called `start`.

    *turn_within* is how many seconds that loop may take to turn before the answer is that it is blocked,
    *answer_within* how long a command may take.
    """

    def __init__(
        self,
        journal: Path,
        run: Run,
        clock: Clock,
        *,
        turn_within: float = 2.0,
        answer_within: float = 60.0,
    ) -> None:
        self.path = socket_path(journal)
        self._run = run
        self._clock = clock
        self._turn_within = turn_within
        self._answer_within = answer_within
        self._nonces: deque[str] = deque(maxlen=_REMEMBERED)
        self._nonces_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._inode = 0

    def start(self) -> None:
        """Listen; raises `JournalError` when the socket cannot be made."""
        self._loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_name(self.path) as name:
                # Who holds the journal's lock is alone here, so what stands there is left over.
                self.path.unlink(missing_ok=True)
                before = os.umask(0o177)
                try:
                    listener.bind(name)
                finally:
                    os.umask(before)
            listener.listen(8)
        except OSError as error:
            listener.close()
            raise JournalError(
                f"{self.path}: the control socket cannot be made: {error.strerror or error}"
            ) from error
        self._inode = self.path.stat().st_ino
        self._socket = listener
        self._thread = threading.Thread(
            target=self._serve, args=(listener,), name="execkit-control", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        if self._socket is None or self._thread is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)
        self._socket = self._thread = None
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # else somebody has taken over
                self.path.unlink()

    # -- in the thread ---------------------------------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(
                target=self._converse, args=(connection,), name="execkit-control", daemon=True
            ).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5.0)
            if not is_ours(connection):
                return
            line = _read_line(connection)
            if line:
                connection.sendall(encode(self._answer(line)))

    def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.MsgspecError as error:
            return Answer(error=f"not a request: {error}")
        problem = self._refuse(request)
        if problem:
            log.warning("control.refused", command=request.command, reason=problem)
            return Answer(error=problem)
        loop = self._loop
        assert loop is not None, "start() has set it"
        turned = threading.Event()
        try:
            loop.call_soon_threadsafe(turned.set)
            if not turned.wait(self._turn_within):
                return Answer(
                    error=f"the engine's loop has not turned for {self._turn_within:g} s; nothing was done",
                    blocked=True,
                )
            future = asyncio.run_coroutine_threadsafe(self._obey(request), loop)
        except RuntimeError:
            return Answer(error="the engine is stopping", blocked=True)
        try:
            return Answer(result=future.result(self._answer_within))
        except TimeoutError:
            return Answer(
                error=f"{request.command} is still under way after {self._answer_within:g} s; it goes on"
            )
        except ExecKitError as error:
            return Answer(error=redacted(str(error)))
        except Exception as error:  # noqa: BLE001 - the person has to hear of it
            return Answer(error=words_of(error))

    def _refuse(self, request: Request) -> str:
        now = self._clock.now()
        if request.command not in COMMANDS:
            return f"{request.command!r} is unknown; there are {', '.join(COMMANDS)}"
        if not now <= request.expires <= now + 2 * LIFE:
            return "the request is too old, or from a clock that differs; send it anew"
        with self._nonces_lock:  # each connection has a thread of its own
            if request.nonce in self._nonces:
                return "the request was sent before"
            self._nonces.append(request.nonce)
        return ""

    async def _obey(self, request: Request) -> Any:
        return await self._run(request)


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(4096)
        data += part
        if not part or len(data) > LONGEST_LINE:
            return b""
    return data
