"""What all adapters on ccxt share: a client on our own wire, honest errors, and a kept order stream."""

from __future__ import annotations

import asyncio
import os
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, Final, TypeVar

import aiohttp
import structlog

from execkit.clock import Clock, SystemClock
from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    ExchangeUnavailableError,
    InvalidOrderError,
    NotSentError,
    OrderStatusUnknownError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.exchanges.ccxt import hosts
from execkit.exchanges.ccxt.dialect import Dialect, RefusedError, UnansweredError, UnsentError
from execkit.exchanges.ccxt.outside import Outside
from execkit.exchanges.ccxt.skew import measure
from execkit.exchanges.ccxt.stream import OrderStream, Session
from execkit.exchanges.ccxt.values import BadAnswerError, OtherOrderError, clean
from execkit.exchanges.ccxt.wire import Wire, ccxt_class, make_client, open_session, sending
from execkit.model.instrument import Instrument
from execkit.model.order import OrderUpdate

log = structlog.get_logger("execkit")

T = TypeVar("T")

_REMEMBERED: Final = 10_000
"""Venue ids whose client ids are kept: executions are listed without the latter."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_HEARTBEAT_MS: Final = 20_000
_KEY_REFUSED: Final = ("AuthenticationError", "PermissionDenied", "AccountSuspended")
"""What ccxt makes of a refused key, as the text of an error begins with it where we do not know the venue's codes."""


