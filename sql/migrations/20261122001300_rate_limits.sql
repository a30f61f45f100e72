-- Limits, and where they were exceeded.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE rate_limit_configs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    level text NOT NULL CHECK (level IN ('global', 'tenant', 'tier', 'key', 'server', 'tool', 'client_address')),
    subject text,
    capacity integer NOT NULL CHECK (capacity > 0),
    refill_per_minute double precision NOT NULL CHECK (refill_per_minute > 0),
    cost double precision NOT NULL DEFAULT 1 CHECK (cost > 0),
    window_s integer CHECK (window_s > 0),
    window_limit integer CHECK (window_limit > 0),
    on_store_error text NOT NULL DEFAULT 'local' CHECK (on_store_error IN ('local', 'deny', 'allow')),
    is_enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name),
    CHECK ((window_s IS NULL) = (window_limit IS NULL))
);

COMMENT ON TABLE rate_limit_configs IS
    'Token buckets, some with a sliding window besides.';
COMMENT ON COLUMN rate_limit_configs.id IS 'Identity of the row.';
COMMENT ON COLUMN rate_limit_configs.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN rate_limit_configs.name IS 'Name of the rule, unique in the tenant.';
COMMENT ON COLUMN rate_limit_configs.level IS 'What has a bucket of its own.';
COMMENT ON COLUMN rate_limit_configs.subject IS 'The one tier, key, server, tool or address meant; null is each.';
COMMENT ON COLUMN rate_limit_configs.capacity IS 'Most tokens in the bucket: the burst.';
COMMENT ON COLUMN rate_limit_configs.refill_per_minute IS 'Tokens that come back per minute.';
COMMENT ON COLUMN rate_limit_configs.cost IS 'Tokens that one request takes.';
COMMENT ON COLUMN rate_limit_configs.window_s IS 'Length of the sliding window, in seconds.';
COMMENT ON COLUMN rate_limit_configs.window_limit IS 'Most requests in the sliding window.';
COMMENT ON COLUMN rate_limit_configs.on_store_error IS 'What holds while Redis is away.';
COMMENT ON COLUMN rate_limit_configs.is_enabled IS 'Whether the rule is in force.';
COMMENT ON COLUMN rate_limit_configs.created_at IS 'When the row was made.';
COMMENT ON COLUMN rate_limit_configs.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE rate_limit_violations (
    id uuid NOT NULL,
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    rule_id uuid,
    level text NOT NULL,
    subject text NOT NULL,
    client_ip inet,
    limit_value double precision,
    retry_after_s double precision CHECK (retry_after_s >= 0),
    blocked_until timestamptz,
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE rate_limit_violations_default PARTITION OF rate_limit_violations DEFAULT;

COMMENT ON TABLE rate_limit_violations IS
    'Requests refused for a limit.';
COMMENT ON COLUMN rate_limit_violations.id IS 'Identity of the record (UUIDv7, born with the request).';
COMMENT ON COLUMN rate_limit_violations.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN rate_limit_violations.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN rate_limit_violations.rule_id IS 'The rule, when it is a row of rate_limit_configs.';
COMMENT ON COLUMN rate_limit_violations.level IS 'Level of the rule.';
COMMENT ON COLUMN rate_limit_violations.subject IS 'Whose bucket was empty.';
COMMENT ON COLUMN rate_limit_violations.client_ip IS 'Address of the client.';
COMMENT ON COLUMN rate_limit_violations.limit_value IS 'Capacity or window limit at that time.';
COMMENT ON COLUMN rate_limit_violations.retry_after_s IS 'What the client was told to wait, in seconds.';
COMMENT ON COLUMN rate_limit_violations.blocked_until IS 'Until when the address is blocked; null if it is not.';

SELECT describe_partition('rate_limit_violations', 'rate_limit_violations_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE rate_limit_violations;
DROP TABLE rate_limit_configs;

RESET ROLE;
