"""The hunt for secrets: they are planted, every kind of traffic is driven, and then every place is searched for them.

Searched is what upstreams saw, every answer, standard output and standard error, the metrics, every column of every
table, the statements of PostgreSQL's sessions, the notices, and the files of the state directory; for each secret as it
is, and as percent-encoding, JSON, hexadecimal digits and base64 write it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import asyncpg
import pytest

from proxy import log
from proxy.app import App
from proxy.batched_stream import BatchedStream
from proxy.config.loader import load
from proxy.identity.keys import mint
from tests.harness import CALL, ProxyProcess, RawClient, Wire, post, scripted_upstream
from tests.integration.blocking import connected
from tests.integration.identified import (
    INITIALIZE,
    LIST,
    PEPPER,
    RING,
    SIGN_IN_SECRET,
    Identified,
    api_key,
    bearer,
    call,
    cookie,
    prepared,
    signed,
    state_files,
    stream_of,
    streaming,
)
from tests.integration.talk import get
from tests.integration.test_websocket import HANDSHAKE
from tests.unit.store.engine import folder, owner_dsn

#: Planted by us; those of the database and of the API key are made when the test begins.
LEGACY: Final = "planted-legacy-key-8d21f0"
TOKEN: Final = "planted-api-token-77c3aa"
SESSION: Final = "planted-session-token-51b9e6f2"
OF_A_ROW: Final = "planted-credential-of-a-row-c04d"
OF_THE_ENVIRONMENT: Final = "planted-credential-of-the-environment-e8a7"
OF_A_URL: Final = "planted-token-in-a-url-19fb"
ARGUMENT: Final = "planted-argument-of-a-call-6b2e"
VARIABLE: Final = "TENANT_ACME_PLANTED"
#: Servers that get a credential of their own, and which.
OWN: Final[Mapping[str, str]] = {"acme": OF_A_ROW, "acme-tools": OF_THE_ENVIRONMENT}
#: Places that are of no use to the search when they are empty.
SUBSTANTIAL: Final = ("answers", "metrics", "standard output", "statements", "notices", "registry")
#: Shortest piece of base64 that is searched for: what comes before and behind it changes its ends.
_MIDDLE: Final = 12


def written(secret: str) -> list[bytes]:
    """The ways in which a secret may stand somewhere."""
    raw = secret.encode()
    encoded = (base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3))
    forms = [raw, quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), raw.hex().encode(), raw[::-1]]
    return list(dict.fromkeys([*forms, *(piece for piece in encoded if len(piece) >= _MIDDLE)]))


def found(secrets: Mapping[str, str], place: bytes) -> list[str]:
    """The names of the secrets that stand in a place."""
    folded = place.lower()
    return [name for name, secret in secrets.items() if any(form.lower() in folded for form in written(secret))]


class Overheard(ProxyProcess):
    """A proxy whose standard output is kept as it came."""

    raw = b""

    @property
    def stderr_text(self) -> bytes:
        return (self.directory / "stderr").read_bytes()

    def _read(self) -> None:
        assert self.process.stdout is not None
        kept = bytearray()
        for line in self.process.stdout:
            kept += line
            with suppress(ValueError), self._grown:
                self.lines.append(json.loads(line))
                self._grown.notify_all()
        self.raw = bytes(kept)


class Notices(threading.Thread):
    """Everything that is told on the channel."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self.payloads: list[str] = []
        self._begun, self._ended = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        await connection.add_listener("mcp_manager", lambda *told: self.payloads.append(str(told[3])))
        self._begun.set()
        while not self._ended.is_set():
            await asyncio.sleep(0.05)
        await connection.close()

    def __enter__(self) -> Notices:
        self.start()
        assert self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(5)


