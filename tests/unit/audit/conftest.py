"""A small journal in several segments, with evaluations and what became of them."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.clock import ManualClock
from execkit.journal.base import MemoryJournal
from execkit.journal.file import FileJournal
from execkit.model.account import AccountView
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Fill, OrderEvent, OrderRequest, OrderRole, OrderType, Side
from execkit.model.records import (
    BarClosed,
    Decision,
    Filled,
    Intent,
    OrderChanged,
    PositionSeen,
    SignalResult,
    Source,
)
from execkit.model.result import Outcome

D = Decimal
CLOCK_START = ManualClock().now()


def decision(function="close_above", action="none", signal_id="", **values):
    return Decision(
        **{
            "plan": "p",
            "function": function,
            "action": action,
            "confidence": D("0.8") if action != "none" else D(0),
            "reasoning": f"{function} says {action}",
            "parameters": '{"threshold_price":"100"}',
            "bars": 3,
            "duration_us": 1500,
            "signal_id": signal_id,
        }
        | values
    )


def close(minute, *decisions, symbol="BTC/USDT", position=None):
    return BarClosed(
        symbol=symbol,
        timeframe="1m",
        close_time=CLOCK_START + timedelta(minutes=minute),
        open=D(100),
        high=D(102),
        low=D(99),
        close=D(101),
        volume=D(7),
        position=position,
        account=AccountView("USDT", D(10_000), D(9_000), D(0)),
        decisions=decisions,
    )


def intent(signal_id, order):
    request = OrderRequest(
        client_order_id=order,
        symbol="BTC/USDT",
        side=Side.BUY,
        type=OrderType.MARKET,
        quantity=D(2),
    )
    return Intent(
        request=request,
        payload_hash="",
        role=OrderRole.ENTRY,
        parent=signal_id,
        signal_id=signal_id,
        signal_digest="d",
    )


def filled(order, trade, quantity, price, replaces=None):
    fill = Fill(
        trade_id=trade,
        client_order_id=order,
        venue_order_id=order,
        symbol="BTC/USDT",
        side=Side.BUY,
        quantity=D(quantity),
        price=D(price),
        at=CLOCK_START,
        replaces=replaces,
    )
    return Filled(fill=fill, source=Source.ACK)


def result(signal_id, outcome, **values):
    return SignalResult(
        signal_id=signal_id,
        signal_digest="d",
        symbol="BTC/USDT",
        side=Side.BUY,
        outcome=outcome,
        **values,
    )


def ended(event):
    return OrderChanged(client_order_id="o1", event=OrderEvent(event), source=Source.STREAM)


SEEN = PositionSeen("BTC/USDT#1", D(2), D(101), best_price=D(102), stop_loss=D(99))

RECORDS = [
    (1, close(1, decision(), decision("breakout", skipped=True, reasoning="disabled", bars=0))),
    (2, close(2, decision(action="enter_long", signal_id="s1"))),
    (2, intent("s1", "o1")),
    (2, filled("o1", "t1", 1, 101)),
    (2, result("s1", Outcome.PARTIALLY_FILLED, filled=D(1))),
    (2, filled("o1", "t2", 1, 103)),
    (3, close(3, decision("trailing_stop", "exit", "s2"), position=SEEN)),
    (
        3,
        result(
            "s2",
            Outcome.DENIED,
            denial=Denial.of(DenialCode.DUPLICATE_SIGNAL, signal_id="s2"),
        ),
    ),
    (
        4,
        close(
            4,
            decision(failed=True, skipped=True, reasoning="raised ValueError: =1+1"),
            symbol="ETH/USDT",
        ),
    ),
    (5, close(5, decision("breakout", "enter_long", "s3"))),
]
EVALUATIONS = 6


@pytest.fixture
def memory():
    """The records in a journal in memory."""
    journal = MemoryJournal("a")
    for minute, record in RECORDS:
        journal.append(record, CLOCK_START + timedelta(minutes=minute, seconds=1))
    return journal


async def fill(path, heads=None, *, rotate_after=(3, 7), records=RECORDS):
    """Write the records to a journal; note number and hash after each in *heads*."""
    clock = ManualClock()
    journal = FileJournal.open(
        path, account="a", clock=clock, durability="process", segment_bytes=1
    )
    for number, (minute, record) in enumerate(records, 1):
        clock.set(CLOCK_START + timedelta(minutes=minute, seconds=1))
        journal.append(record, clock.now())
        if heads is not None:
            heads.append((journal.last_seq, journal.head))
        if number in rotate_after:
            journal.set_snapshot(lambda: b"")
        await journal.commit()
        journal._snapshot = None
    await journal.close()


@pytest.fixture
def journal(tmp_path):
    """The records in a file of three segments; the path."""
    path = tmp_path / "run.db"
    asyncio.run(fill(path))
    return path
