"""The head that a lane is fed says what the gate has decided, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Limits
from proxy.dataplane.head import parse_head

NAME = st.from_regex(r"X-[A-Za-z0-9-]{1,12}", fullmatch=True)
VALUE = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
PATH = st.from_regex(r"/[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", fullmatch=True)
QUERY = st.from_regex(r"([a-z]=([a-z0-9&=]|%2F){0,10})?", fullmatch=True)
FRAMING = st.one_of(st.none(), st.integers(0, 10_000), st.just("chunked"))


@given(st.sampled_from(("POST", "DELETE", "GET")), PATH, QUERY, FRAMING, st.lists(st.tuples(NAME, VALUE), max_size=5))
def test_a_canonical_head_means_the_same_and_holds_no_field_of_the_clients(
    method: str, path: str, query: str, framing: int | str | None, fields: list[tuple[str, str]]
) -> None:
    """Read again by the same grammar it has the same method, target and framing; and it is a fixed point."""
    if method != "POST":
        framing = None
    length = [] if framing is None else [("Content-Length", str(framing))]
    written = [("Host", "h"), *([("Transfer-Encoding", "chunked")] if framing == "chunked" else length), *fields]
    target = f"{path}?{query}" if query else path
    raw = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in written) + "\r\n"
    head = parse_head(raw.encode(), Limits())
    again = parse_head(head.canonical(), Limits())
    assert (again.method, again.path, again.query) == (method, path, query)
    assert (again.content_length, again.chunked) == (head.content_length, head.chunked)
    assert set(again.fields) <= {"host", "content-length", "transfer-encoding"}
    assert again.canonical() == head.canonical()


def test_the_client_cannot_choose_how_the_lane_sees_its_connection() -> None:
    """HTTP/1.0, `Connection` and `Expect` are the gate's matter; the lane sees neither."""
    raw = b"POST /a HTTP/1.0\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    assert parse_head(raw, Limits()).canonical() == b"POST /a HTTP/1.1\r\nHost: lane\r\nContent-Length: 2\r\n\r\n"


def test_a_head_shows_no_secret() -> None:
    """Wherever it is printed: of the request only what the log shows as well."""
    raw = b"GET /path?token=planted HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer planted\r\n\r\n"
    shown = repr(parse_head(raw, Limits()))
    assert "/path" in shown
    assert "planted" not in shown
