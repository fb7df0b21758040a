"""What is worth telling, how urgent it is, and in which words."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

import msgspec

from execkit.model.events import (
    Event,
    OrderFailed,
    OrderFilled,
    OrderInDoubt,
    PositionClosed,
    PositionOpened,
    ProtectionFailed,
    ReconcileMismatch,
    SignalDenied,
    SlippageAlert,
    SystemError,  # noqa: A004 - promised name
    TradingStateSet,
)
from execkit.model.records import TradingState
from execkit.numbers import plain
from execkit.redaction import redacted

LONGEST: Final = 500
"""Characters of a text; what a venue says can be long."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Severity(IntEnum):
    """How urgent a message is."""

    INFO = 0
    """Something went as it should."""
    WARNING = 1
    """Something did not go as wished; nothing has to be done."""
    ERROR = 2
    """A person should look."""
    CRITICAL = 3
    """A person must look now."""


class Message(msgspec.Struct, frozen=True):
    """One thing to tell."""

    severity: Severity
    title: str
    text: str


_CRITICAL_ALARMS: Final = frozenset(
    {
        # Positions and orders are not what they should be, or nobody knows.
        "ANSWER_NOT_OURS",
        "BLIND",
        "CLOSED_IN_PART",
        "NOT_PROTECTING",
        "OVERFILL",
        "STOPPED_UNPROTECTED",
        "UNPROTECTED",
        "VENUE_PAUSE",
        "ZOMBIE_ORDER",
        # The venue is about to cancel what protects.
        "DEAD_MAN_ARMED",
        "DEAD_MAN_FAILED",
        # execkit trades no more, or not as it should, until a person has looked.
        "DAILY_LOSS",
        "HALTED_BY_FILE",
        "HALTED_BY_SIGNAL",
        "JOURNAL_UNAVAILABLE",
        "KEEPER_FAILED",
        "KEEPER_LOOP",
        "START_FAILED",
        "TASK_FAILED",
    }
)
"""What a person has to act on now, because execkit cannot, or does no more by itself."""


def message_of(event: Event) -> Message | None:
    """Return what to tell of an event, or None for one that is not worth it."""
    match event:
        case OrderFilled():
            text = f"{event.side} {plain(event.quantity)} {event.symbol} at {plain(event.average_price)}"
            return _message(Severity.INFO, f"{event.role} filled", text)
        case OrderFailed():
            text = (
                f"{event.role} {event.side} {plain(event.quantity)} {event.symbol}: {event.reason}"
            )
            return _message(Severity.ERROR, "Order rejected", text)
        case OrderInDoubt():
            text = (
                f"{event.role} {event.side} {plain(event.quantity)} {event.symbol}: {event.reason}"
            )
            return _message(Severity.ERROR, "Order in doubt", text)
        case SignalDenied():
            return _message(Severity.WARNING, "Signal denied", f"{event.symbol}: {event.reason}")
        case PositionOpened():
            return _message(Severity.INFO, "Position opened", str(event.position))
        case PositionClosed():
            return _message(Severity.INFO, "Position closed", str(event.position))
        case ProtectionFailed():
            text = f"{event.symbol}: {event.reason}; it is being flattened"
            return _message(Severity.CRITICAL, "Position unprotected", text)
        case SlippageAlert():
            return _message(Severity.WARNING, "Slippage", _slippage(event))
        case ReconcileMismatch():
            text = f"{event.symbol}: ours {event.ours}, the venue's {event.venue}"
            return _message(Severity.ERROR, "Books and venue differ", text)
        case TradingStateSet():
            urgent = event.state == TradingState.HALTED
            severity = Severity.CRITICAL if urgent else Severity.WARNING
            return _message(severity, f"Trading is {event.state}", event.cause)
        case SystemError(code="SLIPPAGE"):
            return None  # the journal's note of a `SlippageAlert`
        case SystemError():
            critical = event.code in _CRITICAL_ALARMS
            return _message(
                Severity.CRITICAL if critical else Severity.ERROR, event.code, event.text
            )
        case _:
            return None


def _slippage(event: SlippageAlert) -> str:
    text = f"{event.symbol}: {plain(round(event.slippage_pct, 4))} %"
    if event.average_price is None or event.expected_price is None:
        return text
    average, expected = plain(round(event.average_price, 8)), plain(event.expected_price)
    return f"{text}, {event.role} {event.side} {plain(event.quantity)} at {average} instead of {expected}"


def _message(severity: Severity, title: str, text: str) -> Message:
    # A venue's words are data: no control characters, so nothing it says can look like a message of ours.
    return Message(severity, title, _CONTROL.sub(" ", redacted(text))[:LONGEST])
