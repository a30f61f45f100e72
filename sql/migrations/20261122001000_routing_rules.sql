-- Routes of a tenant, merged over those of the configuration file.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE routing_rules (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    description text,
    path text NOT NULL CHECK (path LIKE '/%'),
    priority integer NOT NULL DEFAULT 0,
    conditions jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(conditions) = 'object'),
    target_servers jsonb NOT NULL CHECK (jsonb_typeof(target_servers) = 'array' AND target_servers <> '[]'),
    load_balancing_strategy text NOT NULL DEFAULT 'round_robin'
        CHECK (load_balancing_strategy IN ('round_robin', 'weighted', 'least_connections', 'random', 'power_of_two',
            'consistent_hash', 'priority')),
    options jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
    is_enabled boolean NOT NULL DEFAULT true,
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

COMMENT ON TABLE routing_rules IS
    'Routes: which requests go to which servers, and how the server is chosen.';
COMMENT ON COLUMN routing_rules.id IS 'Identity of the row.';
COMMENT ON COLUMN routing_rules.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN routing_rules.name IS 'Name of the route, unique in the tenant.';
COMMENT ON COLUMN routing_rules.description IS 'What it is for.';
COMMENT ON COLUMN routing_rules.path IS 'Path that clients use; may end in *.';
COMMENT ON COLUMN routing_rules.priority IS 'Higher is asked first.';
COMMENT ON COLUMN routing_rules.conditions IS '`when` of the configuration file.';
COMMENT ON COLUMN routing_rules.target_servers IS 'Names of servers, or objects with name and weight.';
COMMENT ON COLUMN routing_rules.load_balancing_strategy IS 'How one of the servers is chosen.';
COMMENT ON COLUMN routing_rules.options IS 'Every other key of a route in the configuration file.';
COMMENT ON COLUMN routing_rules.is_enabled IS 'Whether the route is in force.';
COMMENT ON COLUMN routing_rules.created_by IS 'The user who made it.';
COMMENT ON COLUMN routing_rules.created_at IS 'When the row was made.';
COMMENT ON COLUMN routing_rules.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE routing_rules;

RESET ROLE;
