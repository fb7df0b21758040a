"""Hypothesis strategies for what execkit trades with. All values are valid unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from execkit.exchanges.matching import MatchingCore
from execkit.ids import client_order_id
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO
from execkit.testing.faults import OF_STREAM, Fault, FaultKind, FaultScript, Operation

try:
    from hypothesis import assume
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover - tests have it
    raise ImportError(
        "execkit.testing.strategies needs hypothesis: pip install 'execkit[testing]'"
    ) from error

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""When generated times begin."""

PLAIN: Final = Instrument.default("BTC/USDT")
"""The instrument where none is given: tick 0.01, lot 0.00001."""

_STEPS: Final = tuple(
    map(Decimal, ("0.00000001", "0.00001", "0.001", "0.01", "0.05", "0.1", "1", "5"))
)
_FEES: Final = tuple(map(Decimal, ("0", "0.0002", "0.001", "0.01", "-0.0001")))


def symbols() -> st.SearchStrategy[str]:
    """Symbols of spot markets, such as `BTC/USDT`."""
    assets = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=5)
    return st.builds(
        lambda base, quote: f"{base}/{quote}", assets, st.sampled_from(["USDT", "USD", "EUR"])
    )


def times() -> st.SearchStrategy[datetime]:
    """Aware UTC times of ten years, to the microsecond."""
    return st.integers(0, 315_360_000_000_000).map(lambda us: START + timedelta(microseconds=us))


@st.composite
def instruments(draw: st.DrawFn, symbol: str | None = None) -> Instrument:
    """Instruments with all kinds of steps, minimums and fees; always tradeable."""
    lot = draw(st.sampled_from(_STEPS))
    least = lot * draw(st.integers(0, 1_000))
    most = draw(st.none() | st.integers(1_000_000, 100_000_000).map(lambda lots: lots * lot))
    return Instrument.default(
        symbol or draw(symbols()),
        tick_size=draw(st.sampled_from(_STEPS)),
        lot_size=lot,
        min_quantity=least,
        max_quantity=most,
        min_notional=draw(st.sampled_from([ZERO, Decimal(1), Decimal(10)])),
        maker_fee=draw(st.sampled_from(_FEES)),
        taker_fee=draw(st.sampled_from(_FEES)),
        fee_in_base=draw(st.booleans()),
    )


def prices(instrument: Instrument = PLAIN) -> st.SearchStrategy[Decimal]:
    """Prices on the instrument's tick, from one tick to ten million of them."""
    return st.integers(1, 10_000_000).map(lambda ticks: ticks * instrument.tick_size)


