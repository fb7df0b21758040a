"""Exchanges by name: built from configuration, reused, and closed together.

Adapters are named by strings and imported when they are asked for, so that nobody needs the client libraries of
venues they do not use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Self, cast

import attrs
import structlog

from execkit.errors import ConfigurationError, RegistrationError
from execkit.exchanges.base import ExchangeAdapter

GROUP: Final = "execkit.exchanges"
"""Entry-point group in which other packages offer exchanges."""

Target = Callable[..., ExchangeAdapter] | str

log = structlog.get_logger("execkit")


@attrs.frozen
class _Registration:
    target: Target
    extra: str | None


_BUILT_IN: Final = {
    "paper": _Registration("execkit.exchanges.paper:PaperExchange", None),
    "ccxt": _Registration("execkit.exchanges.ccxt.adapter:CCXTAdapter", "ccxt"),
    "binance": _Registration("execkit.exchanges.binance.adapter:BinanceAdapter", "binance"),
    "alpaca": _Registration("execkit.exchanges.alpaca.adapter:AlpacaAdapter", "alpaca"),
    "ibkr": _Registration("execkit.exchanges.ibkr.adapter:IBKRAdapter", "ibkr"),
}
_ALIASES: Final = {"BinanceCCXTAdapter": "BinanceAdapter"}
"""Classes that have a second name."""


class ExchangeFactory:
    """A registry of exchanges that the application owns, with the instances it made.

    Names come from `register`, from the built-in exchanges, and from the entry points of installed packages, in this
    order of precedence; entry points are looked up only when a name is not known otherwise.

        factory = ExchangeFactory()
        exchange = factory.create("paper", balances={"USDT": Decimal(10_000)})
        await factory.close()
    """

    def __init__(self, *, use_entry_points: bool = True) -> None:
        self._registered: dict[str, _Registration] = dict(_BUILT_IN)
        self._use_entry_points = use_entry_points
        self._instances: dict[tuple[str, Hashable], ExchangeAdapter] = {}

    def register(
        self, name: str, target: Target, *, extra: str | None = None, replace: bool = False
    ) -> None:
        """Add an exchange: a class or function that makes one, or the string `module:attribute`.

        *extra* is the extra of execkit that installs its client library. Raises `RegistrationError` for a name that is
        taken, unless *replace* is set.
        """
        if name in self._registered and not replace:
            raise RegistrationError(f"exchange {name!r} is registered already; pass replace=True")
        if not callable(target) and not (isinstance(target, str) and target.count(":") == 1):
            raise RegistrationError(
                f"exchange {name!r}: {target!r} is neither callable nor 'module:attribute'"
            )
        self._registered[name] = _Registration(target, extra)

    @property
    def names(self) -> tuple[str, ...]:
        """All known names, sorted."""
        return tuple(sorted({*self._registered, *self._entry_points()}))

    def create(self, name: str, /, **options: Any) -> ExchangeAdapter:
        """Return the exchange of that name, made with *options*; the same options give the same object.

        Raises `ConfigurationError` for a name or an option that does not exist, an option that is missing, and a
        client library that is not installed; what the exchange itself says of an option's value passes through.
        """
        key = (name, _frozen(options))
        if key not in self._instances:
            maker = self._maker(name)
            _check_options(name, maker, options)
            exchange = maker(**options)
            if not isinstance(exchange, ExchangeAdapter):
                raise RegistrationError(f"exchange {name!r} made {exchange!r}, no ExchangeAdapter")
            self._instances[key] = exchange
        return self._instances[key]

    def create_feed(self, name: str, /, **options: Any) -> ExchangeAdapter:
        """Return an exchange for its public data only: where it can be told so, it reads no key and takes no order.

        Prices are then the live venue's, unless *options* name a sandbox or another server.
        """
        try:
            takes = "data_only" in inspect.signature(self._maker(name)).parameters
        except ValueError:
            takes = False
        return self.create(name, **{**({"data_only": True} if takes else {}), **options})

    async def close(self) -> None:
        """Close every exchange made here, the last one first; one that fails does not stop the others."""
        instances, self._instances = self._instances, {}
        for (name, _), exchange in reversed(instances.items()):
            try:
                await exchange.close()
            except Exception:
                log.exception("exchange.close_failed", venue=name)

    def _maker(self, name: str) -> Callable[..., ExchangeAdapter]:
        found = self._registered.get(name)
        if found is None:
            entry_point = self._entry_points().get(name)
            if entry_point is None:
                raise ConfigurationError(
                    f"exchange: {name!r} is unknown; known are {', '.join(self.names)}"
                )
            found = _Registration(entry_point.value, None)
        if not isinstance(found.target, str):
            return found.target
        return _load(name, found.target, found.extra)

    def _entry_points(self) -> Mapping[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for entry_point in entry_points(group=GROUP) if self._use_entry_points else ():
            other = found.setdefault(entry_point.name, entry_point)
            if other.value != entry_point.value:
                raise RegistrationError(
                    f"exchange {other.name!r} is offered twice: {other.value} and {entry_point.value}"
                )
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"ExchangeFactory({', '.join(self.names)}; {len(self._instances)} made)"


def built_in_class(attribute: str) -> type[ExchangeAdapter] | None:
    """Return the class of that name among the built-in exchanges, or None when there is none.

    Raises `ConfigurationError` when the client library of that venue is not installed.
    """
    attribute = _ALIASES.get(attribute, attribute)
    for name, built_in in _BUILT_IN.items():
        if isinstance(built_in.target, str) and built_in.target.endswith(f":{attribute}"):
            return cast("type[ExchangeAdapter]", _load(name, built_in.target, built_in.extra))
    return None


def _load(name: str, target: str, extra: str | None) -> Callable[..., ExchangeAdapter]:
    module, _, attribute = target.partition(":")
    try:
        maker: Callable[..., ExchangeAdapter] = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if extra is None:
            raise ConfigurationError(f"exchange {name!r}: {error}") from error
        raise ConfigurationError(
            f"exchange {name!r} needs the package {error.name}; install it with: pip install 'execkit[{extra}]'"
        ) from error
    except AttributeError as error:
        raise RegistrationError(f"exchange {name!r}: {error}") from error
    return maker


def _check_options(
    name: str, maker: Callable[..., ExchangeAdapter], options: Mapping[str, object]
) -> None:
    try:
        parameters = inspect.signature(maker).parameters.values()
    except ValueError:
        return  # something built in, whose options nobody can look up
    taken = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in options:
        if option not in taken and not takes_any:
            raise ConfigurationError(
                f"exchange {name!r} has no option {option!r}; it takes {', '.join(taken) or 'none'}"
            )
    for p in parameters:
        if p.name in taken and p.default is p.empty and p.name not in options:
            raise ConfigurationError(f"exchange {name!r} needs the option {p.name!r}")


def _frozen(value: object) -> Hashable:
    """Return a hashable stand-in for an option; objects that cannot be compared stand for themselves."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(_frozen(item) for item in value)
    # The type too, because 1, True and Decimal(1) are equal and may mean different things.
    try:
        hash(value)
    except TypeError:
        return (type(value), id(value))
    return (type(value), value)