def _is_whole(answer: bytes) -> bool:
    """Whether an answer that says its length is all there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
    return bool(end and length) and len(body) >= int(length)


class Hunt:
    """The world with secrets in it, and every answer that a client got."""

    def __init__(self, world: Identified) -> None:
        self.world = world
        self.answers = bytearray()
        self.metrics, self.statements = bytearray(), bytearray()
        user = world.user("acme")
        self.key, self.narrow = world.key("acme", user_id=user), world.key("acme", allowed_tools=["open"])
        world.legacy("acme", LEGACY)
        world.token("acme", TOKEN)
        world.session(user, SESSION)
        self.secrets = {
            "API key": self.key.text,
            "secret of the API key": self.key.text.split("_")[2],
            "secret of another API key": self.narrow.text.split("_")[2],
            "legacy key": LEGACY,
            "API token": TOKEN,
            "session token": SESSION,
            "signature of the cookie": signed(SESSION).rpartition(".")[2].removesuffix("%3D"),
            "secret of the sign-in": SIGN_IN_SECRET,
            "pepper": PEPPER,
            "credential of a row": OF_A_ROW,
            "credential of the environment": OF_THE_ENVIRONMENT,
            "token in a URL": OF_A_URL,
            "password of PostgreSQL": world.config["postgres"]["dsn"].partition("@")[0].rpartition(":")[2],
            "argument": ARGUMENT,
        }
        url = {name: each.url for name, each in world.upstreams.items()}
        for name, upstream, credential in (
            ("row", "acme", OF_A_ROW),
            ("env", "acme-tools", f"${{{VARIABLE}}}"),
            ("unset", "acme", "${TENANT_ACME_UNSET}"),
        ):  # fmt: skip
            world.server("acme", name, url[upstream], headers=json.dumps({"Authorization": f"Bearer {credential}"}))
        world.server("acme", "broken", url["acme"], headers=json.dumps({"Host": OF_A_ROW, "X-A": f"{OF_A_ROW}\n"}))
        world.server("acme", "with-user", f"http://{OF_A_URL}:{OF_A_URL}@127.0.0.1:1/")
        dead = f"127.0.0.1:1/mcp?token={OF_A_URL}"
        world.server("acme", "dead", f"http://{dead}", headers=json.dumps({"X-Key": OF_A_ROW}))
        world.server("acme", "private", f"http://169.254.169.254/?token={OF_A_URL}")
        world.server("acme", "dead-socket", f"ws://{dead}", transport_type="websocket")
        port = world.upstreams["acme"].port
        world.server("acme", "legacy", f"http://127.0.0.1:{port}/sse", transport_type="sse")
        world.route("acme", "/filtered", ["row"], options='{"filter_lists": true, "mirror": {"server": "env"}}')

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """Each credential in each place."""
        texts = (self.key.text, LEGACY, TOKEN, SESSION, signed(SESSION))
        yielded = [(bearer(text),) for text in texts] + [(api_key(text),) for text in texts[:3]]
        return [*yielded, (cookie(SESSION, "theme=dark; "),), (bearer(self.key.text), api_key(self.key.text))]

    def send(self, *requests: bytes) -> None:
        """Send each on a connection of its own and keep what comes within a moment."""
        for request in requests:
            with connected(self.world.proxy) as client:
                client.send(request)
                client.socket.settimeout(0.15)
                with suppress(TimeoutError, ConnectionError):
                    while client.receive() and not _is_whole(client.read):
                        pass
                self.answers += client.read

    def scrape(self) -> None:
        for path in ("/metrics", "/healthz", "/readyz"):
            with suppress(OSError):
                self.metrics += self.world.proxy.admin(path).encode()
        self.statements += self.shown_statements()

    # --- traffic ------------------------------------------------------------------------------------------------------

    def good(self) -> None:
        """Each credential, with everything that a client does."""
        arguments = call("open", arguments={"text": ARGUMENT})
        for fields in self.fields:
            for server in ("row", "env", "shared"):
                self.send(post(f"/{server}/mcp", arguments, *fields))
            self.send(post("/filtered", LIST, *fields), stream_of("/legacy/sse", *fields))
            self.send(post("/row/mcp", b"[" + LIST + b"," + arguments.replace(b'"id": 1', b'"id": 2') + b"]", *fields))
            begun = self.world.ask(post("/row/mcp", INITIALIZE, *fields))
            self.answers += repr(begun).encode()
            session = f"Mcp-Session-Id: {begun.fields['mcp-session-id']}"
            self.send(post("/row/mcp", LIST, session, *fields), stream_of("/row/mcp", session, *fields))
            self.send(get("/row/mcp", session, *fields, method="DELETE"))

    def refused(self) -> None:
        """Each credential where it is no use, and what is nearly one."""
        key = self.key.text
        for fields in self.fields:
            self.send(post("/nope/mcp", CALL, *fields), post("/globex/mcp", CALL, *fields))
            self.send(post("/shared/mcp", CALL, "Mcp-Session-Id: " + LEGACY, *fields))
            self.send(
                post("/shared/mcp", CALL, bearer("x"), *fields), post("/shared/mcp", CALL, "Origin: null", *fields)
            )
        for server in ("broken", "with-user", "dead", "private", "unset", "dead-socket"):
            self.send(post(f"/{server}/mcp", CALL, api_key(key)), get(f"/{server}/mcp", api_key(key), *HANDSHAKE))
        self.send(post("/row/mcp", call("secret", arguments={"text": ARGUMENT}), api_key(self.narrow.text)))
        for wrong in (key[:-1], key + "0", key.swapcase(), key[:-8] + "00000000", f"{key} {key}", f"{key},{TOKEN}"):
            self.send(post("/row/mcp", CALL, bearer(wrong)), post("/row/mcp", CALL, api_key(wrong)))
        for query in (
            f"?key={key}",
            f"?access_token={TOKEN}",
            f"?a={quote(key.replace('mcpm_', '%6dcpm_'), safe='%')}",
        ):
            self.send(post(f"/row/mcp{query}", CALL), post(f"/row/mcp{query}", CALL, api_key(key)))
        self.send(post(f"/row/mcp/{key}", CALL, api_key(key)), get(f"/{key}", api_key(key)), get(f"/%6d{key[1:]}"))

    def malformed(self) -> None:
        """Credentials in requests that are none."""
        for fields in self.fields:
            field = fields[0].encode()
            whole = post("/row/mcp", CALL, *fields)
            self.send(
                whole.replace(b"\r\n", b"\n"),
                whole.replace(b"POST /row", b"POST  /row"),
                whole.replace(b"HTTP/1.1", b"HTTP/9.9"),
                whole.replace(b"Host: 127.0.0.1", b"Host: " + field),
                whole.replace(b"Content-Length: ", b"Content-Length: +"),
                whole.replace(b"Host:", b"X-A\x00: b\r\nHost:"),
                whole.replace(b"POST", field.split(b" ")[-1][:60]),
                field + b"\r\n\r\n",
                b"GET " + field + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                post("/row/mcp", b'{"jsonrpc":"2.0","id":1,"method":"' + field, *fields),
                post("/row/mcp", b'{"jsonrpc":"2.0","id":1,"method":"%b","params":5}' % ARGUMENT.encode(), *fields),
                post("/row/mcp", CALL, "Content-Type: text/" + ARGUMENT, *fields),
                post("/row/mcp", CALL, f"Mcp-Name: {ARGUMENT}", "MCP-Protocol-Version: 2026-07-28", *fields),
                post("/row/mcp", CALL, "X-Long: " + fields[0] * 300, *fields),
            )

    def failing(self) -> None:
        """Upstreams that answer nonsense, or break off."""
        upstream = self.world.upstreams["acme"]
        script = upstream.script
        for answer in (
            b"",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
            b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://other.test/\r\nContent-Length: 0\r\n\r\n",
        ):  # fmt: skip

            async def fail(wire: Wire, answer: bytes = answer) -> None:
                if await wire.request():
                    await wire.send(answer)

            upstream.script = fail
            for fields in self.fields[:2] + self.fields[-2:]:
                self.send(post("/row/mcp", CALL, *fields), post("/filtered", LIST, *fields))
        upstream.script = script

    def reloads(self) -> None:
        """Configurations that are refused for what holds a secret, and one that is not."""
        world = self.world
        bad: list[dict[str, Any]] = [
            {"postgres": {"dsn": f"nonsense://u:{self.secrets['password of PostgreSQL']}@h/"}},
            {"auth": {**world.config["auth"], "peppers": {0: PEPPER}}},
            {"auth": {**world.config["auth"], "peppers": PEPPER}},
            {"sessions": {"keys": [[PEPPER], {"a": SIGN_IN_SECRET}]}, "log": PEPPER},
            {"auth": {**world.config["auth"], "session_secret": [SIGN_IN_SECRET]}},
            {"servers": {"shared": {"url": f"http://u:{OF_A_URL}@h/"}}},
            {"servers": {"shared": {"url": "http://h/", "headers": {"X-A": f"{OF_A_ROW}\n", "X-B": [OF_A_ROW]}}}},
        ]
        for sections in bad:
            assert world.proxy.reload({**world.config, **sections})["event"] == "configuration refused"
        for level, kind in (("debug", "json"), ("debug", "console")):
            listen = {"timeouts": {"keepalive": "60s"}}
            world.proxy.write({**world.config, "listen": listen, "log": {"level": level, "format": kind}})
            world.proxy.process.send_signal(signal.SIGHUP)
            time.sleep(1)
            self.send(*(post("/row/mcp", CALL, *fields) for fields in self.fields), post("/row/mcp", CALL, bearer("x")))
        world.reload(log={"level": "debug"})

    def without_database(self) -> None:
        """PostgreSQL lets nobody in, and comes back."""
        world = self.world
        unknown = mint(RING).text
        with world.away():
            until = time.monotonic() + 30
            while world.call("row", api_key(unknown)).status != 503:
                assert time.monotonic() < until
                time.sleep(0.1)
            for fields in self.fields:
                self.send(post("/row/mcp", CALL, *fields))

    # --- places -------------------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, bytes]:
        """Every row of every table as text, without the columns that are there to hold such a thing."""
        world = self.world
        names = world.sql(
            "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'm') ORDER BY 1"
        )
        kept = {"mcp_servers": "- 'headers' - 'endpoint_url'", "session": "- 'token'"}
        dump = {}
        for [name] in names:
            rows = world.sql(f'SELECT (to_jsonb(t) {kept.get(name, "")})::text FROM "{name}" AS t')
            dump[f"table {name}"] = "\n".join(row[0] for row in rows).encode()
        return dump

    def shown_statements(self) -> bytes:
        """What sessions of PostgreSQL do, which an operator sees."""
        return "\n".join(
            row[0] for row in self.world.sql("SELECT query FROM pg_stat_activity WHERE query <> ''")
        ).encode()


@contextmanager
def heard(world: Identified) -> Iterator[Overheard]:
    """The proxy for the length of a `with`."""
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory:
        proxy = Overheard({**world.config, "log": {"level": "debug"}}, Path(directory))
        try:
            yield proxy
        finally:
            if proxy.process.poll() is None:
                proxy.stop()


def test_no_secret_is_where_it_does_not_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is driven and everything is searched; the counts say in how much."""
    monkeypatch.setenv(VARIABLE, OF_THE_ENVIRONMENT)
    with prepared() as world, Notices(owner_dsn(world.database)) as notices, heard(world) as proxy:
        world.proxy = proxy
        hunt = Hunt(world)
        world.settle()
        for drive in (hunt.good, hunt.refused, hunt.malformed, hunt.failing, hunt.reloads, hunt.without_database):
            drive()
            hunt.scrape()
        time.sleep(1.5)  # what was learned and counted is written
        places = {"statements": bytes(hunt.statements), **state_files(world)}
        with streaming(proxy, stream_of("/row/mcp", bearer(hunt.key.text))) as client:
            assert proxy.stop() == 0
            hunt.answers += client.rest()
        places |= {
            "answers": bytes(hunt.answers),
            "metrics": bytes(hunt.metrics),
            "standard output": proxy.raw,
            "standard error": proxy.stderr_text,
            "notices": "\n".join(notices.payloads).encode(),
            **hunt.tables(),
        }
        leaks = [(place, name) for place, content in places.items() for name in found(hunt.secrets, content)]
        for name, upstream in world.upstreams.items():
            saw = b"".join(upstream.seen)
            others = {what: text for what, text in hunt.secrets.items() if text not in (OWN.get(name), ARGUMENT)}
            places[f"upstream {name}"] = saw
            leaks += [(f"upstream {name}", what) for what in found(others, saw)]
    shown = ", ".join(f"{place}: {len(content)}" for place, content in places.items() if content)
    print(f"searched for {len(hunt.secrets)} secrets in {sum(map(len, places.values()))} bytes ({shown})")
    assert not leaks, leaks
    assert places["standard error"] == b""
    assert min(len(places[name]) for name in SUBSTANTIAL) > 500
    assert b"LISTEN" in places["statements"]
    assert OF_A_ROW.encode() in places["upstream acme"] and OF_THE_ENVIRONMENT.encode() in places["upstream acme-tools"]
    assert b"registry left out" in proxy.raw and b"request failed by a bug" not in proxy.raw


