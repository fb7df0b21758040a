"""The features of one simulated run at work: its judges, the person who is asked, and the file that halts."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

from execkit.assembly import standard_pipeline
from execkit.model.instrument import Instrument
from execkit.model.order import Side
from execkit.model.slicing import Slicing, Twap
from execkit.testing.simulation.entering import DayTradeJudge, GroupJudge, ScaleJudge
from execkit.testing.simulation.features import (
    DAILY_LOSS_PCT,
    ORDER_RATE,
    Feature,
    options_with,
    terms_with,
)
from execkit.testing.simulation.guards import guarded
from execkit.testing.simulation.hands import HandJudge
from execkit.testing.simulation.hours import Hours
from execkit.testing.simulation.judges import (
    Judge,
    LossJudge,
    NoStopJudge,
    SliceJudge,
    StateJudge,
    ThrottleJudge,
)
from execkit.testing.simulation.venue import SimVenue
from execkit.testing.simulation.watch import Watch
from execkit.virtual_time import VirtualClock

if TYPE_CHECKING:
    from execkit.testing.simulation.process import Process

_APPEARS: Final = 0.02
_GOES: Final = 0.08
"""Chances per step of the file that halts."""


class KillFile(os.PathLike[str]):
    """A file of a fixed name that is there or not: it stands for the root directory, or for what cannot exist."""

    is_there = False

    def __fspath__(self) -> str:
        return os.sep if self.is_there else os.path.join(os.sep, "dev", "null", "halt")  # noqa: PTH118

    def __str__(self) -> str:
        return "simulated.halt"


class Surroundings(Protocol):
    """The world, as far as features touch it."""

    seed: int
    lives: int
    loop: asyncio.AbstractEventLoop
    clock: VirtualClock
    venue: SimVenue
    watch: Watch

    def true_now(self) -> datetime:
        """Return the venue's time."""
        ...

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        ...


class Extras:
    """What the features of a seed bring into a world."""

    def __init__(self, world: Surroundings, features: frozenset[Feature]) -> None:
        self.features = features
        self.world = world
        self.kill_file = KillFile()
        self.confirmed: dict[str, bool] = {}
        """What people have said last, by signal."""
        watch = world.watch
        known = (world.venue, watch.intents, watch.need, watch.sources)
        self.state = StateJudge(*known)
        self.slices = SliceJudge(*known)
        self.pace: ThrottleJudge | None = None
        self.hands = HandJudge(*known, lied=watch.lied)
        judges: list[Judge] = [self.state, self.slices, self.hands]
        judges.append(ScaleJudge(*known, shaken=watch.shaken))
        if Feature.GROUPS in features:
            judges.append(GroupJudge(*known, shaken=watch.shaken, lied=watch.lied))
        if Feature.DAY_TRADES in features:
            judges.append(DayTradeJudge(*known, shaken=watch.shaken))
        if Feature.THROTTLE in features:
            self.pace = ThrottleJudge(*known, ORDER_RATE)
            judges.append(self.pace)
        if Feature.DAILY_LOSS in features:
            judges.append(LossJudge(*known, now=world.clock.now, limit_pct=DAILY_LOSS_PCT))
        if Feature.NO_STOPS in features:
            judges.append(NoStopJudge(*known))
        watch.judges = judges
        rng = random.Random(f"extras {world.seed}")
        if Feature.MARKET_HOURS in features:
            world.venue.hours = Hours(rng, world.true_now, world.loop.time)
        if Feature.DAILY_LOSS in features:
            # So that the run crosses midnight.
            world.clock.step(timedelta(hours=24) - timedelta(seconds=rng.uniform(60, 900)))

    @property
    def restricts(self) -> bool:
        """Tell whether this run restricts trading so often that somebody has to release it again and again."""
        return bool(self.features & {Feature.KILL_FILE, Feature.DAILY_LOSS})

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the engine's options of one life."""
        world = self.world
        if not self.features:
            return options
        options.setdefault("pipeline", standard_pipeline())
        options = options_with(options, self.features)
        options["pipeline"] = guarded(
            options["pipeline"],
            self.features,
            world.venue.hours,
            world.watch.need,
            world.watch.sources,
            random.Random(f"person {world.seed} {world.lives}"),
            self.confirmed,
        )
        return options

    def terms(
        self, terms: dict[str, Any], number: int, instrument: Instrument, price: Decimal, side: Side
    ) -> dict[str, Any]:
        """Return the terms of signal *number* as the features have them."""
        if not self.features:
            return terms
        rng = random.Random(f"terms {self.world.seed}/{number}")
        return terms_with(terms, self.features, rng, instrument, price, side)

    def slicing(self, number: int) -> Slicing | None:
        """Return how exit signal *number* is worked; None: whole."""
        rng = random.Random(f"exit {self.world.seed}/{number}")
        if Feature.SLICES not in self.features or rng.random() < 0.5:
            return None
        return Twap(duration=timedelta(seconds=rng.choice((5, 20, 60))), slices=rng.randint(2, 4))

    def step(self, number: int) -> None:
        """Put the file that halts there, or take it away."""
        if Feature.KILL_FILE not in self.features:
            return
        drawn = random.Random(f"file {self.world.seed}/{number}").random()
        if self.kill_file.is_there and drawn < _GOES:
            self.switch(on=False)
        elif not self.kill_file.is_there and drawn < _APPEARS:
            self.switch(on=True)
            self.world.watch.sources["killfile:appeared"] += 1

    def is_used_up(self, process: Process) -> bool:
        """Tell whether the venue takes no more commands of a process in this window."""
        return self.pace is not None and self.pace.is_full(process)

    def switch(self, *, on: bool) -> None:
        """Put the file that halts there, or take it away."""
        self.kill_file.is_there = self.state.switched_off = on
        self.world.tell(f"the file that halts is {'there' if on else 'gone'}")
