"""Bans of one replica hold on all of them: what each tells the others through Redis, four times a second.

Owns the order. A replica blocks at once when the violations that it has seen itself suffice; it tells Redis of all
violations, where those of all replicas add up and block as well; and it reads what has changed. So a ban holds
everywhere within two steps. Each ban is told to the record by one replica: the one whose violations were one too many.

Without Redis, and while it is away, each replica decides for itself; the bans of that time are told when it is back. A
Redis that has lost everything gets back what this replica knows. Whoever heard nothing for longer than lifted bans are
mentioned reads everything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.dataplane.bans import OPERATOR, Ban
from proxy.dataplane.redis_link import RedisGone
from proxy.dataplane.shared_bans import MENTION_S, PAGE, Offence, Question, SharedBan, Why

if TYPE_CHECKING:
    from proxy.dataplane.bans import Bans
    from proxy.dataplane.shared_bans import Answer, Change, SharedBans

#: How often `step` is called, seconds.
STEP_S: Final = 0.25
#: Questions of one step: so many pages of violations and changes a step at most.
_MOST_QUESTIONS: Final = 5
#: How often bans that ended are dropped, seconds: 10 ms for each hundred thousand.
_SWEEP_S: Final = 5.0
#: A ban that ends sooner is not told to others, seconds.
_SHORTEST_S: Final = 0.5

Tell = Callable[[Ban, float], None]
"""Told of a ban, and for how many seconds from now it lasts."""


class BanSync:
    """The step, and how far this replica has read."""

    def __init__(self, bans: Bans, shared: SharedBans | None, tell: Tell, by: str, clock: Callable[[], float]) -> None:
        """`tell` is called once for each ban of this replica; `by` names it, in no other life and nobody else; `clock`
        gives monotonic seconds, the same as in `bans`."""
        self._bans = bans
        self._shared = shared
        self._tell = tell
        self._by = by
        self._clock = clock
        self._epoch = ""
        self._since = 0
        self._heard_at = self._swept_at = clock()
        #: Bans that Redis does not know yet.
        self._offers: dict[str, Ban] = {}
        #: While everything is read anew: what was there before and has not been named yet.
        self._unnamed: set[str] | None = None

    async def step(self) -> None:
        """Tell and be told. Quiet while Redis is away."""
        bans = self._bans
        for ban in bans.take_made():
            self._offers[ban.subject] = ban
        now = self._clock()
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            bans.active(now)
        if self._shared is None:
            self._tell_all(self._offers.values())
            self._offers.clear()
            return
        if now - self._heard_at > MENTION_S and self._unnamed is None:
            self._begin_anew()
        try:
            for _ in range(_MOST_QUESTIONS):
                if await self._exchange(self._shared):
                    break
        except RedisGone:
            self._tell_all(self._offers.values())

    async def _exchange(self, shared: SharedBans) -> bool:
        """One question and its answer. Whether there is nothing more to say or to read."""
        bans, now = self._bans, self._clock()
        offers = [ban for ban in self._offers.values() if ban.until - now > _SHORTEST_S][:PAGE]
        offences = [Offence(*offence) for offence in bans.take_offences(PAGE)]
        question = Question(self._since, bans=[self._shareable(ban, now) for ban in offers], offences=offences)
        answer = await shared.ask(question, bans.policy)
        self._heard_at = now
        for ban in offers:
            self._offers.pop(ban.subject, None)
        if not offers:
            self._offers.clear()  # those that ended meanwhile
        if answer.epoch != self._epoch:
            self._lost(answer.epoch)
            return False
        self._apply(answer, self._clock())
        return answer.complete and len(offences) < PAGE and not self._offers

    def _shareable(self, ban: Ban, now: float) -> SharedBan:
        why = Why(ban.kind, ban.score, ban.times, "" if ban.told else self._by, ban.note)
        return SharedBan(ban.subject, ban.until - now, why)

    def _lost(self, epoch: str) -> None:
        """Another memory than before: tell it what is known here, and read all of it."""
        if self._epoch:
            self._offers.update((ban.subject, ban) for ban in self._bans.active(self._clock()))
        self._epoch, self._since, self._unnamed = epoch, 0, None

    def _begin_anew(self) -> None:
        """Read everything; what is not named any more was lifted while nothing was heard."""
        self._unnamed = {ban.subject for ban in self._bans.active(self._clock()) if ban.subject not in self._offers}
        self._since = 0

    def _apply(self, answer: Answer, now: float) -> None:
        for change in answer.changes:
            self._apply_one(change, now)
            if self._unnamed is not None:
                self._unnamed.discard(change.subject)
        self._since = answer.last
        if answer.complete and self._unnamed is not None:
            for subject in self._unnamed:
                self._bans.lift(subject)
            self._unnamed = None

    def _apply_one(self, change: Change, now: float) -> None:
        known, why = self._bans.get(change.subject), change.why
        if why is None:
            self._bans.lift(change.subject)
            return
        if change.seconds <= 0:
            return
        recorded = known is not None and known.told and known.until > now and known.kind != OPERATOR
        told = recorded or why.by != self._by
        ban = Ban(change.subject, now + change.seconds, why.kind, why.score, why.times, why.note, told)
        if self._bans.put(ban, now):
            self._tell_all((ban,))

    def _tell_all(self, bans: Iterable[Ban]) -> None:
        for ban in bans:
            if not ban.told:
                ban.told = True
                self._tell(ban, ban.until - self._clock())
