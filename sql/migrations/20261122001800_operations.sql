-- What operators set: alerts, retention, views to refresh, configuration at run time.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE performance_alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid,
    name text NOT NULL CHECK (name <> ''),
    metric text NOT NULL
        CHECK (metric IN ('error_rate', 'p50_ms', 'p95_ms', 'p99_ms', 'requests_per_minute', 'pool_utilization',
            'queue_pending')),
    comparison text NOT NULL DEFAULT '>' CHECK (comparison IN ('>', '>=', '<', '<=')),
    threshold double precision NOT NULL,
    window_s integer NOT NULL DEFAULT 300 CHECK (window_s > 0),
    cooldown_s integer NOT NULL DEFAULT 900 CHECK (cooldown_s >= 0),
    severity text NOT NULL DEFAULT 'medium' CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    channels jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(channels) = 'array'),
    state text NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'firing', 'acknowledged')),
    last_value double precision,
    last_triggered_at timestamptz,
    is_enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE performance_alerts IS
    'Thresholds that raise an alert, and whether it is raised.';
COMMENT ON COLUMN performance_alerts.id IS 'Identity of the row.';
COMMENT ON COLUMN performance_alerts.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN performance_alerts.server_id IS 'The server watched; null is all of the tenant.';
COMMENT ON COLUMN performance_alerts.name IS 'Name of the alert, unique in the tenant.';
COMMENT ON COLUMN performance_alerts.metric IS 'What is watched.';
COMMENT ON COLUMN performance_alerts.comparison IS 'How it is compared with the threshold.';
COMMENT ON COLUMN performance_alerts.threshold IS 'Value at which the alert is raised.';
COMMENT ON COLUMN performance_alerts.window_s IS 'Time over which the value is taken, in seconds.';
COMMENT ON COLUMN performance_alerts.cooldown_s IS 'Shortest time between two notifications, in seconds.';
COMMENT ON COLUMN performance_alerts.severity IS 'How much it matters.';
COMMENT ON COLUMN performance_alerts.channels IS 'Where notifications go.';
COMMENT ON COLUMN performance_alerts.state IS 'Whether it is raised.';
COMMENT ON COLUMN performance_alerts.last_value IS 'Value at the last check.';
COMMENT ON COLUMN performance_alerts.last_triggered_at IS 'When it was last raised.';
COMMENT ON COLUMN performance_alerts.is_enabled IS 'Whether it is checked.';
COMMENT ON COLUMN performance_alerts.created_at IS 'When the row was made.';
COMMENT ON COLUMN performance_alerts.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE data_retention_policies (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    table_name text NOT NULL
        CHECK (table_name IN ('request_logs', 'audit_logs', 'error_logs', 'security_events', 'system_events',
            'server_metrics', 'server_health_checks', 'rate_limit_violations', 'tenant_usage')),
    retention_days integer NOT NULL CHECK (retention_days > 0),
    batch_size integer NOT NULL DEFAULT 10000 CHECK (batch_size > 0),
    is_enabled boolean NOT NULL DEFAULT true,
    last_run_at timestamptz,
    last_deleted_count bigint CHECK (last_deleted_count >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, table_name)
);

COMMENT ON TABLE data_retention_policies IS
    'How long the rows of a table are kept.';
COMMENT ON COLUMN data_retention_policies.id IS 'Identity of the row.';
COMMENT ON COLUMN data_retention_policies.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN data_retention_policies.table_name IS 'The table.';
COMMENT ON COLUMN data_retention_policies.retention_days IS 'Age at which rows are deleted, in days.';
COMMENT ON COLUMN data_retention_policies.batch_size IS 'Rows deleted in one transaction.';
COMMENT ON COLUMN data_retention_policies.is_enabled IS 'Whether the policy is in force.';
COMMENT ON COLUMN data_retention_policies.last_run_at IS 'When it last ran.';
COMMENT ON COLUMN data_retention_policies.last_deleted_count IS 'Rows that it deleted then.';
COMMENT ON COLUMN data_retention_policies.created_at IS 'When the row was made.';
COMMENT ON COLUMN data_retention_policies.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE materialized_views (
    view_name text PRIMARY KEY,
    refresh_strategy text NOT NULL DEFAULT 'interval' CHECK (refresh_strategy IN ('interval', 'always', 'manual')),
    refresh_interval interval NOT NULL DEFAULT '15 minutes' CHECK (refresh_interval > '0'::interval),
    is_concurrent boolean NOT NULL DEFAULT true,
    is_enabled boolean NOT NULL DEFAULT true,
    last_refreshed_at timestamptz,
    last_duration_ms double precision CHECK (last_duration_ms >= 0),
    last_error text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE materialized_views IS
    'The materialized views of this database and when refresh_materialized_views() refreshes them.';
COMMENT ON COLUMN materialized_views.view_name IS 'Name of the view.';
COMMENT ON COLUMN materialized_views.refresh_strategy IS
    'interval: when refresh_interval has passed; always: at each call; manual: never by the function.';
COMMENT ON COLUMN materialized_views.refresh_interval IS 'Shortest time between two refreshes.';
COMMENT ON COLUMN materialized_views.is_concurrent IS
    'Whether readers may go on during a refresh; the view then needs a unique index.';
COMMENT ON COLUMN materialized_views.is_enabled IS 'Whether it is refreshed at all.';
COMMENT ON COLUMN materialized_views.last_refreshed_at IS 'When it was last refreshed.';
COMMENT ON COLUMN materialized_views.last_duration_ms IS 'How long that took, in milliseconds.';
COMMENT ON COLUMN materialized_views.last_error IS 'Why the last refresh failed; null if it did not.';
COMMENT ON COLUMN materialized_views.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE system_configs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key text NOT NULL CHECK (key <> ''),
    value jsonb NOT NULL,
    description text,
    updated_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, key)
);

COMMENT ON TABLE system_configs IS
    'Settings that are changed at run time.';
COMMENT ON COLUMN system_configs.id IS 'Identity of the row.';
COMMENT ON COLUMN system_configs.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN system_configs.key IS 'Name of the setting, unique in the tenant.';
COMMENT ON COLUMN system_configs.value IS 'Its value; secrets do not belong here.';
COMMENT ON COLUMN system_configs.description IS 'What it does.';
COMMENT ON COLUMN system_configs.updated_by IS 'Who changed it last.';
COMMENT ON COLUMN system_configs.created_at IS 'When the row was made.';
COMMENT ON COLUMN system_configs.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE system_configs;
DROP TABLE materialized_views;
DROP TABLE data_retention_policies;
DROP TABLE performance_alerts;

RESET ROLE;
