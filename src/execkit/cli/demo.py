"""`execkit demo`: one offline day on the paper exchange, with something of everything in it.

Four markets follow drawn paths with seeded noise. A trade plan breaks out of a range in one and trails its exit; a
timetable of signals does the rest: one is stopped out, one reaches its target, one rests until its time-out, and the
others break a rule each.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.console import Console

from execkit.cli.prices import bars_along
from execkit.clock import Clock
from execkit.engine import ExecutionEngine
from execkit.exchanges.paper import PaperExchange
from execkit.journal.segments import read_entries
from execkit.model.instrument import Instrument
from execkit.model.market import BarData
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.plans import TradePlan
from execkit.replay import replay
from execkit.report.summary import Summary
from execkit.report.terminal import show

START: Final = datetime(2024, 3, 5, tzinfo=UTC)


class Market(NamedTuple):
    """A market of the day. *path* is (minute, price in ticks), *volume* in base units a minute."""

    tick: Decimal
    lot: Decimal
    noise: int
    volume: int
    path: list[tuple[int, int]]


MARKETS: Final = {
    "BTC/USDT": Market(
        Decimal(1),
        Decimal("0.00001"),
        30,
        50,
        [(0, 42_000), (180, 42_050), (540, 43_700), (720, 42_500), (1440, 42_300)],
    ),
    "ETH/USDT": Market(
        Decimal("0.1"),
        Decimal("0.0001"),
        20,
        500,
        [(0, 25_000), (540, 25_100), (780, 24_300), (1440, 24_600)],
    ),
    "SOL/USDT": Market(
        Decimal("0.01"),
        Decimal("0.001"),
        12,
        2_000,
        [(0, 10_000), (560, 9_950), (900, 10_500), (1440, 10_300)],
    ),
    "XRP/USDT": Market(
        Decimal("0.0001"), Decimal(1), 10, 2_500, [(0, 6_000), (700, 6_150), (1440, 6_050)]
    ),
}

PLAN: Final = TradePlan(
    name="breakout",
    symbol="BTC/USDT",
    entry=[
        {
            "function": "close_above",
            "timeframe": "15m",
            "parameters": {"threshold_price": Decimal(42_300)},
        }
    ],
    exit=[
        {
            "function": "trailing_stop",
            "timeframe": "1m",
            "parameters": {"trail_percentage": Decimal(1)},
        }
    ],
    risk={"stop_loss_pct": Decimal("1.5"), "take_profit_r": Decimal(4)},
    repeat=False,
)

# (minute, symbol, side, what differs from a plain market signal; prices as percent of the last close)
TIMETABLE: Final[list[tuple[int, str, Side, dict[str, Any]]]] = [
    (60, "ETH/USDT", Side.BUY, {"confluence": 2}),
    (75, "ETH/USDT", Side.SELL, {}),
    (90, "SOL/USDT", Side.BUY, {"stop_loss": 101}),
    (105, "SOL/USDT", Side.BUY, {"stop_loss": 95}),
    (120, "SOL/USDT", Side.BUY, {"stop_loss": Decimal("98.5"), "take_profit": 101}),
    (135, "XRP/USDT", Side.BUY, {"quantity": Decimal(2_000), "stop_loss": 99}),
    (150, "XRP/USDT", Side.BUY, {"quantity": Decimal("10.5"), "stop_loss": 99}),
    (165, "DOGE/USDT", Side.BUY, {}),
    (200, "XRP/USDT", Side.BUY, {"limit_price": 97, "stop_loss": 96}),
    (400, "BTC/USDT", Side.BUY, {"stop_loss": 99}),
    (550, "ETH/USDT", Side.BUY, {"confluence": 4, "stop_loss": Decimal("98.5")}),
    (570, "SOL/USDT", Side.BUY, {"stop_loss": Decimal("98.5"), "take_profit": 104}),
    (580, "XRP/USDT", Side.BUY, {"stop_loss": 99}),
    (1200, "XRP/USDT", Side.BUY, {"stop_loss": Decimal("98.5")}),
    (1380, "XRP/USDT", Side.SELL, {}),
]


@click.command()
@click.option("--seed", default=7, show_default=True, help="Another seed, another day.")
@click.option(
    "--journal", metavar="FILE", type=click.Path(path_type=Path), help="Keep the journal in FILE."
)
def demo(seed: int, journal: Path | None) -> None:
    """Trade one generated day offline, and show its orders, trades, refusals and P&L."""
    if journal is not None and journal.exists():
        raise click.ClickException(f"{journal} is there already; name a new file, or remove it")
    keep = tempfile.TemporaryDirectory(prefix="execkit-") if journal is None else nullcontext()
    with keep as folder:
        path = Path(folder) / "demo.db" if folder is not None else journal
        assert path is not None, "one of the two is given"
        done = replay(
            [PLAN],
            day(seed),
            exchange=venue,
            journal=path,
            strategy=_by_timetable,
            store=journal is not None,
            seed=seed,
        )
        summary = Summary.of(read_entries(path), marks=done.book.marks)
    console = Console(highlight=False)
    show(
        console,
        summary,
        currency="USDT",
        title=f"One day on the paper exchange: {len(MARKETS)} markets, {done.bars:,} bars from seed {seed}",
    )
    console.print(f"trace hash {done.trace_hash}")
    if journal is not None:
        console.print(f"journal {journal}, store {journal}.sqlite; check: execkit verify {journal}")


def day(seed: int) -> Iterator[BarData]:
    """Yield the bars of all markets, in the order of their closes."""
    markets = [
        bars_along(
            symbol,
            market.path,
            start=START,
            tick=market.tick,
            noise=market.noise,
            seed=seed,
            volume=market.volume,
        )
        for symbol, market in MARKETS.items()
    ]
    return heapq.merge(*markets, key=lambda bar: bar.close_time)


def venue(clock: Clock) -> PaperExchange:
    """Return the exchange, with 10,000 USDT, a spread of 2 bps and fees of 0.1 %."""
    fee = Decimal("0.001")
    return PaperExchange(
        balances={"USDT": Decimal(10_000)},
        instruments=[
            Instrument.default(
                symbol,
                tick_size=market.tick,
                lot_size=market.lot,
                min_notional=Decimal(5),
                maker_fee=fee,
                taker_fee=fee,
            )
            for symbol, market in MARKETS.items()
        ],
        spread_bps=Decimal(2),
        clock=clock,
    )


async def _by_timetable(engine: ExecutionEngine, bar: BarData) -> None:
    """Submit the signals that are due at this close."""
    minute = (bar.close_time - START).total_seconds() / 60
    for due, symbol, side, changes in TIMETABLE:
        # A symbol without a market is not among the bars; it goes with the first one.
        market = symbol if symbol in MARKETS else next(iter(MARKETS))
        if due == minute and market == bar.symbol:
            await engine.submit(
                TradingSignal(
                    symbol=symbol,
                    side=side,
                    signal_id=f"demo-{due}",
                    **{name: _price(name, value, bar) for name, value in changes.items()},
                )
            )


def _price(name: str, value: Any, bar: BarData) -> Any:
    """Turn a percentage of the close into a price on a tick; other values stay as they are."""
    if name not in ("limit_price", "stop_loss", "take_profit"):
        return value
    tick = MARKETS[bar.symbol].tick
    return (bar.close * value / 100 / tick).to_integral_value() * tick
