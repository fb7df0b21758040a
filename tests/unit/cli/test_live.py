"""`execkit paper` and `execkit run`: what they build and refuse. That they trade, the wire tests show."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs
import pytest
import structlog
from click.testing import CliRunner

from execkit.cli import main
from execkit.testing import MockExchange

PLAN = """
name: breakout
symbol: BTC/USDT
entry: [{function: close_above, timeframe: 1m, parameters: {threshold_price: 50000}}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    structlog.reset_defaults()  # the command line configures logging, which outlives the test


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


class Streaming(MockExchange):
    """A venue with bars, of which none closes as long as a test lasts."""

    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, bar_stream=True, bar_history=True)

    async def watch_bars(self, symbols, timeframe):
        await asyncio.Event().wait()
        yield

    async def bars(self, symbol, timeframe, *, since, until=None):
        return []


@pytest.fixture
def made(monkeypatch):
    """Let every venue be a mock, and note what it was asked for with."""
    calls = []

    def create(_factory, name, **options):
        calls.append((name, options))
        return Streaming()

    monkeypatch.setattr("execkit.exchanges.factory.ExchangeFactory.create", create)
    return calls


def test_paper_trades_on_another_venues_prices(folder, made):
    """It says what runs, and shows a summary at the end; the journal stays where it was asked to."""
    done = invoke(
        *("paper", "--venue", "binance", "--plan", "plan.yaml", "--journal", "p.db"),
        *("--option", "rest_url=http://127.0.0.1:1", "--option", "market=spot", "--for", "1ms"),
    )
    assert done.exit_code == 0, done.output
    options = {"data_only": True, "rest_url": "http://127.0.0.1:1", "market": "spot"}
    assert made == [("binance", options)]
    assert "breakout on BTC/USDT; journal p.db" in done.output
    assert (folder / "p.db").exists()
    assert (folder / "p.db.paper").exists()


def test_another_symbol_and_balance(folder, made):
    """They override what the plan says."""
    arguments = ["paper", "--venue", "binance", "--plan", "plan.yaml", "--for", "1ms"]
    done = invoke(*arguments, "--symbol", "ETH/USDT", "--balance", "USDT=500")
    assert "breakout on ETH/USDT" in done.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--for", "soon"], "--for: 'soon' is no duration"),
        (["--balance", "500"], "'500' is not NAME=VALUE"),
        (["--balance", "USDT=-5"], "--balance USDT"),
        (["--option", "=x"], "'=x' is not NAME=VALUE"),
    ],
)
def test_bad_arguments_are_named(folder, made, arguments, text):
    """Before anything is connected."""
    done = invoke("paper", "--venue", "binance", "--plan", "plan.yaml", *arguments)
    assert done.exit_code == 1
    assert text in done.output


def test_an_unknown_venue_is_refused(folder):
    """With the names that there are."""
    done = invoke("paper", "--venue", "nosuch", "--plan", "plan.yaml")
    assert (done.exit_code, "'nosuch' is unknown; known are" in done.output) == (1, True)


def test_run_takes_everything_from_the_file(folder, made):
    """Exchange, journal and plans; relative paths start at the file."""
    (folder / "execkit.yaml").write_text(
        "exchange: {name: somewhere}\njournal: {path: state/run.db}\nplans: [plan.yaml]\n"
    )
    done = invoke("run", "execkit.yaml", "--for", "1ms")
    assert done.exit_code == 0, done.output
    assert made == [("somewhere", {})]
    assert (folder / "state" / "run.db").exists()


class Post(BaseHTTPRequestHandler):
    """What a chat service is for Apprise: it notes the titles."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.titles.append(json.loads(body)["title"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_about):
        """Write nothing."""


@pytest.fixture
def service():
    """A service on loopback, in a thread of its own, and the titles of the messages that it got."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        server.titles = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_run_has_the_files_guards_and_tells_of_its_halt(folder, made, monkeypatch, service):
    """The file named in it halts before anything is sent, and the addresses in the environment hear of it."""
    monkeypatch.setenv("EXECKIT_NOTIFY_URLS", f"json://127.0.0.1:{service.server_port}/hook")
    (folder / "stop").touch()
    (folder / "execkit.yaml").write_text(
        "exchange: {name: somewhere}\nplans: [plan.yaml]\nhalt_file: stop\nnotify: {}\nmarket_hours: {}\n"
        "rate_limit: {count: 5}\nbreaker: {failures: 3}\nconfirmation: {timeout: 5s}\n"
        "live: {corrections: {XNYS: {closed: [2025-01-09]}}}\n"
    )
    done = invoke("run", "execkit.yaml", "--for", "1ms")
    assert done.exit_code == 0, done.output
    assert {"execkit: HALTED_BY_FILE", "execkit: Trading is halted"} <= set(service.titles)


def test_run_without_addresses_names_their_variable(folder, made, monkeypatch):
    """Who wants to be told and gave no address hears of it before anything is connected."""
    monkeypatch.delenv("EXECKIT_NOTIFY_URLS", raising=False)
    (folder / "execkit.yaml").write_text("exchange: {name: somewhere}\nnotify: {}\n")
    done = invoke("run", "execkit.yaml", "--for", "1ms")
    assert (done.exit_code, "set EXECKIT_NOTIFY_URLS" in done.output) == (1, True)
