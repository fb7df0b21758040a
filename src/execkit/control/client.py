"""The other end of the control socket: what a command line, a script or a watchdog uses."""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from execkit.clock import Clock, SystemClock
from execkit.control.protocol import LIFE, Answer, Request, encode, short_name, socket_path
from execkit.errors import ExecKitError


class NoEngineError(ExecKitError):
    """Nobody listens beside this journal, or the engine's loop does not turn."""


def ask(
    journal: Path,
    command: str,
    arguments: Mapping[str, str | bool] | None = None,
    *,
    actor: str | None = None,
    clock: Clock | None = None,
    timeout: float = 70.0,
) -> Any:
    """Have the engine that writes *journal* do something, and return what it answers.

    Raises `NoEngineError` when no engine answers within *timeout* seconds or its loop is blocked, and `ExecKitError`
    with the engine's own words when it refuses.
    """
    request = Request(
        command=command,
        actor=actor or getpass.getuser(),
        nonce=secrets.token_hex(16),
        expires=(clock or SystemClock()).now() + LIFE,
        arguments=dict(arguments or {}),
    )
    path = socket_path(journal.absolute())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            with short_name(path) as name:
                connection.connect(name)
            connection.sendall(encode(request))
            with connection.makefile("rb") as lines:
                line = lines.readline()
    except OSError as error:
        raise NoEngineError(
            f"no engine answers at {path} ({error.strerror or error}); is one running on this journal? "
            "If it hangs, --force takes its place"
        ) from error
    if not line:
        raise NoEngineError(f"the engine at {path} hung up without an answer")
    answer = msgspec.json.decode(line, type=Answer)
    if answer.blocked:
        raise NoEngineError(f"{answer.error}; --force takes its place")
    if answer.error:
        raise ExecKitError(answer.error)
    return answer.result
