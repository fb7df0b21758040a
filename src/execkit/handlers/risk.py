"""Second link of the chain: size the order, hold it to every limit, and reserve what it may spend."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Final

from msgspec.structs import replace

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError, PipelineError
from execkit.handlers.desk import Desk
from execkit.handlers.loss import LossLimit
from execkit.handlers.room import room_for
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.model.position import Target
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket, RiskStamp
from execkit.numbers import MONEY, ZERO, percent
from execkit.orders.parents import hold_of
from execkit.orders.proofs import deny_slice
from execkit.pipeline import Next
from execkit.protection.policy import mean_target, targets_for
from execkit.risk.checks import (
    check_order,
    check_position_count,
    check_quote,
    check_risk_reward,
    check_stop_distance,
    check_stop_loss,
    check_take_profit,
    expected_price,
    worst_price,
)
from execkit.risk.day_trades import check_day_trades
from execkit.risk.limits import RiskLimits
from execkit.risk.scaling import check_scale_in
from execkit.risk.sizing import PercentOfEquity, Room, Sizing, SizingFunction, SizingInputs, fit
from execkit.risk.stops import FixedStop, StopRule, computed_stop, on_ticks

_BUY: Final = Side.BUY
_NO_BARS: Final = BarHistory()
_TOO_SMALL: Final = (DenialCode.QUANTITY_TOO_SMALL, DenialCode.NOTIONAL_TOO_SMALL)


class RiskManagementHandler:
    """Approve entries within *limits*, sized by *sizing* where the signal states no quantity.

    *stop* says where a stop-loss goes that the signal does not state; one farther than the limit is clamped.
    A stated quantity is approved or denied, never changed. Limits count positions, everything under way and
    orders of others; the check and the reservation are one step, so signals that come together cannot pass a
    limit together. Money is compared at the arrival mid, inclusively. Reductions pass; they are cut to the
    position. *price_collar_pct* is how much worse than the quote a market order may execute in the worst case.

    Raises `ConfigurationError` naming the option for a value out of range.
    """

    place: ClassVar = "before"
    deadline: ClassVar = None
    stamps_risk: ClassVar = True

    def __init__(
        self,
        limits: RiskLimits | None = None,
        *,
        sizing: Sizing | SizingFunction | None = None,
        stop: StopRule | None = None,
        price_collar_pct: Decimal | int = Decimal(5),
    ) -> None:
        self.limits = limits = RiskLimits() if limits is None else limits
        if not isinstance(limits, RiskLimits):
            raise ConfigurationError(f"limits: {limits!r} is not a RiskLimits")
        self.sizing = PercentOfEquity(limits.size_pct) if sizing is None else sizing
        if isinstance(self.sizing, Sizing) and not isinstance(self.sizing, type):
            self._size: SizingFunction = self.sizing.quantity
        elif callable(self.sizing) and not isinstance(self.sizing, type):
            self._size = self.sizing
        else:
            raise ConfigurationError(
                f"sizing: {sizing!r} is neither a sizing method, e.g. FixedNotional(Decimal(500)), nor a function"
            )
        self.price_collar_pct = percent("price_collar_pct", price_collar_pct)
        # A stop of ours is clamped, and a target of ours never fails our own ratio.
        self._farthest = FixedStop(limits.max_stop_distance_pct)
        self.stop: StopRule = FixedStop(limits.default_stop_pct) if stop is None else stop
        if not isinstance(self.stop, StopRule) or isinstance(self.stop, type):
            raise ConfigurationError(f"stop: {stop!r} is no stop rule, e.g. AtrStop()")
        self._target_r = max(limits.default_target_r, limits.min_risk_reward_ratio)
        self._desk: Desk | None = None
        self._loss = LossLimit(limits)

    def bind(self, desk: Desk) -> None:
        """Take the engine's services."""
        self._desk = desk
        self._loss = LossLimit(self.limits)

    @property
    def loss(self) -> LossLimit:
        """The day's loss limit of this chain."""
        return self._loss

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass an approved and reserved ticket on, or deny it."""
        desk = self._desk
        if desk is None:
            raise PipelineError("RiskManagementHandler is not bound to an engine")
        if ticket.is_reduction:
            fitted = self._fit_reduction(ticket, desk)
            if isinstance(fitted, Denial):
                return ticket.deny_with(fitted)
            return await call_next(fitted)
        if ticket.signal.slice_of is None:
            approved = self._approve(ticket, desk)
        else:
            approved = self._approve_slice(ticket, desk, ticket.signal.slice_of)
        if isinstance(approved, Denial):
            return ticket.deny_with(approved)
        try:
            return await call_next(approved)
        finally:
            desk.ledger.release(ticket.signal_id)

    # -- reductions ------------------------------------------------------------------------------------

    def _fit_reduction(self, ticket: OrderTicket, desk: Desk) -> OrderTicket | Denial:
        """Cut a reduction to the position: it may close it, never flip it."""
        symbol = ticket.symbol
        held = desk.book.positions.quantity(symbol)
        if held == ZERO or (held > ZERO) is (ticket.side is _BUY):
            return Denial.of(
                DenialCode.NO_POSITION_TO_REDUCE, symbol=symbol, side=ticket.side, position=held
            )
        whole = abs(held)
        quantity = whole if ticket.quantity is None else min(ticket.quantity, whole)
        floored = ticket.instrument.round_quantity(quantity)
        if floored <= ZERO:
            return Denial.of(
                DenialCode.QUANTITY_TOO_SMALL, quantity=quantity, limit=ticket.instrument.lot_size
            )
        if floored == ticket.quantity:
            return ticket
        changed = ticket.evolve(quantity=floored)
        denial = self._check_order(changed, desk)
        return changed if denial is None else denial

    def _check_order(self, ticket: OrderTicket, desk: Desk) -> Denial | None:
        reduces = ticket.is_reduction
        return check_order(
            ticket,
            ticket.instrument,
            None if reduces else ticket.quote,
            desk.adapter.capabilities,
            collar_pct=self.price_collar_pct,
            is_reduction=reduces,
        )

    # -- entries ---------------------------------------------------------------------------------------

    def _approve(self, ticket: OrderTicket, desk: Desk) -> OrderTicket | Denial:
        """Check everything and reserve, without waiting in between."""
        instrument, currency = ticket.instrument, ticket.account.currency
        strength = ticket.signal.strength
        if strength < self.limits.min_signal_strength:
            return Denial.of(
                DenialCode.SIGNAL_TOO_WEAK,
                strength=strength,
                limit=self.limits.min_signal_strength,
            )
        if instrument.quote != currency:
            return Denial.of(DenialCode.CURRENCY_MISMATCH, quote=instrument.quote, account=currency)
        denial = (
            check_quote(ticket.quote)
            or self._check_order(ticket, desk)
            or self._loss.check(desk, ticket.account.equity)
            or self.check_symbol(
                desk, ticket.symbol, ticket.side, ticket.quote.mid, besides=ticket.signal_id
            )
            or self.check_days(desk, ticket.symbol, ticket.account.equity)
        )
        if denial is not None:
            return denial
        mid = ticket.quote.mid
        price = expected_price(ticket, mid)
        stop_loss, take_profit, note = self._levels(ticket, price, desk)
        targets: tuple[Target, ...] = ()
        if ticket.take_profit is None:
            targets = targets_for(desk.policy, ticket.side, price, stop_loss, instrument)
        if targets:
            take_profit = targets[-1].price
        reward = mean_target(targets) if targets else take_profit
        limits = self.limits
        denial = (
            check_stop_loss(ticket.side, price, stop_loss)
            or check_stop_distance(price, stop_loss, limits.max_stop_distance_pct)
            or check_take_profit(ticket.side, price, take_profit)
            or check_risk_reward(price, stop_loss, reward, limits.min_risk_reward_ratio)
        )
        if denial is not None:
            return denial
        room = room_for(ticket, desk, mid, self.limits)
        quantity, cause = ticket.quantity, ""
        if quantity is None:
            quantity, cause = self._sized(ticket, room, price, abs(price - stop_loss), desk)
        worst = worst_price(ticket, ticket.quote, self.price_collar_pct)
        stamp = RiskStamp(ticket.signal_id, ticket.symbol, ticket.side, quantity, worst)
        notes = ticket.notes
        if note:
            notes = (*notes, note)
        if cause:
            notes = (*notes, f"size capped by {cause}")
        approved = replace(
            ticket,
            quantity=quantity,
            stop_loss=stop_loss,
            take_profit=take_profit,
            targets=targets,
            stamp=stamp,
            notes=notes,
        )
        denial = (
            self._check_sized(approved, quantity, room, desk)
            if ticket.quantity is None
            else room.check(quantity)
        )
        if denial is not None:
            return denial
        desk.ledger.reserve(
            stamp.reservation_id,
            stamp.symbol,
            stamp.side,
            quantity,
            worst,
            price=mid,
            fee_rate=instrument.fee_in_quote,
        )
        return approved

    def _approve_slice(self, ticket: OrderTicket, desk: Desk, parent: str) -> OrderTicket | Denial:
        """Let a slice draw on what was approved and reserved for its parent."""
        denial = (
            deny_slice(ticket, desk.book, "")
            or check_quote(ticket.quote)
            or self._check_order(ticket, desk)
            or self._loss.check(desk, ticket.account.equity)
        )
        if denial is not None or ticket.quantity is None:
            return denial or Denial.of(DenialCode.NUMBER_INVALID, quantity=None)
        worst = worst_price(ticket, ticket.quote, self.price_collar_pct)
        stamp = RiskStamp(hold_of(parent), ticket.symbol, ticket.side, ticket.quantity, worst)
        record = desk.book.parents.get(parent)
        targets = () if record is None else record.record.targets
        return replace(ticket, stamp=stamp, targets=targets)

    def check_symbol(
        self, desk: Desk, symbol: str, side: Side, mid: Decimal, *, besides: str = ""
    ) -> Denial | None:
        """Return why these limits let no entry in *symbol* be sent now, whatever its size, or None.

        *besides* is the signal that asks: its own reservation is none in its way.
        """
        limits, book = self.limits, desk.book
        position = book.positions.open.get(symbol)
        if position is not None:
            executions = book.positions.executions(symbol)
            denial = check_scale_in(position, executions, side, mid, limits)
            if denial is not None:
                return denial
        elif side is not _BUY and not limits.allow_short:
            return Denial.of(DenialCode.SHORT_NOT_ALLOWED, symbol=symbol, allow_short=False)
        if side is not _BUY and not desk.adapter.capabilities.short_selling:
            return Denial.of(
                DenialCode.SHORT_NOT_ALLOWED, symbol=symbol, venue=f"{desk.adapter.name} cannot"
            )
        ledger = desk.ledger
        if ledger.is_pending(symbol, besides=besides):
            # Validation saw no order yet: the other signal is still on its way through the chain.
            return Denial.of(
                DenialCode.PENDING_ORDER_EXISTS,
                symbol=symbol,
                reserved=ledger.reserved_notional_of(symbol),
            )
        count = len(book.positions.open.keys() | ledger.pending_symbols | {symbol})
        return check_position_count(count, limits.max_concurrent_positions)

    def check_days(self, desk: Desk, symbol: str, equity: Decimal) -> Denial | None:
        """Return why the limit of day trades lets no entry in *symbol* be sent now, or None."""
        pending = desk.ledger.pending_symbols | {symbol}
        return check_day_trades(desk.book.positions, pending, desk.clock.now(), equity, self.limits)

    def _levels(
        self, ticket: OrderTicket, price: Decimal, desk: Desk
    ) -> tuple[Decimal, Decimal, str]:
        """Return stop-loss and take-profit on ticks, and a remark where ours is not what was asked for."""
        stop_loss, note = ticket.stop_loss, ""
        if stop_loss is None:
            bars = self._bars(self.stop, ticket.symbol, desk)
            stop_loss, note = computed_stop(self.stop, self._farthest, ticket.side, price, bars)
        take_profit = ticket.take_profit
        if take_profit is None:
            # From the stop on its tick, so that the ratio holds for what is sent.
            stop_loss, _ = on_ticks(ticket.side, ticket.instrument, stop_loss, price)
            reward = MONEY.multiply(abs(price - stop_loss), self._target_r)
            take_profit = price + reward if ticket.side is _BUY else price - reward
        stop_loss, take_profit = on_ticks(ticket.side, ticket.instrument, stop_loss, take_profit)
        return stop_loss, take_profit, note

    @staticmethod
    def _bars(method: object, symbol: str, desk: Desk) -> BarHistory:
        timeframe = getattr(method, "timeframe", None)
        if timeframe is None:
            return _NO_BARS
        return desk.bars.history(symbol, timeframe)

    def _sized(
        self,
        ticket: OrderTicket,
        room: Room,
        price: Decimal,
        stop_distance: Decimal,
        desk: Desk,
    ) -> tuple[Decimal, str]:
        """Return what the sizing method wants, cut down and rounded down, and what cut it."""
        wanted = self._size(
            SizingInputs(
                symbol=ticket.symbol,
                side=ticket.side,
                equity=ticket.account.equity,
                price=price,
                stop_distance=stop_distance,
                strength=ticket.signal.strength,
                bars=self._bars(self.sizing, ticket.symbol, desk),
            )
        )
        if not isinstance(wanted, Decimal) or not wanted.is_finite():
            raise ConfigurationError(f"sizing: {wanted!r} is not a finite Decimal")
        return fit(
            wanted,
            room,
            ticket.instrument,
            order_type=ticket.type,
            reference_price=ticket.reference_price,
        )

    def _check_sized(
        self, ticket: OrderTicket, quantity: Decimal, room: Room, desk: Desk
    ) -> Denial | None:
        """Check the order as sized; where too little is left, name the limit that left it."""
        denial = self._check_order(ticket, desk) if quantity > ZERO else None
        if quantity > ZERO and (denial is None or denial.code not in _TOO_SMALL):
            return denial
        least = ticket.instrument.smallest_quantity(ticket.reference_price)
        return (
            room.check(least)
            or denial
            or Denial.of(DenialCode.QUANTITY_TOO_SMALL, quantity=quantity, limit=least)
        )
