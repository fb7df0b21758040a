"""The summary adds up a journal; every figure here is computed by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from rich.console import Console

from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Fill, OrderEvent, OrderRequest, OrderRole, OrderType, Side
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    BarClosed,
    Entry,
    EquityMarked,
    Filled,
    Intent,
    OrderChanged,
    SignalResult,
    Source,
)
from execkit.model.result import Outcome
from execkit.report.summary import Summary
from execkit.report.terminal import render, show

D = Decimal
START = datetime(2024, 1, 1, tzinfo=UTC)
BTC = "BTC/USDT"


class Story:
    """Makes entries, one a minute."""

    def __init__(self):
        self.entries = []
        self.orders = 0
        self.trades = 0
        self.add(BalancesSeen(totals={"USDT": D(1_000)}, source=Source.RECOVERY))
        self.add(EquityMarked(equity=D(1_000), opens_session=True))

    @property
    def now(self):
        return START + timedelta(minutes=len(self.entries))

    def add(self, record):
        self.entries.append(Entry(len(self.entries) + 1, self.now, record))

    def order(self, side, quantity, *fills, role=OrderRole.ENTRY, symbol=BTC, fee="0", stop=None):
        self.orders += 1
        name = f"o{self.orders}"
        request = OrderRequest(
            client_order_id=name,
            symbol=symbol,
            side=side,
            type=OrderType.MARKET if stop is None else OrderType.STOP,
            quantity=D(quantity),
            stop_price=stop,
        )
        self.add(Intent(request=request, payload_hash="", role=role, parent=name, signal_id=name))
        for event in (OrderEvent.SUBMIT, OrderEvent.ACCEPT):
            self.add(OrderChanged(client_order_id=name, event=event, source=Source.ACK))
        for amount, price in fills:
            self.trades += 1
            fill = Fill(
                trade_id=f"t{self.trades}",
                client_order_id=name,
                venue_order_id=f"v{name}",
                symbol=symbol,
                side=side,
                quantity=D(amount),
                price=D(price),
                at=self.now,
                fee=D(fee),
                fee_asset="USDT",
            )
            self.add(Filled(fill=fill, source=Source.STREAM))

    def deny(self, code, **context):
        self.add(
            SignalResult(
                signal_id=f"s{len(self.entries)}",
                signal_digest="",
                symbol=BTC,
                side=Side.BUY,
                outcome=Outcome.DENIED,
                denial=Denial.of(code, **context),
            )
        )


def test_a_trade_is_a_position_from_flat_to_flat():
    """Entry and exit are means over the fills, P&L is after fees, and the last order says how it ended."""
    story = Story()
    story.order(Side.BUY, 3, (1, 100), (2, 103), fee="0.1")
    story.order(Side.SELL, 3, (1, 110), (2, 116), role=OrderRole.TARGET, fee="0.2")
    summary = Summary.of(story.entries)
    (trade,) = summary.trades
    assert (trade.side, trade.quantity, trade.ended_by) == (Side.BUY, 3, OrderRole.TARGET)
    assert (trade.entry_price, trade.exit_price) == (102, 114)
    assert trade.pnl == 3 * (114 - 102) - D("0.6")
    assert summary.realised == {"USDT": D("35.4")}
    assert summary.fees == {"USDT": D("0.6")}
    assert summary.equity("USDT") == D("1035.4")
    assert summary.opening_equity == 1_000


def test_a_short_is_a_trade_too():
    """Sold at 100, bought back at 90."""
    story = Story()
    story.order(Side.SELL, 2, (2, 100))
    story.order(Side.BUY, 2, (2, 90), role=OrderRole.EXIT)
    (trade,) = Summary.of(story.entries).trades
    assert (trade.side, trade.entry_price, trade.exit_price, trade.pnl) == (Side.SELL, 100, 90, 20)


def test_what_is_open_is_valued_at_the_marks():
    """At those given, else at the last bar that was journalled."""
    story = Story()
    story.order(Side.BUY, 2, (2, 100))
    story.add(
        BarClosed(
            symbol=BTC, timeframe="1m", close_time=story.now, high=D(130), low=D(90), close=D(120)
        )
    )
    assert Summary.of(story.entries).unrealised == {"USDT": 40}
    assert Summary.of(story.entries, marks={BTC: D(105)}).unrealised == {"USDT": 10}


def test_refusals_and_alarms_are_collected():
    """With code, value and limit, at their time."""
    story = Story()
    story.deny(DenialCode.NOTIONAL_TOO_LARGE, notional=D(600), limit=D(500))
    story.add(Alarm(code="MISMATCH", text="BTC: ours 1, the venue's 2", symbol=BTC))
    told = Summary.of(story.entries).to_dict()
    (denial,) = told["denials"]
    assert denial["code"] == "NOTIONAL_TOO_LARGE"
    assert (denial["notional"], denial["limit"]) == ("600", "500")
    assert denial["text"] == "NOTIONAL_TOO_LARGE: notional=600, limit=500"
    assert [alarm["code"] for alarm in told["alarms"]] == ["MISMATCH"]


def test_numbers_for_programs_are_exact_text():
    """No exponent, no trailing zeros, nothing lost."""
    story = Story()
    story.order(Side.BUY, "0.00000100", ("0.00000100", "42000.10"))
    told = Summary.of(story.entries).to_dict()
    assert told["orders"][0]["quantity"] == "0.000001"
    assert told["fills"][0]["price"] == "42000.1"
    assert told["positions"][0]["quantity"] == "0.000001"


def text_of(summary, **options):
    console = Console(width=100, record=True, file=None)
    with console.capture() as captured:
        console.print(render(summary, currency="USDT", **options))
    return captured.get()


def test_tables_show_orders_trades_refusals_and_money():
    """A rule that refuses all day takes one line, with a count and the newest values."""
    story = Story()
    story.order(Side.BUY, 1, (1, 100), fee="0.1")
    story.order(Side.SELL, 1, (1, 90), role=OrderRole.STOP, fee="0.1", stop=D(91))
    for notional in (600, 700):
        story.deny(DenialCode.NOTIONAL_TOO_LARGE, notional=D(notional), limit=D(500))
    text = text_of(Summary.of(story.entries), title="A day")
    for part in (
        "A day",
        "Orders (2)",
        "buy 1 market",
        "sell 1 stop 91",
        "filled @ 90",
        "long 1",
        "Refusals (2)",
        "notional=700, limit=500",
        "-10.20 USDT",
        "1,000.00 USDT",
        "989.80 USDT",
    ):
        assert part in text
    assert "notional=600" not in text
    assert "Alarms" not in text


def test_tables_keep_to_the_newest_rows():
    """And say so."""
    story = Story()
    for _ in range(5):
        story.order(Side.BUY, 1)
    text = text_of(Summary.of(story.entries), rows=2)
    assert "Orders (5, the last 2)" in text
    assert text.count("buy 1 market") == 2


def test_an_empty_journal_has_an_empty_summary(capsys):
    """Nothing happened, and that is shown."""
    show(Console(width=100), Summary.of([]), currency="USDT")
    assert "Orders (0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("price", "shown"), [("1234567.5", "1,234,567.5"), ("0.00001234", "0.000012"), ("999", "999")]
)
def test_prices_are_shown_in_groups(price, shown):
    """Thousands in groups, six decimals of a mean price."""
    story = Story()
    story.order(Side.BUY, 1, (1, price))
    assert f"filled @ {shown}" in text_of(Summary.of(story.entries))


def test_a_corrected_execution_counts_once():
    """The venue corrected 1 at 100 to 1 at 90 with another fee: figures are those of the correction alone."""
    story = Story()
    story.order(Side.BUY, 2, (1, 100), fee="0.5")
    (wrong,) = (e.record.fill for e in story.entries if isinstance(e.record, Filled))
    right = msgspec.structs.replace(
        wrong, trade_id="t1b", price=D(90), fee=D("0.45"), replaces=wrong.trade_id
    )
    story.add(Filled(fill=right, source=Source.STREAM))
    story.order(Side.SELL, 1, (1, 95), role=OrderRole.EXIT, fee="0.1")
    summary = Summary.of(story.entries)
    assert [fill.trade_id for fill, _ in summary.fills] == ["t1b", "t2"]
    assert summary.fees == {"USDT": D("0.55")}
    (trade,) = summary.trades
    assert (trade.quantity, trade.entry_price, trade.exit_price) == (1, 90, 95)
    assert trade.pnl == D(5) - D("0.55")


def test_a_corrected_exit_has_the_corrected_price():
    """Of two sales at 110 and 120 the first was in truth at 90: the exit's mean is 105."""
    story = Story()
    story.order(Side.BUY, 2, (2, 100))
    story.order(Side.SELL, 2, (1, 110), role=OrderRole.EXIT)
    wrong = story.entries[-1].record.fill
    right = msgspec.structs.replace(wrong, trade_id="t2b", price=D(90), replaces=wrong.trade_id)
    story.add(Filled(fill=right, source=Source.STREAM))
    story.order(Side.SELL, 1, (1, 120), role=OrderRole.EXIT)
    (trade,) = Summary.of(story.entries).trades
    assert (trade.exit_price, trade.pnl) == (105, 10)
