"""What a person does from the command line, in another process, to an engine at each venue on the wire."""

from decimal import Decimal

from tests.support.life import living, on, seconds
from tests.support.stages import SetClock
from tests.support.terminal import Terminal

from execkit.journal.segments import read_entries
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState
from execkit.model.records import OperatorActed, TradingState
from execkit.model.result import Outcome
from execkit.testing.venues.faults import Mishap

D = Decimal


def lose_an_order(life):
    """Lose the next order on its way, and then the venue."""
    if life.name == "ibkr":
        life.venue.is_down = True
        life.venue.fault("place", Mishap.DROP_REQUEST)
    else:
        life.venue.fail_next("place", Mishap.DROP_REQUEST)
        life.venue.fail_next("read", Mishap.DROP_REQUEST, times=10_000)


@on()
async def test_commands_of_another_process(name, tmp_path):
    """`execkit halt`, `resume`, `close`, `resolve`, `cancel-all` and `flatten` from another process, each audited."""
    journal = tmp_path / "orders.db"
    clock = SetClock()
    async with (
        living(
            name, journal=journal, control=True, clock=clock, reconcile_every=seconds(0.3)
        ) as life,
        Terminal(journal, clock.offset.total_seconds()) as person,
    ):
        await life.enter()
        assert "halted" in await person.run("halt", "lunch")
        assert life.engine.trading_state is TradingState.HALTED
        denied = await life.submit(symbol=life.stage.other, quantity=D(1))
        assert denied.denial.code is DenialCode.TRADING_HALTED
        assert "active" in await person.run("resume")

        rests = {"quantity": D(1), "limit_price": D(192), "stop_loss": D(189)}
        taken = await life.submit(symbol=life.stage.other, **rests)
        order = life.engine.orders[taken.client_order_ids[-1]]
        stops = life.stops()
        assert order.client_order_id in await person.run("cancel-all")
        await life.until(lambda: order.state is OrderState.CANCELLED, "cancelled")
        assert life.stops() == stops, "stops stay"
        assert "active" in await person.run("resume")
        assert f"flat: {life.symbol}" in await person.run("close", life.symbol)
        await life.until(life.is_flat, "closed")
        assert "nothing to close" in await person.run("close", life.symbol)
        await life.enter()
        assert f"flat: {life.symbol}" in await person.run("flatten")
        await life.until(life.is_flat, "flat")
        assert "active" in await person.run("resume")

        sent = life.stage.taken()
        lose_an_order(life)
        lost = await life.submit(symbol=life.stage.other, **rests)
        assert lost.outcome is Outcome.IN_DOUBT, lost
        [key] = life.engine.orders.in_doubt
        said = await person.run("resolve", key, "--as", "presumed_absent")
        assert "presumed_absent" in said, said
        assert life.engine.orders[key].state is OrderState.PRESUMED_ABSENT
        life.stage.come_back()
        await life.until(lambda: not life.engine.desk.reconciler.is_blind, "compared")
        assert life.stage.taken() == sent

        await life.engine.stop()
        acts = [e.record for e in read_entries(journal) if isinstance(e.record, OperatorActed)]
        assert [act.command for act in acts] == [
            *("halt", "resume", "cancel-all", "resume", "close", "flatten", "resume", "resolve")
        ]
        assert all(act.actor for act in acts)
