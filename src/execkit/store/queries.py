"""Reading the store: rows as dicts, with exact numbers and aware times.

Everything here can also be asked in SQL, on the tables of `schema`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from sqlalchemy import Column, Table, create_engine, make_url, select

from execkit.errors import ConfigurationError
from execkit.model.result import Outcome
from execkit.store import schema

Row = dict[str, Any]


class Span(TypedDict, total=False):
    """Which rows of those that match: from *since* until before *until*, and of these the newest *limit*."""

    since: datetime
    until: datetime
    limit: int


class StoreReader:
    """Asks the store at a SQLAlchemy address; raises `ConfigurationError` when there is no such file.

    Every query gives its rows oldest first; see `Span` for the arguments they share.
    """

    def __init__(self, db_url: str) -> None:
        url = make_url(db_url)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise ConfigurationError(
                f"db_url: there is no store at {url.database!r}; rebuild it from the journal"
            )
        self._engine = create_engine(url)

    def orders(
        self, *, symbol: str | None = None, state: str | None = None, **span: Unpack[Span]
    ) -> list[Row]:
        """Return orders, by time of creation."""
        return self._rows(schema.orders, "created_at", span, symbol=symbol, state=state)

    def order_events(self, client_order_id: str, **span: Unpack[Span]) -> list[Row]:
        """Return the life of one order."""
        return self._rows(schema.order_events, "at", span, client_order_id=client_order_id)

    def fills(
        self,
        *,
        symbol: str | None = None,
        client_order_id: str | None = None,
        **span: Unpack[Span],
    ) -> list[Row]:
        """Return the executions that count, by the venue's time; corrected ones are left out."""
        return self._rows(
            schema.fills,
            "at",
            span,
            symbol=symbol,
            client_order_id=client_order_id,
            counts=True,
        )

    def positions(
        self, *, symbol: str | None = None, state: str | None = None, **span: Unpack[Span]
    ) -> list[Row]:
        """Return positions, open and closed, by time of opening."""
        return self._rows(schema.positions, "opened_at", span, symbol=symbol, state=state)

    def position_fills(self, position_id: str) -> list[Row]:
        """Return the executions that opened, changed and closed one position, each with its order's *role*.

        A trade that turned the position around is in both. Raises `ConfigurationError` for an unknown id.
        """
        fills, orders, positions = schema.fills, schema.orders, schema.positions
        with self._engine.connect() as connection:
            query = select(positions).where(positions.c.position_id == position_id)
            position = connection.execute(query).mappings().one_or_none()
            if position is None:
                raise ConfigurationError(f"position_id: there is no position {position_id!r}")
            # The positions of one symbol follow each other, so that time tells which of them a fill is of.
            found = (
                select(fills, orders.c.role)
                .join(orders, orders.c.client_order_id == fills.c.client_order_id, isouter=True)
                .where(fills.c.symbol == position["symbol"], fills.c.counts.is_(True))
                .where(fills.c.at >= position["opened_at"])
                .order_by(fills.c.at, fills.c.seq)
            )
            if position["closed_at"] is not None:
                found = found.where(fills.c.at <= position["closed_at"])
            return [dict(row) for row in connection.execute(found).mappings()]

    def results(
        self, *, symbol: str | None = None, outcome: str | None = None, **span: Unpack[Span]
    ) -> list[Row]:
        """Return what callers were told, each with the verdicts of the handlers."""
        rows = self._rows(schema.results, "at", span, symbol=symbol, outcome=outcome)
        table = schema.verdicts
        with self._engine.connect() as connection:
            for row in rows:
                query = (
                    select(table.c.handler, table.c.verdict, table.c.reason)
                    .where(table.c.seq == row["seq"])
                    .order_by(table.c.place)
                )
                row["verdicts"] = [dict(found) for found in connection.execute(query).mappings()]
        return rows

    def denials(self, *, symbol: str | None = None, **span: Unpack[Span]) -> list[Row]:
        """Return the signals that execkit refused, with code, value and limit."""
        return self.results(symbol=symbol, outcome=Outcome.DENIED, **span)

    def evaluations(
        self,
        *,
        symbol: str | None = None,
        function: str | None = None,
        action: str | None = None,
        **span: Unpack[Span],
    ) -> list[Row]:
        """Return what functions said at bar closes, by time of the close."""
        return self._rows(
            schema.evaluations,
            "close_time",
            span,
            symbol=symbol,
            function=function,
            action=action,
        )

    def alarms(self, *, symbol: str | None = None, **span: Unpack[Span]) -> list[Row]:
        """Return what a person had to know."""
        return self._rows(schema.alarms, "at", span, symbol=symbol)

    def _rows(self, table: Table, time: str, span: Span, **equal: object) -> list[Row]:
        at: Column[datetime] = table.c[time]
        # Keys settle the order of equal times.
        newest_first = [at.desc(), *(key.desc() for key in table.primary_key.columns)]
        query = select(table).order_by(*newest_first).limit(span.get("limit"))
        for name, value in equal.items():
            if value is not None:
                query = query.where(table.c[name] == value)
        if "since" in span:
            query = query.where(at >= span["since"])
        if "until" in span:
            query = query.where(at < span["until"])
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [dict(row) for row in reversed(rows)]

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
