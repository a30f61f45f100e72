"""Rules of `performance_alerts`, and `alert_events`: each time that one of them, or of the configuration, fired.

Owns the statements. Rules are read in a snapshot of the registry; what happened is written as the tenant that owns it,
and tidied up by the admin plane. A row of `performance_alerts` fires while some instance that is alive says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from proxy.store import tenants
from proxy.store.failures import LATER, told_apart
from proxy.store.observations import plain
from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rules of one tenant, and of all, that are evaluated; the oldest first.
_MOST_OF_TENANT: Final = 100
_MOST_ROWS: Final = 2000
#: Episodes of one statement.
MOST_EPISODES: Final = 500
#: An instance that has said nothing of an episode for so long is gone.
_GONE: Final = "5 minutes"
#: So long what happened is kept.
_KEPT: Final = "90 days"


class AlertRow(NamedTuple):
    """A rule of a tenant; fields stand in the order of the statement's columns. Times in seconds."""

    id: str
    tenant_id: str
    owner: str
    """The tenant's short name."""
    server_id: str | None
    name: str
    metric: str
    comparison: str
    threshold: float
    clear_threshold: float | None
    window_s: int
    for_s: int
    keep_firing_s: int
    cooldown_s: int
    min_requests: int
    severity: str
    channels: tuple[str, ...]
    """Entries that are texts."""


class EpisodeRow(NamedTuple):
    """One time that an alert fired; fields stand in the order of the statement's columns."""

    id: UUID
    alert_id: str | None
    name: str
    instance: str
    server: str | None
    metric: str
    comparison: str
    threshold: float
    value: float
    severity: str
    started_at: datetime
    resolved_at: datetime | None
    ended: str | None


_READ: Final = f"""/* alerts.read */ SELECT id::text, tenant_id::text, slug, server_id::text, name, metric, comparison,
        threshold, clear_threshold, window_s, for_s, keep_firing_s, cooldown_s, min_requests, severity,
        ARRAY (SELECT e #>> '{{}}' FROM jsonb_array_elements(channels) AS e WHERE jsonb_typeof(e) = 'string' LIMIT 20)
    FROM (
        SELECT a.*, t.slug, row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.created_at, a.id) AS number
        FROM performance_alerts AS a JOIN tenants AS t ON t.id = a.tenant_id WHERE a.is_enabled
    ) AS numbered WHERE number <= {_MOST_OF_TENANT} ORDER BY number, id LIMIT {_MOST_ROWS}"""  # noqa: S608 - our own
#: Whoever writes what an alert is has it to itself, so that the last of several instances sees that the others ended.
_LOCK: Final = """/* alerts.lock */ SELECT id FROM performance_alerts WHERE id = ANY ($1::uuid[])
    ORDER BY id FOR NO KEY UPDATE"""
_PUT: Final = """/* alerts.put */ INSERT INTO alert_events
        (tenant_id, seen_at, id, alert_id, name, instance, server, metric, comparison, threshold, value, severity,
         started_at, resolved_at, ended)
    SELECT current_setting('app.tenant')::uuid, now(), n.*
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[],
        $9::float8[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::text[]) AS n
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), value = excluded.value, threshold = excluded.threshold,
        severity = excluded.severity, resolved_at = excluded.resolved_at, ended = excluded.ended"""
_STATE: Final = "CASE WHEN NOT n.fires THEN 'ok' WHEN a.state = 'ok' THEN 'firing' ELSE a.state END"
_STATES: Final = f"""/* alerts.states */ UPDATE performance_alerts AS a
    SET state = {_STATE}, last_value = coalesce(n.value, a.last_value),
        last_triggered_at = coalesce(n.began, a.last_triggered_at)
    FROM (
        SELECT s.id, s.value, max(e.started_at) AS began,
            coalesce(bool_or(e.resolved_at IS NULL AND e.seen_at > now() - interval '{_GONE}'), false) AS fires
        FROM unnest($1::uuid[], $2::float8[]) AS s (id, value)
        LEFT JOIN alert_events AS e ON e.alert_id = s.id AND (e.resolved_at IS NULL OR e.id = ANY ($3::uuid[]))
        GROUP BY s.id, s.value
    ) AS n
    WHERE a.id = n.id AND (a.state <> {_STATE} OR a.last_value IS DISTINCT FROM coalesce(n.value, a.last_value)
        OR a.last_triggered_at IS DISTINCT FROM coalesce(n.began, a.last_triggered_at))"""  # noqa: S608 - our own


