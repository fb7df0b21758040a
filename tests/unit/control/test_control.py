"""Commands from another process: over a real socket, to an engine on its own loop."""

import asyncio
import json
import socket
import stat
import threading
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
import structlog
from click.testing import CliRunner

from execkit.cli import main
from execkit.clock import SystemClock
from execkit.control.client import NoEngineError, ask
from execkit.control.protocol import Request, encode, socket_path
from execkit.control.server import ControlServer
from execkit.engine import ExecutionEngine
from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    ExecKitError,
    OrderRejectedError,
)
from execkit.journal.segments import read_entries
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState, Side
from execkit.model.records import OperatorActed, TradingState
from execkit.model.signal import TradingSignal
from execkit.notify.notifier import VARIABLE
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation

BTC = "BTC/USDT"
D = Decimal


def signal(**changes):
    return TradingSignal(
        **{"symbol": BTC, "side": Side.BUY, "confluence": 4, "quantity": D("0.02"), **changes}
    )


def mock(**options):
    return MockExchange(prices={BTC: D(42_000), "ETH/USDT": D(2_500)}, **options)


async def engine_at(path, **options):
    engine = ExecutionEngine(
        options.pop("venue", None) or mock(), journal=path, durability="process", **options
    )
    await engine.start()
    return engine


async def told(path, command, **arguments):
    """Ask as another process does, while this loop turns."""
    return await asyncio.to_thread(ask, path, command, arguments, actor="ada")


@pytest.fixture
async def desk(tmp_path):
    path = tmp_path / "orders.db"
    engine = await engine_at(path)
    yield engine, path
    await engine.stop()


async def test_the_socket_is_its_owners_alone_and_goes_with_the_engine(tmp_path):
    """Mode 0600 from the first moment; nothing is left after the stop."""
    path = tmp_path / "orders.db"
    engine = await engine_at(path)
    assert stat.S_IMODE(socket_path(path).stat().st_mode) == 0o600
    await engine.stop()
    assert not socket_path(path).exists()
    with pytest.raises(NoEngineError, match="is one running on this journal"):
        ask(path, "status")


async def test_a_path_that_is_too_long_for_a_socket_is_none(tmp_path):
    """The system takes about 100 bytes; a deep folder must not cost the way in."""
    folder = tmp_path / ("deep" * 40)
    folder.mkdir(mode=0o700)
    engine = await engine_at(folder / "orders.db")
    try:
        assert (await told(folder / "orders.db", "status"))["positions"] == 0
    finally:
        await engine.stop()


async def test_a_socket_that_cannot_be_made_stops_nobody(tmp_path):
    """A person is told that the way in is closed; trading goes on."""
    path = tmp_path / "orders.db"
    socket_path(path).mkdir()
    engine = await engine_at(path)
    assert [alarm.code for alarm in engine.book.alarms] == ["CONTROL_UNAVAILABLE"]
    assert (await engine.submit(signal())).filled
    await engine.stop()


async def test_halt_stops_entries_and_says_who(desk):
    """Until resume; both are in the journal with the name of the person."""
    engine, path = desk
    assert (await told(path, "halt", cause="lunch"))["trading_state"] == "halted"
    result = await engine.submit(signal())
    assert result.denial.code is DenialCode.TRADING_HALTED
    assert "lunch" in str(result.denial)
    answer = await told(path, "resume")
    assert (answer["trading_state"], engine.trading_state) == ("active", TradingState.ACTIVE)
    assert (await engine.submit(signal())).filled
    acted = [e.record for e in read_entries(path) if isinstance(e.record, OperatorActed)]
    assert [(r.command, r.actor, r.arguments) for r in acted] == [
        ("halt", "ada", {"cause": "lunch"}),
        ("resume", "ada", {}),
    ]


