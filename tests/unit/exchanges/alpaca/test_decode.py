"""Reading Alpaca's frames: each word has its meaning, and hostile frames become neither errors nor success."""

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.errors import ExchangeError
from execkit.exchanges.alpaca.account import read_account, read_positions
from execkit.exchanges.alpaca.chains import Chains, Name, next_client_id
from execkit.exchanges.alpaca.decode import read_activity, read_order, read_update, symbol_of
from execkit.exchanges.alpaca.hours import read_calendar, read_clock
from execkit.exchanges.alpaca.market import read_asset, read_bar, read_snapshot, read_trade
from execkit.exchanges.alpaca.orders import OrderReads
from execkit.exchanges.alpaca.stream import TradeUpdates
from execkit.exchanges.alpaca.values import BadAnswerError
from execkit.exchanges.ccxt.values import parse_json
from execkit.model.market import Timeframe
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, StreamGap
from execkit.testing.fuzz import fuzz_decoder

ROOT = "xk" + "a" * 24
ORDER = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": ROOT,
    "created_at": "2024-03-12T15:00:00.123456789Z",
    "updated_at": "2024-03-12T15:00:01.5Z",
    "submitted_at": "2024-03-12T15:00:00.1Z",
    "replaced_by": None,
    "replaces": None,
    "asset_class": "us_equity",
    "symbol": "AAPL",
    "notional": None,
    "qty": "10",
    "filled_qty": "4",
    "filled_avg_price": "150.25",
    "order_class": "",
    "order_type": "limit",
    "type": "limit",
    "side": "buy",
    "time_in_force": "gtc",
    "limit_price": "151",
    "stop_price": None,
    "status": "partially_filled",
    "extended_hours": False,
    "legs": None,
}
UPDATE = {
    "event": "partial_fill",
    "execution_id": "2f63ea93-423d-4169-b3f6-3fdafc10c418",
    "timestamp": "2024-03-12T15:00:01.25Z",
    "price": "150.25",
    "qty": "4",
    "position_qty": "4",
    "order": ORDER,
}
ACTIVITY = {
    "activity_type": "FILL",
    "id": "20240312150001250::8efc7b9a",
    "cum_qty": "4",
    "leaves_qty": "6",
    "price": "150.25",
    "qty": "4",
    "side": "buy",
    "symbol": "AAPL",
    "transaction_time": "2024-03-12T15:00:01.25Z",
    "order_id": ORDER["id"],
    "type": "partial_fill",
}
POSITION = {
    "symbol": "AAPL",
    "asset_class": "us_equity",
    "qty": "-5",
    "qty_available": "-5",
    "side": "short",
    "avg_entry_price": "150.25",
}
ACCOUNT = {
    "status": "ACTIVE",
    "currency": "USD",
    "cash": "1000.5",
    "buying_power": "2000",
    "non_marginable_buying_power": "900",
    "equity": "1000.5",
    "shorting_enabled": True,
    "daytrade_count": 1,
}
SNAPSHOT = {
    "latestTrade": {"t": "2024-03-12T15:00:00Z", "p": 150.25, "s": 10},
    "latestQuote": {"t": "2024-03-12T15:00:00Z", "bp": 150.2, "bs": 1, "ap": 150.3, "as": 2},
}
BAR = {"t": "2024-03-12T15:00:00Z", "o": 1.5, "h": 2, "l": 1, "c": 1.25, "v": 100, "n": 3}
ASSET = {
    "symbol": "BTC/USD",
    "class": "crypto",
    "status": "active",
    "tradable": True,
    "fractionable": True,
    "price_increment": "0.01",
    "min_trade_increment": "0.000000001",
    "min_order_size": "0.0001",
}
CLOCK = {
    "timestamp": "2024-03-12T15:00:00-04:00",
    "is_open": True,
    "next_open": "2024-03-13T09:30:00-04:00",
    "next_close": "2024-03-12T16:00:00-04:00",
}
DAY = [{"date": "2024-03-12", "open": "09:30", "close": "16:00"}]


