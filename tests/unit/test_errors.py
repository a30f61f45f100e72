"""Every way to say no keeps the rules of the refusals: a reason of its own, a code that may be used, safe words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import errors
from proxy.errors import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    CircuitOpen,
    Forbidden,
    HeaderMismatch,
    InternalError,
    InvalidRequest,
    ParseError,
    Refusal,
    UnderMaintenance,
    retry_after,
)


def tree(root: type[Refusal]) -> Iterator[type[Refusal]]:
    """All classes below one."""
    for each in root.__subclasses__():
        yield each
        yield from tree(each)


#: Those of this package: other tests may make some of their own.
REFUSALS = [each for each in tree(Refusal) if each.__module__ == "proxy.errors"]
#: Codes that JSON-RPC or MCP define, and the refusals that mean just that.
DEFINED = {
    ParseError: PARSE_ERROR,
    InvalidRequest: INVALID_REQUEST,
    InternalError: INTERNAL_ERROR,
    HeaderMismatch: HEADER_MISMATCH,
}


@pytest.mark.parametrize(
    ("wait_s", "told"), [(0.0, "1"), (-3.0, "1"), (1.0, "1"), (1.01, "2"), (59.9, "60"), (3600.0, "3600")]
)
def test_when_to_come_back_is_told_in_whole_seconds(wait_s: float, told: str) -> None:
    """Rounded up: who comes back then is not too early. One second at least."""
    assert retry_after(wait_s) == (("Retry-After", told),)
    assert retry_after() == retry_after(1)


def test_only_one_place_writes_when_to_come_back() -> None:
    """So that all clients are told by one rule."""
    sources = Path(errors.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if '("Retry-After"' in path.read_text()] == ["errors.py"]


def test_every_refusal_has_a_reason_of_its_own() -> None:
    """The reason alone tells which refusal it was, in a metric as in a log."""
    assert [reason for reason, count in Counter(each.reason for each in REFUSALS).items() if count > 1] == []
    assert len(REFUSALS) > 20


@pytest.mark.parametrize("refusal", REFUSALS)
class TestEveryRefusal:
    """What holds for each of them."""

    def test_its_reason_is_a_label(self, refusal: type[Refusal]) -> None:
        """A word that needs no quoting anywhere."""
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", refusal.reason)

    def test_its_code_is_the_specifications_or_the_status(self, refusal: type[Refusal]) -> None:
        """Negative only where the specification defines it; everything else there is reserved (MCP 2026-07-28)."""
        assert refusal.code == DEFINED.get(refusal, refusal.status)

    def test_its_message_is_a_fixed_sentence(self, refusal: type[Refusal]) -> None:
        """Nothing in it waits to be filled in, and it is one printable line."""
        assert refusal.message.isascii()
        assert refusal.message.isprintable()
        assert refusal.message[0].isupper()
        assert not set(refusal.message) & set("%{}")

    def test_its_status_tells_whose_fault_it_is(self, refusal: type[Refusal]) -> None:
        """502, 504 and an open breaker blame the upstream; a fault of the client's is never a failure of ours, save
        what we lack."""
        assert (refusal.origin == "upstream") == (refusal.status in (502, 504) or refusal is CircuitOpen)
        if refusal.origin == "client":
            assert 400 <= refusal.status < 500 or refusal.status in (501, 505)
        else:
            assert refusal.status >= 500

    def test_it_documents_itself(self, refusal: type[Refusal]) -> None:
        """Each says when it is used."""
        assert refusal.__doc__
        assert refusal.__doc__ != Refusal.__doc__


@pytest.mark.parametrize("refusal", [each for each in REFUSALS if each is not UnderMaintenance])
def test_what_it_was_raised_with_is_for_the_log(refusal: type[Refusal]) -> None:
    """A detail changes nothing that a client sees; without one, the text is the message."""
    raised = refusal("seen: {secret} %s", headers=(("Retry-After", "1"),), request_id=7)
    assert (raised.detail, raised.headers, raised.request_id) == ("seen: {secret} %s", (("Retry-After", "1"),), 7)
    assert raised.message == refusal.message
    assert str(refusal()) == refusal.message


def test_the_title_of_a_maintenance_window_is_for_the_client() -> None:
    """And is not repeated in each line of the log."""
    raised = UnderMaintenance("Moving house", headers=(("Retry-After", "60"),))
    assert (raised.title, raised.headers, raised.request_id) == ("Moving house", (("Retry-After", "60"),), None)
    assert (raised.message, str(raised)) == (UnderMaintenance.message, "maintenance")


@pytest.mark.parametrize("refusal", [each for each in REFUSALS if each.status in (400, 408, 413, 414, 417, 431, 501)])
def test_a_body_whose_end_is_unknown_closes_the_connection(refusal: type[Refusal]) -> None:
    """After a fault of framing nothing on the connection can be trusted; after a fault of content it can."""
    assert refusal.closes == (refusal not in DEFINED)


@pytest.mark.parametrize("refusal", list(tree(Forbidden)))
def test_each_kind_of_forbidden_is_a_403(refusal: type[Refusal]) -> None:
    """A kind of refusal keeps the status of the more general one."""
    assert (refusal.status, refusal.code) == (403, 403)
    assert refusal.reason != Forbidden.reason
