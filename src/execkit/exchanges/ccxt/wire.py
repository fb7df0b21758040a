"""A ccxt client whose way to the network is ours.

ccxt signs, names endpoints and speaks the streams. This class replaces how one request travels: once, to pinned hosts,
without redirects, under a time limit, and with everything that is needed to judge the answer in one exception of its
own. ccxt's log of requests, which contains signatures, is not written.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import import_module
from typing import Any, Final

import aiohttp
import structlog
import yarl

from execkit.clock import Clock
from execkit.errors import ConfigurationError
from execkit.exchanges.ccxt.dialect import (
    BANNED,
    Dialect,
    RefusedError,
    UnansweredError,
    UnsentError,
)
from execkit.exchanges.ccxt.values import BadAnswerError, clean, milliseconds, parse_json
from execkit.redaction import keep_secret

log = structlog.get_logger("execkit")

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer; the largest real one, all markets of a venue, has a few million."""
_UNSENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_SECRETS: Final = ("apiKey", "secret", "password")
_SIGNATURE: Final = re.compile(
    r"(sign(?:ature)?|listenKey|token)[\"'=: ]+[\w%+/-]{8,}", re.IGNORECASE
)
_UNTIL: Final = re.compile(r"until (\d{13})\b", re.ASCII)
_BAN_SECONDS: Final = 120.0
"""What a ban lasts at least, where the venue does not say."""
_MOST_DIALS: Final = 150
_DIALS_COUNT: Final = 300.0
"""So many WebSocket connections in so many seconds and no more: Binance bans an address for 300 of them."""


_sent: ContextVar[list[int] | None] = ContextVar("sent", default=None)


@contextlib.contextmanager
def sending() -> Iterator[list[int]]:
    """Count, in the list's only item, the requests of this context that may have left."""
    count = [0]
    token = _sent.set(count)
    try:
        yield count
    finally:
        _sent.reset(token)


def _count_sent(change: int) -> None:
    count = _sent.get()
    if count is not None:
        count[0] += change


