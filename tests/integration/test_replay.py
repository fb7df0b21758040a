"""Replay: the same engine on recorded bars repeats exactly, and finishes what a kill or Ctrl-C cut off."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from execkit import (
    BarData,
    ConfigurationError,
    ExchangeAdapter,
    PaperExchange,
    Side,
    Timeframe,
    TradePlan,
    TradingSignal,
    replay,
)
from execkit.cli.prices import bars_along
from execkit.journal.fold import fold
from execkit.journal.segments import read_entries

ROOT = Path(__file__).parents[2]
REAL_BARS = ROOT.parent / "shared" / "data" / "btc-perp-2022-01-1m.csv.gz"
START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(path, *, symbol="BTC/USDT", seed=1, noise=20):
    return bars_along(symbol, path, start=START, tick=Decimal(1), noise=noise, seed=seed)


def flat(prices, symbol="BTC/USDT"):
    """Return bars without a range, one for each price."""
    return [
        BarData(
            symbol,
            Timeframe.M1,
            START + timedelta(minutes=number + 1),
            *[Decimal(price)] * 4,
            Decimal(1_000),
        )
        for number, price in enumerate(prices)
    ]


def venue(clock):
    return PaperExchange(balances={"USDT": Decimal(10_000)}, clock=clock)


PLAN = TradePlan(
    name="swing",
    symbol="BTC/USDT",
    entry=[
        {"function": "close_above", "timeframe": "5m", "parameters": {"threshold_price": 40_000}}
    ],
    exit=[
        {
            "function": "trailing_stop",
            "timeframe": "1m",
            "parameters": {"trail_percentage": Decimal("0.5")},
        }
    ],
    risk={"stop_loss_pct": Decimal("0.5"), "take_profit_r": 2},
)
HILLS = [(minute, 39_600 + (700 if minute // 30 % 2 else 0)) for minute in range(0, 331, 30)]


def test_equal_runs_have_equal_traces():
    """Same bars, same hash; other bars, another."""
    first, second = (replay([PLAN], bars(HILLS), exchange=venue) for _ in range(2))
    assert first.trace_hash == second.trace_hash
    assert first.bars == 330
    assert first.book.positions.closed
    assert replay([PLAN], bars(HILLS, seed=2), exchange=venue).trace_hash != first.trace_hash


def test_file_and_memory_record_the_same(tmp_path):
    """Where the journal is kept makes no difference, and its fold is the state that the replay ended with."""
    kept = replay([PLAN], bars(HILLS), exchange=venue, journal=tmp_path / "run.db")
    assert kept.trace_hash == replay([PLAN], bars(HILLS), exchange=venue).trace_hash
    assert fold(read_entries(tmp_path / "run.db")).state_hash() == kept.book.state_hash()


def test_an_order_made_at_a_close_is_executed_at_the_next_open():
    """The close that gave the signal is over; the next bar's open is the first price there is."""
    prices = [39_900] * 5 + [40_100] * 5 + [40_200, 40_300, 40_300]
    result = replay([PLAN], flat(prices), exchange=venue)
    (position,) = result.book.positions.open.values()
    assert position.opened_at == START + timedelta(minutes=10)
    assert position.average_price == Decimal(40_200)


def test_a_time_out_at_a_close_comes_after_the_fills_of_the_bar():
    """An entry that rests for one minute has the whole next bar to be executed in."""
    asked = []

    async def strategy(engine, bar):
        if not asked:
            asked.append(1)
            limit = Decimal(39_500)
            signal = TradingSignal(
                symbol=bar.symbol, side=Side.BUY, limit_price=limit, signal_id="a"
            )
            await engine.submit(signal)

    low = flat([40_000, 40_000, 40_000])
    low[1] = BarData(
        "BTC/USDT",
        Timeframe.M1,
        low[1].close_time,
        *map(Decimal, (40_000, 40_000, 39_000, 40_000, 1_000)),
    )
    result = replay([], low, exchange=venue, strategy=strategy)
    (entry,) = (order for order in result.book.orders.values() if order.role == "entry")
    assert (entry.state, entry.average_price) == ("filled", Decimal(39_500))
    missed = replay([], flat([40_000] * 3), exchange=venue, strategy=_anew(strategy, asked))
    (entry,) = missed.book.orders.values()
    assert entry.state == "cancelled"
    assert entry.closed_at == START + timedelta(minutes=2)


def _anew(strategy, asked):
    asked.clear()
    return strategy


