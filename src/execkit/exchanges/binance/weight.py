"""Binance's request weight, which all of an address share: near its limit questions wait, orders do not.

Binance refuses everything when the weight of a minute is used up (429), and bans who goes on (418). What others behind
the same address use is only seen in the headers of the answers, so it is these that count.
Source: Binance's documents of the spot and USD-M futures APIs, sections on limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from execkit.exchanges.headroom import Headroom

HEADER: Final = "x-mbx-used-weight-1m"
_WINDOW: Final = 60.0


class Weight(Headroom):
    """How much of the minute's weight is used, as of the last answer."""

    def __init__(self) -> None:
        super().__init__()
        self.limit: int | None = None
        """Weight per minute; None: Binance has not said."""

    def note_limits(self, limits: object) -> None:
        """Read the limit from the rules of the venue."""
        for row in limits if isinstance(limits, Iterable) else ():
            if isinstance(row, Mapping) and _is_per_minute(row):
                most = row.get("limit")
                self.limit = most if isinstance(most, int) and most > 0 else None

    def note(self, used: int, at: datetime) -> None:
        """Take in what a header says was used in the minute of *at*, by the venue's clock."""
        if self.limit is not None:
            self.note_used(used, self.limit, _WINDOW - at.second - at.microsecond / 1_000_000)


def _is_per_minute(row: Mapping[str, Any]) -> bool:
    kind = (row.get("rateLimitType"), row.get("interval"), row.get("intervalNum"))
    return kind == ("REQUEST_WEIGHT", "MINUTE", 1)
