"""Combinators against brute force, their parameters against nonsense, and what they may not break."""

import asyncio
import doctest
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError, RegistrationError
from execkit.functions import compose
from execkit.functions.base import (
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
    Part,
)
from execkit.functions.builtin import standard_registry
from execkit.functions.combine import COMBINATORS
from execkit.functions.compose import use
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.numbers import ZERO

START = datetime(2024, 1, 1, tzinfo=UTC)
ONE = Decimal(1)
ACTIONS = [action.value for action in ExecutionAction if action is not ExecutionAction.ADJUST_STOP]


class ScriptParams(FunctionParams):
    """What to answer at each bar: (action, confidence in percent)."""

    answers: tuple[tuple[str, int], ...]
    lookback: int = 1


class Script(ExecutionFunctionBase[ScriptParams]):
    """Answers by the number of the bar; "raise" fails."""

    def __init__(self, params):
        super().__init__(params)
        self.required_lookback = params.lookback
        self.asked = []

    async def evaluate(self, context):
        number = int((context.bar.close_time - START) / context.timeframe.duration) - 1
        self.asked.append(number)
        assert context.parameters is self.params
        action, percent = self.params.answers[number]
        if action == "raise":
            raise ValueError("as told")
        return ExecutionSignal(action=action, confidence=Decimal(percent) / 100, reasoning="told")


def registry():
    made = standard_registry()
    made.register("script")(Script)
    return made


def bars(count, timeframe=Timeframe.M1, start=START):
    return [
        BarData(
            "BTC/USDT", timeframe, start + timeframe.duration * (n + 1), ONE, ONE, ONE, ONE, ONE
        )
        for n in range(count)
    ]


def context_of(function, series, count):
    bar = series[count - 1]
    return ExecutionContext(
        plan="p",
        symbol=bar.symbol,
        timeframe=bar.timeframe,
        bar=bar,
        history=BarHistory(series, 0, count),
        parameters=function.params,
        position=None,
        account=AccountView("USDT", ZERO, ZERO, ZERO),
        timestamp=bar.close_time,
    )


def play(name, parameters, count, *, skip=(), series=None):
    """Ask at each of *count* closes but those in *skip*; return (action, confidence) or "raised" by bar."""
    function = registry().create(name, parameters)
    series = series or bars(count)
    found = {}
    for number in range(count):
        if number in skip:
            continue
        try:
            answer = asyncio.run(function.evaluate(context_of(function, series, number + 1)))
        except ValueError:
            found[number] = "raised"
        else:
            found[number] = (answer.action.value, answer.confidence)
    return found


def script(answers):
    return {"function": "script", "parameters": {"answers": tuple(answers)}}


def answer():
    return st.tuples(st.sampled_from(ACTIONS), st.integers(1, 100)).map(
        lambda each: (each[0], 0) if each[0] == "none" else each
    )


@given(votes=st.lists(answer(), min_size=1, max_size=5), k=st.integers(1, 5))
def test_votes_equal_a_count_by_hand(votes, k):
    """All, any and k of n: the most wanted action with enough votes and no tie, at the k-th highest confidence."""
    k = min(k, len(votes))
    for name, needed, extra in (
        ("all_of", len(votes), {}),
        ("any_of", 1, {}),
        ("k_of_n", k, {"k": k}),
    ):
        got = play(name, {"of": [script([vote]) for vote in votes]} | extra, 1)[0]
        wanted = ("none", ZERO)
        counts = {
            action: [p for a, p in votes if a == action] for action in set(ACTIONS) - {"none"}
        }
        best = max(map(len, counts.values()))
        winners = [action for action, percents in counts.items() if len(percents) == best]
        if best >= needed and len(winners) == 1:
            percent = sorted(counts[winners[0]])[-needed]
            wanted = (winners[0], Decimal(percent) / 100)
        assert got == wanted, name


def test_a_tie_of_opposite_wishes_is_no_order():
    """As many for long as for short: nobody guesses."""
    parts = [script([("enter_long", 90)]), script([("enter_short", 10)])]
    assert play("any_of", {"of": parts}, 1)[0] == ("none", ZERO)


def test_levels_come_from_the_first_that_states_them():
    """The parts that agree give the levels, in their order."""
    made = standard_registry()

    @made.register("plain")
    async def plain(context):
        return ExecutionSignal(action="enter_long", confidence=1)

    @made.register("levels")
    async def levels(context):
        return ExecutionSignal(
            action="enter_long",
            confidence=1,
            stop_loss=Decimal("0.5"),
            take_profit=Decimal(2),
        )

    function = made.create("all_of", {"of": [{"function": "plain"}, {"function": "levels"}]})
    got = asyncio.run(function.evaluate(context_of(function, bars(1), 1)))
    assert (got.stop_loss, got.take_profit) == (Decimal("0.5"), 2)
    assert got.reasoning == "2 of 2 agree: plain: enter_long; levels: enter_long"


