"""Correlation groups: symbols that fall together count together."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec

from execkit.model.denial import Denial, DenialCode
from execkit.numbers import HUNDRED, MONEY, ZERO
from execkit.risk.limits import RiskLimits


class GroupRoom(msgspec.Struct, frozen=True):
    """What a group of symbols holds and may hold, in quote units."""

    name: str
    notional: Decimal
    limit: Decimal


def check_groups(groups: tuple[GroupRoom, ...], notional: Decimal) -> Denial | None:
    """Refuse an order worth *notional* that would take a group above its share of the equity."""
    for group in groups:
        total = MONEY.add(group.notional, notional)
        if total > group.limit:
            return Denial.of(
                DenialCode.GROUP_TOO_LARGE, group=group.name, notional=total, limit=group.limit
            )
    return None


def group_room(
    symbol: str, limits: RiskLimits, equity: Decimal, notional_of: Callable[[str], Decimal]
) -> tuple[GroupRoom, ...]:
    """Return the room of every group that *symbol* belongs to; *notional_of* values one symbol with all on its way."""
    limit = MONEY.divide(MONEY.multiply(equity, limits.max_group_pct), HUNDRED)
    return tuple(
        GroupRoom(name, sum(map(notional_of, members), ZERO), limit)
        for name, members in (limits.groups or {}).items()
        if symbol in members
    )
