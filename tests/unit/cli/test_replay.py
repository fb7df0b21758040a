"""`execkit replay`: tables and JSON, and one clear line for everything that is wrong with the input."""

import gzip

import pytest


def test_json_is_one_object_with_what_is_promised(project):
    """Trace hash, orders, fills, denials and P&L, numbers as exact text."""
    told = project.replayed()
    assert len(told["trace_hash"]) == 32
    assert told["bars"] == 300
    assert {order["role"] for order in told["orders"]} >= {"entry", "stop"}
    executed = {fill["client_order_id"] for fill in told["fills"]}
    filled = {o["client_order_id"] for o in told["orders"] if o["state"] == "filled"}
    assert executed == filled
    assert {denial["code"] for denial in told["denials"]} == {"SHORT_NOT_ALLOWED"}
    assert set(told["pnl"]) >= {"realised", "unrealised", "fees", "currency"}
    assert told["pnl"]["trades"] == len(told["trades"])


def test_two_runs_have_one_trace_hash(project):
    """A replay repeats exactly."""
    assert project.replayed() == project.replayed()


def test_tables_say_the_same(project):
    """Orders, trades, refusals with value and limit, and the result; nothing but that on stdout."""
    done = project.replay()
    assert done.exit_code == 0
    for text in (
        "Orders (",
        "Trades (",
        "Refusals (",
        "SHORT_NOT_ALLOWED",
        "realised P&L",
        "trace hash",
    ):
        assert text in done.stdout
    assert "0:00:" not in done.stdout, "the progress bar belongs to stderr"


def test_a_finished_replay_run_again_adds_nothing(project):
    """With a journal the second run goes on where the first ended: at the end."""
    first = project.replayed("--journal", project.folder / "run.db")
    again = project.replayed("--journal", project.folder / "run.db")
    assert again["bars"] == 0
    assert again["resumed_at"] == "2024-01-01T05:00:00+00:00"
    same = ("trace_hash", "orders", "fills", "denials", "positions", "pnl")
    assert {key: again[key] for key in same} == {key: first[key] for key in same}


def test_other_bars_on_the_same_journal_are_refused(project):
    """A journal belongs to the bars that it was made with."""
    project.replayed("--journal", project.folder / "run.db")
    rows = project.rows()
    *before, last = rows
    project.write_bars([*before, last.rsplit(",", 1)[0] + ",1"])
    done = project.replay("--journal", project.folder / "run.db")
    assert done.exit_code == 1
    assert "give the same bars, or another journal" in done.stderr


def test_store_stands_beside_the_journal_when_asked_for(project):
    """`--store` fills it at the end; without a journal there is nothing to stand beside."""
    project.replayed("--journal", project.folder / "run.db", "--store")
    assert (project.folder / "run.db.sqlite").stat().st_size > 0
    done = project.replay("--store")
    assert done.exit_code == 2
    assert "--journal" in done.stderr


def test_compressed_bars_are_the_same_bars(project):
    """A .csv.gz is read as its content."""
    plain = project.replayed()
    packed = project.folder / "bars.csv.gz"
    packed.write_bytes(gzip.compress(project.bars.read_bytes()))
    done = project.run("replay", project.plan, "--bars", packed, "--json")
    assert plain["trace_hash"] in done.stdout


def spoil(row, **changes):
    fields = dict(zip(("t", "o", "h", "l", "c", "v"), row.split(","), strict=True))
    return ",".join((fields | changes).values())


BROKEN_BARS = {
    "gap": (lambda rows: rows[:50] + rows[52:], 52, "2 bars are missing"),
    "duplicate": (lambda rows: [*rows[:50], rows[49], *rows[50:]], 52, "duplicate"),
    "out of order": (lambda rows: [*rows[:48], rows[49], rows[48], *rows[50:]], 50, "missing"),
    "high below low": (
        lambda rows: [*rows[:9], spoil(rows[9], h="1"), *rows[10:]],
        11,
        "below low",
    ),
    "no number": (lambda rows: [*rows[:9], spoil(rows[9], c="abc"), *rows[10:]], 11, "'abc'"),
    "cut row": (lambda rows: [*rows[:-1], rows[-1][:25]], 301, "columns"),
    "no time": (lambda rows: [spoil(rows[0], t="yesterday"), *rows[1:]], 2, "timestamp"),
}


@pytest.mark.parametrize(("break_", "line", "word"), BROKEN_BARS.values(), ids=BROKEN_BARS)
def test_broken_bars_are_named_by_file_and_line(project, break_, line, word):
    """The file is refused before the first bar is played, and no journal is begun."""
    project.write_bars(break_(project.rows()))
    journal = project.folder / "run.db"
    done = project.replay("--journal", journal)
    assert done.exit_code == 1
    assert f"bars.csv:{line}:" in done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not journal.exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "No such file"), (b"\xff\xfe\x00", "cannot be read"), (b"", "column")],
)
def test_unreadable_bars_are_named(project, content, word):
    """A file that is missing, binary or empty."""
    project.bars.unlink()
    if content is not None:
        project.bars.write_bytes(content)
    done = project.replay()
    assert done.exit_code == 1
    assert "bars.csv" in done.stderr
    assert word in done.stderr


BROKEN_PLANS = {
    "unknown key": ("repeat: true\nrepaet: true", "repaet", "did you mean 'repeat'?"),
    "duplicate key": ("symbol: ETH/USDT", "symbol", "comes twice"),
    "wrong type": ("repeat: maybe", "repeat", "true or false"),
    "no yaml": ("a: [", "plan.yaml", ""),
}


@pytest.mark.parametrize(("text", "key", "fix"), BROKEN_PLANS.values(), ids=BROKEN_PLANS)
def test_a_broken_plan_is_named_by_line_and_key(project, text, key, fix):
    """File, line, key and the fix, in one line each."""
    project.plan.write_text(project.plan.read_text() + text + "\n")
    done = project.replay()
    assert done.exit_code == 1
    assert "plan.yaml:" in done.stderr
    assert key in done.stderr
    assert fix in done.stderr


def test_a_wrong_parameter_is_named_by_its_line(project):
    """The parameters of functions are checked while their line is known."""
    project.plan.write_text(
        project.plan.read_text().replace("threshold_price: 40000", "threshold: 1")
    )
    done = project.replay()
    assert done.exit_code == 1
    assert "plan.yaml:4:" in done.stderr
    assert "threshold" in done.stderr


@pytest.mark.parametrize("section", ["bars", "instrument", "account"])
def test_a_plan_without_what_a_replay_needs_says_so(project, section):
    """Each section that is missing is named."""
    lines = project.plan.read_text().splitlines()
    project.plan.write_text("\n".join(line for line in lines if not line.startswith(section)))
    done = project.replay()
    assert done.exit_code == 1
    assert f"{section}: is missing" in done.stderr
