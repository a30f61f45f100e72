"""A session is sealed into its id, opens with any key of the ring, and serves nobody else anywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.affinity import (
    ENDPOINT,
    SESSION,
    Sealer,
    Session,
    affinity_key,
    load_or_create_key,
    session_of,
)
from proxy.dataplane.context import RequestContext
from proxy.errors import SessionGone
from tests.unit.dataplane.asked import KEY, NOW_S, Clock, ask, sealer, snapshot, somebody

ONE = {"github": "http://github.test/mcp"}
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}'
FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)


def parts(session: Session | None) -> tuple[str, ...]:
    assert session is not None
    return session.server, session.upstream_id, session.tenant, session.principal, session.endpoint


def sealed(text: str, target: str = "/github/mcp", **options: object) -> RequestContext:
    """A request that carries `text` as its session id."""
    return ask(snapshot(ONE), target, ("Mcp-Session-Id", text), **options)  # type: ignore[arg-type]


def begun(upstream_id: str = "u-1", seal: Sealer | None = None, **options: object) -> str:
    """The id of a session that began at /github/mcp."""
    seal = seal or sealer()
    return seal.seal(seal.begin(ask(snapshot(ONE), "/github/mcp", **options), "github", upstream_id))  # type: ignore[arg-type]


# --- the seal -------------------------------------------------------------------------------------------------------


@given(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD), st.sampled_from((SESSION, ENDPOINT)), st.integers(0, 1 << 32))
def test_what_is_sealed_opens_again(fields: tuple[str, str, str, str, str], purpose: bytes, seed: int) -> None:
    """Every session comes back as it went in, and its text fits a header and a query as it is."""
    seal = sealer(seed=seed)
    text = seal.seal(Session(*fields, expires_at=int(NOW_S) + 5), purpose)
    assert parts(seal.open(text, purpose)) == fields
    assert all(character.isalnum() or character in "-_." for character in text)
    assert text.isascii()


@given(st.data())
def test_no_changed_character_goes_unnoticed(data: st.DataObject) -> None:
    """Any other text of the same length fails to open: there is one spelling of each seal."""
    text = begun()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=0x2FF).filter(lambda character: character != text[at]))
    assert sealer().open(text[:at] + other + text[at + 1 :]) is None


@given(st.integers(0, 300))
def test_no_part_of_a_seal_opens(length: int) -> None:
    """A seal that was cut, or to which something was added, fails to open."""
    text = begun()
    assert sealer().open(text[: min(length, len(text) - 1)]) is None
    assert sealer().open(text + "A" * (length + 1)) is None


@given(st.text(max_size=5000) | st.binary(max_size=5000).map(lambda raw: "v1." + raw.decode("latin-1")))
def test_garbage_opens_as_nothing(text: str) -> None:
    """Whatever a client makes up is None, never an exception."""
    assert sealer().open(text) is None


def test_a_text_over_4_kib_is_neither_made_nor_read() -> None:
    """Both directions are bounded: sealing too much says so, opening too much looks at nothing."""
    with pytest.raises(ValueError, match="too long"):
        begun("u" * 4096)
    assert sealer().open("v1." + "A" * 4096) is None
    assert len(begun("u" * 2000)) <= 4096


def test_a_field_with_nul_is_not_sealed() -> None:
    """NUL separates the fields, so a field that holds one cannot pass for two."""
    with pytest.raises(ValueError, match="NUL"):
        begun("a\0b")


def test_a_seal_for_one_purpose_does_not_serve_another() -> None:
    """The URI of a legacy stream cannot be sent as a session id, nor the other way round."""
    seal = sealer()
    session = Session("s", "u", "", "p", "h/x", int(NOW_S) + 9)
    assert seal.open(seal.seal(session, ENDPOINT), SESSION) is None
    assert seal.open(seal.seal(session, SESSION), ENDPOINT) is None


def test_the_first_key_seals_and_all_open() -> None:
    """A key is rotated by putting the new one first; without the old one, its seals are gone."""
    old, new, both = sealer(KEY), sealer(b"the next secret"), sealer(b"the next secret", KEY)
    assert both.open(begun(seal=old)) is not None
    assert new.open(begun(seal=both)) is not None
    assert new.open(begun(seal=old)) is None


def test_keys_with_the_same_name_byte_all_open() -> None:
    """One byte names a key; where 300 keys share 256 names, each still opens its own seals."""
    keys = [b"secret number %d" % number for number in range(300)]
    ring = sealer(*keys)
    assert all(ring.open(begun(seal=sealer(key))) is not None for key in keys)


def test_a_session_ends_with_its_time() -> None:
    """The second it expires it opens no more, and a lifetime beyond the format is cut to what fits."""
    clock = Clock()
    seal = Sealer((KEY,), 60.0, clock, os.urandom)
    text = begun(seal=seal)
    clock.now_s += 59
    assert seal.open(text) is not None
    clock.now_s += 1
    assert seal.open(text) is None
    forever = Sealer((KEY,), 1e15, clock, os.urandom)
    assert forever.open(begun(seal=forever)) is not None


def test_equal_sessions_look_different() -> None:
    """Nonces are fresh, so no one can tell that two ids mean the same session."""
    seal = sealer()
    assert begun(seal=seal) != begun(seal=seal)


def test_a_sealer_without_a_key_cannot_be_built() -> None:
    """There is no unsealed mode behind an empty list."""
    with pytest.raises(ValueError, match="key"):
        Sealer((), 60.0, Clock(), os.urandom)


def test_the_repr_of_a_session_tells_no_id() -> None:
    """A session in a log line or traceback gives neither the upstream's id nor the principal away."""
    session = sealer().open(begun("secret-upstream-id"))
    assert "secret" not in repr(session)
    assert "anonymous" not in repr(session)


