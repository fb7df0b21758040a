"""What the engine is wired to: plans and their functions, the registry's audit, the store, one configuration file."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from execkit import (
    BarData,
    Config,
    ConfigurationError,
    ExchangeFactory,
    ExchangeUnavailableError,
    ExecutionEngine,
    ExecutionFunctionRegistry,
    ExecutionSignal,
    FileJournal,
    JournalCommitError,
    JournalCorruptedError,
    MemoryJournal,
    OrderRole,
    OrderState,
    Outcome,
    PaperExchange,
    Side,
    SystemClock,
    Timeframe,
    TradePlan,
    TradingSignal,
    run_virtual,
)
from execkit.audit.anchor import read_anchors
from execkit.audit.verify import verify_audit
from execkit.model.records import EquityMarked, Intent, RegistryChanged
from execkit.store.projection import default_url
from execkit.store.queries import StoreReader
from execkit.testing import Fault, FaultScript, MockExchange

BTC = "BTC/USDT"


def paper(**options):
    return PaperExchange(
        balances={"USDT": Decimal(10_000)}, prices={BTC: Decimal(42_000)}, **options
    )


def bar(clock, price, timeframe=Timeframe.M1):
    return BarData(BTC, timeframe, clock.now(), *[Decimal(price)] * 4, Decimal(100))


def plan(function="close_above", timeframe="1m", **options):
    parameters = {"threshold_price": 42_000} if function == "close_above" else {}
    rule = {"function": function, "timeframe": timeframe, "parameters": parameters}
    return TradePlan(name="test", symbol=BTC, entry=[rule], **options)


def records(journal, kind):
    return [entry.record for entry in journal.entries if isinstance(entry.record, kind)]


# -- plans ---------------------------------------------------------------------------------------------


def test_a_plan_uses_the_built_in_functions_without_a_registry():
    """A close above the level becomes an order."""

    async def main(clock):
        journal = MemoryJournal("mock")
        async with ExecutionEngine(
            MockExchange(clock=clock), journal=journal, plans=[plan()], clock=clock, currency="USDT"
        ) as engine:
            await engine.on_bar(bar(clock, 42_500))
            assert engine.positions[BTC].quantity > 0
        assert records(journal, RegistryChanged) == []

    run_virtual(main)


def test_what_the_application_registers_is_journalled():
    """Before and while the engine runs; not after it."""

    async def main(clock):
        registry = ExecutionFunctionRegistry(clock=clock)

        @registry.register("mine")
        async def mine(context):
            return ExecutionSignal.none("never")

        journal = MemoryJournal("mock")
        async with ExecutionEngine(
            MockExchange(clock=clock),
            journal=journal,
            functions=registry,
            plans=[plan("mine")],
            clock=clock,
            currency="USDT",
        ):
            registry.disable("mine", actor="operator")
        registry.enable("mine")
        found = [(r.name, r.action, r.actor) for r in records(journal, RegistryChanged)]
        assert found == [("mine", "register", "application"), ("mine", "disable", "operator")]

    run_virtual(main)


def test_bars_come_in_the_timeframe_of_the_plans_bar_file():
    """A plan on five-minute bars is driven by five-minute bars."""

    async def main(clock):
        await asyncio.sleep(300)
        five = plan(timeframe="5m", bars={"label": "close", "timeframe": "5m"})
        async with ExecutionEngine(
            MockExchange(clock=clock), journal=None, plans=[five], clock=clock, currency="USDT"
        ) as engine:
            await engine.on_bar(bar(clock, 42_500, Timeframe.M5))
            assert engine.positions

    run_virtual(main)


def test_an_unknown_function_stops_the_start_and_gives_the_journal_back(tmp_path):
    """The error names plan and rule, and the next start is not locked out."""

    async def main():
        engine = ExecutionEngine(paper(), journal=tmp_path / "j.db", plans=[plan("nonsense")])
        with pytest.raises(Exception, match=r"plan test: entry\[0\]: .*'nonsense' is unknown"):
            await engine.start()
        async with ExecutionEngine(paper(), journal=tmp_path / "j.db"):
            pass

    asyncio.run(main())


# -- what a restart finishes ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", [OrderRole.ENTRY, OrderRole.STOP, OrderRole.EXIT])
def test_an_order_that_a_kill_kept_from_arriving_goes_out_under_its_id(role):
    """Killed between the intent and the send: the restart sends the same order once, with no second id."""
    signals = {
        "in": TradingSignal(symbol=BTC, side=Side.BUY, signal_id="in"),
        "out": TradingSignal(symbol=BTC, side=Side.SELL, signal_id="out"),
    }
    journal = MemoryJournal("mock")
    kept = []

    async def killed(venue, engine):
        append = journal.append

        def watched(record, at):
            seq = append(record, at)
            if isinstance(record, Intent) and record.role is role and not kept:
                kept.extend(journal.entries)
            return seq

        journal.append = watched
        await engine.submit(signals["in"])
        await engine.desk.keeper.idle()
        await engine.submit(signals["out"])

    async def main(clock):
        # What arrives after the moment of the kill is lost with the process.
        venue = MockExchange(clock=clock)
        place = venue.place_order

        async def place_order(request):
            if kept:
                await asyncio.sleep(3600)
            return await place(request)

        venue.place_order = place_order
        engine = ExecutionEngine(venue, journal=journal, clock=clock, currency="USDT")
        await engine.start()
        dying = asyncio.ensure_future(killed(venue, engine))
        await asyncio.sleep(1)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        await engine.parts.upkeep.stop()
        await engine.desk.keeper.stop()
        await engine.desk.resolver.stop()
        del venue.place_order

        after = MemoryJournal("mock")
        after.entries.extend(kept)
        async with ExecutionEngine(venue, journal=after, clock=clock, currency="USDT") as engine:
            for signal in signals.values():
                await engine.submit(signal)
                await engine.desk.keeper.idle()
            orders = [o for o in engine.orders.values() if o.role is role]
            assert next((o.revision, o.attempts) for o in orders) == (0, 1)
            assert venue.accepted(orders[0].client_order_id) == 1
            assert not engine.positions

    run_virtual(main)


def test_a_plans_signal_without_a_result_is_brought_to_its_end():
    """The bar was journalled, its order was not: the next start sends it, once."""
    journal = MemoryJournal("mock")

    async def main(clock):
        await asyncio.sleep(60)
        close = bar(clock, 42_500)
        engine = ExecutionEngine(
            MockExchange(clock=clock), journal=journal, plans=[plan()], clock=clock, currency="USDT"
        )
        async with engine:
            await engine.on_bar(close)
        cut = next(i for i, e in enumerate(journal.entries) if isinstance(e.record, Intent))
        after = MemoryJournal("mock")
        after.entries.extend(journal.entries[:cut])
        venue = MockExchange(clock=clock)
        async with ExecutionEngine(
            venue, journal=after, plans=[plan()], clock=clock, currency="USDT"
        ) as engine:
            assert engine.positions[BTC].quantity > 0
            await engine.on_bar(close)
            entries = [r for r in venue.received if not r.request.reduce_only]
            assert len(entries) == 1

    run_virtual(main)


def test_equity_is_marked_at_the_venues_prices():
    """At the start open positions are worth what they cost now, not what they were bought for."""
    journal = MemoryJournal("mock")

    async def main(clock):
        venue = MockExchange(clock=clock)
        async with ExecutionEngine(venue, journal=journal, clock=clock, currency="USDT") as engine:
            await engine.submit(
                TradingSignal(symbol=BTC, side=Side.BUY, quantity=Decimal("0.1"), signal_id="a")
            )
        venue.core.set_price(BTC, Decimal(42_400))
        await asyncio.sleep(3600)
        async with ExecutionEngine(venue, journal=journal, clock=clock, currency="USDT"):
            pass
        *_, mark = records(journal, EquityMarked)
        assert mark.equity == 1_000_000 - Decimal("4.2") + Decimal("0.1") * 400

    run_virtual(main)


# -- the store -----------------------------------------------------------------------------------------


def test_the_store_has_everything_when_the_engine_has_stopped(tmp_path):
    """Beside the journal, without anybody asking for it."""

    async def main():
        async with ExecutionEngine(paper(), journal=tmp_path / "j.db") as engine:
            result = await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY))
            await engine.desk.keeper.idle()
        return result

    result = asyncio.run(main())
    store = StoreReader(default_url(tmp_path / "j.db"))
    assert {row["role"] for row in store.orders()} == {"entry", "stop"}
    assert [row["quantity"] for row in store.fills()] == [result.filled]


def test_a_store_can_be_done_without(tmp_path):
    """`store=False` makes no file; nor does a journal in memory."""

    async def main():
        async with ExecutionEngine(paper(), journal=tmp_path / "j.db", store=False):
            pass
        async with ExecutionEngine(paper(), journal=None):
            pass

    asyncio.run(main())
    assert not list(tmp_path.glob("*.sqlite"))


def test_a_broken_store_stops_no_order(tmp_path):
    """Where the store should be stands a directory: trading does not care."""
    (tmp_path / "j.db.sqlite").mkdir()

    async def main():
        async with ExecutionEngine(paper(), journal=tmp_path / "j.db") as engine:
            result = await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY))
            assert result.outcome is Outcome.FILLED

    asyncio.run(main())


def test_a_journal_of_ones_own_is_used_as_it_is(tmp_path):
    """A `Journal` instead of a path; the store follows it as well."""

    async def main():
        journal = FileJournal.open(
            tmp_path / "own.db", account="paper", clock=SystemClock(), durability="process"
        )
        async with ExecutionEngine(paper(), journal=journal) as engine:
            await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY))

    asyncio.run(main())
    assert (tmp_path / "own.db.sqlite").exists()


# -- one file ------------------------------------------------------------------------------------------

CONFIG = """\
exchange: {name: paper, options: {balances: {USDT: 5000}, prices: {BTC/USDT: 40000}}}
journal: {path: kept/orders.db, durability: process}
risk: {size_pct: 4}
plans: [plan.yaml]
"""
PLAN = """\
name: levels
symbol: BTC/USDT
entry: [{function: close_above, timeframe: 1m, parameters: {threshold_price: 39000}}]
"""


def test_an_engine_is_built_from_one_file(tmp_path):
    """Exchange, journal, limits and plans are those of the file; paths start at it."""
    (tmp_path / "execkit.yaml").write_text(CONFIG)
    (tmp_path / "plan.yaml").write_text(PLAN)

    async def main():
        async with ExecutionEngine.from_config(tmp_path / "execkit.yaml") as engine:
            assert [plan.name for plan in engine.settings.plans] == ["levels"]
            result = await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY))
            assert result.filled == Decimal("0.005")  # 4 % of 5,000 at 40,000

    asyncio.run(main())
    assert (tmp_path / "kept" / "orders.db").exists()


def test_a_loaded_configuration_does_as_well(tmp_path):
    """And a wrong option of the exchange is named."""
    (tmp_path / "execkit.yaml").write_text(CONFIG.replace("prices", "price"))
    (tmp_path / "plan.yaml").write_text(PLAN)
    config = Config.load(tmp_path / "execkit.yaml")
    with pytest.raises(ConfigurationError, match="no option 'price'"):
        ExecutionEngine.from_config(config)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path):
    """An exchange whose client library is not installed."""
    (tmp_path / "execkit.yaml").write_text("exchange: {name: somewhere}\n")
    exchanges = ExchangeFactory()
    exchanges.register("somewhere", "no_such_client:Adapter", extra="binance")
    with pytest.raises(
        ConfigurationError, match=r"no_such_client.*pip install 'execkit\[binance\]'"
    ):
        ExecutionEngine.from_config(tmp_path / "execkit.yaml", exchanges=exchanges)


@pytest.mark.parametrize("hangs", ["connect", "balances"])
def test_a_client_that_hangs_does_not_hold_up_the_start_for_ever(hangs, tmp_path):
    """An adapter of one's own may have no limits: the start fails after a minute, and gives the journal back."""

    async def never():
        await asyncio.Event().wait()

    async def main(clock):
        venue = MockExchange(clock=clock)
        setattr(venue, hangs, never)
        venue.close = never
        path = tmp_path / "orders.db"
        began = asyncio.get_running_loop().time()
        with pytest.raises(ExchangeUnavailableError, match="mock: not connected within 60 s"):
            await ExecutionEngine(venue, journal=path, clock=clock).start()
        assert asyncio.get_running_loop().time() - began == pytest.approx(60 + 15)
        again = MockExchange(clock=clock)
        async with ExecutionEngine(again, journal=path, clock=clock):
            again.close = never
        assert asyncio.get_running_loop().time() - began == pytest.approx(60 + 15 + 15)

    run_virtual(main)


