"""Reading the store."""

from datetime import timedelta

import pytest

from execkit.errors import ConfigurationError
from execkit.model.order import OrderRole, Side
from execkit.store.projection import Projection
from execkit.store.queries import StoreReader


@pytest.fixture
def reader(memory, url):
    for name in "abc":
        memory.order(name, symbol="BTC/USDT")
    memory.order("d", symbol="ETH/USDT", side=Side.SELL)
    memory.intend("e", symbol="ETH/USDT")
    with Projection(url) as projection:
        projection.apply(memory.journal.entries)
    with StoreReader(url) as made:
        yield made


def ids(rows):
    return "".join(row["client_order_id"] for row in rows)


def test_rows_are_filtered_by_symbol_and_state(reader):
    """Filters combine."""
    assert ids(reader.orders()) == "abcde"
    assert ids(reader.orders(symbol="ETH/USDT")) == "de"
    assert ids(reader.orders(symbol="ETH/USDT", state="new")) == "e"
    assert ids(reader.fills(client_order_id="b")) == "b"
    assert [p["quantity"] for p in reader.positions(state="open", symbol="ETH/USDT")] == [-1]


def test_rows_are_filtered_by_time(reader, memory):
    """*since* is inclusive, *until* is not, and the limit keeps the newest."""
    first, second, *_ = (row["created_at"] for row in reader.orders())
    assert ids(reader.orders(since=second)) == "bcde"
    assert ids(reader.orders(until=second)) == "a"
    assert ids(reader.orders(since=first, until=second + timedelta(microseconds=1))) == "ab"
    assert ids(reader.orders(limit=2)) == "de"
    assert ids(reader.orders(symbol="BTC/USDT", limit=2)) == "bc"


def test_the_executions_of_a_position_tell_its_life(memory, url):
    """Entry, scale-in and exit, each with the role of its order; the next position's are its own."""
    memory.order("in", "2", symbol="XRP/USDT")
    memory.order("more", "1", symbol="XRP/USDT")
    memory.intend("out", "3", symbol="XRP/USDT", side=Side.SELL, role=OrderRole.EXIT)
    memory.happen("out", "submit", attempt=1)
    memory.fill("out", "3", "110", symbol="XRP/USDT", side=Side.SELL)
    memory.order("again", "1", symbol="XRP/USDT")
    with Projection(url) as projection:
        projection.apply(memory.journal.entries)
    with StoreReader(url) as reader:
        first, second = reader.positions(symbol="XRP/USDT")
        rows = reader.position_fills(first["position_id"])
        assert [(row["client_order_id"], row["role"]) for row in rows] == [
            ("in", "entry"),
            ("more", "entry"),
            ("out", "exit"),
        ]
        assert ids(reader.position_fills(second["position_id"])) == "again"
        with pytest.raises(ConfigurationError, match="there is no position 'none'"):
            reader.position_fills("none")


def test_a_missing_store_is_named(tmp_path):
    """Reading makes no empty file."""
    with pytest.raises(ConfigurationError, match=r"there is no store at '.*none\.sqlite'; rebuild"):
        StoreReader(f"sqlite:///{tmp_path}/none.sqlite")
    assert list(tmp_path.iterdir()) == []
