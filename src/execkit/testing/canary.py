"""Secrets canary: plants made-up secrets, watches everything that is written, and finds them in every spelling."""

from __future__ import annotations

import base64
import contextlib
import functools
import inspect
import io
import json
import logging
import random
import string
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import structlog

from execkit.exchanges.base import ExchangeAdapter
from execkit.testing.contract import AdapterContract, run_contract
from execkit.testing.control import VenueControl
from execkit.testing.rules import Case

NAMES: Final = (
    "api_key",
    "api_secret",
    "passphrase",
    "bearer_token",
    "listen_key",
    "signature",
    "session_cookie",
    "account_password",
    "private_key",
    "webhook_token",
    "one_time_seed",
    "database_password",
)
"""The twelve kinds of secrets that are planted."""

_STREAMS: Final = ("order_updates", "watch_quotes", "watch_trades", "watch_bars")
_LETTERS: Final = string.ascii_letters + string.digits


class SecretsCanary:
    """Twelve secrets and all that was seen of them.

    Give `secrets` to what is tested, run its error paths inside `watch()`, show other values to `see` and files to
    `scan`, and end with `check`. A leak names the secret's kind and where it was seen, never its text.
    """

    def __init__(self, rng: random.Random) -> None:
        self.secrets: Mapping[str, str] = {name: _made_up(name, rng) for name in NAMES}
        self.leaks: list[str] = []
        self.bytes_scanned = 0
        self._spellings = {name: tuple(_spellings(secret)) for name, secret in self.secrets.items()}

    def look(self, where: str, data: str | bytes) -> None:
        """Search a text or bytes for every secret in every spelling."""
        raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
        self.bytes_scanned += len(raw)
        for name, spellings in self._spellings.items():
            for how, spelling in spellings:
                if spelling in raw:
                    leak = f"{name} ({how}) in {where}"
                    if leak not in self.leaks:
                        self.leaks.append(leak)

    def see(self, where: str, value: object) -> None:
        """Search what a person or a log would see of a value; of an error also its traceback and causes."""
        self.look(f"repr of {where}", repr(value))
        self.look(f"str of {where}", str(value))
        if isinstance(value, BaseException):
            self.look(f"traceback of {where}", "".join(traceback.format_exception(value)))
            self.look(f"attributes of {where}", repr(vars(value)))

    def scan(self, folder: Path) -> None:
        """Search every file below a folder, and the files' names."""
        for path in sorted(folder.rglob("*")):
            self.look("a file name", path.name)
            if path.is_file():
                self.look(f"file {path.name}", path.read_bytes())

    def tap(self, adapter: ExchangeAdapter) -> None:
        """See every answer, every error and everything streamed by an adapter from now on."""
        self.see("the adapter", adapter)
        for name, function in inspect.getmembers(type(adapter), inspect.isroutine):
            if name.startswith("_"):
                continue
            method = getattr(adapter, name)
            if inspect.iscoroutinefunction(method):
                setattr(adapter, name, self._tapped(method))
            elif name in _STREAMS or inspect.isasyncgenfunction(function):
                setattr(adapter, name, self._tapped_stream(method))

    def _tapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._errors(method.__name__):
                answer = await method(*args, **kwargs)
            self.see(f"answer of {method.__name__}", answer)
            return answer

        return call

    def _tapped_stream(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._errors(method.__name__):
                updates = method(*args, **kwargs)
            return _TappedStream(self, method.__name__, updates)

        return call

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.see(f"error of {name}", error)
            raise

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Search all that is logged or printed meanwhile."""
        handler = _Handler(self)
        root = logging.getLogger()
        level = root.level
        out, err = io.StringIO(), io.StringIO()
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        before = structlog.get_config()
        structlog.configure(
            processors=[_Processor(self), *before["processors"]],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            logger_factory=structlog.PrintLoggerFactory(out),
            cache_logger_on_first_use=False,
        )
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield
        finally:
            structlog.configure(**before)
            root.removeHandler(handler)
            root.setLevel(level)
            self.look("standard output", out.getvalue())
            self.look("standard error", err.getvalue())

    def check(self) -> None:
        """Raise `AssertionError` naming each leak; also when nothing at all was scanned."""
        if not self.bytes_scanned:
            raise AssertionError("nothing was scanned, so nothing is proven")
        if self.leaks:
            raise AssertionError("secrets were written:\n" + "\n".join(self.leaks))

    def __repr__(self) -> str:
        return f"SecretsCanary({len(self.secrets)} secrets, {len(self.leaks)} leaks)"


def run_under_canary(
    contract: AdapterContract,
    rng: random.Random,
    *,
    only: Callable[[Case], bool] = lambda _case: True,
) -> SecretsCanary:
    """Run an adapter's conformance cases, and so its error paths, with planted secrets; call `check` on what returns.

    The contract's `make_adapter` makes the adapter with `self.secrets`, e.g. `self.secrets.get("api_key", "key")`, and
    its venue repeats in errors what real ones repeat. A case that fails is the contract's affair, not the canary's.
    """
    canary = SecretsCanary(rng)
    make_adapter, make_control = contract.make_adapter, contract.make_control

    async def tapped() -> ExchangeAdapter:
        adapter = await make_adapter()
        canary.tap(adapter)
        return adapter

    def knowing(adapter: ExchangeAdapter) -> VenueControl:
        control = make_control(adapter)
        control.secrets = tuple(canary.secrets.values())
        return control

    contract.secrets = canary.secrets
    contract.make_adapter = tapped  # type: ignore[method-assign]
    contract.make_control = knowing  # type: ignore[method-assign]
    with canary.watch():
        for result in run_contract(contract, only=only):
            canary.see(result.case.name, result.detail)
    return canary


class _TappedStream:
    """An adapter's stream whose items and errors are seen."""

    def __init__(self, canary: SecretsCanary, name: str, updates: Any) -> None:
        self._canary = canary
        self._name = name
        self._updates = updates
        self._iterator = aiter(updates)

    def __aiter__(self) -> _TappedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            update = await anext(self._iterator)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self._canary.see(f"error of {self._name}", error)
            raise
        self._canary.see(f"item of {self._name}", update)
        return update

    def __getattr__(self, name: str) -> Any:
        return getattr(self._updates, name)


class _Handler(logging.Handler):
    """Looks at every record of the standard library's logging, third parties' included."""

    def __init__(self, canary: SecretsCanary) -> None:
        super().__init__(logging.NOTSET)
        self._canary = canary

    def emit(self, record: logging.LogRecord) -> None:
        self._canary.look(f"log of {record.name}", self.format(record))


class _Processor:
    """Looks at every structlog event before anything renders it."""

    def __init__(self, canary: SecretsCanary) -> None:
        self._canary = canary

    def __call__(self, _logger: Any, _name: str, event: Any) -> Any:
        self._canary.look(f"log event {event.get('event')}", repr(event))
        if event.get("exc_info"):
            self._canary.look("traceback in a log event", traceback.format_exc())
        return event


def _made_up(name: str, rng: random.Random) -> str:
    text = "".join(rng.choices(_LETTERS, k=32))
    match name:
        case "account_password" | "database_password":
            # Characters that every encoding writes in its own way.
            return f'{text[:10]}/+ &%é"{text[10:20]}'
        case "private_key":
            return f"-----BEGIN PRIVATE KEY-----\n{text}\n{text[::-1]}\n-----END PRIVATE KEY-----"
        case "signature":
            return rng.randbytes(32).hex()
        case _:
            return text


def _spellings(secret: str) -> Iterator[tuple[str, bytes]]:
    # Of a key in lines each line counts, because a log may break it up.
    lines = [line for line in secret.splitlines() if not line.startswith("-----")]
    for line in lines:
        raw = line.encode()
        yield "plain", raw
        yield "escaped", json.dumps(line)[1:-1].encode()
        yield "repr", repr(line)[1:-1].encode()
        yield "URL-encoded", quote(line, safe="").encode()
        yield "URL-encoded", quote_plus(line).encode()
        yield "hex", raw.hex().encode()
        for shift in range(3):
            # Inside a longer text, e.g. `user:password`, base64 begins at any of three places.
            code = base64.b64encode(b"\0" * shift + raw)
            whole = code[4 if shift else 0 : len(raw + b"\0" * shift) // 3 * 4]
            yield "base64", whole
            yield "base64", whole.translate(bytes.maketrans(b"+/", b"-_"))