def test_a_journal_that_cannot_be_closed_leaves_nothing_else_open():
    """The disk is full at the end: that is raised, and the venue's client is closed all the same."""

    class Full(MemoryJournal):
        async def close(self):
            raise JournalCommitError("the disk is full")

    async def main(clock):
        venue = MockExchange(clock=clock)
        closed = []
        close = venue.close

        async def noted():
            closed.append(True)
            await close()

        venue.close = noted
        engine = ExecutionEngine(venue, journal=Full(venue.account), clock=clock)
        await engine.start()
        with pytest.raises(JournalCommitError, match="the disk is full"):
            await engine.stop()
        assert closed == [True]

    run_virtual(main)


def test_a_time_out_of_the_client_itself_is_told_as_it_is():
    """What the client raises within the minute is not called something else."""

    async def slow():
        raise TimeoutError("its own")

    async def main(clock):
        venue = MockExchange(clock=clock)
        venue.connect = slow
        with pytest.raises(TimeoutError, match="its own"):
            await ExecutionEngine(venue, journal=None, clock=clock).start()

    run_virtual(main)


def test_the_currency_is_found_or_asked_for():
    """An account without a usual currency needs to say which asset limits are counted in."""

    async def main(clock):
        venue = MockExchange(
            balances={"ARS": Decimal(1), "BRL": Decimal(1)}, clock=clock, rng=random.Random(1)
        )
        with pytest.raises(ConfigurationError, match="the account holds ARS, BRL; say which asset"):
            await ExecutionEngine(venue, journal=None, clock=clock).start()
        one = MockExchange(balances={"ARS": Decimal(1)}, clock=clock)
        async with ExecutionEngine(one, journal=None, clock=clock) as engine:
            assert engine.account.currency == "ARS"

    run_virtual(main)


