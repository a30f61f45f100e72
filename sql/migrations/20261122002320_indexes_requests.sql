-- Indexes of the request log. Each costs every insert a little: only what an operator asks for, partial where that is
-- rare.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX idx_request_logs_tenant_time ON request_logs (tenant_id, ts DESC);
COMMENT ON INDEX idx_request_logs_tenant_time IS 'Requests of a tenant, newest first.';
CREATE INDEX idx_request_logs_server_time ON request_logs (server_id, ts DESC);
COMMENT ON INDEX idx_request_logs_server_time IS 'Requests to a server, newest first.';
CREATE INDEX idx_request_logs_time ON request_logs USING brin (ts) WITH (pages_per_range = 32);
COMMENT ON INDEX idx_request_logs_time IS 'All requests of a time; a few pages, since rows arrive in order.';
CREATE INDEX idx_request_logs_errors ON request_logs (tenant_id, ts DESC) WHERE status_code >= 500;
COMMENT ON INDEX idx_request_logs_errors IS 'Failed requests of a tenant, newest first.';
CREATE INDEX idx_request_logs_slow ON request_logs (tenant_id, duration_ms DESC) WHERE duration_ms >= 1000;
COMMENT ON INDEX idx_request_logs_slow IS 'The slowest requests of a tenant.';
CREATE INDEX idx_request_logs_key_time ON request_logs (api_key_id, ts DESC) WHERE api_key_id IS NOT NULL;
COMMENT ON INDEX idx_request_logs_key_time IS 'What a key was used for.';
CREATE INDEX idx_request_logs_tool_time ON request_logs (tenant_id, tool_name, ts DESC)
    WHERE tool_name IS NOT NULL;
COMMENT ON INDEX idx_request_logs_tool_time IS 'Calls of a tool.';
CREATE INDEX idx_request_logs_trace ON request_logs (trace_id) WHERE trace_id IS NOT NULL;
COMMENT ON INDEX idx_request_logs_trace IS 'The requests of a trace.';
CREATE INDEX idx_requests_performance_composite ON request_logs (server_id, method, ts DESC) INCLUDE (duration_ms, status_code);
COMMENT ON INDEX idx_requests_performance_composite IS 'Durations of a method on a server, from the index alone.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX idx_requests_performance_composite;
DROP INDEX idx_request_logs_trace;
DROP INDEX idx_request_logs_tool_time;
DROP INDEX idx_request_logs_key_time;
DROP INDEX idx_request_logs_slow;
DROP INDEX idx_request_logs_errors;
DROP INDEX idx_request_logs_time;
DROP INDEX idx_request_logs_server_time;
DROP INDEX idx_request_logs_tenant_time;

RESET ROLE;
