"""From signal to reconciled position over real sockets, with everything going wrong, one thing and two at a time.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import itertools
import os
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support import wire_worlds
from tests.support.binance import adapter_of
from tests.support.wire_worlds import (
    HURRY,
    PATIENCE,
    engine_on,
    hangs,
    once_per_group,
    problems,
    settled,
    signal,
)

from execkit.model.denial import DenialCode
from execkit.model.records import TradingState
from execkit.numbers import ZERO
from execkit.testing.venues.binance import BinanceVenue
from execkit.testing.venues.faults import Mishap

SYMBOLS = {"spot": "BTC/USDT", "usdm": "BTC/USDT:USDT"}
SOON = timedelta(0)
PATIENT = timedelta(seconds=PATIENCE)
FIRED = Counter()
"""How often each kind of fault struck, over all worlds."""

PLACE = [
    ("place", Mishap.DROP_REQUEST, {}),
    ("place", Mishap.DROP_ANSWER, {}),
    ("place", Mishap.CUT_BODY, {}),
    ("place", Mishap.HANG, {"reached": True}),
    ("place", Mishap.HANG, {"reached": False}),
    ("place", Mishap.DELAY, {"after": 0.05}),
    ("place", Mishap.ERROR, {"status": 503, "code": -1000, "reached": True}),
    ("place", Mishap.ERROR, {"status": 503, "code": -1007, "reached": False}),
    ("place", Mishap.ERROR, {"status": 429, "code": -1015, "retry_after": SOON}),
    ("place", Mishap.ERROR, {"status": 418, "code": -1003, "retry_after": SOON}),
    ("place", Mishap.ERROR, {"status": 400, "code": -1021}),
    ("place", Mishap.HTML, {"status": 200, "reached": True}),
    ("place", Mishap.HTML, {"status": 403, "reached": False}),
    ("place", Mishap.EMPTY, {}),
    ("place", Mishap.CUT_JSON, {}),
    ("place", Mishap.LIST, {}),
    ("place", Mishap.NULL, {}),
    ("place", Mishap.NAN, {}),
    ("place", Mishap.NO_ID, {}),
    ("place", Mishap.OTHER_ORDER, {}),
    ("place", Mishap.CHANGE, {"changes": {"status": "PENDING_REVIEW"}}),
    ("place", Mishap.UNFILLED, {}),
    ("place", Mishap.PARTIAL, {}),
    ("place", Mishap.EXPIRE, {}),
    ("place", Mishap.EXPIRE_IN_MATCH, {}),
]
READS = [
    ("get", Mishap.NOT_FOUND, {}),
    ("get", Mishap.ERROR, {"status": 500}),
    ("get", Mishap.HANG, {"reached": False}),
    ("get", Mishap.OTHER_ORDER, {}),
    ("fills", Mishap.NOT_FOUND, {}),
    ("open", Mishap.CUT_JSON, {}),
    ("balances", Mishap.HTML, {"status": 502}),
    ("read", Mishap.ERROR, {"status": 429, "code": -1003, "retry_after": SOON}),
]
STREAM = [
    ("stream", Mishap.LOSE, {}),
    ("stream", Mishap.DUPLICATE, {}),
    ("stream", Mishap.REORDER, {}),
    ("stream", Mishap.LATE, {"after": 0.2}),
    ("stream", Mishap.CUT, {}),
    ("stream", Mishap.TERMINATE, {}),
]
FAULTS = [*PLACE, *READS, *STREAM]
LOST = ("place", Mishap.DROP_ANSWER, {})


async def live_through(faults, market="spot", *, held=None):
    """Return what is wrong after one signal among these faults; nothing when all is well."""
    symbol = SYMBOLS[market]
    async with BinanceVenue(market=market, prices={symbol: Decimal(42_000)}) as venue:
        adapter = adapter_of(venue, timeout=PATIENT)
        async with engine_on(adapter, "0.01") as engine:
            usual = adapter._client.limit
            if hangs(faults):
                adapter._client.limit = HURRY
            for on, kind, details in faults:
                venue.fail_next(on, kind, **details)
            await engine.submit(signal(symbol))
            await venue.move_price(symbol, Decimal(42_001))
            await engine.desk.reconciler.try_run()
            venue.heal()
            adapter._client.limit = usual
            await settled(engine)
            FIRED.update(venue.faults.fired)
            found = {each.symbol: each.quantity for each in venue.core.positions()}
            assert held is None or found[symbol] == held
            return problems(
                engine,
                symbol,
                accepted=venue.accepted,
                held=found.get(symbol, ZERO),
                protected=protected(venue, symbol),
                lot=venue.core.instrument(symbol).lot_size,
            )


def protected(venue, symbol):
    """Return what the stops at the venue would sell."""
    if venue.market == "usdm":
        algos = [each for each in venue.state.algos.values() if each.symbol == symbol]
        return sum(
            each.quantity
            for each in algos
            if each.status == "NEW" and "STOP" in each.word and each.reduce_only and not each.is_buy
        )
    legs = [each for each in venue.core.open.get(symbol, {}).values() if each.waits_for_stop]
    return once_per_group(
        (each.group, each.remaining) for each in legs if not each.is_buy and not each.triggers_above
    )


@pytest.mark.parametrize("market", SYMBOLS)
async def test_an_answer_about_another_order_halts_trading(market):
    """A10: the order is found and protected, and nothing is added until a person has looked."""
    symbol = SYMBOLS[market]
    async with (
        BinanceVenue(market=market) as venue,
        engine_on(adapter_of(venue, timeout=PATIENT), "0.01") as engine,
    ):
        venue.fail_next("place", Mishap.OTHER_ORDER)
        await engine.submit(signal(symbol))
        assert engine.trading_state is TradingState.HALTED
        again = await engine.submit(signal(symbol, "again"))
        assert again.denial.code is DenialCode.TRADING_HALTED
        await settled(engine)
        assert protected(venue, symbol) == engine.book.positions.quantity(symbol) > 0


async def all_of(worlds, market="spot"):
    async def one(faults):
        return await live_through(faults, market)

    return await wire_worlds.all_of(worlds, one)


@pytest.mark.parametrize(("market", "held"), [("spot", "0.00999"), ("usdm", "0.01")])
async def test_without_a_fault(market, held):
    """A signal becomes one order, a position and its stop; on spot the fee is taken from what is bought."""
    assert await live_through([], market, held=Decimal(held)) == []


@pytest.mark.parametrize("market", SYMBOLS)
async def test_each_fault_alone(market):
    """Every fault of the venue, one at a time."""
    assert await all_of([[fault] for fault in FAULTS], market) == []


def pairs_of(market):
    """Return pairs of faults: those of an order with others in turn, or with all of them where WORLDS=all is set."""
    others = [*READS, *STREAM]
    if os.environ.get("WORLDS") == "all":
        return list(itertools.product(PLACE, others))
    few, start = 3, 0 if market == "spot" else 7
    return [
        (fault, others[(few * row + column + start) % len(others)])
        for row, fault in enumerate(PLACE)
        for column in range(few)
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("market", SYMBOLS)
async def test_faults_in_pairs(market):
    """Every fault of an order with faults of another kind."""
    FIRED.clear()
    assert await all_of(pairs_of(market), market) == []
    assert set(FIRED) == {kind for _, kind, _ in FAULTS}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_faults_of_an_order():
    """The second one strikes the next attempt, or the stop."""
    assert await all_of(itertools.pairwise(PLACE)) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_faults_of_the_answers():
    """The order is lost from sight, so that the engine has to ask, and two of the answers are wrong or missing."""
    pairs = [*itertools.combinations(READS, 2), *itertools.product(STREAM, READS)]
    every = 1 if os.environ.get("WORLDS") == "all" else 2
    assert await all_of([(LOST, *pair) for pair in pairs[::every]]) == []
