-- updated_at is set by the database, so that nobody forgets it. Tables of Better-Auth set theirs themselves.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION touch_updated_at() IS 'Trigger: the row changes now.';

DO $$
DECLARE
    target regclass;
BEGIN
    FOR target IN
        SELECT a.attrelid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.attname = 'updated_at' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND c.relowner = 'mcp_manager_owner'::regrole AND c.relnamespace = 'public'::regnamespace
          AND c.relname NOT IN ('user', 'session', 'account', 'verification')
    LOOP
        EXECUTE format('CREATE TRIGGER touch_updated_at BEFORE UPDATE ON %s FOR EACH ROW'
                       ' EXECUTE FUNCTION touch_updated_at()', target);
    END LOOP;
END
$$;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION touch_updated_at() CASCADE; -- with its triggers

RESET ROLE;
