"""Receivers are told at their own pace, in order, again and again, and of what concerns them only."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.background import webhooks as module
from proxy.background.observing import Clocks
from proxy.background.webhooks import Webhooks
from proxy.config.alerts import Webhook
from tests.harness import free_port, json_answer, scripted_upstream
from tests.unit.background.notices import SECRET, Endpoint, endpoint, notice, webhook
from tests.unit.background.test_alerts import Log
from tests.unit.config.pem import write_pair
from tests.unit.dataplane.fakes import PATIENCE_S, Time

BUSY = json_answer(b"", b"503 Busy")
ACME = "11111111-1111-1111-1111-111111111111"


class Telling:
    """Webhooks on the test's time, whose tasks the test waits for."""

    def __init__(self, **webhooks: Webhook) -> None:
        self.time, self.log = Time(), Log()
        self.tasks: list[asyncio.Task[None]] = []
        self.full = False
        clocks = Clocks(lambda: self.time.now + 1e9, self.time)
        self.webhooks = Webhooks(self.spawn, clocks, lambda: 1.0, self.log)  # type: ignore[arg-type]
        self.webhooks.configure(webhooks)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> bool:
        if self.full:
            coroutine.close()
            return False
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))
        return True

    async def settle(self) -> None:
        """Until nothing runs."""
        async with asyncio.timeout(PATIENCE_S):
            while self.tasks:
                await self.tasks.pop()

    async def later(self, seconds: float) -> None:
        self.time.now += seconds
        self.webhooks.step()
        await self.settle()

    def numbers(self, name: str) -> dict[str, float]:
        """One metric, by webhook."""
        [family] = [family for family in self.webhooks.families() if family.name == f"mcp_proxy_webhook_{name}"]
        return {label.split('"')[1]: value for label, value in family.rows}


@asynccontextmanager
async def telling(**given: Any) -> AsyncIterator[tuple[Telling, Endpoint]]:
    """One receiver `ops` that listens."""
    async with endpoint() as here:
        told = Telling(ops=webhook(here.url, **given))
        yield told, here
        here.open.set()
        await told.webhooks.finish(PATIENCE_S)
        await told.settle()


async def test_what_is_told_is_sent_at_once_and_in_order() -> None:
    """Nobody waits for the next step."""
    async with telling() as (told, here):
        first, second = notice(), notice("resolved")
        told.webhooks.tell(first)
        told.webhooks.tell(second)
        await told.settle()
        assert [body["id"] for body in here.bodies] == [str(first.id), str(second.id)]
        assert (told.webhooks.waiting, told.numbers("delivered")) == (0, {"ops": 2})


async def test_a_failure_is_tried_again_with_the_same_id_and_ever_longer_waits() -> None:
    """1, 2 and 4 seconds; what comes meanwhile waits behind it; the log has the first failure."""
    async with telling() as (told, here):
        here.answers += [BUSY] * 3
        first, second = notice(), notice("resolved")
        told.webhooks.tell(first)
        await told.settle()
        told.webhooks.tell(second)
        for wait_s in (1, 2, 4):
            await told.later(wait_s - 0.01)
            assert told.webhooks.waiting == 2
            await told.later(0.01)
        ids = [body["id"] for body in here.bodies]
        assert ids == [str(first.id)] * 4 + [str(second.id)]
        assert len({fields["mcp-manager-signature"] for fields, _ in here.got[:4]}) == 4  # signed anew
        assert told.numbers("failures") == {"ops": 3}
        assert [said for _, said in told.log.lines] == [{"webhook": "ops", "reason": "status 503"}]


async def test_waits_are_drawn_and_bounded() -> None:
    """Half of the wait at least, five minutes at most, and as long as the receiver asks for."""
    async with telling(give_up_after="7d") as (told, here):
        here.answers += [BUSY] * 40
        told.webhooks.tell(notice())
        for _ in range(12):
            await told.later(300)
        assert len(here.got) >= 12
        here.answers[:] = [b"HTTP/1.1 429 Slow\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n"]
        await told.later(300)
        count = len(here.got)
        await told.later(899)
        assert len(here.got) == count
        await told.later(1)
        assert len(here.got) == count + 1 and told.webhooks.waiting == 0


