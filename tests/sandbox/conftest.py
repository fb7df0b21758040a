"""Tests against the venues' own sandboxes: real servers, money that is not real. Skipped where there is no key.

They run on purpose only: with `-m sandbox`, and with the variables that `docs/how-to/sandbox-tests.md` names.
"""

import os

import pytest

GATES = {
    "binance": ("EXECKIT_SANDBOX_BINANCE_KEY", "EXECKIT_SANDBOX_BINANCE_SECRET"),
    "alpaca": ("EXECKIT_SANDBOX_ALPACA_KEY", "EXECKIT_SANDBOX_ALPACA_SECRET"),
    "ibkr": ("EXECKIT_SANDBOX_IBKR_PORT",),
}
"""What each sandbox needs; names of their own, so that keys for trading never start a test."""


def pytest_collection_modifyitems(config, items):
    """Skip what was not asked for, or cannot be: without `-m sandbox` also with keys in the environment."""
    for item in items:
        marker = item.get_closest_marker("sandbox")
        if marker is None:
            continue
        [venue] = marker.args
        missing = [name for name in GATES[venue] if not os.environ.get(name)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"set {' and '.join(missing)} to run it"))
        elif "sandbox" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="run it with -m sandbox"))