@given(st.lists(answer(), min_size=1, max_size=6))
def test_not_turns_silence_into_an_answer(answers):
    """Silence is the action with confidence 1, anything else is silence."""
    got = play("not_", {"of": script(answers), "action": "enter_long"}, len(answers))
    for number, (action, _) in enumerate(answers):
        assert got[number] == (("enter_long", ONE) if action == "none" else ("none", ZERO))


sequences = st.lists(st.one_of(answer(), st.just(("raise", 0))), min_size=1, max_size=14)


@given(answers=sequences, pause=st.integers(1, 4), skip=st.sets(st.integers(0, 13)))
def test_cooldown_equals_brute_force(answers, pause, skip):
    """A wish passes when none has passed at any of the *bars* closes before it, asked or not."""
    got = play("cooldown", {"of": script(answers), "bars": pause}, len(answers), skip=skip)
    passed = []
    for number, (action, percent) in enumerate(answers):
        if number in skip:
            continue
        if action == "raise":
            assert got[number] == "raised"
        elif action == "none" or any(number - before <= pause for before in passed):
            assert got[number] == ("none", ZERO)
        else:
            passed.append(number)
            assert got[number] == (action, Decimal(percent) / 100)


@given(
    answers=sequences,
    pause=st.integers(1, 4),
    nights=st.sets(st.integers(1, 13)),
)
def test_cooldown_counts_bars_and_not_hours(answers, pause, nights):
    """A market that closes overnight, or for a weekend, has no bars then: the pause goes on when it opens."""
    series, said = [], []
    for number, each in enumerate(answers):
        said += [("raise", 0)] * (10 if number in nights else 0)
        series += bars(1, start=START + timedelta(minutes=len(said)))
        said.append(each)
    got = play("cooldown", {"of": script(said), "bars": pause}, len(answers), series=series)
    assert got == play("cooldown", {"of": script(answers), "bars": pause}, len(answers))


def test_a_cooldown_whose_beginning_is_no_longer_known_lasts_its_time():
    """History begins anew after a gap: then so many minutes are the pause, whatever came between."""
    function = registry().create("cooldown", {"of": script([("exit", 90)] * 9), "bars": 5})
    series = bars(9)

    def ask(bar, known):
        context = context_of(function, series, bar)
        context = replace(context, history=BarHistory(series, bar - known, bar))
        return asyncio.run(function.evaluate(context)).action.value

    assert ask(1, 1) == "exit"
    assert [ask(bar, 2) for bar in (5, 6, 7)] == ["none", "none", "exit"]


@given(answers=sequences, needed=st.integers(1, 4), skip=st.sets(st.integers(0, 13)))
def test_confirm_equals_brute_force(answers, needed, skip):
    """A wish passes when the last *bars* closes were all asked and all answered with it."""
    got = play("confirm", {"of": script(answers), "bars": needed}, len(answers), skip=skip)
    for number, (action, percent) in enumerate(answers):
        if number in skip:
            continue
        if action == "raise":
            assert got[number] == "raised"
            continue
        run = range(number - needed + 1, number + 1)
        same = all(n >= 0 and n not in skip and answers[n][0] == action for n in run)
        passes = action != "none" and same
        assert got[number] == ((action, Decimal(percent) / 100) if passes else ("none", ZERO))


@given(
    start=st.integers(0, 1439),
    end=st.integers(0, 1439),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]),
    days=st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
    hour=st.integers(0, 24 * 14),
)
def test_sessions_equal_a_walk_over_the_days(start, end, zone, days, hour):
    """A close counts when some session, laid out day by day in its own zone, holds the bar's last instant."""
    if start == end:
        return
    parameters = {
        "of": script([("enter_long", 80)] * 10_000),
        "start": f"{start // 60:02}:{start % 60:02}",
        "end": f"{end // 60:02}:{end % 60:02}",
        "timezone": zone,
        "days": sorted(days),
    }
    function = registry().create("only_in_session", parameters)
    (bar,) = bars(1, Timeframe.H1, START + timedelta(hours=hour))
    got = asyncio.run(function.evaluate(context_of(function, [bar], 1)))
    last = bar.close_time - timedelta(microseconds=1)
    inside = False
    first = datetime(2023, 12, 29).date()
    for day in (first + timedelta(days=n) for n in range(22)):
        if ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day.weekday()] not in days:
            continue
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
        begins = midnight + timedelta(
            minutes=start
        )  # wall time: these weeks have no change of clocks
        ends = midnight + timedelta(minutes=end if end > start else end + 1440)
        inside |= begins <= last < ends
    assert (got.action is ExecutionAction.ENTER_LONG) is inside


