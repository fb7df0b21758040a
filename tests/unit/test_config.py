"""One checked file; the environment may change little, and holds the secrets."""

import hashlib
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.config import OVERRIDES, Config, secret_variable
from execkit.errors import ConfigurationError, RegistrationError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    VolatilityTarget,
)
from execkit.settings import RiskSettings, SizingSettings

FULL = """
exchange:
  name: binance
  options: {market: spot, sandbox: true}
currency: USDT
journal: {path: state/orders.db, durability: process}
reconcile_every: 30s
risk:
  preset: strategy
  max_position_pct: 7.5
  allow_short: true
  sizing: {method: fixed_notional, value: 250}
validation: {min_confluence_score: 2, valid_exchanges: [binance], max_quote_age: 3s}
executor: {max_retries: 2, base_delay: 500ms, jitter: 0.1, order_timeout: 2m}
reconciliation: {max_wait_time: 4s, verify_fill: false}
functions:
  max_instances: {close_above: 3}
  disabled: [trailing_stop]
plans: [plans/one.yaml]
"""


@pytest.fixture
def load(tmp_path):
    """A function that writes a file and loads it."""

    def write(text, env=None):
        path = tmp_path / "execkit.yaml"
        path.write_text(text)
        return Config.load(path, env or {})

    return write


def refused(load, text, env=None):
    with pytest.raises(ConfigurationError) as caught:
        load(text, env)
    return str(caught.value)


def test_reads_everything(load, tmp_path):
    """Every section arrives where it is used."""
    config = load(FULL)
    assert (config.exchange.name, config.exchange.options) == (
        "binance",
        {"market": "spot", "sandbox": True},
    )
    assert config.journal_path == tmp_path / "state" / "orders.db"
    assert config.reconcile_every == timedelta(seconds=30)
    validation, risk, executor, reconciliation = config.pipeline()
    assert isinstance(validation, ValidationHandler)
    assert validation.min_confluence_score == 2
    assert validation.min_signal_strength == 70
    assert validation.valid_exchanges == {"binance"}
    assert validation.max_quote_age == timedelta(seconds=3)
    assert isinstance(risk, RiskManagementHandler)
    assert risk.limits == RiskLimits.strategy(max_position_pct=Decimal("7.5"), allow_short=True)
    assert risk.sizing == FixedNotional(Decimal(250))
    assert isinstance(executor, OrderExecutorHandler)
    assert (executor.max_retries, executor.base_delay, executor.jitter) == (2, 0.5, 0.1)
    assert executor.order_timeout == timedelta(minutes=2)
    assert isinstance(reconciliation, ReconciliationHandler)
    assert (reconciliation.max_wait_time, reconciliation.verify_fill) == (4.0, False)
    registry = config.registry()
    assert not registry.is_enabled("trailing_stop")
    assert registry.changes[-1].change.actor == "configuration"
    made = [registry.create("close_above", {"threshold_price": 1 + n}) for n in range(3)]
    with pytest.raises(RegistrationError, match=f"has {len(made)} instances"):
        registry.create("close_above", {"threshold_price": 9})


def test_defaults_are_those_of_the_handlers(load, tmp_path):
    """An empty file is the default engine: nothing is said twice differently."""
    config = load("")
    assert config.exchange.name == "paper"
    assert config.journal_path == tmp_path / "orders.db"
    defaults = (
        ValidationHandler(),
        RiskManagementHandler(),
        OrderExecutorHandler(),
        ReconciliationHandler(),
    )
    for made, default in zip(config.pipeline(), defaults, strict=True):
        assert type(made) is type(default)
        for name, value in vars(default).items():
            assert name.startswith("_") or getattr(made, name) == value
    assert config.model_dump() == Config().model_dump()


def test_every_risk_limit_can_be_set():
    """The settings and `RiskLimits` have the same fields."""
    limits = {field.name for field in attrs.fields(RiskLimits)}
    assert set(RiskSettings.model_fields) - {"preset", "sizing", "stop"} == limits
    assert RiskSettings().limits() == RiskLimits.engine()