def test_an_owed_signal_in_doubt_waits_for_proof():
    """A signal from before a restart is not sent while nobody knows whether it was."""
    journal = MemoryJournal("mock")

    async def main(clock):
        hidden = Fault(on="place", kind="hang", reached=True)
        venue = MockExchange(clock=clock, script=FaultScript([hidden]))
        engine = ExecutionEngine(venue, journal=journal, clock=clock, currency="USDT")
        await engine.start()
        task = asyncio.ensure_future(
            engine.submit(TradingSignal(symbol=BTC, side=Side.BUY, signal_id="a"))
        )
        await asyncio.sleep(0.01)
        kept = list(journal.entries)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.stop()
        after = MemoryJournal("mock")
        after.entries.extend(e for e in kept if not hasattr(e.record, "fill"))
        venue.connection.script = FaultScript(
            [Fault(on=on, kind="timeout", nth=1, takes=timedelta(seconds=1)) for on in ("get",)]
        )
        async with ExecutionEngine(venue, journal=after, clock=clock, currency="USDT") as engine:
            result = await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY, signal_id="a"))
            assert result.order.state is OrderState.FILLED
            assert len([r for r in venue.received if not r.request.reduce_only]) == 1

    run_virtual(main)


def test_the_journal_is_anchored_while_it_runs_and_at_the_end(tmp_path):
    """What was cut off after the last anchor shows; a place that cannot be written is an alarm, not an end."""

    async def main(clock):
        path, anchors = tmp_path / "orders.db", tmp_path / "anchors"
        options = {"clock": clock, "anchor_every": timedelta(minutes=1), "store": False}
        async with ExecutionEngine(
            paper(clock=clock), journal=path, anchors=anchors, **options
        ) as engine:
            await asyncio.sleep(150)
            assert not engine.book.alarms
        kept = read_anchors(anchors)
        assert [anchor.at - kept[0].at for anchor in kept[:3]] == [
            timedelta(minutes=n) for n in range(3)
        ]
        assert len(kept) == 4
        verify_audit(path, kept)
        with pytest.raises(JournalCorruptedError):
            verify_audit(path, [*kept, msgspec.structs.replace(kept[-1], seq=kept[-1].seq + 1)])
        path = tmp_path / "other.db"
        nowhere = tmp_path / "missing" / "anchors"
        async with ExecutionEngine(
            paper(clock=clock), journal=path, anchors=nowhere, **options
        ) as engine:
            await asyncio.sleep(150)
            assert [alarm.code for alarm in engine.book.alarms] == ["ANCHOR_FAILED"]

    run_virtual(main)
