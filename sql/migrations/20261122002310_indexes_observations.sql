-- Indexes of measurements: one server over time, one tenant over time.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX idx_server_metrics_server_time ON server_metrics (server_id, recorded_at DESC);
COMMENT ON INDEX idx_server_metrics_server_time IS 'Measurements of a server, newest first.';
CREATE INDEX idx_server_metrics_tenant_time ON server_metrics (tenant_id, recorded_at DESC);
COMMENT ON INDEX idx_server_metrics_tenant_time IS 'Measurements of a tenant, newest first.';
CREATE INDEX idx_server_health_checks_server_time ON server_health_checks (server_id, checked_at DESC);
COMMENT ON INDEX idx_server_health_checks_server_time IS 'Probes of a server, newest first.';
CREATE INDEX idx_server_health_checks_failed ON server_health_checks (tenant_id, checked_at DESC) WHERE status <> 'HEALTHY';
COMMENT ON INDEX idx_server_health_checks_failed IS 'Failed probes of a tenant, newest first.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX idx_server_health_checks_failed;
DROP INDEX idx_server_health_checks_server_time;
DROP INDEX idx_server_metrics_tenant_time;
DROP INDEX idx_server_metrics_server_time;

RESET ROLE;
