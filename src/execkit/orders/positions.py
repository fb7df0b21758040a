"""Positions: what the fills of a symbol add up to, by the average-cost method.

A fill changes the position by its quantity less a fee taken in the base asset, so the position is what is owned.
Realised P&L of a closing quantity is (price - average entry) x quantity, and every fee in base (valued at the fill
price) or quote is taken off. The end state does not depend on the order in which fills become known: a fill older
than the last one is sorted in by (venue time, trade id), and the recent window is added up again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import Fill, Side
from execkit.model.position import Dust, Position, PositionState
from execkit.model.records import StopMoved
from execkit.numbers import MONEY, ZERO
from execkit.orders.day_trades import DayTrades
from execkit.orders.executions import (
    Execution,
    Key,
    Origin,
    add_to,
    is_undone_by,
    key_of,
    net_effect,
    opposite,
    outside_fill,
    take_back,
)
from execkit.orders.levels import Levels, Placed, levels_from_now, levels_of, move_levels
from execkit.orders.lives import Life
from execkit.orders.position_state import PositionExport, count_day_trades, place_levels

WINDOW: Final = 200
"""Fills per symbol that can still be re-sorted or corrected."""

KEEP_IDS: Final = 2000
"""Trade ids per symbol that are recognised when they come again."""

KEEP_CLOSED: Final = 1000
"""Closed positions kept in memory; the store has all."""


_NOTHING: Final = Life()


def _key(execution: Execution) -> Key:
    return execution.key


def _end(position: Position) -> tuple[datetime, str, int]:
    assert position.closed_at is not None, "only closed positions are kept"
    return (position.closed_at, position.symbol, _number(position.position_id))


class PositionBook:
    """All positions by symbol."""

    def __init__(self) -> None:
        self.open: dict[str, Position] = {}
        """Open positions by symbol."""
        self.closed: list[Position] = []
        """Closed positions, oldest first, the last 1000."""
        self.dust: dict[str, Dust] = {}
        """What is held and is less than a lot, by symbol."""
        self._lives: dict[str, Life] = {}
        self._settled: dict[str, Life] = {}
        self._window: dict[str, list[Execution]] = {}
        self._seen: dict[str, dict[str, None]] = {}
        self._levels: dict[str, list[Placed]] = {}
        self._day_trades: dict[str, DayTrades] = {}
        """Counts up to where the window begins."""

    def apply(self, fill: Fill, origin: Origin, replaced: Fill | None = None) -> bool:
        """Add a fill, or put a corrected one in the place of another; return whether an outside change was this fill.

        *replaced* is the other one, where it is known: should it be too old to be taken out of the sums again, its
        opposite is added to them. What was taken over from outside while the venue hid this fill is taken back.
        """
        symbol = fill.symbol
        window = self._window.setdefault(symbol, [])
        self._remember(symbol, fill)
        new = Execution(fill, origin)
        is_known = fill.replaces is None and take_back(window, fill)
        in_order = not is_known and (not window or new.key >= window[-1].key)
        if fill.replaces is not None:
            name = (fill.replaces, fill.side)
            gone = [e for e in window if (e.fill.trade_id, e.fill.side) == name]
            kept = [e for e in window if e not in gone]
            if replaced is not None and not gone:
                bisect.insort(kept, Execution(opposite(replaced, fill.at), origin), key=_key)
            for each in gone:
                move_levels(self._levels.get(symbol, []), each.key, new.key)
            window[:] = kept
            in_order = False
        if fill.quantity or fill.replaces is None:
            if in_order:
                window.append(new)
            else:
                bisect.insort(window, new, key=_key)
        if in_order:
            self._step(symbol, self._lives.setdefault(symbol, Life()), new)
        else:
            self._again(symbol)
        while len(window) > WINDOW:
            self._settle(symbol, window.pop(0))
        self._show(symbol)
        return is_known

    def _remember(self, symbol: str, fill: Fill) -> None:
        """Keep the trade id, and the one it replaces: a late repetition of that one is no news either."""
        seen = self._seen.setdefault(symbol, {})
        for trade_id in filter(None, (fill.trade_id, fill.replaces)):
            seen[_seen_as(trade_id, fill.side)] = None
        while len(seen) > KEEP_IDS:
            del seen[next(iter(seen))]

    def adjust(
        self,
        symbol: str,
        quantity: Decimal,
        price: Decimal,
        at: datetime,
        seen_at: datetime | None = None,
        *,
        lot_size: Decimal = ZERO,
        restores: bool = False,
    ) -> None:
        """Take over a change that came from outside, as if it had been a fill without a fee at *seen_at*.

        Without that time no fill explains it later; an older journal's account went on with both. One that *restores*
        takes the last one back, so that the position which that one ended goes on as it was.
        """
        if restores and is_undone_by(self.last_execution(symbol), quantity):
            del self._window[symbol][-1]
            self._again(symbol)
            self._show(symbol)
        else:
            fill = outside_fill(symbol, quantity, price, at, seen_at)
            self.apply(fill, Origin(lot_size=lot_size))

    def set_levels(self, record: StopMoved, at: datetime) -> None:
        """Set the protective prices of a position, unless it has ended; what is changed by that holds from *at* on."""
        symbol, before = record.symbol, self.open.get(record.symbol)
        # A larger number is of before a late fill that made two positions one: that is this one.
        if before is None or _number(record.position_id) < _number(before.position_id):
            return
        levels = self._levels_from_now(symbol, self._lives[symbol])
        levels.stop_loss = record.stop_loss
        # A limit stays one for as long as nobody sets another target.
        is_kept = levels.is_limit and record.take_profit == levels.take_profit
        levels.take_profit = record.take_profit
        levels.is_limit = record.limit_exit or is_kept
        self._show(symbol)
        after = self.open[symbol]
        if after.stop_loss != before.stop_loss:
            levels.earlier_stop, levels.earlier_stop_since = before.stop_loss, before.stop_since
            levels.stop_since = at
        if (after.take_profit, after.targets) != (before.take_profit, before.targets):
            levels.target_since = at
        self._show(symbol)

    def see_bar(self, symbol: str, high: Decimal, low: Decimal) -> None:
        """Remember the most favourable price that an open position has seen."""
        position = self.open.get(symbol)
        if position is None:
            return
        extreme = high if position.is_long else low
        best = position.best_price
        if best is None or (extreme > best if position.is_long else extreme < best):
            self._levels_from_now(symbol, self._lives[symbol]).best_price = extreme
            self._show(symbol)

    def _levels_from_now(self, symbol: str, life: Life) -> Levels:
        rows = self._levels.setdefault(symbol, [])
        return levels_from_now(rows, life.begins, self._window[symbol])

    def quantity(self, symbol: str) -> Decimal:
        """Return the signed quantity that is held, with what is less than a lot; zero when there is nothing."""
        life = self._lives.get(symbol)
        return ZERO if life is None else life.quantity

    def quantities(self) -> dict[str, Decimal]:
        """Return what is held of every symbol, with what is less than a lot: what the venue holds too."""
        return {symbol: life.quantity for symbol, life in self._lives.items() if life.quantity}

    def without_lot(self) -> list[str]:
        """Return the symbols of open positions whose lot nothing has told."""
        return [symbol for symbol in self.open if not self._lives[symbol].lot_size]

    def average_price(self, symbol: str) -> Decimal | None:
        """Return what a unit of what is held has cost; None when there is nothing."""
        life = self._lives.get(symbol)
        return life.average if life is not None and life.quantity else None

    def knows(self, symbol: str, trade_id: str, side: Side) -> bool:
        """Tell whether a trade is among the recent fills of a symbol, or was replaced by one of them.

        The two sides of a trade with oneself share its id.
        """
        seen = self._seen.get(symbol, {})
        return _seen_as(trade_id, side) in seen or trade_id in seen

    def executions(self, symbol: str) -> Iterator[Execution]:
        """Return the recent fills of a symbol, in order."""
        return iter(self._window.get(symbol, ()))

    def last_execution(self, symbol: str) -> Execution | None:
        """Return the last of the recent fills of a symbol."""
        return next(reversed(self._window.get(symbol, ())), None)

    @property
    def traded(self) -> Iterable[str]:
        """Symbols with executions."""
        return self._window.keys()

    def day_trades(self, symbol: str) -> DayTrades:
        """Return the day trades of a symbol."""
        base = self._day_trades.get(symbol)
        counted = DayTrades() if base is None else base.copy()
        for execution in self._window.get(symbol, ()):
            add_to(counted, execution)
        return counted

    def _step(self, symbol: str, life: Life, execution: Execution) -> None:
        """Add one execution to the running sums, closing and opening positions as lot and sign demand."""
        fill = execution.fill
        change, cost = net_effect(fill)
        life.lot_size = execution.origin.lot_size or life.lot_size
        if life.is_open and life.is_below_a_lot:
            self._close(symbol, life, fill)  # the lot has become larger, or known
        held = life.quantity
        if not held or (held > ZERO) == (change > ZERO):
            life.grow(execution, change, cost, fill.fee)
        elif abs(change) <= abs(held):
            self._reduce(symbol, life, change, cost, fill, fill.fee)
        else:
            # Through zero: one part closes, the rest opens; cost and fee are shared by quantity.
            part = -held / change
            cost_of_part, fee_of_part = cost * part, fill.fee * part
            self._reduce(symbol, life, -held, cost_of_part, fill, fee_of_part)
            rest = MONEY.subtract(cost, cost_of_part)
            fee_of_rest = MONEY.subtract(fill.fee, fee_of_part)
            life.grow(execution, MONEY.add(change, held), rest, fee_of_rest)

    def _reduce(
        self,
        symbol: str,
        life: Life,
        change: Decimal,
        cost: Decimal,
        fill: Fill,
        fee: Decimal,
    ) -> None:
        was_open = life.is_open
        life.reduce(fill, change, cost, fee)
        if was_open and (not life.quantity or life.is_below_a_lot):
            self._close(symbol, life, fill)

    def _close(self, symbol: str, life: Life, fill: Fill) -> None:
        """End a position; its dust begins with sums of its own."""
        # The settled sums repeat what was shown already.
        if life is self._lives.get(symbol):
            self._keep_closed(self._view(symbol, life, ends=key_of(fill)), fill.at)
        life.leave_dust()

    def _keep_closed(self, position: Position, at: datetime) -> None:
        ended = msgspec.structs.replace(
            position,
            state=PositionState.CLOSED,
            closed_at=at,
            best_price=None,
            quantity=ZERO,
            dust=position.quantity,
        )
        # By the venue's time, so that the order in which fills became known leaves no trace.
        bisect.insort(self.closed, ended, key=_end)
        if len(self.closed) > KEEP_CLOSED:
            del self.closed[0]

    def _settle(self, symbol: str, execution: Execution) -> None:
        """Move the base from which a re-sort starts one execution on."""
        self._step(symbol, self._settled.setdefault(symbol, Life()), execution)
        add_to(self._day_trades.setdefault(symbol, DayTrades()), execution)

    def _again(self, symbol: str) -> None:
        """Add the window up again from the settled base."""
        base = self._settled.get(symbol)
        life = Life() if base is None else msgspec.structs.replace(base)
        ended = life.number - 1 if life.is_open else life.number
        self.closed = [
            p for p in self.closed if p.symbol != symbol or _number(p.position_id) <= ended
        ]
        self._lives[symbol] = life
        for execution in self._window[symbol]:
            self._step(symbol, life, execution)

    def _show(self, symbol: str) -> None:
        life = self._lives.get(symbol, _NOTHING)
        if life.is_open:
            self.open[symbol] = self._view(symbol, life)
        else:
            self.open.pop(symbol, None)
        if life.is_dust:
            self.dust[symbol] = life.dust(symbol)
        else:
            self.dust.pop(symbol, None)

    def _view(self, symbol: str, life: Life, *, ends: Key | None = None) -> Position:
        levels = levels_of(self._levels.get(symbol, []), life.begins, ends)
        assert life.opened_at is not None, "shown only after it was opened"
        return Position(
            position_id=f"{symbol}#{life.number}",
            symbol=symbol,
            quantity=life.quantity,
            average_price=life.average,
            realised_pnl=life.realised,
            fees=life.fees,
            opened_at=life.opened_at,
            signal_id=life.origin.signal_id,
            strength=life.origin.strength,
            peak_quantity=life.peak,
            stop_loss=_first(levels.stop_loss, life.origin.stop_loss),
            take_profit=_first(levels.take_profit, life.origin.take_profit),
            # Another target that was set since, e.g. by a limit exit, is for all that is left.
            targets=(
                life.origin.targets
                if levels.take_profit in (None, life.origin.take_profit) and not levels.is_limit
                else ()
            ),
            initial_stop=life.origin.stop_loss,
            best_price=levels.best_price,
            stop_since=levels.stop_since,
            target_since=levels.target_since,
            earlier_stop=levels.earlier_stop,
            earlier_stop_since=levels.earlier_stop_since,
            limit_exit=levels.is_limit,
        )

    def export(self) -> PositionExport:
        """Return everything as plain values, for a snapshot."""
        return PositionExport(
            self._lives,
            self._settled,
            self._window,
            {symbol: list(ids) for symbol, ids in self._seen.items()},
            {},
            self.closed,
            self._day_trades,
            {symbol: rows for symbol, rows in self._levels.items() if rows},
        )

    def restore(self, data: PositionExport) -> None:
        """Take over what `export` gave."""
        self._lives = data.lives
        self._settled = data.settled
        self._window = data.window
        self._seen = {symbol: dict.fromkeys(ids) for symbol, ids in data.seen.items()}
        count_day_trades(data)
        place_levels(data)
        self._levels = data.levels_by_symbol
        self.closed = data.closed
        self._day_trades = data.day_trades
        for symbol in self._lives:
            self._show(symbol)


def _seen_as(trade_id: str, side: Side) -> str:
    """Return how a trade is remembered; an older version left the side out."""
    return f"{side.value} {trade_id}"


def _first(*values: Decimal | None) -> Decimal | None:
    return next((value for value in values if value is not None), None)


def _number(position_id: str) -> int:
    number = position_id.rpartition("#")[2]
    return int(number) if number.isdecimal() else 0
