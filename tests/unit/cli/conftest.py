"""A plan, a file of bars, and the command line on them."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import attrs
import pytest
import structlog
from click.testing import CliRunner

from execkit.cli import main
from execkit.cli.prices import bars_along

PLAN = """\
name: swing
symbol: BTC/USDT
entry:
  - {function: close_above, timeframe: 5m, parameters: {threshold_price: 40000}}
  - {function: close_below, timeframe: 5m, parameters: {threshold_price: 39200}}
exit:
  - {function: close_below, timeframe: 5m, parameters: {threshold_price: 39800}}
risk: {stop_loss_pct: 0.5, take_profit_r: 2}
bars: {label: close, timezone: UTC}
instrument: {tick_size: 1, lot_size: 0.00001, min_notional: 5, maker_fee: 0.001, taker_fee: 0.001}
account: {balances: {USDT: 10000}, spread_bps: 1}
"""


@attrs.define
class Project:
    """A directory with a plan and its bars."""

    folder: object

    @property
    def plan(self):
        return self.folder / "plan.yaml"

    @property
    def bars(self):
        return self.folder / "bars.csv"

    def write_bars(self, rows):
        lines = ["timestamp,open,high,low,close,volume", *rows]
        self.bars.write_text("\n".join(lines) + "\n")

    def rows(self):
        return self.bars.read_text().splitlines()[1:]

    def run(self, *arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    def replay(self, *options):
        return self.run("replay", self.plan, "--bars", self.bars, *options)

    def replayed(self, *options):
        done = self.replay("--json", *options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    made.plan.write_text(PLAN)
    path = [(0, 39_500), (60, 40_400), (120, 39_500), (180, 40_400), (240, 39_000), (300, 39_100)]
    bars = bars_along(
        "BTC/USDT", path, start=datetime(2024, 1, 1, tzinfo=UTC), tick=Decimal(1), noise=20, seed=1
    )
    made.write_bars(
        f"{b.close_time:%Y-%m-%d %H:%M:%S},{b.open},{b.high},{b.low},{b.close},{b.volume}"
        for b in bars
    )
    yield made
    structlog.reset_defaults()  # the command line configures logging, which outlives the test


@pytest.fixture(autouse=True)
def own_logging():
    """Undo what the command line does to logging: it outlives the command, and so the test."""
    yield
    structlog.reset_defaults()
