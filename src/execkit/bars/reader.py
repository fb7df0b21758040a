"""Bars from a CSV file, as a stream; a file that is not exactly what it was said to be is refused with its line."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Literal, NoReturn, get_args
from zoneinfo import ZoneInfo

import attrs

from execkit.bars.aggregate import is_aligned
from execkit.errors import ConfigurationError
from execkit.model.instrument import check_symbol
from execkit.model.market import BarData, Timeframe
from execkit.numbers import MONEY, to_decimal

Label = Literal["open", "close"]
Gaps = Literal["refuse", "skip"]
VolumeUnit = Literal["base", "quote"]

FIELDS: Final = ("timestamp", "open", "high", "low", "close", "volume")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,8})?", re.ASCII)
_EIGHT_PLACES: Final = Decimal("1e-8")


def _one_of(_self: object, attribute: attrs.Attribute[str], value: object) -> None:
    if value not in get_args(_CHOICES[attribute.name]):
        known = ", ".join(get_args(_CHOICES[attribute.name]))
        raise ConfigurationError(f"{attribute.name}: {value!r} is unknown; use one of {known}")


_CHOICES: Final[Mapping[str, Any]] = {"label": Label, "gaps": Gaps, "volume_unit": VolumeUnit}


def _timeframe(value: Timeframe | str) -> Timeframe:
    return Timeframe.parse(value)


def _zone(name: str | None) -> tzinfo | None:
    if name is None or name == "UTC":
        return UTC if name else None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise ConfigurationError(
            f"timezone: {name!r} is unknown; use an IANA name such as UTC or America/New_York"
        ) from None


@attrs.frozen(kw_only=True)
class BarFileSpec:
    """What a bar file cannot say of itself."""

    symbol: str = attrs.field()
    timeframe: Timeframe = attrs.field(default=Timeframe.M1, converter=_timeframe)
    label: Label = attrs.field(validator=_one_of)
    """Whether the times in the file are the open or the close of the bars."""
    timezone: str | None = None
    """IANA name that times without an offset are read in; None refuses such times."""
    gaps: Gaps = attrs.field(default="refuse", validator=_one_of)
    volume_unit: VolumeUnit = attrs.field(default="base", validator=_one_of)
    """Quote volumes are divided by the close, to 8 decimal places."""
    columns: Mapping[str, str] = attrs.field(factory=dict)
    """The file's own names of columns, by ours: timestamp, open, high, low, close, volume."""

    @symbol.validator
    def _check_symbol(self, _attribute: attrs.Attribute[str], value: object) -> None:
        check_symbol("symbol", value)

    @columns.validator
    def _check_columns(
        self, _attribute: attrs.Attribute[Mapping[str, str]], value: Mapping[str, str]
    ) -> None:
        for name in value:
            if name not in FIELDS:
                raise ConfigurationError(f"columns: {name!r} is unknown; use {', '.join(FIELDS)}")

    def __attrs_post_init__(self) -> None:
        _zone(self.timezone)


def read_bars(path: str | Path, spec: BarFileSpec) -> Iterator[BarData]:
    """Yield the bars of a `.csv` or `.csv.gz` file, oldest first, as they are read.

    The first line names the columns. Raises `ConfigurationError` naming file, line and fix for a file that cannot be
    read, a malformed row, an impossible bar, a bar off the grid of its timeframe, a duplicate, a bar out of order, and
    a gap unless *gaps* is `skip`.
    """
    path = Path(path)
    line = 0
    try:
        with _open(path) as file:
            rows = csv.reader(file, strict=True)
            places = _places(path, next(rows, []), spec)
            parse = _RowParser(path, spec, places)
            line = rows.line_num
            for row in rows:
                line = rows.line_num
                if row:
                    yield parse(row, line)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigurationError(
            f"{path}:{line + 1}: cannot be read: {reason}; it must be a whole CSV file, plain or .gz"
        ) from error


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _places(path: Path, header: Sequence[str], spec: BarFileSpec) -> list[int]:
    """Find the column of each field."""
    names = [name.strip().lower() for name in header]
    places = []
    for field in FIELDS:
        wanted = spec.columns.get(field, field).lower()
        if names.count(wanted) != 1:
            raise ConfigurationError(
                f"{path}:1: needs one column {wanted!r}, found: {', '.join(header) or 'an empty file'}; "
                f"name it in the header, or state columns: {{{field}: NAME}}"
            )
        places.append(names.index(wanted))
    return places


