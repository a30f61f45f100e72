-- Alerts as they are evaluated: for how long a value must be bad or good again, numbers of the process itself, and a
-- row for each time that one fired.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE performance_alerts
    ADD COLUMN clear_threshold double precision,
    ADD COLUMN for_s integer NOT NULL DEFAULT 0 CHECK (for_s >= 0),
    ADD COLUMN keep_firing_s integer NOT NULL DEFAULT 0 CHECK (keep_firing_s >= 0),
    ADD COLUMN min_requests integer NOT NULL DEFAULT 0 CHECK (min_requests >= 0),
    DROP CONSTRAINT performance_alerts_metric_check,
    ADD CONSTRAINT performance_alerts_metric_check
        CHECK (metric IN ('error_rate', 'p50_ms', 'p95_ms', 'p99_ms', 'requests_per_minute', 'pool_utilization',
            'queue_pending', 'breaker_open', 'spool_share', 'postgres_away', 'redis_away', 'loop_lag_ms',
            'memory_share')),
    ADD CONSTRAINT performance_alerts_process_check
        CHECK (metric NOT IN ('spool_share', 'postgres_away', 'redis_away', 'loop_lag_ms', 'memory_share')
            OR tenant_id = '00000000-0000-0000-0000-000000000000');

COMMENT ON COLUMN performance_alerts.clear_threshold IS
    'The value is good again here and beyond; null is a tenth of the threshold on its good side.';
COMMENT ON COLUMN performance_alerts.for_s IS 'The value must have been bad for so long, in seconds.';
COMMENT ON COLUMN performance_alerts.keep_firing_s IS
    'The value must have been good for so long until the alert ends, in seconds.';
COMMENT ON COLUMN performance_alerts.min_requests IS
    'With fewer requests within the window there is no value.';
COMMENT ON CONSTRAINT performance_alerts_process_check ON performance_alerts IS
    'What concerns the process itself is watched for the system tenant only.';

CREATE TABLE alert_events (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    alert_id uuid,
    name text NOT NULL CHECK (name <> ''),
    instance text NOT NULL,
    server text,
    metric text NOT NULL,
    comparison text NOT NULL CHECK (comparison IN ('>', '>=', '<', '<=')),
    threshold double precision NOT NULL,
    value double precision NOT NULL,
    severity text NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    resolved_at timestamptz,
    ended text CHECK (ended IN ('clear', 'missing', 'removed', 'stopped', 'lost')),
    CHECK (resolved_at >= started_at),
    CHECK ((resolved_at IS NULL) = (ended IS NULL))
);

COMMENT ON TABLE alert_events IS
    'Each time that an alert fired, as one instance of the proxy saw it.';
COMMENT ON COLUMN alert_events.id IS 'Identity of the row; time-ordered (UUIDv7).';
COMMENT ON COLUMN alert_events.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN alert_events.alert_id IS
    'The row of performance_alerts, which may be gone; null for a rule of the configuration file.';
COMMENT ON COLUMN alert_events.name IS 'Name of the alert.';
COMMENT ON COLUMN alert_events.instance IS 'The instance of the proxy that saw it.';
COMMENT ON COLUMN alert_events.server IS 'The server, where each is watched by itself.';
COMMENT ON COLUMN alert_events.metric IS 'What was watched.';
COMMENT ON COLUMN alert_events.comparison IS 'How it was compared with the threshold.';
COMMENT ON COLUMN alert_events.threshold IS 'The threshold at that time.';
COMMENT ON COLUMN alert_events.value IS 'The last value that was seen while it fired, or that ended it.';
COMMENT ON COLUMN alert_events.severity IS 'How much it matters.';
COMMENT ON COLUMN alert_events.started_at IS 'When it began to fire.';
COMMENT ON COLUMN alert_events.seen_at IS
    'When the instance last said so; five minutes without a word, and the instance is gone.';
COMMENT ON COLUMN alert_events.resolved_at IS 'When it ended; null while it fires.';
COMMENT ON COLUMN alert_events.ended IS
    'Why: clear (the value is good), missing (no value), removed (the rule), stopped or lost (the instance).';

CREATE INDEX alert_events_recent ON alert_events (tenant_id, started_at);
COMMENT ON INDEX alert_events_recent IS 'Lists what happened of late.';
CREATE INDEX alert_events_open ON alert_events (alert_id) WHERE resolved_at IS NULL;
COMMENT ON INDEX alert_events_open IS 'Finds whether an alert fires in some instance.';

SELECT isolate_tenant_rows('alert_events');
CREATE POLICY admin_plane ON alert_events TO mcp_manager_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON alert_events TO mcp_manager_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON alert_events TO mcp_manager_admin;
-- Every instance evaluates the rules of all tenants; it reads them only.
CREATE POLICY snapshot ON performance_alerts FOR SELECT TO mcp_manager_sync USING (true);
GRANT SELECT ON performance_alerts TO mcp_manager_sync;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

REVOKE SELECT ON performance_alerts FROM mcp_manager_sync;
DROP POLICY snapshot ON performance_alerts;
DROP TABLE alert_events;
-- Rules of metrics that are not known any more go; row level security would hide them from the owner.
CREATE POLICY down ON performance_alerts TO mcp_manager_owner USING (true);
DELETE FROM performance_alerts
    WHERE metric IN ('breaker_open', 'spool_share', 'postgres_away', 'redis_away', 'loop_lag_ms', 'memory_share');
DROP POLICY down ON performance_alerts;
ALTER TABLE performance_alerts
    DROP CONSTRAINT performance_alerts_process_check,
    DROP CONSTRAINT performance_alerts_metric_check,
    ADD CONSTRAINT performance_alerts_metric_check
        CHECK (metric IN ('error_rate', 'p50_ms', 'p95_ms', 'p99_ms', 'requests_per_minute', 'pool_utilization',
            'queue_pending')),
    DROP COLUMN min_requests,
    DROP COLUMN keep_firing_s,
    DROP COLUMN for_s,
    DROP COLUMN clear_threshold;

RESET ROLE;
