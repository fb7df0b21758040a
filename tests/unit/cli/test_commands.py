"""The smaller commands, and what all commands share."""

import json
import sqlite3
import subprocess
import sys

import pytest
from click.testing import CliRunner

from execkit.cli import main


def test_help_lists_every_command(project):
    """Each with a line on what it does."""
    done = project.run("--help")
    for command in ("config", "conformance", "demo", "replay", "store", "verify"):
        assert f"  {command} " in done.stdout


def test_version(project):
    """The version is the package's."""
    assert project.run("--version").stdout.startswith("execkit, version 0.")


def test_the_package_is_the_command():
    """`python -m execkit` does what `execkit` does, and calls itself by that name."""
    done = subprocess.run(
        [sys.executable, "-m", "execkit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("execkit, version 0.")


def test_unknown_commands_are_refused(project):
    """With exit code 2, as click does."""
    assert project.run("trade").exit_code == 2


@pytest.fixture
def journal(project):
    path = project.folder / "run.db"
    project.replayed("--journal", path)
    return path


def test_verify_tells_what_is_whole(project, journal):
    """Records, segments, and the head to keep elsewhere."""
    done = project.run("verify", journal)
    assert done.exit_code == 0
    assert "whole;" in done.stdout
    assert "head " in done.stdout


def test_verify_names_the_damaged_line(project, journal):
    """A changed character breaks the chain at its line."""
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"2024", b"2025", 1)
    journal.write_bytes(b"".join(lines))
    done = project.run("verify", journal)
    assert done.exit_code == 1
    assert f"{journal}, line 5:" in done.stderr


def test_verify_shows_an_unfinished_line(project, journal):
    """What a crash left is no damage."""
    with journal.open("ab") as file:
        file.write(b'{"seq":')
    done = project.run("verify", journal)
    assert done.exit_code == 0
    assert "unfinished line" in done.stdout


@pytest.mark.parametrize("command", [("verify",), ("store", "rebuild")])
def test_a_journal_that_is_not_there_is_named(project, command):
    """One line, and a code."""
    done = project.run(*command, project.folder / "nothing.db")
    assert done.exit_code == 1
    assert "nothing.db" in done.stderr
    assert "Traceback" not in done.output


def test_store_is_rebuilt_from_the_journal(project, journal):
    """Orders in the tables are the orders of the replay."""
    done = project.run("store", "rebuild", journal)
    assert done.exit_code == 0, done.output
    told = project.replayed("--journal", journal)
    with sqlite3.connect(f"{journal}.sqlite") as store:
        rows = store.execute("select client_order_id, state from orders").fetchall()
    store.close()
    assert dict(rows) == {order["client_order_id"]: order["state"] for order in told["orders"]}


def test_store_that_cannot_be_written_is_one_line(project, journal):
    """The database's own words, and the way out."""
    done = project.run("store", "rebuild", journal, "--url", "sqlite:////nowhere/at/all.sqlite")
    assert done.exit_code == 1
    assert "Traceback" not in done.output


CONFIG = """\
exchange:
  name: paper
  options: {balances: {USDT: 1000}}
plans: [plan.yaml]
"""


def test_config_check_accepts_what_is_good(project):
    """It names exchange, journal and plans, and opens nothing."""
    path = project.folder / "execkit.yaml"
    path.write_text(CONFIG)
    done = project.run("config", "check", path)
    assert done.exit_code == 0, done.output
    assert "swing" in done.stdout
    assert not (project.folder / "orders.db").exists()


BAD = {
    "unknown key": ("risk: {max_size_pc: 3}\n", "risk.max_size_pc", "did you mean 'max_size_pct'?"),
    "duplicate key": ("plans: []\n", "plans", "comes twice"),
    "wrong type": ("reconcile_every: soon\n", "reconcile_every", "not a duration"),
    "secret": ("exchange2: {api_key: x}\n", "api_key", "environment variable"),
}


@pytest.mark.parametrize(("text", "key", "fix"), BAD.values(), ids=BAD)
def test_config_check_names_line_key_and_fix(project, text, key, fix):
    """Exit code 1 and no traceback."""
    path = project.folder / "execkit.yaml"
    path.write_text(CONFIG + text)
    done = project.run("config", "check", path)
    assert done.exit_code == 1
    assert f"{path}:5:" in done.stderr
    assert key in done.stderr
    assert fix in done.stderr


@pytest.mark.parametrize(
    ("name", "word"), [("kraken9", "is unknown; known are"), ("paper", "has no option 'blances'")]
)
def test_config_check_knows_exchanges_and_their_options(project, name, word):
    """An exchange that nobody registered, and an option that its adapter lacks."""
    path = project.folder / "execkit.yaml"
    path.write_text(f"exchange: {{name: {name}, options: {{blances: {{}}}}}}\n")
    done = project.run("config", "check", path)
    assert done.exit_code == 1
    assert word in done.stderr


def test_demo_shows_something_of_everything(project):
    """A stop-out, a target, an exit by function, a time-out and many kinds of refusal."""
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 0, done.output
    codes = (
        "CONFLUENCE_TOO_LOW",
        "SHORT_NOT_ALLOWED",
        "STOP_LOSS_WRONG_SIDE",
        "STOP_TOO_FAR",
        "RISK_REWARD_TOO_LOW",
        "NOTIONAL_TOO_LARGE",
        "QUANTITY_OFF_LOT",
        "SYMBOL_UNKNOWN",
        "POSITION_EXISTS",
        "TOO_MANY_POSITIONS",
    )
    for text in (*codes, "exit", "stop", "target", "rested longer", "realised P&L"):
        assert text in done.stdout
    assert "Alarms" not in done.stdout


def test_demo_keeps_a_journal_when_asked(project):
    """With its store; and never writes over one."""
    path = project.folder / "demo.db"
    done = project.run("demo", "--journal", path)
    assert done.exit_code == 0, done.output
    assert (project.folder / "demo.db.sqlite").exists()
    assert project.run("verify", path).exit_code == 0
    again = project.run("demo", "--journal", path)
    assert again.exit_code == 1
    assert "there already" in again.stderr


def test_another_seed_is_another_day(project):
    """And the same seed the same day."""
    hashes = [project.run("demo", "--seed", seed).stdout.splitlines()[-1] for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert json.dumps(hashes).count("trace hash") == 3
