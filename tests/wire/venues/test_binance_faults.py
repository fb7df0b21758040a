"""Every kind of fault of the control interface, seen from an unmodified ccxt, and what the venue has taken."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import ccxt.async_support as errors
import pytest

from execkit.errors import ConfigurationError
from execkit.testing.venues.faults import Mishap

SYMBOL = "BTC/USDT"


def place(ccxt, name="mine"):
    return ccxt.create_order(SYMBOL, "limit", "buy", "0.001", 40_000, {"newClientOrderId": name})


@pytest.mark.parametrize(
    ("kind", "details", "taken", "raised"),
    [
        ("drop_request", {}, 0, errors.ExchangeNotAvailable),
        ("drop_answer", {}, 1, errors.ExchangeNotAvailable),
        ("cut_body", {}, 1, errors.BaseError),
        ("html", {"status": 200, "reached": True}, 1, None),
        ("html", {"status": 403}, 0, errors.ExchangeNotAvailable),
        ("html", {"status": 502, "reached": True}, 1, errors.ExchangeNotAvailable),
        ("empty", {}, 1, None),
        ("cut_json", {}, 1, None),
        ("list", {}, 1, None),
        ("null", {}, 1, None),
        ("no_id", {}, 1, None),
        ("other_order", {}, 1, None),
        ("change", {"changes": {"status": "PENDING_REVIEW"}}, 1, None),
        ("change", {"changes": {"executedQty": "-5"}}, 1, None),
        ("change", {"changes": {"executedQty": "1e400"}}, 1, None),
        ("change", {"changes": {"executedQty": "NaN"}}, 1, Exception),
        ("nan", {}, 1, None),
        ("error", {"status": 503}, 0, errors.ExchangeNotAvailable),
        ("error", {"status": 503, "code": -1000, "reached": True}, 1, errors.OperationFailed),
        ("error", {"status": 500, "code": -1001}, 0, errors.OperationFailed),
        ("error", {"status": 500, "code": -1006, "reached": True}, 1, errors.OperationFailed),
        ("error", {"status": 408, "code": -1007, "reached": True}, 1, errors.RequestTimeout),
        ("error", {"status": 504, "code": -1007}, 0, errors.RequestTimeout),
        ("error", {"status": 503, "code": -1008}, 0, errors.BaseError),
        ("error", {"status": 400, "code": -1021}, 0, errors.InvalidNonce),
        (
            "error",
            {"status": 400, "code": -2010, "text": "Duplicate order sent."},
            0,
            errors.InvalidOrder,
        ),
        ("error", {"status": 429, "code": -1003, "text": "Too many"}, 0, errors.DDoSProtection),
        ("error", {"status": 418, "code": -1003, "text": "Banned"}, 0, errors.DDoSProtection),
    ],
)
async def test_place(venue, ccxt, kind, details, taken, raised):
    """What the client is told says nothing of what the venue has taken; the venue's own record does."""
    fault = venue.fail_next("place", kind, **details)
    if raised is None:
        answer = await place(ccxt)
        is_lost = kind in ("html", "empty", "cut_json", "list", "null", "no_id", "nan")
        assert (answer["id"] is None) is is_lost
    else:
        with pytest.raises(raised):
            await place(ccxt)
    assert (venue.sends("mine"), venue.accepted("mine")) == (1, taken)
    assert venue.faults.fired[fault.kind] == 1
    # Only once: the next order is taken and answered as ever.
    assert (await place(ccxt, "next"))["status"] == "open"


async def test_retry_after_is_told(venue, ccxt):
    """In the head of the answer, in whole seconds."""
    venue.fail_next(
        "place", "error", status=429, code=-1003, text="x", retry_after=timedelta(seconds=7)
    )
    with pytest.raises(errors.DDoSProtection):
        await place(ccxt)
    assert ccxt.last_response_headers["Retry-After"] == "7"


@pytest.mark.parametrize("reached", [False, True])
async def test_hang(venue, ccxt, reached):
    """No answer comes before the client gives up; what was done is done."""
    venue.fail_next("place", "hang", reached=reached)
    ccxt.timeout = 100
    with pytest.raises(errors.RequestTimeout):
        await place(ccxt)
    assert venue.accepted("mine") == reached


