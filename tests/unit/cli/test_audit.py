"""`execkit check`, `execkit audit` and `execkit verify-audit`, as people call them."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from click import UsageError

from execkit.cli.audit import moment
from execkit.clock import ManualClock


@pytest.fixture
def journal(project):
    """The journal of a replay."""
    path = project.folder / "run.db"
    project.replayed("--journal", path)
    return path


def entries(project, journal, *options):
    done = project.run("audit", journal, "--format", "json", *options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# -- check ---------------------------------------------------------------------------------------------


def test_check_shows_a_good_plan(project):
    """What it trades, by which functions, and whether a replay can run."""
    done = project.run("check", project.plan)
    assert done.exit_code == 0, done.output
    assert f"{project.plan}: swing is good" in done.stdout
    assert "entry   close_above at 5m, close_below at 5m" in done.stdout
    assert "replay  has all that it needs" in done.stdout


def test_check_tells_all_that_is_wrong(project):
    """Each with file, line, key and fix; the good ones are told as well; exit code 1."""
    bad = project.folder / "bad.yaml"
    bad.write_text(
        project.plan.read_text().replace("40000", "ON").replace("39800", "-1").replace("swing", "b")
    )
    done = project.run("check", bad, project.plan)
    assert done.exit_code == 1
    assert "swing is good" in done.stdout
    assert (
        f"{bad}:4: entry[0].parameters.threshold_price: 'ON' is text, not a number" in done.stderr
    )
    assert f"{bad}:7: exit[0].parameters.threshold_price: -1 is wrong" in done.stderr


def test_check_finds_names_that_come_twice(project):
    """Two plans of one name cannot run together."""
    other = project.folder / "other.yaml"
    other.write_text(project.plan.read_text())
    done = project.run("check", project.plan, other)
    assert done.exit_code == 1
    assert f"{other}: plan 'swing' is in {project.plan} too; rename one" in done.stderr


def test_check_takes_plug_ins_from_a_configuration(project):
    """A configuration that is wrong is told; one without plug-ins changes nothing."""
    config = project.folder / "execkit.yaml"
    config.write_text("functions: {plugins: [nobody]}\n")
    done = project.run("check", project.plan, "--config", config)
    assert done.exit_code == 1
    assert "plug-in 'nobody' is not installed" in done.stderr
    config.write_text("exchange: {name: paper}\n")
    assert project.run("check", project.plan, "--config", config).exit_code == 0


# -- audit ---------------------------------------------------------------------------------------------


def test_audit_tells_what_became_of_each(project, journal):
    """The orders of a replay are those of its evaluations."""
    every = entries(project, journal)
    made = [entry for entry in every if entry["signal_id"]]
    assert made
    assert {entry["outcome"] for entry in made} <= {
        "filled",
        "denied",
        "working",
        "partially_filled",
    }
    assert entries(project, journal, "--action", "enter_long") == [
        entry for entry in every if entry["action"] == "enter_long"
    ]
    filled = next(entry for entry in made if entry["outcome"] == "filled")
    assert filled["client_order_ids"]
    assert float(filled["average_price"]) > 0
    assert filled["parameters"]["threshold_price"]


def test_audit_narrows(project, journal):
    """By market, function and time; the newest first to be kept."""
    every = entries(project, journal)
    assert entries(project, journal, "--symbol", "ETH/USDT") == []
    assert entries(project, journal, "--limit", "3") == every[-3:]
    since = every[10]["close_time"]
    assert entries(project, journal, "--since", since) == [
        entry for entry in every if entry["close_time"] >= since
    ]
    below = entries(project, journal, "--function", "close_below", "--plan", "swing")
    assert {entry["function"] for entry in below} == {"close_below"}


def test_audit_as_table_and_csv(project, journal):
    """For people, and for spreadsheets."""
    done = project.run("audit", journal, "--action", "enter_long")
    assert done.exit_code == 0
    assert "what came of it" in done.stdout
    assert "filled" in done.stdout
    done = project.run("audit", journal, "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == len(entries(project, journal))
    assert "Nothing matches." in project.run("audit", journal, "--symbol", "X").stdout


def test_audit_writes_files(project, journal):
    """Parquet needs a file; the others may have one."""
    assert project.run("audit", journal, "--format", "parquet").exit_code == 2
    for form in ("parquet", "csv", "json", "table"):
        path = project.folder / f"audit.{form}"
        done = project.run("audit", journal, "--format", form, "--output", path)
        assert (done.exit_code, done.stdout) == (0, "")
        assert path.stat().st_size > 100
    nowhere = project.folder / "no" / "file"
    done = project.run("audit", journal, "--format", "csv", "--output", nowhere)
    assert done.exit_code == 1
    assert "cannot be written: No such file" in done.stderr


def test_times_people_write():
    """Ages, days, and times with a zone; one without is refused."""
    clock = ManualClock()
    assert moment(None, clock) is None
    assert moment("90m", clock) == clock.now() - timedelta(minutes=90)
    assert moment("7d", clock) == clock.now() - timedelta(days=7)
    assert moment("2024-01-31", clock) == datetime(2024, 1, 31, tzinfo=UTC)
    assert moment("2024-01-31T09:30:00+01:00", clock) == datetime(2024, 1, 31, 8, 30, tzinfo=UTC)
    for text, message in (
        ("yesterday", "is no time; write 30m"),
        ("2024-01-31T09:30", "no time zone"),
    ):
        with pytest.raises(UsageError, match=message):
            moment(text, clock)


# -- verify-audit --------------------------------------------------------------------------------------


def test_verify_audit_notes_and_compares(project, journal):
    """The noted head agrees as long as nothing is taken away."""
    anchors = project.folder / "elsewhere"
    noted = project.run("verify-audit", journal, "--anchors", anchors, "--note")
    assert noted.exit_code == 0, noted.output
    assert "agrees with 0 anchors" in noted.stdout
    again = project.run("verify-audit", journal, "--anchors", anchors)
    assert "agrees with 1 anchors" in again.stdout
    assert again.stdout.splitlines()[-1] == noted.stdout.splitlines()[-1]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    (project.folder / "run.db.lock").unlink()
    assert project.run("verify-audit", journal).exit_code == 0
    cut = project.run("verify-audit", journal, "--anchors", anchors)
    assert cut.exit_code == 1
    assert "its end was cut off" in cut.stderr


def test_verify_audit_says_what_it_needs(project, journal):
    """A missing file of anchors is an error, unless it is to be begun."""
    assert project.run("verify-audit", journal, "--note").exit_code == 2
    done = project.run("verify-audit", journal, "--anchors", project.folder / "none")
    assert done.exit_code == 1
    assert "none: cannot be read: No such file" in done.stderr
