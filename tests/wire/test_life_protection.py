"""Stops, targets and lists of a position at each venue on the wire, judged by what stands there."""

from datetime import timedelta
from decimal import Decimal

from tests.support.life import NATIVE_OCO, STOP, chain, living, on

from execkit.model.market import BarData, Timeframe
from execkit.model.order import OrderType, Side
from execkit.model.result import Outcome
from execkit.protection.policy import HALF_AND_HALF, ProtectionPolicy
from execkit.risk.limits import RiskLimits
from execkit.risk.stops import AtrStop, FixedStop, LevelStop

D = Decimal


def hours(life):
    """Give the engine twenty hourly bars between 199 and 201, which end before now."""
    now = life.stage.clock.now().replace(minute=0, second=0, microsecond=0)
    for back in range(20, 0, -1):
        close = now - timedelta(hours=back - 1)
        values = (D(200), D(201), D(199), D(200), D(5))
        life.engine.desk.bars.append(BarData(life.symbol, Timeframe.H1, close, *values))


@on()
async def test_stops_by_rule(name):
    """Stops at a fixed distance, by ATR, and beyond a level with a buffer."""
    rules = {FixedStop(D(1)): D(198), AtrStop(D("1.5")): D(197), LevelStop(): D("198.801")}
    made = []

    def make_chain():
        made.append(chain())
        return made[-1]

    async with living(name, make_chain=make_chain) as life:
        hours(life)
        risk = made[-1].handlers[1]
        for rule, expected in rules.items():
            risk.stop = rule
            result = await life.enter(stop_loss=None, take_profit=None)
            [(quantity, stop)] = life.stops()
            assert 0 <= stop - expected < life.tick * 2, (rule, result)
            assert quantity == life.whole(life.held())
            await life.leave()
        assert not life.alarms()


@on()
async def test_a_trailing_stop(name):
    """A stop that follows the price, never goes back, and takes the position out."""
    policy = ProtectionPolicy(trailing_pct=D(1))
    async with living(name, protection=policy) as life:
        await life.enter(take_profit=D(230))
        for price, least in ((204, D("201.9")), (208, D("205.9"))):
            await life.move(D(price))
            await life.until(
                lambda least=least: life.is_protected() and life.stops()[0][1] >= least, "moved"
            )
        [(quantity, stop)] = life.stops()
        await life.move(D(207))
        await life.engine.desk.keeper.idle()
        assert life.stops() == [(quantity, stop)]
        await life.move(stop - D("0.5"))
        await life.until(life.is_flat, "flat")
        assert life.executed(Side.SELL) == [quantity]
        assert not life.alarms()


@on()
async def test_half_at_one_r_and_half_at_two(name):
    """Targets by R: half at 1 R, break-even for the rest from then on, and the rest at 2 R."""
    policy = ProtectionPolicy(targets=HALF_AND_HALF, break_even_after_r=D(1))
    async with living(name, protection=policy) as life:
        await life.enter(take_profit=None)
        whole = life.whole(life.held())
        await life.move(D("203.2"))
        await life.until(
            lambda: life.whole(life.held()) < whole and life.is_protected() and _even(life), "half"
        )
        [first] = life.executed(Side.SELL)
        assert abs(first - whole / 2) <= D(1) / 2 if name != "ibkr" else first == 5
        if name in NATIVE_OCO:
            # A stop that was placed before the exit's execution was known rests alone.
            assert life.targets() in ([], [(life.stops()[0][0], _second(life))])
        await life.move(D("206.2"))
        await life.until(life.is_flat, "flat")
        assert sum(life.executed(Side.SELL)) == whole
        assert len(life.executed(Side.SELL)) == 2
        assert not life.alarms()


def _even(life):
    entry = life.engine.book.positions.open[life.symbol].average_price
    return abs(life.stops()[0][1] - entry) <= life.tick


def _second(life):
    return life.engine.book.position(life.symbol).targets[-1].price


@on()
async def test_a_stop_and_a_target_across_a_restart(name, tmp_path):
    """A stop and a target as one list at the venue, else held by the engine, across a restart in between."""
    async with living(name, journal=tmp_path / "orders.db") as life:
        await life.enter()
        whole = life.whole(life.held())
        listed = [(whole, D(210))] if name in NATIVE_OCO else []
        await life.until(lambda: life.targets() == listed, "a target")
        taken = life.stage.taken()
        await life.restart()
        await life.until(life.is_protected, "protected")
        assert life.stage.taken() == taken, "nothing was sent anew"
        assert (life.stops(), life.targets()) == ([(whole, STOP)], listed)
        await life.move(D(211))
        await life.until(life.is_flat, "flat")
        assert life.executed(Side.SELL) == [whole]
        assert not life.alarms()


