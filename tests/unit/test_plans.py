"""A plan is checked before anything runs, and its messages name line and key."""

from decimal import Decimal
from pathlib import Path

import pytest

from execkit.errors import ConfigurationError
from execkit.functions.base import ExecutionAction
from execkit.functions.builtin import standard_registry
from execkit.functions.compose import all_of, use
from execkit.model.market import Timeframe
from execkit.plans import (
    PlanBars,
    PlanRisk,
    Rule,
    TradePlan,
    TradePlanStatus,
    calendars_of,
    chain_of,
    load_plans,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "plans" / "breakout.yaml"
ENTRY = {"function": "close_above", "timeframe": "1h", "parameters": {"threshold_price": 100}}


def make(**values):
    return TradePlan(**({"name": "p", "symbol": "BTC/USDT", "entry": [ENTRY]} | values))


def write(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_the_example_is_complete():
    """The plan that the README replays loads, with functions that exist and all that a replay needs."""
    plan = TradePlan.load(EXAMPLE, functions=standard_registry())
    plan.check_replay()
    assert (plan.name, plan.symbol, plan.repeat) == ("breakout", "BTC/USDT", True)
    assert {rule.function for rule in plan.entry + plan.exit} <= set(standard_registry())
    assert len({rule.timeframe for rule in plan.entry + plan.exit}) >= 3
    spec = plan.bar_file()
    assert (spec.symbol, spec.timezone, spec.label) == ("BTC/USDT", "UTC", "close")
    instrument = plan.instrument.build(plan.symbol)
    assert (instrument.base, instrument.quote, instrument.taker_fee) == (
        "BTC",
        "USDT",
        Decimal("0.0005"),
    )
    assert [type(link).__name__ for link in plan.pipeline()] == [
        "ValidationHandler",
        "RiskManagementHandler",
        "OrderExecutorHandler",
        "ReconciliationHandler",
    ]


def test_plans_built_in_code_are_the_same(tmp_path):
    """From a file or from code: equal values, equal plans."""
    text = """
name: p
symbol: BTC/USDT
entry: [{function: close_above, timeframe: 1hour, parameters: {threshold_price: 100}}]
risk: {stop_loss_pct: 1.5}
bars: {label: open, timezone: UTC}
status: cancelled
repeat: false
"""
    built = make(
        entry=(
            Rule(
                function="close_above", timeframe=Timeframe.H1, parameters={"threshold_price": 100}
            ),
        ),
        risk=PlanRisk(stop_loss_pct=Decimal("1.5")),
        bars=PlanBars(label="open", timezone="UTC"),
        status=TradePlanStatus.CANCELLED,
        repeat=False,
    )
    assert TradePlan.load(write(tmp_path, text)) == built
    assert make().status is TradePlanStatus.AWAITING_ENTRY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol: X\nentry: []", ":1: name: is missing; add it"),
        ("name: a b\nsymbol: X\nentry: [{}]", ":1: name: 'a b' is not a name"),
        ("name: p\nsymbol: X\nentry: []", ":3: entry: [] is wrong"),
        (
            "name: p\nsymbol: X\nentry:\n  - functoin: f",
            ":4: entry[0].functoin: unknown key; did you",
        ),
        ("name: p\nsymbol: X\nexit: 5\nentry: []", ":3: exit: 5 is wrong; it should be a list"),
        ("name: p\nname: q", ":2: key 'name' comes twice"),
        (
            "name: p\nsymbol: X\nentry: []\nrepeat: NO",
            ":4: repeat: 'NO' is wrong; it should be true",
        ),
        ("name: p\nsymbol: X\nentry: []\nstatus: waiting", ":4: status: 'waiting' is wrong"),
        (
            "name: p\nsymbol: X\nentry: []\naccount: {balances: {USDT: 0123}}",
            ":4: account.balances",
        ),
    ],
)
def test_wrong_files_name_line_key_and_fix(tmp_path, text, message):
    """I35: nothing is guessed, ignored or turned into something else."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        TradePlan.load(path)
    assert f"{path}{message}" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "function: nobody\n    timeframe: 1h",
            ":4: entry[0]: function 'nobody' is unknown; registered",
        ),
        (
            "function: close_above\n    timeframe: 1h\n    parameters:\n      threshold_price: 01",
            ":7: entry[0].parameters.threshold_price: '01' is text, not a number",
        ),
        (
            "function: close_above\n    timeframe: 1h\n    parameters: {}",
            ":6: entry[0].parameters.threshold_price: is missing; add it",
        ),
    ],
)
def test_functions_are_checked_while_lines_are_known(tmp_path, rule, message):
    """With the registry at hand, a wrong parameter of a function has its line too."""
    path = write(tmp_path, f"name: p\nsymbol: X\nentry:\n  - {rule}\n")
    with pytest.raises(ConfigurationError) as caught:
        TradePlan.load(path, functions=standard_registry())
    assert str(caught.value).startswith(f"{path}{message}")


TWO = """\
plans:
  - name: one
    symbol: BTC/USDT
    entry: &entry
      - function: all_of
        timeframe: 5m
        parameters:
          of:
            - {function: close_above, parameters: {threshold_price: 42000}}
            - function: breakout
              parameters: {bars: 20}
  - name: two
    symbol: ETH/USDT
    entry: *entry
