"""The bans of all replicas, in Redis: one call of `bans.lua`, which lists its keys.

Owns the shape of the question and of the answer. Who asks, how often, and what is done with the answer is not known
here: a replica asks four times a second (`background/ban_sync.py`), an operator now and then (`commands/bans.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.dataplane.redis_link import RedisLink
    from proxy.limits.scores import Policy

#: Scores, bans and changes in one question: a millisecond of Redis for each hundred.
PAGE: Final = 200
#: Bans that are kept; of more, those that end first are forgotten.
MOST: Final = 100_000
#: How long a lifted ban is told of: whoever hears nothing for longer reads everything anew. Seconds.
MENTION_S: Final = 600.0

_SCRIPT: Final = Path(__file__).with_name("bans.lua").read_text("utf-8")
_KEYS: Final = tuple(f"{{mcpm}}:bans{part}" for part in ("", ":why", ":changes", ":state"))
_SCORE: Final = "{mcpm}:score:"


class Why(NamedTuple):
    """Why an address is blocked."""

    kind: str
    """Of the violation that was one too many, or `operator`."""
    score: float
    times: int
    by: str
    """The instance that shall tell of it; '' when it was told."""
    note: str
    """An operator's reason."""


class SharedBan(NamedTuple):
    """A ban as it goes to Redis."""

    subject: str
    seconds: float
    """How long it lasts from now."""
    why: Why
    replace: bool = False
    """Whether it also takes the place of one that lasts longer."""


class Offence(NamedTuple):
    """What an address did since the last question."""

    subject: str
    weight: float
    kind: str


class Change(NamedTuple):
    """What became of an address."""

    subject: str
    seconds: float
    """How long it is blocked from now."""
    why: Why | None
    """None: the ban was lifted."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call."""

    since: int = 0
    """Number of the last change that is known."""
    lifts: Sequence[str] = ()
    bans: Sequence[SharedBan] = ()
    offences: Sequence[Offence] = ()


class Answer(NamedTuple):
    """What it brought."""

    epoch: str
    """Another one than before: Redis has lost everything."""
    last: int
    complete: bool
    """Whether there is nothing more to read."""
    changes: tuple[Change, ...]


class SharedBans:
    """Asks Redis."""

    def __init__(self, link: RedisLink, by: str, page: int = PAGE) -> None:
        """`by`: name of this instance."""
        self._link = link
        self._by = by
        self._page = page

    async def ask(self, question: Question, policy: Policy, budget_s: float | None = None) -> Answer:
        """Tell and be told. Raises RedisGone; what was told may have arrived then."""
        offenders = (offence.subject for offence in question.offences)
        subjects = [*question.lifts, *offenders, *(ban.subject for ban in question.bans)]
        keys = (*_KEYS, *(_SCORE + subject for subject in subjects))
        written = orjson.dumps(self._written(question, policy))
        (reply,) = await self._link.run(lambda pipeline: pipeline.eval(_SCRIPT, len(keys), *keys, written), budget_s)
        changes = tuple(_changes(reply[2:]))
        return Answer(_text(reply[0]), int(reply[1]), len(changes) < self._page, changes)

    def _written(self, question: Question, policy: Policy) -> dict[str, Any]:
        return {
            "threshold": policy.threshold,
            "half_life": policy.half_life_s * 1e3,
            "first": policy.first_block_s * 1e3,
            "longest": policy.longest_block_s * 1e3,
            "most": MOST,
            "mention": MENTION_S * 1e3,
            "page": self._page,
            "since": question.since,
            "by": self._by,
            "lifts": question.lifts,
            "bans": [
                (ban.subject, ban.seconds * 1e3, orjson.dumps(ban.why._asdict()).decode(), ban.why.times, ban.replace)
                for ban in question.bans
            ],
            "scores": [tuple(offence) for offence in question.offences],
        }


def _changes(flat: Sequence[bytes]) -> Iterator[Change]:
    for subject, left_ms, why in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        yield Change(_text(subject), int(left_ms) / 1e3, Why(**orjson.loads(why)) if why else None)


def _text(value: bytes) -> str:
    return value.decode()
