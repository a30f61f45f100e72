"""What servers offer is known from their lists, page by page, within bounds, and only news has to be written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane import catalogue as module
from proxy.dataplane.catalogue import REFRESH_S, Catalogue, Change
from proxy.dataplane.list_pages import Page
from proxy.dataplane.offers import Hints
from proxy.identity.access import Server

UP = Server("up", "id-up")


def tools(*names: str, **members: Any) -> list[Any]:
    return [{"name": name, **members} for name in names]


def page(*names: str, cursor: str | None = None, then: str | None = None, kind: str = "tool", **members: Any) -> Page:
    """A page with items of these names."""
    key = {"resource": "uri", "template": "uriTemplate"}.get(kind, "name")
    return Page(kind, [{key: name, **members} for name in names], cursor, then)


class Known:
    """A catalogue of one server, whose news are written at once."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.now = 0.0

    def learn(self, *pages: Page, server: str = "up", place: Server = UP) -> Change:
        change = self.catalogue.learn(server, place, pages, self.now)
        self.catalogue.written(change, self.now)
        return change

    def tools(self) -> set[str]:
        return {name for name in "abcdefgh" if self.catalogue.tool("up", name) is not None}


def test_a_tool_is_known_by_what_its_server_says() -> None:
    """Hints, title, and the beginning of its description."""
    known = Known()
    known.learn(page("a", title="A", description="d" * 999, annotations={"readOnlyHint": True}))
    item = known.catalogue.tool("up", "a")
    assert item is not None
    assert (item.title, item.description, item.hints) == ("A", "d" * 512, Hints(read_only=True))
    assert known.catalogue.tool("up", "b") is None
    assert known.catalogue.tool("other", "a") is None
    assert known.catalogue.names("up", "tool", "a")
    assert not known.catalogue.names("up", "prompt", "a")


@pytest.mark.parametrize("kind", ["tool", "prompt", "resource", "template"])
def test_news_has_to_be_written_once(kind: str) -> None:
    """What is new, what changed, and what all there is, if that changed."""
    known = Known()
    first = known.learn(page("a", "b", kind=kind))
    assert first.offers.keys() == {(kind, "a"), (kind, "b")}
    assert first.complete == {kind: {"a", "b"}}
    assert first.place == UP
    assert not known.learn(page("a", "b", kind=kind))
    changed = known.learn(page("a", kind=kind), page("b", kind=kind, title="B"))
    assert changed.offers.keys() == {(kind, "b")}
    assert not known.learn(page("b", kind=kind, title="B"))


def test_what_was_not_written_is_still_news() -> None:
    """As long as nobody says that it is in the database, whatever has changed meanwhile."""
    catalogue = Catalogue()
    first = catalogue.learn("up", UP, [page("a")], 0.0)
    assert catalogue.learn("up", UP, [page("a")], 1.0) == first
    second = catalogue.learn("up", UP, [page("a", title="A")], 2.0)
    catalogue.written(first, 3.0)  # what is in the database is not what the server says now
    assert catalogue.learn("up", UP, [page("a", title="A")], 4.0).offers == second.offers
    catalogue.written(second, 5.0)
    assert not catalogue.learn("up", UP, [page("a", title="A")], 6.0)


def test_after_an_hour_it_is_written_again() -> None:
    """Its row may be gone, and says when it was last seen."""
    known = Known()
    first = known.learn(page("a"))
    known.now = REFRESH_S - 1
    assert not known.learn(page("a"))
    known.now = REFRESH_S
    assert known.learn(page("a")) == first


# --- whole lists ----------------------------------------------------------------------------------------------------


def test_what_a_whole_list_does_not_name_is_gone() -> None:
    """Of that kind only."""
    known = Known()
    known.learn(page("a", "b"), page("a", kind="prompt"), page("b", kind="resource"))
    assert known.learn(page("b")).complete == {"tool": {"b"}}
    assert known.tools() == {"b"}
    assert len(known.catalogue) == 3
    assert known.learn(page()).complete == {"tool": frozenset()}
    assert known.catalogue.names("up", "prompt", "a")


def test_a_list_of_several_pages_is_whole_with_the_last() -> None:
    """Whoever asked for them, and whatever else was listed in between."""
    known = Known()
    known.learn(page("a", "b", "c"))
    assert not known.learn(page("a", then="2"), page("x", kind="prompt", then="2")).complete
    assert not known.learn(page("d", cursor="2", then="3")).complete
    assert known.tools() == {"a", "b", "c", "d"}
    assert known.learn(page("e", cursor="3")).complete == {"tool": {"a", "d", "e"}}
    assert known.tools() == {"a", "d", "e"}


