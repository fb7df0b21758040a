"""Signals that arrive at the same moment cannot pass a limit together (I9, F8)."""

import asyncio
from decimal import Decimal

import pytest

from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.denial import DenialCode
from execkit.model.order import OrderEvent, Side
from execkit.model.records import OrderChanged, Source
from execkit.model.result import Outcome
from execkit.numbers import ZERO
from execkit.risk.limits import RiskLimits
from execkit.virtual_time import run_virtual

D = Decimal
TOGETHER = 50


@pytest.fixture
def rush(desk, make_ticket):
    """Return a function that sends 50 tickets, all made at the same moment, through both handlers at once.

    Each passed one sends its order after a while, is filled by half, and rests; the worst sums seen are kept.
    """

    def run(limits, symbols, *, equity="10000", finish=None, **signal):
        validation, risk = ValidationHandler(), RiskManagementHandler(limits)
        validation.bind(desk)
        risk.bind(desk)
        worst = {"exposure": ZERO, "cash": desk.book.cash["USDT"], "symbols": 0}

        def look():
            positions = desk.book.positions.open
            held = sum((abs(p.quantity) * 100 for p in positions.values()), ZERO)
            spent = sum((p.quantity * D("100.1") for p in positions.values()), ZERO)
            free = D(cash) - spent - desk.ledger.reserved_cash
            worst["exposure"] = max(worst["exposure"], held + desk.ledger.exposure)
            worst["cash"] = min(worst["cash"], free)
            pending = set(positions) | set(desk.ledger.pending_symbols)
            worst["symbols"] = max(worst["symbols"], len(pending))

        async def send(ticket):
            look()
            await asyncio.sleep(int(ticket.signal_id) % 3)
            desk.intend(
                f"o{ticket.signal_id}",
                ticket.symbol,
                ticket.side,
                str(ticket.quantity),
                signal_id=ticket.signal_id,
                reservation_id=ticket.stamp.reservation_id,
                worst_price=ticket.stamp.worst_price,
            )
            look()
            await asyncio.sleep(1)
            desk.fill(f"o{ticket.signal_id}", ticket.quantity / 2, D("100.1"))
            look()
            await asyncio.sleep(1)
            look()
            return ticket.result(Outcome.WORKING)

        async def one(ticket):
            return await validation(ticket, lambda changed: risk(changed, send))

        cash = desk.book.cash["USDT"]
        tickets = [
            make_ticket(desk, symbol=symbols(i), signal_id=str(i), equity=equity, **signal)
            for i in range(TOGETHER)
        ]

        async def main(_clock):
            return await asyncio.gather(*(one(ticket) for ticket in tickets))

        return run_virtual(main), worst

    return run


def codes(results):
    return {result.denial.code for result in results if result.denial is not None}


def passed(results):
    return sum(result.denial is None for result in results)


def each_its_own(number):
    return f"C{number}/USDT"


def test_exposure(rush):
    """50 times 5 % against a limit of 50 %: ten pass, to the cent, and no more at any time."""
    limits = RiskLimits(max_concurrent_positions=100)
    results, worst = rush(limits, each_its_own, quantity=D(5))
    assert passed(results) == 10
    assert codes(results) == {DenialCode.EXPOSURE_TOO_LARGE}
    assert worst["exposure"] == 5000


def test_number_of_positions(rush):
    """Three symbols may be under way, whoever comes first."""
    results, worst = rush(RiskLimits(), each_its_own)
    assert passed(results) == 3
    assert codes(results) == {DenialCode.TOO_MANY_POSITIONS}
    assert worst["symbols"] == 3


def test_one_symbol(rush):
    """Of 50 entries for one symbol one goes out."""
    results, _ = rush(RiskLimits(), lambda _: "BTC/USDT")
    assert passed(results) == 1
    assert codes(results) == {DenialCode.PENDING_ORDER_EXISTS}


def test_buying_power(desk, rush):
    """Cash of 1600 pays for three buys of 5 at worst 525.525; the account never owes more than it has."""
    desk.fund(1600)
    limits = RiskLimits(max_concurrent_positions=100)
    results, worst = rush(limits, each_its_own, quantity=D(5))
    assert passed(results) == 3
    assert codes(results) == {DenialCode.NOT_ENOUGH_BUYING_POWER}
    assert worst["cash"] == 1600 - 3 * D("525.525")


def test_shorts_count_as_longs_do(rush):
    """Exposure is the sum of both sides, not their difference."""
    limits = RiskLimits(max_concurrent_positions=100, allow_short=True)
    results, worst = rush(limits, each_its_own, quantity=D(5), side=Side.SELL)
    assert passed(results) == 10
    assert worst["exposure"] == 5000


def test_sized_orders_share_what_is_left(rush):
    """Without a stated quantity the last one takes the remainder instead of being refused."""
    limits = RiskLimits(max_concurrent_positions=100, size_pct=D(4), max_exposure_pct=D(10))
    results, worst = rush(limits, each_its_own)
    quantities = sorted(r.requested for r in results if r.denial is None)
    assert quantities == [2, 4, 4]
    assert worst["exposure"] == 1000


def test_in_doubt_counts_until_it_is_proven_absent(desk, make_ticket, judge):
    """An order that nobody knows the fate of takes its share of the limit."""
    limits = RiskLimits(max_exposure_pct=D(5))
    desk.intend("o1", "ETH/USDT", quantity="5")

    def tell(event):
        desk.record(OrderChanged(client_order_id="o1", event=event, source=Source.ACK))
        desk.ledger.on_order(desk.book.orders["o1"])

    def denial():
        ticket = make_ticket(desk, quantity=D(1))
        return judge(RiskManagementHandler(limits), desk, ticket).denial

    tell(OrderEvent.SUBMIT)
    assert denial().code is DenialCode.EXPOSURE_TOO_LARGE
    tell(OrderEvent.LOSE)
    assert denial().context == {"exposure": "600", "limit": "500"}
    tell(OrderEvent.ABSENT)
    assert denial() is None
    tell(OrderEvent.ACCEPT)
    assert denial().context == {"exposure": "600", "limit": "500"}, "a late sight counts again"