def test_the_search_would_find_one() -> None:
    """In each way in which it may be written, in the middle of anything; and nothing where there is nothing."""
    secrets = {"it": TOKEN, "other": LEGACY}
    raw = TOKEN.encode()
    for form in (raw, raw.hex().encode(), raw.hex().upper().encode(), raw[::-1], f'"{TOKEN}\\n"'.encode()):
        assert found(secrets, b"before" + form + b"after") == ["it"]
    for shift in range(9):
        assert found(secrets, base64.b64encode(b"u" * shift + raw + b"v" * (9 - shift))) == ["it"]
    assert found({"it": "a b/c?d=é%"}, b"q=a%20b%2Fc%3Fd%3D%C3%A9%25") == ["it"]
    assert found(secrets, os.urandom(1 << 16) + TOKEN[:-1].encode()) == []


def test_the_search_finds_what_a_client_gives_away_itself() -> None:
    """A key in a field that is none of ours goes on, and is found at the upstream: the hunt looks where it should."""
    with prepared() as world, heard(world) as proxy:
        world.proxy = proxy
        key = world.key("acme")
        world.settle()
        assert world.call("acme", api_key(key.text), f"X-Note: {key.text}").status == 200
        secrets = {"API key": key.text}
        assert found(secrets, b"".join(world.upstreams["acme"].seen)) == ["API key"]
        world.sql("UPDATE tenants SET settings = jsonb_build_object('a', $1::text)", key.text)
        assert found(secrets, Hunt.tables(_looking(world))["table tenants"]) == ["API key"]


