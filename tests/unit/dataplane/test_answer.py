"""An independent parser reads back what was written, whatever the framing, and a broken answer never as a whole one."""

from __future__ import annotations

from typing import Any, cast

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.config.models import Limits
from proxy.dataplane.answer import Answer, head_bytes
from proxy.dataplane.connection import ANSWER, CLOSED
from proxy.dataplane.exchange import Headers
from proxy.dataplane.gate import Gate
from proxy.dataplane.head import parse_head
from proxy.errors import BodyTooLarge


class Wire:
    """The gate's side of an answer, and the transport below it: keeps what is written, and how it ended."""

    def __init__(self, draining: bool = False) -> None:
        self.peer, self.secure = "192.0.2.7", True
        self.state = ANSWER
        self.write_paused = False
        self.ends_answer = False
        self.fault: BodyTooLarge | None = None
        self.transport = self
        self.writes: list[bytes] = []
        self.aborted = False
        self.tunnelled = False
        self.draining = draining

    def write(self, chunk: bytes) -> None:
        self.writes.append(chunk)

    def must_close(self) -> bool:
        return self.draining

    def abort(self) -> None:
        self.aborted = True

    def enter_tunnel(self) -> None:
        self.tunnelled = True


def answer_to(method: str = "POST", minor: int = 1, wire: Wire | None = None, connection: str = "") -> Answer:
    fields = f"Connection: {connection}\r\n" if connection else ""
    head = parse_head(f"{method} / HTTP/1.{minor}\r\nHost: h\r\n{fields}\r\n".encode(), Limits())
    return Answer(cast(Gate, wire or Wire()), head)


