"""The commands `bans add | list | remove`: who is blocked on every replica, by an operator or by itself.

Owns how an operator reaches the bans, which are in Redis; `dataplane/shared_bans.py` knows their form. What an operator
does is told in `security_events` when there is a database. That the ban holds comes first: a row that cannot be
written is a remark.
"""

from __future__ import annotations

import os
import socket
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from proxy.commands.connection import carried_out, change, turn
from proxy.commands.console import DONE, Misuse, load_config, local, remark, show_json, show_table
from proxy.config.models import Config
from proxy.dataplane.bans import OPERATOR, policy_of, spares
from proxy.dataplane.redis_link import RedisGone, RedisLink
from proxy.dataplane.shared_bans import Change, Question, SharedBan, SharedBans, Why
from proxy.identity.uuid7 import RecordIds
from proxy.store import violations
from proxy.store.lifecycle import Stores
from proxy.store.violations import Action, SecurityEvent

_Result = TypeVar("_Result")

#: A person waits longer than a request, seconds.
_PATIENCE_S: Final = 5.0
_BY: Final = "command line"


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"add": _add, "list": _list, "remove": _remove}[given.action](given)


def _add(given: Namespace) -> int:
    config, (written, subject) = load_config(given), given.address
    policy = policy_of(config)
    if written in policy.spared or spares(policy, subject):
        raise Misuse(
            "an address that is never blocked: of this machine, in 'listen.trusted_proxies' or 'limits.blocking.allow'"
        )
    seconds = given.length.total_seconds()
    if seconds <= 0:
        raise Misuse("'--for' has to be longer than nothing: 15m, 1h, 30d")
    ban = SharedBan(subject, seconds, Why(OPERATOR, 0.0, 0, "", given.reason or ""), replace=True)
    _asked(config, Question(bans=[ban]))
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    remark(f"blocked until {local(until)}")
    _record(config, subject, "blocked", {"seconds": round(seconds), "reason": given.reason or ""})
    return DONE


def _remove(given: Namespace) -> int:
    config = load_config(given)
    before, _ = _asked(config, Question(), Question(lifts=[given.address]))
    if given.address not in {each.subject for each in _in_force(before)}:
        remark("not blocked")
        return DONE
    remark("not blocked any more")
    _record(config, given.address, "logged", {"lifted": True})
    return DONE


@dataclass(frozen=True, slots=True)
class _Shown:
    """A ban as it is listed."""

    address: str
    until: datetime
    kind: str
    times: int | None
    """How often it was blocked by itself."""
    reason: str | None


def _list(given: Namespace) -> int:
    now = datetime.now(UTC)
    (known,) = _asked(load_config(given), Question())
    shown = [_shown(each, now) for each in sorted(_in_force(known), key=lambda each: each.seconds)]
    if given.json:
        show_json(shown)
    else:
        rows = [(row.address, row.until, row.kind, row.times, row.reason) for row in shown]
        show_table(("ADDRESS", "UNTIL", "KIND", "TIMES", "REASON"), rows)
    return DONE


def _shown(change: Change, now: datetime) -> _Shown:
    assert change.why is not None  # noqa: S101 - lifted ones are left out
    why, until = change.why, now + timedelta(seconds=change.seconds)
    return _Shown(change.subject, until.replace(microsecond=0), why.kind, why.times or None, why.note or None)


def _in_force(known: Iterable[Change]) -> list[Change]:
    return [each for each in known if each.why is not None and each.seconds > 0]


def _asked(config: Config, *questions: Question) -> list[list[Change]]:
    """What is known of every address, after each question. Raises Misuse."""
    policy = policy_of(config)

    async def whole(shared: SharedBans, question: Question) -> list[Change]:
        latest: dict[str, Change] = {}
        complete = False
        while not complete:
            answer = await shared.ask(question, policy, _PATIENCE_S)
            latest.update((each.subject, each) for each in answer.changes)
            question, complete = Question(answer.last), answer.complete
        return list(latest.values())

    async def work(shared: SharedBans) -> list[list[Change]]:
        return [await whole(shared, question) for question in questions]

    return carried_out(_connected(config, work))


async def _connected(config: Config, work: Callable[[SharedBans], Awaitable[_Result]]) -> _Result:
    """What `work` returns with the configured Redis; an embedded one is joined, or started for as long as it takes."""
    redis = config.redis
    if redis is None:
        raise Misuse(
            "the configuration has no 'redis': each proxy keeps its bans to itself, in memory (docs/commands.md)"
        )
    state_dir = Path(config.state_dir)
    stores = Stores(None, redis, state_dir, time.monotonic, lambda: 0.5)
    async with turn(redis.embedded, state_dir):
        await stores.start(join=True)
        try:
            link = RedisLink(stores.redis_url or "", time.monotonic, lambda: 0.5, _PATIENCE_S)
            try:
                await link.open()
                return await work(SharedBans(link, _BY))
            except RedisGone:
                raise Misuse("Redis cannot be reached, or does not take what is written; nothing is known") from None
            finally:
                await link.close()
        finally:
            await stores.stop()


def _record(config: Config, address: str, action: Action, details: dict[str, object]) -> None:
    """Add a row to `security_events` where there is one; what keeps it from that is a remark."""
    if config.postgres is None:
        return
    did = "blocked" if action == "blocked" else "let in again"
    event = SecurityEvent(
        RecordIds(time.time, os.urandom).new(), time.time(), OPERATOR, "low", address,
        f"address {did} by an operator", action=action, details=details, instance=socket.gethostname(),
    )  # fmt: skip
    try:
        change(config, lambda session: violations.add_events(session, [event]))
    except Misuse as error:
        remark(f"not recorded in security_events: {error}")
