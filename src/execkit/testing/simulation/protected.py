"""The watch over protection (I12): how long a position may rest without a stop, and what may excuse it, and how long.

An excuse ends: what somebody else did to a position is known after a comparison, and a fault is over once the venue
answers again. How many looks were judged is counted, because a watch that is always excused shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from execkit.model.order import OrderState
from execkit.numbers import ZERO

if TYPE_CHECKING:
    from execkit.testing.simulation.chaos import Chaos
    from execkit.testing.simulation.process import Process
    from execkit.testing.simulation.venue import SimVenue

WITHIN: Final = 21.0
"""Seconds a position may be without protection while the venue answers: 5 to protect it, 15 to begin to flatten."""
AFTERMATH: Final = 45.0
"""Seconds after a fault in which it may still explain a delay: a time-out, and the longest wait between two tries."""
AT_MOST: Final = 90.0
"""Seconds without protection that no passing fault explains, unless the symbol is blocked, or someone who has released
it was told of late."""
FADES: Final = 120.0
"""Seconds from the venue's first true answer on within which everything is known again, and excuses nothing more."""
TOLD: Final = 60.0
"""Seconds for which an alarm says that a blocked symbol is still being closed: each try gives another."""
_PASSING: Final = (
    "place",
    "cancel",
    "amend",
    "read",
    "stream",
    "commit",
    "crash",
    "takeover",
    "venue",
)

FLOORS: Final = (
    ("protection_judged", "protection_looks", 0.6),
    ("protection_strict", "protection_looks", 0.2),
    ("exposure_judged", "exposure_looks", 0.75),
    ("naked_clock_judged", "naked_clock_looks", 0.6),
)
"""Which figure of a campaign is at least which share of which other."""
_ENOUGH: Final = 20_000
"""Looks at protection from which on the shares say something."""


def muted(figures: Mapping[str, int]) -> list[str]:
    """Return which watch was excused too often for its silence to mean anything, in words."""
    if figures.get("protection_looks", 0) < _ENOUGH:
        return []
    return [
        f"{name} are {figures[name] / figures[of]:.0%} of {of}, at least {least:.0%} are needed"
        for name, of, least in FLOORS
        if figures.get(name, 0) < least * figures.get(of, 0)
    ]


@attrs.define(eq=False)
class Shaken:
    """Symbols whose position somebody else has changed, or about which the venue does not tell the truth yet."""

    venue: SimVenue
    at: dict[str, float] = attrs.field(factory=dict)
    told_at: dict[str, float] = attrs.field(factory=dict)
    """When the venue first told the true positions after that."""

    def __attrs_post_init__(self) -> None:
        self.venue.on_positions = self._told

    def add(self, symbol: str) -> None:
        """Note that it was changed now."""
        self.at[symbol] = self.venue.time()
        self.told_at.pop(symbol, None)

    def _told(self) -> None:
        for symbol in self.at:
            self.told_at.setdefault(symbol, self.venue.time())

    def __contains__(self, symbol: object) -> bool:
        venue, told_at = self.venue, self.told_at.get(str(symbol))
        if told_at is None:
            return symbol in self.at
        hidden = (
            until
            for key, until in venue.hidden_until.items()
            if venue.core.orders[key].request.symbol == symbol
        )
        known_from = max(told_at, venue.thawed_at, *hidden, 0.0)
        return venue.time() - known_from < FADES

    def __bool__(self) -> bool:
        return any(symbol in self for symbol in self.at)


@attrs.define(eq=False)
class ProtectionWatch:
    """Looks at every position that has a stop-loss, again and again."""

    venue: SimVenue
    shaken: Shaken
    need: Callable[[str, bool, str], None]
    naked_since: dict[str, float] = attrs.field(factory=dict)
    looked: int = 0
    """Looks at a position that is to be protected."""
    judged: int = 0
    """Those that nothing excused altogether."""
    strict: int = 0
    """Those of them with no fault lately, so that `WITHIN` holds."""
    troubled_at: float = 0.0
    """Moment of the last fault that may delay something."""
    alarmed_at: dict[str, float] = attrs.field(factory=dict)
    """When somebody was told last that a symbol is without protection."""
    unaware_at: dict[str, float] = attrs.field(factory=dict)
    """When a position was last another one than the process knew; `AT_MOST` holds all the same."""
    told: int = 0
    """Looks at a position that cannot be protected or closed, blocked, with an alarm of late."""
    _faults: int = 0
    _life: int = 0

    def note(self, process: Process, chaos: Chaos) -> None:
        """See whether a fault has struck since the last look."""
        faults = sum(n for kind, n in chaos.counts.items() if kind.startswith(_PASSING))
        if faults != self._faults or process.number != self._life:
            self._faults, self._life = faults, process.number
            self.troubled_at = self.venue.time()
        self.troubled_at = max(self.troubled_at, min(process.link.told_until, self.venue.time()))

    def accepted(self, symbol: str) -> None:
        """See a reduction come to rest at the venue: what is without protection later is so anew."""
        self.naked_since.pop(symbol, None)

    def look(self, process: Process, *, excused: bool) -> None:
        """Check that each position is protected, is being closed, or that it cannot be and somebody was told."""
        book, now = process.book, self.venue.time()
        for symbol, instrument in self.venue.core.instruments.items():
            position = book.position(symbol)
            known = ZERO if position is None else abs(position.quantity)
            needed = instrument.round_quantity(min(known, abs(self.venue.quantity(symbol))))
            if position is None or position.stop_loss is None:
                self.naked_since.pop(symbol, None)
                continue
            # For less than that no order is taken: it is told, and protected when there is more.
            least = instrument.smallest_quantity(position.stop_loss)
            if needed < least:
                self.naked_since.pop(symbol, None)
                continue
            self.looked += 1
            in_doubt = any(
                order.state in (OrderState.IN_DOUBT, OrderState.PRESUMED_ABSENT)
                or self._is_hidden(order.client_order_id)
                for order in book.orders.open_reductions(symbol)
            )
            if excused or in_doubt or symbol in self.shaken:
                self.naked_since.pop(symbol, None)
                continue
            self.judged += 1
            self.strict += now - self.troubled_at >= AFTERMATH
            covered = self.venue.covered(symbol)
            if needed - covered < least:
                self.naked_since.pop(symbol, None)
                continue
            since = self.naked_since.setdefault(symbol, now)
            if position.quantity != self.venue.quantity(symbol):
                self.unaware_at[symbol] = now  # of an execution that a silent stream has not told
            unaware_at = self.unaware_at.get(symbol, 0.0)
            late = now - max(since, unaware_at, self.troubled_at + AFTERMATH) > WITHIN
            blocked = symbol in book.blocked
            alarmed = now - self.alarmed_at.get(symbol, -TOLD) < TOLD
            told = blocked and alarmed
            self.told += told
            self.need(
                "I12",
                (told or not late) and (blocked or alarmed or now - since <= AT_MOST),
                f"{symbol}: {needed} open, {covered} protected, for {now - since:.0f} s, "
                f"{now - self.troubled_at:.0f} s after the last fault",
            )

    def _is_hidden(self, client_order_id: str) -> bool:
        """Tell whether the venue does not show an order, or did not until lately: nobody can prove it gone."""
        order = self.venue.core.by_client.get(client_order_id)
        if order is None:
            return False
        until = self.venue.hidden_until.get(order.venue_order_id, -FADES)
        return self.venue.time() - until < FADES
