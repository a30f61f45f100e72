-- Row level security on every table with a tenant, its partitions included. The policies of other roles are added here
-- too; a role without any sees nothing.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

DO $$
DECLARE
    target record;
BEGIN
    FOR target IN
        SELECT c.oid::regclass AS name, c.relispartition AS is_partition
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.attname = 'tenant_id' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND c.relname <> 'user'
          AND c.relowner = 'mcp_manager_owner'::regrole AND c.relnamespace = 'public'::regnamespace
        ORDER BY c.relname
    LOOP
        PERFORM isolate_tenant_rows(target.name);
        -- Nobody is granted a partition itself; the policies of its parent decide.
        IF NOT target.is_partition THEN
            EXECUTE format('CREATE POLICY admin_plane ON %s TO mcp_manager_admin USING (true) WITH CHECK (true)',
                           target.name);
        END IF;
    END LOOP;
END
$$;

SELECT isolate_tenant_rows('tenants', 'id');
CREATE POLICY admin_plane ON tenants TO mcp_manager_admin USING (true) WITH CHECK (true);

-- The writer of the trail adds rows for all tenants, and reads none.
CREATE POLICY audit_writer ON request_logs FOR INSERT TO mcp_manager_audit WITH CHECK (true);
CREATE POLICY audit_writer ON audit_logs FOR INSERT TO mcp_manager_audit WITH CHECK (true);
CREATE POLICY audit_writer ON error_logs FOR INSERT TO mcp_manager_audit WITH CHECK (true);
CREATE POLICY audit_writer ON security_events FOR INSERT TO mcp_manager_audit WITH CHECK (true);
CREATE POLICY audit_writer ON system_events FOR INSERT TO mcp_manager_audit WITH CHECK (true);

-- The snapshot of the data plane is made from these tables, of all tenants; the role reads, and reads nothing else.
CREATE POLICY snapshot ON tenants FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON tenant_members FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON mcp_servers FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON routing_rules FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON enhanced_api_keys FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON api_keys FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON api_tokens FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON server_access_control FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON rate_limit_configs FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON feature_flags FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON maintenance_windows FOR SELECT TO mcp_manager_sync USING (true);
CREATE POLICY snapshot ON system_configs FOR SELECT TO mcp_manager_sync USING (true);

-- The materialized views are made by their owner, who otherwise sees as little as anyone.
CREATE POLICY summaries ON request_logs FOR SELECT TO mcp_manager_owner USING (true);

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DO $$
DECLARE
    target record;
BEGIN
    FOR target IN SELECT polname AS policy, polrelid::regclass AS relation FROM pg_policy
        WHERE polrelid <> 'public."user"'::regclass
          AND (SELECT relowner FROM pg_class WHERE oid = polrelid) = 'mcp_manager_owner'::regrole
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', target.policy, target.relation);
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', target.relation);
    END LOOP;
END
$$;

RESET ROLE;
