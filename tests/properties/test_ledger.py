"""The ledger's running sums equal a naive recomputation after every step."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from execkit.model.order import Fill, OrderRequest, OrderRole, OrderState, OrderType, Side
from execkit.model.records import Intent
from execkit.orders.manager import ManagedOrder
from execkit.risk.ledger import RiskLedger

AT = datetime(2024, 1, 1, tzinfo=UTC)
QUANTITIES = st.decimals("0.00001", 1000, places=5)
PRICES = st.decimals("0.00000001", 100_000, places=8)
SYMBOLS = ("A/B", "C/B", "D/B")


class LedgerMachine(RuleBasedStateMachine):
    """Signals reserve, send one or more orders that fill and end in any order, and release."""

    def __init__(self):
        super().__init__()
        self.ledger = RiskLedger()
        self.held = {}
        """Reserved quantity by signal, while its chain runs."""
        self.terms = {}
        """(symbol, side, price, cost) by signal."""
        self.orders = {}
        self.trades = 0

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(Side),
        quantity=QUANTITIES,
        price=PRICES,
        worst=PRICES,
    )
    def reserve(self, symbol, side, quantity, price, worst):
        signal = f"s{len(self.terms)}"
        self.ledger.reserve(signal, symbol, side, quantity, worst, price=price)
        self.held[signal] = quantity
        self.terms[signal] = (symbol, side, price, worst)
        self.orders[signal] = []

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.integers(1, 12))
    def send(self, data, share):
        signal = data.draw(st.sampled_from(sorted(self.held)))
        symbol, side, price, worst = self.terms[signal]
        number = sum(len(orders) for orders in self.orders.values())
        request = OrderRequest(
            client_order_id=f"o{number}",
            symbol=symbol,
            side=side,
            type=OrderType.MARKET,
            quantity=self.held[signal] * share / 10,
        )
        intent = Intent(
            request=request,
            payload_hash="",
            role=OrderRole.ENTRY,
            parent=signal,
            reservation_id=signal,
            worst_price=worst,
            expected_price=price,
        )
        order = ManagedOrder.of(intent, AT)
        self.orders[signal].append(order)
        self.ledger.on_order(order)

    @precondition(lambda self: any(self.orders.values()))
    @rule(data=st.data(), share=st.integers(1, 12))
    def fill(self, data, share):
        order = self.pick(data)
        self.trades += 1
        order.trades[f"t{self.trades}"] = Fill(
            trade_id=f"t{self.trades}",
            client_order_id=order.client_order_id,
            venue_order_id="",
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity * share / 10,
            price=Decimal(1),
            at=AT,
        )
        order.filled += order.quantity * share / 10
        self.ledger.on_order(order)

    @precondition(lambda self: any(self.orders.values()))
    @rule(data=st.data(), state=st.sampled_from(OrderState))
    def move(self, data, state):
        order = self.pick(data)
        if not order.state.is_closed:
            order.state = state
        self.ledger.on_order(order)
        self.ledger.on_order(order)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        signal = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[signal]
        self.ledger.release(signal)

    def pick(self, data):
        signal = data.draw(
            st.sampled_from(sorted(s for s, orders in self.orders.items() if orders))
        )
        return data.draw(st.sampled_from(self.orders[signal]))

    def needed(self, signal):
        """What the venue may still execute of a signal, added up from its orders."""
        orders = self.orders[signal]
        live = sum(
            (max(o.quantity - o.filled, 0) for o in orders if o.state.may_be_live), Decimal(0)
        )
        if signal not in self.held:
            return live
        filled = sum((o.filled for o in orders), Decimal(0))
        return max(self.held[signal] - filled, live)

    @invariant()
    def sums_are_exact(self):
        buys = sells = cash = Decimal(0)
        symbols = dict.fromkeys(SYMBOLS, Decimal(0))
        pending = set()
        for signal, (symbol, side, price, worst) in self.terms.items():
            needed = self.needed(signal)
            symbols[symbol] += needed * price
            if signal in self.held or needed:
                pending.add(symbol)
            if side is Side.BUY:
                buys += needed * price
                cash += needed * worst
            else:
                sells += needed * price
        ledger = self.ledger
        assert ledger.reserved_notional(Side.BUY) == buys
        assert ledger.reserved_notional(Side.SELL) == sells
        assert ledger.exposure == buys + sells
        assert ledger.reserved_cash == cash
        assert set(ledger.pending_symbols) == pending
        for symbol, notional in symbols.items():
            assert ledger.reserved_notional_of(symbol) == notional


TestLedger = LedgerMachine.TestCase
TestLedger.__doc__ = LedgerMachine.__doc__
