"""Prices of the last minute: what an approval may have seen, when its order leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from execkit.model.market import Quote

_RECENT: Final = 60.0
"""Seconds for which a price is remembered."""


class RecentPrices:
    """The mids of each symbol; *time* is the moment on the loop."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._mids: dict[str, deque[tuple[float, Decimal]]] = {}

    def add(self, quote: Quote) -> None:
        """Take a price, which is valid until the next one."""
        mids = self._mids.setdefault(quote.symbol, deque())
        mids.append((self._time(), quote.mid))
        while len(mids) > 1 and mids[1][0] < self._time() - _RECENT:
            mids.popleft()

    def of(self, symbol: str) -> list[Decimal]:
        """Return the mids that were valid within the last minute."""
        mids = list(self._mids[symbol])
        ends = [*(at for at, _ in mids[1:]), self._time()]
        since = self._time() - _RECENT
        return [mid for (_, mid), end in zip(mids, ends, strict=True) if end >= since]
