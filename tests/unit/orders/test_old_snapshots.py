"""Snapshots of an older version: what was set and counted in them holds on, whatever becomes known afterwards."""

from decimal import Decimal

import msgspec
import pytest
from tests.support.orders import BTC, fill, filled, later

from execkit.journal.fold import fold
from execkit.model.order import Side
from execkit.model.records import Entry, StopMoved
from execkit.orders.book import Book
from execkit.orders.executions import Origin
from execkit.orders.position_state import PositionExport
from execkit.orders.positions import PositionBook

D = Decimal
BUY, SELL = Side.BUY, Side.SELL

OLD = b"""
{"lives": {"BTC/USDT": {"number": 1, "quantity": "1", "average": "100", "realised": "0", "fees": {},
   "opened_at": "2024-01-01T00:00:00Z", "peak": "1", "lot_size": "0", "is_dust": false,
   "origin": {"signal_id": "s1", "strength": null, "stop_loss": "98", "take_profit": null, "targets": [],
     "lot_size": "0"}}},
 "settled": {},
 "window": {"BTC/USDT": [{
   "fill": {"trade_id": "a", "client_order_id": "o1", "venue_order_id": "", "symbol": "BTC/USDT", "side": "buy",
     "quantity": "1", "price": "100", "at": "2024-01-01T00:00:00Z", "fee": "0", "fee_asset": "", "maker": null,
     "replaces": null},
   "origin": {"signal_id": "s1", "strength": null, "stop_loss": "98", "take_profit": null, "targets": [],
     "lot_size": "0"}}]},
 "seen": {"BTC/USDT": ["a"]},
 "levels": {"BTC/USDT#1": {"stop_loss": "99.5", "take_profit": "120", "best_price": "104"}},
 "closed": []}
"""
"""As written before levels had a place among the executions: bought at 100 with its stop at 98, moved since."""


def restored(data=OLD):
    book = PositionBook()
    book.restore(msgspec.json.decode(data, type=PositionExport))
    return book


def shown(book):
    position = book.open[BTC]
    return (position.stop_loss, position.take_profit, position.best_price, position.position_id)


FEE = fill("a.fee", "o1", fee="0.1", fee_asset="USDT", replaces="a")
EARLIER = fill("b", "o1", price="99", at=later(-1))
SAME_TIME = fill("0", "o1", price="99")
LATER = fill("c", "o2", price="101", at=later(5))


@pytest.mark.parametrize(
    "told", [(), (FEE,), (EARLIER,), (SAME_TIME,), (LATER,), (LATER, EARLIER, FEE), (FEE, LATER)]
)
def test_a_moved_stop_and_target_stay_whatever_becomes_known(told):
    """I12 I16: a commission that follows, or a late execution, adds the sums up again; also after a second restart."""
    book = restored()
    for each in told:
        book.apply(each, Origin(signal_id="s1", stop_loss=D(98)))
    assert shown(book) == (D("99.5"), D(120), D(104), f"{BTC}#1")
    again = restored(msgspec.json.encode(book.export()))
    assert again.open == book.open
    again.apply(fill("d", "o1", price="98", at=later(-2)), Origin(stop_loss=D(90)))
    assert shown(again) == (D("99.5"), D(120), D(104), f"{BTC}#1")


def test_they_stay_where_all_recent_executions_were_busted():
    """The position is older than the executions that can still be sorted."""
    old = msgspec.json.decode(OLD)
    old["settled"], old["window"] = old["lives"], {}
    book = restored(msgspec.json.encode(old))
    assert shown(book) == (D("99.5"), D(120), D(104), f"{BTC}#1")
    for each in (LATER, fill("d", price="102", at=later(3))):
        book.apply(each, Origin(stop_loss=D(90)))
    assert shown(book) == (D("99.5"), D(120), D(104), f"{BTC}#1")


def test_a_limit_exit_stays_too():
    """It was kept by the number of the position as well."""
    limit = OLD.replace(b'"best_price": "104"', b'"is_limit": true')
    book = restored(limit)
    book.apply(FEE, Origin(stop_loss=D(98)))
    assert (book.open[BTC].limit_exit, book.open[BTC].take_profit) == (True, D(120))


def test_what_is_set_later_stands_and_the_next_position_has_its_own():
    """What was set before the upgrade is changed like anything else, and ends with its position."""
    book = restored()
    book.set_levels(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(101)), later(9))
    book.apply(FEE, Origin(stop_loss=D(98)))
    assert shown(book)[:2] == (D(101), None)
    book.apply(fill("x", side=SELL, at=later(10)), Origin())
    book.apply(fill("y", at=later(11)), Origin(stop_loss=D(95)))
    book.apply(
        fill("y.fee", replaces="y", fee="0.1", fee_asset="USDT", at=later(11)),
        Origin(stop_loss=D(95)),
    )
    assert shown(book) == (D(95), None, None, f"{BTC}#2")
    assert book.closed[0].stop_loss == D(101)


LINES = b"""
{"seq": 1, "at": "2024-01-01T00:00:00Z", "record": {"kind": "intent", "request": {"client_order_id": "o1",
  "symbol": "BTC/USDT", "side": "buy", "type": "market", "quantity": "1"}, "payload_hash": "c0a525f286b06eb525992436",
  "role": "entry", "parent": "s1", "stop_loss": "98"}}
{"seq": 2, "at": "2024-01-01T00:00:01Z", "record": {"kind": "order", "client_order_id": "o1", "event": "submit",
  "source": "stream", "attempt": 1}}
{"seq": 3, "at": "2024-01-01T00:00:02Z", "record": {"kind": "fill", "fill": {"trade_id": "a", "client_order_id": "o1",
  "venue_order_id": "", "symbol": "BTC/USDT", "side": "buy", "quantity": "1", "price": "100",
  "at": "2024-01-01T00:00:00Z"}, "source": "stream"}}
{"seq": 4, "at": "2024-01-01T00:00:03Z", "record": {"kind": "stop_moved", "symbol": "BTC/USDT",
  "position_id": "BTC/USDT#1", "stop_loss": "99.5", "take_profit": "120", "reason": ""}}
"""


def test_an_old_journal_and_an_old_snapshot_of_it_come_to_the_same():
    """I16: the records know the moment at which the stop was moved, the snapshot does not."""
    texts = LINES.replace(b"\n ", b" ").strip().splitlines()
    entries = [msgspec.json.decode(text, type=Entry) for text in texts]
    fee = Entry(5, later(60), filled("a.fee", fee="0.1", fee_asset="USDT", replaces="a"))
    old = msgspec.json.decode(fold(entries).snapshot())
    old["positions"] = msgspec.json.decode(OLD)
    told, snapped = fold([*entries, fee]), fold([fee], msgspec.json.encode(old))
    for book in (told, snapped, Book.restore(snapped.snapshot())):
        position = book.positions.open[BTC]
        assert (position.stop_loss, position.take_profit) == (D("99.5"), D(120))
        assert position.realised_pnl == D("-0.1")
