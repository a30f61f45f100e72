-- Verification asks for the heads of a range of time; there is one a minute for each segment in use and tenant. Heads
-- come in the order of their time, so a few bytes for many pages tell where to look.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX audit_heads_by_time ON audit_heads USING brin (last_ts);
COMMENT ON INDEX audit_heads_by_time IS 'Heads of a range of time.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX audit_heads_by_time;

RESET ROLE;
