"""A circuit breaker: after failures in a row nothing passes for a while, then one trial. Pure."""

from __future__ import annotations

from enum import Enum

from execkit.errors import ConfigurationError


class Circuit(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Everything passes."""
    OPEN = "open"
    """Nothing passes until the pause is over."""
    TRIAL = "trial"
    """One has been let through to see whether things work again."""


class CircuitBreaker:
    """Opens after *failures* in a row, for *open_for* seconds, and then lets one through at a time until it succeeds.

    Times are seconds of any clock that only goes forward; they come in as arguments.
    """

    def __init__(self, failures: int = 5, open_for: float = 30.0) -> None:
        if isinstance(failures, bool) or not isinstance(failures, int) or failures < 1:
            raise ConfigurationError(f"failures: {failures!r} must be a whole number from 1")
        if not 0 < open_for < float("inf"):
            raise ConfigurationError(f"open_for: {open_for!r} must be a number of seconds above 0")
        self.failures = failures
        self.open_for = open_for
        self.state = Circuit.CLOSED
        self.in_a_row = 0
        self._until = 0.0

    def admit(self, now: float) -> bool:
        """Tell whether one may pass at *now*; the one that passes after the pause is the trial."""
        if self.state is Circuit.CLOSED:
            return True
        if self.state is Circuit.OPEN and now >= self._until:
            self.state = Circuit.TRIAL
            return True
        return False

    def left(self, now: float) -> float:
        """Return the seconds until a trial may pass; 0 when it may, or when one is under way."""
        return max(self._until - now, 0.0) if self.state is Circuit.OPEN else 0.0

    def succeed(self) -> None:
        """Note a success: everything passes again."""
        self.state = Circuit.CLOSED
        self.in_a_row = 0

    def fail(self, now: float) -> bool:
        """Note a failure at *now*; return whether it opened the breaker."""
        self.in_a_row += 1
        if self.state is Circuit.TRIAL or self.in_a_row >= self.failures:
            opened = self.state is not Circuit.OPEN
            self.state = Circuit.OPEN
            self._until = now + self.open_for
            return opened
        return False

    def hurry(self) -> None:
        """Let the next one be the trial: something else has shown that things may work again."""
        if self.state is Circuit.OPEN:
            self._until = 0.0

    def abandon(self) -> None:
        """Note that the trial came to nothing, neither success nor failure: the next one is the trial."""
        if self.state is Circuit.TRIAL:
            self.state = Circuit.OPEN
            self.hurry()
