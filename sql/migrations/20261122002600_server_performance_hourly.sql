-- Requests per server and hour, for charts. Row level security does not reach materialized views: the admin plane
-- only.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE MATERIALIZED VIEW server_performance_hourly AS
SELECT tenant_id, server_id, date_trunc('hour', ts, 'UTC') AS hour,
       count(*) AS requests, count(*) FILTER (WHERE status_code >= 500) AS failed_requests,
       avg(duration_ms) AS avg_ms, percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
FROM request_logs
WHERE ts >= now() - interval '7 days'
GROUP BY 1, 2, 3;
CREATE UNIQUE INDEX server_performance_hourly_key ON server_performance_hourly (tenant_id, server_id, hour) NULLS NOT DISTINCT;

COMMENT ON MATERIALIZED VIEW server_performance_hourly IS 'Requests per server and hour over the last 7 days.';
COMMENT ON COLUMN server_performance_hourly.tenant_id IS 'The tenant.';
COMMENT ON COLUMN server_performance_hourly.server_id IS 'The server; null for requests that reached none.';
COMMENT ON COLUMN server_performance_hourly.hour IS 'Begin of the hour (UTC).';
COMMENT ON COLUMN server_performance_hourly.requests IS 'Requests.';
COMMENT ON COLUMN server_performance_hourly.failed_requests IS 'Of these, with status 500 and up.';
COMMENT ON COLUMN server_performance_hourly.avg_ms IS 'Mean duration, in milliseconds.';
COMMENT ON COLUMN server_performance_hourly.p95_ms IS '95th percentile of the duration, in milliseconds.';
GRANT SELECT ON server_performance_hourly TO mcp_manager_admin;

INSERT INTO materialized_views (view_name, refresh_interval) VALUES ('server_performance_hourly', '5 minutes');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DELETE FROM materialized_views WHERE view_name = 'server_performance_hourly';
DROP MATERIALIZED VIEW server_performance_hourly;

RESET ROLE;
