"""How a large order is worked in slices."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from execkit.errors import ConfigurationError
from execkit.numbers import ZERO, non_negative, positive


class _Slicing(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    """Base of the algorithms."""


class Twap(_Slicing, frozen=True, kw_only=True, tag="twap"):
    """Time-weighted: equal parts at equal distances over *duration*, the first at once."""

    duration: timedelta
    slices: int = 10

    def __post_init__(self) -> None:
        _check(self.duration, self.slices)


class Vwap(_Slicing, frozen=True, kw_only=True, tag="vwap"):
    """Volume-weighted: parts in proportion to *profile*, at equal distances over *duration*, the first at once.

    The profile is the volume that is expected in each part of the time, in any unit.
    """

    duration: timedelta
    profile: tuple[Decimal, ...]

    def __post_init__(self) -> None:
        _check(self.duration, len(self.profile))
        for place, weight in enumerate(self.profile):
            non_negative(f"profile[{place}]", weight)
        if sum(self.profile, ZERO) == ZERO:
            raise ConfigurationError(
                "profile: it is zero throughout; at least one part needs a volume"
            )


class Iceberg(_Slicing, frozen=True, kw_only=True, tag="iceberg"):
    """Shows no more than *display* at a time: the next part rests when the last one is executed.

    It needs a limit price.
    """

    display: Decimal

    def __post_init__(self) -> None:
        positive("display", self.display)


Slicing = Twap | Vwap | Iceberg


def _check(duration: timedelta, slices: int) -> None:
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise ConfigurationError(f"duration: {duration!r} must be a timedelta above zero")
    if type(slices) is not int or not 1 <= slices <= 1000:
        raise ConfigurationError(f"slices: {slices!r} must be a whole number from 1 to 1000")


class Slice(msgspec.Struct, frozen=True):
    """One part of a schedule."""

    at: datetime
    cumulative: Decimal
    """What is to be sent by then in all, this part included; base units."""
