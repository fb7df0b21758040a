"""What configuration, plans and function parameters share: exact numbers, no coercion, errors in our words.

pydantic stays at the edges; this is the edge's one vocabulary.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from execkit.errors import ConfigurationError
from execkit.model.instrument import check_symbol
from execkit.model.market import Timeframe
from execkit.numbers import plain, to_decimal

if TYPE_CHECKING:
    # mypy wants to see the class; at run time its private home does not matter.
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Path = tuple[str | int, ...]
"""Way to a value inside nested settings, e.g. `("entry", 0, "parameters")`."""

M = TypeVar("M", bound=BaseModel)

_MICROSECONDS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}


class _OurErrors(ModelMetaclass):
    """Makes `Settings(...)` in code raise our error; validation of nested values does not come through here."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise ConfigurationError(_describe(self, error, _nowhere)) from None


class Section(BaseModel, metaclass=_OurErrors):
    """Base of all settings: frozen, unknown keys refused, no type turned into another.

    Wrong values raise `ConfigurationError`. A field annotated `Decimal` takes a `Decimal` or an `int`; a float is
    refused because it is not exact, and a string because `0123` and `12:30` are strings too.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _exact_decimals(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is None or (annotation is not Decimal and Decimal not in get_args(annotation)):
            return value
        return _exact(value)


def _exact(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"{value!r} is text, not a number; write it plainly, e.g. 12.5")  # noqa: TRY004 - pydantic's
    return _or_value_error(to_decimal, value)


def _or_value_error(check: Callable[[str, Any], Any], value: Any) -> Any:
    """Run one of our checks so that pydantic reports its message under the field's own path."""
    try:
        return check("value", value)
    except ConfigurationError as error:
        raise ValueError(str(error).removeprefix("value: ")) from None


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write a number and a unit, e.g. 10s, 500ms")
    return timedelta(microseconds=int(Decimal(match[1]) * _MICROSECONDS[match[2]]))


def _timeframe(_field: str, value: Any) -> Timeframe:
    return Timeframe.parse(value)


def check_name(field: str, value: object) -> str:
    """Return *value* when it is a plain name, else raise `ConfigurationError`; names travel into ids and files."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", value):
        raise ConfigurationError(
            f"{field}: {value!r} is not a name; use 1 to 60 letters, digits, '_', '.' or '-', e.g. breakout"
        )
    return value


Number = Annotated[Decimal, BeforeValidator(_exact)]
"""An exact `Decimal`; needed inside lists and dicts, where `Section` does not look."""
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
"""A `timedelta`, written `10s`, `500ms`, `2m`, `1h` or `1d`."""
SymbolName = Annotated[str, BeforeValidator(partial(_or_value_error, check_symbol))]
Name = Annotated[str, BeforeValidator(partial(_or_value_error, check_name))]
Frame = Annotated[Timeframe, BeforeValidator(partial(_or_value_error, _timeframe))]
"""A `Timeframe`, written `1h` or `1hour`."""


def _nowhere(_path: Path) -> str:
    return ""


def checked(model: type[M], data: object, *, where: Callable[[Path], str] = _nowhere) -> M:
    """Build *model* from plain data, or raise `ConfigurationError`.

    The message has one line for each wrong value: *where* it stands, its path, what is wrong and the fix.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        text = _describe(model, error, where)
    raise ConfigurationError(text)


def _describe(model: Any, error: ValidationError, where: Callable[[Path], str]) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems:
        at = problem["loc"]
        if problem["type"] == "too_short" and any(
            other["loc"][: len(at)] == at and other is not problem for other in problems
        ):
            continue  # a list seems too short only because what is wrong in it does not count
        path, text = _located(model, problem["loc"], _explain(model, problem))
        lines.append(f"{where(path)}{path_text(path)}: {text}")
    return "\n".join(lines)


_KEY: Final = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.+)", re.DOTALL)


def _located(model: type[BaseModel], path: Path, text: str) -> tuple[Path, str]:
    """Move the key that a text names, as a check of several values does, from the text into the path."""
    named = _KEY.fullmatch(text)
    if named is None:
        return path, text
    parts = re.findall(r"[a-z_]+|\d+", named[1])
    if parts[0] not in set(_keys_at(model, path)):
        return path, text
    return (*path, *(int(part) if part.isdigit() else part for part in parts)), named[2]


def path_text(path: Path) -> str:
    """Write a path the way people do: `entry[0].parameters.threshold_price`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(top)"


def _explain(model: type[BaseModel], problem: Any) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = sorted(_keys_at(model, problem["loc"][:-1]))
        key = str(problem["loc"][-1])
        close = difflib.get_close_matches(key, known, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        return f"unknown key{meant} Known here: {', '.join(known) or 'none'}"
    if kind == "missing":
        return "is missing; add it"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind in ("model_type", "dict_type"):
        return f"{_short(value)} is not a mapping; write indented `key: value` lines"
    text = _WORDS.get(kind) or problem["msg"].removeprefix("Input should be ")
    return f"{_short(value)} is wrong; it should be {text}"


_WORDS: Final = {
    "tuple_type": "a list",
    "list_type": "a list",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
}


def _short(value: object) -> str:
    text = plain(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_at(model: type[BaseModel], path: Path) -> Iterator[str]:
    """Find the keys that are allowed at *path*, for the message about one that is not."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and found is not None:
            field = found.model_fields.get(part)
            found = None if field is None else _model_in(field.annotation)
    if found is not None:
        yield from (field.alias or name for name, field in found.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
