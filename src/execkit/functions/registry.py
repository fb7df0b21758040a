"""Names for execution functions. A registry is an object that the application owns; what happens to it is audited."""

from __future__ import annotations

import gc
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary, ref

import msgspec

from execkit.clock import Clock, SystemClock
from execkit.errors import ConfigurationError, RegistrationError
from execkit.functions.base import (
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
    Part,
)
from execkit.model.fields import Path as KeyPath
from execkit.model.fields import check_name, checked, path_text
from execkit.model.market import Timeframe
from execkit.model.records import RegistryChanged

GROUP: Final = "execkit.functions"
"""Entry-point group of plug-ins."""

FunctionClass = type[ExecutionFunctionBase[Any]]
PlainFunction = Callable[[ExecutionContext], Awaitable[ExecutionSignal]]
T = TypeVar("T", bound=FunctionClass | PlainFunction)
Sink = Callable[[RegistryChanged], object]


class RegistryEntry(msgspec.Struct, frozen=True):
    """One change of a registry, and when it happened."""

    at: datetime
    change: RegistryChanged


class _Registered:
    """What is known of one name."""

    __slots__ = ("enabled", "function", "instances", "max_instances", "shared", "timeframes")

    def __init__(
        self,
        function: FunctionClass,
        timeframes: frozenset[Timeframe],
        max_instances: int | None,
    ) -> None:
        self.function = function
        self.timeframes = timeframes
        self.max_instances = max_instances
        self.enabled = True
        self.instances: list[ref[ExecutionFunctionBase[Any]]] = []
        self.shared: WeakValueDictionary[str, ExecutionFunctionBase[Any]] = WeakValueDictionary()
        """Living instances that may serve another rule, by their parameters."""

    def is_full(self, limit: int) -> bool:
        """Tell whether *limit* instances are alive."""
        if len(self.instances) >= limit:
            gc.collect()  # one that is only kept by a circle is not in use
            self.instances = [instance for instance in self.instances if instance() is not None]
        return len(self.instances) >= limit


