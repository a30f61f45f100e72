"""An event loop whose time passes only when nothing else is left to do: hours take as long as their events."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Impatient(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Never sleeps: what it was to wait is added to the time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everyone waits, and nothing will ever happen")
        self.now += max(0.0, timeout)
        return list(super().select(0))


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time()` is the clock of whatever runs in it."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now

    def settle(self) -> None:
        """Let everything happen that is to happen now."""
        for _ in range(6):
            self.run_until_complete(asyncio.sleep(0))

    def advance(self, seconds: float) -> None:
        """Let time pass, and what happens in it happen."""
        self.run_until_complete(asyncio.sleep(seconds))
        self.settle()


def run_virtually(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """`asyncio.run` in a loop that is closed afterwards."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
