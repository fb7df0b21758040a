"""A symbol in a correlation group that the venue does not have is told at the start, with the field and what to do."""

import asyncio
from decimal import Decimal

import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError
from execkit.handlers.risk import RiskManagementHandler
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal


class Broken(MockExchange):
    """A mock that cannot say what it trades."""

    async def instrument(self, symbol):
        raise ConnectionError(symbol)


def told(groups, *, venue_class=MockExchange):
    """Return the alarms of an engine with these groups a while after its start."""
    found = []

    async def main(clock):
        venue = venue_class(clock=clock, prices={BTC: D(42_000), ETH: D(2_500)})
        risk = RiskManagementHandler(RiskLimits(groups=groups))
        chain = standard_pipeline().replace("RiskManagementHandler", risk)
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            await asyncio.sleep(1)
            found.extend((alarm.code, alarm.text) for alarm in engine.book.alarms)

    run_virtual(main)
    return found


def test_a_misspelt_symbol_is_told_once_with_all_its_groups():
    """Named are the field, the value and what to do about it."""
    ((code, text),) = told({"majors": (BTC, "BTC/USDTT"), "all": ("BTC/USDTT", ETH)})
    assert code == "GROUP_SYMBOL_UNKNOWN"
    assert text.startswith("risk.groups.majors, risk.groups.all: mock has no 'BTC/USDTT' (")
    assert text.endswith(
        "so it caps nothing; write it as the signals do, e.g. 'BTC/USDT', or take it out"
    )


@pytest.mark.parametrize("groups", [None, {"majors": (BTC, ETH)}])
def test_good_groups_are_no_news(groups):
    """Nothing to tell."""
    assert told(groups) == []


def test_a_venue_that_does_not_answer_says_nothing_of_a_symbol():
    """That is no misspelling."""
    assert told({"majors": (BTC,)}, venue_class=Broken) == []


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ({"majors": ["BTC/USDT", "ETH USDT"]}, r"groups\.majors: 'ETH USDT'"),
        ({"majors": ["BTC/USDT", ""]}, r"groups\.majors: ''"),
        ({"majors": ["BTC/USDT", "BTC/USDT"]}, r"groups\.majors: 'BTC/USDT' is there twice"),
        ({"majors": []}, r"groups\.majors: .*no symbols"),
        ({"majors": "BTC/USDT"}, r"groups: 'majors' has 'BTC/USDT'; give a list"),
        (["BTC/USDT"], r"groups: .* is no mapping of names to symbols"),
    ],
)
def test_what_can_be_no_symbol_is_refused_at_once(groups, text):
    """Before anything is opened."""
    with pytest.raises(ConfigurationError, match=text):
        RiskLimits(groups=groups)