async def test_what_nobody_takes_is_given_up_and_the_next_one_tried() -> None:
    """After an hour; what is not wanted after five tries."""
    async with telling() as (told, here):
        here.answers += [BUSY] * 2
        told.webhooks.tell(notice())
        await told.settle()
        await told.later(3600)
        assert (told.webhooks.waiting, told.numbers("lost")) == (0, {"ops": 1})
        here.answers += [json_answer(b"", b"404 No")] * 5
        told.webhooks.tell(notice())
        await told.later(300)
        told.webhooks.tell(notice("resolved"))
        for _ in range(6):
            await told.later(300)
        assert (told.numbers("lost"), told.numbers("delivered")) == ({"ops": 2}, {"ops": 1})
        assert here.bodies[-1]["status"] == "resolved"
        lost = [said for event, said in told.log.lines if event == "a notification was given up"]
        assert [(said["reason"], said["tries"]) for said in lost] == [("status 503", 2), ("status 404", 5)]


async def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not the one that is under way."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    async with telling() as (told, here):
        here.open.clear()
        notices = [notice() for _ in range(5)]
        for each in notices:
            told.webhooks.tell(each)
            await asyncio.sleep(0)
        here.open.set()
        await told.settle()
        ids = [str(each.id) for each in notices]
        assert [body["id"] for body in here.bodies] == [ids[0], *ids[3:]]
        assert told.numbers("lost") == {"ops": 2}


async def test_a_receiver_that_hangs_holds_up_no_other() -> None:
    """Each has a queue and a task of its own, and at most one try under way."""
    async with telling() as (told, slow), endpoint() as other:
        told.webhooks.configure({"ops": webhook(slow.url), "other": webhook(other.url)})
        slow.open.clear()
        for _ in range(3):
            told.webhooks.tell(notice())
            told.webhooks.step()
        await other.until(3)
        await slow.until(1)
        assert len(slow.got) == 1
        slow.open.set()
        await told.settle()
        assert len(slow.got) == 3


async def test_when_no_task_can_be_started_it_is_tried_with_the_next_step() -> None:
    """Nothing is lost."""
    async with telling() as (told, here):
        told.full = True
        told.webhooks.tell(notice())
        told.full = False
        await told.later(0.25)
        assert len(here.got) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ["ops", "strict"]),
        ({"severity": "critical"}, ["ops", "strict", "urgent"]),
        ({"channels": ("strict", "nobody")}, ["strict"]),
        ({"channels": ()}, []),
        ({"tenant": ACME, "channels": ("ops", "strict", "urgent")}, ["ops"]),
        ({"tenant": ACME, "channels": None}, []),
    ],
)
async def test_everybody_hears_of_what_concerns_him(given: dict[str, Any], told: list[str]) -> None:
    """By severity and name; a tenant reaches those only that let tenants name them."""
    url = f"http://127.0.0.1:{free_port()}/"
    receivers = {
        "ops": webhook(url, tenants=True), "strict": webhook(url), "urgent": webhook(url, min_severity="high")
    }  # fmt: skip
    telling = Telling(**receivers)
    telling.webhooks.tell(notice(**given))
    assert [name for name, count in telling.numbers("waiting").items() if count] == told
    await telling.webhooks.finish(PATIENCE_S)
    await telling.settle()