async def read_rules(session: Session) -> list[AlertRow]:
    """The rules of all tenants that are on. `session` is one of `Database.snapshot`. Raises Unavailable."""
    try:
        rows = await session.fetch(_READ)
    except LATER as error:
        raise Unavailable(type(error).__name__) from None
    return [AlertRow._make((*row[:-1], tuple(row[-1]))) for row in rows]


async def put(session: Session, episodes: Sequence[EpisodeRow], values: Mapping[str, float | None]) -> None:
    """Write what happened to alerts of the session's tenant, and by id of their rows the last values.

    An episode that is written again replaces what was said of it. Raises Unusable, Unavailable.
    """
    ids = sorted({*values, *(each.alert_id for each in episodes if each.alert_id is not None)})
    mended = [each._replace(name=plain(each.name), server=each.server and plain(each.server)) for each in episodes]
    with told_apart():
        if ids:
            await session.fetch(_LOCK, ids)
        for start in range(0, len(mended), MOST_EPISODES):
            await session.execute(_PUT, *zip(*mended[start : start + MOST_EPISODES], strict=True))
        if ids:
            await session.execute(_STATES, ids, [values.get(each) for each in ids], [each.id for each in episodes])


def moment(at: float | None) -> datetime | None:
    """A time of a row; `at`: seconds since 1970."""
    return None if at is None else datetime.fromtimestamp(at, UTC)


# --- the admin plane ------------------------------------------------------------------------------------------------

_LOST: Final = f"""/* alerts.lost */ UPDATE alert_events
    SET resolved_at = greatest(seen_at, started_at), ended = 'lost'
    WHERE resolved_at IS NULL AND seen_at < now() - interval '{_GONE}'"""  # noqa: S608 - names of our own
_QUIET: Final = """/* alerts.quiet */ UPDATE performance_alerts AS a SET state = 'ok'
    WHERE a.state <> 'ok' AND NOT EXISTS (SELECT FROM alert_events AS e WHERE e.alert_id = a.id
        AND e.resolved_at IS NULL)"""
_OLD: Final = f"""/* alerts.old */ DELETE FROM alert_events WHERE id IN (
    SELECT id FROM alert_events WHERE started_at < now() - interval '{_KEPT}' AND resolved_at IS NOT NULL
    LIMIT 5000)"""  # noqa: S608 - names of our own


async def tidy(session: Session) -> None:
    """End what instances left behind that are gone, and remove what is old. `session` is one of the admin plane.
    Raises Unavailable."""
    try:
        for statement in (_LOST, _QUIET, _OLD):
            await session.execute(statement)
    except LATER as error:
        raise Unavailable(type(error).__name__) from None


_LIST: Final = """/* alerts.list */ SELECT t.slug AS tenant, a.name, s.name AS server, a.metric, a.comparison,
        a.threshold, a.clear_threshold, a.window_s, a.for_s, a.keep_firing_s, a.cooldown_s, a.min_requests, a.severity,
        a.channels, a.state, a.last_value, a.last_triggered_at, a.is_enabled
    FROM performance_alerts AS a JOIN tenants AS t ON t.id = a.tenant_id
    LEFT JOIN mcp_servers AS s ON s.id = a.server_id
    WHERE $1::text IS NULL OR t.slug = $1 ORDER BY t.slug, a.name LIMIT 10000"""
_EVENTS: Final = """/* alerts.events */ SELECT t.slug AS tenant, e.name, e.server, e.instance, e.metric, e.comparison,
        e.threshold, e.value, e.severity, e.started_at, e.resolved_at, e.ended, e.id
    FROM alert_events AS e JOIN tenants AS t ON t.id = e.tenant_id
    WHERE ($1::text IS NULL OR t.slug = $1) AND ($2::boolean OR e.resolved_at IS NULL)
    ORDER BY e.started_at DESC, e.id DESC LIMIT $3"""


async def listed(session: Session, slug: str | None) -> list[dict[str, Any]]:
    """The rules of a tenant or, for None, of all; `session` is one of `accounts.administration`. Raises Rejected for no
    such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [dict(row) for row in await session.fetch(_LIST, slug)]


async def events(session: Session, slug: str | None, *, past: bool, most: int) -> list[dict[str, Any]]:
    """What fires, and with `past` what fired, the newest first. Raises as `listed`."""
    if slug is not None:
        await tenants.find(session, slug)
    return [dict(row) for row in await session.fetch(_EVENTS, slug, past, most)]
