"""Random journals: every record could have happened after those before it."""

from decimal import Decimal

from hypothesis import strategies as st
from tests.support.orders import changed, fill, intent, later

from execkit.model.denial import Denial, DenialCode
from execkit.model.order import OrderEvent, OrderRole, OrderState, Side
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    BarClosed,
    CommandSent,
    Entry,
    EquityMarked,
    ExternalChange,
    Filled,
    PlanChanged,
    RegistryChanged,
    SignalQueued,
    SignalResult,
    Source,
    StopMoved,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.model.result import Outcome
from execkit.orders.book import Book
from execkit.orders.states import TRANSITIONS

SYMBOLS = ("BTC/USDT", "ETH/USDT")
_EVENTS = sorted(
    set(OrderEvent) - {OrderEvent.FILL, OrderEvent.FILL_PART}, key=lambda event: event.value
)

_lots = st.integers(1, 400).map(lambda n: Decimal(n).scaleb(-2))
_prices = st.integers(100, 20_000).map(lambda n: Decimal(n).scaleb(-1))


@st.composite
def histories(draw, max_size=30):
    """Return journal entries from the first on."""
    book = Book()
    entries = []
    for second in range(draw(st.integers(1, max_size))):
        at = later(second * draw(st.sampled_from([1, 1, 1, 600])))
        record = draw(st.sampled_from(_MAKERS))(draw, book, second, at)
        if record is not None:
            book.apply(record, at)
            entries.append(Entry(len(entries) + 1, at, record))
    return entries


def _intent(draw, book, number, at):
    role = draw(st.sampled_from([OrderRole.ENTRY, OrderRole.ENTRY, OrderRole.STOP, OrderRole.EXIT]))
    signal = f"s{draw(st.integers(0, 5))}"
    return intent(
        f"o{number}",
        symbol=draw(st.sampled_from(SYMBOLS)),
        side=draw(st.sampled_from(Side)),
        quantity=draw(_lots),
        limit=draw(st.none() | _prices),
        role=role,
        parent=signal,
        revision=book.next_revision(signal, role),
        signal_id=signal,
        signal_digest=f"digest of {signal}",
        stop_loss=draw(st.none() | _prices),
        strength=Decimal(70),
    )


def _some_order(draw, book):
    return book.orders[draw(st.sampled_from(sorted(book.orders)))] if len(book.orders) else None


def _event(draw, book, number, at):
    order = _some_order(draw, book)
    if order is None:
        return None
    possible = [event for event in _EVENTS if event in TRANSITIONS[order.state]]
    if not possible:
        return None
    event = draw(st.sampled_from(possible))
    grows = event is OrderEvent.AMEND
    return changed(
        event,
        order.client_order_id,
        venue_order_id=f"v{order.client_order_id}",
        reason=draw(st.sampled_from(["", "because"])),
        quantity=draw(_lots) if grows else None,
        stop_price=draw(st.none() | _prices) if grows else None,
    )


def _command(draw, book, number, at):
    order = _some_order(draw, book)
    if order is None:
        return None
    is_amend = draw(st.booleans())
    return CommandSent(
        client_order_id=order.client_order_id,
        command="amend" if is_amend else "cancel",
        quantity=draw(st.none() | _lots) if is_amend else None,
        stop_price=draw(st.none() | _prices) if is_amend else None,
    )


def _fill(draw, book, number, at):
    order = _some_order(draw, book)
    if order is None or order.state is OrderState.NEW:
        return None
    known = sorted(order.trades)
    replaces = draw(st.sampled_from([None, None, None, *known]))
    is_bust = replaces is not None and draw(st.booleans())
    done = fill(
        f"t{number}",
        order.client_order_id,
        "0" if is_bust else draw(_lots),
        draw(_prices),
        side=order.side,
        symbol=order.symbol,
        fee="0" if is_bust else draw(st.sampled_from(["0", "0.001", "-0.001"])),
        fee_asset=draw(st.sampled_from(["", "USDT", "BTC", "ETH", "BNB"])),
        at=later(draw(st.integers(0, 60))),
        replaces=replaces,
    )
    return Filled(fill=done, source=Source.STREAM)


def _result(draw, book, number, at):
    signal = f"s{draw(st.integers(0, 7))}"
    denied = draw(st.booleans())
    return SignalResult(
        signal_id=signal,
        signal_digest=f"digest of {signal}",
        symbol=SYMBOLS[0],
        side=Side.BUY,
        outcome=Outcome.DENIED if denied else Outcome.FILLED,
        denial=Denial.of(DenialCode.SYMBOL_BLOCKED, symbol="x") if denied else None,
    )


def _queued(draw, book, number, at):
    signal = f"s{draw(st.integers(0, 7))}"
    return SignalQueued(
        signal_id=signal,
        signal_digest=f"digest of {signal}",
        symbol=SYMBOLS[0],
        signal="{}",
        queued=draw(st.booleans()),
        role=draw(st.sampled_from([None, OrderRole.ENTRY, OrderRole.EXIT])),
    )


def _bar(draw, book, number, at):
    return BarClosed(
        symbol=draw(st.sampled_from(SYMBOLS)),
        timeframe=draw(st.sampled_from(["1m", "1h"])),
        close_time=later(60 * draw(st.integers(0, 30))),
        high=Decimal(110) + number,
        low=Decimal(90) - number,
        close=Decimal(100),
        signals={f"s{number}": "{}"} if draw(st.booleans()) else {},
    )


def _levels(draw, book, number, at):
    positions = sorted(book.positions.open)
    if not positions:
        return None
    position = book.positions.open[draw(st.sampled_from(positions))]
    return StopMoved(
        symbol=position.symbol,
        position_id=position.position_id,
        stop_loss=draw(st.none() | _prices),
        take_profit=draw(st.none() | _prices),
    )


def _external(draw, book, number, at):
    return ExternalChange(
        symbol=draw(st.sampled_from(SYMBOLS)),
        quantity=draw(_lots) * draw(st.sampled_from([1, -1])),
        price=draw(_prices),
        reason="by hand",
    )


def _rest(draw, book, number, at):
    return draw(
        st.sampled_from(
            [
                BalancesSeen(totals={"USDT": Decimal(1000 + number)}, source=Source.RECONCILE),
                EquityMarked(equity=Decimal(number), opens_session=number % 2 == 0),
                TradingStateChanged(state=TradingState.HALTED, cause="c", actor="a"),
                TradingStateChanged(state=TradingState.ACTIVE, cause="c", actor="a"),
                SymbolBlocked(symbol="BTC/USDT", blocked=True, cause="x"),
                SymbolBlocked(symbol="BTC/USDT", blocked=False, cause="x"),
                PlanChanged(plan=f"p{number % 3}", status="awaiting_entry"),
                Alarm(code="X", text=f"n{number}"),
                RegistryChanged(name="f", action="registered", actor="a"),
            ]
        )
    )


_MAKERS = [
    _intent,
    _intent,
    _event,
    _event,
    _event,
    _command,
    _fill,
    _fill,
    _fill,
    _result,
    _queued,
    _bar,
    _levels,
    _external,
    _rest,
]
