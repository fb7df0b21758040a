"""The store behind the journal."""

import sqlite3
import threading

import pytest
from sqlalchemy.exc import OperationalError

from execkit.errors import JournalCorruptedError, JournalError
from execkit.journal.segments import archive_path
from execkit.model.order import Side
from execkit.model.records import Alarm
from execkit.store import feed as feeding
from execkit.store import projection, schema
from execkit.store.feed import StoreFeed, rebuild
from execkit.store.queries import StoreReader


@pytest.fixture
def feed(path):
    made = StoreFeed(path)
    yield made
    made.close()


@pytest.fixture
def file(path):
    return path.with_name("orders.db.sqlite")


def dump(file):
    connection = sqlite3.connect(file)
    tables = [name for name in schema.metadata.tables if name != "meta"]
    rows = {n: connection.execute(f'SELECT * FROM "{n}" ORDER BY 1, 2').fetchall() for n in tables}
    connection.close()
    return rows


def seqs(file):
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT seq FROM alarms ORDER BY seq").fetchall()
    connection.close()
    return [seq for (seq,) in rows]


async def shout(story, count=1):
    story.tell(*[Alarm(code="c", text="t")] * count)
    await story.journal.commit()


async def test_the_store_follows_the_journal(open_story, feed, file):
    """Each pass writes what was written since, also after a restart of the store's side."""
    story = open_story()
    await shout(story, 2)
    assert feed.catch_up() == 2
    assert feed.catch_up() == 2
    await shout(story)
    story.tell(Alarm(code="c", text="not written yet"))
    assert feed.catch_up() == 3
    feed.close()
    await shout(story)
    assert feed.catch_up() == 5
    assert seqs(file) == [1, 2, 3, 4, 5]
    await story.journal.close()


async def test_a_long_journal_is_written_in_parts(open_story, feed, file, monkeypatch):
    """No transaction is long."""
    story = open_story()
    await shout(story, 2 * feeding.BATCH + 1)
    flushes = []
    flush = projection.Projection.flush
    monkeypatch.setattr(projection.Projection, "flush", lambda p: (flushes.append(p), flush(p)))
    assert feed.catch_up() == 2 * feeding.BATCH + 1
    assert len(flushes) == 4
    assert len(seqs(file)) == 2 * feeding.BATCH + 1
    await story.journal.close()


async def test_orders_go_on_after_a_restart(open_story, feed, path, file):
    """The fold starts from the journal's own snapshot, so the store keeps no state for it."""
    story = open_story(segment_bytes=8000)
    for names in ("ab", "cd", "e"):
        for name in names:
            story.intend(f"{name}-open")
            story.order(name)
            await story.journal.commit()
            story.order(f"{name}-out", price="101", side=Side.SELL)
            await story.journal.commit()
        assert feed.catch_up() == story.journal.last_seq
        feed.close()
    assert archive_path(path, 1).exists()
    with StoreReader(projection.default_url(path)) as reader:
        assert [p["realised_pnl"] for p in reader.positions()] == [1] * 5
        assert len(reader.orders(state="filled")) == 10
        assert len(reader.orders(state="new")) == 5
    await story.journal.close()
    stepwise = dump(file)
    assert rebuild(path) == story.journal.last_seq
    assert dump(file) == stepwise


async def test_a_locked_store_is_waited_for(open_story, feed, file, monkeypatch):
    """The lock of another program delays the store, and nothing else (G12)."""
    monkeypatch.setattr(projection, "LOCK_SECONDS", 0.01)
    story = open_story()
    await shout(story)
    feed.catch_up()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await shout(story, 2)
    for _ in range(2):
        with pytest.raises(OperationalError, match="database is locked"):
            feed.catch_up()
    await shout(story)
    other.execute("COMMIT")
    other.close()
    assert feed.catch_up() == 4
    assert seqs(file) == [1, 2, 3, 4]
    await story.journal.close()


async def test_a_full_store_is_waited_for(open_story, feed, file):
    """Without room the store stands still, and goes on when there is some (G11)."""
    story = open_story()
    await shout(story)
    feed.catch_up()
    engine = feed._open[0]._engine
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    story.tell(*[Alarm(code="c", text="x" * 100_000)] * 3)
    await story.journal.commit()
    with pytest.raises(OperationalError, match="full"):
        feed.catch_up()
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert feed.catch_up() == 4
    assert seqs(file) == [1, 2, 3, 4]
    await story.journal.close()


