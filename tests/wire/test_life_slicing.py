"""Large orders in parts at each venue on the wire, also across a restart in the middle: what the venue took."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.life import STOP, TARGET, living, on
from tests.support.stages import OPEN, let_clock_be_set

from execkit.model.events import OrderFailed
from execkit.model.order import Side
from execkit.model.result import Outcome
from execkit.model.slicing import Iceberg, Twap, Vwap
from execkit.slicing import slicer

D = Decimal
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    """Let the slicer look at the clock all the time, because a test sets it."""
    let_clock_be_set(monkeypatch)
    monkeypatch.setattr(slicer, "_LOOK_AGAIN", 0.005)


async def begin(life, slicing, **changes):
    result = await life.submit(
        quantity=D(12), slicing=slicing, stop_loss=STOP, take_profit=TARGET, **changes
    )
    assert result.outcome is Outcome.WORKING, result


async def bought(life, parts):
    """Wait until the venue has executed just these parts, and all of them are protected."""
    await life.until(
        lambda: life.executed(Side.BUY) == parts and life.is_protected(), f"{parts} are bought"
    )


@on()
@pytest.mark.parametrize(
    ("slicing", "parts"),
    [
        (Twap(duration=3 * MINUTE, slices=3), [4, 4, 4]),
        (Vwap(duration=3 * MINUTE, profile=(D(1), D(3), D(2))), [2, 6, 4]),
    ],
    ids=["twap", "vwap"],
)
async def test_parts_in_time(name, slicing, parts, tmp_path):
    """TWAP and VWAP: each part at its time, never more than the whole, across a restart in the middle."""
    async with living(name, journal=tmp_path / "orders.db") as life:
        await begin(life, slicing)
        for done, _ in enumerate(parts, start=1):
            await bought(life, parts[:done])
            if done == 2:
                await life.restart()
            life.stage.clock.set(OPEN + done * MINUTE)
        await life.until(lambda: not life.engine.book.parents.live, "the parent has ended")
        assert life.executed(Side.BUY) == parts
        assert sum(life.executed(Side.BUY)) == 12
        assert not life.entries()
        assert not [code for code in life.alarms() if code != "CLOCK_JUMPED"]


@on(alpaca="it takes no buy that rests beside a stop")
async def test_an_iceberg(name, tmp_path):
    """An iceberg shows one part at a time, and the next when it is executed, across a restart in the middle."""
    async with living(name, journal=tmp_path / "orders.db") as life:
        await begin(life, Iceberg(display=D(5)), limit_price=D(199))
        for number, part in enumerate((5, 5, 2)):
            await life.until(
                lambda part=part: life.entries() == [(part, D(199))], f"one part shows: {number}"
            )
            if number == 1:
                await life.restart()
                assert life.entries() == [(part, D(199))]
            await life.fill(part, 199)
        await life.until(lambda: not life.engine.book.parents.live, "the parent has ended")
        await bought(life, [5, 5, 2])
        assert not life.entries()
        assert not life.alarms()


@on("alpaca", **dict.fromkeys(("binance", "usdm", "ibkr"), "a buy rests beside a stop there"))
async def test_an_iceberg_where_no_buy_rests_beside_a_stop(name):
    """An iceberg ends with its first part where none can rest beside its stop: protected, and a person is told."""
    async with living(name) as life:
        failed = []
        life.engine.events.subscribe(OrderFailed, failed.append)
        await begin(life, Iceberg(display=D(5)), limit_price=D(199))
        await life.until(lambda: life.entries() == [(5, D(199))], "one part shows")
        await life.fill(5, 199)
        await life.until(lambda: not life.engine.book.parents.live, "the parent has ended")
        await bought(life, [5])
        await life.until(lambda: bool(failed), "told")
        assert "wash trade" in failed[0].reason
