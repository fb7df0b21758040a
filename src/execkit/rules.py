"""The venue's rules by symbol: asked for once, and again when the venue has changed them."""

from __future__ import annotations

from typing import Final

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.instrument import Instrument

RULES_SECONDS: Final = 10.0
"""How long the rules of a symbol are waited for."""


class RuleBook:
    """What is known of the instruments of one venue."""

    def __init__(self, exchange: ExchangeAdapter) -> None:
        self._exchange = exchange
        self._known: dict[str, Instrument] = {}
        self._version = 0

    def known(self, symbol: str) -> Instrument | None:
        """Return rules that can be trusted: neither changed since, nor of a market that did not trade then."""
        version = self._exchange.rules_version
        if version != self._version:
            self._version = version
            self._known.clear()
        found = self._known.get(symbol)
        return found if found is not None and found.tradeable else None

    async def fetch(self, symbol: str) -> Instrument:
        """Ask the venue, whose answer the caller bounds by `RULES_SECONDS`; raises what its client raises."""
        found = self._known[symbol] = await self._exchange.instrument(symbol)
        return found
