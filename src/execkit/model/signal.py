"""The signal: what a strategy wants."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property

import attrs

from execkit.clock import require_utc
from execkit.errors import ConfigurationError
from execkit.ids import content_digest
from execkit.model.instrument import check_symbol
from execkit.model.order import OrderType, Side, TimeInForce
from execkit.model.slicing import Iceberg, Slicing
from execkit.numbers import positive, score


def _strength(value: Decimal | float | str) -> Decimal:
    return score("strength", value)


def _confluence(value: Decimal | float | str | None) -> Decimal | None:
    return None if value is None else score("confluence", value)


def _time_in_force(value: TimeInForce | str | None) -> TimeInForce | None:
    if value is None:
        return None
    try:
        return TimeInForce(value)
    except ValueError:
        known = ", ".join(TimeInForce)
        raise ConfigurationError(
            f"time_in_force: {value!r} is unknown; use one of {known}"
        ) from None


_PRICES = ("quantity", "limit_price", "stop_price", "stop_loss", "take_profit")


@attrs.frozen(kw_only=True)
class TradingSignal:
    """A wish to trade one symbol.

    A BUY opens a long, or reduces an open short; a SELL reduces an open long, or opens a short where that is
    allowed. *strength* is 0-100; *confluence* counts agreeing indicators and is not checked when None. Without
    *quantity* the risk handler sizes an entry, and an exit takes the whole position. *limit_price* makes a limit
    order, *stop_price* a stop order. *signal_id* makes the signal unique for ever; it is random when not given.
    Raises `ConfigurationError` naming the field for a number that is not exact, finite and above zero.
    """

    symbol: str = attrs.field()
    side: Side = attrs.field()
    strength: Decimal = attrs.field(default=Decimal(100), converter=_strength)
    confluence: Decimal | None = attrs.field(default=None, converter=_confluence)
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    time_in_force: TimeInForce | None = attrs.field(default=None, converter=_time_in_force)
    post_only: bool = False
    reduce_only: bool = False
    """Only reduce an open position, never open one."""
    entry_only: bool = False
    """Only open or add to a position, never reduce one: denied while a position the other way is open."""
    exchange: str | None = None
    """Name of the exchange it is meant for; None takes the engine's."""
    signal_id: str | None = None
    created_at: datetime | None = attrs.field(default=None)
    max_age: timedelta | None = None
    """Refuse the signal when it is older than this."""
    source: str = ""
    """Who made it, for the record."""
    extended_hours: bool = False
    """May also execute before and after the regular session, where the venue has one."""
    slicing: Slicing | None = None
    """Work it in slices instead of at once."""
    slice_of: str | None = None
    """Signal that this one is a slice of; set by the slicing itself."""
    confirmation_required: bool | None = None
    """Whether `ConfirmationHandler` asks a person about it; None leaves that to the handler."""

    @symbol.validator
    def _check_symbol(self, _attribute: attrs.Attribute[str], value: object) -> None:
        check_symbol("symbol", value)

    @side.validator
    def _check_side(self, _attribute: attrs.Attribute[Side], value: object) -> None:
        if not isinstance(value, Side):
            raise ConfigurationError(f"side: {value!r} is not a Side; use Side.BUY or Side.SELL")

    @strength.validator
    def _check_strength(self, _attribute: attrs.Attribute[Decimal], value: Decimal) -> None:
        if not 0 <= value <= 100:
            raise ConfigurationError(f"strength: {value} is outside 0 to 100")

    @confluence.validator
    def _check_confluence(
        self, _attribute: attrs.Attribute[Decimal | None], value: Decimal | None
    ) -> None:
        if value is not None and value < 0:
            raise ConfigurationError(f"confluence: {value} must not be negative")

    @created_at.validator
    def _check_created_at(
        self, _attribute: attrs.Attribute[datetime | None], value: datetime | None
    ) -> None:
        if value is not None:
            require_utc("created_at", value)

    def __attrs_post_init__(self) -> None:
        for name in _PRICES:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, positive(name, value))
        if self.signal_id is not None and not (
            isinstance(self.signal_id, str) and 0 < len(self.signal_id) <= 200
        ):
            raise ConfigurationError(f"signal_id: {self.signal_id!r} must be 1 to 200 characters")
        for name in ("post_only", "reduce_only", "entry_only"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}: {getattr(self, name)!r} is not True or False")
        if self.reduce_only and self.entry_only:
            raise ConfigurationError("reduce_only, entry_only: a signal is one of the two at most")
        if self.max_age is not None and not (
            isinstance(self.max_age, timedelta) and self.max_age > timedelta(0)
        ):
            raise ConfigurationError(f"max_age: {self.max_age!r} must be a timedelta above zero")
        if self.post_only and self.limit_price is None:
            raise ConfigurationError("post_only: needs a limit_price")
        if isinstance(self.slicing, Iceberg) and self.limit_price is None:
            raise ConfigurationError("slicing: an iceberg rests, so it needs a limit_price")
        if self.slicing is not None and self.stop_price is not None:
            raise ConfigurationError("slicing: a stop order is sent whole; leave out stop_price")

    @property
    def order_type(self) -> OrderType:
        """The order type that the prices imply."""
        if self.stop_price is not None:
            return OrderType.STOP if self.limit_price is None else OrderType.STOP_LIMIT
        return OrderType.MARKET if self.limit_price is None else OrderType.LIMIT

    @cached_property
    def digest(self) -> str:
        """Digest of what is asked for; the same id with another digest is a conflict."""
        return content_digest(
            self.symbol,
            self.side,
            self.strength,
            self.confluence,
            self.quantity,
            self.limit_price,
            self.stop_price,
            self.stop_loss,
            self.take_profit,
            self.time_in_force,
            self.post_only,
            self.reduce_only,
            self.exchange,
            self.extended_hours,
            self.slicing,
            self.slice_of,
            # Left out where it says nothing, so that the digests of earlier signals stay what they were.
            *(("entry_only",) if self.entry_only else ()),
        )
