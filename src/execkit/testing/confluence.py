"""Event confluence: the same news in any order, and more than once, lead to the same state (I21).

`python -m execkit.testing.confluence --histories 100` makes histories of up to six events of one or two orders, gives
each history in every order, plain, with each event twice in a row and all over again, and compares what is known in
the end: orders, executions, positions, cash.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from hashlib import blake2b
from itertools import permutations
from typing import Final

import attrs
import click
import msgspec

from execkit.clock import ManualClock
from execkit.events import EventBus
from execkit.exchanges.matching import MatchingCore
from execkit.ids import client_order_id
from execkit.journal.base import MemoryJournal
from execkit.model.instrument import Instrument
from execkit.model.order import (
    Fill,
    OrderEvent,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    Side,
)
from execkit.model.records import Intent, OrderChanged, Source
from execkit.orders.book import Book
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.recorder import Recorder
from execkit.testing.simulate import quiet

News = OrderReport | Fill

MOST: Final = 6
"""Events of one history; all their orders are 720."""

_BTC: Final = Instrument.default("BTC/USDT", lot_size=Decimal("0.1"), min_quantity=Decimal("0.1"))
_PRICE: Final = Decimal(40_000)
_CLOCK: Final = ManualClock()

WAYS: Final[dict[str, Callable[[tuple[News, ...]], tuple[News, ...]]]] = {
    "once": lambda news: news,
    "each twice": lambda news: tuple(each for one in news for each in (one, one)),
    "all again": lambda news: (*news, *news),
}


@attrs.frozen
class History:
    """Orders, and all that the venue said of them, as it happened."""

    requests: tuple[OrderRequest, ...]
    news: tuple[News, ...]

    @property
    def has_bust(self) -> bool:
        """Tell whether an execution was taken back; reports that still count it lead to a look-up."""
        return any(isinstance(each, Fill) and not each.quantity for each in self.news)


def make_history(rng: random.Random) -> History:
    """Make orders live at a matching core: executed in parts, corrected, busted, ended early, told twice over."""
    core = MatchingCore(
        {"BTC": Decimal(100), "USDT": Decimal(10_000_000)}, instruments=[_BTC], allow_short=False
    )
    core.set_price(_BTC.symbol, _PRICE)
    at = _CLOCK.now()
    requests: list[OrderRequest] = []
    news: list[News] = []
    for side in (Side.BUY, Side.SELL)[: rng.choice((1, 1, 2))]:
        request = OrderRequest(
            client_order_id=client_order_id("mock", f"h{len(requests)}", OrderRole.ENTRY),
            symbol=_BTC.symbol,
            side=side,
            type=OrderType.LIMIT,
            quantity=Decimal(rng.randint(2, 9)) / 10,
            limit_price=_PRICE,
        )
        requests.append(request)
        news += _news(core.place(request, at, match=False))
    for _ in range(rng.randint(1, 4)):
        at += timedelta(seconds=rng.choice((0, 1, 60)))
        key = rng.choice(requests).client_order_id
        order = core.by_client[key]
        part = Decimal(rng.randint(1, int(order.remaining * 10) or 1)) / 10
        if order.remaining >= part:
            news += _news(core.execute(key, part, _PRICE + rng.randint(-9, 9), at))
    if rng.random() < 0.4:
        for request in requests:
            if core.by_client[request.client_order_id].is_open:
                how = rng.choice((OrderState.CANCELLED, OrderState.EXPIRED))
                news += _news(core.end(request.client_order_id, how, "", at))
    fills = [each for each in news if isinstance(each, Fill)]
    if fills and rng.random() < 0.3:
        news.append(_corrected(rng.choice(fills), rng))
    return History(tuple(requests), tuple(_shortened(news, rng)))


def _news(updates: Sequence[object]) -> list[News]:
    return [each for each in updates if isinstance(each, (OrderReport, Fill))]


def _corrected(fill: Fill, rng: random.Random) -> Fill:
    """Return the venue's correction of an execution: another price, or none of it at all."""
    busted = rng.random() < 0.5
    return msgspec.structs.replace(
        fill,
        trade_id=f"{fill.trade_id}.02",
        replaces=fill.trade_id,
        quantity=Decimal(0) if busted else fill.quantity,
        fee=Decimal(0) if busted else fill.fee,
        price=fill.price + 1,
    )


