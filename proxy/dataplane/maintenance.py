"""Times at which servers are not to be used: which of them are under way, until when, and what that means for requests.

Owns the windows of the configuration (`maintenance`) and of the registry (`maintenance_windows`). A row of a tenant
concerns one of its servers or, without one, all of them; such a row of the system tenant concerns all servers of
everyone. What is configured without a server concerns all servers of the configuration file. Windows that overlap or
adjoin are one: it ends with the last of them. Pure: who asks brings the time. Times are seconds since 1970.

A window has two parts. From its begin the server takes nothing new; what runs, and the sessions that it has, go on
until the drain is over. After that it gets nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from proxy.config.units import Recurrence
from proxy.dataplane.recurrence import Span, Window
from proxy.errors import Refusal, SessionGone, UnderMaintenance, retry_after
from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from proxy.config.models import Config, Maintenance
    from proxy.identity.access import Server as Place

#: Rows of which status count; the others are over, or were called off.
_IN_FORCE: Final = frozenset(("scheduled", "active"))
#: Adjoining windows are followed for so long: two that recur may adjoin for ever. Seconds.
_HORIZON_S: Final = 35 * 86400.0
_LONGEST_TITLE: Final = 200
_UNTITLED: Final = "maintenance"


class Active(NamedTuple):
    """The window that a server is in."""

    title: str
    until: float
    """Its end, with all windows that overlap and adjoin."""
    drain_until: float
    """When what runs is ended."""


class Maintained(Protocol):
    """A server, as far as maintenance concerns it: `upstream.Upstream` is one."""

    @property
    def window(self) -> Active | None:
        """The window that it is in."""


class Schedule:
    """All windows of all servers; one for each registry and configuration."""

    def __init__(self, windows_of: Mapping[str, Sequence[Window]], problems: Sequence[str] = ()) -> None:
        """`windows_of`: by the full name of the server."""
        #: One line for each row that cannot be used.
        self.problems = tuple(problems)
        groups: dict[tuple[int, ...], tuple[Sequence[Window], list[str]]] = {}
        for name, windows in windows_of.items():
            groups.setdefault(tuple(map(id, windows)), (windows, []))[1].append(name)
        #: Servers with the same windows, together.
        self._groups = tuple(groups.values())
        self._windows = tuple({id(each): each for windows in windows_of.values() for each in windows}.values())
        self._active: Mapping[str, Active] = {}
        self._holds = Span(inf, inf)

    def active(self, now: datetime) -> Mapping[str, Active]:
        """The servers, by full name, that are in a window. The same object until that changes: 0.5 µs."""
        moment = now.timestamp()
        if not self._holds.start <= moment < self._holds.end:
            self._active = {
                name: active
                for windows, names in self._groups
                if (active := _merged(windows, moment)) is not None
                for name in names
            }
            changes = [
                span.start if span.start > moment else span.end
                for window in self._windows
                if (span := window.at(moment)) is not None
            ]
            self._holds = Span(moment, min(changes, default=inf))
        return self._active


def schedule_of(config: Config, rows: Iterable[Any], servers: Mapping[str, Place]) -> Schedule:
    """The windows of a configuration and of the registry. `servers`: every server by its full name. 1 µs for each
    server, 5 for each row, and nothing for servers while there is no window."""
    filed = _Filed()
    for each in config.maintenance:
        window = configured_window(each)
        for name in (each.server,) if each.server else config.servers:
            filed.of_name.setdefault(name, []).append(window)
    problems: list[str] = []
    for row in rows:
        if row.status in _IN_FORCE:
            try:
                filed.add(row, window_of(row))
            except ValueError as error:
                problems.append(f"maintenance window {row.id}: {error}")
    windows_of = {name: own for name, place in servers.items() if (own := filed.windows(place))} if filed else {}
    return Schedule(windows_of, problems)


class _Filed:
    """Windows by the servers that they are about."""

    def __init__(self) -> None:
        self.of_name: dict[str, list[Window]] = {}
        """By name of a server of the configuration file."""
        self._of_row: dict[tuple[str, str | None], list[Window]] = {}
        """By tenant and id of the server's row, None for all of them."""
        self._of_everyone: list[Window] = []

    def __bool__(self) -> bool:
        return bool(self.of_name or self._of_row or self._of_everyone)

    def add(self, row: Any, window: Window) -> None:
        if row.tenant_id == SYSTEM_TENANT and row.server_id is None:
            self._of_everyone.append(window)
        else:
            self._of_row.setdefault((row.tenant_id, row.server_id), []).append(window)

    def windows(self, place: Place) -> list[Window]:
        of_name = self.of_name.get(place.name, ()) if place.tenant == SYSTEM_TENANT else ()
        of_row, of_all = self._of_row.get((place.tenant, place.id), ()), self._of_row.get((place.tenant, None), ())
        return [*self._of_everyone, *of_name, *of_row, *of_all]


