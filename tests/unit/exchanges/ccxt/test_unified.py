"""Reading ccxt's unified structures: through ccxt's own parser, with hostile frames of a venue below it."""

import json
import random
from decimal import Decimal

import pytest

from execkit.errors import ExchangeError
from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.exchanges.ccxt.unified import (
    read_balances,
    read_fill,
    read_market,
    read_order,
    read_position,
    read_quote,
)
from execkit.exchanges.ccxt.values import BadAnswerError, parse_json
from execkit.model.order import OrderState, OrderType
from execkit.testing.fuzz import fuzz_decoder

ORDER = {
    "id": "1",
    "clientOrderId": "xk1",
    "symbol": "BTC/USDT",
    "side": "buy",
    "type": "limit",
    "amount": "0.01",
    "filled": "0",
    "price": "40000",
    "status": "open",
    "timestamp": 1700000000000,
}
BYBIT = {
    "order": {
        "orderId": "c6f055d9-7f21-4079-913d-e6523a9cfffa",
        "orderLinkId": "xkaaaaaaaaaaaaaaaaaaaaaaaa",
        "symbol": "BTCUSDT",
        "price": "40000.00",
        "qty": "0.01",
        "side": "Buy",
        "orderStatus": "New",
        "avgPrice": "",
        "leavesQty": "0.01",
        "cumExecQty": "0.00",
        "cumExecValue": "0.00",
        "cumExecFee": "0.00",
        "timeInForce": "GTC",
        "orderType": "Limit",
        "triggerPrice": "",
        "createdTime": "1700000000123",
        "updatedTime": "1700000000123",
    },
    "trade": {
        "symbol": "BTCUSDT",
        "orderId": "c6f055d9-7f21-4079-913d-e6523a9cfffa",
        "orderLinkId": "xkaaaaaaaaaaaaaaaaaaaaaaaa",
        "side": "Buy",
        "orderPrice": "40000.00",
        "orderQty": "0.01",
        "orderType": "Limit",
        "execFee": "0.00001",
        "feeCurrency": "BTC",
        "execId": "f2ab9a2d",
        "execPrice": "40000.00",
        "execQty": "0.01",
        "execType": "Trade",
        "execTime": "1700000000123",
        "isMaker": False,
    },
}
MARKET = {
    "id": "BTCUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "type": "spot",
    "spot": True,
    "active": True,
    "precision": {"amount": "0.000001", "price": "0.01"},
    "limits": {"amount": {"min": "0.00001"}, "cost": {"min": "1"}},
    "maker": "0.001",
    "taker": "0.001",
}


def one(_symbol):
    return Decimal(1)


@pytest.fixture(scope="module")
def adapter():
    made = CCXTAdapter("bybit", api_key="k", secret="s")
    made._client.set_markets(
        [made._client.safe_market_structure(MARKET | {"baseId": "BTC", "quoteId": "USDT"})]
    )
    made._sizes["BTC/USDT"] = Decimal(1)
    return made


@pytest.mark.parametrize("kind", BYBIT)
def test_mutated_frames_through_ccxt(adapter, kind):
    """Whatever ccxt's parser makes of hostile frames: no uncaught error, no success without an id."""
    client = adapter._client
    market = client.market("BTC/USDT")

    async def parsed(raw):
        row = parse_json(raw)
        if kind == "order":
            return adapter._read(client.parse_order(row, market))
        return read_fill(client.parse_trade(row, market), one, lambda _key: "")

    async def decode(raw):
        return await adapter._ask(parsed(raw))

    result = fuzz_decoder(
        decode,
        [json.dumps(BYBIT[kind]).encode()],
        rng=random.Random(kind),
        count=4_000,
        allowed=(ExchangeError,),
    )
    result.check()
    assert result.outcomes["decoded"] > 100
    assert result.outcomes["refused"] > 500


