"""Wrong answers never become success, and never an error that nobody handles."""

import asyncio
import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from execkit.clock import require_utc
from execkit.errors import ConfigurationError, OrderStatusUnknownError
from execkit.model.order import OrderReport, OrderState, OrderType, Side
from execkit.numbers import to_decimal
from execkit.testing.fuzz import fuzz_decoder, mutated_frame, problem_with_answer
from execkit.testing.fuzz_gateway import fuzz_gateway

FRAMES = [
    json.dumps(
        {
            "clientOrderId": f"xk{number}",
            "orderId": 1000 + number,
            "symbol": "BTC/USDT",
            "side": "buy",
            "status": status,
            "quantity": "0.50000000",
            "executed": executed,
            "time": 1704067200000 + number,
        }
    ).encode()
    for number, (status, executed) in enumerate(
        [("NEW", "0.00000000"), ("PARTIALLY_FILLED", "0.20000000"), ("FILLED", "0.50000000")]
    )
]
STATUSES = {
    "NEW": OrderState.ACCEPTED,
    "PARTIALLY_FILLED": OrderState.PARTIALLY_FILLED,
    "FILLED": OrderState.FILLED,
}


class Wire(msgspec.Struct):
    """An order as an imaginary venue writes it."""

    clientOrderId: str
    orderId: int
    symbol: str
    side: Side
    status: str
    quantity: str
    executed: str
    time: int


def careful(frame):
    """Decode as an adapter should: strict types, exact numbers, unknown words in doubt."""
    try:
        wire = msgspec.json.decode(frame, type=Wire)
        quantity = to_decimal("quantity", wire.quantity)
        executed = to_decimal("executed", wire.executed)
        at = require_utc("time", datetime.fromtimestamp(wire.time / 1000, UTC))
    except (
        msgspec.DecodeError,
        ConfigurationError,
        UnicodeDecodeError,
        ValueError,
        OverflowError,
        OSError,
    ) as error:
        raise OrderStatusUnknownError(f"cannot read the answer: {error}") from error
    return OrderReport(
        client_order_id=wire.clientOrderId,
        venue_order_id=str(wire.orderId),
        symbol=wire.symbol,
        side=wire.side,
        type=OrderType.LIMIT,
        quantity=quantity,
        filled=executed,
        status=STATUSES.get(wire.status, OrderState.IN_DOUBT),
        raw_status=wire.status,
        updated_at=at,
    )


def careless(frame):
    """Decode as the client libraries do: whatever is missing is empty, numbers are floats."""
    try:
        wire = json.loads(frame)
    except ValueError:
        wire = {}
    return OrderReport(
        client_order_id=wire.get("clientOrderId", ""),
        venue_order_id=str(wire.get("orderId") or ""),
        symbol=wire.get("symbol", ""),
        side=Side(wire.get("side", "buy")),
        type=OrderType.LIMIT,
        quantity=Decimal(wire.get("quantity", "0")),
        filled=Decimal(wire.get("executed", "0")),
        status=STATUSES.get(wire.get("status"), OrderState.ACCEPTED),
    )


def test_a_careful_decoder_survives_20000_mutated_frames():
    """No error but ours, no success without an id, no number that is none."""
    result = fuzz_decoder(careful, FRAMES, rng=random.Random(1), count=20_000)
    result.check()
    assert result.mutations == 20_000
    assert result.outcomes["refused"] > 5_000
    assert result.outcomes["decoded"] > 500


def test_a_careless_decoder_is_caught():
    """The fuzz proves itself: it finds errors, missing ids and impossible numbers, and shows the frame."""
    result = fuzz_decoder(careless, FRAMES, rng=random.Random(1), count=5_000)
    with pytest.raises(AssertionError, match="5000 mutations"):
        result.check()
    text = "\n".join(result.violations)
    assert "without a venue order id" in text
    assert "Error: " in text


def test_a_decoder_may_be_a_whole_adapter(execkit_frames):
    """An async decoder, e.g. an adapter over a transport that answers with the frame, is fuzzed on a loop."""

    async def decode(frame):
        await asyncio.sleep(0)
        return {"BTC": careful(frame)}

    result = fuzz_decoder(decode, FRAMES, rng=random.Random(1), count=200)
    result.check()
    assert result.outcomes["decoded"] > 5
    assert execkit_frames == 20_000  # unless the command line wants more


def test_fields_of_text_are_replaced_one_by_one():
    """Frames in the way of TWS, fields that end with NUL, keep their form while single fields go wrong."""
    frame = b"3\x0042\x00Filled\x000.5\x00"
    seen = [mutated_frame(frame, random.Random(seed)).split(b"\0") for seed in range(3_000)]
    assert [b"3", b"42", b"NaN", b"0.5", b""] in seen
    assert [b"3", b"42", b"0.5", b"Filled", b""] in seen


def test_mutations_repeat_with_the_seed():
    """A failing mutation can be made again."""
    first, second = ([mutated_frame(FRAMES[0], random.Random(s)) for s in range(50)] for _ in "ab")
    assert first == second
    assert sum(frame != FRAMES[0] for frame in first) > 40


@pytest.mark.parametrize("answer", [None, careful(FRAMES[0])])
def test_right_answers_are_no_problem(answer):
    """Nothing to say, and a right report, may leave an adapter."""
    assert problem_with_answer(answer) is None


def test_something_else_must_not_leave_an_adapter():
    """A dict, as a client library gives it, is no report."""
    assert "no report" in problem_with_answer({"id": 5})


def test_the_gateway_survives_whatever_an_adapter_answers():
    """An order ends accepted, refused or in doubt, and the journal replays to the same state."""
    result = fuzz_gateway(random.Random(2), count=10_000)
    result.check()
    assert result.outcomes["in_doubt"] > 1_000
    assert result.outcomes["accepted"] > 100


def test_a_gateway_that_believes_everything_is_caught(monkeypatch):
    """Without its checks the fuzz fails, so it tests them."""
    monkeypatch.setattr("execkit.orders.answers.problem_with", lambda _order, _report: None)
    monkeypatch.setattr("execkit.orders.answers.malformed_report", lambda _report: None)
    monkeypatch.setattr("execkit.orders.intake.problem_with", lambda _order, _report: None)
    monkeypatch.setattr("execkit.orders.intake.malformed_report", lambda _report: None)
    monkeypatch.setattr("execkit.orders.intake.malformed_fill", lambda _fill: None)
    result = fuzz_gateway(random.Random(2), count=300)
    assert result.outcomes["violation"] > 20