async def test_delay(venue, ccxt):
    """A right answer that is late until the test lets it go."""
    gate = asyncio.Event()
    venue.fail_next("place", "delay", until=gate)
    placing = asyncio.create_task(place(ccxt))
    await venue.until(lambda: venue.accepted("mine") == 1)
    assert not placing.done()
    gate.set()
    assert (await placing)["status"] == "open"


async def test_which_request_is_struck(venue, ccxt):
    """The nth one, several in a row, or only those that a test chooses."""
    venue.fail_next(
        "place", "drop_request", skip=1, times=2, only=lambda c: c.client_order_id != "spared"
    )
    seen = []
    for name in ("a", "spared", "b", "c", "d"):
        try:
            await place(ccxt, name)
        except errors.ExchangeNotAvailable:
            seen.append(name)
    assert seen == ["b", "c"]


async def test_unfilled_and_partial(venue, ccxt):
    """An order is acknowledged and executed later, whole or the rest of it."""
    venue.fail_next("place", "unfilled")
    venue.fail_next("place", "partial", fraction=Decimal("0.4"))
    for filled in (0, 0.0004):
        order = await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
        assert (order["status"], order["filled"]) == ("open", filled)
    await venue.move_price(SYMBOL, Decimal(42_100))
    assert await ccxt.fetch_open_orders(SYMBOL) == []
    assert (await ccxt.fetch_balance())["BTC"]["total"] == pytest.approx(0.001998)


@pytest.mark.parametrize(
    ("kind", "status"), [("expire", "EXPIRED"), ("expire_in_match", "EXPIRED_IN_MATCH")]
)
async def test_expired_by_the_venue(venue, ccxt, kind, status):
    """It was taken, and ended at once."""
    venue.fail_next("place", kind)
    assert (await place(ccxt))["info"]["status"] == status
    assert venue.accepted("mine") == 1


async def test_not_found_for_a_while(venue, ccxt):
    """A live order does not show: neither by its id, nor in lists."""
    await place(ccxt)
    for operation in ("get", "open", "fills"):
        venue.fail_next(operation, "not_found")
    with pytest.raises(errors.OrderNotFound):
        await ccxt.fetch_order("1", SYMBOL)
    assert await ccxt.fetch_open_orders(SYMBOL) == []
    assert (await ccxt.fetch_order("1", SYMBOL))["status"] == "open"
    assert len(await ccxt.fetch_open_orders(SYMBOL)) == 1


async def test_stale_reads(venue, ccxt):
    """Reads show the past until they are healed; orders are taken all the same."""
    await place(ccxt, "before")
    venue.fail_next("read", "stale", times=99)
    await place(ccxt, "after")
    await venue.fill("before")
    assert [o["clientOrderId"] for o in await ccxt.fetch_open_orders(SYMBOL)] == ["before"]
    assert await ccxt.fetch_my_trades(SYMBOL) == []
    assert "BTC" not in await ccxt.fetch_balance()
    venue.heal()
    assert [o["clientOrderId"] for o in await ccxt.fetch_open_orders(SYMBOL)] == ["after"]
    assert len(await ccxt.fetch_my_trades(SYMBOL)) == 1


async def test_darkness(venue, ccxt):
    """Nothing gets through, streams are cut, and afterwards all is as it was."""
    await place(ccxt)
    watching = asyncio.create_task(ccxt.watch_orders())
    await venue.until(lambda: bool(venue.listeners()))
    venue.go_dark()
    with pytest.raises(errors.NetworkError):
        await watching
    with pytest.raises(errors.ExchangeNotAvailable):
        await ccxt.fetch_open_orders(SYMBOL)
    assert venue.calls("open")[-1].lost
    venue.heal()
    assert len(await ccxt.fetch_open_orders(SYMBOL)) == 1


async def test_fault_of_a_stream_is_none_of_a_request(venue):
    """A kind that cannot strike there is refused when it is set."""
    with pytest.raises(ConfigurationError, match="cannot strike"):
        venue.fail_next("place", Mishap.LOSE)
    with pytest.raises(ConfigurationError, match="cannot strike"):
        venue.fail_next("stream", Mishap.HANG)


def test_every_kind_is_documented():
    """The how-to names each."""
    text = (Path(__file__).parents[3] / "docs/how-to/wire-venues.md").read_text()
    assert [kind for kind in Mishap if f"`{kind}`" not in text] == []
