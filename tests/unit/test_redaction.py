"""What a foreign text says is told without the secrets in it, in every spelling (I27)."""

import base64
import json
import random
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit import redaction
from execkit.model.denial import Denial, DenialCode
from execkit.redaction import MARK, keep_secret, redacted, shown, words_of
from execkit.testing.canary import SecretsCanary


@pytest.fixture(autouse=True)
def forget():
    """Secrets are kept for a process; each test has its own."""
    kept = set(redaction._known)
    only()
    yield
    only(*kept)


def only(*known):
    """Keep these secrets and no others."""
    redaction._known.clear()
    redaction._patterns.clear()
    keep_secret(*known)


SPELLINGS = {
    "raw": lambda s: s,
    "repr": lambda s: repr(s)[1:-1],
    "JSON": lambda s: json.dumps(s)[1:-1],
    "URL": lambda s: quote(s, safe=""),
    "URL, lower case": lambda s: (
        quote(s, safe="").lower() if s.isascii() and s.islower() else quote(s)
    ),
    "form": quote_plus,
    "hex": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of user:secret": lambda s: base64.b64encode(b"user:" + s.encode()).decode(),
    "base64 of u:secret": lambda s: base64.b64encode(b"u:" + s.encode() + b"!").decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(b"ab" + s.encode()).decode(),
}

# No star, or a secret could be made of the mark and what stands beside it.
secrets = st.text(
    st.characters(blacklist_characters="*\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", blacklist_categories=("Cs",)),
    min_size=6,
    max_size=40,
)  # fmt: skip
words = st.text(string.ascii_letters + string.digits + " :/?&=@.,'\"%+-_", max_size=30)


@given(planted=st.lists(secrets, min_size=1, max_size=4), data=st.data())
def test_no_planted_secret_survives(planted, data):
    """Whatever stands around it: raw, URL-encoded, base64 at each of its three places, hex and escaped."""
    only(*planted)
    how = data.draw(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=4))
    parts = []
    for spelling in how:
        secret = data.draw(st.sampled_from(planted))
        parts += [data.draw(words), SPELLINGS[spelling](secret)]
    told = redacted("".join([*parts, data.draw(words)]))
    for secret in planted:
        for spelling in (secret, quote(secret, safe=""), quote_plus(secret), secret.encode().hex()):
            assert spelling.lower() not in told.lower()
        raw = secret.encode()
        if (
            len(raw) >= 9
        ):  # of shorter ones the part of base64 that is the same everywhere is no longer telling
            for shift in range(3):
                code = base64.b64encode(b"\0" * shift + raw).decode()
                assert code[4 if shift else 0 : (shift + len(raw)) // 3 * 4] not in told


def test_the_canary_finds_nothing_in_what_is_told():
    """All twelve kinds in all of its own spellings, in the words of errors."""
    canary = SecretsCanary(random.Random(3))
    keep_secret(*canary.secrets.values())
    for name, spellings in canary._spellings.items():
        for how, spelling in spellings:
            text = spelling.decode()
            canary.look(f"{name} {how}", redacted(f"GET /a?b={text} failed"))
            canary.look(f"{name} {how}", words_of(ValueError(text)))
            canary.look(f"{name} {how}", shown(ValueError(text)))
    canary.check()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("wss://bob:Hunter2@api.test/v1 failed", "wss://***@api.test/v1 failed"),
        (
            "400, message='Bad', url='https://api.telegram.org/bot123456:AAE-x_yz0123456789abcdefghijk/send'",
            "400, message='Bad', url='https://api.telegram.org/***/send'",
        ),
        (
            "https://api.test/order?symbol=BTC&signature=abc123&x=1 gave 500",
            "https://api.test/order?symbol=***&signature=***&x=*** gave 500",
        ),
        ("https://discord.com/api/webhooks/12345/tok-en: 404", "https://discord.com/api/webhooks/***: 404"),
        ("api_key=abc, secret: shh", "api_key=***, secret: shh"),
        ("{'X-MBX-APIKEY': 'abc', 'a': 1}", "{'X-MBX-APIKEY': '***', 'a': 1}"),
        ('{"secret":"abc def","b":2}', '{"secret":"***","b":2}'),
        ("('APCA-API-SECRET-KEY', 'abc')", "('APCA-API-SECRET-KEY', '***')"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("password: correcthorsebatterystaple", "password: ***"),
        ("insufficient balance: need 1.50 USDT, 0.5 free", "insufficient balance: need 1.50 USDT, 0.5 free"),
        ("order xkmz4bqczwfw6pmchdgmv64z5b at 12:30:00 of account 12", None),
        ("binance: Invalid API-key, IP, or permissions for action. (code -2015)", None),
        ("check api_key and secret; keys of paper and live differ", None),
        ("what? a=b", None),
    ],
)  # fmt: skip
def test_secrets_are_known_by_the_form_of_what_holds_them(text, told):
    """Also those that nobody told execkit; ordinary words stay as they are."""
    assert redacted(text) == (text if told is None else told)


def test_short_values_and_the_frame_of_a_key_are_not_looked_for():
    """Six characters are in no common word; of a key in lines each line counts."""
    keep_secret(None, "", "buy", "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----")
    assert redacted("buy -----BEGIN KEY----- ijklmnop") == f"buy -----BEGIN KEY----- {MARK}"


def test_a_denial_tells_an_error_without_its_secrets():
    """Wherever an error is given as the reason."""
    keep_secret("Hunter2-token")
    denial = Denial.of(DenialCode.VENUE_UNAVAILABLE, reason=OSError("no Hunter2-token"), n=1)
    assert str(denial) == f"VENUE_UNAVAILABLE: reason=no {MARK}, n=1"


def test_an_error_that_cannot_be_written_is_told_by_its_type():
    """The text of a foreign error is foreign code."""

    class Rude(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    assert words_of(Rude()) == "Rude: (no text)"
    assert shown(Rude()) == "Rude"
    assert words_of(ValueError()) == "ValueError"
    assert shown(ValueError("a\nb")) == r"ValueError('a\nb')"
