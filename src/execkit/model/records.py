"""The journal's records. State is the fold of these; whatever is not here is lost at a restart.

Every record is deterministic: measured durations, process ids and host names have no place in one.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from execkit.model.account import AccountView
from execkit.model.denial import Denial
from execkit.model.order import Fill, OrderEvent, OrderRequest, OrderRole, Side
from execkit.model.position import Target
from execkit.model.result import Outcome
from execkit.model.slicing import Slice
from execkit.numbers import ZERO


class Source(StrEnum):
    """Where a piece of knowledge came from."""

    CHAIN = "chain"
    ACK = "ack"
    STREAM = "stream"
    LOOKUP = "lookup"
    RECONCILE = "reconcile"
    RECOVERY = "recovery"
    OPERATOR = "operator"
    KEEPER = "keeper"


class TradingState(StrEnum):
    """What may be sent at all."""

    ACTIVE = "active"
    REDUCING = "reducing"
    """Only what makes positions smaller."""
    HALTED = "halted"
    """Only cancels and reductions; needs an explicit reset."""


class _Record(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    """Base of all records. One with a field that this version does not know is refused, not half-read."""


class Intent(_Record, frozen=True, kw_only=True, tag="intent"):
    """An order is about to be sent. Committed before the send; creates the order."""

    request: OrderRequest
    payload_hash: str
    role: OrderRole
    parent: str
    """What all revisions share: the signal id for entries and exits, the position id for protection."""
    revision: int = 0
    signal_id: str | None = None
    signal_digest: str | None = None
    position_id: str | None = None
    reservation_id: str | None = None
    worst_price: Decimal | None = None
    expected_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    targets: tuple[Target, ...] = ()
    """Exits in parts, in the place of *take_profit*."""
    strength: Decimal | None = None
    timeout_at: datetime | None = None
    """When the order is cancelled if it still rests."""
    reserved: str = ""
    """What the adapter's `reserve` gave: the venue's own number of the order, where it has to be chosen by us."""
    slice_of: str | None = None
    """Parent order that this one is a slice of."""
    list_id: str | None = None
    """List of orders that the venue keeps together, of which this is one."""
    lot_size: Decimal | None = None
    """The market's lot when it was sent: less than that is no position, whoever reads this later. None: not known."""
    part_of: Decimal | None = None
    """Quantity of the whole exit, where the venue takes less in one order. None: this order is all of it."""


class OrderChanged(_Record, frozen=True, kw_only=True, tag="order"):
    """An event of the order's life, other than an execution."""

    client_order_id: str
    event: OrderEvent
    source: Source
    attempt: int | None = None
    """Number of the send, with SUBMIT."""
    venue_order_id: str | None = None
    venue_at: datetime | None = None
    reason: str = ""
    code: str | None = None
    quantity: Decimal | None = None
    """New quantity, with AMEND."""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


class Filled(_Record, frozen=True, kw_only=True, tag="fill"):
    """One execution, or the correction of one (see `Fill.replaces`)."""

    fill: Fill
    source: Source


class SignalResult(_Record, frozen=True, kw_only=True, tag="result"):
    """What the caller of `submit` was told."""

    signal_id: str
    signal_digest: str
    symbol: str
    side: Side
    outcome: Outcome
    denial: Denial | None = None
    reason: str = ""
    client_order_ids: tuple[str, ...] = ()
    requested: Decimal | None = None
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    expected_price: Decimal | None = None
    created_at: datetime | None = None
    alerts: tuple[str, ...] = ()
    verdicts: tuple[tuple[str, str, str], ...] = ()
    """(handler, verdict, reason) in order; durations are measured, so they stay out."""


class SignalQueued(_Record, frozen=True, kw_only=True, tag="queued"):
    """A signal waits for the market to open; *signal* is its full content as JSON."""

    signal_id: str
    signal_digest: str
    symbol: str
    signal: str
    queued: bool = True
    """False takes it out of the queue."""
    role: OrderRole | None = None
    """What it meant when it was queued, and means when it is sent. None: not known."""
    position_id: str | None = None
    """Position that an exit is to close."""


class BalancesSeen(_Record, frozen=True, kw_only=True, tag="balances"):
    """The venue's total holdings, at start or when they differ from ours for an outside reason."""

    totals: dict[str, Decimal]
    source: Source
    reason: str = ""
    transferred: Decimal | None = None
    """What was paid in, or out if negative, in the account's currency: neither profit nor loss. None: nothing was, or
    the account is seen for the first time."""


class ExternalChange(_Record, frozen=True, kw_only=True, tag="external"):
    """A position changed by something that is not ours (manual trade, liquidation, deposit)."""

    symbol: str
    quantity: Decimal
    """Signed difference; zero: what is held turned out to be less than a lot."""
    price: Decimal
    reason: str
    seen_at: datetime | None = None
    """Executions from before were in the venue's position, also those that it had not shown."""
    lot_size: Decimal | None = None
    """The market's lot then; None: not known."""
    restores: bool = False
    """It makes the last change from outside good, so that the position which that one ended goes on as it was."""


class EquityMarked(_Record, frozen=True, kw_only=True, tag="equity"):
    """Equity at one time, for the daily-loss limit."""

    equity: Decimal
    opens_session: bool = False