@on(
    "ibkr",
    binance="one leg's execution ends the other",
    usdm="keeps no lists",
    alpaca="one leg's execution ends the other",
)
async def test_a_target_that_executes_in_part_while_nobody_runs(name, tmp_path):
    """TWS takes four of ten off the stop, which the next process believes; what is left is closed for good."""
    async with living(name, journal=tmp_path / "orders.db") as life:
        await life.enter()
        await life.until(lambda: life.targets() == [(10, D(210))], "a target")
        await life.engine.stop()
        await life.fill(4, 210, side=Side.SELL, target=True)
        assert (life.held(), life.stops()) == (6, [(6, STOP)])
        life.stage.exchange = life.stage.make()
        await life.start()
        await life.until(life.is_protected, "protected")
        assert life.stops() == [(6, STOP)]
        assert not {"REPORT_DOUBTFUL", "UNPROTECTED", "ANSWER_NOT_OURS"} & set(life.alarms())
        await life.engine.flatten(life.symbol)
        await life.until(life.is_flat, "flat")
        assert life.held() == 0


@on()
async def test_sizes_follow_the_position(name):
    """The size of the stop after a part of an entry, its rest, a scale-in and a scale-out."""
    limits = RiskLimits(scale_in=True)
    async with living(name, make_chain=lambda: chain(limits=limits, waits=0.05)) as life:
        result = await life.submit(
            quantity=D(10), limit_price=D(199), stop_loss=D(196), take_profit=D(230)
        )
        assert result.outcome is Outcome.WORKING, result
        await life.fill(4, 199)
        await life.until(lambda: life.is_protected() and life.held() > D("3.9"), "a part")
        if name == "alpaca":
            assert not life.entries(), "it takes no stop beside a buy, so the rest was cancelled"
            first = [4]
        else:
            await life.move(D(199) if name == "ibkr" else D("198.9"))
            await life.until(lambda: life.is_protected() and life.held() > D("9.9"), "the rest")
            first = [10]
        before = life.held()
        await life.move(D("202.5"))
        added = await life.submit(quantity=D(5), stop_loss=D(199), take_profit=D(230))
        assert added.outcome is Outcome.FILLED, added
        await life.until(
            lambda: life.is_protected() and life.held() > before + D("4.9"), "scaled in"
        )
        before = life.held()
        reduced = await life.submit(Side.SELL, quantity=D(3))
        assert reduced.outcome is Outcome.FILLED, reduced
        await life.until(lambda: life.is_protected() and life.held() < before, "scaled out")
        assert life.executed(Side.BUY) == [*first, 5]
        assert life.executed(Side.SELL) == [3]
        await life.leave()
        assert not life.alarms()


@on()
async def test_a_refused_stop_has_other_terms_the_next_time(name):
    """A stop that the venue refuses is tried with another trigger, and with another type after that."""
    async with living(name) as life:
        life.refuse(2, OrderType.STOP)
        await life.enter()
        [(_, stop)] = life.stops()
        assert STOP - 3 * D("0.1") <= stop < STOP
        assert not life.alarms()


@on()
async def test_a_stop_that_is_refused_for_good(name):
    """A position whose stop is refused to the end is flattened, entries are blocked, and a person is told."""
    async with living(name) as life:
        for kind in (OrderType.STOP, OrderType.STOP_LIMIT):
            life.refuse(100, kind)
        result = await life.submit(quantity=D(10), stop_loss=STOP, take_profit=D(210))
        assert result.outcome is Outcome.FILLED, result
        await life.until(life.is_flat, "flattened")
        assert len(life.executed(Side.SELL)) == 1
        assert life.alarms() == ["UNPROTECTED"]
        denied = await life.submit(quantity=D(1))
        assert denied.outcome is Outcome.DENIED
        assert "blocked" in denied.reason.lower(), denied
        assert len(life.executed(Side.BUY)) == 1


@on()
async def test_a_stop_that_is_cancelled_at_the_venue(name):
    """The watchdog finds a stop that was cancelled by hand at the venue and of which no news came."""
    async with living(name, reconcile_every=timedelta(seconds=0.2)) as life:
        await life.enter()
        stops = life.stops()
        with life.no_news():
            life.cancel_stops()
        assert life.stops() == []
        await life.until(lambda: life.is_protected() and life.stops() == stops, "restored")


@on()
async def test_a_stop_limit_that_the_price_leaves_behind(name):
    """A stop-limit that the price has gapped through goes to the market."""
    policy = ProtectionPolicy(stop_limit_pct=D(1))
    async with living(name, protection=policy) as life:
        life.refuse(2, OrderType.STOP)
        await life.enter()
        [(quantity, _)] = life.stops()
        await life.move(D(190))
        await life.until(life.is_flat, "flat")
        assert life.executed(Side.SELL) == [quantity]
