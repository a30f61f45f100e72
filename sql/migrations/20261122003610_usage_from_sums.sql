-- What tenants used is told from the sums of tenant_usage, whatever the number of requests. request_logs is asked for
-- what sums do not have: the moments of a time that are no whole minute, the last two or three minutes, whose sums may
-- not be written yet, and failures by status, from an index that has nothing else.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE OR REPLACE FUNCTION get_tenant_usage_summary(
    since timestamptz DEFAULT now() - interval '30 days', until timestamptz DEFAULT now()
) RETURNS TABLE (
    tenant_id uuid, tenant_slug text, servers bigint, members bigint, keys_in_force bigint,
    requests bigint, failed_requests bigint, bytes_in numeric, bytes_out numeric
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    WITH minutes AS (
        SELECT m.first, greatest(m.first, date_trunc('minute', least(until, now() - interval '2 minutes'), 'UTC')) AS last
        FROM (SELECT date_trunc('minute', since + interval '1 minute' - interval '1 microsecond', 'UTC')) AS m (first)
    ), edges AS (
        SELECT m.first, m.last,
               date_trunc('hour', m.first + interval '1 hour' - interval '1 microsecond', 'UTC') AS first_hour,
               date_trunc('hour', m.last, 'UTC') AS last_hour,
               date_trunc('day', m.first + interval '1 day' - interval '1 microsecond', 'UTC') AS first_day,
               date_trunc('day', m.last, 'UTC') AS last_day
        FROM minutes AS m
    ), spans AS (  -- whole days, then the hours and minutes that are left on either side
        SELECT s.* FROM edges AS e, LATERAL (VALUES
            ('day', e.first_day, e.last_day),
            ('hour', e.first_hour, least(e.first_day, e.last_hour)),
            ('hour', greatest(e.first_day, e.last_day), e.last_hour),
            ('minute', e.first, least(e.first_hour, e.last)),
            ('minute', greatest(e.first_hour, e.last_hour), e.last)) AS s (granularity, first, last)
        WHERE s.first < s.last
    ), counted AS (
        SELECT u.tenant_id, sum(u.quantity) FILTER (WHERE u.metric = 'requests') AS requests, 0::bigint AS failed,
               sum(u.quantity) FILTER (WHERE u.metric = 'bytes_in') AS bytes_in,
               sum(u.quantity) FILTER (WHERE u.metric = 'bytes_out') AS bytes_out
        FROM spans AS s JOIN tenant_usage AS u ON u.metric IN ('requests', 'bytes_in', 'bytes_out')
            AND u.granularity = s.granularity AND u.period_start >= s.first AND u.period_start < s.last
        GROUP BY u.tenant_id
        UNION ALL
        SELECT l.tenant_id, count(*), 0, sum(l.bytes_in), sum(l.bytes_out)
        FROM edges AS e, LATERAL (VALUES (since, least(e.first, until)), (e.last, until)) AS s (first, last),
             request_logs AS l
        WHERE l.ts >= s.first AND l.ts < s.last GROUP BY l.tenant_id
        UNION ALL
        SELECT l.tenant_id, 0, count(*), 0, 0 FROM request_logs AS l
        WHERE l.status_code >= 500 AND l.ts >= since AND l.ts < until GROUP BY l.tenant_id
    ), used AS (
        SELECT c.tenant_id, sum(c.requests)::bigint AS requests, sum(c.failed)::bigint AS failed,
               sum(c.bytes_in) AS bytes_in, sum(c.bytes_out) AS bytes_out
        FROM counted AS c GROUP BY c.tenant_id
    )
    SELECT t.id, t.slug,
           (SELECT count(*) FROM mcp_servers AS s WHERE s.tenant_id = t.id),
           (SELECT count(*) FROM tenant_members AS m WHERE m.tenant_id = t.id),
           (SELECT count(*) FROM enhanced_api_keys AS k WHERE k.tenant_id = t.id AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > now()) AND (k.not_before IS NULL OR k.not_before <= now())),
           coalesce(u.requests, 0), coalesce(u.failed, 0), coalesce(u.bytes_in, 0), coalesce(u.bytes_out, 0)
    FROM tenants AS t LEFT JOIN used AS u ON u.tenant_id = t.id
$$;

-- The owner, who makes the view, otherwise sees as little as anyone.
CREATE POLICY summaries ON tenant_usage FOR SELECT TO mcp_manager_owner USING (true);

