"""What is refused before it is sent, and what is the venue's to refuse."""

from decimal import Decimal

import pytest
from tests.support.binance import order

from execkit.errors import MarketClosedError
from execkit.exchanges.ccxt.rules import check_rules
from execkit.model.instrument import Instrument
from execkit.model.order import OrderType, Side

BTC, SWAP = "BTC/USDT", "BTC/USDT:USDT"
STOP = {"type": OrderType.STOP, "limit_price": None, "stop_price": Decimal(41_000)}


@pytest.mark.parametrize(
    ("changes", "is_sent"),
    [
        ({"symbol": BTC}, False),
        ({"symbol": BTC, "side": Side.SELL}, True),
        ({"symbol": BTC, "side": Side.SELL, **STOP}, True),
        ({"symbol": SWAP}, False),
        ({"symbol": SWAP, "side": Side.SELL}, False),
        ({"symbol": SWAP, "side": Side.SELL, "reduce_only": True, **STOP}, True),
        ({"symbol": SWAP, "reduce_only": True}, True),
    ],
)
def test_only_an_entry_is_kept_from_a_market_that_was_closed(changes, is_sent):
    """What was known of the market may be old; a stop must never be kept back by it."""
    rules = Instrument.default(changes["symbol"], tradeable=False)
    if is_sent:
        check_rules(rules, order(**changes))
    else:
        with pytest.raises(MarketClosedError, match="not open for trading"):
            check_rules(rules, order(**changes))
