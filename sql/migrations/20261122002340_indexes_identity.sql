-- Indexes of identity and access, and of use per tenant.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX idx_tenant_members_user ON tenant_members (user_id);
COMMENT ON INDEX idx_tenant_members_user IS 'The tenants of a user.';
CREATE INDEX idx_enhanced_api_keys_active ON enhanced_api_keys (tenant_id, created_at DESC)
    WHERE revoked_at IS NULL;
COMMENT ON INDEX idx_enhanced_api_keys_active IS 'Keys of a tenant that are in force.';
CREATE INDEX idx_enhanced_api_keys_expiry ON enhanced_api_keys (expires_at)
    WHERE revoked_at IS NULL AND expires_at IS NOT NULL;
COMMENT ON INDEX idx_enhanced_api_keys_expiry IS 'Keys that expire next.';
CREATE INDEX idx_access_rules_composite ON server_access_control (tenant_id, server_id, priority DESC)
    WHERE is_enabled;
COMMENT ON INDEX idx_access_rules_composite IS 'Rules of a server in the order in which they are asked.';
CREATE INDEX idx_tenant_usage_composite ON tenant_usage (metric, granularity, period_start) INCLUDE (tenant_id, quantity);
COMMENT ON INDEX idx_tenant_usage_composite IS 'Use of all tenants over a time, from the index alone.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX idx_tenant_usage_composite;
DROP INDEX idx_access_rules_composite;
DROP INDEX idx_enhanced_api_keys_expiry;
DROP INDEX idx_enhanced_api_keys_active;
DROP INDEX idx_tenant_members_user;

RESET ROLE;
