"""Binance's endpoints: where a request goes on spot and on USD-M futures, made through ccxt's signing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SPOT: Final = {"public": "public", "private": "private"}
_USDM: Final = {"public": "fapiPublic", "private": "fapiPrivate", "private3": "fapiPrivateV3"}


class Endpoints:
    """Sends requests through a ccxt client; names are those of Binance's own documents."""

    def __init__(self, client: Any, kind: str) -> None:
        self._client = client
        self._apis = _SPOT if kind == "spot" else _USDM

    async def public(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Read public data."""
        return await self._client.request(path, [self._apis["public"]], "GET", dict(params or {}))

    async def private(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        version: str = "",
    ) -> Any:
        """Make a signed request."""
        api = self._apis[f"private{version}"]
        return await self._client.request(path, [api], method, dict(params or {}))

    async def wallet(self, path: str) -> Any:
        """Read from the wallet's endpoints, which exist at the live venue only."""
        return await self._client.request(path, ["sapi"], "GET", {})

    @property
    def has_wallet(self) -> bool:
        """Tell whether the environment has the wallet's endpoints."""
        return "sapi" in self._client.urls["api"]
