"""Requests to Alpaca: once, to pinned hosts, without redirects, under a time limit, and with answers of a bounded size.

aiohttp itself repeats a PATCH or DELETE when a kept connection turns out to be dead; that is switched off, because
nothing may be sent twice behind the gateway's back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import yarl

from execkit.clock import Clock
from execkit.errors import (
    ExchangeError,
    ExchangeUnavailableError,
    NotSentError,
    OrderStatusUnknownError,
)
from execkit.exchanges.alpaca.codes import VENUE, Refusal, retry_after
from execkit.exchanges.alpaca.values import BadAnswerError, clean
from execkit.exchanges.ccxt.values import parse_json

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer; ten thousand bars have about one million."""
_UNSENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class RefusedError(Exception):
    """The venue answered, and it is no success."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Wire:
    """The way to Alpaca's hosts, with the keys in the head of each request and nowhere else."""

    def __init__(
        self,
        *,
        api_key: str | None,
        secret: str | None,
        hosts: frozenset[str],
        limit: float,
        heartbeat: float,
        clock: Clock,
    ) -> None:
        self.__api_key, self.__secret = api_key, secret
        self._hosts = hosts
        self._limit = limit
        self._heartbeat = heartbeat
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None

    @property
    def has_key(self) -> bool:
        """Tell whether there are keys."""
        return bool(self.__api_key and self.__secret)

    @property
    def is_open(self) -> bool:
        """Tell whether requests can be made."""
        return self._http is not None

    def open(self) -> None:
        """Make requests possible."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=100, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                trace_configs=[_no_redirects()],
            )
            self._http._retry_connection = False  # noqa: SLF001

    async def close(self) -> None:
        """Close all connections; safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        keyed: bool = True,
        heads: Callable[[Mapping[str, str]], None] | None = None,
    ) -> Any:
        """Send one request and return the parsed answer; None where it is empty.

        Raises `RefusedError` for an answer that is no success, `BadAnswerError` for one that cannot be read,
        `NotSentError` when not one byte left, and `ExchangeUnavailableError` or `OrderStatusUnknownError`
        (for a request that changes something) when no whole answer came. *heads* is given the head of any answer.
        """
        write = method != "GET"
        http, target = self._http, yarl.URL(url, encoded=True)
        if http is None:
            raise _failed(
                "the adapter is not connected; call connect() first", unsent=True, write=write
            )
        if target.host not in self._hosts:
            raise _failed(
                f"{clean(target.host)} is no host of this venue", unsent=True, write=write
            )
        if params:
            target = target.update_query(params)
        try:
            async with http.request(
                method,
                target,
                data=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers=self._headers(keyed=keyed, has_body=body is not None),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._limit, sock_connect=self._limit),
            ) as response:
                if heads is not None:
                    heads(response.headers)
                raw = await _read(response)
        except _UNSENT as error:
            failure = _failed(f"no connection ({type(error).__name__})", unsent=True, write=write)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = _failed(f"no whole answer came ({type(error).__name__})", write=write)
        else:
            return self._parsed(response, raw)
        # Raised out here, so that it does not carry aiohttp's error.
        raise failure

    def _headers(self, *, keyed: bool, has_body: bool) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if has_body:
            headers["Content-Type"] = "application/json"
        if keyed and self.__api_key and self.__secret:
            headers["APCA-API-KEY-ID"] = self.__api_key
            headers["APCA-API-SECRET-KEY"] = self.__secret
        return headers

    def _parsed(self, response: aiohttp.ClientResponse, raw: bytes) -> Any:
        status = response.status
        if 200 <= status < 300:
            return parse_json(raw) if raw else None
        try:
            body = parse_json(raw)
        except BadAnswerError:
            body = None
        if not isinstance(body, Mapping):
            raise RefusedError(Refusal(status, None, "an answer without a code"))
        code = body.get("code")
        known = isinstance(code, int) and not isinstance(code, bool)
        raise RefusedError(
            Refusal(
                status=status,
                code=str(code) if known else None,
                text=clean(body.get("message", "no message")),
                body=body,
                retry_after=retry_after(response.headers, self._clock.now()),
            )
        )

    # -- streams -----------------------------------------------------------------------------------------

    async def connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket, which is pinged, so that a line that died without a word is noticed."""
        http, target = self._http, yarl.URL(url, encoded=True)
        if http is None or target.host not in self._hosts:
            raise _failed(
                "the stream cannot be opened: not connected, or a foreign host", unsent=True
            )
        try:
            async with asyncio.timeout(self._limit):
                return await http.ws_connect(
                    target, heartbeat=self._heartbeat, max_msg_size=4 * 1024 * 1024
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = _failed(f"the stream cannot be opened ({type(error).__name__})")
        raise failure

    async def authenticate(self, socket: aiohttp.ClientWebSocketResponse, form: str) -> None:
        """Say who we are, in the *form* of the `trading` or the `data` stream."""
        keys = {"key_id": self.__api_key, "secret_key": self.__secret}
        if form == "trading":
            await socket.send_json({"action": "authenticate", "data": keys})
        else:
            await socket.send_json(
                {"action": "auth", "key": self.__api_key, "secret": self.__secret}
            )

    @property
    def limit(self) -> float:
        """Seconds that an answer may take."""
        return self._limit

    def __repr__(self) -> str:
        return f"Wire({', '.join(sorted(self._hosts))})"


def _no_redirects() -> aiohttp.TraceConfig:
    """Return what ends a request that is sent elsewhere: aiohttp lets a WebSocket follow, and the keys come next."""

    async def refuse(*_: object) -> None:
        raise aiohttp.ClientError("a redirect")

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _failed(text: str, *, unsent: bool = False, write: bool = False) -> ExchangeError:
    kind: type[ExchangeError] = ExchangeUnavailableError
    if write:
        kind = NotSentError if unsent else OrderStatusUnknownError
    return kind(f"{VENUE}: {text}", venue=VENUE)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST:
            response.close()
            raise aiohttp.ClientPayloadError("the answer is too large")
        parts.append(part)
    return b"".join(parts)