class Wire:
    """Mixed into a class of ccxt, in front of it; see `make_client`."""

    id: str
    clock: Clock
    dialect: Dialect
    hosts: frozenset[str]
    limit: float
    """Seconds for one request."""
    timeout_on_exit = 0
    http: aiohttp.ClientSession | None
    banned_until: float
    """Loop time until which the venue takes nothing from this address."""
    dials: deque[float]
    """Loop times of the WebSocket connections of the last minutes."""
    on_headers: Callable[[Any], None]
    on_raw: Callable[[Any, Any], bool]
    """Sees each message of a stream before ccxt does; True: it is dealt with."""

    # -- requests ----------------------------------------------------------------------------------------

    async def fetch(
        self, url: str, method: str = "GET", headers: Any = None, body: str | None = None
    ) -> Any:
        """Send one request and return the parsed answer.

        Raises `UnsentError`, `RefusedError` or `UnansweredError`, and nothing else; none of them names the address,
        because that holds the signature.
        """
        if self.http is None:
            raise UnsentError("the adapter is not connected; call connect() first")
        self._refuse_under_a_ban()
        target = yarl.URL(url, encoded=True)
        if target.host not in self.hosts:
            raise UnsentError(f"{clean(target.host)} is no host of this venue")
        headers = self.prepare_request_headers(headers)  # type: ignore[attr-defined]
        _count_sent(1)
        try:
            async with self.http.request(
                method,
                target,
                data=body.encode() if body else None,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.limit, sock_connect=self.limit),
            ) as response:
                raw = await _read(response)
        except _UNSENT as error:
            _count_sent(-1)
            failure: Exception = UnsentError(f"no connection ({type(error).__name__})")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = UnansweredError(f"no whole answer came ({type(error).__name__})")
        else:
            self.on_headers(response.headers)
            return self._parsed(response, raw)
        # Raised out here, so that it does not carry aiohttp's error: that may hold the address.
        raise failure

    def _refuse_under_a_ban(self) -> None:
        left = self.banned_until - asyncio.get_running_loop().time()
        if left > 0:
            waits = timedelta(seconds=round(left, 3))
            raise RefusedError(BANNED, None, "the venue has banned this address", waits)

    def _parsed(self, response: aiohttp.ClientResponse, raw: bytes) -> Any:
        status = response.status
        try:
            parsed = parse_json(raw)
        except BadAnswerError as error:
            if status >= 300:
                raise self._refused(response, None, f"HTTP {status}") from None
            raise UnansweredError(f"HTTP {status} with {error}") from None
        found = self.dialect.read_code(parsed)
        if found is not None:
            raise self._refused(response, found[0], clean(found[1]))
        if not self.dialect.knows_all:
            self._ask_ccxt(response, raw, parsed)
        if status >= 300:
            raise self._refused(response, self._vouched(parsed), f"HTTP {status}")
        return parsed

    def _ask_ccxt(self, response: aiohttp.ClientResponse, raw: bytes, parsed: Any) -> None:
        """Let ccxt look for an error in a whole answer of a venue whose codes we do not know."""
        try:
            self.handle_errors(  # type: ignore[attr-defined]
                response.status,
                response.reason,
                "",
                response.method,
                {},
                raw.decode(),
                parsed,
                {},
                "",
            )
        except Exception as error:  # noqa: BLE001 - its class proves nothing, that it raised does
            text = f"{type(error).__name__}: {clean(error)}"
            raise self._refused(response, self._vouched(parsed), text) from None

    def _vouched(self, parsed: Any) -> str | None:
        """Return the code that an error holds, wherever, where somebody has said what it means."""
        if isinstance(parsed, dict):
            parsed = list(parsed.values())
        if isinstance(parsed, list):
            return next((code for part in parsed if (code := self._vouched(part))), None)
        code = str(parsed)
        return code if code in self.dialect.meanings else None

    def _refused(
        self, response: aiohttp.ClientResponse, code: str | None, text: str
    ) -> RefusedError:
        waits = self._retry_after(response.headers.get("Retry-After"))
        if response.status == BANNED:
            waits = self._until_stated(text) if waits is None else waits
            seconds = _BAN_SECONDS if waits is None else waits.total_seconds()
            waits = timedelta(seconds=seconds)
            self.banned_until = asyncio.get_running_loop().time() + seconds
            log.error("venue.banned", venue=self.id, seconds=seconds)
        return RefusedError(response.status, code, self._redacted(text), waits)

    def _until_stated(self, text: str) -> timedelta | None:
        """Return how long a ban lasts, where its text names the end in milliseconds."""
        found = _UNTIL.search(text)
        if found is None:
            return None
        left = timedelta(milliseconds=int(found[1]) - milliseconds(self.clock.now()))
        return max(left, timedelta(0))

    def _redacted(self, text: str) -> str:
        """Return a venue's words without what it may have repeated of ours."""
        for name in _SECRETS:
            secret = getattr(self, name, None)
            if secret:
                text = text.replace(str(secret), "***")
        return _SIGNATURE.sub(r"\1=***", text)

    def _retry_after(self, value: str | None) -> timedelta | None:
        if value is None:
            return None
        if value.isascii() and value.isdigit() and len(value) <= 7:
            return timedelta(seconds=int(value))
        try:
            return max(parsedate_to_datetime(value) - self.clock.now(), timedelta(0))
        except (TypeError, ValueError):
            return None

    # -- time --------------------------------------------------------------------------------------------

    def milliseconds(self) -> int:
        """Return the injected clock's time; ccxt stamps requests with it."""
        return milliseconds(self.clock.now())

    # -- streams -----------------------------------------------------------------------------------------

    def ws_dial_delay(self, _url: str) -> float:
        """Dial at once: those who keep a stream open wait between their attempts."""
        return 0.0

    def client(self, url: str) -> Any:
        """Return the socket of an address, which must be on a pinned host.

        A new one is refused while the venue bans us, and when too many were opened of late.
        """
        host = yarl.URL(url).host
        if host is not None and host not in self.hosts:
            raise UnsentError(f"{clean(host)} is no host of this venue")
        is_new = url not in self.clients  # type: ignore[attr-defined]
        if is_new:
            self._refuse_under_a_ban()
            self._count_dial()
        socket = super().client(url)  # type: ignore[misc]
        if is_new:
            # ccxt would end its reading loop without a word when a frame cannot be parsed or handled.
            socket.handle_text_or_binary_message = lambda data: self._frame(socket, data)
        return socket

    def _count_dial(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.dials and now - self.dials[0] > _DIALS_COUNT:
            self.dials.popleft()
        if len(self.dials) >= _MOST_DIALS:
            raise UnsentError(
                f"{_MOST_DIALS} streams were opened in {_DIALS_COUNT:.0f} s; more could get this address banned"
            )
        self.dials.append(now)

    def _frame(self, socket: Any, data: bytes | str) -> None:
        try:
            if isinstance(data, bytes) and socket.decompressBinary:
                data = data.decode()
            is_json = isinstance(data, str) and data[:1] in ("{", "[")
            message = parse_json(data) if is_json else data
            if not self.on_raw(socket, message):
                socket.on_message_callback(socket, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream can no longer be trusted
            log.warning("stream.unreadable", venue=self.id, error=type(error).__name__)
            socket.on_error(UnansweredError(f"an unreadable frame ({type(error).__name__})"))


def open_session(*, streams: bool = False) -> aiohttp.ClientSession:
    """Return a session that repeats nothing by itself and asks no environment; one for *streams* takes no redirect.

    Requests are told one by one to follow none; tracing, which WebSockets need for that, would slow each of them.
    """
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_refuse_redirect)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=100, ttl_dns_cache=300),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        trace_configs=[tracing] if streams else None,
    )
    # aiohttp would send a PUT or DELETE a second time when a kept connection turns out to be dead.
    session._retry_connection = False  # noqa: SLF001
    return session


