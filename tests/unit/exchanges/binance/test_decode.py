"""Reading Binance's frames: hostile ones become neither errors nor success."""

import json
import random
from pathlib import Path

import pytest

from execkit.errors import ExchangeError
from execkit.exchanges.binance import decode
from execkit.exchanges.binance.data import read_bar, read_ticker
from execkit.exchanges.binance.events import read_event
from execkit.exchanges.binance.markets import markets_of
from execkit.exchanges.binance.user_stream import UnknownMarketError
from execkit.exchanges.ccxt.values import BadAnswerError, parse_json
from execkit.testing.fuzz import fuzz_decoder

FRAMES = json.loads((Path(__file__).parent / "frames.json").read_text())


def symbol_of(name):
    if name == "BTCUSDT":
        return "BTC/USDT"
    raise UnknownMarketError("not traded here")


READERS = {
    "spot_order": lambda row: decode.read_order(row, "spot", symbol_of),
    "usdm_order": lambda row: decode.read_order(row, "usdm", symbol_of),
    "algo_order": lambda row: decode.read_algo(row, symbol_of)[0],
    "spot_trade": lambda row: decode.read_trade(row, "spot", symbol_of, lambda _key: ""),
    "usdm_trade": lambda row: decode.read_trade(row, "usdm", symbol_of, lambda _key: ""),
    "spot_event": lambda row: read_event(row, symbol_of, lambda _c, key, _w: key),
    "usdm_event": lambda row: read_event(row, symbol_of, lambda _c, key, _w: key),
    "algo_event": lambda row: read_event(row, symbol_of, lambda _c, key, _w: key),
}


@pytest.mark.parametrize("kind", READERS)
def test_whole_frames_are_read(kind):
    """Frames as Binance writes them are read."""
    assert READERS[kind](FRAMES[kind])


@pytest.mark.parametrize("kind", READERS)
def test_mutated_frames(kind):
    """20,000 mutated frames over all kinds: none is an uncaught error, none is success without an id."""
    result = fuzz_decoder(
        lambda raw: READERS[kind](parse_json(raw)),
        [json.dumps(FRAMES[kind]).encode()],
        rng=random.Random(kind),
        count=2_500,
        allowed=(ExchangeError, BadAnswerError),
    )
    result.check()
    assert result.outcomes["refused"] > 500
    assert result.outcomes["decoded"] > 100


NASTY = [
    '"NaN"',
    '"inf"',
    '"1e400"',
    '"-5"',
    '"\uff11"',
    '"1_0"',
    '" 1"',
    "true",
    "null",
    '"0x1"',
    "1.5e9",
    '"1E-7"',
]


@pytest.mark.parametrize("value", NASTY)
def test_no_number_is_no_order(value):
    """NaN, infinity, exponents, foreign digits, booleans and negatives are no quantities."""
    text = json.dumps(FRAMES["spot_order"]).replace(
        '"executedQty": "0.00000000"', f'"executedQty": {value}'
    )
    assert value in text
    with pytest.raises(BadAnswerError):
        READERS["spot_order"](parse_json(text))


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "NaN", '{"a": Infinity}', "[" * 100_000, b"\xff{}", "", "<html>"]
)
def test_json_that_only_some_parsers_take(text):
    """A name twice, NaN, endless nesting and bytes that are no UTF-8 are no JSON."""
    with pytest.raises(BadAnswerError):
        parse_json(text)


def test_fractions_stay_text():
    """No number with a fraction becomes a float."""
    assert parse_json('{"a": 0.1, "b": 1e400, "c": 3}') == {"a": "0.1", "b": "1e400", "c": 3}


def test_numbers_are_those_that_were_written():
    """Price, quantity and fee have the venue's digits."""
    order = READERS["spot_order"](FRAMES["spot_order"])
    assert str(order.quantity) == "0.01000000"
    assert str(order.limit_price) == "40000.00000000"


def test_unknown_status_is_in_doubt():
    """Binance's word is kept."""
    report = READERS["spot_order"](FRAMES["spot_order"] | {"status": "PENDING_REVIEW"})
    assert report.status == "in_doubt"
    assert report.raw_status == "PENDING_REVIEW"


def test_markets_that_make_no_sense_are_left_out():
    """A symbol with foreign letters or rules that are no numbers is not traded; the others are."""
    good = FRAMES["spot_market"]
    bad = [
        good | {"symbol": "X", "baseAsset": "\u5e01\u5b89"},
        good | {"symbol": "Y", "filters": [{"filterType": "PRICE_FILTER", "tickSize": "NaN"}]},
        good | {"symbol": "Z", "isSpotTradingAllowed": False},
    ]
    found = list(markets_of({"symbols": [good, *bad]}, "spot"))
    assert [market.instrument.symbol for market in found] == ["BTC/USDT"]


def test_book_that_is_crossed_or_empty():
    """A crossed book is no quote, one with an empty side has none."""
    row = {"symbol": "BTCUSDT", "bidPrice": "2", "askPrice": "1", "bidQty": "1", "askQty": "1"}
    with pytest.raises(BadAnswerError):
        read_ticker(row, symbol_of, None)
    assert read_ticker(row | {"askPrice": "0.00"}, symbol_of, None) is None


@pytest.mark.parametrize(
    "row", [None, [], [1], [0, "1", "1", "1", "1", "1"], [1, "1", "0", "1", "1", "1"]]
)
def test_impossible_bars(row):
    """A bar without a time, or with a high below its low, is refused."""
    from execkit.model.market import Timeframe

    with pytest.raises(BadAnswerError):
        read_bar(row, "BTC/USDT", Timeframe.M1)
