"""Which addresses an Alpaca adapter may speak to: the venue's own, or what the user named; nothing else.

Live trading has to be spelled out, and an address of the live venue under paper settings, or the other way round, is
refused, because a key then meets the wrong venue.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import attrs

from execkit.errors import ConfigurationError
from execkit.exchanges.ccxt.hosts import is_loopback

LIVE: Final = "api.alpaca.markets"
PAPER: Final = "paper-api.alpaca.markets"
DATA: Final = "https://data.alpaca.markets"
DATA_STREAM: Final = "wss://stream.data.alpaca.markets"
FEEDS: Final = ("iex", "sip", "delayed_sip")


@attrs.frozen
class Addresses:
    """Where requests and streams go; none ends with a slash."""

    environment: str
    """`paper` or `live`."""
    rest: str
    stream: str
    data: str
    data_stream: str

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts of all of them."""
        return frozenset(
            urlsplit(url).hostname or ""
            for url in (self.rest, self.stream, self.data, self.data_stream)
        )


def addresses(
    *,
    paper: bool,
    live: bool,
    rest_url: str | None,
    stream_url: str | None,
    data_url: str | None,
    data_stream_url: str | None,
) -> Addresses:
    """Return the addresses of paper trading, or of live trading where it is spelled out.

    Raises `ConfigurationError` for settings that contradict each other or would send keys in the clear.
    """
    if not live and not paper:
        raise ConfigurationError(
            "live: orders with real money at alpaca need live=True spelled out; paper=False alone is not enough"
        )
    env = "live" if live else "paper"
    if (rest_url is None) is not (stream_url is None):
        missing = "stream_url" if stream_url is None else "rest_url"
        raise ConfigurationError(
            f"{missing}: give both rest_url and stream_url, or neither: orders and their news must be of one venue"
        )
    host = LIVE if live else PAPER
    if rest_url is not None and is_loopback(urlsplit(rest_url).hostname or ""):
        # Keys of a venue on this machine are not shown to the real one.
        data_url, data_stream_url = data_url or rest_url, data_stream_url or stream_url
    return Addresses(
        env,
        _checked("rest_url", rest_url or f"https://{host}", "https", env),
        _checked("stream_url", stream_url or f"wss://{host}", "wss", env),
        _checked("data_url", data_url or DATA, "https", env),
        _checked("data_stream_url", data_stream_url or DATA_STREAM, "wss", env),
    )


def _checked(field: str, url: str, secure: str, env: str) -> str:
    parts = urlsplit(url)
    plain = {"https": "http", "wss": "ws"}[secure]
    if parts.scheme not in (secure, plain) or not parts.hostname:
        raise ConfigurationError(f"{field}: {url!r} is no {secure} address such as {secure}://host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{field}: an address carries no user, password or query; pass keys as api_key= and secret="
        )
    if parts.scheme == plain and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{field}: {plain}:// sends keys in the clear, so it is taken for this machine only; use {secure}://"
        )
    if env == "paper" and parts.hostname == LIVE:
        raise ConfigurationError(
            f"{field}: {LIVE} is the live venue, but the settings say paper; "
            "pass live=True to trade with real money, or leave the address out"
        )
    if env == "live" and parts.hostname == PAPER:
        raise ConfigurationError(
            f"{field}: {PAPER} is for paper trading, but the settings say live; leave live=True out"
        )
    return url.rstrip("/").removesuffix("/stream")
