"""Hostile answers: mutates frames and values of a venue, and demands that none of them becomes success or an error.

`fuzz_decoder` is for an adapter's own parser, from bytes to reports, or for the whole adapter over a transport that
answers with the frame. `fuzz_gateway` is for what stands behind every adapter: whatever `place_order`, a look-up or
the stream returns, an order must end accepted, refused or in doubt.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import attrs
import msgspec

from execkit.errors import ExchangeError
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Trade
from execkit.model.order import Fill, OrderReport, OrderState, StreamGap
from execkit.orders.reconcile import is_plausible
from execkit.testing.rules import faults_in

NASTY_JSON: Final[tuple[str, ...]] = (
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e400",
    "-5",
    "0.1",
    "NaN",
    "Infinity",
    '""',
    '"NaN"',
    '"inf"',
    '"-0"',
    '"1e-30"',
    '"99999999999999999999999999"',
    '"\uff11\uff12"',
    '"1_000"',
    '" 1"',
    '"0x10"',
    '"FILLED"',
    '"filled\\r\\nforged: line"',
    '"\\u0000"',
    '"\\ud800"',
    "[]",
    "{}",
    "[[[[[[[[]]]]]]]]",
    '{"id": {"id": {"id": null}}}',
)
"""Values in the place of what a venue promised, as JSON text; the last ones are no JSON at all."""

NASTY_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    10**40,
    0.1,
    float("nan"),
    float("inf"),
    "",
    "NaN",
    "x" * 10_000,
    "line\r\nforged",
    b"bytes",
    (),
    [],
    {},
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal(-1),
    Decimal(0),
    Decimal("1e400"),
    Decimal("0.123456789123456789123456789"),
    datetime(2024, 1, 1),  # noqa: DTZ001 - a time without a zone is what we want
    OrderState.IN_DOUBT,
    OrderState.FILLED,
    OrderState.NEW,
    "filled",
    object(),
)
"""Values in the place of a report's fields."""


_NO_ORDERS: Final = (Balance, VenuePosition, Instrument, Quote, Trade, BarData)
"""What an adapter decodes beside orders and fills."""


@attrs.define
class FuzzResult:
    """What the mutations led to."""

    mutations: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    violations: list[str] = attrs.field(factory=list)
    """At most 20, each with the mutation that did it."""

    def blame(self, what: str, mutation: object) -> None:
        """Note a violation."""
        self.outcomes["violation"] += 1
        if len(self.violations) < 20:
            self.violations.append(f"{what}: {_short(mutation)}")

    def check(self) -> None:
        """Raise `AssertionError` when anything was wrong."""
        if self.violations:
            raise AssertionError("\n".join([f"{self}", *self.violations]))

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{self.mutations} mutations: {counts or 'nothing'}"


# -- frames --------------------------------------------------------------------------------------------


def mutated_frame(frame: bytes, rng: random.Random) -> bytes:
    """Return the frame with one to three things wrong."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        frame = rng.choice(_FRAME_MUTATIONS)(frame, rng)
    return frame


def _flip(frame: bytes, rng: random.Random) -> bytes:
    if not frame:
        return b"\xff"
    at = rng.randrange(len(frame))
    return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]


def _cut(frame: bytes, rng: random.Random) -> bytes:
    return frame[: rng.randrange(len(frame) + 1)]


def _drop(frame: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(frame) + 1)
    return frame[:start] + frame[start + rng.randrange(1, 20) :]


def _double(frame: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(frame) + 1)
    part = frame[start : start + rng.randrange(1, 40)]
    return frame[:start] + part + frame[start:]


def _insert(frame: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(frame) + 1)
    return frame[:at] + rng.randbytes(rng.randrange(1, 6)) + frame[at:]


def _other(_frame: bytes, rng: random.Random) -> bytes:
    html = b"<html><body>502 Bad Gateway</body></html>"
    return rng.choice((b"", b"null", b"[]", b"{}", html, b"\xef\xbb\xbf{}", b"[" * 5_000, b'"ok"'))


def _replace_value(frame: bytes, rng: random.Random) -> bytes:
    """Put a nasty value in the place of one of the frame's own, wherever that stands."""
    spans = list(_values(frame))
    if not spans:
        return _flip(frame, rng)
    start, stop = rng.choice(spans)
    nasty = rng.choice(NASTY_JSON)
    return frame[:start] + (_unquoted(nasty) if b"\0" in frame else nasty.encode()) + frame[stop:]


def _unquoted(nasty: str) -> bytes:
    """Return a value as a field of plain text has it."""
    if not nasty.startswith('"'):
        return nasty.encode()
    return str(msgspec.json.decode(nasty.replace("\\ud800", "\ufffd"))).encode()


