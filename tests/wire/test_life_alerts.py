"""What a person is told, through a real service on loopback, of what happens at each venue on the wire."""

import logging
from datetime import timedelta
from decimal import Decimal

from aiohttp import web
from tests.support.life import STOP, living, on

from execkit.model.market import Quote
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.model.result import Outcome
from execkit.notify.messages import Severity
from execkit.notify.notifier import Notifier
from execkit.protection.policy import ProtectionPolicy
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.control import TwsControl

D = Decimal


class Service:
    """What a chat service is for Apprise: an HTTP server."""

    def __init__(self):
        self.told = {}

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"json://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook"
        return self

    async def __aexit__(self, *exc):
        await self._runner.cleanup()

    async def _take(self, request):
        body = await request.json()
        self.told[body["title"].removeprefix("execkit: ")] = body["message"]
        return web.Response()


async def buy_by_hand(life):
    """Buy past the engine, as the account's owner may."""
    terms = {"symbol": life.stage.other, "side": Side.BUY, "quantity": D(2)}
    order = OrderRequest(
        client_order_id="manual-1", type=OrderType.LIMIT, limit_price=D(210), **terms
    )
    if life.name == "ibkr":
        await TwsControl(life.venue, life.stage.exchange).foreign_order(order)
    else:
        life.venue.place_foreign(order)


@on()
async def test_alerts(name):
    """Alerts through a sink: slippage, rejection, doubt, drift from the venue, an unprotected position, a halt."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    policy = ProtectionPolicy(attempts=1)
    every = timedelta(seconds=0.3)
    async with (
        Service() as service,
        living(name, protection=policy, reconcile_every=every) as life,
        Notifier(life.engine.events, [service.url], least=Severity.WARNING),
    ):
        told = service.told
        await life.engine.instrument(life.symbol)
        await life.engine.desk.quotes.get(life.symbol)
        # The market moves, and the news of it come too late.
        ahead = Quote(life.symbol, D("201.5"), D("201.6"), life.stage.clock.now())
        life.stage.core.on_quote(ahead)
        await life.enter()
        await life.until(lambda: "Slippage" in told, "slippage is told")
        await life.leave()
        await life.move(D(200))

        life.refuse(1)
        refused = await life.submit(symbol=life.stage.other, quantity=D(1))
        assert refused.outcome is Outcome.REJECTED, refused
        await life.until(lambda: "Order rejected" in told, "a rejection is told")

        life.fail("place", Mishap.DROP_REQUEST)
        rests = {"limit_price": D(192), "stop_loss": D(189)}
        lost = await life.submit(symbol=life.stage.other, quantity=D(1), **rests)
        await life.until(lambda: "Order in doubt" in told, f"a doubt is told: {lost}")
        await life.until(lambda: not life.engine.orders.in_doubt, "it is resolved")
        await life.engine.cancel_all(halt=False)
        await life.until(life.is_flat, "nothing is open")

        life.refuse(100, OrderType.STOP)
        await life.until(lambda: not life.engine.desk.reconciler.is_blind, "compared again")
        bought = await life.submit(quantity=D(10), stop_loss=STOP)
        assert bought.outcome is Outcome.FILLED, bought
        await life.until(lambda: "Position unprotected" in told, "it is told at once")

        await buy_by_hand(life)
        await life.until(lambda: "Books and venue differ" in told, "drift is told")

        await life.engine.halt("by hand")
        await life.until(lambda: "Trading is halted" in told, "a halt is told")
        assert told["Trading is halted"] == "by hand"
