-- How servers do, over time.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE server_metrics (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    recorded_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    instance text NOT NULL DEFAULT '',
    window_s integer NOT NULL CHECK (window_s > 0),
    request_count bigint NOT NULL DEFAULT 0 CHECK (request_count >= 0),
    error_count bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    avg_ms double precision CHECK (avg_ms >= 0),
    p50_ms double precision CHECK (p50_ms >= 0),
    p95_ms double precision CHECK (p95_ms >= 0),
    p99_ms double precision CHECK (p99_ms >= 0),
    bytes_in bigint NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out bigint NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    open_streams integer NOT NULL DEFAULT 0 CHECK (open_streams >= 0),
    PRIMARY KEY (id, recorded_at),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
) PARTITION BY RANGE (recorded_at);
CREATE TABLE server_metrics_default PARTITION OF server_metrics DEFAULT;

COMMENT ON TABLE server_metrics IS
    'Traffic of a server, summed per window.';
COMMENT ON COLUMN server_metrics.id IS 'Identity of the row.';
COMMENT ON COLUMN server_metrics.recorded_at IS 'End of the window; the partition key.';
COMMENT ON COLUMN server_metrics.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_metrics.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN server_metrics.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN server_metrics.window_s IS 'Length of the window, in seconds.';
COMMENT ON COLUMN server_metrics.request_count IS 'Requests in the window.';
COMMENT ON COLUMN server_metrics.error_count IS 'Of these, failed.';
COMMENT ON COLUMN server_metrics.avg_ms IS 'Mean duration, in milliseconds.';
COMMENT ON COLUMN server_metrics.p50_ms IS 'Median duration, in milliseconds.';
COMMENT ON COLUMN server_metrics.p95_ms IS '95th percentile of the duration, in milliseconds.';
COMMENT ON COLUMN server_metrics.p99_ms IS '99th percentile of the duration, in milliseconds.';
COMMENT ON COLUMN server_metrics.bytes_in IS 'Bytes of request bodies.';
COMMENT ON COLUMN server_metrics.bytes_out IS 'Bytes of response bodies.';
COMMENT ON COLUMN server_metrics.open_streams IS 'Streams open at the end of the window.';

SELECT describe_partition('server_metrics', 'server_metrics_default');

CREATE TABLE server_health_checks (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    checked_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    instance text NOT NULL DEFAULT '',
    kind text NOT NULL CHECK (kind IN ('http', 'mcp', 'websocket', 'tcp')),
    status text NOT NULL CHECK (status IN ('HEALTHY', 'DEGRADED', 'UNHEALTHY', 'MAINTENANCE', 'UNKNOWN')),
    response_time_ms double precision CHECK (response_time_ms >= 0),
    status_code integer,
    error text,
    PRIMARY KEY (id, checked_at),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
) PARTITION BY RANGE (checked_at);
CREATE TABLE server_health_checks_default PARTITION OF server_health_checks DEFAULT;

COMMENT ON TABLE server_health_checks IS
    'Every probe of a server and its result.';
COMMENT ON COLUMN server_health_checks.id IS 'Identity of the row.';
COMMENT ON COLUMN server_health_checks.checked_at IS 'When the probe ended; the partition key.';
COMMENT ON COLUMN server_health_checks.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_health_checks.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN server_health_checks.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN server_health_checks.kind IS 'How it was probed.';
COMMENT ON COLUMN server_health_checks.status IS 'What the probe found.';
COMMENT ON COLUMN server_health_checks.response_time_ms IS 'Duration of the probe, in milliseconds.';
COMMENT ON COLUMN server_health_checks.status_code IS 'HTTP status, when there was one.';
COMMENT ON COLUMN server_health_checks.error IS 'Why it failed, without input of the peer.';

SELECT describe_partition('server_health_checks', 'server_health_checks_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE server_health_checks;
DROP TABLE server_metrics;

RESET ROLE;