async def test_a_new_configuration_takes_over_what_waits() -> None:
    """A receiver that did not change keeps its wait; one that is gone gets nothing more."""
    async with telling() as (told, here), endpoint() as there:
        here.answers.append(BUSY)
        told.webhooks.tell(notice())
        await told.settle()
        told.webhooks.configure({"ops": webhook(here.url)})
        told.webhooks.step()
        await told.settle()
        assert len(here.got) == 1
        told.webhooks.configure({"ops": webhook(there.url)})
        told.webhooks.step()
        await told.settle()
        assert (len(here.got), len(there.got)) == (1, 1)
        told.webhooks.configure({})
        told.webhooks.tell(notice())
        await told.settle()
        assert (told.webhooks.waiting, len(there.got)) == (0, 1)


async def test_a_change_while_something_is_under_way_loses_nothing() -> None:
    """It comes twice then, with the same id."""
    async with telling() as (told, here), endpoint() as there:
        here.open.clear()
        told.webhooks.tell(notice())
        await here.until(1)
        told.webhooks.configure({"ops": webhook(there.url)})
        told.webhooks.step()
        await there.until(1)
        here.open.set()
        await told.settle()
        assert here.bodies[0]["id"] == there.bodies[0]["id"]
        assert told.webhooks.waiting == 0


async def test_the_end_of_the_process_is_one_more_try_within_its_deadline() -> None:
    """What a receiver does not take then is said to be lost."""
    async with telling() as (told, here):
        here.answers.append(BUSY)
        told.webhooks.tell(notice())
        await told.settle()
        await told.webhooks.finish(PATIENCE_S)
        assert len(here.got) == 2
        assert [event for event, _ in told.log.lines] == ["a webhook does not take a notification"]
    async with telling() as (told, here):
        here.answers += [BUSY, BUSY]
        told.webhooks.tell(notice())
        await told.settle()
        await told.webhooks.finish(PATIENCE_S)
        assert told.log.lines[-1] == ("notifications of alerts are lost with the end of the process", {"count": 1})
    async with telling() as (told, here):
        here.open.clear()
        told.full = True
        told.webhooks.tell(notice())
        await told.webhooks.finish(0.05)
        assert told.log.lines[-1][1]["count"] == 1


async def test_a_receiver_without_its_authorities_is_left_out() -> None:
    """The others are told."""
    async with telling() as (told, here):
        ours = webhook("https://127.0.0.1:9/", ca="/nowhere/ca.pem")
        told.webhooks.configure({"ops": webhook(here.url), "tls": ours})
        assert told.log.lines[-1] == ("a webhook cannot be used", {"webhook": "tls", "reason": "FileNotFoundError"})
        told.webhooks.tell(notice())
        await told.settle()
        assert len(here.got) == 1


async def test_tls_is_checked_against_the_given_authorities(tmp_path: Path) -> None:
    """The name of the receiver is, too."""
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    write_pair(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    here = Endpoint()
    async with scripted_upstream(here.serve, tls=context) as upstream:
        told = Telling(
            good=webhook(f"https://localhost:{upstream.port}/", ca=str(certificate)),
            stranger=webhook(f"https://localhost:{upstream.port}/"),
            other=webhook(f"https://127.0.0.1:{upstream.port}/", ca=str(certificate)),
        )
        told.webhooks.tell(notice())
        await told.settle()
        assert told.numbers("delivered") == {"good": 1, "stranger": 0, "other": 0}
        assert sorted((said["webhook"], said["reason"]) for _, said in told.log.lines) == [
            ("other", "no connection (tls)"), ("stranger", "no connection (tls)")
        ]  # fmt: skip
        await told.webhooks.finish(PATIENCE_S)


async def test_nothing_that_is_logged_has_the_url_or_the_secret() -> None:
    """Whatever goes wrong."""
    port = free_port()
    told = Telling(ops=webhook(f"http://127.0.0.1:{port}/hidden", give_up_after="1s"))
    told.webhooks.tell(notice())
    await told.settle()
    await told.later(5)
    said = repr(told.log.lines)
    assert len(told.log.lines) == 2 and "hidden" not in said and SECRET not in said and str(port) not in said
    await told.webhooks.finish(PATIENCE_S)
