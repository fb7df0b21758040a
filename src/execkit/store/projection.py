"""The projection: the journal's records, folded as everywhere else, written as rows.

The store is never asked by the money path. It can be deleted at any time: everything in it comes from the journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    make_url,
    select,
)

from execkit.model.position import Position
from execkit.model.records import (
    CommandSent,
    Entry,
    ExternalChange,
    Filled,
    Intent,
    OrderChanged,
    Record,
    StopMoved,
)
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.store import schema
from execkit.store.rows import Row, order_row, position_number, position_row, record_rows

LOCK_SECONDS = 1.0
"""How long a write waits for another process's lock on the store."""

KEEP_EVALUATIONS = timedelta(days=30)
"""How long what functions said stays in the store; the journal's segments keep it for good."""
_PRUNE_EVERY = timedelta(hours=1)


def _go_on() -> None:
    return None


class StaleStoreError(Exception):
    """The store was made by another version or from another journal: rebuild it."""


def default_url(journal: str | os.PathLike[str]) -> str:
    """Return the address of the store that belongs to a journal: `orders.db` has `orders.db.sqlite`."""
    place = Path(journal).absolute()
    return str(URL.create("sqlite", database=f"{place}.sqlite"))


def open_engine(db_url: str) -> Engine:
    """Return an engine for writing; an SQLite file is made private to its owner."""
    url = make_url(db_url)
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    if url.database:
        Path(url.database).touch(mode=0o600)
    engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A read that turns into a write fails at once when somebody else has written meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class _Batch(msgspec.Struct):
    """What the records folded since the last write have changed."""

    seq: int
    chain: str
    rows: dict[Table, list[Row]] = {}
    orders: dict[str, ManagedOrder] = {}
    symbols: set[str] = set()
    """Symbols whose positions changed."""
    replaced: list[Row] = []
    """Fills that were corrected."""