def streamed(row):
    """Return what the stream hands on for a frame."""
    told = []
    stream = TradeUpdates(None, "", Chains(), told.append)
    stream.on_frame(json.dumps({"stream": "trade_updates", "data": row}, allow_nan=True))
    return told


def only(read):
    """Return a reader whose values are no part of the model."""

    def run(row):
        read(row)

    return run


READERS = {
    "order": (lambda row: read_order(row).report, ORDER),
    "update": (streamed, UPDATE),
    "activity": (read_activity, ACTIVITY),
    "positions": (lambda row: [h.position for h in read_positions(row)], [POSITION]),
    "account": (only(read_account), ACCOUNT),
    "snapshot": (lambda row: read_snapshot(row, "AAPL"), SNAPSHOT),
    "trade": (lambda row: read_trade(row, "AAPL"), SNAPSHOT["latestTrade"]),
    "bar": (lambda row: read_bar(row, "AAPL", Timeframe.M1), BAR),
    "asset": (lambda row: read_asset(row, fractional=True, price=None), ASSET),
    "clock": (only(read_clock), CLOCK),
    "calendar": (only(read_calendar), DAY),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutated_frames(kind):
    """20,000 mutated frames over all kinds: none is an uncaught error, none is success without an id."""
    read, frame = READERS[kind]
    result = fuzz_decoder(
        lambda raw: read(parse_json(raw)),
        [json.dumps(frame).encode()],
        rng=random.Random(kind),
        count=1_900,
        allowed=(ExchangeError, BadAnswerError),
    )
    result.check()
    assert result.outcomes["refused"] > 300


def test_mutated_frames_of_the_stream():
    """Whatever comes, the stream hands on orders, executions or the mark of a gap, and never raises."""
    told = []
    stream = TradeUpdates(None, "", Chains(), told.append)
    frame = json.dumps({"stream": "trade_updates", "data": UPDATE}).encode()
    result = fuzz_decoder(stream.on_frame, [frame], rng=random.Random(3), count=3_000)
    result.check()
    assert result.outcomes["refused"] == 0
    assert {type(each) for each in told} == {OrderReport, Fill, StreamGap}


def test_a_whole_order():
    """Every part of an order is read exactly."""
    report = read_order(ORDER).report
    assert report == OrderReport(
        client_order_id=ROOT,
        venue_order_id=ORDER["id"],
        symbol="AAPL",
        side="buy",
        type=OrderType.LIMIT,
        quantity=Decimal(10),
        status=OrderState.PARTIALLY_FILLED,
        filled=Decimal(4),
        average_price=Decimal("150.25"),
        limit_price=Decimal(151),
        updated_at=report.updated_at,
        raw_status="partially_filled",
    )
    assert report.updated_at.microsecond == 500_000


@pytest.mark.parametrize(
    ("word", "filled", "state"),
    [
        ("new", "0", OrderState.ACCEPTED),
        ("accepted", "0", OrderState.ACCEPTED),
        ("pending_new", "0", OrderState.ACCEPTED),
        ("accepted_for_bidding", "0", OrderState.ACCEPTED),
        ("pending_replace", "0", OrderState.ACCEPTED),
        ("pending_replace", "4", OrderState.PARTIALLY_FILLED),
        ("stopped", "0", OrderState.ACCEPTED),
        ("held", "0", OrderState.HELD),
        ("suspended", "0", OrderState.HELD),
        ("pending_review", "0", OrderState.HELD),
        ("done_for_day", "0", OrderState.HELD),
        ("done_for_day", "4", OrderState.PARTIALLY_FILLED),
        ("calculated", "10", OrderState.FILLED),
        ("calculated", "0", OrderState.HELD),
        ("pending_cancel", "4", OrderState.PENDING_CANCEL),
        ("partially_filled", "4", OrderState.PARTIALLY_FILLED),
        ("filled", "10", OrderState.FILLED),
        ("canceled", "4", OrderState.CANCELLED),
        ("expired", "0", OrderState.EXPIRED),
        ("rejected", "0", OrderState.REJECTED),
        ("levitating", "0", OrderState.IN_DOUBT),
        ("NEW", "0", OrderState.IN_DOUBT),
    ],
)
def test_every_word_has_its_state(word, filled, state):
    """Alpaca's statuses; a word that nobody knows is in doubt, with the word kept."""
    report = read_order(ORDER | {"status": word, "filled_qty": filled}).report
    assert (report.status, report.raw_status) == (state, word)


@pytest.mark.parametrize(
    "changes",
    [
        {"qty": "0"},
        {"qty": None},
        {"qty": 10.5},
        {"qty": "1e3"},
        {"qty": True},
        {"filled_qty": "11"},
        {"filled_qty": "-1"},
        {"filled_qty": "NaN"},
        {"status": "filled"},
        {"status": None},
        {"side": "hold"},
        {"type": "magic"},
        {"id": None},
        {"id": "../../v2/account"},
        {"client_order_id": ""},
        {"client_order_id": "two words"},
        {"symbol": None},
        {"updated_at": "yesterday"},
        {"updated_at": "2024-03-12T15:00:00"},
        {"updated_at": "1824-03-12T15:00:00Z"},
        {"limit_price": "-1"},
    ],
)
def test_what_cannot_be_true_is_refused(changes):
    """Missing, contradictory and malformed parts of an order."""
    with pytest.raises(BadAnswerError):
        read_order(ORDER | changes)


def test_an_order_over_an_amount_of_money():
    """It has no quantity of its own: what is executed, or what its limit allows."""
    notional = ORDER | {"qty": None, "notional": "75"}
    assert read_order(
        notional | {"filled_qty": "0", "limit_price": "150"}
    ).report.quantity == Decimal("0.5")
    whole = notional | {"filled_qty": "0.5", "status": "filled", "limit_price": None}
    assert read_order(whole).report.quantity == Decimal("0.5")


@pytest.mark.parametrize(
    ("symbol", "kind", "ours"),
    [
        ("AAPL", "us_equity", "AAPL"),
        ("BTC/USD", "crypto", "BTC/USD"),
        ("BTCUSD", "crypto", "BTC/USD"),
        ("ETHUSDT", "crypto", "ETH/USDT"),
        ("ETHBTC", "crypto", "ETH/BTC"),
        ("BUSD", "us_equity", "BUSD"),
    ],
)
def test_symbols(symbol, kind, ours):
    """Positions write crypto without the slash that orders have."""
    assert symbol_of({"symbol": symbol, "asset_class": kind}) == ours


def test_options_are_left_out():
    """Positions and orders of a class that is not traded here do not disturb the others."""
    option = POSITION | {"symbol": "AAPL240419C00150000", "asset_class": "us_option"}
    assert [held.position.symbol for held in read_positions([option, POSITION])] == ["AAPL"]


async def test_executions_of_options_are_left_out():
    """They are no executions of a stock, and their orders need not be readable."""

    async def ask(path, params=None):
        option = ACTIVITY | {"id": "20240312150001250::0", "symbol": "AAPL240315C00150000"}
        return [option, ACTIVITY] if "activities" in path else ORDER

    since = datetime(2024, 3, 12, tzinfo=UTC)
    [fill] = await OrderReads(ask, Chains()).fills_since(since, None)
    assert (fill.symbol, fill.client_order_id) == ("AAPL", ROOT)


def test_stream_and_history_agree_on_an_execution():
    """They have different ids of their own; by order and quantity executed so far it is the same one."""
    assert read_update(UPDATE).fill.trade_id == read_activity(ACTIVITY).trade_id
    assert read_activity(ACTIVITY).at == read_update(UPDATE).fill.at


def test_a_fill_larger_than_all_that_was_executed_is_refused():
    """Such a frame contradicts itself."""
    with pytest.raises(BadAnswerError):
        read_update(UPDATE | {"qty": "5"})


def test_ids_of_versions():
    """Every version has an id that was never used, and of which the first can be told."""
    assert next_client_id(ROOT) == f"{ROOT}-r1"
    assert next_client_id(f"{ROOT}-r9") == f"{ROOT}-r10"
    assert next_client_id("by-rand") == "by-rand-r1"


def version(number, **changes):
    row = {"id": f"v{number}", "client_order_id": f"{ROOT}-r{number}" if number else ROOT}
    row["replaces"] = f"v{number - 1}" if number else None
    return read_order(ORDER | row | changes)


def test_versions_are_one_order():
    """What was executed of an earlier version stays executed, and a late word about an old version changes nothing."""
    chains = Chains()
    first = version(0)
    name = chains.name_of(first)
    assert chains.take(first, name).filled == 4
    assert chains.take(version(0, status="replaced", replaced_by="v1"), name) is None
    new = chains.take(version(1, filled_qty="0", status="new"), chains.name_of(version(1)))
    assert (new.client_order_id, new.venue_order_id, new.filled) == (ROOT, "v0", 4)
    assert chains.newest("v0") == "v1"
    chains.take(version(0), name)
    assert chains.newest("v0") == "v1"
    assert chains.last("v0") == new
    assert chains.name_of(version(5)) is None


def test_a_leg_gets_our_name_also_when_the_stream_was_first():
    """Alpaca's id for it gives way to ours, in what is remembered too; one of ours gives way to none."""
    chains = Chains()
    leg = read_order(ORDER | {"id": "leg", "client_order_id": "made-by-alpaca"})
    chains.take(leg, chains.name_of(leg))
    chains.alias("leg", ROOT)
    assert chains.name_of(leg) == Name(ROOT, "leg")
    assert chains.last("leg").client_order_id == ROOT
    chains.alias("leg", "xk" + "b" * 24)
    assert chains.name_of(leg) == Name(ROOT, "leg")


def test_a_change_that_is_refused_later_does_not_end_the_order():
    """Its successor is rejected, the order itself lives on: told as a gap, never as a rejection."""
    chains, told = Chains(), []
    chains.take(version(0), Name(ROOT, "v0"))
    new = ORDER | {"id": "v1", "client_order_id": f"{ROOT}-r1", "replaces": "v0"}
    chains.take(read_order(new), Name(ROOT, "v0"))
    assert chains.newest("v0") == "v1"
    stream = TradeUpdates(None, "", chains, told.append)
    row = new | {"status": "rejected", "filled_qty": "0"}
    frame = {"event": "rejected", "timestamp": UPDATE["timestamp"], "order": row}
    stream.on_frame(json.dumps({"stream": "trade_updates", "data": frame}))
    assert [type(each) for each in told] == [StreamGap]
    assert chains.newest("v0") == "v0"


def test_no_id_of_a_version_is_given_twice():
    """That of a change which the venue refused, or may have taken, is used up: Alpaca takes each id once, for ever."""
    chains = Chains()
    first, name = version(0), Name(ROOT, "v0")
    chains.take(first, name)
    assert chains.next_client_id("v0") == f"{ROOT}-r1"
    refused = version(1, status="rejected", filled_qty="0")
    chains.take(refused, name)
    chains.take(first, name)
    assert chains.next_client_id("v0") == f"{ROOT}-r2"
    assert chains.next_client_id("v0") == f"{ROOT}-r3"
    another = Chains()
    another.take(version(7), name)
    assert another.next_client_id("v0") == f"{ROOT}-r8"


@pytest.mark.parametrize("replaced_by", ["stop", None])
def test_a_target_that_gives_way_to_its_stop_has_ended(replaced_by):
    """Alpaca calls it replaced when the stop is triggered; the stop keeps its name, and its execution is its own."""
    chains, told = Chains(), []
    target, stop = ROOT, "xk" + "b" * 24
    row = ORDER | {"id": "target", "order_class": "oco", "status": "new", "filled_qty": "0"}
    chains.take(read_order(row), Name(target, "target"))
    chains.alias("stop", stop)
    loss = row | {"id": "stop", "client_order_id": "made-by-alpaca", "type": "stop"}
    chains.take(read_order(loss), Name(stop, "stop"))
    stream = TradeUpdates(None, "", chains, told.append)
    for each in (
        {"event": "replaced", "order": row | {"status": "replaced", "replaced_by": replaced_by}},
        {"event": "fill", "qty": "10", "order": loss | {"status": "filled", "filled_qty": "10"}},
    ):
        frame = UPDATE | each
        stream.on_frame(json.dumps({"stream": "trade_updates", "data": frame}))
    ended, fill, filled = told
    assert (ended.client_order_id, ended.status) == (target, OrderState.CANCELLED)
    assert (fill.client_order_id, fill.quantity) == (stop, 10)
    assert (filled.client_order_id, filled.status) == (stop, OrderState.FILLED)
    assert chains.newest("target") == "target"


class Reads:
    """A venue whose orders are rows by their path."""

    def __init__(self, **rows):
        self.rows = rows
        self.asked = []

    async def __call__(self, path, params=None):
        self.asked.append(path)
        return ORDER | {"id": path.rpartition("/")[2]} | self.rows[path.rpartition("/")[2]]


R1 = {"client_order_id": f"{ROOT}-r1", "replaces": "v0", "status": "rejected", "filled_qty": "0"}


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ({"v0": {"status": "new", "filled_qty": "0"}, "v1": R1}, OrderState.ACCEPTED),
        ({"v0": {"status": "replaced", "replaced_by": "v1"}, "v1": R1}, OrderState.REJECTED),
        ({"v0": {"status": "replaced"}}, OrderState.IN_DOUBT),
        (
            {"v0": {"status": "replaced", "replaced_by": "v1"}, "v1": R1 | {"status": "new"}},
            OrderState.ACCEPTED,
        ),
    ],
)
async def test_the_newest_version_that_came_to_be(rows, status):
    """A successor that was rejected counts only where Alpaca says that it took its predecessor's place."""
    for start in rows:
        reads = OrderReads(Reads(**rows), Chains())
        report = await reads.get("AAPL", ROOT, start)
        assert (report.client_order_id, report.venue_order_id) == (ROOT, "v0")
        assert report.status is status


async def test_versions_without_an_end_are_refused():
    """Two versions that name each other end in an error, not in a loop."""
    rows = {
        "v0": {"status": "replaced", "replaced_by": "v1"},
        "v1": {"status": "replaced", "replaced_by": "v0"},
    }
    with pytest.raises(BadAnswerError):
        await OrderReads(Reads(**rows), Chains()).get("AAPL", ROOT, "v0")


async def test_an_answer_about_another_order_of_ours_is_refused():
    """By id, by client id, and where two of our ids are mixed up."""
    other = "xk" + "b" * 24
    with pytest.raises(BadAnswerError):
        await OrderReads(Reads(v0={"client_order_id": other}), Chains()).get("AAPL", ROOT, "v0")
    with pytest.raises(BadAnswerError):
        await OrderReads(Reads(v0={"id": "v7"}), Chains()).get("AAPL", ROOT, "v0")


def test_a_bar_ends_after_it_began():
    """Alpaca names the beginning, we the end, exclusive."""
    bar = read_bar(parse_json(json.dumps(BAR)), "AAPL", Timeframe.H1)
    assert bar.close_time - bar.open_time == timedelta(hours=1)
    assert bar.open_time.isoformat() == "2024-03-12T15:00:00+00:00"
