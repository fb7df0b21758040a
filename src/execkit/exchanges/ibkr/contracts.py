"""Contracts: looked up by symbol or met in messages, with the venue's rules for prices, quantities and hours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs
import structlog
from ib_async.contract import Contract

from execkit.clock import Clock
from execkit.errors import ConfigurationError, ExchangeError, InvalidOrderError
from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.exchanges.ibkr.link import Link
from execkit.exchanges.ibkr.raw import exact, maybe
from execkit.exchanges.ibkr.symbols import parse, spell
from execkit.model.instrument import Instrument
from execkit.numbers import MONEY, ONE, ZERO

log = structlog.get_logger("execkit")

_ZONES: Final = {
    "EST": "America/New_York",
    "CST": "America/Chicago",
    "JST": "Asia/Tokyo",
    "MET": "Europe/Berlin",
}
"""Names that TWS uses and that are no zone of the database, or one without summer time."""

Sessions = Sequence[tuple[datetime, datetime]]


@attrs.frozen
class Listed:
    """One contract as TWS describes it."""

    symbol: str
    contract: Any
    units: Decimal
    """Base units in one contract, so that quantity x price is money: multiplier / magnifier of its prices."""
    bands: Sequence[tuple[Decimal, Decimal]]
    """(low edge, increment) of its prices, lowest first."""
    lot: Decimal
    """In base units."""
    minimum: Decimal
    regular: Sessions | None
    """None where its hours cannot be read."""
    extended: Sessions
    seen_at: datetime

    def increment_at(self, price: Decimal | None) -> Decimal:
        """Return the tick at a price; without one the coarsest, which is legal in finer bands too."""
        if price is None:
            return max(step for _, step in self.bands)
        return next(
            (step for edge, step in reversed(self.bands) if price >= edge), self.bands[0][1]
        )

    def instrument(self, price: Decimal | None) -> Instrument:
        """Return the rules that hold around a price."""
        contract = self.contract
        return Instrument(
            symbol=self.symbol,
            base=base_of(self.symbol, contract),
            quote=contract.currency,
            tick_size=self.increment_at(price),
            lot_size=self.lot,
            min_quantity=self.minimum,
            venue_symbol=contract.localSymbol or contract.symbol,
        )

    def status(self, at: datetime) -> MarketStatus:
        """Tell whether the market is open at a time."""
        if self.regular is None:
            return MarketStatus(
                is_open=True, reason="TWS states its hours in a zone that is not known"
            )
        ahead = [session for session in self.regular if session[1] > at]
        next_close = ahead[0][1] if ahead else None
        if ahead and ahead[0][0] <= at:
            return MarketStatus(is_open=True, next_close=next_close)
        next_open = ahead[0][0] if ahead else None
        phase = MarketPhase.CLOSED
        for begins, ends in self.extended:
            if begins <= at < ends:
                before = next_open is not None and next_open < ends
                phase = MarketPhase.PRE if before else MarketPhase.AFTER
        return MarketStatus(
            is_open=False,
            next_open=next_open,
            reason="outside regular trading hours",
            phase=phase,
            next_close=next_close,
        )


class Contracts:
    """All contracts met so far. *link* gives the connection to ask."""

    def __init__(self, link: Callable[[], Link], clock: Clock, *, hours_max_age: timedelta) -> None:
        self._link = link
        self._clock = clock
        self._hours_max_age = hours_max_age
        self._by_symbol: dict[str, Listed] = {}
        self._names: dict[int, str] = {}
        self._units: dict[int, Decimal] = {}
        self._finding: dict[str, asyncio.Lock] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    async def find(self, symbol: str, *, fresh: bool = False) -> Listed:
        """Return the contract of a symbol; *fresh* asks again when its hours are old.

        Raises `InvalidOrderError` for a symbol that is unknown, ambiguous, or not the contract's one spelling.
        """
        async with self._finding.setdefault(
            symbol, asyncio.Lock()
        ):  # those who want the same share one look-up
            known = self._by_symbol.get(symbol)
            if known is not None and not (fresh and self._is_old(known)):
                return known
            return await self._find(symbol)

    async def _find(self, symbol: str) -> Listed:
        try:
            wanted = parse(symbol)
        except ConfigurationError as error:
            raise InvalidOrderError(str(error), venue="ibkr") from error
        found = await self._details(self._link(), wanted, symbol)
        if len(found) > 1:
            names = ", ".join(sorted({spell(d.contract, with_exchange=True) for d in found}))
            raise InvalidOrderError(
                f"{symbol} is ambiguous; use one of {names}", venue="ibkr", code="200"
            )
        contract = found[0].contract
        name = symbol if symbol == spell(contract) else await self._name(self._link(), contract)
        if name != symbol:
            raise InvalidOrderError(
                f"{symbol} is written {name}: each contract has one spelling", venue="ibkr"
            )
        listed = await self._listed(symbol, found[0])
        self._by_symbol[symbol] = listed
        self._names[listed.contract.conId] = symbol
        return listed

    def forget(self, symbol: str) -> None:
        """Ask for a contract's rules anew at the next order: the venue has refused one by them."""
        self._by_symbol.pop(symbol, None)

    def refresh(self, listed: Listed) -> None:
        """Read a contract's hours anew when they are old, while the order that needs them goes on with those."""
        symbol = listed.symbol
        if self._is_old(listed) and symbol not in self._refreshing:
            task = asyncio.get_running_loop().create_task(self._refresh(symbol))
            self._refreshing[symbol] = task
            task.add_done_callback(lambda _task: self._refreshing.pop(symbol, None))

    async def _refresh(self, symbol: str) -> None:
        try:
            await self.find(symbol, fresh=True)
        except ExchangeError as error:
            log.warning("ibkr.hours_not_read", symbol=symbol, reason=str(error))

    async def close(self) -> None:
        """End what runs beside the orders."""
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_old(self, listed: Listed) -> bool:
        return self._clock.now() - listed.seen_at >= self._hours_max_age

    async def learn(self, link: Link, contracts: Sequence[Any]) -> None:
        """Look up the names of contracts that messages have shown; those known already cost nothing."""
        for contract in contracts:
            if not self.knows(contract):
                await self._learn_one(link, contract)

    async def _learn_one(self, link: Link, contract: Any) -> None:
        is_stock = contract.secType == "STK"
        asked = Contract(conId=contract.conId, exchange="SMART" if is_stock else "")
        try:
            found = await self._details(link, asked, spell(contract))
        except InvalidOrderError as error:
            # Held, and listed no more: it counts under the name that the message gives.
            log.warning("ibkr.contract_not_listed", symbol=spell(contract), reason=str(error))
            self._names[contract.conId] = spell(contract)
            return
        name = await self._name(link, found[0].contract)
        self._units[contract.conId] = _units_of(found[0])
        self._names[contract.conId] = name

    def knows(self, contract: Any) -> bool:
        """Tell whether a contract in a message can be named; until it was looked up, one of these kinds cannot."""
        must_ask = contract.conId and contract.secType in ("STK", "FUT", "CRYPTO")
        return not must_ask or contract.conId in self._names

    async def _name(self, link: Link, contract: Any) -> str:
        """Return the one spelling of a contract: the short one, unless that means others too."""
        short = spell(contract)
        if contract.secType != "STK":
            return short
        namesakes = await self._details(link, parse(short), short)
        is_alone = {d.contract.conId for d in namesakes} == {contract.conId}
        return short if is_alone else spell(contract, with_exchange=True)

    def name(self, contract: Any) -> str:
        """Return the symbol of a contract in a message; one that was never looked up is spelt from what it says."""
        return self._names.get(contract.conId) or spell(contract)

    def units(self, contract: Any) -> Decimal:
        """Return the base units in one contract; of one that was never looked up, what its multiplier says."""
        return self._units.get(contract.conId) or maybe(contract.multiplier) or ONE

    async def _details(self, link: Link, contract: Any, symbol: str) -> list[Any]:
        """Return what TWS lists for a contract, one entry for each."""
        try:
            rows = await link.ask(lambda client, key: client.reqContractDetails(key, contract))
        except InvalidOrderError as error:
            text = f"{symbol} is not listed: {error}"
            raise InvalidOrderError(text, venue="ibkr", code="200", raw=error.raw) from None
        if not rows:
            raise InvalidOrderError(f"{symbol} is not listed", venue="ibkr", code="200")
        return list({row.contract.conId: row for row in rows}.values())

    async def _listed(self, symbol: str, details: Any) -> Listed:
        contract = details.contract
        if contract.secType == "STK":
            contract.exchange = "SMART"
        units = self._units[contract.conId] = _units_of(details)
        if contract.secType == "STK" and units != ONE:
            raise InvalidOrderError(
                f"{symbol} is quoted in parts of {contract.currency} ({details.priceMagnifier} to one), which execkit "
                "does not trade",
                venue="ibkr",
            )
        # Fractions of shares are refused over the API (10243), whatever the details say.
        increment = maybe(details.sizeIncrement) or (
            Decimal("1e-8") if contract.secType == "CRYPTO" else ONE
        )
        if contract.secType in ("STK", "FUT"):
            increment = max(increment, ONE)
        minimum = max(maybe(details.minSize) or ZERO, increment)
        zone = _zone(details.timeZoneId)
        return Listed(
            symbol=symbol,
            contract=contract,
            units=units,
            bands=await self._bands(details),
            lot=increment * units,
            minimum=minimum * units,
            regular=None if zone is None else sessions(details.liquidHours, zone),
            extended=() if zone is None else sessions(details.tradingHours, zone),
            seen_at=self._clock.now(),
        )

    async def _bands(self, details: Any) -> list[tuple[Decimal, Decimal]]:
        """Return the price bands of the exchange that orders go to: its market rule."""
        exchanges, rules = details.validExchanges.split(","), details.marketRuleIds.split(",")
        rule = dict(zip(exchanges, rules, strict=False)).get(details.contract.exchange, rules[0])
        if not rule.isdigit():
            return [(ZERO, exact(details.minTick))]
        rows = await self._link().ask_shared(
            f"rule-{rule}", lambda client: client.reqMarketRule(int(rule))
        )
        bands = sorted(rows[0]) if rows else []
        return bands or [(ZERO, exact(details.minTick))]


