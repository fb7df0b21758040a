"""TWS holds the login, so the adapter has no secret to lose; what the process knows beside it does not show either."""

import os
import random
from unittest import mock

from tests.wire.test_ibkr_contract import TestIBKR as _Contract

from execkit.testing.canary import run_under_canary


class Planted(_Contract):
    """The contract with secrets in the environment, where launchers of TWS keep the login."""

    __test__ = False


def test_no_secret_is_written():
    """The whole contract with planted secrets: logs (ib_async's at DEBUG too), reprs, and errors with their causes."""
    contract = Planted()
    with mock.patch.dict(os.environ):
        run = contract.make_adapter

        async def planted():
            names = {"TWSUSERID": "api_key", "TWSPASSWORD": "account_password"}
            os.environ |= {name: contract.secrets[kind] for name, kind in names.items()}
            return await run()

        contract.make_adapter = planted
        canary = run_under_canary(contract, random.Random(7))
    canary.check()
    assert canary.bytes_scanned > 100_000
