"""I31: what is in a market that is not traded here is told, once."""

from structlog.testing import capture_logs

from execkit.exchanges.ccxt.outside import Outside


def test_what_is_left_out_is_told_once_for_each_market():
    """Orders and positions apart; a name is quoted without what could break a log."""
    outside = Outside("binance")
    rows = [{"symbol": "A"}, {"symbol": "B"}, {"symbol": "C\n"}, {}]
    with capture_logs() as logs:
        for _ in range(2):
            assert outside.listed(rows, {"A": 1}, "order") == [{"symbol": "A"}]
        outside.tell("B", "position")
    told = [(each["event"], each["what"], each["market"]) for each in logs]
    assert [what for _, what, _ in told] == ["order", "order", "order", "position"]
    assert {event for event, _, _ in told} == {"account.left_out"}
    assert told[0][2] == told[3][2] == "B"
    assert "\n" not in told[1][2]


def test_names_are_not_remembered_without_end():
    """I32: they come from outside."""
    outside = Outside("binance")
    with capture_logs() as logs:
        for number in range(1500):
            outside.tell(str(number), "order")
    assert len(logs) == 1000
