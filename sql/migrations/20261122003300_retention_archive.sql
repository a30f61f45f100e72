-- Rows that a policy deletes may be written to a file first; and there are policies for two more tables.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE data_retention_policies ADD COLUMN archive boolean NOT NULL DEFAULT false;
ALTER TABLE data_retention_policies DROP CONSTRAINT data_retention_policies_table_name_check;
ALTER TABLE data_retention_policies ADD CONSTRAINT data_retention_policies_table_name_check
    CHECK (table_name IN ('request_logs', 'audit_logs', 'error_logs', 'security_events', 'system_events',
        'server_metrics', 'server_health_checks', 'rate_limit_violations', 'tenant_usage',
        'audit_heads', 'api_key_usage'));
COMMENT ON COLUMN data_retention_policies.archive IS
    'Whether rows are written to a file of the archive before they are deleted.';
COMMENT ON COLUMN data_retention_policies.is_enabled IS
    'Whether the policy is in force; one that is not counts as absent.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

COMMENT ON COLUMN data_retention_policies.is_enabled IS 'Whether the policy is in force.';
-- FORCE hides the rows from the owner as from anyone.
ALTER TABLE data_retention_policies NO FORCE ROW LEVEL SECURITY;
DELETE FROM data_retention_policies WHERE table_name IN ('audit_heads', 'api_key_usage');
ALTER TABLE data_retention_policies FORCE ROW LEVEL SECURITY;
ALTER TABLE data_retention_policies DROP CONSTRAINT data_retention_policies_table_name_check;
ALTER TABLE data_retention_policies ADD CONSTRAINT data_retention_policies_table_name_check
    CHECK (table_name IN ('request_logs', 'audit_logs', 'error_logs', 'security_events', 'system_events',
        'server_metrics', 'server_health_checks', 'rate_limit_violations', 'tenant_usage'));
ALTER TABLE data_retention_policies DROP COLUMN archive;

RESET ROLE;
