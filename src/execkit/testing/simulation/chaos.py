"""What goes wrong in a simulated run: which kinds of fault a seed brings, how often, and when.

Swarm testing: each seed turns on a random part of all kinds, so that some runs are full of one trouble and free of
others, which finds more than every trouble a little everywhere.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind of fault."""

    # a place request
    PLACE_LOST = "place_lost"
    """Never arrives; the caller sees a broken connection or nothing at all."""
    PLACE_ANSWER_LOST = "place_answer_lost"
    PLACE_LATE = "place_late"
    """Arrives only after the caller has given up."""
    PLACE_UNSENT = "place_unsent"
    PLACE_REFUSED = "place_refused"
    PLACE_LIMITED = "place_limited"
    PLACE_GARBAGE = "place_garbage"
    """Is carried out, and the answer cannot be read or is not about it."""
    PLACE_OTHER = "place_other"
    """Is carried out, and the answer names another order: trading halts."""
    PLACE_ERROR_TAKEN = "place_error_taken"
    """Is carried out, and the venue says that something went wrong."""
    PLACE_DUPLICATE = "place_duplicate"
    """Is carried out, and the venue says that the id is in use."""
    PLACE_NO_MONEY = "place_no_money"
    PLACE_NO_MARKET = "place_no_market"
    PLACE_CLOSED = "place_closed"
    PLACE_HELD = "place_held"
    PLACE_REJECT_LATER = "place_reject_later"
    PLACE_AUTH = "place_auth"
    PLACE_LIE = "place_lie"
    """Is carried out, and the venue says that it was rejected, or the client that nothing left."""
    # a cancel or amend request
    CANCEL_LOST = "cancel_lost"
    CANCEL_ANSWER_LOST = "cancel_answer_lost"
    CANCEL_UNKNOWN = "cancel_unknown"
    """The venue says it knows no such order, though it rests."""
    CANCEL_UNSENT = "cancel_unsent"
    CANCEL_LIMITED = "cancel_limited"
    CANCEL_IGNORED = "cancel_ignored"
    """Acknowledged, without effect."""
    CANCEL_LATE_FILL = "cancel_late_fill"
    """Carried out, and a part is executed all the same."""
    AMEND_REFUSED = "amend_refused"
    AMEND_LOST = "amend_lost"
    AMEND_ANSWER_LOST = "amend_answer_lost"
    # a query
    READ_ERROR = "read_error"
    READ_HANGS = "read_hangs"
    READ_STALE = "read_stale"
    READ_GARBAGE = "read_garbage"
    # the order stream
    STREAM_DROPS = "stream_drops"
    STREAM_REPEATS = "stream_repeats"
    STREAM_DELAYS = "stream_delays"
    """Late, and so out of order."""
    STREAM_BREAKS = "stream_breaks"
    STREAM_ENDS = "stream_ends"
    STREAM_GAP = "stream_gap"
    STREAM_SILENT = "stream_silent"
    """Stays open and says nothing any more."""
    STREAM_BACKWARDS = "stream_backwards"
    """An order's earlier status comes once more."""
    # the venue itself
    VENUE_CANCELS = "venue_cancels"
    VENUE_EXPIRES = "venue_expires"
    VENUE_CORRECTS = "venue_corrects"
    VENUE_BUSTS = "venue_busts"
    VENUE_OVERFILLS = "venue_overfills"
    FOREIGN_ORDER = "foreign_order"
    FOREIGN_TRADE = "foreign_trade"
    # our process
    CRASH = "crash"
    CRASH_AT_COMMIT = "crash_at_commit"
    CRASH_AT_CALL = "crash_at_call"
    COMMIT_FAILS = "commit_fails"
    COMMIT_SLOW = "commit_slow"
    TAKEOVER = "takeover"
    """A second process opens the journal while the first still runs."""
    CLOCK_BACK = "clock_back"
    CLOCK_AHEAD = "clock_ahead"
    CALLER_GIVES_UP = "caller_gives_up"
    PLUGIN_RAISES = "plugin_raises"
    PLUGIN_HANGS = "plugin_hangs"
    PLUGIN_LIES = "plugin_lies"
    """A handler returns what is no result."""
    # sustained, at most one in a run
    BLACKOUT = "blackout"
    BAN = "ban"
    FROZEN = "frozen"
    """All queries answer as of one moment."""


