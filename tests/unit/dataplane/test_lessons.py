"""A list is kept while it passes, as it came, without anyone noticing; what is kept is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane import lessons as module
from proxy.dataplane.exchange import Headers
from proxy.dataplane.lessons import Lessons, Overheard
from proxy.dataplane.list_pages import Lesson
from tests.unit.dataplane.asked import ask, snapshot

SNAPSHOT = snapshot({"up": "http://up.test/mcp", "other": "http://other.test/mcp"})
ASK = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
JSON = ("Content-Type", "application/json")


class Arriving:
    """An answer of which one piece is there at each reading; its end is seen with the last piece, or one later."""

    def __init__(
        self, pieces: Sequence[bytes], *fields: tuple[str, str], status: int = 200, late: bool = False
    ) -> None:
        self.status = status
        self.headers: Headers = list(fields or (JSON,))
        self.ended = False
        self._pieces = list(pieces)
        self._late = late

    def read_nowait(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        self.ended = not self._pieces and (not piece or not self._late)
        return piece

    async def read(self) -> bytes:
        return self.read_nowait()


def listening(lessons: Lessons, answer: Arriving, server: str = "up", body: bytes = ASK) -> Overheard | None:
    return lessons.overhear(ask(SNAPSHOT, f"/{server}/mcp", body=body), answer)


def read(lessons: Lessons, *pieces: bytes, server: str = "up", fields: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Read a whole answer, as a relay does; b'' when nobody listens."""
    overheard = listening(lessons, Arriving(pieces, *fields), server)
    got = b""
    while overheard is not None and not overheard.ended:
        got += overheard.read_nowait()
    if overheard is not None:
        overheard.close()
    return got


def waiting(lessons: Lessons) -> list[Lesson]:
    return lessons.take(1 << 30)


@given(st.lists(st.binary(min_size=1, max_size=9)), st.booleans(), st.booleans())
def test_what_is_read_is_kept_as_it_came(pieces: list[bytes], late: bool, waits: bool) -> None:
    """Whatever the pieces, however they are read; nothing stays behind in the accounts."""
    lessons = Lessons()
    overheard = listening(lessons, Arriving(pieces, late=late))
    assert overheard is not None
    got = []

    async def relay() -> None:
        while not overheard.ended:
            got.append(await overheard.read() if waits else overheard.read_nowait())

    asyncio.run(relay())
    overheard.close()
    assert b"".join(got) == b"".join(pieces)
    (lesson,) = waiting(lessons)
    assert lesson == ("up", SNAPSHOT.upstreams["up"].place, ASK, "application/json", "", pieces)
    assert vars(lessons) == vars(Lessons())


def test_form_and_coding_are_kept_with_it() -> None:
    """In lower case; other fields do not matter."""
    lessons = Lessons()
    fields = (("X", "y"), ("content-TYPE", "Text/Event-Stream; Charset=UTF-8"), ("Content-Encoding", " GZIP "))
    read(lessons, b"x", fields=fields)
    (lesson,) = waiting(lessons)
    assert (lesson.content_type, lesson.coding) == ("text/event-stream; charset=utf-8", "gzip")


@pytest.mark.parametrize(
    "answer",
    [
        Arriving([], status=202), Arriving([], status=404), Arriving([], ("Content-Type", "text/html")),
        Arriving([], ("X", "y")), Arriving([], JSON, ("Content-Encoding", "br")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_holds_no_list_is_not_kept(answer: Arriving) -> None:
    """Nothing is counted as skipped: there was nothing to learn."""
    lessons = Lessons()
    assert listening(lessons, answer) is None
    assert vars(lessons) == vars(Lessons())


def test_an_answer_that_is_not_read_to_its_end_is_not_kept() -> None:
    """The client left, or the server broke off; closing twice changes nothing."""
    lessons = Lessons()
    overheard = listening(lessons, Arriving([b"a", b"b"]))
    assert overheard is not None
    overheard.read_nowait()
    overheard.close()
    overheard.close()
    assert overheard.read_nowait() == b"b"  # whoever reads on may
    assert (overheard.ended, waiting(lessons)) == (True, [])
    assert vars(lessons) == vars(Lessons())


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_one_list_has_its_bound() -> None:
    """With its request: known before it comes, or found out while it does."""
    most = module.MAX_LESSON_BYTES - len(ASK)
    lessons = Lessons()
    assert read(lessons, b"x" * (most + 1), fields=(JSON, ("Content-Length", str(most + 1)))) == b""
    assert read(lessons, *[b"x" * most, b"y", b"z"]) == b"x" * most + b"yz"
    assert (waiting(lessons), lessons.skipped) == ([], 2)
    read(lessons, b"x" * most, fields=(JSON, ("Content-Length", str(most))))
    assert len(waiting(lessons)) == 1
    lessons.skipped = 0
    assert vars(lessons) == vars(Lessons())


def test_one_server_has_its_share() -> None:
    """Those under way count, too; other servers still have theirs."""
    lessons = Lessons()
    under_way = [listening(lessons, Arriving([b"x"])) for _ in range(8)]
    assert None not in under_way
    assert listening(lessons, Arriving([b"x"])) is None
    assert lessons.skipped == 1
    read(lessons, b"x", server="other")
    assert len(lessons) == 1
    for each in under_way:
        assert each is not None
        each.close()
    read(lessons, b"x")
    assert len(waiting(lessons)) == 2


@pytest.mark.parametrize(("name", "most"), [("_MOST", 2), ("_MAX_BYTES", 150)])
def test_all_together_have_theirs(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    """What waits counts until it is taken."""
    monkeypatch.setattr(module, name, most)
    lessons = Lessons()
    for server in ("up", "other", "up"):
        read(lessons, b"x" * 10, server=server)
    assert (len(lessons), lessons.skipped) == (2, 1)
    assert len(waiting(lessons)) == 2
    read(lessons, b"x" * 10)
    assert (len(lessons), lessons.skipped) == (1, 1)


def test_what_is_taken_is_bounded_but_never_nothing() -> None:
    """The rest waits for the next time, in order."""
    lessons = Lessons()
    for letter in (b"a", b"b", b"c"):
        read(lessons, letter * 100)
    size = 100 + len(ASK)
    pieces = [[lesson.pieces[0][:1] for lesson in lessons.take(most)] for most in (1, 2 * size - 1, 0, 9)]
    assert pieces == [[b"a"], [b"b"], [b"c"], []]


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "read", "close", "take"]), st.integers(0, 5)), max_size=60)


@given(STEPS)
def test_the_accounts_are_right_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """With tight bounds, in any order of beginning, reading, leaving and taking: at the end nothing is held."""
    lessons = Lessons()
    under_way: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_MOST", 4), ("_MAX_BYTES", 300), ("MAX_LESSON_BYTES", 120), ("_MOST_OF_SERVER", 3)):
            patch.setattr(module, name, value)
        for step, pick in steps:
            if step == "begin":
                overheard = listening(lessons, Arriving([b"x" * 30] * pick), "up" if pick % 2 else "other")
                under_way += [overheard] if overheard is not None else []
            elif step == "take":
                lessons.take(pick * 50)
            elif under_way:
                each = under_way[pick % len(under_way)]
                each.read_nowait() if step == "read" else each.close()
            assert lessons._bytes <= 300 + 30  # a piece that breaks the bound is still passed on
            assert len(lessons) <= lessons._count <= 4
        for each in under_way:
            each.close()
        waiting(lessons)
    lessons.skipped = 0
    assert vars(lessons) == vars(Lessons())
