"""One notification to one receiver: its body and signature, what an answer means, and where a receiver may stand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.background.webhook_sender import Outcome, Sender, body_of, signature
from proxy.dataplane.resolver import Addresses, Resolver
from tests.harness import Wire, free_port, json_answer, scripted_upstream
from tests.unit.background.notices import SECRET, endpoint, notice, webhook

DOCUMENT = (Path(__file__).parents[3] / "docs/alerts.md").read_text()


def documented() -> Callable[..., bool]:
    """The example of the manual."""
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    genuine: Callable[..., bool] = names["is_genuine"]
    return genuine


def sender(url: str, resolver: Resolver | None = None, **given: Any) -> Sender:
    return Sender(webhook(url, **given), time.time, resolver)


async def outcome(url: str, resolver: Resolver | None = None, **given: Any) -> Outcome:
    """Of one try."""
    way = sender(url, resolver, **given)
    try:
        return await way.send(b"{}", "id")
    finally:
        await way.close()


async def test_a_notification_arrives_signed_and_the_manual_can_check_it() -> None:
    """With the fields of the manual; a changed body or secret is noticed, and so is an old one."""
    told = notice("resolved")
    async with endpoint() as here:
        way = sender(here.url, headers={"X-Key": "letmein"})
        assert await way.send(body_of(told), str(told.id)) == Outcome(True)
        await way.close()
    [(fields, body)] = here.got
    assert fields["content-type"] == "application/json" and fields["x-key"] == "letmein"
    assert fields["mcp-manager-notice"] == str(told.id)
    header = fields["mcp-manager-signature"]
    genuine = documented()
    assert genuine(SECRET, body, header)
    assert not genuine(SECRET, body + b" ", header)
    assert not genuine("another secret...", body, header)
    assert not genuine(SECRET, body, header.replace("t=", "t=1"))
    assert not genuine(SECRET, body, signature(SECRET, body, int(time.time()) - 400))
    for forged in ("nonsense", "", f"t={'1' * 5000},v1=0", header.replace("v1=", "v1=é"), header.replace("t=", "t=²")):
        assert not genuine(SECRET, body, forged)


def test_the_body_is_the_one_of_the_manual() -> None:
    """Its keys, in its order, and nothing else."""
    [example] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    shown, told = json.loads(example), json.loads(body_of(notice("resolved")))
    assert list(shown) == list(told) and list(shown["labels"]) == list(told["labels"])
    assert told["started_at"] == "2001-09-09T01:46:40.000Z" and told["resolved_at"] == "2001-09-09T01:47:40.000Z"
    assert (told["status"], told["value"], told["threshold"], told["ended"]) == ("resolved", 11.5, 10.0, "clear")
    assert SECRET not in str(told)


@given(st.binary(), st.integers(0, 1 << 40))
def test_a_signature_depends_on_every_byte_and_on_the_time(body: bytes, at: int) -> None:
    """And on the secret."""
    mine = signature(SECRET, body, at)
    others = {signature(SECRET, body + b"x", at), signature(SECRET, body, at + 1), signature(f"{SECRET}x", body, at)}
    assert mine == signature(SECRET, body, at)
    assert len({other.partition("v1=")[2] for other in others} | {mine.partition("v1=")[2]}) == 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (json_answer(b"x" * 100_000), Outcome(True)),
        (json_answer(b"", b"202 Accepted"), Outcome(True)),
        (json_answer(b"", b"503 Busy"), Outcome(False, "status 503")),
        (json_answer(b"", b"404 Not Found"), Outcome(False, "status 404", hopeless=True)),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         Outcome(False, "status 302", hopeless=True)),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", Outcome(False, "status 429", wait_s=7)),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 9999999\r\nContent-Length: 0\r\n\r\n",
         Outcome(False, "status 429", wait_s=3600)),
        *((b"HTTP/1.1 503 Busy\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % asked,
           Outcome(False, "status 503", wait_s=wait_s))
          for asked, wait_s in (
              (b"Fri, 31 Dec 2399 23:59:59 GMT", 3600), (b"Sunday, 06-Nov-94 08:49:37 GMT", 0), (b"1" * 400, 3600),
              (b"soon", 0), (b"-5", 0), (b"Fri, 99 Foo 9999 99:99:99 GMT", 0), ("²".encode(), 0), (b"", 0),
          )),
        (b"nonsense\r\n\r\n", Outcome(False, "the connection was lost")),
    ],
)  # fmt: skip
async def test_an_answer_means_what_the_manual_says(answer: bytes, expected: Outcome) -> None:
    """A redirect is not followed; a large body is not waited for."""
    async with endpoint() as here:
        here.answers.append(answer)
        assert await outcome(here.url) == expected
        assert len(here.got) == 1


async def test_a_receiver_may_say_until_when_it_is_to_be_left_alone() -> None:
    """As a date, too."""
    async with endpoint() as here:
        here.answers.append(
            b"HTTP/1.1 503 Busy\r\nRetry-After: Sun, 09 Sep 2001 01:48:20 GMT\r\nContent-Length: 0\r\n\r\n"
        )
        way = Sender(webhook(here.url), lambda: 1_000_000_000.0)
        assert (await way.send(b"{}", "id")).wait_s == 100
        await way.close()


async def test_the_body_of_an_answer_is_not_read() -> None:
    """A receiver cannot keep us busy with it."""

    async def endless(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await wire.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    async with scripted_upstream(endless) as upstream:
        assert await outcome(upstream.url) == Outcome(True)


async def test_a_receiver_that_is_silent_is_given_up_at_the_deadline() -> None:
    """The one of a try."""
    async with endpoint() as here:
        here.open.clear()
        assert await outcome(here.url, timeout="200ms") == Outcome(False, "no answer in time")


async def test_nobody_there_is_no_connection() -> None:
    """Neither the URL nor the port is said."""
    found = await outcome(f"http://127.0.0.1:{free_port()}/token")
    assert found == Outcome(False, "no connection (connect)")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "::1", "fe80::1", "fd00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
async def test_a_name_that_leads_to_a_place_of_our_own_is_refused_at_the_connect(address: str) -> None:
    """Private, loopback, link-local, metadata, and all of them inside IPv6; a name may lead elsewhere each time."""
    asked = []

    def lookup(host: str) -> Addresses:
        asked.append(host)
        return [(10 if ":" in address else 2, address)]

    found = await outcome("http://ops.example:9/", Resolver(lookup), allow_private_networks="192.0.2.0/24")
    assert found == Outcome(False, "its address is not permitted")
    assert asked == ["ops.example"]


async def test_a_private_network_that_is_listed_is_permitted() -> None:
    """That one, and no other."""
    async with endpoint() as here:
        port = here.url.removesuffix("/mcp").split(":")[2]
        resolver = Resolver(lambda host: [(2, "127.0.0.1")])
        assert await outcome(f"http://ops.example:{port}", resolver) == Outcome(True)
        refused = await outcome(f"http://ops.example:{port}", resolver, allow_private_networks="127.0.0.2/32")
        assert refused == Outcome(False, "its address is not permitted")
    assert len(here.got) == 1 and here.got[0][0]["host"] == f"ops.example:{port}"


def test_authorities_that_cannot_be_read_are_an_oserror(tmp_path: Path) -> None:
    """Missing, or no certificates."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(OSError, match=r".*"):
            sender("https://192.0.2.7/", allow_private_networks="192.0.2.0/24", ca=str(tmp_path / name))