def configured_window(given: Maintenance) -> Window:
    """The window of an entry of `maintenance` of the configuration."""
    if given.start is not None and given.end is not None:
        return Window(given.title, given.drain, Span(given.start.timestamp(), given.end.timestamp()))
    return Window(given.title, given.drain, Span(-inf, inf), given.every)


def window_of(row: Any) -> Window:
    """The window of a row of `maintenance_windows`, shaped as in `store/rows.py`. Raises ValueError with a sentence."""
    bounds = Span(row.starts_at.timestamp(), row.ends_at.timestamp())
    if bounds.start >= bounds.end:
        raise ValueError("left out: it ends before it begins")
    if not 0 <= row.drain_s < inf:
        raise ValueError("left out: drain_s is 0 or more")
    try:
        every = Recurrence.parse(row.recurrence) if row.recurrence is not None else None
    except ValueError as error:
        raise ValueError(f"left out: recurrence: {error}") from None
    return Window(row.title[:_LONGEST_TITLE] or _UNTITLED, row.drain_s, bounds, every)


def _merged(windows: Sequence[Window], moment: float) -> Active | None:
    """What the windows of one server make together; None when none is under way."""
    spans = [(window, span) for window in windows if (span := window.at(moment)) is not None and span.start <= moment]
    if not spans:
        return None
    last, until = max(((window, span.end) for window, span in spans), key=lambda pair: pair[1])
    until = _chained(windows, until, moment + _HORIZON_S)
    return Active(last.title, until, min(until, *(span.start + window.drain_s for window, span in spans)))


def _chained(windows: Sequence[Window], until: float, horizon: float) -> float:
    """The end of what begins before `until`, or right then, and so on."""
    while until < horizon:
        further = [span.end for each in windows if (span := each.find(until)) is not None and span.start <= until]
        if not further:
            break
        until = max(further)
    return until


# --- what it means for requests -------------------------------------------------------------------------------------


def takes_new(upstream: Maintained, now: float) -> bool:
    """Whether a request that is bound to no session may go there. 0.1 µs outside of windows."""
    window = upstream.window
    return window is None or now >= window.until


def takes_session(upstream: Maintained, now: float) -> bool:
    """Whether a request of a session that lives there may go there: also while the server is drained."""
    window = upstream.window
    return window is None or now < window.drain_until or now >= window.until


def takes(upstream: Maintained, now: float, *, of_session: bool) -> bool:
    """Whether a request may go there. `of_session`: of one that lives there."""
    return takes_session(upstream, now) if of_session else takes_new(upstream, now)


def refusal(actives: Iterable[Active], now: float) -> UnderMaintenance:
    """For a request that no server takes, all of which are in these windows: come back when the first is over."""
    first = min(actives, key=lambda active: active.until)
    return UnderMaintenance(first.title, headers=retry_after(first.until - now))


def session_refusal(active: Active, now: float, *, elsewhere: bool) -> Refusal:
    """For a request of a session whose server was drained. `elsewhere`: another server of the route takes new
    sessions, so the client is to begin anew, which 404 makes it do; it must not when there is none."""
    return SessionGone("server under maintenance") if elsewhere else refusal((active,), now)
