"""The whole state of a matching core as bytes and back, so that a ledger need not grow for ever."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, localcontext

import msgspec

from execkit.exchanges.accounts import Holding
from execkit.exchanges.fills import Book
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.market import BarData
from execkit.model.order import Fill
from execkit.numbers import MONEY


class _State(msgspec.Struct):
    now: datetime
    spread_bps: Decimal
    allow_short: bool
    ids_unique_for_ever: bool
    totals: dict[str, Decimal]
    fees: dict[str, Decimal]
    holdings: dict[str, Holding]
    instruments: list[Instrument]
    books: dict[str, Book]
    bars: list[BarData]
    orders: list[VenueOrder]
    open: dict[str, list[str]]
    fills: list[Fill]
    known_at: list[datetime]
    halted: list[str]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_State)


def snapshot(core: MatchingCore) -> bytes:
    """Return everything that decides what *core* does next; equal states give equal bytes."""
    return _encoder.encode(
        _State(
            now=core.now,
            spread_bps=core.spread_bps,
            allow_short=core.account.allow_short,
            ids_unique_for_ever=core.ids_unique_for_ever,
            totals=core.account.totals,
            fees=core.account.fees,
            holdings=core.account.holdings,
            instruments=list(core.instruments.values()),
            books=core.books,
            bars=list(core.bars.values()),
            orders=list(core.orders.values()),
            open={symbol: list(line) for symbol, line in core.open.items()},
            fills=core.fills,
            known_at=core.known_at,
            halted=sorted(core.halted),
        )
    )


def restore(data: bytes) -> MatchingCore:
    """Return the core whose `snapshot` *data* is; raise `msgspec.DecodeError` for anything else."""
    state = _decoder.decode(data)
    core = MatchingCore(
        state.totals,
        spread_bps=state.spread_bps,
        allow_short=state.allow_short,
        ids_unique_for_ever=state.ids_unique_for_ever,
    )
    core.now = state.now
    core.instruments = {instrument.symbol: instrument for instrument in state.instruments}
    core.account.fees, core.account.holdings = state.fees, state.holdings
    core.books = state.books
    core.bars = {(bar.symbol, bar.timeframe): bar for bar in state.bars}
    for order in state.orders:
        core.orders[order.venue_order_id] = order
        core.by_client[order.request.client_order_id] = order
        core.fills_of[order.venue_order_id] = []
        core.link(order)
    for symbol, line in state.open.items():
        core.open[symbol] = {venue_order_id: core.orders[venue_order_id] for venue_order_id in line}
        for order in core.open[symbol].values():
            core.note_expiry(order)
    for fill in state.fills:
        core.fills_of[fill.venue_order_id].append(fill)
    core.fills, core.known_at = state.fills, state.known_at
    core.halted = set(state.halted)
    with localcontext(MONEY):
        core.rebuild_holds()
    return core