def read_back(wire: Wire, method: str = "POST") -> tuple[int, dict[str, str], bytes, bool]:
    """Status, fields, body, and whether the connection goes on, as h11 reads them. Raises when the answer is cut."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(b"".join(wire.writes))
    body = b""
    response: Any = None
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            if wire.aborted:
                raise ConnectionResetError
            parser.receive_data(b"")  # the gate closes in order behind a last answer
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
    fields = {name.decode(): value.decode() for name, value in response.headers}
    assert len(fields) == len(response.headers)
    return response.status_code, fields, body, parser.their_state is h11.DONE


PIECES = st.lists(st.binary(max_size=40), max_size=6)
METHOD = st.sampled_from(("GET", "POST", "HEAD"))
STATUS = st.sampled_from((200, 202, 204, 304, 404, 503))


@given(METHOD, st.integers(0, 1), STATUS, PIECES, st.booleans(), st.booleans(), st.sampled_from((None, 0, 1, 3)))
def test_any_answer_in_pieces_is_read_back(
    method: str, minor: int, status: int, pieces: list[bytes], sized: bool, draining: bool, flush: int | None
) -> None:
    """With a length or without, over HTTP/1.0 and 1.1, whenever the head is sent ahead; bodiless answers stay so."""
    bodiless = method == "HEAD" or status in (204, 304)
    if bodiless:
        pieces = [b""]
    body = b"".join(pieces)
    wire = Wire(draining)
    answer = answer_to(method, minor, wire)
    fields: Headers = [("X-A", "1"), *([("Content-Length", str(len(body)))] if sized else [])]
    answer.start(status, fields)
    for place, piece in enumerate(pieces[:-1]):
        if place == flush:
            answer.flush()
        answer.write(piece)
    answer.finish(pieces[-1] if pieces else b"")
    got_status, got_fields, got_body, goes_on = read_back(wire, method)
    assert (got_status, got_body, got_fields["x-a"]) == (status, body, "1")
    assert answer.finished
    if bodiless:
        assert "transfer-encoding" not in got_fields
    if minor == 1:
        assert goes_on != answer.closing
        assert answer.closing == draining
    elif not sized and not bodiless:
        assert answer.closing  # only the end of the connection can end it
    assert wire.ends_answer == (minor == 0 and not sized and not bodiless)


@given(st.integers(0, 1), st.lists(st.binary(min_size=1, max_size=40), max_size=4), st.booleans())
def test_an_answer_that_is_aborted_is_never_read_as_whole(minor: int, pieces: list[bytes], sized: bool) -> None:
    """Wherever it breaks off: h11 misses something, or the reset is what tells."""
    wire = Wire()
    answer = answer_to("POST", minor, wire)
    total = len(b"".join(pieces))
    answer.start(200, [("Content-Length", str(total + 1))] if sized else [])
    answer.flush()
    for piece in pieces:
        answer.write(piece)
    answer.abort()
    assert answer.closing
    assert wire.ends_answer == (minor == 0 and not sized)
    with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
        read_back(wire)


@given(METHOD, st.integers(0, 1), STATUS, st.binary(max_size=60))
def test_a_whole_answer_has_its_length_and_one_write(method: str, minor: int, status: int, body: bytes) -> None:
    """HEAD has the length of the body that it leaves out; 204 and 304 have neither (RFC 9110 section 8.6)."""
    assume(status not in (204, 304) or not body)
    wire = Wire()
    answer = answer_to(method, minor, wire)
    answer.respond(status, [("X-A", "1")], body)
    _, fields, got, _ = read_back(wire, method)
    assert got == (b"" if method == "HEAD" else body)
    assert fields.get("content-length") == (None if status in (204, 304) else str(len(body)))
    assert len(wire.writes) == 1


@pytest.mark.parametrize("method", ["HEAD", "POST"])
@pytest.mark.parametrize("sized", [False, True])
def test_a_small_answer_leaves_in_one_write(method: str, sized: bool) -> None:
    """The head waits for the first piece, and the last piece for the end."""
    wire = Wire()
    answer = answer_to(method, wire=wire)
    answer.start(200, [("Content-Length", "2")] if sized else [])
    assert wire.writes == []
    answer.finish(b"" if method == "HEAD" else b"{}")
    assert len(wire.writes) == 1


def test_an_empty_piece_is_not_the_end() -> None:
    """In chunked framing an empty chunk would end the body."""
    wire = Wire()
    answer = answer_to(wire=wire)
    answer.start(200, [])
    answer.write(b"a")
    answer.write(b"")
    answer.flush()
    answer.finish(b"b")
    assert read_back(wire)[2] == b"ab"


@pytest.mark.parametrize(
    ("minor", "asked", "draining", "said"),
    [
        (1, "", False, None), (1, "close", False, "close"), (1, "", True, "close"),
        (0, "", False, "close"), (0, "keep-alive", False, "keep-alive"), (0, "keep-alive", True, "close"),
    ],
)  # fmt: skip
def test_the_client_is_told_what_becomes_of_its_connection(
    minor: int, asked: str, draining: bool, said: str | None
) -> None:
    """Only where it could not know (RFC 9112 section 9.3)."""
    wire = Wire(draining)
    answer = answer_to(minor=minor, wire=wire, connection=asked)
    answer.respond(200, [], b"{}")
    assert read_back(wire)[1].get("connection") == said
    assert answer.closing == (said == "close")


def test_an_unknown_status_has_no_phrase() -> None:
    """Any number of the upstream's passes; the space before the absent phrase is part of the grammar."""
    assert head_bytes(599, [("A", "\u4e2d")]) == b"HTTP/1.1 599 \r\nA: \xe4\xb8\xad\r\n\r\n"


def test_an_upgrade_has_exactly_the_given_fields() -> None:
    """No framing: what follows is raw, and the connection is for nothing else afterwards."""
    wire = Wire()
    answer = answer_to("GET", wire=wire)
    answer.upgrade(101, [("Upgrade", "websocket"), ("Connection", "Upgrade")])
    assert wire.writes == [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"]
    assert wire.tunnelled
    assert answer.started
    assert answer.closing
    answer.write(b"raw")
    assert wire.writes[1:] == [b"raw"]


def test_it_tells_what_the_gate_knows() -> None:
    """Pressure, departure and faults of the body are the gate's."""
    wire = Wire()
    answer = answer_to(wire=wire)
    assert (answer.paused, answer.gone, answer.fault) == (False, False, None)
    wire.write_paused, wire.state, wire.fault = True, CLOSED, BodyTooLarge()
    assert (answer.paused, answer.gone, answer.fault) == (True, True, wire.fault)
    assert (answer.peer, answer.secure) == ("192.0.2.7", True)
