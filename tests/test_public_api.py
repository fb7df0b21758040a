"""What `execkit` promises is what it exports, and all of it is documented."""

import inspect
from types import ModuleType

import pytest

import execkit

EXPORTED = list(getattr(execkit, "__all__", ()))


def test_the_face_lists_its_names():
    """`__all__` exists, is sorted (constants first, as the formatter has it) and names nothing twice."""
    assert EXPORTED, "execkit.__all__ is missing"
    assert sorted(set(EXPORTED), key=lambda name: (not name.isupper(), name)) == EXPORTED


def test_exported_names_are_the_importable_ones():
    """Nothing is importable that is not promised; submodules are reached by their own name."""
    importable = {
        name
        for name, value in vars(execkit).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name != "annotations"  # the future import
    }
    assert importable - set(EXPORTED) == set()


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_name_is_documented(name):
    """Each promised name exists, and each class and function says what it is for."""
    value = getattr(execkit, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert (value.__doc__ or "").strip(), f"{name} has no docstring"
