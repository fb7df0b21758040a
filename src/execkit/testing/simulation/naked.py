"""The clock of a position without a stop of its size: it runs only while nothing keeps the venue from taking one (I12).

What may stand in the way is named here, one by one, and each look at which it did is counted by its name. Nothing else
is an excuse: no fault elsewhere, no crash lately, no alarm that was given. Whatever the venue or the way to it has done
to a command about the symbol, the time begins anew when the process knows of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import attrs

from execkit.numbers import ZERO
from execkit.protection.plan import is_unproven

if TYPE_CHECKING:
    from execkit.model.instrument import Instrument
    from execkit.model.position import Position
    from execkit.testing.simulation.process import Process
    from execkit.testing.simulation.venue import SimVenue

ALLOWED: Final = 5.0
"""Seconds for which a position may be without protection while nothing stands in the way."""


class Obstacle(StrEnum):
    """Why a venue cannot take a stop now, or why nobody can know that one is missing."""

    NO_WAY = "no way to the venue"
    PAUSE = "the venue wants to be left alone"
    DISK = "a commit is under way"
    FAILED = "a command about it is under way and will fail"
    DOUBT = "what became of an order of it is not proven"
    UNTOLD = "the end of a stop or an exit, or a part of it, was not told"
    UNKNOWN = "the position is smaller than anybody has told"
    LIE = "an order rests that the venue has denied"
    RATE = "the venue takes no more commands in this window"


@attrs.define(eq=False)
class NakedClock:
    """Counts for how long each position was without protection for no reason: longer than `ALLOWED` is a violation."""

    venue: SimVenue
    need: Callable[[str, bool, str], None]
    lied: set[str]
    """Orders about which the venue broke its own promises."""
    looks: int = 0
    """Looks at a position that is to be protected."""
    judged: int = 0
    """Those at which nothing stood in the way."""
    naked: int = 0
    """Those of them at which a part was without a stop."""
    longest: float = 0.0
    """Most seconds that one was naked while nothing stood in the way."""
    excused: Counter[str] = attrs.field(factory=Counter)
    failing: Counter[str] = attrs.field(factory=Counter)
    """Commands under way that fail, by symbol."""
    _counted: dict[str, float] = attrs.field(factory=dict)
    _seen_at: dict[str, float] = attrs.field(factory=dict)
    """Moment of the last look at which a position was without protection, and nothing stood in the way."""

    @property
    def is_running(self) -> bool:
        """Tell whether a position is without protection, so that one should look often."""
        return bool(self._counted)

    def live(self) -> None:
        """See a process begin: what the last one had under way is no longer its concern."""
        self._counted.clear()
        self._seen_at.clear()
        self.failing.clear()

    def begin_anew(self, symbol: str) -> None:
        """See that the venue took a reduction, or that a command about a symbol came to nothing."""
        self._counted.pop(symbol, None)
        self._seen_at.pop(symbol, None)

    def fails(self, symbol: str) -> None:
        """See that a command about a symbol leaves which the venue or the way to it will not carry out."""
        self.failing[symbol] += 1

    def failed(self, symbol: str) -> None:
        """See that the process knows of it."""
        self.failing[symbol] -= 1
        self.begin_anew(symbol)

    def look(self, process: Process, *, rate_is_used_up: bool) -> None:
        """Let the clocks run on, or not."""
        venue, book = self.venue, process.book
        now = venue.time()
        for symbol, instrument in venue.core.instruments.items():
            position = book.position(symbol)
            true = venue.quantity(symbol)
            needed = ZERO
            if position is not None and position.stop_loss is not None:
                same_side = (position.quantity > ZERO) is (true > ZERO)
                needed = min(abs(position.quantity), abs(true)) if same_side else ZERO
            needed = instrument.round_quantity(needed)
            if position is None or needed < (least := self._least(position, instrument)):
                self.begin_anew(symbol)
                continue
            self.looks += 1
            missing = needed - venue.covered(symbol)
            obstacle = self._obstacle(process, position, missing)
            if obstacle is None and rate_is_used_up:
                obstacle = Obstacle.RATE
            if obstacle is not None:
                self.excused[obstacle.name.lower()] += 1
                self._seen_at.pop(symbol, None)
                if missing < least:
                    self.begin_anew(symbol)
                continue
            self.judged += 1
            if missing < least:
                self.begin_anew(symbol)
                continue
            self.naked += 1
            self._run(symbol, now)
            self.longest = max(self.longest, self._counted[symbol])
            self.need(
                "I12",
                self._counted[symbol] <= ALLOWED,
                f"{symbol}: {missing} of {needed} were without a stop for {self._counted[symbol]:.1f} s, "
                "and nothing kept the venue from taking one",
            )

    def _least(self, position: Position, instrument: Instrument) -> Decimal:
        """Return the smallest quantity that the venue takes a stop for; one that only reduces may be worth little."""
        least = max(instrument.min_quantity, instrument.lot_size)
        if self.venue.rules.reduce_only or position.stop_loss is None:
            return least
        return max(least, instrument.smallest_quantity(position.stop_loss))

    def _run(self, symbol: str, now: float) -> None:
        since = now - self._seen_at.get(symbol, now)
        self._counted[symbol] = self._counted.get(symbol, 0.0) + since
        self._seen_at[symbol] = now

    def _obstacle(self, process: Process, position: Position, missing: Decimal) -> Obstacle | None:
        symbol, link, venue = position.symbol, process.link, self.venue
        now = venue.time()
        if link.is_down():
            return Obstacle.NO_WAY
        if max(link.told_until, link.ban_ends()) > now:
            return Obstacle.PAUSE
        if process.commits:
            return Obstacle.DISK
        if self.failing[symbol] > 0:
            return Obstacle.FAILED
        reductions = process.book.orders.open_reductions(symbol)
        if any(map(is_unproven, reductions)):
            return Obstacle.DOUBT
        if abs(position.quantity) > abs(venue.quantity(symbol)):
            return Obstacle.UNKNOWN
        rests = venue.core.open.get(symbol, {}).values()
        believed = {order.client_order_id for order in reductions}
        theirs = {order.request.client_order_id for order in rests}
        if (theirs & self.lied) - believed:
            return Obstacle.LIE
        left = {order.venue_order_id: order.remaining for order in rests}
        known = [o for o in reductions if o.venue_order_id is not None]
        gone = (o.remaining - left.get(o.venue_order_id or "", ZERO) for o in known)
        if missing > ZERO and sum(gone, ZERO) >= missing:
            return Obstacle.UNTOLD
        return None