@pytest.mark.parametrize(
    ("method", "made"),
    [
        ("percent_of_equity", PercentOfEquity(Decimal(3))),
        ("fixed_notional", FixedNotional(Decimal(3))),
        ("fixed_quantity", FixedQuantity(Decimal(3))),
        ("risk_per_trade", RiskPerTrade(Decimal(3))),
        ("volatility_target", VolatilityTarget(Decimal(3))),
    ],
)
def test_sizing_methods(method, made):
    """Each method of A5 that is there by name."""
    assert SizingSettings(method=method, value=3).build() == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("riks: {}", ":1: riks: unknown key; did you mean 'risk'?"),
        (
            "risk:\n  max_postion_pct: 5",
            ":2: risk.max_postion_pct: unknown key; did you mean 'max_p",
        ),
        ("risk: {}\nrisk: {}", ":2: key 'risk' comes twice"),
        (
            "risk:\n  allow_short: ON",
            ":2: risk.allow_short: 'ON' is wrong; it should be true or false",
        ),
        ("risk:\n  size_pct: .nan", ":2: risk.size_pct: '.nan' is text, not a number"),
        ("risk:\n  size_pct: 012", ":2: risk.size_pct: '012' is text, not a number"),
        ("risk:\n  size_pct: '2'", ":2: risk.size_pct: '2' is text, not a number"),
        (
            "executor:\n  base_delay: 12:30:00",
            ":2: executor.base_delay: '12:30:00' is not a duration",
        ),
        ("executor:\n  base_delay: 1", ":2: executor.base_delay: 1 is not a duration"),
        ("executor:\n  jitter: 1", ":2: executor.jitter: 1 is wrong; it should be less than 1"),
        ("journal:\n  durability: maybe", ":2: journal.durability: 'maybe' is wrong; it should be"),
        ("exchange: paper", ":1: exchange: 'paper' is not a mapping"),
        ("plans: one.yaml", ":1: plans: 'one.yaml' is wrong; it should be a list"),
        (
            "functions:\n  allow_list: {f: abc}",
            ":2: functions.allow_list.f: 'abc' is wrong; it should",
        ),
        ("risk:\n  max_scale_ins: -1", ":2: risk.max_scale_ins: -1 is wrong"),
    ],
)
def test_mistakes_name_file_line_key_and_fix(load, tmp_path, text, message):
    """I35: unknown and duplicate keys and coerced values are refused before anything is opened."""
    assert refused(load, text).startswith(f"{tmp_path / 'execkit.yaml'}{message}")


def test_all_mistakes_are_told_at_once(load):
    """Nobody wants to fix a file one message at a time."""
    text = refused(load, "risk: {size_pct: x, preset: y}\nexecutor: {jitter: 2}\n")
    assert len(text.splitlines()) == 3


# --- the environment ----------------------------------------------------------------------------------


def test_the_environment_overrides_what_it_may(load, tmp_path):
    """S9: exactly the allow-list, and what it sets is checked like the file."""
    env = {
        "EXECKIT_JOURNAL_PATH": "/var/lib/orders.db",
        "EXECKIT_JOURNAL_DURABILITY": "power",
        "EXECKIT_EXCHANGE_NAME": "alpaca",
        "EXECKIT_CURRENCY": "USD",
        "EXECKIT_SHARED_DATA": "not ours",
        "PATH": "/bin",
    }
    config = load(FULL, env)
    assert str(config.journal_path) == "/var/lib/orders.db"
    assert (config.journal.durability, config.exchange.name, config.currency) == (
        "power",
        "alpaca",
        "USD",
    )
    assert set(OVERRIDES) <= set(env)
    message = refused(load, "", {"EXECKIT_JOURNAL_DURABILITY": "maybe"})
    assert message.startswith("EXECKIT_JOURNAL_DURABILITY: journal.durability: 'maybe' is wrong")
    assert "exchange: 5 is not a mapping" in refused(load, "exchange: 5", env)


@pytest.mark.parametrize(
    "variable",
    [
        "EXECKIT_RISK_MAX_POSITION_PCT",
        "EXECKIT_RISK",
        "EXECKIT_JOURNAL_PTH",
        "EXECKIT_RECONCILE_EVERY",
    ],
)
def test_the_environment_may_not_loosen_a_limit(load, variable):
    """S9: a variable that looks like a setting and is not allowed is refused, not ignored."""
    assert refused(load, "", {variable: "100"}).startswith(
        f"{variable}: the environment may not change this; state it in the file. It may set EXECKIT"
    )


def test_the_real_environment_is_the_default(tmp_path, monkeypatch):
    """`Config.load(path)` reads this process's environment."""
    path = tmp_path / "c.yaml"
    path.write_text("")
    monkeypatch.setenv("EXECKIT_CURRENCY", "EUR")
    assert Config.load(path).currency == "EUR"


# --- secrets ------------------------------------------------------------------------------------------

CANARY = "s3cr3t-canary"