class TradingStateChanged(_Record, frozen=True, kw_only=True, tag="trading_state"):
    """Trading was restricted or released."""

    state: TradingState
    cause: str
    actor: str


class SymbolBlocked(_Record, frozen=True, kw_only=True, tag="symbol_blocked"):
    """Entries for a symbol are blocked, or released."""

    symbol: str
    blocked: bool
    cause: str


class StopMoved(_Record, frozen=True, kw_only=True, tag="stop_moved"):
    """The protective price levels of a position were set or changed."""

    symbol: str
    position_id: str
    stop_loss: Decimal | None
    take_profit: Decimal | None = None
    reason: str = ""
    limit_exit: bool = False
    """*take_profit* is the limit price of an exit; see `Position.limit_exit`."""


class Alarm(_Record, frozen=True, kw_only=True, tag="alarm"):
    """Something a person has to know."""

    code: str
    text: str
    symbol: str = ""
    client_order_id: str = ""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one function said at one bar close."""

    plan: str
    function: str
    action: str
    confidence: Decimal
    reasoning: str = ""
    skipped: bool = False
    """Nothing was done about it: it was not asked, failed, or its answer could not be followed."""
    failed: bool = False
    """It was asked, and gave no answer that counts."""
    parameters: str = ""
    """Its parameters as JSON, when it was asked."""
    bars: int = 0
    """Bars of history that it could see."""
    duration_us: int = 0
    """Microseconds that it took by the loop's clock, so zero or exact where time is virtual."""
    signal_id: str = ""
    """The signal that was made of it; results and orders have the same."""
    new_stop: Decimal | None = None
    metadata: str = ""
    """What the function added to its answer, as JSON."""


class PositionSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What functions saw of the open position at a close."""

    position_id: str
    quantity: Decimal
    average_price: Decimal
    best_price: Decimal | None = None
    stop_loss: Decimal | None = None


class BarClosed(_Record, frozen=True, kw_only=True, tag="bar"):
    """A bar was final and its functions were asked; makes "fired once" survive a restart.

    With the bars of the same market recorded before it, it holds all that the functions were given.
    """

    symbol: str
    timeframe: str
    close_time: datetime
    open: Decimal | None = None
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal | None = None
    position: PositionSeen | None = None
    account: AccountView | None = None
    decisions: tuple[Decision, ...] = ()
    signals: dict[str, str] = {}
    """What is to be submitted, by signal id, as JSON: owed until it has a result, also across a restart."""


class BarSkipped(_Record, frozen=True, kw_only=True, tag="bar_skipped"):
    """Closes of one market and timeframe, from *first* to *last*, at which nothing was asked, and why."""

    symbol: str
    timeframe: str
    first: datetime
    last: datetime
    reason: str


class PlanChanged(_Record, frozen=True, kw_only=True, tag="plan"):
    """A trade plan changed its status."""

    plan: str
    status: str
    reason: str = ""
    signal_id: str | None = None


class RegistryChanged(_Record, frozen=True, kw_only=True, tag="registry"):
    """A function was registered, replaced, enabled or disabled."""

    name: str
    action: str
    actor: str
    detail: str = ""


class CommandSent(_Record, frozen=True, kw_only=True, tag="command"):
    """A cancel or amend is about to be sent; committed before the send.

    It says all that is asked, because it may be all that is left: in the emergency file, when the journal has failed.
    """

    client_order_id: str
    command: str
    reason: str = ""
    command_hash: str = ""
    quantity: Decimal | None = None
    """New quantity that an amend asks for; None leaves it."""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


class ParentOrder(_Record, frozen=True, kw_only=True, tag="parent"):
    """An order is worked in slices from now on; what it sent and executed is in the records of its children."""

    parent_id: str
    """Its signal id."""
    symbol: str
    side: Side
    quantity: Decimal
    slices: tuple[Slice, ...]
    """When how much is to be sent; empty for an iceberg."""
    signal: str
    """The signal as JSON."""
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    targets: tuple[Target, ...] = ()
    is_reduction: bool = False
    price: Decimal = ZERO
    """Arrival mid, at which the limits count it."""
    worst_price: Decimal = ZERO
    fee_rate: Decimal = ZERO
    """Fraction of the notional that a buy may cost in fees, in quote."""
    position_id: str = ""
    """The position that was open when it began."""


class ParentEnded(_Record, frozen=True, kw_only=True, tag="parent_ended"):
    """No more slices of a parent order are sent."""

    parent_id: str
    reason: str


class OperatorActed(_Record, frozen=True, kw_only=True, tag="operator"):
    """A person told the engine to do something; what came of it follows in records of its own."""

    command: str
    actor: str
    arguments: dict[str, str | bool] = {}


Record = (
    Intent
    | OrderChanged
    | Filled
    | SignalResult
    | SignalQueued
    | BalancesSeen
    | ExternalChange
    | EquityMarked
    | TradingStateChanged
    | SymbolBlocked
    | StopMoved
    | Alarm
    | BarClosed
    | BarSkipped
    | PlanChanged
    | RegistryChanged
    | CommandSent
    | ParentOrder
    | ParentEnded
    | OperatorActed
)


class Entry(msgspec.Struct, frozen=True):
    """One record as it stands in the journal."""

    seq: int
    at: datetime
    record: Record
