"""What Alpaca's answers say of the requests that are left."""

from datetime import UTC, datetime

import pytest

from execkit.exchanges.alpaca.codes import allowance

NOW = datetime(2024, 3, 12, 15, 0, 30, tzinfo=UTC)
AT = int(NOW.timestamp())


def heads(limit="200", left="150", reset=str(AT + 30)):
    return {
        "X-Ratelimit-Limit": limit,
        "X-Ratelimit-Remaining": left,
        "X-Ratelimit-Reset": reset,
    }


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (heads(), (50, 200, 30.0)),
        (heads(left="0"), (200, 200, 30.0)),
        (heads(reset=str(AT - 5)), (50, 200, 0.0)),
        (heads(reset=str(AT * 1000)[:10]), (50, 200, 0.0)),
        (heads(reset=str(AT + 9_000)), (50, 200, 60.0)),
        ({}, None),
        (heads(limit="many"), None),
        (heads(left="-1"), None),
        (heads(reset="soon"), None),
        (heads(reset="12345678901"), None),
    ],
)
def test_the_head_of_an_answer(headers, told):
    """Used, of how many, and the seconds to the end of the minute, never more than one."""
    assert allowance(headers, NOW) == told
