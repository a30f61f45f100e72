"""Calls of the script on a link that answers what the test says: who is told what, and how often it is asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis

from proxy.dataplane.limit_script import SCRIPT
from proxy.dataplane.redis_lane import Answer
from proxy.dataplane.redis_link import RedisLink
from proxy.dataplane.script_calls import ScriptCalls

GONE = hiredis.ReplyError("NOSCRIPT No matching script.")
WRONG = hiredis.ReplyError("OOM command not allowed")


class Link:
    """What was sent, and whom to answer."""

    def __init__(self) -> None:
        self.available = True
        self.sent: list[tuple[bytes, int, Answer]] = []
        self.errors = 0

    def send(self, packed: bytes, count: int, answer: Answer) -> None:
        """Keep it."""
        self.sent.append((packed, count, answer))

    def refused(self) -> None:
        """Count it."""
        self.errors += 1

    def answer(self, *replies: Any) -> None:
        """Answer what was sent first."""
        self.sent.pop(0)[2](list(replies))


def calls() -> tuple[ScriptCalls, Link]:
    """Calls over such a link."""
    link = Link()
    return ScriptCalls(cast(RedisLink, link)), link


async def test_calls_of_one_tick_go_together() -> None:
    """And each gets its own reply."""
    these, link = calls()
    futures = [these.ask(name) for name in (b"a", b"b")]
    assert link.sent == []
    await asyncio.sleep(0)
    assert [(packed, count) for packed, count, _ in link.sent] == [(b"ab", 2)]
    link.answer(b"1", b"2")
    assert [await future for future in futures] == [b"1", b"2"]
    assert these.in_flight == 0


async def test_no_answer_is_none_for_all() -> None:
    """Also for those who wait no more."""
    these, link = calls()
    futures = [these.ask(name) for name in (b"a", b"b")]
    await asyncio.sleep(0)
    futures[0].cancel()
    link.sent.pop()[2](None)
    assert await futures[1] is None
    assert these.in_flight == 0


async def test_an_error_is_counted_once_and_is_none_for_the_one_it_is_about() -> None:
    """The others have their replies."""
    these, link = calls()
    futures = [these.ask(name) for name in (b"a", b"b", b"c")]
    await asyncio.sleep(0)
    link.answer(WRONG, b"2", WRONG)
    assert [await future for future in futures] == [None, b"2", None]
    assert link.errors == 1


async def test_the_script_is_given_to_a_redis_that_forgot_it() -> None:
    """Only what was not done is asked again, right behind the script."""
    these, link = calls()
    futures = [these.ask(name) for name in (b"a", b"b", b"c")]
    await asyncio.sleep(0)
    link.answer(GONE, b"2", GONE)
    assert [(packed, count) for packed, count, _ in link.sent] == [(SCRIPT.load + b"ac", 3)]
    link.answer(b"sha", b"1", b"3")
    assert [await future for future in futures] == [b"1", b"2", b"3"]
    assert (these.reloads, link.errors, these.in_flight) == (1, 0, 0)


async def test_a_redis_that_forgets_it_again_is_not_asked_for_ever() -> None:
    """Twice is an error."""
    these, link = calls()
    future = these.ask(b"a")
    await asyncio.sleep(0)
    link.answer(GONE)
    link.answer(b"sha", GONE)
    assert await future is None
    assert (link.sent, link.errors) == ([], 1)


async def test_what_is_on_its_way_is_bounded() -> None:
    """Nobody waits behind thousands, nor for a link that is gone."""
    these, link = calls()
    futures = [these.ask(b"a") for _ in range(4096)]
    assert not these.open
    await asyncio.sleep(0)
    link.sent.pop()[2](None)
    assert these.open
    link.available = False
    assert not these.open
    assert await futures[0] is None
