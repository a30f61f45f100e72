-- Requests per tenant and day, for invoices and charts. The admin plane only.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

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

INSERT INTO materialized_views (view_name, refresh_interval) VALUES ('tenant_usage_daily', '1 hour');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DELETE FROM materialized_views WHERE view_name = 'tenant_usage_daily';
DROP MATERIALIZED VIEW tenant_usage_daily;

RESET ROLE;
