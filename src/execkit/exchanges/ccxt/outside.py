"""What the account has in markets that the adapter does not trade: nobody counts it, so it is told, once each."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import structlog

from execkit.exchanges.ccxt.values import clean

log = structlog.get_logger("execkit")

_MOST: Final = 1000
"""Markets that are remembered: the names come from outside."""


class Outside:
    """Leaves out what is of other markets, and warns when a market comes up for the first time."""

    def __init__(self, venue: str) -> None:
        self._venue = venue
        self._told: set[tuple[str, str]] = set()

    def listed(
        self, rows: Iterable[Mapping[str, Any]], known: Container[str], what: str
    ) -> list[Mapping[str, Any]]:
        """Return the rows whose `symbol` is known; *what* names them in the warning about the others."""
        found = []
        for row in rows:
            if row.get("symbol") in known:
                found.append(row)
            else:
                self.tell(row.get("symbol"), what)
        return found

    def tell(self, market: object, what: str) -> None:
        """Warn of something in a market that is not traded here, unless that was done before."""
        key = what, clean(market, 40)
        if key not in self._told and len(self._told) < _MOST:
            self._told.add(key)
            log.warning(
                "account.left_out",
                venue=self._venue,
                what=what,
                market=key[1],
                consequence="it is in no limit and is neither closed nor cancelled here",
            )