@pytest.mark.parametrize(
    "pages",
    [
        [page("b", cursor="2")],
        [page("b", then="2"), page("c", cursor="3")],
        [page("b", then="2"), page("c", cursor="2", then="3")],
        [page("b", then="2"), page("c", cursor="2", then="2"), page("d", cursor="3")],
        [page("b", kind="prompt", then="2"), page("c", cursor="2")],
    ],
)
def test_without_both_ends_nothing_is_gone(pages: list[Page]) -> None:
    """A page in the middle says nothing of the rest."""
    known = Known()
    known.learn(page("a"))
    for each in pages:
        assert not known.learn(each).complete.get("tool")
    assert "a" in known.tools()


def test_pages_that_lie_too_far_apart_are_of_two_lists() -> None:
    """The server may have changed."""
    known = Known()
    known.learn(page("a", then="2"))
    known.now = 61.0
    assert not known.learn(page("b", cursor="2")).complete


def test_lists_under_way_are_bounded() -> None:
    """The oldest is given up."""
    known = Known()
    for number in range(9):
        known.learn(page("a", then=str(number)))
    assert not known.learn(page("b", cursor="0")).complete
    assert known.learn(page("b", cursor="8")).complete


LISTS = st.lists(st.sampled_from("abcdef"), unique=True)


@given(st.lists(st.tuples(LISTS, st.integers(1, 3)), min_size=1))
def test_after_any_lists_the_last_whole_one_is_known(lists: list[tuple[list[str], int]]) -> None:
    """However it was cut into pages; and whoever writes all the news has the same."""
    known, rows = Known(), dict[str, bool]()
    for names, size in lists:
        starts = list(range(0, len(names), size)) or [0]
        for start in starts:
            then = str(start + size) if start != starts[-1] else None
            change = known.learn(page(*names[start : start + size], cursor=str(start) if start else None, then=then))
            rows |= {name: True for _, name in change.offers}
            if "tool" in change.complete:
                rows = {name: available and name in change.complete["tool"] for name, available in rows.items()}
        assert known.tools() == set(names)
    assert {name for name, available in rows.items() if available} == set(lists[-1][0])


# --- news that waits ------------------------------------------------------------------------------------------------


def test_news_that_waits_is_put_together() -> None:
    """The later word counts; what came after a whole list is there besides it."""
    catalogue = Catalogue()
    waiting = catalogue.learn("up", UP, [page("a", "b")], 0.0)
    waiting.add(catalogue.learn("up", UP, [page("c", then="2"), page("b", title="B", then="3")], 0.0))
    assert waiting.complete == {"tool": {"a", "b", "c"}}
    assert waiting.offers["tool", "b"].columns["title"] == "B"
    assert waiting.size > sum(offered.size for offered in waiting.offers.values()) > 0
    waiting.add(catalogue.learn("up", UP, [page("a")], 0.0))
    assert waiting.complete == {"tool": {"a"}}
    assert len(waiting.offers) == 3


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_items_that_cannot_be_kept_are_counted() -> None:
    """What has no name is in no row, so the list is whole without it; what has one may be in one."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    known = Known()
    assert known.learn(Page("tool", [7, {"title": "x"}, *tools("a")], None, None)).complete == {"tool": {"a"}}
    assert known.catalogue.skipped == 2
    assert not known.learn(Page("tool", [*tools("a"), *tools("b", inputSchema=deep)], None, None)).complete
    assert known.catalogue.skipped == 3


def test_one_server_has_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond them is not known, and nothing is taken for gone."""
    monkeypatch.setattr(module, "MAX_OF_SERVER", 3)
    known = Known()
    change = known.learn(page("a", "b", "c", "d"))
    assert (len(change.offers), change.complete, known.tools()) == (3, {}, {"a", "b", "c"})
    assert known.learn(page("a", "b", "c", title="changed")).offers.keys() == change.offers.keys()


@pytest.mark.parametrize(("name", "most"), [("MAX_SERVERS", 2), ("MAX_ITEMS", 2)])
def test_all_servers_together_have_theirs(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    """Those that were not heard of for longest go first."""
    monkeypatch.setattr(module, name, most)
    known = Known()
    for server in ("x", "y", "x", "z"):
        known.learn(page("a"), server=server)
    assert [known.catalogue.tool(server, "a") is not None for server in "xyz"] == [True, False, True]
    assert len(known.catalogue) == 2


def test_another_server_of_the_same_name_begins_with_nothing() -> None:
    """What is written of the one before is no news of the new one."""
    known = Known()
    known.learn(page("a", "b"))
    stale = known.catalogue.learn("up", UP, [page("a", title="late")], 0.0)
    other = Server("up", "another id")
    change = known.learn(page("a"), place=other)
    assert change.place == other
    assert change.offers.keys() == {("tool", "a")}
    assert known.tools() == {"a"}
    known.catalogue.written(stale, 0.0)
    assert len(known.catalogue) == 1