class ExecutionFunctionRegistry:
    """Execution functions by name.

    >>> registry = ExecutionFunctionRegistry()
    >>> @registry.register("always_wait", timeframes=("1h",))
    ... async def always_wait(context: ExecutionContext) -> ExecutionSignal:
    ...     return ExecutionSignal.none("waiting")
    >>> "always_wait" in registry, len(registry), list(registry)
    (True, 1, ['always_wait'])
    >>> registry
    ExecutionFunctionRegistry(always_wait)
    >>> registry.disable("always_wait", actor="operator")
    >>> registry
    ExecutionFunctionRegistry(always_wait (disabled))
    >>> [(entry.change.action, entry.change.actor) for entry in registry.changes]
    [('register', 'application'), ('disable', 'operator')]

    *max_instances* limits how many instances of a name may live at once, over what its registration says. Every
    change is kept in `changes` with who and when.
    """

    def __init__(
        self, *, clock: Clock | None = None, max_instances: Mapping[str, int] | None = None
    ) -> None:
        self.changes: list[RegistryEntry] = []
        self._clock = clock or SystemClock()
        self._limits = dict(max_instances or {})
        self._functions: dict[str, _Registered] = {}
        self._sinks: list[Sink] = []

    # -- what is there ---------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._functions))

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        names = [name if self.is_enabled(name) else f"{name} (disabled)" for name in self]
        return f"ExecutionFunctionRegistry({', '.join(names)})"

    def is_enabled(self, name: str) -> bool:
        """Tell whether a function may be asked. Raises `RegistrationError` for an unknown name."""
        return self._find(name).enabled

    # -- changes ---------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        *,
        timeframes: Iterable[str | Timeframe] = (),
        params: type[FunctionParams] = FunctionParams,
        max_instances: int | None = None,
        replace: bool = False,
        actor: str = "application",
    ) -> Callable[[T], T]:
        """Register the decorated class or async function under *name*.

        *timeframes* are the only ones it may be used in; none means all. *params* is the model of a plain function's
        parameters; a class names its own. Raises `RegistrationError` for a name in use, unless *replace* is True,
        and for anything that is no execution function.
        """
        check_name("name", name)
        allowed = frozenset(Timeframe.parse(each) for each in timeframes)

        def decorate(target: T) -> T:
            known = name in self._functions
            if known and not replace:
                raise RegistrationError(
                    f"function {name!r} is registered already; choose another name or pass replace=True"
                )
            self._functions[name] = _Registered(
                _as_class(name, target, params), allowed, max_instances
            )
            where = f"{target.__module__}.{target.__qualname__}"
            self._note(name, "replace" if known else "register", actor, where)
            return target

        return decorate

    def enable(self, name: str, *, actor: str = "application", reason: str = "") -> None:
        """Let a function be asked again."""
        self._switch(name, "enable", actor, reason)

    def disable(self, name: str, *, actor: str = "application", reason: str = "") -> None:
        """Stop asking a function, in all plans, from the next bar on."""
        self._switch(name, "disable", actor, reason)

    def _switch(self, name: str, action: str, actor: str, reason: str) -> None:
        self._find(name).enabled = action == "enable"
        self._note(name, action, actor, reason)

    def _note(self, name: str, action: str, actor: str, detail: str) -> None:
        change = RegistryChanged(name=name, action=action, actor=actor, detail=detail)
        self.changes.append(RegistryEntry(self._clock.now(), change))
        for sink in self._sinks:
            sink(change)

    def attach(self, sink: Sink) -> None:
        """Tell *sink*, e.g. a journal, every change: those so far at once, later ones as they happen."""
        for entry in self.changes:
            sink(entry.change)
        self._sinks.append(sink)

    def detach(self, sink: Sink) -> None:
        """Tell *sink* nothing more."""
        self._sinks = [each for each in self._sinks if each != sink]

    def reset(self) -> None:
        """Forget everything; for tests that use `default_registry`."""
        self._functions.clear()
        self._sinks.clear()
        self.changes.clear()

    # -- use -------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        parameters: FunctionParams | Mapping[str, Any] | None = None,
        *,
        timeframe: Timeframe | None = None,
    ) -> ExecutionFunctionBase[Any]:
        """Return an instance with validated parameters; a disabled function can be made, but is not asked.

        It is new, unless the function's class is `shared` and one with equal parameters lives. Raises as `check`
        does, and `RegistrationError` when as many instances live as may.
        """
        found = self._find(name)
        params = self.check(name, parameters, timeframe=timeframe)
        key = repr(params)
        known = found.shared.get(key)
        if known is not None:
            return known
        limit = self._limits.get(name, found.max_instances)
        if limit is not None and found.is_full(limit):
            raise RegistrationError(
                f"function {name!r} has {limit} instances, as many as max_instances allows; raise it or use fewer"
            )
        parts = [
            self.create(part.function, part.parameters, timeframe=timeframe)
            for _, part in found.function.parts_of(params)
        ]
        instance = found.function.build(params, parts)
        found.instances.append(ref(instance))
        if instance.shared:
            found.shared[key] = instance
        return instance

    def names_in(self, name: str, params: FunctionParams) -> frozenset[str]:
        """Return the name and those of all functions that it asks with these parameters, directly or in turn."""
        names = {name}
        for _, part in self._find(name).function.parts_of(params):
            names |= self.names_in(part.function, self.check(part.function, part.parameters))
        return frozenset(names)

    def check(
        self,
        name: str,
        parameters: FunctionParams | Mapping[str, Any] | None = None,
        *,
        timeframe: Timeframe | None = None,
        where: Callable[[KeyPath], str] | None = None,
    ) -> FunctionParams:
        """Return the parameters as the function's model.

        Raises `RegistrationError` for an unknown name or a timeframe it is not made for, and `ConfigurationError`
        naming a wrong parameter, also of a function that it asks in turn; *where* says where that stands, for the
        message.
        """
        where = where or (lambda _path: f"{name}: ")
        found = self._find(name)
        if timeframe is not None and found.timeframes and timeframe not in found.timeframes:
            made_for = ", ".join(map(str, sorted(found.timeframes, key=lambda t: t.seconds)))
            raise RegistrationError(f"function {name!r} is made for {made_for}, not {timeframe}")
        model = found.function.params_model
        if not isinstance(parameters, FunctionParams):
            params = checked(model, dict(parameters or {}), where=where)
        elif type(parameters) is model:
            params = parameters
        else:
            raise ConfigurationError(
                f"{name}: parameters are {type(parameters).__name__}, expected {model.__name__}"
            )
        for path, part in found.function.parts_of(params):
            self._check_part(path, part, timeframe, where)
        return params

    def _check_part(
        self,
        path: KeyPath,
        part: Part,
        timeframe: Timeframe | None,
        where: Callable[[KeyPath], str],
    ) -> None:
        inside = (*path, "parameters")
        try:
            self.check(
                part.function,
                part.parameters,
                timeframe=timeframe,
                where=lambda inner: f"{where(inside + inner)}{path_text(inside)}.",
            )
        except RegistrationError as error:
            raise ConfigurationError(f"{where(path)}{path_text(path)}: {error}") from None

    def _find(self, name: str) -> _Registered:
        found = self._functions.get(name)
        if found is None:
            known = ", ".join(self) or "none"
            raise RegistrationError(f"function {name!r} is unknown; registered are: {known}")
        return found

    # -- plug-ins --------------------------------------------------------------------------------------

    def load_plugins(
        self, names: Iterable[str], *, allowed: Mapping[str, str] | None = None
    ) -> None:
        """Register plug-ins of the entry-point group `execkit.functions`, only those that are named.

        With *allowed* (name -> SHA-256 of the module's source file, in hex) a plug-in that is not listed or whose
        source differs is refused before any of its code runs. Raises `RegistrationError`.
        """
        offered: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=GROUP):
            offered.setdefault(point.name, []).append(point)
        for name in names:
            points = offered.get(name, [])
            if len(points) != 1:
                many = ", ".join(sorted(_origin(point) for point in points))
                raise RegistrationError(
                    f"plug-in {name!r} is offered by several: {many}; uninstall all but one"
                    if points
                    else f"plug-in {name!r} is not installed; offered are: {', '.join(sorted(offered)) or 'none'}"
                )
            if allowed is not None:
                _check_source(points[0], allowed.get(name))
            target = points[0].load()
            self.register(name, actor=f"plugin:{_origin(points[0])}")(target)


