-- Who may do what. Row level security decides on which rows. Nobody but the owner may do anything to a partition
-- itself.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

-- The data plane, inside one tenant: the registry and what it learns and measures.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    mcp_servers, server_tools, server_resources, server_prompts, routing_rules, server_access_control,
    rate_limit_configs, circuit_breakers, connection_pools, request_queues, performance_alerts, tenant_usage,
    feature_flags, maintenance_windows, system_announcements, announcement_acknowledgments
    TO mcp_manager_app;
GRANT SELECT, INSERT ON server_metrics, server_health_checks, rate_limit_violations TO mcp_manager_app;
GRANT SELECT ON
    tenants, tenant_members, tenant_invitations, enhanced_api_keys, api_keys, api_tokens,
    request_logs, audit_logs, error_logs, security_events, system_events, data_retention_policies, system_configs
    TO mcp_manager_app;
-- It counts the use of credentials, and cannot make, widen or revoke one.
GRANT UPDATE (last_used_at, usage_count, last_used_ip, updated_at) ON enhanced_api_keys TO mcp_manager_app;
GRANT UPDATE (last_used_at, usage_count, updated_at) ON api_keys, api_tokens TO mcp_manager_app;

-- The writer of the trail adds.
GRANT INSERT ON request_logs, audit_logs, error_logs, security_events, system_events TO mcp_manager_audit;

-- The snapshot reads.
GRANT SELECT ON
    tenants, tenant_members, mcp_servers, routing_rules, enhanced_api_keys, api_keys, api_tokens,
    server_access_control, rate_limit_configs, feature_flags, maintenance_windows, system_configs
    TO mcp_manager_sync;

-- The admin plane manages everything but the past.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    mcp_servers, server_tools, server_resources, server_prompts, routing_rules, server_access_control,
    rate_limit_configs, circuit_breakers, connection_pools, request_queues, performance_alerts, tenant_usage,
    feature_flags, maintenance_windows, system_announcements, announcement_acknowledgments,
    tenants, tenant_members, tenant_invitations, enhanced_api_keys, api_keys, api_tokens,
    data_retention_policies, materialized_views, system_configs
    TO mcp_manager_admin;
GRANT SELECT, INSERT, DELETE ON
    request_logs, audit_logs, error_logs, security_events, system_events,
    server_metrics, server_health_checks, rate_limit_violations
    TO mcp_manager_admin;
GRANT UPDATE (resolved_at, resolved_by) ON error_logs, security_events TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DO $$
DECLARE
    target regclass;
BEGIN
    FOR target IN
        SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
          AND relowner = 'mcp_manager_owner'::regrole
          AND relname NOT IN ('user', 'session', 'account', 'verification', 'two_factor_auth')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM mcp_manager_app, mcp_manager_audit, mcp_manager_sync, mcp_manager_admin',
                       target);
    END LOOP;
END
$$;

RESET ROLE;
