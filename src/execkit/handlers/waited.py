"""What has waited is judged once more: for a person, for its turn or for the venue, while the price moved on."""

from __future__ import annotations

from execkit.handlers.desk import Desk
from execkit.handlers.validation import ValidationHandler
from execkit.model.denial import Denial, DenialCode
from execkit.model.market import Quote
from execkit.model.order import Side
from execkit.model.ticket import OrderTicket
from execkit.orders.waiting import Judge
from execkit.risk.checks import (
    check_age,
    check_quote,
    check_stop_loss,
    check_take_profit,
    expected_price,
)


async def after_wait(ticket: OrderTicket, desk: Desk | None) -> OrderTicket | Denial:
    """Return an entry with a quote of now, or why it may not go on at that price.

    Slippage is still measured against the mid at arrival, so that it shows what the wait has cost. A handler that
    stands alone, without *desk*, has no quote to judge by.
    """
    if desk is None or ticket.is_reduction:
        return ticket
    return _judged(ticket, desk, await desk.quotes.get(ticket.symbol))


class PriceJudge(Judge):
    """Judges entries at the last quote, once their own is older than the quote book's `max_age`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def look(self, ticket: OrderTicket) -> bool:
        """Fetch a quote where there is none that is young enough; return whether there is one."""
        return self._is_young(ticket) or await self._desk.quotes.get(ticket.symbol) is not None

    def is_blind(self, ticket: OrderTicket) -> bool:
        """Tell whether there is no quote that is young enough."""
        return not self._is_young(ticket) and self._desk.quotes.fresh(ticket.symbol) is None

    def deny(self, ticket: OrderTicket) -> Denial | None:
        """Return why an entry may not leave at the price of now, or None."""
        if self._is_young(ticket):
            return None
        judged = _judged(ticket, self._desk, self._desk.quotes.fresh(ticket.symbol))
        return judged if isinstance(judged, Denial) else None

    def _is_young(self, ticket: OrderTicket) -> bool:
        return self._desk.clock.now() - ticket.quote.at <= self._desk.quotes.max_age


def _judged(ticket: OrderTicket, desk: Desk, quote: Quote | None) -> OrderTicket | Denial:
    if quote is None:
        last = desk.quotes.last(ticket.symbol)
        age = "none" if last is None else str(desk.clock.now() - last.at)
        return Denial.of(DenialCode.QUOTE_STALE, age=age, reason="it has waited")
    waited = ticket.evolve(quote=quote, arrival=ticket.arrival_mid)
    denial = (
        check_quote(quote)
        or check_age(waited, desk.clock.now())
        or _check_levels(waited, quote)
        or _check_approval(waited, quote)
    )
    for link in desk.links:
        if isinstance(link, ValidationHandler):
            denial = denial or link.recheck(waited, desk)
    return denial or waited


def _check_levels(ticket: OrderTicket, quote: Quote) -> Denial | None:
    """Refuse a price that has passed the stop, or a target: the position would be closed as it is opened."""
    price = expected_price(ticket, quote.mid)
    if ticket.stop_loss is not None:
        denial = check_stop_loss(ticket.side, price, ticket.stop_loss)
        if denial is not None:
            return denial
    levels = [target.price for target in ticket.targets]
    if ticket.take_profit is not None:
        levels.append(ticket.take_profit)
    return next(filter(None, (check_take_profit(ticket.side, price, x) for x in levels)), None)


def _check_approval(ticket: OrderTicket, quote: Quote) -> Denial | None:
    """Refuse what would execute at a price that the risk handler has not approved; a limit bounds itself."""
    stamp = ticket.stamp
    if stamp is None or ticket.limit_price is not None:
        return None
    if ticket.side is Side.BUY and quote.ask > stamp.worst_price:
        return Denial.of(DenialCode.PRICE_OUTSIDE_COLLAR, ask=quote.ask, limit=stamp.worst_price)
    return None
