"""The end of a simulated run: all faults stop, and books and venue have to agree."""

from __future__ import annotations

from decimal import Decimal

from execkit.journal.fold import fold
from execkit.model.order import OrderState
from execkit.numbers import ZERO
from execkit.testing.checker import Evidence, check
from execkit.testing.simulation.actions import Actions
from execkit.testing.simulation.rules import SYMBOLS
from execkit.testing.simulation.world import World

WITHIN = 120.0
"""Seconds from the end of all faults within which everything is known again."""


async def converge(world: World, actions: Actions) -> None:
    """Stop all faults, wait, and check what must be true then."""
    world.chaos.is_on = False
    world.sustained_until = world.loop.time()
    world.venue.thaw()
    world.extras.switch(on=False)
    world.tell("healing")
    if world.old is not None:
        world.old.die()
        await world.old.bury()
        world.old = None
    if world.process is not None and not world.process.journal.is_healthy:
        await world.kill()
    if world.process is None and not await world.live():
        world.fail("I19", "the process does not start although nothing is wrong any more")
    if world.process is not None:
        # A process that was told to wait does so, although the venue has changed its mind.
        await world.pass_time(max(world.process.link.told_until - world.loop.time(), 0.0))
    # What an order may stay invisible is part of what a venue states; so is the time a request is still on its way.
    hidden = max(world.rules.hidden_for, 60.0)
    window = world.rules.absence_window.total_seconds()
    for _ in range(int((hidden + window + WITHIN) / 5)):
        await world.pass_time(5.0)
        world.check()
    check_quiet(world, actions)


def check_quiet(world: World, actions: Actions) -> None:
    """Check what holds when nothing is wrong and nothing is under way."""
    process = world.process
    if process is None:
        return world.fail("I19", "the process died although nothing is wrong any more")
    book, venue = process.book, world.venue
    stuck = [t for t in actions.callers if not t.done()]
    if stuck:
        world.fail("I19", f"{len(stuck)} callers still wait")
    for order in book.orders.active.values():
        if order.state in (
            OrderState.NEW,
            OrderState.SUBMITTED,
            OrderState.IN_DOUBT,
            OrderState.PENDING_CANCEL,
            OrderState.PENDING_AMEND,
        ):
            world.fail("I19", f"{order!r} is still under way")
    ours = {o.client_order_id for o in book.orders.active.values() if o.state.may_be_live}
    theirs = {o.request.client_order_id for o in venue.open_of_ours(world.is_ours)}
    zombies = theirs & world.watch.lied - ours
    if zombies:
        world.fail("I19", f"closed here and still open at the venue: {zombies}")
    theirs -= world.watch.lied
    if ours - world.watch.lied != theirs:
        world.fail(
            "I19", f"open orders: ours only {ours - theirs}, the venue's only {theirs - ours}"
        )
    for symbol in SYMBOLS:
        mine, true = book.positions.quantity(symbol), venue.quantity(symbol)
        if mine != true:
            world.fail("I4", f"{symbol}: our position {mine}, the venue's {true}")
        _check_protection(world, symbol)
    totals = {a: b.total for a, b in venue.core.balances().items() if b.total}
    cash = {asset: total for asset, total in book.cash.items() if total}
    if totals != cash:
        world.fail("I4", f"our holdings {cash}, the venue's {totals}")
    for order in book.orders.values():
        if order.client_order_id in world.watch.lied:
            continue
        at_venue = venue.core.by_client.get(order.client_order_id)
        if at_venue is not None and at_venue.filled != order.filled:
            world.fail("I6", f"{order!r}: the venue filled {at_venue.filled}")
        if sum((f.quantity for f in order.trades.values()), ZERO) != order.filled:
            world.fail("I6", f"{order!r} is not the sum of its fills")
    if fold(world.store.entries()).state_hash() != book.state_hash():
        world.fail("I16", "the journal does not add up to the state in memory")
    found = check(
        Evidence(
            ledger=venue.ledger,
            fills=venue.fills,
            positions={symbol: venue.quantity(symbol) for symbol in SYMBOLS},
            entries=world.store.entries(),
            commits=world.store.commits,
            apart=[entry for _, entry in world.store.emergencies],
            excused=frozenset(world.watch.lied),
        )
    )
    if found:
        world.fail("CHECKER", "; ".join(found[:5]))
    for judge in world.watch.judges:
        judge.quiet(process)
    alive = [t for t in process.tasks if not t.done()]
    if len(alive) > 40:
        world.fail("I32", f"{len(alive)} tasks are left: {alive[:3]}")
    return None


def _check_protection(world: World, symbol: str) -> None:
    process = world.process
    assert process is not None, "checked before"
    book, instrument = process.book, world.venue.core.instruments[symbol]
    position = book.position(symbol)
    if position is None or position.stop_loss is None:
        return
    needed = instrument.round_quantity(abs(position.quantity))
    # Less than the venue takes as an order cannot be protected; that is told.
    least = max(instrument.smallest_quantity(position.stop_loss), instrument.lot_size)
    if needed < least:
        return
    covered = Decimal(0)
    for order in world.venue.core.open.get(symbol, {}).values():
        key = order.request.client_order_id
        known = book.orders.get(key)
        is_exit = known is not None and known.role.is_reduction and known.state.may_be_live
        is_beside_a_stop = bool(order.group) and order.request.stop_price is None
        if is_exit and not is_beside_a_stop:
            covered += order.remaining
    if abs(needed - covered) >= least:
        world.fail("I12", f"{symbol}: {needed} open, {covered} protected")
