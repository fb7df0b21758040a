"""E9: one plan, one market, and the same decisions, wherever the market comes from.

A feed plays a list of one-minute bars through an engine in its own way and returns the journal. Another venue is
another entry in `FEEDS`.
"""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit import ExecutionEngine, MemoryJournal, PaperExchange, Quote, TradePlan, replay
from execkit.audit.logger import ExecutionLogger
from execkit.cli.prices import bars_along
from execkit.functions.builtin import standard_registry
from execkit.functions.compose import all_of, any_of, confirm, not_, use
from execkit.plans import Rule
from execkit.virtual_time import run_virtual

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SYMBOL = "BTC/USDT"

# Levels and exits that do not hang on the very second of the entry: live, that is a little after the close.
PLAN = TradePlan(
    name="waves",
    symbol=SYMBOL,
    entry=[
        Rule.of(
            "5m",
            all_of(
                confirm(use("close_above", threshold_price=40_000), bars=2),
                not_(use("breakout", bars=3, direction="short"), action="enter_long"),
            ),
        ),
        Rule.of("15m", use("ma_cross", fast=2, slow=4, direction="long")),
    ],
    exit=[
        Rule.of(
            "1m",
            any_of(
                use("close_below", threshold_price=39_900),
                use("ma_cross", fast=5, slow=30),
            ),
        )
    ],
    risk={"stop_loss_pct": Decimal("0.4"), "take_profit_r": 50},
)
WAVES = [(minute, 39_700 + (800 if minute // 45 % 2 else 0)) for minute in range(0, 1081, 45)]


def market(seed):
    return list(
        bars_along(SYMBOL, WAVES, start=START, tick=Decimal(1), noise=30, seed=seed, volume=10_000)
    )


def account(**options):
    return PaperExchange(balances={"USDT": Decimal(10_000)}, **options)


def by_replay(bars, seed):
    """History, as fast as it goes: orders are executed on the bars."""
    journal = MemoryJournal("paper")
    done = replay([PLAN], bars, exchange=lambda clock: account(clock=clock), journal=journal)
    assert done.bars == len(bars)
    return journal


def by_live_paper(bars, seed):
    """Virtual live time: quotes come as the market moves, bars a moment after they closed."""
    journal = MemoryJournal("paper")
    chance = random.Random(seed)

    async def main(clock):
        venue = account(clock=clock)
        venue.feed_quote(Quote(SYMBOL, bars[0].open, bars[0].open, clock.now()))
        async with ExecutionEngine(
            venue,
            journal=journal,
            plans=[PLAN],
            pipeline=PLAN.pipeline(),
            functions=standard_registry(clock=clock),
            clock=clock,
            rng=random.Random(seed),
        ) as engine:
            for bar, following in zip(bars, [*bars[1:], bars[-1]], strict=True):
                # Down first: a stop is reached before whatever lies above, as on bars.
                for second, price in ((10, bar.low), (30, bar.high), (59, bar.close)):
                    await clock.sleep_until(bar.open_time + timedelta(seconds=second))
                    venue.feed_quote(Quote(SYMBOL, price, price, clock.now()))
                await clock.sleep_until(bar.close_time)
                venue.feed_quote(Quote(SYMBOL, following.open, following.open, clock.now()))
                await clock.sleep_until(
                    bar.close_time + timedelta(milliseconds=chance.randint(50, 900))
                )
                await engine.on_bar(bar)

    run_virtual(main, start=START)
    return journal


FEEDS = {"replay": by_replay, "live paper": by_live_paper}


def decisions(journal):
    """Return what every function said at every close, and what was asked of the chain."""
    return [
        (
            entry.close_time,
            entry.timeframe,
            entry.function,
            entry.action,
            entry.confidence,
            entry.reasoning,
            entry.skipped,
            entry.signal_id,
        )
        for entry in ExecutionLogger(journal).query_logs()
    ]


@pytest.mark.parametrize("seed", range(3))
def test_every_feed_leads_to_the_same_decisions(seed):
    """Each function at each close: action, confidence, reason and signal; positions come and go alike."""
    bars = market(seed)
    told = {name: decisions(feed(bars, seed)) for name, feed in FEEDS.items()}
    reference = told.pop("replay")
    actions = [action for _, _, _, action, *_ in reference]
    assert actions.count("enter_long") >= 3
    assert actions.count("exit") >= 1
    for name, others in told.items():
        for mine, other in zip(reference, others, strict=False):
            assert other == mine, name
        assert len(others) == len(reference), name
