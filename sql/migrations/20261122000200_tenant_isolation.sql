-- The rule of row level security, in one place: a row is seen and written only by its tenant, which is the one that
-- app.tenant names in this transaction. Without it there are no rows.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION isolate_tenant_rows(target regclass, tenant_column text DEFAULT 'tenant_id') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    rule text := format('%I = nullif(current_setting(''app.tenant'', true), '''')::uuid', tenant_column);
BEGIN
    -- FORCE: the owner of the table is no exception.
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY tenant_isolation ON %s USING (%s) WITH CHECK (%s)', target, rule, rule);
END
$$;
REVOKE ALL ON FUNCTION isolate_tenant_rows(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION isolate_tenant_rows(regclass, text) IS
    'Enables and forces row level security on a table and adds the policy of its tenant.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION isolate_tenant_rows(regclass, text);

RESET ROLE;
