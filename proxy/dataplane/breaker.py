"""The circuit breaker of one server: when a failing server is left alone, and which request tries it again. The only
door of pybreaker, which keeps the state.

Owns admission (pybreaker's own runs the call, and lets every request through once the time is up), what a failure
counts for, and how long it stays open. It must not know what a request is, who else could take it, or who is told.

- Failures on the way (connect, tls, timeout, reset) and answers of 502 to 504 have a run each, as in Envoy's split
  mode; a run of `failures` opens it, and so does `failure_rate` within `window`. Only a success ends a run.
- It stays open for `open_for` times its openings in a row, plus up to a fifth by chance, at least as long as the server
  asked for, at most `max_open_for`. An opening is one *in a row* unless it had been closed for `window` before: a
  server that comes and goes is tried less and less often, and one that recovered is forgiven after that time.
- Then one request at a time is a trial, and its success closes it. A trial always ends: by its outcome, given back when
  its client has left, or overtaken. Has it not ended after `max_open_for` (it waits for a hung server, or is lost),
  the next request is a trial, too; of several the last decides, but each may close it.
- Every admission is a ticket. What was admitted before the state changed says nothing of the state now.
- Without `enforce` all of this happens and is told of, but every request is admitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import pybreaker

from proxy.config.resilience import Breaker as Settings

State = Literal["closed", "open", "half_open"]
Failure = Literal["connect", "tls", "timeout", "reset", "upstream_5xx"]
Order = Literal["open", "closed", ""]
Change = Literal[
    "failures", "failure_rate", "trial", "trial_failed", "trial_succeeded", "ordered_open", "ordered_closed",
    "order_ended",
]  # fmt: skip
"""Why the state changed; after `order_ended` it is open still, and due for a trial."""
Tell = Callable[["Breaker", Change], None]

#: Parts of `window` that are counted apart.
_BUCKETS: Final = 10
#: Share of the open time that chance adds at most.
_JITTER: Final = 0.2
#: Ticket of what is admitted only because nothing is enforced.
_UNCOUNTED: Final = -1
#: What is said while a trial is under way, whose end nobody knows; seconds.
_SOON_S: Final = 1.0

_STATES: Final[dict[str, State]] = {
    pybreaker.STATE_CLOSED: "closed",
    pybreaker.STATE_OPEN: "open",
    pybreaker.STATE_HALF_OPEN: "half_open",
}


class Breaker:
    """State and counts of one server. Times are monotonic seconds."""

    __slots__ = (
        "_answered", "_bad", "_bucket_s", "_clock", "_draw", "_good", "_in_a_row", "_local", "_machine", "_newest",
        "_normal", "_opened_after", "_past", "_rests_until", "_since", "_spent", "_tell", "_trial", "_trial_until",
        "_turns_at", "by_origin", "config", "failures", "last_failure", "next_attempt_at", "opened_at", "order",
        "refused", "state", "trips",
    )  # fmt: skip

    def __init__(
        self, config: Settings, clock: Callable[[], float], draw: Callable[[], float], tell: Tell | None = None
    ) -> None:
        """`draw` gives a number in [0, 1); `tell` is called upon each change, when all fields are up to date."""
        self.config = config
        self._clock = clock
        self._draw = draw
        self._tell = tell
        #: Made when the state first changes: most servers never need it.
        self._machine: pybreaker.CircuitBreaker | None = None
        #: pybreaker's state, at hand.
        self.state: State = "closed"
        #: An operator's order that holds.
        self.order: Order = ""
        #: Length of the longer of the two runs.
        self.failures = 0
        self.by_origin: dict[Failure, int] = {"connect": 0, "tls": 0, "timeout": 0, "reset": 0, "upstream_5xx": 0}
        self.last_failure: Failure | Literal[""] = ""
        #: How often failures opened it, failed trials included.
        self.trips = 0
        #: Requests that were refused, or would have been.
        self.refused = 0
        #: When it opened last; 0 for never.
        self.opened_at = 0.0
        #: When a trial is due; 0 while none is planned: closed, or kept open by an order.
        self.next_attempt_at = 0.0
        # runs and window
        self._local = self._answered = 0
        self._good = self._bad = 0
        self._past: deque[tuple[int, int]] | None = None
        self._bucket_s = config.window / _BUCKETS
        # tickets: the newest; that of all who are admitted while closed (0 while it is not); the trial's (0 for none);
        # the newest when it opened
        self._newest = self._normal = 1
        self._trial = self._opened_after = 0
        self._trial_until = 0.0
        # times
        self._in_a_row = 0
        self._rests_until = 0.0
        self._since = clock()
        self._turns_at = self._since + self._bucket_s
        self._spent: dict[State, float] = {"closed": 0.0, "open": 0.0, "half_open": 0.0}

    # --- admission: runs with every request -----------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether a request may be tried here now."""
        return self._normal != 0 or not self.config.enforce or self._due()

    def admit(self) -> int:
        """A ticket, to be ended by exactly one of the next three; 0 for a refusal. Takes the trial if it is one."""
        return self._normal or self._admit_trial()

    def succeeded(self, ticket: int) -> None:
        """The server answered."""
        if ticket != self._normal:
            if ticket > self._opened_after and self.state == "half_open":
                self._close("trial_succeeded")
            return
        now = self._clock()
        if now >= self._turns_at:
            self._turn(now)
        self._good += 1
        if self.failures:
            self.failures = self._local = self._answered = 0

    def failed(self, ticket: int, origin: Failure, retry_after_s: float = 0.0) -> None:
        """The server did not answer, or with 502 to 504; `retry_after_s` is what it asked for then."""
        self.by_origin[origin] += 1
        self.last_failure = origin
        if ticket == self._normal:
            reached = self._count(origin)
            if reached is not None:
                self._open(reached, retry_after_s)
        elif ticket == self._trial:
            self._open("trial_failed", retry_after_s)

    def neutral(self, ticket: int) -> None:
        """It ended without saying anything of the server, as when the client left. A trial is given back."""
        if ticket == self._trial:
            self._trial = 0

    def rest(self, seconds: float) -> None:
        """The server asked to be spared for a while (429), at most for `max_open_for`."""
        self._rests_until = self._clock() + min(seconds, self.config.max_open_for)

    def hurry(self, within_s: float) -> None:
        """Nobody else could be asked: a trial is due so soon after it opened, unless an operator keeps it open."""
        if self.state == "open" and not self.order:
            self.next_attempt_at = min(self.next_attempt_at, self.opened_at + within_s)

    # --- what others ask ------------------------------------------------------------------------------------------

    def resting(self) -> bool:
        """Whether another server is to be preferred."""
        return self._rests_until != 0.0 and self._clock() < self._rests_until

    @property
    def retry_after_s(self) -> float:
        """Seconds after which a refused request has a chance; 0 while closed."""
        if self.state == "closed":
            return 0.0
        if self.order == "open":
            return self.config.max_open_for
        wait_s = self.next_attempt_at - self._clock()
        return wait_s if wait_s > 0 else _SOON_S

    def seconds(self) -> dict[State, float]:
        """Time spent in each state, up to now."""
        spent = dict(self._spent)
        spent[self.state] += self._clock() - self._since
        return spent

    def force(self, order: Order) -> None:
        """Obey an operator, once per call: `open` holds until another order, `closed` closes and forgets, '' ends one.

        When an `open` ends, a trial decides.
        """
        if order == "closed":
            self._in_a_row = 0
            self.order = ""
            self._close("ordered_closed")
        elif order == self.order:
            return
        elif order == "open":
            self.order = "open"
            self.next_attempt_at = 0.0
            self._move("open", "ordered_open")
        else:
            self.order = ""
            self.next_attempt_at = self._clock()
            self._say("order_ended")

    # --- trials ---------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Not closed: whether the next request is a trial."""
        if self.state == "open":
            return self.order != "open" and self._clock() >= self.next_attempt_at
        return not self._trial or self._clock() >= self._trial_until

    def _admit_trial(self) -> int:
        if not self._due():
            self.refused += 1
            return 0 if self.config.enforce else _UNCOUNTED
        self._newest += 1
        self._trial = self._newest
        self._trial_until = self._clock() + self.config.max_open_for
        if self.state == "open":
            self._move("half_open", "trial")
        return self._newest

    # --- counts ---------------------------------------------------------------------------------------------------

    def _count(self, origin: Failure) -> Change | None:
        """Count a failure while closed; what of it opens the breaker."""
        now = self._clock()
        if now >= self._turns_at:
            self._turn(now)
        self._bad += 1
        if origin == "upstream_5xx":
            self._answered += 1
        else:
            self._local += 1
        self.failures = max(self._answered, self._local)
        if self.failures >= self.config.failures:
            return "failures"
        past = self._past or ()
        bad = self._bad + sum(bad for _, bad in past)
        total = bad + self._good + sum(good for good, _ in past)
        if total >= self.config.min_requests and bad / total >= self.config.failure_rate:
            return "failure_rate"
        return None

    def _turn(self, now: float) -> None:
        """Begin the bucket of `now`."""
        passed = int((now - self._turns_at) / self._bucket_s) + 1
        past = self._past
        if past is None:
            past = self._past = deque(maxlen=_BUCKETS - 1)
        for _ in range(min(passed, _BUCKETS)):
            past.append((self._good, self._bad))
            self._good = self._bad = 0
        self._turns_at += passed * self._bucket_s

    # --- changes --------------------------------------------------------------------------------------------------

    def _open(self, why: Change, asked_s: float) -> None:
        config, now = self.config, self._clock()
        if self.state == "closed" and now - self._since >= config.window:
            self._in_a_row = 0
        self._in_a_row += 1
        self.trips += 1
        open_s = min(config.open_for * self._in_a_row, config.max_open_for) * (1 + _JITTER * self._draw())
        self.next_attempt_at = now + min(max(open_s, asked_s), config.max_open_for)
        self._move("open", why)

    def _close(self, why: Change) -> None:
        self.failures = self._local = self._answered = 0
        self._good = self._bad = 0
        self._past = None
        if self.state != "closed":
            self.next_attempt_at = 0.0
            self._move("closed", why)

    def _move(self, state: State, why: Change) -> None:
        """Change the state and everything that hangs on it alone."""
        now = self._clock()
        self._spent[self.state] += now - self._since
        self._since = now
        machine = self._machine
        if machine is None:
            storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
            machine = self._machine = pybreaker.CircuitBreaker(state_storage=storage)
        if state == "open":
            machine.open()
            self._opened_after, self._normal, self._trial = self._newest, 0, 0
            self.opened_at = now
        elif state == "half_open":
            machine.half_open()
        else:
            machine.close()
            self._newest += 1
            self._normal, self._trial = self._newest, 0
        self.state = _STATES[machine.current_state]
        self._say(why)

    def _say(self, why: Change) -> None:
        if self._tell is not None:
            self._tell(self, why)

    def __repr__(self) -> str:
        return f"Breaker({self.state}, failures={self.failures}, trips={self.trips})"
