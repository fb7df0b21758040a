"""Denials: a code with one line of documentation, and the value and limit that decided."""

from decimal import Decimal

import msgspec
import pytest

from execkit.model.denial import Denial, DenialCode


@pytest.mark.parametrize("code", list(DenialCode))
def test_each_code_is_documented_in_one_line(code):
    """The table in the documents is made of these."""
    assert code.value == code.name
    assert code.doc.endswith(".")
    assert "\n" not in code.doc
    assert DenialCode(code.value) is code


def test_text():
    """Decimals are written plainly, other values as they are."""
    denial = Denial.of(
        DenialCode.NOTIONAL_TOO_LARGE, notional=Decimal("6.00E+2"), limit=Decimal("500.0"), by="me"
    )
    assert str(denial) == "NOTIONAL_TOO_LARGE: notional=600, limit=500, by=me"
    assert str(Denial(DenialCode.TRADING_HALTED)) == "TRADING_HALTED"


def test_it_survives_the_journal():
    """Encoded by its value and decoded to the same."""
    denial = Denial.of(DenialCode.QUOTE_STALE, age_seconds=6.5)
    assert msgspec.json.decode(msgspec.json.encode(denial), type=Denial) == denial
