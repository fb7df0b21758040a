"""Reading TWS messages: exact numbers, honest times, and hostile frames that never become success."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import attrs
import pytest
from tests.support.ibkr import order

from execkit.clock import ManualClock
from execkit.exchanges.ibkr.contracts import Contracts, Listed
from execkit.exchanges.ibkr.raw import RawDecoder, exact, maybe, moment
from execkit.exchanges.ibkr.table import OrderTable
from execkit.model.order import Fill, OrderState
from execkit.testing.fuzz import fuzz_decoder
from execkit.testing.venues.tws import messages
from execkit.testing.venues.tws.listing import defaults
from execkit.testing.venues.tws.messages import Executed, TwsOrder
from execkit.testing.venues.tws.wire import SentContract, SentOrder, split

NEW_YORK = ZoneInfo("America/New_York")
LISTING = defaults()[0]
CLOCK = ManualClock(datetime(2026, 1, 5, tzinfo=UTC))


class Heard:
    """A table of one order, and what it publishes of the frames that it is fed."""

    def __init__(self, version=178):
        self.told = []
        contracts = Contracts(lambda: None, CLOCK, hours_max_age=timedelta(0))
        self.table = OrderTable(
            contracts,
            CLOCK,
            client_id=1,
            fee_wait=0.0,
            publish=self.told.append,
            uplink=lambda _code: None,
        )
        self.known = self.table.begin(order(), listed())
        self.known.order_id = 5
        self.table._by_id[5] = self.known
        self.known.sends = 1
        self.decoder = RawDecoder(self, None)
        self.decoder.serverVersion = version
        self.rows = []
        for name in ("on_order", "on_status", "on_execution", "on_commission"):
            setattr(self, name, getattr(self.table, name))

    def on_error(self, request_id, code, text):
        self.table.on_order_error(request_id, code, text)

    def on_row(self, key, row):
        self.rows.append((key, row))

    def on_end(self, key):
        self.rows.append((key, None))

    def on_unreadable(self, _message, problem):
        self.table.on_gap(problem)

    def feed(self, frame):
        self.decoder.interpret(split(frame[4:]))
        return self.told


def listed():
    return Listed(
        symbol="AAPL",
        contract=None,
        units=Decimal(1),
        bands=((Decimal(0), Decimal("0.01")),),
        lot=Decimal(1),
        minimum=Decimal(1),
        regular=(),
        extended=(),
        seen_at=CLOCK.now(),
    )


def venue_order(**changes):
    sent = {
        "order_id": 5,
        "contract": SentContract(265598, "AAPL", "STK", "", "SMART", "", "USD", ""),
        "action": "BUY",
        "quantity": Decimal(10),
        "order_type": "LMT",
        "limit": Decimal("180.25"),
        "aux": None,
        "tif": "GTC",
        "oca_group": "",
        "account": "DU1",
        "ref": order().client_order_id,
        "transmit": True,
        "parent_id": 0,
        "outside_rth": False,
        "good_till": "",
        "oca_type": 0,
        "trail_stop": None,
        "trail_percent": None,
        "what_if": False,
        "cash": None,
    }
    state = {"status": "Submitted", "client_id": 1, "perm_id": 77, "tif": "GTC"}
    return TwsOrder(sent=SentOrder(**sent), listing=LISTING, **(state | changes))


def executed(shown):
    fill = Fill(
        trade_id="1",
        client_order_id="77",
        venue_order_id="1",
        symbol="AAPL",
        side="buy",
        quantity=Decimal(4),
        price=Decimal("180.25"),
        at=CLOCK.now(),
        fee=Decimal("0.35"),
        fee_asset="USD",
    )
    return Executed(
        exec_id="0000e0d5.00000001.01.01",
        order=shown,
        fill=fill,
        quantity=Decimal(4),
        price=Decimal("180.25"),
        cumulated=Decimal(4),
        at="20260105-00:00:00",
    )


def frames(version):
    shown = venue_order()
    done = venue_order(status="Filled", filled=Decimal(10), notional=Decimal(1802))
    return [
        messages.open_order(shown, version),
        messages.open_order(done, version),
        messages.completed_order(done, version),
        messages.order_status(shown),
        messages.order_status(done),
        messages.exec_details(-1, executed(shown), version),
        messages.commission(executed(shown)),
        messages.error(5, 201, "Order rejected - reason:no", version),
        messages.error(5, 202, "Order Canceled - reason:", version),
        messages.position("DU1", LISTING, Decimal(10), Decimal("180.5"), 9),
        messages.contract_details(9, LISTING, version),
        messages.market_rule(26, LISTING.bands),
    ]


@pytest.mark.parametrize("version", [157, 163, 170, 178])
def test_hostile_frames(version):
    """Mutated frames of every kind: no error gets out, no success without an id, no impossible fill, no float."""
    known = frames(version)

    async def decode(frame):
        heard = Heard(version)
        heard.feed(b"\0\0\0\0" + frame)
        heard.feed(known[3])  # and what is well formed is still read afterwards
        return heard.told

    result = fuzz_decoder(
        decode, [each[4:] for each in known], rng=random.Random(version), count=5_000
    )
    result.check()
    assert result.mutations == 5_000
    assert result.outcomes["decoded"] > 3_000


async def test_frames_as_they_are():
    """What TWS says of an order's life adds up to reports and one fill with its fee."""
    heard = Heard()
    opened, _, _, status, _, details, fee, *_ = frames(178)
    for frame in (opened, status, details, fee):
        heard.feed(frame)
    fills = [each for each in heard.told if isinstance(each, Fill)]
    assert [(f.quantity, f.price, f.fee, f.at) for f in fills[-1:]] == [
        (4, Decimal("180.25"), Decimal("0.35"), CLOCK.now())
    ]
    last = [each for each in heard.told if not isinstance(each, Fill)][-1]
    assert (last.status, last.filled, last.limit_price) == (
        OrderState.PARTIALLY_FILLED,
        4,
        Decimal("180.25"),
    )


