-- The index of users, whose table may be the front end's.

-- migrate:up
CREATE INDEX idx_users_tenant_role ON "user" (tenant_id, role);
COMMENT ON INDEX idx_users_tenant_role IS 'Users of a tenant in a role.';

-- migrate:down
DROP INDEX idx_users_tenant_role;
