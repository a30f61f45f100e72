"""May this principal send this message to this server, now? Scopes, grants, rules, and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.units import TimeWindow
from proxy.errors import Forbidden, NoRoute, Refusal
from proxy.identity.access import AccessControl, DayWindow, Rule, Server
from proxy.identity.patterns import Names, read_grants
from proxy.identity.principal import Principal, Scope, Source, anonymous
from proxy.identity.records import SYSTEM_TENANT, AccessRule
from proxy.mcp.envelope import Kind, Message
from proxy.mcp.methods import METHODS, UNKNOWN
from tests.unit.identity.rows import MOMENT, NOW

EVERY_SCOPE = frozenset((Scope.PROXY, Scope.READ, Scope.WRITE))
PRINCIPAL = Principal(
    "key:k", "t1", "acme", "u1", "user", EVERY_SCOPE, Source.KEY, key_id="k1", roles=frozenset(("user",))
)
SERVER = Server("github", "s1", "t1")
SHARED = Server("shared", "s9")
DENY = AccessRule("r1", "t1", "deny", "s1")
ALLOW = AccessRule("r2", "t1", "allow", "s1")


def message(method: str, target: str = "") -> Message:
    """A request as the envelope reads it."""
    row = METHODS.get(method, UNKNOWN)
    return Message(Kind.REQUEST, method, 1, row.access, row.kind, target)


CALL = message("tools/call", "search_code")
LIST = message("tools/list")


def may(
    *rules: AccessRule,
    principal: Principal = PRINCIPAL,
    server: Server = SERVER,
    said: Message | None = CALL,
    now: float = NOW,
) -> bool:
    """Whether the rules let a message pass; a refusal is a 403."""
    try:
        AccessControl(rules).authorize(principal, server, said, now)
    except Forbidden:
        return False
    return True


def test_without_rules_scopes_decide() -> None:
    """`proxy` for everything, `read` to read, `write` to execute, and for what nobody knows."""
    reader = replace(PRINCIPAL, scopes=frozenset((Scope.PROXY, Scope.READ)))
    writer = replace(PRINCIPAL, scopes=frozenset((Scope.PROXY, Scope.WRITE)))
    for said, for_reader, for_writer in (
        (LIST, True, False),
        (CALL, False, True),
        (message("tasks/get", "1"), False, True),
        (message("x/unheard"), False, True),
        (message("initialize"), True, True),
        (message("notifications/initialized"), True, True),
        (None, True, True),
    ):
        assert may(principal=reader, said=said) is for_reader
        assert may(principal=writer, said=said) is for_writer
        assert may(said=said)
        assert not may(principal=replace(PRINCIPAL, scopes=frozenset((Scope.READ, Scope.WRITE))), said=said)
    assert not may(principal=replace(PRINCIPAL, scopes=frozenset((Scope.ADMIN,))))


def test_a_foreign_server_does_not_exist() -> None:
    """The refusal is the one of a path that leads nowhere, before any scope is asked about."""
    for principal in (PRINCIPAL, anonymous(), replace(PRINCIPAL, scopes=frozenset())):
        with pytest.raises(NoRoute) as caught:
            AccessControl([replace(ALLOW, tenant_id="t2")]).authorize(principal, Server("x", "s2", "t2"), CALL, NOW)
        unknown: Refusal = NoRoute()
        assert (caught.value.status, caught.value.reason, caught.value.message, caught.value.headers) == (
            unknown.status,
            unknown.reason,
            unknown.message,
            unknown.headers,
        )


def test_servers_of_the_system_are_everyones() -> None:
    """So are those of the configuration file, which have no row."""
    for server in (SHARED, Server("from-the-file")):
        assert may(server=server)
        assert may(server=server, principal=anonymous())


def test_a_credential_reaches_the_servers_and_tools_that_it_names() -> None:
    """Names that look like wildcards are names."""
    limited = replace(PRINCIPAL, allowed=read_grants(["github"], ["search_*"]))
    assert may(principal=limited)
    assert may(principal=limited, said=LIST)
    assert not may(principal=limited, said=message("tools/call", "delete_repo"))
    assert not may(principal=limited, server=Server("gitlab", "s3", "t1"), said=LIST)
    for name in ("", "*", "%", "a*", "../search_code", "Search_code"):
        assert not may(principal=limited, said=message("tools/call", name))


def test_whoever_is_limited_to_some_tools_may_not_call_what_nobody_knows() -> None:
    """An unknown method may run anything; tasks, lists and the handshake go on."""
    limited = replace(PRINCIPAL, allowed=read_grants((), ["search_*"]))
    only_search = replace(ALLOW, tools=("search_*",))
    for said, passes in (
        (message("x/unheard"), False),
        (message("tasks/list"), True),
        (message("tasks/get", "1"), True),
        (LIST, True),
    ):
        assert may(principal=limited, said=said) is passes
        assert may(only_search, said=said) is passes
        assert may(principal=replace(PRINCIPAL, allowed=read_grants(["github"], ["*"])), said=said)
        assert may(replace(DENY, tools=("search_*",)), said=said)


def test_a_rule_that_denies_wins_over_rules_that_allow() -> None:
    """In any order, and whoever they are about."""
    for rules in ((ALLOW, DENY), (DENY, ALLOW), (DENY, replace(ALLOW, subject_type="user", subject_id="u1"))):
        assert not may(*rules)
        assert not may(*rules, said=LIST)
    assert may(ALLOW)
    assert not may(DENY)


def test_a_higher_priority_is_asked_first() -> None:
    """An exception to a rule that denies, and one to a rule that allows."""
    assert may(DENY, replace(ALLOW, priority=1))
    assert not may(replace(DENY, priority=1), ALLOW)
    assert not may(replace(ALLOW, priority=1), replace(DENY, priority=2))


def test_a_rule_that_allows_closes_the_server_to_the_rest() -> None:
    """Also one whose time is over: who was let in for a week does not open the server to all after it."""
    others = replace(ALLOW, subject_type="user", subject_id="u2")
    assert not may(others)
    assert not may(replace(ALLOW, valid_until=MOMENT))
    assert may(others, server=Server("gitlab", "s3", "t1"))
    assert may(replace(others, is_enabled=False))
    assert may(others, ALLOW)


def test_rules_about_tools_concern_calls_of_these_tools() -> None:
    """The rest of the server stays as it is."""
    no_search = replace(DENY, tools=("search_*", "x"))
    assert not may(no_search)
    assert may(no_search, said=message("tools/call", "delete"))
    assert may(no_search, said=LIST)
    only_search = replace(ALLOW, tools=("search_*",))
    assert may(only_search)
    assert may(only_search, said=LIST)
    assert may(only_search, said=message("initialize"))
    assert not may(only_search, said=message("tools/call", "delete"))
    assert not may(only_search, said=message("tools/call", ""))


@pytest.mark.parametrize(
    ("subject_type", "subject_id", "fits"),
    [
        ("everyone", "", True),
        ("user", "u1", True),
        ("user", "u2", False),
        ("role", "user", True),
        ("role", "admin", False),
        ("api_key", "k1", True),
        ("api_key", "k2", False),
        ("anonymous", "", False),
        ("nonsense", "", True),
    ],
)
def test_a_rule_is_about_its_subject(subject_type: Any, subject_id: str, fits: bool) -> None:
    """A kind of subject that is not known is denied to everyone and allowed to nobody."""
    rule = replace(DENY, subject_type=subject_type, subject_id=subject_id)
    assert may(rule) is not fits
    allowed = fits and subject_type != "nonsense"
    assert may(replace(rule, effect="allow")) is allowed


def test_anonymous_clients_are_a_subject() -> None:
    """With rules of the system tenant, since they have no tenant."""
    rule = AccessRule("r", SYSTEM_TENANT, "deny", "s9", "anonymous")
    assert not may(rule, server=SHARED, principal=anonymous())
    assert may(rule, server=SHARED)


def test_rules_without_a_server_are_about_all_servers_of_their_tenant() -> None:
    """Those of the system tenant about all servers of all; those of another tenant about nothing here."""
    everywhere = replace(DENY, server_id="")
    for server in (SERVER, SHARED, Server("from-the-file")):
        assert not may(everywhere, server=server)
        assert not may(replace(everywhere, tenant_id=SYSTEM_TENANT), server=server)
        assert may(replace(everywhere, tenant_id="t2"), server=server)
    assert may(everywhere, replace(ALLOW, priority=5))
    assert not may(replace(everywhere, priority=9), replace(ALLOW, priority=5))


def test_a_rule_holds_from_and_until_its_moments() -> None:
    """The first included, the second not."""
    rule = replace(DENY, valid_from=MOMENT, valid_until=MOMENT + timedelta(hours=1))
    assert may(rule, now=NOW - 0.001)
    assert not may(rule, now=NOW)
    assert not may(rule, now=NOW + 3599.9)
    assert may(rule, now=NOW + 3600)


def window(start: str, end: str, days: tuple[int, ...] = (), zone: str = "UTC") -> DayWindow:
    """The window of a rule."""
    return DayWindow(replace(DENY, daily_from=start, daily_until=end, days_of_week=days, time_zone=zone))


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-20T21:59:59", False),
        ("2026-11-20T22:00:00", True),
        ("2026-11-21T05:59:59", True),
        ("2026-11-21T06:00:00", False),
        ("2026-11-21T23:00:00", False),
        ("2026-11-20T05:00:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_began_on(moment: str, holds: bool) -> None:
    """22:00 to 06:00 on Fridays (20 November 2026 is one)."""
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    assert window("22:00", "06:00", (5,)).holds(at) is holds


def test_a_window_is_in_its_zone_also_when_the_clocks_change() -> None:
    """9:00 in Berlin is 8:00 UTC in winter and 7:00 in summer."""
    office = window("09:00", "17:00", zone="Europe/Berlin")
    for day, opening in (("2026-11-20", 8), ("2026-07-20", 7)):
        begin = datetime.fromisoformat(day).replace(hour=opening, tzinfo=UTC).timestamp()
        assert office.holds(begin)
        assert not office.holds(begin - 1)


@given(st.times(), st.times(), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]), st.integers(0, 2**31))
def test_a_window_is_that_of_the_configuration(start: time, end: time, zone: str, now: int) -> None:
    """`between` of a route and the hours of a rule mean the same."""
    first, last = start.strftime("%H:%M"), end.strftime("%H:%M")
    if first != last:
        expected = TimeWindow.parse(f"{first}-{last} {zone}").holds(datetime.fromtimestamp(now, UTC))
        assert window(first, last, zone=zone).holds(now) is expected


def test_days_alone_are_whole_days() -> None:
    """From midnight to midnight."""
    sunday = window("", "", (7,))
    assert sunday.holds(NOW)
    assert sunday.holds(MOMENT.replace(hour=0).timestamp())
    assert not sunday.holds(MOMENT.replace(hour=0).timestamp() - 1)
    assert window("06:00", "").holds(NOW)
    assert not window("13:00", "").holds(NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"daily_from": "09:00", "daily_until": "09:00"},
        {"daily_from": "9 o'clock", "daily_until": "10:00"},
        {"daily_from": "09:00", "daily_until": "10:00", "time_zone": "Mars/Olympus"},
        {"daily_from": "09:00", "daily_until": "10:00", "time_zone": "../../etc/passwd"},
        {"daily_from": "09:00", "daily_until": "10:00", "time_zone": ""},
        {"days_of_week": (0, 8)},
    ],
)
def test_a_window_that_cannot_be_read_denies(change: dict[str, Any]) -> None:
    """A rule that denies does so always, one that allows never does."""
    assert not may(replace(DENY, **change))
    assert not may(replace(ALLOW, **change))


def test_a_tool_that_cannot_be_read_denies_the_server() -> None:
    """Where it would allow, it allows nothing."""
    assert not may(replace(DENY, tools=("a*b",)))
    assert not may(replace(ALLOW, tools=("a*b",)))


def test_lists_show_what_may_be_called() -> None:
    """Tools need `write` and pass the rules; prompts and resources need `read` and the server."""
    access = AccessControl([replace(DENY, tools=("delete_*",))])
    reader = replace(PRINCIPAL, scopes=frozenset((Scope.PROXY, Scope.READ)))
    assert access.may_use(PRINCIPAL, SERVER, "tool", "search_code", NOW)
    assert not access.may_use(PRINCIPAL, SERVER, "tool", "delete_repo", NOW)
    assert not access.may_use(reader, SERVER, "tool", "search_code", NOW)
    for kind in ("prompt", "resource", "template"):
        assert access.may_use(reader, SERVER, kind, "delete_repo", NOW)
        assert not access.may_use(replace(reader, scopes=frozenset((Scope.WRITE,))), SERVER, kind, "x", NOW)
        assert not AccessControl([DENY]).may_use(PRINCIPAL, SERVER, kind, "x", NOW)


RULES = st.builds(
    AccessRule,
    st.just("r"),
    st.sampled_from(["t1", "t2", SYSTEM_TENANT]),
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["", "s1", "s2"]),
    subject_type=st.sampled_from(["everyone", "user", "role"]),
    subject_id=st.sampled_from(["u1", "u2", "user"]),
    tools=st.lists(st.sampled_from(["search_*", "delete", "*"]), max_size=2).map(tuple),
    priority=st.integers(0, 2),
    is_enabled=st.booleans(),
)


def expected(rules: list[AccessRule], tool: str | None) -> bool:
    """The same decision in the plainest words."""
    mine = [
        rule
        for rule in rules
        if rule.is_enabled and (rule.tenant_id, rule.server_id) in (("t1", ""), (SYSTEM_TENANT, ""), ("t1", "s1"))
    ]
    verdicts: list[tuple[int, Literal["allow", "deny"]]] = []
    for rule in mine:
        about = rule.subject_type == "everyone" or rule.subject_id == {"user": "u1", "role": "user"}[rule.subject_type]
        named = not rule.tools or (rule.effect == "allow" if tool is None else tool in Names(rule.tools))
        if about and named:
            verdicts.append((rule.priority, rule.effect))
    if not verdicts:
        return not any(rule.effect == "allow" for rule in mine)
    top = max(priority for priority, _ in verdicts)
    return (top, "deny") not in verdicts


@given(st.lists(RULES, max_size=6), st.sampled_from([None, "search_code", "delete", "other", ""]))
def test_any_rules_decide_as_the_page_says(rules: list[AccessRule], tool: str | None) -> None:
    """Whatever their order; and a list shows a tool exactly if it may be called."""
    said = LIST if tool is None else message("tools/call", tool)
    assert may(*rules, said=said) is may(*reversed(rules), said=said) is expected(rules, tool)
    if tool:
        assert AccessControl(rules).may_use(PRINCIPAL, SERVER, "tool", tool, NOW) is expected(rules, tool)


def test_a_rule_knows_its_priority() -> None:
    """For sorting among rules of several places."""
    assert [rule.priority for rule in (Rule(DENY), Rule(replace(DENY, priority=7)))] == [0, 7]