@pytest.mark.parametrize("amount", ["-1", "", "1.7976931348623157E308"])
async def test_commission_that_is_none(amount):
    """A placeholder is no commission: -1, nothing, and the largest double."""
    heard = Heard()
    shown = venue_order()
    heard.feed(messages.exec_details(-1, executed(shown), 178))
    heard.decoder.interpret(["59", "1", "0000e0d5.00000001.01.01", amount, "USD", "", "", ""])
    (execution,) = heard.known.executions.values()
    assert execution.fee is None


async def test_commission_before_its_execution():
    """A commission that overtakes its execution is kept for it."""
    heard = Heard()
    shown = venue_order()
    heard.feed(messages.commission(executed(shown)))
    heard.feed(messages.exec_details(-1, executed(shown), 178))
    (fill,) = [each for each in heard.told if isinstance(each, Fill)]
    assert fill.fee == Decimal("0.35")


@pytest.mark.parametrize(
    ("version", "quantity", "former"),
    [("02", "6", ""), ("03", "6", ".02"), ("11", "6", ".10"), ("03", "0", ".02")],
)
async def test_a_correction_of_an_earlier_session_names_the_version_before_it(
    version, quantity, former
):
    """B12 B13: an adapter that saw none of the versions before says which one is replaced, also by nothing."""
    heard = Heard()
    base = "0000e0d5.00000001.01"
    told = attrs.evolve(
        executed(venue_order()), exec_id=f"{base}.{version}", quantity=Decimal(quantity)
    )
    heard.feed(messages.exec_details(-1, told, 178))
    (fill,) = [each for each in heard.told if isinstance(each, Fill)]
    assert (fill.trade_id, fill.replaces) == (f"{base}.{version}", f"{base}{former}")
    assert fill.quantity == Decimal(quantity)
    assert (heard.known.state is OrderState.PARTIALLY_FILLED) == (quantity != "0")


async def test_an_execution_of_nothing_is_none():
    """Only a correction can take away."""
    heard = Heard()
    told = attrs.evolve(executed(venue_order()), quantity=Decimal(0))
    heard.feed(messages.exec_details(-1, told, 178))
    assert not any(isinstance(each, Fill) for each in heard.told)


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("20260105-15:00:00", None, datetime(2026, 1, 5, 15, tzinfo=UTC)),
        ("20260105-15:00:00", NEW_YORK, datetime(2026, 1, 5, 15, tzinfo=UTC)),
        ("20260105 10:00:00 US/Eastern", None, datetime(2026, 1, 5, 15, tzinfo=UTC)),
        ("20260706 10:00:00 US/Eastern", None, datetime(2026, 7, 6, 14, tzinfo=UTC)),
        ("20260105  10:00:00", NEW_YORK, datetime(2026, 1, 5, 15, tzinfo=UTC)),
        ("20260105  10:00:00", None, None),
        ("20260105 10:00:00 Nowhere/Land", None, None),
        ("20260105 10:00:00 ../etc/passwd", None, None),
        ("1767625200", None, datetime(2026, 1, 5, 15, tzinfo=UTC)),
        ("20260105", None, datetime(2026, 1, 5, tzinfo=UTC)),
    ],
)
def test_times(text, zone, meant):
    """Every spelling of a time that TWS has; an unknown zone is no time, and never a wrong one."""
    assert moment(text, zone) == meant


@pytest.mark.parametrize(
    "text", ["NaN", "inf", "1e400", "\uff11\uff12", "1_000", " 1", "0x10", "x", "-"]
)
def test_numbers_that_are_none(text):
    """Nothing but a plain finite number is read as one."""
    with pytest.raises(ValueError, match="number"):
        exact(text)


def test_doubles_are_the_text_they_were_made_from():
    """A double of ib_async's decoder gives back the decimal that TWS wrote, up to 15 digits."""
    rng = random.Random(1)
    for _ in range(2_000):
        text = f"{rng.randrange(1, 10**11)}.{rng.randrange(10**4):04d}"
        assert exact(float(text)) == Decimal(text)
    assert maybe(1.7976931348623157e308) is None
