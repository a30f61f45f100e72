-- Indexes of the registry: finding servers, and what they offer.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX idx_mcp_servers_tenant_status ON mcp_servers (tenant_id, health_status);
COMMENT ON INDEX idx_mcp_servers_tenant_status IS 'Servers of a tenant in a state.';
CREATE INDEX idx_mcp_servers_endpoint_transport ON mcp_servers (endpoint_url, transport_type);
COMMENT ON INDEX idx_mcp_servers_endpoint_transport IS 'Whether an endpoint is registered already.';
CREATE INDEX idx_mcp_servers_tags ON mcp_servers USING gin (tags);
COMMENT ON INDEX idx_mcp_servers_tags IS 'Servers by label.';
CREATE INDEX idx_mcp_servers_due ON mcp_servers (next_health_check_at) WHERE is_enabled;
COMMENT ON INDEX idx_mcp_servers_due IS 'Servers to be probed next.';
CREATE INDEX idx_server_tools_name_server ON server_tools (name, server_id);
COMMENT ON INDEX idx_server_tools_name_server IS 'Which servers offer a tool.';
CREATE INDEX idx_server_tools_usage ON server_tools (tenant_id, usage_count DESC);
COMMENT ON INDEX idx_server_tools_usage IS 'The tools that a tenant uses most.';
CREATE INDEX idx_server_resources_uri ON server_resources (uri_template text_pattern_ops);
COMMENT ON INDEX idx_server_resources_uri IS 'Resources below a URI.';
CREATE INDEX idx_server_prompts_search ON server_prompts
    USING gin (to_tsvector('simple', name || ' ' || coalesce(description, '')));
COMMENT ON INDEX idx_server_prompts_search IS 'Prompts by words.';
CREATE INDEX idx_servers_discovery_composite ON mcp_servers (health_status, transport_type, avg_response_time)
    WHERE health_status IN ('HEALTHY', 'DEGRADED');
COMMENT ON INDEX idx_servers_discovery_composite IS 'The fastest servers that can be used now.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX idx_servers_discovery_composite;
DROP INDEX idx_server_prompts_search;
DROP INDEX idx_server_resources_uri;
DROP INDEX idx_server_tools_usage;
DROP INDEX idx_server_tools_name_server;
DROP INDEX idx_mcp_servers_due;
DROP INDEX idx_mcp_servers_tags;
DROP INDEX idx_mcp_servers_endpoint_transport;
DROP INDEX idx_mcp_servers_tenant_status;

RESET ROLE;
