"""`execkit positions --history`: closed positions and what they were made of, from the store beside a journal."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from execkit.model.position import PositionState
from execkit.numbers import plain
from execkit.store.projection import default_url
from execkit.store.queries import StoreReader

_OF_POSITION: Final = (
    "position_id",
    "symbol",
    "peak_quantity",
    "average_price",
    "realised_pnl",
    "opened_at",
    "closed_at",
    "signal_id",
)
_OF_FILL: Final = ("at", "role", "side", "quantity", "price", "fee", "fee_asset", "client_order_id")


def closed_positions(journal: Path, symbol: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest *limit* positions that are closed, oldest first, each with its executions."""
    with StoreReader(default_url(journal)) as reader:
        rows = reader.positions(symbol=symbol, state=PositionState.CLOSED.value, limit=limit)
        return [
            _shown(row, _OF_POSITION)
            | {"fills": [_shown(f, _OF_FILL) for f in reader.position_fills(row["position_id"])]}
            for row in rows
        ]


def _shown(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name: _text(row[name]) for name in names}


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)
