"""All alerts: what is logged, who is told and when, and what waits to be written down."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.background import alerts as module
from proxy.background.alert_states import Notice, Rule
from proxy.background.alerts import Alerts, families
from proxy.background.observing import Clocks
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from tests.unit.background.test_alert_states import rule
from tests.unit.dataplane.fakes import Time

#: Added to the test's seconds: PostgreSQL has a clock of its own, and removes what is old.
WALL = float(round(time.time()))


class Log:
    """What is said of alerts."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    info = error = warning


class Watch:
    """Alerts whose values the test says."""

    def __init__(self, *rules: Rule) -> None:
        self.time, self.log = Time(), Log()
        self.values: dict[str, float | None] = {"": 0.0}
        self.notices: list[Notice] = []
        ids = RecordIds(self.time, os.urandom)
        clocks = Clocks(lambda: self.time.now + WALL, self.time)
        self.alerts = Alerts(
            lambda rule: self.values, clocks, ids, self.log, "here", self.notices.append  # type: ignore[arg-type]
        )  # fmt: skip
        self.alerts.configure(rules)

    async def see(self, value: float | None = None, after_s: float = 1.0, **series: float | None) -> None:
        """A look after so long, with this value or with one for each series."""
        self.time.now += after_s
        self.values = series or {"": value}
        await self.alerts.evaluate()

    @property
    def statuses(self) -> list[str]:
        return [notice.status for notice in self.notices]

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.log.lines]


async def test_begin_and_end_are_logged_told_and_kept_for_the_table() -> None:
    """The episode is one, and says who saw it."""
    watch = Watch(rule(name="slow", severity="high"))
    await watch.see(11)
    [episode] = watch.alerts.firing
    assert (episode.value, episode.instance, episode.resolved_at, episode.started_at) == (11, "here", None, WALL + 1001)
    assert watch.alerts.changed == {episode.id: episode}
    await watch.see(12)
    assert episode.value == 12
    await watch.see(1)
    assert watch.alerts.firing == []
    assert (episode.value, episode.ended, episode.resolved_at) == (1, "clear", WALL + 1003)
    assert watch.statuses == ["firing", "resolved"]
    assert watch.notices[0].id != watch.notices[1].id
    assert [(event, said["alert"], said["value"], said["instance"]) for event, said in watch.log.lines] == [
        ("alert firing", "slow", 11, "here"), ("alert resolved", "slow", 1, "here")
    ]  # fmt: skip


async def test_each_series_of_a_rule_fires_for_itself() -> None:
    """One that is gone ends when nothing was seen of it for long enough."""
    watch = Watch(rule())
    await watch.see(a=11, b=1, c=11)
    assert sorted(each.series for each in watch.alerts.firing) == ["a", "c"]
    await watch.see(a=1, b=11)
    assert sorted(each.series for each in watch.alerts.firing) == ["b", "c"]
    await watch.see(after_s=400, b=11)
    assert [each.series for each in watch.alerts.firing] == ["b"]
    assert watch.log.lines[-1][1]["ended"] == "missing"
    assert watch.alerts.last_values() == {"k": 11}


async def test_any_number_of_series_is_watched_and_none_of_them_is_overlooked() -> None:
    """Nor does one fire for ever that has come to stand behind many others."""
    watch = Watch(rule(cooldown_s=0))
    well: dict[str, float | None] = {f"s{number}": 1.0 for number in range(3000)}
    await watch.see(**well, last=11)
    assert [each.series for each in watch.alerts.firing] == ["last"]
    await watch.see(**{f"t{number}": 1.0 for number in range(3000)}, **well, last=1)
    assert watch.alerts.firing == []
    assert watch.log.lines[-1][1]["ended"] == "clear"
    await watch.see(after_s=3600, **well, last=1)
    assert watch.alerts._tracks == {rule().watched: {}}, "nothing is kept of what was well for long"
    assert watch.alerts.last_values() == {"k": 1}
    watch.alerts.configure([rule(key="other")])
    await watch.see(a=None)
    assert watch.alerts.last_values() == {}


async def test_requests_go_first_also_within_many_series() -> None:
    """Each few hundred of them."""
    watch, turns = Watch(rule()), 0

    async def request() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(request())
        await watch.see(**{f"s{number}": 1.0 for number in range(5000)})
        other.cancel()
    assert turns >= 10


async def test_notifications_of_a_begin_have_a_distance() -> None:
    """The log has each; of one that is over before its turn nobody hears, nor of its end."""
    watch = Watch(rule(cooldown_s=100))
    for value in (11, 1, 11, 1):
        await watch.see(value)
    assert watch.statuses == ["firing", "resolved"]
    assert watch.events == ["alert firing", "alert resolved"] * 2
    await watch.see(11)
    assert watch.statuses == ["firing", "resolved"]
    await watch.see(11, after_s=100)
    assert watch.statuses == ["firing", "resolved", "firing"]
    assert watch.notices[-1].episode is watch.alerts.firing[0]
    await watch.see(1)
    assert watch.statuses[-2:] == ["firing", "resolved"]


