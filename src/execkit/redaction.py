"""Takes secrets out of texts that somebody else wrote, before they reach a journal, a log or a person.

An exception of a client library, a venue's answer or a handler of yours may hold what it worked with: a signed address,
the URL of a chat service with its token, a header. Secrets that execkit was given are found by their value in every
usual spelling; others by the form in which they are written.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MARK: Final = "***"
"""What stands where a secret stood."""

_SHORTEST: Final = 6
"""Characters of a value that is looked for; shorter ones are in many words."""

_NAMES: Final = (
    r"api[_-]?key|api[_-]?secret|secret(?:[_-]?key)?|key[_-]?id|password|passphrase|passwd|pwd|private[_-]?key"
    r"|(?:[a-z]+[_-]?)?token|signature|listen[_-]?key|authorization|cookie|session[_-]?id|x-mbx-apikey"
)

_FORMS: Final = (
    # user:password@ of an address, up to the last @ before its path ends.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]*@", re.IGNORECASE), rf"\1{MARK}@"),
    # The values of a query.
    (re.compile(r"([?&][^\s=&?#\"'<>]+=)[^\s&#\"'<>]+"), rf"\1{MARK}"),
    # The token in the path of a webhook.
    (re.compile(r"(/(?:webhooks|services|hooks)/)[^\s?#\"'<>:,;)]+", re.IGNORECASE), rf"\1{MARK}"),
    # The token of a bot.
    (re.compile(r"(\bbot)?\d{5,}(?::|%3A)[\w-]{15,}", re.IGNORECASE), MARK),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {MARK}"),
    # name=value, "name": "value", name: a-long-value.
    (re.compile(rf"(\b(?:\w+[-_])*(?:{_NAMES})\s*=\s*[\"']?)[^\s\"',;&)}}\]]+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"(\b(?:\w+[-_])*(?:{_NAMES})\\?[\"']\s*[:,]\s*b?\\?[\"'])[^\"'\\]+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"(\b(?:\w+[-_])*(?:{_NAMES})\s*:\s*)[^\s\"',;]{{12,}}", re.IGNORECASE), rf"\1{MARK}"),
)  # fmt: skip

_known: set[str] = set()
_patterns: dict[int, re.Pattern[str]] = {}
"""What finds the known secrets, by how many these are."""


def keep_secret(*values: str | None) -> None:
    """Have these values taken out of every text from now on, in this process.

    A value of less than six characters is too common to be looked for. Safe to call twice with the same. A secret of
    one engine is none for the others of its process either.
    """
    # A key in lines may be broken up by whoever writes it, so each of its lines counts.
    lines = {line for value in values if value for line in (value, *value.splitlines())}
    _known.update(each for each in lines if len(each) >= _SHORTEST and each[:5] != "-----")


def redacted(text: str) -> str:
    """Return a text without the secrets in it."""
    if _known:
        text = _pattern().sub(MARK, text)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def words_of(error: BaseException) -> str:
    """Return what a person may be told of an error: its type and its words, without the secrets in them."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - the text of a foreign error is foreign code too
        words = "(no text)"
    return redacted(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def shown(error: BaseException) -> str:
    """Return what may be logged of an error, in one line: its repr, without the secrets in it."""
    try:
        return redacted(repr(error))
    except Exception:  # noqa: BLE001 - see above
        return type(error).__name__


def _pattern() -> re.Pattern[str]:
    found = _patterns.get(len(_known))
    if found is None:
        spellings = {spelling for secret in _known for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=lambda each: (-len(each), each))
        found = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
        _patterns.clear()
        _patterns[len(_known)] = found
    return found


def _spellings(secret: str) -> Iterator[str]:
    raw = secret.encode(errors="surrogatepass")
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield ascii(secret)[1:-1]
    yield repr(raw)[2:-1]
    yield quote(raw, safe="")
    yield quote(raw)
    yield quote_plus(raw)
    yield raw.hex()
    for shift in range(3):
        # Inside a longer text, e.g. `user:password`, base64 begins at any of three places; what stands for whole bits
        # of the secret only is the same everywhere.
        code = base64.b64encode(b"\0" * shift + raw).decode()
        end = shift + len(raw)
        for part in (code[(0, 2, 3)[shift] : end * 8 // 6], code[4 if shift else 0 : end // 3 * 4]):
            if len(part) >= _SHORTEST:
                yield part
                yield part.translate(str.maketrans("+/", "-_"))
