"""Orders as they travel: what is asked of a venue, what it answers, and what was executed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from hashlib import blake2b
from typing import Final

import msgspec

from execkit.numbers import MONEY, ZERO


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """How an order executes."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    """A market order once *stop_price* trades."""
    STOP_LIMIT = "stop_limit"
    """A limit order once *stop_price* trades."""
    TRAILING_STOP = "trailing_stop"
    """A market order once the price has turned by *trail_amount* or *trail_percent* from its best."""


class TimeInForce(StrEnum):
    """How long an order rests."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    DAY = "day"
    GTD = "gtd"


class OrderRole(StrEnum):
    """What an order is for; part of its client order id."""

    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"
    TARGET = "target"
    FLATTEN = "flatten"

    @property
    def is_reduction(self) -> bool:
        """Tell whether such an order may only make a position smaller."""
        return self is not OrderRole.ENTRY


class OrderState(StrEnum):
    """Where an order stands; `execkit.orders.states` holds the edges between these."""

    NEW = "new"
    """Intended and journalled; not sent."""
    SUBMITTED = "submitted"
    """Sent, not answered: in flight."""
    IN_DOUBT = "in_doubt"
    """Sent, and nobody knows what became of it: may be live."""
    PRESUMED_ABSENT = "presumed_absent"
    """The venue showed no trace of it within the absence window; watched for a late sight."""
    HELD = "held"
    """Accepted, but held back by the venue (before the open, no shares to borrow)."""
    ACCEPTED = "accepted"
    """Resting at the venue."""
    PARTIALLY_FILLED = "partially_filled"
    """Resting with a part executed."""
    PENDING_CANCEL = "pending_cancel"
    """A cancel was asked for and is not yet proven."""
    PENDING_AMEND = "pending_amend"
    """A change was asked for and is not yet proven."""
    FILLED = "filled"
    """Executed whole."""
    CANCELLED = "cancelled"
    """Ended by us or by the venue before it was executed whole."""
    REJECTED = "rejected"
    """Refused by the venue."""
    EXPIRED = "expired"
    """Ended by its time in force."""
    FAILED = "failed"
    """Proven never to have reached the venue."""

    @property
    def is_closed(self) -> bool:
        """Tell whether nothing more can be executed of it."""
        return self in CLOSED_STATES

    @property
    def may_be_live(self) -> bool:
        """Tell whether the venue may execute it: live, in flight or in doubt."""
        return self in LIVE_STATES


CLOSED_STATES: Final = frozenset(
    {
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.REJECTED,
        OrderState.EXPIRED,
        OrderState.FAILED,
    }
)
LIVE_STATES: Final = frozenset(OrderState) - CLOSED_STATES - {OrderState.PRESUMED_ABSENT}
"""NEW counts too: its intent is journalled and the send may follow at any moment."""


class OrderEvent(Enum):
    """What can happen to an order."""

    SUBMIT = "submit"
    UNSENT = "unsent"
    LOSE = "lose"
    ABSENT = "absent"
    ACCEPT = "accept"
    HOLD = "hold"
    FILL_PART = "fill_part"
    FILL = "fill"
    ASK_CANCEL = "ask_cancel"
    REFUSE_CANCEL = "refuse_cancel"
    ASK_AMEND = "ask_amend"
    AMEND = "amend"
    REFUSE_AMEND = "refuse_amend"
    CANCEL = "cancel"
    REJECT = "reject"
    EXPIRE = "expire"
    FAIL = "fail"


_encoder: Final = msgspec.json.Encoder()


class OrderRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One order as it is sent to a venue. Quantities are in base units."""

    client_order_id: str
    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    post_only: bool = False
    expire_at: datetime | None = None
    trail_amount: Decimal | None = None
    """Distance of a trailing stop from the best price, in quote units."""
    trail_percent: Decimal | None = None
    """The same in per cent of the best price; either this or *trail_amount*."""
    extended_hours: bool = False
    """May also execute before and after the regular session, where the venue has one."""

    @property
    def payload_hash(self) -> str:
        """Digest of everything the venue is asked for."""
        return blake2b(_encoder.encode(self), digest_size=12).hexdigest()

    @property
    def is_marketable(self) -> bool:
        """Tell whether it executes at once or not at all, so a repetition could execute twice."""
        return self.type is OrderType.MARKET or self.time_in_force in (
            TimeInForce.IOC,
            TimeInForce.FOK,
        )


class ListKind(StrEnum):
    """How the orders of a list depend on each other; the venue itself keeps the promise."""

    OCO = "oco"
    """Two reductions, stop first and target second: the execution of one ends the other."""
    OTO = "oto"
    """An entry and one reduction that goes live when the entry is executed whole."""
    BRACKET = "bracket"
    """An entry, its stop and its target: the last two go live as an OCO when the entry is executed whole."""


class OrderList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several orders that are sent as one, in the order that *kind* states."""

    list_id: str
    """Names the list at the venue; legal wherever a client order id is."""
    kind: ListKind
    orders: tuple[OrderRequest, ...]


class Fill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One execution. *trade_id* is the venue's, normalised by the adapter to one form."""

    trade_id: str
    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    at: datetime
    fee: Decimal = ZERO
    fee_asset: str = ""
    maker: bool | None = None
    replaces: str | None = None
    """Trade id of the execution that this one corrects; quantity zero busts it."""

    @property
    def notional(self) -> Decimal:
        """Quantity times price, in quote units."""
        return MONEY.multiply(self.quantity, self.price)


class OrderReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue says of one order at one time.

    *status* is one of ACCEPTED, HELD, PARTIALLY_FILLED, PENDING_CANCEL, FILLED, CANCELLED, REJECTED, EXPIRED,
    or IN_DOUBT where the adapter does not know the venue's word. *fills* holds executions that came with the
    answer and may be empty although *filled* is not.
    """

    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    status: OrderState
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    fills: tuple[Fill, ...] = ()
    updated_at: datetime | None = None
    reason: str = ""
    code: str | None = None
    raw_status: str = ""


class StreamGap(msgspec.Struct, frozen=True):
    """The order stream lost continuity: what happened meanwhile must be fetched."""

    reason: str


OrderUpdate = OrderReport | Fill | StreamGap
"""What an order-update stream yields."""