def _shortened(news: list[News], rng: random.Random) -> list[News]:
    """Leave out reports until few enough are left; they repeat each other, and executions do not."""
    while len(news) > MOST:
        reports = [each for each in news[:-1] if isinstance(each, OrderReport)]
        if not reports:
            return news[:MOST]
        news.remove(rng.choice(reports))
    return news


class Reader:
    """What a process makes of news about orders that it has sent."""

    def __init__(self, history: History) -> None:
        self.recorder = Recorder(MemoryJournal("mock"), Book(), _CLOCK, EventBus())
        self.intake = Intake(self.recorder)
        self._compares_states = not history.has_bust
        self._fills = [each for each in history.news if isinstance(each, Fill)]
        # Executions that a report counts and nobody has told of are fetched; the venue then gives all it has.
        self.intake.missing_hook = self._fetch
        for number, request in enumerate(history.requests):
            intent = Intent(
                request=request,
                payload_hash=request.payload_hash,
                role=OrderRole.ENTRY,
                parent=f"h{number}",
            )
            self.recorder.record(intent)
            submit = OrderChanged(
                client_order_id=request.client_order_id,
                event=OrderEvent.SUBMIT,
                source=Source.CHAIN,
            )
            self.recorder.record(submit)

    async def _fetch(self, _order: ManagedOrder) -> bool:
        self._list()
        return True

    def _list(self) -> None:
        began = min(fill.at for fill in self._fills)
        self.intake.take_fills(self._fills, Source.LOOKUP, covers=began)

    async def read(self, news: Sequence[News]) -> str:
        """Take in news and return a digest of what is known then.

        The venue is asked what an execution corrects that nobody knows, and whether an old one still stands.
        """
        for each in news:
            if isinstance(each, Fill):
                self.intake.take_fill(each, Source.STREAM)
            else:
                await self.intake.absorb(each, Source.STREAM)
            if self.intake.corrections.orders:
                self._list()
        return self.digest()

    def digest(self) -> str:
        """Digest what is known of orders, executions, positions and cash; not by which way it became known.

        Where an execution was taken back only the venue can say what state its order is in.
        """
        book = self.recorder.book
        orders = [
            (
                order.client_order_id,
                order.venue_order_id,
                order.state if self._compares_states else None,
                order.quantity,
                order.filled.normalize(),
                order.filled_notional.normalize(),
                order.fills,
            )
            for order in book.orders.values()
        ]
        positions = sorted(book.positions.open.items())
        cash = sorted((asset, total.normalize()) for asset, total in book.cash.items() if total)
        known = (orders, positions, cash, sorted(book.blocked))
        return blake2b(
            msgspec.json.encode(known, order="deterministic"), digest_size=16
        ).hexdigest()


@attrs.define
class ConfluenceReport:
    """What the histories showed."""

    histories: int = 0
    orders: int = 0
    """How many different orders of events were read."""
    readings: int = 0
    failures: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.histories} histories in {self.orders} orders, read {self.readings} times "
            f"({', '.join(WAYS)}): {len(self.failures)} came to another state"
        )


async def _compare(history: History, report: ConfluenceReport) -> None:
    expected = await Reader(history).read(history.news)
    report.histories += 1
    for order in permutations(history.news):
        report.orders += 1
        for name, way in WAYS.items():
            report.readings += 1
            if await Reader(history).read(way(order)) != expected:
                told = [_short(each) for each in order]
                report.failures.append(f"history {report.histories}, {name}: {told}")
                return


def _short(news: News) -> str:
    if isinstance(news, Fill):
        return f"fill {news.trade_id} {news.quantity}"
    return f"{news.status} {news.filled}"


def confluence(histories: int = 30, *, seed: int = 0) -> ConfluenceReport:
    """Read so many histories in every order and every way, and compare the states."""
    report = ConfluenceReport()
    rng = random.Random(seed)

    async def main() -> None:
        for _ in range(histories):
            await _compare(make_history(rng), report)

    with quiet():
        asyncio.run(main())
    return report


@click.command()
@click.option("--histories", default=100, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(histories: int, seed: int) -> None:
    """Read histories in every order; end with 1 when two orders come to different states."""
    report = confluence(histories, seed=seed)
    click.echo(str(report))
    for failure in report.failures:
        click.echo(failure)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
