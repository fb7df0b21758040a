"""First link of the chain: is what the signal states legal, fresh and meant for this venue?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar, Final

from execkit.clock import Clock
from execkit.errors import ConfigurationError, PipelineError
from execkit.handlers.desk import Desk
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.model.records import TradingState
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.numbers import HUNDRED, MONEY, ZERO, non_negative, percent
from execkit.orders.book import Book
from execkit.orders.parents import hold_of
from execkit.pipeline import Next
from execkit.risk.checks import (
    check_age,
    check_buying_power,
    check_collar,
    check_order,
    check_quote,
    check_stop_loss,
    check_take_profit,
    expected_price,
    unit_cost,
)

_ACTIVE: Final = TradingState.ACTIVE
_BUY: Final = Side.BUY


class ValidationHandler:
    """Deny what cannot or should not become an order as it is stated; the first failing rule wins.

    *min_signal_strength* is 0-100; *min_confluence_score* is skipped, with a remark in the trace, for a signal
    without a score. *valid_exchanges* names the venues that may be traded (None: any). A quote older than
    *max_quote_age* judges nothing, and prices may be *price_collar_pct* percent away from its mid. With *max_move_pct*
    nothing is entered while the mid has moved farther than that within *move_window*.

    Reductions pass strength, confluence, halts, blocks, quotes and collar; their numbers must be legal.
    Raises `ConfigurationError` naming the option for a value out of range.
    """

    place: ClassVar = "before"
    deadline: ClassVar = None

    def __init__(
        self,
        *,
        min_signal_strength: Decimal | int = 0,
        min_confluence_score: Decimal | int = Decimal("3.0"),
        valid_exchanges: Iterable[str] | None = None,
        max_quote_age: timedelta = timedelta(seconds=5),
        price_collar_pct: Decimal | int = Decimal(5),
        max_move_pct: Decimal | int | None = None,
        move_window: timedelta = timedelta(seconds=60),
    ) -> None:
        self.min_signal_strength = non_negative("min_signal_strength", min_signal_strength)
        if self.min_signal_strength > HUNDRED:
            raise ConfigurationError(
                f"min_signal_strength: {min_signal_strength} is outside 0 to 100"
            )
        self.min_confluence_score = non_negative("min_confluence_score", min_confluence_score)
        if isinstance(valid_exchanges, str):
            raise ConfigurationError(
                f"valid_exchanges: {valid_exchanges!r} is one name; pass a list of names"
            )
        self.valid_exchanges = None if valid_exchanges is None else frozenset(valid_exchanges)
        if not isinstance(max_quote_age, timedelta) or max_quote_age <= timedelta(0):
            raise ConfigurationError(
                f"max_quote_age: {max_quote_age!r} must be a timedelta above zero"
            )
        self.max_quote_age = max_quote_age
        self.price_collar_pct = percent("price_collar_pct", price_collar_pct)
        self.max_move_pct = None if max_move_pct is None else percent("max_move_pct", max_move_pct)
        if not timedelta(0) < move_window <= timedelta(minutes=10):
            raise ConfigurationError(
                f"move_window: {move_window!r} must be above zero and at most ten minutes"
            )
        self.move_window = move_window
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services."""
        self._desk = desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass the ticket on, or deny it."""
        desk = self._desk
        if desk is None:
            raise PipelineError("ValidationHandler is not bound to an engine")
        if ticket.is_reduction:
            denial = self._check_terms(ticket, desk, is_reduction=True)
        else:
            denial = self._check_entry(ticket, desk)
        if denial is not None:
            return ticket.deny_with(denial)
        if (
            ticket.signal.confluence is None
            and self.min_confluence_score
            and not ticket.is_reduction
        ):
            ticket = ticket.note("no confluence score, check skipped")
        return await call_next(ticket)

    def recheck(self, ticket: OrderTicket, desk: Desk) -> Denial | None:
        """Return why an entry that passed and then waited would not pass now, or None; of what can have changed."""
        return (
            self._check_state(ticket, desk.book)
            or self._check_quote(ticket, desk.clock)
            or self.check_move(ticket.symbol, desk)
            or self._check_terms(ticket, desk, is_reduction=False)
            or check_collar("moved_to", ticket.quote.mid, ticket.arrival_mid, self.price_collar_pct)
        )

    def _check_entry(self, ticket: OrderTicket, desk: Desk) -> Denial | None:
        return (
            self._check_state(ticket, desk.book)
            or self._check_signal(ticket)
            or self._check_quote(ticket, desk.clock)
            or self.check_move(ticket.symbol, desk)
            or self._check_terms(ticket, desk, is_reduction=False)
            or self._check_levels(ticket)
            or self._check_pending(ticket, desk.book)
            or self._check_cash(ticket, desk)
        )

    @staticmethod
    def _check_state(ticket: OrderTicket, book: Book) -> Denial | None:
        state = book.trading_state
        if state is not _ACTIVE:
            code = (
                DenialCode.TRADING_HALTED
                if state is TradingState.HALTED
                else DenialCode.TRADING_REDUCING
            )
            cause = "" if book.state_record is None else book.state_record.cause
            return Denial.of(code, state=state, cause=cause)
        if ticket.symbol in book.blocked:
            cause = book.blocked[ticket.symbol]
            return Denial.of(DenialCode.SYMBOL_BLOCKED, symbol=ticket.symbol, cause=cause)
        return None

    def _check_signal(self, ticket: OrderTicket) -> Denial | None:
        signal = ticket.signal
        if signal.strength < self.min_signal_strength:
            return Denial.of(
                DenialCode.SIGNAL_TOO_WEAK,
                strength=signal.strength,
                limit=self.min_signal_strength,
            )
        if signal.confluence is not None and signal.confluence < self.min_confluence_score:
            return Denial.of(
                DenialCode.CONFLUENCE_TOO_LOW,
                confluence=signal.confluence,
                limit=self.min_confluence_score,
            )
        if not ticket.instrument.tradeable:
            return Denial.of(DenialCode.SYMBOL_NOT_TRADEABLE, symbol=ticket.symbol)
        return None

    def _check_quote(self, ticket: OrderTicket, clock: Clock) -> Denial | None:
        quote = ticket.quote
        if quote.symbol != ticket.symbol:
            return Denial.of(DenialCode.SYMBOL_UNKNOWN, symbol=ticket.symbol, quote=quote.symbol)
        # A quote from the future has no known age either: one of the two clocks is wrong.
        if abs(clock.now() - quote.at) > self.max_quote_age:
            return Denial.of(
                DenialCode.QUOTE_STALE,
                age_seconds=(clock.now() - quote.at).total_seconds(),
                limit_seconds=self.max_quote_age.total_seconds(),
            )
        return check_quote(quote)

    def check_move(self, symbol: str, desk: Desk) -> Denial | None:
        """Refuse to enter while the mid has moved farther than is allowed within the window."""
        if self.max_move_pct is None:
            return None
        moved = desk.quotes.moved_pct(symbol, self.move_window)
        if moved <= self.max_move_pct:
            return None
        return Denial.of(
            DenialCode.PRICE_MOVED,
            moved_pct=round(moved, 4),
            limit_pct=self.max_move_pct,
            within_seconds=self.move_window.total_seconds(),
        )

    def _check_terms(self, ticket: OrderTicket, desk: Desk, *, is_reduction: bool) -> Denial | None:
        """Check what holds for reductions too: age, venue, symbol, and the order's own numbers."""
        signal, name = ticket.signal, desk.adapter.name
        stale = check_age(ticket, desk.clock.now())
        if stale is not None:
            return stale
        if signal.exchange is not None and signal.exchange != name:
            return Denial.of(DenialCode.EXCHANGE_NOT_VALID, exchange=signal.exchange, here=name)
        if self.valid_exchanges is not None and name not in self.valid_exchanges:
            return Denial.of(
                DenialCode.EXCHANGE_NOT_VALID,
                exchange=name,
                valid=" ".join(sorted(self.valid_exchanges)),
            )
        if signal.symbol != ticket.symbol:
            return Denial.of(
                DenialCode.SYMBOL_UNKNOWN, symbol=signal.symbol, instrument=ticket.symbol
            )
        return check_order(
            ticket,
            ticket.instrument,
            None if is_reduction else ticket.quote,
            desk.adapter.capabilities,
            collar_pct=self.price_collar_pct,
            is_reduction=is_reduction,
        )

    @staticmethod
    def _check_levels(ticket: OrderTicket) -> Denial | None:
        if ticket.stop_loss is None and ticket.take_profit is None:
            return None
        price = expected_price(ticket, ticket.quote.mid)
        denial = None
        if ticket.stop_loss is not None:
            denial = check_stop_loss(ticket.side, price, ticket.stop_loss)
        if denial is None and ticket.take_profit is not None:
            denial = check_take_profit(ticket.side, price, ticket.take_profit)
        return denial

    @staticmethod
    def _check_pending(ticket: OrderTicket, book: Book) -> Denial | None:
        for order in book.orders.open_entries(ticket.symbol):
            sibling = order.intent.slice_of
            if order.parent != ticket.signal_id and (
                sibling is None or sibling != ticket.signal.slice_of
            ):
                return Denial.of(
                    DenialCode.PENDING_ORDER_EXISTS,
                    symbol=ticket.symbol,
                    order=order.client_order_id,
                    state=order.state,
                )
        return None

    @staticmethod
    def _check_cash(ticket: OrderTicket, desk: Desk) -> Denial | None:
        if ticket.quantity is None or ticket.side is not _BUY:
            return None
        instrument = ticket.instrument
        cost = MONEY.multiply(ticket.quantity, unit_cost(ticket.reference_price, instrument))
        cash = desk.book.cash.get(instrument.quote, ZERO)
        parent = ticket.signal.slice_of
        _, own = desk.ledger.claimed(ticket.signal_id if parent is None else hold_of(parent))
        return check_buying_power(cost, cash - desk.ledger.reserved_cash + own)