class _RowParser:
    """Turns rows into bars and watches their order."""

    def __init__(self, path: Path, spec: BarFileSpec, places: Sequence[int]) -> None:
        self.path = path
        self.spec = spec
        self.places = places
        self.width = max(places) + 1
        self.zone = _zone(spec.timezone)
        self.step = spec.timeframe.duration
        self.shift = self.step if spec.label == "open" else timedelta(0)
        self.last: datetime | None = None

    def __call__(self, row: Sequence[str], line: int) -> BarData:
        if len(row) < self.width:
            self._fail(line, f"has {len(row)} columns, expected {self.width}; is the row cut off?")
        stamp, *texts = [row[place].strip() for place in self.places]
        close_time = self._time(stamp, line)
        values = [
            Decimal(text) if _NUMBER.fullmatch(text) else self._number(name, text, line)
            for name, text in zip(FIELDS[1:], texts, strict=True)
        ]
        first, high, low, last, volume = values
        # Most rows are right: these comparisons are quick, and the slow check finds the words for the others.
        if not (0 < low <= first <= high and low <= last <= high and volume >= 0):
            self._refuse(values, close_time, line)
        if self.spec.volume_unit == "quote":
            volume = MONEY.divide(volume, last).quantize(_EIGHT_PLACES)
        self._in_order(close_time, line)
        spec = self.spec
        return BarData(spec.symbol, spec.timeframe, close_time, first, high, low, last, volume)

    def _time(self, text: str, line: int) -> datetime:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self._fail(line, f"timestamp {text!r} is no ISO time, e.g. 2022-01-01 00:01:00")
        if at.tzinfo is not None:
            return at.astimezone(UTC) + self.shift
        if self.zone is UTC:
            return at.replace(tzinfo=UTC) + self.shift
        if self.zone is None:
            self._fail(
                line, f"timestamp {text!r} has no time zone; state timezone: UTC, or another"
            )
        local = at.replace(tzinfo=self.zone)
        if local.utcoffset() != local.replace(fold=1).utcoffset():
            self._fail(
                line,
                f"timestamp {text!r} names no single moment in {self.spec.timezone}, where clocks are set; "
                "use UTC times",
            )
        return local.astimezone(UTC) + self.shift

    def _number(self, name: str, text: str, line: int) -> Decimal:
        try:
            return to_decimal(name, text)
        except ConfigurationError as error:
            self._fail(line, f"{error}")

    def _refuse(self, values: Sequence[Decimal], close_time: datetime, line: int) -> None:
        try:
            BarData(self.spec.symbol, self.spec.timeframe, close_time, *values).checked()
        except ConfigurationError as error:
            self._fail(line, f"{error}; correct or remove the row")

    def _in_order(self, close_time: datetime, line: int) -> None:
        last, self.last = self.last, close_time
        if last is not None and close_time == last + self.step:
            return
        shown = (close_time - self.shift).isoformat(sep=" ")
        if not is_aligned(close_time, self.spec.timeframe):
            self._fail(
                line, f"{shown} is no boundary of {self.spec.timeframe} bars; check timeframe"
            )
        if last is None:
            return
        if close_time == last:
            self._fail(line, f"{shown} is a duplicate of the row before; remove one")
        if close_time < last:
            self._fail(line, f"{shown} is out of order; sort the file by time")
        if self.spec.gaps == "refuse":
            missing = (close_time - last) // self.step - 1
            self._fail(
                line, f"{missing} bars are missing before {shown}; add them, or state gaps: skip"
            )

    def _fail(self, line: int, text: str) -> NoReturn:
        raise ConfigurationError(f"{self.path}:{line}: {text}")
