"""The watch over the process's own load: how late its loop is, how much memory it uses, and what is refused for it.

Owns the levels and their hysteresis; the figures come from meters, and what follows is read from `Load`, the only
thing written here. It knows neither requests nor connections.

Lag. A delay of the loop above `loop_lag` that lasts `lag_for` refuses requests of class low, and normal as well when
it lasts as long again. Class high is never refused for lag: the operators who mend it have to get through. A delay
lasts while the middle one of the last second is above: a pause, or two, however long, refuse nobody, because they are
over once they are seen. After each `lag_for` below half of `loop_lag` one class is served again.

Memory, in shares of the limit:

    85 %   shrink: idle connections end after a second, connections get smaller buffers, free memory goes back
    92 %   each answer is the last one on its connection
    95 %   new requests are refused whatever their class, and with them the largest that still arrive or wait in queues
    98 %   new connections are refused

A level ends a little below its threshold. Between two looks gates read no more of bodies than `Load.room`, so that no
burst of uploads can outrun the watch.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.dataplane.shedding import EVERYONE, NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.background.memory import Memory
    from proxy.config.resilience import Overload
    from proxy.dataplane.shedding import Load

#: How often the supervisor is to take a step, seconds, without jitter: what is late beyond it is the loop's delay.
STEP_S: Final = 0.1
#: What one delay counts for, seconds.
_REMEMBERED_S: Final = 1.0
#: The most that lag refuses: class normal and low.
_LOWEST_BY_LAG: Final = 1

_SHRINK: Final = 0.85
_CLOSE_KEEPALIVE: Final = 0.92
_REFUSE_REQUESTS: Final = 0.95
_REFUSE_CONNECTIONS: Final = 0.98
#: Where each level begins, as a share of the limit, and how far below that it ends.
THRESHOLDS: Final = (_SHRINK, _CLOSE_KEEPALIVE, _REFUSE_REQUESTS, _REFUSE_CONNECTIONS)
_SLACK: Final = 0.02
#: Up to where bodies are read. A body is copied once when it is whole, so half of what is free may be read.
_READ_UP_TO: Final = 0.97
_COPIES: Final = 2
#: How often free memory is given back while it is short, seconds.
_TRIM_S: Final = 0.5


class Lag:
    """The delays of the last second, from the moments at which steps come."""

    def __init__(self) -> None:
        self._last: float | None = None
        #: (moment, delay)
        self._delays: deque[tuple[float, float]] = deque()

    @property
    def typical_s(self) -> float:
        """The middle one: two pauses in a second are no late loop, steps that are all late are one."""
        delays = sorted(late for _, late in self._delays)
        return delays[(len(delays) - 1) // 2] if delays else 0.0

    def seen(self, now: float, remembered_s: float) -> float:
        """A step comes now; the longest delay of late, seconds."""
        late = 0.0 if self._last is None else max(0.0, now - self._last - STEP_S)
        self._last = now
        delays = self._delays
        delays.append((now, late))
        while now - delays[0][0] >= remembered_s:
            delays.popleft()
        return max(late for _, late in delays)


class LagLevel:
    """Which classes a late loop refuses: none, low, or low and normal; one step at a time."""

    def __init__(self) -> None:
        self.refused_from = NOBODY
        #: Since when the delay is too long, or short again; None when it is in between.
        self._since: float | None = None
        self._rising = False

    def seen(self, now: float, lag_s: float, loop_lag_s: float, lag_for_s: float) -> None:
        """Take the delay of late."""
        rising = lag_s > loop_lag_s
        if not rising and lag_s >= loop_lag_s / 2:
            self._since = None
            return
        if self._since is None or rising != self._rising:
            self._since, self._rising = now, rising
            return
        if now - self._since >= lag_for_s:
            step = -1 if rising else 1
            self.refused_from = min(NOBODY, max(_LOWEST_BY_LAG, self.refused_from + step))
            self._since = now


class MemoryLevel:
    """How many of `THRESHOLDS` are reached."""

    def __init__(self) -> None:
        self.reached = 0

    def seen(self, share: float) -> None:
        """Take what is used, as a share of the limit."""
        reached = sum(share >= threshold for threshold in THRESHOLDS)
        while self.reached > reached and share < THRESHOLDS[self.reached - 1] - _SLACK:
            self.reached -= 1
        self.reached = max(self.reached, reached)


class OverloadWatch:
    """Looks at loop and memory, and writes into `load` what follows."""

    def __init__(
        self,
        config: Overload,
        load: Load,
        memory: Memory,
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called after each change of what is refused or given up."""
        self._changed = changed
        self._load = load
        self._memory = memory
        self._clock = clock
        self._lag = Lag()
        self._lag_level = LagLevel()
        self._memory_level = MemoryLevel()
        self._trimmed_at = -inf
        self.configure(config)

    def configure(self, config: Overload) -> None:
        """Take a (new) configuration; levels stay as they are until the next look."""
        self._config = config
        self._memory.configure(config.memory)

    def close(self) -> None:
        """Look no more; nothing is refused for memory from now on."""
        self._memory.close()

    def step(self) -> None:
        """One look, to be taken every `STEP_S` without jitter."""
        before = self._levels()
        self._look()
        if self._levels() != before:
            self._changed()

    def _levels(self) -> tuple[int, int]:
        return self._lag_level.refused_from, self._memory_level.reached

    def _look(self) -> None:
        now, load, config = self._clock(), self._load, self._config
        load.lag_s = self._lag.seen(now, min(_REMEMBERED_S, config.lag_for))
        self._lag_level.seen(now, self._lag.typical_s, config.loop_lag, config.lag_for)
        self._look_at_memory(now)
        reached = self._memory_level.reached
        load.shrinking = reached >= 1
        load.closing_keepalive = reached >= 2
        load.refused_from = EVERYONE if reached >= 3 else self._lag_level.refused_from
        load.refusing = reached >= len(THRESHOLDS)
        load.retry_after_s = config.lag_for

    def _look_at_memory(self, now: float) -> None:
        """Used and allowed bytes, the level, and how much of bodies may be read until the next look."""
        load, limit = self._load, self._memory.limit
        load.memory_limit = limit
        if not limit:
            load.memory_bytes, load.excess, load.room, self._memory_level.reached = 0, 0, inf, 0
            return
        used = load.memory_bytes = self._memory.used()
        self._memory_level.seen(used / limit)
        load.excess = max(0, used - int(_SHRINK * limit))
        load.room = max(0.0, (_READ_UP_TO * limit - used) / _COPIES)
        if self._memory_level.reached and now - self._trimmed_at >= _TRIM_S:
            self._trimmed_at = now
            self._memory.trim()
