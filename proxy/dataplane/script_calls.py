"""Calls of the limits' script on their way to Redis: those of one tick of the event loop go together.

Owns what waits for a reply, and gives the script to a Redis that does not know it. No call has a task of its own, and
who stops waiting disturbs nobody. It must not know what a call is about.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from proxy.dataplane.limit_script import SCRIPT
from proxy.dataplane.redis_lane import ReplyError
from proxy.dataplane.redis_link import RedisLink

__all__ = ["ScriptCalls"]

#: Calls that may be on their way; beyond that nobody waits.
_IN_FLIGHT: Final = 4096

_Reply = asyncio.Future[bytes | None]


class ScriptCalls:
    """Asks the script, as long as the link is worth asking."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._packed: list[bytes] = []
        self._waiting: list[_Reply] = []
        #: Calls without a reply yet; round trips so far; times the script was not there.
        self.in_flight = 0
        self.round_trips = 0
        self.reloads = 0

    @property
    def open(self) -> bool:
        """Whether a call is worth making."""
        return self._link.available and self.in_flight < _IN_FLIGHT

    def ask(self, command: bytes) -> _Reply:
        """The reply of the script to come; None: there is none."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future: _Reply = loop.create_future()
        self._packed.append(command)
        self._waiting.append(future)
        self.in_flight += 1
        return future

    def _flush(self) -> None:
        """Send what the requests of this tick want to know."""
        packed, self._packed = self._packed, []
        waiting, self._waiting = self._waiting, []
        self.round_trips += 1
        self._link.send(b"".join(packed), len(packed), partial(self._answered, packed, waiting, False))

    def _answered(self, packed: list[bytes], waiting: list[_Reply], again: bool, replies: list[Any] | None) -> None:
        """Hand out the replies. `again`: the script was loaded just now, which the first reply is about."""
        if replies is None:
            for future in waiting:
                self._tell(future, None)
            return
        missing: list[int] = []
        refused = False
        for index, reply in enumerate(replies[1:] if again else replies):
            if not isinstance(reply, ReplyError):
                self._tell(waiting[index], reply)
            elif not again and str(reply).startswith("NOSCRIPT"):
                missing.append(index)
            else:
                refused = True
                self._tell(waiting[index], None)
        if refused:
            self._link.refused()
        if missing:
            self._reload([packed[index] for index in missing], [waiting[index] for index in missing])

    def _reload(self, packed: list[bytes], waiting: list[_Reply]) -> None:
        """Give Redis the script that it does not know, and ask again; nothing was taken for these."""
        self.reloads += 1
        commands = SCRIPT.load + b"".join(packed)
        self._link.send(commands, 1 + len(packed), partial(self._answered, packed, waiting, True))

    def _tell(self, future: _Reply, reply: bytes | None) -> None:
        self.in_flight -= 1
        if not future.done():
            future.set_result(reply)