def base_of(symbol: str, contract: Any) -> str:
    """Return what is bought with a contract, as the books call it."""
    is_pair = contract.secType in ("CASH", "CRYPTO")
    return str(contract.symbol) if is_pair else symbol.partition("/")[0]


def sessions(text: str, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """Read hours such as `20260102:0930-20260102:1600;20260103:CLOSED`; adjoining ones become one."""
    found: list[tuple[datetime, datetime]] = []
    for part in text.split(";"):
        begins, dash, ends = part.partition("-")
        if not dash:
            continue
        opened, closed = _hour(begins, zone), _hour(ends, zone)
        if found and found[-1][1] == opened:
            found[-1] = (found[-1][0], closed)
        else:
            found.append((opened, closed))
    return found


def _hour(text: str, zone: ZoneInfo) -> datetime:
    at = datetime.strptime(text.strip(), "%Y%m%d:%H%M")  # noqa: DTZ007 - its zone follows
    return at.replace(tzinfo=zone).astimezone(UTC)


def _units_of(details: Any) -> Decimal:
    """Return base units per contract: corn is 5,000 bushels quoted in cents, 100 to the dollar, so 50 units."""
    multiplier = maybe(details.contract.multiplier) or ONE
    return MONEY.divide(multiplier, maybe(details.priceMagnifier) or ONE)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(_ZONES.get(name, name))
    except (KeyError, ValueError, OSError):
        log.warning("ibkr.unknown_zone", zone=name)
        return None