class CCXTBase(ExchangeAdapter):
    """One account at one venue, spoken to through a ccxt client. See `CCXTAdapter` for the arguments."""

    mixin: type[Wire] = Wire
    markets: tuple[str, ...] = ("spot", "linear")
    """What *market* may be."""

    def __init__(
        self,
        exchange_id: str,
        *,
        api_key: str | None,
        secret: str | None,
        password: str | None,
        market: str,
        sandbox: bool | str | None,
        live: bool,
        data_only: bool,
        rest_url: str | None,
        stream_url: str | None,
        own_proxy: bool,
        timeout: timedelta,
        clock: Clock | None,
        rng: random.Random | None,
        account: str | None,
        max_clock_skew: timedelta,
        options: Mapping[str, Any] | None,
        dialect: Dialect,
        default_sandbox: str = "testnet",
    ) -> None:
        if market not in self.markets:
            raise ConfigurationError(
                f"market: {market!r} is unknown; use one of {', '.join(self.markets)}"
            )
        self.name = exchange_id
        self.market = market
        self.clock: Clock = clock or SystemClock()
        self._max_skew = max_clock_skew
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secrets
        self.environment = hosts.environment(
            exchange_id,
            sandbox=sandbox,
            # Data of a sandbox has prices of its own, which are nobody's.
            live=live or (data_only and sandbox is None and rest_url is None),
            default=default_sandbox,
        )
        prefix = exchange_id.upper()
        self._data_only = data_only
        env: Mapping[str, str] = {} if data_only else os.environ
        if data_only:
            api_key = secret = password = None
        api_key = api_key or env.get(f"{prefix}_API_KEY")
        config = {
            "apiKey": api_key,
            "secret": secret or env.get(f"{prefix}_API_SECRET"),
            "password": password or env.get(f"{prefix}_API_PASSWORD"),
            # ccxt's own throttle would queue orders out of sight; the gateway keeps the venue's pace.
            "enableRateLimit": False,
            "aiohttp_trust_env": False,
            "own_session": False,
            "streaming": {"keepAlive": _HEARTBEAT_MS},
            "options": {"fetchCurrencies": False, **(options or {})},
        }
        self._has_key = bool(api_key)
        self._env_prefix = prefix
        key_digest = blake2b((api_key or "").encode(), digest_size=4).hexdigest()
        self._account = f"{exchange_id}-{market}-{self.environment}-{account or key_digest}"
        self._dialect = dialect
        self._client = make_client(
            ccxt_class(exchange_id),
            config,
            clock=self.clock,
            dialect=dialect,
            limit=timeout.total_seconds(),
            mixin=self.mixin,
        )
        self._client.on_headers = self._note_headers
        self._client.on_raw = self._on_raw
        hosts.choose(self._client, self.environment, elsewhere=bool(rest_url and stream_url))
        hosts.redirect(
            self._client,
            self.environment,
            rest_url=rest_url,
            stream_url=stream_url,
            own_proxy=own_proxy,
        )
        self._client.hosts = hosts.allowed(self._client)
        self._outside = Outside(exchange_id)
        self._sockets: aiohttp.ClientSession | None = None
        self._instruments: dict[str, Instrument] = {}
        self._client_ids: OrderedDict[str, str] = OrderedDict()
        self._orders = OrderStream(
            self._open_orders_stream,
            venue=self.name,
            rng=self._rng,
            pause=lambda: self._client.banned_until - asyncio.get_running_loop().time(),
        )

    # -- life --------------------------------------------------------------------------------------------

    @property
    def account(self) -> str:
        """Venue, market, environment, and a digest of the key or the name given; no secret."""
        return self._account

    async def connect(self) -> None:
        """Open the connection, load the markets, check clock and key, and open the order stream.

        Raises `ConfigurationError` or `AuthenticationError` naming what is wrong with the settings.
        """
        if self._data_only:
            raise ConfigurationError(
                "data_only: this adapter reads public data and places no orders; "
                "use connect_data(), or make one without data_only=True"
            )
        if not self._has_key:
            raise ConfigurationError(
                f"api_key: no key for {self.name}; pass api_key= and secret=, "
                f"or set {self._env_prefix}_API_KEY and {self._env_prefix}_API_SECRET"
            )
        if self._client.requiredCredentials.get("secret") and not self._client.secret:
            raise ConfigurationError(
                f"secret: there is a key for {self.name} but no secret; pass secret=, "
                f"or set {self._env_prefix}_API_SECRET"
            )
        await self.connect_data()
        await self._check_account()
        if self.capabilities.order_stream:
            try:
                await self._orders.start()
            except Exception as error:  # noqa: BLE001 - translated
                raise self._translated(error, write=False, sent=True) from None

    async def connect_data(self) -> None:
        """Open what public data needs; no key is used."""
        if self._client.http is None:
            self._client.http = open_session()
            self._sockets = self._client.session = open_session(streams=True)
            self._client.own_session = False
            self._client.open()
        await self._load_markets()

    async def close(self) -> None:
        """End the streams and close all connections."""
        await self._orders.stop()
        http, self._client.http = self._client.http, None
        await self._client.close()
        for session in (http, self._sockets):
            if session is not None:
                await session.close()

    async def _load_markets(self) -> None:
        """Fill `_instruments`."""
        raise NotImplementedError

    async def _check_account(self) -> None:
        """Refuse a clock or a key that cannot work, before any order."""

    async def _open_orders_stream(self) -> Session:
        """Subscribe to the account's orders."""
        raise NotImplementedError

    def _note_headers(self, headers: Mapping[str, str]) -> None:
        """Look at the headers of an answer, e.g. for limits."""

    def _on_raw(self, socket: Any, message: Any) -> bool:
        """Look at a message of a stream; return True to keep it from ccxt."""
        return False

    # -- clocks ------------------------------------------------------------------------------------------

    async def _server_time(self) -> datetime | None:
        """Ask for the venue's time; None where it does not tell."""
        return None

    async def _compare_clocks(self) -> None:
        """Stamp requests by the venue's time; raise `ConfigurationError` when ours differs too much from it."""
        skew = await self._ask(measure(self._server_time, self.clock))
        if skew is None:
            return
        ahead = skew.ahead
        if skew.at_least > self._max_skew:
            direction = "ahead of" if ahead > timedelta(0) else "behind"
            raise ConfigurationError(
                f"clock: this machine's clock is {abs(ahead).total_seconds():.1f} s {direction} {self.name}'s, "
                f"more than max_clock_skew={self._max_skew.total_seconds():.1f} s; "
                "synchronise it (NTP, chrony), then start again"
            )
        if skew.is_sure or skew.at_least:
            self._stamp_by(ahead)

    def _stamp_by(self, ahead: timedelta) -> None:
        self._client.options["timeDifference"] = ahead // _MILLISECOND

    async def _resync(self) -> None:
        """Compare the clocks anew; a failure, or an answer too slow to go by, shows with the next request."""
        try:
            async with asyncio.timeout(self._client.limit):
                skew = await measure(self._server_time, self.clock)
        except Exception as error:  # noqa: BLE001 - the next request will tell again
            log.warning("clock.sync_failed", venue=self.name, error=type(error).__name__)
            return
        if skew is not None and skew.is_sure:
            self._stamp_by(skew.ahead)
            log.warning("clock.resynced", venue=self.name, ahead_ms=skew.ahead // _MILLISECOND)

    # -- calls and their errors --------------------------------------------------------------------------

    async def _ask(self, work: Awaitable[T]) -> T:
        """Make a request that changes nothing."""
        return await self._call(work, write=False)

    async def _tell(self, work: Awaitable[T]) -> T:
        """Make a request that may change something; what is not definite is `OrderStatusUnknownError`."""
        return await self._call(work, write=True)

    async def _call(self, work: Awaitable[T], *, write: bool) -> T:
        with sending() as sent:
            try:
                return await work
            except Exception as error:  # noqa: BLE001 - translated below, all of them
                failure = self._translated(error, write=write, sent=sent[0] > 0)
                is_clock = (
                    isinstance(error, RefusedError) and error.code in self._dialect.clock_codes
                )
        if is_clock:
            await self._resync()
        # Out of the block above: ccxt's and aiohttp's errors may hold addresses, and with them signatures.
        raise failure

    @staticmethod
    async def _afterwards(work: Awaitable[T]) -> T:
        """Make a further request of a command that the venue has taken: no failure of it undoes the command."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the first request had its effect
            name = type(error).__name__
        raise UnansweredError(f"it was taken, but could not be read back ({name})")

    def _translated(self, error: Exception, *, write: bool, sent: bool) -> ExchangeError:
        """Return what an error of the client means; *sent*: bytes may have left."""
        if isinstance(error, ExchangeError):
            return error
        if isinstance(error, RefusedError):
            return self._of_answer(error, write=write)
        if isinstance(error, (UnsentError, UnansweredError, BadAnswerError)):
            text = f"{self.name}: {clean(error)}"
            if isinstance(error, UnsentError) and not sent:
                kind: type[ExchangeError] = NotSentError if write else ExchangeUnavailableError
            else:
                kind = OrderStatusUnknownError if write else ExchangeUnavailableError
            failure = kind(text, venue=self.name)
            failure.is_about_another = isinstance(error, OtherOrderError)
            return failure
        name = type(error).__name__
        if not sent:
            # ccxt itself refused; its words hold what was asked for, never a key.
            if name in ("AuthenticationError", "PermissionDenied"):
                return AuthenticationError(f"{self.name}: {clean(error)}", venue=self.name)
            if name == "NotSupported" and not write:
                return UnsupportedFeatureError(f"{self.name}: {clean(error)}", venue=self.name)
            return InvalidOrderError(f"{self.name}: {name}: {clean(error)}", venue=self.name)
        text = f"{self.name}: an answer that cannot be read ({name})"
        kind = OrderStatusUnknownError if write else ExchangeUnavailableError
        return kind(text, venue=self.name)

    def _of_answer(self, refused: RefusedError, *, write: bool) -> ExchangeError:
        kind = self._dialect.meaning(refused)
        text = f"{self.name}: {refused.text}"
        if refused.code is not None:
            text = f"{text} (code {refused.code})"
        details: dict[str, Any] = {"venue": self.name, "code": refused.code, "raw": refused.text}
        if kind is RateLimitError:
            waits = refused.retry_after
            if refused.code in self._dialect.clock_codes:
                text, waits = f"{text}; the clocks differ and are compared anew", timedelta(0)
            return RateLimitError(text, retry_after=waits, **details)
        if kind is None:
            if write:
                return OrderStatusUnknownError(text, **details)
            if refused.status == 401 or refused.text.startswith(_KEY_REFUSED):
                # On a question it costs nothing to believe it.
                text = f"api_key: {self.name} ({self.environment}) refuses this key: {refused.text}"
                return AuthenticationError(text, **details)
            failed = refused.status >= 500 or refused.code is None
            return (ExchangeUnavailableError if failed else ExchangeError)(text, **details)
        if kind is DuplicateClientOrderIdError and not write:
            return ExchangeError(text, **details)
        return kind(text, **details)

    # -- symbols and ids ---------------------------------------------------------------------------------

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol; one that is not listed is refused with those that look like it."""
        rules = self._rules(symbol)
        return rules if rules.tradeable else await self._renewed(symbol)

    def _rules(self, symbol: str) -> Instrument:
        found = self._instruments.get(symbol)
        if found is None:
            raise InvalidOrderError(f"{self.name}: {self._unlisted(symbol)}", venue=self.name)
        return found

    def _list(self, instrument: Instrument) -> None:
        known = self._instruments.get(instrument.symbol)
        if known is not None and known != instrument:
            self.rules_version += 1
            log.info("rules.changed", venue=self.name, symbol=instrument.symbol)
        self._instruments[instrument.symbol] = instrument

    async def _renewed(self, symbol: str) -> Instrument:
        """Return a symbol's rules as the venue has them now; where it cannot be asked, as they were."""
        try:
            await self.market_status(symbol)
        except ExchangeError as error:
            log.warning("rules.unreadable", venue=self.name, symbol=symbol, error=str(error))
        return self._rules(symbol)

    def _unlisted(self, symbol: str) -> str:
        """Return why a symbol cannot be used, and which one may be meant."""
        shown = clean(symbol, 40)
        if not self._instruments:
            return f"symbol: {shown!r} cannot be looked up before connect()"
        swap = self.market != "spot"
        base, _, rest = shown.partition("/")
        quote, colon, _settle = rest.partition(":")
        twin = f"{base}/{quote}:{quote}" if swap else f"{base}/{quote}"
        if twin in self._instruments and bool(colon) is not swap:
            kind = "a spot market" if swap else "a perpetual future"
            return f"symbol: {shown!r} is {kind}, this adapter trades {self.market}; use {twin!r}"
        near = get_close_matches(shown.upper(), self._instruments, n=3)
        hint = f"; did you mean {' or '.join(near)}" if near else ""
        return f"symbol: {shown!r} is not listed for {self.market} at {self.environment}{hint}"

    def _remember(self, venue_order_id: str, client_order_id: str) -> None:
        if venue_order_id and client_order_id:
            self._client_ids[venue_order_id] = client_order_id
            self._client_ids.move_to_end(venue_order_id)
            if len(self._client_ids) > _REMEMBERED:
                self._client_ids.popitem(last=False)

    # -- streams -----------------------------------------------------------------------------------------

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Yield what happens to orders; it is open from `connect` on."""
        return self._orders.subscribe()