@given(st.lists(st.tuples(st.sampled_from([1.0, 9.0, 11.0, None]), st.integers(1, 90)), max_size=60))
def test_whatever_happens_begins_are_apart_and_each_end_follows_its_begin(
    looks: list[tuple[float | None, int]],
) -> None:
    """And nothing is told of that is not in the log."""

    async def run() -> None:
        watch = Watch(rule(cooldown_s=100, window_s=60, for_s=20, keep_firing_s=20))
        for value, after_s in looks:
            await watch.see(value, after_s)
        begins = [notice.at for notice in watch.notices if notice.status == "firing"]
        assert all(later - earlier >= 100 for earlier, later in pairwise(begins))
        assert watch.statuses == ["firing", "resolved"] * (len(watch.notices) // 2) + ["firing"] * (
            len(watch.notices) % 2
        )
        episodes = [notice.episode.id for notice in watch.notices]
        assert episodes[::2][: len(episodes) // 2] == episodes[1::2]
        logged = {said["episode"] for event, said in watch.log.lines if event == "alert firing"}
        assert {str(each) for each in episodes} <= logged

    asyncio.run(run())


async def test_the_distance_outlives_a_series_that_comes_and_goes() -> None:
    """Else a server that is removed and added again would tell each time."""
    watch = Watch(rule(cooldown_s=1000))
    await watch.see(a=11)
    await watch.see(a=1)
    await watch.see(b=1)
    await watch.see(a=11)
    assert watch.statuses == ["firing", "resolved"]


async def test_an_alert_ends_with_its_rule() -> None:
    """And goes on when only a number of it changes."""
    watch = Watch(rule())
    await watch.see(11)
    watch.alerts.configure([rule(threshold=10.5, clear=9)])
    await watch.see(11)
    assert watch.statuses == ["firing"] and watch.alerts.firing[0].rule.threshold == 10.5
    watch.alerts.configure([rule(metric="p50_ms")])
    await watch.see(11)
    assert watch.statuses == ["firing", "resolved", "firing"]
    assert watch.notices[1].episode.ended == "removed"
    watch.alerts.configure([])
    await watch.see(11)
    assert watch.statuses[-1] == "resolved" and watch.alerts.firing == []


async def test_the_end_of_the_process_ends_alerts_for_the_table_but_tells_nobody() -> None:
    """What is wrong is still wrong."""
    watch = Watch(rule())
    await watch.see(11)
    watch.alerts.stop()
    assert [each.ended for each in watch.alerts.changed.values()] == ["stopped"]
    assert watch.statuses == ["firing"]


async def test_what_waits_for_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, and are counted; the log has had them."""
    monkeypatch.setattr(module, "_MOST_CHANGED", 3)
    watch = Watch(rule())
    for value in (11, 1) * 5:
        await watch.see(value)
    assert (len(watch.alerts.changed), watch.alerts.forgotten) == (3, 2)


async def test_many_rules_leave_room_for_requests() -> None:
    """Rules that are replaced meanwhile are taken with the next look."""
    watch = Watch(*(rule(key=str(number)) for number in range(120)))
    await watch.see(11)
    assert len(watch.alerts.firing) == 120
    coroutine = watch.alerts.evaluate()
    pauses = 0
    while True:
        try:
            coroutine.send(None)
        except StopIteration:
            break
        watch.alerts.configure([])
        pauses += 1
    assert pauses == 120 and len(watch.alerts.firing) == 120
    await watch.see(11)
    assert watch.alerts.firing == []


async def test_rules_of_tenants_take_turns_when_they_take_long() -> None:
    """Those of the operator are looked at each time."""
    mine = rule(key="mine", tenant=SYSTEM_TENANT)
    watch = Watch(*(rule(key=str(number)) for number in range(5)), mine)
    seen: list[str] = []

    def values(rule: Rule) -> dict[str, float | None]:
        watch.time.now += 0.06
        seen.append(rule.key)
        return {"": 1.0}

    watch.alerts._values = values
    for _ in range(3):
        await watch.see(1)
    assert seen == ["mine", "0", "1", "mine", "2", "3", "mine", "4", "0"]
    assert watch.alerts.cut == 3


async def test_what_fires_is_counted_by_severity() -> None:
    """In the metrics."""
    watch = Watch(rule(severity="critical"), replace(rule(severity="low"), key="other"))
    await watch.see(11)
    rows = {family.name: list(family.rows) for family in families(watch.alerts)}
    assert rows["mcp_proxy_alerts_firing"] == [
        ('{severity="low"}', 1), ('{severity="medium"}', 0), ('{severity="high"}', 0), ('{severity="critical"}', 1)
    ]  # fmt: skip
    assert rows["mcp_proxy_alerts_fired"] == [("", 2)] and rows["mcp_proxy_alert_notices"] == [("", 2)]
