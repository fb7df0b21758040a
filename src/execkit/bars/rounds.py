"""What the functions said about one bar, as the journal keeps it: with what they were given, and how long it took."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from execkit.bars.evaluation import FunctionUse, Watchdog
from execkit.functions.base import ExecutionSignal
from execkit.model.account import AccountView
from execkit.model.market import BarData
from execkit.model.position import Position
from execkit.model.records import BarClosed, Decision, PositionSeen, StopMoved
from execkit.model.signal import TradingSignal

LONGEST: Final = 1000
"""Characters kept of a function's reasoning and of its metadata: both are foreign text."""

_NONE: Final = ExecutionSignal.none()


class Moment(msgspec.Struct, frozen=True):
    """What all evaluations of one close share."""

    position: Position | None
    account: AccountView
    at: datetime
    watchdog: Watchdog


class Round:
    """The functions' answers for one bar."""

    def __init__(self, bar: BarData) -> None:
        self.bar = bar
        self.decisions: list[Decision] = []
        self.signals: list[TradingSignal] = []
        self.moves: list[StopMoved] = []

    def skip(self, use: FunctionUse, reason: str) -> None:
        """Note that a function was not asked, and why."""
        self.decisions.append(
            Decision(use.plan, use.name, _NONE.action.value, _NONE.confidence, reason, skipped=True)
        )

    def add(
        self,
        use: FunctionUse,
        answer: ExecutionSignal | None,
        problem: str,
        *,
        bars: int,
        signal: TradingSignal | None,
    ) -> None:
        """Note what a function has answered, None when it failed, and why that cannot be followed, if so."""
        said = _NONE if answer is None else answer
        reasoning = f"{problem} ({said.reasoning})" if problem and said.reasoning else problem
        self.decisions.append(
            Decision(
                plan=use.plan,
                function=use.name,
                action=said.action.value,
                confidence=said.confidence,
                reasoning=(reasoning or said.reasoning)[:LONGEST],
                skipped=bool(problem),
                failed=answer is None,
                parameters=use.parameters,
                bars=bars,
                duration_us=round(use.last_duration * 1_000_000),
                signal_id="" if signal is None else signal.signal_id or "",
                new_stop=said.new_stop,
                metadata=_as_json(said.metadata),
            )
        )

    def to_record(self, position: Position | None, account: AccountView) -> BarClosed:
        """Return the record of this close."""
        bar = self.bar
        return BarClosed(
            symbol=bar.symbol,
            timeframe=str(bar.timeframe),
            close_time=bar.close_time,
            open=bar.open,
            high=bar.high,
            low=bar.low,
            close=bar.close,
            volume=bar.volume,
            position=None if position is None else _seen(position),
            account=account,
            decisions=tuple(self.decisions),
            signals={s.signal_id or "": msgspec.json.encode(s).decode() for s in self.signals},
        )


def _seen(position: Position) -> PositionSeen:
    return PositionSeen(
        position_id=position.position_id,
        quantity=position.quantity,
        average_price=position.average_price,
        best_price=position.best_price,
        stop_loss=position.stop_loss,
    )


def _as_json(metadata: Any) -> str:
    if not metadata:
        return ""
    try:
        text = msgspec.json.encode(dict(metadata)).decode()
    except Exception:  # noqa: BLE001 - foreign objects, whose encoding is foreign code
        return '"(not JSON)"'
    return text if len(text) <= LONGEST else '"(too long)"'
