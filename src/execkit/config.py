"""One file for everything an engine needs, checked before any connection is made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PrivateAttr, SecretStr

from execkit.clock import Clock
from execkit.config_yaml import YamlFile, load_yaml, scalar
from execkit.errors import ConfigurationError
from execkit.functions.builtin import standard_registry
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.guard_settings import (
    BreakerSettings,
    ConfirmationSettings,
    MarketHoursSettings,
    NotifySettings,
    RateLimitSettings,
    with_guards,
)
from execkit.model.fields import Count, Duration, Name, Section, checked, path_text
from execkit.model.fields import Path as KeyPath
from execkit.pipeline import ExecutionPipeline
from execkit.plans import TradePlan, load_plans
from execkit.redaction import keep_secret
from execkit.settings import (
    ExecutorSettings,
    LiveSettings,
    ProtectionSettings,
    ReconciliationSettings,
    RiskSettings,
    ValidationSettings,
    build_pipeline,
)

PREFIX: Final = "EXECKIT_"

OVERRIDES: Final[Mapping[str, KeyPath]] = {
    "EXECKIT_CURRENCY": ("currency",),
    "EXECKIT_EXCHANGE_NAME": ("exchange", "name"),
    "EXECKIT_JOURNAL_DURABILITY": ("journal", "durability"),
    "EXECKIT_JOURNAL_PATH": ("journal", "path"),
}
"""What the environment may change. No limit is among them: a forgotten variable must not loosen one."""

SECRETS: Final[Mapping[str, str]] = {
    "api_key": "API_KEY",
    "secret": "API_SECRET",
    "password": "API_PASSWORD",
}
"""What an exchange may need, by its adapter's argument, and how the variable `<EXCHANGE>_…` with it ends."""

_NO_SETTINGS: Final = frozenset({"EXECKIT_NOTIFY_URLS"})
"""Variables that begin like the name of a key and hold a secret that is none."""

_SECRET_KEY: Final = re.compile(
    r"(.*_)?(api_?key|(api_?)?secret|password|passphrase|token|private_?key)", re.IGNORECASE
)


class ExchangeSettings(Section):
    """Which exchange, and its adapter's options."""

    name: Name = "paper"
    options: dict[str, Any] = Field(default_factory=dict)


class JournalSettings(Section):
    """Where the truth is kept. A relative path starts at the configuration file."""

    path: str = "orders.db"
    durability: Literal["power", "process"] = "power"
    anchors: str | None = None
    """File in which it is noted how far the journal has come; best where its writer cannot change it."""
    anchor_every: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=1)


class FunctionSettings(Section):
    """Which execution functions may run."""

    plugins: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Plug-ins to load, by exact name."""
    allow_list: (
        dict[str, Annotated[str, Field(pattern=re.compile(r"^[0-9a-fA-F]{64}$"))]] | None
    ) = None
    """SHA-256 of each plug-in's source file; None checks nothing."""
    max_instances: dict[str, Count] = Field(default_factory=dict)
    disabled: Annotated[tuple[Name, ...], Field(strict=False)] = ()


