-- Counted use per tenant and period, for quotas and invoices.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE tenant_usage (
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    period_start timestamptz NOT NULL,
    granularity text NOT NULL CHECK (granularity IN ('minute', 'hour', 'day', 'month')),
    metric text NOT NULL CHECK (metric <> ''),
    quantity bigint NOT NULL DEFAULT 0 CHECK (quantity >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, period_start, granularity, metric)
) PARTITION BY RANGE (period_start);
CREATE TABLE tenant_usage_default PARTITION OF tenant_usage DEFAULT;

COMMENT ON TABLE tenant_usage IS
    'What a tenant used, summed per period: the base of quotas and invoices.';
COMMENT ON COLUMN tenant_usage.tenant_id IS 'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN tenant_usage.period_start IS 'Begin of the period; the partition key.';
COMMENT ON COLUMN tenant_usage.granularity IS 'Length of the period.';
COMMENT ON COLUMN tenant_usage.metric IS 'What is counted: requests, errors, tool_calls, bytes_in, bytes_out.';
COMMENT ON COLUMN tenant_usage.quantity IS 'How many in the period.';
COMMENT ON COLUMN tenant_usage.updated_at IS 'When the row last changed; set by a trigger.';

SELECT describe_partition('tenant_usage', 'tenant_usage_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE tenant_usage;

RESET ROLE;
