"""Records to fill a store with, and a journal to write them to."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal as D

import pytest

from execkit.clock import ManualClock
from execkit.journal.base import MemoryJournal
from execkit.journal.file import FileJournal
from execkit.model.order import Fill, OrderEvent, OrderRequest, OrderRole, OrderType, Side
from execkit.model.records import Filled, Intent, OrderChanged, Source
from execkit.orders.book import Book
from execkit.store.projection import default_url

START = datetime(2024, 1, 1, tzinfo=UTC)


class Story:
    """Appends records to a journal, a second apart, and folds them."""

    def __init__(self, journal):
        self.journal = journal
        self.book = Book()
        self.now = START
        self.trades = 0

    def tell(self, *records):
        for record in records:
            self.now += timedelta(seconds=1)
            self.book.apply(record, self.now)
            self.journal.append(record, self.now)

    def intend(self, name, quantity="1", *, symbol="BTC/USDT", side=Side.BUY, role=OrderRole.ENTRY):
        request = OrderRequest(
            client_order_id=name,
            symbol=symbol,
            side=side,
            type=OrderType.LIMIT,
            quantity=D(quantity),
            limit_price=D("100.50"),
        )
        self.tell(
            Intent(
                request=request,
                payload_hash=request.payload_hash,
                role=role,
                parent=f"parent-{name}",
                signal_id=f"signal-{name}",
                signal_digest="d",
                expected_price=D(100),
                stop_loss=D(95),
                strength=D(80),
            )
        )

    def happen(self, name, event, **more):
        self.tell(
            OrderChanged(client_order_id=name, event=OrderEvent(event), source=Source.ACK, **more)
        )

    def fill(self, name, quantity, price, *, symbol="BTC/USDT", side=Side.BUY, **more):
        self.trades += 1
        fill = Fill(
            **{
                "trade_id": f"t{self.trades}",
                "client_order_id": name,
                "venue_order_id": f"v-{name}",
                "symbol": symbol,
                "side": side,
                "quantity": D(quantity),
                "price": D(price),
                "at": self.now,
                **more,
            }
        )
        self.tell(Filled(fill=fill, source=Source.STREAM))
        return fill

    def order(self, name, quantity="1", price="100", **more):
        """Tell the whole life of an order that fills at once."""
        symbol, side = more.get("symbol", "BTC/USDT"), more.get("side", Side.BUY)
        self.intend(name, quantity, symbol=symbol, side=side)
        self.happen(name, "submit", attempt=1)
        self.happen(name, "accept", venue_order_id=f"v-{name}")
        self.fill(name, quantity, price, symbol=symbol, side=side)


@pytest.fixture
def memory():
    return Story(MemoryJournal())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "orders.db"


@pytest.fixture
def url(path):
    return default_url(path)


@pytest.fixture
def open_story(path):
    """Open the journal file and return a story on it; the journal is to be closed by the test."""

    def opened(**options):
        journal = FileJournal.open(
            path, account="acct", clock=ManualClock(), durability="process", **options
        )
        story = Story(journal)
        journal.set_snapshot(story.book.snapshot)
        return story

    return opened