class Config(Section):
    """The configuration of an engine.

    `Config.load("execkit.yaml")` reads it from a file and the environment. Secrets come from the environment only and
    are never part of it, its text or its hash.
    """

    exchange: ExchangeSettings = ExchangeSettings()
    currency: str | None = None
    """Asset in which limits are counted; None: the engine chooses."""
    journal: JournalSettings = JournalSettings()
    reconcile_every: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=60)
    risk: RiskSettings = RiskSettings()
    validation: ValidationSettings = ValidationSettings()
    executor: ExecutorSettings = ExecutorSettings()
    reconciliation: ReconciliationSettings = ReconciliationSettings()
    protection: ProtectionSettings = ProtectionSettings()
    market_hours: MarketHoursSettings | None = None
    """When entries go out; None: whenever there is a signal, and the venue decides."""
    rate_limit: RateLimitSettings | None = None
    """How many entries may be sent; None: as many as the venue takes."""
    breaker: BreakerSettings | None = None
    """When entries stop after failures in a row; None: never."""
    confirmation: ConfirmationSettings | None = None
    """What a person is asked about at the terminal; None: nothing."""
    functions: FunctionSettings = FunctionSettings()
    plans: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Files of trade plans. A relative path starts at the configuration file."""
    live: LiveSettings = LiveSettings()
    """How the venue's bars are followed when the plans run, as by `execkit run`."""
    store: bool = True
    """Whether the SQLite projection is kept beside the journal."""
    control: bool = True
    """Whether commands are taken from other processes."""
    notify: NotifySettings | None = None
    """What is told to the addresses in EXECKIT_NOTIFY_URLS; None: nothing."""
    halt_file: str | None = None
    """No entry leaves while this file exists; None: the journal's path with `.halt` added."""
    halt_on_signal: bool = False
    """Whether SIGUSR1 halts."""
    dead_man: Annotated[Duration, Field(ge=timedelta(seconds=1))] | None = None
    """How long after the last word of the engine the venue cancels all orders, stops too, where it can."""

    _folder: Path = PrivateAttr(default=Path())
    _secrets: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, env: Mapping[str, str] | None = None) -> Config:
        """Read a file, let the environment override what it may, and check everything.

        Raises `ConfigurationError` naming file, line, key and fix, one line for each wrong value.
        """
        env = os.environ if env is None else env
        file = load_yaml(path)
        _refuse_secrets(file)
        changed = _override(file.values, env)

        def where(key: KeyPath) -> str:
            return f"{changed[key]}: " if key in changed else file.where(key)

        config = checked(cls, file.values, where=where)
        config._folder = file.path.parent  # noqa: SLF001 - our own
        config._secrets = {  # noqa: SLF001
            name: SecretStr(env[variable])
            for name in SECRETS
            if (variable := secret_variable(config.exchange.name, name)) in env
        }
        keep_secret(*(secret.get_secret_value() for secret in config.secrets.values()))
        return config

    @property
    def hash(self) -> str:
        """Digest of the effective values, for the audit; two engines with one hash do the same."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def secrets(self) -> Mapping[str, SecretStr]:
        """The exchange's secrets that the environment holds, by the adapter's argument name."""
        return dict(self._secrets)

    @property
    def journal_path(self) -> Path:
        """Where the journal is."""
        return self._folder / self.journal.path

    @property
    def anchors_path(self) -> Path | None:
        """Where anchors go, if anywhere."""
        return None if self.journal.anchors is None else self._folder / self.journal.anchors

    @property
    def halt_path(self) -> Path | None:
        """Which file halts, if another than the one beside the journal."""
        return None if self.halt_file is None else self._folder / self.halt_file

    def pipeline(self) -> ExecutionPipeline:
        """Return the standard chain with these settings and the guards that are stated."""
        chain = build_pipeline(
            risk=self.risk,
            validation=self.validation,
            executor=self.executor,
            reconciliation=self.reconciliation,
        )
        return with_guards(
            chain,
            market_hours=self.market_hours,
            rate_limit=self.rate_limit,
            breaker=self.breaker,
            confirmation=self.confirmation,
        )

    def registry(self, *, clock: Clock | None = None) -> ExecutionFunctionRegistry:
        """Return a registry with the built-in functions and the plug-ins, as far as they are enabled.

        Raises `RegistrationError` for a plug-in that is missing, not allowed or changed.
        """
        settings = self.functions
        registry = standard_registry(clock=clock, max_instances=settings.max_instances)
        registry.load_plugins(settings.plugins, allowed=settings.allow_list)
        for key, names in (
            ("max_instances", settings.max_instances),
            ("disabled", settings.disabled),
        ):
            for name in names:
                if name not in registry:
                    raise ConfigurationError(
                        f"functions.{key}: {name!r} is unknown; there are: {', '.join(registry)}"
                    )
        for name in settings.disabled:
            registry.disable(name, actor="configuration")
        return registry

    def load_plans(
        self, functions: ExecutionFunctionRegistry | None = None
    ) -> tuple[TradePlan, ...]:
        """Read the files of the trade plans; with *functions* their parameters are checked too.

        Raises `ConfigurationError` for a plan that states other risk than this configuration: it would not count.
        """
        plans = tuple(
            plan
            for path in self.plans
            for plan in load_plans(self._folder / path, functions=functions)
        )
        for plan in plans:
            for name, value in plan.stated_risk().items():
                if value != getattr(self.risk, name):
                    raise ConfigurationError(
                        f"plans: {plan.name!r} states risk.{name}, and the risk of this configuration is the one that "
                        f"counts; state {name} under risk: here, and leave it out of the plan or make it the same"
                    )
        return plans


def secret_variable(exchange: str, name: str) -> str:
    """Return the environment variable of an exchange's secret, e.g. `BINANCE_API_KEY`."""
    return re.sub(r"[^A-Z0-9]", "_", f"{exchange}_{SECRETS[name]}".upper())


def _refuse_secrets(file: YamlFile) -> None:
    exchange = file.values.get("exchange")
    name = exchange.get("name", "paper") if isinstance(exchange, dict) else "paper"
    for path in _keys(file.values):
        if path[0] != "functions" and _SECRET_KEY.fullmatch(str(path[-1])):
            raise ConfigurationError(
                f"{file.where(path)}{path_text(path)}: a secret does not belong in a file; remove it here and set the "
                f"environment variable {secret_variable(str(name), _secret_name(str(path[-1])))}"
            )


def _secret_name(key: str) -> str:
    """Return which of `SECRETS` a key in a file was meant to be."""
    key = key.lower()
    if "passphrase" in key or "password" in key:
        return "password"
    return "secret" if "secret" in key or "private" in key else "api_key"


def _keys(values: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items: Any = ()
    if isinstance(values, dict):
        items = values.items()
        yield from ((*path, key) for key in values)
    elif isinstance(values, list):
        items = enumerate(values)
    for key, value in items:
        yield from _keys(value, (*path, key))


def _override(values: dict[str, Any], env: Mapping[str, str]) -> dict[KeyPath, str]:
    """Put what the environment says into *values*; return which variable changed which key."""
    changed: dict[KeyPath, str] = {}
    for variable in sorted(env):
        path = OVERRIDES.get(variable)
        if variable in _NO_SETTINGS:
            continue
        if path is None:
            name = variable.removeprefix(PREFIX).lower()
            if variable.startswith(PREFIX) and any(
                f"{name}_".startswith(f"{key}_") for key in Config.model_fields
            ):
                raise ConfigurationError(
                    f"{variable}: the environment may not change this; state it in the file. "
                    f"It may set {', '.join(OVERRIDES)}"
                )
            continue
        inner = values
        for key in path[:-1]:
            inner = inner.setdefault(str(key), {})
            if not isinstance(inner, dict):
                break
        else:
            inner[str(path[-1])] = scalar(env[variable])
            changed[path] = variable
    return changed
