"""D9: every evaluation is found by time, market, plan, function and action, with what became of it."""

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from execkit import (
    BarData,
    ExecutionEngine,
    PaperExchange,
    Rule,
    Timeframe,
    TradePlan,
    run_virtual,
    standard_registry,
    use,
)
from execkit.audit.logger import ExecutionLogger, _record_before
from execkit.errors import ConfigurationError, JournalCorruptedError
from execkit.functions.base import ConfidenceLevel
from execkit.journal.base import MemoryJournal
from execkit.model.order import OrderRole
from execkit.model.records import Alarm
from execkit.model.result import Outcome

from .conftest import (
    CLOCK_START,
    EVALUATIONS,
    SEEN,
    close,
    decision,
    ended,
    filled,
    intent,
    result,
)


def minute(number):
    return CLOCK_START + timedelta(minutes=number)


def test_all_in_order(journal, memory):
    """A file in segments and a journal in memory tell the same."""
    found = ExecutionLogger(journal).query_logs()
    assert found == ExecutionLogger(memory).query_logs()
    assert [(entry.seq, entry.place) for entry in found] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (7, 0),
        (9, 0),
        (10, 0),
    ]
    assert len(found) == EVALUATIONS


def test_an_entry_says_it_all(journal):
    """Inputs, result, reasoning and duration stand in one entry."""
    (entry,) = ExecutionLogger(journal).query_logs(function="trailing_stop")
    assert (entry.symbol, entry.timeframe, entry.close_time) == ("BTC/USDT", "1m", minute(3))
    assert (entry.open, entry.high, entry.low, entry.close, entry.volume) == (100, 102, 99, 101, 7)
    assert (entry.position, entry.account.equity, entry.bars) == (SEEN, 10_000, 3)
    assert entry.parameters == {"threshold_price": "100"}
    assert (entry.action, entry.confidence, entry.level) == (
        "exit",
        Decimal("0.8"),
        ConfidenceLevel.HIGH,
    )
    assert entry.reasoning == "trailing_stop says exit"
    assert entry.duration == timedelta(microseconds=1500)
    assert entry.at == minute(3) + timedelta(seconds=1)


def test_what_became_of_it(memory):
    """Fills also count after the caller was told; a denial says why; an open end stays open."""
    entered, denied, open_end = (
        entry for entry in ExecutionLogger(memory).query_logs() if entry.signal_id
    )
    assert (entered.outcome, entered.client_order_ids) == (Outcome.FILLED, ("o1",))
    assert (entered.filled, entered.average_price) == (2, 102)
    assert (denied.outcome, denied.outcome_reason) == (
        Outcome.DENIED,
        "DUPLICATE_SIGNAL: signal_id=s2",
    )
    assert (open_end.outcome, open_end.filled) == (None, 0)


@pytest.mark.parametrize(
    ("told", "later", "outcome", "sum_filled"),
    [
        ("working", [], "working", 0),
        ("working", [filled("o1", "t", 1, 100)], "partially_filled", 1),
        ("working", [filled("o1", "t", 2, 100)], "filled", 2),
        ("working", [ended("cancel")], "cancelled", 0),
        ("partially_filled", [filled("o1", "t", 1, 100), ended("cancel")], "partially_filled", 1),
        ("in_doubt", [ended("reject")], "rejected", 0),
        ("queued", [], "queued", 0),
        (None, [], None, 0),
        (None, [filled("o1", "t", 2, 100)], "filled", 2),
        ("denied", [], "denied", 0),
        ("filled", [filled("o1", "t", 2, 100), filled("o1", "u", 1, 100, "t")], "filled", 1),
        ("working", [filled("o1", "t", 2, 100), filled("o1", "u", 0, 100, "t")], "working", 0),
    ],
)
def test_what_came_of_it_later(told, later, outcome, sum_filled):
    """The last word counts: fills, ends and corrections after the caller was told."""
    journal = MemoryJournal()
    records = [close(1, decision(action="exit", signal_id="s")), intent("s", "o1"), *later]
    if told is not None:
        records.insert(2, result("s", Outcome(told)))
    for record in records:
        journal.append(record, CLOCK_START)
    (entry,) = ExecutionLogger(journal).query_logs()
    assert (entry.outcome, entry.filled) == (outcome, sum_filled)


