"""Who is turned away before anything else, which refusals lead to it, and who never is."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from proxy import errors
from proxy.dataplane import bans as module
from proxy.dataplane.admission import AdmissionBuilder, Freshness
from proxy.dataplane.bans import INNOCENT, VIOLATIONS, Ban, Bans, policy_of, turn_away
from proxy.dataplane.context import RequestContext
from proxy.dataplane.identity import authenticate
from proxy.errors import Blocked
from proxy.identity.directory import UnknownCredential
from proxy.limits.scores import KINDS
from tests.harness import ROOT
from tests.unit.dataplane.admitted import configuration
from tests.unit.dataplane.asked import snapshot
from tests.unit.dataplane.fakes import Client
from tests.unit.identity.rows import RING

WHO, OTHER, NETWORK = "192.0.2.1", "192.0.2.2", "2001:db8:1:2::/64"
KEY = UnknownCredential("an unknown credential")
SNAPSHOT = snapshot({"up": "http://up.test/mcp"})


def blocking(**keys: Any) -> Bans:
    """Blocks at a score of 10, for a minute."""
    return Bans(policy_of(configuration(limits={"blocking": {"threshold": 10, **keys}})), sharing=True)


def guilty(bans: Bans, ip: str = WHO, now: float = 0.0) -> Bans:
    """After so many bad keys that the address is blocked."""
    for _ in range(10):
        bans.note(KEY, ip, now)
    return bans


def turned_away(bans: Bans, ip: str = WHO, now: float = 0.0) -> dict[str, str] | None:
    """The fields of the refusal, None for an address that may pass."""
    try:
        bans.check(ip, now)
    except Blocked as refusal:
        return dict(refusal.headers)
    return None


def test_an_address_is_turned_away_once_its_score_is_full_and_only_for_a_while() -> None:
    """It is told when to come back; others pass all the time."""
    bans = blocking()
    for _ in range(9):
        bans.note(KEY, WHO, 0.0)
    assert turned_away(bans) is None
    bans.note(KEY, WHO, 0.0)
    assert turned_away(bans) == {"Retry-After": "60"}
    assert turned_away(bans, now=58.5) == {"Retry-After": "2"}
    assert turned_away(bans, OTHER) is None
    assert turned_away(bans, now=60.0) is None
    assert (len(bans), bans.refused) == (0, 2)


def test_the_answer_is_429() -> None:
    """For the time being, as clients know it."""
    assert (Blocked.status, Blocked.code, Blocked.reason, Blocked.origin) == (429, 429, "blocked", "client")


def test_an_ipv6_client_is_its_network_and_a_mapped_address_is_what_it_maps() -> None:
    """Changing the lower half of the address does not help."""
    bans = guilty(blocking(), "2001:db8:1:2::1")
    assert turned_away(bans, "2001:db8:1:2:ffff::7") == {"Retry-After": "60"}
    assert turned_away(bans, "2001:db8:1:3::1") is None
    bans = guilty(blocking(), "::ffff:192.0.2.1")
    assert turned_away(bans, WHO) and turned_away(bans, "::ffff:192.0.2.1")
    assert turned_away(bans, "local") is None


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (UnknownCredential("an unknown credential"), "bad_key"),
        (errors.Unauthorized("a wrong secret"), "bad_key"),
        (errors.NoRoute("no server"), "unknown_route"),
        (errors.SessionGone("cannot be opened"), "session_guess"),
        (errors.HeaderMismatch("Mcp-Name"), "header_mismatch"),
        (errors.ParseError(), "parse_error"),
        (errors.InvalidRequest(), "parse_error"),
        (errors.BadRequest(), "parse_error"),
        (errors.RateLimited("r"), "flood"),
        (errors.SessionGone("server is gone"), None),
        (errors.SessionGone("server cannot be reached"), None),
        (errors.RegistryUnavailable(), None),
        (errors.Forbidden(), None),
        (errors.TooManyStreams("r"), None),
        (errors.RequestTimeout(), None),
        (errors.UpstreamFailed(), None),
        (Blocked(), None),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, Exception) else None,
)
def test_a_refusal_counts_as_what_it_says_of_the_client(refusal: errors.Refusal, kind: str | None) -> None:
    """Or as nothing, when the client is not at fault."""
    weights = dict.fromkeys(KINDS, 1.0)
    bans = blocking(weights=weights)
    bans.note(refusal, WHO, 0.0)
    assert bans.take_offences(10) == ([(WHO, 1.0, kind)] if kind else [])
    assert set(VIOLATIONS.values()) == set(KINDS)


def test_the_details_that_are_no_violation_are_those_that_the_phases_give() -> None:
    """A change of words there would make offenders of the innocent."""
    sources = [path.read_text() for path in (ROOT / "proxy/dataplane").glob("*.py") if path.name != "bans.py"]
    assert all(any(f'"{detail}"' in source for source in sources) for detail in INNOCENT)


def test_who_shows_no_credential_is_asked_for_one_and_not_blamed() -> None:
    """401 is how clients learn that they have to sign in."""
    config = configuration(auth={"anonymous": False}, postgres={"dsn": "postgresql://db/x"})
    admission = AdmissionBuilder(lambda _: RING, Freshness(True)).build(config, {})
    bans = blocking()
    for fields, count in (("", 0), ("X-API-Key: guessed\r\n", 1), ("Authorization: Basic dTpw\r\n", 0)):
        ctx = RequestContext(Client(f"GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode(), peer=WHO), SNAPSHOT, 0.0)
        with pytest.raises(errors.Unauthorized) as caught:
            authenticate(ctx, admission, 0.0)
        bans.note(caught.value, ctx.client_ip, 0.0)
        assert len(bans.take_offences(10)) == count


def test_looking_for_discovery_documents_is_no_violation() -> None:
    """Clients of the protocol do that by themselves wherever they connect."""
    bans = blocking()
    bans.note(errors.NoRoute(), WHO, 0.0, "/.well-known/oauth-protected-resource/a/mcp")
    assert not bans.take_offences(10)
    bans.note(errors.NoRoute(), WHO, 0.0, "/wp-login.php")
    assert bans.take_offences(10) == [(WHO, 0.5, "unknown_route")]


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "10.1.2.3", "198.51.100.9", "2001:db8:9::1", "local"])
def test_this_machine_trusted_proxies_and_allowed_networks_are_never_blocked(ip: str) -> None:
    """Not by themselves, and not by another replica that was configured otherwise."""
    config = configuration(
        listen={"trusted_proxies": ["10.0.0.0/8"]},
        limits={"blocking": {"threshold": 10, "allow": ["198.51.100.0/24", "2001:db8:9::/48"]}},
    )
    bans = guilty(Bans(policy_of(config), sharing=True), ip)
    assert turned_away(bans, ip) is None
    assert not bans.take_offences(10)
    bans.put(Ban(module.subject_of(ip) or "", 60.0, "bad_key"), 0.0)
    assert turned_away(bans, ip) is None


def test_one_address_of_a_network_may_be_allowed_alone() -> None:
    """The others of its /64 are blocked together."""
    bans = guilty(blocking(allow=["2001:db8:1:2::7"]), "2001:db8:1:2::8")
    assert turned_away(bans, "2001:db8:1:2::7") is None
    assert turned_away(bans, "2001:db8:1:2::9") is not None


@pytest.mark.parametrize("limits", [None, {"blocking": {"enabled": False}}])
def test_without_limits_nothing_is_counted_but_an_operator_s_ban_holds(limits: Any) -> None:
    """Blocking by hand needs no threshold."""
    bans = guilty(Bans(policy_of(configuration(limits=limits))))
    assert turned_away(bans) is None
    assert bans.put(Ban(WHO, 60.0, "operator"), 0.0)
    assert turned_away(bans) == {"Retry-After": "60"}


def test_behind_a_trusted_proxy_it_is_the_client_that_is_turned_away() -> None:
    """Another client of the same proxy passes, and so does the proxy itself."""
    config = configuration(listen={"trusted_proxies": ["10.0.0.0/8"]}, limits={"blocking": {"threshold": 10}})
    admission = AdmissionBuilder(lambda _: RING, Freshness()).build(config, {})
    bans = guilty(Bans(policy_of(config)))
    for forwarded, blocked in ((WHO, True), (OTHER, False), ("10.0.0.9", False)):
        head = f"GET /up/mcp HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {forwarded}\r\n\r\n".encode()
        ctx = RequestContext(Client(head, peer="10.0.0.1"), SNAPSHOT, 1.0)
        if blocked:
            with pytest.raises(Blocked):
                turn_away(ctx, admission, bans)
        else:
            turn_away(ctx, admission, bans)
        assert ctx.client_ip == forwarded


def test_a_reload_frees_whom_it_spares() -> None:
    """At once; the others stay blocked."""
    bans = guilty(guilty(blocking()), OTHER)
    bans.configure(policy_of(configuration(limits={"blocking": {"allow": [WHO]}})))
    assert turned_away(bans) is None
    assert turned_away(bans, OTHER) is not None


def test_what_is_decided_here_waits_to_be_told_once() -> None:
    """Bans, and violations by address, those of spared and blocked addresses left out."""
    bans = guilty(blocking())
    bans.note(KEY, WHO, 1.0)
    bans.note(errors.ParseError(), OTHER, 1.0)
    (ban,) = bans.take_made()
    assert (ban.subject, ban.until, ban.kind, ban.times, ban.told) == (WHO, 60.0, "bad_key", 1, False)
    assert bans.take_offences(1) == [(WHO, 10.0, "bad_key")]
    assert bans.take_offences(9) == [(OTHER, 0.5, "parse_error")]
    assert not bans.take_made() and not bans.take_offences(9)


def test_alone_nothing_waits_to_be_told_to_replicas() -> None:
    """There are none."""
    bans = guilty(Bans(policy_of(configuration(limits={"blocking": {"threshold": 10}}))))
    assert bans.take_made() and not bans.take_offences(9)


def test_a_ban_from_elsewhere_takes_the_place_of_what_was_known() -> None:
    """Its repetitions count here, too; who is lifted begins anew."""
    bans = guilty(blocking())
    assert bans.put(Ban(WHO, 240.0, "bad_key", times=3), 0.0)
    assert turned_away(bans) == {"Retry-After": "240"}
    assert turned_away(bans, now=240.0) is None
    guilty(bans, now=240.0)
    assert turned_away(bans, now=240.0) == {"Retry-After": "480"}
    bans.lift(WHO)
    assert turned_away(bans, now=240.0) is None
    assert turned_away(guilty(bans, now=240.0), now=240.0) == {"Retry-After": "60"}


def test_bans_that_ended_are_dropped() -> None:
    """Also those of addresses that never came back."""
    bans = guilty(guilty(blocking()), OTHER, now=30.0)
    assert {ban.subject for ban in bans.active(59.0)} == {WHO, OTHER}
    assert [ban.subject for ban in bans.active(61.0)] == [OTHER]
    assert len(bans) == 1
    assert bans.get(WHO) is None and bans.get(OTHER) is not None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ban goes, violations wait for few addresses; both are counted."""
    monkeypatch.setattr(module, "MOST_BLOCKED", 2)
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    bans = blocking()
    for number in range(1, 4):
        guilty(bans, f"192.0.2.{number}")
    assert [turned_away(bans, f"192.0.2.{number}") is None for number in range(1, 4)] == [True, False, False]
    assert (bans.forgotten, bans.unshared, len(bans.take_made()), len(bans.take_offences(9))) == (1, 10, 2, 2)


def test_turning_away_costs_microseconds() -> None:
    """A refused request of a blocked address: check, exception and field; one of others: a look-up."""
    bans = guilty(blocking())
    best = {WHO: 1.0, OTHER: 1.0}
    for ip in (WHO, OTHER) * 5:
        began = time.perf_counter()
        for _ in range(1000):
            turned_away(bans, ip)
        best[ip] = min(best[ip], (time.perf_counter() - began) / 1000)
    traced = sys.gettrace() is not None  # each line that coverage counts costs as much as it does
    assert best[WHO] < (50e-6 if traced else 5e-6)
    assert best[OTHER] < (10e-6 if traced else 2e-6)