@pytest.mark.parametrize(
    ("close", "inside"),
    [
        ("2024-03-08T14:30:00", False),  # 09:30 in New York: that bar was before the session
        ("2024-03-08T14:31:00", True),
        ("2024-03-08T21:00:00", True),
        ("2024-03-08T21:01:00", False),
        ("2024-03-11T13:31:00", True),  # the clocks have changed on the 10th
        ("2024-03-11T20:00:00", True),
        ("2024-03-11T20:01:00", False),
        ("2024-03-10T15:00:00", False),  # Sunday
    ],
)
def test_sessions_follow_the_clocks_of_their_zone(close, inside):
    """H3, K7: the session is one of wall time, so it moves in UTC when the clocks change."""
    parameters = {
        "of": {"function": "always"},
        "start": "09:30",
        "end": "16:00",
        "timezone": "America/New_York",
        "days": ["mon", "tue", "wed", "thu", "fri"],
    }
    made = standard_registry()

    @made.register("always")
    async def always(context):
        return ExecutionSignal(action="enter_long", confidence=1)

    function = made.create("only_in_session", parameters)
    at = datetime.fromisoformat(close).replace(tzinfo=UTC)
    (bar,) = bars(1, start=at - timedelta(minutes=1))
    got = asyncio.run(function.evaluate(context_of(function, [bar], 1)))
    assert (got.action is ExecutionAction.ENTER_LONG) is inside


def test_every_part_is_asked_at_every_close():
    """Parts that keep something between bars see all bars, whatever the others say."""
    answers = [("enter_long", 50), ("none", 0), ("enter_long", 50)]
    made = registry()
    function = made.create(
        "any_of",
        {
            "of": [
                script(answers),
                {"function": "cooldown", "parameters": {"bars": 5, "of": script(answers)}},
            ]
        },
    )
    series = bars(3)
    for count in (1, 2, 3):
        asyncio.run(function.evaluate(context_of(function, series, count)))
    first, pausing = function.parts
    assert first.asked == pausing.parts[0].asked == [0, 1, 2]


def test_a_part_that_fails_makes_the_whole_fail():
    """Its silence is no answer: not for any_of, and least of all for not_."""
    bad = script([("raise", 0)])
    assert play("any_of", {"of": [script([("enter_long", 90)]), bad]}, 1)[0] == "raised"
    assert play("not_", {"of": bad, "action": "enter_long"}, 1)[0] == "raised"


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ("yes", TypeError, "returned str, not an ExecutionSignal"),
        (None, TypeError, "returned NoneType"),
        (
            ExecutionSignal(action="exit", confidence=1, symbol="ETH/USDT"),
            ValueError,
            "answered for ETH/USDT, not BTC/USDT",
        ),
    ],
)
def test_rubbish_of_a_part_is_refused(returned, error, message):
    """P4: a part is checked as a whole function is."""
    made = standard_registry()

    @made.register("rubbish")
    async def rubbish(context):
        return returned

    function = made.create("confirm", {"bars": 1, "of": {"function": "rubbish"}})
    with pytest.raises(error, match=message):
        asyncio.run(function.evaluate(context_of(function, bars(1), 1)))


def test_the_longest_lookback_counts():
    """It is asked when the part that needs most bars has them."""
    long = {"function": "script", "parameters": {"answers": (), "lookback": 30}}
    nested = {"function": "cooldown", "parameters": {"bars": 1, "of": long}}
    assert registry().create("all_of", {"of": [script([]), nested]}).required_lookback == 30


def test_names_of_all_that_is_asked():
    """What is disabled anywhere inside is known from outside."""
    made = registry()
    part = compose.all_of(
        use("breakout", bars=3), compose.not_(use("time_exit", bars=1), action="exit")
    )
    params = made.check(part.function, part.parameters)
    assert made.names_in(part.function, params) == {"all_of", "breakout", "not_", "time_exit"}