def test_what_protects_the_position_is_not_what_came_of_the_signal():
    """The stop and the target carry the entry's signal id, but they are another story; slices are this one."""
    journal = MemoryJournal()
    stop = msgspec.structs.replace(intent("s", "stop"), role=OrderRole.STOP, parent="BTC/USDT#1")
    part = msgspec.structs.replace(intent("s/1", "part"), slice_of="s")
    for record in (
        close(1, decision(action="enter_long", signal_id="s")),
        intent("s", "o1"),
        filled("o1", "t", 2, 100),
        stop,
        filled("stop", "u", 2, 90),
        part,
        filled("part", "v", 2, 110),
    ):
        journal.append(record, CLOCK_START)
    (entry,) = ExecutionLogger(journal).query_logs()
    assert (entry.filled, entry.average_price) == (4, 105)
    assert entry.client_order_ids == ("o1", "part")


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"symbol": "ETH/USDT"}, [9]),
        ({"plan": "other"}, []),
        ({"function": "breakout"}, [1, 10]),
        ({"action": "enter_long"}, [2, 10]),
        ({"failed": True}, [9]),
        ({"failed": False, "since": minute(4)}, [10]),
        ({"since": minute(3)}, [7, 9, 10]),
        ({"until": minute(3)}, [1, 1, 2]),
        ({"since": minute(2), "until": minute(3)}, [2]),
        ({"limit": 2}, [9, 10]),
        ({"limit": 1, "action": "none"}, [9]),
        ({"since": minute(99)}, []),
    ],
)
def test_queries(journal, memory, query, seqs):
    """Each narrows the answer; the newest are kept; since is inclusive, until is not."""
    assert [entry.seq for entry in ExecutionLogger(memory).query_logs(**query)] == seqs
    assert [entry.seq for entry in ExecutionLogger(journal).query_logs(**query)] == seqs


def test_old_segments_are_passed_over(journal):
    """A query since lately does not read a year; an hour of clock steps is allowed for."""
    assert _record_before(journal, None) == 0
    assert _record_before(journal, minute(62)) == 0
    assert _record_before(journal, minute(63)) == 3
    assert _record_before(journal, minute(500)) == 7


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"action": "buy"}, "action: 'buy' is unknown; use one of none, enter_long"),
        ({"since": minute(1).replace(tzinfo=None)}, "since: 2024-01-01 00:01:00 has no time zone"),
        ({"limit": -1}, "limit: -1 is below zero"),
    ],
)
def test_readable_errors(memory, query, message):
    """A query that cannot mean anything says so."""
    with pytest.raises(ConfigurationError) as caught:
        ExecutionLogger(memory).query_logs(**query)
    assert str(caught.value).startswith(message)


def test_reading_checks_the_chain(journal):
    """S13: what was changed is not shown as if it were true."""
    data = journal.read_bytes()
    journal.write_bytes(data.replace(b"breakout", b"breakxut"))
    with pytest.raises(JournalCorruptedError, match=r"run\.db, line"):
        ExecutionLogger(journal).query_logs()


def test_errors_are_alarms(memory):
    """`log_error` journals what a person has to know; a log that is only read says so."""
    records = []
    log = ExecutionLogger(MemoryJournal(), record=records.append)
    log.log_error(ValueError("bad tick"), symbol="BTC/USDT", function="breakout")
    log.log_error("x" * 2000)
    assert records[0] == Alarm(
        code="FUNCTION_ERROR", text="breakout: ValueError: bad tick", symbol="BTC/USDT"
    )
    assert len(records[1].text) == 1000
    with pytest.raises(ConfigurationError, match="only read"):
        ExecutionLogger(memory).log_error("x")


def test_repr(memory, journal):
    """It says where it reads."""
    assert repr(ExecutionLogger(memory)) == "ExecutionLogger(memory)"
    assert repr(ExecutionLogger(journal)) == f"ExecutionLogger({str(journal)!r})"


def test_a_journal_of_ones_own_needs_a_path():
    """What is no file and no list cannot be asked about the past."""
    with pytest.raises(ConfigurationError, match="cannot be read; give its path"):
        ExecutionLogger(object())


async def test_the_engine_has_its_log():
    """`engine.audit` reads its journal and notes errors in it."""
    exchange = PaperExchange(balances={"USDT": Decimal(100)}, prices={"BTC/USDT": Decimal(1)})
    async with ExecutionEngine(exchange, journal=None) as engine:
        assert engine.audit.query_logs() == []
        engine.audit.log_error("odd", symbol="BTC/USDT")
        assert [alarm.code for alarm in engine.book.alarms] == ["FUNCTION_ERROR"]
        assert (engine.function_health, engine.last_evaluated("breakout")) == ([], None)


def test_the_engine_tells_how_its_functions_are():
    """F helpers: health per function, and when it was last asked."""

    async def main(clock):
        exchange = PaperExchange(
            balances={"USDT": Decimal(100)}, prices={"BTC/USDT": Decimal(1)}, clock=clock
        )
        rule = Rule.of("1m", use("close_above", threshold_price=5))
        plan = TradePlan(name="p", symbol="BTC/USDT", entry=[rule])
        async with ExecutionEngine(
            exchange,
            journal=None,
            plans=[plan],
            functions=standard_registry(clock=clock),
            clock=clock,
        ) as engine:
            await clock.sleep_until(minute(1))
            one = Decimal(1)
            await engine.on_bar(BarData("BTC/USDT", Timeframe.M1, minute(1), *[one] * 5))
            (use_of,) = engine.function_health
            assert (use_of.name, use_of.evaluations, use_of.failures) == ("close_above", 1, 0)
            assert engine.last_evaluated("close_above") == minute(1)
            (entry,) = engine.audit.query_logs()
            assert entry.reasoning == "close 1 is not above 5"

    run_virtual(main, start=CLOCK_START)
