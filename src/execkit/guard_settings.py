"""Settings of what a configuration file may add to the standard chain and to an engine: guards, messages, closures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from execkit.bars.sessions import Session
from execkit.events import EventBus
from execkit.handlers.breaker import CircuitBreakerHandler
from execkit.handlers.confirmation import ConfirmationHandler
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.handlers.throttle import RateLimitHandler
from execkit.model.fields import Duration, Section
from execkit.pipeline import ExecutionPipeline

MakesNotifier = Callable[[EventBus], AbstractAsyncContextManager[object]]
Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[Duration, Field(gt=timedelta(0))]


class BreakerSettings(Section):
    """When entries stop after failures in a row; see `CircuitBreakerHandler`."""

    failures: Whole = 5
    open_for: Positive = timedelta(seconds=30)

    def build(self) -> CircuitBreakerHandler:
        """Return the handler."""
        return CircuitBreakerHandler(failures=self.failures, open_for=self.open_for)


class RateLimitSettings(Section):
    """How many entries may be sent; see `RateLimitHandler`."""

    count: Whole
    per: Positive = timedelta(seconds=1)
    max_wait: Duration | None = timedelta(seconds=30)

    def build(self) -> RateLimitHandler:
        """Return the handler."""
        return RateLimitHandler(self.count, self.per, max_wait=self.max_wait)


class ConfirmationSettings(Section):
    """What a person is asked about at the terminal; see `ConfirmationHandler`."""

    timeout: Positive = timedelta(seconds=10)
    always: bool = True

    def build(self) -> ConfirmationHandler:
        """Return the handler."""
        return ConfirmationHandler(timeout=self.timeout, always=self.always)


class MarketHoursSettings(Section):
    """When entries go out; see `MarketHoursHandler`."""

    trade_premarket: bool = False
    trade_afterhours: bool = False
    queue_when_closed: bool = True
    cancel_at_close: bool = True

    def build(self) -> MarketHoursHandler:
        """Return the handler."""
        return MarketHoursHandler(**self.model_dump())


class NotifySettings(Section):
    """What is told through the addresses in the environment; see `Notifier`."""

    least: Literal["info", "warning", "error", "critical"] = "warning"
    most: Whole = 20
    per: Positive = timedelta(minutes=1)
    send_within: Positive = timedelta(seconds=10)

    def build(self) -> MakesNotifier:
        """Return what makes the notifier on an engine's bus."""
        # By name, as exchanges are made: what is told to people stands above this floor.
        least = import_module("execkit.notify.messages").Severity[self.least.upper()]
        make = import_module("execkit.notify.notifier").Notifier
        return partial(
            make, least=least, most=self.most, per=self.per, send_within=self.send_within
        )


def _day(value: object) -> object:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is no day; write it as 2025-01-09") from None


def _moment(value: object) -> object:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(
            f"{value!r} is no moment with its offset; write it as 2025-11-28T13:00-05:00"
        )
    return moment


Day = Annotated[date, BeforeValidator(_day)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class SessionSettings(Section):
    """One session as it really is."""

    day: Day
    open: Moment
    close: Moment

    def build(self) -> Session:
        """Return the session."""
        return Session(self.day, self.open.astimezone(UTC), self.close.astimezone(UTC))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.close <= self.open:
            raise ValueError(f"close: {self.close.isoformat()} must be after open")
        return self


class CorrectionSettings(Section):
    """Days on which an exchange does not keep to its calendar."""

    closed: Annotated[tuple[Day, ...], Field(strict=False)] = ()
    sessions: Annotated[tuple[SessionSettings, ...], Field(strict=False)] = ()

    def build(self) -> dict[date, Session | None]:
        """Return what takes place on each of these days; None: nothing."""
        return dict.fromkeys(self.closed) | {each.day: each.build() for each in self.sessions}


def with_guards(
    chain: ExecutionPipeline,
    *,
    market_hours: MarketHoursSettings | None,
    rate_limit: RateLimitSettings | None,
    breaker: BreakerSettings | None,
    confirmation: ConfirmationSettings | None,
) -> ExecutionPipeline:
    """Return the standard chain with the guards that are stated, each where it counts what would be sent."""
    if market_hours is not None:
        chain = chain.insert(market_hours.build(), before="ValidationHandler")
    guards: list[Any] = [
        each.build() for each in (rate_limit, breaker, confirmation) if each is not None
    ]
    for guard in guards:
        chain = chain.insert(guard, before="OrderExecutorHandler")
    return chain