@st.composite
def quantities(
    draw: st.DrawFn, instrument: Instrument = PLAIN, price: Decimal | None = None
) -> Decimal:
    """Quantities that the venue takes: on the lot, within its limits, and of enough notional where *price* is given."""
    lot = instrument.lot_size
    least = instrument.smallest_quantity(price) if price else max(instrument.min_quantity, lot)
    low = int(-(-least // lot))
    most = instrument.max_quantity
    high = low + 1_000_000 if most is None else int(most // lot)
    assume(low <= high)
    return draw(st.integers(low, high)) * lot


@st.composite
def quotes(
    draw: st.DrawFn,
    instrument: Instrument = PLAIN,
    *,
    at: st.SearchStrategy[datetime] | None = None,
) -> Quote:
    """Quotes with a bid that is not above the ask, with and without sizes and a last price."""
    bid = draw(prices(instrument))
    ask = bid + draw(st.integers(0, 100)) * instrument.tick_size
    size = st.none() | quantities(instrument)
    last = draw(st.none() | st.sampled_from([bid, ask]))
    return Quote(
        instrument.symbol,
        bid,
        ask,
        draw(at or times()),
        last=last,
        bid_size=draw(size),
        ask_size=draw(size),
    ).checked()


@st.composite
def bars(
    draw: st.DrawFn,
    instrument: Instrument = PLAIN,
    timeframe: Timeframe = Timeframe.M1,
    *,
    number: int | None = None,
    open: Decimal | None = None,
) -> BarData:
    """Finished bars; the *number*-th after `START`, or any; some have no volume."""
    tick = instrument.tick_size
    opens = draw(prices(instrument)) if open is None else open
    at = draw(st.integers(0, 100_000)) if number is None else number
    volume = draw(st.integers(0, 1_000_000)) * instrument.lot_size
    if not volume:
        closes = high = low = opens
    else:
        reach = min(int(opens // tick) - 1, 1_000)
        closes = opens + draw(st.integers(-reach, 1_000)) * tick
        high = max(opens, closes) + draw(st.integers(0, 500)) * tick
        below = min(opens, closes)
        low = below - draw(st.integers(0, min(int(below // tick) - 1, 500))) * tick
    close_time = START + (at + 1) * timeframe.duration
    return BarData(
        instrument.symbol, timeframe, close_time, opens, high, low, closes, volume
    ).checked()


@st.composite
def bar_series(
    draw: st.DrawFn,
    instrument: Instrument = PLAIN,
    timeframe: Timeframe = Timeframe.M1,
    *,
    min_size: int = 1,
    max_size: int = 50,
    gaps: bool = False,
) -> list[BarData]:
    """Series of bars in order of time, each opening where the last one closed; with *gaps* some are missing."""
    size = draw(st.integers(min_size, max_size))
    series: list[BarData] = []
    number = 0
    for _ in range(size):
        last = series[-1].close if series else None
        series.append(draw(bars(instrument, timeframe, number=number, open=last)))
        number += draw(st.integers(1, 5)) if gaps else 1
    return series


_SIGNAL_TYPES: Final = (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT)
"""What the prices of a signal can imply; stops that trail are the protection's business."""


@st.composite
def signals(
    draw: st.DrawFn,
    instrument: Instrument = PLAIN,
    *,
    price: Decimal | None = None,
    sides: Iterable[Side] = tuple(Side),
) -> TradingSignal:
    """Signals of every order type around *price* (any, when None), with protection on its right side or none."""
    mid = draw(prices(instrument)) if price is None else price
    tick = instrument.tick_size
    side = draw(st.sampled_from(list(sides)))

    def near(sign: int, ticks: int = 200) -> Decimal:
        return max(tick, instrument.round_price(mid) + sign * draw(st.integers(1, ticks)) * tick)

    kind = draw(st.sampled_from(_SIGNAL_TYPES))
    stop = near(side.sign) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    limit = near(-side.sign) if kind is OrderType.LIMIT else None
    if kind is OrderType.STOP_LIMIT:
        limit = stop
    entry = limit or stop or instrument.round_price(mid)
    protected = draw(st.booleans()) and entry > 1_000 * tick
    away = draw(st.integers(1, 400)) * tick * side.sign
    return TradingSignal(
        symbol=instrument.symbol,
        side=side,
        strength=draw(st.integers(0, 100)),
        confluence=draw(st.none() | st.integers(0, 10)),
        quantity=draw(st.none() | quantities(instrument, entry)),
        limit_price=limit,
        stop_price=stop,
        stop_loss=entry - away if protected else None,
        take_profit=entry + 2 * away if protected else None,
        signal_id=draw(st.none() | st.uuids().map(str)),
        post_only=kind is OrderType.LIMIT and draw(st.booleans()),
    )


@st.composite
def requests(
    draw: st.DrawFn,
    instrument: Instrument = PLAIN,
    *,
    price: Decimal | None = None,
    types: Iterable[OrderType] = tuple(OrderType),
) -> OrderRequest:
    """Orders that the venue takes by its rules, with an id of ours; a stop's and a limit's price are on the tick."""
    kind = draw(st.sampled_from(list(types)))
    mid = draw(prices(instrument)) if price is None else price
    near = st.integers(-100, 100).map(
        lambda ticks: max(
            instrument.tick_size, instrument.round_price(mid) + ticks * instrument.tick_size
        )
    )
    limit = draw(near) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(near) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    lowest = min(filter(None, (limit, stop, mid)))
    trails = kind is OrderType.TRAILING_STOP
    times = [TimeInForce.GTC] if trails else [TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK]
    return OrderRequest(
        client_order_id=client_order_id("account", str(draw(st.uuids())), OrderRole.ENTRY),
        symbol=instrument.symbol,
        side=draw(st.sampled_from(Side)),
        type=kind,
        quantity=draw(quantities(instrument, lowest)),
        limit_price=limit,
        stop_price=stop,
        time_in_force=draw(st.sampled_from(times)),
        trail_percent=Decimal(draw(st.integers(1, 50))) / 10 if trails else None,
    )


class OrderHistory(msgspec.Struct, frozen=True):
    """All that a venue said of one order: the request, and its news in the order in which they happened."""

    request: OrderRequest
    news: tuple[OrderReport | Fill, ...]

    @property
    def filled(self) -> Decimal:
        """What was executed in the end."""
        return sum((each.quantity for each in self.news if isinstance(each, Fill)), ZERO)

    @property
    def end(self) -> OrderState:
        """How the order stood at last."""
        return [each for each in self.news if isinstance(each, OrderReport)][-1].status


@st.composite
def order_histories(
    draw: st.DrawFn, instrument: Instrument = PLAIN, *, max_fills: int = 4
) -> OrderHistory:
    """Histories of one limit order as a venue makes them: accepted, executed in parts, perhaps ended early."""
    price = draw(prices(instrument))
    lots = draw(st.integers(1, 1_000))
    quantity = instrument.smallest_quantity(price) + lots * instrument.lot_size
    request = OrderRequest(
        client_order_id=client_order_id("account", str(draw(st.uuids())), OrderRole.ENTRY),
        symbol=instrument.symbol,
        side=draw(st.sampled_from(Side)),
        type=OrderType.LIMIT,
        quantity=quantity,
        limit_price=price,
    )
    enough = price * quantity * 10 + quantity * 10
    core = MatchingCore(
        {instrument.base: enough, instrument.quote: enough}, instruments=[instrument]
    )
    core.set_price(instrument.symbol, price)
    at = draw(times())
    news = list(core.place(request, at, match=False))
    left = int(quantity // instrument.lot_size)
    for _ in range(draw(st.integers(0, max_fills))):
        if not left:
            break
        part = draw(st.integers(1, left))
        left -= part
        at += timedelta(seconds=draw(st.integers(0, 60)))
        news += core.execute(request.client_order_id, part * instrument.lot_size, price, at)
    if left and draw(st.booleans()):
        how = draw(st.sampled_from([OrderState.CANCELLED, OrderState.EXPIRED]))
        news += core.end(request.client_order_id, how, "", at)
    return OrderHistory(
        request, tuple(each for each in news if isinstance(each, (OrderReport, Fill)))
    )


def durations(most: timedelta = timedelta(seconds=30)) -> st.SearchStrategy[timedelta]:
    """Durations from nothing to *most*, in milliseconds."""
    return st.integers(0, int(most.total_seconds() * 1_000)).map(
        lambda ms: timedelta(milliseconds=ms)
    )


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """Single faults of every kind, that strike now and then."""
    if draw(st.booleans()):
        on, kind = Operation.STREAM, draw(st.sampled_from(sorted(OF_STREAM - {FaultKind.REORDER})))
    else:
        on = draw(
            st.sampled_from([Operation.PLACE, Operation.CANCEL, Operation.GET, Operation.OPEN])
        )
        kind = draw(
            st.sampled_from(
                [
                    FaultKind.TIMEOUT,
                    FaultKind.LOST,
                    FaultKind.SERVER_ERROR,
                    FaultKind.RATE_LIMIT,
                    FaultKind.DELAY,
                ]
            )
        )
    details: dict[str, Any] = {"after": draw(durations(timedelta(seconds=5)))}
    if draw(st.booleans()):
        details |= {"nth": draw(st.integers(1, 5)), "times": draw(st.integers(1, 3))}
    else:
        details |= {"probability": draw(st.sampled_from([0.05, 0.2, 0.5]))}
    if kind is FaultKind.RATE_LIMIT:
        details["retry_after"] = draw(durations(timedelta(seconds=10)))
    if kind in (FaultKind.TIMEOUT, FaultKind.LOST, FaultKind.SERVER_ERROR):
        details |= {"reached": draw(st.booleans()), "takes": draw(durations(timedelta(seconds=5)))}
    return Fault(on=on, kind=kind, **details)


def fault_scripts(max_size: int = 4) -> st.SearchStrategy[FaultScript]:
    """Scripts of up to *max_size* faults for a `MockExchange`."""
    return st.lists(faults(), max_size=max_size).map(FaultScript)
