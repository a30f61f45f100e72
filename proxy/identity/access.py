"""May this principal send this message to this server, now?

Owns the rows of `server_access_control` and the order of the answers:

    1  the server belongs to another tenant              404, the same as for a server that does not exist
    2  scope `proxy`, then the scope of the message      403
    3  servers and tools that the credential names       403
    4  the first rule that fits decides: higher          403, if it denies
       priorities first, of equal ones those that deny
    5  no rule fits, but some allow the server to others 403: a rule that allows closes the server to the rest

A rule with tools concerns calls of these tools; one without concerns everything of its server. A rule that allows some
tools also allows what is no call: the handshake and the lists. It knows no route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from math import inf
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from proxy.errors import Forbidden, NoRoute
from proxy.identity.patterns import Names, is_pattern
from proxy.identity.principal import SCOPE_OF, Principal, Scope, Source
from proxy.identity.records import SYSTEM_TENANT, AccessRule
from proxy.mcp.envelope import Message
from proxy.mcp.methods import METHODS, Access

#: `target_kind` of a message that is aimed at a tool.
TOOL: Final = "tool"
_EVERY_DAY: Final = frozenset(range(1, 8))


@dataclass(frozen=True, slots=True)
class Server:
    """What access asks about a server."""

    name: str
    id: str = ""
    """Id of its row; '' for one of the configuration file."""
    tenant: str = SYSTEM_TENANT
    """Id of the tenant it belongs to; servers of the system tenant are everyone's."""


class AccessControl:
    """The rules of all tenants, filed by server; made once per change, never changed."""

    __slots__ = ("_rules",)

    def __init__(self, records: Iterable[AccessRule] = ()) -> None:
        #: (tenant, id of the server or '' for all) -> rules in the order in which they are asked
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        for record in records:
            if record.is_enabled:
                self._rules.setdefault((record.tenant_id, record.server_id), []).append(Rule(record))
        for rules in self._rules.values():
            rules.sort(key=_order)

    def authorize(self, principal: Principal, server: Server, message: Message | None, now: float) -> None:
        """Raise unless the message may be sent. `message`: None for a request without one (a stream, the end of a
        session); a batch asks once for each. `now`: seconds since 1970. Raises NoRoute or Forbidden.
        """
        if server.tenant not in (principal.tenant, SYSTEM_TENANT):
            raise NoRoute("a server of another tenant")
        if Scope.PROXY not in principal.scopes:
            raise Forbidden("without the scope proxy")
        tool = None
        if message is not None:
            needed = SCOPE_OF[message.access]
            if needed is not None and needed not in principal.scopes:
                raise Forbidden("without the scope of the message")
            if message.target_kind == TOOL:
                tool = message.target
            elif message.access is Access.EXECUTE and message.method not in METHODS:
                tool = ""  # nobody knows what it runs: whoever is limited to some tools may not
        self._check(principal, server, tool, now)

    def may_use(self, principal: Principal, server: Server, kind: str, name: str, now: float) -> bool:
        """Whether an item of a list (`list_filter.Keep`) is of use to a principal: tools need more than reading."""
        is_tool = kind == TOOL
        if (Scope.WRITE if is_tool else Scope.READ) not in principal.scopes:
            return False
        try:
            self._check(principal, server, name if is_tool else None, now)
        except Forbidden:
            return False
        return True

    def _check(self, principal: Principal, server: Server, tool: str | None, now: float) -> None:
        """`tool`: None for a message that calls nothing; '' for a call of nobody knows what, which fits `*` alone."""
        allowed = principal.allowed
        if not (allowed.server(server.name) if tool is None else allowed.tool(server.name, tool)):
            raise Forbidden("a server or tool that the credential does not name")
        closed = False
        for rule in self._rules_of(principal, server):
            if rule.fits(tool) and rule.concerns(principal, now):
                if rule.allows:
                    return
                raise Forbidden("a rule denies")
            closed = closed or rule.allows
        if closed:
            raise Forbidden("no rule allows")

    def _rules_of(self, principal: Principal, server: Server) -> Sequence[Rule]:
        """The rules for this server, for all servers of the principal's tenant, and for all servers of all."""
        if not self._rules:
            return ()
        places = {(principal.tenant, ""), (SYSTEM_TENANT, "")}
        if server.id:
            places.add((server.tenant, server.id))
        found = [rules for place in places if (rules := self._rules.get(place))]
        return found[0] if len(found) == 1 else sorted((rule for rules in found for rule in rules), key=_order)


class Rule:
    """One row, ready to be asked. A row that cannot be read denies: it was made to limit something."""

    __slots__ = ("_not_after", "_not_before", "_subject", "_tools", "_type", "_window", "allows", "priority")

    def __init__(self, record: AccessRule) -> None:
        self.allows = record.effect == "allow"
        self.priority = record.priority
        readable = self.allows or all(map(is_pattern, record.tools))
        self._tools = Names(record.tools) if record.tools and readable else None
        self._type = record.subject_type
        self._subject = record.subject_id
        self._not_before = -inf if record.valid_from is None else record.valid_from.timestamp()
        self._not_after = inf if record.valid_until is None else record.valid_until.timestamp()
        self._window: DayWindow | None = None
        if record.daily_from or record.daily_until or record.days_of_week:
            try:
                self._window = DayWindow(record)
            except (ValueError, OSError, ZoneInfoNotFoundError):  # all three mean no zone
                self._not_after = -inf if self.allows else inf

    def fits(self, tool: str | None) -> bool:
        """Whether the rule is about this call, or, for None, about what is no call."""
        if self._tools is None:
            return True
        return self.allows if tool is None else tool in self._tools

    def concerns(self, principal: Principal, now: float) -> bool:
        """Whether the rule is about this principal at this moment."""
        return (
            self._is_about(principal)
            and self._not_before <= now < self._not_after
            and (self._window is None or self._window.holds(now))
        )

    def _is_about(self, principal: Principal) -> bool:
        match self._type:
            case "everyone":
                return True
            case "role":
                return self._subject in principal.roles
            case "user":
                return self._subject == principal.user
            case "api_key":
                return self._subject == principal.key_id
            case "anonymous":
                return principal.source is Source.ANONYMOUS
        return not self.allows


class DayWindow:
    """Hours of the day, in a time zone, on some days of the week."""

    __slots__ = ("_days", "_end", "_start", "_zone")

    def __init__(self, record: AccessRule) -> None:
        """Raises ValueError for hours and days that are none, and what ZoneInfo raises for a zone."""
        self._start = time.fromisoformat(record.daily_from) if record.daily_from else time.min
        #: None: midnight at the end of the day.
        self._end = time.fromisoformat(record.daily_until) if record.daily_until else None
        self._days = frozenset(record.days_of_week) or _EVERY_DAY
        self._zone = ZoneInfo(record.time_zone)
        if self._start == self._end or not self._days <= _EVERY_DAY:
            raise ValueError("an empty window, or a day that is none")

    def holds(self, now: float) -> bool:
        """Whether a moment (seconds since 1970) lies in the window. After midnight it is still the day it began on."""
        moment = datetime.fromtimestamp(now, UTC).astimezone(self._zone)
        at = moment.time()
        if self._end is None or self._start < self._end:
            return self._start <= at and (self._end is None or at < self._end) and moment.isoweekday() in self._days
        if at >= self._start:
            return moment.isoweekday() in self._days
        return at < self._end and (moment - timedelta(days=1)).isoweekday() in self._days


def _order(rule: Rule) -> tuple[int, bool]:
    """Higher priorities first; of equal ones those that deny."""
    return -rule.priority, rule.allows
