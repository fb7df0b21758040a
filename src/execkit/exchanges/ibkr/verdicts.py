"""What an error that names an order does to it: hardly ever more than to answer what is being asked of the order.

TWS numbers its answers by order, not by message. So an error does not say whether it refuses the order, a change of it
or a cancel. It ends an order only where nothing but the order itself can be meant: sent once, and not shown working
yet. Of one that works, the status that follows tells (Inactive, Cancelled), or a look-up.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from execkit.errors import OrderStatusUnknownError
from execkit.exchanges.ibkr.codes import Meaning, cancel_error_of, error_of, meaning_of
from execkit.exchanges.ibkr.orders import Known

_OF_CANCELS: Final = frozenset({161, 10147, 10148, 10149})


class Verdict(Enum):
    """What is to be done after an error was taken in."""

    NOTHING = auto()
    ASK = auto()
    """Nobody waits for it, and it proves nothing: everything has to be compared."""


def judge(known: Known, code: int, text: str) -> Verdict:
    """Take in an error or a warning that names an order."""
    meaning = meaning_of(code)
    if meaning in (Meaning.INFO, Meaning.WAITING):
        known.note = text
    elif meaning is Meaning.CANCELLED:
        known.code = str(code)
        known.see_status("Cancelled", reason=text)
    elif code in _OF_CANCELS and "cancel" in known.asking:
        known.answers["cancel"] = cancel_error_of(code, text)
    elif meaning is Meaning.REFUSED:
        return _refused(known, code, text)
    else:
        asked = next((what for what in ("amend", "place") if what in known.asking), None)
        if asked is None:
            return Verdict.ASK
        known.answers[asked] = error_of(code, text)
    return Verdict.NOTHING


def _refused(known: Known, code: int, text: str) -> Verdict:
    error = error_of(code, text)
    if "place" in known.asking and not known.is_taken:
        if known.sends > 1:
            # To a repetition the first may be live.
            told = f"{error}; it was a repetition, and says nothing of the first"
            error = OrderStatusUnknownError(told, venue="ibkr", code=str(code))
        elif not known.has_ended:
            known.refuse(error)
        known.answers["place"] = error
        return Verdict.NOTHING
    if "cancel" in known.asking:
        known.answers["cancel"] = cancel_error_of(code, text)
    if "amend" in known.asking:
        if "cancel" in known.asking:
            told = f"{error}; it may answer the cancel as well"
            error = OrderStatusUnknownError(told, venue="ibkr", code=str(code))
        known.answers["amend"] = error
    if known.asking & {"cancel", "amend"}:
        return Verdict.NOTHING
    if not known.is_taken and (
        known.sends == 1 or (not known.sends and known.status == "Inactive")
    ):
        if not known.has_ended:
            known.refuse(error)
        return Verdict.NOTHING
    known.objection = error
    return Verdict.ASK
