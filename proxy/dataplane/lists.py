"""Lists on their way to a client that may not use everything in them (route option `filter_lists`).

Owns which answers can hold a list, what the upstream is asked for so that they can be read, and what the client gets
instead: `identity/list_filter.py` cuts the items out. Whatever should have been filtered and cannot be read is
UpstreamFailed: an unfiltered list never passes. Who may use what is the caller's answer; nothing here suspends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.errors import UpstreamFailed
from proxy.identity.list_filter import METHODS, EventFilter, filter_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.lessons import Answer
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.list_filter import Keep

    Keeps = Callable[[RequestContext, Upstream], Keep]
    """Makes what says which items of a server's answer its client may use."""

#: Statuses whose answers have no body (RFC 9110 section 6.4.1).
_BODILESS: Final = frozenset((204, 304))
#: Says that the answer comes elsewhere.
_ACCEPTED: Final = 202
#: Length and validators, which are those of the bytes that came (RFC 9110 sections 8.6 and 8.8, RFC 9530).
_OF_THE_BYTES: Final = frozenset((
    "accept-ranges", "content-digest", "content-length", "content-md5", "digest", "etag", "last-modified",
    "repr-digest",
))  # fmt: skip


def keep_nothing(ctx: RequestContext, upstream: Upstream) -> Keep:
    """What counts as long as nobody says who may use what."""
    return lambda kind, name: False


def asks_for_lists(ctx: RequestContext) -> bool:
    """Whether a list is among what the request asks for."""
    message = ctx.message
    if message is None:
        return False
    if message.method in METHODS:
        return True
    envelope = ctx.envelope
    return envelope is not None and envelope.batch and any(each.method in METHODS for each in envelope.messages)


def wants_plain(ctx: RequestContext) -> bool:
    """Whether the answer may hold lists that have to be filtered, and must come in a form that can be read.

    The GET stream of legacy SSE brings the answers to all POSTs; that of streamable HTTP repeats those that were lost
    (MCP 2025-11-25 transports, "Resumability and Redelivery").
    """
    route = ctx.route
    if route is None or not route.filter_lists:
        return False
    method = ctx.head.method
    return method == "GET" or (method == "POST" and (ctx.message is None or asks_for_lists(ctx)))


def is_filtered(ctx: RequestContext, status: int, *, events: bool) -> bool:
    """Whether an answer has to be filtered; `events`: it is an event stream. Of the answers to GET only those are."""
    return (events or ctx.head.method == "POST") and status not in _BODILESS and wants_plain(ctx)


def plain_headers(headers: Headers) -> Headers:
    """The fields of a request whose answer has to be read: no content coding, and no part of an answer."""
    kept = [pair for pair in headers if pair[0].lower() not in ("accept-encoding", "range", "if-range")]
    return [*kept, ("Accept-Encoding", "identity")]


def check_readable(headers: Headers) -> None:
    """Raise UpstreamFailed for an answer with a content coding, although none was asked for."""
    for name, value in headers:
        if name.lower() == "content-encoding" and value.strip(" \t").lower() not in ("", "identity"):
            raise UpstreamFailed("a list with a content coding")


def rewritten_headers(headers: Headers) -> Headers:
    """The fields of an answer whose bytes become others, without those that say something of the bytes that came."""
    return [pair for pair in headers if pair[0].lower() not in _OF_THE_BYTES]


def filtered_answer(status: int, headers: Headers, body: bytes, keep: Keep) -> tuple[Headers, bytes]:
    """A whole answer without what may not be used; without its Content-Length in any case.

    An error, and what accepts a message without answering it, need not be JSON: such a body holds no list. Raises
    UpstreamFailed for a body that should be.
    """
    filtered = body
    try:
        filtered = filter_json(body, keep) if body else body
    except UpstreamFailed:
        if 200 <= status <= 299 and status != _ACCEPTED:
            raise
    if filtered != body:
        return rewritten_headers(headers), filtered
    return [pair for pair in headers if pair[0].lower() != "content-length"], body


class FilteredEvents:
    """An event stream whose events lose what may not be used; each can be read when it is complete."""

    __slots__ = ("_answer", "_filter", "_keep", "_renew")

    def __init__(self, answer: Answer, renew: Callable[[], Keep]) -> None:
        """`renew` is asked with each piece: a stream may outlive the rules that it began under."""
        self._answer = answer
        self._renew = renew
        self._keep = renew()
        self._filter = EventFilter(lambda kind, name: self._keep(kind, name))

    @property
    def ended(self) -> bool:
        """All of it was read."""
        return self._answer.ended

    def read_nowait(self) -> bytes:
        """The events that are complete; b'' also for none. Raises UpstreamFailed for one that cannot be filtered."""
        return self._filtered(self._answer.read_nowait())

    async def read(self) -> bytes:
        """The events that are complete with the next piece; b'' also for none. Raises as `read_nowait`."""
        return self._filtered(await self._answer.read())

    def _filtered(self, piece: bytes) -> bytes:
        if piece:
            self._keep = self._renew()
        events = self._filter.feed(piece) if piece else piece
        return events + self._filter.finish() if self._answer.ended else events
