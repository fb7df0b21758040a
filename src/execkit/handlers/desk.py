"""The desk: the engine's services, handed to the handlers that ask for them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from execkit.bars.cache import MarketDataCache
from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter
from execkit.guarded import GuardedAsk
from execkit.market import MarketHours
from execkit.model.ticket import OrderTicket
from execkit.orders.book import Book
from execkit.orders.gateway import OrderGateway
from execkit.orders.recorder import Recorder
from execkit.orders.recovery import Reconciler
from execkit.orders.resolver import Resolver
from execkit.protection.keeper import ProtectionKeeper
from execkit.protection.policy import ProtectionPolicy
from execkit.quotes import QuoteBook
from execkit.risk.ledger import RiskLedger
from execkit.slicing.slicer import Slicer


@attrs.frozen(kw_only=True, eq=False)
class Desk:
    """Services of one engine."""

    adapter: ExchangeAdapter
    clock: Clock
    rng: random.Random
    recorder: Recorder
    book: Book
    ledger: RiskLedger
    quotes: QuoteBook
    bars: MarketDataCache
    market: MarketHours
    gateway: OrderGateway
    resolver: Resolver
    keeper: ProtectionKeeper
    policy: ProtectionPolicy
    reconciler: Reconciler
    slicer: Slicer
    reads: GuardedAsk
    """Asks for what entries need to know, unless the venue fails at it."""
    queue: Callable[[OrderTicket], bool]
    """Keep a signal until its market opens; False when queueing is off for it."""
    spawn: Callable[[Awaitable[Any], str], None]
    """Run something until the engine stops, and tell a person when it fails."""
    links: tuple[object, ...] = ()
    """The handlers of the chain, in order."""
    unchecked: bool = False
    """The pipeline was built without a risk handler on purpose."""