def test_a_whole_order():
    """Every value is the venue's own digits."""
    report = read_order(ORDER, one)
    assert (report.status, report.type) == (OrderState.ACCEPTED, OrderType.LIMIT)
    assert str(report.limit_price) == "40000"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"filled": "0.005"}, OrderState.PARTIALLY_FILLED),
        ({"filled": "0.01"}, OrderState.FILLED),
        ({"status": "closed", "filled": "0.01"}, OrderState.FILLED),
        ({"status": "closed", "filled": "0.005"}, OrderState.CANCELLED),
        ({"status": "canceled"}, OrderState.CANCELLED),
        ({"status": "PENDING_REVIEW"}, OrderState.IN_DOUBT),
    ],
)
def test_statuses(changes, state):
    """A word that is not known is in doubt; an order that ended with less than all is no filled one."""
    assert read_order(ORDER | changes, one).status is state


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"amount": "NaN"},
        {"amount": "0"},
        {"amount": None},
        {"amount": True},
        {"filled": "-1"},
        {"filled": "9"},
        {"status": "closed", "filled": None},
        {"status": "canceled", "filled": None},
        {"side": "long"},
        {"type": "iceberg"},
        {"symbol": None},
        {"price": "1e400"},
    ],
)
def test_orders_that_cannot_be(changes):
    """Missing, impossible and contradictory values are no order."""
    with pytest.raises(BadAnswerError):
        read_order(ORDER | changes, one)


ONE_FEE = {"cost": "0.00001", "currency": "BTC"}
DISCOUNT = {"cost": "-0.000001", "currency": "BTC"}
OTHER = {"cost": "0.3", "currency": "MNT"}


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ({}, ("0", "")),
        ({"fee": ONE_FEE, "fees": [ONE_FEE]}, ("0.00001", "BTC")),
        ({"fee": ONE_FEE, "fees": []}, ("0.00001", "BTC")),
        ({"fee": {"cost": None}, "fees": [ONE_FEE]}, ("0.00001", "BTC")),
        ({"fees": [ONE_FEE, DISCOUNT]}, ("0.000009", "BTC")),
        ({"fees": [OTHER, ONE_FEE]}, ("0.00001", "BTC")),
        ({"fees": [OTHER]}, ("0.3", "MNT")),
    ],
)
def test_fees(stated, wanted):
    """They are read wherever ccxt has put them; of several assets the base counts."""
    row = ORDER | {"order": "1", "side": "buy"} | stated
    fill = read_fill(row, one, lambda _key: "")
    assert (fill.fee, fill.fee_asset) == (Decimal(wanted[0]), wanted[1])


def test_contracts_become_base_units():
    """Ten contracts of 0.01 are 0.1."""
    report = read_order(ORDER | {"amount": "10"}, lambda _s: Decimal("0.01"))
    assert report.quantity == Decimal("0.1")
    position = {
        "symbol": "BTC/USDT:USDT",
        "contracts": "10",
        "side": "short",
        "entryPrice": "40000",
    }
    assert read_position(position, lambda _s: Decimal("0.01")).quantity == Decimal("-0.1")
    assert read_position(position | {"contracts": "0"}, one) is None


@pytest.mark.parametrize(
    ("mode", "price", "amount", "tick", "lot"),
    [
        (4, "0.01", "0.001", "0.01", "0.001"),
        (4, 1e-08, 1, "1e-8", "1"),
        (2, "2", "0", "0.01", "1"),
        (3, "5", "5", "1e-8", "1e-8"),
    ],
)
def test_steps(mode, price, amount, tick, lot):
    """Ticks, decimal places, and significant digits, for which there is no step."""
    row = MARKET | {"precision": {"price": price, "amount": amount}}
    rules, _ = read_market(row, "spot", mode)
    assert (rules.tick_size, rules.lot_size) == (Decimal(tick), Decimal(lot))


def test_markets_that_are_not_traded():
    """Another kind, foreign letters and rules that are no numbers are left out."""
    assert read_market(MARKET, "linear", 4) is None
    assert read_market(MARKET | {"symbol": "\u5e01/USDT"}, "spot", 4) is None
    assert read_market(MARKET | {"maker": "a lot"}, "spot", 4) is None


def test_quotes_and_balances():
    """A crossed book is refused; holdings of nothing are left out."""
    row = {"symbol": "BTC/USDT", "bid": "1", "ask": "2", "timestamp": 1700000000000}
    assert read_quote(row, None).mid == Decimal("1.5")
    assert read_quote(row | {"bid": None}, None) is None
    with pytest.raises(BadAnswerError):
        read_quote(row | {"bid": "3"}, None)
    body = {"total": {"BTC": "1", "ETH": "0", "X": None}, "free": {"BTC": "0.5"}}
    assert read_balances(body)["BTC"].free == Decimal("0.5")
    assert set(read_balances(body)) == {"BTC"}