async def test_a_halt_takes_nothing_back_and_says_so(desk):
    """What rests may still be executed: the answer counts it, and the command line names the way out."""
    engine, path = desk
    await engine.submit(signal(symbol="ETH/USDT", quantity=D("0.1"), limit_price=D(2_450)))
    done = await asyncio.to_thread(
        CliRunner().invoke, main, ["halt", "the news", "--journal", str(path)]
    )
    assert "resting entries: 1" in done.output
    assert f"to end what rests: execkit cancel-all --journal {path}" in done.output
    assert len(engine.settings.exchange.core.open_orders()) == 1
    answer = await told(path, "cancel-all")
    assert (answer["resting_entries"], answer["cause"]) == (0, "the news")
    assert engine.settings.exchange.core.open_orders() == []


async def test_orders_positions_and_status_show_what_is_there(desk):
    """A position with its stop, and a resting entry."""
    engine, path = desk
    await engine.submit(signal(quantity=D("0.02")))
    await engine.desk.keeper.idle()
    (position,) = await told(path, "positions")
    (stop,) = await told(path, "orders")
    assert (position["symbol"], position["quantity"], position["stop_order"]) == (
        BTC,
        "0.02",
        stop["client_order_id"],
    )
    assert (stop["role"], stop["quantity"], stop["state"]) == ("stop", "0.02", "accepted")
    answer = await told(path, "status")
    assert (answer["positions"], answer["open_orders"], answer["unprotected"]) == (1, 1, [])


async def test_cancel_all_keeps_protection_and_flatten_leaves_nothing(desk):
    """The two buttons that must work; after either nothing is entered until a person resumes."""
    engine, path = desk
    resting = {"symbol": "ETH/USDT", "quantity": D("0.1"), "limit_price": D(2_450)}
    await engine.submit(signal())
    await engine.submit(signal(**resting))
    await engine.desk.keeper.idle()
    answer = await told(path, "cancel-all")
    assert [(order["symbol"], order["state"]) for order in answer["orders"]] == [
        ("ETH/USDT", "cancelled")
    ]
    none = {"resting_entries": 0}
    halted = {"trading_state": "halted", "cause": "cancel-all by ada", "blocked": {}} | none
    assert answer | halted == answer
    assert engine.book.working_stop(BTC) is not None
    denied = await engine.submit(signal(**resting))
    assert denied.denial.code is DenialCode.TRADING_HALTED
    await told(path, "resume")
    answer = await told(path, "flatten")
    assert answer == halted | {"flat": [BTC], "left": {}, "cause": "flatten by ada"}
    await engine.desk.keeper.idle()
    assert not engine.orders.active
    assert not engine.book.positions.open
    denied = await engine.submit(signal())
    assert denied.denial.code is DenialCode.TRADING_HALTED


async def test_entries_go_on_when_the_person_says_so(desk):
    """With `halt` false; for one symbol only that one is blocked."""
    engine, path = desk
    await engine.submit(signal())
    answer = await told(path, "flatten", halt=False)
    assert (answer["flat"], answer["trading_state"]) == ([BTC], "active")
    assert (await told(path, "cancel-all", halt=False))["trading_state"] == "active"
    assert (await engine.submit(signal())).filled
    answer = await told(path, "flatten", symbol=BTC)
    assert (answer["trading_state"], answer["blocked"]) == ("active", {BTC: "flatten by ada"})
    denied = await engine.submit(signal())
    assert denied.denial.code is DenialCode.SYMBOL_BLOCKED
    assert (await engine.submit(signal(symbol="ETH/USDT", quantity=D("0.1")))).filled
    assert (await told(path, "resume", symbol=BTC))["blocked"] == {}
    assert (await engine.submit(signal())).filled


