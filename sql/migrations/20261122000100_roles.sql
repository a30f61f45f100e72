-- Five roles without login. Operators grant them to the users that the proxy and the front end log in as. A role belongs
-- to the whole cluster, and another database may use it: the way down takes every right here, and leaves the roles.

-- migrate:up
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'mcp_manager_owner', 'mcp_manager_app', 'mcp_manager_audit', 'mcp_manager_admin', 'mcp_manager_sync'
    ] LOOP
        IF to_regrole(role_name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    -- The later files make everything in the owner's name (SET LOCAL ROLE).
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT mcp_manager_owner TO %I', current_user);
    END IF;
END
$$;

GRANT USAGE, CREATE ON SCHEMA public TO mcp_manager_owner;
GRANT USAGE ON SCHEMA public TO mcp_manager_app, mcp_manager_audit, mcp_manager_admin, mcp_manager_sync;

-- migrate:down
REVOKE USAGE, CREATE ON SCHEMA public FROM mcp_manager_owner;
REVOKE USAGE ON SCHEMA public FROM mcp_manager_app, mcp_manager_audit, mcp_manager_admin, mcp_manager_sync;