class Projection:
    """Writes the journal's records into the store.

    Records are given in order, from the journal's beginning or from a snapshot (see `restore`). Those that the
    store has already only bring the fold up to date, so giving everything again changes nothing. Raises what
    SQLAlchemy raises when the store cannot be written; the records of that batch are written with the next.
    *breathe* is called between the statements of a write. Evaluations older than *keep* are taken out as the newest
    record's time goes on; None keeps them all.
    """

    def __init__(
        self,
        db_url: str,
        *,
        breathe: Callable[[], None] = _go_on,
        keep: timedelta | None = KEEP_EVALUATIONS,
    ) -> None:
        self._breathe = breathe
        self._keep = keep
        self._at: datetime | None = None
        self._pruned_at: datetime | None = None
        self._engine = open_engine(db_url)
        self._book = Book()
        self._folded = 0
        self._written: dict[str, list[Position]] = {}
        try:
            with self._engine.begin() as connection:
                schema.metadata.create_all(connection)
                row = connection.execute(select(schema.meta)).one_or_none()
                if row is None:
                    first = {"version": schema.VERSION, "last_seq": 0, "chain": ""}
                    connection.execute(schema.meta.insert(), first)
        except BaseException:
            self.close()
            raise
        if row is not None and row.version != schema.VERSION:
            self.close()
            raise StaleStoreError(f"its tables have version {row.version}, not {schema.VERSION}")
        self.last_seq: int = 0 if row is None else row.last_seq
        """Number of the last record in the store."""
        self.chain: str = "" if row is None else row.chain
        """The journal's hash there."""
        self._batch = _Batch(self.last_seq, self.chain)

    def restore(self, snapshot: bytes | None, seq: int) -> None:
        """Begin with the state that the journal had after record *seq*."""
        self._book = Book() if snapshot is None else Book.restore(snapshot)
        self._folded = seq

    def apply(self, entries: Iterable[Entry]) -> None:
        """Fold records and write what is new in one transaction."""
        for entry in entries:
            self.fold(entry)
        self.flush()

    def fold(self, entry: Entry, chain: str = "") -> None:
        """Fold one record; *chain* is the journal's hash after it."""
        if entry.seq <= self._folded:
            return
        record = entry.record
        is_known = isinstance(record, Filled) and self._book.knows_fill(record.fill)
        self._book.apply(record, entry.at)
        self._folded = entry.seq
        if entry.seq <= self.last_seq:
            return
        self._batch.seq, self._batch.chain = entry.seq, chain
        self._at = entry.at
        if not is_known:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        batch, record = self._batch, entry.record
        order = self._order_of(record)
        for table, row in record_rows(entry, order):
            batch.rows.setdefault(table, []).append(row)
        if order is not None:
            batch.orders[order.client_order_id] = order
        if isinstance(record, (ExternalChange, StopMoved)):
            batch.symbols.add(record.symbol)
        elif isinstance(record, Filled):
            fill = record.fill
            batch.symbols.add(fill.symbol)
            if fill.replaces is not None:
                batch.replaced.append(
                    {
                        "its_symbol": fill.symbol,
                        "its_trade": fill.replaces,
                        "its_side": fill.side.value,
                        "before": entry.seq,
                    }
                )

    def _order_of(self, record: Record) -> ManagedOrder | None:
        orders = self._book.orders
        match record:
            case Intent():
                return orders.get(record.request.client_order_id)
            case OrderChanged() | CommandSent():
                return orders.get(record.client_order_id)
            case Filled():
                return orders.find(record.fill.client_order_id, record.fill.venue_order_id)
        return None

    def flush(self) -> None:
        """Write what was folded, in one transaction."""
        batch = self._batch
        if batch.seq == self.last_seq:
            return
        positions = self._positions_of(batch.symbols)
        with self._engine.begin() as connection:
            for table, rows in batch.rows.items():
                connection.execute(table.insert(), rows)
                self._breathe()
            if batch.replaced:
                connection.execute(_MARK_REPLACED, batch.replaced)
            _replace(connection, schema.orders, list(map(order_row, batch.orders.values())))
            for symbol, current in positions.items():
                self._breathe()
                self._write_positions(connection, symbol, current)
            self._prune(connection)
            self._breathe()
            connection.execute(schema.meta.update().values(last_seq=batch.seq, chain=batch.chain))
        self._written.update(positions)
        self.last_seq, self.chain = batch.seq, batch.chain
        self._batch = _Batch(self.last_seq, self.chain)

    def _prune(self, connection: Connection) -> None:
        """Take out the evaluations that are too old by the journal's own time, now and then."""
        now, last = self._at, self._pruned_at
        if self._keep is None or now is None or (last is not None and now - last < _PRUNE_EVERY):
            return
        self._pruned_at = now
        table = schema.evaluations
        connection.execute(table.delete().where(table.c.at < now - self._keep))

    def _positions_of(self, symbols: set[str]) -> dict[str, list[Position]]:
        """Return the positions of each symbol that are in memory, oldest first."""
        found: dict[str, list[Position]] = {symbol: [] for symbol in symbols}
        for position in self._book.positions.closed:
            if position.symbol in found:
                found[position.symbol].append(position)
        for symbol in symbols & self._book.positions.open.keys():
            found[symbol].append(self._book.positions.open[symbol])
        return found

    def _write_positions(
        self, connection: Connection, symbol: str, current: list[Position]
    ) -> None:
        written = {position.position_id: position for position in self._written.get(symbol, ())}
        changed = [p for p in current if written.get(p.position_id) != p]
        _replace(connection, schema.positions, list(map(position_row, changed)))
        # A busted or late trade can undo the last positions.
        last = position_number(current[-1]) if current else 0
        table = schema.positions.c
        connection.execute(
            schema.positions.delete().where(table.symbol == symbol, table.number > last)
        )

    def close(self) -> None:
        """Close the connections; what was not written yet comes from the journal the next time."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MARK_REPLACED = (
    schema.fills.update()
    .where(
        schema.fills.c.symbol == bindparam("its_symbol"),
        schema.fills.c.trade_id == bindparam("its_trade"),
        schema.fills.c.side == bindparam("its_side"),
        schema.fills.c.seq < bindparam("before"),
    )
    .values(counts=False)
)


def _replace(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Write rows in the place of those with the same key, in the words every database knows."""
    if rows:
        (key,) = table.primary_key.columns
        keys = [{"its_key": row[key.name]} for row in rows]
        connection.execute(table.delete().where(key == bindparam("its_key")), keys)
        connection.execute(table.insert(), rows)
