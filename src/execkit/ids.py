"""Identifiers: derived where a repetition must give the same id, random from an injected generator elsewhere."""

from __future__ import annotations

import random
from base64 import b32encode
from decimal import Decimal
from hashlib import blake2b
from typing import Final

from execkit.numbers import plain

PREFIX: Final = "xk"
"""First characters of each client order id of ours; how we know our orders at a venue."""


def client_order_id(
    account: str, signal_id: str, role: str, leg: int = 0, slice_: int = 0, revision: int = 0
) -> str:
    """Derive the client order id: `xk` + 24 lower-case base32 characters, legal on every venue.

    The same arguments give the same id for ever, also in another process.
    """
    text = f"{account}\x1f{signal_id}\x1f{role}\x1f{leg}\x1f{slice_}\x1f{revision}"
    digest = blake2b(text.encode(), digest_size=15).digest()
    return PREFIX + b32encode(digest).decode("ascii").lower()


def is_ours(order_id: str) -> bool:
    """Tell whether a client order id has the form that `client_order_id` gives."""
    return len(order_id) == 26 and order_id.startswith(PREFIX)


def content_digest(*parts: object) -> str:
    """Return a short digest of the parts; equal content (1.0 equals 1) gives an equal digest."""
    text = "\x1f".join([plain(part) if type(part) is Decimal else str(part) for part in parts])
    return blake2b(text.encode(), digest_size=12).hexdigest()


def random_id(rng: random.Random) -> str:
    """Return a fresh 96-bit identifier from the given generator."""
    return f"{rng.getrandbits(96):024x}"
