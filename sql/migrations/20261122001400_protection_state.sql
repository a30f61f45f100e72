-- State of breakers, pools and queues, published by each proxy instance. One row per server and instance.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE circuit_breakers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    instance text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    failure_count integer NOT NULL DEFAULT 0 CHECK (failure_count >= 0),
    open_count bigint NOT NULL DEFAULT 0 CHECK (open_count >= 0),
    opened_at timestamptz,
    next_attempt_at timestamptz,
    last_failure text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, instance),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE circuit_breakers IS
    'State of the circuit breaker of a server, as one instance sees it.';
COMMENT ON COLUMN circuit_breakers.id IS 'Identity of the row.';
COMMENT ON COLUMN circuit_breakers.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN circuit_breakers.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN circuit_breakers.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN circuit_breakers.state IS 'closed lets through, open refuses, half_open tries.';
COMMENT ON COLUMN circuit_breakers.failure_count IS 'Failures in a row.';
COMMENT ON COLUMN circuit_breakers.open_count IS 'How often it opened since the instance started.';
COMMENT ON COLUMN circuit_breakers.opened_at IS 'When it opened last.';
COMMENT ON COLUMN circuit_breakers.next_attempt_at IS 'When it will try again.';
COMMENT ON COLUMN circuit_breakers.last_failure IS 'Kind of the last failure.';
COMMENT ON COLUMN circuit_breakers.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE connection_pools (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    instance text NOT NULL DEFAULT '',
    max_connections integer NOT NULL CHECK (max_connections > 0),
    in_use integer NOT NULL DEFAULT 0 CHECK (in_use >= 0),
    idle integer NOT NULL DEFAULT 0 CHECK (idle >= 0),
    waiting integer NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    utilization double precision NOT NULL DEFAULT 0 CHECK (utilization BETWEEN 0 AND 1),
    recommended_max integer CHECK (recommended_max > 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, instance),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE connection_pools IS
    'Use of the connection pool of a server, and the size that is recommended.';
COMMENT ON COLUMN connection_pools.id IS 'Identity of the row.';
COMMENT ON COLUMN connection_pools.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN connection_pools.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN connection_pools.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN connection_pools.max_connections IS 'Size in force.';
COMMENT ON COLUMN connection_pools.in_use IS 'Connections that carry a request.';
COMMENT ON COLUMN connection_pools.idle IS 'Connections kept for the next request.';
COMMENT ON COLUMN connection_pools.waiting IS 'Requests that wait for a connection.';
COMMENT ON COLUMN connection_pools.utilization IS 'Mean share of max_connections in use.';
COMMENT ON COLUMN connection_pools.recommended_max IS 'Size that the use suggests.';
COMMENT ON COLUMN connection_pools.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE request_queues (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    instance text NOT NULL DEFAULT '',
    max_concurrent integer NOT NULL CHECK (max_concurrent > 0),
    max_pending integer NOT NULL CHECK (max_pending >= 0),
    running integer NOT NULL DEFAULT 0 CHECK (running >= 0),
    pending integer NOT NULL DEFAULT 0 CHECK (pending >= 0),
    oldest_wait_ms double precision NOT NULL DEFAULT 0 CHECK (oldest_wait_ms >= 0),
    admitted_count bigint NOT NULL DEFAULT 0 CHECK (admitted_count >= 0),
    rejected_count bigint NOT NULL DEFAULT 0 CHECK (rejected_count >= 0),
    expired_count bigint NOT NULL DEFAULT 0 CHECK (expired_count >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, instance),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE request_queues IS
    'Length of the queue before a server, and what became of those in it.';
COMMENT ON COLUMN request_queues.id IS 'Identity of the row.';
COMMENT ON COLUMN request_queues.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN request_queues.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN request_queues.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN request_queues.max_concurrent IS 'Requests served at once.';
COMMENT ON COLUMN request_queues.max_pending IS 'Requests that may wait.';
COMMENT ON COLUMN request_queues.running IS 'Requests being served.';
COMMENT ON COLUMN request_queues.pending IS 'Requests waiting.';
COMMENT ON COLUMN request_queues.oldest_wait_ms IS 'How long the first has waited, in milliseconds.';
COMMENT ON COLUMN request_queues.admitted_count IS 'Served since the instance started.';
COMMENT ON COLUMN request_queues.rejected_count IS 'Refused because the queue was full.';
COMMENT ON COLUMN request_queues.expired_count IS 'Left or timed out while waiting.';
COMMENT ON COLUMN request_queues.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE request_queues;
DROP TABLE connection_pools;
DROP TABLE circuit_breakers;

RESET ROLE;
