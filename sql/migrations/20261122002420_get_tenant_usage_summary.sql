-- What each tenant has and uses. Runs with the rights of the caller.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION get_tenant_usage_summary(
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
COMMENT ON FUNCTION get_tenant_usage_summary(timestamptz, timestamptz) IS
    'Per tenant: servers, members, keys in force now, and requests and bytes from since until before until.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION get_tenant_usage_summary(timestamptz, timestamptz);

RESET ROLE;
