-- Limits that only watch, and prices by method and tool.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE rate_limit_configs
    ADD COLUMN enforce boolean NOT NULL DEFAULT true,
    ADD COLUMN costs jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(costs) = 'object');

COMMENT ON COLUMN rate_limit_configs.enforce IS
    'Whether requests are refused; false only counts and records those that would be.';
COMMENT ON COLUMN rate_limit_configs.costs IS
    'Other prices than cost: {"methods": {"tools/list": 2}, "tools": {"server/tool": 10}}; names may end in *.';
COMMENT ON COLUMN rate_limit_configs.cost IS 'Tokens that a request takes which costs names no price for.';
COMMENT ON COLUMN rate_limit_configs.subject IS
    'The one tenant, tier, key, server, tool (server/tool) or address meant, perhaps with * at its end; null is each.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE rate_limit_configs DROP COLUMN costs, DROP COLUMN enforce;
COMMENT ON COLUMN rate_limit_configs.cost IS 'Tokens that one request takes.';
COMMENT ON COLUMN rate_limit_configs.subject IS 'The one tier, key, server, tool or address meant; null is each.';

RESET ROLE;