def test_parts_share_instances_and_count():
    """Equal parts without memory are one instance; `max_instances` counts parts as well."""
    made = standard_registry(max_instances={"close_above": 1})
    above = {"function": "close_above", "parameters": {"threshold_price": 1}}
    whole = made.create("all_of", {"of": [above, above]})
    assert whole.parts[0] is whole.parts[1] is made.create("close_above", {"threshold_price": 1})
    with pytest.raises(RegistrationError, match="has 1 instances"):
        made.create("any_of", {"of": [above, above | {"parameters": {"threshold_price": 2}}]})
    assert made.create("cooldown", {"bars": 1, "of": above}) is not made.create(
        "cooldown", {"bars": 1, "of": above}
    )


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("all_of", {}, "all_of: of: is missing; add it"),
        ("all_of", {"of": []}, "all_of: of: [] is wrong"),
        (
            "all_of",
            {"of": [{"function": "close_above", "parameters": {"threshold_price": -1}}]},
            "all_of: of[0].parameters.threshold_price: -1 is wrong; it should be greater than 0",
        ),
        (
            "all_of",
            {"of": [{"function": "close_abov"}]},
            "all_of: of[0]: function 'close_abov' is unknown; registered are: all_of, any_of",
        ),
        (
            "not_",
            {
                "action": "exit",
                "of": {
                    "function": "confirm",
                    "parameters": {"bars": 0, "of": {"function": "time_exit"}},
                },
            },
            "not_: of.parameters.bars: 0 is wrong; it should be greater than or equal to 1",
        ),
        ("not_", {"of": {"function": "time_exit"}}, "not_: action: is missing; add it"),
        ("k_of_n", {"k": 2, "of": [{"function": "x"}]}, "k: 2 cannot agree where 1 are asked"),
        (
            "only_in_session",
            {"of": {"function": "x"}, "start": "9:30am", "end": "16:00", "timezone": "UTC"},
            "start: '9:30am' is not a time of day; write HH:MM, e.g. 09:30",
        ),
        (
            "only_in_session",
            {"of": {"function": "x"}, "start": "09:30", "end": "16:00", "timezone": "New York"},
            "timezone: 'New York' is not a time zone; use an IANA name, e.g. America/New_York",
        ),
        (
            "only_in_session",
            {"of": {"function": "x"}, "start": "09:30", "end": "09:30", "timezone": "UTC"},
            "end: 09:30 is the start; a session has a length",
        ),
        ("time_exit", {}, "after, bars: state one of the two, e.g. after: 4h"),
        ("ma_cross", {"fast": 5, "slow": 5}, "fast: 5 bars must be fewer than slow, 5"),
    ],
)
def test_readable_errors(name, parameters, message):
    """What is wrong, where inside all the nesting, and the fix."""
    with pytest.raises(ConfigurationError) as caught:
        registry().check(name, parameters)
    assert message in str(caught.value)


def test_timeframes_of_parts_are_checked():
    """A part that is not made for a timeframe is not made for it inside another one either."""
    made = standard_registry()

    @made.register("hourly", timeframes=("1h",))
    async def hourly(context):
        return ExecutionSignal.none()

    parameters = {"bars": 2, "of": {"function": "hourly"}}
    made.check("confirm", parameters, timeframe=Timeframe.H1)
    with pytest.raises(ConfigurationError, match="of: function 'hourly' is made for 1h, not 1m"):
        made.check("confirm", parameters, timeframe=Timeframe.M1)


def test_code_builds_what_files_say():
    """The helpers give plain data, equal to what a plan file holds."""
    above = use("close_above", threshold_price=42_000)
    built = compose.k_of_n(
        2,
        compose.confirm(above, bars=3),
        compose.any_of(above, use("breakout", bars=20)),
        compose.only_in_session(
            compose.cooldown(above, bars=5), start="09:30", end="16:00", timezone="UTC"
        ),
    )
    plain = {"function": "close_above", "parameters": {"threshold_price": 42_000}}
    assert built == Part(
        function="k_of_n",
        parameters={
            "k": 2,
            "of": [
                {"function": "confirm", "parameters": {"of": plain, "bars": 3}},
                {
                    "function": "any_of",
                    "parameters": {
                        "of": [plain, {"function": "breakout", "parameters": {"bars": 20}}]
                    },
                },
                {
                    "function": "only_in_session",
                    "parameters": {
                        "of": {"function": "cooldown", "parameters": {"of": plain, "bars": 5}},
                        "start": "09:30",
                        "end": "16:00",
                        "timezone": "UTC",
                    },
                },
            ],
        },
    )
    registry().check(built.function, built.parameters)


def test_each_has_a_helper_and_the_examples_run():
    """No combinator is for files only, and the docstrings tell the truth."""
    assert all(callable(getattr(compose, name)) for name in COMBINATORS)
    assert doctest.testmod(compose).failed == 0
