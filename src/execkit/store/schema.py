"""The tables of the store: the journal's history in columns, for people, reports and SQL.

Exact numbers are text without exponent (`CAST(quantity AS REAL)` to compare in SQLite), times are ISO 8601 text in UTC
with microseconds, so they sort. `seq` is the number of the journal record a row comes from.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import JSON, Boolean, Column, Dialect, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeDecorator

from execkit.numbers import plain

VERSION: Final = 2
"""Of these tables. A store of another version is rebuilt from the journal."""


class Exact(TypeDecorator[Decimal]):
    """A `Decimal` as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """Write it plainly."""
        return None if value is None else plain(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        """Read it exactly."""
        return None if value is None else Decimal(value)


class Moment(TypeDecorator[datetime]):
    """An aware time as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write it in UTC."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read it with its zone."""
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("last_seq", Integer, nullable=False),
    Column("chain", Text, nullable=False),  # the journal's hash at last_seq
)

orders = Table(
    "orders",
    metadata,
    Column("client_order_id", Text, primary_key=True),
    Column("venue_order_id", Text),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("quantity", Exact, nullable=False),
    Column("filled", Exact, nullable=False),
    Column("average_price", Exact),
    Column("limit_price", Exact),
    Column("stop_price", Exact),
    Column("time_in_force", Text, nullable=False),
    Column("reduce_only", Boolean, nullable=False),
    Column("post_only", Boolean, nullable=False),
    Column("expire_at", Moment),
    Column("parent", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("signal_id", Text),
    Column("position_id", Text),
    Column("worst_price", Exact),
    Column("expected_price", Exact),  # mid at arrival
    Column("stop_loss", Exact),
    Column("take_profit", Exact),
    Column("strength", Exact),
    Column("attempts", Integer, nullable=False),  # how often it was sent
    Column("errors", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload_hash", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("sent_at", Moment),
    Column("accepted_at", Moment),
    Column("first_fill_at", Moment),
    Column("closed_at", Moment),
    Column("updated_at", Moment, nullable=False),
    Index("orders_by_symbol", "symbol", "created_at"),
    Index("orders_by_signal", "signal_id"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column(
        "event", Text, nullable=False
    ),  # "intent", an OrderEvent, "fill", or "send_" and a command
    Column("state", Text),  # after it
    Column("source", Text),
    Column("attempt", Integer),
    Column("venue_order_id", Text),
    Column("venue_at", Moment),
    Column("code", Text),
    Column("reason", Text, nullable=False),
    Column("quantity", Exact),
    Column("price", Exact),  # of a fill
    Column("limit_price", Exact),
    Column("stop_price", Exact),
    Index("order_events_by_order", "client_order_id", "seq"),
)

fills = Table(
    "fills",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("trade_id", Text, nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column("venue_order_id", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("quantity", Exact, nullable=False),
    Column("price", Exact, nullable=False),
    Column("fee", Exact, nullable=False),
    Column("fee_asset", Text, nullable=False),
    Column("maker", Boolean),
    Column("at", Moment, nullable=False),  # by the venue's clock
    Column("source", Text, nullable=False),
    Column("replaces", Text),  # trade id of the fill that this one corrects; quantity 0 busts it
    Column("counts", Boolean, nullable=False),  # False: corrected later, or only busts another one
    Index("fills_by_symbol", "symbol", "at"),
    Index("fills_by_order", "client_order_id"),
)

positions = Table(
    "positions",
    metadata,
    Column("position_id", Text, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("number", Integer, nullable=False),  # of the symbol's positions, from 1
    Column("state", Text, nullable=False),
    Column("quantity", Exact, nullable=False),  # negative when short
    Column("peak_quantity", Exact, nullable=False),
    Column("average_price", Exact, nullable=False),
    Column("realised_pnl", Exact, nullable=False),  # after fees in base and quote
    Column("fees", JSON, nullable=False),  # by asset
    Column("opened_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("signal_id", Text, nullable=False),
    Column("strength", Exact),
    Column("stop_loss", Exact),
    Column("take_profit", Exact),
    Index("positions_by_symbol", "symbol", "number"),
)

results = Table(
    "results",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("signal_id", Text, nullable=False),
    Column("signal_digest", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("denial_code", Text),
    Column("denial_context", JSON),  # value and limit that decided
    Column("reason", Text, nullable=False),
    Column("client_order_ids", JSON, nullable=False),
    Column("requested", Exact),
    Column("filled", Exact, nullable=False),
    Column("average_price", Exact),
    Column("expected_price", Exact),
    Column("created_at", Moment),
    Column("alerts", JSON, nullable=False),
    Index("results_by_signal", "signal_id"),
    Index("results_by_symbol", "symbol", "at"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("seq", Integer, primary_key=True),  # of the result
    Column("place", Integer, primary_key=True),  # in the chain, from 0
    Column("handler", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),  # among the functions asked at this close, from 0
    Column("at", Moment, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("timeframe", Text, nullable=False),
    Column("close_time", Moment, nullable=False),
    Column("close", Exact, nullable=False),
    Column("plan", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("confidence", Exact, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("skipped", Boolean, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON; empty when it was not asked
    Column("bars", Integer, nullable=False),  # of history that it could see
    Column("duration_us", Integer, nullable=False),
    Column("signal_id", Text, nullable=False),  # of `results` and `orders`; empty without
    Column("new_stop", Exact),
    Column("metadata", Text, nullable=False),  # JSON
    Index("evaluations_by_time", "at"),
    Index("evaluations_by_symbol", "symbol", "close_time"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("client_order_id", Text, nullable=False),
)

plan_changes = Table(
    "plan_changes",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("plan", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("signal_id", Text),
)

trading_states = Table(
    "trading_states",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("actor", Text, nullable=False),
)

other_records = Table(
    "other_records",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Index("other_records_by_kind", "kind", "seq"),
)
