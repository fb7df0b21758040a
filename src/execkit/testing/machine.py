"""What the state machines share: a loop of virtual time, and checks at the end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from execkit.testing.time import VirtualTime

T = TypeVar("T")


class Machine(RuleBasedStateMachine):
    """A machine with virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = VirtualTime()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the tested thing."""
        return self.time.run(work)

    def teardown(self) -> None:
        """Check what must hold in the end, and close."""
        try:
            self.at_the_end()
        finally:
            self.time.close()

    def at_the_end(self) -> None:
        """Check what must hold after the last step."""