def _looking(world: Identified) -> Any:
    hunt = object.__new__(Hunt)
    hunt.world = world
    return hunt


@pytest.mark.usefixtures("logging_restored")
async def test_a_bug_shows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever object a careless message prints: the traceback is in the log, and the answer is 500."""
    careless: list[Any] = []

    async def forward(ctx: Any, parts: Any) -> None:
        app = careless[0]
        snapshot = app.live.snapshot
        shown = [ctx, ctx.head, ctx.principal, ctx.reader, ctx.exchange, app, app.live.admission, app._backend]
        raise RuntimeError(repr([*shown, snapshot, snapshot.config, snapshot.estates, *snapshot.upstreams.values()]))

    monkeypatch.setattr("proxy.dataplane.handler.forward", forward)
    text = mint(RING).text
    async with scripted_upstream() as upstream:
        path = tmp_path / "config.yaml"
        config = {
            "listen": {"port": 0}, "admin": {"port": 0}, "state_dir": str(folder() / "state"),
            "sessions": {"keys": ["planted-session-key-of-ours"]},
            "auth": {"peppers": {1: PEPPER}, "session_secret": SIGN_IN_SECRET},
            "postgres": {"dsn": f"postgresql://u:{OF_A_URL}@127.0.0.1:1/nowhere"},
            "servers": {"up": {"url": f"{upstream.url}?token={OF_A_URL}", "headers": {"Authorization": OF_A_ROW}}},
        }  # fmt: skip
        path.write_text(json.dumps(config))
        with open(tmp_path / "log", "wb") as sink:
            stream = BatchedStream(sink.fileno())
            log.configure("debug", "json", stream)
            app = App(path, load(path, os.environ), stream)
            careless.append(app)
            try:
                port, _ = await app.start()
                client = await RawClient.connect(port)
                await client.send(post("/up/mcp", CALL, f"Cookie: a={SESSION}", f"X-Note: {text}", f"X-A: {LEGACY}"))
                status, fields, body = await client.answer()
                await client.close()
            finally:
                await app.stop()
                stream.close()
        written_down = (tmp_path / "log").read_bytes()
    secrets = {
        "API key": text, "secret of the API key": text.split("_")[2], "cookie": SESSION, "field": LEGACY,
        "pepper": PEPPER, "sign-in": SIGN_IN_SECRET, "url": OF_A_URL, "header": OF_A_ROW,
        "sealing key": "planted-session-key-of-ours",
    }  # fmt: skip
    assert status == 500
    assert b"RuntimeError" in written_down and b"Traceback" in written_down
    assert found(secrets, written_down) == []
    assert found(secrets, body + repr(fields).encode()) == []