SUSTAINED: Final = (Kind.BLACKOUT, Kind.BAN, Kind.FROZEN)

_RARE: Final = {
    Kind.PLACE_OTHER: 0.1,
    Kind.PLACE_AUTH: 0.1,
    Kind.PLACE_LIE: 0.2,
    Kind.COMMIT_FAILS: 0.1,
    Kind.CRASH_AT_COMMIT: 0.15,
    Kind.CRASH_AT_CALL: 0.1,
    Kind.COMMIT_SLOW: 0.5,
    Kind.STREAM_SILENT: 0.2,
    Kind.TAKEOVER: 0.5,
    Kind.READ_ERROR: 0.3,
    Kind.READ_GARBAGE: 0.2,
    Kind.READ_HANGS: 0.1,
    Kind.READ_STALE: 0.3,
    Kind.PLACE_HELD: 4.0,
    Kind.PLACE_LOST: 2.0,
    Kind.AMEND_REFUSED: 3.0,
    Kind.AMEND_LOST: 3.0,
    Kind.AMEND_ANSWER_LOST: 3.0,
}
"""Share of the usual rate: less of what makes a run quieter or much slower, more of what needs others to matter."""

_DEADLY: Final = (
    Kind.CRASH,
    Kind.CRASH_AT_COMMIT,
    Kind.CRASH_AT_CALL,
    Kind.TAKEOVER,
    Kind.COMMIT_FAILS,
)
MOST_DEATHS: Final = 12
"""How often the process may die in one run."""


class Chaos:
    """The faults of one run. Everything that is asked of it counts, so a run is repeated by its seed."""

    def __init__(self, rng: random.Random, *, without: Iterable[str] = ()) -> None:
        self.rng = rng
        self.is_on = True
        self.deaths = 0
        self.counts: Counter[str] = Counter()
        share = rng.choice((0.1, 0.25, 0.5))
        level = rng.choice((0.02, 0.05, 0.15))
        rates: dict[Kind, float] = {}
        for kind in Kind:
            chosen, amount = rng.random() < share, rng.random()
            if chosen and kind not in SUSTAINED:
                rates[kind] = level * (0.5 + amount) * _RARE.get(kind, 1.0)
        self.sustained: Kind | None = rng.choice(SUSTAINED) if rng.random() < 0.25 else None
        """The one fault of the run that lasts."""
        self.sustained_at = rng.uniform(0.1, 0.6)
        """When it begins, as a share of the run's steps."""
        self.sustained_for = rng.uniform(600, 1200)
        """Seconds it lasts."""
        off = set(without)
        self.rates = {kind: rate for kind, rate in rates.items() if kind.value not in off}
        if self.sustained is not None and self.sustained.value in off:
            self.sustained = None
        self._groups: dict[str, list[tuple[Kind, float]]] = {}

    @property
    def enabled(self) -> list[str]:
        """Names of the kinds that this run may show."""
        kinds = [kind.value for kind in self.rates]
        return kinds if self.sustained is None else [*kinds, self.sustained.value]

    def hit(self, kind: Kind) -> bool:
        """Tell whether a fault of this kind strikes now."""
        rate = self.rates.get(kind)
        if rate is None or not self.is_on or self.rng.random() >= rate:
            return False
        if kind in _DEADLY:
            if self.deaths >= MOST_DEATHS:
                return False
            self.deaths += 1
        self.counts[kind.value] += 1
        return True

    def pick(self, group: str) -> Kind | None:
        """Return the fault that strikes now of all whose name begins with *group*, or None."""
        if not self.is_on:
            return None
        rows = self._groups.get(group)
        if rows is None:
            rows = self._groups[group] = [
                (kind, rate) for kind, rate in self.rates.items() if kind.value.startswith(group)
            ]
        if not rows:
            return None
        drawn = self.rng.random()
        for kind, rate in rows:
            if drawn < rate:
                self.counts[kind.value] += 1
                return kind
            drawn -= rate
        return None
