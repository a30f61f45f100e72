"""Lists that were overheard on their way to clients, so that the proxy learns what its servers offer.

Owns the bounded store in which answers wait, and the reader that keeps what it reads. On the path of a request nothing
is parsed: pieces of an answer are kept by reference, as the server sent them, and read later, aside (`list_pages.py`).
What does not fit is not learned this time, and counted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from proxy.dataplane.list_pages import CODINGS, EVENT_STREAM, Lesson

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers

#: Bytes of one list, with the request for it.
MAX_LESSON_BYTES: Final = 1 << 20
#: Bytes and number of all that wait or are under way.
_MAX_BYTES: Final = 16 << 20
_MOST: Final = 256
#: Of one server, so that a client that lists all the time does not make a loop of it.
_MOST_OF_SERVER: Final = 8


class Answer(Protocol):
    """The body of an answer while it arrives: an `UpstreamResponse`, or one that is overheard."""

    @property
    def ended(self) -> bool:
        """All of it was read."""
        ...

    def read_nowait(self) -> bytes:
        """What has arrived."""
        ...

    async def read(self) -> bytes:
        """The next piece, b'' at the end."""
        ...


class Incoming(Answer, Protocol):
    """An answer with its head."""

    status: int
    headers: Headers


class Overheard:
    """An answer that is read like any other, and kept besides."""

    __slots__ = ("_answer", "_lesson", "_lessons", "size")

    def __init__(self, answer: Answer, lesson: Lesson, lessons: Lessons) -> None:
        self._answer = answer
        #: None once it was handed over or given up.
        self._lesson: Lesson | None = lesson
        self._lessons = lessons
        self.size = len(lesson.request)

    @property
    def ended(self) -> bool:
        """See `Answer`."""
        return self._answer.ended

    def read_nowait(self) -> bytes:
        """See `Answer`."""
        return self._kept(self._answer.read_nowait())

    async def read(self) -> bytes:
        """See `Answer`."""
        return self._kept(await self._answer.read())

    def close(self) -> None:
        """Nobody reads on: a list that is not complete teaches nothing."""
        if self._lesson is not None:
            self._lessons.dropped(self._lesson, self.size)
            self._lesson = None

    def _kept(self, piece: bytes) -> bytes:
        lesson = self._lesson
        if lesson is None:
            return piece
        if piece:
            lesson.pieces.append(piece)
            self.size += len(piece)
            if not self._lessons.grown(len(piece)) or self.size > MAX_LESSON_BYTES:
                self._lessons.skipped += 1
                self.close()
                return piece
        if self._answer.ended:
            self._lesson = None
            self._lessons.put(lesson, self.size)
        return piece


class Lessons:
    """What was overheard and not read yet."""

    def __init__(self) -> None:
        #: Lists that were not learned because there was no room for them.
        self.skipped = 0
        self._waiting: deque[tuple[Lesson, int]] = deque()
        #: Bytes, and number by server, of those that wait or are under way.
        self._bytes = 0
        self._of_server: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def overhear(self, ctx: RequestContext, answer: Incoming) -> Overheard | None:
        """What reads the `answer` to a request for a list and keeps it; None when there is nothing to learn from it.
        Whoever gets one must `close` it."""
        upstream, request = ctx.upstream, ctx.body
        if upstream is None or request is None or answer.status != 200:
            return None
        content_type, coding, length = _described(answer.headers)
        if coding not in CODINGS or not content_type.startswith((EVENT_STREAM, "application/json")):
            return None
        name = upstream.name
        if length + len(request) > MAX_LESSON_BYTES or not self._takes(name, len(request)):
            self.skipped += 1
            return None
        self._bytes += len(request)
        self._count += 1
        self._of_server[name] = self._of_server.get(name, 0) + 1
        lesson = Lesson(name, upstream.place, request, content_type, coding, [])
        return Overheard(answer, lesson, self)

    def take(self, max_bytes: int) -> list[Lesson]:
        """The oldest that wait, up to `max_bytes` of them, at least one."""
        taken: list[Lesson] = []
        while self._waiting and (not taken or max_bytes >= self._waiting[0][1]):
            lesson, size = self._waiting.popleft()
            max_bytes -= size
            self.dropped(lesson, size)
            taken.append(lesson)
        return taken

    def _takes(self, server: str, size: int) -> bool:
        few = self._count < _MOST and self._of_server.get(server, 0) < _MOST_OF_SERVER
        return few and self._bytes + size <= _MAX_BYTES

    # --- for those under way --------------------------------------------------------------------------------------

    def grown(self, size: int) -> bool:
        """One is `size` bytes larger; whether all of them are still within bounds."""
        self._bytes += size
        return self._bytes <= _MAX_BYTES

    def put(self, lesson: Lesson, size: int) -> None:
        """It is complete."""
        self._waiting.append((lesson, size))

    def dropped(self, lesson: Lesson, size: int) -> None:
        """It takes no room any more."""
        self._bytes -= size
        self._count -= 1
        left = self._of_server[lesson.server] - 1
        if left:
            self._of_server[lesson.server] = left
        else:
            del self._of_server[lesson.server]


def _described(headers: Headers) -> tuple[str, str, int]:
    """Media type and coding, lower-case, and length, 0 when it is not known."""
    content_type, coding, length = "", "", 0
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type":
            content_type = value.lower()
        elif lower == "content-encoding":
            coding = value.strip().lower()
        elif lower == "content-length":
            length = int(value) if value.isdecimal() else 0
    return content_type, coding, length