def _origin(point: EntryPoint) -> str:
    return point.value if point.dist is None else f"{point.dist.name}=={point.dist.version}"


def _check_source(point: EntryPoint, expected: str | None) -> None:
    if expected is None:
        raise RegistrationError(f"plug-in {point.name!r} is not on the allow-list; add its SHA-256")
    source = _source_of(point.module)
    if source is None:
        raise RegistrationError(f"plug-in {point.name!r}: no source file of {point.module} found")
    actual = hashlib.sha256(source.read_bytes()).hexdigest()
    if actual != expected.lower():
        raise RegistrationError(
            f"plug-in {point.name!r}: {source} has SHA-256 {actual}, the allow-list says {expected}; "
            "review the change before you allow it"
        )


def _source_of(module: str) -> Path | None:
    """Find the file of a module without importing it or the packages around it."""
    path: Iterable[str] | None = None
    origin = None
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), path)  # type: ignore[arg-type]
        if spec is None:
            return None
        path, origin = spec.submodule_search_locations, spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _as_class(name: str, target: Any, params: type[FunctionParams]) -> FunctionClass:
    if inspect.isclass(target) and issubclass(target, ExecutionFunctionBase):
        if inspect.isabstract(target):
            raise RegistrationError(f"function {name!r}: {target.__name__} has no evaluate()")
        if not inspect.iscoroutinefunction(target.evaluate):
            raise RegistrationError(
                f"function {name!r}: {target.__name__}.evaluate must be `async def`"
            )
        return target
    if not inspect.iscoroutinefunction(target) or len(inspect.signature(target).parameters) != 1:
        raise RegistrationError(
            f"function {name!r}: {target!r} is neither an ExecutionFunctionBase class nor an "
            "`async def` function of one argument, the context"
        )

    class Plain(ExecutionFunctionBase[FunctionParams]):
        params_model = params
        shared = True

        async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
            answer: ExecutionSignal = await target(context)
            return answer

    Plain.__name__ = Plain.__qualname__ = name
    return Plain


default_registry = ExecutionFunctionRegistry()
"""For scripts; an application owns a registry of its own."""

register = default_registry.register
"""Register in `default_registry`: `@register("breakout", timeframes=("1h",))`."""
