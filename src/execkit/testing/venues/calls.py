"""Requests as a venue on the wire sees them, and its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from execkit.testing.venues.faults import WireFault


@attrs.define(kw_only=True, eq=False)
class Call:
    """One request as it came in, by HTTP or inside a WebSocket."""

    operation: str
    method: str
    path: str
    params: dict[str, str]
    """Query and form together, decoded; of a JSON body what is text or a number."""
    at: datetime
    payload: str = attrs.field(default="", repr=False)
    """What a signature covers."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: Any = attrs.field(default=None, repr=False)
    """The JSON body, where there is one."""
    client_order_id: str = ""
    fault: WireFault | None = attrs.field(default=None, repr=False)
    lost: bool = False
    """The connection closed before the venue looked at it."""
    status: int = 0
    """Of the answer; 0 as long as there is none."""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of this program
    """The venue says no."""

    def __init__(self, status: int, payload: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {payload}")
        self.status, self.payload, self.headers = status, payload, dict(headers or {})


@attrs.define
class Answer:
    """What goes back over HTTP: JSON; a text as it is; None is an empty body."""

    status: int
    payload: Any
    headers: dict[str, str] = attrs.field(factory=dict)

    @property
    def text(self) -> str:
        """The body."""
        if self.payload is None or isinstance(self.payload, str):
            return self.payload or ""
        return json.dumps(self.payload, separators=(",", ":"))


Handler = Callable[[Call], Any]
"""Answers a call: with the payload, or an `Answer` where the status is not 200; or raises `Refusal`."""
