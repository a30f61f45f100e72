"""Puts maintenance windows in force, once a second: `upstream.window` of every server that is in one, and of those that
it replaced, for as long as it is, and the end of what still runs there when the drain is over.

Owns when. What a window is, and where requests go meanwhile, is `dataplane/maintenance.py`'s. Streams and tunnels are
ended, since they have no end of their own; a request that waits for its answer is left to its own deadlines: it is cut
only by who stops the server. So do others: a server in maintenance of HAProxy keeps the connections that it has unless
told otherwise, and Envoy lets requests of a removed host finish.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from proxy.dataplane.maintenance import Active, Schedule, schedule_of
from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from proxy.dataplane.snapshot import Live, Snapshot
    from proxy.dataplane.streams import Streams
    from proxy.identity.access import Server as Place

#: How often `step` is called, seconds.
STEP_S: Final = 1.0
#: So long may a stream still take to come to the end of its event.
_LAST_EVENT_S: Final = 5.0
#: Problems of rows that are told one by one.
_MOST_TOLD: Final = 20

Rows = Callable[[], Mapping[str, Any]]
"""Gives the rows of `maintenance_windows` by id: the same object for as long as none changed."""


class Tell(Protocol):
    """Takes what happened, for the log and `system_events`: `Observing.event` is one."""

    def __call__(
        self,
        tenant: str,
        kind: str,
        severity: Literal["info", "warning"],
        component: str,
        message: str,
        details: Mapping[str, Any],
    ) -> object:
        """`tenant`: an id."""


class Maintenance:
    """The step, and the servers that are in a window."""

    def __init__(self, live: Live, streams: Streams, rows: Rows, tell: Tell, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since 1970."""
        self._live = live
        self._streams = streams
        self._rows = rows
        self._tell = tell
        self._wall = wall
        self._schedule = Schedule({})
        #: What the schedule was made of.
        self._snapshot: Snapshot | None = None
        self._known: Mapping[str, Any] = {}
        #: Servers in a window, by full name: what was told of.
        self._under: dict[str, tuple[Place, Active]] = {}

    @property
    def active(self) -> Mapping[str, Active]:
        """The servers that are in a window, by full name."""
        return {name: window for name, (_, window) in self._under.items()}

    def step(self) -> None:
        """Look at the clock. Costs what windows there are, nothing for servers without one; also to be called when a
        snapshot was put in force: servers that are new in it know of no window."""
        now = self._wall()
        snapshot = self._live.snapshot
        self._plan(snapshot, self._rows())
        active = self._schedule.active(datetime.fromtimestamp(now, UTC))
        if active or self._under:
            self._put(snapshot, active, now)
            self._end_what_runs(now)

    def _plan(self, snapshot: Snapshot, rows: Mapping[str, Any]) -> None:
        if snapshot is self._snapshot and rows is self._known:
            return
        self._snapshot, self._known = snapshot, rows
        before = self._schedule.problems
        planned = bool(rows or snapshot.config.maintenance)
        places = {name: upstream.place for name, upstream in snapshot.upstreams.items()} if planned else {}
        self._schedule = schedule_of(snapshot.config, rows.values(), places)
        if self._schedule.problems != before:
            self._tell_problems(self._schedule.problems)

    def _put(self, snapshot: Snapshot, active: Mapping[str, Active], now: float) -> None:
        over = [name for name in self._under if name not in active]
        for name, planned in active.items():
            place, known = snapshot.upstreams[name].place, self._under.get(name)
            window = planned if known is None else _still_drained(known[1], planned, now)
            for upstream in self._live.named(name):
                upstream.window = window
            self._under[name] = place, window
            if known is None:
                self._tell_change("begin", name, place, window)
        for name in over:
            place, window = self._under.pop(name)
            for upstream in self._live.named(name) if name in snapshot.upstreams else ():
                upstream.window = None
            self._tell_change("end", name, place, window)

    def _end_what_runs(self, now: float) -> None:
        drained = self._over_since(now)
        if drained:
            self._streams.end_of(drained)
            late = self._over_since(now - _LAST_EVENT_S)
            if late:
                self._streams.end_of(late, at_once=True)

    def _over_since(self, moment: float) -> set[str]:
        return {name for name, (_, window) in self._under.items() if window.drain_until <= moment}

    def _tell_change(self, what: Literal["begin", "end"], name: str, place: Place, window: Active) -> None:
        message = "maintenance of a server began" if what == "begin" else "maintenance of a server is over"
        until = datetime.fromtimestamp(window.until, UTC).isoformat()
        details = {"server": name, "server_id": place.id, "title": window.title, "until": until}
        self._tell(place.tenant, f"maintenance_{what}", "info", "maintenance", message, details)

    def _tell_problems(self, problems: tuple[str, ...]) -> None:
        """None any more, too, when they were mended."""
        message = "maintenance windows are left out" if problems else "no maintenance window is left out any more"
        details = {"problems": list(problems[:_MOST_TOLD]), "all": len(problems)}
        self._tell(SYSTEM_TENANT, "maintenance_unusable", "warning", "maintenance", message, details)


def _still_drained(before: Active, planned: Active, now: float) -> Active:
    """What was drained already stays so: a window that adjoins, or is prolonged, lets nothing in again."""
    if before.drain_until <= now < planned.drain_until:
        return planned._replace(drain_until=before.drain_until)
    return planned
