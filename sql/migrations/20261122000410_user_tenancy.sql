-- A user's home tenant, and row level security on users. The data plane sees the users of one tenant; whoever else was
-- granted the table (the front end) goes on seeing what it saw.

-- migrate:up
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN SELECT * FROM (VALUES
        ('role', 'text DEFAULT ''user''', 'Role in the installation; decides the scopes of a session.'),
        ('tenant_id', 'uuid REFERENCES tenants (id) ON DELETE SET NULL', 'Home tenant; null until the user joins one.')
    ) AS wanted (name, kind, words)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_attribute
                       WHERE attrelid = 'public."user"'::regclass AND attname = col.name AND NOT attisdropped) THEN
            EXECUTE format('ALTER TABLE public."user" ADD COLUMN %I %s', col.name, col.kind);
            EXECUTE format('COMMENT ON COLUMN public."user".%I IS %L',
                           col.name, col.words || ' (added by MCP Manager)');
        END IF;
    END LOOP;
END
$$;

ALTER TABLE "user" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON "user"
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
CREATE POLICY front_end ON "user"
    USING (NOT (SELECT pg_has_role(current_user, 'mcp_manager_app', 'MEMBER')))
    WITH CHECK (NOT (SELECT pg_has_role(current_user, 'mcp_manager_app', 'MEMBER')));
COMMENT ON POLICY front_end ON "user" IS
    'For the data plane only the policy of its tenant holds; others keep their grants.';

-- migrate:down
DROP POLICY front_end ON "user";
DROP POLICY tenant_isolation ON "user";
ALTER TABLE "user" DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
    col name;
BEGIN
    FOR col IN
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'public."user"'::regclass AND attnum > 0 AND NOT attisdropped
          AND col_description(attrelid, attnum) LIKE '% (added by MCP Manager)'
    LOOP
        EXECUTE format('ALTER TABLE public."user" DROP COLUMN %I', col);
    END LOOP;
END
$$;
