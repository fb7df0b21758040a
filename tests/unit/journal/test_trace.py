"""The trace hash."""

import re

from execkit.journal.base import MemoryJournal
from execkit.journal.segments import trace_hash_of_file
from execkit.journal.trace import TraceHash, trace_hash
from execkit.model.records import Alarm


async def test_memory_and_file_give_the_same_trace(bench):
    """The same records at the same times have one hash, wherever they are kept and however they were batched."""
    memory = MemoryJournal()
    journal = bench.open(segment_bytes=450, snapshot=lambda: b"state")
    for number in range(10):
        bench.note(journal, number)
        memory.append(Alarm(code="note", text=str(number)), bench.clock.now())
        if number % 3 == 0:
            await journal.commit()
    await journal.close()
    assert len(list(bench.path.parent.glob("orders.db.0*"))) >= 2
    assert trace_hash_of_file(bench.path) == trace_hash(memory.entries)


async def test_openings_do_not_enter_the_trace(bench):
    """A restart that records nothing leaves the trace as it was."""
    journal = bench.open()
    bench.note(journal)
    await journal.close()
    before = trace_hash_of_file(bench.path)
    await bench.open().close()
    assert trace_hash_of_file(bench.path) == before


def test_trace_is_added_up_record_by_record(bench):
    """The running hash after n records is the hash of these n, and depends on the clock times."""
    memory = MemoryJournal()
    running = TraceHash()
    for number in range(3):
        bench.note(memory, number)
        running.add(memory.entries[-1])
        assert running.hexdigest() == trace_hash(memory.entries)
    assert re.fullmatch("[0-9a-f]{32}", running.hexdigest())
    other = MemoryJournal()
    for number in range(3):
        bench.note(other, number)
    assert trace_hash(other.entries) != running.hexdigest()
