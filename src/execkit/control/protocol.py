"""What is said over the control socket: one JSON line each way.

The socket stands beside the journal with mode 0600 in a directory of its owner, so who may open it may also write the
journal. A request ends to be valid after a while and its nonce counts once, so that a recorded one is worth nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX: Final = ".sock"
LIFE: Final = timedelta(seconds=30)
"""How long after it was made a request is obeyed."""
LONGEST_LINE: Final = 64 * 1024

COMMANDS: Final = (
    "status",
    "halt",
    "resume",
    "cancel-all",
    "flatten",
    "close",
    "resolve",
    "orders",
    "positions",
)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command. *actor* is who asks, as the audit names them."""

    command: str
    actor: str
    nonce: str
    expires: datetime
    arguments: dict[str, str | bool] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: *result* when it was done, else *error*; *blocked* when the engine's loop does not turn."""

    result: Any = None
    error: str = ""
    blocked: bool = False


def encode(message: Request | Answer) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message, enc_hook=_plain) + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    raise NotImplementedError(type(value))


def socket_path(journal: Path) -> Path:
    """Return where the engine that writes *journal* listens."""
    return journal.with_name(journal.name + SUFFIX)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Name a socket so briefly that the system takes it: the limit is about 100 bytes for the whole path."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def is_ours(connection: socket.socket) -> bool:
    """Tell whether the process at the other end belongs to our user, where the system can say so."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, option, 12)
    user = int.from_bytes(credentials[4:8], "little", signed=False)
    return user in (os.getuid(), 0)
