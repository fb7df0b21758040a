"""The adapter's parts by themselves: symbols, hours, codes, ids, pace."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from ib_async.contract import Contract

from execkit.clock import ManualClock
from execkit.errors import ConfigurationError, NotSentError, OrderStatusUnknownError
from execkit.exchanges.ibkr.codes import Meaning, error_of, meaning_of
from execkit.exchanges.ibkr.contracts import sessions
from execkit.exchanges.ibkr.day import offset_of, since_midnight
from execkit.exchanges.ibkr.order_ids import OrderIds
from execkit.exchanges.ibkr.pace import Pace
from execkit.exchanges.ibkr.symbols import parse, spell
from execkit.virtual_time import run_virtual


@pytest.mark.parametrize(
    ("symbol", "kind", "fields"),
    [
        ("AAPL", "STK", {"symbol": "AAPL", "exchange": "SMART", "currency": "USD"}),
        ("BRK_B", "STK", {"symbol": "BRK B"}),
        ("SAP/EUR", "STK", {"symbol": "SAP", "currency": "EUR", "primaryExchange": ""}),
        ("SAP/EUR:IBIS", "STK", {"currency": "EUR", "primaryExchange": "IBIS"}),
        ("ESZ6:CME", "FUT", {"localSymbol": "ESZ6", "exchange": "CME", "currency": "USD"}),
        ("FDAXZ6/EUR:EUREX", "FUT", {"localSymbol": "FDAXZ6", "currency": "EUR"}),
        ("EUR/USD", "CASH", {"symbol": "EUR", "exchange": "IDEALPRO", "currency": "USD"}),
        ("BTC/USD:PAXOS", "CRYPTO", {"symbol": "BTC", "exchange": "PAXOS"}),
    ],
)
def test_symbols(symbol, kind, fields):
    """Each kind of contract has one spelling, and it reads back as written."""
    contract = parse(symbol)
    assert contract.secType == kind
    assert {name: getattr(contract, name) for name in fields} == fields
    assert spell(contract, with_exchange=True) == symbol


@pytest.mark.parametrize("symbol", ["", "A B", "A;DROP", "x" * 41, "A\n"])
def test_no_symbols(symbol):
    """What is no symbol is refused before it gets anywhere."""
    with pytest.raises(ConfigurationError):
        parse(symbol)


def test_contracts_that_execkit_does_not_trade():
    """An option in the account has a name too, so that it counts."""
    assert spell(Contract(secType="OPT", conId=12, symbol="AAPL", currency="USD")) == "OPT-12"


def test_hours():
    """Hours are read in their zone; days that adjoin are one session, CLOSED is none."""
    zone = ZoneInfo("America/New_York")
    text = "20260306:0930-20260306:1600;20260307:CLOSED;20260309:0930-20260309:1600"
    assert sessions(text, zone) == [
        (datetime(2026, 3, 6, 14, 30, tzinfo=UTC), datetime(2026, 3, 6, 21, tzinfo=UTC)),
        (datetime(2026, 3, 9, 13, 30, tzinfo=UTC), datetime(2026, 3, 9, 20, tzinfo=UTC)),
    ]
    whole = "20260106:0000-20260107:0000;20260107:0000-20260108:0000"
    assert len(sessions(whole, zone)) == 1


def test_unknown_codes_prove_nothing():
    """Only codes of the table kill an order; all others leave its outcome unknown (A23, I30)."""
    proven = {code for code in range(20_000) if meaning_of(code) is Meaning.REFUSED}
    assert proven == {
        *(100, 105, 110, 111, 135, 200, 201, 203, 320, 321, 387, 434, 435, 460),
        *(10243, 10289),
    }
    for code in set(range(20_000)) - proven:
        assert not error_of(code, "").outcome_known, code
    assert type(error_of(42, "")) is OrderStatusUnknownError


def test_order_ids_never_come_twice():
    """An id is the order's own for ever, above all that were seen, and above the seconds since 2024."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    ids = OrderIds(clock)
    first = ids.reserve("a")
    assert first == (clock.now() - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds()
    assert ids.reserve("a") == first
    ids.saw(first + 100)
    assert ids.reserve("b") == first + 101
    clock.advance(timedelta(days=-400))
    assert ids.reserve("c") == first + 102
    other = OrderIds(clock)
    assert other.reserve("b", str(first + 101)) == first + 101
    assert other.reserve("d") == first + 102
    ids.spend("a")
    assert ids.reserve("a", str(first)) == first + 103


def test_an_order_that_was_overtaken_gets_a_new_id():
    """TWS refuses an id below one that it has had: only what no earlier process can have sent is renumbered."""
    ids = OrderIds(ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    first, second = ids.reserve("a"), ids.reserve("b")
    assert ids.at_send("b", is_first=True) == second
    renewed = ids.at_send("a", is_first=True)
    assert renewed > second > first
    assert ids.reserve("a", str(first)) == renewed
    assert ids.at_send("a", is_first=False) == renewed
    ids.reserve("c", str(first - 5))
    assert ids.at_send("c", is_first=True) == first - 5


@pytest.mark.parametrize(
    ("said", "ago"),
    [
        ("20260102 10:00:30 EST", timedelta(hours=10)),
        ("20260102 15:00:00 UTC", timedelta(hours=15)),
        ("20260103 00:01:00 Japan Standard Time", timedelta(minutes=0)),
        ("20260102 20:30:00 IST", timedelta(hours=20, minutes=30)),
        ("20260105 15:00:00 UTC", timedelta(0)),
        ("nonsense", timedelta(0)),
    ],
)
def test_the_day_of_tws(said, ago):
    """TWS forgets at its own midnight; where it does not say what time it has, nothing is proven by its silence."""
    now = datetime(2026, 1, 2, 15, tzinfo=UTC)
    offset = offset_of(b"\0\0\0\x1b178\0" + said.encode() + b"\0", now)
    assert since_midnight(offset, now) == ago
    assert offset_of(b"\0\0", now) is None
    if ago:
        assert since_midnight(offset, now + timedelta(days=1)) == ago


def test_error_ids_are_no_order_ids():
    """Ids of requests live far above order ids: an absurd one that TWS shows does not drag ours along."""
    ids = OrderIds(ManualClock())
    ids.saw(2**31 - 1)
    assert ids.reserve("a") < 10**9


def test_pace():
    """At most so many messages in any second; questions leave room for orders; who cannot wait is told so."""

    async def main(clock):
        import asyncio

        pace = Pace(20, reserve=5)
        for _ in range(15):
            await pace.turn(0, is_order=False)
        with pytest.raises(NotSentError):
            await pace.turn(0.5, is_order=False)
        for _ in range(5):
            await pace.turn(0, is_order=True)
        with pytest.raises(NotSentError):
            await pace.turn(0.5, is_order=True)
        began = asyncio.get_running_loop().time()
        await pace.turn(2, is_order=True)
        assert 0 < asyncio.get_running_loop().time() - began <= 1.2

    run_virtual(main)
