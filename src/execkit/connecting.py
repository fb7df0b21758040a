"""A venue's client, opened and closed under a time limit."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from execkit.errors import ConfigurationError, ExchangeUnavailableError
from execkit.exchanges.base import ExchangeAdapter
from execkit.redaction import shown

log = structlog.get_logger("execkit")

CURRENCIES: Final = ("USDT", "USD", "USDC", "EUR")

_CONNECT_WITHIN: Final = 60.0
"""Seconds for connecting and the first balances; our adapters have tighter limits, one of yours may have none."""
_CLOSE_WITHIN: Final = 15.0
"""Seconds after which a client that does not close is left behind."""


async def connected(adapter: ExchangeAdapter, currency: str | None) -> str:
    """Connect, and return the asset that limits are counted in: *currency*, or what the account holds.

    Raises `ExchangeUnavailableError` when the client hangs, `ConfigurationError` when the asset has to be stated.
    """
    limit = asyncio.timeout(_CONNECT_WITHIN)
    try:
        async with limit:
            await adapter.connect()
            return currency or await _currency(adapter)
    except TimeoutError as error:
        if not limit.expired():
            raise
        text = f"{adapter.name}: not connected within {_CONNECT_WITHIN:g} s"
        raise ExchangeUnavailableError(text, venue=adapter.name) from error


async def _currency(adapter: ExchangeAdapter) -> str:
    held = await adapter.balances()
    for currency in CURRENCIES:
        if currency in held:
            return currency
    if len(held) == 1:
        return next(iter(held))
    raise ConfigurationError(
        f"currency: the account holds {', '.join(sorted(held)) or 'nothing'}; say which asset limits are counted in, "
        "e.g. ExecutionEngine(..., currency='USDT')"
    )


async def close_venue(adapter: ExchangeAdapter) -> None:
    """Close a client; one that fails or hangs keeps nothing else from ending."""
    try:
        async with asyncio.timeout(_CLOSE_WITHIN):
            await adapter.close()
    except Exception as error:  # noqa: BLE001 - of what is being left behind
        log.warning("venue.not_closed", venue=adapter.name, error=shown(error))
