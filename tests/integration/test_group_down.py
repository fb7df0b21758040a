"""A group with a venue that cannot be reached at the start: what a person asks for meanwhile holds there too."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import ExchangeUnavailableError, ExecKitError
from execkit.group import EngineGroup
from execkit.journal.file import FileJournal
from execkit.journal.segments import read_entries
from execkit.model.order import Side
from execkit.model.records import TradingState
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
PRICES = {BTC: Decimal(42_000), ETH: Decimal(2_500)}
D = Decimal


class Venue(MockExchange):
    """A mock that refuses to be connected so often, and may hang then."""

    refusals = 0
    hangs = False

    async def connect(self):
        if self.refusals:
            self.refusals -= 1
            raise ExchangeUnavailableError("down")
        if self.hangs:
            await asyncio.Event().wait()
        await super().connect()

    async def close(self):
        if self.hangs:
            await asyncio.Event().wait()
        await super().close()


def signal(exchange, **changes):
    values = {"symbol": BTC, "side": Side.BUY, "confluence": 4, "quantity": D("0.01")}
    return TradingSignal(exchange=exchange, **(values | changes))


def engines_of(clock, tmp_path, *, core=None, **refusals):
    """Return two engines with journals; *core* is what the first venue has, from a run before."""
    venues = [Venue(name=name, clock=clock, prices=PRICES) for name in ("one", "two")]
    for venue in venues:
        venue.refusals = refusals.get(venue.name, 0)
    venues[0].core = core or venues[0].core
    return [
        ExecutionEngine(each, journal=tmp_path / f"{each.name}.db", clock=clock, store=False)
        for each in venues
    ]


async def pass_time(clock, seconds):
    await clock.sleep_until(clock.now() + timedelta(seconds=seconds))


async def trade(clock, tmp_path):
    """Leave a position with its stop and an entry that rests at the first venue; return that and the open orders."""
    engines = engines_of(clock, tmp_path)
    async with EngineGroup(engines) as group:
        assert (await group.submit(signal("one"))).filled
        await group.submit(signal("one", symbol=ETH, limit_price=D(2_450)))
        await group["one"].desk.keeper.idle()
        orders = set(group["one"].orders.active)
    assert len(orders) == 2
    return engines[0].settings.exchange.core, orders


@pytest.mark.parametrize("has_file", [True, False])
def test_a_halt_holds_for_a_venue_that_is_down(tmp_path, has_file):
    """It is halted when it comes up, with the person's cause and name, until they resume."""

    async def main(clock):
        engines = engines_of(clock, tmp_path, one=4)
        if not has_file:
            engines[0].settings = attrs.evolve(engines[0].settings, journal=None)
        async with EngineGroup(engines) as group:
            await group.halt("the news", actor="ada")
            await pass_time(clock, 60)
            for name in group:
                denied = await group.submit(signal(name))
                assert "the news" in str(denied.denial)
                assert group[name].book.state_record.actor == "ada"
            await group.resume()
            assert (await group.submit(signal("one"))).filled

    run_virtual(main)


def test_a_halt_of_a_venue_that_is_down_survives_a_restart(tmp_path):
    """It is in the journal, although the engine never ran; so is its end."""

    async def main(clock):
        async with EngineGroup(engines_of(clock, tmp_path, one=1_000)) as group:
            await group.halt("the news", actor="ada")
        async with EngineGroup(engines_of(clock, tmp_path, one=2)) as group:
            await pass_time(clock, 60)
            assert group["one"].trading_state is TradingState.HALTED
            assert group["one"].book.state_record.cause == "the news"
        async with EngineGroup(engines_of(clock, tmp_path, one=1_000)) as group:
            await group.resume(actor="ada")
        async with EngineGroup(engines_of(clock, tmp_path)) as group:
            assert (await group.submit(signal("one"))).filled

    run_virtual(main)


@pytest.mark.parametrize("command", ["cancel_all", "flatten"])
def test_what_cannot_be_done_at_a_venue_that_is_down_is_named_and_done_later(tmp_path, command):
    """With what its journal knows; once it can be reached it is done there too, and stays halted."""

    async def main(clock):
        core, orders = await trade(clock, tmp_path)
        engines = engines_of(clock, tmp_path, core=core, one=6)
        async with EngineGroup(engines) as group:
            left = await getattr(group, command)()
            assert list(left) == ["one", "two"]
            assert (left["two"].error, left["two"].is_flat) == ("", True)
            assert left["one"].account == group["one"].settings.exchange.account
            assert set(left["one"].orders) == orders
            assert left["one"].positions == {BTC: D("0.01")}
            assert left["one"].error == (
                "one could not be reached since the start: it is done when that answers"
            )
            await pass_time(clock, 120)
            assert group["one"].trading_state is TradingState.HALTED
        held = [each.quantity for each in core.positions()]
        resting = [each.symbol for each in core.open_orders()]
        assert (held, resting) == (([], []) if command == "flatten" else ([D("0.01")], [BTC]))

    run_virtual(main)