def test_bars_of_several_symbols_that_close_together_are_one_moment():
    """All are fed before anybody is asked, in whatever order they come."""
    seen = []

    async def strategy(engine, bar):
        seen.append((bar.symbol, sorted(engine.book.marks)))

    both = [b for pair in zip(flat([1, 2]), flat([3, 4], "ETH/USDT"), strict=True) for b in pair]
    replay([], both, exchange=venue, strategy=strategy)
    assert seen == [(symbol, ["BTC/USDT", "ETH/USDT"]) for symbol in ("BTC/USDT", "ETH/USDT")] * 2


def test_bars_out_of_order_are_refused():
    """By symbol and time, whatever their source."""
    first, second, third = flat([1, 2, 3])
    with pytest.raises(ConfigurationError, match="comes after later ones"):
        replay([], [first, third, second], exchange=venue)


def test_no_bars_are_refused():
    """An empty file is a mistake, not a run."""
    with pytest.raises(ConfigurationError, match="there are none"):
        replay([PLAN], [], exchange=venue)


def test_a_venue_that_takes_no_bars_is_refused():
    """Only what can be fed can be replayed."""

    class Deaf(ExchangeAdapter):
        """An adapter without prices from outside."""

    Deaf.__abstractmethods__ = frozenset()
    with pytest.raises(ConfigurationError, match="takes no bars"):
        replay([PLAN], flat([1]), exchange=lambda _clock: Deaf())


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path):
    """Stopped after any bar, the second run comes to the same orders, fills and positions."""
    every = list(bars(HILLS))
    whole = replay([PLAN], every, exchange=venue, journal=tmp_path / "whole.db")

    class Stop(Exception):
        pass

    def stop_at(bar):
        if bar is every[217]:
            raise Stop

    journal = tmp_path / "parts.db"
    with pytest.raises(Stop):
        replay([PLAN], every, exchange=venue, journal=journal, on_progress=stop_at)
    rest = replay([PLAN], every, exchange=venue, journal=journal)
    assert rest.resumed_at == every[217].close_time
    assert rest.bars == len(every) - 218
    assert orders_of(rest.book) == orders_of(whole.book)
    assert rest.book.cash == whole.book.cash


def orders_of(book):
    return [
        (o.client_order_id, o.role, o.quantity, o.stop_price, o.state, o.fills)
        for o in book.orders.values()
    ]


def test_ctrl_c_leaves_a_whole_journal_and_says_how_to_go_on(tmp_path):
    """Exit code 130, a journal that verifies, and the same end when the command is given again."""
    (tmp_path / "plan.yaml").write_text(
        (ROOT / "tests/unit/cli/conftest.py").read_text().split('"""\\\n')[1].split('"""')[0]
    )
    rows = ["timestamp,open,high,low,close,volume"]
    path = [(minute, 39_600 + (700 if minute // 30 % 2 else 0)) for minute in range(0, 9_001, 30)]
    rows += [
        f"{b.close_time:%Y-%m-%d %H:%M:%S},{b.open},{b.high},{b.low},{b.close},{b.volume}"
        for b in bars(path)
    ]
    (tmp_path / "bars.csv").write_text("\n".join(rows) + "\n")
    execkit = [sys.executable, "-c", "from execkit.cli import main; main()"]
    command = [*execkit, "replay", "plan.yaml", "--bars", "bars.csv", "--json", "--journal"]

    process = subprocess.Popen(
        [*command, "run.db"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run.db").exists() or (tmp_path / "run.db").stat().st_size < 100_000:
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "run.db is whole: run the same command to go on" in errors

    verified = subprocess.run([*execkit, "verify", "run.db"], cwd=tmp_path, check=False)
    assert verified.returncode == 0
    told = [
        json.loads(
            subprocess.run([*command, name], cwd=tmp_path, capture_output=True, check=True).stdout
        )
        for name in ("run.db", "calm.db")
    ]
    assert told[0]["resumed_at"] is not None
    assert told[0]["orders"]
    assert executed(told[0]) == executed(told[1])
    assert told[0]["pnl"] == told[1]["pnl"]


def executed(told):
    return [
        (fill["client_order_id"], fill["quantity"], fill["price"], fill["at"])
        for fill in told["fills"]
    ]


@pytest.mark.skipif(not REAL_BARS.exists(), reason=f"no {REAL_BARS}")
@pytest.mark.slow
def test_a_month_of_real_bars_repeats():
    """45,031 one-minute bars through the whole chain; two runs have one trace hash."""
    plan = ROOT / "examples" / "plans" / "breakout.yaml"
    command = [sys.executable, "-c", "from execkit.cli import main; main()"]
    command += ["replay", plan, "--bars", REAL_BARS, "--json"]
    told = [
        json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert told[0] == told[1]
    assert told[0]["bars"] == 45_031
    assert told[0]["fills"]
