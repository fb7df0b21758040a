"""Generated prices: bars along a drawn path, with seeded noise around it. The same seed gives the same bars."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from execkit.model.market import BarData, Timeframe

_MINUTE = timedelta(minutes=1)


def bars_along(
    symbol: str,
    path: Sequence[tuple[int, int]],
    *,
    start: datetime,
    tick: Decimal,
    noise: int,
    seed: int,
    volume: int = 50,
) -> Iterator[BarData]:
    """Yield one-minute bars from *start* along *path*, which is (minute, price in ticks), straight in between.

    No price is farther than three times *noise* ticks from the path. The mean volume is *volume* base units.
    """
    rng = random.Random(f"{seed}/{symbol}")  # noqa: S311 - repeatable chance is the point
    last, swing = path[0][1], 0
    for (begin, low), (end, high) in pairwise(path):
        for minute in range(begin, end):
            # A swing that is pulled back to the path keeps it wavy and near.
            swing = max(
                -2 * noise, min(2 * noise, swing * 9 // 10 + rng.randint(-noise, noise) // 2)
            )
            close = low + (high - low) * (minute + 1 - begin) // (end - begin) + swing
            top, bottom = max(last, close), min(last, close)
            wick = noise // 4
            yield BarData(
                symbol,
                Timeframe.M1,
                start + _MINUTE * (minute + 1),
                last * tick,
                (top + rng.randint(0, wick)) * tick,
                (bottom - rng.randint(0, wick)) * tick,
                close * tick,
                Decimal(rng.randint(volume // 2, volume * 3 // 2)),
            )
            last = close
