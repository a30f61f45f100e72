"""What is known of one server's health, from checks and from the traffic that passed. Pure: no I/O, the clock is given.

Owns the status and when it changes, how fast the server usually answers, and how its share grows after it recovered.
It must not know how a check is made (`probe.py`), when (`background/health_checks.py`), or who is told.

Real traffic makes an unknown server healthy and takes back bad checks, but for a check of a `path` of its own: such a
page may say that a server wants no more while it still answers. Failures of traffic count like bad checks, but the last
step to unhealthy is a check's: what fails under load alone is the breaker's to judge. Without checks the status follows
the traffic and keeps no one from the server, since nothing else could find out that it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from proxy.config.resilience import HealthCheck

Status = Literal["unknown", "healthy", "degraded", "unhealthy"]
Tell = Callable[[str, Status, Status], None]
"""Is told of a change: name of the server, old status, new status."""

#: Good samples before the baseline says something.
_SETTLED: Final = 5
#: Weight of a sample in the baseline (half of a change is learned after 70 samples) and in what is compared with it.
_SLOW, _FAST = 0.01, 0.3
#: Degraded is what is slower than usual by at least this, too; seconds.
_FLOOR_S: Final = 0.05
#: Below this share of the limit it is degraded no longer.
_BACK: Final = 0.7
#: Share of the traffic right after recovery.
_FIRST_SHARE: Final = 0.1

_WITHOUT_CHECKS: Final = HealthCheck()


class Pace:
    """How fast a server answers against how fast it usually does; seconds."""

    __slots__ = ("_factor", "_seen", "baseline_s", "recent_s", "slow")

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seen = 0
        #: What is usual. An outlier moves it no more than `factor` times itself would.
        self.baseline_s = 0.0
        #: What is now: an average of the last few.
        self.recent_s = 0.0
        self.slow = False

    def observe(self, seconds: float) -> None:
        """Take the time of one good check."""
        self._seen += 1
        settled = self._seen > _SETTLED
        sample = min(seconds, max(self._factor * self.baseline_s, _FLOOR_S)) if settled else seconds
        self.baseline_s += (sample - self.baseline_s) * max(_SLOW, 1 / self._seen)
        self.recent_s += (seconds - self.recent_s) * max(_FAST, 1 / self._seen)
        limit = max(self._factor * self.baseline_s, self.baseline_s + _FLOOR_S)
        self.slow = settled and self.recent_s > (limit * _BACK if self.slow else limit)


class Health:
    """The health of one server."""

    __slots__ = (
        "_bad", "_clock", "_good", "_ramp_from", "checks", "config", "failures", "last_code", "last_error", "last_s",
        "name", "pace", "status", "tell",
    )  # fmt: skip

    def __init__(
        self, config: HealthCheck | None, clock: Callable[[], float], name: str = "", tell: Tell | None = None
    ) -> None:
        """`clock` gives monotonic seconds; `config` is None for a server that is not checked."""
        self.config = config
        self.name = name
        self.tell = tell
        self.status: Status = "unknown"
        self.pace = Pace((config or _WITHOUT_CHECKS).degraded_factor)
        #: Checks so far, and those of them that were bad.
        self.checks = self.failures = 0
        #: What the last check found: time it took, HTTP status, and why it was bad, '' for a good one.
        self.last_s = 0.0
        self.last_code: int | None = None
        self.last_error = ""
        self._clock = clock
        #: Good and bad ones in a row.
        self._good = self._bad = 0
        #: When slow start began; below 0: there is none.
        self._ramp_from = -1.0

    @property
    def wavering(self) -> bool:
        """The last checks do not fit the status: either it changes with the next few, or they were an exception."""
        if self.status == "unhealthy":
            return self._good > 0
        return self._bad > 0 or (self.status == "unknown" and self._good > 0)

    def checked(self, ok: bool, seconds: float, code: int | None = None, error: str = "") -> None:
        """A check ended; `seconds` is how long it took."""
        config = self.config or _WITHOUT_CHECKS
        self.checks += 1
        self.last_s, self.last_code, self.last_error = seconds, code, error
        if not ok:
            self.failures += 1
            self._good, self._bad = 0, self._bad + 1
            if self._bad >= config.unhealthy_after:
                self._become("unhealthy")
            return
        self._good, self._bad = self._good + 1, 0
        self.pace.observe(seconds)
        if self.status in ("healthy", "degraded") or self._good >= config.healthy_after:
            self._become("degraded" if self.pace.slow else "healthy")

    def passive(self, ok: bool) -> None:
        """A request was answered, or it failed at the server. Called for each request: the usual case is a look."""
        if ok and not self._bad and self.status != "unknown":
            return
        config = self.config
        if config is None:
            self._follow(ok)
        elif not ok:
            self._good = 0
            self._bad = max(self._bad, min(self._bad + 1, config.unhealthy_after - 1))
        elif self.status != "unhealthy":
            if config.path is None:
                self._bad = 0
            if self.status == "unknown" and not self._bad:
                self._become("healthy")

    def usable(self) -> bool:
        """Whether new traffic may go there while another server can take it."""
        return self.status != "unhealthy" or self.config is None

    def ramp(self, draw: Callable[[], float]) -> bool:
        """Whether this request is among the share that the server gets: all, but for a while after it recovered.

        `draw` gives a number from 0 to 1 by chance.
        """
        if self._ramp_from < 0:
            return True
        length_s = self.config.slow_start if self.config is not None else 0.0
        passed_s = self._clock() - self._ramp_from
        if passed_s >= length_s:
            self._ramp_from = -1.0
            return True
        return draw() < _FIRST_SHARE + (1 - _FIRST_SHARE) * passed_s / length_s

    def _follow(self, ok: bool) -> None:
        """The status of a server that is not checked."""
        self._bad = 0 if ok else self._bad + 1
        if ok:
            self._become("healthy")
        elif self._bad >= _WITHOUT_CHECKS.unhealthy_after:
            self._become("unhealthy")

    def _become(self, status: Status) -> None:
        old = self.status
        if status == old:
            return
        self.status = status
        if old == "unhealthy" and self.config is not None and self.config.slow_start:
            self._ramp_from = self._clock()
        elif status == "unhealthy":
            self._ramp_from = -1.0
        if self.tell is not None:
            self.tell(self.name, old, status)
