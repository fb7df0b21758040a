"""Every error execkit raises.

ExecKitError
  ConfigurationError
  RegistrationError
  PipelineError
  InvalidTransitionError
  JournalError
    JournalCorruptedError
    JournalVersionError
    JournalAccountError
    JournalLockedError
    JournalCommitError
  SignalConflictError
  VirtualTimeError
  ExchangeError
    NotSentError
    RateLimitError
    OrderStatusUnknownError
    OrderRejectedError
      InsufficientBalanceError
      InvalidOrderError
        QuantityTooLargeError
      DuplicateClientOrderIdError
      MarketClosedError
      MarketOrderRefusedError
    OrderNotFoundError
    AuthenticationError
    ExchangeUnavailableError
    UnsupportedFeatureError

A test compares this tree with the classes below.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal


class ExecKitError(Exception):
    """Base of everything execkit raises on purpose."""


class ConfigurationError(ExecKitError):
    """A value from the user is not acceptable; the message names the field, the value and the fix."""


class RegistrationError(ExecKitError):
    """A function or an exchange cannot be registered or found under that name."""


class PipelineError(ExecKitError):
    """A chain of handlers cannot work, or a handler broke the contract of `call_next`."""


class InvalidTransitionError(ExecKitError):
    """The order state table has no such edge; the order is unchanged."""


class JournalError(ExecKitError):
    """The journal cannot be used."""


class JournalCorruptedError(JournalError):
    """A record is damaged, missing or out of order; the message names file and line."""


class JournalVersionError(JournalError):
    """The journal was written by a schema this version does not read."""


class JournalAccountError(JournalError):
    """The journal belongs to another account."""


class JournalLockedError(JournalError):
    """Another process holds the journal, and with it the right to send orders."""


class JournalCommitError(JournalError):
    """The journal could not be made durable; nothing that adds exposure may be sent."""


class SignalConflictError(ExecKitError):
    """A signal id came a second time with other content."""


class VirtualTimeError(ExecKitError):
    """Something needs the real world (a socket, a thread) while time is virtual."""


class ExchangeError(ExecKitError):
    """A venue or its client reported a problem.

    *outcome_known* tells whether the venue's state is certain: False means that the request may have
    taken effect and has to be looked up. *retryable* tells whether the same request may succeed later.
    *is_about_another* tells that the answer was about another order: whoever answers is not to be trusted.
    """

    outcome_known: bool = True
    retryable: bool = False
    is_about_another: bool = False

    def __init__(
        self,
        message: str,
        *,
        venue: str = "",
        code: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message)
        self.venue = venue
        self.code = code
        self.raw = raw


class NotSentError(ExchangeError):
    """The request provably never left this machine."""

    retryable = True


class RateLimitError(ExchangeError):
    """The venue refused the request because of its pace; *retry_after* says how long to wait."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: timedelta | None = None,
        venue: str = "",
        code: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message, venue=venue, code=code, raw=raw)
        self.retry_after = retry_after


class OrderStatusUnknownError(ExchangeError):
    """The request may have taken effect: look it up before anything else."""

    outcome_known = False


class OrderRejectedError(ExchangeError):
    """The venue said no, definitely."""


class InsufficientBalanceError(OrderRejectedError):
    """Not enough funds; *available* is the quantity the venue would allow, where it says so."""

    def __init__(
        self,
        message: str,
        *,
        available: Decimal | None = None,
        venue: str = "",
        code: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message, venue=venue, code=code, raw=raw)
        self.available = available


class InvalidOrderError(OrderRejectedError):
    """The venue does not take such an order (filter, parameter, symbol)."""


class QuantityTooLargeError(InvalidOrderError):
    """More than the venue takes in one order; *allowed* is what it would take, where it says so."""

    def __init__(
        self,
        message: str,
        *,
        allowed: Decimal | None = None,
        venue: str = "",
        code: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message, venue=venue, code=code, raw=raw)
        self.allowed = allowed


class DuplicateClientOrderIdError(OrderRejectedError):
    """The client order id is in use, so an earlier try may have arrived: look it up."""

    outcome_known = False


class MarketClosedError(OrderRejectedError):
    """The market is closed or halted; the order may be queued for the open."""


class MarketOrderRefusedError(OrderRejectedError):
    """The venue takes no market order here and now; a marketable limit order may pass."""


class OrderNotFoundError(ExchangeError):
    """The venue does not know the order. After a cancel that may well mean: filled."""


class AuthenticationError(ExchangeError):
    """The key is wrong, revoked or lacks a right; the account is halted."""


class ExchangeUnavailableError(ExchangeError):
    """The venue cannot be reached or is down, on a request that changes nothing."""

    retryable = True


class UnsupportedFeatureError(ExchangeError):
    """The venue or its adapter cannot do this; see its capabilities."""
