"""Writes to PostgreSQL, beside the requests, what went wrong and what looked like an attack.

Owns which refusal is an error and which a security event, what counts as the same, and what waits to be written. The
same within a minute is one row with its number; so a client that fails a thousand times in a second costs a thousand
look-ups and one row. While PostgreSQL is away rows wait; those for which there is no room are counted. Rows hold fixed
words, names of servers and places in the source: never input of a client, never a value of a variable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from proxy.dataplane.bans import INNOCENT
from proxy.metrics import Family
from proxy.store.database import Unavailable
from proxy.store.failures import write_usable
from proxy.store.incidents import MOST_ROWS, ErrorRow, add_errors
from proxy.store.observations import patient
from proxy.store.violations import SecurityEvent, add_events

if TYPE_CHECKING:
    from types import TracebackType

    from proxy.dataplane.context import RequestContext
    from proxy.errors import Refusal
    from proxy.identity.uuid7 import RecordIds
    from proxy.store.database import Database, Session

EventSeverity = Literal["low", "medium", "high", "critical"]
ErrorSeverity = Literal["warning", "error", "critical"]
_Known = tuple[str, str, str, str]
"""Kind, tenant, and what else makes it the same."""

#: How often `step` is called, seconds.
STEP_S: Final = 5.0
_MINUTE_S: Final = 60
#: Rows that wait, of both kinds: some megabytes.
_MOST_WAITING: Final = 10_000
#: Rows that are written in one step.
_MOST_AT_ONCE: Final = 5_000
#: Frames of a stack, the innermost, and parts of the path of each.
_FRAMES: Final = 30
_PARTS: Final = 3
#: Where clients look for discovery documents by themselves (RFC 8414, RFC 9728).
_DISCOVERY: Final = "/.well-known/"

#: Reason of a refusal -> kind of event, severity, description. Floods have rows of their own (`violation_log.py`).
SECURITY: Final[Mapping[str, tuple[str, EventSeverity, str]]] = MappingProxyType(
    {
        "unauthorized": ("bad_key", "medium", "a credential that is not accepted"),
        "forbidden": ("forbidden", "medium", "use of what the principal may not use"),
        "host_not_allowed": ("foreign_host", "high", "a host that is not served here, as in DNS rebinding"),
        "origin_not_allowed": ("foreign_origin", "high", "a web page that may not call"),
        "header_mismatch": ("header_mismatch", "high", "headers that contradict the body"),
        "session_gone": ("session_guess", "low", "a session that is not known"),
        "no_route": ("unknown_route", "low", "a path that is not served"),
        "bad_request": ("parse_error", "low", "a request that breaks the grammar"),
        "transfer_coding": ("parse_error", "medium", "a transfer coding that hides where the body ends"),
        "invalid_request": ("parse_error", "low", "a message that can be read in two ways, or in none"),
        "parse_error": ("parse_error", "low", "a body that is not JSON"),
    }
)
#: Reason of a refusal that is no client's fault -> severity. Bugs are told apart (`bug`).
ERRORS: Final[Mapping[str, ErrorSeverity]] = MappingProxyType(
    {
        "unrecorded": "critical", "connect_failed": "error", "upstream_failed": "error", "upstream_timeout": "error",
        "no_server": "error", "registry_unavailable": "error", "circuit_open": "warning", "pool_exhausted": "warning",
        "queue_full": "warning", "queue_timeout": "warning", "shed": "warning", "overloaded": "warning",
    }
)  # fmt: skip


@dataclass(slots=True)
class _Group:
    """What is the same within a minute: the row of the first, and how many there were."""

    row: ErrorRow | SecurityEvent
    count: int = 1
    last_at: float = 0.0


class Incidents:
    """What is told here is written when the minute is over."""

    def __init__(
        self, database: Database | None, ids: RecordIds, wall: Callable[[], float], instance: str = ""
    ) -> None:
        """`wall` gives seconds since 1970; `instance` names this process in its rows. Without a database there are no
        rows."""
        #: Rows that were written, those for which there was no room, and those that PostgreSQL did not take.
        self.written = self.dropped = self.refused = 0
        self._database = database
        self._ids = ids
        self._wall = wall
        self._instance = instance
        #: Minute and what makes it the same -> group, in the order of time.
        self._groups: dict[tuple[int, _Known], _Group] = {}

    @property
    def waiting(self) -> int:
        """Rows that are not written yet, those of the current minute among them."""
        return len(self._groups)

    # --- being told -----------------------------------------------------------------------------------------------

    def noted(self, ctx: RequestContext, refusal: Refusal) -> None:
        """A request was refused. 1 µs for one like others in this minute, 6 for a row, nothing for an everyday one."""
        if self._database is None:
            return
        reason, tenant = refusal.reason, ctx.principal.tenant
        security = SECURITY.get(reason)
        if security is not None:
            if refusal.detail in INNOCENT or (reason == "no_route" and ctx.path.startswith(_DISCOVERY)):
                return
            kind, severity, description = security
            known = (kind, tenant, ctx.client_ip, ctx.principal.id)
            self._event(known, severity, description, (ctx.client_ip, ctx.principal.id, ctx.id), {"reason": reason})
        elif (level := ERRORS.get(reason)) is not None:
            server = ctx.upstream.name if ctx.upstream is not None else ""
            known = (reason, tenant, server, "")
            if not self._again(known):
                message = f"{refusal.message} ({server})" if server else refusal.message
                self._error(known, level, ("dataplane", reason, message, _fingerprint(reason, server), ""), ctx.id)

    def refused_early(self, refusal: Refusal, peer: str) -> None:
        """What is no request yet was refused; nothing is known but who sent it."""
        security = SECURITY.get(refusal.reason)
        if self._database is not None and security is not None:
            kind, severity, description = security
            self._event((kind, "", peer, ""), severity, description, (peer, "", ""), {"reason": refusal.reason})

    def risky(self, ctx: RequestContext, level: str, reasons: tuple[str, ...]) -> None:
        """A call was rated; those that are `high` or `critical` are events."""
        if self._database is None or (level != "high" and level != "critical"):
            return
        words = ",".join(reasons)
        known = ("risky_call", ctx.principal.tenant, ctx.client_ip, f"{ctx.principal.id} {level} {words}")
        severity: EventSeverity = "critical" if level == "critical" else "high"
        who = (ctx.client_ip, ctx.principal.id, ctx.id)
        self._event(known, severity, "a call that the rules rate as risky", who, {"reasons": words})

    def bug(self, ctx: RequestContext, bug: BaseException) -> None:
        """A request failed by a bug of ours."""
        self.failed("dataplane", bug, ctx.principal.tenant, ctx.id)

    def failed(self, component: str, error: BaseException | str, tenant: str = "", request_id: str = "") -> None:
        """Something of ours failed: a loop, a task, a record. An error is known by its class and where it was raised;
        of a text it is said that it is one of ours."""
        if self._database is None:
            return
        stack: tuple[str, ...] = ()
        kind, message = "failure", str(error)
        if isinstance(error, BaseException):
            kind, stack = type(error).__name__, _frames(error.__traceback__)
            message = f"{kind} in {component}"
        fingerprint = _fingerprint(component, kind, *(frame.partition(":")[0] for frame in stack))
        known = (component, tenant, fingerprint, "")
        if not self._again(known):
            self._error(known, "critical", (component, kind, message, fingerprint, "\n".join(stack)), request_id)

    # --- grouping -------------------------------------------------------------------------------------------------

    def _again(self, known: _Known) -> bool:
        """Whether there is a row of this already, which counts one more then; or no room for one."""
        now = self._wall()
        group = self._groups.get((int(now) // _MINUTE_S, known))
        if group is not None:
            group.count += 1
            group.last_at = now
            return True
        if len(self._groups) >= _MOST_WAITING:
            self.dropped += 1
            return True
        return False

    def _event(
        self, known: _Known, severity: EventSeverity, description: str, who: tuple[str, str, str], facts: dict[str, Any]
    ) -> None:
        """`who`: address, principal and name of the request."""
        if self._again(known):
            return
        now = self._wall()
        row = SecurityEvent(
            self._ids.new(), now, known[0], severity, who[0], description, action="logged", details=facts,
            tenant=known[1], instance=self._instance, principal=who[1], request_id=who[2],
        )  # fmt: skip
        self._groups[int(now) // _MINUTE_S, known] = _Group(row, 1, now)

    def _error(
        self, known: _Known, severity: ErrorSeverity, said: tuple[str, str, str, str, str], request_id: str
    ) -> None:
        """`said`: component, class, message, fingerprint and stack."""
        now = self._wall()
        row = ErrorRow(self._ids.new(), now, known[1], severity, *said, {}, request_id, self._instance)
        self._groups[int(now) // _MINUTE_S, known] = _Group(row, 1, now)

    # --- writing --------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Write what is known of the minutes that are over. Quiet while PostgreSQL is away."""
        await self._write(int(self._wall()) // _MINUTE_S)

    async def finish(self) -> None:
        """Write the rest, at the end. Quiet while PostgreSQL is away."""
        await self._write(None)

    async def _write(self, current: int | None) -> None:
        if self._database is None:
            return
        database = self._database

        async def write(rows: Sequence[ErrorRow | SecurityEvent]) -> None:
            async with patient(database.audit()) as session:
                await _add(session, rows)

        due = [key for key in islice(self._groups, _MOST_AT_ONCE) if key[0] != current]
        with suppress(Unavailable):
            for start in range(0, len(due), MOST_ROWS):
                keys = due[start : start + MOST_ROWS]
                refused = await write_usable([_row(self._groups[key]) for key in keys], write)
                self.written += len(keys) - refused
                self.refused += refused
                for key in keys:
                    self._groups.pop(key, None)


async def _add(session: Session, rows: Sequence[ErrorRow | SecurityEvent]) -> None:
    errors = [row for row in rows if isinstance(row, ErrorRow)]
    events = [row for row in rows if isinstance(row, SecurityEvent)]
    if errors:
        await add_errors(session, errors)
    if events:
        await add_events(session, events)


def _row(group: _Group) -> ErrorRow | SecurityEvent:
    """With what is known by now."""
    facts = {"count": group.count, "last": datetime.fromtimestamp(group.last_at, UTC).isoformat()}
    row = group.row
    if isinstance(row, ErrorRow):
        return row._replace(context={**row.context, **facts})
    return replace(row, details={**row.details, **facts})


def _fingerprint(*parts: str) -> str:
    return sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _frames(trace: TracebackType | None) -> tuple[str, ...]:
    """Where it happened, the innermost last: file, function and line, and nothing of what was in the variables."""
    frames: deque[str] = deque(maxlen=_FRAMES)
    while trace is not None:
        code = trace.tb_frame.f_code
        place = "/".join(PurePath(code.co_filename).parts[-_PARTS:])
        frames.append(f"{place} {code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return tuple(frames)


def families(incidents: Incidents) -> Iterator[Family]:
    """What the log of incidents does, as metrics."""
    for kind, name, purpose, value in (
        ("gauge", "incident_rows_waiting", "Rows of errors and security events not written yet", incidents.waiting),
        ("counter", "incident_rows_written", "Rows of errors and security events written", incidents.written),
        ("counter", "incident_rows_dropped", "Rows of errors and security events without room", incidents.dropped),
        ("counter", "incident_rows_refused", "Rows that PostgreSQL did not take", incidents.refused),
    ):
        yield Family(kind, f"mcp_proxy_{name}", purpose, (("", float(value)),))