async def test_stops_are_not_cancelled_alone(desk):
    """No position is left without its stop, whatever an older client asks for: it is told what to do instead."""
    engine, path = desk
    await engine.submit(signal())
    await engine.desk.keeper.idle()
    stop = engine.book.working_stop(BTC)
    with pytest.raises(ExecKitError, match=r"stops are not cancelled.*`flatten` closes pos"):
        await told(path, "cancel-all", include_protection=True)
    assert engine.book.working_stop(BTC) is stop
    assert engine.settings.exchange.core.order(stop.client_order_id).status is OrderState.ACCEPTED
    assert engine.trading_state is TradingState.ACTIVE


async def test_close_closes_one_symbol_and_says_when_there_is_nothing(desk):
    """The error names what is open; the strategy goes on."""
    engine, path = desk
    await engine.submit(signal())
    await engine.submit(signal(symbol="ETH/USDT", quantity=D("0.1")))
    with pytest.raises(
        ExecKitError, match=r"nothing to close in 'XRP/USDT'; open are BTC/USDT, ETH"
    ):
        await told(path, "close", symbol="XRP/USDT")
    answer = await told(path, "close", symbol=BTC)
    assert (answer["flat"], answer["left"], answer["trading_state"]) == ([BTC], {}, "active")
    assert set(engine.book.positions.open) == {"ETH/USDT"}
    assert (await engine.submit(signal())).filled


async def test_what_could_not_be_closed_is_named(tmp_path):
    """By symbol, with what was in the way; the command line ends with an error."""
    venue = mock()
    engine = await engine_at(tmp_path / "orders.db", venue=venue)
    await engine.submit(signal())
    await engine.submit(signal(symbol="ETH/USDT", quantity=D("0.1")))
    await engine.desk.keeper.idle()
    refused = Fault(
        on=Operation.PLACE,
        kind=FaultKind.ERROR,
        only=lambda request: request.symbol == BTC,
        error=OrderRejectedError("not now"),
    )
    venue.connection.script = FaultScript([refused])
    done = await asyncio.to_thread(
        CliRunner().invoke, main, ["flatten", "--journal", str(tmp_path / "orders.db")]
    )
    assert done.exit_code == 1
    assert "flat: ETH/USDT" in done.output
    assert "  BTC/USDT: 0.02 open; the venue says: not now; it goes on" in done.output
    assert "not everything is out; look at BTC/USDT" in done.output
    assert f"to trade again: execkit resume --journal {tmp_path / 'orders.db'}" in done.output
    venue.connection.script = FaultScript()
    await engine.stop()


async def in_doubt(tmp_path):
    venue = mock()
    engine = await engine_at(tmp_path / "orders.db", venue=venue)
    venue.connection.script = FaultScript(
        [
            Fault(on=Operation.PLACE, kind=FaultKind.LOST, nth=1),
            Fault(on=Operation.GET, kind=FaultKind.SERVER_ERROR),
            Fault(on=Operation.OPEN, kind=FaultKind.SERVER_ERROR),
        ]
    )
    sending = asyncio.ensure_future(engine.submit(signal()))
    while not engine.orders.in_doubt and not sending.done():
        await asyncio.sleep(0)
    (order,) = engine.orders.in_doubt.values()
    return engine, order, sending


async def test_a_doubt_is_settled_by_hand(tmp_path):
    """The venue is asked once more; then the word of the person counts, and is in the journal."""
    engine, order, sending = await in_doubt(tmp_path)
    path = tmp_path / "orders.db"
    with pytest.raises(ExecKitError, match="'xk1' is unknown; in doubt are xk"):
        await told(path, "resolve", **{"order": "xk1", "as": "cancelled"})
    with pytest.raises(ExecKitError, match="filled cannot be said by hand"):
        await told(path, "resolve", **{"order": order.client_order_id, "as": "filled"})
    answer = await told(path, "resolve", **{"order": order.client_order_id, "as": "cancelled"})
    assert answer["state"] == "cancelled"
    assert order.state is OrderState.CANCELLED
    assert "ada" in order.reason
    with pytest.raises(ExecKitError, match="is cancelled, not in doubt"):
        await told(path, "resolve", **{"order": order.client_order_id, "as": "cancelled"})
    await sending
    await engine.stop()
    (acted,) = [e.record for e in read_entries(path) if isinstance(e.record, OperatorActed)]
    assert acted.command == "resolve"