@pytest.mark.parametrize("damage", ["no database", "pages", "rows"])
async def test_a_damaged_store_is_made_anew(open_story, feed, file, damage):
    """Everything in it comes from the journal (G14)."""
    story = open_story()
    await shout(story, 300)
    feed.catch_up()
    whole = dump(file)
    feed.close()
    if damage == "no database":
        file.write_bytes(b"this is no database, and never was one" * 100)
    elif damage == "pages":
        data = bytearray(file.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        file.write_bytes(data)
    else:
        connection = sqlite3.connect(file)
        connection.execute("UPDATE meta SET last_seq = 100, chain = 'forged'")
        connection.commit()
        connection.close()
    assert feed.catch_up() == 300
    assert dump(file) == whole
    await story.journal.close()


async def test_rows_that_are_there_already_make_the_store_anew(open_story, feed, file):
    """A store that somebody wrote to is not patched."""
    story = open_story()
    await shout(story)
    feed.catch_up()
    connection = sqlite3.connect(file)
    connection.execute(
        "INSERT INTO alarms SELECT 2, at, code, text, symbol, client_order_id FROM alarms"
    )
    connection.commit()
    connection.close()
    await shout(story, 2)
    assert feed.catch_up() == 3
    assert seqs(file) == [1, 2, 3]
    await story.journal.close()


async def test_a_store_of_another_version_is_made_anew(open_story, feed, file, monkeypatch):
    """New tables come from the journal; there is nothing to migrate."""
    story = open_story()
    await shout(story)
    feed.catch_up()
    feed.close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    assert feed.catch_up() == 1
    assert seqs(file) == [1]
    await story.journal.close()


@pytest.mark.parametrize("count", [1, 5])
async def test_a_store_of_another_journal_is_made_anew(open_story, feed, path, file, count):
    """Its last record is not in this journal, so nothing in it can be trusted."""
    story = open_story()
    await shout(story, 3)
    feed.catch_up()
    feed.close()
    await story.journal.close()
    path.unlink()
    story = open_story()
    story.tell(*[Alarm(code="other", text="t")] * count)
    await story.journal.close()
    assert feed.catch_up() == count
    assert seqs(file) == list(range(1, count + 1))


async def test_segments_that_were_moved_away_leave_a_gap(open_story, feed, path, file, capsys):
    """What cannot be read is left out and said; the rest is there, in the right state."""
    story = open_story(segment_bytes=2000)
    for name in "abcd":
        story.order(name)
        await story.journal.commit()
    await story.journal.close()
    archive_path(path, 1).unlink()
    assert feed.catch_up() == story.journal.last_seq
    assert "store.gap" in capsys.readouterr().out
    with StoreReader(projection.default_url(path)) as reader:
        assert 0 < len(reader.orders()) < 4
        assert reader.positions()[-1]["quantity"] == 4


async def test_the_thread_follows_and_stops(open_story, feed, file, monkeypatch):
    """Between start and stop the store is never far behind, and at the end it has everything."""
    monkeypatch.setattr(feeding, "POLL_SECONDS", 0.001)
    story = open_story()
    reached = threading.Event()
    catch_up = StoreFeed.catch_up

    def watched(self):
        if catch_up(self) == feeding.BATCH:
            reached.set()

    monkeypatch.setattr(StoreFeed, "catch_up", watched)
    feed.start()
    await shout(story, feeding.BATCH)
    assert reached.wait(10)
    await shout(story)
    await story.journal.close()
    feed.stop()
    assert len(seqs(file)) == feeding.BATCH + 1
    assert "execkit-store" not in {thread.name for thread in threading.enumerate()}


async def test_a_thread_that_is_far_behind_stops_at_once(open_story, feed, file, monkeypatch):
    """What is left is written faster without the trading loop to care for."""
    monkeypatch.setattr(feeding, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(feeding, "BREATH_SECONDS", 0.01)
    story = open_story()
    await shout(story, 1000)
    await story.journal.close()
    flush = projection.Projection.flush
    reached = threading.Event()
    threads = []

    def watched(self):
        flush(self)
        threads.append(threading.current_thread().name)
        reached.set()

    monkeypatch.setattr(projection.Projection, "flush", watched)
    feed.start()
    assert reached.wait(10)
    feed.stop()
    assert seqs(file) == list(range(1, 1001))
    assert threads.count("execkit-store") < 10
    assert threads[-1] == "MainThread"


async def test_without_a_thread_stop_catches_up(open_story, feed, file):
    """Under virtual time the store is written at the end."""
    story = open_story()
    await shout(story)
    await story.journal.close()
    feed.stop()
    assert seqs(file) == [1]


async def test_trouble_is_told_once_and_stops_nothing(open_story, feed, file, monkeypatch, capsys):
    """A store out of reach is a warning, not one each quarter of a second."""
    monkeypatch.setattr(projection, "LOCK_SECONDS", 0)
    story = open_story()
    await shout(story)
    feed.catch_up()
    await shout(story)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert [feed._attempt() for _ in range(3)] == [True] * 3
    assert capsys.readouterr().out.count("store.behind") == 1
    other.execute("COMMIT")
    other.close()
    assert feed._attempt()
    assert seqs(file) == [1, 2]
    await story.journal.close()


async def test_a_damaged_journal_ends_the_feed_quietly(open_story, path, feed, file, capsys):
    """The store is not the place where a damaged journal stops the program."""
    story = open_story()
    await shout(story, 2)
    await story.journal.close()
    path.write_bytes(path.read_bytes().replace(b'"text":"t"', b'"text":"u"', 1))
    with pytest.raises(JournalCorruptedError):
        feed.catch_up()
    feed.start()
    feed._thread.join()
    feed.stop()
    assert "store.stopped" in capsys.readouterr().out


def test_without_a_journal_there_is_nothing_to_rebuild_from(path):
    """The error names the journal."""
    with pytest.raises(JournalError, match=r"orders\.db cannot be read: No such file"):
        rebuild(path)


async def test_other_databases_are_emptied_by_their_tables(open_story, path, tmp_path, monkeypatch):
    """Only the file of SQLite can be deleted; elsewhere our tables are dropped."""
    story = open_story()
    await shout(story)
    await story.journal.close()
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    rebuild(path, elsewhere)
    make_url = feeding.make_url
    monkeypatch.setattr(feeding, "make_url", lambda url: make_url("postgresql://"))
    feed = StoreFeed(path, elsewhere)
    feed.erase()
    connection = sqlite3.connect(tmp_path / "elsewhere.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