def _swap_values(frame: bytes, rng: random.Random) -> bytes:
    """Exchange two values, e.g. price and quantity."""
    spans = list(_values(frame))
    if len(spans) < 2:
        return _flip(frame, rng)
    (a, b), (c, d) = sorted(rng.sample(spans, 2))
    return frame[:a] + frame[c:d] + frame[b:c] + frame[a:b] + frame[d:]


def _rename_key(frame: bytes, rng: random.Random) -> bytes:
    """Take a key away, or double another one, by giving one the name of another."""
    keys = [at for at in range(len(frame)) if frame[at : at + 2] == b'":']
    if not keys:
        return _flip(frame, rng)
    at = rng.choice(keys)
    other = rng.choice(keys)
    name = frame[frame.rfind(b'"', 0, other) + 1 : other]
    return frame[: frame.rfind(b'"', 0, at) + 1] + name + frame[at:]


def _values(frame: bytes) -> Iterator[tuple[int, int]]:
    """Find the places of plain values: fields that end with NUL where there are any, else what follows a colon.

    Good enough for JSON as venues write it, and for fields of text as TWS writes them.
    """
    if b"\0" in frame:
        start = 0
        while (stop := frame.find(b"\0", start)) != -1:
            yield start, stop
            start = stop + 1
        return
    at = frame.find(b":")
    while at != -1:
        start = at + 1
        while frame[start : start + 1] == b" ":
            start += 1
        if frame[start : start + 1] == b'"':
            stop = frame.find(b'"', start + 1) + 1
        else:
            stops = [p for p in (frame.find(c, start) for c in (b",", b"}", b"]")) if p != -1]
            stop = min(stops, default=0)
        if stop > start:
            yield start, stop
        at = frame.find(b":", max(stop, at + 1))


_FRAME_MUTATIONS: Final = (
    _flip,
    _cut,
    _drop,
    _double,
    _insert,
    _other,
    _replace_value,
    _replace_value,
    _replace_value,
    _swap_values,
    _rename_key,
)


def fuzz_decoder(
    decode: Callable[[bytes], object],
    frames: Sequence[bytes],
    *,
    rng: random.Random,
    count: int = 20_000,
    allowed: tuple[type[Exception], ...] = (ExchangeError,),
) -> FuzzResult:
    """Feed mutated *frames*, JSON or text fields that end with NUL, to an adapter's decoder, outside of any loop.

    The decoder returns values of the model, e.g. an `OrderReport`, `Fill` or `Balance`, several of them, or None, or
    raises one of *allowed*. It may be async; all calls then run on one loop. Any other error is a violation, and so
    is a report that claims success without an id, a value that is no finite decimal or aware time, and an impossible
    fill.
    """
    result = FuzzResult()
    with asyncio.Runner() as runner:
        for _ in range(count):
            frame = mutated_frame(rng.choice(frames), rng)
            result.mutations += 1
            try:
                answer = decode(frame)
                if inspect.iscoroutine(answer):
                    answer = runner.run(answer)
            except allowed:
                result.outcomes["refused"] += 1
                continue
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                result.blame(f"{type(error).__name__}: {error}", frame)
                continue
            problem = next(filter(None, map(problem_with_answer, _each(answer))), None)
            if problem is not None:
                result.blame(problem, frame)
            else:
                result.outcomes["nothing" if answer is None else "decoded"] += 1
    return result


def _each(answer: object) -> Iterable[object]:
    if isinstance(answer, Mapping):
        return answer.values()
    return answer if isinstance(answer, (list, tuple)) else (answer,)


def problem_with_answer(answer: object) -> str | None:
    """Return why a decoded value must never leave an adapter, or None."""
    if answer is None or isinstance(answer, StreamGap):
        return None
    faults = faults_in(answer)
    if faults:
        return faults[0]
    if isinstance(answer, Fill):
        return None if is_plausible(answer) else "an impossible fill"
    if isinstance(answer, _NO_ORDERS):
        return None
    if not isinstance(answer, OrderReport):
        return f"{type(answer).__name__} is no report"
    doubtful = (OrderState.IN_DOUBT, OrderState.REJECTED)
    if not answer.venue_order_id and answer.status not in doubtful:
        return f"{answer.status} without a venue order id"
    if not isinstance(answer.status, OrderState):
        return f"status {answer.status!r} is no OrderState"
    return None


# -- values --------------------------------------------------------------------------------------------


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return a struct with one to three fields wrong, or at times something else altogether."""
    if rng.random() < 0.02:
        return rng.choice(NASTY_VALUES)
    changes = {
        name: rng.choice(NASTY_VALUES)
        for name in rng.sample(value.__struct_fields__, rng.choice((1, 1, 2, 3)))
    }
    fills = getattr(value, "fills", ())
    if fills and "fills" in changes and rng.random() < 0.8:
        changes["fills"] = (mutated_value(rng.choice(fills), rng),)
    return msgspec.structs.replace(value, **changes)


def _short(mutation: object) -> str:
    text = repr(mutation)
    return text if len(text) <= 400 else f"{text[:400]}..."