async def test_what_the_venue_shows_wins_over_the_person(tmp_path):
    """An order that is there after all is not settled away."""
    engine, order, sending = await in_doubt(tmp_path)
    venue = engine.settings.exchange
    venue.connection.script = FaultScript()
    venue.core.place(order.request, venue.clock.now())
    with pytest.raises(ExecKitError, match="the venue shows that xk"):
        await engine.resolve(order, OrderState.PRESUMED_ABSENT)
    assert order.filled == D("0.02")
    await sending
    await engine.stop()


async def test_the_history_of_positions_needs_no_engine(tmp_path):
    """Closed positions with their executions, from the store, as text and as JSON."""
    path = tmp_path / "orders.db"
    engine = await engine_at(path)
    await engine.submit(signal())
    await engine.close_position(BTC)
    await engine.desk.keeper.idle()
    await engine.submit(signal(symbol="ETH/USDT", quantity=D("0.1")))
    await engine.stop()

    def run(*more):
        done = CliRunner().invoke(main, ["positions", "--history", "--journal", str(path), *more])
        assert done.exit_code == 0, done.output
        return done.output

    head, entered, left = run().splitlines()
    assert head.startswith("position_id=")
    assert ("peak_quantity=0.02" in head, "signal_id=" in head) == (True, True)
    assert "role=entry  side=buy  quantity=0.02" in entered
    assert "role=flatten  side=sell  quantity=0.02" in left
    (closed,) = json.loads(run("--json"))
    assert (closed["symbol"], len(closed["fills"])) == (BTC, 2)
    assert run("--symbol", "ETH/USDT").strip() == "none"


def talk(path, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path(path)))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile().readline()


async def test_old_repeated_and_broken_requests_do_nothing(desk):
    """A recorded request is worth nothing; rubbish gets an answer and harms nobody."""
    engine, path = desk
    now = SystemClock().now()
    request = Request(command="halt", actor="eve", nonce="n1", expires=now + timedelta(seconds=5))
    late = msgspec.structs.replace(request, nonce="n2", expires=now - timedelta(seconds=1))
    far = msgspec.structs.replace(request, nonce="n3", expires=now + timedelta(hours=1))
    other = msgspec.structs.replace(request, nonce="n4", command="explode")
    for line, text in [
        (encode(late), "too old"),
        (encode(far), "too old"),
        (encode(other), "'explode' is unknown"),
        (b'{"command": 7}\n', "not a request"),
        (b"\xff\xfe\n", "not a request"),
    ]:
        assert text in await asyncio.to_thread(talk, path, line)
    assert await asyncio.to_thread(talk, path, b"no end of line") == ""
    with pytest.raises(OSError, match=r"reset|Broken"):
        await asyncio.to_thread(talk, path, b"x" * 700_000 + b"\n")
    assert engine.trading_state is TradingState.ACTIVE
    assert "halted" in await asyncio.to_thread(talk, path, encode(request))
    await engine.resume()
    assert "sent before" in await asyncio.to_thread(talk, path, encode(request))
    assert engine.trading_state is TradingState.ACTIVE


async def test_a_blocked_loop_is_told_and_nothing_happens_later(tmp_path):
    """The thread answers for it; what was asked is not done when the loop turns again."""
    ran = []

    async def run(request):
        ran.append(request.command)

    path = tmp_path / "orders.db"
    server = ControlServer(path, run, SystemClock(), turn_within=0.01)
    server.start()
    answers = []

    def other():
        try:
            ask(path, "halt")
        except NoEngineError as error:
            answers.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()  # blocks this loop until the answer is there
    await asyncio.sleep(0)
    server.stop()
    assert ["has not turned" in text and "--force" in text for text in answers] == [True]
    assert ran == []


