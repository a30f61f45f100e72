-- How requests fared, per server. Runs with the rights of the caller.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION get_request_performance_summary(
    since timestamptz DEFAULT now() - interval '1 hour', until timestamptz DEFAULT now()
) RETURNS TABLE (
    server_id uuid, total_requests bigint, failed_requests bigint, error_percent double precision,
    avg_ms double precision, p50_ms double precision, p95_ms double precision, p99_ms double precision,
    bytes_in numeric, bytes_out numeric
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT r.server_id, count(*), count(*) FILTER (WHERE r.status_code >= 500),
           100.0 * count(*) FILTER (WHERE r.status_code >= 500) / count(*),
           avg(r.duration_ms),
           percentile_cont(0.50) WITHIN GROUP (ORDER BY r.duration_ms),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY r.duration_ms),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY r.duration_ms),
           sum(r.bytes_in), sum(r.bytes_out)
    FROM request_logs AS r
    WHERE r.ts >= since AND r.ts < until
    GROUP BY r.server_id
$$;
COMMENT ON FUNCTION get_request_performance_summary(timestamptz, timestamptz) IS
    'Per server: requests from since until before until, of these failed (status 500 and up), and their durations.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION get_request_performance_summary(timestamptz, timestamptz);

RESET ROLE;
