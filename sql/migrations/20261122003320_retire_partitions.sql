-- A partition goes in two steps: it is detached, for which nobody waits longer than lock_timeout, and then dropped, when
-- nobody else knows it any more. In between its rows can be read, to be archived.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION retire_partition(partition text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' SET lock_timeout = '100ms' AS $$
DECLARE
    found record;
    until timestamptz;
    aside text;
    foreign_key text;
BEGIN
    SELECT c.oid, c.relname, i.inhparent::regclass AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound INTO found
    FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_class p ON p.oid = i.inhparent
    WHERE c.relname = partition AND c.relkind = 'r' AND p.relkind = 'p'
      AND c.relnamespace = 'public'::regnamespace AND c.relowner = 'mcp_manager_owner'::regrole;
    until := (regexp_match(found.bound, $r$ TO \('([^']+)'\)$r$))[1]::timestamptz;
    IF until IS NULL OR until > now() - interval '1 day' THEN
        RAISE EXCEPTION 'retire_partition: not a partition of a time that is over by a day'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    aside := found.relname || '_retired_' || found.oid;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %I', found.parent, found.relname);
    -- With a foreign key left, dropping the table would lock the servers.
    FOR foreign_key IN SELECT conname FROM pg_constraint WHERE conrelid = found.oid AND contype = 'f' LOOP
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', found.relname, foreign_key);
    END LOOP;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', found.relname, aside);
    EXECUTE format('COMMENT ON TABLE %I IS %L', aside, 'Former partition of ' || found.parent || '; to be dropped.');
    EXECUTE format('GRANT SELECT ON %I TO mcp_manager_admin', aside);
    EXECUTE format('CREATE POLICY admin_plane ON %I FOR SELECT TO mcp_manager_admin USING (true)', aside);
    RETURN aside;
END
$$;
REVOKE ALL ON FUNCTION retire_partition(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION retire_partition(text) TO mcp_manager_admin;
COMMENT ON FUNCTION retire_partition(text) IS
    'Detaches a partition whose time is over by a day, and returns the name under which it can be read and dropped.';

CREATE FUNCTION drop_retired_partition(retired text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_class WHERE relname = retired AND relkind = 'r' AND NOT relispartition
            AND relname LIKE '%\_retired\_' || oid
            AND relnamespace = 'public'::regnamespace AND relowner = 'mcp_manager_owner'::regrole
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', retired);
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION drop_retired_partition(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_retired_partition(text) TO mcp_manager_admin;
COMMENT ON FUNCTION drop_retired_partition(text) IS
    'Drops a partition that retire_partition() detached; false when there is none of this name.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION drop_retired_partition(text);
DROP FUNCTION retire_partition(text);

RESET ROLE;
