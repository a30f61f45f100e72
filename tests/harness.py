"""A real proxy process, a scripted upstream and raw sockets: what the tests that cross a socket are made of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0
#: The longest that a test waits for what comes at once on a machine that is not busy, seconds.
PATIENCE_S = 20.0
#: The breaker of a server that fails on purpose in a test about something else.
UNENFORCED = {"enforce": False}


class Plain(yaml.SafeDumper):
    """Writes out what is used twice, as a configuration wants it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class ProxyProcess:
    """`python -m proxy serve` with a configuration of its own, on free ports."""

    def __init__(self, config: dict[str, Any], directory: Path) -> None:
        self.path = directory / "config.yaml"
        self.directory = directory
        self.write(config)
        self.lines: list[dict[str, Any]] = []
        self._grown = threading.Condition()
        self._errors = (directory / "stderr").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", "-c", str(self.path)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            serving = self.wait_for(lambda line: line.get("event") == "serving", START_S)
        except AssertionError:
            self.stop()
            raise
        self.port: int = serving["port"]
        self.admin_port: int = serving["admin_port"]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, config: dict[str, Any]) -> None:
        """Put a configuration in place by rename, as editors do."""
        listen = {"port": 0, "drain": {"grace": "1s"}, **config.get("listen", {})}
        whole = {"admin": {"port": 0}, **config, "listen": listen}
        aside = self.path.with_suffix(".new")
        aside.write_text(yaml.dump(whole, Dumper=Plain, sort_keys=False))
        aside.replace(self.path)

    def reload(self, config: dict[str, Any]) -> dict[str, Any]:
        """Write, send SIGHUP, and return the log line that says how it went."""
        seen = len(self.lines)
        self.write(config)
        self.process.send_signal(signal.SIGHUP)
        return self.wait_for(
            lambda line: line.get("event") in ("configuration in force", "configuration refused"), start=seen
        )

    def wait_for(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = PATIENCE_S, start: int = 0
    ) -> dict[str, Any]:
        """The first log line, from `start` on, that is wanted. Raises AssertionError when it does not come."""
        return self.logged(wanted, 1, timeout_s, start)[0]

    def logged(
        self, wanted: Callable[[dict[str, Any]], bool], count: int, timeout_s: float = PATIENCE_S, start: int = 0
    ) -> list[dict[str, Any]]:
        """All log lines, from `start` on, that are wanted, once there are `count`. The log is written in batches: what
        a line tells can be seen before the line. Raises AssertionError when there are fewer."""
        until = time.monotonic() + timeout_s
        with self._grown:
            while True:
                found = [line for line in self.lines[start:] if wanted(line)]
                if len(found) >= count:
                    return found
                if self.process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"the proxy ended with {self.process.returncode}: {self.stderr()}")
                if not self._grown.wait(max(0.0, min(0.2, until - time.monotonic()))) and time.monotonic() > until:
                    raise AssertionError(f"{len(found)} of {count} log lines in {timeout_s} s; {self.stderr()}")

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def admin(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that carry all `labels`."""
        total = 0.0
        for line in self.admin("/metrics").splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def sockets(self) -> int:
        """Open sockets of the process."""
        count = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(entry).startswith("socket:")
        return count

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, and the exit code; a process that does not end is killed and fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the proxy did not stop") from None
        finally:
            self._reader.join(5)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._errors.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                with self._grown:
                    self.lines.append(line)
                    self._grown.notify_all()


@contextlib.contextmanager
def running_proxy(config: dict[str, Any]) -> Iterator[ProxyProcess]:
    """A proxy for the length of a `with`; fails when it logged the traceback of a bug."""
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory:
        proxy = ProxyProcess(config, Path(directory))
        try:
            yield proxy
        finally:
            proxy.stop()
        bugs = [line for line in proxy.lines if "exception" in line]
        assert not bugs, bugs


Script = Callable[["Wire"], Awaitable[None]]


class Wire:
    """The upstream's end of one connection, read and written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: ScriptedUpstream) -> None:
        self.reader = reader
        self.writer = writer
        self.upstream = upstream

    async def request(self) -> bytes:
        """One whole request as it came, head and body; b'' when the proxy has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        lower = head.lower()
        body = b""
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            while True:
                line = await self.reader.readuntil(b"\r\n")
                chunk = await self.reader.readexactly(int(line, 16) + 2)
                body += line + chunk
                if line == b"0\r\n":
                    break
        elif b"\r\ncontent-length:" in lower:
            length = int(lower.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        self.upstream.seen.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.close()


class ScriptedUpstream:
    """An upstream that does exactly what a script says on each connection."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        """Every request as it came."""
        self.answer: list[bytes] = []
        """What `answer_in_pieces` sends."""
        self.connections = 0
        self.open = 0
        self.port = 0
        self.script: Script = answer_json
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Break every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(Wire(reader, writer, self))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the proxy left, or the test is over
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def scripted_upstream(
    script: Script | None = None, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    upstream.script = script or answer_json
    server = await asyncio.start_server(upstream._serve, "127.0.0.1", port, limit=1 << 26, backlog=2048, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        # CPython loses a connection that it accepts just before its server is closed: nothing is accepted from here on
        asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
        for _ in range(3):  # what was accepted is served only when the loop has turned
            await asyncio.sleep(0)
        server.close()
        await upstream.close()
        for _ in range(3):  # as what was closed is only gone then
            await asyncio.sleep(0)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now, and that nobody else gets: the kernel gives a port of this range
    only to who asks for it, and another process of the tests finds the claim on it, a UDP socket that stays open as
    long as this process."""
    while True:
        port = random.SystemRandom().randrange(10_000, 16_000)
        claim, probe = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        with claim, probe, contextlib.suppress(OSError):
            claim.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
            claim.detach()
            return port


RESULT = b'{"jsonrpc":"2.0","id":1,"result":{}}'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}'


def json_answer(body: bytes = RESULT, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def answer_json(wire: Wire) -> None:
    """Answer every request with an empty result."""
    while await wire.request():
        await wire.send(json_answer())


async def answer_in_pieces(wire: Wire) -> None:
    """Answer every request with the pieces that the test has put into `upstream.answer` by then."""
    while await wire.request():
        for piece in wire.upstream.answer:
            await wire.send(piece)
            await asyncio.sleep(0)


def post(path: str = "/up/mcp", body: bytes = CALL, *fields: str, host: str = "127.0.0.1") -> bytes:
    """A request as a client writes it."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json",
             "Accept: application/json, text/event-stream", f"Content-Length: {len(body)}", *fields]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RawClient:
    """A client that sends bytes and reads answers, whole or as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """The head of the next answer, 100 Continue left out."""
        while True:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            if not head.startswith(b"HTTP/1.1 100 "):
                return head

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, fields (lower-case names) and body of the next answer. Raises IncompleteReadError if it is cut."""
        head = await self.head()
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        status = int(lines[0].split()[1])
        if "content-length" in fields:
            body = await asyncio.wait_for(self.reader.readexactly(int(fields["content-length"])), PATIENCE_S)
        elif fields.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await self.chunk():
                body += chunk
        else:
            body = b"" if status in (204, 304) else await asyncio.wait_for(self.reader.read(), PATIENCE_S)
        return status, fields, body

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body, b'' at its end."""
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), PATIENCE_S), 16)
        return (await asyncio.wait_for(self.reader.readexactly(size + 2), PATIENCE_S))[:-2]

    def stop_reading(self) -> None:
        """Leave what comes in the kernel's buffers."""
        self.writer.transport.pause_reading()

    async def at_end(self) -> bool:
        """Whether the proxy closes the connection without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), PATIENCE_S) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