DROP MATERIALIZED VIEW tenant_usage_daily;
CREATE MATERIALIZED VIEW tenant_usage_daily AS
SELECT u.tenant_id, u.day, u.requests, coalesce(f.requests, 0) AS failed_requests, u.bytes_in, u.bytes_out
FROM (
    SELECT tenant_id, period_start AS day,
           coalesce(sum(quantity) FILTER (WHERE metric = 'requests'), 0)::bigint AS requests,
           coalesce(sum(quantity) FILTER (WHERE metric = 'bytes_in'), 0) AS bytes_in,
           coalesce(sum(quantity) FILTER (WHERE metric = 'bytes_out'), 0) AS bytes_out
    FROM tenant_usage
    WHERE granularity = 'day' AND metric IN ('requests', 'bytes_in', 'bytes_out')
        AND period_start >= date_trunc('day', now(), 'UTC') - interval '90 days'
    GROUP BY 1, 2
) AS u
LEFT JOIN (
    SELECT tenant_id, date_trunc('day', ts, 'UTC') AS day, count(*) AS requests
    FROM request_logs
    WHERE status_code >= 500 AND ts >= date_trunc('day', now(), 'UTC') - interval '90 days'
    GROUP BY 1, 2
) AS f ON f.tenant_id = u.tenant_id AND f.day = u.day;
CREATE UNIQUE INDEX tenant_usage_daily_key ON tenant_usage_daily (tenant_id, day) NULLS NOT DISTINCT;

COMMENT ON MATERIALIZED VIEW tenant_usage_daily IS
    'Requests and bytes per tenant and day: today, and the 90 days before it.';
COMMENT ON COLUMN tenant_usage_daily.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenant_usage_daily.day IS 'Begin of the day (UTC).';
COMMENT ON COLUMN tenant_usage_daily.requests IS 'Requests.';
COMMENT ON COLUMN tenant_usage_daily.failed_requests IS 'Of these, with status 500 and up.';
COMMENT ON COLUMN tenant_usage_daily.bytes_in IS 'Bytes of request bodies.';
COMMENT ON COLUMN tenant_usage_daily.bytes_out IS 'Bytes of response bodies.';
GRANT SELECT ON tenant_usage_daily TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP MATERIALIZED VIEW tenant_usage_daily;
CREATE MATERIALIZED VIEW tenant_usage_daily AS
SELECT tenant_id, date_trunc('day', ts, 'UTC') AS day,
       count(*) AS requests, count(*) FILTER (WHERE status_code >= 500) AS failed_requests,
       sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out
FROM request_logs
WHERE ts >= now() - interval '90 days'
GROUP BY 1, 2;
CREATE UNIQUE INDEX tenant_usage_daily_key ON tenant_usage_daily (tenant_id, day) NULLS NOT DISTINCT;

COMMENT ON MATERIALIZED VIEW tenant_usage_daily IS 'Requests and bytes per tenant and day over the last 90 days.';
COMMENT ON COLUMN tenant_usage_daily.tenant_id IS 'The tenant.';
COMMENT ON COLUMN tenant_usage_daily.day IS 'Begin of the day (UTC).';
COMMENT ON COLUMN tenant_usage_daily.requests IS 'Requests.';
COMMENT ON COLUMN tenant_usage_daily.failed_requests IS 'Of these, with status 500 and up.';
COMMENT ON COLUMN tenant_usage_daily.bytes_in IS 'Bytes of request bodies.';
COMMENT ON COLUMN tenant_usage_daily.bytes_out IS 'Bytes of response bodies.';
GRANT SELECT ON tenant_usage_daily TO mcp_manager_admin;

DROP POLICY summaries ON tenant_usage;

CREATE OR REPLACE FUNCTION get_tenant_usage_summary(
    since timestamptz DEFAULT now() - interval '30 days', until timestamptz DEFAULT now()
) RETURNS TABLE (
    tenant_id uuid, tenant_slug text, servers bigint, members bigint, keys_in_force bigint,
    requests bigint, failed_requests bigint, bytes_in numeric, bytes_out numeric
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT t.id, t.slug,
           (SELECT count(*) FROM mcp_servers AS s WHERE s.tenant_id = t.id),
           (SELECT count(*) FROM tenant_members AS m WHERE m.tenant_id = t.id),
           (SELECT count(*) FROM enhanced_api_keys AS k WHERE k.tenant_id = t.id AND k.revoked_at IS NULL
                AND (k.expires_at IS NULL OR k.expires_at > now()) AND (k.not_before IS NULL OR k.not_before <= now())),
           coalesce(r.requests, 0), coalesce(r.failed, 0), coalesce(r.bytes_in, 0), coalesce(r.bytes_out, 0)
    FROM tenants AS t
    LEFT JOIN (
        SELECT l.tenant_id, count(*) AS requests, count(*) FILTER (WHERE l.status_code >= 500) AS failed,
               sum(l.bytes_in) AS bytes_in, sum(l.bytes_out) AS bytes_out
        FROM request_logs AS l WHERE l.ts >= since AND l.ts < until GROUP BY l.tenant_id
    ) AS r ON r.tenant_id = t.id
$$;

RESET ROLE;