def test_a_cancel_all_does_not_take_a_flatten_back(tmp_path):
    """A person presses both buttons while the venue is down: the stronger one counts."""

    async def main(clock):
        core, _ = await trade(clock, tmp_path)
        async with EngineGroup(engines_of(clock, tmp_path, core=core, one=6)) as group:
            await group.flatten()
            await group.cancel_all()
            await pass_time(clock, 120)
            assert (core.positions(), core.open_orders()) == ([], [])

    run_virtual(main)


def test_a_resume_takes_back_what_waits_for_a_venue(tmp_path):
    """A person who lets entries go on does not want everything closed when the venue comes up."""

    async def main(clock):
        core, _ = await trade(clock, tmp_path)
        async with EngineGroup(engines_of(clock, tmp_path, core=core, one=6)) as group:
            await group.flatten()
            await group.resume()
            await pass_time(clock, 120)
            assert group["one"].trading_state is TradingState.ACTIVE
            assert [each.quantity for each in core.positions()] == [D("0.01")]

    run_virtual(main)


def test_a_halt_that_cannot_be_written_is_told_after_the_others_are_halted(tmp_path):
    """The error names the venue; it is halted all the same as long as this process lives."""

    async def main(clock):
        async with EngineGroup(engines_of(clock, tmp_path, one=4)) as group:
            account = group["one"].settings.exchange.account
            other = FileJournal.open(tmp_path / "one.db", account=account, clock=clock)
            with pytest.raises(ExecKitError, match=r"^one: .*one\.db is in use"):
                await group.halt("the news")
            left = await group.flatten()
            assert "a restart would forget it" in left["one"].error
            assert group["two"].trading_state is TradingState.HALTED
            await pass_time(clock, 10)
            await other.close()
            await pass_time(clock, 300)
            assert group["one"].book.state_record.cause == "everything is taken out by emergency"

    run_virtual(main)


def test_a_resume_does_not_pass_the_file_that_halts(tmp_path):
    """As at an engine that runs."""

    async def main(clock):
        async with EngineGroup(engines_of(clock, tmp_path, one=1_000)) as group:
            await group.halt("the news")
            (tmp_path / "one.db.halt").touch()
            with pytest.raises(ExecKitError, match=r"^one: the file .*one\.db\.halt still halts"):
                await group.resume()
            assert group["two"].trading_state is TradingState.ACTIVE
            (tmp_path / "one.db.halt").unlink()
            await group.resume()

    run_virtual(main)


def test_a_halt_of_those_that_run_waits_for_no_start(tmp_path):
    """A start that hangs takes long to be given up, and nobody enters anything meanwhile."""

    async def main(clock):
        engines = engines_of(clock, tmp_path, one=1)
        venue = engines[0].settings.exchange
        venue.hangs = True
        async with EngineGroup(engines) as group:
            await pass_time(clock, 2)  # the next try hangs by now
            halting = asyncio.ensure_future(group.halt("the news"))
            await pass_time(clock, 0.1)
            assert group["two"].trading_state is TradingState.HALTED
            assert not halting.done()
            venue.hangs = False
            await halting
            await pass_time(clock, 60)
            assert group["one"].book.state_record.cause == "the news"

    run_virtual(main)


def test_a_halt_of_those_that_are_down_waits_for_no_start_of_another(tmp_path):
    """Each has its own turn: the journal of one has its halt while the start of the other is given up."""

    async def main(clock):
        engines = engines_of(clock, tmp_path, one=1, two=1_000)
        engines[0].settings.exchange.hangs = True
        async with EngineGroup(engines) as group:
            await pass_time(clock, 2)
            halting = asyncio.ensure_future(group.halt("the news"))
            await pass_time(clock, 0.1)
            assert [each.record.cause for each in read_entries(tmp_path / "two.db")] == ["the news"]
            engines[0].settings.exchange.hangs = False
            await halting

    run_virtual(main)


def test_a_halt_outlives_a_start_that_fails(tmp_path):
    """Where the journal keeps nothing, a start that came as far as the halt does not use it up."""

    async def main(clock):
        engines = engines_of(clock, tmp_path, one=2)
        engines[0].settings = attrs.evolve(engines[0].settings, journal=None)
        venue = engines[0].settings.exchange
        asked = []

        async def open_orders(*args):
            asked.append(args)
            if len(asked) == 1:
                raise ExchangeUnavailableError("down again")
            return await Venue.open_orders(venue, *args)

        venue.open_orders = open_orders
        async with EngineGroup(engines) as group:
            await group.halt("the news", actor="ada")
            await pass_time(clock, 60)
            assert len(asked) > 1
            denied = await group.submit(signal("one"))
            assert "the news" in str(denied.denial)
            await group.resume()
            assert (await group.submit(signal("one"))).filled

    run_virtual(main)
