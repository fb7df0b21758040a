"""The unmodified ccxt client, pointed at a venue on loopback."""

from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import ccxt.pro


def moved(urls, to):
    """Return addresses with another scheme and host; paths stay."""
    if isinstance(urls, dict):
        return {name: moved(url, to) for name, url in urls.items()}
    return to + urlsplit(urls).path if isinstance(urls, str) else urls


@asynccontextmanager
async def client_of(venue, *, key=None, secret=None, **options):
    """Yield a ccxt.pro client with markets loaded."""
    is_spot = getattr(venue, "market", "spot") == "spot"
    name = venue.name if is_spot else "binanceusdm"
    types = {"binance": ["spot"], "bybit": ["spot"], "binanceusdm": ["linear"]}[name]
    client = getattr(ccxt.pro, name)(
        {
            "apiKey": key or venue.key,
            "secret": secret or venue.secret,
            "enableRateLimit": False,
            "options": {
                "fetchMarkets": {"types": types},
                "fetchCurrencies": False,
                "fetchMargins": False,
                **options,
            },
        }
    )
    client.has["fetchCurrencies"] = False
    client.hostname = "127.0.0.1"
    # Neither certificates nor proxies are in the way here, so nothing has to be waited for.
    client.verify, client.timeout_on_exit = False, 0
    api = client.urls["api"]
    streams = moved(api.pop("ws"), venue.stream_url)
    if name == "binance":
        # Only an address with this part is one of spot for ccxt, where klines and tickers are concerned.
        streams["spot"] = f"{venue.stream_url}/stream/ws"
    client.urls["api"] = {**moved(api, venue.rest_url), "ws": streams}
    try:
        await client.load_markets()
        yield client
    finally:
        await client.close()
