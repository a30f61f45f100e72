"""Whether a database is worth asking: after one that does not answer, nobody waits again until a probe got through.

Owns a state of two: closed, or open with the time of the next probe. Pure: the clock is given, nothing waits here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: The first probe comes after this, the next twice as late each time, up to the longest: back in 1 s or so; seconds.
_FIRST_PROBE_S: Final = 0.25
_LONGEST_S: Final = 1.0


class Circuit:
    """Opens with the first failure; only a probe closes it, so that no request pays for finding out."""

    __slots__ = ("_clock", "_delay_s", "_probe_at", "opened")

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._delay_s = 0.0
        self._probe_at = 0.0
        #: How often it opened.
        self.opened = 0

    @property
    def open(self) -> bool:
        """Whether everybody is turned away."""
        return self._delay_s > 0

    def failed(self) -> None:
        """The database cannot be reached or does not answer. Of many that find out together one counts."""
        if not self.open:
            self.opened += 1
            self._wait(_FIRST_PROBE_S)

    def probe_due(self) -> bool:
        """Whether to try again; each True is followed by `probed`."""
        return self.open and self._clock() >= self._probe_at

    def probed(self, success: bool) -> None:
        """How the probe went."""
        if success:
            self._delay_s = 0.0
        else:
            self._wait(min(_LONGEST_S, 2 * self._delay_s))

    def _wait(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._probe_at = self._clock() + delay_s
