"""Blocked addresses: the phase that turns them away before anything else, and the table that it asks.

Owns which refusal counts as which violation, the table, and what waits to be told to other replicas and to the record.
Scores are `limits/scores.py`; that there are other replicas is known only to `background/ban_sync.py`. Never blocked:
this machine (loopback), trusted proxies, and `limits.blocking.allow`. So what the gate refuses before it has read who
the client is never counts against the proxy in front of us.

The answer is 429 with `Retry-After`, as HAProxy, Envoy and fail2ban's users know it: the ban ends by itself, and behind
an address there may be others who did nothing. It comes before the method is known, so `server/discover` is refused as
well: what is refused is a client, not load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from proxy.errors import Blocked, Refusal, retry_after
from proxy.identity.addresses import Networks
from proxy.limits.scores import LOOPBACK, Policy, Scores, subject_of

if TYPE_CHECKING:
    from proxy.config.models import Config
    from proxy.dataplane.admission import Admission
    from proxy.dataplane.context import RequestContext

#: Addresses in the table; beyond, the one that was blocked first is let go.
MOST_BLOCKED: Final = 100_000
#: Addresses whose violations wait to be told to other replicas; those of more count here only.
MOST_WAITING: Final = 10_000
#: Kind of a ban that a person made.
OPERATOR: Final = "operator"

#: Reason of a refusal -> what it says of the client.
VIOLATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unauthorized": "bad_key",
        "no_route": "unknown_route",
        "session_gone": "session_guess",
        "header_mismatch": "header_mismatch",
        "bad_request": "parse_error",
        "invalid_request": "parse_error",
        "parse_error": "parse_error",
        "rate_limited": "flood",
    }
)
#: Details of refusals that are no violation: nobody was guessing. After a restart of a server every session is gone.
INNOCENT: Final = frozenset(("no credential", "server is gone", "server cannot be reached"))
#: Clients look here for discovery documents by themselves, several times, where there may be none (RFC 8414, RFC 9728).
_DISCOVERY: Final = "/.well-known/"


@dataclass(slots=True)
class Ban:
    """One blocked address."""

    subject: str
    until: float
    """Monotonic seconds."""
    kind: str
    score: float = 0.0
    times: int = 0
    note: str = ""
    told: bool = False
    """Whether there is a record of it."""


def policy_of(config: Config) -> Policy:
    """What the configuration says; without `limits`, or with blocking disabled, nothing is counted."""
    spared = (*LOOPBACK, *config.listen.trusted_proxies)
    if config.limits is None:
        return Policy(1.0, 1.0, 1.0, 1.0, {}, Networks(spared))
    blocking = config.limits.blocking
    weights = blocking.weights.model_dump() if blocking.enabled else {}
    return Policy(
        blocking.threshold,
        blocking.half_life,
        blocking.first_block,
        blocking.longest_block,
        weights,
        Networks((*spared, *blocking.allow)),
    )


def turn_away(ctx: RequestContext, admission: Admission, bans: Bans) -> None:
    """The phase: fill `ctx.client_ip`, and refuse a blocked address. Raises BadRequest, Blocked."""
    ctx.client_ip = admission.addresses.of(ctx.exchange.peer, ctx.fields)
    bans.check(ctx.client_ip, ctx.started_at)


class Bans:
    """The table of this process. `now` is monotonic seconds throughout."""

    __slots__ = ("_blocked", "_made", "_policy", "_scores", "_sharing", "_waiting", "forgotten", "refused", "unshared")

    def __init__(self, policy: Policy, sharing: bool = False) -> None:
        """`sharing`: violations are kept for somebody who tells them to other replicas (`take_offences`)."""
        self._policy = policy
        self._scores = Scores(policy)
        self._sharing = sharing
        self._blocked: dict[str, Ban] = {}
        self._made: list[Ban] = []
        #: Subject -> weight and kind.
        self._waiting: dict[str, tuple[float, str]] = {}
        #: Requests turned away; bans let go, and violations not shared, for want of room.
        self.refused = self.forgotten = self.unshared = 0

    def __len__(self) -> int:
        """Addresses that are blocked, and a few whose ban has just ended."""
        return len(self._blocked)

    @property
    def policy(self) -> Policy:
        """In force now."""
        return self._policy

    def configure(self, policy: Policy) -> None:
        """Take a (new) configuration; who is spared by it is free at once."""
        self._policy = self._scores.policy = policy
        for subject in [subject for subject in self._blocked if spares(policy, subject)]:
            self.lift(subject)

    # --- requests -------------------------------------------------------------------------------------------------

    def check(self, ip: str, now: float) -> None:
        """Raise Blocked for an address that is. 0.1 µs while nobody is blocked, 0.2 µs for whoever is not."""
        blocked = self._blocked
        if not blocked:
            return
        ban = blocked.get(ip if ":" not in ip else subject_of(ip) or "")
        if ban is None:
            return
        if ban.until <= now:
            del blocked[ban.subject]
            return
        if ":" in ip and ip in self._policy.spared:  # one of the /64 that may, where others may not
            return
        self.refused += 1
        raise Blocked(ban.kind, headers=retry_after(ban.until - now))

    def note(self, refusal: Refusal, ip: str, now: float, path: str = "") -> None:
        """A request from this address was refused; count it if that is a violation."""
        kind = VIOLATIONS.get(refusal.reason)
        if kind is None or refusal.detail in INNOCENT:
            return
        policy = self._policy
        weight = policy.weights.get(kind)
        subject = subject_of(ip)
        if not weight or subject is None or ip in policy.spared:
            return
        if kind == "unknown_route" and path.startswith(_DISCOVERY):
            return
        if subject in self._blocked:  # was under way when the ban began
            return
        verdict = self._scores.add(subject, weight, now)
        if verdict is not None:
            ban = Ban(subject, now + verdict.seconds, kind, verdict.score, verdict.times)
            self._keep(ban)
            if len(self._made) < MOST_WAITING:
                self._made.append(ban)
        if self._sharing:
            self._wait(subject, weight, kind)

    def _wait(self, subject: str, weight: float, kind: str) -> None:
        before = self._waiting.get(subject)
        if before is not None:
            weight += before[0]
        elif len(self._waiting) >= MOST_WAITING:
            self.unshared += 1
            return
        self._waiting[subject] = (weight, kind)

    # --- the table ------------------------------------------------------------------------------------------------

    def get(self, subject: str) -> Ban | None:
        """The ban of an address."""
        return self._blocked.get(subject)

    def active(self, now: float) -> list[Ban]:
        """All bans in force; the others are dropped."""
        for subject in [subject for subject, ban in self._blocked.items() if ban.until <= now]:
            del self._blocked[subject]
        return list(self._blocked.values())

    def put(self, ban: Ban, now: float) -> bool:
        """Block an address as somebody else has decided, in place of what was known of it. False when it is spared."""
        if spares(self._policy, ban.subject):
            return False
        if ban.kind != OPERATOR:
            self._scores.punished(ban.subject, ban.times, ban.until, now)
        self._keep(ban)
        return True

    def lift(self, subject: str) -> None:
        """Let an address in again, and begin anew with it."""
        self._blocked.pop(subject, None)
        self._scores.forgive(subject)

    def _keep(self, ban: Ban) -> None:
        if ban.subject not in self._blocked and len(self._blocked) >= MOST_BLOCKED:
            del self._blocked[next(iter(self._blocked))]
            self.forgotten += 1
        self._blocked[ban.subject] = ban

    # --- for whoever tells others ---------------------------------------------------------------------------------

    def take_made(self) -> list[Ban]:
        """Bans that this process has decided on since the last time."""
        made, self._made = self._made, []
        return made

    def take_offences(self, most: int) -> list[tuple[str, float, str]]:
        """Subject, weight and kind of violations that nobody was told of; the oldest `most`."""
        if not self._waiting:
            return []
        subjects = list(self._waiting)[:most]
        return [(subject, *self._waiting.pop(subject)) for subject in subjects]


def spares(policy: Policy, subject: str) -> bool:
    """Whether an address, or the network that stands for it, is never blocked."""
    return subject.partition("/")[0] in policy.spared