async def test_a_command_that_fails_tells_why(tmp_path):
    """Whatever it is."""

    async def run(_request):
        raise ZeroDivisionError("by zero")

    path = tmp_path / "orders.db"
    server = ControlServer(path, run, SystemClock())
    server.start()
    with pytest.raises(ExecKitError, match="ZeroDivisionError: by zero"):
        await asyncio.to_thread(ask, path, "status")
    server.stop()


async def test_a_command_that_takes_too_long_goes_on(tmp_path):
    """The person is told so."""
    going = asyncio.Event()

    async def run(_request):
        await going.wait()

    path = tmp_path / "orders.db"
    server = ControlServer(path, run, SystemClock(), answer_within=0.01)
    server.start()
    with pytest.raises(ExecKitError, match=r"still under way after 0\.01 s"):
        await asyncio.to_thread(ask, path, "flatten")
    going.set()
    await asyncio.sleep(0)
    server.stop()


def write_config(tmp_path, more=""):
    config = tmp_path / "execkit.yaml"
    config.write_text(
        "exchange:\n  name: paper\n  options:\n    balances: {USDT: '10000'}\n    prices: {BTC/USDT: '42000'}\n"
        + more
    )
    return config


@pytest.fixture
def quiet():
    yield
    structlog.reset_defaults()  # the command line configures logging, which outlives the test


@pytest.mark.usefixtures("quiet")
async def test_the_command_line_speaks_to_the_engine(desk):
    """Each command, as text and as JSON."""
    engine, path = desk

    async def run(*arguments):
        done = await asyncio.to_thread(
            CliRunner().invoke, main, [*arguments, "--journal", str(path)]
        )
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        return done

    assert "trading state: active" in (await run("status")).output
    assert "none" in (await run("positions")).output
    await engine.submit(signal())
    await engine.desk.keeper.idle()
    assert "accepted" in (await run("orders", "--json")).output
    assert "BTC/USDT" in (await run("positions")).output
    assert "trading state: halted" in (await run("halt", "enough")).output
    assert "trading state: active" in (await run("resume")).output
    cancelled = (await run("cancel-all", "--symbol", "ETH/USDT")).output
    assert "none" in cancelled
    assert "  ETH/USDT: cancel-all by " in cancelled
    assert f"to trade again: execkit resume --symbol ETH/USDT --journal {path}" in cancelled
    naked = await run("cancel-all", "--include-protection")
    assert (naked.exit_code, "no position is left without one" in naked.output) == (1, True)
    await run("resume")
    failed = await run("close", "XRP/USDT")
    assert (failed.exit_code, "nothing to close" in failed.output) == (1, True)
    assert "flat: BTC/USDT" in (await run("close", BTC)).output
    idle = (await run("flatten", "--no-halt")).output
    assert idle.startswith("nothing was open\nflat: none\n")
    assert "trading state: active" in idle
    assert "trading state: halted" in (await run("flatten")).output
    missing = await run("resolve", "xk1", "--as", "cancelled")
    assert "is unknown" in missing.output


@pytest.mark.usefixtures("quiet")
async def test_force_takes_the_account_from_an_engine_that_hangs(tmp_path, monkeypatch):
    """It recovers the journal and closes the position itself; the old engine sends nothing any more."""
    config = write_config(tmp_path)
    path = tmp_path / "orders.db"
    venue = mock(name="paper")
    old = await engine_at(path, venue=venue, control=False, store=False)
    await old.submit(signal())
    await old.desk.keeper.idle()
    monkeypatch.setattr("execkit.assembly.ExchangeFactory.create", lambda *_a, **_k: venue)
    refused = await asyncio.to_thread(
        CliRunner().invoke, main, ["flatten", "--journal", str(path), "--force"]
    )
    assert "--force: it needs --config" in refused.output
    done = await asyncio.to_thread(
        CliRunner().invoke, main, ["flatten", "--config", str(config), "--force"]
    )
    assert "flat: BTC/USDT" in done.output, done.output
    assert not venue.core.open_orders()
    assert venue.core.positions() == []
    result = await old.submit(signal(symbol="ETH/USDT"))
    assert result.denial.code is DenialCode.JOURNAL_UNAVAILABLE
    assert "taken over" in str(result.denial)
    await old.stop()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("command", [["flatten"], ["halt", "the news"]])
