"""Protective prices that were set for positions: by hand, by the keeper, by bars.

Positions have no identity of their own: a late fill or a bust can make one of two, or two of one, and gives those that
follow other numbers. So what was set is kept by the place among the executions after which it was set, and holds for
the position that covers this place, whatever its number is now.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.orders.executions import Execution, Key


class Levels(msgspec.Struct):
    """What was set, in quote units, and when; None: nothing was."""

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    best_price: Decimal | None = None
    stop_since: datetime | None = None
    target_since: datetime | None = None
    earlier_stop: Decimal | None = None
    earlier_stop_since: datetime | None = None
    is_limit: bool = False


class Placed(msgspec.Struct):
    """Levels that hold from the execution *after* on."""

    after: Key
    levels: Levels


def levels_of(rows: list[Placed], begins: Key, ends: Key | None = None) -> Levels:
    """Return what was set last for the position from *begins* until just before *ends*."""
    for row in reversed(rows):
        if begins <= row.after and (ends is None or row.after < ends):
            return row.levels
    return Levels()


def levels_from_now(rows: list[Placed], begins: Key, window: list[Execution]) -> Levels:
    """Return levels to change: those of the position that began at *begins*, from its last execution on.

    What no re-sort of *window* can need any more is forgotten.
    """
    now = window[-1].key if window else begins
    if not rows or rows[-1].after != now:
        rows.append(Placed(now, msgspec.structs.replace(levels_of(rows, begins))))
    if window:
        first = window[0].key
        old = [row for row in rows if row.after < first]
        rows[:] = [*old[-1:], *(row for row in rows if row.after >= first)]
    return rows[-1].levels


def move_levels(rows: list[Placed], before: Key, after: Key) -> None:
    """Let what was set after an execution hold after the one that corrects it."""
    for row in rows:
        if row.after == before:
            row.after = after
