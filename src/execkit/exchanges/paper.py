"""Trading without a venue: orders are matched against live or recorded prices, and the account survives restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec
import structlog

from execkit.clock import Clock
from execkit.errors import ConfigurationError, JournalCorruptedError
from execkit.exchanges.inputs import Input, replay
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.paper_ledger import Durability, PaperLedger
from execkit.exchanges.simulated import FEE, SimulatedExchange
from execkit.exchanges.snapshots import restore, snapshot
from execkit.model.instrument import Instrument
from execkit.numbers import ZERO, plain

log = structlog.get_logger("execkit")


class PaperExchange(SimulatedExchange):
    """The default venue of a fresh install; `SimulatedExchange` lists the arguments it shares with the mock.

    Feed it with `feed_bar`, `feed_quote` or `feed_trade`. A market order is executed at once where a price is
    live; after a bar it waits for the next one. The fill model is in `execkit.exchanges.fills`.

    With *storage* (or the path that the engine offers) the account is kept in a file of its own, mode 0600, and is
    loaded by `connect`: what the file says wins over *balances*, and *prices* only fill in what has no price yet.
    *durability* `process` survives kill -9, `power` syncs the disk with each order and each price.
    """

    def __init__(
        self,
        *,
        balances: Mapping[str, Decimal],
        prices: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] | None = None,
        spread_bps: Decimal = ZERO,
        maker_fee: Decimal = FEE,
        taker_fee: Decimal = FEE,
        allow_short: bool = False,
        clock: Clock | None = None,
        name: str = "paper",
        account: str | None = None,
        storage: Path | str | None = None,
        durability: Durability = "process",
    ) -> None:
        super().__init__(
            balances=balances,
            prices=prices,
            instruments=instruments,
            spread_bps=spread_bps,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
            allow_short=allow_short,
            clock=clock,
            name=name,
            account=account,
        )
        if durability not in ("process", "power"):
            raise ConfigurationError(f"durability: {durability!r} is neither 'process' nor 'power'")
        self._storage = None if storage is None else Path(storage)
        self._durability: Durability = durability
        self._ledger: PaperLedger | None = None

    def use_storage(self, path: Path) -> None:
        """Keep the account in *path*, unless the constructor named a file."""
        if self._ledger is not None:
            raise ConfigurationError(
                "storage: the paper exchange is connected; set it before connect()"
            )
        self._storage = self._storage or path

    async def connect(self) -> None:
        """Load the account from its file and take the sole right to write it."""
        await super().connect()
        if self._storage is None or self._ledger is not None:
            return
        ledger = PaperLedger(self._storage, account=self.account, durability=self._durability)
        try:
            kept = ledger.load()
            if kept is not None:
                self.core = self._resumed(ledger.path, *kept)
            ledger.compact(snapshot(self.core))
        except BaseException:
            ledger.close()
            raise
        self._ledger = ledger

    def _resumed(self, path: Path, state: bytes, steps: list[Input]) -> MatchingCore:
        """Return the account as the file has it, under the settings of this object from now on."""
        settings = self.core
        try:
            core = restore(state)
        except (msgspec.DecodeError, KeyError) as error:
            raise JournalCorruptedError(f"{path}, line 2: {error}") from error
        for step in steps:
            replay(core, step)
        core.spread_bps = settings.spread_bps
        core.set_allow_short(allow=settings.account.allow_short)
        for instrument in self._instruments.values():
            core.add_instrument(instrument)
        for symbol, price in self._prices.items():
            if symbol not in core.books:
                core.set_price(symbol, price)
        log.debug(
            "paper.ledger_resumed",
            path=str(path),
            inputs=len(steps),
            balances={asset: plain(total) for asset, total in core.account.totals.items()},
        )
        return core

    async def close(self) -> None:
        """End all streams and give up the file."""
        await super().close()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _do(self, step: Input) -> None:
        # Written before it is answered: an order that nobody heard of must never have been accepted.
        if self._ledger is not None:
            self._ledger.append(step)
        elif self._storage is not None:
            raise ConfigurationError(
                f"storage: {self._storage} is not open; call connect() or use `async with` first"
            )
        super()._do(step)
        if self._ledger is not None and self._ledger.is_large:
            try:
                self._ledger.compact(snapshot(self.core))
            except OSError as error:
                # The old file stands and goes on growing; nothing is lost but room.
                log.warning("paper.compacting_failed", path=str(self._storage), error=str(error))
