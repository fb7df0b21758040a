"""`execkit venue`: run a wire-level venue on this machine, whose prices move by themselves."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import random
import signal
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import click

from execkit.errors import ConfigurationError
from execkit.exchanges.matching import MatchingCore
from execkit.numbers import positive, round_nearest

VENUES: Final = {
    "alpaca": "execkit.testing.venues.alpaca:AlpacaVenue",
    "binance": "execkit.testing.venues.binance:BinanceVenue",
    "bybit": "execkit.testing.venues.bybit:BybitVenue",
    "ibkr": "execkit.testing.venues.tws.server:WireTws",
}
"""Classes by name. Each takes `prices` and `port` and, where the venue has such, `market`, `key` and `secret`."""

_MARKETS: Final = {
    ("alpaca", None): ("AAPL", "180"),
    ("binance", "usdm"): ("BTC/USDT:USDT", "42000"),
    ("ibkr", None): ("AAPL", "180"),
}
"""Symbol and first price where nobody names any; elsewhere those of `_BITCOIN`."""
_BITCOIN: Final = ("BTC/USDT", "42000")
_STEP: Final = Decimal("0.0005")
"""Most that a price moves at once, as a fraction."""
_KEPT: Final = 1_000


@click.command()
@click.argument("name", type=click.Choice(sorted(VENUES)))
@click.option("--port", default=8900, show_default=True, help="0 takes any free port.")
@click.option("--market", help="Where the venue has several: spot or usdm.")
@click.option(
    "--symbol", help="What is traded; by default bitcoin, or a share where there is none."
)
@click.option("--price", help="First price.")
@click.option("--key", help="API key to let in; by default one that is printed.")
@click.option("--secret", help="Its secret; never use a real one here.")
@click.option("--seed", default=0, show_default=True, help="Of the price's path.")
@click.option("--every", default=1.0, show_default=True, help="Seconds between two prices.")
@click.option("--for", "lasts", type=float, help="Stop after so many seconds.")
def venue(
    name: str,
    port: int,
    market: str | None,
    symbol: str | None,
    price: str | None,
    key: str | None,
    secret: str | None,
    seed: int,
    every: float,
    lasts: float | None,
) -> None:
    """Run the wire-level venue NAME until Ctrl-C."""
    usual, worth = _MARKETS.get((name, market), _BITCOIN)
    symbol, price = symbol or usual, price or worth
    try:
        first = positive("--price", Decimal(price))
    except InvalidOperation as error:
        raise ConfigurationError(f"--price: {price!r} is not a number") from error
    options = {"market": market, "key": key, "secret": secret}
    made = make(name, prices={symbol: first}, port=port, **options)
    asyncio.run(_run(made, symbol, first, random.Random(seed), every, lasts))  # noqa: S311 - a drawn path


def make(name: str, **options: Any) -> Any:
    """Return the venue of that name; raise `ConfigurationError` for an option that it does not have."""
    module, _, attribute = VENUES[name].partition(":")
    build = getattr(importlib.import_module(module), attribute)
    given = {option: value for option, value in options.items() if value is not None}
    known = inspect.signature(build).parameters
    for option in given:
        if option not in known:
            raise ConfigurationError(f"--{option}: {name} has no such option; leave it out")
    return build(**given)


async def _run(
    made: Any,
    symbol: str,
    price: Decimal,
    rng: random.Random,
    every: float,
    lasts: float | None,
) -> None:
    """Serve, and move the price, until somebody stops it."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    if lasts is not None:
        loop.call_later(lasts, stop.set)
    async with made:
        for label, value in (
            ("REST", getattr(made, "rest_url", None)),
            ("streams", getattr(made, "stream_url", None)),
            ("socket", getattr(made, "address", None)),
            ("key", getattr(made, "key", None)),
            ("secret", getattr(made, "secret", None)),
            ("symbol", symbol),
        ):
            if value is not None:
                click.echo(f"{label:8} {value}")
        for name in ("key", "secret"):
            if getattr(made, name, None):
                # Only what lets one in here; whoever has real ones in these variables keeps them in another shell.
                click.echo(f"export {made.name.upper()}_API_{name.upper()}={getattr(made, name)}")
        click.echo("Ctrl-C stops it.")
        core: MatchingCore = made.core
        tick = core.instrument(symbol).tick_size
        while not stop.is_set():
            try:
                async with asyncio.timeout(every):
                    await stop.wait()
            except TimeoutError:
                # A venue of days keeps no record of every request, which is for tests of seconds.
                del getattr(made, "requests", [])[:-_KEPT]
                move = price * _STEP * rng.randint(-100, 100) / 100
                price = max(tick, round_nearest(price + move, tick))
                moved = made.move_price(symbol, price)
                if inspect.isawaitable(moved):
                    await moved
