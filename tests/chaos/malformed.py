"""Answers that break the rules of HTTP/1.1 (F5): refused, and nothing of them reaches a client."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.setting import server
from tests.harness import RESULT, RawClient, Wire, json_answer, post, running_proxy, scripted_upstream

#: In everything that must not be passed on.
_MARK: Final = b"x-evil-mark"
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_JSON: Final = b"Content-Type: application/json\r\n"
_LENGTH: Final = b"Content-Length: %d\r\n" % len(RESULT)
_END: Final = b"\r\n" + RESULT
_FIELD: Final = _MARK + b": " + _MARK + b"\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"

#: Refused with 502: the head says that nothing behind it can be trusted.
REFUSED: Final = {
    "a field of 100 KiB": _OK + _JSON + _MARK + b": " + b"y" * (100 << 10) + b"\r\n" + _LENGTH + _END,
    "a head of 16 MiB": _OK + _JSON + (_MARK + b": " + b"y" * 60_000 + b"\r\n") * 280 + _LENGTH + _END,
    "a field that never ends": _OK + _JSON + _MARK + b": " + b"y" * (32 << 20),
    "300 fields": _OK + _JSON + _FIELD * 300 + _LENGTH + _END,
    "length and chunks": _OK + _FIELD + _JSON + _LENGTH + _CHUNKED + b"\r\n0\r\n\r\n" + _MARK,
    "two lengths": _OK + _FIELD + _JSON + _LENGTH + b"Content-Length: 3\r\n" + _END,
    "a negative length": _OK + _FIELD + _JSON + b"Content-Length: -1\r\n" + _END,
    "a length in words": _OK + _FIELD + _JSON + b"Content-Length: ten\r\n" + _END,
    "a field with NUL": _OK + _FIELD + _JSON + b"X: a\0b\r\n" + _LENGTH + _END,
    "a name with a space": _OK + _FIELD + _JSON + b"X y: a\r\n" + _LENGTH + _END,
    "a line without a colon": _OK + _FIELD + _JSON + _MARK + b"\r\n" + _LENGTH + _END,
    "HTTP/2.0": (_OK + _FIELD).replace(b"HTTP/1.1", b"HTTP/2.0") + _JSON + _LENGTH + _END,
    "HTTP/0.9": (_OK + _FIELD).replace(b"HTTP/1.1", b"HTTP/0.9") + _JSON + _LENGTH + _END,
    "status 999": (_OK + _FIELD).replace(b"200 OK", b"999 Evil") + _JSON + _LENGTH + _END,
    "status 20": (_OK + _FIELD).replace(b"200 OK", b"20 OK") + _JSON + _LENGTH + _END,
    "status 101, not asked for": (_OK + _FIELD).replace(b"200 OK", b"101 Evil") + b"Upgrade: evil\r\n\r\n" + _MARK,
    "an endless row of 103": b"HTTP/1.1 103 Early Hints\r\n" + _FIELD + b"\r\n",
    "no HTTP at all": _MARK + b" SSH-2.0-OpenSSH\r\n\r\n",
}
#: Passed on with line ends and fields as they should be (RFC 9112 sections 2.2 and 5.2 permit that): aiohttp's strict
#: reading would refuse them, and with them every server that sends `Server` or `Content-Type` twice, as some large do.
MENDED: Final = {
    "lines that end with LF": (_OK + _JSON + _LENGTH).replace(b"\r\n", b"\n") + b"\n" + RESULT,
    "one line that ends with LF": _OK + b"X: a\n" + _JSON + _LENGTH + _END,
    "a folded field": _OK + _JSON + b"X: a\r\n b\r\n" + _LENGTH + _END,
}
#: The head is good, the body's framing is not: broken off, or refused when that shows before anything was sent.
BROKEN: Final = {
    "a chunk's size that is no number": _OK + _JSON + _CHUNKED + b"\r\nzz\r\n" + _MARK + b"\r\n0\r\n\r\n",
    "a negative chunk": _OK + _JSON + _CHUNKED + b"\r\n-5\r\n" + _MARK + b"\r\n0\r\n\r\n",
    "a chunk longer than it says": _OK + _JSON + _CHUNKED + b"\r\n2\r\n{}" + _MARK + b"\r\n0\r\n\r\n",
    "a chunk's size of 20 digits": _OK + _JSON + _CHUNKED + b"\r\n" + b"f" * 20 + b"\r\n" + _MARK,
}
#: Passed on or refused, and what stands behind is never taken for the answer to the next request.
BEHIND: Final = {
    "bytes behind the body": _OK + _JSON + _LENGTH + _END + _MARK,
    "a second answer behind the first": _OK + _JSON + _LENGTH + _END + _OK + _FIELD + _JSON + _LENGTH + _END,
    "an answer behind the last chunk": _OK + _JSON + _CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n" + _OK + _FIELD + b"\r\n",
}
ALL: Final = REFUSED | MENDED | BROKEN | BEHIND


def figures(short: bool) -> list[Figure]:
    """F5: each of them, and many times for the memory."""
    return asyncio.run(_measure(2 if short else 20))


async def _measure(rounds: int) -> list[Figure]:
    sending = [json_answer()]

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(sending[0])
            while sending[0] == REFUSED["an endless row of 103"]:
                await wire.send(sending[0])
                await asyncio.sleep(0)

    wrong: dict[str, str] = {}
    async with scripted_upstream(script) as upstream:
        with running_proxy({"servers": {"up": server(upstream.port, timeouts={"first_byte": "5s"})}}) as proxy:
            before = 0
            for number in range(rounds):
                for title, answer in ALL.items():
                    sending[0] = answer
                    if (seen := await _ask(proxy.port)) not in _expected(title):
                        wrong[title] = seen
                    sending[0] = json_answer()
                    if (seen := await _ask(proxy.port)) != "200":
                        wrong[f"the call after {title}"] = seen
                if not number:
                    before = proxy.rss_bytes()
            grown = (proxy.rss_bytes() - before) / (1 << 20)
            await asyncio.sleep(0.1)
            held = upstream.open
    for title, seen in wrong.items():
        print(f"  ! {title}: {seen}")
    others = wrong.keys() - ALL.keys()
    return [
        Figure(f"{len(REFUSED)} answers that are not HTTP/1.1: not 502", len(wrong.keys() & REFUSED.keys()), 0, ""),
        Figure(f"{len(MENDED)} with odd line ends: not passed on mended", len(wrong.keys() & MENDED.keys()), 0, ""),
        Figure(f"{len(BROKEN)} bodies with broken framing: not broken off", len(wrong.keys() & BROKEN.keys()), 0, ""),
        Figure(f"{len(BEHIND)} with bytes behind the body: not passed", len(wrong.keys() & BEHIND.keys()), 0, ""),
        Figure("  calls after them that were not answered well", len(others), 0, ""),
        Figure("  connections kept besides the one in use", max(0, held - 1), 0, ""),
        Figure(f"  memory grown in {rounds - 1} more rounds", grown, 4, "MiB"),
    ]  # fmt: skip


def _expected(title: str) -> tuple[str, ...]:
    if title in REFUSED:
        return ("502",)
    if title in MENDED:
        return ("200",)
    return ("502", "broken") if title in BROKEN else ("502", "200")


async def _ask(port: int) -> str:
    """One call on a connection of its own: its status, `broken`, or that something of the answer came through."""
    client = await RawClient.connect(port)
    got = ""
    try:
        await client.send(post())
        status, fields, body = await client.answer()
        got = str(status)
        if _MARK in body + repr(fields).encode():
            got += " with what should not have passed"
    except (asyncio.IncompleteReadError, ConnectionError):
        got = "broken"
    except TimeoutError:
        got = "no answer"
    finally:
        await client.close()
    return got
