"""All orders of the account that messages have told of, and who waits for news of them.

Bookkeeping around `Known`; nothing is sent from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from msgspec.structs import replace

from execkit.clock import Clock
from execkit.errors import OrderStatusUnknownError
from execkit.exchanges.ibkr.contracts import Contracts, Listed
from execkit.exchanges.ibkr.order_ids import OrderIds
from execkit.exchanges.ibkr.orders import Execution, Known, type_of
from execkit.exchanges.ibkr.seen import CommissionSeen, ExecutionSeen, OrderSeen, StatusSeen
from execkit.exchanges.ibkr.verdicts import Verdict, judge
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderUpdate,
    Side,
    StreamGap,
)
from execkit.numbers import MONEY, ZERO

log = structlog.get_logger("execkit")

_FORGET_BEYOND: Final = 5_000


class OrderTable:
    """Hears the raw messages about orders; *publish* gets what they add up to, *uplink* the codes 1100 to
    1102.

    An execution is told once its commission has come, or after *fee_wait* seconds; a commission that comes later
    replaces what was told.
    """

    def __init__(
        self,
        contracts: Contracts,
        clock: Clock,
        *,
        client_id: int,
        fee_wait: float,
        publish: Callable[[OrderUpdate], None],
        uplink: Callable[[int], None],
    ) -> None:
        self.account = ""
        self.ids = OrderIds(clock)
        self._contracts = contracts
        self._clock = clock
        self._client_id = client_id
        self._fee_wait = fee_wait
        self._publish = publish
        self._uplink = uplink
        self._by_id: dict[int, Known] = {}
        """Orders of this client by order id."""
        self._by_perm: dict[int, Known] = {}
        self._by_ref: dict[str, Known] = {}
        self._by_exec: dict[str, tuple[Known, str]] = {}
        self._early_fees: dict[str, CommissionSeen] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._unnamed: dict[int, Known] = {}
        """Orders of which nothing is told before their contracts were looked up."""

    # -- entering and finding -------------------------------------------------------------------------

    def begin(self, request: OrderRequest, listed: Listed) -> Known:
        """Enter an order that is about to be sent, so that news of it find it whenever they come."""
        order_id = self.ids.reserve(request.client_order_id)
        known = self._by_ref.get(request.client_order_id)
        if known is None:
            known = Known(
                ref=request.client_order_id,
                symbol=request.symbol,
                side=request.side,
                type=request.type,
                units=listed.units,
                quantity=request.quantity,
                client_id=self._client_id,
                order_id=order_id,
                limit=request.limit_price,
                stop=request.stop_price,
            )
            self._by_ref[known.ref] = known
            self._forget_old()
        self.enter_id(known, order_id)
        return known

    def enter_id(self, known: Known, order_id: int) -> None:
        """Let news under an order id find the order."""
        known.order_id = order_id
        self._by_id[order_id] = known

    def _forget_old(self) -> None:
        """Keep memory bounded: of long ended orders the venue itself can still be asked."""
        for orders in (self._by_ref, self._by_perm):
            for known in list(orders.values())[: max(0, len(orders) - _FORGET_BEYOND)]:
                if (known.has_ended or not known.perm_id) and not known.asking:
                    self._forget(known)

    def _forget(self, known: Known) -> None:
        self._by_ref.pop(known.ref, None)
        self._by_id.pop(known.order_id, None)
        self._by_perm.pop(known.perm_id, None)
        for execution in known.executions.values():
            self._by_exec.pop(execution.seen.exec_id, None)

    def find(self, client_order_id: str, venue_order_id: str | None = None) -> Known | None:
        """Return an order by the venue's id where that is given and known, else by ours."""
        if venue_order_id and venue_order_id.isdigit():
            known = self._by_perm.get(int(venue_order_id))
            if known is not None:
                return known
        return self._by_ref.get(client_order_id)

    def of(self, seen: OrderSeen | ExecutionSeen) -> Known:
        """Return the order that a message is about, entering it when it is new."""
        mine = seen.client_id == self._client_id and seen.order_id > 0
        known = self._by_perm.get(seen.perm_id)
        if known is None and mine:
            known = self._by_id.get(seen.order_id)
        if known is None and seen.ref and seen.client_id in (0, self._client_id):
            known = self._by_ref.get(seen.ref)
        if known is not None and seen.perm_id and known.perm_id not in (0, seen.perm_id):
            known = None  # one order id, two orders: a change while TWS was cut off can do that
        if known is None:
            known = self._enter(seen)
        if seen.perm_id:
            self._by_perm[seen.perm_id] = known
            self._forget_old()
        return known

    def _enter(self, seen: OrderSeen | ExecutionSeen) -> Known:
        is_order = isinstance(seen, OrderSeen)
        sells = seen.action != "BUY" if isinstance(seen, OrderSeen) else seen.side == "SLD"
        limit = seen.limit if isinstance(seen, OrderSeen) else None
        units = self._contracts.units(seen.contract)
        known = Known(
            ref=seen.ref,
            symbol=self._contracts.name(seen.contract),
            side=Side.SELL if sells else Side.BUY,
            type=type_of(seen.order_type if isinstance(seen, OrderSeen) else "", limit),
            units=units,
            quantity=MONEY.multiply(seen.quantity, units) if is_order else ZERO,
            contract=seen.contract,
            client_id=seen.client_id,
            order_id=seen.order_id,
        )
        if seen.ref:
            self._by_ref.setdefault(seen.ref, known)
        if seen.order_id > 0 and seen.client_id == self._client_id:
            self._by_id.setdefault(seen.order_id, known)
        return known

    # -- what messages say -----------------------------------------------------------------------------

    def is_ours(self, account: str) -> bool:
        """Tell whether a message is about our account; some name none."""
        return not account or not self.account or account == self.account

    def is_mine(self, known: Known) -> bool:
        """Tell whether this client may cancel and change an order."""
        return known.order_id > 0 and known.client_id == self._client_id

    def on_order(self, seen: OrderSeen) -> None:
        """An order is open, or has ended (completedOrder)."""
        if seen.client_id == self._client_id:
            self.ids.saw(seen.order_id)
        if not self.is_ours(seen.account):
            return
        known = self.of(seen)
        if self._is_about_another(known, seen):
            return
        quantity = MONEY.multiply(seen.quantity, known.units)
        if not (seen.oca_group and quantity < known.quantity and "amend" not in known.asking):
            known.quantity = quantity
        known.symbol = self._contracts.name(seen.contract)
        known.side = Side.BUY if seen.action == "BUY" else Side.SELL
        known.type = type_of(seen.order_type, seen.limit)
        known.see_order(seen)
        self._tell(known)

    def _is_about_another(self, known: Known, seen: OrderSeen | ExecutionSeen) -> bool:
        """Tell whether a message has our order id and somebody else's orderRef: then it says nothing of ours."""
        known.is_crossed = bool(known.sends) and seen.ref != known.ref
        if not known.is_crossed:
            return False
        text = f"an answer to order {known.ref} names the orderRef {seen.ref!r}"
        for what in known.asking:
            known.answers[what] = OrderStatusUnknownError(text, venue="ibkr")
        known.changed.set()
        self.on_gap(text)
        return True

    def on_status(self, seen: StatusSeen) -> None:
        """An order stands there."""
        known = self._by_perm.get(seen.perm_id)
        if known is None and seen.client_id == self._client_id:
            known = self._by_id.get(seen.order_id)
        if (
            known is None
            or known.is_crossed
            or seen.perm_id not in (0, known.perm_id or seen.perm_id)
        ):
            return  # it names no orderRef, or is about a second order under our id; openOrder says more
        if seen.perm_id:
            self._by_perm.setdefault(seen.perm_id, known)
        known.see_order_status(seen)
        self._tell(known)

    def on_execution(self, seen: ExecutionSeen) -> None:
        """Something was executed, now or before."""
        if seen.client_id == self._client_id:
            self.ids.saw(seen.order_id)
        if not self.is_ours(seen.account):
            return
        known = self.of(seen)
        if self._is_about_another(known, seen):
            return
        at = seen.at
        if at is None:
            log.warning("ibkr.execution_time_unknown", exec_id=seen.exec_id)
            at = self._clock.now()
        execution = known.see_execution(seen, at, asyncio.get_running_loop().time())
        if execution is None:
            return
        self._by_exec[seen.exec_id] = (known, execution.base)
        early = self._early_fees.pop(seen.exec_id, None)
        if early is not None:
            self.on_commission(early)
        else:
            self._tell(known)

    def on_commission(self, seen: CommissionSeen) -> None:
        """That is what an execution cost."""
        if seen.amount is None:
            return
        known, base = self._by_exec.get(seen.exec_id, (None, ""))
        if known is None:
            self._early_fees[seen.exec_id] = seen
            if len(self._early_fees) > _FORGET_BEYOND:
                del self._early_fees[next(iter(self._early_fees))]
            return
        execution = known.executions[base]
        if execution.seen.exec_id == seen.exec_id:
            execution.fee, execution.fee_asset = seen.amount, seen.currency
            known.changed.set()
            self._tell(known)

    def on_order_error(self, order_id: int, code: int, text: str) -> None:
        """An error or a warning that names an order."""
        known = self._by_id.get(order_id)
        if known is None:
            log.warning("ibkr.error", order_id=order_id, code=code, text=text)
            return
        log.info("ibkr.order_message", client_order_id=known.ref, code=code, text=text)
        if code == 103:
            self.ids.spend(known.ref)
        if judge(known, code, text) is Verdict.ASK:
            self.on_gap(f"TWS {code} on order {known.ref}: {text}")
        known.changed.set()
        self._tell(known)

    def on_gap(self, reason: str) -> None:
        """News may have been missed: tell it, so that everything is asked anew."""
        self._publish(StreamGap(reason))

    def on_uplink(self, code: int) -> None:
        """TWS has lost IBKR (1100), or found it again (1101, 1102)."""
        self._uplink(code)

    def lose(self, reason: str) -> None:
        """The connection is gone: whoever waits for news of an order will get none."""
        for known in self.every():
            for what in known.asking:
                known.answers[what] = OrderStatusUnknownError(reason, venue="ibkr")
                known.changed.set()

    # -- waiting and telling ---------------------------------------------------------------------------

    async def until(
        self, known: Known, what: str, condition: Callable[[], bool], seconds: float
    ) -> None:
        """Wait for an answer; raise the error that answers *what*, or `OrderStatusUnknownError` when none comes.

        The caller has put *what* into `Known.asking` before it sent.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    error = known.answers.pop(what, None)
                    is_met = condition()
                    if error is not None and (
                        error.outcome_known or known.is_crossed or not is_met
                    ):
                        raise error
                    if error is not None:
                        self.on_gap(f"order {known.ref} shows in spite of: {error}")
                    if is_met:
                        return
                    known.changed.clear()
                    await known.changed.wait()
        except TimeoutError:
            raise OrderStatusUnknownError(
                f"TWS has not answered within {seconds:g} s ({what} {known.ref})", venue="ibkr"
            ) from None

    def _is_ripe(self, execution: Execution, now: float) -> bool:
        is_told = execution.fee is not None or execution.told is not None
        return is_told or now - execution.arrived >= self._fee_wait

    async def ripen(self, orders: Iterable[Known]) -> None:
        """Wait until every execution has its commission, or has waited long enough for it."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            green = [e for o in orders for e in o.executions.values() if not self._is_ripe(e, now)]
            if not green:
                return
            await asyncio.sleep(min(0.01, self._fee_wait))

    def fills(self, known: Known) -> list[Fill]:
        """Return an order's executions as fills, as they are told from now on."""
        found = []
        for execution in known.executions.values():
            execution.told = known.fill_of(execution)
            found.append(execution.told)
        return found

    def report(self, known: Known) -> OrderReport | None:
        """Return an order with its fills."""
        report = known.report()
        if report is None:
            return None
        return replace(report, fills=tuple(self.fills(known)))

    def every(self) -> list[Known]:
        """Return every order that is known."""
        return list({id(k): k for k in (*self._by_perm.values(), *self._by_ref.values())}.values())

    def _tell(self, known: Known) -> None:
        """Publish what is new of an order: executions first, each once, then the order itself."""
        if known.contract is not None and not self._contracts.knows(known.contract):
            self._unnamed[id(known)] = known
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.pop(id(known), None)
        if timer is not None:
            timer.cancel()
        if not all(self._is_ripe(e, loop.time()) for e in known.executions.values()):
            self._timers[id(known)] = loop.call_later(self._fee_wait, self._tell, known)
            return
        for execution in known.executions.values():
            fill = known.fill_of(execution)
            if fill is not execution.told:
                execution.told = fill
                self._publish(fill)
        report = known.report()
        if report is not None and report != known.last_told and known.is_acknowledged:
            known.last_told = report
            if report.venue_order_id or report.status is OrderState.REJECTED:
                self._publish(report)

    def name_and_tell(self) -> None:
        """Tell of orders whose contracts have been looked up meanwhile, by their names and in their units."""
        for key, known in list(self._unnamed.items()):
            if self._contracts.knows(known.contract):
                del self._unnamed[key]
                known.symbol = self._contracts.name(known.contract)
                known.count_in(self._contracts.units(known.contract))
                self._tell(known)

    def close(self) -> None:
        """Tell nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