def test_secrets_come_from_the_environment_and_never_show(load):
    """I27: found under the exchange's name, and in no text, dump or hash."""
    env = {"BINANCE_API_KEY": CANARY, "BINANCE_API_SECRET": CANARY, "OTHER_SECRET": "x"}
    config = load(FULL, env)
    assert set(config.secrets) == {"api_key", "secret"}
    assert config.secrets["api_key"].get_secret_value() == CANARY
    for shown in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert CANARY not in shown
    assert CANARY not in repr(config.secrets)
    assert config.hash == load(FULL).hash


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("api_key", "BINANCE_API_KEY"),
        ("apiKey", "BINANCE_API_KEY"),
        ("secret", "BINANCE_API_SECRET"),
        ("api_secret", "BINANCE_API_SECRET"),
        ("private_key", "BINANCE_API_SECRET"),
        ("PASSWORD", "BINANCE_API_PASSWORD"),
        ("broker_token", "BINANCE_API_KEY"),
    ],
)
def test_secrets_in_the_file_are_refused(load, key, variable):
    """The message names the variable to use instead, and does not repeat the secret."""
    text = f"exchange:\n  name: binance\n  options:\n    nested: [{{{key}: {CANARY}}}]\n"
    message = refused(load, text)
    assert f"execkit.yaml:4: exchange.options.nested[0].{key}: a secret does not belong" in message
    assert message.endswith(f"set the environment variable {variable}")
    assert CANARY not in message
    assert "set the environment variable PAPER_" in refused(load, f"exchange: x\n{key}: {CANARY}")


def test_names_of_secret_variables():
    """Whatever an exchange is called, its variable is one that a shell can set."""
    assert secret_variable("kraken-pro.eu", "api_key") == "KRAKEN_PRO_EU_API_KEY"


# --- hash, functions, plans ---------------------------------------------------------------------------


def test_the_hash_is_that_of_the_effective_values(load):
    """Order and comments do not matter, every value does, also one from the environment."""
    first = load("risk: {size_pct: 2}\njournal: {path: a}\n")
    assert load("# same\njournal: {path: a}\nrisk: {size_pct: 2}\n").hash == first.hash
    assert load("risk: {size_pct: 3}\njournal: {path: a}\n").hash != first.hash
    assert load("risk: {size_pct: 2}\n", {"EXECKIT_JOURNAL_PATH": "a"}).hash == first.hash
    assert len(first.hash) == 32


@pytest.mark.parametrize("key", ["disabled: [rsi]", "max_instances: {rsi: 1}"])
def test_unknown_functions_are_refused(load, key):
    """A name that is nobody's is a typing mistake."""
    config = load(f"functions: {{{key}}}")
    with pytest.raises(
        ConfigurationError, match=r"functions\.\w+: 'rsi' is unknown; there are: all_of"
    ):
        config.registry()


def test_plugins_need_to_be_there(load):
    """A plug-in that is asked for and not installed stops the start."""
    digest = hashlib.sha256(b"x").hexdigest()
    config = load(f"functions: {{plugins: [rsi], allow_list: {{rsi: {digest}}}}}")
    with pytest.raises(RegistrationError, match="'rsi' is not installed"):
        config.registry()


def test_plans_are_found_beside_the_file(load, tmp_path):
    """A relative path starts at the configuration, and functions are checked when they are known."""
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "one.yaml").write_text(
        "name: one\nsymbol: X\nentry: [{function: nobody, timeframe: 1h}]\n"
    )
    config = load(FULL)
    assert [plan.name for plan in config.load_plans()] == ["one"]
    with pytest.raises(ConfigurationError, match=r"one\.yaml:3: entry\[0\]: function 'nobody' is"):
        config.load_plans(config.registry())


@pytest.mark.parametrize(("here", "passes"), [("1", True), ("2", False), ("null", False)])
def test_a_plans_risk_is_never_dropped(tmp_path, here, passes):
    """What a plan states must be what counts."""
    (tmp_path / "plan.yaml").write_text(
        "name: p\nsymbol: BTC/USDT\nrisk: {size_pct: 1, stop_loss_pct: 1}\n"
        "entry: [{function: close_above, timeframe: 1h, parameters: {threshold_price: 100}}]\n"
    )
    (tmp_path / "execkit.yaml").write_text(f"plans: [plan.yaml]\nrisk: {{size_pct: {here}}}\n")
    config = Config.load(tmp_path / "execkit.yaml", env={})
    if passes:
        assert len(config.load_plans()) == 1
    else:
        with pytest.raises(ConfigurationError, match=r"'p' states risk\.size_pct"):
            config.load_plans()
