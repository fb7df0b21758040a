"""I21: news in any order, and more than once, lead to one state."""

import random

import pytest

from execkit.model.order import Fill
from execkit.testing.confluence import MOST, confluence, make_history


@pytest.mark.slow
def test_every_order_of_events_leads_to_the_same_state():
    """30 histories, all orders of up to six events, once, each twice, and all again."""
    report = confluence(30)
    print(report)
    assert not report.failures
    assert report.histories == 30
    assert report.readings > 20_000


def test_histories_show_what_can_happen():
    """Partial fills, two orders, early ends, corrections and busts are all among the thirty."""
    rng = random.Random(0)
    histories = [make_history(rng) for _ in range(30)]
    fills = [each for history in histories for each in history.news if isinstance(each, Fill)]
    assert all(len(history.news) <= MOST for history in histories)
    assert sum(len(history.news) == MOST for history in histories) >= 10
    assert any(len(history.requests) == 2 for history in histories)
    assert any(fill.replaces is not None and fill.quantity for fill in fills)
    assert any(history.has_bust for history in histories)


@pytest.mark.parametrize(
    "bug",
    ["execkit.orders.positions.PositionBook._remember", "execkit.orders.book.Book.knows_fill"],
)
def test_an_intake_that_forgets_executions_is_found(monkeypatch, bug):
    """The comparison can fail: without the memory of trade ids a repetition counts again."""
    monkeypatch.setattr(bug, lambda *_args: None)
    assert confluence(8).failures
