"""The SSE answers that are open now, so that a drain can end each of them between two events.

A stream that answers a request is left to finish until the grace is over, and so is a legacy SSE stream, on which the
answers to all POSTs arrive; one that only listens (GET, or `subscriptions/listen`) is ended at once. Nothing is
invented: the client sees the stream end and comes back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.mcp.methods import METHODS, UNKNOWN
from proxy.mcp.sse import BoundaryTracker

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext


class OpenStream:
    """One SSE answer under way."""

    __slots__ = ("ending", "listens", "owes", "task", "tracker")

    def __init__(self, ctx: RequestContext, task: asyncio.Task[object] | None) -> None:
        self.task = task
        self.tracker = BoundaryTracker()
        method = ctx.message.method if ctx.message is not None else ""
        #: It is itself the answer to a call: cut short, it must not look like a whole one.
        self.owes = ctx.head.method != "GET" and not METHODS.get(method, UNKNOWN).long_lived
        #: Nobody waits for an answer on it. On a legacy SSE stream (it has an endpoint) all answers arrive.
        self.listens = not self.owes and ctx.endpoint is None
        #: It is to end at the next event boundary.
        self.ending = False

    def end(self) -> None:
        """End now when between two events, else as soon as the current event is through."""
        if self.ending:
            return
        self.ending = True
        if self.tracker.at_boundary and self.task is not None:
            self.task.cancel()


class Streams:
    """All open SSE answers."""

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()
        self._draining = False

    def __len__(self) -> int:
        return len(self._open)

    def open(self, ctx: RequestContext) -> OpenStream:
        """Count a stream that begins in the current task."""
        stream = OpenStream(ctx, asyncio.current_task())
        stream.ending = self._draining and stream.listens
        self._open.add(stream)
        return stream

    def close(self, stream: OpenStream) -> None:
        """The stream is over."""
        self._open.discard(stream)

    def end_listening(self) -> None:
        """End the streams on which nobody waits for an answer, now and from now on."""
        self._draining = True
        for stream in list(self._open):
            if stream.listens:
                stream.end()

    def end_all(self) -> None:
        """End every stream at its next event boundary."""
        for stream in list(self._open):
            stream.end()