"""


def test_a_file_may_hold_several_plans(tmp_path):
    """A list under `plans`, in its order; what they share may be written once."""
    path = write(tmp_path, TWO)
    one, two = load_plans(path, functions=standard_registry())
    assert (one.name, two.name, two.symbol) == ("one", "two", "ETH/USDT")
    assert one.entry == two.entry
    part = all_of(use("close_above", threshold_price=42_000), use("breakout", bars=20))
    assert one.entry == (Rule.of("5m", part),)
    with pytest.raises(ConfigurationError, match=r"plan.yaml: holds 2 plans \(one, two\); one is"):
        TradePlan.load(path)
    assert load_plans(EXAMPLE) == (TradePlan.load(EXAMPLE),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plans:", "risk: {}\nplans:", ":1: risk: stands beside `plans`; it belongs into each"),
        (TWO, "plans: 5", ":1: plans: must be a list of plans"),
        (TWO, "plans: []", ":1: plans: must be a list of plans"),
        (TWO, "plans: [5]", ":1: plans[0].(top): 5 is not a mapping"),
        ("name: two", "name: one", ":12: plans[1].name: two plans are named 'one'; rename one"),
        ("symbol: ETH/USDT", "symbl: X", ":13: plans[1].symbl: unknown key; did you mean 'symbol'"),
        (
            "threshold_price: 42000",
            "threshold_price: NO",
            ":9: plans[0].entry[0].parameters.of[0].parameters.threshold_price: 'NO' is text",
        ),
        (
            "bars: 20",
            "bar: 20",
            ":11: plans[0].entry[0].parameters.of[1].parameters.bar: unknown key; did you mean 'bars'",
        ),
        (
            "function: breakout",
            "function: breakuot",
            ":10: plans[0].entry[0].parameters.of[1]: function 'breakuot' is unknown",
        ),
    ],
)
def test_files_of_several_name_plan_line_and_key(tmp_path, old, new, message):
    """Also deep inside a function of a function of the second plan."""
    path = write(tmp_path, TWO.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        load_plans(path, functions=standard_registry())
    assert f"{path}{message}" in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    """One run, every message: in both plans, in entry and exit."""
    text = TWO.replace("bars: 20", "bars: 0").replace("name: two", "name: t w o")
    text += "    repeat: 1\n"
    with pytest.raises(ConfigurationError) as caught:
        load_plans(write(tmp_path, text), functions=standard_registry())
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == [
        "plans[0].entry[0].parameters.of[1].parameters.bars",
        "plans[1].name",
        "plans[1].repeat",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bars": {"label": "close", "symbol": "ETH/USDT"}}, "bars.symbol: ETH/USDT is not what"),
        ({"bars": {"label": "close", "timezone": "Mars"}}, "bars.timezone: 'Mars' is unknown"),
        ({"bars": {"label": "close", "columns": {"x": "y"}}}, "bars.columns: 'x' is unknown"),
        (
            {"bars": {"label": "close", "timeframe": "4h"}},
            "entry[0].timeframe: 1h cannot be built from 4h bars",
        ),
        ({"risk": {"take_profit_r": 2}}, "take_profit_r: is a multiple of stop_loss_pct"),
        ({"risk": {"preset": "brave"}}, "risk.preset: 'brave' is wrong"),
        ({"risk": {"size_pct": 101}}, "risk.size_pct: 101 is wrong"),
        ({"risk": {"max_concurrent_positions": 0}}, "max_concurrent_positions: 0 must be"),
        ({"risk": {"sizing": {"method": "risk_per_trade", "value": 200}}}, "pct: 200 is above 100"),
    ],
)
def test_parts_must_fit_together(values, message):
    """What each part allows by itself may still contradict another."""
    with pytest.raises(ConfigurationError) as caught:
        make(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["bars", "instrument", "account"])
def test_a_replay_needs_more(missing):
    """What a live plan may leave to the venue, a replay must be told."""
    complete = {
        "bars": {"label": "close"},
        "instrument": {"tick_size": 1, "lot_size": 1, "maker_fee": 0, "taker_fee": 0},
        "account": {"balances": {"USDT": 1}},
    }
    make(**complete).check_replay()
    del complete[missing]
    with pytest.raises(
        ConfigurationError, match=f"plan p: {missing}: is missing; a replay needs it"
    ):
        make(**complete).check_replay()


@pytest.mark.parametrize(
    ("action", "stop", "target"),
    [("enter_long", "99.5", "102"), ("enter_short", "101", "98.5")],
)
def test_levels_by_hand(action, stop, target):
    """1 % of 100.3 is 1.003: a long stops at 99.297, on the tick above; its 1.5 R target is 101.8045, on the next."""
    plan = make(
        risk={"stop_loss_pct": 1, "take_profit_r": Decimal("1.5")},
        instrument={"tick_size": Decimal("0.5"), "lot_size": 1, "maker_fee": 0, "taker_fee": 0},
    )
    levels = plan.levels(ExecutionAction(action), Decimal("100.3"))
    assert levels == (Decimal(stop), Decimal(target))


def test_levels_that_are_not_stated():
    """No percentage, no stop; no multiple, no target; no entry, neither. Without an instrument 8 places do."""
    close = Decimal(3)
    assert make().levels(ExecutionAction.ENTER_LONG, close) == (None, None)
    plan = make(risk={"stop_loss_pct": Decimal("0.1")})
    assert plan.levels(ExecutionAction.ENTER_LONG, close) == (Decimal("2.997"), None)
    assert plan.levels(ExecutionAction.EXIT, close) == (None, None)


def test_a_plan_cannot_change():
    """A running plan is what was journalled."""
    with pytest.raises(ValueError, match="frozen"):
        make().symbol = "ETH/USDT"


def test_the_chain_has_the_risk_that_the_plans_state():
    """Of one plan or of several that agree; a difference is refused, not dropped."""
    careful = {"risk": {"size_pct": Decimal("0.5"), "stop_loss_pct": 1}}
    chain = chain_of([make(**careful), make(name="q", **careful)])
    handler = chain.handlers[chain.index("RiskManagementHandler")]
    assert handler.limits.size_pct == Decimal("0.5")
    assert chain_of([]) is None
    with pytest.raises(ConfigurationError, match="'q' and 'p' state different risk"):
        chain_of([make(**careful), make(name="q")])
    levels_only = {"risk": {"stop_loss_pct": 1}}
    assert chain_of([make(**levels_only), make(name="q")]) is not None


def test_a_plan_may_state_its_markets_calendar(tmp_path):
    """One that nobody knows is refused with its line; of one market there is one."""
    values = {
        "name": "a",
        "symbol": "XYZ/USD",
        "entry": [{"function": "breakout", "timeframe": "1h", "parameters": {"bars": 5}}],
    }
    always, shares = (TradePlan(**values, calendar=name) for name in ("24/7", "XNYS"))
    assert calendars_of([always, TradePlan(**values)]) == {"XYZ/USD": "24/7"}
    with pytest.raises(ConfigurationError, match="XNYS for XYZ/USD, another plan has 24/7"):
        calendars_of([always, shares])
    file = tmp_path / "plan.yaml"
    file.write_text(
        "name: a\nsymbol: XYZ/USD\ncalendar: NYSEE\n"
        "entry:\n  - {function: breakout, timeframe: 1h, parameters: {bars: 5}}\n"
    )
    with pytest.raises(ConfigurationError, match=r"plan\.yaml:3: calendar: 'NYSEE' is unknown"):
        TradePlan.load(file)


def test_a_wrong_rule_does_not_make_its_list_too_short(tmp_path):
    """One mistake is one line."""
    file = tmp_path / "plan.yaml"
    file.write_text(
        "name: a\nsymbol: BTC/USDT\nentry:\n  - function: breakout\n    timeframe: 7m\n"
        "    parameters: {bars: 5}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        TradePlan.load(file)
    (line,) = str(caught.value).splitlines()
    assert "plan.yaml:5: entry[0].timeframe: " in line
    file.write_text("name: a\nsymbol: BTC/USDT\nentry: []\n")
    with pytest.raises(ConfigurationError, match=r"plan\.yaml:3: entry: "):
        TradePlan.load(file)
