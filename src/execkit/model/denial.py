"""Why execkit itself refuses a signal. *Denied* is ours; *rejected* is the venue's."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Self

import msgspec

from execkit.numbers import plain
from execkit.redaction import redacted


class DenialCode(Enum):
    """Reasons for a refusal before anything is sent; each with one line of documentation."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """Attach the documentation line to the member."""
        member = object.__new__(cls)
        member._value_ = value
        member.doc = doc
        return member

    # what the signal states
    SIGNAL_TOO_WEAK = "SIGNAL_TOO_WEAK", "The strength is below `min_signal_strength`."
    CONFLUENCE_TOO_LOW = "CONFLUENCE_TOO_LOW", "The confluence score is below the minimum."
    SIGNAL_TOO_OLD = "SIGNAL_TOO_OLD", "The signal is older than its own `max_age`."
    DUPLICATE_SIGNAL = (
        "DUPLICATE_SIGNAL",
        "The signal came before and its result is no longer kept.",
    )
    EXCHANGE_NOT_VALID = (
        "EXCHANGE_NOT_VALID",
        "The signal names an exchange that is not allowed here.",
    )
    SYMBOL_UNKNOWN = "SYMBOL_UNKNOWN", "The venue does not list the symbol."
    SYMBOL_NOT_TRADEABLE = (
        "SYMBOL_NOT_TRADEABLE",
        "The venue lists the symbol but does not trade it now.",
    )
    ORDER_TYPE_UNSUPPORTED = (
        "ORDER_TYPE_UNSUPPORTED",
        "The venue lacks the order type or time in force.",
    )
    STOP_LOSS_WRONG_SIDE = (
        "STOP_LOSS_WRONG_SIDE",
        "The stop-loss is not on the losing side of the price.",
    )
    TAKE_PROFIT_WRONG_SIDE = (
        "TAKE_PROFIT_WRONG_SIDE",
        "The take-profit is not on the winning side of the price.",
    )
    PENDING_ORDER_EXISTS = (
        "PENDING_ORDER_EXISTS",
        "Another entry for the symbol is live, in flight or in doubt.",
    )
    # numbers against the venue's rules
    NUMBER_INVALID = (
        "NUMBER_INVALID",
        "A quantity, price or quote is not a finite number above zero.",
    )
    QUANTITY_TOO_SMALL = "QUANTITY_TOO_SMALL", "The quantity is below the venue's minimum."
    QUANTITY_TOO_LARGE = "QUANTITY_TOO_LARGE", "The quantity is above the venue's maximum."
    QUANTITY_OFF_LOT = "QUANTITY_OFF_LOT", "The quantity is not a multiple of the lot size."
    PRICE_OFF_TICK = "PRICE_OFF_TICK", "A price is not a multiple of the tick size."
    NOTIONAL_TOO_SMALL = "NOTIONAL_TOO_SMALL", "Quantity times price is below the venue's minimum."
    NOTIONAL_TOO_LARGE = "NOTIONAL_TOO_LARGE", "Quantity times price is above a limit."
    PRICE_OUTSIDE_COLLAR = "PRICE_OUTSIDE_COLLAR", "A price is too far from the last price."
    QUOTE_STALE = "QUOTE_STALE", "There is no quote young enough to judge the order by."
    SPREAD_TOO_WIDE = "SPREAD_TOO_WIDE", "The bid-ask spread is above the limit."
    # risk
    NOT_ENOUGH_BUYING_POWER = (
        "NOT_ENOUGH_BUYING_POWER",
        "The account cannot pay for the order beside what is reserved.",
    )
    SHORT_NOT_ALLOWED = (
        "SHORT_NOT_ALLOWED",
        "A sell without a long position, and `allow_short` is off.",
    )
    POSITION_EXISTS = (
        "POSITION_EXISTS",
        "A position in the symbol is open already and scaling in is off.",
    )
    NO_POSITION_TO_REDUCE = (
        "NO_POSITION_TO_REDUCE",
        "A reduction was asked for and nothing is open.",
    )
    TOO_MANY_POSITIONS = "TOO_MANY_POSITIONS", "`max_concurrent_positions` is reached."
    POSITION_TOO_LARGE = (
        "POSITION_TOO_LARGE",
        "The position would pass the share of the account it may take.",
    )
    EXPOSURE_TOO_LARGE = (
        "EXPOSURE_TOO_LARGE",
        "All positions and live orders together would pass the limit.",
    )
    GROUP_TOO_LARGE = (
        "GROUP_TOO_LARGE",
        "The positions of a correlation group would pass the share of the account it may take.",
    )
    DAY_TRADES_REACHED = (
        "DAY_TRADES_REACHED",
        "So many positions were opened and closed on one day that another could be refused or penalised.",
    )
    PRICE_MOVED = (
        "PRICE_MOVED",
        "The price has moved farther in a short time than entries are allowed in.",
    )
    RISK_REWARD_TOO_LOW = (
        "RISK_REWARD_TOO_LOW",
        "The gain to the target is too small for the loss to the stop.",
    )
    STOP_TOO_FAR = "STOP_TOO_FAR", "The caller's stop-loss is farther away than allowed."
    CURRENCY_MISMATCH = (
        "CURRENCY_MISMATCH",
        "The symbol is quoted in another asset than the account's currency, so no limit can be compared.",
    )
    DAILY_LOSS_REACHED = (
        "DAILY_LOSS_REACHED",
        "The day's loss limit is reached; only reductions pass.",
    )
    TRADING_REDUCING = "TRADING_REDUCING", "Trading is set to reductions only."
    TRADING_HALTED = "TRADING_HALTED", "Trading is halted."
    SYMBOL_BLOCKED = (
        "SYMBOL_BLOCKED",
        "The symbol is blocked, e.g. by an order in doubt or a mismatch with the venue.",
    )
    PARENT_EXCEEDED = (
        "PARENT_EXCEEDED",
        "A slice of an order that is no longer worked or whose position is closed, or more than is left of it.",
    )
    NOT_STAMPED = "NOT_STAMPED", "No risk handler has approved the order as it is now."
    # the way out
    NOT_RECONCILED = (
        "NOT_RECONCILED",
        "The venue's state is not known, so nothing may be added to it.",
    )
    JOURNAL_UNAVAILABLE = (
        "JOURNAL_UNAVAILABLE",
        "The intent could not be made durable, so it was not sent.",
    )
    CANCELLED = "CANCELLED", "The order was cancelled before it was sent."
    MARKET_CLOSED = (
        "MARKET_CLOSED",
        "The market is closed, and queueing is off; or it is a slice, which never waits.",
    )
    NOT_CONFIRMED = "NOT_CONFIRMED", "A person refused the order or did not answer in time."
    THROTTLED = (
        "THROTTLED",
        "It would have waited longer for its turn to be sent than a signal may.",
    )
    CIRCUIT_OPEN = "CIRCUIT_OPEN", "Too many failures in a row; waiting before the next trial."
    VENUE_UNAVAILABLE = "VENUE_UNAVAILABLE", "The venue could not be reached, and nothing was sent."
    HANDLER_FAILED = "HANDLER_FAILED", "A handler raised an error; the order was not sent."
    REFUSED_BY_HANDLER = "REFUSED_BY_HANDLER", "A handler of the application said no."


class Denial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One refusal: the code, and the value and limit that decided."""

    code: DenialCode
    context: dict[str, str] = {}

    @classmethod
    def of(cls, code: DenialCode, /, **context: object) -> Denial:
        """Build a denial; decimals are written plainly, and the texts of errors without secrets."""
        return cls(code, {key: _text(value) for key, value in context.items()})

    def __str__(self) -> str:
        if not self.context:
            return str(self.code.value)
        return f"{self.code.value}: " + ", ".join(f"{k}={v}" for k, v in self.context.items())


def _text(value: object) -> str:
    if isinstance(value, BaseException):
        return redacted(str(value))
    return plain(value) if isinstance(value, Decimal) else str(value)