async def test_force_works_without_messages_where_they_have_no_address(
    tmp_path, monkeypatch, command
):
    """The shell of an emergency need not have the addresses that the engine's had; it is told that nobody hears."""
    monkeypatch.delenv(VARIABLE, raising=False)
    config = write_config(tmp_path, "notify: {least: warning}\n")
    venue = mock(name="paper")
    old = await engine_at(tmp_path / "orders.db", venue=venue, control=False, store=False)
    await old.submit(signal())
    await old.desk.keeper.idle()
    monkeypatch.setattr("execkit.assembly.ExchangeFactory.create", lambda *_a, **_k: venue)
    done = await asyncio.to_thread(
        CliRunner().invoke, main, [*command, "--config", str(config), "--force"]
    )
    assert done.exit_code == 0, done.output
    assert f"no messages are sent: urls: there are none; give some, or set {VARIABLE}" in (
        done.output
    )
    done_to_it = "flat: BTC/USDT" if command == ["flatten"] else "trading state: halted"
    assert done_to_it in done.output
    refused = await old.submit(signal(symbol="ETH/USDT"))
    assert refused.denial.code is DenialCode.JOURNAL_UNAVAILABLE
    await old.stop()


@pytest.mark.usefixtures("quiet")
async def test_force_takes_nothing_away_where_it_could_do_nothing(tmp_path, monkeypatch):
    """What is wrong in the configuration is found while the old engine may still send."""
    config = write_config(tmp_path)
    old = await engine_at(
        tmp_path / "orders.db", venue=mock(name="paper"), control=False, store=False
    )

    def create(*_args, **_options):
        raise ConfigurationError("exchange: no such venue")

    monkeypatch.setattr("execkit.assembly.ExchangeFactory.create", create)
    failed = await asyncio.to_thread(
        CliRunner().invoke, main, ["flatten", "--config", str(config), "--force"]
    )
    assert (failed.exit_code, "no such venue" in failed.output) == (1, True)
    assert (await old.submit(signal())).filled == D("0.02")
    await old.stop()


@pytest.mark.usefixtures("quiet")
async def test_a_forced_halt_needs_no_venue(tmp_path, monkeypatch):
    """The engine is gone and its venue is down: the journal keeps the halt, and what still rests is told."""
    config = write_config(tmp_path)
    path = tmp_path / "orders.db"
    venue = mock(name="paper")
    engine = await engine_at(path, venue=venue, store=False)
    resting = signal(limit_price=D(41_900))
    await engine.submit(resting)
    await engine.stop()

    async def connect():
        raise ExchangeUnavailableError("down")

    monkeypatch.setattr("execkit.assembly.ExchangeFactory.create", lambda *_a, **_k: venue)
    monkeypatch.setattr(venue, "connect", connect)
    command = ["halt", "the news", "--config", str(config)]
    refused = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert refused.exit_code == 1
    assert f"`touch {path}.halt` halts it at once, or when it starts" in refused.output
    done = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--force"])
    assert done.exit_code == 0, done.output
    assert "trading state: halted" in done.output
    assert "resting entries: 1" in done.output
    monkeypatch.undo()
    engine = await engine_at(path, venue=venue, store=False)
    denied = await engine.submit(signal(symbol="ETH/USDT"))
    assert denied.denial.code is DenialCode.TRADING_HALTED
    assert engine.book.state_record.actor.endswith("--force")
    await engine.stop()
