"""One connection with many questions on it, against a server that answers what the test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import uvloop

from proxy.dataplane.redis_lane import Lane


class Far:
    """The other end, and what became of the lane."""

    def __init__(self, lane: Lane, end: socket.socket, failed: list[bool]) -> None:
        self.lane = lane
        self.end = end
        self.failed = failed
        self.answers: list[tuple[str, Any]] = []

    def ask(self, name: str, count: int = 1, budget_s: float = 5.0) -> None:
        """Send something of `count` commands; its answer is kept with its name."""
        self.lane.send(b"x", count, lambda replies: self.answers.append((name, replies)), budget_s)


@asynccontextmanager
async def lane() -> AsyncIterator[Far]:
    """A lane to a socket that the test holds."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    _, writer = await asyncio.open_unix_connection(sock=here)
    failed: list[bool] = []
    far = Far(Lane(writer, failed.append), there, failed)
    try:
        yield far
    finally:
        far.lane.close()
        there.close()
        await asyncio.sleep(0)


async def settle(far: Far, count: int) -> None:
    """Wait until so many answers are there."""
    async with asyncio.timeout(20):
        while len(far.answers) < count:
            await asyncio.sleep(0.001)


async def test_replies_go_to_the_questions_in_their_order() -> None:
    """However the bytes are cut."""
    async with lane() as far:
        far.ask("one")
        far.ask("two", count=2)
        for byte in b":1\r\n+a\r\n$1\r\nb\r\n":
            far.end.send(bytes((byte,)))
            await asyncio.sleep(0)
        await settle(far, 2)
        assert far.answers == [("one", [1]), ("two", [b"a", b"b"])]


async def test_an_error_is_a_reply() -> None:
    """The others of its batch are answered."""
    async with lane() as far:
        far.ask("one", count=2)
        far.end.send(b"-NOSCRIPT x\r\n:2\r\n")
        await settle(far, 1)
        error, number = far.answers[0][1]
        assert isinstance(error, hiredis.ReplyError)
        assert number == 2


async def test_a_late_reply_is_dropped_and_the_next_is_in_place() -> None:
    """Who was told that there is no answer is not called again."""
    async with lane() as far:
        far.ask("late", budget_s=0.01)
        await settle(far, 1)
        far.ask("next")
        far.end.send(b":1\r\n:2\r\n")
        await settle(far, 2)
        assert far.answers == [("late", None), ("next", [2])]
        assert far.failed == [False]


async def test_a_short_wait_behind_a_long_one_is_still_short() -> None:
    """The timer is that of whoever is due first."""
    async with lane() as far:
        far.ask("patient", budget_s=5)
        far.ask("hasty", budget_s=0.01)
        await settle(far, 1)
        assert far.answers == [("hasty", None)]


async def test_the_end_of_the_connection_is_told_to_everyone_once() -> None:
    """And to the owner."""
    async with lane() as far:
        far.ask("one")
        far.ask("two")
        far.end.shutdown(socket.SHUT_RDWR)
        await settle(far, 2)
        await asyncio.sleep(0.01)
        assert far.answers == [("one", None), ("two", None)]
        assert far.failed == [True]


async def test_what_is_no_reply_ends_the_connection() -> None:
    """Something else listens there."""
    async with lane() as far:
        far.ask("one")
        far.end.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await settle(far, 1)
        assert far.answers == [("one", None)]
        assert far.failed == [True]


async def test_closing_tells_those_who_wait_but_is_no_failure() -> None:
    """The owner knows what it does."""
    async with lane() as far:
        far.ask("one")
        far.lane.close()
        assert far.answers == [("one", None)]
        await asyncio.sleep(0.01)
        assert far.failed == []
        far.ask("two")
        await settle(far, 2)
        assert far.answers[1] == ("two", None)


def test_who_has_no_patience_at_all_disturbs_nobody_in_line() -> None:
    """With uvloop, whose timers that are due at once are no timers; the next one in line asks as ever."""

    async def ask_twice() -> list[tuple[str, Any]]:
        async with lane() as far:
            far.ask("hasty", budget_s=0.0)
            far.ask("patient")
            await settle(far, 1)
            far.end.send(b":1\r\n:2\r\n")
            await settle(far, 2)
            return far.answers

    assert uvloop.run(ask_twice()) == [("hasty", None), ("patient", [2])]
