"""Every edge of an order's life.

Two rules: whatever changes an order's state is a row of the table below, and this file knows neither the venue
nor how an event was learned. An event without a row raises `InvalidTransitionError` and changes nothing; whoever
applied it records the anomaly and asks the venue.

Theory of operation. An intent is journalled (NEW), sent (SUBMITTED) and answered. No answer is not a "no": the
order is IN_DOUBT until the venue shows it, or shows for long enough that it does not have it (PRESUMED_ABSENT,
which a late sight still overturns). Fills and acknowledgements come from several sources in any order, so a row may
lead back to its own state: that is knowledge we had already, and nothing is journalled for it. A closed state never
opens again; late fills change quantities only.
"""

from __future__ import annotations

from typing import Final

from execkit.errors import InvalidTransitionError
from execkit.model.order import OrderEvent as E
from execkit.model.order import OrderState as S

# What the venue may say at any time once a request can have reached it.
_FROM_VENUE: Final = {
    E.FILL_PART: S.PARTIALLY_FILLED,
    E.FILL: S.FILLED,
    E.CANCEL: S.CANCELLED,
    E.EXPIRE: S.EXPIRED,
}
_UNTOUCHED: Final = _FROM_VENUE | {E.ACCEPT: S.ACCEPTED, E.HOLD: S.HELD, E.REJECT: S.REJECTED}

TRANSITIONS: Final[dict[S, dict[E, S]]] = {
    S.NEW: {
        # The record of the send may be lost in a crash, so the venue can be ahead of us.
        **_UNTOUCHED,
        E.SUBMIT: S.SUBMITTED,
        E.LOSE: S.IN_DOUBT,
        E.FAIL: S.FAILED,
        # Where there is nothing to cancel yet, the wish is noted and waits for what becomes of the order.
        E.ASK_CANCEL: S.NEW,
    },
    S.SUBMITTED: {
        **_UNTOUCHED,
        E.UNSENT: S.NEW,
        E.LOSE: S.IN_DOUBT,
        E.ASK_CANCEL: S.SUBMITTED,
    },
    S.IN_DOUBT: {
        **_UNTOUCHED,
        E.LOSE: S.IN_DOUBT,
        # A cancel by client id may be tried; whether there is anything to cancel stays unknown.
        E.ASK_CANCEL: S.IN_DOUBT,
        E.REFUSE_CANCEL: S.IN_DOUBT,
        E.ABSENT: S.PRESUMED_ABSENT,
    },
    S.PRESUMED_ABSENT: {
        **_UNTOUCHED,
        E.ABSENT: S.PRESUMED_ABSENT,
        E.SUBMIT: S.SUBMITTED,
        E.ASK_CANCEL: S.PRESUMED_ABSENT,
    },
    S.HELD: {
        **_UNTOUCHED,
        E.LOSE: S.IN_DOUBT,
        E.ASK_CANCEL: S.PENDING_CANCEL,
    },
    S.ACCEPTED: {
        **_UNTOUCHED,
        E.LOSE: S.IN_DOUBT,
        E.ASK_CANCEL: S.PENDING_CANCEL,
        E.REFUSE_CANCEL: S.ACCEPTED,
        E.ASK_AMEND: S.PENDING_AMEND,
        E.AMEND: S.ACCEPTED,
        E.REFUSE_AMEND: S.ACCEPTED,
    },
    S.PARTIALLY_FILLED: {
        **_FROM_VENUE,
        E.ACCEPT: S.PARTIALLY_FILLED,
        # What was executed stays so: the venue has ended the rest.
        E.REJECT: S.CANCELLED,
        E.LOSE: S.IN_DOUBT,
        E.ASK_CANCEL: S.PENDING_CANCEL,
        E.REFUSE_CANCEL: S.PARTIALLY_FILLED,
        E.ASK_AMEND: S.PENDING_AMEND,
        E.AMEND: S.PARTIALLY_FILLED,
        E.REFUSE_AMEND: S.PARTIALLY_FILLED,
    },
    S.PENDING_CANCEL: {
        **_FROM_VENUE,
        E.FILL_PART: S.PENDING_CANCEL,
        E.ACCEPT: S.PENDING_CANCEL,
        E.HOLD: S.PENDING_CANCEL,
        E.REJECT: S.REJECTED,
        E.LOSE: S.PENDING_CANCEL,
        E.ASK_CANCEL: S.PENDING_CANCEL,
        E.REFUSE_CANCEL: S.ACCEPTED,
        E.AMEND: S.PENDING_CANCEL,
        E.REFUSE_AMEND: S.PENDING_CANCEL,
        E.ABSENT: S.PRESUMED_ABSENT,
    },
    S.PENDING_AMEND: {
        **_FROM_VENUE,
        E.FILL_PART: S.PENDING_AMEND,
        E.ACCEPT: S.PENDING_AMEND,
        E.REJECT: S.REJECTED,
        E.LOSE: S.IN_DOUBT,
        E.AMEND: S.ACCEPTED,
        E.REFUSE_AMEND: S.ACCEPTED,
        E.ASK_CANCEL: S.PENDING_CANCEL,
    },
    # Closed: repetitions of the same news are no news; a late fill changes quantities, not the state.
    S.FILLED: {
        E.FILL: S.FILLED,
        E.FILL_PART: S.FILLED,
        E.ACCEPT: S.FILLED,
        E.REFUSE_CANCEL: S.FILLED,
    },
    S.CANCELLED: {
        E.CANCEL: S.CANCELLED,
        E.EXPIRE: S.CANCELLED,
        E.FILL_PART: S.CANCELLED,
        E.FILL: S.CANCELLED,
        E.REFUSE_CANCEL: S.CANCELLED,
    },
    S.REJECTED: {E.REJECT: S.REJECTED, E.FILL_PART: S.REJECTED, E.FILL: S.REJECTED},
    S.EXPIRED: {
        E.EXPIRE: S.EXPIRED,
        E.CANCEL: S.EXPIRED,
        E.FILL_PART: S.EXPIRED,
        E.FILL: S.EXPIRED,
        E.REFUSE_CANCEL: S.EXPIRED,
    },
    S.FAILED: {E.FAIL: S.FAILED, E.FILL_PART: S.FAILED, E.FILL: S.FAILED},
}


def next_state(state: S, event: E, *, filled_part: bool = False) -> S:
    """Return the state that *event* leads to; raise `InvalidTransitionError` when there is no such edge.

    *filled_part* tells that a part was executed: an order that rests on is then PARTIALLY_FILLED.
    """
    try:
        after = TRANSITIONS[state][event]
    except KeyError:
        raise InvalidTransitionError(f"an order that is {state} cannot {event.value}") from None
    if after is S.ACCEPTED and filled_part:
        return S.PARTIALLY_FILLED
    return after


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> new"]
    for state, row in TRANSITIONS.items():
        targets: dict[S, list[str]] = {}
        for event, after in row.items():
            if after is not state:
                targets.setdefault(after, []).append(event.value)
        lines += [
            f"    {state.value} --> {after.value}: {', '.join(sorted(events))}"
            for after, events in targets.items()
        ]
        if state.is_closed:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"
