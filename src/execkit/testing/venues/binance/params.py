"""The parameters of a request: what must be there, what may, and what they may look like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Final

from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.order import Side, TimeInForce
from execkit.testing.venues.binance.errors import missing, refuse

_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_INTEGER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}", re.ASCII)
_SIGNING: Final = frozenset({"timestamp", "recvWindow", "signature", "apiKey"})


class Params:
    """The parameters of one request, read by name; `done` refuses what nobody has read."""

    def __init__(self, values: Mapping[str, str], core: MatchingCore) -> None:
        self.values = {name: value for name, value in values.items() if name not in _SIGNING}
        self._sent = len(values)
        self._read: set[str] = set()
        self._core = core

    def __contains__(self, name: str) -> bool:
        return bool(self.values.get(name))

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; without a default it is mandatory."""
        self._read.add(name)
        value = self.values.get(name) or default
        if value is None:
            missing(name)
        return value

    def maybe(self, name: str) -> str | None:
        """Return a text that may be missing."""
        self._read.add(name)
        return self.values.get(name) or None

    def word(
        self, name: str, allowed: Collection[str], code: int, default: str | None = None
    ) -> str:
        """Return one of a few words."""
        value = self.text(name, default)
        if value not in allowed:
            refuse(code)
        return value

    def number(self, name: str) -> Decimal | None:
        """Return a number without sign and exponent that may be missing."""
        value = self.maybe(name)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            self._illegal(name, r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
        return Decimal(value)

    def integer(self, name: str) -> int | None:
        """Return a whole number that may be missing."""
        value = self.maybe(name)
        if value is None:
            return None
        if not _INTEGER.fullmatch(value):
            self._illegal(name, "^[0-9]{1,20}$")
        return int(value)

    def client_id(self, name: str) -> str | None:
        """Return a client order id that may be missing."""
        value = self.maybe(name)
        if value is not None and not _CLIENT_ID.fullmatch(value):
            self._illegal(name, "^[.A-Z:/a-z0-9_-]{1,36}$")
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value, by default false."""
        return self.text(name, "false").lower() == "true"

    def side(self, name: str = "side") -> Side:
        """Return the mandatory side."""
        return Side.BUY if self.word(name, ("BUY", "SELL"), -1117) == "BUY" else Side.SELL

    def time_in_force(self, name: str, *, default: str | None = None) -> TimeInForce:
        """Return a time in force."""
        value = self.word(name, ("GTC", "IOC", "FOK"), -1115, default)
        return TimeInForce(value.lower())

    def instrument(self) -> Instrument:
        """Return the market of the mandatory symbol."""
        return self.listed(self.text("symbol"))

    def listed(self, name: str) -> Instrument:
        """Return the market that Binance calls so."""
        if not re.fullmatch(r"[A-Z0-9-_.]{1,20}", name, re.ASCII):
            self._illegal("symbol", "^[A-Z0-9-_.]{1,20}$")
        listed = self._core.instruments.values()
        return next((each for each in listed if each.venue_symbol == name), None) or refuse(-1121)

    def ignore(self, *names: str) -> None:
        """Take parameters that change nothing here."""
        self._read.update(names)

    def done(self) -> None:
        """Refuse parameters that nobody has read."""
        unread = self.values.keys() - self._read
        if unread:
            refuse(
                -1104,
                "Not all sent parameters were read; read "
                f"'{self._sent - len(unread)}' parameter(s) but was sent '{self._sent}'.",
            )

    @staticmethod
    def _illegal(name: str, pattern: str) -> None:
        refuse(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'."
        )


def check_precision(name: str, value: Decimal | None, places: int, text: str | None = None) -> None:
    """Refuse a number with more places than the symbol has."""
    if value is not None and -int(value.normalize().as_tuple().exponent) > places:
        refuse(-1111, text, name=name)


def unwanted(name: str) -> None:
    """Refuse a parameter that does not belong to this kind of order."""
    refuse(-1106, f"Parameter '{name}' sent when not required.")
