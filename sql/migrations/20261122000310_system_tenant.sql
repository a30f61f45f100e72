-- The system tenant owns what concerns all: rules, flags and announcements for everyone, and records of requests whose
-- tenant is not known. So tenant_id is never null, and no policy needs an exception.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

INSERT INTO tenants (id, slug, name, plan)
VALUES ('00000000-0000-0000-0000-000000000000', 'system', 'System', 'enterprise');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DELETE FROM tenants WHERE id = '00000000-0000-0000-0000-000000000000';

RESET ROLE;
