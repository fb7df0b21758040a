"""YAML says what it says: no guesses, no duplicates, no bombs, and every value has its line."""

import re
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from execkit.config_yaml import MAX_BYTES, load_yaml, parse_yaml, scalar
from execkit.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("5", 5),
        ("-17", -17),
        ("0", 0),
        ("0.1", Decimal("0.1")),
        ("-2.50", Decimal("-2.50")),
        ("1e-8", Decimal("1e-8")),
        ("0.1000000000000000055", Decimal("0.1000000000000000055")),
        # the traps of S8: all of these stay text
        *((trap, trap) for trap in ("ON", "NO", "yes", "off", "True", "TRUE", "y")),
        *((trap, trap) for trap in ("12:30:00", "0123", "0o17", "0x1F", "1_000", "2022-01-01")),
        *((trap, trap) for trap in (".nan", ".inf", "-.inf", "NaN", "1.", ".5", "+", "1e9999")),
    ],
)
def test_words_and_numbers(text, value):
    """S8: only true, false, null, plain integers and plain fractions mean anything but themselves."""
    read = parse_yaml(f"key: {text}\nquoted: '{text}'\n").values
    assert read == {"key": value, "quoted": text}
    assert type(read["key"]) is type(value)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=8, min_value=-(10**12), max_value=10**12
    )
)
def test_fractions_are_exact(number):
    """Every fraction is read as the decimal that is written, to its last digit."""
    assert scalar(f"{number:f}") == number


# The writer follows YAML 1.1, where 1e5 is a text that needs no quotes; to us, as in YAML 1.2, it is a number.
TEXTS = st.text(max_size=9).filter(
    lambda text: not re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", text)
)


@given(
    st.recursive(
        st.one_of(st.booleans(), st.none(), st.integers(-(10**9), 10**9), TEXTS),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_reads_what_was_written(values):
    """What a YAML writer quotes, we read back, whatever the text looks like."""
    document = {"top": values}
    text = yaml.safe_dump(document, allow_unicode=False)
    assert parse_yaml(text).values == document


def test_every_value_knows_its_line(tmp_path):
    """Lines of keys, list items and what is not there: then the nearest thing around it."""
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb:\n  - x: 2\n    y: 3\n  - z: 4\nc: {d: 5}\n")
    file = load_yaml(path)
    assert file.values == {"a": 1, "b": [{"x": 2, "y": 3}, {"z": 4}], "c": {"d": 5}}
    for key, line in (
        (("a",), 1),
        (("b",), 2),
        (("b", 0, "y"), 4),
        (("b", 1), 5),
        (("b", 1, "missing"), 5),
        (("c", "d"), 6),
        (("nowhere", 7), 1),
    ):
        assert file.where(key) == f"{path}:{line}: "


def test_an_empty_file_has_no_values():
    """Nothing is nothing, not an error; what is missing is for the model to say."""
    assert parse_yaml("# only a comment\n").values == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: key 'a' comes twice (first in line 1); remove one"),
        ("a:\n  b: 1\n  'b': 2\n", "f.yaml:3: key 'b' comes twice (first in line 2)"),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            "f.yaml:1: tag tag:yaml.org,2002:python/",
        ),
        ("a: !!float 1\n", "f.yaml:1: tag tag:yaml.org,2002:float is not allowed"),
        ("a: !env HOME\n", "f.yaml:1: tag !env is not allowed"),
        ("[1, 2]: 3\n", "f.yaml:1: a key must be plain text"),
        ("- 1\n- 2\n", "f.yaml:1: must be `key: value` lines at the top"),
        ("just text\n", "f.yaml:1: must be `key: value` lines at the top"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: but found another document"),
        ("a: *nothing\n", "f.yaml:1: found undefined alias"),
        ("a: \x00\n", "f.yaml: unacceptable character"),
        ("a: &x [*x]\n", "f.yaml:1: nested more than 20 deep, or an alias inside itself"),
        ("a: " + "[" * 25 + "]" * 25, "f.yaml:1: nested more than 20 deep"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "f.yaml: is nested too deeply"),
    ],
)
def test_refusals_name_line_and_reason(text, message):
    """Duplicate keys, tags, odd keys, broken syntax and endless nesting are refused."""
    with pytest.raises(ConfigurationError) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith(message)


def test_alias_bombs_do_not_go_off():
    """S8: ten lines that would be a billion values are refused; a modest alias is a copy."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigurationError, match="more than 10000 values, aliases written out"):
        parse_yaml("\n".join(lines))
    assert parse_yaml("a: &x {k: 1}\nb: *x\n").values == {"a": {"k": 1}, "b": {"k": 1}}


def test_merge_keys_have_no_meaning():
    """`<<` is a key like any other, so a strict model refuses it."""
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x}\n").values["b"] == {"<<": {"k": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"a: \xff\n", "is not UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1000000 bytes"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    """A missing, undecodable or huge file is refused with its name."""
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(f"{path}: {message}")
