-- The registry: which MCP servers a tenant has and how to reach them.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE mcp_servers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    description text,
    endpoint_url text NOT NULL CHECK (endpoint_url ~ '^(https?|wss?)://'),
    transport_type text NOT NULL DEFAULT 'streamable_http'
        CHECK (transport_type IN ('streamable_http', 'sse', 'websocket')),
    protocol_version text,
    capabilities jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(capabilities) = 'object'),
    tags text[] NOT NULL DEFAULT '{}',
    headers jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
    options jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
    is_enabled boolean NOT NULL DEFAULT true,
    health_status text NOT NULL DEFAULT 'UNKNOWN'
        CHECK (health_status IN ('HEALTHY', 'DEGRADED', 'UNHEALTHY', 'MAINTENANCE', 'UNKNOWN')),
    avg_response_time double precision CHECK (avg_response_time >= 0),
    consecutive_failures integer NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    last_health_check_at timestamptz,
    next_health_check_at timestamptz NOT NULL DEFAULT now(),
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, id),
    UNIQUE (tenant_id, name)
);

COMMENT ON TABLE mcp_servers IS
    'The registered MCP servers. Merged over the servers of the configuration file.';
COMMENT ON COLUMN mcp_servers.id IS 'Identity of the row.';
COMMENT ON COLUMN mcp_servers.tenant_id IS 'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN mcp_servers.name IS 'Name in paths and routes, unique in the tenant.';
COMMENT ON COLUMN mcp_servers.description IS 'What it offers, for people.';
COMMENT ON COLUMN mcp_servers.endpoint_url IS 'Where requests are sent, as it is.';
COMMENT ON COLUMN mcp_servers.transport_type IS 'How it speaks MCP.';
COMMENT ON COLUMN mcp_servers.protocol_version IS 'Protocol revision it answered with last.';
COMMENT ON COLUMN mcp_servers.capabilities IS 'Capabilities it answered with last.';
COMMENT ON COLUMN mcp_servers.tags IS 'Labels for searching.';
COMMENT ON COLUMN mcp_servers.headers IS
    'Headers added to each request; secrets are named as ${NAME}, not written here.';
COMMENT ON COLUMN mcp_servers.options IS
    'timeouts, pool, breaker, health_check and queue as in the configuration file.';
COMMENT ON COLUMN mcp_servers.is_enabled IS 'Whether it takes requests.';
COMMENT ON COLUMN mcp_servers.health_status IS 'Result of the last probes.';
COMMENT ON COLUMN mcp_servers.avg_response_time IS 'Moving average of its answers, in milliseconds.';
COMMENT ON COLUMN mcp_servers.consecutive_failures IS 'Failed probes in a row.';
COMMENT ON COLUMN mcp_servers.last_health_check_at IS 'When it was last probed.';
COMMENT ON COLUMN mcp_servers.next_health_check_at IS 'When it is due to be probed again.';
COMMENT ON COLUMN mcp_servers.created_by IS 'The user who made it.';
COMMENT ON COLUMN mcp_servers.created_at IS 'When the row was made.';
COMMENT ON COLUMN mcp_servers.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE mcp_servers;

RESET ROLE;
