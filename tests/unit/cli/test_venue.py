"""`execkit venue`."""

import pytest
from click.testing import CliRunner

from execkit.cli import main
from execkit.cli.venue import VENUES, make
from execkit.errors import ConfigurationError


def run(*arguments):
    return CliRunner().invoke(main, ["venue", *arguments])


@pytest.mark.parametrize(
    "arguments", [("alpaca",), ("binance",), ("binance", "--market", "usdm"), ("bybit",)]
)
def test_it_serves_and_says_where(arguments):
    """Addresses and credentials are printed, and it ends when its time is over."""
    done = run(*arguments, "--port", "0", "--every", "0.01", "--for", "0.05")
    assert done.exit_code == 0, done.output
    for label in ("REST     http://127.0.0.1:", "streams  ws://127.0.0.1:", "key ", "symbol "):
        assert label in done.output
    for variable in ("API_KEY=", "API_SECRET="):
        assert f"export {arguments[0].upper()}_{variable}" in done.output


def test_a_venue_without_http_names_its_port():
    """Trader Workstation is a socket of its own kind."""
    done = run("ibkr", "--port", "0", "--every", "0.01", "--for", "0.05")
    assert done.exit_code == 0, done.output
    assert "socket   127.0.0.1:" in done.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("bybit", "--market", "spot"), "--market"),
        (("binance", "--price", "much"), "--price"),
        (("binance", "--price", "-1"), "--price"),
        (("nasdaq",), "nasdaq"),
    ],
)
def test_wrong_option_is_named(arguments, text):
    """An option that makes no sense is an error that names it, before anything listens."""
    done = run(*arguments, "--port", "0", "--for", "0")
    assert done.exit_code != 0
    assert text in done.output


@pytest.mark.parametrize("name", sorted(VENUES))
def test_every_venue_of_the_table_can_be_made(name):
    """The table names classes that exist; an option that a venue lacks is refused."""
    assert make(name, port=0).name
    with pytest.raises(ConfigurationError, match="leave it out"):
        make(name, colour="red")