# --- whose session --------------------------------------------------------------------------------------------------


def test_the_session_of_a_request_is_found_again() -> None:
    """The same client at the same URL gets its server and the upstream's own id back."""
    session = session_of(sealed(begun("u-9"), method="GET"))
    assert parts(session)[:2] == ("github", "u-9")


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("/github/mcp", {"principal": somebody("someone")}),
        ("/github/mcp", {"principal": somebody("anonymous", "acme")}),
        ("/github/mcp", {"host": "other.test"}),
        ("/other", {}),
    ],
)
def test_a_session_serves_nobody_else_and_nowhere_else(target: str, options: dict[str, object]) -> None:
    """Another principal, tenant, host or path is answered as if the session did not exist."""
    snap = snapshot(ONE, routes=[{"name": "other", "path": "/other", "servers": "github"}])
    ctx = ask(snap, target, ("Mcp-Session-Id", begun()), **options)  # type: ignore[arg-type]
    with pytest.raises(SessionGone):
        session_of(ctx)


@pytest.mark.parametrize("text", ["u-1", "v1.", "v1.AAAA", "v1." + "A" * 8000, ""])
def test_an_id_that_we_never_made_is_gone(text: str) -> None:
    """An upstream's own id, a forged one and a huge one get the same 404."""
    with pytest.raises(SessionGone) as refused:
        session_of(sealed(text))
    assert (refused.value.status, refused.value.reason) == (404, "session_gone")


def test_several_routes_of_one_path_share_its_sessions() -> None:
    """A condition that matches another route for one message does not end the session."""
    canary = {"name": "canary", "path": "/github/mcp", "when": {"tool": "x"}, "servers": "next"}
    snap = snapshot({**ONE, "next": "http://next.test/mcp"}, routes=[canary])
    ctx = ask(snap, "/github/mcp", ("Mcp-Session-Id", begun()), body=CALL)
    assert ctx.route is not None and ctx.route.name == "canary"
    assert parts(session_of(ctx))[0] == "github"


def test_a_passthrough_route_has_no_sessions_of_ours() -> None:
    """With `sessions: passthrough` the field is the upstream's, whatever it holds."""
    route = {"name": "open", "path": "/open", "servers": "github", "sessions": "passthrough"}
    assert session_of(ask(snapshot(ONE, routes=[route]), "/open", ("Mcp-Session-Id", "u-1"))) is None


def test_a_request_without_an_id_or_a_route_has_no_session() -> None:
    """Nothing is opened where nothing was sent, or where nothing is served."""
    assert session_of(ask(snapshot(ONE), "/github/mcp")) is None
    assert session_of(sealed("x", target="/nowhere")) is None


def test_a_modern_request_is_not_held_to_a_session() -> None:
    """Servers of 2026-07-28 ignore the field, so it is neither opened nor a reason to refuse."""
    revision = "2026-07-28"
    meta = (
        f'{{"io.modelcontextprotocol/protocolVersion":"{revision}","io.modelcontextprotocol/clientCapabilities":{{}}}}'
    )
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}'.encode()
    fields = (("MCP-Protocol-Version", revision), ("Mcp-Method", "tools/list"), ("Mcp-Session-Id", "stray"))
    ctx = ask(snapshot(ONE), "/github/mcp", *fields, body=body)
    assert ctx.envelope is not None and ctx.envelope.modern
    assert session_of(ctx) is None


# --- affinity without sessions --------------------------------------------------------------------------------------


def key_of(affinity: dict[str, str] | None, *fields: tuple[str, str], **options: object) -> str:
    route = {"name": "r", "path": "/r", "servers": ["github"], **({"affinity": affinity} if affinity else {})}
    return affinity_key(ask(snapshot(ONE, routes=[route]), "/r", *fields, **options))  # type: ignore[arg-type]


def test_affinity_hashes_what_the_route_says() -> None:
    """Client address, principal with its tenant, or the value of a header in any case."""
    assert key_of({"by": "client_address"}) == "192.0.2.7"
    assert key_of({"by": "principal"}, principal=somebody("p", "t")) == "t\0p"
    assert key_of({"by": "header", "header": "X-Shard"}, ("x-shard", "7")) == "7"


def test_the_anonymous_principal_is_told_apart_by_address() -> None:
    """Everyone is the same anonymous principal, which must not send all of them to one server."""
    assert key_of({"by": "principal"}) == "192.0.2.7"


def test_nothing_to_hash_means_any_server() -> None:
    """No affinity, an absent header, and a message that is aimed at no task leave the choice free."""
    assert key_of(None) == ""
    assert key_of({"by": "header", "header": "X-Shard"}) == ""
    assert key_of({"by": "task"}) == ""
    assert key_of({"by": "task"}, body=CALL) == ""


def test_task_affinity_hashes_the_task_of_the_body() -> None:
    """A task id counts where the message is aimed at a task, and nowhere else."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t-5"}}'
    assert key_of({"by": "task"}, body=body) == "t-5"


# --- the key file ---------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_kept_in_the_state_directory(tmp_path: Path) -> None:
    """In a file of its own, which every later start reads."""
    key = load_or_create_key(str(tmp_path))
    assert load_or_create_key(str(tmp_path)) == key
    assert (tmp_path / "session.key").read_bytes().strip() == key