async def _refuse_redirect(*_args: object) -> None:
    # The first thing that is said on a socket is a signature.
    raise UnansweredError("the venue sends us to another address")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST:
            response.close()
            raise UnansweredError(f"an answer of more than {LARGEST} bytes")
        parts.append(part)
    return b"".join(parts)


@cache
def _shared_tls() -> ssl.SSLContext:
    """Return one context that verifies for all clients; each would make its own and hold up the loop for it.

    It is never used: all requests and streams go through sessions of `open_session`, which verify by themselves.
    """
    return ssl.create_default_context()


def ccxt_class(exchange_id: str) -> Any:
    """Return ccxt's class of a venue, with streams where it has them.

    Raises `ConfigurationError` for an id that ccxt does not know.
    """
    try:
        known = import_module("ccxt").exchanges
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"exchange {exchange_id!r} needs the package {error.name}; install it with: pip install 'execkit[ccxt]'"
        ) from error
    if exchange_id not in known:
        near = _near(exchange_id, known)
        raise ConfigurationError(
            f"exchange_id: ccxt knows no {exchange_id!r}{near}; see ccxt.exchanges for all {len(known)}"
        )
    for package in ("ccxt.pro", "ccxt.async_support"):
        try:
            return getattr(import_module(f"{package}.{exchange_id}"), exchange_id)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("ccxt."):
                raise
    raise ConfigurationError(f"exchange_id: ccxt has no asynchronous client for {exchange_id!r}")


def _near(word: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    near = get_close_matches(str(word), known, n=3)
    return f"; did you mean {' or '.join(near)}" if near else ""


def make_client(
    base: Any,
    config: dict[str, Any],
    *,
    clock: Clock,
    dialect: Dialect,
    limit: float,
    mixin: type[Wire] = Wire,
) -> Any:
    """Return a client of a ccxt class that sends through `Wire`; it has no connection yet."""
    attributes = {
        "clock": clock,
        "dialect": dialect,
        "limit": limit,
        "number": str,  # the venue's own digits; ccxt's default is a float
        "http": None,
        "ssl_context": _shared_tls(),
        "hosts": frozenset(),
        "banned_until": 0.0,
        "dials": deque(),
        "on_headers": staticmethod(lambda _headers: None),
        "on_raw": staticmethod(lambda _socket, _message: False),
    }
    keep_secret(*(config.get(name) for name in _SECRETS))
    # On the class, because ccxt's constructor needs some of them already.
    made: Any = type(f"{base.__name__}OnWire", (mixin, base), attributes)
    return made(config)
