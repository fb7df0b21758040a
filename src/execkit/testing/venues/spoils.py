"""Ways in which the body of a right answer can be wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from execkit.errors import ConfigurationError
from execkit.testing.venues.calls import Answer
from execkit.testing.venues.faults import Mishap, WireFault


class OrderFields(NamedTuple):
    """How a venue calls the parts of an order."""

    order_id: str
    client_id: str
    executed: str
    status: str


def spoil(
    fault: WireFault,
    answer: Answer,
    order_in: Callable[[Any], dict[str, Any] | None],
    fields: OrderFields,
) -> str:
    """Return the text of an answer as the fault wants it."""
    text = answer.text
    match fault.kind:
        case Mishap.EMPTY:
            return ""
        case Mishap.CUT_JSON:
            return text[: len(text) // 2]
        case Mishap.LIST:
            return "[]"
        case Mishap.NULL:
            return "null"
    payload = copy.deepcopy(answer.payload)
    order = order_in(payload)
    if order is None:
        raise ConfigurationError(f"fault: {fault.kind} needs an answer about an order, not {text}")
    match fault.kind:
        case Mishap.NO_ID:
            order.pop(fields.order_id, None)
        case Mishap.OTHER_ORDER:
            order[fields.client_id] = f"another-{order.get(fields.client_id)}"[:36]
        case Mishap.NAN:
            order[fields.executed] = float("nan")
        case _:
            order.update(fault.changes)
    return json.dumps(payload, separators=(",", ":"))
