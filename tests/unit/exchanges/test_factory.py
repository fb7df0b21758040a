"""Exchanges by name."""

import sys
from decimal import Decimal
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from execkit.errors import ConfigurationError, RegistrationError
from execkit.exchanges import factory as factory_module
from execkit.exchanges.factory import ExchangeFactory
from execkit.exchanges.paper import PaperExchange
from execkit.model.instrument import Instrument

CASH = {"balances": {"USDT": Decimal(100)}}


class Closing(PaperExchange):
    """Notes when it is closed; `fails` fails."""

    closed: ClassVar = []

    def __init__(self, name="x", fails=False):
        super().__init__(name=name, **CASH)
        self.fails = fails

    async def close(self):
        self.closed.append(self.name)
        if self.fails:
            raise ConnectionError("no")


def test_paper_is_built_in():
    """A fresh factory knows the paper exchange and hands its options on."""
    factory = ExchangeFactory(use_entry_points=False)
    exchange = factory.create("paper", **CASH, name="demo")
    assert isinstance(exchange, PaperExchange)
    assert exchange.name == "demo"
    assert "paper" in factory
    assert list(factory) == list(factory.names) == sorted(factory.names)
    assert repr(factory) == f"ExchangeFactory({', '.join(factory.names)}; 1 made)"


def test_adapters_are_imported_when_asked_for(tmp_path, monkeypatch):
    """Registering a name loads nothing; creating it does."""
    (tmp_path / "lazy_venue.py").write_text("from execkit.exchanges.paper import PaperExchange\n")
    monkeypatch.syspath_prepend(tmp_path)
    factory = ExchangeFactory()
    factory.register("lazy", "lazy_venue:PaperExchange")
    assert "lazy_venue" not in sys.modules
    factory.create("lazy", **CASH)
    assert sys.modules.pop("lazy_venue")


def test_same_options_give_the_same_exchange():
    """Also when they are equal dictionaries and lists; others make another one."""
    factory = ExchangeFactory()
    rules = Instrument.default("BTC/USDT")
    first = factory.create("paper", **CASH, instruments=[rules])
    assert factory.create("paper", balances={"USDT": Decimal(100)}, instruments=[rules]) is first
    assert factory.create("paper", **CASH) is not first
    assert factory.create("paper", **CASH, instruments=[rules], name="other") is not first


def test_values_that_only_look_equal_are_told_apart():
    """1, True and Decimal(1) are equal in Python; an object without a hash stands for itself."""
    factory = ExchangeFactory()
    made = []
    factory.register("any", lambda value: made.append(value) or Closing())
    shared = bytearray(b"x")
    for value in (
        1,
        True,
        Decimal(1),
        {1},
        frozenset({1}),
        shared,
        shared,
        bytearray(b"x"),
        {1: [2]},
    ):
        factory.create("any", value=value)
    assert len(made) == 7


def test_unknown_name_lists_the_known_ones():
    """The message names what there is."""
    factory = ExchangeFactory(use_entry_points=False)
    factory.register("mine", Closing)
    with pytest.raises(ConfigurationError, match=r"'papr' is unknown; known are .*mine, paper"):
        factory.create("papr")


def test_unknown_option_is_named():
    """With the options that exist."""
    with pytest.raises(ConfigurationError, match=r"no option 'cash'; it takes balances, prices"):
        ExchangeFactory().create("paper", cash={})


def test_missing_option_is_named():
    """What has no default has to be given."""
    with pytest.raises(ConfigurationError, match="needs the option 'balances'"):
        ExchangeFactory().create("paper")


def test_exchange_may_take_any_option():
    """A function with ** takes what it likes."""
    factory = ExchangeFactory()
    factory.register("any", lambda **options: Closing(options["whatever"]))
    assert factory.create("any", whatever="w").name == "w"


def test_names_are_taken_once():
    """Unless replacing is meant."""
    factory = ExchangeFactory()
    with pytest.raises(RegistrationError, match="registered already"):
        factory.register("paper", Closing)
    factory.register("paper", Closing, replace=True)
    assert isinstance(factory.create("paper"), Closing)


@pytest.mark.parametrize("target", ["module", "a:b:c", 7, None])
def test_target_must_be_callable_or_named(target):
    """Anything else is refused at once."""
    with pytest.raises(RegistrationError, match="neither callable"):
        ExchangeFactory().register("x", target)


def test_missing_extra_says_how_to_install_it():
    """One sentence with the package and the command."""
    factory = ExchangeFactory()
    factory.register("x", "no_such_client.adapter:Adapter", extra="binance")
    with pytest.raises(ConfigurationError) as caught:
        factory.create("x")
    assert str(caught.value) == (
        "exchange 'x' needs the package no_such_client; install it with: pip install 'execkit[binance]'"
    )


def test_broken_targets_are_explained():
    """A module that is not there, a name that is not in it, and a thing that is no adapter."""
    factory = ExchangeFactory()
    factory.register("gone", "no_such_module:Adapter")
    factory.register("empty", "execkit.errors:Adapter")
    factory.register("wrong", dict)
    with pytest.raises(ConfigurationError, match="no_such_module"):
        factory.create("gone")
    with pytest.raises(RegistrationError, match="no attribute 'Adapter'"):
        factory.create("empty")
    with pytest.raises(RegistrationError, match="no ExchangeAdapter"):
        factory.create("wrong")


def offer(monkeypatch, *values):
    points = [EntryPoint(name, value, factory_module.GROUP) for name, value in values]
    monkeypatch.setattr(factory_module, "entry_points", lambda group: points)


def test_entry_points_add_exchanges(monkeypatch):
    """Installed packages offer theirs; what is registered goes first."""
    offer(
        monkeypatch,
        ("foreign", "execkit.exchanges.paper:PaperExchange"),
        ("paper", "no_such_module:Evil"),
    )
    factory = ExchangeFactory()
    assert {"foreign", "paper"} < set(factory.names)
    assert isinstance(factory.create("foreign", **CASH), PaperExchange)
    assert isinstance(factory.create("paper", **CASH), PaperExchange)
    assert "foreign" not in ExchangeFactory(use_entry_points=False)


def test_name_offered_twice_is_refused(monkeypatch):
    """Nobody can say which of two packages was meant."""
    offer(monkeypatch, ("foreign", "a:A"), ("foreign", "b:B"))
    with pytest.raises(RegistrationError, match="a:A and b:B"):
        ExchangeFactory().create("foreign")


async def test_all_are_closed_and_one_failure_stops_nobody():
    """The last made first; afterwards new ones are made."""
    Closing.closed = []
    async with ExchangeFactory() as factory:
        factory.register("c", Closing)
        first = factory.create("c", name="a")
        factory.create("c", name="b", fails=True)
        factory.create("c", name="c")
    assert Closing.closed == ["c", "b", "a"]
    await factory.close()
    assert Closing.closed == ["c", "b", "a"]
    assert factory.create("c", name="a") is not first
