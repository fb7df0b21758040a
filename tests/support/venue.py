"""A venue that keeps orders by the book, and answers as a test says where it says so."""

import asyncio
import inspect
from collections import Counter, defaultdict, deque
from decimal import Decimal

from msgspec.structs import replace
from tests.support.orders import AT, BTC
from tests.support.tickets import INSTRUMENT

from execkit.errors import OrderNotFoundError
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side


class ScriptedVenue(ExchangeAdapter):
    """One account. Market orders are executed at once at `price`; everything else rests until a test acts.

    `script("place_order", step, ...)` says what the next calls of a method do: raise an exception, return a value, or
    call a function, plain or async, with the method's arguments. `always` does the same for all calls that follow.
    """

    name = "scripted"

    def __init__(self, **capabilities):
        settings = {"absence_window": None} | capabilities
        self.capabilities_ = Capabilities(**settings)
        self.orders = {}
        """What the venue knows, by client order id."""
        self.fills = []
        self.calls = Counter()
        """How often each method was called."""
        self.sent = []
        """Client order ids of all orders that arrived."""
        self.log = []
        """(method, client order id) of all that arrived but queries."""
        self.price = Decimal(100)
        self.held = Decimal(0)
        """Position in BTC beyond that of the fills."""
        self.cash = None
        """Holdings; None means what the fills amount to."""
        self.siblings = {}
        """The orders of one list, by each of their client order ids."""
        self._scripts = defaultdict(deque)
        self._always = {}

    @property
    def capabilities(self):
        return self.capabilities_

    # -- what tests do ---------------------------------------------------------------------------------

    def script(self, method, *steps):
        self._scripts[method].extend(steps)

    def always(self, method, step=None):
        if step is None:
            self._always.pop(method, None)
        else:
            self._always[method] = step

    def fill(self, order_id, quantity=None, price=None, at=AT):
        """Execute an order and return the fill, which nobody was told of yet."""
        order = self.orders[order_id]
        size = order.quantity - order.filled if quantity is None else Decimal(quantity)
        done = Fill(
            trade_id=f"t{len(self.fills) + 1}",
            client_order_id=order_id,
            venue_order_id=order.venue_order_id,
            symbol=order.symbol,
            side=order.side,
            quantity=size,
            price=Decimal(price or order.limit_price or self.price),
            at=at,
        )
        self.fills.append(done)
        total = order.filled + size
        whole = total >= order.quantity
        status = OrderState.FILLED if whole else OrderState.PARTIALLY_FILLED
        if order.status.is_closed:
            status = order.status
        self.orders[order_id] = replace(
            order, filled=total, status=status, fills=(*order.fills, done)
        )
        return done

    def end(self, order_id, status=OrderState.CANCELLED):
        """End an order and return the report of it."""
        self.orders[order_id] = replace(self.orders[order_id], status=status)
        return self.orders[order_id]

    def end_siblings(self, order_id):
        """End the others of an order's list, and return the reports of them."""
        others = [each for each in self.siblings.get(order_id, ()) if each != order_id]
        return [self.end(each) for each in others if not self.orders[each].status.is_closed]

    def accept(self, request, status=OrderState.ACCEPTED):
        """Put an order into the book and return the report of it."""
        self.orders[request.client_order_id] = OrderReport(
            client_order_id=request.client_order_id,
            venue_order_id=f"v{len(self.orders) + 1}",
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            quantity=request.quantity,
            status=status,
            limit_price=request.limit_price,
            stop_price=request.stop_price,
        )
        return self.orders[request.client_order_id]

    def accepted(self):
        """Return how many different orders were taken in."""
        return len(self.orders)

    @property
    def open(self):
        return [each for each in self.orders.values() if not each.status.is_closed]

    # -- the adapter -----------------------------------------------------------------------------------

    async def _call(self, method, ideal, *args, **kwargs):
        self.calls[method] += 1
        script = self._scripts[method]
        step = script.popleft() if script else self._always.get(method)
        if step is None:
            step = ideal
        if isinstance(step, BaseException) or (
            isinstance(step, type) and issubclass(step, BaseException)
        ):
            raise step
        answer = step(*args, **kwargs) if callable(step) else step
        return await answer if inspect.isawaitable(answer) else answer

    async def instrument(self, symbol):
        return await self._call("instrument", lambda _symbol: INSTRUMENT, symbol)

    async def place_order(self, request):
        self.sent.append(request.client_order_id)
        self.log.append(("place", request.client_order_id))
        return await self._call("place_order", self._place, request)

    def _place(self, request):
        self.accept(request)
        if request.type is OrderType.MARKET:
            self.fill(request.client_order_id)
        return self.orders[request.client_order_id]

    async def place_list(self, orders):
        for request in orders.orders:
            self.sent.append(request.client_order_id)
            self.log.append((orders.kind.value, request.client_order_id))
        return await self._call("place_list", self.accept_list, orders)

    def accept_list(self, orders):
        """Put the orders of a list into the book and return the reports of them."""
        ids = [request.client_order_id for request in orders.orders]
        self.siblings |= dict.fromkeys(ids, ids)
        return [self.accept(request) for request in orders.orders]

    async def cancel_order(self, symbol, *, client_order_id, venue_order_id=None):
        self.log.append(("cancel", client_order_id))
        return await self._call("cancel_order", self._cancel, client_order_id)

    def _cancel(self, order_id):
        order = self.orders.get(order_id)
        if order is None or order.status.is_closed:
            raise OrderNotFoundError("no such open order")
        self.end_siblings(order_id)
        return self.end(order_id)

    async def amend_order(
        self,
        symbol,
        *,
        client_order_id,
        venue_order_id=None,
        quantity=None,
        limit_price=None,
        stop_price=None,
    ):
        self.log.append(("amend", client_order_id))
        wanted = {"quantity": quantity, "limit_price": limit_price, "stop_price": stop_price}
        changes = {name: value for name, value in wanted.items() if value is not None}
        return await self._call("amend_order", self.amend, client_order_id, **changes)

    def amend(self, order_id, **changes):
        """Change an order and return the report of it."""
        self.orders[order_id] = replace(self.orders[order_id], **changes)
        return self.orders[order_id]

    async def get_order(self, symbol, *, client_order_id, venue_order_id=None):
        return await self._call("get_order", self._get, client_order_id)

    def _get(self, order_id):
        if order_id not in self.orders:
            raise OrderNotFoundError("never heard of it")
        return self.orders[order_id]

    async def open_orders(self, symbol=None):
        return await self._call("open_orders", lambda _symbol: list(self.open), symbol)

    async def fills_since(self, since, symbol=None):
        return await self._call("fills_since", lambda _since: list(self.fills), since)

    async def balances(self):
        return await self._call("balances", self._balances)

    def _balances(self):
        cash = self.cash
        if cash is None:
            flows = [
                (f.quantity if f.side is Side.BUY else -f.quantity, f.price) for f in self.fills
            ]
            cash = {
                "BTC": sum((bought for bought, _ in flows), Decimal(0)),
                "USDT": -sum((bought * price for bought, price in flows), Decimal(0)),
            }
        return {asset: Balance(asset, total, total) for asset, total in cash.items()}

    async def positions(self):
        return await self._call("positions", self._positions)

    def _positions(self):
        sum_ = self.held + sum(
            (f.quantity if f.side is Side.BUY else -f.quantity for f in self.fills), Decimal(0)
        )
        return [VenuePosition(BTC, sum_)] if sum_ else []

    async def ticker(self, symbol):
        return await self._call(
            "ticker", lambda _symbol: Quote(symbol, self.price, self.price, AT), symbol
        )


def after(seconds, step):
    """Return a step that waits, and then does what *step* says."""

    async def run(*args, **kwargs):
        await asyncio.sleep(seconds)
        if isinstance(step, BaseException):
            raise step
        return step(*args, **kwargs) if callable(step) else step

    return run


def never(*_args, **_kwargs):
    """Be the step that never answers."""
    return asyncio.get_running_loop().create_future()
