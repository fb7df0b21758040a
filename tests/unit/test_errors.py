"""The error tree at the top of the module is the tree of classes."""

import inspect
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit import errors
from execkit.errors import ExchangeError, ExecKitError


def documented():
    """Read (parent, child) pairs off the indented list."""
    pairs, stack = set(), []
    for line in inspect.getdoc(errors).splitlines():
        name = line.strip()
        if not name or not hasattr(errors, name):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        stack[depth:] = [name]
        if depth:
            pairs.add((stack[depth - 1], name))
    return pairs


def test_the_drawn_tree_is_the_real_one():
    """Every class stands where the drawing says, and nothing is missing."""
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, ExecKitError)
    ]
    real = {(c.__base__.__name__, c.__name__) for c in classes if c is not ExecKitError}
    assert documented() == real


@pytest.mark.parametrize(
    ("name", "known", "retryable"),
    [
        ("NotSentError", True, True),
        ("RateLimitError", True, True),
        ("OrderStatusUnknownError", False, False),
        ("OrderRejectedError", True, False),
        ("InsufficientBalanceError", True, False),
        ("DuplicateClientOrderIdError", False, False),
        ("MarketClosedError", True, False),
        ("AuthenticationError", True, False),
        ("ExchangeUnavailableError", True, True),
    ],
)
def test_what_may_be_concluded(name, known, retryable):
    """Whether the outcome is known, and whether the same request may succeed later."""
    error = getattr(errors, name)("text", venue="paper", code="-1", raw="{}")
    assert isinstance(error, ExchangeError)
    assert (error.outcome_known, error.retryable) == (known, retryable)
    assert (str(error), error.venue, error.code, error.raw) == ("text", "paper", "-1", "{}")


def test_details():
    """How long to wait, how much there is."""
    assert errors.RateLimitError("x", retry_after=timedelta(seconds=3)).retry_after.seconds == 3
    assert errors.InsufficientBalanceError("x", available=Decimal(2)).available == 2
