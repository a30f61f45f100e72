-- Users beyond one tenant: the admin plane manages them, and the snapshot reads them. The tables may be the front end's.

-- migrate:up
CREATE POLICY admin_plane ON "user" TO mcp_manager_admin USING (true) WITH CHECK (true);
CREATE POLICY snapshot ON "user" FOR SELECT TO mcp_manager_sync USING (true);
GRANT SELECT ON "user", session TO mcp_manager_sync;
GRANT SELECT (id, name, email, role, tenant_id) ON "user" TO mcp_manager_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON "user", session, account, verification, two_factor_auth TO mcp_manager_admin;

-- migrate:down
REVOKE ALL ON "user", session, account, verification, two_factor_auth FROM mcp_manager_admin;
REVOKE ALL ON "user" FROM mcp_manager_app;
REVOKE SELECT (id, name, email, role, tenant_id) ON "user" FROM mcp_manager_app;
REVOKE ALL ON "user", session FROM mcp_manager_sync;
DROP POLICY snapshot ON "user";
DROP POLICY admin_plane ON "user";
